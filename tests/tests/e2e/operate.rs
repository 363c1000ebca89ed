//! A pod that runs is operated, and what it leaves is kept.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use protocol::lease::{CloseReason, State};
use serde_json::Value;
use tests::{PodFile, Setup, Stack, story, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What happened to a lease, by name.
async fn events(stack: &Stack, lease: u64) -> anyhow::Result<Vec<Value>> {
    let said = stack.publisher.run(&["events", &lease.to_string()]).await?;
    ensure!(said.code == 0, "{said:?}");
    said.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

/// A probe's pod that runs; its lease.
async fn probe(stack: &mut Stack, name: &str) -> anyhow::Result<(PodFile, String)> {
    let image = stack.image(name).await?;
    let pod = stack.probe(name, &image.name, "")?;
    let lease = stack.publisher.deploy(&pod).await?.lease;
    Ok((pod, lease.to_string()))
}

#[tokio::test]
async fn programs_run_in_a_pod_as_if_they_ran_here() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let (_pod, lease) = probe(stack, "exec").await?;
        let publisher = stack.publisher.clone();
        let exec = |args: &[&str]| {
            [&["exec", &lease, "--"], args]
                .concat()
                .iter()
                .map(|a| a.to_string())
                .collect::<Vec<_>>()
        };
        let run = async |args: &[&str]| {
            let args = exec(args);
            publisher.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        let said = run(&["/probe", "say", "one", "two"]).await?;
        ensure!(
            (said.code, said.out.as_str(), said.err.as_str()) == (0, "one\n", "two\n"),
            "{said:?}"
        );
        ensure!(run(&["/probe", "end", "7"]).await?.code == 7, "the code does not come through");
        let said = run(&["/nothing"]).await?;
        ensure!(said.code == 126 || said.code == 127, "{said:?}");

        // Any bytes, more of them than fit into any buffer on the way.
        let bytes: Vec<u8> =
            (0..700_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let (code, back) =
            publisher.feed(&["exec", "-i", &lease, "--", "/probe", "cat"], &bytes).await?;
        ensure!(
            code == 0 && back == bytes,
            "{code}, {} of {} bytes came back",
            back.len(),
            bytes.len()
        );

        // A publisher that is gone leaves nothing running.
        let pids = async || {
            let stats = publisher.json(&["stats", &lease]).await?;
            stats[0]["pids"].as_u64().context("there are no stats")
        };
        let before = pids().await?;
        let waiting = publisher.start(&["exec", &lease, "--", "/probe", "wait"])?;
        until("the program runs", async || Ok((pids().await? > before).then_some(()))).await?;
        waiting.kill().await?;
        until("the program was ended", async || Ok((pids().await? == before).then_some(())))
            .await?;

        let stranger = stack.stranger().await?;
        stranger
            .run(&["exec", &lease, "--", "/probe", "end", "0"])
            .await?
            .refused(1, &["is paid by"])?;
        publisher
            .run(&["exec", &lease, "--service", "db", "--", "/probe"])
            .await?
            .refused(1, &["no service db", "web"])
    })
    .await
}

#[tokio::test]
async fn a_terminal_is_a_terminal_there_too() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let (_pod, lease) = probe(stack, "terminal").await?;
        let shown = stack
            .publisher
            .on_a_terminal(&["exec", "-it", &lease, "--", "/probe", "terminal"])
            .await?;
        ensure!(shown.contains("\u{1}\u{2} a terminal"), "{shown:?}");
        let said = stack.publisher.run(&["exec", &lease, "--", "/probe", "terminal"]).await?;
        ensure!(said.out.contains("no terminal"), "{said:?}");
        let refused =
            stack.publisher.run(&["exec", "-t", &lease, "--", "/probe", "terminal"]).await?;
        refused.refused(1, &["no terminal here"])?;
        let said = stack.publisher.run(&["shell", &lease]).await?;
        ensure!(said.code == 1 && said.err.contains("has no shell"), "{said:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn files_and_connections_go_in_and_out() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let (_pod, lease) = probe(stack, "files").await?;
        let publisher = &stack.publisher;
        let here = stack.folder().join("files");
        std::fs::create_dir_all(here.join("tree/sub"))?;
        std::fs::write(here.join("tree/sub/leaf"), "leaf")?;
        std::os::unix::fs::symlink("/etc/passwd", here.join("tree/away"))?;
        let path = |name: &str| here.join(name).display().to_string();
        let there = |path: &str| format!("{lease}:{path}");

        publisher.json(&["cp", &path("tree"), &there("/")]).await?;
        publisher.json(&["cp", &path("tree/sub/leaf"), &there("/tree/renamed")]).await?;
        publisher.json(&["cp", &there("/tree"), &path("back")]).await?;
        ensure!(
            std::fs::read_to_string(here.join("back/sub/leaf"))? == "leaf",
            "the leaf is another"
        );
        ensure!(
            std::fs::read_to_string(here.join("back/renamed"))? == "leaf",
            "it has no new name"
        );
        ensure!(
            std::fs::read_link(here.join("back/away"))?.as_os_str() == "/etc/passwd",
            "the link is none"
        );
        let (code, tar) = publisher.feed(&["cp", &there("/tree"), "-"], b"").await?;
        ensure!(
            code == 0 && tar::Archive::new(tar.as_slice()).entries()?.count() == 5,
            "no whole tar"
        );
        publisher
            .run(&["cp", &there("/nothing"), &path("x")])
            .await?
            .refused(1, &["there is no /nothing"])?;
        publisher
            .run(&["cp", &path("tree"), &there("/no/where")])
            .await?
            .refused(1, &["there is no folder /no"])?;

        let mut forward = publisher.start(&["port-forward", &lease, "0:8080", "0:9999"])?;
        let mut local = async || {
            let line = forward.line().await?.context("nothing is forwarded")?;
            let line: Value = serde_json::from_str(&line)?;
            line["local"].as_str().context("it leads nowhere").map(str::to_owned)
        };
        let (open, closed) = (local().await?, local().await?);
        for _ in 0..3 {
            let mut connection = TcpStream::connect(&open).await?;
            connection.write_all(b"GET /forwarded HTTP/1.1\r\n\r\n").await?;
            // Half of it is closed, the other half goes on.
            connection.shutdown().await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            ensure!(answer.ends_with("probe"), "{answer:?}");
        }
        let mut connection = TcpStream::connect(&closed).await?;
        let end = tokio::time::timeout(Duration::from_secs(20), connection.read(&mut [0])).await?;
        ensure!(matches!(end, Ok(0) | Err(_)), "something answers where nothing listens");
        forward.kill().await
    })
    .await
}

#[tokio::test]
async fn what_happens_to_a_pod_is_written_down() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let (mut pod, lease) = probe(stack, "events").await?;
        let number: u64 = lease.parse()?;
        let first = events(stack, number).await?;
        ensure!(
            names(&first).starts_with(&["seen"]) && names(&first).ends_with(&["running"]),
            "{first:?}"
        );

        let mut following =
            stack.publisher.start(&["events", &lease, "--follow", "--since", "0s"])?;
        let site = stack.provider.site(&pod.host)?;
        until("the service ends", async || {
            // Nobody answers when it does.
            let _ended = site.ask("/end/3").await;
            let events = events(stack, number).await?;
            Ok(names(&events).contains(&"restarted").then_some(()))
        })
        .await?;
        let all = events(stack, number).await?;
        let exited =
            all.iter().find(|event| event["event"] == "exited").context("it did not end")?;
        ensure!(
            exited["code"] == 3 && exited["outOfMemory"] == false && exited["service"] == "web",
            "{exited}"
        );
        until("it is followed", async || {
            let line = following.line().await?.context("it is not followed any more")?;
            Ok(line.contains("restarted").then_some(()))
        })
        .await?;
        following.kill().await?;

        // The container is replaced, what it wrote stays.
        pod.change("cpus: \"0.25\"", "cpus: \"0.3\"")?;
        stack.publisher.update(number, &pod).await?;
        let all = events(stack, number).await?;
        ensure!(names(&all).contains(&"amended"), "{all:?}");
        let said = stack.publisher.run(&["logs", &lease]).await?;
        ensure!(said.out.contains("/end/3"), "{said:?}");
        let said = stack.publisher.run(&["logs", &lease, "--tail", "5"]).await?;
        ensure!(!said.out.contains("/end/3"), "the last lines are older ones: {said:?}");

        stack.publisher.down(number).await?;
        let last = until("it is removed", async || {
            let events = events(stack, number).await?;
            Ok(names(&events).contains(&"removed").then_some(events))
        })
        .await?;
        let closed = last.iter().find(|event| event["event"] == "closed").context("no close")?;
        ensure!(closed["reason"] == "payer-done", "{closed}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_lease_leaves_is_kept_for_its_payer() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let quote = stack.publisher.quote(&pod).await?;
        ensure!(quote.volume_retention == 3 * 86_400, "the quote says {}", quote.volume_retention);
        let old = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        site.sign("Ada", "kept").await?;
        stack.publisher.down(old).await?;
        stack.closed(old, CloseReason::PayerDone).await?;
        stack.nothing_is_left().await?;

        // Also after a restart.
        stack.provider.kill().await?;
        stack.provider.start().await?;
        let lease = old.to_string();
        let publisher = &stack.publisher;
        let said = publisher.run(&["logs", &lease]).await?;
        ensure!(said.code == 0 && said.out.contains("listening on"), "{said:?}");
        let tail = publisher.run(&["logs", &lease, "--tail", "1"]).await?;
        ensure!(tail.out.lines().count() == 1 && said.out.ends_with(&tail.out), "{tail:?}");
        ensure!(names(&events(stack, old).await?).ends_with(&["removed"]), "it is not removed");
        let volumes = publisher.json(&["volume", "ls", &lease]).await?;
        ensure!(volumes[0]["name"] == "book" && volumes[0]["keptUntil"].is_string(), "{volumes}");
        publisher.run(&["exec", &lease, "--", "/app"]).await?.refused(1, &["is closed"])?;
        let providers = publisher.json(&["providers"]).await?;
        let free = &providers[0]["info"]["free"]["storage"];
        ensure!(*free == (16_384_u64 - 64) << 20, "what is kept does not count: {free} are free");

        let stranger = stack.stranger().await?;
        for verb in [vec!["logs"], vec!["events"], vec!["volume", "ls"]] {
            let args = [verb.as_slice(), &[&lease]].concat();
            stranger.run(&args).await?.refused(1, &["is paid by"])?;
        }

        // Out of the one, into another.
        let file = stack.folder().join("book.tar").display().to_string();
        publisher.json(&["volume", "export", &lease, "book", &file]).await?;
        let new = publisher.deploy(&pod).await?.lease.to_string();
        ensure!(site.texts().await?.is_empty(), "the new one is not empty");
        publisher.json(&["volume", "import", &new, "book", &file, "--replace"]).await?;
        until("it is there again", async || Ok((site.texts().await? == ["kept"]).then_some(())))
            .await?;

        // What is hostile, and what is too much.
        let hostile = tar(&[("../../outside", tar::EntryType::Regular, b"x")])?;
        let (code, _) = publisher.feed(&["volume", "import", &new, "book", "-"], &hostile).await?;
        ensure!(code == 1, "a hostile tar was taken");
        let large = tar(&[("large", tar::EntryType::Regular, &vec![7; 80 << 20])])?;
        std::fs::write(&file, large)?;
        let full = publisher.run(&["volume", "import", &new, "book", &file]).await?;
        full.refused(1, &["no space left"])?;
        until("it goes on", async || Ok((site.texts().await? == ["kept"]).then_some(()))).await?;

        publisher.json(&["volume", "rm", &lease, "book"]).await?;
        let volumes = publisher.json(&["volume", "ls", &lease]).await?;
        ensure!(volumes == serde_json::json!([]), "{volumes}");
        Ok(())
    })
    .await
}

/// A tar with names that nobody should write.
fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        let place = header.as_old_mut().name.get_mut(..name.len()).context("a long name")?;
        place.copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len().try_into()?);
        header.set_cksum();
        tar.append(&header, *bytes)?;
    }
    Ok(tar.into_inner()?)
}

#[tokio::test]
async fn an_app_moves_with_its_data() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let other = stack.another_provider(&Setup::default()).await?;
        let pod = stack.guestbook()?;
        let publisher = &stack.publisher;
        let from = stack.provider.address().to_string();
        let args =
            ["deploy", pod.path(), "--yes", "--fund", "5", "--provider", &from, "--app", "book"];
        let old = publisher.json(&args).await?["lease"].as_u64().context("no lease")?;
        let (here, there) = (stack.provider.site(&pod.host)?, other.site(&pod.host)?);
        here.sign("Ada", "moves along").await?;

        let to = other.address().to_string();
        let moved = publisher.json(&["move", "book", pod.path(), "--to", &to, "--yes"]).await?;
        let new = moved["lease"].as_u64().context("no new lease")?;
        ensure!(moved["from"] == old && moved["volumes"] == serde_json::json!(["book"]), "{moved}");
        ensure!(there.texts().await? == ["moves along"], "{:?}", there.texts().await?);
        stack.closed(old, CloseReason::PayerMoved).await?;
        ensure!(stack.state(new).await? == State::Active, "the new lease is not active");
        let row = publisher.row(new).await?;
        ensure!(row["app"] == "book", "{row}");

        // Back again, and the provider there dies on the way: the one here goes on.
        let mut moving = publisher.start(&["move", "book", pod.path(), "--to", &from, "--yes"])?;
        while let Some(step) = moving.step().await? {
            if step.contains("copying volume") {
                stack.provider.kill().await?;
            }
        }
        let publisher = &stack.publisher;
        until("it goes on", async || Ok((there.texts().await? == ["moves along"]).then_some(())))
            .await?;
        ensure!(stack.state(new).await? == State::Active, "the lease was ended");
        ensure!(publisher.row(new).await?["app"] == "book", "the app has another lease");
        let open = publisher.json(&["ps"]).await?;
        ensure!(open.as_array().is_some_and(|open| open.len() == 1), "there is more: {open}");

        // What cannot be taken along is not begun.
        let mut smaller = pod.clone();
        smaller.change("x-size: 64M", "x-size: 32M")?;
        stack.provider.start().await?;
        let args = ["move", "book", pod.path(), "--to", &from, "--yes"];
        stack.publisher.run(&args).await?.refused(1, &["may not fit"])?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_that_is_held_goes_on_whatever_becomes_of_who_asked() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        site.sign("Ada", "held").await?;
        // A tar that never comes.
        let pipe = stack.folder().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
        let _writer = std::fs::File::options().read(true).write(true).open(&pipe)?;
        let pipe = pipe.display().to_string();
        let importing =
            stack.publisher.start(&["volume", "import", &lease.to_string(), "book", &pipe])?;
        until("it is held", async || {
            let held = names(&events(stack, lease).await?).contains(&"held");
            Ok((held && stack.container(lease).await?.state == "exited").then_some(()))
        })
        .await?;
        ensure!(stack.publisher.row(lease).await?["phase"] == "held", "it does not say so");
        // Longer than the reconciler waits between two looks.
        tokio::time::sleep(Duration::from_secs(6)).await;
        ensure!(stack.container(lease).await?.state == "exited", "it was started meanwhile");

        stack.provider.kill().await?;
        importing.kill().await?;
        stack.provider.start().await?;
        until("it goes on", async || Ok((site.texts().await? == ["held"]).then_some(()))).await?;
        let all = events(stack, lease).await?;
        ensure!(names(&all).contains(&"resumed"), "{all:?}");
        Ok(())
    })
    .await
}
