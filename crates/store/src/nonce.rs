//! Nonces of quotes that were used or cancelled.

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// 256 nonces of a provider's quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// The nonces' number, without its last byte.
    #[serde(with = "codec::bytes")]
    pub word: B256,
    /// Which of them are used up.
    #[serde(with = "codec::bytes")]
    pub bits: B256,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The provider.
    #[serde(with = "codec::bytes")]
    pub provider: Address,
    /// The nonces' number, without its last byte.
    #[serde(with = "codec::bytes")]
    pub word: B256,
}

row!(
    Nonce,
    Key { provider, word },
    "nonce",
    load "select to_jsonb(t) as \"row!: Json<Nonce>\"
         from nonce t join jsonb_populate_recordset(null::nonce, $1) k using (provider, word)",
    save "insert into nonce (provider, word, bits)
         select provider, word, bits
         from jsonb_populate_recordset(null::nonce, $1)
         on conflict (provider, word) do update
         set bits = excluded.bits",
    remove "delete from nonce t using jsonb_populate_recordset(null::nonce, $1) k
         where t.provider = k.provider and t.word = k.word",
);
