//! A provider's listing in the Registry, and what it lets Leases do with its bond.

use alloy::primitives::B256;
use chain::{
    ReadError, SendError, Sender,
    abi::{
        IRegistry::{Listing, Prices},
        Registry, Staking,
    },
};

use crate::{Config, Keys};

/// A provider that could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The chain could not be read.
    #[error("what is listed could not be read")]
    Read(#[from] ReadError),
    /// A transaction did not go through.
    #[error("the listing could not be sent")]
    Send(#[from] SendError),
}

/// What had to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registration {
    /// The listing is new, or was changed.
    pub listed: bool,
    /// Leases may now lock coverage out of the bond.
    pub locker: bool,
}

/// Has `config` ask for what was set later than its prices, if anything was.
pub fn adopt_prices(config: &mut Config) {
    config.prices = crate::house::prices::effective(&config.data, config.prices);
}

/// What a provider says of itself.
pub fn listing(config: &Config, keys: &Keys) -> Listing {
    Listing {
        endpoint: config.endpoint.clone(),
        region: config.region.clone(),
        prices: Prices {
            cpu: config.prices.cpu.0,
            memoryMiB: config.prices.memory.0,
            storageMiB: config.prices.storage.0,
        },
        tlsKey: keys.tls_pin(),
        sealKey: keys.seal_key().0.into(),
        measurement: B256::ZERO,
    }
}

/// Lists the provider as its configuration says, and lets Leases lock coverage. What is so already costs nothing.
///
/// # Errors
/// When the chain does not answer or refuses.
pub async fn register(
    sender: &Sender,
    config: &Config,
    keys: &Keys,
) -> Result<Registration, RegisterError> {
    let (chain, who) = (sender.chain(), sender.address());
    let deployment = chain.deployment();
    let read = |err: alloy::contract::Error| RegisterError::Read(err.into());
    let mut done = Registration::default();
    let locker = chain.staking().isLocker(who, deployment.leases).call().await.map_err(read)?;
    if !locker {
        let call = Staking::setLockerCall { locker: deployment.leases, allowed: true };
        sender.send(deployment.staking, &call).await?;
        done.locker = true;
    }
    let wanted = listing(config, keys);
    let listed = chain.registry().listingOf(who).call().await.map_err(read)?;
    if !listed.listed || listed.listing != wanted {
        sender.send(deployment.registry, &Registry::listCall { listing: wanted }).await?;
        done.listed = true;
    }
    Ok(done)
}
