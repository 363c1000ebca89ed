//! What strangers may send.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::runtime::Handle;

use super::{
    anvil::Anvil,
    history::History,
    mirrors::{self, Mirror},
    postgres::Postgres,
    served::{Served, config},
};

const SOMEBODY: &str = "0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_said_so() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 23).await?;
    history.go_on(6).await?;
    mirror.reaches(&anvil).await?;
    let served = Served::start(config(&anvil, &url)).await?;
    let check = async |path: &str, status: u16, words: &str| {
        let (found, headers, body) = served.get(path).await?;
        ensure!(found.as_u16() == status, "{path}: {found} {body}");
        ensure!(headers["content-type"] == "application/problem+json", "{path}: {headers:?}");
        let detail = body["detail"].as_str().context("no detail")?;
        ensure!(detail.contains(words), "{path}: {detail:?} does not say {words:?}");
        ensure!(body["status"] == status && body["title"].is_string(), "{path}: {body}");
        anyhow::Ok(())
    };
    let said = served.get("/v1/leases?limit=0").await?.2["detail"].to_string();
    ensure!(said == "\"limit: a page has 1 to 200 rows\"", "{said}");
    check("/v1/leases?limit=0", 400, "1 to 200").await?;
    for limit in ["201", "-1", "1e2", "", "0x10", "99999999999999999999", "%00"] {
        check(&format!("/v1/leases?limit={limit}"), 400, "1 to 200").await?;
    }
    for cursor in ["x", "", "-1", "+1", "9223372036854775808", "1-1", "%001"] {
        check(&format!("/v1/leases?cursor={cursor}"), 400, "cursor: ").await?;
    }
    for cursor in ["1", "1-", "-1", "1-x", "1-4294967296", "1-2-3", "9223372036854775808-0"] {
        check(&format!("/v1/events?cursor={cursor}"), 400, "a place in the history").await?;
    }
    check("/v1/leases?colour=red", 400, "unknown field `colour`").await?;
    check("/v1/leases/1?limit=1", 400, "unknown field `limit`").await?;
    check("/v1/market?x", 400, "unknown field `x`").await?;
    check("/v1/leases?state=none", 400, "state: it is one of pending, active, closed").await?;
    check("/v1/leases?state=active&state=closed", 400, "duplicate field `state`").await?;
    check(&format!("/v1/leases?state=active&provider={SOMEBODY}"), 400, "provider with open")
        .await?;
    check("/v1/leases?open=true", 400, "account with open").await?;
    check("/v1/leases?open=false", 400, "open: ").await?;
    check("/v1/orders?open=true&state=over", 400, "account with open").await?;
    check(&format!("/v1/apps?kept=true&owner={SOMEBODY}"), 400, "owner; keeper").await?;
    check("/v1/providers?listed=all&region=x", 400, "listed; region").await?;
    check("/v1/providers?listed=false", 400, "listed: ").await?;
    check("/v1/providers?region=%00", 400, "NUL").await?;
    check(&format!("/v1/providers?region={}", "x".repeat(65)), 400, "64 bytes").await?;
    for address in ["0x12", "nobody", "0x", &SOMEBODY[2..], &format!("{SOMEBODY}0"), "%00"] {
        check(&format!("/v1/providers/{address}"), 400, "is not an address").await?;
    }
    check(&format!("/v1/accounts/{SOMEBODY}"), 400, "is not a hash").await?;
    check(&format!("/v1/accounts/0x{}", "ee".repeat(32)), 404, "there is no account").await?;
    check(&format!("/v1/accounts/0x{}/streams", "ee".repeat(32)), 404, "no account").await?;
    check(&format!("/v1/providers/{SOMEBODY}"), 404, "never listed itself").await?;
    for id in ["x", "-1", "9223372036854775808", "1.0", "%31%00"] {
        check(&format!("/v1/leases/{id}"), 400, "is not a number").await?;
    }
    check("/v1/leases/9223372036854775807", 404, "there is no lease").await?;
    check("/v1/orders/9223372036854775807", 404, "there is no order").await?;
    for app in ["%00", "UPPER", "a%2Fb", "%f0%9f%92%a9", &"x".repeat(64), "name:"] {
        check(&format!("/v1/apps/{app}"), 400, "is not an app's number, or a name").await?;
    }
    check("/v1/apps/%ff", 400, "UTF-8").await?;
    check("/v1/apps/9223372036854775807", 404, "there is no app").await?;
    check("/v1/apps/name:7", 404, "there is no app with the name \"7\"").await?;
    check("/v1/nothing", 404, "/v1/openapi.json").await?;
    check("/v1/leases/1/nothing", 404, "/v1/openapi.json").await?;
    let posted = served.ask(Method::POST, "/v1/leases", &[]).await?;
    ensure!(posted.status() == StatusCode::METHOD_NOT_ALLOWED, "{posted:?}");
    ensure!(posted.headers()["content-type"] == "application/problem+json", "{posted:?}");

    whatever_is_sent(&served)?;
    served.stop().await?;
    mirror.stop().await
}

/// Words of which requests are put together.
const WORDS: [&str; 30] = [
    "",
    "0",
    "1",
    "7",
    "200",
    "201",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "-1",
    "1-0",
    "1-2147483648",
    "9223372036854775807-4294967295",
    "true",
    "all",
    "active",
    "over",
    SOMEBODY,
    "0x1111111111111111111111111111111111111111111111111111111111111111",
    "name:7",
    "guestbook",
    "%00",
    "%ff%fe",
    "'; select 1 --",
    "0.5",
    "128M",
    "0.02/h",
    "region.startsWith(%22eu%22)%20%26%26%20dark%20==%200",
    "((((price%20%3C%201))))",
    "%3Cscript%3E",
];

const PATHS: [&str; 40] = [
    "/v1/market",
    "/v1/providers",
    "/v1/providers/{}",
    "/v1/providers/{}/leases",
    "/v1/providers/{}/prices",
    "/v1/providers/{}/orders",
    "/v1/providers/{}/events",
    "/v1/leases",
    "/v1/leases/{}",
    "/v1/leases/{}/events",
    "/v1/orders",
    "/v1/orders/{}",
    "/v1/orders/{}/bids",
    "/v1/apps",
    "/v1/apps/{}",
    "/v1/apps/{}/replicas",
    "/v1/accounts",
    "/v1/accounts/{}",
    "/v1/accounts/{}/streams",
    "/v1/accounts/{}/leases",
    "/v1/accounts/{}/events",
    "/v1/events",
    "/v1/{}",
    "/{}",
    "/v1/providers/search",
    "/v1/providers/why-not",
    "/providers",
    "/providers/{}",
    "/leases",
    "/leases/{}",
    "/leases/{}/close",
    "/orders/{}",
    "/orders/new",
    "/orders/{}/award",
    "/accounts/{}",
    "/accounts/{}/withdraw",
    "/owners/{}",
    "/apps/{}",
    "/search",
    "/page/revert",
];

const FIELDS: [&str; 26] = [
    "limit",
    "cursor",
    "state",
    "provider",
    "account",
    "pod",
    "open",
    "leader",
    "owner",
    "keeper",
    "kept",
    "listed",
    "region",
    "limit",
    "cpu",
    "memory",
    "storage",
    "max_price",
    "coverage",
    "seen",
    "where",
    "q",
    "before",
    "data",
    "from",
    "amount",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(&WORDS[..]).prop_map(str::to_owned),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => vec(any::<u8>(), 0..12)
            .prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>()),
    ]
}

/// Whatever is sent, it is answered with what there is or with what is wrong with it, and never with a failure of ours.
fn whatever_is_sent(served: &Served) -> anyhow::Result<()> {
    let request = (select(&PATHS[..]), word(), vec((select(&FIELDS[..]), word()), 0..4));
    let mut runner =
        TestRunner::new(Config { cases: 900, failure_persistence: None, ..Config::default() });
    let tried = tokio::task::block_in_place(|| {
        runner.run(&request, |(path, key, query)| {
            let query: Vec<_> =
                query.iter().map(|(field, word)| format!("{field}={word}")).collect();
            let path = format!("{}?{}", path.replace("{}", &key), query.join("&"));
            let url = format!("{}{path}", served.url);
            let request = served.http.get(url).timeout(Duration::from_secs(30));
            let answered = Handle::current().block_on(async {
                let response = request.send().await?;
                Ok::<_, reqwest::Error>((response.status(), response.text().await?))
            });
            let (status, body) = answered.map_err(|err| TestCaseError::fail(format!("{err:?}")))?;
            prop_assert!(
                status == StatusCode::OK || status.is_client_error(),
                "{path}: {status} {body}"
            );
            if path.starts_with("/v1/") {
                let body: Result<Value, _> = serde_json::from_str(&body);
                prop_assert!(body.is_ok(), "{path}: {body:?}");
            } else {
                // What it was asked with it repeats as text alone.
                prop_assert!(!body.contains("<script>"), "{path}: {body}");
            }
            Ok(())
        })
    });
    tried.map_err(|err| anyhow::anyhow!("{err}"))
}
