//! What one address may use.

use std::{num::NonZeroU32, time::Duration};

use anyhow::{Context as _, ensure};
use market::Config;
use reqwest::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    anvil::Anvil,
    history::History,
    mirrors::{self, Mirror},
    postgres::Postgres,
    served::{Served, config},
};

/// For how long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_all() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 41).await?;
    history.go_on(15).await?;
    mirror.reaches(&anvil).await?;
    let config = config(&anvil, &url);

    requests(config.clone()).await?;
    streams(config.clone()).await?;
    connections(config.clone()).await?;
    stalled(config.clone()).await?;
    bodies(config).await?;
    mirror.stop().await
}

async fn requests(mut config: Config) -> anyhow::Result<()> {
    // So slow that no noise of the machine fills it up again.
    config.limits.requests = NonZeroU32::MIN;
    config.limits.burst = NonZeroU32::new(20).unwrap();
    let mut open = config.clone();
    open.behind_proxy = true;
    let ask = async |served: &Served, path: &str, ip: &str| {
        let response = served.ask(Method::GET, path, &[("x-forwarded-for", ip)]).await?;
        anyhow::Ok((response.status(), response.headers().get("retry-after").cloned()))
    };
    // How many requests pass until one is refused.
    let passing = async |served: &Served, ips: &[&str]| {
        let began = Instant::now();
        let mut passed = 0_u64;
        loop {
            for ip in ips {
                let (status, wait) = ask(served, "/v1/leases?limit=1", ip).await?;
                if status == StatusCode::TOO_MANY_REQUESTS {
                    let wait = wait.context("no time to come back")?.to_str()?.parse::<u64>()?;
                    ensure!((1..=3).contains(&wait), "{wait} s");
                    return anyhow::Ok((passed, began.elapsed().as_secs() + 1));
                }
                ensure!(status == StatusCode::OK, "{status}");
                passed += 1;
            }
        }
    };
    let served = Served::start(config).await?;
    // Whoever says that it is somebody else is not believed.
    let (passed, seconds) = passing(&served, &["1.1.1.1", "2.2.2.2", "3.3.3.3"]).await?;
    ensure!((20..=20 + seconds).contains(&passed), "{passed} requests passed in {seconds} s");
    ensure!(ask(&served, "/healthz", "1.1.1.1").await?.0 == StatusCode::OK, "it seems dead");
    for path in ["/v1/openapi.json", "/v1/nothing", "/readyz", "/metrics"] {
        // A second later one more may pass.
        let mut refused = false;
        for _ in 0..10 {
            refused |= ask(&served, path, "1.1.1.1").await?.0 == StatusCode::TOO_MANY_REQUESTS;
        }
        ensure!(refused, "{path} has no limit");
    }
    let body = served.get("/v1/leases").await?.2;
    ensure!(
        body["detail"].as_str().is_some_and(|detail| detail.contains("come back in")),
        "{body}"
    );
    served.stop().await?;

    let served = Served::start(open).await?;
    let (passed, seconds) = passing(&served, &["1.1.1.1", "2.2.2.2", "3.3.3.3"]).await?;
    ensure!((60..=60 + 3 * seconds).contains(&passed), "{passed} requests passed in {seconds} s");
    let (passed, seconds) = passing(&served, &["9.9.9.9, 4.4.4.4", "8.8.8.8, 4.4.4.4"]).await?;
    ensure!((20..=20 + seconds).contains(&passed), "{passed} requests passed in {seconds} s");
    served.stop().await
}

async fn streams(mut config: Config) -> anyhow::Result<()> {
    config.limits.streams = 3;
    config.limits.streams_each = 2;
    config.behind_proxy = true;
    let served = Served::start(config).await?;
    let open = async |ip: &str| {
        let response = served.ask(Method::GET, "/v1/changes", &[("x-forwarded-for", ip)]).await?;
        let (status, wait) = (response.status(), response.headers().get("retry-after").cloned());
        ensure!((status == StatusCode::TOO_MANY_REQUESTS) == wait.is_some(), "{response:?}");
        Ok((status == StatusCode::OK).then_some(response))
    };
    let (first, second) = (open("1.1.1.1").await?, open("1.1.1.1").await?);
    ensure!(first.is_some() && second.is_some(), "two were not opened");
    ensure!(open("1.1.1.1").await?.is_none(), "a third of one address");
    let third = open("2.2.2.2").await?;
    ensure!(third.is_some(), "a third was not opened");
    ensure!(open("2.2.2.2").await?.is_none() && open("3.3.3.3").await?.is_none(), "a fourth");
    ensure!(metric(&served, "streams").await? == "3", "not three streams");
    // Who leaves makes room.
    drop(first);
    let until = Instant::now() + PATIENCE;
    while open("3.3.3.3").await?.is_none() {
        ensure!(Instant::now() < until, "there is no room");
        sleep(Duration::from_millis(20)).await;
    }
    served.stop().await
}

async fn metric(served: &Served, name: &str) -> anyhow::Result<String> {
    let text = served.ask(Method::GET, "/metrics", &[]).await?.text().await?;
    let begins = format!("roadstead_market_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begins));
    Ok(line.with_context(|| text.clone())?.to_owned())
}

fn address(served: &Served) -> &str {
    served.url.trim_start_matches("http://")
}

/// Reads until the other side closes.
async fn ends(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.context("it stays open")?;
    Ok(read.map(|_length| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

async fn connections(mut config: Config) -> anyhow::Result<()> {
    config.limits.connections_each = 3;
    config.limits.head = Duration::from_secs(3_600);
    let served = Served::start(config.clone()).await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address(&served)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        ensure!(stream.read(&mut [0; 1024]).await? > 0, "no answer");
        held.push(stream);
    }
    let mut fourth = TcpStream::connect(address(&served)).await?;
    ensure!(ends(&mut fourth).await?.is_empty(), "a fourth was let in");
    held.pop();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut again = TcpStream::connect(address(&served)).await?;
        let sent =
            again.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        if sent.await.is_ok() && ends(&mut again).await?.ends_with("ok\n") {
            break;
        }
        ensure!(Instant::now() < until, "there is no room");
        sleep(Duration::from_millis(20)).await;
    }
    drop(held);
    served.stop().await?;

    // Who says nothing, or begins and does not go on, is not waited for.
    config.limits.head = Duration::from_millis(300);
    let served = Served::start(config).await?;
    for begin in ["", "GET /v1/leases HTT", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(address(&served)).await?;
        stream.write_all(begin.as_bytes()).await?;
        ends(&mut stream).await.with_context(|| format!("after {begin:?}"))?;
    }
    served.stop().await
}

/// Who asks and takes no answers is dropped.
async fn stalled(mut config: Config) -> anyhow::Result<()> {
    config.limits.stall = Duration::from_millis(500);
    let served = Served::start(config).await?;
    let mut stream = TcpStream::connect(address(&served)).await?;
    let request = b"GET /v1/events?limit=200 HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    // The market stops reading, and then the connection ends: either way not all of it is taken.
    let sent = timeout(PATIENCE, async {
        loop {
            stream.write_all(&request).await?;
        }
    });
    let ended: Result<std::io::Result<()>, _> = sent.await;
    ensure!(ended.is_ok_and(|ended| ended.is_err()), "who takes nothing is still connected");
    served.stop().await
}

async fn bodies(config: Config) -> anyhow::Result<()> {
    let served = Served::start(config).await?;
    let url = format!("{}/v1/leases", served.url);
    let response = served.http.post(&url).body(vec![0; (256 << 10) + 1]).send().await?;
    ensure!(response.status() == StatusCode::PAYLOAD_TOO_LARGE, "{response:?}");
    ensure!(response.headers()["content-type"] == "application/problem+json", "{response:?}");
    served.stop().await
}
