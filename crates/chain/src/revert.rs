//! What a revert means.

use std::fmt;

use alloy::{
    primitives::Bytes,
    sol_types::{Revert as RevertString, SolError, SolInterface},
    transports::{RpcError, TransportErrorKind},
};

use crate::abi::{
    Auction::AuctionErrors, Erc20::Erc20Errors, Leases::LeasesErrors, Payments::PaymentsErrors,
    Registry::RegistryErrors, Sla::SlaErrors, Staking::StakingErrors, apps::Apps::AppsErrors,
};

/// Why a contract refused a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Revert {
    /// Payments refused.
    Payments(PaymentsErrors),
    /// Staking refused.
    Staking(StakingErrors),
    /// Registry refused.
    Registry(RegistryErrors),
    /// Leases refused.
    Leases(LeasesErrors),
    /// Sla refused.
    Sla(SlaErrors),
    /// Auction refused.
    Auction(AuctionErrors),
    /// Apps refused.
    Apps(AppsErrors),
    /// The settlement token refused.
    Token(Erc20Errors),
    /// A contract refused in words.
    Words(String),
    /// Something else, undecoded.
    Other(Bytes),
}

impl Default for Revert {
    fn default() -> Self {
        Self::Other(Bytes::new())
    }
}

impl Revert {
    /// The revert in a node's answer, if that is what it is.
    pub fn of(err: &RpcError<TransportErrorKind>) -> Option<Self> {
        let response = err.as_error_resp()?;
        if let Some(bytes) = response.as_revert_data() {
            return Some(Self::decode(&bytes));
        }
        response.message.contains("execution reverted").then(Self::default)
    }

    /// Decodes the data of a revert.
    pub fn decode(data: &Bytes) -> Self {
        if let Ok(err) = PaymentsErrors::abi_decode(data) {
            return Self::Payments(err);
        }
        if let Ok(err) = StakingErrors::abi_decode(data) {
            return Self::Staking(err);
        }
        if let Ok(err) = RegistryErrors::abi_decode(data) {
            return Self::Registry(err);
        }
        if let Ok(err) = LeasesErrors::abi_decode(data) {
            return Self::Leases(err);
        }
        if let Ok(err) = SlaErrors::abi_decode(data) {
            return Self::Sla(err);
        }
        if let Ok(err) = AuctionErrors::abi_decode(data) {
            return Self::Auction(err);
        }
        if let Ok(err) = AppsErrors::abi_decode(data) {
            return Self::Apps(err);
        }
        if let Ok(err) = Erc20Errors::abi_decode(data) {
            return Self::Token(err);
        }
        match RevertString::abi_decode(data) {
            Ok(err) => Self::Words(err.reason),
            Err(_) => Self::Other(data.clone()),
        }
    }
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payments(err) => payments(err, f),
            Self::Staking(err) => staking(err, f),
            Self::Registry(err) => write!(f, "{}", sentence(&format!("{err:?}"))),
            Self::Leases(err) => leases(err, f),
            Self::Sla(err) => write!(f, "{}", sentence(&format!("{err:?}"))),
            Self::Auction(err) => write!(f, "{}", sentence(&format!("{err:?}"))),
            Self::Apps(err) => write!(f, "{}", sentence(&format!("{err:?}"))),
            Self::Token(Erc20Errors::ERC20InsufficientBalance(e)) => {
                write!(
                    f,
                    "{} has {} base units of the token and {} are needed",
                    e.sender, e.balance, e.needed
                )
            }
            Self::Token(Erc20Errors::ERC20InsufficientAllowance(e)) => {
                write!(
                    f,
                    "{} may take {} base units of the token and {} are needed",
                    e.spender, e.allowance, e.needed
                )
            }
            Self::Words(words) => f.write_str(words),
            Self::Other(data) if data.is_empty() => {
                f.write_str("the contract refused without a reason")
            }
            Self::Other(data) => write!(f, "the contract refused with {data}"),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only some need advice")]
fn payments(err: &PaymentsErrors, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use PaymentsErrors as E;
    match err {
        E::Payments_Underfunded(e) => {
            write!(
                f,
                "the account has {} units to spend and {} are needed: fund it first",
                e.available, e.needed
            )
        }
        E::Payments_TopUpTooSmall(e) => {
            write!(
                f,
                "the account is dry and a top-up has to restore its lockup: {} units are missing",
                e.missing
            )
        }
        E::Payments_NoAccount(e) => write!(f, "there is no account {}: fund it first", e.account),
        E::Payments_NotOwner(e) => write!(f, "{} does not own account {}", e.caller, e.account),
        E::Payments_NotApproved(e) => {
            write!(f, "account {} does not let {} act for it, or no longer", e.account, e.operator)
        }
        E::Payments_RateAboveApproval(e) => {
            write!(
                f,
                "the account's owner approved {} units per second, this would make {}",
                e.limit, e.rate
            )
        }
        E::Payments_LockAboveApproval(e) => {
            write!(
                f,
                "the account's owner approved locks of {} s, this one has {} s",
                e.limit, e.lock
            )
        }
        other => f.write_str(&sentence(&format!("{other:?}"))),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only some need advice")]
fn staking(err: &StakingErrors, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use StakingErrors as E;
    match err {
        E::Staking_NotEnoughFree(e) => {
            write!(
                f,
                "{} has {} base units of free bond and {} are needed",
                e.bonder, e.free, e.needed
            )
        }
        E::Staking_LockerNotAllowed(e) => {
            write!(f, "{} does not let {} lock its bond", e.bonder, e.locker)
        }
        E::Staking_StillUnbonding(e) => {
            write!(f, "the bond can be withdrawn from {} on (Unix time)", e.withdrawableAt)
        }
        other => f.write_str(&sentence(&format!("{other:?}"))),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only some need advice")]
fn leases(err: &LeasesErrors, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use LeasesErrors as E;
    match err {
        E::Leases_QuoteExpired(e) => {
            write!(f, "the quote expired at {} (Unix time): ask for a new one", e.expiry)
        }
        E::Leases_QuoteUsed(e) => {
            write!(
                f,
                "quote {} of provider {} was used before, or cancelled: ask for a new one",
                e.nonce, e.provider
            )
        }
        E::Leases_ListingChanged(e) if e.current == 0 => {
            write!(f, "provider {} is not listed any more", e.provider)
        }
        E::Leases_ListingChanged(e) => {
            write!(
                f,
                "provider {} changed its listing since the quote: ask for a new one",
                e.provider
            )
        }
        E::Leases_BadSignature(e) => {
            write!(f, "the quote is not signed by provider {}", e.provider)
        }
        E::Leases_SlotTaken(e) => {
            write!(f, "slot {} of the account has an open lease already", e.slot)
        }
        E::Leases_WrongState(e) => write!(f, "lease {} is {}", e.id, state(e.state)),
        E::Leases_NotPayer(e) => {
            write!(f, "{} neither owns account {} nor acts for its owner", e.caller, e.account)
        }
        E::Leases_StartMissed(e) => {
            write!(f, "lease {} had to be started by {} (Unix time)", e.id, e.startBy)
        }
        other => f.write_str(&sentence(&format!("{other:?}"))),
    }
}

fn state(state: u8) -> &'static str {
    match state {
        0 => "not there",
        1 => "pending",
        2 => "active",
        _ => "closed",
    }
}

/// An error's name and fields, for the ones that need no advice.
fn sentence(debug: &str) -> String {
    debug
        .split_once('(')
        .map_or(debug, |(_, rest)| rest.strip_suffix(')').unwrap_or(rest))
        .to_owned()
}
