//! Images whose layers only the key of their app opens, in the OCI standard way.
//!
//! What is written and read is what `ocicrypt` specifies, and skopeo, containerd and CRI-O speak: media types that
//! end in `+encrypted`, AES-256 in counter mode with HMAC-SHA256 over the ciphertext, the layer's key in a JWE (RFC
//! 7516, ECDH-ES+A256KW with P-256 and A256GCM) in the annotation `org.opencontainers.image.enc.keys.jwe`. Layers are
//! encrypted, the manifest and the configuration are not: an environment variable of an image is public.
//!
//! The identity of an encrypted image is the digest of its *plain* manifest, which decryption gives back exactly. An
//! image that was encrypted anew has another digest in its registry, and is the same image.
//!
//! Everything here reads and writes blocking, a layer at a time in small pieces.

mod archive;
mod blobs;
mod cipher;
mod jwe;
mod manifest;

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use zeroize::Zeroizing;

pub use self::{
    archive::import_docker_archive,
    blobs::{Blobs, Layout},
    cipher::Tampered,
    manifest::{Digest, ParseDigestError, is_encrypted},
};
use self::{
    cipher::{LayerKey, Opening, PublicOptions},
    manifest::{Descriptor, Manifest},
};
use crate::app::{AppKey, AppPublicKey};

/// The most bytes of a manifest.
pub const MAX_MANIFEST: u64 = 4 << 20;

/// The most bytes of an image's configuration.
pub const MAX_CONFIG: u64 = 1 << 20;

/// The most layers of an image; overlay file systems take 128.
pub const MAX_LAYERS: usize = 127;

/// The most wrapped keys of a layer that are tried.
const MAX_WRAPS: usize = 8;

/// Why an image was not encrypted, decrypted or trusted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No manifest of one image.
    #[error("this is no manifest of an OCI image that can be encrypted: {0}")]
    Manifest(String),
    /// The layout names other images.
    #[error("the layout holds no image named {wanted:?}, only {}", .found.join(", "))]
    NoSuchName {
        /// What was asked for.
        wanted: String,
        /// What is there.
        found: Vec<String>,
    },
    /// More or less than one image.
    #[error("the layout holds {0} images: name one")]
    NotOne(usize),
    /// Larger than what is read into memory.
    #[error("{what} has {size} bytes, the most are {most}")]
    TooLarge {
        /// The manifest or the configuration.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The most that are read.
        most: u64,
    },
    /// More than [`MAX_LAYERS`].
    #[error("the image has {0} layers, the most are {MAX_LAYERS}")]
    TooManyLayers(usize),
    /// Nothing to encrypt.
    #[error("layer {0} is encrypted already: encrypt the plain image")]
    Encrypted(usize),
    /// Nothing to decrypt.
    #[error("no layer of the image is encrypted: anybody can run it, without a key")]
    NotEncrypted,
    /// Encrypted in a way that is not ours to read.
    #[error("layer {layer} is not encrypted as ocicrypt does it: {why}")]
    Layer {
        /// Its index.
        layer: usize,
        /// What is wrong.
        why: String,
    },
    /// The key is another app's.
    #[error("the app's key does not open layer {0}: the image was encrypted for another key")]
    WrongKey(usize),
    /// What would be run is not what was agreed.
    #[error("decrypted, the image is {got}, not {wanted}")]
    OtherImage {
        /// What decryption gives.
        got: Digest,
        /// What the pod names.
        wanted: Digest,
    },
    /// Not what its manifest says.
    #[error("layer {layer} cannot be trusted")]
    Tampered {
        /// Its index.
        layer: usize,
        /// What gave it away.
        #[source]
        source: Tampered,
    },
    /// The configuration is not what its digest says.
    #[error("the image's configuration is {got}, its manifest says {wanted}")]
    Config {
        /// What is there.
        got: Digest,
        /// What should be.
        wanted: Digest,
    },
    /// No docker-archive of one image.
    #[error("this is no docker-archive of one image: {0}")]
    Archive(String),
    /// A blob could not be read or written.
    #[error("blob {0}")]
    Blob(Digest, #[source] io::Error),
    /// Nothing to do with the image.
    #[error("the image could not be read or written")]
    Io(#[from] io::Error),
}

impl ImageError {
    /// Whether a blob was not there or could not be read or written, which says nothing of the image.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Blob(..) | Self::Io(_))
    }
}

/// An image that was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// What a registry knows it by.
    pub manifest: Digest,
    /// What it is: the digest of the plain manifest.
    pub plain: Digest,
}

/// An image whose every byte was checked, and that the app's key opened.
///
/// The layers stay encrypted where they are, and are decrypted again for each use. A later change to a blob is noticed
/// then.
#[derive(Debug)]
pub struct Opened<'a, B> {
    blobs: &'a B,
    plain: Vec<u8>,
    digest: Digest,
    image: Digest,
    config: Vec<u8>,
    layers: Vec<Layer>,
}

/// A layer as it lies there and as it will be.
#[derive(Debug)]
struct Layer {
    stored: Digest,
    plain: Digest,
    size: u64,
    key: Option<LayerKey>,
}

/// Encrypts the image `name` of `from` for `to`'s owner, and adds it to `into` under `as_name`. Every layer gets a
/// key of its own; the same image encrypted twice shares nothing.
///
/// # Errors
/// When the image is not one that OCI describes, is encrypted already, or cannot be read or written.
///
/// # Panics
/// When the system has no randomness to give.
pub fn encrypt(
    from: &Layout,
    name: Option<&str>,
    to: &AppPublicKey,
    into: &Layout,
    as_name: &str,
) -> Result<Sealed, ImageError> {
    let mut manifest = Manifest::parse(&from.manifest(name)?)?;
    let plain = Digest::of(&manifest.to_bytes());
    into.put(&read_config(from, &manifest.config)?)?;
    for (index, layer) in manifest.layers.iter_mut().enumerate() {
        if layer.is_encrypted() {
            return Err(ImageError::Encrypted(index));
        }
        encrypt_layer(index, layer, from, to, into)?;
    }
    let digest = into.put_manifest(&manifest.to_bytes(), as_name)?;
    Ok(Sealed { manifest: digest, plain })
}

fn encrypt_layer(
    index: usize,
    layer: &mut Descriptor,
    from: &Layout,
    to: &AppPublicKey,
    into: &Layout,
) -> Result<(), ImageError> {
    let (key, plain) = (LayerKey::generate(), layer.digest);
    let source = from.open(&plain).map_err(|err| ImageError::Blob(plain, err))?;
    let mut mac = [0; 32];
    let digest = into.put_from(|file| {
        mac = cipher::seal(source, plain, layer.size, &key, file)?;
        Ok(())
    });
    let digest = digest.map_err(|err| failed(index, plain, err))?;
    let wrapped = jwe::encrypt(to, &key.to_json(plain));
    layer.encrypt(digest, &wrapped, &PublicOptions::new(mac));
    Ok(())
}

/// Decrypts the image `name` of `from`, and adds it to `into` under `as_name`. Gives its plain digest.
///
/// # Errors
/// When the key is another's, a blob is not what it should be, or `into` cannot be written. No wrong blob is left
/// there.
pub fn decrypt(
    from: &Layout,
    name: Option<&str>,
    key: &AppKey,
    into: &Layout,
    as_name: &str,
) -> Result<Digest, ImageError> {
    let (mut manifest, layers) = unlock(&from.manifest(name)?, key)?;
    into.put(&read_config(from, &manifest.config)?)?;
    for (index, layer) in layers.iter().enumerate() {
        let plain = into.put_from(|file| io::copy(&mut layer.open(from)?, file).map(|_| ()));
        manifest.layers[index].digest = plain.map_err(|err| failed(index, layer.stored, err))?;
    }
    into.put_manifest(&manifest.to_bytes(), as_name)
}

/// Opens an encrypted image with its app's key, and checks all of it: that every blob's digest and every layer's HMAC
/// are right, and that what this gives is the image `wanted` (the plain manifest's digest, and with it the digest of
/// every decrypted layer). Reads each layer once; nothing is written.
///
/// # Errors
/// When any of that is not so.
pub fn open<'a, B: Blobs>(
    manifest: &[u8],
    blobs: &'a B,
    key: &AppKey,
    wanted: &Digest,
) -> Result<Opened<'a, B>, ImageError> {
    let opened = open_any(manifest, blobs, key)?;
    if opened.digest != *wanted {
        return Err(ImageError::OtherImage { got: opened.digest, wanted: *wanted });
    }
    Ok(opened)
}

/// Finds out what an encrypted image is: the digest of the manifest that decryption gives. Checks and reads as [`open`]
/// does.
///
/// # Errors
/// When the key is another's, or a blob is not what it should be.
pub fn identify(manifest: &[u8], blobs: &impl Blobs, key: &AppKey) -> Result<Digest, ImageError> {
    Ok(open_any(manifest, blobs, key)?.digest)
}

fn open_any<'a, B: Blobs>(
    manifest: &[u8],
    blobs: &'a B,
    key: &AppKey,
) -> Result<Opened<'a, B>, ImageError> {
    let (mut manifest, mut layers) = unlock(manifest, key)?;
    let config = read_config(blobs, &manifest.config)?;
    for (index, layer) in layers.iter_mut().enumerate() {
        layer.plain = layer.check(blobs).map_err(|err| failed(index, layer.stored, err))?;
        manifest.layers[index].digest = layer.plain;
    }
    let plain = manifest.to_bytes();
    let digest = Digest::of(&plain);
    Ok(Opened { blobs, plain, digest, image: manifest.config.digest, config, layers })
}

/// Whether `key` opens each encrypted layer of the image with this manifest. No layer is read, so that this is quick, and
/// says nothing of what is in them.
///
/// # Errors
/// When it does not, or the manifest is not that of an encrypted image.
pub fn fits(manifest: &[u8], key: &AppKey) -> Result<(), ImageError> {
    unlock(manifest, key).map(|_| ())
}

/// The blobs that a manifest names, its configuration first, each with its size in bytes.
///
/// # Errors
/// When it is none of one image.
pub fn parts(manifest: &[u8]) -> Result<Vec<(Digest, u64)>, ImageError> {
    let Manifest { config, layers, .. } = Manifest::parse(manifest)?;
    Ok([config].into_iter().chain(layers).map(|part| (part.digest, part.size)).collect())
}

/// The plain manifest, but for the digests of the layers, and how to come by the layers. None is read.
fn unlock(manifest: &[u8], key: &AppKey) -> Result<(Manifest, Vec<Layer>), ImageError> {
    let mut manifest = Manifest::parse(manifest)?;
    if !manifest.layers.iter().any(Descriptor::is_encrypted) {
        return Err(ImageError::NotEncrypted);
    }
    let layers = manifest.layers.iter_mut().enumerate().map(|(index, layer)| {
        let key = unlock_layer(index, layer, key)?;
        Ok(Layer { stored: layer.digest, plain: layer.digest, size: layer.size, key })
    });
    let layers = layers.collect::<Result<_, ImageError>>()?;
    Ok((manifest, layers))
}

/// The layer's key, and in `layer` what it will be but for the digest. A layer that is not encrypted has none.
fn unlock_layer(
    index: usize,
    layer: &mut Descriptor,
    key: &AppKey,
) -> Result<Option<LayerKey>, ImageError> {
    if !layer.is_encrypted() {
        return Ok(None);
    }
    let wrong = |why| ImageError::Layer { layer: index, why };
    let (wrapped, options) = layer.decrypt().map_err(wrong)?;
    let json: Zeroizing<Vec<u8>> = wrapped
        .iter()
        .take(MAX_WRAPS)
        .find_map(|jwe| jwe::decrypt(key, jwe))
        .ok_or(ImageError::WrongKey(index))?;
    LayerKey::from_json(&json, options.mac()).map(Some).map_err(wrong)
}

impl<B: Blobs> Opened<'_, B> {
    /// The plain manifest's digest: what the image is.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The plain manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.plain
    }

    /// The digest of the configuration, which is what Docker knows the image by.
    pub fn image_id(&self) -> Digest {
        self.image
    }

    /// The configuration.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The bytes of all layers, as they are stored (compressed or not).
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// The layers in plain, lowest first, as they are stored: with gzip or without. The end of each is an error if it is not
    /// what was checked.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = io::Result<impl Read>> {
        self.layers.iter().map(|layer| layer.open(self.blobs))
    }

    /// The configuration with more labels, which make it another one than the image's own. That one anybody can read who has
    /// the encrypted image; and an engine that has an image of a configuration runs it for whoever names the digest of that,
    /// without asking for a layer.
    ///
    /// # Errors
    /// When it is none of an image.
    pub fn labelled(&self, labels: &BTreeMap<String, String>) -> Result<Vec<u8>, ImageError> {
        archive::labelled(&self.config, labels)
    }
}

impl Layer {
    /// The layer in plain. Its end is an error if it is not what was stored.
    fn open<'a, B: Blobs>(&'a self, blobs: &'a B) -> io::Result<Opening<Box<dyn Read + 'a>>> {
        let blob = blobs.open(&self.stored)?;
        Ok(Opening::new(blob, self.size, self.stored, self.key.as_ref()))
    }

    /// What it is in plain.
    fn check(&self, blobs: &impl Blobs) -> io::Result<Digest> {
        let mut layer = self.open(blobs)?;
        io::copy(&mut layer, &mut io::sink())?;
        Ok(layer.plain())
    }
}

fn failed(layer: usize, blob: Digest, err: io::Error) -> ImageError {
    match Tampered::of(err) {
        Ok(source) => ImageError::Tampered { layer, source },
        Err(err) => ImageError::Blob(blob, err),
    }
}

fn read_config(blobs: &impl Blobs, config: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let wanted = config.digest;
    let failed = |err| ImageError::Blob(wanted, err);
    let bytes = read_small(blobs.open(&wanted).map_err(failed)?, MAX_CONFIG, "the configuration")?;
    let got = Digest::of(&bytes);
    if got != wanted || bytes.len() as u64 != config.size {
        return Err(ImageError::Config { got, wanted });
    }
    Ok(bytes)
}

fn read_small(from: impl Read, most: u64, what: &'static str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    let size = bytes.len() as u64;
    if size > most {
        return Err(ImageError::TooLarge { what, size, most });
    }
    Ok(bytes)
}
