//! The history of prices.

use alloy_primitives::Address;
use protocol::amount::Rate;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// What a provider asked for from one version of its listing on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// The version of its listing.
    pub version: u64,
    /// From when on.
    pub time: u64,
    /// Of a thousandth of a core.
    #[serde(with = "codec::number")]
    pub cpu: Rate,
    /// Of a MiB of memory.
    #[serde(with = "codec::number")]
    pub memory_mib: Rate,
    /// Of a MiB of volume.
    #[serde(with = "codec::number")]
    pub storage_mib: Rate,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// The version of its listing.
    pub version: u64,
}

row!(
    Price,
    Key { provider, version },
    "price",
    load "select to_jsonb(t) as \"row!: Json<Price>\"
         from price t join jsonb_populate_recordset(null::price, $1) k using (provider, version)",
    save "insert into price (provider, version, time, cpu, memory_mib, storage_mib)
         select provider, version, time, cpu, memory_mib, storage_mib
         from jsonb_populate_recordset(null::price, $1)
         on conflict (provider, version) do update
         set (time, cpu, memory_mib, storage_mib)
         = (excluded.time, excluded.cpu, excluded.memory_mib, excluded.storage_mib)",
    remove "delete from price t using jsonb_populate_recordset(null::price, $1) k
         where t.provider = k.provider and t.version = k.version",
);
