//! Answers that are ours, not a backend's.

use std::io;

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};

use super::head::BadHost;

#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Host(#[from] BadHost),
    #[error("this is no proxy for CONNECT")]
    Connect,
    #[error("no app is served at {0} here")]
    Unknown(String),
    #[error("{host} is not available now: {reason}")]
    Unavailable { host: String, reason: String },
    #[error("{0} can not be served now: too many requests are under way here")]
    Busy(String),
    #[error("{host} does not accept connections now")]
    Unreachable { host: String, source: Option<io::Error> },
    #[error("{host} did not answer the request")]
    Broken { host: String, source: hyper::Error },
    #[error("{0} changed the protocol without being asked to")]
    Switched(String),
    #[error("{0} did not answer the request in time")]
    Late(String),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Unavailable { .. } | Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Switched(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(super) fn answer(&self) -> Response<Full<Bytes>> {
        let mut answer = plain(self.status(), format!("{self}\n"));
        let headers = answer.headers_mut();
        match self {
            // Whatever follows on such a connection is not to be trusted.
            Self::Host(_) | Self::Connect => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Unavailable { .. } | Self::Busy(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Unknown(_)
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Switched(_)
            | Self::Late(_) => (),
        }
        answer
    }
}

/// A text that nobody keeps or takes for anything else.
pub(super) fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
