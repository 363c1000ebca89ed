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

/// Up to `limit` events after `place`, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn after(
    conn: &mut PgConnection,
    place: Place,
    limit: u32,
) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Found,
        "select block_number, time as \"time!: i64\", log_index, tx_hash as \"tx_hash!: Vec<u8>\",
                contract, name, args as \"args!: Json<Box<RawValue>>\"
         from event join block on number = block_number
         where (block_number, log_index) > ($1, $2)
         order by block_number, log_index limit $3",
        place.block.cast_signed(),
        place.log_index.cast_signed(),
        i64::from(limit)
    );
    rows.fetch_all(conn).await?.into_iter().map(Event::try_from).collect()
}

/// Up to `limit` events of a lease before `place`, newest first.
///
/// # Errors
/// When the database fails.
pub async fn of_lease(
    conn: &mut PgConnection,
    lease: u64,
    before: Option<Place>,
    limit: u32,
) -> Result<Vec<Event>, sqlx::Error> {
    let (block, log_index) = bound(before);
    let rows = sqlx::query_as!(
        Found,
        "select block_number, time as \"time!: i64\", log_index, tx_hash as \"tx_hash!: Vec<u8>\",
                contract, name, args as \"args!: Json<Box<RawValue>>\"
         from event join block on number = block_number
         where lease = $1 and (block_number, log_index) < ($2, $3)
         order by block_number desc, log_index desc limit $4",
        lease.cast_signed(),
        block,
        log_index,
        i64::from(limit)
    );
    rows.fetch_all(conn).await?.into_iter().map(Event::try_from).collect()
}

/// Up to `limit` events of an account before `place`, newest first.
///
/// # Errors
/// When the database fails.
pub async fn of_account(
    conn: &mut PgConnection,
    account: B256,
    before: Option<Place>,
    limit: u32,
) -> Result<Vec<Event>, sqlx::Error> {
    let (block, log_index) = bound(before);
    let rows = sqlx::query_as!(
        Found,
        "select block_number, time as \"time!: i64\", log_index, tx_hash as \"tx_hash!: Vec<u8>\",
                contract, name, args as \"args!: Json<Box<RawValue>>\"
         from event join block on number = block_number
         where account = $1::bytea and (block_number, log_index) < ($2, $3)
         order by block_number desc, log_index desc limit $4",
        account.as_slice(),
        block,
        log_index,
        i64::from(limit)
    );
    rows.fetch_all(conn).await?.into_iter().map(Event::try_from).collect()
}

/// Up to `limit` events of a provider before `place`, newest first.
///
/// # Errors
/// When the database fails.
pub async fn of_provider(
    conn: &mut PgConnection,
    provider: Address,
    before: Option<Place>,
    limit: u32,
) -> Result<Vec<Event>, sqlx::Error> {
    let (block, log_index) = bound(before);
    let rows = sqlx::query_as!(
        Found,
        "select block_number, time as \"time!: i64\", log_index, tx_hash as \"tx_hash!: Vec<u8>\",
                contract, name, args as \"args!: Json<Box<RawValue>>\"
         from event join block on number = block_number
         where provider = $1::bytea and (block_number, log_index) < ($2, $3)
         order by block_number desc, log_index desc limit $4",
        provider.as_slice(),
        block,
        log_index,
        i64::from(limit)
    );
    rows.fetch_all(conn).await?.into_iter().map(Event::try_from).collect()
}

/// Up to `limit` events before `place`, newest first.
///
/// # Errors
/// When the database fails.
pub async fn newest(
    conn: &mut PgConnection,
    before: Option<Place>,
    limit: u32,
) -> Result<Vec<Event>, sqlx::Error> {
    let (block, log_index) = bound(before);
    let rows = sqlx::query_as!(
        Found,
        "select block_number, time as \"time!: i64\", log_index, tx_hash as \"tx_hash!: Vec<u8>\",
                contract, name, args as \"args!: Json<Box<RawValue>>\"
         from event join block on number = block_number
         where (block_number, log_index) < ($1, $2)
         order by block_number desc, log_index desc limit $3",
        block,
        log_index,
        i64::from(limit)
    );
    rows.fetch_all(conn).await?.into_iter().map(Event::try_from).collect()
}

fn bound(before: Option<Place>) -> (i64, i32) {
    before.map_or((i64::MAX, i32::MAX), |place| {
        (place.block.cast_signed(), place.log_index.cast_signed())
    })
}

struct Found {
    block_number: i64,
    time: i64,
    log_index: i32,
    tx_hash: Vec<u8>,
    contract: String,
    name: String,
    args: Json<Box<RawValue>>,
}

impl TryFrom<Found> for Event {
    type Error = sqlx::Error;

    fn try_from(found: Found) -> Result<Self, sqlx::Error> {
        let tx = B256::try_from(found.tx_hash.as_slice());
        Ok(Self {
            block: found.block_number.cast_unsigned(),
            time: found.time.cast_unsigned(),
            log_index: found.log_index.cast_unsigned(),
            tx: tx.map_err(|err| sqlx::Error::Decode(err.into()))?,
            contract: found.contract,
            name: found.name,
            args: found.args.0,
        })
    }
}
