//! All listed providers, held in memory as they are after one block, so that a search looks at each of them without asking
//! the database about any.
//!
//! What changed is read again: the providers that new events are about. When blocks went away, so did what their events
//! changed; so it is remembered whom blocks touched that may still go away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use crate::{MOST_VOUCHES, Market, Problem};
use alloy_primitives::Address;
use protocol::{amount::Amount, criteria::Facts, lease::CloseReason, resources::PriceList};
use store::{
    cursor::Cursor,
    event::Place,
    market::{self, Standing},
    vouch::Vouch,
};

/// How many providers are read at a time, of all and of those that changed.
const AT_ONCE: u16 = 1_000;

/// How many events are looked at at a time.
const EVENTS: u32 = 5_000;

/// How often it is looked whether the mirror moved, whatever was heard.
const LOOK: Duration = Duration::from_secs(5);

/// How long to wait before the database is asked again after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// All listed providers after one block.
#[derive(Debug, Default)]
pub(crate) struct Listings(RwLock<Inner>);

/// See [`Listings`].
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Which block; nothing until they were read.
    pub(crate) at: Option<Cursor>,
    /// By their addresses.
    pub(crate) listed: BTreeMap<Address, Listed>,
}

/// A listed provider.
#[derive(Debug)]
pub(crate) struct Listed {
    /// By what it is judged.
    pub(crate) facts: Facts,
    /// When it was last heard of.
    pub(crate) seen_at: u64,
    /// Its API.
    pub(crate) endpoint: String,
    /// The version of its listing.
    pub(crate) version: u64,
    /// Who vouches for it, some of them only for some time.
    vouches: Vec<Vouch>,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Whether all were read.
    complete: bool,
    /// Up to which event the listings are.
    place: Place,
    /// How often blocks were taken back until then.
    reorgs: u64,
    /// Blocks up to here stay.
    finalized: u64,
    /// Whom later blocks touched.
    touched: BTreeMap<u64, BTreeSet<Address>>,
}

impl Listings {
    /// All of them, for as long as it takes to look at them.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Listed {
    fn new(standing: Standing) -> (Address, Self) {
        let Standing { provider, bond, lockable, tally, vouches } = standing;
        let (bonded, locked) = bond.map_or((0, 0), |bond| (bond.bonded.0, bond.locked.0));
        let free = if lockable { bonded.saturating_sub(locked) } else { 0 };
        let tally = tally.as_ref();
        let dark = tally.and_then(|tally| tally.closed.get(&CloseReason::WentDark));
        let facts = Facts {
            provider: provider.address,
            region: provider.region,
            prices: PriceList {
                cpu: provider.cpu,
                memory: provider.memory_mib,
                storage: provider.storage_mib,
                ..PriceList::default()
            },
            measurement: provider.measurement,
            live: false,
            seen: 0,
            room: None,
            bonded: Some(Amount(bonded)),
            free_stake: Some(Amount(free)),
            leases: Some(tally.map_or(0, |tally| tally.opened)),
            open_leases: Some(tally.map_or(0, |tally| tally.open)),
            dark: Some(dark.copied().unwrap_or(0)),
            vouches: Some(BTreeSet::new()),
        };
        let listed = Self {
            facts,
            seen_at: provider.seen_at,
            endpoint: provider.endpoint,
            version: provider.version,
            vouches,
        };
        (provider.address, listed)
    }

    /// What depends on the time.
    fn at(&mut self, now: u64, ttl: u64) {
        self.facts.seen = now.saturating_sub(self.seen_at);
        self.facts.live = self.facts.seen <= ttl;
        if self.vouches.is_empty() {
            return;
        }
        let vouches = self.vouches.iter().filter(|vouch| vouch.expiry >= now);
        let vouches = vouches.map(|vouch| (vouch.attribute, vouch.auditor)).collect();
        self.facts.vouches = Some(vouches);
    }
}

/// Keeps the listings as the mirror is, until the market stops.
pub(crate) async fn follow(market: Arc<Market>) {
    let mut memory = Memory::default();
    let mut heads = market.heads().subscribe();
    loop {
        let wait = match memory.look(&market).await {
            Ok(()) => LOOK,
            Err(problem) => {
                // What was looked at may be forgotten half, so the next look is at everything.
                memory = Memory::default();
                tracing::debug!("the listings are not read: {}", problem.detail);
                PAUSE
            }
        };
        tokio::select! {
            () = market.stopping().cancelled() => return,
            _ = heads.changed(), if wait == LOOK => (),
            () = tokio::time::sleep(wait) => (),
        }
    }
}

impl Memory {
    /// Brings the listings to where the mirror is.
    async fn look(&mut self, market: &Market) -> Result<(), Problem> {
        let mut reading = market.read().await?;
        let cursor = reading.cursor;
        if market.listings().read().at.is_some_and(|at| at.hash == cursor.hash) {
            return Ok(());
        }
        let aspects = market.aspects(&cursor, MOST_VOUCHES);
        let conn = reading.conn();
        let (reorgs, _deepest) = market::reorgs(conn).await?;
        let mut all = None;
        let mut changed = BTreeSet::new();
        if !self.complete {
            let mut read: Vec<Standing> = Vec::new();
            loop {
                let after = read.last().map(|last| last.provider.address);
                let some =
                    market::listed_standings_after(conn, aspects, after, AT_ONCE.into()).await?;
                if some.is_empty() {
                    break;
                }
                read.extend(some);
            }
            all = Some(read.into_iter().map(Listed::new).collect::<BTreeMap<_, _>>());
            self.place = end_of(cursor.finalized);
        } else if reorgs != self.reorgs {
            // Nobody says which of these blocks went away: whom they touched is read, and what came instead.
            changed.extend(std::mem::take(&mut self.touched).into_values().flatten());
            self.place = end_of(self.finalized);
        }
        self.reorgs = reorgs;
        self.finalized = cursor.finalized;
        loop {
            let events = market::touched_after(conn, self.place, EVENTS).await?;
            let Some(last) = events.last() else { break };
            self.place = last.place;
            for event in events {
                let Some(provider) = event.provider else { continue };
                changed.insert(provider);
                self.touched.entry(event.place.block).or_default().insert(provider);
            }
        }
        self.touched = self.touched.split_off(&(cursor.finalized + 1));
        let mut read = Vec::new();
        let changed: Vec<Address> = changed.into_iter().collect();
        for some in changed.chunks(AT_ONCE.into()) {
            read.extend(market::standings_of(conn, aspects, some).await?);
        }
        market.listings().change(|inner| {
            if let Some(all) = all {
                inner.listed = all;
            }
            changed.iter().for_each(|gone| _ = inner.listed.remove(gone));
            let listed = read.into_iter().filter(|standing| standing.provider.listed);
            inner.listed.extend(listed.map(Listed::new));
            inner.listed.values_mut().for_each(|listed| listed.at(cursor.time, market.ttl()));
            inner.at = Some(cursor);
        });
        self.complete = true;
        Ok(())
    }
}

/// The place behind all events of a block.
fn end_of(block: u64) -> Place {
    Place { block, log_index: i32::MAX.cast_unsigned() }
}
