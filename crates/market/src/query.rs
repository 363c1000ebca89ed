//! What may be asked: parameters of paths and queries, each checked before the database hears of it.

use axum::{
    extract::{FromRequestParts, Path, Query, rejection::PathRejection},
    http::request::Parts,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error};

use crate::{
    Problem,
    view::{Key, key, not_a, number},
};

/// How many rows a page has if nobody says otherwise.
const DEFAULT: u32 = 50;

/// How many rows a page has at most.
const MOST: u32 = 200;

/// How many rows a page may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(pub(crate) u32);

impl Limit {
    /// How many rows are read: one more, which tells whether there is another page.
    pub(crate) fn rows(self) -> u32 {
        self.0 + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let limit = number(&text).and_then(|limit| u32::try_from(limit).ok());
        let limit = limit.filter(|limit| (1..=MOST).contains(limit)).map(Self);
        limit.ok_or_else(|| D::Error::custom(format!("a page has 1 to {MOST} rows")))
    }
}

/// Where a page begins.
pub(crate) fn cursor<'de, K: Key, D: Deserializer<'de>>(from: D) -> Result<Option<K>, D::Error> {
    key(from).map(Some)
}

/// Queries for pages: what rows are wanted, and which of them.
macro_rules! queries {
    ($(
        $(#[$doc:meta])*
        $name:ident by $key:ty { $($(#[$about:meta])* $field:ident: $kind:ty,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            $($(#[$about])* pub(crate) $field: Option<$kind>,)*
            /// How many rows there are on a page.
            #[serde(default)]
            #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
            pub(crate) limit: $crate::query::Limit,
            /// Where the page begins: `next` of the page before.
            #[serde(default, deserialize_with = "crate::query::cursor")]
            #[param(value_type = Option<String>)]
            pub(crate) cursor: Option<$key>,
        }
    )*};
}
pub(crate) use queries;

/// A switch that is on if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
pub(crate) enum On {
    /// It is on.
    #[serde(rename = "true")]
    True,
}

/// A query without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What the query says.
#[derive(Debug)]
pub(crate) struct Asked<Q>(pub(crate) Q);

impl<S: Sync, Q: DeserializeOwned> FromRequestParts<S> for Asked<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|err| {
            // What is left names the parameter and says what is wrong with it.
            let words = err.body_text();
            Problem::bad(words.trim_start_matches("Failed to deserialize query string: "))
        })
    }
}

/// The key that the path names.
#[derive(Debug)]
pub(crate) struct Named<K>(pub(crate) K);

impl<S: Send + Sync, K: Key> FromRequestParts<S> for Named<K> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|err: PathRejection| Problem::bad(err.body_text()))?;
        K::read(&text).map(Self).ok_or_else(|| Problem::bad(not_a::<K>(&text)))
    }
}

/// No index serves these parameters together.
pub(crate) fn together(combinations: &str) -> Problem {
    Problem::bad(format!(
        "these parameters do not go together; what can be asked for: {combinations}"
    ))
}
