//! Compares leases with containers and closes the difference.
//!
//! A pass takes no input: it reads the chain and the engine, decides for every pod purely, and starts a job for what
//! has to be done. The next pass is the retry. A pass that could not read either of them decides nothing, so nothing is
//! ever removed because something did not answer.

mod jobs;
mod serving;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use alloy::primitives::B256;
use chain::{Head, ReadError};
use edge::Routes;
use protocol::{
    lease::{CloseReason, State},
    pod::{Label, Mount, Pod, PodHash, Service},
    resources::{Bytes, Resources},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::jobs::JobError;
use crate::{
    addons::{Addons, bids::Bids},
    blobs::Blobs,
    causes,
    certificates::{Envelopes, HostCertificates},
    engine::{Engine, EngineError, Found, is_up},
    holds::Holds,
    house::House,
    leases::{Follower, Lease, PodKey, Snapshot},
    pods::Pods,
    ports::Ports,
    records::Records,
    shown::Shown,
    status::Statuses,
    unlock::Unlocks,
    visit::Served,
};

/// The longest time between two passes.
const TICK: Duration = Duration::from_secs(5);

/// How long a job that failed is left alone, times the failures so far.
const BACKOFF: Duration = Duration::from_secs(2);

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
    /// Everything is there, and some of it is frozen.
    Half,
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
            Actual::Frozen | Actual::Half => Action::Thaw,
            Actual::Absent | Actual::Partial => Action::Start,
        }),
        State::Active if now > lease.funded_until.saturating_add(lease.lock) => {
            Some(Action::Close(CloseReason::AccountDry))
        }
        State::Active if now > lease.funded_until => match actual {
            Actual::Whole | Actual::Partial | Actual::Half => Some(Action::Pause),
            Actual::Absent | Actual::Frozen => None,
        },
        State::Active => match actual {
            Actual::Whole => None,
            Actual::Frozen | Actual::Half => Some(Action::Thaw),
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
    let any = |state| containers.values().any(|container| container.state == state);
    match (any(S::PAUSED), any(S::RUNNING)) {
        (false, _) => Actual::Whole,
        (true, false) => Actual::Frozen,
        (true, true) => Actual::Half,
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
pub(crate) struct Runs {
    runs: Mutex<HashMap<PodKey, Run>>,
    looks: Looks,
}

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
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
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
        let look = self.shared.runs.looks.begin();
        let began = Instant::now();
        let pods = self.shared.engine.pods().await?;
        self.shared.house.metrics.listed(began.elapsed());
        let now = snapshot.head.timestamp;
        if self.shared.runs.looks.is_newest(look) {
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
        use Actual::{Absent, Frozen, Half, Partial, Whole};
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
        check(State::Active, false, 1_000, Half, Some(Thaw));
        check(State::Active, false, 1_001, Half, Some(Pause));
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
}
