//! The containers of a pod, as the canonical form has them.
//!
//! Fields are in the order of their names, and what is at its default is left out: see `Parts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use super::{
    AbsPath, Digest, Domain, Group, HostName, Label, LabelKey, Name, Port, Repository,
    ResolverOption, Signal, Sysctl, UlimitName, User, Variable, is_default, limits,
};
use crate::resources::{Bytes, Cpu};

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What replaces the image's command; empty means none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Configs, by the file in which it finds them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<AbsPath, PlacedFile>,
    /// What has to be so before it starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<Label, Condition>,
    /// The name servers that it asks instead of the provider's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// How it asks them: options of `resolv.conf(5)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<ResolverOption>,
    /// Domains in which it looks a short name up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<Domain>,
    /// The domain that its host name is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<Domain>,
    /// What replaces the image's entry point; empty means none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<Variable, String>,
    /// Further lines of its hosts file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<HostName, BTreeSet<IpAddr>>,
    /// Groups of its processes beside their user's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub group_add: BTreeSet<Group>,
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
    /// The networks that it is on: the default one alone where it does not say, and none at all where that is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<BTreeMap<Name, Attachment>>,
    /// Those of `depends_on` that may fail: then it starts all the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub optional: BTreeSet<Label>,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<Port>,
    /// Those of `ports` that the world reaches at a number that the provider chooses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub public: BTreeSet<Port>,
    /// Whether its root file system cannot be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// The service that it is a further replica of: who is led to that may as well be led to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<Label>,
    /// What happens when it ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// What keeps it from the machine's kernel, where it asks for more than a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Secrets, by the file in which it finds them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<AbsPath, PlacedFile>,
    /// How large its shared memory may grow, where that is not Docker's 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// Whether its standard input stays open though nobody is there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// How many seconds it may take to stop; ten where it does not say.
    #[serde(default, rename = "stop_grace_s", skip_serializing_if = "Option::is_none")]
    pub stop_grace: Option<u32>,
    /// What asks it to stop, where that is not the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// What it may write outside of its volumes, where it says so: see `Service::layer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Bytes>,
    /// Settings of its own network stack and IPC namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<Sysctl, String>,
    /// File systems in its memory, by where they are mounted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<AbsPath, Tmpfs>,
    /// Whether its output is a terminal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    /// What a single process of it may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<UlimitName, Ulimit>,
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
    /// An image that only the key of its app opens, encrypted as OCI has it (ocicrypt). The engine never pulls it.
    Encrypted {
        /// The digest of the manifest of what is encrypted.
        manifest: Digest,
        /// The digest of the manifest that decryption gives: what the image is.
        plain: Digest,
        /// Where it is; absent where the publisher pushes what is encrypted to the provider.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<Repository>,
    },
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

/// What runs a container, where that is not the engine's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// gVisor: a kernel of its own, in a process of the host's.
    Runsc,
}

/// What a service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// That the other has ended, and did not fail.
    ServiceCompletedSuccessfully,
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
    /// Whole GPUs, which nobody else has at the time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: u32,
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

/// A secret or a config as a service sees it. The contents of a secret are never part of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedFile {
    /// The group that owns it, where that is not the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The file's permissions: 0o444 in Compose.
    pub mode: u16,
    /// The secret or the config.
    pub source: Name,
    /// The user who owns it, where that is not the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// A service on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Further names by which the others on the network reach it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<HostName>,
}

/// What a single process may use of something; -1 is without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// How far it may raise the other.
    pub hard: i64,
    /// What it starts with.
    pub soft: i64,
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
    /// Whether an empty volume stays so: what the image has there is not copied into it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// Whether it cannot be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// The volume.
    pub source: Name,
}

impl Service {
    /// How much it may write outside of its volumes, which Docker calls the container's layer; what images declare as
    /// volumes and no volume is mounted over is in it. Nothing where its root cannot be written and it does not say.
    pub fn layer(&self) -> Bytes {
        let default = if self.read_only { 0 } else { limits::DEFAULT_LAYER };
        self.storage.unwrap_or(Bytes(default))
    }

    /// The networks that it is on.
    pub fn attachments(&self) -> BTreeMap<Name, Attachment> {
        match &self.networks {
            Some(networks) => networks.clone(),
            None => BTreeMap::from([(default_network(), Attachment::default())]),
        }
    }
}

/// The network of all services that name none.
pub(super) fn default_network() -> Name {
    #[expect(clippy::expect_used, reason = "the word is a name")]
    "default".parse().expect("a name")
}
