//! Visitors, the proxy and backends on real sockets. Backends are raw ones, so that a test sees each byte and can break
//! off where it likes.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Ingress, Limits};
use crate::routes::{Backend, Routes};

mod about;
mod http2;
mod limits;
mod stats;
mod tls;

/// Longer than anything here takes, so that what hangs fails.
const PATIENCE: Duration = Duration::from_secs(10);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy for `app.example`, and what stands behind it.
struct Stage {
    addr: SocketAddr,
    routes: Routes,
    stop: CancellationToken,
    proxy: JoinSet<std::io::Result<()>>,
    backends: JoinSet<()>,
}

impl Stage {
    async fn new(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (routes, stop) = (Routes::default(), CancellationToken::new());
        let addr = listener.local_addr().unwrap();
        let mut proxy = JoinSet::new();
        let ingress = Ingress::new(routes.clone()).limits(limits);
        proxy.spawn(ingress.http(listener, stop.clone()));
        Self { addr, routes, stop, proxy, backends: JoinSet::new() }
    }

    /// With a backend that does `each` with each connection and its number.
    async fn with<F>(each: impl Fn(usize, Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::within(Limits::default(), each).await
    }

    async fn within<F>(limits: Limits, each: impl Fn(usize, Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stage = Self::new(limits).await;
        let addr = stage.backend(each).await;
        stage.route(Backend::Addrs(vec![addr]));
        stage
    }

    async fn backend<F>(&mut self, each: impl Fn(usize, Peer) -> F + Send + 'static) -> SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        self.backends.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(each(number, Peer { stream, rest: String::new() }));
            }
        });
        addr
    }

    fn route(&self, backend: Backend) {
        self.routes.set(HashMap::from([("app.example".to_owned(), backend)]));
    }

    async fn visit(&self) -> Peer {
        Peer { stream: TcpStream::connect(self.addr).await.unwrap(), rest: String::new() }
    }

    /// One request on a connection of its own, and all that comes back.
    async fn ask(&self, request: &str) -> String {
        let mut peer = self.visit().await;
        peer.say(request).await;
        peer.hear_all().await
    }
}

/// The other end of a connection.
struct Peer {
    stream: TcpStream,
    /// What came beyond what was asked for.
    rest: String,
}

impl Peer {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// What comes until `end`, included.
    async fn hear(&mut self, end: &str) -> String {
        let mut heard = std::mem::take(&mut self.rest);
        loop {
            if let Some(at) = heard.find(end) {
                self.rest = heard.split_off(at + end.len());
                return heard;
            }
            let mut bytes = [0; 4_096];
            let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await;
            let len = read.unwrap_or_else(|_| panic!("no {end:?} after {heard:?}")).unwrap();
            assert_ne!(len, 0, "closed without {end:?} after {heard:?}");
            heard.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
        }
    }

    /// What comes until the connection ends.
    async fn hear_all(&mut self) -> String {
        let mut heard = std::mem::take(&mut self.rest).into_bytes();
        timeout(PATIENCE, self.stream.read_to_end(&mut heard)).await.unwrap().unwrap();
        String::from_utf8(heard).unwrap()
    }

    async fn hear_head(&mut self) -> String {
        self.hear("\r\n\r\n").await
    }

    /// Whether the connection ended, in whatever way.
    async fn ended(&mut self) -> bool {
        let mut bytes = [0; 64];
        loop {
            match timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap() {
                Ok(0) | Err(_) => return true,
                Ok(_) => (),
            }
        }
    }
}

/// Answers each request with its head.
async fn mirror(_number: usize, mut peer: Peer) {
    loop {
        let head = peer.hear_head().await;
        let len = head.len();
        peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{head}")).await;
    }
}

fn get(more: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn requests_go_by_their_host() {
    let stage = Stage::with(mirror).await;
    let close = "connection: close\r\n\r\n";
    for (request, status, part) in [
        ("GET /a?b HTTP/1.1\r\nHost: app.example\r\n", "200", "GET /a?b HTTP/1.1\r\n"),
        ("GET / HTTP/1.1\r\nHost: APP.Example:8080\r\n", "200", "host: APP.Example:8080\r\n"),
        ("GET / HTTP/1.1\r\nHost: app.example.\r\n", "200", "host: app.example.\r\n"),
        ("GET http://app.example/a HTTP/1.1\r\nHost: no.example\r\n", "200", "GET /a HTTP/1.1\r\n"),
        ("GET http://app.example/a HTTP/1.1\r\nHost: no.example\r\n", "200", "host: app.example\r"),
        ("GET http://app.example HTTP/1.1\r\nHost: a\r\n", "200", "GET / HTTP/1.1\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: app.example\r\n", "200", "OPTIONS * HTTP/1.1\r\n"),
        ("GET / HTTP/1.0\r\nHost: app.example\r\n", "200", "GET / HTTP/1.1\r\n"),
        ("GET http://app.example/ HTTP/1.0\r\n", "200", "host: app.example\r\n"),
        ("GET http://no.example/ HTTP/1.1\r\nHost: app.example\r\n", "404", "no.example here"),
        ("GET / HTTP/1.1\r\nHost: other.app.example\r\n", "404", "at other.app.example here"),
        ("GET / HTTP/1.1\r\n", "400", "no Host"),
        ("GET / HTTP/1.0\r\n", "400", "no Host"),
        ("GET / HTTP/1.1\r\nHost:\r\n", "400", "no Host"),
        ("GET http://app.example/ HTTP/1.1\r\n", "400", "no Host"),
        ("GET / HTTP/1.1\r\nHost: app.example\r\nHost: app.example\r\n", "400", "more than one"),
        ("GET / HTTP/1.1\r\nHost: app.example, b\r\n", "400", "no host name"),
        ("GET / HTTP/1.1\r\nHost: user@app.example\r\n", "400", "no host name"),
        ("GET / HTTP/1.1\r\nHost: <b>\r\n", "400", "no host name"),
        ("GET / HTTP/1.1\r\nHost: .\r\n", "400", "no host name"),
        ("CONNECT app.example:443 HTTP/1.1\r\nHost: app.example\r\n", "405", "CONNECT"),
    ] {
        let answer = stage.ask(&format!("{request}{close}")).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}{answer}");
        assert!(answer.contains(part), "{request}{answer}");
    }
}

#[tokio::test]
async fn a_message_has_one_length() {
    let stage = Stage::with(|_, mut peer| async move {
        let heard = peer.hear("\r\n0\r\n\r\n").await;
        let len = heard.len();
        peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{heard}")).await;
    })
    .await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: app.example\r\n\r\n";
    for lengths in [
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
    ] {
        let chunks = "3\r\nabc\r\n0\r\n\r\n";
        let request = format!("POST / HTTP/1.1\r\nhost: app.example\r\n{lengths}\r\n{chunks}");
        // The connection ends with such a request, so that nothing behind it is taken for another.
        let answer = stage.ask(&format!("{request}{hidden}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(chunks), "{answer}");
        assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
        assert!(!answer.contains("content-length: 4") && !answer.contains("hidden"), "{answer}");
    }
    for lengths in [
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: +4\r\n",
        "content-length: 4, 4\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        let answer =
            stage.ask(&format!("POST / HTTP/1.1\r\nhost: app.example\r\n{lengths}\r\nabcd")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{lengths}{answer}");
    }
}

#[tokio::test]
async fn backends_are_told_who_asks_and_nothing_of_the_connection() {
    let stage = Stage::with(mirror).await;
    let answer = stage
        .ask(
            "GET / HTTP/1.1\r\nhost: App.example:81\r\nconnection: close, x-one\r\n\
             Connection: X-Two, host, x-forwarded-for\r\nx-one: 1\r\nx-two: 2\r\nx-three: 3\r\n\
             keep-alive: 5\r\nproxy-connection: a\r\nproxy-authorization: b\r\nte: gzip\r\n\
             expect: 100-continue\r\nupgrade: websocket\r\nforwarded: for=6.6.6.6\r\n\
             x-forwarded-for: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded-proto: https\r\n\
             x-forwarded-host: evil.example\r\nx-forwarded-prefix: /evil\r\nx-real-ip: 6.6.6.6\r\n\
             cookie: a=b\r\n\r\n",
        )
        .await;
    let (_, seen) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = seen.trim_end().split("\r\n").collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET / HTTP/1.1",
            "cookie: a=b",
            "host: App.example:81",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: App.example:81",
            "x-forwarded-proto: http",
            "x-three: 3",
        ]
    );
}

#[tokio::test]
async fn visitors_are_told_nothing_of_the_backends_connection() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say(
            "HTTP/1.1 418 I'm a teapot\r\nconnection: close, x-one\r\nx-one: 1\r\nx-two: 2\r\n\
             keep-alive: timeout=5\r\nset-cookie: a\r\nset-cookie: b\r\n\r\nshort and stout",
        )
        .await;
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say("GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
    let head = peer.hear_head().await;
    assert!(head.starts_with("HTTP/1.1 418"), "{head}");
    for absent in ["connection", "x-one", "keep-alive"] {
        assert!(!head.contains(absent), "{head}");
    }
    for present in ["x-two: 2\r\n", "set-cookie: a\r\n", "set-cookie: b\r\n"] {
        assert!(head.contains(present), "{head}");
    }
    // It ended with the backend's connection there, and goes on here.
    assert!(peer.hear("\r\n0\r\n\r\n").await.contains("short and stout"));
    peer.say(&get("")).await;
    assert!(peer.hear_head().await.starts_with("HTTP/1.1 418"));
}

#[tokio::test]
async fn a_host_may_be_unavailable_for_a_reason() {
    let stage = Stage::new(Limits::default()).await;
    stage.route(Backend::Unavailable("its account ran dry".into()));
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 5\r\n"), "{answer}");
    assert!(
        answer.ends_with("app.example is not available now: its account ran dry\n"),
        "{answer}"
    );
}

/// An address at which nobody listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn the_least_busy_of_several_gets_the_next() {
    let mut stage = Stage::new(Limits::default()).await;
    let named = |name: &'static str| {
        move |_, mut peer: Peer| async move {
            loop {
                // The first never finishes what it is asked at /slow.
                let heard = peer.hear("\r\n\r\n").await;
                if heard.starts_with("GET /slow") {
                    peer.say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslow").await;
                    return std::future::pending().await;
                }
                peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{name}")).await;
            }
        }
    };
    let (a, b) = (stage.backend(named("a")).await, stage.backend(named("b")).await);
    stage.route(Backend::Addrs(vec![a, b]));
    let quick = get("");
    let mut idle: Vec<char> = Vec::new();
    for _ in 0..4 {
        idle.extend(stage.ask(&quick).await.chars().last());
    }
    assert_eq!(idle, ['a', 'b', 'a', 'b'], "equals take turns");

    let mut busy = stage.visit().await;
    busy.say(&quick.replace("GET /", "GET /slow")).await;
    busy.hear("slow").await;
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..6 {
        others.extend(stage.ask(&quick).await.chars().last());
    }
    assert_eq!(others.len(), 1, "one of them is busy: {others:?}");
    drop(busy);
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let mut stage = Stage::new(Limits::default()).await;
    let open = stage
        .backend(|_, mut peer| async move {
            let heard = peer.hear("body").await;
            assert!(heard.starts_with("POST"), "{heard}");
            peer.say(OK).await;
        })
        .await;
    let post = get("content-length: 4\r\n").replace("GET", "POST") + "body";
    stage.route(Backend::Addrs(vec![closed().await, closed().await, open]));
    assert!(stage.ask(&post).await.ends_with("ok"));
    for addrs in [vec![closed().await, closed().await], vec![]] {
        stage.route(Backend::Addrs(addrs));
        let answer = stage.ask(&post).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(answer.ends_with("app.example does not accept connections now\n"), "{answer}");
    }
}

#[tokio::test]
async fn routes_change_under_a_connection() {
    let stage = Stage::with(mirror).await;
    let mut peer = stage.visit().await;
    for (backend, status, end) in [
        (stage.routes.get("app.example"), "200", "x-forwarded-proto: http\r\n\r\n"),
        (Some(Backend::Unavailable("moving".into())), "503", "moving\n"),
        (None, "404", "here\n"),
    ] {
        stage.routes.set(backend.map(|b| ("app.example".to_owned(), b)).into_iter().collect());
        peer.say("GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
        assert_eq!(peer.hear(end).await.split(' ').nth(1), Some(status));
    }
}

/// A backend whose first connection answers once, and closes when it has the second request.
fn closes_at_the_second(
    seen: Arc<AtomicUsize>,
) -> impl Fn(usize, Peer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    move |number, mut peer| {
        let seen = seen.clone();
        Box::pin(async move {
            loop {
                let head = peer.hear_head().await;
                if seen.fetch_add(1, Ordering::SeqCst) == 1 && number == 0 {
                    return;
                }
                if head.starts_with("POST") {
                    peer.hear("body").await;
                }
                peer.say(OK).await;
            }
        })
    }
}

#[tokio::test]
async fn harmless_requests_survive_that_a_kept_connection_was_closed() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let seen = Arc::new(AtomicUsize::new(0));
        let stage = Stage::with(closes_at_the_second(seen.clone())).await;
        assert!(stage.ask(&get("")).await.ends_with("ok"));
        let answer = stage.ask(&get("").replace("GET", method)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        assert_eq!(seen.load(Ordering::SeqCst), 3, "{method}");
    }
}

#[tokio::test]
async fn requests_that_may_do_harm_are_not_sent_twice() {
    for (method, body) in [("POST", "body"), ("POST", ""), ("PUT", "body"), ("PATCH", "")] {
        let seen = Arc::new(AtomicUsize::new(0));
        let stage = Stage::with(closes_at_the_second(seen.clone())).await;
        assert!(stage.ask(&get("")).await.ends_with("ok"));
        let length = format!("content-length: {}\r\n", body.len());
        let answer = stage.ask(&(get(&length).replace("GET", method) + body)).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{method} {body}: {answer}");
        assert_eq!(seen.load(Ordering::SeqCst), 2, "{method} {body}");
    }
}

#[tokio::test]
async fn no_request_is_repeated_on_a_new_connection() {
    let seen = Arc::new(AtomicUsize::new(0));
    let stage = Stage::with({
        let seen = seen.clone();
        move |_, mut peer| {
            let seen = seen.clone();
            async move {
                peer.hear_head().await;
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.ends_with("app.example did not answer the request\n"), "{answer}");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

/// The backend closes while the connection is kept, so that even a body goes out on a new one, unharmed.
#[tokio::test]
async fn a_connection_that_was_closed_while_kept_is_not_used() {
    let (closed, mut was_closed) = mpsc::channel(1);
    let stage = Stage::with(move |number, mut peer| {
        let closed = closed.clone();
        async move {
            peer.hear_head().await;
            peer.say(OK).await;
            if number == 0 {
                peer.stream.shutdown().await.unwrap();
                // The proxy has seen it, once it closes its own side.
                assert!(peer.ended().await);
                closed.send(()).await.unwrap();
            }
        }
    })
    .await;
    assert!(stage.ask(&get("")).await.ends_with("ok"));
    was_closed.recv().await.unwrap();
    assert!(stage.ask(&get("").replace("GET", "POST")).await.ends_with("ok"));
}

#[tokio::test]
async fn connections_to_backends_are_kept() {
    let connections = Arc::new(AtomicUsize::new(0));
    let stage = Stage::with({
        let connections = connections.clone();
        move |number, peer| {
            connections.fetch_add(1, Ordering::SeqCst);
            mirror(number, peer)
        }
    })
    .await;
    for _ in 0..5 {
        assert!(stage.ask(&get("")).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn websockets_pass_both_ways() {
    let stage = Stage::with(|_, mut peer| async move {
        let head = peer.hear_head().await;
        for line in
            ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: k\r\n"]
        {
            assert!(head.contains(line), "{head}");
        }
        // The first words come with the answer, in one piece.
        peer.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             sec-websocket-accept: a\r\n\r\nwelcome.",
        )
        .await;
        let heard = peer.hear(".").await;
        peer.say(&format!("you said {heard}")).await;
        assert_eq!(peer.hear_all().await, "bye");
        peer.say("farewell").await;
    })
    .await;
    let mut peer = stage.visit().await;
    // Its first words come with the request.
    peer.say(
        "GET /chat HTTP/1.1\r\nhost: app.example\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nsec-websocket-key: k\r\n\r\nhello.",
    )
    .await;
    let head = peer.hear_head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for line in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-accept: a\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
    assert_eq!(peer.hear(".").await, "welcome.");
    assert_eq!(peer.hear(".").await, "you said hello.");
    peer.say("bye").await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(peer.hear_all().await, "farewell");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    })
    .await;
    let request = get("upgrade: websocket\r\n").replace("close", "close, upgrade");
    let answer = stage.ask(&request).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("no"), "{answer}");
}

#[tokio::test]
async fn http_is_not_tunnelled_past_the_hosts() {
    let stage = Stage::with(mirror).await;
    for protocol in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.0"] {
        let upgrade = format!("upgrade: {protocol}\r\n");
        let answer = stage.ask(&get(&upgrade).replace("close", "close, upgrade")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("upgrade"), "{answer}");
    }
}

#[tokio::test]
async fn a_switch_that_was_not_asked_for_is_refused() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n")
            .await;
        peer.ended().await;
    })
    .await;
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn responses_stream() {
    let (go, gone) = oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let stage = Stage::with(move |_, mut peer| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            peer.hear_head().await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        transfer-encoding: chunked\r\n\r\n";
            peer.say(&format!("{head}9\r\ndata: 1\n\n\r\n")).await;
            gone.await.unwrap();
            peer.say("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
            peer.ended().await;
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    assert!(peer.hear("data: 1\n\n").await.contains("text/event-stream"));
    go.send(()).unwrap();
    assert!(peer.hear_all().await.contains("data: 2\n\n"));
}

#[tokio::test]
async fn requests_stream() {
    let (heard, mut hears) = mpsc::channel(2);
    let stage = Stage::with(move |_, mut peer| {
        let heard = heard.clone();
        async move {
            let head = peer.hear_head().await;
            assert!(!head.contains("expect"), "{head}");
            for part in ["first", "second"] {
                peer.hear(part).await;
                heard.send(part).await.unwrap();
            }
            peer.hear("0\r\n\r\n").await;
            peer.say(OK).await;
        }
    })
    .await;
    let mut peer = stage.visit().await;
    let head = get("transfer-encoding: chunked\r\nexpect: 100-continue\r\n").replace("GET", "PUT");
    peer.say(&head).await;
    assert!(peer.hear_head().await.starts_with("HTTP/1.1 100 Continue"));
    peer.say("5\r\nfirst\r\n").await;
    assert_eq!(hears.recv().await, Some("first"));
    peer.say("6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(hears.recv().await, Some("second"));
    assert!(peer.hear_all().await.ends_with("ok"));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let stage = Stage::with(|_, mut peer| async move {
        let heard = peer.hear("x-sum: 7\r\n\r\n").await;
        assert!(heard.contains("te: trailers\r\n"), "{heard}");
        peer.say(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-status\r\n\r\n\
             2\r\nok\r\n0\r\nx-status: 0\r\n\r\n",
        )
        .await;
        peer.ended().await;
    })
    .await;
    let head = get("te: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n");
    let body = "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
    let answer = stage.ask(&(head.replace("GET", "POST") + body)).await;
    assert!(answer.ends_with("\r\n2\r\nok\r\n0\r\nx-status: 0\r\n\r\n"), "{answer}");
}

/// hyper's servers can not send them, and a visitor loses nothing but time.
#[tokio::test]
async fn early_hints_are_dropped() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await;
        peer.say(OK).await;
    })
    .await;
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("a.css"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_keep_its_length() {
    let stage = Stage::with(|_, mut peer| async move {
        loop {
            let head = peer.hear_head().await;
            let status = if head.starts_with("HEAD") { "200 OK" } else { "304 Not Modified" };
            peer.say(&format!("HTTP/1.1 {status}\r\ncontent-length: 99\r\netag: e\r\n\r\n")).await;
        }
    })
    .await;
    let answer = stage.ask(&get("").replace("GET", "HEAD")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("length: 99\r\n"), "{answer}");
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 304") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_answer_may_end_with_the_connection() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.0 200 OK\r\n\r\nold").await;
    })
    .await;
    let answer = stage.ask(&get("")).await;
    assert!(answer.ends_with("\r\n3\r\nold\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    peer.hear("half\r\n").await;
    assert!(peer.ended().await);
    assert!(!peer.rest.contains('0'), "{}", peer.rest);
}

#[tokio::test]
async fn a_backend_learns_that_the_visitor_has_left() {
    let (left, mut leaves) = mpsc::channel(1);
    let stage = Stage::with(move |_, mut peer| {
        let left = left.clone();
        async move {
            peer.hear_head().await;
            left.send(()).await.unwrap();
            assert!(peer.ended().await);
            left.send(()).await.unwrap();
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    leaves.recv().await.unwrap();
    drop(peer);
    assert!(timeout(PATIENCE, leaves.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_head_has_to_come_in_time() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let stage = Stage::within(limits, mirror).await;
    for start in ["", "GET / HTTP/1.1\r\nhost: app"] {
        assert!(!stage.ask(start).await.contains("200"), "{start}");
    }
    // Also the next one of a connection.
    let mut peer = stage.visit().await;
    peer.say("GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
    assert!(peer.hear_head().await.starts_with("HTTP/1.1 200"));
    assert!(peer.ended().await);
}

#[tokio::test]
async fn a_head_is_bounded() {
    let stage = Stage::with(mirror).await;
    let long = format!("x-long: {}\r\n", "a".repeat(super::MAX_HEAD));
    let many = "x-many: a\r\n".repeat(super::MAX_HEADERS);
    for more in [long, many] {
        let mut peer = stage.visit().await;
        peer.say(&get(&more)).await;
        let head = peer.hear_head().await;
        assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    }
}

#[tokio::test]
async fn connections_are_bounded_and_tunnels_are_counted() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let stage = Stage::within(limits, |_, mut peer| async move {
        if peer.hear_head().await.contains("upgrade") {
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n";
            peer.say(switch).await;
            peer.ended().await;
        } else {
            peer.say(OK).await;
        }
    })
    .await;
    let mut first = stage.visit().await;
    first
        .say("GET / HTTP/1.1\r\nhost: app.example\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n")
        .await;
    first.hear_head().await;
    let mut second = stage.visit().await;
    second.say(&get("")).await;
    let mut bytes = [0; 16];
    let early = timeout(Duration::from_millis(200), second.stream.read(&mut bytes)).await;
    assert!(early.is_err(), "served beside the tunnel");
    drop(first);
    assert!(second.hear_all().await.ends_with("ok"));
}

#[tokio::test]
async fn what_has_begun_is_finished_at_the_stop() {
    let (go, gone) = oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let (began, mut begins) = mpsc::channel(1);
    let mut stage = Stage::with(move |_, mut peer| {
        let (gone, began) = (gone.lock().unwrap().take().unwrap(), began.clone());
        async move {
            peer.hear_head().await;
            began.send(()).await.unwrap();
            gone.await.unwrap();
            peer.say(OK).await;
            peer.ended().await;
        }
    })
    .await;
    let mut idle = stage.visit().await;
    idle.say("GET / HTTP/1.1\r\nhost: no.example\r\n\r\n").await;
    idle.hear("here\n").await;
    let mut busy = stage.visit().await;
    busy.say("GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
    begins.recv().await.unwrap();

    stage.stop.cancel();
    assert!(idle.ended().await);
    assert!(TcpStream::connect(stage.addr).await.is_err());
    go.send(()).unwrap();
    assert!(busy.hear_all().await.ends_with("ok"));
    timeout(PATIENCE, stage.proxy.join_next()).await.unwrap().unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_finish_is_ended() {
    let limits = Limits { drain: Duration::from_millis(100), ..Limits::default() };
    let (began, mut begins) = mpsc::channel(1);
    let mut stage = Stage::within(limits, move |_, mut peer| {
        let began = began.clone();
        async move {
            peer.hear_head().await;
            began.send(()).await.unwrap();
            peer.ended().await;
            began.send(()).await.unwrap();
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    begins.recv().await.unwrap();
    stage.stop.cancel();
    timeout(PATIENCE, stage.proxy.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    assert!(peer.ended().await);
    assert!(timeout(PATIENCE, begins.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn all_ends_when_the_future_is_dropped() {
    let (began, mut begins) = mpsc::channel(1);
    let mut stage = Stage::with(move |_, mut peer| {
        let began = began.clone();
        async move {
            peer.hear_head().await;
            began.send(()).await.unwrap();
            peer.ended().await;
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    begins.recv().await.unwrap();
    stage.proxy.shutdown().await;
    assert!(peer.ended().await);
}
