//! TLS by the host that the visitor names.

use std::ops::RangeInclusive;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    challenges::Challenges,
    tls::{Certificate, Certificates},
};

/// A certificate for `host` that vouches for itself.
pub(super) struct Own {
    pub(super) certificate: Certificate,
    pub(super) der: CertificateDer<'static>,
}

impl Own {
    pub(super) fn new(host: &str) -> Self {
        Self::within(host, 2000..=4000)
    }

    /// One that is valid within these years.
    fn within(host: &str, years: RangeInclusive<i32>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(*years.start(), 1, 1);
        params.not_after = date_time_ymd(*years.end(), 1, 1);
        let own = params.self_signed(&key).unwrap();
        let (chain, key) = (own.pem(), key.serialize_pem());
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        Self { certificate, der: own.der().clone() }
    }
}

/// A stage whose proxy is reached by TLS.
pub(super) struct Secure {
    pub(super) stage: Stage,
    pub(super) certificates: Certificates,
}

impl Secure {
    async fn new(limits: Limits) -> Self {
        Self::of(limits, |ingress| ingress).await
    }

    /// With an ingress that `more` adds something to.
    pub(super) async fn of(limits: Limits, more: impl FnOnce(Ingress) -> Ingress) -> Self {
        let mut stage = Stage::new(limits).await;
        let backend = stage.backend(mirror).await;
        stage.route(Backend::Addrs(vec![backend]));
        let certificates = Certificates::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        stage.addr = listener.local_addr().unwrap();
        let ingress = more(Ingress::new(stage.routes.clone()).limits(limits));
        let (shown, stop) = (certificates.clone(), stage.stop.clone());
        stage.proxy.spawn(async move { ingress.https(listener, &shown, stop).await });
        Self { stage, certificates }
    }

    pub(super) fn show<'a>(&self, all: impl IntoIterator<Item = (&'a str, &'a Own)>) {
        let entry = |(host, own): (&str, &Own)| (host.to_owned(), own.certificate.clone());
        self.certificates.set(all.into_iter().map(entry).collect());
    }

    /// A visitor of `host` who trusts `own` alone.
    pub(super) async fn visit(
        &self,
        host: &str,
        own: &Own,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(own.der.clone()).unwrap();
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.stage.addr).await.unwrap();
        let host = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(host, stream).await
    }
}

pub(super) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whether TLS is closed in good order is not the question here.
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap());
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn visitors_are_shown_the_certificate_of_their_host() {
    let secure = Secure::new(Limits::default()).await;
    let [app, other, wild] = ["app.example", "other.example", "*.wild.example"].map(Own::new);
    secure.show([("app.example", &app), ("other.example", &other), ("*.wild.example", &wild)]);
    for (host, own) in [
        ("app.example", &app),
        ("APP.example", &app),
        ("other.example", &other),
        ("any.wild.example", &wild),
    ] {
        let stream = secure.visit(host, own, &[]).await.unwrap();
        let answer = ask(stream, &get("")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        assert!(answer.contains("x-forwarded-proto: https\r\n"), "{host}: {answer}");
    }
    // Nothing is shown to who asks for what is not here, or for nothing.
    for host in ["app.example.org", "127.0.0.1"] {
        secure.visit(host, &app, &[]).await.unwrap_err();
    }
}

#[tokio::test]
async fn visitors_choose_the_protocol() {
    let secure = Secure::new(Limits::default()).await;
    let own = Own::new("app.example");
    secure.show([("app.example", &own)]);
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = secure.visit("app.example", &own, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        if chosen != Some(b"h2") {
            assert!(ask(stream, &get("")).await.starts_with("HTTP/1.1 200"));
            continue;
        }
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let request = hyper::Request::get("https://app.example/a").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let mut body = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
        let seen = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        let seen = std::str::from_utf8(&seen).unwrap();
        assert!(seen.starts_with("GET /a HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
    }
    // Who offers only what nobody speaks here is told so.
    secure.visit("app.example", &own, &["smtp"]).await.unwrap_err();
}

#[tokio::test]
async fn certificates_change_while_they_are_shown() {
    let secure = Secure::new(Limits::default()).await;
    let (old, new) = (Own::new("app.example"), Own::new("app.example"));
    secure.show([("app.example", &old)]);
    let before = secure.visit("app.example", &old, &[]).await.unwrap();
    secure.show([("app.example", &new)]);
    secure.visit("app.example", &old, &[]).await.unwrap_err();
    secure.visit("app.example", &new, &[]).await.unwrap();
    assert!(ask(before, &get("")).await.starts_with("HTTP/1.1 200"));
    secure.show([]);
    secure.visit("app.example", &new, &[]).await.unwrap_err();
}

#[tokio::test]
async fn websockets_pass_through_tls() {
    let mut secure = Secure::new(Limits::default()).await;
    let own = Own::new("app.example");
    secure.show([("app.example", &own)]);
    let addr = secure
        .stage
        .backend(|_, mut peer| async move {
            peer.hear_head().await;
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                          upgrade: websocket\r\n\r\nwelcome";
            peer.say(switch).await;
            assert_eq!(peer.hear_all().await, "bye");
        })
        .await;
    secure.stage.route(Backend::Addrs(vec![addr]));
    let mut stream = secure.visit("app.example", &own, &["http/1.1"]).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: app.example\r\nconnection: upgrade\r\n\
                   upgrade: websocket\r\n\r\nbye";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = ask(stream, "").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("welcome"), "{answer}");
}

#[tokio::test]
async fn a_handshake_has_to_come_in_time() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let secure = Secure::new(limits).await;
    for start in ["", "\x16\x03\x01"] {
        let mut peer = secure.stage.visit().await;
        peer.say(start).await;
        assert!(peer.ended().await);
    }
}

#[tokio::test]
async fn plain_requests_to_tls_and_handshakes_that_are_none_end() {
    let secure = Secure::new(Limits::default()).await;
    let mut peer = secure.stage.visit().await;
    peer.say(&get("")).await;
    assert!(peer.ended().await);
}

#[tokio::test]
async fn visitors_without_tls_are_sent_to_it() {
    let mut stage = Stage::new(Limits::default()).await;
    let backend = stage.backend(mirror).await;
    stage.route(Backend::Addrs(vec![backend]));
    let (certificates, challenges) = (Certificates::default(), Challenges::default());
    let shown = challenges.show("app.example", "token", "token.print");
    for (port, expected) in [
        (443, "location: https://app.example/a?b\r\n"),
        (8443, "location: https://app.example:8443/a?b\r\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        stage.addr = listener.local_addr().unwrap();
        let ingress = Ingress::new(stage.routes.clone())
            .challenges(challenges.clone())
            .redirect(certificates.clone(), port);
        stage.proxy.spawn(ingress.http(listener, stage.stop.clone()));

        certificates.set(HashMap::new());
        assert!(stage.ask(&get("")).await.starts_with("HTTP/1.1 200"));
        // Nobody is sent to where a browser goes no further.
        for years in [2000..=2001, 3000..=4000] {
            let own = Own::within("app.example", years).certificate;
            certificates.set(HashMap::from([("app.example".to_owned(), own)]));
            assert!(stage.ask(&get("")).await.starts_with("HTTP/1.1 200"));
        }
        let own = Own::new("app.example").certificate;
        certificates.set(HashMap::from([("app.example".to_owned(), own)]));
        let answer = stage.ask(&get("").replace(" / ", " /a?b ")).await;
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
        assert!(answer.contains(expected), "{answer}");
        // An authority asks without TLS, and is answered so.
        let path = " /.well-known/acme-challenge/token ";
        let answer = stage.ask(&get("").replace(" / ", path)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ntoken.print"), "{answer}");
    }
    drop(shown);
}

#[tokio::test]
async fn challenges_that_are_not_ours_are_the_apps() {
    let mut stage = Stage::with(mirror).await;
    let challenges = Challenges::default();
    let _shown = challenges.show("new.example", "token", "token.print");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.addr = listener.local_addr().unwrap();
    let ingress = Ingress::new(stage.routes.clone()).challenges(challenges);
    stage.proxy.spawn(ingress.http(listener, stage.stop.clone()));
    for (host, token, status, end) in [
        // Its app does not run yet.
        ("new.example", "token", "200", "token.print"),
        ("new.example", "other", "404", "here\n"),
        ("app.example", "token", "200", "\r\n\r\n"),
    ] {
        let path = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\n");
        let answer = stage.ask(&format!("{path}host: {host}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{host} {token}: {answer}");
        assert!(answer.ends_with(end), "{host} {token}: {answer}");
    }
}
