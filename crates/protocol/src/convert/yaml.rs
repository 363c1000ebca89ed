//! Writes YAML of the kind that people write: blocks, and quotes only where they are needed.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Which keys come first in a file; the others follow by name.
const TOP: &[&str] = &["services", "volumes", "configs", "secrets", "x-roadstead"];

/// Which keys come first below.
const FIRST: &[&str] = &[
    "image",
    "entrypoint",
    "command",
    "working_dir",
    "user",
    "depends_on",
    "environment",
    "ports",
    "expose",
    "volumes",
    "tmpfs",
    "configs",
    "secrets",
    "healthcheck",
    "restart",
    "source",
    "target",
    "test",
];

/// `value`, which is a map, as a document.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) => map(&mut out, entries, 0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            out.push_str(&scalar(value));
        }
    }
    out
}

fn map(out: &mut String, entries: &Map<String, Value>, depth: usize) {
    let order = if depth == 0 { TOP } else { FIRST };
    let place = |name: &str| order.iter().position(|first| *first == name).unwrap_or(order.len());
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(name, _)| (place(name), name.to_owned()));
    for (name, value) in sorted {
        let indent = "  ".repeat(depth);
        let _infallible = write!(out, "{indent}{}:", text(name));
        item(out, value, depth + 1);
    }
}

/// What follows a key.
fn item(out: &mut String, value: &Value, depth: usize) {
    if let Some(entries) = filled(value) {
        out.push('\n');
        return map(out, entries, depth);
    }
    if let Value::Array(items) = value
        && !items.is_empty()
    {
        out.push('\n');
        return items.iter().for_each(|each| dash(out, each, depth));
    }
    match value {
        Value::String(lines) if is_block(lines) => block(out, lines, depth),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            let _infallible = writeln!(out, " {}", scalar(value));
        }
    }
}

/// An item of a list.
fn dash(out: &mut String, value: &Value, depth: usize) {
    let mut inner = match filled(value) {
        Some(_) => String::new(),
        None => format!("{}\n", scalar(value)),
    };
    if let Some(entries) = filled(value) {
        map(&mut inner, entries, depth + 1);
    }
    let _infallible = write!(out, "{}- {}", "  ".repeat(depth), inner.trim_start());
}

/// The entries of a map that has some.
fn filled(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|entries| !entries.is_empty())
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Text without quotes where nobody can take it for something else; else JSON's, which YAML understands.
fn text(value: &str) -> String {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let lower = value.to_ascii_lowercase();
    let is_plain = value.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'))
        && value.chars().all(plain)
        && !words.contains(&lower.as_str());
    match is_plain {
        true => value.to_owned(),
        false => Value::from(value).to_string(),
    }
}

/// Whether text reads the same out of a literal block.
fn is_block(value: &str) -> bool {
    let plain = |c: char| {
        c == '\n'
            || c == '\t'
            || (!c.is_control() && !matches!(c, '\u{feff}' | '\u{85}' | '\u{2028}' | '\u{2029}'))
    };
    value.contains('\n')
        && value.chars().all(plain)
        && !value.starts_with([' ', '\t', '\n'])
        && !value.ends_with("\n\n")
        && !value
            .lines()
            .any(|line| line.starts_with('\t') || line.trim().is_empty() && !line.is_empty())
}

fn block(out: &mut String, value: &str, depth: usize) {
    out.push_str(if value.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in value.lines() {
        if !line.is_empty() {
            let _infallible = write!(out, "{}{line}", "  ".repeat(depth));
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trip(value: &Value) {
        let yaml = write(value);
        let read: Value =
            serde_saphyr::from_str(&yaml).unwrap_or_else(|err| panic!("{err}\n{yaml}"));
        assert_eq!(read, *value, "{yaml}");
    }

    #[test]
    fn it_reads_as_it_was() {
        trip(&serde_json::json!({
            "a": { "b": [1, "1", "no", "", { "x": "y", "z": ["a:b", "- c"] }, "two words"], "e": [], "f": {} },
            "text": "one\n  two\n\nthree\n",
            "no end": "one\ntwo",
            "odd": "\ta\n b",
            "image": "ghcr.io/a/b:1@sha256:00",
        }));
    }

    proptest! {
        #[test]
        fn any_text_reads_as_it_was(key in "[ -~]{0,8}", text: String, lines in "([ -~\t]{0,6}\n){0,4}") {
            let text: String = text.chars().filter(|c| *c != '\u{feff}').collect();
            trip(&serde_json::json!({ key: { "text": text, "lines": lines, "list": [lines, text] } }));
        }
    }
}
