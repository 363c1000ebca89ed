//! Epochs of committees.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// An epoch that has committees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number.
    pub epoch: u64,
    /// What its committees are drawn with.
    #[serde(with = "codec::bytes")]
    pub seed: B256,
    /// How many seats there were.
    pub seats: u32,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its number.
    pub epoch: u64,
}

row!(
    Epoch,
    Key { epoch },
    "epoch",
    load "select to_jsonb(t) as \"row!: Json<Epoch>\"
         from epoch t join jsonb_populate_recordset(null::epoch, $1) k using (epoch)",
    save "insert into epoch (epoch, seed, seats)
         select epoch, seed, seats
         from jsonb_populate_recordset(null::epoch, $1)
         on conflict (epoch) do update
         set (seed, seats)
         = (excluded.seed, excluded.seats)",
    remove "delete from epoch t using jsonb_populate_recordset(null::epoch, $1) k
         where t.epoch = k.epoch",
);
