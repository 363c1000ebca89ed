//! Connections.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool, Postgres, Transaction,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The lock that the one writer of a database holds: "roadstead" on a telephone's keys.
const WRITER: i64 = 762_378_323;

/// How long a reader's statement may take. None of those here takes a hundredth of it.
pub const LONGEST: Duration = Duration::from_secs(5);

/// The database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is not one.
    #[error("the database's address is not one such as postgresql://user@host/name")]
    Address(#[source] sqlx::Error),
    /// It does not answer.
    #[error("the database does not answer")]
    Connect(#[source] sqlx::Error),
    /// Its schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[from] MigrateError),
    /// Another indexer writes to it.
    #[error("another indexer writes to this database: stop it, or use a database of its own")]
    Taken,
}

impl OpenError {
    /// Whether waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Taken => true,
            // The server went away meanwhile.
            Self::Migrate(MigrateError::Execute(err) | MigrateError::ExecuteMigration(err, _)) => {
                matches!(err, sqlx::Error::Io(_))
                    || err.as_database_error().is_some_and(|err| {
                        err.code()
                            .is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
                    })
            }
            Self::Address(_) | Self::Migrate(_) => false,
        }
    }
}

fn options(url: &str) -> Result<PgConnectOptions, OpenError> {
    PgConnectOptions::from_str(url).map_err(OpenError::Address)
}

/// One connection.
///
/// # Errors
/// When the address is not one or the database does not answer.
pub async fn connect(url: &str) -> Result<PgConnection, OpenError> {
    PgConnection::connect_with(&options(url)?).await.map_err(OpenError::Connect)
}

/// Connections for readers, made as they are needed. What takes longer than [`LONGEST`] is given up by the server.
///
/// # Errors
/// When the address is not one.
pub fn pool(url: &str, most: u32) -> Result<PgPool, OpenError> {
    let options = options(url)?.options([("statement_timeout", LONGEST.as_millis().to_string())]);
    Ok(PgPoolOptions::new().max_connections(most).connect_lazy_with(options))
}

/// Brings the schema up to date.
///
/// # Errors
/// When that fails; the schema is as it was then.
pub async fn migrate(conn: &mut PgConnection) -> Result<(), OpenError> {
    // `run` takes anything that has connections, which is more than the compiler can prove to be `Send`.
    Ok(sqlx::migrate!("../../migrations").run_direct(None, conn, false).await?)
}

/// The one connection that writes to a database.
#[derive(Debug)]
pub struct Writer(PgConnection);

impl Writer {
    /// Connects, brings the schema up to date, and keeps other writers out for as long as the connection lasts.
    ///
    /// # Errors
    /// When the database does not answer, cannot be brought up to date, or has a writer.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let mut conn = connect(url).await?;
        let locked = sqlx::query_scalar!("select pg_try_advisory_lock($1) as \"locked!\"", WRITER);
        if !locked.fetch_one(&mut conn).await.map_err(OpenError::Connect)? {
            return Err(OpenError::Taken);
        }
        migrate(&mut conn).await?;
        // A crash of the database may lose the last transactions, whole and in order: what they held is read from the
        // chain again. Nobody waits for the disk.
        sqlx::query!("select set_config('synchronous_commit', 'off', false)")
            .fetch_one(&mut conn)
            .await
            .map_err(OpenError::Connect)?;
        Ok(Self(conn))
    }

    /// The connection, for reading.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
        self.0.begin().await
    }
}
