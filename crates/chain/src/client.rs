//! A deployment of the contracts on a chain, and what can be read of it.

mod history;
mod listed;
mod orders;
mod provider;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use alloy::{
    primitives::{Address, B256, ChainId, U256, Uint, keccak256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::{Filter, Log},
    sol_types::{SolEvent, SolValue},
    transports::{RpcError, TransportErrorKind, http::reqwest::Url},
};
use protocol::{amount::Token, quote::Quote};
use serde::{Deserialize, Serialize};

pub use self::{
    history::History,
    listed::Vouches,
    orders::OrderStanding,
    provider::{ChallengeStep, Collection},
};
use crate::abi::{
    Apps, Auction, Erc20, IAuction, ILeases, IRegistry, Leases, Payments, Registry, Sla, Staking,
    apps::IApps,
};

/// The most blocks that one log query spans; nodes refuse more, or answer late.
const MAX_BLOCKS_PER_QUERY: u64 = 10_000;

/// The most leases that one call reads.
const MAX_LEASES_PER_CALL: usize = 200;

/// Where the contracts are: what `script/Deploy.s.sol` wrote to `deployments/<chain id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deployment {
    /// The chain that they are on.
    pub chain_id: ChainId,
    /// A block before which none of them emitted anything.
    pub block: u64,
    /// The settlement token.
    pub token: Address,
    /// Payments.
    pub payments: Address,
    /// Staking.
    pub staking: Address,
    /// Registry.
    pub registry: Address,
    /// Leases.
    pub leases: Address,
    /// Sla.
    pub sla: Address,
    /// Auction.
    pub auction: Address,
    /// Apps.
    pub apps: Address,
}

/// The chain could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The deployment file could not be read.
    #[error("the deployment file {0} cannot be read")]
    File(String, #[source] std::io::Error),
    /// The deployment file is not one.
    #[error("the deployment file {0} is not one that script/Deploy.s.sol wrote")]
    Format(String, #[source] serde_json::Error),
    /// The RPC address is not a URL.
    #[error("{0:?} is not the URL of a JSON-RPC node")]
    Url(String),
    /// The node did not answer.
    #[error("the node at {0} does not answer")]
    Rpc(String, #[source] RpcError<TransportErrorKind>),
    /// The node is on another chain.
    #[error("the node at {url} is on chain {got}, the deployment on chain {wanted}")]
    WrongChain {
        /// The node.
        url: String,
        /// Its chain.
        got: ChainId,
        /// The deployment's chain.
        wanted: ChainId,
    },
    /// There is no contract where the deployment says.
    #[error("there is no contract at {0} ({1}); was the chain started anew?")]
    NoContract(Address, &'static str),
}

/// A read that failed; nothing follows from it about what is on chain.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A call failed.
    #[error("the chain could not be read")]
    Call(#[from] alloy::contract::Error),
    /// A request failed.
    #[error("the node did not answer")]
    Rpc(#[from] RpcError<TransportErrorKind>),
    /// A log that is not what its topic says.
    #[error("the node returned a log that is none of ours")]
    Decode(#[from] alloy::sol_types::Error),
}

/// A chain with the contracts on it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chain {
    provider: DynProvider,
    deployment: Deployment,
}

/// An `Opened` event of Leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The lease.
    pub lease: u64,
    /// The account that pays.
    pub account: B256,
    /// The slot it fills.
    pub slot: u32,
    /// The last second at which it may be activated.
    pub start_by: u64,
    /// The quote it was opened with.
    pub quote: Quote,
    /// The block it is in.
    pub block: u64,
    /// The transaction it is in.
    pub tx: B256,
}

/// An `Amended` event of Leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// The lease.
    pub lease: u64,
    /// The quote under which it goes on.
    pub quote: Quote,
    /// The block it is in.
    pub block: u64,
}

/// An order, as it was placed: what the contract keeps of it is a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The order.
    pub id: u64,
    /// Who placed it.
    pub payer: Address,
    /// What is asked for.
    pub order: IAuction::Order,
    /// The block it is in.
    pub block: u64,
}

/// An app, as it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The app.
    pub id: u64,
    /// What was registered.
    pub app: IApps::Registration,
}

/// The account of `owner` under `salt`.
pub fn account_id(owner: Address, salt: B256) -> B256 {
    keccak256((owner, salt).abi_encode())
}

impl Deployment {
    /// Reads a deployment file.
    ///
    /// # Errors
    /// When it cannot be read or is not one.
    pub fn read(path: &Path) -> Result<Self, ConnectError> {
        let name = path.display().to_string();
        let text =
            std::fs::read(path).map_err(|source| ConnectError::File(name.clone(), source))?;
        serde_json::from_slice(&text).map_err(|source| ConnectError::Format(name, source))
    }
}

impl Chain {
    /// Connects to the node at `url` and makes sure that the contracts are there.
    ///
    /// # Errors
    /// When the node does not answer, is on another chain, or lacks the contracts.
    pub async fn connect(url: &str, deployment: Deployment) -> Result<Self, ConnectError> {
        let parsed: Url = url.parse().map_err(|_err| ConnectError::Url(url.to_owned()))?;
        let provider =
            ProviderBuilder::new().disable_recommended_fillers().connect_http(parsed).erased();
        let rpc = |source| ConnectError::Rpc(url.to_owned(), source);
        let got = provider.get_chain_id().await.map_err(rpc)?;
        let wanted = deployment.chain_id;
        if got != wanted {
            return Err(ConnectError::WrongChain { url: url.to_owned(), got, wanted });
        }
        for (address, name) in [
            (deployment.token, "token"),
            (deployment.payments, "Payments"),
            (deployment.staking, "Staking"),
            (deployment.registry, "Registry"),
            (deployment.leases, "Leases"),
            (deployment.sla, "Sla"),
            (deployment.auction, "Auction"),
            (deployment.apps, "Apps"),
        ] {
            if provider.get_code_at(address).await.map_err(rpc)?.is_empty() {
                return Err(ConnectError::NoContract(address, name));
            }
        }
        Ok(Self { provider, deployment })
    }

    /// The node.
    pub fn provider(&self) -> &DynProvider {
        &self.provider
    }

    /// Where the contracts are.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The chain's id.
    pub fn id(&self) -> ChainId {
        self.deployment.chain_id
    }

    /// The settlement token's contract.
    pub fn erc20(&self) -> Erc20::Erc20Instance<&DynProvider> {
        Erc20::new(self.deployment.token, &self.provider)
    }

    /// The Payments contract.
    pub fn payments(&self) -> Payments::PaymentsInstance<&DynProvider> {
        Payments::new(self.deployment.payments, &self.provider)
    }

    /// The Staking contract.
    pub fn staking(&self) -> Staking::StakingInstance<&DynProvider> {
        Staking::new(self.deployment.staking, &self.provider)
    }

    /// The Registry contract.
    pub fn registry(&self) -> Registry::RegistryInstance<&DynProvider> {
        Registry::new(self.deployment.registry, &self.provider)
    }

    /// The Leases contract.
    pub fn leases(&self) -> Leases::LeasesInstance<&DynProvider> {
        Leases::new(self.deployment.leases, &self.provider)
    }

    /// The Sla contract.
    pub fn sla(&self) -> Sla::SlaInstance<&DynProvider> {
        Sla::new(self.deployment.sla, &self.provider)
    }

    /// The Auction contract.
    pub fn auction(&self) -> Auction::AuctionInstance<&DynProvider> {
        Auction::new(self.deployment.auction, &self.provider)
    }

    /// The Apps contract.
    pub fn apps(&self) -> Apps::AppsInstance<&DynProvider> {
        Apps::new(self.deployment.apps, &self.provider)
    }

    /// The settlement token, as people see it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn token(&self) -> Result<Token, ReadError> {
        let token = self.erc20();
        let symbol = token.symbol().call().await?;
        let decimals = token.decimals().call().await?;
        Ok(Token { symbol, decimals })
    }

    /// The Payments stream that pays `lease`.
    pub fn stream_of(&self, lease: u64) -> U256 {
        let operator = U256::from_be_slice(self.deployment.leases.as_slice());
        (operator << 96) | U256::from(lease)
    }

    /// Leases as of block `block` (the latest for `None`), in the order of `ids`. A lease that is not there has
    /// the state `None`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn lease_views(
        &self,
        ids: &[u64],
        block: Option<u64>,
    ) -> Result<Vec<ILeases::LeaseView>, ReadError> {
        let mut views = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_LEASES_PER_CALL) {
            let contract = self.leases();
            let mut call = contract.leases(ids.to_vec());
            if let Some(block) = block {
                call = call.block(block.into());
            }
            views.extend(call.call().await?);
        }
        Ok(views)
    }

    /// The `Opened` events from block `from` to `to`, of one provider or account, or of all.
    ///
    /// # Errors
    /// When the logs cannot be read; then none of them is returned.
    pub async fn openings(
        &self,
        provider: Option<Address>,
        account: Option<B256>,
        from: u64,
        to: u64,
    ) -> Result<Vec<Opening>, ReadError> {
        let mut filter = Filter::new()
            .address(self.deployment.leases)
            .event_signature(Leases::Opened::SIGNATURE_HASH);
        if let Some(provider) = provider {
            filter = filter.topic2(provider.into_word());
        }
        if let Some(account) = account {
            filter = filter.topic3(account);
        }
        let logs = self.logs(filter, from, to).await?.into_iter();
        logs.map(|log| Ok(opening(log.log_decode::<Leases::Opened>()?.inner.data, &log))).collect()
    }

    /// The `Amended` events of one provider from block `from` to `to`.
    ///
    /// # Errors
    /// When the logs cannot be read; then none of them is returned.
    pub async fn amendments(
        &self,
        provider: Address,
        from: u64,
        to: u64,
    ) -> Result<Vec<Amendment>, ReadError> {
        let filter = Filter::new()
            .address(self.deployment.leases)
            .event_signature(Leases::Amended::SIGNATURE_HASH)
            .topic2(provider.into_word());
        let amendment = |log: Log| {
            let event = log.log_decode::<Leases::Amended>()?.inner.data;
            let block = log.block_number.unwrap_or_default();
            Ok(Amendment { lease: event.id, quote: event.quote.into(), block })
        };
        self.logs(filter, from, to).await?.into_iter().map(amendment).collect()
    }

    /// Why `lease` was closed and when (a block), if it was.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn closing(&self, lease: u64) -> Result<Option<(Leases::Closed, u64)>, ReadError> {
        let head = self.provider.get_block_number().await?;
        let filter = Filter::new()
            .address(self.deployment.leases)
            .event_signature(Leases::Closed::SIGNATURE_HASH)
            .topic1(U256::from(lease));
        let logs = self.logs(filter, self.deployment.block, head).await?;
        logs.into_iter()
            .next_back()
            .map(|log| {
                let block = log.block_number.unwrap_or_default();
                Ok((log.log_decode::<Leases::Closed>()?.inner.data, block))
            })
            .transpose()
    }

    /// The accounts of `owner` that were ever funded, each with its salt.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn accounts_of(&self, owner: Address) -> Result<BTreeMap<B256, B256>, ReadError> {
        let of = |filter: Filter| filter.topic2(owner.into_word());
        let funded = self.events::<Payments::Deposited>(self.deployment.payments, of).await?;
        Ok(funded.into_iter().map(|(event, _log)| (event.account, event.salt)).collect())
    }

    /// The quote under which a lease goes on, or went on last; nothing where there is no such lease.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn quote_of(&self, lease: u64) -> Result<Option<Quote>, ReadError> {
        if let Some(quote) = self.amended(&[lease]).await?.remove(&lease) {
            return Ok(Some(quote));
        }
        let of = |filter: Filter| filter.topic1(U256::from(lease));
        let opened = self.events::<Leases::Opened>(self.deployment.leases, of).await?;
        Ok(opened.into_iter().next_back().map(|(event, _log)| event.quote.into()))
    }

    /// The quotes under which those of `leases` that were amended go on, or went on last.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn amended(&self, leases: &[u64]) -> Result<BTreeMap<u64, Quote>, ReadError> {
        if leases.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<B256> = leases.iter().map(|id| U256::from(*id).into()).collect();
        let logs =
            self.events::<Leases::Amended>(self.deployment.leases, |filter| filter.topic1(ids));
        Ok(logs.await?.into_iter().map(|(event, _log)| (event.id, event.quote.into())).collect())
    }

    /// The orders that were ever placed: of one number, of one account, or all.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn placements(
        &self,
        id: Option<u64>,
        account: Option<B256>,
    ) -> Result<Vec<Placement>, ReadError> {
        let of = |mut filter: Filter| {
            if let Some(id) = id {
                filter = filter.topic1(U256::from(id));
            }
            if let Some(account) = account {
                filter = filter.topic2(account);
            }
            filter
        };
        let placed = self.events::<Auction::Placed>(self.deployment.auction, of).await?;
        let placement = |(event, log): (Auction::Placed, Log)| Placement {
            id: event.id,
            payer: event.payer,
            order: event.order,
            block: log.block_number.unwrap_or_default(),
        };
        Ok(placed.into_iter().map(placement).collect())
    }

    /// The challenges that were ever made of a lease.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn challenges(&self, lease: u64) -> Result<Vec<Sla::Challenged>, ReadError> {
        let of = |filter: Filter| filter.topic1(U256::from(lease));
        let made = self.events::<Sla::Challenged>(self.deployment.sla, of).await?;
        Ok(made.into_iter().map(|(event, _log)| event).collect())
    }

    /// The outages that committees found: of one lease, or all.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn reports(&self, lease: Option<u64>) -> Result<Vec<Sla::Reported>, ReadError> {
        let of = |filter: Filter| match lease {
            Some(lease) => filter.topic1(U256::from(lease)),
            None => filter,
        };
        let made = self.events::<Sla::Reported>(self.deployment.sla, of).await?;
        Ok(made.into_iter().map(|(event, _log)| event).collect())
    }

    /// The reports of whose rewards a watcher has taken its share.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn rewarded(&self, watcher: Address) -> Result<BTreeSet<B256>, ReadError> {
        let of = |filter: Filter| filter.topic2(watcher.into_word());
        let taken = self.events::<Sla::Rewarded>(self.deployment.sla, of).await?;
        Ok(taken.into_iter().map(|(event, _log)| event.report).collect())
    }

    /// The apps that were ever registered: of one number, of one owner, or all.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn registered(
        &self,
        id: Option<u64>,
        owner: Option<Address>,
    ) -> Result<Vec<Registered>, ReadError> {
        let of = |mut filter: Filter| {
            if let Some(id) = id {
                filter = filter.topic1(U256::from(id));
            }
            if let Some(owner) = owner {
                filter = filter.topic2(owner.into_word());
            }
            filter
        };
        let registered = self.events::<Apps::Registered>(self.deployment.apps, of).await?;
        let app =
            |(event, _log): (Apps::Registered, Log)| Registered { id: event.id, app: event.app };
        Ok(registered.into_iter().map(app).collect())
    }

    /// The lease that each replica of an app was last deployed as.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn replicas(&self, app: u64) -> Result<BTreeMap<u16, u64>, ReadError> {
        let of = |filter: Filter| filter.topic1(U256::from(app));
        let deployed = self.events::<Apps::Deployed>(self.deployment.apps, of).await?;
        Ok(deployed.into_iter().map(|(event, _log)| (event.replica, event.lease)).collect())
    }

    /// Who may lock parts of the bond of `bonder` now.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn lockers(&self, bonder: Address) -> Result<Vec<Address>, ReadError> {
        let of = |filter: Filter| filter.topic1(bonder.into_word());
        let set = self.events::<Staking::LockerSet>(self.deployment.staking, of).await?;
        let last: BTreeMap<Address, bool> =
            set.into_iter().map(|(event, _log)| (event.locker, event.allowed)).collect();
        Ok(last.into_iter().filter(|(_, allowed)| *allowed).map(|(locker, _)| locker).collect())
    }

    /// The parts of the bond of `bonder` that come free by themselves at some time, or could be freed: who locked each, and
    /// under which reference. What is freed already is among them.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn releases(
        &self,
        bonder: Address,
    ) -> Result<BTreeSet<(Address, Uint<96, 2>)>, ReadError> {
        let of = |filter: Filter| filter.topic1(bonder.into_word());
        let set = self.events::<Staking::ReleaseSet>(self.deployment.staking, of).await?;
        Ok(set.into_iter().map(|(event, _log)| (event.locker, event.r#ref)).collect())
    }

    /// What a provider listed last, also where it took that back since; nothing where it was never listed.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub async fn last_listing(
        &self,
        provider: Address,
    ) -> Result<Option<IRegistry::Listing>, ReadError> {
        let of = |filter: Filter| filter.topic1(provider.into_word());
        let listed = self.events::<Registry::Listed>(self.deployment.registry, of).await?;
        Ok(listed.into_iter().next_back().map(|(event, _log)| event.listing))
    }

    /// Every event of one kind that a contract emitted, of those that `of` leaves.
    async fn events<E: SolEvent>(
        &self,
        contract: Address,
        of: impl FnOnce(Filter) -> Filter,
    ) -> Result<Vec<(E, Log)>, ReadError> {
        let head = self.provider.get_block_number().await?;
        self.events_between(contract, of, (self.deployment.block, head)).await
    }

    /// The same of a range of blocks, both ends among them.
    async fn events_between<E: SolEvent>(
        &self,
        contract: Address,
        of: impl FnOnce(Filter) -> Filter,
        (from, to): (u64, u64),
    ) -> Result<Vec<(E, Log)>, ReadError> {
        let filter = of(Filter::new().address(contract).event_signature(E::SIGNATURE_HASH));
        let event = |log: Log| Ok((log.log_decode::<E>()?.inner.data, log));
        self.logs(filter, from, to).await?.into_iter().map(event).collect()
    }

    async fn logs(&self, filter: Filter, from: u64, to: u64) -> Result<Vec<Log>, ReadError> {
        let mut logs = Vec::new();
        let mut start = from;
        while start <= to {
            let end = to.min(start.saturating_add(MAX_BLOCKS_PER_QUERY - 1));
            let range = filter.clone().from_block(start).to_block(end);
            logs.extend(self.provider.get_logs(&range).await?);
            start = end + 1;
        }
        Ok(logs)
    }
}

/// What an event says of how a lease was opened.
fn opening(event: Leases::Opened, log: &Log) -> Opening {
    Opening {
        lease: event.id,
        account: event.account,
        slot: event.slot,
        start_by: event.startBy.to(),
        quote: event.quote.into(),
        block: log.block_number.unwrap_or_default(),
        tx: log.transaction_hash.unwrap_or_default(),
    }
}

/// A quote in the words of Apps, whose bindings have a type of their own for it.
pub fn apps_quote(q: Quote) -> crate::abi::apps::ILeases::Quote {
    crate::abi::apps::ILeases::Quote {
        provider: q.provider,
        account: q.account,
        lease: q.lease,
        pod: q.pod,
        rate: q.rate,
        lock: q.lock,
        coverage: q.coverage,
        grace: q.grace,
        full: q.full,
        response: q.response,
        notice: q.notice,
        startWithin: q.startWithin,
        expiry: q.expiry,
        version: q.version,
        nonce: q.nonce,
    }
}

impl From<ILeases::Quote> for Quote {
    fn from(q: ILeases::Quote) -> Self {
        Self {
            provider: q.provider,
            account: q.account,
            lease: q.lease,
            pod: q.pod,
            rate: q.rate,
            lock: q.lock,
            coverage: q.coverage,
            grace: q.grace,
            full: q.full,
            response: q.response,
            notice: q.notice,
            startWithin: q.startWithin,
            expiry: q.expiry,
            version: q.version,
            nonce: q.nonce,
        }
    }
}

impl From<Quote> for ILeases::Quote {
    fn from(q: Quote) -> Self {
        Self {
            provider: q.provider,
            account: q.account,
            lease: q.lease,
            pod: q.pod,
            rate: q.rate,
            lock: q.lock,
            coverage: q.coverage,
            grace: q.grace,
            full: q.full,
            response: q.response,
            notice: q.notice,
            startWithin: q.startWithin,
            expiry: q.expiry,
            version: q.version,
            nonce: q.nonce,
        }
    }
}
