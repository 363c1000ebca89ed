//! How it goes: for a progress bar, for probes, and for Prometheus.

use std::{
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

/// Lag at which the mirror still counts as ready, in blocks.
const READY_LAG: u64 = 5;

/// For how long the node may be silent before the mirror is not ready any more, in seconds.
const READY_SILENCE: u64 = 30;

/// How it goes.
#[derive(Debug)]
pub struct Status {
    began: Instant,
    /// When the node was last heard of, in milliseconds since `began`.
    heard: AtomicU64,
    writes: AtomicBool,
    head: AtomicU64,
    head_time: AtomicU64,
    start: AtomicU64,
    number: AtomicU64,
    time: AtomicU64,
    finalized: AtomicU64,
    events: AtomicU64,
    blocks: AtomicU64,
    reorgs: AtomicU64,
    reorged_blocks: AtomicU64,
    deepest_reorg: AtomicU64,
    node_failures: AtomicU64,
    store_failures: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// How far the mirror is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where it began.
    pub start: u64,
    /// The last block that is in.
    pub number: u64,
    /// The node's head.
    pub head: u64,
    /// How many events went in since the program started.
    pub events: u64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            writes: AtomicBool::new(false),
            head: AtomicU64::new(0),
            head_time: AtomicU64::new(0),
            start: AtomicU64::new(0),
            number: AtomicU64::new(0),
            time: AtomicU64::new(0),
            finalized: AtomicU64::new(0),
            events: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            reorgs: AtomicU64::new(0),
            reorged_blocks: AtomicU64::new(0),
            deepest_reorg: AtomicU64::new(0),
            node_failures: AtomicU64::new(0),
            store_failures: AtomicU64::new(0),
            trouble: Mutex::new(None),
        }
    }
}

fn get(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn set(value: &AtomicU64, to: u64) {
    value.store(to, Ordering::Relaxed);
}

impl Status {
    /// How far the mirror is.
    pub fn progress(&self) -> Progress {
        Progress {
            start: get(&self.start),
            number: get(&self.number),
            head: get(&self.head),
            events: get(&self.events),
        }
    }

    /// Why the mirror is not ready to be asked; `None` if it is.
    pub fn not_ready(&self) -> Option<String> {
        if let Some(trouble) = &*self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(trouble.clone());
        }
        if !self.writes.load(Ordering::Relaxed) || get(&self.head) == 0 {
            return Some("it has not begun".into());
        }
        let silence = self.silence();
        if silence > READY_SILENCE {
            return Some(format!("no node was heard of for {silence} s"));
        }
        let lag = self.lag();
        (lag > READY_LAG).then(|| format!("it is {lag} blocks behind"))
    }

    fn lag(&self) -> u64 {
        get(&self.head).saturating_sub(get(&self.number))
    }

    fn silence(&self) -> u64 {
        self.elapsed().saturating_sub(get(&self.heard)) / 1_000
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn heard(&self, seen: chain::blocks::Seen) {
        set(&self.heard, self.elapsed());
        set(&self.head, seen.number);
        set(&self.head_time, seen.time);
    }

    pub(crate) fn node_failed(&self) {
        self.node_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn store_failed(&self, trouble: String) {
        self.store_failures.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    pub(crate) fn begin(&self, start: u64, number: u64) {
        set(&self.start, start);
        set(&self.number, number);
        self.writes.store(true, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn committed(&self, last: &chain::blocks::Block, blocks: usize, events: usize) {
        set(&self.number, last.id.number);
        set(&self.time, last.time);
        set(&self.finalized, last.finalized);
        self.blocks.fetch_add(blocks as u64, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(crate) fn reverted(&self, to: u64, depth: u64) {
        set(&self.number, to);
        self.reorgs.fetch_add(1, Ordering::Relaxed);
        self.reorged_blocks.fetch_add(depth, Ordering::Relaxed);
        self.deepest_reorg.fetch_max(depth, Ordering::Relaxed);
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let behind = get(&self.head_time).saturating_sub(get(&self.time));
        let lag_secs = if self.lag() == 0 { 0 } else { behind };
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "# HELP roadstead_indexer_{name} {help}\n# TYPE roadstead_indexer_{name} {kind}\n\
                 roadstead_indexer_{name} {value}"
            );
        };
        metric("head_block", "gauge", "The node's head.", get(&self.head));
        metric("block", "gauge", "The last block in the database.", get(&self.number));
        metric("finalized_block", "gauge", "Blocks up to here stay.", get(&self.finalized));
        metric("lag_blocks", "gauge", "Blocks between the two.", self.lag());
        metric("lag_seconds", "gauge", "Chain time between the two.", lag_secs);
        metric("node_silence_seconds", "gauge", "Since a node last answered.", self.silence());
        metric("events_total", "counter", "Events written.", get(&self.events));
        metric("blocks_total", "counter", "Blocks written.", get(&self.blocks));
        metric("reorgs_total", "counter", "Times that blocks were taken back.", get(&self.reorgs));
        let reorged = get(&self.reorged_blocks);
        metric("reorged_blocks_total", "counter", "Blocks taken back.", reorged);
        let deepest = get(&self.deepest_reorg);
        metric("deepest_reorg_blocks", "gauge", "The most taken back at once.", deepest);
        let failures = get(&self.node_failures);
        metric("node_failures_total", "counter", "Answers of nodes that were of no use.", failures);
        let failures = get(&self.store_failures);
        metric("database_failures_total", "counter", "Times the database failed.", failures);
        text
    }
}
