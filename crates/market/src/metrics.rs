//! What the market does, for Prometheus.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header::CONTENT_TYPE,
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{Market, Problem, now};

/// Upper bounds of the histogram of times, in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.005, 0.02, 0.05, 0.2, 1.0, 3.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// What the market does.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram>,
    connections: Gauge,
    streams: Gauge,
    readable: Gauge,
    block: Gauge<u64, AtomicU64>,
    age: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("roadstead_market");
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            connections: Gauge::default(),
            streams: Gauge::default(),
            readable: Gauge::default(),
            block: Gauge::default(),
            age: Gauge::default(),
        };
        registry.register("requests", "Requests that were answered", metrics.requests.clone());
        registry.register("answer_seconds", "Until an answer began", metrics.seconds.clone());
        registry.register("connections", "Connections that are open", metrics.connections.clone());
        registry.register("streams", "Streams of changes that are open", metrics.streams.clone());
        registry.register("readable", "Whether the mirror can be read", metrics.readable.clone());
        registry.register("block", "The last block that is mirrored", metrics.block.clone());
        registry.register("block_age_seconds", "How old that block is", metrics.age.clone());
        Self { registry, ..metrics }
    }
}

/// Counts and times each request by its route; what has no route is counted together, as strangers may ask for anything.
pub(crate) async fn measure(
    State(market): State<Arc<Market>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let route = route.to_owned();
    let began = Instant::now();
    let response = next.run(request).await;
    let metrics = market.metrics();
    let status = response.status().as_u16();
    metrics.requests.get_or_create(&Answered { route: route.clone(), status }).inc();
    metrics.seconds.get_or_create(&Route { route }).observe(began.elapsed().as_secs_f64());
    response
}

/// `GET /metrics`.
pub(crate) async fn show(State(market): State<Arc<Market>>) -> Result<impl IntoResponse, Problem> {
    let metrics = market.metrics();
    let (connections, streams) = market.taken();
    metrics.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    metrics.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
    match market.read().await {
        Ok(reading) => {
            metrics.readable.set(1);
            metrics.block.set(reading.cursor.number);
            metrics.age.set(now().saturating_sub(reading.cursor.time));
        }
        Err(_said_by_readyz) => {
            metrics.readable.set(0);
        }
    }
    let mut text = String::new();
    // A text takes all that is written to it.
    encode(&mut text, &metrics.registry).map_err(|err| Problem::away(err.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text))
}
