//! Blobs that publishers push: an image's configuration and its layers, each under the SHA-256 of its bytes.
//!
//! Any wallet that is signed in may push. The worst of them fills the store: its size is bounded, a blob that is
//! not what its name says is refused while it arrives, and what was used longest ago makes room. A blob is there for the
//! wallet that pushed it alone: to know another one's digest is not to have what is in it. Images are put together from
//! them a few at a time; who has that done again and again keeps other pushes waiting, and no image that a lease needs.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use alloy::primitives::Address;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use protocol::pod::Digest;
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt, sync::Semaphore};

use crate::{
    config::ImageLimits,
    screen::{Archive, ImageConfig, Loadable, MAX_CONFIG, ScreenError, Turn},
};

/// The largest blob.
pub(crate) const MAX_BLOB: u64 = 4 << 30;

/// For how long a blob is kept that no image was made of: the next version of an image shares most of its layers.
const BLOB_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// How many images are put together at a time: each may take its limit of the disk once more meanwhile. Apart from those that
/// leases need, as no lease has to be paid for to push one.
const LOADS: usize = 2;

/// What the names of unfinished uploads begin with.
const DRAFT: &str = "push-";

/// A blob that was not stored, or parts that make no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("{0:?} is not a digest of the form sha256:<64 hexadecimal digits>")]
    NotDigest(String),
    #[error("the blob's digest is {got}, not {wanted}")]
    WrongDigest { got: String, wanted: String },
    #[error("the blob is larger than the {0} bytes that are left for pushed images")]
    TooLarge(u64),
    #[error("blob {0} was not pushed")]
    Missing(String),
    #[error("image {id} has the layers {wanted:?}, the request names {got:?}")]
    WrongLayers { id: String, wanted: Vec<String>, got: Vec<String> },
    #[error("image {0} is refused")]
    Refused(String, #[source] ScreenError),
    #[error("{0} is no manifest of an image")]
    Manifest(String, #[source] seal::image::ImageError),
    #[error("the upload broke off")]
    Upload(#[source] axum::BoxError),
    #[error("the blob store failed")]
    Io(#[from] io::Error),
}

/// A folder of blobs.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    dir: PathBuf,
    limit: u64,
    images: ImageLimits,
    turns: Arc<Semaphore>,
}

impl Blobs {
    /// The store in `dir`, of at most `limit` bytes, for images within these limits.
    pub(crate) fn open(dir: &Path, limit: u64, images: ImageLimits) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), limit, images, turns: Arc::new(Semaphore::new(LOADS)) })
    }

    /// `sha256:<hex>`, checked, so that it can be part of a path.
    pub(crate) fn digest(text: &str) -> Result<Digest, BlobError> {
        text.parse().map_err(|_err| BlobError::NotDigest(text.to_owned()))
    }

    fn path(&self, wallet: Address, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}-{}", hex::encode(wallet), hex_of(digest)))
    }

    /// Whether `wallet` has the blob here.
    pub(crate) fn has(&self, wallet: Address, digest: &Digest) -> bool {
        self.path(wallet, digest).exists()
    }

    /// Stores what `body` brings, if it is what `digest` says.
    pub(crate) async fn put(
        &self,
        wallet: Address,
        digest: &Digest,
        mut body: impl Stream<Item = Result<Bytes, impl Into<axum::BoxError>>> + Unpin,
    ) -> Result<(), BlobError> {
        self.make_room()?;
        let room = self.limit.saturating_sub(self.size()?).min(MAX_BLOB);
        let (file, path) =
            tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.dir)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|err| BlobError::Upload(err.into()))?;
            size += chunk.len() as u64;
            if size > room {
                return Err(BlobError::TooLarge(room));
            }
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.sync_all().await?;
        let got = format!("sha256:{}", hex::encode(hash.finalize()));
        let wanted = digest.to_string();
        if got != wanted {
            return Err(BlobError::WrongDigest { got, wanted });
        }
        path.persist(self.path(wallet, digest)).map_err(|err| err.error)?;
        Ok(())
    }

    /// Waits until one more image may be put together, which takes its limit of the disk until this is dropped.
    pub(crate) async fn turn(&self) -> io::Result<Turn> {
        Turn::of(&self.turns).await
    }

    /// The image `id` out of its parts, as an engine loads it. Blocks.
    pub(crate) fn archive(
        &self,
        turn: Turn,
        wallet: Address,
        id: &Digest,
        layers: &[String],
    ) -> Result<Loadable, BlobError> {
        let refused = |err| BlobError::Refused(id.to_string(), err);
        let config = self.config(wallet, id)?;
        let wanted = ImageConfig::read(&config).map_err(refused)?.layers;
        if !wanted.iter().map(Digest::as_str).eq(layers.iter().map(String::as_str)) {
            let wanted = wanted.iter().map(ToString::to_string).collect();
            return Err(BlobError::WrongLayers {
                id: id.to_string(),
                wanted,
                got: layers.to_vec(),
            });
        }
        let mut archive = Archive::new(&self.dir, self.images, turn)?;
        for layer in &wanted {
            archive.layer(self.used(wallet, layer)?, layer).map_err(refused)?;
        }
        Ok(archive.finish(&config, &[])?)
    }

    fn config(&self, wallet: Address, id: &Digest) -> Result<Vec<u8>, BlobError> {
        let mut config = Vec::new();
        self.used(wallet, id)?.take(MAX_CONFIG).read_to_end(&mut config)?;
        Ok(config)
    }

    /// Has `to` have a blob of `from`'s, too.
    pub(crate) fn link(&self, from: Address, to: Address, digest: &Digest) -> io::Result<()> {
        match std::fs::hard_link(self.path(from, digest), self.path(to, digest)) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => Err(err),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A blob, which is young again from now on.
    pub(crate) fn used(
        &self,
        wallet: Address,
        digest: &Digest,
    ) -> Result<std::fs::File, BlobError> {
        let missing = |_err| BlobError::Missing(digest.to_string());
        let path = self.path(wallet, digest);
        let file =
            std::fs::OpenOptions::new().read(true).append(true).open(path).map_err(missing)?;
        file.set_modified(SystemTime::now())?;
        Ok(file)
    }

    /// Removes what was used longest ago until half of the store is free.
    fn make_room(&self) -> io::Result<()> {
        let mut blobs = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if !entry.file_name().to_string_lossy().starts_with(DRAFT) {
                blobs.push((meta.modified()?, meta.len(), entry.path()));
            }
        }
        blobs.sort();
        let mut size = self.size()?;
        for (_, length, path) in blobs {
            if size <= self.limit / 2 {
                break;
            }
            std::fs::remove_file(path)?;
            size = size.saturating_sub(length);
        }
        Ok(())
    }

    /// Removes blobs, and uploads that broke off, that have not been used for too long.
    pub(crate) fn expire(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > BLOB_LIFE {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        std::fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
    }
}

fn hex_of(digest: &Digest) -> &str {
    digest.as_str().trim_start_matches("sha256:")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(blobs: &Blobs, wallet: Address, text: &str) -> Digest {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(text)));
        let digest = Blobs::digest(&digest).unwrap();
        let body = futures::stream::iter([Ok::<_, io::Error>(Bytes::from(text.to_owned()))]);
        blobs.put(wallet, &digest, body).await.unwrap();
        digest
    }

    #[tokio::test]
    async fn a_blob_is_its_wallets_alone_and_must_be_what_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), 1_000, ImageLimits::default()).unwrap();
        let (one, two) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let digest = put(&blobs, one, "layer").await;
        assert!(blobs.has(one, &digest));
        assert!(!blobs.has(two, &digest));
        assert!(matches!(blobs.used(two, &digest), Err(BlobError::Missing(_))));
        let other = futures::stream::iter([Ok::<_, io::Error>(Bytes::from("another"))]);
        let err = blobs.put(two, &digest, other).await.unwrap_err();
        assert!(matches!(err, BlobError::WrongDigest { .. }), "{err}");
        assert!(!blobs.has(two, &digest));
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), 100, ImageLimits::default()).unwrap();
        let wallet = Address::repeat_byte(1);
        let old = put(&blobs, wallet, &"a".repeat(40)).await;
        let young = put(&blobs, wallet, &"b".repeat(40)).await;
        blobs.used(wallet, &old).unwrap();
        let new = put(&blobs, wallet, &"c".repeat(40)).await;
        assert!(blobs.has(wallet, &old) && blobs.has(wallet, &new));
        assert!(!blobs.has(wallet, &young));
        let large = futures::stream::iter([Ok::<_, io::Error>(Bytes::from("d".repeat(200)))]);
        let err = blobs.put(wallet, &old, large).await.unwrap_err();
        assert!(matches!(err, BlobError::TooLarge(_)), "{err}");
    }
}
