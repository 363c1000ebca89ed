//! Bids for orders.

use alloy_primitives::Address;
use protocol::amount::Rate;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// A bid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// The order.
    pub auction: u64,
    /// The how-manieth it is.
    pub number: u32,
    /// Who bid.
    #[serde(with = "codec::bytes")]
    pub bidder: Address,
    /// What it would cost.
    #[serde(with = "codec::number")]
    pub rate: Rate,
    /// When.
    pub time: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The order.
    pub auction: u64,
    /// The how-manieth it is.
    pub number: u32,
}

row!(
    Bid,
    Key { auction, number },
    "bid",
    load "select to_jsonb(t) as \"row!: Json<Bid>\"
         from bid t join jsonb_populate_recordset(null::bid, $1) k using (auction, number)",
    save "insert into bid (auction, number, bidder, rate, time)
         select auction, number, bidder, rate, time
         from jsonb_populate_recordset(null::bid, $1)
         on conflict (auction, number) do update
         set (bidder, rate, time)
         = (excluded.bidder, excluded.rate, excluded.time)",
    remove "delete from bid t using jsonb_populate_recordset(null::bid, $1) k
         where t.auction = k.auction and t.number = k.number",
);
