//! What Prometheus may scrape. Counters are counted where things happen; the rest is read off when somebody asks.
//!
//! Labels are leases, reasons and states, of which there are as many as the provider has leases and no more.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::facts::{Facts, phase_name};

/// What the name of every metric begins with.
const PREFIX: &str = "roadstead_provider";

type Label = [(&'static str, String); 1];
type Float = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The metrics of one provider.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    quotes: Counter,
    refusals: Family<Label, Counter>,
    starts: Family<Label, Counter>,
    start_time: Histogram,
    restarts: Counter,
    passes: Counter,
    pass_errors: Family<Label, Counter>,
    pass_time: Histogram,
    engine_time: Histogram,
    collections: Family<Label, Counter>,
    closes: Family<Label, Counter>,
    now: Now,
}

/// What is read off.
#[derive(Debug, Default)]
struct Now {
    pods: Family<Label, Gauge>,
    pod_cpu: Family<Label, Float>,
    pod_memory: Family<Label, Gauge>,
    pod_disk: Family<Label, Gauge>,
    pod_egress: Family<Label, Counter>,
    cpu: Family<Label, Float>,
    memory: Family<Label, Gauge>,
    storage: Family<Label, Gauge>,
    gpus: Family<Label, Gauge>,
    rate: Float,
    uncollected: Float,
    collected: Float,
    stake: Family<Label, Float>,
    head: Gauge,
    lag: Gauge,
    mode: Family<Label, Gauge>,
    reserve: Family<Label, Gauge>,
    short: Family<Label, Gauge>,
    challenges: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("now", &self.now).finish_non_exhaustive()
    }
}

fn label(name: &'static str, value: impl ToString) -> Label {
    [(name, value.to_string())]
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let mut metrics = Self {
            registry: Mutex::default(),
            quotes: Counter::default(),
            refusals: Family::default(),
            starts: Family::default(),
            start_time: Histogram::new(exponential_buckets(0.1, 2.0, 12)),
            restarts: Counter::default(),
            passes: Counter::default(),
            pass_errors: Family::default(),
            pass_time: seconds(),
            engine_time: seconds(),
            collections: Family::default(),
            closes: Family::default(),
            now: Now::default(),
        };
        let mut all = Registry::with_prefix(PREFIX);
        {
            let (m, now) = (&metrics, &metrics.now);
            all.register("quotes_given", "Quotes that were signed", m.quotes.clone());
            all.register("quotes_refused", "Quotes that were not given", m.refusals.clone());
            all.register("starts", "Starts of pods, by how they ended", m.starts.clone());
            all.register(
                "start_seconds",
                "From seeing a lease to its pod's being ready",
                m.start_time.clone(),
            );
            all.register(
                "restarts",
                "Services that ended and were started again",
                m.restarts.clone(),
            );
            all.register(
                "reconcile_passes",
                "Comparisons of leases with containers",
                m.passes.clone(),
            );
            all.register(
                "reconcile_errors",
                "Passes that could not read the chain or the engine",
                m.pass_errors.clone(),
            );
            all.register("reconcile_seconds", "How long a pass takes", m.pass_time.clone());
            all.register(
                "engine_list_seconds",
                "How long Docker takes to list what it has",
                m.engine_time.clone(),
            );
            all.register(
                "collections",
                "Transactions that collect, by how they ended",
                m.collections.clone(),
            );
            all.register("closes", "Leases that ended, by reason", m.closes.clone());
            all.register("pods", "Leases, by how far they are", now.pods.clone());
            all.register("pod_cpu_cores", "Processors in use", now.pod_cpu.clone());
            all.register("pod_memory_bytes", "Memory in use", now.pod_memory.clone());
            all.register("pod_disk_bytes", "What volumes take of the disk", now.pod_disk.clone());
            all.register(
                "pod_egress_bytes",
                "Bytes that left the pod since the provider started",
                now.pod_egress.clone(),
            );
            all.register("cpu_cores", "Processors that are rented out", now.cpu.clone());
            all.register("memory_bytes", "Memory that is rented out", now.memory.clone());
            all.register("storage_bytes", "Storage that is rented out", now.storage.clone());
            all.register("gpus", "GPUs that are rented out", now.gpus.clone());
            all.register(
                "rate_tokens_per_hour",
                "What open leases bring together",
                now.rate.clone(),
            );
            all.register(
                "uncollected_tokens",
                "What is owed and was not collected yet",
                now.uncollected.clone(),
            );
            all.register("collected_tokens", "All that was ever collected", now.collected.clone());
            all.register("stake_tokens", "The bond, and what it backs", now.stake.clone());
            all.register("chain_head_block", "The last block that was seen", now.head.clone());
            all.register("chain_lag_seconds", "How old that block is", now.lag.clone());
            all.register("mode", "1 for the mode that holds", now.mode.clone());
            all.register(
                "reserve_free",
                "What is free of disk and memory (bytes), and of file descriptors",
                now.reserve.clone(),
            );
            all.register(
                "reserve_short",
                "1 while nothing is quoted because of it",
                now.short.clone(),
            );
            all.register(
                "challenges_open",
                "Challenges that are to be answered",
                now.challenges.clone(),
            );
        }
        metrics.registry = Mutex::new(all);
        metrics
    }

    pub(crate) fn quoted(&self) {
        self.quotes.inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&label("reason", reason)).inc();
    }

    /// A start ended: with a pod that runs, for good, or to be tried again.
    pub(crate) fn started(&self, took: Duration, outcome: &'static str) {
        if outcome == "running" {
            self.start_time.observe(took.as_secs_f64());
        }
        self.starts.get_or_create(&label("outcome", outcome)).inc();
    }

    pub(crate) fn restarted(&self) {
        self.restarts.inc();
    }

    pub(crate) fn passed(&self, took: Duration, failed: Option<&'static str>) {
        self.passes.inc();
        match failed {
            Some(source) => {
                self.pass_errors.get_or_create(&label("source", source)).inc();
            }
            None => self.pass_time.observe(took.as_secs_f64()),
        }
    }

    pub(crate) fn listed(&self, took: Duration) {
        self.engine_time.observe(took.as_secs_f64());
    }

    pub(crate) fn collected(&self, went_through: bool) {
        let outcome = if went_through { "mined" } else { "failed" };
        self.collections.get_or_create(&label("outcome", outcome)).inc();
    }

    pub(crate) fn closed(&self, reason: &str) {
        self.closes.get_or_create(&label("reason", reason)).inc();
    }

    /// All of them, in the OpenMetrics text format.
    pub(crate) fn render(&self, facts: &Facts) -> String {
        // Locked while it is read off, so that two who scrape at once do not see each other's beginnings.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.now.set(facts);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(fmt::Error) => String::new(),
        }
    }
}

impl Now {
    fn set(&self, facts: &Facts) {
        self.pods.clear();
        for family in [&self.pod_memory, &self.pod_disk] {
            family.clear();
        }
        self.pod_cpu.clear();
        self.pod_egress.clear();
        for pod in &facts.pods {
            self.pods.get_or_create(&label("state", phase_name(pod.phase))).inc();
            let Some(used) = pod.used else { continue };
            let lease = label("lease", pod.lease);
            self.pod_cpu.get_or_create(&lease).set(thousandths(used.cpu));
            self.pod_memory.get_or_create(&lease).set(whole(used.memory));
            self.pod_disk.get_or_create(&lease).set(whole(used.disk));
            self.pod_egress.get_or_create(&lease).inc_by(used.egress);
        }
        let parts = [("capacity", facts.capacity), ("used", facts.used), ("free", facts.free)];
        for (name, part) in parts {
            let of = label("part", name);
            self.cpu.get_or_create(&of).set(thousandths(part.cpu.0.into()));
            self.memory.get_or_create(&of).set(whole(part.memory.0));
            self.storage.get_or_create(&of).set(whole(part.storage.0));
            self.gpus.get_or_create(&of).set(part.gpus.into());
        }
        let tokens = |text: String| text.parse::<f64>().unwrap_or_default();
        let hourly = protocol::amount::Units(facts.rate.0.saturating_mul(3_600));
        self.rate.set(tokens(hourly.collectable().display(&facts.token())));
        self.uncollected.set(tokens(facts.owed.collectable().display(&facts.token())));
        self.collected.set(tokens(facts.collected.display(&facts.token())));
        let bond = &facts.bond;
        let parts = [
            ("bonded", bond.bonded),
            ("locked", bond.locked),
            ("free", bond.free),
            ("unbonding", bond.unbonding),
        ];
        for (name, part) in parts {
            let amount = tokens(part.display(&facts.token()));
            self.stake.get_or_create(&label("part", name)).set(amount);
        }
        self.head.set(whole(facts.head.number));
        self.lag.set(whole(facts.head.age));
        self.mode.clear();
        self.mode.get_or_create(&label("mode", facts.mode_name())).set(1);
        self.reserve.clear();
        self.short.clear();
        for reserve in &facts.reserves {
            let of = label("what", reserve.at.as_ref().unwrap_or(&reserve.what));
            self.reserve.get_or_create(&of).set(whole(reserve.free));
            self.short.get_or_create(&of).set(reserve.is_short().into());
        }
        let open = super::challenges::open(&facts.challenges).len();
        self.challenges.set(i64::try_from(open).unwrap_or(i64::MAX));
    }
}

/// Thousandths of a processor, as processors.
fn thousandths(milli: u64) -> f64 {
    // Below 2^32 of them, which an f64 holds exactly.
    f64::from(u32::try_from(milli).unwrap_or(u32::MAX)) / 1_000.0
}
