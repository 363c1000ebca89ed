//! Who may have what a pod's publisher keeps from others: its secrets, and the key of its encrypted images.
//!
//! A pod file may say (`x-roadstead.attested`) what a provider's machine has to prove first. Each secret goes about with that, and
//! leaves only by being sealed here: for such a pod to an [`Attested`], which nothing but judged evidence makes.

use std::path::Path;

use anyhow::Context as _;
use protocol::pod::{AttestedWish, Hardware};
use seal::{
    AppKey, Context, Envelope, KeyContext, SealError, SealingPublicKey, Secrets, SenderKey,
    attest::{Attested, Measurement},
};
use serde::{Deserialize, Serialize};

use crate::{
    attest::{Required, Wanted},
    client::Endpoint,
};

/// Whom a pod's publisher trusts with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trust {
    /// The provider of its choice, by the key that the Registry has.
    Listed,
    /// A provider whose machine proves that it is what is wanted, each time.
    Attested(Wanted),
}

/// A provider that may have what is a pod's. [`Trust::ask`] alone makes one.
#[derive(Debug)]
enum Trusted {
    Listed(SealingPublicKey),
    Attested(Box<Attested>),
}

impl Trust {
    /// What a pod file says, whose paths are relative to `folder`.
    pub(crate) fn of(wish: Option<&AttestedWish>, folder: &Path) -> anyhow::Result<Self> {
        let Some(wish) = wish else { return Ok(Self::Listed) };
        let path = |path: &String| {
            let path = folder.join(path);
            std::path::absolute(&path).unwrap_or(path)
        };
        let require = match wish.hardware {
            Hardware::Any => Required::Any,
            Hardware::Tdx => Required::Tdx,
            Hardware::SevSnp => Required::SevSnp,
        };
        let wanted = Wanted {
            require: Some(require),
            measurement: wish.measurements.iter().map(|hash| Measurement(hash.0)).collect(),
            collateral: wish.collateral.as_ref().map(path),
            oldest: wish.oldest.as_ref().map(path),
        };
        wanted.check().context("x-roadstead.attested")?;
        Ok(Self::Attested(wanted))
    }

    /// Makes sure that a provider may be sent the pod at all, and what is sealed for it.
    ///
    /// # Errors
    /// When its machine does not prove what it has to.
    pub(crate) async fn require(&self, endpoint: &Endpoint, chain_id: u64) -> anyhow::Result<()> {
        self.ask(endpoint, chain_id).await.map(drop)
    }

    async fn ask(&self, endpoint: &Endpoint, chain_id: u64) -> anyhow::Result<Trusted> {
        match self {
            Self::Listed => Ok(Trusted::Listed(endpoint.seal_key)),
            Self::Attested(wanted) => {
                let attested = wanted.attested(endpoint, chain_id).await;
                let attested = attested.context("nothing was sent to it")?;
                Ok(Trusted::Attested(Box::new(attested)))
            }
        }
    }
}

/// A pod's secrets, for who is trusted with it.
#[derive(Debug)]
pub(crate) struct PodSecrets {
    secrets: Secrets,
    trust: Trust,
}

impl PodSecrets {
    pub(crate) fn new(secrets: Secrets, trust: Trust) -> Self {
        Self { secrets, trust }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.secrets.0.is_empty()
    }

    /// Who may have them, and the pod.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Seals them to a provider, if it is trusted.
    ///
    /// # Errors
    /// When it is not, or does not answer, or they cannot be sealed to it.
    pub(crate) async fn seal(
        &self,
        endpoint: &Endpoint,
        context: &Context,
    ) -> anyhow::Result<Envelope> {
        let sealed = match self.trust.ask(endpoint, context.chain_id).await? {
            Trusted::Listed(key) => self.secrets.seal(&key, context),
            Trusted::Attested(attested) => self.secrets.seal_to_attested(&attested, context),
        };
        sealed.with_context(|| format!("the secrets cannot be sealed to {}", endpoint.address))
    }
}

/// The key of a pod's encrypted images, for who is trusted with it.
#[derive(Debug, Clone)]
pub(crate) struct ImageKey {
    key: AppKey,
    trust: Trust,
}

impl ImageKey {
    pub(crate) fn new(key: AppKey, trust: Trust) -> Self {
        Self { key, trust }
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Seals it to a provider for one start, if it is trusted.
    ///
    /// # Errors
    /// When it is not, or does not answer, or it cannot be sealed to it.
    pub(crate) async fn seal(
        &self,
        endpoint: &Endpoint,
        from: &SenderKey,
        context: &KeyContext,
    ) -> anyhow::Result<Envelope> {
        let sealed: Result<_, SealError> = match self.trust.ask(endpoint, context.chain_id).await? {
            Trusted::Listed(key) => self.key.seal(&key, from, context),
            Trusted::Attested(attested) => self.key.seal_to_attested(&attested, from, context),
        };
        Ok(sealed?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_for_beside_the_pod_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Trust::of(None, folder.path()).unwrap(), Trust::Listed);
        let wish = AttestedWish {
            hardware: Hardware::SevSnp,
            measurements: [[7; 32].into()].into(),
            collateral: None,
            oldest: Some("./amd.toml".into()),
        };
        let err = format!("{:#}", Trust::of(Some(&wish), folder.path()).unwrap_err());
        assert!(err.contains("x-roadstead.attested") && err.contains("amd.toml"), "{err}");
        let firmware = "[genoa]\nbootloader = 9\ntee = 0\nsnp = 21\nmicrocode = 72\n";
        std::fs::write(folder.path().join("amd.toml"), firmware).unwrap();
        let trust = Trust::of(Some(&wish), folder.path()).unwrap();
        let Trust::Attested(wanted) = &trust else { panic!("{trust:?}") };
        assert_eq!(wanted.require, Some(Required::SevSnp));
        assert_eq!(wanted.measurement, [Measurement([7; 32])]);
        let oldest = wanted.oldest.as_deref().unwrap();
        assert!(oldest.is_absolute() && oldest.ends_with("amd.toml"), "{oldest:?}");
    }
}
