//! A wallet on a chain: what every verb that signs works with.

use alloy::{primitives::Address, signers::local::PrivateKeySigner};
use chain::{
    Chain, ReadError, Revert, SendError, Sender,
    abi::{Erc20::Erc20Errors, Payments::PaymentsErrors},
};
use protocol::amount::{Amount, SCALE, Token};

/// A wallet on a chain. One per key and process, since it counts the key's transactions.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The key, on its chain.
    pub(crate) sender: Sender,
    /// What the chain's prices are in.
    pub(crate) token: Token,
}

impl Session {
    /// The wallet of `signer` on `chain`.
    pub(crate) async fn open(chain: Chain, signer: PrivateKeySigner) -> Result<Self, ReadError> {
        let token = chain.token().await?;
        Ok(Self { sender: Sender::new(chain, signer), token })
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

    /// The failure of a transaction; one about money in whole tokens, where the contract counts in the smallest.
    pub(crate) fn explain(&self, err: SendError) -> anyhow::Error {
        let SendError::Refused(revert) = &err else { return err.into() };
        // Rounded up: what is said to be needed has to be enough.
        let tokens = |units: alloy::primitives::U256| {
            let units = u128::try_from(units).unwrap_or(u128::MAX);
            self.show(Amount(units.div_ceil(SCALE)))
        };
        let base = |amount| self.show(Amount(u128::try_from(amount).unwrap_or(u128::MAX)));
        let words = match &**revert {
            Revert::Payments(PaymentsErrors::Payments_Underfunded(e)) => format!(
                "the account has {} to spend and {} are needed: fund it with `roadstead fund`",
                tokens(e.available),
                tokens(e.needed)
            ),
            Revert::Payments(PaymentsErrors::Payments_TopUpTooSmall(e)) => format!(
                "the account ran dry, and a top-up has to restore what is locked for its leases: add {} more",
                tokens(e.missing)
            ),
            Revert::Token(Erc20Errors::ERC20InsufficientBalance(e)) => format!(
                "wallet {} has {} and {} are needed",
                e.sender,
                base(e.balance),
                base(e.needed)
            ),
            Revert::Payments(_)
            | Revert::Staking(_)
            | Revert::Registry(_)
            | Revert::Leases(_)
            | Revert::Token(_)
            | Revert::Words(_)
            | Revert::Other(_) => return err.into(),
        };
        anyhow::Error::msg(words)
    }
}
