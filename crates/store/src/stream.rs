//! Streams of Payments.

use alloy_primitives::{Address, B256};
use protocol::{
    amount::{Amount, Rate, Units},
    clock,
};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// A stream, with what it owed at the last event that touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its id: the operator, then the operator's own number.
    #[serde(with = "codec::bytes")]
    pub id: B256,
    /// Who pays.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// Who opened it.
    #[serde(with = "codec::bytes")]
    pub operator: Address,
    /// Who is paid.
    #[serde(with = "codec::bytes")]
    pub payee: Address,
    /// What a second costs; zero once closed.
    #[serde(with = "codec::number")]
    pub rate: Rate,
    /// For how many seconds of the rate the account stays locked.
    pub lock: u32,
    /// Where it stands.
    pub state: State,
    /// The account's clock when `owed` was last brought up to date.
    pub clock_at: u64,
    /// Accrued and not collected at `clock_at`.
    #[serde(with = "codec::number")]
    pub owed: Units,
    /// What went to the payee so far.
    #[serde(with = "codec::number")]
    pub collected: Amount,
    /// When it was opened.
    pub opened_at: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its id: the operator, then the operator's own number.
    #[serde(with = "codec::bytes")]
    pub id: B256,
}

row!(
    Stream,
    Key { id },
    "stream",
    load "select to_jsonb(t) as \"row!: Json<Stream>\"
         from stream t join jsonb_populate_recordset(null::stream, $1) k using (id)",
    save "insert into stream (id, account, operator, payee, rate, lock, state, clock_at, owed, collected,
             opened_at)
         select id, account, operator, payee, rate, lock, state, clock_at, owed, collected,
             opened_at
         from jsonb_populate_recordset(null::stream, $1)
         on conflict (id) do update
         set (account, operator, payee, rate, lock, state, clock_at, owed, collected, opened_at)
         = (excluded.account, excluded.operator, excluded.payee, excluded.rate, excluded.lock,
             excluded.state, excluded.clock_at, excluded.owed, excluded.collected,
             excluded.opened_at)",
    remove "delete from stream t using jsonb_populate_recordset(null::stream, $1) k
         where t.id = k.id",
);

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It holds its lockup and does not accrue.
    Reserved,
    /// It accrues.
    Running,
    /// It ended; what it accrued can be collected.
    Closed,
}

/// A stream as the rules know it.
pub fn clock_of(stream: &Stream) -> clock::Stream {
    clock::Stream {
        rate: stream.rate,
        lock: stream.lock,
        state: match stream.state {
            State::Reserved => clock::StreamState::Reserved,
            State::Running => clock::StreamState::Running,
            State::Closed => clock::StreamState::Closed,
        },
        clock_at: stream.clock_at,
        owed: stream.owed,
    }
}
