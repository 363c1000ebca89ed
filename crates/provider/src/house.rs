//! What the provider knows of itself besides its pods: whether it takes anything new, what it asks, what pods use, what it
//! earned, what went wrong.
//!
//! Nothing here is read by a pass of the reconciler; quotes ask whether they may be given, and the admin page, the metrics
//! and the command line look at the rest.

pub(crate) mod challenges;
pub(crate) mod earnings;
pub(crate) mod metrics;
pub(crate) mod mode;
pub(crate) mod observe;
pub(crate) mod pressure;
pub(crate) mod prices;
pub(crate) mod series;
pub(crate) mod troubles;
pub(crate) mod usage;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use protocol::amount::{Amount, Rate, Token};
use tokio::sync::watch;

use self::{
    challenges::Challenges,
    earnings::Earnings,
    metrics::Metrics,
    mode::{ModeName, Modes},
    pressure::Pressure,
    prices::Prices,
    troubles::Troubles,
    usage::Usage,
};
use crate::{
    config::Config,
    engine::Found,
    leases::PodKey,
    quote::QuoteError,
    records::{Record, Records},
};

/// What the provider knows of itself.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) token: Token,
    pub(crate) mode: Modes,
    pub(crate) prices: Prices,
    pub(crate) pressure: Pressure,
    pub(crate) metrics: Metrics,
    pub(crate) usage: Usage,
    pub(crate) earnings: Earnings,
    pub(crate) challenges: Challenges,
    pub(crate) troubles: Troubles,
    /// What the engine had when it was last read.
    pub(crate) found: watch::Sender<Arc<BTreeMap<PodKey, Found>>>,
    /// What the chain says of the stake and of each lease.
    pub(crate) stake: watch::Sender<Stake>,
    /// The last collection.
    collected: Mutex<Option<Collected>>,
}

/// The bond, and what it backs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stake {
    pub(crate) bonded: Amount,
    pub(crate) locked: Amount,
    pub(crate) unbonding: Amount,
    /// Rate and coverage of each lease.
    pub(crate) leases: BTreeMap<u64, (Rate, Amount)>,
}

/// What the meter did last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) at: SystemTime,
    /// From how many leases that owed enough, and from how many that are over.
    pub(crate) leases: (usize, usize),
    /// Why it did not go through, if it did not.
    pub(crate) failed: Option<String>,
}

impl House {
    pub(crate) fn open(
        config: &Config,
        token: Token,
        records: Arc<Records>,
        engine_root: Option<&Path>,
    ) -> io::Result<Self> {
        Ok(Self {
            token,
            mode: Modes::open(&config.data),
            prices: Prices::open(&config.data, config.prices),
            pressure: Pressure::new(config.limits, &config.data, engine_root),
            metrics: Metrics::new(),
            usage: Usage::new(records),
            earnings: Earnings::open(&config.data),
            challenges: Challenges::default(),
            troubles: Troubles::default(),
            found: watch::Sender::default(),
            stake: watch::Sender::default(),
            collected: Mutex::default(),
        })
    }

    /// Whether a quote may be given: for a lease that is there already (`update`), or for a new one.
    pub(crate) fn may_quote(&self, update: bool) -> Result<(), QuoteError> {
        let mode = self.mode.now();
        if mode.refuses(update) {
            return Err(QuoteError::Closed(mode.words()));
        }
        match self.pressure.short() {
            None => Ok(()),
            Some(words) => Err(QuoteError::Pressure(words)),
        }
    }

    /// What payers are told about all leases.
    pub(crate) fn notice(&self) -> Option<String> {
        let mode = self.mode.now();
        (mode.mode == ModeName::Maintenance).then(|| format!("the provider: {}", mode.words()))
    }

    /// What the meter did.
    pub(crate) fn note_collection(&self, collected: Collected) {
        self.metrics.collected(collected.failed.is_none());
        *self.collected.lock().unwrap_or_else(PoisonError::into_inner) = Some(collected);
    }

    pub(crate) fn last_collection(&self) -> Option<Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The closes that are still written down, the latest first.
pub(crate) fn closes(records: &Records) -> Vec<Record> {
    let mut closed = records.which(|record| record.ended.is_some());
    closed.sort_by_key(|record| std::cmp::Reverse(record.ended));
    closed
}

/// Writes a file as a whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut draft, bytes)?;
    draft.as_file().sync_data()?;
    draft.persist(path).map_err(|err| err.error)?;
    Ok(())
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
