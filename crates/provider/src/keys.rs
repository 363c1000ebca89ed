//! The keys by which a provider is known besides its wallet: TLS and sealing.
//!
//! Both are in its listing, so whoever reads the Registry knows whom it speaks to and can seal to it. Losing them
//! costs a new listing and, of running pods, the secrets at their next start; they are worth a backup.

use std::{io, os::unix::fs::OpenOptionsExt, path::Path};

use alloy::primitives::B256;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use seal::{SealingKey, SealingPublicKey};
use sha2::{Digest as _, Sha256};

/// Keys that could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file of them could not be read or written.
    #[error("the key file {0} cannot be used")]
    Io(String, #[source] io::Error),
    /// A file does not hold a key.
    #[error("the key file {0} does not hold a key; restore it, or move it away to get a new one")]
    Format(String),
    /// A certificate could not be made.
    #[error("the TLS certificate could not be made")]
    Certificate(#[from] rcgen::Error),
}

/// A provider's keys.
#[derive(Debug)]
pub struct Keys {
    pub(crate) tls_key_pem: zeroize::Zeroizing<String>,
    pub(crate) tls_cert_pem: String,
    tls_pin: B256,
    pub(crate) seal: SealingKey,
}

impl Keys {
    /// The keys in the folder `data`, made if they are not there.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else.
    pub fn open(data: &Path) -> Result<Self, KeyError> {
        let folder = data.join("keys");
        let name = folder.display().to_string();
        std::fs::create_dir_all(&folder).map_err(|err| KeyError::Io(name, err))?;

        let path = folder.join("seal.key");
        let text =
            read_or(&path, || Ok(hex::encode(SealingKey::generate().to_bytes().as_slice())))?;
        let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(text.trim(), bytes.as_mut())
            .map_err(|_err| KeyError::Format(path.display().to_string()))?;
        let seal = SealingKey::from_bytes(&bytes);

        let path = folder.join("tls.key");
        let tls_key_pem =
            read_or(&path, || Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem()))?;
        let pair = KeyPair::from_pem(&tls_key_pem)
            .map_err(|_err| KeyError::Format(path.display().to_string()))?;
        // Only the key counts: the Registry pins it, and names and dates say nothing more.
        let certificate = CertificateParams::new(vec!["provider.roadstead".into()])?;
        let tls_cert_pem = certificate.self_signed(&pair)?.pem();
        let tls_pin = B256::from_slice(&Sha256::digest(pair.subject_public_key_info()));
        Ok(Self { tls_key_pem, tls_cert_pem, tls_pin, seal })
    }

    /// SHA-256 of the TLS key's SubjectPublicKeyInfo (RFC 7469): the listing's `tlsKey`.
    pub fn tls_pin(&self) -> B256 {
        self.tls_pin
    }

    /// The key to which secrets are sealed: the listing's `sealKey`.
    pub fn seal_key(&self) -> SealingPublicKey {
        self.seal.public()
    }
}

/// What the file holds, or else what `make` makes, which is written so that only its owner can read it.
fn read_or(
    path: &Path,
    make: impl FnOnce() -> Result<String, KeyError>,
) -> Result<zeroize::Zeroizing<String>, KeyError> {
    let failed = |err| KeyError::Io(path.display().to_string(), err);
    match std::fs::read_to_string(path) {
        Ok(text) => return Ok(text.into()),
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed(err)),
        Err(_) => (),
    }
    let text = zeroize::Zeroizing::new(make()?);
    let draft = path.with_extension("draft");
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_the_same_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::open(folder.path()).unwrap();
        let again = Keys::open(folder.path()).unwrap();
        assert_eq!(first.tls_pin(), again.tls_pin());
        assert_eq!(first.seal_key(), again.seal_key());
        for name in ["seal.key", "tls.key"] {
            let file = folder.path().join("keys").join(name);
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &std::fs::metadata(&file).unwrap().permissions(),
            );
            assert_eq!(mode & 0o777, 0o600, "{name}");
            std::fs::write(&file, "not a key").unwrap();
            let err = Keys::open(folder.path()).unwrap_err().to_string();
            assert!(err.contains(name) && !err.contains("not a key"), "{err}");
            std::fs::remove_file(&file).unwrap();
        }
        assert_ne!(Keys::open(folder.path()).unwrap().tls_pin(), first.tls_pin());
    }
}
