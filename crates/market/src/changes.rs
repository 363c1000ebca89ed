//! What happens, as it happens: a stream of server-sent events for each client, which can be resumed.
//!
//! One connection to the database hears that there is a new block, and wakes all clients. Each then reads what is new for
//! it, a bounded number of events at a time and only when its client has taken what was read before; so a slow client
//! holds a few events, and what it does not take in time ends its connection.
//!
//! An event's id says where it is, in which block of that height, and up to where blocks were final then. If that block is
//! gone, so may be others before it, but none that was final: there the client is told to go back to.

use std::{collections::VecDeque, convert::Infallible, fmt, sync::Arc, time::Duration};

use alloy_primitives::{B256, FixedBytes, hex};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures::stream::unfold;
use serde::Deserialize;
use store::{
    PgConnection, block,
    cursor::Cursor,
    event::{self, Place},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use utoipa::IntoParams;

use crate::{
    Market, Problem,
    limits::{self, Whose, too_many},
    query::{Asked, together},
    view::{self, Address, Hash, Key, not_a},
};

/// How many events are read at a time.
const BATCH: u32 = 100;

/// How long to wait before a database that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// When to come back where all streams are taken, in seconds.
const COME_BACK: u64 = 60;

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Changes {
    /// Those about an account.
    account: Option<Hash>,
    /// Those about a provider.
    provider: Option<Address>,
    /// Those about a lease.
    #[serde(default, deserialize_with = "crate::query::cursor")]
    #[param(value_type = Option<u64>)]
    lease: Option<u64>,
    /// Those after an event's id, or after the block of an answer: `at.changes`.
    #[serde(default, deserialize_with = "crate::query::cursor")]
    #[param(value_type = Option<String>)]
    after: Option<Id>,
}

/// Whom changes are about.
#[derive(Debug, Clone, Copy)]
enum About {
    All,
    Account(B256),
    Provider(alloy_primitives::Address),
    Lease(u64),
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    place: Place,
    /// The beginning of the block's hash.
    hash: FixedBytes<8>,
    /// Blocks up to here were final.
    finalized: u64,
}

impl Id {
    fn new(place: Place, hash: B256, finalized: u64) -> Self {
        Self { place, hash: FixedBytes::from_slice(&hash[..8]), finalized }
    }

    /// After all of the cursor's block.
    pub(crate) fn after(cursor: &Cursor) -> Self {
        let place = Place { block: cursor.number, log_index: u32::MAX };
        Self::new(place, cursor.hash, cursor.finalized)
    }

    /// Where to go back to if its block is gone: what was final stays.
    fn back(self) -> Self {
        let block = self.finalized.min(self.place.block);
        Self { place: Place { block, log_index: u32::MAX }, hash: FixedBytes::ZERO, ..self }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, hash) = (view::At(self.place), hex::encode(self.hash));
        write!(f, "{place}-{hash}-{}", self.finalized)
    }
}

impl Key for Id {
    const IS: &'static str = "the id of a change";

    fn read(text: &str) -> Option<Self> {
        let (rest, finalized) = text.rsplit_once('-')?;
        let (place, hash) = rest.rsplit_once('-')?;
        let view::At(place) = view::At::read(place)?;
        let mut bytes = [0; 8];
        hex::decode_to_slice(hash, &mut bytes).ok()?;
        let plain = !hash.starts_with("0x");
        plain.then_some(Self { place, hash: bytes.into(), finalized: u64::read(finalized)? })
    }
}

/// A client, and what was read for it.
#[derive(Debug)]
struct Client {
    market: Arc<Market>,
    about: About,
    at: Id,
    /// How often blocks had been taken back when it was last looked; while that stays, all that was sent stands.
    reorgs: Option<u64>,
    ready: VecDeque<Event>,
    /// Whether there was no more to read.
    is_new: bool,
    heads: watch::Receiver<()>,
    quiet: Instant,
    _place: limits::Place,
}

/// Changes, as they happen
///
/// Server-sent events. Each has an `id`, its contract and name as `event`, and itself as JSON in `data`. A client that
/// sends the last id that it has (`Last-Event-ID`, as browsers do, or `after`) misses nothing. `event: reorg` says that
/// blocks after `data.block` may have been taken back: what was heard of them is to be forgotten, and what came in their
/// place follows. Ids without an event come while nothing happens.
#[utoipa::path(
    get, path = "/v1/changes", operation_id = "changes",
    params(Changes, ("Last-Event-ID" = Option<String>, Header, description = "As `after`; it counts for more.")),
    responses((status = 200, description = "Events, until the client leaves.", body = String, content_type = "text/event-stream"))
)]
pub(crate) async fn changes(
    Asked(query): Asked<Changes>,
    Whose(who): Whose,
    headers: HeaderMap,
    State(market): State<Arc<Market>>,
) -> Result<Response, Problem> {
    let about = match (query.account, query.provider, query.lease) {
        (None, None, None) => About::All,
        (Some(Hash(account)), None, None) => About::Account(account),
        (None, Some(Address(provider)), None) => About::Provider(provider),
        (None, None, Some(lease)) => About::Lease(lease),
        _ => return Err(together("account; provider; lease")),
    };
    let last = match headers.get("last-event-id").map(|id| id.to_str()) {
        // What a browser sends that has heard of no id yet.
        None | Some(Ok("")) => query.after,
        Some(id) => {
            let id = id.unwrap_or_default();
            let read = Id::read(id);
            Some(read.ok_or_else(|| Problem::bad(format!("Last-Event-ID: {}", not_a::<Id>(id))))?)
        }
    };
    let Some(place) = market.streams().take(who) else {
        return Ok(too_many("there are too many streams of changes", COME_BACK));
    };
    let mut reading = market.read().await?;
    let cursor = reading.cursor;
    let at = match last {
        Some(id) => id,
        None => newest(reading.conn(), &cursor).await?,
    };
    drop(reading);
    let client = Client {
        heads: market.heads().subscribe(),
        about,
        at,
        reorgs: None,
        ready: VecDeque::from([Event::default().id(at.to_string())]),
        is_new: false,
        quiet: Instant::now() + market.quiet(),
        _place: place,
        market,
    };
    let mut response = Sse::new(unfold(client, Client::next)).into_response();
    // nginx would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The place of the last event, whose block is kept for good.
async fn newest(conn: &mut PgConnection, cursor: &Cursor) -> Result<Id, store::Error> {
    let newest = event::newest(conn, None, 1).await?.pop();
    Ok(newest.map_or(Id::new(Place::default(), B256::ZERO, cursor.finalized), |newest| {
        Id::new(newest.place(), newest.block_hash, cursor.finalized)
    }))
}

impl Client {
    /// What is sent next. Ends when the market does.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let stop = self.market.stopping().clone();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                self.quiet = Instant::now() + self.market.quiet();
                return Some((Ok(event), self));
            }
            let mut quiet = false;
            if self.is_new {
                tokio::select! {
                    () = stop.cancelled() => return None,
                    changed = self.heads.changed() => changed.ok()?,
                    () = sleep_until(self.quiet) => quiet = true,
                }
            }
            let read = tokio::select! {
                () = stop.cancelled() => return None,
                read = self.read() => read,
            };
            if read.is_err() {
                // Why has been logged. The next look is after the next block, or when it has been quiet for long enough.
                self.is_new = true;
            }
            if quiet && self.ready.is_empty() {
                self.ready.push_back(Event::default().id(self.at.to_string()));
            }
        }
    }

    /// Reads what is new.
    async fn read(&mut self) -> Result<(), Problem> {
        let _turn = self.market.turns().acquire().await;
        // What is announced from here on is after what is read here.
        self.heads.borrow_and_update();
        let mut reading = self.market.read().await?;
        let cursor = reading.cursor;
        let conn = reading.conn();
        let (reorgs, _) = store::market::reorgs(conn).await?;
        if self.reorgs != Some(reorgs) && !stands(conn, self.at).await? {
            self.at = self.at.back();
            let data = format!("{{\"block\":{}}}", self.at.place.block);
            self.ready
                .push_back(Event::default().id(self.at.to_string()).event("reorg").data(data));
        }
        self.reorgs = Some(reorgs);
        let place = self.at.place;
        let events = match self.about {
            About::All => event::after(conn, place, BATCH).await?,
            About::Account(account) => event::of_account_after(conn, account, place, BATCH).await?,
            About::Provider(provider) => {
                event::of_provider_after(conn, provider, place, BATCH).await?
            }
            About::Lease(lease) => event::of_lease_after(conn, lease, place, BATCH).await?,
        };
        self.is_new = u32::try_from(events.len()).is_ok_and(|count| count < BATCH);
        for event in events {
            self.at = Id::new(event.place(), event.block_hash, cursor.finalized);
            self.ready.push_back(shown(event, self.at));
        }
        if self.is_new {
            self.at = newest(conn, &cursor).await?;
        }
        Ok(())
    }
}

/// Whether the block that an id names is still there.
async fn stands(conn: &mut PgConnection, id: Id) -> Result<bool, store::Error> {
    if id.place.block <= id.finalized {
        return Ok(true);
    }
    let block = block::at(conn, id.place.block).await?;
    Ok(block.is_some_and(|block| block.hash[..8] == id.hash[..]))
}

fn shown(event: event::Event, id: Id) -> Event {
    let name = format!("{}.{}", event.contract, event.name);
    // What came out of JSON goes into JSON.
    let data = serde_json::to_string(&view::Event::from(event)).unwrap_or_default();
    Event::default().id(id.to_string()).event(name).data(data)
}

/// Hears that the cursor moved, and wakes all clients, until the market stops.
pub(crate) async fn listen(market: Arc<Market>) {
    let mut failing = false;
    loop {
        let heard = tokio::select! {
            () = market.stopping().cancelled() => return,
            heard = hear(&market) => heard,
        };
        if let Err(err) = heard
            && !failing
        {
            tracing::warn!(error = %err, "new blocks are not announced: {err}");
            failing = true;
        } else {
            failing = false;
        }
        tokio::select! {
            () = market.stopping().cancelled() => return,
            () = sleep(PAUSE) => (),
        }
    }
}

/// Hears until the connection is lost.
async fn hear(market: &Market) -> Result<(), store::Error> {
    let mut heads = market.listen().await?;
    loop {
        // Some may have been missed before, or while the connection was away.
        market.heads().send_replace(());
        heads.next().await?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_read_as_they_are_written(
            block in 0..=i64::MAX.cast_unsigned(), log_index: u32, hash: [u8; 32], finalized in 0..=i64::MAX.cast_unsigned(),
        ) {
            let id = Id::new(Place { block, log_index }, hash.into(), finalized);
            prop_assert_eq!(Id::read(&id.to_string()), Some(id));
            prop_assert_eq!(Id::read(&id.back().to_string()), Some(id.back()));
        }

        #[test]
        fn whatever_is_an_id_is_written_as_one(text in "[-0-9a-fx]{0,60}|\\PC*") {
            if let Some(id) = Id::read(&text) {
                prop_assert_eq!(Id::read(&id.to_string()), Some(id));
            }
        }
    }

    #[test]
    fn nobody_is_sent_back_behind_what_was_final() {
        let check = |block, finalized, back| {
            let id = Id::new(Place { block, log_index: 3 }, B256::repeat_byte(1), finalized);
            assert_eq!(id.back().place, Place { block: back, log_index: u32::MAX });
        };
        check(100, 40, 40);
        check(100, 100, 100);
        check(100, 200, 100);
        check(5, 0, 0);
    }
}
