//! What can be read of providers by whoever looks for one. Each read is of many at once, as there may be many.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{Address, B256, Bytes},
    sol_types::SolCall,
};

use super::{Chain, ReadError};
use crate::abi::{
    IRegistry::ProviderView,
    IStaking::Bond,
    Registry::{self, listingOfCall},
    Staking::{bondOfCall, isLockerCall},
};

/// The most providers that one call reads: a listing takes up to 60,000 gas, and nodes allow calls some 30 million.
const MAX_PROVIDERS_PER_CALL: usize = 200;

/// Who vouches, and for which attribute.
pub type Vouches = BTreeSet<(B256, Address)>;

impl Chain {
    /// Everybody who ever listed itself as a provider.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn ever_listed(&self) -> Result<Vec<Address>, ReadError> {
        let all = |filter| filter;
        let listed = self.events::<Registry::Listed>(self.deployment().registry, all).await?;
        let providers: BTreeSet<_> =
            listed.into_iter().map(|(event, _log)| event.provider).collect();
        Ok(providers.into_iter().collect())
    }

    /// The listings of `providers`, in their order. One that never listed itself has an empty one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn listings(&self, providers: &[Address]) -> Result<Vec<ProviderView>, ReadError> {
        let mut views = Vec::with_capacity(providers.len());
        for providers in providers.chunks(MAX_PROVIDERS_PER_CALL) {
            let calls = providers.iter().map(|provider| listingOfCall { who: *provider });
            let calls: Vec<Bytes> = calls.map(|call| call.abi_encode().into()).collect();
            for answer in self.registry().multicall(calls).call().await? {
                views.push(listingOfCall::abi_decode_returns(&answer)?);
            }
        }
        Ok(views)
    }

    /// All providers that are listed.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn providers(&self) -> Result<BTreeMap<Address, ProviderView>, ReadError> {
        let known = self.ever_listed().await?;
        let views = self.listings(&known).await?;
        Ok(known.into_iter().zip(views).filter(|(_provider, view)| view.listed).collect())
    }

    /// The bonds of `providers`, in their order, each with whether Leases may lock parts of it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn bonds(&self, providers: &[Address]) -> Result<Vec<(Bond, bool)>, ReadError> {
        let mut bonds = Vec::with_capacity(providers.len());
        let locker = self.deployment().leases;
        for providers in providers.chunks(MAX_PROVIDERS_PER_CALL) {
            let calls = providers.iter().flat_map(|bonder| {
                let bond = bondOfCall { bonder: *bonder }.abi_encode();
                [bond, isLockerCall { bonder: *bonder, locker }.abi_encode()]
            });
            let calls: Vec<Bytes> = calls.map(Bytes::from).collect();
            for answer in self.staking().multicall(calls).call().await?.chunks(2) {
                let [bond, locks] = answer else { continue };
                let bond = bondOfCall::abi_decode_returns(bond)?;
                bonds.push((bond, isLockerCall::abi_decode_returns(locks)?));
            }
        }
        Ok(bonds)
    }

    /// Who vouches at `now`, a Unix time, for one of `attributes`, by provider.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn vouches(
        &self,
        attributes: Vec<B256>,
        now: u64,
    ) -> Result<BTreeMap<Address, Vouches>, ReadError> {
        if attributes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut vouches: BTreeMap<Address, Vouches> = BTreeMap::new();
        let registry = self.deployment().registry;
        let made = self.events::<Registry::Vouched>(registry, |filter| filter.topic3(attributes));
        for (event, _log) in made.await? {
            let of = vouches.entry(event.provider).or_default();
            let vouch = (event.attribute, event.auditor);
            match event.expiry.to::<u64>() >= now {
                true => _ = of.insert(vouch),
                // The last word counts.
                false => _ = of.remove(&vouch),
            }
        }
        Ok(vouches)
    }
}
