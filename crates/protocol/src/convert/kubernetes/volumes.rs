//! Volumes of a pod, and where its containers have them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    super::{Draft, Service, literal, name, quantity},
    Cluster, NO_COUNTERPART,
};
use crate::pod::tree::{At, Fields};

/// The bytes of a volume that does not say how large it is.
const UNSAID: u64 = 1 << 30;

/// What a volume of a pod is.
pub(super) enum Source {
    /// Space, by its name here, and its size.
    Space(String, u64),
    /// Memory, and how much.
    Memory(Option<u64>),
    /// Keys of a ConfigMap.
    Config(Files),
    /// Keys of a Secret.
    Secret(Files),
}

/// Keys of a ConfigMap or a Secret, as files.
pub(super) struct Files {
    object: String,
    /// The keys, and the path of each.
    items: Vec<(String, String)>,
    mode: Option<String>,
}

/// The size that a claim asks for.
pub(super) fn claim(at: &At<'_>) -> Option<u64> {
    let spec = at.fields()?;
    spec.skip(&["accessModes", "volumeMode", "volumeName"]);
    let resources = spec.get("resources").and_then(|at| at.fields());
    let requests = resources.as_ref().and_then(|fields| fields.get("requests")?.fields());
    let storage = requests.as_ref().and_then(|fields| fields.get("storage"));
    spec.finish_foreign(
        &[
            ("dataSource", "a volume begins empty"),
            ("selector", "a pod brings its own volumes"),
            ("storageClassName", "the provider chooses the disks"),
        ],
        NO_COUNTERPART,
    );
    let at = storage?;
    let text = at.scalar()?;
    Some(at.check(quantity::bytes(&text))?.0)
}

impl Cluster<'_> {
    /// The volumes of a pod, by name.
    pub(super) fn sources(&self, workload: &str, spec: &Fields<'_>) -> BTreeMap<String, Source> {
        let mut all = BTreeMap::new();
        // A StatefulSet's are declared by its templates alone.
        let suffix = format!("-{workload}-0");
        for (claim, size) in &self.claims {
            if let Some(template) = claim.strip_suffix(&suffix) {
                let space = Source::Space(name(&[workload, template]), *size);
                all.insert(template.to_owned(), space);
            }
        }
        for at in spec.get("volumes").map(|at| at.items()).unwrap_or_default() {
            let Some(fields) = at.fields() else { continue };
            let Some(volume) = fields.get("name").and_then(|at| at.text()) else { continue };
            let source = self.source(&fields, &name(&[workload, &volume]));
            all.extend(source.map(|source| (volume, source)));
            let made = "the provider makes the volumes; use a claim with a size";
            fields.finish_foreign(
                &[
                    ("csi", made),
                    (
                        "downwardAPI",
                        "a container does not know where it runs; write it into a ConfigMap",
                    ),
                    ("ephemeral", made),
                    (
                        "hostPath",
                        "the host's files are not yours; use a claim, a ConfigMap or the image",
                    ),
                    ("nfs", made),
                    ("projected", "list its sources as volumes of their own"),
                ],
                NO_COUNTERPART,
            );
        }
        all
    }

    fn source(&self, fields: &Fields<'_>, volume: &str) -> Option<Source> {
        if let Some(at) = fields.get("emptyDir") {
            return empty(&at, volume);
        }
        if let Some(at) = fields.get("persistentVolumeClaim") {
            let claim = at.value.get("claimName").and_then(Value::as_str)?;
            let size = self.claims.get(claim).copied();
            if size.is_none() {
                at.note(&format!("the claim {claim} is not in these files, so it gets 1 GiB"));
            }
            return Some(Source::Space(name(&[claim]), size.unwrap_or(UNSAID)));
        }
        if let Some(at) = fields.get("configMap") {
            let object = at.value.get("name").and_then(Value::as_str)?;
            let optional = at.value.get("optional").and_then(Value::as_bool) == Some(true);
            let known = self.configs.get(object);
            if known.is_none() && !optional {
                at.fail(format!("there is no ConfigMap {object} in these files; add it"));
            }
            let known = known?;
            let mut found = files(&at, object, known.keys());
            found.items.retain(|(key, _)| {
                let is_there = known.contains_key(key);
                if !is_there {
                    at.fail(format!("the ConfigMap has no key {key}"));
                }
                is_there
            });
            return Some(Source::Config(found));
        }
        let at = fields.get("secret")?;
        let object = at.value.get("secretName").and_then(Value::as_str)?;
        let known = self.secrets.get(object);
        if known.is_none() && at.value.get("items").is_none() {
            at.fail(format!(
                "the keys of the Secret {object} are not in these files; add it, or write items"
            ));
            return None;
        }
        Some(Source::Secret(files(&at, object, known.into_iter().flatten())))
    }

    /// Puts a volume into a container.
    pub(super) fn mount(
        &self,
        at: &At<'_>,
        sources: &BTreeMap<String, Source>,
        service: &mut Service,
        draft: &mut Draft,
    ) {
        let Some(fields) = at.fields() else { return };
        let volume = fields.get("name").and_then(|at| at.text());
        let target = fields.get("mountPath").and_then(|at| at.text());
        let part = fields.get("subPath").and_then(|at| Some((at.text()?, at)));
        let read_only = fields.get("readOnly").and_then(|at| at.truth()).unwrap_or_default();
        let host = "the host's mounts are not seen";
        fields.finish_foreign(&[("mountPropagation", host)], NO_COUNTERPART);
        let (Some(volume), Some(target)) = (volume, target) else { return };
        let target = literal(target.trim_end_matches('/'));
        match sources.get(&volume) {
            None => at.fail(format!("the volume {volume} is left out")),
            Some(Source::Memory(size)) => {
                let size = size.map(|size| format!(":size={size}")).unwrap_or_default();
                service.tmpfs.push(format!("{target}{size}"));
            }
            Some(Source::Space(name, size)) => {
                if let Some((_, at)) = part {
                    at.fail("a volume is mounted as a whole; give this its own");
                }
                let options = if read_only { ":ro" } else { "" };
                service.volumes.push(format!("{name}:{target}{options}"));
                draft.volumes.insert(name.clone(), *size);
            }
            Some(Source::Config(files)) => {
                for (name, key, file) in files.placed(&target, part.as_ref()) {
                    let contents =
                        self.configs.get(&files.object).and_then(|config| config.get(key));
                    draft.configs.insert(name, contents.cloned().unwrap_or_default());
                    service.configs.push(file);
                }
            }
            Some(Source::Secret(files)) => {
                for (name, key, file) in files.placed(&target, part.as_ref()) {
                    let from = format!("./secrets/{}/{key}", files.object);
                    self.log.note(format!("secrets.{name}: write its contents into {from}"));
                    draft.secrets.insert(name, from);
                    service.secrets.push(file);
                }
            }
        }
    }
}

impl Files {
    /// Each file: its name here, its key, and how a service has it below `target`; with a `part`, that one at `target`.
    fn placed(&self, target: &str, part: Option<&(String, At<'_>)>) -> Vec<(String, &str, Value)> {
        let place = |path: &str| match part {
            None => Some(format!("{target}/{}", literal(path))),
            Some((part, _)) => (part == path).then(|| target.to_owned()),
        };
        let file = |(key, path): &'_ (String, String)| {
            let (name, place) = (name(&[&self.object, key]), place(path)?);
            let mut file = json!({ "source": name, "target": place });
            if let Some(mode) = &self.mode {
                file["mode"] = json!(mode);
            }
            Some((name, file))
        };
        let items = self.items.iter();
        items
            .filter_map(|item| {
                let (name, file) = file(item)?;
                Some((name, item.0.as_str(), file))
            })
            .collect()
    }
}

fn empty(at: &At<'_>, volume: &str) -> Option<Source> {
    let empty = at.fields()?;
    let in_memory = empty.get("medium").and_then(|at| at.text()).as_deref() == Some("Memory");
    let size = empty.get("sizeLimit").and_then(|at| {
        let text = at.scalar()?;
        Some(at.check(quantity::bytes(&text))?.0)
    });
    empty.finish_foreign(&[], NO_COUNTERPART);
    if in_memory {
        return Some(Source::Memory(size));
    }
    if size.is_none() {
        at.note("it has no sizeLimit, so it gets 1 GiB");
    }
    Some(Source::Space(volume.to_owned(), size.unwrap_or(UNSAID)))
}

/// Which keys come to which paths, and their mode.
fn files<'k>(at: &At<'_>, object: &str, keys: impl Iterator<Item = &'k String>) -> Files {
    let object = object.to_owned();
    let Some(fields) = at.fields() else {
        return Files { object, items: Vec::new(), mode: None };
    };
    fields.skip(&["name", "optional", "secretName"]);
    // A number is one, and what begins with a nought came as text.
    let mode = fields.get("defaultMode").and_then(|at| match at.value {
        Value::String(octal) => Some(octal.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            at.whole::<u16>().map(|mode| format!("{mode:04o}"))
        }
    });
    let listed = fields.get("items").map(|at| at.items());
    fields.finish_foreign(&[], NO_COUNTERPART);
    let items = match listed {
        None => keys.map(|key| (key.clone(), key.clone())).collect(),
        Some(listed) => {
            let text = |map: &Map<String, Value>, name| Some(map.get(name)?.as_str()?.to_owned());
            let item = |at: &At<'_>| {
                let map = at.value.as_object()?;
                Some((text(map, "key")?, text(map, "path")?))
            };
            listed.iter().filter_map(item).collect()
        }
    };
    Files { object, items, mode }
}
