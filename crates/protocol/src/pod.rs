//! The pod: what runs, in the canonical form whose hash is on chain, and how a Compose file becomes one.
//!
//! A file is read by `serde-saphyr` into an untyped tree, then walked by our own typed reader. Of the YAML crates it is
//! the one without a translated C parser, and it expands merge keys, refuses duplicate keys, and bounds nodes, depth and
//! aliases by itself (`serde_norway` and `serde_yaml_ng` carry on the archived `serde_yaml`). The Compose crates
//! (`compose_spec`, `docker-compose-types`) read through that archived one and stop at the first error, while a walk
//! that knows its path reports all of them, with a reason for each known key that is refused.

mod check;
mod compose;
pub mod limits;
pub(crate) mod names;
mod service;
mod text;
pub(crate) mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use alloy_primitives::{B256, hex, keccak256};
use serde::{Deserialize, Serialize};

pub(crate) use self::check::bytes_in_range;
pub use self::{
    compose::{
        AttestedWish, Coverage, Criteria, Encrypt, Hardware, Image, MaxPrice, Parsed, ResolveError,
        SecretSource, SlaWishes, Surroundings, Wishes,
    },
    names::{
        AbsPath, Digest, Domain, Group, Host, HostName, ImageName, Invalid, Label, LabelKey, Name,
        Port, Repository, ResolverOption, Signal, Sysctl, Transport, UlimitName, User, Variable,
    },
    service::{
        Attachment, Condition, Healthcheck, ImageRef, Limits, Mount, PlacedFile, Restart, Runtime,
        Service, Test, Tmpfs, Ulimit,
    },
    tree::{Errors, Fault},
};
use crate::resources::{BitRate, Bytes, Demand, Resources};

/// What is hashed in front of the canonical bytes, so that no other hash can pass for a pod's.
const DOMAIN: &[u8] = b"roadstead pod v1\n";

/// The JSON Schema, draft 2020-12, of a file's `x-roadstead`.
pub const SCHEMA: &str = include_str!("../../../schema/x-roadstead.json");

/// A pod in its canonical form. Whatever holds one holds a valid one: it is made by `new`, `decode` and
/// `Parsed::resolve` alone, each of which checks every limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Pod(Parts);

/// The wire form of a pod. Fields are in the order of their names, here and in all that follow, so that the JSON is
/// RFC 8785's; what is at its default is left out, so that a field added later changes no older hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    configs: BTreeMap<Name, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<Egress>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ingress: BTreeMap<Host, Target>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<Name, Network>,
    services: BTreeMap<Label, Service>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tls: BTreeMap<Host, Tls>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<Name, Volume>,
}

/// Where a host's certificate comes from, if not from an authority to which the provider proves over HTTP that it serves
/// the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tls {
    /// From an authority, to which the provider proves the host by DNS: the host's `_acme-challenge` is an alias of a name
    /// of the provider's.
    Dns,
    /// The publisher's own: two of the pod's secrets, both in PEM.
    Own {
        /// The chain, which begins with the host's own certificate.
        certificate: Name,
        /// Its private key.
        key: Name,
    },
}

/// Where ingress sends the requests for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The TCP port on which the service listens.
    pub port: std::num::NonZeroU16,
    /// What it speaks there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Http,
    /// The service.
    pub service: Label,
}

/// What a service speaks to the ingress. Visitors may speak either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Http {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte ("prior knowledge"): gRPC.
    H2c,
}

/// What a pod wants to send to the world; what it leaves out is the provider's to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// How fast, answers to visitors included.
    #[serde(default, rename = "rate_bps", skip_serializing_if = "Option::is_none")]
    pub rate: Option<BitRate>,
    /// How much in 30 days, answers to visitors apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
}

/// What services reach each other over. Those that share none do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Whether it leads nowhere else: not to the world either.
    #[serde(default, skip_serializing_if = "is_default")]
    pub internal: bool,
}

/// Space that outlives its containers, as long as the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// How much.
    pub size: Bytes,
}

/// The hash of a pod, under which the chain knows it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PodHash(pub B256);

/// Bytes that are not a pod in its canonical form.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Too many bytes.
    #[error("the pod is {0} bytes long; the limit is {max}", max = limits::CANONICAL)]
    TooLong(usize),
    /// Not the JSON of a pod.
    #[error("the bytes are not a pod")]
    Json(#[source] serde_json::Error),
    /// A pod that breaks a rule.
    #[error("the pod is not valid")]
    Invalid(#[source] Errors),
    /// A pod, in other bytes than its canonical ones.
    #[error("the pod is not in its canonical form; send the bytes that were hashed")]
    NotCanonical,
}

impl Pod {
    /// Makes a pod of these parts, with no configs and no network but the default one.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(
        services: BTreeMap<Label, Service>,
        volumes: BTreeMap<Name, Volume>,
        ingress: BTreeMap<Host, Target>,
    ) -> Result<Self, Errors> {
        Self::try_from(Parts { ingress, services, volumes, ..Parts::default() })
    }

    /// Its services.
    pub fn services(&self) -> &BTreeMap<Label, Service> {
        &self.0.services
    }

    /// Its volumes.
    pub fn volumes(&self) -> &BTreeMap<Name, Volume> {
        &self.0.volumes
    }

    /// Its hosts, and where their requests go.
    pub fn ingress(&self) -> &BTreeMap<Host, Target> {
        &self.0.ingress
    }

    /// A service and its replicas.
    pub fn replicas(&self, service: &Label) -> impl Iterator<Item = &Label> {
        let of = move |(name, one): &(&Label, &Service)| {
            *name == service || one.replica_of.as_ref() == Some(service)
        };
        self.0.services.iter().filter(of).map(|(name, _)| name)
    }

    /// The ports that the world reaches, at numbers that the provider chooses, by service.
    pub fn public_ports(&self) -> impl Iterator<Item = (&Label, Port)> {
        let services = self.0.services.iter();
        services.flat_map(|(name, service)| service.public.iter().map(move |port| (name, *port)))
    }

    /// Where the certificates of its hosts come from, where that is said.
    pub fn tls(&self) -> &BTreeMap<Host, Tls> {
        &self.0.tls
    }

    /// What it wants to send to the world.
    pub fn egress(&self) -> Egress {
        self.0.egress.unwrap_or_default()
    }

    /// The contents of its configs.
    pub fn configs(&self) -> &BTreeMap<Name, String> {
        &self.0.configs
    }

    /// The networks that its services are on, the default one included where one of them is.
    pub fn networks(&self) -> BTreeMap<Name, Network> {
        let used = self.0.services.values().flat_map(|service| service.attachments().into_keys());
        let known = |name: &Name| self.0.networks.get(name).copied().unwrap_or_default();
        used.map(|name| (name.clone(), known(&name))).collect()
    }

    /// The names of the secrets that it needs.
    pub fn secrets(&self) -> BTreeSet<&Name> {
        let files = self.0.services.values().flat_map(|service| service.secrets.values());
        files.map(|file| &file.source).chain(certificate_secrets(&self.0.tls)).collect()
    }

    /// The canonical bytes: RFC 8785 JSON of integers and text.
    pub fn canonical(&self) -> Vec<u8> {
        self.0.canonical()
    }

    /// The hash of the canonical bytes.
    pub fn hash(&self) -> PodHash {
        PodHash(keccak256([DOMAIN, &self.canonical()].concat()))
    }

    /// Reads canonical bytes, from whomever.
    ///
    /// # Errors
    /// When they are no valid pod, or are not its canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limits::CANONICAL {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        let parts: Parts = serde_json::from_slice(bytes).map_err(DecodeError::Json)?;
        let pod = Self::try_from(parts).map_err(DecodeError::Invalid)?;
        match pod.canonical() == bytes {
            true => Ok(pod),
            false => Err(DecodeError::NotCanonical),
        }
    }

    /// What it uses in all.
    pub fn resources(&self) -> Resources {
        self.0.resources()
    }

    /// What it is charged for by a provider that includes that much egress in 30 days: what it asks for beyond that, so
    /// that who asks for no more than is included pays what who asks for nothing does.
    pub fn demand(&self, included: Bytes) -> Demand {
        self.0.demand(included)
    }

    /// Its services in an order in which each comes after what it depends on.
    pub fn start_order(&self) -> Vec<&Label> {
        self.0.start_order().0
    }
}

impl TryFrom<Parts> for Pod {
    type Error = Errors;
    fn try_from(parts: Parts) -> Result<Self, Errors> {
        match Errors::of(parts.faults(&BTreeSet::new())) {
            None => Ok(Self(parts)),
            Some(errors) => Err(errors),
        }
    }
}

impl From<Pod> for Parts {
    fn from(pod: Pod) -> Self {
        pod.0
    }
}

impl Parts {
    fn canonical(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "text keys, integers and text always are JSON")]
        serde_json::to_vec(self).expect("a pod is JSON")
    }

    fn resources(&self) -> Resources {
        // Within their limits, neither sum comes near to its type's end.
        let services = self.services.values().map(|service| Resources {
            cpu: service.limits.cpu,
            memory: service.limits.memory,
            storage: service.layer(),
            gpus: service.limits.gpus,
        });
        services
            .chain(
                self.volumes
                    .values()
                    .map(|volume| Resources { storage: volume.size, ..Resources::default() }),
            )
            .fold(Resources::default(), |sum, next| sum.checked_add(next).unwrap_or(sum))
    }

    fn demand(&self, included: Bytes) -> Demand {
        let asked = self.egress.and_then(|egress| egress.total).unwrap_or_default();
        let ports = self.services.values().map(|service| service.public.len()).sum::<usize>();
        Demand {
            resources: self.resources(),
            egress: Bytes(asked.0.saturating_sub(included.0)),
            // There are few: see `limits::PUBLIC_PORTS`.
            public_ports: u32::try_from(ports).unwrap_or(u32::MAX),
        }
    }

    /// An order of starting, and what is left over because it waits in a circle.
    fn start_order(&self) -> (Vec<&Label>, BTreeSet<&Label>) {
        let mut order = Vec::new();
        let mut waiting: BTreeSet<&Label> = self.services.keys().collect();
        loop {
            let free = waiting.iter().copied().find(|name| {
                self.services.get(*name).is_none_or(|service| {
                    service
                        .depends_on
                        .keys()
                        .all(|other| other == *name || !waiting.contains(other))
                })
            });
            let Some(free) = free else { return (order, waiting) };
            waiting.remove(free);
            order.push(free);
        }
    }

    /// The services that wait for one another.
    fn circle(&self) -> BTreeSet<&Label> {
        let (_, mut waiting) = self.start_order();
        // Who only waits for a circle is in none.
        loop {
            let awaited = |name: &Label| {
                let others = waiting.iter().filter(|other| **other != name);
                others
                    .filter_map(|other| self.services.get(*other))
                    .any(|s| s.depends_on.contains_key(name))
            };
            let Some(last) = waiting.iter().copied().find(|name| !awaited(name)) else {
                return waiting;
            };
            waiting.remove(last);
        }
    }
}

/// The variables of a `.env` file, in its order, read as Compose reads it: `None` for those that only have a name.
/// `lookup` gives what its values refer to.
///
/// # Errors
/// The first line that cannot be read.
pub fn dot_env(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Option<String>)>, Invalid> {
    text::env_file(text, false, lookup, &mut |_unset| ())
}

/// The secrets that certificates are in.
fn certificate_secrets(tls: &BTreeMap<Host, Tls>) -> impl Iterator<Item = &Name> {
    tls.values().flat_map(Tls::secrets).flatten()
}

impl Tls {
    fn secrets(&self) -> [Option<&Name>; 2] {
        match self {
            Self::Dns => [None, None],
            Self::Own { certificate, key } => [Some(certificate), Some(key)],
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl fmt::Display for PodHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PodHash {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
