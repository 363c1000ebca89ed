//! Pulls images from registries, layer by layer, so that each is looked through before the engine has it; and the parts of
//! encrypted ones, which are looked through once they are decrypted.
//!
//! Whoever opens a lease chooses the registry, so it may be their own and answer with anything: it is a stranger that this
//! machine connects to. The worst of them answers slowly or without end, names another image's configuration, or leads
//! elsewhere. Answers are bounded in size and time; all that comes has to have the digest that it was asked for by, down to
//! the layers that the configuration names, so that nobody is given an image of which they have no more than the digest;
//! and connections, those after redirections included, are made to public addresses alone, over TLS, or to the registries
//! that the configuration names.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use protocol::pod::{Digest, Repository};
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, WWW_AUTHENTICATE},
    redirect::Policy,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::{
    causes,
    config::ImageLimits,
    firewall::is_world,
    screen::{Archive, ImageConfig, Loadable, MAX_CONFIG, MAX_LAYERS, ScreenError, Turn},
};

/// How many images are pulled or decrypted at a time: each may take its limit of the disk meanwhile.
const PULLS: usize = 4;

/// How long a pull may take.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How long may pass without a byte.
const SILENCE: Duration = Duration::from_secs(30);

/// The largest manifest: what registries take.
const MAX_MANIFEST: u64 = 4 << 20;

/// The largest token, with what is around it.
const MAX_TOKEN: u64 = 64 << 10;

const MAX_REDIRECTIONS: usize = 5;

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("{0} cannot be asked: {1}")]
    Http(String, String),
    #[error("{0} answers {1}; providers pull without a password")]
    Answer(String, StatusCode),
    #[error("{what} is larger than {most} bytes")]
    TooLarge { what: &'static str, most: u64 },
    #[error("what {0} gives for {1} is not what its digest says")]
    OtherDigest(String, String),
    #[error("its manifest cannot be read: {0}")]
    Manifest(#[source] serde_json::Error),
    #[error("its manifest names no image for linux/{0}")]
    Platform(&'static str),
    #[error("its layers take {size} bytes packed and the limit is {most}")]
    Packed { size: u64, most: u64 },
    #[error("it takes longer than {} minutes", PATIENCE.as_secs() / 60)]
    Late,
    #[error(transparent)]
    Screen(#[from] ScreenError),
    #[error("there is no room for it on the disk")]
    Io(#[from] io::Error),
}

/// What was pulled.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// The digest of its configuration: what Docker calls its id.
    pub(crate) id: Digest,
    /// It, as an engine loads it.
    pub(crate) archive: Loadable,
}

/// Pulls images.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    client: Client,
    near: Arc<[String]>,
    limits: ImageLimits,
    folder: PathBuf,
    turns: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<OfPlatform>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
}

#[derive(Deserialize)]
struct OfPlatform {
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// A repository, as it is asked: with the token that it asked for, if it did.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    registries: &'a Registries,
    base: Url,
    token: Option<String>,
}

/// Which part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Manifest,
    Blob,
}

impl Registries {
    /// Registries in `near` may be on private addresses and without TLS. What is pulled is put together in `folder`.
    pub(crate) fn new(
        near: Vec<String>,
        limits: ImageLimits,
        folder: &Path,
    ) -> Result<Self, reqwest::Error> {
        let near: Arc<[String]> = near.into();
        let followed = Arc::clone(&near);
        let redirections = Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTIONS {
                return attempt.error("it redirects too often");
            }
            match may_ask(attempt.url(), &followed) {
                Ok(()) => attempt.follow(),
                Err(why) => attempt.error(why),
            }
        });
        let client = Client::builder()
            .user_agent(concat!("roadstead/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(SILENCE)
            .redirect(redirections)
            .dns_resolver(Arc::new(World(Arc::clone(&near))))
            .build()?;
        let turns = Arc::new(Semaphore::new(PULLS));
        Ok(Self { client, near, limits, folder: folder.to_owned(), turns })
    }

    /// The image whose manifest, or list of manifests, has `digest`.
    pub(crate) async fn pull(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Pulled, PullError> {
        let turn = self.turn().await?;
        self.in_time(self.pull_now(turn, repository, digest)).await
    }

    async fn pull_now(
        &self,
        turn: Turn,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Pulled, PullError> {
        let _awaited = turn.awaited();
        let mut source = self.source(repository)?;
        let manifest = source.manifest(digest).await?;
        let (config, layers) = match manifest.config {
            Some(config) => (config, manifest.layers),
            None => {
                let of = choose(&manifest.manifests)?;
                let manifest = source.manifest(of).await?;
                let platform = PullError::Platform(architecture());
                (manifest.config.ok_or(platform)?, manifest.layers)
            }
        };
        self.bound(layers.iter().map(|layer| layer.size))?;
        let most = self.limits.size.0;
        if layers.len() > MAX_LAYERS {
            return Err(ScreenError::TooManyLayers(layers.len()).into());
        }
        let id = config.digest;
        let config = source.blob(&id).await?;
        let config = gathered(config, MAX_CONFIG, "its configuration").await?;
        source.is(&config, &id)?;
        let wanted = ImageConfig::read(&config)?.layers;
        if wanted.len() != layers.len() {
            return Err(ScreenError::Layers { got: layers.len(), wanted: wanted.len() }.into());
        }
        let mut archive = self.archive(turn)?;
        for (layer, wanted) in layers.into_iter().zip(wanted) {
            let body = source.blob(&layer.digest).await?;
            let body = body.bytes_stream().map_err(io::Error::other);
            let body = SyncIoBridge::new(StreamReader::new(body));
            let unpacked = tokio::task::spawn_blocking(move || {
                let layer = layer.digest;
                unpack(&mut archive, body, &layer, &wanted, most).map(|()| archive)
            });
            archive = unpacked.await.map_err(io::Error::other)??;
        }
        let archive = tokio::task::spawn_blocking(move || archive.finish(&config, &[])).await;
        Ok(Pulled { id, archive: archive.map_err(io::Error::other)?? })
    }

    /// Waits until one more image may take its limit of the disk, which it does until this is dropped.
    pub(crate) async fn turn(&self) -> io::Result<Turn> {
        Turn::of(&self.turns).await
    }

    /// A new image, to be put together from its layers.
    pub(crate) fn archive(&self, turn: Turn) -> io::Result<Archive> {
        Archive::new(&self.folder, self.limits, turn)
    }

    /// Whether layers of these sizes, as they are packed, are no more than images may have.
    pub(crate) fn bound(&self, sizes: impl Iterator<Item = u64>) -> Result<(), PullError> {
        let size = sizes.fold(0_u64, u64::saturating_add);
        let most = self.limits.size.0;
        if size > most { Err(PullError::Packed { size, most }) } else { Ok(()) }
    }

    /// Runs `pull`, for as long as a pull may take.
    pub(crate) async fn in_time<T, E: From<PullError>>(
        &self,
        pull: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(PATIENCE, pull).await.map_err(|_late| PullError::Late)?
    }

    pub(crate) fn source(&self, repository: &Repository) -> Result<Source<'_>, PullError> {
        let (host, path) = repository.as_str().split_once('/').unwrap_or_default();
        // Docker's own registry answers under another name than images have.
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let scheme = if is_near(host, &self.near) { "http" } else { "https" };
        let not = |why: &dyn std::fmt::Display| PullError::Http(host.to_owned(), why.to_string());
        let base = format!("{scheme}://{host}/v2/{path}/");
        let base: Url = base.parse().map_err(|err| not(&err))?;
        may_ask(&base, &self.near).map_err(|why| not(&why))?;
        Ok(Source { registries: self, base, token: None })
    }
}

impl Source<'_> {
    fn host(&self) -> String {
        self.base.host_str().unwrap_or_default().to_owned()
    }

    fn is(&self, bytes: &[u8], digest: &Digest) -> Result<(), PullError> {
        match format!("sha256:{}", hex::encode(Sha256::digest(bytes))) == digest.as_str() {
            true => Ok(()),
            false => Err(PullError::OtherDigest(self.host(), digest.to_string())),
        }
    }

    async fn manifest(&mut self, digest: &Digest) -> Result<Manifest, PullError> {
        let answer = self.get(&format!("manifests/{digest}")).await?;
        let bytes = gathered(answer, MAX_MANIFEST, "its manifest").await?;
        self.is(&bytes, digest)?;
        serde_json::from_slice(&bytes).map_err(PullError::Manifest)
    }

    /// The bytes of a part, as they arrive, up to `most`. They may be others than were asked for.
    pub(crate) async fn open(
        &mut self,
        part: Part,
        digest: &Digest,
        most: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, PullError>> + Unpin + use<>, PullError> {
        let (answer, what) = match part {
            Part::Manifest => (self.get(&format!("manifests/{digest}")).await?, "its manifest"),
            Part::Blob => (self.blob(digest).await?, "what it gives for a layer"),
        };
        let (host, mut size) = (self.host(), 0_u64);
        let bytes = answer.bytes_stream().map(move |bytes| {
            let failed =
                |err: reqwest::Error| PullError::Http(host.clone(), causes(&err.without_url()));
            let bytes = bytes.map_err(failed)?;
            size += bytes.len() as u64;
            if size > most { Err(PullError::TooLarge { what, most }) } else { Ok(bytes) }
        });
        Ok(bytes.boxed())
    }

    async fn blob(&mut self, digest: &Digest) -> Result<Response, PullError> {
        self.get(&format!("blobs/{digest}")).await
    }

    async fn get(&mut self, path: &str) -> Result<Response, PullError> {
        let url = self.base.join(path).map_err(|err| self.failed(&err))?;
        let mut answer = self.ask(url.clone()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.token.is_none() {
            let wants = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
            if let Some(from) = wants.and_then(token_url) {
                may_ask(&from, &self.registries.near).map_err(|why| self.failed(&why))?;
                let given = self.ask(from).await?;
                let given = gathered(given, MAX_TOKEN, "the token for it").await?;
                let token: Token = serde_json::from_slice(&given).map_err(PullError::Manifest)?;
                self.token = Some(token.token);
                answer = self.ask(url).await?;
            }
        }
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(PullError::Answer(self.host(), answer.status())),
        }
    }

    async fn ask(&self, url: Url) -> Result<Response, PullError> {
        let mut request = self.registries.client.get(url).header(ACCEPT, MANIFESTS);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|err| self.failed(&err.without_url()))
    }

    fn failed(&self, err: &(dyn std::error::Error + 'static)) -> PullError {
        PullError::Http(self.host(), causes(err))
    }
}

/// Why an address is not asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Forbidden {
    #[error("{0} is not a public address; who provides may name it in engine.registries")]
    Private(String),
    #[error("{0} is asked without TLS; who provides may name it in engine.registries")]
    Plain(String),
}

/// Whether a host, with or without its port, is one of those that the configuration names.
fn is_near(host: &str, near: &[String]) -> bool {
    let bare = host.rsplit_once(':').map_or(host, |(bare, _port)| bare);
    near.iter().any(|near| near == host || near == bare)
}

fn may_ask(url: &Url, near: &[String]) -> Result<(), Forbidden> {
    let host = url.host_str().unwrap_or_default();
    let with_port = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    if is_near(&with_port, near) {
        return Ok(());
    }
    if url.scheme() != "https" {
        return Err(Forbidden::Plain(with_port));
    }
    // Names are looked at when they are resolved.
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match ip.is_ok_and(|ip| !is_world(ip)) {
        true => Err(Forbidden::Private(host.to_owned())),
        false => Ok(()),
    }
}

/// Resolves names to public addresses alone, those that the configuration names apart.
#[derive(Debug)]
struct World(Arc<[String]>);

impl Resolve for World {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let near = self.0.iter().any(|near| near.split(':').next() == Some(name.as_str()));
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> =
                found.filter(|address| near || is_world(address.ip())).collect();
            match found.is_empty() {
                true => Err(Forbidden::Private(name).into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// Where a token is had, as in `Bearer realm="https://auth.example.org/token",service="…",scope="…"`.
fn token_url(wants: &str) -> Option<Url> {
    let (scheme, rest) = wants.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let field = |name: &str| {
        let rest = rest.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0)
    };
    let mut url: Url = field("realm")?.parse().ok()?;
    for name in ["service", "scope"] {
        if let Some(value) = field(name) {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    Some(url)
}

/// What Go, and with it registries, call this machine's processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn choose(manifests: &[OfPlatform]) -> Result<&Digest, PullError> {
    let ours = |of: &&OfPlatform| {
        let platform = of.platform.as_ref();
        platform.is_some_and(|p| p.os == "linux" && p.architecture == architecture())
    };
    let found = manifests.iter().find(ours).map(|of| &of.digest);
    found.ok_or(PullError::Platform(architecture()))
}

/// The body of an answer, if it is not too large.
async fn gathered(answer: Response, most: u64, what: &'static str) -> Result<Vec<u8>, PullError> {
    let host = answer.url().host_str().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    let mut body = answer.bytes_stream();
    while let Some(part) = body.next().await {
        let part =
            part.map_err(|err| PullError::Http(host.clone(), err.without_url().to_string()))?;
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > most {
            return Err(PullError::TooLarge { what, most });
        }
    }
    Ok(bytes)
}

/// Has a layer, as it comes, in the archive. Blocks.
fn unpack(
    archive: &mut Archive,
    from: impl Read,
    digest: &Digest,
    wanted: &Digest,
    most: u64,
) -> Result<(), PullError> {
    let mut packed = Packed { from, hash: Sha256::new(), count: 0, most };
    archive.packed_layer(&mut packed, wanted)?;
    match format!("sha256:{}", hex::encode(packed.hash.finalize())) == digest.as_str() {
        true => Ok(()),
        false => Err(PullError::OtherDigest("the registry".into(), digest.to_string())),
    }
}

/// A layer on its way: hashed, and bounded in size.
struct Packed<R> {
    from: R,
    hash: Sha256,
    count: u64,
    most: u64,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count += read as u64;
        if self.count > self.most {
            return Err(io::Error::other("there is more of the layer than the limit"));
        }
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_asked_in_public_and_over_tls() {
        let near = ["127.0.0.1".to_owned(), "mirror.lan:5000".to_owned()];
        let check = |url: &str, allowed: bool| {
            let said = may_ask(&url.parse().unwrap(), &near);
            assert_eq!(said.is_ok(), allowed, "{url}: {said:?}");
        };
        check("https://registry-1.docker.io/v2/", true);
        check("http://registry-1.docker.io/v2/", false);
        check("https://9.9.9.9/v2/", true);
        check("http://127.0.0.1:5000/v2/", true);
        check("http://mirror.lan:5000/v2/", true);
        check("http://mirror.lan:5001/v2/", false);
        for private in ["127.0.0.2", "10.0.0.1", "169.254.169.254", "0.0.0.0", "[::1]", "[fe80::1]"]
        {
            check(&format!("https://{private}/v2/"), false);
        }
    }

    /// A registry at its port, with an image whose one layer comes on and on; what ends once nobody takes that any more.
    async fn endless(
        listener: tokio::net::TcpListener,
        manifest: String,
        config: String,
        flows: Arc<tokio::sync::Notify>,
    ) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let body = match (head.contains("/manifests/"), head.contains(&digest_of(&config))) {
                (true, _) => &manifest,
                (false, true) => &config,
                (false, false) => {
                    let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30);
                    let mut sent = stream.write_all(begin.as_bytes()).await;
                    // More than lies in sockets: so somebody takes it.
                    for _ in 0..16 {
                        sent = sent.and(stream.write_all(&[0; 1 << 20]).await);
                    }
                    sent.unwrap();
                    flows.notify_one();
                    while stream.write_all(&[0; 512]).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    return;
                }
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    fn digest_of(text: &str) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(text)))
    }

    #[tokio::test]
    async fn a_pull_that_is_called_off_ends_and_gives_its_turn_back() {
        let _same = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let layer = format!("sha256:{}", "a".repeat(64));
        let config = serde_json::json!({ "rootfs": { "diff_ids": [layer] } }).to_string();
        let manifest = serde_json::json!({
            "config": { "digest": digest_of(&config), "size": config.len() },
            "layers": [{ "digest": layer, "size": 1 << 30 }],
        });
        let manifest = manifest.to_string();
        let digest: Digest = digest_of(&manifest).parse().unwrap();
        let limits = ImageLimits { size: protocol::resources::Bytes(1 << 30), files: 8 };
        let registries = Registries::new(vec![host.clone()], limits, folder.path()).unwrap();
        let repository: Repository = format!("{host}/app").parse().unwrap();

        let (mut tasks, flows) = (tokio::task::JoinSet::new(), Arc::default());
        tasks.spawn(endless(listener, manifest, config, Arc::clone(&flows)));
        let pull = {
            let registries = registries.clone();
            tasks.spawn(async move { drop(registries.pull(&repository, &digest).await) })
        };
        flows.notified().await;
        assert_eq!(registries.turns.available_permits(), PULLS - 1);
        pull.abort();
        let ended = async {
            while tasks.join_next().await.is_some() {}
            let all = u32::try_from(PULLS).unwrap();
            drop(registries.turns.acquire_many(all).await.unwrap());
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    }

    #[test]
    fn where_a_token_is_had_is_read() {
        let wants = r#"Bearer realm="https://auth.example.org/token",service="r",scope="repository:a:pull""#;
        let url = token_url(wants).unwrap();
        let wanted = "https://auth.example.org/token?service=r&scope=repository%3Aa%3Apull";
        assert_eq!(url.as_str(), wanted);
        assert_eq!(token_url(r#"Basic realm="https://a""#), None);
        assert_eq!(token_url("Bearer"), None);
    }

    #[test]
    fn the_manifest_for_this_machine_is_chosen() {
        let of = |os: &str, architecture: &str, digest: char| OfPlatform {
            digest: format!("sha256:{}", digest.to_string().repeat(64)).parse().unwrap(),
            platform: Some(Platform { architecture: architecture.into(), os: os.into() }),
        };
        let all = [of("windows", architecture(), 'a'), of("linux", "s390x", 'b')];
        assert!(matches!(choose(&all), Err(PullError::Platform(_))));
        let all = [of("linux", "s390x", 'b'), of("linux", architecture(), 'c')];
        assert!(choose(&all).unwrap().as_str().ends_with('c'));
    }
}
