//! Encrypted images: who has the key runs them, nobody else does, and nothing plain is left of them.

use std::{io::Read as _, path::Path};

use alloy::signers::SignerSync as _;
use anyhow::{Context as _, ensure};
use protocol::{lease::State, pod::PodHash};
use provider::wire::{self, KeyRequest, LeaseStatus, Nonce, SealedKey, Session, SignIn};
use reqwest::{Method, StatusCode};
use seal::{AppKey, KeyContext, SealingPublicKey, SenderKey};
use serde_json::Value;
use tests::{DockerRegistry, PodFile, Publisher, Registry, Setup, Stack, story, until};

/// A pod whose image is encrypted.
async fn encrypted(stack: &mut Stack, name: &str) -> anyhow::Result<(PodFile, String)> {
    let image = stack.image(name).await?;
    let mut pod = stack.probe(name, &image.name, "")?;
    pod.change("x-roadstead:\n", "x-roadstead:\n  encrypt: true\n")?;
    Ok((pod, image.id))
}

/// A file of the image that `Stack::image` makes, which is in no other image.
fn secret_of(stack: &Stack, name: &str) -> String {
    let id = stack.folder().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    format!("{name} {id}")
}

/// The files below a folder that have `text` in them.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        let mut bytes = Vec::new();
        if meta.is_dir() {
            found.extend(holding(&path, text));
        } else if meta.is_file()
            && std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok()
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A provider, as a publisher of its own making talks to it.
struct Raw<'a> {
    stack: &'a Stack,
    who: &'a Publisher,
    http: reqwest::Client,
    token: String,
}

impl<'a> Raw<'a> {
    async fn sign_in(stack: &'a Stack, who: &'a Publisher) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().danger_accept_invalid_certs(true).build()?;
        let mut raw = Self { stack, who, http, token: String::new() };
        let nonce: Nonce = serde_json::from_value(raw.ask(Method::GET, "nonce", None).await?.1)?;
        let (provider, chain) = (stack.provider.address(), stack.chain.id());
        let message = wire::sign_in_message(who.address(), provider, chain, &nonce.nonce);
        let signature = who.signer.sign_message_sync(message.as_bytes())?.as_bytes().into();
        let session = SignIn { message, signature };
        let session = serde_json::to_value(session)?;
        let session = raw.ask(Method::POST, "session", Some(session)).await?.1;
        raw.token = serde_json::from_value::<Session>(session)?.token;
        Ok(raw)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("https://{}/v1/{path}", self.stack.provider.api());
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        Ok((status, value))
    }

    /// What the start of a lease asks for, once it does.
    async fn request(&self, lease: u64) -> anyhow::Result<KeyRequest> {
        until("a start waits for its key", async || {
            let path = format!("leases/{lease}");
            let status = self.ask(Method::GET, &path, None).await?.1;
            Ok(serde_json::from_value::<LeaseStatus>(status)?.key_request)
        })
        .await
    }

    /// The key, sealed by this publisher's sender for a start.
    async fn sealed(
        &self,
        lease: u64,
        request: KeyRequest,
        key: &AppKey,
    ) -> anyhow::Result<SealedKey> {
        let deployment = self.stack.chain.deployment();
        let (chain_id, leases) = (deployment.chain_id, deployment.leases.into());
        let message = SenderKey::message(chain_id, &leases);
        let signed = self.who.signer.sign_message_sync(message.as_bytes())?.as_bytes();
        let sender = SenderKey::from_signature(signed[..64].try_into()?);
        let provider = self.stack.provider.address();
        let listing = self.stack.chain.registry().listingOf(provider).call().await?.listing;
        let context = KeyContext {
            chain_id,
            leases,
            account: self.stack.lease(lease).await?.account.into(),
            lease,
            provider: provider.into(),
            pod: request.pod.0.into(),
            nonce: request.nonce,
        };
        let claim = sender.public().claim(chain_id, &leases);
        Ok(SealedKey {
            nonce: request.nonce,
            key: key.seal(&SealingPublicKey(listing.sealKey.0), &sender, &context)?,
            sender: sender.public(),
            claim: self.who.signer.sign_message_sync(claim.as_bytes())?.as_bytes().into(),
        })
    }

    /// What the provider says to a key.
    async fn send(&self, lease: u64, sealed: &SealedKey) -> anyhow::Result<(StatusCode, String)> {
        let path = format!("leases/{lease}/key");
        let body = Some(serde_json::to_value(sealed)?);
        let (status, said) = self.ask(Method::PUT, &path, body).await?;
        Ok((status, said["error"].as_str().unwrap_or_default().to_owned()))
    }
}

#[tokio::test]
async fn an_encrypted_image_runs_with_its_key_and_is_gone_afterwards() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let (pod, id) = encrypted(stack, "secret").await?;
        let secret = secret_of(stack, "secret");
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(1, &["x-roadstead.encrypt.key", "app.key", "roadstead image key"])?;
        stack.publisher.json(&["image", "key"]).await?;
        let again = stack.publisher.run(&["image", "key"]).await?;
        again.refused(1, &["app.key cannot be made", "exists"])?;

        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        let lease = said.json()?["lease"].as_u64().context("there is no lease")?;
        for words in ["it is encrypted", "sending 1 of 1 layers", "sending its app's key"] {
            ensure!(said.err.contains(words), "{words:?} is not in {}", said.err);
        }
        let site = stack.provider.site(&pod.host)?;
        ensure!(site.get("/").await? == "probe", "it does not answer");
        let events = stack.publisher.run(&["events", &lease.to_string()]).await?.out;
        ensure!(events.contains(r#""event":"locked""#), "{events}");

        // What the engine has, nobody can name, and what the provider keeps, nobody can read.
        let container = stack.container(lease).await?;
        let runs = stack.docker.inspect(&container.id).await?.image.context("it has no image")?;
        ensure!(runs != id && stack.docker.image(&id).await.is_err(), "its configuration is known");
        stack.docker.image(&runs).await?;
        let plain = holding(&stack.provider.data(), &secret);
        ensure!(plain.is_empty(), "it is plain in {plain:?}");
        let engine = stack.folder().join("engine");
        ensure!(!holding(&engine, &secret).is_empty(), "the search finds nothing at all");

        // A restart of the provider takes what runs as it is.
        stack.provider.kill().await?;
        stack.provider.start().await?;
        ensure!(site.get("/").await? == "probe", "it does not answer");
        let said = stack.publisher.json(&["unlock", &lease.to_string()]).await?;
        ensure!(said["sent"] == false, "{said}");
        ensure!(stack.container(lease).await?.id == container.id, "it is another container");

        // The same image is not encrypted twice, so the pod stays the same.
        let quote = stack.publisher.json(&["check", pod.path()]).await?;
        let opened = &stack.openings().await?[0];
        ensure!(quote["hash"] == PodHash(opened.quote.pod).to_string(), "it is another pod");

        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await?;
        until("nothing plain is left", async || {
            let left = holding(&engine, &secret);
            ensure!(left.is_empty(), "it is in {left:?}");
            ensure!(stack.docker.image(&runs).await.is_err(), "the image is there");
            Ok(Some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn each_start_takes_a_key_of_its_own() -> anyhow::Result<()> {
    story(Setup { engine: true, ..Setup::default() }, async |stack| {
        let (pod, _id) = encrypted(stack, "locked").await?;
        let folder = stack.folder().to_owned();
        let file = folder.join("shop.key").display().to_string();
        stack.publisher.json(&["image", "key", &file]).await?;
        let mut pod = pod;
        pod.change("encrypt: true", &format!("encrypt: {{ key: {file}, services: web }}"))?;
        let key = AppKey::from_pem(&std::fs::read_to_string(&file)?)?;

        // The publisher's machine goes away before it can send the key.
        let other = folder.join("away.key");
        let mut deploying =
            stack.publisher.start(&["deploy", pod.path(), "--yes", "--fund", "5"])?;
        let lease = loop {
            let step = deploying.step().await?.context("the deploy ended")?;
            if let Some(rest) = step.strip_prefix("lease ") {
                let number = rest.split(' ').next().context("there is no number")?;
                break number.parse::<u64>()?;
            }
        };
        deploying.kill().await?;
        let stranger = stack.stranger().await?;
        let raw = Raw::sign_in(stack, &stack.publisher).await?;
        let state = stack.state(lease).await?;
        ensure!(state == State::Pending, "{state} without a key");
        let request = raw.request(lease).await?;
        // Nobody else is told of it, or heard.
        let them = Raw::sign_in(stack, &stranger).await?;
        let sealed = them.sealed(lease, request, &key).await?;
        let (status, said) = them.send(lease, &sealed).await?;
        ensure!(status == StatusCode::NOT_FOUND, "{status} {said}");
        // A sender that somebody else vouches for, and one that nobody does.
        let (status, said) = raw.send(lease, &sealed).await?;
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{status} {said}");
        ensure!(said.contains("did not sign"), "{said}");
        let ours = raw.sealed(lease, request, &key).await?;
        let forged = SealedKey { key: sealed.key.clone(), ..ours.clone() };
        let (status, said) = raw.send(lease, &forged).await?;
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{status} {said}");
        ensure!(said.contains("cannot be opened"), "{said}");
        // Whatever came of it, the nonce is used up.
        let (status, said) = raw.send(lease, &ours).await?;
        ensure!(status == StatusCode::CONFLICT, "{status} {said}");
        // Another app's key.
        let request = raw.request(lease).await?;
        let wrong = raw.sealed(lease, request, &AppKey::generate()).await?;
        let (status, said) = raw.send(lease, &wrong).await?;
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{status} {said}");
        ensure!(said.contains("another key"), "{said}");
        let lease_name = lease.to_string();
        std::fs::write(&other, AppKey::generate().to_pem().as_bytes())?;
        let other = other.display().to_string();
        let wrong = ["unlock", &lease_name, "--file", pod.path(), "--key", &other];
        stack.publisher.run(&wrong).await?.refused(1, &["away.key", "another key"])?;
        stack
            .publisher
            .run(&["unlock", &lease_name, "--file", pod.path(), "--key", "/none"])
            .await?
            .refused(1, &["/none cannot be read"])?;

        // The right one, and once more.
        let request = raw.request(lease).await?;
        let sealed = raw.sealed(lease, request, &key).await?;
        let (status, said) = raw.send(lease, &sealed).await?;
        ensure!(status == StatusCode::NO_CONTENT, "{status} {said}");
        stack.active(lease).await?;
        let site = stack.provider.site(&pod.host)?;
        let answers = async || Ok((site.get("/").await? == "probe").then_some(()));
        until("it answers", answers).await?;
        let (status, said) = raw.send(lease, &sealed).await?;
        ensure!(status == StatusCode::CONFLICT, "{status} {said}");

        // A container that is gone is made anew, which is another start: what was captured does not serve for it.
        let container = stack.container(lease).await?;
        let gone = container.id.clone();
        stack.docker.remove_container(&gone).await?;
        let request = raw.request(lease).await?;
        let (status, said) = raw.send(lease, &sealed).await?;
        ensure!(status == StatusCode::CONFLICT, "{status} {said}");
        let replayed = SealedKey { nonce: request.nonce, ..sealed };
        let (status, said) = raw.send(lease, &replayed).await?;
        ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "{status} {said}");
        ensure!(said.contains("cannot be opened"), "{said}");
        let row = stack.publisher.row(lease).await?;
        ensure!(row["phase"] == "locked", "{row}");
        // A machine of the publisher's that stays on answers by itself.
        let watch = ["unlock", "--watch", &lease_name, "--file", pod.path()];
        let mut watching = stack.publisher.start(&watch)?;
        let line = tokio::time::timeout(tests::SOON, watching.line()).await??;
        let sent: Value = serde_json::from_str(&line.context("it ended")?)?;
        ensure!(sent["lease"] == lease, "{sent}");
        until("it answers", answers).await?;
        ensure!(stack.container(lease).await?.id != gone, "it is the same container");
        watching.kill().await?;
        Ok(())
    })
    .await
}

/// Runs skopeo, which knows nothing of us.
async fn skopeo(args: &[&str]) -> anyhow::Result<()> {
    let mut skopeo = tokio::process::Command::new("skopeo");
    let output = skopeo.args(["--insecure-policy", "copy", "--quiet"]).args(args).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "skopeo copy {args:?}: {said}");
    Ok(())
}

/// A pod whose image is in a registry, encrypted.
fn in_registry(stack: &Stack, app: &str, image: &str) -> anyhow::Result<PodFile> {
    let mut pod = stack.probe(app, image, "")?;
    pod.change("x-roadstead:\n", "x-roadstead:\n  encrypt: true\n")?;
    Ok(pod)
}

#[tokio::test]
async fn a_registry_holds_what_skopeo_and_we_encrypt() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("registry").await?;
        let (registry, here) =
            (DockerRegistry::start(stack.folder()).await?, stack.machine().await?);
        let public = stack.publisher.json(&["image", "key"]).await?;
        let key = public["file"].as_str().context("it says no file")?.to_owned();
        let public = public["public"].as_str().context("it says no key")?.to_owned();
        let pem = stack.folder().join("public.pem");
        std::fs::write(&pem, &public)?;

        // What we encrypt skopeo decrypts, to the image that we say it is.
        let (ours, theirs) = (registry.repository("ours:1"), registry.repository("theirs:1"));
        let said = stack.publisher.json(&["image", "encrypt", &image.name, "--to", &ours]).await?;
        let opened = stack.folder().join("opened");
        let to = format!("oci:{}:app", opened.display());
        let from = format!("docker://{ours}");
        skopeo(&["--src-tls-verify=false", "--decryption-key", &key, &from, &to]).await?;
        let manifest = seal::image::Layout::open(&opened).manifest(Some("app"))?;
        let digest = seal::image::Digest::of(&manifest).to_string();
        ensure!(said["plain"] == digest.as_str(), "skopeo has {digest}, and we {said}");
        // The other way round.
        let (jwe, to) = (format!("jwe:{}", pem.display()), format!("docker://{theirs}"));
        let from = format!("oci:{}:app", opened.display());
        skopeo(&["--dest-tls-verify=false", "--encryption-key", &jwe, &from, &to]).await?;

        // One that is plain there is refused; and it serves for what a stranger tries below.
        let shop = Registry::start().await?;
        let plain = shop.add(&here, &image.name, "1").await?;
        let pod = in_registry(stack, "plain", &shop.repository("shop:1"))?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(1, &["services.web.image", "roadstead image encrypt"])?;
        here.remove_image(&image.name).await?;
        ensure!(here.image(&image.id).await.is_err(), "the engine still has the image");

        let mut leases = Vec::new();
        for (app, name) in [("ours", &ours), ("theirs", &theirs)] {
            let pod = in_registry(stack, app, name)?;
            leases.push(stack.publisher.deploy(&pod).await?.lease);
            ensure!(stack.provider.site(&pod.host)?.get("/").await? == "probe", "{app} is silent");
        }
        ensure!(here.image(&image.id).await.is_err(), "the engine has it under its own name");

        // Somebody else on this very provider, which has the image in plain, and who knows all but the key.
        let stranger = stack.stranger().await?;
        let other = stranger.json(&["image", "key"]).await?;
        let pod = in_registry(stack, "stranger", &ours)?;
        let deploy = ["deploy", pod.path(), "--yes", "--fund", "5"];
        stranger.run(&deploy).await?.refused(1, &["was encrypted for another key"])?;
        // The publisher's record of what the image is, as if the stranger's key had opened it.
        let index = "images/encrypted.json";
        let known = std::fs::read_to_string(stack.publisher.home().join(index))?;
        let short =
            |public: &str| seal::image::Digest::of(public.as_bytes()).hex()[..16].to_owned();
        let theirs = short(other["public"].as_str().unwrap_or_default());
        let forged = known.replace(&short(&public), &theirs);
        ensure!(forged != known, "the record has another form: {known}");
        std::fs::write(stranger.home().join(index), forged)?;
        let said = stranger.run(&deploy).await?;
        said.refused(1, &["waits for its app's key", "was encrypted for another key"])?;
        let lease = stack.openings().await?.last().context("nothing was opened")?.lease;
        ensure!(stack.state(lease).await? == State::Pending, "it was activated");
        ensure!(stack.container(lease).await.is_err(), "a container was made");
        stranger.down(lease).await?;
        // Docker runs what it has a configuration of for whoever names that, without the layers. It has none.
        shop.lose_layers(&plain)?;
        let pod = stack.probe("thief", &format!("{}@{plain}", shop.repository("shop")), "")?;
        let said = stranger.run(&["deploy", pod.path(), "--yes"]).await?;
        said.refused(3, &["did not start and is closed"])?;

        for lease in leases {
            stack.publisher.down(lease).await?;
        }
        stack.nothing_is_left().await
    })
    .await
}
