//! Images: pushed layer by layer, or pulled by their digest; and an engine that restarts under them.

use anyhow::{Context as _, ensure};
use protocol::lease::{CloseReason, State};
use tests::{ALLOWANCE, Registry, Setup, story, until};

#[tokio::test]
async fn a_pushed_image_is_sent_once() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let image = stack.image("pushed").await?;
        ensure!(stack.docker.image(&image.id).await.is_err(), "the provider has the image already");
        let (one, two) =
            (stack.probe("one", &image.name, "")?, stack.probe("two", &image.name, "")?);
        let first = stack.publisher.run(&["deploy", one.path(), "--yes", "--fund", "5"]).await?;
        first.json()?;
        ensure!(first.err.contains("sending 1 of 1 layers of image"), "{}", first.err);
        ensure!(first.err.contains("the provider unpacks image"), "{}", first.err);
        ensure!(stack.docker.image(&image.id).await? == image.id, "it is another image there");
        ensure!(stack.provider.site(&one.host)?.get("/").await? == "probe", "it does not answer");

        let second = stack.publisher.run(&["deploy", two.path(), "--yes"]).await?;
        second.json()?;
        ensure!(!second.err.contains("layers of image"), "it was sent again: {}", second.err);
        ensure!(stack.provider.site(&two.host)?.get("/").await? == "probe", "it does not answer");

        // Imported once more it is another image, of the same layer.
        let again = stack.image("pushed").await?;
        ensure!(again.id != image.id, "it is the same image");
        let three = stack.probe("three", &again.name, "")?;
        let third = stack.publisher.run(&["deploy", three.path(), "--yes"]).await?;
        third.json()?;
        ensure!(third.err.contains("sending 0 of 1 layers of image"), "{}", third.err);
        ensure!(stack.docker.image(&again.id).await? == again.id, "it is another image there");
        ensure!(stack.provider.site(&three.host)?.get("/").await? == "probe", "it does not answer");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pushed_image_is_for_who_has_shown_it() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let (image, nobodys) = (stack.image("shown").await?, stack.image("unknown").await?);
        let owner = stack.stranger().await?;
        let pod = stack.probe("theirs", &image.name, "")?;
        owner.deploy(&pod).await?;
        ensure!(stack.docker.image(&image.id).await? == image.id, "the provider lacks the image");
        ensure!(owner.quote(&pod).await.is_err(), "the host is free");

        // Who knows its digest and no more is answered as for an image that nobody pushed.
        let sender = stack.ready_account().await?;
        let mut answers = Vec::new();
        for (slot, image) in [&image, &nobodys].into_iter().enumerate() {
            let pod = stack.probe("stranger", &image.name, "")?;
            let quote = stack.publisher.quote(&pod).await?;
            ensure!(quote.missing_images == [image.id.clone()], "{:?}", quote.missing_images);
            let open = stack.open(&quote, slot.try_into()?);
            sender.send(stack.chain.deployment().leases, &open).await?;
            let lease = stack.openings().await?.last().context("nothing was opened")?.lease;
            stack.closed(lease, CloseReason::ImageUnavailable).await?;
            // Its end is told once it is confirmed.
            let said = until("its end is told", async || {
                let said = stack.publisher.run(&["events", &lease.to_string()]).await?;
                Ok(said.out.contains(r#""event":"closed""#).then_some(said))
            })
            .await?;
            ensure!(said.out.contains("was not pushed"), "{}", said.out);
            let whats = said.out.lines().map(|line| {
                let mut event: serde_json::Value = serde_json::from_str(line)?;
                let event = event.as_object_mut().context("an event is no object")?;
                event.retain(|key, _value| !["time", "pod"].contains(&key.as_str()));
                anyhow::Ok(serde_json::to_string(event)?.replace(&image.id, "the image"))
            });
            answers.push(whats.collect::<anyhow::Result<Vec<_>>>()?);
        }
        ensure!(answers[0] == answers[1], "they are told apart: {answers:#?}");

        // Who shows every layer of it may use it, and needs not do so again after a restart.
        let shown = stack.probe("shown", &image.name, "")?;
        let said = stack.publisher.run(&["deploy", shown.path(), "--yes"]).await?;
        said.json()?;
        ensure!(said.err.contains("sending 1 of 1 layers of image"), "{}", said.err);
        ensure!(stack.provider.site(&shown.host)?.get("/").await? == "probe");
        stack.provider.kill().await?;
        stack.provider.start().await?;
        let again = stack.probe("again", &image.name, "")?;
        let said = stack.publisher.run(&["deploy", again.path(), "--yes"]).await?;
        said.json()?;
        ensure!(!said.err.contains("layers of image"), "it was sent again: {}", said.err);
        ensure!(stack.provider.site(&again.host)?.get("/").await? == "probe");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_is_pulled_by_its_digest_and_no_other() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("pulled").await?;
        let (registry, here) = (Registry::start().await?, stack.machine().await?);
        let digest = registry.add(&here, &image.name, "1.0").await?;
        let name = registry.repository("probe");
        stack.remove_later(&format!("{name}@{digest}"))?;
        // From here on only the registry has it.
        here.remove_image(&image.name).await?;
        ensure!(here.image(&image.id).await.is_err(), "the engine still has the image");

        // Another manifest than the one that was asked for, and none at all.
        let wrong = format!("sha256:{}", "1".repeat(64));
        registry.pretend(&wrong, &digest);
        let pod = stack.probe("wrong", &format!("{name}@{wrong}"), "")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(3, &["did not start and is closed", "is not what its digest says", &wrong])?;
        let openings = stack.openings().await?;
        stack.closed(openings[0].lease, CloseReason::ImageUnavailable).await?;
        stack.nothing_is_left().await?;
        let pod = stack.probe("none", &format!("{name}:2.0"), "")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes"]).await?;
        said.refused(1, &["services.web.image", "does not give its digest"])?;
        ensure!(stack.openings().await?.len() == 1, "a lease was opened for no image");
        stack.publisher.json(&["withdraw", "all"]).await?;
        let held = stack.held(stack.publisher.address()).await?;
        ensure!(held == ALLOWANCE, "{held} came back");

        // By its tag, whose digest becomes part of the pod.
        let pod = stack.probe("right", &format!("{name}:1.0"), "")?;
        let deployed = stack.publisher.deploy(&pod).await?;
        ensure!(stack.provider.site(&pod.host)?.get("/").await? == "probe", "it does not answer");
        let container = stack.container(deployed.lease).await?;
        let runs = stack.docker.inspect(&container.id).await?.image;
        ensure!(runs.as_ref() == Some(&image.id), "it runs {runs:?} instead of {}", image.id);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn images_are_looked_through_before_they_are_unpacked() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let (registry, here) = (Registry::start().await?, stack.machine().await?);
        let name = registry.repository("hostile");
        // 300 MiB of nothing, which are 300 KiB on their way.
        let bomb = registry.add_bomb(300)?;
        // Somebody else's image, of which nothing but its digest is known.
        let theirs = stack.image("theirs").await?;
        ensure!(here.image(&theirs.id).await? == theirs.id, "the engine does not have it");
        let named = registry.name(&theirs.id, &[])?;
        for (app, digest, why) in [
            ("bomb", bomb, "it takes more than 256 MiB once it is unpacked"),
            ("named", named, "answers 404"),
        ] {
            let pod = stack.probe(app, &format!("{name}@{digest}"), "")?;
            let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
            said.refused(3, &["did not start and is closed", why])?;
            let lease = stack.openings().await?.last().context("nothing was opened")?.lease;
            stack.closed(lease, CloseReason::ImageUnavailable).await?;
            stack.nothing_is_left().await?;
        }

        // A pushed one.
        let device = stack.image_of_a_device("device").await?;
        let pod = stack.probe("device", &device.name, "")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes"]).await?;
        said.refused(1, &["is refused", "\"dev/mem\" is a device"])?;
        stack.nothing_is_left().await?;

        // An encrypted one, which nobody can look through before its key is there.
        stack.publisher.json(&["image", "key"]).await?;
        let mut pod = stack.probe("sealed", &device.name, "")?;
        pod.change("x-roadstead:\n", "x-roadstead:\n  encrypt: true\n")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes"]).await?;
        said.refused(3, &["sending its app's key", "is refused", "\"dev/mem\" is a device"])?;
        let lease = stack.openings().await?.last().context("nothing was opened")?.lease;
        stack.closed(lease, CloseReason::ImageUnavailable).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn pods_come_back_with_their_engine() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let image = stack.image("restarted").await?;
        // One that its policy starts again, and one that only the provider knows to have been lost.
        let more = format!(
            "  once:\n    image: {}\n    command: [\"/probe\", \"serve\", \"9090\"]\n    expose: [\"9090\"]\n    \
             stop_signal: SIGKILL\n    restart: \"no\"\n    \
             deploy: {{ resources: {{ limits: {{ cpus: \"0.1\", memory: 32M }} }} }}",
            image.name
        );
        let pod = stack.probe("restarted", &image.name, &more)?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let guestbook = stack.guestbook()?;
        let book = stack.publisher.deploy(&guestbook).await?.lease;
        let (site, signed) = (stack.provider.site(&pod.host)?, stack.provider.site(&guestbook.host)?);
        signed.sign("Ada", "before").await?;
        let ids = async || {
            let containers = stack.docker.containers(stack.provider.address()).await?;
            let up = containers.into_iter().filter(|container| container.state == "running");
            let mut ids: Vec<String> = up.map(|container| container.id).collect();
            ids.sort();
            anyhow::Ok(ids)
        };
        let before = ids().await?;
        ensure!(before.len() == 3, "there are {before:?}");

        let Some(engine) = &mut stack.engine else { anyhow::bail!("there is no engine") };
        engine.down().await?;
        ensure!(site.get("/").await.is_err(), "a pod answers without its engine");
        let noticed = async || {
            let log = stack.provider.log();
            Ok(log.contains("nothing is changed until both can be read").then_some(()))
        };
        until("the provider notices", noticed).await?;
        engine.up().await?;
        until("all of them run", async || Ok((ids().await? == before).then_some(()))).await?;
        until("it answers", async || Ok(Some(site.get("/").await?))).await?;
        until("the book is there", async || Ok((signed.texts().await? == ["before"]).then_some(()))).await?;
        for lease in [lease, book] {
            ensure!(stack.state(lease).await? == State::Active, "lease {lease} is not active");
            stack.publisher.down(lease).await?;
        }
        stack.nothing_is_left().await
    })
    .await
}
