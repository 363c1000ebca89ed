//! Containers, and the pods that they are in.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    super::{Draft, Service, layer, literal, quantity},
    Cluster, NETWORK, NO_COUNTERPART, Workload, service_name, skip_defaults,
    volumes::Source,
};
use crate::{
    pod::tree::{At, Fields},
    resources::Cpu,
};

const PLACEMENT: &str = "use x-roadstead.providers";
const CONFINED: &str = "the provider confines the container";
const SECRET_VARIABLE: &str =
    "a variable is part of the pod and no secret; mount the secret as a file and read it there";

impl Cluster<'_> {
    /// The containers of a pod as services.
    pub(super) fn workload(
        &mut self,
        name: &str,
        labels: Map<String, Value>,
        at: &At<'_>,
        restart: &str,
        draft: &mut Draft,
    ) {
        let Some(spec) = at.fields() else { return };
        let sources = self.sources(name, &spec);
        let first = spec.get("initContainers").map(|at| at.items()).unwrap_or_default();
        let main = spec.get("containers").map(|at| at.items()).unwrap_or_default();
        let alone = first.len() + main.len() == 1;
        if main.len() > 1 {
            at.note("its containers were one host; now they reach each other by name, and not at localhost");
        }
        let restart = match spec.get("restartPolicy").and_then(|at| at.text()).as_deref() {
            Some("Never") => "no",
            Some("OnFailure") => "on-failure",
            Some(_) | None => restart,
        };
        let mut common = Service::default();
        common.set("restart", restart);
        pod_fields(&spec, &mut common);
        let mut workload = Workload { labels, services: Vec::new() };
        let mut before: Option<String> = None;
        for (number, at) in first.iter().chain(&main).enumerate() {
            let container = at.value.get("name").and_then(Value::as_str);
            let name = service_name(name, container, alone);
            let mut service = Service { fields: common.fields.clone(), ..Service::default() };
            let sidecar = at.value.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            let once = number < first.len() && !sidecar;
            if once {
                service.set("restart", "no");
            }
            if let Some(before) = &before {
                let done = json!({ "condition": "service_completed_successfully" });
                service.depends_on.insert(before.clone(), done);
            }
            let ports = self.container(at, &sources, &mut service, draft);
            if draft.services.insert(name.clone(), service).is_some() {
                at.fail(format!("there is another service {name} already; rename one"));
            }
            if once {
                before = Some(name);
            } else {
                workload.services.push((name, ports));
            }
        }
        self.workloads.push(workload);
        finish_pod(spec);
    }

    /// One container; its ports' numbers by name.
    fn container(
        &self,
        at: &At<'_>,
        sources: &BTreeMap<String, Source>,
        service: &mut Service,
        draft: &mut Draft,
    ) -> BTreeMap<String, u16> {
        let Some(fields) = at.fields() else { return BTreeMap::new() };
        fields.skip(&["name", "restartPolicy"]);
        skip_defaults(&fields);
        match fields.get("image").and_then(|at| at.text()) {
            Some(image) => service.set("image", literal(&image)),
            None => at.fail("it has no image"),
        }
        let variables = self.environment(&fields);
        for (from, to) in [("command", "entrypoint"), ("args", "command")] {
            if let Some(at) = fields.get(from) {
                let words = at.items();
                let words = words.iter().filter_map(At::value_text);
                let words: Vec<String> = words.map(|w| literal(&refer(&w, &variables))).collect();
                service.set(to, words);
            }
        }
        let variables = variables.into_iter().map(|(name, value)| (name, literal(&value).into()));
        service.environment = variables.collect();
        let ports = ports(&fields, service);
        if let Some(at) = fields.get("resources") {
            resources(&at, service);
        }
        if let Some(at) = fields.get("securityContext") {
            security(&at, service);
        }
        health(&fields, service);
        if let Some(folder) = fields.get("workingDir").and_then(|at| at.text()) {
            service.set("working_dir", literal(&folder));
        }
        for (from, to) in [("tty", "tty"), ("stdin", "stdin_open")] {
            if fields.get(from).and_then(|at| at.truth()) == Some(true) {
                service.set(to, true);
            }
        }
        for at in fields.get("volumeMounts").map(|at| at.items()).unwrap_or_default() {
            self.mount(&at, sources, service, draft);
        }
        fields.finish_foreign(
            &[
                ("lifecycle", "hooks are not run; do it in the entry point, or handle the signal"),
                ("stdinOnce", "nobody is attached to it"),
                ("volumeDevices", "the host's devices are not given"),
            ],
            NO_COUNTERPART,
        );
        ports
    }

    fn environment(&self, fields: &Fields<'_>) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for at in fields.get("envFrom").map(|at| at.items()).unwrap_or_default() {
            let Some(from) = at.fields() else { continue };
            let prefix = from.get("prefix").and_then(|at| at.text()).unwrap_or_default();
            if let Some(at) = from.get("configMapRef")
                && let Some(config) = self.config(&at)
            {
                let prefixed =
                    |(key, value): (&String, &String)| (format!("{prefix}{key}"), value.clone());
                all.extend(config.iter().map(prefixed));
            }
            from.finish_foreign(&[("secretRef", SECRET_VARIABLE)], NO_COUNTERPART);
        }
        for at in fields.get("env").map(|at| at.items()).unwrap_or_default() {
            let Some(variable) = at.fields() else { continue };
            let Some(name) = variable.get("name").and_then(|at| at.text()) else { continue };
            if let Some(value) = variable.get("value").and_then(|at| at.value_text()) {
                let value = refer(&value, &all);
                all.insert(name.clone(), value);
            }
            if let Some(from) = variable.get("valueFrom").and_then(|at| at.fields()) {
                let value = from.get("configMapKeyRef").and_then(|at| self.config_key(&at));
                all.extend(value.map(|value| (name, value)));
                from.finish_foreign(
                    &[
                        ("fieldRef", "a container does not know where it runs; write the value"),
                        (
                            "resourceFieldRef",
                            "a container does not know where it runs; write the value",
                        ),
                        ("secretKeyRef", SECRET_VARIABLE),
                    ],
                    NO_COUNTERPART,
                );
            }
            variable.finish_foreign(&[], NO_COUNTERPART);
        }
        all
    }

    /// The ConfigMap that `at` names.
    fn config(&self, at: &At<'_>) -> Option<&BTreeMap<String, String>> {
        let fields = at.fields()?;
        let name = fields.get("name")?.text()?;
        let optional = fields.get("optional").and_then(|at| at.truth()).unwrap_or_default();
        let found = self.configs.get(&name);
        if found.is_none() && !optional {
            at.fail(format!("there is no ConfigMap {name} in these files; add it"));
        }
        found
    }

    fn config_key(&self, at: &At<'_>) -> Option<String> {
        let key = at.value.get("key").and_then(Value::as_str)?;
        let value = self.config(at)?.get(key);
        if value.is_none() {
            at.fail(format!("the ConfigMap has no key {key}"));
        }
        value.cloned()
    }
}

/// Puts variables in the place of `$(NAME)`; `$$(NAME)` is `$(NAME)`, and what is not known stays.
fn refer(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        match reference.and_then(|(name, tail)| Some((variables.get(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn ports(fields: &Fields<'_>, service: &mut Service) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for at in fields.get("ports").map(|at| at.items()).unwrap_or_default() {
        let Some(port) = at.fields() else { continue };
        let number = port.get("containerPort").and_then(|at| at.whole::<u16>());
        let name = port.get("name").and_then(|at| at.text());
        let protocol = port.get("protocol").and_then(|at| Some((at.text()?, at)));
        port.finish_foreign(&[("hostIP", NETWORK), ("hostPort", NETWORK)], NO_COUNTERPART);
        let Some(number) = number else { continue };
        match protocol {
            Some((text, at)) if text == "SCTP" => {
                at.fail("SCTP is not spoken; use TCP");
                continue;
            }
            Some((text, _)) => service.port(number, text == "UDP"),
            None => service.port(number, false),
        }
        ports.insert(name.unwrap_or_else(|| number.to_string()), number);
    }
    ports
}

/// What holds for all containers of a pod.
fn pod_fields(spec: &Fields<'_>, common: &mut Service) {
    let grace = spec.get("terminationGracePeriodSeconds").and_then(|at| at.whole::<u32>());
    if let Some(seconds) = grace {
        common.set("stop_grace_period", format!("{seconds}s"));
    }
    if let Some(hostname) = spec.get("hostname").and_then(|at| at.text()) {
        common.set("hostname", hostname);
    }
    if let Some(at) = spec.get("securityContext") {
        security(&at, common);
    }
    let mut hosts = Vec::new();
    for at in spec.get("hostAliases").map(|at| at.items()).unwrap_or_default() {
        let Some(fields) = at.fields() else { continue };
        let ip = fields.get("ip").and_then(|at| at.text()).unwrap_or_default();
        let names = fields.get("hostnames").map(|at| at.items()).unwrap_or_default();
        hosts.extend(names.iter().filter_map(At::text).map(|name| format!("{name}={ip}")));
    }
    if !hosts.is_empty() {
        common.set("extra_hosts", hosts);
    }
}

fn finish_pod(spec: Fields<'_>) {
    skip_defaults(&spec);
    // Where they only say what a container has anyway.
    for name in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "setHostnameAsFQDN"]
    {
        if let Some(at) = spec.get(name).filter(|at| at.value.as_bool() != Some(false)) {
            at.fail("a container has its own");
        }
    }
    let token = spec.get("automountServiceAccountToken");
    if let Some(at) = token.filter(|at| at.value.as_bool() == Some(true)) {
        at.fail("there is no API of a cluster to call");
    }
    spec.finish_foreign(
        &[
            ("activeDeadlineSeconds", "nothing is stopped by the clock"),
            ("affinity", PLACEMENT),
            ("dnsConfig", "names are resolved by the provider"),
            (
                "imagePullSecrets",
                "providers pull without a password; `roadstead deploy` pushes what is on this machine",
            ),
            ("nodeSelector", PLACEMENT),
            ("overhead", "the limits are all that a container gets"),
            ("priorityClassName", "nobody's pod comes before another's"),
            ("runtimeClassName", "the provider chooses the runtime"),
            ("serviceAccountName", "there is no API of a cluster to call"),
            ("subdomain", "services are reached by name"),
            ("tolerations", PLACEMENT),
            ("topologySpreadConstraints", PLACEMENT),
        ],
        NO_COUNTERPART,
    );
}

fn resources(at: &At<'_>, service: &mut Service) {
    let Some(fields) = at.fields() else { return };
    let (requests, limits) = (fields.get("requests"), fields.get("limits"));
    fields.finish_foreign(&[], NO_COUNTERPART);
    let of = |at: &Option<At<'_>>, name: &str| {
        let all = at.as_ref().map(|at| at.entries()).unwrap_or_default();
        all.into_iter().find(|(key, _)| *key == name).map(|(_, at)| at.value.clone())
    };
    for (name, target) in [("cpu", "cpus"), ("memory", "memory")] {
        let limit = of(&limits, name);
        if limit.is_none() && of(&requests, name).is_some() {
            at.note(&format!("no limit of {name} is set, so what it requests is one"));
        }
        let Some(value) = limit.or_else(|| of(&requests, name)) else { continue };
        let at = At { value: &value, path: format!("{}.{name}", at.path), log: at.log };
        let amount = match name {
            "cpu" => at.parse::<Cpu>().map(|cpu| json!(cpu.to_string())),
            _ => at
                .scalar()
                .and_then(|text| at.check(quantity::bytes(&text)))
                .map(|bytes| json!(bytes.0)),
        };
        service.limits.extend(amount.map(|amount| (target.to_owned(), amount)));
    }
    for (name, at) in limits.iter().chain(&requests).flat_map(|at| at.entries()) {
        match name {
            "cpu" | "memory" => (),
            // What is requested of them is what the limit is.
            "nvidia.com/gpu" => service.gpus = at.whole().unwrap_or(service.gpus),
            // Its limit comes first, and holds.
            "ephemeral-storage" if service.fields.contains_key("storage_opt") => (),
            "ephemeral-storage" => {
                let size = at.scalar().and_then(|text| at.check(quantity::bytes(&text)));
                if let Some(size) = size.and_then(|size| layer(&at, size)) {
                    service.set("storage_opt", json!({ "size": size.0 }));
                }
            }
            _ => at.fail("only processor time, memory, nvidia's GPUs and volumes are offered"),
        }
    }
}

fn security(at: &At<'_>, service: &mut Service) {
    let Some(fields) = at.fields() else { return };
    let id = |name| fields.get(name).and_then(|at| at.whole::<u32>());
    match (id("runAsUser"), id("runAsGroup")) {
        (Some(user), Some(group)) => service.set("user", format!("{user}:{group}")),
        (Some(user), None) => service.set("user", user.to_string()),
        (None, Some(_)) => at.fail("a group without a user cannot be set; write runAsUser as well"),
        (None, None) => (),
    }
    let mut groups: Vec<String> = id("fsGroup").iter().map(u32::to_string).collect();
    for at in fields.get("supplementalGroups").map(|at| at.items()).unwrap_or_default() {
        groups.extend(at.whole::<u32>().map(|group| group.to_string()));
    }
    if !groups.is_empty() {
        service.set("group_add", groups);
    }
    if fields.get("readOnlyRootFilesystem").and_then(|at| at.truth()) == Some(true) {
        service.set("read_only", true);
    }
    // Capabilities are dropped and privileges are not gained, whatever it says.
    fields.skip(&["allowPrivilegeEscalation", "fsGroupChangePolicy", "runAsNonRoot"]);
    if let Some(at) = fields.get("privileged").filter(|at| at.value.as_bool() != Some(false)) {
        at.fail("a privileged container owns its host");
    }
    if let Some(capabilities) = fields.get("capabilities").and_then(|at| at.fields()) {
        capabilities.skip(&["drop"]);
        let all = "all are dropped; listen on a port above 1023 and run as a user";
        capabilities.finish_foreign(&[("add", all)], NO_COUNTERPART);
    }
    if let Some(at) = fields.get("seccompProfile")
        && at.value.get("type").and_then(Value::as_str) != Some("RuntimeDefault")
    {
        at.fail(CONFINED);
    }
    let mut settings = Map::new();
    for at in fields.get("sysctls").map(|at| at.items()).unwrap_or_default() {
        let name = at.value.get("name").and_then(Value::as_str);
        settings.extend(name.map(str::to_owned).zip(at.value.get("value").cloned()));
    }
    if !settings.is_empty() {
        service.set("sysctls", Value::Object(settings));
    }
    fields.finish_foreign(
        &[("appArmorProfile", CONFINED), ("procMount", CONFINED), ("seLinuxOptions", CONFINED)],
        NO_COUNTERPART,
    );
}

/// A check that runs a program. Others come from outside, and a provider does not come in.
fn health(fields: &Fields<'_>, service: &mut Service) {
    for name in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(at) = fields.get(name) else { continue };
        let Some(probe) = at.fields() else { continue };
        let program = probe.get("exec").and_then(|at| at.value.get("command")?.as_array().cloned());
        let Some(program) = program else {
            at.fail("health checks run inside the container; write a healthcheck with a program of the image");
            continue;
        };
        if service.fields.contains_key("healthcheck") {
            at.fail("a container has one health check, and another probe is it already");
            continue;
        }
        let words = program.iter().filter_map(Value::as_str).map(|word| json!(literal(word)));
        let test: Vec<Value> = std::iter::once(json!("CMD")).chain(words).collect();
        let mut check = Map::from_iter([("test".to_owned(), Value::Array(test))]);
        let times = [
            ("periodSeconds", "interval"),
            ("timeoutSeconds", "timeout"),
            ("initialDelaySeconds", "start_period"),
        ];
        for (from, to) in times {
            let seconds = probe.get(from).and_then(|at| at.whole::<u32>());
            check.extend(seconds.map(|seconds| (to.to_owned(), json!(format!("{seconds}s")))));
        }
        let retries = probe.get("failureThreshold").and_then(|at| at.whole::<u32>());
        check.extend(retries.map(|retries| ("retries".to_owned(), json!(retries))));
        probe.skip(&["successThreshold"]);
        probe.finish_foreign(&[], NO_COUNTERPART);
        service.set("healthcheck", Value::Object(check));
    }
}
