//! Issuers of leases.

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// Whether a contract may open leases in a provider's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// The contract.
    #[serde(with = "codec::bytes")]
    pub issuer: Address,
    /// Whether it may.
    pub allowed: bool,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// The contract.
    #[serde(with = "codec::bytes")]
    pub issuer: Address,
}

row!(
    Issuer,
    Key { provider, issuer },
    "issuer",
    load "select to_jsonb(t) as \"row!: Json<Issuer>\"
         from issuer t join jsonb_populate_recordset(null::issuer, $1) k using (provider, issuer)",
    save "insert into issuer (provider, issuer, allowed)
         select provider, issuer, allowed
         from jsonb_populate_recordset(null::issuer, $1)
         on conflict (provider, issuer) do update
         set allowed = excluded.allowed",
    remove "delete from issuer t using jsonb_populate_recordset(null::issuer, $1) k
         where t.provider = k.provider and t.issuer = k.issuer",
);
