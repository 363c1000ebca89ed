//! Orders on the reverse market.

use alloy_primitives::{Address, B256};
use protocol::amount::{Amount, Rate};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// An order, from its placing to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auction {
    /// Its number.
    pub id: u64,
    /// Who pays.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// Who placed it.
    #[serde(with = "codec::bytes")]
    pub payer: Address,
    /// The slot that the lease will fill.
    pub slot: u32,
    /// The hash of the pod.
    #[serde(with = "codec::bytes")]
    pub pod: B256,
    /// Thousandths of a processor.
    pub cpu: u32,
    /// MiB of memory.
    pub memory_mib: u64,
    /// MiB of volumes.
    pub storage_mib: u64,
    /// The most that is paid.
    #[serde(with = "codec::number")]
    pub max_rate: Rate,
    /// What is to back the lease.
    #[serde(with = "codec::number")]
    pub coverage: Amount,
    /// For how many seconds of the rate the account stays locked.
    pub lock: u32,
    /// Seconds of outage without compensation.
    pub grace: u32,
    /// Seconds of outage for the whole coverage.
    pub full: u32,
    /// Seconds in which a challenge is answered.
    pub response: u32,
    /// Seconds of notice that the provider gives.
    pub notice: u32,
    /// Seconds in which the pod has to be started.
    pub start_within: u32,
    /// For how many seconds bids are taken.
    pub duration: u32,
    /// Whether anybody may award it once its time is over.
    pub self_award: bool,
    /// What a bidder has to have.
    pub requirements: Vec<Requirement>,
    /// Where the pod can be had.
    pub uri: String,
    /// Where it stands.
    pub state: State,
    /// When it was placed.
    pub placed_at: u64,
    /// The last second in which a bid is taken.
    pub deadline: u64,
    /// Who leads, or was awarded.
    #[serde(with = "codec::maybe_bytes")]
    pub leader: Option<Address>,
    /// The leader's rate; while nobody leads, the most that is paid.
    #[serde(with = "codec::number")]
    pub rate: Rate,
    /// How many bids were made.
    pub bids: u32,
    /// How often it was opened again.
    pub reopened: u32,
    /// The lease that it was awarded as.
    pub lease: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// When it ended.
    pub over_at: Option<u64>,
    /// What winners lost that did not start.
    #[serde(with = "codec::number")]
    pub penalty: Amount,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its number.
    pub id: u64,
}

row!(
    Auction,
    Key { id },
    "auction",
    load "select to_jsonb(t) as \"row!: Json<Auction>\"
         from auction t join jsonb_populate_recordset(null::auction, $1) k using (id)",
    save "insert into auction (id, account, payer, slot, pod, cpu, memory_mib, storage_mib, max_rate, coverage,
             lock, grace, \"full\", response, notice, start_within, duration, self_award,
             requirements, uri, state, placed_at, deadline, leader, rate, bids, reopened, lease,
             outcome, over_at, penalty)
         select id, account, payer, slot, pod, cpu, memory_mib, storage_mib, max_rate, coverage,
             lock, grace, \"full\", response, notice, start_within, duration, self_award,
             requirements, uri, state, placed_at, deadline, leader, rate, bids, reopened, lease,
             outcome, over_at, penalty
         from jsonb_populate_recordset(null::auction, $1)
         on conflict (id) do update
         set (account, payer, slot, pod, cpu, memory_mib, storage_mib, max_rate, coverage, lock,
             grace, \"full\", response, notice, start_within, duration, self_award,
             requirements, uri, state, placed_at, deadline, leader, rate, bids, reopened, lease,
             outcome, over_at, penalty)
         = (excluded.account, excluded.payer, excluded.slot, excluded.pod, excluded.cpu,
             excluded.memory_mib, excluded.storage_mib, excluded.max_rate, excluded.coverage,
             excluded.lock, excluded.grace, excluded.\"full\", excluded.response,
             excluded.notice, excluded.start_within, excluded.duration, excluded.self_award,
             excluded.requirements, excluded.uri, excluded.state, excluded.placed_at,
             excluded.deadline, excluded.leader, excluded.rate, excluded.bids,
             excluded.reopened, excluded.lease, excluded.outcome, excluded.over_at,
             excluded.penalty)",
    remove "delete from auction t using jsonb_populate_recordset(null::auction, $1) k
         where t.id = k.id",
);

/// Something that a bidder has to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// Who has to vouch for it; zero: the bidder's own word is enough.
    pub auditor: Address,
    /// The hash of what it is.
    pub attribute: B256,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Bids are taken, or it waits to be awarded.
    Open,
    /// It became a lease, which has not started yet.
    Awarded,
    /// It is over.
    Over,
}

/// How an order ended; the numbers are those of `IAuction.Outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its lease started.
    Started,
    /// Its payer wants it no longer.
    Cancelled,
    /// Nobody awarded it in time.
    Expired,
    /// Its winners did not start, too often.
    GivenUp,
}

impl Outcome {
    /// The outcome that stands for a number.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Started, Self::Cancelled, Self::Expired, Self::GivenUp]
            .into_iter()
            .find(|outcome| *outcome as u8 == number)
    }
}
