//! Who vouches for whom.

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// An auditor's word that a provider has something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// Who vouches.
    #[serde(with = "codec::bytes")]
    pub auditor: Address,
    /// The hash of what it has.
    #[serde(with = "codec::bytes")]
    pub attribute: B256,
    /// Until when; zero once that was taken back.
    pub expiry: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// Who vouches.
    #[serde(with = "codec::bytes")]
    pub auditor: Address,
    /// The hash of what it has.
    #[serde(with = "codec::bytes")]
    pub attribute: B256,
}

row!(
    Vouch,
    Key { provider, auditor, attribute },
    "vouch",
    load "select to_jsonb(t) as \"row!: Json<Vouch>\"
         from vouch t join jsonb_populate_recordset(null::vouch, $1) k using (provider, auditor, attribute)",
    save "insert into vouch (provider, auditor, attribute, expiry)
         select provider, auditor, attribute, expiry
         from jsonb_populate_recordset(null::vouch, $1)
         on conflict (provider, auditor, attribute) do update
         set expiry = excluded.expiry",
    remove "delete from vouch t using jsonb_populate_recordset(null::vouch, $1) k
         where t.provider = k.provider and t.auditor = k.auditor and t.attribute = k.attribute",
);
