//! Which providers come into question, what they offer, and whether an offer is what was asked for.

pub(crate) mod serve;

use std::{collections::BTreeSet, time::Duration};

use ::provider::wire::{Keeps, QuoteRequest, QuoteResponse, SlaTerms};
use alloy::primitives::{Address, B256, Signature};
use anyhow::{Context as _, bail, ensure};
use chain::abi::IRegistry::ProviderView;
use futures::{StreamExt as _, stream::FuturesUnordered};
use protocol::{
    amount::{Amount, ParseAmountError, Rate, Token},
    criteria::Search,
    pod::{PodHash, Wishes},
    quote::Quote,
    resources::{PriceList, PriceOverflow, Resources},
};

use crate::{
    account::AccountName,
    candidates::{self, Candidate, Found},
    client::{Client, Endpoint},
    output,
    podfile::Ready,
    progress::{Progress, Step},
    session::Session,
};

/// How long a provider may take for its quote before the others are taken without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest lock of a lease that is agreed to, in seconds: that much of its price cannot be withdrawn.
const MAX_LOCK: u32 = 7 * 86_400;

/// The longest time until a start that is agreed to, in seconds.
const MAX_START: u32 = 6 * 3_600;

/// A quote has to hold for so many more seconds to be worth a transaction.
const MIN_LIFE: u64 = 10;

/// What a publisher chooses, beyond what the file says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The account that pays.
    pub(crate) account: AccountName,
    /// This provider alone.
    pub(crate) provider: Option<Address>,
    /// The highest price; where there is none, the file's.
    pub(crate) max_rate: Option<Rate>,
    /// What is put into the account first.
    pub(crate) fund: Option<Amount>,
}

/// A provider's offer, checked.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The provider.
    pub(crate) client: Client,
    /// Its listing.
    pub(crate) view: ProviderView,
    /// The quote.
    pub(crate) response: QuoteResponse,
}

/// What was asked for, to which an offer is held.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Of whom.
    pub(crate) provider: Address,
    /// The version of its listing.
    pub(crate) version: u64,
    /// Whose account pays.
    pub(crate) account: B256,
    /// The lease that it changes, or zero.
    pub(crate) lease: u64,
    /// The pod.
    pub(crate) pod: PodHash,
    /// The highest price, if there is one.
    pub(crate) max_rate: Option<Rate>,
    /// The wished terms.
    pub(crate) sla: Terms,
    /// The chain's time.
    pub(crate) now: u64,
}

/// The wished terms, in base units and seconds; zero is no wish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The least coverage.
    pub(crate) coverage: Amount,
    /// The longest outage that costs nothing.
    pub(crate) grace: u32,
    /// The longest outage until the whole coverage is due.
    pub(crate) full: u32,
    /// The longest time to answer a challenge.
    pub(crate) response: u32,
}

/// Why an offer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// For another pod.
    #[error("its quote is for pod {0}, not for {1}")]
    Pod(B256, PodHash),
    /// In the name of somebody else.
    #[error("its quote is in the name of {0}")]
    Provider(Address),
    /// Not signed by the provider.
    #[error("its quote is not signed with its key")]
    Signature,
    /// For another account.
    #[error("its quote is for another account")]
    Account,
    /// For another lease.
    #[error("its quote is for lease {0}, not for {1} (zero is a new one)")]
    Lease(u64, u64),
    /// Under another listing.
    #[error("its quote is of version {0} of its listing, which is at {1}: try again")]
    Version(u64, u64),
    /// About to expire.
    #[error("its quote expires in {0} s, which is too soon")]
    Expiry(u64),
    /// The breakdown and the rate differ.
    #[error("its breakdown comes to another price than its quote")]
    Breakdown,
    /// Dearer than was allowed.
    #[error("it asks {0} units per second, and {1} are the limit")]
    TooDear(Rate, Rate),
    /// The lock is too long.
    #[error("it wants {0} s of the price locked, and {MAX_LOCK} are the limit")]
    Lock(u32),
    /// The start may take too long, or no time at all.
    #[error("it wants {0} s to start, and has to take 1 to {MAX_START}")]
    Start(u32),
    /// Less coverage than was wished for.
    #[error("it puts up {0} base units, and {1} are wished for")]
    Coverage(Amount, Amount),
    /// Worse terms than were wished for.
    #[error("its {0} is {1} s, and {2} s at most is wished for")]
    Term(&'static str, u32, u32),
}

impl Terms {
    /// What the pod file wishes, in the chain's token.
    pub(crate) fn of(wishes: &Wishes, token: &Token) -> Result<Self, ParseAmountError> {
        let sla = &wishes.sla;
        let coverage = sla.coverage.as_ref().map(|coverage| coverage.amount(token)).transpose()?;
        Ok(Self {
            coverage: coverage.unwrap_or_default(),
            grace: sla.grace.unwrap_or_default(),
            full: sla.full.unwrap_or_default(),
            response: sla.response.unwrap_or_default(),
        })
    }
}

/// What a provider's listing says that it asks: nothing of egress, public ports and GPUs.
pub(crate) fn price_list(view: &ProviderView) -> PriceList {
    let prices = &view.listing.prices;
    PriceList {
        cpu: Rate(prices.cpu),
        memory: Rate(prices.memoryMiB),
        storage: Rate(prices.storageMiB),
        ..PriceList::default()
    }
}

/// What resources cost by a provider's price list.
pub(crate) fn list_price(view: &ProviderView, wanted: &Resources) -> Result<Rate, PriceOverflow> {
    price_list(view).price(&(*wanted).into()).map(|price| price.total)
}

/// Whether an offer is what was asked for. Whether a contract signed it is Leases' to find out.
pub(crate) fn check(offer: &QuoteResponse, asked: &Asked) -> Result<(), Unfit> {
    let quote = &offer.quote;
    if quote.pod != asked.pod.0 || offer.pod != asked.pod {
        return Err(Unfit::Pod(quote.pod, asked.pod));
    }
    if quote.provider != asked.provider {
        return Err(Unfit::Provider(quote.provider));
    }
    if quote.account != asked.account {
        return Err(Unfit::Account);
    }
    if quote.lease != asked.lease {
        return Err(Unfit::Lease(quote.lease, asked.lease));
    }
    if quote.version != asked.version {
        return Err(Unfit::Version(quote.version, asked.version));
    }
    let left = quote.expiry.to::<u64>().saturating_sub(asked.now);
    if left < MIN_LIFE {
        return Err(Unfit::Expiry(left));
    }
    if offer.price.sum() != Some(Rate(quote.rate)) || offer.price.total.0 != quote.rate {
        return Err(Unfit::Breakdown);
    }
    if let Some(most) = asked.max_rate.filter(|most| offer.rate() > *most) {
        return Err(Unfit::TooDear(offer.rate(), most));
    }
    if quote.lock > MAX_LOCK {
        return Err(Unfit::Lock(quote.lock));
    }
    let start = quote.startWithin.to::<u32>();
    if start == 0 || start > MAX_START {
        return Err(Unfit::Start(start));
    }
    if quote.coverage < asked.sla.coverage.0 {
        return Err(Unfit::Coverage(Amount(quote.coverage), asked.sla.coverage));
    }
    let terms = [
        ("grace", quote.grace.to::<u32>(), asked.sla.grace),
        ("full", quote.full.to::<u32>(), asked.sla.full),
        ("response", quote.response.to::<u32>(), asked.sla.response),
    ];
    match terms.into_iter().find(|(_name, given, wished)| *wished != 0 && given > wished) {
        Some((name, given, wished)) => Err(Unfit::Term(name, given, wished)),
        None => Ok(()),
    }
}

/// Whether the provider's own key signed the quote.
pub(crate) fn signed_by_provider(
    quote: &Quote,
    signature: &[u8],
    chain_id: u64,
    leases: Address,
) -> bool {
    let signature = Signature::from_raw(signature);
    let digest = quote.digest(chain_id, leases);
    signature
        .and_then(|signature| signature.recover_address_from_prehash(&digest))
        .is_ok_and(|signer| signer == quote.provider)
}

/// A question to one provider about one pod.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// The wallet that asks.
    pub(crate) session: &'a Session,
    /// The pod.
    pub(crate) ready: &'a Ready,
    /// Whose account pays.
    pub(crate) owner: Address,
    /// Its salt, and its id.
    pub(crate) account: (B256, B256),
    /// The lease to change, or zero.
    pub(crate) lease: u64,
    /// The highest price.
    pub(crate) max_rate: Option<Rate>,
    /// The wished terms.
    pub(crate) sla: Terms,
    /// The app as whose keeper the wallet asks, where the account is somebody else's, and that the pod is one of its.
    pub(crate) keeps: Option<Keeps>,
}

impl<'a> Question<'a> {
    /// What to ask for a new lease.
    pub(crate) fn new(
        session: &'a Session,
        ready: &'a Ready,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let token = &session.token;
        let file = ready.wishes.max_price.as_ref().map(|price| price.rate(token)).transpose();
        let file = file.context("x-roadstead.price.max")?;
        let sla = Terms::of(&ready.wishes, token).context("x-roadstead.sla.coverage")?;
        let account = (options.account.salt(), options.account.id(session.wallet()));
        let max_rate = options.max_rate.or(file);
        Ok(Self {
            session,
            ready,
            owner: session.wallet(),
            account,
            lease: 0,
            max_rate,
            sla,
            keeps: None,
        })
    }

    /// The same question where the terms are agreed on elsewhere: at any price, on any terms.
    pub(crate) fn any_terms(self) -> Self {
        Self { max_rate: None, sla: Terms::default(), ..self }
    }

    /// Asks, with the pod's secrets or without, and checks the answer.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        provider: Address,
        view: &ProviderView,
        with_secrets: bool,
    ) -> anyhow::Result<QuoteResponse> {
        let chain = self.session.chain();
        let pod = self.ready.pod.hash();
        let canonical = String::from_utf8(self.ready.pod.canonical())?;
        // Whoever is not trusted with the pod does not get to know it.
        let endpoint = client.endpoint();
        let secrets = match with_secrets && !self.ready.secrets.is_empty() {
            true => Some(self.ready.secrets.seal(endpoint, &self.context(provider, pod)).await?),
            false => {
                self.ready.secrets.trust().require(endpoint, chain.id()).await?;
                None
            }
        };
        let request = QuoteRequest {
            pod: canonical,
            owner: self.owner,
            salt: self.account.0,
            lease: self.lease,
            sla: SlaTerms {
                coverage: self.sla.coverage,
                grace: self.sla.grace,
                full: self.sla.full,
            },
            keeps: self.keeps.clone(),
            secrets,
        };
        let response = client.quote(&request).await?;
        let asked = Asked {
            provider,
            version: view.version,
            account: self.account.1,
            lease: self.lease,
            pod,
            max_rate: self.max_rate,
            sla: self.sla,
            now: chain.head().await?.timestamp,
        };
        check(&response, &asked).map_err(|unfit| self.explain(unfit))?;
        let leases = chain.deployment().leases;
        if !signed_by_provider(&response.quote, &response.signature, chain.id(), leases) {
            // A provider that is a contract signs as ERC-1271 says; Leases asks it before anything is sent.
            let code = alloy::providers::Provider::get_code_at(chain.provider(), provider).await?;
            ensure!(!code.is_empty(), Unfit::Signature);
        }
        Ok(response)
    }

    /// What the pod's secrets are sealed for.
    fn context(&self, provider: Address, pod: PodHash) -> seal::Context {
        let chain = self.session.chain();
        seal::Context {
            chain_id: chain.id(),
            leases: chain.deployment().leases.into(),
            provider: provider.into(),
            account: self.account.1.into(),
            pod: pod.0.into(),
        }
    }

    /// What is about money, in whole tokens.
    fn explain(&self, unfit: Unfit) -> anyhow::Error {
        let token = &self.session.token;
        if let Unfit::TooDear(asked, most) = unfit {
            let (asked, most) = (asked.per_hour(token), most.per_hour(token));
            return anyhow::anyhow!("it asks {asked}, and {most} is the limit");
        }
        if let Unfit::Coverage(given, wished) = unfit {
            let (given, wished) = (self.session.show(given), self.session.show(wished));
            return anyhow::anyhow!("it puts up {given}, and {wished} are wished for");
        }
        unfit.into()
    }
}

/// Asks all providers that come into question, at once, and returns their offers, the cheapest first.
pub(crate) async fn offers(
    session: &Session,
    ready: &Ready,
    options: &Options,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<Offer>> {
    Question::new(session, ready, options)?.offers(options.provider, progress).await
}

impl Question<'_> {
    /// Those that come into question, or `only` one, of which nothing is asked but to be alive.
    async fn candidates(&self, only: Option<Address>) -> anyhow::Result<Vec<Candidate>> {
        let chain = self.session.chain();
        let resources = Some(self.ready.pod.resources());
        let search = Search::new(&self.ready.wishes, resources, &self.session.token)?;
        // The price is that of the quote, which may be below the list.
        let search = Search { max_rate: None, coverage: self.sla.coverage, ..search };
        if let Some(only) = only {
            let none = BTreeSet::new();
            let known =
                candidates::read(chain, &search, vec![Found::plain(only)], &none).await?.pop();
            let known = known.with_context(|| {
                format!("{only} is not listed as a provider; `roadstead providers` lists them")
            })?;
            let live = known.facts.live;
            ensure!(live, "provider {only} has not been heard of lately; try another one");
            return Ok(vec![known]);
        }
        let (market, needs) = (self.session.market.as_deref(), search.needs());
        let known = candidates::known(chain, market, &search, &needs, false).await?;
        candidates::judge(&search, known).fit()
    }

    /// Asks all providers that come into question, or `only` one, at once, and returns their offers, the cheapest first.
    pub(crate) async fn offers(
        &self,
        only: Option<Address>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Vec<Offer>> {
        let candidates = self.candidates(only).await?;
        progress.step(&Step::Asking(candidates.len()));
        let mut answers: FuturesUnordered<_> = candidates
            .into_iter()
            .map(|candidate| (candidate.facts.provider, candidate.view))
            .map(async |(address, view)| (address, offer(self, address, view).await))
            .collect();
        let mut offers = Vec::new();
        let mut refusals = Vec::new();
        while let Some((provider, answer)) = answers.next().await {
            match answer {
                Ok(offer) => offers.push(offer),
                Err(err) => refusals.push((provider, output::causes(&err))),
            }
        }
        refusals.sort();
        if offers.is_empty() {
            let whys = refusals.iter().map(|(provider, why)| format!("\n{provider}: {why}"));
            bail!("no provider made an offer that can be taken:{}", whys.collect::<String>());
        }
        for (provider, why) in refusals {
            progress.step(&Step::NoOffer { provider, why });
        }
        offers.sort_by_key(|offer| (offer.response.rate(), offer.response.quote.provider));
        Ok(offers)
    }
}

async fn offer(
    question: &Question<'_>,
    address: Address,
    view: ProviderView,
) -> anyhow::Result<Offer> {
    let session = question.session;
    let endpoint = Endpoint::new(address, &view.listing)?;
    let client = Client::new(endpoint, session.chain(), session.sender.signer().clone());
    let client = client.keeping(question.keeps.as_ref().map(|keeps| keeps.app));
    let ask = question.ask(&client, address, &view, false);
    let response = tokio::time::timeout(PATIENCE, ask)
        .await
        .with_context(|| format!("it took longer than {} s", PATIENCE.as_secs()))??;
    Ok(Offer { client, view, response })
}

/// Whether a rate went up, in words.
pub(crate) fn dearer(session: &Session, first: Rate, last: Rate) -> anyhow::Result<()> {
    let token = &session.token;
    ensure!(
        last <= first,
        "the provider asked {} at first and {} now; deploy again to see all prices",
        first.per_hour(token),
        last.per_hour(token)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy::{
        primitives::aliases::{U24, U40},
        signers::{SignerSync as _, local::PrivateKeySigner},
    };
    use protocol::resources::PriceBreakdown;

    use super::*;

    fn address(byte: u8) -> Address {
        Address::repeat_byte(byte)
    }

    fn asked() -> Asked {
        Asked {
            provider: address(1),
            version: 3,
            account: B256::repeat_byte(2),
            lease: 0,
            pod: PodHash(B256::repeat_byte(3)),
            max_rate: Some(Rate(100)),
            sla: Terms { coverage: Amount(5), grace: 60, full: 3_600, response: 0 },
            now: 1_000,
        }
    }

    fn offer() -> QuoteResponse {
        let asked = asked();
        QuoteResponse {
            quote: Quote {
                provider: asked.provider,
                account: asked.account,
                pod: asked.pod.0,
                rate: 100,
                lock: 3_600,
                coverage: 5,
                grace: U24::from(60),
                full: U24::from(3_600),
                response: U24::from(300),
                startWithin: U24::from(600),
                expiry: U40::from(1_300),
                version: 3,
                ..Quote::default()
            },
            signature: Vec::new().into(),
            pod: asked.pod,
            price: PriceBreakdown {
                cpu: Rate(50),
                memory: Rate(20),
                storage: Rate(10),
                egress: Rate(8),
                public_ports: Rate(7),
                gpus: Rate(5),
                total: Rate(100),
            },
            missing_images: Vec::new(),
            attestation: String::new(),
            volume_retention: 0,
        }
    }

    #[test]
    fn an_offer_is_held_to_what_was_asked() {
        fn refused(spoil: impl FnOnce(&mut QuoteResponse), wanted: Unfit) {
            let mut offer = offer();
            spoil(&mut offer);
            assert_eq!(check(&offer, &asked()), Err(wanted));
        }
        assert_eq!(check(&offer(), &asked()), Ok(()));
        let other = B256::repeat_byte(9);
        let pod = asked().pod;
        refused(|o| o.quote.pod = other, Unfit::Pod(other, pod));
        refused(|o| o.pod = PodHash(other), Unfit::Pod(pod.0, pod));
        refused(|o| o.quote.provider = address(9), Unfit::Provider(address(9)));
        refused(|o| o.quote.account = B256::ZERO, Unfit::Account);
        refused(|o| o.quote.lease = 7, Unfit::Lease(7, 0));
        refused(|o| o.quote.version = 2, Unfit::Version(2, 3));
        refused(|o| o.quote.expiry = U40::from(999), Unfit::Expiry(0));
        refused(|o| o.quote.expiry = U40::from(1_009), Unfit::Expiry(9));
        refused(|o| o.price.cpu = Rate(51), Unfit::Breakdown);
        refused(|o| o.price.cpu = Rate(u128::MAX), Unfit::Breakdown);
        refused(|o| o.price.egress = Rate(9), Unfit::Breakdown);
        refused(|o| o.price.public_ports = Rate(0), Unfit::Breakdown);
        refused(|o| o.price.gpus = Rate(u128::MAX), Unfit::Breakdown);
        refused(|o| o.price.total = Rate(99), Unfit::Breakdown);
        let dear = |o: &mut QuoteResponse| {
            (o.quote.rate, o.price.total, o.price.cpu) = (101, Rate(101), Rate(51));
        };
        refused(dear, Unfit::TooDear(Rate(101), Rate(100)));
        refused(|o| o.quote.lock = MAX_LOCK + 1, Unfit::Lock(MAX_LOCK + 1));
        refused(|o| o.quote.startWithin = U24::ZERO, Unfit::Start(0));
        refused(|o| o.quote.coverage = 4, Unfit::Coverage(Amount(4), Amount(5)));
        refused(|o| o.quote.grace = U24::from(61), Unfit::Term("grace", 61, 60));
        refused(|o| o.quote.full = U24::from(3_601), Unfit::Term("full", 3_601, 3_600));
    }

    #[test]
    fn a_signature_has_to_be_the_providers() {
        let key = PrivateKeySigner::random();
        let (chain_id, leases) = (31_337, address(8));
        let quote = Quote { provider: key.address(), ..offer().quote };
        let sign = |key: &PrivateKeySigner| {
            key.sign_hash_sync(&quote.digest(chain_id, leases)).unwrap().as_bytes()
        };
        let good = sign(&key);
        assert!(signed_by_provider(&quote, &good, chain_id, leases));
        assert!(!signed_by_provider(&quote, &good, 1, leases));
        assert!(!signed_by_provider(&quote, &good, chain_id, address(7)));
        assert!(!signed_by_provider(&quote, &sign(&PrivateKeySigner::random()), chain_id, leases));
        assert!(!signed_by_provider(&quote, &[0], chain_id, leases));
        let other = Quote { rate: 1, ..quote.clone() };
        assert!(!signed_by_provider(&other, &good, chain_id, leases));
    }
}
