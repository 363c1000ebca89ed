//! AMD's certificates (X.509 with RSASSA-PSS, SHA-384): chains of three up to a pinned root.

use ring::signature::{self, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use x509_cert::der::{Decode, Encode, oid::ObjectIdentifier};

use crate::text;

/// A certificate in DER. Written as a `0x` text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Der(#[serde(with = "text")] pub Vec<u8>);

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChainError {
    #[error("is not signed by the key above it")]
    Signature,
    #[error("is not valid at this time")]
    Time,
    #[error("must not sign certificates")]
    NotAuthority,
}

/// A certificate that was read.
#[derive(Debug)]
pub(super) struct Certificate(x509_cert::Certificate);

impl std::fmt::Debug for Der {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Der({} bytes)", self.0.len())
    }
}

impl Certificate {
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        x509_cert::Certificate::from_der(der).ok().map(Self)
    }

    /// The common name that the certificate is for.
    pub(super) fn name(&self) -> String {
        common_name(self.0.tbs_certificate().subject())
    }

    /// Whether `above` signed it, at a time when both are valid.
    pub(super) fn follows(&self, above: &Self, now: u64) -> Result<(), ChainError> {
        let (ours, theirs) = (self.0.tbs_certificate(), above.0.tbs_certificate());
        let signed = ours.to_der().map_err(|_err| ChainError::Signature)?;
        let algorithm = &self.0.signature_algorithm().oid;
        if *algorithm != RSASSA_PSS || ours.issuer() != theirs.subject() {
            return Err(ChainError::Signature);
        }
        UnparsedPublicKey::new(&signature::RSA_PSS_2048_8192_SHA384, above.key())
            .verify(&signed, self.0.signature().raw_bytes())
            .map_err(|_err| ChainError::Signature)?;
        if !above.is_authority() {
            return Err(ChainError::NotAuthority);
        }
        self.in_time(now).and(above.in_time(now))
    }

    fn in_time(&self, now: u64) -> Result<(), ChainError> {
        let validity = self.0.tbs_certificate().validity();
        let (from, until) = (validity.not_before, validity.not_after);
        let range = from.to_unix_duration().as_secs()..=until.to_unix_duration().as_secs();
        if range.contains(&now) { Ok(()) } else { Err(ChainError::Time) }
    }

    /// Whether its basic constraints open with `cA TRUE`.
    fn is_authority(&self) -> bool {
        self.extension(BASIC_CONSTRAINTS)
            .is_some_and(|value| value.get(2..5) == Some(&[1, 1, 0xff][..]))
    }

    /// The public key: PKCS #1 for RSA, the point for an elliptic curve.
    pub(super) fn key(&self) -> &[u8] {
        self.0.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// What is in an extension.
    pub(super) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let mut extensions = self.0.tbs_certificate().extensions()?.iter();
        extensions.find(|one| one.extn_id == oid).map(|one| one.extn_value.as_bytes())
    }
}

fn common_name(name: &x509_cert::name::Name) -> String {
    match name.common_name() {
        Ok(Some(name)) => name.value().into_owned(),
        Ok(None) | Err(_) => String::new(),
    }
}
