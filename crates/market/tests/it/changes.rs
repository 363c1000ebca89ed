//! Streams of changes: whoever follows one, through disconnections and reorganisations, has in the end what is there.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    anvil::Anvil,
    history::History,
    mirrors::{self, Mirror},
    postgres::Postgres,
    served::{Description, Served, config},
};

/// For how long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before all that ever happened.
const BEGINNING: &str = "0-0-0000000000000000-0";

/// Follows a stream, and keeps what it tells as a client should.
struct Follower {
    query: String,
    response: Option<Response>,
    buffer: String,
    last: Option<String>,
    events: Vec<Value>,
    reorgs: usize,
}

impl Follower {
    fn new(query: &str) -> Self {
        let (query, buffer) = (query.to_owned(), String::new());
        Self { query, response: None, buffer, last: None, events: Vec::new(), reorgs: 0 }
    }

    /// Goes on from the last id that it has heard of.
    async fn connect(&mut self, served: &Served) -> anyhow::Result<()> {
        self.buffer.clear();
        let last = self.last.clone().unwrap_or_default();
        let headers = [("last-event-id", last.as_str()), ("accept-encoding", "gzip")];
        let path = format!("/v1/changes{}", self.query);
        let response = served.ask(Method::GET, &path, &headers).await?;
        ensure!(response.status() == StatusCode::OK, "{path}: {response:?}");
        ensure!(response.headers()["content-type"] == "text/event-stream", "{response:?}");
        ensure!(response.headers().get("content-encoding").is_none(), "{response:?}");
        self.response = Some(response);
        self.hear().await
    }

    fn leave(&mut self) {
        self.response = None;
    }

    /// Takes one message in.
    async fn hear(&mut self) -> anyhow::Result<()> {
        let message = loop {
            if let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let message = message.to_owned();
                self.buffer = rest.to_owned();
                break message;
            }
            let response = self.response.as_mut().context("not connected")?;
            let chunk = timeout(PATIENCE, response.chunk()).await.context("nothing comes")??;
            self.buffer += std::str::from_utf8(&chunk.context("the stream ended")?)?;
        };
        let (mut name, mut data) = (None, None);
        for line in message.lines() {
            match line.split_once(": ").with_context(|| format!("{line:?} is no field"))? {
                ("id", id) => self.last = Some(id.to_owned()),
                ("event", event) => name = Some(event.to_owned()),
                ("data", json) => data = Some(serde_json::from_str::<Value>(json)?),
                _ => bail!("{line:?} is no field of ours"),
            }
        }
        match (name.as_deref(), data) {
            (None, None) => (),
            (Some("reorg"), Some(data)) => {
                let block = data["block"].as_u64().context("no block to go back to")?;
                self.events.retain(|event| event["block"].as_u64() <= Some(block));
                self.reorgs += 1;
            }
            (Some(name), Some(data)) => {
                let wanted = format!(
                    "{}.{}",
                    data["contract"].as_str().unwrap(),
                    data["name"].as_str().unwrap()
                );
                ensure!(name == wanted, "{name} brings {data}");
                self.events.push(data);
            }
            other => bail!("{other:?} is no message of ours"),
        }
        Ok(())
    }

    /// Hears until it has what is at a path, oldest first.
    async fn catches_up(&mut self, served: &Served, path: &str) -> anyhow::Result<()> {
        let mut wanted = served.pages(path, "?limit=200").await?;
        wanted.reverse();
        self.has(&wanted).await
    }

    async fn has(&mut self, wanted: &[Value]) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.events != wanted {
            let what =
                format!("it has {} events, and not these {}", self.events.len(), wanted.len());
            ensure!(tokio::time::Instant::now() < until, "{what}");
            self.hear().await.context(what)?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_miss_nothing() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 31).await?;
    history.go_on(20).await?;
    // Some of it is final.
    history.mine(60).await?;
    history.go_on(5).await?;
    mirror.reaches(&anvil).await?;
    let served = Served::start(config(&anvil, &url)).await?;

    // From the beginning, in more than one batch.
    let mut all = Follower::new(&format!("?after={BEGINNING}"));
    all.connect(&served).await?;
    all.catches_up(&served, "/v1/events").await?;
    ensure!(all.events.len() > 250, "there are only {} events", all.events.len());
    let mut description = Description::of(&served).await?;
    let page = served.found("/v1/events").await?;
    description.check("/v1/events", "200", &page)?;

    // About somebody or something.
    let lease = &served.found("/v1/leases").await?["items"][0];
    for (name, value, path) in [
        ("lease", lease["id"].to_string(), "leases"),
        ("provider", lease["provider"].as_str().unwrap().to_owned(), "providers"),
        ("account", lease["account"].as_str().unwrap().to_owned(), "accounts"),
    ] {
        let mut one = Follower::new(&format!("?{name}={value}&after={BEGINNING}"));
        one.connect(&served).await?;
        one.catches_up(&served, &format!("/v1/{path}/{value}/events")).await?;
        ensure!(!one.events.is_empty(), "nothing happened to {name} {value}");
    }

    // From the block of an answer, or from now on: what comes is what happens afterwards.
    let at = page["at"]["changes"].as_str().context("no place to go on from")?;
    let mut later = Follower::new(&format!("?after={at}"));
    later.connect(&served).await?;
    let mut fresh = Follower::new("");
    fresh.connect(&served).await?;
    let before = all.events.len();
    history.go_on(4).await?;
    mirror.reaches(&anvil).await?;
    all.catches_up(&served, "/v1/events").await?;
    let new = all.events[before..].to_vec();
    ensure!(!new.is_empty(), "nothing happened");
    later.has(&new).await?;
    fresh.has(&new).await?;

    // It leaves, comes back, and has missed nothing.
    all.leave();
    history.go_on(3).await?;
    mirror.reaches(&anvil).await?;
    all.connect(&served).await?;
    all.catches_up(&served, "/v1/events").await?;
    ensure!(all.reorgs == 0, "{} reorganisations that were none", all.reorgs);

    // Blocks are taken back while one follows and another is away.
    let mut away = Follower::new(&format!("?after={BEGINNING}"));
    away.connect(&served).await?;
    away.catches_up(&served, "/v1/events").await?;
    for depth in [1, 3, 6, 2] {
        away.leave();
        history.reorganise(depth).await?;
        history.go_on(2).await?;
        history.mine(1).await?;
        mirror.reaches(&anvil).await?;
        all.catches_up(&served, "/v1/events").await?;
        away.connect(&served).await?;
        away.catches_up(&served, "/v1/events").await?;
    }
    ensure!(all.reorgs > 0 && away.reorgs > 0, "{} and {} reorgs", all.reorgs, away.reorgs);
    ensure!(served.found("/v1/market").await?["item"]["reorgs"].as_u64() > Some(0));

    // The database is away for a while.
    if postgres.is_ours() {
        postgres.crash()?;
        history.go_on(2).await?;
        mirror.reaches(&anvil).await?;
        all.catches_up(&served, "/v1/events").await?;
    }

    // The market stops, and so do its streams.
    served.stop().await?;
    while all.hear().await.is_ok() {}
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_asked_for_rightly() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    mirror.reaches(&anvil).await?;
    let mut config = config(&anvil, &url);
    config.limits.quiet = Duration::from_millis(200);
    let served = Served::start(config).await?;
    let somebody = format!("0x{}", "ee".repeat(20));
    for (query, words) in [
        (format!("?lease=1&provider={somebody}"), "account; provider; lease"),
        ("?after=1-2".to_owned(), "is not the id of a change"),
        ("?after=1-2-0123456789abcde-3".to_owned(), "is not the id of a change"),
        ("?lease=x".to_owned(), "lease: "),
        ("?limit=1".to_owned(), "unknown field `limit`"),
    ] {
        let (status, _, body) = served.get(&format!("/v1/changes{query}")).await?;
        ensure!(status == StatusCode::BAD_REQUEST, "{query}: {status} {body}");
        ensure!(body["detail"].as_str().unwrap().contains(words), "{query}: {body}");
    }
    let response = served.ask(Method::GET, "/v1/changes", &[("last-event-id", "7")]).await?;
    ensure!(response.status() == StatusCode::BAD_REQUEST, "{response:?}");
    // A chain on which nothing has happened yet can be followed, too. What comes meanwhile are ids alone.
    let mut first = Follower::new("");
    first.connect(&served).await?;
    for _ in 0..3 {
        first.last = None;
        first.hear().await?;
        ensure!(first.last.is_some() && first.events.is_empty(), "{:?}", first.events);
    }
    let mut history = History::begin(&anvil, 37).await?;
    history.go_on(1).await?;
    mirror.reaches(&anvil).await?;
    first.catches_up(&served, "/v1/events").await?;
    served.stop().await?;
    mirror.stop().await
}
