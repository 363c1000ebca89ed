//! What evidence is about.

use ring::digest;
use serde::Serialize;

use crate::{key::SealingPublicKey, text};

/// What [`Subject::report_data`] opens with.
const DOMAIN: &[u8] = b"roadstead attestation v1";

/// What evidence is bound to: who asked, and the keys of who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// 32 random bytes of whoever asked, so that the answer is fresh. (The [`Nonce`](crate::Nonce) of an app's key is
    /// another: that one the provider gives out.)
    #[serde(with = "text")]
    pub nonce: [u8; 32],
    /// The chain.
    pub chain_id: u64,
    /// The provider's address on it.
    #[serde(with = "text")]
    pub provider: [u8; 20],
    /// The key to which secrets are sealed.
    pub sealing_key: SealingPublicKey,
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo (RFC 7469): whom one talks to.
    #[serde(with = "text")]
    pub tls_key: [u8; 32],
}

impl Subject {
    /// What the hardware signs (TDX's REPORTDATA, SEV-SNP's REPORT_DATA): SHA-512 over the domain and the fields. All
    /// fields have one size, so no two subjects have the same bytes.
    pub fn report_data(&self) -> [u8; 64] {
        let chain_id = self.chain_id.to_be_bytes();
        let fields =
            [DOMAIN, &self.nonce, &chain_id, &self.provider, &self.sealing_key.0, &self.tls_key];
        let hash = digest::digest(&digest::SHA512, &fields.concat());
        hash.as_ref().try_into().expect("SHA-512 has 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            nonce: [1; 32],
            chain_id: 31_337,
            provider: [2; 20],
            sealing_key: SealingPublicKey([3; 32]),
            tls_key: [4; 32],
        }
    }

    #[test]
    fn every_field_counts() {
        let ours = subject().report_data();
        for other in [
            Subject { nonce: [9; 32], ..subject() },
            Subject { chain_id: 1, ..subject() },
            Subject { provider: [9; 20], ..subject() },
            Subject { sealing_key: SealingPublicKey([9; 32]), ..subject() },
            Subject { tls_key: [9; 32], ..subject() },
            Subject { sealing_key: SealingPublicKey([4; 32]), tls_key: [3; 32], ..subject() },
        ] {
            assert_ne!(other.report_data(), ours, "{other:?}");
        }
    }

    /// Computed by Python's hashlib: other implementations must agree.
    #[test]
    fn the_hash_is_what_the_documents_say() {
        assert_eq!(
            hex::encode(subject().report_data()),
            "f8c17cb7361c44d94321704707683f06ead8d3a2d453f9f27ab18b3595d12224\
             115e00ad09a9aea99edecf1be11db8cc3ce624cfea22107b89d8adcca7c73dd2"
        );
    }
}
