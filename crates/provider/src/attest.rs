//! What this machine can prove of itself, for anybody who asks with a nonce.
//!
//! Who asks needs no wallet, since visitors of a pod ask as well (`visit`). The worst that they gain is a signature over the keys
//! that the Registry has anyway, and a nonce of theirs, in a text that says what it is; and to keep the hardware busy: one report is
//! made at a time, and who comes meanwhile is told to come again.

use alloy::{primitives::B256, signers::SignerSync as _};
use seal::attest::{Subject, Tsm, TsmError, Unattested, Visit};
use tokio::sync::Semaphore;

use crate::{reconcile::Shared, wire::Attestation};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestError {
    /// Somebody else's is being made.
    #[error("another report is being made; ask again in some seconds")]
    Busy,
    /// The hardware failed.
    #[error("the hardware gave no report")]
    Tsm(#[from] TsmError),
    /// The wallet could not sign.
    #[error("the statement could not be signed")]
    Sign(#[from] alloy::signers::Error),
    /// The report's thread was lost.
    #[error("the report was lost")]
    Lost(#[from] tokio::task::JoinError),
}

/// Asks the hardware, where there is some.
#[derive(Debug)]
pub(crate) struct Attester {
    tsm: Option<Tsm>,
    turn: Semaphore,
}

impl Attester {
    /// The machine's hardware, if it attests.
    pub(crate) fn find() -> Self {
        let tsm = Tsm::find();
        if tsm.is_none() {
            tracing::info!("this machine has no hardware that attests: it is UNATTESTED");
        }
        Self { tsm, turn: Semaphore::new(1) }
    }

    /// Evidence about `nonce`, this provider's keys and what a visitor asks about; without hardware, the wallet's word.
    pub(crate) async fn answer(
        &self,
        shared: &Shared,
        nonce: B256,
        visit: Option<Visit>,
    ) -> Result<Attestation, AttestError> {
        let _turn = self.turn.try_acquire().map_err(|_busy| AttestError::Busy)?;
        let subject = subject(shared, nonce, visit);
        let Some(tsm) = self.tsm.clone() else {
            let message = Unattested::message(&subject);
            let signature = shared.sender.signer().sign_message_sync(message.as_bytes())?;
            return Ok(Attestation::Unattested(Unattested { signature: signature.as_bytes() }));
        };
        let evidence = tokio::task::spawn_blocking(move || tsm.evidence(&subject)).await??;
        Ok(Attestation::Evidence(evidence))
    }
}

fn subject(shared: &Shared, nonce: B256, visit: Option<Visit>) -> Subject {
    Subject {
        nonce: nonce.0,
        chain_id: shared.sender.chain().id(),
        provider: shared.sender.address().into(),
        sealing_key: shared.keys.seal_key(),
        tls_key: shared.keys.tls_pin().0,
        visit,
    }
}
