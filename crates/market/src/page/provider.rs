//! Providers: what they ask for, what they have at stake, and how their leases went.

use alloy_primitives::{Address, hex};
use axum::extract::Path;
use maud::{Markup, html};
use protocol::{
    amount::{Amount, Rate},
    lease::CloseReason,
    resources::{Bytes, Cpu, PriceList, Resources},
};
use serde::Deserialize;
use store::{
    challenge::{self, Challenge},
    event,
    lease::Lease,
    market::{self, Standing},
    outage::{self, Outage},
    price::Price,
    provider::Provider,
    row::Row as _,
    tally::Tally,
};

use super::{
    Asked, FEW, Fault, PER_PAGE, Page, Shown, address,
    chart::{self, Span, Words},
    cut, events, facts, lease, order, owner_link, pages, provider_link, table, words,
};
use crate::Problem;

/// A pod by whose price providers are compared.
pub(super) const TYPICAL: Resources =
    Resources { cpu: Cpu(1_000), memory: Bytes(2 << 30), storage: Bytes(10 << 30), gpus: 0 };

/// How many of a provider's prices are drawn.
const PRICES: u32 = 100;

/// Reasons that are on the provider's side.
const FAULTS: [CloseReason; 9] = [
    CloseReason::ProviderDraining,
    CloseReason::ProviderFault,
    CloseReason::ProviderPolicy,
    CloseReason::ProviderFull,
    CloseReason::ImageUnavailable,
    CloseReason::SecretsUnreadable,
    CloseReason::Unhealthy,
    CloseReason::StartMissed,
    CloseReason::WentDark,
];

/// How the list is asked for: by when they were heard of, or by their addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    #[serde(default)]
    order: Order,
    /// The last one of the page before: when it was heard of, and its address.
    seen: Option<u64>,
    after: Option<Address>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    #[default]
    Seen,
    Address,
}

pub(super) async fn list(mut page: Page, Asked(asked): Asked<Listing>) -> Result<Shown, Fault> {
    let aspects = page.aspects(0);
    let began = asked.after.is_none();
    let mut all = match asked.order {
        Order::Seen => {
            let before = asked.seen.zip(asked.after);
            market::standings_seen(page.conn(), aspects, before, PER_PAGE + 1).await?
        }
        Order::Address => {
            market::standings_after(page.conn(), aspects, asked.after, PER_PAGE + 1).await?
        }
    };
    let next = cut(&mut all, PER_PAGE, |last| (last.provider.seen_at, last.provider.address));
    let next = next.map(|(seen, address)| match asked.order {
        Order::Seen => format!("/providers?seen={seen}&after={address}"),
        Order::Address => format!("/providers?order=address&after={address}"),
    });
    let path = match asked.order {
        Order::Seen => "/providers",
        Order::Address => "/providers?order=address",
    };
    let orders = [
        (Order::Seen, "/providers", "those heard of last"),
        (Order::Address, "/providers?order=address", "all, by address"),
    ];
    let body = html! {
        h1 id="providers" { "Providers" }
        p class="sorts" {
            "Show "
            @for (index, (order, path, name)) in orders.into_iter().enumerate() {
                @if index > 0 { " or " }
                @if order == asked.order { strong { (name) } } @else { a href=(path) { (name) } }
            }
        }
        (standings(&page, "providers", &all))
        (pages(path, began, next.as_deref()))
        (legend())
    };
    Ok(page.show("Providers", "/providers", &body))
}

/// What the columns mean.
fn legend() -> Markup {
    html! {
        p class="small" {
            "A typical pod: " (TYPICAL) ", without egress, ports and GPUs: what a provider asks for these, it says itself. How much room a provider has is not on chain: it says so itself, when it is asked "
            "for a quote. Uptime is not measured on chain either; what there is of it are leases that ended on the "
            "provider's side, outages that watchers reported and challenges that were not answered."
        }
    }
}

/// What a typical pod costs at a provider, unless that is more than can be reckoned.
pub(super) fn typical(provider: &Provider) -> Option<Rate> {
    let Provider { cpu, memory_mib, storage_mib, .. } = *provider;
    let (memory, storage) = (memory_mib, storage_mib);
    let list = PriceList { cpu, memory, storage, ..PriceList::default() };
    list.price(&TYPICAL.into()).ok().map(|price| price.total)
}

/// Providers, to be compared.
pub(super) fn standings(page: &Page, id: &str, all: &[Standing]) -> Markup {
    if all.is_empty() {
        return html! { p { "No provider is listed." } };
    }
    let rates: Vec<Option<Rate>> = all.iter().map(|one| typical(&one.provider)).collect();
    let top = rates.iter().flatten().map(|rate| rate.0 as f64).fold(0.0, f64::max);
    let rows: Vec<Vec<Markup>> = all
        .iter()
        .zip(&rates)
        .map(|(standing, rate)| {
            let provider = &standing.provider;
            vec![
                html! {
                    (provider_link(provider.address))
                    span class="small" { (words::foreign(&provider.region, 40)) }
                    @if !provider.listed { span class="small" { "not listed any more" } }
                },
                html! {
                    @match rate {
                        Some(rate) => { (page.price(*rate)) (chart::share(&[("used", rate.0 as f64)], top)) }
                        None => { "beyond reckoning" }
                    }
                },
                html! {
                    ul class="plain" {
                        @for (name, rate) in prices_of(provider) { li { (page.per_hour(rate)) " " (name) } }
                    }
                },
                html! {
                    @match &standing.tally {
                        Some(tally) => { (tally.open) " open" span class="small" { (record(tally)) } }
                        None => { "none yet" }
                    }
                },
                stake_cell(page, standing),
                page.when(provider.seen_at),
            ]
        })
        .collect();
    table(
        id,
        "What they ask for, have at stake, and how their leases went. A bar is the price beside the dearest here, or the part of the stake that is free.",
        &["Provider", "A typical pod", "Prices", "Leases", "Free stake", "Heard of"],
        &rows,
    )
}

/// A price list as people say it: of a core, and of GiB.
fn prices_of(provider: &Provider) -> [(&'static str, Rate); 3] {
    let of = |rate: Rate, parts: u128| Rate(rate.0.saturating_mul(parts));
    [
        ("a core", of(provider.cpu, 1_000)),
        ("a GiB memory", of(provider.memory_mib, 1_024)),
        ("a GiB disk", of(provider.storage_mib, 1_024)),
    ]
}

fn faults(tally: &Tally) -> u64 {
    FAULTS.iter().filter_map(|reason| tally.closed.get(reason)).sum()
}

/// How a provider's leases went, in a line.
fn record(tally: &Tally) -> String {
    let closed: u64 = tally.closed.values().sum();
    match (closed, faults(tally)) {
        (0, _) => "none ended yet".into(),
        (closed, 0) => format!("{closed} ended, none on its side"),
        (closed, faults) => format!("{closed} ended, {faults} on its side"),
    }
}

fn stake_cell(page: &Page, standing: &Standing) -> Markup {
    html! {
        @match &standing.bond {
            Some(bond) => {
                (page.money(free(bond.bonded, bond.locked)))
                span class="small" { "of " (page.money(bond.bonded)) }
                (chart::share(&[("used", free(bond.bonded, bond.locked).0 as f64)], bond.bonded.0 as f64))
                @if !standing.lockable { span class="small" { "does not let leases lock it" } }
            }
            None => { "none" }
        }
    }
}

fn free(bonded: Amount, locked: Amount) -> Amount {
    Amount(bonded.0.saturating_sub(locked.0))
}

pub(super) async fn one(mut page: Page, Path(who): Path<String>) -> Result<Shown, Fault> {
    let who = address(&who)?;
    let aspects = page.aspects(PER_PAGE + 1);
    let found = market::standings_of(page.conn(), aspects, &[who]).await?;
    let standing = found
        .into_iter()
        .next()
        .ok_or_else(|| Problem::missing(format!("{who} never listed itself as a provider")))?;
    let prices = market::prices(page.conn(), who, None, PRICES).await?;
    let mut leases = market::open_leases_of_provider(page.conn(), who, None, FEW + 1).await?;
    let more_leases = cut(&mut leases, FEW, |last| last.id);
    let challenge_keys: Vec<_> =
        leases.iter().map(|lease| challenge::Key { lease: lease.id }).collect();
    let outage_keys: Vec<_> = leases.iter().map(|lease| outage::Key { lease: lease.id }).collect();
    let challenges = Challenge::load(page.conn(), &challenge_keys).await?;
    let outages = Outage::load(page.conn(), &outage_keys).await?;
    let orders = market::orders_led_by(page.conn(), who, None, FEW).await?;
    let events = event::of_provider(page.conn(), who, None, FEW).await?;
    let provider = &standing.provider;
    let name = words::short(&who.to_string());
    let body = html! {
        h1 { "Provider " (name) }
        @if !provider.listed { p class="warning" { "It took itself off the list." } }
        (facts(&[
            ("Address", html! { code { (who.to_string()) } span class="small" { "as an " a href={ "/owners/" (who.to_string()) } { "owner of accounts and apps" } } }),
            ("Region", words::foreign(&provider.region, 120)),
            ("API", words::outward(&provider.endpoint)),
            ("Heard of", page.when(provider.seen_at)),
            ("Listing", html! { "version " (provider.version) ", of " (page.when(provider.listed_at)) }),
            ("A typical pod", html! { @match typical(provider) { Some(rate) => { (page.price(rate)) span class="small" { (TYPICAL) ", without egress, ports and GPUs" } } None => { "beyond reckoning" } } }),
            ("Key of its API", html! { code { (hex::encode(provider.tls_key)) } span class="small" { "SHA-256; programs hold its API to it" } }),
            ("Key for secrets", html! { code { (hex::encode(provider.seal_key)) } span class="small" { "X25519" } }),
            ("Attests", html! { @if provider.measurement.is_zero() { "nothing" } @else { code { (hex::encode(provider.measurement)) } } }),
        ]))
        section { h2 id="prices" { "Prices" } (price_history(&page, provider, &prices)) }
        div class="columns" {
            section { h2 id="stake" { "Stake" } (stake(&page, &standing)) }
            section { h2 id="record" { "How its leases went" } (tally(&page, standing.tally.as_ref())) }
        }
        section {
            h2 id="vouches" { "Who vouches for it" }
            (vouches(&page, &standing))
        }
        section {
            h2 id="leases" { "Open leases" }
            (open_leases(&page, &leases, &challenges, &outages))
            p { a href={ "/leases?provider=" (who.to_string()) } { "All of its leases" @if more_leases.is_some() { ", also more open ones" } } }
        }
        section {
            h2 id="orders" { "Orders that it leads or was awarded" }
            @if orders.is_empty() { p { "None." } } @else { (order::table_of(&page, "orders", &orders)) }
        }
        section { h2 id="events" { "Latest events" } (events::list(&page, "events", &events)) }
    };
    Ok(page.show(&format!("Provider {name}"), "/providers", &body))
}

/// What it asked for over time: drawn, and told.
fn price_history(page: &Page, provider: &Provider, prices: &[Price]) -> Markup {
    let from = prices.last().map_or(provider.listed_at, |first| first.time);
    let span = Span { from, to: page.now() };
    type Of = fn(&Price) -> Rate;
    let kinds: [(&str, &str, u128, Of); 3] = [
        ("price-cpu", "A core", 1_000, |price| price.cpu),
        ("price-memory", "A GiB of memory", 1_024, |price| price.memory_mib),
        ("price-disk", "A GiB of disk", 1_024, |price| price.storage_mib),
    ];
    let rate = |of: Of, parts: u128, price: &Price| Rate(of(price).0.saturating_mul(parts));
    html! {
        div class="columns" {
            @for (id, name, parts, of) in kinds {
                @let points: Vec<(u64, f64)> =
                    prices.iter().rev().map(|price| (price.time, of(price).0 as f64)).collect();
                @let of_all = prices.iter().map(|price| rate(of, parts, price));
                @let (least, most) = (of_all.clone().min(), of_all.max());
                @let current = prices.first().map_or(Rate(0), |price| rate(of, parts, price));
                @let desc = format!(
                    "{} at present; between {} and {} in {} versions.",
                    page.per_hour(current),
                    page.per_hour(least.unwrap_or_default()),
                    page.per_hour(most.unwrap_or_default()),
                    prices.len(),
                );
                figure {
                    figcaption { (name) ": " strong { (page.per_hour(current)) } span class="small" { "at most " (page.per_hour(most.unwrap_or_default())) } }
                    (chart::steps(&points, span, span.to, 0.0, false, &Words { id, title: &format!("{name}, price over time"), desc: &desc }))
                    p class="axis" { span { (words::day(span.from)) } span { (words::day(span.to)) } }
                }
            }
        }
        @let rows: Vec<Vec<Markup>> = prices.iter().take(FEW as usize).map(|price| vec![
            html! { (price.version) },
            page.when(price.time),
            html! { (page.per_hour(Rate(price.cpu.0.saturating_mul(1_000)))) },
            html! { (page.per_hour(Rate(price.memory_mib.0.saturating_mul(1_024)))) },
            html! { (page.per_hour(Rate(price.storage_mib.0.saturating_mul(1_024)))) },
        ]).collect();
        details {
            summary { "The last " (rows.len()) " in numbers" }
            (table("prices", "Versions of its listing, the newest first.", &["Version", "From", "A core", "A GiB of memory", "A GiB of disk"], &rows))
        }
    }
}

fn stake(page: &Page, standing: &Standing) -> Markup {
    let Some(bond) = &standing.bond else {
        return html! { p { "Nothing is at stake: no lease with it can be covered." } };
    };
    html! {
        (chart::share(&[("used", free(bond.bonded, bond.locked).0 as f64)], bond.bonded.0 as f64))
        p class="key" { "The bar is the part of what is bonded that is free." }
        (facts(&[
            ("Bonded", html! { (page.money(bond.bonded)) }),
            ("Locked, as coverage", html! { (page.money(bond.locked)) }),
            ("Free", html! { (page.money(free(bond.bonded, bond.locked))) }),
            ("On its way out", html! {
                @if bond.unbonding.0 == 0 { "nothing" }
                @else { (page.money(bond.unbonding)) ", from " (page.when(bond.withdrawable_at)) }
            }),
            ("Ever taken out of it", html! { (page.money(bond.slashed)) }),
            ("Leases may lock it", html! { @if standing.lockable { "yes" } @else { "no" } }),
        ]))
    }
}

fn tally(page: &Page, tally: Option<&Tally>) -> Markup {
    let Some(tally) = tally else { return html! { p { "It has had none." } } };
    let closed: u64 = tally.closed.values().sum();
    let mut reasons: Vec<(CloseReason, u64)> =
        tally.closed.iter().map(|(reason, count)| (*reason, *count)).collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    let rows: Vec<Vec<Markup>> = reasons
        .into_iter()
        .map(|(reason, count)| {
            let side = if FAULTS.contains(&reason) { "fault" } else { "used" };
            vec![
                html! { (reason.to_string()) },
                html! { (count) (chart::share(&[(side, count as f64)], closed as f64)) },
            ]
        })
        .collect();
    html! {
        p {
            (tally.opened) " opened, " (tally.open) " of them open; " (record(tally)) "."
            @if tally.full_at > 0 { " It last had no room at " (page.when(tally.full_at)) "." }
        }
        @if !rows.is_empty() {
            (table("record", "Why leases ended; reasons on the provider's side are red.", &["Because", "Leases"], &rows))
        }
    }
}

fn vouches(page: &Page, standing: &Standing) -> Markup {
    let rows: Vec<Vec<Markup>> = standing
        .vouches
        .iter()
        .take(PER_PAGE as usize)
        .map(|vouch| {
            vec![
                owner_link(vouch.auditor),
                html! { code { (vouch.attribute.to_string()) } },
                page.when(vouch.expiry),
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "Nobody." } }
        @else {
            (table("vouches", "Anybody may vouch for anything: what matters is whose word it is.", &["Auditor", "Hash of what it has", "Until"], &rows))
            @if standing.vouches.len() > rows.len() { p { "These hold longest; there are more." } }
        }
    }
}

fn open_leases(
    page: &Page,
    leases: &[Lease],
    challenges: &[Challenge],
    outages: &[Outage],
) -> Markup {
    let rows: Vec<Vec<Markup>> = leases
        .iter()
        .map(|one| {
            let challenge = challenges.iter().find(|challenge| challenge.lease == one.id);
            let outage = outages.iter().find(|outage| outage.lease == one.id);
            vec![
                super::lease_link(one.id),
                lease::state(one, page.now()),
                html! { (page.price(one.rate)) },
                html! { (page.money(one.coverage)) },
                page.when(one.opened_at),
                html! {
                    @match outage {
                        Some(outage) => { (outage.reports) " reports, " (page.money(outage.total)) }
                        None => { "none reported" }
                    }
                    @if let Some(challenge) = challenge {
                        span class="small" { (challenge.answers) " of " (challenge.challenges) " challenges answered" }
                    }
                },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "None." } }
        @else { (table("leases", "The newest first.", &["Lease", "State", "Price", "Coverage", "Opened", "Outages"], &rows)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_record_says_on_whose_side_leases_ended() {
        let check = |closed: &[(CloseReason, u64)], wanted: &str| {
            let closed: BTreeMap<_, _> = closed.iter().copied().collect();
            let tally = Tally { provider: Address::ZERO, opened: 9, open: 1, closed, full_at: 0 };
            assert_eq!(record(&tally), wanted);
        };
        check(&[], "none ended yet");
        check(&[(CloseReason::PayerDone, 3)], "3 ended, none on its side");
        check(
            &[
                (CloseReason::PayerDone, 3),
                (CloseReason::WentDark, 1),
                (CloseReason::AccountDry, 1),
            ],
            "5 ended, 1 on its side",
        );
    }
}
