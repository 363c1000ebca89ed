//! `roadstead order`: what a publisher asks the market for, and for which providers underbid one another.

use std::fmt;

use alloy::primitives::{Address, B256, aliases::U24};
use anyhow::{Context as _, bail, ensure};
use chain::{
    Chain, Placement,
    abi::{
        Auction,
        IAuction::{Order, OrderView, Requirement},
    },
};
use clap::Subcommand;
use protocol::{
    amount::{Amount, Rate, Token},
    criteria::attribute,
    pod::{Criteria, MaxPrice},
    resources::Bytes,
};
use serde::Serialize;

use crate::{
    cli,
    deploy::{self, Opened},
    market::{Options, Question, Terms},
    money::{self, Load},
    output::{self, moment, short, span, table, tame},
    podfile::Ready,
    progress::{OnStderr, Progress as _, Step},
    publish::{self, amount, consent, interruptible, may_spend, session},
    remote::Span,
    session::{Session, emitted},
    settings::Settings,
    show,
    state::State as Names,
    wallet,
};

/// For how long bids are taken where nothing is said.
const DURATION: &str = "10m";

/// The terms of an order for which the file has no wish, in seconds.
const GRACE: u32 = 60;
const FULL: u32 = 3_600;
const RESPONSE: u32 = 300;

/// What Auction takes at most, and at least: seconds, things, bytes.
const MAX_DURATION: u64 = 30 * 86_400;
const MIN_START_WITHIN: u64 = 30;
const MAX_REQUIREMENTS: usize = 8;
const MAX_URI: usize = 256;

/// What to do with orders.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say what is to run and what it may cost, and have providers underbid one another
    ///
    /// The order goes into the chain with the pod's hash alone. A bidder gets the pod from the address in --uri; whoever
    /// wins gets it, with its images and secrets, from `roadstead order award ID FILE`. A deposit is locked until the
    /// order is over, and `roadstead claim` brings it back.
    #[command(
        after_help = "Examples:\n  roadstead order place compose.yaml --max-price 0.02/h --duration 30m\n  roadstead order place compose.yaml --require gdpr@0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --self-award --yes"
    )]
    Place(Place),
    /// List the orders that are open, of everybody
    #[command(after_help = "Examples:\n  roadstead order ls\n  roadstead order ls --mine --all")]
    Ls {
        /// Those that are over, too
        #[arg(long, short)]
        all: bool,
        /// This wallet's alone
        #[arg(long)]
        mine: bool,
    },
    /// Show all of an order: what is asked for, who leads, what may be bid next
    #[command(after_help = "Example:\n  roadstead order show 7 --json")]
    Show {
        /// The order's number
        id: u64,
    },
    /// Make a lease of an order, at the leader's rate
    ///
    /// With the pod's file, the leader first gets the pod, its images and its secrets, and this waits until it runs.
    #[command(
        after_help = "Examples:\n  roadstead order award 7 compose.yaml\n  roadstead order award 7 --app shop"
    )]
    Award {
        /// The order's number
        id: u64,
        /// The Compose file that the order is for
        file: Option<std::path::PathBuf>,
        /// Run the services of this profile, too
        #[arg(long = "profile", value_name = "NAME")]
        profiles: Vec<String>,
        /// Under which name the app is known here
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
    },
    /// End an order whose lease was started, or open it anew where the winner did not start; anybody may
    #[command(after_help = "Example:\n  roadstead order settle 7")]
    Settle {
        /// The order's number
        id: u64,
    },
    /// End an open order; whoever leads is free
    #[command(after_help = "Example:\n  roadstead order cancel 7")]
    Cancel {
        /// The order's number
        id: u64,
    },
    /// End an order that nobody awarded, some time after its end; anybody may
    #[command(after_help = "Example:\n  roadstead order expire 7")]
    Expire {
        /// The order's number
        id: u64,
    },
}

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[command(flatten)]
    file: cli::PodFile,
    /// The most it may cost, in whole tokens per s, m, h, d or mo: 0.02/h [default: the file's]
    #[arg(long, value_name = "RATE")]
    max_price: Option<MaxPrice>,
    /// For how long bids are taken: 10m, 2h, 1d
    #[arg(long, value_name = "TIME", default_value = DURATION)]
    duration: Span,
    /// Let anybody award it to the leader once its time is over
    #[arg(long)]
    self_award: bool,
    /// Something that a bidder has to have; with an auditor who has to vouch for it
    #[arg(long = "require", value_name = "NAME[@AUDITOR]")]
    requirements: Vec<Required>,
    /// Where bidders can get the pod's file
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    uri: String,
    /// For how long the price stays locked
    #[arg(long, value_name = "TIME", default_value = "1h")]
    lock: Span,
    /// In which time the winner has to start the pod
    #[arg(long, value_name = "TIME", default_value = "10m")]
    start_within: Span,
    /// How long before it leaves the winner has to say so
    #[arg(long, value_name = "TIME", default_value = "1d")]
    notice: Span,
    #[command(flatten)]
    account: cli::Account,
    /// Put this many tokens into the account first
    #[arg(long, value_name = "AMOUNT")]
    fund: Option<String>,
    /// Do not ask before money is spent
    #[arg(long, short)]
    yes: bool,
}

/// An attribute, and who has to vouch for it: `gdpr@0x…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Required(Requirement);

impl std::str::FromStr for Required {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, auditor) = match text.rsplit_once('@') {
            Some((name, auditor)) => {
                let auditor = auditor.parse();
                (name, auditor.map_err(|_err| format!("{text:?}: after the @ goes an address"))?)
            }
            None => (text, Address::ZERO),
        };
        if name.is_empty() {
            return Err(format!("{text:?} names no attribute"));
        }
        Ok(Self(Requirement { auditor, attribute: attribute(name) }))
    }
}

/// Where an order stands; the numbers are those of `IAuction.State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// There is no such order.
    None,
    /// Bids are taken, or it waits to be awarded.
    Open,
    /// It became a lease, of which nobody has said yet that it was started.
    Awarded,
    /// It is over.
    Over,
}

impl TryFrom<u8> for State {
    type Error = anyhow::Error;

    fn try_from(number: u8) -> anyhow::Result<Self> {
        let all = [Self::None, Self::Open, Self::Awarded, Self::Over];
        let known = all.get(usize::from(number)).copied();
        known.with_context(|| format!("{number} is no state of an order that this program knows"))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "not there",
            Self::Open => "open",
            Self::Awarded => "awarded",
            Self::Over => "over",
        })
    }
}

/// An order, as far as the chain knows it.
#[derive(Debug)]
pub(crate) struct Known {
    /// What was asked for.
    pub(crate) placed: Placement,
    /// How it stands.
    pub(crate) view: OrderView,
    /// Where it stands.
    pub(crate) state: State,
    /// The most that the next bid may be.
    pub(crate) next: Rate,
}

impl Known {
    /// Reads an order.
    pub(crate) async fn read(chain: &Chain, id: u64) -> anyhow::Result<Self> {
        let placed = chain.placements(Some(id), None).await?.into_iter().next();
        let placed = placed.with_context(|| {
            format!("there is no order {id} on this chain; `roadstead order ls` lists them")
        })?;
        Self::of(chain, placed).await
    }

    async fn of(chain: &Chain, placed: Placement) -> anyhow::Result<Self> {
        let view = chain.auction().orderOf(placed.id).call().await?;
        let next = Rate(chain.auction().nextRate(placed.id).call().await?);
        Ok(Self { state: view.state.try_into()?, placed, view, next })
    }

    /// Who leads or won; nobody where it is zero.
    pub(crate) fn leader(&self) -> Option<Address> {
        Some(self.view.leader).filter(|leader| !leader.is_zero())
    }
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Place(args) => Box::pin(place(settings, args)).await,
        Verb::Ls { all, mine } => list(settings, *all, *mine).await,
        Verb::Show { id } => show_one(settings, *id).await,
        Verb::Award { id, file, profiles, app } => {
            let file = file
                .as_ref()
                .map(|file| cli::PodFile { file: Some(file.clone()), profiles: profiles.clone() });
            Box::pin(award(settings, *id, file.as_ref(), app.as_deref())).await
        }
        Verb::Settle { id } => settle(settings, *id).await,
        Verb::Cancel { id } => {
            let call = Auction::cancelCall { id: *id };
            end(settings, *id, &call, "cancels order").await
        }
        Verb::Expire { id } => {
            let call = Auction::expireCall { id: *id };
            end(settings, *id, &call, "ends order").await
        }
    }
}

async fn place(settings: &Settings, args: &Place) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    let progress = OnStderr::new();
    let (_file, ready) = publish::read(settings, &args.file, &progress).await?;
    if ready.wishes.providers != Criteria::default() {
        progress.step(&Step::Note(
            "x-roadstead.providers is no part of an order, so anybody may bid; --require says for what a bidder has to be vouched"
                .into(),
        ));
    }
    let demand = ready.pod.demand(Bytes(0));
    if demand.egress.0 > 0 || demand.public_ports > 0 {
        progress.step(&Step::Note(
            "an order says nothing of egress and public ports, so a winner that charges extra for these does not run the pod"
                .into(),
        ));
    }
    let session = session(settings).await?;
    let options = Options {
        account: args.account.account.clone(),
        max_rate: publish::rate(&session, args.max_price.as_ref())?,
        fund: amount(&session, args.fund.as_deref())?,
        provider: None,
    };
    let mut order = asked(&session, args, &ready, &options)?;
    let chain = session.chain();
    let (auction, account) = (chain.deployment().auction, order.account);
    let load = Load { rate: Rate(order.maxRate), lock: order.lock, before: (Rate(0), 0) };
    money::require(&session, &options.account, account, &load, options.fund).await?;
    let deposit = Amount(chain.auction().DEPOSIT().call().await?);
    let question = format!(
        "Place an order for at most {}, with bids for {} and a deposit of {} until it is over?",
        output::price(load.rate, &session.token),
        args.duration,
        session.show(deposit)
    );
    consent(args.yes, &question)?;

    deploy::pay_in(&session, options.account.salt(), options.fund, &progress).await?;
    money::allow_agent(&session, account, (auction, "Auction"), &progress).await?;
    money::allow(&session, account, &load, &progress).await?;
    money::allow_tokens(&session, auction, "Auction", deposit, &progress).await?;
    order.slot = deploy::free_slots(&session, account, 1).await?;
    let call = Auction::placeCall { order };
    let sent = session.send(auction, &call, "places the order", &progress).await?;
    let placed: Auction::Placed = emitted(&sent, auction)?;
    Names::read(&settings.home, chain.deployment())?.add_account(&options.account)?;
    let value = serde_json::json!({
        "order": placed.id,
        "account": placed.account,
        "slot": placed.order.slot,
        "pod": placed.order.pod,
        "maxRate": placed.order.maxRate.to_string(),
        "deposit": deposit.0.to_string(),
        "deadline": placed.deadline.to::<u64>(),
    });
    output::show(settings.json, &value, || {
        let id = placed.id;
        let bidders = match placed.order.uri.as_str() {
            "" => "bidders know its size and its hash alone, as no --uri says where it can be had"
                .into(),
            uri => format!("bidders get its file from {}", tame(uri)),
        };
        format!(
            "order {id} is open, and bids are taken for {}\n{bidders}\n\
             `roadstead order show {id}` shows who leads; `roadstead order award {id} FILE` makes it a lease",
            args.duration
        )
    })
}

fn asked(
    session: &Session,
    args: &Place,
    ready: &Ready,
    options: &Options,
) -> anyhow::Result<Order> {
    let question = Question::new(session, ready, options)?;
    let max_rate = question.max_rate.context(
        "an order needs its highest price; say --max-price 0.02/h, or x-roadstead.price.max in the file",
    )?;
    let Terms { coverage, grace, full, response } = question.sla;
    let wished = |wish: u32, usual: u32| if wish == 0 { usual } else { wish };
    let (grace, full) = (wished(grace, GRACE), wished(full, FULL));
    ensure!(
        grace < full,
        "x-roadstead.sla.grace: {grace} s is not less than full, {full} s; what is in between is compensated by degrees"
    );
    bounded(args)?;
    let resources = ready.pod.resources();
    ensure!(
        resources.gpus == 0,
        "an order cannot say that its pod needs {} GPUs, so nobody who wins it would run it; use `roadstead deploy`",
        resources.gpus
    );
    Ok(Order {
        account: question.account.1,
        slot: 0,
        pod: ready.pod.hash().0,
        cpu: resources.cpu.0,
        memoryMiB: resources.memory.mib(),
        storageMiB: resources.storage.mib(),
        maxRate: max_rate.0,
        coverage: coverage.0,
        lock: args.lock.secs32("--lock")?,
        grace: secs24("x-roadstead.sla.grace", grace)?,
        full: secs24("x-roadstead.sla.full", full)?,
        response: secs24("x-roadstead.sla.response", wished(response, RESPONSE))?,
        notice: secs24("--notice", args.notice.secs32("--notice")?)?,
        startWithin: secs24("--start-within", args.start_within.secs32("--start-within")?)?,
        duration: args.duration.secs32("--duration")?,
        selfAward: args.self_award,
        requirements: args.requirements.iter().map(|required| required.0.clone()).collect(),
        uri: args.uri.clone(),
    })
}

/// Whether Auction takes this, before anything is sent for it.
fn bounded(args: &Place) -> anyhow::Result<()> {
    let duration = args.duration.secs();
    ensure!(
        (1..=MAX_DURATION).contains(&duration),
        "--duration: {} is not between a second and 30 days",
        args.duration
    );
    ensure!(
        args.start_within.secs() >= MIN_START_WITHIN,
        "--start-within: {} is less than the {MIN_START_WITHIN} s that a winner has at least",
        args.start_within
    );
    let required = args.requirements.len();
    ensure!(
        required <= MAX_REQUIREMENTS,
        "--require: an order requires at most {MAX_REQUIREMENTS} things, not {required}"
    );
    let bytes = args.uri.len();
    ensure!(bytes <= MAX_URI, "--uri: it has {bytes} bytes, and {MAX_URI} are the limit");
    Ok(())
}

fn secs24(what: &str, secs: u32) -> anyhow::Result<U24> {
    U24::try_from(secs).ok().with_context(|| format!("{what}: {secs} s is more than 2^24 - 1 s"))
}

/// An order in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    order: u64,
    state: State,
    payer: Address,
    account: B256,
    slot: u32,
    leader: Option<Address>,
    /// Of the leader, in units per second.
    rate: Option<Rate>,
    max_rate: Rate,
    next_rate: Rate,
    bids: u32,
    reopened: u8,
    deadline: u64,
    lease: Option<u64>,
    pod: B256,
    cpu: u32,
    #[serde(rename = "memoryMiB")]
    memory: u64,
    #[serde(rename = "storageMiB")]
    storage: u64,
    coverage: Amount,
    lock: u32,
    grace: u32,
    full: u32,
    response: u32,
    notice: u32,
    start_within: u32,
    self_award: bool,
    requirements: Vec<Needs>,
    uri: String,
}

#[derive(Debug, Serialize)]
struct Needs {
    attribute: B256,
    /// Nobody: the bidder's own word is enough.
    auditor: Option<Address>,
}

impl From<&Known> for Shown {
    fn from(known: &Known) -> Self {
        let (order, view) = (&known.placed.order, &known.view);
        let leader = known.leader();
        let needs = |required: &Requirement| Needs {
            attribute: required.attribute,
            auditor: Some(required.auditor).filter(|auditor| !auditor.is_zero()),
        };
        Self {
            order: known.placed.id,
            state: known.state,
            payer: known.placed.payer,
            account: order.account,
            slot: order.slot,
            leader,
            rate: leader.map(|_leader| Rate(view.rate)),
            max_rate: Rate(order.maxRate),
            next_rate: known.next,
            bids: view.bids,
            reopened: view.reopened,
            deadline: view.deadline.to(),
            lease: Some(view.lease).filter(|lease| *lease != 0),
            pod: order.pod,
            cpu: order.cpu,
            memory: order.memoryMiB,
            storage: order.storageMiB,
            coverage: Amount(order.coverage),
            lock: order.lock,
            grace: order.grace.to(),
            full: order.full.to(),
            response: order.response.to(),
            notice: order.notice.to(),
            start_within: order.startWithin.to(),
            self_award: order.selfAward,
            requirements: order.requirements.iter().map(needs).collect(),
            uri: tame(&order.uri),
        }
    }
}

async fn list(settings: &Settings, all: bool, mine: bool) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let now = chain.head().await?.timestamp;
    // Without a wallet there is none of its own, and nothing else is missing.
    let own = wallet::address(&settings.wallet);
    let own = if mine { Some(own?) } else { own.ok() };
    let mut orders = Vec::new();
    for placed in chain.placements(None, None).await? {
        if mine && Some(placed.payer) != own {
            continue;
        }
        let known = Known::of(&chain, placed).await?;
        if all || known.state != State::Over {
            orders.push(Shown::from(&known));
        }
    }
    output::show(settings.json, &orders, || listed(&orders, own, &token, now, all))
}

fn listed(orders: &[Shown], own: Option<Address>, token: &Token, now: u64, all: bool) -> String {
    if orders.is_empty() {
        return match all {
            true => "there never was an order".into(),
            false => "no order is open; `roadstead order ls --all` shows those that were".into(),
        };
    }
    let rows = orders.iter().map(|order| {
        let who = match own == Some(order.payer) {
            true => "this wallet".to_owned(),
            false => short(order.payer),
        };
        vec![
            order.order.to_string(),
            order.state.to_string(),
            who,
            size(order),
            order.max_rate.per_hour(token),
            order.leader.map_or_else(|| "nobody".into(), short),
            order.rate.map_or_else(String::new, |rate| rate.per_hour(token)),
            order.bids.to_string(),
            moment(order.deadline, now),
        ]
    });
    let header =
        ["ORDER", "STATE", "OF", "SIZE", "AT MOST", "LEADER", "BIDS AT", "BIDS", "DEADLINE"];
    table(&header, rows)
}

fn size(order: &Shown) -> String {
    let cpu = protocol::resources::Cpu(order.cpu);
    format!("{cpu} cpu, {} MiB, {} MiB volumes", order.memory, order.storage)
}

async fn show_one(settings: &Settings, id: u64) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let now = chain.head().await?.timestamp;
    let order = Shown::from(&Known::read(&chain, id).await?);
    output::show(settings.json, &order, || described(&order, &token, now))
}

fn described(order: &Shown, token: &Token, now: u64) -> String {
    let price = |rate| output::price(rate, token);
    let leads = match (order.leader, order.rate) {
        (Some(leader), Some(rate)) => format!("{leader}, at {}", price(rate)),
        (_, _) => "nobody".to_owned(),
    };
    let mut lines = vec![
        format!("order     {}, {}", order.order, order.state),
        format!("placed by {}", order.payer),
        format!("pod       {} ({})", order.pod, size(order)),
        format!("at most   {}", price(order.max_rate)),
        format!("leads     {leads}, after {} bids", order.bids),
    ];
    if order.state == State::Open {
        lines.push(format!("next bid  at most {}", price(order.next_rate)));
        lines.push(format!("bids end  {}", moment(order.deadline, now)));
    }
    if let Some(lease) = order.lease {
        lines.push(format!("lease     {lease}"));
    }
    lines.push(format!(
        "terms     lock {}, start within {}, notice {}, answers within {}, coverage {} {} (due from {} to {} of outage)",
        span(order.lock.into()),
        span(order.start_within.into()),
        span(order.notice.into()),
        span(order.response.into()),
        order.coverage.display(token),
        token.symbol,
        span(order.grace.into()),
        span(order.full.into()),
    ));
    for needs in &order.requirements {
        let who = needs.auditor.map_or_else(|| "the bidder itself".into(), |who| who.to_string());
        lines.push(format!("requires  {}, vouched for by {who}", needs.attribute));
    }
    if order.self_award {
        lines.push("award     by anybody, once its time is over".into());
    }
    if !order.uri.is_empty() {
        lines.push(format!("file      {}", order.uri));
    }
    lines.join("\n")
}

async fn award(
    settings: &Settings,
    id: u64,
    file: Option<&cli::PodFile>,
    app: Option<&str>,
) -> anyhow::Result<()> {
    let progress = OnStderr::new();
    let ready = match file {
        Some(file) => Some(publish::read(settings, file, &progress).await?),
        None => None,
    };
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, id).await?;
    ensure!(
        known.state == State::Open,
        "order {id} is {}; only an open one is awarded",
        known.state
    );
    let Some(leader) = known.leader() else {
        bail!("nobody has bid for order {id} yet; `roadstead order show {id}` says how it stands")
    };
    let order = known.placed.order.clone();
    if let Some((_file, ready)) = &ready {
        let hash = ready.pod.hash();
        ensure!(
            hash.0 == order.pod,
            "the file is pod {hash}, and order {id} is for {}; cancel it and place another one",
            order.pod
        );
    }
    let mut names = Names::read(&settings.home, chain.deployment())?;
    let own = chain.leases().isPayer(order.account, session.wallet()).call().await?;
    if own {
        let load = Load { rate: Rate(known.view.rate), lock: order.lock, before: (Rate(0), 0) };
        money::allow(&session, order.account, &load, &progress).await?;
    }
    let (client, view) = deploy::provider_of(&session, leader).await?;
    if let Some((_file, ready)) = &ready {
        let accounts = show::accounts(chain, session.wallet(), &names).await?;
        let account = accounts.get(&order.account);
        let account = account.context("the order is paid by another wallet's account")?;
        let options = Options { account: account.clone(), ..Options::default() };
        let question = Question::new(&session, ready, &options)?.any_terms();
        deploy::hand_over(&question, &client, leader, &view, &progress).await?;
    }
    let auction = chain.deployment().auction;
    let start_within = order.startWithin.to();
    let call = Auction::awardCall { id, order };
    let sent = session.send(auction, &call, &format!("awards order {id}"), &progress).await?;
    let awarded: Auction::Awarded = emitted(&sent, auction)?;
    let block = sent.block_number.unwrap_or_default();
    progress.step(&Step::Opened { lease: awarded.lease, block });
    if let Some(app) = app {
        names.set_app(app, awarded.lease)?;
    }
    let opened = Opened {
        lease: awarded.lease,
        client,
        provider: leader,
        rate: Rate(awarded.rate),
        account: known.placed.order.account,
        pod: protocol::pod::PodHash(known.placed.order.pod),
        start_within,
        changed: false,
        key: ready.as_ref().and_then(|(_file, ready)| ready.key()),
    };
    names.set_key(opened.lease, opened.key.as_ref())?;
    if ready.is_some() {
        let lease = opened.lease;
        let words = format!("interrupted; lease {lease} goes on, `roadstead down {lease}` ends it");
        let waiting = deploy::wait(&session, &opened, &progress);
        let status = interruptible(waiting, &words).await.with_context(|| {
            format!("order {id} is awarded; `roadstead order settle {id}` opens it anew")
        })?;
        return show::deployed(settings, &session, &opened, &status, app).await;
    }
    let value = serde_json::json!({
        "order": id,
        "lease": opened.lease,
        "provider": leader,
        "rate": opened.rate,
    });
    output::show(settings.json, &value, || {
        format!(
            "order {id} is lease {} at {leader}, for {}\n\
             `roadstead order settle {id}` ends the order once it was started",
            opened.lease,
            output::price(opened.rate, &session.token)
        )
    })
}

async fn settle(settings: &Settings, id: u64) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let auction = session.chain().deployment().auction;
    let call = Auction::settleCall { id };
    let what = format!("settles order {id}");
    let receipt = session.send(auction, &call, &what, &OnStderr::new()).await?;
    if let Ok(again) = emitted::<Auction::Reopened>(&receipt, auction) {
        return reopened(settings, &session, &again).await;
    }
    over(settings, &session, &emitted(&receipt, auction)?)
}

async fn end<C: alloy::sol_types::SolCall>(
    settings: &Settings,
    id: u64,
    call: &C,
    what: &str,
) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let auction = session.chain().deployment().auction;
    let what = format!("{what} {id}");
    let receipt = session.send(auction, call, &what, &OnStderr::new()).await?;
    over(settings, &session, &emitted(&receipt, auction)?)
}

/// Tells that an order was opened anew, since whoever led or won did not keep its word.
pub(crate) async fn reopened(
    settings: &Settings,
    session: &Session,
    again: &Auction::Reopened,
) -> anyhow::Result<()> {
    let now = session.chain().head().await?.timestamp;
    let penalty = Amount(u128::try_from(again.penalty).unwrap_or(u128::MAX));
    let value = serde_json::json!({
        "order": again.id,
        "state": State::Open,
        "provider": again.provider,
        "penalty": penalty,
        "deadline": again.deadline.to::<u64>(),
    });
    output::show(settings.json, &value, || {
        format!(
            "order {} is open anew, and bids end {}; {} lost {} of its bond to whoever placed it",
            again.id,
            moment(again.deadline.to(), now),
            again.provider,
            session.show(penalty)
        )
    })
}

/// Tells that an order is over.
pub(crate) fn over(
    settings: &Settings,
    session: &Session,
    over: &Auction::Over,
) -> anyhow::Result<()> {
    let outcome = match over.outcome {
        0 => "started",
        1 => "cancelled",
        2 => "expired",
        3 => "given-up",
        _ => "unknown",
    };
    let penalty = Amount(u128::try_from(over.penalty).unwrap_or(u128::MAX));
    let value = serde_json::json!({
        "order": over.id,
        "state": State::Over,
        "outcome": outcome,
        "penalty": penalty,
    });
    output::show(settings.json, &value, || {
        let lost = match penalty.0 {
            0 => String::new(),
            _ => format!("; {} lost {} of its bond", over.provider, session.show(penalty)),
        };
        format!(
            "order {} is over ({outcome}){lost}\nwhoever placed it has its deposit back with `roadstead claim`",
            over.id
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_name_an_attribute_and_who_vouches_for_it() {
        let parse = |text: &str| text.parse::<Required>().map(|required| required.0);
        let own = parse("gdpr").unwrap();
        assert_eq!(
            (own.attribute, own.auditor),
            (alloy::primitives::keccak256("gdpr"), Address::ZERO)
        );
        let auditor = Address::repeat_byte(7);
        let by = parse(&format!("gdpr@{auditor}")).unwrap();
        assert_eq!((by.attribute, by.auditor), (own.attribute, auditor));
        assert_eq!(parse(&own.attribute.to_string()).unwrap().attribute, own.attribute);
        assert!(parse("gdpr@me").unwrap_err().contains("address"));
        assert!(parse("@me").is_err() && parse("").is_err());
    }

    #[test]
    fn orders_are_in_the_states_of_the_contract() {
        let states: Vec<_> = (0..5).filter_map(|n| State::try_from(n).ok()).collect();
        assert_eq!(states, [State::None, State::Open, State::Awarded, State::Over]);
    }
}
