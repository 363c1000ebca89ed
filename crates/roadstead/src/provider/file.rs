//! provider.toml.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ::provider::config::{
    Acme, AcmeDns, BidLimits, Config, EgressLimits, GpuId, ImageLimits, Keep, Limits, NetworkRange,
    Node, Ports, Terms, Tls,
};
use anyhow::{Context as _, ensure};
use protocol::{
    amount::{Amount, Rate, Token},
    pod::{self, Host},
    resources::{Bytes, Cpu, PriceList, Resources},
};
use serde::Deserialize;

/// How many MiB a GiB has, and how many thousandths a processor: the file has prices for the larger of each.
const PARTS: (u128, u128) = (1_024, 1_000);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    region: String,
    endpoint: String,
    ingress_url: String,
    data: PathBuf,
    run: PathBuf,
    listen: Listen,
    capacity: Capacity,
    prices: Prices,
    tls: Option<TlsTable>,
    ports: Option<PortsTable>,
    #[serde(default)]
    terms: TermsTable,
    #[serde(default)]
    bids: BidsTable,
    #[serde(default)]
    keep: KeepTable,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    engine: EngineTable,
    #[serde(default)]
    node: Vec<NodeTable>,
    #[serde(default)]
    chain: ChainTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: String,
    docker: String,
    tls: Option<PathBuf>,
    address: Ipv4Addr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    api: SocketAddr,
    ingress: SocketAddr,
    #[serde(default = "admin")]
    admin: String,
}

fn admin() -> String {
    "127.0.0.1:9640".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    listen: SocketAddr,
    port: Option<u16>,
    acme: Option<AcmeTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcmeTable {
    directory: String,
    #[serde(default)]
    contact: Vec<String>,
    root: Option<PathBuf>,
    dns_zone: Option<String>,
    dns_program: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortsTable {
    range: String,
    #[serde(default = "everywhere")]
    listen: IpAddr,
    address: Option<String>,
}

fn everywhere() -> IpAddr {
    Ipv4Addr::UNSPECIFIED.into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capacity {
    cpu: String,
    memory: String,
    storage: String,
    #[serde(default)]
    gpus: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    cpu: String,
    memory: String,
    storage: String,
    egress: Option<String>,
    public_port: Option<String>,
    gpu: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TermsTable {
    quote_life: Option<u32>,
    lock: Option<u32>,
    start_within: Option<u32>,
    notice: Option<u32>,
    response: Option<u32>,
    grace: Option<u32>,
    full: Option<u32>,
    max_coverage: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BidsTable {
    floor_percent: Option<u32>,
    max_coverage: Option<String>,
    max_no_show: Option<String>,
    max_bound: Option<String>,
    per_hour: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KeepTable {
    logs_days: Option<u32>,
    volumes_days: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitsTable {
    disk_free: Option<String>,
    memory_free: Option<String>,
    files_free: Option<u64>,
    image_size: Option<String>,
    image_files: Option<u64>,
    egress_rate: Option<String>,
    egress_total: Option<String>,
    egress_most: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EngineTable {
    networks: String,
    dns: Vec<Ipv4Addr>,
    pushed: String,
    user_namespaces: bool,
    registries: Vec<String>,
    pid_file: PathBuf,
    encrypt: bool,
}

impl Default for EngineTable {
    fn default() -> Self {
        Self {
            networks: "10.213.0.0/16".into(),
            dns: vec![Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)],
            pushed: "20Gi".into(),
            user_namespaces: false,
            registries: Vec::new(),
            pid_file: "/var/run/docker.pid".into(),
            encrypt: true,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ChainTable {
    confirmations: u64,
    poll_ms: u64,
    collect_above: String,
    collect_every_s: u64,
}

impl Default for ChainTable {
    fn default() -> Self {
        Self {
            confirmations: 12,
            poll_ms: 1_000,
            collect_above: "0.10".into(),
            collect_every_s: 3_600,
        }
    }
}

/// What of a provider's file needs no chain: where it keeps its data, where its admin page is, if it has one, and the
/// machines of its cluster, if it is one.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) nodes: Vec<Node>,
}

/// Reads what of a provider's file needs no chain.
pub(crate) fn place(path: &Path) -> anyhow::Result<Place> {
    let name = path.display();
    let text = text(path)?;
    let file = || {
        let file: File = toml::from_str(&text)?;
        let (admin, nodes) = (admin_address(&file.listen.admin)?, nodes(file.node)?);
        anyhow::Ok(Place { data: file.data, admin, nodes })
    };
    file().with_context(|| format!("{name} is wrong"))
}

fn admin_address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    let address = text.parse();
    Ok(Some(address.with_context(|| {
        format!("listen.admin: {text:?} is no address such as 127.0.0.1:9640; `off` means none")
    })?))
}

fn text(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "{name} cannot be read; `roadstead provider init` writes one, --config names another"
        )
    })
}

/// Reads a provider's file. What it says of money is in whole `token`s.
pub(crate) fn read(path: &Path, token: &Token) -> anyhow::Result<Config> {
    let name = path.display();
    let text = text(path)?;
    parse(&text, token).with_context(|| format!("{name} is wrong"))
}

fn parse(text: &str, token: &Token) -> anyhow::Result<Config> {
    let file: File = toml::from_str(text)?;
    let rate = |key: &'static str, text: &str, parts: u128| {
        // Rounded down: the provider takes it out.
        let rate = Rate::parse(text, token).with_context(|| format!("prices.{key}"))?;
        anyhow::Ok(Rate(rate.0 / parts))
    };
    let extra = |key: &'static str, text: &Option<String>, parts: u128| match text {
        Some(text) => rate(key, text, parts),
        None => Ok(Rate(0)),
    };
    let amount = |key: &'static str, text: &str| Amount::parse(text, token).context(key);
    let prices = PriceList {
        cpu: rate("cpu", &file.prices.cpu, PARTS.1)?,
        memory: rate("memory", &file.prices.memory, PARTS.0)?,
        storage: rate("storage", &file.prices.storage, PARTS.0)?,
        egress: extra("egress", &file.prices.egress, PARTS.0)?,
        public_port: extra("public_port", &file.prices.public_port, 1)?,
        gpu: extra("gpu", &file.prices.gpu, 1)?,
    };
    let gpus = gpus(&file.capacity.gpus)?;
    let capacity = Resources {
        cpu: file.capacity.cpu.parse::<Cpu>().context("capacity.cpu")?,
        memory: file.capacity.memory.parse::<Bytes>().context("capacity.memory")?,
        storage: file.capacity.storage.parse::<Bytes>().context("capacity.storage")?,
        gpus: u32::try_from(gpus.len())?,
    };
    let egress = egress(&file.limits)?;
    ensure!(
        prices.egress.0 == 0 || egress.most > egress.included,
        "prices.egress is for what is beyond limits.egress_total, {}, and no pod may ask for more than that; set \
         limits.egress_most, or leave the price out",
        egress.included
    );
    ensure!(
        file.endpoint.starts_with("https://"),
        "endpoint: {:?} is not an HTTPS address such as https://provider.example.org:8443",
        file.endpoint
    );
    ensure!(
        file.ingress_url.contains("{host}"),
        "ingress_url: {:?} does not say where the host goes; write for instance http://{{host}}:8080",
        file.ingress_url
    );
    ensure!(file.chain.poll_ms > 0, "chain.poll_ms: 0 is no time between two looks");
    ensure!(
        file.chain.collect_every_s > 0,
        "chain.collect_every_s: 0 is no time between two looks"
    );
    let admin = admin_address(&file.listen.admin)?;
    let listens = [
        ("listen.api", Some(file.listen.api)),
        ("listen.ingress", Some(file.listen.ingress)),
        ("listen.admin", admin),
        ("tls.listen", file.tls.as_ref().map(|tls| tls.listen)),
    ];
    let public = file.ports.as_ref().map(|table| ports(table, &file.endpoint, &listens));
    let public = public.transpose()?;
    Ok(Config {
        data: file.data,
        run: file.run,
        api: file.listen.api,
        endpoint: file.endpoint,
        ingress: file.listen.ingress,
        admin,
        ingress_url: file.ingress_url,
        tls: file.tls.map(tls).transpose()?,
        ports: public,
        region: file.region,
        prices,
        capacity,
        gpus,
        terms: terms(&file.terms, &amount)?,
        bids: bids(&file.bids, &amount)?,
        keep: keep(&file.keep),
        limits: limits(&file.limits)?,
        images: images(&file.limits)?,
        egress,
        pushed: file.engine.pushed.parse().context("engine.pushed")?,
        user_namespaces: file.engine.user_namespaces,
        registries: file.engine.registries,
        networks: networks(&file.engine.networks)?,
        dns: file.engine.dns,
        docker: docker_host(),
        nodes: nodes(file.node)?,
        encrypt: file.engine.encrypt,
        engine_pid: file.engine.pid_file,
        confirmations: file.chain.confirmations,
        poll: Duration::from_millis(file.chain.poll_ms),
        collect_above: amount("chain.collect_above", &file.chain.collect_above)?,
        collect_every: Duration::from_secs(file.chain.collect_every_s),
    })
}

fn terms(
    table: &TermsTable,
    amount: &dyn Fn(&'static str, &str) -> anyhow::Result<Amount>,
) -> anyhow::Result<Terms> {
    let default = Terms::default();
    let terms = Terms {
        quote_life: table.quote_life.unwrap_or(default.quote_life),
        lock: table.lock.unwrap_or(default.lock),
        start_within: table.start_within.unwrap_or(default.start_within),
        notice: table.notice.unwrap_or(default.notice),
        response: table.response.unwrap_or(default.response),
        grace: table.grace.unwrap_or(default.grace),
        full: table.full.unwrap_or(default.full),
        max_coverage: match &table.max_coverage {
            Some(text) => amount("terms.max_coverage", text)?,
            None => default.max_coverage,
        },
    };
    // What the contract's type holds.
    const MOST: u32 = (1 << 24) - 1;
    for (key, value) in [
        ("start_within", terms.start_within),
        ("notice", terms.notice),
        ("response", terms.response),
        ("grace", terms.grace),
        ("full", terms.full),
    ] {
        ensure!(value <= MOST, "terms.{key}: {value} s is too long; write at most {MOST}");
    }
    ensure!(
        terms.grace < terms.full,
        "terms.grace: {} s has to be below terms.full, which is {} s",
        terms.grace,
        terms.full
    );
    Ok(terms)
}

fn bids(
    table: &BidsTable,
    amount: &dyn Fn(&'static str, &str) -> anyhow::Result<Amount>,
) -> anyhow::Result<BidLimits> {
    let default = BidLimits::default();
    let limit = |key: &'static str, text: &Option<String>, default: Amount| match text {
        Some(text) => amount(key, text),
        None => Ok(default),
    };
    Ok(BidLimits {
        floor: table.floor_percent.unwrap_or(default.floor),
        max_coverage: limit("bids.max_coverage", &table.max_coverage, default.max_coverage)?,
        max_no_show: limit("bids.max_no_show", &table.max_no_show, default.max_no_show)?,
        max_bound: limit("bids.max_bound", &table.max_bound, default.max_bound)?,
        per_hour: table.per_hour.unwrap_or(default.per_hour),
    })
}

/// Where Docker listens, if the environment says so, as Docker's own programs take it.
pub(crate) fn docker_host() -> Option<String> {
    std::env::var_os("DOCKER_HOST")?.into_string().ok().filter(|host| !host.is_empty())
}

fn keep(table: &KeepTable) -> Keep {
    let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    let default = Keep::default();
    Keep {
        logs: table.logs_days.map_or(default.logs, days),
        volumes: table.volumes_days.map_or(default.volumes, days),
    }
}

fn limits(table: &LimitsTable) -> anyhow::Result<Limits> {
    let default = Limits::default();
    let bytes = |key: &'static str, text: &Option<String>, default: Bytes| match text {
        Some(text) => text.parse().context(key),
        None => Ok(default),
    };
    Ok(Limits {
        disk_free: bytes("limits.disk_free", &table.disk_free, default.disk_free)?,
        memory_free: bytes("limits.memory_free", &table.memory_free, default.memory_free)?,
        files_free: table.files_free.unwrap_or(default.files_free),
    })
}

fn tls(table: TlsTable) -> anyhow::Result<Tls> {
    let port = table.port.unwrap_or(table.listen.port());
    Ok(Tls { listen: table.listen, port, acme: table.acme.map(acme).transpose()? })
}

fn acme(table: AcmeTable) -> anyhow::Result<Acme> {
    let AcmeTable { directory, contact, root, dns_zone, dns_program } = table;
    ensure!(
        directory.starts_with("https://"),
        "tls.acme.directory: {directory:?} is not an HTTPS address such as https://acme-v02.api.letsencrypt.org/directory"
    );
    for contact in &contact {
        ensure!(
            contact.starts_with("mailto:"),
            "tls.acme.contact: {contact:?} is no address such as mailto:me@example.org"
        );
    }
    let dns = match (dns_zone, dns_program) {
        (None, None) => None,
        (Some(zone), Some(program)) => {
            let zone = zone.trim_end_matches('.').to_ascii_lowercase();
            zone.parse::<Host>().map_err(|err| anyhow::anyhow!("tls.acme.dns_zone: {err}"))?;
            Some(AcmeDns { zone, program })
        }
        (Some(_), None) => {
            anyhow::bail!("tls.acme.dns_program is missing; it sets records in dns_zone")
        }
        (None, Some(_)) => {
            anyhow::bail!("tls.acme.dns_zone is missing; dns_program sets records in it")
        }
    };
    Ok(Acme { directory, contact, root, dns })
}

fn ports(
    table: &PortsTable,
    endpoint: &str,
    listens: &[(&str, Option<SocketAddr>)],
) -> anyhow::Result<Ports> {
    let text = &table.range;
    let range = text.split_once('-').and_then(|(first, last)| {
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    });
    let range = range.with_context(|| {
        format!("ports.range: {text:?} is no range of ports such as 20000-20999")
    })?;
    for (key, address) in listens {
        if let Some(address) = address.filter(|address| range.contains(&address.port())) {
            anyhow::bail!(
                "ports.range: {} is the port of {key}; choose a range without it",
                address.port()
            );
        }
    }
    let host = || {
        let url = reqwest::Url::parse(endpoint).ok()?;
        Some(url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned())
    };
    let address = match &table.address {
        Some(address) => address.clone(),
        None => host().context("ports.address is missing, and endpoint names no host")?,
    };
    Ok(Ports { range, listen: table.listen, address })
}

fn images(table: &LimitsTable) -> anyhow::Result<ImageLimits> {
    let default = ImageLimits::default();
    Ok(ImageLimits {
        size: match &table.image_size {
            Some(text) => text.parse().context("limits.image_size")?,
            None => default.size,
        },
        files: table.image_files.unwrap_or(default.files),
    })
}

fn egress(table: &LimitsTable) -> anyhow::Result<EgressLimits> {
    let default = EgressLimits::default();
    let included = match &table.egress_total {
        Some(text) => text.parse().context("limits.egress_total")?,
        None => default.included,
    };
    let limits = EgressLimits {
        rate: match &table.egress_rate {
            Some(text) => text.parse().context("limits.egress_rate")?,
            None => default.rate,
        },
        included,
        most: match &table.egress_most {
            Some(text) => text.parse().context("limits.egress_most")?,
            None => included,
        },
    };
    ensure!(
        limits.most >= limits.included,
        "limits.egress_most: {} is less than {}, which limits.egress_total gives to every pod",
        limits.most,
        limits.included
    );
    ensure!(
        pod::limits::EGRESS_RATE.contains(&limits.rate.0),
        "limits.egress_rate: {} is out of range; write 64kbit to 10Gbit",
        limits.rate
    );
    Ok(limits)
}

fn gpus(names: &[String]) -> anyhow::Result<Vec<GpuId>> {
    let all = names.iter().map(|name| name.parse::<GpuId>().context("capacity.gpus"));
    let all: Vec<GpuId> = all.collect::<Result<_, _>>()?;
    for (index, gpu) in all.iter().enumerate() {
        ensure!(
            all.iter().skip(index + 1).all(|other| other != gpu),
            "capacity.gpus: {:?} is named twice",
            gpu.as_str()
        );
    }
    let numbers = all.iter().filter(|gpu| gpu.is_number()).count();
    // One that has both kinds of names would be rented out twice.
    ensure!(
        numbers == 0 || numbers == all.len(),
        "capacity.gpus: some are named by number and some by UUID; name all in the same way"
    );
    Ok(all)
}

fn nodes(tables: Vec<NodeTable>) -> anyhow::Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    for NodeTable { name, docker, tls, address } in tables {
        let (local, remote) = (docker.starts_with("unix://"), docker.starts_with("tcp://"));
        ensure!(
            local || remote,
            "node {name}: docker: {docker:?} is no engine such as unix:///var/run/docker.sock or tcp://10.0.0.2:2376"
        );
        ensure!(
            tls.is_some() || !remote || docker.starts_with("tcp://127."),
            "node {name}: tls is missing; whoever reaches an engine without it is root there. Name the folder with ca.pem, cert.pem and key.pem"
        );
        ensure!(
            !address.is_unspecified() && !address.is_loopback(),
            "node {name}: address: {address} is no address of a machine; write the one at which this machine reaches it, also for this machine itself"
        );
        ensure!(
            nodes.iter().all(|other| other.name != name && other.address != address),
            "node {name}: its name or its address {address} is another node's already"
        );
        nodes.push(Node { name, docker, tls, address });
    }
    Ok(nodes)
}

fn networks(text: &str) -> anyhow::Result<NetworkRange> {
    let base = text.strip_suffix("/16").and_then(|base| base.parse::<Ipv4Addr>().ok());
    match base.map(|base| base.octets()) {
        Some([a, b, 0, 0]) => Ok(NetworkRange([a, b])),
        _other => anyhow::bail!("engine.networks: {text:?} is not a network such as 10.213.0.0/16"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { symbol: "USD".into(), decimals: 6 }
    }

    #[test]
    fn the_example_says_what_the_defaults_are() {
        let config = parse(super::super::EXAMPLE, &token()).unwrap();
        assert_eq!(config.terms, Terms::default());
        assert_eq!(config.networks, NetworkRange::default());
        assert_eq!(config.bids, BidLimits::default());
        assert_eq!(config.keep, Keep::default());
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.images, ImageLimits::default());
        assert_eq!(config.egress, EgressLimits::default());
        assert_eq!(config.admin, Some("127.0.0.1:9640".parse().unwrap()));
        assert_eq!(config.capacity.cpu, Cpu(2_000));
        // 0.01/h for a processor is 2,777,777,777 units per second.
        assert_eq!(config.prices.cpu, Rate(2_777_777));
        let short: String = super::super::EXAMPLE.split("# All that follows").take(1).collect();
        let without = parse(&short, &token()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{without:?}"));
    }

    #[test]
    fn https_is_where_it_is_said_to_be() {
        let acme = "[tls.acme]\ndirectory = \"https://ca/dir\"\ncontact = [\"mailto:a@b\"]\n";
        let dns = "dns_zone = \"Acme.example.org.\"\ndns_program = \"/bin/set\"\n";
        let with = |tls: &str| {
            let text = super::super::EXAMPLE.replacen("[ports]", &format!("{tls}[ports]"), 1);
            parse(&text, &token()).unwrap().tls.unwrap()
        };
        let tls = with("[tls]\nlisten = \"0.0.0.0:8444\"\n");
        assert_eq!((tls.url("a.example"), tls.acme), ("https://a.example:8444".into(), None));
        let all = with(&format!("[tls]\nlisten = \"0.0.0.0:8444\"\nport = 443\n{acme}{dns}"));
        assert_eq!(all.url("a.example"), "https://a.example");
        let acme = all.acme.unwrap();
        assert_eq!(acme.contact, ["mailto:a@b"]);
        assert_eq!(acme.dns.unwrap().zone, "acme.example.org");
    }

    #[test]
    fn what_costs_extra_is_read() {
        let text = super::super::EXAMPLE
            .replacen(
                "storage = \"0.05/mo\"",
                "storage = \"0.05/mo\"\negress = \"0.1024/mo\"\npublic_port = \"0.36/h\"\ngpu = \"0.72/h\"",
                1,
            )
            .replacen("storage = \"50Gi\"", "storage = \"50Gi\"\ngpus = [\"GPU-8a56a4bc-1\", \"MIG-1/2\"]", 1)
            .replacen("egress_total = \"1Ti\"", "egress_total = \"100Gi\"\negress_most = \"2Ti\"", 1);
        let config = parse(&text, &token()).unwrap();
        // 0.1024 a month for a GiB is 0.0001 for a MiB.
        assert_eq!(config.prices.egress, Rate(38_580));
        assert_eq!(config.prices.public_port, Rate(100_000_000_000));
        assert_eq!(config.prices.gpu, Rate(200_000_000_000));
        assert_eq!(
            (config.egress.included, config.egress.most),
            (Bytes(100 << 30), Bytes(2 << 40))
        );
        let names: Vec<&str> = config.gpus.iter().map(GpuId::as_str).collect();
        assert_eq!((names, config.capacity.gpus), (vec!["GPU-8a56a4bc-1", "MIG-1/2"], 2));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |from: &str, to: &str, wanted: &[&str]| {
            let text = super::super::EXAMPLE.replacen(from, to, 1);
            assert_ne!(text, super::super::EXAMPLE, "{from} is not in the example");
            let err = format!("{:#}", parse(&text, &token()).unwrap_err());
            for part in wanted {
                assert!(err.contains(part), "{err}");
            }
        };
        check("region", "regoin", &["regoin"]);
        check("\"0.01/h\"", "\"0.01\"", &["prices.cpu", "0.01", "0.02/h"]);
        check("\"4Gi\"", "\"4 tons\"", &["capacity.memory", "4 tons"]);
        check("https://provider", "http://provider", &["endpoint", "HTTPS"]);
        check("{host}", "host", &["ingress_url"]);
        check("logs_days = 7", "logs_days = -7", &["logs_days", "-7"]);
        check("10.213.0.0/16", "10.213.0.0/24", &["engine.networks", "10.213.0.0/24"]);
        check("127.0.0.1:9640", "9640", &["listen.admin", "\"9640\"", "off"]);
        check("disk_free = \"2Gi\"", "disk_free = \"much\"", &["limits.disk_free", "much"]);
        check("max_no_show = \"0\"", "max_no_show = \"much\"", &["bids.max_no_show", "much"]);
        check(
            "egress_rate = \"100Mbit\"",
            "egress_rate = \"100MB\"",
            &["limits.egress_rate", "100MB"],
        );
        let most = |text: &str| format!("egress_total = \"1Ti\"\n{text}");
        check(
            "egress_total = \"1Ti\"",
            &most("egress_most = \"1Gi\""),
            &["limits.egress_most", "1 GiB", "1 TiB"],
        );
        check(
            "storage = \"0.05/mo\"",
            "storage = \"0.05/mo\"\negress = \"0.01/mo\"",
            &["prices.egress", "limits.egress_most"],
        );
        check(
            "storage = \"0.05/mo\"",
            "storage = \"0.05/mo\"\ngpu = \"0.5\"",
            &["prices.gpu", "0.5"],
        );
        let gpus = |list: &str| format!("storage = \"50Gi\"\ngpus = {list}");
        for (list, words) in [
            ("[\"all\"]", "\"all\" is no GPU"),
            ("[\"01\"]", "\"01\" is no GPU"),
            ("[\"GPU-a,b\"]", "\"GPU-a,b\" is no GPU"),
            ("[\"0\", \"1\", \"0\"]", "\"0\" is named twice"),
            ("[\"0\", \"GPU-8a56\"]", "in the same way"),
        ] {
            check("storage = \"50Gi\"", &gpus(list), &["capacity.gpus", words]);
        }
        check("image_size = \"8Gi\"", "image_size = \"big\"", &["limits.image_size", "big"]);
        check("grace = 60", "grace = 3600", &["terms.grace", "3600"]);
        check("notice = 86400", "notice = 99999999", &["terms.notice", "99999999"]);
        check("poll_ms = 1000", "poll_ms = 0", &["chain.poll_ms"]);
        let tls = |text: &str| format!("[tls]\nlisten = \"0.0.0.0:443\"\n{text}\n[ports]");
        check("[ports]", &tls("[tls.acme]\ndirectory = \"http://a\""), &["tls.acme.directory"]);
        let acme = "[tls.acme]\ndirectory = \"https://a\"\n";
        check("[ports]", &tls(&format!("{acme}contact = [\"me@a\"]")), &["contact", "mailto:"]);
        check("[ports]", &tls(&format!("{acme}dns_zone = \"a.b\"")), &["dns_program is missing"]);
        check("[ports]", &tls(&format!("{acme}dns_program = \"/x\"")), &["dns_zone is missing"]);
        check(
            "[ports]",
            &tls(&format!("{acme}dns_zone = \"a b\"\ndns_program = \"/x\"")),
            &["tls.acme.dns_zone", "a b"],
        );
        let node = |docker: &str, address: &str| {
            format!(
                "[[node]]\nname = \"b\"\ndocker = \"{docker}\"\naddress = \"{address}\"\n[chain]"
            )
        };
        check("[chain]", &node("ssh://b", "10.0.0.2"), &["node b", "ssh://b"]);
        check("[chain]", &node("tcp://10.0.0.2:2375", "10.0.0.2"), &["node b", "tls is missing"]);
        check("[chain]", &node("unix:///b", "127.0.0.1"), &["node b", "127.0.0.1"]);
        let twice = format!(
            "{}\n{}",
            node("unix:///b", "10.0.0.2").replace("[chain]", ""),
            node("unix:///c", "10.0.0.3")
        );
        check("[chain]", &twice, &["node b", "another node's"]);
        check("20000-20999", "20999-20000", &["ports.range", "20999-20000"]);
        check("20000-20999", "8000-9000", &["ports.range", "8443", "listen.api"]);
    }
}
