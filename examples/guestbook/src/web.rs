//! What it answers to whom.

use std::sync::Arc;

use axum::{
    Form, Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{self, HeaderName},
    },
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::{
    book::{Book, Entry, SignError},
    page,
    token::{self, TokenError, Tokens},
};

/// The most bytes of a form: all characters escaped, and four bytes each.
const MAX_FORM: usize = 16 << 10;

/// How many entries a page has.
const PAGE: usize = 100;

/// How many the API gives.
const MAX_ENTRIES: usize = 1_000;

const COOKIE: &str = "guestbook_session";

/// Nothing but this page and its style sheet: no script runs, whatever somebody signs with.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// All that requests share.
pub(crate) struct App {
    pub(crate) book: Book,
    pub(crate) tokens: Tokens,
}

/// The form, filled in.
#[derive(Deserialize)]
struct Signature {
    name: String,
    text: String,
    token: String,
}

/// A form that was not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Entry(#[from] SignError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Token(_) => StatusCode::FORBIDDEN,
            Self::Entry(SignError::Empty | SignError::TooLong) => StatusCode::BAD_REQUEST,
            Self::Entry(SignError::Full) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Entry(SignError::Write(source)) => {
                eprintln!("guestbook: {self}: {source}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, Html(page::refusal(&self.to_string()))).into_response()
    }
}

/// The app's routes.
pub(crate) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/sign", post(sign))
        .route("/api/entries", get(entries))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/style.css", get(style))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, Html(page::refusal("there is no such page")))
        })
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(axum::middleware::map_response(harden))
        .with_state(app)
}

async fn index(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let (session, new) = match session(&headers) {
        Some(session) => (session.to_owned(), false),
        None => (token::session(), true),
    };
    let token = app.tokens.issue(&session, now());
    let html = page::book(&app.book.newest(PAGE), app.book.len(), &token);
    let mut response = Html(html).into_response();
    let cookie = format!("{COOKIE}={session}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax");
    if let Some(cookie) = new.then(|| HeaderValue::from_str(&cookie).ok()).flatten() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn sign(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Form(form): Form<Signature>,
) -> Result<Redirect, Refusal> {
    let session = session(&headers).ok_or(TokenError::Forged)?;
    app.tokens.check(session, &form.token, now())?;
    let entry = Entry::new(now(), &form.name, &form.text)?;
    let signed = tokio::task::spawn_blocking(move || app.book.sign(entry)).await;
    signed.map_err(|err| SignError::Write(err.into()))??;
    Ok(Redirect::to("/"))
}

async fn entries(State(app): State<Arc<App>>) -> Json<Vec<Entry>> {
    Json(app.book.newest(MAX_ENTRIES))
}

async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
    ];
    (headers, include_str!("style.css"))
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let fresh: (HeaderName, _) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.entry(fresh.0).or_insert(fresh.1);
    response
}

/// The session in a visitor's cookies, if it is one of ours.
fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, session) = pairs.find(|(name, _)| name.trim() == COOKIE)?;
    let session = session.trim();
    (session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit())).then_some(session)
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_among_cookies() {
        let ours = "0123456789abcdef0123456789ABCDEF";
        let found = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_str(line).unwrap());
            }
            session(&headers).map(str::to_owned)
        };
        assert_eq!(found(&[&format!("{COOKIE}={ours}")]).as_deref(), Some(ours));
        assert_eq!(found(&["a=b", &format!("c=d; {COOKIE}={ours}; e")]).as_deref(), Some(ours));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[&format!("x{COOKIE}={ours}")]), None);
        assert_eq!(found(&[&format!("{COOKIE}={ours}0")]), None);
        assert_eq!(found(&[&format!("{COOKIE}=\"><b>")]), None);
    }
}
