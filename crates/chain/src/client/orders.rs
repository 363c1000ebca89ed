//! What a provider that bids reads: the orders that were placed, and how they stand.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    providers::Provider as _,
    rpc::types::{Filter, Log},
    sol_types::{SolCall, SolEvent as _},
};

use super::{Chain, Placement, ReadError};
use crate::abi::{
    Auction,
    IAuction::{Order, OrderView},
    Registry,
};

/// The most orders, or vouches, that one call reads.
const MAX_PER_CALL: usize = 100;

/// How an order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderStanding {
    /// What the contract keeps of it.
    pub view: OrderView,
    /// The most that the next bid may be, in units per second.
    pub next_rate: u128,
}

impl Chain {
    /// The orders that were placed from block `from` to `to`.
    ///
    /// # Errors
    /// When the logs cannot be read; then none of them is returned.
    pub async fn placed(&self, from: u64, to: u64) -> Result<Vec<Placement>, ReadError> {
        let filter = Filter::new()
            .address(self.deployment.auction)
            .event_signature(Auction::Placed::SIGNATURE_HASH);
        let placement = |log: Log| {
            let event = log.log_decode::<Auction::Placed>()?.inner.data;
            let block = log.block_number.unwrap_or_default();
            Ok(Placement { id: event.id, payer: event.payer, order: event.order, block })
        };
        self.logs(filter, from, to).await?.into_iter().map(placement).collect()
    }

    /// How orders stand, in the order of `ids`, all of a call as of one block.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn order_standings(&self, ids: &[u64]) -> Result<Vec<OrderStanding>, ReadError> {
        let mut standings = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_PER_CALL) {
            let calls = ids.iter().flat_map(|id| {
                let view: Bytes = Auction::orderOfCall { id: *id }.abi_encode().into();
                [view, Auction::nextRateCall { id: *id }.abi_encode().into()]
            });
            let answers = self.auction().multicall(calls.collect()).call().await?;
            for pair in answers.chunks_exact(2) {
                let [view, next] = pair else { continue };
                standings.push(OrderStanding {
                    view: Auction::orderOfCall::abi_decode_returns(view)?,
                    next_rate: Auction::nextRateCall::abi_decode_returns(next)?,
                });
            }
        }
        Ok(standings)
    }

    /// The order that was awarded to make a lease, which was opened in `block`; nothing where it was opened out of a quote.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn order_of(&self, lease: u64, block: u64) -> Result<Option<Order>, ReadError> {
        let head = self.provider.get_block_number().await?;
        let of = |filter: Filter| filter.topic3(U256::from(lease));
        let auction = self.deployment.auction;
        let awarded = self.events_between::<Auction::Awarded>(auction, of, (block, head)).await?;
        let Some((awarded, _log)) = awarded.into_iter().next_back() else { return Ok(None) };
        let placed = self.placements(Some(awarded.id), None).await?.into_iter().next_back();
        Ok(placed.map(|placed| placed.order))
    }

    /// Until when each of `vouches`, an auditor and an attribute, holds for `provider`; zero where it never did.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn vouched_until(
        &self,
        provider: Address,
        vouches: &[(Address, B256)],
    ) -> Result<Vec<u64>, ReadError> {
        let mut until = Vec::with_capacity(vouches.len());
        for vouches in vouches.chunks(MAX_PER_CALL) {
            let calls = vouches.iter().map(|(auditor, attribute)| {
                let (auditor, attribute) = (*auditor, *attribute);
                Registry::vouchedUntilCall { provider, auditor, attribute }.abi_encode().into()
            });
            let answers = self.registry().multicall(calls.collect()).call().await?;
            for answer in &answers {
                until.push(Registry::vouchedUntilCall::abi_decode_returns(answer)?.to());
            }
        }
        Ok(until)
    }
}
