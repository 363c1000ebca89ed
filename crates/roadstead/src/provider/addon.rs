//! `roadstead provider addon`: what runs beside the leases for the provider itself.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ::provider::{
    addons::{Addon, Enabled, Grant, Phase, disable, enable},
    facts::Facts,
};
use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use protocol::{pod::Image, resources::Resources};
use serde::Serialize;

use super::{Config, bidder, file::place, house};
use crate::{images, output, podfile, settings::Settings};

/// What to do with add-ons.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List what add-ons there are, which are enabled, and how far each is
    #[command(after_help = "Example:\n  roadstead provider addon list")]
    List {
        #[command(flatten)]
        config: Config,
    },
    /// Enable an add-on, or enable it otherwise; holds over restarts, also while the provider does not run
    ///
    /// It gets a token of its own, and its room out of the capacity.
    #[command(
        after_help = "Examples:\n  roadstead provider addon enable prometheus\n  roadstead provider addon enable prometheus --image registry.example.org/prometheus:v3 --file prometheus.yml\n  roadstead provider addon enable bidder --file bidder.toml"
    )]
    Enable {
        /// Which
        #[arg(value_parser = addon)]
        name: Addon,
        /// What it runs, instead of the image that `list` names
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
        /// Its own configuration, instead of the usual one
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Where its page is shown on this machine: 127.0.0.1:9641
        #[arg(long, value_name = "ADDRESS")]
        page: Option<SocketAddr>,
        #[command(flatten)]
        config: Config,
    },
    /// Disable an add-on: its token is worth nothing from then on, and it is removed with all that it kept
    #[command(after_help = "Example:\n  roadstead provider addon disable prometheus")]
    Disable {
        /// Which
        #[arg(value_parser = addon)]
        name: Addon,
        #[command(flatten)]
        config: Config,
    },
}

fn addon(name: &str) -> Result<Addon, String> {
    Addon::ALL.into_iter().find(|addon| addon.name() == name).ok_or_else(|| {
        let all: Vec<&str> = Addon::ALL.iter().map(|addon| addon.name()).collect();
        format!("there is no add-on {name}; there are: {}", all.join(", "))
    })
}

/// Does what was asked.
pub(crate) async fn run(verb: &Verb, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        Verb::List { config } => list(&config.config, settings).await,
        Verb::Enable { name, image, file, page, config } => {
            let given = Given { image: image.as_deref(), file: file.as_deref(), page: *page };
            start(*name, &given, &config.config, settings).await
        }
        Verb::Disable { name, config } => stop(*name, &config.config, settings),
    }
}

/// How an add-on is wanted otherwise than usual.
struct Given<'a> {
    image: Option<&'a str>,
    file: Option<&'a Path>,
    page: Option<SocketAddr>,
}

async fn start(
    addon: Addon,
    given: &Given<'_>,
    config: &Path,
    settings: &Settings,
) -> anyhow::Result<()> {
    let data = place(config)?.data;
    let name = given.image.unwrap_or(addon.image());
    let text = match given.file {
        None => addon.config().to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?,
    };
    if addon == Addon::Bidder {
        bidder::valid(&text).context("the configuration is wrong")?;
    }
    let wanted = Image {
        name: name.parse().with_context(|| format!("{name:?} is no image"))?,
        built: false,
        encrypted: false,
    };
    let docker = images::docker().await;
    let found = podfile::find(&wanted, docker.as_ref()).await;
    let (image, _note) =
        found.with_context(|| format!("image {name} cannot be had; --image names another"))?;
    let enabled =
        Enabled { name: name.to_owned(), image, config: text, page: given.page.or(addon.page()) };
    enable(&data, addon, &enabled)
        .with_context(|| format!("{addon} was not enabled in {}", data.display()))?;
    let value = serde_json::json!({
        "addon": addon, "image": enabled.image, "page": enabled.page, "grants": addon.grants(),
    });
    output::show(settings.json, &value, || {
        let page = enabled.page.map(|page| format!("\nits page is at http://{page}/"));
        format!(
            "{addon} is enabled, with {name}: the provider starts it, and keeps it over restarts\n\
             `roadstead provider addon list` shows how far it is{}",
            page.unwrap_or_default()
        )
    })
}

fn stop(addon: Addon, config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let data = place(config)?.data;
    let was = disable(&data, addon).with_context(|| {
        format!(
            "{} cannot be written; is this the provider's machine, and its user?",
            data.display()
        )
    })?;
    ensure!(was, "{addon} is not enabled");
    let value = serde_json::json!({ "addon": addon });
    output::show(settings.json, &value, || {
        format!("{addon} is disabled; the provider removes it, and all that it kept")
    })
}

/// An add-on in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: Addon,
    summary: &'static str,
    enabled: bool,
    /// How far it is; nothing where the provider does not run.
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    image: String,
    page: Option<SocketAddr>,
    grants: Vec<Grant>,
    /// Out of the capacity.
    reserved: Option<Resources>,
}

async fn list(config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let data = place(config)?.data;
    let facts = house::facts(config).await;
    let mut rows = Vec::new();
    for addon in Addon::ALL {
        let enabled = match Enabled::read(&data, addon) {
            Ok(enabled) => enabled,
            Err(err) => bail!("{}/addons/{addon}.json cannot be read: {err}", data.display()),
        };
        rows.push(row(addon, enabled, facts.as_ref()));
    }
    output::show(settings.json, &rows, || listed(&rows))
}

fn row(addon: Addon, enabled: Option<Enabled>, facts: Option<&Facts>) -> Row {
    let seen = facts.and_then(|facts| facts.addons.iter().find(|one| one.name == addon));
    let phase = match (facts, seen) {
        (None, _) => None,
        (Some(_), None) if enabled.is_some() => Some(Phase::Starting),
        (Some(_), None) => Some(Phase::Off),
        (Some(_), Some(seen)) => Some(seen.phase),
    };
    Row {
        name: addon,
        summary: addon.summary(),
        phase,
        message: seen.and_then(|seen| seen.message.clone()),
        image: enabled.as_ref().map_or(addon.image(), |enabled| &enabled.name).to_owned(),
        page: match &enabled {
            Some(enabled) => enabled.page,
            None => addon.page(),
        },
        grants: addon.grants().to_vec(),
        reserved: seen.map(|seen| seen.reserved),
        enabled: enabled.is_some(),
    }
}

fn listed(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let state = match (row.enabled, row.phase) {
            (false, None | Some(Phase::Off)) => "off".to_owned(),
            (true, None) => "enabled; the provider does not run".to_owned(),
            (_, Some(phase)) => phase.to_string(),
        };
        let grants: Vec<String> = row.grants.iter().map(ToString::to_string).collect();
        vec![
            row.name.to_string(),
            state,
            output::tame(&row.image),
            row.page.map(|page| format!("http://{page}/")).unwrap_or_default(),
            grants.join(" "),
            row.summary.to_owned(),
        ]
    });
    let mut lines =
        vec![output::table(&["ADD-ON", "STATE", "IMAGE", "PAGE", "MAY", "WHAT IT DOES"], cells)];
    for row in rows {
        if let Some(message) = &row.message {
            lines.push(format!("{}: {}", row.name, output::tame(message)));
        }
    }
    lines.join("\n")
}
