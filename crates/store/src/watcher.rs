//! Watchers.

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};

use crate::{codec, row::row};

/// A watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watcher {
    /// Who it is.
    #[serde(with = "codec::bytes")]
    pub address: Address,
    /// Its seat; zero once it left.
    pub seat: u32,
    /// The epoch in which it joined.
    pub since: u64,
    /// The reference of its bond's lock; zero once it lost that.
    #[serde(rename = "ref")]
    pub ref_: u128,
    /// Whether it was found to have lied.
    pub equivocated: bool,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Who it is.
    #[serde(with = "codec::bytes")]
    pub address: Address,
}

row!(
    Watcher,
    Key { address },
    "watcher",
    load "select to_jsonb(t) as \"row!: Json<Watcher>\"
         from watcher t join jsonb_populate_recordset(null::watcher, $1) k using (address)",
    save "insert into watcher (address, seat, since, ref, equivocated)
         select address, seat, since, ref, equivocated
         from jsonb_populate_recordset(null::watcher, $1)
         on conflict (address) do update
         set (seat, since, ref, equivocated)
         = (excluded.seat, excluded.since, excluded.ref, excluded.equivocated)",
    remove "delete from watcher t using jsonb_populate_recordset(null::watcher, $1) k
         where t.address = k.address",
);

/// The watchers that have a seat.
///
/// # Errors
/// When the database fails.
pub async fn seated(conn: &mut PgConnection) -> Result<Vec<Watcher>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        "select to_jsonb(t) as \"row!: Json<Watcher>\" from watcher t where seat <> 0"
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| row.0).collect())
}
