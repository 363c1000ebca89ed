//! What the market reads, beside the tables themselves.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use anyhow::{Context as _, ensure};
use chain::Deployment;
use protocol::lease::State as LeaseState;
use serde::de::DeserializeOwned;
use store::{
    account::Account,
    app::App,
    auction::Auction,
    bid::Bid,
    event::Place,
    lease::Lease,
    market,
    price::Price,
    provider::Provider,
    replica::Replica,
    stream::{self, Stream},
    tally::Tally,
};

/// Small enough that every history fills several pages.
const PAGE: u32 = 3;

/// Goes through all pages, each from the last row of the one before.
macro_rules! all {
    (|$from:ident| $page:expr, $last:expr) => {{
        let (mut all, mut $from) = (Vec::new(), None);
        loop {
            let page = $page.await?;
            ensure!(page.len() <= PAGE as usize, "a page has {} rows", page.len());
            let Some(last) = page.last() else { break all };
            $from = Some($last(last));
            all.extend(page);
        }
    }};
}

fn rows<T: DeserializeOwned>(
    dump: &BTreeMap<String, Vec<String>>,
    table: &str,
) -> anyhow::Result<Vec<T>> {
    dump[table].iter().map(|row| Ok(serde_json::from_str(row)?)).collect()
}

/// Compares every page, and what was counted, with the rows.
pub(crate) async fn equal_tables(
    deployment: &Deployment,
    database_url: &str,
) -> anyhow::Result<()> {
    let pool = store::pool(database_url, 2)?;
    let dump = store::dump(&mut store::connect(database_url).await?).await?;
    let mut conn = market::snapshot(&pool).await?;
    let mut leases: Vec<Lease> = rows(&dump, "lease")?;
    leases.sort_by_key(|lease| std::cmp::Reverse(lease.id));
    ensure!(leases.len() > PAGE as usize, "there are only {} leases", leases.len());
    let read = all!(|from| market::leases(&mut conn, from, PAGE), |lease: &Lease| lease.id);
    ensure!(read == leases, "the pages of leases are not the leases");
    for lease in &leases {
        let file = market::lease(&mut conn, lease.id).await?.context("no such lease")?;
        ensure!(file.lease == *lease, "lease {} differs", lease.id);
    }
    ensure!(market::lease(&mut conn, u64::from(u32::MAX)).await?.is_none(), "a lease of nobody's");

    let providers: Vec<Provider> = rows(&dump, "provider")?;
    let aspects = market::Aspects { locker: deployment.leases, now: 0, vouches: u32::MAX };
    let read = all!(
        |from| market::standings_after(&mut conn, aspects, from, PAGE),
        |standing: &market::Standing| standing.provider.address
    );
    ensure!(read.len() == providers.len(), "{} of {} providers", read.len(), providers.len());
    let addresses: Vec<Address> = providers.iter().map(|provider| provider.address).collect();
    let again = market::standings_of(&mut conn, aspects, &addresses).await?;
    ensure!(read == again, "the pages of providers are not the providers");
    let seen = all!(
        |from| market::standings_seen(&mut conn, aspects, from, PAGE),
        |standing: &market::Standing| (standing.provider.seen_at, standing.provider.address)
    );
    let mut listed: Vec<_> = read.iter().filter(|standing| standing.provider.listed).collect();
    listed.sort_by_key(|one| std::cmp::Reverse((one.provider.seen_at, one.provider.address)));
    ensure!(seen.iter().eq(listed.iter().copied()), "the pages of those heard of are not they");
    counts_are(&mut conn, &listed, &leases, &dump).await?;
    let prices: Vec<Price> = rows(&dump, "price")?;
    for standing in &read {
        let address = standing.provider.address;
        let theirs = || leases.iter().filter(|lease| lease.provider == address);
        let pages = all!(
            |from| market::leases_of_provider(&mut conn, address, from, PAGE),
            |lease: &Lease| lease.id
        );
        ensure!(pages.iter().eq(theirs()), "the leases of {address} differ");
        let open = all!(
            |from| market::open_leases_of_provider(&mut conn, address, from, PAGE),
            |lease: &Lease| lease.id
        );
        let wanted = theirs().filter(|lease| lease.closed_at.is_none());
        ensure!(open.iter().eq(wanted), "the open leases of {address} differ");
        ensure!(standing.tally == count(address, theirs()), "the tally of {address} is wrong");
        let history =
            all!(|from| market::prices(&mut conn, address, from, PAGE), |price: &Price| price
                .version);
        let wanted = prices.iter().filter(|price| price.provider == address).count();
        ensure!(history.len() == wanted, "{} of {wanted} prices of {address}", history.len());
    }

    let accounts = all!(|from| market::accounts(&mut conn, from, PAGE), |row: &Account| row.id);
    ensure!(accounts.len() == dump["account"].len(), "the accounts differ");
    let mut streams = 0;
    for account in &accounts {
        let pages =
            all!(|from| market::streams(&mut conn, account.id, from, PAGE), |row: &Stream| {
                row.id
            });
        streams += pages.len();
        let open =
            all!(|from| market::open_streams(&mut conn, account.id, from, PAGE), |row: &Stream| {
                row.id
            });
        let wanted = pages.iter().filter(|stream| stream.state != stream::State::Closed);
        ensure!(open.iter().eq(wanted), "the open streams of {} differ", account.id);
    }
    ensure!(streams == dump["stream"].len(), "{streams} streams");
    let orders = all!(|from| market::orders(&mut conn, from, PAGE), |row: &Auction| row.id);
    ensure!(orders.len() == dump["auction"].len(), "the orders differ");
    let mut bids = 0;
    for order in &orders {
        let pages = all!(|from| market::bids(&mut conn, order.id, from, PAGE), |row: &Bid| {
            u64::from(row.number)
        });
        bids += pages.len();
    }
    ensure!(bids == dump["bid"].len(), "{bids} bids");
    let apps = all!(|from| market::apps(&mut conn, from, PAGE), |row: &App| row.id);
    ensure!(apps.len() == dump["app"].len(), "the apps differ");
    let mut replicas = 0;
    for app in &apps {
        let pages =
            all!(|from| market::replicas(&mut conn, app.id, from, PAGE), |row: &Replica| {
                row.replica
            });
        replicas += pages.len();
        for first in [1, app.replicas] {
            let is_open = |replica: &&Replica| {
                let lease = leases.iter().find(|lease| lease.id == replica.lease);
                replica.replica < first && lease.is_some_and(|lease| lease.closed_at.is_none())
            };
            let wanted = pages.iter().filter(is_open).count() as u64;
            let deployed = market::deployed(&mut conn, app.id, first).await?;
            ensure!(deployed == wanted, "{deployed} of app {} instead of {wanted}", app.id);
        }
    }
    ensure!(replicas == dump["replica"].len(), "{replicas} replicas");

    let place =
        |event: &store::event::Event| Place { block: event.block, log_index: event.log_index };
    let events = all!(|from| store::event::newest(&mut conn, from, PAGE), place);
    ensure!(events.len() == dump["event"].len(), "the events differ");
    let start = Place { block: 0, log_index: 0 };
    let touched = market::touched_after(&mut conn, start, u32::MAX).await?;
    ensure!(touched.iter().map(|at| at.place).eq(events.iter().rev().map(place)), "not in order");
    ensure!(market::account(&mut conn, B256::repeat_byte(0xee)).await?.is_none(), "nobody's");
    Ok(())
}

/// What goes on is counted up to a limit.
async fn counts_are(
    conn: &mut store::PgConnection,
    listed: &[&market::Standing],
    leases: &[Lease],
    dump: &BTreeMap<String, Vec<String>>,
) -> anyhow::Result<()> {
    let (orders, apps): (Vec<Auction>, Vec<App>) = (rows(dump, "auction")?, rows(dump, "app")?);
    // The last that was heard of, and whoever was heard of at the same time.
    let since = listed.first().map_or(0, |standing| standing.provider.seen_at);
    let in_state = |state| leases.iter().filter(|lease| lease.state == state).count();
    let wanted = [
        listed.len(),
        listed.iter().filter(|standing| standing.provider.seen_at >= since).count(),
        in_state(LeaseState::Active),
        in_state(LeaseState::Pending),
        orders.iter().filter(|order| order.state == store::auction::State::Open).count(),
        apps.iter().filter(|app| app.retired_at.is_none()).count(),
    ];
    for limit in [2, 1_000] {
        let found = market::counts(conn, since, limit).await?;
        let found =
            [found.listed, found.heard, found.active, found.pending, found.open_orders, found.apps];
        let wanted = wanted.map(|count| (count as u64).min(limit.into()));
        ensure!(found == wanted, "up to {limit}: {found:?} instead of {wanted:?}");
    }
    Ok(())
}

/// What the tally of a provider has to be.
fn count<'a>(provider: Address, leases: impl Iterator<Item = &'a Lease>) -> Option<Tally> {
    let mut tally = Tally { provider, opened: 0, open: 0, closed: BTreeMap::new(), full_at: 0 };
    for lease in leases {
        tally.opened += 1;
        match (lease.close_reason, lease.closed_at) {
            (Some(reason), Some(at)) => {
                *tally.closed.entry(reason).or_default() += 1;
                if reason == protocol::lease::CloseReason::ProviderFull {
                    tally.full_at = tally.full_at.max(at);
                }
            }
            _ => tally.open += 1,
        }
    }
    (tally.opened > 0).then_some(tally)
}
