//! What a visitor finds out about who serves an app, and who stands in between.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use reqwest::StatusCode;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tests::{PodFile, Publisher, Said, Setup, Stack, story, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Has a certificate from an authority.
const SHOP: &str = "shop.example.org";
/// Has one that its publisher brings.
const OWN: &str = "own.example.org";

const PATH: &str = "/.well-known/roadstead";

/// A certificate that vouches for itself, and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new(host: &str) -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let own = rcgen::CertificateParams::new(vec![host.to_owned()])?.self_signed(&key)?;
        Ok(Self { certificate: own.pem(), key: key.serialize_pem() })
    }

    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Somebody in between: takes visitors' connections with a certificate of their own, and asks the ingress in their place.
struct Between {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Between {
    /// What comes back is changed by `lie`, which keeps its length.
    async fn start(
        own: &Pair,
        ingress: SocketAddr,
        trusted: &[u8],
        host: &'static str,
        lie: fn(String) -> String,
    ) -> anyhow::Result<Self> {
        let acceptor = own.acceptor()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted)?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((visitor, _who)) = listener.accept().await {
                // What fails fails the visitor.
                drop(relay(visitor, &acceptor, ingress, &connector, host, lie).await);
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn relay(
    visitor: TcpStream,
    acceptor: &TlsAcceptor,
    ingress: SocketAddr,
    connector: &TlsConnector,
    host: &'static str,
    lie: fn(String) -> String,
) -> anyhow::Result<()> {
    let mut visitor = acceptor.accept(visitor).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(visitor.read_u8().await?);
    }
    let head = String::from_utf8(head)?.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let stream = TcpStream::connect(ingress).await?;
    let mut ingress = connector.connect(ServerName::try_from(host)?, stream).await?;
    ingress.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    ingress.read_to_end(&mut answer).await?;
    visitor.write_all(lie(String::from_utf8(answer)?).as_bytes()).await?;
    Ok(visitor.shutdown().await?)
}

/// A pod at both hosts, with the secrets that [`OWN`]'s certificate is.
async fn shop(stack: &mut Stack, own: &Pair) -> anyhow::Result<PodFile> {
    let image = stack.image("shop").await?;
    let secrets = "secrets: { chain: { file: ./chain.pem }, key: { file: ./key.pem } }";
    let mut pod = stack.probe("shop", &image.name, secrets)?;
    let hosts = format!("{SHOP}: \"web:8080\", {OWN}: \"web:8080\"");
    pod.change("shop.localhost: \"web:8080\"", &hosts)?;
    let tls = format!("tls: {{ {OWN}: {{ certificate: chain, key: key }} }}\n  ingress:");
    pod.change("ingress:", &tls)?;
    let folder = Path::new(pod.path()).parent().context("no folder")?;
    std::fs::write(folder.join("chain.pem"), &own.certificate)?;
    std::fs::write(folder.join("key.pem"), &own.key)?;
    Ok(pod)
}

/// Asks what is behind a host, at `address`; nobody's wallet is at hand.
async fn verify(
    who: &Publisher,
    scheme: &str,
    host: &str,
    address: SocketAddr,
    more: &[&str],
) -> anyhow::Result<Said> {
    let (url, ip) = (format!("{scheme}://{host}:{}/x?y", address.port()), address.ip().to_string());
    let args = ["verify", &url, "--address", &ip, "--wallet", "/none"];
    who.run(&[&args, more].concat()).await
}

#[tokio::test]
async fn a_visitor_finds_out_what_runs_and_who_stands_in_between() -> anyhow::Result<()> {
    story(Setup { https: true, ..Setup::default() }, async |stack| {
        let own = Pair::new(OWN)?;
        let pod = shop(stack, &own).await?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let (https, root) = (stack.provider.https(), stack.provider.authority()?.root().await?);
        let http = stack.provider.site(SHOP)?;
        until("the host has its certificate", async || {
            Ok((http.begin("/").await?.status() == StatusCode::PERMANENT_REDIRECT).then_some(()))
        })
        .await?;
        let who = stack.publisher.clone();

        // All of it is so.
        let said = verify(&who, "https", SHOP, https, &[]).await?.json()?;
        let hash = stack.openings().await?[0].quote.pod;
        ensure!(said["provider"] == serde_json::to_value(stack.provider.address())?, "{said}");
        ensure!(said["lease"] == lease && said["host"] == SHOP, "{said}");
        ensure!(said["pod"] == serde_json::to_value(hash)?, "{said}");
        ensure!(said["payer"] == serde_json::to_value(who.address())?, "{said}");
        ensure!(said["connection"]["key"] == "provider" && said["bound"] == true, "{said}");
        ensure!(said["verdict"] == "UNATTESTED" && said["attested"].is_null(), "{said}");
        let again = verify(&who, "https", SHOP, https, &[]).await?.json()?;
        ensure!(again["connection"] == said["connection"], "{again}");
        ensure!(again["subject"]["nonce"] != said["subject"]["nonce"], "{again}");
        let said = verify(&who, "https", SHOP, https, &["--require", "any"]).await?;
        said.refused(1, &["UNATTESTED", "--require"])?;

        // The pod is the one that its publisher shows, and has the host.
        let checked = stack.publisher.json(&["check", pod.path()]).await?;
        let file = stack.folder().join("pod.json");
        let path = file.display().to_string();
        std::fs::write(&file, checked["pod"].to_string())?;
        let said = verify(&who, "https", SHOP, https, &["--pod", &path]).await?.json()?;
        ensure!(said["lease"] == lease, "{said}");
        std::fs::write(&file, checked["pod"].to_string().replace("/probe", "/other"))?;
        let said = verify(&who, "https", SHOP, https, &["--pod", &path]).await?;
        said.refused(1, &["is for pod", "and the file is pod"])?;
        let said = verify(&who, "https", SHOP, https, &["--pod", pod.path()]).await?;
        said.refused(1, &["compose.yaml is no pod"])?;

        // Without TLS it is told as well, and that nothing binds it.
        let ingress = stack.provider.ingress();
        let said = verify(&who, "http", SHOP, ingress, &[]).await?.json()?;
        ensure!(said["connection"] == serde_json::json!({ "key": "none" }), "{said}");
        ensure!(said["bound"] == false && said["lease"] == lease, "{said}");
        let said = verify(&who, "http", SHOP, ingress, &["--require", "any"]).await?;
        said.refused(1, &["--require", "is not encrypted"])?;
        let url = format!("http://{SHOP}:{}", ingress.port());
        let shown = who.on_a_terminal(&["verify", &url, "--address", "127.0.0.1"]).await?;
        for words in ["UNATTESTED", "nothing binds this connection", "for lease"] {
            ensure!(shown.contains(words), "{words:?} is not in {shown}");
        }

        // Whose key a publisher has, too, that is said.
        let said = verify(&who, "https", OWN, https, &[]).await?.json()?;
        ensure!(said["connection"]["key"] == "publisher" && said["bound"] == false, "{said}");

        // Somebody in between has another key. That is found out, whatever they make of the answer.
        let strange = Pair::new(SHOP)?;
        let between = Between::start(&strange, https, &root, SHOP, |answer| answer).await?;
        let said = verify(&who, "https", SHOP, between.address, &[]).await?;
        said.refused(1, &["somebody stands in between", "the provider's own"])?;
        let honest = verify(&who, "https", SHOP, https, &[]).await?.json()?;
        let theirs = key_of(&said.err)?;
        let ours = honest["connection"]["spki"].as_str().context("no key")?.to_owned();
        ensure!(theirs != ours, "they have the provider's key");
        LIE.set((ours, theirs)).ok().context("the lie is told already")?;
        let lying = Between::start(&strange, https, &root, SHOP, |answer| {
            LIE.get().map_or(answer.clone(), |(ours, theirs)| answer.replace(ours, theirs))
        })
        .await?;
        let said = verify(&who, "https", SHOP, lying.address, &[]).await?;
        said.refused(1, &["nothing proves who serves", "not even its wallet signed"])?;
        // A publisher that stands in front of the provider has the right key, and cannot pass it off as the provider's alone.
        let front = Between::start(&own, https, own.certificate.as_bytes(), OWN, |answer| {
            answer.replace("\"publisher\"", "\"provider\" ")
        })
        .await?;
        let said = verify(&who, "https", OWN, front.address, &[]).await?;
        said.refused(1, &["nothing proves who serves", "not even its wallet signed"])?;

        // Nor does a key that is good for another host pass for this one's.
        let other = Between::start(&own, https, own.certificate.as_bytes(), OWN, |answer| answer);
        let said = verify(&who, "https", SHOP, other.await?.address, &[]).await?;
        said.refused(1, &["is not the ingress of a provider of this market", "421"])?;

        // Where no lease has the host, nobody answers for it.
        let said = verify(&who, "https", "other.example.org", https, &[]).await?;
        said.refused(1, &["other.example.org", "does not answer"])?;
        let said = verify(&who, "http", "other.example.org", ingress, &[]).await?;
        said.refused(1, &["is not the ingress of a provider of this market", "404"])?;
        let said = verify(&who, "ftp", SHOP, https, &[]).await?;
        said.refused(1, &["is not the URL of an app"])?;

        // What is asked otherwise than it should be is refused here, and not by the pod.
        let (status, text) = http.ask(&format!("{PATH}?nonce=0x12")).await?;
        ensure!(status == StatusCode::BAD_REQUEST && text.contains("\"error\""), "{status} {text}");
        let (status, text) = http.ask(PATH).await?;
        let told: Value = serde_json::from_str(&text)?;
        ensure!(status == StatusCode::OK && told.get("attestation").is_none(), "{status} {text}");

        // The provider does not hear that the lease is closed, and goes on.
        stack.relay.cut();
        stack.publisher.down(lease).await?;
        let said = verify(&who, "https", SHOP, https, &[]).await?;
        said.refused(1, &[&format!("lease {lease}"), "is closed"])?;
        stack.relay.mend();
        stack.nothing_is_left().await
    })
    .await
}

/// The key that is to be passed off as the other one.
static LIE: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();

/// The key that was seen, as a refusal tells it.
fn key_of(said: &str) -> anyhow::Result<String> {
    let key = said.split("has the key ").nth(1).and_then(|rest| rest.split(',').next());
    Ok(key.context("no key is told")?.to_owned())
}
