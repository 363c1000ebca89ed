//! Accounts: what they hold, for how long that lasts, and what it pays for.

use alloy_primitives::B256;
use axum::extract::Path;
use maud::{Markup, html};
use protocol::amount::Units;
use serde::Deserialize;
use store::{
    account::{Account, clock_of},
    event, market,
    stream::{self, Stream},
};

use super::{
    Asked, FEW, Fault, PER_PAGE, Page, Shown, account_link, address, app,
    chart::{self, Span, Words},
    cut, events, facts, hash, lease, order, owner_link, pages, provider_link, table, words,
};
use crate::Problem;

/// Until when an account pays.
pub(super) fn runway(page: &Page, account: &Account) -> Markup {
    let clock = clock_of(account);
    html! {
        @match clock.funded_until() {
            None => { "for ever: nothing runs" }
            Some(end) if clock.is_dry(page.now()) => { strong class="bad" { "dry" } " since " (page.when(end)) }
            Some(end) => { "until " (page.when(end)) }
        }
    }
}

/// The account whose id stands in a path.
pub(super) async fn named(page: &mut Page, id: &str) -> Result<Account, Fault> {
    let id: B256 = id.parse().map_err(|_err| {
        let text = words::clean(id, 80);
        Problem::bad(format!("{text:?} is no account: 0x and 64 hexadecimal digits"))
    })?;
    let account = market::account(page.conn(), id).await?;
    account.ok_or_else(|| Problem::missing(format!("nothing was ever paid into {id}")).into())
}

pub(super) async fn one(mut page: Page, Path(id): Path<String>) -> Result<Shown, Fault> {
    let account = named(&mut page, &id).await?;
    let id = account.id;
    let mut streams = market::open_streams(page.conn(), id, None, PER_PAGE + 1).await?;
    let more_streams = cut(&mut streams, PER_PAGE, |last| last.id).is_some();
    let leases = market::leases_of_account(page.conn(), id, None, FEW).await?;
    let orders = market::orders_of_account(page.conn(), id, None, FEW).await?;
    let apps = market::apps_of_account(page.conn(), id, None, FEW).await?;
    let events = event::of_account(page.conn(), id, None, FEW).await?;
    let text = id.to_string();
    let name = words::short(&text);
    let body = html! {
        h1 { "Account " (name) }
        (facts(&[
            ("Account", html! { code { (text) } }),
            ("Owner", owner_link(account.owner)),
            ("Which of the owner's", html! { @if account.salt.is_zero() { "the first" } @else { "salt " (hash(account.salt)) } }),
        ]))
        p class="buttons" {
            a class="button" href={ "/fund?owner=" (account.owner.to_string()) @if !account.salt.is_zero() { "&salt=" (account.salt.to_string()) } } { "Pay in" }
            a class="button" href={ "/accounts/" (text) "/withdraw" } { "Take out" }
            @if account.salt.is_zero() { a class="button" href={ "/orders/new?owner=" (account.owner.to_string()) } { "Place an order" } }
        }
        section { h2 id="money" { "Money" } div id="money-live" data-live { (money(&page, &account)) } }
        section { h2 id="streams" { "What it pays" } (streams_of(&page, &account, &streams, more_streams)) }
        section {
            h2 id="leases" { "Leases" }
            (lease::table_of(&page, "leases", "The newest first.", &leases))
            p { a href={ "/leases?account=" (text) } { "All of its leases" } }
        }
        section {
            h2 id="orders" { "Orders" }
            @if orders.is_empty() { p { "None." } } @else { (order::table_of(&page, "orders", &orders)) }
            p { a href={ "/orders?account=" (text) } { "All of its orders" } }
        }
        @if !apps.is_empty() { section { h2 id="apps" { "Apps" } (app::table_of(&page, "apps", &apps)) } }
        section { h2 id="events" { "Latest events" } (events::list(&page, "events", &events)) }
    };
    Ok(page.show(&format!("Account {name}"), "", &body))
}

/// What it holds, and how that falls.
fn money(page: &Page, account: &Account) -> Markup {
    let now = page.now();
    let mut clock = clock_of(account);
    clock.settle(now);
    let withdrawable = Units(clock.free.0.saturating_sub(clock.lockup.0));
    let ends = clock.funded_until();
    html! {
        dl class="tiles" {
            div { dt { "Holds" } dd { (page.balance(clock.free)) } }
            div { dt { "Locked" } dd { (page.balance(clock.lockup)) } dd class="small" { "kept back for what runs" } }
            div { dt { "Can be taken out" } dd { (page.balance(withdrawable)) } }
            div { dt { "Pays" } dd { (page.price(account.rate)) } }
            div { dt { "Lasts" } dd { (runway(page, account)) } }
        }
        @if let Some(ends) = ends.filter(|ends| *ends > now) {
            // Not further than a drawing is of use.
            @let span = Span { from: now, to: ends.min(now + 366 * 86_400) };
            @let desc = format!("{} at present, of which {} are locked, falling to nothing at {}.",
                page.balance(clock.free), page.balance(clock.lockup), words::day(ends));
            @if ends <= span.to {
                figure {
                    (chart::falling(clock.free.0 as f64, clock.lockup.0 as f64, ends, span, &Words { id: "runway", title: "What it will hold", desc: &desc }))
                    p class="axis" { span { (words::day(span.from)) } span { (words::day(span.to)) } }
                    p class="key" { "Dashed: what is locked." }
                }
            }
        }
    }
}

fn streams_of(page: &Page, account: &Account, streams: &[Stream], more: bool) -> Markup {
    let deployment = page.market.deployment();
    let rows: Vec<Vec<Markup>> = streams
        .iter()
        .map(|stream| {
            let number = u64::from_be_bytes(std::array::from_fn(|n| stream.id[24 + n]));
            vec![
                html! {
                    @if stream.operator == deployment.leases { (super::lease_link(number)) }
                    @else if stream.operator == deployment.apps { "an app's fee or name" }
                    @else { "a stream of " (owner_link(stream.operator)) }
                },
                html! { @if stream.operator == deployment.leases { (provider_link(stream.payee)) } @else { (owner_link(stream.payee)) } },
                html! { (page.price(stream.rate)) (chart::share(&[("used", stream.rate.0 as f64)], account.rate.0 as f64)) },
                html! { @match stream.state { stream::State::Reserved => { "reserved" } stream::State::Running => { "runs" } stream::State::Closed => { "ended" } } },
                html! { (words::span(stream.lock.into())) },
                html! { (page.money(stream.collected)) },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "Nothing." } }
        @else {
            (table("streams", "Streams that are open; the bar is the part of all that it pays.", &["For", "To", "Price", "State", "Locked in advance", "Collected"], &rows))
            @if more { p { "These are the first " (rows.len()) "; there are more." } }
        }
    }
}

/// Where a list goes on that goes up by accounts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<B256>,
}

pub(super) async fn owner(
    mut page: Page,
    Path(who): Path<String>,
    Asked(asked): Asked<After>,
) -> Result<Shown, Fault> {
    let who = address(&who)?;
    let mut accounts = market::accounts_of(page.conn(), who, asked.after, PER_PAGE + 1).await?;
    let next = cut(&mut accounts, PER_PAGE, |last| last.id);
    let owned = market::apps_of_owner(page.conn(), who, None, FEW).await?;
    let kept = market::apps_of_keeper(page.conn(), who, None, FEW).await?;
    let aspects = page.aspects(0);
    let provider = !market::standings_of(page.conn(), aspects, &[who]).await?.is_empty();
    let path = format!("/owners/{who}");
    let next = next.map(|id| format!("{path}?after={id}"));
    let name = words::short(&who.to_string());
    let rows: Vec<Vec<Markup>> = accounts
        .iter()
        .map(|account| {
            let mut clock = clock_of(account);
            clock.settle(page.now());
            vec![
                account_link(account.id),
                html! { (page.balance(clock.free)) (chart::share(&[("used", clock.lockup.0 as f64)], clock.free.0 as f64)) },
                html! { (page.balance(clock.lockup)) },
                html! { (page.price(account.rate)) },
                runway(&page, account),
            ]
        })
        .collect();
    let body = html! {
        h1 { "Address " (name) }
        (facts(&[
            ("Address", html! { code { (who.to_string()) } }),
            ("Provider", html! { @if provider { (provider_link(who)) } @else { "never listed itself" } }),
        ]))
        p class="buttons" { a class="button" href={ "/fund?owner=" (who.to_string()) } { "Fund an account of it" } }
        section {
            h2 id="accounts" { "Accounts" }
            div id="accounts-live" data-live {
                @if rows.is_empty() { p { "It has none." } }
                @else { (table("accounts", "By their ids; the bar is the part that is locked.", &["Account", "Holds", "Locked", "Pays", "Lasts"], &rows)) }
            }
            (pages(&path, asked.after.is_none(), next.as_deref()))
        }
        section { h2 id="apps" { "Apps that it owns" } (app::table_of(&page, "apps", &owned)) }
        section { h2 id="kept" { "Apps that it keeps" } (app::table_of(&page, "kept", &kept)) }
    };
    Ok(page.show(&format!("Address {name}"), "", &body))
}
