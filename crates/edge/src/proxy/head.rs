//! What of a message's head concerns one connection only, and what the other side is told instead.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Request, Response, Uri, Version,
    header::{self, HeaderName, HeaderValue},
    http::uri::{self, Authority, PathAndQuery, Scheme},
};

use super::pool::Protocol;

/// A request that does not say for whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHost {
    #[error("the request has no Host header")]
    Missing,
    #[error("the request has more than one Host header")]
    Several,
    #[error("the request's Host header is no host name")]
    Invalid,
    #[error("the request's Host header and its authority are not the same")]
    Different,
}

/// What the backend is told about the visitor.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The host and port, as the visitor has them.
    pub(super) authority: Authority,
    /// Who it is.
    pub(super) peer: IpAddr,
    /// Whether it came by TLS.
    pub(super) secure: bool,
}

/// Headers for one connection only (RFC 9110, 7.6.1), beside those that `Connection` names. hyper writes the framing.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// For whom a request is: the authority as it was written, and the host in lower case, without port and final dot.
pub(super) fn host<B>(request: &Request<B>) -> Result<(Authority, String), BadHost> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let written = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(BadHost::Several),
        (Some(value), None) => Some(value),
        (None, _) => None,
    };
    let version = request.version();
    // In the absolute form the Host header is to be there, and to be disregarded (RFC 9112, 3.2.2). HTTP/2 has an
    // authority in its place, which a Host header may only repeat (RFC 9113, 8.3.1).
    let authority = match (request.uri().authority(), written) {
        (Some(authority), Some(written)) if version == Version::HTTP_2 => {
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(written.as_bytes()) {
                return Err(BadHost::Different);
            }
            authority.clone()
        }
        (Some(authority), written) if written.is_some() || version != Version::HTTP_11 => {
            authority.clone()
        }
        (None, Some(value)) if !value.is_empty() => {
            Authority::try_from(value.as_bytes()).map_err(|_err| BadHost::Invalid)?
        }
        (Some(_), _) | (None, _) => return Err(BadHost::Missing),
    };
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(BadHost::Invalid);
    }
    Ok((authority, host))
}

/// Makes a visitor's request one to a backend that speaks `protocol`. Whether it asks for another protocol.
///
/// HTTP/2 has no upgrade, so a backend that speaks it is not asked for one, and sees an ordinary request.
pub(super) fn to_backend<B>(
    request: &mut Request<B>,
    forwarded: Forwarded,
    protocol: Protocol,
) -> bool {
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let written = match protocol {
        Protocol::Http1 => Version::HTTP_11,
        Protocol::H2c => Version::HTTP_2,
    };
    let version = std::mem::replace(request.version_mut(), written);

    let headers = request.headers_mut();
    let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let upgrade = upgrade(headers)
        .filter(|_protocol| version == Version::HTTP_11 && protocol == Protocol::Http1);
    strip(headers);
    // The visitor has had its 100 from us by the time that its body is read.
    headers.remove(header::EXPECT);
    let claims: Vec<_> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }

    let (host, peer) = (forwarded.authority.as_str(), forwarded.peer.to_string());
    for (name, value) in [(header::HOST, host), (X_FORWARDED_HOST, host), (X_FORWARDED_FOR, &peer)]
    {
        // Hosts and addresses are made of visible characters, so there is always a value.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    let scheme = if forwarded.secure { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if protocol == Protocol::H2c {
        headers.remove(header::HOST);
        *request.uri_mut() = absolute(forwarded.authority, path);
        return false;
    }
    match &upgrade {
        Some(protocol) => {
            headers.remove(header::TE);
            headers.insert(header::UPGRADE, protocol.clone());
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        None if trailers => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        None => (),
    }
    *request.uri_mut() = path.into();
    upgrade.is_some()
}

/// The URI from which HTTP/2 takes its scheme, authority and path.
fn absolute(authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.path_and_query = Some(path.clone());
    parts.authority = Some(authority);
    // All three are there, and that is all that it takes.
    Uri::from_parts(parts).unwrap_or_else(|_err| path.into())
}

/// HTTP/2 may send a cookie at a time, which HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(_second)) = (cookies.next(), cookies.next()) {
        let mut joined = first.as_bytes().to_vec();
        for cookie in headers.get_all(header::COOKIE).iter().skip(1) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        // Parts of values, and what is between them, are a value.
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// Makes a backend's response one to the visitor.
pub(super) fn to_visitor<B>(response: &mut Response<B>) {
    *response.version_mut() = Version::HTTP_11;
    strip(response.headers_mut());
}

/// The same for one that changes the protocol.
pub(super) fn switched<B>(response: &mut Response<B>) {
    let protocol = response.headers().get(header::UPGRADE).cloned();
    to_visitor(response);
    let headers = response.headers_mut();
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// The protocol that the request asks for. Not h2c: what it would carry past us are requests, for any host.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = tokens(headers, &header::CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let http = |token: &str| {
        let name = token.split('/').next().unwrap_or(token);
        ["h2c", "h2", "http", "tls"].iter().any(|http| name.eq_ignore_ascii_case(http))
    };
    let mut values = headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (values.next(), values.next()) else { return None };
    (named && !tokens(headers, &header::UPGRADE).any(http)).then(|| protocol.clone())
}

/// Whether a header says what only a proxy may, also to programs that take `_` for `-`.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is = |claim: &[u8]| {
        let same = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
        name.len() >= claim.len() && name.iter().zip(claim).all(same)
    };
    is(b"x-forwarded-") || is(b"x-real-ip") || name == b"forwarded"
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The items of a header that is a list, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}
