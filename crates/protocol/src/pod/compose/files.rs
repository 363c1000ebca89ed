//! The files of a compose file: what it includes, and whose services its own extend.
//!
//! They become one tree, with all paths as the first file would write them, before anything of it is read.

use std::{cell::Cell, collections::BTreeMap};

use serde_json::{Map, Value};

use super::Surroundings;
use crate::pod::{
    limits,
    names::show,
    text,
    tree::{At, Log, key, read},
};

type Tree = Map<String, Value>;

/// The sections that an included file may fill.
const SECTIONS: [&str; 5] = ["services", "volumes", "networks", "secrets", "configs"];

/// Reads files, and counts them.
pub(super) struct Files<'a> {
    log: &'a Log,
    surroundings: &'a dyn Surroundings,
    /// How many may still be read.
    left: Cell<usize>,
    /// How many nodes services may still take over from others.
    nodes: Cell<usize>,
}

/// Where a file is, and what its variables are.
#[derive(Clone)]
struct Place {
    /// How the file is named in errors.
    name: String,
    /// What its paths are relative to, itself relative to the first file.
    folder: String,
    /// The variables that an include brings; those of the surroundings win.
    variables: BTreeMap<String, String>,
    /// How many files led here.
    depth: usize,
}

impl<'a> Files<'a> {
    pub(super) fn new(log: &'a Log, surroundings: &'a dyn Surroundings) -> Self {
        let (left, nodes) = (Cell::new(limits::FILES), Cell::new(limits::NODES));
        Self { log, surroundings, left, nodes }
    }

    /// The whole of which `yaml` is the first file.
    pub(super) fn main(&self, yaml: &str) -> Option<Value> {
        let place = Place {
            name: "compose file".into(),
            folder: String::new(),
            variables: BTreeMap::new(),
            depth: 0,
        };
        self.model(self.tree(yaml, &place)?, &place).map(Value::Object)
    }

    /// A file on its own.
    fn tree(&self, yaml: &str, place: &Place) -> Option<Tree> {
        let lookup = |name: &str| {
            self.surroundings.variable(name).or_else(|| place.variables.get(name).cloned())
        };
        match read(yaml, &place.name, &lookup, self.log)? {
            Value::Object(tree) => Some(tree),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                self.log.fail(&place.name, "it is no map; write services, with a service in it");
                None
            }
        }
    }

    /// A file with all that it includes and extends.
    fn model(&self, mut tree: Tree, place: &Place) -> Option<Tree> {
        let include = tree.remove("include").unwrap_or_default();
        if let Some(Value::Object(services)) = tree.remove("services") {
            let extended = services.keys().map(|name| {
                let mut seen = Vec::new();
                Some((name.clone(), self.extended(name, &services, place, &mut seen)?))
            });
            let extended: Option<Tree> = extended.collect();
            tree.insert("services".into(), Value::Object(extended?));
        } else if let Some(other) = tree.remove("services") {
            tree.insert("services".into(), other);
        }
        for section in ["secrets", "configs"] {
            for declared in objects(tree.get_mut(section)) {
                rebase(declared.get_mut("file"), &place.folder);
            }
        }
        if !include.is_null() {
            self.include(&include, &mut tree, place)?;
        }
        Some(tree)
    }

    fn include(&self, include: &Value, tree: &mut Tree, place: &Place) -> Option<()> {
        let at = At { value: include, path: "include".into(), log: self.log };
        for at in at.items() {
            let included = self.included(&at, place)?;
            for (section, entries) in included {
                let Value::Object(entries) = entries else { continue };
                if !SECTIONS.contains(&section.as_str()) {
                    if section == "x-roadstead" {
                        at.fail(
                            "x-roadstead belongs into the file that is deployed; move it there",
                        );
                    }
                    continue;
                }
                let ours =
                    tree.entry(section.as_str()).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(ours) = ours else { continue };
                for (name, value) in entries {
                    match ours.get(&name) {
                        Some(known) if *known != value => {
                            at.fail(format!(
                                "{section}.{name} is there already, and differs; rename one"
                            ));
                        }
                        Some(_) => (),
                        None => drop(ours.insert(name, value)),
                    }
                }
            }
        }
        Some(())
    }

    /// One entry of `include`: a file, or several of which the later ones change the first.
    fn included(&self, at: &At<'_>, place: &Place) -> Option<Tree> {
        let (paths, folder, env_files) = if at.value.is_object() {
            let fields = at.fields()?;
            let paths = fields.require("path", "write path: FILE")?.one_or_many();
            let folder = fields.get("project_directory").and_then(|at| at.text());
            let env_files = fields.get("env_file").map(|at| at.one_or_many());
            fields.finish(&[]);
            (paths, folder, env_files)
        } else {
            (vec![at.clone()], None, None)
        };
        let mut within = Place { depth: place.depth + 1, ..place.clone() };
        let mut model: Option<Tree> = None;
        for (index, at) in paths.iter().enumerate() {
            let path = join(&place.folder, &at.text()?);
            if index == 0 {
                within.folder = match &folder {
                    Some(folder) => join(&place.folder, folder),
                    None => parent(&path),
                };
                let default = join(&within.folder, ".env");
                match &env_files {
                    None => self.env_file(at, &default, false, &mut within),
                    Some(named) => {
                        for at in named {
                            let file = join(&place.folder, &at.text()?);
                            self.env_file(at, &file, true, &mut within);
                        }
                    }
                }
            }
            within.name.clone_from(&path);
            let text = self.text(at, &path, within.depth)?;
            let next = self.model(self.tree(&text, &within)?, &within)?;
            model = Some(match model {
                None => next,
                Some(before) => merge_files(before, next),
            });
        }
        model
    }

    /// Adds the variables in a file to those of a place.
    fn env_file(&self, at: &At<'_>, file: &str, required: bool, place: &mut Place) {
        let text = match self.surroundings.read(file) {
            Ok(text) if text.len() <= limits::FILE => text,
            Ok(_) => return at.fail(format!("{} is larger than {}", show(file), limits::FILE)),
            Err(_) if !required => return,
            Err(why) => return at.fail(format!("{} cannot be read: {why}", show(file))),
        };
        let lookup = |name: &str| self.surroundings.variable(name);
        let read = text::env_file(&text, false, &lookup, &mut |_unset| ());
        let Some(found) = at.check(read.map_err(|err| format!("{file}, {err}"))) else { return };
        place.variables.extend(found.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }

    /// The text of a further file.
    fn text(&self, at: &At<'_>, path: &str, depth: usize) -> Option<String> {
        if depth > limits::NESTING {
            at.fail(format!(
                "files are nested more than {} deep; one includes itself",
                limits::NESTING
            ));
            return None;
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            at.fail(format!("there are more than {} files; merge some", limits::FILES));
            return None;
        };
        self.left.set(left);
        let read = self.surroundings.read(path);
        at.check(read.map_err(|why| format!("{} cannot be read: {why}", show(path))))
    }

    /// A service with what it takes over from the one that it extends.
    fn extended(
        &self,
        name: &str,
        services: &Tree,
        place: &Place,
        seen: &mut Vec<(String, String)>,
    ) -> Option<Value> {
        let mut own = services.get(name)?.clone();
        let Value::Object(service) = &mut own else { return Some(own) };
        for field in ["env_file", "label_file"] {
            rebase(service.get_mut(field), &place.folder);
        }
        let extends = service.remove("extends").unwrap_or_default();
        if extends.is_null() {
            return Some(own);
        }
        let path = key(&key("services", name), "extends");
        let at = At { value: &extends, path, log: self.log };
        let here = (place.name.clone(), name.to_owned());
        if seen.contains(&here) || seen.len() >= limits::NESTING {
            let names: Vec<String> =
                seen.iter().map(|(file, name)| format!("{name} in {file}")).collect();
            at.fail(format!("{} extend one another without end; remove one", names.join(" and ")));
            return None;
        }
        seen.push(here);
        let base = self.base(&at, services, place, seen)?;
        let Value::Object(service) = own else { return None };
        let Value::Object(base) = base else { return Some(Value::Object(service)) };
        let Some(left) = self.nodes.get().checked_sub(base.values().map(weight).sum()) else {
            at.fail(format!("services take over more than {} values in all", limits::NODES));
            return None;
        };
        self.nodes.set(left);
        Some(Value::Object(merge_service(base, service)))
    }

    /// The service that `extends` names.
    fn base(
        &self,
        at: &At<'_>,
        services: &Tree,
        place: &Place,
        seen: &mut Vec<(String, String)>,
    ) -> Option<Value> {
        let (name, file) = if at.value.is_object() {
            let fields = at.fields()?;
            let name = fields.require("service", "write service: NAME").and_then(|at| at.text());
            let file = fields.get("file");
            fields.finish(&[]);
            (name?, file)
        } else {
            (at.text()?, None)
        };
        let missing = |place: &Place| {
            let file = if place.depth == 0 { "this file" } else { place.name.as_str() };
            at.fail(format!("there is no service {name} in {file}"));
        };
        let Some(file) = file else {
            if !services.contains_key(&name) {
                missing(place);
                return None;
            }
            return self.extended(&name, services, place, seen);
        };
        let path = join(&place.folder, &file.text()?);
        let text = self.text(&file, &path, place.depth + 1)?;
        let folder = parent(&path);
        let place = Place { name: path, folder, depth: place.depth + 1, ..place.clone() };
        let tree = self.tree(&text, &place)?;
        match tree.get("services") {
            Some(Value::Object(services)) if services.contains_key(&name) => {
                self.extended(&name, services, &place, seen)
            }
            Some(_) | None => {
                missing(&place);
                None
            }
        }
    }
}

/// How many values there are.
fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(weight).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn objects(value: Option<&mut Value>) -> impl Iterator<Item = &mut Tree> {
    value
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(Map::values_mut)
        .filter_map(Value::as_object_mut)
}

/// A path, as somebody in the folder above `folder` writes it.
fn join(folder: &str, path: &str) -> String {
    match folder.is_empty() || path.starts_with(['/', '~']) {
        true => path.to_owned(),
        false => format!("{folder}/{}", path.strip_prefix("./").unwrap_or(path)),
    }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default()
}

/// Makes the paths at `value`, one or several, short or long, relative to the first file.
fn rebase(value: Option<&mut Value>, folder: &str) {
    match value {
        Some(Value::String(path)) => *path = join(folder, path),
        Some(Value::Array(items)) => {
            for item in items {
                rebase(Some(item), folder);
            }
        }
        Some(Value::Object(long)) => rebase(long.get_mut("path"), folder),
        Some(Value::Null | Value::Bool(_) | Value::Number(_)) | None => (),
    }
}

/// Changes a file by a later one.
fn merge_files(mut base: Tree, over: Tree) -> Tree {
    for (name, value) in over {
        let merged = match (name.as_str(), base.remove(&name), value) {
            ("services", Some(Value::Object(mut services)), Value::Object(over)) => {
                for (name, value) in over {
                    let merged = match (services.remove(&name), value) {
                        (Some(Value::Object(base)), Value::Object(over)) => {
                            Value::Object(merge_service(base, over))
                        }
                        (_, value) => value,
                    };
                    services.insert(name, merged);
                }
                Value::Object(services)
            }
            (_, Some(base), value) => merge(base, value),
            (_, None, value) => value,
        };
        base.insert(name, merged);
    }
    base
}

/// Changes a service by another, by Compose's rules: maps are merged, lists appended, and commands replaced.
fn merge_service(mut base: Tree, over: Tree) -> Tree {
    for (name, value) in over {
        let merged = match (name.as_str(), base.remove(&name)) {
            (_, None) | ("command" | "entrypoint", Some(_)) => value,
            (_, Some(base)) if value.is_null() => base,
            ("healthcheck", Some(Value::Object(mut base))) => {
                if value.get("test").is_some() {
                    base.remove("test");
                }
                merge(Value::Object(base), value)
            }
            ("environment" | "labels" | "extra_hosts" | "sysctls", Some(base)) => {
                merge_pairs(base, value)
            }
            ("depends_on" | "networks", Some(base)) => merge(named(base), named(value)),
            ("env_file" | "label_file" | "tmpfs", Some(base)) => {
                append(listed(base), listed(value), &spelling)
            }
            ("volumes", Some(Value::Array(base))) => {
                append(base, listed(value), &|item| target(item, ""))
            }
            ("configs", Some(Value::Array(base))) => {
                append(base, listed(value), &|item| target(item, "/"))
            }
            ("secrets", Some(Value::Array(base))) => {
                append(base, listed(value), &|item| target(item, "/run/secrets/"))
            }
            (_, Some(Value::Array(base))) => append(base, listed(value), &spelling),
            (_, Some(base)) => merge(base, value),
        };
        base.insert(name, merged);
    }
    base
}

fn merge(base: Value, over: Value) -> Value {
    match (base, over) {
        (base, Value::Null) => base,
        (Value::Object(mut base), Value::Object(over)) => {
            for (name, value) in over {
                let merged = match base.remove(&name) {
                    Some(before) => merge(before, value),
                    None => value,
                };
                base.insert(name, merged);
            }
            Value::Object(base)
        }
        (Value::Array(base), Value::Array(over)) => append(base, over, &spelling),
        (_, over) => over,
    }
}

/// Appends to a list; what has the key of an earlier item takes its place.
fn append(base: Vec<Value>, over: Vec<Value>, key: &dyn Fn(&Value) -> String) -> Value {
    let mut places = BTreeMap::new();
    let mut all: Vec<Value> = Vec::new();
    for item in base.into_iter().chain(over) {
        match places.get(&key(&item)).and_then(|place: &usize| all.get_mut(*place)) {
            Some(earlier) => *earlier = item,
            None => {
                places.insert(key(&item), all.len());
                all.push(item);
            }
        }
    }
    Value::Array(all)
}

fn spelling(item: &Value) -> String {
    item.to_string()
}

/// Where an item is mounted; a bare name below `folder`.
fn target(item: &Value, folder: &str) -> String {
    let place = |name: &str| match name.starts_with('/') {
        true => name.to_owned(),
        false => format!("{folder}{name}"),
    };
    match item {
        Value::String(text) => match text.split(':').nth(1) {
            Some(target) => target.trim_end_matches('/').to_owned(),
            None => place(text),
        },
        Value::Object(long) => match (long.get("target"), long.get("source")) {
            (Some(Value::String(target)), _) => place(target.trim_end_matches('/')),
            (None, Some(Value::String(source))) => place(source),
            (_, _) => spelling(item),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => spelling(item),
    }
}

/// One thing, or several, as a list.
fn listed(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            vec![value]
        }
    }
}

/// A list of names as a map without values.
fn named(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let names = items.iter().filter_map(Value::as_str);
            Value::Object(names.map(|name| (name.to_owned(), Value::Null)).collect())
        }
        value @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => value,
    }
}

/// Merges maps of pairs, or lists of them, or one with the other.
fn merge_pairs(base: Value, over: Value) -> Value {
    let item = |(name, value): (String, Value)| match value {
        Value::Null => Value::String(name),
        Value::String(text) => Value::String(format!("{name}={text}")),
        value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Value::String(format!("{name}={value}"))
        }
    };
    let flat = |value: Value| match value {
        Value::Object(map) => map.into_iter().map(item).collect(),
        value @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => listed(value),
    };
    match (base, over) {
        (Value::Object(mut base), Value::Object(over)) => {
            base.extend(over);
            Value::Object(base)
        }
        (base, over) => {
            let name = |item: &Value| match item.as_str() {
                Some(text) => text.split(['=', ':']).next().unwrap_or_default().to_owned(),
                None => item.to_string(),
            };
            append(flat(base), flat(over), &name)
        }
    }
}
