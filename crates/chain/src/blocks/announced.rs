//! New heads as nodes announce them over WebSocket (`eth_subscribe`, `newHeads`).
//!
//! What is announced is not read: it only says when to look. The worst that a node gains by announcing too much or too little
//! is that the head is looked for as fast as it can be, or as often as without it.

use std::{sync::Arc, time::Duration};

use alloy::{
    providers::{Provider as _, ProviderBuilder, WsConnect},
    transports::TransportError,
};
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Notify;

/// How long to wait before a node that failed is asked again.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells of each head that is announced, and subscribes anew whenever the connection is lost; it does not end.
pub(super) async fn tell(url: Url, heads: Arc<Notify>) {
    // Addresses may hold a key.
    let name = url.origin().ascii_serialization();
    let mut quiet = false;
    loop {
        if let Err(err) = subscribed(&url, &name, &heads, &mut quiet).await
            && !quiet
        {
            tracing::warn!(
                "{name} announces no heads, which are looked for without: {}",
                plain(&err, &url)
            );
            quiet = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells of heads until the connection is lost.
async fn subscribed(
    url: &Url,
    name: &str,
    heads: &Notify,
    quiet: &mut bool,
) -> Result<(), TransportError> {
    // Whoever reconnects has to subscribe again and be told of it: that is `tell`.
    let connect = WsConnect::new(url.as_str()).with_max_retries(0);
    let provider = ProviderBuilder::new().disable_recommended_fillers().connect_ws(connect).await?;
    let mut announced = provider.subscribe::<_, Value>(("newHeads",)).await?;
    tracing::info!("{name} announces heads");
    *quiet = false;
    // One that came while nobody listened is announced by the next one.
    while announced.recv_any().await.is_ok() {
        heads.notify_one();
    }
    tracing::warn!("{name} announces no heads any more, which are looked for without");
    *quiet = true;
    Ok(())
}

/// An error without the address.
fn plain(err: &TransportError, url: &Url) -> String {
    err.to_string().replace(url.as_str(), "the node")
}
