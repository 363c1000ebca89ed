//! How far each lease is, for its payer to see. Nothing is decided by it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use protocol::{lease::State, pod::PodHash};

use crate::{
    leases::{Lease, PodKey},
    records::Records,
    wire::Phase,
};

/// How far one lease is.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// The pod that this is about.
    pub(crate) pod: PodHash,
    pub(crate) phase: Phase,
    /// What went wrong last.
    pub(crate) message: Option<String>,
}

/// The statuses of all leases. What changes is written into their records.
#[derive(Debug)]
pub(crate) struct Statuses {
    known: Mutex<HashMap<PodKey, Status>>,
    /// When pods were thawed: what their health checks said before does not count.
    thawed: Mutex<HashMap<PodKey, SystemTime>>,
    records: Arc<Records>,
}

impl Statuses {
    pub(crate) fn new(records: Arc<Records>) -> Self {
        Self { known: Mutex::default(), thawed: Mutex::default(), records }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Status>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a job is at.
    pub(crate) fn set(&self, key: PodKey, phase: Phase, message: Option<String>) {
        self.records.phase(key, phase, message.as_deref());
        if let Some(status) = self.lock().get_mut(&key) {
            (status.phase, status.message) = (phase, message);
        }
    }

    /// What went wrong last.
    pub(crate) fn note(&self, key: PodKey, message: String) {
        if let Some(status) = self.lock().get_mut(&key) {
            status.message = Some(message);
        }
    }

    /// What a pass found: it overrules what jobs said before.
    pub(crate) fn see(&self, lease: &Lease, whole: bool, frozen: bool) {
        let mut statuses = self.lock();
        let new = Status { pod: lease.pod, phase: Phase::Seen, message: None };
        let status = statuses.entry(lease.key).or_insert_with(|| new.clone());
        if status.pod != lease.pod {
            *status = new;
        }
        let (phase, message) = match lease.state {
            State::Closed | State::None if status.phase != Phase::Failed => (Phase::Closed, None),
            State::Active if frozen => {
                (Phase::Paused, Some("the account is dry: fund it".to_owned()))
            }
            State::Active if whole && status.phase != Phase::Running => (Phase::Running, None),
            State::Closed | State::None | State::Active | State::Pending => return,
        };
        self.records.phase(lease.key, phase, message.as_deref());
        (status.phase, status.message) = (phase, message);
    }

    /// Says that a pod was thawed.
    pub(crate) fn thaw(&self, key: PodKey) {
        let mut thawed = self.thawed.lock().unwrap_or_else(PoisonError::into_inner);
        thawed.insert(key, SystemTime::now());
    }

    /// When a pod was last thawed, if it was.
    pub(crate) fn thawed(&self, key: PodKey) -> Option<SystemTime> {
        self.thawed.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    /// How far a lease is.
    pub(crate) fn get(&self, key: PodKey) -> Option<Status> {
        self.lock().get(&key).cloned()
    }

    /// Drops a lease of which nothing is left.
    pub(crate) fn forget(&self, key: PodKey) {
        self.lock().remove(&key);
        self.thawed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}
