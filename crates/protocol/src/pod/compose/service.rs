//! A service of a compose file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use super::{
    Declared, Image, Reader,
    mounts::Placed,
    pairs, path, placeholder,
    refused::{CGROUP, DEPLOY_REFUSED, GLOBAL, IPC, PLATFORM, SERVICE_REFUSED},
};
use crate::pod::{
    Group, HostName, Label, LabelKey, Runtime, Service, Sysctl, Ulimit, UlimitName, Variable,
    check::{bytes_in_range, in_range},
    limits,
    names::show,
    text,
    tree::{At, Fields},
};
use crate::resources::Bytes;

impl Reader<'_> {
    pub(super) fn service(
        &self,
        name: &Label,
        at: &At<'_>,
        declared: &Declared,
    ) -> Option<(Service, Option<Image>, usize)> {
        let fields = at.fields()?;
        let image = self.image(&fields);
        let mounts = self.mounts(&fields);
        let deploy = fields.get("deploy").and_then(|at| at.fields());
        let depends_on = self.dependencies(&fields);
        let truth = |name| fields.get(name).and_then(|at| at.truth()).unwrap_or_default();
        let secrets = fields.get("secrets");
        let configs = fields.get("configs");
        let ports = self.ports(&fields);
        let service = Service {
            command: fields.get("command").and_then(|at| self.words(&at)),
            configs: configs
                .map(|at| self.placed(&at, Placed::Config, &declared.configs))
                .unwrap_or_default(),
            depends_on: depends_on.all,
            dns: self.name_servers(&fields),
            dns_opt: each(&fields, "dns_opt"),
            dns_search: each(&fields, "dns_search"),
            domainname: fields.get("domainname").and_then(|at| at.parse()),
            entrypoint: fields.get("entrypoint").and_then(|at| self.words(&at)),
            environment: self.environment(&fields),
            extra_hosts: self.extra_hosts(&fields),
            group_add: self.group_add(&fields),
            healthcheck: fields.get("healthcheck").and_then(|at| self.healthcheck(&at)),
            hostname: fields.get("hostname").and_then(|at| at.parse()),
            image: placeholder()?,
            init: truth("init"),
            labels: self.labels(&fields),
            limits: self.limits(name, &fields, deploy.as_ref()),
            networks: self.attachments(&fields, &declared.networks),
            optional: depends_on.optional,
            ports: ports.all,
            public: ports.public,
            read_only: truth("read_only"),
            replica_of: None,
            restart: self.restart(name, &fields, deploy.as_ref()),
            runtime: self.runtime(&fields),
            secrets: secrets
                .map(|at| self.placed(&at, Placed::Secret, &declared.secrets))
                .unwrap_or_default(),
            shm_size: fields.get("shm_size").and_then(|at| at.parse()),
            stdin_open: truth("stdin_open"),
            stop_grace: fields.get("stop_grace_period").and_then(|at| self.seconds(&at)),
            stop_signal: fields.get("stop_signal").and_then(|at| at.parse()),
            storage: self.storage(&fields),
            sysctls: self.sysctls(&fields),
            tmpfs: mounts.tmpfs,
            tty: truth("tty"),
            ulimits: self.ulimits(&fields),
            user: fields.get("user").and_then(|at| at.parse()),
            volumes: mounts.volumes,
            working_dir: fields.get("working_dir").and_then(|at| path(&at)),
        };
        let replicas = self.replicas(&fields, deploy.as_ref());
        // Read before, where it was decided that the service runs.
        drop(fields.get("profiles"));
        self.already_so(&fields);
        if let Some(deploy) = deploy {
            deploy.finish(DEPLOY_REFUSED);
        }
        fields.finish(SERVICE_REFUSED);
        Some((service, image, replicas))
    }

    /// How many containers of it run.
    fn replicas(&self, fields: &Fields<'_>, deploy: Option<&Fields<'_>>) -> usize {
        let deploy = deploy.inspect(|deploy| deploy.only("mode", &["replicated"], GLOBAL));
        let replicas = deploy.and_then(|deploy| deploy.get("replicas"));
        let scale = fields.get("scale");
        if let (Some(scale), Some(replicas)) = (&scale, &replicas)
            && scale.scalar() != replicas.scalar()
        {
            scale.fail("deploy.replicas says another number; remove one");
        }
        let Some(at) = replicas.or(scale) else { return 1 };
        let replicas = at.whole().unwrap_or(1);
        let range = 1..=limits::SERVICES;
        if replicas == 0 {
            at.fail("with no container there is no service; give it a profile, or remove it");
        } else if at.check(in_range(&replicas, &range)).is_none() {
            return 1;
        }
        if replicas > 1
            && let Some(at) = fields.get("container_name")
        {
            at.fail("several containers cannot have one name; remove this");
        }
        replicas.max(1)
    }

    /// What a pod has anyway may be written, and nothing else there.
    fn already_so(&self, fields: &Fields<'_>) {
        fields.only("privileged", &["false"], "a privileged container owns its host; remove this");
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
        fields.only("cgroup", &["private"], CGROUP);
        fields.only("ipc", &["private"], IPC);
        fields.only("platform", &["linux/amd64"], PLATFORM);
        // Nobody is attached to what runs elsewhere.
        let _either = fields.get("attach").and_then(|at| at.truth());
    }

    /// What Docker's runc does needs no word.
    fn runtime(&self, fields: &Fields<'_>) -> Option<Runtime> {
        let at = fields.get("runtime")?;
        match at.text()?.as_str() {
            "runc" => None,
            "runsc" => Some(Runtime::Runsc),
            other => {
                at.fail(format!(
                    "{} is not offered; write runsc (gVisor), or remove it",
                    show(other)
                ));
                None
            }
        }
    }

    /// Docker's own key for how large a container's root may grow.
    fn storage(&self, fields: &Fields<'_>) -> Option<Bytes> {
        let options = fields.get("storage_opt")?.fields()?;
        let at = options.get("size");
        options.finish(&[]);
        let at = at?;
        let size = at.parse()?;
        at.check(bytes_in_range(size, &limits::LAYER))?;
        Some(size)
    }

    fn image(&self, fields: &Fields<'_>) -> Option<Image> {
        let built = fields.get("build");
        let local = self.stays_local(fields);
        match (fields.get("image"), built) {
            (Some(at), built) => {
                let text = at.text()?;
                let name = at.check(text.parse())?;
                Some(Image { name, built: built.is_some() || local, encrypted: false })
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

    /// Whether the image is the one on the publisher's machine. Else its digest decides what is pulled, and when.
    fn stays_local(&self, fields: &Fields<'_>) -> bool {
        let Some(at) = fields.get("pull_policy") else { return false };
        let Some(policy) = at.text() else { return false };
        match policy.as_str() {
            "never" | "build" => return true,
            "always" | "missing" | "if_not_present" | "daily" | "weekly" => (),
            other if other.starts_with("every_") => (),
            other => at.fail(format!(
                "{} is no pull policy; write always, missing, never or build",
                show(other)
            )),
        }
        false
    }

    fn words(&self, at: &At<'_>) -> Option<Vec<String>> {
        if at.value.is_array() {
            return at.items().iter().map(At::value_text).collect();
        }
        let line = at.scalar()?;
        at.check(text::words(&line))
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
        if !required && self.surroundings.read(&file).is_err() {
            return Vec::new();
        }
        self.variables(at, &file, raw)
    }

    /// The variables in a file.
    fn variables(&self, at: &At<'_>, file: &str, raw: bool) -> Vec<(String, Option<String>)> {
        let Some(contents) = self.contents(at, file) else { return Vec::new() };
        let lookup = |name: &str| self.surroundings.variable(name);
        let mut unset =
            |name: &str| at.note(&format!("variable {name} is not set and taken as empty"));
        let variables = text::env_file(&contents, raw, &lookup, &mut unset);
        at.check(variables.map_err(|err| format!("{}, {err}", file))).unwrap_or_default()
    }

    fn labels(&self, fields: &Fields<'_>) -> BTreeMap<LabelKey, String> {
        let mut all = BTreeMap::new();
        for at in fields.get("label_file").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(file) = at.text() else { continue };
            for (key, value) in self.variables(&at, &file, false) {
                all.extend(at.check(key.parse()).map(|key| (key, value.unwrap_or_default())));
            }
        }
        for (at, key, value) in fields.get("labels").map(|at| pairs(&at)).unwrap_or_default() {
            all.extend(at.check(key.parse()).map(|key| (key, value.unwrap_or_default())));
        }
        all
    }

    fn extra_hosts(&self, fields: &Fields<'_>) -> BTreeMap<HostName, BTreeSet<IpAddr>> {
        let Some(at) = fields.get("extra_hosts") else { return BTreeMap::new() };
        let mut all: BTreeMap<HostName, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut entries: Vec<(At<'_>, String, String)> = Vec::new();
        if at.value.is_array() {
            for at in at.items() {
                let Some(text) = at.text() else { continue };
                match text.split_once('=').or_else(|| text.split_once(':')) {
                    Some((host, address)) => {
                        entries.push((at, host.to_owned(), address.to_owned()))
                    }
                    None => at
                        .fail(format!("{} is no host; write it as in db=203.0.113.7", show(&text))),
                }
            }
        } else {
            for (host, at) in at.entries() {
                let each = at.one_or_many().into_iter();
                entries
                    .extend(each.filter_map(|at| Some((at.clone(), host.to_owned(), at.text()?))));
            }
        }
        for (at, host, address) in entries {
            let bare = address.trim().trim_start_matches('[').trim_end_matches(']');
            let address = match bare.parse::<IpAddr>() {
                Ok(address) => Some(address),
                Err(_) if bare == "host-gateway" => {
                    at.fail(
                        "the host is not yours to reach; use a service's name, or a public address",
                    );
                    None
                }
                Err(_) => {
                    at.fail(format!("{} is not an IP address", show(bare)));
                    None
                }
            };
            if let Some((host, address)) = at.check(host.parse::<HostName>()).zip(address) {
                all.entry(host).or_default().insert(address);
            }
        }
        all
    }

    fn name_servers(&self, fields: &Fields<'_>) -> Vec<Ipv4Addr> {
        let all = fields.get("dns").map(|at| at.one_or_many()).unwrap_or_default();
        let server = |at: At<'_>| {
            let text = at.scalar()?;
            let what = || format!("{} is not an IPv4 address such as 9.9.9.9", show(&text));
            at.check(text.trim().parse().map_err(|_err| what()))
        };
        all.into_iter().filter_map(server).collect()
    }

    fn group_add(&self, fields: &Fields<'_>) -> BTreeSet<Group> {
        let groups = fields.get("group_add").map(|at| at.items()).unwrap_or_default();
        groups.iter().filter_map(At::parse).collect()
    }

    fn sysctls(&self, fields: &Fields<'_>) -> BTreeMap<Sysctl, String> {
        let mut all = BTreeMap::new();
        for (at, name, value) in fields.get("sysctls").map(|at| pairs(&at)).unwrap_or_default() {
            let Some(name) = at.check(name.parse()) else { continue };
            match value {
                Some(value) => drop(all.insert(name, value)),
                None => at.fail("it has no value; write one"),
            }
        }
        all
    }

    fn ulimits(&self, fields: &Fields<'_>) -> BTreeMap<UlimitName, Ulimit> {
        let Some(at) = fields.get("ulimits") else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<UlimitName>());
            let limit = if at.value.is_object() {
                let Some(fields) = at.fields() else { continue };
                let soft = fields.require("soft", "write soft and hard").and_then(|at| at.whole());
                let hard = fields.require("hard", "write soft and hard").and_then(|at| at.whole());
                fields.finish(&[]);
                soft.zip(hard).map(|(soft, hard)| Ulimit { hard, soft })
            } else {
                at.whole().map(|both| Ulimit { hard: both, soft: both })
            };
            all.extend(name.zip(limit));
        }
        all
    }
}

/// The items of a field that is one word or a list of them.
fn each<T>(fields: &Fields<'_>, name: &'static str) -> Vec<T>
where
    T: FromStr,
    T::Err: Display,
{
    let all = fields.get(name).map(|at| at.one_or_many()).unwrap_or_default();
    all.iter().filter_map(At::parse).collect()
}
