//! Genuine evidence of other people's machines: true, and not about us.

use std::collections::BTreeMap;

use seal::{
    SealingKey,
    attest::{self, Accepted, AttestError, Der, Evidence, Policy, Product, Subject, Tcb},
};

const NOW: u64 = 1_750_400_000;

fn subject() -> Subject {
    Subject {
        nonce: [1; 32],
        chain_id: 31_337,
        provider: [2; 20],
        sealing_key: SealingKey::from_bytes(&[3; 32]).public(),
        tls_key: [4; 32],
        visit: None,
    }
}

fn policy() -> Policy {
    let oldest = BTreeMap::from([(Product::Milan, Tcb::default())]);
    Policy { measurements: Accepted::Any, oldest }
}

fn tdx() -> Evidence {
    let collateral = include_str!("../samples/tdx-quote-collateral.json");
    Evidence::Tdx {
        quote: include_bytes!("../samples/tdx-quote.bin").to_vec(),
        collateral: serde_json::from_str(collateral).unwrap(),
    }
}

fn snp() -> Evidence {
    let certificates = [
        &include_bytes!("../samples/vcek-milan.der")[..],
        include_bytes!("../samples/ask-milan.der"),
    ];
    Evidence::SevSnp {
        report: include_bytes!("../samples/report-milan.bin").to_vec(),
        certificates: certificates.map(|der| Der(der.to_vec())).to_vec(),
    }
}

#[test]
fn genuine_evidence_about_somebody_else_is_refused_as_that() {
    for evidence in [tdx(), snp()] {
        let err = attest::verify(&evidence, &subject(), &policy(), NOW).unwrap_err();
        assert!(matches!(err, AttestError::OtherSubject), "{err}");
    }
}

#[test]
fn evidence_survives_its_text() {
    for (evidence, kind) in [(tdx(), "tdx"), (snp(), "sev-snp")] {
        let json = serde_json::to_value(&evidence).unwrap();
        assert_eq!(json["kind"], kind);
        assert_eq!(serde_json::from_value::<Evidence>(json).unwrap(), evidence);
    }
}

#[test]
fn broken_evidence_is_refused_by_its_kind() {
    let Evidence::Tdx { mut quote, collateral } = tdx() else { panic!() };
    quote[600] ^= 1;
    let evidence = Evidence::Tdx { quote, collateral };
    let err = attest::verify(&evidence, &subject(), &policy(), NOW).unwrap_err();
    assert!(matches!(err, AttestError::Tdx(_)), "{err}");

    let Evidence::SevSnp { mut report, certificates } = snp() else { panic!() };
    report[0x50] ^= 1;
    let evidence = Evidence::SevSnp { report, certificates };
    let err = attest::verify(&evidence, &subject(), &policy(), NOW).unwrap_err();
    assert!(matches!(err, AttestError::Snp(_)), "{err}");
}
