//! A compose file as an untyped tree, and a reader of it that knows where it is and goes on after an error.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    str::FromStr,
};

use serde_json::Value;

pub(crate) use super::names::show;
use super::{
    limits,
    names::Invalid,
    text::{Lookup, interpolate},
};

/// One thing that is wrong with a pod, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where: `services.web.ports[0]`.
    pub path: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Everything that is wrong with a pod; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Errors(Vec<Fault>);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// One fault per line.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Errors {
    /// The faults, in the order of their paths; `None` where there are none.
    pub(crate) fn of(mut faults: Vec<Fault>) -> Option<Self> {
        faults.sort_by_cached_key(|fault| (natural(&fault.path), fault.what.clone()));
        faults.dedup();
        (!faults.is_empty()).then_some(Self(faults))
    }

    pub(crate) fn one(fault: Fault) -> Self {
        Self(vec![fault])
    }

    /// Each of them.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

/// A path that sorts as people count, `[2]` in front of `[10]`.
fn natural(path: &str) -> String {
    let parts = path.split('[').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        format!("{}{part}", "0".repeat(8_usize.saturating_sub(digits)))
    });
    parts.collect::<Vec<_>>().join("[")
}

/// `path.key`, or `path["key"]` where the key has other than plain characters in it.
pub(crate) fn key(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match key.chars().all(plain) && !key.is_empty() {
        _ if path.is_empty() => key.to_owned(),
        true => format!("{path}.{key}"),
        false => format!("{path}[{}]", show(key)),
    }
}

/// What `name` was perhaps meant to be.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .filter(|known| known.len().abs_diff(name.len()) <= 2)
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2 && distance * 2 < known.len().max(2))
        .min()
        .map(|(_, known)| known)
}

/// What was found on the way.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) faults: RefCell<Vec<Fault>>,
    pub(crate) notes: RefCell<Vec<String>>,
    /// Where a variable did not expand, so that what is there says nothing more.
    spoiled: RefCell<BTreeSet<String>>,
    /// How many bytes variables came to.
    expanded: Cell<usize>,
}

impl Log {
    pub(crate) fn fail(&self, path: &str, what: impl Into<String>) {
        if !self.spoiled.borrow().contains(path) {
            self.faults.borrow_mut().push(Fault { path: path.to_owned(), what: what.into() });
        }
    }

    pub(crate) fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
}

/// Reads YAML, which `what` names, and expands its anchors and variables.
pub(crate) fn read(yaml: &str, what: &str, variables: &Lookup<'_>, log: &Log) -> Option<Value> {
    if yaml.len() > limits::FILE {
        let (length, most) = (yaml.len(), limits::FILE);
        log.fail(what, format!("it is {length} bytes long; the limit is {most}"));
        return None;
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: limits::NODES, max_depth: 64 },
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        // Compose's `!reset` and `!override` would be lost in the tree.
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options(yaml, options) {
        Ok(value) => Some(expand(value, "", variables, log)),
        Err(err) => {
            let text = err.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            log.fail(what, text.trim().to_owned());
            None
        }
    }
}

/// Expands the variables in all values; not in keys, as in Compose, and not in extensions, which nobody reads.
fn expand(value: Value, path: &str, variables: &Lookup<'_>, log: &Log) -> Value {
    match value {
        Value::String(text) if text.contains('$') => {
            if log.expanded.get() > limits::EXPANDED {
                let most = limits::EXPANDED;
                log.fail(path, format!("variables come to more than {most} bytes by here"));
                return Value::Null;
            }
            let mut unset = |name: &str| {
                log.note(format!("{path}: variable {name} is not set and taken as empty"));
            };
            match interpolate(&text, variables, &mut unset) {
                Ok(text) => {
                    log.expanded.set(log.expanded.get() + text.len());
                    Value::String(text)
                }
                Err(err) => {
                    log.fail(path, err.0);
                    log.spoiled.borrow_mut().insert(path.to_owned());
                    Value::String(text)
                }
            }
        }
        Value::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| expand(item, &format!("{path}[{index}]"), variables, log))
            .collect(),
        Value::Object(entries) => entries
            .into_iter()
            .map(|(name, value)| match is_extension(&name) && path.is_empty() {
                true => (name, value),
                false => {
                    let value = expand(value, &key(path, &name), variables, log);
                    (name, value)
                }
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Whether a key is somebody else's.
pub(crate) fn is_extension(key: &str) -> bool {
    key.starts_with("x-") && key != "x-roadstead"
}

/// A place in the tree.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
    pub(crate) log: &'a Log,
}

impl<'a> At<'a> {
    pub(crate) fn fail(&self, what: impl Into<String>) {
        self.log.fail(&self.path, what);
    }

    pub(crate) fn note(&self, what: &str) {
        self.log.note(format!("{}: {what}", self.path));
    }

    /// Keeps a good result, reports a bad one.
    pub(crate) fn check<T>(&self, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|err| self.fail(err.to_string())).ok()
    }

    fn wants(&self, wanted: &str) {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a map",
        };
        self.fail(format!("this is {found}; write {wanted}"));
    }

    /// Text, also where YAML reads a number or a truth value.
    pub(crate) fn scalar(&self) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => {
                Some(match (number.as_i64(), number.as_u64(), number.as_f64()) {
                    (Some(number), _, _) => number.to_string(),
                    (_, Some(number), _) => number.to_string(),
                    (_, _, Some(number)) => number.to_string(),
                    (None, None, None) => number.to_string(),
                })
            }
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.wants("text");
                None
            }
        }
    }

    /// As `scalar`, with a note where a spelling may have been lost, as Compose loses it.
    pub(crate) fn value_text(&self) -> Option<String> {
        let text = self.scalar()?;
        if self.value.is_f64() {
            self.note(&format!("read as the number {text}; put it in quotes where text is meant"));
        }
        Some(text)
    }

    /// Text, and only what is written as text.
    pub(crate) fn text(&self) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                self.wants("text, in quotes");
                None
            }
        }
    }

    /// A word of the pod.
    pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Option<T> {
        let text = self.scalar()?;
        self.check(text.trim().parse())
    }

    /// A whole number.
    pub(crate) fn whole<T: FromStr>(&self) -> Option<T> {
        let text = self.scalar()?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fail(format!("{} is not a whole number in range", show(&text)));
        }
        parsed
    }

    /// `true` or `false`, also as text, which is how a variable arrives.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self.value {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                self.wants("true or false");
                None
            }
        }
    }

    /// A file mode in octal.
    pub(crate) fn mode(&self) -> Option<u16> {
        match self.value {
            Value::String(text) => {
                let digits = text.strip_prefix("0o").unwrap_or(text);
                let octal = digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
                match u16::from_str_radix(digits, 8) {
                    Ok(mode) if octal => return Some(mode),
                    Ok(_) | Err(_) => {
                        self.fail(format!("{} is no file mode such as \"0440\"", show(text)))
                    }
                }
            }
            Value::Number(_) => {
                self.fail(
                    "this number may be octal or decimal; write the mode in quotes, as \"0440\"",
                );
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                self.wants("a file mode such as \"0440\"");
            }
        }
        None
    }

    pub(crate) fn items(&self) -> Vec<At<'a>> {
        match self.value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, value)| At {
                    value,
                    path: format!("{}[{index}]", self.path),
                    log: self.log,
                })
                .collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => {
                self.wants("a list");
                Vec::new()
            }
        }
    }

    /// The items of a list, or the one thing that stands in its place.
    pub(crate) fn one_or_many(&self) -> Vec<At<'a>> {
        if self.value.is_array() { self.items() } else { vec![self.clone()] }
    }

    pub(crate) fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        match self.value {
            Value::Object(entries) => entries
                .iter()
                .map(|(name, value)| {
                    let path = key(&self.path, name);
                    (name.as_str(), At { value, path, log: self.log })
                })
                .collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                self.wants("a map");
                Vec::new()
            }
        }
    }

    /// The fields of a map that has known ones.
    pub(crate) fn fields(&self) -> Option<Fields<'a>> {
        if !self.value.is_object() {
            self.wants("a map");
            return None;
        }
        Some(Fields { at: self.clone(), known: RefCell::default() })
    }
}

/// The fields of a map; each is asked for once, and what nobody asked for is an error.
pub(crate) struct Fields<'a> {
    pub(crate) at: At<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// A field, as it is.
    pub(crate) fn raw(&self, name: &'static str) -> Option<At<'a>> {
        self.known.borrow_mut().push(name);
        let value = self.at.value.get(name)?;
        Some(At { value, path: key(&self.at.path, name), log: self.at.log })
    }

    /// A field; one that is null counts as left out.
    pub(crate) fn get(&self, name: &'static str) -> Option<At<'a>> {
        self.raw(name).filter(|at| !at.value.is_null())
    }

    /// As `get`, for what cannot be left out.
    pub(crate) fn require(&self, name: &'static str, why: &str) -> Option<At<'a>> {
        let field = self.get(name);
        if field.is_none()
            && !self.at.log.faults.borrow().iter().any(|f| f.path == key(&self.at.path, name))
        {
            self.at.fail(format!("{name} is missing; {why}"));
        }
        field
    }

    /// A field that may say only what is so already.
    pub(crate) fn only(&self, name: &'static str, accepted: &[&str], why: &str) {
        let Some(at) = self.get(name) else { return };
        let text = at.value.as_str().map_or_else(|| at.value.to_string(), str::to_owned);
        if !accepted.contains(&text.as_str()) {
            at.fail(why);
        }
    }

    /// Reports all that is left: what is known and refused with its reason, the rest with what was perhaps meant. What
    /// begins with `x-` is somebody else's, unless it looks like something of ours.
    pub(crate) fn finish(self, refused: &[(&'static str, &'static str)]) {
        let known = self.known.borrow().clone();
        let ours = move |name: &str| {
            let known = known.iter().copied().chain(["x-roadstead"]);
            closest(name, known.filter(|known| known.starts_with("x-"))).is_some()
        };
        self.report(refused, &|name| is_extension(name) && !ours(name));
    }

    /// As `finish`, where all keys are ours.
    pub(crate) fn finish_ours(self, refused: &[(&'static str, &'static str)]) {
        self.report(refused, &|_| false);
    }

    /// Reports all that is left: `known` with its reason, the rest with one for all. For formats that are not ours.
    pub(crate) fn finish_foreign(self, known: &[(&'static str, &'static str)], rest: &str) {
        let asked = self.known.into_inner();
        for (name, at) in self.at.entries() {
            if !asked.contains(&name) {
                let reason = known.iter().find(|(key, _)| *key == name).map(|(_, why)| *why);
                at.fail(reason.unwrap_or(rest));
            }
        }
    }

    /// Takes fields as they are: nothing of theirs is lost where they are left out.
    pub(crate) fn skip(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend(names);
    }

    fn report(self, refused: &[(&'static str, &'static str)], skip: &dyn Fn(&str) -> bool) {
        let known = self.known.into_inner();
        for (name, at) in self.at.entries() {
            if known.contains(&name) || skip(name) {
                continue;
            }
            if let Some((_, why)) = refused.iter().find(|(key, _)| *key == name) {
                at.fail(*why);
                continue;
            }
            let all = known.iter().copied().chain(refused.iter().map(|(key, _)| *key));
            at.fail(match closest(name, all) {
                Some(close) => format!("there is no such key; did you mean {close}?"),
                None => "there is no such key; remove it".to_owned(),
            });
        }
    }
}

impl From<Invalid> for String {
    fn from(err: Invalid) -> Self {
        err.0
    }
}
