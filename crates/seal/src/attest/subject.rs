//! What evidence is about.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::{key::SealingPublicKey, text};

/// What [`Subject::report_data`] opens with.
const DOMAIN: &[u8] = b"roadstead attestation v1";

/// What it opens with for visitors of a host.
const VISIT_DOMAIN: &[u8] = b"roadstead visit attestation v1";

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
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo (RFC 7469): who answers at the API.
    #[serde(with = "text")]
    pub tls_key: [u8; 32],
    /// What a visitor of a host asks about; nothing where the API was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visit: Option<Visit>,
}

/// What is said about a host to a visitor of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Visit {
    /// SHA-256 of the host, in lower case, without port and final dot.
    #[serde(with = "text")]
    pub host: [u8; 32],
    /// What the visitor's connection is.
    pub connection: Connection,
    /// The lease that the host is served for.
    pub lease: u64,
    /// The hash of the pod that serves it.
    #[serde(with = "text")]
    pub pod: [u8; 32],
}

/// A visitor's connection, by what was shown on it. A key is the SHA-256 of its SubjectPublicKeyInfo (RFC 7469).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "key", content = "spki", rename_all = "kebab-case")]
pub enum Connection {
    /// Nothing: it is not encrypted.
    None,
    /// A key of the provider's own, which nobody else has: it ends there.
    Provider(#[serde(with = "text")] [u8; 32]),
    /// A key that the app's publisher brought, and has, too: it may end wherever that key was taken.
    Publisher(#[serde(with = "text")] [u8; 32]),
}

impl Subject {
    /// What the hardware signs (TDX's REPORTDATA, SEV-SNP's REPORT_DATA): SHA-512 over the domain and the fields. All
    /// fields have one size, so no two subjects have the same bytes.
    pub fn report_data(&self) -> [u8; 64] {
        let domain = if self.visit.is_some() { VISIT_DOMAIN } else { DOMAIN };
        let chain_id = self.chain_id.to_be_bytes();
        let fields =
            [domain, &self.nonce, &chain_id, &self.provider, &self.sealing_key.0, &self.tls_key];
        let mut bytes = fields.concat();
        if let Some(Visit { host, connection, lease, pod }) = &self.visit {
            let (kind, key) = (connection.kind(), connection.key().unwrap_or_default());
            bytes.extend([&host[..], &[kind], &key, &lease.to_be_bytes(), pod].concat());
        }
        let hash = digest::digest(&digest::SHA512, &bytes);
        hash.as_ref().try_into().expect("SHA-512 has 64 bytes")
    }
}

impl Visit {
    /// What stands for a host, given in lower case, without port and final dot.
    pub fn of_host(host: &str) -> [u8; 32] {
        let hash = digest::digest(&digest::SHA256, host.as_bytes());
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl Connection {
    /// Its key, if there is one.
    pub fn key(&self) -> Option<[u8; 32]> {
        match self {
            Self::None => None,
            Self::Provider(key) | Self::Publisher(key) => Some(*key),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Provider(_) => 1,
            Self::Publisher(_) => 2,
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Provider(key) => write!(f, "0x{}, the provider's own", hex::encode(key)),
            Self::Publisher(key) => write!(f, "0x{}, brought by the publisher", hex::encode(key)),
        }
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
            visit: None,
        }
    }

    fn visited(visit: Visit) -> Subject {
        Subject { visit: Some(visit), ..subject() }
    }

    fn visit() -> Visit {
        Visit {
            host: Visit::of_host("shop.example.org"),
            connection: Connection::Provider([5; 32]),
            lease: 7,
            pod: [6; 32],
        }
    }

    #[test]
    fn all_that_a_visitor_is_told_counts() {
        let ours = visited(visit()).report_data();
        assert_ne!(ours, subject().report_data());
        for other in [
            Visit { host: Visit::of_host("shop.example.com"), ..visit() },
            Visit { connection: Connection::Provider([4; 32]), ..visit() },
            Visit { connection: Connection::Publisher([5; 32]), ..visit() },
            Visit { connection: Connection::None, ..visit() },
            Visit { lease: 8, ..visit() },
            Visit { pod: [5; 32], ..visit() },
        ] {
            assert_ne!(visited(other).report_data(), ours, "{other:?}");
        }
        let other = Subject { nonce: [9; 32], ..visited(visit()) };
        assert_ne!(other.report_data(), ours);
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

    /// Computed by Python's hashlib: other implementations must agree.
    #[test]
    fn the_hash_for_a_visitor_is_what_the_documents_say() {
        assert_eq!(
            hex::encode(visited(visit()).report_data()),
            "b73b8777fa60123f0810e124010d572ff500ee4f376b6084069704723bc43b2d\
             e446959b02fa326ba97bde1c7de16dc6a70ef2c67eda9212164ab30a9b0772f1"
        );
    }
}
