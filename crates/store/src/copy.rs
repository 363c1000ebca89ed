//! Postgres' binary COPY, the fastest way in.

use sqlx::{PgConnection, postgres::PgCopyIn};

/// What is gathered before it is sent, in bytes.
const FULL: usize = 256 * 1024;

/// Rows on their way into a table.
pub(crate) struct Copy<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: Vec<u8>,
}

impl<'c> Copy<'c> {
    pub(crate) async fn new(
        conn: &'c mut PgConnection,
        statement: &str,
    ) -> Result<Self, sqlx::Error> {
        let copy = conn.copy_in_raw(statement).await?;
        let mut buffer = Vec::with_capacity(FULL + FULL / 4);
        // Signature, flags and the length of a header extension that is not there.
        buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        Ok(Self { copy, buffer })
    }

    /// Begins a row of that many columns.
    pub(crate) fn row(&mut self, columns: i16) {
        self.buffer.extend_from_slice(&columns.to_be_bytes());
    }

    pub(crate) fn bigint(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn integer(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A `bytea` or `text`.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.buffer.extend_from_slice(value);
    }

    pub(crate) fn json(&mut self, text: &str) {
        // The version of jsonb's binary form.
        self.length(text.len() + 1);
        self.buffer.push(1);
        self.buffer.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn null(&mut self) {
        self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        // No column of ours comes near 2 GB; one that did would be refused as negative.
        let length = i32::try_from(length).unwrap_or(i32::MIN);
        self.buffer.extend_from_slice(&length.to_be_bytes());
    }

    /// Sends what was gathered, if it is enough to be worth it.
    pub(crate) async fn flush_when_full(&mut self) -> Result<(), sqlx::Error> {
        if self.buffer.len() >= FULL {
            self.copy.send(self.buffer.as_slice()).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Sends the rest.
    pub(crate) async fn finish(mut self) -> Result<(), sqlx::Error> {
        self.row(-1);
        self.copy.send(self.buffer.as_slice()).await?;
        self.copy.finish().await?;
        Ok(())
    }
}
