//! What a provider's machine proves of itself. There is no such hardware here, which every output has to say.

use std::path::Path;

use alloy::primitives::Address;
use anyhow::{Context as _, ensure};
use tests::{ALLOWANCE, Setup, story, until};

#[tokio::test]
async fn a_machine_without_the_hardware_is_unattested_and_unlocks_nothing() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let provider = stack.provider.address().to_string();
        let said = stack.publisher.run(&["attest", &provider]).await?;
        ensure!(said.code == 0 && said.out.contains("UNATTESTED"), "{}: {}", said.out, said.err);
        let value = stack.publisher.json(&["attest", &provider]).await?;
        ensure!(value["attested"].is_null() && value["verdict"] == "UNATTESTED", "{value}");
        // Asked anew, it is about another number.
        let again = stack.publisher.json(&["attest", &provider]).await?;
        ensure!(value["subject"]["nonce"] != again["subject"]["nonce"], "{value}");
        for required in ["any", "tdx", "sev-snp"] {
            let said = stack.publisher.run(&["attest", &provider, "--require", required]).await?;
            said.refused(1, &["UNATTESTED", "--require"])?;
        }
        let nobody = Address::repeat_byte(7).to_string();
        let said = stack.publisher.run(&["attest", &nobody]).await?;
        said.refused(1, &["does not know a provider", &nobody])?;
        let said = stack.publisher.run(&["attest", &provider, "--require", "sgx"]).await?;
        said.refused(2, &["sgx", "tdx", "sev-snp"])
    })
    .await
}

/// The files of a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

#[tokio::test]
async fn a_pod_that_asks_for_evidence_goes_to_nobody_who_has_none() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let (image, second_image) = (stack.image("asks").await?, stack.image("second").await?);
        let secrets = "secrets: { word: { file: ./word.txt } }";
        let mut pod = stack.probe("asks", &image.name, secrets)?;
        let folder = Path::new(pod.path()).parent().context("no folder")?.to_owned();
        std::fs::write(folder.join("word.txt"), "swordfish")?;
        pod.change("    restart:", "    secrets: [word]\n    restart:")?;
        let asks = format!("attested: {{ measurements: \"0x{}\" }}", "07".repeat(32));
        pod.change("x-roadstead:\n", &format!("x-roadstead:\n  encrypt: true\n  {asks}\n"))?;
        stack.publisher.json(&["image", "key"]).await?;

        // It is told nothing: not the pod, not the image, no secret, no key, and no money moves.
        for verb in [&["deploy", pod.path(), "--yes", "--fund", "5"][..], &["quote", pod.path()]] {
            let said = stack.publisher.run(verb).await?;
            said.refused(
                1,
                &["no provider made an offer", "UNATTESTED", "nothing was sent to it"],
            )?;
        }
        stack.nothing_came_of_it().await?;
        let data = stack.provider.data();
        for part in ["pods", "secrets", "blobs"] {
            let left = files(&data.join(part));
            ensure!(left.is_empty(), "the provider has {left:?}");
        }
        let held = stack.held(stack.publisher.address()).await?;
        ensure!(held == alloy::primitives::U256::from(ALLOWANCE), "{held} of the tokens are left");

        // Nor does a lease that runs already come to have what asks for more.
        pod.change(&format!("  {asks}\n"), "")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let (name, pods) = (lease.to_string(), files(&data.join("pods")));
        let plain = std::fs::read_to_string(pod.path())?;
        pod.change("x-roadstead:\n", &format!("x-roadstead:\n  {asks}\n"))?;
        pod.change("cpus: \"0.25\"", "cpus: \"0.2\"")?;
        let before = stack.chain.quote_of(lease).await?.context("no quote")?.pod;
        let said = stack.publisher.run(&["update", &name, pod.path(), "--yes"]).await?;
        said.refused(1, &["makes no offer for this change", "UNATTESTED"])?;
        let another = stack.another_provider(&Setup::default()).await?;
        let to = another.address().to_string();
        let said = stack.publisher.run(&["move", &name, pod.path(), "--to", &to, "--yes"]).await?;
        said.refused(1, &["UNATTESTED", "nothing was sent to it"])?;
        ensure!(stack.openings().await?.len() == 1, "a lease was opened");
        ensure!(
            stack.chain.quote_of(lease).await?.context("no quote")?.pod == before,
            "it changed"
        );
        ensure!(files(&data.join("pods")) == pods, "the provider was sent a pod");
        ensure!(files(&another.data().join("pods")).is_empty(), "the other one was sent a pod");

        // Who does not know what a lease's pod asks for sends no key, and by a file that asks nobody gets it.
        let plain_file = folder.join("plain.yaml");
        std::fs::write(&plain_file, plain)?;
        std::fs::remove_file(stack.publisher.home().join("state.json"))?;
        let container = stack.container(lease).await?;
        stack.docker.remove_container(&container.id).await?;
        let locked = async || {
            let row = stack.publisher.row(lease).await?;
            Ok((row["phase"] == "locked").then_some(()))
        };
        until("its start waits for the key", locked).await?;
        let said = stack.publisher.run(&["unlock", &name]).await?;
        said.refused(1, &["was not deployed from here", "--file"])?;
        let said = stack.publisher.run(&["unlock", &name, "--file", pod.path()]).await?;
        said.refused(1, &["UNATTESTED"])?;
        let row = stack.publisher.row(lease).await?;
        ensure!(row["phase"] == "locked", "{row}");
        let file = plain_file.display().to_string();
        let said = stack.publisher.json(&["unlock", &name, "--file", &file]).await?;
        ensure!(said["sent"] == true, "{said}");
        let site = stack.provider.site(&pod.host)?;
        until("it answers", async || Ok((site.get("/").await? == "probe").then_some(()))).await?;

        // What keeps one lease from having its key keeps no other from it. (`update` has the key's file known again.)
        let second_key = folder.join("second.key").display().to_string();
        stack.publisher.json(&["image", "key", &second_key]).await?;
        let mut second = stack.probe("second", &second_image.name, "")?;
        let encrypt = format!("x-roadstead:\n  encrypt: {{ key: {second_key} }}\n");
        second.change("x-roadstead:\n", &encrypt)?;
        let second = stack.publisher.deploy(&second).await?.lease;
        let said = stack.publisher.json(&["update", &name, &file, "--yes"]).await?;
        ensure!(said["changed"] == false, "{said}");
        std::fs::remove_file(&second_key)?;
        let of_lease = |container: &tests::Container| container.lease == lease;
        let mut containers = stack.docker.containers(stack.provider.address()).await?;
        containers.retain(of_lease);
        stack.docker.remove_container(&containers.first().context("no container")?.id).await?;
        until("its start waits for the key", locked).await?;
        let mut watching = stack.publisher.start(&["unlock", "--watch"])?;
        let line = tokio::time::timeout(tests::SOON, watching.line()).await??;
        let sent: serde_json::Value = serde_json::from_str(&line.context("it ended")?)?;
        ensure!(sent["lease"] == lease, "{sent}");
        let told = tokio::time::timeout(tests::SOON, watching.step()).await??;
        let told = told.context("it ended")?;
        ensure!(told.starts_with(&format!("lease {second}: ")), "{told}");
        ensure!(told.contains("second.key cannot be read"), "{told}");
        watching.kill().await?;
        stack.publisher.down(second).await?;

        // One that was named and is closed is no lease to wait for.
        stack.publisher.down(lease).await?;
        let said = stack.publisher.run(&["unlock", "--watch", &name, "--file", &file]).await?;
        said.refused(1, &["is not an open lease"])
    })
    .await
}
