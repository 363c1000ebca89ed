//! What a publisher entrusts to a provider, so that nobody else can use it, and the evidence on which it decides.
//!
//! - [`Envelope`]s carry a pod's secrets to one provider, for one pod of one account: HPKE (RFC 9180) in mode Base with
//!   DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and `ChaCha20Poly1305`. Who sealed one is not in it: the provider takes
//!   envelopes from the wallet that is signed in, and only for its pods.
//! - [`image`]s are encrypted once, in the OCI standard way (ocicrypt), under the key of their app.
//! - An [`AppKey`] is what is sealed anew for every provider and start: the same HPKE in mode Auth, so that the sender
//!   is known, bound to the lease and to a nonce that is used once.
//! - [`attest`] tells hardware that proves what it runs from everything else.

pub mod attest;
pub mod image;

mod app;
mod envelope;
mod key;
mod nonces;
mod secrets;
mod text;

pub use app::{AppKey, AppPublicKey, KeyContext, ParseAppKeyError, SenderKey, SenderPublicKey};
pub use envelope::{Context, Envelope, MAX_PLAINTEXT, OpenError, SealError};
pub use key::{ParseKeyError, SealingKey, SealingPublicKey};
pub use nonces::{Nonce, NonceError, Nonces};
pub use secrets::Secrets;
