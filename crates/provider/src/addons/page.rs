//! An add-on's page, shown on this machine alone.
//!
//! What the add-on serves is not trusted, and the admin page is at the same address under another port. Cookies know no
//! ports: browsers send the one that opens the admin page here, too, so neither it nor any token is passed on, and answers
//! set and clear none. Names that are no addresses are refused as they are there. Scripts of this page are of another origin
//! than the admin page, which takes nothing from them, and they cannot read its cookie (`HttpOnly`). They may set cookies
//! of their own for the address; the worst that comes of it is that the browser drops others, and the operator signs in anew.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header, uri::Scheme},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{Addon, door};
use crate::admin::is_address;

/// How many connections are open at a time.
const CONNECTIONS: usize = 64;

struct Shown {
    addon: Addon,
    client: Client<HttpConnector, Body>,
    /// Where it is, while it runs.
    at: watch::Receiver<Option<SocketAddr>>,
}

/// Shows the page of `addon` until it is stopped.
pub(super) async fn keep(
    addon: Addon,
    listener: TcpListener,
    at: watch::Receiver<Option<SocketAddr>>,
    stop: CancellationToken,
) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let shown = Arc::new(Shown { addon, client, at });
    let router = Router::new().fallback(pass).with_state(shown);
    door::serve(listener, router, CONNECTIONS, stop).await;
}

async fn pass(State(shown): State<Arc<Shown>>, mut request: Request) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_address) {
        let words = "reach this page by localhost or an address\n";
        return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
    }
    let name = shown.addon;
    let Some(at) = *shown.at.borrow() else {
        let words = format!("{name} does not run; `roadstead provider addon list` says why\n");
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = at.to_string().parse().ok();
    let Ok(uri) = Uri::from_parts(parts) else { return StatusCode::BAD_REQUEST.into_response() };
    *request.uri_mut() = uri;
    for name in [header::COOKIE, header::AUTHORIZATION] {
        request.headers_mut().remove(name);
    }
    part_ways(request.headers_mut());
    match shown.client.request(request).await {
        Ok(answer) => {
            let mut answer = answer.map(Body::new);
            let headers = answer.headers_mut();
            headers.remove(header::SET_COOKIE);
            headers.remove("clear-site-data");
            part_ways(headers);
            answer.into_response()
        }
        Err(err) => {
            let words = format!("{name} does not answer: {}\n", crate::causes(&err));
            (StatusCode::BAD_GATEWAY, words).into_response()
        }
    }
}

/// Takes away what is about one connection alone.
fn part_ways(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::UPGRADE, header::TE, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}
