//! How many things a lease's payer may have open at a time: each costs the provider memory, a connection to the engine,
//! or a device, and none of them is paid for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::leases::PodKey;

/// What can be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A program in a container.
    Program,
    /// A connection to a port.
    Connection,
    /// Files on their way.
    Copy,
    /// Lines that are followed.
    Stream,
}

impl Kind {
    fn most(self) -> usize {
        match self {
            Self::Program => 16,
            Self::Connection => 256,
            Self::Copy => 4,
            Self::Stream => 64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program => "programs",
            Self::Connection => "connections",
            Self::Copy => "copies",
            Self::Stream => "streams",
        }
    }
}

/// There are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lease {lease} has {most} {} open, which is all it may have; close one first", .kind.name())]
pub(crate) struct TooMany {
    lease: u64,
    kind: Kind,
    most: usize,
}

type Counts = Mutex<HashMap<(PodKey, Kind), usize>>;

/// What is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Arc<Counts>);

/// Something that is open, until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    counts: Arc<Counts>,
    of: (PodKey, Kind),
}

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<(PodKey, Kind), usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    /// One more, if there may be one.
    pub(crate) fn take(&self, key: PodKey, kind: Kind) -> Result<Slot, TooMany> {
        let mut counts = lock(&self.0);
        let count = counts.entry((key, kind)).or_default();
        if *count >= kind.most() {
            return Err(TooMany { lease: key.lease, kind, most: kind.most() });
        }
        *count += 1;
        Ok(Slot { counts: Arc::clone(&self.0), of: (key, kind) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    #[test]
    fn each_lease_has_its_own() {
        let slots = Slots::default();
        let [one, two] = [1, 2].map(|lease| PodKey { lease, opening: B256::ZERO });
        let taken: Vec<_> = (0..4).map(|_| slots.take(one, Kind::Copy).unwrap()).collect();
        let err = slots.take(one, Kind::Copy).unwrap_err().to_string();
        assert_eq!(err, "lease 1 has 4 copies open, which is all it may have; close one first");
        let _others =
            (slots.take(one, Kind::Stream).unwrap(), slots.take(two, Kind::Copy).unwrap());
        drop(taken);
        slots.take(one, Kind::Copy).unwrap();
        assert_eq!(lock(&slots.0).len(), 2);
    }
}
