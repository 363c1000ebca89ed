//! What is answered where.

use std::sync::Arc;

use axum::{Router, extract::State, response::IntoResponse, routing::get};

use crate::{Market, Problem};

/// Everything that the market answers.
pub(crate) fn router(market: Arc<Market>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(market)
}

async fn readyz(State(market): State<Arc<Market>>) -> Result<impl IntoResponse, Problem> {
    market.read().await?;
    Ok("ready\n")
}
