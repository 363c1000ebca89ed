//! What costs extra: egress, public ports and GPUs.

use alloy::primitives::U256;
use anyhow::{Context as _, ensure};
use chain::abi::{Auction, Erc20, Leases, Staking};
use protocol::lease::CloseReason;
use serde_json::{Value, json};
use tests::{Provider, Setup, Stack, story, until};

/// An engine that knows the name of what gives containers GPUs. There are none here: what takes one comes no further than
/// to have its container.
const NVIDIA: &str = r#"{"runtimes": {"nvidia": {"path": "/usr/sbin/runc"}}}"#;

/// Puts lines into a provider's file, each at the beginning of its table.
fn add(provider: &Provider, lines: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut text = std::fs::read_to_string(provider.config())?;
    for (table, line) in lines {
        ensure!(text.contains(table), "the provider's file has no {table}");
        text = text.replace(&format!("{table}\n"), &format!("{table}\n{line}\n"));
    }
    Ok(std::fs::write(provider.config(), text)?)
}

async fn start_with(stack: &mut Stack, lines: &[(&str, &str)]) -> anyhow::Result<()> {
    stack.provider.stop().await?;
    add(&stack.provider, lines)?;
    stack.provider.start().await
}

fn rate(value: &Value) -> anyhow::Result<u128> {
    Ok(value.as_str().with_context(|| format!("{value} is no rate"))?.parse()?)
}

#[tokio::test]
async fn egress_and_public_ports_are_quoted_and_paid_for() -> anyhow::Result<()> {
    story(Setup { ports: true, ..Setup::default() }, async |stack| {
        start_with(
            stack,
            &[
                ("[prices]", "egress = \"0.1024/mo\"\npublic_port = \"0.36/h\""),
                ("[limits]", "egress_total = \"1Gi\"\negress_most = \"100Gi\""),
            ],
        )
        .await?;
        let image = stack.image("prices").await?;
        let mut pod = stack.probe("prices", &image.name, "")?;
        let price = async |stack: &Stack, path: &str| {
            let quotes = stack.publisher.json(&["quote", path]).await?;
            let (price, quote) = (&quotes[0]["price"], &quotes[0]["quote"]);
            ensure!(price["total"] == quote["rate"], "{quotes}");
            anyhow::Ok(price.clone())
        };
        let plain = price(stack, pod.path()).await?;
        ensure!(plain["egress"] == "0" && plain["publicPorts"] == "0", "{plain}");
        // Who asks for what is included pays as who asks for nothing.
        pod.change("x-roadstead:\n", "x-roadstead:\n  egress: { total: 1Gi }\n")?;
        ensure!(price(stack, pod.path()).await? == plain, "what is included is charged");
        pod.change("1Gi", "101Gi")?;
        let said = stack.publisher.run(&["quote", pod.path()]).await?;
        said.refused(
            1,
            &["x-roadstead.egress.total", "101 GiB", "100 GiB in 30 days is the most"],
        )?;

        pod.change("101Gi", "3Gi")?;
        pod.change("ports: [\"8080\"]", "ports: [\"8080\", \"9000:9000\", \"9000:9000/udp\"]")?;
        let dear = price(stack, pod.path()).await?;
        // 0.1024 a month for a GiB is 38,580 units per second for a MiB; 0.36 an hour are 10^11.
        let wanted = json!({
            "cpu": plain["cpu"], "memory": plain["memory"], "storage": plain["storage"],
            "egress": (2_048 * 38_580_u128).to_string(),
            "publicPorts": (2 * 100_000_000_000_u128).to_string(),
            "gpus": "0", "total": dear["total"],
        });
        ensure!(dear == wanted, "{dear}\n{wanted}");
        let sum = rate(&plain["total"])? + 2_048 * 38_580 + 2 * 100_000_000_000;
        ensure!(rate(&dear["total"])? == sum, "{dear}");

        // It is told before it is asked for, too.
        let checked = stack.publisher.run(&["check", pod.path()]).await?;
        ensure!(checked.out.contains("\"prices\""), "{}", checked.out);
        let providers = stack.publisher.json(&["providers"]).await?;
        let info = &providers[0]["info"];
        ensure!(info["prices"]["publicPort"] == "100000000000", "{info}");
        ensure!(info["egress"]["included"] == 1_u64 << 30, "{info}");
        ensure!(info["egress"]["most"] == 100_u64 << 30, "{info}");
        ensure!(providers[0]["prices"]["publicPort"] == "0", "the chain has no such price");

        let deployed = stack.publisher.deploy(&pod).await?;
        ensure!(deployed.rate == sum, "{} are paid instead of {sum}", deployed.rate);
        let lease = stack.lease(deployed.lease).await?;
        ensure!(lease.rate == sum, "the lease pays {} instead of {sum}", lease.rate);
        ensure!(
            stack.provider.sent(deployed.lease)?["total"] == 3_u64 << 30,
            "it may send otherwise"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn gpus_without_what_gives_them_keep_a_provider_from_starting() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        stack.provider.stop().await?;
        let before = std::fs::read_to_string(stack.provider.config())?;
        add(&stack.provider, &[("[capacity]", "gpus = [\"0\", \"1\"]")])?;
        let err = stack.provider.verb(&["run"]).await.err().context("it starts")?.to_string();
        let words = "capacity.gpus names 0, 1, and Docker has no runtime called nvidia";
        ensure!(err.contains(words), "{err}");
        std::fs::write(stack.provider.config(), before)?;
        stack.provider.start().await?;
        // Nobody has room for a pod that wants one.
        let image = stack.image("gpus").await?;
        let mut pod = stack.probe("gpus", &image.name, "")?;
        with_gpus(&mut pod, 1)?;
        let said = stack.publisher.run(&["quote", pod.path()]).await?;
        said.refused(1, &["1 GPU are needed", "are free here"])
    })
    .await
}

/// Has the probe want so many.
fn with_gpus(pod: &mut tests::PodFile, count: u32) -> anyhow::Result<()> {
    let devices = format!(
        "reservations: {{ devices: [{{ driver: nvidia, count: {count}, capabilities: [gpu] }}] }}"
    );
    pod.change("{ resources: { limits", &format!("{{ resources: {{ {devices}, limits"))
}

#[tokio::test]
async fn a_gpu_is_one_leases_and_priced() -> anyhow::Result<()> {
    let setup = Setup { engine: true, daemon: NVIDIA, start_within: 40, ..Setup::default() };
    story(setup, async |stack| {
        start_with(
            stack,
            &[("[capacity]", "gpus = [\"GPU-a\", \"GPU-b\"]"), ("[prices]", "gpu = \"0.72/h\"")],
        )
        .await?;
        let image = stack.image("gpu").await?;
        let mut three = stack.probe("three", &image.name, "")?;
        with_gpus(&mut three, 3)?;
        let said = stack.publisher.run(&["quote", three.path()]).await?;
        said.refused(1, &["3 GPUs are needed", "2 GPUs are free here"])?;
        let mut two = stack.probe("two", &image.name, "")?;
        with_gpus(&mut two, 2)?;
        let mut one = stack.probe("one", &image.name, "")?;
        with_gpus(&mut one, 1)?;
        let quotes = stack.publisher.json(&["quote", one.path()]).await?;
        ensure!(quotes[0]["price"]["gpus"] == "200000000000", "{quotes}");

        let (publisher, provider) = (stack.publisher.clone(), stack.provider.address());
        let docker = stack.docker.clone();
        let args = ["deploy", one.path(), "--yes", "--fund", "5"];
        let deploying = publisher.run(&args);
        let looking = async {
            let found = until("there is a container", async || {
                let Some(found) = docker.containers(provider).await?.pop() else { return Ok(None) };
                let taken = publisher.run(&["quote", two.path()]).await?;
                Ok(Some((docker.inspect(&found.id).await?, taken)))
            });
            found.await
        };
        let (said, found) = tokio::join!(deploying, looking);
        let (container, taken) = found?;
        taken.refused(1, &["2 GPUs are needed", "1 GPU are free here"])?;
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        ensure!(labels.get("roadstead.gpus").is_some_and(|gpus| gpus == "GPU-a"), "{labels:?}");
        let requests = container.host_config.and_then(|host| host.device_requests);
        let request = requests.and_then(|mut all| all.pop()).context("no device is asked for")?;
        ensure!(request.device_ids == Some(vec!["GPU-a".into()]), "{request:?}");
        ensure!(request.driver.as_deref() == Some("nvidia"), "{request:?}");
        // There is no such GPU, which its publisher is told.
        said?.refused(3, &["did not start and is closed", "device driver"])?;
        let openings = stack.openings().await?;
        ensure!(openings.len() == 1, "there are {openings:?}");
        let (event, _) = stack.chain.closing(openings[0].lease).await?.context("it is open")?;
        let reason = CloseReason::try_from(event.reason)?;
        ensure!(matches!(reason, CloseReason::StartMissed | CloseReason::Unhealthy), "{reason}");
        stack.nothing_is_left().await?;
        // It is free again.
        stack.publisher.json(&["quote", two.path()]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_that_is_more_than_its_order_is_not_run() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("ordered").await?;
        let pod = stack.probe("ordered", &image.name, "")?;
        let place = ["order", "place", pod.path(), "--max-price", "0.02/h", "--duration", "1h"];
        let args = [&place[..], &["--fund", "5", "--yes"]].concat();
        let honest = stack.publisher.json(&args).await?["order"].as_u64().context("no order")?;
        let placed = stack.chain.placements(Some(honest), None).await?.pop();
        let mut order = placed.context("there is no order")?.order;
        stack.publisher.json(&["order", "cancel", &honest.to_string()]).await?;

        // The same pod, of which the order says that it needs next to nothing.
        order.cpu = 1;
        let (deployment, sender) =
            (stack.chain.deployment(), stack.sender(&stack.publisher.signer));
        let (auction, deposit) =
            (deployment.auction, stack.chain.auction().DEPOSIT().call().await?);
        let approve = Erc20::approveCall { spender: auction, amount: U256::from(deposit) };
        sender.send(deployment.token, &approve).await?;
        sender.send(auction, &Auction::placeCall { order: order.clone() }).await?;
        let id = stack.chain.placements(None, None).await?.pop().context("no order")?.id;
        ensure!(id > honest, "order {id} is the first one");

        let provider = stack.sender(&stack.provider.signer);
        let call = Leases::setIssuerCall { issuer: auction, allowed: true };
        provider.send(deployment.leases, &call).await?;
        let call = Staking::setLockerCall { locker: auction, allowed: true };
        provider.send(deployment.staking, &call).await?;
        let call = Auction::bidCall { id, rate: order.maxRate, requirements: Vec::new() };
        provider.send(auction, &call).await?;

        let said = stack.publisher.run(&["order", "award", &id.to_string(), pod.path()]).await?;
        said.refused(3, &["the order asked for 0.001 cpu", "0.25 cpu"])?;
        let lease = stack.openings().await?.pop().context("there is no lease")?.lease;
        stack.closed(lease, CloseReason::ProviderPolicy).await?;
        stack.nothing_is_left().await
    })
    .await
}
