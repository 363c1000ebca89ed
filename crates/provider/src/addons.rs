//! Add-ons: pods of the provider's own, which run in the same sandbox as those of leases and outside of what is trusted.
//!
//! Which of them are enabled is said by files in the data folder, which the command line writes whether the provider runs or
//! not: `addons/<name>.json`, and beside it the token, which is worth nothing any more once it is gone. An add-on reaches
//! the provider at one address of its own loopback and nothing else of this machine; with its token it may do there what
//! its [`Grant`]s say.
//!
//! The worst of them, whatever its image does: it uses up what its limits give it, shows its operator a page that lies, asks
//! as often as its bucket allows, and does with its grants what they are for. See `door` for how it comes to the provider.

pub(crate) mod bids;
mod door;
mod keep;
mod page;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use alloy::primitives::keccak256;
use protocol::{
    pod::{Errors, ImageRef, Pod, ResolveError, Surroundings},
    resources::{Bytes, Cpu, Resources},
};
use serde::{Deserialize, Serialize};

pub use self::bids::{BidFacts, Standing as BidStanding};
pub(crate) use self::keep::run;
use crate::{admin::Token, engine::Owner, house, leases::PodKey};

/// The largest configuration that an add-on is given, in bytes.
const MAX_CONFIG: usize = 64 << 10;

/// An add-on that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addon {
    /// Bids for orders.
    Bidder,
    /// Keeps the provider's metrics, and shows them.
    Prometheus,
}

/// What an add-on may ask the provider for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// The provider's metrics.
    #[serde(rename = "metrics:read")]
    MetricsRead,
    /// The orders that bids are taken for, and what each would cost here.
    #[serde(rename = "orders:read")]
    OrdersRead,
    /// That a bid is sent, within the operator's limits.
    #[serde(rename = "bids:send")]
    BidsSend,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MetricsRead => "metrics:read",
            Self::OrdersRead => "orders:read",
            Self::BidsSend => "bids:send",
        })
    }
}

impl fmt::Display for Addon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Addon {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Bidder, Self::Prometheus];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bidder => "bidder",
            Self::Prometheus => "prometheus",
        }
    }

    /// What it is for.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Bidder => "bids for orders, by a strategy of yours",
            Self::Prometheus => "keeps the provider's metrics for some days, and shows them",
        }
    }

    /// The image that it runs where none is named.
    pub fn image(self) -> &'static str {
        match self {
            Self::Bidder => "roadstead/bidder",
            Self::Prometheus => "docker.io/prom/prometheus:v3.5.0",
        }
    }

    /// What it may ask for.
    pub fn grants(self) -> &'static [Grant] {
        match self {
            Self::Bidder => &[Grant::OrdersRead, Grant::BidsSend],
            Self::Prometheus => &[Grant::MetricsRead],
        }
    }

    /// Its configuration where none is given.
    pub fn config(self) -> &'static str {
        match self {
            Self::Bidder => include_str!("addons/bidder.toml"),
            Self::Prometheus => include_str!("addons/prometheus.yml"),
        }
    }

    /// Where its page is shown where nothing else is said, if it has one.
    pub fn page(self) -> Option<SocketAddr> {
        match self {
            Self::Bidder => None,
            Self::Prometheus => Some(([127, 0, 0, 1], 9641).into()),
        }
    }

    /// The port of its container at which its page is.
    fn page_port(self) -> Option<u16> {
        match self {
            Self::Bidder => None,
            Self::Prometheus => Some(9090),
        }
    }

    /// Its pod, as a Compose file.
    fn compose(self) -> &'static str {
        match self {
            Self::Bidder => include_str!("addons/bidder.yaml"),
            Self::Prometheus => include_str!("addons/prometheus.yaml"),
        }
    }

    fn file(self, data: &Path) -> PathBuf {
        data.join(format!("addons/{self}.json"))
    }

    /// The name of its token's file in the data folder.
    pub fn token(self) -> String {
        format!("addons/{self}.token")
    }

    /// Under which key the engine has it: of no lease, and nobody else's.
    fn key(self, owner: Owner) -> PodKey {
        let Owner { provider, chain_id, leases } = owner;
        let name = format!("roadstead add-on v1\n{provider}\n{chain_id}\n{leases}\n{self}");
        PodKey { lease: PodKey::NO_LEASE, opening: keccak256(name) }
    }
}

/// An add-on as its operator wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enabled {
    /// What its image is called, for people.
    pub name: String,
    /// What it runs.
    pub image: ImageRef,
    /// What its configuration says.
    pub config: String,
    /// Where its page is shown, on this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<SocketAddr>,
}

/// An add-on that cannot be enabled so.
#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    /// Its configuration is too long.
    #[error("the configuration has {0} bytes, and {MAX_CONFIG} are the limit")]
    Config(usize),
    /// Its page would be shown to others.
    #[error(
        "{0} is no address of this machine alone; name one such as 127.0.0.1:9641, and take it along by SSH from elsewhere"
    )]
    Page(SocketAddr),
    /// It has no page.
    #[error("{0} has no page")]
    NoPage(Addon),
    /// What comes out is no pod.
    #[error("the add-on is no valid pod with this image and configuration")]
    Pod(#[source] Errors),
    /// Its files could not be written.
    #[error("the provider's data folder cannot be written")]
    Files(#[from] io::Error),
}

/// What the definition of an add-on asks of its surroundings.
struct Filled<'a> {
    config: &'a str,
    token: &'a str,
}

impl Surroundings for Filled<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "CONFIG" => Some(self.config.to_owned()),
            // Another token is another pod, so that what runs never has an old one.
            "TOKEN_MARK" => Some(self.token.to_owned()),
            _other => None,
        }
    }

    fn read(&self, path: &str) -> Result<String, String> {
        Err(format!("{path} is not part of the add-on"))
    }
}

impl Enabled {
    /// How `addon` was enabled in the data folder of a provider; nothing where it was not.
    ///
    /// # Errors
    /// When that cannot be read: it may be enabled or not.
    pub fn read(data: &Path, addon: Addon) -> io::Result<Option<Self>> {
        let text = match std::fs::read(addon.file(data)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from)
    }

    /// The pod that `addon` runs with the token that has this mark.
    fn pod(&self, addon: Addon, mark: &str) -> Result<Pod, AddonError> {
        let bytes = self.config.len();
        if bytes > MAX_CONFIG {
            return Err(AddonError::Config(bytes));
        }
        let filled = Filled { config: &self.config, token: mark };
        let parsed = Pod::from_compose(addon.compose(), &filled).map_err(AddonError::Pod)?;
        let image =
            |_service: &_, _image: &_| Ok::<_, std::convert::Infallible>(self.image.clone());
        parsed.resolve(image).map_err(|err| match err {
            ResolveError::Invalid(errors) => AddonError::Pod(errors),
            ResolveError::Image { source, .. } => match source {},
        })
    }
}

/// Enables an add-on, or enables it otherwise than before: with a new token in any case.
///
/// # Errors
/// When it cannot be so, or cannot be written down.
pub fn enable(data: &Path, addon: Addon, enabled: &Enabled) -> Result<(), AddonError> {
    match (addon.page_port(), enabled.page) {
        (None, Some(_)) => return Err(AddonError::NoPage(addon)),
        (_, Some(page)) if !page.ip().is_loopback() => return Err(AddonError::Page(page)),
        _fine => (),
    }
    enabled.pod(addon, "")?;
    let folder = data.join("addons");
    std::fs::DirBuilder::new().recursive(true).create(&folder)?;
    Token::renew(data, &addon.token())?;
    let text = serde_json::to_vec(enabled).map_err(io::Error::from)?;
    Ok(house::write(&addon.file(data), &text)?)
}

/// Disables an add-on: its token is worth nothing from here on, and a provider that runs removes its pod with what it kept.
/// False where it was not enabled.
///
/// # Errors
/// When its files cannot be removed.
pub fn disable(data: &Path, addon: Addon) -> io::Result<bool> {
    let mut was = false;
    for path in [data.join(addon.token()), addon.file(data)] {
        match std::fs::remove_file(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => (),
            removed => {
                removed?;
                was = true;
            }
        }
    }
    Ok(was)
}

/// How far an add-on is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is not enabled.
    #[default]
    Off,
    /// Its image is had, or its container started.
    Starting,
    /// It runs.
    Running,
    /// It is tried again in a while; the message says why.
    Waiting,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
        })
    }
}

/// How an add-on stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    pub(crate) message: Option<String>,
    pub(crate) image: String,
    pub(crate) page: Option<SocketAddr>,
    /// What it has of the capacity.
    pub(crate) reserved: Resources,
}

/// How all of them stand.
#[derive(Debug, Default)]
pub(crate) struct Addons(Mutex<BTreeMap<Addon, Standing>>);

impl Addons {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Addon, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How each that is enabled stands.
    pub(crate) fn all(&self) -> BTreeMap<Addon, Standing> {
        self.lock().clone()
    }

    /// What they have of the capacity together.
    pub(crate) fn reserved(&self) -> Resources {
        let all = self.lock();
        all.values().fold(Resources::default(), |sum, one| Resources {
            cpu: Cpu(sum.cpu.0.saturating_add(one.reserved.cpu.0)),
            memory: Bytes(sum.memory.0.saturating_add(one.reserved.memory.0)),
            storage: Bytes(sum.storage.0.saturating_add(one.reserved.storage.0)),
            gpus: sum.gpus.saturating_add(one.reserved.gpus),
        })
    }

    fn change(&self, addon: Addon, change: impl FnOnce(&mut Standing)) {
        change(self.lock().entry(addon).or_default());
    }

    fn forget(&self, addon: Addon) {
        self.lock().remove(&addon);
    }
}

impl PodKey {
    /// The number of the lease that an add-on does not have: leases are counted from one.
    const NO_LEASE: u64 = 0;

    /// Whether it is an add-on's, and no lease's.
    pub(crate) fn is_addon(&self) -> bool {
        self.lease == Self::NO_LEASE
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256};

    use super::*;

    fn enabled() -> Enabled {
        let id = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        Enabled {
            name: "local".into(),
            image: ImageRef::Pushed { id },
            config: Addon::Prometheus.config().into(),
            page: Addon::Prometheus.page(),
        }
    }

    #[test]
    fn every_definition_is_a_pod_that_can_do_no_more_than_it_needs() {
        for addon in Addon::ALL {
            let enabled = Enabled { config: addon.config().into(), ..enabled() };
            let pod = enabled.pod(addon, "0011").unwrap();
            assert_ne!(pod.hash(), enabled.pod(addon, "2233").unwrap().hash(), "{addon}");
            assert!(pod.ingress().is_empty() && pod.services().len() == 1, "{addon}");
            assert!(pod.networks().values().all(|network| network.internal), "{addon}");
            assert_eq!(pod.public_ports().count(), 0, "{addon}");
            for service in pod.services().values() {
                assert!(service.read_only && service.user.is_some(), "{addon}");
                assert_eq!(service.secrets.len(), 1, "{addon}");
            }
            let text = String::from_utf8(pod.canonical()).unwrap();
            let first = addon.config().lines().find(|line| !line.starts_with('#')).unwrap();
            assert!(text.contains(first.trim()), "{addon}: {text}");
        }
    }

    #[test]
    fn what_is_enabled_is_written_down_and_what_is_disabled_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (data, addon) = (folder.path(), Addon::Prometheus);
        assert_eq!(Enabled::read(data, addon).unwrap(), None);
        assert!(!disable(data, addon).unwrap());
        enable(data, addon, &enabled()).unwrap();
        assert_eq!(Enabled::read(data, addon).unwrap(), Some(enabled()));
        let first = Token::read(data, &addon.token()).unwrap();
        enable(data, addon, &enabled()).unwrap();
        assert_ne!(first.word(), Token::read(data, &addon.token()).unwrap().word());

        for wrong in ["0.0.0.0:9641", "192.0.2.7:9641"] {
            let page = Some(wrong.parse().unwrap());
            let err = enable(data, addon, &Enabled { page, ..enabled() }).unwrap_err();
            assert!(err.to_string().contains(wrong), "{err}");
        }
        let config = "x".repeat(MAX_CONFIG + 1);
        let err = enable(data, addon, &Enabled { config, ..enabled() }).unwrap_err();
        assert!(err.to_string().contains("65537"), "{err}");

        std::fs::write(addon.file(data), "{").unwrap();
        assert!(Enabled::read(data, addon).is_err(), "it may be enabled");
        assert!(disable(data, addon).unwrap());
        assert_eq!(Enabled::read(data, addon).unwrap(), None);
        assert!(Token::read(data, &addon.token()).is_err());
    }

    #[test]
    fn no_two_providers_share_a_key() {
        let owner = |byte| Owner {
            provider: Address::repeat_byte(byte),
            chain_id: 1,
            leases: Address::ZERO,
        };
        let keys = [1, 2].map(|byte| Addon::Prometheus.key(owner(byte)));
        assert_ne!(keys[0], keys[1]);
        assert!(keys.iter().all(PodKey::is_addon));
        assert!(!PodKey { lease: 1, opening: B256::ZERO }.is_addon());
    }
}
