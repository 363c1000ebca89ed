//! HTTP/1.1 from visitors to backends: each message is read, put right and written anew, so that the two sides can
//! never disagree about where one ends.
//!
//! Bodies and tunnels pass through as they come, and may last; what is bounded is how many visitors there are, and for
//! how long they may take to say what they want.

use std::{
    convert::Infallible, future::Future, io, net::IpAddr, pin::pin, sync::Arc, time::Duration,
};

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    head::{BadHost, Forwarded},
    pool::{Pool, SendError},
};
use crate::routes::{Backend, Routes};

mod head;
mod pool;
#[cfg(test)]
mod tests;

/// The most bytes of a message's head.
const MAX_HEAD: usize = 64 << 10;

/// The most headers of a message.
const MAX_HEADERS: usize = 128;

/// How long to wait when the system has no connection to give, mostly for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often in a row that may happen: a minute.
const MAX_ACCEPT_FAILURES: u32 = 600;

/// What visitors may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How many connections are served at a time, tunnels included. More wait in the listener's queue.
    connections: usize,
    /// For how long a connection may be silent before and within a request's head.
    head: Duration,
    /// For how long connections may go on after the stop.
    drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 8_192, head: Duration::from_secs(10), drain: Duration::from_secs(5) }
    }
}

/// An answer that is ours, not a backend's.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Host(#[from] BadHost),
    #[error("this is no proxy for CONNECT")]
    Connect,
    #[error("no app is served at {0} here")]
    Unknown(String),
    #[error("{host} is not available now: {reason}")]
    Unavailable { host: String, reason: String },
    #[error("{host} does not accept connections now")]
    Unreachable { host: String, source: Option<io::Error> },
    #[error("{host} did not answer the request")]
    Broken { host: String, source: hyper::Error },
    #[error("{0} changed the protocol without being asked to")]
    Switched(String),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Switched(_) => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::from(format!("{self}\n")));
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, text);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match self {
            // Whatever follows on such a connection is not to be trusted.
            Self::Host(_) | Self::Connect => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Unavailable { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Unknown(_)
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Switched(_) => (),
        }
        answer
    }
}

/// Tasks that end with their owner.
#[derive(Debug, Clone)]
struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    fn new(end: &CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), end: end.clone() }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.end.clone().run_until_cancelled_owned(task));
    }

    async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A visitor's place among [`Limits::connections`], held by its connection and by the tunnel that comes of it.
type Place = Arc<OwnedSemaphorePermit>;

#[derive(Debug)]
struct Proxy {
    routes: Routes,
    pool: Arc<Pool>,
    visitors: Tasks,
    limits: Limits,
}

/// Serves plain HTTP on `listener` until `stop`, and then for some seconds what has begun.
///
/// # Errors
/// When the listener gives no connections for a minute.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> io::Result<()> {
    serve_within(Limits::default(), listener, routes, stop).await
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> io::Result<()> {
    let end = CancellationToken::new();
    // Also when this future is dropped.
    let _end = end.clone().drop_guard();
    let visitors = Tasks::new(&end);
    let upstream = Tasks::new(&end);
    let pool = Arc::new(Pool::new(upstream.clone()));
    let proxy = Arc::new(Proxy { routes, pool, visitors, limits });

    // A child, because it also tells the connections that the listener has failed.
    let stop = stop.child_token();
    let result = proxy.accept(&listener, &stop).await;
    drop(listener);
    stop.cancel();
    if timeout(limits.drain, proxy.visitors.finished()).await.is_err() {
        tracing::info!(
            connections = proxy.visitors.tracker.len(),
            "ending connections that did not finish in time"
        );
    }
    end.cancel();
    proxy.visitors.finished().await;
    upstream.finished().await;
    result
}

impl Proxy {
    async fn accept(
        self: &Arc<Self>,
        listener: &TcpListener,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let mut sweep = interval(pool::IDLE);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
                Ok((listener.accept().await?, place))
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = sweep.tick() => {
                    self.pool.sweep();
                    continue;
                }
                accepted = next => accepted,
            };
            match accepted {
                Ok(((stream, peer), place)) => {
                    failures = 0;
                    let peer = peer.ip().to_canonical();
                    let proxy = Arc::clone(self);
                    let (place, stop) = (Arc::new(place), stop.clone());
                    self.visitors.spawn(proxy.converse(stream, peer, place, stop));
                }
                Err(err) if failures < MAX_ACCEPT_FAILURES => {
                    if failures == 0 {
                        tracing::warn!(error = %err, "a connection was not accepted");
                    }
                    failures += 1;
                    sleep(ACCEPT_PAUSE).await;
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// One visitor's connection, from its first request to its last.
    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        place: Place,
        stop: CancellationToken,
    ) {
        // Without it small answers wait for the acknowledgement of the ones before.
        if let Err(err) = stream.set_nodelay(true) {
            return tracing::debug!(%peer, error = %err, "a connection was lost at once");
        }
        let head = self.limits.head;
        let service = service_fn(move |request| {
            let (proxy, place) = (Arc::clone(&self), Arc::clone(&place));
            async move { Ok::<_, Infallible>(proxy.answer(request, peer, place).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(err) = ended {
            tracing::debug!(%peer, error = %err, "a connection ended early");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        place: Place,
    ) -> Response<Either<Incoming, Full<Bytes>>> {
        match self.forward(request, peer, place).await {
            Ok(response) => response.map(Either::Left),
            Err(refusal) => {
                let source = std::error::Error::source(&refusal).map(tracing::field::display);
                tracing::debug!(%peer, error = source, "{refusal}");
                refusal.answer().map(Either::Right)
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        peer: IpAddr,
        place: Place,
    ) -> Result<Response<Incoming>, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        let (authority, host) = head::host(&request)?;
        let addrs = match self.routes.get(&host) {
            None => return Err(Refusal::Unknown(host)),
            Some(Backend::Unavailable(reason)) => {
                return Err(Refusal::Unavailable { host, reason });
            }
            Some(Backend::Addrs(addrs)) => addrs,
        };
        let visitor = hyper::upgrade::on(&mut request);
        let asked = head::to_backend(&mut request, Forwarded { authority, peer });

        let mut unsent = request.map(Either::Left);
        let mut source = None;
        for addr in addrs {
            match self.pool.send(addr, unsent).await {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return match asked {
                        true => Ok(self.switch(response, visitor, place)),
                        false => Err(Refusal::Switched(host)),
                    };
                }
                Ok(mut response) => {
                    head::to_visitor(&mut response);
                    return Ok(response);
                }
                Err(SendError::Connect { request, source: err }) => {
                    unsent = *request;
                    source = Some(err);
                }
                Err(SendError::Broken(source)) => return Err(Refusal::Broken { host, source }),
            }
        }
        Err(Refusal::Unreachable { host, source })
    }

    /// Passes on that the backend has changed the protocol, and from then on whatever the two sides say.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        visitor: OnUpgrade,
        place: Place,
    ) -> Response<Incoming> {
        let backend = hyper::upgrade::on(&mut response);
        head::switched(&mut response);
        self.visitors.spawn(async move {
            let (visitor, backend) = match tokio::try_join!(visitor, backend) {
                Ok(both) => both,
                Err(err) => return tracing::debug!(error = %err, "no tunnel came of an upgrade"),
            };
            let (mut visitor, mut backend) = (TokioIo::new(visitor), TokioIo::new(backend));
            if let Err(err) = copy_bidirectional(&mut visitor, &mut backend).await {
                tracing::debug!(error = %err, "a tunnel ended early");
            }
            drop(place);
        });
        response
    }
}
