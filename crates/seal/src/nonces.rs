//! The nonces that make a sealed app key good for one start.

use std::{collections::HashMap, fmt};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::text;

/// 32 random bytes that are used once. Written as `0x` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "text")] pub [u8; 32]);

/// The nonces that a provider gave out and that were not used yet: at most one per lease. They are kept in memory
/// only, so that a restart asks for fresh ones.
#[derive(Debug, Default)]
pub struct Nonces(HashMap<u64, Waiting>);

#[derive(Debug)]
struct Waiting {
    nonce: Nonce,
    until: u64,
}

/// Why a nonce was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceError {
    /// Never given out, used already, or replaced by a newer one.
    #[error("lease {0} waits for no key under this nonce: ask for a new one and seal again")]
    Unknown(u64),
    /// Given out too long ago.
    #[error("the nonce of lease {0} is too old: ask for a new one and seal again")]
    Expired(u64),
}

impl Nonce {
    /// A new nonce.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
        Self(bytes)
    }
}

impl Nonces {
    /// How long a nonce waits for its key, in seconds.
    pub const LIFE_SECS: u64 = 600;

    /// Gives out a nonce for the next start of `lease`. One that was given out before is no longer taken.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn issue(&mut self, lease: u64, now: u64) -> Nonce {
        self.0.retain(|_lease, waiting| now <= waiting.until);
        let nonce = Nonce::generate();
        self.0.insert(lease, Waiting { nonce, until: now.saturating_add(Self::LIFE_SECS) });
        nonce
    }

    /// Takes the nonce of a key that arrived. It is taken once, whatever comes of the key.
    ///
    /// # Errors
    /// When `lease` does not wait for it.
    pub fn take(&mut self, lease: u64, nonce: &Nonce, now: u64) -> Result<(), NonceError> {
        let waiting = self.0.get(&lease).filter(|waiting| waiting.nonce == *nonce);
        let until = waiting.ok_or(NonceError::Unknown(lease))?.until;
        self.0.remove(&lease);
        if now > until {
            return Err(NonceError::Expired(lease));
        }
        Ok(())
    }

    /// Forgets the nonce of a lease that is closed.
    pub fn forget(&mut self, lease: u64) {
        self.0.remove(&lease);
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_once_and_in_time() {
        let mut nonces = Nonces::default();
        let nonce = nonces.issue(1, 1_000);
        assert_eq!(nonces.take(2, &nonce, 1_000), Err(NonceError::Unknown(2)));
        assert_eq!(nonces.take(1, &Nonce([0; 32]), 1_000), Err(NonceError::Unknown(1)));
        assert_eq!(nonces.take(1, &nonce, 1_000 + Nonces::LIFE_SECS), Ok(()));
        assert_eq!(nonces.take(1, &nonce, 1_000), Err(NonceError::Unknown(1)));

        let late = nonces.issue(1, 1_000);
        let after = 1_001 + Nonces::LIFE_SECS;
        assert_eq!(nonces.take(1, &late, after), Err(NonceError::Expired(1)));
        assert_eq!(nonces.take(1, &late, 1_000), Err(NonceError::Unknown(1)));
    }

    #[test]
    fn the_newest_counts_and_a_closed_lease_waits_for_none() {
        let mut nonces = Nonces::default();
        let (old, new) = (nonces.issue(1, 0), nonces.issue(1, 0));
        assert_eq!(nonces.take(1, &old, 0), Err(NonceError::Unknown(1)));
        assert_eq!(nonces.take(1, &new, 0), Ok(()));
        let nonce = nonces.issue(1, 0);
        nonces.forget(1);
        assert_eq!(nonces.take(1, &nonce, 0), Err(NonceError::Unknown(1)));
        for lease in 0..100 {
            nonces.issue(lease, 0);
        }
        nonces.issue(1, Nonces::LIFE_SECS + 1);
        assert_eq!(nonces.0.len(), 1);
    }

    #[test]
    fn a_nonce_survives_its_text() {
        let nonce = Nonce::generate();
        assert_ne!(nonce, Nonce::generate());
        let json = serde_json::to_string(&nonce).unwrap();
        assert_eq!(json, format!("\"{nonce}\""));
        assert_eq!(serde_json::from_str::<Nonce>(&json).unwrap(), nonce);
    }
}
