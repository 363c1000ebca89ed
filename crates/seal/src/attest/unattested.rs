//! What a machine without attestation can say of itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Subject, Visit};
use crate::text;

/// A provider's own word for its keys, signed by its wallet (EIP-191). It says nothing of what runs there, is shown as
/// `UNATTESTED`, and is never converted into an [`Attested`](super::Attested).
///
/// This crate knows no wallets: who calls checks the signature over [`Unattested::message`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unattested {
    /// `r`, `s` and the parity.
    #[serde(with = "text")]
    pub signature: [u8; 65],
}

impl Unattested {
    /// What the wallet signs. It says what it is not, so that it cannot be passed off as more.
    pub fn message(subject: &Subject) -> String {
        let mut message = format!(
            "UNATTESTED: this machine has no hardware that proves what it runs.\n\n\
             Chain: {}\n\
             Provider: 0x{}\n\
             Sealing key: {}\n\
             TLS key: 0x{}\n\
             Nonce: 0x{}",
            subject.chain_id,
            hex::encode(subject.provider),
            subject.sealing_key,
            hex::encode(subject.tls_key),
            hex::encode(subject.nonce),
        );
        if let Some(Visit { host, connection, lease, pod }) = &subject.visit {
            let (host, pod) = (hex::encode(host), hex::encode(pod));
            message.push_str(&format!(
                "\nHost: SHA-256 0x{host}\n\
                 Key of the visitor's connection: {connection}\n\
                 Lease: {lease}\n\
                 Pod: 0x{pod}"
            ));
        }
        message
    }
}

impl fmt::Display for Unattested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UNATTESTED")
    }
}

impl fmt::Debug for Unattested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unattested(0x{})", hex::encode(self.signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        SealingPublicKey,
        attest::{Connection, Evidence},
    };

    fn message(visit: Option<Visit>) -> String {
        Unattested::message(&Subject {
            nonce: [1; 32],
            chain_id: 31_337,
            provider: [2; 20],
            sealing_key: SealingPublicKey([3; 32]),
            tls_key: [4; 32],
            visit,
        })
    }

    #[test]
    fn says_what_it_is() {
        let message = message(None);
        assert!(message.starts_with("UNATTESTED: "), "{message}");
        let fields = [[1_u8; 32], [3; 32], [4; 32]].map(hex::encode);
        assert!(fields.iter().all(|field| message.contains(field)), "{message}");
        assert!(message.contains(&hex::encode([2; 20])) && message.contains("Chain: 31337"));
        assert_eq!(Unattested { signature: [7; 65] }.to_string(), "UNATTESTED");
    }

    #[test]
    fn says_what_a_visitor_was_shown() {
        let visit = Visit {
            host: [5; 32],
            connection: Connection::Publisher([6; 32]),
            lease: 7,
            pod: [8; 32],
        };
        let told = message(Some(visit));
        let more = told.strip_prefix(&message(None)).unwrap();
        let fields = [[5_u8; 32], [6; 32], [8; 32]].map(hex::encode);
        assert!(fields.iter().all(|field| more.contains(field)), "{more}");
        assert!(more.contains("brought by the publisher") && more.contains("Lease: 7"), "{more}");
    }

    #[test]
    fn is_no_evidence() {
        let json = serde_json::to_string(&Unattested { signature: [7; 65] }).unwrap();
        assert!(serde_json::from_str::<Unattested>(&json).is_ok());
        assert!(serde_json::from_str::<Evidence>(&json).is_err());
    }
}
