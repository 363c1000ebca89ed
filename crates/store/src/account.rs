//! Accounts of Payments.

use alloy_primitives::{Address, B256};
use protocol::{
    amount::{Rate, Units},
    clock,
};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// An account, settled at the last event that touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    #[serde(with = "codec::bytes")]
    pub id: B256,
    /// Who owns it.
    #[serde(with = "codec::bytes")]
    pub owner: Address,
    /// Which of the owner's accounts it is.
    #[serde(with = "codec::bytes")]
    pub salt: B256,
    /// What is left of its deposits at `settled_at`.
    #[serde(with = "codec::number")]
    pub free: Units,
    /// What may not be withdrawn while its streams are open.
    #[serde(with = "codec::number")]
    pub lockup: Units,
    /// The sum of its running streams' rates.
    #[serde(with = "codec::number")]
    pub rate: Rate,
    /// The seconds for which it was funded, up to `settled_at`.
    pub clock: u64,
    /// Up to when it is settled.
    pub settled_at: u64,
    /// Whether it ran dry and was not funded since.
    pub dry: bool,
    /// When it last stopped being dry; zero if it never was.
    pub resumed_at: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    #[serde(with = "codec::bytes")]
    pub id: B256,
}

row!(
    Account,
    Key { id },
    "account",
    load "select to_jsonb(t) as \"row!: Json<Account>\"
         from account t join jsonb_populate_recordset(null::account, $1) k using (id)",
    save "insert into account (id, owner, salt, free, lockup, rate, clock, settled_at, dry, resumed_at)
         select id, owner, salt, free, lockup, rate, clock, settled_at, dry, resumed_at
         from jsonb_populate_recordset(null::account, $1)
         on conflict (id) do update
         set (owner, salt, free, lockup, rate, clock, settled_at, dry, resumed_at)
         = (excluded.owner, excluded.salt, excluded.free, excluded.lockup, excluded.rate,
             excluded.clock, excluded.settled_at, excluded.dry, excluded.resumed_at)",
    remove "delete from account t using jsonb_populate_recordset(null::account, $1) k
         where t.id = k.id",
);

/// An account as the rules know it.
pub fn clock_of(account: &Account) -> clock::Account {
    clock::Account {
        free: account.free,
        lockup: account.lockup,
        rate: account.rate,
        clock: account.clock,
        settled_at: account.settled_at,
        dry: account.dry,
    }
}
