//! Providers of the Registry.

use alloy_primitives::{Address, B256};
use protocol::amount::Rate;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// A provider, as it last listed itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Who it is.
    #[serde(with = "codec::bytes")]
    pub address: Address,
    /// How often it changed its listing.
    pub version: u64,
    /// Whether it is listed.
    pub listed: bool,
    /// When it was last heard of.
    pub seen_at: u64,
    /// When it last changed its listing.
    pub listed_at: u64,
    /// Its API.
    pub endpoint: String,
    /// Where its machines are.
    pub region: String,
    /// Its price of a thousandth of a core.
    #[serde(with = "codec::number")]
    pub cpu: Rate,
    /// Its price of a MiB of memory.
    #[serde(with = "codec::number")]
    pub memory_mib: Rate,
    /// Its price of a MiB of volume.
    #[serde(with = "codec::number")]
    pub storage_mib: Rate,
    /// SHA-256 of the key that its API answers with.
    #[serde(with = "codec::bytes")]
    pub tls_key: B256,
    /// The X25519 key to which secrets are sealed.
    #[serde(with = "codec::bytes")]
    pub seal_key: B256,
    /// What it claims to be able to attest; zero for nothing.
    #[serde(with = "codec::bytes")]
    pub measurement: B256,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Who it is.
    #[serde(with = "codec::bytes")]
    pub address: Address,
}

row!(
    Provider,
    Key { address },
    "provider",
    load "select to_jsonb(t) as \"row!: Json<Provider>\"
         from provider t join jsonb_populate_recordset(null::provider, $1) k using (address)",
    save "insert into provider (address, version, listed, seen_at, listed_at, endpoint, region, cpu, memory_mib,
             storage_mib, tls_key, seal_key, measurement)
         select address, version, listed, seen_at, listed_at, endpoint, region, cpu, memory_mib,
             storage_mib, tls_key, seal_key, measurement
         from jsonb_populate_recordset(null::provider, $1)
         on conflict (address) do update
         set (version, listed, seen_at, listed_at, endpoint, region, cpu, memory_mib,
             storage_mib, tls_key, seal_key, measurement)
         = (excluded.version, excluded.listed, excluded.seen_at, excluded.listed_at,
             excluded.endpoint, excluded.region, excluded.cpu, excluded.memory_mib,
             excluded.storage_mib, excluded.tls_key, excluded.seal_key, excluded.measurement)",
    remove "delete from provider t using jsonb_populate_recordset(null::provider, $1) k
         where t.address = k.address",
);
