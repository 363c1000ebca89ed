//! HTTP/2 on either side.

use h2::{RecvStream, SendStream, client, server};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use tokio::sync::Semaphore;

use super::*;

type Respond = server::SendResponse<Bytes>;

/// A visitor that knows beforehand that HTTP/2 is spoken.
struct Visitor {
    sender: client::SendRequest<Bytes>,
    connection: JoinSet<Result<(), h2::Error>>,
}

impl Visitor {
    async fn new(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.addr).await.unwrap();
        let (sender, connection) = client::handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Self { sender, connection: tasks }
    }

    /// Sends a head, and what more is to be sent to.
    async fn begin(&mut self, request: Request<()>) -> (client::ResponseFuture, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        sender.send_request(request, false).unwrap()
    }

    /// One request without a body, and all that comes back.
    async fn ask(&mut self, request: Request<()>) -> (StatusCode, String) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        let (status, mut body) = (response.status(), response.into_body());
        (status, text(&mut body).await)
    }
}

fn request(path: &str) -> Request<()> {
    Request::get(format!("http://app.example{path}")).body(()).unwrap()
}

/// The next part of a body; none at its end.
async fn part(body: &mut RecvStream) -> Option<String> {
    let data = timeout(PATIENCE, body.data()).await.unwrap()?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    Some(String::from_utf8(data.to_vec()).unwrap())
}

async fn text(body: &mut RecvStream) -> String {
    let mut text = String::new();
    while let Some(more) = part(body).await {
        text.push_str(&more);
    }
    text
}

/// A backend that speaks HTTP/2 and does `each` with each request, and the number of its connection.
fn h2c<F>(
    each: impl Fn(usize, Request<RecvStream>, Respond) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(usize, Peer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static
where
    F: Future<Output = ()> + Send + 'static,
{
    move |number, peer| {
        let each = each.clone();
        Box::pin(async move {
            let mut builder = server::Builder::new();
            builder.max_concurrent_streams(1_000);
            let mut connection = builder.handshake(peer.stream).await.unwrap();
            let mut requests = JoinSet::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                requests.spawn(each(number, request, respond));
            }
        })
    }
}

fn respond(respond: &mut Respond, text: &'static str) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(text.as_bytes()), true).unwrap();
}

async fn stage_h2c<F>(
    each: impl Fn(usize, Request<RecvStream>, Respond) -> F + Clone + Send + Sync + 'static,
) -> Stage
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut stage = Stage::new(Limits::default()).await;
    let addr = stage.backend(h2c(each)).await;
    stage.route(Backend::H2c(vec![closed().await, addr]));
    stage
}

#[tokio::test]
async fn visitors_may_speak_http2_to_backends_that_do_not() {
    let stage = Stage::with(mirror).await;
    let mut visitor = Visitor::new(&stage).await;
    let mut asked = request("/a?b");
    for (name, value) in [
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("te", "trailers"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-one", "1"),
    ] {
        asked.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let (status, seen) = visitor.ask(asked).await;
    assert_eq!(status, 200);
    let mut lines: Vec<_> = seen.trim_end().split("\r\n").collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /a?b HTTP/1.1",
            "connection: te",
            "cookie: a=b; c=d",
            "host: app.example",
            "te: trailers",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: app.example",
            "x-forwarded-proto: http",
            "x-one: 1",
        ]
    );
}

#[tokio::test]
async fn requests_of_one_connection_go_by_their_hosts() {
    let stage = Stage::with(mirror).await;
    let mut visitor = Visitor::new(&stage).await;
    for (method, uri, host, expected) in [
        ("GET", "http://APP.example./", None, 200),
        ("GET", "http://app.example/", Some("App.example"), 200),
        ("GET", "/", Some("app.example"), 200),
        ("GET", "http://no.example/", None, 404),
        ("GET", "http://app.example/", Some("no.example"), 400),
        ("GET", "/", None, 400),
        ("CONNECT", "app.example:443", None, 405),
    ] {
        let mut asked = Request::new(());
        *asked.method_mut() = method.parse::<Method>().unwrap();
        *asked.uri_mut() = uri.parse().unwrap();
        if let Some(host) = host {
            asked.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
        }
        let (status, text) = visitor.ask(asked).await;
        assert_eq!(status, expected, "{method} {uri} {host:?}: {text}");
    }
}

#[tokio::test]
async fn requests_of_one_connection_do_not_wait_for_each_other() {
    let (go, gone) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let stage = Stage::with({
        let (go, gone) = (go.clone(), gone.clone());
        move |_, mut peer| {
            let (go, gone) = (go.clone(), gone.clone());
            async move {
                if peer.hear_head().await.starts_with("GET /slow") {
                    gone.add_permits(1);
                    go.acquire().await.unwrap().forget();
                }
                peer.say(OK).await;
            }
        }
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let mut sender = visitor.sender.clone().ready().await.unwrap();
    let (slow, _) = sender.send_request(request("/slow"), true).unwrap();
    gone.acquire().await.unwrap().forget();
    assert_eq!(visitor.ask(request("/fast")).await, (StatusCode::OK, "ok".into()));
    go.add_permits(1);
    assert_eq!(timeout(PATIENCE, slow).await.unwrap().unwrap().status(), 200);
}

/// As gRPC does it: both sides speak in turn, and the status comes behind the answer.
#[tokio::test]
async fn grpc_streams_both_ways_with_trailers() {
    let stage = stage_h2c(|_, request, mut respond| async move {
        let heads = request.headers();
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "app.example"),
        ] {
            assert_eq!(heads[name], value);
        }
        assert_eq!(heads.get(header::HOST), None);
        assert_eq!(request.uri(), "http://app.example/pkg.Service/Method");
        let mut asked = request.into_body();
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        while let Some(part) = part(&mut asked).await {
            answer.send_data(format!("you said {part}").into(), false).unwrap();
        }
        let trailers = asked.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["x-sum"], "2");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("7"));
        answer.send_trailers(trailers).unwrap();
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let mut asked = request("/pkg.Service/Method");
    *asked.method_mut() = Method::POST;
    for (name, value) in [("te", "trailers"), ("content-type", "application/grpc")] {
        asked.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let (response, mut body) = visitor.begin(asked).await;
    let mut answer = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    for said in ["one", "two"] {
        body.send_data(said.into(), false).unwrap();
        assert_eq!(part(&mut answer).await.unwrap(), format!("you said {said}"));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("2"));
    body.send_trailers(trailers).unwrap();
    assert_eq!(part(&mut answer).await, None);
    let trailers = timeout(PATIENCE, answer.trailers()).await.unwrap().unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "7");
}

/// A gRPC server that fails at once answers with a head alone.
#[tokio::test]
async fn an_answer_may_be_a_head_alone() {
    let stage = stage_h2c(|_, _, mut respond| async move {
        let head = Response::builder().header("grpc-status", "12").body(()).unwrap();
        respond.send_response(head, true).unwrap();
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let (response, _body) = visitor.begin(request("/")).await;
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn backends_may_speak_http2_to_visitors_that_do_not() {
    let stage = stage_h2c(|_, request, mut respond| async move {
        // There is no upgrade in HTTP/2, so none is asked for.
        assert!(!request.headers().contains_key("upgrade"));
        let uri = request.uri().to_string();
        let mut body = request.into_body();
        let heard = text(&mut body).await;
        let trailers = body.trailers().await.unwrap().unwrap();
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        let said = format!("{uri} {heard} {}", trailers["x-sum"].to_str().unwrap());
        answer.send_data(said.into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-status", HeaderValue::from_static("0"));
        answer.send_trailers(trailers).unwrap();
    })
    .await;
    let head = "POST /a?b HTTP/1.1\r\nhost: app.example:81\r\nconnection: close, upgrade\r\n\
                upgrade: websocket\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\
                trailer: x-sum\r\n\r\n";
    let answer = stage.ask(&format!("{head}3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("http://app.example:81/a?b abc 7"), "{answer}");
}

#[tokio::test]
async fn many_requests_share_few_connections_to_a_backend() {
    let (arrived, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let stage = stage_h2c({
        let (arrived, go, most) = (arrived.clone(), go.clone(), most.clone());
        move |number, _, mut answer| {
            let (arrived, go) = (arrived.clone(), go.clone());
            most.fetch_max(number, Ordering::SeqCst);
            async move {
                arrived.add_permits(1);
                go.acquire().await.unwrap().forget();
                respond(&mut answer, "ok");
            }
        }
    })
    .await;
    let mut visits = JoinSet::new();
    let mut visitors = [Visitor::new(&stage).await, Visitor::new(&stage).await];
    for number in 0..150 {
        let mut visitor =
            Visitor { sender: visitors[number % 2].sender.clone(), connection: JoinSet::new() };
        visits.spawn(async move { visitor.ask(request("/")).await });
    }
    // All are there at a time, on two connections.
    let all = timeout(PATIENCE, arrived.acquire_many(150)).await;
    all.unwrap().unwrap().forget();
    assert_eq!(most.load(Ordering::SeqCst), 1);
    go.add_permits(151);
    while let Some(answer) = visits.join_next().await {
        assert_eq!(answer.unwrap(), (StatusCode::OK, "ok".into()));
    }
    // One that comes later finds room on the first.
    assert_eq!(visitors[0].ask(request("/")).await.0, 200);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn visitors_who_do_not_read_hold_up_nobody() {
    const LARGE: usize = 8 << 20;
    let connections = Arc::new(AtomicUsize::new(0));
    let stage = stage_h2c({
        let connections = connections.clone();
        move |number, request, mut answer| {
            connections.fetch_max(number + 1, Ordering::SeqCst);
            async move {
                if request.uri().path() == "/small" {
                    return respond(&mut answer, "ok");
                }
                let mut body = answer.send_response(Response::new(()), false).unwrap();
                body.send_data(vec![b'a'; LARGE].into(), true).unwrap();
                // It is sent by the connection, for as long as this lives.
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    let mut lazy = Vec::new();
    for _ in 0..90 {
        let mut visitor = Visitor::new(&stage).await;
        let mut sender = visitor.sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request("/large"), true).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        visitor.sender = sender;
        lazy.push((visitor, response));
    }
    let mut eager = Visitor::new(&stage).await;
    assert_eq!(eager.ask(request("/small")).await, (StatusCode::OK, "ok".into()));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// A backend whose first connection answers once, and breaks at the second request.
async fn breaks_at_the_second(seen: Arc<AtomicUsize>) -> Stage {
    let mut stage = Stage::new(Limits::default()).await;
    let addr = stage
        .backend(move |number, peer| {
            let seen = seen.clone();
            async move {
                let mut connection = server::handshake(peer.stream).await.unwrap();
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    if seen.fetch_add(1, Ordering::SeqCst) == 1 && number == 0 {
                        return;
                    }
                    drop(request);
                    respond(&mut answer, "ok");
                }
            }
        })
        .await;
    stage.route(Backend::H2c(vec![addr]));
    stage
}

#[tokio::test]
async fn harmless_requests_survive_that_a_shared_connection_broke() {
    for (method, status, times) in
        [(Method::GET, 200, 3), (Method::DELETE, 200, 3), (Method::POST, 502, 2)]
    {
        let seen = Arc::new(AtomicUsize::new(0));
        let stage = breaks_at_the_second(seen.clone()).await;
        let mut visitor = Visitor::new(&stage).await;
        assert_eq!(visitor.ask(request("/")).await.0, 200);
        let mut second = request("/");
        *second.method_mut() = method.clone();
        assert_eq!(visitor.ask(second).await.0, status, "{method}");
        assert_eq!(seen.load(Ordering::SeqCst), times, "{method}");
    }
}

#[tokio::test]
async fn a_backend_that_speaks_no_http2_is_broken() {
    let mut stage = Stage::new(Limits::default()).await;
    let addr = stage
        .backend(|_, mut peer| async move {
            peer.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            peer.ended().await;
        })
        .await;
    stage.route(Backend::H2c(vec![addr]));
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.ends_with("app.example did not answer the request\n"), "{answer}");
}

#[tokio::test]
async fn a_backend_learns_that_a_visitor_has_reset_the_stream() {
    let (left, mut leaves) = mpsc::channel(1);
    let stage = stage_h2c(move |_, _, mut respond| {
        let left = left.clone();
        async move {
            left.send(()).await.unwrap();
            std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
            left.send(()).await.unwrap();
        }
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let (response, mut body) = visitor.begin(request("/")).await;
    leaves.recv().await.unwrap();
    body.send_reset(h2::Reason::CANCEL);
    drop(response);
    assert!(timeout(PATIENCE, leaves.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn what_has_begun_on_a_shared_connection_is_finished_at_the_stop() {
    let (began, mut begins) = mpsc::channel(1);
    let go = Arc::new(Semaphore::new(0));
    let mut stage = Stage::with({
        let go = go.clone();
        move |_, mut peer| {
            let (began, go) = (began.clone(), go.clone());
            async move {
                peer.hear_head().await;
                began.send(()).await.unwrap();
                go.acquire().await.unwrap().forget();
                peer.say(OK).await;
                peer.ended().await;
            }
        }
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let mut sender = visitor.sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(request("/"), true).unwrap();
    begins.recv().await.unwrap();
    stage.stop.cancel();
    go.add_permits(1);
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(text(&mut response.into_body()).await, "ok");
    drop((sender, visitor.sender));
    timeout(PATIENCE, visitor.connection.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    timeout(PATIENCE, stage.proxy.join_next()).await.unwrap().unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_preface_has_to_come_in_time() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let stage = Stage::within(limits, mirror).await;
    for start in ["P", "PRI"] {
        assert_eq!(stage.ask(start).await, "");
    }
    // Behind it, there is the limit for a connection without requests.
    let limits = Limits { unused: Duration::from_millis(100), ..limits };
    let stage = Stage::within(limits, mirror).await;
    for start in ["PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut peer = stage.visit().await;
        peer.say(start).await;
        assert!(peer.ended().await, "{start}");
    }
}

#[tokio::test]
async fn an_unused_connection_ends() {
    let limits = Limits { unused: Duration::from_millis(100), ..Limits::default() };
    let (go, gone) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let stage = Stage::within(limits, {
        let (go, gone) = (go.clone(), gone.clone());
        move |_, mut peer| {
            let (go, gone) = (go.clone(), gone.clone());
            async move {
                peer.hear_head().await;
                gone.add_permits(1);
                go.acquire().await.unwrap().forget();
                peer.say(OK).await;
            }
        }
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let mut sender = visitor.sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(request("/"), true).unwrap();
    gone.acquire().await.unwrap().forget();
    // It is in use, for longer than the limit.
    let early = timeout(Duration::from_millis(300), visitor.connection.join_next()).await;
    assert!(early.is_err(), "ended under a request");
    go.add_permits(1);
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(text(&mut response.into_body()).await, "ok");
    timeout(PATIENCE, visitor.connection.join_next()).await.unwrap().unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn requests_are_bounded() {
    let limits = Limits { requests: 1, ..Limits::default() };
    let (go, gone) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let stage = Stage::within(limits, {
        let (go, gone) = (go.clone(), gone.clone());
        move |_, mut peer| {
            let (go, gone) = (go.clone(), gone.clone());
            async move {
                peer.hear_head().await;
                gone.add_permits(1);
                go.acquire().await.unwrap().forget();
                peer.say(OK).await;
            }
        }
    })
    .await;
    let mut visitor = Visitor::new(&stage).await;
    let mut sender = visitor.sender.clone().ready().await.unwrap();
    let (first, _) = sender.send_request(request("/"), true).unwrap();
    gone.acquire().await.unwrap().forget();
    let (status, text) = visitor.ask(request("/")).await;
    assert_eq!(status, 503, "{text}");
    go.add_permits(2);
    timeout(PATIENCE, first).await.unwrap().unwrap();
    // There is room again once the answer has gone out.
    timeout(PATIENCE, async { while visitor.ask(request("/")).await.0 != 200 {} }).await.unwrap();
}
