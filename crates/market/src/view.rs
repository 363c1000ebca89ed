//! What the API says of what is in the mirror. JSON's numbers lose what is above 2^53, so amounts are texts; times are Unix
//! seconds; what is not there is `null`.

mod kind;

use std::collections::BTreeMap;

use alloy_primitives::B256;
use serde::Serialize;
use serde_json::value::RawValue;
use store::{account, cursor::Cursor, event::Subject, market::LeaseFile, market::Standing, stream};
use utoipa::ToSchema;

use crate::changes::Id;

pub(crate) use kind::{
    Address, Amount, At, ChallengeState, Hash, Key, Large, LeaseState, OrderState, Outcome, Rate,
    Reason, Show, StreamState, Time, Units, key, not_a, number,
};

/// Types of the API.
macro_rules! views {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$about:meta])* $field:ident: $kind:ty,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$about])* #[schema(required = true)] pub(crate) $field: $kind,)*
        }
    )*};
}

/// Types of the API that say what a row says.
macro_rules! rows {
    ($(
        $(#[$doc:meta])*
        $name:ident of $row:ty { $($(#[$about:meta])* $field:ident: $kind:ty,)* }
    )*) => {$(
        views! { $(#[$doc])* $name { $($(#[$about])* $field: $kind,)* } }

        impl From<$row> for $name {
            fn from(row: $row) -> Self {
                Self { $($field: row.$field.show(),)* }
            }
        }

        impl Show<$name> for $row {
            fn show(self) -> $name {
                self.into()
            }
        }
    )*};
}

views! {
    /// The block after which all of an answer is as the answer says.
    Block {
        /// Its number.
        number: u64,
        /// Its hash.
        hash: Hash,
        /// Its time.
        time: Time,
        /// Blocks up to this number do not go away any more.
        finalized: u64,
        /// What `/v1/changes` goes on from as `after`: all that happens after this block.
        changes: String,
    }

    /// The market: what is mirrored, and how far.
    Market {
        /// The chain.
        chain_id: u64,
        /// The contracts on it.
        contracts: Contracts,
        /// The settlement token.
        token: Token,
        /// Seconds since the last block that is mirrored.
        age: u64,
        /// How often blocks were taken back.
        reorgs: u64,
        /// How many of them at most at a time.
        deepest_reorg: u64,
        /// The version of this program.
        version: &'static str,
    }

    /// Where the contracts are.
    Contracts {
        /// Accounts and streams.
        payments: Address,
        /// Bonds.
        staking: Address,
        /// Providers.
        registry: Address,
        /// Leases.
        leases: Address,
        /// Challenges and outages.
        sla: Address,
        /// Orders and bids.
        auction: Address,
        /// Apps.
        apps: Address,
    }

    /// The settlement token.
    Token {
        /// Where it is.
        address: Address,
        /// Its ERC-20 symbol.
        symbol: String,
        /// How many digits of an amount are behind the point.
        decimals: u8,
    }

    /// A provider, with all that is known of it.
    Provider {
        /// Who it is.
        address: Address,
        /// How often it changed its listing.
        version: u64,
        /// Whether it is listed.
        listed: bool,
        /// When it was last heard of.
        seen_at: Time,
        /// When it last changed its listing.
        listed_at: Time,
        /// Its API, as it says itself.
        endpoint: String,
        /// Where its machines are, as it says itself.
        region: String,
        /// What it asks for.
        prices: Prices,
        /// SHA-256 of the key that its API answers with.
        tls_key: Hash,
        /// The X25519 key to which secrets are sealed.
        seal_key: Hash,
        /// What it claims to be able to attest.
        measurement: Option<Hash>,
        /// What it has at stake, if it ever bonded anything.
        bond: Option<Bond>,
        /// Whether leases may lock parts of the bond: without that it cannot back any.
        lockable: bool,
        /// How its leases went, if it ever had one.
        leases: Option<Tally>,
        /// Who vouches for what it has, and still does: up to 1,000 that hold longest, in lists up to ten.
        vouches: Vec<Vouch>,
    }

    /// What a provider asks for a second.
    Prices {
        /// Of a thousandth of a core.
        cpu: Rate,
        /// Of a MiB of memory.
        memory_mib: Rate,
        /// Of a MiB of volume.
        storage_mib: Rate,
    }

    /// How a provider's leases went.
    Tally {
        /// How many were opened.
        opened: u64,
        /// How many of them are open.
        open: u64,
        /// How many were closed, by reason.
        closed: BTreeMap<String, u64>,
        /// When it last closed one because it had no room.
        full_at: Option<Time>,
    }

    /// What a provider asked for from one version of its listing on.
    Price {
        /// The version of its listing.
        version: u64,
        /// From when on.
        time: Time,
        /// What it asked for.
        prices: Prices,
    }

    /// A lease with what was found about it.
    LeaseRecord {
        /// The lease.
        lease: Lease,
        /// Its last challenge.
        challenge: Option<Challenge>,
        /// Its last outage, as watchers found it.
        outage: Option<Outage>,
    }

    /// An account at the time of the answer's block.
    Account {
        /// Its id.
        id: Hash,
        /// Who owns it.
        owner: Address,
        /// Which of the owner's accounts it is.
        salt: Hash,
        /// What is left of its deposits.
        free: Units,
        /// What may not be withdrawn while its streams are open.
        lockup: Units,
        /// What its owner can withdraw.
        withdrawable: Amount,
        /// What its running streams cost together.
        rate: Rate,
        /// Whether it ran dry and was not funded since.
        dry: bool,
        /// When it runs or ran dry; null while nothing runs.
        funded_until: Option<Time>,
        /// When it last stopped being dry.
        resumed_at: Option<Time>,
    }

    /// A stream of payments out of an account, at the time of the answer's block.
    Stream {
        /// Its id: the operator, then the operator's own number.
        id: Hash,
        /// Who opened it.
        operator: Address,
        /// Who is paid.
        payee: Address,
        /// What a second costs; zero once closed.
        rate: Rate,
        /// For how many seconds of the rate the account stays locked, in seconds.
        lock: u32,
        /// Where it stands.
        state: StreamState,
        /// Accrued and not collected.
        owed: Units,
        /// What of that its payee can collect.
        collectable: Amount,
        /// What went to the payee so far.
        collected: Amount,
        /// When it was opened.
        opened_at: Time,
    }

    /// An event of one of the contracts.
    Event {
        /// Its block.
        block: u64,
        /// The block's hash.
        block_hash: Hash,
        /// The block's time.
        time: Time,
        /// Its place among the block's logs.
        log_index: u32,
        /// Its transaction.
        tx: Hash,
        /// The contract that emitted it.
        contract: String,
        /// Its name.
        name: String,
        /// Its arguments, by the names that they have in the contract. Numbers of up to 48 bits are numbers, larger ones
        /// texts of decimal digits.
        #[schema(value_type = Object)]
        args: Box<RawValue>,
        /// Whom it is about.
        about: About,
    }
}

rows! {
    /// What a provider has at stake.
    Bond of store::bond::Bond {
        /// All of it, locked or free.
        bonded: Amount,
        /// What of it backs something.
        locked: Amount,
        /// What has left it and waits for the delay.
        unbonding: Amount,
        /// When `unbonding` may be withdrawn; zero while there is none.
        withdrawable_at: Time,
        /// What was ever taken out of it.
        slashed: Amount,
    }

    /// An auditor's word that a provider has something.
    Vouch of store::vouch::Vouch {
        /// Who vouches.
        auditor: Address,
        /// The hash of what it has.
        attribute: Hash,
        /// Until when.
        expiry: Time,
    }

    /// A lease, from its opening to its end.
    Lease of store::lease::Lease {
        /// Its number.
        id: u64,
        /// Who is paid.
        provider: Address,
        /// Who pays.
        account: Hash,
        /// The slot of the account that it fills.
        slot: u32,
        /// Where it stands.
        state: LeaseState,
        /// Who opened it.
        opener: Address,
        /// The hash of the pod.
        pod: Hash,
        /// What was agreed for a second.
        rate: Rate,
        /// For how many seconds of the rate the account stays locked.
        lock: u32,
        /// What was agreed to back it.
        coverage: Amount,
        /// Seconds of outage without compensation.
        grace: u32,
        /// Seconds of outage for the whole coverage.
        full: u32,
        /// Seconds in which a challenge is answered.
        response: u32,
        /// Seconds of notice that the provider gives.
        notice: u32,
        /// The last second at which it may be activated.
        start_by: Time,
        /// The version of the listing that it was quoted under.
        version: u64,
        /// When it was opened.
        opened_at: Time,
        /// In which block.
        opened_block: u64,
        /// When its terms last changed.
        amended_at: Option<Time>,
        /// When its pod ran.
        activated_at: Option<Time>,
        /// Why the provider gave notice.
        notice_reason: Option<Reason>,
        /// When that notice runs out.
        ends_at: Option<Time>,
        /// When it ended.
        closed_at: Option<Time>,
        /// Why it ended.
        close_reason: Option<Reason>,
        /// Who ended it.
        closer: Option<Address>,
        /// What of the coverage was taken for leaving at once.
        penalty: Amount,
    }

    /// The last challenge of a lease.
    Challenge of store::challenge::Challenge {
        /// Who challenged.
        challenger: Address,
        /// When.
        since: Time,
        /// Until when it can be answered.
        deadline: Time,
        /// Where it stands.
        state: ChallengeState,
        /// What it brought.
        compensation: Amount,
        /// How many the lease has had.
        challenges: u32,
        /// How many of them were answered.
        answers: u32,
    }

    /// The last outage of a lease, with those that were merged into it.
    Outage of store::outage::Outage {
        /// When it began.
        began: Time,
        /// When it ended, as far as is known.
        ended: Time,
        /// What it cost so far.
        due: Amount,
        /// What all of the lease's outages cost.
        total: Amount,
        /// How many reports there were.
        reports: u32,
    }

    /// An order on the reverse market, from its placing to its end.
    Order of store::auction::Auction {
        /// Its number.
        id: u64,
        /// Who pays.
        account: Hash,
        /// Who placed it.
        payer: Address,
        /// The slot that the lease will fill.
        slot: u32,
        /// The hash of the pod.
        pod: Hash,
        /// Thousandths of a processor.
        cpu: u32,
        /// MiB of memory.
        memory_mib: Large,
        /// MiB of volumes.
        storage_mib: Large,
        /// The most that is paid.
        max_rate: Rate,
        /// What is to back the lease.
        coverage: Amount,
        /// For how many seconds of the rate the account stays locked.
        lock: u32,
        /// Seconds of outage without compensation.
        grace: u32,
        /// Seconds of outage for the whole coverage.
        full: u32,
        /// Seconds in which a challenge is answered.
        response: u32,
        /// Seconds of notice that the provider gives.
        notice: u32,
        /// Seconds in which the pod has to be started.
        start_within: u32,
        /// For how many seconds bids are taken.
        duration: u32,
        /// Whether anybody may award it once its time is over.
        self_award: bool,
        /// What a bidder has to have.
        requirements: Vec<Requirement>,
        /// Where the pod can be had, as the publisher says.
        uri: String,
        /// Where it stands.
        state: OrderState,
        /// When it was placed.
        placed_at: Time,
        /// The last second in which a bid is taken.
        deadline: Time,
        /// Who leads, or was awarded.
        leader: Option<Address>,
        /// The leader's rate; while nobody leads, the most that is paid.
        rate: Rate,
        /// How many bids were made.
        bids: u32,
        /// How often it was opened again.
        reopened: u32,
        /// The lease that it was awarded as.
        lease: Option<u64>,
        /// How it ended.
        outcome: Option<Outcome>,
        /// When it ended.
        over_at: Option<Time>,
        /// What winners lost that did not start.
        penalty: Amount,
    }

    /// Something that a bidder has to have.
    Requirement of store::auction::Requirement {
        /// Who has to vouch for it; zero: the bidder's own word is enough.
        auditor: Address,
        /// The hash of what it is.
        attribute: Hash,
    }

    /// A bid for an order.
    Bid of store::bid::Bid {
        /// The how-manieth of its order it is.
        number: u32,
        /// Who bid.
        bidder: Address,
        /// What it would cost.
        rate: Rate,
        /// When.
        time: Time,
    }

    /// An app that a keeper keeps deployed.
    App of store::app::App {
        /// Its number.
        id: u64,
        /// Who owns it.
        owner: Address,
        /// Who keeps it.
        keeper: Address,
        /// Who pays.
        account: Hash,
        /// The account's first slot that is the app's.
        slot: u32,
        /// Its name.
        name: String,
        /// Whether it still has that name.
        named: bool,
        /// The hash of what its keeper goes by.
        spec: Hash,
        /// Where that can be had, as the owner says.
        uri: String,
        /// What its keeper is paid.
        fee: Rate,
        /// How many leases it may have.
        replicas: u32,
        /// The longest lock of one, in seconds.
        max_lock: u32,
        /// The most that one may cost.
        max_rate: Rate,
        /// Which pods may run: the root of a Merkle tree of their hashes.
        pods: Hash,
        /// When it was registered.
        registered_at: Time,
        /// When it was given up.
        retired_at: Option<Time>,
    }

    /// The last lease of a replica.
    Replica of store::replica::Replica {
        /// Which replica.
        replica: u32,
        /// Its last lease.
        lease: u64,
        /// Who deployed it.
        deployer: Address,
        /// When.
        time: Time,
    }

    /// Whom an event is about, as far as that can be told.
    About of Subject {
        /// An account.
        account: Option<Hash>,
        /// A provider.
        provider: Option<Address>,
        /// A lease.
        lease: Option<u64>,
    }
}

impl From<&Cursor> for Block {
    fn from(cursor: &Cursor) -> Self {
        Self {
            number: cursor.number,
            hash: Hash(cursor.hash),
            time: Time(cursor.time),
            finalized: cursor.finalized,
            changes: Id::after(cursor).to_string(),
        }
    }
}

/// What stands for "never" among times.
fn once(time: u64) -> Option<Time> {
    (time > 0).then_some(Time(time))
}

impl From<Standing> for Provider {
    fn from(standing: Standing) -> Self {
        let row = standing.provider;
        Self {
            address: row.address.show(),
            version: row.version,
            listed: row.listed,
            seen_at: row.seen_at.show(),
            listed_at: row.listed_at.show(),
            endpoint: row.endpoint,
            region: row.region,
            prices: Prices {
                cpu: row.cpu.show(),
                memory_mib: row.memory_mib.show(),
                storage_mib: row.storage_mib.show(),
            },
            tls_key: row.tls_key.show(),
            seal_key: row.seal_key.show(),
            measurement: (row.measurement != B256::ZERO).then_some(Hash(row.measurement)),
            bond: standing.bond.show(),
            lockable: standing.lockable,
            leases: standing.tally.map(Tally::from),
            vouches: standing.vouches.show(),
        }
    }
}

impl From<store::tally::Tally> for Tally {
    fn from(row: store::tally::Tally) -> Self {
        let named = |(reason, count)| {
            let name = serde_json::to_value(reason).ok()?;
            Some((name.as_str()?.to_owned(), count))
        };
        Self {
            opened: row.opened,
            open: row.open,
            closed: row.closed.into_iter().filter_map(named).collect(),
            full_at: once(row.full_at),
        }
    }
}

impl From<store::price::Price> for Price {
    fn from(row: store::price::Price) -> Self {
        Self {
            version: row.version,
            time: row.time.show(),
            prices: Prices {
                cpu: row.cpu.show(),
                memory_mib: row.memory_mib.show(),
                storage_mib: row.storage_mib.show(),
            },
        }
    }
}

impl From<LeaseFile> for LeaseRecord {
    fn from(file: LeaseFile) -> Self {
        Self {
            lease: file.lease.into(),
            challenge: file.challenge.show(),
            outage: file.outage.show(),
        }
    }
}

impl Account {
    /// An account as it is at a time.
    pub(crate) fn at(row: &account::Account, now: u64) -> Self {
        let mut clock = account::clock_of(row);
        clock.settle(now);
        Self {
            id: row.id.show(),
            owner: row.owner.show(),
            salt: row.salt.show(),
            free: clock.free.show(),
            lockup: clock.lockup.show(),
            withdrawable: (clock.free - clock.lockup).collectable().show(),
            rate: clock.rate.show(),
            dry: clock.dry,
            funded_until: clock.funded_until().show(),
            resumed_at: once(row.resumed_at),
        }
    }
}

impl Stream {
    /// A stream of an account, as it is at a time.
    pub(crate) fn at(row: &stream::Stream, account: &account::Account, now: u64) -> Self {
        let owed = owed(row, account, now);
        Self {
            id: row.id.show(),
            operator: row.operator.show(),
            payee: row.payee.show(),
            rate: row.rate.show(),
            lock: row.lock,
            state: row.state.show(),
            owed: owed.show(),
            collectable: owed.collectable().show(),
            collected: row.collected.show(),
            opened_at: row.opened_at.show(),
        }
    }
}

/// What a stream has accrued and nobody has collected.
fn owed(row: &stream::Stream, account: &account::Account, now: u64) -> protocol::amount::Units {
    let (mut clock, mut stream) = (account::clock_of(account), stream::clock_of(row));
    // What is collected and what is left are together what is owed.
    match clock.collect(&mut stream, now) {
        Ok(collected) => {
            let units = collected.units().map_or(u128::MAX, |units| units.0);
            protocol::amount::Units(stream.owed.0.saturating_add(units))
        }
        // More than 128 bits cannot be owed: what was at the last event is the most that can be said.
        Err(_overflow) => row.owed,
    }
}

impl From<store::event::Event> for Event {
    fn from(row: store::event::Event) -> Self {
        Self {
            block: row.block,
            block_hash: row.block_hash.show(),
            time: row.time.show(),
            log_index: row.log_index,
            tx: row.tx.show(),
            contract: row.contract,
            name: row.name,
            args: row.args,
            about: row.subject.into(),
        }
    }
}
