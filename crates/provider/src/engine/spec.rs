//! A service of a pod as the engine is told of it. No I/O: what a container may and may not do can be read here.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
};

use crate::config::GpuId;
use bollard::models::{
    ContainerCreateBody, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount as EngineMount, MountType,
    MountVolumeOptions, NetworkingConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use protocol::pod::{AbsPath, Attachment, Healthcheck, Label, Restart, Runtime, Service, Test};

/// What a container keeps of its output: three files of 10 MiB.
pub(super) const LOG_FILES: (&str, &str) = ("3", "10m");

/// How long the engine waits between two health checks at least: starting one takes the machine's time, not the pod's.
const LEAST_INTERVAL_MS: u64 = 1_000;

/// How many tasks gVisor takes for itself.
const GVISOR_TASKS: i64 = 256;

/// The variable that says which GPUs a container has.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// What a service needs besides its own words.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// What the names of the pod's containers and volumes begin with.
    pub(super) prefix: &'a str,
    /// The first of its networks, by the engine's name; the others are connected afterwards. None at all where it has none.
    pub(super) network: Option<(String, EndpointSettings)>,
    pub(super) dns: &'a [Ipv4Addr],
    pub(super) image: &'a str,
    /// The image's own entry point, which is kept where only its command is taken away.
    pub(super) image_entrypoint: &'a [String],
    /// Where the contents of each secret and config are on this machine.
    pub(super) files: &'a BTreeMap<AbsPath, PathBuf>,
    /// The GPUs that are its own.
    pub(super) gpus: &'a [GpuId],
    /// Ours; they win over the publisher's.
    pub(super) labels: HashMap<String, String>,
}

/// A service's place on a network.
pub(super) fn endpoint(name: &Label, attachment: &Attachment, ip: Ipv4Addr) -> EndpointSettings {
    let aliases = attachment.aliases.iter().map(ToString::to_string);
    EndpointSettings {
        aliases: Some([name.to_string()].into_iter().chain(aliases).collect()),
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(ip.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    }
}

/// The container of `service`: no capability, no way to get one, and no more than its limits.
pub(super) fn container(name: &Label, service: &Service, place: Place<'_>) -> ContainerCreateBody {
    let mut labels: HashMap<String, String> =
        service.labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    labels.extend(place.labels);
    let network = place.network.as_ref().map_or("none", |(name, _)| name);
    let memory = signed(service.limits.memory.0);
    let dns = if service.dns.is_empty() { place.dns } else { &service.dns };
    let host = HostConfig {
        memory: Some(memory),
        // The same as the memory: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(service.limits.cpu.0) * 1_000_000),
        pids_limit: Some(pids(service)),
        runtime: service.runtime.map(|Runtime::Runsc| "runsc".to_owned()),
        device_requests: device_requests(place.gpus),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some("private".into()),
        readonly_rootfs: Some(service.read_only),
        init: Some(service.init),
        shm_size: service.shm_size.map(|size| signed(size.0)),
        group_add: some(service.group_add.iter().map(ToString::to_string)),
        sysctls: some(
            service.sysctls.iter().map(|(name, value)| (name.to_string(), value.clone())),
        ),
        ulimits: some(ulimits(service)),
        mounts: Some(mounts(service, place.prefix, place.files)),
        tmpfs: Some(tmpfs(service)),
        restart_policy: Some(restart(service.restart)),
        network_mode: Some(network.to_owned()),
        dns: Some(dns.iter().map(ToString::to_string).collect()),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([
                ("max-file".into(), LOG_FILES.0.into()),
                ("max-size".into(), LOG_FILES.1.into()),
            ])),
        }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(place.image.to_owned()),
        hostname: Some(service.hostname.as_ref().unwrap_or(name).to_string()),
        domainname: service.domainname.as_ref().map(ToString::to_string),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        user: service.user.as_ref().map(ToString::to_string),
        env: Some(environment(service, place.gpus)),
        cmd: service.command.clone(),
        entrypoint: entrypoint(service, place.image_entrypoint),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        working_dir: service.working_dir.as_ref().map(ToString::to_string),
        stop_signal: service.stop_signal.as_ref().map(ToString::to_string),
        stop_timeout: service.stop_grace.map(i64::from),
        labels: Some(labels),
        host_config: Some(host),
        networking_config: place
            .network
            .map(|network| NetworkingConfig { endpoints_config: Some(HashMap::from([network])) }),
        ..ContainerCreateBody::default()
    }
}

/// With GPUs, the variable by which NVIDIA's programs are told which: whoever reads an image's, or the publisher's, would
/// read of others.
fn environment(service: &Service, gpus: &[GpuId]) -> Vec<String> {
    let names: Vec<&str> = gpus.iter().map(GpuId::as_str).collect();
    let ours = (!names.is_empty()).then(|| format!("{VISIBLE}={}", names.join(",")));
    let theirs = service.environment.iter();
    let theirs = theirs.filter(|(name, _)| ours.is_none() || name.as_str() != VISIBLE);
    theirs.map(|(name, value)| format!("{name}={value}")).chain(ours.clone()).collect()
}

/// By their names: of a number of them, the engine would give everybody the first ones.
fn device_requests(gpus: &[GpuId]) -> Option<Vec<DeviceRequest>> {
    let ids: Option<Vec<String>> = some(gpus.iter().map(|gpu| gpu.as_str().to_owned()));
    Some(vec![DeviceRequest {
        driver: Some("nvidia".into()),
        device_ids: Some(ids?),
        capabilities: Some(vec![vec!["gpu".into()]]),
        ..DeviceRequest::default()
    }])
}

/// The engine takes an empty command for "the image's", unless an entry point is given as well.
pub(super) fn entrypoint(service: &Service, image: &[String]) -> Option<Vec<String>> {
    match (&service.entrypoint, &service.command) {
        // Its way to write "none".
        (Some(words), _) if words.is_empty() => Some(vec![String::new()]),
        (Some(words), _) => Some(words.clone()),
        (None, Some(command)) if command.is_empty() && !image.is_empty() => Some(image.to_vec()),
        (None, _) => None,
    }
}

/// How many tasks of the machine's kernel a service may have. gVisor's own count among them, which it needs before the
/// service's first.
fn pids(service: &Service) -> i64 {
    let own = match service.runtime {
        Some(Runtime::Runsc) => GVISOR_TASKS,
        None => 0,
    };
    i64::from(service.limits.pids) + own
}

/// `None` where there is nothing, so that the engine keeps its default.
pub(super) fn some<T, C: FromIterator<T>>(items: impl IntoIterator<Item = T>) -> Option<C> {
    let mut items = items.into_iter().peekable();
    items.peek().is_some().then_some(())?;
    Some(items.collect())
}

pub(super) fn ulimits(service: &Service) -> impl Iterator<Item = ResourcesUlimits> {
    service.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.to_string()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    })
}

fn mounts(service: &Service, prefix: &str, files: &BTreeMap<AbsPath, PathBuf>) -> Vec<EngineMount> {
    let volumes = service.volumes.iter().map(|(target, mount)| EngineMount {
        typ: Some(MountType::VOLUME),
        source: Some(volume(prefix, mount.source.as_str())),
        target: Some(target.to_string()),
        read_only: Some(mount.read_only),
        volume_options: mount
            .no_copy
            .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..EngineMount::default()
    });
    let files = files.iter().map(|(target, file)| EngineMount {
        typ: Some(MountType::BIND),
        source: Some(file.display().to_string()),
        target: Some(target.to_string()),
        read_only: Some(true),
        ..EngineMount::default()
    });
    volumes.chain(files).collect()
}

fn tmpfs(service: &Service) -> HashMap<String, String> {
    let options =
        |size: u64, mode: u16| format!("rw,noexec,nosuid,nodev,size={size},mode={mode:o}");
    let mount = |(path, tmpfs): (&AbsPath, &protocol::pod::Tmpfs)| {
        (path.to_string(), options(tmpfs.size.0, tmpfs.mode))
    };
    service.tmpfs.iter().map(mount).collect()
}

fn restart(restart: Restart) -> RestartPolicy {
    let (name, most) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        // With `always` the engine, when it is started again, would start what was stopped, too: a pod that another has taken the
        // place of. What is missing the reconciler starts in any case.
        Restart::Always | Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure { max } => (RestartPolicyNameEnum::ON_FAILURE, max.map(i64::from)),
    };
    RestartPolicy { name: Some(name), maximum_retry_count: most }
}

pub(super) fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanos = |ms: Option<u64>| ms.map(|ms| signed(ms.saturating_mul(1_000_000)));
    let interval = check.interval.map(|ms| ms.max(LEAST_INTERVAL_MS));
    let test = check.test.as_ref().map(|test| match test {
        Test::Disabled => vec!["NONE".to_owned()],
        Test::Exec(words) => [&["CMD".to_owned()], words.as_slice()].concat(),
        Test::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    });
    HealthConfig {
        test,
        interval: nanos(interval),
        timeout: nanos(check.timeout),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period),
        start_interval: None,
    }
}

/// The engine's volume `name` of a pod.
pub(super) fn volume(prefix: &str, name: &str) -> String {
    format!("{prefix}-{name}")
}

/// The engine's numbers are signed; what it takes is bounded by the pod's limits far below that.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(service: serde_json::Value) -> ContainerCreateBody {
        create_with(service, &[])
    }

    fn create_with(service: serde_json::Value, gpus: &[GpuId]) -> ContainerCreateBody {
        let service: Service = serde_json::from_value(service).unwrap();
        let files = BTreeMap::from([("/run/secrets/key".parse().unwrap(), "/mem/key".into())]);
        let name: Label = "web".parse().unwrap();
        let attachments = service.attachments();
        let networks = attachments.values().map(|attachment| {
            let ip = Ipv4Addr::new(10, 213, 0, 2);
            ("rs-1-ab".to_owned(), endpoint(&name, attachment, ip))
        });
        let place = Place {
            prefix: "rs-1-ab",
            network: networks.into_iter().next(),
            dns: &[Ipv4Addr::new(9, 9, 9, 9)],
            image: "sha256:aa",
            image_entrypoint: &["/entry".to_owned()],
            files: &files,
            gpus,
            labels: HashMap::from([("roadstead.lease".into(), "1".into())]),
        };
        container(&name, &service, place)
    }

    fn service() -> serde_json::Value {
        serde_json::json!({
            "image": { "pushed": { "id": format!("sha256:{}", "a".repeat(64)) } },
            "limits": { "cpu": 250, "memory": 64 << 20, "pids": 32 },
        })
    }

    #[test]
    fn nothing_is_allowed_that_was_not_asked_for() {
        let host = create(service()).host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".into()]));
        assert_eq!(host.cap_add, None);
        assert_eq!(host.privileged, None);
        assert_eq!((host.devices, host.device_requests), (None, None));
        assert_eq!(host.port_bindings, None);
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".into()]));
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(250_000_000), Some(32)));
        assert_eq!(host.binds, None);
        let secret = &host.mounts.unwrap()[0];
        assert_eq!((secret.source.as_deref(), secret.read_only), (Some("/mem/key"), Some(true)));
    }

    #[test]
    fn an_emptied_command_or_entry_point_stays_empty() {
        let check = |key: &str, words: &[&str], wanted: Option<Vec<String>>| {
            let mut service = service();
            service[key] = words.into();
            assert_eq!(create(service).entrypoint, wanted, "{key} {words:?}");
        };
        check("command", &[], Some(vec!["/entry".into()]));
        check("command", &["serve"], None);
        check("entrypoint", &[], Some(vec![String::new()]));
        check("entrypoint", &["/other"], Some(vec!["/other".into()]));
    }

    #[test]
    fn what_is_asked_for_reaches_the_engine() {
        let mut service = service();
        for (key, value) in [
            ("domainname", serde_json::json!("example.org")),
            ("group_add", serde_json::json!(["5", "audio"])),
            ("networks", serde_json::json!({ "front": { "aliases": ["shop"] } })),
            ("shm_size", serde_json::json!(8 << 20)),
            ("sysctls", serde_json::json!({ "net.ipv4.tcp_syncookies": "1" })),
            ("tty", serde_json::json!(true)),
            ("ulimits", serde_json::json!({ "nofile": { "hard": 20, "soft": 10 } })),
            ("volumes", serde_json::json!({ "/data": { "no_copy": true, "source": "data" } })),
        ] {
            service[key] = value;
        }
        let body = create(service);
        assert_eq!((body.domainname.as_deref(), body.tty), (Some("example.org"), Some(true)));
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(endpoints["rs-1-ab"].aliases, Some(vec!["web".into(), "shop".into()]));
        let host = body.host_config.unwrap();
        assert_eq!(host.group_add, Some(vec!["5".into(), "audio".into()]));
        assert_eq!(host.shm_size, Some(8 << 20));
        assert_eq!(host.sysctls.unwrap()["net.ipv4.tcp_syncookies"], "1");
        let limit = &host.ulimits.unwrap()[0];
        assert_eq!((limit.soft, limit.hard), (Some(10), Some(20)));
        let volume = host.mounts.unwrap().remove(0);
        assert_eq!(volume.volume_options.unwrap().no_copy, Some(true));
    }

    #[test]
    fn health_is_not_checked_all_the_time() {
        let interval = |ms: u64| {
            let mut service = service();
            service["healthcheck"] = serde_json::json!({ "interval_ms": ms });
            create(service).healthcheck.unwrap().interval
        };
        assert_eq!(interval(1), Some(1_000_000_000));
        assert_eq!(interval(30_000), Some(30_000_000_000));
    }

    #[test]
    fn gvisor_is_run_where_it_is_asked_for() {
        let host = create(service()).host_config.unwrap();
        assert_eq!((host.runtime, host.pids_limit), (None, Some(32)));
        let mut service = service();
        service["runtime"] = "runsc".into();
        let host = create(service).host_config.unwrap();
        assert_eq!((host.runtime.as_deref(), host.pids_limit), (Some("runsc"), Some(288)));
    }

    #[test]
    fn gpus_are_asked_for_by_name() {
        let gpus = ["0", "3"].map(|id| id.parse().unwrap());
        let mut service = service();
        service["environment"] = serde_json::json!({ "A": "b", "NVIDIA_VISIBLE_DEVICES": "all" });
        let plain = create(service.clone());
        assert_eq!(plain.env, Some(vec!["A=b".into(), "NVIDIA_VISIBLE_DEVICES=all".into()]));
        let body = create_with(service, &gpus);
        assert_eq!(body.env, Some(vec!["A=b".into(), "NVIDIA_VISIBLE_DEVICES=0,3".into()]));
        let host = body.host_config.unwrap();
        let request = &host.device_requests.unwrap()[0];
        assert_eq!((request.driver.as_deref(), request.count), (Some("nvidia"), None));
        assert_eq!(request.device_ids, Some(vec!["0".into(), "3".into()]));
        assert_eq!(request.capabilities, Some(vec![vec!["gpu".into()]]));
        // What runs it is the engine's own choice: nvidia's would give what an image asks for.
        assert_eq!(host.runtime, None);
    }

    #[test]
    fn a_service_without_networks_has_none() {
        let mut service = service();
        service["networks"] = serde_json::json!({});
        let body = create(service);
        assert_eq!(body.networking_config, None);
        assert_eq!(body.host_config.unwrap().network_mode.as_deref(), Some("none"));
    }

    #[test]
    fn labels_of_ours_win() {
        let mut service = service();
        service["labels"] = serde_json::json!({ "team": "blue" });
        let labels = create(service).labels.unwrap();
        assert_eq!(labels["roadstead.lease"], "1");
        assert_eq!(labels["team"], "blue");
    }
}
