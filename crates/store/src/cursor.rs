//! How far the chain is mirrored.

use alloy_primitives::{Address, B256, ChainId};
use sqlx::PgConnection;

/// How far the chain is mirrored, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The chain.
    pub chain_id: ChainId,
    /// The deployment, by its Payments.
    pub payments: Address,
    /// The last block that is in.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Blocks up to here do not go away any more.
    pub finalized: u64,
    /// The time of the last block.
    pub time: u64,
}

/// The cursor, once there is one.
///
/// # Errors
/// When the database fails.
pub async fn read(conn: &mut PgConnection) -> Result<Option<Cursor>, sqlx::Error> {
    let row = sqlx::query!(
        "select chain_id, payments as \"payments!: Vec<u8>\", number, hash as \"hash!: Vec<u8>\",
                finalized, time as \"time!: i64\" from cursor"
    );
    let Some(row) = row.fetch_optional(conn).await? else { return Ok(None) };
    let decode = |err: std::array::TryFromSliceError| sqlx::Error::Decode(err.into());
    Ok(Some(Cursor {
        chain_id: row.chain_id.cast_unsigned(),
        payments: Address::try_from(row.payments.as_slice()).map_err(decode)?,
        number: row.number.cast_unsigned(),
        hash: B256::try_from(row.hash.as_slice()).map_err(decode)?,
        finalized: row.finalized.cast_unsigned(),
        time: row.time.cast_unsigned(),
    }))
}

/// Moves the cursor, and tells whoever listens on `head` once the transaction is in.
///
/// # Errors
/// When the database fails.
pub async fn write(conn: &mut PgConnection, cursor: &Cursor) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with moved as (
             insert into cursor (chain_id, payments, number, hash, finalized, time)
             values ($1, $2::bytea, $3, $4::bytea, $5, $6::bigint)
             on conflict (one) do update
             set (number, hash, finalized, time)
             = (excluded.number, excluded.hash, excluded.finalized, excluded.time)
             returning number
         )
         select pg_notify('head', number::text) from moved",
        cursor.chain_id.cast_signed(),
        cursor.payments.as_slice(),
        cursor.number.cast_signed(),
        cursor.hash.as_slice(),
        cursor.finalized.cast_signed(),
        cursor.time.cast_signed()
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Remembers that `depth` blocks were taken back.
///
/// # Errors
/// When the database fails.
pub async fn count_reorg(conn: &mut PgConnection, depth: u64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update cursor set reorgs = reorgs + 1, deepest_reorg = greatest(deepest_reorg, $1)",
        depth.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(())
}
