//! What may happen to an indexer.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    anvil::Anvil,
    child,
    compare::equals_contracts,
    history::History,
    mirrors::{Mirror, config, equals_scratch},
    postgres::Postgres,
    proxy::{Fault, Proxy},
    reads::equal_tables,
};

/// What people do often enough that every random history shows it; if one of these is missing, the test lost its point.
const SEEN_ALWAYS: [&str; 15] = [
    "Deposited",
    "Withdrawn",
    "StreamOpened",
    "StreamClosed",
    "Collected",
    "Bonded",
    "Locked",
    "Slashed",
    "Listed",
    "Opened",
    "Activated",
    "Closed",
    "Placed",
    "Bid",
    "Registered",
];

async fn names(database_url: &str) -> anyhow::Result<BTreeSet<String>> {
    let dump = store::dump(&mut store::connect(database_url).await?).await?;
    let name = |row: &String| {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        row["name"].as_str().unwrap().to_owned()
    };
    Ok(dump["event"].iter().map(name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_that_change() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let url = postgres.database()?;
    let mut mirror = Mirror::start(config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, rng.random()).await?;
    // Deep enough that no reorganisation takes the beginning back.
    history.mine(60).await?;
    let mut seen = BTreeSet::new();
    for round in 0..8 {
        history.go_on(12).await?;
        // Sometimes the indexer sees what goes away, sometimes it only sees what comes instead.
        if rng.random() {
            mirror.reaches(&anvil).await?;
            seen.extend(names(&url).await?);
        }
        let depth = [1, 2, rng.random_range(3..12), 60][round % 4];
        history.reorganise(depth).await?;
        if rng.random() {
            history.reorganise(rng.random_range(1..4)).await?;
        }
        // A chain that became shorter shows it with its next block.
        history.go_on(2).await?;
        history.mine(rng.random_range(1..4)).await?;
        mirror.reaches(&anvil).await?;
        seen.extend(names(&url).await?);
    }
    history.outgrow().await?;
    mirror.reaches(&anvil).await?;
    ensure!(mirror.status.metrics().contains("roadstead_indexer_deepest_reorg_blocks"));
    equals_scratch(&anvil, &url, &postgres.database()?).await?;
    equals_contracts(&anvil, &url).await?;
    equal_tables(&anvil.deployment, &url).await?;
    seen.extend(names(&url).await?);
    let missing: Vec<_> = SEEN_ALWAYS.iter().filter(|name| !seen.contains(**name)).collect();
    ensure!(missing.is_empty(), "the history lacks {missing:?}; it has {seen:?}");
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_announced_or_looked_for() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let mut history = History::begin(&anvil, 5).await?;
    // Nobody looks for an hour, so what comes was announced.
    let mut config_of = config(&anvil, &[&anvil.url], &postgres.database()?);
    config_of.poll = Duration::from_secs(3600);
    config_of.subscribe = vec![anvil.url.replacen("http", "ws", 1)];
    let mut announced = Mirror::start(config_of);
    // Nobody announces, so what comes was looked for.
    let mut config_of = config(&anvil, &[&anvil.url], &postgres.database()?);
    config_of.subscribe = vec!["ws://127.0.0.1:1".to_owned()];
    let mut polled = Mirror::start(config_of);
    polled.reaches(&anvil).await?;
    // A subscription may begin after a block; the next block makes up for it.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        history.go_on(1).await?;
    }
    announced.reaches(&anvil).await?;
    polled.reaches(&anvil).await?;
    announced.stop().await?;
    polled.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let mut rng = StdRng::seed_from_u64(7);
    let url = postgres.database()?;
    let mut history = History::begin(&anvil, 7).await?;
    // Some of it is final, so that both ways of reading are interrupted.
    history.go_on(20).await?;
    history.mine(70).await?;
    for _ in 0..12 {
        let mut process = child::spawn(&anvil, &url)?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(60..350))).await;
        history.go_on(1).await?;
        if rng.random_bool(0.3) {
            history.reorganise(rng.random_range(1..8)).await?;
        }
        process.kill()?;
        process.wait()?;
    }
    history.outgrow().await?;
    let mut mirror = Mirror::start(config(&anvil, &[&anvil.url], &url));
    mirror.reaches(&anvil).await?;
    equals_scratch(&anvil, &url, &postgres.database()?).await?;
    equals_contracts(&anvil, &url).await?;
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_crashes() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    if !postgres.is_ours() {
        eprintln!("DATABASE_URL names somebody else's server, which is not ours to crash");
        return Ok(());
    }
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 11).await?;
    for round in 0..3 {
        history.go_on(4).await?;
        postgres.crash()?;
        history.go_on(2).await?;
        history.reorganise(1 + round * 3).await?;
        history.go_on(1).await?;
        mirror.reaches(&anvil).await?;
    }
    history.outgrow().await?;
    mirror.reaches(&anvil).await?;
    equals_scratch(&anvil, &url, &postgres.database()?).await?;
    equals_contracts(&anvil, &url).await?;
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_fail() -> anyhow::Result<()> {
    survives(&[
        (Fault::Hangs, 5, false),
        (Fault::RateLimits, 4, false),
        (Fault::Refuses, 4, false),
        (Fault::Breaks, 4, false),
        (Fault::LeavesAnswersOut, 4, false),
        (Fault::LowHead, 2, false),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_lie() -> anyhow::Result<()> {
    // A single node is believed in what is final if it says the same twice, so what it cannot be caught at needs two.
    survives(&[
        (Fault::HighHead, 2, false),
        (Fault::OtherHash, 2, false),
        (Fault::LeavesAllOut, 1, false),
        (Fault::LeavesReceiptsOut, 1, true),
        (Fault::LeavesLogsOut, 1, true),
        (Fault::ChangesLogs, 1, true),
    ])
    .await
}

/// Mirrors a chain behind a node that does this, first from nothing and then block by block; each fault with how rare it is,
/// and whether there is an honest node, too.
async fn survives(faults: &[(Fault, u8, bool)]) -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let proxy = Proxy::start(&anvil.url).await?;
    let mut history = History::begin(&anvil, 13).await?;
    history.go_on(25).await?;
    history.mine(70).await?;
    for &(fault, every, two) in faults {
        proxy.spoil(fault, every);
        let url = postgres.database()?;
        let nodes = [proxy.url.as_str(), anvil.url.as_str()];
        let nodes = if two { &nodes[..] } else { &nodes[..1] };
        let mut mirror = Mirror::start(config(&anvil, nodes, &url));
        mirror.reaches(&anvil).await.with_context(|| format!("{fault:?}"))?;
        history.go_on(3).await?;
        mirror.reaches(&anvil).await.with_context(|| format!("{fault:?}"))?;
        ensure!(proxy.spoiled() > 0, "{fault:?} never came to pass");
        mirror.stop().await?;
        let scratch = postgres.database()?;
        equals_scratch(&anvil, &url, &scratch).await.with_context(|| format!("{fault:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_during_backfill() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let proxy = Proxy::start(&anvil.url).await?;
    let mut history = History::begin(&anvil, 17).await?;
    history.mine(60).await?;
    history.go_on(30).await?;
    history.mine(60).await?;
    // Slow enough that the chain changes while it is read.
    proxy.spoil(Fault::Hangs, 2);
    let url = postgres.database()?;
    let mut mirror = Mirror::start(config(&anvil, &[&proxy.url], &url));
    for depth in [40, 5, 60, 1] {
        tokio::time::sleep(Duration::from_millis(200)).await;
        history.reorganise(depth).await?;
        history.go_on(1).await?;
    }
    proxy.spoil(Fault::None, 1);
    history.outgrow().await?;
    mirror.reaches(&anvil).await?;
    equals_scratch(&anvil, &url, &postgres.database()?).await?;
    equals_contracts(&anvil, &url).await?;
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_writer_and_one_deployment() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let mut history = History::begin(&anvil, 19).await?;
    history.go_on(2).await?;
    let url = postgres.database()?;
    let mut first = Mirror::start(config(&anvil, &[&anvil.url], &url));
    first.reaches(&anvil).await?;
    // Another one waits until it is needed.
    let mut second = Mirror::start(config(&anvil, &[&anvil.url], &url));
    while second.status.not_ready() == Some("it has not begun".into()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let why = second.status.not_ready().unwrap_or_default();
    ensure!(why.contains("another indexer"), "{why}");
    ensure!(first.status.not_ready().is_none());
    // A chain on which nothing happens is no silent node.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let metrics = first.status.metrics();
    ensure!(metrics.contains("node_silence_seconds 0\n"), "{metrics}");
    first.stop().await?;
    history.go_on(1).await?;
    second.reaches(&anvil).await?;
    second.stop().await?;
    // Another deployment does not get mixed up with it.
    let mut other = config(&anvil, &[&anvil.url], &url);
    other.deployment.payments = other.deployment.leases;
    let status = std::sync::Arc::default();
    let err = indexer::run(other, status, tokio_util::sync::CancellationToken::new()).await;
    ensure!(matches!(err, Err(indexer::RunError::OtherDeployment { .. })), "{err:?}");
    Ok(())
}
