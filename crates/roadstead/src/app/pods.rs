//! The pods that an app may run: one, or a set whose Merkle root Apps has.

use std::collections::BTreeSet;

use alloy::primitives::{B256, keccak256};

/// Hashes of pods. The same set has the same root, in whatever order it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pods(Vec<B256>);

impl Pods {
    /// `pod`, and others beside it.
    pub(super) fn new(pod: B256, others: &[B256]) -> Self {
        let all: BTreeSet<B256> = others.iter().copied().chain([pod]).collect();
        Self(all.into_iter().collect())
    }

    /// What Apps has for them; of one pod its own hash.
    pub(super) fn root(&self) -> B256 {
        let mut level = self.0.clone();
        while level.len() > 1 {
            level = above(&level);
        }
        level.first().copied().unwrap_or_default()
    }

    /// What leads from `pod`, which is one of them, to the root: none where it is alone.
    pub(super) fn proof(&self, pod: B256) -> Vec<B256> {
        let (mut level, mut proof) = (self.0.clone(), Vec::new());
        let mut at = level.binary_search(&pod).unwrap_or_default();
        while level.len() > 1 {
            proof.extend(level.get(at ^ 1));
            at /= 2;
            level = above(&level);
        }
        proof
    }
}

/// The level above one; what has no neighbour goes up as it is.
fn above(level: &[B256]) -> Vec<B256> {
    let node = |pair: &[B256]| match pair {
        [one, other] => {
            // As OpenZeppelin's MerkleProof has it: a pair is hashed in its order.
            let (first, second) = if one < other { (one, other) } else { (other, one) };
            keccak256([first.0, second.0].concat())
        }
        alone => alone.first().copied().unwrap_or_default(),
    };
    level.chunks(2).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root that a proof leads to, as the contract reckons it.
    fn led_to(pod: B256, proof: &[B256]) -> B256 {
        proof.iter().fold(pod, |hash, other| {
            let (first, second) = if hash < *other { (hash, *other) } else { (*other, hash) };
            keccak256([first.0, second.0].concat())
        })
    }

    #[test]
    fn every_pod_of_a_set_is_led_to_its_root_and_no_other() {
        for count in 1_u8..=9 {
            let all: Vec<B256> = (1..=count).map(B256::repeat_byte).collect();
            let root = Pods::new(all[0], &all[1..]).root();
            for pod in &all {
                let mut others = all.clone();
                others.reverse();
                let pods = Pods::new(*pod, &others);
                assert_eq!(pods.root(), root, "{count}: the order matters");
                assert_eq!(led_to(*pod, &pods.proof(*pod)), root, "{count}: {pod}");
            }
            let other = B256::repeat_byte(0xee);
            let pods = Pods::new(all[0], &all[1..]);
            assert_ne!(led_to(other, &pods.proof(all[0])), root, "{count}");
        }
        let one = Pods::new(B256::repeat_byte(7), &[]);
        assert_eq!(
            (one.root(), one.proof(B256::repeat_byte(7))),
            (B256::repeat_byte(7), Vec::new())
        );
    }
}
