//! What is answered where.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, Method, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::{
    compression::CompressionLayer,
    cors::{Any, CorsLayer},
    limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer,
};

use crate::{Market, Problem, api, limits, metrics, page};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 256 << 10;

/// The longest refusal of the framework's, in bytes.
const MAX_WORDS: usize = 4 << 10;

/// What pages of other origins may read of an answer's head.
const SHOWN: [HeaderName; 3] = [header::ETAG, header::LINK, header::RETRY_AFTER];

/// Everything that the market answers.
pub(crate) fn router(market: Arc<Market>) -> Router {
    let (api, description) = api::routes();
    let description = api::description(&description);
    let anybody = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::IF_NONE_MATCH, HeaderName::from_static("last-event-id")])
        .expose_headers(SHOWN);
    let public = api
        .route(
            "/v1/openapi.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], description)),
        )
        .merge(page::router())
        .method_not_allowed_fallback(only_read)
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, TIMEOUT))
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&market), limits::limit))
        .layer(anybody);
    // For who runs the market, and for anybody else where no reverse proxy keeps them back. What looks into the database is
    // as much of it as any other request.
    let alive = Router::new().route("/healthz", get(async || "ok\n"));
    let looks = Router::new()
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::show))
        .layer(from_fn_with_state(Arc::clone(&market), limits::limit));
    public
        .merge(alive)
        .merge(looks)
        .layer(map_response(as_problem))
        .layer(from_fn_with_state(Arc::clone(&market), metrics::measure))
        .with_state(market)
}

async fn readyz(State(market): State<Arc<Market>>) -> Result<impl IntoResponse, Problem> {
    market.not_ready().await.map_or(Ok("ready\n"), Err)
}

async fn only_read() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is only read, with GET or HEAD")
}

/// What the framework refuses by itself, in the form of all other refusals.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_text = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_text {
        return response;
    }
    let words = axum::body::to_bytes(response.into_body(), MAX_WORDS).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let words = match status {
        StatusCode::REQUEST_TIMEOUT => "the answer took too long; try again".into(),
        _ if words.is_empty() => status.canonical_reason().unwrap_or_default().into(),
        _ => words,
    };
    Problem::new(status, words).into_response()
}
