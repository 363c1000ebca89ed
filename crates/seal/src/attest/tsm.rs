//! Evidence out of Linux's `configfs-tsm` (kernel 6.7, Documentation/ABI/testing/configfs-tsm-report), which is one
//! interface to TDX and SEV-SNP.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Der, Evidence, Subject};

/// How often a report is read again because somebody else changed it meanwhile.
const TRIES: usize = 5;

/// The GUIDs of certificates that the host hands to an SEV-SNP guest (GHCB specification, 56421), as they are written.
const VCEK: [u8; 16] = guid(0x63da_758d_e664_4564_adc5_f4b9_3be8_accd);
const VLEK: [u8; 16] = guid(0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1);
const ASK: [u8; 16] = guid(0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782);

/// The kernel's interface, where there is one.
#[derive(Debug, Clone)]
pub struct Tsm(PathBuf);

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum TsmError {
    /// The interface failed.
    #[error("{path} failed")]
    Io {
        /// What was read or written.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something else than what is known here.
    #[error("the machine attests by {0:?}; known are tdx_guest and sev_guest")]
    Provider(String),
    /// Somebody else writes to the same report.
    #[error("the report changed while it was read, {TRIES} times")]
    Busy,
}

/// One report under way: a folder whose files are the kernel's.
trait Report {
    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), TsmError>;
    fn read(&self, file: &str) -> Result<Vec<u8>, TsmError>;
}

/// A folder of configfs, removed when dropped.
struct Folder(PathBuf);

impl Tsm {
    /// Where the kernel has it.
    pub const PATH: &'static str = "/sys/kernel/config/tsm/report";

    /// The machine's interface. None where the hardware does not attest or the kernel does not say so: such a machine
    /// is [`Unattested`](super::Unattested).
    pub fn find() -> Option<Self> {
        Self::at(Path::new(Self::PATH))
    }

    fn at(path: &Path) -> Option<Self> {
        path.is_dir().then(|| Self(path.to_owned()))
    }

    /// Has the hardware sign for `subject`. Blocks for up to some seconds.
    ///
    /// The evidence has what the kernel gives: Intel's collateral is never in it, AMD's certificates are if the host
    /// handed them to the guest.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn evidence(&self, subject: &Subject) -> Result<Evidence, TsmError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.0.join(format!("roadstead-{}-{count}", process::id()));
        // Left behind by a process of the same number that was killed.
        let _nothing_there = fs::remove_dir(&path);
        fs::create_dir(&path).map_err(|err| failed(&path, err))?;
        ask(&Folder(path), &subject.report_data())
    }
}

/// Reads a report that nobody changed meanwhile.
fn ask(report: &impl Report, data: &[u8; 64]) -> Result<Evidence, TsmError> {
    for _try in 0..TRIES {
        report.write("inblob", data)?;
        let before = report.read("generation")?;
        let provider = report.read("provider")?;
        let blob = report.read("outblob")?;
        // TDX has none.
        let certificates = report.read("auxblob").unwrap_or_default();
        if report.read("generation")? == before {
            return evidence(&provider, blob, &certificates);
        }
    }
    Err(TsmError::Busy)
}

fn evidence(provider: &[u8], blob: Vec<u8>, certificates: &[u8]) -> Result<Evidence, TsmError> {
    match provider.trim_ascii() {
        b"tdx_guest" => Ok(Evidence::Tdx { quote: blob, collateral: None }),
        b"sev_guest" => Ok(Evidence::SevSnp { report: blob, certificates: table(certificates) }),
        other => Err(TsmError::Provider(String::from_utf8_lossy(other).into_owned())),
    }
}

/// The certificates of a host's table: entries of a GUID, an offset and a length, up to an empty one. They are judged
/// later, so what cannot be read is left out.
fn table(bytes: &[u8]) -> Vec<Der> {
    bytes
        .chunks_exact(24)
        .take_while(|entry| entry[..16] != [0; 16])
        .filter(|entry| {
            [VCEK, VLEK, ASK]
                .iter()
                .any(|known| entry[..16] == *known || entry[..16] == swapped(*known))
        })
        .filter_map(|entry| {
            let number = |at: usize| {
                let bytes = entry[at..at + 4].try_into().expect("the range has four bytes");
                usize::try_from(u32::from_le_bytes(bytes)).ok()
            };
            let (offset, length) = (number(16)?, number(20)?);
            bytes.get(offset..offset.checked_add(length)?)
        })
        .map(|der| Der(der.to_vec()))
        .collect()
}

const fn guid(number: u128) -> [u8; 16] {
    number.to_be_bytes()
}

/// A GUID as UEFI stores it, which some hosts do.
fn swapped(mut guid: [u8; 16]) -> [u8; 16] {
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    guid
}

fn failed(path: &Path, source: io::Error) -> TsmError {
    TsmError::Io { path: path.display().to_string(), source }
}

impl Report for Folder {
    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), TsmError> {
        let path = self.0.join(file);
        fs::write(&path, bytes).map_err(|err| failed(&path, err))
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, TsmError> {
        let path = self.0.join(file);
        fs::read(&path).map_err(|err| failed(&path, err))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind costs the kernel a few hundred bytes.
        let _best_effort = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A kernel in a few lines: whatever is written counts up the generation.
    struct Kernel {
        provider: &'static str,
        aux: Option<Vec<u8>>,
        inblob: Cell<[u8; 64]>,
        generation: Cell<u64>,
        disturbed: Cell<usize>,
    }

    impl Kernel {
        fn new(provider: &'static str, aux: Option<Vec<u8>>) -> Self {
            Self {
                provider,
                aux,
                inblob: Cell::new([0; 64]),
                generation: Cell::new(0),
                disturbed: Cell::new(0),
            }
        }
    }

    impl Report for Kernel {
        fn write(&self, file: &str, bytes: &[u8]) -> Result<(), TsmError> {
            assert_eq!(file, "inblob");
            self.inblob.set(bytes.try_into().unwrap());
            self.generation.set(self.generation.get() + 1);
            Ok(())
        }

        fn read(&self, file: &str) -> Result<Vec<u8>, TsmError> {
            match file {
                "generation" => Ok(format!("{}\n", self.generation.get()).into_bytes()),
                "provider" => Ok(format!("{}\n", self.provider).into_bytes()),
                "outblob" => {
                    let blob = self.inblob.get().to_vec();
                    if self.disturbed.get() > 0 {
                        self.disturbed.set(self.disturbed.get() - 1);
                        self.write("inblob", &[0xff; 64])?;
                    }
                    Ok(blob)
                }
                "auxblob" => self
                    .aux
                    .clone()
                    .ok_or_else(|| failed(Path::new(file), io::ErrorKind::NotFound.into())),
                other => panic!("{other} is not asked for"),
            }
        }
    }

    fn entry(guid: [u8; 16], offset: u32, length: u32) -> Vec<u8> {
        [&guid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    }

    #[test]
    fn asks_the_hardware_there_is() {
        let quote = ask(&Kernel::new("tdx_guest", None), &[7; 64]).unwrap();
        assert_eq!(quote, Evidence::Tdx { quote: vec![7; 64], collateral: None });
        let report = ask(&Kernel::new("sev_guest", None), &[7; 64]).unwrap();
        assert_eq!(report, Evidence::SevSnp { report: vec![7; 64], certificates: Vec::new() });
        let err = ask(&Kernel::new("arm_cca_guest", None), &[7; 64]).unwrap_err();
        assert!(err.to_string().contains("arm_cca_guest"), "{err}");
    }

    #[test]
    fn reads_what_the_host_knows_of_the_chip() {
        let others = guid(0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae);
        let start = 5 * 24;
        let mut table = [
            entry(VCEK, start, 2),
            entry(others, start, 5),
            entry(swapped(ASK), start + 2, 3),
            entry(VLEK, u32::MAX, u32::MAX),
            entry([0; 16], 0, 0),
        ]
        .concat();
        table.extend_from_slice(&[1, 2, 3, 4, 5]);
        let Evidence::SevSnp { certificates, .. } =
            ask(&Kernel::new("sev_guest", Some(table)), &[7; 64]).unwrap()
        else {
            panic!("sev_guest gives SEV-SNP's")
        };
        assert_eq!(certificates, [Der(vec![1, 2]), Der(vec![3, 4, 5])]);
    }

    #[test]
    fn a_report_that_changes_is_read_again() {
        let kernel = Kernel::new("tdx_guest", None);
        kernel.disturbed.set(TRIES - 1);
        assert!(ask(&kernel, &[7; 64]).is_ok());
        kernel.disturbed.set(TRIES);
        assert!(matches!(ask(&kernel, &[7; 64]), Err(TsmError::Busy)));
    }

    #[test]
    fn a_machine_without_it_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Tsm::at(&folder.path().join("report")).is_none());
        // A folder that is not configfs makes no files, and is left as it was.
        let tsm = Tsm::at(folder.path()).unwrap();
        let subject = Subject {
            nonce: [1; 32],
            chain_id: 1,
            provider: [2; 20],
            sealing_key: crate::SealingPublicKey([3; 32]),
            tls_key: [4; 32],
            visit: None,
        };
        assert!(matches!(tsm.evidence(&subject), Err(TsmError::Io { .. })));
    }
}
