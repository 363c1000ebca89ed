//! Outages that watchers found.

use protocol::amount::Amount;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// The last outage of a lease, with those that were merged into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// The lease.
    pub lease: u64,
    /// When it began.
    pub began: u64,
    /// When it ended, as far as is known.
    pub ended: u64,
    /// What it cost so far.
    #[serde(with = "codec::number")]
    pub due: Amount,
    /// What all of the lease's outages cost.
    #[serde(with = "codec::number")]
    pub total: Amount,
    /// How many reports there were.
    pub reports: u32,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The lease.
    pub lease: u64,
}

row!(
    Outage,
    Key { lease },
    "outage",
    load "select to_jsonb(t) as \"row!: Json<Outage>\"
         from outage t join jsonb_populate_recordset(null::outage, $1) k using (lease)",
    save "insert into outage (lease, began, ended, due, total, reports)
         select lease, began, ended, due, total, reports
         from jsonb_populate_recordset(null::outage, $1)
         on conflict (lease) do update
         set (began, ended, due, total, reports)
         = (excluded.began, excluded.ended, excluded.due, excluded.total, excluded.reports)",
    remove "delete from outage t using jsonb_populate_recordset(null::outage, $1) k
         where t.lease = k.lease",
);
