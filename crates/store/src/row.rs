//! What all folded tables have in common: they are read and written many rows at a time, and put back as they were.

use std::{fmt, hash::Hash};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;

use crate::change::Undo;

/// A row of a table that is folded out of events.
///
/// Rows travel as one JSON array per statement, so that a statement costs the same round trip for one row and for
/// thousands; the table's own columns and constraints decide what a value has to be.
pub trait Row: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + Sync {
    /// Its primary key, under the columns' names.
    type Key: Clone + Eq + Hash + fmt::Debug + Serialize + DeserializeOwned + Send + Sync;

    /// The table's name.
    const RELATION: &'static str;

    /// The row's key.
    fn key(&self) -> Self::Key;

    /// The rows of these keys, as far as they are there.
    fn load(
        conn: &mut PgConnection,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<Vec<Self>, sqlx::Error>> + Send;

    /// Writes rows in place of what was under their keys.
    fn save(
        conn: &mut PgConnection,
        rows: &[Self],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Removes the rows of these keys.
    fn remove(
        conn: &mut PgConnection,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Puts rows of one table back as they were.
///
/// # Errors
/// When the database fails, or what was kept is not a row.
pub async fn put_back<R: Row>(conn: &mut PgConnection, undo: &[Undo]) -> Result<(), sqlx::Error> {
    let decode = |err: serde_json::Error| sqlx::Error::Decode(err.into());
    let (mut rows, mut keys) = (Vec::new(), Vec::new());
    for undo in undo.iter().filter(|undo| undo.relation == R::RELATION) {
        match &undo.before {
            Some(before) => rows.push(serde_json::from_str(before).map_err(decode)?),
            None => keys.push(serde_json::from_str(&undo.key).map_err(decode)?),
        }
    }
    // What goes makes room first: a slot's former lease is open again.
    if !keys.is_empty() {
        R::remove(conn, &keys).await?;
    }
    if !rows.is_empty() {
        R::save(conn, &rows).await?;
    }
    Ok(())
}

/// The three statements of a table, checked against the schema.
macro_rules! row {
    ($row:ident, $key:ident { $($field:ident),+ }, $relation:literal,
     load $load:literal, save $save:literal, remove $remove:literal $(,)?) => {
        impl $crate::row::Row for $row {
            type Key = $key;

            const RELATION: &'static str = $relation;

            fn key(&self) -> $key {
                $key { $($field: self.$field),+ }
            }

            async fn load(
                conn: &mut sqlx::PgConnection,
                keys: &[$key],
            ) -> Result<Vec<Self>, sqlx::Error> {
                let rows = sqlx::query_scalar!($load, sqlx::types::Json(keys) as _);
                Ok(rows.fetch_all(conn).await?.into_iter().map(|row| row.0).collect())
            }

            async fn save(conn: &mut sqlx::PgConnection, rows: &[Self]) -> Result<(), sqlx::Error> {
                sqlx::query!($save, sqlx::types::Json(rows) as _).execute(conn).await?;
                Ok(())
            }

            async fn remove(
                conn: &mut sqlx::PgConnection,
                keys: &[$key],
            ) -> Result<(), sqlx::Error> {
                sqlx::query!($remove, sqlx::types::Json(keys) as _).execute(conn).await?;
                Ok(())
            }
        }
    };
}
pub(crate) use row;
