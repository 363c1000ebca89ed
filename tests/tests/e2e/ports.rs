//! Public ports: what is neither HTTP nor led to by a host.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use protocol::lease::CloseReason;
use serde_json::{Value, json};
use tests::{PodFile, Setup, Stack, story, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// A pod with a service beside that echoes after `one `, with these `ports`.
async fn echoing(stack: &mut Stack, app: &str, ports: &str) -> anyhow::Result<PodFile> {
    let image = stack.image(app).await?;
    let more = format!(
        "  echo:\n    image: {}\n    command: [\"/probe\", \"echo\", \"7000\", \"one \"]\n    ports: {ports}\n    \
         stop_signal: SIGKILL\n    restart: unless-stopped\n    \
         deploy: {{ resources: {{ limits: {{ cpus: \"0.1\", memory: 32M }} }} }}",
        image.name
    );
    stack.probe(app, &image.name, &more)
}

/// The one address of all ports in what a command printed.
fn address(json: &Value, ports: &[&str]) -> anyhow::Result<String> {
    let listed = json["ports"].as_array().context("there are no ports")?;
    let address = listed.first().and_then(|port| port["address"].as_str()).context("no address")?;
    let wanted: Vec<Value> = ports
        .iter()
        .map(|port| json!({ "address": address, "port": port, "service": "echo" }))
        .collect();
    ensure!(*listed == wanted, "{json}");
    Ok(address.to_owned())
}

/// Says `word` on a connection, and returns what comes back.
async fn say(stream: &mut TcpStream, word: &str) -> anyhow::Result<String> {
    stream.write_all(word.as_bytes()).await?;
    let mut answer = [0; 64];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

async fn tcp(address: &str) -> anyhow::Result<String> {
    say(&mut TcpStream::connect(address).await?, "tcp").await
}

async fn udp(address: &str) -> anyhow::Result<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(address).await?;
    socket.send(b"udp").await?;
    let mut answer = [0; 64];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

async fn is_closed(address: &str) -> anyhow::Result<Option<()>> {
    Ok(TcpStream::connect(address).await.is_err().then_some(()))
}

#[tokio::test]
async fn a_port_keeps_its_number_over_restarts_and_updates() -> anyhow::Result<()> {
    story(Setup { ports: true, ..Setup::default() }, async |stack| {
        let mut pod = echoing(stack, "echo", "[\"7000:7000\", \"53:7000/udp\"]").await?;
        let both = ["7000/tcp", "7000/udp"];
        let checked = stack.publisher.json(&["check", pod.path()]).await?;
        ensure!(checked["pod"]["services"]["echo"]["public"] == json!(both), "{checked}");
        let deployed = stack.publisher.deploy(&pod).await?;
        let lease = deployed.lease;
        let at = address(&deployed.json, &both)?;
        ensure!(tcp(&at).await? == "one tcp" && udp(&at).await? == "one udp", "no echo at {at}");
        ensure!(
            address(&stack.publisher.row(lease).await?, &both)? == at,
            "ps has another address"
        );
        let other = stack.publisher.run(&["ps"]).await?;
        ensure!(other.out.contains(&at), "{other:?}");

        // Who kills the provider ends connections, not the address.
        stack.provider.kill().await?;
        ensure!(is_closed(&at).await?.is_some(), "somebody else listens at {at}");
        stack.provider.start().await?;
        until("it echoes again", async || Ok((tcp(&at).await? == "one tcp").then_some(()))).await?;
        ensure!(address(&stack.publisher.row(lease).await?, &both)? == at, "it has moved");

        // The new pod takes the number over, and one port more gets one of its own.
        pod.change("\"one \"", "\"two \"")?;
        pod.change("[\"7000:7000\", ", "[\"7000:7000\", \"7001/udp\", ")?;
        let updated = stack.publisher.update(lease, &pod).await?;
        let ports = updated.json["ports"].as_array().context("there are no ports")?;
        let of = |port: &str| {
            let found = ports.iter().find(|found| found["port"] == port);
            found.and_then(|found| found["address"].as_str()).unwrap_or_default()
        };
        ensure!(of("7000/tcp") == at && of("7000/udp") == at, "{ports:?}");
        ensure!(ports.len() == 3 && of("7001/udp") != at, "{ports:?}");
        ensure!(tcp(&at).await? == "two tcp" && udp(&at).await? == "two udp", "the old pod echoes");

        // With the lease the numbers go.
        let mut open = TcpStream::connect(&at).await?;
        ensure!(say(&mut open, "tcp").await? == "two tcp", "no echo");
        stack.publisher.down(lease).await?;
        until("the port is closed", async || is_closed(&at).await).await?;
        let ended = timeout(PATIENCE * 4, open.read(&mut [0; 1])).await?;
        ensure!(ended.is_err() || ended.is_ok_and(|length| length == 0), "the connection goes on");
        stack.closed(lease, CloseReason::PayerDone).await?;
        stack.nothing_is_left().await?;
        let file = stack.provider.data().join("ports.json");
        until("no number is taken", async || {
            Ok((std::fs::read_to_string(&file)? == "[]").then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_dry_account_closes_the_ports_and_a_top_up_opens_them_again() -> anyhow::Result<()> {
    story(Setup { ports: true, ..Setup::default() }, async |stack| {
        let pod = echoing(stack, "dry", "[\"7000\"]").await?;
        let deployed = stack.publisher.deploy(&pod).await?;
        let at = address(&deployed.json, &["7000/tcp"])?;
        let mut open = TcpStream::connect(&at).await?;
        ensure!(say(&mut open, "tcp").await? == "one tcp", "no echo");

        let account = stack.account(stack.publisher.account()).await?;
        let now = stack.chain.head().await?.timestamp;
        stack.pass(account.fundedUntil.to::<u64>() - now + 1).await?;
        until("the port is closed", async || is_closed(&at).await).await?;
        let ended = timeout(PATIENCE * 4, open.read(&mut [0; 1])).await?;
        ensure!(ended.is_err() || ended.is_ok_and(|length| length == 0), "the connection goes on");

        stack.publisher.json(&["fund", "1"]).await?;
        until("it echoes again", async || Ok((tcp(&at).await? == "one tcp").then_some(()))).await?;
        let row = stack.publisher.row(deployed.lease).await?;
        ensure!(address(&row, &["7000/tcp"])? == at, "it has moved: {row}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_lease_whose_ports_have_gone_to_another_is_given_up() -> anyhow::Result<()> {
    story(Setup { ports: true, ..Setup::default() }, async |stack| {
        // Five of eight numbers for each, which both are promised.
        let five = r#"["1/udp", "2/udp", "3/udp", "4/udp", "7000/udp"]"#;
        let one = echoing(stack, "first", five).await?;
        let two = echoing(stack, "second", five).await?;
        let quote = stack.publisher.quote(&two).await?;
        let deployed = stack.publisher.deploy(&one).await?;
        let sender = stack.ready_account().await?;
        sender.send(stack.chain.deployment().leases, &stack.open(&quote, 1)).await?;
        let lease = stack.openings().await?.last().context("nothing was opened")?.lease;
        ensure!(lease != deployed.lease, "no second lease was opened");
        stack.closed(lease, CloseReason::ProviderFull).await?;
        let said = until("its end is told", async || {
            let said = stack.publisher.run(&["events", &lease.to_string()]).await?;
            Ok(said.out.contains(r#""event":"closed""#).then_some(said))
        })
        .await?;
        ensure!(said.out.contains("5 public ports are needed and 3 are free"), "{}", said.out);
        let row = stack.publisher.row(deployed.lease).await?;
        ensure!(row["ports"].as_array().is_some_and(|ports| ports.len() == 5), "{row}");
        stack.publisher.down(deployed.lease).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_provider_without_public_ports_refuses_them_and_loopback_is_private() -> anyhow::Result<()>
{
    story(Setup::default(), async |stack| {
        let mut pod = echoing(stack, "private", "[\"7000:7000\"]").await?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(1, &["services.echo.ports: 7000/tcp would be public", "no public ports"])?;
        stack.nothing_came_of_it().await?;

        pod.change("7000:7000", "127.0.0.1:7000:7000")?;
        let deployed = stack.publisher.deploy(&pod).await?;
        ensure!(deployed.json["ports"] == json!([]), "{}", deployed.json);
        stack.publisher.down(deployed.lease).await
    })
    .await
}
