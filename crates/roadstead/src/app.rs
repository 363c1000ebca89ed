//! `roadstead app`: apps on the chain, whose name is theirs alone and which a keeper keeps deployed within limits.

mod pods;

use std::{convert::Infallible, str::FromStr};

use ::provider::wire::Keeps;
use alloy::primitives::{Address, B256, aliases::U24};
use anyhow::{Context as _, ensure};
use chain::{
    Chain, Registered,
    abi::{
        Apps,
        apps::IApps::{App, Limits, Registration},
    },
};
use clap::Subcommand;
use protocol::{
    amount::{Rate, Token},
    lease::{CloseReason, State as LeaseState},
    pod::MaxPrice,
};
use serde::Serialize;

use self::pods::Pods;
use crate::{
    account::AccountName,
    cli,
    deploy::{self, Opened},
    market::{Options, Question},
    money::{self, Load},
    output::{self, short, span, table},
    progress::{OnStderr, Progress, Step},
    publish::{self, amount, consent, interruptible, may_spend, session},
    remote::Span,
    session::{Session, emitted},
    settings::Settings,
    show,
    state::State,
    wallet,
};

/// For how long Apps and Leases may spend for an app before its owner has to allow it anew, in seconds.
const ALLOWANCE: u64 = 365 * 86_400;

/// What to do with apps.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Register an app: its name, the pod that may run, what it may cost, and who keeps it deployed
    ///
    /// The keeper deploys within these limits and can take nothing. The name costs a small rent, as long as it is held.
    #[command(
        after_help = "Example:\n  roadstead app register shop compose.yaml --keeper 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --fee 0.1/d --replicas 2 --max-price 0.05/h --fund 20"
    )]
    Register(Register),
    /// List the apps that this wallet owns or keeps
    #[command(after_help = "Example:\n  roadstead app ls --all")]
    Ls {
        /// Those of everybody
        #[arg(long, short)]
        all: bool,
    },
    /// Show an app: its keeper, its limits, its replicas
    #[command(after_help = "Example:\n  roadstead app show shop --json")]
    Show {
        /// The app's number, or its name on the chain
        app: AppRef,
    },
    /// Deploy a replica at the cheapest provider that comes into question
    #[command(after_help = "Example:\n  roadstead app deploy shop 0 compose.yaml --yes")]
    Deploy(Deploy),
    /// End a replica's lease
    #[command(after_help = "Example:\n  roadstead app close shop 0")]
    Close {
        /// The app's number, or its name on the chain
        app: AppRef,
        /// The replica's number, from 0
        replica: u16,
    },
    /// Say who keeps the app from now on; what runs goes on
    #[command(
        after_help = "Example:\n  roadstead app set-keeper shop 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --fee 0.1/d"
    )]
    SetKeeper {
        /// The app's number, or its name on the chain
        app: AppRef,
        /// The keeper
        keeper: Address,
        /// What the keeper is paid, in whole tokens per s, m, h, d or mo
        #[arg(long, value_name = "RATE")]
        fee: Option<MaxPrice>,
    },
    /// Say what the keeper may do from now on; what runs goes on, and what is not said stays
    #[command(
        after_help = "Example:\n  roadstead app set-limits shop compose.yaml --replicas 3 --max-price 0.06/h"
    )]
    SetLimits(SetLimits),
    /// Give the app and its name up; its leases go on until they are closed
    #[command(after_help = "Example:\n  roadstead app retire shop")]
    Retire {
        /// The app's number, or its name on the chain
        app: AppRef,
    },
}

/// What is registered.
#[derive(Debug, clap::Args)]
pub(crate) struct Register {
    /// A name that no other app has: lower-case letters, digits and inner hyphens
    name: String,
    #[command(flatten)]
    file: cli::PodFile,
    /// Who keeps it deployed [default: this wallet]
    #[arg(long, value_name = "ADDRESS")]
    keeper: Option<Address>,
    /// What the keeper is paid, in whole tokens per s, m, h, d or mo [default: nothing]
    #[arg(long, value_name = "RATE")]
    fee: Option<MaxPrice>,
    /// How many leases at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: u16,
    /// The most that one of them may cost [default: the file's]
    #[arg(long, value_name = "RATE")]
    max_price: Option<MaxPrice>,
    /// For how long the price of one may stay locked
    #[arg(long, value_name = "TIME", default_value = "1h")]
    max_lock: Span,
    /// Where the keeper can get the file
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    uri: String,
    #[command(flatten)]
    account: cli::Account,
    /// Put this many tokens into the account first
    #[arg(long, value_name = "AMOUNT")]
    fund: Option<String>,
    /// Do not ask before money is spent
    #[arg(long, short)]
    yes: bool,
}

/// What is deployed.
#[derive(Debug, clap::Args)]
pub(crate) struct Deploy {
    /// The app's number, or its name on the chain
    app: AppRef,
    /// The replica's number, from 0
    replica: u16,
    #[command(flatten)]
    file: cli::PodFile,
    /// The other pods that the app may run, where it may run several
    #[arg(long, value_name = "HASH")]
    also: Vec<B256>,
    /// This provider alone
    #[arg(long, value_name = "ADDRESS")]
    provider: Option<Address>,
    /// The highest price, where it is less than the app's limit
    #[arg(long, value_name = "RATE")]
    max_price: Option<MaxPrice>,
    /// Do not ask before money is spent
    #[arg(long, short)]
    yes: bool,
}

/// What changes.
#[derive(Debug, clap::Args)]
pub(crate) struct SetLimits {
    /// The app's number, or its name on the chain
    app: AppRef,
    /// The Compose file of the pod that may run from now on [default: what may run now]
    file: Option<std::path::PathBuf>,
    /// A pod that may run beside the file's, by the hash that `roadstead check` tells; give it to whoever deploys, too
    #[arg(long, value_name = "HASH", requires = "file")]
    also: Vec<B256>,
    /// How many leases at once
    #[arg(long, value_name = "N")]
    replicas: Option<u16>,
    /// The most that one of them may cost
    #[arg(long, value_name = "RATE")]
    max_price: Option<MaxPrice>,
    /// For how long the price of one may stay locked
    #[arg(long, value_name = "TIME")]
    max_lock: Option<Span>,
}

/// An app, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppRef {
    /// By its number.
    Number(u64),
    /// By its name.
    Name(String),
}

impl FromStr for AppRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_err| Self::Name(text.to_owned()), Self::Number))
    }
}

/// An app, as the chain has it.
#[derive(Debug)]
struct Known {
    registered: Registered,
    app: App,
}

impl Known {
    async fn read(chain: &Chain, app: &AppRef) -> anyhow::Result<Self> {
        let id = match app {
            AppRef::Number(id) => *id,
            AppRef::Name(name) => chain.apps().named(name.clone()).call().await?,
        };
        let what = match app {
            AppRef::Number(id) => format!("number {id}"),
            AppRef::Name(name) => format!("the name {name:?}"),
        };
        let registered = match id {
            0 => None,
            id => chain.registered(Some(id), None).await?.into_iter().next(),
        };
        let registered = registered
            .with_context(|| format!("no app has {what}; `roadstead app ls --all` lists them"))?;
        let known = Self { app: chain.apps().appOf(id).call().await?, registered };
        ensure!(!known.app.owner.is_zero(), "app {id} was given up by its owner");
        Ok(known)
    }

    fn id(&self) -> u64 {
        self.registered.id
    }

    /// Its name; nothing once that is lost.
    fn name(&self) -> Option<&str> {
        Some(self.registered.app.name.as_str()).filter(|_name| !self.app.name.is_zero())
    }

    fn title(&self) -> String {
        self.name().map_or_else(|| format!("app {}", self.id()), ToOwned::to_owned)
    }

    fn require_owner(&self, session: &Session) -> anyhow::Result<()> {
        let (owner, wallet) = (self.app.owner, session.wallet());
        ensure!(owner == wallet, "{} is owned by {owner}, this wallet is {wallet}", self.title());
        Ok(())
    }
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Register(args) => Box::pin(register(settings, args)).await,
        Verb::Ls { all } => list(settings, *all).await,
        Verb::Show { app } => show_one(settings, app).await,
        Verb::Deploy(args) => Box::pin(deploy_replica(settings, args)).await,
        Verb::Close { app, replica } => close(settings, app, *replica).await,
        Verb::SetKeeper { app, keeper, fee } => {
            set_keeper(settings, app, *keeper, fee.as_ref()).await
        }
        Verb::SetLimits(args) => Box::pin(set_limits(settings, args)).await,
        Verb::Retire { app } => retire(settings, app).await,
    }
}

fn rate_or_zero(session: &Session, what: &str, price: Option<&MaxPrice>) -> anyhow::Result<Rate> {
    let rate = price.map(|price| price.rate(&session.token)).transpose();
    Ok(rate.with_context(|| what.to_owned())?.unwrap_or(Rate(0)))
}

/// Whether Apps takes this as a name.
fn is_label(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edges = name.starts_with('-') || name.ends_with('-');
    (1..=63).contains(&name.len()) && name.bytes().all(plain) && !edges
}

async fn register(settings: &Settings, args: &Register) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    ensure!(
        is_label(&args.name),
        "{:?} is no name for an app: take 1 to 63 lower-case letters, digits and inner hyphens",
        args.name
    );
    let progress = OnStderr::new();
    let (_file, ready) = publish::read(settings, &args.file, &progress).await?;
    let session = session(settings).await?;
    let chain = session.chain();
    ensure!(
        chain.apps().isFree(args.name.clone()).call().await?,
        "the name {:?} is taken by app {}; take another one",
        args.name,
        chain.apps().named(args.name.clone()).call().await?
    );
    let options = Options {
        account: args.account.account.clone(),
        max_rate: publish::rate(&session, args.max_price.as_ref())?,
        fund: amount(&session, args.fund.as_deref())?,
        provider: None,
    };
    let question = Question::new(&session, &ready, &options)?;
    let max_rate = question.max_rate.context(
        "an app needs a limit for its price; say --max-price 0.05/h, or x-roadstead.price.max in the file",
    )?;
    let account = question.account.1;
    let fee = rate_or_zero(&session, "--fee", args.fee.as_ref())?;
    let rent = Rate(chain.apps().RENT().call().await?);
    let keeping = Load {
        rate: Rate(rent.0.saturating_add(fee.0)),
        lock: chain.apps().STREAM_LOCK().call().await?,
        before: (Rate(0), 0),
    };
    let all = max_rate.0.checked_mul(args.replicas.into()).context("--replicas is too large")?;
    let max_lock = args.max_lock.secs32("--max-lock")?;
    let running = Load { rate: Rate(all), lock: max_lock, before: (Rate(0), 0) };
    money::require(&session, &options.account, account, &keeping, options.fund).await?;
    let keeper = args.keeper.unwrap_or(session.wallet());
    let question = format!(
        "Register {}, for a rent of {} and a fee of {}, and let {} deploy {} of it for at most {} each?",
        args.name,
        rent.per_month(&session.token),
        fee.per_month(&session.token),
        short(keeper),
        args.replicas,
        session.show_rate(max_rate)
    );
    consent(args.yes, &question)?;

    deploy::pay_in(&session, options.account.salt(), options.fund, &progress).await?;
    let apps = (chain.deployment().apps, "Apps");
    let leases = (chain.deployment().leases, "Leases");
    money::allow_operator(&session, account, apps, &keeping, ALLOWANCE, &progress).await?;
    money::allow_operator(&session, account, leases, &running, ALLOWANCE, &progress).await?;
    money::allow_agent(&session, account, apps, &progress).await?;
    let slot = deploy::free_slots(&session, account, args.replicas.into()).await?;
    let pod = ready.pod.hash().0;
    let app = Registration {
        account,
        slot: U24::try_from(slot)?,
        name: args.name.clone(),
        spec: pod,
        uri: args.uri.clone(),
        keeper,
        fee: fee.0,
        limits: Limits {
            replicas: args.replicas,
            maxLock: max_lock,
            maxRate: max_rate.0,
            // A tree of one pod is its hash.
            pods: pod,
        },
    };
    let call = Apps::registerCall { r: app };
    let sent = session.send(apps.0, &call, &format!("registers {}", args.name), &progress).await?;
    let made: Apps::Registered = emitted(&sent, apps.0)?;
    State::read(&settings.home, chain.deployment())?.add_account(&options.account)?;
    let value = serde_json::json!({
        "app": made.id,
        "name": args.name,
        "account": account,
        "slot": slot,
        "keeper": keeper,
        "pod": pod,
    });
    output::show(settings.json, &value, || {
        format!(
            "{} is app {}, kept by {keeper}\n`roadstead app deploy {} 0 FILE` deploys its first replica",
            args.name, made.id, args.name
        )
    })
}

/// An app in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    app: u64,
    /// Nothing once it is lost.
    name: Option<String>,
    owner: Address,
    keeper: Address,
    account: B256,
    slot: u32,
    spec: B256,
    uri: String,
    replicas: u16,
    /// Of a replica, in units per second.
    max_rate: Rate,
    max_lock: u32,
    pods: B256,
    leases: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    replica: u16,
    lease: u64,
    state: LeaseState,
    provider: Address,
    rate: Rate,
}

impl Shown {
    async fn of(chain: &Chain, known: &Known) -> anyhow::Result<Self> {
        let app = &known.app;
        let last = chain.replicas(known.id()).await?;
        let ids: Vec<u64> = last.values().copied().collect();
        let views = chain.lease_views(&ids, None).await?;
        let mut leases = Vec::new();
        for ((replica, lease), view) in last.into_iter().zip(views) {
            let state = LeaseState::try_from(view.lease.state)?;
            if matches!(state, LeaseState::Pending | LeaseState::Active) {
                let (provider, rate) = (view.provider, Rate(view.rate));
                leases.push(Replica { replica, lease, state, provider, rate });
            }
        }
        Ok(Self {
            app: known.id(),
            name: known.name().map(ToOwned::to_owned),
            owner: app.owner,
            keeper: app.keeper,
            account: app.account,
            slot: app.slot.to(),
            spec: app.spec,
            uri: output::tame(&known.registered.app.uri),
            replicas: app.limits.replicas,
            max_rate: Rate(app.limits.maxRate),
            max_lock: app.limits.maxLock,
            pods: app.limits.pods,
            leases,
        })
    }
}

async fn list(settings: &Settings, all: bool) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let own = wallet::address(&settings.wallet);
    let own = if all { own.ok() } else { Some(own?) };
    let mut apps = Vec::new();
    for registered in chain.registered(None, None).await? {
        let app = chain.apps().appOf(registered.id).call().await?;
        let ours = own.is_some_and(|own| own == app.owner || own == app.keeper);
        if !app.owner.is_zero() && (all || ours) {
            apps.push(Shown::of(&chain, &Known { registered, app }).await?);
        }
    }
    output::show(settings.json, &apps, || listed(&apps, own, &token))
}

fn listed(apps: &[Shown], own: Option<Address>, token: &Token) -> String {
    if apps.is_empty() {
        return "there is no app; `roadstead app register` makes one".into();
    }
    let who = |address| if own == Some(address) { "this wallet".into() } else { short(address) };
    let rows = apps.iter().map(|app| {
        vec![
            app.app.to_string(),
            app.name.clone().unwrap_or_else(|| "(lost)".into()),
            who(app.owner),
            who(app.keeper),
            format!("{} of {}", app.leases.len(), app.replicas),
            app.max_rate.per_hour(token),
        ]
    });
    table(&["APP", "NAME", "OWNER", "KEEPER", "REPLICAS", "AT MOST"], rows)
}

async fn show_one(settings: &Settings, app: &AppRef) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let shown = Shown::of(&chain, &Known::read(&chain, app).await?).await?;
    output::show(settings.json, &shown, || described(&shown, &token))
}

fn described(app: &Shown, token: &Token) -> String {
    let name = app.name.as_deref().unwrap_or("its name is lost");
    let mut lines = vec![
        format!("app       {}: {name}", app.app),
        format!("owner     {}", app.owner),
        format!("keeper    {}", app.keeper),
        format!(
            "limits    {} replicas for {} each, lock {}",
            app.replicas,
            output::price(app.max_rate, token),
            span(app.max_lock.into())
        ),
        format!("pods      {}", app.pods),
        format!("account   {}, from slot {} on", app.account, app.slot),
    ];
    if !app.uri.is_empty() {
        lines.push(format!("file      {}", app.uri));
    }
    if !app.leases.is_empty() {
        let rows = app.leases.iter().map(|replica| {
            vec![
                replica.replica.to_string(),
                replica.lease.to_string(),
                replica.state.to_string(),
                short(replica.provider),
                replica.rate.per_hour(token),
            ]
        });
        lines.push(String::new());
        lines.push(table(&["REPLICA", "LEASE", "STATE", "PROVIDER", "PRICE"], rows));
    }
    lines.join("\n")
}

async fn deploy_replica(settings: &Settings, args: &Deploy) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    let progress = OnStderr::new();
    let (_file, ready) = publish::read(settings, &args.file, &progress).await?;
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, &args.app).await?;
    let (title, limits) = (known.title(), &known.app.limits);
    ensure!(
        args.replica < limits.replicas,
        "{title} may have {} replicas, numbered from 0; `roadstead app set-limits` allows more",
        limits.replicas
    );
    if let Some(lease) = chain.replicas(known.id()).await?.get(&args.replica) {
        let state = LeaseState::try_from(deploy::lease(&session, *lease).await?.lease.state)?;
        ensure!(
            matches!(state, LeaseState::None | LeaseState::Closed),
            "replica {0} of {title} runs already, under lease {lease}; `roadstead app close {title} {0}` ends it",
            args.replica
        );
    }
    let pod = ready.pod.hash();
    // Of a single one its own hash is all there is to show.
    let others = if pod.0 == limits.pods { &[][..] } else { &args.also };
    let pods = Pods::new(pod.0, others);
    ensure!(
        pods.root() == limits.pods || limits.pods != known.app.spec,
        "{title} may run pod {}, and the file is pod {pod}; `roadstead app set-limits` allows another one",
        limits.pods
    );
    ensure!(
        pods.root() == limits.pods,
        "{title} may run several pods, with the root {}, and the file's pod {pod} and those of --also have another one; \
         name all others with --also, as its owner did in `roadstead app set-limits`",
        limits.pods
    );
    let proof = pods.proof(pod.0);
    let owner = known.app.owner;
    let salts = chain.accounts_of(owner).await?;
    let salt = salts.get(&known.app.account);
    let salt = *salt.with_context(|| format!("the account of {title} was never funded"))?;
    let mut names = State::read(&settings.home, chain.deployment())?;
    let account = AccountName::of_salt(salt, &names.accounts());
    let limit = Rate(limits.maxRate);
    let wished = publish::rate(&session, args.max_price.as_ref())?;
    let options = Options {
        account: account.clone(),
        provider: args.provider,
        max_rate: Some(wished.map_or(limit, |wished| wished.min(limit))),
        fund: None,
    };
    let mut question = Question::new(&session, &ready, &options)?;
    (question.owner, question.account) = (owner, (salt, known.app.account));
    question.keeps =
        (owner != session.wallet()).then(|| Keeps { app: known.id(), proof: proof.clone() });
    let mut offers = question.offers(options.provider, &progress).await?;
    offers.retain(|offer| offer.response.quote.lock <= limits.maxLock);
    let offer = offers.first().with_context(|| {
        let lock = span(limits.maxLock.into());
        format!("all providers want their price locked for longer than {title} allows, {lock}")
    })?;
    let asked = format!(
        "Deploy replica {} of {title} at {} ({}) for {}{}?",
        args.replica,
        short(offer.response.quote.provider),
        output::tame(&offer.view.listing.region),
        output::price(offer.response.rate(), &session.token),
        output::extras(&offer.response.price, &session.token)
    );
    consent(args.yes, &asked)?;

    let load =
        Load { rate: offer.response.rate(), lock: offer.response.quote.lock, before: (Rate(0), 0) };
    let apps = (chain.deployment().apps, "Apps");
    if owner == session.wallet() {
        money::require(&session, &account, known.app.account, &load, None).await?;
        let leases = (chain.deployment().leases, "Leases");
        money::allow_operator(&session, known.app.account, leases, &load, ALLOWANCE, &progress)
            .await?;
        money::allow_agent(&session, known.app.account, apps, &progress).await?;
    }
    let response = deploy::settle(&question, offer, &progress).await?;
    let call = Apps::deployCall {
        id: known.id(),
        replica: args.replica,
        quote: chain::apps_quote(response.quote.clone()),
        signature: response.signature.clone(),
        proof,
    };
    let sent = session.send(apps.0, &call, "opens the lease", &progress).await;
    let sent = sent.context("the replica was not deployed")?;
    let made: Apps::Deployed = emitted(&sent, apps.0)?;
    let block = sent.block_number.unwrap_or_default();
    progress.step(&Step::Opened { lease: made.lease, block });
    let opened = Opened::of(made.lease, offer.client.clone(), &response.quote, &ready);
    let local = format!("{title}-{}", args.replica);
    names.set_app(&local, made.lease)?;
    names.set_key(made.lease, opened.key.as_ref())?;
    let lease = made.lease;
    let words = format!(
        "interrupted; lease {lease} goes on, `roadstead app close {title} {}` ends it",
        args.replica
    );
    let waiting = deploy::wait(&session, &opened, &progress);
    let status = match interruptible(waiting, &words).await {
        Ok(status) => status,
        Err(err) => {
            if err.is::<deploy::NotStarted>() {
                names.forget(lease)?;
            }
            return Err(err);
        }
    };
    show::deployed(settings, &session, &opened, &status, Some(&local)).await
}

async fn close(settings: &Settings, app: &AppRef, replica: u16) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, app).await?;
    let lease = chain.replicas(known.id()).await?.get(&replica).copied();
    let lease = lease
        .with_context(|| format!("replica {replica} of {} was never deployed", known.title()))?;
    let state = LeaseState::try_from(deploy::lease(&session, lease).await?.lease.state)?;
    ensure!(state != LeaseState::Closed, "lease {lease} of replica {replica} is closed already");
    let apps = chain.deployment().apps;
    let reason = CloseReason::PayerDone as u8;
    let call = Apps::closeCall { id: known.id(), lease, reason };
    session.send(apps, &call, &format!("closes lease {lease}"), &OnStderr::new()).await?;
    State::read(&settings.home, chain.deployment())?.forget(lease)?;
    let value = serde_json::json!({ "app": known.id(), "replica": replica, "lease": lease });
    output::show(settings.json, &value, || {
        format!(
            "lease {lease} is closed; replica {replica} of {} can be deployed again",
            known.title()
        )
    })
}

async fn set_keeper(
    settings: &Settings,
    app: &AppRef,
    keeper: Address,
    fee: Option<&MaxPrice>,
) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, app).await?;
    known.require_owner(&session)?;
    let fee = rate_or_zero(&session, "--fee", fee)?;
    let (progress, apps) = (OnStderr::new(), (chain.deployment().apps, "Apps"));
    if fee.0 > 0 {
        let lock = chain.apps().STREAM_LOCK().call().await?;
        let load = Load { rate: fee, lock, before: (Rate(0), 0) };
        money::allow_operator(&session, known.app.account, apps, &load, ALLOWANCE, &progress)
            .await?;
    }
    let call = Apps::setKeeperCall { id: known.id(), keeper, fee: fee.0 };
    session.send(apps.0, &call, "says who keeps the app", &progress).await?;
    let value = serde_json::json!({ "app": known.id(), "keeper": keeper, "fee": fee });
    output::show(settings.json, &value, || {
        format!("{} is kept by {keeper}, for {}", known.title(), session.show_rate(fee))
    })
}

async fn set_limits(settings: &Settings, args: &SetLimits) -> anyhow::Result<()> {
    let progress = OnStderr::new();
    let pod = match &args.file {
        Some(file) => {
            let file = cli::PodFile { file: Some(file.clone()), profiles: Vec::new() };
            Some(publish::read(settings, &file, &progress).await?.1.pod.hash().0)
        }
        None => None,
    };
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, &args.app).await?;
    known.require_owner(&session)?;
    let before = known.app.limits.clone();
    let max_rate = publish::rate(&session, args.max_price.as_ref())?;
    let max_lock = args.max_lock.map(|lock| lock.secs32("--max-lock")).transpose()?;
    let limits = Limits {
        replicas: args.replicas.unwrap_or(before.replicas),
        maxLock: max_lock.unwrap_or(before.maxLock),
        maxRate: max_rate.map_or(before.maxRate, |rate| rate.0),
        pods: pod.map_or(before.pods, |pod| Pods::new(pod, &args.also).root()),
    };
    ensure!(
        limits != before || pod.is_some_and(|pod| pod != known.app.spec),
        "these are the limits of {} already; nothing was sent",
        known.title()
    );
    let apps = chain.deployment().apps;
    if let Some(spec) = pod.filter(|spec| *spec != known.app.spec) {
        let uri = known.registered.app.uri.clone();
        let call = Apps::setSpecCall { id: known.id(), spec, uri };
        session.send(apps, &call, "says what the keeper goes by", &progress).await?;
    }
    // What runs of it is counted already.
    let running = Shown::of(chain, &known).await?.leases;
    let running = running.iter().fold(0_u128, |sum, replica| sum.saturating_add(replica.rate.0));
    let whole = Load {
        rate: Rate(limits.maxRate.saturating_mul(limits.replicas.into())),
        lock: limits.maxLock,
        before: (Rate(running), 0),
    };
    let leases = (chain.deployment().leases, "Leases");
    money::allow_operator(&session, known.app.account, leases, &whole, ALLOWANCE, &progress)
        .await?;
    let call = Apps::setLimitsCall { id: known.id(), limits: limits.clone() };
    session.send(apps, &call, "says what the keeper may do", &progress).await?;
    let value = serde_json::json!({
        "app": known.id(),
        "replicas": limits.replicas,
        "maxRate": Rate(limits.maxRate),
        "maxLock": limits.maxLock,
        "pods": limits.pods,
    });
    output::show(settings.json, &value, || {
        format!(
            "{} may have {} replicas, for {} each with a lock of {}",
            known.title(),
            limits.replicas,
            session.show_rate(Rate(limits.maxRate)),
            span(limits.maxLock.into())
        )
    })
}

async fn retire(settings: &Settings, app: &AppRef) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, app).await?;
    known.require_owner(&session)?;
    let open = Shown::of(chain, &known).await?.leases;
    let call = Apps::retireCall { id: known.id() };
    let what = format!("gives {} up", known.title());
    session.send(chain.deployment().apps, &call, &what, &OnStderr::new()).await?;
    let leases: Vec<u64> = open.iter().map(|replica| replica.lease).collect();
    let value = serde_json::json!({ "app": known.id(), "leases": leases });
    output::show(settings.json, &value, || {
        let mut text =
            format!("{} is given up; nothing is paid for its name any more", known.title());
        for lease in &leases {
            text.push_str(&format!("\nlease {lease} goes on; `roadstead down {lease}` ends it"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "shop", "shop-2", "7", &"x".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "Shop", "-shop", "shop-", "a.b", "ä", "a_b", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn apps_go_by_number_or_name() {
        assert_eq!("7".parse(), Ok(AppRef::Number(7)));
        assert_eq!("shop".parse(), Ok(AppRef::Name("shop".into())));
    }
}
