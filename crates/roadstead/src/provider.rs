//! The provider's verbs.

mod addon;
mod bidder;
mod file;
mod house;
mod leave;
mod node;

use std::path::{Path, PathBuf};

use ::provider::{Keys, facts::Facts};
use alloy::primitives::{Address, U256};
use anyhow::{Context as _, ensure};
use chain::{
    Chain,
    abi::{Erc20, IRegistry::ProviderView, Staking},
};
use clap::Subcommand;
use protocol::{
    amount::{Amount, Rate, Token, Units},
    lease::State,
    resources::PriceList,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) use self::file::{docker_host, read};
use self::house::Switch;
use crate::{
    output,
    progress::{OnStderr, Progress, Step},
    remote::Until,
    session::Session,
    settings::Settings,
    wallet,
};

/// What to do as a provider.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a commented provider.toml to begin with
    #[command(after_help = "Example:\n  roadstead provider init")]
    Init {
        /// The file, which must not be there yet
        #[arg(default_value = "provider.toml")]
        file: PathBuf,
    },
    /// List this provider in the Registry as its file says; `run` does it, too
    #[command(after_help = "Example:\n  roadstead provider register --config provider.toml")]
    Register {
        #[command(flatten)]
        config: Config,
    },
    /// Put tokens at stake: they back the coverage of leases
    #[command(after_help = "Example:\n  roadstead provider bond 100")]
    Bond {
        /// How many whole tokens, as in 12.5
        amount: String,
    },
    /// Rent out this machine: quote, run pods, collect. Pods go on running when it ends
    #[command(after_help = "Example:\n  roadstead provider run --config provider.toml")]
    Run {
        #[command(flatten)]
        config: Config,
    },
    /// Say that you leave a lease once its notice is over; until then it goes on
    #[command(after_help = "Example:\n  roadstead provider notice 7 && roadstead provider status")]
    Notice(leave::Leave),
    /// End a lease: at no cost before it runs and once its notice is over, else for a part of its coverage
    #[command(after_help = "Example:\n  roadstead provider close 7 --reason draining")]
    Close(leave::Leave),
    /// Take the listing back: no quote can be used any more. Leases go on, and publishers still find their pods
    ///
    /// `run` lists the provider anew when it starts, and so does `register`.
    #[command(
        after_help = "Example:\n  roadstead provider delist    # and `roadstead provider register` to come back"
    )]
    Delist {
        /// Do not ask before
        #[arg(long, short)]
        yes: bool,
    },
    /// Make quotes that you signed unusable: by their nonces, or all of them
    #[command(
        after_help = "Examples:\n  roadstead provider cancel-quotes 57248915472198\n  roadstead provider cancel-quotes --all"
    )]
    CancelQuotes(leave::Cancel),
    /// Show the listing, the bond, and the leases with what they owe; on the provider's machine also its mode, what is
    /// used and free, and the last errors
    #[command(after_help = "Example:\n  roadstead provider status --json")]
    Status {
        /// Another provider than this wallet
        #[arg(long, value_name = "ADDRESS")]
        provider: Option<Address>,
        #[command(flatten)]
        config: Config,
    },
    /// Take nothing new; leases that run go on. Holds over restarts, also while the provider does not run
    #[command(after_help = "Example:\n  roadstead provider drain on")]
    Drain {
        /// Whether to
        switch: Switch,
        #[command(flatten)]
        config: Config,
    },
    /// Take nothing new and no updates, and tell the payers of what runs, in the events of their leases. Ends no lease
    #[command(
        after_help = "Example:\n  roadstead provider maintenance on --until 2h --why \"a new disk\""
    )]
    Maintenance {
        /// Whether to
        switch: Switch,
        /// Until about when: 2h, 1d, or 2026-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        until: Option<Until>,
        /// What payers are told
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        #[command(flatten)]
        config: Config,
    },
    /// Have Prometheus and other programs run beside the leases, in the same sandbox
    #[command(subcommand)]
    Addon(addon::Verb),
    /// Show what the add-on `bidder` bid for which orders, and why not for the others
    #[command(after_help = "Example:\n  roadstead provider bids")]
    Bids {
        #[command(flatten)]
        config: Config,
    },
    /// Decide what to bid, and have the provider send it: what the add-on `bidder` runs
    #[command(
        hide = true,
        after_help = "Example:\n  roadstead provider bidder --token-file /run/secrets/token --file bidder.toml"
    )]
    Bidder(bidder::Args),
    /// The machines of this provider's cluster: list them, drain them, fence in what runs there
    #[command(subcommand)]
    Node(node::Verb),
    /// Print the address that signs in at the admin page of this machine's provider. Keep it to yourself
    #[command(after_help = "Example:\n  roadstead provider admin")]
    Admin {
        /// Make a new token first: whoever is signed in is not any more
        #[arg(long)]
        new: bool,
        #[command(flatten)]
        config: Config,
    },
}

/// Which file says how to provide.
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    /// The provider's configuration; `roadstead provider init` writes one
    #[arg(long, value_name = "FILE", default_value = "provider.toml")]
    config: PathBuf,
}

const EXAMPLE: &str = include_str!("provider/provider.toml");

/// Does what was asked.
pub(crate) async fn run(verb: &Verb, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        Verb::Init { file } => init(file, settings),
        Verb::Register { config } => register(&config.config, settings).await,
        Verb::Bond { amount } => bond(amount, settings).await,
        Verb::Run { config } => provide(&config.config, settings).await,
        Verb::Notice(args) => leave::notice(settings, args).await,
        Verb::Close(args) => leave::close(settings, args).await,
        Verb::Delist { yes } => leave::delist(settings, *yes).await,
        Verb::CancelQuotes(args) => leave::cancel_quotes(settings, args).await,
        Verb::Status { provider, config } => status(*provider, &config.config, settings).await,
        Verb::Drain { switch, config } => house::drain(*switch, &config.config, settings),
        Verb::Maintenance { switch, until, why, config } => {
            let config = &config.config;
            house::maintenance(*switch, until.as_ref(), why.as_deref(), config, settings)
        }
        Verb::Addon(verb) => Box::pin(addon::run(verb, settings)).await,
        Verb::Bids { config } => Box::pin(house::bids(&config.config, settings)).await,
        Verb::Bidder(args) => Box::pin(bidder::run(args)).await,
        Verb::Node(verb) => node::run(verb, settings).await,
        Verb::Admin { new, config } => house::admin(*new, &config.config, settings),
    }
}

fn init(file: &Path, settings: &Settings) -> anyhow::Result<()> {
    let written = std::fs::File::create_new(file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, EXAMPLE.as_bytes()));
    let name = file.display();
    written.with_context(|| format!("{name} cannot be written; is it there already?"))?;
    output::show(settings.json, &serde_json::json!({ "file": file }), || {
        format!(
            "wrote {name}: edit it, then `roadstead provider bond 100` and `roadstead provider run`"
        )
    })
}

async fn session(settings: &Settings) -> anyhow::Result<Session> {
    let chain = settings.connect().await?;
    Ok(Session::open(chain, wallet::unlock(settings)?).await?)
}

async fn register(config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let mut config = read(config, &session.token)?;
    ::provider::adopt_prices(&mut config);
    let keys = Keys::open(&config.data)?;
    let done = ::provider::register(&session.sender, &config, &keys).await?;
    let value = serde_json::json!({
        "provider": session.wallet(),
        "listed": done.listed,
        "locker": done.locker,
    });
    output::show(settings.json, &value, || match done.listed {
        true => format!("provider {} is listed at {}", session.wallet(), config.endpoint),
        false => format!("provider {} was listed so already", session.wallet()),
    })
}

async fn bond(amount: &str, settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let amount = Amount::parse(amount, &session.token)?;
    ensure!(amount.0 > 0, "a bond of nothing backs nothing; name an amount such as 100");
    stake(&session, amount, &OnStderr::new()).await?;
    let bond = session.chain().staking().bondOf(session.wallet()).call().await?;
    let value = serde_json::json!({
        "provider": session.wallet(),
        "bonded": bond.bonded.to_string(),
        "locked": bond.locked.to_string(),
    });
    output::show(settings.json, &value, || {
        format!("{} are bonded", session.show(Amount(bond.bonded)))
    })
}

/// Bonds `amount` of the wallet's tokens.
pub(crate) async fn stake(
    session: &Session,
    amount: Amount,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let deployment = session.chain().deployment();
    let (bonder, value) = (session.wallet(), U256::from(amount.0));
    progress.step(&Step::Sending(format!("bonds {}", session.show(amount))));
    let approve = Erc20::approveCall { spender: deployment.staking, amount: value };
    let sent = session.sender.send(deployment.token, &approve).await;
    sent.map_err(|err| session.explain(err)).context("Staking could not be allowed")?;
    let sent =
        session.sender.send(deployment.staking, &Staking::bondCall { bonder, amount: value }).await;
    sent.map_err(|err| session.explain(err)).context("nothing was bonded")?;
    Ok(())
}

async fn provide(config: &Path, settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let config = read(config, &session.token)?;
    let stop = CancellationToken::new();
    let (api, ingress, who) = (config.api, config.ingress, session.wallet());
    let admin = config.admin;
    let ready = || {
        tracing::info!("provider {who} is ready: API on {api}, ingress on {ingress}");
        if let Some(address) = admin {
            tracing::info!("admin page on http://{address}/; `roadstead provider admin` signs in");
        }
    };
    let provider = ::provider::run(config, session.sender.clone(), stop.clone(), ready);
    tokio::pin!(provider);
    tokio::select! {
        ended = &mut provider => return Ok(ended?),
        () = crate::interrupted() => stop.cancel(),
    }
    tracing::info!("stopping; pods go on running");
    Ok(provider.await?)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    provider: Address,
    listed: bool,
    live: bool,
    endpoint: String,
    region: String,
    prices: PriceList,
    bonded: Amount,
    locked: Amount,
    unbonding: Amount,
    /// Of all open leases together.
    rate: Rate,
    /// Of all leases, closed ones too, and not collected yet.
    owed: Units,
    leases: Vec<LeaseRow>,
    /// What it sees of itself, on its own machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<Box<Facts>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseRow {
    lease: u64,
    state: State,
    payer: Address,
    rate: Rate,
    owed: Units,
    coverage: Amount,
    funded_until: u64,
    /// When this provider's notice runs out; nothing where none was given.
    leaves_at: Option<u64>,
}

async fn status(
    provider: Option<Address>,
    config: &Path,
    settings: &Settings,
) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let who = match provider {
        Some(who) => who,
        None => wallet::address(&settings.wallet)?,
    };
    let mut status = read_status(&chain, who).await?;
    let here = house::facts(config).await.filter(|facts| facts.provider == who);
    status.here = here.map(Box::new);
    let now = chain.head().await?.timestamp;
    output::show(settings.json, &status, || describe(&status, &token, now))
}

async fn read_status(chain: &Chain, who: Address) -> anyhow::Result<Status> {
    let view: ProviderView = chain.registry().listingOf(who).call().await?;
    let bond = chain.staking().bondOf(who).call().await?;
    let head = chain.head().await?.number;
    let openings = chain.openings(Some(who), None, chain.deployment().block, head).await?;
    let ids: Vec<u64> = openings.iter().map(|opening| opening.lease).collect();
    let mut leases = Vec::new();
    for (id, lease) in ids.iter().zip(chain.lease_views(&ids, None).await?) {
        leases.push(LeaseRow {
            lease: *id,
            state: State::try_from(lease.lease.state)?,
            payer: lease.payer,
            rate: Rate(lease.rate),
            owed: Units(lease.owed),
            coverage: Amount(lease.coverage),
            funded_until: lease.fundedUntil.to(),
            leaves_at: Some(lease.lease.endsAt.to()).filter(|ends_at| *ends_at != 0),
        });
    }
    let owed = leases.iter().map(|row| row.owed.0).sum();
    leases.retain(|row| matches!(row.state, State::Pending | State::Active));
    let rate = leases.iter().map(|row| row.rate.0).sum();
    Ok(Status {
        provider: who,
        listed: view.listed,
        live: view.live,
        prices: crate::market::price_list(&view),
        endpoint: view.listing.endpoint,
        region: view.listing.region,
        bonded: Amount(bond.bonded),
        locked: Amount(bond.locked),
        unbonding: Amount(bond.unbonding),
        rate: Rate(rate),
        owed: Units(owed),
        leases,
        here: None,
    })
}

fn describe(status: &Status, token: &Token, now: u64) -> String {
    let show = |amount: Amount| format!("{} {}", amount.display(token), token.symbol);
    let listed = match (status.listed, status.live) {
        (false, _) => "not listed; `roadstead provider run` lists it".to_owned(),
        (true, live) => format!(
            "{} in {}, {}",
            output::tame(&status.endpoint),
            output::tame(&status.region),
            if live { "live" } else { "not heard of lately" }
        ),
    };
    let mut lines = vec![
        format!("provider {}", status.provider),
        format!("listing  {listed}"),
        format!("bond     {}, of which {} are locked", show(status.bonded), show(status.locked)),
        format!("earning  {}", output::price(status.rate, token)),
        format!("owed     {}", show(status.owed.collectable())),
    ];
    if let Some(facts) = &status.here {
        lines.extend(house::describe(facts, token));
    }
    if !status.leases.is_empty() {
        let rows = status.leases.iter().map(|row| {
            vec![
                row.lease.to_string(),
                match row.leaves_at {
                    Some(then) => format!("{}, you leave {}", row.state, output::moment(then, now)),
                    None => row.state.to_string(),
                },
                output::short(row.payer),
                row.rate.per_hour(token),
                row.owed.collectable().display(token),
                output::runway(row.funded_until.try_into().unwrap_or_default(), now),
            ]
        });
        lines.push(String::new());
        let header = ["LEASE", "STATE", "PAYER", "RATE", "OWED", "RUNWAY"];
        lines.push(output::table(&header, rows));
    }
    lines.join("\n")
}
