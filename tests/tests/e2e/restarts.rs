//! A provider that is killed at a bad moment, an engine that restarts, and a machine.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use protocol::lease::{CloseReason, State};
use tests::{Setup, WORLD, story, until};
use tokio::{net::TcpListener, task::JoinSet};

#[tokio::test]
async fn killed_in_the_middle_of_a_deploy_it_completes_it() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("killed").await?;
        let mut pod = stack.probe("killed", &image.name, "")?;
        pod.change("\"serve\", \"8080\"", "\"serve\", \"8080\", \"closed\"")?;
        let args = ["deploy", pod.path(), "--yes", "--fund", "5"];
        let deploying = stack.publisher.start(&args)?;
        // The container runs, and is not well before it is told to be: the lease stays pending.
        let container = until("the container runs", async || {
            let containers = stack.docker.containers(stack.provider.address()).await?;
            Ok(containers.into_iter().find(|container| container.state == "running"))
        })
        .await?;
        ensure!(stack.state(container.lease).await? == State::Pending, "it is active too early");
        stack.provider.kill().await?;
        container.site(&pod.host)?.get("/open").await?;
        stack.provider.start().await?;
        stack.active(container.lease).await?;
        let deployed = deploying.deployed().await?;
        ensure!(deployed.lease == container.lease, "another lease was opened: {deployed:?}");
        let now = stack.container(deployed.lease).await?;
        ensure!(now.id == container.id, "the container was not adopted");
        ensure!(stack.provider.site(&pod.host)?.get("/").await? == "probe", "it does not answer");
        ensure!(stack.openings().await?.len() == 1, "more than one lease was opened");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn killed_between_a_close_and_its_confirmation_it_removes_the_pod_later() -> anyhow::Result<()>
{
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let container = stack.container(lease).await?;
        stack.hold_blocks().await?;
        stack.publisher.down(lease).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;
        let site = stack.provider.site(&pod.host)?;
        // It has seen the close, which is not final yet: no more requests, but the pod stays.
        until("its host is unknown", async || Ok((site.ask("/").await?.0 == 404).then_some(())))
            .await?;
        ensure!(stack.container(lease).await? == container, "the pod did not stay");
        stack.provider.kill().await?;
        stack.chain_goes_on().await?;
        stack.mine(2).await?;
        ensure!(stack.container(lease).await? == container, "somebody else removed the pod");
        stack.provider.start().await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn killed_and_started_again_it_adopts_what_runs() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let (site, container) = (stack.provider.site(&pod.host)?, stack.container(lease).await?);
        site.sign("Ada", "before").await?;
        let started = async |id: &str| {
            let state = stack.docker.inspect(id).await?.state.unwrap_or_default();
            anyhow::Ok(state.started_at)
        };
        let since = started(&container.id).await?;

        // The pod itself is asked all the while; only its ingress is gone with the provider.
        let inside = container.site(&pod.host)?;
        let (asked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut visitor = JoinSet::new();
        let (count, enough) = (Arc::clone(&asked), Arc::clone(&stop));
        visitor.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                inside.get("/healthz").await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        stack.provider.kill().await?;
        ensure!(site.get("/").await.is_err(), "a dead provider answers");
        stack.provider.start().await?;
        until("it answers again", async || Ok(Some(site.get("/").await?))).await?;
        stack.provider.stop().await?;
        stack.provider.start().await?;
        until("it answers again", async || Ok(Some(site.texts().await?))).await?;
        stop.store(true, Ordering::Relaxed);
        visitor.join_next().await.context("nobody asked")???;
        ensure!(asked.load(Ordering::Relaxed) > 10, "it was hardly asked");

        ensure!(stack.container(lease).await? == container, "it is another container");
        ensure!(started(&container.id).await? == since, "the container was restarted");
        ensure!(stack.state(lease).await? == State::Active, "the lease is not active");
        ensure!(site.texts().await? == ["before"], "the book is {:?}", site.texts().await?);
        // It is in charge again.
        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn what_ran_runs_again_when_the_machine_is_back() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let book = stack.guestbook()?;
        let books = stack.publisher.deploy(&book).await?.lease;
        let signed = stack.provider.site(&book.host)?.patient()?;
        signed.sign("Ada", "before").await?;
        // One that is encrypted, and has sent what it may.
        stack.publisher.json(&["image", "key"]).await?;
        let image = stack.image("machine").await?;
        let mut pod = stack.probe("machine", &image.name, "")?;
        let block = "x-roadstead:\n";
        pod.change(block, "x-roadstead:\n  encrypt: true\n  egress: { total: 1M }\n")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?.patient()?;
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind((WORLD, 0)).await?;
        let port = listener.local_addr()?.port();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                streams.spawn(
                    async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await },
                );
            }
        });
        let upload = format!("/upload/{WORLD}/{port}/4");
        let said = site.get(&upload).await?;
        ensure!(said.starts_with("refused"), "more was sent than may be: {said}");
        let sent = async || {
            let status = stack.provider.sent(lease)?;
            let of = |name: &str| status[name].as_u64().unwrap_or_default();
            Ok((of("before") + of("counted") > 1 << 19).then_some(()))
        };
        until("what it sent is counted", sent).await?;

        let (container, other) = (stack.container(lease).await?, stack.container(books).await?);
        let layer = async |id: &str| {
            let driver = stack.docker.inspect(id).await?.graph_driver;
            let upper = driver.and_then(|driver| driver.data.get("UpperDir").map(PathBuf::from));
            upper.context("its layer is nowhere")
        };
        let (upper, others) = (layer(&container.id).await?, layer(&other.id).await?);
        for upper in [&upper, &others] {
            std::fs::write(upper.join("kept"), "before")?;
        }
        let look = stack.docker.leave_look(&container.id).await?;
        stack.machine_off().await?;
        let what = "without its file system a layer can be started by Docker alone";
        ensure!(!upper.exists() && !others.exists(), "{what}");
        // As where it broke off between the two folders that are taken out of a layer.
        std::fs::create_dir(&upper)?;
        std::fs::write(upper.join("half"), "")?;
        stack.machine_on().await?;

        until(
            "the book is there",
            async || Ok((signed.texts().await? == ["before"]).then_some(())),
        )
        .await?;
        until("the probe answers", async || Ok((site.get("/").await? == "probe").then_some(())))
            .await?;
        ensure!(stack.container(lease).await?.id == container.id, "it is another container");
        ensure!(stack.container(books).await?.id == other.id, "it is another container");
        for upper in [&upper, &others] {
            ensure!(std::fs::read_to_string(upper.join("kept"))? == "before");
        }
        ensure!(!upper.join("half").exists(), "the layer is the folder beneath");
        // Without its key, which nobody sends.
        let said = stack.publisher.json(&["unlock", &lease.to_string()]).await?;
        ensure!(said["sent"] == false, "{said}");
        let said = site.get(&upload).await?;
        ensure!(said.starts_with("refused"), "the count began anew: {said}");
        until("what a look left is gone", async || {
            Ok(stack.docker.inspect(&look).await.is_err().then_some(()))
        })
        .await?;
        for lease in [lease, books] {
            ensure!(stack.state(lease).await? == State::Active, "lease {lease} is not active");
            stack.publisher.down(lease).await?;
        }
        stack.nothing_is_left().await
    })
    .await
}
