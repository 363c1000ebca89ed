//! Agents of accounts in Leases.

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// Whether somebody may open and close an account's leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The account.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// The agent.
    #[serde(with = "codec::bytes")]
    pub agent: Address,
    /// Whether it may.
    pub allowed: bool,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The account.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// The agent.
    #[serde(with = "codec::bytes")]
    pub agent: Address,
}

row!(
    Agent,
    Key { account, agent },
    "agent",
    load "select to_jsonb(t) as \"row!: Json<Agent>\"
         from agent t join jsonb_populate_recordset(null::agent, $1) k using (account, agent)",
    save "insert into agent (account, agent, allowed)
         select account, agent, allowed
         from jsonb_populate_recordset(null::agent, $1)
         on conflict (account, agent) do update
         set allowed = excluded.allowed",
    remove "delete from agent t using jsonb_populate_recordset(null::agent, $1) k
         where t.account = k.account and t.agent = k.agent",
);
