//! Compares leases with containers and closes the difference.
//!
//! A pass takes no input: it reads the chain and the engine, decides for every pod purely, and starts a job for what
//! has to be done. The next pass is the retry. A pass that could not read either of them decides nothing, so nothing is
//! ever removed because something did not answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use alloy::primitives::B256;
use chain::{
    Head, ReadError, Revert, SendError,
    abi::{Leases, Payments::PaymentsErrors},
};
use edge::{Backend, Routes};
use protocol::{
    lease::{CloseReason, State},
    pod::{Condition, Http, Label, Mount, Pod, PodHash, Service, Target, Transport},
    resources::{Bytes, Resources},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    addons::{Addons, bids, bids::Bids},
    blobs::Blobs,
    causes,
    certificates::{Claim, Envelopes, HostCertificates},
    engine::{Container, Engine, EngineError, Found, Order, Readiness, is_up},
    holds::Holds,
    house::House,
    leases::{Follower, Lease, PodKey, Snapshot},
    pods::{PodError, Pods},
    ports::{Ports, PortsError, Wanted},
    records::Records,
    screen::ScreenError,
    sealed::Images,
    shown::Shown,
    status::Statuses,
    unlock::Unlocks,
    visit::Served,
    wire::Phase,
};

/// The longest time between two passes.
const TICK: Duration = Duration::from_secs(5);

/// How long a job that failed is left alone, times the failures so far.
const BACKOFF: Duration = Duration::from_secs(2);

/// After how many failures to get an image a lease that never ran is given up.
const IMAGE_TRIES: u32 = 3;

/// How often a starting pod is looked at.
const READY_POLL: Duration = Duration::from_millis(100);

/// What visitors of a paused pod are told.
const PAUSED: &str = "paused until its account is topped up";

/// For how long a pod that is paid for already is waited for in one job.
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// A pass that read too little to decide anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error("the chain could not be read; all pods stay as they are")]
    Chain(#[from] ReadError),
    #[error("the engine could not be read; all pods stay as they are")]
    Engine(#[from] EngineError),
}

impl PassError {
    fn source_name(&self) -> &'static str {
        match self {
            Self::Chain(_) => "chain",
            Self::Engine(_) => "engine",
        }
    }
}

/// A job that did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error("the secrets cannot be opened")]
    Secrets(#[from] seal::OpenError),
    #[error("the lease was changed while it waited for its key")]
    Changed,
    #[error("an encrypted image cannot be run")]
    Encrypted(#[from] seal::image::ImageError),
    #[error("an encrypted image is refused")]
    Refused(#[from] ScreenError),
    #[error("an encrypted image could not be read")]
    Ciphertext(#[from] std::io::Error),
    #[error("service {0} failed: {1}")]
    Failed(String, String),
    #[error("service {0} is not ready in time: {1}")]
    Late(String, String),
    #[error("the transaction did not go through")]
    Send(#[from] SendError),
    #[error("the lease needs {0} and {1} are free")]
    Full(String, String),
    #[error(transparent)]
    Ports(#[from] PortsError),
    #[error("the order asked for {ordered}, and its pod is of {pod}{more}")]
    NotOrdered { ordered: Resources, pod: Resources, more: &'static str },
    #[error("the order of the lease could not be read")]
    Order(#[from] ReadError),
}

/// What a pod needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Start,
    Activate,
    Pause,
    Thaw,
    Close(CloseReason),
    Remove,
}

/// What the engine has of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actual {
    /// Nothing.
    Absent,
    /// Something is missing, stopped, or of another pod.
    Partial,
    /// Everything runs.
    Whole,
    /// Everything is there and frozen.
    Frozen,
}

/// The decision, for a lease at a block whose time is `now`.
fn decide(lease: &Lease, now: u64, actual: Actual) -> Option<Action> {
    match lease.state {
        State::Closed | State::None => {
            (lease.over && actual != Actual::Absent).then_some(Action::Remove)
        }
        State::Pending if now > lease.start_by => Some(Action::Close(CloseReason::StartMissed)),
        State::Pending => Some(match actual {
            Actual::Whole => Action::Activate,
            Actual::Frozen => Action::Thaw,
            Actual::Absent | Actual::Partial => Action::Start,
        }),
        State::Active if now > lease.funded_until.saturating_add(lease.lock) => {
            Some(Action::Close(CloseReason::AccountDry))
        }
        State::Active if now > lease.funded_until => match actual {
            Actual::Whole | Actual::Partial => Some(Action::Pause),
            Actual::Absent | Actual::Frozen => None,
        },
        State::Active => match actual {
            Actual::Whole => None,
            Actual::Frozen => Some(Action::Thaw),
            Actual::Absent | Actual::Partial => Some(Action::Start),
        },
    }
}

pub(crate) fn actual(found: Option<&Found>, hash: PodHash, pod: Option<&Pod>) -> Actual {
    use bollard::models::ContainerSummaryStateEnum as S;
    let Some(found) = found else { return Actual::Absent };
    let containers = found.of(hash);
    let Some(pod) = pod.filter(|_pod| found.pods.len() == 1) else { return Actual::Partial };
    let up = |(name, service): (&Label, &Service)| {
        containers.get(name.as_str()).is_some_and(|container| is_up(container, service))
    };
    if !pod.services().iter().all(up) {
        return Actual::Partial;
    }
    match containers.values().any(|container| container.state == S::PAUSED) {
        true => Actual::Frozen,
        false => Actual::Whole,
    }
}

/// Whether two pods can run side by side: not where both have a volume that one of them writes.
fn can_overlap(old: &Pod, new: &Pod) -> bool {
    fn mounts(pod: &Pod) -> impl Iterator<Item = &Mount> {
        pod.services().values().flat_map(|service| service.volumes.values())
    }
    !mounts(old).any(|theirs| {
        mounts(new)
            .any(|ours| ours.source == theirs.source && !(ours.read_only && theirs.read_only))
    })
}

/// What passes and jobs share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sender: chain::Sender,
    pub(crate) engine: Engine,
    pub(crate) pods: Pods,
    pub(crate) shown: Shown,
    pub(crate) blobs: Blobs,
    pub(crate) unlocks: Unlocks,
    pub(crate) keys: crate::Keys,
    pub(crate) statuses: Statuses,
    pub(crate) records: Arc<Records>,
    pub(crate) holds: Holds,
    pub(crate) routes: Routes,
    pub(crate) served: Served,
    pub(crate) ports: Ports,
    /// Nothing where the ingress has no TLS.
    pub(crate) certificates: Option<HostCertificates>,
    pub(crate) capacity: Resources,
    /// What a pod may send in 30 days without being charged for it.
    pub(crate) included: Bytes,
    /// The last snapshot that could be read; the API and the meter look at it.
    pub(crate) seen: watch::Sender<Arc<Snapshot>>,
    pub(crate) runs: Runs,
    pub(crate) house: House,
    pub(crate) addons: Addons,
    pub(crate) bids: Bids,
}

/// Which of a lease's pods is the one that runs, while it is not simply the one that the chain names.
#[derive(Debug, Default)]
pub(crate) struct Runs(Mutex<HashMap<PodKey, Run>>, Looks);

/// In which order containers were looked at: a pass and a job look at the same time, and what the one saw that began first
/// must not take back where the other has sent requests to since.
#[derive(Debug, Default)]
struct Looks(Mutex<(u64, u64)>);

impl Looks {
    /// Begins to look.
    fn begin(&self) -> u64 {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.0 += 1;
        looks.0
    }

    /// Whether nothing was gone by that began later than `look`.
    fn is_newest(&self, look: u64) -> bool {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = look > looks.1;
        looks.1 = looks.1.max(look);
        newest
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The pod that was ready last: requests go to it.
    serves: Option<PodHash>,
    /// A pod that could not be started in place of the one that serves, and is not tried again.
    failed: Option<PodHash>,
}

impl Runs {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a lease is to run: what the chain says, unless that was tried and failed.
    fn wanted(&self, lease: &Lease) -> PodHash {
        match self.lock().get(&lease.key) {
            Some(Run { serves: Some(serves), failed: Some(failed) }) if *failed == lease.pod => {
                *serves
            }
            Some(_) | None => lease.pod,
        }
    }

    /// Whose containers requests go to: those of the pod that was ready last, else those that are there.
    pub(crate) fn serving(&self, lease: &Lease, found: &Found) -> PodHash {
        let serves = self.lock().get(&lease.key).and_then(|run| run.serves);
        let there = |pod: &PodHash| found.pods.contains_key(pod);
        let former = || found.pods.keys().find(|pod| **pod != lease.pod).copied();
        serves.filter(there).or_else(former).unwrap_or(lease.pod)
    }

    fn ready(&self, key: PodKey, pod: PodHash) {
        self.lock().insert(key, Run { serves: Some(pod), failed: None });
    }

    fn failed(&self, key: PodKey, kept: PodHash, failed: PodHash) {
        self.lock().insert(key, Run { serves: Some(kept), failed: Some(failed) });
    }

    fn forget(&self, key: PodKey) {
        self.lock().remove(&key);
    }
}

/// One provider's reconciler.
#[derive(Debug)]
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    follower: Follower,
    heads: watch::Receiver<Head>,
    jobs: JoinSet<(PodKey, Result<(), JobError>)>,
    running: HashMap<PodKey, (Action, CancellationToken)>,
    failures: HashMap<PodKey, (u32, Instant)>,
    wake: Arc<Notify>,
}

impl Reconciler {
    pub(crate) fn new(
        shared: Arc<Shared>,
        follower: Follower,
        heads: watch::Receiver<Head>,
    ) -> Self {
        Self {
            shared,
            follower,
            heads,
            jobs: JoinSet::new(),
            running: HashMap::new(),
            failures: HashMap::new(),
            wake: Arc::default(),
        }
    }

    /// Runs until it is stopped. Jobs that are under way are dropped then; the next start takes up what they left.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        let mut failing = false;
        let wake = Arc::clone(&self.wake);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => (),
                () = wake.notified() => (),
                changed = self.heads.changed() => if changed.is_err() { return },
                Some(done) = self.jobs.join_next() => self.finish(done),
            }
            let began = Instant::now();
            let passed = self.pass().await;
            let metrics = &self.shared.house.metrics;
            metrics.passed(began.elapsed(), passed.as_ref().err().map(PassError::source_name));
            match passed {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("leases and containers can be read again");
                }
                Ok(()) => (),
                Err(err) if !failing => {
                    failing = true;
                    let cause = causes(&err);
                    self.shared.house.troubles.note(err.source_name(), &cause);
                    tracing::warn!(error = cause, "nothing is changed until both can be read");
                }
                Err(_) => (),
            }
        }
    }

    fn finish(&mut self, done: Result<(PodKey, Result<(), JobError>), tokio::task::JoinError>) {
        // A job that panicked has no key; what it did is found out by the next pass.
        let Ok((key, result)) = done else {
            self.running.clear();
            return;
        };
        let cancelled = self.running.remove(&key).is_some_and(|(_, token)| token.is_cancelled());
        match result {
            Ok(()) => {
                self.failures.remove(&key);
            }
            Err(_) if cancelled => (),
            Err(err) => {
                let (count, _) = self.failures.get(&key).copied().unwrap_or((0, Instant::now()));
                let again = Instant::now() + BACKOFF * (count + 1).min(15);
                self.failures.insert(key, (count + 1, again));
                let cause = causes(&err);
                tracing::warn!(lease.id = key.lease, error = cause, "lease {} waits", key.lease);
                self.shared.house.troubles.note(format!("lease {}", key.lease), &cause);
                self.shared.statuses.note(key, cause);
            }
        }
    }

    async fn pass(&mut self) -> Result<(), PassError> {
        let snapshot = self.follower.read().await?;
        let look = self.shared.runs.1.begin();
        let began = Instant::now();
        let pods = self.shared.engine.pods().await?;
        self.shared.house.metrics.listed(began.elapsed());
        let now = snapshot.head.timestamp;
        if self.shared.runs.1.is_newest(look) {
            self.shared.route(&snapshot, &pods);
        }

        let mut settled = Vec::new();
        for (key, lease) in &snapshot.leases {
            let found = pods.get(key);
            let wanted = self.shared.runs.wanted(lease);
            let pod = self.shared.pods.get(wanted).ok();
            let actual = actual(found, wanted, pod.as_ref());
            // A pod that a job is still starting may be whole, and is not ready.
            let whole =
                actual == Actual::Whole && wanted == lease.pod && !self.running.contains_key(key);
            self.shared.records.see(lease);
            let held = self.shared.holds.is_held(*key);
            self.shared.statuses.see(lease, whole, actual == Actual::Frozen && !held);
            if lease.over && self.shared.records.lacks_end(*key) {
                self.shared.note_end(*key).await?;
            }
            match decide(lease, now, actual) {
                Some(action) => self.act(lease, action, &snapshot),
                None if lease.is_settled() && found.is_none() => settled.push(*key),
                // What made it whole has yet to say what came of it.
                None if lease.state == State::Active && actual == Actual::Whole => (),
                None => self.cancel(*key),
            }
        }
        // Add-ons are kept by who enabled them.
        for (key, found) in pods.iter().filter(|(key, _)| !key.is_addon()) {
            if !snapshot.leases.contains_key(key)
                && self.follower.is_over(*key, found.block, snapshot.confirmed).await?
            {
                self.start(*key, Action::Remove, None);
            }
        }
        self.follower.forget(&settled);
        for key in &settled {
            self.shared.statuses.forget(*key);
            self.shared.runs.forget(*key);
            self.failures.remove(key);
        }
        self.shared.house.found.send_replace(Arc::new(pods));
        self.shared.seen.send_replace(Arc::new(snapshot));
        Ok(())
    }

    /// Stops a job that is not wanted any more.
    fn cancel(&self, key: PodKey) {
        if let Some((_, token)) = self.running.get(&key) {
            token.cancel();
        }
    }

    fn act(&mut self, lease: &Lease, action: Action, snapshot: &Snapshot) {
        if matches!(action, Action::Start | Action::Thaw) && self.shared.holds.is_held(lease.key) {
            return;
        }
        let waits = self.failures.get(&lease.key).is_some_and(|(_, again)| Instant::now() < *again);
        // Whatever a lease waits for, it is no reason not to freeze or remove its pod.
        if waits && matches!(action, Action::Start | Action::Activate | Action::Close(_)) {
            return;
        }
        let others = snapshot.leases.values().filter(|other| {
            matches!(other.state, State::Pending | State::Active) && other.key != lease.key
                // Who came first has the room.
                && (other.state == State::Active || other.key.lease < lease.key.lease)
        });
        let others = others.map(|other| other.pod).collect();
        self.start(lease.key, action, Some((lease.clone(), others)));
    }

    fn start(&mut self, key: PodKey, action: Action, lease: Option<(Lease, Vec<PodHash>)>) {
        if let Some((running, token)) = self.running.get(&key) {
            // Starting ends with activating, so that is no change of mind.
            if *running != action && !(*running == Action::Start && action == Action::Activate) {
                token.cancel();
            }
            return;
        }
        let token = CancellationToken::new();
        self.running.insert(key, (action, token.clone()));
        let (shared, tries) =
            (Arc::clone(&self.shared), self.failures.get(&key).map_or(0, |f| f.0));
        let wake = Arc::clone(&self.wake);
        self.jobs.spawn(async move {
            let job = shared.job(key, action, lease, tries, &wake);
            let result = tokio::select! {
                () = token.cancelled() => Ok(()),
                result = job => result,
            };
            (key, result)
        });
    }
}

impl Shared {
    async fn job(
        &self,
        key: PodKey,
        action: Action,
        lease: Option<(Lease, Vec<PodHash>)>,
        tries: u32,
        wake: &Notify,
    ) -> Result<(), JobError> {
        let Some((lease, others)) = lease else {
            tracing::info!(lease.id = key.lease, "removing what is left of lease {}", key.lease);
            return self.take_down(key).await;
        };
        match action {
            Action::Start => {
                let began = Instant::now();
                let started = self.start(&lease, others).await;
                let fatal = started.as_ref().err().and_then(|err| fatal(err, tries));
                let outcome = match (&started, fatal) {
                    (Ok(()), _) => "running",
                    (Err(_), Some(_)) => "failed",
                    (Err(_), None) => "again",
                };
                self.house.metrics.started(began.elapsed(), outcome);
                if started.is_err() {
                    self.purge().await;
                }
                let Err(err) = started else { return self.activate(&lease, wake).await };
                let Some(reason) = fatal else { return Err(err) };
                let cause = causes(&err);
                self.house.troubles.note(format!("lease {}", key.lease), &cause);
                self.statuses.set(key, Phase::Failed, Some(cause.clone()));
                if lease.state == State::Pending {
                    tracing::warn!(
                        lease.id = key.lease,
                        error = cause,
                        "lease {key} is given up: {reason}",
                        key = key.lease
                    );
                    return self.close(key, reason).await;
                }
                Err(err)
            }
            Action::Activate => self.activate(&lease, wake).await,
            Action::Pause | Action::Thaw => {
                let found = self.engine.pods().await?.remove(&key).unwrap_or_default();
                let freeze = action == Action::Pause;
                tracing::info!(
                    lease.id = key.lease,
                    "{} lease {}: its account {}",
                    if freeze { "pausing" } else { "resuming" },
                    key.lease,
                    if freeze { "is dry" } else { "was topped up" },
                );
                if !freeze {
                    self.statuses.thaw(key);
                }
                Ok(self.engine.pause(&found, freeze).await?)
            }
            Action::Close(reason) => self.close(key, reason).await,
            Action::Remove => {
                tracing::info!(lease.id = key.lease, "removing the pod of lease {}", key.lease);
                self.statuses.set(key, Phase::Closed, None);
                self.take_down(key).await
            }
        }
    }

    /// Removes a pod; if it ever ran, its volumes are kept for a while.
    async fn take_down(&self, key: PodKey) -> Result<(), JobError> {
        let keeps = self.records.keeps_volumes(key);
        self.records.remove(key);
        let kept = match keeps {
            true => self.engine.wind_up(key).await?,
            false => {
                self.engine.remove(key).await?;
                false
            }
        };
        self.records.removed(key, kept);
        self.purge().await;
        Ok(())
    }

    /// Removes decrypted images that nobody needs any more. What stays is tried again once a minute, and is no reason for
    /// anything else to wait.
    pub(crate) async fn purge(&self) {
        if let Err(err) = self.engine.purge_decrypted().await {
            tracing::warn!(error = causes(&err), "a decrypted image may stay for now");
        }
    }

    /// Writes down why a lease ended.
    async fn note_end(&self, key: PodKey) -> Result<(), ReadError> {
        let closing = self.sender.chain().closing(key.lease).await?;
        let reason: Option<CloseReason> =
            closing.and_then(|(event, _block)| event.reason.try_into().ok());
        self.house.metrics.closed(&reason.unwrap_or(CloseReason::None).to_string());
        self.records.close(key, reason);
        Ok(())
    }

    /// Has the lease's pod run, in place of a former one if there is one.
    async fn start(&self, lease: &Lease, others: Vec<PodHash>) -> Result<(), JobError> {
        let key = lease.key;
        let hash = self.runs.wanted(lease);
        let pod = self.pods.get(hash)?;
        // Since it was quoted for they may have gone to others.
        if lease.state == State::Pending {
            self.ports.fits(&pod, Some(key))?;
        }
        let free = self.free(others);
        if !pod.resources().fits_in(&free) {
            return Err(JobError::Full(pod.resources().to_string(), free.to_string()));
        }
        if lease.state == State::Pending {
            self.as_ordered(lease, hash, &pod).await?;
        }
        let found = self.engine.pods().await?.remove(&key).unwrap_or_default();
        let serving = self.runs.serving(lease, &found);
        let mut others = [serving].into_iter().chain(found.pods.keys().copied());
        let Some(former) = others.find(|other| *other != hash && found.pods.contains_key(other))
        else {
            return self.bring_up(lease, hash, &pod, None).await;
        };
        let overlap = self.pods.get(former).is_ok_and(|old| {
            let beside = free.checked_sub(old.resources());
            can_overlap(&old, &pod) && beside.is_some_and(|free| pod.resources().fits_in(&free))
        });
        let changed = async {
            let images = self.images(lease, hash, &pod).await?;
            if !overlap {
                self.engine.stop(key, former).await?;
            }
            self.bring_up(lease, hash, &pod, Some(images)).await
        };
        match changed.await {
            Ok(()) => {
                self.runs.ready(key, hash);
                self.reroute().await;
                self.engine.retire(key, |other| other != hash).await?;
                self.purge().await;
                Ok(())
            }
            Err(err) if fatal(&err, IMAGE_TRIES).is_some() => {
                tracing::warn!(
                    lease.id = key.lease,
                    error = causes(&err),
                    "lease {} goes back to what it ran before",
                    key.lease
                );
                let back = async {
                    self.engine.retire(key, |other| other == hash).await?;
                    match self.pods.get(former) {
                        Ok(old) => self.bring_up(lease, former, &old, None).await,
                        Err(_) => Ok(()),
                    }
                };
                let back = back.await;
                // Not before: a pass that found the former one wanted, and whole, would call this off.
                self.runs.failed(key, former, hash);
                back?;
                Err(err)
            }
            Err(err) => Err(err),
        }
    }

    /// Whether a lease that was won as an order is for what was bid for: an order has its pod's hash, and what its publisher
    /// says that the pod needs. It cannot say anything of egress, public ports and GPUs.
    async fn as_ordered(&self, lease: &Lease, hash: PodHash, pod: &Pod) -> Result<(), JobError> {
        let chain = self.sender.chain();
        let order = chain.order_of(lease.key.lease, lease.block).await?;
        // What it was changed to since has its own quote.
        let Some(order) = order.filter(|order| order.pod == hash.0) else { return Ok(()) };
        let ordered = bids::resources(&order).unwrap_or_default();
        let demand = pod.demand(self.included);
        let price = self.house.prices.now().price(&demand);
        let unpaid = price.map_or(true, |price| price.egress.0 > 0 || price.public_ports.0 > 0);
        match pod.resources().fits_in(&ordered) && !unpaid {
            true => Ok(()),
            false => Err(JobError::NotOrdered {
                ordered,
                pod: pod.resources(),
                more: if unpaid { ", with egress or public ports that cost extra" } else { "" },
            }),
        }
    }

    /// Has one pod of a lease run and waits until it is ready. `images` are there already, where they were wanted before.
    async fn bring_up(
        &self,
        lease: &Lease,
        hash: PodHash,
        pod: &Pod,
        images: Option<Images>,
    ) -> Result<(), JobError> {
        let key = lease.key;
        let secrets = match pod.secrets().is_empty() {
            true => seal::Secrets::default(),
            false => {
                let envelope = self.pods.secrets(lease.account, hash)?;
                let context = self.context(lease.account, hash);
                seal::Secrets::open(&envelope, &self.keys.seal, &context)?
            }
        };
        self.statuses.set(key, Phase::Fetching, None);
        let images = match images {
            Some(images) => images,
            None => self.images(lease, hash, pod).await?,
        };
        let order = Order { key, block: lease.block, pod, hash, secrets: &secrets };
        let stage = self.engine.prepare(&order, images.all.clone()).await?;
        self.statuses.set(key, Phase::Starting, None);
        let end = Instant::now() + READY_PATIENCE;
        for name in pod.start_order() {
            self.wait_for_others(lease, &order, name, end).await?;
            self.engine.start(&order, &stage, name).await?;
        }
        // Nobody waits for what may fail.
        let optional: BTreeSet<&Label> =
            pod.services().values().flat_map(|service| &service.optional).collect();
        for name in pod.start_order().into_iter().filter(|name| !optional.contains(name)) {
            self.wait_until(lease, &order, name, Condition::ServiceHealthy, end).await?;
        }
        Ok(())
    }

    /// What an envelope of an account's secrets is bound to.
    fn context(&self, account: B256, pod: PodHash) -> seal::Context {
        let deployment = self.sender.chain().deployment();
        seal::Context {
            chain_id: deployment.chain_id,
            leases: deployment.leases.into(),
            provider: self.sender.address().into(),
            account: account.into(),
            pod: pod.0.into(),
        }
    }

    /// What is free of the capacity beside add-ons and the pods of others.
    pub(crate) fn free(&self, others: impl IntoIterator<Item = PodHash>) -> Resources {
        let mut free = self.capacity;
        // What is kept of former leases takes its room, too.
        let kept = self.engine.kept_volumes().unwrap_or_default();
        let kept = kept.iter().map(|volume| volume.size).sum();
        free.storage = Bytes(free.storage.0.saturating_sub(kept));
        free = free.checked_sub(self.addons.reserved()).unwrap_or_default();
        let used = others.into_iter().filter_map(|pod| self.pods.get(pod).ok());
        used.fold(free, |free, pod| free.checked_sub(pod.resources()).unwrap_or_default())
    }

    /// Waits for what a service depends on.
    async fn wait_for_others(
        &self,
        lease: &Lease,
        order: &Order<'_>,
        name: &Label,
        end: Instant,
    ) -> Result<(), JobError> {
        let Some(service) = order.pod.services().get(name) else { return Ok(()) };
        for (other, condition) in &service.depends_on {
            let waited = self.wait_until(lease, order, other, *condition, end);
            if !service.optional.contains(other) {
                waited.await?;
                continue;
            }
            tokio::select! {
                // It may fail, and only not take for ever.
                waited = waited => if let Err(err @ JobError::Late(..)) = waited {
                    return Err(err);
                },
                () = self.unhealthy(order, other) => (),
            }
        }
        Ok(())
    }

    /// Returns once the engine has given a service's health up.
    async fn unhealthy(&self, order: &Order<'_>, name: &Label) {
        loop {
            tokio::time::sleep(READY_POLL).await;
            let Ok(mut found) = self.engine.pods().await else { continue };
            let containers = found.remove(&order.key).unwrap_or_default().of(order.hash);
            let Some(container) = containers.get(name.as_str()) else { continue };
            if self.engine.is_unhealthy(container).await.is_ok_and(|unhealthy| unhealthy) {
                return;
            }
        }
    }

    /// Waits until a service is as far as `condition` wants it.
    async fn wait_until(
        &self,
        lease: &Lease,
        order: &Order<'_>,
        name: &Label,
        condition: Condition,
        end: Instant,
    ) -> Result<(), JobError> {
        let Some(service) = order.pod.services().get(name) else { return Ok(()) };
        loop {
            let found = self.engine.pods().await?.remove(&lease.key).unwrap_or_default();
            let containers = found.of(order.hash);
            let readiness = match (containers.get(name.as_str()), condition) {
                (Some(_), Condition::ServiceStarted) => Readiness::Ready,
                (Some(container), Condition::ServiceHealthy) => {
                    self.engine.readiness(container, service).await?
                }
                (Some(container), Condition::ServiceCompletedSuccessfully) => {
                    self.engine.completion(container, service).await?
                }
                (None, _) => Readiness::NotYet("it is not there".into()),
            };
            let why = match readiness {
                Readiness::Ready => return Ok(()),
                Readiness::Failed(why) => return Err(JobError::Failed(name.to_string(), why)),
                Readiness::NotYet(why) => why,
            };
            // A lease that was not activated has its time limit on chain, too.
            let late = lease.state == State::Pending && self.is_late(lease);
            if late || Instant::now() > end {
                return Err(JobError::Late(name.to_string(), why));
            }
            self.statuses.note(lease.key, format!("service {name}: {why}"));
            tokio::time::sleep(READY_POLL).await;
        }
    }

    fn is_late(&self, lease: &Lease) -> bool {
        // Some seconds early, while it can still say why.
        self.seen.borrow().head.timestamp + 5 > lease.start_by
    }

    async fn activate(&self, lease: &Lease, wake: &Notify) -> Result<(), JobError> {
        let key = lease.key;
        self.statuses.set(key, Phase::Running, None);
        self.runs.ready(key, self.runs.wanted(lease));
        // Requests are let through before the transaction is mined.
        self.reroute().await;
        if lease.state == State::Pending {
            let leases = self.sender.chain().deployment().leases;
            let sent = self.sender.send(leases, &Leases::activateCall { id: key.lease }).await;
            if let Err(SendError::Refused(why) | SendError::Reverted(_, why)) = &sent
                && cannot_pay(why)
            {
                return self.unpaid(key, why).await;
            }
            sent?;
            tracing::info!(lease.id = key.lease, "lease {} runs", key.lease);
        }
        wake.notify_one();
        Ok(())
    }

    /// Closes a lease that was ready and whose account cannot pay for it: its provider would else count as one that missed the
    /// start, and a winner of an auction pay for that. If the account can pay again, Leases refuses, and activating is tried
    /// again.
    async fn unpaid(&self, key: PodKey, why: &Revert) -> Result<(), JobError> {
        let lease = key.lease;
        tracing::warn!(
            lease.id = lease,
            error = %why,
            "lease {lease} is given up: its account cannot pay for it"
        );
        let message = format!("it is ready, and its account cannot pay for it: {why}");
        self.house.troubles.note(format!("lease {lease}"), &message);
        self.statuses.set(key, Phase::Failed, Some(message));
        self.records.never_ran(key);
        self.close(key, CloseReason::AccountDry).await
    }

    async fn close(&self, key: PodKey, reason: CloseReason) -> Result<(), JobError> {
        let leases = self.sender.chain().deployment().leases;
        let call = Leases::closeCall { id: key.lease, reason: reason as u8 };
        self.sender.send(leases, &call).await?;
        tracing::info!(lease.id = key.lease, "closed lease {}: {reason}", key.lease);
        Ok(())
    }

    /// Sends requests to what runs by now; where that cannot be read, they go where they went.
    async fn reroute(&self) {
        let look = self.runs.1.begin();
        if let Ok(pods) = self.engine.pods().await
            && self.runs.1.is_newest(look)
        {
            let snapshot = Arc::clone(&self.seen.borrow());
            self.route(&snapshot, &pods);
        }
    }

    /// Sends every host's requests, and what comes to public ports, to its pod, and has hosts shown with their
    /// certificates. Where two leases want one host, the older has it.
    fn route(&self, snapshot: &Snapshot, pods: &BTreeMap<PodKey, Found>) {
        use bollard::models::ContainerSummaryStateEnum as S;
        let (mut routes, mut ports) = (HashMap::new(), Wanted::default());
        let (mut served, mut claims) = (HashMap::new(), Vec::new());
        for (key, lease) in &snapshot.leases {
            if !matches!(lease.state, State::Pending | State::Active) {
                // A reorg may open it again.
                ports.keep(*key);
                continue;
            }
            let found = pods.get(key).cloned().unwrap_or_default();
            let serving = self.runs.serving(lease, &found);
            let Ok(pod) = self.pods.get(serving) else {
                ports.leave(*key);
                continue;
            };
            // While a lease changes, it may go either way.
            match self.pods.get(lease.pod) {
                Ok(next) => ports.reserve(*key, &next),
                Err(_) => ports.keep(*key),
            }
            ports.reserve(*key, &pod);
            let containers = found.of(serving);
            // Said before its pod is frozen: a request to a frozen one would hang.
            let dry = lease.is_dry(snapshot.head.timestamp);
            for (host, target) in pod.ingress() {
                let replicas = pod.replicas(&target.service);
                let replicas = replicas.map(|name| containers.get(name.as_str()));
                let backend = backend(replicas, target, dry);
                routes.entry(host.to_string()).or_insert(backend);
                served.entry(host.to_string()).or_insert((key.lease, serving));
                claims.push(Claim {
                    host: host.clone(),
                    key: *key,
                    active: lease.state == State::Active,
                    account: lease.account,
                    pod: serving,
                    tls: pod.tls().get(host).cloned(),
                });
            }
            // Of a pod that is frozen nothing is open: who is connected would wait for ever.
            for (service, port) in pod.public_ports().filter(|_port| !dry) {
                let container = containers.get(service.as_str());
                let running = container.filter(|container| container.state == S::RUNNING);
                let to =
                    running.and_then(|container| container.at(port.transport, port.number.get()));
                ports.open(*key, service, port, to);
            }
        }
        self.served.set(served);
        self.routes.set(routes);
        self.ports.set(&ports);
        if let Some(certificates) = &self.certificates {
            certificates.set(&claims, self);
        }
    }

    /// The pods and secrets that a lease still needs.
    pub(crate) fn used(&self) -> BTreeSet<(B256, PodHash)> {
        self.seen.borrow().leases.values().flat_map(Lease::pods).collect()
    }
}

impl Envelopes for Shared {
    fn sent(&self, account: B256, pod: PodHash) -> Option<SystemTime> {
        self.pods.secrets_sent(account, pod)
    }

    fn open(&self, account: B256, pod: PodHash) -> Result<seal::Secrets, String> {
        let envelope = self.pods.secrets(account, pod).map_err(|err| causes(&err))?;
        let opened = seal::Secrets::open(&envelope, &self.keys.seal, &self.context(account, pod));
        opened.map_err(|err| causes(&err))
    }
}

/// Where the requests for a target go, given its service's container and those of its replicas.
fn backend<'a>(
    replicas: impl Iterator<Item = Option<&'a Container>>,
    target: &Target,
    dry: bool,
) -> Backend {
    use bollard::models::ContainerSummaryStateEnum as S;
    let replicas: Vec<_> = replicas.flatten().collect();
    let running = replicas.iter().filter(|container| container.state == S::RUNNING);
    let addrs: Vec<SocketAddr> =
        running.filter_map(|one| one.at(Transport::Tcp, target.port.get())).collect();
    let paused = replicas.iter().any(|container| container.state == S::PAUSED);
    match target.protocol {
        _ if dry || (addrs.is_empty() && paused) => Backend::Unavailable(PAUSED.into()),
        _ if addrs.is_empty() => Backend::Unavailable("starting".into()),
        Http::Http1 => Backend::Addrs(addrs),
        Http::H2c => Backend::H2c(addrs),
    }
}

/// Whether Payments does not let a lease's stream start: for want of money, or because its payer has ended it.
fn cannot_pay(why: &Revert) -> bool {
    matches!(
        why,
        Revert::Payments(
            PaymentsErrors::Payments_Underfunded(_) | PaymentsErrors::Payments_WrongState(_)
        )
    )
}

/// Why a lease that never ran has to be closed, if it has to.
fn fatal(err: &JobError, tries: u32) -> Option<CloseReason> {
    match err {
        JobError::Pod(PodError::NoSecrets(_))
        | JobError::Secrets(_)
        | JobError::Engine(EngineError::SecretMissing(_)) => Some(CloseReason::SecretsUnreadable),
        JobError::Pod(PodError::Missing(_) | PodError::Broken(_)) => {
            Some(CloseReason::ProviderFault)
        }
        JobError::Engine(EngineError::Image { .. } | EngineError::NotPushed(_)) => {
            (tries + 1 >= IMAGE_TRIES).then_some(CloseReason::ImageUnavailable)
        }
        JobError::Engine(
            EngineError::User { .. }
            | EngineError::Program { .. }
            | EngineError::Declared { .. }
            | EngineError::Unbounded { .. }
            | EngineError::Runtime(_)
            | EngineError::NotInCluster(_),
        )
        | JobError::Failed(..)
        | JobError::Late(..) => Some(CloseReason::Unhealthy),
        JobError::Full(..) | JobError::Ports(_) => Some(CloseReason::ProviderFull),
        JobError::NotOrdered { .. } => Some(CloseReason::ProviderPolicy),
        // What is encrypted is what the pod names, and the key fits: it will be no other the next time.
        JobError::Encrypted(err) if !err.is_io() => Some(CloseReason::ImageUnavailable),
        // That may have been the disk, or what the layer is.
        JobError::Refused(ScreenError::Read(_)) => {
            (tries + 1 >= IMAGE_TRIES).then_some(CloseReason::ImageUnavailable)
        }
        JobError::Refused(_) => Some(CloseReason::ImageUnavailable),
        JobError::Encrypted(_) | JobError::Ciphertext(_) | JobError::Changed => None,
        JobError::Engine(_) | JobError::Pod(_) | JobError::Send(_) | JobError::Order(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;
    use protocol::amount::Units;

    use super::*;

    fn lease(state: State, over: bool) -> Lease {
        Lease {
            key: PodKey { lease: 1, opening: B256::ZERO },
            block: 10,
            pod: PodHash::default(),
            former: BTreeSet::new(),
            account: B256::ZERO,
            payer: Address::ZERO,
            start_by: 100,
            lock: 50,
            owed: Units(0),
            funded_until: 1_000,
            state,
            over,
        }
    }

    #[test]
    fn decisions() {
        use Action::{Activate, Close, Pause, Remove, Start, Thaw};
        use Actual::{Absent, Frozen, Partial, Whole};
        let check = |state, over, now, actual, wanted| {
            assert_eq!(
                decide(&lease(state, over), now, actual),
                wanted,
                "{state} {now} {actual:?}"
            );
        };
        check(State::Pending, false, 100, Absent, Some(Start));
        check(State::Pending, false, 100, Partial, Some(Start));
        check(State::Pending, false, 100, Whole, Some(Activate));
        check(State::Pending, false, 101, Whole, Some(Close(CloseReason::StartMissed)));

        check(State::Active, false, 1_000, Whole, None);
        check(State::Active, false, 1_000, Partial, Some(Start));
        check(State::Active, false, 1_000, Frozen, Some(Thaw));
        check(State::Active, false, 1_001, Whole, Some(Pause));
        check(State::Active, false, 1_001, Frozen, None);
        check(State::Active, false, 1_050, Frozen, None);
        check(State::Active, false, 1_051, Frozen, Some(Close(CloseReason::AccountDry)));

        // A close, or a reorg that takes the opening back, removes nothing before it is confirmed.
        for state in [State::Closed, State::None] {
            check(state, false, 1, Whole, None);
            check(state, false, 5_000, Frozen, None);
            check(state, true, 1, Whole, Some(Remove));
            check(state, true, 1, Partial, Some(Remove));
            check(state, true, 1, Absent, None);
        }
    }

    #[test]
    fn an_older_look_changes_no_route() {
        let looks = Looks::default();
        let (pass, job) = (looks.begin(), looks.begin());
        assert!(looks.is_newest(job));
        assert!(!looks.is_newest(pass), "it saw what was there before");
        assert!(looks.is_newest(looks.begin()));
    }

    #[test]
    fn requests_go_to_what_runs_in_the_protocol_that_it_speaks() {
        use bollard::models::ContainerSummaryStateEnum as S;
        let target = |protocol: &str| -> Target {
            let json = serde_json::json!({ "port": 90, "protocol": protocol, "service": "web" });
            serde_json::from_value(json).unwrap()
        };
        let ip = std::net::Ipv4Addr::new(10, 213, 0, 2);
        let addrs = vec![(ip, 90).into()];
        let id = "web".to_owned();
        let runs = Container { id, state: S::RUNNING, ip: Some(ip), lost: false, task: None };
        let frozen = Container { state: S::PAUSED, ..runs.clone() };
        let paused = Backend::Unavailable(PAUSED.into());
        for (container, protocol, dry, wanted) in [
            (Some(&runs), "http1", false, Backend::Addrs(addrs.clone())),
            (Some(&runs), "h2c", false, Backend::H2c(addrs)),
            (Some(&runs), "h2c", true, paused.clone()),
            (Some(&frozen), "h2c", false, paused),
            (None, "h2c", false, Backend::Unavailable("starting".into())),
        ] {
            let backend = backend([container].into_iter(), &target(protocol), dry);
            assert_eq!(backend, wanted, "{protocol} {dry}");
        }
        let other = std::net::Ipv4Addr::new(10, 213, 0, 3);
        let second = Container { ip: Some(other), ..runs.clone() };
        let replicas = [Some(&runs), None, Some(&second), Some(&frozen)].into_iter();
        let both = Backend::Addrs(vec![(ip, 90).into(), (other, 90).into()]);
        assert_eq!(backend(replicas, &target("http1"), false), both);
    }

    #[test]
    fn only_what_cannot_get_better_is_given_up() {
        let image = || JobError::Engine(EngineError::NotPushed("x".into()));
        assert_eq!(fatal(&image(), 0), None);
        assert_eq!(fatal(&image(), 2), Some(CloseReason::ImageUnavailable));
        assert_eq!(fatal(&JobError::Engine(EngineError::NoNetwork), 100), None);
        let full = JobError::Full("2 cpu".into(), "1 cpu".into());
        assert_eq!(fatal(&full, 0), Some(CloseReason::ProviderFull));
        let ports = JobError::Ports(PortsError::Full { needed: 2, free: 1 });
        assert_eq!(fatal(&ports, 0), Some(CloseReason::ProviderFull));
    }
}
