//! What is in the database, in the words of the API.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, value::RawValue};

/// A row: each column's value as the API would write it, numbers as their digits.
pub(crate) type Row = BTreeMap<String, String>;

/// All tables of a database.
#[derive(Debug)]
pub(crate) struct Truth(BTreeMap<String, Vec<Row>>);

fn plain(raw: &str) -> String {
    match serde_json::from_str(raw) {
        // Addresses and hashes; somebody's endpoint may also begin so.
        Ok(Value::String(text)) => match text.strip_prefix("\\x") {
            Some(hex) if [40, 64].contains(&hex.len()) => format!("0x{hex}"),
            _ => text,
        },
        Ok(other @ (Value::Array(_) | Value::Object(_))) => other.to_string(),
        // Numbers as they stand there: most of them are larger than this library's.
        _ => raw.to_owned(),
    }
}

/// A value of the API's, as a text.
pub(crate) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn column(field: &str) -> String {
    let mut column = String::new();
    for char in field.chars() {
        if char.is_ascii_uppercase() {
            column.push('_');
        }
        column.push(char.to_ascii_lowercase());
    }
    column
}

impl Truth {
    pub(crate) async fn of(database_url: &str) -> anyhow::Result<Self> {
        let dump = store::dump(&mut store::connect(database_url).await?).await?;
        let tables = dump.into_iter().map(|(table, rows)| {
            let rows = rows.iter().map(|row| {
                let row: BTreeMap<String, Box<RawValue>> = serde_json::from_str(row)?;
                Ok(row.into_iter().map(|(name, raw)| (name, plain(raw.get()))).collect())
            });
            Ok((table, rows.collect::<anyhow::Result<_>>()?))
        });
        Ok(Self(tables.collect::<anyhow::Result<_>>()?))
    }

    /// The rows of a table whose columns have these values; a value may be several, with `|` between them.
    pub(crate) fn rows(&self, table: &str, having: &[(&str, &str)]) -> Vec<&Row> {
        let has = |row: &&Row| {
            having.iter().all(|(name, value)| value.split('|').any(|value| row[*name] == value))
        };
        self.0[table].iter().filter(has).collect()
    }

    /// The same, in the order of a column: of its digits if they are that, else of its text.
    pub(crate) fn by(
        &self,
        table: &str,
        column: &str,
        having: &[(&str, &str)],
        newest_first: bool,
    ) -> Vec<&Row> {
        let mut rows = self.rows(table, having);
        rows.sort_by_key(|row| (row[column].parse::<u64>().unwrap_or(0), row[column].clone()));
        if newest_first {
            rows.reverse();
        }
        rows
    }

    /// The different values of a column.
    pub(crate) fn values(&self, table: &str, column: &str) -> Vec<String> {
        let mut values: Vec<String> = self.0[table].iter().map(|row| row[column].clone()).collect();
        values.sort();
        values.dedup();
        values
    }
}

/// Compares each field of an item with the column of its name, but for those that are checked otherwise.
pub(crate) fn equals(item: &Value, row: &Row, otherwise: &[&str]) -> anyhow::Result<()> {
    let fields = item.as_object().context("an item that is no object")?;
    let mut compared = 0;
    for (field, value) in fields {
        if otherwise.contains(&field.as_str()) {
            continue;
        }
        let wanted = row.get(&column(field)).with_context(|| format!("{field} has no column"))?;
        ensure!(shown(value) == *wanted, "{field} is {value}, the row says {wanted}: {row:?}");
        compared += 1;
    }
    ensure!(compared > 0, "nothing was compared");
    Ok(())
}
