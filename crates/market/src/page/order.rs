//! Orders on the reverse market, and the bids that fall for them.

use alloy_primitives::{Address, B256};
use axum::extract::Path;
use maud::{Markup, html};
use protocol::{
    amount::Rate,
    resources::{Bytes, Cpu, Resources},
};
use serde::Deserialize;
use store::{
    auction::{Auction, Outcome, State as OrderState},
    bid::Bid,
    market,
};

use super::{
    Asked, Fault, PER_PAGE, Page, Shown, account_link, act,
    chart::{self, Span, Words},
    cut, facts, hash, lease_link, number, order_link, owner_link, pages, provider_link, table,
    words,
};
use crate::Problem;

/// How many bids are drawn.
const BIDS: u32 = 200;

/// Which orders are listed, and from where on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    before: Option<u64>,
    state: Option<Which>,
    account: Option<B256>,
    provider: Option<Address>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Which {
    Open,
    Awarded,
    Over,
}

pub(super) async fn list(mut page: Page, Asked(asked): Asked<Listing>) -> Result<Shown, Fault> {
    let (before, most) = (asked.before, PER_PAGE + 1);
    let conn = page.conn();
    let (what, query, mut orders) = match (asked.account, asked.provider, asked.state) {
        (None, None, None) => (
            "All, the newest first.".to_owned(),
            String::new(),
            market::orders(conn, before, most).await?,
        ),
        (None, None, Some(which)) => {
            let name = match which {
                Which::Open => "open",
                Which::Awarded => "awarded",
                Which::Over => "over",
            };
            let orders = market::orders_in_state(conn, name, before, most).await?;
            (format!("Those that are {name}, the newest first."), format!("state={name}"), orders)
        }
        (Some(id), None, None) => {
            let orders = market::orders_of_account(conn, id, before, most).await?;
            (format!("Those of account {id}, the newest first."), format!("account={id}"), orders)
        }
        (None, Some(who), None) => {
            let orders = market::orders_led_by(conn, who, before, most).await?;
            let what = format!("Those that {who} leads or was awarded, the newest first.");
            (what, format!("provider={who}"), orders)
        }
        _several => {
            return Err(Problem::bad(
                "orders are listed by one of state, account and provider; leave the others out",
            )
            .into());
        }
    };
    let next = cut(&mut orders, PER_PAGE, |last| last.id);
    let next = next
        .map(|id| format!("/orders?{query}{}before={id}", if query.is_empty() { "" } else { "&" }));
    let body = html! {
        h1 id="orders" { "Orders" }
        p { a class="button" href="/orders/new" { "Place an order" } }
        p class="sorts" {
            "Show "
            @for (index, (state, name)) in [("", "all"), ("open", "open"), ("awarded", "awarded"), ("over", "over")].into_iter().enumerate() {
                @if index > 0 { ", " }
                @let wanted = if state.is_empty() { String::new() } else { format!("state={state}") };
                @if wanted == query { strong { (name) } }
                @else if state.is_empty() { a href="/orders" { (name) } }
                @else { a href={ "/orders?" (wanted) } { (name) } }
            }
        }
        div id="orders-live" data-live {
            @if orders.is_empty() { p { "None." } } @else { (table_with(&page, "orders", &what, &orders)) }
        }
        (pages(format!("/orders?{query}").trim_end_matches('?'), before.is_none(), next.as_deref()))
    };
    Ok(page.show("Orders", "/orders", &body))
}

fn takes_bids(page: &Page, order: &Auction) -> bool {
    order.state == OrderState::Open && order.deadline >= page.now()
}

/// Where an order stands, in a word.
fn word(page: &Page, order: &Auction) -> Markup {
    let (class, name) = match order.state {
        OrderState::Open if takes_bids(page, order) => ("good", "takes bids"),
        OrderState::Open if order.leader.is_none() => ("", "nobody bid"),
        OrderState::Open => ("", "to be awarded"),
        OrderState::Awarded => ("", "awarded"),
        OrderState::Over => ("", "over"),
    };
    html! {
        span class={ "state " (class) } { (name) }
        @if let Some(outcome) = order.outcome { span class="small" { (outcome_words(outcome)) } }
    }
}

/// The same, and when it ends.
fn state(page: &Page, order: &Auction) -> Markup {
    html! {
        (word(page, order))
        @if takes_bids(page, order) { span class="small" { "ends " (words::relative(order.deadline, page.now())) } }
    }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Started => "its lease started",
        Outcome::Cancelled => "its payer took it back",
        Outcome::Expired => "nobody awarded it in time",
        Outcome::GivenUp => "its winners did not start, too often",
    }
}

fn resources(order: &Auction) -> Resources {
    let bytes = |mib: u64| Bytes(mib.saturating_mul(1 << 20));
    Resources {
        cpu: Cpu(order.cpu),
        memory: bytes(order.memory_mib),
        storage: bytes(order.storage_mib),
        ..Resources::default()
    }
}

pub(super) fn table_of(page: &Page, id: &str, orders: &[Auction]) -> Markup {
    table_with(page, id, "The newest first.", orders)
}

fn table_with(page: &Page, id: &str, caption: &str, orders: &[Auction]) -> Markup {
    let rows: Vec<Vec<Markup>> = orders
        .iter()
        .map(|order| {
            vec![
                order_link(order.id),
                state(page, order),
                html! { (resources(order)) },
                best(page, order),
                html! { @match order.leader { Some(leader) => { (provider_link(leader)) } None => { "nobody" } } },
                page.when(order.placed_at),
            ]
        })
        .collect();
    table(id, caption, &["Order", "State", "For", "Best bid", "Leader", "Placed"], &rows)
}

/// The best bid, beside the most that is paid.
fn best(page: &Page, order: &Auction) -> Markup {
    html! {
        @if order.leader.is_some() { (page.per_hour(order.rate)) } @else { "nobody leads" }
        span class="small" { "at most " (page.per_hour(order.max_rate)) }
        @if order.leader.is_some() { (chart::share(&[("used", order.rate.0 as f64)], order.max_rate.0 as f64)) }
    }
}

pub(super) async fn one(mut page: Page, Path(id): Path<String>) -> Result<Shown, Fault> {
    let id = number(&id)?;
    let order = market::order(page.conn(), id).await?;
    let order = order.ok_or_else(|| Problem::missing(format!("there is no order {id}")))?;
    let bids = market::bids(page.conn(), id, None, BIDS).await?;
    let body = html! {
        h1 { "Order " (id) }
        // Read aloud whenever it changes, so no time that is left stands in it.
        p id="state" role="status" data-live {
            (word(&page, &order))
            @match order.leader {
                Some(leader) => { " Best bid: " strong { (page.per_hour(order.rate)) } ", by " (provider_link(leader)) "." }
                None => { " Nobody leads." }
            }
        }
        section {
            h2 id="bids" { "Bids" }
            div id="bids-live" data-live { (falling(&page, &order, &bids)) }
        }
        (act::on_order(&order))
        section {
            h2 { "What is asked for" }
            (facts(&[
                ("Resources", html! { (resources(&order)) }),
                ("At most", page.price(order.max_rate)),
                ("Pod", html! { code { (order.pod.to_string()) } span class="small" { a href={ "/leases?pod=" (order.pod.to_string()) } { "leases of this pod" } } }),
                ("More about it", words::outward(&order.uri)),
                ("Paid by", account_link(order.account)),
                ("Placed by", owner_link(order.payer)),
                ("Slot of the account", html! { (order.slot) }),
                ("Placed", page.when(order.placed_at)),
                ("Bids are taken until", html! { span id="deadline" data-live { (page.when(order.deadline)) } span class="small" { "for " (words::span(order.duration.into())) ", longer when bids come late" } }),
                ("Awarded", html! { @if order.self_award { "by its payer, or by anybody after its time" } @else { "by its payer alone" } }),
                ("Coverage", html! { (page.money(order.coverage)) }),
                ("Locked in advance", html! { (words::span(order.lock.into())) " of the price" }),
                ("Outages", html! {
                    @if order.full == 0 { "are not compensated" }
                    @else { "free up to " (words::span(order.grace.into())) ", the whole coverage from " (words::span(order.full.into())) }
                }),
                ("Challenges", html! {
                    @if order.response == 0 { "cannot be made" } @else { "answered within " (words::span(order.response.into())) }
                }),
                ("Notice by the provider", html! { (words::span(order.notice.into())) }),
                ("To be started within", html! { (words::span(order.start_within.into())) }),
                ("Became", html! { @match order.lease { Some(lease) => { (lease_link(lease)) } None => { "no lease yet" } } }),
                ("Opened again", html! { (order.reopened) " times" }),
                ("Lost by winners", html! { (page.money(order.penalty)) }),
            ]))
        }
        section {
            h2 id="requirements" { "What a bidder has to have" }
            (requirements(&order))
        }
    };
    Ok(page.show(&format!("Order {id}"), "/orders", &body))
}

fn requirements(order: &Auction) -> Markup {
    let rows: Vec<Vec<Markup>> = order
        .requirements
        .iter()
        .map(|one| {
            vec![
                hash(one.attribute),
                html! { @if one.auditor.is_zero() { "its own word" } @else { "the word of " (owner_link(one.auditor)) } },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "Nothing beyond its bond." } }
        @else { (table("requirements", "Each attribute, and who has to vouch for it.", &["Hash of what it is", "On"], &rows)) }
    }
}

/// The bids, which fall to the best: drawn, and told.
fn falling(page: &Page, order: &Auction, bids: &[Bid]) -> Markup {
    let now = page.now();
    let end = if order.state == OrderState::Open && order.deadline >= now {
        order.deadline
    } else {
        order.deadline.max(order.placed_at + 1)
    };
    let span = Span { from: order.placed_at, to: end };
    let points: Vec<(u64, f64)> =
        bids.iter().rev().map(|bid| (bid.time, bid.rate.0 as f64)).collect();
    let best = bids.iter().map(|bid| bid.rate).min();
    let desc = match best {
        None => format!("No bid yet. At most {} is paid.", page.per_hour(order.max_rate)),
        Some(best) if bids.len() == 1 => {
            format!(
                "One bid, of {}; at most {} is paid.",
                page.per_hour(best),
                page.per_hour(order.max_rate)
            )
        }
        Some(best) => format!(
            "{} bids, from {} down to {}; at most {} is paid.",
            order.bids,
            page.per_hour(bids.last().map_or(Rate(0), |first| first.rate)),
            page.per_hour(best),
            page.per_hour(order.max_rate),
        ),
    };
    let rows: Vec<Vec<Markup>> = bids
        .iter()
        .take(PER_PAGE as usize)
        .map(|bid| {
            let below = order.max_rate.0.saturating_sub(bid.rate.0) as f64;
            let below = below / (order.max_rate.0 as f64).max(1.0) * 100.0;
            vec![
                html! { (bid.number) },
                provider_link(bid.bidder),
                html! { (page.price(bid.rate)) },
                html! { (format!("{below:.1} %")) },
                page.when(bid.time),
            ]
        })
        .collect();
    html! {
        figure {
            (chart::steps(&points, span, page.now(), order.max_rate.0 as f64, true, &Words { id: "falling", title: "Bids over time", desc: &desc }))
            p class="axis" { span { (words::day(span.from)) } span { (words::day(span.to)) } }
            p class="key" { "Dashed: at most " (page.per_hour(order.max_rate)) "." }
        }
        p { (desc) }
        @if !rows.is_empty() {
            (table("bids", "The last bids, the best first.", &["Bid", "By", "Price", "Below the most", "When"], &rows))
        }
    }
}
