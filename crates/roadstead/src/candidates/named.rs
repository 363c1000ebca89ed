//! Whom a market names.
//!
//! A market is anybody's, and is not believed: what it names is read on the chain and judged by that. The worst of them
//! leaves out whom it likes, so that the choice is poorer; it gets to know the criteria, and nothing of the pod but its size.
//! What no contract counts (how many leases a provider had, and how they ended) is its word alone.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use protocol::{
    amount::{Rate, Token},
    criteria::{Expression, Search},
    resources::Resources,
};
use reqwest::{Url, redirect::Policy};
use serde::Deserialize;

use super::Found;

/// How long a market may take for all of its pages.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read of a page, in bytes.
const MOST: usize = 1 << 20;

/// How many rows a page is asked for, and how many pages there are at most.
const PAGES: (usize, usize) = (200, 5);

/// The longest part of a refusal that is shown, in characters.
const SHOWN: usize = 300;

/// A page of a market's answer, as far as it is of use here.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Found>,
    next: Option<String>,
}

/// Where a market is, by what was typed.
pub(super) fn place(url: &str) -> anyhow::Result<Url> {
    let base = if url.ends_with('/') { url.to_owned() } else { format!("{url}/") };
    let base = Url::parse(&base).ok().filter(|base| matches!(base.scheme(), "http" | "https"));
    base.with_context(|| format!("the market {url:?} is no URL such as https://market.example.org"))
}

/// Whom the market at `base` names for `search`: who comes into question, the cheapest first, or who does not.
pub(super) async fn named(base: &Url, search: &Search, fit: bool) -> anyhow::Result<Vec<Found>> {
    let pages = pages(base, search, fit);
    tokio::time::timeout(PATIENCE, pages).await.context("it takes too long")?
}

async fn pages(base: &Url, search: &Search, fit: bool) -> anyhow::Result<Vec<Found>> {
    let path = if fit { "v1/providers/search" } else { "v1/providers/why-not" };
    let http = reqwest::Client::builder().redirect(Policy::none()).build()?;
    let (mut found, mut cursor): (Vec<Found>, Option<String>) = (Vec::new(), None);
    for _ in 0..PAGES.1 {
        let mut at = base.join(path)?;
        at.query_pairs_mut().extend_pairs(parameters(search));
        at.query_pairs_mut().append_pair("limit", &PAGES.0.to_string());
        at.query_pairs_mut().extend_pairs(cursor.iter().map(|cursor| ("cursor", cursor)));
        let page = page(&http, at).await?;
        ensure!(page.items.len() <= PAGES.0, "it names more providers than it was asked for");
        found.extend(page.items);
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(found)
}

async fn page(http: &reqwest::Client, at: Url) -> anyhow::Result<Page> {
    let answer = http.get(at).send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let (mut body, mut chunks) = (Vec::new(), answer.bytes_stream());
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.map_err(reqwest::Error::without_url)?);
        ensure!(body.len() <= MOST, "its answer is longer than {MOST} bytes");
    }
    if !status.is_success() {
        let problem = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let why: String =
            problem["detail"].as_str().unwrap_or_default().chars().take(SHOWN).collect();
        bail!("it answers {status}: {why}");
    }
    serde_json::from_slice(&body).context("it answers with something else than a market does")
}

/// What of a search a market is asked. It may be less than there is to judge by, and never more.
fn parameters(search: &Search) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    if let Some(Resources { cpu, memory, storage, .. }) = search.resources {
        parameters.push(("cpu", cpu.to_string()));
        parameters.push(("memory", memory.0.to_string()));
        parameters.push(("storage", storage.0.to_string()));
        parameters.extend(search.max_rate.map(|rate| ("max_price", exact(rate, &search.token))));
    }
    if search.coverage.0 > 0 {
        parameters.push(("coverage", search.coverage.display(&search.token)));
    }
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    let regions = list(search.regions.iter().cloned().collect());
    parameters.extend(regions.map(|regions| ("region", regions)));
    let addresses = list(search.addresses.iter().map(|address| format!("{address:#x}")).collect());
    parameters.extend(addresses.map(|addresses| ("provider", addresses)));
    parameters.extend(together(search).map(|text| ("where", text)));
    parameters
}

/// As many of the expressions as fit into one.
fn together(search: &Search) -> Option<String> {
    let mut all: Option<String> = None;
    for part in search.expressions.iter().flat_map(Expression::parts) {
        let part = if part.contains("||") { format!("({part})") } else { part.to_owned() };
        let longer = all.as_ref().map_or_else(|| part.clone(), |all| format!("{all} && {part}"));
        if Expression::parse(&longer, &search.token).is_ok() {
            all = Some(longer);
        }
    }
    all
}

/// A rate as a price per second, to its last digit.
fn exact(rate: Rate, token: &Token) -> String {
    let places = usize::from(token.decimals) + 9;
    let digits = format!("{:0>width$}", rate.0, width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    format!("{whole}.{fraction}/s")
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;
    use protocol::amount::Amount;

    use super::*;

    #[test]
    fn what_is_asked_is_what_is_searched_for() {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        let expression = |text: &str| Expression::parse(text, &token).unwrap();
        let rate = Rate::parse("0.02/h", &token).unwrap();
        let search = Search {
            resources: Some(Resources {
                cpu: "1.5".parse().unwrap(),
                memory: "128M".parse().unwrap(),
                storage: "0".parse().unwrap(),
                gpus: 1,
            }),
            max_rate: Some(rate),
            regions: ["eu-west".to_owned(), "eu-north".to_owned()].into(),
            addresses: [Address::repeat_byte(0xab)].into(),
            coverage: Amount(5_500_000),
            expressions: vec![
                expression("dark == 0 || leases > 10"),
                expression("seen < 60 && price < 1"),
                expression(&vec!["bonded > 1"; 30].join(" && ")),
            ],
            token: token.clone(),
        };
        let all = parameters(&search);
        let of = |name: &str| {
            let found = all.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        // What no listing has, no market can search for.
        assert!(all.iter().all(|(known, _)| !known.contains("gpu")), "{all:?}");
        assert_eq!(of("cpu").parse(), Ok(search.resources.unwrap().cpu));
        assert_eq!(of("memory").parse(), Ok(search.resources.unwrap().memory));
        assert_eq!(Rate::parse(&of("max_price"), &token), Ok(rate));
        assert_eq!(Amount::parse(&of("coverage"), &token), Ok(search.coverage));
        assert_eq!(of("region"), "eu-north,eu-west");
        assert_eq!(of("provider"), format!("0x{}", "ab".repeat(20)));
        let expression = of("where");
        assert!(
            expression
                .starts_with("(dark == 0 || leases > 10) && seen < 60 && price < 1 && bonded > 1"),
            "{expression}"
        );
        assert!(Expression::parse(&expression, &token).is_ok(), "{expression}");
    }
}
