//! Bonds of Staking.

use alloy_primitives::Address;
use protocol::amount::Amount;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// A bond, in token base units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// Whose it is.
    #[serde(with = "codec::bytes")]
    pub bonder: Address,
    /// What is at stake, locked or free.
    #[serde(with = "codec::number")]
    pub bonded: Amount,
    /// What of it backs something.
    #[serde(with = "codec::number")]
    pub locked: Amount,
    /// What has left it and waits for the delay.
    #[serde(with = "codec::number")]
    pub unbonding: Amount,
    /// When `unbonding` may be withdrawn.
    pub withdrawable_at: u64,
    /// What was ever taken out of it.
    #[serde(with = "codec::number")]
    pub slashed: Amount,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whose it is.
    #[serde(with = "codec::bytes")]
    pub bonder: Address,
}

row!(
    Bond,
    Key { bonder },
    "bond",
    load "select to_jsonb(t) as \"row!: Json<Bond>\"
         from bond t join jsonb_populate_recordset(null::bond, $1) k using (bonder)",
    save "insert into bond (bonder, bonded, locked, unbonding, withdrawable_at, slashed)
         select bonder, bonded, locked, unbonding, withdrawable_at, slashed
         from jsonb_populate_recordset(null::bond, $1)
         on conflict (bonder) do update
         set (bonded, locked, unbonding, withdrawable_at, slashed)
         = (excluded.bonded, excluded.locked, excluded.unbonding, excluded.withdrawable_at,
             excluded.slashed)",
    remove "delete from bond t using jsonb_populate_recordset(null::bond, $1) k
         where t.bonder = k.bonder",
);
