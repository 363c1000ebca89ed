//! What a pod can reach, as it finds out itself.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use tests::{METADATA, Setup, WORLD, story};
use tokio::{net::TcpListener, task::JoinSet};

/// Takes connections at an address, on a port of its own.
async fn listen(tasks: &mut JoinSet<()>, at: impl Into<IpAddr>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((at.into(), 0)).await?;
    let port = listener.local_addr()?.port();
    tasks.spawn(async move { while listener.accept().await.is_ok() {} });
    Ok(port)
}

#[tokio::test]
async fn a_pod_reaches_the_world_and_itself_and_nothing_else() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let image = stack.image("fence").await?;
        let more = format!(
            "  beside:\n    image: {}\n    command: [\"/probe\", \"serve\", \"9090\"]\n    expose: [\"9090\"]\n    \
             stop_signal: SIGKILL\n    restart: unless-stopped\n    \
             deploy: {{ resources: {{ limits: {{ cpus: \"0.1\", memory: 32M }} }} }}",
            image.name
        );
        let inside = stack.probe("inside", &image.name, &more)?;
        let lease = stack.publisher.deploy(&inside).await?.lease;
        let other = stack.probe("other", &image.name, "")?;
        let theirs = stack.publisher.deploy(&other).await?.lease;
        let containers = stack.docker.containers(stack.provider.address()).await?;
        let address = |lease: u64, service: &str| {
            let found = containers.iter().find(|c| c.lease == lease && c.service == service);
            found.and_then(|container| container.ip).context("a container has no address")
        };
        let engine = stack.engine.as_ref().context("there is no engine")?;
        let mut tasks = JoinSet::new();
        let world = listen(&mut tasks, WORLD).await?;
        let network = listen(&mut tasks, engine.outside).await?;
        // The machine that the pod is on: on all its addresses, and where clouds tell their secrets.
        let machine = engine.listen(9_000).await?;
        let site = stack.provider.site(&inside.host)?;
        let reaches = async |ip: Ipv4Addr, port: u16| {
            let said = site.get(&format!("/connect/{ip}/{port}")).await?;
            anyhow::Ok(said == "connected")
        };

        ensure!(reaches(WORLD, world).await?, "a pod does not reach the world");
        let beside = address(lease, "beside")?;
        ensure!(reaches(beside, 9_090).await?, "a pod does not reach itself");

        let own = address(lease, "web")?;
        let gateway = Ipv4Addr::from(u32::from(own) & !63 | 1);
        let networks = stack.docker.networks(stack.provider.address()).await?;
        ensure!(networks.len() == 2, "the pods have {networks:?}");
        let their_gateway = Ipv4Addr::from(u32::from(address(theirs, "web")?) & !63 | 1);
        let forbidden = [
            ("its gateway", gateway, machine),
            ("another pod's gateway", their_gateway, machine),
            ("the machine", engine.inside, machine),
            ("the metadata service", METADATA, machine),
            ("the provider's API", engine.inside, stack.provider.api().port()),
            ("the provider's API by its gateway", gateway, stack.provider.api().port()),
            ("another pod", address(theirs, "web")?, 8_080),
            ("the machine's network", engine.outside, network),
        ];
        let tries = forbidden.iter().map(async |(what, ip, port)| {
            ensure!(!reaches(*ip, *port).await?, "a pod reaches {what} at {ip}:{port}");
            anyhow::Ok(())
        });
        try_join_all(tries).await?;

        // It is the fence that keeps it in: without it, all but other pods, from which Docker keeps it, is in reach.
        engine.open_fence().await?;
        let tries = forbidden.iter().map(async |(what, ip, port)| {
            let docker = *what == "another pod";
            ensure!(reaches(*ip, *port).await? != docker, "{what} at {ip}:{port}: is anybody there?");
            anyhow::Ok(())
        });
        try_join_all(tries).await?;
        Ok(())
    })
    .await
}
