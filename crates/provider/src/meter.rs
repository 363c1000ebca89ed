//! Collects what leases owe, and the bonds of challenges that were answered, when it is worth a transaction.
//!
//! What is owed has left the payer's account already and waits in Payments, and a bond waits in Sla, so collecting late
//! loses nothing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use chain::abi::{Payments, Sla};
use protocol::amount::Amount;
use tokio_util::sync::CancellationToken;

use crate::{causes, house::Collected, leases::Snapshot, reconcile::Shared};

/// The most streams that one transaction collects from.
const MAX_STREAMS: usize = 50;

/// What is worth collecting now: all that owe at least `above`, and whatever is left of those that are over.
pub(crate) fn due(snapshot: &Snapshot, above: Amount) -> Vec<u64> {
    let leases = snapshot.leases.values();
    let due = leases.filter(|lease| {
        let owed = lease.owed.collectable();
        owed.0 > 0 && (owed >= above || lease.over)
    });
    due.map(|lease| lease.key.lease).take(MAX_STREAMS).collect()
}

/// Collects every `every`, until it is stopped.
pub(crate) async fn run(
    shared: Arc<Shared>,
    above: Amount,
    every: Duration,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => (),
        }
        if let Err(cause) = claim(&shared, above).await {
            shared.house.troubles.note("meter", &cause);
            tracing::warn!(error = cause, "bonds of challenges were not claimed; they stay there");
        }
        let snapshot = shared.seen.borrow().clone();
        let leases = due(&snapshot, above);
        if leases.is_empty() {
            continue;
        }
        let over = snapshot.leases.values().filter(|lease| lease.over);
        let over = over.filter(|lease| leases.contains(&lease.key.lease)).count();
        let collected = |failed| Collected {
            at: SystemTime::now(),
            leases: (leases.len() - over, over),
            failed,
        };
        let chain = shared.sender.chain();
        let ids = leases.iter().map(|lease| chain.stream_of(*lease)).collect();
        let call = Payments::collectCall { ids };
        match shared.sender.send(chain.deployment().payments, &call).await {
            Ok(_) => {
                tracing::info!("collected from {} leases", leases.len());
                shared.house.note_collection(collected(None));
            }
            Err(err) => {
                let cause = causes(&err);
                shared.house.troubles.note("meter", &cause);
                shared.house.note_collection(collected(Some(cause.clone())));
                tracing::warn!(error = cause, "nothing was collected; what is owed stays owed");
            }
        }
    }
}

/// Claims what challenges brought that were answered, if that is at least `above`; or says why not.
async fn claim(shared: &Shared, above: Amount) -> Result<(), String> {
    let (chain, to) = (shared.sender.chain(), shared.sender.address());
    let waits = chain.sla().claimable(to).call().await.map_err(|err| causes(&err))?;
    let waits = Amount(waits.saturating_to());
    if waits.0 == 0 || waits < above {
        return Ok(());
    }
    let sent = shared.sender.send(chain.deployment().sla, &Sla::claimCall { to }).await;
    sent.map_err(|err| causes(&err))?;
    tracing::info!("claimed {} base units that answered challenges brought", waits.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy::primitives::{Address, B256};
    use protocol::{
        amount::{SCALE, Units},
        lease::State,
        pod::PodHash,
    };

    use super::*;
    use crate::leases::{Lease, PodKey};

    #[test]
    fn small_sums_wait_until_the_lease_is_over() {
        let mut snapshot = Snapshot::default();
        let mut add = |id: u64, base: u128, over: bool| {
            let key = PodKey { lease: id, opening: B256::ZERO };
            let lease = Lease {
                key,
                block: 1,
                pod: PodHash::default(),
                former: BTreeSet::new(),
                account: B256::ZERO,
                payer: Address::ZERO,
                start_by: 0,
                lock: 0,
                owed: Units(base * SCALE + 7),
                funded_until: 0,
                state: if over { State::Closed } else { State::Active },
                over,
            };
            snapshot.leases.insert(key, lease);
        };
        add(1, 99, false);
        add(2, 100, false);
        add(3, 1, true);
        add(4, 0, true);
        assert_eq!(due(&snapshot, Amount(100)), [2, 3]);
        assert_eq!(due(&snapshot, Amount(0)), [1, 2, 3]);
    }
}
