//! Follow, apply, unwind: until it is told to stop.

use std::{sync::Arc, time::Duration};

use chain::{
    Deployment,
    blocks::{Block, BlockId, Blocks, Follow, FollowError, Step},
    decode::Contracts,
};
use store::{OpenError, Writer, block, cursor};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Status,
    mirror::{ApplyError, Mirror, Subject},
};

/// How many blocks may wait to be written.
const QUEUE: usize = 256;

/// About how many events go into one transaction.
const EVENTS_PER_BATCH: usize = 8_000;

/// The most blocks that go into one transaction.
const BLOCKS_PER_BATCH: usize = 4_000;

/// How long to wait before a database that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a chain that does not make sense is read again, each block proven, before that is given up.
const TRIES: u32 = 3;

/// How often a backfill is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What to mirror, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The nodes, the preferred one first.
    pub rpc: Vec<String>,
    /// The contracts.
    pub deployment: Deployment,
    /// The database.
    pub database_url: String,
    /// How often the head is looked for.
    pub poll: Duration,
    /// Where nodes announce new heads over WebSocket.
    pub subscribe: Vec<String>,
    /// Whether headers and receipts are hashed.
    pub proof: bool,
}

/// Why the indexer ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The chain cannot be followed.
    #[error("the chain cannot be followed")]
    Follow(#[from] FollowError),
    /// The database holds something else.
    #[error(
        "the database mirrors the contracts at {payments} on chain {chain_id}, which is not the deployment that was \
         named: use a database of its own"
    )]
    OtherDeployment {
        /// Its chain.
        chain_id: u64,
        /// Its Payments.
        payments: alloy::primitives::Address,
    },
    /// The database cannot be used, whatever the number of tries.
    #[error("the database cannot be used")]
    Open(#[source] OpenError),
    /// What the chain says does not make sense, although every block was proven.
    #[error("what the chain says does not make sense")]
    Nonsense(#[source] ApplyError),
    /// A part of the program failed.
    #[error("the indexer failed")]
    Task(#[from] JoinError),
}

/// Why a session ended.
enum Halt {
    Stopped,
    Fatal(RunError),
    Open(OpenError),
    Apply(ApplyError),
}

/// Mirrors the chain until `stop`. While the database or the nodes are away it waits for them.
///
/// # Errors
/// When no waiting will do.
pub async fn run(
    config: Config,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut nonsense = 0;
    let mut quiet = false;
    loop {
        // What does not make sense was probably left out by a node: then every block is proven.
        let strict = nonsense > 0;
        let before = status.progress().number;
        match session(&config, &status, &stop, strict).await {
            Halt::Stopped => return Ok(()),
            Halt::Fatal(err) => return Err(err),
            Halt::Open(err) if !err.may_pass() => {
                return Err(RunError::Open(err));
            }
            Halt::Open(err) => {
                if !quiet {
                    let causes = causes(&err);
                    tracing::warn!(error = %causes, "waiting for the database: {causes}");
                }
                quiet = true;
                status.store_failed(format!("the database cannot be used: {err}"));
            }
            Halt::Apply(ApplyError::Store(err)) => {
                quiet = false;
                tracing::warn!(error = %causes(&err), "the database failed; going on where it is");
                status.store_failed("the database failed".into());
            }
            Halt::Apply(err) => {
                quiet = false;
                let progressed = status.progress().number > before;
                nonsense = if progressed { 1 } else { nonsense + 1 };
                if nonsense > TRIES {
                    return Err(RunError::Nonsense(err));
                }
                tracing::warn!(error = %causes(&err), "a block does not make sense; reading it again");
                status.node_failed();
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => (),
        }
    }
}

/// Mirrors the chain for as long as nothing fails.
async fn session(
    config: &Config,
    status: &Arc<Status>,
    stop: &CancellationToken,
    strict: bool,
) -> Halt {
    let opened = tokio::select! {
        () = stop.cancelled() => return Halt::Stopped,
        opened = resume(config, status, strict) => opened,
    };
    let (mut writer, follow, mut mirror) = match opened {
        Ok(opened) => opened,
        Err(halt) => return halt,
    };
    let blocks = match Blocks::new(Contracts::of(&config.deployment), follow) {
        Ok(blocks) => blocks,
        Err(err) => return Halt::Fatal(err.into()),
    };
    let (to, mut steps) = mpsc::channel(QUEUE);
    let (tell, mut seen) = watch::channel(chain::blocks::Seen::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(blocks.run(to, tell));
    {
        let status = Arc::clone(status);
        tasks.spawn(async move {
            let mut failures = 0;
            while seen.changed().await.is_ok() {
                let now = *seen.borrow_and_update();
                (failures..now.failures).for_each(|_| status.node_failed());
                if now.failures == failures {
                    status.heard(now);
                }
                failures = now.failures;
            }
            Ok(())
        });
    }
    tokio::select! {
        () = stop.cancelled() => Halt::Stopped,
        err = apply(&mut steps, &mut writer, &mut mirror, status) => match err {
            Some(err) => Halt::Apply(err),
            // The one who follows ended: it says why.
            None => match tasks.join_next().await {
                Some(Ok(Err(err))) => Halt::Fatal(err.into()),
                Some(Err(err)) => Halt::Fatal(err.into()),
                Some(Ok(Ok(()))) | None => Halt::Stopped,
            },
        },
    }
}

/// Opens the database and finds out where it is.
async fn resume(
    config: &Config,
    status: &Status,
    strict: bool,
) -> Result<(Writer, Follow, Mirror), Halt> {
    let mut writer = Writer::open(&config.database_url).await.map_err(Halt::Open)?;
    let failed = |err| Halt::Apply(ApplyError::Store(err));
    let deployment = &config.deployment;
    let cursor = cursor::read(writer.conn()).await.map_err(failed)?;
    if let Some(cursor) = cursor
        && (cursor.chain_id, cursor.payments) != (deployment.chain_id, deployment.payments)
    {
        let (chain_id, payments) = (cursor.chain_id, cursor.payments);
        return Err(Halt::Fatal(RunError::OtherDeployment { chain_id, payments }));
    }
    let finalized = cursor.map_or(0, |cursor| cursor.finalized);
    let blocks = block::since(writer.conn(), finalized).await.map_err(failed)?;
    let base = blocks.first().filter(|first| first.number > finalized);
    let base = base.map(|first| BlockId { number: first.number - 1, hash: first.parent });
    let known = blocks.iter().map(|block| BlockId { number: block.number, hash: block.hash });
    let tip = cursor.map(|cursor| BlockId { number: cursor.number, hash: cursor.hash });
    let start = deployment.block.max(1);
    status.begin(start, tip.map_or(start - 1, |tip| tip.number));
    let subject = Subject {
        chain_id: deployment.chain_id,
        payments: deployment.payments,
        leases: deployment.leases,
    };
    let follow = Follow {
        urls: config.rpc.clone(),
        start,
        tip,
        finalized,
        recent: base.into_iter().chain(known).collect(),
        poll: config.poll,
        subscribe: config.subscribe.clone(),
        proof: config.proof,
        strict,
    };
    Ok((writer, follow, Mirror::new(subject, cursor)))
}

/// Takes steps until there are no more; returns what failed.
async fn apply(
    steps: &mut mpsc::Receiver<Step>,
    writer: &mut Writer,
    mirror: &mut Mirror,
    status: &Status,
) -> Option<ApplyError> {
    let mut logged = Instant::now();
    let mut blocks: Vec<Block> = Vec::new();
    while let Some(step) = steps.recv().await {
        // What waits already goes in with it.
        let mut step = Some(step);
        let mut revert = None;
        let mut events = 0;
        while let Some(taken) = step.take() {
            match taken {
                Step::Commit(block) => {
                    events += block.events.len();
                    blocks.push(block);
                }
                Step::Revert { to } => revert = Some(to),
            }
            let full = events >= EVENTS_PER_BATCH || blocks.len() >= BLOCKS_PER_BATCH;
            if revert.is_none() && !full {
                step = steps.try_recv().ok();
            }
        }
        if let Some(last) = blocks.last() {
            match mirror.commit(writer, &blocks).await {
                Ok(events) => status.committed(last, blocks.len(), events),
                Err(err) => return Some(err),
            }
            blocks.clear();
        }
        if let Some(to) = revert {
            match mirror.revert(writer, to).await {
                Ok(depth) => {
                    status.reverted(to.number, depth);
                    tracing::info!(depth, to = to.number, "{depth} blocks went away");
                }
                Err(err) => return Some(err),
            }
        }
        let progress = status.progress();
        if logged.elapsed() > LOG_EVERY && progress.head > progress.number + 100 {
            logged = Instant::now();
            let (number, head) = (progress.number, progress.head);
            tracing::info!(number, head, events = progress.events, "at block {number} of {head}");
        }
    }
    None
}

/// An error with what caused it.
fn causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text = format!("{text}: {err}");
        source = err.source();
    }
    text
}
