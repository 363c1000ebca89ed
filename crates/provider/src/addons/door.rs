//! Where an add-on comes to the provider: a port of its own container's loopback.
//!
//! The provider listens inside the container's network namespace. So nothing of the machine is opened for it (pods have no
//! route to the host, and keep having none), and nobody else comes here: not another pod, not the machine's other users.
//! What comes still has to show the add-on's token, is refused what the add-on has no grant for, and is bounded: so many
//! connections, so many requests a second, so large a body.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{self, Arc, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chain::SendError;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use nix::sched::{CloneFlags, setns};
use tokio::{
    net::TcpListener,
    sync::{Mutex, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Addon, Grant, bids::BidError};
use crate::{
    admin::{Token, bearer},
    facts::{self, Fixed},
    reconcile::Shared,
    wire::{
        ApiError,
        bids::{Decline, Intent, Made, OpenOrders},
    },
};

/// The port of the container's loopback.
pub(super) const PORT: u16 = 9640;

/// How many connections are open at a time.
const CONNECTIONS: usize = 8;

/// The largest body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// How many requests are answered at once after a quiet time, and how many per second from then on.
const BUCKET: (u32, u32) = (60, 20);

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);

/// What an add-on is let through to.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) fixed: Fixed,
    pub(super) data: PathBuf,
    pub(super) addon: Addon,
    pub(super) bucket: Arc<Bucket>,
    /// Bids that are under way. They outlive this door, which closes when the add-on's container ends.
    pub(super) jobs: Arc<Mutex<JoinSet<()>>>,
}

/// Lets so many requests through, and so many more each second.
#[derive(Debug)]
pub(super) struct Bucket(sync::Mutex<(f64, Instant)>);

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self(sync::Mutex::new((f64::from(BUCKET.0), now)))
    }

    fn take(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *bucket;
        let more = now.saturating_duration_since(since).as_secs_f64() * f64::from(BUCKET.1);
        let left = (left + more).min(f64::from(BUCKET.0));
        let through = left >= 1.0;
        *bucket = (if through { left - 1.0 } else { left }, now.max(since));
        through
    }
}

impl Door {
    /// All that there is for add-ons.
    pub(super) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/addon/v1/orders", get(orders))
            .route("/addon/v1/bids", post(bid))
            .route("/addon/v1/declines", post(decline))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(Arc::clone(&self), guard))
            .with_state(self)
    }

    fn may(&self, grant: Grant) -> Result<(), Refusal> {
        match self.addon.grants().contains(&grant) {
            true => Ok(()),
            false => {
                let words = format!("add-on {} has no grant {grant}", self.addon);
                Err(Refusal(StatusCode::FORBIDDEN, words))
            }
        }
    }
}

/// Why an add-on is refused something.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ApiError { error: self.1 })).into_response()
    }
}

impl From<BidError> for Refusal {
    fn from(err: BidError) -> Self {
        let status = match &err {
            BidError::Unknown(_) => StatusCode::NOT_FOUND,
            BidError::Leads(_)
            | BidError::Obstacle(_)
            | BidError::Send(SendError::Refused(_) | SendError::Reverted(..)) => {
                StatusCode::CONFLICT
            }
            BidError::Chain(_) | BidError::Send(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, crate::causes(&err))
    }
}

/// Lets nobody in who does not have the token as it is now, or comes too often.
async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    if !door.bucket.take(Instant::now()) {
        let wait = [(header::RETRY_AFTER, "1")];
        let words = format!("add-on {}: at most {} requests a second\n", door.addon, BUCKET.1);
        return (StatusCode::TOO_MANY_REQUESTS, wait, words).into_response();
    }
    // Read anew each time: one that was taken back is worth nothing any more.
    let token = Token::read(&door.data, &door.addon.token()).ok();
    let shown = bearer(request.headers());
    if !token.zip(shown).is_some_and(|(token, shown)| token.is(shown)) {
        let words = "send `Authorization: Bearer` with what is in /run/secrets/token\n";
        return (StatusCode::UNAUTHORIZED, words).into_response();
    }
    next.run(request).await
}

async fn metrics(State(door): State<Arc<Door>>) -> Result<impl IntoResponse, Refusal> {
    door.may(Grant::MetricsRead)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = door.shared.house.metrics.render(&facts::gather(&door.shared, &door.fixed));
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

async fn orders(State(door): State<Arc<Door>>) -> Result<Json<OpenOrders>, Refusal> {
    door.may(Grant::OrdersRead)?;
    Ok(Json(door.shared.bids.orders(&door.shared).await.map_err(BidError::from)?))
}

async fn bid(
    State(door): State<Arc<Door>>,
    Json(intent): Json<Intent>,
) -> Result<Json<Made>, Refusal> {
    door.may(Grant::BidsSend)?;
    // It goes on although whoever asked for it is gone: what was sent has to be known.
    let (tell, told) = oneshot::channel();
    let shared = Arc::clone(&door.shared);
    {
        let mut jobs = door.jobs.lock().await;
        while jobs.try_join_next().is_some() {}
        if jobs.len() >= CONNECTIONS {
            let words = format!("{CONNECTIONS} bids are under way; wait for them");
            return Err(Refusal(StatusCode::TOO_MANY_REQUESTS, words));
        }
        jobs.spawn(async move {
            let _gone = tell.send(shared.bids.bid(&shared, intent).await);
        });
    }
    let stopping = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the provider is stopping".into());
    Ok(Json(told.await.map_err(stopping)??))
}

async fn decline(
    State(door): State<Arc<Door>>,
    Json(decline): Json<Decline>,
) -> Result<StatusCode, Refusal> {
    door.may(Grant::BidsSend)?;
    door.shared.bids.decline(&door.shared, decline).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Listens on the loopback of the network namespace at `path`.
pub(super) async fn listen_in(path: &Path) -> io::Result<TcpListener> {
    let path = path.to_owned();
    let listen = move || {
        let namespace = File::open(path)?;
        // On a thread that ends afterwards: it stays in that namespace.
        let within = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        });
        within.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    };
    let listener = tokio::task::spawn_blocking(listen).await.map_err(io::Error::other)??;
    TcpListener::from_std(listener)
}

/// Answers on `listener` until it is stopped, for so many connections at a time; those that are too many wait.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    stop: CancellationToken,
) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_ended) = open.join_next() => continue,
            accepted = listener.accept(), if open.len() < most => accepted,
        };
        let Ok((stream, _from)) = accepted else {
            // Out of files, say: what ends makes room.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        open.spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
            // Whatever ends it ends this connection alone.
            let _ended = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Serves one add-on's door.
pub(super) async fn keep(listener: TcpListener, door: Arc<Door>, stop: CancellationToken) {
    serve(listener, door.router(), CONNECTIONS, stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let start = Instant::now();
        let bucket = Bucket::full(start);
        let taken = |now| (0..1_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(start), 60);
        assert_eq!(taken(start), 0);
        assert_eq!(taken(start + Duration::from_secs(2)), 40);
        assert_eq!(taken(start + Duration::from_secs(3_600)), 60);
        assert_eq!(taken(start), 0, "a clock that goes back brings nothing");
    }
}
