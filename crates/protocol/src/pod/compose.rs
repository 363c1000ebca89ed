//! Reads a Compose file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use alloy_primitives::Address;

use super::{
    AbsPath, Condition, Digest, Errors, Healthcheck, Host, ImageName, ImageRef, Invalid, Label,
    LabelKey, Limits, Mount, Mounted, Name, Parts, Pod, Port, Repository, Restart, SecretFile,
    Service, Target, Test, Tmpfs, Transport, Variable, Volume, bytes_in_range, cpu_in_range,
    in_range, limits, mode_in_range, mountable,
    names::{port_number, show},
    text,
    tree::{At, Fields, Log, read},
    unknown,
};
use crate::{
    amount::{Amount, ParseAmountError, Rate, Token},
    resources::{Bytes, Cpu, Resources},
};

/// What a compose file may ask of the machine on which it is read.
pub trait Surroundings {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file, by its path as the compose file has it.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn read(&self, path: &str) -> Result<String, String>;
}

/// Nothing: no variables, no files.
impl Surroundings for () {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, _path: &str) -> Result<String, String> {
        Err("there are no files here".into())
    }
}

/// A compose file, read and checked; it becomes a pod once its images have digests.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Complete but for the digests of its images.
    draft: Parts,
    images: BTreeMap<Label, Image>,
    secrets: BTreeMap<Name, SecretSource>,
    wishes: Wishes,
    notes: Vec<String>,
}

/// An image before it has a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in the file.
    pub name: ImageName,
    /// Whether the file says how to build it, so that it is found on the publisher's machine.
    pub built: bool,
}

/// Where the contents of a secret are. They never are in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, by its path as the compose file has it.
    File(String),
    /// In an environment variable.
    Environment(String),
}

/// What a publisher wants of providers. It shapes no container, so it is no part of the hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The highest price.
    pub max_price: Option<MaxPrice>,
    /// Which providers.
    pub providers: Criteria,
    /// Which terms.
    pub sla: SlaWishes,
}

/// Which providers come into question; an empty set is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Their regions, in lower case.
    pub regions: BTreeSet<String>,
    /// Their addresses.
    pub addresses: BTreeSet<Address>,
}

/// Which terms a quote has to carry, in seconds; what is left out is the provider's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlaWishes {
    /// What the provider puts up.
    pub coverage: Option<Coverage>,
    /// An outage that costs nothing.
    pub grace: Option<u32>,
    /// An outage that costs the whole coverage.
    pub full: Option<u32>,
    /// How long the provider has to answer a challenge.
    pub response: Option<u32>,
}

/// A price as it is written, `0.02/h`; what it is depends on the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxPrice(String);

/// An amount as it is written; what it is depends on the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage(String);

/// Why a file did not become a pod.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E> {
    /// The digest of an image is not to be had.
    #[error("the image of services.{service}, {image}, has no digest")]
    Image {
        /// The service.
        service: Label,
        /// Its image.
        image: ImageName,
        /// Why.
        source: E,
    },
    /// The digests make it too large.
    #[error("the pod is not valid")]
    Invalid(#[source] Errors),
}

/// The finest token there is; what it cannot express, none can.
fn any_token() -> Token {
    Token { symbol: String::new(), decimals: 18 }
}

impl MaxPrice {
    /// What it is in `token`.
    ///
    /// # Errors
    /// When it is finer than the token, or too large.
    pub fn rate(&self, token: &Token) -> Result<Rate, ParseAmountError> {
        Rate::parse(&self.0, token)
    }
}

impl Coverage {
    /// What it is in `token`.
    ///
    /// # Errors
    /// When it is finer than the token, or too large.
    pub fn amount(&self, token: &Token) -> Result<Amount, ParseAmountError> {
        Amount::parse(&self.0, token)
    }
}

impl FromStr for MaxPrice {
    type Err = ParseAmountError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Rate::parse(text, &any_token()).map(|_| Self(text.to_owned()))
    }
}

impl FromStr for Coverage {
    type Err = ParseAmountError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Amount::parse(text, &any_token()).map(|_| Self(text.to_owned()))
    }
}

impl fmt::Display for MaxPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Parsed {
    /// The images, by service.
    pub fn images(&self) -> &BTreeMap<Label, Image> {
        &self.images
    }

    /// The secrets that services use, and where their contents are.
    pub fn secrets(&self) -> &BTreeMap<Name, SecretSource> {
        &self.secrets
    }

    /// What the publisher wants of providers.
    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// What was assumed, in sentences for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the pod uses in all.
    pub fn resources(&self) -> Resources {
        self.draft.resources()
    }

    /// Makes the pod. `find` is asked for each image that the file does not give the digest of.
    ///
    /// # Errors
    /// The first that `find` returns.
    pub fn resolve<E>(
        self,
        mut find: impl FnMut(&Label, &Image) -> Result<ImageRef, E>,
    ) -> Result<Pod, ResolveError<E>> {
        let Self { mut draft, images, .. } = self;
        for (name, service) in &mut draft.services {
            let Some(image) = images.get(name) else { continue };
            let reference = image.name.repository.clone();
            service.image = match image.name.digest.clone() {
                Some(digest) => ImageRef::Registry { digest, reference },
                None => find(name, image).map_err(|source| ResolveError::Image {
                    service: name.clone(),
                    image: image.name.clone(),
                    source,
                })?,
            };
        }
        Pod::try_from(draft).map_err(ResolveError::Invalid)
    }
}

const NETWORKS: &str =
    "every service of a pod shares one network, and other networks are not made; remove this";
const AUTOSCALING: &str = "autoscaling comes with the keeper and is not honoured yet; remove this";

const TOP_REFUSED: &[(&str, &str)] = &[
    ("configs", "configs are not mounted; use secrets, or put the file into the image"),
    ("include", "other files are not read; merge them with `docker compose config`"),
    ("models", "models are not provided; run one as a service"),
];

const SERVICE_REFUSED: &[(&str, &str)] = &[
    ("annotations", "annotations are not passed on; use labels"),
    ("attach", "there is no terminal to attach; use `roadstead logs`"),
    ("blkio_config", "disk bandwidth is the provider's to share out; remove this"),
    (
        "cap_add",
        "all capabilities are dropped on other people's machines; listen on a port above 1023 and run as a user",
    ),
    ("cgroup", "a container gets its own cgroup; remove this"),
    ("cgroup_parent", "a container gets its own cgroup; remove this"),
    ("configs", "configs are not mounted; use secrets, or put the file into the image"),
    (
        "container_name",
        "the provider names containers; services reach each other by the service's name",
    ),
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
    ("dns", "names are resolved by the provider; remove this"),
    ("dns_opt", "names are resolved by the provider; remove this"),
    ("dns_search", "names are resolved by the provider; remove this"),
    ("domainname", "only the host name can be set; use hostname"),
    ("extends", "other services are not inherited from; use an anchor and `<<`"),
    (
        "external_links",
        "containers outside the pod cannot be reached by name; use their public address",
    ),
    ("extra_hosts", "the hosts file is the provider's; use the address itself, or its DNS name"),
    ("gpus", "GPUs are not offered yet; remove this"),
    ("group_add", "groups are not added; set user to \"uid:gid\""),
    ("ipc", "a container gets its own IPC namespace; talk over the network"),
    ("isolation", "there are no Windows containers; remove this"),
    ("label_file", "write the labels into labels"),
    ("links", "services reach each other by the service's name; remove this"),
    ("logging", "the provider keeps the logs; use `roadstead logs`"),
    ("mac_address", "the network is the provider's; remove this"),
    ("mem_swappiness", "pods do not swap; remove this"),
    ("memswap_limit", "pods do not swap; use mem_limit"),
    ("models", "models are not provided; run one as a service"),
    (
        "network_mode",
        "the host's network is not yours; services of a pod share one network, and x-roadstead.ingress reaches it",
    ),
    ("oom_kill_disable", "a pod that uses more than its memory is killed; raise mem_limit"),
    ("oom_score_adj", "a pod that uses more than its memory is killed; raise mem_limit"),
    (
        "pid",
        "a container gets its own processes; run both programs in one container, with init: true",
    ),
    ("platform", "the image's digest fixes its platform; remove this"),
    ("post_start", "hooks are not run; do it in the entry point"),
    ("pre_stop", "hooks are not run; handle the stop_signal"),
    ("profiles", "every service runs; leave out what shall not"),
    ("provider", "other providers are not called; run the service as a container"),
    ("pull_policy", "images are pinned by their digest; remove this"),
    ("runtime", "the provider chooses the runtime; remove this"),
    ("shm_size", "use tmpfs: [\"/dev/shm:size=64m\"]"),
    ("stdin_open", "a pod has no terminal; use `roadstead shell`"),
    ("storage_opt", "use a volume, with its x-size"),
    ("sysctls", "the kernel's settings are the provider's; remove this"),
    ("tty", "a pod has no terminal; use `roadstead shell`"),
    ("ulimits", "limits of single processes are the provider's; use pids_limit and mem_limit"),
    ("use_api_socket", "the host's Docker is not yours; remove this"),
    ("userns_mode", "the user namespace is the provider's; remove this"),
    ("uts", "a container gets its own host name; use hostname"),
    ("volumes_from", "mount the same named volume in both services"),
    ("x-roadstead", "it belongs at the top of the file"),
];

const DEPLOY_REFUSED: &[(&str, &str)] = &[
    ("endpoint_mode", NETWORKS),
    ("labels", "labels of Swarm services are not passed on; use labels of the service"),
    ("placement", "use x-roadstead.providers"),
    ("restart_policy", "use restart"),
    ("rollback_config", "updates are the keeper's; remove this"),
    ("update_config", "updates are the keeper's; remove this"),
];

const VOLUME_REFUSED: &[(&str, &str)] = &[
    ("driver", "the provider makes the volume; remove this"),
    ("driver_opts", "the provider makes the volume; remove this"),
    ("external", "a pod brings its own volumes; remove this and write x-size"),
    ("labels", "a volume's labels are not passed on; remove this"),
    ("name", "the volume is known by its key; remove this"),
];

const SECRET_REFUSED: &[(&str, &str)] = &[
    ("content", "a secret in the file is none; use file or environment"),
    ("driver", "use file or environment"),
    ("external", "a pod brings its own secrets; use file or environment"),
    ("labels", "a secret's labels are not passed on; remove this"),
    ("name", "the secret is known by its key; remove this"),
    ("template_driver", "use file or environment"),
];

const PORT_REFUSED: &[(&str, &str)] = &[
    ("app_protocol", "ingress speaks HTTP; remove this"),
    ("host_ip", HOST_PORTS),
    ("mode", HOST_PORTS),
    ("name", "ports are known by their number; remove this"),
    ("published", HOST_PORTS),
];

const HOST_PORTS: &str =
    "hosts' ports are not yours; use x-roadstead.ingress and list the container's port alone";
const HOST_PATHS: &str =
    "the host's files are not yours; use a named volume, a secret, or put the file into the image";

impl Pod {
    /// Reads a Compose file with an `x-roadstead` block.
    ///
    /// # Errors
    /// Everything that is wrong with it, or cannot be honoured.
    pub fn from_compose(yaml: &str, surroundings: &dyn Surroundings) -> Result<Parsed, Errors> {
        let log = Log::default();
        let parsed = read(yaml, &|name| surroundings.variable(name), &log)
            .and_then(|tree| Reader { log: &log, surroundings }.file(&tree));
        match (parsed, Errors::of(log.faults.take())) {
            (Some(parsed), None) => {
                let mut notes = log.notes.take();
                notes.sort();
                Ok(Parsed { notes, ..parsed })
            }
            (_, Some(errors)) => Err(errors),
            (None, None) => Err(nothing()),
        }
    }
}

fn nothing() -> Errors {
    let fault = super::Fault { path: "compose file".into(), what: "there is nothing in it".into() };
    Errors::one(fault)
}

struct Reader<'a> {
    log: &'a Log,
    surroundings: &'a dyn Surroundings,
}

/// The declared secrets; `None` where the declaration is in error.
type Sources = BTreeMap<Name, Option<SecretSource>>;

/// What a service's volumes, short and long, come to.
#[derive(Default)]
struct Mounts {
    volumes: BTreeMap<AbsPath, Mount>,
    tmpfs: BTreeMap<AbsPath, Tmpfs>,
}

impl Reader<'_> {
    fn file(&self, tree: &serde_json::Value) -> Option<Parsed> {
        let root = At { value: tree, path: String::new(), log: self.log };
        if !tree.is_object() {
            self.log.fail("compose file", "it is no map; write services, with a service in it");
            return None;
        }
        let fields = root.fields()?;
        drop(fields.get("name"));
        drop(fields.get("version"));
        let mut parsed = Parsed {
            draft: Parts::default(),
            images: BTreeMap::new(),
            secrets: BTreeMap::new(),
            wishes: Wishes::default(),
            notes: Vec::new(),
        };
        let volumes = fields.get("volumes").map(|at| self.volumes(&at)).unwrap_or_default();
        let sources = fields.get("secrets").map(|at| self.secrets(&at)).unwrap_or_default();
        if let Some(at) = fields.get("services") {
            for (name, at) in at.entries() {
                let Some(name) = at.check(name.parse::<Label>()) else { continue };
                if let Some((service, image)) = self.service(&name, &at, &sources) {
                    parsed.images.extend(image.map(|image| (name.clone(), image)));
                    parsed.draft.services.insert(name, service);
                }
            }
        } else {
            self.log.fail("services", "there is none; a pod has one at least");
        }
        if let Some(at) = fields.get("networks") {
            for (name, at) in at.entries() {
                let plain =
                    at.value.is_null() || at.value.as_object().is_some_and(|map| map.is_empty());
                if name != "default" || !plain {
                    at.fail(NETWORKS);
                }
            }
        }
        if let Some(at) = fields.get("x-roadstead") {
            (parsed.wishes, parsed.draft.ingress) = self.block(&at);
        }
        fields.finish_extended(TOP_REFUSED);
        self.join(&mut parsed, volumes, &sources);
        Some(parsed)
    }

    /// Puts the declared volumes and secrets to their uses, and checks the whole.
    fn join(&self, parsed: &mut Parsed, volumes: BTreeMap<Name, Volume>, sources: &Sources) {
        let used: BTreeSet<Name> = parsed
            .draft
            .services
            .values()
            .flat_map(|service| service.secrets.values())
            .map(|file| file.source.clone())
            .collect();
        let found = sources.iter().filter(|(name, _)| used.contains(*name));
        parsed.secrets =
            found.filter_map(|(name, source)| Some((name.clone(), source.clone()?))).collect();
        parsed.draft.volumes = volumes;
        let broken: BTreeSet<String> = self
            .log
            .faults
            .borrow()
            .iter()
            .filter_map(|fault| fault.path.strip_prefix("services."))
            .filter_map(|rest| rest.split(['.', '[']).next().map(str::to_owned))
            .collect();
        let faults = parsed.draft.faults(&broken);
        let mut known = self.log.faults.borrow_mut();
        let fresh = |fault: &super::Fault| !known.iter().any(|other| other.path == fault.path);
        let fresh: Vec<_> = faults.into_iter().filter(fresh).collect();
        known.extend(fresh);
        let mounted = |name: &Name| {
            let services = parsed.draft.services.values();
            services.flat_map(|service| service.volumes.values()).any(|mount| mount.source == *name)
        };
        let unused: Vec<Name> =
            parsed.draft.volumes.keys().filter(|name| !mounted(name)).cloned().collect();
        for name in unused {
            parsed.draft.volumes.remove(&name);
            self.log.note(format!("volumes.{name}: no service mounts it, so it is left out"));
        }
    }

    fn volumes(&self, at: &At<'_>) -> BTreeMap<Name, Volume> {
        let mut volumes = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<Name>());
            let size = if at.value.is_null() {
                None
            } else {
                let Some(fields) = at.fields() else { continue };
                let size = fields.get("x-size");
                fields.finish(VOLUME_REFUSED);
                size
            };
            let size = match size {
                Some(size) => size.parse::<Bytes>(),
                None => {
                    at.fail("x-size is missing; a volume has a size that is paid for, as in { x-size: 1G }");
                    None
                }
            };
            // A volume of a bad size is still one, or its mounts would be errors, too.
            let size = size.unwrap_or(Bytes(*limits::VOLUME.start()));
            volumes.extend(name.map(|name| (name, Volume { size })));
        }
        volumes
    }

    fn secrets(&self, at: &At<'_>) -> Sources {
        let mut secrets = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<Name>());
            let source = self.secret_source(&at);
            secrets.extend(name.map(|name| (name, source)));
        }
        secrets
    }

    fn secret_source(&self, at: &At<'_>) -> Option<SecretSource> {
        let fields = at.fields()?;
        let file = fields.get("file").map(|at| at.text());
        let variable = fields.get("environment").map(|at| at.text());
        fields.finish(SECRET_REFUSED);
        match (file, variable) {
            (Some(file), None) => file.map(SecretSource::File),
            (None, Some(variable)) => variable.map(SecretSource::Environment),
            (None, None) => {
                at.fail("its contents are missing; write file: PATH or environment: NAME");
                None
            }
            (Some(_), Some(_)) => {
                at.fail("it has a file and an environment; remove one");
                None
            }
        }
    }

    fn service(
        &self,
        name: &Label,
        at: &At<'_>,
        sources: &Sources,
    ) -> Option<(Service, Option<Image>)> {
        let fields = at.fields()?;
        let image = self.image(&fields);
        let mounts = self.mounts(&fields);
        let service = Service {
            command: fields.get("command").and_then(|at| self.words(&at)),
            depends_on: fields.get("depends_on").map(|at| self.depends_on(&at)).unwrap_or_default(),
            entrypoint: fields.get("entrypoint").and_then(|at| self.words(&at)),
            environment: self.environment(&fields),
            healthcheck: fields.get("healthcheck").and_then(|at| self.healthcheck(&at)),
            hostname: fields.get("hostname").and_then(|at| at.parse()),
            image: placeholder()?,
            init: fields.get("init").and_then(|at| at.truth()).unwrap_or_default(),
            labels: self.labels(&fields),
            limits: self.limits(name, &fields),
            ports: self.ports(&fields),
            read_only: fields.get("read_only").and_then(|at| at.truth()).unwrap_or_default(),
            restart: self.restart(name, &fields),
            secrets: fields
                .get("secrets")
                .map(|at| self.secret_files(&at, sources))
                .unwrap_or_default(),
            stop_grace: fields.get("stop_grace_period").and_then(|at| self.seconds(&at)),
            stop_signal: fields.get("stop_signal").and_then(|at| at.parse()),
            tmpfs: mounts.tmpfs,
            user: fields.get("user").and_then(|at| at.parse()),
            volumes: mounts.volumes,
            working_dir: fields.get("working_dir").and_then(|at| path(&at)),
        };
        self.already_so(&fields);
        fields.finish_extended(SERVICE_REFUSED);
        Some((service, image))
    }

    /// What a pod has anyway may be written, and nothing else there.
    fn already_so(&self, fields: &Fields<'_>) {
        fields.only("privileged", &["false"], "a privileged container owns its host; remove this");
        fields.only("scale", &["1"], AUTOSCALING);
        if let Some(at) = fields.get("cap_drop") {
            // All are dropped anyway.
            drop(at.items());
        }
        for at in fields.get("security_opt").map(|at| at.items()).unwrap_or_default() {
            let said = at.text();
            let so = ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"];
            if said.is_some_and(|said| !so.contains(&said.as_str())) {
                at.fail("the provider confines the container; remove this");
            }
        }
        if let Some(at) = fields.get("networks") {
            let names: Vec<String> = match at.value.as_object() {
                Some(map) if map.values().all(serde_json::Value::is_null) => {
                    map.keys().cloned().collect()
                }
                Some(_) => vec![String::new()],
                None => at.items().iter().filter_map(At::text).collect(),
            };
            if names.iter().any(|name| name != "default") {
                at.fail(NETWORKS);
            }
        }
    }

    fn image(&self, fields: &Fields<'_>) -> Option<Image> {
        let built = fields.get("build");
        match (fields.get("image"), built) {
            (Some(at), built) => {
                let text = at.text()?;
                let name = at.check(text.parse())?;
                Some(Image { name, built: built.is_some() })
            }
            (None, Some(built)) => {
                built.fail("a provider does not build; write image: NAME beside it, and what you built is pushed");
                None
            }
            (None, None) => {
                fields.at.fail("image is missing; write it as in image: ghcr.io/acme/app:1.4");
                None
            }
        }
    }

    fn words(&self, at: &At<'_>) -> Option<Vec<String>> {
        if at.value.is_array() {
            return at.items().iter().map(At::value_text).collect();
        }
        let line = at.scalar()?;
        at.check(text::words(&line))
    }

    fn depends_on(&self, at: &At<'_>) -> BTreeMap<Label, Condition> {
        if at.value.is_array() {
            let names = at.items().into_iter().filter_map(|at| at.parse());
            return names.map(|name| (name, Condition::ServiceStarted)).collect();
        }
        let mut all = BTreeMap::new();
        for (name, at) in at.entries() {
            let Some(name) = at.check(name.parse::<Label>()) else { continue };
            let mut condition = Condition::ServiceStarted;
            if !at.value.is_null() {
                let Some(fields) = at.fields() else { continue };
                if let Some(at) = fields.get("condition") {
                    match at.text().as_deref() {
                        Some("service_started") | None => (),
                        Some("service_healthy") => condition = Condition::ServiceHealthy,
                        Some("service_completed_successfully") => {
                            at.fail("this condition is not honoured yet; do the work in the entry point, or wait with service_healthy");
                        }
                        Some(other) => at.fail(format!(
                            "{} is no condition; write service_started or service_healthy",
                            show(other)
                        )),
                    }
                }
                fields.only("required", &["true"], "every service runs; remove this");
                fields.only(
                    "restart",
                    &["false"],
                    "a service is not restarted with another; remove this",
                );
                fields.finish(&[]);
            }
            all.insert(name, condition);
        }
        all
    }

    fn environment(&self, fields: &Fields<'_>) -> BTreeMap<Variable, String> {
        let mut all = BTreeMap::new();
        for at in fields.get("env_file").map(|at| at.one_or_many()).unwrap_or_default() {
            for (name, value) in self.env_file(&at) {
                let Some(name) = at.check(name.parse::<Variable>()) else { continue };
                self.set(&at, name, value, &mut all);
            }
        }
        let Some(at) = fields.get("environment") else { return all };
        for (at, name, value) in pairs(&at) {
            let Some(name) = at.check(name.parse::<Variable>()) else { continue };
            self.set(&at, name, value, &mut all);
        }
        all
    }

    /// Sets a variable; one without a value takes that of the surroundings, and is left out where they have none.
    fn set(
        &self,
        at: &At<'_>,
        name: Variable,
        value: Option<String>,
        all: &mut BTreeMap<Variable, String>,
    ) {
        match value.or_else(|| self.surroundings.variable(name.as_str())) {
            Some(value) => {
                all.insert(name, value);
            }
            None => {
                at.note(&format!("variable {name} is not set, so the service does not get it"));
                all.remove(&name);
            }
        }
    }

    fn env_file(&self, at: &At<'_>) -> Vec<(String, Option<String>)> {
        let (file, required, raw) = if at.value.is_object() {
            let Some(fields) = at.fields() else { return Vec::new() };
            let file = fields.require("path", "write path: FILE").and_then(|at| at.text());
            let required = fields.get("required").and_then(|at| at.truth());
            fields.only("format", &["raw"], "this format is unknown; write raw, or remove it");
            let raw = fields.get("format").is_some();
            fields.finish(&[]);
            (file, required.unwrap_or(true), raw)
        } else {
            (at.text(), true, false)
        };
        let Some(file) = file else { return Vec::new() };
        let contents = match self.surroundings.read(&file) {
            Ok(contents) => contents,
            Err(_) if !required => return Vec::new(),
            Err(why) => {
                at.fail(format!("{} cannot be read: {why}", show(&file)));
                return Vec::new();
            }
        };
        if contents.len() > limits::FILE {
            at.fail(format!("{} is larger than {}", show(&file), limits::FILE));
            return Vec::new();
        }
        let lookup = |name: &str| self.surroundings.variable(name);
        let mut unset =
            |name: &str| at.note(&format!("variable {name} is not set and taken as empty"));
        let variables = text::env_file(&contents, raw, &lookup, &mut unset);
        at.check(variables.map_err(|err| format!("{}, {err}", file))).unwrap_or_default()
    }

    fn labels(&self, fields: &Fields<'_>) -> BTreeMap<LabelKey, String> {
        let Some(at) = fields.get("labels") else { return BTreeMap::new() };
        pairs(&at)
            .into_iter()
            .filter_map(|(at, key, value)| {
                Some((at.check(key.parse())?, value.unwrap_or_default()))
            })
            .collect()
    }

    fn healthcheck(&self, at: &At<'_>) -> Option<Healthcheck> {
        let fields = at.fields()?;
        let time = |name| fields.get(name).and_then(|at| self.milliseconds(&at));
        let mut check = Healthcheck {
            interval: time("interval"),
            retries: fields.get("retries").and_then(|at| at.whole()),
            start_period: time("start_period"),
            test: fields.get("test").and_then(|at| self.test(&at)),
            timeout: time("timeout"),
        };
        if fields.get("disable").and_then(|at| at.truth()) == Some(true) {
            check = Healthcheck { test: Some(Test::Disabled), ..Healthcheck::default() };
        }
        fields.finish(&[(
            "start_interval",
            "this needs a newer Docker than providers have to run; use interval",
        )]);
        (check != Healthcheck::default()).then_some(check)
    }

    fn test(&self, at: &At<'_>) -> Option<Test> {
        if at.value.is_string() {
            return at.text().map(Test::Shell);
        }
        if !at.value.is_array() {
            at.fail("write a line of text, or a list that begins with CMD, CMD-SHELL or NONE");
            return None;
        }
        let words: Option<Vec<String>> = at.items().iter().map(At::value_text).collect();
        let mut words = words?.into_iter();
        match (words.next().as_deref(), words.len()) {
            (Some("NONE"), 0) => Some(Test::Disabled),
            (Some("CMD"), 1..) => Some(Test::Exec(words.collect())),
            (Some("CMD-SHELL"), 1) => words.next().map(Test::Shell),
            (Some(_) | None, _) => {
                at.fail("write [\"CMD\", program, …], [\"CMD-SHELL\", line] or [\"NONE\"]");
                None
            }
        }
    }

    fn limits(&self, name: &Label, fields: &Fields<'_>) -> Limits {
        let mut cpu = fields.get("cpus").map(|at| (at.parse::<Cpu>(), at));
        let mut memory = fields.get("mem_limit").map(|at| (at.parse::<Bytes>(), at));
        let mut pids = fields.get("pids_limit").map(|at| (at.whole::<u32>(), at));
        let mut reserved_cpu = None;
        let mut reserved_memory =
            fields.get("mem_reservation").and_then(|at| Some((at.parse::<Bytes>()?, at)));
        let deploy = fields.get("deploy").and_then(|at| at.fields());
        if let Some(deploy) = deploy {
            deploy.only("replicas", &["1"], AUTOSCALING);
            deploy.only("mode", &["replicated"], AUTOSCALING);
            let resources = deploy.get("resources").and_then(|at| at.fields());
            deploy.finish(DEPLOY_REFUSED);
            if let Some(resources) = resources {
                if let Some(limits) = resources.get("limits").and_then(|at| at.fields()) {
                    replace(&mut cpu, limits.get("cpus").map(|at| (at.parse(), at)));
                    replace(&mut memory, limits.get("memory").map(|at| (at.parse(), at)));
                    replace(&mut pids, limits.get("pids").map(|at| (at.whole(), at)));
                    limits.finish(&[]);
                }
                if let Some(reserved) = resources.get("reservations").and_then(|at| at.fields()) {
                    reserved_cpu =
                        reserved.get("cpus").and_then(|at| Some((at.parse::<Cpu>()?, at)));
                    let memory = reserved.get("memory");
                    reserved_memory =
                        memory.and_then(|at| Some((at.parse::<Bytes>()?, at))).or(reserved_memory);
                    reserved.finish(&[
                        ("devices", "GPUs and other devices are not offered yet; remove this"),
                        ("generic_resources", "only cpus and memory can be had; remove this"),
                    ]);
                }
                resources.finish(&[]);
            }
        }
        let good = |at: &At<'_>, result| at.check(result).is_some();
        let cpu = cpu.map(|(cpu, at)| cpu.filter(|cpu| good(&at, cpu_in_range(*cpu))));
        let memory = memory
            .map(|(bytes, at)| bytes.filter(|b| good(&at, bytes_in_range(*b, &limits::MEMORY))));
        let pids =
            pids.and_then(|(pids, at)| pids.filter(|p| good(&at, in_range(p, &limits::PIDS))));
        let mut assumed = Vec::new();
        let cpu = cpu.unwrap_or_else(|| {
            assumed.push(format!("cpus: {}", Cpu(limits::DEFAULT_CPU)));
            Some(Cpu(limits::DEFAULT_CPU))
        });
        let memory = memory.unwrap_or_else(|| {
            assumed.push("memory: 256M".to_owned());
            Some(Bytes(limits::DEFAULT_MEMORY))
        });
        if !assumed.is_empty() {
            let assumed = assumed.join(" and ");
            self.log.note(format!("services.{name}: no limit is set, so it gets {assumed}"));
        }
        let limits = Limits {
            cpu: cpu.unwrap_or(Cpu(limits::DEFAULT_CPU)),
            memory: memory.unwrap_or(Bytes(limits::DEFAULT_MEMORY)),
            pids: pids.unwrap_or(limits::DEFAULT_PIDS),
        };
        if let Some((_, at)) = reserved_cpu.filter(|(cpu, _)| *cpu > limits.cpu) {
            at.fail(format!("more is reserved than the limit of {}; raise the limit", limits.cpu));
        }
        if let Some((_, at)) = reserved_memory.filter(|(memory, _)| *memory > limits.memory) {
            at.fail(format!(
                "more is reserved than the limit of {}; raise the limit",
                limits.memory
            ));
        }
        limits
    }

    fn ports(&self, fields: &Fields<'_>) -> BTreeSet<Port> {
        let mut ports = BTreeSet::new();
        for at in fields.get("ports").map(|at| at.items()).unwrap_or_default() {
            if !at.value.is_object() {
                self.port_range(&at, true, &mut ports);
                continue;
            }
            let Some(fields) = at.fields() else { continue };
            if let Some(at) = fields.require("target", "write target: 8080") {
                self.port_range(&at, true, &mut ports);
            }
            fields.only("protocol", &["tcp"], UDP_INGRESS);
            fields.finish(PORT_REFUSED);
        }
        for at in fields.get("expose").map(|at| at.items()).unwrap_or_default() {
            self.port_range(&at, false, &mut ports);
        }
        ports
    }

    fn port_range(&self, at: &At<'_>, published: bool, ports: &mut BTreeSet<Port>) {
        let Some(text) = at.scalar() else { return };
        if text.contains(':') {
            return at.fail(HOST_PORTS);
        }
        let (numbers, transport) = text.split_once('/').unwrap_or((&text, "tcp"));
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" if published => return at.fail(UDP_INGRESS),
            "udp" => Transport::Udp,
            other => return at.fail(format!("{} is not a transport; write tcp", show(other))),
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let range = port_number(first).and_then(|first| Ok((first, port_number(last)?)));
        let Some((first, last)) = at.check(range) else { return };
        if last < first || usize::from(last.get() - first.get()) >= limits::PORTS {
            return at.fail(format!(
                "{} is no range of at most {} ports",
                show(numbers),
                limits::PORTS
            ));
        }
        let numbers = (first.get()..=last.get()).filter_map(std::num::NonZeroU16::new);
        ports.extend(numbers.map(|number| Port { number, transport }));
    }

    fn restart(&self, name: &Label, fields: &Fields<'_>) -> Restart {
        let Some(at) = fields.get("restart") else {
            self.log.note(format!(
                "services.{name}: it stays down once it ends; write restart: unless-stopped to have it restarted"
            ));
            return Restart::No;
        };
        // YAML 1.1 reads `no` as false, and so do some who write it.
        match at.scalar().as_deref() {
            None => Restart::No,
            Some("no" | "false") => Restart::No,
            Some("always") => Restart::Always,
            Some("unless-stopped") => Restart::UnlessStopped,
            Some("on-failure") => Restart::OnFailure { max: None },
            Some(other) => {
                let max = other.strip_prefix("on-failure:").and_then(|max| max.parse().ok());
                if max.is_none() {
                    at.fail(format!(
                        "{} is no restart policy; write \"no\", always, unless-stopped, on-failure or on-failure:3",
                        show(other)
                    ));
                }
                Restart::OnFailure { max }
            }
        }
    }

    fn secret_files(&self, at: &At<'_>, sources: &Sources) -> BTreeMap<AbsPath, SecretFile> {
        let mut all = BTreeMap::new();
        for at in at.items() {
            let mut mode = None;
            let mut target = None;
            let source = if at.value.is_object() {
                let Some(fields) = at.fields() else { continue };
                let source =
                    fields.require("source", "write source: NAME").and_then(|at| at.parse());
                mode = fields.get("mode").and_then(|at| at.mode());
                target = fields.get("target").and_then(|at| Some((at.text()?, at)));
                fields.finish(&[
                    ("gid", "a secret belongs to the service's user; remove this"),
                    ("uid", "a secret belongs to the service's user; remove this"),
                ]);
                source
            } else {
                at.parse::<Name>()
            };
            let Some(source) = source else { continue };
            if !sources.contains_key(&source) {
                let hint = "declare it under secrets, with file or environment";
                at.fail(unknown("secret", source.as_str(), sources.keys(), hint));
                continue;
            }
            let (place, target_at) = match &target {
                Some((target, at)) if target.starts_with('/') => (target.clone(), at),
                Some((target, at)) => (format!("/run/secrets/{target}"), at),
                None => (format!("/run/secrets/{source}"), &at),
            };
            let Some(place) = target_at.check(place.parse::<AbsPath>()) else { continue };
            if target_at.check(mountable(&place, Mounted::Secret)).is_none() {
                continue;
            }
            let file = SecretFile { mode: mode.unwrap_or(0o444), source };
            if all.insert(place, file).is_some() {
                target_at.fail("another secret is there already; give it a target of its own");
            }
        }
        all
    }

    fn mounts(&self, fields: &Fields<'_>) -> Mounts {
        let mut mounts = Mounts::default();
        for at in fields.get("volumes").map(|at| at.items()).unwrap_or_default() {
            match at.value.is_object() {
                true => self.long_mount(&at, &mut mounts),
                false => self.short_mount(&at, &mut mounts),
            }
        }
        for at in fields.get("tmpfs").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(text) = at.text() else { continue };
            let (target, options) = text.split_once(':').unwrap_or((&text, ""));
            let mut tmpfs = Tmpfs { mode: 0o1777, size: Bytes(0) };
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=') {
                    Some(("size", size)) => tmpfs.size = at.check(size.parse()).unwrap_or_default(),
                    Some(("mode", mode)) => match u16::from_str_radix(mode, 8) {
                        Ok(mode) => tmpfs.mode = mode,
                        Err(_) => at.fail(format!("{} is no file mode such as 1777", show(mode))),
                    },
                    Some(_) | None => at.fail(format!(
                        "the option {} is not honoured; size and mode are",
                        show(option)
                    )),
                }
            }
            self.add_tmpfs(&at, target, tmpfs, &mut mounts);
        }
        mounts
    }

    fn add_tmpfs(&self, at: &At<'_>, target: &str, mut tmpfs: Tmpfs, mounts: &mut Mounts) {
        let Some(target) = at.check(absolute(target)) else { return };
        if at.check(mountable(&target, Mounted::Tmpfs)).is_none() {
            return;
        }
        if tmpfs.size.0 == 0 {
            tmpfs.size = Bytes(limits::DEFAULT_TMPFS);
            at.note(&format!("the tmpfs has no size, so {} is taken", tmpfs.size));
        }
        let size = at.check(bytes_in_range(tmpfs.size, &limits::TMPFS));
        let mode = at.check(mode_in_range(tmpfs.mode, 0o1777));
        if size.and(mode).is_none() {
            return;
        }
        if mounts.volumes.contains_key(&target) || mounts.tmpfs.insert(target, tmpfs).is_some() {
            at.fail("something is mounted there already; choose another place");
        }
    }

    fn add_volume(
        &self,
        at: &At<'_>,
        source: &str,
        target: &str,
        read_only: bool,
        mounts: &mut Mounts,
    ) {
        if source.starts_with(['.', '/', '~', '\\']) || source.contains(['/', '\\']) {
            return at.fail(HOST_PATHS);
        }
        let Some(source) = at.check(source.parse::<Name>()) else { return };
        let Some(target) = at.check(absolute(target)) else { return };
        if at.check(mountable(&target, Mounted::Volume)).is_none() {
            return;
        }
        let mount = Mount { read_only, source };
        if mounts.tmpfs.contains_key(&target) || mounts.volumes.insert(target, mount).is_some() {
            at.fail("something is mounted there already; choose another place");
        }
    }

    fn short_mount(&self, at: &At<'_>, mounts: &mut Mounts) {
        let Some(text) = at.text() else { return };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [target] => {
                let target = target.to_owned();
                return at.fail(format!("the volume has no name; write it as in data:{target}"));
            }
            [source, target] => (*source, *target, ""),
            [source, target, options] => (*source, *target, *options),
            _ => {
                return at.fail(format!("{} is no volume; write it as in data:/data", show(&text)));
            }
        };
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => read_only = true,
                "rw" => (),
                other => {
                    at.fail(format!("the option {} is not honoured; ro and rw are", show(other)))
                }
            }
        }
        self.add_volume(at, source, target, read_only, mounts);
    }

    fn long_mount(&self, at: &At<'_>, mounts: &mut Mounts) {
        let Some(fields) = at.fields() else { return };
        let kind =
            fields.require("type", "write type: volume or type: tmpfs").and_then(|at| at.text());
        let source = fields.get("source").and_then(|at| at.text());
        let target = fields.require("target", "write target: /data").and_then(|at| at.text());
        let read_only = fields.get("read_only").and_then(|at| at.truth()).unwrap_or_default();
        let mut tmpfs = Tmpfs { mode: 0o1777, size: Bytes(0) };
        if let Some(fields) = fields.get("tmpfs").and_then(|at| at.fields()) {
            tmpfs.size = fields.get("size").and_then(|at| at.parse()).unwrap_or_default();
            tmpfs.mode = fields.get("mode").and_then(|at| at.mode()).unwrap_or(tmpfs.mode);
            fields.finish(&[]);
        }
        fields.finish(&[
            ("bind", HOST_PATHS),
            ("consistency", "this is for Docker Desktop; remove it"),
            ("image", "images are not mounted; copy from it when you build"),
            ("volume", "nocopy and subpath are not honoured; remove this"),
        ]);
        let Some(target) = target else { return };
        match (kind.as_deref(), source) {
            (Some("volume"), Some(source)) => {
                self.add_volume(at, &source, &target, read_only, mounts);
            }
            (Some("volume"), None) => at.fail("the volume has no name; write source: NAME"),
            (Some("tmpfs"), None) if !read_only => self.add_tmpfs(at, &target, tmpfs, mounts),
            (Some("tmpfs"), _) => {
                at.fail("a tmpfs has no source and is not read_only; remove them")
            }
            (Some("bind"), _) => at.fail(HOST_PATHS),
            (Some(other), _) => {
                at.fail(format!("{} cannot be mounted; write volume or tmpfs", show(other)));
            }
            (None, _) => (),
        }
    }

    fn block(&self, at: &At<'_>) -> (Wishes, BTreeMap<Host, Target>) {
        let mut wishes = Wishes::default();
        let mut ingress = BTreeMap::new();
        let Some(fields) = at.fields() else { return (wishes, ingress) };
        for (host, at) in fields.get("ingress").map(|at| at.entries()).unwrap_or_default() {
            let host = at.check(host.parse::<Host>());
            let target = self.target(&at);
            ingress.extend(host.zip(target));
        }
        if let Some(price) = fields.get("price").and_then(|at| at.fields()) {
            wishes.max_price = price.get("max").and_then(|at| at.parse());
            price.finish(&[]);
        }
        if let Some(at) = fields.get("providers") {
            wishes.providers = self.criteria(&at);
        }
        if let Some(at) = fields.get("sla") {
            wishes.sla = self.sla(&at);
        }
        fields.finish(&[("scale", AUTOSCALING)]);
        (wishes, ingress)
    }

    fn target(&self, at: &At<'_>) -> Option<Target> {
        let text = at.text()?;
        let Some((service, port)) = text.split_once(':') else {
            at.fail(format!("{} is no target; write it as in \"web:8080\"", show(&text)));
            return None;
        };
        let service = at.check(service.parse())?;
        let port = at.check(port_number(port))?;
        Some(Target { port, service })
    }

    fn criteria(&self, at: &At<'_>) -> Criteria {
        let mut criteria = Criteria::default();
        let Some(fields) = at.fields() else { return criteria };
        for at in fields.get("region").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(region) = at.text() else { continue };
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if region.is_empty() || region.len() > 63 || !region.chars().all(plain) {
                at.fail(format!("{} is no region such as eu-west", show(&region)));
            } else {
                criteria.regions.insert(region);
            }
        }
        for at in fields.get("address").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(text) = at.text() else { continue };
            criteria.addresses.extend(at.check(address(&text)));
        }
        fields.finish(&[
            ("spread", "a pod runs once; spreading comes with the keeper: remove this"),
            (
                "where",
                "expressions come with the keeper and are not honoured yet; use region or address",
            ),
        ]);
        criteria
    }

    fn sla(&self, at: &At<'_>) -> SlaWishes {
        let Some(fields) = at.fields() else { return SlaWishes::default() };
        let time = |name| {
            let at = fields.get(name)?;
            let seconds = self.seconds(&at)?;
            // The chain keeps them in 24 bits.
            if seconds >= 1 << 24 {
                at.fail("this is longer than 194 days; write less");
                return None;
            }
            Some((seconds, at))
        };
        let (grace, full, response) = (time("grace"), time("full"), time("response"));
        if let (Some((grace, _)), Some((full, at))) = (&grace, &full)
            && full <= grace
        {
            at.fail(
                "the whole coverage is due at once with the grace or before; write more than grace",
            );
        }
        let coverage = fields.get("coverage").and_then(|at| at.parse());
        fields.finish(&[]);
        let [grace, full, response] = [grace, full, response].map(|time| time.map(|(s, _)| s));
        SlaWishes { coverage, grace, full, response }
    }

    fn milliseconds(&self, at: &At<'_>) -> Option<u64> {
        let text = at.scalar()?;
        at.check(text::milliseconds(&text))
    }

    /// Whole seconds, rounded up: nobody gets less time than was asked for.
    fn seconds(&self, at: &At<'_>) -> Option<u32> {
        let seconds = self.milliseconds(at)?.div_ceil(1_000);
        at.check(u32::try_from(seconds).map_err(|_err| "this is too long; write less"))
    }
}

const UDP_INGRESS: &str = "only TCP comes in from outside; list UDP between services under expose";

/// Stands for an image until `resolve`; nobody sees it.
fn placeholder() -> Option<ImageRef> {
    let digest: Digest = format!("sha256:{:064}", 0).parse().ok()?;
    let reference: Repository = "docker.io/library/unresolved".parse().ok()?;
    Some(ImageRef::Registry { digest, reference })
}

/// The later limit wins; two that differ are refused, as Compose refuses them.
fn replace<'a, T: PartialEq>(
    slot: &mut Option<(Option<T>, At<'a>)>,
    later: Option<(Option<T>, At<'a>)>,
) {
    let Some((value, at)) = later else { return };
    if let Some((Some(first), first_at)) = slot
        && value.as_ref().is_some_and(|value| value != first)
    {
        first_at.fail(format!("{} says otherwise; remove one", at.path));
    }
    *slot = Some((value, at));
}

/// The entries of a map or of a list of `NAME=VALUE`.
fn pairs<'a>(at: &At<'a>) -> Vec<(At<'a>, String, Option<String>)> {
    if at.value.is_array() {
        let items = at.items().into_iter().filter_map(|at| {
            let text = at.text()?;
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            Some((at, name, value))
        });
        return items.collect();
    }
    let entries = at.entries().into_iter().filter_map(|(name, at)| {
        let value = match at.value.is_null() {
            true => None,
            false => Some(at.value_text()?),
        };
        Some((at, name.to_owned(), value))
    });
    entries.collect()
}

fn path(at: &At<'_>) -> Option<AbsPath> {
    let text = at.text()?;
    at.check(absolute(&text))
}

/// A path, without the `/` at its end that people write.
fn absolute(text: &str) -> Result<AbsPath, Invalid> {
    match text.trim_end_matches('/') {
        "" if text.starts_with('/') => "/".parse(),
        trimmed => trimmed.parse(),
    }
}

/// An address; one in mixed case has to carry the right checksum.
fn address(text: &str) -> Result<Address, String> {
    let mixed = text.bytes().any(|b| b.is_ascii_uppercase())
        && text.trim_start_matches("0x").bytes().any(|b| b.is_ascii_lowercase());
    match mixed {
        true => Address::parse_checksummed(text, None)
            .map_err(|_err| format!("{} fails its checksum; copy the address anew", show(text))),
        false => text
            .parse()
            .map_err(|_err| format!("{} is no address (0x and 40 hexadecimal digits)", show(text))),
    }
}
