//! The market at a glance.

use maud::{Markup, html};
use protocol::amount::Rate;
use store::market::{self, Counts, Standing};

use super::{
    FEW, Fault, Page, Shown,
    chart::{self, Words},
    lease, order, provider, words,
};

/// How many providers are compared.
const COMPARED: u32 = 50;

/// How far things are counted.
const COUNTED: u32 = 1_000;

pub(super) async fn page(mut page: Page) -> Result<Shown, Fault> {
    let aspects = page.aspects(0);
    let since = page.now().saturating_sub(page.market.ttl());
    let counts = market::counts(page.conn(), since, COUNTED).await?;
    let standings = market::standings_seen(page.conn(), aspects, None, COMPARED).await?;
    let orders = market::orders_in_state(page.conn(), "open", None, FEW).await?;
    let leases = market::leases(page.conn(), None, FEW).await?;
    let few = standings.get(..FEW as usize).unwrap_or(&standings);
    let body = html! {
        h1 { "The market at a glance" }
        p class="lede" {
            "Providers run containers for whoever pays, by the second. All that is shown here is on chain: nobody owns this market."
        }
        div id="tiles" data-live { (tiles(&page, counts)) }
        section {
            h2 id="compared" { "What a typical pod costs" }
            (compared(&page, &standings))
        }
        section {
            h2 id="providers" { "Providers" }
            (provider::standings(&page, "providers", few))
            p { a href="/providers" { "All providers" } }
        }
        section {
            h2 id="orders" { "Open orders" }
            div id="orders-live" data-live {
                @if orders.is_empty() { p { "None takes bids at the moment." } }
                @else { (order::table_of(&page, "orders", &orders)) }
            }
            p { a href="/orders" { "All orders" } }
        }
        section {
            h2 id="leases" { "Newest leases" }
            div id="leases-live" data-live { (lease::table_of(&page, "leases", "The newest first.", &leases)) }
            p { a href="/leases" { "All leases" } }
        }
    };
    Ok(page.show("At a glance", "/", &body))
}

/// A count, which stops somewhere.
fn count(count: u64) -> String {
    if count >= u64::from(COUNTED) { format!("{COUNTED} or more") } else { count.to_string() }
}

fn tiles(page: &Page, counts: Counts) -> Markup {
    html! {
        dl class="tiles" {
            div { dt { "Providers" } dd { (count(counts.heard)) " there" } dd class="small" { "heard of within " (words::span(page.market.ttl())) "; " (count(counts.listed)) " listed" } }
            div { dt { "Leases" } dd { (count(counts.active)) " active" } dd class="small" { (count(counts.pending)) " starting" } }
            div { dt { "Orders" } dd { (count(counts.open_orders)) " open" } }
            div { dt { "Apps" } dd { (count(counts.apps)) } }
            div { dt { "Paid in" } dd { (page.token().symbol) } dd class="small" { "chain " (page.cursor().chain_id) } }
            div { dt { "Block" } dd { (page.cursor().number) } dd class="small" { (words::day(page.now())) " UTC" } }
        }
    }
}

/// The providers' prices of the same pod, from the cheapest.
fn compared(page: &Page, standings: &[Standing]) -> Markup {
    let mut rates: Vec<Rate> =
        standings.iter().filter_map(|one| provider::typical(&one.provider)).collect();
    rates.sort_unstable();
    let (Some(least), Some(most)) = (rates.first(), rates.last()) else {
        return html! { p { "Nobody asks for anything." } };
    };
    let middle = rates[rates.len() / 2];
    // Whoever asks for far more than the others does not make them all look alike.
    let top = (middle.0 as f64 * 3.0).min(most.0 as f64);
    let values: Vec<f64> = rates.iter().map(|rate| rate.0 as f64).collect();
    let desc = format!(
        "{} providers: the cheapest asks for {}, the one in the middle for {}, the dearest for {}.",
        rates.len(),
        page.per_hour(*least),
        page.per_hour(middle),
        page.per_hour(*most),
    );
    html! {
        figure {
            (chart::bars(&values, top, &Words { id: "prices", title: "What a typical pod costs at each provider", desc: &desc }))
            p class="axis" { span { "cheapest: " (page.per_hour(*least)) } span { "dearest: " (page.per_hour(*most)) } }
        }
        p class="small" {
            (provider::TYPICAL) ", without egress, ports and GPUs, of those heard of last. " (desc)
            @if (most.0 as f64) > top { " Lighter bars are higher than shown." }
        }
    }
}
