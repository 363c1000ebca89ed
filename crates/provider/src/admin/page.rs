//! The pages: HTML that needs no script, on a phone as on a desk, by day as by night. Where scripts run, parts that are marked
//! `data-live` are brought up to date by themselves; rows have ids, so that each stays the same one.

use maud::{DOCTYPE, Markup, html};
use protocol::{
    amount::{Amount, Rate, Token},
    lease::{CloseReason, State},
    resources::Bytes,
};

use super::{
    chart::{self, LARGE, SMALL},
    prices::{self, Entered, Proposal},
};
use crate::{
    facts::{Challenge, Facts, ModeName, Outcome, PodFacts, phase_name},
    house::{
        mode::{minute, second},
        series::{Series, Use},
    },
    wire::LeaseEvent,
};

/// How many leases are on one page.
const PER_PAGE: usize = 50;

/// How many rows of what is over are shown.
const ROWS: usize = 50;

fn frame(title: &str, nav: Option<(&Facts, &str)>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Roadstead provider" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="data:,";
                script type="module" src="/live.js" {}
            }
            body {
                header {
                    p class="brand" {
                        @if nav.is_some() { a href="/" { "Roadstead provider" } }
                        @else { "Roadstead provider" }
                    }
                    @if let Some((facts, form)) = nav {
                        nav aria-label="Pages" {
                            a href="/" { "Overview" }
                            a href="/prices" { "Prices" }
                            form method="post" action="/logout" {
                                input type="hidden" name="form" value=(form);
                                button class="quiet" { "Sign out" }
                            }
                        }
                        p class="who" {
                            code { (facts.provider.to_string()) }
                            " in " (facts.region) ", "
                            span id="now" data-live { "as of " (second(facts.now)) }
                            span id="stale" role="alert" hidden { " No answer since then: it is away, or you are signed out." }
                        }
                    }
                }
                main { (body) }
            }
        }
    }
}

/// A page that only says something.
pub(super) fn plain(title: &str, words: &str) -> Markup {
    let body = html! {
        h1 { (title) }
        p { (words) }
        p { a href="/" { "Back to the overview" } }
    };
    frame(title, None, &body)
}

/// Everything at a glance.
pub(super) fn overview(
    facts: &Facts,
    form: &str,
    notice: Option<&str>,
    page: usize,
    series: impl Fn(u64) -> Option<Series>,
) -> Markup {
    let token = &facts.token();
    let short: Vec<_> = facts.reserves.iter().filter(|reserve| reserve.is_short()).collect();
    let body = html! {
        h1 { "Overview" }
        @if let Some(notice) = notice { p class="notice" role="status" { (notice) } }
        div id="warnings" data-live {
            @if facts.mode.mode != ModeName::Open {
                p class="warning" { "No quotes: " (facts.mode.words()) "." }
            }
            @for reserve in short {
                p class="warning" {
                    "No quotes: short of " (reserve.what)
                    @if let Some(at) = &reserve.at { " at " (at) }
                    ": " (amount_of(&reserve.what, reserve.free)) " free, "
                    (amount_of(&reserve.what, reserve.least)) " are to stay so. What runs goes on."
                }
            }
        }
        div id="tiles" data-live { (tiles(facts, token)) }
        (section("pods", "Pods", &pods(facts, token, page, series)))
        div class="columns" {
            (section("earnings", "Collected per day", &earnings(facts, token)))
            (section("stake", "Stake", &stake(facts, token)))
            (section("capacity", "Capacity", &capacity(facts)))
            (section("mode", "New leases", &mode(facts, form)))
        }
        (section("prices", "Prices", &price_list(facts, token)))
        (section("closes", "Leases that ended", &closes(facts)))
        (section("challenges", "Challenges", &challenges(facts)))
        div id="more" data-live {
            @if !facts.addons.is_empty() { (section("addons", "Add-ons", &addons(facts))) }
            @if !facts.bids.is_empty() { (section("bids", "Bids", &bids(facts, token))) }
        }
        (section("errors", "Last errors", &errors(facts)))
        (section("machine", "Machine and chain", &machine(facts)))
    };
    frame("Overview", Some((facts, form)), &body)
}

/// A part of the page under a heading, brought up to date by itself.
fn section(id: &str, title: &str, content: &Markup) -> Markup {
    html! {
        section {
            h2 id=(id) { (title) }
            div id={ (id) "-live" } data-live { (content) }
        }
    }
}

fn money(amount: Amount, token: &Token) -> String {
    format!("{} {}", amount.display(token), token.symbol)
}

fn price(rate: Rate, token: &Token) -> String {
    format!("{} ({}) {}", rate.per_hour(token), rate.per_month(token), token.symbol)
}

fn tiles(facts: &Facts, token: &Token) -> Markup {
    let of = |state: State| facts.pods.iter().filter(|pod| pod.state == state).count();
    let today = facts.days.last().map(|day| day.amount).unwrap_or_default();
    let open = facts.challenges.iter().filter(|one| one.outcome == Outcome::Open).count();
    html! {
        dl class="tiles" {
            div { dt { "Leases" } dd { (of(State::Active)) " active" @if of(State::Pending) > 0 { ", " (of(State::Pending)) " starting" } } }
            div { dt { "Earning" } dd { (facts.rate.per_hour(token)) } dd class="small" { (facts.rate.per_month(token)) " " (token.symbol) } }
            div { dt { "Not collected yet" } dd { (money(facts.owed.collectable(), token)) } }
            div { dt { "Collected today" } dd { (money(today, token)) } dd class="small" { (money(facts.collected, token)) " in all" } }
            div { dt { "Free stake" } dd { (money(facts.bond.free, token)) } }
            div { dt { "Challenges open" } dd { (open) } }
        }
    }
}

fn pods(
    facts: &Facts,
    token: &Token,
    page: usize,
    series: impl Fn(u64) -> Option<Series>,
) -> Markup {
    let pages = facts.pods.len().div_ceil(PER_PAGE).max(1);
    let page = page.min(pages - 1);
    let shown = facts.pods.iter().skip(page * PER_PAGE).take(PER_PAGE);
    html! {
        @if facts.pods.is_empty() {
            p { "Nobody has a lease here at the moment." }
        } @else {
            div class="wide" role="region" aria-labelledby="pods" tabindex="0" {
                table class="cards" {
                    thead {
                        tr {
                            th scope="col" { "Lease" }
                            th scope="col" { "State" }
                            th scope="col" { "Payer" }
                            th scope="col" { "Price" }
                            th scope="col" { "Owed" }
                            th scope="col" { "Runway" }
                            th scope="col" { "Processor" }
                            th scope="col" { "Memory" }
                            th scope="col" { "Disk" }
                            th scope="col" { "Sent" }
                        }
                    }
                    tbody {
                        @for pod in shown { (pod_row(facts, token, pod, &series)) }
                    }
                }
            }
            @if pages > 1 {
                nav aria-label="More leases" class="pages" {
                    @for other in 0..pages {
                        @if other == page { span aria-current="page" { (other + 1) } }
                        @else { a href={ "/?page=" (other) "#pods" } { (other + 1) } }
                    }
                }
            }
        }
    }
}

fn pod_row(
    facts: &Facts,
    token: &Token,
    pod: &PodFacts,
    series: impl Fn(u64) -> Option<Series>,
) -> Markup {
    let series = series(pod.lease);
    let points = series.map(|series| series.fine.up_to(facts.now));
    let graph = |of: fn(&Use) -> f64, most: f64, label: &str| {
        points.as_ref().map(|points| {
            chart::line(
                &each(points, of),
                most,
                SMALL,
                &format!("{label} of lease {}, last three hours", pod.lease),
            )
        })
    };
    let limits = pod.limits;
    html! {
        tr id={ "pod-" (pod.lease) } {
            th scope="row" data-label="Lease" { a href={ "/leases/" (pod.lease) } { (pod.lease) } }
            td data-label="State" {
                span class={ "state " (phase_name(pod.phase)) } { (phase_name(pod.phase)) }
                @if let Some(message) = &pod.message { span class="small" { (message) } }
                @for host in &pod.hosts {
                    span class="small" { (host) }
                    @if let Some(words) = trouble(pod, host, facts.now) { span class="small fault" { (words) } }
                }
                @for port in &pod.ports {
                    span class="small" { (port.service) ":" (port.port) " at " (port.address) }
                }
                @for fault in &pod.port_faults { span class="small fault" { (fault) } }
            }
            td data-label="Payer" { code title=(pod.payer.to_string()) { (abbreviated(&pod.payer.to_string())) } }
            td data-label="Price" { (pod.rate.per_hour(token)) }
            td data-label="Owed" { (pod.owed.collectable().display(token)) }
            td data-label="Runway" { (runway(pod, facts.now)) }
            td data-label="Processor" {
                @if let Some(used) = pod.used { (cores(used.cpu)) " of " (limits.cpu) } @else { "–" }
                @if let Some(graph) = graph(|used| f64::from(used.cpu), f64::from(limits.cpu.0), "Processor") { (graph) }
            }
            td data-label="Memory" {
                @if let Some(used) = pod.used { (bytes(used.memory)) " of " (limits.memory) } @else { "–" }
                @if let Some(graph) = graph(|used| f64::from(used.memory), kib(limits.memory), "Memory") { (graph) }
            }
            td data-label="Disk" {
                @if let Some(used) = pod.used { (bytes(used.disk)) " of " (limits.storage) } @else { "–" }
            }
            td data-label="Sent" {
                @if let Some(used) = pod.used { (bytes(used.egress)) } @else { "–" }
                @if let Some(graph) = graph(|used| used.egress as f64, 0.0, "Traffic") { (graph) }
            }
        }
    }
}

/// What is wrong with the certificate of a host, in short.
fn trouble(pod: &PodFacts, host: &str, now: u64) -> Option<&'static str> {
    let certificate = pod.certificates.iter().find(|one| one.host == host)?;
    match (certificate.expires, &certificate.error) {
        (Some(until), _) if until <= now => Some("its certificate has expired"),
        (Some(_), Some(_)) => Some("its certificate was not renewed yet"),
        (None, Some(_)) => Some("it has no certificate"),
        (_, None) => None,
    }
}

/// Who may reach the pod, and how.
fn outside(pod: &PodFacts, now: u64) -> Markup {
    html! {
        @if !pod.ports.is_empty() || !pod.port_faults.is_empty() {
            h2 id="ports" { "Public ports" }
            @if !pod.ports.is_empty() {
                div class="wide" role="region" aria-labelledby="ports" tabindex="0" {
                    table class="cards" {
                        thead { tr { th scope="col" { "Service" } th scope="col" { "Port" } th scope="col" { "Address" } } }
                        tbody {
                            @for port in &pod.ports {
                                tr id={ "port-" (port.service) "-" (port.port) } {
                                    th scope="row" data-label="Service" { (port.service) }
                                    td data-label="Port" { (port.port) }
                                    td data-label="Address" { code { (port.address) } }
                                }
                            }
                        }
                    }
                }
            }
            @for fault in &pod.port_faults { p class="fault" { (fault) } }
        }
        @if !pod.certificates.is_empty() {
            h2 id="certificates" { "Certificates" }
            div class="wide" role="region" aria-labelledby="certificates" tabindex="0" {
                table class="cards" {
                    thead { tr { th scope="col" { "Host" } th scope="col" { "Issuer" } th scope="col" { "Expires" } th scope="col" { "Last error" } } }
                    tbody {
                        @for one in &pod.certificates {
                            tr id={ "certificate-" (one.host) } {
                                th scope="row" data-label="Host" { (one.host) }
                                td data-label="Issuer" {
                                    @match one.issuer.as_deref() {
                                        None => { "–" }
                                        Some("") => { "not named" }
                                        Some(issuer) => { (issuer) }
                                    }
                                }
                                td data-label="Expires" {
                                    @match one.expires {
                                        None => { "–" }
                                        Some(until) if until <= now => { span class="fault" { (minute(until)) ", that is over" } }
                                        Some(until) => { (minute(until)) }
                                    }
                                }
                                td data-label="Last error" {
                                    @if let Some(error) = &one.error { span class="fault" { (error) } } @else { "–" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn each(points: &[Option<Use>], of: fn(&Use) -> f64) -> Vec<Option<f64>> {
    points.iter().map(|point| point.as_ref().map(of)).collect()
}

fn kib(bytes: Bytes) -> f64 {
    (bytes.0 >> 10) as f64
}

fn runway(pod: &PodFacts, now: u64) -> String {
    match pod.funded_until.checked_sub(now) {
        _ if pod.state == State::Pending => "not paid yet".into(),
        None | Some(0) => "dry".into(),
        Some(left) if left > 1_000 * 86_400 => "years".into(),
        Some(left) if left >= 2 * 86_400 => format!("{} d", left / 86_400),
        Some(left) if left >= 2 * 3_600 => format!("{} h", left / 3_600),
        Some(left) => format!("{} min", left / 60),
    }
}

fn cores(milli: u64) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000)
}

/// Rounded to three digits: `1.25 GiB`.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit < UNITS.len() - 1 {
        value /= 1_024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

fn abbreviated(address: &str) -> String {
    let tail = address.get(address.len().saturating_sub(4)..).unwrap_or_default();
    format!("{}…{tail}", address.get(..8).unwrap_or_default())
}

fn earnings(facts: &Facts, token: &Token) -> Markup {
    let values: Vec<(String, f64)> = facts
        .days
        .iter()
        .map(|day| (format!("{}: {}", day.day, money(day.amount, token)), day.amount.0 as f64))
        .collect();
    let sum = facts.days.iter().map(|day| day.amount.0).fold(0, u128::saturating_add);
    let label =
        format!("Collected per day, {} in {} days", money(Amount(sum), token), values.len());
    let (first, last) = (facts.days.first(), facts.days.last());
    html! {
        (chart::bars(&values, LARGE, &label))
        p class="axis" {
            span { @if let Some(day) = first { (day.day) } }
            span { (money(Amount(sum), token)) " in " (values.len()) " days" }
            span { @if let Some(day) = last { (day.day) } }
        }
        p class="small" {
            "From the chain's confirmed blocks. A lease is collected from when it owes "
            (money(facts.meter.above, token)) ", or when it is over; that is looked at every "
            (facts.meter.every) " s, and at the next look there are " (facts.meter.due) " to collect from. "
            @match &facts.meter.last {
                Some(last) => { "Last collection: " (last) "." }
                None => { "Nothing was collected since the provider started." }
            }
        }
    }
}

fn stake(facts: &Facts, token: &Token) -> Markup {
    let bond = &facts.bond;
    let label = format!("{} of {} locked", money(bond.locked, token), money(bond.bonded, token));
    html! {
        (chart::share(&[("used", bond.locked.0 as f64)], bond.bonded.0 as f64, &label))
        dl {
            dt { "Bonded" } dd { (money(bond.bonded, token)) }
            dt { "Locked, as coverage" } dd { (money(bond.locked, token)) }
            dt { "Free" } dd { (money(bond.free, token)) }
            @if bond.unbonding.0 > 0 { dt { "On its way out" } dd { (money(bond.unbonding, token)) } }
        }
        @let covered: Vec<_> = facts.pods.iter().filter(|pod| pod.coverage.0 > 0).collect();
        @if covered.is_empty() {
            p class="small" { "No open lease asked for coverage." }
        } @else {
            p class="small" {
                "Backing: "
                @for (index, pod) in covered.iter().enumerate() {
                    @if index > 0 { ", " }
                    "lease " a href={ "/leases/" (pod.lease) } { (pod.lease) } " " (money(pod.coverage, token))
                }
                ". What leases that ended had stays locked for the claim window."
            }
        }
    }
}

fn capacity(facts: &Facts) -> Markup {
    let (all, used, free) = (facts.capacity, facts.used, facts.free);
    let rows = [
        (
            "Processors",
            used.cpu.to_string(),
            all.cpu.to_string(),
            free.cpu.to_string(),
            [f64::from(used.cpu.0), f64::from(all.cpu.0), f64::from(free.cpu.0)],
        ),
        (
            "Memory",
            used.memory.to_string(),
            all.memory.to_string(),
            free.memory.to_string(),
            [kib(used.memory), kib(all.memory), kib(free.memory)],
        ),
        (
            "Storage",
            used.storage.to_string(),
            all.storage.to_string(),
            free.storage.to_string(),
            [kib(used.storage), kib(all.storage), kib(free.storage)],
        ),
    ];
    html! {
        @for (name, used, all, free, [taken, whole, left]) in rows {
            @let kept = (whole - taken - left).max(0.0);
            p class="axis" { span { (name) } span { (used) " of " (all) ", " (free) " free" } }
            (chart::share(&[("used", taken), ("kept", kept)], whole, &format!("{name}: {used} of {all} used")))
        }
        p class="small" { "Lighter: volumes that are kept of leases that ended." }
    }
}

fn mode(facts: &Facts, form: &str) -> Markup {
    let now = facts.mode.mode;
    let button = |mode: &str, words: &str| {
        html! {
            form method="post" action="/mode" {
                input type="hidden" name="form" value=(form);
                button name="mode" value=(mode) { (words) }
            }
        }
    };
    html! {
        p {
            strong id="mode-now" { (facts.mode_name()) }
            @if facts.mode.since > 0 { " since " (minute(facts.mode.since)) }
            ": " (facts.mode.words()) "."
        }
        div class="buttons" {
            @if now != ModeName::Open { (button("open", "Take new leases")) }
            @if now != ModeName::Draining { (button("draining", "Drain")) }
        }
        @if now != ModeName::Maintenance {
            details {
                summary { "Maintenance" }
                form method="post" action="/mode" class="stack" {
                    input type="hidden" name="form" value=(form);
                    label { "For about how many hours " input name="hours" inputmode="numeric" size="6"; }
                    label { "What payers are told " input name="why" maxlength="200"; }
                    button name="mode" value="maintenance" { "Begin maintenance" }
                }
            }
        }
        p class="small" {
            "Draining: nothing new; leases that run go on and may be updated. "
            "Maintenance: nothing new and no updates, and the payers of what runs are told. "
            "Neither ends a lease, and both hold over restarts."
        }
    }
}

fn price_list(facts: &Facts, token: &Token) -> Markup {
    let shown = prices::typed(&facts.prices, token);
    html! {
        dl {
            @for ((_, title, _), price) in prices::KINDS.iter().zip(&shown) { dt { (title) } dd { (price) } }
        }
        (included(facts))
        p { a href="/prices" { "Change prices" } }
    }
}

/// What of egress is not charged.
fn included(facts: &Facts) -> Markup {
    let egress = &facts.egress;
    html! {
        p class="small" {
            "Of egress, " (egress.included) " in 30 days are included"
            @if egress.most > egress.included { "; what a pod asks for beyond that, up to " (egress.most) ", is charged. " }
            @else { ", and no pod may ask for more: none is charged for it, unless limits.egress_most is raised. " }
            @if facts.capacity.gpus > 0 { "Of " (facts.capacity.gpus) " GPUs, " (facts.free.gpus) " are free." } @else { "There are no GPUs." }
        }
    }
}

fn closes(facts: &Facts) -> Markup {
    html! {
        @if facts.closes.is_empty() {
            p { "None, as far back as records are kept." }
        } @else {
            div class="wide" role="region" aria-labelledby="closes" tabindex="0" {
                table class="cards" {
                    thead { tr { th scope="col" { "Lease" } th scope="col" { "When" } th scope="col" { "Why" } th scope="col" { "Payer" } } }
                    tbody {
                        @for close in facts.closes.iter().take(ROWS) {
                            tr id={ "close-" (close.lease) } {
                                th scope="row" data-label="Lease" { a href={ "/leases/" (close.lease) } { (close.lease) } }
                                td data-label="When" { (minute(close.at)) }
                                td data-label="Why" { (why(close.reason)) }
                                td data-label="Payer" { code title=(close.payer.to_string()) { (abbreviated(&close.payer.to_string())) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn why(reason: Option<CloseReason>) -> String {
    reason.map_or("the chain does not say".into(), |reason| reason.to_string())
}

fn challenges(facts: &Facts) -> Markup {
    let outcome = |one: &Challenge| match one.outcome {
        Outcome::Open if one.deadline < facts.now => "not answered in time",
        Outcome::Open => "to be answered",
        Outcome::Answered => "answered",
        Outcome::Dark => "not answered: the coverage is gone",
        Outcome::Void => "ended without an answer, and none was owed",
    };
    html! {
        @if facts.challenges.is_empty() {
            p { "None of the leases here was challenged." }
        } @else {
            div class="wide" role="region" aria-labelledby="challenges" tabindex="0" {
                table class="cards" {
                    thead { tr { th scope="col" { "Lease" } th scope="col" { "By" } th scope="col" { "Deadline" } th scope="col" { "Outcome" } } }
                    tbody {
                        @for one in facts.challenges.iter().take(ROWS) {
                            tr {
                                th scope="row" data-label="Lease" { (one.lease) }
                                td data-label="By" { code title=(one.challenger.to_string()) { (abbreviated(&one.challenger.to_string())) } }
                                td data-label="Deadline" { (minute(one.deadline)) }
                                td data-label="Outcome" { (outcome(one)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn addons(facts: &Facts) -> Markup {
    html! {
        div class="wide" role="region" aria-labelledby="addons" tabindex="0" {
            table class="cards" {
                thead { tr { th scope="col" { "Add-on" } th scope="col" { "State" } th scope="col" { "May" } th scope="col" { "Of the capacity" } th scope="col" { "Page" } } }
                tbody {
                    @for one in &facts.addons {
                        tr {
                            th scope="row" data-label="Add-on" { (one.name) span class="small" { (one.image) } }
                            td data-label="State" {
                                span class={ "state " (one.phase) } { (one.phase) }
                                @if let Some(message) = &one.message { span class="small" { (message) } }
                            }
                            td data-label="May" { @for grant in &one.grants { code { (grant) } " " } }
                            td data-label="Of the capacity" { (one.reserved) }
                            td data-label="Page" { @if let Some(page) = one.page { code { "http://" (page) "/" } } @else { "–" } }
                        }
                    }
                }
            }
        }
    }
}

fn bids(facts: &Facts, token: &Token) -> Markup {
    html! {
        div class="wide" role="region" aria-labelledby="bids" tabindex="0" {
            table class="cards" {
                thead { tr { th scope="col" { "Order" } th scope="col" { "Standing" } th scope="col" { "At most" } th scope="col" { "List price" } th scope="col" { "Bid" } th scope="col" { "Deadline" } th scope="col" { "Why not" } } }
                tbody {
                    @for bid in facts.bids.iter().take(ROWS) {
                        tr id={ "bid-" (bid.order) } {
                            th scope="row" data-label="Order" { (bid.order) }
                            td data-label="Standing" { (bid.standing) @if let Some(lease) = bid.lease { ", lease " (lease) } }
                            td data-label="At most" { (bid.max_rate.per_hour(token)) }
                            td data-label="List price" { (bid.list_price.per_hour(token)) }
                            td data-label="Bid" { @if let Some(rate) = bid.rate { (rate.per_hour(token)) } @else { "–" } }
                            td data-label="Deadline" { (minute(bid.deadline)) }
                            td data-label="Why not" { @if let Some(why) = &bid.why { (why.reason) span class="small" { (why.words) } } @else { "–" } }
                        }
                    }
                }
            }
        }
    }
}

fn errors(facts: &Facts) -> Markup {
    html! {
        @if facts.errors.is_empty() {
            p { "None since the provider started." }
        } @else {
            div class="wide" role="region" aria-labelledby="errors" tabindex="0" {
                table class="cards" {
                    thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Error" } } }
                    tbody {
                        @for one in &facts.errors {
                            tr {
                                td data-label="When" { (minute(one.at)) @if one.times > 1 { ", " (one.times) " times" } }
                                td data-label="What" { (one.part) }
                                td data-label="Error" { (one.words) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn amount_of(what: &str, count: u64) -> String {
    if what == "files" { count.to_string() } else { bytes(count) }
}

fn machine(facts: &Facts) -> Markup {
    html! {
        dl {
            @for reserve in &facts.reserves {
                dt {
                    @match reserve.what.as_str() {
                        "disk" => { "Disk, " (reserve.at.as_deref().unwrap_or_default()) }
                        "memory" => { "Memory of the machine" }
                        _ => { "Files that may be opened" }
                    }
                }
                dd {
                    (amount_of(&reserve.what, reserve.free)) " free; below "
                    (amount_of(&reserve.what, reserve.least)) " nothing new is quoted"
                }
            }
            dt { "Chain " (facts.chain_id) } dd { "block " (facts.head.number) ", " (facts.head.age) " s old" }
            dt { "API" } dd { (facts.endpoint) }
            dt { "Version" } dd { (facts.version) }
        }
    }
}

/// One lease.
pub(super) fn lease(
    facts: &Facts,
    form: &str,
    id: u64,
    series: &Series,
    events: &[LeaseEvent],
) -> Markup {
    let token = &facts.token();
    let pod = facts.pods.iter().find(|pod| pod.lease == id);
    let close = facts.closes.iter().find(|close| close.lease == id);
    let most = |of: fn(&PodFacts) -> f64| pod.map_or(0.0, of);
    let graph = |name, of, most, shown| Graph { name, of, most, shown };
    let graphs = [
        graph("Processor", |used| used.cpu.into(), most(|pod| pod.limits.cpu.0.into()), of_milli),
        graph("Memory", |used| used.memory.into(), most(|pod| kib(pod.limits.memory)), of_kib),
        graph("Disk", |used| used.disk.into(), most(|pod| kib(pod.limits.storage)), of_kib),
        graph("Sent", |used| used.egress as f64 / 1_024.0, 0.0, of_kib),
    ];
    let spans = [
        ("the last three hours", series.fine.up_to(facts.now)),
        ("the last week", series.coarse.up_to(facts.now)),
    ];
    let body = html! {
        h1 { "Lease " (id) }
        @if let Some(pod) = pod {
            dl id="facts" data-live {
                dt { "State" } dd { (phase_name(pod.phase)) @if let Some(message) = &pod.message { ": " (message) } }
                dt { "Payer" } dd { code { (pod.payer.to_string()) } }
                dt { "Pod" } dd { code { (pod.pod.to_string()) } }
                dt { "Price" } dd { (price(pod.rate, token)) }
                dt { "Not collected yet" } dd { (money(pod.owed.collectable(), token)) }
                dt { "Coverage" } dd { (money(pod.coverage, token)) }
                dt { "Runway" } dd { (runway(pod, facts.now)) }
                dt { "May use" } dd { (pod.limits) }
                @if !pod.hosts.is_empty() { dt { "Hosts" } dd { (pod.hosts.join(", ")) } }
                @for (name, state) in &pod.services { dt { "Service " (name) } dd { (state) } }
            }
            div id="outside" data-live { (outside(pod, facts.now)) }
        } @else if let Some(close) = close {
            dl id="facts" data-live {
                dt { "Ended" } dd { (minute(close.at)) ": " (why(close.reason)) }
                dt { "Payer" } dd { code { (close.payer.to_string()) } }
            }
        }
        h2 { "What it used" }
        @for (index, (span, points)) in spans.iter().enumerate() {
            h3 { "In " (span) }
            div class="columns" id={ "used-" (index) } data-live {
                @for Graph { name, of, most, shown } in &graphs {
                    @let values = each(points, *of);
                    @let top = values.iter().flatten().copied().fold(*most, f64::max);
                    figure {
                        figcaption { (name) span class="small" { "top: " (shown(top)) } }
                        (chart::line(&values, *most, LARGE, &format!("{name} in {span}")))
                    }
                }
            }
        }
        h2 id="events" { "Events" }
        div id="events-live" data-live {
            @if events.is_empty() { p { "None are kept." } }
            @else {
                div class="wide" role="region" aria-labelledby="events" tabindex="0" {
                    table class="cards" {
                        thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "More" } } }
                        tbody {
                            @for event in events.iter().rev().take(200) {
                                @let (name, more) = said(event);
                                tr {
                                    td data-label="When" { (event.time.get(..19).unwrap_or_default().replace('T', " ")) }
                                    td data-label="What" { (name) }
                                    td data-label="More" { (more) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    frame(&format!("Lease {id}"), Some((facts, form)), &body)
}

/// One of the graphs of a lease.
struct Graph {
    name: &'static str,
    of: fn(&Use) -> f64,
    /// What it may use.
    most: f64,
    shown: fn(f64) -> String,
}

fn of_milli(milli: f64) -> String {
    format!("{:.3} processors", milli / 1_000.0)
}

fn of_kib(kib: f64) -> String {
    match kib {
        kib if kib >= 1_048_576.0 => format!("{:.2} GiB", kib / 1_048_576.0),
        kib if kib >= 1_024.0 => format!("{:.1} MiB", kib / 1_024.0),
        kib => format!("{kib:.0} KiB"),
    }
}

/// An event's name, and the rest of it.
fn said(event: &LeaseEvent) -> (String, String) {
    let value = serde_json::to_value(&event.what).unwrap_or_default();
    let text =
        |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let name = value.get("event").map(&text).unwrap_or_default();
    let rest = value.as_object().into_iter().flatten().filter(|(key, _)| *key != "event");
    let rest: Vec<String> = rest.map(|(key, value)| format!("{key}: {}", text(value))).collect();
    (name, rest.join(", "))
}

/// The price list, and what another one would come to.
pub(super) fn prices(facts: &Facts, form: &str, entered: &Entered, proposal: &Proposal) -> Markup {
    let token = &facts.token();
    let faulty = proposal.fields.iter().any(|field| field.fault.is_some());
    let body = html! {
        h1 { "Prices" }
        p {
            "In " (token.symbol) ", per s, m, h, d or mo (30 days), as in 0.01/h. Leases that are open keep the price that "
            "they were opened with. The first three are listed on the chain, and quotes that are out become worthless when one "
            "of them changes; the others are told to whoever asks."
        }
        (included(facts))
        form method="get" action="/prices" class="stack" {
            @for field in &proposal.fields {
                @let fault = format!("{}-fault", field.name);
                label for=(field.name) { (field.title) }
                input id=(field.name) name=(field.name) value=(field.text) required
                    aria-invalid=[field.fault.as_ref().map(|_| "true")]
                    aria-describedby=[field.fault.as_ref().map(|_| fault.as_str())];
                @if let Some(words) = &field.fault { p class="fault" id=(fault) { (words) } }
            }
            button { "See what that comes to" }
        }
        h2 id="typical" { "What pods would cost" }
        div class="wide" role="region" aria-labelledby="typical" tabindex="0" {
            table class="cards" {
                thead { tr { th scope="col" { "Pod" } th scope="col" { "Now" } @if proposal.prices.is_some() { th scope="col" { "Then" } } } }
                tbody {
                    @for example in &proposal.examples {
                        tr {
                            th scope="row" data-label="Pod" { (example.name) span class="small" { (example.resources) } }
                            td data-label="Now" { (example.now) }
                            @if proposal.prices.is_some() { td data-label="Then" { (example.then.as_deref().unwrap_or("–")) } }
                        }
                    }
                }
            }
        }
        @if proposal.prices.is_some() {
            form method="post" action="/prices" {
                input type="hidden" name="form" value=(form);
                @for field in &proposal.fields { input type="hidden" name=(field.name) value=(field.text); }
                button class="main" { @if proposal.listed { "List these prices on chain" } @else { "Ask these prices" } }
            }
            p class="small" {
                @if proposal.listed { "That is a transaction, and costs gas. " }
                "The list holds until the prices in the configuration are changed."
            }
        } @else if !faulty && proposal.entered && entered.cpu.is_some() {
            p role="status" { "These are the prices that hold now." }
        }
    };
    frame("Prices", Some((facts, form)), &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_at_a_glance() {
        for (count, wanted) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.50 KiB"),
            (50 << 20, "50.0 MiB"),
            (700 << 30, "700 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(count), wanted);
        }
        assert_eq!(cores(1_050), "1.050");
        assert_eq!(abbreviated("0x1234567890"), "0x123456…7890");
    }

    #[test]
    fn what_comes_from_elsewhere_is_escaped() {
        let page = plain("Title", "<script>alert(1)</script>").into_string();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
    }
}
