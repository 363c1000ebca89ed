//! Connections to backends, kept for the next request.

use std::{io, net::SocketAddr, time::Duration};

use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Incoming},
};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::timeout};

use super::exchange::Watched;
use crate::tasks::Tasks;

mod h1;
mod h2c;

/// A visitor's body; or none, when a request is sent again.
pub(super) type Body = Either<Watched, Empty<Bytes>>;

/// For how long an unused connection is kept.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// How long a backend may take to accept a connection. It is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(2);

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1: a connection is for one request at a time.
    Http1,
    /// HTTP/2 without TLS: a connection is for many.
    H2c,
}

/// What has to live as long as the response's body.
#[derive(Debug)]
pub(super) enum Held {
    /// The connection.
    Http1 { _loan: h1::Loan },
    /// A place on the connection, which is shared.
    H2c { _stream: OwnedSemaphorePermit },
}

pub(super) type Answer = (Response<Incoming>, Held);

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// No connection was to be had, so the request, which is given back, may go elsewhere.
    Connect { request: Box<Request<Body>>, source: io::Error },
    /// The backend has the request, or a part of it, and did not answer.
    Broken(hyper::Error),
}

#[derive(Debug)]
pub(super) struct Pool {
    http1: h1::Connections,
    h2c: h2c::Connections,
}

impl Pool {
    /// A pool whose connections run as `tasks`.
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self { http1: h1::Connections::new(tasks), h2c: h2c::Connections::new(tasks) }
    }

    /// Sends `request` to `addr` and waits for the response's head.
    ///
    /// A kept connection may have been closed by the backend at this very moment. A request that did not go out on it
    /// goes out on another; one that did is sent once more, on a new one, if it does no harm twice (RFC 9110, 9.2.2).
    pub(super) async fn send(
        &self,
        protocol: Protocol,
        addr: SocketAddr,
        request: Request<Body>,
    ) -> Result<Answer, SendError> {
        match protocol {
            Protocol::Http1 => {
                let (response, loan) = self.http1.send(addr, request).await?;
                Ok((response, Held::Http1 { _loan: loan }))
            }
            Protocol::H2c => {
                let (response, stream) = self.h2c.send(addr, request).await?;
                Ok((response, Held::H2c { _stream: stream }))
            }
        }
    }

    /// Drops what was closed or not used for long.
    pub(super) fn sweep(&self) {
        self.http1.sweep();
        self.h2c.sweep();
    }
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The request once more, if it may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
