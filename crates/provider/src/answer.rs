//! Answers challenges: a provider that is there says so on the chain, within the time that its quotes promise.
//!
//! Who pays for a lease, or acts for who does, may challenge it, once per pause, with a bond that an answer wins. What is open
//! is read from the chain at each head, for all leases in one call, so nothing is remembered and a provider that starts again
//! answers what came meanwhile. The worst that a payer does is to challenge all of its leases at once, for one of them to be
//! late: answers go out together, `MOST` in a transaction, and no transaction waits for another. An answer costs the provider
//! about 93,000 gas, less with others, and brings it the bond, which the deployment sets above that; so many challenges are many bonds.
//!
//! What is answered for is what is owed: that the pod's containers are there and run as the pod says, or do not for a reason
//! that lies with the payer. Whether the program in them is healthy is not asked. Its publisher can break it from within, and
//! would be paid the coverage for that; finding out whether pods serve is the watchers' work.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use alloy::{
    primitives::Bytes,
    sol_types::{SolCall, SolValue},
};
use chain::{
    Chain, Head, ReadError, Revert, SendError,
    abi::{
        ISla::Challenge,
        Sla::{self, SlaErrors},
    },
};
use futures::future::join_all;
use protocol::{
    lease::State,
    pod::{Pod, PodHash},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    causes,
    engine::{Found, is_up},
    leases::{Lease, PodKey, Snapshot},
    reconcile::Shared,
    records::rfc3339,
    wire::{Happening, Phase},
};

/// How many leases' challenges one call reads.
const READ_AT_ONCE: usize = 200;

/// The most answers in one transaction.
const MOST: usize = 20;

/// What was done about a lease's challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    /// Which one: when it was made.
    since: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// It is known, and its pod is not there yet.
    Waits,
    /// The answer is under way.
    Sent,
    /// It was answered in this block. If a reorganisation takes that back it is open in a later one.
    Answered(u64),
    /// It cannot be answered any more.
    Missed,
}

/// An answer, with the block that it is in.
type Outcome = (PodKey, u64, Result<u64, SendError>);

/// Answers until it is stopped.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut seen = shared.seen.subscribe();
    let mut done = HashMap::new();
    let mut sending: JoinSet<Vec<Outcome>> = JoinSet::new();
    let (mut failing, mut looked) = (false, Head::default());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = seen.changed() => if changed.is_err() { return },
            Some(ended) = sending.join_next() => {
                // A task that panicked has no name: its answers are sent again, and refused if they were there.
                match ended {
                    Ok(outcomes) => {
                        for outcome in outcomes {
                            shared.conclude(&mut done, outcome);
                        }
                    }
                    Err(_panicked) => done.clear(),
                }
                continue;
            }
        }
        let snapshot = Arc::clone(&seen.borrow_and_update());
        if std::mem::replace(&mut looked, snapshot.head) == snapshot.head {
            continue;
        }
        match shared.ready(&snapshot, &mut done).await {
            Ok(ready) => {
                failing = false;
                for some in ready.chunks(MOST) {
                    let (shared, some) = (Arc::clone(&shared), some.to_vec());
                    sending.spawn(async move { shared.answer(some).await });
                }
            }
            Err(err) if !failing => {
                failing = true;
                tracing::warn!(
                    error = causes(&err),
                    "challenges cannot be looked for; tried again"
                );
            }
            Err(_) => (),
        }
    }
}

/// Whether what a lease owes is there; else why not.
///
/// `serving` is the pod that its requests go to, with what is known of it here.
fn stands(
    lease: &Lease,
    found: &Found,
    serving: (PodHash, Option<&Pod>),
    excused: bool,
) -> Result<(), &'static str> {
    if excused {
        return Ok(());
    }
    if found.containers().next().is_none() {
        return Err("nothing of its pod is here");
    }
    let (hash, pod) = serving;
    let Some(pod) = pod else { return Err("its pod is not known here") };
    // A change that the payer asked for takes its time, and may be one to a pod that does not start.
    if hash != lease.pod {
        return Ok(());
    }
    let containers = found.of(hash);
    let up = pod.services().iter().all(|(name, service)| {
        containers.get(name.as_str()).is_some_and(|container| is_up(container, service))
    });
    if up { Ok(()) } else { Err("a part of its pod does not run") }
}

/// The open challenges of `leases` at a block.
async fn open(
    chain: &Chain,
    leases: &[u64],
    block: u64,
) -> Result<BTreeMap<u64, Challenge>, ReadError> {
    let mut open = BTreeMap::new();
    for ids in leases.chunks(READ_AT_ONCE) {
        let asked = ids.iter().map(|id| Sla::challengeOfCall { id: *id }.abi_encode().into());
        let contract = chain.sla();
        let call = contract.multicall(asked.collect()).block(block.into());
        for (id, answer) in ids.iter().zip(call.call().await?) {
            let challenge = Challenge::abi_decode(&answer)?;
            if !challenge.challenger.is_zero() {
                open.insert(*id, challenge);
            }
        }
    }
    Ok(open)
}

impl Shared {
    /// The leases whose challenges are to be answered now, each with when it was made.
    async fn ready(
        &self,
        snapshot: &Snapshot,
        done: &mut HashMap<PodKey, Done>,
    ) -> Result<Vec<(PodKey, u64)>, ReadError> {
        let active = snapshot.leases.values().filter(|lease| lease.state == State::Active);
        let active: BTreeMap<u64, &Lease> = active.map(|lease| (lease.key.lease, lease)).collect();
        let ids: Vec<u64> = active.keys().copied().collect();
        let open = open(self.sender.chain(), &ids, snapshot.head.number).await?;
        done.retain(|key, done| {
            done.what == What::Sent || open.get(&key.lease).is_some_and(|c| since(c) == done.since)
        });
        if open.is_empty() {
            return Ok(Vec::new());
        }
        // An engine that does not answer says nothing about pods, so nothing is said of them.
        let Ok(pods) = self.engine.pods().await else { return Ok(Vec::new()) };
        let mut ready = Vec::new();
        for (id, challenge) in &open {
            let Some(lease) = active.get(id) else { continue };
            let (key, since) = (lease.key, since(challenge));
            let before = done.get(&key).filter(|done| done.since == since).map(|done| done.what);
            match before {
                None => self.note_challenge(lease, challenge).await,
                Some(What::Waits) => (),
                Some(What::Answered(block)) if snapshot.head.number > block => (),
                Some(What::Sent | What::Answered(_) | What::Missed) => continue,
            }
            let found = pods.get(&key).cloned().unwrap_or_default();
            let serving = self.runs.serving(lease, &found);
            let pod = self.pods.get(serving).ok();
            let excused = self.is_excused(lease, snapshot.head.timestamp);
            let what = match stands(lease, &found, (serving, pod.as_ref()), excused) {
                Ok(()) => {
                    ready.push((key, since));
                    What::Sent
                }
                Err(why) => {
                    if before.is_none() {
                        tracing::warn!(
                            lease.id = id,
                            "lease {id} is challenged and cannot be answered for yet: {why}"
                        );
                    }
                    What::Waits
                }
            };
            done.insert(key, Done { since, what });
        }
        Ok(ready)
    }

    /// Whether its pod may be away because of its payer: who let the account run dry, had it held, changed it to one that
    /// cannot be started, or does not send the key of its images.
    fn is_excused(&self, lease: &Lease, now: u64) -> bool {
        let phase = self.statuses.get(lease.key).map(|status| status.phase);
        let waits = matches!(phase, Some(Phase::Failed | Phase::Locked));
        lease.is_dry(now) || self.holds.is_held(lease.key) || waits
    }

    async fn note_challenge(&self, lease: &Lease, challenge: &Challenge) {
        let (id, by) = (lease.key.lease, challenge.challenger);
        // What an amendment has changed since does not count, so it may be a little off.
        let views = self.sender.chain().lease_views(&[id], None).await.unwrap_or_default();
        let response = views.first().map_or(0, |view| view.lease.response.to::<u64>());
        let until = since(challenge).saturating_add(response);
        tracing::info!(
            lease.id = id,
            "lease {id} is challenged by {by}; to be answered by {until}"
        );
        let until = rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(until));
        self.records.challenged(lease.key, since(challenge), by, until);
    }

    /// Sends answers: all in one transaction, and each by itself where that one fails because of one of them.
    async fn answer(&self, some: Vec<(PodKey, u64)>) -> Vec<Outcome> {
        let sla = self.sender.chain().deployment().sla;
        let answer = |key: PodKey| Sla::answerCall { id: key.lease };
        if some.len() > 1 {
            let data = some.iter().map(|(key, _)| Bytes::from(answer(*key).abi_encode()));
            let all = Sla::multicallCall { data: data.collect() };
            if let Ok(receipt) = self.sender.send(sla, &all).await {
                let block = receipt.block_number.unwrap_or_default();
                return some.into_iter().map(|(key, since)| (key, since, Ok(block))).collect();
            }
        }
        let each = some.into_iter().map(async |(key, since)| {
            let sent = self.sender.send(sla, &answer(key)).await;
            (key, since, sent.map(|receipt| receipt.block_number.unwrap_or_default()))
        });
        join_all(each).await
    }

    fn conclude(&self, done: &mut HashMap<PodKey, Done>, (key, since, sent): Outcome) {
        let id = key.lease;
        let what = match sent {
            Ok(block) => {
                tracing::info!(
                    lease.id = id,
                    "answered the challenge of lease {id}; its bond is collected with what leases owe"
                );
                self.records.note(key, Happening::Answered);
                What::Answered(block)
            }
            Err(SendError::Refused(revert)) if is_too_late(&revert) => {
                let why = revert.to_string();
                self.house.troubles.note(format!("lease {id}"), &why);
                tracing::error!(lease.id = id, error = why, "lease {id} was not answered for");
                What::Missed
            }
            Err(err) => {
                let cause = causes(&err);
                self.house.troubles.note(format!("lease {id}"), &cause);
                tracing::warn!(lease.id = id, error = cause, "the answer for lease {id} waits");
                What::Waits
            }
        };
        done.insert(key, Done { since, what });
    }
}

fn is_too_late(revert: &Revert) -> bool {
    matches!(revert, Revert::Sla(SlaErrors::Sla_TooLate(_)))
}

fn since(challenge: &Challenge) -> u64 {
    challenge.since.to()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy::primitives::{Address, B256};
    use bollard::models::ContainerSummaryStateEnum as S;
    use protocol::amount::Units;

    use super::*;
    use crate::engine::Container;

    fn pod() -> Pod {
        let digest = format!("sha256:{}", "0".repeat(64));
        let text = format!(
            r#"{{"services":{{"web":{{"image":{{"pushed":{{"id":"{digest}"}}}},"limits":{{"cpu":100,"memory":67108864,"pids":64}}}}}}}}"#
        );
        Pod::decode(text.as_bytes()).unwrap()
    }

    fn lease(pod: PodHash) -> Lease {
        Lease {
            key: PodKey { lease: 1, opening: B256::ZERO },
            block: 1,
            pod,
            former: BTreeSet::new(),
            account: B256::ZERO,
            payer: Address::ZERO,
            start_by: 0,
            lock: 0,
            owed: Units(0),
            funded_until: 0,
            state: State::Active,
            over: false,
        }
    }

    fn found(pod: PodHash, state: S) -> Found {
        let container = Container { id: "c".into(), state, ip: None, lost: false, task: None };
        let containers = BTreeMap::from([("web".to_owned(), container)]);
        Found { block: 1, pods: BTreeMap::from([(pod, containers)]) }
    }

    #[test]
    fn a_pod_that_runs_is_answered_for_and_one_that_is_gone_is_not() {
        let pod = pod();
        let hash = pod.hash();
        let check = |found: Found, excused: bool, wanted: bool| {
            let stands = stands(&lease(hash), &found, (hash, Some(&pod)), excused);
            assert_eq!(stands.is_ok(), wanted, "{found:?} {stands:?}");
        };
        check(found(hash, S::RUNNING), false, true);
        check(found(hash, S::RESTARTING), false, true);
        check(found(hash, S::PAUSED), false, true);
        check(found(hash, S::CREATED), false, false);
        check(found(hash, S::DEAD), false, false);
        check(Found::default(), false, false);
        // What its payer brought about is not held against the provider.
        check(found(hash, S::CREATED), true, true);
        check(Found::default(), true, true);
    }

    #[test]
    fn a_change_that_is_under_way_does_not_count_as_being_away() {
        let (pod, new) = (pod(), PodHash(B256::repeat_byte(9)));
        let hash = pod.hash();
        let stands = |found: &Found| stands(&lease(new), found, (hash, Some(&pod)), false).is_ok();
        assert!(stands(&found(hash, S::CREATED)));
        assert!(!stands(&Found::default()));
        assert!(super::stands(&lease(new), &found(hash, S::RUNNING), (hash, None), false).is_err());
    }

    #[test]
    fn only_a_time_that_is_over_ends_it() {
        use chain::abi::Sla::{Sla_NoChallenge, Sla_TooLate};
        let revert = |err| Revert::Sla(err);
        assert!(is_too_late(&revert(SlaErrors::Sla_TooLate(Sla_TooLate::default()))));
        let none = Sla_NoChallenge::default();
        assert!(!is_too_late(&revert(SlaErrors::Sla_NoChallenge(none))));
    }
}
