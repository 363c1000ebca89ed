//! Akash SDL, version 2.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Draft, Service, at, label, layer, literal, name, quantity};
use crate::{
    pod::tree::{At, Fields, Log},
    resources::{Bytes, Cpu},
};

const NO_COUNTERPART: &str = "a pod has nothing like it";

/// What a compute profile gives a service.
#[derive(Default)]
struct Compute {
    cpu: Option<Cpu>,
    memory: Option<Bytes>,
    gpus: u32,
    /// What it may write outside of its volumes.
    root: Option<Bytes>,
    /// Its volumes, and whether they are in memory.
    storage: BTreeMap<String, (Bytes, bool)>,
}

pub(super) fn convert(sdl: &Value, log: &Log, draft: &mut Draft) {
    let Some(root) = at(sdl, "", log).fields() else { return };
    root.skip(&["version"]);
    let profiles = root.get("profiles").and_then(|at| at.fields());
    let mut compute = BTreeMap::new();
    if let Some(profiles) = &profiles {
        for (name, at) in profiles.get("compute").map(|at| at.entries()).unwrap_or_default() {
            compute.extend(profile(&at).map(|profile| (name.to_owned(), profile)));
        }
        for (_, at) in profiles.get("placement").map(|at| at.entries()).unwrap_or_default() {
            placement(&at, draft);
        }
    }
    let mut used: BTreeMap<String, String> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (service, at) in root.get("deployment").map(|at| at.entries()).unwrap_or_default() {
        for (_, at) in at.entries() {
            let Some(fields) = at.fields() else { continue };
            if let Some(at) = fields.get("profile")
                && let Some(profile) = at.text()
            {
                used.insert(service.to_owned(), profile);
            }
            let count = fields.get("count").and_then(|at| Some((at.whole::<usize>()?, at)));
            counts.extend(count.filter(|(count, _)| *count != 1).map(|count| (service, count)));
            fields.finish_foreign(&[], NO_COUNTERPART);
        }
    }
    for (key, at) in root.get("services").map(|at| at.entries()).unwrap_or_default() {
        let compute = used.get(key).and_then(|profile| compute.get(profile));
        if compute.is_none() {
            at.note("no compute profile is deployed for it, so the usual limits hold");
        }
        if let Some(mut service) = service(key, &at, compute.unwrap_or(&Compute::default()), draft)
        {
            match counts.get(key) {
                Some((_, at)) if !service.volumes.is_empty() => at.fail(
                    "each of them had storage of its own, and replicas share their volumes; write as many services",
                ),
                Some((count, _)) => service.set("scale", *count),
                None => (),
            }
            draft.services.insert(label(key), service);
        }
    }
    if let Some(profiles) = profiles {
        profiles.finish_foreign(&[], NO_COUNTERPART);
    }
    root.finish_foreign(
        &[(
            "endpoints",
            "addresses of one's own are not given; name a host under x-roadstead.ingress",
        )],
        NO_COUNTERPART,
    );
}

fn profile(at: &At<'_>) -> Option<Compute> {
    let fields = at.fields()?;
    let resources = fields.get("resources").and_then(|at| at.fields())?;
    let mut compute = Compute::default();
    if let Some(cpu) = resources.get("cpu").and_then(|at| at.fields()) {
        compute.cpu = cpu.get("units").and_then(|at| at.parse());
        cpu.finish_foreign(&[("attributes", "any processor may run it")], NO_COUNTERPART);
    }
    if let Some(memory) = resources.get("memory").and_then(|at| at.fields()) {
        compute.memory = memory.get("size").and_then(|at| bytes(&at));
        memory.finish_foreign(&[], NO_COUNTERPART);
    }
    compute.gpus = resources.get("gpu").and_then(|at| gpus(&at)).unwrap_or_default();
    for at in resources.get("storage").map(|at| at.one_or_many()).unwrap_or_default() {
        let Some(fields) = at.fields() else { continue };
        let size = fields.get("size").and_then(|at| bytes(&at));
        let mut in_memory = false;
        if let Some(attributes) = fields.get("attributes").and_then(|at| at.fields()) {
            in_memory = attributes.get("class").and_then(|at| at.text()).as_deref() == Some("ram");
            attributes.skip(&["persistent"]);
            attributes.finish_foreign(&[], NO_COUNTERPART);
        }
        match (fields.get("name").and_then(|at| at.text()), size) {
            (Some(name), Some(size)) => drop(compute.storage.insert(name, (size, in_memory))),
            (None, size) => compute.root = size.and_then(|size| layer(&at, size)),
            (Some(_), None) => at.fail("it has no size"),
        }
        fields.finish_foreign(&[], NO_COUNTERPART);
    }
    resources.finish_foreign(&[], NO_COUNTERPART);
    fields.finish_foreign(&[], NO_COUNTERPART);
    Some(compute)
}

/// How many GPUs; which vendor's and which model is not to be chosen, as all are nvidia's.
fn gpus(at: &At<'_>) -> Option<u32> {
    let fields = at.fields()?;
    let units = fields.get("units").and_then(|at| at.whole::<u32>());
    if let Some(attributes) = fields.get("attributes").and_then(|at| at.fields()) {
        if let Some(vendors) = attributes.get("vendor").and_then(|at| at.fields()) {
            if let Some(at) = vendors.get("nvidia").filter(|at| at.value.as_array().is_some()) {
                at.fail("providers do not say which model they have; use x-roadstead.providers");
            }
            vendors.finish_foreign(&[], "only nvidia's GPUs can be had");
        }
        attributes.finish_foreign(&[], NO_COUNTERPART);
    }
    fields.finish_foreign(&[], NO_COUNTERPART);
    units
}

fn bytes(at: &At<'_>) -> Option<Bytes> {
    let text = at.scalar()?;
    at.check(quantity::bytes(&text))
}

fn placement(at: &At<'_>, draft: &mut Draft) {
    let Some(fields) = at.fields() else { return };
    if let Some(attributes) = fields.get("attributes").and_then(|at| at.fields()) {
        if let Some(at) = attributes.get("region")
            && let Some(region) = at.text()
        {
            let region = label(&region);
            at.note("regions are the providers' own words; look at `roadstead providers`");
            if !draft.regions.contains(&region) {
                draft.regions.push(region);
            }
        }
        attributes.finish_foreign(&[], "use x-roadstead.providers");
    }
    fields.finish_foreign(
        &[
            ("pricing", "the token is another; write x-roadstead.price.max"),
            ("signedBy", "auditors have no part here; use x-roadstead.providers"),
        ],
        NO_COUNTERPART,
    );
}

fn service(key: &str, at: &At<'_>, compute: &Compute, draft: &mut Draft) -> Option<Service> {
    let fields = at.fields()?;
    let mut service = Service::default();
    if let Some(image) = fields.get("image").and_then(|at| at.text()) {
        service.set("image", literal(&image));
    }
    service.set("restart", "unless-stopped");
    for (from, to) in [("command", "entrypoint"), ("args", "command")] {
        if let Some(at) = fields.get(from) {
            let words: Vec<String> =
                at.one_or_many().iter().filter_map(At::value_text).map(|w| literal(&w)).collect();
            service.set(to, words);
        }
    }
    for at in fields.get("env").map(|at| at.items()).unwrap_or_default() {
        let Some(text) = at.text() else { continue };
        match text.split_once('=') {
            Some((name, value)) => {
                drop(service.environment.insert(name.into(), literal(value).into()))
            }
            None => drop(service.environment.insert(text, "".into())),
        }
    }
    for at in fields.get("depends_on").map(|at| at.items()).unwrap_or_default() {
        let other = match at.value.is_object() {
            true => at.fields().and_then(|fields| fields.get("service")?.text()),
            false => at.text(),
        };
        let started = serde_json::json!({ "condition": "service_started" });
        service.depends_on.extend(other.map(|other| (label(&other), started)));
    }
    for at in fields.get("expose").map(|at| at.items()).unwrap_or_default() {
        expose(key, &at, &mut service, draft);
    }
    let mounts = fields.get("params").and_then(|at| params(&at)).unwrap_or_default();
    for (volume, (size, in_memory)) in &compute.storage {
        let Some((target, read_only)) = mounts.get(volume) else {
            at.log.fail(
                &format!("{}.params.storage", at.path),
                format!("{volume} is mounted nowhere"),
            );
            continue;
        };
        if *in_memory {
            service.tmpfs.push(format!("{target}:size={}", size.0));
            continue;
        }
        let volume = name(&[key, volume]);
        let options = if *read_only { ":ro" } else { "" };
        service.volumes.push(format!("{volume}:{target}{options}"));
        draft.volumes.insert(volume, size.0);
    }
    if let Some(cpu) = compute.cpu {
        service.limits.insert("cpus".into(), cpu.to_string().into());
    }
    service.gpus = compute.gpus;
    if let Some(size) = compute.root {
        service.set("storage_opt", json!({ "size": size.0 }));
    }
    if let Some(memory) = compute.memory {
        service.limits.insert("memory".into(), memory.0.into());
    }
    fields.finish_foreign(
        &[(
            "credentials",
            "providers pull without a password; push the image with `roadstead deploy`",
        )],
        NO_COUNTERPART,
    );
    Some(service)
}

/// Where volumes are mounted, and whether only to be read.
fn params(at: &At<'_>) -> Option<BTreeMap<String, (String, bool)>> {
    let fields = at.fields()?;
    let mut mounts = BTreeMap::new();
    for (name, at) in fields.get("storage").map(|at| at.entries()).unwrap_or_default() {
        let Some(fields) = at.fields() else { continue };
        let target = fields.get("mount").and_then(|at| at.text());
        let read_only = fields.get("readOnly").and_then(|at| at.truth()).unwrap_or_default();
        mounts.extend(target.map(|target| (name.to_owned(), (literal(&target), read_only))));
        fields.finish_foreign(&[], NO_COUNTERPART);
    }
    fields.finish_foreign(&[], NO_COUNTERPART);
    Some(mounts)
}

fn expose(key: &str, at: &At<'_>, service: &mut Service, draft: &mut Draft) {
    let Some(fields) = at.fields() else { return };
    let Some(port) = fields.get("port").and_then(|at| at.whole::<u16>()) else { return };
    let outside = fields.get("as").and_then(|at| Some((at.whole::<u16>()?, at)));
    let udp =
        fields.get("proto").and_then(|at| at.text()).is_some_and(|p| p.eq_ignore_ascii_case("udp"));
    let mut global = false;
    for at in fields.get("to").map(|at| at.items()).unwrap_or_default() {
        let Some(fields) = at.fields() else { continue };
        global |= fields.get("global").and_then(|at| at.truth()).unwrap_or_default();
        // Services of a pod reach each other on all ports.
        fields.skip(&["service"]);
        fields.finish_foreign(
            &[(
                "ip",
                "addresses of one's own are not given; name a host under x-roadstead.ingress",
            )],
            NO_COUNTERPART,
        );
    }
    service.port(port, udp);
    let hosts: Vec<String> = fields
        .get("accept")
        .map(|at| at.one_or_many())
        .unwrap_or_default()
        .iter()
        .filter_map(At::text)
        .collect();
    match (global, hosts.as_slice()) {
        (true, hosts) if udp || hosts.is_empty() => {
            service.public_port(port, udp);
            at.note(&format!(
                "the provider chooses the number of a public port; where it speaks HTTP, write x-roadstead.ingress: {{ HOST: \"{}:{port}\" }}",
                label(key)
            ));
        }
        (true, hosts) => {
            let target = format!("{}:{port}", label(key));
            draft
                .ingress
                .extend(hosts.iter().map(|host| (host.to_ascii_lowercase(), target.clone())));
        }
        (false, _) => {
            if let Some((_, at)) = outside.filter(|(number, _)| *number != port) {
                at.fail(format!("ports are not translated; reach it at {}:{port}", label(key)));
            }
        }
    }
    finish_expose(fields);
}

fn finish_expose(fields: Fields<'_>) {
    fields.finish_foreign(
        &[("http_options", "the provider's ingress has its own limits and time-outs")],
        NO_COUNTERPART,
    );
}
