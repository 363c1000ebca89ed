//! How far each lease is, for its payer to see. Nothing is decided by it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::lease::State;

use crate::{
    leases::{Lease, PodKey},
    wire::Phase,
};

/// The statuses of all leases.
#[derive(Debug, Default)]
pub(crate) struct Statuses(Mutex<HashMap<PodKey, (Phase, Option<String>)>>);

impl Statuses {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, (Phase, Option<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a job is at.
    pub(crate) fn set(&self, key: PodKey, phase: Phase, message: Option<String>) {
        self.lock().insert(key, (phase, message));
    }

    /// What went wrong last.
    pub(crate) fn note(&self, key: PodKey, message: String) {
        self.lock().entry(key).or_insert((Phase::Seen, None)).1 = Some(message);
    }

    /// What a pass found: it overrules what jobs said before.
    pub(crate) fn see(&self, lease: &Lease, whole: bool, frozen: bool) {
        let mut statuses = self.lock();
        let (phase, message) = statuses.entry(lease.key).or_insert((Phase::Seen, None));
        match lease.state {
            State::Closed | State::None => *phase = Phase::Closed,
            State::Active if frozen => {
                (*phase, *message) = (Phase::Paused, Some("the account is dry: fund it".into()));
            }
            State::Active if whole => {
                if *phase != Phase::Running {
                    (*phase, *message) = (Phase::Running, None);
                }
            }
            State::Active if *phase == Phase::Running => *phase = Phase::Unhealthy,
            State::Active | State::Pending => (),
        }
    }

    /// How far a lease is.
    pub(crate) fn get(&self, key: PodKey) -> (Phase, Option<String>) {
        self.lock().get(&key).cloned().unwrap_or((Phase::Seen, None))
    }

    /// Drops a lease of which nothing is left.
    pub(crate) fn forget(&self, key: PodKey) {
        self.lock().remove(&key);
    }
}
