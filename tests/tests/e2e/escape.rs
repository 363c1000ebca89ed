//! A pod that tries to get out, in all ways that it knows, and reports what it could do.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use tests::{Setup, WORLD, story, until};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

/// What each service may write outside of its volumes, and in a volume, in MiB.
const LAYER: usize = 32;
const VOLUME: usize = 16;

/// How many of the tries succeed at least in a container that Docker confines in no special way.
const KNOWN: usize = 10;

#[tokio::test]
async fn a_pod_does_not_get_out() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let image = stack.image_with("escape", "VOLUME /declared").await?;
        let more = format!(
            "    storage_opt: {{ size: {LAYER}M }}\n    volumes: [\"data:/data\"]\n    tmpfs: [\"/mem:size=4m\"]\n    \
             shm_size: 4m\n  low:\n    image: {}\n    user: prober\n    command: [\"/probe\", \"serve\", \"8081\"]\n    \
             ports: [\"8081\"]\n    stop_signal: SIGKILL\n    restart: unless-stopped\n    \
             deploy: {{ resources: {{ limits: {{ cpus: \"0.1\", memory: 32M, pids: 32 }} }} }}\nvolumes: {{ data: {{ x-size: {VOLUME}M }} }}",
            image.name
        );
        let mut pod = stack.probe("escape", &image.name, &more)?;
        pod.change("memory: 32M }", "memory: 48M, pids: 64 }")?;
        pod.change("escape.localhost: \"web:8080\"", "escape.localhost: \"web:8080\", low.localhost: \"low:8081\"")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let other = stack.probe("other", &image.name, "")?;
        let theirs = stack.publisher.deploy(&other).await?.lease;
        let site = stack.provider.site(&pod.host)?.patient()?;
        let low = stack.provider.site("low.localhost")?.patient()?;

        // The same tries succeed where nothing is in their way.
        let could = |said: &str| said.lines().filter(|line| line.contains(": could: ")).count();
        let free = stack.docker.unconfined(&image.id, &["/probe", "escape"]).await?;
        ensure!(could(&free) >= KNOWN, "the tries do not even work here:\n{free}");
        for (who, site) in [("root", &site), ("a user", &low)] {
            let said = site.get("/escape").await?;
            println!("as {who}:\n{said}");
            let tried = said.lines().filter(|line| line.contains(": could not: ")).count();
            ensure!(could(&said) == 0 && tried == free.lines().count(), "as {who}:\n{said}");
        }
        // A program of root's that asks to run as root runs as who starts it.
        ensure!(low.get("/user/rootly").await? == "1234", "{}", low.get("/user/rootly").await?);

        // It takes what it has, and nothing of the machine's.
        let said = site.get("/fork/1000").await?;
        let (started, why) = said.split_once(": ").context("it says nothing")?;
        ensure!(started.parse::<usize>()? < 64 && why.contains("os error 11"), "{said}");
        let said = site.get("/memory").await?;
        ensure!(said.contains("signal: 9"), "memory without end: {said}");
        let full = async |path: &str, most: usize| {
            let said = site.get(&format!("/fill/256/{path}")).await?;
            let (written, why) = said.split_once(" MiB: ").context("it says nothing")?;
            ensure!(why.contains("os error 28"), "{path}: {said}");
            ensure!((1..=most).contains(&written.parse()?), "{path}: {said}");
            anyhow::Ok(())
        };
        full("", LAYER).await?;
        full("tmp", LAYER).await?;
        // The image calls this a volume, and the pod mounts nothing there.
        full("declared", LAYER).await?;
        full("data", VOLUME).await?;
        full("mem", 4).await?;
        full("dev/shm", 4).await?;
        for path in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            let said = site.get(&format!("/fill/256/{path}")).await?;
            ensure!(said.starts_with("0 MiB"), "{path}: {said}");
        }

        // It finds nobody: not by name, not by address, not by datagram.
        ensure!(site.get("/resolve/low").await?.ends_with("answers"), "it does not find itself");
        let containers = stack.docker.containers(stack.provider.address()).await?;
        let theirs = containers.iter().find(|container| container.lease == theirs);
        let theirs = theirs.context("the other pod has no container")?;
        let names = stack.docker.inspect(&theirs.id).await?;
        let name = names.name.unwrap_or_default();
        for name in [name.trim_start_matches('/'), &theirs.id[..12], "host.docker.internal"] {
            let said = site.get(&format!("/resolve/{name}")).await?;
            ensure!(said.starts_with("no answer"), "{name}: {said}");
        }
        let engine = stack.engine.as_ref().context("there is no engine")?;
        let listener = UdpSocket::bind((engine.outside, 0)).await?;
        let port = listener.local_addr()?.port();
        site.get(&format!("/send/{}/{port}", engine.outside)).await?;
        // What is sent to the world arrives, and is younger: the other one would be here by then.
        let world = UdpSocket::bind((WORLD, 0)).await?;
        site.get(&format!("/send/{WORLD}/{}", world.local_addr()?.port())).await?;
        world.recv(&mut [0; 64]).await?;
        let early = listener.try_recv(&mut [0; 64]);
        ensure!(early.is_err(), "a datagram reached the machine's network");

        // What it sends to private networks does not even leave the machine; without the fence it would.
        let private = ["10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.1.1", "198.18.0.1"];
        let private = private.map(|ip| ip.parse::<Ipv4Addr>());
        let private = private.into_iter().collect::<Result<Vec<_>, _>>()?;
        engine.count(&private).await?;
        let site = &site;
        let try_all = async || {
            let tries =
                private.iter().map(async |ip| site.get(&format!("/connect/{ip}/80")).await);
            try_join_all(tries).await?;
            engine.counted().await
        };
        let left = try_all().await?;
        ensure!(left == vec![0; private.len()], "{left:?} packets left for {private:?}");
        engine.open_fence().await?;
        let left = try_all().await?;
        ensure!(left.iter().all(|count| *count > 0), "{left:?} packets left for {private:?}");

        // Both pods are as they were.
        ensure!(stack.provider.site(&other.host)?.get("/").await? == "probe");
        ensure!(site.get("/").await? == "probe");
        stack.publisher.down(lease).await?;
        stack.publisher.down(theirs.lease).await?;
        stack.nothing_is_left().await
    })
    .await
}

/// Takes what is sent, on a port of the world: some connections are cut off and never end.
async fn take(tasks: &mut JoinSet<()>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((WORLD, 0)).await?;
    let port = listener.local_addr()?.port();
    tasks.spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            streams.spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn a_pod_sends_as_fast_and_as_much_as_it_may() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let image = stack.image("egress").await?;
        let mut pod = stack.probe("egress", &image.name, "")?;
        let block = "x-roadstead:\n";
        pod.change(block, "x-roadstead:\n  egress: { rate: 2Gbit, total: 16M }\n")?;
        let said = stack.publisher.run(&["quote", pod.path()]).await?;
        said.refused(1, &["x-roadstead.egress.rate: 2 Gbit/s is asked for", "100 Mbit/s"])?;
        pod.change("2Gbit", "8Mbit")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?.patient()?;
        let mut tasks = JoinSet::new();
        let port = take(&mut tasks).await?;
        let upload = async |mib: u32| site.get(&format!("/upload/{WORLD}/{port}/{mib}")).await;

        // 10 MiB at 8 Mbit/s take ten seconds, less what a burst carries: however busy the machine is, it is not faster.
        let said = upload(10).await?;
        let ms: u64 = said.strip_prefix("sent in ").with_context(|| said.clone())?.parse()?;
        ensure!(ms > 4_000, "10 MiB took {ms} ms at 8 Mbit/s");
        // Then nothing goes out any more, and visitors are answered.
        let said = upload(10).await?;
        ensure!(said.starts_with("refused"), "more was sent than may be: {said}");
        ensure!(upload(1).await?.starts_with("refused"), "it goes on");
        ensure!(site.get("/").await? == "probe", "visitors are not answered");

        // Whatever becomes of the provider, what was sent was sent.
        stack.provider.kill().await?;
        stack.provider.start().await?;
        ensure!(upload(1).await?.starts_with("refused"), "a restart began the count anew");
        let sent = async || {
            let status = stack.provider.sent(lease)?;
            ensure!(status["total"] == 16 << 20, "{status}");
            let of = |name: &str| status[name].as_u64().unwrap_or_default();
            let sent = of("before") + of("counted");
            Ok((sent > 10 << 20).then_some(sent))
        };
        let sent = until("what it sent is counted", sent).await?;
        ensure!(sent <= 16 << 20, "{sent} bytes were sent");

        // More is allowed, in the same 30 days.
        pod.change("16M", "20M")?;
        stack.publisher.update(lease, &pod).await?;
        ensure!(upload(1).await?.starts_with("sent"), "it may send more, and cannot");
        ensure!(upload(10).await?.starts_with("refused"), "the count began anew with the change");
        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await?;
        let engine = stack.engine.as_ref().context("there is no engine")?;
        let gone = async || {
            let rules = engine.rules().await?;
            ensure!(!rules.contains("RSE-") && !rules.contains("RSA-"), "there are\n{rules}");
            Ok(Some(()))
        };
        until("no rule is left", gone).await
    })
    .await
}

/// gVisor as Debian has it: with the network of the container's namespace, and without virtual machines.
const GVISOR: &str = r#"{ "runtimes": { "runsc": {
    "path": "runsc", "runtimeArgs": ["--network=host", "--platform=ptrace"] } } }"#;

#[tokio::test]
async fn gvisor_is_never_dropped_silently() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let image = stack.image("runtime").await?;
        let mut pod = stack.probe("runtime", &image.name, "")?;
        pod.change("    ports:", "    runtime: runsc\n    ports:")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(1, &["services.web.runtime", "gVisor (runsc) is not installed here"])?;
        stack.nothing_came_of_it().await
    })
    .await
}

#[tokio::test]
async fn gvisor_runs_what_asks_for_it() -> anyhow::Result<()> {
    let version = tokio::process::Command::new("runsc").arg("--version").output().await;
    let version =
        version.context("gVisor (runsc) is not on this machine; `make setup` brings it")?;
    ensure!(version.status.success(), "runsc --version: {version:?}");
    story(Setup { engine: true, daemon: GVISOR, ..Setup::default() }, async |stack| {
        let image = stack.image("gvisor").await?;
        let mut pod = stack.probe("gvisor", &image.name, "")?;
        pod.change("memory: 32M", "memory: 128M")?;
        pod.change("    ports:", "    runtime: runsc\n    storage_opt: { size: 16M }\n    ports:")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?.patient()?;
        let kernel = site.get("/kernel").await?;
        ensure!(kernel.contains("4.4.0"), "it does not run on gVisor's kernel: {kernel}");
        let container = stack.container(lease).await?;
        let host = stack.docker.inspect(&container.id).await?.host_config.unwrap_or_default();
        ensure!(host.runtime.as_deref() == Some("runsc"), "it runs in {:?}", host.runtime);
        let said = site.get("/fill/64/").await?;
        ensure!(said.contains("os error 28"), "what it writes is not bounded: {said}");
        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await
    })
    .await
}

/// Docker makes a user for this by itself.
const REMAPPED: &str = r#"{ "userns-remap": "default" }"#;

#[tokio::test]
async fn root_in_a_container_is_nobody_outside() -> anyhow::Result<()> {
    story(Setup { engine: true, daemon: REMAPPED, ..Setup::default() }, async |stack| {
        let guestbook = stack.guestbook()?;
        let lease = stack.publisher.deploy(&guestbook).await?.lease;
        let site = stack.provider.site(&guestbook.host)?;
        site.sign("Ada", "remapped").await?;
        ensure!(site.texts().await? == ["remapped"], "the volume is not the service's");
        let image = stack.image("remapped").await?;
        let pod = stack.probe("remapped", &image.name, "    storage_opt: { size: 16M }")?;
        let other = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?.patient()?;
        let said = site.get("/fill/256/tmp").await?;
        ensure!(said.contains("os error 28"), "what it writes is not bounded: {said}");
        let container = stack.container(other).await?;
        let pid = stack.docker.inspect(&container.id).await?.state.and_then(|state| state.pid);
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.unwrap_or_default()))?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let user: u32 = user.split_whitespace().next().unwrap_or_default().parse()?;
        ensure!(user >= 65_536, "its root is user {user} on the machine");
        for lease in [lease, other] {
            stack.publisher.down(lease).await?;
        }
        stack.nothing_is_left().await
    })
    .await
}
