//! Kubernetes manifests: what runs (Pod, Deployment, StatefulSet, ReplicaSet, Job), and what it refers to.

mod container;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Draft, at, label};
use crate::pod::tree::{At, Fields, Log};

const NO_COUNTERPART: &str = "a pod has nothing like it";
const NETWORK: &str = "addresses and numbers of public ports are the provider's to choose; name a host under x-roadstead.ingress, or list the port under ports";

/// What is seen on objects that a cluster gave out, and says nothing about what they are.
const CLUSTER: [&str; 11] = [
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What the manifests have beside what runs.
struct Cluster<'a> {
    log: &'a Log,
    /// The text of all files: names that it does not have in it are not given.
    text: &'a str,
    configs: BTreeMap<String, BTreeMap<String, String>>,
    /// The keys of secrets; never their values.
    secrets: BTreeMap<String, BTreeSet<String>>,
    claims: BTreeMap<String, u64>,
    /// What runs, with the services that it became.
    workloads: Vec<Workload>,
}

/// What runs, as others find it.
struct Workload {
    labels: Map<String, Value>,
    /// The services, with their ports' numbers by name.
    services: Vec<(String, BTreeMap<String, u16>)>,
}

pub(super) fn convert(documents: &[Value], text: &str, log: &Log, draft: &mut Draft) {
    let mut objects = Vec::new();
    for document in documents {
        match (kind(document), document.get("items")) {
            ("List", Some(Value::Array(items))) => objects.extend(items),
            (_, _) => objects.push(document),
        }
    }
    let (configs, secrets) = (BTreeMap::new(), BTreeMap::new());
    let (claims, workloads) = (BTreeMap::new(), Vec::new());
    let mut cluster = Cluster { log, text, configs, secrets, claims, workloads };
    // What is referred to comes first, then what runs, then what leads to it.
    let passes: [&[&str]; 3] =
        [&["ConfigMap", "Secret", "PersistentVolumeClaim"], &[], &["Service", "Ingress"]];
    let others = |kind: &str| !passes.iter().any(|pass| pass.contains(&kind));
    let mut services = BTreeMap::new();
    for pass in passes {
        for object in &objects {
            let kind = kind(object);
            if pass.contains(&kind) || pass.is_empty() && others(kind) {
                cluster.object(kind, object, &mut services, draft);
            }
        }
    }
}

fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// The ports of a Service: by number or name, where they lead.
type Targets = BTreeMap<String, (String, u16)>;

impl Cluster<'_> {
    fn object(
        &mut self,
        kind: &str,
        object: &Value,
        services: &mut BTreeMap<String, Targets>,
        draft: &mut Draft,
    ) {
        let name = object.get("metadata").and_then(|metadata| metadata.get("name"));
        let name = name.and_then(Value::as_str).unwrap_or("?").to_owned();
        let root = at(object, &format!("{kind}/{name}"), self.log);
        // A slash is no plain key, and this is nobody's path but ours.
        let root = At { path: format!("{kind}/{name}"), ..root };
        let Some(fields) = root.fields() else { return };
        fields.skip(&["apiVersion", "kind", "status"]);
        if let Some(metadata) = fields.get("metadata").and_then(|at| at.fields()) {
            metadata.skip(&["name", "labels"]);
            metadata.skip(&CLUSTER);
            metadata.finish_foreign(
                &[("annotations", "annotations are not passed on")],
                NO_COUNTERPART,
            );
        }
        match kind {
            "ConfigMap" => {
                let data = fields.get("data").map(|at| at.entries()).unwrap_or_default();
                let data = data.into_iter().filter_map(|(key, at)| Some((key.to_owned(), at.value_text()?)));
                self.configs.insert(name, data.collect());
                fields.skip(&["immutable"]);
                fields.finish_foreign(&[("binaryData", "configs are text; put it into the image")], NO_COUNTERPART);
            }
            "Secret" => {
                let keys = ["data", "stringData"].into_iter().filter_map(|field| fields.get(field));
                let keys = keys.flat_map(|at| at.entries()).map(|(key, _)| key.to_owned());
                self.secrets.insert(name, keys.collect());
                fields.skip(&["immutable", "type"]);
                fields.finish_foreign(&[], NO_COUNTERPART);
            }
            "PersistentVolumeClaim" => {
                if let Some(size) = fields.get("spec").and_then(|at| volumes::claim(&at)) {
                    self.claims.insert(name, size);
                }
                fields.finish_foreign(&[], NO_COUNTERPART);
            }
            "Pod" => {
                let labels = labels(object.get("metadata"));
                if let Some(at) = fields.get("spec") {
                    self.workload(&name, labels, &at, "unless-stopped", draft);
                }
                fields.finish_foreign(&[], NO_COUNTERPART);
            }
            "Deployment" | "StatefulSet" | "ReplicaSet" | "Job" => {
                if let Some(at) = fields.get("spec") {
                    self.controller(kind, &name, &at, draft);
                }
                fields.finish_foreign(&[], NO_COUNTERPART);
            }
            "Service" => {
                if let Some(at) = fields.get("spec") {
                    services.insert(name.clone(), self.service(&name, object, &at, draft));
                }
                fields.finish_foreign(&[], NO_COUNTERPART);
            }
            "Ingress" => {
                if let Some(at) = fields.get("spec") {
                    ingress(&at, services, draft);
                }
                fields.finish_foreign(&[], NO_COUNTERPART);
            }
            "CronJob" => root.fail("nothing is started by the clock; have a service of the pod wait for its time"),
            "DaemonSet" => root.fail("there are no nodes to have one on each; make it a Deployment"),
            "Namespace" => root.fail("a pod has its own names anyway"),
            "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
                root.fail("there is no API of a cluster to call");
            }
            "HorizontalPodAutoscaler" => root.fail("autoscaling comes with the keeper"),
            "NetworkPolicy" => root.fail("list networks at the services: those that share none do not reach each other"),
            "PodDisruptionBudget" | "PersistentVolume" | "StorageClass" => root.fail(NO_COUNTERPART),
            _ => root.fail("this kind is not known here; convert what it makes: Pod, Deployment, StatefulSet, Job"),
        }
    }

    /// Whatever keeps pods running by a template.
    fn controller(&mut self, kind: &str, name: &str, at: &At<'_>, draft: &mut Draft) {
        let Some(spec) = at.fields() else { return };
        let replicas = spec.get("replicas").and_then(|at| Some((at.whole::<usize>()?, at)));
        let own = spec.get("volumeClaimTemplates").is_some();
        spec.skip(&[
            "selector",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
            "serviceName",
            "podManagementPolicy",
            "minReadySeconds",
            "completions",
            "parallelism",
        ]);
        for at in spec.get("volumeClaimTemplates").map(|at| at.items()).unwrap_or_default() {
            let template =
                at.value.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str);
            let size = at.fields().and_then(|fields| volumes::claim(&fields.get("spec")?));
            if let (Some(template), Some(size)) = (template, size) {
                self.claims.insert(format!("{template}-{name}-0"), size);
            }
        }
        if let Some(template) = spec.get("template").and_then(|at| at.fields()) {
            let labels = labels(template.at.value.get("metadata"));
            template.skip(&["metadata"]);
            let restart = if kind == "Job" { "on-failure" } else { "unless-stopped" };
            if let Some(at) = template.get("spec") {
                self.workload(name, labels, &at, restart, draft);
                match replicas.filter(|(replicas, _)| *replicas != 1) {
                    Some((_, at)) if own => at.fail(
                        "each of them had volumes of its own, and replicas share theirs; write as many services",
                    ),
                    Some((replicas, _)) => self.scale(replicas, draft),
                    None => (),
                }
            }
            template.finish_foreign(&[], NO_COUNTERPART);
        }
        spec.finish_foreign(
            &[
                ("activeDeadlineSeconds", "nothing is stopped by the clock"),
                ("strategy", "an update starts the new pod beside the old where there is room"),
                (
                    "updateStrategy",
                    "an update starts the new pod beside the old where there is room",
                ),
                ("persistentVolumeClaimRetentionPolicy", "volumes live as long as the lease"),
            ],
            NO_COUNTERPART,
        );
    }

    /// Has so many containers of each service of the workload that was read last.
    fn scale(&self, replicas: usize, draft: &mut Draft) {
        for (name, _) in self.workloads.last().iter().flat_map(|last| &last.services) {
            if let Some(service) = draft.services.get_mut(name) {
                service.set("scale", replicas);
            }
        }
    }

    /// Gives the services that a Service selects its names.
    fn service(&self, name: &str, object: &Value, at: &At<'_>, draft: &mut Draft) -> Targets {
        let mut targets = Targets::new();
        let Some(spec) = at.fields() else { return targets };
        spec.skip(&[
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
            "publishNotReadyAddresses",
            "sessionAffinity",
        ]);
        let mut public = false;
        if let Some(at) = spec.get("type") {
            match at.text().as_deref() {
                Some("ClusterIP") | None => (),
                Some("LoadBalancer" | "NodePort") => public = true,
                Some("ExternalName") => {
                    at.fail("names outside of the pod are DNS's own; use the name itself")
                }
                Some(_) => at.fail(NETWORK),
            }
        }
        let selector =
            spec.get("selector").and_then(|at| at.value.as_object().cloned()).unwrap_or_default();
        let selected = |workload: &&Workload| {
            !selector.is_empty()
                && selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
        };
        let found = self.workloads.iter().find(selected);
        if found.is_none() {
            at.fail("it selects nothing that runs in these files");
        }
        let ports = spec.get("ports").map(|at| at.items()).unwrap_or_default();
        spec.finish_foreign(
            &[
                ("externalIPs", NETWORK),
                ("externalTrafficPolicy", NETWORK),
                ("allocateLoadBalancerNodePorts", NETWORK),
                ("loadBalancerIP", NETWORK),
                ("loadBalancerSourceRanges", NETWORK),
            ],
            NO_COUNTERPART,
        );
        let Some(workload) = found else { return targets };
        let mut named = BTreeSet::new();
        for at in ports {
            self.port(&at, workload, public, &mut targets, &mut named, draft);
        }
        if named.is_empty() {
            named.extend(workload.services.first().map(|(service, _)| service.clone()));
        }
        let namespace = object.get("metadata").and_then(|metadata| metadata.get("namespace"));
        let namespace = namespace.and_then(Value::as_str).unwrap_or("default");
        let mut aliases = vec![name.to_owned()];
        let long = [
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
        ];
        aliases.extend(long.into_iter().filter(|name| mentions(self.text, name)));
        for service in named {
            let Some(draft) = draft.services.get_mut(&service) else { continue };
            aliases.iter().filter(|alias| **alias != service).for_each(|alias| draft.alias(alias));
            let ordinal = format!("{service}-0.{name}");
            if mentions(self.text, &ordinal) {
                draft.alias(&ordinal);
            }
        }
        targets
    }

    fn port(
        &self,
        at: &At<'_>,
        workload: &Workload,
        public: bool,
        targets: &mut Targets,
        named: &mut BTreeSet<String>,
        draft: &mut Draft,
    ) {
        let Some(fields) = at.fields() else { return };
        let Some((number, number_at)) =
            fields.get("port").and_then(|at| Some((at.whole::<u16>()?, at)))
        else {
            return;
        };
        let name = fields.get("name").and_then(|at| at.text());
        let udp = fields.get("protocol").and_then(|at| at.text()).as_deref() == Some("UDP");
        let target = fields.get("targetPort").and_then(|at| Some((at.scalar()?, at)));
        fields.skip(&["appProtocol"]);
        fields.finish_foreign(&[("nodePort", NETWORK)], NO_COUNTERPART);
        let wanted = target.as_ref().map_or_else(|| number.to_string(), |(text, _)| text.clone());
        let listens = |(service, ports): &(String, BTreeMap<String, u16>)| {
            let by_number = ports.values().copied().find(|port| port.to_string() == wanted);
            Some((service.clone(), ports.get(&wanted).copied().or(by_number)?))
        };
        let listed = workload.services.iter().find_map(listens);
        let unlisted = || Some((workload.services.first()?.0.clone(), wanted.parse().ok()?));
        let Some((service, port)) = listed.or_else(unlisted) else {
            return number_at.fail(format!("no container has a port {wanted}"));
        };
        if let Some(draft) = draft.services.get_mut(&service) {
            match public {
                true => draft.public_port(port, udp),
                false => draft.port(port, udp),
            }
        }
        if port != number && !public {
            number_at.fail(format!("ports are not translated; reach it at {service}:{port}"));
        }
        named.insert(service.clone());
        targets.insert(number.to_string(), (service.clone(), port));
        targets.extend(name.map(|name| (name, (service, port))));
    }
}

/// Whether a name, and not one that only begins with it, is somewhere in `text`.
fn mentions(text: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.split(name).skip(1).any(|rest| !rest.starts_with(goes_on))
}

/// The hosts of an Ingress.
fn ingress(at: &At<'_>, services: &BTreeMap<String, Targets>, draft: &mut Draft) {
    let Some(spec) = at.fields() else { return };
    spec.skip(&["ingressClassName"]);
    for at in spec.get("rules").map(|at| at.items()).unwrap_or_default() {
        let Some(rule) = at.fields() else { continue };
        let host = rule.get("host").and_then(|at| at.text());
        let http = rule.get("http").and_then(|at| at.fields());
        let paths = http.as_ref().and_then(|http| http.get("paths"));
        for at in paths.map(|at| at.items()).unwrap_or_default() {
            let Some(fields) = at.fields() else { continue };
            fields.skip(&["pathType"]);
            let path = fields.get("path").and_then(|at| Some((at.text()?, at)));
            let backend = fields.get("backend").and_then(|at| Some((backend(&at)?, at)));
            fields.finish_foreign(&[], NO_COUNTERPART);
            if let Some((_, at)) =
                path.filter(|(path, _)| path.trim_end_matches("/*") != "/" && !path.is_empty())
            {
                at.fail("a host leads to one service as a whole; give this path a host of its own");
                continue;
            }
            let Some(((service, port), at)) = backend else { continue };
            match (&host, services.get(&service).and_then(|targets| targets.get(&port))) {
                (Some(host), Some((service, port))) => {
                    draft.ingress.insert(host.to_ascii_lowercase(), format!("{service}:{port}"));
                }
                (None, _) => at.fail("it has no host; write one under x-roadstead.ingress"),
                (Some(_), None) => {
                    at.fail(format!("there is no Service {service} with port {port} here"))
                }
            }
        }
        rule.finish_foreign(&[], NO_COUNTERPART);
    }
    spec.finish_foreign(
        &[
            ("defaultBackend", "it has no host; write one under x-roadstead.ingress"),
            ("tls", "certificates are the provider's ingress's to have"),
        ],
        NO_COUNTERPART,
    );
}

fn backend(at: &At<'_>) -> Option<(String, String)> {
    let fields = at.fields()?;
    let service = fields.get("service").and_then(|at| at.fields())?;
    let name = service.get("name")?.text()?;
    let port = service.get("port").and_then(|at| at.fields())?;
    let port = port.get("number").or_else(|| port.get("name"))?.scalar()?;
    Some((name, port))
}

fn labels(metadata: Option<&Value>) -> Map<String, Value> {
    let labels = metadata.and_then(|metadata| metadata.get("labels"));
    labels.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The name of a container's service: the workload's, where it has but one.
fn service_name(workload: &str, container: Option<&str>, alone: bool) -> String {
    match container {
        Some(container) if !alone => label(&format!("{workload}-{container}")),
        Some(_) | None => label(workload),
    }
}

/// Fields that a cluster fills in by itself and that say nothing.
fn skip_defaults(fields: &Fields<'_>) {
    fields.skip(&[
        "dnsPolicy",
        "enableServiceLinks",
        "imagePullPolicy",
        "nodeName",
        "preemptionPolicy",
        "priority",
        "schedulerName",
        "serviceAccount",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ]);
}
