//! A pod's ordinary life, and what can be seen of it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use protocol::lease::{CloseReason, State};
use tests::{Setup, story, until};

#[tokio::test]
async fn a_guestbook_is_signed_updated_and_taken_down() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let mut pod = stack.guestbook()?;
        let deployed = stack.publisher.deploy(&pod).await?;
        ensure!(stack.state(deployed.lease).await? == State::Active, "it is not active");

        let site = stack.provider.site(&pod.host)?;
        site.sign("Ada", "hello").await?;
        ensure!(site.texts().await? == ["hello"], "the book is {:?}", site.texts().await?);
        let other = stack.provider.site("elsewhere.localhost")?.ask("/").await?;
        ensure!(other.0 == 404, "a host that nobody has answers {other:?}");

        let before = stack.container(deployed.lease).await?;
        pod.change("cpus: \"0.25\"", "cpus: \"0.3\"")?;
        let updated = stack.publisher.update(deployed.lease, &pod).await?;
        ensure!(updated.lease == deployed.lease, "the update made another lease");
        ensure!(updated.rate > deployed.rate, "more resources cost no more");
        ensure!(
            stack.lease(deployed.lease).await?.rate == updated.rate,
            "the chain has another rate"
        );
        let after = stack.container(deployed.lease).await?;
        ensure!(before.id != after.id, "the container was not replaced");
        site.sign("Bob", "again").await?;
        ensure!(site.texts().await? == ["again", "hello"], "the volume did not stay");

        stack.publisher.down(deployed.lease).await?;
        stack.closed(deployed.lease, CloseReason::PayerDone).await?;
        stack.nothing_is_left().await?;
        let account = stack.account(stack.publisher.account()).await?;
        ensure!((account.rate, account.lockup) == (0, 0), "the account still pays: {account:?}");
        until("its host is unknown", async || Ok((site.ask("/").await?.0 == 404).then_some(())))
            .await?;
        stack.publisher.json(&["withdraw", "all"]).await?;
        let account = stack.account(stack.publisher.account()).await?;
        // Less than a base unit is nobody's to take out.
        ensure!(account.free < protocol::amount::SCALE, "{} stay in the account", account.free);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn replicas_answer_to_one_name_and_share_a_host() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("replicas").await?;
        let more = "    scale: 3\n    dns: 9.9.9.9\n    dns_search: example.org\n    dns_opt: [\"ndots:2\"]";
        let mut pod = stack.probe("replicas", &image.name, more)?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        let mut seen = BTreeSet::new();
        until("all replicas answer", async || {
            seen.insert(site.get("/self").await?.trim().to_owned());
            Ok((seen.len() == 3).then_some(()))
        })
        .await?;
        let wanted = ["web", "web-2", "web-3"].map(str::to_owned);
        ensure!(seen == BTreeSet::from(wanted), "{seen:?} answer");
        let told = site.get("/resolve/web").await?;
        ensure!(told.contains('3'), "the name leads to {told}");
        let resolver = site.get("/resolver").await?;
        ensure!(resolver.contains("search example.org"), "{resolver}");
        ensure!(resolver.contains("ndots:2"), "{resolver}");

        // One that is gone is passed over, and comes back.
        let ended = site.ask("/end/1").await;
        ensure!(ended.is_err() || ended.is_ok_and(|(status, _)| status != 200), "it goes on");
        for _ in 0..6 {
            site.get("/self").await?;
        }

        pod.change("scale: 3", "scale: 2")?;
        stack.publisher.update(lease, &pod).await?;
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            seen.insert(site.get("/self").await?.trim().to_owned());
        }
        ensure!(seen.len() == 2 && !seen.contains("web-3"), "{seen:?} answer");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_there_can_be_seen_by_its_payer_alone() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("seen").await?;
        let pod = stack.probe("seen", &image.name, "")?;
        let publisher = &stack.publisher;

        let checked = publisher.json(&["check", pod.path()]).await?;
        ensure!(checked["resources"]["cpu"] == 250, "{checked}");
        let price = checked["prices"][0].clone();
        let who = stack.provider.address();
        ensure!(price["provider"] == serde_json::json!(who), "{checked}");
        let quotes = publisher.json(&["quote", pod.path()]).await?;
        ensure!(quotes[0]["quote"]["pod"] == checked["hash"], "{quotes}\n{checked}");
        ensure!(quotes[0]["price"]["total"] == price["rate"], "{quotes}\n{checked}");
        let providers = publisher.json(&["providers"]).await?;
        ensure!(providers[0]["region"] == "test" && providers[0]["live"] == true, "{providers}");
        ensure!(providers[0]["info"]["running"] == 0, "{providers}");
        ensure!(stack.openings().await?.is_empty(), "asking for a quote opened a lease");

        let lease = publisher.deploy(&pod).await?.lease;
        let row = publisher.row(lease).await?;
        ensure!(row["state"] == "active" && row["phase"] == "running", "{row}");
        ensure!(row["app"] == "seen" && row["reachable"] == true, "{row}");
        let url = row["urls"][0].as_str().unwrap_or_default();
        ensure!(url.starts_with("http://seen.localhost:"), "{row}");
        let accounts = publisher.json(&["account"]).await?;
        ensure!(accounts[0]["leases"] == serde_json::json!([lease]), "{accounts}");
        ensure!(accounts[0]["rate"] == row["rate"], "{accounts}\n{row}");
        let status =
            publisher.json(&["provider", "status", "--provider", &who.to_string()]).await?;
        ensure!(status["leases"][0]["lease"] == lease && status["live"] == true, "{status}");

        // Logs: what was written, and what is written next.
        let number = lease.to_string();
        let said = publisher.run(&["logs", &number]).await?;
        ensure!(said.code == 0 && said.out.contains("probe: listening on 8080"), "{said:?}");
        let mut following = publisher.start(&["logs", "seen", "--follow", "--tail", "0"])?;
        let site = stack.provider.site(&pod.host)?;
        let line = until("a new line is followed", async || {
            site.get("/noticed").await?;
            let line = tokio::time::timeout(Duration::from_millis(500), following.line()).await;
            let line = line.ok().transpose()?.flatten();
            Ok(line.filter(|line| line.contains("/noticed")))
        });
        let line: serde_json::Value = serde_json::from_str(&line.await?)?;
        ensure!(line["service"] == "web" && line["stream"] == "stdout", "{line}");

        // Somebody else sees and does nothing.
        let stranger = stack.stranger().await?;
        ensure!(stranger.json(&["ps", "--all"]).await? == serde_json::json!([]), "a stranger sees");
        stranger.run(&["logs", &number]).await?.refused(1, &["is paid by"])?;
        stranger.run(&["down", &number]).await?.refused(1, &["is paid by"])?;
        stranger
            .run(&["update", &number, pod.path(), "--yes"])
            .await?
            .refused(1, &["is paid by"])?;
        ensure!(stack.state(lease).await? == State::Active, "a stranger ended it");
        ensure!(stack.container(lease).await?.state == "running", "a stranger stopped it");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_update_that_does_not_start_leaves_what_ran() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("updated").await?;
        let mut pod = stack.probe("updated", &image.name, "")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let (site, container) = (stack.provider.site(&pod.host)?, stack.container(lease).await?);
        pod.change("\"serve\", \"8080\"", "\"end\", \"7\"")?;
        let said = stack.publisher.run(&["update", "updated", pod.path(), "--yes"]).await?;
        said.refused(1, &["goes on", "could not be started", "it ended with code 7"])?;
        ensure!(stack.state(lease).await? == State::Active, "the lease is not active");
        ensure!(site.get("/").await? == "probe", "it does not answer");
        let after =
            until("one container is left", async || Ok(Some(stack.container(lease).await?)))
                .await?;
        ensure!(after.state == "running", "{after:?} does not run");
        ensure!(after.id == container.id, "what ran was replaced");

        // What starts replaces it.
        pod.change("\"end\", \"7\"", "\"serve\", \"8080\", \"closed\"")?;
        let updating = stack.publisher.start(&["update", "updated", pod.path(), "--yes"])?;
        let next = until("the new container runs", async || {
            let containers = stack.docker.containers(stack.provider.address()).await?;
            Ok(containers.into_iter().find(|c| c.state == "running" && c.id != container.id))
        })
        .await?;
        ensure!(site.get("/").await? == "probe", "it does not answer while the new one starts");
        next.site(&pod.host)?.get("/open").await?;
        updating.deployed().await?;
        let left = until("one container is left", async || Ok(Some(stack.container(lease).await?)))
            .await?;
        ensure!(left.id == next.id, "the old one stayed");
        ensure!(site.get("/").await? == "probe", "it does not answer");
        Ok(())
    })
    .await
}

/// Who owns the files below a folder, the folders left out.
fn owners(folder: &std::path::Path) -> anyhow::Result<Vec<(u32, u32, u32)>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        match meta.is_dir() {
            true => all.extend(owners(&entry.path())?),
            false => all.push((meta.uid(), meta.gid(), meta.mode() & 0o777)),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn a_user_with_a_name_owns_its_secrets() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("named").await?;
        let rest = "secrets: { key: { file: ./key } }";
        let mut pod = stack.probe("named", &image.name, rest)?;
        std::fs::write(std::path::Path::new(pod.path()).with_file_name("key"), "secret")?;
        let user =
            "stop_signal: SIGKILL\n    user: prober\n    secrets: [{ source: key, mode: 0400 }]";
        pod.change("stop_signal: SIGKILL", user)?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let mut found = owners(&stack.provider.run().join("secrets"))?;
        // The files by which it knows its name are for everybody in it.
        found.retain(|file| *file != (0, 0, 0o444));
        ensure!(found == [(1_234, 1_235, 0o400)], "{found:?}");
        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await?;

        // One that is not in the image is said so, and costs nothing.
        pod.change("user: prober", "user: nobody-here")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes"]).await?;
        said.refused(3, &["user nobody-here is not in the image's /etc/passwd"])?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_at_once() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("absent").await?;
        let mut pod = stack.probe("absent", &image.name, "")?;
        pod.change(r#"["/probe", "serve", "8080"]"#, r#"["/absent"]"#)?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(3, &["its program cannot be run", "/absent"])?;
        stack.nothing_is_left().await
    })
    .await
}
