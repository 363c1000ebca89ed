//! HTTP/2 without TLS: a connection carries up to [`STREAMS`] requests at a time; beyond them there is another.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{super::MAX_HEAD, Body, IDLE, SendError, connect, repeatable};
use crate::tasks::Tasks;

/// The most requests on one connection at a time. Many servers allow no more.
const STREAMS: u16 = 100;

/// How much of a response may wait for its visitor.
const STREAM_WINDOW: u32 = 256 << 10;

/// How much of all responses may: enough that visitors who do not read never hold up those who do.
const WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// How often a backend with requests under way is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Shared {
    sender: SendRequest<Body>,
    streams: Arc<Semaphore>,
    used: Instant,
}

/// The connections to one address.
#[derive(Debug, Default)]
struct Peer {
    open: Mutex<Vec<Shared>>,
    /// One connects at a time, and the others see whether what it made has room for them.
    connecting: tokio::sync::Mutex<()>,
}

type Table = HashMap<SocketAddr, Arc<Peer>>;

#[derive(Debug)]
pub(super) struct Connections {
    peers: Mutex<Table>,
    tasks: Tasks,
}

/// A connection that has room, and the room.
type Room = (SendRequest<Body>, OwnedSemaphorePermit);

impl Connections {
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self { peers: Mutex::default(), tasks: tasks.clone() }
    }

    pub(super) async fn send(
        &self,
        addr: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), SendError> {
        let peer = Arc::clone(lock(&self.peers).entry(addr).or_default());
        while let Some((mut sender, stream)) = peer.room() {
            let copy = repeatable(&request);
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, stream)),
                Err(failed) => failed,
            };
            if let Some(unsent) = failed.take_message() {
                request = unsent;
                continue;
            }
            match copy {
                Some(copy) if may_succeed(failed.error()) => request = copy,
                Some(_) | None => return Err(SendError::Broken(failed.into_error())),
            }
            break;
        }
        let (mut sender, stream) = match self.connect(addr, &peer).await {
            Ok(room) => room,
            Err(source) => {
                return Err(SendError::Connect { request: Box::new(request), source });
            }
        };
        let response = sender.send_request(request).await.map_err(SendError::Broken)?;
        Ok((response, stream))
    }

    pub(super) fn sweep(&self) {
        lock(&self.peers).retain(|_addr, peer| {
            let mut open = lock(&peer.open);
            open.retain(Shared::fresh);
            // Who has just got it from the table may be about to connect.
            !open.is_empty() || Arc::strong_count(peer) > 1
        });
    }

    async fn connect(&self, addr: SocketAddr, peer: &Peer) -> io::Result<Room> {
        let _connecting = peer.connecting.lock().await;
        if let Some(room) = peer.room() {
            return Ok(room);
        }
        let (sender, connection) = http2::Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(TokioIo::new(connect(addr).await?))
            .await
            .map_err(io::Error::other)?;
        self.tasks.spawn(async move {
            if let Err(err) = connection.await {
                tracing::debug!(%addr, error = %err, "a backend's connection ended early");
            }
        });
        let streams = Arc::new(Semaphore::new(STREAMS.into()));
        let stream = Arc::clone(&streams).acquire_owned().await.map_err(io::Error::other)?;
        let shared = Shared { sender: sender.clone(), streams, used: Instant::now() };
        lock(&peer.open).push(shared);
        Ok((sender, stream))
    }
}

impl Peer {
    /// The first connection that has room, so that the others become idle when they are not needed.
    fn room(&self) -> Option<Room> {
        let mut open = lock(&self.open);
        open.retain(|shared| !shared.sender.is_closed());
        open.iter_mut().filter(|shared| shared.sender.is_ready()).find_map(|shared| {
            let stream = Arc::clone(&shared.streams).try_acquire_owned().ok()?;
            shared.used = Instant::now();
            Some((shared.sender.clone(), stream))
        })
    }
}

impl Shared {
    fn fresh(&self) -> bool {
        let unused = self.streams.available_permits() == usize::from(STREAMS);
        !self.sender.is_closed() && (!unused || self.used.elapsed() < IDLE)
    }
}

/// Whether another connection may do better: this one ended, or its other end refused to begin.
fn may_succeed(err: &hyper::Error) -> bool {
    let source = std::error::Error::source(err).and_then(|err| err.downcast_ref::<h2::Error>());
    match source {
        Some(err) => {
            err.is_io() || err.is_go_away() || err.reason() == Some(h2::Reason::REFUSED_STREAM)
        }
        None => true,
    }
}

/// What is behind it is whole after each statement, so a panic elsewhere does not spoil it.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
