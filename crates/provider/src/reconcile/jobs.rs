//! What is done for a pod: what brings it up, changes it, and takes it down.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use chain::{
    ReadError, Revert, SendError,
    abi::{Leases, Payments::PaymentsErrors},
};
use protocol::{
    lease::{CloseReason, State},
    pod::{Condition, Label, Pod, PodHash},
    resources::{Bytes, Resources},
};
use tokio::sync::Notify;

use super::{Action, Shared, can_overlap};
use crate::{
    addons::bids,
    causes,
    engine::{EngineError, Order, Readiness},
    leases::{Lease, PodKey},
    pods::PodError,
    ports::PortsError,
    screen::ScreenError,
    sealed::Images,
    wire::Phase,
};

/// After how many failures to get an image a lease that never ran is given up.
const IMAGE_TRIES: u32 = 3;

/// How often a starting pod is looked at.
const READY_POLL: Duration = Duration::from_millis(100);

/// For how long a pod that is paid for already is waited for in one job.
const READY_PATIENCE: Duration = Duration::from_secs(120);

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

impl Shared {
    pub(super) async fn job(
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
    pub(super) async fn note_end(&self, key: PodKey) -> Result<(), ReadError> {
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
    pub(super) fn context(&self, account: B256, pod: PodHash) -> seal::Context {
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
    use super::*;

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
