//! `roadstead providers`: who provides, who comes into question for a pod, and why the others do not.

use std::{cmp::Reverse, path::PathBuf, time::Duration};

use ::provider::wire::Info;
use alloy::primitives::Address;
use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use protocol::{
    amount::{Amount, Rate, Token},
    criteria::{Criterion, Name, Search, Where, Why, why_not},
    pod::Wishes,
    resources::{Bytes, PriceList},
};
use serde::Serialize;

use crate::{
    candidates::{self, Candidate, Judged},
    client::Endpoint,
    output::{self, narrow_table, price, span, tame},
    podfile::PodFile,
    settings::Settings,
    show,
};

/// How long a provider may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are asked at once.
const AT_ONCE: usize = 50;

/// Which providers are listed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those that come into question for this Compose file, with what its pod costs there, the cheapest first
    #[arg(long = "for", value_name = "FILE")]
    pod: Option<PathBuf>,
    /// Those of which this holds, in CEL, beside what the file says
    #[arg(long = "where", value_name = "EXPRESSION")]
    expression: Option<Where>,
    /// The others, too, each with all that excludes it
    #[arg(long)]
    why_not: bool,
}

/// A provider in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    provider: Address,
    region: String,
    endpoint: String,
    live: bool,
    version: u64,
    seen_at: u64,
    /// What the listing says, in units per second: for a millicore, a MiB of memory and a MiB of storage. What the provider
    /// asks for egress, public ports and GPUs it says itself, in `info`.
    prices: PriceList,
    /// What the pod costs by that list, in units per second.
    price: Option<Rate>,
    /// What of the bond can back a new lease, in base units.
    free_bond: Amount,
    info: Option<Info>,
    /// What excludes it.
    why_not: Vec<Why>,
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let file = args.pod.as_deref().map(|path| PodFile::read(Some(path))).transpose()?;
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let search = search(args, file.as_ref(), &token)?;
    let chosen = file.is_some() || args.expression.is_some();

    let mut needs = search.needs();
    needs.insert(Name::FreeStake);
    let now = chain.head().await?.timestamp;
    let known =
        candidates::known(&chain, settings.market.as_deref(), &search, &needs, args.why_not)
            .await?;
    let none = known.is_empty();
    let Judged { fit, unfit } = match chosen || args.why_not {
        true => candidates::judge(&search, known),
        false => Judged { fit: known, unfit: Vec::new() },
    };
    let asked = stream::iter(fit).map(|candidate| asked(candidate, &search));
    let fit: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    // What is free is the provider's word, and is known of those alone that were asked.
    let full = |listed: &Listed| listed.why_not.iter().any(|why| why.criterion == Criterion::Room);
    let (full, mut fit): (Vec<_>, Vec<_>) =
        fit.into_iter().partition(|listed| chosen && full(listed));
    fit.sort_by_key(|listed| (listed.price, listed.provider));
    let unfit =
        unfit.into_iter().map(|(candidate, whys)| Listed::new(candidate, &search, None, whys));
    let mut unfit: Vec<_> = unfit.chain(full).collect();
    unfit.sort_by_key(|listed| (Reverse(listed.live), listed.provider));
    let left_out = unfit.len();
    if !args.why_not {
        unfit.clear();
    }

    let all: Vec<_> = fit.iter().chain(&unfit).collect();
    output::show(settings.json, &all, || {
        if none {
            return "no provider is listed on this chain yet".into();
        }
        let mut text = match fit.is_empty() {
            true => format!("none of the {left_out} listed providers comes into question"),
            false => rows(&fit, search.resources.is_some(), now, &token),
        };
        let beyond = file.as_ref().map(|file| file.parsed.demand(Bytes(0)).is_beyond_listings());
        if beyond == Some(true) && !fit.is_empty() {
            text.push_str(show::BEYOND);
        }
        for listed in &unfit {
            let (provider, region) = (listed.provider, &listed.region);
            text.push_str(&format!("\n\n{provider} ({region}) does not come into question:"));
            listed.why_not.iter().for_each(|why| text.push_str(&format!("\n  {}", why.text)));
        }
        if left_out > unfit.len() {
            text.push_str(&format!("\nleft out: {left_out}; --why-not says why"));
        }
        text
    })
}

/// What the file wishes, and the expression beside it.
fn search(args: &Args, file: Option<&PodFile>, token: &Token) -> anyhow::Result<Search> {
    let none = Wishes::default();
    let wishes = file.map_or(&none, |file| file.parsed.wishes());
    let mut search = Search::new(wishes, file.map(|file| file.parsed.resources()), token)?;
    let further = args.expression.as_ref().map(|expression| expression.expression(token));
    search.expressions.extend(further.transpose().context("--where")?);
    Ok(search)
}

/// A provider that is asked what it has. One that does not answer is not excluded for that; it is told.
async fn asked(mut candidate: Candidate, search: &Search) -> Listed {
    let endpoint = Endpoint::new(candidate.facts.provider, &candidate.view.listing);
    let info = async { endpoint.ok()?.info().await.ok() };
    let info = tokio::time::timeout(PATIENCE, info).await.ok().flatten();
    candidate.facts.room = info.as_ref().map(|info| info.free);
    let whys = why_not(search, &candidate.facts);
    Listed::new(candidate, search, info, whys)
}

impl Listed {
    fn new(candidate: Candidate, search: &Search, info: Option<Info>, why_not: Vec<Why>) -> Self {
        let Candidate { view, facts } = candidate;
        Self {
            provider: facts.provider,
            region: tame(&facts.region),
            endpoint: tame(&view.listing.endpoint),
            live: facts.live,
            version: view.version,
            seen_at: view.seenAt.to(),
            prices: facts.prices,
            price: search.price(&facts.prices),
            free_bond: facts.free_stake.unwrap_or_default(),
            info,
            why_not,
        }
    }
}

/// A table: with the pod's price where there is a pod, else with that of each resource.
fn rows(fit: &[Listed], pod: bool, now: u64, token: &Token) -> String {
    let hour = |rate: Rate, times: u64| {
        rate.times(times).map_or_else(|| "?".into(), |units| Rate(units.0).per_hour(token))
    };
    // What providers say themselves has a column where one of them asks for it.
    type Of = fn(&PriceList) -> Rate;
    let extras: [(&str, u64, Of); 3] = [
        ("GIB EGRESS", 1_024, |prices| prices.egress),
        ("PORT", 1, |prices| prices.public_port),
        ("GPU", 1, |prices| prices.gpu),
    ];
    let asked = |of: Of| {
        let mut infos = fit.iter().filter_map(|listed| listed.info.as_ref());
        infos.any(|info| of(&info.prices).0 > 0)
    };
    let extras: Vec<_> = extras.into_iter().filter(|(_, _, of)| !pod && asked(*of)).collect();
    let rows = fit.iter().map(|listed| {
        let state = match (&listed.info, listed.live) {
            (Some(info), true) => format!("{} free", info.free),
            (None, true) => "unreachable".into(),
            (_, false) => {
                format!("last heard of {} ago", span(now.saturating_sub(listed.seen_at)))
            }
        };
        let prices = match listed.price.filter(|_| pod) {
            Some(rate) => vec![price(rate, token)],
            None => vec![
                hour(listed.prices.cpu, 1_000),
                hour(listed.prices.memory, 1_024),
                hour(listed.prices.storage, 1_024),
            ],
        };
        let mut row = vec![listed.provider.to_string(), listed.region.clone()];
        row.extend(prices);
        row.extend(extras.iter().map(|(_, times, of)| {
            let info = listed.info.as_ref();
            info.map_or_else(|| "?".into(), |info| hour(of(&info.prices), *times))
        }));
        row.extend([listed.free_bond.display(token), state]);
        row
    });
    // An address is no use in parts; what a narrow terminal has no room for is in --json.
    match pod {
        true => narrow_table(&["PROVIDER", "REGION", "LIST PRICE", "FREE BOND", ""], rows, &[3, 4]),
        false => {
            let mut header = vec!["PROVIDER", "REGION", "CPU", "GIB MEMORY", "GIB STORAGE"];
            let last = header.len() + extras.len();
            let spare: Vec<usize> = [last, last + 1].into_iter().chain((2..last).rev()).collect();
            header.extend(extras.iter().map(|(name, _, _)| *name));
            header.extend(["FREE BOND", ""]);
            narrow_table(&header, rows, &spare)
        }
    }
}
