//! What pages need beside themselves, each under an address with the hash of its content, so that a browser keeps it for
//! good.

use std::sync::LazyLock;

use alloy_primitives::{hex, keccak256};
use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};

use super::Fault;
use crate::Problem;

/// A file of the page's.
#[derive(Debug)]
pub(super) struct Asset {
    path: String,
    hash: String,
    kind: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, ending: &str, kind: &'static str, content: &'static str) -> Self {
        let hash = hex::encode(&keccak256(content)[..8]);
        let path = format!("/page/{name}-{hash}.{ending}");
        Self { path, hash, kind, content }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The hash of its content, or what is enough of it.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let style =
        concat!(include_str!("../../../../assets/base.css"), include_str!("assets/style.css"));
    Asset::new("style", "css", "text/css", style)
});
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));
pub(super) static LIVE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("live", "js", "text/javascript", include_str!("../../../../assets/live.js"))
});
pub(super) static WALLET: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("wallet", "js", "text/javascript", include_str!("assets/wallet.js"))
});

pub(super) async fn one(Path(name): Path<String>) -> Result<Response, Fault> {
    let all: [&Asset; 4] = [&STYLE, &ICON, &LIVE, &WALLET];
    let asset = all.into_iter().find(|asset| asset.path.strip_prefix("/page/") == Some(&name));
    let asset = asset.ok_or_else(|| {
        Problem::missing("no such file: the page that names it is of another version; load it anew")
    })?;
    let kind = format!("{}; charset=utf-8", asset.kind);
    let headers = [
        (header::CONTENT_TYPE, kind.as_str()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.content).into_response())
}
