//! Whatever is read, nothing panics or grows without end, and what becomes a pod stays that pod.

use proptest::{collection, prelude::*, sample::select};
use protocol::pod::Pod;
use serde_json::Value;

use crate::{EVERYTHING, MORE, Machine, find};

const KUBERNETES: &str = include_str!("../pods/convert/shop.kubernetes.yaml");
const AKASH: &str = include_str!("../pods/convert/blog.akash.yaml");

/// Values as people write them, and as nobody should.
const SCALARS: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "65535",
    "1.5",
    "1e400",
    "\"\"",
    "\"web\"",
    "\"0.5\"",
    "\"64M\"",
    "\"5s\"",
    "\"a:b\"",
    "\"/data\"",
    "\"../x\"",
    "\"no\"",
    "\"${A:-${B:?c}}\"",
    "\"$$\"",
    "\"$\"",
    "\"default\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[\"a=b\",\"c\"]",
    "{\"a\":\"b\"}",
    "[[[]]]",
    "\"service_healthy\"",
    "\"8080/udp\"",
    "\"data:/data:ro\"",
    "[{\"count\":1,\"capabilities\":[\"gpu\"]}]",
];

/// Keys of Compose files.
const KEYS: &[&str] = &[
    "services",
    "web",
    "db",
    "image",
    "command",
    "ports",
    "volumes",
    "networks",
    "default",
    "secrets",
    "configs",
    "source",
    "target",
    "environment",
    "env_file",
    "path",
    "depends_on",
    "condition",
    "extends",
    "service",
    "file",
    "include",
    "profiles",
    "healthcheck",
    "test",
    "deploy",
    "resources",
    "limits",
    "cpus",
    "memory",
    "reservations",
    "devices",
    "count",
    "capabilities",
    "ulimits",
    "nofile",
    "soft",
    "hard",
    "x-roadstead",
    "ingress",
    "a.example.org",
    "x-size",
    "content",
    "internal",
    "aliases",
    "restart",
    "tmpfs",
    "sysctls",
    "extra_hosts",
    "price",
    "max",
    "sla",
    "grace",
    "full",
    "<<",
    "x-a",
    "",
];

fn scalar() -> impl Strategy<Value = Value> {
    select(SCALARS).prop_map(|json| serde_json::from_str(json).unwrap_or(Value::Null))
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::vec((select(KEYS), inner), 0..6).prop_map(|entries| {
                Value::Object(
                    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

/// How many values there are.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(size).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// Puts `new` in the place of the `number`th value.
fn replace(value: &mut Value, number: &mut usize, new: &Value) {
    if *number == 0 {
        value.clone_from(new);
    }
    *number = number.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, number, new)),
        Value::Object(entries) => entries.values_mut().for_each(|item| replace(item, number, new)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// Reads a file; a pod that comes of it is the same after a trip through its canonical bytes.
fn check(yaml: &str) -> bool {
    let Ok(parsed) = Pod::from_compose(yaml, &Machine) else { return false };
    let pod = parsed.resolve(find).expect("what parses is a pod");
    let bytes = pod.canonical();
    assert_eq!(Pod::decode(&bytes).expect("what is a pod decodes"), pod, "{yaml}");
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bytes_do_no_harm(bytes: Vec<u8>) {
        check(&String::from_utf8_lossy(&bytes));
        prop_assert!(Pod::decode(&bytes).is_err());
    }

    #[test]
    fn text_does_no_harm(text in "[ -~\n]{0,200}", dollars in "[${}:A-B?+ -]{0,60}") {
        check(&text);
        check(&format!("services: {{ web: {{ image: a, command: {} }} }}", Value::from(dollars)));
    }

    #[test]
    fn trees_do_no_harm(tree in tree()) {
        check(&tree.to_string());
        let _not_a_pod = Pod::decode(tree.to_string().as_bytes());
    }

    #[test]
    fn a_changed_manifest_does_no_harm(akash: bool, number: prop::sample::Index, new in tree()) {
        let file = if akash { AKASH } else { KUBERNETES };
        let mut documents: Vec<Value> = serde_saphyr::from_multiple(file).expect("YAML");
        let at = number.index(documents.len());
        let mut number = number.index(size(&documents[at]));
        replace(&mut documents[at], &mut number, &new);
        let text: Vec<String> = documents.iter().map(|document| format!("---\n{document}\n")).collect();
        if let Ok(converted) = protocol::convert::convert(&[&text.concat()]) {
            let read = Pod::from_compose(&converted.compose, &Machine);
            prop_assert!(converted.open.is_empty() <= read.is_ok(), "{}", converted.compose);
        }
    }

    #[test]
    fn a_changed_pod_file_is_a_pod_or_is_refused(more: bool, number: prop::sample::Index, new in tree()) {
        let mut file = tree_of(if more { MORE } else { EVERYTHING });
        let mut number = number.index(size(&file));
        replace(&mut file, &mut number, &new);
        check(&file.to_string());
    }

    #[test]
    fn changed_bytes_are_a_pod_or_are_refused(more: bool, number: prop::sample::Index, new in tree()) {
        let pod = crate::pod(if more { MORE } else { EVERYTHING });
        let mut json: Value = serde_json::from_slice(&pod.canonical()).expect("JSON");
        let mut number = number.index(size(&json));
        replace(&mut json, &mut number, &new);
        if let Ok(other) = Pod::decode(json.to_string().as_bytes()) {
            prop_assert_eq!(other.canonical(), json.to_string().into_bytes());
        }
    }
}

fn tree_of(yaml: &str) -> Value {
    let options = serde_saphyr::options! { leading_zero_numbers_as_strings: true };
    serde_saphyr::from_str_with_options(yaml, options).expect("YAML")
}

#[test]
fn the_unchanged_files_are_pods() {
    for file in [MORE, EVERYTHING] {
        assert!(check(&tree_of(file).to_string()));
    }
}
