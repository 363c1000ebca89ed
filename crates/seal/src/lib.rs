//! Envelopes that only one provider can open, for one pod of one account: what carries a pod's secrets.
//!
//! They are HPKE (RFC 9180) in mode Base with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305. Who sealed
//! one is not in it: the provider takes envelopes from the wallet that is signed in, and only for its pods.

mod envelope;
mod key;
mod secrets;

pub use envelope::{Context, Envelope, MAX_PLAINTEXT, OpenError, SealError};
pub use key::{ParseKeyError, SealingKey, SealingPublicKey};
pub use secrets::Secrets;
