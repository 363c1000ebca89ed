//! How fast the market answers, with 100,000 providers and 1,000,000 leases behind it, and how heavy its page is.
//!
//! It prints figures and judges nothing. `make bench-market` runs it; `docs/performance.md` says how to read it.

#[path = "../../indexer/tests/it/postgres.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests, which may")]
mod postgres;

use std::{
    net::Ipv4Addr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use anyhow::{Context as _, ensure};
use chain::Deployment;
use market::{Config, Limits};
use protocol::amount::Token;
use rand::Rng as _;
use reqwest::header::ACCEPT_ENCODING;
use store::cursor::{self, Cursor};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::postgres::Postgres;

/// What the plans are tested on, too.
const MARKET: &str = include_str!("../../indexer/tests/it/plans.sql");

/// How long each question is asked.
const FOR: Duration = Duration::from_secs(5);

/// How many ask at the same time.
const CLIENTS: [usize; 3] = [1, 4, 16];

/// More requests than can be asked.
const MANY: NonZeroU32 = NonZeroU32::new(u32::MAX).unwrap();

/// The last second of that market.
const TIME: u64 = 1_700_100_000;

/// A question, with a number in it that differs from one asking to the next.
type Question = fn(u64) -> String;

/// What is asked. The numbers are those of `plans.sql`.
const QUESTIONS: [(&str, Question); 11] = [
    ("search: the cheapest for a pod", |n| {
        format!("/v1/providers/search?cpu=0.5&memory={}M&limit=20", 64 + n % 4_000)
    }),
    ("search: with price, coverage and an expression", |n| {
        format!(
            "/v1/providers/search?cpu={}m&memory=512M&max_price=1/h&coverage=0.1&limit=20\
             &where=region.startsWith(%22eu-{}%22)%20%26%26%20free_stake%20%3E=%200.5%20%26%26%20dark%20==%200",
            100 + n % 4_000,
            1 + n % 4
        )
    }),
    ("search: what nobody has", |n| {
        format!(
            "/v1/providers/search?cpu=0.5&memory={}M&where=open_leases%20%3E%201000",
            64 + n % 4_000
        )
    }),
    ("why not, the first 50", |n| {
        format!("/v1/providers/why-not?cpu=0.5&memory={}M&region=eu-7", 64 + n % 4_000)
    }),
    ("a page of providers", |n| {
        format!("/v1/providers?cursor={:#066x}", n).replace("0x000000000000000000000000", "0x")
    }),
    ("a lease", |n| format!("/v1/leases/{}", 1 + n % 1_000_000)),
    ("a page of active leases", |n| {
        format!("/v1/leases?state=active&cursor={}", 1 + n % 1_000_000)
    }),
    ("a page of open orders", |n| format!("/v1/orders?state=open&cursor={}", 1 + n % 200_000)),
    ("a page of events", |n| format!("/v1/events?cursor={}-0", 1 + n % 100_000)),
    ("the front page", |_n| "/".into()),
    ("a page of leases, for people", |n| format!("/leases?before={}", 1 + n % 1_000_000)),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The client is made without one, and speaks no TLS here.
    let provider = rustls::crypto::ring::default_provider().install_default();
    provider.map_err(|_set| anyhow::anyhow!("TLS is set up already"))?;
    let mut postgres = Postgres::start()?;
    let url = postgres.database()?;
    let deployment = Deployment {
        chain_id: 31_337,
        block: 0,
        token: Address::ZERO,
        payments: Address::repeat_byte(1),
        staking: Address::ZERO,
        registry: Address::ZERO,
        leases: Address::ZERO,
        sla: Address::ZERO,
        auction: Address::ZERO,
        apps: Address::ZERO,
    };
    fill(&url, &deployment).await?;

    let config = Config {
        deployment,
        token: Token { symbol: "USD".into(), decimals: 6 },
        ttl: TIME,
        database_url: url,
        behind_proxy: false,
        limits: Limits {
            requests: MANY,
            burst: MANY,
            connections_each: 1_000,
            ..Limits::default()
        },
        stale_after: None,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = format!("http://{}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(market::run(config, listener, stop.clone()));
    let http = reqwest::Client::new();
    let began = Instant::now();
    while !http.get(format!("{at}{}", QUESTIONS[0].1(0))).send().await?.status().is_success() {
        ensure!(began.elapsed() < Duration::from_secs(60), "the listings are not read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "100,000 providers, 1,000,000 leases; read into memory in {:.1} s\n",
        began.elapsed().as_secs_f64()
    );

    println!("{:<48} {:>8} {:>10} {:>10} {:>10}", "", "clients", "p50 ms", "p99 ms", "per s");
    for (name, question) in QUESTIONS {
        for clients in CLIENTS {
            let mut took = ask(&at, question, clients).await.context(name)?;
            took.sort_unstable();
            let part = |part: usize| {
                took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e3
            };
            let name = if clients == CLIENTS[0] { name } else { "" };
            println!(
                "{name:<48} {clients:>8} {:>10.2} {:>10.2} {:>10.0}",
                part(50),
                part(99),
                took.len() as f64 / FOR.as_secs_f64()
            );
        }
    }
    weigh(&http, &at).await?;
    stop.cancel();
    while let Some(ended) = serving.join_next().await {
        ended??;
    }
    Ok(())
}

/// Makes the market.
async fn fill(url: &str, deployment: &Deployment) -> anyhow::Result<()> {
    let mut conn = store::connect(url).await?;
    store::migrate(&mut conn).await?;
    Postgres::ask(url, MARKET)?;
    Postgres::ask(url, "vacuum analyze")?;
    let at = Cursor {
        chain_id: deployment.chain_id,
        payments: deployment.payments,
        number: 100_000,
        hash: B256::repeat_byte(7),
        finalized: 99_990,
        time: TIME,
    };
    Ok(cursor::write(&mut conn, &at).await?)
}

/// Asks for a while, each client as soon as it was answered; returns how long each answer took.
async fn ask(at: &str, question: Question, clients: usize) -> anyhow::Result<Vec<Duration>> {
    let at: Arc<str> = at.into();
    let until = Instant::now() + FOR;
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let at = Arc::clone(&at);
        asking.spawn(async move {
            let http = reqwest::Client::new();
            let mut took = Vec::new();
            while Instant::now() < until {
                let path = question(rand::rng().random_range(0..1_000_000_000));
                let began = Instant::now();
                let answer = http.get(format!("{at}{path}")).send().await?;
                let status = answer.status();
                let body = answer.bytes().await?;
                took.push(began.elapsed());
                let body = String::from_utf8_lossy(&body);
                ensure!(status.is_success(), "{path}: {status} {body}");
            }
            Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(asked) = asking.join_next().await {
        took.extend(asked??);
    }
    Ok(took)
}

/// What a browser fetches to show the front page.
async fn weigh(http: &reqwest::Client, at: &str) -> anyhow::Result<()> {
    let page = http.get(format!("{at}/")).send().await?.text().await?;
    let parts = page.split('"').filter(|part| part.starts_with("/page/"));
    let mut paths: Vec<String> = std::iter::once("/").chain(parts).map(str::to_owned).collect();
    paths.dedup();
    println!("\n{:<48} {:>10} {:>10}", "the front page and what it needs", "bytes", "gzip");
    let mut sums = (0, 0);
    for path in paths {
        let plain = http.get(format!("{at}{path}")).send().await?.bytes().await?.len();
        let packed = http.get(format!("{at}{path}")).header(ACCEPT_ENCODING, "gzip").send().await?;
        let packed = packed.bytes().await?.len();
        println!("{path:<48} {plain:>10} {packed:>10}");
        sums = (sums.0 + plain, sums.1 + packed);
    }
    println!("{:<48} {:>10} {:>10}", "together", sums.0, sums.1);
    Ok(())
}
