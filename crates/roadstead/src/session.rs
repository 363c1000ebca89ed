//! A wallet on a chain: what every verb that signs works with.

use alloy::{
    primitives::Address,
    rpc::types::TransactionReceipt,
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolEvent},
};
use anyhow::Context as _;
use chain::{Chain, ReadError, SendError, Sender};
use protocol::amount::{Amount, Rate, Token};

use crate::progress::{Progress, Step};

/// A wallet on a chain. One per key and process, since it counts the key's transactions.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The key, on its chain.
    pub(crate) sender: Sender,
    /// What the chain's prices are in.
    pub(crate) token: Token,
    /// The market that is asked whom to look at, if there is one.
    pub(crate) market: Option<String>,
}

impl Session {
    /// The wallet of `signer` on `chain`.
    pub(crate) async fn open(chain: Chain, signer: PrivateKeySigner) -> Result<Self, ReadError> {
        let token = chain.token().await?;
        Ok(Self { sender: Sender::new(chain, signer), token, market: None })
    }

    /// The chain.
    pub(crate) fn chain(&self) -> &Chain {
        self.sender.chain()
    }

    /// The wallet's address.
    pub(crate) fn wallet(&self) -> Address {
        self.sender.address()
    }

    /// An amount with its token: `12.50 USD`.
    pub(crate) fn show(&self, amount: Amount) -> String {
        format!("{} {}", amount.display(&self.token), self.token.symbol)
    }

    /// A rate with its token: `0.0125/h USD`.
    pub(crate) fn show_rate(&self, rate: Rate) -> String {
        format!("{} {}", rate.per_hour(&self.token), self.token.symbol)
    }

    /// The failure of a transaction; what it says about money in whole tokens, where the contract counts in the smallest.
    pub(crate) fn explain(&self, err: SendError) -> anyhow::Error {
        match err {
            SendError::Refused(revert) => anyhow::Error::msg(revert.told(&self.token).to_string()),
            SendError::Reverted(hash, revert) => anyhow::anyhow!(
                "transaction {hash} was mined and reverted: {}",
                revert.told(&self.token)
            ),
            SendError::Stuck(_) | SendError::NoGas(_) | SendError::Rpc(_) | SendError::Sign(_) => {
                err.into()
            }
        }
    }

    /// Sends a transaction, and says before what it does: `closes lease 7`.
    pub(crate) async fn send<C: SolCall>(
        &self,
        to: Address,
        call: &C,
        what: &str,
        progress: &dyn Progress,
    ) -> anyhow::Result<TransactionReceipt> {
        progress.step(&Step::Sending(what.to_owned()));
        self.sender.send(to, call).await.map_err(|err| self.explain(err))
    }
}

/// The event that `contract` emitted in a transaction of ours.
pub(crate) fn emitted<E: SolEvent>(
    receipt: &TransactionReceipt,
    contract: Address,
) -> anyhow::Result<E> {
    let logs = receipt.logs().iter().filter(|log| log.address() == contract);
    let event = logs.filter_map(|log| log.log_decode::<E>().ok()).next();
    let event = event.with_context(|| format!("the transaction emitted no {}", E::SIGNATURE))?;
    Ok(event.inner.data)
}
