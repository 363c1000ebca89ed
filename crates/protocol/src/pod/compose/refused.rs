//! What is known and refused: each with its reason, and with the nearest thing that works.

pub(super) const AUTOSCALING: &str =
    "autoscaling comes with the keeper and is not honoured yet; write deploy.replicas";
pub(super) const GLOBAL: &str =
    "a pod runs on one machine, so there is no service on each; write replicated, and replicas";

pub(super) const TOP_REFUSED: &[(&str, &str)] =
    &[("models", "models are not provided; run one as a service")];

pub(super) const SERVICE_REFUSED: &[(&str, &str)] = &[
    ("annotations", "annotations are not passed on; use labels"),
    ("blkio_config", "disk bandwidth is the provider's to share out; remove this"),
    (
        "cap_add",
        "all capabilities are dropped on other people's machines; listen on a port above 1023 and run as a user",
    ),
    ("cgroup_parent", "a container gets its own cgroup; remove this"),
    ("cpu_count", "use cpus"),
    ("cpu_percent", "use cpus"),
    ("cpu_period", "use cpus"),
    ("cpu_quota", "use cpus"),
    ("cpu_rt_period", "real-time scheduling is not given to pods; use cpus"),
    ("cpu_rt_runtime", "real-time scheduling is not given to pods; use cpus"),
    ("cpu_shares", "a pod gets what it pays for, not a share; use cpus"),
    ("cpuset", "a pod is not bound to processors; use cpus"),
    ("credential_spec", "there are no Windows containers; remove this"),
    ("develop", "a pod does not follow your sources; keep this in compose.override.yaml"),
    ("device_cgroup_rules", "the host's devices are not yours; remove this"),
    ("devices", "the host's devices are not yours; remove this"),
    (
        "external_links",
        "containers outside the pod cannot be reached by name; use their public address",
    ),
    (
        "gpus",
        "write deploy.resources.reservations.devices: [{ driver: nvidia, count: 1, capabilities: [gpu] }]",
    ),
    ("isolation", "there are no Windows containers; remove this"),
    ("logging", "the provider keeps the logs; use `roadstead logs`"),
    ("mac_address", "the network is the provider's; remove this"),
    ("mem_swappiness", "pods do not swap; remove this"),
    ("memswap_limit", "pods do not swap; use mem_limit"),
    ("models", "models are not provided; run one as a service"),
    ("oom_kill_disable", "a pod that uses more than its memory is killed; raise mem_limit"),
    ("oom_score_adj", "a pod that uses more than its memory is killed; raise mem_limit"),
    (
        "pid",
        "a container gets its own processes; run both programs in one container, with init: true",
    ),
    ("post_start", "hooks are not run; do it in the entry point"),
    ("pre_stop", "hooks are not run; handle the stop_signal"),
    ("provider", "other providers are not called; run the service as a container"),
    ("use_api_socket", "the host's Docker is not yours; remove this"),
    ("userns_mode", "the user namespace is the provider's; remove this"),
    ("uts", "a container gets its own host name; use hostname"),
    ("volumes_from", "mount the same named volume in both services"),
    ("x-roadstead", "it belongs at the top of the file"),
];

pub(super) const DEPLOY_REFUSED: &[(&str, &str)] = &[
    ("endpoint_mode", "services reach each other by name; remove this"),
    ("labels", "labels of Swarm services are not passed on; use labels of the service"),
    ("placement", "use x-roadstead.providers"),
    ("rollback_config", "updates are the keeper's; remove this"),
    ("update_config", "updates are the keeper's; remove this"),
];

pub(super) const VOLUME_REFUSED: &[(&str, &str)] = &[
    ("driver_opts", "the provider makes the volume; remove this"),
    ("labels", "a volume's labels are not passed on; remove this"),
    ("name", "the volume is known by its key; remove this"),
];

pub(super) const NETWORK_REFUSED: &[(&str, &str)] = &[
    ("driver_opts", "the provider makes the network; remove this"),
    ("ipam", "the provider chooses the addresses; remove this"),
    ("labels", "a network's labels are not passed on; remove this"),
    ("name", "the network is known by its key; remove this"),
];

pub(super) const ATTACHMENT_REFUSED: &[(&str, &str)] = &[
    ("driver_opts", "the provider makes the network; remove this"),
    ("gw_priority", "the provider connects networks in the order of their names; remove this"),
    ("interface_name", "the provider names interfaces; remove this"),
    ("ipv4_address", FIXED_ADDRESS),
    ("ipv6_address", FIXED_ADDRESS),
    ("link_local_ips", FIXED_ADDRESS),
    ("mac_address", FIXED_ADDRESS),
    ("priority", "the provider connects networks in the order of their names; remove this"),
];

const FIXED_ADDRESS: &str =
    "the provider chooses the addresses; use the service's name, or give it one in aliases";

pub(super) const CONFIG_REFUSED: &[(&str, &str)] = &[
    ("external", "a pod brings its own configs; use content, file or environment"),
    ("labels", "a config's labels are not passed on; remove this"),
    ("name", "the config is known by its key; remove this"),
    ("template_driver", "templates are not filled in; use content, with variables"),
];

pub(super) const SECRET_REFUSED: &[(&str, &str)] = &[
    ("content", "a secret in the file is none; use file or environment"),
    ("driver", "use file or environment"),
    ("external", "a pod brings its own secrets; use file or environment"),
    ("labels", "a secret's labels are not passed on; remove this"),
    ("name", "the secret is known by its key; remove this"),
    ("template_driver", "use file or environment"),
];

pub(super) const PORT_REFUSED: &[(&str, &str)] = &[
    ("app_protocol", "what a port speaks is its clients' to know; remove this"),
    ("name", "ports are known by their number; remove this"),
];

pub(super) const HOST_PATHS: &str =
    "the host's files are not yours; use a named volume, a secret, or put the file into the image";

pub(super) const NETWORK_MODE: &str = "the host's network is not yours; write none, or list networks: services that share one reach each other, and x-roadstead.ingress reaches them";
pub(super) const PLATFORM: &str = "providers run linux/amd64; build the image for it";
pub(super) const IPC: &str = "a container gets its own IPC namespace; talk over the network";
pub(super) const CGROUP: &str = "a container gets its own cgroup; remove this";
