//! Connections to backends, kept for the next request.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{MAX_HEAD, MAX_HEADERS, Tasks};

/// A visitor's body; or none, when a request is sent again.
pub(super) type Body = Either<Incoming, Empty<Bytes>>;

/// For how long an unused connection is kept.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// The most unused connections to one address.
const MAX_IDLE: usize = 64;

/// How long a backend may take to accept a connection. It is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(2);

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// No connection was to be had, so the request, which is given back, may go elsewhere.
    Connect { request: Box<Request<Body>>, source: io::Error },
    /// The backend has the request, or a part of it, and did not answer.
    Broken(hyper::Error),
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    tasks: Tasks,
}

impl Pool {
    /// A pool whose connections run as `tasks`.
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { idle: Mutex::default(), tasks }
    }

    /// Sends `request` to `addr` and waits for the response's head.
    ///
    /// A kept connection may have been closed by the backend at this very moment. A request that did not go out on it
    /// goes out on another; one that did is sent once more, on a new one, if it does no harm twice (RFC 9110, 9.2.2).
    pub(super) async fn send(
        self: &Arc<Self>,
        addr: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        while let Some(mut sender) = self.take(addr) {
            let copy = repeatable(&request);
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(addr, sender);
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if let Some(unsent) = failed.take_message() {
                request = unsent;
                continue;
            }
            let Some(copy) = copy else { return Err(SendError::Broken(failed.into_error())) };
            request = copy;
            break;
        }
        let mut sender = match self.connect(addr).await {
            Ok(sender) => sender,
            Err(source) => {
                return Err(SendError::Connect { request: Box::new(request), source });
            }
        };
        let response = sender.send_request(request).await.map_err(SendError::Broken)?;
        self.keep(addr, sender);
        Ok(response)
    }

    /// Drops what was closed or not used for long.
    pub(super) fn sweep(&self) {
        self.lock().retain(|_addr, kept| {
            kept.retain(Idle::fresh);
            !kept.is_empty()
        });
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<SendRequest<Body>> {
        let stream = timeout(CONNECT, TcpStream::connect(addr)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let connection = connection.with_upgrades();
        self.tasks.spawn(async move {
            if let Err(err) = connection.await {
                tracing::debug!(%addr, error = %err, "a backend's connection ended early");
            }
        });
        Ok(sender)
    }

    fn take(&self, addr: SocketAddr) -> Option<SendRequest<Body>> {
        let mut idle = self.lock();
        let kept = idle.get_mut(&addr)?;
        while let Some(next) = kept.pop() {
            if next.fresh() {
                return Some(next.sender);
            }
        }
        None
    }

    /// Puts a connection back once the response on it has been read to its end.
    fn keep(self: &Arc<Self>, addr: SocketAddr, mut sender: SendRequest<Body>) {
        if sender.is_ready() {
            return self.put(addr, sender);
        }
        let pool = Arc::clone(self);
        self.tasks.spawn(async move {
            if sender.ready().await.is_ok() {
                pool.put(addr, sender);
            }
        });
    }

    fn put(&self, addr: SocketAddr, sender: SendRequest<Body>) {
        let mut idle = self.lock();
        let kept = idle.entry(addr).or_default();
        if kept.len() < MAX_IDLE {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }

    /// The table is whole after each statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn fresh(&self) -> bool {
        self.sender.is_ready() && self.since.elapsed() < IDLE
    }
}

/// The request once more, if it may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
