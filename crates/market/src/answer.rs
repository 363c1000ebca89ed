//! What an answer is: the state after one block, which it names, with a tag that is another one after another block.

use std::{convert::Infallible, sync::Arc};

use alloy_primitives::{Keccak256, hex};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
        header::{ACCEPT_ENCODING, CACHE_CONTROL, ETAG, IF_NONE_MATCH, LINK, VARY},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use store::{PgConnection, cursor::Cursor};
use utoipa::ToSchema;

use crate::{
    Market, Reading,
    query::Limit,
    view::{Block, Key},
};

/// One thing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct One<T> {
    /// After which block it is so.
    pub(crate) at: Block,
    /// The thing.
    pub(crate) item: T,
}

/// A page of things.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Page<T> {
    /// After which block they are so.
    pub(crate) at: Block,
    /// The things.
    pub(crate) items: Vec<T>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    pub(crate) next: Option<String>,
}

/// A body, and what is said of it in the answer's head.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    tag: HeaderValue,
    link: Option<HeaderValue>,
    body: T,
}

/// The head of a request, of which it is not known yet after which block it will be answered.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    uri: Uri,
    headers: HeaderMap,
}

/// A request that is answered with the state after one block.
#[derive(Debug)]
pub(crate) struct Tagged {
    cursor: Cursor,
    tag: HeaderValue,
    uri: Uri,
}

/// The mirror as it is for one request. Who has the answer already is refused with 304 before any row is read.
#[derive(Debug)]
pub(crate) struct Now {
    market: Arc<Market>,
    reading: Reading,
    tagged: Tagged,
}

impl Head {
    /// The request as it is answered after a block; or the answer, to somebody who has it already.
    #[expect(clippy::result_large_err, reason = "it is an answer, and sent at once")]
    pub(crate) fn at(self, cursor: &Cursor) -> Result<Tagged, Response> {
        let tag = tag(cursor, &self);
        if has(&self.headers, &tag) {
            return Err((StatusCode::NOT_MODIFIED, head(tag)).into_response());
        }
        Ok(Tagged { cursor: *cursor, tag, uri: self.uri })
    }
}

impl Tagged {
    /// Answers with a page. There is one row more than its limit if that is not the last page.
    pub(crate) fn page<R, T, K: Key>(
        self,
        mut rows: Vec<R>,
        limit: Limit,
        key: impl Fn(&R) -> K,
        show: impl FnMut(R) -> T,
    ) -> Answer<Page<T>> {
        let limit = usize::try_from(limit.0).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_last| more).map(|last| key(last).to_string());
        let link = next.as_deref().and_then(|next| link(&self.uri, next));
        let items = rows.into_iter().map(show).collect();
        let body = Page { at: (&self.cursor).into(), items, next };
        Answer { tag: self.tag, link, body }
    }
}

impl Now {
    /// Which market.
    pub(crate) fn market(&self) -> &Market {
        &self.market
    }

    /// The connection that all is read on.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        self.reading.conn()
    }

    /// The block after which all is read.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.reading.cursor
    }

    /// Answers with one thing.
    pub(crate) fn one<T>(self, item: impl Into<T>) -> Answer<One<T>> {
        let body = One { at: (&self.reading.cursor).into(), item: item.into() };
        Answer { tag: self.tagged.tag, link: None, body }
    }

    /// See [`Tagged::page`].
    pub(crate) fn page<R, T, K: Key>(
        self,
        rows: Vec<R>,
        limit: Limit,
        key: impl Fn(&R) -> K,
        show: impl FnMut(R) -> T,
    ) -> Answer<Page<T>> {
        self.tagged.page(rows, limit, key, show)
    }
}

/// The header that leads to the next page (RFC 8288): the same path, wherever a reverse proxy shows it.
fn link(uri: &Uri, next: &str) -> Option<HeaderValue> {
    let others = uri.query().unwrap_or_default().split('&');
    let others = others.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: String = others.map(|pair| format!("{pair}&")).collect();
    HeaderValue::try_from(format!("<?{query}cursor={next}>; rel=\"next\"")).ok()
}

impl<S: Sync> FromRequestParts<S> for Head {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self { uri: parts.uri.clone(), headers: parts.headers.clone() })
    }
}

impl FromRequestParts<Arc<Market>> for Now {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, market: &Arc<Market>) -> Result<Self, Response> {
        let Ok(head) = Head::from_request_parts(parts, market).await;
        let reading = market.read().await.map_err(IntoResponse::into_response)?;
        let tagged = head.at(&reading.cursor)?;
        Ok(Self { market: Arc::clone(market), reading, tagged })
    }
}

/// What tells two answers apart: block, question and program; and how the answer is packed, since a strong tag promises
/// the same bytes.
fn tag(cursor: &Cursor, asked: &Head) -> HeaderValue {
    let mut hash = Keccak256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(cursor.hash);
    hash.update(cursor.finalized.to_be_bytes());
    hash.update(cursor.payments);
    for packing in asked.headers.get_all(ACCEPT_ENCODING) {
        hash.update(packing);
        hash.update([0]);
    }
    hash.update([0]);
    hash.update(asked.uri.path());
    hash.update([0]);
    hash.update(asked.uri.query().unwrap_or_default());
    let hash = hash.finalize();
    // Hexadecimal digits in quotes are a header's value.
    HeaderValue::try_from(format!("\"{}\"", hex::encode(&hash[..16])))
        .unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the client says that it has the answer with this tag.
fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let theirs = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let theirs = theirs.flat_map(|value| value.split(',')).map(str::trim);
    theirs.map(|one| one.strip_prefix("W/").unwrap_or(one)).any(|one| one == "*" || one == tag)
}

fn head(tag: HeaderValue) -> [(HeaderName, HeaderValue); 3] {
    [
        (ETAG, tag),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (VARY, HeaderValue::from_static("accept-encoding")),
    ]
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = (head(self.tag), Json(self.body)).into_response();
        if let Some(link) = self.link {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_what_was_asked() {
        let check = |uri: &str, wanted: &str| {
            let link = link(&uri.parse().unwrap(), "7").unwrap();
            assert_eq!(link, format!("<{wanted}>; rel=\"next\"").as_str(), "{uri}");
        };
        check("/v1/leases", "?cursor=7");
        check("/v1/leases?cursor=9", "?cursor=7");
        check("/v1/leases?limit=2&cursor=9&state=open", "?limit=2&state=open&cursor=7");
    }

    #[test]
    fn tags_are_compared_as_http_has_it() {
        let tag = HeaderValue::from_static("\"a\"");
        let check = |theirs: &[&'static str], wanted: bool| {
            let values = theirs.iter().map(|one| (IF_NONE_MATCH, HeaderValue::from_static(one)));
            assert_eq!(has(&values.collect(), &tag), wanted, "{theirs:?}");
        };
        check(&[], false);
        check(&["\"a\""], true);
        check(&["\"b\", W/\"a\""], true);
        check(&["*"], true);
        check(&["a"], false);
        check(&["\"b\"", "\"c\""], false);
    }
}
