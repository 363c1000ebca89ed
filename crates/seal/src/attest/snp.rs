//! AMD SEV-SNP attestation reports (SEV-SNP firmware ABI specification, document 56860), up to AMD's roots.
//!
//! The `sev` crate reads them too. It trusts whatever root comes along, leaves the TCB, the chip, the VMPL and the
//! debug bit to its caller, and brings an RSA implementation with an open advisory (RUSTSEC-2023-0071). A report is
//! 1,184 bytes at fixed places, and `ring`, which TLS brings anyway, verifies both kinds of signature; so this is
//! here.
//!
//! Revocation lists are not looked at: AMD takes a chip's firmware back by its TCB, which the policy names.

use std::{collections::BTreeMap, fmt};

use ring::signature::{self, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use x509_cert::der::oid::ObjectIdentifier;

use super::{
    Facts, Kind, Registers,
    certificates::{Certificate, Der},
};

/// A report's size, and how much of it is signed.
const REPORT: usize = 0x4a0;
const SIGNED: usize = 0x2a0;

/// ECDSA P-384 with SHA-384.
const ALGORITHM: u32 = 1;

/// The most certificates that are looked at.
const MAX_CERTIFICATES: usize = 8;

/// Bits of a guest's policy.
const MIGRATE: u64 = 1 << 18;
const DEBUG: u64 = 1 << 19;

/// AMD's roots, pinned: the ARK of each product, as its key distribution service publishes it.
const ROOTS: [Root<'static>; 3] = [
    Root { product: Product::Milan, ark: include_bytes!("amd/ark-milan.der") },
    Root { product: Product::Genoa, ark: include_bytes!("amd/ark-genoa.der") },
    Root { product: Product::Turin, ark: include_bytes!("amd/ark-turin.der") },
];

/// A family of processors with a root of its own. (Bergamo and Siena count as Genoa.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

/// The security versions of a platform's firmware (TCB_VERSION).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    /// The security processor's own firmware. Turin has it, the others do not.
    #[serde(default)]
    pub fmc: u8,
    /// The boot loader.
    pub bootloader: u8,
    /// The security processor's operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The microcode.
    pub microcode: u8,
}

/// Why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnpError {
    /// Cut off or padded.
    #[error("it has {0} bytes, a report has {REPORT}")]
    Size(usize),
    /// A layout that is not known.
    #[error("it is of version {0}, known are 2 to 5")]
    Version(u32),
    /// Not signed, or not by what the hardware signs with.
    #[error("it is not signed by the chip or cloud key: algorithm {algorithm}, key {key:#x}")]
    Unsigned {
        /// SIGNATURE_ALGO.
        algorithm: u32,
        /// KEY_INFO.
        key: u32,
    },
    /// Nothing leads up to a root.
    #[error("no certificates come with it that lead from its key to the root of an AMD product")]
    NoChain,
    /// Something leads up to a root, but not well.
    #[error("the certificate {name:?} {why}")]
    Chain {
        /// Its common name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Changed, or another chip's.
    #[error("its signature is not that of its key")]
    Signature,
    /// The processor that it names has another root.
    #[error("it is of a processor of family {family:#x}, model {model:#x}, which is no {product}")]
    OtherProduct {
        /// CPUID_FAM_ID.
        family: u8,
        /// CPUID_MOD_ID.
        model: u8,
        /// What signed it.
        product: Product,
    },
    /// The key is of another firmware than the report says.
    #[error("it reports firmware {reported}, its key is that of {certified}")]
    OtherTcb {
        /// What the report says.
        reported: Tcb,
        /// What AMD certified.
        certified: Tcb,
    },
    /// The platform went back behind what it reports.
    #[error("it reports firmware {reported}, but runs or may go back to {lower}")]
    Lower {
        /// What the report says.
        reported: Tcb,
        /// CURRENT_TCB, COMMITTED_TCB or LAUNCH_TCB.
        lower: Tcb,
    },
    /// The key is another chip's.
    #[error("it is of another chip than its certificate")]
    OtherChip,
    /// Older than the policy takes, or a product that it does not take.
    #[error("the firmware of this {product} is outdated: {found}, at least {} is needed", wanted(.oldest))]
    Outdated {
        /// The product.
        product: Product,
        /// What it runs.
        found: Tcb,
        /// What the policy takes; none for a product that it does not take.
        oldest: Option<Tcb>,
    },
    /// Less privileged software asked for it.
    #[error("it was asked for at VMPL {0}, not by the guest's most privileged software")]
    Vmpl(u32),
    /// The host may look in.
    #[error("its guest may be debugged by the host")]
    Debug,
    /// Another machine may take over.
    #[error("its guest may be migrated by an agent")]
    Migration,
}

/// A product and its root.
#[derive(Debug, Clone, Copy)]
struct Root<'a> {
    product: Product,
    ark: &'a [u8],
}

/// Judges a report and its certificates.
pub(super) fn verify(
    report: &[u8],
    certificates: &[Der],
    oldest: &BTreeMap<Product, Tcb>,
    now: u64,
) -> Result<Facts, SnpError> {
    verify_up_to(&ROOTS, report, certificates, oldest, now)
}

fn verify_up_to(
    roots: &[Root<'_>],
    report: &[u8],
    certificates: &[Der],
    oldest: &BTreeMap<Product, Tcb>,
    now: u64,
) -> Result<Facts, SnpError> {
    let bytes: &[u8; REPORT] = report.try_into().map_err(|_err| SnpError::Size(report.len()))?;
    let report = Fields(bytes);
    report.check_form()?;
    let (product, key) = chain(roots, certificates, now)?;
    report.check_signature(&key)?;

    // From here on the report is what the firmware wrote.
    report.check_product(product)?;
    let tcb = report.check_tcb(product, &key)?;
    report.check_chip(&key)?;
    report.check_guest()?;
    let enough = oldest.get(&product).copied();
    if !enough.is_some_and(|oldest| tcb.covers(&oldest)) {
        return Err(SnpError::Outdated { product, found: tcb, oldest: enough });
    }
    Ok(Facts {
        kind: Kind::SevSnp,
        registers: Registers::SevSnp {
            measurement: report.get(0x90),
            host_data: report.get(0xc0),
            id_key: report.get(0xe0),
            author_key: report.get(0x110),
            policy: report.get(0x08),
        },
        platform: format!("{product}, firmware {tcb}"),
        report_data: report.get(0x50),
    })
}

/// The product whose root the certificates lead up to, and the key at their other end.
fn chain(
    roots: &[Root<'_>],
    certificates: &[Der],
    now: u64,
) -> Result<(Product, Certificate), SnpError> {
    let mut read: Vec<_> = certificates
        .iter()
        .take(MAX_CERTIFICATES)
        .filter_map(|der| Certificate::read(&der.0))
        .collect();
    // The chip's is called SEV-VCEK, the cloud's SEV-VLEK, and AMD's own by their product.
    let leaf = read.iter().position(|one| ["SEV-VCEK", "SEV-VLEK"].contains(&one.name().as_str()));
    let leaf = read.swap_remove(leaf.ok_or(SnpError::NoChain)?);
    for root in roots {
        let ark = Certificate::read(root.ark).expect("the pinned roots are certificates");
        // Names are only where to look; what counts is the signature.
        let names = [format!("SEV-{}", root.product), format!("SEV-VLEK-{}", root.product)];
        let Some(ask) = read.iter().find(|one| names.contains(&one.name())) else { continue };
        for (one, above) in [(ask, &ark), (&leaf, ask)] {
            one.follows(above, now)
                .map_err(|err| SnpError::Chain { name: one.name(), why: err.to_string() })?;
        }
        return Ok((root.product, leaf));
    }
    Err(SnpError::NoChain)
}

/// A report's fields at their places (table 23).
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8; REPORT]);

impl Fields<'_> {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("the range has the array's size")
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }

    fn version(&self) -> u32 {
        self.u32(0x00)
    }

    /// KEY_INFO's SIGNING_KEY: whether the cloud's key signed (VLEK), not the chip's (VCEK).
    fn by_cloud(&self) -> bool {
        self.u32(0x48) >> 2 & 7 == 1
    }

    /// What is looked at before the signature, because it says how to look at it.
    fn check_form(&self) -> Result<(), SnpError> {
        let (version, algorithm, key) = (self.version(), self.u32(0x34), self.u32(0x48));
        if !(2..=5).contains(&version) {
            return Err(SnpError::Version(version));
        }
        let masked = key & 2 != 0;
        if algorithm != ALGORITHM || masked || key >> 2 & 7 > 1 {
            return Err(SnpError::Unsigned { algorithm, key });
        }
        Ok(())
    }

    fn check_signature(&self, key: &Certificate) -> Result<(), SnpError> {
        let mut signature = [0; 96];
        for (half, at) in [(0, SIGNED), (48, SIGNED + 72)] {
            // Little-endian in 72 bytes, of which P-384 needs 48.
            let number: [u8; 72] = self.get(at);
            if number[48..].iter().any(|byte| *byte != 0) {
                return Err(SnpError::Signature);
            }
            signature[half..half + 48].copy_from_slice(&number[..48]);
            signature[half..half + 48].reverse();
        }
        UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, key.key())
            .verify(&self.0[..SIGNED], &signature)
            .map_err(|_err| SnpError::Signature)
    }

    /// Since version 3 a report names its processor.
    fn check_product(&self, product: Product) -> Result<(), SnpError> {
        let [family, model] = self.get(0x188);
        let named = match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Product::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Product::Genoa),
            (0x1a, 0x00..=0x11) => Some(Product::Turin),
            _ => None,
        };
        if self.version() >= 3 && named != Some(product) {
            return Err(SnpError::OtherProduct { family, model, product });
        }
        Ok(())
    }

    /// The TCB that AMD certified its key for, which is what it reports, and below which it cannot go.
    fn check_tcb(&self, product: Product, key: &Certificate) -> Result<Tcb, SnpError> {
        let reported = Tcb::read(product, self.get(0x180));
        let certified = Tcb::certified(key).ok_or_else(|| SnpError::Chain {
            name: key.name(),
            why: "does not say which firmware it is for".into(),
        })?;
        if reported != certified {
            return Err(SnpError::OtherTcb { reported, certified });
        }
        for at in [0x38, 0x1e0, 0x1f0] {
            let lower = Tcb::read(product, self.get(at));
            if !lower.covers(&reported) {
                return Err(SnpError::Lower { reported, lower });
            }
        }
        Ok(reported)
    }

    /// The cloud's key is for all of its chips; the chip's key names its chip.
    fn check_chip(&self, key: &Certificate) -> Result<(), SnpError> {
        let chip: [u8; 64] = self.get(0x1a0);
        let certified = key.extension(amd("4"));
        let same = match certified {
            // Of 64 bytes, of which Turin uses and certifies eight.
            Some(id) if id.len() == 64 => id == chip,
            Some(id) if id.len() == 8 => id == &chip[..8] && chip[8..] == [0; 56],
            Some(_) => false,
            None => self.by_cloud(),
        };
        if !same || self.by_cloud() != certified.is_none() || (!self.by_cloud() && chip == [0; 64])
        {
            return Err(SnpError::OtherChip);
        }
        Ok(())
    }

    fn check_guest(&self) -> Result<(), SnpError> {
        let (policy, vmpl) = (u64::from_le_bytes(self.get(0x08)), self.u32(0x30));
        if policy & DEBUG != 0 {
            return Err(SnpError::Debug);
        }
        if policy & MIGRATE != 0 {
            return Err(SnpError::Migration);
        }
        if vmpl != 0 {
            return Err(SnpError::Vmpl(vmpl));
        }
        Ok(())
    }
}

impl Tcb {
    fn read(product: Product, bytes: [u8; 8]) -> Self {
        match product {
            Product::Milan | Product::Genoa => {
                let [bootloader, tee, _, _, _, _, snp, microcode] = bytes;
                Self { fmc: 0, bootloader, tee, snp, microcode }
            }
            Product::Turin => {
                let [fmc, bootloader, tee, snp, _, _, _, microcode] = bytes;
                Self { fmc, bootloader, tee, snp, microcode }
            }
        }
    }

    /// What a chip's or cloud's certificate is for (VCEK certificate and KDS specification, 57230).
    fn certified(key: &Certificate) -> Option<Self> {
        let number = |last: &str| match key.extension(amd(&format!("3.{last}")))? {
            // A DER integer of up to eight bits.
            [0x02, 1, value] if *value < 0x80 => Some(*value),
            [0x02, 2, 0, value] => Some(*value),
            _ => None,
        };
        Some(Self {
            fmc: if key.extension(amd("3.9")).is_some() { number("9")? } else { 0 },
            bootloader: number("1")?,
            tee: number("2")?,
            snp: number("3")?,
            microcode: number("8")?,
        })
    }

    /// Whether no part is older.
    fn covers(&self, other: &Self) -> bool {
        self.fmc >= other.fmc
            && self.bootloader >= other.bootloader
            && self.tee >= other.tee
            && self.snp >= other.snp
            && self.microcode >= other.microcode
    }
}

/// AMD's extensions.
fn amd(rest: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(&format!("1.3.6.1.4.1.3704.1.{rest}"))
}

fn wanted(oldest: &Option<Tcb>) -> String {
    oldest.map_or_else(|| "another product".to_owned(), |oldest| oldest.to_string())
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        })
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc}, bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

#[cfg(test)]
mod tests {
    use ring::{rand::SystemRandom, signature::EcdsaKeyPair};

    use super::*;

    const GENUINE: &[u8; REPORT] = include_bytes!("../../tests/samples/report-milan.bin");
    const VCEK: &[u8] = include_bytes!("../../tests/samples/vcek-milan.der");
    const VCEK_TURIN: &[u8] = include_bytes!("../../tests/samples/vcek-turin.der");
    const ASK: &[u8] = include_bytes!("../../tests/samples/ask-milan.der");
    const ASK_GENOA: &[u8] = include_bytes!("../../tests/samples/ask-genoa.der");
    const ASK_TURIN: &[u8] = include_bytes!("../../tests/samples/ask-turin.der");
    const HOME_ARK: &[u8] = include_bytes!("../../tests/samples/homemade-ark.der");
    const HOME_ASK: &[u8] = include_bytes!("../../tests/samples/homemade-ask.der");
    const HOME_VCEK: &[u8] = include_bytes!("../../tests/samples/homemade-vcek.der");
    const HOME_KEY: &[u8] = include_bytes!("../../tests/samples/homemade-vcek.p8");
    const NOT_AUTHORITY: &[u8] =
        include_bytes!("../../tests/samples/homemade-ask-no-authority.der");

    /// 15 November 2023.
    const NOW: u64 = 1_700_000_000;

    /// What the genuine report's platform runs.
    const RUNS: Tcb = Tcb { fmc: 0, bootloader: 3, tee: 0, snp: 8, microcode: 115 };

    fn chain_of(certificates: &[&[u8]]) -> Vec<Der> {
        certificates.iter().map(|der| Der(der.to_vec())).collect()
    }

    fn genuine(report: &[u8], certificates: &[&[u8]], now: u64) -> Result<Facts, SnpError> {
        let oldest = BTreeMap::from([(Product::Milan, RUNS)]);
        verify(report, &chain_of(certificates), &oldest, now)
    }

    /// The genuine report, changed, and signed anew by the home-made chain, whose root counts here.
    fn changed(change: impl FnOnce(&mut [u8; REPORT])) -> Result<Facts, SnpError> {
        let report = signed(change);
        let root = Root { product: Product::Milan, ark: HOME_ARK };
        let oldest = BTreeMap::from([(Product::Milan, RUNS)]);
        verify_up_to(&[root], &report, &chain_of(&[HOME_VCEK, HOME_ASK]), &oldest, NOW)
    }

    fn signed(change: impl FnOnce(&mut [u8; REPORT])) -> [u8; REPORT] {
        let mut report = *GENUINE;
        change(&mut report);
        let (random, algorithm) =
            (SystemRandom::new(), &signature::ECDSA_P384_SHA384_FIXED_SIGNING);
        let key = EcdsaKeyPair::from_pkcs8(algorithm, HOME_KEY, &random).unwrap();
        let signature = key.sign(&random, &report[..SIGNED]).unwrap();
        for (half, at) in [(0, SIGNED), (48, SIGNED + 72)] {
            report[at..at + 48].copy_from_slice(&signature.as_ref()[half..half + 48]);
            report[at..at + 48].reverse();
        }
        report
    }

    fn refused(result: Result<Facts, SnpError>) -> SnpError {
        result.unwrap_err()
    }

    #[test]
    fn a_genuine_report_is_believed() {
        for certificates in [[VCEK, ASK], [ASK, VCEK]] {
            let facts = genuine(GENUINE, &certificates, NOW).unwrap();
            assert_eq!(facts.kind, Kind::SevSnp);
            assert_eq!(facts.report_data, GENUINE[0x50..0x90]);
            assert_eq!(
                facts.platform,
                "Milan, firmware fmc 0, bootloader 3, tee 0, snp 8, microcode 115"
            );
            let Registers::SevSnp { measurement, .. } = facts.registers else { panic!() };
            assert_eq!(measurement, GENUINE[0x90..0xc0]);
        }
        let home_root = include_bytes!("amd/ark-milan.der");
        // More certificates than are needed do no harm, nor does a root that comes along.
        assert!(genuine(GENUINE, &[home_root, VCEK, HOME_ARK, ASK_TURIN, ASK], NOW).is_ok());
    }

    #[test]
    fn no_bit_that_is_signed_may_change() {
        for byte in 0..SIGNED + 48 {
            let mut report = *GENUINE;
            report[byte] ^= 0x80;
            let result = genuine(&report, &[VCEK, ASK], NOW);
            assert!(result.is_err(), "byte {byte:#x}: {result:?}");
        }
        let mut report = *GENUINE;
        report[SIGNED + 60] = 1;
        assert_eq!(refused(genuine(&report, &[VCEK, ASK], NOW)), SnpError::Signature);
        assert_eq!(refused(genuine(&GENUINE[1..], &[VCEK, ASK], NOW)), SnpError::Size(1183));
        assert_eq!(refused(genuine(&[], &[VCEK, ASK], NOW)), SnpError::Size(0));
    }

    #[test]
    fn a_home_made_chain_is_not_believed() {
        // It is flawless, but for its root.
        assert!(changed(|_| ()).is_ok());
        let report = signed(|_| ());
        for certificates in [&[HOME_VCEK, HOME_ASK][..], &[HOME_VCEK, HOME_ASK, HOME_ARK]] {
            let err = refused(genuine(&report, certificates, NOW));
            assert!(
                matches!(err, SnpError::Chain { ref name, .. } if name == "SEV-Milan"),
                "{err}"
            );
        }
        let err = refused(genuine(&report, &[HOME_VCEK, ASK], NOW));
        assert!(matches!(err, SnpError::Chain { ref name, .. } if name == "SEV-VCEK"), "{err}");
        assert_eq!(refused(genuine(&report, &[VCEK, ASK], NOW)), SnpError::Signature);
    }

    #[test]
    fn half_a_chain_is_none() {
        let garbage = &b"\x30\x03\x02\x01\x00"[..];
        for certificates in
            [&[][..], &[VCEK], &[ASK], &[garbage], &[VCEK, HOME_ARK], &[VCEK, ASK_GENOA]]
        {
            let err = refused(genuine(GENUINE, certificates, NOW));
            let none = err == SnpError::NoChain || matches!(err, SnpError::Chain { .. });
            assert!(none, "{err}");
        }
        let root = Root { product: Product::Milan, ark: HOME_ARK };
        let chain = chain_of(&[HOME_VCEK, NOT_AUTHORITY]);
        let oldest = BTreeMap::from([(Product::Milan, RUNS)]);
        let err = refused(verify_up_to(&[root], &signed(|_| ()), &chain, &oldest, NOW));
        assert!(err.to_string().contains("must not sign certificates"), "{err}");
    }

    #[test]
    fn a_chain_is_valid_for_a_time() {
        // Not yet, and no longer: the chip's certificate is of 3 April 2023, for seven years.
        for now in [0, 1_680_000_000, 1_902_000_000, u64::MAX] {
            let err = refused(genuine(GENUINE, &[VCEK, ASK], now));
            assert!(err.to_string().contains("not valid at this time"), "{now}: {err}");
        }
    }

    #[test]
    fn every_pinned_root_signed_its_product() {
        for (root, ask) in ROOTS.iter().zip([ASK, ASK_GENOA, ASK_TURIN]) {
            let (ark, ask) =
                (Certificate::read(root.ark).unwrap(), Certificate::read(ask).unwrap());
            assert_eq!(ark.name(), format!("ARK-{}", root.product));
            assert_eq!(ark.follows(&ark, NOW), Ok(()));
            assert_eq!(ask.follows(&ark, NOW), Ok(()));
        }
    }

    /// Its certificate is laid out in another way than Milan's.
    #[test]
    fn a_turin_chip_is_read() {
        let (product, key) =
            chain(&ROOTS, &chain_of(&[VCEK_TURIN, ASK_TURIN]), 1_740_000_000).unwrap();
        assert_eq!(product, Product::Turin);
        let certified = Tcb::certified(&key).unwrap();
        let mut report = [0; REPORT];
        let Tcb { fmc, bootloader, tee, snp, microcode } = certified;
        for at in [0x38, 0x180, 0x1e0, 0x1f0] {
            report[at..at + 8].copy_from_slice(&[fmc, bootloader, tee, snp, 0, 0, 0, microcode]);
        }
        let chip = key.extension(amd("4")).unwrap();
        report[0x1a0..0x1a8].copy_from_slice(chip);
        assert_eq!(Fields(&report).check_tcb(product, &key), Ok(certified));
        assert_eq!(Fields(&report).check_chip(&key), Ok(()));
        report[0x1a8] = 1;
        assert_eq!(Fields(&report).check_chip(&key), Err(SnpError::OtherChip));
    }

    #[test]
    fn outdated_firmware_is_refused() {
        let chain = chain_of(&[VCEK, ASK]);
        for newer in [
            Tcb { bootloader: 4, ..RUNS },
            Tcb { tee: 1, ..RUNS },
            Tcb { snp: 9, ..RUNS },
            Tcb { microcode: 116, ..RUNS },
            Tcb { fmc: 1, ..RUNS },
        ] {
            let oldest = BTreeMap::from([(Product::Milan, newer)]);
            let err = refused(verify(GENUINE, &chain, &oldest, NOW));
            let (product, oldest) = (Product::Milan, Some(newer));
            assert_eq!(err, SnpError::Outdated { product, found: RUNS, oldest });
        }
        for others in [BTreeMap::new(), BTreeMap::from([(Product::Genoa, Tcb::default())])] {
            let err = refused(verify(GENUINE, &chain, &others, NOW));
            assert!(matches!(err, SnpError::Outdated { oldest: None, .. }), "{err}");
        }
    }

    #[test]
    fn what_the_firmware_says_is_heeded() {
        let lower = |at: usize| {
            changed(|report| {
                let [.., microcode] = &mut report[at..at + 8] else { panic!() };
                *microcode -= 1;
            })
        };
        assert!(matches!(refused(lower(0x180)), SnpError::OtherTcb { .. }));
        for at in [0x38, 0x1e0, 0x1f0] {
            assert!(matches!(refused(lower(at)), SnpError::Lower { .. }), "{at:#x}");
        }
        assert!(changed(|report| report[0x3f] += 1).is_ok());
        assert_eq!(refused(changed(|report| report[0x0a] |= 8)), SnpError::Debug);
        assert_eq!(refused(changed(|report| report[0x0a] |= 4)), SnpError::Migration);
        assert_eq!(refused(changed(|report| report[0x30] = 1)), SnpError::Vmpl(1));
        assert_eq!(refused(changed(|report| report[0x1a0] ^= 1)), SnpError::OtherChip);
        assert_eq!(refused(changed(|report| report[0x1a0..0x1e0].fill(0))), SnpError::OtherChip);
        // Signed by the cloud's key, says the report, and the certificate is a chip's.
        assert_eq!(refused(changed(|report| report[0x48] = 1 << 2)), SnpError::OtherChip);
        for key in [2, 7 << 2, 2 << 2] {
            let err = refused(changed(|report| report[0x48] = key));
            assert!(matches!(err, SnpError::Unsigned { .. }), "{err}");
        }
        assert!(matches!(
            refused(changed(|report| report[0x34] = 2)),
            SnpError::Unsigned { algorithm: 2, .. }
        ));
        for version in [0, 1, 6] {
            let err = refused(changed(|report| report[0] = version));
            assert_eq!(err, SnpError::Version(version.into()));
        }
        let processor = |family, model| {
            changed(|report| {
                report[0] = 3;
                report[0x188..0x18a].copy_from_slice(&[family, model]);
            })
        };
        assert!(processor(0x19, 1).is_ok());
        for (family, model) in [(0x19, 0x11), (0x1a, 1), (0, 0)] {
            let err = refused(processor(family, model));
            assert!(matches!(err, SnpError::OtherProduct { .. }), "{err}");
        }
    }
}
