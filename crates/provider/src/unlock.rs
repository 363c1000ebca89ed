//! Starts that wait for the key of their pod's encrypted images.
//!
//! Whoever may see how far a lease is may send a key for it: its payer, agents of its account, its app's keeper. A key is
//! taken once, for the nonce that was given out for this start, from the sender that the wallet vouches for, and only if
//! it opens the images. The worst that one of them does without the right key is to use nonces up, each of which costs a
//! request and is replaced by the next. What is captured on the way opens for no other start.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use alloy::primitives::{Address, Signature};
use protocol::pod::PodHash;
use seal::{AppKey, KeyContext, NonceError, Nonces, OpenError, image::ImageError};
use tokio::sync::oneshot;

use crate::{
    leases::{Lease, PodKey},
    reconcile::Shared,
    wire::{KeyRequest, SealedKey},
};

/// How old a nonce may be that is shown once more, in seconds: whoever reads it needs time to answer.
const SHOWN_SECS: u64 = Nonces::LIFE_SECS / 2;

/// A key that was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnlockError {
    #[error(
        "lease {0} waits for no key: it runs, is held, or has not begun to start; `roadstead ps` shows which"
    )]
    NotWaiting(u64),
    #[error(transparent)]
    Nonce(NonceError),
    #[error(
        "wallet {0}, which is signed in, did not sign that sender {1} is its own: seal the key with the wallet's sender key"
    )]
    NotTheirs(Address, seal::SenderPublicKey),
    #[error("the key cannot be opened: seal it to this provider, for this lease, pod and nonce")]
    Open(#[source] OpenError),
    #[error("the key is not the one of the pod's images")]
    WrongKey(#[source] ImageError),
}

/// The starts that wait, by lease. Nothing of it is kept on disk.
#[derive(Debug, Default)]
pub(crate) struct Unlocks(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    nonces: Nonces,
    starts: HashMap<PodKey, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    pod: PodHash,
    /// The manifests that the key has to open.
    manifests: Arc<Vec<Vec<u8>>>,
    /// The nonce that was given out last, and when.
    asked: Option<(seal::Nonce, u64)>,
    give: oneshot::Sender<AppKey>,
}

/// A start's place among those that wait. It is given up when this is dropped.
struct Place<'a> {
    unlocks: &'a Unlocks,
    key: PodKey,
    manifests: Arc<Vec<Vec<u8>>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Waits { nonces, starts } = &mut *self.unlocks.lock();
        // Another start may have come in its place.
        let mine = |waiting: &Waiting| Arc::ptr_eq(&waiting.manifests, &self.manifests);
        if starts.get(&self.key).is_some_and(mine) {
            starts.remove(&self.key);
            nonces.forget(self.key.lease);
        }
    }
}

impl Unlocks {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a key comes for this start of `pod` that opens all `manifests`.
    pub(crate) async fn wait(&self, key: PodKey, pod: PodHash, manifests: Vec<Vec<u8>>) -> AppKey {
        let (give, given) = oneshot::channel();
        let manifests = Arc::new(manifests);
        let place = Place { unlocks: self, key, manifests: Arc::clone(&manifests) };
        self.lock().starts.insert(key, Waiting { pod, manifests, asked: None, give });
        let given = given.await;
        drop(place);
        match given {
            Ok(key) => key,
            // Another start of the same lease took its place, which ends this one.
            Err(_replaced) => std::future::pending().await,
        }
    }

    /// What the start of a lease asks for, if it waits for a key.
    pub(crate) fn asked(&self, key: PodKey) -> Option<KeyRequest> {
        self.asked_at(key, now())
    }

    fn asked_at(&self, key: PodKey, now: u64) -> Option<KeyRequest> {
        let Waits { nonces, starts } = &mut *self.lock();
        let waiting = starts.get_mut(&key)?;
        let fresh = waiting.asked.filter(|(_, since)| now.saturating_sub(*since) <= SHOWN_SECS);
        let (nonce, _) = *waiting.asked.insert(match fresh {
            Some(asked) => asked,
            None => (nonces.issue(key.lease, now), now),
        });
        Some(KeyRequest { nonce, pod: waiting.pod })
    }

    /// Gives the start of a lease its key, if `open` has one for the pod that waits and it opens the images.
    fn give(
        &self,
        key: PodKey,
        nonce: &seal::Nonce,
        now: u64,
        open: impl FnOnce(PodHash) -> Result<AppKey, OpenError>,
    ) -> Result<(), UnlockError> {
        let (pod, manifests) = {
            let Waits { nonces, starts } = &mut *self.lock();
            let waiting = starts.get_mut(&key).ok_or(UnlockError::NotWaiting(key.lease))?;
            let taken = nonces.take(key.lease, nonce, now);
            if waiting.asked.is_some_and(|(asked, _)| asked == *nonce) {
                waiting.asked = None;
            }
            taken.map_err(UnlockError::Nonce)?;
            (waiting.pod, Arc::clone(&waiting.manifests))
        };
        let app_key = open(pod).map_err(UnlockError::Open)?;
        for manifest in manifests.iter() {
            seal::image::fits(manifest, &app_key).map_err(UnlockError::WrongKey)?;
        }
        let mut waits = self.lock();
        // The very start that the nonce was for, and not one that came in its place meanwhile.
        let same = |waiting: &Waiting| Arc::ptr_eq(&waiting.manifests, &manifests);
        let waiting = match waits.starts.get(&key).is_some_and(same) {
            true => waits.starts.remove(&key),
            false => None,
        };
        let given = waiting.is_some_and(|waiting| waiting.give.send(app_key).is_ok());
        if given { Ok(()) } else { Err(UnlockError::NotWaiting(key.lease)) }
    }
}

impl Shared {
    /// Takes the key that `wallet` sends for a lease.
    pub(crate) fn unlock(
        &self,
        wallet: Address,
        lease: &Lease,
        sent: &SealedKey,
    ) -> Result<(), UnlockError> {
        let deployment = self.sender.chain().deployment();
        let claim = sent.sender.claim(deployment.chain_id, &deployment.leases.into());
        let signer = Signature::try_from(sent.claim.as_ref())
            .and_then(|signature| signature.recover_address_from_msg(claim));
        if signer.ok() != Some(wallet) {
            return Err(UnlockError::NotTheirs(wallet, sent.sender));
        }
        let context = |pod: PodHash| KeyContext {
            chain_id: deployment.chain_id,
            leases: deployment.leases.into(),
            account: lease.account.into(),
            lease: lease.key.lease,
            provider: self.sender.address().into(),
            pod: pod.0.into(),
            nonce: sent.nonce,
        };
        self.unlocks.give(lease.key, &sent.nonce, now(), |pod| {
            AppKey::open(&sent.key, &self.keys.seal, &sent.sender, &context(pod))
        })
    }
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use futures::{FutureExt as _, poll};

    use super::*;

    const KEY: PodKey = PodKey { lease: 7, opening: B256::ZERO };

    fn pod() -> PodHash {
        PodHash(B256::repeat_byte(7))
    }

    #[tokio::test]
    async fn a_start_gets_one_key_for_the_newest_nonce() {
        let unlocks = Unlocks::default();
        assert_eq!(unlocks.asked(KEY), None);
        let mut start = Box::pin(unlocks.wait(KEY, pod(), Vec::new()));
        assert!(poll!(&mut start).is_pending());
        let first = unlocks.asked_at(KEY, 100).unwrap();
        assert_eq!(first.pod, pod());
        assert_eq!(unlocks.asked_at(KEY, 100 + SHOWN_SECS), Some(first));
        let second = unlocks.asked_at(KEY, 101 + SHOWN_SECS).unwrap();
        assert_ne!(first, second);

        let good = |_pod| Ok(AppKey::generate());
        let late = unlocks.give(KEY, &first.nonce, 200, good);
        assert!(matches!(late, Err(UnlockError::Nonce(NonceError::Unknown(7)))), "{late:?}");
        let given = unlocks.give(KEY, &second.nonce, 200, |wanted| {
            assert_eq!(wanted, pod());
            good(wanted)
        });
        given.unwrap();
        start.now_or_never().unwrap();
        let again = unlocks.give(KEY, &second.nonce, 200, good);
        assert!(matches!(again, Err(UnlockError::NotWaiting(7))), "{again:?}");
        assert_eq!(unlocks.asked(KEY), None);
    }

    #[tokio::test]
    async fn a_nonce_is_used_up_by_what_does_not_open() {
        let unlocks = Unlocks::default();
        // No image is in it, so that no key opens it.
        let mut start = Box::pin(unlocks.wait(KEY, pod(), vec![b"{}".to_vec()]));
        assert!(poll!(&mut start).is_pending());
        let ask = || unlocks.asked_at(KEY, 100).unwrap().nonce;
        let nonce = ask();
        let given = unlocks.give(KEY, &nonce, 100, |_pod| Err(OpenError::NotFromSender));
        assert!(matches!(given, Err(UnlockError::Open(OpenError::NotFromSender))), "{given:?}");
        let again = unlocks.give(KEY, &nonce, 100, |_pod| Ok(AppKey::generate()));
        assert!(matches!(again, Err(UnlockError::Nonce(_))), "{again:?}");
        let wrong = unlocks.give(KEY, &ask(), 100, |_pod| Ok(AppKey::generate()));
        assert!(matches!(wrong, Err(UnlockError::WrongKey(_))), "{wrong:?}");
        assert!(poll!(&mut start).is_pending(), "it was started without a key");
        let late =
            unlocks.give(KEY, &ask(), 101 + Nonces::LIFE_SECS, |_pod| Ok(AppKey::generate()));
        assert!(matches!(late, Err(UnlockError::Nonce(NonceError::Expired(7)))), "{late:?}");
    }

    #[tokio::test]
    async fn a_start_that_is_called_off_waits_no_more() {
        let unlocks = Unlocks::default();
        let mut start = Box::pin(unlocks.wait(KEY, pod(), Vec::new()));
        assert!(poll!(&mut start).is_pending());
        let nonce = unlocks.asked(KEY).unwrap().nonce;
        drop(start);
        assert_eq!(unlocks.asked(KEY), None);
        let mut next = Box::pin(unlocks.wait(KEY, pod(), Vec::new()));
        assert!(poll!(&mut next).is_pending());
        let given = unlocks.give(KEY, &nonce, now(), |_pod| Ok(AppKey::generate()));
        assert!(matches!(given, Err(UnlockError::Nonce(NonceError::Unknown(7)))), "{given:?}");
    }
}
