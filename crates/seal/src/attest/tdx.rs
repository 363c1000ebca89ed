//! Intel TDX quotes, through `dcap-qvl`, up to Intel's root.

use dcap_qvl::{QuoteCollateralV3, QuotePolicy, quote::Report, verify::QuoteVerifier};
use serde::{Deserialize, Serialize};

use super::{Facts, Kind, Registers};

/// The TEE type of TDX in a quote's header.
const TDX: u32 = 0x81;

/// What Intel publishes, signed, for one kind of platform: which firmware is up to date, which certificates are
/// revoked. Any provisioning certificate caching service (PCCS) has it. Written as such services write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Collateral(QuoteCollateralV3);

/// Why a quote was refused.
#[derive(Debug, thiserror::Error)]
pub enum TdxError {
    /// Nothing to judge it by.
    #[error("it comes without Intel's collateral: ask a PCCS for that of its platform")]
    NoCollateral,
    /// Not genuine, outdated, revoked, a debug TD or bound to a service TD.
    #[error("{0}")]
    Refused(String),
    /// An SGX enclave's.
    #[error("it is of an SGX enclave, not of a TD")]
    NotTd,
}

/// Judges a quote and its collateral. Only what Intel calls up to date is taken, without any time of grace.
///
/// Hyper-threading, caching of keys at registration and platforms of several packages say nothing about a TD's safety
/// (its TCB status does), and are taken.
pub(super) fn verify(
    quote: &[u8],
    collateral: Option<&Collateral>,
    now: u64,
) -> Result<Facts, TdxError> {
    let Collateral(collateral) = collateral.ok_or(TdxError::NoCollateral)?;
    let policy = QuotePolicy::strict(now)
        .allow_smt(true)
        .allow_cached_keys(true)
        .allow_dynamic_platform(true);
    let claims = QuoteVerifier::new_prod()
        .verify_with_policy(quote, collateral, now, &policy)
        .map_err(|err| TdxError::Refused(format!("{err:#}")))?;
    if claims.tee_type != TDX || matches!(claims.report, Report::SgxEnclave(_)) {
        return Err(TdxError::NotTd);
    }
    let td = claims.report.as_td10().ok_or(TdxError::NotTd)?;
    Ok(Facts {
        kind: Kind::Tdx,
        registers: Registers::Tdx {
            mr_td: td.mr_td,
            rtmr: [td.rt_mr0, td.rt_mr1, td.rt_mr2, td.rt_mr3],
            config: [td.mr_config_id, td.mr_owner, td.mr_owner_config],
            attributes: td.td_attributes,
            xfam: td.xfam,
        },
        platform: format!("TCB {} of {}", claims.tcb.status, claims.platform.tcb_level.tcb_date),
        report_data: td.report_data,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };

    use super::*;

    const QUOTE: &[u8] = include_bytes!("../../tests/samples/tdx-quote.bin");
    const COLLATERAL: &str = include_str!("../../tests/samples/tdx-quote-collateral.json");
    const OUTDATED: &[u8] = include_bytes!("../../tests/samples/tdx-quote-outdated.bin");
    const OUTDATED_COLLATERAL: &str =
        include_str!("../../tests/samples/tdx-quote-outdated-collateral.json");
    const QUOTE_15: &[u8] = include_bytes!("../../tests/samples/tdx-quote-td15ex.bin");
    const COLLATERAL_15: &str =
        include_str!("../../tests/samples/tdx-quote-td15ex-collateral.json");

    /// Within the month for which each sample's collateral is good.
    const NOW: u64 = 1_750_400_000;
    const NOW_OUTDATED: u64 = 1_772_000_000;
    const NOW_15: u64 = 1_791_800_000;

    /// The header's size, after which version 4 has the report.
    const HEADER: usize = 48;
    const REPORT: usize = 584;

    fn collateral(json: &str) -> Collateral {
        serde_json::from_str(json).unwrap()
    }

    fn refused(quote: &[u8], collateral: &Collateral, now: u64) -> String {
        verify(quote, Some(collateral), now).unwrap_err().to_string()
    }

    #[test]
    fn genuine_quotes_are_believed() {
        for (quote, json, now) in [(QUOTE, COLLATERAL, NOW), (QUOTE_15, COLLATERAL_15, NOW_15)] {
            let facts = verify(quote, Some(&collateral(json)), now).unwrap();
            assert_eq!(facts.kind, Kind::Tdx);
            assert!(facts.platform.starts_with("TCB UpToDate of 20"), "{}", facts.platform);
            assert!(quote.windows(64).any(|window| window == facts.report_data));
            let Registers::Tdx { mr_td, attributes, .. } = facts.registers else { panic!() };
            assert!(quote.windows(48).any(|window| window == mr_td));
            assert_eq!(attributes[0] & 1, 0);
        }
    }

    #[test]
    fn no_bit_that_is_signed_may_change() {
        let collateral = collateral(COLLATERAL);
        // Every report register, and the header but for what is not signed in it.
        for byte in (0..HEADER + REPORT).step_by(5) {
            let mut quote = QUOTE.to_vec();
            quote[byte] ^= 1;
            assert!(verify(&quote, Some(&collateral), NOW).is_err(), "byte {byte}");
        }
        for len in [0, 1, HEADER, HEADER + REPORT, QUOTE.len() / 2] {
            assert!(verify(&QUOTE[..len], Some(&collateral), NOW).is_err(), "{len} bytes");
        }
    }

    /// What Intel said of the first sample's kind of platform a year later.
    fn year_later() -> Collateral {
        let mut later = collateral(COLLATERAL_15);
        later.0.pck_certificate_chain = None;
        later
    }

    #[test]
    fn an_outdated_platform_is_refused() {
        let err = refused(QUOTE, &year_later(), NOW_15);
        assert!(err.contains("OutOfDate"), "{err}");
        // Older than anything that Intel lists.
        let err = refused(OUTDATED, &collateral(OUTDATED_COLLATERAL), NOW_OUTDATED);
        assert!(err.contains("No matching TCB level"), "{err}");
    }

    #[test]
    fn collateral_is_good_for_a_time_and_a_platform() {
        let ours = collateral(COLLATERAL);
        for now in [0, NOW - 60 * 86_400, NOW + 60 * 86_400, u64::MAX] {
            assert!(verify(QUOTE, Some(&ours), now).is_err(), "{now}");
        }
        let none = verify(QUOTE, None, NOW).unwrap_err();
        assert!(matches!(none, TdxError::NoCollateral));
        assert!(verify(QUOTE, Some(&collateral(COLLATERAL_15)), NOW_15).is_err());
    }

    /// Whoever runs an outdated platform would like to say that it is up to date, in a document that looks like
    /// Intel's.
    #[test]
    fn home_made_collateral_is_not_believed() {
        let mut forged = year_later();
        forged.0.tcb_info = forged.0.tcb_info.replace("\"OutOfDate\"", "\"UpToDate\"");
        assert_ne!(forged, year_later());
        let err = refused(QUOTE, &forged, NOW_15);
        assert!(err.contains("Signature is invalid for tcb_info"), "{err}");

        let (chain, key) = home_made_chain();
        let (random, pkcs8) = (SystemRandom::new(), key.serialized_der());
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random);
        let signature = key.unwrap().sign(&random, forged.0.tcb_info.as_bytes()).unwrap();
        forged.0.tcb_info_signature = signature.as_ref().to_vec();
        forged.0.tcb_info_issuer_chain = chain;
        let err = refused(QUOTE, &forged, NOW_15);
        assert!(err.contains("UnknownIssuer"), "{err}");
    }

    /// Intel's names over keys of our own.
    fn home_made_chain() -> (String, KeyPair) {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            let name_of = &mut params.distinguished_name;
            name_of.push(DnType::CommonName, name);
            name_of.push(DnType::OrganizationName, "Intel Corporation");
            name_of.push(DnType::LocalityName, "Santa Clara");
            name_of.push(DnType::StateOrProvinceName, "CA");
            name_of.push(DnType::CountryName, "US");
            params
        };
        let mut root = params("Intel SGX Root CA");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let issuer = Issuer::new(root, root_key);
        let leaf = params("Intel SGX TCB Signing").signed_by(&key, &issuer).unwrap();
        (format!("{}{root_pem}", leaf.pem()), key)
    }

    #[test]
    fn collateral_survives_its_text() {
        let ours = collateral(COLLATERAL);
        let json = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Collateral>(&json).unwrap(), ours);
    }
}
