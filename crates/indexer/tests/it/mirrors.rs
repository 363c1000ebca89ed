//! Indexers, in this process.

use std::{sync::Arc, time::Duration};

use anyhow::{bail, ensure};
use indexer::{Config, RunError, Status};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::anvil::Anvil;

/// For how long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// An indexer at work.
pub(crate) struct Mirror {
    pub(crate) database_url: String,
    pub(crate) status: Arc<Status>,
    stop: CancellationToken,
    task: JoinSet<Result<(), RunError>>,
}

pub(crate) fn config(anvil: &Anvil, rpc: &[&str], database_url: &str) -> Config {
    Config {
        rpc: rpc.iter().map(|&url| url.to_owned()).collect(),
        deployment: anvil.deployment.clone(),
        database_url: database_url.to_owned(),
        poll: Duration::from_millis(10),
        subscribe: Vec::new(),
        proof: true,
    }
}

impl Mirror {
    pub(crate) fn start(config: Config) -> Self {
        let status = Arc::new(Status::default());
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let database_url = config.database_url.clone();
        {
            let (status, stop) = (Arc::clone(&status), stop.clone());
            task.spawn(async move { indexer::run(config, status, stop).await });
        }
        Self { database_url, status, stop, task }
    }

    /// Waits until the database is at the chain's head.
    pub(crate) async fn reaches(&mut self, anvil: &Anvil) -> anyhow::Result<()> {
        let (number, hash) = anvil.head().await?;
        let end = Instant::now() + PATIENCE;
        let mut at = None;
        while Instant::now() < end {
            if let Some(ended) = self.task.try_join_next() {
                bail!("the indexer ended: {ended:?}");
            }
            // A database that is just being started again does not answer, which is no failure.
            if let Ok(mut conn) = store::connect(&self.database_url).await {
                at = store::cursor::read(&mut conn).await.unwrap_or(at);
                if at.is_some_and(|at| at.number == number && at.hash.to_string() == hash) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the indexer is at {at:?}, not at block {number} {hash}");
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Builds a mirror from scratch and compares it with the one in `database_url`.
pub(crate) async fn equals_scratch(
    anvil: &Anvil,
    database_url: &str,
    scratch_url: &str,
) -> anyhow::Result<()> {
    let mut scratch = Mirror::start(config(anvil, &[&anvil.url], scratch_url));
    scratch.reaches(anvil).await?;
    scratch.stop().await?;
    let here = store::dump(&mut store::connect(database_url).await?).await?;
    let there = store::dump(&mut store::connect(scratch_url).await?).await?;
    ensure!(here.keys().eq(there.keys()), "the tables differ");
    ensure!(here["event"].len() > 10, "there are only {} events", here["event"].len());
    for (table, rows) in &here {
        let wanted = &there[table];
        let extra: Vec<_> = rows.iter().filter(|row| !wanted.contains(row)).take(3).collect();
        let missing: Vec<_> = wanted.iter().filter(|row| !rows.contains(row)).take(3).collect();
        ensure!(
            rows == wanted,
            "{table} differs: {} rows and {} wanted\nextra: {extra:#?}\nmissing: {missing:#?}",
            rows.len(),
            wanted.len()
        );
    }
    Ok(())
}
