//! HTTP from visitors to backends: each message is read, put right and written anew, so that the two sides can never
//! disagree about where one ends.
//!
//! Visitors speak HTTP/1.1 or HTTP/2, backends what their [`Backend`](crate::Backend) says, and any of the two may meet
//! any. Bodies, trailers and tunnels (WebSocket, over HTTP/1.1) pass through as they come, and may last; what is
//! bounded is how many there are, for how long visitors may take to say what they want, and for how long nothing may
//! move.
//!
//! Interim answers of backends, such as early hints (103), are dropped: hyper's servers have no way to send them, and
//! nothing depends on them. Visitors who speak HTTP/1.1 get trailers if they ask for them (`TE`) and the backend has
//! announced them (`Trailer`).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{
    exchange::{Connection, Exchange, Quiet, Side, Watched},
    head::Forwarded,
    loads::Loads,
    pool::{Pool, Protocol, SendError},
    refusal::Refusal,
};
use crate::{
    about::{About, PublicKey, Visit},
    challenges::Challenges,
    counters::InFlight,
    door::Door,
    routes::{Backend, Route, Routes},
    tasks::Tasks,
    tls::Certificates,
};

mod exchange;
mod head;
mod loads;
mod pool;
mod preface;
mod refusal;
#[cfg(test)]
mod tests;
mod tunnel;

/// The most bytes of a message's head.
const MAX_HEAD: usize = 64 << 10;

/// The most headers of a message. For as many hyper needs no memory of its own.
const MAX_HEADERS: usize = 100;

/// The most requests at a time on one connection of HTTP/2.
const STREAMS: u32 = 128;

/// How often a visitor with requests under way is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(30);

/// What visitors and backends may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many connections are served at a time, tunnels included. More wait in the listener's queue.
    pub connections: usize,
    /// How many requests are served at a time. HTTP/2 has many on one connection; more are refused with 503.
    pub requests: usize,
    /// For how long a connection may be silent before and within a request's head, and before that in TLS.
    pub head: Duration,
    /// For how long a backend may be silent before the head of its answer, counted from the last part of the request.
    /// Then the visitor gets 504.
    pub answer: Duration,
    /// For how long nothing may move in either direction of a body or a tunnel.
    pub idle: Duration,
    /// For how long a connection of HTTP/2 is kept without a request. One of HTTP/1.1 is kept for [`head`](Self::head).
    pub unused: Duration,
    /// For how long connections may go on after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            requests: 16_384,
            head: Duration::from_secs(10),
            answer: Duration::from_secs(5 * 60),
            idle: Duration::from_secs(60 * 60),
            unused: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

/// HTTP by host, over any number of listeners.
#[derive(Debug, Clone, Default)]
pub struct Ingress {
    routes: Routes,
    limits: Limits,
    challenges: Challenges,
    redirect: Option<(Certificates, u16)>,
    loads: Arc<Loads>,
    about: Option<(&'static str, Arc<dyn About>)>,
}

impl Ingress {
    /// An ingress to what `routes` say, as time goes by.
    pub fn new(routes: Routes) -> Self {
        Self { routes, ..Self::default() }
    }

    /// With other limits than the usual ones. They are for each listener.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// That also answers certificate authorities.
    #[must_use]
    pub fn challenges(self, challenges: Challenges) -> Self {
        Self { challenges, ..self }
    }

    /// That sends visitors who come without TLS, to a host that has one of `certificates` that is valid, to the same URL
    /// with TLS, at the port at which [`https`](Self::https) is reached from outside.
    #[must_use]
    pub fn redirect(self, certificates: Certificates, port: u16) -> Self {
        Self { redirect: Some((certificates, port)), ..self }
    }

    /// That answers requests for `path`, of each host that has a route, by `about`: also those that come without TLS and
    /// would be sent elsewhere.
    #[must_use]
    pub fn about(self, path: &'static str, about: Arc<dyn About>) -> Self {
        Self { about: Some((path, about)), ..self }
    }

    /// Serves on `listener` without TLS until `stop`, and then for some seconds what has begun.
    ///
    /// HTTP/2 is for visitors that know beforehand ("prior knowledge").
    ///
    /// # Errors
    /// When the listener gives no connections for a minute.
    pub async fn http(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        self.serve(listener, None, stop).await
    }

    /// The same with TLS, and with the certificate of the host that the visitor names.
    ///
    /// # Errors
    /// When the listener gives no connections for a minute, or when the system gives no random numbers.
    pub async fn https(
        mut self,
        listener: TcpListener,
        certificates: &Certificates,
        stop: CancellationToken,
    ) -> io::Result<()> {
        self.redirect = None;
        let config = certificates.config().map_err(io::Error::other)?;
        let tls =
            Tls { acceptor: TlsAcceptor::from(Arc::new(config)), shown: certificates.clone() };
        self.serve(listener, Some(tls), stop).await
    }

    async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let end = CancellationToken::new();
        // Also when this future is dropped.
        let _end = end.clone().drop_guard();
        let (visitors, upstream) = (Tasks::new(&end), Tasks::new(&end));
        let drain = self.limits.drain;
        let proxy = Arc::new(Proxy {
            pool: Pool::new(&upstream),
            visitors,
            tls,
            requests: Arc::new(Semaphore::new(self.limits.requests)),
            ingress: self,
        });

        // A child, because it also tells the connections that the listener has failed.
        let stop = stop.child_token();
        let result = proxy.accept(listener, &stop).await;
        stop.cancel();
        if timeout(drain, proxy.visitors.finished()).await.is_err() {
            tracing::info!(
                connections = proxy.visitors.len(),
                "ending connections that did not finish in time"
            );
        }
        end.cancel();
        proxy.visitors.finished().await;
        upstream.finished().await;
        result
    }
}

/// What visitors get.
type Answer = Response<Either<Watched, Full<Bytes>>>;

struct Tls {
    acceptor: TlsAcceptor,
    shown: Certificates,
}

struct Proxy {
    ingress: Ingress,
    tls: Option<Tls>,
    pool: Pool,
    visitors: Tasks,
    requests: Arc<Semaphore>,
}

/// Who asks, and on what.
#[derive(Debug, Clone)]
struct Visitor {
    peer: IpAddr,
    connection: Arc<Connection>,
    /// What it was shown in TLS.
    key: Option<PublicKey>,
}

impl Proxy {
    async fn accept(
        self: &Arc<Self>,
        listener: TcpListener,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let mut door = Door::new(listener, self.ingress.limits.connections);
        let mut sweep = interval(pool::IDLE);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (stream, peer, place) = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = sweep.tick() => {
                    self.pool.sweep();
                    continue;
                }
                accepted = door.next() => accepted?,
            };
            let peer = peer.ip().to_canonical();
            let (proxy, stop) = (Arc::clone(self), stop.clone());
            self.visitors.spawn(async move {
                if let Err(err) = proxy.converse(stream, peer, place, stop).await {
                    tracing::debug!(%peer, error = &*err, "a connection ended early");
                }
            });
        }
    }

    /// One visitor's connection, from its first request to its last.
    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        place: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        // Without it small answers wait for the acknowledgement of the ones before.
        stream.set_nodelay(true)?;
        let connection = Arc::new(Connection::new(place));
        let mut visitor = Visitor { peer, connection, key: None };
        let head = self.ingress.limits.head;
        let Some(tls) = &self.tls else {
            let first = stop.run_until_cancelled(timeout(head, preface::version(stream))).await;
            let Some(first) = first else { return Ok(()) };
            let (version, stream) = first??;
            return self.speak(version, stream, visitor, stop).await;
        };
        let handshake = stop.run_until_cancelled(timeout(head, tls.acceptor.accept(stream))).await;
        let Some(handshake) = handshake else { return Ok(()) };
        let stream = handshake??;
        let host = stream.get_ref().1.server_name();
        visitor.key = host.and_then(|host| tls.shown.public_key(host));
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Version::HTTP_2,
            Some(_) | None => Version::HTTP_11,
        };
        self.speak(version, stream, visitor, stop).await
    }

    async fn speak<S>(
        self: Arc<Self>,
        version: Version,
        stream: S,
        visitor: Visitor,
        stop: CancellationToken,
    ) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (limits, tasks) = (self.ingress.limits, self.visitors.clone());
        let connection = Arc::clone(&visitor.connection);
        let service = service_fn(move |request| {
            let (proxy, visitor) = (Arc::clone(&self), visitor.clone());
            async move { Ok::<_, Infallible>(proxy.answer(request, visitor).await) }
        });
        let stream = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let http = http2::Builder::new(tasks)
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .serve_connection(stream, service);
            let quiet = connection.until_quiet(limits.idle, Some(limits.unused));
            let shutdown = http2::Connection::graceful_shutdown;
            return lead(pin!(http), shutdown, quiet, limits.head, &stop).await;
        }
        let http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(stream, service)
            .with_upgrades();
        // Between requests the head's limit rules.
        let quiet = connection.until_quiet(limits.idle, None);
        let shutdown = http1::UpgradeableConnection::graceful_shutdown;
        lead(pin!(http), shutdown, quiet, limits.head, &stop).await
    }

    async fn answer(&self, request: Request<Incoming>, visitor: Visitor) -> Answer {
        let peer = visitor.peer;
        match self.find(request, visitor).await {
            Ok(answer) => answer,
            Err(refusal) => {
                let source = std::error::Error::source(&refusal).map(tracing::field::display);
                tracing::debug!(%peer, error = source, "{refusal}");
                refusal.answer().map(Either::Right)
            }
        }
    }

    /// Finds out for whom a request is, and counts what comes of it.
    async fn find(&self, request: Request<Incoming>, visitor: Visitor) -> Result<Answer, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        let (authority, host) = head::host(&request)?;
        if let Some(answer) = self.about(&request, &host, &visitor).await {
            return Ok(answer.map(Either::Right));
        }
        if let Some(answer) = self.ours(&request, &host) {
            return Ok(answer.map(Either::Right));
        }
        let Some(route) = self.ingress.routes.find(&host) else {
            return Err(Refusal::Unknown(host));
        };
        let (began, flight) = (Instant::now(), route.counters.begin());
        let secure = self.tls.is_some();
        let forwarded = Forwarded { authority, peer: visitor.peer, secure };
        let result = self.forward(request, host, &route, flight, forwarded, visitor).await;
        let status = result.as_ref().map_or_else(Refusal::status, Response::status);
        route.counters.answered(began.elapsed(), status.is_server_error());
        result
    }

    /// What is told here about a host that is served.
    async fn about<B>(
        &self,
        request: &Request<B>,
        host: &str,
        visitor: &Visitor,
    ) -> Option<Response<Full<Bytes>>> {
        let (path, about) = self.ingress.about.as_ref()?;
        if request.uri().path() != *path || self.ingress.routes.find(host).is_none() {
            return None;
        }
        if request.method() != Method::GET {
            let mut answer = refusal::plain(StatusCode::METHOD_NOT_ALLOWED, String::new());
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return Some(answer);
        }
        // A key that is shown for another host is perhaps another publisher's, who stands in between.
        let shown = self.tls.as_ref().and_then(|tls| tls.shown.public_key(host));
        if visitor.key != shown {
            return Some(refusal::plain(StatusCode::MISDIRECTED_REQUEST, String::new()));
        }
        let query = request.uri().query();
        let visit = Visit { host, query, key: visitor.key.as_ref() };
        let (status, body) = about.answer(visit).await;
        let mut answer = refusal::plain(status, body);
        let kind = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        Some(answer)
    }

    /// What is answered here, whoever serves the host.
    fn ours<B>(&self, request: &Request<B>, host: &str) -> Option<Response<Full<Bytes>>> {
        let ingress = &self.ingress;
        if let Some(answer) = ingress.challenges.answer(host, request.uri().path()) {
            return Some(refusal::plain(StatusCode::OK, answer));
        }
        let (certificates, port) = ingress.redirect.as_ref()?;
        // Browsers would refuse one that is not valid, and nothing would be left of the host.
        certificates.get(host).filter(|certificate| certificate.is_valid(SystemTime::now()))?;
        let port = if *port == 443 { String::new() } else { format!(":{port}") };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let location = HeaderValue::try_from(format!("https://{host}{port}{path}")).ok()?;
        let mut answer = refusal::plain(StatusCode::PERMANENT_REDIRECT, String::new());
        answer.headers_mut().insert(header::LOCATION, location);
        Some(answer)
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        host: String,
        route: &Route,
        flight: InFlight,
        forwarded: Forwarded,
        visitor: Visitor,
    ) -> Result<Answer, Refusal> {
        let (protocol, addrs) = match &route.backend {
            Backend::Addrs(addrs) => (Protocol::Http1, addrs),
            Backend::H2c(addrs) => (Protocol::H2c, addrs),
            Backend::Unavailable(reason) => {
                return Err(Refusal::Unavailable { host, reason: reason.clone() });
            }
        };
        let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() else {
            return Err(Refusal::Busy(host));
        };
        let exchange = Arc::new(Exchange::new(flight, visitor.connection, permit));
        let limits = self.ingress.limits;
        let upgrade = hyper::upgrade::on(&mut request);
        let asked = head::to_backend(&mut request, forwarded, protocol);

        let watched =
            |body| Watched::new(body, Side::Visitor, Arc::clone(&exchange), limits.idle, None);
        let unsent = request.map(|body| Either::Left(watched(body)));
        let sent = async { self.send(protocol, addrs, unsent, &host, &exchange).await };
        let (mut response, held) = tokio::select! {
            sent = sent => sent?,
            () = exchange.until_quiet(limits.answer) => return Err(Refusal::Late(host)),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !asked {
                return Err(Refusal::Switched(host));
            }
            let backend = hyper::upgrade::on(&mut response);
            head::switched(&mut response);
            let tunnel = tunnel::run(upgrade, backend, Arc::clone(&exchange), limits.idle);
            self.visitors.spawn(tunnel);
        } else {
            head::to_visitor(&mut response);
        }
        let watched = |body| Watched::new(body, Side::Backend, exchange, limits.idle, Some(held));
        Ok(response.map(|body| Either::Left(watched(body))))
    }

    /// Sends a request to the least busy of `addrs` that accepts a connection.
    async fn send(
        &self,
        protocol: Protocol,
        addrs: &[SocketAddr],
        mut unsent: Request<pool::Body>,
        host: &str,
        exchange: &Exchange,
    ) -> Result<pool::Answer, Refusal> {
        let mut source = None;
        // Most hosts have one.
        let ordered = (addrs.len() > 1).then(|| self.ingress.loads.order(addrs));
        for addr in ordered.as_deref().unwrap_or(addrs) {
            let place = ordered.is_some().then(|| self.ingress.loads.take(*addr));
            match self.pool.send(protocol, *addr, unsent).await {
                Ok(answer) => {
                    exchange.is_with(place);
                    return Ok(answer);
                }
                Err(SendError::Connect { request, source: err }) => {
                    unsent = *request;
                    source = Some(err);
                }
                Err(SendError::Broken(source)) => {
                    return Err(Refusal::Broken { host: host.to_owned(), source });
                }
            }
        }
        Err(Refusal::Unreachable { host: host.to_owned(), source })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Leads a connection to its end: its own, or that of its use, or the stop.
async fn lead<C, E>(
    mut http: Pin<&mut C>,
    shutdown: fn(Pin<&mut C>),
    quiet: impl Future<Output = Quiet>,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<(), BoxError>
where
    C: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    tokio::select! {
        biased;
        ended = http.as_mut() => return Ok(ended?),
        () = stop.cancelled() => {
            shutdown(http.as_mut());
            return Ok(http.await?);
        }
        quiet = quiet => if quiet == Quiet::Stuck {
            return Err("nothing moved on it for too long".into());
        },
    }
    // Nothing is under way, but something may be about to begin.
    shutdown(http.as_mut());
    Ok(timeout(grace, http).await??)
}
