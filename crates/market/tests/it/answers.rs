//! Every route, beside what the database and the contracts say.

use std::{collections::BTreeSet, io::Read as _};

use alloy::{
    primitives::{Address, B256, U256, Uint, hex, keccak256},
    sol_types::SolCall,
};
use anyhow::{Context as _, ensure};
use chain::{
    Chain,
    abi::{
        Registry,
        apps::{Apps, IApps},
    },
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    anvil::{Anvil, key},
    history::History,
    mirrors::{self, Mirror},
    postgres::Postgres,
    search::follows,
    served::{Description, Served, config},
    truth::{Row, Truth, equals, shown},
};

/// Who asks, and what for: every answer is held to its schema.
struct Asker<'a> {
    served: &'a Served,
    description: Description,
    asked: BTreeSet<String>,
}

impl Asker<'_> {
    /// What is there, by a path of the description.
    async fn one(&mut self, path: &str, key: &str) -> anyhow::Result<Value> {
        let full = fill(path, key);
        let mut body = self.served.found(&full).await?;
        self.description.check(path, "200", &body)?;
        self.asked.insert(path.to_owned());
        Ok(body["item"].take())
    }

    /// All that the pages of a list hold.
    async fn list(&mut self, path: &str, key: &str, query: &str) -> anyhow::Result<Vec<Value>> {
        let full = fill(path, key);
        self.description.check(
            path,
            "200",
            &self.served.found(&format!("{full}{query}")).await?,
        )?;
        self.asked.insert(path.to_owned());
        self.served.pages(&full, query).await
    }

    /// Holds a list to rows, field by field.
    async fn same(
        &mut self,
        path: &str,
        key: &str,
        query: &str,
        rows: &[&Row],
        otherwise: &[&str],
    ) -> anyhow::Result<Vec<Value>> {
        let items = self.list(path, key, query).await?;
        let what = format!("{path} {key}{query}");
        ensure!(items.len() == rows.len(), "{what}: {} of {} rows", items.len(), rows.len());
        for (item, row) in items.iter().zip(rows) {
            equals(item, row, otherwise).with_context(|| what.clone())?;
        }
        Ok(items)
    }
}

fn fill(path: &str, key: &str) -> String {
    match (path.find('{'), path.find('}')) {
        (Some(from), Some(to)) => format!("{}{key}{}", &path[..from], &path[to + 1..]),
        _ => path.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_is_mirrored() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 5).await?;
    history.go_on(40).await?;
    mirror.reaches(&anvil).await?;
    let served = Served::start(config(&anvil, &reader(&postgres, &url)?)).await?;
    let truth = Truth::of(&url).await?;
    let description = Description::of(&served).await?;
    let mut asker = Asker { served: &served, description, asked: BTreeSet::new() };

    providers(&mut asker, &truth, &anvil).await?;
    leases(&mut asker, &truth).await?;
    orders(&mut asker, &truth).await?;
    apps(&mut asker, &truth).await?;
    accounts(&mut asker, &truth, &anvil).await?;
    events(&mut asker, &truth).await?;
    market(&mut asker, &anvil).await?;
    // Changes are no answer that ends; their own tests follow them.
    asker.asked.insert("/v1/changes".to_owned());
    follows(&served, &anvil).await?;
    asker.list("/v1/providers/search", "", "?limit=2").await?;
    let excluded = asker.list("/v1/providers/why-not", "", "?region=mars&limit=2").await?;
    ensure!(!excluded.is_empty(), "nobody is excluded");
    let missed: Vec<_> =
        asker.description.paths().into_iter().filter(|path| !asker.asked.contains(path)).collect();
    ensure!(missed.is_empty(), "nothing was asked at {missed:?}");

    heads(&served).await?;
    served.stop().await?;
    mirror.stop().await
}

/// The address of the same database for a user that may only read.
fn reader(postgres: &Postgres, url: &str) -> anyhow::Result<String> {
    if !postgres.is_ours() {
        eprintln!("DATABASE_URL names somebody else's server, which gets no users of ours");
        return Ok(url.to_owned());
    }
    let grant = "create role reader login; grant select on all tables in schema public to reader";
    Postgres::ask(url, grant)?;
    let reader = url.replace("user=roadstead", "user=reader");
    ensure!(reader != url, "{url} names no user");
    Ok(reader)
}

async fn market(asker: &mut Asker<'_>, anvil: &Anvil) -> anyhow::Result<()> {
    let body = asker.served.found("/v1/market").await?;
    let (number, hash) = anvil.head().await?;
    ensure!(body["at"]["number"] == number && body["at"]["hash"] == hash, "{body}");
    let item = asker.one("/v1/market", "").await?;
    let deployment = serde_json::to_value(&anvil.deployment)?;
    for (name, address) in item["contracts"].as_object().context("no contracts")? {
        ensure!(*address == deployment[name], "{name} is {address}");
    }
    ensure!(item["chainId"] == 31_337 && item["token"]["symbol"] == "USD", "{item}");
    ensure!(item["token"]["address"] == deployment["token"], "{item}");
    Ok(())
}

async fn providers(asker: &mut Asker<'_>, truth: &Truth, anvil: &Anvil) -> anyhow::Result<()> {
    const LIST: &str = "/v1/providers";
    let otherwise = ["prices", "bond", "leases", "vouches", "measurement", "lockable"];
    let all = truth.by("provider", "address", &[], false);
    ensure!(all.len() > 5, "there are only {} providers", all.len());
    let items = asker.same(LIST, "", "?listed=all&limit=2", &all, &otherwise).await?;
    let listed = truth.by("provider", "address", &[("listed", "true")], false);
    asker.same(LIST, "", "?limit=2", &listed, &otherwise).await?;
    for region in truth.values("provider", "region") {
        let having = [("listed", "true"), ("region", region.as_str())];
        let rows = truth.by("provider", "address", &having, false);
        let region: String = region.bytes().map(|byte| format!("%{byte:02x}")).collect();
        asker.same(LIST, "", &format!("?region={region}&limit=2"), &rows, &otherwise).await?;
    }
    let leases = anvil.deployment.leases.to_string().to_lowercase();
    let time = Chain::connect(&anvil.url, anvil.deployment.clone()).await?.head().await?.timestamp;
    for (item, row) in items.iter().zip(all) {
        let address = row["address"].as_str();
        equals(&item["prices"], row, &[])?;
        match truth.rows("bond", &[("bonder", address)]).first() {
            Some(bond) => equals(&item["bond"], bond, &[])?,
            None => ensure!(item["bond"].is_null(), "{item}"),
        }
        let allowed = [("bonder", address), ("locker", &leases), ("allowed", "true")];
        ensure!(item["lockable"] == !truth.rows("locker", &allowed).is_empty(), "{item}");
        match truth.rows("tally", &[("provider", address)]).first() {
            Some(tally) => equals(&item["leases"], tally, &["fullAt"])?,
            None => ensure!(item["leases"].is_null(), "{item}"),
        }
        let vouches = truth.rows("vouch", &[("provider", address)]);
        let holds = |row: &&&Row| row["expiry"].parse::<u64>().is_ok_and(|end| end >= time);
        let vouches: Vec<_> = vouches.iter().filter(holds).collect();
        let shown = item["vouches"].as_array().context("no vouches")?;
        ensure!(shown.len() == vouches.len(), "{item} beside {vouches:?}");
        let one = asker.one("/v1/providers/{address}", address).await?;
        ensure!(one == *item, "{one} is not {item}");

        let theirs = truth.by("lease", "id", &[("provider", address)], true);
        asker.same("/v1/providers/{address}/leases", address, "?limit=3", &theirs, &[]).await?;
        let open = [("provider", address), ("state", "pending|active")];
        let open = truth.by("lease", "id", &open, true);
        asker.same("/v1/providers/{address}/leases", address, "?open=true", &open, &[]).await?;
        let led = truth.by("auction", "id", &[("leader", address)], true);
        asker.same("/v1/providers/{address}/orders", address, "?limit=1", &led, &[]).await?;
        let prices = truth.by("price", "version", &[("provider", address)], true);
        let path = "/v1/providers/{address}/prices";
        let shown = asker.same(path, address, "?limit=1", &prices, &["prices"]).await?;
        for (item, row) in shown.iter().zip(prices) {
            equals(&item["prices"], row, &[])?;
        }
    }
    let nobody = format!("/v1/providers/0x{}", "ee".repeat(20));
    let (status, _, body) = asker.served.get(&nobody).await?;
    ensure!(status == StatusCode::NOT_FOUND, "{status} {body}");
    asker.description.check("/v1/providers/{address}", "404", &body)
}

async fn leases(asker: &mut Asker<'_>, truth: &Truth) -> anyhow::Result<()> {
    const LIST: &str = "/v1/leases";
    let all = truth.by("lease", "id", &[], true);
    ensure!(all.len() > 10, "there are only {} leases", all.len());
    asker.same(LIST, "", "?limit=3", &all, &[]).await?;
    for column in ["state", "provider", "account", "pod"] {
        for value in truth.values("lease", column) {
            let rows = truth.by("lease", "id", &[(column, &value)], true);
            asker.same(LIST, "", &format!("?{column}={value}&limit=3"), &rows, &[]).await?;
            if ["provider", "account"].contains(&column) {
                let open = [(column, value.as_str()), ("state", "pending|active")];
                let rows = truth.by("lease", "id", &open, true);
                let query = format!("?{column}={value}&open=true&limit=1");
                asker.same(LIST, "", &query, &rows, &[]).await?;
            }
        }
    }
    for row in all {
        let id = row["id"].as_str();
        let one = asker.one("/v1/leases/{id}", id).await?;
        equals(&one["lease"], row, &[])?;
        for found in ["challenge", "outage"] {
            match truth.rows(found, &[("lease", id)]).first() {
                Some(row) => equals(&one[found], row, &[])?,
                None => ensure!(one[found].is_null(), "{one}"),
            }
        }
    }
    Ok(())
}

async fn orders(asker: &mut Asker<'_>, truth: &Truth) -> anyhow::Result<()> {
    const LIST: &str = "/v1/orders";
    let all = truth.by("auction", "id", &[], true);
    ensure!(all.len() > 3, "there are only {} orders", all.len());
    asker.same(LIST, "", "?limit=3", &all, &[]).await?;
    for column in ["state", "account", "leader"] {
        for value in truth.values("auction", column) {
            let rows = truth.by("auction", "id", &[(column, &value)], true);
            if value == "null" {
                continue;
            }
            asker.same(LIST, "", &format!("?{column}={value}&limit=2"), &rows, &[]).await?;
        }
    }
    for account in truth.values("auction", "account") {
        let open = [("account", account.as_str()), ("state", "open|awarded")];
        let rows = truth.by("auction", "id", &open, true);
        asker.same(LIST, "", &format!("?account={account}&open=true"), &rows, &[]).await?;
    }
    for row in all {
        let id = row["id"].as_str();
        equals(&asker.one("/v1/orders/{id}", id).await?, row, &[])?;
        let bids = truth.by("bid", "number", &[("auction", id)], true);
        asker.same("/v1/orders/{id}/bids", id, "?limit=1", &bids, &[]).await?;
    }
    Ok(())
}

async fn apps(asker: &mut Asker<'_>, truth: &Truth) -> anyhow::Result<()> {
    const LIST: &str = "/v1/apps";
    let all = truth.by("app", "id", &[], true);
    ensure!(!all.is_empty(), "there are no apps");
    asker.same(LIST, "", "?limit=1", &all, &[]).await?;
    let kept = truth.by("app", "id", &[("retired_at", "null")], true);
    asker.same(LIST, "", "?kept=true&limit=1", &kept, &[]).await?;
    for column in ["owner", "keeper", "account"] {
        for value in truth.values("app", column) {
            let rows = truth.by("app", "id", &[(column, &value)], true);
            asker.same(LIST, "", &format!("?{column}={value}&limit=1"), &rows, &[]).await?;
        }
    }
    for row in all {
        let id = row["id"].as_str();
        equals(&asker.one("/v1/apps/{app}", id).await?, row, &[])?;
        if row["named"] == "true" {
            equals(&asker.one("/v1/apps/{app}", &row["name"]).await?, row, &[])?;
            let name = format!("name:{}", row["name"]);
            equals(&asker.one("/v1/apps/{app}", &name).await?, row, &[])?;
        }
        let replicas = truth.by("replica", "replica", &[("app", id)], false);
        asker.same("/v1/apps/{app}/replicas", id, "?limit=1", &replicas, &[]).await?;
    }
    Ok(())
}

/// What an account has and what a stream owes is what the contract says at that block.
async fn accounts(asker: &mut Asker<'_>, truth: &Truth, anvil: &Anvil) -> anyhow::Result<()> {
    const LIST: &str = "/v1/accounts";
    let chain = Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
    let number = chain.head().await?.number;
    let payments = chain.payments();
    let otherwise = ["free", "dry", "fundedUntil", "resumedAt", "withdrawable"];
    let all = truth.by("account", "id", &[], false);
    let items = asker.same(LIST, "", "?limit=4", &all, &otherwise).await?;
    for owner in truth.values("account", "owner") {
        let rows = truth.by("account", "id", &[("owner", &owner)], false);
        asker.same(LIST, "", &format!("?owner={owner}&limit=1"), &rows, &otherwise).await?;
    }
    let mut owing = 0;
    for item in items {
        let id = item["id"].as_str().context("no id")?;
        ensure!(asker.one("/v1/accounts/{id}", id).await? == item, "{item}");
        let view = payments.account(id.parse()?).block(number.into()).call().await?;
        ensure!(item["free"] == view.free.to_string(), "{item} beside {view:?}");
        let spare = view.free.saturating_sub(view.lockup) / 1_000_000_000;
        ensure!(item["withdrawable"] == spare.to_string(), "{item} beside {view:?}");
        let until = view.fundedUntil.to::<u64>();
        let until = if until == (1 << 40) - 1 { Value::Null } else { until.into() };
        ensure!(item["fundedUntil"] == until, "{item} beside {view:?}");

        let rows = truth.by("stream", "id", &[("account", id)], false);
        let otherwise = ["owed", "collectable"];
        let path = "/v1/accounts/{id}/streams";
        for stream in asker.same(path, id, "?limit=3", &rows, &otherwise).await? {
            let id: B256 = stream["id"].as_str().context("no id")?.parse()?;
            let view =
                payments.stream(U256::from_be_bytes(id.0)).block(number.into()).call().await?;
            ensure!(stream["owed"] == view.owed.to_string(), "{stream} beside {view:?}");
            let collectable = view.owed / 1_000_000_000;
            ensure!(stream["collectable"] == collectable.to_string(), "{stream} beside {view:?}");
            owing += usize::from(view.owed > 0);
        }
        let theirs = truth.by("lease", "id", &[("account", id)], true);
        asker.same("/v1/accounts/{id}/leases", id, "?limit=3", &theirs, &[]).await?;
        let open = [("account", id), ("state", "pending|active")];
        let open = truth.by("lease", "id", &open, true);
        asker.same("/v1/accounts/{id}/leases", id, "?open=true", &open, &[]).await?;
    }
    ensure!(owing > 3, "only {owing} streams owe anything");
    Ok(())
}

async fn events(asker: &mut Asker<'_>, truth: &Truth) -> anyhow::Result<()> {
    let about = |column: &str, value: &str| {
        let having = (!column.is_empty()).then_some((column, value));
        let mut rows = truth.rows("event", having.as_slice());
        let place = |row: &&Row| {
            (row["block_number"].parse::<u64>().unwrap(), row["log_index"].parse::<u64>().unwrap())
        };
        rows.sort_by_key(place);
        rows.reverse();
        rows
    };
    let same = async |asker: &mut Asker<'_>, path: &str, key: &str, rows: &[&Row]| {
        let otherwise = ["about", "args", "block", "blockHash", "time", "tx"];
        for (event, row) in
            asker.same(path, key, "?limit=40", rows, &otherwise).await?.iter().zip(rows)
        {
            equals(&event["about"], row, &[])?;
            ensure!(shown(&event["args"]) == row["args"], "{event} beside {row:?}");
            let names = event["args"].as_object().into_iter().flatten().map(|(name, _)| name);
            let plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            ensure!(names.into_iter().all(plain), "{event} has a name that is no contract's");
            let block = truth.rows("block", &[("number", &event["block"].to_string())]);
            let block = block.first().context("an event without a block")?;
            ensure!(shown(&event["block"]) == row["block_number"], "{event} beside {row:?}");
            ensure!(event["blockHash"] == block["hash"], "{event} beside {block:?}");
            ensure!(shown(&event["time"]) == block["time"], "{event} beside {block:?}");
            ensure!(event["tx"] == row["tx_hash"], "{event} beside {row:?}");
        }
        anyhow::Ok(())
    };
    same(asker, "/v1/events", "", &about("", "")).await?;
    for (column, path) in [
        ("lease", "/v1/leases/{id}/events"),
        ("provider", "/v1/providers/{address}/events"),
        ("account", "/v1/accounts/{id}/events"),
    ] {
        for value in truth.values("event", column) {
            if value != "null" {
                same(asker, path, &value, &about(column, &value)).await?;
            }
        }
    }
    Ok(())
}

/// What is in the heads of answers: tags, packing, who may read them.
async fn heads(served: &Served) -> anyhow::Result<()> {
    const PATH: &str = "/v1/leases?limit=200";
    let tag_of = |response: &reqwest::Response| {
        anyhow::Ok(response.headers().get("etag").context("no tag")?.to_str()?.to_owned())
    };
    let first = served.ask(Method::GET, PATH, &[]).await?;
    let (tag, length) = (tag_of(&first)?, first.text().await?.len());
    ensure!(tag.starts_with('"'), "{tag} is no strong tag");
    let again = served.ask(Method::GET, PATH, &[("if-none-match", &tag)]).await?;
    ensure!(again.status() == StatusCode::NOT_MODIFIED && tag_of(&again)? == tag, "{again:?}");
    ensure!(again.text().await?.is_empty());
    for other in ["/v1/leases?limit=199", "/v1/orders?limit=200"] {
        let other = served.ask(Method::GET, other, &[("if-none-match", &tag)]).await?;
        ensure!(other.status() == StatusCode::OK, "{other:?}");
    }

    let packed = served.ask(Method::GET, PATH, &[("accept-encoding", "gzip")]).await?;
    ensure!(packed.headers()["content-encoding"] == "gzip", "{packed:?}");
    // The bytes are others, so the tag is another.
    ensure!(tag_of(&packed)? != tag, "{packed:?}");
    let bytes = packed.bytes().await?;
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut plain)?;
    ensure!(plain.len() == length && bytes.len() < length, "{length}");

    let head = served.ask(Method::HEAD, PATH, &[("origin", "https://page.example")]).await?;
    ensure!(head.status() == StatusCode::OK && tag_of(&head)? == tag, "{head:?}");
    ensure!(head.headers()["access-control-allow-origin"] == "*", "{head:?}");
    ensure!(head.headers()["cache-control"] == "no-cache", "{head:?}");
    ensure!(head.bytes().await?.is_empty());
    Ok(())
}

/// Whoever goes from page to page while the market goes on sees all that was there at the beginning, and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_while_rows_come() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 29).await?;
    history.go_on(15).await?;
    mirror.reaches(&anvil).await?;
    let served = Served::start(config(&anvil, &url)).await?;
    let lists = [
        ("/v1/leases", 2, &["id"][..]),
        ("/v1/orders", 1, &["id"]),
        ("/v1/accounts", 2, &["id"]),
        ("/v1/providers", 2, &["address"]),
        ("/v1/events", 60, &["block", "logIndex"]),
    ];
    let key = |item: &Value, names: &[&str]| {
        names.iter().map(|name| item[name].to_string()).collect::<Vec<_>>().join("-")
    };
    let mut wanted = Vec::new();
    for (path, _, names) in lists {
        let items = served.pages(path, "?limit=200").await?;
        wanted.push(items.iter().map(|item| key(item, names)).collect::<BTreeSet<_>>());
    }
    let mut open: Vec<_> = lists.map(|(_, limit, _)| Some(format!("?limit={limit}"))).into();
    let mut seen = vec![Vec::new(); lists.len()];
    let (mut pages, mut blocks) = (0, BTreeSet::new());
    while open.iter().any(Option::is_some) {
        for (at, (path, limit, names)) in lists.iter().enumerate() {
            let Some(query) = open[at].take() else { continue };
            let body = served.found(&format!("{path}{query}")).await?;
            let items = body["items"].as_array().context("no items")?;
            ensure!(items.len() <= *limit, "{path}: {} items", items.len());
            seen[at].extend(items.iter().map(|item| key(item, names)));
            blocks.insert(body["at"]["number"].to_string());
            pages += 1;
            let next = body["next"].as_str();
            open[at] = next.map(|next| format!("?limit={limit}&cursor={next}"));
        }
        history.go_on(1).await?;
        mirror.reaches(&anvil).await?;
    }
    ensure!(blocks.len() > 4, "{pages} pages, but only after blocks {blocks:?}");
    for ((path, _, _), (wanted, seen)) in lists.iter().zip(wanted.iter().zip(&seen)) {
        let once: BTreeSet<_> = seen.iter().cloned().collect();
        ensure!(once.len() == seen.len(), "{path}: something was there twice");
        let missed: Vec<_> = wanted.difference(&once).collect();
        // A provider may have left meanwhile.
        ensure!(missed.is_empty() || *path == "/v1/providers", "{path}: {missed:?} were missed");
    }
    served.stop().await?;
    mirror.stop().await
}

/// Sends a call of somebody's, for the next block.
async fn send(anvil: &Anvil, by: u8, to: Address, call: &impl SolCall) -> anyhow::Result<()> {
    let data = hex::encode_prefixed(call.abi_encode());
    let call = json!([{ "from": key(by).address(), "to": to, "data": data, "gas": "0x2dc6c0" }]);
    anvil.rpc("eth_sendTransaction", call).await.map(drop)
}

/// However many vouch for a provider, an answer has an end; and nobody is shown whose word is over.
#[tokio::test(flavor = "multi_thread")]
async fn vouches_have_an_end() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 3).await?;
    let provider = key(1).address();
    let until = |number: u8| 4_000_000_000 + u64::from(number);
    for number in 0..13 {
        // One is over already.
        let expiry = if number == 12 { 1 } else { until(number) };
        let attribute = keccak256(format!("seal-{number}"));
        let call = Registry::vouchCall { provider, attribute, expiry: Uint::from(expiry) };
        send(&anvil, 2, anvil.deployment.registry, &call).await?;
    }
    history.mine(1).await?;
    mirror.reaches(&anvil).await?;
    let served = Served::start(config(&anvil, &url)).await?;
    let ends = |item: &Value| -> Vec<u64> {
        let vouches = item["vouches"].as_array().into_iter().flatten();
        vouches.filter_map(|vouch| vouch["expiry"].as_u64()).collect()
    };
    let alone = served.found(&format!("/v1/providers/{provider:#x}")).await?;
    let longest_first: Vec<u64> = (0..12).rev().map(until).collect();
    ensure!(ends(&alone["item"]) == longest_first, "{alone}");
    let list = served.pages("/v1/providers", "?limit=200").await?;
    let listed = list.iter().find(|item| item["address"] == json!(provider)).context("nobody")?;
    ensure!(ends(listed) == longest_first[..10], "{listed}");
    follows(&served, &anvil).await?;
    for (number, found) in [(0, 1), (11, 1), (12, 0)] {
        let query = format!("?where=vouched(\"seal-{number}\")");
        let items = served.pages("/v1/providers/search", &query).await?;
        ensure!(items.len() == found, "{query}: {items:?}");
    }
    served.stop().await?;
    mirror.stop().await
}

/// A name of digits hides no app that has that number, neither from programs nor from people.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_a_number_hides_no_app() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 3).await?;
    for (by, name) in [(1, "shop"), (2, "1")] {
        let limits =
            IApps::Limits { replicas: 1, maxLock: 100, maxRate: 1, pods: B256::repeat_byte(1) };
        let r = IApps::Registration {
            account: chain::account_id(key(by).address(), B256::ZERO),
            slot: "20".parse()?,
            name: name.to_owned(),
            spec: B256::repeat_byte(2),
            uri: String::new(),
            keeper: key(3).address(),
            fee: 0,
            limits,
        };
        send(&anvil, by, anvil.deployment.apps, &Apps::registerCall { r }).await?;
    }
    history.mine(1).await?;
    mirror.reaches(&anvil).await?;
    let served = Served::start(config(&anvil, &url)).await?;
    for (path, name) in [("1", "shop"), ("shop", "shop"), ("name:1", "1"), ("2", "1")] {
        let app = served.found(&format!("/v1/apps/{path}")).await?;
        ensure!(app["item"]["name"] == name, "/v1/apps/{path} is {app}");
        let page = served.ask(Method::GET, &format!("/apps/{path}"), &[]).await?.text().await?;
        ensure!(
            page.contains(&format!("<h1>App <bdi>{name}</bdi></h1>")),
            "/apps/{path} is {page}"
        );
    }
    let list = served.ask(Method::GET, "/apps", &[]).await?.text().await?;
    for link in ["href=\"/apps/shop\"", "href=\"/apps/name:1\""] {
        ensure!(list.contains(link), "there is no {link} in {list}");
    }
    served.stop().await?;
    mirror.stop().await
}
