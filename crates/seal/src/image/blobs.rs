//! Where blobs are: anything that opens them by digest, and a folder in the OCI image layout.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use ring::digest;
use serde::{Deserialize, Serialize};

use super::{
    ImageError, MAX_MANIFEST,
    manifest::{Digest, Manifest},
    read_small,
};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Blobs by their digest. What is opened need not be right: every reader here checks what it reads.
pub trait Blobs {
    /// A reader of the blob.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + '_>>;
}

/// A folder in the OCI image layout (image-spec, `image-layout.md`), which skopeo calls `oci:FOLDER:NAME`.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

/// `index.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Layout {
    /// The layout in `folder`, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let layout = Self(folder.into());
        fs::create_dir_all(layout.blobs())?;
        let version = layout.0.join("oci-layout");
        if !version.exists() {
            fs::write(version, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            layout.write_index(&Index { schema_version: 2, manifests: Vec::new() })?;
        }
        Ok(layout)
    }

    /// The layout that is in `folder`.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The manifest of the image `name`, or of the only one. Its digest is checked.
    ///
    /// # Errors
    /// When there is no such image, or it is one of several platforms.
    pub fn manifest(&self, name: Option<&str>) -> Result<Vec<u8>, ImageError> {
        let index = self.index()?;
        let entry = match name {
            Some(name) => index.manifests.iter().find(|entry| entry.name() == Some(name)),
            None if index.manifests.len() == 1 => index.manifests.first(),
            None => return Err(ImageError::NotOne(index.manifests.len())),
        };
        let entry = entry.ok_or_else(|| ImageError::NoSuchName {
            wanted: name.unwrap_or_default().to_owned(),
            found: index.manifests.iter().filter_map(Entry::name).map(str::to_owned).collect(),
        })?;
        if entry.media_type != MANIFEST {
            let why = format!("it is {:?}: take the image of one platform", entry.media_type);
            return Err(ImageError::Manifest(why));
        }
        let blob = Blobs::open(self, &entry.digest);
        let blob = blob.map_err(|err| ImageError::Blob(entry.digest, err))?;
        let bytes = read_small(blob, MAX_MANIFEST, "the manifest")?;
        let got = Digest::of(&bytes);
        if got != entry.digest {
            let why = format!("it is {got}, the index says {}", entry.digest);
            return Err(ImageError::Manifest(why));
        }
        Ok(bytes)
    }

    /// The blobs that make the image `name`: its configuration and its layers, each with its size.
    ///
    /// # Errors
    /// As [`Layout::manifest`].
    pub fn parts(&self, name: Option<&str>) -> Result<Vec<(Digest, u64)>, ImageError> {
        let Manifest { config, layers, .. } = Manifest::parse(&self.manifest(name)?)?;
        Ok([config].into_iter().chain(layers).map(|part| (part.digest, part.size)).collect())
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        Ok(self.put_from(|file| file.write_all(bytes))?)
    }

    /// Stores what `write` writes. Nothing is stored when it fails.
    pub(super) fn put_from(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Digest> {
        let mut to = Hashing {
            file: tempfile::Builder::new().prefix(".part-").tempfile_in(self.blobs())?,
            hash: digest::Context::new(&digest::SHA256),
        };
        write(&mut to)?;
        let digest = Digest::from_ring(&to.hash.finish());
        to.file.as_file().sync_all()?;
        let file = to.file.persist(self.blob(&digest)).map_err(|err| err.error)?;
        readable(&file)?;
        Ok(digest)
    }

    /// Stores a manifest and names it, in the place of what had the name.
    pub(super) fn put_manifest(&self, bytes: &[u8], name: &str) -> Result<Digest, ImageError> {
        let digest = self.put(bytes)?;
        let mut index = self.index()?;
        index.manifests.retain(|entry| entry.name() != Some(name));
        index.manifests.push(Entry {
            media_type: MANIFEST.into(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::from([(REF_NAME.into(), name.into())]),
        });
        self.write_index(&index)?;
        Ok(digest)
    }

    fn index(&self) -> Result<Index, ImageError> {
        let file = File::open(self.0.join("index.json"))?;
        let bytes = read_small(file, MAX_MANIFEST, "index.json")?;
        serde_json::from_slice(&bytes)
            .map_err(|err| ImageError::Manifest(format!("index.json cannot be read: {err}")))
    }

    fn write_index(&self, index: &Index) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(&serde_json::to_vec(index).expect("an index is JSON"))?;
        readable(&file.persist(self.0.join("index.json")).map_err(|err| err.error)?)
    }

    fn blobs(&self) -> PathBuf {
        self.0.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }
}

impl Blobs for Layout {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(self.blob(digest))?))
    }
}

impl Entry {
    fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// A temporary file is its owner's; a layout is for every tool.
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

struct Hashing {
    file: tempfile::NamedTempFile,
    hash: digest::Context,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
