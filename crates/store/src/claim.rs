//! What can be claimed in Staking.

use alloy_primitives::Address;
use protocol::amount::Amount;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// What slashes brought somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who may claim it.
    #[serde(with = "codec::bytes")]
    pub beneficiary: Address,
    /// What can be claimed now.
    #[serde(with = "codec::number")]
    pub amount: Amount,
    /// What was claimed so far.
    #[serde(with = "codec::number")]
    pub claimed: Amount,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Who may claim it.
    #[serde(with = "codec::bytes")]
    pub beneficiary: Address,
}

row!(
    Claim,
    Key { beneficiary },
    "claim",
    load "select to_jsonb(t) as \"row!: Json<Claim>\"
         from claim t join jsonb_populate_recordset(null::claim, $1) k using (beneficiary)",
    save "insert into claim (beneficiary, amount, claimed)
         select beneficiary, amount, claimed
         from jsonb_populate_recordset(null::claim, $1)
         on conflict (beneficiary) do update
         set (amount, claimed)
         = (excluded.amount, excluded.claimed)",
    remove "delete from claim t using jsonb_populate_recordset(null::claim, $1) k
         where t.beneficiary = k.beneficiary",
);
