//! Blocks: those that hold events, and all that may yet go away.

use alloy_primitives::B256;
use sqlx::PgConnection;

use crate::copy::Copy;

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// The hash of the block before it.
    pub parent: B256,
    /// Its time, in Unix seconds.
    pub time: u64,
}

/// Adds blocks.
///
/// # Errors
/// When the database fails, or has one of them.
pub async fn add(conn: &mut PgConnection, blocks: &[Block]) -> Result<(), sqlx::Error> {
    let mut copy =
        Copy::new(conn, "copy block (number, hash, parent, time) from stdin binary").await?;
    for block in blocks {
        copy.row(4);
        copy.bigint(block.number);
        copy.bytes(block.hash.as_slice());
        copy.bytes(block.parent.as_slice());
        copy.bigint(block.time);
        copy.flush_when_full().await?;
    }
    copy.finish().await
}

/// The blocks from `from` on, in order.
///
/// # Errors
/// When the database fails.
pub async fn since(conn: &mut PgConnection, from: u64) -> Result<Vec<Block>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Found,
        "select number, hash as \"hash!: Vec<u8>\", parent as \"parent!: Vec<u8>\", time as \"time!: i64\"
         from block where number >= $1 order by number",
        from.cast_signed()
    );
    rows.fetch_all(conn).await?.into_iter().map(Block::try_from).collect()
}

/// The block at a height, if it is kept.
///
/// # Errors
/// When the database fails.
pub async fn at(conn: &mut PgConnection, number: u64) -> Result<Option<Block>, sqlx::Error> {
    let row = sqlx::query_as!(
        Found,
        "select number, hash as \"hash!: Vec<u8>\", parent as \"parent!: Vec<u8>\", time as \"time!: i64\"
         from block where number = $1",
        number.cast_signed()
    );
    row.fetch_optional(conn).await?.map(Block::try_from).transpose()
}

/// Takes the blocks after `number` away, and their events with them.
///
/// # Errors
/// When the database fails.
pub async fn remove_after(conn: &mut PgConnection, number: u64) -> Result<u64, sqlx::Error> {
    let query = sqlx::query!("delete from block where number > $1", number.cast_signed());
    Ok(query.execute(conn).await?.rows_affected())
}

/// Forgets the blocks without events from `from` up to `to`, which do not go away any more.
///
/// # Errors
/// When the database fails.
pub async fn prune(conn: &mut PgConnection, from: u64, to: u64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from block b where number between $1 and $2
         and not exists (select from event e where e.block_number = b.number)",
        from.cast_signed(),
        to.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct Found {
    number: i64,
    hash: Vec<u8>,
    parent: Vec<u8>,
    time: i64,
}

impl TryFrom<Found> for Block {
    type Error = sqlx::Error;

    fn try_from(found: Found) -> Result<Self, sqlx::Error> {
        let hash =
            |bytes: &[u8]| B256::try_from(bytes).map_err(|err| sqlx::Error::Decode(err.into()));
        Ok(Self {
            number: found.number.cast_unsigned(),
            hash: hash(&found.hash)?,
            parent: hash(&found.parent)?,
            time: found.time.cast_unsigned(),
        })
    }
}
