//! What an ingress answers itself, about a host that it serves.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use hyper::StatusCode;

/// Answers at one path of every host that has a route. Such requests are never sent to a backend.
pub trait About: fmt::Debug + Send + Sync {
    /// The answer: a status, and JSON.
    fn answer<'a>(&'a self, visit: Visit<'a>) -> BoxFuture<'a, (StatusCode, String)>;
}

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The host, in lower case, without port and final dot.
    pub host: &'a str,
    /// What stands behind the `?`.
    pub query: Option<&'a str>,
    /// The key with which the visitor's connection was proved; none without TLS.
    pub key: Option<&'a PublicKey>,
}

/// The key of the certificate that a connection was begun with. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo, in DER.
    pub spki: Arc<[u8]>,
    /// Whether a publisher brought it, so that it is not this ingress's alone.
    pub brought: bool,
}
