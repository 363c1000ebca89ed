//! Encrypted images: their ciphertext is had like any other blob, and decrypted into the engine with a key that is asked for
//! at each start. The engine never pulls ciphertext.
//!
//! What is read comes from whoever pushed it or from a registry that a publisher names. All of it is checked against the
//! digests that the pod names before it is looked at, is bounded in size, and is checked once more, plain, before the
//! engine has it: layers are gone through as those of any other image. Until then they are in a file without a name. The key
//! is in memory only, until the last image of the start is decrypted and loaded.

use std::{collections::BTreeMap, io, sync::Arc};

use alloy::primitives::Address;
use protocol::pod::{Digest, ImageRef, Label, Pod, PodHash, Repository};
use seal::{AppKey, image};

use crate::{
    blobs::{BlobError, Blobs},
    causes,
    engine::{DecryptedName, EngineError, Image},
    leases::Lease,
    reconcile::{JobError, Shared},
    registry::{Part, PullError},
    screen::{ImageConfig, ScreenError},
    wire::Phase,
};

/// What the status of a start says that waits.
const WAITS: &str = "it waits for its app's key: send it with `roadstead unlock`";

/// The images of a pod, in the engine.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) all: BTreeMap<Label, Image>,
    /// Keeps what was decrypted from being removed before a container is made of it.
    _names: Vec<DecryptedName>,
}

/// An encrypted image of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encrypted<'a> {
    manifest: &'a Digest,
    plain: &'a Digest,
    reference: Option<&'a Repository>,
}

impl<'a> Encrypted<'a> {
    fn of(image: &'a ImageRef) -> Option<Self> {
        match image {
            ImageRef::Encrypted { manifest, plain, reference } => {
                Some(Self { manifest, plain, reference: reference.as_ref() })
            }
            ImageRef::Pushed { .. } | ImageRef::Registry { .. } => None,
        }
    }
}

/// Why what is encrypted was not had out of a registry.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// The blobs of one wallet, as the decryption reads them.
#[derive(Debug, Clone)]
struct Ciphertext {
    blobs: Blobs,
    wallet: Address,
}

impl image::Blobs for Ciphertext {
    fn open(&self, digest: &image::Digest) -> io::Result<Box<dyn io::Read + '_>> {
        let digest = digest.to_string().parse().map_err(io::Error::other)?;
        let file = self.blobs.used(self.wallet, &digest).map_err(io::Error::other)?;
        Ok(Box::new(file))
    }
}

/// The manifests of the encrypted images of `pod` whose ciphertext is pushed, each once.
pub(crate) fn pushed_encrypted(pod: &Pod) -> Vec<&Digest> {
    let images = pod.services().values().filter_map(|service| Encrypted::of(&service.image));
    let mut pushed: Vec<&Digest> =
        images.filter(|image| image.reference.is_none()).map(|image| image.manifest).collect();
    pushed.sort_unstable();
    pushed.dedup();
    pushed
}

/// Whether a pod has an image that only a key opens.
pub(crate) fn is_encrypted(pod: &Pod) -> bool {
    pod.services().values().any(|service| Encrypted::of(&service.image).is_some())
}

impl Shared {
    /// Has the images of a lease's pod in the engine. Where one is encrypted and its service has no container yet, this
    /// waits for the key of the pod's app.
    pub(crate) async fn images(
        &self,
        lease: &Lease,
        hash: PodHash,
        pod: &Pod,
    ) -> Result<Images, JobError> {
        self.may_use(lease.payer, pod)?;
        let mut all = self.engine.images(pod).await?;
        if !is_encrypted(pod) {
            return Ok(Images { all, _names: Vec::new() });
        }
        let found = self.engine.pods().await?.remove(&lease.key).unwrap_or_default().of(hash);
        let mut locked: Vec<(Encrypted<'_>, Vec<&Label>)> = Vec::new();
        for (name, service) in pod.services() {
            let Some(image) = Encrypted::of(&service.image) else { continue };
            // What a key of this lease's opened already.
            if let Some(container) = found.get(name.as_str()) {
                all.insert(name.clone(), self.engine.image_of(container).await?);
                continue;
            }
            match locked.iter_mut().find(|(known, _)| *known == image) {
                Some((_, services)) => services.push(name),
                None => locked.push((image, vec![name])),
            }
        }
        let mut names = Vec::new();
        if !locked.is_empty() {
            let mut manifests = Vec::new();
            for (image, _) in &locked {
                manifests.push(self.ciphertext(lease.payer, image).await?);
            }
            self.statuses.set(lease.key, Phase::Locked, Some(WAITS.into()));
            let key = tokio::select! {
                key = self.unlocks.wait(lease.key, hash, manifests.clone()) => Arc::new(key),
                () = self.changed(lease) => return Err(JobError::Changed),
            };
            self.statuses.set(lease.key, Phase::Fetching, None);
            for ((image, services), manifest) in locked.into_iter().zip(manifests) {
                let name = self.engine.decrypted_name(lease.key, hash);
                let key = Arc::clone(&key);
                let opened = self.decrypt(lease.payer, manifest, image.plain, key, &name).await?;
                all.extend(services.into_iter().map(|label| (label.clone(), opened.clone())));
                names.push(name);
            }
        }
        Ok(Images { all, _names: names })
    }

    /// Makes what is encrypted of open leases' images young again: their next start needs it, whenever that is.
    pub(crate) fn touch_encrypted(&self) {
        let snapshot = Arc::clone(&self.seen.borrow());
        for lease in snapshot.leases.values().filter(|lease| !lease.over) {
            for (_account, hash) in lease.pods() {
                let Ok(pod) = self.pods.get(hash) else { continue };
                for image in pod.services().values().filter_map(|s| Encrypted::of(&s.image)) {
                    // One that is not here whole is pushed or pulled again by the start.
                    drop(self.blobs.encrypted(lease.payer, image.manifest));
                }
            }
        }
    }

    /// Returns once a lease is to run another pod, or is gone.
    async fn changed(&self, lease: &Lease) {
        let mut seen = self.seen.subscribe();
        let changed = seen.wait_for(|snapshot| {
            snapshot.leases.get(&lease.key).is_none_or(|now| now.pod != lease.pod)
        });
        if changed.await.is_err() {
            // Nothing is seen any more: the provider stops, and with it this job.
            std::future::pending().await
        }
    }

    /// Has all that is encrypted of an image here, as a blob of the payer's; its manifest.
    async fn ciphertext(&self, payer: Address, image: &Encrypted<'_>) -> Result<Vec<u8>, JobError> {
        let Encrypted { manifest, reference, .. } = image;
        if let Ok(bytes) = self.blobs.encrypted(payer, manifest) {
            return Ok(bytes);
        }
        let Some(reference) = reference else {
            return Err(EngineError::NotPushed(manifest.to_string()).into());
        };
        let registries = self.engine.registries();
        let _turn = registries.turn().await?;
        let fetched = registries.in_time(self.fetch(payer, manifest, reference)).await;
        Ok(fetched.map_err(|err| {
            let (image, why) = (format!("{reference}@{manifest}"), causes(&err));
            EngineError::Image { image, why }
        })?)
    }

    /// Has all that is encrypted of an image out of a registry; its manifest.
    async fn fetch(
        &self,
        payer: Address,
        manifest: &Digest,
        reference: &Repository,
    ) -> Result<Vec<u8>, FetchError> {
        let registries = self.engine.registries();
        let mut source = registries.source(reference)?;
        let mut fetch = async |part: Part, digest: &Digest, most: u64| {
            if !self.blobs.has(payer, digest) {
                let body = source.open(part, digest, most).await?;
                self.blobs.put(payer, digest, body).await?;
            }
            Ok::<_, FetchError>(())
        };
        fetch(Part::Manifest, manifest, image::MAX_MANIFEST).await?;
        let bytes = self.blobs.manifest(payer, manifest)?;
        let parts = Blobs::parts(manifest, &bytes)?;
        registries.bound(parts.iter().map(|(_, size)| *size))?;
        for (part, size) in parts {
            fetch(Part::Blob, &part, size).await?;
        }
        Ok(bytes)
    }

    /// Decrypts an image, goes through it layer by layer, and gives it to the engine.
    async fn decrypt(
        &self,
        payer: Address,
        manifest: Vec<u8>,
        plain: &Digest,
        key: Arc<AppKey>,
        name: &DecryptedName,
    ) -> Result<Image, JobError> {
        let blobs = Ciphertext { blobs: self.blobs.clone(), wallet: payer };
        let wanted: image::Digest = plain.as_str().parse().map_err(io::Error::other)?;
        let (tag, labels) = (name.as_str().to_owned(), name.labels());
        let turn = self.engine.registries().turn().await?;
        // Where the start is called off, no thread goes on decrypting.
        let _awaited = turn.awaited();
        let mut archive = self.engine.registries().archive(turn)?;
        let decrypted = tokio::task::spawn_blocking(move || {
            let opened = image::open(&manifest, &blobs, &key, &wanted)?;
            drop(key);
            let config = opened.labelled(&labels)?;
            let diffs = ImageConfig::read(&config)?.layers;
            let layers = opened.layers();
            if diffs.len() != layers.len() {
                return Err(ScreenError::Layers { got: layers.len(), wanted: diffs.len() }.into());
            }
            for (layer, diff) in layers.zip(&diffs) {
                archive.packed_layer(layer?, diff)?;
            }
            Ok::<_, JobError>(archive.finish(&config, &[&tag])?)
        });
        let archive = decrypted.await.map_err(io::Error::other)??;
        Ok(self.engine.load_decrypted(name, archive).await?)
    }
}

impl Blobs {
    /// The manifest of an encrypted image of which `wallet` has every part here.
    pub(crate) fn encrypted(
        &self,
        wallet: Address,
        manifest: &Digest,
    ) -> Result<Vec<u8>, BlobError> {
        let bytes = self.manifest(wallet, manifest)?;
        for (part, _) in Self::parts(manifest, &bytes)? {
            drop(self.used(wallet, &part)?);
        }
        Ok(bytes)
    }

    /// Gives `to` each part of an encrypted image of which `from` has all.
    pub(crate) fn give(
        &self,
        from: Address,
        to: Address,
        manifest: &Digest,
    ) -> Result<(), BlobError> {
        let bytes = self.manifest(from, manifest)?;
        for (part, _) in Self::parts(manifest, &bytes)? {
            self.link(from, to, &part)?;
        }
        Ok(self.link(from, to, manifest)?)
    }

    fn manifest(&self, wallet: Address, manifest: &Digest) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let file = self.used(wallet, manifest)?;
        io::Read::read_to_end(&mut io::Read::take(file, image::MAX_MANIFEST), &mut bytes)?;
        Ok(bytes)
    }

    /// What a manifest names, with its sizes in bytes.
    fn parts(manifest: &Digest, bytes: &[u8]) -> Result<Vec<(Digest, u64)>, BlobError> {
        let parts = image::parts(bytes);
        let parts = parts.map_err(|err| BlobError::Manifest(manifest.to_string(), err))?;
        let digest = |part: image::Digest| Self::digest(&part.to_string());
        parts.into_iter().map(|(part, size)| Ok((digest(part)?, size))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::config::ImageLimits;

    #[tokio::test]
    async fn what_a_lease_needs_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), 1 << 20, ImageLimits::default()).unwrap();
        let wallet = Address::repeat_byte(1);
        let put = async |text: &str| {
            let digest = format!("sha256:{}", hex::encode(Sha256::digest(text)));
            let digest = Blobs::digest(&digest).unwrap();
            let body =
                futures::stream::iter([Ok::<_, io::Error>(bytes::Bytes::from(text.to_owned()))]);
            blobs.put(wallet, &digest, body).await.unwrap();
            digest
        };
        let (config, layer) = (put("configuration").await, put("a layer").await);
        let of = |kind: &str, digest: &Digest, size: usize| {
            let kind = format!("application/vnd.oci.image.{kind}");
            serde_json::json!({ "mediaType": kind, "digest": digest.as_str(), "size": size })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": of("config.v1+json", &config, 13),
            "layers": [of("layer.v1.tar", &layer, 7)],
        });
        let manifest = put(&manifest.to_string()).await;
        let other = put("of no lease").await;
        let old = SystemTime::now() - Duration::from_secs(8 * 86_400);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let file = std::fs::File::options().append(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(old).unwrap();
        }
        blobs.encrypted(wallet, &manifest).unwrap();
        blobs.expire().unwrap();
        for kept in [&manifest, &config, &layer] {
            assert!(blobs.has(wallet, kept), "{kept}");
        }
        assert!(!blobs.has(wallet, &other));
    }
}
