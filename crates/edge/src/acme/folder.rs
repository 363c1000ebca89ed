//! What is kept on disk: the account, and each certificate with its key, in one file that is replaced as a whole.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tokio::task::spawn_blocking;

use super::{Want, order::Pem};
use crate::tls::Certificate;

/// What the file of a wildcard begins with in place of `*`, which no shell leaves alone. No host begins so.
const WILDCARD: &str = "_wildcard";

/// A folder for one authority. What is in it is for its owner's eyes only.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The one for the authority with this directory, below `folder`.
    pub(super) fn open(folder: &Path, directory: &str) -> io::Result<Self> {
        let name = directory.split_once("://").map_or(directory, |(_scheme, rest)| rest);
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let path = folder.join(name.chars().map(safe).collect::<String>());
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) async fn account(&self) -> io::Result<Option<Vec<u8>>> {
        let path = self.account_path();
        blocking(move || read(&path)).await
    }

    pub(super) async fn keep_account(&self, account: Vec<u8>) -> io::Result<()> {
        let path = self.account_path();
        blocking(move || write(&path, &account)).await
    }

    pub(super) async fn remove_account(&self) -> io::Result<()> {
        let path = self.account_path();
        blocking(move || remove(&path)).await
    }

    pub(super) async fn certificate(
        &self,
        host: &str,
        whose: &str,
    ) -> io::Result<Option<Certificate>> {
        let path = self.certificate_path(host, whose);
        blocking(move || read(&path)?.map(|pem| parse(&pem)).transpose()).await
    }

    pub(super) async fn keep_certificate(
        &self,
        host: &str,
        whose: &str,
        pem: &Pem,
    ) -> io::Result<()> {
        let path = self.certificate_path(host, whose);
        let both = format!("{}{}", pem.key, pem.chain);
        blocking(move || write(&path, both.as_bytes())).await
    }

    /// Removes the certificates that have expired and are not wanted.
    pub(super) async fn clean(&self, wanted: &BTreeMap<String, Want>) -> io::Result<()> {
        let folder = self.0.clone();
        let path = |(host, want): (&String, &Want)| self.certificate_path(host, &want.whose);
        let wanted: Vec<_> = wanted.iter().map(path).collect();
        blocking(move || {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_none_or(|kind| kind != "pem") || wanted.contains(&path) {
                    continue;
                }
                let expired = |c: Certificate| c.expires() < SystemTime::now();
                if read(&path)?.is_some_and(|pem| parse(&pem).is_ok_and(expired)) {
                    remove(&path)?;
                }
            }
            Ok(())
        })
        .await
    }

    fn account_path(&self) -> PathBuf {
        self.0.join("account.json")
    }

    /// Neither a host nor whoever has it has a `~` in the name.
    fn certificate_path(&self, host: &str, whose: &str) -> PathBuf {
        let name = host.strip_prefix('*').map_or(host.into(), |rest| format!("{WILDCARD}{rest}"));
        self.0.join(format!("{name}~{whose}.pem"))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn parse(pem: &[u8]) -> io::Result<Certificate> {
    Certificate::from_pem(pem, pem).map_err(io::Error::other)
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whoever reads meanwhile, or after a loss of power, sees what was there or what is to be there.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    // One that is left from before may have another mode.
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
