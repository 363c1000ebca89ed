//! What events tell of a wallet's leases, so that what was read once is not read again.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{Address, B256, U256},
    rpc::types::Filter,
};
use protocol::quote::Quote;

use super::{Chain, Opening, ReadError};
use crate::abi::{Leases, Payments};

/// How many blocks may go away again: so many below the head, events are read anew each time.
const UNSETTLED: u64 = 100;

/// What events tell of a wallet's leases, up to a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The first block that is not read yet; zero before anything is.
    next: u64,
    /// Whose leases they are.
    accounts: BTreeSet<B256>,
    /// How leases were opened, by their numbers.
    pub openings: BTreeMap<u64, Opening>,
    /// The quotes under which those go on, or went on last, that were amended.
    pub amended: BTreeMap<u64, Quote>,
    /// Why those were closed that were: the contract's number of the reason.
    pub closed: BTreeMap<u64, u8>,
}

impl History {
    /// Leaves out leases that are closed for good; those that are open, or were closed just now, stay.
    pub fn forget(&mut self, leases: &BTreeSet<u64>) {
        self.openings.retain(|id, _| !(leases.contains(id) && self.closed.contains_key(id)));
        self.amended.retain(|id, _| self.openings.contains_key(id));
        self.closed.retain(|id, _| self.openings.contains_key(id));
    }
}

impl Chain {
    /// The leases of `accounts` and of all that `owner` ever funded, up to block `head`. What is settled by then is put into
    /// `known`, and what is there is not read again, unless there is an account more.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn history(
        &self,
        owner: Address,
        accounts: &BTreeSet<B256>,
        known: &mut History,
        head: u64,
    ) -> Result<History, ReadError> {
        let settled = head.saturating_sub(UNSETTLED);
        // Not with each block, so that one range is read and not two.
        if settled > known.next + UNSETTLED || known.next == 0 {
            *known = self.further(owner, accounts, known, settled).await?;
        }
        let history = self.further(owner, accounts, known, head).await?;
        if history.accounts != known.accounts {
            *known = self.further(owner, &history.accounts, &History::default(), settled).await?;
        }
        Ok(history)
    }

    async fn further(
        &self,
        owner: Address,
        accounts: &BTreeSet<B256>,
        known: &History,
        to: u64,
    ) -> Result<History, ReadError> {
        let first = self.deployment.block;
        let mut from = known.next.max(first);
        let funded = self
            .events_between::<Payments::Deposited>(
                self.deployment.payments,
                |filter| filter.topic2(owner.into_word()),
                (from, to),
            )
            .await?;
        let mut accounts: BTreeSet<B256> = accounts.union(&known.accounts).copied().collect();
        accounts.extend(funded.into_iter().map(|(event, _log)| event.account));
        let mut history = known.clone();
        if accounts != known.accounts {
            // Nothing was read of it yet, however old its leases are.
            history = History { accounts, ..History::default() };
            from = first;
        }
        history.next = history.next.max(to + 1);
        if history.accounts.is_empty() || from > to {
            return Ok(history);
        }
        let whose: Vec<B256> = history.accounts.iter().copied().collect();
        let contract = self.deployment.leases;
        let of_accounts = |filter: Filter| filter.topic3(whose);
        for (event, log) in
            self.events_between::<Leases::Opened>(contract, of_accounts, (from, to)).await?
        {
            history.openings.insert(event.id, super::opening(event, &log));
        }
        // A lease that is closed stays as it is.
        let open = history.openings.keys().filter(|id| !history.closed.contains_key(id));
        let open: Vec<B256> = open.map(|id| U256::from(*id).into()).collect();
        if open.is_empty() {
            return Ok(history);
        }
        let of_open = |filter: Filter| filter.topic1(open.clone());
        for (event, _log) in
            self.events_between::<Leases::Amended>(contract, of_open, (from, to)).await?
        {
            history.amended.insert(event.id, event.quote.into());
        }
        for (event, _log) in
            self.events_between::<Leases::Closed>(contract, of_open, (from, to)).await?
        {
            history.closed.insert(event.id, event.reason);
        }
        Ok(history)
    }
}
