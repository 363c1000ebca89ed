//! What a wallet's events tell, read little by little, beside the same read at once, on a chain that changes its past.

use std::collections::BTreeSet;

use alloy::primitives::B256;
use anyhow::ensure;
use chain::{Chain, History as Told};

use super::{
    anvil::{Anvil, key},
    history::History,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_wallets_leases_are_read_little_by_little() -> anyhow::Result<()> {
    let anvil = Anvil::start().await?;
    let chain = Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
    let mut history = History::begin(&anvil, 7).await?;
    let nobody = BTreeSet::new();
    let mut known: Vec<Told> = vec![Told::default(); 9];
    let (mut leases, mut changed, mut closed, mut kept) = (0, 0, 0, 0);
    for round in 0..8 {
        history.go_on(8).await?;
        if round % 3 == 2 {
            history.reorganise(4).await?;
            history.outgrow().await?;
        }
        let head = chain.head().await?.number;
        for (known, who) in known.iter_mut().zip(1..) {
            let owner = key(who).address();
            let told = chain.history(owner, &nobody, known, head).await?;
            let anew = chain.history(owner, &nobody, &mut Told::default(), head).await?;
            ensure!(told == anew, "{who} at {head}: {told:?} beside {anew:?}");
            let all = chain.openings(None, None, 0, head).await?;
            let accounts: Vec<B256> = chain.accounts_of(owner).await?.into_keys().collect();
            let theirs = all.iter().filter(|opening| accounts.contains(&opening.account));
            ensure!(theirs.eq(told.openings.values()), "{who} at {head}: {told:?} beside {all:?}");
            let ids: Vec<u64> = told.openings.keys().copied().collect();
            ensure!(told.amended == chain.amended(&ids).await?, "{who} at {head}: {told:?}");
            for (lease, reason) in &told.closed {
                let closing = chain.closing(*lease).await?.map(|(event, _block)| event.reason);
                ensure!(closing == Some(*reason), "lease {lease}: {closing:?} and {reason}");
            }
            leases += told.openings.len();
            changed += told.amended.len();
            closed += told.closed.len();
            kept += known.openings.len();
        }
        // Until what was read is deep enough to stay.
        history.mine(70).await?;
    }
    ensure!(leases > 50 && closed > 20, "{leases} leases, {closed} closed, {changed} amended");
    ensure!(kept > leases / 4, "only {kept} of {leases} were not read again");

    // An account that gets a name has its leases from the beginning.
    let (first, second) = (key(1).address(), key(2).address());
    let named: BTreeSet<B256> = chain.accounts_of(second).await?.into_keys().collect();
    let head = chain.head().await?.number;
    let told = chain.history(first, &named, &mut known[0], head).await?;
    let both = [&known[0], &known[1]].map(|known| known.openings.len());
    let theirs = told.openings.values().filter(|opening| named.contains(&opening.account));
    ensure!(theirs.count() >= both[1] && told.openings.len() >= both[0], "{told:?}");

    // What is over for good is left out when nobody wants it, and nothing else.
    let over: BTreeSet<u64> = known[0].openings.keys().copied().collect();
    let closed = known[0].closed.clone();
    ensure!(!closed.is_empty(), "nothing is over");
    known[0].forget(&over);
    let told = chain.history(first, &named, &mut known[0], head).await?;
    ensure!(told.openings.keys().all(|id| !closed.contains_key(id)), "{told:?}");
    ensure!(known[0].openings.keys().all(|id| told.openings.contains_key(id)), "{told:?}");
    Ok(())
}
