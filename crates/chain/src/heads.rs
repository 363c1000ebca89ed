//! The head of the chain, as it moves.

use std::time::Duration;

use alloy::{eips::BlockNumberOrTag, primitives::B256, providers::Provider};
use tokio::sync::watch;

use crate::{Chain, ReadError};

/// The latest block of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash, which changes when the chain reorganises at the same height.
    pub hash: B256,
    /// Its time, in Unix seconds.
    pub timestamp: u64,
}

impl Chain {
    /// The latest block.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn head(&self) -> Result<Head, ReadError> {
        let block = self.provider().get_block_by_number(BlockNumberOrTag::Latest).await?;
        Ok(block.map_or_else(Head::default, |block| Head {
            number: block.header.number,
            hash: block.header.hash,
            timestamp: block.header.timestamp,
        }))
    }
}

/// Looks for a new head every `interval` and tells whoever listens. While the node does not answer nothing is told;
/// it runs until nobody listens any more.
pub async fn heads(chain: Chain, interval: Duration, tell: watch::Sender<Head>) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut answering = true;
    loop {
        tokio::select! {
            () = tell.closed() => return,
            _ = tick.tick() => (),
        }
        match chain.head().await {
            Ok(head) => {
                if !answering {
                    tracing::info!(head.number, "the node answers again at block {}", head.number);
                }
                answering = true;
                tell.send_if_modified(|known| std::mem::replace(known, head) != head);
            }
            Err(err) if answering => {
                answering = false;
                tracing::warn!(error = %err, "the node does not answer; nothing is changed until it does");
            }
            Err(_) => (),
        }
    }
}
