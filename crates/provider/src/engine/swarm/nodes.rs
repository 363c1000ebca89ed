//! The machines of a cluster: those that provider.toml names, and what the swarm says of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use axum::http::{HeaderValue, header::CONTENT_TYPE};
use bollard::{
    ClientVersion, Docker,
    errors::Error as DockerError,
    models::{
        Node as SwarmNode, NodeSpec, NodeSpecAvailabilityEnum, NodeState, SystemInfo, TaskState,
    },
    query_parameters::{ListNodesOptions, ListTasksOptionsBuilder, UpdateNodeOptionsBuilder},
};
use serde::Serialize;

use super::super::terminal;
use crate::config;

/// How long a request to a machine's engine may take, in seconds.
const TIMEOUT: u64 = 120;

/// What the label says by which a machine is known as one of a provider's.
pub(super) const NAMED: &str = "named";

/// How long a machine may take to answer that it is there.
const PING: Duration = Duration::from_secs(3);

/// A cluster that cannot be used, or a machine of it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Docker does not answer, or refuses.
    #[error("Docker does not answer, or refuses")]
    Docker(#[from] DockerError),
    /// Machines are named, and there is no swarm.
    #[error(
        "provider.toml names machines ([[node]]), and the engine is no manager of a swarm; run `docker swarm init` on this machine, or remove them"
    )]
    NoManager,
    /// A machine is named that the swarm does not know.
    #[error("node {name}: the swarm has no such machine; it has {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// The names of those that it has.
        known: String,
    },
    /// Two machines of the swarm have one name.
    #[error("node {0}: several machines of the swarm have this name; name it by its id")]
    Ambiguous(String),
    /// It is one of the swarm's, and none of this provider's.
    #[error("provider.toml names no machine {0}; add a [[node]] for it")]
    Unnamed(String),
    /// The provider's own machine is not named.
    #[error(
        "provider.toml has no [[node]] for this machine, on which the manager of the swarm is; add one"
    )]
    NotHere,
}

/// A machine of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) host: String,
    tls: Option<PathBuf>,
    pub(super) address: Ipv4Addr,
    version: ClientVersion,
    /// Once it could be made: the socket of an engine that does not run is not there.
    docker: OnceLock<Docker>,
}

impl Node {
    fn new(node: &config::Node, version: ClientVersion) -> Self {
        Self {
            name: node.name.clone(),
            host: node.docker.clone(),
            tls: node.tls.clone(),
            address: node.address,
            version,
            docker: OnceLock::new(),
        }
    }

    /// Its engine, whether it answers or not.
    pub(super) fn docker(&self) -> Result<&Docker, DockerError> {
        if let Some(docker) = self.docker.get() {
            return Ok(docker);
        }
        let (host, version) = (&self.host, &self.version);
        let docker = match (&self.tls, terminal::socket(host)) {
            (Some(folder), None) => {
                let file = |name: &str| folder.join(name);
                let (key, cert, ca) = (file("key.pem"), file("cert.pem"), file("ca.pem"));
                Docker::connect_with_ssl(host, &key, &cert, &ca, TIMEOUT, version)?
            }
            (None, None) => Docker::connect_with_http(host, TIMEOUT, version)?,
            (_, Some(_)) => Docker::connect_with_unix(host, TIMEOUT, version)?,
        };
        Ok(self.docker.get_or_init(|| docker))
    }
}

/// The machines of the swarm that are named, by the swarm's ids.
pub(super) async fn known(
    manager: &Docker,
    info: &SystemInfo,
    named: &[config::Node],
) -> Result<BTreeMap<String, Node>, ClusterError> {
    if info.swarm.as_ref().and_then(|swarm| swarm.control_available) != Some(true) {
        return Err(ClusterError::NoManager);
    }
    let listed = manager.list_nodes(None::<ListNodesOptions>).await?;
    let version = manager.client_version();
    let mut nodes = BTreeMap::new();
    for node in named {
        let found = find(&listed, &node.name)?;
        nodes.insert(found.id.clone().unwrap_or_default(), Node::new(node, version));
    }
    Ok(nodes)
}

/// Marks the machines that are named with a label, and no others: pods are run where it is, so that none is run on a machine
/// that has joined the swarm and that nobody has fenced in.
pub(super) async fn mark(
    manager: &Docker,
    nodes: &BTreeMap<String, Node>,
    label: &str,
) -> Result<(), ClusterError> {
    for node in manager.list_nodes(None::<ListNodesOptions>).await? {
        let named = node.id.as_ref().is_some_and(|id| nodes.contains_key(id));
        let mut spec = node.spec.clone().unwrap_or_default();
        let labels = spec.labels.get_or_insert_default();
        let before = match named {
            true => labels.insert(label.to_owned(), NAMED.to_owned()),
            false => labels.remove(label),
        };
        if (before.as_deref() == Some(NAMED)) != named {
            update(manager, &node, spec).await?;
        }
    }
    Ok(())
}

/// Changes what is wanted of a machine.
async fn update(manager: &Docker, node: &SwarmNode, spec: NodeSpec) -> Result<(), DockerError> {
    let id = node.id.clone().unwrap_or_default();
    let version = node.version.as_ref().and_then(|version| version.index).unwrap_or_default();
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    let options = UpdateNodeOptionsBuilder::new().version(version).build();
    // The client library does not say what it sends, which newer engines want to know.
    let manager = manager.clone().with_request_modifier(|mut request| {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    });
    manager.update_node(&id, spec, options).await
}

/// The ids of the machines that the swarm hears of.
pub(super) async fn live(manager: &Docker) -> Result<BTreeSet<String>, DockerError> {
    let listed = manager.list_nodes(None::<ListNodesOptions>).await?;
    Ok(listed.into_iter().filter(is_ready).filter_map(|node| node.id).collect())
}

fn is_ready(node: &SwarmNode) -> bool {
    node.status.as_ref().and_then(|status| status.state) == Some(NodeState::READY)
}

fn name(node: &SwarmNode) -> &str {
    let description = node.description.as_ref();
    description.and_then(|description| description.hostname.as_deref()).unwrap_or_default()
}

fn availability(node: &SwarmNode) -> NodeSpecAvailabilityEnum {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.availability).unwrap_or(NodeSpecAvailabilityEnum::EMPTY)
}

/// The machine of that name, or with that id.
fn find<'a>(listed: &'a [SwarmNode], wanted: &str) -> Result<&'a SwarmNode, ClusterError> {
    let is_it = |node: &&SwarmNode| name(node) == wanted || node.id.as_deref() == Some(wanted);
    let mut found = listed.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => Err(ClusterError::Ambiguous(wanted.to_owned())),
        (None, _) => {
            let known: Vec<&str> = listed.iter().map(name).collect();
            Err(ClusterError::Unknown { name: wanted.to_owned(), known: known.join(", ") })
        }
    }
}

/// A machine of a cluster, as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its host name.
    pub name: String,
    /// The address at which its published ports are reached.
    pub address: Ipv4Addr,
    /// `active`, `pause` or `drain`.
    pub availability: String,
    /// What the swarm says of it: `ready` or `down`.
    pub state: String,
    /// How many containers of leases the swarm runs there, whoever's they are.
    pub containers: usize,
    /// Whether its engine answers.
    pub reachable: bool,
}

async fn manager(docker: Option<&str>) -> Result<(Docker, SystemInfo), ClusterError> {
    let docker = Docker::connect_with_host(docker.unwrap_or(terminal::DEFAULT))?;
    let docker = docker.negotiate_version().await?;
    let info = docker.info().await?;
    Ok((docker, info))
}

/// The machines that are named, as the swarm and their engines have them now.
///
/// # Errors
/// When the swarm does not answer, or does not have one of them.
pub async fn nodes(
    docker: Option<&str>,
    named: &[config::Node],
) -> Result<Vec<NodeView>, ClusterError> {
    let (manager, info) = manager(docker).await?;
    let nodes = known(&manager, &info, named).await?;
    let listed = manager.list_nodes(None::<ListNodesOptions>).await?;
    let ours = vec!["roadstead.provider".to_owned()];
    let filters = HashMap::from([("label".to_owned(), ours)]);
    let options = ListTasksOptionsBuilder::new().filters(&filters).build();
    let tasks = manager.list_tasks(Some(options)).await?;
    let mut views = Vec::new();
    for node in &listed {
        let Some((id, named)) = node.id.as_ref().and_then(|id| nodes.get_key_value(id)) else {
            continue;
        };
        let runs = tasks.iter().filter(|task| {
            let state = task.status.as_ref().and_then(|status| status.state);
            task.node_id.as_ref() == Some(id) && state == Some(TaskState::RUNNING)
        });
        let reachable = async {
            let ping = named.docker().ok()?.ping();
            tokio::time::timeout(PING, ping).await.ok()?.ok()
        };
        let state = node.status.as_ref().and_then(|status| status.state);
        views.push(NodeView {
            name: name(node).to_owned(),
            address: named.address,
            availability: availability(node).to_string(),
            state: state.map(|state| state.to_string()).unwrap_or_default(),
            containers: runs.count(),
            reachable: reachable.await.is_some(),
        });
    }
    Ok(views)
}

/// Has the swarm take all away from a machine and give it nothing new (`drain`), or give it work again.
///
/// # Errors
/// When the swarm does not answer, does not have it, or refuses.
pub async fn set_drained(
    docker: Option<&str>,
    named: &[config::Node],
    wanted: &str,
    drain: bool,
) -> Result<(), ClusterError> {
    let (manager, info) = manager(docker).await?;
    let nodes = known(&manager, &info, named).await?;
    let listed = manager.list_nodes(None::<ListNodesOptions>).await?;
    let node = find(&listed, wanted)?;
    if !node.id.as_ref().is_some_and(|id| nodes.contains_key(id)) {
        return Err(ClusterError::Unnamed(wanted.to_owned()));
    }
    let mut spec = node.spec.clone().unwrap_or_default();
    spec.availability = Some(match drain {
        true => NodeSpecAvailabilityEnum::DRAIN,
        false => NodeSpecAvailabilityEnum::ACTIVE,
    });
    Ok(update(&manager, node, spec).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, hostname: &str) -> SwarmNode {
        serde_json::from_value(serde_json::json!({
            "ID": id,
            "Description": { "Hostname": hostname },
            "Status": { "State": "ready" },
        }))
        .unwrap()
    }

    #[test]
    fn machines_are_found_by_name_or_id() {
        let listed = [machine("x1", "alpha"), machine("x2", "beta"), machine("x3", "beta")];
        let check = |wanted: &str, id: Option<&str>, words: &str| match find(&listed, wanted) {
            Ok(node) => assert_eq!(node.id.as_deref(), id, "{wanted}"),
            Err(err) => {
                assert_eq!(id, None, "{wanted}: {err}");
                assert!(err.to_string().contains(words), "{err}");
            }
        };
        check("alpha", Some("x1"), "");
        check("x3", Some("x3"), "");
        check("beta", None, "by its id");
        check("gamma", None, "alpha, beta, beta");
    }
}
