//! Evidence of what a provider's machine runs, and who may be trusted with what.
//!
//! A provider answers a nonce with [`Evidence`], which a TDX module (Intel) or an SEV-SNP firmware (AMD) signed over a
//! [`Subject`]: the nonce, the provider's address on its chain, its sealing key and its TLS key, and, for a visitor of a host,
//! the key of that very connection and what is served there. Only [`verify`]
//! makes an [`Attested`] of it: offline, up to the roots of Intel and AMD that are pinned here, at a time that the
//! caller gives.
//!
//! A machine without such hardware signs an [`Unattested`] statement with its wallet. That is a type of its own. It
//! names the same subject, proves that the wallet's holder claims it, and nothing of what runs there. Nothing makes
//! an [`Attested`] of it, so it unlocks nothing that asks for one:
//!
//! ```compile_fail,E0308
//! # use seal::{AppKey, Envelope, KeyContext, SealError, SenderKey, attest::Unattested};
//! fn seal(key: &AppKey, who: &Unattested, from: &SenderKey, to: &KeyContext) -> Result<Envelope, SealError> {
//!     key.seal_to_attested(who, from, to)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use seal::{Context, Envelope, SealError, Secrets, attest::Unattested};
//! fn seal(secrets: &Secrets, who: &Unattested, context: &Context) -> Result<Envelope, SealError> {
//!     secrets.seal_to_attested(who, context)
//! }
//! ```
//!
//! Neither is an [`Attested`] read from anywhere: it is not deserialized, and has no other constructor.
//!
//! ```compile_fail,E0277
//! let attested: seal::attest::Attested = serde_json::from_str("{}").unwrap();
//! ```

mod certificates;
mod measurement;
mod snp;
mod subject;
mod tdx;
mod tsm;
mod unattested;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use self::{
    certificates::Der,
    measurement::{Measurement, ParseMeasurementError, Registers},
    snp::{Product, SnpError, Tcb},
    subject::{Connection, Subject, Visit},
    tdx::{Collateral, TdxError},
    tsm::{Tsm, TsmError},
    unattested::Unattested,
};
use crate::text;

/// What signed the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Intel Trust Domain Extensions.
    Tdx,
    /// AMD Secure Encrypted Virtualization, Secure Nested Paging.
    SevSnp,
}

/// What hardware says, to be judged by [`verify`]. Written as JSON, bytes as `0x` texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Evidence {
    /// An Intel TDX quote (version 4 or 5, ECDSA P-256).
    Tdx {
        /// The quote.
        #[serde(with = "text")]
        quote: Vec<u8>,
        /// What Intel publishes for this kind of platform. It is signed by Intel, so anybody may add it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        collateral: Option<Box<Collateral>>,
    },
    /// An AMD SEV-SNP attestation report (firmware ABI specification, 56860).
    SevSnp {
        /// The report.
        #[serde(with = "text")]
        report: Vec<u8>,
        /// The chip's or cloud's key (VCEK or VLEK) and AMD's key that signed it (ASK or ASVK), in any order. They are
        /// signed up to AMD's root, so anybody may add them.
        #[serde(default)]
        certificates: Vec<Der>,
    },
}

/// What evidence must show besides being genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What may run there.
    pub measurements: Accepted,
    /// The oldest firmware that is taken of each AMD product, as AMD's security bulletins name it. A product that is
    /// not here is refused. (Intel signs which firmware is up to date, so that there is nothing to name.)
    pub oldest: BTreeMap<Product, Tcb>,
}

/// Which measurements are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Whatever runs there: for showing it, not for trusting it.
    Any,
    /// These.
    OneOf(Vec<Measurement>),
}

/// Why evidence was refused.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// A TDX quote.
    #[error("the TDX quote is refused")]
    Tdx(#[source] TdxError),
    /// An SEV-SNP report.
    #[error("the SEV-SNP report is refused")]
    Snp(#[source] SnpError),
    /// Genuine, and somebody else's or old.
    #[error(
        "the evidence is genuine, but about another nonce, chain, provider, key, host, lease or pod: it may be replayed, or be another connection's"
    )]
    OtherSubject,
    /// Genuine, and something else runs there.
    #[error("the evidence is genuine, but {0} runs there, which is not among what you accept")]
    OtherMeasurement(Measurement),
}

/// Evidence that was found to be genuine, up to date, about this subject and of an accepted measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attested {
    kind: Kind,
    measurement: Measurement,
    registers: Registers,
    platform: String,
    subject: Subject,
}

/// What genuine evidence says.
#[derive(Debug, Clone)]
struct Facts {
    kind: Kind,
    registers: Registers,
    platform: String,
    report_data: [u8; 64],
}

/// Judges evidence: genuine up to the pinned roots, up to date at `now` (seconds since 1970), about `subject`, and of a
/// measurement that `policy` accepts.
///
/// # Errors
/// When it is not.
pub fn verify(
    evidence: &Evidence,
    subject: &Subject,
    policy: &Policy,
    now: u64,
) -> Result<Attested, AttestError> {
    let facts = match evidence {
        Evidence::Tdx { quote, collateral } => {
            tdx::verify(quote, collateral.as_deref(), now).map_err(AttestError::Tdx)?
        }
        Evidence::SevSnp { report, certificates } => {
            snp::verify(report, certificates, &policy.oldest, now).map_err(AttestError::Snp)?
        }
    };
    facts.about(subject, &policy.measurements)
}

impl Facts {
    fn about(self, subject: &Subject, accepted: &Accepted) -> Result<Attested, AttestError> {
        if self.report_data != subject.report_data() {
            return Err(AttestError::OtherSubject);
        }
        let measurement = self.registers.measurement();
        if let Accepted::OneOf(accepted) = accepted
            && !accepted.contains(&measurement)
        {
            return Err(AttestError::OtherMeasurement(measurement));
        }
        let Self { kind, registers, platform, report_data: _ } = self;
        Ok(Attested { kind, measurement, registers, platform, subject: *subject })
    }
}

impl Attested {
    /// What signed the evidence.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What runs there, as one hash, which is what the Registry's listing claims.
    pub fn measurement(&self) -> Measurement {
        self.measurement
    }

    /// What runs there, in the hardware's own terms.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// What the evidence is about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdx => "tdx",
            Self::SevSnp => "sev-snp",
        })
    }
}

impl fmt::Display for Attested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attested by {} ({}), measurement {}", self.kind, self.platform, self.measurement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Nonce, SealingKey};

    fn subject() -> Subject {
        Subject {
            nonce: [1; 32],
            chain_id: 1,
            provider: [2; 20],
            sealing_key: SealingKey::from_bytes(&[3; 32]).public(),
            tls_key: [4; 32],
            visit: None,
        }
    }

    fn facts() -> Facts {
        Facts {
            kind: Kind::SevSnp,
            registers: Registers::sample(),
            platform: "Milan".into(),
            report_data: subject().report_data(),
        }
    }

    #[test]
    fn genuine_evidence_counts_for_its_subject_and_measurement() {
        let ours = Registers::sample().measurement();
        let attested = facts().about(&subject(), &Accepted::Any).unwrap();
        assert_eq!((attested.measurement(), attested.subject()), (ours, &subject()));
        assert!(attested.to_string().starts_with("attested by sev-snp (Milan), measurement 0x"));
        assert!(facts().about(&subject(), &Accepted::OneOf(vec![ours])).is_ok());

        let other = Subject { nonce: [9; 32], ..subject() };
        let err = facts().about(&other, &Accepted::Any).unwrap_err();
        assert!(matches!(err, AttestError::OtherSubject));
        for accepted in [vec![], vec![Measurement([0; 32])]] {
            let err = facts().about(&subject(), &Accepted::OneOf(accepted)).unwrap_err();
            assert!(matches!(err, AttestError::OtherMeasurement(found) if found == ours));
        }
    }

    #[test]
    fn a_key_goes_only_to_what_was_attested() {
        let attested = facts().about(&subject(), &Accepted::Any).unwrap();
        let (app, sender) = (crate::AppKey::generate(), crate::SenderKey::generate());
        let context = crate::KeyContext {
            chain_id: 1,
            leases: [0; 20],
            account: [0; 32],
            lease: 1,
            provider: [2; 20],
            pod: [0; 32],
            nonce: Nonce([1; 32]),
        };
        let envelope = app.seal_to_attested(&attested, &sender, &context).unwrap();
        let key = SealingKey::from_bytes(&[3; 32]);
        assert!(crate::AppKey::open(&envelope, &key, &sender.public(), &context).is_ok());
        for other in [
            crate::KeyContext { chain_id: 2, ..context },
            crate::KeyContext { provider: [3; 20], ..context },
        ] {
            let sealed = app.seal_to_attested(&attested, &sender, &other);
            assert_eq!(sealed, Err(crate::SealError::OtherEvidence));
        }
    }

    #[test]
    fn secrets_go_only_to_what_was_attested() {
        let attested = facts().about(&subject(), &Accepted::Any).unwrap();
        let secrets = crate::Secrets([("word".to_owned(), b"sword".to_vec().into())].into());
        let context = crate::Context {
            chain_id: 1,
            leases: [0; 20],
            provider: [2; 20],
            account: [0; 32],
            pod: [0; 32],
        };
        let envelope = secrets.seal_to_attested(&attested, &context).unwrap();
        let key = SealingKey::from_bytes(&[3; 32]);
        assert!(crate::Secrets::open(&envelope, &key, &context).unwrap() == secrets);
        for other in [
            crate::Context { chain_id: 2, ..context },
            crate::Context { provider: [3; 20], ..context },
        ] {
            let sealed = secrets.seal_to_attested(&attested, &other);
            assert_eq!(sealed, Err(crate::SealError::OtherEvidence));
        }
    }
}
