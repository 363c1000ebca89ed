//! JSON Web Encryption (RFC 7516) as ocicrypt uses it: ECDH-ES+A256KW with P-256 (RFC 7518, 4.6), contents in A256GCM.

use aes::cipher::generic_array::GenericArray;
use aes_kw::KekAes256;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL};
use p256::{
    EncodedPoint, PublicKey, SecretKey,
    ecdh::diffie_hellman,
    elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint},
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::app::{AppKey, AppPublicKey};

const ALGORITHM: &str = "ECDH-ES+A256KW";
const CONTENTS: &str = "A256GCM";

/// AES-GCM's tag.
const TAG: usize = 16;

/// The contents' key as RFC 3394 wraps it.
const WRAPPED: usize = 40;

/// The most recipients that are tried.
const MAX_RECIPIENTS: usize = 8;

/// RFC 7516, 7.2: with `recipients` when there are several, without when there is one.
#[derive(Serialize, Deserialize)]
struct Jwe {
    protected: String,
    #[serde(default, skip_serializing)]
    unprotected: Header,
    #[serde(default, skip_serializing)]
    header: Header,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted_key: Option<String>,
    #[serde(default, skip_serializing)]
    recipients: Vec<Recipient>,
    #[serde(default, skip_serializing)]
    aad: Option<String>,
    iv: String,
    ciphertext: String,
    tag: String,
}

#[derive(Deserialize)]
struct Recipient {
    #[serde(default)]
    header: Header,
    encrypted_key: String,
}

/// What is read of a header. Its parts may be in the protected one, the unprotected one or the recipient's.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Header {
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epk: Option<Jwk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zip: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

/// `plaintext` for `to`'s owner, in the flattened JSON form.
pub(super) fn encrypt(to: &AppPublicKey, plaintext: &[u8]) -> String {
    let random = SystemRandom::new();
    let (mut key, mut iv) = (Zeroizing::new([0; 32]), [0; 12]);
    random.fill(key.as_mut_slice()).expect("the system has randomness");
    random.fill(&mut iv).expect("the system has randomness");

    let ephemeral = AppKey::generate();
    let header = Header {
        alg: Some(ALGORITHM.into()),
        enc: Some(CONTENTS.into()),
        epk: Some(Jwk::of(&ephemeral.public().0)),
        ..Header::default()
    };
    let header = serde_json::to_string(&header).expect("a header is JSON");
    let protected = BASE64_URL.encode(header);

    let wrapping = agree(ephemeral.secret(), &to.0, &[], &[]);
    let mut wrapped = [0; WRAPPED];
    kek(&wrapping).wrap(key.as_slice(), &mut wrapped).expect("the buffer has the key's size");

    let mut text = Zeroizing::new(plaintext.to_vec());
    let tag = contents(&key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(protected.as_bytes()),
            &mut text,
        )
        .expect("the contents are short");
    let jwe = Jwe {
        protected: protected.clone(),
        unprotected: Header::default(),
        header: Header::default(),
        encrypted_key: Some(BASE64_URL.encode(wrapped)),
        recipients: Vec::new(),
        aad: None,
        iv: BASE64_URL.encode(iv),
        ciphertext: BASE64_URL.encode(&*text),
        tag: BASE64_URL.encode(tag),
    };
    serde_json::to_string(&jwe).expect("a JWE is JSON")
}

/// What is in `jwe`, if `key` is that of one of its recipients. Nothing tells why not: to an app's key, a JWE that is
/// broken, for somebody else or in another algorithm is the same.
pub(super) fn decrypt(key: &AppKey, jwe: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let jwe: Jwe = serde_json::from_slice(jwe).ok()?;
    let protected: Header = serde_json::from_slice(&bytes(&jwe.protected)?).ok()?;
    let alone = jwe.encrypted_key.iter().map(|encrypted_key| (&jwe.header, encrypted_key));
    let several = jwe.recipients.iter().map(|one| (&one.header, &one.encrypted_key));
    alone.chain(several).take(MAX_RECIPIENTS).find_map(|(header, encrypted_key)| {
        let header = protected.or(&jwe.unprotected).or(header);
        let key = unwrap(key, &header, &bytes(encrypted_key)?)?;
        open(&jwe, &key)
    })
}

/// The contents' key.
fn unwrap(key: &AppKey, header: &Header, wrapped: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let ours = header.alg.as_deref() == Some(ALGORITHM)
        && header.enc.as_deref() == Some(CONTENTS)
        && header.zip.is_none()
        && header.crit.is_none();
    let wrapped: &[u8; WRAPPED] = wrapped.try_into().ok().filter(|_| ours)?;
    let party = |text: &Option<String>| text.as_deref().map_or(Some(Vec::new()), bytes);
    let ephemeral = header.epk.as_ref()?.point()?;
    let wrapping = agree(key.secret(), &ephemeral, &party(&header.apu)?, &party(&header.apv)?);
    let mut contents = Zeroizing::new([0; 32]);
    kek(&wrapping).unwrap(wrapped, contents.as_mut_slice()).ok()?;
    Some(contents)
}

fn open(jwe: &Jwe, key: &[u8; 32]) -> Option<Zeroizing<Vec<u8>>> {
    let iv: [u8; 12] = bytes(&jwe.iv)?.try_into().ok()?;
    let tag: [u8; TAG] = bytes(&jwe.tag)?.try_into().ok()?;
    let mut text = Zeroizing::new(bytes(&jwe.ciphertext)?);
    text.extend_from_slice(&tag);
    let aad = match &jwe.aad {
        Some(aad) => format!("{}.{aad}", jwe.protected),
        None => jwe.protected.clone(),
    };
    let nonce = Nonce::assume_unique_for_key(iv);
    let len = contents(key).open_in_place(nonce, Aad::from(aad.as_bytes()), &mut text).ok()?.len();
    text.truncate(len);
    Some(text)
}

/// The key that wraps.
fn agree(secret: &SecretKey, public: &PublicKey, apu: &[u8], apv: &[u8]) -> Zeroizing<[u8; 32]> {
    let shared = diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    derive(shared.raw_secret_bytes(), ALGORITHM, apu, apv, 256)
}

/// One block of the Concat KDF (RFC 7518, 4.6.2) over the Diffie-Hellman secret.
fn derive(
    shared: &[u8],
    algorithm: &str,
    apu: &[u8],
    apv: &[u8],
    bits: u32,
) -> Zeroizing<[u8; 32]> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&1_u32.to_be_bytes());
    hash.update(shared);
    for part in [algorithm.as_bytes(), apu, apv] {
        let len = u32::try_from(part.len()).expect("a header is short");
        hash.update(&len.to_be_bytes());
        hash.update(part);
    }
    hash.update(&bits.to_be_bytes());
    Zeroizing::new(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn kek(key: &[u8; 32]) -> KekAes256 {
    KekAes256::new(GenericArray::from_slice(key))
}

fn contents(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 has keys of 32 bytes"))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64_URL.decode(text).ok()
}

impl Header {
    /// This header, with what only `other` has.
    fn or(&self, other: &Self) -> Self {
        Self {
            alg: self.alg.clone().or_else(|| other.alg.clone()),
            enc: self.enc.clone().or_else(|| other.enc.clone()),
            epk: self.epk.clone().or_else(|| other.epk.clone()),
            apu: self.apu.clone().or_else(|| other.apu.clone()),
            apv: self.apv.clone().or_else(|| other.apv.clone()),
            zip: self.zip.clone().or_else(|| other.zip.clone()),
            crit: self.crit.clone().or_else(|| other.crit.clone()),
        }
    }
}

impl Jwk {
    fn of(key: &PublicKey) -> Self {
        let point = key.to_encoded_point(false);
        let text = |bytes: Option<&_>| BASE64_URL.encode(bytes.expect("a public key is not zero"));
        Self { kty: "EC".into(), crv: "P-256".into(), x: text(point.x()), y: text(point.y()) }
    }

    /// The point, which is on the curve: one that is not would give the key away.
    fn point(&self) -> Option<PublicKey> {
        let (x, y): ([u8; 32], [u8; 32]) =
            (bytes(&self.x)?.try_into().ok()?, bytes(&self.y)?.try_into().ok()?);
        if self.kty != "EC" || self.crv != "P-256" {
            return None;
        }
        let point = EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
        PublicKey::from_encoded_point(&point).into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn opens_for_its_recipient_only() {
        let key = AppKey::generate();
        for plaintext in [&b""[..], b"{}", &[7; 10_000]] {
            let jwe = encrypt(&key.public(), plaintext);
            assert_eq!(decrypt(&key, jwe.as_bytes()).unwrap().as_slice(), plaintext);
            assert!(decrypt(&AppKey::generate(), jwe.as_bytes()).is_none());
            assert_ne!(jwe, encrypt(&key.public(), plaintext));
        }
    }

    #[test]
    fn opens_in_the_general_form() {
        let (first, second) = (AppKey::generate(), AppKey::generate());
        let jwe: Value = serde_json::from_str(&encrypt(&second.public(), b"text")).unwrap();
        // The protected header is authenticated as it is; what is not in it may be in the recipient's.
        let other: Value = serde_json::from_str(&encrypt(&first.public(), b"other")).unwrap();
        let general = json!({
            "protected": jwe["protected"],
            "recipients": [
                { "header": {}, "encrypted_key": other["encrypted_key"] },
                { "encrypted_key": jwe["encrypted_key"] },
            ],
            "iv": jwe["iv"], "ciphertext": jwe["ciphertext"], "tag": jwe["tag"],
        })
        .to_string();
        assert_eq!(decrypt(&second, general.as_bytes()).unwrap().as_slice(), b"text");
        assert!(decrypt(&first, general.as_bytes()).is_none());
    }

    #[test]
    fn what_changed_does_not_open() {
        let key = AppKey::generate();
        let jwe: Value = serde_json::from_str(&encrypt(&key.public(), b"text")).unwrap();
        let header: Value =
            serde_json::from_slice(&bytes(jwe["protected"].as_str().unwrap()).unwrap()).unwrap();
        for field in ["iv", "ciphertext", "tag", "encrypted_key"] {
            let mut flipped = bytes(jwe[field].as_str().unwrap()).unwrap();
            flipped[0] ^= 1;
            let mut other = jwe.clone();
            other[field] = BASE64_URL.encode(flipped).into();
            assert!(decrypt(&key, other.to_string().as_bytes()).is_none(), "{field}");
            other[field] = "".into();
            assert!(decrypt(&key, other.to_string().as_bytes()).is_none(), "{field}");
        }
        for (field, value) in [
            ("alg", json!("ECDH-ES")),
            ("enc", json!("A128GCM")),
            ("zip", json!("DEF")),
            ("crit", json!(["exp"])),
            ("apu", json!("AA")),
            ("extra", json!("not authenticated")),
        ] {
            let mut header = header.clone();
            header[field] = value;
            let mut other = jwe.clone();
            other["protected"] = BASE64_URL.encode(header.to_string()).into();
            assert!(decrypt(&key, other.to_string().as_bytes()).is_none(), "{field}");
        }
        for broken in ["", "{}", "null", "a.b.c.d.e"] {
            assert!(decrypt(&key, broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn a_point_off_the_curve_is_no_key() {
        let jwk = Jwk::of(&AppKey::generate().public().0);
        assert!(jwk.point().is_some());
        let mut y = bytes(&jwk.y).unwrap();
        y[31] ^= 1;
        assert!(Jwk { y: BASE64_URL.encode(y), ..jwk.clone() }.point().is_none());
        assert!(Jwk { crv: "P-384".into(), ..jwk.clone() }.point().is_none());
        assert!(Jwk { x: BASE64_URL.encode([0; 31]), ..jwk }.point().is_none());
    }

    /// RFC 7518, appendix C.
    #[test]
    fn the_derived_key_is_that_of_the_rfc() {
        let private = |d: &str| SecretKey::from_slice(&bytes(d).unwrap()).unwrap();
        let alice = private("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo");
        let bob = private("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
        let shared = diffie_hellman(alice.to_nonzero_scalar(), bob.public_key().as_affine());
        let key = derive(shared.raw_secret_bytes(), "A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(BASE64_URL.encode(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
        let ours = agree(&alice, &bob.public_key(), b"Alice", b"Bob");
        assert_eq!(ours, agree(&bob, &alice.public_key(), b"Alice", b"Bob"));
    }
}
