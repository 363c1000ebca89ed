//! Which providers come into question for a pod, at what price, and why the others do not.
//!
//! Anybody may ask. A search looks at every listed provider; a look costs no more than the criteria are long, and those are
//! bounded. At most [`AT_ONCE`] searches run at a time, so the worst that strangers do is to keep one another waiting, within
//! the number of requests that they have.

use std::{
    collections::{BTreeSet, BinaryHeap},
    fmt,
    sync::Arc,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use protocol::{
    amount::{Amount, Rate},
    criteria::{self, Criterion, Expression, Search, Why},
    resources::{Bytes, Cpu, Resources},
};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::{
    Market, Problem,
    answer::{Answer, Head, Page},
    listings::{Inner, Listed},
    query::{Asked, queries},
    view::{self, Key},
};

/// How many searches run at a time: they are work for a processor, and there may be few.
const AT_ONCE: usize = 2;

/// Whose turn it is.
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The most regions, and the most providers, that are named.
const MOST_NAMED: usize = 64;

/// The place of a provider among all that come into question: the cheapest first, and by address where prices are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    rate: Rate,
    provider: alloy_primitives::Address,
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:#x}", self.rate.0, self.provider)
    }
}

impl Key for Rank {
    const IS: &'static str = "a place among providers: a rate, a hyphen, an address";

    fn read(text: &str) -> Option<Self> {
        let (rate, provider) = text.split_once('-')?;
        let digits = rate.bytes().all(|byte| byte.is_ascii_digit());
        let rate = digits.then(|| rate.parse().ok()).flatten()?;
        Some(Self { rate, provider: view::Address::read(provider)?.0 })
    }
}

queries! {
    /// Criteria, written as in a pod file.
    Criteria by Rank {
        /// The pod's processors: `0.5`, `500m`.
        cpu: String,
        /// Its memory: `128M`.
        memory: String,
        /// Its volumes: `1G`.
        storage: String,
        /// The most that it may cost by the price list: `0.02/h`.
        max_price: String,
        /// What is to back the lease, in tokens: `5`.
        coverage: String,
        /// Where it may be: regions with commas between them, in lower case.
        region: String,
        /// Who it may be: addresses with commas between them.
        provider: String,
        /// Within how many seconds it has to have been heard of, if that is less than the Registry's `TTL`.
        seen: u64,
        /// What else has to hold: an expression, as `x-roadstead.providers.where` has it.
        #[serde(rename = "where")]
        #[param(max_length = 512)]
        expression: String,
    }
}

/// A provider that comes into question, as its listing and its bond are after the block that the answer names.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Candidate {
    /// Who it is.
    provider: view::Address,
    /// What the pod costs by its price list, without egress, ports and GPUs; null where no resources were given.
    #[schema(required = true)]
    rate: Option<view::Rate>,
    /// The version of its listing.
    version: u64,
    /// Its API, as it says itself.
    endpoint: String,
    /// Where its machines are, as it says itself.
    region: String,
    /// When it was last heard of.
    seen_at: view::Time,
    /// What of its bond can back a new lease.
    free_stake: view::Amount,
    /// How many leases were ever opened with it.
    leases: u64,
    /// How many of them are open.
    open_leases: u64,
    /// How many were closed because it had gone dark.
    dark: u64,
}

/// A provider that does not come into question.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Excluded {
    /// Who it is.
    provider: view::Address,
    /// Each criterion that excludes it.
    why: Vec<Exclusion>,
    /// How many leases were ever opened with it.
    leases: u64,
    /// How many of them are open.
    open_leases: u64,
    /// How many were closed because it had gone dark.
    dark: u64,
}

/// A criterion that excludes a provider.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Exclusion {
    /// Which one: `live`, `address`, `region`, `price`, `room`, `coverage`, or `where`.
    #[schema(value_type = String)]
    criterion: Criterion,
    /// What was wanted, and what there is.
    text: String,
}

impl Criteria {
    /// What is searched for, in the token of this market.
    fn search(&self, market: &Market) -> Result<Search, Problem> {
        let token = market.token();
        let resources = match (&self.cpu, &self.memory, &self.storage) {
            (None, None, None) => None,
            (cpu, memory, storage) => Some(Resources {
                cpu: parsed("cpu", cpu, str::parse::<Cpu>)?.unwrap_or_default(),
                memory: parsed("memory", memory, str::parse::<Bytes>)?.unwrap_or_default(),
                storage: parsed("storage", storage, str::parse::<Bytes>)?.unwrap_or_default(),
                ..Resources::default()
            }),
        };
        let max_rate = parsed("max_price", &self.max_price, |text| Rate::parse(text, token))?;
        if max_rate.is_some() && resources.is_none() {
            let what =
                "max_price is what the pod may cost: say what it needs (cpu, memory, storage)";
            return Err(Problem::bad(what));
        }
        let coverage = parsed("coverage", &self.coverage, |text| Amount::parse(text, token))?;
        let seen = self.seen.map(|seen| format!("seen <= {seen}"));
        let expressions = [seen.as_deref(), self.expression.as_deref()].into_iter().flatten();
        let expressions = expressions.map(|text| Expression::parse(text, token));
        let expressions = expressions.collect::<Result<Vec<_>, _>>();
        let expressions = expressions.map_err(|err| Problem::bad(format!("where: {err}")))?;
        let search = Search {
            token: token.clone(),
            resources,
            max_rate,
            regions: named(&self.region, |region| Ok(region.to_lowercase()))?,
            addresses: named(&self.provider, |provider| {
                let address = view::Address::read(provider).map(|address| address.0);
                address.ok_or_else(|| Problem::bad(view::not_a::<view::Address>(provider)))
            })?,
            coverage: coverage.unwrap_or_default(),
            expressions,
        };
        if resources.is_none() && search.needs().contains(&criteria::Name::Price) {
            let what = "where names price, which is what the pod costs: say what it needs (cpu, memory, storage)";
            return Err(Problem::bad(what));
        }
        Ok(search)
    }
}

/// A parameter's value, or what is wrong with it.
fn parsed<T, E: fmt::Display>(
    name: &str,
    text: &Option<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Problem> {
    let value = text.as_deref().map(parse).transpose();
    value.map_err(|err| Problem::bad(format!("{name}: {err}")))
}

/// The values of a list with commas between them.
fn named<T: Ord>(
    text: &Option<String>,
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> Result<BTreeSet<T>, Problem> {
    let texts = text.iter().flat_map(|text| text.split(',')).map(str::trim);
    let values: BTreeSet<T> =
        texts.filter(|text| !text.is_empty()).map(parse).collect::<Result<_, _>>()?;
    if values.len() > MOST_NAMED {
        return Err(Problem::bad(format!("no more than {MOST_NAMED} can be named at once")));
    }
    Ok(values)
}

/// Those after `from` that come into question, or those that do not: the first `most` in their order.
fn find(
    listings: &Inner,
    search: &Search,
    fit: bool,
    from: Option<Rank>,
    most: usize,
) -> Vec<Rank> {
    // The last of those that are kept is on top, and makes room for one that comes before it.
    let mut first: BinaryHeap<Rank> = BinaryHeap::with_capacity(most + 1);
    for listed in listings.listed.values() {
        let rate = search.price(&listed.facts.prices).unwrap_or_default();
        let rank = Rank { rate, provider: listed.facts.provider };
        let is_late = first.len() == most && first.peek().is_some_and(|last| *last < rank);
        if is_late || from.is_some_and(|from| rank <= from) {
            continue;
        }
        if criteria::fits(search, &listed.facts) == fit {
            first.push(rank);
            if first.len() > most {
                first.pop();
            }
        }
    }
    first.into_sorted_vec()
}

/// What `work` comes to, once it is its turn; nothing if it failed. It has its turn until it is done, also when whoever
/// asked for it has gone.
async fn in_turn<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = turns.acquire().await.ok()?;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.ok()
}

/// Answers with a page of those that come into question, or of those that do not.
async fn page<T: Send + 'static>(
    market: Arc<Market>,
    query: Criteria,
    head: Head,
    fit: bool,
    show: impl Fn(&Search, &Listed) -> T + Send + 'static,
) -> Result<Answer<Page<T>>, Response> {
    let search = query.search(&market).map_err(IntoResponse::into_response)?;
    let at = market.listings().read().at;
    let unread = || Problem::away("the listings are not read yet; try again").into_response();
    // Who has the answer already has it before anything is looked at.
    let _new = head.clone().at(&at.ok_or_else(unread)?)?;
    let most = usize::try_from(query.limit.rows()).unwrap_or(usize::MAX);
    let looked = in_turn(&TURNS, move || {
        let listings = market.listings().read();
        let found = find(&listings, &search, fit, query.cursor, most).into_iter();
        let found = found.filter_map(|rank| Some((rank, listings.listed.get(&rank.provider)?)));
        let found = found.map(|(rank, listed)| (rank, show(&search, listed)));
        (listings.at, found.collect::<Vec<_>>())
    });
    let (at, rows) = looked.await.ok_or_else(unread)?;
    let tagged = head.at(&at.ok_or_else(unread)?)?;
    Ok(tagged.page(rows, query.limit, |(rank, _row)| *rank, |(_rank, row)| row))
}

/// Providers that come into question, the cheapest first
///
/// Without resources there are no prices, and the order is that of the addresses.
#[utoipa::path(
    get, path = "/v1/providers/search", operation_id = "search", params(Criteria),
    responses((status = 200, description = "A page of providers.", body = Page<Candidate>))
)]
pub(super) async fn search(
    Asked(query): Asked<Criteria>,
    State(market): State<Arc<Market>>,
    head: Head,
) -> Result<Answer<Page<Candidate>>, Response> {
    page(market, query, head, true, |search, listed| {
        let facts = &listed.facts;
        Candidate {
            provider: view::Address(facts.provider),
            rate: search.price(&facts.prices).map(view::Rate),
            version: listed.version,
            endpoint: listed.endpoint.clone(),
            region: facts.region.clone(),
            seen_at: view::Time(listed.seen_at),
            free_stake: view::Amount(facts.free_stake.unwrap_or_default()),
            leases: facts.leases.unwrap_or_default(),
            open_leases: facts.open_leases.unwrap_or_default(),
            dark: facts.dark.unwrap_or_default(),
        }
    })
    .await
}

/// Providers that do not come into question, the cheapest first, each with every criterion that excludes it
#[utoipa::path(
    get, path = "/v1/providers/why-not", operation_id = "whyNot", params(Criteria),
    responses((status = 200, description = "A page of providers.", body = Page<Excluded>))
)]
pub(super) async fn why_not(
    Asked(query): Asked<Criteria>,
    State(market): State<Arc<Market>>,
    head: Head,
) -> Result<Answer<Page<Excluded>>, Response> {
    page(market, query, head, false, |search, listed| {
        let facts = &listed.facts;
        let why = criteria::why_not(search, facts).into_iter();
        Excluded {
            provider: view::Address(facts.provider),
            why: why.map(|Why { criterion, text }| Exclusion { criterion, text }).collect(),
            leases: facts.leases.unwrap_or_default(),
            open_leases: facts.open_leases.unwrap_or_default(),
            dark: facts.dark.unwrap_or_default(),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_goes_away_frees_no_turn() {
        static TURNS: Semaphore = Semaphore::const_new(1);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (end, ends) = mpsc::channel::<()>();
        let asked = in_turn(&TURNS, move || {
            begun.send(()).unwrap();
            ends.recv()
        });
        tokio::select! {
            _ = asked => panic!("it is done already"),
            begun = begins => begun.unwrap(),
        }
        // Nobody waits for it any more, and it goes on.
        assert_eq!(TURNS.available_permits(), 0);
        end.send(()).unwrap();
        assert_eq!(in_turn(&TURNS, || 7).await, Some(7));
    }
}
