//! Follows what happens to containers, ends holds, and removes what was kept for long enough.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::{
    causes,
    reconcile::Shared,
    records::{Record, by_prefix},
    volumes::VolumeFile,
    wire::Happening,
};

/// How often holds are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How often is looked for what was kept for long enough.
const CLEAN_EVERY: u32 = 12;

/// How long is waited before events are followed again.
const AGAIN: Duration = Duration::from_secs(2);

/// Writes down what happens to containers, until it is stopped.
pub(crate) async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let mut since = SystemTime::now();
    loop {
        let mut events = shared.engine.happenings(since);
        let ended = loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok((key, what))) => {
                    since = SystemTime::now();
                    if matches!(what, Happening::Restarted { .. }) {
                        shared.house.metrics.restarted();
                    }
                    shared.records.note(key, what);
                }
                Some(Err(err)) => break Some(err),
                None => break None,
            }
        };
        if let Some(err) = ended {
            tracing::debug!(error = causes(&err), "events are followed again in a moment");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => (),
        }
    }
}

/// Ends holds and removes what was kept for long enough, until it is stopped.
pub(crate) async fn tidy(shared: Arc<Shared>, stop: CancellationToken) {
    // A provider that starts again has no holds: whoever asked for one has lost its answer.
    for record in shared.records.which(|record| !record.held.is_empty()) {
        if let Err(err) = shared.release(record.key()).await {
            tracing::warn!(error = causes(&err), "lease {} is still held", record.lease);
        }
    }
    let mut tick = tokio::time::interval(LOOK);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.holds.ends.notified() => (),
            _ = tick.tick() => looks = looks.wrapping_add(1),
        }
        shared.release_due().await;
        if looks.is_multiple_of(CLEAN_EVERY) {
            clean(&shared).await;
        }
    }
}

/// Removes volumes and records whose time is over. Before the first pass it is not known which leases are there.
async fn clean(shared: &Shared) {
    let snapshot = shared.seen.borrow().clone();
    if snapshot.head.number == 0 {
        return;
    }
    let records = shared.records.which(|_all| true);
    match shared.engine.kept_volumes() {
        Ok(kept) => {
            let longest = shared.records.keep().volumes;
            for name in overdue(&kept, &records, longest, SystemTime::now()) {
                match shared.engine.discard_volume(name).await {
                    Ok(()) => tracing::info!("volume {name} was kept for long enough"),
                    Err(err) => tracing::warn!(error = %err, "volume {name} could not be removed"),
                }
            }
        }
        Err(err) => tracing::warn!(error = %err, "the volumes that are kept could not be listed"),
    }
    shared.records.expire(|key| snapshot.leases.contains_key(&key));
}

/// Which volumes were kept for long enough: one whose record is lost as long as any.
fn overdue<'a>(
    kept: &'a [VolumeFile],
    records: &[Record],
    longest: Duration,
    now: SystemTime,
) -> Vec<&'a str> {
    let by_prefix = by_prefix(records);
    let until = |name: &str| {
        // rs-<lease>-<opening>-<volume>
        let ends = name.match_indices('-').nth(2).map(|(end, _)| end);
        let record = by_prefix.get(name.get(..ends?)?)?;
        record.volumes_until()
    };
    let names = kept
        .iter()
        .filter(|volume| until(&volume.name).unwrap_or_else(|| volume.written + longest) <= now);
    names.map(|volume| volume.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy::primitives::{Address, B256};
    use protocol::{amount::Units, lease::State, pod::PodHash};

    use super::*;
    use crate::{
        config::Keep,
        leases::{Lease, PodKey},
        records::Records,
        wire::Phase,
    };

    #[test]
    fn volumes_are_kept_until_their_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path(), Keep::default()).unwrap();
        let key = PodKey { lease: 7, opening: B256::repeat_byte(1) };
        records.see(&Lease {
            key,
            block: 1,
            pod: PodHash::default(),
            former: BTreeSet::new(),
            account: B256::ZERO,
            payer: Address::ZERO,
            start_by: 0,
            lock: 0,
            owed: Units(0),
            funded_until: 0,
            state: State::Active,
            over: false,
        });
        records.phase(key, Phase::Running, None);
        records.remove(key);
        let now = SystemTime::now();
        let names = ["rs-7-010101010101-my-data", "rs-8-010101010101-data", "other"];
        let kept =
            names.map(|name| VolumeFile { name: name.into(), size: 0, used: 0, written: now });
        let all = records.which(|_| true);
        let check = |secs: u64, longest: u64, wanted: &[&str]| {
            let now = now + Duration::from_secs(secs);
            assert_eq!(overdue(&kept, &all, Duration::from_secs(longest), now), wanted, "{secs}");
        };
        check(0, 5_000, &[]);
        check(0, 0, &["rs-8-010101010101-data", "other"]);
        check(3_700, 5_000, &["rs-7-010101010101-my-data"]);
        check(5_000, 5_000, &names);
    }
}
