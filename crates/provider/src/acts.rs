//! Who may act for an account that is not its own: agents, whom Leases names, and keepers, whom Apps names.
//!
//! Any wallet that is signed in may claim to be one, which costs two calls of the chain at most. An agent may do in Leases
//! what the owner may, and so asks for what it likes. A keeper asks for the pods of its app alone, and sees the leases in its
//! app's slots alone: the worst that it does here is to give a pod of its own app other secrets. Neither gets at logs, files,
//! volumes or a shell; those are the payer's.

use alloy::primitives::{Address, B256, keccak256};
use chain::{Chain, ReadError};
use protocol::pod::PodHash;

use crate::{
    leases::Lease,
    wire::{Keeps, QuoteRequest},
};

/// The longest proof: a tree of as many pods as nobody has.
const MAX_PROOF: usize = 32;

/// Why a wallet may not ask for an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MayNot {
    #[error(
        "you are signed in as {signed_in}, and the account is {owner}'s, who does not let you act for it in Leases; a \
         keeper names its app"
    )]
    Stranger { signed_in: Address, owner: Address },
    #[error("you are signed in as {signed_in}, which does not keep app {app}")]
    NotKeeper { signed_in: Address, app: u64 },
    #[error("app {0} has another account")]
    OtherAccount(u64),
    #[error("app {0} may not run pod {1}; its owner says which with `roadstead app set-limits`")]
    OtherPod(u64, PodHash),
}

/// A wallet that may not act, or of which that could not be found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error(transparent)]
    MayNot(MayNot),
    #[error("the chain does not answer; try again later")]
    Chain(#[source] ReadError),
}

impl From<alloy::contract::Error> for ActError {
    fn from(err: alloy::contract::Error) -> Self {
        Self::Chain(err.into())
    }
}

/// Whether `wallet` may ask for a quote for `pod` that `account` is going to pay.
pub(crate) async fn may_quote(
    chain: &Chain,
    wallet: Address,
    request: &QuoteRequest,
    account: B256,
    pod: PodHash,
) -> Result<(), ActError> {
    let owner = request.owner;
    if owner == wallet || chain.leases().isAgent(account, wallet).call().await? {
        return Ok(());
    }
    let refused = |why| Err(ActError::MayNot(why));
    let Some(Keeps { app, proof }) = &request.keeps else {
        return refused(MayNot::Stranger { signed_in: wallet, owner });
    };
    let known = chain.apps().appOf(*app).call().await?;
    if known.keeper != wallet || known.owner.is_zero() {
        return refused(MayNot::NotKeeper { signed_in: wallet, app: *app });
    }
    if known.account != account {
        return refused(MayNot::OtherAccount(*app));
    }
    match proof.len() <= MAX_PROOF && root(pod.0, proof) == known.limits.pods {
        true => Ok(()),
        false => refused(MayNot::OtherPod(*app, pod)),
    }
}

/// Whether `wallet` may see how a lease of somebody else is: as an agent for its account, or as the keeper of `app`, in one
/// of whose slots it is.
pub(crate) async fn may_see(
    chain: &Chain,
    wallet: Address,
    lease: &Lease,
    app: Option<u64>,
) -> Result<bool, ReadError> {
    if chain.leases().isAgent(lease.account, wallet).call().await? {
        return Ok(true);
    }
    let Some(app) = app else { return Ok(false) };
    let known = chain.apps().appOf(app).call().await?;
    if known.keeper != wallet || known.owner.is_zero() || known.account != lease.account {
        return Ok(false);
    }
    let views = chain.lease_views(&[lease.key.lease], None).await?;
    let first = known.slot.to::<u32>();
    let slots = first..first.saturating_add(known.limits.replicas.into());
    Ok(views.first().is_some_and(|view| slots.contains(&view.lease.slot.to())))
}

/// The root that a proof leads to, as OpenZeppelin's MerkleProof reckons it: pairs are hashed in their order.
fn root(leaf: B256, proof: &[B256]) -> B256 {
    proof.iter().fold(leaf, |hash, other| {
        let (first, second) = if hash < *other { (hash, *other) } else { (*other, hash) };
        keccak256([first.0, second.0].concat())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_lead_to_the_root_whichever_side_a_pod_is_on() {
        let pods = [1, 2, 3].map(B256::repeat_byte);
        assert_eq!(root(pods[0], &[]), pods[0]);
        let pair = root(pods[0], &[pods[1]]);
        assert_eq!(pair, keccak256([pods[0].0, pods[1].0].concat()));
        assert_eq!(root(pods[1], &[pods[0]]), pair);
        let all = root(pair, &[pods[2]]);
        assert_eq!(root(pods[0], &[pods[1], pods[2]]), all);
        assert_eq!(root(pods[2], &[pair]), all);
        assert_ne!(root(pods[2], &[pods[0]]), all);
    }
}
