//! `docs/provider-api.json` is what the API is: its routes are those of the router, its schemas those of the types that
//! go over the wire. A field that is added, dropped or renamed fails here until the document says so.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use protocol::{
    amount::{Amount, Rate},
    lease::CloseReason,
    pod::PodHash,
    quote::Quote,
    resources::{BitRate, Bytes, Cpu, PriceBreakdown, PriceList, Resources},
};
use provider::wire::{
    ApiError, Attestation, EgressStatus, EgressTerms, Happening, Hold, ImageParts, Imported, Info,
    Keeps, KeyRequest, LeaseEvent, LeaseStatus, LogLine, LogStream, Nonce, PathStat, Phase,
    PublicPort, QuoteRequest, QuoteResponse, SealedKey, ServiceStats, ServiceStatus, Session,
    SignIn, SlaTerms, VolumeStatus,
};
use seal::attest::{Der, Evidence, Unattested};
use serde::Serialize;
use serde_json::{Value, json};

const ROUTER: &str = include_str!("../src/api.rs");

fn document() -> Value {
    serde_json::from_str(include_str!("../../../docs/provider-api.json")).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
}

fn texts(value: &Value) -> BTreeSet<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Where `value` is not what `schema` says. Of JSON Schema what the document uses, but for patterns.
fn faults(document: &Value, schema: &Value, path: &str, value: &Value) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = &document.pointer(name.trim_start_matches('#')).unwrap();
        return faults(document, schema, path, value);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["type"] != kind {
        return vec![format!("{path} is {kind}, the document says {}", schema["type"])];
    }
    if schema["enum"].is_array() && !schema["enum"].as_array().unwrap().contains(value) {
        return vec![format!("{path} is {value}, which the document does not know")];
    }
    let mut all = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match schema["properties"].get(key) {
            Some(schema) => all.extend(faults(document, schema, &path, value)),
            None => all.push(format!("{path} is not in the document")),
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        all.extend(faults(document, &schema["items"], &format!("{path}[{index}]"), value));
    }
    all
}

/// Holds one schema to a value with everything that may be there, and to one with as little as there can be.
fn check<T: Serialize>(name: &str, full: &T, least: &T) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    let (full, least) = (serde_json::to_value(full).unwrap(), serde_json::to_value(least).unwrap());
    assert_eq!(faults(&document, schema, name, &full), Vec::<String>::new());
    assert_eq!(faults(&document, schema, name, &least), Vec::<String>::new());
    assert_eq!(keys(&schema["properties"]), keys(&full), "{name}: what may be there");
    assert_eq!(texts(&schema["required"]), keys(&least), "{name}: what has to be there");
    assert_eq!(schema["additionalProperties"], false, "{name}");
}

fn one<T: Serialize>(name: &str, value: &T) {
    check(name, value, value);
}

/// Each of its forms has one of the fields.
fn attestation() {
    let document = document();
    let schema = &document["components"]["schemas"]["Attestation"];
    let mut forms = BTreeSet::new();
    for attestation in [
        Attestation::Evidence(Evidence::Tdx { quote: vec![1], collateral: None }),
        Attestation::Evidence(Evidence::SevSnp {
            report: vec![1],
            certificates: vec![Der(vec![2])],
        }),
        Attestation::Unattested(Unattested { signature: [1; 65] }),
    ] {
        let value = serde_json::to_value(&attestation).unwrap();
        assert_eq!(faults(&document, schema, "Attestation", &value), Vec::<String>::new());
        forms.extend(keys(&value));
    }
    assert_eq!(keys(&schema["properties"]), forms);
}

#[test]
fn the_types_are_as_documented() {
    let resources = Resources { cpu: Cpu(1), memory: Bytes(2), storage: Bytes(3), gpus: 4 };
    let prices = PriceList::default();
    let price = PriceBreakdown { total: Rate(u128::MAX), ..PriceBreakdown::default() };
    let egress = EgressTerms { rate: BitRate(1), included: Bytes(2), most: Bytes(3) };
    one("EgressTerms", &egress);
    one("Resources", &resources);
    one("PriceList", &prices);
    one("PriceBreakdown", &price);
    one(
        "Info",
        &Info {
            provider: Address::ZERO,
            chain_id: 1,
            leases: Address::ZERO,
            region: "eu-west".into(),
            seal_key: [9; 32].into(),
            prices,
            capacity: resources,
            free: resources,
            egress,
            running: 1,
            runtimes: vec!["runc".into()],
            user_namespaces: true,
            version: "1".into(),
        },
    );
    attestation();
    one("Nonce", &Nonce { nonce: "n".into() });
    one("SignIn", &SignIn { message: "m".into(), signature: vec![1; 65].into() });
    one("Session", &Session { token: "t".into(), expires_in: 1 });
    let sla = SlaTerms { coverage: Amount(u128::MAX), grace: 1, full: 2 };
    one("SlaTerms", &sla);
    let envelope = json!({ "encapsulatedKey": B256::ZERO, "ciphertext": "0x00" });
    let envelope: seal::Envelope = serde_json::from_value(envelope).unwrap();
    one("Envelope", &envelope);
    let request = QuoteRequest {
        pod: "{}".into(),
        owner: Address::ZERO,
        salt: B256::ZERO,
        lease: 0,
        sla,
        keeps: Some(Keeps { app: 1, proof: vec![B256::ZERO] }),
        secrets: Some(envelope),
    };
    let least = QuoteRequest { keeps: None, secrets: None, ..request.clone() };
    check("QuoteRequest", &request, &least);
    let keeps = Keeps { app: 1, proof: vec![B256::ZERO] };
    check("Keeps", &keeps, &Keeps { proof: Vec::new(), ..keeps.clone() });
    one("Quote", &Quote::default());
    one(
        "QuoteResponse",
        &QuoteResponse {
            quote: Quote::default(),
            signature: vec![1; 65].into(),
            pod: PodHash::default(),
            price,
            missing_images: vec!["sha256:a".into()],
            attestation: "UNATTESTED".into(),
            volume_retention: 259_200,
        },
    );
    one("ImageParts", &ImageParts { layers: vec!["sha256:a".into()] });
    let service = ServiceStatus {
        name: "web".into(),
        state: "running".into(),
        health: Some("healthy".into()),
        restarts: 0,
    };
    check("ServiceStatus", &service, &ServiceStatus { health: None, ..service.clone() });
    let egress = EgressStatus { sent: 1, total: 2, until: 3 };
    one("EgressStatus", &egress);
    let status = LeaseStatus {
        lease: 1,
        phase: Phase::Running,
        pod: PodHash::default(),
        message: Some("m".into()),
        key_request: Some(KeyRequest { nonce: seal::Nonce([1; 32]), pod: PodHash::default() }),
        urls: vec!["http://a".into()],
        ports: vec![PublicPort {
            address: "a:20000".into(),
            port: "5432/tcp".parse().unwrap(),
            service: "db".into(),
        }],
        notes: vec!["n".into()],
        egress: Some(egress),
        services: vec![service],
    };
    one("PublicPort", &status.ports[0]);
    let least = LeaseStatus { message: None, key_request: None, egress: None, ..status.clone() };
    check("LeaseStatus", &status, &least);
    one("KeyRequest", &status.key_request.unwrap());
    let envelope = serde_json::json!({
        "encapsulatedKey": format!("0x{}", "01".repeat(32)), "ciphertext": "0x0102",
    });
    one(
        "SealedKey",
        &SealedKey {
            nonce: seal::Nonce([1; 32]),
            key: serde_json::from_value(envelope).unwrap(),
            sender: seal::SenderPublicKey([2; 32]),
            claim: vec![3; 65].into(),
        },
    );
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        let (service, time, line) = ("web".into(), "t".into(), "l".into());
        one("LogLine", &LogLine { service, stream, time, line });
    }
    one("ApiError", &ApiError { error: "e".into() });
    let volume = VolumeStatus {
        name: "data".into(),
        size: Bytes(2),
        used: Bytes(1),
        kept_until: Some("t".into()),
    };
    check("VolumeStatus", &volume, &VolumeStatus { kept_until: None, ..volume.clone() });
    one("Imported", &Imported { entries: 1, bytes: 2 });
    one("Hold", &Hold { seconds: 1 });
    one("PathStat", &PathStat { name: "n".into(), size: 1, folder: true, user: (1, 2) });
    one(
        "ServiceStats",
        &ServiceStats {
            service: "web".into(),
            time: "t".into(),
            cpu: 1,
            cpu_limit: 2,
            memory: 3,
            memory_limit: 4,
            received: 5,
            sent: 6,
            read: 7,
            written: 8,
            pids: 9,
            restarts: 10,
        },
    );
}

#[test]
fn the_events_are_as_documented() {
    let service = || "web".to_owned();
    let pod = B256::ZERO;
    let all = [
        Happening::Seen { pod },
        Happening::Fetching,
        Happening::Locked,
        Happening::Starting,
        Happening::Running,
        Happening::Failed { why: "w".into() },
        Happening::HealthLost { service: service() },
        Happening::HealthRegained { service: service() },
        Happening::Exited { service: service(), code: 1, out_of_memory: true },
        Happening::Restarted { service: service() },
        Happening::Stopped { service: service() },
        Happening::Paused,
        Happening::Held,
        Happening::Resumed,
        Happening::Maintenance { until: Some("t".into()), why: Some("w".into()) },
        Happening::MaintenanceOver,
        Happening::Amended { pod },
        Happening::Challenged { by: Address::ZERO, until: "t".into() },
        Happening::Answered,
        Happening::Closed { reason: Some(CloseReason::PayerDone) },
        Happening::Removed { volumes_until: Some("t".into()) },
    ];
    let document = document();
    let schema = &document["components"]["schemas"]["LeaseEvent"];
    let (mut fields, mut events) = (BTreeSet::new(), BTreeSet::new());
    for what in all {
        let event = serde_json::to_value(LeaseEvent { time: "t".into(), what }).unwrap();
        assert_eq!(faults(&document, schema, "LeaseEvent", &event), Vec::<String>::new());
        fields.extend(keys(&event));
        events.insert(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(keys(&schema["properties"]), fields);
    assert_eq!(texts(&schema["properties"]["event"]["enum"]), events);
}

#[test]
fn the_phases_are_as_documented() {
    use Phase::{
        Closed, Failed, Fetching, Held, Locked, Paused, Running, Seen, Starting, Unhealthy,
    };
    let all = [Seen, Fetching, Locked, Starting, Running, Unhealthy, Paused, Held, Failed, Closed];
    // A phase that is added does not compile here before it is in the list.
    for phase in all {
        match phase {
            Seen | Fetching | Locked | Starting | Running | Unhealthy | Paused | Held | Failed
            | Closed => {}
        }
    }
    let known = texts(&document()["components"]["schemas"]["Phase"]["enum"]);
    assert_eq!(known, texts(&serde_json::to_value(all).unwrap()));
}

/// `GET /v1/info`, … as the router has them.
fn routed() -> BTreeSet<String> {
    let calls = ROUTER.split(".route(").skip(1);
    let routes = calls.map(|call| {
        let mut words = call.split('"');
        let path = words.nth(1).unwrap();
        let verb = words.next().unwrap().trim_start_matches([',', ' ', '\n']);
        let verb = verb.split('(').next().unwrap();
        format!("{} {path}", verb.to_uppercase())
    });
    routes.collect()
}

#[test]
fn the_routes_are_as_documented() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, verbs)| {
        keys(verbs).into_iter().map(move |verb| format!("{} {path}", verb.to_uppercase()))
    });
    let routed = routed();
    assert!(routed.len() > 8, "{routed:?}");
    assert_eq!(documented.collect::<BTreeSet<_>>(), routed);
    // The tables for people, too.
    let text = include_str!("../../../docs/protocol.md");
    for route in &routed {
        assert!(text.contains(&format!("| `{route}` |")), "docs/protocol.md lacks {route}");
    }
}

#[test]
fn a_log_is_asked_for_as_documented() {
    let source = include_str!("../src/api/leases.rs");
    let fields = source.split("struct LogQuery {").nth(1).unwrap().split('}').next().unwrap();
    let fields = fields.lines().filter_map(|line| line.trim().split_once(':'));
    let fields: BTreeSet<String> = fields.map(|(name, _type)| name.to_owned()).collect();
    let document = document();
    let parameters = document["paths"]["/v1/leases/{id}/logs"]["get"]["parameters"].as_array();
    let query = parameters.into_iter().flatten().filter(|parameter| parameter["in"] == "query");
    let query: BTreeSet<String> =
        query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(query, fields);
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, all: &mut BTreeSet<String>) {
        if let Some(name) = value.get("$ref").and_then(Value::as_str) {
            all.insert(name.trim_start_matches('#').to_owned());
        }
        let map = value.as_object().into_iter().flat_map(|map| map.values());
        map.chain(value.as_array().into_iter().flatten()).for_each(|value| references(value, all));
    }
    let document = document();
    let mut all = BTreeSet::new();
    references(&document["paths"], &mut all);
    references(&document["components"], &mut all);
    for name in &all {
        assert!(document.pointer(name).is_some(), "{name}");
    }
    for name in keys(&document["components"]["schemas"]) {
        assert!(all.contains(&format!("/components/schemas/{name}")), "{name} is not used");
    }
}
