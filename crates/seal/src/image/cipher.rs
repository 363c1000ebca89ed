//! A layer in ocicrypt's cipher `AES_256_CTR_HMAC_SHA256`, streaming.

use std::io::{self, Read, Write};

use aes::{
    Aes256,
    cipher::{KeyIvInit, StreamCipher},
};
use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, Zeroizing};

use super::manifest::Digest;

const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";

/// What is read and encrypted at a time.
const PIECE: usize = 64 << 10;

type Ctr = ctr::Ctr128BE<Aes256>;

/// How a blob gave away that it is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Tampered {
    /// It ends too early or goes on.
    #[error("it does not have the {0} bytes that the manifest says")]
    Size(u64),
    /// The blob is another than the manifest names.
    #[error("the blob is {got}, the manifest says {wanted}")]
    Blob {
        /// What is there.
        got: Digest,
        /// What should be.
        wanted: Digest,
    },
    /// It was not encrypted with the layer's key, or was changed since.
    #[error("its HMAC is not that of the layer's key")]
    Mac,
}

/// What encrypts one layer: ocicrypt's private options. Wiped when dropped.
pub(super) struct LayerKey {
    key: Zeroizing<[u8; 32]>,
    nonce: [u8; 16],
    /// HMAC-SHA256 of the ciphertext, from the public options.
    mac: [u8; 32],
}

/// How a layer is encrypted, for everybody to read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PublicOptions {
    cipher: String,
    #[serde(with = "base64_text")]
    hmac: [u8; 32],
    cipheroptions: Empty,
}

/// ocicrypt has no public options for this cipher; what it says for none differs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Empty {}

/// The private options as JSON.
#[derive(Serialize, Deserialize)]
struct PrivateOptions {
    #[serde(with = "base64_text")]
    symkey: [u8; 32],
    /// The layer's in plain. It is written and not relied on: skopeo, where it compresses as it encrypts, writes the
    /// one from before the compression. What a layer is in plain is computed here.
    digest: Digest,
    cipheroptions: CipherOptions,
}

#[derive(Serialize, Deserialize)]
struct CipherOptions {
    #[serde(with = "base64_text")]
    nonce: [u8; 16],
}

impl Drop for PrivateOptions {
    fn drop(&mut self) {
        self.symkey.zeroize();
    }
}

impl PublicOptions {
    pub(super) fn new(hmac: [u8; 32]) -> Self {
        Self { cipher: CIPHER.into(), hmac, cipheroptions: Empty {} }
    }

    pub(super) fn mac(&self) -> [u8; 32] {
        self.hmac
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the options are JSON")
    }

    pub(super) fn from_json(json: &[u8]) -> Result<Self, String> {
        let options: Self = serde_json::from_slice(json)
            .map_err(|err| format!("its public options cannot be read: {err}"))?;
        if options.cipher != CIPHER {
            return Err(format!("its cipher is {:?}, not {CIPHER}", options.cipher));
        }
        Ok(options)
    }
}

impl LayerKey {
    /// A new key.
    pub(super) fn generate() -> Self {
        let (mut key, mut nonce) = (Zeroizing::new([0; 32]), [0; 16]);
        let random = SystemRandom::new();
        random.fill(key.as_mut_slice()).expect("the system has randomness");
        random.fill(&mut nonce).expect("the system has randomness");
        Self { key, nonce, mac: [0; 32] }
    }

    /// The key of the layer that is `plain`.
    pub(super) fn to_json(&self, plain: Digest) -> Zeroizing<Vec<u8>> {
        let options = PrivateOptions {
            symkey: *self.key,
            digest: plain,
            cipheroptions: CipherOptions { nonce: self.nonce },
        };
        // Room for all of it: a buffer that grew would leave a copy of the key behind it.
        let mut json = Zeroizing::new(Vec::with_capacity(512));
        serde_json::to_writer(&mut *json, &options).expect("the options are JSON");
        json
    }

    /// The error does not show the JSON, which holds a key.
    pub(super) fn from_json(json: &[u8], mac: [u8; 32]) -> Result<Self, String> {
        let options: PrivateOptions = serde_json::from_slice(json)
            .map_err(|err| format!("its key cannot be read: byte {}", err.column()))?;
        Ok(Self { key: Zeroizing::new(options.symkey), nonce: options.cipheroptions.nonce, mac })
    }

    fn stream(&self) -> Ctr {
        Ctr::new(self.key.as_slice().into(), &self.nonce.into())
    }

    fn mac(&self) -> hmac::Context {
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_slice()))
    }
}

impl std::fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerKey").finish_non_exhaustive()
    }
}

impl Tampered {
    /// What a reader of this module found, or the error that is none of its.
    pub(super) fn of(err: io::Error) -> Result<Self, io::Error> {
        err.downcast()
    }
}

impl From<Tampered> for io::Error {
    fn from(tampered: Tampered) -> Self {
        Self::new(io::ErrorKind::InvalidData, tampered)
    }
}

/// Encrypts the layer that `from` brings, which must be `plain`, and gives the HMAC of what was written.
pub(super) fn seal(
    from: impl Read,
    plain: Digest,
    size: u64,
    key: &LayerKey,
    mut to: impl Write,
) -> io::Result<[u8; 32]> {
    let (mut stream, mut mac) = (key.stream(), key.mac());
    let mut plain = Opening::new(from, size, plain, None);
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    loop {
        let read = match plain.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        stream.apply_keystream(&mut piece[..read]);
        mac.update(&piece[..read]);
        to.write_all(&piece[..read])?;
    }
    Ok(mac.sign().as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
}

/// Reads a blob, decrypted if there is a key. At its end the blob's digest and the HMAC are compared; before that
/// nothing that was read can be trusted.
pub(super) struct Opening<R> {
    from: R,
    size: u64,
    left: u64,
    wanted: Digest,
    blob: digest::Context,
    key: Option<LayerOpening>,
    done: bool,
}

struct LayerOpening {
    stream: Ctr,
    mac: hmac::Context,
    plain: digest::Context,
    wanted_mac: [u8; 32],
}

impl<R: Read> Opening<R> {
    pub(super) fn new(from: R, size: u64, wanted: Digest, key: Option<&LayerKey>) -> Self {
        let sha256 = || digest::Context::new(&digest::SHA256);
        let key = key.map(|key| LayerOpening {
            stream: key.stream(),
            mac: key.mac(),
            plain: sha256(),
            wanted_mac: key.mac,
        });
        Self { from, size, left: size, wanted, blob: sha256(), key, done: false }
    }

    /// What the blob is in plain, once it was read to its end.
    pub(super) fn plain(&self) -> Digest {
        self.key.as_ref().map_or(self.wanted, |key| finish(&key.plain))
    }

    /// Whether the blob was right, once it has ended.
    fn end(&self) -> Result<(), Tampered> {
        let (got, wanted) = (finish(&self.blob), self.wanted);
        if got != wanted {
            return Err(Tampered::Blob { got, wanted });
        }
        let Some(key) = &self.key else { return Ok(()) };
        let mac = key.mac.clone().sign();
        if bool::from(mac.as_ref().ct_eq(&key.wanted_mac)) { Ok(()) } else { Err(Tampered::Mac) }
    }
}

fn finish(context: &digest::Context) -> Digest {
    Digest::from_ring(&context.clone().finish())
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() || self.done {
            return Ok(0);
        }
        let read = self.from.read(to)?;
        // Not what is left, so that a blob that goes on is noticed.
        self.left = self.left.checked_sub(read as u64).ok_or(Tampered::Size(self.size))?;
        if read == 0 {
            if self.left > 0 {
                return Err(Tampered::Size(self.size).into());
            }
            self.end()?;
            self.done = true;
        }
        let piece = &mut to[..read];
        self.blob.update(piece);
        if let Some(key) = &mut self.key {
            key.mac.update(piece);
            key.stream.apply_keystream(piece);
            key.plain.update(piece);
        }
        Ok(read)
    }
}

/// Bytes as base64, as Go writes `[]byte`.
mod base64_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};
    use zeroize::Zeroizing;

    use base64::{Engine as _, prelude::BASE64_STANDARD};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(&*text).map_err(D::Error::custom)?);
        let len = bytes.len();
        <[u8; N]>::try_from(bytes.as_slice())
            .map_err(|_err| D::Error::custom(format!("{len} bytes, not {N}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> (LayerKey, Vec<u8>) {
        let (mut key, mut text) = (LayerKey::generate(), Vec::new());
        key.mac = seal(plain, Digest::of(plain), plain.len() as u64, &key, &mut text).unwrap();
        (key, text)
    }

    fn opened(
        text: &[u8],
        size: usize,
        wanted: Digest,
        key: &LayerKey,
    ) -> Result<Vec<u8>, Tampered> {
        let mut plain = Vec::new();
        let mut opening = Opening::new(text, size as u64, wanted, Some(key));
        opening.read_to_end(&mut plain).map_err(|err| Tampered::of(err).unwrap())?;
        assert_eq!(opening.plain(), Digest::of(&plain));
        Ok(plain)
    }

    #[test]
    fn a_layer_of_any_size_comes_back() {
        for size in [0, 1, 15, 16, 17, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let plain: Vec<u8> =
                (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let (key, text) = sealed(&plain);
            assert_eq!(text.len(), size);
            assert!(size < 16 || text != plain);
            let key = LayerKey::from_json(&key.to_json(Digest::of(&plain)), key.mac).unwrap();
            assert!(opened(&text, size, Digest::of(&text), &key).unwrap() == plain);
        }
    }

    #[test]
    fn what_changed_is_noticed() {
        let (key, text) = sealed(&[7; 100]);
        let digest = Digest::of(&text);
        let mut other = text.clone();
        other[50] ^= 1;
        // The registry serves another blob.
        let got = Digest::of(&other);
        let blob = Err(Tampered::Blob { got, wanted: digest });
        assert_eq!(opened(&other, 100, digest, &key), blob);
        // The registry serves another manifest with it.
        assert_eq!(opened(&other, 100, got, &key), Err(Tampered::Mac));
        let other_key = LayerKey { mac: key.mac, ..LayerKey::generate() };
        assert_eq!(opened(&text, 100, digest, &other_key), Err(Tampered::Mac));
        for size in [0, 99, 101] {
            let size_error = Err(Tampered::Size(size as u64));
            assert_eq!(opened(&text, size, digest, &key), size_error, "{size}");
        }
        assert_eq!(opened(&text[..99], 100, digest, &key), Err(Tampered::Size(100)));
    }

    #[test]
    fn what_is_not_the_layer_is_not_encrypted() {
        let (key, layer) = (LayerKey::generate(), Digest::of(b"layer"));
        for (plain, size) in [(&b"other"[..], 5), (b"layer", 4), (b"layer", 6)] {
            let err = seal(plain, layer, size, &key, io::sink()).unwrap_err();
            assert!(Tampered::of(err).is_ok());
        }
    }

    #[test]
    fn other_ciphers_and_broken_options_are_refused() {
        use base64::{Engine as _, prelude::BASE64_STANDARD};

        let mac = BASE64_STANDARD.encode([1; 32]);
        let options = |cipher: &str, mac: &str| {
            let json = format!(r#"{{"cipher":"{cipher}","hmac":"{mac}","cipheroptions":{{}}}}"#);
            PublicOptions::from_json(json.as_bytes()).map(|_| ())
        };
        assert_eq!(options(CIPHER, &mac), Ok(()));
        assert!(options("AES_128_ECB", &mac).unwrap_err().contains("AES_128_ECB"));
        assert!(options(CIPHER, "AA==").unwrap_err().contains("1 bytes, not 32"));
        let err = LayerKey::from_json(br#"{"symkey":"c3dvcmRmaXNo"}"#, [0; 32]).unwrap_err();
        assert!(!err.contains("c3dvcmRmaXNo") && !err.contains("swordfish"), "{err}");
    }

    #[test]
    fn debug_shows_no_key() {
        let key = LayerKey { key: Zeroizing::new([0x42; 32]), nonce: [0x42; 16], mac: [0x42; 32] };
        assert!(!format!("{key:?}").contains("66"));
    }
}
