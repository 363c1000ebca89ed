//! What a provider is told before it starts.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use protocol::{
    amount::Amount,
    resources::{BitRate, Bytes, PriceList, Resources},
};

/// A provider's configuration; the binary reads it, once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where keys, pods, pushed blobs and volumes are kept.
    pub data: PathBuf,
    /// Where secrets and device links are kept while pods run: a file system in memory, mounted there if it is not.
    pub run: PathBuf,
    /// Where the API listens (HTTPS).
    pub api: SocketAddr,
    /// The API's address as the Registry has it: `https://host:port`.
    pub endpoint: String,
    /// Where the ingress listens (HTTP).
    pub ingress: SocketAddr,
    /// Where the admin page and the metrics are (HTTP), if anywhere.
    pub admin: Option<SocketAddr>,
    /// How a URL of a pod's host is written, with `{host}` in it.
    pub ingress_url: String,
    /// HTTPS at the ingress, if there is any.
    pub tls: Option<Tls>,
    /// The public ports that pods get, if there are any.
    pub ports: Option<Ports>,
    /// Where the machines are.
    pub region: String,
    /// What is asked for resources.
    pub prices: PriceList,
    /// What is rented out.
    pub capacity: Resources,
    /// The GPUs of it: as many as the capacity says.
    pub gpus: Vec<GpuId>,
    /// What quotes say besides the price.
    pub terms: Terms,
    /// What the add-on `bidder` may have this provider risk.
    pub bids: BidLimits,
    /// For how long what a lease leaves is kept.
    pub keep: Keep,
    /// What of the machine stays free for nothing new to be refused.
    pub limits: Limits,
    /// The largest images that are taken.
    pub images: ImageLimits,
    /// What each lease may send to the world.
    pub egress: EgressLimits,
    /// What pushed images may take on disk while they wait to be loaded, and again while the engine has them and no pod
    /// uses them.
    pub pushed: Bytes,
    /// Whether it runs only where root in a container is nobody on the machine.
    pub user_namespaces: bool,
    /// Registries that may be on private addresses and without TLS, as `host` or `host:port`.
    pub registries: Vec<String>,
    /// The range out of which each pod gets a network of its own.
    pub networks: NetworkRange,
    /// The name servers that pods ask: the machine's own are often out of their reach.
    pub dns: Vec<Ipv4Addr>,
    /// Where Docker listens, as DOCKER_HOST says it; its usual socket where that says nothing.
    pub docker: Option<String>,
    /// The machines of a Docker Swarm that runs the pods. None: the one engine does.
    pub nodes: Vec<Node>,
    /// Whether what pods send from one machine to another is encrypted.
    pub encrypt: bool,
    /// The engine's pid file, which is as old as the engine: what ended before that ended with the engine.
    pub engine_pid: PathBuf,
    /// How many blocks deep something has to be before a pod is removed because of it.
    pub confirmations: u64,
    /// How often a new head is looked for.
    pub poll: Duration,
    /// What has to be owed before it is worth a transaction, in token base units.
    pub collect_above: Amount,
    /// How often earnings are looked at.
    pub collect_every: Duration,
}

/// One machine of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its host name, as the swarm has it.
    pub name: String,
    /// Where its Docker engine listens: `unix://…` or `tcp://…`.
    pub docker: String,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`, for an engine that is reached over a network.
    pub tls: Option<PathBuf>,
    /// Where its published ports are reached from the provider's machine.
    pub address: Ipv4Addr,
}

/// The terms of a provider's quotes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// For how long a quote holds.
    pub quote_life: u32,
    /// For how many seconds of the rate the payer's account stays locked.
    pub lock: u32,
    /// In how much time a pod is started.
    pub start_within: u32,
    /// How long the provider announces beforehand that it leaves.
    pub notice: u32,
    /// How long it takes to answer a challenge.
    pub response: u32,
    /// The outage without compensation, where the publisher has no wish.
    pub grace: u32,
    /// The outage that costs the whole coverage, where the publisher has no wish.
    pub full: u32,
    /// The most of the bond that backs one lease, in token base units.
    pub max_coverage: Amount,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            quote_life: 300,
            lock: 3_600,
            start_within: 600,
            notice: 86_400,
            response: 300,
            grace: 60,
            full: 3_600,
            max_coverage: Amount(u128::MAX),
        }
    }
}

/// What bids may risk that the add-on `bidder` wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BidLimits {
    /// Below how many hundredths of the list price nothing is bid.
    pub floor: u32,
    /// The most of the bond that backs a lease that was bid for, in token base units.
    pub max_coverage: Amount,
    /// The most that a win may lose that does not start, in token base units.
    pub max_no_show: Amount,
    /// The most of the bond that bids bind at a time, in token base units.
    pub max_bound: Amount,
    /// How many bids are sent within an hour.
    pub per_hour: u32,
}

impl Default for BidLimits {
    fn default() -> Self {
        Self {
            floor: 100,
            max_coverage: Amount(u128::MAX),
            // Who places an order can always keep its winner from starting, and is paid for that.
            max_no_show: Amount(0),
            max_bound: Amount(u128::MAX),
            per_hour: 30,
        }
    }
}

/// For how long what a lease leaves is kept after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Its logs and events.
    pub logs: Duration,
    /// Its volumes, and no longer than it ran.
    pub volumes: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self { logs: 7 * day, volumes: 3 * day }
    }
}

/// What has to stay free on the machine: with less, nothing new is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of each disk that the provider or the engine writes to.
    pub disk_free: Bytes,
    /// Of memory that programs could have.
    pub memory_free: Bytes,
    /// Of files that may still be opened.
    pub files_free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { disk_free: Bytes(2 << 30), memory_free: Bytes(256 << 20), files_free: 256 }
    }
}

/// HTTPS at the ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The port at which the world reaches it, and to which it is sent from plain HTTP.
    pub port: u16,
    /// Where certificates come from for hosts whose publishers bring none.
    pub acme: Option<Acme>,
}

impl Tls {
    /// The URL of a host with a certificate.
    pub fn url(&self, host: &str) -> String {
        match self.port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }
}

/// A certificate authority that speaks ACME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The URL of its directory.
    pub directory: String,
    /// Where it may write to, as URLs: `mailto:me@example.org`.
    pub contact: Vec<String>,
    /// The certificate in PEM that vouches for its server, where that is none that the machine trusts.
    pub root: Option<PathBuf>,
    /// How hosts are proved by DNS, where their publishers wish it.
    pub dns: Option<AcmeDns>,
}

/// A zone in which TXT records can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeDns {
    /// Its name: `_acme-challenge.HOST` is to be an alias (CNAME) of `HOST.zone`.
    pub zone: String,
    /// The program that sets and removes them: it is run with `add` or `remove`, the record's name, and its value.
    pub program: PathBuf,
}

/// The TCP and UDP ports that the world reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Their numbers.
    pub range: RangeInclusive<u16>,
    /// At which of the machine's addresses they are; all, if unspecified.
    pub listen: IpAddr,
    /// The name or address by which publishers are told of them.
    pub address: String,
}

impl Ports {
    /// Where one of them is reached, as publishers are told: `host:number`.
    pub fn told(&self, number: u16) -> String {
        match self.address.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{number}"),
            Err(_) => format!("{}:{number}", self.address),
        }
    }
}

/// The largest image that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// What all its layers take, unpacked.
    pub size: Bytes,
    /// How many files are in them, links and folders included.
    pub files: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { size: Bytes(8 << 30), files: 500_000 }
    }
}

/// What a lease may send to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressLimits {
    /// How fast at most, and if its pod does not say; answers to visitors included.
    pub rate: BitRate,
    /// How much in 30 days if its pod does not say, answers to visitors apart: what nothing is charged for.
    pub included: Bytes,
    /// How much a pod may ask for; what is beyond `included` is charged.
    pub most: Bytes,
}

impl Default for EgressLimits {
    fn default() -> Self {
        let included = Bytes(1 << 40);
        Self { rate: BitRate(100_000_000), included, most: included }
    }
}

/// A GPU, as `nvidia-smi -L` names it: by its number, or by what begins with `GPU-` or `MIG-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GpuId(String);

/// Text that names no GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no GPU; write its number as in \"0\", or its UUID as in \"GPU-8a56a4bc-…\" (`nvidia-smi -L` tells both)"
)]
pub struct NotGpu(String);

impl GpuId {
    /// As the engine takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is named by its number.
    pub fn is_number(&self) -> bool {
        self.0.bytes().all(|b| b.is_ascii_digit())
    }
}

impl FromStr for GpuId {
    type Err = NotGpu;

    fn from_str(text: &str) -> Result<Self, NotGpu> {
        let number = || text.parse::<u8>().is_ok_and(|number| number.to_string() == text);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/');
        let uuid = || {
            let rest = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-"));
            rest.is_some_and(|rest| !rest.is_empty() && rest.len() <= 80 && rest.chars().all(plain))
        };
        match number() || uuid() {
            true => Ok(Self(text.to_owned())),
            false => Err(NotGpu(text.to_owned())),
        }
    }
}

/// Where pods' networks are: /26 networks out of one /16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkRange(pub [u8; 2]);

impl Default for NetworkRange {
    /// 10.213.0.0/16.
    fn default() -> Self {
        Self([10, 213])
    }
}
