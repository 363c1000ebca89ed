//! `make bench-load`: what a provider costs that has many pods, and how long it takes to adopt them when it starts again.
//!
//! It prints figures and judges nothing: they are the machine's, and what else it does meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use protocol::lease::State;
use tests::{Provider, Setup, Site, Stack, story, until_within};
use tokio::task::JoinSet;

/// How many pods there are, unless PODS says otherwise.
const PODS: usize = 200;

/// How many are started at a time.
const BATCH: usize = 10;

/// For how long the idle provider is watched.
const WATCH: Duration = Duration::from_secs(60);

/// How long a batch may take to run, and a pod to answer again.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this is a program, and reads it once")]
    let pods = std::env::var("PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(PODS);
    let setup = Setup {
        cpu: "400",
        memory: "256Gi",
        price: "0.00001/h",
        start_within: 600,
        quote_life: 3_600,
        ..Setup::default()
    };
    story(setup, async |stack| measure(stack, pods).await).await
}

async fn measure(stack: &mut Stack, count: usize) -> anyhow::Result<()> {
    let empty = watch(&stack.provider).await?;
    let image = stack.image("load").await?;
    let mut pods = Vec::new();
    for number in 0..count {
        let small = "    storage_opt: { size: 16M }";
        let mut pod = stack.probe(&format!("p{number}"), &image.name, small)?;
        // The engine would run a program in each of them every second; whether the port is open shows as much.
        pod.change("    healthcheck: { test: [\"CMD\", \"/probe\", \"health\", \"8080\"], interval: 1s, timeout: 3s }\n", "")?;
        pods.push(pod);
    }
    // The first one brings the image.
    let first =
        stack.publisher.deploy(pods.first().context("PODS=0 is nothing to measure")?).await?;
    eprintln!("lease {} runs", first.lease);
    let began = Instant::now();
    let sender = stack.ready_account().await?;
    let leases = stack.chain.deployment().leases;
    for (batch, some) in pods.get(1..).unwrap_or_default().chunks(BATCH).enumerate() {
        for (number, pod) in some.iter().enumerate() {
            let quote = stack.publisher.quote(pod).await?;
            let slot = u32::try_from(1 + batch * BATCH + number)?;
            sender.send(leases, &stack.open(&quote, slot)).await?;
        }
        let wanted = 1 + batch * BATCH + some.len();
        until_within(&format!("{wanted} pods run"), PATIENCE, async || {
            Ok((active(stack).await? >= wanted).then_some(()))
        })
        .await?;
        eprintln!("{wanted} pods run after {:.0?}", began.elapsed());
    }
    let full = watch(&stack.provider).await?;
    // A client each, which takes its time to make.
    let sites = pods.iter().map(|pod| stack.provider.site(&pod.host)).collect::<Result<_, _>>()?;
    stack.provider.stop().await?;
    let began = Instant::now();
    stack.provider.start().await?;
    let ready = began.elapsed();
    answer(sites).await?;
    let adopted = began.elapsed();

    let per_pod = |full: f64, empty: f64| {
        (full - empty) / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
    };
    println!(
        "\n{count} pods of one service each, on networks of their own; a block every second\n"
    );
    println!(
        "{:44} {:>10.1} MiB {:>8.2} % of a core",
        "provider without pods",
        empty.0 / 1024.0,
        empty.1
    );
    println!("{:44} {:>10.1} MiB {:>8.2} % of a core", "with all of them", full.0 / 1024.0, full.1);
    println!(
        "{:44} {:>10.1} KiB {:>8.4} % of a core",
        "per pod",
        per_pod(full.0, empty.0),
        per_pod(full.1, empty.1)
    );
    println!("{:44} {:>10.2} s", "start again -> it quotes", ready.as_secs_f64());
    println!("{:44} {:>10.2} s", "start again -> all pods answered", adopted.as_secs_f64());
    Ok(())
}

async fn active(stack: &Stack) -> anyhow::Result<usize> {
    let ids: Vec<u64> = stack.openings().await?.iter().map(|opening| opening.lease).collect();
    let views = stack.chain.lease_views(&ids, None).await?;
    Ok(views.iter().filter(|view| view.lease.state == State::Active as u8).count())
}

/// Memory in KiB and processor time in percent of a core, over a time in which nothing happens.
async fn watch(provider: &Provider) -> anyhow::Result<(f64, f64)> {
    let pid = provider.pid().context("the provider does not run")?;
    let (before, began) = (ticks(pid)?, Instant::now());
    tokio::time::sleep(WATCH).await;
    let (after, passed) = (ticks(pid)?, began.elapsed());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.and_then(|text| text.trim().strip_suffix("kB")).context("no VmRSS")?;
    // A hundred ticks are a second, so ticks per second are percent.
    Ok((memory.trim().parse()?, f64::from(after - before) / passed.as_secs_f64()))
}

fn ticks(pid: u32) -> anyhow::Result<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> =
        stat.rsplit_once(") ").context("no stat")?.1.split_whitespace().collect();
    let field = |place: usize| anyhow::Ok(fields.get(place).context("no stat")?.parse::<u32>()?);
    Ok(field(11)? + field(12)?)
}

/// Waits until every pod answers through the ingress.
async fn answer(sites: Vec<Site>) -> anyhow::Result<()> {
    let mut asking = JoinSet::new();
    for site in sites {
        asking.spawn(async move {
            let end = Instant::now() + PATIENCE;
            while site.get("/healthz").await.is_err() {
                ensure!(Instant::now() < end, "a pod does not answer");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        });
    }
    while let Some(answered) = asking.join_next().await {
        answered??;
    }
    Ok(())
}
