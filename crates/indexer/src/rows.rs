//! Rows in memory between the database and the fold: what was read, what was changed, and what it was before.

use std::collections::{HashMap, HashSet};

use store::{
    Error, PgConnection,
    change::{Change, Undo},
    row::{Row, put_back},
};

/// About how many rows of a table stay in memory from one batch to the next.
const KEPT: usize = 20_000;

/// The most rows that one statement reads or writes.
const MAX_PER_STATEMENT: usize = 5_000;

/// A row that was not read beforehand: a mistake in what the fold says it needs.
#[derive(Debug, thiserror::Error)]
#[error("a row of {0} is needed that was not read")]
pub struct NotRead(pub &'static str);

/// The rows of one table.
#[derive(Debug)]
pub(crate) struct Rows<R: Row> {
    known: HashMap<R::Key, Option<R>>,
    wanted: HashSet<R::Key>,
    /// Rows that the database does not have yet as they are here.
    unsaved: HashSet<R::Key>,
    /// What rows were before the block that is being folded.
    before: HashMap<R::Key, Option<R>>,
}

impl<R: Row> Default for Rows<R> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            wanted: HashSet::new(),
            unsaved: HashSet::new(),
            before: HashMap::new(),
        }
    }
}

impl<R: Row> Rows<R> {
    /// Says that a row will be needed.
    pub(crate) fn want(&mut self, key: R::Key) {
        if !self.known.contains_key(&key) {
            self.wanted.insert(key);
        }
    }

    /// Reads what is wanted.
    pub(crate) async fn load(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let keys: Vec<R::Key> = self.wanted.drain().collect();
        for keys in keys.chunks(MAX_PER_STATEMENT) {
            for row in R::load(conn, keys).await? {
                self.known.insert(row.key(), Some(row));
            }
        }
        for key in keys {
            self.known.entry(key).or_insert(None);
        }
        Ok(())
    }

    /// Takes a row in that was read otherwise, unless there is a newer one here.
    pub(crate) fn take_in(&mut self, row: R) {
        self.known.entry(row.key()).or_insert(Some(row));
    }

    /// The rows that are there, of those that were read or written here.
    pub(crate) fn all(&self) -> impl Iterator<Item = &R> {
        self.known.values().flatten()
    }

    /// A row, if it was read or written here and is there.
    pub(crate) fn peek(&self, key: &R::Key) -> Option<&R> {
        self.known.get(key).and_then(Option::as_ref)
    }

    /// A row, to be changed; `None` if it is not there.
    pub(crate) fn edit(&mut self, key: R::Key) -> Result<&mut Option<R>, NotRead> {
        let row = self.known.get_mut(&key).ok_or(NotRead(R::RELATION))?;
        self.before.entry(key.clone()).or_insert_with(|| row.clone());
        self.unsaved.insert(key);
        Ok(row)
    }

    /// Ends a block: what it changed is forgotten, or kept to be undone.
    pub(crate) fn end_block(
        &mut self,
        block: u64,
        undoable: bool,
        changes: &mut Vec<Change>,
    ) -> Result<(), serde_json::Error> {
        if !undoable {
            self.before.clear();
            return Ok(());
        }
        for (key, before) in self.before.drain() {
            if self.known.get(&key) == Some(&before) {
                continue;
            }
            let relation = R::RELATION.to_owned();
            let key = serde_json::to_string(&key)?;
            let before = before.map(|row| serde_json::to_string(&row)).transpose()?;
            changes.push(Change { block, undo: Undo { relation, key, before } });
        }
        Ok(())
    }

    /// Writes what was changed.
    pub(crate) async fn save(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
        let rows: Vec<R> = self
            .unsaved
            .drain()
            .filter_map(|key| self.known.get(&key).cloned().flatten())
            .collect();
        for rows in rows.chunks(MAX_PER_STATEMENT) {
            R::save(conn, rows).await?;
        }
        if self.known.len() > KEPT {
            self.known.clear();
        }
        Ok(())
    }

    /// Puts rows in the database back as they were.
    pub(crate) async fn put_back(conn: &mut PgConnection, undo: &[Undo]) -> Result<(), Error> {
        put_back::<R>(conn, undo).await
    }
}
