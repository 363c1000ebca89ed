//! Looks at the machine and at the chain from time to time, for what quotes and the admin page have to know.
//!
//! It takes no input and decides nothing: what cannot be read stays as it was, and the next look is the retry.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    amount::{Amount, Rate},
    lease::State,
};
use tokio_util::sync::CancellationToken;

use super::{
    Stake,
    mode::{Mode, ModeName},
    usage::{self, Counters},
};
use crate::{
    causes,
    leases::{PodKey, Snapshot},
    reconcile::Shared,
    records::rfc3339,
    wire::Happening,
};

/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Every how many looks what pods use is counted, and the chain read.
const COUNT: u32 = 3;

/// Every how many looks what was counted is written down.
const KEEP: u32 = 60;

/// Looks until it is stopped.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = shared.seen.subscribe();
    // Before the first pass nothing is known of any pod.
    tokio::select! {
        () = stop.cancelled() => return,
        _known = first.changed() => (),
    }
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => (),
        }
        shared.house.pressure.look();
        let snapshot = shared.seen.borrow().clone();
        tell(&shared, &snapshot);
        if looks.is_multiple_of(COUNT) {
            let counted = Arc::clone(&shared);
            let count = tokio::task::spawn_blocking(move || count(&counted, &snapshot));
            let found: Vec<PodKey> = shared.house.found.borrow().keys().copied().collect();
            if let Err(err) = shared.engine.egress().look(&found).await {
                tracing::warn!(
                    error = causes(&err),
                    "what leases send is counted again in a moment"
                );
            }
            let read = async {
                let snapshot = shared.seen.borrow().clone();
                read(&shared, &snapshot).await
            };
            tokio::select! {
                () = stop.cancelled() => break,
                (_counted, failed) = async { tokio::join!(count, read) } => if let Err(err) = failed {
                    tracing::debug!(error = causes(&err), "the stake is read again in a moment");
                },
            }
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(KEEP) {
            shared.house.usage.keep();
        }
    }
    shared.house.usage.keep();
}

/// Tells payers that a maintenance began, or is over, once each.
fn tell(shared: &Shared, snapshot: &Snapshot) {
    let mode = shared.house.mode.now();
    let now = (mode.mode == ModeName::Maintenance).then_some(mode.since);
    let told = shared.house.mode.told();
    if now == told {
        return;
    }
    let what = match now {
        Some(_) => begun(&mode),
        None => Happening::MaintenanceOver,
    };
    let open = |state: State| matches!(state, State::Pending | State::Active);
    for lease in snapshot.leases.values().filter(|lease| open(lease.state)) {
        shared.records.note(lease.key, what.clone());
    }
    if let Err(err) = shared.house.mode.tell(now) {
        tracing::warn!(error = %err, "that payers were told of the maintenance is not written down");
    }
}

fn begun(mode: &Mode) -> Happening {
    let until = mode.until.map(|until| {
        let short = rfc3339(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(until));
        format!("{}Z", short.get(..19).unwrap_or_default())
    });
    Happening::Maintenance { until, why: mode.why.clone() }
}

/// Counts what pods use.
fn count(shared: &Shared, snapshot: &Snapshot) {
    let found = shared.house.found.borrow().clone();
    let received = usage::received();
    let mut counted = BTreeMap::new();
    for (key, lease) in &snapshot.leases {
        let Some(found) = found.get(key).filter(|found| !found.pods.is_empty()) else { continue };
        let mut all = Counters::default();
        let mut layers = 0_u64;
        for container in found.containers() {
            let written = shared.engine.layer_used(&container.id);
            layers = layers.saturating_add(written.unwrap_or_default());
            if let Some((cpu, memory)) = usage::of_container(&container.id) {
                all.cpu = all.cpu.saturating_add(cpu);
                all.memory = all.memory.saturating_add(memory);
            }
        }
        for hash in found.pods.keys() {
            let Ok(pod) = shared.pods.get(*hash) else { continue };
            let bridges = shared.engine.bridges(*key, *hash, &pod);
            let bytes = bridges.iter().filter_map(|bridge| received.get(bridge)).sum::<u64>();
            all.egress = all.egress.saturating_add(bytes);
            if *hash != lease.pod && found.pods.len() > 1 {
                continue;
            }
            let volumes = pod.volumes().keys();
            let used = volumes.filter_map(|name| shared.engine.volume(*key, name.as_str()));
            all.disk = used.map(|volume| volume.used).sum();
        }
        all.disk = all.disk.saturating_add(layers);
        counted.insert(*key, all);
    }
    shared.house.usage.add(super::now(), &counted);
}

/// Reads what the chain says of the stake, of earnings and of challenges.
async fn read(shared: &Shared, snapshot: &Snapshot) -> Result<(), chain::ReadError> {
    let chain = shared.sender.chain();
    let bond = chain.staking().bondOf(shared.sender.address()).call().await?;
    let open = |key: &&PodKey| {
        let lease = snapshot.leases.get(*key);
        lease.is_some_and(|lease| matches!(lease.state, State::Pending | State::Active))
    };
    let ids: Vec<u64> = snapshot.leases.keys().filter(open).map(|key| key.lease).collect();
    let views = chain.lease_views(&ids, None).await?;
    let leases = ids.into_iter().zip(views).map(|(id, view)| {
        let (rate, coverage) = (Rate(view.rate), Amount(view.coverage));
        (id, (rate, coverage))
    });
    shared.house.stake.send_replace(Stake {
        bonded: Amount(bond.bonded),
        locked: Amount(bond.locked),
        unbonding: Amount(bond.unbonding),
        leases: leases.collect(),
    });
    shared.house.earnings.follow(&shared.sender, snapshot.confirmed).await?;
    shared.house.challenges.follow(&shared.sender, snapshot).await
}
