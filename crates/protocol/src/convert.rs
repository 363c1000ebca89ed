//! Other people's pod files as Compose files: Kubernetes manifests and Akash SDL.
//!
//! What comes out is text that this crate's own reader reads. What has no counterpart is never dropped in silence: it is
//! listed by its path in the file that was read, with the reason.

mod akash;
mod kubernetes;
mod quantity;
mod yaml;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    pod::{
        Errors, Fault, Pod, Surroundings, bytes_in_range, limits,
        tree::{At, Log, key},
    },
    resources::Bytes,
};

/// A file in other words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// A Compose file with its `x-roadstead`.
    pub compose: String,
    /// What was left out, and why, by its path in the file that was read.
    pub left_out: Vec<Fault>,
    /// What has to be done or was assumed, in sentences for people.
    pub notes: Vec<String>,
    /// What the Compose file still has to say before it is a pod, by its path there.
    pub open: Vec<Fault>,
}

/// Converts files, which may refer to one another. What they are is seen in them.
///
/// # Errors
/// When they are no YAML, or neither of the formats.
pub fn convert(files: &[&str]) -> Result<Converted, Errors> {
    let mut documents = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let name =
            if files.len() == 1 { "the file".to_owned() } else { format!("file {}", number + 1) };
        documents.extend(parse(file, &name)?);
    }
    let log = Log::default();
    let mut draft = Draft::default();
    let (kubernetes, others): (Vec<Value>, Vec<Value>) =
        documents.into_iter().partition(|document| document.get("kind").is_some());
    let is_akash = |document: &Value| {
        document.get("services").is_some() && document.get("deployment").is_some()
    };
    match (kubernetes.as_slice(), others.as_slice()) {
        ([], [sdl]) if is_akash(sdl) => akash::convert(sdl, &log, &mut draft),
        ([_, ..], []) => kubernetes::convert(&kubernetes, &files.concat(), &log, &mut draft),
        (_, _) => {
            return Err(one(
                "the file",
                "this is neither a Kubernetes manifest (with apiVersion and kind) nor an Akash SDL (with services and deployment)",
            ));
        }
    }
    if draft.services.is_empty() {
        log.fail(
            "services",
            "nothing in it runs; write a Pod, a Deployment, a StatefulSet or a Job",
        );
        return Err(
            Errors::of(log.faults.take()).unwrap_or_else(|| one("services", "nothing in it runs"))
        );
    }
    let compose = draft.compose();
    let open = match Pod::from_compose(&compose, &Anything) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.faults().to_vec(),
    };
    let left_out = Errors::of(log.faults.take()).map(|all| all.faults().to_vec());
    let mut notes = log.notes.take();
    notes.sort();
    Ok(Converted { compose, left_out: left_out.unwrap_or_default(), notes, open })
}

fn one(path: &str, what: &str) -> Errors {
    Errors::one(Fault { path: path.to_owned(), what: what.to_owned() })
}

/// The documents of a file; those that are empty are none.
fn parse(file: &str, name: &str) -> Result<Vec<Value>, Errors> {
    if file.len() > limits::FILE {
        return Err(one(name, &format!("it is larger than {} bytes", limits::FILE)));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: limits::NODES, max_depth: 64 },
        leading_zero_numbers_as_strings: true,
        strict_booleans: true,
        with_snippet: false,
    };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(file, options).map_err(|err| {
            one(name, err.render_with_formatter(&serde_saphyr::UserMessageFormatter).trim())
        })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Surroundings in which every file is there: whether the rest of a file is right does not depend on them.
struct Anything;

impl Surroundings for Anything {
    fn variable(&self, _name: &str) -> Option<String> {
        Some(String::new())
    }

    fn read(&self, _path: &str) -> Result<String, String> {
        Ok(String::new())
    }
}

/// A Compose file that is being written.
#[derive(Default)]
struct Draft {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, u64>,
    configs: BTreeMap<String, String>,
    /// By name, the file in which its contents are expected.
    secrets: BTreeMap<String, String>,
    ingress: BTreeMap<String, String>,
    regions: Vec<String>,
}

/// A service that is being written: what is written once, and lists that grow.
#[derive(Default)]
struct Service {
    fields: Map<String, Value>,
    environment: Map<String, Value>,
    ports: Vec<String>,
    expose: Vec<String>,
    volumes: Vec<String>,
    tmpfs: Vec<String>,
    configs: Vec<Value>,
    secrets: Vec<Value>,
    aliases: Vec<String>,
    depends_on: Map<String, Value>,
    limits: Map<String, Value>,
    gpus: u32,
}

fn port(number: u16, udp: bool) -> String {
    match udp {
        true => format!("{number}/udp"),
        false => number.to_string(),
    }
}

/// What a service may write outside of its volumes, if a pod can say so.
fn layer(at: &At<'_>, size: Bytes) -> Option<Bytes> {
    at.check(bytes_in_range(size, &limits::LAYER)).map(|()| size)
}

impl Service {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// A port that the services of the pod reach, and hosts may lead to.
    fn port(&mut self, number: u16, udp: bool) {
        let port = port(number, udp);
        if !self.expose.contains(&port) && !self.ports.contains(&port) {
            self.expose.push(port);
        }
    }

    /// The same for one that the world reaches.
    fn public_port(&mut self, number: u16, udp: bool) {
        let port = port(number, udp);
        self.expose.retain(|known| *known != port);
        if !self.ports.contains(&port) {
            self.ports.push(port);
        }
    }

    fn alias(&mut self, name: &str) {
        if !self.aliases.iter().any(|known| known == name) {
            self.aliases.push(name.to_owned());
        }
    }

    fn value(self) -> Value {
        let mut all = self.fields;
        let mut add = |name: &str, value: Value| {
            let empty = value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty);
            if !empty {
                all.insert(name.to_owned(), value);
            }
        };
        add("environment", Value::Object(self.environment));
        add("ports", self.ports.into());
        add("expose", self.expose.into());
        add("volumes", self.volumes.into());
        add("tmpfs", self.tmpfs.into());
        add("configs", self.configs.into());
        add("secrets", self.secrets.into());
        add("depends_on", Value::Object(self.depends_on));
        if !self.aliases.is_empty() {
            add("networks", serde_json::json!({ "default": { "aliases": self.aliases } }));
        }
        let mut resources = Map::new();
        if !self.limits.is_empty() {
            resources.insert("limits".into(), Value::Object(self.limits));
        }
        if self.gpus > 0 {
            let device = serde_json::json!({
                "driver": "nvidia", "count": self.gpus, "capabilities": ["gpu"],
            });
            let devices = serde_json::json!({ "devices": [device] });
            resources.insert("reservations".into(), devices);
        }
        if !resources.is_empty() {
            add("deploy", serde_json::json!({ "resources": resources }));
        }
        Value::Object(all)
    }
}

impl Draft {
    fn compose(self) -> String {
        let mut all = Map::new();
        let mut add = |name: &str, value: Map<String, Value>| {
            if !value.is_empty() {
                all.insert(name.to_owned(), Value::Object(value));
            }
        };
        let one =
            |name: &str, value: Value| Value::Object(Map::from_iter([(name.to_owned(), value)]));
        let volumes =
            self.volumes.into_iter().map(|(name, size)| (name, one("x-size", size.into())));
        let configs = self
            .configs
            .into_iter()
            .map(|(name, text)| (name, one("content", literal(&text).into())));
        let secrets = self.secrets.into_iter().map(|(name, file)| (name, one("file", file.into())));
        add("services", self.services.into_iter().map(|(name, s)| (name, s.value())).collect());
        add("volumes", volumes.collect());
        add("configs", configs.collect());
        add("secrets", secrets.collect());
        let mut block = Map::new();
        if !self.ingress.is_empty() {
            let ingress = self.ingress.into_iter().map(|(host, to)| (host, Value::from(to)));
            block.insert("ingress".into(), Value::Object(ingress.collect()));
        }
        if !self.regions.is_empty() {
            block.insert("providers".into(), one("region", self.regions.into()));
        }
        add("x-roadstead", block);
        yaml::write(&Value::Object(all))
    }
}

/// Text of which nothing is a variable.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// A name as a service's: lower-case letters, digits and dashes.
fn label(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = name.chars().map(plain).take(63).collect();
    label.trim_matches('-').to_owned()
}

/// A name as a volume's, a secret's or a config's.
fn name(parts: &[&str]) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => c,
        _ => '-',
    };
    let name: String = parts.join("-").chars().map(plain).take(63).collect();
    name.trim_start_matches(['-', '_', '.']).to_owned()
}

/// The document at its place in the log.
fn at<'a>(value: &'a Value, path: &str, log: &'a Log) -> At<'a> {
    At { value, path: key("", path), log }
}
