//! Leases.

use alloy_primitives::{Address, B256};
use protocol::amount::{Amount, Rate};
use protocol::lease::{CloseReason, State};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// A lease, from its opening to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number.
    pub id: u64,
    /// Who is paid.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// Who pays.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// The slot of the account that it fills.
    pub slot: u32,
    /// Where it stands.
    pub state: State,
    /// Who opened it.
    #[serde(with = "codec::bytes")]
    pub opener: Address,
    /// The hash of the pod.
    #[serde(with = "codec::bytes")]
    pub pod: B256,
    /// What was agreed for a second.
    #[serde(with = "codec::number")]
    pub rate: Rate,
    /// For how many seconds of the rate the account stays locked.
    pub lock: u32,
    /// What was agreed to back it.
    #[serde(with = "codec::number")]
    pub coverage: Amount,
    /// Seconds of outage without compensation.
    pub grace: u32,
    /// Seconds of outage for the whole coverage.
    pub full: u32,
    /// Seconds in which a challenge is answered.
    pub response: u32,
    /// Seconds of notice that the provider gives.
    pub notice: u32,
    /// The last second at which it may be activated.
    pub start_by: u64,
    /// The version of the listing that it was quoted under.
    pub version: u64,
    /// When it was opened.
    pub opened_at: u64,
    /// In which block.
    pub opened_block: u64,
    /// When its terms last changed.
    pub amended_at: Option<u64>,
    /// When its pod ran.
    pub activated_at: Option<u64>,
    /// Why the provider gave notice.
    pub notice_reason: Option<CloseReason>,
    /// When that notice runs out.
    pub ends_at: Option<u64>,
    /// When it ended.
    pub closed_at: Option<u64>,
    /// Why it ended.
    pub close_reason: Option<CloseReason>,
    /// Who ended it.
    #[serde(with = "codec::maybe_bytes")]
    pub closer: Option<Address>,
    /// What of the coverage was taken for leaving at once.
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
    Lease,
    Key { id },
    "lease",
    load "select to_jsonb(t) as \"row!: Json<Lease>\"
         from lease t join jsonb_populate_recordset(null::lease, $1) k using (id)",
    save "insert into lease (id, provider, account, slot, state, opener, pod, rate, lock, coverage, grace,
             \"full\", response, notice, start_by, version, opened_at, opened_block, amended_at,
             activated_at, notice_reason, ends_at, closed_at, close_reason, closer, penalty)
         select id, provider, account, slot, state, opener, pod, rate, lock, coverage, grace,
             \"full\", response, notice, start_by, version, opened_at, opened_block, amended_at,
             activated_at, notice_reason, ends_at, closed_at, close_reason, closer, penalty
         from jsonb_populate_recordset(null::lease, $1)
         order by (state <> 'closed')
         on conflict (id) do update
         set (provider, account, slot, state, opener, pod, rate, lock, coverage, grace, \"full\",
             response, notice, start_by, version, opened_at, opened_block, amended_at,
             activated_at, notice_reason, ends_at, closed_at, close_reason, closer, penalty)
         = (excluded.provider, excluded.account, excluded.slot, excluded.state,
             excluded.opener, excluded.pod, excluded.rate, excluded.lock, excluded.coverage,
             excluded.grace, excluded.\"full\", excluded.response, excluded.notice,
             excluded.start_by, excluded.version, excluded.opened_at, excluded.opened_block,
             excluded.amended_at, excluded.activated_at, excluded.notice_reason,
             excluded.ends_at, excluded.closed_at, excluded.close_reason, excluded.closer,
             excluded.penalty)",
    remove "delete from lease t using jsonb_populate_recordset(null::lease, $1) k
         where t.id = k.id",
);
