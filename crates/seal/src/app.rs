//! The key of an app, which opens its images, and how it reaches a provider.

use std::fmt;

use hpke::Kem as _;
use p256::{
    SecretKey,
    elliptic_curve::sec1::ToEncodedPoint,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding},
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    attest::Attested,
    envelope::{Envelope, Kem, OpenError, SealError},
    key::{SealingKey, SealingPublicKey},
    nonces::Nonce,
    text,
};

/// What [`KeyContext::info`] opens with.
const DOMAIN: &[u8] = b"roadstead app key v1";

/// What a sender's key is derived from opens with this.
const SENDER_DOMAIN: &[u8] = b"roadstead sender key v1";

/// What is in an envelope is a P-256 scalar.
const SCALAR: usize = 32;

/// The key of an app: one P-256 pair, under which each of its images is encrypted once. It is wiped when dropped.
#[derive(Clone)]
pub struct AppKey(SecretKey);

/// The half of an [`AppKey`] that encrypts. Anybody may have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AppPublicKey(pub(crate) p256::PublicKey);

/// A PEM text that is not an app's key. It is not shown, as it may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseAppKeyError {
    /// Not the secret half.
    #[error(
        "this is no app key: it begins with BEGIN PRIVATE KEY and holds a P-256 key (PKCS #8), as \
         `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` writes it"
    )]
    Private,
    /// Not the public half.
    #[error(
        "this is no public app key: it begins with BEGIN PUBLIC KEY and holds a P-256 key (X.509), as \
         `openssl pkey -pubout` writes it"
    )]
    Public,
}

/// What an app's key is sealed for (HPKE's `info`): it opens for this one start and for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyContext {
    /// The chain.
    pub chain_id: u64,
    /// The address of the Leases contract.
    pub leases: [u8; 20],
    /// The account that pays, which is the app's.
    pub account: [u8; 32],
    /// The lease.
    pub lease: u64,
    /// The provider's address.
    pub provider: [u8; 20],
    /// The pod's hash.
    pub pod: [u8; 32],
    /// What the provider gave out for this start (see [`Nonces`](crate::Nonces)).
    pub nonce: Nonce,
}

/// The X25519 key by which a publisher or a keeper is known as the sender of app keys.
///
/// A wallet has it without storing it: it signs [`SenderKey::message`] (EIP-191), and what it signed is the seed. The
/// signature is therefore as secret as the key, and whoever else gets it can send in the wallet's name. This takes a
/// wallet that signs the same text the same way each time (RFC 6979, which software wallets do). Others generate a key,
/// keep it, and vouch for it with [`SenderPublicKey::claim`], as everybody must.
#[derive(Clone)]
pub struct SenderKey(pub(crate) SealingKey);

/// The public half of a [`SenderKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SenderPublicKey(#[serde(with = "text")] pub [u8; 32]);

impl AppKey {
    /// A new key.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn generate() -> Self {
        loop {
            let mut scalar = Zeroizing::new([0; SCALAR]);
            SystemRandom::new().fill(scalar.as_mut_slice()).expect("the system has randomness");
            // One in 2^32 is not below the curve's order.
            if let Ok(key) = SecretKey::from_slice(scalar.as_slice()) {
                return Self(key);
            }
        }
    }

    /// The key in a PKCS #8 PEM text (RFC 5958, RFC 7468), which skopeo takes as `--decryption-key`.
    ///
    /// # Errors
    /// When it holds anything but a P-256 private key.
    pub fn from_pem(pem: &str) -> Result<Self, ParseAppKeyError> {
        SecretKey::from_pkcs8_pem(pem).map(Self).map_err(|_err| ParseAppKeyError::Private)
    }

    /// The key as a PKCS #8 PEM text, to be kept where only the publisher reads.
    pub fn to_pem(&self) -> Zeroizing<String> {
        self.0.to_pkcs8_pem(LineEnding::LF).expect("a P-256 key has an encoding")
    }

    /// The half that encrypts.
    pub fn public(&self) -> AppPublicKey {
        AppPublicKey(self.0.public_key())
    }

    /// Seals the key to a provider for one start.
    ///
    /// Whoever asks for attested hardware calls [`AppKey::seal_to_attested`] instead, which has no key to be mistaken
    /// in.
    ///
    /// # Errors
    /// When nothing can be sealed to `to`.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn seal(
        &self,
        to: &SealingPublicKey,
        from: &SenderKey,
        context: &KeyContext,
    ) -> Result<Envelope, SealError> {
        Envelope::seal_key(to, from, context, &Zeroizing::new(self.0.to_bytes()))
    }

    /// Seals the key to the provider that `attested` is about, under the sealing key that its hardware vouched for.
    ///
    /// # Errors
    /// When the evidence is about another chain or provider than `context`, or nothing can be sealed to its key.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn seal_to_attested(
        &self,
        attested: &Attested,
        from: &SenderKey,
        context: &KeyContext,
    ) -> Result<Envelope, SealError> {
        let subject = attested.subject();
        if (subject.chain_id, subject.provider) != (context.chain_id, context.provider) {
            return Err(SealError::OtherEvidence);
        }
        self.seal(&subject.sealing_key, from, context)
    }

    /// The key in `envelope`, if `from` sealed it to `key` for `context`.
    ///
    /// # Errors
    /// When that is not so, or it was altered, or holds something else.
    pub fn open(
        envelope: &Envelope,
        key: &SealingKey,
        from: &SenderPublicKey,
        context: &KeyContext,
    ) -> Result<Self, OpenError> {
        let scalar = key.open_key(envelope, from, context)?;
        if scalar.len() != SCALAR {
            return Err(OpenError::NotKey);
        }
        SecretKey::from_slice(&scalar).map(Self).map_err(|_err| OpenError::NotKey)
    }

    pub(crate) fn secret(&self) -> &SecretKey {
        &self.0
    }
}

impl AppPublicKey {
    /// The key in a PEM text of its SubjectPublicKeyInfo (RFC 5280), which skopeo takes as `--encryption-key jwe:`.
    ///
    /// # Errors
    /// When it holds anything but a P-256 public key.
    pub fn from_pem(pem: &str) -> Result<Self, ParseAppKeyError> {
        p256::PublicKey::from_public_key_pem(pem).map(Self).map_err(|_err| ParseAppKeyError::Public)
    }

    /// The key as a PEM text.
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("a P-256 key has an encoding")
    }
}

impl KeyContext {
    /// All fields have one size, so no two contexts have the same bytes.
    pub(crate) fn info(&self) -> Vec<u8> {
        let (chain_id, lease) = (self.chain_id.to_be_bytes(), self.lease.to_be_bytes());
        let (account, provider, pod) = (&self.account, &self.provider, &self.pod);
        [DOMAIN, &chain_id, &self.leases, account, &lease, provider, pod, &self.nonce.0].concat()
    }
}

impl SenderKey {
    /// What a wallet signs (EIP-191) to derive its key for the market of one Leases contract.
    pub fn message(chain_id: u64, leases: &[u8; 20]) -> String {
        format!(
            "Roadstead: derive the key that seals my apps' keys.\n\n\
             Whoever has this signature can send app keys in my name. Sign it nowhere but in Roadstead.\n\n\
             Chain: {chain_id}\n\
             Leases: 0x{}",
            hex::encode(leases)
        )
    }

    /// The key of the wallet whose signature over [`SenderKey::message`] this is: `r` and `s`, without the parity.
    ///
    /// It is RFC 9180's `DeriveKeyPair` over the domain and the signature.
    pub fn from_signature(signature: &[u8; 64]) -> Self {
        let mut seed = Zeroizing::new([0; SENDER_DOMAIN.len() + 64]);
        let (domain, rest) = seed.split_at_mut(SENDER_DOMAIN.len());
        domain.copy_from_slice(SENDER_DOMAIN);
        rest.copy_from_slice(signature);
        Self(SealingKey::of(Kem::derive_keypair(seed.as_slice()).0))
    }

    /// A new key, for a sender whose wallet does not sign the same way twice.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn generate() -> Self {
        Self(SealingKey::generate())
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SealingKey::from_bytes(bytes))
    }

    /// The key's bytes, to be kept where only the sender reads.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> SenderPublicKey {
        SenderPublicKey(self.0.public().0)
    }
}

impl SenderPublicKey {
    /// What a wallet signs (EIP-191) so that providers take app keys from this sender as the wallet's own. This
    /// signature is public.
    pub fn claim(&self, chain_id: u64, leases: &[u8; 20]) -> String {
        format!(
            "Roadstead: app keys that are sealed by {self} come from me.\n\n\
             Chain: {chain_id}\n\
             Leases: 0x{}",
            hex::encode(leases)
        )
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl fmt::Debug for AppPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppPublicKey(0x{})", hex::encode(self.0.to_encoded_point(true)))
    }
}

impl fmt::Debug for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl fmt::Display for SenderPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SenderPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SenderPublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> KeyContext {
        KeyContext {
            chain_id: 31_337,
            leases: [1; 20],
            account: [2; 32],
            lease: 7,
            provider: [3; 20],
            pod: [4; 32],
            nonce: Nonce([5; 32]),
        }
    }

    struct Parties {
        app: AppKey,
        provider: SealingKey,
        sender: SenderKey,
    }

    fn parties() -> Parties {
        Parties {
            app: AppKey::generate(),
            provider: SealingKey::generate(),
            sender: SenderKey::generate(),
        }
    }

    fn sealed(parties: &Parties) -> Envelope {
        parties.app.seal(&parties.provider.public(), &parties.sender, &context()).unwrap()
    }

    #[test]
    fn opens_for_its_provider_sender_and_context() {
        let parties = parties();
        let json = serde_json::to_string(&sealed(&parties)).unwrap();
        let envelope = serde_json::from_str(&json).unwrap();
        let sender = parties.sender.public();
        let opened = AppKey::open(&envelope, &parties.provider, &sender, &context()).unwrap();
        assert_eq!(opened.to_pem(), parties.app.to_pem());
    }

    #[test]
    fn opens_for_nothing_else() {
        let parties = parties();
        let envelope = sealed(&parties);
        let open = |key: &SealingKey, from: &SenderKey, context: &KeyContext| {
            AppKey::open(&envelope, key, &from.public(), context).map(|_key| ())
        };
        for other in [
            KeyContext { chain_id: 1, ..context() },
            KeyContext { leases: [9; 20], ..context() },
            KeyContext { account: [9; 32], ..context() },
            KeyContext { lease: 8, ..context() },
            KeyContext { provider: [9; 20], ..context() },
            KeyContext { pod: [9; 32], ..context() },
            KeyContext { nonce: Nonce([9; 32]), ..context() },
        ] {
            let opened = open(&parties.provider, &parties.sender, &other);
            assert_eq!(opened, Err(OpenError::NotFromSender), "{other:?}");
        }
        let opened = open(&SealingKey::generate(), &parties.sender, &context());
        assert_eq!(opened, Err(OpenError::NotFromSender));
        let opened = open(&parties.provider, &SenderKey::generate(), &context());
        assert_eq!(opened, Err(OpenError::NotFromSender));
        assert_eq!(open(&parties.provider, &parties.sender, &context()), Ok(()));
    }

    /// Only mode Auth opens: an envelope of mode Base, which anybody can seal, is no app key even with the same `info`.
    #[test]
    fn an_envelope_without_a_sender_is_refused() {
        let parties = parties();
        let secrets = crate::Context {
            chain_id: 31_337,
            leases: [1; 20],
            provider: [3; 20],
            account: [2; 32],
            pod: [4; 32],
        };
        let key = parties.app.secret().to_bytes();
        let envelope = Envelope::seal(&parties.provider.public(), &secrets, &key).unwrap();
        let sender = parties.sender.public();
        let opened = AppKey::open(&envelope, &parties.provider, &sender, &context());
        assert_eq!(opened.unwrap_err(), OpenError::NotFromSender);
        assert!(parties.provider.open(&sealed(&parties), &secrets).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let parties = parties();
        for contents in [&[][..], &[0; 32], &[0xff; 32], &[1; 31], &[1; 33]] {
            let envelope = Envelope::seal_key(
                &parties.provider.public(),
                &parties.sender,
                &context(),
                contents,
            )
            .unwrap();
            let sender = parties.sender.public();
            let opened = AppKey::open(&envelope, &parties.provider, &sender, &context());
            assert_eq!(opened.unwrap_err(), OpenError::NotKey, "{contents:?}");
        }
    }

    #[test]
    fn a_key_is_kept_as_pem() {
        let key = AppKey::generate();
        let pem = key.to_pem();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(AppKey::from_pem(&pem).unwrap().to_pem(), pem);
        let public = key.public();
        assert_eq!(AppPublicKey::from_pem(&public.to_pem()).unwrap(), public);
        assert_eq!(AppKey::from_pem(&public.to_pem()).unwrap_err(), ParseAppKeyError::Private);
        assert_eq!(AppPublicKey::from_pem(&pem).unwrap_err(), ParseAppKeyError::Public);
        assert_eq!(AppKey::from_pem("").unwrap_err(), ParseAppKeyError::Private);
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(AppKey::from_pem(&p384.serialize_pem()).is_err());
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(AppKey::from_pem(&p256.serialize_pem()).is_ok());
    }

    #[test]
    fn a_wallet_has_one_sender_key_per_market() {
        let message = SenderKey::message(31_337, &[0xab; 20]);
        assert!(
            message.ends_with("Chain: 31337\nLeases: 0xabababababababababababababababababababab")
        );
        let of = |byte| SenderKey::from_signature(&[byte; 64]).public();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        // Made once, by this code: a sender is known by the same key after an update.
        let of_old = "0x5896c2552854457d250af68944325951226967016c824a8df61029f04d5cf274";
        assert_eq!(of(1).to_string(), of_old);
        assert!(of(1).claim(1, &[0; 20]).contains(&of(1).to_string()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = AppKey::generate();
        let shown = format!("{key:?} {:?}", SenderKey::from_bytes(&[0x42; 32]));
        assert!(!shown.contains(&hex::encode(key.secret().to_bytes())), "{shown}");
        assert!(!shown.contains("424242"), "{shown}");
    }
}
