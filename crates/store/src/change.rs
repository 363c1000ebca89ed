//! What rows were before blocks that may yet go away changed them.

use sqlx::PgConnection;

use crate::copy::Copy;

/// A row before a block changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The block.
    pub block: u64,
    /// What it was.
    pub undo: Undo,
}

/// A row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// Its table.
    pub relation: String,
    /// Its key, a JSON object.
    pub key: String,
    /// The row, a JSON object; `None` if it was not there.
    pub before: Option<String>,
}

/// Adds changes of blocks that are there.
///
/// # Errors
/// When the database fails.
pub async fn add(conn: &mut PgConnection, changes: &[Change]) -> Result<(), sqlx::Error> {
    let statement = "copy change (block_number, relation, key, before) from stdin binary";
    let mut copy = Copy::new(conn, statement).await?;
    for Change { block, undo } in changes {
        copy.row(4);
        copy.bigint(*block);
        copy.bytes(undo.relation.as_bytes());
        copy.json(&undo.key);
        match &undo.before {
            Some(before) => copy.json(before),
            None => copy.null(),
        }
        copy.flush_when_full().await?;
    }
    copy.finish().await
}

/// How every row was at block `number` that a later one changed.
///
/// # Errors
/// When the database fails.
pub async fn since(conn: &mut PgConnection, number: u64) -> Result<Vec<Undo>, sqlx::Error> {
    sqlx::query_as!(
        Undo,
        "select distinct on (relation, key) relation, key::text as \"key!\", before::text
         from change where block_number > $1 order by relation, key, block_number",
        number.cast_signed()
    )
    .fetch_all(conn)
    .await
}

/// Forgets the changes of blocks up to `number`, which do not go away any more.
///
/// # Errors
/// When the database fails.
pub async fn prune(conn: &mut PgConnection, number: u64) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from change where block_number <= $1", number.cast_signed())
        .execute(conn)
        .await?;
    Ok(())
}
