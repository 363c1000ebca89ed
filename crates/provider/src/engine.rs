//! Docker: a pod as containers on a network of its own, with volumes of an exact size.
//!
//! Everything that is made carries labels which say whose it is, and is found again by them alone.

mod abilities;
mod decrypted;
mod files;
mod gpus;
mod images;
mod layers;
mod networks;
mod operate;
mod readiness;
mod spec;
mod swarm;
mod terminal;
mod volumes;

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
};

use alloy::primitives::{Address, B256, hex};
use bollard::{
    Docker,
    errors::Error as DockerError,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummaryStateEnum},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
        ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptions,
    },
};
use futures::{StreamExt, TryStreamExt, future::join_all, stream::BoxStream};
use protocol::pod::{Label, Name, Network, Pod, PodHash};
use seal::Secrets;
use tokio::sync::Semaphore;

pub(crate) use self::{
    abilities::{Abilities, NoRuntime},
    decrypted::DecryptedName,
    images::Image,
    operate::Program,
    readiness::{Readiness, health, is_up},
    swarm::NotInCluster,
};
use self::{
    decrypted::UnderWay,
    gpus::Gpus,
    images::Given,
    networks::DEFAULT_NETWORK,
    readiness::{ended_well, listens, parse_time},
    spec::Place,
    swarm::{OF_TASK, Swarm, Task},
};
pub use self::{
    gpus::GpuError,
    swarm::nodes::{ClusterError, NodeView, nodes, set_drained},
};
use crate::{
    config::{Config, NetworkRange},
    egress::Egress,
    firewall::{self, FirewallError},
    leases::PodKey,
    records::Records,
    registry::Registries,
    volumes::{VolumeError, Volumes},
    wire::{LogLine, LogStream},
};

/// Of how many containers logs are archived at a time.
const ARCHIVES: usize = 2;

/// Something that the engine did not do; nothing follows from it about what runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("Docker does not answer, or refuses")]
    Docker(#[from] DockerError),
    #[error("image {image} cannot be had: {why}")]
    Image { image: String, why: String },
    #[error("image {0} was not pushed to this provider")]
    NotPushed(String),
    #[error(
        "service {service}: user {user} is not in the image's /etc/passwd and /etc/group; give it by number"
    )]
    User { service: Label, user: String },
    #[error("service {service}: its program cannot be run: {why}")]
    Program { service: Label, why: String },
    #[error(
        "service {service}: its image declares {paths} as volumes; mount a volume or a tmpfs there, or give it storage_opt.size"
    )]
    Declared { service: Label, paths: String },
    #[error(
        "service {service}: what it writes cannot be bounded here: {why}; give it read_only: true"
    )]
    Unbounded { service: Label, why: String },
    #[error(transparent)]
    Runtime(#[from] NoRuntime),
    #[error("service {service}: {count} GPUs are needed, and not as many are free at the moment")]
    NoGpu { service: Label, count: u32 },
    #[error(transparent)]
    NotInCluster(#[from] NotInCluster),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("it is on no machine of the cluster yet: {0}")]
    Unplaced(String),
    #[error("what ran before has not stopped yet")]
    Lingers,
    #[error("machine {0} does not answer")]
    Silent(String),
    #[error("there is no free network left for the pod")]
    NoNetwork,
    #[error("the pod could not be fenced in")]
    Firewall(#[from] FirewallError),
    #[error("a volume could not be made")]
    Volume(#[from] VolumeError),
    #[error("the secrets could not be laid down")]
    Secrets(#[source] std::io::Error),
    #[error("secret {0} was not sent along")]
    SecretMissing(String),
    #[error("service {0}: its container is gone, and making it anew takes the key of its image")]
    Locked(Label),
    #[error("Docker started the program without its output")]
    NotAttached,
}

/// The engine, as one provider uses it.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    docker: Docker,
    /// Runs the pods of leases, where this is a cluster; then the engine is a manager of it.
    swarm: Option<Arc<Swarm>>,
    owner: Owner,
    range: NetworkRange,
    dns: Vec<Ipv4Addr>,
    volumes: Volumes,
    registries: Registries,
    given: Given,
    egress: Egress,
    gpus: Gpus,
    secrets: PathBuf,
    /// Where the logs of containers that are removed go.
    records: Arc<Records>,
    archiving: Arc<Semaphore>,
    /// Decrypted images that starts are about to use.
    under_way: UnderWay,
    /// Where the engine listens, if that is a socket of this machine.
    socket: Option<PathBuf>,
    /// A file that is as old as the engine.
    pid: PathBuf,
    /// Why it cannot bound what containers write, if it cannot.
    unbounded: Option<String>,
    /// What it can do beyond what every engine can.
    abilities: Abilities,
}

/// Whose pods they are: one engine may serve several providers, and one key several chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) provider: Address,
    pub(crate) chain_id: u64,
    pub(crate) leases: Address,
}

/// What there is of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// The block in which its opening was seen.
    pub(crate) block: u64,
    /// Its containers, by the pod that they are of and the service: while a lease changes, two pods are there.
    pub(crate) pods: BTreeMap<PodHash, BTreeMap<String, Container>>,
}

impl Found {
    /// The containers of one pod.
    pub(crate) fn of(&self, pod: PodHash) -> BTreeMap<String, Container> {
        self.pods.get(&pod).cloned().unwrap_or_default()
    }

    /// All containers.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pods.values().flat_map(BTreeMap::values)
    }
}

/// One container of a pod.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) state: ContainerSummaryStateEnum,
    pub(crate) ip: Option<Ipv4Addr>,
    /// Whether it ended with the engine, not by itself, and has to be started again.
    pub(crate) lost: bool,
    /// Where it is and how it fares, if it is a swarm's. Then it has no address that leads there.
    pub(crate) task: Option<Box<Task>>,
}

/// Everything that is needed to have a pod.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) key: PodKey,
    pub(crate) block: u64,
    pub(crate) pod: &'a Pod,
    pub(crate) hash: PodHash,
    /// Its secrets, opened.
    pub(crate) secrets: &'a Secrets,
}

/// Where the services of a pod are started.
#[derive(Debug)]
pub(crate) struct Stage {
    images: BTreeMap<Label, Image>,
    /// The engine's networks, by the pod's, and the first address of each.
    networks: BTreeMap<Name, (String, Ipv4Addr)>,
}

impl Owner {
    fn labels(self) -> [(&'static str, String); 2] {
        let market = format!("{}:{}", self.chain_id, self.leases);
        [("roadstead.provider", self.provider.to_string()), ("roadstead.market", market)]
    }
}

impl PodKey {
    /// What the names of all its parts begin with.
    pub(crate) fn prefix(&self) -> String {
        format!("rs-{}-{}", self.lease, self.short())
    }

    /// What tells the lease's opening from others, in names that may not be long.
    pub(crate) fn short(&self) -> String {
        hex::encode(&self.opening[..6])
    }

    /// What the names of what belongs to one of its pods begin with.
    fn of(&self, pod: PodHash) -> String {
        format!("{}-{}", self.prefix(), hex::encode(&pod.0[..3]))
    }
}

impl Engine {
    /// The engine at the local socket.
    pub(crate) async fn connect(
        owner: Owner,
        config: &Config,
        volumes: Volumes,
        registries: Registries,
        records: Arc<Records>,
    ) -> Result<Self, EngineError> {
        let host = config.docker.as_deref().unwrap_or(terminal::DEFAULT);
        let docker = Docker::connect_with_host(host)?.negotiate_version().await?;
        let given = Given::open(&config.data, config.pushed.0).map_err(VolumeError::Io)?;
        let socket = terminal::socket(host);
        let info = docker.info().await?;
        let swarm = Swarm::join(&docker, &info, config, owner.provider).await?.map(Arc::new);
        let abilities = Abilities::of(&info);
        let root = info.docker_root_dir.map(PathBuf::from);
        let root = root.filter(|root| socket.is_some() && root.is_dir());
        let unbounded = layers::unbounded(info.driver.as_deref(), root.as_deref());
        if let Some(why) = &unbounded {
            tracing::warn!("only services with read_only: true are taken: {why}");
        }
        Ok(Self {
            docker,
            swarm,
            owner,
            range: config.networks,
            dns: config.dns.clone(),
            volumes,
            registries,
            given,
            egress: Egress::new(config.egress, Arc::clone(&records)),
            gpus: Gpus::new(&config.gpus),
            secrets: config.run.join("secrets"),
            records,
            archiving: Arc::new(Semaphore::new(ARCHIVES)),
            under_way: UnderWay::default(),
            socket,
            pid: config.engine_pid.clone(),
            unbounded,
            abilities,
        })
    }

    /// What it can do beyond what every engine can.
    pub(crate) fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// Where the engine keeps its images and containers, where that is on this machine.
    pub(crate) async fn root(&self) -> Option<PathBuf> {
        let root = PathBuf::from(self.docker.info().await.ok()?.docker_root_dir?);
        (self.socket.is_some() && root.is_dir()).then_some(root)
    }

    fn mine(&self) -> HashMap<String, Vec<String>> {
        let labels = self.owner.labels().map(|(key, value)| format!("{key}={value}"));
        HashMap::from([("label".into(), labels.to_vec())])
    }

    fn labels(&self, key: PodKey, block: u64) -> HashMap<String, String> {
        let pod = [
            ("roadstead.lease", key.lease.to_string()),
            ("roadstead.opening", key.opening.to_string()),
            ("roadstead.block", block.to_string()),
        ];
        let labels = self.owner.labels().into_iter().chain(pod);
        labels.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Everything of this provider's that is there.
    pub(crate) async fn pods(&self) -> Result<BTreeMap<PodKey, Found>, EngineError> {
        let mut pods: BTreeMap<PodKey, Found> = BTreeMap::new();
        let options = ListNetworksOptionsBuilder::new().filters(&self.mine()).build();
        for network in self.docker.list_networks(Some(options)).await? {
            found(&mut pods, network.labels.as_ref());
        }
        let options = ListVolumesOptionsBuilder::new().filters(&self.mine()).build();
        let volumes = self.docker.list_volumes(Some(options)).await?;
        for volume in volumes.volumes.unwrap_or_default() {
            found(&mut pods, Some(&volume.labels));
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.mine()).build();
        for summary in self.docker.list_containers(Some(options)).await? {
            let labels = summary.labels.unwrap_or_default();
            if labels.contains_key(OF_TASK) {
                continue;
            }
            let Some(found) = found(&mut pods, Some(&labels)) else { continue };
            let (Some(id), Some(service)) = (summary.id, labels.get("roadstead.service")) else {
                continue;
            };
            let pod = pod_of(&labels);
            let networks = summary.network_settings.and_then(|settings| settings.networks);
            let ip = networks.and_then(|networks| {
                // On whichever network: the host reaches it on all of them.
                networks.into_values().filter_map(|n| n.ip_address?.parse().ok()).min()
            });
            let state = summary.state.unwrap_or(ContainerSummaryStateEnum::EMPTY);
            let lost = state == ContainerSummaryStateEnum::EXITED && self.is_lost(&id).await?;
            let container = Container { id, state, ip, lost, task: None };
            let pod = found.pods.entry(pod.unwrap_or_default()).or_default();
            pod.insert(service.clone(), container);
        }
        let Some(swarm) = &self.swarm else { return Ok(pods) };
        for (labels, container) in swarm.services(&self.mine()).await? {
            let Some(found) = found(&mut pods, Some(&labels)) else { continue };
            let Some(service) = labels.get("roadstead.service") else { continue };
            let pod = pod_of(&labels);
            let pod = found.pods.entry(pod.unwrap_or_default()).or_default();
            pod.extend(container.map(|container| (service.clone(), container)));
        }
        Ok(pods)
    }

    /// Whether no provider at all has a pod on this engine.
    pub(crate) async fn is_unused(&self) -> Result<bool, EngineError> {
        let any = HashMap::from([("label".to_owned(), vec!["roadstead.provider".to_owned()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&any).build();
        Ok(self.docker.list_networks(Some(options)).await?.is_empty())
    }

    /// Whether a container ended before the engine was last started, that is, with it.
    async fn is_lost(&self, id: &str) -> Result<bool, EngineError> {
        let Ok(started) = std::fs::metadata(&self.pid).and_then(|meta| meta.modified()) else {
            return Ok(false);
        };
        let state = self.docker.inspect_container(id, None).await?.state.unwrap_or_default();
        let ended = state.finished_at.and_then(|text| parse_time(&text));
        Ok(ended.is_some_and(|ended| ended <= started))
    }

    /// Where images are pulled from.
    pub(crate) fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Makes what the services of a pod need: networks and volumes. What is there already is left alone.
    pub(crate) async fn prepare(
        &self,
        order: &Order<'_>,
        images: BTreeMap<Label, Image>,
    ) -> Result<Stage, EngineError> {
        self.abilities.suit(order.pod)?;
        firewall::ensure().await?;
        let mut wanted = order.pod.networks();
        // Also where no service is on it: a pod is known by it.
        let default: Option<Name> = DEFAULT_NETWORK.parse().ok();
        wanted.extend(
            default
                .filter(|name| !wanted.contains_key(name))
                .map(|name| (name, Network::default())),
        );
        if let Some(swarm) = self.swarm_of(order.key) {
            return Box::pin(self.prepare_in(swarm, order, images, wanted)).await;
        }
        let mut networks = BTreeMap::new();
        for (name, network) in wanted {
            let base = self.network(order, &name, network).await?;
            networks.insert(name.clone(), (order.key.network(order.hash, &name), base));
        }
        let bridges = self.bridges(order.key, order.hash, order.pod);
        self.egress.limit(order.key, order.pod.egress(), &bridges).await?;
        self.volumes(order, &images).await?;
        Ok(Stage { images, networks })
    }

    /// Has one service run: makes its container where there is none, and starts it where it does not run. What is right
    /// already is left alone.
    pub(crate) async fn start(
        &self,
        order: &Order<'_>,
        stage: &Stage,
        label: &Label,
    ) -> Result<(), EngineError> {
        let services = order.pod.services();
        let (Some(service), Some(image)) = (services.get(label), stage.images.get(label)) else {
            return Ok(());
        };
        let here = self.pods().await?.remove(&order.key).unwrap_or_default().of(order.hash);
        let there = here.get(label.as_str());
        if there.is_some_and(|container| is_up(container, service)) {
            return Ok(());
        }
        if let Some(swarm) = self.swarm_of(order.key) {
            return Box::pin(self.start_in(swarm, order, stage, label, (service, image))).await;
        }
        // Addresses follow the order of the names, so they stay the same as long as the pod does.
        let number = services.keys().zip(2_u32..).find(|(name, _)| *name == label);
        let number = number.map_or(2, |(_, number)| number);
        let attached: Vec<_> = service
            .attachments()
            .into_iter()
            .filter_map(|(name, attachment)| {
                let (network, base) = stage.networks.get(&name)?;
                let ip = Ipv4Addr::from(u32::from(*base) + number);
                Some((network.clone(), spec::endpoint(label, &attachment, ip)))
            })
            .collect();
        // After a restart of the machine they are not in memory any more.
        let mut files = self.lay_files(order, label, service, image).await?;
        let ips = attached
            .iter()
            .filter_map(|(_, endpoint)| endpoint.ipam_config.as_ref()?.ipv4_address.as_deref());
        files.extend(self.lay_names(order, label, service, &ips.collect::<Vec<_>>())?);
        let id = match there {
            Some(container) => container.id.clone(),
            // It went since its image was looked for: what is made anew takes the key anew.
            None if image.is_used_up => return Err(EngineError::Locked(label.clone())),
            None => {
                let mut labels = self.labels(order.key, order.block);
                labels.insert("roadstead.service".into(), label.to_string());
                labels.insert("roadstead.pod".into(), order.hash.to_string());
                let picked = self.pick_gpus(order, label, service.limits.gpus).await?;
                labels.extend(picked.label());
                let place = Place {
                    prefix: &order.key.prefix(),
                    network: attached.first().cloned(),
                    dns: &self.dns,
                    image: &image.id,
                    image_entrypoint: &image.entrypoint,
                    files: &files,
                    gpus: &picked.gpus,
                    labels,
                };
                let name = format!("{}-{label}", order.key.of(order.hash));
                self.create(&name, spec::container(label, service, place)).await?
            }
        };
        match self.bound(label, service, &id).await {
            Err(err @ EngineError::Volume(VolumeError::Lost(_))) => {
                // The next try makes another one.
                self.remove_containers(&[&id]).await?;
                return Err(err);
            }
            bounded => bounded?,
        }
        self.attach(&id, attached).await?;
        match self.docker.start_container(&id, None).await {
            // Docker's way to say that the program is not in the image, or not one.
            Err(DockerError::DockerResponseServerError { status_code: 400, message }) => {
                Err(EngineError::Program { service: label.clone(), why: message })
            }
            started => Ok(started?),
        }
    }

    async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        Ok(self.docker.create_container(Some(options), body).await?.id)
    }

    /// Freezes or thaws a pod: all of it that answers, also where something does not.
    pub(crate) async fn pause(&self, found: &Found, freeze: bool) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for container in found.containers() {
            let is_paused = container.state == ContainerSummaryStateEnum::PAUSED;
            let is_running = container.state == ContainerSummaryStateEnum::RUNNING;
            let done = async {
                if freeze && is_running {
                    self.of(container)?.pause_container(&container.id).await?;
                } else if !freeze && is_paused {
                    self.of(container)?.unpause_container(&container.id).await?;
                }
                Ok(())
            };
            outcome = outcome.and(done.await);
        }
        outcome
    }

    /// Stops the containers of one pod of a lease.
    pub(crate) async fn stop(&self, key: PodKey, pod: PodHash) -> Result<(), EngineError> {
        let containers = self.pods().await?.remove(&key).unwrap_or_default().of(pod);
        self.stop_containers(containers.values()).await;
        match self.swarm_of(key) {
            Some(swarm) => Box::pin(self.stop_in(swarm, key, pod)).await,
            None => Ok(()),
        }
    }

    async fn stop_containers(&self, containers: impl Iterator<Item = &Container>) {
        join_all(containers.map(|container| async {
            let Ok(docker) = self.of(container) else { return };
            // A frozen container cannot be stopped; and one that does not stop is killed when it is removed.
            let _not_frozen = docker.unpause_container(&container.id).await;
            // A swarm stops its own, and would run another one in place of each that it did not stop itself.
            if container.task.is_none() {
                let _killed_later = docker.stop_container(&container.id, None).await;
            }
        }))
        .await;
    }

    /// Removes the containers, networks and secrets of those pods of a lease that are `unwanted`; its volumes stay.
    pub(crate) async fn retire(
        &self,
        key: PodKey,
        unwanted: impl Fn(PodHash) -> bool,
    ) -> Result<(), EngineError> {
        let found = self.pods().await?.remove(&key).unwrap_or_default();
        let mut containers = Vec::new();
        for (_, pod) in found.pods.iter().filter(|(hash, _)| unwanted(**hash)) {
            containers.extend(pod.values());
        }
        self.stop_containers(containers.iter().copied()).await;
        for (_, pod) in found.pods.iter().filter(|(hash, _)| unwanted(**hash)) {
            let services = pod.iter().map(|(name, container)| (name.as_str(), container));
            self.keep_logs(key, services).await;
        }
        if let Some(swarm) = self.swarm_of(key) {
            Box::pin(self.retire_in(swarm, key, &unwanted)).await?;
            containers.retain(|container| container.task.is_none());
        }
        let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        self.remove_containers(&ids).await?;
        let options = ListNetworksOptionsBuilder::new().filters(&self.mine()).build();
        for network in self.docker.list_networks(Some(options)).await? {
            let labels = network.labels.as_ref();
            let pod = labels.and_then(pod_of);
            if !is_of(labels, key) || !unwanted(pod.unwrap_or_default()) {
                continue;
            }
            match std::fs::remove_dir_all(self.secrets.join(key.of(pod.unwrap_or_default()))) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    return Err(EngineError::Secrets(err));
                }
                _gone => (),
            }
            if let Some(bridge) = networks::bridge_of(&network) {
                self.egress.release(key, &bridge).await?;
            }
            // Last, because by its network a pod is found again where this is broken off.
            gone(self.docker.remove_network(&network.name.unwrap_or_default()).await)?;
        }
        Ok(())
    }

    /// What leases may send, and sent.
    pub(crate) fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Removes everything of a lease, its volumes included.
    pub(crate) async fn remove(&self, key: PodKey) -> Result<(), EngineError> {
        self.retire(key, |_any| true).await?;
        self.egress.forget(key).await?;
        let prefix = key.prefix();
        let options = ListVolumesOptionsBuilder::new().filters(&self.mine()).build();
        let volumes = self.docker.list_volumes(Some(options)).await?.volumes.unwrap_or_default();
        for volume in volumes.iter().filter(|volume| is_of(Some(&volume.labels), key)) {
            gone(self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await)?;
        }
        for name in self.volumes.names().map_err(VolumeError::Io)? {
            if name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('-')) {
                self.volumes.remove(&name).await?;
            }
        }
        Ok(())
    }

    async fn remove_containers(&self, ids: &[&str]) -> Result<(), EngineError> {
        for id in ids {
            let layer = self.layer_of(id).await?;
            if let Some(layer) = &layer {
                layer.release()?;
            }
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            gone(self.docker.remove_container(id, Some(options)).await)?;
            let folder = layer.and_then(|layer| layer.folder);
            self.volumes.uncover(id, folder.as_deref()).await?;
        }
        Ok(())
    }

    /// What the engine knows of a container.
    pub(crate) async fn details(
        &self,
        container: &Container,
    ) -> Result<ContainerInspectResponse, EngineError> {
        Ok(self.of(container)?.inspect_container(&container.id, None).await?)
    }

    /// What a container wrote: the last `tail` lines since `since` (Unix seconds), and what follows.
    pub(crate) fn logs(
        &self,
        service: String,
        container: &Container,
        follow: bool,
        tail: Option<u32>,
        since: i32,
    ) -> BoxStream<'static, Result<LogLine, DockerError>> {
        // What is on no machine yet has written nothing.
        let Ok(docker) = self.of(container) else { return futures::stream::empty().boxed() };
        let tail = tail.map_or("all".into(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(follow)
            .since(since)
            .tail(&tail)
            .build();
        let lines = docker.logs(&container.id, Some(options));
        lines.map_ok(move |output| log_line(&service, &output)).boxed()
    }
}

/// The place in `pods` of the pod that the labels name.
fn found<'a>(
    pods: &'a mut BTreeMap<PodKey, Found>,
    labels: Option<&HashMap<String, String>>,
) -> Option<&'a mut Found> {
    let labels = labels?;
    let key = key(labels)?;
    let found = pods.entry(key).or_default();
    found.block = labels.get("roadstead.block")?.parse().ok()?;
    Some(found)
}

fn key(labels: &HashMap<String, String>) -> Option<PodKey> {
    let lease = labels.get("roadstead.lease")?.parse().ok()?;
    let opening: B256 = labels.get("roadstead.opening")?.parse().ok()?;
    Some(PodKey { lease, opening })
}

/// Of which of a lease's pods the labels say that something is.
fn pod_of(labels: &HashMap<String, String>) -> Option<PodHash> {
    labels.get("roadstead.pod")?.parse().ok()
}

fn is_of(labels: Option<&HashMap<String, String>>, wanted: PodKey) -> bool {
    labels.and_then(key) == Some(wanted)
}

fn is_missing(err: &DockerError) -> bool {
    matches!(err, DockerError::DockerResponseServerError { status_code: 404, .. })
}

/// What is gone already was removed.
fn gone(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(err) if is_missing(&err) => Ok(()),
        result => result,
    }
}

fn log_line(service: &str, output: &bollard::container::LogOutput) -> LogLine {
    let stream = match output {
        bollard::container::LogOutput::StdErr { .. } => LogStream::Stderr,
        bollard::container::LogOutput::StdOut { .. }
        | bollard::container::LogOutput::StdIn { .. }
        | bollard::container::LogOutput::Console { .. } => LogStream::Stdout,
    };
    let text = output.to_string();
    let text = text.trim_end_matches(['\r', '\n']);
    let (time, line) = text.split_once(' ').unwrap_or((text, ""));
    LogLine { service: service.to_owned(), stream, time: time.to_owned(), line: line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_a_pod() {
        let opening = B256::repeat_byte(0xab);
        let labels = HashMap::from([
            ("roadstead.lease".to_owned(), "7".to_owned()),
            ("roadstead.opening".to_owned(), opening.to_string()),
            ("roadstead.block".to_owned(), "12".to_owned()),
        ]);
        let mut pods = BTreeMap::new();
        assert_eq!(found(&mut pods, Some(&labels)).unwrap().block, 12);
        assert!(is_of(Some(&labels), PodKey { lease: 7, opening }));
        assert!(!is_of(Some(&labels), PodKey { lease: 7, opening: B256::ZERO }));
        assert!(found(&mut pods, Some(&HashMap::new())).is_none());
    }
}
