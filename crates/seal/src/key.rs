//! The key that a provider publishes in the Registry, and its secret half.

use std::{fmt, str::FromStr};

use hpke::{Deserializable, Kem as _, Serializable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::envelope::Kem;

/// An X25519 public key, to which anybody can seal. Written as `0x` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealingPublicKey(pub [u8; 32]);

/// A text that is not a [`SealingPublicKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sealing key (0x and 64 hexadecimal digits)")]
pub struct ParseKeyError(String);

/// The secret half of a [`SealingPublicKey`]. It is wiped from memory when dropped.
#[derive(Clone)]
pub struct SealingKey(<Kem as hpke::Kem>::PrivateKey);

impl SealingKey {
    /// A new key from the system's randomness.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn generate() -> Self {
        Self(Kem::gen_keypair().0)
    }

    /// The key with these bytes. Every 32 bytes are one: X25519 sets the bits that must be set.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Deserializable::from_bytes(bytes).expect("any 32 bytes are an X25519 key"))
    }

    /// The key's bytes, to be kept where only the provider reads.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.0.write_exact(bytes.as_mut_slice());
        bytes
    }

    /// The public half.
    pub fn public(&self) -> SealingPublicKey {
        SealingPublicKey(Kem::sk_to_pk(&self.0).to_bytes().into())
    }

    pub(crate) fn of(secret: <Kem as hpke::Kem>::PrivateKey) -> Self {
        Self(secret)
    }

    pub(crate) fn secret(&self) -> &<Kem as hpke::Kem>::PrivateKey {
        &self.0
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl fmt::Display for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublicKey({self})")
    }
}

impl FromStr for SealingPublicKey {
    type Err = ParseKeyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        text.strip_prefix("0x")
            .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
            .ok_or_else(|| ParseKeyError(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

impl From<[u8; 32]> for SealingPublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<SealingPublicKey> for [u8; 32] {
    fn from(key: SealingPublicKey) -> Self {
        key.0
    }
}

impl Serialize for SealingPublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SealingPublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_survives_its_text() {
        let key = SealingKey::generate().public();
        assert_eq!(key.to_string().parse(), Ok(key));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{key}\""));
        assert_eq!(serde_json::from_str::<SealingPublicKey>(&json).unwrap(), key);
        assert_eq!(SealingPublicKey::from(<[u8; 32]>::from(key)), key);
    }

    #[test]
    fn a_text_that_is_no_key_is_named() {
        let digits = "7".repeat(64);
        for text in ["", "0x", "0x77", &digits, &format!("0x{digits}77"), &format!("0xg{digits}")] {
            let err = text.parse::<SealingPublicKey>().unwrap_err();
            assert!(err.to_string().contains("64 hexadecimal digits"), "{text}: {err}");
        }
    }

    #[test]
    fn a_key_is_kept_by_its_bytes() {
        let key = SealingKey::generate();
        assert_ne!(key.public(), SealingKey::generate().public());
        assert_eq!(SealingKey::from_bytes(&key.to_bytes()).public(), key.public());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let key = SealingKey::from_bytes(&[0x42; 32]);
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().to_string()));
        assert!(!shown.contains(&hex::encode(&key.to_bytes()[1..])), "{shown}");
        assert!(!shown.contains("66, 66"), "{shown}");
    }
}
