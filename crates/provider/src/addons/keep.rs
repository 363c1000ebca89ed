//! Keeps one add-on as its operator wants it.
//!
//! A pass takes no input: it reads what is wanted and what is there, and closes the difference; the next pass is the retry.
//! What could not be read removes nothing.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::models::ContainerSummaryStateEnum;
use protocol::{
    lease::State,
    pod::{Pod, PodHash},
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    Addon, AddonError, Enabled, Phase,
    door::{self, Bucket, Door},
    page,
};
use crate::{
    admin::Token,
    causes,
    engine::{Container, EngineError, Found, Order, Owner},
    facts::Fixed,
    leases::PodKey,
    reconcile::{Actual, Shared, actual},
};

/// How often is looked whether anything is wanted otherwise.
const LOOK: Duration = Duration::from_secs(1);

/// How many looks pass before what is there is read although nothing is wanted otherwise.
const READ_EVERY: u32 = 3;

/// How long an add-on that could not be started is left alone, times the failures so far.
const BACKOFF: Duration = Duration::from_secs(2);

/// The most of such times.
const MOST_BACKOFF: u32 = 15;

/// An add-on that does not run as it should.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("what is enabled cannot be read; what runs goes on")]
    Enabled(#[source] std::io::Error),
    #[error("its token cannot be read; `roadstead provider addon enable {0}` makes a new one")]
    Token(Addon, #[source] std::io::Error),
    #[error(transparent)]
    Addon(#[from] AddonError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("it needs {0}, and {1} are free beside the leases")]
    Full(String, String),
    #[error(
        "the engine does not say where the container's network is; it has to be on this machine"
    )]
    Elsewhere,
    #[error("nothing can listen in the container's network")]
    Door(#[source] std::io::Error),
    #[error("{0} cannot be listened on for its page; name another address with --page")]
    Page(SocketAddr, #[source] std::io::Error),
}

/// What is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    enabled: Enabled,
    pod: Pod,
    hash: PodHash,
    token: Token,
}

struct Keeper {
    shared: Arc<Shared>,
    fixed: Fixed,
    data: PathBuf,
    addon: Addon,
    key: PodKey,
    bucket: Arc<Bucket>,
    /// Where the provider listens for it: the network namespace, and what ends that.
    door: Option<(PathBuf, CancellationToken)>,
    /// Where its page is shown.
    page: Option<(SocketAddr, CancellationToken)>,
    /// Where its page is in its container.
    at: watch::Sender<Option<SocketAddr>>,
    tasks: JoinSet<()>,
    /// Bids that are under way, whichever door they came by.
    bids: Arc<Mutex<JoinSet<()>>>,
    failures: (u32, Option<Instant>),
    /// Whether nothing of it is there any more.
    cleared: bool,
}

/// Keeps `addon` until it is stopped; its pod goes on running then.
pub(crate) async fn run(
    shared: Arc<Shared>,
    fixed: Fixed,
    data: PathBuf,
    addon: Addon,
    stop: CancellationToken,
) {
    let mut first = shared.seen.subscribe();
    // Before the first pass it is not known what room leases leave.
    tokio::select! {
        () = stop.cancelled() => return,
        _known = first.changed() => (),
    }
    let deployment = shared.sender.chain().deployment();
    let key = addon.key(Owner {
        provider: shared.sender.address(),
        chain_id: deployment.chain_id,
        leases: deployment.leases,
    });
    let mut keeper = Keeper {
        shared,
        fixed,
        data,
        addon,
        key,
        bucket: Arc::new(Bucket::full(Instant::now())),
        door: None,
        page: None,
        at: watch::Sender::default(),
        tasks: JoinSet::new(),
        bids: Arc::default(),
        failures: (0, None),
        cleared: false,
    };
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut before, mut looks) = (None, 0_u32);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => (),
        }
        while keeper.tasks.try_join_next().is_some() {}
        let now = stamp(&keeper.data, addon);
        let news = before.as_ref() != Some(&now);
        looks = looks.wrapping_add(1);
        if !news && !looks.is_multiple_of(READ_EVERY) {
            continue;
        }
        if news {
            keeper.failures = (0, None);
            keeper.cleared = false;
        }
        let wait = keeper.failures.1.is_some_and(|again| Instant::now() < again);
        before = Some(now);
        if wait || keeper.cleared {
            continue;
        }
        let data = keeper.data.clone();
        let passed = tokio::select! {
            () = stop.cancelled() => break,
            passed = keeper.pass() => passed,
            // Whatever is under way (an image may take long) is not wanted so any more.
            () = changed(&data, addon, &now) => continue,
        };
        keeper.note(passed);
    }
    // What was sent is waited for, as long as there is time.
    let mut bids = keeper.bids.lock().await;
    while bids.join_next().await.is_some() {}
}

/// When the files that say what is wanted were last written.
type Stamp = [Option<std::time::SystemTime>; 2];

fn stamp(data: &Path, addon: Addon) -> Stamp {
    let paths = [addon.file(data), data.join(addon.token())];
    paths.map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

async fn changed(data: &Path, addon: Addon, than: &Stamp) {
    while stamp(data, addon) == *than {
        tokio::time::sleep(LOOK).await;
    }
}

impl Keeper {
    fn note(&mut self, passed: Result<(), KeepError>) {
        let Err(err) = passed else {
            self.failures = (0, None);
            return;
        };
        let count = self.failures.0 + 1;
        let again = Instant::now() + BACKOFF * count.min(MOST_BACKOFF);
        self.failures = (count, Some(again));
        let (cause, addon) = (causes(&err), self.addon);
        if count == 1 {
            tracing::warn!(error = cause, "add-on {addon} waits");
        }
        self.shared.house.troubles.note(format!("add-on {addon}"), &cause);
        self.shared.addons.change(addon, |standing| {
            standing.phase = Phase::Waiting;
            standing.message = Some(cause);
        });
    }

    fn wanted(&self) -> Result<Option<Wanted>, KeepError> {
        let addon = self.addon;
        let enabled = Enabled::read(&self.data, addon).map_err(KeepError::Enabled)?;
        let Some(enabled) = enabled else { return Ok(None) };
        let token = Token::read(&self.data, &addon.token());
        let token = token.map_err(|err| KeepError::Token(addon, err))?;
        let pod = enabled.pod(addon, &token.mark())?;
        Ok(Some(Wanted { hash: pod.hash(), enabled, pod, token }))
    }

    async fn pass(&mut self) -> Result<(), KeepError> {
        let Some(wanted) = self.wanted()? else { return self.clear().await };
        let found = self.found().await?;
        self.shared.addons.change(self.addon, |standing| {
            standing.image.clone_from(&wanted.enabled.name);
            standing.page = wanted.enabled.page;
            // What runs has its room, whoever came meanwhile.
            if !found.pods.is_empty() {
                standing.reserved = wanted.pod.resources();
            }
        });
        self.show_page(wanted.enabled.page).await?;
        let found = match actual(Some(&found), wanted.hash, Some(&wanted.pod)) {
            Actual::Whole => found,
            Actual::Absent | Actual::Partial | Actual::Frozen | Actual::Half => {
                self.bring_up(&wanted).await?;
                self.found().await?
            }
        };
        let container = found.of(wanted.hash).into_values().next();
        let running = container.filter(|c| c.state == ContainerSummaryStateEnum::RUNNING);
        let at = running.as_ref().and_then(|container| container.ip).zip(self.addon.page_port());
        self.at.send_replace(at.map(SocketAddr::from));
        let Some(container) = running else {
            self.close_door();
            self.shared.addons.change(self.addon, |standing| {
                standing.phase = Phase::Starting;
                standing.message = Some("its container ended, and is started again".into());
            });
            return Ok(());
        };
        self.open_door(&container).await?;
        self.shared.addons.change(self.addon, |standing| {
            standing.phase = Phase::Running;
            standing.message = None;
        });
        Ok(())
    }

    async fn found(&self) -> Result<Found, KeepError> {
        Ok(self.shared.engine.pods().await?.remove(&self.key).unwrap_or_default())
    }

    /// Removes what is left of it.
    async fn clear(&mut self) -> Result<(), KeepError> {
        self.close_door();
        if let Some((_, stop)) = self.page.take() {
            stop.cancel();
        }
        if self.shared.engine.pods().await?.contains_key(&self.key) {
            self.shared.engine.remove(self.key).await?;
            tracing::info!("add-on {} is disabled, and removed", self.addon);
        }
        self.shared.addons.forget(self.addon);
        self.cleared = true;
        Ok(())
    }

    async fn bring_up(&mut self, wanted: &Wanted) -> Result<(), KeepError> {
        let (shared, addon) = (Arc::clone(&self.shared), self.addon);
        let needed = wanted.pod.resources();
        let leases = shared.seen.borrow().clone();
        let open = leases.leases.values();
        let open = open.filter(|lease| matches!(lease.state, State::Pending | State::Active));
        let first = self.failures.0 == 0;
        shared.addons.change(addon, |standing| {
            // What it has already counts for it.
            standing.reserved = Default::default();
            // While it is tried again, it goes on being told why.
            if first {
                standing.phase = Phase::Starting;
                standing.message = None;
            }
        });
        let free = shared.free(open.map(|lease| lease.pod));
        if !needed.fits_in(&free) {
            return Err(KeepError::Full(needed.to_string(), free.to_string()));
        }
        shared.addons.change(addon, |standing| standing.reserved = needed);
        self.close_door();
        let engine = &shared.engine;
        let images = engine.images(&wanted.pod).await?;
        engine.retire(self.key, |other| other != wanted.hash).await?;
        let mut secrets = seal::Secrets::default();
        let word = Zeroizing::new(wanted.token.word().as_bytes().to_vec());
        secrets.0.insert("token".into(), word);
        let (pod, hash) = (&wanted.pod, wanted.hash);
        let order = Order { key: self.key, block: 0, pod, hash, secrets: &secrets };
        let stage = engine.prepare(&order, images).await?;
        for name in pod.start_order() {
            engine.start(&order, &stage, name).await?;
        }
        tracing::info!("add-on {addon} runs {}", wanted.enabled.name);
        Ok(())
    }

    fn close_door(&mut self) {
        if let Some((_, stop)) = self.door.take() {
            stop.cancel();
        }
    }

    /// Listens for it; anew where its container was started anew.
    async fn open_door(&mut self, container: &Container) -> Result<(), KeepError> {
        let network = self.shared.engine.details(container).await?.network_settings;
        let sandbox = network.and_then(|network| network.sandbox_key);
        let sandbox = sandbox.map(PathBuf::from).filter(|path| path.exists());
        let sandbox = sandbox.ok_or(KeepError::Elsewhere)?;
        if self.door.as_ref().is_some_and(|(at, _)| *at == sandbox) {
            return Ok(());
        }
        self.close_door();
        let listener = door::listen_in(&sandbox).await.map_err(KeepError::Door)?;
        let door = Arc::new(Door {
            shared: Arc::clone(&self.shared),
            fixed: self.fixed.clone(),
            data: self.data.clone(),
            addon: self.addon,
            bucket: Arc::clone(&self.bucket),
            jobs: Arc::clone(&self.bids),
        });
        let stop = CancellationToken::new();
        self.tasks.spawn(door::keep(listener, door, stop.clone()));
        self.door = Some((sandbox, stop));
        Ok(())
    }

    async fn show_page(&mut self, at: Option<SocketAddr>) -> Result<(), KeepError> {
        if self.page.as_ref().map(|(at, _)| *at) == at {
            return Ok(());
        }
        if let Some((_, stop)) = self.page.take() {
            stop.cancel();
        }
        let Some(at) = at else { return Ok(()) };
        let listener = TcpListener::bind(at).await.map_err(|err| KeepError::Page(at, err))?;
        let stop = CancellationToken::new();
        self.tasks.spawn(page::keep(self.addon, listener, self.at.subscribe(), stop.clone()));
        self.page = Some((at, stop));
        Ok(())
    }
}
