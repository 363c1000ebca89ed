//! What a revert means: the contracts' errors, typed, and a sentence for each that says what to do.
//!
//! No sentence is left out: an error that a contract comes to have does not compile before it has one.

use std::fmt;

use alloy::{
    primitives::{Address, B256, Bytes, U256, aliases::U40},
    sol_types::{Revert as RevertString, SolError, SolInterface},
    transports::{RpcError, TransportErrorKind},
};

use protocol::{
    amount::{Amount, Rate, SCALE, Token},
    lease::{CloseReason, State},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

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

/// A revert, told in the words of whoever counts in this token.
#[derive(Debug)]
pub struct Told<'a> {
    revert: &'a Revert,
    words: Words<'a>,
}

/// How numbers are said: in whole tokens where the token is known, else in the smallest.
#[derive(Debug, Clone, Copy)]
struct Words<'a>(Option<&'a Token>);

impl Revert {
    /// The same with amounts in whole tokens, where the contracts count in the smallest.
    pub fn told<'a>(&'a self, token: &'a Token) -> Told<'a> {
        Told { revert: self, words: Words(Some(token)) }
    }

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

impl Words<'_> {
    fn amount(self, base: U256) -> String {
        let amount = Amount(u128::try_from(base).unwrap_or(u128::MAX));
        match self.0 {
            Some(token) => format!("{} {}", amount.display(token), token.symbol),
            None => format!("{base} base units"),
        }
    }

    /// Rounded up: what is said to be needed has to be enough.
    fn units(self, units: U256) -> String {
        let rounded = units.div_ceil(U256::from(SCALE));
        match self.0 {
            Some(_) => self.amount(rounded),
            None => format!("{units} units"),
        }
    }

    fn rate(self, rate: U256) -> String {
        let known = Rate(u128::try_from(rate).unwrap_or(u128::MAX));
        match self.0 {
            Some(token) => format!("{} {}", known.per_hour(token), token.symbol),
            None => format!("{rate} units per second"),
        }
    }
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentence(self, Words(None)))
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentence(self.revert, self.words))
    }
}

fn sentence(revert: &Revert, words: Words<'_>) -> String {
    match revert {
        Revert::Payments(err) => payments(err, words),
        Revert::Staking(err) => staking(err, words),
        Revert::Registry(err) => registry(err),
        Revert::Leases(err) => leases(err, words),
        Revert::Sla(err) => sla(err, words),
        Revert::Auction(err) => auction(err, words),
        Revert::Apps(err) => apps(err, words),
        Revert::Token(err) => token(err, words),
        Revert::Words(reason) => format!("the contract refused: {reason}"),
        Revert::Other(data) if data.is_empty() => {
            "the contract refused and did not say why".to_owned()
        }
        Revert::Other(data) => format!("the contract refused with {data}"),
    }
}

fn payments(err: &PaymentsErrors, words: Words<'_>) -> String {
    use PaymentsErrors as E;
    match err {
        E::Payments_Underfunded(e) => format!(
            "the account has {} to spend and {} are needed: fund it with `roadstead fund`",
            words.units(e.available),
            words.units(e.needed)
        ),
        E::Payments_TopUpTooSmall(e) => format!(
            "the account ran dry, and a top-up has to restore what is locked for its leases: add {} more",
            words.units(e.missing)
        ),
        E::Payments_NoAccount(e) => {
            format!("there is no account {}: `roadstead fund` makes one", e.account)
        }
        E::Payments_NotOwner(e) => not_owner("account", e.account, e.caller),
        E::Payments_NotApproved(e) => format!(
            "account {} does not let {} act for it, or no longer: approve it in Payments",
            e.account, e.operator
        ),
        E::Payments_RateAboveApproval(e) => format!(
            "{} may spend {} of account {}, and this would make {}: approve more in Payments",
            e.operator,
            words.rate(e.limit),
            e.account,
            words.rate(e.rate)
        ),
        E::Payments_PayAboveApproval(e) => format!(
            "{} may pay {} more out of account {}, and this is {}: approve more in Payments",
            e.operator,
            words.units(e.limit),
            e.account,
            words.units(e.amount)
        ),
        E::Payments_LockAboveApproval(e) => format!(
            "{} may lock account {} for {} s, and this is a lock of {} s: approve more in Payments",
            e.operator, e.account, e.limit, e.lock
        ),
        E::Payments_PaysItself(e) => {
            format!("{} opens the stream and would be paid by it: name another payee", e.operator)
        }
        E::Payments_StreamExists(e) => {
            format!("stream {:#x} was opened before: take another reference", e.id)
        }
        E::Payments_WrongState(e) => format!(
            "stream {:#x} is {}: what was asked for needs another state",
            e.id,
            match e.state {
                0 => "not there",
                1 => "not started",
                2 => "running",
                3 => "closed",
                _ => "in a state that this program does not know",
            }
        ),
        E::Payments_NotParty(e) => format!(
            "{} is neither payer, payee nor operator of stream {:#x}, or may not do this to it",
            e.caller, e.id
        ),
        E::Payments_Zero(_) => zero(),
        E::Payments_WrongAmountReceived(e) => wrong_amount(words, e.expected, e.received),
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
        E::ReentrancyGuardReentrantCall(_) => reentrant(),
        E::SafeCastOverflowedUintDowncast(e) => too_large(e.value, e.bits),
        E::SafeERC20FailedOperation(e) => token_failed(e.token),
    }
}

fn staking(err: &StakingErrors, words: Words<'_>) -> String {
    use StakingErrors as E;
    match err {
        E::Staking_NotEnoughFree(e) => format!(
            "{} has {} of free bond and {} are needed: `roadstead stake bond` adds to it",
            e.bonder,
            words.amount(e.free),
            words.amount(e.needed)
        ),
        E::Staking_LockerNotAllowed(e) => format!(
            "{} does not let {} lock its bond: `roadstead stake lockers` shows who may",
            e.bonder, e.locker
        ),
        E::Staking_StillUnbonding(e) => format!(
            "what is unbonding can be withdrawn from {} on: wait until then",
            time(e.withdrawableAt.to())
        ),
        E::Staking_Released(e) => format!(
            "lock {} of {} was released at {}, and backs nothing any more",
            e.r#ref,
            e.bonder,
            time(e.releaseAt.to())
        ),
        E::Staking_StillLocked(e) if e.releaseAt.is_zero() => format!(
            "lock {} of {} still backs something, and its end is not known yet: try again later",
            e.r#ref, e.bonder
        ),
        E::Staking_StillLocked(e) => format!(
            "lock {} of {} backs something until {}: try again then",
            e.r#ref,
            e.bonder,
            time(e.releaseAt.to())
        ),
        E::Staking_SlashAboveLock(e) => format!(
            "lock {} of {} has {} left, and {} were to be taken out of it",
            e.r#ref,
            e.bonder,
            words.amount(e.locked),
            words.amount(e.amount)
        ),
        E::Staking_LowersTooMuch(e) => format!(
            "lock {} of {} has {} left, and cannot be lowered by {}",
            e.r#ref,
            e.bonder,
            words.amount(e.locked),
            words.amount(e.amount)
        ),
        E::Staking_RewardAboveLimit(e) => format!(
            "the reward of {} is above the limit of {}: take less",
            words.amount(e.reward),
            words.amount(e.limit)
        ),
        E::Staking_WrongAmountReceived(e) => wrong_amount(words, e.expected, e.received),
        E::Staking_Zero(_) => zero(),
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
        E::ReentrancyGuardReentrantCall(_) => reentrant(),
        E::SafeCastOverflowedUintDowncast(e) => too_large(e.value, e.bits),
        E::SafeERC20FailedOperation(e) => token_failed(e.token),
    }
}

fn registry(err: &RegistryErrors) -> String {
    use RegistryErrors as E;
    match err {
        E::Registry_NotListed(e) => format!(
            "{} is not listed as a provider: `roadstead provider register` lists it",
            e.provider
        ),
        E::Registry_BadLength(e) => format!(
            "the listing's {:?} has {} bytes, and has to have 1 to {}",
            e.field, e.length, e.limit
        ),
        E::Registry_NoKey(e) => {
            format!("the listing's {:?} is zero, and without it nobody can connect", e.field)
        }
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
    }
}

fn leases(err: &LeasesErrors, words: Words<'_>) -> String {
    use LeasesErrors as E;
    match err {
        E::Leases_QuoteExpired(e) => {
            format!("the quote expired at {}: ask for a new one", time(e.expiry.to()))
        }
        E::Leases_QuoteUsed(e) => format!(
            "quote {} of provider {} was used before, or cancelled: ask for a new one",
            e.nonce, e.provider
        ),
        E::Leases_WrongAccount(e) => {
            format!("the quote is for account {}, not for {}", e.wanted, e.given)
        }
        E::Leases_WrongLease(e) if e.wanted == 0 => {
            format!("the quote is for a new lease, and cannot change lease {}", e.given)
        }
        E::Leases_WrongLease(e) if e.given == 0 => {
            format!("the quote changes lease {}, and opens no new one", e.wanted)
        }
        E::Leases_WrongLease(e) => {
            format!("the quote is for lease {}, not for lease {}", e.wanted, e.given)
        }
        E::Leases_ListingChanged(e) if e.current == 0 => {
            format!("provider {} is not listed any more: try another one", e.provider)
        }
        E::Leases_ListingChanged(e) => format!(
            "provider {} changed its listing since the quote, from version {} to {}: ask for a new one",
            e.provider, e.quoted, e.current
        ),
        E::Leases_BadSignature(e) => {
            format!("the quote is not signed by provider {}: try another one", e.provider)
        }
        E::Leases_BadTerms(e) => format!(
            "a grace of {} s has to be shorter than the {} s for which the whole coverage is due",
            e.grace, e.full
        ),
        E::Leases_BadSlot(e) => format!("slot {} is more than 16777215, the last one", e.slot),
        E::Leases_NotSla(e) => {
            format!(
                "{} is not the contract that judges outages, and alone that may do this",
                e.caller
            )
        }
        E::Leases_SlotTaken(e) => format!(
            "slot {} of account {} has an open lease already: close that, or take another slot",
            e.slot, e.account
        ),
        E::Leases_WrongState(e) => {
            format!("lease {} is {}: what was asked for needs another state", e.id, state(e.state))
        }
        E::Leases_NotPayer(e) => not_owner("account", e.account, e.caller),
        E::Leases_NotProvider(e) => not_provider(e.id, e.caller),
        E::Leases_StartMissed(e) => format!(
            "lease {} had to be started by {}: anybody may close it now",
            e.id,
            time(e.startBy.to())
        ),
        E::Leases_ReasonRefused(e) => format!(
            "{} cannot close lease {} on the grounds that {}",
            e.caller,
            e.id,
            CloseReason::try_from(e.reason)
                .map_or_else(|unknown| unknown.to_string(), |reason| reason.to_string())
        ),
        E::Leases_CoverageLowered(e) => format!(
            "lease {} is backed by {}, and a change cannot lower that to {}",
            e.id,
            words.amount(U256::from(e.current)),
            words.amount(U256::from(e.offered))
        ),
        E::Leases_NoticeGiven(e) => {
            format!(
                "notice was given for lease {} already: it ends at {}",
                e.id,
                time(e.endsAt.to())
            )
        }
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
        E::InvalidShortString(_) => bad_string(),
        E::StringTooLong(e) => long_string(&e.str),
    }
}

fn sla(err: &SlaErrors, words: Words<'_>) -> String {
    use SlaErrors as E;
    match err {
        E::Sla_BadTerms(_) => bad_terms(),
        E::Sla_NotRunning(e) => {
            format!("lease {} does not run, did not in that time, or cannot be challenged", e.lease)
        }
        E::Sla_Dry(e) => format!(
            "the account of lease {} is dry, and nothing is owed to it: fund it first",
            e.lease
        ),
        E::Sla_NotPayer(e) => {
            format!("{} neither pays for lease {} nor acts for who does", e.caller, e.lease)
        }
        E::Sla_NotProvider(e) => not_provider(e.lease, e.caller),
        E::Sla_TooSoon(e) if e.from == U40::MAX => {
            format!("lease {} is challenged already: wait for how that ends", e.lease)
        }
        E::Sla_TooSoon(e) => format!(
            "lease {} cannot be challenged again before {}",
            e.lease,
            time(e.from.to())
        ),
        E::Sla_NoChallenge(e) => format!("nobody challenges lease {} at the moment", e.lease),
        E::Sla_TooLate(e) => format!(
            "the challenge of lease {} had to be answered by {}",
            e.lease,
            time(e.deadline.to())
        ),
        E::Sla_StillOpen(e) => format!(
            "the provider of lease {} has until {} to answer: try again after that",
            e.lease,
            time(e.deadline.to())
        ),
        E::Sla_WrongAmountReceived(e) => wrong_amount(words, e.expected, e.received),
        E::Sla_HasSeat(e) => format!("watcher {} has a seat already", e.watcher),
        E::Sla_NoSeat(e) => format!(
            "watcher {} has no seat, or nothing at stake any more: `roadstead watcher join` takes one",
            e.watcher
        ),
        E::Sla_NoCommittee(e) => format!(
            "epoch {} has no committees: it was opened already, not in its time, or there are too few watchers",
            e.epoch
        ),
        E::Sla_BadTimes(e) => format!(
            "{} to {} is not one outage in one epoch, after what was reported before",
            time(e.from.to()),
            time(e.to.to())
        ),
        E::Sla_NoQuorum(e) => {
            format!("{} members of the committee signed, and {} have to", e.signed, e.quorum)
        }
        E::Sla_BadMember(e) => format!(
            "member {} of the committee is not there, or is not named in rising order",
            e.member
        ),
        E::Sla_BadSignature(e) => format!("the statement is not signed by watcher {}", e.watcher),
        E::Sla_NoContradiction(_) => {
            "the two statements do not contradict each other: they have to be about the same lease and time".into()
        }
        E::Sla_Nothing(_) => nothing(),
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
        E::InvalidShortString(_) => bad_string(),
        E::ReentrancyGuardReentrantCall(_) => reentrant(),
        E::SafeERC20FailedOperation(e) => token_failed(e.token),
        E::StringTooLong(e) => long_string(&e.str),
    }
}

fn auction(err: &AuctionErrors, words: Words<'_>) -> String {
    use AuctionErrors as E;
    match err {
        E::Auction_BadTerms(_) => bad_terms(),
        E::Auction_NotPayer(e) => not_owner("account", e.account, e.caller),
        E::Auction_BadOrder(e) => format!("the order's {:?} is out of its range", e.field),
        E::Auction_NotAgent(e) => format!(
            "account {} does not let Auction open leases for it: allow it with Leases.setAgent",
            e.account
        ),
        E::Auction_WrongOrder(e) => {
            format!(
                "this is not what was asked for as order {}: read it from its Placed event",
                e.id
            )
        }
        E::Auction_WrongState(e) => format!(
            "order {} is {}: what was asked for needs another state",
            e.id,
            match e.state {
                0 => "not there",
                1 => "open",
                2 => "awarded",
                3 => "over",
                _ => "in a state that this program does not know",
            }
        ),
        E::Auction_Late(e) => {
            format!("bids for order {} were taken until {}", e.id, time(e.deadline.to()))
        }
        E::Auction_TooEarly(e) if e.from.is_zero() => {
            format!("only who pays for order {} may do this", e.id)
        }
        E::Auction_TooEarly(e) => {
            format!("only who pays for order {} may do this before {}", e.id, time(e.from.to()))
        }
        E::Auction_TooHigh(e) => format!(
            "{} is too much for order {}, for which at most {} can be bid now",
            words.rate(U256::from(e.rate)),
            e.id,
            words.rate(U256::from(e.most))
        ),
        E::Auction_Zero(_) => {
            "there is nothing to be had, or the bid is of nothing: name more than zero".into()
        }
        E::Auction_Unfit(e) => format!(
            "{} lacks attribute {}, for which {} would have to vouch with `roadstead vouch`",
            e.bidder, e.attribute, e.auditor
        ),
        E::Auction_NotReady(e) => format!(
            "{} cannot bid: it has to be listed, to let Auction issue leases, and Leases lock its bond",
            e.bidder
        ),
        E::Auction_NoLeader(e) => format!("nobody has bid for order {} yet", e.id),
        E::Auction_LeaderReady(e) => {
            format!("whoever leads order {} can be awarded, and cannot be taken off", e.id)
        }
        E::Auction_StillPending(e) => format!(
            "lease {} of order {} was neither started nor closed yet: try again once it is",
            e.lease, e.id
        ),
        E::Auction_WrongAmountReceived(e) => wrong_amount(words, e.expected, e.received),
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
        E::ReentrancyGuardReentrantCall(_) => reentrant(),
        E::SafeERC20FailedOperation(e) => token_failed(e.token),
    }
}

fn apps(err: &AppsErrors, words: Words<'_>) -> String {
    use AppsErrors as E;
    match err {
        E::Apps_NoApp(e) => format!("there is no app {}, or not any more", e.id),
        E::Apps_NotOwner(e) if e.id == 0 => {
            format!(
                "{} does not own the account that is to pay for the app: fund one first",
                e.caller
            )
        }
        E::Apps_NotOwner(e) => format!("{} does not own app {}", e.caller, e.id),
        E::Apps_NotKeeper(e) => format!("{} neither keeps nor owns app {}", e.caller, e.id),
        E::Apps_BadName(e) => format!(
            "{:?} is no name for an app: take 1 to 63 lower-case letters, digits and inner hyphens",
            e.name
        ),
        E::Apps_NameTaken(e) => {
            format!("the name {:?} is taken by app {}: take another one", e.name, e.holder)
        }
        E::Apps_Bad(e) => format!("the app's {:?} is out of its range", e.field),
        E::Apps_TooMany(e) => format!(
            "app {} may have {} replicas, numbered from 0, and {} is not among them: raise the limit",
            e.id, e.replicas, e.replica
        ),
        E::Apps_TooDear(e) => format!(
            "a replica of app {} may cost {}, and this one asks {}: raise the limit or try another provider",
            e.id,
            words.rate(U256::from(e.limit)),
            words.rate(U256::from(e.rate))
        ),
        E::Apps_LockTooLong(e) => format!(
            "a replica of app {} may lock its price for {} s, and this one wants {} s",
            e.id, e.limit, e.lock
        ),
        E::Apps_PodNotAllowed(e) => format!(
            "app {} may not run pod {}: its owner allows others with `roadstead app set-limits`",
            e.id, e.pod
        ),
        E::Apps_NotOfApp(e) => format!("lease {} is not one of app {}", e.lease, e.id),
        E::AddressEmptyCode(e) => no_contract(e.target),
        E::FailedCall(_) => failed_call(),
    }
}

fn token(err: &Erc20Errors, words: Words<'_>) -> String {
    use Erc20Errors as E;
    match err {
        E::ERC20InsufficientBalance(e) => format!(
            "wallet {} has {} and {} are needed",
            e.sender,
            words.amount(e.balance),
            words.amount(e.needed)
        ),
        E::ERC20InsufficientAllowance(e) => format!(
            "{} may take {} and {} are needed: approve it in the token's contract",
            e.spender,
            words.amount(e.allowance),
            words.amount(e.needed)
        ),
    }
}

/// A Unix time as people read it.
fn time(secs: u64) -> String {
    let known =
        i64::try_from(secs).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
    let text = known.and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{secs} (Unix time)"))
}

fn state(number: u8) -> String {
    State::try_from(number).map_or_else(|unknown| unknown.to_string(), |state| state.to_string())
}

fn zero() -> String {
    "an address or an amount is zero where neither can be".into()
}

fn nothing() -> String {
    "there is nothing to be had".into()
}

fn bad_terms() -> String {
    "the parameters of this deployment do not make sense".into()
}

fn failed_call() -> String {
    "a call inside of the transaction failed without saying why".into()
}

fn reentrant() -> String {
    "the contract was called again from within itself: the token may be hostile".into()
}

fn bad_string() -> String {
    "the contract's own name or version is damaged".into()
}

fn long_string(text: &str) -> String {
    format!("the text {text:?} is longer than 31 bytes")
}

fn no_contract(target: Address) -> String {
    format!("there is no contract at {target}: was the chain started anew?")
}

fn token_failed(token: Address) -> String {
    format!("the token {token} refused the transfer")
}

fn too_large(value: U256, bits: u8) -> String {
    format!("{value} is too large: it has to fit into {bits} bits")
}

fn wrong_amount(words: Words<'_>, expected: U256, received: U256) -> String {
    format!(
        "a transfer of {} brought {}: this token takes fees, and cannot be used",
        words.amount(expected),
        words.amount(received)
    )
}

fn not_owner(what: &str, id: B256, caller: Address) -> String {
    format!("{caller} neither owns {what} {id} nor acts for its owner")
}

fn not_provider(lease: u64, caller: Address) -> String {
    format!("{caller} is not the provider of lease {lease}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Auction, Payments, Sla, apps::Apps};

    fn usd() -> Token {
        Token { symbol: "USD".into(), decimals: 6 }
    }

    /// Data that decodes as any error: its arguments are small numbers, and its strings empty.
    fn data(selector: [u8; 4]) -> Bytes {
        let mut data = selector.to_vec();
        data.resize(4 + 32 * 16, 0);
        data.into()
    }

    #[test]
    fn every_error_of_every_contract_has_a_sentence() {
        let mut seen = std::collections::BTreeMap::new();
        let all = [
            ("Payments", PaymentsErrors::SELECTORS),
            ("Staking", StakingErrors::SELECTORS),
            ("Registry", RegistryErrors::SELECTORS),
            ("Leases", LeasesErrors::SELECTORS),
            ("Sla", SlaErrors::SELECTORS),
            ("Auction", AuctionErrors::SELECTORS),
            ("Apps", AppsErrors::SELECTORS),
            ("the token", Erc20Errors::SELECTORS),
        ];
        for (contract, selectors) in all {
            for selector in selectors {
                let revert = Revert::decode(&data(*selector));
                assert!(
                    !matches!(revert, Revert::Other(_) | Revert::Words(_)),
                    "{contract}: {selector:02x?} is not decoded"
                );
                for said in [revert.to_string(), revert.told(&usd()).to_string()] {
                    let raw = said.contains('_') || said.contains(['{', '}', '(']);
                    assert!(said.len() > 15 && !raw, "{contract}: {said:?}");
                }
                seen.insert(*selector, contract);
            }
        }
        // What OpenZeppelin's errors have in common is there once.
        assert_eq!(seen.len(), 99, "an error came or went: is this intended?");
    }

    #[test]
    fn sentences_name_the_thing_the_value_and_what_to_do() {
        fn check(err: &impl SolError, wanted: &[&str]) {
            let said = Revert::decode(&err.abi_encode().into()).told(&usd()).to_string();
            for word in wanted {
                assert!(said.contains(word), "{said:?} lacks {word:?}");
            }
        }
        let late = U40::from(1_767_225_600_u64);
        check(
            &Payments::Payments_Underfunded {
                account: B256::ZERO,
                needed: U256::from(2_500_000_000_000_001_u64),
                available: U256::from(1_000_000_000_000_000_u64),
            },
            &["has 1.00 USD", "2.500001 USD", "roadstead fund"],
        );
        check(
            &Auction::Auction_TooHigh { id: 7, rate: 5_555_555_555, most: 2_777_777_777 },
            &["order 7", "0.02/h USD", "0.01/h USD"],
        );
        check(&Auction::Auction_TooEarly { id: 7, from: U40::ZERO }, &["order 7", "only who pays"]);
        check(&Auction::Auction_Late { id: 7, deadline: late }, &["2026-01-01T00:00:00Z"]);
        check(&Auction::Auction_WrongState { id: 7, state: 2 }, &["order 7 is awarded"]);
        check(&Sla::Sla_TooSoon { lease: 3, from: U40::MAX }, &["lease 3 is challenged already"]);
        check(&Sla::Sla_TooSoon { lease: 3, from: late }, &["again before 2026-01-01T00:00:00Z"]);
        check(
            &Apps::Apps_NameTaken { name: "shop".into(), holder: 9 },
            &["\"shop\"", "app 9", "another"],
        );
        check(
            &crate::abi::Leases::Leases_ReasonRefused { id: 4, reason: 12, caller: Address::ZERO },
            &["lease 4", "the account was dry"],
        );
    }

    #[test]
    fn what_no_contract_of_ours_says_is_shown_as_it_is() {
        assert_eq!(Revert::default().to_string(), "the contract refused and did not say why");
        let odd = Revert::decode(&vec![1, 2, 3].into());
        assert_eq!(odd.to_string(), "the contract refused with 0x010203");
    }
}
