//! Who challenged which lease, and what came of it, for the provider to see. Nothing is decided by it.
//!
//! Whoever pays for a lease may challenge it, and pays a bond for that; the latest are remembered.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use alloy::primitives::Address;
use chain::{ChallengeStep, ReadError, Sender};
use serde::{Deserialize, Serialize};

use crate::leases::Snapshot;

/// How many are remembered.
const MOST: usize = 200;

/// What came of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is to be answered.
    Open,
    /// It was.
    Answered,
    /// It was not, and the lease had to be answered for.
    Dark,
    /// It ended without an answer, and none was owed.
    Void,
}

/// A challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// Of which lease.
    pub lease: u64,
    /// Who made it.
    pub challenger: Address,
    /// Until when it is to be answered, in Unix seconds.
    pub deadline: u64,
    /// What came of it.
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// Up to this block, which is confirmed, it is complete.
    block: u64,
    confirmed: Vec<Challenge>,
    /// With what came after that, which may be taken back.
    all: Vec<Challenge>,
}

/// The latest challenges.
#[derive(Debug, Default)]
pub(crate) struct Challenges(Mutex<Known>);

impl Challenges {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new.
    pub(crate) async fn follow(
        &self,
        sender: &Sender,
        snapshot: &Snapshot,
    ) -> Result<(), ReadError> {
        let leases: Vec<u64> = snapshot.leases.keys().map(|key| key.lease).collect();
        let oldest = snapshot.leases.values().map(|lease| lease.block).min();
        let mut known = self.lock().clone();
        if let Some(oldest) = oldest {
            let from = (known.block + 1).max(oldest);
            let to = snapshot.head.number;
            let steps = sender.chain().challenge_steps(&leases, from, to).await?;
            let (sure, rest): (Vec<_>, Vec<_>) =
                steps.into_iter().partition(|(_, block, _)| *block <= snapshot.confirmed);
            apply(&mut known.confirmed, &sure);
            known.all = known.confirmed.clone();
            apply(&mut known.all, &rest);
        }
        known.block = snapshot.confirmed;
        *self.lock() = known;
        Ok(())
    }

    /// The latest first.
    pub(crate) fn all(&self) -> Vec<Challenge> {
        self.lock().all.iter().rev().copied().collect()
    }
}

fn apply(known: &mut Vec<Challenge>, steps: &[(u64, u64, ChallengeStep)]) {
    for (lease, _block, step) in steps {
        let lease = *lease;
        let outcome = match *step {
            ChallengeStep::Made { challenger, deadline } => {
                known.push(Challenge { lease, challenger, deadline, outcome: Outcome::Open });
                continue;
            }
            ChallengeStep::Answered => Outcome::Answered,
            ChallengeStep::Resolved { dark: true, .. } => Outcome::Dark,
            ChallengeStep::Resolved { dark: false, .. } => Outcome::Void,
        };
        if let Some(one) = known.iter_mut().rev().find(|one| one.lease == lease) {
            one.outcome = outcome;
        }
    }
    let many = known.len().saturating_sub(MOST);
    known.drain(..many);
}

/// The open ones of several, by lease.
pub(crate) fn open(challenges: &[Challenge]) -> BTreeMap<u64, u64> {
    let open = challenges.iter().filter(|one| one.outcome == Outcome::Open);
    open.map(|one| (one.lease, one.deadline)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_followed_to_its_end() {
        let made = |deadline: u64| ChallengeStep::Made { challenger: Address::ZERO, deadline };
        let over = |dark: bool| ChallengeStep::Resolved { dark, compensation: 1 };
        let mut known = Vec::new();
        apply(&mut known, &[(1, 5, made(50)), (2, 5, made(60)), (1, 6, ChallengeStep::Answered)]);
        assert_eq!(open(&known), BTreeMap::from([(2, 60)]));
        apply(&mut known, &[(2, 9, over(true)), (1, 10, made(90)), (1, 11, over(false))]);
        let outcomes: Vec<_> = known.iter().map(|one| one.outcome).collect();
        assert_eq!(outcomes, [Outcome::Answered, Outcome::Dark, Outcome::Void]);
        let many: Vec<_> = (0..500).map(|n| (n, n, made(n))).collect();
        apply(&mut known, &many);
        assert_eq!(known.len(), MOST);
    }
}
