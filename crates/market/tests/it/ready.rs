//! What a market says while there is nothing to show.

use std::time::Duration;

use anyhow::ensure;
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::{
    anvil::Anvil,
    mirrors::{self, Mirror},
    postgres::Postgres,
    served::{Served, config},
};

/// For how long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn it_says_why_it_is_not_ready() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    // What it says, and what it answers to the others then.
    let check = async |served: &Served, words: &str, others: StatusCode| {
        let response = served.ask(Method::GET, "/readyz", &[]).await?;
        let (status, body) = (response.status(), response.text().await?);
        let wanted =
            if words == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        ensure!(status == wanted && body.contains(words), "{status}: {body}");
        for path in ["/v1/leases", "/v1/market", "/v1/changes?after=x"] {
            let response = served.ask(Method::GET, path, &[]).await?;
            let wanted = if path.contains("after") { StatusCode::BAD_REQUEST } else { others };
            ensure!(response.status() == wanted, "{path}: {response:?}");
        }
        let alive = served.ask(Method::GET, "/healthz", &[]).await?;
        ensure!(alive.status() == StatusCode::OK, "{alive:?}");
        let metrics = served.ask(Method::GET, "/metrics", &[]).await?.text().await?;
        let readable =
            format!("roadstead_market_readable {}\n", u8::from(others == StatusCode::OK));
        ensure!(metrics.contains(&readable), "{metrics}");
        let counted = "roadstead_market_requests_total{route=\"/v1/leases\",status=\"";
        ensure!(metrics.contains(counted), "{metrics}");
        anyhow::Ok(())
    };
    let away = StatusCode::SERVICE_UNAVAILABLE;

    let nowhere = "postgresql://nobody:secret@127.0.0.1:1/nothing";
    let served = Served::start(config(&anvil, nowhere)).await?;
    check(&served, "the database does not answer", away).await?;
    let (_, _, body) = served.get("/v1/leases").await?;
    ensure!(!body.to_string().contains("nobody"), "{body}");
    served.stop().await?;

    let served = Served::start(config(&anvil, &url)).await?;
    check(&served, "run `roadstead indexer run`", away).await?;
    store::migrate(&mut store::connect(&url).await?).await?;
    check(&served, "nothing is mirrored yet", away).await?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    mirror.reaches(&anvil).await?;
    check(&served, "ready", StatusCode::OK).await?;

    // A statement that waits for another one's lock is given up, and what needs no such lock is answered meanwhile.
    let mut locking = tokio::process::Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--dbname", &url, "--command"])
        .arg("begin; lock table lease; select pg_sleep(3600)")
        .kill_on_drop(true)
        .spawn()?;
    let becomes = async |wanted: StatusCode| {
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, _, body) = served.get("/v1/leases").await?;
            if status == wanted {
                return anyhow::Ok(());
            }
            ensure!(Instant::now() < until, "{status} {body}");
        }
    };
    becomes(away).await?;
    served.found("/v1/orders").await?;
    locking.kill().await?;
    postgres.psql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%3600%' and pid <> pg_backend_pid()")?;
    becomes(StatusCode::OK).await?;
    served.stop().await?;

    let mut other = config(&anvil, &url);
    other.deployment.payments = other.deployment.leases;
    let served = Served::start(other).await?;
    check(&served, "mirrors other contracts", away).await?;
    served.stop().await?;

    // A chain on which no block is made grows old.
    let mut strict = config(&anvil, &url);
    strict.stale_after = Some(Duration::ZERO);
    let served = Served::start(strict).await?;
    let age = async || anyhow::Ok(served.found("/v1/market").await?["item"]["age"].as_u64());
    while age().await? < Some(1) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    check(&served, "s old; 0 s are allowed", StatusCode::OK).await?;
    served.stop().await?;
    mirror.stop().await
}
