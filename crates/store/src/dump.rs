//! Everything that is in a mirror, row by row: two mirrors of one chain are equal if their dumps are.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

/// All rows of all tables, as JSON texts in their order; without what tells how a mirror came to be as it is.
///
/// # Errors
/// When the database fails.
pub async fn dump(conn: &mut PgConnection) -> Result<BTreeMap<String, Vec<String>>, sqlx::Error> {
    let tables = sqlx::query_scalar!(
        "select quote_ident(tablename) as \"name!\" from pg_tables
         where schemaname = 'public' and tablename <> '_sqlx_migrations'"
    );
    let tables = tables.fetch_all(&mut *conn).await?;
    let mut dump = BTreeMap::new();
    for table in tables {
        // The database quoted the name itself.
        let rows = format!(
            "select (to_jsonb(t) - 'reorgs' - 'deepest_reorg')::text from {table} t order by 1"
        );
        let rows = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut *conn).await?;
        dump.insert(table, rows);
    }
    Ok(dump)
}
