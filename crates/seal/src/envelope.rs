//! One message to one provider, bound to what it is for.

use std::fmt;

use hpke::{
    Deserializable, HpkeError, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305,
    kdf::HkdfSha256, kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    app::{KeyContext, SenderKey, SenderPublicKey},
    key::{SealingKey, SealingPublicKey},
    text,
};

pub(crate) type Kem = X25519HkdfSha256;
type Kdf = HkdfSha256;
type Aead = ChaCha20Poly1305;

/// The most bytes that an envelope holds.
pub const MAX_PLAINTEXT: usize = 1 << 20;

/// Poly1305's tag, which the ciphertext ends with.
const TAG: usize = 16;

/// What the bytes of [`Context::info`] open with, so that no other use of the same key can be mistaken for this one.
const DOMAIN: &[u8] = b"roadstead secrets v1";

/// What an envelope is bound to (HPKE's `info`): it opens for this and for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The chain.
    pub chain_id: u64,
    /// The address of the Leases contract.
    pub leases: [u8; 20],
    /// The provider's address.
    pub provider: [u8; 20],
    /// The account that pays.
    pub account: [u8; 32],
    /// The pod's hash.
    pub pod: [u8; 32],
}

/// A sealed message. It is written as JSON with two `0x` texts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    #[serde(with = "text")]
    encapsulated_key: [u8; 32],
    #[serde(with = "text")]
    ciphertext: Vec<u8>,
}

/// Why a message was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than [`MAX_PLAINTEXT`].
    #[error("{0} bytes are too many for an envelope, which holds {MAX_PLAINTEXT}")]
    TooLarge(usize),
    /// It has a small order, so that everybody could open the envelope.
    #[error("{0} is not a key that can be sealed to")]
    Key(SealingPublicKey),
    /// What was attested is another provider than what is sealed is for.
    #[error("the evidence is about another chain or provider than what is sealed is for")]
    OtherEvidence,
}

/// Why an envelope was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// More than [`MAX_PLAINTEXT`].
    #[error("the envelope holds {0} bytes, the most are {MAX_PLAINTEXT}")]
    TooLarge(usize),
    /// One cannot tell which: that is what the seal is for.
    #[error(
        "the envelope was sealed to another key or for another pod, account, provider or chain, or was altered since"
    )]
    Refused,
    /// What is inside is not what [`Secrets`](crate::Secrets) are written as. It is not shown, as it may be secret.
    #[error("the envelope opens, but holds no secrets: byte {0} is unexpected")]
    NotSecrets(usize),
    /// As [`OpenError::Refused`], where the sender counts too.
    #[error(
        "the envelope comes from another sender, was sealed to another key or for another lease, pod, account, \
         provider, nonce or chain, or was altered since"
    )]
    NotFromSender,
    /// What is inside is not what an [`AppKey`](crate::AppKey) is written as.
    #[error("the envelope opens, but holds no app key")]
    NotKey,
}

impl Context {
    /// All fields have one size, so no two contexts have the same bytes.
    fn info(&self) -> Vec<u8> {
        let chain_id = self.chain_id.to_be_bytes();
        [DOMAIN, &chain_id, &self.leases, &self.provider, &self.account, &self.pod].concat()
    }
}

impl Envelope {
    /// Seals `plaintext` so that only `to`'s owner opens it, and only for `context`.
    ///
    /// # Errors
    /// When `plaintext` is larger than [`MAX_PLAINTEXT`], or nothing can be sealed to `to`.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn seal(
        to: &SealingPublicKey,
        context: &Context,
        plaintext: &[u8],
    ) -> Result<Self, SealError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(SealError::TooLarge(plaintext.len()));
        }
        let not_a_key = |_err: HpkeError| SealError::Key(*to);
        Self::seal_as(&OpModeS::Base, to, &context.info(), plaintext).map_err(not_a_key)
    }

    /// Seals an app's key in mode Auth: it opens only for who knows that it comes from `from`.
    pub(crate) fn seal_key(
        to: &SealingPublicKey,
        from: &SenderKey,
        context: &KeyContext,
        key: &[u8],
    ) -> Result<Self, SealError> {
        let secret = from.0.secret().clone();
        let sender = OpModeS::Auth((secret, <Kem as hpke::Kem>::sk_to_pk(from.0.secret())));
        Self::seal_as(&sender, to, &context.info(), key).map_err(|_err| SealError::Key(*to))
    }

    fn seal_as(
        mode: &OpModeS<'_, Kem>,
        to: &SealingPublicKey,
        info: &[u8],
        plaintext: &[u8],
    ) -> Result<Self, HpkeError> {
        let recipient = Deserializable::from_bytes(&to.0)?;
        let (encapsulated_key, ciphertext) =
            single_shot_seal::<Aead, Kdf, Kem>(mode, &recipient, info, plaintext, &[])?;
        Ok(Self { encapsulated_key: encapsulated_key.to_bytes().into(), ciphertext })
    }
}

impl SealingKey {
    /// What is in `envelope`, if it was sealed to this key and for `context`.
    ///
    /// # Errors
    /// When it was not, was altered, or is larger than an envelope may be.
    pub fn open(
        &self,
        envelope: &Envelope,
        context: &Context,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let size = envelope.ciphertext.len().saturating_sub(TAG);
        if size > MAX_PLAINTEXT {
            return Err(OpenError::TooLarge(size));
        }
        self.open_as(&OpModeR::Base, envelope, &context.info()).map_err(|_err| OpenError::Refused)
    }

    /// The app's key in `envelope`, if `from` sealed it.
    pub(crate) fn open_key(
        &self,
        envelope: &Envelope,
        from: &SenderPublicKey,
        context: &KeyContext,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let refused = |_err: HpkeError| OpenError::NotFromSender;
        let sender = Deserializable::from_bytes(&from.0).map_err(refused)?;
        self.open_as(&OpModeR::Auth(sender), envelope, &context.info()).map_err(refused)
    }

    fn open_as(
        &self,
        mode: &OpModeR<'_, Kem>,
        envelope: &Envelope,
        info: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
        let encapsulated = Deserializable::from_bytes(&envelope.encapsulated_key)?;
        let text = &envelope.ciphertext;
        single_shot_open::<Aead, Kdf, Kem>(mode, self.secret(), &encapsulated, info, text, &[])
            .map(Zeroizing::new)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("bytes", &self.ciphertext.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"the harbour light is out";

    fn context() -> Context {
        Context {
            chain_id: 31_337,
            leases: [1; 20],
            provider: [2; 20],
            account: [3; 32],
            pod: [4; 32],
        }
    }

    fn sealed(key: &SealingKey) -> Envelope {
        Envelope::seal(&key.public(), &context(), MESSAGE).unwrap()
    }

    #[test]
    fn opens_for_its_key_and_context() {
        let key = SealingKey::generate();
        for message in [&b""[..], MESSAGE, &vec![7; MAX_PLAINTEXT]] {
            let envelope = Envelope::seal(&key.public(), &context(), message).unwrap();
            let json = serde_json::to_string(&envelope).unwrap();
            let envelope = serde_json::from_str(&json).unwrap();
            assert!(key.open(&envelope, &context()).unwrap().as_slice() == message);
        }
    }

    #[test]
    fn no_two_envelopes_are_alike() {
        let key = SealingKey::generate();
        let (first, second) = (sealed(&key), sealed(&key));
        assert_ne!(first.encapsulated_key, second.encapsulated_key);
        assert_ne!(first.ciphertext, second.ciphertext);
    }

    #[test]
    fn opens_for_no_other_context() {
        let key = SealingKey::generate();
        let envelope = sealed(&key);
        let mut others = vec![
            Context { chain_id: 1, ..context() },
            Context { leases: [2; 20], provider: [1; 20], ..context() },
            Context { account: [4; 32], pod: [3; 32], ..context() },
        ];
        for bit in 0..8 {
            let flip = 1_u8 << bit;
            others.push(Context { chain_id: context().chain_id ^ u64::from(flip), ..context() });
            others.push(Context { leases: flipped(context().leases, 19, flip), ..context() });
            others.push(Context { provider: flipped(context().provider, 0, flip), ..context() });
            others.push(Context { account: flipped(context().account, 31, flip), ..context() });
            others.push(Context { pod: flipped(context().pod, 7, flip), ..context() });
        }
        for other in others {
            assert_eq!(key.open(&envelope, &other), Err(OpenError::Refused), "{other:?}");
        }
    }

    fn flipped<const N: usize>(mut bytes: [u8; N], index: usize, flip: u8) -> [u8; N] {
        bytes[index] ^= flip;
        bytes
    }

    #[test]
    fn opens_for_no_other_key() {
        let envelope = sealed(&SealingKey::generate());
        let other = SealingKey::generate();
        assert_eq!(other.open(&envelope, &context()), Err(OpenError::Refused));
    }

    #[test]
    fn no_bit_may_change() {
        let key = SealingKey::generate();
        let envelope = sealed(&key);
        // 255, the last of them, is the bit that X25519 disregards; the key schedule of HPKE does not.
        for bit in (0..8 * 32).step_by(5) {
            let mut other = envelope.clone();
            other.encapsulated_key[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&other, &context()), Err(OpenError::Refused), "key, bit {bit}");
        }
        for bit in (0..8 * envelope.ciphertext.len()).step_by(3) {
            let mut other = envelope.clone();
            other.ciphertext[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&other, &context()), Err(OpenError::Refused), "text, bit {bit}");
        }
        for len in 0..envelope.ciphertext.len() {
            let mut other = envelope.clone();
            other.ciphertext.truncate(len);
            assert_eq!(key.open(&other, &context()), Err(OpenError::Refused), "{len} bytes");
        }
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let key = SealingKey::generate();
        let zero = SealingPublicKey([0; 32]);
        assert_eq!(Envelope::seal(&zero, &context(), MESSAGE), Err(SealError::Key(zero)));
        let envelope = Envelope { encapsulated_key: [0; 32], ..sealed(&key) };
        assert_eq!(key.open(&envelope, &context()), Err(OpenError::Refused));
    }

    #[test]
    fn size_is_bounded() {
        let key = SealingKey::generate();
        let size = MAX_PLAINTEXT + 1;
        let sealed = Envelope::seal(&key.public(), &context(), &vec![0; size]);
        assert_eq!(sealed, Err(SealError::TooLarge(size)));
        let envelope = Envelope { encapsulated_key: [9; 32], ciphertext: vec![0; size + TAG] };
        assert_eq!(key.open(&envelope, &context()), Err(OpenError::TooLarge(size)));
    }

    #[test]
    fn only_the_two_fields_are_read() {
        let key = format!("0x{}", "9".repeat(64));
        let read =
            |json: String| serde_json::from_str::<Envelope>(&json).map_err(|e| e.to_string());
        assert!(read(format!(r#"{{"encapsulatedKey":"{key}","ciphertext":"0x00"}}"#)).is_ok());
        for (json, part) in [
            (format!(r#"{{"encapsulatedKey":"{key}","ciphertext":"0x0"}}"#), "Odd number"),
            (format!(r#"{{"encapsulatedKey":"{key}","ciphertext":"00"}}"#), "no 0x in front"),
            (r#"{"encapsulatedKey":"0x99","ciphertext":"0x00"}"#.into(), "1 bytes, not 32"),
            (format!(r#"{{"encapsulatedKey":"{key}","ciphertext":"0x","a":1}}"#), "unknown field"),
            (format!(r#"{{"encapsulatedKey":"{key}"}}"#), "missing field"),
        ] {
            let err = read(json).unwrap_err();
            assert!(err.contains(part), "{err}");
        }
    }

    /// RFC 9180, A.2.1: the suite is the one that the documents name.
    #[test]
    fn the_suite_is_that_of_the_rfc() {
        let bytes = |text| hex::decode(text).unwrap();
        let key = SealingKey::from_bytes(
            &bytes("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
                .try_into()
                .unwrap(),
        );
        let encapsulated = Deserializable::from_bytes(&bytes(
            "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        ))
        .unwrap();
        let plaintext = single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            key.secret(),
            &encapsulated,
            b"Ode on a Grecian Urn",
            &bytes(
                "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db\
                 21993c62ce81883d2dd1b51a28",
            ),
            b"Count-0",
        );
        assert_eq!(plaintext.unwrap(), b"Beauty is truth, truth beauty");
    }
}
