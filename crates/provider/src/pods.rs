//! The pod store: canonical pods under their hash, and the sealed secrets that came with a quote.
//!
//! Any wallet that is signed in may ask for a quote and so store a pod. The worst of them fills the disk: a pod is
//! bounded, the store is too, and what no lease uses is removed once its quotes have expired.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alloy::primitives::B256;
use protocol::pod::{Pod, PodHash};
use seal::Envelope;

/// The most files of pods and of secrets, each of which has at most a few MiB.
const MAX_FILES: usize = 10_000;

/// A pod that cannot be stored or had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("pod {0} is not here: no quote of this provider was for it")]
    Missing(PodHash),
    #[error("the secrets of pod {0} were not sent along with its quote")]
    NoSecrets(PodHash),
    #[error("what is stored as {0} is not that")]
    Broken(String),
    #[error(
        "there are {MAX_FILES} pods waiting for a lease; try again when their quotes have expired"
    )]
    Full,
    #[error("the pod store failed")]
    Io(#[from] io::Error),
}

/// A folder of pods and one of secrets.
#[derive(Debug, Clone)]
pub(crate) struct Pods {
    pods: PathBuf,
    secrets: PathBuf,
}

impl Pods {
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let (pods, secrets) = (data.join("pods"), data.join("secrets"));
        std::fs::create_dir_all(&pods)?;
        std::fs::create_dir_all(&secrets)?;
        Ok(Self { pods, secrets })
    }

    fn pod_path(&self, hash: PodHash) -> PathBuf {
        self.pods.join(format!("{}.json", hex::encode(hash.0)))
    }

    fn secrets_path(&self, account: B256, hash: PodHash) -> PathBuf {
        self.secrets.join(format!("{}-{}.json", hex::encode(account), hex::encode(hash.0)))
    }

    /// Keeps a pod and, if they came along, the secrets that `account` wants it to have.
    pub(crate) fn put(
        &self,
        pod: &Pod,
        account: B256,
        secrets: Option<&Envelope>,
    ) -> Result<(), PodError> {
        let hash = pod.hash();
        write(&self.pods, &self.pod_path(hash), &pod.canonical())?;
        if let Some(envelope) = secrets {
            let text = serde_json::to_vec(envelope).map_err(io::Error::other)?;
            write(&self.secrets, &self.secrets_path(account, hash), &text)?;
        }
        Ok(())
    }

    /// The pod with that hash.
    pub(crate) fn get(&self, hash: PodHash) -> Result<Pod, PodError> {
        let bytes = match std::fs::read(self.pod_path(hash)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(PodError::Missing(hash));
            }
            bytes => bytes?,
        };
        let pod = Pod::decode(&bytes).ok().filter(|pod| pod.hash() == hash);
        pod.ok_or_else(|| PodError::Broken(hash.to_string()))
    }

    /// The sealed secrets of a pod.
    pub(crate) fn secrets(&self, account: B256, hash: PodHash) -> Result<Envelope, PodError> {
        match std::fs::read(self.secrets_path(account, hash)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(PodError::NoSecrets(hash)),
            bytes => serde_json::from_slice(&bytes?)
                .map_err(|_err| PodError::Broken(format!("the secrets of {hash}"))),
        }
    }

    /// When the sealed secrets of a pod came, if they are here.
    pub(crate) fn secrets_sent(&self, account: B256, hash: PodHash) -> Option<SystemTime> {
        std::fs::metadata(self.secrets_path(account, hash)).ok()?.modified().ok()
    }

    /// Removes what no lease uses and no quote can ask for any more.
    pub(crate) fn expire(
        &self,
        used: &BTreeSet<(B256, PodHash)>,
        life: Duration,
    ) -> io::Result<()> {
        let used = |name: &str| {
            used.iter().any(|(account, hash)| {
                let hash = hex::encode(hash.0);
                name == format!("{hash}.json")
                    || name == format!("{}-{hash}.json", hex::encode(account))
            })
        };
        for folder in [&self.pods, &self.secrets] {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
                if age > life && !used(&entry.file_name().to_string_lossy()) {
                    std::fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Writes the file as a whole or not at all, and makes it young again if it is there.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> Result<(), PodError> {
    if !path.exists() && std::fs::read_dir(folder)?.count() >= MAX_FILES {
        return Err(PodError::Full);
    }
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut draft, bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|err| err.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::pod::{Label, Service};

    use super::*;

    fn pod(command: &str) -> Pod {
        let service: Service = serde_json::from_value(serde_json::json!({
            "command": [command],
            "image": { "pushed": { "id": format!("sha256:{}", "a".repeat(64)) } },
            "limits": { "cpu": 100, "memory": 16 << 20, "pids": 32 },
        }))
        .unwrap();
        let name: Label = "web".parse().unwrap();
        Pod::new(BTreeMap::from([(name, service)]), BTreeMap::new(), BTreeMap::new()).unwrap()
    }

    #[test]
    fn pods_are_kept_while_they_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let pods = Pods::open(folder.path()).unwrap();
        let (one, two, account) = (pod("one"), pod("two"), B256::repeat_byte(1));
        pods.put(&one, account, None).unwrap();
        pods.put(&two, account, None).unwrap();
        assert_eq!(pods.get(one.hash()).unwrap(), one);
        assert!(matches!(pods.secrets(account, one.hash()), Err(PodError::NoSecrets(_))));

        pods.expire(&BTreeSet::from([(account, one.hash())]), Duration::ZERO).unwrap();
        assert_eq!(pods.get(one.hash()).unwrap(), one);
        assert!(matches!(pods.get(two.hash()), Err(PodError::Missing(_))));

        std::fs::write(pods.pod_path(one.hash()), two.canonical()).unwrap();
        assert!(matches!(pods.get(one.hash()), Err(PodError::Broken(_))));
    }
}
