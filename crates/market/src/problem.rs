//! What went wrong with a request, as RFC 9457 has it.

use axum::{
    Json,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request is not answered: `application/problem+json` of RFC 9457, whose `type` is always `about:blank`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Problem {
    /// The status of the answer.
    pub(crate) status: u16,
    /// What the status means.
    pub(crate) title: &'static str,
    /// What is wrong, and what to do.
    pub(crate) detail: String,
}

impl Problem {
    /// A problem with its status and what there is to say about it.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Problem");
        Self { status: status.as_u16(), title, detail: detail.into() }
    }

    /// The request cannot be understood.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub(crate) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The mirror cannot be read for the time being.
    pub(crate) fn away(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<store::Error> for Problem {
    /// The cause is logged; a stranger does not hear of it, but for what the operator has to do.
    fn from(err: store::Error) -> Self {
        let code = err.as_database_error().and_then(|err| err.code());
        // A table or a column is not there.
        if matches!(code.as_deref(), Some("42P01" | "42703")) {
            let what =
                "the database has no schema of this version yet: run `roadstead indexer run` on it";
            // An indexer that was started at the same time makes it soon.
            tracing::info!(error = %err, "{what}");
            return Self::away(what);
        }
        tracing::warn!(error = %err, "the database failed: {err}");
        Self::away("the database does not answer; try again")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}
