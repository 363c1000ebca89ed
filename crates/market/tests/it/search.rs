//! Searches, beside what the contracts say and beside a market that was just started.

use std::{collections::BTreeMap, time::Duration};

use alloy::primitives::Address;
use anyhow::{Context as _, bail, ensure};
use chain::Chain;
use protocol::{
    amount::{Amount, Rate, Token},
    criteria::{Expression, Facts, Search, fits, why_not},
    resources::{PriceList, Resources},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    anvil::Anvil,
    history::History,
    mirrors::{self, Mirror},
    postgres::Postgres,
    served::{Description, Served, TTL, config},
};

const SEARCH: &str = "/v1/providers/search";
const WHY_NOT: &str = "/v1/providers/why-not";

/// How long the listings may take to follow the mirror.
const PATIENCE: Duration = Duration::from_secs(30);

/// Criteria, as they are asked for and as they are judged here.
const ASKED: [&str; 7] = [
    "",
    "cpu=0.5&memory=128M",
    "cpu=500m&memory=1G&storage=2G&max_price=0.01/h",
    "coverage=0.00001",
    "seen=60",
    "cpu=1&memory=64M&where=price%20%3C%200.005%20%7C%7C%20free_stake%20%3E%201",
    "where=bonded%20%3E%200%20%26%26%20!attested()",
];

/// Waits until the listings are those of the chain's head.
pub(crate) async fn follows(served: &Served, anvil: &Anvil) -> anyhow::Result<()> {
    let (_, hash) = anvil.head().await?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let (_, _, body) = served.get(SEARCH).await?;
        if body["at"]["hash"] == hash {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the listings are not at {hash}")
}

fn search(asked: &str, token: &Token) -> Search {
    let mut search = Search {
        token: token.clone(),
        resources: None,
        max_rate: None,
        regions: [].into(),
        addresses: [].into(),
        coverage: Amount(0),
        expressions: Vec::new(),
    };
    for (name, value) in asked.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = value.replace("%20", " ").replace("%3C", "<").replace("%3E", ">");
        let value = value.replace("%7C", "|").replace("%26", "&");
        let resources = search.resources.get_or_insert_default();
        let expression = |text: &str| Expression::parse(text, token).unwrap();
        match name {
            "cpu" => resources.cpu = value.parse().unwrap(),
            "memory" => resources.memory = value.parse().unwrap(),
            "storage" => resources.storage = value.parse().unwrap(),
            "max_price" => search.max_rate = Some(Rate::parse(&value, token).unwrap()),
            "coverage" => search.coverage = Amount::parse(&value, token).unwrap(),
            "seen" => search.expressions.push(expression(&format!("seen <= {value}"))),
            "where" => search.expressions.push(expression(&value)),
            other => panic!("nobody asks for {other}"),
        }
    }
    search.resources = search.resources.filter(|resources| *resources != Resources::default());
    search
}

/// What the contracts say of all that are listed, at the head.
async fn on_chain(chain: &Chain) -> anyhow::Result<BTreeMap<Address, Facts>> {
    let now = chain.head().await?.timestamp;
    let known = chain.ever_listed().await?;
    let (views, bonds) = (chain.listings(&known).await?, chain.bonds(&known).await?);
    let mut facts = BTreeMap::new();
    for ((provider, view), (bond, lockable)) in known.into_iter().zip(views).zip(bonds) {
        if !view.listed {
            continue;
        }
        let prices = &view.listing.prices;
        let free = if lockable { bond.bonded - bond.locked } else { 0 };
        let seen = now - view.seenAt.to::<u64>();
        facts.insert(
            provider,
            Facts {
                provider,
                region: view.listing.region.clone(),
                prices: PriceList {
                    cpu: Rate(prices.cpu),
                    memory: Rate(prices.memoryMiB),
                    storage: Rate(prices.storageMiB),
                    ..PriceList::default()
                },
                measurement: view.listing.measurement,
                live: seen <= TTL,
                seen,
                bonded: Some(Amount(bond.bonded)),
                free_stake: Some(Amount(free)),
                ..Facts::default()
            },
        );
    }
    Ok(facts)
}

/// Holds what a market finds and what it excludes to what the contracts say.
async fn agrees(served: &Served, chain: &Chain, token: &Token) -> anyhow::Result<usize> {
    let facts = on_chain(chain).await?;
    let mut excluded = 0;
    for asked in ASKED {
        let search = search(asked, token);
        let (fit, unfit): (Vec<&Facts>, Vec<&Facts>) =
            facts.values().partition(|facts| fits(&search, facts));
        let in_order = |mut facts: Vec<&Facts>| {
            facts.sort_by_key(|facts| (search.price(&facts.prices), facts.provider));
            let provider = |facts: &Facts| Value::from(format!("{:#x}", facts.provider));
            facts.into_iter().map(provider).collect::<Vec<_>>()
        };
        let named = |items: &[Value]| -> Vec<Value> {
            items.iter().map(|item| item["provider"].clone()).collect()
        };
        let query = format!("?{asked}{}limit=2", if asked.is_empty() { "" } else { "&" });
        let found = served.pages(SEARCH, &query).await?;
        ensure!(named(&found) == in_order(fit), "{asked}: {found:?} beside {facts:?}");
        for item in found {
            let address: Address = item["provider"].as_str().context("nobody")?.parse()?;
            let facts = &facts[&address];
            let rate = search.price(&facts.prices).map(|rate| rate.0.to_string());
            ensure!(item["rate"].as_str() == rate.as_deref(), "{item}");
            let free = facts.free_stake.unwrap_or_default().0.to_string();
            ensure!(item["freeStake"] == free, "{item} beside {facts:?}");
        }
        let others = served.pages(WHY_NOT, &query).await?;
        ensure!(named(&others) == in_order(unfit), "{asked}: {others:?} beside {facts:?}");
        excluded += others.len();
        for item in others {
            let address: Address = item["provider"].as_str().context("nobody")?.parse()?;
            let whys = why_not(&search, &facts[&address]);
            let texts: Vec<_> = whys.into_iter().map(|why| why.text).collect();
            let shown = item["why"].as_array().context("no reasons")?;
            let shown: Vec<_> = shown.iter().filter_map(|why| why["text"].as_str()).collect();
            ensure!(shown == texts, "{item} beside {texts:?}");
        }
    }
    Ok(excluded)
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_follow_the_chain_through_reorganisations() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let url = postgres.database()?;
    let chain = Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
    let config = config(&anvil, &url);
    let served = Served::start(config.clone()).await?;
    // Nothing is mirrored yet.
    let (status, _, body) = served.get(SEARCH).await?;
    ensure!(status == 503, "{status} {body}");

    let mut mirror = Mirror::start(mirrors::config(&anvil, &[&anvil.url], &url));
    let mut history = History::begin(&anvil, 23).await?;
    let mut excluded = 0;
    for round in 0..6 {
        history.go_on(6).await?;
        if round % 2 == 1 {
            mirror.reaches(&anvil).await?;
            follows(&served, &anvil).await?;
            history.reorganise(4).await?;
            history.outgrow().await?;
        }
        mirror.reaches(&anvil).await?;
        follows(&served, &anvil).await?;
        excluded += agrees(&served, &chain, &config.token).await?;

        // It is as one that reads everything anew, also in what no contract counts.
        let anew = Served::start(config.clone()).await?;
        follows(&anew, &anvil).await?;
        for query in
            ["?where=leases%20%3E=%200", "?where=dark%20==%200%20%26%26%20open_leases%20%3C%205"]
        {
            let (ours, theirs) =
                (served.pages(SEARCH, query).await?, anew.pages(SEARCH, query).await?);
            ensure!(ours == theirs, "{query}: {ours:?} beside {theirs:?}");
        }
        anew.stop().await?;
    }
    ensure!(excluded > 20, "only {excluded} times was a provider excluded");
    Description::of(&served).await?.check(SEARCH, "200", &served.found(SEARCH).await?)?;
    served.stop().await?;
    mirror.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_criteria_are_told_by_name() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let anvil = Anvil::start().await?;
    let served = Served::start(config(&anvil, &postgres.database()?)).await?;
    let deep = format!("where={}true{}", "(".repeat(100), ")".repeat(100));
    let long = format!("where={}", "a".repeat(600));
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let many = format!("region={}", many.join(","));
    let cases = [
        ("cpu=many", "cpu: "),
        ("memory=12X", "memory: "),
        ("max_price=1/h", "max_price is what the pod may cost"),
        ("cpu=1&max_price=1", "max_price: "),
        ("coverage=-1", "coverage: "),
        ("where=price%20%3C%201", "where names price"),
        ("where=regoin%20==%20%22eu%22", "did you mean region?"),
        ("where=region%20==%201", "where: "),
        (deep.as_str(), "where: "),
        (long.as_str(), "where: "),
        (many.as_str(), "no more than 64"),
        ("provider=0x12", "\"0x12\" is not"),
        ("cursor=7", "a place among providers"),
        ("seen=soon", "seen"),
        ("colour=blue", "colour"),
    ];
    for (asked, wanted) in cases {
        for path in [SEARCH, WHY_NOT] {
            let (status, _, body) = served.get(&format!("{path}?{asked}")).await?;
            let detail = body["detail"].as_str().context("no detail")?;
            ensure!(status == 400 && detail.contains(wanted), "{asked}: {status} {detail}");
        }
    }
    served.stop().await
}
