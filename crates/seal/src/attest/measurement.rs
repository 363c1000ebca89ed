//! What runs on a machine, as its hardware measured it.

use std::{fmt, str::FromStr};

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// What [`Registers::measurement`] opens with.
const DOMAIN: &[u8] = b"roadstead measurement v1";

/// One hash of everything that was measured: what a listing claims, and what a publisher accepts. Written as `0x` and
/// 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Measurement(pub [u8; 32]);

/// A text that is not a [`Measurement`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no measurement (0x and 64 hexadecimal digits)")]
pub struct ParseMeasurementError(String);

/// What was measured, in the hardware's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per attestation, and it is read in place"
)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Registers {
    /// Of a TD report.
    Tdx {
        /// MRTD: the TD as it was built.
        #[serde(with = "text")]
        mr_td: [u8; 48],
        /// RTMR0 to RTMR3: what it loaded since, each as one `0x` text.
        #[serde(serialize_with = "all")]
        rtmr: [[u8; 48]; 4],
        /// MRCONFIGID, MROWNER and MROWNERCONFIG: what the host said it is for.
        #[serde(serialize_with = "all")]
        config: [[u8; 48]; 3],
        /// TDATTRIBUTES. Its debug bit is never set here.
        #[serde(with = "text")]
        attributes: [u8; 8],
        /// XFAM: which extended features of the processor it may use.
        #[serde(with = "text")]
        xfam: [u8; 8],
    },
    /// Of an SEV-SNP report.
    SevSnp {
        /// MEASUREMENT: the guest as it was launched.
        #[serde(with = "text")]
        measurement: [u8; 48],
        /// HOST_DATA: what the host said it is for.
        #[serde(with = "text")]
        host_data: [u8; 32],
        /// ID_KEY_DIGEST: who signed its identity block, or zeros.
        #[serde(with = "text")]
        id_key: [u8; 48],
        /// AUTHOR_KEY_DIGEST: who vouched for that key, or zeros.
        #[serde(with = "text")]
        author_key: [u8; 48],
        /// POLICY. Its debug and migration bits are never set here.
        #[serde(with = "text")]
        policy: [u8; 8],
    },
}

impl Registers {
    /// SHA-256 over the domain, the kind and every register. All have one size, so no two sets have the same bytes.
    pub fn measurement(&self) -> Measurement {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(DOMAIN);
        match self {
            Self::Tdx { mr_td, rtmr, config, attributes, xfam } => {
                hash.update(b"tdx");
                hash.update(mr_td);
                rtmr.iter().chain(config).for_each(|register| hash.update(register));
                hash.update(attributes);
                hash.update(xfam);
            }
            Self::SevSnp { measurement, host_data, id_key, author_key, policy } => {
                hash.update(b"sev-snp");
                hash.update(measurement);
                hash.update(host_data);
                hash.update(id_key);
                hash.update(author_key);
                hash.update(policy);
            }
        }
        Measurement(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self::SevSnp {
            measurement: [1; 48],
            host_data: [2; 32],
            id_key: [3; 48],
            author_key: [4; 48],
            policy: [5; 8],
        }
    }
}

fn all<S: Serializer, const N: usize>(
    registers: &[[u8; 48]; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(registers.iter().map(|register| format!("0x{}", hex::encode(register))))
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Measurement({self})")
    }
}

impl FromStr for Measurement {
    type Err = ParseMeasurementError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        text.strip_prefix("0x")
            .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
            .ok_or_else(|| ParseMeasurementError(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Measurement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Measurement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_counts() {
        let Registers::SevSnp { measurement, host_data, id_key, author_key, policy } =
            Registers::sample()
        else {
            unreachable!("the sample is SEV-SNP's")
        };
        let ours = Registers::sample().measurement();
        let zero = [0; 48];
        for other in [
            Registers::SevSnp { measurement: zero, host_data, id_key, author_key, policy },
            Registers::SevSnp { measurement, host_data: [0; 32], id_key, author_key, policy },
            Registers::SevSnp { measurement, host_data, id_key: zero, author_key, policy },
            Registers::SevSnp { measurement, host_data, id_key, author_key: zero, policy },
            Registers::SevSnp { measurement, host_data, id_key, author_key, policy: [0; 8] },
        ] {
            assert_ne!(other.measurement(), ours, "{other:?}");
        }
        let tdx = |register: usize| {
            let mut rtmr = [[0; 48]; 4];
            let mut config = [[0; 48]; 3];
            if let Some(rtmr) = rtmr.get_mut(register) {
                rtmr[0] = 1;
            } else if let Some(config) = config.get_mut(register - 4) {
                config[0] = 1;
            }
            let (attributes, xfam) = ([0; 8], [0; 8]);
            Registers::Tdx { mr_td: [0; 48], rtmr, config, attributes, xfam }.measurement()
        };
        let all: std::collections::HashSet<_> = (0..8).map(tdx).collect();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn a_measurement_survives_its_text() {
        let ours = Registers::sample().measurement();
        assert_eq!(ours.to_string().parse(), Ok(ours));
        let json = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Measurement>(&json).unwrap(), ours);
        assert!("0x00".parse::<Measurement>().is_err());
        let json = serde_json::to_value(Registers::sample()).unwrap();
        assert_eq!(json["kind"], "sev-snp");
        assert_eq!(json["hostData"], format!("0x{}", "02".repeat(32)));
    }
}
