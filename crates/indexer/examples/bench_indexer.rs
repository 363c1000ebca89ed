//! How fast the indexer is, beside what the node serves, what Postgres takes, and Ponder: on one chain and one server.
//!
//! It prints figures and judges nothing. `make bench-indexer` runs it; `docs/performance.md` says how to read it.

#[path = "../tests/it/anvil.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests, which may")]
mod anvil;
#[path = "../tests/it/postgres.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests, which may")]
mod postgres;

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::{
    primitives::{B256, Bytes, U256},
    sol_types::SolCall,
};
use anyhow::{Context as _, ensure};
use chain::abi::{Erc20, IRegistry, Payments, Registry};
use indexer::{Config, Status};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    anvil::{Anvil, key},
    postgres::{Postgres, project},
};

/// Who sends.
const PEOPLE: u8 = 20;

/// Events of one block: some from a transaction each, most from calls that were put together.
const SINGLE: usize = 20;
const HEARTBEATS: usize = 20;
const TOGETHER: usize = 60;
const PER_BLOCK: u64 = (SINGLE + HEARTBEATS + TOGETHER) as u64;

/// Blocks on top of it all, so that what is measured is final.
const ON_TOP: u64 = 66;

/// How many blocks are timed from the node to the database.
const TIMED: usize = 300;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted = std::env::var_os("EVENTS").and_then(|text| text.to_str()?.parse().ok());
    let blocks = wanted.unwrap_or(100_000_u64) / PER_BLOCK;
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    fill(&anvil, blocks).await?;
    let (head, _) = anvil.head().await?;
    let events = blocks * PER_BLOCK;
    println!("{events} events in {blocks} blocks; anvil and Postgres on this machine\n");

    for _ in 0..2 {
        let (took, bytes) = node(&anvil, head).await?;
        print("the node's logs, fetched and dropped", events, took, &format!("{} MB", bytes >> 20));
    }
    let mut last = String::new();
    for _ in 0..3 {
        let url = postgres.database()?;
        let (took, memory) = ours(&anvil, &url).await?;
        print("roadstead indexer, from nothing", events, took, &format!("{memory} MB at most"));
        last = url;
    }
    for _ in 0..2 {
        let took = copy(&postgres, &last)?;
        print("the event table's rows, copied alone", events, took, "with its indexes");
    }
    if std::env::var_os("PONDER").is_none_or(|set| set != "no") {
        let url = postgres.database()?;
        let (took, memory) = ponder(&anvil, &url, head).await?;
        print("Ponder 0.17.7, from nothing", events, took, &format!("{memory} MB at most"));
    }
    latency(&anvil, &postgres.database()?).await
}

fn print(what: &str, events: u64, took: Duration, more: &str) {
    let events = u32::try_from(events).unwrap_or(u32::MAX);
    let rate = f64::from(events) / took.as_secs_f64();
    println!("{what:40} {:8.2} s {rate:10.0} events/s  {more}", took.as_secs_f64());
}

/// Makes a chain of events.
async fn fill(anvil: &Anvil, blocks: u64) -> anyhow::Result<()> {
    let d = &anvil.deployment;
    let mut setup = Vec::new();
    for person in 1..=PEOPLE {
        let who = key(person).address();
        setup.push(("anvil_setBalance", json!([who, "0xffffffffffffffffffff"])));
        let listing = IRegistry::Listing {
            endpoint: "https://provider.example:8443".into(),
            region: "eu-west".into(),
            prices: IRegistry::Prices { cpu: 1, memoryMiB: 2, storageMiB: 3 },
            tlsKey: B256::repeat_byte(1),
            sealKey: B256::repeat_byte(2),
            measurement: B256::ZERO,
        };
        let most = U256::from(u128::MAX >> 8);
        for (nonce, (to, data)) in [
            (d.token, Erc20::mintCall { to: who, amount: most }.abi_encode()),
            (d.token, Erc20::approveCall { spender: d.payments, amount: most }.abi_encode()),
            (d.registry, Registry::listCall { listing }.abi_encode()),
        ]
        .into_iter()
        .enumerate()
        {
            setup.push(send(person, to, data, nonce as u64));
        }
    }
    anvil.batch(&setup).await?;
    anvil.rpc("anvil_mine", json!(["0x1"])).await?;
    let deposit = |number: u64| {
        let owner = key(u8::try_from(number % u64::from(PEOPLE)).unwrap_or(0) + 1).address();
        let salt = B256::from(U256::from(number % 50));
        Payments::depositCall { owner, salt, amount: U256::from(1_000_000 + number) }.abi_encode()
    };
    let mut nonces = vec![3_u64; usize::from(PEOPLE) + 1];
    for block in 0..blocks {
        let mut calls = Vec::new();
        let mut by = |person: u8, to, data: Vec<u8>| {
            let nonce = &mut nonces[usize::from(person)];
            calls.push(send(person, to, data, *nonce));
            *nonce += 1;
        };
        for number in 0..SINGLE {
            let person = u8::try_from(number).unwrap_or(0) % PEOPLE + 1;
            by(person, d.payments, deposit(block * PER_BLOCK + number as u64));
        }
        for number in 0..HEARTBEATS {
            let person = u8::try_from(number).unwrap_or(0) % PEOPLE + 1;
            by(person, d.registry, Registry::heartbeatCall {}.abi_encode());
        }
        let data =
            (0..TOGETHER).map(|number| deposit(block * PER_BLOCK + 40 + number as u64).into());
        by(1, d.payments, Payments::multicallCall { data: data.collect() }.abi_encode());
        calls.push(("anvil_mine", json!(["0x1"])));
        anvil.batch(&calls).await?;
    }
    anvil.rpc("anvil_mine", json!([format!("{ON_TOP:#x}")])).await?;
    Ok(())
}

fn send(
    person: u8,
    to: alloy::primitives::Address,
    data: Vec<u8>,
    nonce: u64,
) -> (&'static str, Value) {
    let call = json!([{
        "from": key(person).address(),
        "to": to,
        "data": Bytes::from(data),
        "gas": "0x989680",
        "nonce": format!("{nonce:#x}"),
    }]);
    ("eth_sendTransaction", call)
}

/// How long the node takes to give all logs, four ranges at a time, which are not even parsed.
async fn node(anvil: &Anvil, head: u64) -> anyhow::Result<(Duration, usize)> {
    let d = anvil.deployment.clone();
    let http = reqwest::Client::new();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let (mut from, mut bytes) = (1, 0);
    while from <= head || !tasks.is_empty() {
        while tasks.len() < 4 && from <= head {
            let to = (from + 39).min(head);
            let filter = json!({
                "address": [d.payments, d.staking, d.registry, d.leases, d.sla, d.auction, d.apps],
                "fromBlock": format!("{from:#x}"),
                "toBlock": format!("{to:#x}"),
            });
            let body =
                json!({ "jsonrpc": "2.0", "id": 0, "method": "eth_getLogs", "params": [filter] });
            let request = http.post(&anvil.url).json(&body);
            tasks.spawn(async move {
                Ok::<_, reqwest::Error>(request.send().await?.bytes().await?.len())
            });
            from = to + 1;
        }
        if let Some(length) = tasks.join_next().await {
            bytes += length??;
        }
    }
    Ok((began.elapsed(), bytes))
}

fn config(anvil: &Anvil, url: &str) -> Config {
    Config {
        rpc: vec![anvil.url.clone()],
        deployment: anvil.deployment.clone(),
        database_url: url.to_owned(),
        poll: Duration::from_millis(5),
        subscribe: Vec::new(),
        proof: true,
    }
}

/// How long we take, and the most memory that this process has used by then, in MB.
async fn ours(anvil: &Anvil, url: &str) -> anyhow::Result<(Duration, u64)> {
    // The schema is there before, as it is for the others.
    store::migrate(&mut store::connect(url).await?).await?;
    let status = Arc::new(Status::default());
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    let (head, _) = anvil.head().await?;
    let began = Instant::now();
    task.spawn(indexer::run(config(anvil, url), Arc::clone(&status), stop.clone()));
    while status.progress().number < head {
        ensure!(task.try_join_next().is_none(), "the indexer ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    stop.cancel();
    task.join_all().await;
    Ok((took, memory_of(std::process::id())?))
}

fn memory_of(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(most.trim().trim_end_matches(" kB").parse::<u64>()? / 1_024)
}

/// How long Postgres takes for the rows of the event table, copied into one that is like it.
fn copy(postgres: &Postgres, url: &str) -> anyhow::Result<Duration> {
    let file = std::env::temp_dir().join(format!("roadstead-bench-{}", std::process::id()));
    let path = file.display();
    let psql = |statement: &str| {
        let ran = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--dbname", url, "--command", statement])
            .output()?;
        ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Ok(())
    };
    psql(&format!("\\copy event to '{path}' binary"))?;
    psql("drop table if exists copied")?;
    psql("create table copied (like event including all)")?;
    let began = Instant::now();
    psql(&format!("\\copy copied from '{path}' binary"))?;
    let took = began.elapsed();
    std::fs::remove_file(&file)?;
    ensure!(postgres.is_ours() || took > Duration::ZERO);
    Ok(took)
}

/// How long Ponder takes until it has the last block, and how much memory.
async fn ponder(anvil: &Anvil, url: &str, head: u64) -> anyhow::Result<(Duration, u64)> {
    let folder = project().join("bench/ponder");
    let deployment =
        std::env::temp_dir().join(format!("roadstead-bench-{}.json", std::process::id()));
    std::fs::write(&deployment, serde_json::to_string(&anvil.deployment)?)?;
    let end = head - ON_TOP;
    let began = Instant::now();
    let mut process = Command::new(folder.join("node_modules/node/bin/node"))
        .arg(folder.join("node_modules/ponder/dist/esm/bin/ponder.js"))
        .args(["start", "--schema", "ponder", "--log-level", "warn", "--port", "42069"])
        .current_dir(&folder)
        .env("DATABASE_URL", url)
        .env("RPC", &anvil.url)
        .env("DEPLOYMENT", &deployment)
        .env("END", end.to_string())
        .env("PONDER_TELEMETRY_DISABLED", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let http = reqwest::Client::new();
    // Its own word for having caught up.
    loop {
        ensure!(process.try_wait()?.is_none(), "Ponder ended");
        ensure!(began.elapsed() < Duration::from_secs(600), "Ponder takes longer than ten minutes");
        let ready = http.get("http://127.0.0.1:42069/ready").send().await;
        if ready.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    let memory = memory_of(process.id())?;
    process.kill()?;
    process.wait()?;
    std::fs::remove_file(&deployment)?;
    Ok((took, memory))
}

/// How long it takes from a block at the node to its row in the database.
async fn latency(anvil: &Anvil, url: &str) -> anyhow::Result<()> {
    store::migrate(&mut store::connect(url).await?).await?;
    let status = Arc::new(Status::default());
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(indexer::run(config(anvil, url), Arc::clone(&status), stop.clone()));
    let mut conn = store::connect(url).await?;
    let (mut head, _) = anvil.head().await?;
    while status.progress().number < head {
        ensure!(task.try_join_next().is_none(), "the indexer ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut nonce =
        anvil.rpc("eth_getTransactionCount", json!([key(2).address(), "latest"])).await?;
    let mut times = Vec::new();
    for _ in 0..TIMED {
        let count = u64::from_str_radix(&nonce.as_str().context("no nonce")?[2..], 16)?;
        let data = Registry::heartbeatCall {}.abi_encode();
        anvil.batch(&[send(2, anvil.deployment.registry, data, count)]).await?;
        nonce = json!(format!("{:#x}", count + 1));
        anvil.rpc("anvil_mine", json!(["0x1"])).await?;
        head += 1;
        let began = Instant::now();
        // Another connection sees the row.
        while store::cursor::read(&mut conn).await?.is_none_or(|cursor| cursor.number < head) {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1_000.0;
    println!("head to row, {TIMED} blocks: {:.1} ms p50, {:.1} ms p99", at(50), at(99));
    stop.cancel();
    task.join_all().await;
    Ok(())
}
