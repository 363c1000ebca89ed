//! Registries of images: one that serves whatever a story has it serve, and Docker's own.

use std::{
    collections::HashMap,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, read::GzEncoder};
use sha2::{Digest as _, Sha256};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
};

use crate::{anvil::free_port, docker::Docker, wait::until};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

type Contents = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// A registry on a port of its own. Docker takes one on 127.0.0.1 without TLS.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    /// Manifests and blobs by digest, and manifests by tag.
    contents: Contents,
    _tasks: JoinSet<()>,
}

impl Registry {
    /// Starts an empty one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let contents = Contents::default();
        let routes = Router::new()
            .route("/v2/", get(|| async { "{}" }))
            .route("/v2/{name}/manifests/{reference}", get(manifest))
            .route("/v2/{name}/blobs/{digest}", get(blob))
            .with_state(Arc::clone(&contents));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // It ends with the story.
            let _served = axum::serve(listener, routes).await;
        });
        Ok(Self { address, contents, _tasks: tasks })
    }

    /// The name of its repository `name`.
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Takes an image in under a tag; the digest of its manifest.
    ///
    /// # Errors
    /// When the engine does not have it.
    pub async fn add(&self, docker: &Docker, image: &str, tag: &str) -> anyhow::Result<String> {
        let saved = docker.save(image).await?;
        let mut files: HashMap<String, Vec<u8>> = HashMap::new();
        for entry in tar::Archive::new(saved.as_slice()).entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(name, bytes);
        }
        let index = files.get("manifest.json").context("the image has no manifest")?;
        let index: serde_json::Value = serde_json::from_slice(index)?;
        let mut take = |name: &serde_json::Value, kind: &str| {
            let name = name.as_str().context("a part has no name")?;
            let bytes = files.remove(name).with_context(|| format!("{name} is missing"))?;
            let digest = digest(&bytes);
            let size = bytes.len();
            self.put(&digest, bytes);
            let kind = format!("application/vnd.docker.{kind}");
            anyhow::Ok(serde_json::json!({ "mediaType": kind, "size": size, "digest": digest }))
        };
        let config = take(&index[0]["Config"], "container.image.v1+json")?;
        let layers = index[0]["Layers"].as_array().context("the image has no layers")?;
        let layers = layers.iter().map(|name| take(name, "image.rootfs.diff.tar"));
        let layers: Vec<_> = layers.collect::<anyhow::Result<_>>()?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest)?;
        let digest = digest(&manifest);
        self.put(tag, manifest.clone());
        self.put(&digest, manifest);
        Ok(digest)
    }

    /// Takes an image in that is one file of so many MiB of nothing, packed; the digest of its manifest.
    ///
    /// # Errors
    /// When it cannot be packed.
    pub fn add_bomb(&self, mib: u64) -> anyhow::Result<String> {
        let mut header = tar::Header::new_gnu();
        header.set_path("nothing")?;
        header.set_size(mib << 20);
        header.set_cksum();
        let end = 1_024;
        let tar = || header.as_bytes().chain(std::io::repeat(0).take((mib << 20) + end));
        let mut hash = Sha256::new();
        std::io::copy(&mut tar(), &mut hash)?;
        let mut packed = Vec::new();
        GzEncoder::new(tar(), Compression::best()).read_to_end(&mut packed)?;
        let diff = format!("sha256:{}", hex::encode(hash.finalize()));
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [diff] },
        });
        let config = serde_json::to_vec(&config)?;
        let layer = serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size": packed.len(), "digest": digest(&packed),
        });
        self.put(&digest(&packed), packed);
        let id = digest(&config);
        self.put(&id, config);
        self.name(&id, &[layer])
    }

    /// Says that there is an image `id`, of these layers, without having it; the digest of the manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn name(&self, id: &str, layers: &[serde_json::Value]) -> anyhow::Result<String> {
        let kind = "application/vnd.docker.container.image.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": { "mediaType": kind, "size": 1_000, "digest": id },
        });
        let manifest = serde_json::to_vec(&manifest)?;
        let digest = digest(&manifest);
        self.put(&digest, manifest);
        Ok(digest)
    }

    /// Answers with the manifest `digest` where `wrong` is asked for.
    pub fn pretend(&self, wrong: &str, digest: &str) {
        let manifest = lock(&self.contents).get(digest).cloned().unwrap_or_default();
        self.put(wrong, manifest);
    }

    /// Has only the configuration of an image and the manifest `digest`, which names it, and none of its layers.
    ///
    /// # Errors
    /// When it does not have the manifest.
    pub fn lose_layers(&self, digest: &str) -> anyhow::Result<()> {
        let mut contents = lock(&self.contents);
        let manifest = contents.get(digest).context("the manifest is not here")?;
        let manifest: serde_json::Value = serde_json::from_slice(manifest)?;
        for layer in manifest["layers"].as_array().context("it has no layers")? {
            contents.remove(layer["digest"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        lock(&self.contents).insert(name.to_owned(), bytes);
    }
}

fn lock(contents: &Contents) -> std::sync::MutexGuard<'_, HashMap<String, Vec<u8>>> {
    contents.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn manifest(
    State(contents): State<Contents>,
    Path((_name, reference)): Path<(String, String)>,
) -> Response {
    match lock(&contents).get(&reference) {
        Some(bytes) => {
            let digest = digest(bytes);
            let headers = [
                (header::CONTENT_TYPE.as_str(), MANIFEST),
                ("docker-content-digest", digest.as_str()),
            ];
            (headers, bytes.clone()).into_response()
        }
        None => {
            let error = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (StatusCode::NOT_FOUND, kind, error).into_response()
        }
    }
}

async fn blob(
    State(contents): State<Contents>,
    Path((_name, digest)): Path<(String, String)>,
) -> Response {
    match lock(&contents).get(&digest) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The registry that Docker's project has written (Debian's `docker-registry`), which takes uploads, on a port of its own.
#[derive(Debug)]
pub struct DockerRegistry {
    address: SocketAddr,
    _child: Child,
}

impl DockerRegistry {
    /// Starts an empty one, whose files are in `folder`.
    ///
    /// # Errors
    /// When it does not come to answer.
    pub async fn start(folder: &std::path::Path) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let config = folder.join("registry.yml");
        std::fs::write(&config, "version: 0.1\nstorage: { filesystem: {} }\nhttp: {}\n")?;
        let log = std::fs::File::create(folder.join("registry.log"))?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .env("REGISTRY_HTTP_ADDR", address.to_string())
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder.join("registry"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("docker-registry cannot be run; `make setup` brings it")?;
        until("the registry answers", async || {
            let answer = reqwest::get(format!("http://{address}/v2/")).await?;
            Ok(answer.status().is_success().then_some(()))
        })
        .await?;
        Ok(Self { address, _child: child })
    }

    /// The name of its repository `name`.
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}
