//! A service of a pod as a swarm is told of it. No I/O: what its containers may and may not do can be read here, and what
//! a cluster does not take.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use alloy::primitives::{hex, keccak256};
use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    EndpointSpec, EndpointSpecModeEnum, Limit, Mount, MountTmpfsOptions, MountType,
    MountVolumeOptions, NetworkAttachmentConfig, ResourceObject, ServiceSpec, ServiceSpecMode,
    ServiceSpecModeReplicated, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecDnsConfig,
    TaskSpecContainerSpecPrivileges, TaskSpecContainerSpecSecrets, TaskSpecLogDriver,
    TaskSpecPlacement, TaskSpecPlacementPreferences, TaskSpecPlacementSpread, TaskSpecResources,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};
use protocol::pod::{AbsPath, ImageRef, Label, Pod, Restart, Service, Transport};

use super::{
    super::spec::{LOG_FILES, entrypoint, healthcheck, signed, some, ulimits, volume},
    nodes::NAMED,
};

/// The longest name that a service of a swarm may have.
const MAX_NAME: usize = 63;

/// The largest secret or config that a swarm takes, in bytes.
const MAX_FILE: usize = 500 << 10;

/// How long a swarm waits before it runs in place of a container that ended another one.
const DELAY: i64 = 1_000_000_000;

/// Why a cluster does not take a pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotInCluster {
    #[error(
        "services.{0}: what a service writes cannot be bounded on the machines of this cluster; give it read_only: true, with a tmpfs or a volume where it writes"
    )]
    Writable(Label),
    #[error(
        "services.{0}.image: this cluster runs no encrypted images; choose a provider with a single machine, or an image that is not encrypted"
    )]
    Encrypted(Label),
    #[error(
        "services.{0}.runtime: this cluster has no gVisor; choose a provider with a single machine, or remove this"
    )]
    Runtime(Label),
    #[error(
        "services.{0}.deploy.resources.reservations.devices: this cluster gives no GPUs; choose a provider with a single machine"
    )]
    Gpus(Label),
    #[error(
        "services.{0}.domainname: this cluster cannot set it; remove this, the service is found by its name all the same"
    )]
    Domain(Label),
    #[error(
        "services.{0}.networks: in this cluster every service is on a network; give it one of its own that is internal"
    )]
    NoNetwork(Label),
    #[error(
        "services.{0}.networks: in this cluster visitors do not reach a service that is on internal networks alone; put it on another one as well"
    )]
    Internal(Label),
    #[error(
        "x-roadstead.egress: this cluster does not bound what a single lease sends; choose a provider with a single machine, or remove this"
    )]
    Egress,
    #[error(
        "services.{service}: {file} has {bytes} bytes, and this cluster takes files of 1 to {MAX_FILE}"
    )]
    File { service: Label, file: String, bytes: usize },
}

/// Whether a cluster can run a pod as it wants to be run.
pub(crate) fn suits(pod: &Pod) -> Result<(), NotInCluster> {
    for (name, service) in pod.services() {
        let name = || name.clone();
        let encrypted = matches!(service.image, ImageRef::Encrypted { .. });
        let refused = [
            (!service.read_only).then(|| NotInCluster::Writable(name())),
            encrypted.then(|| NotInCluster::Encrypted(name())),
            service.runtime.is_some().then(|| NotInCluster::Runtime(name())),
            (service.limits.gpus > 0).then(|| NotInCluster::Gpus(name())),
            service.domainname.is_some().then(|| NotInCluster::Domain(name())),
            service.attachments().is_empty().then(|| NotInCluster::NoNetwork(name())),
        ];
        if let Some(why) = refused.into_iter().flatten().next() {
            return Err(why);
        }
        for config in service.configs.values() {
            let text = pod.configs().get(&config.source).map_or("", String::as_str);
            fits(&name(), &format!("config {}", config.source), text.as_bytes())?;
        }
    }
    let visited = pod.ingress().values().map(|target| &target.service);
    let visited = visited.chain(pod.public_ports().map(|(name, _)| name));
    for name in visited {
        if pod.services().get(name).is_some_and(|service| !is_reached(pod, service)) {
            return Err(NotInCluster::Internal(name.clone()));
        }
    }
    let egress = pod.egress();
    match egress.rate.is_some() || egress.total.is_some() {
        true => Err(NotInCluster::Egress),
        false => Ok(()),
    }
}

/// Whether a swarm takes a file as it is.
pub(super) fn fits(service: &Label, file: &str, contents: &[u8]) -> Result<(), NotInCluster> {
    let bytes = contents.len();
    match (1..=MAX_FILE).contains(&bytes) {
        true => Ok(()),
        false => Err(NotInCluster::File { service: service.clone(), file: file.into(), bytes }),
    }
}

/// Whether a service is on a network that leads to its machine, so that its ports can be published there.
pub(super) fn is_reached(pod: &Pod, service: &Service) -> bool {
    let networks = pod.networks();
    service.attachments().keys().any(|name| networks.get(name).is_none_or(|n| !n.internal))
}

/// The name of a service of a pod whose parts' names begin with `prefix`.
pub(super) fn service_name(prefix: &str, label: &Label) -> String {
    let name = format!("{prefix}-{label}");
    match name.len() <= MAX_NAME {
        true => name,
        false => file_name(prefix, label, "service"),
    }
}

/// The name of one of a service's files, whatever its path is.
pub(super) fn file_name(prefix: &str, label: &Label, path: &str) -> String {
    let hash = keccak256([label.as_str().as_bytes(), b"\0", path.as_bytes()].concat());
    format!("{prefix}-{}", hex::encode(&hash[..8]))
}

/// What a service needs besides its own words.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) name: String,
    /// What the names of the pod's volumes begin with.
    pub(super) prefix: &'a str,
    pub(super) networks: Vec<NetworkAttachmentConfig>,
    /// Whether its ports are published where it runs.
    pub(super) published: bool,
    pub(super) dns: &'a [Ipv4Addr],
    pub(super) image: &'a str,
    pub(super) image_entrypoint: &'a [String],
    pub(super) files: Vec<TaskSpecContainerSpecSecrets>,
    /// The label of the machines that it may run on.
    pub(super) machines: &'a str,
    /// The machine that has the pod's volumes.
    pub(super) home: &'a str,
    /// Ours; they win over the publisher's.
    pub(super) labels: HashMap<String, String>,
}

/// The swarm's service: one container, wherever there is room, with no capability and no more than its limits.
pub(super) fn service(name: &Label, service: &Service, place: Place<'_>) -> ServiceSpec {
    let mut labels: HashMap<String, String> =
        service.labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    labels.extend(place.labels.clone());
    let constraints = constraints(service, &place);
    let (cpu, memory) =
        (i64::from(service.limits.cpu.0) * 1_000_000, signed(service.limits.memory.0));
    let dns = if service.dns.is_empty() { place.dns } else { &service.dns };
    let container = TaskSpecContainerSpec {
        image: Some(place.image.to_owned()),
        labels: Some(labels),
        command: entrypoint(service, place.image_entrypoint),
        args: service.command.clone(),
        hostname: Some(service.hostname.as_ref().unwrap_or(name).to_string()),
        env: Some(service.environment.iter().map(|(k, v)| literal(&format!("{k}={v}"))).collect()),
        dir: service.working_dir.as_ref().map(ToString::to_string),
        user: service.user.as_ref().map(ToString::to_string),
        groups: some(service.group_add.iter().map(ToString::to_string)),
        privileges: Some(TaskSpecContainerSpecPrivileges {
            // Engines before 25.0 pass over it: there it is the daemon's to say, for all containers.
            no_new_privileges: Some(true),
            ..TaskSpecContainerSpecPrivileges::default()
        }),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        read_only: Some(service.read_only),
        mounts: some(mounts(service, place.prefix)),
        stop_signal: service.stop_signal.as_ref().map(ToString::to_string),
        stop_grace_period: service.stop_grace.map(|secs| i64::from(secs) * 1_000_000_000),
        health_check: service.healthcheck.as_ref().map(healthcheck),
        hosts: some(hosts(service)),
        dns_config: Some(TaskSpecContainerSpecDnsConfig {
            nameservers: Some(dns.iter().map(ToString::to_string).collect()),
            options: some(service.dns_opt.iter().map(ToString::to_string)),
            search: some(service.dns_search.iter().map(ToString::to_string)),
        }),
        secrets: some(place.files),
        init: Some(service.init),
        sysctls: some(
            service.sysctls.iter().map(|(name, value)| (name.to_string(), value.clone())),
        ),
        capability_drop: Some(vec!["ALL".into()]),
        ulimits: some(ulimits(service)),
        ..TaskSpecContainerSpec::default()
    };
    let task = TaskSpec {
        container_spec: Some(container),
        resources: Some(TaskSpecResources {
            limits: Some(Limit {
                nano_cpus: Some(cpu),
                memory_bytes: Some(memory),
                pids: Some(i64::from(service.limits.pids)),
            }),
            // What is paid for is kept free for it.
            reservations: Some(ResourceObject {
                nano_cpus: Some(cpu),
                memory_bytes: Some(memory),
                generic_resources: None,
            }),
            ..TaskSpecResources::default()
        }),
        restart_policy: Some(restart(service.restart)),
        placement: Some(TaskSpecPlacement {
            constraints: Some(constraints),
            preferences: Some(vec![TaskSpecPlacementPreferences {
                spread: Some(TaskSpecPlacementSpread { spread_descriptor: Some("node.id".into()) }),
            }]),
            ..TaskSpecPlacement::default()
        }),
        networks: Some(place.networks),
        log_driver: Some(TaskSpecLogDriver {
            name: Some("json-file".into()),
            options: Some(HashMap::from([
                ("max-file".into(), LOG_FILES.0.into()),
                ("max-size".into(), LOG_FILES.1.into()),
            ])),
        }),
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: Some(place.name),
        labels: Some(place.labels),
        task_template: Some(task),
        mode: Some(replicas(1)),
        endpoint_spec: Some(EndpointSpec {
            // A virtual address would need IPVS of every machine's kernel, and leads to one container all the same.
            mode: Some(EndpointSpecModeEnum::DNSRR),
            ports: place.published.then(|| ports(service)),
        }),
        ..ServiceSpec::default()
    }
}

/// Where it may run.
fn constraints(service: &Service, place: &Place<'_>) -> Vec<String> {
    let machines = format!("node.labels.{}=={NAMED}", place.machines);
    // A volume is a file of the provider's own machine.
    let home = (!service.volumes.is_empty()).then(|| format!("node.id=={}", place.home));
    [machines].into_iter().chain(home).collect()
}

/// So many containers.
pub(super) fn replicas(count: i64) -> ServiceSpecMode {
    ServiceSpecMode {
        replicated: Some(ServiceSpecModeReplicated { replicas: Some(count) }),
        ..ServiceSpecMode::default()
    }
}

/// A swarm takes some words for templates, which could tell a service of the machine that it runs on.
fn literal(text: &str) -> String {
    text.replace("{{", "{{\"{{\"}}")
}

/// As a hosts file has them.
fn hosts(service: &Service) -> impl Iterator<Item = String> {
    let hosts = service.extra_hosts.iter();
    hosts.flat_map(|(host, addresses)| addresses.iter().map(move |ip| format!("{ip} {host}")))
}

fn mounts(service: &Service, prefix: &str) -> Vec<Mount> {
    let volumes = service.volumes.iter().map(|(target, mount)| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume(prefix, mount.source.as_str())),
        target: Some(literal(target.as_str())),
        read_only: Some(mount.read_only),
        volume_options: mount
            .no_copy
            .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    });
    // Neither executable, nor with devices or the rights of others: that is what a swarm mounts them as.
    let tmpfs = |target: &str, size: u64, mode: u16| Mount {
        typ: Some(MountType::TMPFS),
        target: Some(literal(target)),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: Some(signed(size)),
            mode: Some(mode.into()),
            options: None,
        }),
        ..Mount::default()
    };
    let own = service.tmpfs.iter();
    let own = own.map(|(path, wish)| tmpfs(path.as_str(), wish.size.0, wish.mode));
    let shared = service.shm_size.map(|size| tmpfs("/dev/shm", size.0, 0o1777));
    volumes.chain(own).chain(shared).collect()
}

fn restart(restart: Restart) -> TaskSpecRestartPolicy {
    use TaskSpecRestartPolicyConditionEnum as Condition;
    let (condition, most) = match restart {
        Restart::No => (Condition::NONE, None),
        Restart::Always | Restart::UnlessStopped => (Condition::ANY, None),
        Restart::OnFailure { max } => (Condition::ON_FAILURE, max.map(i64::from)),
    };
    TaskSpecRestartPolicy {
        condition: Some(condition),
        delay: Some(DELAY),
        max_attempts: most,
        window: None,
    }
}

/// Each at a number that the machine chooses.
fn ports(service: &Service) -> Vec<EndpointPortConfig> {
    let ports: BTreeMap<_, _> =
        service.ports.iter().map(|port| ((port.transport, port.number), port)).collect();
    let ports = ports.into_keys().map(|(transport, number)| EndpointPortConfig {
        protocol: Some(match transport {
            Transport::Tcp => EndpointPortConfigProtocolEnum::TCP,
            Transport::Udp => EndpointPortConfigProtocolEnum::UDP,
        }),
        target_port: Some(number.get().into()),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
        ..EndpointPortConfig::default()
    });
    ports.collect()
}

/// Where an image declares volumes that the service mounts nothing over: a swarm would make a folder without limit of each.
pub(super) fn declared(service: &Service, image: &[String]) -> Option<String> {
    let covered = |path: &str| {
        let is_it = |target: &AbsPath| target.as_str() == path;
        service.tmpfs.keys().any(is_it) || service.volumes.keys().any(is_it)
    };
    let bare: Vec<&str> = image.iter().map(String::as_str).filter(|path| !covered(path)).collect();
    (!bare.is_empty()).then(|| bare.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> serde_json::Value {
        serde_json::json!({
            "image": { "pushed": { "id": format!("sha256:{}", "a".repeat(64)) } },
            "limits": { "cpu": 250, "memory": 64 << 20, "pids": 32 },
            "ports": ["8080/tcp", "53/udp"],
            "read_only": true,
        })
    }

    fn told(wish: serde_json::Value) -> ServiceSpec {
        let wish: Service = serde_json::from_value(wish).unwrap();
        let name: Label = "web".parse().unwrap();
        let place = Place {
            name: "rs-1-ab-web".into(),
            prefix: "rs-1-ab",
            networks: vec![NetworkAttachmentConfig::default()],
            published: true,
            dns: &[Ipv4Addr::new(9, 9, 9, 9)],
            image: "sha256:aa",
            image_entrypoint: &[],
            files: Vec::new(),
            machines: "roadstead.ab",
            home: "here",
            labels: HashMap::from([("roadstead.lease".into(), "1".into())]),
        };
        service(&name, &wish, place)
    }

    fn container(wish: serde_json::Value) -> TaskSpecContainerSpec {
        told(wish).task_template.unwrap().container_spec.unwrap()
    }

    #[test]
    fn nothing_is_allowed_that_was_not_asked_for() {
        let spec = told(wish());
        assert_eq!(spec.mode, Some(replicas(1)));
        let task = spec.task_template.unwrap();
        let container = task.container_spec.unwrap();
        assert_eq!(container.capability_drop, Some(vec!["ALL".into()]));
        assert_eq!(container.capability_add, None);
        assert_eq!(container.privileges.unwrap().no_new_privileges, Some(true));
        assert_eq!((container.read_only, container.mounts), (Some(true), None));
        let resources = task.resources.unwrap();
        let limits = resources.limits.unwrap();
        assert_eq!((limits.nano_cpus, limits.pids), (Some(250_000_000), Some(32)));
        assert_eq!(limits.memory_bytes, Some(64 << 20));
        assert_eq!(resources.reservations.unwrap().memory_bytes, Some(64 << 20));
        let endpoint = spec.endpoint_spec.unwrap();
        assert_eq!(endpoint.mode, Some(EndpointSpecModeEnum::DNSRR));
        for port in endpoint.ports.unwrap() {
            assert_eq!(port.publish_mode, Some(EndpointPortConfigPublishModeEnum::HOST));
            assert_eq!(port.published_port, None);
        }
    }

    #[test]
    fn labels_are_on_the_service_and_on_its_containers_and_ours_win() {
        let mut labelled = wish();
        labelled["labels"] = serde_json::json!({ "team": "blue" });
        let spec = told(labelled);
        let container = spec.task_template.unwrap().container_spec.unwrap().labels.unwrap();
        assert_eq!(
            (container["team"].as_str(), container["roadstead.lease"].as_str()),
            ("blue", "1")
        );
        assert_eq!(spec.labels.unwrap().into_keys().collect::<Vec<_>>(), ["roadstead.lease"]);
    }

    #[test]
    fn it_runs_on_machines_of_the_provider_and_a_volume_stays_where_it_is() {
        let constraints = |wish| {
            let placement = told(wish).task_template.unwrap().placement.unwrap();
            placement.constraints.unwrap()
        };
        assert_eq!(constraints(wish()), ["node.labels.roadstead.ab==named"]);
        let mut stays = wish();
        stays["volumes"] = serde_json::json!({ "/data": { "source": "data" } });
        assert_eq!(constraints(stays)[1..], ["node.id==here"]);
    }

    #[test]
    fn no_words_of_a_publisher_are_templates() {
        let mut curious = wish();
        curious["environment"] = serde_json::json!({ "AT": "{{.Node.Hostname}}" });
        curious["tmpfs"] = serde_json::json!({ "/{{.Node.ID}}": { "size": 4096, "mode": 511 } });
        let container = container(curious);
        assert_eq!(container.env.unwrap(), ["AT={{\"{{\"}}.Node.Hostname}}"]);
        let target = container.mounts.unwrap().remove(0).target;
        assert_eq!(target.as_deref(), Some("/{{\"{{\"}}.Node.ID}}"));
    }

    #[test]
    fn it_is_started_again_as_the_pod_says() {
        use TaskSpecRestartPolicyConditionEnum as Condition;
        let check = |policy: serde_json::Value, condition, most| {
            let mut wish = wish();
            wish["restart"] = policy;
            let told = told(wish).task_template.unwrap().restart_policy.unwrap();
            assert_eq!((told.condition, told.max_attempts), (Some(condition), most));
        };
        check("no".into(), Condition::NONE, None);
        check("unless_stopped".into(), Condition::ANY, None);
        check(serde_json::json!({ "on_failure": { "max": 3 } }), Condition::ON_FAILURE, Some(3));
    }

    #[test]
    fn names_are_short_enough() {
        let prefix = "rs-18446744073709551615-abababababab-cdcdcd";
        let long: Label = "a".repeat(40).parse().unwrap();
        let short: Label = "web".parse().unwrap();
        assert_eq!(service_name(prefix, &short), format!("{prefix}-web"));
        assert!(service_name(prefix, &long).len() <= MAX_NAME);
        assert_ne!(file_name(prefix, &long, "/a"), file_name(prefix, &long, "/b"));
    }

    #[test]
    fn what_a_cluster_cannot_do_is_refused_with_the_next_best() {
        let check = |change: &dyn Fn(&mut serde_json::Value), wanted: Option<&str>| {
            let mut pod = serde_json::json!({ "services": { "web": wish() } });
            change(&mut pod);
            let pod: Pod =
                serde_json::from_value(pod.clone()).unwrap_or_else(|err| panic!("{err}: {pod}"));
            let refused = suits(&pod).err().map(|err| err.to_string());
            match wanted {
                Some(words) => {
                    let refused = refused.expect(words);
                    assert!(refused.contains(words), "{refused}");
                }
                None => assert_eq!(refused, None),
            }
        };
        check(&|_same| (), None);
        check(
            &|pod| {
                pod["services"]["web"].as_object_mut().unwrap().remove("read_only");
            },
            Some("read_only: true"),
        );
        check(&|pod| pod["services"]["web"]["runtime"] = "runsc".into(), Some("no gVisor"));
        check(
            &|pod| pod["services"]["web"]["networks"] = serde_json::json!({}),
            Some("services.web.networks"),
        );
        let inner = |pod: &mut serde_json::Value| {
            pod["networks"] = serde_json::json!({ "back": { "internal": true } });
            pod["services"]["web"]["networks"] = serde_json::json!({ "back": {} });
        };
        check(&inner, None);
        check(
            &|pod| {
                inner(pod);
                let target = serde_json::json!({ "port": 8080, "service": "web" });
                pod["ingress"] = serde_json::json!({ "web.example": target });
            },
            Some("internal networks alone"),
        );
        check(
            &|pod| pod["egress"] = serde_json::json!({ "rate_bps": 64_000 }),
            Some("x-roadstead.egress"),
        );
    }

    #[test]
    fn what_an_image_declares_has_to_be_covered() {
        let mut covered = wish();
        covered["tmpfs"] = serde_json::json!({ "/tmp": { "size": 4096, "mode": 511 } });
        let covered: Service = serde_json::from_value(covered).unwrap();
        assert_eq!(declared(&covered, &["/tmp".into()]), None);
        assert_eq!(declared(&covered, &["/data".into()]).as_deref(), Some("/data"));
    }
}
