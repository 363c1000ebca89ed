//! Manifests (OCI image-spec), written byte for byte as skopeo, containerd and Docker's Go code write them, since their
//! digest is what an image is known by.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ImageError, MAX_LAYERS, MAX_MANIFEST, cipher::PublicOptions};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What an encrypted layer's media type ends with.
const ENCRYPTED: &str = "+encrypted";

/// The annotation that holds a layer's key.
const KEYS: &str = "org.opencontainers.image.enc.keys.jwe";

/// The annotation that says how a layer is encrypted.
const OPTIONS: &str = "org.opencontainers.image.enc.pubopts";

/// What all annotations of encryption begin with.
const ANNOTATIONS: &str = "org.opencontainers.image.enc.";

/// A SHA-256 of a blob. Written as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// A text that is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest (sha256: and 64 hexadecimal digits)")]
pub struct ParseDigestError(String);

/// An image's manifest: config, layers, annotations. What would be lost on the way through skopeo is refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What a manifest says of a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Whether any layer of the image with this manifest is encrypted. What is no manifest is not.
pub fn is_encrypted(manifest: &[u8]) -> bool {
    Manifest::parse(manifest)
        .is_ok_and(|manifest| manifest.layers.iter().any(Descriptor::is_encrypted))
}

impl Manifest {
    pub(super) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.into()),
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let size = bytes.len() as u64;
        if size > MAX_MANIFEST {
            return Err(ImageError::TooLarge { what: "the manifest", size, most: MAX_MANIFEST });
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|err| ImageError::Manifest(err.to_string()))?;
        let media_type = manifest.media_type.as_deref().unwrap_or(MANIFEST);
        if manifest.schema_version != 2 || media_type != MANIFEST {
            let why = format!(
                "it is {media_type:?} of schema {}; `skopeo copy --format oci` makes an OCI image of it",
                manifest.schema_version
            );
            return Err(ImageError::Manifest(why));
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(ImageError::TooManyLayers(manifest.layers.len()));
        }
        Ok(manifest)
    }

    /// As Go writes it: no white space, keys of maps sorted, and what HTML minds escaped.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // These characters are only in strings, where JSON has them plain or escaped.
        let mut json = serde_json::to_string(self).expect("a manifest is JSON");
        for (plain, escaped) in [
            ('<', "\\u003c"),
            ('>', "\\u003e"),
            ('&', "\\u0026"),
            ('\u{2028}', "\\u2028"),
            ('\u{2029}', "\\u2029"),
        ] {
            json = json.replace(plain, escaped);
        }
        json.into_bytes()
    }
}

impl Descriptor {
    pub(super) fn config(digest: Digest, size: u64) -> Self {
        Self::of("application/vnd.oci.image.config.v1+json", digest, size)
    }

    pub(super) fn layer(digest: Digest, size: u64) -> Self {
        Self::of("application/vnd.oci.image.layer.v1.tar", digest, size)
    }

    fn of(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, annotations: BTreeMap::new() }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.media_type.ends_with(ENCRYPTED)
    }

    /// Counter mode leaves the size as it is.
    pub(super) fn encrypt(&mut self, digest: Digest, jwe: &str, options: &PublicOptions) {
        self.media_type.push_str(ENCRYPTED);
        self.digest = digest;
        self.annotations.insert(KEYS.into(), BASE64_STANDARD.encode(jwe));
        self.annotations.insert(OPTIONS.into(), BASE64_STANDARD.encode(options.to_json()));
    }

    /// Makes it what it was, but for the digest. Gives the wrapped keys (ocicrypt writes one for
    /// each set of recipients) and the options.
    pub(super) fn decrypt(&mut self) -> Result<(Vec<Vec<u8>>, PublicOptions), String> {
        let annotation = |name| {
            self.annotations.get(name).ok_or_else(|| format!("the annotation {name} is missing"))
        };
        let bytes = |name, text| {
            BASE64_STANDARD.decode(text).map_err(|err| format!("{name} is not base64: {err}"))
        };
        let keys = annotation(KEYS)?.split(',').map(|text| bytes(KEYS, text));
        let keys = keys.collect::<Result<_, _>>()?;
        let options = PublicOptions::from_json(&bytes(OPTIONS, annotation(OPTIONS)?)?)?;
        self.annotations.retain(|name, _| !name.starts_with(ANNOTATIONS));
        self.media_type.truncate(self.media_type.len() - ENCRYPTED.len());
        Ok((keys, options))
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(&digest::digest(&digest::SHA256, bytes))
    }

    pub(super) fn from_ring(digest: &digest::Digest) -> Self {
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        text.strip_prefix("sha256:")
            // One digest has one text, so that none is stored twice.
            .filter(|digits| !digits.bytes().any(|byte| byte.is_ascii_uppercase()))
            .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
            .ok_or_else(|| ParseDigestError(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":2}},"layers":[{layer}]}}"#
        )
    }

    fn layer(annotations: &str) -> String {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{DIGEST}","size":3{annotations}}}"#
        )
    }

    #[test]
    fn is_written_as_it_was_read() {
        let plain = layer("");
        let annotated = layer(r#","annotations":{"a":"1 \u003c 2 \u0026 3","b":"é \"\n"}"#);
        for json in [manifest(""), manifest(&plain), manifest(&format!("{plain},{annotated}"))] {
            let written = Manifest::parse(json.as_bytes()).unwrap().to_bytes();
            assert_eq!(String::from_utf8(written).unwrap(), json);
        }
    }

    #[test]
    fn white_space_and_order_do_not_count() {
        let json = manifest(&layer(r#","annotations":{"a":"1","b":"2"}"#));
        let other = json.replace(r#"{"a":"1","b":"2"}"#, r#"{ "b" : "2", "a":"1" }"#);
        assert_eq!(Manifest::parse(other.as_bytes()).unwrap().to_bytes(), json.as_bytes());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let many = vec![layer(""); MAX_LAYERS + 1].join(",");
        for (json, part) in [
            ("{}".into(), "missing field `schemaVersion`"),
            (manifest("").replace(":2,", ":1,"), "of schema 1"),
            (
                manifest("").replace("oci.image.manifest.v1", "docker.distribution.manifest.v2"),
                "skopeo copy --format oci",
            ),
            (manifest("").replace("\"layers\"", "\"subject\":{},\"layers\""), "`subject`"),
            (manifest(&layer(r#","urls":["https://example.org"]"#)), "`urls`"),
            (manifest(&layer("")).replace("sha256:e3", "sha256:E3"), "is no digest"),
            (manifest(&layer("")).replace("sha256:", "sha512:"), "is no digest"),
            (manifest(&layer("")).replace("\"size\":3", "\"size\":-1"), "invalid value"),
            (manifest(&many), "128 layers"),
        ] {
            let err = Manifest::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(part), "{err}");
        }
        let large = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
        assert!(matches!(Manifest::parse(&large), Err(ImageError::TooLarge { .. })));
    }

    #[test]
    fn encrypting_and_back_changes_nothing() {
        let json = manifest(&layer(r#","annotations":{"a":"1"}"#));
        let mut manifest = Manifest::parse(json.as_bytes()).unwrap();
        assert!(!is_encrypted(json.as_bytes()));
        let plain = manifest.layers[0].digest;
        let sealed = Digest([7; 32]);
        manifest.layers[0].encrypt(sealed, "wrapped", &PublicOptions::new([9; 32]));
        assert!(is_encrypted(&manifest.to_bytes()));
        let written = String::from_utf8(manifest.to_bytes()).unwrap();
        assert!(written.contains("v1.tar+gzip+encrypted\""), "{written}");

        let (keys, options) = manifest.layers[0].decrypt().unwrap();
        assert_eq!(keys, [b"wrapped"]);
        assert_eq!(options.mac(), [9; 32]);
        assert_eq!(manifest.layers[0].digest, sealed);
        manifest.layers[0].digest = plain;
        assert_eq!(manifest.to_bytes(), json.as_bytes());
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), DIGEST);
        assert_eq!(DIGEST.parse(), Ok(digest));
        for text in ["", "sha256:", "sha256:00", &DIGEST[7..], &format!("{DIGEST}00")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
