//! Leases: what was agreed, what happened, and what it came to.

use alloy_primitives::{Address, B256, U256};
use axum::extract::Path;
use maud::{Markup, html};
use protocol::lease::State as LeaseState;
use serde::Deserialize;
use store::{
    account::{self, Account},
    bond_lock::{self, BondLock},
    challenge::{self, Challenge},
    event,
    lease::Lease,
    market,
    outage::Outage,
    row::Row as _,
    stream::{self, Stream},
};

use super::{
    Asked, Fault, PER_PAGE, Page, Shown,
    account::runway,
    account_link, act,
    chart::{self, Span, Words},
    cut, events, facts, number, owner_link, pages, provider_link, table, words,
};
use crate::Problem;

/// Which leases are listed, and from where on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    before: Option<u64>,
    state: Option<Which>,
    provider: Option<Address>,
    account: Option<B256>,
    pod: Option<B256>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Which {
    Pending,
    Active,
    Closed,
}

pub(super) async fn list(mut page: Page, Asked(asked): Asked<Listing>) -> Result<Shown, Fault> {
    let (before, most) = (asked.before, PER_PAGE + 1);
    let conn = page.conn();
    let (what, query, mut leases) = match (asked.provider, asked.account, asked.pod, asked.state) {
        (None, None, None, None) => (
            "All, the newest first.".to_owned(),
            String::new(),
            market::leases(conn, before, most).await?,
        ),
        (None, None, None, Some(which)) => {
            let name = match which {
                Which::Pending => "pending",
                Which::Active => "active",
                Which::Closed => "closed",
            };
            let leases = market::leases_in_state(conn, name, before, most).await?;
            (format!("Those that are {name}, the newest first."), format!("state={name}"), leases)
        }
        (Some(who), None, None, None) => {
            let leases = market::leases_of_provider(conn, who, before, most).await?;
            (
                format!("Those with provider {who}, the newest first."),
                format!("provider={who}"),
                leases,
            )
        }
        (None, Some(id), None, None) => {
            let leases = market::leases_of_account(conn, id, before, most).await?;
            (format!("Those of account {id}, the newest first."), format!("account={id}"), leases)
        }
        (None, None, Some(pod), None) => {
            let leases = market::leases_of_pod(conn, pod, before, most).await?;
            (format!("Those of pod {pod}, the newest first."), format!("pod={pod}"), leases)
        }
        _several => {
            return Err(Problem::bad(
                "leases are listed by one of state, provider, account and pod; leave the others out",
            )
            .into());
        }
    };
    let next = cut(&mut leases, PER_PAGE, |last| last.id);
    let next = next
        .map(|id| format!("/leases?{query}{}before={id}", if query.is_empty() { "" } else { "&" }));
    let body = html! {
        h1 id="leases" { "Leases" }
        p class="sorts" {
            "Show "
            @for (index, (state, name)) in [("", "all"), ("active", "active"), ("pending", "starting"), ("closed", "closed")].into_iter().enumerate() {
                @if index > 0 { ", " }
                @let wanted = if state.is_empty() { String::new() } else { format!("state={state}") };
                @if wanted == query { strong { (name) } }
                @else if state.is_empty() { a href="/leases" { (name) } }
                @else { a href={ "/leases?" (wanted) } { (name) } }
            }
        }
        (table_of(&page, "leases", &what, &leases))
        (pages(format!("/leases?{query}").trim_end_matches('?'), before.is_none(), next.as_deref()))
    };
    Ok(page.show("Leases", "/leases", &body))
}

/// Where a lease stands, in a word.
pub(super) fn state(lease: &Lease, now: u64) -> Markup {
    let (class, name) = match lease.state {
        LeaseState::None => ("", "gone"),
        LeaseState::Pending if lease.start_by < now => ("bad", "missed its start"),
        LeaseState::Pending => ("", "starting"),
        LeaseState::Active => ("good", "active"),
        LeaseState::Closed => ("", "closed"),
    };
    html! {
        span class={ "state " (class) } { (name) }
        @if let Some(reason) = lease.close_reason { span class="small" { (reason.to_string()) } }
        @else if let Some(ends) = lease.ends_at { span class="small" { "the provider leaves at " (words::day(ends)) } }
    }
}

pub(super) fn table_of(page: &Page, id: &str, caption: &str, leases: &[Lease]) -> Markup {
    let rows: Vec<Vec<Markup>> = leases
        .iter()
        .map(|lease| {
            vec![
                super::lease_link(lease.id),
                state(lease, page.now()),
                provider_link(lease.provider),
                account_link(lease.account),
                page.price(lease.rate),
                html! { (page.money(lease.coverage)) },
                page.when(lease.opened_at),
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "None." } }
        @else {
            (table(id, caption, &["Lease", "State", "Provider", "Paid by", "Price", "Coverage", "Opened"], &rows))
        }
    }
}

/// The stream that pays a lease: the contract that opened it, and the lease's number.
fn stream_of(leases: Address, id: u64) -> B256 {
    B256::from((U256::from_be_slice(leases.as_slice()) << 96) | U256::from(id))
}

pub(super) async fn one(mut page: Page, Path(id): Path<String>) -> Result<Shown, Fault> {
    let id = number(&id)?;
    let file = market::lease(page.conn(), id).await?;
    let file = file.ok_or_else(|| Problem::missing(format!("there is no lease {id}")))?;
    let lease = &file.lease;
    let key = stream::Key { id: stream_of(page.market.deployment().leases, id) };
    let stream = Stream::load(page.conn(), &[key]).await?.pop();
    let account = market::account(page.conn(), lease.account).await?;
    let lock = bond_lock::Key {
        bonder: lease.provider,
        locker: page.market.deployment().leases,
        ref_: u128::from(id),
    };
    let covered = BondLock::load(page.conn(), &[lock]).await?.pop();
    let events = event::of_lease(page.conn(), id, None, PER_PAGE).await?;
    let is_open = lease.closed_at.is_none();
    let body = html! {
        h1 { "Lease " (id) }
        p id="state" role="status" data-live { (state(lease, page.now())) }
        (timeline(&page, &file.lease, file.challenge.as_ref(), file.outage.as_ref()))
        div class="columns" {
            section {
                h2 { "What was agreed" }
                (facts(&[
                    ("Provider", provider_link(lease.provider)),
                    ("Paid by", account_link(lease.account)),
                    ("Slot of the account", html! { (lease.slot) }),
                    ("Opened by", owner_link(lease.opener)),
                    ("Pod", html! { code { (lease.pod.to_string()) } span class="small" { a href={ "/leases?pod=" (lease.pod.to_string()) } { "all leases of this pod" } } }),
                    ("Price", page.price(lease.rate)),
                    ("Locked in advance", html! { (words::span(lease.lock.into())) " of that" }),
                    ("Coverage", html! { (page.money(lease.coverage)) }),
                    ("Outages", html! {
                        @if lease.full == 0 { "are not compensated" }
                        @else { "free up to " (words::span(lease.grace.into())) ", the whole coverage from " (words::span(lease.full.into())) }
                    }),
                    ("Challenges", html! {
                        @if lease.response == 0 { "cannot be made" }
                        @else { "answered within " (words::span(lease.response.into())) }
                    }),
                    ("Notice by the provider", html! { (words::span(lease.notice.into())) }),
                    ("Start by", page.when(lease.start_by)),
                    ("Under listing version", html! { (lease.version) }),
                ]))
            }
            section {
                h2 { "What it came to" }
                div id="paid" data-live { (paid(&page, lease, stream.as_ref(), account.as_ref(), covered.as_ref())) }
                @if is_open { (act::on_lease(id)) }
                h2 { "Outages and challenges" }
                (judged(&page, file.challenge.as_ref(), file.outage.as_ref()))
            }
        }
        section { h2 id="events" { "Events" } div id="events-live" data-live { (events::list(&page, "events", &events)) } }
    };
    Ok(page.show(&format!("Lease {id}"), "/leases", &body))
}

/// What happened when, drawn and told.
fn timeline(
    page: &Page,
    lease: &Lease,
    challenge: Option<&Challenge>,
    outage: Option<&Outage>,
) -> Markup {
    let end = lease.closed_at.unwrap_or(page.now()).max(lease.opened_at + 1);
    let span = Span { from: lease.opened_at, to: end };
    let started = lease.activated_at.unwrap_or(end);
    let mut parts = vec![("kept", Span { from: lease.opened_at, to: started })];
    if lease.activated_at.is_some() {
        parts.push(("used", Span { from: started, to: end }));
    }
    if let Some(outage) = outage {
        parts.push(("fault", Span { from: outage.began, to: outage.ended }));
    }
    let mut told = vec![(lease.opened_at, "opened".to_owned())];
    told.extend(lease.activated_at.map(|at| (at, "its pod runs".to_owned())));
    told.extend(lease.amended_at.map(|at| (at, "its terms changed".to_owned())));
    if let Some(challenge) = challenge {
        told.push((challenge.since, "last challenged".to_owned()));
    }
    if let Some(outage) = outage {
        told.push((
            outage.began,
            format!("last outage, of {}", words::span(outage.ended.saturating_sub(outage.began))),
        ));
    }
    told.extend(lease.closed_at.map(|at| {
        (at, lease.close_reason.map_or("closed".to_owned(), |reason| format!("closed: {reason}")))
    }));
    told.sort_by_key(|(at, _)| *at);
    let desc: Vec<String> =
        told.iter().map(|(at, what)| format!("{}: {what}", words::day(*at))).collect();
    html! {
        figure {
            (chart::timeline(&parts, span, &Words { id: "timeline", title: "The lease's life", desc: &desc.join("; ") }))
            p class="axis" { span { (words::day(span.from)) } span { (words::span(end - lease.opened_at)) } span { (words::day(span.to)) } }
            p class="key" {
                span class="kept" {} " starting " span class="used" {} " runs "
                @if outage.is_some() { span class="fault" {} " last reported outage" }
            }
        }
        ol class="told" { @for (at, what) in &told { li { (page.when(*at)) " " (what) } } }
    }
}

/// What was paid, and what is yet to be collected.
fn paid(
    page: &Page,
    lease: &Lease,
    stream: Option<&Stream>,
    account: Option<&Account>,
    covered: Option<&BondLock>,
) -> Markup {
    let owed = stream.zip(account).map(|(stream, account)| {
        let mut clock = account::clock_of(account);
        clock.collect(&mut stream::clock_of(stream), page.now()).ok()
    });
    facts(&[
        (
            "Collected",
            html! { @match stream { Some(stream) => { (page.money(stream.collected)) } None => { "–" } } },
        ),
        (
            "Owed, not collected yet",
            html! {
                @match owed.flatten() { Some(owed) => { (page.money(owed)) } None => { "–" } }
            },
        ),
        (
            "Coverage left",
            html! {
                @match covered {
                    Some(covered) => {
                        (page.money(covered.amount))
                        @if let Some(until) = covered.release_at { ", until " (page.when(until)) }
                    }
                    None => { "none" }
                }
            },
        ),
        ("Taken for leaving at once", html! { (page.money(lease.penalty)) }),
        (
            "Ended by",
            html! { @match lease.closer { Some(closer) => { (owner_link(closer)) } None => { "–" } } },
        ),
        (
            "The account lasts",
            html! {
                @match account.filter(|_| lease.closed_at.is_none()) {
                    Some(account) => { (runway(page, account)) }
                    None => { "–" }
                }
            },
        ),
    ])
}

/// What watchers and the payer found.
fn judged(page: &Page, challenge: Option<&Challenge>, outage: Option<&Outage>) -> Markup {
    html! {
        @match outage {
            Some(outage) => {
                (facts(&[
                    ("Last outage", html! { (page.when(outage.began)) ", for " (words::span(outage.ended.saturating_sub(outage.began))) }),
                    ("Due for it", html! { (page.money(outage.due)) }),
                    ("Due for all", html! { (page.money(outage.total)) ", by " (outage.reports) " reports" }),
                ]))
            }
            None => { p { "Watchers reported no outage." } }
        }
        @match challenge {
            Some(challenge) => {
                @let outcome = match challenge.state {
                    challenge::State::Open if challenge.deadline < page.now() => "was not answered in time, and is to be resolved",
                    challenge::State::Open => "is to be answered",
                    challenge::State::Answered => "was answered",
                    challenge::State::Dark => "was not answered: the provider went dark",
                    challenge::State::Moot => "did not have to be answered, as the lease ended",
                };
                (facts(&[
                    ("Last challenge", html! { (page.when(challenge.since)) " by " (owner_link(challenge.challenger)) " " (outcome) }),
                    ("Answer by", page.when(challenge.deadline)),
                    ("Challenges", html! { (challenge.answers) " of " (challenge.challenges) " answered" }),
                    ("Compensation", html! { (page.money(challenge.compensation)) }),
                ]))
            }
            None => { p { "Nobody challenged the provider over it." } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_after_who_opened_it() {
        let leases = Address::repeat_byte(0xaa);
        let id = stream_of(leases, 258);
        assert_eq!(id[..20], leases[..]);
        assert_eq!(id[20..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
