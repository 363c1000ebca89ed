//! Quotes: what a pod costs here, signed, for a limited time.
//!
//! Any wallet that is signed in may ask, for an account of its own or one that it may act for (see `acts`). A quote promises
//! a price, not room: whoever opens a lease first has it, and the other one's lease is closed again at no cost. So asking
//! for many quotes keeps nobody else out.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use alloy::{
    primitives::{Address, U256, aliases::U24, aliases::U40},
    signers::SignerSync,
};
use chain::{Chain, ReadError, account_id};
use protocol::{
    amount::Amount,
    lease::State,
    pod::{DecodeError, Pod, PodHash},
    quote::Quote,
    resources::PriceOverflow,
};
use rand::RngCore;

use crate::{
    acts::{self, ActError, MayNot},
    certificates::{self, TlsError},
    config::Config,
    egress::TooMuch,
    engine::{EngineError, NoRuntime, NotInCluster},
    leases::Lease,
    pods::PodError,
    ports::PortsError,
    reconcile::Shared,
    sealed::pushed_encrypted,
    shown::pushed,
    wire::{QuoteRequest, QuoteResponse, SlaTerms},
};

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuoteError {
    #[error("the pod cannot be used")]
    Pod(#[from] DecodeError),
    #[error(transparent)]
    MayNot(MayNot),
    #[error("{needed} are needed and {free} are free here")]
    Full { needed: String, free: String },
    #[error("host {host} is served for lease {lease} already; choose another")]
    HostTaken { host: String, lease: u64 },
    #[error(transparent)]
    Ports(#[from] PortsError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("a coverage of {wanted} base units is wished for and {free} of the bond are free")]
    Coverage { wanted: Amount, free: Amount },
    #[error("sla: grace ({grace} s) has to be below full ({full} s)")]
    Sla { grace: u32, full: u32 },
    #[error("lease {0} is not an open lease of this account at this provider")]
    NotYours(u64),
    #[error(
        "volumes.{0}: the size of a volume stays as long as its lease: {1} now, {2} wished for"
    )]
    VolumeResized(String, String, String),
    #[error("services.{0}: what it writes cannot be bounded here ({1}); give it read_only: true")]
    Unbounded(String, String),
    #[error(transparent)]
    Egress(#[from] TooMuch),
    #[error(transparent)]
    Runtime(#[from] NoRuntime),
    #[error(transparent)]
    NotInCluster(#[from] NotInCluster),
    #[error("the provider is not listed at the moment; try again later")]
    NotListed,
    #[error("there is no offer: {0}")]
    Closed(String),
    #[error("there is no offer at the moment: {0}")]
    Pressure(String),
    #[error(transparent)]
    Price(#[from] PriceOverflow),
    #[error(transparent)]
    Store(#[from] PodError),
    #[error("what was pushed could not be written down; try again later")]
    Shown(#[source] io::Error),
    #[error("the chain does not answer; try again later")]
    Chain(#[source] ReadError),
    #[error("the engine does not answer; try again later")]
    Engine(#[from] EngineError),
    #[error("the quote could not be signed")]
    Sign(#[from] alloy::signers::Error),
}

impl From<ActError> for QuoteError {
    fn from(err: ActError) -> Self {
        match err {
            ActError::MayNot(may_not) => Self::MayNot(may_not),
            ActError::Chain(err) => Self::Chain(err),
        }
    }
}

impl QuoteError {
    /// Whether the fault is here, and the same request may do later.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::NotListed
                | Self::Store(_)
                | Self::Shown(_)
                | Self::Chain(_)
                | Self::Engine(_)
                | Self::Sign(_)
        )
    }

    /// Whether there is no room, rather than something wrong with the request.
    pub(crate) fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Full { .. }
                | Self::Coverage { .. }
                | Self::HostTaken { .. }
                | Self::Ports(_)
                | Self::Tls(_)
                | Self::Closed(_)
                | Self::Pressure(_)
        )
    }

    /// In a word, for the metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Pod(_) => "pod",
            Self::MayNot(_) | Self::NotYours(_) => "not-theirs",
            Self::Full { .. } => "full",
            Self::HostTaken { .. } => "host",
            Self::Ports(_) => "ports",
            Self::Tls(_) => "tls",
            Self::Coverage { .. } => "coverage",
            Self::Sla { .. } => "sla",
            Self::VolumeResized(..) => "volume",
            Self::Unbounded(..) => "unbounded",
            Self::Egress(_) => "egress",
            Self::Runtime(_) => "runtime",
            Self::NotInCluster(_) => "cluster",
            Self::NotListed => "not-listed",
            Self::Closed(_) => "closed",
            Self::Pressure(_) => "pressure",
            Self::Price(_) => "price",
            Self::Store(_) | Self::Shown(_) => "store",
            Self::Chain(_) => "chain",
            Self::Engine(_) => "engine",
            Self::Sign(_) => "signature",
        }
    }
}

/// Nonces nobody used before: a random word of Leases' bitmap, then its 256 bits one after the other, which costs the
/// publisher a quarter of the gas of a fresh word each time. Nothing has to be remembered between two runs.
#[derive(Debug)]
pub(crate) struct Nonces(Mutex<U256>);

impl Nonces {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Self::word()))
    }

    fn word() -> U256 {
        let mut bytes = [0_u8; 32];
        rand::rng().fill_bytes(&mut bytes[..31]);
        U256::from_be_bytes(bytes)
    }

    fn next(&self) -> U256 {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nonce = *next;
        *next += U256::from(1);
        if next.byte(0) == 0 {
            *next = Self::word();
        }
        nonce
    }
}

/// What quotes are made of, besides what the reconciler knows.
#[derive(Debug)]
pub(crate) struct Quoter {
    pub(crate) config: Config,
    pub(crate) nonces: Nonces,
}

impl Quoter {
    /// A quote for `wallet`, whose pod and secrets are kept until it expires.
    pub(crate) async fn quote(
        &self,
        shared: &Shared,
        wallet: Address,
        request: &QuoteRequest,
    ) -> Result<QuoteResponse, QuoteError> {
        shared.house.may_quote(request.lease != 0)?;
        let pod = Pod::decode(request.pod.as_bytes())?;
        let account = account_id(request.owner, request.salt);
        acts::may_quote(shared.sender.chain(), wallet, request, account, pod.hash()).await?;
        let demand = pod.demand(self.config.egress.included);
        let price = shared.house.prices.now().price(&demand)?;
        let sla = self.sla(request.sla)?;
        let snapshot = shared.seen.borrow().clone();
        let open = || {
            let leases = snapshot.leases.values();
            leases.filter(|lease| matches!(lease.state, State::Pending | State::Active))
        };
        let current = match request.lease {
            0 => None,
            id => Some(
                open()
                    .find(|lease| lease.key.lease == id && lease.account == account)
                    .ok_or(QuoteError::NotYours(id))?,
            ),
        };
        let others: Vec<&Lease> =
            open().filter(|lease| current.is_none_or(|c| c.key != lease.key)).collect();
        self.fits(shared, &pod, &others)?;
        shared.ports.fits(&pod, current.map(|current| current.key))?;
        certificates::fits(self.config.tls.as_ref(), &pod)?;
        shared.engine.suits(&pod)?;
        bounded(shared, &pod)?;
        shared.engine.abilities().suit(&pod)?;
        shared.engine.egress().allowed(pod.egress())?;
        if let Some(current) = current {
            keeps_volumes(shared, current.pod, &pod)?;
        }
        let chain = shared.sender.chain();
        self.covered(chain, shared.sender.address(), sla.coverage, current).await?;

        let version = chain.registry().versionOf(shared.sender.address()).call().await;
        let version = version.map_err(|err| QuoteError::Chain(err.into()))?;
        if version == 0 {
            return Err(QuoteError::NotListed);
        }
        let now = chain.head().await.map_err(QuoteError::Chain)?.timestamp;
        let terms = self.config.terms;
        let hash = pod.hash();
        let quote = Quote {
            provider: shared.sender.address(),
            account,
            lease: request.lease,
            pod: hash.0,
            rate: price.total.0,
            lock: terms.lock,
            coverage: sla.coverage.0,
            grace: U24::from(sla.grace),
            full: U24::from(sla.full),
            response: U24::from(terms.response),
            notice: U24::from(terms.notice),
            startWithin: U24::from(terms.start_within),
            expiry: U40::from(now + u64::from(terms.quote_life)),
            version,
            nonce: self.nonces.next(),
        };
        shared.pods.put(&pod, account, request.secrets.as_ref())?;
        let deployment = chain.deployment();
        let digest = quote.digest(deployment.chain_id, deployment.leases);
        let signature = shared.sender.signer().sign_hash_sync(&digest)?;
        Ok(QuoteResponse {
            signature: signature.as_bytes().to_vec().into(),
            quote,
            pod: hash,
            price,
            missing_images: missing_images(shared, wallet, request.owner, &pod).await?,
            attestation: "UNATTESTED".into(),
            volume_retention: self.config.keep.volumes.as_secs(),
        })
    }

    fn sla(&self, wished: SlaTerms) -> Result<SlaTerms, QuoteError> {
        let terms = self.config.terms;
        let or = |wish: u32, ours: u32| if wish == 0 { ours } else { wish };
        let (grace, full) = (or(wished.grace, terms.grace), or(wished.full, terms.full));
        let most = U24::MAX.to::<u32>();
        if grace >= full || full > most {
            return Err(QuoteError::Sla { grace, full });
        }
        if wished.coverage > terms.max_coverage {
            let (wanted, free) = (wished.coverage, terms.max_coverage);
            return Err(QuoteError::Coverage { wanted, free });
        }
        Ok(SlaTerms { coverage: wished.coverage, grace, full })
    }

    fn fits(&self, shared: &Shared, pod: &Pod, others: &[&Lease]) -> Result<(), QuoteError> {
        let (needed, free) = (pod.resources(), shared.free(others.iter().map(|other| other.pod)));
        if !needed.fits_in(&free) {
            return Err(QuoteError::Full { needed: needed.to_string(), free: free.to_string() });
        }
        for other in others {
            let Ok(theirs) = shared.pods.get(other.pod) else { continue };
            if let Some(host) =
                pod.ingress().keys().find(|host| theirs.ingress().contains_key(*host))
            {
                let (host, lease) = (host.to_string(), other.key.lease);
                return Err(QuoteError::HostTaken { host, lease });
            }
        }
        Ok(())
    }

    /// Whether the bond has room for the coverage; what backs the lease already counts.
    async fn covered(
        &self,
        chain: &Chain,
        provider: Address,
        wanted: Amount,
        current: Option<&Lease>,
    ) -> Result<(), QuoteError> {
        if wanted.0 == 0 {
            return Ok(());
        }
        let read = |err: alloy::contract::Error| QuoteError::Chain(err.into());
        let bond = chain.staking().bondOf(provider).call().await.map_err(read)?;
        let mut free = bond.bonded.saturating_sub(bond.locked);
        if let Some(lease) = current {
            let views = chain.lease_views(&[lease.key.lease], None).await;
            let views = views.map_err(QuoteError::Chain)?;
            free = free.saturating_add(views.first().map_or(0, |view| view.coverage));
        }
        match wanted.0 <= free {
            true => Ok(()),
            false => Err(QuoteError::Coverage { wanted, free: Amount(free) }),
        }
    }
}

/// Whether what the services write can be bounded here.
fn bounded(shared: &Shared, pod: &Pod) -> Result<(), QuoteError> {
    let writes = pod.services().iter().find(|(_, service)| service.layer().0 > 0);
    match (shared.engine.bounds(), writes) {
        (Err(why), Some((name, _))) => Err(QuoteError::Unbounded(name.to_string(), why.to_owned())),
        _ => Ok(()),
    }
}

/// A volume that both have must have one size: it is a file system of that size.
fn keeps_volumes(shared: &Shared, current: PodHash, new: &Pod) -> Result<(), QuoteError> {
    let Ok(current) = shared.pods.get(current) else { return Ok(()) };
    for (name, volume) in new.volumes() {
        if let Some(old) = current.volumes().get(name)
            && old.size != volume.size
        {
            let (old, new) = (old.size.to_string(), volume.size.to_string());
            return Err(QuoteError::VolumeResized(name.to_string(), old, new));
        }
    }
    Ok(())
}

/// The pushed images of `pod` that neither `wallet` nor the `owner` for whom it asks has shown, or that are not here any more.
async fn missing_images(
    shared: &Shared,
    wallet: Address,
    owner: Address,
    pod: &Pod,
) -> Result<Vec<String>, QuoteError> {
    let mut missing = Vec::new();
    for id in pushed(pod) {
        let (ours, theirs) = (shared.shown.has(wallet, id), shared.shown.has(owner, id));
        if !(ours || theirs) || !shared.engine.has_image(id.as_str()).await? {
            missing.push(id.to_string());
        } else if !theirs {
            // Who acts for the owner gives it the image.
            shared.show(owner, id).map_err(QuoteError::Shown)?;
        }
    }
    for manifest in pushed_encrypted(pod) {
        let theirs = || shared.blobs.encrypted(owner, manifest).is_ok();
        // Who acts for the owner gives it what is encrypted.
        let given = || shared.blobs.give(wallet, owner, manifest).is_ok();
        if !(theirs() || wallet != owner && given()) {
            missing.push(manifest.to_string());
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_share_words_and_never_repeat() {
        let nonces = Nonces::new();
        let some: Vec<U256> = (0..1_000).map(|_| nonces.next()).collect();
        assert_eq!(some.iter().collect::<HashSet<_>>().len(), some.len());
        let words: HashSet<U256> = some.iter().map(|nonce| *nonce >> 8).collect();
        assert_eq!(words.len(), 4, "256 nonces to a word");
        assert_eq!(some[0].byte(0), 0);
    }
}
