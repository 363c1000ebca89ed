//! What visitors are told of a host: who serves it, for which lease, and evidence about the connection that they asked on.
//!
//! Anybody may ask at any host that is served here; no pod sees the request. The worst of them learns what is on the chain
//! (lease, pod's hash), has a nonce of theirs signed in a statement that says what it is about, and keeps the hardware busy:
//! all who ask for evidence, here and at the API, wait for one turn. A publisher that brought a certificate has its key, too, and so
//! may stand between visitors and this provider: for such a connection it is said, and signed, whose key it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use alloy::primitives::B256;
use axum::{
    extract::Query,
    http::{StatusCode, Uri},
};
use edge::{About, PublicKey};
use futures::future::BoxFuture;
use protocol::pod::PodHash;
use seal::attest::{Connection, Visit};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    attest::{AttestError, Attester},
    causes,
    reconcile::Shared,
    wire::{ApiError, ServedHost},
};

/// For which lease each host is served, and by which pod. It is swapped as a whole.
#[derive(Debug, Default)]
pub(crate) struct Served(Mutex<HashMap<String, (u64, PodHash)>>);

impl Served {
    pub(crate) fn set(&self, hosts: HashMap<String, (u64, PodHash)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    fn get(&self, host: &str) -> Option<(u64, PodHash)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }
}

/// Answers visitors.
#[derive(Debug)]
pub(crate) struct Visits {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attester: Arc<Attester>,
}

/// What a visitor asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    nonce: Option<B256>,
}

impl Asked {
    fn read(query: Option<&str>) -> Result<Self, String> {
        let uri: Result<Uri, _> = format!("/?{}", query.unwrap_or_default()).parse();
        let uri = uri.map_err(|err| err.to_string())?;
        let asked = Query::try_from_uri(&uri);
        asked.map(|Query(asked)| asked).map_err(|err| causes(&err))
    }
}

/// What a visitor's connection is, by the key that was shown on it.
fn connection(key: Option<&PublicKey>) -> Connection {
    let Some(key) = key else { return Connection::None };
    let hash = Sha256::digest(&key.spki).into();
    match key.brought {
        true => Connection::Publisher(hash),
        false => Connection::Provider(hash),
    }
}

impl Visits {
    async fn tell(&self, visit: edge::Visit<'_>) -> Result<ServedHost, (StatusCode, String)> {
        let Asked { nonce } =
            Asked::read(visit.query).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        let host = visit.host;
        let gone = || (StatusCode::SERVICE_UNAVAILABLE, format!("{host} is about to change"));
        let (lease, pod) = self.shared.served.get(host).ok_or_else(gone)?;
        let connection = connection(visit.key);
        let attestation = match nonce {
            None => None,
            Some(nonce) => {
                let visit =
                    Visit { host: Visit::of_host(host), connection, lease, pod: pod.0.into() };
                let answer = self.attester.answer(&self.shared, nonce, Some(visit)).await;
                Some(answer.map_err(refused)?)
            }
        };
        let deployment = self.shared.sender.chain().deployment();
        Ok(ServedHost {
            provider: self.shared.sender.address(),
            chain_id: deployment.chain_id,
            leases: deployment.leases,
            lease,
            pod,
            connection,
            attestation,
        })
    }
}

fn refused(err: AttestError) -> (StatusCode, String) {
    match &err {
        AttestError::Busy => (StatusCode::TOO_MANY_REQUESTS, err.to_string()),
        AttestError::Tsm(_) | AttestError::Sign(_) | AttestError::Lost(_) => {
            tracing::warn!(error = causes(&err), "a visitor got no evidence");
            (StatusCode::SERVICE_UNAVAILABLE, err.to_string())
        }
    }
}

impl About for Visits {
    fn answer<'a>(&'a self, visit: edge::Visit<'a>) -> BoxFuture<'a, (StatusCode, String)> {
        Box::pin(async move {
            let told = match self.tell(visit).await {
                Ok(served) => (StatusCode::OK, serde_json::to_string(&served)),
                Err((status, error)) => (status, serde_json::to_string(&ApiError { error })),
            };
            // Of such types none fails to be written.
            (told.0, told.1.unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_32_bytes_or_not_there() {
        let nonce = format!("nonce=0x{}", "07".repeat(32));
        assert_eq!(Asked::read(Some(&nonce)).unwrap().nonce, Some(B256::repeat_byte(7)));
        assert_eq!(Asked::read(None).unwrap().nonce, None);
        let twice = format!("{nonce}&{nonce}");
        for bad in ["nonce=0x07", "nonce=", "nonce", "x=1", "nonce=0x07;", &*twice, "\u{7f}"] {
            assert!(Asked::read(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn whose_key_it_is_is_told() {
        let key = |brought| PublicKey { spki: Arc::from(&b"key"[..]), brought };
        let hash: [u8; 32] = Sha256::digest(b"key").into();
        assert_eq!(connection(None), Connection::None);
        assert_eq!(connection(Some(&key(false))), Connection::Provider(hash));
        assert_eq!(connection(Some(&key(true))), Connection::Publisher(hash));
    }
}
