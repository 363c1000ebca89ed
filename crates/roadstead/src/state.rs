//! What this machine remembers: which lease an app's name stands for, the names of accounts, and who may have the keys of
//! leases' images. All of it can be lost: leases have numbers, the chain knows the accounts, and pod files say the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chain::Deployment;
use serde::{Deserialize, Serialize};

use crate::{account::AccountName, cli::LeaseRef, encrypt::KeyFile, trust::Trust};

/// What is remembered of one deployment of the contracts.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    market: String,
    all: BTreeMap<String, Market>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Market {
    #[serde(default)]
    apps: BTreeMap<String, u64>,
    #[serde(default)]
    accounts: BTreeSet<String>,
    /// The keys of leases' encrypted images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<u64, KnownKey>,
}

/// The key of a lease's encrypted images: where it is, and who may have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownKey {
    /// Its file.
    pub(crate) file: PathBuf,
    /// What the pod file said when the lease was opened or changed.
    pub(crate) trust: Trust,
}

impl State {
    /// Reads what is remembered in `home` of the market at `deployment`.
    pub(crate) fn read(home: &Path, deployment: &Deployment) -> anyhow::Result<Self> {
        let path = home.join("state.json");
        let all = load(&path)?;
        let market = format!("{}:{}", deployment.chain_id, deployment.leases);
        Ok(Self { path, market, all })
    }

    fn market(&self) -> Option<&Market> {
        self.all.get(&self.market)
    }

    /// The lease that `app` stands for.
    pub(crate) fn lease_of(&self, app: &str) -> Option<u64> {
        self.market()?.apps.get(app).copied()
    }

    /// The name of the app that runs under `lease`.
    pub(crate) fn app_of(&self, lease: u64) -> Option<&str> {
        let mut apps = self.market()?.apps.iter();
        apps.find(|(_, number)| **number == lease).map(|(name, _)| name.as_str())
    }

    /// The accounts that were named here.
    pub(crate) fn accounts(&self) -> BTreeSet<AccountName> {
        let named = self.market().into_iter().flat_map(|market| &market.accounts);
        let named = named.filter_map(|name| name.parse().ok());
        named.chain([AccountName::default()]).collect()
    }

    /// The lease that a person means.
    pub(crate) fn resolve(&self, lease: &LeaseRef) -> anyhow::Result<u64> {
        match lease {
            LeaseRef::Number(number) => Ok(*number),
            LeaseRef::App(app) => self.lease_of(app).with_context(|| {
                let known: Vec<_> =
                    self.market().into_iter().flat_map(|market| market.apps.keys()).collect();
                let known = match known.as_slice() {
                    [] => "none is known here".to_owned(),
                    names => {
                        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
                        format!("known are {}", names.join(", "))
                    }
                };
                format!("there is no app {app:?} ({known}); `roadstead ps` lists leases by number")
            }),
        }
    }

    /// Remembers that `app` runs under `lease`.
    pub(crate) fn set_app(&mut self, app: &str, lease: u64) -> anyhow::Result<()> {
        self.change(|market| {
            market.apps.insert(app.to_owned(), lease);
        })
    }

    /// The leases whose pods have encrypted images, and their keys.
    pub(crate) fn keys(&self) -> BTreeMap<u64, KnownKey> {
        self.market().map(|market| market.keys.clone()).unwrap_or_default()
    }

    /// Remembers where the key of a lease's encrypted images is, and who may have it; with none, that it has no such images.
    pub(crate) fn set_key(&mut self, lease: u64, key: Option<&KeyFile>) -> anyhow::Result<()> {
        let known =
            key.map(|key| KnownKey { file: key.path.clone(), trust: key.sealed.trust().clone() });
        self.change(|market| match known {
            Some(known) => drop(market.keys.insert(lease, known)),
            None => drop(market.keys.remove(&lease)),
        })
    }

    /// Forgets the app that ran under `lease`.
    pub(crate) fn forget(&mut self, lease: u64) -> anyhow::Result<()> {
        self.change(|market| {
            market.apps.retain(|_name, number| *number != lease);
            market.keys.remove(&lease);
        })
    }

    /// Remembers the name of an account.
    pub(crate) fn add_account(&mut self, account: &AccountName) -> anyhow::Result<()> {
        self.change(|market| {
            market.accounts.insert(account.to_string());
        })
    }

    /// Changes what is remembered by now: since it was read here, another run may have written, and what that said of who
    /// may have a key is not to be undone.
    fn change(&mut self, how: impl FnOnce(&mut Market)) -> anyhow::Result<()> {
        let before = load(&self.path)?;
        self.all = before.clone();
        how(self.all.entry(self.market.clone()).or_default());
        if self.all == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> anyhow::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let failed = || format!("{} could not be written", self.path.display());
        std::fs::create_dir_all(folder).with_context(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
        serde_json::to_writer_pretty(&mut file, &self.all)?;
        file.flush().with_context(failed)?;
        file.persist(&self.path).map_err(|err| err.error).with_context(failed)?;
        Ok(())
    }
}

fn load(path: &Path) -> anyhow::Result<BTreeMap<String, Market>> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged; it can be removed: leases then have numbers only, and `unlock` needs --file",
                path.display()
            )
        }),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(err) => Err(err).with_context(|| format!("{} cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::*;

    fn deployment(chain_id: u64) -> Deployment {
        let zero = Address::ZERO;
        Deployment {
            chain_id,
            block: 0,
            token: zero,
            payments: zero,
            staking: zero,
            registry: zero,
            leases: zero,
            sla: Address::ZERO,
            auction: Address::ZERO,
            apps: Address::ZERO,
        }
    }

    #[test]
    fn names_are_kept_per_market() {
        let home = tempfile::tempdir().unwrap();
        let mut state = State::read(home.path(), &deployment(1)).unwrap();
        state.set_app("shop", 7).unwrap();
        state.add_account(&"shop".parse().unwrap()).unwrap();

        let state = State::read(home.path(), &deployment(1)).unwrap();
        assert_eq!(state.resolve(&LeaseRef::App("shop".into())).unwrap(), 7);
        assert_eq!(state.app_of(7), Some("shop"));
        assert_eq!(state.accounts().len(), 2);

        let mut other = State::read(home.path(), &deployment(2)).unwrap();
        let err = other.resolve(&LeaseRef::App("shop".into())).unwrap_err().to_string();
        assert!(err.contains("none is known"), "{err}");
        assert_eq!(other.accounts().len(), 1);
        other.set_app("blog", 7).unwrap();
        other.forget(7).unwrap();
        assert_eq!(other.lease_of("blog"), None);

        let state = State::read(home.path(), &deployment(1)).unwrap();
        let err = state.resolve(&LeaseRef::App("blog".into())).unwrap_err().to_string();
        assert!(err.contains("known are shop"), "{err}");
    }

    #[test]
    fn what_another_run_has_written_meanwhile_stays() {
        let home = tempfile::tempdir().unwrap();
        let mut one = State::read(home.path(), &deployment(1)).unwrap();
        let mut other = State::read(home.path(), &deployment(1)).unwrap();
        one.set_app("shop", 7).unwrap();
        other.set_app("blog", 8).unwrap();
        one.forget(9).unwrap();
        let state = State::read(home.path(), &deployment(1)).unwrap();
        assert_eq!((state.lease_of("shop"), state.lease_of("blog")), (Some(7), Some(8)));
    }

    #[test]
    fn who_may_have_a_key_is_kept_with_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.key");
        std::fs::write(&path, &*seal::AppKey::generate().to_pem()).unwrap();
        let wanted = crate::attest::Wanted {
            require: Some(crate::attest::Required::SevSnp),
            measurement: vec![seal::attest::Measurement([7; 32])],
            collateral: None,
            oldest: Some("/amd.toml".into()),
        };
        let mut state = State::read(home.path(), &deployment(1)).unwrap();
        for (lease, trust) in [(7, Trust::Attested(wanted)), (8, Trust::Listed)] {
            let key = KeyFile::read(home.path(), None, trust.clone()).unwrap();
            state.set_key(lease, Some(&key)).unwrap();
            let known = State::read(home.path(), &deployment(1)).unwrap().keys().remove(&lease);
            assert_eq!(known, Some(KnownKey { file: path.clone(), trust }));
        }
        state.set_key(7, None).unwrap();
        let known = State::read(home.path(), &deployment(1)).unwrap().keys();
        assert_eq!(known.into_keys().collect::<Vec<_>>(), [8], "a pod without one has none");
        // One of which that is not known counts for nobody, rather than for everybody.
        let file = home.path().join("state.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let without = text.replace("\"trust\": \"listed\"", "\"other\": 0");
        assert_ne!(without, text);
        std::fs::write(&file, without).unwrap();
        let err = State::read(home.path(), &deployment(1)).unwrap_err();
        assert!(err.to_string().contains("is damaged"), "{err:#}");
    }
}
