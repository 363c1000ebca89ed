//! A provider whose pods run on several machines.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{Container, Docker, METADATA, PodFile, Setup, Site, Stack, story, until, until_within};

/// In how much time a swarm finds out that a machine is gone, and has run elsewhere what ran there.
const RESCHEDULED: Duration = Duration::from_secs(120);

const SETUP: Setup = Setup {
    cpu: "2",
    memory: "512Mi",
    price: "0.01/h",
    lock: 60,
    start_within: 120,
    quote_life: 300,
    engine: true,
    cluster: true,
    ports: false,
    https: false,
    // As docs/provider.md wants it.
    daemon: r#"{ "no-new-privileges": true, "default-cgroupns-mode": "private", "userland-proxy": false }"#,
};

/// Two services that find each other by name, of which one has a secret and a config.
const BESIDE: &str = r#"    read_only: true
    user: "1234:1235"
    secrets: [word]
    configs: [{ source: greeting, target: /etc/greeting, mode: 0440 }]
  db:
    image: IMAGE
    command: ["/probe", "serve", "9090"]
    expose: ["9090"]
    read_only: true
    tmpfs: ["/tmp:size=1m"]
    healthcheck: { test: ["CMD", "/probe", "health", "9090"], interval: 1s, timeout: 3s }
    stop_signal: SIGKILL
    restart: unless-stopped
    deploy: { resources: { limits: { cpus: "0.25", memory: 32M } } }
secrets: { word: { file: ./word } }
configs: { greeting: { content: "hello" } }
"#;

/// The machines of a cluster.
struct Machines {
    near: Docker,
    far: Docker,
}

impl Machines {
    async fn of(stack: &Stack) -> anyhow::Result<Self> {
        let (other, _) = stack.other.as_ref().context("there is no other engine")?;
        let far = Docker::connect(Some(&other.host())).await?;
        Ok(Self { near: stack.docker.clone(), far })
    }

    /// The containers of a lease that run, with whether each is on the other machine.
    async fn run(&self, stack: &Stack, lease: u64) -> anyhow::Result<Vec<(Container, bool)>> {
        let mut running = Vec::new();
        for (docker, far) in [(&self.near, false), (&self.far, true)] {
            let containers = docker.containers(stack.provider.address()).await?;
            let ours = |c: &Container| c.lease == lease && c.state == "running";
            running.extend(containers.into_iter().filter(ours).map(|found| (found, far)));
        }
        Ok(running)
    }

    /// When a container of the provider's own machine was started.
    async fn started(&self, container: &Container) -> anyhow::Result<String> {
        let found = self.near.inspect(&container.id).await?;
        let state = found.state.context("it has no state")?;
        ensure!(state.running == Some(true), "it does not run any more");
        state.started_at.context("it was never started")
    }
}

async fn answers(site: &Site, path: &str) -> anyhow::Result<String> {
    until_within("the site answers", RESCHEDULED, async || Ok(Some(site.get(path).await?))).await
}

fn pod(stack: &Stack, name: &str, image: &str) -> anyhow::Result<PodFile> {
    let pod = stack.probe(name, image, &BESIDE.replace("IMAGE", image))?;
    std::fs::write(Path::new(pod.path()).with_file_name("word"), "open sesame")?;
    Ok(pod)
}

#[tokio::test]
async fn services_run_on_several_machines_and_outlive_one() -> anyhow::Result<()> {
    story(SETUP, async |stack| {
        let machines = Machines::of(stack).await?;
        let image = stack.image("cluster").await?;
        let pod = pod(stack, "cluster", &image.name)?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        let running = machines.run(stack, lease).await?;
        ensure!(running.len() == 2, "{running:?}");
        let on = |far: bool| running.iter().find(|(_, at)| *at == far).map(|(found, _)| found);
        let (near, far) = on(false).zip(on(true)).context("both are on one machine")?;

        // They talk by name, over both machines; and each has its files.
        ensure!(answers(&site, "/resolve/db").await? == "1 answers", "web does not know db");
        let word = site.get("/read/run/secrets/word").await?;
        ensure!(word == "open sesame", "the secret is {word:?}");
        let greeting = site.get("/read/etc/greeting").await?;
        ensure!(greeting == "hello", "the config is {greeting:?}");
        let db = [near, far].into_iter().find(|c| c.service == "db").context("there is no db")?;
        let reached = async || {
            let said = site.get(&format!("/connect/{}/9090", db.ip.context("no address")?)).await?;
            Ok((said == "connected").then_some(()))
        };
        until("web reaches db", reached).await?;

        // Whichever machine it is on, a service is operated as anywhere else.
        let id = lease.to_string();
        for service in ["web", "db"] {
            let exec = ["exec", &id, "--service", service, "--", "/probe", "say", "one", "two"];
            let said = stack.publisher.run(&exec).await?;
            ensure!((said.code, said.out.as_str()) == (0, "one\n"), "{service}: {said:?}");
            let logs = stack.publisher.run(&["logs", &id, "--service", service]).await?;
            ensure!(logs.out.contains("probe: listening on"), "{service}: {logs:?}");
        }

        // What runs on the machine that lives is never touched.
        let started = machines.started(near).await?;
        let others = |running: &[(Container, bool)]| {
            let other = running.iter().find(|(found, _)| found.service == far.service);
            other.map(|(found, _)| found.id.clone())
        };
        let (other, _) = stack.other.as_ref().context("there is no other engine")?;
        other.cut(true).await?;
        let moved = async || {
            let running = machines.run(stack, lease).await?;
            let here: Vec<_> = running.into_iter().filter(|(_, far)| !far).collect();
            Ok((here.len() == 2).then(|| others(&here)).flatten())
        };
        let moved = until_within("the service runs elsewhere", RESCHEDULED, moved).await?;
        ensure!(moved != far.id, "it is the same container");
        ensure!(answers(&site, "/healthz").await? == "well", "web does not answer");
        ensure!(answers(&site, "/resolve/db").await? == "1 answers", "web does not know db");
        ensure!(machines.started(near).await? == started, "the other one was started again");

        // The provider starts again while a machine is gone, and finds both.
        stack.provider.stop().await?;
        stack.provider.start().await?;
        ensure!(answers(&site, "/healthz").await? == "well", "web does not answer");
        let view = stack.provider.verb(&["node", "ls"]).await?;
        let states: Vec<_> = view.as_array().into_iter().flatten().map(|n| &n["state"]).collect();
        ensure!(states.contains(&&Value::from("down")), "{view}");

        // The machine comes back, and has nothing of what was run elsewhere meanwhile.
        let (other, _) = stack.other.as_ref().context("there is no other engine")?;
        other.cut(false).await?;
        let gone = async || {
            let running = machines.run(stack, lease).await?;
            Ok((running.len() == 2 && running.iter().all(|(_, far)| !far)).then_some(()))
        };
        until_within("the machine is back and idle", RESCHEDULED, gone).await?;
        ensure!(machines.started(near).await? == started, "the other one was started again");

        // Drained, it gives away what it has.
        let solo = stack.probe("solo", &image.name, "    read_only: true")?;
        let second = stack.publisher.deploy(&solo).await?.lease;
        let there = machines.run(stack, second).await?;
        ensure!(matches!(&there[..], [(_, true)]), "{there:?}");
        let beside = stack.provider.site(&solo.host)?;
        ensure!(answers(&beside, "/healthz").await? == "well", "solo does not answer");
        stack.provider.verb(&["node", "drain", "other"]).await?;
        let moved = async || {
            let running = machines.run(stack, second).await?;
            Ok(matches!(&running[..], [(_, false)]).then_some(()))
        };
        until_within("the machine is drained", RESCHEDULED, moved).await?;
        ensure!(answers(&beside, "/healthz").await? == "well", "solo does not answer");
        let view = stack.provider.verb(&["node", "ls"]).await?;
        let work: Vec<_> =
            view.as_array().into_iter().flatten().map(|n| &n["availability"]).collect();
        ensure!(work.contains(&&Value::from("drain")), "{view}");
        stack.provider.verb(&["node", "activate", "other"]).await?;
        ensure!(machines.started(near).await? == started, "the other one was started again");

        // Nothing is left of what is over.
        for lease in [lease, second] {
            stack.publisher.down(lease).await?;
        }
        let left = async || {
            let who = stack.provider.address();
            let mut left = machines.near.services(who).await?;
            left.extend(machines.near.files(who).await?);
            left.extend(machines.near.left(who).await?);
            left.extend(machines.far.left(who).await?);
            ensure!(left.is_empty(), "there are {left:?}");
            Ok(Some(()))
        };
        until_within("all of it is gone", RESCHEDULED, left).await
    })
    .await
}

#[tokio::test]
async fn a_service_of_a_cluster_reaches_no_machine_and_nobody_reaches_it() -> anyhow::Result<()> {
    story(SETUP, async |stack| {
        let machines = Machines::of(stack).await?;
        let image = stack.image("walled").await?;
        let mut pod = pod(stack, "walled", &image.name)?;
        pod.change("\"web:8080\" }", "\"web:8080\", walled-db.localhost: \"db:9090\" }")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let (other, addresses) = stack.other.as_ref().context("there is no other engine")?;
        let engine = stack.engine.as_ref().context("there is no engine")?;
        for machine in [engine, other] {
            machine.listen(9_000).await?;
        }
        let forbidden = [
            ("its machine's metadata", METADATA, 9_000),
            ("the provider's machine", addresses[0], 9_000),
            ("the swarm's manager", addresses[0], 2_377),
            ("the other machine", addresses[1], 9_000),
            ("the provider's other address", engine.inside, 9_000),
        ];
        // One of the two is on each machine.
        for host in [&pod.host, "walled-db.localhost"] {
            let site = stack.provider.site(host)?;
            for (what, ip, port) in forbidden {
                let said = site.get(&format!("/connect/{ip}/{port}")).await?;
                ensure!(said.starts_with("refused"), "{host}: {what}: {said}");
            }
            let said = site.get("/escape").await?;
            ensure!(said.contains("may get none"), "{host}: {said}");
        }

        // What it publishes is the provider's alone, on whichever machine.
        let running = machines.run(stack, lease).await?;
        for (container, far) in running {
            let (docker, at) = match far {
                true => (&machines.far, other.inside),
                false => (&machines.near, engine.inside),
            };
            let ports = docker.inspect(&container.id).await?.network_settings;
            let ports = ports.and_then(|settings| settings.ports).unwrap_or_default();
            let bound = ports.into_values().flatten().flatten();
            let port = bound.filter_map(|port| port.host_port?.parse::<u16>().ok()).next();
            let port = port.context("nothing is published")?;
            let reached = tokio::net::TcpStream::connect((at, port));
            let reached = tokio::time::timeout(Duration::from_secs(2), reached).await;
            ensure!(!matches!(reached, Ok(Ok(_))), "{} is open to the world", container.service);
        }

        // What a cluster cannot do is refused with what it could.
        let writes = stack.probe("writes", &image.name, "")?;
        let quote = ["quote", writes.path()];
        stack.publisher.run(&quote).await?.refused(1, &["services.web", "read_only: true"])
    })
    .await
}

/// A service with a volume beside one without, which ends when it is told to.
const KEEPER: &str = r#"    read_only: true
    volumes: ["book:/data"]
    secrets: [word]
secrets: { word: { file: ./word } }
volumes: { book: { x-size: 8M } }
"#;

#[tokio::test]
async fn a_pod_of_a_cluster_keeps_its_volume_and_is_changed_and_frozen() -> anyhow::Result<()> {
    story(SETUP, async |stack| {
        let machines = Machines::of(stack).await?;
        let image = stack.image("keeper").await?;
        let mut pod = stack.probe("keeper", &image.name, KEEPER)?;
        std::fs::write(Path::new(pod.path()).with_file_name("word"), "open sesame")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        let running = machines.run(stack, lease).await?;
        ensure!(matches!(&running[..], [(_, false)]), "it is not where its volume is: {running:?}");
        let page = stack.folder().join("page");
        std::fs::write(&page, "a page")?;
        let target = format!("{lease}:/data/page");
        stack.publisher.json(&["cp", &page.display().to_string(), &target]).await?;

        // Frozen while its account is dry, whoever runs it.
        let dry = stack.lease(lease).await?.fundedUntil.to::<u64>();
        let now = stack.chain.head().await?.timestamp;
        stack.pass(dry - now + 1).await?;
        let is =
            async |state: &str| Ok((stack.container(lease).await?.state == state).then_some(()));
        until("it is frozen", async || is("paused").await).await?;
        let (status, words) = site.ask("/").await?;
        ensure!(status == 503 && words.contains("topped up"), "{status}: {words}");
        stack.publisher.json(&["fund", "1"]).await?;
        until("it answers again", async || Ok(Some(site.get("/").await?))).await?;

        // What does not start leaves what ran; what does has the volume.
        let pages = async || Ok((site.get("/read/data/page").await? == "a page").then_some(()));
        until("it has its page", pages).await?;
        pod.change("\"serve\", \"8080\"", "\"end\", \"7\"")?;
        let said = stack.publisher.run(&["update", "keeper", pod.path(), "--yes"]).await?;
        said.refused(1, &["goes on", "could not be started", "it ended with code 7"])?;
        until("what ran before has its volume", pages).await?;
        pod.change("\"end\", \"7\"", "\"serve\", \"8080\"")?;
        pod.change("memory: 32M", "memory: 48M")?;
        stack.publisher.update(lease, &pod).await?;
        until("what runs now has its volume", pages).await?;
        let running = machines.run(stack, lease).await?;
        let [(container, false)] = &running[..] else { anyhow::bail!("there are {running:?}") };
        let limits = machines.near.inspect(&container.id).await?.host_config;
        let memory = limits.and_then(|limits| limits.memory);
        ensure!(memory == Some(48 << 20), "it has {memory:?}");

        stack.publisher.down(lease).await?;
        let gone = async || {
            let who = stack.provider.address();
            ensure!(machines.near.services(who).await?.is_empty(), "services are left");
            ensure!(machines.near.left(who).await?.is_empty(), "something is left");
            Ok(Some(()))
        };
        until_within("all of it is gone", RESCHEDULED, gone).await
    })
    .await
}
