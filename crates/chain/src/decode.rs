//! What the contracts emit, decoded: every event of theirs, typed, with its arguments as JSON for whoever shows it.

use std::fmt::Write as _;

use alloy::{
    primitives::{Address, B256, Uint},
    sol_types::SolEventInterface,
};

use crate::{
    Deployment,
    abi::{
        Apps, Auction, IAuction, ILeases, IRegistry, Leases, Payments, Registry, Sla, Staking,
        apps::IApps,
    },
};

/// A log that is none of the contracts' events, although one of them emitted it: it is newer than this program.
#[derive(Debug, thiserror::Error)]
#[error(
    "{contract} at {address} emitted what this program does not know: is the deployment newer?"
)]
pub struct DecodeError {
    /// The contract.
    pub contract: &'static str,
    /// Where it is.
    pub address: Address,
    /// What is wrong with the log.
    #[source]
    pub source: Box<alloy::sol_types::Error>,
}

/// The contracts of a deployment, by their addresses.
#[derive(Debug, Clone)]
pub struct Contracts(Vec<(Address, Contract)>);

/// An argument of an event, as JSON: what may not fit into a double is a decimal string.
trait Arg {
    fn write(&self, out: &mut String);
}

/// Writes to a string, which never fails.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {
        let _ = write!($out, $($arg)*);
    };
}

impl Arg for Address {
    fn write(&self, out: &mut String) {
        put!(out, "\"{self:#x}\"");
    }
}

impl Arg for B256 {
    fn write(&self, out: &mut String) {
        put!(out, "\"{self:#x}\"");
    }
}

impl Arg for u128 {
    fn write(&self, out: &mut String) {
        put!(out, "\"{self}\"");
    }
}

impl<const BITS: usize, const LIMBS: usize> Arg for Uint<BITS, LIMBS> {
    fn write(&self, out: &mut String) {
        if BITS <= 48 {
            put!(out, "{self}");
        } else {
            put!(out, "\"{self}\"");
        }
    }
}

impl Arg for String {
    fn write(&self, out: &mut String) {
        out.push('"');
        for char in self.chars() {
            match char {
                '"' | '\\' => {
                    out.push('\\');
                    out.push(char);
                }
                // What Postgres and many a reader do not take.
                '\0' => out.push('\u{fffd}'),
                '\u{1}'..='\u{1f}' => {
                    put!(out, "\\u{:04x}", u32::from(char));
                }
                char => out.push(char),
            }
        }
        out.push('"');
    }
}

impl<T: Arg> Arg for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (i, arg) in self.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            arg.write(out);
        }
        out.push(']');
    }
}

macro_rules! bare {
    ($($name:ident),*) => {$(
        impl Arg for $name {
            fn write(&self, out: &mut String) {
                put!(out, "{self}");
            }
        }
    )*};
}
bare!(bool, u8, u16, u32, u64);

/// The name of a field as the contract has it, which in Rust has a prefix where it is one of Rust's own words.
fn name(out: &mut String, field: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    put!(out, "\"{}\":", field.trim_start_matches("r#"));
}

macro_rules! fields {
    ($value:expr, $out:expr, $($field:ident),*) => {
        $out.push('{');
        $(
            name($out, stringify!($field));
            $value.$field.write($out);
        )*
        $out.push('}');
    };
}

macro_rules! structs {
    ($($name:path { $($field:ident),* })*) => {$(
        impl Arg for $name {
            fn write(&self, out: &mut String) {
                fields!(self, out, $($field),*);
            }
        }
    )*};
}
structs! {
    ILeases::Quote {
        provider, account, lease, pod, rate, lock, coverage, grace, full, response, notice, startWithin, expiry,
        version, nonce
    }
    IRegistry::Listing { endpoint, region, prices, tlsKey, sealKey, measurement }
    IRegistry::Prices { cpu, memoryMiB, storageMiB }
    IAuction::Order {
        account, slot, pod, cpu, memoryMiB, storageMiB, maxRate, coverage, lock, grace, full, response, notice,
        startWithin, duration, selfAward, requirements, uri
    }
    IAuction::Requirement { auditor, attribute }
    IApps::Registration { account, slot, name, spec, uri, keeper, fee, limits }
    IApps::Limits { replicas, maxLock, maxRate, pods }
}

macro_rules! contracts {
    ($($contract:ident $events:ident ($at:ident) {
        $($event:ident { $($field:ident),* })*
    })*) => {
        /// A contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Contract {
            $(#[doc = concat!(stringify!($contract), ".")] $contract,)*
        }

        /// An event of one of the contracts.
        #[derive(Debug)]
        pub enum Event {
            $(#[doc = concat!("Of ", stringify!($contract), ".")] $contract($contract::$events),)*
        }

        impl Contracts {
            /// Those of a deployment.
            pub fn of(deployment: &Deployment) -> Self {
                Self(vec![$((deployment.$at, Contract::$contract)),*])
            }
        }

        impl Contract {
            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$contract => stringify!($contract),)*
                }
            }

            fn decode(self, topics: &[B256], data: &[u8]) -> alloy::sol_types::Result<Event> {
                match self {
                    $(Self::$contract => {
                        $contract::$events::decode_raw_log(topics, data).map(Event::$contract)
                    })*
                }
            }
        }

        impl Event {
            /// The contract's name and its own.
            pub fn name(&self) -> (&'static str, &'static str) {
                match self {
                    $($(Self::$contract($contract::$events::$event(_)) => {
                        (stringify!($contract), stringify!($event))
                    })*)*
                }
            }

            /// Its arguments, as a JSON object.
            pub fn args(&self) -> String {
                let mut out = String::with_capacity(256);
                match self {
                    $($(Self::$contract($contract::$events::$event(_event)) => {
                        fields!(_event, &mut out, $($field),*);
                    })*)*
                }
                out
            }
        }
    };
}
contracts! {
    Payments PaymentsEvents (payments) {
        Deposited { account, owner, salt, from, amount }
        Withdrawn { account, to, amount }
        Approved { account, operator, rateLimit, payLimit, maxLock, expiry }
        StreamOpened { id, account, payee, rate, lock, started }
        StreamStarted { id }
        RateSet { id, rate, lock }
        StreamClosed { id }
        StreamCut { id, back }
        Collected { id, payee, amount }
        Paid { account, operator, to, amount }
    }
    Staking StakingEvents (staking) {
        Bonded { bonder, from, amount }
        UnbondRequested { bonder, amount, withdrawableAt }
        UnbondCancelled { bonder, amount }
        Unbonded { bonder, to, amount }
        LockerSet { bonder, locker, allowed }
        Locked { bonder, locker, r#ref, amount }
        ReleaseSet { bonder, locker, r#ref, releaseAt }
        Lowered { bonder, locker, r#ref, amount }
        Unlocked { bonder, locker, r#ref, amount }
        Slashed { bonder, locker, r#ref, amount, beneficiary, paid, rewarded, reward }
        Claimed { beneficiary, to, amount }
    }
    Registry RegistryEvents (registry) {
        Listed { provider, version, listing }
        Delisted { provider, version }
        Heartbeat { provider }
        Vouched { provider, auditor, attribute, expiry }
    }
    Leases LeasesEvents (leases) {
        Opened { id, provider, account, slot, startBy, opener, quote }
        Activated { id }
        Amended { id, provider, amender, quote }
        NoticeGiven { id, reason, endsAt }
        Closed { id, provider, closer, reason, penalty }
        AgentSet { account, agent, allowed }
        IssuerSet { provider, issuer, allowed }
        NoncesCancelled { provider, word, mask }
        EIP712DomainChanged {}
    }
    Auction AuctionEvents (auction) {
        Placed { id, account, payer, deadline, order }
        Bid { id, bidder, rate, deadline, bids }
        Awarded { id, provider, lease, rate }
        Reopened { id, provider, penalty, deadline }
        Over { id, outcome, provider, penalty }
        Claimed { who, to, amount }
    }
    Sla SlaEvents (sla) {
        Challenged { lease, challenger, deadline, clock }
        Answered { lease, provider, bond }
        Resolved { lease, challenger, dark, compensation }
        Joined { watcher, seat, epoch, r#ref }
        Left { watcher, seat }
        EpochOpened { epoch, seed, seats }
        Reported { lease, epoch, from, to, due, reward, members }
        Rewarded { report, watcher, amount }
        Equivocated { watcher, finder, lease, amount }
        Claimed { who, to, amount }
        EIP712DomainChanged {}
    }
    Apps AppsEvents (apps) {
        Registered { id, owner, keeper, app }
        NameLost { id, name }
        SpecSet { id, spec, uri }
        LimitsSet { id, limits }
        KeeperSet { id, keeper, fee }
        Deployed { id, replica, lease, by }
        Retired { id }
    }
}

impl Contracts {
    /// The contract at `address`.
    pub fn at(&self, address: Address) -> Option<Contract> {
        self.0.iter().find(|(at, _)| *at == address).map(|(_, contract)| *contract)
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.0.iter().map(|(address, _)| *address)
    }

    /// What a log says; `None` if none of the contracts emitted it.
    ///
    /// # Errors
    /// When one of them did and the log is none of its events.
    pub fn decode(
        &self,
        address: Address,
        topics: &[B256],
        data: &[u8],
    ) -> Result<Option<Event>, DecodeError> {
        let Some(contract) = self.at(address) else { return Ok(None) };
        let event = contract.decode(topics, data);
        event.map(Some).map_err(|source| DecodeError {
            contract: contract.name(),
            address,
            source: Box::new(source),
        })
    }
}
