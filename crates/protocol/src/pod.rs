//! The pod: what runs, in the canonical form whose hash is on chain, and how a Compose file becomes one.
//!
//! A file is read by `serde-saphyr` into an untyped tree, then walked by our own typed reader. Of the YAML crates it is
//! the one without a translated C parser, and it expands merge keys, refuses duplicate keys, and bounds nodes, depth and
//! aliases by itself (`serde_norway` and `serde_yaml_ng` carry on the archived `serde_yaml`). The Compose crates
//! (`compose_spec`, `docker-compose-types`) read through that archived one and stop at the first error, while a walk
//! that knows its path reports all of them, with a reason for each known key that is refused.

mod compose;
pub mod limits;
mod names;
mod text;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    str::FromStr,
};

use alloy_primitives::{B256, hex, keccak256};
use serde::{Deserialize, Serialize};

pub use self::{
    compose::{
        Coverage, Criteria, Image, MaxPrice, Parsed, ResolveError, SecretSource, SlaWishes,
        Surroundings, Wishes,
    },
    names::{
        AbsPath, Digest, Host, ImageName, Invalid, Label, LabelKey, Name, Port, Repository, Signal,
        Transport, User, Variable,
    },
    tree::{Errors, Fault},
};
use crate::resources::{Bytes, Cpu, Resources};

/// What is hashed in front of the canonical bytes, so that no other hash can pass for a pod's.
const DOMAIN: &[u8] = b"roadstead pod v1\n";

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
    ingress: BTreeMap<Host, Target>,
    services: BTreeMap<Label, Service>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<Name, Volume>,
}

/// Where ingress sends the requests for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The TCP port on which the service listens.
    pub port: std::num::NonZeroU16,
    /// The service.
    pub service: Label,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What replaces the image's command; empty means none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// What has to be so before it starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<Label, Condition>,
    /// What replaces the image's entry point; empty means none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<Variable, String>,
    /// What replaces the image's health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Its own host name, where that is not the service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Label>,
    /// What it runs.
    pub image: ImageRef,
    /// Whether an init reaps its orphans and forwards its signals.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: bool,
    /// Labels that the provider passes through to the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelKey, String>,
    /// What it may use.
    pub limits: Limits,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<Port>,
    /// Whether its root file system cannot be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// What happens when it ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// Secrets, by the file in which it finds them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<AbsPath, SecretFile>,
    /// How many seconds it may take to stop; ten where it does not say.
    #[serde(default, rename = "stop_grace_s", skip_serializing_if = "Option::is_none")]
    pub stop_grace: Option<u32>,
    /// What asks it to stop, where that is not the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// File systems in its memory, by where they are mounted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<AbsPath, Tmpfs>,
    /// Who it runs as, where that is not the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Volumes, by where they are mounted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<AbsPath, Mount>,
    /// Where it starts, where that is not the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<AbsPath>,
}

/// Exactly what a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageRef {
    /// An image that the publisher pushes to the provider.
    Pushed {
        /// The digest of its configuration: what Docker calls its id.
        id: Digest,
    },
    /// An image that the provider pulls.
    Registry {
        /// The digest of its manifest.
        digest: Digest,
        /// Where it is.
        reference: Repository,
    },
}

/// What a service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// That the other is healthy.
    ServiceHealthy,
    /// That the other was started.
    ServiceStarted,
}

/// How the provider finds out whether a service is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// Milliseconds between two checks; the image's, or Docker's 30 s, where it does not say.
    #[serde(default, rename = "interval_ms", skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    /// How many failures make it unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Milliseconds from the start in which failures do not count.
    #[serde(default, rename = "start_period_ms", skip_serializing_if = "Option::is_none")]
    pub start_period: Option<u64>,
    /// What is run; the image's where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// Milliseconds after which a check has failed.
    #[serde(default, rename = "timeout_ms", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Nothing: the image's check is switched off.
    Disabled,
    /// A program with its arguments.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// What a service may use, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory, what it keeps in tmpfs included.
    pub memory: Bytes,
    /// Processes and threads.
    pub pids: u32,
}

/// What happens when a service ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Restart {
    /// It is started again.
    Always,
    /// Nothing.
    #[default]
    No,
    /// It is started again when it failed.
    OnFailure {
        /// How often at most; `None` is without end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
    /// It is started again unless the publisher stopped it.
    UnlessStopped,
}

/// A secret as a service sees it. Its contents are never part of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The file's permissions: 0o444 in Compose.
    pub mode: u16,
    /// The secret.
    pub source: Name,
}

/// A file system in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// The permissions of its root: 0o1777 in Compose.
    pub mode: u16,
    /// How large it may grow.
    pub size: Bytes,
}

/// A volume as a service sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Whether it cannot be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// The volume.
    pub source: Name,
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
    /// Makes a pod of its parts.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(
        services: BTreeMap<Label, Service>,
        volumes: BTreeMap<Name, Volume>,
        ingress: BTreeMap<Host, Target>,
    ) -> Result<Self, Errors> {
        Self::try_from(Parts { ingress, services, volumes })
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

    /// The names of the secrets that it needs.
    pub fn secrets(&self) -> BTreeSet<&Name> {
        let files = self.0.services.values().flat_map(|service| service.secrets.values());
        files.map(|file| &file.source).collect()
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
        let services = self.services.values().map(|service| service.limits);
        services
            .map(|limits| Resources { cpu: limits.cpu, memory: limits.memory, storage: Bytes(0) })
            .chain(
                self.volumes
                    .values()
                    .map(|volume| Resources { storage: volume.size, ..Resources::default() }),
            )
            .fold(Resources::default(), |sum, next| sum.checked_add(next).unwrap_or(sum))
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

    /// All that is wrong with it. What refers to a `broken` service is left out: more is known about that one.
    fn faults(&self, broken: &BTreeSet<String>) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        faults.at_most("services", self.services.len(), limits::SERVICES);
        if self.services.is_empty() && broken.is_empty() {
            faults.add("services", "there is none; a pod has one at least");
        }
        faults.at_most("volumes", self.volumes.len(), limits::VOLUMES);
        faults.at_most("x-roadstead.ingress", self.ingress.len(), limits::HOSTS);
        if !faults.0.is_empty() && broken.is_empty() {
            return faults.0;
        }
        for (name, volume) in &self.volumes {
            let path = tree::key(&tree::key("volumes", name.as_str()), "x-size");
            faults.bytes(&path, volume.size, limits::VOLUME);
        }
        for (name, service) in &self.services {
            self.service_faults(name, service, broken, &mut faults);
        }
        let circle = self.circle();
        if let Some(first) = circle.first() {
            let names: Vec<_> = circle.iter().map(|name| name.as_str()).collect();
            faults.add(
                &format!("services.{first}.depends_on"),
                format!("{} wait for one another; remove one", names.join(", ")),
            );
        }
        for (host, target) in &self.ingress {
            if !broken.contains(target.service.as_str()) {
                self.target_faults(host, target, &mut faults);
            }
        }
        let length = self.canonical().len();
        if length > limits::CANONICAL {
            faults.add("services", format!(
                "the pod is {length} bytes long in its canonical form; the limit is {}: keep large files in the image",
                limits::CANONICAL
            ));
        }
        faults.0
    }

    fn target_faults(&self, host: &Host, target: &Target, faults: &mut Faults) {
        let path = tree::key("x-roadstead.ingress", host.as_str());
        let Target { service: name, port } = target;
        match self.services.get(name) {
            None => {
                faults.unknown(&path, "service", name.as_str(), self.services.keys(), ADD_SERVICE);
            }
            Some(service)
                if !service.ports.contains(&Port { number: *port, transport: Transport::Tcp }) =>
            {
                faults.add(
                    &path,
                    format!("service {name} does not list port {port}; add \"{port}\" to services.{name}.ports"),
                );
            }
            Some(_) => (),
        }
    }

    fn service_faults(
        &self,
        name: &Label,
        service: &Service,
        broken: &BTreeSet<String>,
        faults: &mut Faults,
    ) {
        let at = |field: &str| format!("services.{name}.{field}");
        for (field, words) in [("command", &service.command), ("entrypoint", &service.entrypoint)] {
            if let Some(words) = words {
                faults.words(&at(field), words);
            }
        }
        for (other, condition) in &service.depends_on {
            let path = tree::key(&at("depends_on"), other.as_str());
            if other == name {
                faults.add(&path, "it waits for itself; remove this");
                continue;
            }
            if broken.contains(other.as_str()) {
                continue;
            }
            let Some(dependency) = self.services.get(other) else {
                faults.unknown(&path, "service", other.as_str(), self.services.keys(), ADD_SERVICE);
                continue;
            };
            let disabled = dependency.healthcheck.as_ref().and_then(|check| check.test.as_ref())
                == Some(&Test::Disabled);
            if disabled && *condition == Condition::ServiceHealthy {
                faults.add(&path, format!(
                    "{other} has its health check disabled and never gets healthy; write service_started"
                ));
            }
        }
        faults.at_most(&at("environment"), service.environment.len(), limits::VARIABLES);
        for (key, value) in &service.environment {
            faults.text(&tree::key(&at("environment"), key.as_str()), value);
        }
        faults.at_most(&at("labels"), service.labels.len(), limits::LABELS);
        for (key, value) in &service.labels {
            faults.text(&tree::key(&at("labels"), key.as_str()), value);
        }
        if let Some(check) = &service.healthcheck {
            check.faults(&at("healthcheck"), faults);
        }
        service.limits.faults(&at("deploy.resources.limits"), faults);
        faults.at_most(&at("ports"), service.ports.len(), limits::PORTS);
        if let Restart::OnFailure { max: Some(max) } = service.restart {
            faults.within(&at("restart"), max, &limits::RESTARTS);
        }
        if let Some(grace) = service.stop_grace {
            faults.time(&at("stop_grace_period"), grace, &limits::STOP_S, "s");
        }
        self.mount_faults(service, &at, faults);
    }

    fn mount_faults(&self, service: &Service, at: &dyn Fn(&str) -> String, faults: &mut Faults) {
        let mounts = service.volumes.len() + service.tmpfs.len() + service.secrets.len();
        faults.at_most(&at("volumes"), mounts, limits::MOUNTS);
        for (target, mount) in &service.volumes {
            let path = tree::key(&at("volumes"), target.as_str());
            faults.check(&path, mountable(target, Mounted::Volume));
            if !self.volumes.contains_key(&mount.source) {
                let hint = "declare it under volumes, with x-size";
                faults.unknown(&path, "volume", mount.source.as_str(), self.volumes.keys(), hint);
            }
        }
        for (target, tmpfs) in &service.tmpfs {
            let path = tree::key(&at("tmpfs"), target.as_str());
            faults.check(&path, mountable(target, Mounted::Tmpfs));
            faults.bytes(&path, tmpfs.size, limits::TMPFS);
            faults.mode(&path, tmpfs.mode, 0o1777);
            if service.volumes.contains_key(target) {
                faults.add(&path, "a volume is mounted there as well; choose another place");
            }
        }
        for (target, secret) in &service.secrets {
            let path = tree::key(&at("secrets"), target.as_str());
            faults.check(&path, mountable(target, Mounted::Secret));
            faults.mode(&path, secret.mode, 0o777);
            if service.volumes.contains_key(target) || service.tmpfs.contains_key(target) {
                faults.add(&path, "something is mounted there as well; choose another place");
            }
            let mut others =
                service.volumes.keys().chain(service.tmpfs.keys()).chain(service.secrets.keys());
            let below = |other: &AbsPath| {
                other
                    .as_str()
                    .strip_prefix(target.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            if let Some(other) = others.find(|other| below(other)) {
                faults.add(
                    &path,
                    format!("{other} lies below it, and a secret is a file; choose another place"),
                );
            }
        }
    }
}

impl Limits {
    fn faults(&self, path: &str, faults: &mut Faults) {
        faults.check(&format!("{path}.cpus"), cpu_in_range(self.cpu));
        faults.bytes(&format!("{path}.memory"), self.memory, limits::MEMORY);
        faults.within(&format!("{path}.pids"), self.pids, &limits::PIDS);
    }
}

impl Healthcheck {
    fn faults(&self, path: &str, faults: &mut Faults) {
        match &self.test {
            None | Some(Test::Disabled) => (),
            Some(Test::Exec(words)) => {
                if words.is_empty() {
                    faults.add(&format!("{path}.test"), "there is no program to run");
                }
                faults.words(&format!("{path}.test"), words);
            }
            Some(Test::Shell(line)) => faults.text(&format!("{path}.test"), line),
        }
        let times = [("interval", self.interval), ("timeout", self.timeout)];
        for (field, value) in times {
            if let Some(value) = value {
                faults.time(&format!("{path}.{field}"), value, &limits::CHECK_MS, "ms");
            }
        }
        if let Some(value) = self.start_period {
            let range = 0..=*limits::CHECK_MS.end();
            faults.time(&format!("{path}.start_period"), value, &range, "ms");
        }
        if let Some(value) = self.retries {
            faults.within(&format!("{path}.retries"), value, &limits::RETRIES);
        }
    }
}

struct Faults(Vec<Fault>);

impl Faults {
    /// Keeps the first few: nobody reads more, and a hostile pod shall not make us write them.
    fn add(&mut self, path: &str, what: impl Into<String>) {
        if self.0.len() < limits::FAULTS {
            self.0.push(Fault { path: path.to_owned(), what: what.into() });
        }
    }

    fn unknown<T: fmt::Display>(
        &mut self,
        path: &str,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = T>,
        hint: &str,
    ) {
        // To look for what was meant takes time.
        if self.0.len() < limits::FAULTS {
            self.add(path, unknown(kind, name, known, hint));
        }
    }

    fn check(&mut self, path: &str, result: Result<(), Invalid>) {
        if let Err(err) = result {
            self.add(path, err.0);
        }
    }

    fn at_most(&mut self, path: &str, count: usize, most: usize) {
        if count > most {
            self.add(path, format!("there are {count}; the limit is {most}"));
        }
    }

    fn within<T: PartialOrd + fmt::Display>(
        &mut self,
        path: &str,
        value: T,
        range: &RangeInclusive<T>,
    ) {
        self.check(path, in_range(&value, range));
    }

    fn time<T: PartialOrd + fmt::Display>(
        &mut self,
        path: &str,
        value: T,
        range: &RangeInclusive<T>,
        unit: &str,
    ) {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            self.add(
                path,
                format!("{value}{unit} is out of range; write {least}{unit} to {most}{unit}"),
            );
        }
    }

    fn bytes(&mut self, path: &str, value: Bytes, range: RangeInclusive<u64>) {
        self.check(path, bytes_in_range(value, &range));
    }

    fn mode(&mut self, path: &str, mode: u16, most: u16) {
        self.check(path, mode_in_range(mode, most));
    }

    fn words(&mut self, path: &str, words: &[String]) {
        self.at_most(path, words.len(), limits::WORDS);
        for (index, word) in words.iter().enumerate() {
            self.text(&format!("{path}[{index}]"), word);
        }
    }

    fn text(&mut self, path: &str, text: &str) {
        if text.len() > limits::TEXT {
            let (length, most) = (text.len(), limits::TEXT);
            self.add(path, format!("the text is {length} bytes long; the limit is {most}"));
        }
        if text.contains('\0') {
            self.add(path, "there is a NUL byte in the text, which no process can be given");
        }
    }
}

fn in_range<T: PartialOrd + fmt::Display>(
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), Invalid> {
    let (least, most) = (range.start(), range.end());
    match range.contains(value) {
        true => Ok(()),
        false => Err(Invalid(format!("{value} is out of range ({least}-{most})"))),
    }
}

fn cpu_in_range(cpu: Cpu) -> Result<(), Invalid> {
    let (least, most) = (Cpu(*limits::CPU.start()), Cpu(*limits::CPU.end()));
    match limits::CPU.contains(&cpu.0) {
        true => Ok(()),
        false => Err(Invalid(format!("{cpu} is out of range; write {least} to {most}"))),
    }
}

fn bytes_in_range(bytes: Bytes, range: &RangeInclusive<u64>) -> Result<(), Invalid> {
    let (least, most) = (Bytes(*range.start()), Bytes(*range.end()));
    match range.contains(&bytes.0) {
        true => Ok(()),
        false => Err(Invalid(format!("{bytes} is out of range; write {least} to {most}"))),
    }
}

fn mode_in_range(mode: u16, most: u16) -> Result<(), Invalid> {
    match mode <= most {
        true => Ok(()),
        false => Err(Invalid(format!("{mode:04o} is no file mode; write 0000 to {most:04o}"))),
    }
}

/// What is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mounted {
    Volume,
    Tmpfs,
    Secret,
}

/// Whether something may be mounted at `path`: not over what makes a container one.
fn mountable(path: &AbsPath, what: Mounted) -> Result<(), Invalid> {
    let path = path.as_str();
    let under = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if path == "/dev/shm" && what == Mounted::Tmpfs {
        return Ok(());
    }
    if path == "/" {
        return Err(Invalid("nothing can be mounted over the root; choose a folder below".into()));
    }
    let kept = ["/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    let secrets = (what != Mounted::Secret).then_some("/run/secrets");
    match kept.into_iter().chain(secrets).find(|root| under(root)) {
        Some(root) => Err(Invalid(format!(
            "{path} is not yours to mount over ({root}); choose another place"
        ))),
        None if what == Mounted::Secret && path == "/run/secrets" => {
            Err(Invalid("/run/secrets is the folder of the secrets; name a file in it".into()))
        }
        None => Ok(()),
    }
}

const ADD_SERVICE: &str = "add it under services";

/// Says that there is no such thing, and what was perhaps meant, or else what to do.
fn unknown<T: fmt::Display>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = T>,
    hint: &str,
) -> String {
    let known: Vec<String> = known.map(|name| name.to_string()).collect();
    match tree::closest(name, known.iter().map(String::as_str)) {
        Some(close) => format!("there is no {kind} {name}; did you mean {close}?"),
        None => format!("there is no {kind} {name}; {hint}"),
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
