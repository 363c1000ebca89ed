//! `roadstead dev`: the whole market in one process, for trying things out and for tests.
//!
//! Everything is real but the money: a private chain, the contracts, three providers on this machine's Docker engine.
//! Keys are made anew each time, and when it ends nothing of it is left.

mod anvil;
mod postgres;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::provider::{
    config::{
        BidLimits, Config, EgressLimits, ImageLimits, Keep, Limits, NetworkRange, Ports, Terms,
    },
    wire::PublicPort,
};
use alloy::{
    primitives::{Address, U256, hex},
    providers::ext::AnvilApi as _,
    signers::local::PrivateKeySigner,
};
use anyhow::{Context as _, ensure};
use chain::{Chain, Deployment, abi::Erc20};
use protocol::{
    amount::{Amount, Rate, Token},
    resources::{Bytes, Cpu, PriceList, Resources},
};
use serde::Serialize;
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::oneshot,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use self::{anvil::Anvil, postgres::Postgres};
use crate::{
    deploy, market,
    money::{self, Funds},
    output,
    podfile::PodFile,
    progress::{OnStderr, Progress, Step},
    provider::{docker_host, stake},
    session::Session,
    settings::Settings,
    show,
    state::State,
    wallet,
};

/// What `roadstead dev` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Deploy the guestbook and show what becomes of it
    #[arg(long)]
    demo: bool,
    /// Listen on free ports alone, not on 8545, 8443…, 8080… and 8600 where those are free
    #[arg(long)]
    any_port: bool,
}

/// Where the three are, and what a processor, a GiB of memory and a GiB of volume cost there per hour.
const PROVIDERS: [(&str, [&str; 3]); 3] = [
    ("eu-west", ["0.012/h", "0.0040/h", "0.0002/h"]),
    ("eu-north", ["0.010/h", "0.0030/h", "0.0001/h"]),
    ("us-east", ["0.018/h", "0.0060/h", "0.0003/h"]),
];

/// What each wallet starts with, in whole tokens.
const ALLOWANCE: &str = "1000";

/// What each provider has at stake.
const BOND: &str = "500";

/// What the demo puts into its account.
const DEMO_FUND: &str = "20";

/// How deep something is buried to be final: the chain is private and reorganises when told to alone.
const CONFIRMATIONS: u64 = 2;

/// How often the demo's line is brought up to date.
const LOOK: Duration = Duration::from_secs(1);

/// What is there, once it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Market {
    rpc: String,
    chain_id: u64,
    deployment: PathBuf,
    home: PathBuf,
    publisher: Address,
    providers: Vec<Listed>,
    /// The market's page and API, where there is a Postgres for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    market: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<Demo>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    address: Address,
    region: String,
    api: String,
    ingress: SocketAddr,
    prices: [String; 3],
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Demo {
    lease: u64,
    provider: Address,
    rate: Rate,
    urls: Vec<String>,
    ports: Vec<PublicPort>,
}

/// A provider that runs in this process.
struct Running {
    config: Config,
    session: Session,
    listed: Listed,
}

/// The market as far as it is up, so that whatever is there can be taken down.
struct Stand {
    root: PathBuf,
    folder: TempDir,
    anvil: Option<Anvil>,
    postgres: Option<Postgres>,
    providers: Vec<Running>,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

/// Runs the market until it is interrupted.
pub(crate) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let root = project()?;
    let folder = root.join(".roadstead");
    std::fs::create_dir_all(&folder)?;
    let mut stand = Stand {
        folder: tempfile::Builder::new().prefix("dev-").tempdir_in(&folder)?,
        root,
        anvil: None,
        postgres: None,
        providers: Vec::new(),
        tasks: JoinSet::new(),
        stop: CancellationToken::new(),
    };
    let outcome = tokio::select! {
        outcome = stand.run(args, settings) => outcome,
        () = crate::interrupted() => Ok(()),
    };
    say("\nstopping, and removing all of it");
    stand.down().await.and(outcome)
}

fn say(what: &str) {
    eprintln!("{what}");
}

impl Stand {
    async fn run(&mut self, args: &Args, settings: &Settings) -> anyhow::Result<()> {
        let folder = self.folder.path().to_owned();
        say("starting a private chain");
        let anvil = Anvil::start(&self.root, &folder, port(args, 8545)?)?;
        let rpc = anvil.url.clone();
        self.anvil.insert(anvil).answers().await?;
        say("deploying the contracts");
        let deployment = deploy_contracts(&self.root, &folder, &rpc).await?;
        let chain = Chain::connect(&rpc, Deployment::read(&deployment)?).await?;
        let publisher = funded(&chain).await?;
        let shown = self.show(args, &chain, &publisher.token).await?;
        let home = publisher_home(&folder, &rpc, &deployment, &publisher, settings)?;
        for (index, (region, prices)) in PROVIDERS.iter().enumerate() {
            say(&format!("starting the provider in {region}"));
            let session = funded(&chain).await?;
            stake(&session, Amount::parse(BOND, &session.token)?, &Quiet).await?;
            self.providers.push(provider(args, &folder, index, region, prices, session)?);
        }
        self.provide().await?;

        let providers = self.providers.iter().map(|provider| provider.listed.clone()).collect();
        let mut market = Market {
            rpc,
            chain_id: chain.id(),
            deployment,
            home,
            publisher: publisher.wallet(),
            providers,
            market: shown,
            demo: None,
        };
        if !settings.json {
            output::print(&describe(&market, &publisher.token))?;
        }
        if args.demo {
            market.demo = Some(demo(&self.root, &publisher, &market.home).await?);
        }
        if settings.json {
            output::print(&serde_json::to_string(&market)?)?;
        }
        tokio::select! {
            shown = watch(&publisher, market.demo.as_ref(), settings.json) => shown,
            Some(ended) = self.tasks.join_next() => ended_early(ended),
        }
    }

    /// Mirrors the chain and shows the mirror, if there is a Postgres on this machine; returns where.
    async fn show(
        &mut self,
        args: &Args,
        chain: &Chain,
        token: &Token,
    ) -> anyhow::Result<Option<String>> {
        say("starting the market's database, indexer and API");
        self.postgres = Postgres::start().await?;
        let Some(postgres) = &self.postgres else {
            say("there is no Postgres, so there is no API of the market; `make setup` brings it");
            return Ok(None);
        };
        let indexer = ::indexer::Config {
            rpc: self.anvil.iter().map(|anvil| anvil.url.clone()).collect(),
            deployment: chain.deployment().clone(),
            database_url: postgres.url.clone(),
            poll: Duration::from_millis(100),
            subscribe: Vec::new(),
            proof: true,
        };
        let market = ::market::Config {
            deployment: chain.deployment().clone(),
            token: token.clone(),
            ttl: chain.registry().TTL().call().await?.to(),
            database_url: postgres.url.clone(),
            behind_proxy: false,
            limits: ::market::Limits::default(),
            stale_after: None,
        };
        let address = (Ipv4Addr::LOCALHOST, port(args, 8600)?);
        let listener = tokio::net::TcpListener::bind(address).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            ::indexer::run(indexer, Arc::default(), stop).await.context("the indexer ended")
        });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            ::market::run(market, listener, stop).await.context("the market ended")
        });
        Ok(Some(url))
    }

    /// Starts the providers and waits until they quote.
    async fn provide(&mut self) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        for provider in &self.providers {
            let (tell, told) = oneshot::channel();
            let (config, sender) = (provider.config.clone(), provider.session.sender.clone());
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                let ended = ::provider::run(config, sender, stop, || {
                    // Nobody waits any more where the market is stopping.
                    let _stopping = tell.send(());
                });
                ended.await.context("a provider ended")
            });
            ready.push(told);
        }
        for told in ready {
            tokio::select! {
                _ready = told => (),
                Some(ended) = self.tasks.join_next() => return ended_early(ended),
            }
        }
        Ok(())
    }

    /// Takes down whatever is up.
    async fn down(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let mut outcome = Ok(());
        for provider in &self.providers {
            let purged = ::provider::purge(&provider.config, &provider.session.sender).await;
            outcome = outcome.and(purged.map_err(anyhow::Error::from));
        }
        if let Some(postgres) = self.postgres {
            outcome = outcome.and(postgres.stop().await);
        }
        if let Some(anvil) = self.anvil {
            anvil.stop().await;
        }
        let closed = self.folder.close().context("the folder of this market could not be removed");
        outcome.and(closed)
    }
}

fn ended_early(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended.context("a part of the market panicked")?
}

/// The checkout that this is run from: contracts, the script that deploys them, the example.
fn project() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let is_root = |folder: &&Path| folder.join("script/Deploy.s.sol").exists();
    let root = here.ancestors().find(is_root);
    root.map(Path::to_owned).with_context(|| {
        format!("{} is not in a checkout of Roadstead, which `roadstead dev` needs", here.display())
    })
}

/// `wanted` if it is free, else any port that is.
fn port(args: &Args, wanted: u16) -> anyhow::Result<u16> {
    let wanted = if args.any_port { 0 } else { wanted };
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = free(wanted).or_else(|_taken| free(0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

async fn deploy_contracts(root: &Path, folder: &Path, rpc: &str) -> anyhow::Result<PathBuf> {
    let file = folder.join("deployment.json");
    let inside = file.strip_prefix(root).unwrap_or(&file);
    let key = hex::encode_prefixed(PrivateKeySigner::random().to_bytes());
    let deployer: PrivateKeySigner = key.parse()?;
    let node = alloy::providers::ProviderBuilder::new().connect_http(rpc.parse()?);
    node.anvil_set_balance(deployer.address(), coins()).await?;
    let output = Command::new(anvil::tool(root, "forge"))
        .args(["script", "script/Deploy.s.sol", "--rpc-url", rpc, "--broadcast"])
        .args(["--skip-simulation", "--offline", "--no-storage-caching", "--non-interactive"])
        .env("DEPLOYER_KEY", key)
        .env("DEPLOYMENT_FILE", inside)
        .env("FOUNDRY_BROADCAST", folder.join("broadcast"))
        .current_dir(root)
        .kill_on_drop(true)
        .output()
        .await
        .context("forge cannot be run; `make setup` brings it")?;
    ensure!(
        output.status.success(),
        "the contracts could not be deployed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(file)
}

fn coins() -> U256 {
    U256::from(1_000) * U256::from(10).pow(U256::from(18))
}

/// A new wallet with coins for gas and tokens to spend.
async fn funded(chain: &Chain) -> anyhow::Result<Session> {
    let session = Session::open(chain.clone(), PrivateKeySigner::random()).await?;
    let to = session.wallet();
    chain.provider().anvil_set_balance(to, coins()).await?;
    let amount = U256::from(Amount::parse(ALLOWANCE, &session.token)?.0);
    session.sender.send(chain.deployment().token, &Erc20::mintCall { to, amount }).await?;
    Ok(session)
}

/// A home for the publisher's wallet, so that the CLI can be used from another terminal.
fn publisher_home(
    folder: &Path,
    rpc: &str,
    deployment: &Path,
    publisher: &Session,
    settings: &Settings,
) -> anyhow::Result<PathBuf> {
    let home = folder.join("home");
    std::fs::create_dir_all(&home)?;
    let passphrase = home.join("passphrase");
    std::fs::write(&passphrase, hex::encode(PrivateKeySigner::random().to_bytes()))?;
    let config = toml::toml! {
        rpc = rpc
        passphrase_file = "passphrase"
    };
    let mut config = config;
    config.insert("deployment".into(), deployment.display().to_string().into());
    std::fs::write(home.join("config.toml"), config.to_string())?;
    let settings = Settings {
        home: home.clone(),
        wallet: home.join("wallet.json"),
        passphrase_file: Some(passphrase),
        ..settings.clone()
    };
    wallet::store(&settings, publisher.sender.signer())?;
    give_to_sudo_user(&home)?;
    Ok(home)
}

/// Who started this through sudo uses the home from a terminal of their own.
fn give_to_sudo_user(home: &Path) -> anyhow::Result<()> {
    let id = |name| std::env::var_os(name)?.into_string().ok()?.parse::<u32>().ok();
    let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    for file in std::fs::read_dir(home)? {
        std::os::unix::fs::chown(file?.path(), Some(user), Some(group))?;
    }
    Ok(std::os::unix::fs::chown(home, Some(user), Some(group))?)
}

/// The public ports of a provider. Another program's, or another market's, are passed over.
fn ports(index: u16) -> Ports {
    let first = 20_000 + 1_000 * index;
    let listen = Ipv4Addr::LOCALHOST.into();
    Ports { range: first..=first + 999, listen, address: "127.0.0.1".into() }
}

fn provider(
    args: &Args,
    folder: &Path,
    index: usize,
    region: &str,
    prices: &[&str; 3],
    session: Session,
) -> anyhow::Result<Running> {
    let offset = u16::try_from(index)?;
    let (api, ingress) = (port(args, 8443 + offset)?, port(args, 8080 + offset)?);
    let admin = port(args, 9640 + offset)?;
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let token = &session.token;
    let [cpu, memory, storage] = prices;
    let config = Config {
        data: folder.join(region),
        run: folder.join(region).join("run"),
        api: local(api),
        endpoint: format!("https://127.0.0.1:{api}"),
        ingress: local(ingress),
        admin: Some(local(admin)),
        ingress_url: format!("http://{{host}}:{ingress}"),
        tls: None,
        ports: Some(ports(offset)),
        region: region.to_owned(),
        prices: PriceList {
            cpu: Rate(Rate::parse(cpu, token)?.0 / 1_000),
            memory: Rate(Rate::parse(memory, token)?.0 / 1_024),
            storage: Rate(Rate::parse(storage, token)?.0 / 1_024),
            ..PriceList::default()
        },
        capacity: Resources {
            cpu: Cpu(2_000),
            memory: Bytes(2 << 30),
            storage: Bytes(8 << 30),
            gpus: 0,
        },
        gpus: Vec::new(),
        terms: Terms { lock: 600, start_within: 120, ..Terms::default() },
        bids: BidLimits::default(),
        keep: Keep::default(),
        limits: Limits::default(),
        images: ImageLimits::default(),
        egress: EgressLimits::default(),
        pushed: Bytes(4 << 30),
        user_namespaces: false,
        // As Docker does: a registry on this machine has no certificate.
        registries: vec!["localhost".into(), "127.0.0.1".into()],
        networks: NetworkRange::default(),
        dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
        docker: docker_host(),
        nodes: Vec::new(),
        encrypt: true,
        engine_pid: "/var/run/docker.pid".into(),
        confirmations: CONFIRMATIONS,
        poll: Duration::from_millis(100),
        collect_above: Amount(1),
        collect_every: Duration::from_secs(30),
    };
    let listed = Listed {
        address: session.wallet(),
        region: region.to_owned(),
        api: config.endpoint.clone(),
        ingress: config.ingress,
        prices: prices.map(str::to_owned),
    };
    Ok(Running { config, session, listed })
}

/// Deploys the guestbook, by the same code as `roadstead deploy`.
async fn demo(root: &Path, publisher: &Session, home: &Path) -> anyhow::Result<Demo> {
    let file = PodFile::read(Some(&root.join("examples/guestbook/compose.yaml")))?;
    let ready =
        file.ready(home).await.context("the guestbook is not built; `make guestbook` does it")?;
    let options = market::Options {
        fund: Some(Amount::parse(DEMO_FUND, &publisher.token)?),
        ..market::Options::default()
    };
    let progress = OnStderr::new();
    progress.step(&Step::Note("deploying the guestbook".into()));
    let offers = market::offers(publisher, &ready, &options, &progress).await?;
    let offer = offers.first().context("no provider made an offer")?;
    let opened = deploy::open(publisher, &ready, &options, offer, &progress).await?;
    let mut state = State::read(home, publisher.chain().deployment())?;
    state.add_account(&options.account)?;
    state.set_app(&file.app(), opened.lease)?;
    let status = deploy::wait(publisher, &opened, &progress).await?;
    Ok(Demo {
        lease: opened.lease,
        provider: opened.provider,
        rate: opened.rate,
        urls: status.urls,
        ports: status.ports,
    })
}

/// Says how the demo's lease stands, again and again.
async fn watch(publisher: &Session, demo: Option<&Demo>, json: bool) -> anyhow::Result<()> {
    let Some(demo) = demo.filter(|_demo| !json) else { return std::future::pending().await };
    output::print(&format!(
        "\nThe guestbook runs:\n  {}\n\nLease {} with {}, for {}. Press Ctrl-C to end all of it.\n",
        show::places(&demo.urls, &demo.ports).join("\n  "),
        demo.lease,
        demo.provider,
        output::price(demo.rate, &publisher.token),
    ))?;
    let line = indicatif::ProgressBar::new_spinner();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        line.set_message(stand(publisher, demo).await?);
    }
}

async fn stand(publisher: &Session, demo: &Demo) -> anyhow::Result<String> {
    let (chain, token) = (publisher.chain(), &publisher.token);
    let views = chain.lease_views(&[demo.lease], None).await?;
    let view = views.first().context("the lease is gone")?;
    let state = protocol::lease::State::try_from(view.lease.state)?;
    let head = chain.head().await?;
    let funds = Funds::read(publisher, view.account).await?;
    let paid = head.timestamp.saturating_sub(view.lease.activatedAt.to());
    let paid = Rate(view.rate).times(paid).unwrap_or_default().collectable();
    Ok(format!(
        "block {}: lease {} is {state}; {} {} paid so far; {}",
        head.number,
        demo.lease,
        paid.display(token),
        token.symbol,
        money::standing(publisher, &funds),
    ))
}

fn describe(market: &Market, token: &Token) -> String {
    let rows = market.providers.iter().map(|provider| {
        let [cpu, memory, storage] = &provider.prices;
        vec![
            provider.address.to_string(),
            provider.region.clone(),
            cpu.clone(),
            memory.clone(),
            storage.clone(),
            provider.ingress.to_string(),
        ]
    });
    let header = ["PROVIDER", "REGION", "CPU", "GIB MEMORY", "GIB VOLUME", "INGRESS"];
    let shown = market
        .market
        .as_ref()
        .map_or_else(String::new, |url| format!("All of it to look at: {url}/\n"));
    format!(
        "{}\n\n{shown}Prices are in {} per hour; the chain is at {}. To use the publisher's wallet from another terminal:\n  \
         export ROADSTEAD_HOME={}\n",
        output::table(&header, rows),
        token.symbol,
        market.rpc,
        market.home.display(),
    )
}

/// Nobody looks on.
struct Quiet;

impl Progress for Quiet {
    fn step(&self, _step: &Step) {}
}
