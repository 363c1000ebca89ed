//! HTTPS at a provider's ingress: where certificates come from, and what passes through.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Request, body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tests::{PodFile, Setup, Site, Stack, story, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const PATIENCE: Duration = Duration::from_secs(10);

const SHOP: &str = "shop.example.org";
const GRPC: &str = "grpc.example.org";

fn https() -> Setup {
    Setup { https: true, ..Setup::default() }
}

/// A pod that answers at [`SHOP`], and over HTTP/2 at [`GRPC`].
async fn shop(stack: &mut Stack, app: &str) -> anyhow::Result<PodFile> {
    let image = stack.image(app).await?;
    let more = format!(
        "  grpc:\n    image: {}\n    command: [\"/probe\", \"grpc\", \"9000\"]\n    expose: [9000]\n    \
         stop_signal: SIGKILL\n    restart: unless-stopped\n    \
         deploy: {{ resources: {{ limits: {{ cpus: \"0.1\", memory: 32M }} }} }}",
        image.name
    );
    let mut pod = stack.probe(app, &image.name, &more)?;
    let hosts = format!("{SHOP}: \"web:8080\", {GRPC}: {{ to: \"grpc:9000\", protocol: grpc }}");
    pod.change(&format!("{app}.localhost: \"web:8080\""), &hosts)?;
    Ok(pod)
}

/// Waits until `ps` has HTTPS URLs for all hosts of a lease.
async fn secured(stack: &Stack, lease: u64) -> anyhow::Result<()> {
    let port = stack.provider.https().port();
    let wanted =
        serde_json::json!([format!("https://{GRPC}:{port}"), format!("https://{SHOP}:{port}"),]);
    until("both hosts have certificates", async || {
        let row = stack.publisher.row(lease).await?;
        ensure!(row["urls"] == wanted, "{row}");
        ensure!(row["notes"] == serde_json::json!([]), "{row}");
        Ok(Some(()))
    })
    .await
}

/// A connection of a visitor who trusts `root`, and speaks `protocol`.
async fn connect(
    address: SocketAddr,
    host: &str,
    root: &[u8],
    protocol: &str,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root)?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    let stream = connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
    let spoken = stream.get_ref().1.alpn_protocol();
    ensure!(spoken == Some(protocol.as_bytes()), "{spoken:?} is spoken");
    Ok(stream)
}

/// A call in both directions at once, each part of which comes back before the next is sent.
async fn call(address: SocketAddr, root: &[u8]) -> anyhow::Result<()> {
    let stream = connect(address, GRPC, root, "h2").await?;
    let (mut requests, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let (send, parts) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let parts = stream::unfold(parts, async |mut parts| Some((parts.recv().await?, parts)));
    let request = Request::post(format!("https://{GRPC}/echo"))
        .header("te", "trailers")
        .body(StreamBody::new(Box::pin(parts)))?;
    let mut answer = requests.send_request(request).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    for part in ["one", "two"] {
        send.send(Ok(Frame::data(part.into()))).await?;
        let frame = answer.body_mut().frame().await.context("the answer ended")??;
        let heard = frame.into_data().ok().context("no part came back")?;
        ensure!(heard == part, "{heard:?} came back");
    }
    drop(send);
    let last = answer.body_mut().frame().await.context("there are no trailers")??;
    let trailers = last.into_trailers().ok().context("there are no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "{trailers:?}");
    Ok(())
}

/// A tunnel, as of a WebSocket.
async fn tunnel(address: SocketAddr, root: &[u8]) -> anyhow::Result<()> {
    let mut stream = connect(address, SHOP, root, "http/1.1").await?;
    let head = format!(
        "GET /upgrade HTTP/1.1\r\nHost: {SHOP}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for word in ["ping", "pong"] {
        stream.write_all(word.as_bytes()).await?;
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await?;
        ensure!(heard == word.as_bytes(), "{heard:?} came back");
    }
    Ok(())
}

/// An answer whose first half arrives before the second is there.
async fn streams(site: &Site) -> anyhow::Result<()> {
    let mut answer = site.begin("/slow").await?;
    let first = answer.chunk().await?.context("the answer ended")?;
    ensure!(first == "first", "{first:?}");
    site.get("/go").await?;
    let second = answer.chunk().await?.context("the answer ended")?;
    ensure!(second == "second", "{second:?}");
    Ok(())
}

#[tokio::test]
async fn hosts_get_certificates_and_all_passes_through_tls() -> anyhow::Result<()> {
    story(https(), async |stack| {
        let pod = shop(stack, "shop").await?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        secured(stack, lease).await?;
        let (address, root) = (stack.provider.https(), stack.provider.authority()?.root().await?);
        let site = Site::secure(address, SHOP, &root)?;
        ensure!(site.get("/").await? == "probe", "it does not answer over HTTPS");
        timeout(PATIENCE, call(address, &root)).await.context("a gRPC call")??;
        timeout(PATIENCE, tunnel(address, &root)).await.context("a tunnel")??;
        streams(&site).await?;

        // Whoever comes without TLS is sent there, with what it asked for.
        let plain = stack.provider.site(SHOP)?.begin("/a?b=c").await?;
        ensure!(plain.status() == 308, "{plain:?}");
        let location = plain.headers().get("location").context("no location")?.to_str()?;
        ensure!(location == format!("https://{SHOP}:{}/a?b=c", address.port()), "{location}");
        // A host that no lease has is shown no certificate.
        let strange = Site::secure(address, "other.example.org", &root)?.get("/").await;
        ensure!(strange.is_err(), "a stranger's host is served");

        // The certificates outlive the authority and the provider's process.
        stack.provider.authority()?.kill().await?;
        stack.provider.stop().await?;
        stack.provider.start().await?;
        until("it answers again", async || Ok(Some(site.get("/").await?))).await?;
        ensure!(!stack.provider.log().contains("PRIVATE KEY"), "a key is in the log");

        // With the lease, its hosts are shown with none.
        stack.publisher.down(lease).await?;
        until("nothing is shown", async || Ok(site.get("/").await.is_err().then_some(()))).await
    })
    .await
}

#[tokio::test]
async fn a_host_is_proved_by_dns_where_its_publisher_wishes_it() -> anyhow::Result<()> {
    story(https(), async |stack| {
        let mut pod = shop(stack, "dns").await?;
        pod.change("ingress:", &format!("tls: {{ {SHOP}: dns }}\n  ingress:"))?;
        // Over HTTP nobody would find this one.
        let authority = stack.provider.authority()?;
        authority.hide(SHOP).await?;
        authority.delegate(SHOP).await?;
        let root = authority.root().await?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        secured(stack, lease).await?;
        let site = Site::secure(stack.provider.https(), SHOP, &root)?;
        ensure!(site.get("/").await? == "probe", "it does not answer over HTTPS");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_keeps_a_host_from_its_certificate_is_told() -> anyhow::Result<()> {
    story(https(), async |stack| {
        let pod = shop(stack, "lost").await?;
        stack.provider.authority()?.hide(SHOP).await?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let port = stack.provider.https().port();
        let row = until("the failure is told", async || {
            let row = stack.publisher.row(lease).await?;
            let told = row["notes"][0].as_str().unwrap_or_default();
            Ok((told.contains("is tried again at about")).then_some(row.clone()))
        })
        .await?;
        let told = row["notes"][0].as_str().unwrap_or_default();
        ensure!(told.starts_with(&format!("there is no new certificate for {SHOP}: ")), "{told}");
        // The other host has its own, and this one is served without.
        until("the other one has its certificate", async || {
            let row = stack.publisher.row(lease).await?;
            Ok((row["urls"][0] == format!("https://{GRPC}:{port}")).then_some(()))
        })
        .await?;
        let plain = stack.provider.site(SHOP)?;
        ensure!(plain.get("/").await? == "probe", "it does not answer without TLS");
        Ok(())
    })
    .await
}

/// A certificate of one's own for `host`, and its key; it vouches for itself.
fn own(host: &str) -> anyhow::Result<(String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec![host.to_owned()])?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[tokio::test]
async fn a_publishers_own_certificate_is_shown_and_can_be_renewed() -> anyhow::Result<()> {
    story(https(), async |stack| {
        let image = stack.image("own").await?;
        let secrets = "secrets: { chain: { file: ./chain.pem }, key: { file: ./key.pem } }";
        let mut pod = stack.probe("own", &image.name, secrets)?;
        pod.change("own.localhost", SHOP)?;
        let tls = format!("tls: {{ {SHOP}: {{ certificate: chain, key: key }} }}\n  ingress:");
        pod.change("ingress:", &tls)?;
        let folder = std::path::Path::new(pod.path()).parent().context("no folder")?.to_owned();
        let write = |chain: &str, key: &str| -> anyhow::Result<()> {
            std::fs::write(folder.join("chain.pem"), chain)?;
            Ok(std::fs::write(folder.join("key.pem"), key)?)
        };
        let ((first, first_key), (second, second_key)) = (own(SHOP)?, own(SHOP)?);
        let (other, other_key) = own(GRPC)?;

        // What visitors would refuse is refused before anything is sent.
        write(&first, &second_key)?;
        let said = stack.publisher.run(&["check", pod.path()]).await?;
        said.refused(1, &[SHOP, "the key does not fit the certificate"])?;
        write(&other, &other_key)?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(1, &["the certificate is not for shop.example.org"])?;
        stack.nothing_came_of_it().await?;

        write(&first, &first_key)?;
        let deployed = stack.publisher.deploy(&pod).await?;
        let address = stack.provider.https();
        let url = format!("https://{SHOP}:{}", address.port());
        ensure!(deployed.json["urls"] == serde_json::json!([url]), "{}", deployed.json);
        let site = Site::secure(address, SHOP, first.as_bytes())?;
        ensure!(site.get("/").await? == "probe", "it does not answer over HTTPS");

        // The next one takes its place, without a transaction and without a new container.
        let before = stack.container(deployed.lease).await?;
        write(&second, &second_key)?;
        let lease = deployed.lease.to_string();
        stack.publisher.json(&["update", &lease, pod.path(), "--yes"]).await?;
        let renewed = Site::secure(address, SHOP, second.as_bytes())?;
        until("the new one is shown", async || Ok(Some(renewed.get("/").await?))).await?;
        // Another visitor, since the first may go on with the session that it has.
        let former = Site::secure(address, SHOP, first.as_bytes())?;
        ensure!(former.get("/").await.is_err(), "the old one is still shown");
        ensure!(stack.container(deployed.lease).await?.id == before.id, "the pod was started anew");

        // It does not matter what a lease would cost by now: it goes on as it was agreed to.
        let (third, third_key) = own(SHOP)?;
        write(&third, &third_key)?;
        let args = ["update", &lease, pod.path(), "--yes", "--max-price", "0.000001/h"];
        let said = stack.publisher.json(&args).await?;
        ensure!(said["changed"] == false, "{said}");
        let renewed = Site::secure(address, SHOP, third.as_bytes())?;
        until("the third is shown", async || Ok(Some(renewed.get("/").await?))).await?;

        // Neither key lies on the provider's disk, nor did an authority have any part in it.
        let acme = until("the authority's folder is there", async || {
            Ok(std::fs::read_dir(stack.provider.data().join("acme"))?.next())
        })
        .await??;
        ensure!(std::fs::read_dir(acme.path())?.next().is_none(), "an order was placed");
        let secret = |key: &str| key.lines().nth(1).unwrap_or_default().to_owned();
        let keys = [&first_key, &second_key, &third_key].map(|key| secret(key));
        ensure!(lies(&stack.provider.data(), &keys)?.is_none(), "a key lies on the disk");
        Ok(())
    })
    .await
}

/// The first file below `folder` in which one of `words` is.
fn lies(folder: &std::path::Path, words: &[String]) -> anyhow::Result<Option<std::path::PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = lies(&path, words)? {
                return Ok(Some(found));
            }
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        if words.iter().any(|word| text.contains(word)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
