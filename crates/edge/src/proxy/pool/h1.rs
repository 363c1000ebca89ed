//! HTTP/1.1: a connection is out of the pool while a request is under way on it, to the end of the answer.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{
    super::{MAX_HEAD, MAX_HEADERS},
    Body, IDLE, SendError, connect, repeatable,
};
use crate::tasks::Tasks;

/// The most unused connections to one address.
const MAX_IDLE: usize = 64;

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

type Table = HashMap<SocketAddr, Vec<Idle>>;

#[derive(Debug)]
pub(super) struct Connections {
    idle: Arc<Mutex<Table>>,
    tasks: Tasks,
}

impl Connections {
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self { idle: Arc::default(), tasks: tasks.clone() }
    }

    pub(super) async fn send(
        &self,
        addr: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Loan), SendError> {
        while let Some(mut sender) = self.take(addr) {
            let copy = repeatable(&request);
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.loan(addr, sender))),
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
        Ok((response, self.loan(addr, sender)))
    }

    pub(super) fn sweep(&self) {
        lock(&self.idle).retain(|_addr, kept| {
            kept.retain(Idle::fresh);
            !kept.is_empty()
        });
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<SendRequest<Body>> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(connect(addr).await?))
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
        let mut idle = lock(&self.idle);
        let kept = idle.get_mut(&addr)?;
        // The last that was used is the least likely to be closed at this moment. One whose answer has just ended may
        // not be ready yet.
        while let Some(at) = kept.iter().rposition(|next| next.sender.is_ready()) {
            let next = kept.remove(at);
            if next.fresh() {
                return Some(next.sender);
            }
        }
        None
    }

    fn loan(&self, addr: SocketAddr, sender: SendRequest<Body>) -> Loan {
        Loan { idle: Arc::clone(&self.idle), addr, sender: Some(sender) }
    }
}

/// A connection on which an answer is read. It goes back once dropped, unless the answer was not read to its end: then
/// hyper closes it.
#[derive(Debug)]
pub(in crate::proxy) struct Loan {
    idle: Arc<Mutex<Table>>,
    addr: SocketAddr,
    sender: Option<SendRequest<Body>>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) else { return };
        let mut idle = lock(&self.idle);
        let kept = idle.entry(self.addr).or_default();
        if kept.len() >= MAX_IDLE {
            kept.retain(Idle::fresh);
        }
        if kept.len() < MAX_IDLE {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }
}

/// The table is whole after each statement, so a panic elsewhere does not spoil it.
fn lock(idle: &Mutex<Table>) -> MutexGuard<'_, Table> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Idle {
    fn fresh(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < IDLE
    }
}
