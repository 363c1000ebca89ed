//! What the market reads from, and how it runs.

use std::{sync::Arc, time::Duration};

use chain::Deployment;
use protocol::amount::Token;
use store::{OpenError, PgConnection, PgPool, cursor::Cursor};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Problem, serve};

/// How many questions the database is asked at a time.
const CONNECTIONS: u32 = 16;

/// How long a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to show, and from where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The contracts that are mirrored.
    pub deployment: Deployment,
    /// The settlement token.
    pub token: Token,
    /// The mirror.
    pub database_url: String,
}

/// Why the market ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database's address is not one.
    #[error("the database cannot be used")]
    Open(#[from] OpenError),
    /// The socket failed.
    #[error("the market cannot answer any more")]
    Serve(#[from] std::io::Error),
}

/// What every request has: the mirror, and which market it is of.
#[derive(Debug)]
pub struct Market {
    pool: PgPool,
    deployment: Deployment,
    token: Token,
}

/// The mirror as it was after one block.
#[derive(Debug)]
pub struct Reading {
    tx: store::market::Snapshot,
    /// Which block.
    pub cursor: Cursor,
}

impl Reading {
    /// The connection that all is read on.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

impl Market {
    /// Over the mirror at an address. Connections are made as they are needed.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn new(config: Config) -> Result<Self, OpenError> {
        let pool = store::pool(&config.database_url, CONNECTIONS)?;
        Ok(Self { pool, deployment: config.deployment, token: config.token })
    }

    /// The contracts.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The settlement token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Everything as it is after the last block that is mirrored.
    ///
    /// # Errors
    /// When the database does not answer, mirrors nothing yet, or mirrors other contracts.
    pub async fn read(&self) -> Result<Reading, Problem> {
        let begun = tokio::time::timeout(PATIENCE, store::market::snapshot(&self.pool)).await;
        let mut tx = begun.map_err(|_late| Problem::away("the database is busy; try again"))??;
        let cursor = store::cursor::read(&mut tx).await?;
        let cursor = cursor.ok_or_else(|| Problem::away("nothing is mirrored yet"))?;
        let ours = (self.deployment.chain_id, self.deployment.payments);
        if (cursor.chain_id, cursor.payments) != ours {
            let (payments, chain) = (cursor.payments, cursor.chain_id);
            tracing::error!(%payments, chain, "the database mirrors the contracts at {payments} on chain {chain}");
            return Err(Problem::away("the database mirrors other contracts"));
        }
        Ok(Reading { tx, cursor })
    }
}

/// Answers on `listener` until `stop`; requests that are under way are finished.
///
/// # Errors
/// When the database's address is not one, or the socket fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let market = Arc::new(Market::new(config)?);
    let served = axum::serve(listener, serve::router(market));
    Ok(served.with_graceful_shutdown(async move { stop.cancelled().await }).await?)
}
