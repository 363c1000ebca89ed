//! How providers' leases went.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use protocol::lease::CloseReason;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// What became of a provider's leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Whose leases.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// How many were opened.
    pub opened: u64,
    /// How many of them are open.
    pub open: u64,
    /// How many were closed, by reason.
    pub closed: BTreeMap<CloseReason, u64>,
    /// When it last closed one because it had no room; zero if it never did.
    pub full_at: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whose leases.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
}

row!(
    Tally,
    Key { provider },
    "tally",
    load "select to_jsonb(t) as \"row!: Json<Tally>\"
         from tally t join jsonb_populate_recordset(null::tally, $1) k using (provider)",
    save "insert into tally (provider, opened, open, closed, full_at)
         select provider, opened, open, closed, full_at
         from jsonb_populate_recordset(null::tally, $1)
         on conflict (provider) do update
         set (opened, open, closed, full_at)
         = (excluded.opened, excluded.open, excluded.closed, excluded.full_at)",
    remove "delete from tally t using jsonb_populate_recordset(null::tally, $1) k
         where t.provider = k.provider",
);
