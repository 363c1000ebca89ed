//! What a wallet can do here: pay in and take out, place an order, award or take it back, close a lease.

use alloy_primitives::{Address, B256, aliases::U24, aliases::U40};
use axum::extract::Path;
use chain::abi::{Auction, IAuction, Leases, Payments};
use maud::{Markup, html};
use protocol::{
    amount::{Amount, Rate, Token, Units},
    lease::CloseReason,
};
use serde::Deserialize;
use store::{
    account::clock_of,
    agent::{self, Agent},
    approval::{self, Approval},
    auction::{Auction as Order, State as OrderState},
    market,
    row::Row as _,
};

use super::{
    Asked, Fault, Page, Shown, account, number,
    plan::{self, Field, Needed, Plan, Step, typed_address},
    words,
};
use crate::Problem;

/// What an order says unless somebody says otherwise, as with `roadstead order place`.
const GRACE: u16 = 60;
const FULL: u16 = 3_600;
const RESPONSE: u16 = 300;
const NOTICE: u32 = 86_400;
const START_WITHIN: u16 = 600;

/// For how long the first approval of an account holds, in seconds.
const ALLOWANCE: u64 = 365 * 86_400;

/// For how long an approval has to hold yet to be left as it is, in seconds.
const LEFT: u64 = 86_400;

/// The longest that bids are taken, in minutes.
const MAX_MINUTES: u32 = 30 * 24 * 60;

/// How many slots are looked at for a free one.
const SLOTS: u32 = 200;

fn bad(words: String) -> Fault {
    Problem::bad(words).into()
}

/// A form that is asked for with `get`, so that what it leads to has an address.
fn form(path: &str, fields: &[&Field], asked: bool, button: &str, more: &Markup) -> Markup {
    html! {
        form action=(path) method="get" class="form" {
            @for field in fields { (field.show(asked)) }
            (more)
            button class="main" { (button) }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Funding {
    owner: Option<String>,
    salt: Option<B256>,
    amount: Option<String>,
}

/// Pays tokens into an account.
pub(super) async fn fund(page: Page, Asked(asked): Asked<Funding>) -> Result<Shown, Fault> {
    let salt = asked.salt.unwrap_or_default();
    let hint = "The address of your wallet, which comes to own the account.";
    let mut owner = Field::new("owner", "Owner", hint, asked.owner.as_ref(), "");
    let hint = "In whole tokens, as in 12.5.";
    let mut amount = Field::new("amount", "Amount", hint, asked.amount.as_ref(), "");
    let who = owner.read(typed_address);
    let much = amount.read(|text| positive(text, &page));
    let is_asked = asked.amount.is_some();
    let ready = who.zip(much);
    let more =
        html! { @if !salt.is_zero() { input type="hidden" name="salt" value=(salt.to_string()); } };
    let body = html! {
        h1 { "Fund an account" }
        p class="lede" { "An account in Payments holds tokens, and pays by the second for the leases that it has. What is not locked can be taken out again." }
        (form("/fund", &[&owner, &amount], is_asked, "See what that takes", &more))
        @if let Some((who, much)) = ready.filter(|_| is_asked) {
            @let account = chain::account_id(who, salt);
            @let d = page.market.deployment();
            @let plan = Plan {
                from: who,
                steps: vec![
                    Step::allow(&page, ("Payments", d.payments), who, Needed::Exactly(much)),
                    Step::call(
                        format!("Pay {} into the account", page.money(much)),
                        "Payments", d.payments,
                        &Payments::depositCall { owner: who, salt, amount: alloy_primitives::U256::from(much.0) },
                    ),
                ],
                then: format!("/accounts/{account}"),
            };
            h2 id="asked" { "What your wallet is asked for" }
            (plan::show(&page, &plan, "fund"))
        } @else {
            (plan::without("fund"))
            (plan::wallet(&page))
        }
    };
    Ok(page.show("Fund an account", "/fund", &body))
}

fn positive(text: &str, page: &Page) -> Result<Amount, String> {
    let amount = Amount::parse(text, page.token()).map_err(|err| err.to_string())?;
    if amount.0 == 0 || amount.units().is_none() {
        return Err(format!("{text:?} is not an amount that can be paid"));
    }
    Ok(amount)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {
    amount: Option<String>,
}

/// Takes tokens out of an account.
pub(super) async fn withdraw(
    mut page: Page,
    Path(id): Path<String>,
    Asked(asked): Asked<Withdrawal>,
) -> Result<Shown, Fault> {
    let account = account::named(&mut page, &id).await?;
    let mut clock = clock_of(&account);
    clock.settle(page.now());
    let most = Units(clock.free.0.saturating_sub(clock.lockup.0)).collectable();
    let hint = "In whole tokens; what is locked for leases that run has to stay.";
    let mut field =
        Field::new("amount", "Amount", hint, asked.amount.as_ref(), &most.display(page.token()));
    let much = field.read(|text| {
        let much = positive(text, &page)?;
        if much > most {
            return Err(format!("{} can be taken out at present", page.money(most)));
        }
        Ok(much)
    });
    let is_asked = asked.amount.is_some();
    let path = format!("/accounts/{}", account.id);
    let body = html! {
        h1 { "Take tokens out" }
        p { "Of account " (super::account_link(account.id)) ", to its owner " code { (account.owner.to_string()) } "." }
        (form(&format!("{path}/withdraw"), &[&field], is_asked, "See what that takes", &html! {}))
        @if let Some(much) = much.filter(|_| is_asked) {
            @let plan = Plan {
                from: account.owner,
                steps: vec![Step::call(
                    format!("Take {} out of the account", page.money(much)),
                    "Payments", page.market.deployment().payments,
                    &Payments::withdrawCall { id: account.id, to: account.owner, amount: alloy_primitives::U256::from(much.0) },
                )],
                then: path.clone(),
            };
            h2 id="asked" { "What your wallet is asked for" }
            (plan::show(&page, &plan, "withdraw"))
        }
    };
    Ok(page.show("Take tokens out", "", &body))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Placing {
    owner: Option<String>,
    pod: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
    storage: Option<String>,
    max: Option<String>,
    coverage: Option<String>,
    minutes: Option<String>,
    lock: Option<String>,
    uri: Option<String>,
    award: Option<String>,
}

/// An order as it is typed, field by field.
#[derive(Debug)]
struct Draft {
    fields: Vec<Field>,
    order: Option<(Address, IAuction::Order)>,
}

fn draft(token: &Token, asked: &Placing) -> Draft {
    let mut fields = Vec::new();
    let mut take = |field: Field| {
        fields.push(field);
        fields.len() - 1
    };
    let owner = take(Field::new(
        "owner",
        "Owner",
        "The address of your wallet; its account pays.",
        asked.owner.as_ref(),
        "",
    ));
    let pod = take(Field::new(
        "pod",
        "Hash of the pod",
        "As roadstead check shows it: 0x and 64 hexadecimal digits.",
        asked.pod.as_ref(),
        "",
    ));
    let cpu = take(Field::new("cpu", "Processors", "As in 0.5.", asked.cpu.as_ref(), "1"));
    let memory = take(Field::new(
        "memory",
        "Memory in MiB",
        "Of all containers together.",
        asked.memory.as_ref(),
        "512",
    ));
    let storage = take(Field::new(
        "storage",
        "Storage in MiB",
        "Of all volumes together.",
        asked.storage.as_ref(),
        "0",
    ));
    let max = take(Field::new(
        "max",
        "The most it may cost",
        "Per s, m, h, d or mo, as in 0.02/h.",
        asked.max.as_ref(),
        "",
    ));
    let coverage = take(Field::new(
        "coverage",
        "Coverage",
        "What of the provider's bond backs the lease, in whole tokens.",
        asked.coverage.as_ref(),
        "0",
    ));
    let minutes = take(Field::new(
        "minutes",
        "Minutes for bids",
        "For how long bids are taken.",
        asked.minutes.as_ref(),
        "10",
    ));
    let lock = take(Field::new(
        "lock",
        "Minutes locked in advance",
        "That much of the price stays in the account, so that the provider is paid to the end.",
        asked.lock.as_ref(),
        "60",
    ));
    let uri = take(Field::new(
        "uri",
        "Where bidders find the pod",
        "An address on the web, or nothing: then they know its size and its hash alone.",
        asked.uri.as_ref(),
        "",
    ));
    let whole = |text: &str, most: u64| -> Result<u64, String> {
        let number: Option<u64> = text.parse().ok();
        number
            .filter(|number| *number <= most)
            .ok_or_else(|| format!("{text:?} is no whole number up to {most}"))
    };
    let owner = fields[owner].read(typed_address);
    let pod = fields[pod].read(|text| {
        text.parse::<B256>()
            .map_err(|_err| format!("{text:?} is no hash of a pod: 0x and 64 hexadecimal digits"))
    });
    let cpu = fields[cpu]
        .read(|text| text.parse::<protocol::resources::Cpu>().map_err(|err| err.to_string()));
    let memory = fields[memory].read(|text| whole(text, 1 << 40));
    let storage = fields[storage].read(|text| whole(text, 1 << 40));
    let max = fields[max].read(|text| match Rate::parse(text, token) {
        Ok(Rate(0)) => Err("nobody bids for nothing".to_owned()),
        Ok(rate) => Ok(rate),
        Err(err) => Err(err.to_string()),
    });
    let coverage =
        fields[coverage].read(|text| Amount::parse(text, token).map_err(|err| err.to_string()));
    let minutes = fields[minutes].read(|text| match whole(text, MAX_MINUTES.into())? {
        0 => Err("bids have to be taken for a minute at least".to_owned()),
        minutes => Ok(u32::try_from(minutes).unwrap_or(MAX_MINUTES)),
    });
    let lock = fields[lock]
        .read(|text| Ok(u32::try_from(whole(text, 366 * 24 * 60)?).unwrap_or_default()));
    let uri = fields[uri].read(|text| match text.len() {
        0..=256 => Ok(text.to_owned()),
        long => Err(format!("it has {long} bytes, and 256 are the most")),
    });
    let order = (|| {
        let owner = owner?;
        let order = IAuction::Order {
            account: chain::account_id(owner, B256::ZERO),
            slot: 0,
            pod: pod?,
            cpu: cpu?.0,
            memoryMiB: memory?,
            storageMiB: storage?,
            maxRate: max?.0,
            coverage: coverage?.0,
            lock: lock? * 60,
            grace: U24::from(GRACE),
            full: U24::from(FULL),
            response: U24::from(RESPONSE),
            notice: U24::from(NOTICE),
            startWithin: U24::from(START_WITHIN),
            duration: minutes? * 60,
            selfAward: asked.award.is_some(),
            requirements: Vec::new(),
            uri: uri?,
        };
        Some((owner, order))
    })();
    Draft { fields, order }
}

/// Places an order.
pub(super) async fn place(mut page: Page, Asked(asked): Asked<Placing>) -> Result<Shown, Fault> {
    let is_asked = asked.pod.is_some() || asked.max.is_some();
    let Draft { fields, order } = draft(page.token(), &asked);
    let plan = match order.filter(|_| is_asked) {
        Some((owner, order)) => Some(placing(&mut page, owner, order).await?),
        None => None,
    };
    let shown: Vec<&Field> = fields.iter().collect();
    let more = html! {
        div class="field" {
            label { input type="checkbox" name="award" value="yes" checked[asked.award.is_some()]; " Anybody may award it to the leader once its time is over" }
        }
    };
    let body = html! {
        h1 { "Place an order" }
        p class="lede" {
            "Say what is to run and what it may cost at most; providers underbid one another. A deposit is locked until the order is over. "
            "Outages are free up to " (words::span(GRACE.into())) " and cost the whole coverage from " (words::span(FULL.into())) "; a challenge is answered within "
            (words::span(RESPONSE.into())) ", a provider gives " (words::span(NOTICE.into())) " of notice, and starts the pod within " (words::span(START_WITHIN.into())) "."
        }
        p class="small" {
            "Whoever wins needs the pod itself, its images and its secrets, which this page does not have: " code { "roadstead order award" } " sends them."
        }
        (form("/orders/new", &shown, is_asked, "See what that takes", &more))
        @match plan {
            Some(Ok(plan)) => {
                h2 id="asked" { "What your wallet is asked for" }
                (plan::show(&page, &plan, "order place"))
            }
            Some(Err(words)) => { p class="warning" role="alert" { (words) } (plan::wallet(&page)) }
            None => { (plan::without("order place")) (plan::wallet(&page)) }
        }
    };
    Ok(page.show("Place an order", "/orders", &body))
}

/// What an order takes, as its account stands; or why it cannot be placed.
async fn placing(
    page: &mut Page,
    owner: Address,
    mut order: IAuction::Order,
) -> Result<Result<Plan, Markup>, Fault> {
    let id = order.account;
    let d = page.market.deployment().clone();
    let Some(account) = market::account(page.conn(), id).await? else {
        return Ok(Err(html! {
            "The account of this owner holds nothing yet. " a href={ "/fund?owner=" (owner.to_string()) } { "Fund it" } " first."
        }));
    };
    let Some(slot) = free_slot(page, id).await? else {
        return Ok(Err(html! { "The account has no free slot among its first " (SLOTS) "." }));
    };
    order.slot = slot;
    let key = agent::Key { account: id, agent: d.auction };
    let acts = Agent::load(page.conn(), &[key]).await?.pop().is_some_and(|agent| agent.allowed);
    let key = approval::Key { account: id, operator: d.leases };
    let approval = Approval::load(page.conn(), &[key]).await?.pop();
    let mut clock = clock_of(&account);
    clock.settle(page.now());
    let rate = Rate(order.maxRate);
    let needed = rate.times(order.lock.into()).map(|units| units.0.saturating_add(clock.lockup.0));
    if needed.is_none_or(|needed| needed > clock.free.0) {
        return Ok(Err(html! {
            "The account holds " (page.balance(clock.free)) ", of which " (page.balance(clock.lockup)) " are locked; to lock "
            (words::span(order.lock.into())) " of " (page.per_hour(rate)) " takes more. "
            a href={ "/fund?owner=" (owner.to_string()) } { "Fund it" } " first, or lock less."
        }));
    }
    let mut steps = Vec::new();
    if !acts {
        let what = "Let Auction open leases for the account: the winner's".to_owned();
        let call = Leases::setAgentCall { account: id, agent: d.auction, allowed: true };
        steps.push(Step::call(what, "Leases", d.leases, &call));
    }
    if let Some(wanted) = wider(approval.as_ref(), rate, order.lock, page.now()) {
        let what = format!(
            "Let Leases spend up to {} of the account, {} more than it does now",
            page.per_hour(wanted.rate_limit),
            page.per_hour(rate)
        );
        let call = Payments::approveCall {
            id,
            operator: d.leases,
            rateLimit: wanted.rate_limit.0,
            payLimit: wanted.pay_limit.0,
            maxLock: wanted.max_lock,
            expiry: U40::saturating_from(wanted.expiry),
        };
        steps.push(Step::call(what, "Payments", d.payments, &call));
    }
    let deposit = Needed::Asked {
        to: d.auction,
        call: alloy_sol_types::SolCall::abi_encode(&Auction::DEPOSITCall {}),
    };
    steps.push(Step::allow(page, ("Auction", d.auction), owner, deposit));
    let what = format!(
        "Place the order: at most {}, bids for {}",
        page.per_hour(rate),
        words::span(order.duration.into())
    );
    steps.push(Step::call(what, "Auction", d.auction, &Auction::placeCall { order }));
    Ok(Ok(Plan { from: owner, steps, then: format!("/orders?account={id}") }))
}

/// The first slot of an account that no lease has, no order is to fill, and no app owns.
async fn free_slot(page: &mut Page, account: B256) -> Result<Option<u32>, Fault> {
    let leases = market::open_leases_of_account(page.conn(), account, None, SLOTS).await?;
    let orders = market::open_orders_of_account(page.conn(), account, None, SLOTS).await?;
    let apps = market::apps_of_account(page.conn(), account, None, SLOTS).await?;
    Ok((0..SLOTS).find(|slot| {
        let leased = leases.iter().any(|lease| lease.slot == *slot);
        let ordered = orders.iter().any(|order| order.slot == *slot);
        let owned = apps.iter().any(|app| {
            app.retired_at.is_none()
                && (app.slot..app.slot.saturating_add(app.replicas)).contains(slot)
        });
        !leased && !ordered && !owned
    }))
}

/// What Leases has to be let do so that an account carries another stream; nothing if it may already.
fn wider(current: Option<&Approval>, rate: Rate, lock: u32, now: u64) -> Option<Approval> {
    let used = current.map_or(0, |current| current.rate_used.0).saturating_add(rate.0);
    let valid = current.filter(|current| current.expiry > now + LEFT);
    if valid.is_some_and(|valid| valid.rate_limit.0 >= used && valid.max_lock >= lock) {
        return None;
    }
    let (limit, pay_limit, max_lock, expiry) = valid.map_or((0, Units(0), 0, 0), |valid| {
        (valid.rate_limit.0, valid.pay_limit, valid.max_lock, valid.expiry)
    });
    Some(Approval {
        account: B256::ZERO,
        operator: Address::ZERO,
        rate_limit: Rate(limit.max(used)),
        rate_used: Rate(0),
        pay_limit,
        max_lock: max_lock.max(lock),
        expiry: expiry.max(now + ALLOWANCE),
    })
}

/// An order as it was placed.
fn placed(order: &Order) -> IAuction::Order {
    let requirements = order
        .requirements
        .iter()
        .map(|one| IAuction::Requirement { auditor: one.auditor, attribute: one.attribute });
    IAuction::Order {
        account: order.account,
        slot: order.slot,
        pod: order.pod,
        cpu: order.cpu,
        memoryMiB: order.memory_mib,
        storageMiB: order.storage_mib,
        maxRate: order.max_rate.0,
        coverage: order.coverage.0,
        lock: order.lock,
        grace: U24::saturating_from(order.grace),
        full: U24::saturating_from(order.full),
        response: U24::saturating_from(order.response),
        notice: U24::saturating_from(order.notice),
        startWithin: U24::saturating_from(order.start_within),
        duration: order.duration,
        selfAward: order.self_award,
        requirements: requirements.collect(),
        uri: order.uri.clone(),
    }
}

/// What can be done with an order; nothing for who does not pay for it.
pub(super) fn on_order(order: &Order) -> Markup {
    html! {
        @match order.state {
            OrderState::Open => {
                p class="buttons" {
                    @if order.leader.is_some() { a class="button" href={ "/orders/" (order.id) "/award" } { "Award it" } }
                    a class="button" href={ "/orders/" (order.id) "/cancel" } { "Take it back" }
                }
            }
            OrderState::Over => { p class="buttons" { a class="button" href={ "/orders/" (order.id) "/claim" } { "Claim the deposit" } } }
            OrderState::Awarded => {
                p class="buttons" { a class="button" href={ "/orders/" (order.id) "/settle" } { "Settle it" } }
                p class="small" { "Once its lease was started, which brings the deposit back, or closed without that, which opens it again." }
            }
        }
    }
}

/// Awards an order, takes it back, settles it, or claims its deposit.
pub(super) async fn order(
    mut page: Page,
    Path((id, verb)): Path<(String, String)>,
) -> Result<Shown, Fault> {
    let id = number(&id)?;
    let order = market::order(page.conn(), id).await?;
    let order = order.ok_or_else(|| Problem::missing(format!("there is no order {id}")))?;
    let owner = market::account(page.conn(), order.account).await?.map(|account| account.owner);
    let auction = page.market.deployment().auction;
    let not_now =
        |what: &str| bad(format!("order {id} cannot be {what} as it stands; see /orders/{id}"));
    let (title, from, step, verb) = match (verb.as_str(), order.state) {
        ("award", OrderState::Open) if order.leader.is_some() => {
            let what = format!("Make order {id} a lease at {}", page.per_hour(order.rate));
            let call = Auction::awardCall { id, order: placed(&order) };
            (
                "Award",
                owner.unwrap_or(order.payer),
                Step::call(what, "Auction", auction, &call),
                "order award",
            )
        }
        ("award", _) => return Err(not_now("awarded")),
        ("cancel", OrderState::Open) => {
            let call = Auction::cancelCall { id };
            let step = Step::call(format!("Take order {id} back"), "Auction", auction, &call);
            ("Take back", owner.unwrap_or(order.payer), step, "order cancel")
        }
        ("cancel", _) => return Err(not_now("taken back")),
        ("settle", OrderState::Awarded) => {
            let call = Auction::settleCall { id };
            let step = Step::call(format!("Settle order {id}"), "Auction", auction, &call);
            ("Settle", order.payer, step, "order settle")
        }
        ("settle", _) => return Err(not_now("settled")),
        ("claim", _) => {
            let call = Auction::claimCall { to: order.payer };
            let what = "Claim the deposits of your orders that are over".to_owned();
            (
                "Claim the deposit of",
                order.payer,
                Step::call(what, "Auction", auction, &call),
                "claim",
            )
        }
        _other => {
            return Err(Problem::missing(format!(
                "order {id} can be awarded, taken back, settled, or its deposit claimed"
            ))
            .into());
        }
    };
    let plan = Plan { from, steps: vec![step], then: format!("/orders/{id}") };
    let body = html! {
        h1 { (title) " order " (id) }
        @if title == "Award" {
            p {
                "The leader " @if let Some(leader) = order.leader { (super::provider_link(leader)) } " gets a lease at "
                (page.per_hour(order.rate)) ", and has " (words::span(order.start_within.into())) " to start it. It needs the pod, its images and its secrets for "
                "that: if it does not have them yet, award with " code { "roadstead order award" } ", which sends them."
            }
        }
        p { a href={ "/orders/" (id) } { "Back to order " (id) } }
        (plan::show(&page, &plan, verb))
    };
    Ok(page.show(&format!("{title} order {id}"), "/orders", &body))
}

/// Why a payer closes a lease.
const REASONS: [(&str, CloseReason); 3] = [
    ("done", CloseReason::PayerDone),
    ("moved", CloseReason::PayerMoved),
    ("unsatisfied", CloseReason::PayerUnsatisfied),
];

/// How a lease is closed.
pub(super) fn on_lease(id: u64) -> Markup {
    html! {
        form action={ "/leases/" (id) "/close" } method="get" class="buttons" {
            label for="reason" { "Close it because" }
            select id="reason" name="reason" {
                @for (name, reason) in REASONS { option value=(name) { (reason.to_string()) } }
            }
            button { "Close it" }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Closing {
    reason: String,
}

/// Closes a lease.
pub(super) async fn close(
    mut page: Page,
    Path(id): Path<String>,
    Asked(asked): Asked<Closing>,
) -> Result<Shown, Fault> {
    let id = number(&id)?;
    let file = market::lease(page.conn(), id).await?;
    let lease = file.ok_or_else(|| Problem::missing(format!("there is no lease {id}")))?.lease;
    if lease.closed_at.is_some() {
        return Err(bad(format!("lease {id} is closed; see /leases/{id}")));
    }
    let reason = REASONS.iter().find(|(name, _)| *name == asked.reason);
    let (_, reason) = reason.ok_or_else(|| {
        let reason = words::clean(&asked.reason, 80);
        bad(format!("{reason:?} is no reason of a payer's: done, moved or unsatisfied"))
    })?;
    let account = account::named(&mut page, &lease.account.to_string()).await?;
    let call = Leases::closeCall { id, reason: *reason as u8 };
    let what = format!("Close lease {id}, because {reason}");
    let plan = Plan {
        from: account.owner,
        steps: vec![Step::call(what, "Leases", page.market.deployment().leases, &call)],
        then: format!("/leases/{id}"),
    };
    let body = html! {
        h1 { "Close lease " (id) }
        p { "Its pod is removed, with its volumes. What it cost until then stays owed." }
        p { a href={ "/leases/" (id) } { "Back to lease " (id) } }
        (plan::show(&page, &plan, "down"))
    };
    Ok(page.show(&format!("Close lease {id}"), "/leases", &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(field: &str, text: &str) -> Draft {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        let hash = format!("0x{}", "7".repeat(64));
        let mut values = std::collections::BTreeMap::from([
            ("owner", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            ("pod", hash.as_str()),
            ("cpu", "0.5"),
            ("max", "0.05/h"),
            ("minutes", "30"),
        ]);
        values.insert(field, text);
        let asked = serde_json::to_value(values).and_then(serde_json::from_value).unwrap();
        draft(&token, &asked)
    }

    #[test]
    fn an_order_is_what_was_typed() {
        let Draft { fields, order } = typed("coverage", "2.5");
        assert!(fields.iter().all(|field| field.fault.is_none()), "{fields:?}");
        let (owner, order) = order.unwrap();
        assert_eq!(order.account, chain::account_id(owner, B256::ZERO));
        assert_eq!((order.cpu, order.memoryMiB, order.storageMiB), (500, 512, 0));
        assert_eq!((order.coverage, order.duration, order.lock), (2_500_000, 1_800, 3_600));
        assert_eq!(order.maxRate, 50_000 * protocol::amount::SCALE / 3_600);
        assert!(!order.selfAward && order.uri.is_empty() && order.requirements.is_empty());
        assert!(typed("award", "yes").order.unwrap().1.selfAward);
    }

    #[test]
    fn each_mistake_is_named_beside_its_field() {
        for (field, text, words) in [
            ("owner", "0x12", "no address"),
            ("pod", "", "no hash of a pod"),
            ("cpu", "-1", "-1"),
            ("memory", "1.5", "no whole number"),
            ("storage", "1099511627777", "up to 1099511627776"),
            ("max", "0/h", "nobody bids"),
            ("max", "0.05", "0.05"),
            ("coverage", "0.0000001", "0.0000001"),
            ("minutes", "0", "a minute at least"),
            ("minutes", "43201", "up to 43200"),
            ("lock", "x", "no whole number"),
            ("uri", &"x".repeat(257), "257 bytes"),
        ] {
            let Draft { fields, order } = typed(field, text);
            assert!(order.is_none(), "{field} {text:?} is taken");
            for one in fields {
                let wanted = if one.name == field { words } else { "" };
                let fault = one.fault.unwrap_or_default();
                assert!(fault.contains(wanted), "{field} {text:?}: {fault}");
                assert_eq!(fault.is_empty(), one.name != field, "{}: {fault}", one.name);
            }
        }
    }

    #[test]
    fn an_approval_is_widened_by_what_is_needed() {
        let approval = |limit, used, max_lock, expiry| Approval {
            account: B256::ZERO,
            operator: Address::ZERO,
            rate_limit: Rate(limit),
            rate_used: Rate(used),
            pay_limit: Units(7),
            max_lock,
            expiry,
        };
        let now = 1_000_000;
        let later = now + 10 * LEFT;
        let said = |wanted: Option<Approval>| {
            wanted.map(|one| (one.rate_limit.0, one.pay_limit.0, one.max_lock, one.expiry))
        };
        let first = wider(None, Rate(5), 60, now);
        assert_eq!(said(first), Some((5, 0, 60, now + ALLOWANCE)));
        let wide = approval(100, 50, 600, u64::MAX);
        assert_eq!(said(wider(Some(&wide), Rate(50), 600, now)), None);
        assert_eq!(said(wider(Some(&wide), Rate(51), 60, now)), Some((101, 7, 600, u64::MAX)));
        assert_eq!(said(wider(Some(&wide), Rate(1), 601, now)), Some((100, 7, 601, u64::MAX)));
        // What ran out is not brought back beyond what is needed.
        let over = approval(100, 50, 600, now);
        assert_eq!(said(wider(Some(&over), Rate(1), 60, now)), Some((51, 0, 60, now + ALLOWANCE)));
        let soon = approval(100, 50, 600, later);
        assert_eq!(
            said(wider(Some(&soon), Rate(51), 60, now)),
            Some((101, 7, 600, now + ALLOWANCE))
        );
    }
}
