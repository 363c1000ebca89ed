//! Compose files and hostile bytes, and what becomes of them.

#[path = "pod/convert.rs"]
mod convert;
#[path = "pod/files.rs"]
mod files;
#[path = "pod/prices.rs"]
mod prices;
#[path = "pod/properties.rs"]
mod properties;
#[path = "pod/schema.rs"]
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    error::Error,
};

use expect_test::{expect, expect_file};
use protocol::pod::{
    DecodeError, Digest, Hardware, Image, ImageRef, Label, Parsed, Pod, PodHash, Port,
    SecretSource, Surroundings, limits,
};

/// The file in DESIGN.md, without what comes with the keeper.
const GUESTBOOK: &str = include_str!("pods/guestbook.yaml");
/// Every key that was honoured when the first pods were hashed, once.
const EVERYTHING: &str = include_str!("pods/everything.yaml");
/// Every key that came later, once.
const MORE: &str = include_str!("pods/more.yaml");

/// Blocks that are refused.
const REFUSED_BLOCKS: &[&str] = &[
    "{ ingress: { guestbook.example.org: \"web:80\" } }",
    "{ ingress: { Guestbook.Example.org: \"web:8080\", localhost: \"web:8080\", \"*.example.org\": \"web:8080\", 10.0.0.1: \"web:8080\", \"a_b.example.org\": \"web:8080\" } }",
    "{ ingress: { a.example.org: \"wbe:8080\", b.example.org: web, c.example.org: \"web:http\", d.example.org: \"web:0\", e.example.org: [] } }",
    "{ ingress: [web], price: { max: 0.02 }, sla: { coverage: lots } }",
    "{ price: { max: 1/y, min: 1/h }, sla: { coverage: -1, grace: 1h, full: 1h, response: 999d, extra: 1 } }",
    "{ scale: { min: 2 }, providers: { where: '', spread: region, region: EU, address: \"0x12\" }, ingres: {} }",
    "{ providers: { address: [\"0x00000000000000000000000000000000000000aA\", 0x00000000000000000000000000000000000000aa] } }",
    "{ ingress: { a.example.org: { to: \"web:8080\", protocol: http3 }, b.example.org: { target: \"web:8080\" }, c.example.org: { to: web } } }",
    "{ ingress: { a.example.org: \"web:8080\" }, tls: { a.example.org: acme, b.example.org: dns, c_d: dns, d.example.org: { certificate: \"a b\", keys: k } } }",
    "{ ingress: { a.example.org: \"web:8080\" }, tls: { a.example.org: { certificate: cert, key: key } } }",
    "{ ingress: { a.example.org: \"web:8080\" }, tls: { b.example.org: dns } }",
    "{ egress: { rate: 10MB, total: lots, burst: 1 } }",
    "{ egress: 10M }",
    "{ encrypt: { key: [], services: [web, wbe, Web], to: ghcr.io/acme/app } }",
    "{ encrypt: yes please }",
    "{ attested: true }",
    "{ attested: }",
    "{ attested: { kind: sgx, measurements: [], measurement: \"0x12\" } }",
    "{ attested: { kind: tdx } }",
    "{ attested: { measurements: [\"0x12\", \"1212121212121212121212121212121212121212121212121212121212121212\"], oldest: [] } }",
    "[]",
];

struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "TAG" => Some("1.4".into()),
            "INHERITED" => Some("from the machine".into()),
            _ => None,
        }
    }

    fn read(&self, path: &str) -> Result<String, String> {
        match path {
            "app.env" => {
                Ok("FROM_FILE=1\nOVERRIDDEN=file\nQUOTED='$TAG'\nEXPANDED=${TAG}\n".into())
            }
            "raw.env" => Ok("RAW=\"$TAG\"\n".into()),
            "app.labels" => Ok("org.example.tier=front\norg.example.team=red\n".into()),
            "./app.conf" => Ok("listen = $port\n".into()),
            "bad.env" => Ok("A=1\nB='open\n".into()),
            _ => Err("no such file".into()),
        }
    }
}

fn digest(of: char) -> Digest {
    format!("sha256:{}", of.to_string().repeat(64)).parse().expect("a digest")
}

fn find(_service: &Label, image: &Image) -> Result<ImageRef, Infallible> {
    if image.encrypted {
        let reference = (!image.built).then(|| image.name.repository.clone());
        return Ok(ImageRef::Encrypted { manifest: digest('c'), plain: digest('d'), reference });
    }
    Ok(match image.built {
        true => ImageRef::Pushed { id: digest('b') },
        false => {
            ImageRef::Registry { digest: digest('a'), reference: image.name.repository.clone() }
        }
    })
}

fn parse(yaml: &str) -> Parsed {
    Pod::from_compose(yaml, &Machine).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"))
}

fn pod(yaml: &str) -> Pod {
    parse(yaml).resolve(find).expect("a pod")
}

fn text(pod: &Pod) -> String {
    String::from_utf8(pod.canonical()).expect("text")
}

/// What is said about a file.
fn refusal(yaml: &str) -> String {
    match Pod::from_compose(yaml, &Machine) {
        Ok(parsed) => format!("accepted: {:?}", parsed.notes()),
        Err(errors) => errors.to_string(),
    }
}

/// One service called `web`, with these further lines.
fn web(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    format!("services:\n  web:\n    image: app\n    restart: always\n    {lines}\n")
        .replace("    restart: always\n    restart", "    restart")
        .replace("    image: app\n    restart: always\n    image", "    image")
}

/// A service that reserves these devices.
fn devices(list: &str) -> String {
    web(&format!("deploy: {{ resources: {{ reservations: {{ devices: {list} }} }} }}"))
}

/// A service with this image.
fn image(image: &str) -> String {
    format!("services: {{ web: {{ image: {image} }} }}\n")
}

/// A service that mounts `book`, and these volumes.
fn volumes(volumes: &str) -> String {
    format!("{}volumes: {volumes}\n", web("volumes: [\"book:/data\"]"))
}

/// A service with these secrets, where there is one called `key`.
fn secrets(secrets: &str) -> String {
    format!("{}secrets: {{ key: {{ file: ./key }} }}\n", web(&format!("secrets: {secrets}")))
}

/// A service that listens on 8080, and this block.
fn block(block: &str) -> String {
    format!("{}x-roadstead: {block}\n", web("ports: [8080]"))
}

#[test]
fn the_guestbook_has_this_form_and_this_hash() {
    let pod = pod(GUESTBOOK);
    expect_file!["pods/guestbook.json"].assert_eq(&text(&pod));
    expect!["0x4ec7b3232c53dd7e102a3cf95e5fae7869e53f1dccbbbfe535874aaacd54d675"]
        .assert_eq(&pod.hash().to_string());
    assert_eq!(pod.resources().to_string(), "0.5 cpu, 128 MiB memory, 2 GiB storage");
    assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod);
    assert_eq!(pod.hash().to_string().parse::<PodHash>().unwrap(), pod.hash());
}

#[test]
fn everything_that_is_honoured_has_its_place() {
    let parsed = parse(EVERYTHING);
    expect![[r#"
        services.cache: no limit is set, so it gets cpus: 0.5 and memory: 256M
        services.web.environment.ABSENT: variable ABSENT is not set, so the service does not get it
        services.web.environment.FLOAT: read as the number 1.1; put it in quotes where text is meant
        services.web.tmpfs[1]: the tmpfs has no size, so 64 MiB is taken
        volumes.unused: no service mounts it, so it is left out"#]]
    .assert_eq(&parsed.notes().join("\n"));
    expect![[r#"
        Wishes {
            max_price: Some(
                MaxPrice(
                    "15/mo",
                ),
            ),
            providers: Criteria {
                regions: {
                    "eu-north",
                    "eu-west",
                },
                addresses: {
                    0x00000000000000000000000000000000000000aa,
                },
                expression: None,
            },
            sla: SlaWishes {
                coverage: Some(
                    Coverage(
                        "2.5",
                    ),
                ),
                grace: Some(
                    60,
                ),
                full: Some(
                    3600,
                ),
                response: Some(
                    120,
                ),
            },
            attested: None,
        }
    "#]]
    .assert_debug_eq(parsed.wishes());
    let secrets: BTreeMap<String, &SecretSource> =
        parsed.secrets().iter().map(|(name, source)| (name.to_string(), source)).collect();
    expect![[r#"
        {
            "long": Environment(
                "LONG_SECRET",
            ),
            "plain": File(
                "./plain.txt",
            ),
        }
    "#]]
    .assert_debug_eq(&secrets);
    let images: Vec<String> =
        parsed.images().iter().map(|(s, i)| format!("{s}: {} {}", i.name, i.built)).collect();
    expect![[r#"
        cache: docker.io/library/redis:latest false
        db: docker.io/library/postgres:17@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc false
        web: ghcr.io/acme/app:1.4 true"#]].assert_eq(&images.join("\n"));
    let pod = parsed.resolve(find).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&pod.canonical()).unwrap();
    expect_file!["pods/everything.json"].assert_eq(&serde_json::to_string_pretty(&json).unwrap());
    assert_eq!(sorted(&json), text(&pod), "the canonical form is RFC 8785's");
    assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod);
    let order: Vec<&str> = pod.start_order().into_iter().map(Label::as_str).collect();
    assert_eq!(order, ["cache", "db", "web"]);
}

#[test]
fn everything_that_came_later_has_its_place() {
    let parsed = parse(MORE);
    expect![[r#"
        networks.unused: no service is on it, so it is left out
        services.debug: it is left out, as none of its profiles (debug) is active
        services.web.depends_on.gone: there is no such service, so nothing is waited for"#]]
    .assert_eq(&parsed.notes().join("\n"));
    assert!(parsed.images().values().any(|image| image.built), "pull_policy: never");
    let pod = parsed.resolve(find).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&pod.canonical()).unwrap();
    expect_file!["pods/more.json"].assert_eq(&serde_json::to_string_pretty(&json).unwrap());
    assert_eq!(sorted(&json), text(&pod), "the canonical form is RFC 8785's");
    assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod);
    let networks: Vec<String> = pod
        .networks()
        .iter()
        .map(|(name, network)| format!("{name} {}", network.internal))
        .collect();
    assert_eq!(networks, ["back true", "default false", "front false"]);
}

/// RFC 8785 by the book, for integers and ASCII keys.
fn sorted(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(map) => {
            let map: BTreeMap<_, _> = map.iter().collect();
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{}:{}", serde_json::json!(key), sorted(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(","))
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => value.to_string(),
    }
}

#[test]
fn what_is_not_honoured_is_refused_with_its_path_and_a_reason() {
    let files = [
        // files.
        "".to_owned(),
        "services: [1\nb: 2".to_owned(),
        "a: 1\na: 2\n".to_owned(),
        "- services".to_owned(),
        "services: {}".to_owned(),
        "services: *nowhere".to_owned(),
        "name: x".to_owned(),
        "services: { web: { image: a } }\n---\nservices: {}".to_owned(),
        "servces: { web: { image: a } }".to_owned(),
        "services: { web: { image: a } }\nx-roadsted: {}\nx-team: {}".to_owned(),
        "services: { my_web: { image: a } }".to_owned(),
        "services: { Web: { image: a } }".to_owned(),
        "services: { -: { image: a } }".to_owned(),
        "services: { web: [] }".to_owned(),
        "services: { web: {} }".to_owned(),
        "services: { web: { build: . } }".to_owned(),
        "services: { web: { image: a } }\nconfigs: { a: { file: b } }\nnetworks: { back: {} }".to_owned(),
        "services: { web: { image: a, networks: [back] }, two: { image: a, networks: { default: { aliases: [x] } } } }".to_owned(),
        "services: { web: { image: a, networks: { front: { aliases: [\"a b\"], ipv4_address: 10.0.0.2, priority: 1 }, bakc: , default: [] } } }\nnetworks: { front: { driver: macvlan, external: true, ipam: { config: [] }, enable_ipv6: true, intrenal: true, x-team: a }, back: { name: b, attachable: true } }".to_owned(),
        "services: { web: { image: a, network_mode: none, networks: [default] }, two: { image: a, network_mode: \"service:web\", container_name: \"a b\" }, three: { image: a, network_mode: none, ports: [80] } }\nx-roadstead: { ingress: { a.example.org: \"three:80\" } }".to_owned(),
        "services: { web: { image: a, configs: [c, d, missing, { source: c, target: /proc/c }, { source: c, target: /d, uid: x }] } }\nconfigs: { c: { content: a, file: b }, d: { external: true, name: x }, e: { environment: GONE }, f: { content: 5 }, g: { content: a, template_driver: golang } }".to_owned(),
        "services: { web: { image: a, profiles: [debug] } }".to_owned(),
        "services: { web: { image: a, depends_on: [dbg] }, dbg: { image: a, profiles: [debug, test], privileged: true } }\nx-roadstead: { ingress: { a.example.org: \"dbg:80\" } }".to_owned(),
        "services: { web: { image: a, profiles: debug } }".to_owned(),
        "services: { web: { extends: { service: base, file: gone.yaml, x: y } } }".to_owned(),
        "services: { web: { image: a, extends: [] } }".to_owned(),
        "services: { web: { image: a, extends: wbe } }".to_owned(),
        "services: { two: { image: a, extends: three }, three: { extends: two } }".to_owned(),
        "include: [gone.yaml]\nservices: { web: { image: a } }".to_owned(),
        "include: gone.yaml\nservices: { web: { image: a } }".to_owned(),
        "include: [{ env_file: x }]\nservices: { web: { image: a } }".to_owned(),
        // images.
        web("image: Acme/App"),
        image("ghcr.io/acme/app:"),
        image("a b"),
        image("app@sha256:12"),
        image("1.4"),
        image("[a]"),
        // variables.
        web("command: ${MISSING:?set it to the program}"),
        web("command: ${BROKEN"),
        web("command: costs 5$"),
        // scalars and lists.
        web("comand: x\nprots: [1]\nqwertz: 1"),
        web("command: a && b"),
        web("command: 'a \"b'"),
        web("command: [a, [b]]"),
        web("command: { a: b }"),
        web("read_only: 1\ninit: \"yes\""),
        web("environment: [\"A B=1\"]"),
        web("environment: { A: [1] }"),
        web("environment: x"),
        web("environment: { A: \"x\\0y\" }"),
        web("env_file: gone.env"),
        web("env_file: [bad.env, { path: app.env, format: json }, { required: false }]"),
        web("working_dir: srv"),
        web("working_dir: /srv/../etc"),
        web("working_dir: /srv//a"),
        web("user: \"a b\""),
        web("hostname: Front_1"),
        web("labels: { roadstead.lease: \"1\", com.docker.compose.project: x, \"a b\": c }"),
        // ports.
        web("ports: [70000]"),
        web(
            "ports: [\"0\", \"70000:8080\", \"x:80:8080\", \"127.0.0.1:80\", \"8080/sctp\", \"9-8\", \"1-65535\", \"x\", \"+80\"]",
        ),
        web(
            "ports: [{ target: 8080, published: x, mode: bridge }, { protocol: tcp }, { target: 53, protocol: sctp, host_ip: eth0, name: dns }]",
        ),
        web("ports: [\"1-17\"]"),
        web("network_mode: none\nports: [80]"),
        web("ports: 8080"),
        // mounts.
        web(
            "volumes: [\"./data:/data\", \"/etc:/etc\", \"~/x:/x\", /data, \"a:b:c:d\", \"a:/a:z\", \"book:/data\"]",
        ),
        web(
            "volumes: [{ type: bind, source: ., target: /a }, { type: npipe, target: /b }, { type: volume, target: /c }, { source: x, target: /d }]",
        ),
        web(
            "volumes: [{ type: volume, source: a, target: /a, volume: { nocopy: 1, subpath: a } }, { type: tmpfs, source: a, target: /b }]",
        ),
        web(
            "tmpfs: [/proc/x, /sys, /dev, /run/secrets, /, \"/a:uid=1\", \"/b:size=x,mode=9\", relative, /etc/hosts, /c:size=1g, /c/]",
        ),
        web("tmpfs: [\"/dev/shm:size=64m\"]\nshm_size: 64m"),
        web("tmpfs: [\"/dev/shm:size=64m\", \"/small:size=1k\", \"/mode:size=1m,mode=7777\"]"),
        volumes("{ book: }"),
        volumes("{ book: { x-size: 1Q, driver: local } }"),
        volumes("{ book: { x-size: 1k } }"),
        volumes("{ book: { external: true, driver: nfs, driver_opts: {} } }"),
        volumes("{ boko: { x-size: 1G } }"),
        volumes("{ book: { x-sise: 1G } }"),
        // secrets.
        secrets("[{ source: key, uid: \"1\", gid: \"1\", mode: 440 }, { target: x }, missing]"),
        secrets(
            "[{ source: key, mode: \"0999\" }, { source: key, target: /proc/key }, { source: key, target: ../x }]",
        ),
        secrets("[key, key]"),
        secrets("[kye]"),
        secrets("[key, { source: key, target: key/inner }]"),
        "services: { web: { image: a, secrets: [k] } }\nsecrets: { k: { external: true }, l: { content: x }, m: { file: a, environment: B }, n: }".to_owned(),
        // health and life.
        web(
            "healthcheck: { test: [curl], interval: 5, timeout: 0s, retries: 0, start_interval: 1s }",
        ),
        web("healthcheck: { test: [CMD], interval: 2d, retries: many }"),
        web("healthcheck: { test: { a: b }, disable: 7 }"),
        web("restart: sometimes"),
        web("restart: on-failure:x"),
        web("restart: on-failure:9999"),
        web("stop_grace_period: 2h\nstop_signal: TERM"),
        web("stop_signal: SIGNAL"),
        // limits.
        web("cpus: 0\nmem_limit: 1M\npids_limit: 1"),
        web("cpus: many\nmem_limit: lots\npids_limit: -1"),
        web("cpus: 0.0001"),
        web("cpus: 1\ndeploy: { resources: { limits: { cpus: 2 } } }"),
        web("deploy: { replicas: 3, mode: global, placement: {}, restart_policy: { condition: often, delay: 5s }, foo: 1 }"),
        web(
            "deploy: { resources: { limits: { cpus: \"1\", memory: 64M, gpus: 1 }, reservations: { cpus: \"2\", memory: 1G, generic_resources: [] } } }",
        ),
        devices("[{ driver: amd, count: 1, capabilities: [gpu] }, { count: 1, capabilities: [gpu, utility] }]"),
        devices("[{ driver: nvidia, capabilities: [gpu] }, { count: 1 }, { count: 1, capabilities: [] }]"),
        devices("[{ count: all, capabilities: [gpu] }, { device_ids: [\"0\"], capabilities: [gpu] }]"),
        devices("[{ count: 0, capabilities: [gpu] }, { count: 17, capabilities: [gpu] }, { count: -1, capabilities: [gpu], options: { a: b } }]"),
        devices("[{ count: 9, capabilities: [gpu] }, { count: 9, capabilities: [gpu] }]"),
        format!("{}    runtime: runsc\n", devices("[{ count: 1, capabilities: [gpu] }]")),
        web("mem_limit: 64M\nmem_reservation: 128M"),
        // other services.
        "services:\n  a: { image: x, depends_on: [b] }\n  b: { image: x, depends_on: [a] }\n  c: { image: x, depends_on: [c] }".to_owned(),
        web("depends_on: [db]"),
        "services:\n  web: { image: x, depends_on: { db: { condition: service_healthy } } }\n  db: { image: x, healthcheck: { disable: true } }".to_owned(),
        "services:\n  web: { image: x, depends_on: { db: { condition: service_completed_successfully }, c: { condition: x, required: 1, restart: 2 } } }\n  db: { image: x, restart: always }\n  c: { image: x }".to_owned(),
        // what is not ours to give.
        web(
            "privileged: true\nnetwork_mode: host\ncap_add: [NET_ADMIN]\npid: host\nipc: host\ndevices: [/dev/kvm]\nvolumes_from: [a]\ncontainer_name: x",
        ),
        web(
            "security_opt: [seccomp:unconfined]\nuserns_mode: host\nsysctls: { kernel.shmmax: 1, net.ipv4.tcp_syncookies: , net.ipv4.tcp_fin_timeout: fast }\nulimits: { nice: 1, msgqueue: 1, nofile: -1, core: { soft: 2, hard: 1 }, stack: { soft: 1 }, x: 1, cpu: many }\nextra_hosts: [\"a:host-gateway\", \"b=x\", c, \"d e=1.2.3.4\"]\ndns: [1.1.1.1, 10.0.0.53, x]\ndns_opt: [\"ndots:2\", rotate, \"a b\"]\ndns_search: [\"a_b\"]\nlinks: [\"a:b\"]\nlogging: {}",
        ),
        web(
            "scale: 2\ntty: 1\nstdin_open: maybe\nconfigs: [a]\nshm_size: 1k\ngroup_add: [\"a b\", \"1:2\"]\ndomainname: A_b\nplatform: linux/arm64\npull_policy: sometimes\nattach: 1\nipc: shareable\ncgroup: host\ngpus: all\nx-roadstead: {}\nx-team: fine",
        ),
        web("scale: 0"),
        web("scale: 2\ncontainer_name: a\ndeploy: { replicas: 3 }"),
        web("deploy: { replicas: 33 }"),
        "services:\n  web: { image: x, scale: 2 }\n  web-2: { image: x }".to_owned(),
        web("runtime: kata\nstorage_opt: { size: 1M, mode: fast }"),
        web("runtime: [runsc]\nstorage_opt: 1G"),
        format!("{}x-roadstead: {{ egress: {{ rate: 1k, total: 1K }} }}\n", web("ports: [8080]")),
    ];
    let blocks = REFUSED_BLOCKS.iter().map(|text| block(text));
    let refused: Vec<String> = files
        .into_iter()
        .chain(blocks)
        .map(|yaml| format!("{}\n\n{}\n", yaml.trim_end(), refusal(&yaml)))
        .collect();
    let line = "-".repeat(120);
    expect_file!["pods/refused.txt"].assert_eq(&refused.join(&format!("{line}\n")));
}

#[test]
fn gpus_are_counted_and_change_no_other_pod() {
    let gpus = |list: &str| {
        let pod = pod(&devices(list));
        assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod, "{list}");
        (pod.resources().gpus, String::from_utf8(pod.canonical()).unwrap())
    };
    let (count, text) = gpus("[{ driver: nvidia, count: 2, capabilities: [gpu] }]");
    assert_eq!(count, 2);
    assert!(text.contains("\"limits\":{\"cpu\":500,\"gpus\":2,\"memory\":"), "{text}");
    assert_eq!(
        gpus("[{ count: \"1\", capabilities: [gpu] }, { count: 3, capabilities: [gpu] }]").0,
        4
    );
    let (count, text) = gpus("[]");
    assert_eq!(count, 0);
    assert_eq!(text, String::from_utf8(pod(&web("init: false")).canonical()).unwrap());
    // Said with a default, it is no canonical form.
    let zero = text.replace("\"limits\":{\"cpu\":500,", "\"limits\":{\"cpu\":500,\"gpus\":0,");
    assert_ne!(zero, text);
    Pod::decode(zero.as_bytes()).unwrap_err();
}

#[test]
fn ports_are_public_unless_a_host_leads_to_them_or_they_are_bound_to_loopback() {
    let check = |ports: &str, all: &[&str], public: &[&str]| {
        let ingress = "x-roadstead: { ingress: { a.example.org: \"web:8080\" } }";
        let pod = pod(&format!("{}{ingress}\n", web(&format!("expose: [8080]\n{ports}"))));
        let service = &pod.services()[&"web".parse::<Label>().unwrap()];
        let texts = |ports: &BTreeSet<Port>| ports.iter().map(Port::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&service.ports), all, "{ports}");
        assert_eq!(texts(&service.public), public, "{ports}");
        assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod);
    };
    check("ports: [8080]", &["8080/tcp"], &[]);
    check("ports: [\"80:8080\", \"443:8080/udp\"]", &["8080/tcp", "8080/udp"], &["8080/udp"]);
    check("ports: [\"5432:5432\"]", &["5432/tcp", "8080/tcp"], &["5432/tcp"]);
    check("ports: [\"53:53/udp\", 53]", &["53/tcp", "53/udp", "8080/tcp"], &["53/tcp", "53/udp"]);
    check(
        "ports: [\"9000-9001\"]",
        &["8080/tcp", "9000/tcp", "9001/tcp"],
        &["9000/tcp", "9001/tcp"],
    );
    check("ports: [\"127.0.0.1:80:80\", \"[::1]:81:81\"]", &["80/tcp", "81/tcp", "8080/tcp"], &[]);
    check(
        "ports: [\"0.0.0.0:80-90:80\", \"192.0.2.1::81\"]",
        &["80/tcp", "81/tcp", "8080/tcp"],
        &["80/tcp", "81/tcp"],
    );
    check("ports: [\"127.0.0.1::82\"]", &["82/tcp", "8080/tcp"], &[]);
    check(
        "ports: [{ target: 22, published: \"2222\", protocol: tcp, mode: host }]",
        &["22/tcp", "8080/tcp"],
        &["22/tcp"],
    );
    check(
        "ports: [{ target: 53, host_ip: 127.0.0.1, protocol: udp }]",
        &["53/udp", "8080/tcp"],
        &[],
    );
    check("ports: []", &["8080/tcp"], &[]);
}

#[test]
fn replicas_are_services_of_their_own_that_answer_to_one_name() {
    let with = |more: &str| {
        format!(
            "services:\n  web: {{ image: app, ports: [8080], expose: [9], {more} }}\n  \
             worker: {{ image: app, scale: 2, depends_on: {{ web: {{ condition: service_healthy, required: false }} }} }}\n\
             x-roadstead: {{ ingress: {{ a.example.org: \"web:8080\" }}, encrypt: {{ services: [web] }} }}\n"
        )
    };
    let parsed = parse(&with("deploy: { replicas: 3 }, networks: { default: { aliases: [www] } }"));
    let encrypted = parsed.images().iter().filter(|(_, image)| image.encrypted);
    let encrypted: Vec<_> = encrypted.map(|(name, _)| name.as_str()).collect();
    assert_eq!(encrypted, ["web", "web-2", "web-3"]);
    let pod = parsed.resolve(find).unwrap();
    assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod);
    let label = |name: &str| name.parse::<Label>().unwrap();
    let names: Vec<_> = pod.services().keys().map(Label::as_str).collect();
    assert_eq!(names, ["web", "web-2", "web-3", "worker", "worker-2"]);
    let replicas: Vec<_> = pod.replicas(&label("web")).map(Label::as_str).collect();
    assert_eq!(replicas, ["web", "web-2", "web-3"]);
    let (first, second) = (&pod.services()[&label("web")], &pod.services()[&label("web-2")]);
    assert_eq!(first.replica_of, None);
    assert_eq!(second.replica_of, Some(label("web")));
    let aliases = |service: &protocol::pod::Service| {
        let attachments = service.attachments().into_values();
        let aliases = attachments.flat_map(|attachment| attachment.aliases);
        aliases.map(|alias| alias.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(aliases(first), ["www"]);
    assert_eq!(aliases(second), ["web", "www"]);
    for worker in ["worker", "worker-2"] {
        let worker = &pod.services()[&label(worker)];
        let waits: Vec<_> = worker.depends_on.keys().map(Label::as_str).collect();
        assert_eq!(waits, ["web", "web-2", "web-3"]);
        assert_eq!(worker.optional.len(), 3);
    }
    assert_eq!(pod.resources().cpu.0, 5 * 500);
    assert_eq!(parse(&with("scale: 1")).resources().cpu.0, 3 * 500);
}

#[test]
fn bombs_are_refused() {
    let mut said = Vec::new();
    let layers = ('b'..='i').map(|c| {
        let before = char::from_u32(u32::from(c) - 1).unwrap();
        format!("x-{c}: &{c} [{}]\n", vec![format!("*{before}"); 9].join(","))
    });
    let bomb: String = std::iter::once("x-a: &a [x]\n".to_owned()).chain(layers).collect();
    said.push(refusal(&bomb));
    said.push(refusal(&"#".repeat(limits::FILE + 1)));
    said.push(refusal(&format!("a: {}", "[".repeat(10_000))));
    said.push(refusal(&web(&format!("command: [{}]", "a,".repeat(300)))));
    let many: String = (0..40).map(|n| format!("  s{n}: {{ image: a }}\n")).collect();
    said.push(refusal(&format!("services:\n{many}")));
    let long = "x".repeat(limits::TEXT + 1);
    said.push(refusal(&web(&format!("environment: {{ A: {long} }}"))));
    let long = "x".repeat(limits::TEXT - 100);
    let services: String =
        (0..5).map(|n| format!("  s{n}: {{ image: a, command: [{long}] }}\n")).collect();
    said.push(refusal(&format!("services:\n{services}")));
    expect_file!["pods/bombs.txt"].assert_eq(&said.join("\n"));
}

#[test]
fn comments_order_and_spelling_leave_the_hash_alone() {
    let with = |line: &str| GUESTBOOK.replace("    ports", &format!("    {line}\n    ports"));
    let same = [
        format!("# a comment\n{GUESTBOOK}"),
        GUESTBOOK
            .replace("image: ghcr.io/acme/guestbook:1.4", "image: \"ghcr.io/acme/guestbook:2.0\""),
        GUESTBOOK.replace("memory: 128M", "memory: 134217728"),
        GUESTBOOK.replace("cpus: \"0.5\"", "cpus: 0.50"),
        GUESTBOOK.replace("[\"8080\"]", "[8080/tcp, { target: 8080 }]"),
        GUESTBOOK.replace("[book:/data]", "[{ type: volume, source: book, target: /data/ }]"),
        GUESTBOOK.replace("{ DB_FILE: /data/book.db }", "[DB_FILE=/data/book.db]"),
        GUESTBOOK.replace("{ DB_FILE: /data/book.db }", "{ DB_FILE: \"${NONE:-/data/book.db}\" }"),
        GUESTBOOK.replace("interval: 5s", "interval: 5000ms"),
        with("networks: [default]"),
        with("networks: { default: { aliases: [] } }"),
        with("pull_policy: always"),
        with("platform: linux/amd64"),
        with("profiles: []"),
        with("attach: false"),
        with("ipc: private"),
        format!(
            "networks: {{ default: {{ driver: bridge }}, unused: }}\nconfigs: {{ unused: {{ content: a }} }}\n{GUESTBOOK}"
        ),
        GUESTBOOK.replace("0.02/h", "3/mo"),
        GUESTBOOK.replace("coverage: 5", "coverage: 50"),
        GUESTBOOK.replace("./session.key", "./other.key"),
        format!("name: other\nx-team: {{ a: b }}\n{GUESTBOOK}"),
        format!(
            "x-roadstead:{}\n{}",
            GUESTBOOK.split("x-roadstead:").nth(1).unwrap(),
            GUESTBOOK.split("x-roadstead:").next().unwrap()
        ),
    ];
    for file in same {
        assert_eq!(pod(&file), pod(GUESTBOOK), "{file}");
        assert_eq!(pod(&file).hash(), pod(GUESTBOOK).hash(), "{file}");
    }
}

#[test]
fn whatever_shapes_a_container_changes_the_hash() {
    let changes = [
        ("acme/guestbook", "acme/other"),
        ("web", "www"),
        ("8080", "8081"),
        ("DB_FILE", "DB_PATH"),
        ("book.db", "other.db"),
        ("session_key", "other_key"),
        ("book:/data", "book:/other"),
        ("book:/data", "book:/data:ro"),
        ("book:/data", "book:/data:nocopy"),
        ("\"health\"", "\"check\""),
        ("interval: 5s", "interval: 6s"),
        ("interval: 5s", "interval: 5s, retries: 2"),
        ("\"0.5\"", "\"0.6\""),
        ("128M", "129M"),
        ("128M", "128M, pids: 100"),
        ("x-size: 1G", "x-size: 2G"),
        ("guestbook.example.org", "book.example.org"),
    ];
    let lines = [
        "command: a",
        "command: []",
        "entrypoint: a",
        "entrypoint: []",
        "working_dir: /srv",
        "user: app",
        "expose: [81]",
        "expose: [81/udp]",
        "read_only: true",
        "init: true",
        "tmpfs: [/tmp:size=1m]",
        "tmpfs: [/tmp:size=2m]",
        "tmpfs: /tmp:size=1m,mode=700",
        "labels: { a: b }",
        "labels: { a: c }",
        "hostname: x",
        "stop_grace_period: 1s",
        "stop_signal: SIGINT",
        "restart: always",
        "restart: unless-stopped",
        "restart: on-failure",
        "restart: on-failure:1",
        "configs: [c]",
        "configs: [{ source: c, target: /c.conf }]",
        "configs: [{ source: c, mode: \"0400\" }]",
        "configs: [{ source: c, uid: 5 }]",
        "domainname: example.org",
        "extra_hosts: [\"a=203.0.113.7\"]",
        "extra_hosts: [\"a=203.0.113.8\"]",
        "group_add: [audio]",
        "group_add: [5]",
        "networks: [n]",
        "networks: [n, default]",
        "networks: [i]",
        "networks: { n: { aliases: [x] } }",
        "container_name: x",
        "shm_size: 8m",
        "stdin_open: true",
        "sysctls: { net.ipv4.tcp_syncookies: 0 }",
        "sysctls: { net.ipv4.tcp_syncookies: 1 }",
        "tty: true",
        "ulimits: { nofile: 1024 }",
        "ulimits: { nofile: { soft: 1024, hard: 2048 } }",
        "ulimits: { nproc: 1024 }",
    ];
    let mut files: Vec<String> =
        changes.iter().map(|(from, to)| GUESTBOOK.replace(from, to)).collect();
    let line = |line: &&str| GUESTBOOK.replace("    ports", &format!("    {line}\n    ports"));
    files.extend(lines.iter().map(line));
    files.push(GUESTBOOK.to_owned());
    let line = |name: &str, yaml: &str| {
        GUESTBOOK.replace("services:", &format!("{name}: {yaml}\nservices:"))
    };
    files.push(line("networks", "{ default: { internal: true } }"));
    let declared = "configs: { c: { content: a } }\nnetworks: { n: , i: { internal: true } }\n";
    let files: Vec<String> = files
        .into_iter()
        .map(|file| match file.contains("networks: { default") {
            true => file,
            false => format!("{declared}{file}"),
        })
        .collect();
    let mut hashes: BTreeMap<PodHash, &String> = BTreeMap::new();
    for file in &files {
        if let Some(same) = hashes.insert(pod(file).hash(), file) {
            panic!("one hash for\n{file}\nand\n{same}");
        }
    }
    let pushed = parse(GUESTBOOK)
        .resolve(|_, _| Ok::<_, Infallible>(ImageRef::Pushed { id: digest('a') }))
        .unwrap();
    assert!(!hashes.contains_key(&pushed.hash()));
}

#[test]
fn encrypted_images_are_marked_and_part_of_the_pod() {
    let file = |encrypt: &str| {
        format!(
            "services:\n  web: {{ image: app, restart: always, build: . }}\n  \
             db: {{ image: 'ghcr.io/acme/db@{}', restart: always }}\n\
             x-roadstead: {{ encrypt: {encrypt} }}\n",
            digest('e')
        )
    };
    let check = |encrypt: &str, wanted: &[&str]| {
        let parsed = parse(&file(encrypt));
        let marked = parsed.images().iter().filter(|(_, image)| image.encrypted);
        let marked: Vec<_> = marked.map(|(name, _)| name.as_str()).collect();
        assert_eq!(marked, wanted, "{encrypt}");
        text(&parsed.resolve(find).unwrap())
    };
    let (plain, all) = (check("false", &[]), check("true", &["db", "web"]));
    assert_eq!(plain, check("", &[]));
    assert_ne!(plain, all);
    let pushed =
        format!(r#""encrypted":{{"manifest":"{}","plain":"{}"}}"#, digest('c'), digest('d'));
    let pulled = pushed.replace("}", r#","reference":"ghcr.io/acme/db"}"#);
    assert!(all.contains(&pushed) && all.contains(&pulled), "{all}");
    let one = check("{ key: ./app.key, services: web }", &["web"]);
    assert!(one.contains(&pushed) && !one.contains(&pulled), "{one}");
    let key = |encrypt: &str| parse(&file(encrypt)).encrypt().and_then(|e| e.key.clone());
    assert_eq!(key("{ key: ./app.key }").as_deref(), Some("./app.key"));
    assert_eq!(key("{ services: [db] }"), None);
}

#[test]
fn what_has_to_be_proved_is_a_wish_and_no_part_of_the_pod() {
    let hash = |byte: &str| format!("0x{}", byte.repeat(32));
    let plain = pod(&block("{}"));
    let parsed = parse(&block(&format!(
        "{{ attested: {{ kind: tdx, measurements: ['{}', '{}'], collateral: ./pccs.json }} }}",
        hash("02"),
        hash("01")
    )));
    let wish = parsed.wishes().attested.clone().unwrap();
    assert_eq!(wish.hardware, Hardware::Tdx);
    let measurements: Vec<_> = wish.measurements.iter().map(ToString::to_string).collect();
    assert_eq!(measurements, [hash("01"), hash("02")]);
    assert_eq!((wish.collateral.as_deref(), wish.oldest), (Some("./pccs.json"), None));
    assert_eq!(parsed.resolve(find).unwrap().hash(), plain.hash());
    let any = parse(&block(&format!("{{ attested: {{ measurements: '{}' }} }}", hash("01"))));
    assert_eq!(any.wishes().attested.as_ref().unwrap().hardware, Hardware::Any);
    assert_eq!(parse(&block("{}")).wishes().attested, None);
}

#[test]
fn a_missing_digest_names_its_service() {
    let err = parse(GUESTBOOK).resolve(|_, _| Err("offline")).unwrap_err();
    expect!["the image of services.web, ghcr.io/acme/guestbook:1.4, has no digest"]
        .assert_eq(&err.to_string());
}

#[test]
fn hostile_bytes_are_refused() {
    let good = text(&pod(EVERYTHING));
    let changes = [
        (r#"{"ingress""#, r#"{ "ingress""#),
        (r#""services":{"#, r#""extra":1,"services":{"#),
        (r#""cache":{"#, r#""../cache":{"#),
        (r#""cache":{"#, r#""Cache":{"#),
        (r#""init":true"#, r#""init":false"#),
        (r#""init":true"#, r#""init":true,"init":true"#),
        (r#""init":true"#, r#""privileged":true"#),
        (r#""53/udp","7000/tcp""#, r#""7000/tcp","53/udp""#),
        (r#""53/udp""#, r#""53/udp","53/udp""#),
        (r#""53/udp""#, r#""0/udp""#),
        (r#""7000/tcp""#, r#""7000""#),
        (r#""port":8080"#, r#""port":0"#),
        (r#""port":8080"#, r#""port":8082"#),
        (r#""port":8080"#, r#""port":8080.0"#),
        ("www.example.org", "WWW.example.org"),
        ("www.example.org", "www.example.org/../x"),
        (r#""cpu":1500"#, r#""cpu":0"#),
        (r#""cpu":1500"#, r#""cpu":4294967295"#),
        (r#""cpu":1500"#, r#""cpu":99999999999"#),
        (r#""cpu":1500"#, r#""cpu":-1"#),
        (r#""memory":536870912"#, r#""memory":1"#),
        (r#""memory":536870912"#, r#""memory":18446744073709551615"#),
        (r#""pids":100"#, r#""pids":4000000000"#),
        (r#""size":10737418240"#, r#""size":18446744073709551615"#),
        (r#""/again""#, r#""/proc/1""#),
        (r#""/again""#, r#""/a/../../b""#),
        (r#""/again""#, r#""/""#),
        (r#""/again""#, r#""/cache""#),
        (r#""/again""#, r#""/dev/shm""#),
        (r#""/cache":{"#, r#""/run/secrets/plain/x":{"#),
        (r#""/run/secrets/plain""#, r#""/sys/x""#),
        (r#""/run/secrets/plain""#, r#""/run/secrets""#),
        (r#""/again":{"source":"data"}"#, r#""/again":{"source":"other"}"#),
        (r#""mode":448"#, r#""mode":2048"#),
        (r#""mode":256"#, r#""mode":65535"#),
        (r#""TRUTH":"true""#, r#""TR=UTH":"true""#),
        (r#""TRUTH":"true""#, r#""TRUTH":"a\u0000b""#),
        (r#""TRUTH":"true""#, r#""TRUTH":"\u0041""#),
        (r#""TRUTH":"true""#, r#""TRUTH":true"#),
        (r#""empty":"""#, r#""roadstead.lease":"7""#),
        (r#""hostname":"front""#, r#""hostname":"a.b""#),
        (r#""user":"1000:1000""#, r#""user":"0:0:0""#),
        (r#""stop_signal":"SIGINT""#, r#""stop_signal":"--privileged""#),
        (r#""stop_grace_s":61"#, r#""stop_grace_s":4000"#),
        (r#""interval_ms":90000"#, r#""interval_ms":0"#),
        (r#""test":{"shell":"pg_isready"}"#, r#""test":{"exec":[]}"#),
        (r#""test":"disabled""#, r#""test":{"disabled":null}"#),
        (r#""max":5"#, r#""max":0"#),
        (
            r#""depends_on":{"cache":"service_started"}"#,
            r#""depends_on":{"web":"service_started"}"#,
        ),
        (
            r#""depends_on":{"cache":"service_started"}"#,
            r#""depends_on":{"gone":"service_started"}"#,
        ),
        (
            r#""depends_on":{"cache":"service_started"}"#,
            r#""depends_on":{"cache":"service_healthy"}"#,
        ),
        ("sha256:bbbb", "sha512:bbbb"),
        ("sha256:bbbb", "sha256:BBBB"),
        ("docker.io/library/redis", "redis"),
        ("docker.io/library/redis", "docker.io/library/../redis"),
        ("docker.io/library/redis", "evil.example:99999/redis"),
        ("docker.io/library/redis", "docker.io/library/redis:latest"),
        (r#"{"pushed":{"#, r#"{"pulled":{"#),
    ];
    let more = text(&pod(MORE));
    let more_changes = [
        (r#""back":{"internal":true},"#, ""),
        (r#""back":{"internal":true},"#, r#""back":{"internal":true},"default":{},"#),
        (
            r#""back":{"internal":true},"#,
            r#""back":{"internal":true},"default":{"internal":false},"#,
        ),
        (r#""back":{"internal":true},"#, r#""back":{"driver":"host","internal":true},"#),
        (r#""front":{}},"services""#, r#""front":{},"unused":{}},"services""#),
        (r#""networks":{"back":{},"default":{}}"#, r#""networks":{"default":{}}"#),
        (
            r#""networks":{"back":{},"default":{}}"#,
            r#""networks":{"back":{"aliases":[]},"default":{}}"#,
        ),
        (r#""networks":{"back":{},"default":{}}"#, r#""networks":{"../back":{},"default":{}}"#),
        (r#""aliases":["shop-web"]"#, r#""aliases":["shop web"]"#),
        (r#""aliases":["shop-web"]"#, r#""aliases":["shop-web","shop-web"]"#),
        (r#""203.0.113.10","203.0.113.11""#, r#""203.0.113.11","203.0.113.10""#),
        (r#"["203.0.113.9"]"#, "[]"),
        ("203.0.113.9", "host-gateway"),
        ("2001:db8::1", "2001:0db8::1"),
        ("net.ipv4.tcp_keepalive_time", "kernel.core_pattern"),
        (r#""net.ipv4.tcp_keepalive_time":"60""#, r#""net.ipv4.tcp_keepalive_time":"|/bin/sh""#),
        (r#""memlock""#, r#""rtprio""#),
        (r#""hard":4096,"soft":1024"#, r#""hard":1024,"soft":4096"#),
        (r#""hard":4096,"soft":1024"#, r#""hard":-1,"soft":-1"#),
        (r#""shm_size":16777216"#, r#""shm_size":1"#),
        (r#""shm_size":16777216"#, r#""shm_size":-1"#),
        (r#""gid":33"#, r#""gid":-1"#),
        (r#""group_add":["1001","audio"]"#, r#""group_add":["1001:0","audio"]"#),
        (r#""optional":["cache"]"#, r#""optional":["cache","nobody"]"#),
        (r#""restart":{"on_failure":{"max":3}}"#, r#""restart":"always""#),
        (r#""source":"inline""#, r#""source":"missing""#),
        ("/etc/app/inline.conf", "/proc/sys/kernel/core_pattern"),
        ("/etc/app/inline.conf", "/run/secrets/key"),
        (r#""domainname":"example.org""#, r#""domainname":"-""#),
    ];
    let changes = changes.map(|(from, to)| (&good, from, to)).into_iter();
    let more_changes = more_changes.map(|(from, to)| (&more, from, to));
    let mut refused = String::new();
    for (good, from, to) in changes.chain(more_changes) {
        assert!(good.contains(from), "{from}");
        let bytes = good.replacen(from, to, 1);
        let err = Pod::decode(bytes.as_bytes()).expect_err(&bytes);
        let plain = serde_json::from_str::<Pod>(&bytes);
        let form_alone = matches!(err, DecodeError::NotCanonical);
        assert_eq!(plain.is_ok(), form_alone, "serde keeps the same rules");
        let source = err.source().map(|err| format!(": {err}")).unwrap_or_default();
        refused.push_str(&format!("{from}  ->  {to}\n    {err}{source}\n"));
    }
    expect_file!["pods/hostile.txt"].assert_eq(&refused);
    let flood: String = (0..3_000).map(|n| format!("\"x{n}\":\"service_started\",")).collect();
    let flood = good.replacen("\"depends_on\":{", &format!("\"depends_on\":{{{flood}"), 1);
    let Err(DecodeError::Invalid(errors)) = Pod::decode(flood.as_bytes()) else {
        panic!("3,000 services that are not there");
    };
    assert_eq!(errors.faults().len(), limits::FAULTS);
    assert!(Pod::decode(b"").is_err());
    assert!(Pod::decode(b"null").is_err());
    assert!(Pod::decode(b"{\"services\":{}}").is_err());
    assert!(Pod::decode(&vec![b' '; limits::CANONICAL + 1]).is_err());
    assert!(Pod::decode("[".repeat(100_000).as_bytes()).is_err());
    assert!(Pod::decode(&good.as_bytes()[..good.len() - 1]).is_err());
    assert!(Pod::decode(format!("{good}\n").as_bytes()).is_err());
}

#[test]
fn what_parses_also_decodes() {
    let damaged = (0..EVERYTHING.len()).step_by(7).filter_map(|at| {
        let (before, after) = (EVERYTHING.get(..at)?, EVERYTHING.get(at + 1..)?);
        Some([before.to_owned(), format!("{before}{after}"), format!("{before}:{after}")])
    });
    for file in damaged.flatten() {
        let Ok(parsed) = Pod::from_compose(&file, &Machine) else { continue };
        let pod = parsed.resolve(find).unwrap();
        assert_eq!(Pod::decode(&pod.canonical()).unwrap(), pod, "{file}");
    }
}
