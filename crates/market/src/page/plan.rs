//! What a wallet is asked for: transactions, one after the other, each shown before it is.
//!
//! A plan is encoded here, from the same bindings as everywhere, and stands on the page as it will be sent: the contract,
//! the function, the amounts, the bytes. The page's script only hands it to the wallet, one step at a time. Nothing is kept
//! and no key is near: whoever asks for a plan gets a page. Who makes the market lie gets what any web page gets that
//! speaks to a wallet, which is why the wallet's own words, and not the page's, are what counts.

use alloy_primitives::{Address, Bytes, U256, hex};
use alloy_sol_types::SolCall;
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use chain::{Revert, abi::Erc20};
use maud::{Markup, html};
use protocol::amount::Amount;
use serde::Deserialize;

use super::{Asked, Fault, Page, assets, words};
use crate::Problem;

/// The longest revert that is told in words, in bytes.
const LONGEST: usize = 4_096;

/// What a wallet is to do, and for whom.
#[derive(Debug)]
pub(super) struct Plan {
    /// Who has to send it.
    pub(super) from: Address,
    pub(super) steps: Vec<Step>,
    /// Where what was done is seen.
    pub(super) then: String,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct Step {
    what: String,
    contract: &'static str,
    to: Address,
    signature: &'static str,
    call: Vec<u8>,
    allowance: Option<Allowance>,
}

/// That a contract may take tokens: so many, and only where it may not yet.
#[derive(Debug)]
struct Allowance {
    /// The question how many it may take already.
    current: Vec<u8>,
    needed: Needed,
}

/// How many tokens are needed.
#[derive(Debug)]
pub(super) enum Needed {
    Exactly(Amount),
    /// What a contract answers, as the mirror does not know it.
    Asked {
        to: Address,
        call: Vec<u8>,
    },
}

impl Step {
    /// A call of a contract.
    pub(super) fn call<C: SolCall>(
        what: String,
        contract: &'static str,
        to: Address,
        call: &C,
    ) -> Self {
        let signature = C::SIGNATURE;
        Self { what, contract, to, signature, call: call.abi_encode(), allowance: None }
    }

    /// Lets `spender` take as many of `owner`'s tokens as are needed, unless it may already.
    pub(super) fn allow(
        page: &Page,
        (name, spender): (&str, Address),
        owner: Address,
        needed: Needed,
    ) -> Self {
        let what = match &needed {
            Needed::Exactly(amount) => {
                format!("Let {name} take {} out of your wallet", page.money(*amount))
            }
            Needed::Asked { .. } => format!("Let {name} take the deposit out of your wallet"),
        };
        let amount = match &needed {
            Needed::Exactly(amount) => U256::from(amount.0),
            Needed::Asked { .. } => U256::ZERO,
        };
        Self {
            what,
            contract: "Token",
            to: page.market.deployment().token,
            signature: Erc20::approveCall::SIGNATURE,
            call: Erc20::approveCall { spender, amount }.abi_encode(),
            allowance: Some(Allowance {
                current: Erc20::allowanceCall { owner, spender }.abi_encode(),
                needed,
            }),
        }
    }
}

/// What a page says where there is no script, or no wallet.
pub(super) fn without(verb: &str) -> Markup {
    html! {
        noscript {
            p { "To do this here takes a browser wallet and scripts. Without them: " code { "roadstead " (verb) } "." }
        }
    }
}

/// The place where a wallet is connected.
pub(super) fn wallet(page: &Page) -> Markup {
    let token = page.token();
    html! {
        section id="wallet" data-chain=(page.market.deployment().chain_id) data-symbol=(token.symbol)
            data-decimals=(token.decimals) data-token=(page.market.deployment().token.to_string())
            data-balance=(hex::encode_prefixed(Erc20::balanceOfCall::SELECTOR)) {
            h2 { "Wallet" }
            div class="buttons" {}
            p role="status" {}
        }
        script type="module" src=(assets::WALLET.path()) {}
    }
}

/// A plan, with the place where it is carried out.
pub(super) fn show(page: &Page, plan: &Plan, verb: &str) -> Markup {
    html! {
        (without(verb))
        p { "To be sent by " code { (plan.from.to_string()) } ", in this order:" }
        ol id="plan" class="steps" data-from=(plan.from.to_string()) data-then=(plan.then) {
            @for step in &plan.steps {
                li data-to=(step.to.to_string()) data-call=(hex::encode_prefixed(&step.call))
                    data-allowance=[step.allowance.as_ref().map(|allowance| hex::encode_prefixed(&allowance.current))]
                    data-needed=[step.allowance.as_ref().and_then(exactly)]
                    data-needed-to=[step.allowance.as_ref().and_then(asked).map(|(to, _)| to.to_string())]
                    data-needed-call=[step.allowance.as_ref().and_then(asked).map(|(_, call)| hex::encode_prefixed(call))] {
                    strong class="what" { (step.what) }
                    span class="small" { (step.contract) " " code { (step.to.to_string()) } }
                    details {
                        summary { code { (step.signature) } }
                        code class="bytes" { (hex::encode_prefixed(&step.call)) }
                    }
                    p class="status" role="status" {}
                }
            }
        }
        (wallet(page))
    }
}

fn exactly(allowance: &Allowance) -> Option<String> {
    match &allowance.needed {
        Needed::Exactly(amount) => Some(amount.0.to_string()),
        Needed::Asked { .. } => None,
    }
}

fn asked(allowance: &Allowance) -> Option<(Address, &[u8])> {
    match &allowance.needed {
        Needed::Exactly(_) => None,
        Needed::Asked { to, call } => Some((*to, call)),
    }
}

/// A field of a form, with what was typed and what is wrong with it.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) hint: &'static str,
    pub(super) text: String,
    pub(super) fault: Option<String>,
}

impl Field {
    /// A field with what was typed, or else what stands there at first.
    pub(super) fn new(
        name: &'static str,
        title: &'static str,
        hint: &'static str,
        typed: Option<&String>,
        usual: &str,
    ) -> Self {
        let text = typed.map_or_else(|| usual.to_owned(), |typed| words::clean(typed.trim(), 300));
        Self { name, title, hint, text, fault: None }
    }

    /// Reads what was typed; notes what is wrong with it.
    pub(super) fn read<T>(&mut self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(&self.text) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.fault = Some(fault);
                None
            }
        }
    }

    pub(super) fn show(&self, asked: bool) -> Markup {
        let fault = self.fault.as_ref().filter(|_| asked);
        let (hint_id, fault_id) = (format!("{}-hint", self.name), format!("{}-fault", self.name));
        let described = match fault {
            Some(_) => format!("{fault_id} {hint_id}"),
            None => hint_id.clone(),
        };
        html! {
            div class="field" {
                label for=(self.name) { (self.title) }
                input id=(self.name) name=(self.name) value=(self.text) maxlength="300" autocomplete="off"
                    aria-invalid=[fault.map(|_| "true")] aria-describedby=(described);
                @if let Some(fault) = fault { p class="fault" id=(fault_id) { (words::clean(fault, 300)) } }
                p class="small" id=(hint_id) { (self.hint) }
            }
        }
    }
}

/// The data of a revert.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refused {
    data: String,
}

/// Why a contract refused, in words.
pub(super) async fn revert(
    market: axum::extract::State<std::sync::Arc<crate::Market>>,
    Asked(refused): Asked<Refused>,
) -> Result<Response, Fault> {
    let data: Bytes = refused
        .data
        .parse()
        .ok()
        .filter(|data: &Bytes| data.len() <= LONGEST)
        .ok_or_else(|| {
            Problem::bad(
                "data is not what a contract reverts with: 0x and up to 8192 hexadecimal digits",
            )
        })?;
    let told = Revert::decode(&data).told(market.token()).to_string();
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, words::clean(&told, 1_000)).into_response())
}

/// An address that somebody typed.
pub(super) fn typed_address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_err| format!("{text:?} is no address: 0x and 40 hexadecimal digits"))
}
