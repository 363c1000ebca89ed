//! What a provider reads about itself: what it collected, and who challenged it.

use alloy::{
    primitives::{Address, B256, U256},
    providers::Provider as _,
    rpc::types::{Filter, Log},
    sol_types::SolEvent as _,
};

use super::{Chain, ReadError};
use crate::abi::{Payments, Sla};

/// A payee's earnings that left Payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// The lease whose stream it was; nothing if another operator's.
    pub lease: Option<u64>,
    /// In token base units.
    pub amount: u128,
    /// When, in Unix seconds.
    pub time: u64,
}

/// What happened to a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeStep {
    /// It was made, and is to be answered by this second.
    Made {
        /// Who asks.
        challenger: Address,
        /// Until when.
        deadline: u64,
    },
    /// The provider answered.
    Answered,
    /// Its time is over.
    Resolved {
        /// Whether the lease had to be answered for and was not.
        dark: bool,
        /// What was taken out of the coverage, in token base units.
        compensation: u128,
    },
}

impl Chain {
    /// What was collected for `payee` from block `from` to `to`, by whomever.
    ///
    /// # Errors
    /// When the logs cannot be read; then none of them is returned.
    pub async fn collections(
        &self,
        payee: Address,
        from: u64,
        to: u64,
    ) -> Result<Vec<Collection>, ReadError> {
        let filter = Filter::new()
            .address(self.deployment.payments)
            .event_signature(Payments::Collected::SIGNATURE_HASH)
            .topic2(payee.into_word());
        let mut all = Vec::new();
        // One transaction collects from many streams.
        let mut known = (0, 0);
        for log in self.logs(filter, from, to).await? {
            let event = log.log_decode::<Payments::Collected>()?.inner.data;
            let block = log.block_number.unwrap_or_default();
            if known.0 != block {
                known = (block, self.time_of(&log).await?);
            }
            let lease = event.id.wrapping_to::<u64>();
            all.push(Collection {
                lease: (self.stream_of(lease) == event.id).then_some(lease),
                amount: event.amount.saturating_to(),
                time: known.1,
            });
        }
        Ok(all)
    }

    /// What happened to challenges of `leases` from block `from` to `to`, in its order, each with its lease and block.
    ///
    /// # Errors
    /// When the logs cannot be read; then none of them is returned.
    pub async fn challenge_steps(
        &self,
        leases: &[u64],
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, u64, ChallengeStep)>, ReadError> {
        let topics: Vec<B256> = leases.iter().map(|lease| U256::from(*lease).into()).collect();
        let signatures = [
            Sla::Challenged::SIGNATURE_HASH,
            Sla::Answered::SIGNATURE_HASH,
            Sla::Resolved::SIGNATURE_HASH,
        ];
        let mut steps = Vec::new();
        for topics in topics.chunks(super::MAX_LEASES_PER_CALL) {
            let filter = Filter::new()
                .address(self.deployment.sla)
                .event_signature(signatures.to_vec())
                .topic1(topics.to_vec());
            for log in self.logs(filter, from, to).await? {
                steps.push(step(&log)?);
            }
        }
        Ok(steps)
    }

    /// The time of a log's block, which many nodes send along.
    async fn time_of(&self, log: &Log) -> Result<u64, ReadError> {
        if let Some(time) = log.block_timestamp {
            return Ok(time);
        }
        let number = log.block_number.unwrap_or_default();
        let block = self.provider.get_block_by_number(number.into()).await?;
        Ok(block.map_or(0, |block| block.header.timestamp))
    }
}

fn step(log: &Log) -> Result<(u64, u64, ChallengeStep), ReadError> {
    let block = log.block_number.unwrap_or_default();
    let (lease, step) = match log.topic0() {
        Some(&Sla::Challenged::SIGNATURE_HASH) => {
            let event = log.log_decode::<Sla::Challenged>()?.inner.data;
            let (challenger, deadline) = (event.challenger, event.deadline.to());
            (event.lease, ChallengeStep::Made { challenger, deadline })
        }
        Some(&Sla::Answered::SIGNATURE_HASH) => {
            (log.log_decode::<Sla::Answered>()?.inner.data.lease, ChallengeStep::Answered)
        }
        _resolved => {
            let event = log.log_decode::<Sla::Resolved>()?.inner.data;
            let compensation = event.compensation.saturating_to();
            (event.lease, ChallengeStep::Resolved { dark: event.dark, compensation })
        }
    };
    Ok((lease, block, step))
}
