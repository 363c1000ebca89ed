//! What is told of a host here, and never by its backend.

use futures::future::{BoxFuture, FutureExt as _};
use hyper::StatusCode;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    tls::{Own, Secure, ask},
    *,
};
use crate::{
    about::{About, Visit},
    tls::Certificates,
};

const PATH: &str = "/.well-known/told";

/// Tells who asked.
#[derive(Debug)]
struct Echo;

impl About for Echo {
    fn answer<'a>(&'a self, visit: Visit<'a>) -> BoxFuture<'a, (StatusCode, String)> {
        let Visit { host, query, key } = visit;
        let key = key.map(|key| (key.brought, &key.spki[..]));
        std::future::ready((StatusCode::ACCEPTED, format!("{host} {query:?} {key:?}"))).boxed()
    }
}

fn request(method: &str, target: &str, host: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn no_backend_is_asked() {
    let mut stage = Stage::new(Limits::default()).await;
    let backend = stage.backend(mirror).await;
    stage.route(Backend::Addrs(vec![backend]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.addr = listener.local_addr().unwrap();
    // Also not sent to where there is TLS.
    let certificates = Certificates::default();
    let own = Own::new("app.example");
    certificates.set(HashMap::from([("app.example".to_owned(), own.certificate.clone())]));
    let ingress = Ingress::new(stage.routes.clone()).redirect(certificates, 443);
    stage.proxy.spawn(ingress.about(PATH, Arc::new(Echo)).http(listener, stage.stop.clone()));

    let told = format!("{PATH}?a=b");
    for (method, target, host, status, part) in [
        ("GET", &*told, "APP.example.:80", "202", "\r\n\r\napp.example Some(\"a=b\") None"),
        ("GET", PATH, "app.example", "202", "content-type: application/json\r\n"),
        ("GET", PATH, "app.example", "202", "cache-control: no-store\r\n"),
        ("POST", PATH, "app.example", "405", "allow: GET\r\n"),
        ("GET", PATH, "other.example", "404", "no app is served at other.example here"),
        ("GET", "/.well-known/told/", "app.example", "308", "location: https://app.example/"),
        ("GET", "/.well-known/", "app.example", "308", "location: https://app.example/"),
    ] {
        let answer = stage.ask(&request(method, target, host)).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{method} {target} {host}: {answer}");
        assert!(answer.contains(part), "{method} {target} {host}: {answer}");
    }
    // Also not while nobody is there to be asked.
    stage.route(Backend::Unavailable("starting".into()));
    assert!(stage.ask(&request("GET", PATH, "app.example")).await.contains(" 202 "));
}

#[tokio::test]
async fn the_key_is_that_of_the_visitors_connection() {
    let secure = Secure::of(Limits::default(), |ingress| ingress.about(PATH, Arc::new(Echo))).await;
    let [brought, issued] = ["app.example", "other.example"].map(Own::new);
    secure.show([("app.example", &brought)]);
    secure.certificates.issue("other.example", &issued.certificate);
    let told = |own: &Own, is_brought: bool| {
        let (_, parsed) = X509Certificate::from_der(&own.der).unwrap();
        let spki = parsed.public_key().raw;
        format!("app.example None {:?}", Some((is_brought, spki)))
    };
    let ask_of = async |name: &str, own: &Own| {
        let stream = secure.visit(name, own, &[]).await.unwrap();
        ask(stream, &request("GET", PATH, "app.example")).await
    };
    for name in ["app.example", "APP.example"] {
        let answer = ask_of(name, &brought).await;
        assert!(answer.ends_with(&told(&brought, true)), "{answer}");
    }
    // What is shown for another host may be another publisher's.
    let answer = ask_of("other.example", &issued).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    // Of its own host it is told.
    let issued = Own::new("app.example");
    secure.certificates.issue("app.example", &issued.certificate);
    secure.show([]);
    let answer = ask_of("app.example", &issued).await;
    assert!(answer.ends_with(&told(&issued, false)), "{answer}");
}
