//! What a host has had to do.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::activity::moment;

/// The upper bounds of the latency's classes; the last class has none.
pub const LATENCY_BOUNDS: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

const CLASSES: usize = LATENCY_BOUNDS.len() + 1;

/// What a host has had to do since its route was made, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStats {
    /// How many requests came.
    pub requests: u64,
    /// How many of them are not finished: their answer, or the tunnel that they became, goes on.
    pub in_flight: u64,
    /// How many were answered with 5xx, be it by the backend or for the lack of one.
    pub failures: u64,
    /// The bytes that visitors sent as bodies and through tunnels.
    pub received: u64,
    /// The bytes that they got in the same way.
    pub sent: u64,
    /// How long they waited for the head of the answer.
    pub latency: Latency,
    /// When the last request came.
    pub last: Option<SystemTime>,
}

/// A histogram of durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// How many fall into each class of [`LATENCY_BOUNDS`], its bound included. The last is beyond all bounds.
    pub counts: [u64; CLASSES],
    /// All of them together.
    pub sum: Duration,
}

/// The numbers behind [`HostStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    finished: AtomicU64,
    failures: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    latency: [AtomicU64; CLASSES],
    micros: AtomicU64,
    /// The moment of the last request, plus one; zero for none.
    last: AtomicU64,
}

impl Counters {
    /// A request came. It is in flight for as long as what this returns lives.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.last.store(moment() + 1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// It was answered after `waited`, and this may have been with 5xx.
    pub(crate) fn answered(&self, waited: Duration, failed: bool) {
        let class = LATENCY_BOUNDS.partition_point(|bound| *bound < waited);
        self.latency[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(wide(bytes), Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(wide(bytes), Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> HostStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order, so that what finishes meanwhile does not make it negative.
        let finished = self.finished.load(Ordering::Acquire);
        let requests = get(&self.requests);
        let last = get(&self.last)
            .checked_sub(1)
            .map(|last| SystemTime::now() - Duration::from_millis(moment().saturating_sub(last)));
        HostStats {
            requests,
            in_flight: requests.saturating_sub(finished),
            failures: get(&self.failures),
            received: get(&self.received),
            sent: get(&self.sent),
            latency: Latency {
                counts: array::from_fn(|class| get(&self.latency[class])),
                sum: Duration::from_micros(get(&self.micros)),
            },
            last,
        }
    }
}

/// A request that is not finished.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Counters>);

impl InFlight {
    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_class_that_bounds_them() {
        let counters = Counters::default();
        for (waited, class) in [
            (Duration::ZERO, 0),
            (Duration::from_millis(1), 0),
            (Duration::from_micros(1_001), 1),
            (Duration::from_millis(100), 6),
            (Duration::from_secs(10), 12),
            (Duration::from_secs(11), 13),
        ] {
            let before = counters.stats().latency.counts[class];
            counters.answered(waited, false);
            assert_eq!(counters.stats().latency.counts[class], before + 1, "{waited:?}");
        }
        assert_eq!(counters.stats().latency.sum, Duration::from_micros(21_102_001));
    }

    #[test]
    fn a_request_is_in_flight_for_as_long_as_it_lives() {
        let counters = Arc::new(Counters::default());
        assert_eq!(counters.stats().last, None);
        let (first, second) = (counters.begin(), counters.begin());
        assert_eq!((counters.stats().requests, counters.stats().in_flight), (2, 2));
        drop(first);
        assert_eq!(counters.stats().in_flight, 1);
        drop(second);
        assert_eq!((counters.stats().requests, counters.stats().in_flight), (2, 0));
        let ago = counters.stats().last.unwrap().elapsed().unwrap();
        assert!(ago < Duration::from_secs(10), "{ago:?}");
    }
}
