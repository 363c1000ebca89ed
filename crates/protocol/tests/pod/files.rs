//! Pods out of several files, and the profiles that choose among their services.

use std::collections::BTreeMap;

use expect_test::expect;
use protocol::pod::{Pod, Surroundings, limits};

use crate::find;

/// A folder with these files.
#[derive(Default)]
struct Folder<'a> {
    files: BTreeMap<&'a str, &'a str>,
    variables: BTreeMap<&'a str, &'a str>,
}

impl Surroundings for Folder<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &str) -> Result<String, String> {
        let file = self.files.get(path).ok_or("no such file")?;
        Ok((*file).to_owned())
    }
}

fn folder<'a>(files: &[(&'a str, &'a str)]) -> Folder<'a> {
    Folder { files: files.iter().copied().collect(), ..Folder::default() }
}

/// The pod's JSON, short of its images and limits, or what is wrong.
fn read(folder: &Folder<'_>) -> String {
    let yaml = folder.files["compose.yaml"];
    let parsed = match Pod::from_compose(yaml, folder) {
        Ok(parsed) => parsed,
        Err(errors) => return errors.to_string(),
    };
    let pod = parsed.resolve(find).expect("a pod");
    let json = serde_json::from_slice(&pod.canonical()).expect("JSON");
    let serde_json::Value::Object(mut json) = json else { return "no map".into() };
    let Some(serde_json::Value::Object(services)) = json.remove("services") else {
        return "no services".into();
    };
    let services: Vec<String> = services
        .into_iter()
        .map(|(name, mut service)| {
            if let Some(fields) = service.as_object_mut() {
                fields.retain(|key, _| key != "image" && key != "limits");
            }
            format!("{name}: {service}")
        })
        .collect();
    let json = serde_json::Value::Object(json);
    format!("{}\n{json}", services.join("\n"))
}

#[test]
fn a_service_takes_over_what_it_does_not_say() {
    let base = "services:
  base:
    image: base
    command: [run, it]
    environment: { A: base, B: base }
    labels: [one=base]
    env_file: base.env
    ports: [80]
    expose: [1]
    volumes: ['data:/data:ro', 'other:/other']
    tmpfs: /tmp
    networks: [back]
    depends_on: [db]
    healthcheck: { test: [CMD, base], retries: 3 }
    ulimits: { nofile: 10, core: 0 }
    cap_drop: [ALL]
    extends: deeper
  deeper:
    user: deep
    environment: [C=deep, A=deep]
    tmpfs: ['/deep:size=1m']";
    let main = "services:
  web:
    extends: { file: sub/base.yaml, service: base }
    image: web
    command: serve
    environment: [B=web]
    labels: { two: web }
    env_file: [{ path: web.env }]
    ports: ['80', 81]
    expose: [1, 2]
    volumes: ['new:/data']
    networks: { back: { aliases: [w] }, default: }
    depends_on: { db: { condition: service_healthy } }
    healthcheck: { test: [CMD, web] }
    ulimits: { nofile: { soft: 5, hard: 6 } }
    read_only:
  db: { extends: web-less, image: db }
  web-less: { image: less, stop_signal: SIGINT }
networks: { back: }
volumes: { data: { x-size: 1M }, other: { x-size: 1M }, new: { x-size: 1M } }";
    let files = [
        ("compose.yaml", main),
        ("sub/base.yaml", base),
        ("sub/base.env", "FROM_BASE=1\nA=file"),
        ("web.env", "FROM_WEB=1"),
    ];
    expect![[r#"
        db: {"stop_signal":"SIGINT"}
        web: {"command":["serve"],"depends_on":{"db":"service_healthy"},"environment":{"A":"base","B":"web","C":"deep","FROM_BASE":"1","FROM_WEB":"1"},"healthcheck":{"retries":3,"test":{"exec":["web"]}},"labels":{"one":"base","two":"web"},"networks":{"back":{"aliases":["w"]},"default":{}},"ports":["1/tcp","2/tcp","80/tcp","81/tcp"],"public":["80/tcp","81/tcp"],"tmpfs":{"/deep":{"mode":1023,"size":1048576},"/tmp":{"mode":1023,"size":67108864}},"ulimits":{"core":{"hard":0,"soft":0},"nofile":{"hard":6,"soft":5}},"user":"deep","volumes":{"/data":{"source":"new"},"/other":{"source":"other"}}}
        web-less: {"stop_signal":"SIGINT"}
        {"networks":{"back":{}},"volumes":{"new":{"size":1048576},"other":{"size":1048576}}}"#]].assert_eq(&read(&folder(&files)));
}

#[test]
fn included_files_bring_their_own_folder_and_variables() {
    let files = [
        (
            "compose.yaml",
            "include:
  - db/compose.yaml
  - { path: [cache.yaml, over.yaml], project_directory: cache, env_file: cache.env }
services:
  web: { image: '${TAG:-none}', depends_on: [db, cache], secrets: [password] }",
        ),
        (
            "db/compose.yaml",
            "include: [inner/compose.yaml]
services:
  db: { image: 'db:${TAG}', env_file: ./db.env, secrets: [password], configs: [conf], volumes: ['data:/data'] }
volumes: { data: { x-size: 1M } }
configs: { conf: { file: ./db.conf } }
secrets: { password: { file: password.txt } }",
        ),
        ("db/.env", "TAG=17\nOVERRIDDEN=file"),
        ("db/db.env", "IN_DB=${OVERRIDDEN}"),
        ("db/db.conf", "max = 1"),
        ("db/inner/compose.yaml", "services: { inner: { image: i, environment: { A: '${OVERRIDDEN}' } } }"),
        ("cache.yaml", "services: { cache: { image: c, command: [one], environment: { A: '${CACHE}' }, env_file: c.env } }"),
        ("over.yaml", "services: { cache: { command: [two], environment: { B: b } } }"),
        ("cache.env", "CACHE=hot"),
        ("cache/c.env", "FROM=c"),
    ];
    let mut folder = folder(&files);
    folder.variables.insert("OVERRIDDEN", "machine");
    expect![[r#"
        cache: {"command":["two"],"environment":{"A":"hot","B":"b","FROM":"c"}}
        db: {"configs":{"/conf":{"mode":292,"source":"conf"}},"environment":{"IN_DB":"machine"},"secrets":{"/run/secrets/password":{"mode":292,"source":"password"}},"volumes":{"/data":{"source":"data"}}}
        inner: {"environment":{"A":"machine"}}
        web: {"depends_on":{"cache":"service_started","db":"service_started"},"secrets":{"/run/secrets/password":{"mode":292,"source":"password"}}}
        {"configs":{"conf":"max = 1"},"volumes":{"data":{"size":1048576}}}"#]].assert_eq(&read(&folder));
    let parsed = Pod::from_compose(folder.files["compose.yaml"], &folder).unwrap();
    assert_eq!(
        format!("{:?}", parsed.secrets().values().collect::<Vec<_>>()),
        r#"[File("db/password.txt")]"#
    );
}

#[test]
fn what_several_files_cannot_say_together_is_refused() {
    let check = |files: &[(&'static str, &'static str)], wanted: expect_test::Expect| {
        wanted.assert_eq(&read(&folder(files)));
    };
    let main = ("compose.yaml", "include: [a.yaml]\nservices: { web: { image: web } }");
    check(
        &[main, ("a.yaml", "services: { web: { image: other } }\nx-roadstead: {}")],
        expect![[r#"
            include[0]: services.web is there already, and differs; rename one
            include[0]: x-roadstead belongs into the file that is deployed; move it there"#]],
    );
    check(
        &[main, ("a.yaml", "include: [a.yaml]")],
        expect!["include[0]: files are nested more than 16 deep; one includes itself"],
    );
    check(
        &[main, ("a.yaml", "services: [")],
        expect!["a.yaml: unclosed bracket '[' at line 1, column 11"],
    );
    check(
        &[main, ("a.yaml", "- a")],
        expect!["a.yaml: it is no map; write services, with a service in it"],
    );
    check(
        &[main, ("a.yaml", "services: { web: { image: web } }\nname: other")],
        expect![[r#"
        web: {}
        {}"#]],
    );
    check(
        &[
            ("compose.yaml", "services: { web: { extends: { file: a.yaml, service: web } } }"),
            ("a.yaml", "services: { web: { extends: { file: compose.yaml, service: web } } }"),
        ],
        expect![
            "services.web.extends: web in compose file and web in a.yaml and web in compose.yaml extend one another without end; remove one"
        ],
    );
    check(
        &[
            ("compose.yaml", "services: { web: { extends: { file: a.yaml, service: web } } }"),
            ("a.yaml", "services: { wbe: { image: a } }"),
        ],
        expect!["services.web.extends: there is no service web in a.yaml"],
    );
    check(
        &[
            ("compose.yaml", "include: [{ path: a.yaml, env_file: gone.env }]"),
            ("a.yaml", "services: {}"),
        ],
        expect![[r#"
            include[0].env_file: "gone.env" cannot be read: no such file
            services: there is none; a pod has one at least"#]],
    );
}

#[test]
fn tags_that_would_be_lost_are_refused() {
    let main = "include: [{ path: [a.yaml, b.yaml] }]";
    let files = [
        ("compose.yaml", main),
        ("a.yaml", "services: { web: { image: a, ports: [80] } }"),
        ("b.yaml", "services: { web: { ports: !reset [] } }"),
    ];
    expect!["b.yaml: unsupported tag `!reset` at line 1, column 34"]
        .assert_eq(&read(&folder(&files)));
}

#[test]
fn many_files_and_large_services_have_an_end() {
    let include: String = (0..limits::FILES + 1).map(|n| format!("- f{n}.yaml\n")).collect();
    let main = format!("include:\n{include}services: {{ web: {{ image: a }} }}");
    let names: Vec<String> = (0..limits::FILES + 1).map(|n| format!("f{n}.yaml")).collect();
    let mut files = folder(&[("compose.yaml", &main)]);
    files.files.extend(names.iter().map(|name| (name.as_str(), "services: {}")));
    expect!["include[32]: there are more than 32 files; merge some"].assert_eq(&read(&files));
    let words = "x,".repeat(20_000);
    let heirs: String = (0..10).map(|n| format!("  s{n}: {{ extends: base }}\n")).collect();
    let main = format!("services:\n  base: {{ image: a, command: [{words}] }}\n{heirs}");
    expect!["services.s2.extends: services take over more than 50000 values in all"]
        .assert_eq(&read(&folder(&[("compose.yaml", &main)])));
    let heirs: String = (0..40).map(|n| format!("  s{n}: {{ extends: s{} }}\n", n + 1)).collect();
    let main = format!("services:\n{heirs}  s40: {{ image: a }}\n");
    let said = read(&folder(&[("compose.yaml", &main)]));
    assert!(said.contains("without end"), "{said}");
}

#[test]
fn profiles_choose() {
    let main = "services:
  web: { image: a }
  debug: { image: a, profiles: [debug, all] }
  test: { image: a, profiles: [test], depends_on: [web] }";
    let check = |profiles: &str, wanted: &[&str]| {
        let mut folder = folder(&[("compose.yaml", main)]);
        folder.variables.insert("COMPOSE_PROFILES", profiles);
        let parsed = Pod::from_compose(main, &folder).unwrap();
        let names: Vec<&str> = parsed.images().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, wanted, "{profiles}");
    };
    check("", &["web"]);
    check("debug", &["debug", "web"]);
    check("test, all", &["debug", "test", "web"]);
    check("*", &["debug", "test", "web"]);
    check("other", &["web"]);
}
