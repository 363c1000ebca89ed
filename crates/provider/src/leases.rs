//! What the chain says of this provider's leases.
//!
//! Logs up to the confirmed block are read once and folded; logs above it are read anew each time, because a reorg
//! may take them back. The fold is written down so that a start does not cost more the longer the history is; without
//! that file the same comes out of the chain.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use alloy::primitives::{Address, B256};
use chain::{Amendment, Chain, Head, Opening, ReadError, abi::ILeases::LeaseView};
use protocol::{
    amount::{SCALE, Units},
    lease::State,
    pod::PodHash,
};
use serde::{Deserialize, Serialize};

/// After how many blocks the fold is written down although nothing happened.
const WRITE_EVERY: u64 = 200;

/// The state of a stream in Payments that was ended.
const STREAM_CLOSED: u8 = 3;

/// A lease's pod on this machine: the number of the lease and the digest of the quote that opened it. After a reorg
/// the same number may be another lease's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct PodKey {
    pub(crate) lease: u64,
    pub(crate) opening: B256,
}

/// A lease of this provider's, at the head and at the confirmed block.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) key: PodKey,
    /// The block of its opening.
    pub(crate) block: u64,
    /// What it runs: what it was opened with, or last amended to.
    pub(crate) pod: PodHash,
    /// The pods that it ran before.
    pub(crate) former: BTreeSet<PodHash>,
    pub(crate) account: B256,
    pub(crate) payer: Address,
    pub(crate) start_by: u64,
    pub(crate) lock: u64,
    pub(crate) owed: Units,
    /// The second in which its account runs or ran dry.
    pub(crate) funded_until: u64,
    pub(crate) state: State,
    /// Whether it is over at the confirmed block, or was never opened there although it should have been: only then
    /// may its pod be removed.
    pub(crate) over: bool,
}

/// The leases as of one head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) head: Head,
    pub(crate) confirmed: u64,
    pub(crate) leases: BTreeMap<PodKey, Lease>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    opening: B256,
    block: u64,
    account: B256,
    start_by: u64,
    pods: Vec<PodHash>,
}

/// What is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fold {
    chain_id: u64,
    leases: Address,
    provider: Address,
    /// Up to this block, which is confirmed, it is complete.
    block: u64,
    known: BTreeMap<u64, Known>,
}

/// Follows the leases of one provider.
#[derive(Debug)]
pub(crate) struct Follower {
    chain: Chain,
    confirmations: u64,
    file: PathBuf,
    written: u64,
    fold: Fold,
}

impl Follower {
    /// Goes on from `file`, or from the deployment's block where that is missing or another chain's.
    pub(crate) fn open(chain: Chain, provider: Address, confirmations: u64, file: PathBuf) -> Self {
        let deployment = chain.deployment();
        let fresh = Fold {
            chain_id: deployment.chain_id,
            leases: deployment.leases,
            provider,
            block: deployment.block,
            known: BTreeMap::new(),
        };
        let read = || serde_json::from_slice::<Fold>(&std::fs::read(&file).ok()?).ok();
        let same = |fold: &Fold| {
            (fold.chain_id, fold.leases, fold.provider)
                == (fresh.chain_id, fresh.leases, fresh.provider)
        };
        let fold = read().filter(same).unwrap_or(fresh);
        Self { chain, confirmations, file, written: fold.block, fold }
    }

    /// Reads what is new. When it fails, nothing follows.
    pub(crate) async fn read(&mut self) -> Result<Snapshot, ReadError> {
        let head = self.chain.head().await?;
        let confirmed = head.number.saturating_sub(self.confirmations).max(self.fold.block);
        let provider = Some(self.fold.provider);
        let from = self.fold.block + 1;
        let openings = self.chain.openings(provider, None, from, head.number).await?;
        let amendments = self.chain.amendments(self.fold.provider, from, head.number).await?;

        let deployment = self.chain.deployment();
        let digest = |o: &Opening| o.quote.digest(deployment.chain_id, deployment.leases);
        let news = openings.iter().map(|o| (digest(o), o)).collect::<Vec<_>>();
        let grown = apply(&mut self.fold.known, &news, &amendments, |block| block <= confirmed);
        self.fold.block = confirmed;
        let mut known = self.fold.known.clone();
        apply(&mut known, &news, &amendments, |block| block > confirmed);

        let ids: Vec<u64> = known.keys().copied().collect();
        let now = self.chain.lease_views(&ids, Some(head.number)).await?;
        let then = self.chain.lease_views(&ids, Some(confirmed)).await?;
        let ended = self.ended(&ids, &now, head.number).await?;
        let mut snapshot = Snapshot { head, confirmed, leases: BTreeMap::new() };
        for ((id, known), (now, then)) in known.into_iter().zip(now.into_iter().zip(then)) {
            let mut lease = lease(id, known, &now, &then, confirmed);
            if ended.contains(&id) {
                // It pays for nothing any more: as if its account had been dry for ever.
                (lease.funded_until, lease.lock) = (0, 0);
            }
            snapshot.leases.insert(lease.key, lease);
        }
        if grown || confirmed >= self.written + WRITE_EVERY {
            self.write();
        }
        Ok(snapshot)
    }

    /// Which active leases' streams were ended by the account's owner, behind the back of Leases.
    async fn ended(
        &self,
        ids: &[u64],
        views: &[LeaseView],
        block: u64,
    ) -> Result<BTreeSet<u64>, ReadError> {
        let (mut ended, payments) = (BTreeSet::new(), self.chain.payments());
        // A stream that is ended has no rate; few others have none.
        for (id, _) in
            ids.iter().zip(views).filter(|(_, view)| view.rate == 0 && state(view) == State::Active)
        {
            let stream = payments.stream(self.chain.stream_of(*id));
            if stream.block(block.into()).call().await?.state == STREAM_CLOSED {
                ended.insert(*id);
            }
        }
        Ok(ended)
    }

    /// Forgets leases that are over, paid, and whose pods are gone.
    pub(crate) fn forget(&mut self, settled: &[PodKey]) {
        for key in settled {
            if self.fold.known.get(&key.lease).is_some_and(|known| known.opening == key.opening) {
                self.fold.known.remove(&key.lease);
            }
        }
        if !settled.is_empty() {
            self.write();
        }
    }

    /// Whether the pod of `key`, of which no lease is known here, may go: its lease is closed, or was not opened,
    /// at the confirmed block.
    pub(crate) async fn is_over(
        &self,
        key: PodKey,
        seen_in: u64,
        confirmed: u64,
    ) -> Result<bool, ReadError> {
        if self.fold.known.get(&key.lease).is_some_and(|known| known.opening == key.opening) {
            return Ok(false);
        }
        let views = self.chain.lease_views(&[key.lease], Some(confirmed)).await?;
        let state = views.first().map_or(State::None, state);
        let other = self.fold.known.contains_key(&key.lease);
        Ok(state == State::Closed || (confirmed >= seen_in && (state == State::None || other)))
    }

    fn write(&mut self) {
        let text = serde_json::to_vec(&self.fold).unwrap_or_default();
        let draft = self.file.with_extension("draft");
        let wrote = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &self.file));
        match wrote {
            Ok(()) => self.written = self.fold.block,
            Err(err) => note_unwritten(&err, &self.file),
        }
    }
}

fn note_unwritten(err: &io::Error, file: &std::path::Path) {
    let file = file.display();
    tracing::warn!(error = %err, "{file} could not be written; the next start reads more of the chain");
}

/// Folds the logs whose block is `wanted`. True if there were any.
fn apply(
    known: &mut BTreeMap<u64, Known>,
    openings: &[(B256, &Opening)],
    amendments: &[Amendment],
    wanted: impl Fn(u64) -> bool,
) -> bool {
    let mut any = false;
    for (digest, o) in openings.iter().filter(|(_, o)| wanted(o.block)) {
        any = true;
        known.insert(
            o.lease,
            Known {
                opening: *digest,
                block: o.block,
                account: o.account,
                start_by: o.start_by,
                pods: vec![PodHash(o.quote.pod)],
            },
        );
    }
    for amendment in amendments.iter().filter(|a| wanted(a.block)) {
        any = true;
        if let Some(known) = known.get_mut(&amendment.lease) {
            known.pods.push(PodHash(amendment.quote.pod));
        }
    }
    any
}

fn lease(id: u64, known: Known, now: &LeaseView, then: &LeaseView, confirmed: u64) -> Lease {
    let mut former: BTreeSet<PodHash> = known.pods.iter().copied().collect();
    let pod = known.pods.last().copied().unwrap_or_default();
    former.remove(&pod);
    let over = match state(then) {
        State::Closed => true,
        State::None => confirmed >= known.block,
        State::Pending | State::Active => false,
    };
    Lease {
        key: PodKey { lease: id, opening: known.opening },
        block: known.block,
        pod,
        former,
        account: known.account,
        payer: now.payer,
        start_by: known.start_by,
        lock: now.lock.into(),
        owed: Units(now.owed),
        funded_until: now.fundedUntil.to(),
        state: state(now),
        over,
    }
}

/// A state that this program does not know counts as active: nothing is removed because of it.
fn state(view: &LeaseView) -> State {
    State::try_from(view.lease.state).unwrap_or(State::Active)
}

impl Lease {
    /// Whether nothing of it is left to be done: what is owed is less than a base unit.
    pub(crate) fn is_settled(&self) -> bool {
        self.over && self.owed.0 < SCALE
    }

    /// Whether it is not paid for at a block whose time is `now`.
    pub(crate) fn is_dry(&self, now: u64) -> bool {
        self.state == State::Active && now > self.funded_until
    }

    /// Every pod that it ran, with the account whose secrets they may have.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (B256, PodHash)> + '_ {
        self.former.iter().chain([&self.pod]).map(|pod| (self.account, *pod))
    }
}
