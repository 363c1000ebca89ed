//! The API for publishers: HTTP and JSON over TLS whose key is in the Registry.
//!
//! Anybody may connect. Without signing in they learn what `Info` says; signed in, a wallet can store pods and push
//! image parts, both bounded, and see and do with its own leases what it likes. Of other people's leases it learns
//! nothing, not even whether they exist.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy::primitives::Address;
use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, head, post, put},
};
use bollard::models::HealthStatusEnum;
use futures::{StreamExt, stream::select_all};
use protocol::lease::State as LeaseState;
use serde::Deserialize;
use tower_http::timeout::TimeoutLayer;

use crate::{
    blobs::{BlobError, Blobs},
    causes,
    engine::{Container, EngineError},
    leases::Lease,
    quote::{QuoteError, Quoter},
    reconcile::Shared,
    session::{Sessions, SignInError, TOKEN_LIFE},
    status::Status,
    wire::{
        ApiError, ImageParts, Info, LeaseStatus, Nonce, Phase, QuoteRequest, QuoteResponse,
        ServiceStatus, Session, SignIn,
    },
};

/// The largest JSON body: a pod and its sealed secrets.
const MAX_JSON: usize = 4 << 20;

/// How long anything but uploads and logs may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers need.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    pub(crate) quoter: Quoter,
    pub(crate) sessions: Sessions,
    pub(crate) blobs: Blobs,
}

/// All routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let quick = Router::new()
        .route("/v1/info", get(info))
        .route("/v1/nonce", get(nonce))
        .route("/v1/session", post(sign_in))
        .route("/v1/quotes", post(quote))
        .route("/v1/leases/{id}", get(lease))
        .route("/v1/blobs/{digest}", head(has_blob))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(DefaultBodyLimit::max(MAX_JSON));
    let slow = Router::new()
        .route("/v1/leases/{id}/logs", get(logs))
        .route("/v1/images/{id}", put(load_image))
        .layer(DefaultBodyLimit::max(MAX_JSON));
    // Blobs are bounded by the store, which counts as they arrive.
    let blobs =
        Router::new().route("/v1/blobs/{digest}", put(put_blob)).layer(DefaultBodyLimit::disable());
    quick.merge(slow).merge(blobs).fallback(nothing).with_state(api)
}

/// A refusal, as the publisher reads it.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ApiError { error: self.1 })).into_response()
    }
}

fn told(status: StatusCode, err: impl std::error::Error + Send + Sync + 'static) -> Refusal {
    Refusal(status, causes(&err))
}

/// A fault of our own: the log has the cause, the publisher does not need it.
fn ours(err: impl std::error::Error + Send + Sync + 'static) -> Refusal {
    let words = err.to_string();
    tracing::warn!(error = causes(&err), "a request failed");
    Refusal(StatusCode::SERVICE_UNAVAILABLE, words)
}

impl From<QuoteError> for Refusal {
    fn from(err: QuoteError) -> Self {
        if err.is_ours() {
            return ours(err);
        }
        let status = match err.is_full() {
            true => StatusCode::CONFLICT,
            false => StatusCode::UNPROCESSABLE_ENTITY,
        };
        told(status, err)
    }
}

impl From<BlobError> for Refusal {
    fn from(err: BlobError) -> Self {
        match &err {
            BlobError::Io(_) => ours(err),
            BlobError::TooLarge(_) => told(StatusCode::PAYLOAD_TOO_LARGE, err),
            BlobError::Missing(_) => told(StatusCode::CONFLICT, err),
            BlobError::NotDigest(_)
            | BlobError::WrongDigest { .. }
            | BlobError::WrongLayers { .. }
            | BlobError::Config(..)
            | BlobError::Upload(_) => told(StatusCode::UNPROCESSABLE_ENTITY, err),
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(err: EngineError) -> Self {
        match &err {
            EngineError::Image { .. } => told(StatusCode::UNPROCESSABLE_ENTITY, err),
            EngineError::Docker(_)
            | EngineError::NotPushed(_)
            | EngineError::User { .. }
            | EngineError::NoNetwork
            | EngineError::Firewall(_)
            | EngineError::Volume(_)
            | EngineError::Secrets(_)
            | EngineError::SecretMissing(_) => ours(err),
        }
    }
}

impl From<SignInError> for Refusal {
    fn from(err: SignInError) -> Self {
        told(StatusCode::UNAUTHORIZED, err)
    }
}

/// Containers, by service.
type Containers = BTreeMap<String, Container>;

/// A wallet that is signed in.
struct Wallet(Address);

impl FromRequestParts<Arc<Api>> for Wallet {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Refusal> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer "));
        let wallet = token.and_then(|token| api.sessions.wallet(token));
        wallet.map(Self).ok_or_else(|| {
            let words = "sign in first (POST /v1/session), or again: a token lasts an hour";
            Refusal(StatusCode::UNAUTHORIZED, words.into())
        })
    }
}

async fn nothing() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "there is nothing here; docs/protocol.md lists what is".into())
}

async fn info(State(api): State<Arc<Api>>) -> Json<Info> {
    let (shared, config) = (&api.shared, &api.quoter.config);
    let snapshot = shared.seen.borrow().clone();
    let open: Vec<&Lease> = snapshot.leases.values().filter(|lease| is_open(lease)).collect();
    let deployment = shared.sender.chain().deployment();
    Json(Info {
        provider: shared.sender.address(),
        chain_id: deployment.chain_id,
        leases: deployment.leases,
        region: config.region.clone(),
        seal_key: shared.keys.seal_key(),
        prices: config.prices,
        capacity: config.capacity,
        free: shared.free(open.iter().map(|lease| lease.pod)),
        running: open.len(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

fn is_open(lease: &Lease) -> bool {
    matches!(lease.state, LeaseState::Pending | LeaseState::Active)
}

async fn nonce(State(api): State<Arc<Api>>) -> Json<Nonce> {
    Json(Nonce { nonce: api.sessions.nonce() })
}

async fn sign_in(
    State(api): State<Arc<Api>>,
    Json(request): Json<SignIn>,
) -> Result<Json<Session>, Refusal> {
    let signature: [u8; 65] =
        request.signature.as_ref().try_into().map_err(|_err| SignInError::WrongSignature)?;
    let (token, _wallet) = api.sessions.sign_in(&request.message, &signature)?;
    Ok(Json(Session { token, expires_in: TOKEN_LIFE.as_secs() }))
}

async fn quote(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Json(request): Json<QuoteRequest>,
) -> Result<Json<QuoteResponse>, Refusal> {
    Ok(Json(api.quoter.quote(&api.shared, wallet, &request).await?))
}

async fn has_blob(
    State(api): State<Arc<Api>>,
    Wallet(_): Wallet,
    Path(digest): Path<String>,
) -> Result<StatusCode, Refusal> {
    match api.blobs.has(&Blobs::digest(&digest)?) {
        true => Ok(StatusCode::OK),
        false => Ok(StatusCode::NOT_FOUND),
    }
}

async fn put_blob(
    State(api): State<Arc<Api>>,
    Wallet(_): Wallet,
    Path(digest): Path<String>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    api.blobs.put(&Blobs::digest(&digest)?, body.into_data_stream()).await?;
    Ok(StatusCode::CREATED)
}

async fn load_image(
    State(api): State<Arc<Api>>,
    Wallet(_): Wallet,
    Path(id): Path<String>,
    Json(parts): Json<ImageParts>,
) -> Result<StatusCode, Refusal> {
    let id = Blobs::digest(&id)?;
    if api.shared.engine.has_image(id.as_str()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let (blobs, layers, image) = (api.blobs.clone(), parts.layers.clone(), id.clone());
    let archive = tokio::task::spawn_blocking(move || blobs.archive(&image, &layers)).await;
    let archive = archive.map_err(ours)??;
    api.shared.engine.load(id.as_str(), archive).await?;
    let layers = parts.layers.iter().filter_map(|layer| Blobs::digest(layer).ok());
    api.blobs.remove(&[layers.collect(), vec![id]].concat());
    Ok(StatusCode::NO_CONTENT)
}

/// The lease, if it is the wallet's; the containers of the pod that it runs.
async fn own(api: &Api, wallet: Address, id: u64) -> Result<(Lease, Containers), Refusal> {
    let snapshot = api.shared.seen.borrow().clone();
    let own = |lease: &&Lease| lease.key.lease == id && lease.payer == wallet;
    let lease = snapshot.leases.values().find(own).cloned().ok_or_else(|| {
        let words = format!("wallet {wallet} pays for no lease {id} at this provider");
        Refusal(StatusCode::NOT_FOUND, words)
    })?;
    let found = api.shared.engine.pods().await?.remove(&lease.key).unwrap_or_default();
    let containers = found.of(api.shared.runs.serving(&lease, &found));
    Ok((lease, containers))
}

async fn lease(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
) -> Result<Json<LeaseStatus>, Refusal> {
    let (lease, containers) = own(&api, wallet, id).await?;
    let status = api.shared.statuses.get(lease.key);
    let Status { pod, mut phase, message } =
        status.unwrap_or(Status { pod: lease.pod, phase: Phase::Seen, message: None });
    let mut services = Vec::new();
    for (name, container) in &containers {
        let details = api.shared.engine.details(container).await?;
        let state = details.state.unwrap_or_default();
        let health = state.health.and_then(|health| health.status);
        if phase == Phase::Running && health == Some(HealthStatusEnum::UNHEALTHY) {
            phase = Phase::Unhealthy;
        }
        services.push(ServiceStatus {
            name: name.clone(),
            state: container.state.to_string(),
            health: health.map(|health| health.to_string()),
            restarts: details.restart_count.unwrap_or_default().try_into().unwrap_or_default(),
        });
    }
    let current = api.shared.pods.get(lease.pod);
    let hosts = current.iter().flat_map(|pod| pod.ingress().keys());
    let url = &api.quoter.config.ingress_url;
    let urls = hosts.map(|host| url.replace("{host}", host.as_str())).collect();
    Ok(Json(LeaseStatus { lease: id, phase, pod, message, urls, services }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    service: Option<String>,
    #[serde(default)]
    follow: bool,
    tail: Option<u32>,
    #[serde(default)]
    since: i32,
}

async fn logs(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let (_, mut containers) = own(&api, wallet, id).await?;
    if let Some(wanted) = &query.service {
        if !containers.contains_key(wanted) {
            let known = containers.into_keys().collect::<Vec<_>>().join(", ");
            let words = format!("lease {id} has no service {wanted}; it has: {known}");
            return Err(Refusal(StatusCode::NOT_FOUND, words));
        }
        containers.retain(|name, _container| name == wanted);
    }
    let mut streams = Vec::new();
    for (name, container) in &containers {
        let LogQuery { follow, tail, since, .. } = query;
        streams.push(api.shared.engine.logs(name.clone(), container, follow, tail, since));
    }
    let lines = select_all(streams).map(|line| {
        let mut text = serde_json::to_vec(&line?)?;
        text.push(b'\n');
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(text)
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(lines)).into_response())
}
