//! What backs what.

use alloy_primitives::Address;
use protocol::amount::Amount;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// A part of a bond that backs one thing of a locker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondLock {
    /// Whose bond.
    #[serde(with = "codec::bytes")]
    pub bonder: Address,
    /// The contract that may slash it.
    #[serde(with = "codec::bytes")]
    pub locker: Address,
    /// The locker's own number; of Leases, the lease.
    #[serde(rename = "ref")]
    pub ref_: u128,
    /// What is left of it.
    #[serde(with = "codec::number")]
    pub amount: Amount,
    /// Until when it backs something; `None` while that is not known.
    pub release_at: Option<u64>,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whose bond.
    #[serde(with = "codec::bytes")]
    pub bonder: Address,
    /// The contract that may slash it.
    #[serde(with = "codec::bytes")]
    pub locker: Address,
    /// The locker's own number; of Leases, the lease.
    #[serde(rename = "ref")]
    pub ref_: u128,
}

row!(
    BondLock,
    Key { bonder, locker, ref_ },
    "bond_lock",
    load "select to_jsonb(t) as \"row!: Json<BondLock>\"
         from bond_lock t join jsonb_populate_recordset(null::bond_lock, $1) k using (bonder, locker, ref)",
    save "insert into bond_lock (bonder, locker, ref, amount, release_at)
         select bonder, locker, ref, amount, release_at
         from jsonb_populate_recordset(null::bond_lock, $1)
         on conflict (bonder, locker, ref) do update
         set (amount, release_at)
         = (excluded.amount, excluded.release_at)",
    remove "delete from bond_lock t using jsonb_populate_recordset(null::bond_lock, $1) k
         where t.bonder = k.bonder and t.locker = k.locker and t.ref = k.ref",
);
