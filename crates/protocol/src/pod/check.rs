//! What holds for every pod, whoever made it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    ops::RangeInclusive,
};

use super::{
    AbsPath, Attachment, Condition, Egress, Fault, Healthcheck, Host, Invalid, Label, Limits,
    Parts, PlacedFile, Port, Restart, Runtime, Service, Target, Test, Transport, Ulimit,
    UlimitName, limits, service::default_network, tree,
};
use crate::resources::{BitRate, Bytes, Cpu};

impl Parts {
    /// All that is wrong with it. What refers to a `broken` service is left out: more is known about that one.
    pub(super) fn faults(&self, broken: &BTreeSet<String>) -> Vec<Fault> {
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
        self.network_faults(&mut faults);
        self.egress_faults(&mut faults);
        faults.at_most("configs", self.configs.len(), limits::CONFIGS);
        for (name, contents) in &self.configs {
            faults.text(&tree::key("configs", name.as_str()), contents);
        }
        for (name, service) in &self.services {
            self.service_faults(name, service, broken, &mut faults);
        }
        let public = self.services.values().map(|service| service.public.len()).sum::<usize>();
        if public > limits::PUBLIC_PORTS {
            faults.add("services", format!(
                "{public} ports are public; the limit is {}: list under expose what only the pod's own services reach",
                limits::PUBLIC_PORTS
            ));
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
        for host in self.tls.keys().filter(|host| !self.ingress.contains_key(*host)) {
            let path = tree::key("x-roadstead.tls", host.as_str());
            let hint = "say under x-roadstead.ingress where it leads";
            faults.unknown(&path, "host", host.as_str(), self.ingress.keys(), hint);
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

    fn egress_faults(&self, faults: &mut Faults) {
        let Some(egress) = self.egress else { return };
        if let Some(rate) = egress.rate {
            let (least, most) = (limits::EGRESS_RATE.start(), limits::EGRESS_RATE.end());
            let range = BitRate(*least)..=BitRate(*most);
            faults.within("x-roadstead.egress.rate", rate, &range);
        }
        if let Some(total) = egress.total {
            faults.bytes("x-roadstead.egress.total", total, limits::EGRESS_TOTAL);
        }
        if egress == Egress::default() {
            faults.add("x-roadstead.egress", "it says nothing; write rate or total, or remove it");
        }
    }

    fn target_faults(&self, host: &Host, target: &Target, faults: &mut Faults) {
        let path = tree::key("x-roadstead.ingress", host.as_str());
        let Target { service: name, port, .. } = target;
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
            Some(service) if service.networks.as_ref().is_some_and(BTreeMap::is_empty) => {
                faults.add(
                    &path,
                    format!("service {name} is on no network; remove its network_mode"),
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
            let restarts = matches!(dependency.restart, Restart::Always | Restart::UnlessStopped);
            if restarts && *condition == Condition::ServiceCompletedSuccessfully {
                faults.add(&path, format!(
                    "{other} is started again whenever it ends and so never completes; write restart: \"no\" or on-failure there"
                ));
            }
            if disabled && *condition == Condition::ServiceHealthy {
                faults.add(&path, format!(
                    "{other} has its health check disabled and never gets healthy; write service_started"
                ));
            }
        }
        if let Some(first) = &service.replica_of {
            let of = self.services.get(first);
            if first == name || of.is_none_or(|of| of.replica_of.is_some()) {
                faults.add(&at("replica_of"), format!("{first} is no service that has replicas"));
            }
        }
        for other in &service.optional {
            if !service.depends_on.contains_key(other) {
                faults.add(&at("depends_on"), format!("{other} is optional and not waited for"));
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
        if service.limits.gpus > 0 {
            let path = at("deploy.resources.reservations.devices");
            faults.within(&path, service.limits.gpus, &limits::GPUS);
            if service.runtime == Some(Runtime::Runsc) {
                faults.add(
                    &at("runtime"),
                    "gVisor is given no GPU here; remove this, or the GPUs under deploy.resources.reservations.devices",
                );
            }
        }
        if let Some(size) = service.storage {
            faults.bytes(&at("storage_opt.size"), size, limits::LAYER);
        }
        faults.at_most(&at("ports"), service.ports.len(), limits::PORTS);
        if let Some(port) = service.public.difference(&service.ports).next() {
            faults.add(&at("ports"), format!("{port} is public, and not listed"));
        }
        if !service.public.is_empty() && service.networks.as_ref().is_some_and(BTreeMap::is_empty) {
            faults.add(
                &at("ports"),
                format!("service {name} is on no network; remove its network_mode, or its ports"),
            );
        }
        if let Restart::OnFailure { max: Some(max) } = service.restart {
            faults.within(&at("restart"), max, &limits::RESTARTS);
        }
        if let Some(grace) = service.stop_grace {
            faults.time(&at("stop_grace_period"), grace, &limits::STOP_S, "s");
        }
        self.host_faults(service, &at, faults);
        self.mount_faults(service, &at, faults);
    }

    fn host_faults(&self, service: &Service, at: &dyn Fn(&str) -> String, faults: &mut Faults) {
        faults.at_most(&at("extra_hosts"), service.extra_hosts.len(), limits::EXTRA_HOSTS);
        for (host, addresses) in &service.extra_hosts {
            let path = tree::key(&at("extra_hosts"), host.as_str());
            faults.at_most(&path, addresses.len(), limits::EXTRA_HOSTS);
            if addresses.is_empty() {
                faults.add(&path, "it has no address; write one");
            }
        }
        let (servers, domains, options) = limits::RESOLVER;
        faults.at_most(&at("dns"), service.dns.len(), servers);
        faults.at_most(&at("dns_search"), service.dns_search.len(), domains);
        faults.at_most(&at("dns_opt"), service.dns_opt.len(), options);
        for ip in service.dns.iter().filter(|ip| !is_public(**ip)) {
            let what = format!(
                "{ip} is not a public address, and a pod reaches no other; write one that is, or remove it"
            );
            faults.add(&at("dns"), what);
        }
        faults.at_most(&at("group_add"), service.group_add.len(), limits::GROUPS);
        for (name, value) in &service.sysctls {
            let path = tree::key(&at("sysctls"), name.as_str());
            faults.check(&path, sysctl_value(value));
        }
        for (name, limit) in &service.ulimits {
            faults.check(&tree::key(&at("ulimits"), name.as_str()), ulimit(name, *limit));
        }
    }

    /// Networks are spelled in one way only, or one pod would have two hashes.
    fn network_faults(&self, faults: &mut Faults) {
        let plain = default_network();
        let mut used = BTreeSet::new();
        for (service, networks) in self
            .services
            .iter()
            .filter_map(|(name, service)| Some((name, service.networks.as_ref()?)))
        {
            let path = format!("services.{service}.networks");
            if networks.len() == 1 && networks.get(&plain) == Some(&Attachment::default()) {
                faults.add(&path, "the default network is what it has anyway; leave this out");
            }
            for (name, attachment) in networks {
                let path = tree::key(&path, name.as_str());
                if *name != plain && !self.networks.contains_key(name) {
                    let known = self.networks.keys();
                    faults.unknown(
                        &path,
                        "network",
                        name.as_str(),
                        known,
                        "declare it under networks",
                    );
                }
                faults.at_most(
                    &format!("{path}.aliases"),
                    attachment.aliases.len(),
                    limits::ALIASES,
                );
                used.insert(name);
            }
        }
        if self.services.values().any(|service| service.networks.is_none()) {
            used.insert(&plain);
        }
        faults.at_most("networks", used.len(), limits::NETWORKS);
        for (name, network) in &self.networks {
            let path = tree::key("networks", name.as_str());
            if !used.contains(name) {
                faults.add(&path, "no service is on it; leave it out");
            }
            if *name == plain && !network.internal {
                faults.add(&path, "the default network is like this anyway; leave it out");
            }
        }
    }

    fn mount_faults(&self, service: &Service, at: &dyn Fn(&str) -> String, faults: &mut Faults) {
        let files = service.secrets.len() + service.configs.len();
        let mounts = service.volumes.len() + service.tmpfs.len() + files;
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
        if let Some(size) = service.shm_size {
            faults.bytes(&at("shm_size"), size, limits::TMPFS);
            if service.tmpfs.keys().any(|target| target.as_str() == "/dev/shm") {
                faults.add(&at("shm_size"), "there is a tmpfs at /dev/shm as well; remove one");
            }
        }
        for (target, secret) in &service.secrets {
            let path = tree::key(&at("secrets"), target.as_str());
            if service.configs.contains_key(target) {
                faults.add(&path, "a config is there as well; choose another place");
            }
            file_faults(service, &path, target, secret, faults);
        }
        for (target, config) in &service.configs {
            let path = tree::key(&at("configs"), target.as_str());
            if !self.configs.contains_key(&config.source) {
                let hint = "declare it under configs, with content, file or environment";
                faults.unknown(&path, "config", config.source.as_str(), self.configs.keys(), hint);
            }
            file_faults(service, &path, target, config, faults);
        }
    }
}

/// Whether an address may be that of somebody in the world. The provider's firewall has the last word.
fn is_public(ip: Ipv4Addr) -> bool {
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.octets()[0] == 0)
}

/// What holds for secrets and configs alike.
fn file_faults(
    service: &Service,
    path: &str,
    target: &AbsPath,
    file: &PlacedFile,
    faults: &mut Faults,
) {
    faults.check(path, mountable(target, Mounted::File));
    faults.mode(path, file.mode, 0o777);
    if service.volumes.contains_key(target) || service.tmpfs.contains_key(target) {
        faults.add(path, "something is mounted there as well; choose another place");
    }
    let files = service.secrets.keys().chain(service.configs.keys());
    let mut others = service.volumes.keys().chain(service.tmpfs.keys()).chain(files);
    let below = |other: &AbsPath| {
        other.as_str().strip_prefix(target.as_str()).is_some_and(|rest| rest.starts_with('/'))
    };
    if let Some(other) = others.find(|other| below(other)) {
        faults
            .add(path, format!("{other} lies below it, and this is a file; choose another place"));
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

pub(super) fn in_range<T: PartialOrd + fmt::Display>(
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), Invalid> {
    let (least, most) = (range.start(), range.end());
    match range.contains(value) {
        true => Ok(()),
        false => Err(Invalid(format!("{value} is out of range ({least}-{most})"))),
    }
}

pub(super) fn cpu_in_range(cpu: Cpu) -> Result<(), Invalid> {
    let (least, most) = (Cpu(*limits::CPU.start()), Cpu(*limits::CPU.end()));
    match limits::CPU.contains(&cpu.0) {
        true => Ok(()),
        false => Err(Invalid(format!("{cpu} is out of range; write {least} to {most}"))),
    }
}

pub(crate) fn bytes_in_range(bytes: Bytes, range: &RangeInclusive<u64>) -> Result<(), Invalid> {
    let (least, most) = (Bytes(*range.start()), Bytes(*range.end()));
    match range.contains(&bytes.0) {
        true => Ok(()),
        false => Err(Invalid(format!("{bytes} is out of range; write {least} to {most}"))),
    }
}

pub(super) fn mode_in_range(mode: u16, most: u16) -> Result<(), Invalid> {
    match mode <= most {
        true => Ok(()),
        false => Err(Invalid(format!("{mode:04o} is no file mode; write 0000 to {most:04o}"))),
    }
}

/// Whether `value` looks like what the kernel's settings are: numbers.
fn sysctl_value(value: &str) -> Result<(), Invalid> {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b' ' | b'\t' | b',' | b'-');
    match (1..=limits::SYSCTL).contains(&value.len()) && value.bytes().all(plain) {
        true => Ok(()),
        false => Err(Invalid(format!("{} is no value of it; write numbers", tree::show(value)))),
    }
}

/// A soft limit lies within the hard one; how many files may be open has an end in the kernel.
pub(super) fn ulimit(name: &UlimitName, limit: Ulimit) -> Result<(), Invalid> {
    let Ulimit { hard, soft } = limit;
    let range = match name.as_str() {
        "nofile" => 1..=limits::OPEN_FILES,
        _ => -1..=limits::ULIMIT,
    };
    in_range(&soft, &range)?;
    in_range(&hard, &range)?;
    let endless = |value: i64| if value == -1 { i64::MAX } else { value };
    match endless(soft) <= endless(hard) {
        true => Ok(()),
        false => Err(Invalid(format!("the soft limit, {soft}, is above the hard one, {hard}"))),
    }
}

/// What is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounted {
    Volume,
    Tmpfs,
    File,
}

/// Whether something may be mounted at `path`: not over what makes a container one.
pub(super) fn mountable(path: &AbsPath, what: Mounted) -> Result<(), Invalid> {
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
    let secrets = (what != Mounted::File).then_some("/run/secrets");
    match kept.into_iter().chain(secrets).find(|root| under(root)) {
        Some(root) => Err(Invalid(format!(
            "{path} is not yours to mount over ({root}); choose another place"
        ))),
        None if what == Mounted::File && path == "/run/secrets" => {
            Err(Invalid("/run/secrets is the folder of the secrets; name a file in it".into()))
        }
        None => Ok(()),
    }
}

pub(super) const ADD_SERVICE: &str = "add it under services";

/// Says that there is no such thing, and what was perhaps meant, or else what to do.
pub(super) fn unknown<T: fmt::Display>(
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
