//! Pods that are stopped, or frozen, at their payer's wish: while a volume is copied as it is.
//!
//! The payer asks for it, and is served nothing meanwhile. The worst that comes of it is a hold that nobody ends; it
//! ends by itself then, and after a restart of the provider at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    engine::{Container, EngineError, Found},
    leases::PodKey,
    reconcile::Shared,
    wire::Happening,
};

/// The longest time for which a pod is held without being asked again.
pub(crate) const MAX_HOLD: Duration = Duration::from_secs(3_600);

/// Which pods are held, and until when.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    until: Mutex<HashMap<PodKey, (Instant, bool)>>,
    /// Woken when a hold is to end at once.
    pub(crate) ends: Notify,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, (Instant, bool)>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pod is left as it is.
    pub(crate) fn is_held(&self, key: PodKey) -> bool {
        self.lock().contains_key(&key)
    }

    /// Has a hold end as soon as somebody can see to it.
    pub(crate) fn end(&self, key: PodKey) {
        if let Some((until, _)) = self.lock().get_mut(&key) {
            *until = Instant::now();
        }
        self.ends.notify_one();
    }

    fn over(&self) -> Vec<PodKey> {
        let now = Instant::now();
        self.lock().iter().filter(|(_, (until, _))| *until <= now).map(|(key, _)| *key).collect()
    }

    /// Holds, or holds longer; false if it is held in the other way.
    fn set(&self, key: PodKey, time: Duration, freeze: bool) -> bool {
        let mut until = self.lock();
        if until.get(&key).is_some_and(|(_, frozen)| *frozen != freeze) {
            return false;
        }
        until.insert(key, (Instant::now() + time.min(MAX_HOLD), freeze));
        true
    }

    fn forget(&self, key: PodKey) {
        self.lock().remove(&key);
    }
}

impl Shared {
    /// Stops, or freezes, the containers of a pod and leaves them so for `time`. False if it is held in the other way.
    pub(crate) async fn hold(
        &self,
        key: PodKey,
        found: &Found,
        time: Duration,
        freeze: bool,
    ) -> bool {
        let before = self.holds.is_held(key);
        if !self.holds.set(key, time, freeze) {
            return false;
        }
        if !before {
            use bollard::models::ContainerSummaryStateEnum as S;
            let up = |container: &&Container| matches!(container.state, S::RUNNING | S::RESTARTING);
            let containers: Vec<&Container> = found.containers().filter(up).collect();
            let ids = containers.iter().map(|container| container.id.clone()).collect();
            // Written down first, so that whatever happens they are started again.
            self.records.hold(key, ids);
            self.engine.hold(&containers, freeze).await;
            self.records.note(key, Happening::Held);
            tracing::info!(lease.id = key.lease, "lease {} is held", key.lease);
        }
        true
    }

    /// Has the containers of a pod that is held go on.
    pub(crate) async fn release(&self, key: PodKey) -> Result<(), EngineError> {
        let held = self.records.get(key).map(|record| record.held).unwrap_or_default();
        self.engine.release(&held).await?;
        self.holds.forget(key);
        if !held.is_empty() {
            self.records.hold(key, Vec::new());
            self.records.note(key, Happening::Resumed);
            tracing::info!(lease.id = key.lease, "lease {} goes on", key.lease);
        }
        Ok(())
    }

    /// Ends the holds whose time is over.
    pub(crate) async fn release_due(&self) {
        for key in self.holds.over() {
            if let Err(err) = self.release(key).await {
                let cause = crate::causes(&err);
                tracing::warn!(
                    lease.id = key.lease,
                    error = cause,
                    "lease {} is still held; it is tried again",
                    key.lease
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    #[test]
    fn holds_end() {
        let holds = Holds::default();
        let key = PodKey { lease: 1, opening: B256::ZERO };
        assert!(holds.set(key, MAX_HOLD, false) && holds.is_held(key));
        assert!(holds.set(key, MAX_HOLD, false), "it can be held longer");
        assert!(!holds.set(key, MAX_HOLD, true), "it is stopped, not frozen");
        assert_eq!(holds.over(), []);
        holds.end(key);
        assert_eq!(holds.over(), [key]);
        holds.forget(key);
        assert!(!holds.is_held(key));
        assert!(holds.set(key, Duration::ZERO, true));
        assert_eq!(holds.over(), [key]);
    }
}
