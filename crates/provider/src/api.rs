//! The API for publishers: HTTP and JSON over TLS whose key is in the Registry.
//!
//! Anybody may connect. Without signing in they learn what `Info` says; signed in, a wallet can store pods and push
//! image parts, both bounded, and see and do with its own leases what it likes. Of other people's leases it learns
//! nothing, not even whether they exist, but how far one is for whose account it may act.

mod leases;
mod operate;
mod volumes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy::primitives::{Address, B256};
use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    http::{StatusCode, header, request::Parts},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{delete, get, head, post, put},
};
use bollard::models::HealthStatusEnum;
use protocol::{
    lease::State as LeaseState,
    pod::{Host, PodHash},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use crate::{
    acts,
    attest::{AttestError, Attester},
    blobs::{BlobError, Blobs},
    causes, certificates,
    engine::{self, Container, EngineError, Found},
    leases::{Lease, PodKey},
    quote::{QuoteError, Quoter},
    reconcile::Shared,
    session::{Sessions, SignInError, TOKEN_LIFE},
    slots::{Slots, TooMany},
    status::Status,
    unlock::UnlockError,
    wire::{
        ApiError, Attestation, ImageParts, Info, LeaseStatus, Nonce, Phase, QuoteRequest,
        QuoteResponse, SealedKey, ServiceStatus, Session, SignIn,
    },
};

/// The largest JSON body: a pod and its sealed secrets.
const MAX_JSON: usize = 4 << 20;

/// The longest refusal of the framework's.
const MAX_WORDS: usize = 4 << 10;

/// How long anything but uploads and logs may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers need.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    pub(crate) quoter: Quoter,
    pub(crate) sessions: Sessions,
    pub(crate) blobs: Blobs,
    /// What is open of each lease.
    pub(crate) slots: Slots,
    pub(crate) attester: Arc<Attester>,
    /// Ends what is open when the provider stops.
    pub(crate) stop: CancellationToken,
}

/// What every handler is given.
type Caller = State<Arc<Api>>;

/// All routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let quick = Router::new()
        .route("/v1/info", get(info))
        .route("/v1/attestation", get(attestation))
        .route("/v1/nonce", get(nonce))
        .route("/v1/session", post(sign_in))
        .route("/v1/quotes", post(quote))
        .route("/v1/leases/{id}", get(lease))
        .route("/v1/leases/{id}/key", put(unlock))
        .route("/v1/leases/{id}/stat", get(operate::stat))
        .route("/v1/leases/{id}/volumes", get(volumes::list))
        .route("/v1/blobs/{digest}", head(has_blob))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(DefaultBodyLimit::max(MAX_JSON));
    let slow = Router::new()
        .route("/v1/leases/{id}/logs", get(leases::logs))
        .route("/v1/leases/{id}/events", get(leases::events))
        .route("/v1/leases/{id}/stats", get(leases::stats))
        .route("/v1/leases/{id}/exec", get(operate::exec))
        .route("/v1/leases/{id}/forward", get(operate::forward))
        .route("/v1/leases/{id}/hold", put(volumes::hold))
        .route("/v1/leases/{id}/hold", delete(volumes::release))
        .route("/v1/images/{id}", put(load_image))
        .layer(DefaultBodyLimit::max(MAX_JSON));
    // Blobs are bounded by the store, which counts as they arrive; files by where they go.
    let large = Router::new()
        .route("/v1/blobs/{digest}", put(put_blob))
        .route("/v1/leases/{id}/files", get(operate::download))
        .route("/v1/leases/{id}/files", put(operate::upload))
        .route("/v1/leases/{id}/volumes/{name}", get(volumes::export))
        .route("/v1/leases/{id}/volumes/{name}", put(volumes::import))
        .route("/v1/leases/{id}/volumes/{name}", delete(volumes::remove))
        .layer(DefaultBodyLimit::disable());
    let all = quick.merge(slow).merge(large).fallback(nothing).with_state(api);
    all.layer(map_response(as_json))
}

/// What the framework refuses by itself, in the form of all other refusals.
async fn as_json(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_text = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_text {
        return response;
    }
    let words = axum::body::to_bytes(response.into_body(), MAX_WORDS).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let words =
        if words.is_empty() { status.canonical_reason().unwrap_or_default().into() } else { words };
    Refusal(status, words.into_owned()).into_response()
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
            | BlobError::Refused(..)
            | BlobError::Manifest(..)
            | BlobError::Upload(_) => told(StatusCode::UNPROCESSABLE_ENTITY, err),
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(err: EngineError) -> Self {
        match &err {
            EngineError::Image { .. } => told(StatusCode::UNPROCESSABLE_ENTITY, err),
            EngineError::Docker(_)
            | EngineError::NotAttached
            | EngineError::Locked(_)
            | EngineError::NotPushed(_)
            | EngineError::User { .. }
            | EngineError::Program { .. }
            | EngineError::Declared { .. }
            | EngineError::Unbounded { .. }
            | EngineError::Runtime(_)
            | EngineError::NoGpu { .. }
            | EngineError::NotInCluster(_)
            | EngineError::Cluster(_)
            | EngineError::Unplaced(_)
            | EngineError::Lingers
            | EngineError::Silent(_)
            | EngineError::NoNetwork
            | EngineError::Firewall(_)
            | EngineError::Volume(_)
            | EngineError::Secrets(_)
            | EngineError::SecretMissing(_) => ours(err),
        }
    }
}

impl From<AttestError> for Refusal {
    fn from(err: AttestError) -> Self {
        match &err {
            AttestError::Busy => told(StatusCode::TOO_MANY_REQUESTS, err),
            AttestError::Tsm(_) | AttestError::Sign(_) | AttestError::Lost(_) => ours(err),
        }
    }
}

impl From<UnlockError> for Refusal {
    fn from(err: UnlockError) -> Self {
        match &err {
            UnlockError::NotWaiting(_) | UnlockError::Nonce(_) => told(StatusCode::CONFLICT, err),
            UnlockError::NotTheirs(..) | UnlockError::Open(_) | UnlockError::WrongKey(_) => {
                told(StatusCode::UNPROCESSABLE_ENTITY, err)
            }
        }
    }
}

impl From<TooMany> for Refusal {
    fn from(err: TooMany) -> Self {
        told(StatusCode::TOO_MANY_REQUESTS, err)
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
        prices: shared.house.prices.now(),
        capacity: config.capacity,
        free: shared.free(open.iter().map(|lease| lease.pod)),
        egress: config.egress.into(),
        running: open.len(),
        runtimes: runtimes(&shared.engine),
        user_namespaces: shared.engine.abilities().root.is_some(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// As the pod file names them.
fn runtimes(engine: &engine::Engine) -> Vec<String> {
    let gvisor = engine.abilities().gvisor.then_some("runsc");
    ["runc"].into_iter().chain(gvisor).map(str::to_owned).collect()
}

fn is_open(lease: &Lease) -> bool {
    matches!(lease.state, LeaseState::Pending | LeaseState::Active)
}

/// What evidence is to be about.
#[derive(Debug, Deserialize)]
struct Asked {
    nonce: B256,
}

async fn attestation(
    State(api): State<Arc<Api>>,
    Query(Asked { nonce }): Query<Asked>,
) -> Result<Json<Attestation>, Refusal> {
    Ok(Json(api.attester.answer(&api.shared, nonce, None).await?))
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
    let metrics = &api.shared.house.metrics;
    match api.quoter.quote(&api.shared, wallet, &request).await {
        Ok(quote) => {
            metrics.quoted();
            Ok(Json(quote))
        }
        Err(err) => {
            metrics.refused(err.reason());
            if err.is_ours() {
                api.shared.house.troubles.note("quotes", &causes(&err));
            }
            Err(err.into())
        }
    }
}

async fn has_blob(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(digest): Path<String>,
) -> Result<StatusCode, Refusal> {
    match api.blobs.has(wallet, &Blobs::digest(&digest)?) {
        true => Ok(StatusCode::OK),
        false => Ok(StatusCode::NOT_FOUND),
    }
}

async fn put_blob(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(digest): Path<String>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    api.blobs.put(wallet, &Blobs::digest(&digest)?, body.into_data_stream()).await?;
    Ok(StatusCode::CREATED)
}

async fn load_image(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(id): Path<String>,
    Json(parts): Json<ImageParts>,
) -> Result<StatusCode, Refusal> {
    let id = Blobs::digest(&id)?;
    let is_here = api.shared.engine.has_image(id.as_str()).await?;
    if is_here && api.shared.shown.has(wallet, &id) {
        return Ok(StatusCode::NO_CONTENT);
    }
    // Also where the image is here already: who has not shown all of it does not learn so.
    let (blobs, layers, image) = (api.blobs.clone(), parts.layers, id.clone());
    let turn = blobs.turn().await.map_err(ours)?;
    let _awaited = turn.awaited();
    let archive =
        tokio::task::spawn_blocking(move || blobs.archive(turn, wallet, &image, &layers)).await;
    let archive = archive.map_err(ours)??;
    if !is_here {
        api.shared.engine.load(id.as_str(), archive).await?;
    }
    api.shared.show(wallet, &id).map_err(ours)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A lease of the wallet's, or what is kept of one.
struct Theirs {
    key: PodKey,
    /// What it runs, or ran last.
    pod: PodHash,
    /// Nothing once it is over and forgotten.
    lease: Option<Lease>,
    found: Found,
    /// The containers of the pod that serves.
    containers: Containers,
}

impl Theirs {
    /// The container of a service; without a name, of the only one.
    fn container(&self, service: Option<&str>) -> Result<(&str, &Container), Refusal> {
        let lease = self.key.lease;
        if self.containers.is_empty() {
            let words = match self.lease.as_ref().is_some_and(is_open) {
                true => format!("lease {lease} has no containers yet; wait until it runs"),
                false => format!("lease {lease} is closed; its logs, events and volumes are kept"),
            };
            return Err(Refusal(StatusCode::CONFLICT, words));
        }
        let found = match service {
            Some(name) => self.containers.get_key_value(name),
            None if self.containers.len() == 1 => self.containers.first_key_value(),
            None => {
                let known = self.containers.keys().cloned().collect::<Vec<_>>().join(", ");
                let words = format!("lease {lease} has several services; name one of: {known}");
                return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, words));
            }
        };
        let found = found.map(|(name, container)| (name.as_str(), container));
        found.ok_or_else(|| {
            leases::unknown(self, service.unwrap_or_default(), self.containers.keys())
        })
    }
}

/// The lease, if it is the wallet's: as the chain has it, else as it was written down.
async fn theirs(api: &Api, wallet: Address, id: u64) -> Result<Theirs, Refusal> {
    let snapshot = api.shared.seen.borrow().clone();
    let own = |lease: &&Lease| lease.key.lease == id && lease.payer == wallet;
    if let Some(lease) = snapshot.leases.values().find(own).cloned() {
        let found = api.shared.engine.pods().await?.remove(&lease.key).unwrap_or_default();
        let pod = api.shared.runs.serving(&lease, &found);
        let containers = found.of(pod);
        return Ok(Theirs { key: lease.key, pod, lease: Some(lease), found, containers });
    }
    let record = api.shared.records.of(id, wallet).ok_or_else(|| {
        let words = format!("wallet {wallet} pays for no lease {id} at this provider");
        Refusal(StatusCode::NOT_FOUND, words)
    })?;
    let (key, pod) = (record.key(), record.pod);
    let (found, containers) = (Found::default(), Containers::default());
    Ok(Theirs { key, pod, lease: None, found, containers })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseQuery {
    /// The app as whose keeper somebody asks.
    app: Option<u64>,
}

/// Whose lease `wallet` sees there: its own, or one that it acts for.
async fn seen_as(
    api: &Api,
    wallet: Address,
    id: u64,
    app: Option<u64>,
) -> Result<Address, Refusal> {
    let snapshot = api.shared.seen.borrow().clone();
    let same = |lease: &&Lease| lease.key.lease == id;
    let Some(lease) = snapshot.leases.values().find(same).filter(|lease| lease.payer != wallet)
    else {
        return Ok(wallet);
    };
    let chain = api.shared.sender.chain();
    match acts::may_see(chain, wallet, lease, app).await.map_err(ours)? {
        true => Ok(lease.payer),
        false => Ok(wallet),
    }
}

async fn lease(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<LeaseQuery>,
) -> Result<Json<LeaseStatus>, Refusal> {
    let payer = seen_as(&api, wallet, id, query.app).await?;
    let theirs = theirs(&api, payer, id).await?;
    let Some(lease) = theirs.lease else {
        let (phase, pod) = (Phase::Closed, theirs.pod);
        return Ok(Json(LeaseStatus::new(id, phase, pod)));
    };
    let status = api.shared.statuses.get(lease.key);
    let Status { pod, mut phase, message } =
        status.unwrap_or(Status { pod: lease.pod, phase: Phase::Seen, message: None });
    if lease.state == LeaseState::Active && api.shared.holds.is_held(lease.key) {
        phase = Phase::Held;
    }
    let mut services = Vec::new();
    for (name, container) in &theirs.containers {
        let details = match api.shared.engine.details(container).await {
            // A machine of a cluster that does not answer is no reason to say nothing of the others.
            Err(_) if container.task.is_some() => Default::default(),
            details => details?,
        };
        let health = engine::health(&details, api.shared.statuses.thawed(lease.key));
        if phase == Phase::Running && health == Some(HealthStatusEnum::UNHEALTHY) {
            phase = Phase::Unhealthy;
        }
        services.push(ServiceStatus {
            name: name.clone(),
            state: container.state.to_string(),
            health: health.map(|health| health.to_string()),
            restarts: match &container.task {
                Some(task) => task.failures.into(),
                None => details.restart_count.unwrap_or_default().try_into().unwrap_or_default(),
            },
        });
    }
    let current = api.shared.pods.get(lease.pod);
    let hosts = current.iter().flat_map(|pod| pod.ingress().keys());
    let message = message.or_else(|| api.shared.house.notice());
    let (plain, shown) = (&api.quoter.config.ingress_url, &api.shared.certificates);
    let url = |host: &Host| {
        let secure = shown.as_ref().and_then(|known| known.url(lease.key, host));
        secure.unwrap_or_else(|| plain.replace("{host}", host.as_str()))
    };
    let urls = hosts.map(url).collect();
    let (ports, mut notes) = api.shared.ports.of(lease.key, current.as_ref().ok());
    match (shown, &current) {
        (Some(shown), Ok(pod)) => notes.extend(shown.notes(lease.key, pod)),
        (None, Ok(pod)) => {
            let refused = certificates::fits(None, pod).err();
            notes.extend(refused.map(|err| err.to_string()));
        }
        (_, Err(_)) => (),
    }
    let egress = api.shared.engine.egress().of(lease.key);
    let key_request = api.shared.unlocks.asked(lease.key);
    let status = LeaseStatus::new(id, phase, pod);
    Ok(Json(LeaseStatus { message, key_request, urls, ports, notes, egress, services, ..status }))
}

/// Takes the key of an app for the start that waits for it.
async fn unlock(
    State(api): State<Arc<Api>>,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<LeaseQuery>,
    Json(sent): Json<SealedKey>,
) -> Result<StatusCode, Refusal> {
    let payer = seen_as(&api, wallet, id, query.app).await?;
    let lease = theirs(&api, payer, id).await?.lease;
    let lease = lease.ok_or(UnlockError::NotWaiting(id))?;
    api.shared.unlock(wallet, &lease, &sent)?;
    Ok(StatusCode::NO_CONTENT)
}
