//! What operators may do with accounts.

use alloy_primitives::{Address, B256};
use protocol::amount::{Rate, Units};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// What an operator may do with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The account.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// The operator.
    #[serde(with = "codec::bytes")]
    pub operator: Address,
    /// The total rate of the streams that it may have open.
    #[serde(with = "codec::number")]
    pub rate_limit: Rate,
    /// The total rate of the streams that it has open.
    #[serde(with = "codec::number")]
    pub rate_used: Rate,
    /// What it may still pay at once.
    #[serde(with = "codec::number")]
    pub pay_limit: Units,
    /// The longest lock of a stream that it may open, in seconds.
    pub max_lock: u32,
    /// The last second at which it may open, raise or pay.
    pub expiry: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The account.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// The operator.
    #[serde(with = "codec::bytes")]
    pub operator: Address,
}

row!(
    Approval,
    Key { account, operator },
    "approval",
    load "select to_jsonb(t) as \"row!: Json<Approval>\"
         from approval t join jsonb_populate_recordset(null::approval, $1) k using (account, operator)",
    save "insert into approval (account, operator, rate_limit, rate_used, pay_limit, max_lock, expiry)
         select account, operator, rate_limit, rate_used, pay_limit, max_lock, expiry
         from jsonb_populate_recordset(null::approval, $1)
         on conflict (account, operator) do update
         set (rate_limit, rate_used, pay_limit, max_lock, expiry)
         = (excluded.rate_limit, excluded.rate_used, excluded.pay_limit, excluded.max_lock,
             excluded.expiry)",
    remove "delete from approval t using jsonb_populate_recordset(null::approval, $1) k
         where t.account = k.account and t.operator = k.operator",
);
