//! The market's page, in a browser: over a real chain, a real indexer and a real Postgres.

#![expect(clippy::unwrap_used, reason = "what is shared with the indexer's tests is a test there")]

#[path = "../../../crates/indexer/tests/it/anvil.rs"]
mod anvil;
#[path = "../../../crates/indexer/tests/it/history.rs"]
#[expect(dead_code, reason = "changing a chain's past is the indexer's own test")]
mod history;
#[path = "../../../crates/indexer/tests/it/mirrors.rs"]
#[expect(dead_code, reason = "comparing mirrors is the indexer's own test")]
mod mirrors;
#[path = "../../../crates/indexer/tests/it/postgres.rs"]
pub(crate) mod postgres;
#[path = "page/scene.rs"]
mod scene;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
};

use alloy::primitives::hex;
use anyhow::ensure;
use protocol::amount::Token;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH,
    X_CONTENT_TYPE_OPTIONS,
};
use serde_json::json;
use tests::browse;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use anvil::{Anvil, key};
use history::History;
use mirrors::{Mirror, config};
use postgres::Postgres;
use scene::Scene;

/// As many requests as a browser may want that looks at every page at once.
const MANY: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

/// A market that answers, with all that it stands on.
struct Site {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinSet<Result<(), market::RunError>>,
}

impl Site {
    /// Answers over a mirror.
    async fn start(anvil: &Anvil, database_url: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let config = market::Config {
            deployment: anvil.deployment.clone(),
            token: Token { symbol: "USD".into(), decimals: 6 },
            ttl: 600,
            database_url: database_url.to_owned(),
            behind_proxy: false,
            limits: market::Limits { requests: MANY, burst: MANY, ..market::Limits::default() },
            stale_after: None,
        };
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let stopped = stop.clone();
        task.spawn(async move { market::run(config, listener, stopped).await });
        Ok(Self { address, stop, task })
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, HeaderMap, String)> {
        self.get_unless(path, "").await
    }

    /// What is at a path, unless it is what has this tag.
    async fn get_unless(&self, path: &str, tag: &str) -> anyhow::Result<(u16, HeaderMap, String)> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let request = client.get(format!("http://{}{path}", self.address));
        let answer = request.header(IF_NONE_MATCH, tag).send().await?;
        Ok((answer.status().as_u16(), answer.headers().clone(), answer.text().await?))
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// What a browser may do with a page, and how much there is to load for the first one.
async fn light_and_closed(site: &Site) -> anyhow::Result<()> {
    let (status, head, page) = site.get("/").await?;
    ensure!(status == 200, "{status}");
    let policy = head[CONTENT_SECURITY_POLICY].to_str()?;
    ensure!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    ensure!(policy.contains("frame-ancestors 'none'"), "{policy}");
    ensure!(head[X_CONTENT_TYPE_OPTIONS] == "nosniff", "{head:?}");
    let tag = head[ETAG].to_str()?;
    let (status, _, text) = site.get_unless("/", tag).await?;
    ensure!(status == 304 && text.is_empty(), "the same block is sent again: {status}");
    ensure!(site.get_unless("/", "W/\"another\"").await?.0 == 200, "another block is kept back");
    let mut weight = page.len();
    let files: Vec<&str> = page.split('"').filter(|part| part.starts_with("/page/")).collect();
    ensure!(files.len() == 3, "the page has {files:?}");
    for file in files {
        let (status, head, text) = site.get(file).await?;
        ensure!(status == 200 && head[CACHE_CONTROL].to_str()?.contains("immutable"), "{file}");
        weight += text.len();
    }
    ensure!(weight < 60 << 10, "the first page weighs {weight} bytes");
    let (status, head, _) = site.get("/page/style-0.css").await?;
    ensure!(status == 404 && head[CACHE_CONTROL] == "no-cache", "{status}");
    let (status, head, _) = site.get("/v1/nothing").await?;
    ensure!(status == 404 && head[CONTENT_TYPE] == "application/problem+json", "{status}");
    let (status, _, text) = site.get("/leases?state=active&pod=0x00").await?;
    ensure!(status == 400 && text.contains("behind the ?"), "{status} {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_read_by_everybody() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let site = Site::start(&anvil, &url).await?;
    let (status, _, text) = site.get("/").await?;
    ensure!(status == 503 && text.contains("Not now"), "without a mirror: {status} {text}");
    let mut mirror = Mirror::start(config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 11).await?;
    // Until there are more leases than fit on a page, and an app.
    let chain = chain::Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
    while chain.leases().count().call().await? < 30 || chain.apps().count().call().await? < 3 {
        history.go_on(20).await?;
    }
    // Beside those who write what comes to their minds, some who mean it.
    let scene = Scene::begin(&anvil).await?;
    scene.fund(200).await?;
    let first = chain.auction().count().call().await?;
    for slot in 0..3 {
        scene.place(slot).await?;
    }
    for (number, milli) in [(0, 980), (3, 900), (1, 770), (4, 700), (0, 610)] {
        scene.pass(200).await?;
        scene.bid(number, first + 1, milli).await?;
    }
    let order = scene.place(3).await?;
    scene.bid(2, first + 4, 500).await?;
    let lease = scene.award(first + 4, order).await?;
    scene.activate(2, lease).await?;
    scene.bid(2, first + 3, 500).await?;
    scene.pass(200).await?;
    mirror.reaches(&anvil).await?;
    light_and_closed(&site).await?;
    browse("market.mjs", &[&format!("http://{}", site.address)]).await?;
    site.stop().await?;
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_pays_in_orders_awards_and_closes() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let scene = Scene::begin(&anvil).await?;
    anvil.rpc("evm_setAutomine", json!([true])).await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(config(&anvil, &[&anvil.url], &url));
    mirror.reaches(&anvil).await?;
    let site = Site::start(&anvil, &url).await?;
    // Three fifths of what the order pays at most.
    let deeds = json!({ "bid": scene.bidding(1, 1, 600), "activate": scene.activating(1, 1) });
    let wallet = hex::encode_prefixed(key(scene::FIRST).to_bytes());
    let market = format!("http://{}", site.address);
    browse("wallet.mjs", &[&market, &anvil.url, &wallet, &deeds.to_string()]).await?;
    site.stop().await?;
    mirror.stop().await
}
