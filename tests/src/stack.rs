//! A market of a story's own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use ::provider::wire::QuoteResponse;
use alloy::{
    primitives::{Address, B256, U256, aliases::U40},
    providers::ext::AnvilApi as _,
    signers::local::PrivateKeySigner,
};
use anyhow::{Context as _, ensure};
use chain::{
    Chain, Opening, Sender,
    abi::{ILeases::LeaseView, IPayments::AccountView, Leases, Payments},
};
use protocol::lease::{CloseReason, State};

use crate::{
    anvil::{Anvil, free_port, fund},
    authority::Authority,
    docker::Docker,
    engine::Engine,
    pod::{self, Image, PodFile},
    process::{project, roadstead, run},
    provider::{Provider, everywhere},
    publisher::Publisher,
    relay::Relay,
    remains::{Remains, detach, unmount},
    wait::until,
};

/// What each wallet starts with: 1000 of a token with six decimals.
pub const ALLOWANCE: u128 = 1_000_000_000;

/// How deep something is buried to be final.
pub const CONFIRMATIONS: u64 = 2;

/// What a story wants otherwise than others.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many processors the provider rents out.
    pub cpu: &'static str,
    /// How much memory.
    pub memory: &'static str,
    /// What a processor costs.
    pub price: &'static str,
    /// For how many seconds of the price an account stays locked.
    pub lock: u32,
    /// In how many seconds a pod is started.
    pub start_within: u32,
    /// For how many seconds a quote holds.
    pub quote_life: u32,
    /// Whether the provider has a Docker engine of its own, on a network of its own.
    pub engine: bool,
    /// Whether that engine and another one are a cluster.
    pub cluster: bool,
    /// Whether it has public ports.
    pub ports: bool,
    /// Whether its ingress has HTTPS, and an authority that gives certificates.
    pub https: bool,
    /// What that engine's `daemon.json` says.
    pub daemon: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            cpu: "1",
            memory: "512Mi",
            price: "0.01/h",
            lock: 60,
            start_within: 120,
            quote_life: 300,
            engine: false,
            cluster: false,
            ports: false,
            https: false,
            daemon: "{}",
        }
    }
}

/// A market: a chain, a provider, a publisher.
#[derive(Debug)]
pub struct Stack {
    /// Cleared away first, while engines still run.
    remains: Remains,
    anvil: Anvil,
    /// The chain, without the relay in between.
    pub chain: Chain,
    /// The line between the provider and the chain.
    pub relay: Relay,
    /// The provider's engine, where it has one of its own.
    pub engine: Option<Engine>,
    /// The other engine of its cluster, where it has one, with the addresses of both on the cable between them.
    pub other: Option<(Engine, [Ipv4Addr; 2])>,
    /// The provider's engine, as seen from here.
    pub docker: Docker,
    /// The provider.
    pub provider: Provider,
    /// The publisher.
    pub publisher: Publisher,
    failed: bool,
}

/// Tells a story on a market of its own, and clears everything away.
///
/// # Errors
/// When the story fails, or something is left over.
pub async fn story(
    setup: Setup,
    tell: impl AsyncFnOnce(&mut Stack) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut stack = Stack::new(setup).await?;
    let told = tell(&mut stack).await;
    stack.failed = told.is_err();
    told.and(stack.close().await)
}

impl Stack {
    /// Starts a market.
    ///
    /// # Errors
    /// When a part of it does not start.
    pub async fn new(setup: Setup) -> anyhow::Result<Self> {
        // Whether there is one already makes no difference: it is the same.
        let _there = rustls::crypto::ring::default_provider().install_default();
        let mut remains = Remains::new().await?;
        let (anvil, chain) = Anvil::start(&remains.folder).await?;
        let engine = match setup.engine {
            true => Some(Engine::start(&mut remains, "engine", setup.daemon, None).await?),
            false => None,
        };
        let other = match (&engine, setup.cluster) {
            (Some(engine), true) => {
                let at = Some(engine.on_cable(true));
                let other = Engine::start(&mut remains, "other", setup.daemon, at).await?;
                let addresses = engine.join(&other).await?;
                Some((other, addresses))
            }
            _ => None,
        };
        let docker = Docker::connect(engine.as_ref().map(Engine::host).as_deref()).await?;
        let outside = engine.as_ref().map_or(Ipv4Addr::LOCALHOST, |engine| engine.outside);
        let relay = Relay::start((outside, 0).into(), anvil.address).await?;
        let name = "provider";
        let provider =
            provider(name, &setup, &mut remains, &anvil, &chain, &relay, engine.as_ref());
        let provider = provider.await?;
        if let (Some(engine), Some((other, addresses))) = (&engine, &other) {
            provider.name_machines(&[engine, other], addresses)?;
            let [near, far] = addresses.map(|address| address.to_string());
            let fence = ["provider", "node", "fence", "--provider", &near, "--peer", &near];
            other.run(&[&fence[..], &["--peer", &far]].concat()).await?;
        }
        let signer = PrivateKeySigner::random();
        fund(&chain, signer.address(), ALLOWANCE).await?;
        let rpc = format!("http://{}", anvil.address);
        let folder = remains.folder.join("publisher");
        let publisher = Publisher::new(&folder, signer, &rpc, &anvil.deployment).await?;
        let mut stack = Self {
            remains,
            anvil,
            chain,
            relay,
            engine,
            other,
            docker,
            provider,
            publisher,
            failed: false,
        };
        stack.provider.start().await?;
        Ok(stack)
    }

    /// Ends all of it and removes what is left.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.tell_if_failed();
        self.failed = false;
        let cleared = self.remains.clear().await;
        self.anvil.stop().await?;
        cleared
    }

    fn tell_if_failed(&self) {
        if self.failed || std::thread::panicking() {
            eprintln!("the provider's log:\n{}", self.provider.log());
        }
    }

    /// Somebody else, with tokens and a home.
    ///
    /// # Errors
    /// When the wallet cannot be made.
    pub async fn stranger(&self) -> anyhow::Result<Publisher> {
        let signer = PrivateKeySigner::random();
        fund(&self.chain, signer.address(), ALLOWANCE).await?;
        let folder = self.remains.folder.join(signer.address().to_string());
        let rpc = format!("http://{}", self.anvil.address);
        Publisher::new(&folder, signer, &rpc, &self.anvil.deployment).await
    }

    /// Turns the machine of the provider and of its own engine off, in the middle of what the provider does: afterwards
    /// nothing is mounted, no device is there, no rule, and nothing that was in memory.
    ///
    /// # Errors
    /// When something stays.
    pub async fn machine_off(&mut self) -> anyhow::Result<()> {
        self.provider.kill().await?;
        let engine = self.engine.as_mut().context("there is no engine")?;
        engine.down().await?;
        unmount(&[&self.remains.folder])?;
        detach(&self.remains.folder).await?;
        engine.forget_rules().await
    }

    /// Turns it on again.
    ///
    /// # Errors
    /// When the engine or the provider does not start.
    pub async fn machine_on(&mut self) -> anyhow::Result<()> {
        self.engine.as_mut().context("there is no engine")?.up().await?;
        self.provider.start().await
    }

    /// One more provider, on the same engine and chain.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn another_provider(&mut self, setup: &Setup) -> anyhow::Result<Provider> {
        let Self { remains, anvil, chain, relay, engine, .. } = self;
        let name = "provider-2";
        let another = provider(name, setup, remains, anvil, chain, relay, engine.as_ref());
        let mut another = another.await?;
        another.start().await?;
        Ok(another)
    }

    /// The guestbook's pod.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn guestbook(&self) -> anyhow::Result<PodFile> {
        PodFile::guestbook(&self.remains.folder.join("pods/guestbook"))
    }

    /// A probe's image, in the machine's engine.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn image(&mut self, name: &str) -> anyhow::Result<Image> {
        self.image_with(name, "").await
    }

    /// The same, with what a line of a Dockerfile says.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn image_with(&mut self, name: &str, line: &str) -> anyhow::Result<Image> {
        let docker = self.machine().await?;
        let salt = format!("{name} {}", self.remains.id());
        Image::probe(&docker, &mut self.remains, name, &salt, line).await
    }

    /// An image with a device in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn image_of_a_device(&mut self, name: &str) -> anyhow::Result<Image> {
        let docker = self.machine().await?;
        Image::device(&docker, &mut self.remains, name).await
    }

    /// Prometheus, in an image of its own.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn prometheus(&mut self) -> anyhow::Result<String> {
        let script = project().join("scripts/prometheus");
        let program = run(&mut tokio::process::Command::new(script)).await?;
        // As the image does that is its default.
        self.image_of("prometheus", &["--volume", "/prometheus"], &[Path::new(&program)]).await
    }

    /// The probe, in an image as add-ons' are.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn probe_addon(&mut self, name: &str) -> anyhow::Result<String> {
        self.image_of(name, &[], &[&pod::program().await?]).await
    }

    /// The provider's own program, with the probe beside it.
    ///
    /// # Errors
    /// When the image cannot be made.
    pub async fn bidder(&mut self) -> anyhow::Result<String> {
        let programs = [roadstead()?, pod::program().await?];
        self.image_of("bidder", &[], &programs.each_ref().map(|path| path.as_path())).await
    }

    /// An image of some programs alone, as `scripts/addon-image` makes it, in the machine's engine.
    ///
    /// # Errors
    /// When it cannot be made.
    async fn image_of(
        &mut self,
        name: &str,
        options: &[&str],
        programs: &[&Path],
    ) -> anyhow::Result<String> {
        let name = format!("roadstead-tests/{}:{name}", self.remains.id());
        self.remains.add_image(&name)?;
        let script = project().join("scripts/addon-image");
        run(tokio::process::Command::new(script).args(options).arg(&name).args(programs)).await?;
        Ok(name)
    }

    /// The machine's engine, where publishers build images.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn machine(&self) -> anyhow::Result<Docker> {
        Docker::connect(None).await
    }

    /// Has an image of the machine's engine removed in the end, under a name that comes to be there.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn remove_later(&mut self, image: &str) -> anyhow::Result<()> {
        self.remains.add_image(image)
    }

    /// The pod of a probe; `more` is added to its file after its one service.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn probe(&self, app: &str, image: &str, more: &str) -> anyhow::Result<PodFile> {
        PodFile::probe(&self.remains.folder.join("pods").join(app), image, more)
    }

    /// Somebody who sends transactions.
    pub fn sender(&self, signer: &PrivateKeySigner) -> Sender {
        Sender::new(self.chain.clone(), signer.clone())
    }

    /// Lets Leases open leases at any rate out of the publisher's account, with five tokens in it: what `deploy` does
    /// before it opens one.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn ready_account(&self) -> anyhow::Result<Sender> {
        self.publisher.json(&["fund", "5"]).await?;
        let sender = self.sender(&self.publisher.signer);
        let approve = Payments::approveCall {
            id: self.publisher.account(),
            operator: self.chain.deployment().leases,
            rateLimit: u128::MAX,
            payLimit: 0,
            maxLock: u32::MAX,
            expiry: U40::MAX,
        };
        sender.send(self.chain.deployment().payments, &approve).await?;
        Ok(sender)
    }

    /// The call that opens a lease out of a quote, in a slot of the publisher's account.
    pub fn open(&self, quote: &QuoteResponse, slot: u32) -> Leases::openCall {
        Leases::openCall {
            quote: quote.quote.clone().into(),
            signature: quote.signature.clone(),
            account: self.publisher.account(),
            slot,
        }
    }

    /// A lease, as of now.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn lease(&self, id: u64) -> anyhow::Result<LeaseView> {
        let views = self.chain.lease_views(&[id], None).await?;
        views.into_iter().next().context("the chain returned nothing")
    }

    /// The state of a lease.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn state(&self, id: u64) -> anyhow::Result<State> {
        Ok(State::try_from(self.lease(id).await?.lease.state)?)
    }

    /// Waits until a lease is active.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn active(&self, id: u64) -> anyhow::Result<()> {
        let active = async || Ok((self.state(id).await? == State::Active).then_some(()));
        until(&format!("lease {id} is active"), active).await
    }

    /// All leases that were ever opened.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn openings(&self) -> anyhow::Result<Vec<Opening>> {
        let head = self.chain.head().await?.number;
        Ok(self.chain.openings(None, None, self.chain.deployment().block, head).await?)
    }

    /// An account, as of now.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn account(&self, id: B256) -> anyhow::Result<AccountView> {
        Ok(self.chain.payments().account(id).call().await?)
    }

    /// Makes sure that nothing ever came of what was asked for: no lease on chain, no rate, lockup or locked bond, nothing
    /// in Docker.
    ///
    /// # Errors
    /// When something did.
    pub async fn nothing_came_of_it(&self) -> anyhow::Result<()> {
        let openings = self.openings().await?;
        ensure!(openings.is_empty(), "there are {openings:?}");
        let account = self.account(self.publisher.account()).await?;
        ensure!((account.rate, account.lockup) == (0, 0), "the account pays: {account:?}");
        let bond = self.chain.staking().bondOf(self.provider.address()).call().await?;
        ensure!(bond.locked == 0, "{} of the bond are locked", bond.locked);
        self.nothing_is_left().await
    }

    /// The chain's node, without the relay in between.
    pub fn rpc(&self) -> String {
        format!("http://{}", self.anvil.address)
    }

    /// What a wallet holds of the token, in base units.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn held(&self, who: Address) -> anyhow::Result<U256> {
        Ok(self.chain.erc20().balanceOf(who).call().await?)
    }

    /// Waits until a lease is closed for `reason`, and makes sure that nothing of it is left on chain: no rate, no
    /// lockup, no slot, no coverage of one that never ran.
    ///
    /// # Errors
    /// When it is not closed, or for another reason, or something is left.
    pub async fn closed(&self, id: u64, reason: CloseReason) -> anyhow::Result<()> {
        let (event, _block) =
            until(&format!("lease {id} is closed"), async || Ok(self.chain.closing(id).await?))
                .await?;
        let got = CloseReason::try_from(event.reason)?;
        ensure!(got == reason, "lease {id} was closed: {got}, instead of: {reason}");
        let lease = self.lease(id).await?;
        ensure!(lease.rate == 0, "lease {id} is closed, and its stream runs at {}", lease.rate);
        let slot = lease.lease.slot.to::<u32>();
        let taken = self.chain.leases().isSlotTaken(lease.account, slot).call().await?;
        ensure!(!taken, "lease {id} is closed, and its slot is taken");
        let ran = !lease.lease.activatedAt.is_zero();
        ensure!(ran || lease.coverage == 0, "lease {id} never ran, and coverage is locked for it");
        Ok(())
    }

    /// Waits until the provider has nothing left in Docker, on disk or in memory.
    ///
    /// # Errors
    /// When something stays.
    pub async fn nothing_is_left(&self) -> anyhow::Result<()> {
        let empty = async || {
            let mut left = self.docker.left(self.provider.address()).await?;
            let (data, run) = (self.provider.data(), self.provider.run());
            for folder in [data.join("volumes"), run.join("volumes"), run.join("secrets")] {
                let Ok(entries) = std::fs::read_dir(folder) else { continue };
                left.extend(entries.flatten().map(|entry| entry.path().display().to_string()));
            }
            ensure!(left.is_empty(), "there are {left:?}");
            Ok(Some(()))
        };
        until("nothing is left of any pod", empty).await
    }

    /// The one container of a lease that has one service.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn container(&self, lease: u64) -> anyhow::Result<crate::docker::Container> {
        let mut containers = self.docker.containers(self.provider.address()).await?;
        containers.retain(|container| container.lease == lease);
        ensure!(containers.len() <= 1, "lease {lease} has {containers:?}");
        containers.pop().with_context(|| format!("lease {lease} has no container"))
    }

    /// Lets `secs` pass on the chain.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn pass(&self, secs: u64) -> anyhow::Result<()> {
        self.chain.provider().anvil_increase_time(secs).await?;
        self.mine(1).await
    }

    /// Mines so many blocks.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn mine(&self, blocks: u64) -> anyhow::Result<()> {
        Ok(self.chain.provider().anvil_mine(Some(blocks), None).await?)
    }

    /// From now on a block comes with each transaction alone: what is mined is not confirmed until it is told to be.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn hold_blocks(&self) -> anyhow::Result<()> {
        self.chain.provider().anvil_set_interval_mining(0).await?;
        Ok(self.chain.provider().anvil_set_auto_mine(true).await?)
    }

    /// Blocks come every second again.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn chain_goes_on(&self) -> anyhow::Result<()> {
        Ok(self.chain.provider().anvil_set_interval_mining(1).await?)
    }

    /// Where a story may keep something.
    pub fn folder(&self) -> &Path {
        &self.remains.folder
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.tell_if_failed();
    }
}

async fn provider(
    name: &str,
    setup: &Setup,
    remains: &mut Remains,
    anvil: &Anvil,
    chain: &Chain,
    relay: &Relay,
    engine: Option<&Engine>,
) -> anyhow::Result<Provider> {
    let signer = PrivateKeySigner::random();
    remains.add_provider(signer.address())?;
    fund(chain, signer.address(), ALLOWANCE).await?;
    let folder = remains.folder.join(name);
    let rpc = format!("http://{}", relay.address);
    // Its home is like a publisher's, and so is how it bonds.
    let home = Publisher::new(&folder, signer.clone(), &rpc, &anvil.deployment).await?;
    home.json(&["provider", "bond", "500"]).await?;
    let at = engine.map_or(Ipv4Addr::LOCALHOST, |engine| engine.inside);
    let (api, ingress) =
        (SocketAddr::from((at, free_port()?)), SocketAddr::from((at, free_port()?)));
    let admin = SocketAddr::from((at, free_port()?));
    let Setup { cpu, memory, price, lock, start_within, quote_life, .. } = setup;
    let data = folder.join("data");
    let run = folder.join("run");
    let pid = engine.map_or("/var/run/docker.pid".into(), Engine::pid_file);
    let config = format!(
        r#"region = "test"
endpoint = "https://{api}"
ingress_url = "http://{{host}}:{}"
data = {data:?}
run = {run:?}

[listen]
api = "{}"
ingress = "{}"
admin = "{admin}"

[capacity]
cpu = "{cpu}"
memory = "{memory}"
storage = "16Gi"

[prices]
cpu = "{price}"
memory = "0.004/h"
storage = "0.05/mo"

[terms]
lock = {lock}
start_within = {start_within}
quote_life = {quote_life}

[limits]
image_size = "256Mi"

[engine]
pid_file = {pid:?}
registries = ["127.0.0.1"]

[chain]
confirmations = {CONFIRMATIONS}
poll_ms = 100
collect_above = "0.000001"
collect_every_s = 2
"#,
        ingress.port(),
        everywhere(api.port()),
        everywhere(ingress.port()),
    );
    let ports = match setup.ports {
        // Few, far below those that the machine gives out by itself. What others have of them is passed over.
        true => {
            let first = 10_000 + free_port()? % 2_000 * 8;
            format!("[ports]\nrange = \"{first}-{}\"\n", first + 7)
        }
        false => String::new(),
    };
    let https = SocketAddr::from((at, free_port()?));
    let authority = match setup.https {
        true => Some(Authority::start(&folder, ingress.port()).await?),
        false => None,
    };
    let tls = authority.as_ref().map_or_else(String::new, |authority| {
        format!("[tls]\nlisten = \"{}\"\n{}", everywhere(https.port()), authority.table())
    });
    std::fs::write(folder.join("provider.toml"), format!("{config}{ports}{tls}"))?;
    Ok(Provider {
        signer,
        folder,
        netns: engine.map(|engine| engine.netns.clone()),
        docker_host: engine.map(Engine::host),
        api,
        ingress,
        admin,
        https,
        authority,
        child: None,
    })
}
