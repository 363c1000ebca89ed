//! What is asked: the configuration's price list, or one that was set later.
//!
//! Whoever said it last has it: a list that was set on the admin page holds over restarts, until the prices in the
//! configuration are changed. What of it is listed on chain is listed before it is quoted.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use protocol::resources::PriceList;
use serde::{Deserialize, Serialize};

/// What is written down.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    /// What the configuration said then.
    instead_of: PriceList,
    prices: PriceList,
}

/// The price list of a provider that runs.
#[derive(Debug)]
pub(crate) struct Prices {
    file: PathBuf,
    configured: PriceList,
    now: Mutex<PriceList>,
}

fn path(data: &Path) -> PathBuf {
    data.join("prices.json")
}

/// What is asked, where the configuration says `configured`.
pub(crate) fn effective(data: &Path, configured: PriceList) -> PriceList {
    let set = std::fs::read(path(data)).ok();
    let set = set.and_then(|text| serde_json::from_slice::<Set>(&text).ok());
    set.filter(|set| set.instead_of == configured).map_or(configured, |set| set.prices)
}

impl Prices {
    /// `now` was made out of the configuration by `effective`; what that said is needed no more after `configured`.
    pub(crate) fn open(data: &Path, now: PriceList) -> Self {
        let set = std::fs::read(path(data)).ok();
        let set = set.and_then(|text| serde_json::from_slice::<Set>(&text).ok());
        let configured = set.filter(|set| set.prices == now).map_or(now, |set| set.instead_of);
        Self { file: path(data), configured, now: Mutex::new(now) }
    }

    pub(crate) fn now(&self) -> PriceList {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for `prices` from now on, and after a restart.
    pub(crate) fn set(&self, prices: PriceList) -> std::io::Result<()> {
        let set = Set { instead_of: self.configured, prices };
        super::write(&self.file, &serde_json::to_vec(&set)?)?;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = prices;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::amount::Rate;

    use super::*;

    #[test]
    fn whoever_said_it_last_has_it() {
        let list = |cpu: u128| PriceList { cpu: Rate(cpu), ..PriceList::default() };
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert_eq!(effective(data, list(1)), list(1));
        Prices::open(data, list(1)).set(list(5)).unwrap();
        assert_eq!(effective(data, list(1)), list(5));
        // Again, after a restart.
        let prices = Prices::open(data, effective(data, list(1)));
        assert_eq!(prices.now(), list(5));
        prices.set(list(6)).unwrap();
        assert_eq!(effective(data, list(1)), list(6));
        assert_eq!(effective(data, list(7)), list(7), "the configuration was changed");
        let gpus = PriceList { gpu: Rate(9), ..list(1) };
        assert_eq!(effective(data, gpus), gpus, "the configuration was changed");
        prices.set(gpus).unwrap();
        assert_eq!(effective(data, list(1)), gpus);
    }

    #[test]
    fn a_list_from_before_there_were_gpus_holds() {
        let folder = tempfile::tempdir().unwrap();
        let list = |cpu: u8| format!(r#"{{"cpu":"{cpu}","memory":"2","storage":"3"}}"#);
        let text = format!(r#"{{"instead_of":{},"prices":{}}}"#, list(1), list(5));
        std::fs::write(path(folder.path()), text).unwrap();
        let of = |cpu: u128| PriceList {
            cpu: Rate(cpu),
            memory: Rate(2),
            storage: Rate(3),
            ..PriceList::default()
        };
        assert_eq!(effective(folder.path(), of(1)), of(5));
    }
}
