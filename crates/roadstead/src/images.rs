//! Images that were built here: out of Docker, and to the provider, layer by layer.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ::provider::wire::ImageParts;
use anyhow::{Context as _, anyhow, bail, ensure};
use bollard::{Docker, models::ImageInspect};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::{
    client::Client,
    output,
    progress::{Progress, Step},
};

/// How much of a layer is read at once.
const CHUNK: usize = 256 << 10;

/// An image's configuration and an archive's manifest are small JSON documents.
const MAX_JSON: u64 = 1 << 20;

/// The Docker engine of this machine, or of `DOCKER_HOST`.
pub(crate) async fn docker() -> anyhow::Result<Docker> {
    let docker = Docker::connect_with_defaults().context("Docker cannot be used")?;
    docker.negotiate_version().await.map_err(|err| {
        let said = output::causes(&anyhow::Error::from(err));
        if said.contains("Permission denied") {
            anyhow!("Docker on this machine is root's and the docker group's; join it (`sudo usermod -aG docker $USER`, then log in again), or be root")
        } else {
            anyhow!("Docker does not answer on this machine: {said}")
        }
    })
}

/// An image, if Docker has it.
pub(crate) async fn inspect(docker: &Docker, name: &str) -> anyhow::Result<Option<ImageInspect>> {
    match docker.inspect_image(name).await {
        Ok(image) => Ok(Some(image)),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(err) => Err(err).context("Docker does not answer on this machine"),
    }
}

/// The digest of an image's configuration.
pub(crate) async fn config_digest(docker: &Docker, image: &ImageInspect) -> anyhow::Result<String> {
    let id = image.id.clone().context("Docker gives an image no id")?;
    // The containerd store names an image after its manifest, the classic one after its configuration.
    match image.descriptor {
        Some(_) => Ok(Archive::export(docker, &id).await?.config.digest),
        None => Ok(id),
    }
}

/// Sends those parts of image `id` that the provider lacks, and has it make the image of them.
pub(crate) async fn push(
    docker: &Docker,
    client: &Client,
    id: &str,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let archive = Archive::find(docker, id).await?;
    send(client, archive.blobs().into_iter(), id, progress).await?;
    progress.step(&Step::Loading(short(id).to_owned()));
    let layers = archive.layers.iter().map(|layer| layer.digest.clone()).collect();
    client.put_image(id, &ImageParts { layers }).await?;
    Ok(())
}

/// Sends those blobs of image `id` that the provider lacks.
pub(crate) async fn send(
    client: &Client,
    blobs: impl Iterator<Item = &Blob>,
    id: &str,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let (mut missing, mut of) = (Vec::new(), 0);
    for blob in blobs {
        of += usize::from(blob.is_layer);
        if !client.has_blob(&blob.digest).await? {
            missing.push(blob);
        }
    }
    let total: u64 = missing.iter().map(|blob| blob.size).sum();
    let layers = missing.iter().filter(|blob| blob.is_layer).count();
    let what = format!("{layers} of {of} layers of image {}", short(id));
    let mut before = 0;
    for blob in missing {
        let sent = Arc::new(AtomicU64::new(0));
        let put = client.put_blob(&blob.digest, blob.size, || blob.stream(&sent));
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
        tokio::pin!(put);
        loop {
            tokio::select! {
                done = &mut put => {
                    done.with_context(|| format!("{} could not be sent", blob.digest))?;
                    break;
                }
                _ = tick.tick() => {
                    // Never all of it before the last is through.
                    let sent = before + sent.load(Ordering::Relaxed);
                    let sent = sent.min(total.saturating_sub(1));
                    progress.step(&Step::Pushing { what: what.clone(), sent, total });
                }
            }
        }
        before += blob.size;
    }
    progress.step(&Step::Pushing { what, sent: total, total });
    Ok(())
}

/// An image as Docker saves it.
pub(crate) async fn save(docker: &Docker, id: &str) -> anyhow::Result<NamedTempFile> {
    let saved = || format!("image {id} could not be saved from Docker");
    let file = NamedTempFile::new().with_context(saved)?;
    let mut to = tokio::fs::File::from_std(file.reopen().with_context(saved)?);
    let mut chunks = std::pin::pin!(docker.export_image(id));
    while let Some(chunk) = chunks.next().await {
        to.write_all(&chunk.with_context(saved)?).await.with_context(saved)?;
    }
    to.flush().await.with_context(saved)?;
    Ok(file)
}

/// The part of a digest that people recognise.
fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// An image that was saved from Docker.
#[derive(Debug)]
struct Archive {
    config: Blob,
    /// Lowest first, as they are in the image: one may come twice.
    layers: Vec<Blob>,
}

/// A part of a file, under the SHA-256 of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    digest: String,
    file: Arc<Source>,
    offset: u64,
    size: u64,
    is_layer: bool,
}

/// Where a part is.
#[derive(Debug)]
enum Source {
    /// In a file that goes when nobody needs it any more.
    Passing(NamedTempFile),
    /// In one that stays.
    Kept(PathBuf),
}

impl Source {
    fn reopen(&self) -> std::io::Result<File> {
        match self {
            Self::Passing(file) => file.reopen(),
            Self::Kept(path) => File::open(path),
        }
    }
}

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Where a file of the archive is, and where it says that it is.
enum Entry {
    File { offset: u64, size: u64 },
    Link(String),
}

impl Archive {
    /// The image with the configuration `id`.
    async fn find(docker: &Docker, id: &str) -> anyhow::Result<Self> {
        if inspect(docker, id).await?.is_some() {
            let archive = Self::export(docker, id).await?;
            let got = &archive.config.digest;
            ensure!(got == id, "Docker saves image {id} as {got}");
            return Ok(archive);
        }
        // The containerd store knows no image by its configuration: look through those that it has.
        let options = bollard::query_parameters::ListImagesOptionsBuilder::new().build();
        for image in docker.list_images(Some(options)).await? {
            if image.descriptor.is_some() {
                let archive = Self::export(docker, &image.id).await?;
                if archive.config.digest == id {
                    return Ok(archive);
                }
            }
        }
        bail!("Docker on this machine no longer has image {id}; build it again, then deploy again")
    }

    async fn export(docker: &Docker, id: &str) -> anyhow::Result<Self> {
        let file = save(docker, id).await?;
        let read = tokio::task::spawn_blocking(move || Self::read(file)).await?;
        read.with_context(|| format!("what Docker saves of image {id} cannot be read"))
    }

    /// Finds the parts in an archive; blocks.
    fn read(file: NamedTempFile) -> anyhow::Result<Self> {
        let file = Arc::new(Source::Passing(file));
        let entries = entries(&file)?;
        let [saved] =
            serde_json::from_slice::<[Saved; 1]>(&small(&file, &entries, "manifest.json")?)
                .context("manifest.json does not name one image")?;
        let config = small(&file, &entries, &saved.config)?;
        let parsed: Config =
            serde_json::from_slice(&config).context("its configuration cannot be read")?;
        let wanted = parsed.rootfs.diff_ids;
        ensure!(
            wanted.len() == saved.layers.len(),
            "its configuration has {} layers, the archive {}",
            wanted.len(),
            saved.layers.len()
        );
        let mut layers = Vec::with_capacity(wanted.len());
        for (digest, name) in wanted.into_iter().zip(&saved.layers) {
            let (offset, size) = locate(&entries, name)?;
            let file = file.clone();
            layers.push(plain(Blob { digest, file, offset, size, is_layer: true })?);
        }
        let (offset, size) = locate(&entries, &saved.config)?;
        let digest = sha256(&config);
        Ok(Self { config: Blob { digest, file, offset, size, is_layer: false }, layers })
    }

    /// All parts, each once.
    fn blobs(&self) -> Vec<&Blob> {
        let blobs = self.layers.iter().chain([&self.config]);
        let mut once: Vec<&Blob> = Vec::new();
        for blob in blobs {
            if !once.iter().any(|known| known.digest == blob.digest) {
                once.push(blob);
            }
        }
        once
    }
}

impl Blob {
    /// A file that is a part of an encrypted image.
    pub(crate) fn file(digest: String, path: PathBuf, size: u64, is_layer: bool) -> Self {
        Self { digest, file: Arc::new(Source::Kept(path)), offset: 0, size, is_layer }
    }

    /// Its bytes; `sent` counts them.
    fn stream(
        &self,
        sent: &Arc<AtomicU64>,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        let (file, offset, size, sent) = (self.file.clone(), self.offset, self.size, sent.clone());
        sent.store(0, Ordering::Relaxed);
        let opened = async move {
            let mut opened = tokio::fs::File::from_std(file.reopen()?);
            opened.seek(SeekFrom::Start(offset)).await?;
            std::io::Result::Ok(opened.take(size))
        };
        futures::stream::once(opened)
            .map(|opened| match opened {
                Ok(file) => tokio_util::io::ReaderStream::with_capacity(file, CHUNK).left_stream(),
                Err(err) => futures::stream::iter([Err(err)]).right_stream(),
            })
            .flatten()
            .inspect(move |chunk| {
                let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                sent.fetch_add(length, Ordering::Relaxed);
            })
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn entries(file: &Source) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut tar = tar::Archive::new(file.reopen()?);
    let mut entries = BTreeMap::new();
    for entry in tar.entries_with_seek()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let found = match entry.link_name()? {
            Some(target) if entry.header().entry_type().is_symlink() => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Entry::Link(join(folder, &target.to_string_lossy()))
            }
            Some(target) => Entry::Link(target.to_string_lossy().into_owned()),
            None => Entry::File { offset: entry.raw_file_position(), size: entry.size() },
        };
        entries.insert(path, found);
    }
    Ok(entries)
}

/// `../<id>/layer.tar` as seen from a folder of the archive.
fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => (),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn locate(entries: &BTreeMap<String, Entry>, name: &str) -> anyhow::Result<(u64, u64)> {
    // Engines write a repeated layer as a link to its first; none links to a link.
    let entry = match entries.get(name) {
        Some(Entry::Link(target)) => entries.get(target),
        other => other,
    };
    match entry {
        Some(Entry::File { offset, size }) => Ok((*offset, *size)),
        Some(Entry::Link(_)) | None => bail!("{name} is not in the archive"),
    }
}

fn small(file: &Source, entries: &BTreeMap<String, Entry>, name: &str) -> anyhow::Result<Vec<u8>> {
    let (offset, size) = locate(entries, name)?;
    ensure!(size <= MAX_JSON, "{name} is {size} bytes long");
    let mut from = file.reopen()?;
    from.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    from.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The layer as its digest means it: newer engines save what they keep, which may be compressed.
fn plain(layer: Blob) -> anyhow::Result<Blob> {
    let mut from = layer.file.reopen()?;
    from.seek(SeekFrom::Start(layer.offset))?;
    let mut magic = [0_u8; 2];
    let compressed = layer.size >= 2 && {
        from.read_exact(&mut magic)?;
        magic == [0x1f, 0x8b]
    };
    if !compressed {
        return Ok(layer);
    }
    from.seek(SeekFrom::Start(layer.offset))?;
    let file = NamedTempFile::new()?;
    let mut to = file.reopen()?;
    let size =
        std::io::copy(&mut flate2::read::MultiGzDecoder::new(from.take(layer.size)), &mut to)?;
    Ok(Blob { file: Arc::new(Source::Passing(file)), offset: 0, size, ..layer })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn add(tar: &mut tar::Builder<File>, name: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).unwrap();
    }

    fn link(tar: &mut tar::Builder<File>, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }

    async fn bytes(blob: &Blob) -> Vec<u8> {
        let sent = Arc::new(AtomicU64::new(0));
        let chunks: Vec<_> = blob.stream(&sent).collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(sent.load(Ordering::Relaxed), bytes.len() as u64);
        bytes
    }

    #[tokio::test]
    async fn an_archive_is_taken_apart() {
        let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzipped.write_all(b"third layer").unwrap();
        let gzipped = gzipped.finish().unwrap();
        let digests = [sha256(b"first layer"), sha256(b"first layer"), sha256(b"third layer")];
        let config = serde_json::json!({ "rootfs": { "diff_ids": digests } }).to_string();
        let manifest = serde_json::json!([{
            "Config": "c.json", "RepoTags": [], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
        }]);

        let file = NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        add(&mut tar, "a/layer.tar", b"first layer");
        link(&mut tar, "b/layer.tar", "../a/layer.tar");
        add(&mut tar, "c/layer.tar", &gzipped);
        add(&mut tar, "c.json", config.as_bytes());
        add(&mut tar, "manifest.json", manifest.to_string().as_bytes());
        tar.finish().unwrap();

        let archive = Archive::read(file).unwrap();
        assert_eq!(archive.config.digest, sha256(config.as_bytes()));
        let layers: Vec<_> = archive.layers.iter().map(|layer| layer.digest.clone()).collect();
        assert_eq!(layers, digests);
        let blobs = archive.blobs();
        assert_eq!(blobs.len(), 3, "two layers, each once, and the configuration");
        for blob in blobs {
            let bytes = bytes(blob).await;
            assert_eq!((sha256(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
        }
    }

    #[test]
    fn a_broken_archive_is_refused() {
        let file = NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        add(&mut tar, "manifest.json", br#"[{"Config":"gone.json","Layers":[]}]"#);
        tar.finish().unwrap();
        let err = Archive::read(file).unwrap_err().to_string();
        assert!(err.contains("gone.json"), "{err}");
    }
}
