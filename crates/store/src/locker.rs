//! Who may lock parts of whose bond.

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// Whether a contract may lock parts of a bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locker {
    /// Whose bond.
    #[serde(with = "codec::bytes")]
    pub bonder: Address,
    /// The contract.
    #[serde(with = "codec::bytes")]
    pub locker: Address,
    /// Whether it may.
    pub allowed: bool,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whose bond.
    #[serde(with = "codec::bytes")]
    pub bonder: Address,
    /// The contract.
    #[serde(with = "codec::bytes")]
    pub locker: Address,
}

row!(
    Locker,
    Key { bonder, locker },
    "locker",
    load "select to_jsonb(t) as \"row!: Json<Locker>\"
         from locker t join jsonb_populate_recordset(null::locker, $1) k using (bonder, locker)",
    save "insert into locker (bonder, locker, allowed)
         select bonder, locker, allowed
         from jsonb_populate_recordset(null::locker, $1)
         on conflict (bonder, locker) do update
         set allowed = excluded.allowed",
    remove "delete from locker t using jsonb_populate_recordset(null::locker, $1) k
         where t.bonder = k.bonder and t.locker = k.locker",
);
