//! What was collected on which day, by the chain: whoever sent the transaction, and also while the provider was away.
//!
//! Events up to the confirmed block are added up once. Without the file all of them are read again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chain::{Collection, ReadError, Sender};
use protocol::amount::Amount;
use serde::{Deserialize, Serialize};

/// How many days are remembered.
const MOST: usize = 800;

/// The most blocks that one look adds up: a first one may have years before it.
const BLOCKS: u64 = 100_000;

const DAY: u64 = 86_400;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    /// Which market's.
    payments: String,
    /// Up to this block.
    block: u64,
    total: Amount,
    /// By days since 1970.
    days: BTreeMap<u64, Amount>,
}

impl Sums {
    fn add(&mut self, collections: &[Collection]) {
        for one in collections {
            let amount = |before: Amount| Amount(before.0.saturating_add(one.amount));
            let day = self.days.entry(one.time / DAY).or_default();
            *day = amount(*day);
            self.total = amount(self.total);
        }
        while self.days.len() > MOST {
            self.days.pop_first();
        }
    }
}

/// What was collected.
#[derive(Debug)]
pub(crate) struct Earnings {
    file: PathBuf,
    sums: Mutex<Sums>,
}

impl Earnings {
    pub(crate) fn open(data: &Path) -> Self {
        let file = data.join("earnings.json");
        let sums = std::fs::read(&file).ok();
        let sums = sums.and_then(|text| serde_json::from_slice(&text).ok());
        Self { file, sums: Mutex::new(sums.unwrap_or_default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds up what was collected up to block `to`, which is confirmed.
    pub(crate) async fn follow(&self, sender: &Sender, to: u64) -> Result<(), ReadError> {
        let deployment = sender.chain().deployment();
        let payments = deployment.payments.to_string();
        let mut sums = self.lock().clone();
        if sums.payments != payments {
            let block = deployment.block.saturating_sub(1);
            sums = Sums { payments, block, ..Sums::default() };
        }
        let to = to.min(sums.block.saturating_add(BLOCKS));
        if to <= sums.block {
            return Ok(());
        }
        let from = sums.block + 1;
        let found = sender.chain().collections(sender.address(), from, to).await?;
        sums.add(&found);
        let far = to - sums.block >= BLOCKS / 10;
        sums.block = to;
        if far || !found.is_empty() {
            let written = serde_json::to_vec(&sums).map_err(std::io::Error::from);
            if let Err(err) = written.and_then(|text| super::write(&self.file, &text)) {
                tracing::warn!(error = %err, "what was collected could not be written down");
            }
        }
        *self.lock() = sums;
        Ok(())
    }

    /// All that was ever collected.
    pub(crate) fn total(&self) -> Amount {
        self.lock().total
    }

    /// What was collected on each of the last `count` days up to the one of `now`, each with its first second.
    pub(crate) fn days(&self, now: u64, count: u64) -> Vec<(u64, Amount)> {
        let sums = self.lock();
        let today = now / DAY;
        let days = (today.saturating_sub(count - 1))..=today;
        days.map(|day| (day * DAY, sums.days.get(&day).copied().unwrap_or_default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_add_up_by_day_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let earnings = Earnings::open(folder.path());
        let one =
            |day: u64, amount: u128| Collection { lease: Some(1), amount, time: day * DAY + 7 };
        earnings.lock().add(&[one(10, 5), one(12, 1), one(12, 2)]);
        let days = earnings.days(12 * DAY + 100, 3);
        assert_eq!(days, [(10 * DAY, Amount(5)), (11 * DAY, Amount(0)), (12 * DAY, Amount(3))]);
        assert_eq!(earnings.total(), Amount(8));

        let text = serde_json::to_vec(&*earnings.lock()).unwrap();
        std::fs::write(folder.path().join("earnings.json"), text).unwrap();
        assert_eq!(*Earnings::open(folder.path()).lock(), *earnings.lock());

        let many: Vec<_> = (0..2_000).map(|day| one(day, 1)).collect();
        earnings.lock().add(&many);
        assert_eq!(earnings.lock().days.len(), MOST);
        assert_eq!(earnings.total(), Amount(2_008));
    }
}
