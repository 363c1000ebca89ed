//! Challenges of leases.

use alloy_primitives::Address;
use protocol::amount::Amount;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// The last challenge of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The lease.
    pub lease: u64,
    /// Who challenged.
    #[serde(with = "codec::bytes")]
    pub challenger: Address,
    /// When.
    pub since: u64,
    /// Until when it can be answered.
    pub deadline: u64,
    /// The account's clock then.
    pub clock: u64,
    /// Where it stands.
    pub state: State,
    /// What it brought.
    #[serde(with = "codec::number")]
    pub compensation: Amount,
    /// How many the lease has had.
    pub challenges: u32,
    /// How many of them were answered.
    pub answers: u32,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The lease.
    pub lease: u64,
}

row!(
    Challenge,
    Key { lease },
    "challenge",
    load "select to_jsonb(t) as \"row!: Json<Challenge>\"
         from challenge t join jsonb_populate_recordset(null::challenge, $1) k using (lease)",
    save "insert into challenge (lease, challenger, since, deadline, clock, state, compensation, challenges, answers)
         select lease, challenger, since, deadline, clock, state, compensation, challenges, answers
         from jsonb_populate_recordset(null::challenge, $1)
         on conflict (lease) do update
         set (challenger, since, deadline, clock, state, compensation, challenges, answers)
         = (excluded.challenger, excluded.since, excluded.deadline, excluded.clock,
             excluded.state, excluded.compensation, excluded.challenges, excluded.answers)",
    remove "delete from challenge t using jsonb_populate_recordset(null::challenge, $1) k
         where t.lease = k.lease",
);

/// Where a challenge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The provider has not answered yet.
    Open,
    /// The provider answered.
    Answered,
    /// The provider did not answer.
    Dark,
    /// The lease ended in time, so nobody had to answer any more.
    Moot,
}
