//! What the market reads from, and how it runs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::Deployment;
use protocol::amount::Token;
use store::{OpenError, PgConnection, PgPool, cursor::Cursor, market::Aspects};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Limits, Problem, changes,
    limits::{Gate, Places, Requests},
    listings::{self, Listings},
    metrics::Metrics,
    serve,
};

/// How many questions the database is asked at a time.
const CONNECTIONS: u32 = 16;

/// How long a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many streams of changes read at a time: not so many that nothing is left for those who ask.
const READERS: usize = 4;

/// How many vouches of a provider are known, those that hold longest: anybody may vouch for anybody.
pub(crate) const MOST_VOUCHES: u32 = 1_000;

/// How often it is forgotten who has not asked for a while.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// How long requests that are under way may take when the market stops.
const GRACE: Duration = Duration::from_secs(10);

/// What to show, and from where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The contracts that are mirrored.
    pub deployment: Deployment,
    /// The settlement token.
    pub token: Token,
    /// For how long after it was last heard of a provider counts as live, in seconds: the Registry's `TTL`.
    pub ttl: u64,
    /// The mirror.
    pub database_url: String,
    /// Whether a reverse proxy stands in front and says in `X-Forwarded-For` who asks.
    pub behind_proxy: bool,
    /// What may be used.
    pub limits: Limits,
    /// From which age of its last block on the mirror does not count as ready.
    pub stale_after: Option<Duration>,
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
    /// A part of the program failed.
    #[error("the market failed")]
    Task(#[from] JoinError),
}

/// What every request has: the mirror, and which market it is of.
#[derive(Debug)]
pub(crate) struct Market {
    pool: PgPool,
    deployment: Deployment,
    token: Token,
    behind_proxy: bool,
    limits: Limits,
    stale_after: Option<Duration>,
    requests: Requests,
    connections: Arc<Places>,
    streams: Arc<Places>,
    turns: Semaphore,
    heads: watch::Sender<()>,
    metrics: Metrics,
    stop: CancellationToken,
    ttl: u64,
    listings: Listings,
}

/// The mirror as it was after one block.
#[derive(Debug)]
pub(crate) struct Reading {
    tx: store::market::Snapshot,
    /// Which block.
    pub(crate) cursor: Cursor,
}

impl Reading {
    /// The connection that all is read on.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

impl Market {
    /// Over the mirror at an address. Connections are made as they are needed.
    ///
    /// # Errors
    /// When the address is not one.
    pub(crate) fn new(config: Config) -> Result<Self, OpenError> {
        let pool = store::pool(&config.database_url, CONNECTIONS)?;
        let limits = config.limits;
        // Behind a proxy all connections are the proxy's.
        let each = if config.behind_proxy { limits.connections } else { limits.connections_each };
        Ok(Self {
            pool,
            deployment: config.deployment,
            token: config.token,
            ttl: config.ttl,
            listings: Listings::default(),
            behind_proxy: config.behind_proxy,
            limits,
            stale_after: config.stale_after,
            requests: Requests::new(&limits),
            connections: Places::new(limits.connections, each),
            streams: Places::new(limits.streams, limits.streams_each),
            turns: Semaphore::new(READERS),
            heads: watch::Sender::new(()),
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
        })
    }

    /// The contracts.
    pub(crate) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The settlement token.
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(crate) fn streams(&self) -> &Arc<Places> {
        &self.streams
    }

    /// How often something is sent on a stream where nothing happens.
    pub(crate) fn quiet(&self) -> Duration {
        self.limits.quiet
    }

    /// Who of the streams' readers may read.
    pub(crate) fn turns(&self) -> &Semaphore {
        &self.turns
    }

    /// Tells that the cursor moved.
    pub(crate) fn heads(&self) -> &watch::Sender<()> {
        &self.heads
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many connections and streams there are.
    pub(crate) fn taken(&self) -> (usize, usize) {
        (self.connections.taken(), self.streams.taken())
    }

    /// Cancelled once the market stops.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// A connection that hears when the cursor moves.
    pub(crate) async fn listen(&self) -> Result<store::market::Heads, store::Error> {
        store::market::heads(&self.pool).await
    }

    /// Why the mirror is not ready to be asked; `None` if it is.
    pub(crate) async fn not_ready(&self) -> Option<Problem> {
        let reading = match self.read().await {
            Ok(reading) => reading,
            Err(problem) => return Some(problem),
        };
        let (age, most) = (now().saturating_sub(reading.cursor.time), self.stale_after?.as_secs());
        let number = reading.cursor.number;
        let old = format!(
            "the last block that is mirrored, {number}, is {age} s old; {most} s are allowed"
        );
        (age > most).then(|| Problem::away(old))
    }

    /// For how long after it was last heard of a provider counts as live, in seconds.
    pub(crate) fn ttl(&self) -> u64 {
        self.ttl
    }

    /// What is asked of providers after a block, with so many vouches of each at most.
    pub(crate) fn aspects(&self, cursor: &Cursor, vouches: u32) -> Aspects {
        Aspects { locker: self.deployment.leases, now: cursor.time, vouches }
    }

    /// All listed providers.
    pub(crate) fn listings(&self) -> &Listings {
        &self.listings
    }

    /// Everything as it is after the last block that is mirrored.
    ///
    /// # Errors
    /// When the database does not answer, mirrors nothing yet, or mirrors other contracts.
    pub(crate) async fn read(&self) -> Result<Reading, Problem> {
        let begun = tokio::time::timeout(PATIENCE, store::market::snapshot(&self.pool)).await;
        let mut tx = begun
            .map_err(|_late| Problem::away("the database does not answer in time; try again"))??;
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

/// The time, in Unix seconds.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// Answers on `listener` until `stop`; requests that are under way are finished, streams of changes are ended.
///
/// # Errors
/// When the database's address is not one, or the socket fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let market = Arc::new(Market::new(config)?);
    let mut tasks = JoinSet::new();
    tasks.spawn(changes::listen(Arc::clone(&market)));
    tasks.spawn(listings::follow(Arc::clone(&market)));
    tasks.spawn(forget(Arc::clone(&market)));

    let handle = axum_server::Handle::new();
    let limits = market.limits;
    let gate = Gate { places: Arc::clone(&market.connections), stall: limits.stall };
    let mut server = axum_server::from_tcp(listener.into_std()?)?.http1_only().acceptor(gate);
    server.http_builder().http1().header_read_timeout(limits.head);
    let router = serve::router(Arc::clone(&market));
    let served = server.handle(handle.clone()).serve(router.into_make_service());
    tokio::pin!(served);
    let ended = tokio::select! {
        served = &mut served => Some(served),
        () = stop.cancelled() => None,
        ended = tasks.join_next() => {
            // They end when the market stops, and not before.
            ended.transpose()?;
            None
        }
    };
    market.stop.cancel();
    handle.graceful_shutdown(Some(GRACE));
    match ended {
        Some(served) => served?,
        None => served.await?,
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// Forgets who has not asked for a while, until the market stops.
async fn forget(market: Arc<Market>) {
    loop {
        tokio::select! {
            () = market.stop.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => market.requests.forget(),
        }
    }
}
