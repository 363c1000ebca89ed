//! The market for people: pages that need no script to be read, on a phone as on a desk, by day as by night.
//!
//! Each page is read in one transaction and says of which block it is. Times and money are as of that block, not of the
//! server's clock. Whatever strangers wrote (endpoints, regions, names, addresses on the web) is text: bounded, escaped,
//! and a link only where it is plainly one ([`words`]). A page reads a bounded number of rows, whoever asks for it.

mod account;
mod act;
mod app;
mod assets;
mod chart;
mod events;
mod glance;
mod lease;
mod order;
mod plan;
mod provider;
mod search;
mod words;

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use axum::{
    Router,
    extract::{FromRequestParts, Query},
    http::{HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::map_response,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use maud::{DOCTYPE, Markup, html};
use protocol::amount::{Amount, Rate, Token, Units};
use serde::{Deserialize, de::DeserializeOwned};
use store::{PgConnection, cursor::Cursor, market::Aspects};

use crate::{Market, Problem, Reading};

/// How many rows a list has on one page.
const PER_PAGE: u32 = 25;

/// How many rows of a thing's own page are shown of each kind of others.
const FEW: u32 = 10;

/// How far behind the server's clock the last block may be before a page says so, in seconds.
const LATE: u64 = 120;

/// Everything that a browser is answered.
pub(crate) fn router() -> Router<Arc<Market>> {
    Router::new()
        .route("/", get(glance::page))
        .route("/providers", get(provider::list))
        .route("/providers/{address}", get(provider::one))
        .route("/leases", get(lease::list))
        .route("/leases/{id}", get(lease::one))
        .route("/orders", get(order::list))
        .route("/orders/{id}", get(order::one))
        .route("/accounts/{id}", get(account::one))
        .route("/owners/{address}", get(account::owner))
        .route("/apps", get(app::list))
        .route("/apps/{name}", get(app::one))
        .route("/fund", get(act::fund))
        .route("/accounts/{id}/withdraw", get(act::withdraw))
        .route("/orders/new", get(act::place))
        .route("/orders/{id}/{verb}", get(act::order))
        .route("/leases/{id}/close", get(act::close))
        .route("/search", get(search::find))
        .route("/page/head", get(head))
        .route("/page/revert", get(plan::revert))
        .route("/page/{name}", get(assets::one))
        .route("/{*path}", get(missing))
        .layer(map_response(guarded))
}

/// What a browser may do with what it is sent: nothing but show it, with what is the page's own.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                  form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A page is as old as its block; only what has its content's hash in its address never changes.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    response
}

/// A whole page.
type Shown = ([(HeaderName, String); 1], Html<String>);

/// A problem, as a page.
#[derive(Debug)]
struct Fault(Problem);

impl<P: Into<Problem>> From<P> for Fault {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = match status {
            StatusCode::NOT_FOUND => "Not here",
            StatusCode::SERVICE_UNAVAILABLE => "Not now",
            _ => "Not understood",
        };
        let body = html! {
            h1 { (title) }
            p { (words::clean(&self.0.detail, 400)) }
            p { a href="/" { "To the market" } }
        };
        (status, frame(title, "", None, &body)).into_response()
    }
}

async fn missing(uri: Uri) -> Response {
    let path = words::clean(uri.path(), 120);
    // Programs are told in their own way.
    if uri.path().starts_with("/v1/") {
        let detail = format!("nothing is at {path}; /v1/openapi.json says what there is");
        return Problem::missing(detail).into_response();
    }
    Fault(Problem::missing(format!("nothing is at {path}"))).into_response()
}

/// What a page is asked for behind its `?`.
#[derive(Debug)]
struct Asked<T>(T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Fault> {
        let Query(asked) = Query::try_from_uri(&parts.uri).map_err(|err| {
            Problem::bad(format!("what stands behind the ? of the address cannot be read: {err}"))
        })?;
        Ok(Self(asked))
    }
}

/// Where a page of a list that goes down from the newest begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    before: Option<u64>,
}

/// What every page is made with: the mirror as it was after one block.
#[derive(Debug)]
struct Page {
    market: Arc<Market>,
    reading: Reading,
    /// How far the block is behind the server's clock, in seconds.
    behind: u64,
}

impl FromRequestParts<Arc<Market>> for Page {
    type Rejection = Response;

    /// A page that a browser has of this block already is not made again.
    async fn from_request_parts(parts: &mut Parts, market: &Arc<Market>) -> Result<Self, Response> {
        let reading = market.read().await.map_err(|problem| Fault(problem).into_response())?;
        let behind = crate::now().saturating_sub(reading.cursor.time);
        let page = Self { market: Arc::clone(market), reading, behind };
        let known = parts.headers.get(header::IF_NONE_MATCH);
        match known.is_some_and(|known| known.as_bytes() == page.tag().as_bytes()) {
            true => Err(StatusCode::NOT_MODIFIED.into_response()),
            false => Ok(page),
        }
    }
}

impl Page {
    /// Names what is shown: the block, how late it is, and how it is shown.
    fn tag(&self) -> String {
        let late = if self.behind > LATE { self.behind / 60 } else { 0 };
        format!("W/\"{}-{late}-{}\"", self.cursor().hash, assets::STYLE.hash())
    }

    fn conn(&mut self) -> &mut PgConnection {
        self.reading.conn()
    }

    fn cursor(&self) -> &Cursor {
        &self.reading.cursor
    }

    /// What is asked of providers, with so many vouches of each at most.
    fn aspects(&self, vouches: u32) -> Aspects {
        self.market.aspects(self.cursor(), vouches)
    }

    /// The block's time, in Unix seconds.
    fn now(&self) -> u64 {
        self.reading.cursor.time
    }

    fn token(&self) -> &Token {
        self.market.token()
    }

    fn money(&self, amount: Amount) -> String {
        words::money(amount, self.token())
    }

    fn balance(&self, units: Units) -> String {
        words::balance(units, self.token())
    }

    fn price(&self, rate: Rate) -> Markup {
        words::price(rate, self.token())
    }

    fn per_hour(&self, rate: Rate) -> String {
        words::per_hour(rate, self.token())
    }

    fn when(&self, at: u64) -> Markup {
        words::moment(at, self.now())
    }

    /// The whole page; `here` is the part of the site that it belongs to.
    fn show(&self, title: &str, here: &str, body: &Markup) -> Shown {
        ([(header::ETAG, self.tag())], frame(title, here, Some(self), body))
    }
}

/// The number of the last block that the pages know of, for whoever waits for one.
async fn head(page: Page) -> String {
    page.cursor().number.to_string()
}

/// The parts of the site, with their names.
const PARTS: [(&str, &str); 5] = [
    ("/providers", "Providers"),
    ("/orders", "Orders"),
    ("/leases", "Leases"),
    ("/apps", "Apps"),
    ("/fund", "Fund"),
];

fn frame(title: &str, here: &str, page: Option<&Page>, body: &Markup) -> Html<String> {
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Roadstead market" }
                link rel="stylesheet" href=(assets::STYLE.path());
                link rel="icon" type="image/svg+xml" href=(assets::ICON.path());
                script type="module" src=(assets::LIVE.path()) {}
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    p class="brand" { a href="/" { "Roadstead market" } }
                    nav aria-label="Site" {
                        @for (path, name) in PARTS {
                            a href=(path) aria-current=[(path == here).then_some("true")] { (name) }
                        }
                    }
                    form action="/search" method="get" role="search" {
                        label class="unseen" for="q" { "Address, account, lease, order or app" }
                        input id="q" name="q" type="search" maxlength="100" required
                            placeholder="Address, lease 7, order 7, app";
                        button { "Find" }
                    }
                }
                main id="main" tabindex="-1" { (body) }
                footer { @if let Some(page) = page { (foot(page)) } }
            }
        }
    };
    Html(whole.into_string())
}

/// Of which block a page is, and of which contracts.
fn foot(page: &Page) -> Markup {
    let cursor = page.cursor();
    let deployment = page.market.deployment();
    let behind = page.behind;
    html! {
        p id="block" data-live {
            "As of block " (cursor.number) ", " (words::moment(cursor.time, cursor.time + behind)) "."
            @if behind > LATE {
                " " strong { "That is " (words::span(behind)) " behind the server's clock." }
            }
        }
        details {
            summary { "Contracts, to compare with what your wallet shows" }
            dl {
                dt { "Chain" } dd { (deployment.chain_id) }
                @for (name, address) in [
                    ("Token", deployment.token),
                    ("Payments", deployment.payments),
                    ("Staking", deployment.staking),
                    ("Registry", deployment.registry),
                    ("Leases", deployment.leases),
                    ("Sla", deployment.sla),
                    ("Auction", deployment.auction),
                    ("Apps", deployment.apps),
                ] {
                    dt { (name) } dd { code { (address.to_string()) } }
                }
            }
        }
        p class="small" {
            "This page only repeats what is on chain, and could lie about it. What matters, verify: "
            code { "roadstead" } " reads the chain itself."
        }
    }
}

/// A table in a region of its own, which on a phone becomes a card for each row. The first column names its row.
fn table(id: &str, caption: &str, heads: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div class="wide" role="region" aria-labelledby=(id) tabindex="0" {
            table class="cards" {
                caption { (caption) }
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (index, (head, cell)) in heads.iter().zip(row).enumerate() {
                                @if index == 0 { th scope="row" data-label=(head) { div { (cell) } } }
                                @else { td data-label=(head) { div { (cell) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Things with their names.
fn facts(all: &[(&str, Markup)]) -> Markup {
    html! { dl { @for (name, value) in all { dt { (name) } dd { (value) } } } }
}

/// Takes what is beyond a page off, and says where the next one begins.
fn cut<T, K>(rows: &mut Vec<T>, most: u32, key: impl Fn(&T) -> K) -> Option<K> {
    let most = most as usize;
    let more = rows.len() > most;
    rows.truncate(most);
    rows.last().filter(|_| more).map(key)
}

/// Links to where a list goes on, and to where it begins.
fn pages(path: &str, began: bool, next: Option<&str>) -> Markup {
    html! {
        @if !began || next.is_some() {
            nav aria-label="Pages of this list" class="pages" {
                @if !began { a href=(path) { "To the beginning" } }
                @if let Some(next) = next { a rel="next" href=(next) { "Further" } }
            }
        }
    }
}

fn hash(hash: B256) -> Markup {
    let text = hash.to_string();
    html! { code title=(text) { (words::short(&text)) } }
}

fn owner_link(address: Address) -> Markup {
    let text = address.to_string();
    html! { a href={ "/owners/" (text) } { code title=(text) { (words::short(&text)) } } }
}

fn provider_link(address: Address) -> Markup {
    let text = address.to_string();
    html! { a href={ "/providers/" (text) } { code title=(text) { (words::short(&text)) } } }
}

fn account_link(id: B256) -> Markup {
    let text = id.to_string();
    html! { a href={ "/accounts/" (text) } { code title=(text) { (words::short(&text)) } } }
}

fn lease_link(id: u64) -> Markup {
    html! { a href={ "/leases/" (id) } { "Lease " (id) } }
}

fn order_link(id: u64) -> Markup {
    html! { a href={ "/orders/" (id) } { "Order " (id) } }
}

/// Reads an address out of a path.
fn address(text: &str) -> Result<Address, Fault> {
    text.parse().map_err(|_err| {
        let text = words::clean(text, 80);
        Problem::bad(format!("{text:?} is no address: 0x and 40 hexadecimal digits")).into()
    })
}

/// Reads a number out of a path.
fn number(text: &str) -> Result<u64, Fault> {
    text.parse().map_err(|_err| {
        let text = words::clean(text, 80);
        Problem::bad(format!("{text:?} is no number")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_where_the_next_begins() {
        let mut rows = vec![9, 8, 7, 6];
        assert_eq!(cut(&mut rows, 3, |row| *row), Some(7));
        assert_eq!(rows, [9, 8, 7]);
        assert_eq!(cut(&mut rows, 3, |row| *row), None);
    }

    #[test]
    fn what_was_asked_for_is_repeated_as_text() {
        let fault = address("<script>\u{202e}").unwrap_err();
        let page = frame("x", "", None, &html! { (words::clean(&fault.0.detail, 400)) });
        let page = page.0;
        assert!(!page.contains("<script>\\") && page.contains("&lt;script&gt;"), "{page}");
    }
}
