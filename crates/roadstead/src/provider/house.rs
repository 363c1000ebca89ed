//! What a provider sees and says of itself: its own view, its mode, its admin page.

use std::{net::SocketAddr, path::Path, time::Duration};

use ::provider::{
    ADMIN_TOKEN, Token as Secret,
    facts::{Facts, Mode, ModeName},
};
use anyhow::{Context as _, bail, ensure};
use protocol::amount::Token;

use super::file::{Place, place};
use crate::{output, remote::Until, settings::Settings};

/// How long is waited for a provider on this machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    /// From now on
    On,
    /// Not any longer
    Off,
}

/// Has the provider take nothing new, or take new leases again.
pub(crate) fn drain(switch: Switch, config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let mode = match switch {
        Switch::On => ModeName::Draining,
        Switch::Off => ModeName::Open,
    };
    set(&Mode::begin(mode, None, None), config, settings)
}

/// Begins or ends a maintenance.
pub(crate) fn maintenance(
    switch: Switch,
    until: Option<&Until>,
    why: Option<&str>,
    config: &Path,
    settings: &Settings,
) -> anyhow::Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mode = match switch {
        Switch::On => {
            let until = until.map(|until| until.unix(now)).transpose()?;
            ensure!(until.is_none_or(|until| until > now), "--until names a time that is over");
            Mode::begin(ModeName::Maintenance, until, why)
        }
        Switch::Off => {
            ensure!(until.is_none() && why.is_none(), "--until and --why are for `maintenance on`");
            Mode::begin(ModeName::Open, None, None)
        }
    };
    set(&mode, config, settings)
}

fn set(mode: &Mode, config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let Place { data, .. } = place(config)?;
    let name = data.display();
    let wrote = mode.write(&data);
    wrote.with_context(|| {
        format!("{name} cannot be written; is this the provider's machine, and its user?")
    })?;
    output::show(settings.json, mode, || {
        match mode.mode {
        ModeName::Open => "new leases are taken; that holds over restarts".into(),
        ModeName::Draining => {
            "nothing new is taken; leases that run go on and may be updated. `roadstead provider drain off` ends that".into()
        }
        ModeName::Maintenance => {
            "nothing new is taken, and the payers of what runs are told. `roadstead provider maintenance off` ends that".into()
        }
    }
    })
}

/// Prints the address that signs in at the admin page; with `new`, after all others were signed out.
pub(crate) fn admin(new: bool, config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let Place { data, admin, .. } = place(config)?;
    let Some(address) = admin else {
        bail!("listen.admin in {} is \"off\": name an address there", config.display());
    };
    let token = match new {
        true => Secret::renew(&data, ADMIN_TOKEN),
        false => Secret::open(&data, ADMIN_TOKEN),
    };
    let path = data.join(ADMIN_TOKEN);
    let token = token.with_context(|| {
        format!("{} cannot be used; is this the provider's machine, and its user?", path.display())
    })?;
    let url = format!("http://{}/login?token={}", here(address), token.word());
    let value = serde_json::json!({ "url": url });
    output::show(settings.json, &value, || url.clone())
}

/// An address to connect to, for one to listen on.
fn here(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        std::net::IpAddr::V4(_) => (std::net::Ipv4Addr::LOCALHOST, address.port()).into(),
        std::net::IpAddr::V6(_) => (std::net::Ipv6Addr::LOCALHOST, address.port()).into(),
    }
}

/// What the provider of `config` says of itself; nothing if it is not on this machine, or does not run.
pub(crate) async fn facts(config: &Path) -> Option<Facts> {
    let Place { data, admin, .. } = place(config).ok()?;
    let token = Secret::read(&data, ADMIN_TOKEN).ok()?;
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().ok()?;
    let url = format!("http://{}/status.json", here(admin?));
    let answer = client.get(url).bearer_auth(token.word()).send().await.ok()?;
    answer.error_for_status().ok()?.json().await.ok()
}

/// Shows what the bidder did.
pub(crate) async fn bids(config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let facts = facts(config).await.context(
        "the provider does not answer on this machine; `roadstead provider run` starts it, and listen.admin says where it answers",
    )?;
    output::show(settings.json, &facts.bids, || {
        let token = facts.token();
        if facts.bids.is_empty() {
            return "no order was seen yet; `roadstead provider addon enable bidder` has orders looked at".into();
        }
        let rows = facts.bids.iter().map(|bid| {
            let why =
                bid.why.as_ref().map(|why| format!("{}: {}", why.reason, output::tame(&why.words)));
            vec![
                bid.order.to_string(),
                match bid.lease {
                    Some(lease) => format!("{}, lease {lease}", bid.standing),
                    None => bid.standing.to_string(),
                },
                bid.max_rate.per_hour(&token),
                bid.list_price.per_hour(&token),
                bid.rate.map(|rate| rate.per_hour(&token)).unwrap_or_default(),
                output::moment(bid.deadline, facts.now),
                why.unwrap_or_default(),
            ]
        });
        let header = ["ORDER", "STANDING", "AT MOST", "LIST PRICE", "BID", "DEADLINE", "WHY NOT"];
        output::table(&header, rows)
    })
}

/// The lines that a provider's own view adds to what the chain says.
pub(crate) fn describe(facts: &Facts, token: &Token) -> Vec<String> {
    let mode = match facts.mode.mode {
        ModeName::Open => "open".to_owned(),
        ModeName::Draining => "draining: nothing new is taken".to_owned(),
        ModeName::Maintenance => "maintenance: nothing new is taken, payers are told".to_owned(),
    };
    let mut lines = vec![
        format!("mode     {mode}"),
        format!("used     {} of {}", facts.used, facts.capacity),
        format!("free     {}", facts.free),
        format!("collects {} of them owe enough or are over", facts.meter.due),
        format!("in all   {} {} were collected", facts.collected.display(token), token.symbol),
        format!("chain    block {}, {} s old", facts.head.number, facts.head.age),
    ];
    for reserve in facts.reserves.iter().filter(|reserve| reserve.is_short()) {
        lines.push(format!(
            "SHORT    of {}{}: {} are free, {} are to stay free; nothing new is quoted",
            reserve.what,
            reserve.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default(),
            reserve.free,
            reserve.least
        ));
    }
    for one in &facts.addons {
        let why = one.message.as_deref().map(|why| format!(": {}", output::tame(why)));
        lines.push(format!("add-on   {} is {}{}", one.name, one.phase, why.unwrap_or_default()));
    }
    for one in facts.errors.iter().take(3) {
        let ago = output::moment(one.at, facts.now);
        lines.push(format!("error    {ago}: {}: {}", one.part, output::tame(&one.words)));
    }
    lines
}
