//! Apps: what their keepers may do, and what of them is deployed.

use axum::extract::Path;
use maud::{Markup, html};
use serde::Deserialize;
use store::{
    app::App, lease as lease_table, lease::Lease, market, replica::Replica, row::Row as _,
};

use super::{
    Asked, Fault, PER_PAGE, Page, Paging, Shown, account_link, chart, cut, facts, lease,
    owner_link, pages, table, words,
};
use crate::{
    Problem,
    api::apps::{Which, find},
    view::{Key as _, not_a},
};

pub(super) async fn list(mut page: Page, Asked(asked): Asked<Paging>) -> Result<Shown, Fault> {
    let mut apps = market::kept_apps(page.conn(), asked.before, PER_PAGE + 1).await?;
    let next = cut(&mut apps, PER_PAGE, |last| last.id);
    let next = next.map(|id| format!("/apps?before={id}"));
    let body = html! {
        h1 id="apps" { "Apps" }
        (table_of(&page, "apps", &apps))
        (pages("/apps", asked.before.is_none(), next.as_deref()))
    };
    Ok(page.show("Apps", "/apps", &body))
}

/// Where an app is shown.
pub(super) fn path(app: &App) -> String {
    format!("/apps/{}", Which::path(app))
}

/// An app's name while it has it, and its number.
fn link(app: &App) -> Markup {
    html! {
        @if app.named { a href=(path(app)) { (words::foreign(&app.name, 63)) } span class="small" { "app " (app.id) } }
        @else { a href=(path(app)) { "App " (app.id) } span class="small" { "was " (words::foreign(&app.name, 63)) } }
    }
}

pub(super) fn table_of(page: &Page, id: &str, apps: &[App]) -> Markup {
    let rows: Vec<Vec<Markup>> = apps
        .iter()
        .map(|app| {
            vec![
                link(app),
                owner_link(app.owner),
                owner_link(app.keeper),
                html! { (app.replicas) },
                html! { (page.per_hour(app.max_rate)) },
                html! { (page.per_hour(app.fee)) },
                html! { (page.when(app.registered_at)) @if app.retired_at.is_some() { span class="small" { "given up" } } },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "None." } }
        @else {
            (table(id, "The newest first.", &["App", "Owner", "Keeper", "Replicas", "Each at most", "Keeper's fee", "Registered"], &rows))
        }
    }
}

/// Where an app's list of replicas goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<u32>,
}

pub(super) async fn one(
    mut page: Page,
    Path(name): Path<String>,
    Asked(asked): Asked<After>,
) -> Result<Shown, Fault> {
    let which = Which::read(&name).ok_or_else(|| Problem::bad(not_a::<Which>(&name)))?;
    let app = find(page.conn(), &which).await?;
    let mut replicas = market::replicas(page.conn(), app.id, asked.after, PER_PAGE + 1).await?;
    let next = cut(&mut replicas, PER_PAGE, |last| last.replica);
    let path = path(&app);
    let next = next.map(|replica| format!("{path}?after={replica}"));
    let keys: Vec<_> = replicas.iter().map(|one| lease_table::Key { id: one.lease }).collect();
    let leases = Lease::load(page.conn(), &keys).await?;
    let deployed = market::deployed(page.conn(), app.id, app.replicas).await?;
    let title = format!("App {}", words::clean(&app.name, 63));
    let body = html! {
        h1 { "App " (words::foreign(&app.name, 63)) }
        @if let Some(at) = app.retired_at { p class="warning" { "It was given up at " (page.when(at)) } }
        @else if !app.named { p class="warning" { "It lost its name, as its account was dry for too long." } }
        p { (deployed) " of " (app.replicas) " replicas have a lease." }
        (chart::share(&[("used", deployed as f64)], f64::from(app.replicas)))
        (facts(&[
            ("Number", html! { (app.id) }),
            ("Owner", owner_link(app.owner)),
            ("Keeper", owner_link(app.keeper)),
            ("Paid by", account_link(app.account)),
            ("Keeper's fee", page.price(app.fee)),
            ("Slots of the account", html! { "from " (app.slot) " on" }),
            ("A replica costs at most", page.price(app.max_rate)),
            ("Locked in advance at most", html! { (words::span(app.max_lock.into())) " of that" }),
            ("Pods that may run", html! { code { (app.pods.to_string()) } span class="small" { "root of their hashes" } }),
            ("What its keeper goes by", html! { (words::outward(&app.uri)) span class="small" { code { (app.spec.to_string()) } } }),
            ("Registered", page.when(app.registered_at)),
        ]))
        section {
            h2 id="replicas" { "Replicas" }
            (replicas_of(&page, &replicas, &leases))
            (pages(&path, asked.after.is_none(), next.as_deref()))
        }
    };
    Ok(page.show(&title, "/apps", &body))
}

fn replicas_of(page: &Page, replicas: &[Replica], leases: &[Lease]) -> Markup {
    let rows: Vec<Vec<Markup>> = replicas
        .iter()
        .map(|replica| {
            let lease = leases.iter().find(|lease| lease.id == replica.lease);
            vec![
                html! { (replica.replica) },
                super::lease_link(replica.lease),
                html! { @if let Some(lease) = lease { (lease::state(lease, page.now())) } },
                html! { @if let Some(lease) = lease { (super::provider_link(lease.provider)) } },
                html! { @if let Some(lease) = lease { (page.per_hour(lease.rate)) } },
                html! { (page.when(replica.time)) span class="small" { "by " (owner_link(replica.deployer)) } },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "None was deployed yet." } }
        @else { (table("replicas", "The last lease of each.", &["Replica", "Lease", "State", "Provider", "Price", "Deployed"], &rows)) }
    }
}
