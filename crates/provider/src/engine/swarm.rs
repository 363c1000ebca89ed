//! A cluster: the services of pods as those of a Docker Swarm, which says where they run, and runs them elsewhere when a
//! machine is gone or drained.
//!
//! What there is of pods is asked of a manager of the swarm, on the provider's own machine; what their containers do, of the
//! engine that runs them. A machine that does not answer is unknown, not empty: its services are there as long as the swarm
//! has them, and nothing is made or removed because of it.

pub(super) mod nodes;
pub(super) mod spec;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use alloy::primitives::{Address, hex};
use bollard::{
    Docker,
    errors::Error as DockerError,
    models::{
        ContainerSummary, ContainerSummaryStateEnum, EndpointPortConfigProtocolEnum, EventMessage,
        NetworkAttachmentConfig, NetworkCreateRequest, PortSummaryTypeEnum, SecretSpec,
        Service as SwarmService, SystemInfo, Task as SwarmTask, TaskSpecContainerSpecFile,
        TaskSpecContainerSpecSecrets, TaskState,
    },
    query_parameters::{
        EventsOptionsBuilder, ImportImageOptionsBuilder, ListContainersOptionsBuilder,
        ListSecretsOptionsBuilder, ListServicesOptionsBuilder, ListTasksOptionsBuilder,
        RemoveImageOptionsBuilder, UpdateServiceOptionsBuilder,
    },
};
use futures::{StreamExt, TryStreamExt, future::join_all, stream::BoxStream};
use protocol::pod::{Label, Name, Network, Pod, PodHash, Restart, Service, Transport};

pub(crate) use self::spec::NotInCluster;
use self::{
    nodes::{ClusterError, Node},
    spec::{Place, file_name, fits, service_name},
};
use super::{
    Container, Engine, EngineError, Image, Order, Readiness, Stage, ended_well, gone, is_missing,
    is_of, listens, parse_time, pod_of,
};
use crate::{causes, config::Config, leases::PodKey};

/// The label by which an engine knows a swarm's containers from others.
pub(super) const OF_TASK: &str = "com.docker.swarm.task.id";

/// How long a machine may take to say which containers it has.
const LISTING: Duration = Duration::from_secs(3);

/// After how many containers that failed a starting service is given up: as many as a swarm remembers by default, beside the
/// one that comes next.
const CRASHES: u32 = 4;

/// How often, and how many times, is looked whether containers are gone.
const GONE_POLL: Duration = Duration::from_millis(200);
const GONE_POLLS: usize = 300;

/// For how long a machine is asked for events at a time: one that is gone says nothing, and ends nothing.
const EVENTS: Duration = Duration::from_secs(60);

/// How long is waited before a machine that does not answer is asked for events again.
const AGAIN: Duration = Duration::from_secs(5);

/// Where a container of a swarm is, and how it came to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// The machine, by the swarm's id; none before it was found a place.
    node: Option<String>,
    /// Whether that machine says so, too: one that does not is not asked for more.
    answers: bool,
    /// Its published ports, as the provider reaches them.
    ports: BTreeMap<(Transport, u16), SocketAddr>,
    /// How far the swarm is with it, in its word.
    state: TaskState,
    /// The code that it ended with.
    code: i64,
    /// How many before it failed, as far as the swarm remembers.
    pub(crate) failures: u32,
    /// What the swarm says of it, or of the one before it.
    trouble: Option<String>,
    /// The last one that failed: its machine and its id.
    failed: Option<(String, String)>,
}

/// A swarm, as one of its managers knows it.
#[derive(Debug)]
pub(super) struct Swarm {
    manager: Docker,
    /// The machine of the manager, and so of the provider.
    here: String,
    /// The label that the provider's machines have in the swarm.
    label: String,
    nodes: BTreeMap<String, Node>,
    encrypt: bool,
}

impl Container {
    /// Where one of its ports is reached.
    pub(crate) fn at(&self, transport: Transport, port: u16) -> Option<SocketAddr> {
        match &self.task {
            Some(task) => task.ports.get(&(transport, port)).copied(),
            None => self.ip.map(|ip| (ip, port).into()),
        }
    }
}

impl Swarm {
    /// The swarm that the engine is a manager of; none where no machines are named.
    pub(super) async fn join(
        manager: &Docker,
        info: &SystemInfo,
        config: &Config,
        provider: Address,
    ) -> Result<Option<Self>, EngineError> {
        if config.nodes.is_empty() {
            return Ok(None);
        }
        let nodes = nodes::known(manager, info, &config.nodes).await?;
        let here = info.swarm.as_ref().and_then(|swarm| swarm.node_id.clone());
        let here = here.filter(|here| nodes.contains_key(here)).ok_or(ClusterError::NotHere)?;
        let label = format!("roadstead.{}", hex::encode(provider));
        nodes::mark(manager, &nodes, &label).await?;
        Ok(Some(Self { manager: manager.clone(), here, label, nodes, encrypt: config.encrypt }))
    }

    /// The engine that runs a container.
    fn engine_of(&self, task: &Task) -> Result<&Docker, EngineError> {
        let node = task.node.as_ref().and_then(|id| self.nodes.get(id));
        let unplaced = || {
            let why = task.trouble.clone();
            EngineError::Unplaced(why.unwrap_or_else(|| task.state.to_string()))
        };
        let node = node.ok_or_else(unplaced)?;
        match task.answers {
            true => Ok(node.docker()?),
            false => Err(EngineError::Silent(node.name.clone())),
        }
    }

    /// The machines that the swarm hears of, with their engines.
    async fn live(&self) -> Result<Vec<(&str, &Docker)>, DockerError> {
        let listed = nodes::live(&self.manager).await?;
        let live = self.nodes.iter().filter(|(id, _)| listed.contains(*id));
        Ok(live.filter_map(|(id, node)| Some((id.as_str(), node.docker().ok()?))).collect())
    }

    /// The services of a provider, each with its container, or none where it was stopped.
    pub(super) async fn services(
        &self,
        mine: &HashMap<String, Vec<String>>,
    ) -> Result<Vec<(HashMap<String, String>, Option<Container>)>, DockerError> {
        let services = ListServicesOptionsBuilder::new().filters(mine).build();
        let tasks = ListTasksOptionsBuilder::new().filters(mine).build();
        let (services, tasks, live) = tokio::try_join!(
            self.manager.list_services(Some(services)),
            self.manager.list_tasks(Some(tasks)),
            self.live(),
        )?;
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let mut of: HashMap<String, Vec<SwarmTask>> = HashMap::new();
        for task in tasks {
            of.entry(task.service_id.clone().unwrap_or_default()).or_default().push(task);
        }
        let listed = join_all(live.into_iter().map(|(_, docker)| async move {
            let options = ListContainersOptionsBuilder::new().all(true).filters(mine).build();
            let listed = docker.list_containers(Some(options));
            // Unknown, not empty: what the swarm says of it holds.
            tokio::time::timeout(LISTING, listed).await.ok()?.ok()
        }))
        .await;
        let listed: HashMap<String, ContainerSummary> = listed
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|found| Some((found.labels.as_ref()?.get(OF_TASK)?.clone(), found)))
            .collect();
        let address = |id: &str| self.nodes.get(id).map(|node| node.address);
        Ok(services
            .into_iter()
            .map(|service| {
                let tasks = of.remove(service.id.as_deref().unwrap_or_default());
                let container = match replicas(&service) {
                    0 => None,
                    _ => container(tasks.unwrap_or_default(), &listed, &address),
                };
                (service.spec.and_then(|spec| spec.labels).unwrap_or_default(), container)
            })
            .collect())
    }

    /// Makes a network of the pod over all machines, if it is not there.
    async fn network(
        &self,
        name: &str,
        network: Network,
        labels: HashMap<String, String>,
    ) -> Result<(), EngineError> {
        match self.manager.inspect_network(name, None).await {
            Err(err) if is_missing(&err) => (),
            found => return Ok(found.map(drop)?),
        }
        let options = self.encrypt.then(|| HashMap::from([("encrypted".into(), String::new())]));
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("overlay".into()),
            internal: Some(network.internal),
            attachable: Some(false),
            options,
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        self.manager.create_network(request).await?;
        Ok(())
    }

    /// Gives images to those machines that have them not. One that cannot be given them gets them with the next look.
    async fn spread(&self, images: &BTreeSet<String>) -> Result<(), DockerError> {
        let live = self.live().await?;
        let others = live.into_iter().filter(|(id, _)| *id != self.here);
        for (id, docker) in others {
            for image in images {
                if let Err(err) = self.give(docker, image).await {
                    let name = self.nodes.get(id).map_or(id, |node| &node.name);
                    tracing::warn!(error = causes(&err), "{name} was not given image {image}");
                }
            }
        }
        Ok(())
    }

    async fn give(&self, docker: &Docker, image: &str) -> Result<(), DockerError> {
        match tokio::time::timeout(LISTING, docker.inspect_image(image)).await {
            Ok(Err(err)) if is_missing(&err) => (),
            Ok(found) => return found.map(drop),
            Err(_late) => return Err(DockerError::RequestTimeoutError),
        }
        // What leads to it as an own stream, which the other request has as its body.
        let (manager, name) = (self.manager.clone(), image.to_owned());
        let (send, receive) = tokio::sync::mpsc::channel(4);
        let export = async move {
            let mut parts = std::pin::pin!(manager.export_image(&name));
            while let Some(part) = parts.next().await {
                if send.send(part).await.is_err() {
                    return;
                }
            }
        };
        let parts = futures::stream::unfold(receive, |mut receive| async move {
            receive.recv().await.map(|part| (part, receive))
        });
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let import = docker.import_image_stream(options, parts, None);
        let ((), imported) =
            tokio::join!(export, import.try_for_each(|_progress| async { Ok(()) }));
        imported
    }

    /// Removes the services of those pods of a lease that are `unwanted`, with their files, and waits until what ran is gone
    /// from all machines that the swarm hears of.
    async fn remove(
        &self,
        mine: &HashMap<String, Vec<String>>,
        key: PodKey,
        unwanted: &impl Fn(PodHash) -> bool,
    ) -> Result<(), EngineError> {
        let theirs = |labels: Option<&HashMap<String, String>>| {
            is_of(labels, key) && unwanted(labels.and_then(pod_of).unwrap_or_default())
        };
        let options = ListServicesOptionsBuilder::new().filters(mine).build();
        let mut removed = BTreeSet::new();
        for service in self.manager.list_services(Some(options)).await? {
            if theirs(service.spec.as_ref().and_then(|spec| spec.labels.as_ref())) {
                let id = service.id.unwrap_or_default();
                gone(self.manager.delete_service(&id).await)?;
                removed.insert(id);
            }
        }
        self.until_gone(mine, &removed).await?;
        let options = ListSecretsOptionsBuilder::new().filters(mine).build();
        for secret in self.manager.list_secrets(Some(options)).await? {
            if theirs(secret.spec.as_ref().and_then(|spec| spec.labels.as_ref())) {
                gone(self.manager.delete_secret(&secret.id.unwrap_or_default()).await)?;
            }
        }
        Ok(())
    }

    /// Waits until no machine that the swarm hears of runs anything of some services.
    async fn until_gone(
        &self,
        mine: &HashMap<String, Vec<String>>,
        services: &BTreeSet<String>,
    ) -> Result<(), EngineError> {
        if services.is_empty() {
            return Ok(());
        }
        for _ in 0..GONE_POLLS {
            let options = ListTasksOptionsBuilder::new().filters(mine).build();
            let tasks = self.manager.list_tasks(Some(options)).await?;
            let live = nodes::live(&self.manager).await?;
            let runs = |task: &SwarmTask| {
                let there = task.node_id.as_ref().is_some_and(|id| live.contains(id));
                let begun = (TaskState::ASSIGNED..=TaskState::RUNNING).contains(&state(task));
                let of = task.service_id.as_ref().is_some_and(|id| services.contains(id));
                there && begun && of
            };
            if !tasks.iter().any(runs) {
                return Ok(());
            }
            tokio::time::sleep(GONE_POLL).await;
        }
        // Nothing is made beside it that could write to the same volumes; the next pass tries again.
        Err(EngineError::Lingers)
    }

    /// What happens to a provider's containers on any machine, from `since` on, with no end.
    pub(super) fn events(
        &self,
        filters: HashMap<String, Vec<String>>,
        since: SystemTime,
    ) -> BoxStream<'static, EventMessage> {
        let all = self.nodes.values().map(|node| node_events(node.clone(), filters.clone(), since));
        futures::stream::select_all(all).boxed()
    }
}

/// The events of one machine, a window of time after the other: one that is gone says nothing, and ends nothing.
fn node_events(
    node: Node,
    filters: HashMap<String, Vec<String>>,
    since: SystemTime,
) -> BoxStream<'static, EventMessage> {
    // Up to when all was told: the last event, or the end of the last window that was not broken off.
    let told = Arc::new(Mutex::new(since));
    let windows = futures::stream::unfold((), move |()| {
        let (node, filters, told) = (node.clone(), filters.clone(), Arc::clone(&told));
        let tell = move |up_to: SystemTime| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            *told = up_to.max(*told);
            *told
        };
        async move {
            let (since, until) = (tell(SystemTime::UNIX_EPOCH), SystemTime::now() + EVENTS);
            let options = EventsOptionsBuilder::new().since(&stamp(since)).until(&stamp(until));
            let options = options.filters(&filters).build();
            let Ok(docker) = node.docker() else {
                tokio::time::sleep(AGAIN).await;
                return Some((futures::stream::empty().boxed(), ()));
            };
            let (heard, over) = (tell.clone(), tell);
            let events = docker.events(Some(options)).filter_map(|event| async { event.ok() });
            let events = events.inspect(move |event| {
                let nanos = event.time_nano.and_then(|nanos| u64::try_from(nanos).ok());
                // The next one, or this would be told again.
                let next = nanos.map(|nanos| Duration::from_nanos(nanos.saturating_add(1)));
                heard(SystemTime::UNIX_EPOCH + next.unwrap_or_default());
            });
            let whole = futures::stream::once(async move {
                if SystemTime::now() >= until {
                    over(until);
                }
            });
            let whole = whole.filter_map(|()| async { None });
            let end = tokio::time::sleep(EVENTS + AGAIN);
            // Whoever refuses at once is not asked at once again.
            let patience = futures::stream::once(tokio::time::sleep(Duration::from_secs(1)));
            let patience = patience.filter_map(|()| async { None });
            Some((events.chain(whole).take_until(end).chain(patience).boxed(), ()))
        }
    });
    windows.flatten().boxed()
}

fn stamp(time: SystemTime) -> String {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

/// The container of a service that has had these tasks, as the machines list it by its task, or as the swarm knows it.
fn container(
    mut tasks: Vec<SwarmTask>,
    listed: &HashMap<String, ContainerSummary>,
    address: &dyn Fn(&str) -> Option<Ipv4Addr>,
) -> Option<Container> {
    // The youngest of those that are meant to run, else the youngest.
    tasks.sort_by_key(|task| {
        let meant = task.desired_state.is_some_and(|state| state <= TaskState::RUNNING);
        (meant, made(task))
    });
    let task = tasks.pop()?;
    let failed = |task: &&SwarmTask| matches!(state(task), TaskState::FAILED | TaskState::REJECTED);
    let failures = tasks.iter().filter(failed).count();
    let last = tasks.iter().filter(failed).max_by_key(|task| made(task));
    let status = task.status.clone().unwrap_or_default();
    let found = listed.get(task.id.as_deref().unwrap_or_default());
    let reported = status.container_status.unwrap_or_default();
    let id = found.and_then(|found| found.id.clone()).or(reported.container_id);
    let ports = task.node_id.as_deref().and_then(address).map(|address| match found {
        Some(found) => listed_ports(address, found),
        None => reported_ports(address, status.port_status.and_then(|status| status.ports)),
    });
    let said = |task: &SwarmTask| task.status.as_ref()?.err.clone().filter(|said| !said.is_empty());
    let trouble = said(&task).or_else(|| said(last?));
    let failed = last.and_then(|task| {
        let container = task.status.as_ref()?.container_status.as_ref()?;
        Some((task.node_id.clone()?, container.container_id.clone()?))
    });
    Some(Container {
        id: id.unwrap_or_default(),
        state: match found.and_then(|found| found.state) {
            Some(state) => state,
            None => as_container(state(&task)),
        },
        ip: None,
        lost: false,
        task: Some(Box::new(Task {
            node: task.node_id.clone().filter(|id| !id.is_empty()),
            answers: found.is_some(),
            ports: ports.unwrap_or_default(),
            state: state(&task),
            code: reported.exit_code.unwrap_or_default(),
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            trouble,
            failed,
        })),
    })
}

fn state(task: &SwarmTask) -> TaskState {
    task.status.as_ref().and_then(|status| status.state).unwrap_or(TaskState::NEW)
}

fn made(task: &SwarmTask) -> Option<SystemTime> {
    parse_time(task.created_at.as_deref()?)
}

fn replicas(service: &SwarmService) -> i64 {
    let mode = service.spec.as_ref().and_then(|spec| spec.mode.as_ref()?.replicated.as_ref());
    mode.and_then(|replicated| replicated.replicas).unwrap_or_default()
}

/// The state of a container of which its machine says nothing.
fn as_container(state: TaskState) -> ContainerSummaryStateEnum {
    match state {
        TaskState::RUNNING => ContainerSummaryStateEnum::RUNNING,
        TaskState::COMPLETE
        | TaskState::SHUTDOWN
        | TaskState::FAILED
        | TaskState::REJECTED
        | TaskState::REMOVE
        | TaskState::ORPHANED => ContainerSummaryStateEnum::EXITED,
        TaskState::NEW
        | TaskState::ALLOCATED
        | TaskState::PENDING
        | TaskState::ASSIGNED
        | TaskState::ACCEPTED
        | TaskState::PREPARING
        | TaskState::READY
        | TaskState::STARTING => ContainerSummaryStateEnum::CREATED,
    }
}

fn listed_ports(
    address: Ipv4Addr,
    found: &ContainerSummary,
) -> BTreeMap<(Transport, u16), SocketAddr> {
    let ports = found.ports.iter().flatten().filter_map(|port| {
        let transport = match port.typ? {
            PortSummaryTypeEnum::TCP => Transport::Tcp,
            PortSummaryTypeEnum::UDP => Transport::Udp,
            PortSummaryTypeEnum::SCTP | PortSummaryTypeEnum::EMPTY => return None,
        };
        // It may have another number for each family of addresses.
        let v4 = port.ip.as_deref().is_none_or(|ip| !ip.contains(':'));
        let published = port.public_port.filter(|_port| v4)?;
        Some(((transport, port.private_port), (address, published).into()))
    });
    ports.collect()
}

fn reported_ports(
    address: Ipv4Addr,
    ports: Option<Vec<bollard::models::EndpointPortConfig>>,
) -> BTreeMap<(Transport, u16), SocketAddr> {
    let ports = ports.into_iter().flatten().filter_map(|port| {
        let transport = match port.protocol? {
            EndpointPortConfigProtocolEnum::TCP => Transport::Tcp,
            EndpointPortConfigProtocolEnum::UDP => Transport::Udp,
            EndpointPortConfigProtocolEnum::SCTP | EndpointPortConfigProtocolEnum::EMPTY => {
                return None;
            }
        };
        let (target, published) = (port.target_port?, port.published_port?);
        let (target, published) = (target.try_into().ok()?, u16::try_from(published).ok()?);
        Some(((transport, target), (address, published).into()))
    });
    ports.collect()
}

impl Engine {
    /// The swarm that runs a lease's pods, if one does. Add-ons stay beside the provider, whose own they are.
    pub(super) fn swarm_of(&self, key: PodKey) -> Option<&Swarm> {
        self.swarm.as_deref().filter(|_swarm| !key.is_addon())
    }

    /// Whether a cluster, if this is one, can run a pod as it wants to be run.
    pub(crate) fn suits(&self, pod: &Pod) -> Result<(), NotInCluster> {
        self.swarm.as_ref().map_or(Ok(()), |_swarm| spec::suits(pod))
    }

    /// The engine that runs a container.
    pub(super) fn of(&self, container: &Container) -> Result<&Docker, EngineError> {
        match (&container.task, &self.swarm) {
            (Some(task), Some(swarm)) => swarm.engine_of(task),
            _ => Ok(&self.docker),
        }
    }

    /// The socket of the engine that runs a container, if it is one of this machine.
    pub(super) fn socket_of(&self, container: &Container) -> Option<PathBuf> {
        match (&container.task, &self.swarm) {
            (Some(task), Some(swarm)) => {
                super::terminal::socket(&swarm.nodes.get(task.node.as_ref()?)?.host)
            }
            _ => self.socket.clone(),
        }
    }

    /// The name by which a program in a container is known.
    pub(super) fn program_name(container: &Container, exec: String) -> String {
        match container.task.as_ref().and_then(|task| task.node.as_ref()) {
            Some(node) => format!("{node}/{exec}"),
            None => exec,
        }
    }

    /// The engine of a program, the program's name there, and whether its process is one of this machine.
    pub(super) fn program<'a>(
        &'a self,
        name: &'a str,
    ) -> Result<(&'a Docker, &'a str, bool), EngineError> {
        match (name.split_once('/'), &self.swarm) {
            (Some((node, exec)), Some(swarm)) => {
                let known = swarm.nodes.get(node);
                let known = known.ok_or_else(|| EngineError::Unplaced(node.to_owned()))?;
                Ok((known.docker()?, exec, node == swarm.here))
            }
            _ => Ok((&self.docker, name, true)),
        }
    }

    /// Makes what the services of a pod need in a cluster.
    pub(super) async fn prepare_in(
        &self,
        swarm: &Swarm,
        order: &Order<'_>,
        images: BTreeMap<Label, Image>,
        wanted: BTreeMap<Name, Network>,
    ) -> Result<Stage, EngineError> {
        spec::suits(order.pod)?;
        let peers: Vec<Ipv4Addr> = swarm.nodes.values().map(|node| node.address).collect();
        crate::firewall::fence(None, &peers).await?;
        let mut networks = BTreeMap::new();
        for (name, network) in wanted {
            let full = order.key.network(order.hash, &name);
            let mut labels = self.labels(order.key, order.block);
            labels.insert("roadstead.pod".into(), order.hash.to_string());
            swarm.network(&full, network, labels).await?;
            networks.insert(name, (full, Ipv4Addr::UNSPECIFIED));
        }
        self.volumes(order, &images).await?;
        swarm.spread(&images.values().map(|image| image.id.clone()).collect()).await?;
        Ok(Stage { images, networks })
    }

    /// Has one service of a pod run in a cluster.
    pub(super) async fn start_in(
        &self,
        swarm: &Swarm,
        order: &Order<'_>,
        stage: &Stage,
        label: &Label,
        (service, image): (&Service, &Image),
    ) -> Result<(), EngineError> {
        let prefix = order.key.of(order.hash);
        let name = service_name(&prefix, label);
        match swarm.manager.inspect_service(&name, None).await {
            Err(err) if is_missing(&err) => (),
            found => {
                let found = found?;
                // Whether one runs that is to run is the swarm's to see to.
                if replicas(&found) == 0 {
                    scale(&swarm.manager, found, 1).await?;
                }
                return Ok(());
            }
        }
        if let Some(paths) = spec::declared(service, &image.volumes) {
            return Err(EngineError::Declared { service: label.clone(), paths });
        }
        let mut labels = self.labels(order.key, order.block);
        labels.insert("roadstead.pod".into(), order.hash.to_string());
        labels.insert("roadstead.service".into(), label.to_string());
        let files = self.share_files(swarm, order, label, (service, image), &labels).await?;
        let attached = service.attachments().into_iter().filter_map(|(name, attachment)| {
            let aliases = attachment.aliases.iter().map(ToString::to_string);
            Some(NetworkAttachmentConfig {
                target: Some(stage.networks.get(&name)?.0.clone()),
                aliases: Some([label.to_string()].into_iter().chain(aliases).collect()),
                driver_opts: None,
            })
        });
        let place = Place {
            name: name.clone(),
            prefix: &order.key.prefix(),
            networks: attached.collect(),
            published: spec::is_reached(order.pod, service),
            dns: &self.dns,
            image: &image.id,
            image_entrypoint: &image.entrypoint,
            files,
            machines: &swarm.label,
            home: &swarm.here,
            labels,
        };
        drop(swarm.manager.create_service(spec::service(label, service, place), None).await?);
        Ok(())
    }

    /// Gives the swarm the secrets and configs of one service: both as secrets, which it keeps encrypted and lays down in memory.
    async fn share_files(
        &self,
        swarm: &Swarm,
        order: &Order<'_>,
        label: &Label,
        (service, image): (&Service, &Image),
        labels: &HashMap<String, String>,
    ) -> Result<Vec<TaskSpecContainerSpecSecrets>, EngineError> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let prefix = order.key.of(order.hash);
        let placed = || service.secrets.values().chain(service.configs.values());
        let (user, group) = match placed().all(|file| file.uid.is_some() && file.gid.is_some()) {
            true => (0, 0),
            // Who runs as somebody else than root could not read what is root's.
            false => self.owner(label, service, image).await?,
        };
        let mut files = Vec::new();
        for (target, file) in &service.secrets {
            let source = file.source.as_str();
            let value = order.secrets.0.get(source);
            let value = value.ok_or_else(|| EngineError::SecretMissing(source.to_owned()))?;
            fits(label, &format!("secret {source}"), value)?;
            files.push((target, file, value.as_slice()));
        }
        for (target, file) in &service.configs {
            let contents = order.pod.configs().get(&file.source).map_or("", String::as_str);
            files.push((target, file, contents.as_bytes()));
        }
        let mut shared = Vec::new();
        for (target, file, contents) in files {
            let name = file_name(&prefix, label, target.as_str());
            let spec = SecretSpec {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                data: Some(STANDARD.encode(contents)),
                ..SecretSpec::default()
            };
            let id = make_secret(&swarm.manager, &name, spec).await?;
            shared.push(TaskSpecContainerSpecSecrets {
                file: Some(TaskSpecContainerSpecFile {
                    name: Some(target.to_string()),
                    uid: Some(file.uid.unwrap_or(user).to_string()),
                    gid: Some(file.gid.unwrap_or(group).to_string()),
                    mode: Some(file.mode.into()),
                }),
                secret_id: Some(id),
                secret_name: Some(name),
            });
        }
        Ok(shared)
    }

    /// Stops the services of one pod of a lease in a cluster, and waits until they have.
    pub(super) async fn stop_in(
        &self,
        swarm: &Swarm,
        key: PodKey,
        pod: PodHash,
    ) -> Result<(), EngineError> {
        let mine = self.mine();
        let options = ListServicesOptionsBuilder::new().filters(&mine).build();
        let mut stopped = BTreeSet::new();
        for service in swarm.manager.list_services(Some(options)).await? {
            let labels = service.spec.as_ref().and_then(|spec| spec.labels.as_ref());
            if !is_of(labels, key) || labels.and_then(pod_of) != Some(pod) {
                continue;
            }
            stopped.insert(service.id.clone().unwrap_or_default());
            scale(&swarm.manager, service, 0).await?;
        }
        swarm.until_gone(&mine, &stopped).await
    }

    /// Removes the services of those pods of a lease that are `unwanted`, and what the swarm was given for them.
    pub(super) async fn retire_in(
        &self,
        swarm: &Swarm,
        key: PodKey,
        unwanted: &impl Fn(PodHash) -> bool,
    ) -> Result<(), EngineError> {
        swarm.remove(&self.mine(), key, unwanted).await
    }

    /// How far a service is in a cluster. The swarm itself waits for its health check.
    pub(super) async fn readiness_in(
        &self,
        container: &Container,
        task: &Task,
        service: &Service,
    ) -> Result<Readiness, EngineError> {
        // Its machine has said so before the swarm has heard how it ended.
        let ended = ContainerSummaryStateEnum::EXITED;
        if container.state == ended && as_container(task.state) != ended {
            let why = "it has ended, and the swarm has yet to say how";
            return Ok(Readiness::NotYet(why.into()));
        }
        if task.state == TaskState::RUNNING {
            let docker = match self.of(container) {
                Ok(docker) => docker,
                Err(err) => return Ok(Readiness::NotYet(err.to_string())),
            };
            let found = docker.inspect_container(&container.id, None).await?;
            let test = found.config.and_then(|config| config.healthcheck?.test);
            return Ok(match test.as_deref() {
                Some([kind, _, ..]) if kind.starts_with("CMD") => Readiness::Ready,
                _ => listens(container, service).await,
            });
        }
        let words = async |container: &Container| match self.of(container) {
            Ok(docker) => self.last_words(docker, &container.id, task.code).await,
            Err(_gone) => {
                let trouble = task.trouble.clone();
                trouble.unwrap_or_else(|| format!("it ended with code {}", task.code))
            }
        };
        if container.state == ended {
            return Ok(match service.restart {
                // One that never ran has no code, which looks like a good one.
                _ if task.state == TaskState::COMPLETE && ended_well(service, task.code) => {
                    Readiness::Ready
                }
                Restart::No => Readiness::Failed(words(container).await),
                Restart::Always | Restart::OnFailure { .. } | Restart::UnlessStopped => {
                    Readiness::NotYet(words(container).await)
                }
            });
        }
        let state = task.state.to_string();
        let said = task.trouble.clone().unwrap_or_else(|| format!("the swarm says: {state}"));
        Ok(match (&task.failed, task.failures >= CRASHES) {
            (_, false) => Readiness::NotYet(said),
            (None, true) => Readiness::Failed(said),
            (Some((node, id)), true) => {
                let failed = Task { node: Some(node.clone()), answers: true, ..task.clone() };
                let task = Some(Box::new(failed));
                let last = Container { id: id.clone(), task, ..container.clone() };
                let docker = self.of(&last)?;
                let code = docker.inspect_container(id, None).await.ok();
                let code = code.and_then(|found| found.state?.exit_code).unwrap_or_default();
                Readiness::Failed(self.last_words(docker, id, code).await)
            }
        })
    }

    /// The images of all services that the swarm runs for this provider, which stay and are given to machines that come
    /// back or are new.
    pub(super) async fn images_in(&self, swarm: &Swarm) -> Result<BTreeSet<String>, EngineError> {
        let options = ListServicesOptionsBuilder::new().filters(&self.mine()).build();
        let services = swarm.manager.list_services(Some(options)).await?.into_iter();
        let images =
            services.filter_map(|service| service.spec?.task_template?.container_spec?.image);
        let images = images.collect();
        swarm.spread(&images).await?;
        Ok(images)
    }

    /// Takes an image away from all other machines of a cluster. Where one does not answer, it stays.
    pub(super) async fn forget_image(&self, image: &str) {
        let Some(swarm) = &self.swarm else { return };
        for (id, docker) in swarm.live().await.unwrap_or_default() {
            if id != swarm.here {
                let options = RemoveImageOptionsBuilder::new().build();
                let _used_or_gone = docker.remove_image(image, Some(options), None).await;
            }
        }
    }
}

/// Has a service have so many containers, and leaves the rest of it as it is.
async fn scale(manager: &Docker, service: SwarmService, count: i64) -> Result<(), DockerError> {
    let version = service.version.and_then(|version| version.index).unwrap_or_default();
    let version = i32::try_from(version).unwrap_or(i32::MAX);
    let options = UpdateServiceOptionsBuilder::new().version(version).build();
    let mut wanted = service.spec.unwrap_or_default();
    wanted.mode = Some(spec::replicas(count));
    let id = service.id.unwrap_or_default();
    manager.update_service(&id, wanted, options, None).await.map(drop)
}

/// Makes a secret; its id. What is left of a start that was broken off is made anew, as another envelope may have come since.
async fn make_secret(
    manager: &Docker,
    name: &str,
    spec: SecretSpec,
) -> Result<String, DockerError> {
    match manager.create_secret(spec.clone()).await {
        Err(err) if is_taken(&err) => {
            gone(manager.delete_secret(name).await)?;
            Ok(manager.create_secret(spec).await?.id)
        }
        made => Ok(made?.id),
    }
}

/// Whether a name is somebody's already.
fn is_taken(err: &DockerError) -> bool {
    matches!(err, DockerError::DockerResponseServerError { status_code: 409, .. })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A task, with how far it is and how far it is meant to be.
    fn task(second: u32, node: &str, state: &str, meant: &str) -> SwarmTask {
        serde_json::from_value(json!({
            "ID": format!("task{second}"),
            "CreatedAt": format!("2026-01-31T12:00:{second:02}.5Z"),
            "NodeID": node,
            "DesiredState": meant,
            "Status": {
                "State": state,
                "Err": if state == "failed" { "task: non-zero exit (3)" } else { "" },
                "ContainerStatus": { "ContainerID": format!("c{second}"), "ExitCode": 3 },
                "PortStatus": { "Ports": [
                    { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 32_768 },
                ] },
            },
        }))
        .unwrap()
    }

    fn address(id: &str) -> Option<Ipv4Addr> {
        (id == "beta").then_some(Ipv4Addr::new(10, 0, 0, 2))
    }

    fn found(tasks: Vec<SwarmTask>, listed: &[(&str, serde_json::Value)]) -> Container {
        let listed = listed
            .iter()
            .map(|(id, found)| (id.to_string(), serde_json::from_value(found.clone()).unwrap()));
        container(tasks, &listed.collect(), &address).unwrap()
    }

    #[test]
    fn a_machine_that_says_nothing_is_unknown_and_not_empty() {
        let silent = found(vec![task(1, "beta", "running", "running")], &[]);
        assert_eq!((silent.id.as_str(), silent.state), ("c1", ContainerSummaryStateEnum::RUNNING));
        let at = silent.at(Transport::Tcp, 80);
        assert_eq!(at, Some((Ipv4Addr::new(10, 0, 0, 2), 32_768).into()));
        assert_eq!(silent.at(Transport::Udp, 80), None);
        let nowhere = found(vec![task(1, "gamma", "running", "running")], &[]);
        assert_eq!(nowhere.at(Transport::Tcp, 80), None, "nobody said where that is");
    }

    #[test]
    fn what_a_machine_says_of_its_container_is_newer() {
        let listed = json!({ "Id": "c1", "State": "paused", "Ports": [
            { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 40_000, "Type": "tcp" },
            { "IP": "::", "PrivatePort": 80, "PublicPort": 40_001, "Type": "tcp" },
        ] });
        let frozen = found(vec![task(1, "beta", "running", "running")], &[("task1", listed)]);
        assert_eq!(frozen.state, ContainerSummaryStateEnum::PAUSED);
        let at = frozen.at(Transport::Tcp, 80).unwrap();
        assert_eq!(at.port(), 40_000);
    }

    #[test]
    fn what_the_swarm_moved_is_where_it_is_now() {
        let lost = task(1, "beta", "running", "shutdown");
        let moving = found(vec![task(9, "alpha", "preparing", "running"), lost.clone()], &[]);
        assert_eq!((moving.id.as_str(), moving.state), ("c9", ContainerSummaryStateEnum::CREATED));
        assert_eq!(moving.task.unwrap().failures, 0);
        // Also where the swarm has made the new one before it gave the old one up.
        let over = found(vec![task(9, "alpha", "complete", "shutdown"), lost], &[]);
        assert_eq!(over.state, ContainerSummaryStateEnum::EXITED);
    }

    #[test]
    fn failures_are_counted_and_the_last_is_known() {
        let failed = |second| task(second, "beta", "failed", "shutdown");
        let next = task(20, "beta", "ready", "ready");
        let again = found(vec![failed(10), next, failed(11), failed(9)], &[]);
        let task = again.task.unwrap();
        assert_eq!((task.failures, task.state), (3, TaskState::READY));
        assert_eq!(task.failed, Some(("beta".into(), "c11".into())));
        assert_eq!(task.trouble.as_deref(), Some("task: non-zero exit (3)"));
    }
}
