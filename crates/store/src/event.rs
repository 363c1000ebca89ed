//! Events, as they were emitted.

use alloy_primitives::{Address, B256};
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};

use crate::copy::Copy;

/// An event on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The block.
    pub block: u64,
    /// Its place among the block's logs.
    pub log_index: u32,
    /// The transaction.
    pub tx: B256,
    /// The contract that emitted it.
    pub contract: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its arguments, a JSON object.
    pub args: String,
    /// Whom it is about.
    pub subject: Subject,
}

/// Whom an event is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject {
    /// The account.
    pub account: Option<B256>,
    /// The provider.
    pub provider: Option<Address>,
    /// The lease.
    pub lease: Option<u64>,
}

/// An event as it is read.
#[derive(Debug)]
pub struct Event {
    /// The block.
    pub block: u64,
    /// The block's hash.
    pub block_hash: B256,
    /// The block's time.
    pub time: u64,
    /// Its place among the block's logs.
    pub log_index: u32,
    /// The transaction.
    pub tx: B256,
    /// The contract that emitted it.
    pub contract: String,
    /// Its name.
    pub name: String,
    /// Its arguments, a JSON object.
    pub args: Box<RawValue>,
    /// Whom it is about.
    pub subject: Subject,
}

impl Event {
    /// Where it is.
    pub fn place(&self) -> Place {
        Place { block: self.block, log_index: self.log_index }
    }
}

/// A place in the history: after this event of this block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The block.
    pub block: u64,
    /// The event's place among the block's logs.
    pub log_index: u32,
}

/// Adds events of blocks that are there.
///
/// # Errors
/// When the database fails, or has one of them.
pub async fn add(conn: &mut PgConnection, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    let statement = "copy event (block_number, log_index, tx_hash, contract, name, args, account, \
                     provider, lease) from stdin binary";
    let mut copy = Copy::new(conn, statement).await?;
    for event in events {
        copy.row(9);
        copy.bigint(event.block);
        copy.integer(event.log_index);
        copy.bytes(event.tx.as_slice());
        copy.bytes(event.contract.as_bytes());
        copy.bytes(event.name.as_bytes());
        copy.json(&event.args);
        match event.subject.account {
            Some(account) => copy.bytes(account.as_slice()),
            None => copy.null(),
        }
        match event.subject.provider {
            Some(provider) => copy.bytes(provider.as_slice()),
            None => copy.null(),
        }
        match event.subject.lease {
            Some(lease) => copy.bigint(lease),
            None => copy.null(),
        }
        copy.flush_when_full().await?;
    }
    copy.finish().await
}

/// Events with their blocks, a page at a time: `$1` and `$2` are where the page begins, `$3` how many there are.
macro_rules! pages {
    ($(
        $(#[$doc:meta])*
        $name:ident($($arg:ident: $kind:ty => $bind:expr)?; $from:ident: $place:ty => $start:expr)
        { $where:literal $order:literal }
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the database fails.
        pub async fn $name(
            conn: &mut PgConnection,
            $($arg: $kind,)?
            $from: $place,
            limit: u32,
        ) -> Result<Vec<Event>, sqlx::Error> {
            let (block, log_index) = $start;
            let rows = sqlx::query_as!(
                Found,
                "select block_number, hash as \"hash!: Vec<u8>\", time as \"time!: i64\", log_index,
                        tx_hash as \"tx_hash!: Vec<u8>\", contract, name,
                        args as \"args!: Json<Box<RawValue>>\", account as \"account: Vec<u8>\",
                        provider as \"provider: Vec<u8>\", lease
                 from event join block on number = block_number where "
                    + $where
                    + " order by "
                    + $order
                    + " limit $3",
                block,
                log_index,
                i64::from(limit),
                $($bind)?
            );
            rows.fetch_all(conn).await?.into_iter().map(Event::try_from).collect()
        }
    )*};
}

pages! {
    /// Up to `limit` events after `place`, oldest first.
    after(; place: Place => whole(place)) {
        "(block_number, log_index) > ($1, $2)"
        "block_number, log_index"
    }

    /// Up to `limit` events of a lease after `place`, oldest first.
    of_lease_after(lease: u64 => lease.cast_signed(); place: Place => whole(place)) {
        "lease = $4 and (block_number, log_index) > ($1, $2)"
        "block_number, log_index"
    }

    /// Up to `limit` events of an account after `place`, oldest first.
    of_account_after(account: B256 => account.as_slice(); place: Place => whole(place)) {
        "account = $4::bytea and (block_number, log_index) > ($1, $2)"
        "block_number, log_index"
    }

    /// Up to `limit` events of a provider after `place`, oldest first.
    of_provider_after(provider: Address => provider.as_slice(); place: Place => whole(place)) {
        "provider = $4::bytea and (block_number, log_index) > ($1, $2)"
        "block_number, log_index"
    }

    /// Up to `limit` events before `place`, newest first.
    newest(; before: Option<Place> => bound(before)) {
        "(block_number, log_index) < ($1, $2)"
        "block_number desc, log_index desc"
    }

    /// Up to `limit` events of a lease before `place`, newest first.
    of_lease(lease: u64 => lease.cast_signed(); before: Option<Place> => bound(before)) {
        "lease = $4 and (block_number, log_index) < ($1, $2)"
        "block_number desc, log_index desc"
    }

    /// Up to `limit` events of an account before `place`, newest first.
    of_account(account: B256 => account.as_slice(); before: Option<Place> => bound(before)) {
        "account = $4::bytea and (block_number, log_index) < ($1, $2)"
        "block_number desc, log_index desc"
    }

    /// Up to `limit` events of a provider before `place`, newest first.
    of_provider(provider: Address => provider.as_slice(); before: Option<Place> => bound(before)) {
        "provider = $4::bytea and (block_number, log_index) < ($1, $2)"
        "block_number desc, log_index desc"
    }
}

/// A place as Postgres takes it; what is above all numbers of Postgres is the last one.
fn whole(place: Place) -> (i64, i32) {
    let block = i64::try_from(place.block).unwrap_or(i64::MAX);
    (block, i32::try_from(place.log_index).unwrap_or(i32::MAX))
}

fn bound(before: Option<Place>) -> (i64, i32) {
    before.map_or((i64::MAX, i32::MAX), whole)
}

struct Found {
    block_number: i64,
    hash: Vec<u8>,
    time: i64,
    log_index: i32,
    tx_hash: Vec<u8>,
    contract: String,
    name: String,
    args: Json<Box<RawValue>>,
    account: Option<Vec<u8>>,
    provider: Option<Vec<u8>>,
    lease: Option<i64>,
}

impl TryFrom<Found> for Event {
    type Error = sqlx::Error;

    fn try_from(found: Found) -> Result<Self, sqlx::Error> {
        let decode = |err: std::array::TryFromSliceError| sqlx::Error::Decode(err.into());
        let hash = |bytes: &[u8]| B256::try_from(bytes).map_err(decode);
        let account = found.account.as_deref().map(hash).transpose()?;
        let provider = found.provider.as_deref().map(Address::try_from).transpose();
        Ok(Self {
            block: found.block_number.cast_unsigned(),
            block_hash: hash(&found.hash)?,
            time: found.time.cast_unsigned(),
            log_index: found.log_index.cast_unsigned(),
            tx: hash(&found.tx_hash)?,
            contract: found.contract,
            name: found.name,
            args: found.args.0,
            subject: Subject {
                account,
                provider: provider.map_err(decode)?,
                lease: found.lease.map(i64::cast_unsigned),
            },
        })
    }
}
