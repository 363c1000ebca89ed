//! From a pod to a lease that runs, and on to its end.

use std::{
    fmt,
    ops::Range,
    time::{Duration, Instant},
};

use ::provider::wire::{LeaseStatus, Phase};
use alloy::primitives::{Address, B256};
use anyhow::{Context as _, bail, ensure};
use chain::{
    Chain,
    abi::{ILeases, IRegistry::ProviderView, Leases},
};
use protocol::{
    amount::{Amount, Rate},
    lease::{CloseReason, State},
    pod::{ImageRef, PodHash},
    quote::Quote,
};

use crate::{
    client::{Client, Endpoint},
    encrypt::KeyFile,
    images,
    market::{self, Offer, Options, Question},
    money::{self, Load},
    podfile::Ready,
    progress::{Progress, Step},
    session::Session,
    unlock,
};

/// How often is looked how far a lease is.
const POLL: Duration = Duration::from_millis(250);

/// How long beyond the time to start is waited, for a provider, a node or a chain that is late.
const SLACK: Duration = Duration::from_secs(120);

/// For how long a lease may be missing from the chain: a reorganisation brings its opening back, or not.
const REORG_PATIENCE: Duration = Duration::from_secs(30);

/// The most slots of an account that are looked through.
const MAX_SLOTS: u32 = 1_024;

/// A lease that was opened and did not come to run.
#[derive(Debug, thiserror::Error)]
pub(crate) struct NotStarted {
    /// The lease.
    pub(crate) lease: u64,
    /// Why it was closed.
    pub(crate) reason: CloseReason,
    /// What the provider said last.
    pub(crate) message: Option<String>,
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {} did not start and is closed: {}", self.lease, self.reason)?;
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

/// A lease that was opened or changed, with the provider that is to run it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its number.
    pub(crate) lease: u64,
    /// Who runs it.
    pub(crate) client: Client,
    /// The provider.
    pub(crate) provider: Address,
    /// What it costs.
    pub(crate) rate: Rate,
    /// The account that pays.
    pub(crate) account: B256,
    /// What is to run.
    pub(crate) pod: PodHash,
    /// In how many seconds it has to run.
    pub(crate) start_within: u32,
    /// Whether something ran under it before.
    pub(crate) changed: bool,
    /// The key of its encrypted images.
    pub(crate) key: Option<KeyFile>,
}

/// Takes an offer: pays for it, sends what the provider lacks, and opens the lease. Nothing is left over from a failure
/// but what was put into the account.
pub(crate) async fn open(
    session: &Session,
    ready: &Ready,
    options: &Options,
    offer: &Offer,
    progress: &dyn Progress,
) -> anyhow::Result<Opened> {
    let question = Question::new(session, ready, options)?;
    let first = offer.response.rate();
    let load = Load { rate: first, lock: offer.response.quote.lock, before: (Rate(0), 0) };
    let account = question.account.1;
    money::require(session, &options.account, account, &load, options.fund).await?;
    let response = settle(&question, offer, progress).await?;
    pay_in(session, options.account.salt(), options.fund, progress).await?;
    money::allow(session, account, &load, progress).await?;

    let quote = &response.quote;
    let slot = free_slots(session, account, 1).await?;
    progress.step(&Step::Sending("opens the lease".into()));
    let call = Leases::openCall {
        quote: quote.clone().into(),
        signature: response.signature.clone(),
        account,
        slot,
    };
    let leases = session.chain().deployment().leases;
    let receipt = session.sender.send(leases, &call).await;
    let receipt =
        receipt.map_err(|err| session.explain(err)).context("the lease was not opened")?;
    let opened = receipt.logs().iter().filter(|log| log.address() == leases);
    let opened = opened.filter_map(|log| log.log_decode::<Leases::Opened>().ok()).next();
    let lease = opened.context("the transaction opened no lease")?.inner.data.id;
    progress.step(&Step::Opened { lease, block: receipt.block_number.unwrap_or_default() });
    Ok(Opened::of(lease, offer.client.clone(), quote, ready))
}

impl Opened {
    /// The new lease that was opened out of a quote.
    pub(crate) fn of(lease: u64, client: Client, quote: &Quote, ready: &Ready) -> Self {
        Self {
            lease,
            client,
            provider: quote.provider,
            rate: Rate(quote.rate),
            account: quote.account,
            pod: PodHash(quote.pod),
            start_within: quote.startWithin.to(),
            changed: false,
            key: ready.key(),
        }
    }
}

/// Sends the images that the provider lacks, then asks once more: with the secrets, and for a quote that has all of its
/// time before it.
pub(crate) async fn settle(
    question: &Question<'_>,
    offer: &Offer,
    progress: &dyn Progress,
) -> anyhow::Result<::provider::wire::QuoteResponse> {
    let provider = offer.response.quote.provider;
    if !offer.response.missing_images.is_empty() {
        let mut docker = None;
        for id in &offer.response.missing_images {
            let encrypted =
                question.ready.pod.services().values().find_map(|service| match &service.image {
                    ImageRef::Encrypted { manifest, reference: None, .. } => {
                        Some(manifest).filter(|manifest| manifest.as_str() == id)
                    }
                    ImageRef::Encrypted { .. }
                    | ImageRef::Pushed { .. }
                    | ImageRef::Registry { .. } => None,
                });
            if let (Some(manifest), Some((_, store))) = (encrypted, &question.ready.encrypted) {
                store.push(&offer.client, manifest, progress).await.with_context(|| {
                    format!("encrypted image {id} could not be pushed to {provider}")
                })?;
                continue;
            }
            let docker = match &docker {
                Some(docker) => docker,
                None => docker.insert(images::docker().await?),
            };
            let ours = question.ready.pod.services().values().any(|service| {
                matches!(&service.image, ImageRef::Pushed { id: ours } if ours.as_str() == id)
            });
            ensure!(ours, "provider {provider} asks for image {id:?}, which is none of the pod's");
            images::push(docker, &offer.client, id, progress)
                .await
                .with_context(|| format!("image {id} could not be pushed to {provider}"))?;
        }
    }
    let response = question
        .ask(&offer.client, provider, &offer.view, true)
        .await
        .with_context(|| format!("provider {provider} makes no offer any more"))?;
    market::dearer(question.session, offer.response.rate(), response.rate())?;
    ensure!(
        response.quote.lock <= offer.response.quote.lock,
        "provider {provider} wants a longer lock than it did at first; deploy again"
    );
    if let Some(id) = response.missing_images.first() {
        bail!("provider {provider} still lacks image {id} after it was pushed");
    }
    Ok(response)
}

/// Gives a provider a pod, its images and its secrets, for a lease that is not opened or changed by its quote.
pub(crate) async fn hand_over(
    question: &Question<'_>,
    client: &Client,
    provider: Address,
    view: &ProviderView,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let asked = question.ask(client, provider, view, false).await;
    let response = asked.with_context(|| format!("provider {provider} does not take the pod"))?;
    let offer = Offer { client: client.clone(), view: view.clone(), response };
    settle(question, &offer, progress).await?;
    Ok(())
}

/// Puts what was said with --fund into an account.
pub(crate) async fn pay_in(
    session: &Session,
    salt: B256,
    fund: Option<Amount>,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    match fund {
        Some(amount) if amount.0 > 0 => money::deposit(session, salt, amount, progress).await,
        Some(_) | None => Ok(()),
    }
}

/// The first of `count` slots in a row in which no lease of the account is open, and for which no order of it is open and
/// no app of it is there.
pub(crate) async fn free_slots(
    session: &Session,
    account: B256,
    count: u32,
) -> anyhow::Result<u32> {
    let reserved = reserved(session, account).await?;
    let mut free = 0;
    for slot in 0..MAX_SLOTS {
        let is_reserved = reserved.iter().any(|range| range.contains(&slot));
        let taken =
            is_reserved || session.chain().leases().isSlotTaken(account, slot).call().await?;
        free = if taken { 0 } else { free + 1 };
        if free == count {
            return Ok(slot + 1 - count);
        }
    }
    bail!("the account has no {count} free slots in a row; use another one with --account")
}

/// Slots that an award or a keeper is going to fill.
async fn reserved(session: &Session, account: B256) -> anyhow::Result<Vec<Range<u32>>> {
    let chain = session.chain();
    let mut reserved = Vec::new();
    for placed in chain.placements(None, Some(account)).await? {
        let order = &placed.order;
        // An order that was awarded may be opened anew.
        let over =
            || async { anyhow::Ok(chain.auction().orderOf(placed.id).call().await?.state == 3) };
        if !over().await? {
            reserved.push(order.slot..order.slot + 1);
        }
    }
    for registered in chain.registered(None, Some(session.wallet())).await? {
        if registered.app.account != account {
            continue;
        }
        let app = chain.apps().appOf(registered.id).call().await?;
        if !app.owner.is_zero() {
            let first = app.slot.to::<u32>();
            reserved.push(first..first + u32::from(app.limits.replicas));
        }
    }
    Ok(reserved)
}

/// Waits until the lease runs at the provider and is active on the chain.
pub(crate) async fn wait(
    session: &Session,
    opened: &Opened,
    progress: &dyn Progress,
) -> anyhow::Result<LeaseStatus> {
    let end = Instant::now() + Duration::from_secs(opened.start_within.into()) + SLACK;
    let mut watch = Watch::default();
    let mut gone: Option<Instant> = None;
    loop {
        // A node that does not answer says nothing about the lease.
        let view = lease(session, opened.lease).await.ok();
        let status = watch.look(opened, progress).await;
        if let (Some(key), Some(request)) =
            (&opened.key, status.as_ref().and_then(|status| status.key_request))
        {
            watch.say(progress, Step::Unlocking);
            unlock::send(session, &opened.client, (opened.lease, opened.account), request, &key.sealed)
                .await
                .with_context(|| {
                    format!(
                        "lease {0} is open and waits for its app's key; send it with `roadstead unlock {0}`, or end it \
                         with `roadstead down {0}`",
                        opened.lease
                    )
                })?;
        }
        match view.as_ref().map(|view| State::try_from(view.lease.state)).transpose()? {
            Some(State::Closed) => return Err(not_started(session, opened, watch.message).await),
            Some(State::Active) => match status {
                Some(status) if status.phase == Phase::Running => return Ok(status),
                Some(status) if status.phase == Phase::Failed && opened.changed => bail!(
                    "lease {} goes on, but the changed pod could not be started: {}",
                    opened.lease,
                    watch.message.as_deref().unwrap_or("the provider does not say why")
                ),
                Some(_) | None => (),
            },
            Some(State::Pending) => {
                if status.is_some_and(|status| status.phase == Phase::Running) {
                    watch.say(progress, Step::Activating);
                }
                if let Some(view) = &view {
                    close_if_missed(session, opened, view, progress).await?;
                }
            }
            Some(State::None) => {
                let since = *gone.get_or_insert_with(Instant::now);
                ensure!(
                    since.elapsed() < REORG_PATIENCE,
                    "a reorganisation of the chain undid the opening of lease {}; deploy again",
                    opened.lease
                );
            }
            None => (),
        }
        ensure!(
            Instant::now() < end,
            "lease {0} is open and does not run yet; look with `roadstead ps`, or end it with `roadstead down {0}`",
            opened.lease
        );
        tokio::time::sleep(POLL).await;
    }
}

/// What was last seen of a lease, so that each step is told once.
#[derive(Debug, Default)]
struct Watch {
    told: Option<Step>,
    message: Option<String>,
}

impl Watch {
    async fn look(&mut self, opened: &Opened, progress: &dyn Progress) -> Option<LeaseStatus> {
        match opened.client.status(opened.lease).await {
            // It has not seen the change yet.
            Ok(status) if status.pod != opened.pod => None,
            Ok(status) => {
                self.say(progress, Step::Phase(status.phase));
                if let Some(message) = &status.message {
                    self.message = Some(crate::output::tame(message));
                }
                Some(status)
            }
            // It may not have seen the block yet, or be restarting; the chain decides.
            Err(crate::client::ClientError::Refused { .. }) => None,
            Err(_) => {
                self.say(progress, Step::Silent);
                None
            }
        }
    }

    fn say(&mut self, progress: &dyn Progress, step: Step) {
        // `Activating` says more than the phase that goes with it.
        let known = self.told == Some(Step::Activating) && step == Step::Phase(Phase::Running);
        if !known && self.told.as_ref() != Some(&step) {
            progress.step(&step);
            self.told = Some(step);
        }
    }
}

async fn not_started(session: &Session, opened: &Opened, message: Option<String>) -> anyhow::Error {
    let lease = opened.lease;
    match session.chain().closing(lease).await {
        Ok(closing) => {
            let reason = closing.and_then(|(event, _block)| event.reason.try_into().ok());
            let reason = reason.unwrap_or(CloseReason::None);
            NotStarted { lease, reason, message }.into()
        }
        Err(err) => anyhow::Error::new(err).context(format!("lease {lease} was closed")),
    }
}

/// Closes a lease whose start was missed, so that nothing stays locked for it.
async fn close_if_missed(
    session: &Session,
    opened: &Opened,
    view: &ILeases::LeaseView,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let Ok(head) = session.chain().head().await else { return Ok(()) };
    if head.timestamp <= view.lease.startBy.to::<u64>() {
        return Ok(());
    }
    progress.step(&Step::Sending("closes the lease, whose start was missed".into()));
    close(session, opened.lease, CloseReason::StartMissed).await?;
    Ok(())
}

/// A lease, as the chain has it.
pub(crate) async fn lease(session: &Session, id: u64) -> anyhow::Result<ILeases::LeaseView> {
    let views = session.chain().lease_views(&[id], None).await?;
    views.into_iter().next().with_context(|| format!("the chain knows no lease {id}"))
}

/// The pod that a lease is for: that of its last change, else that of its opening.
pub(crate) async fn pod_of(session: &Session, id: u64) -> anyhow::Result<PodHash> {
    let quote = session.chain().quote_of(id).await?;
    let quote = quote.with_context(|| format!("the chain knows no lease {id}"))?;
    Ok(PodHash(quote.pod))
}

/// An open lease of this wallet's.
pub(crate) async fn own(session: &Session, id: u64) -> anyhow::Result<ILeases::LeaseView> {
    let view = lease(session, id).await?;
    match State::try_from(view.lease.state)? {
        State::None => bail!("there is no lease {id} on this chain"),
        State::Closed => bail!("lease {id} is closed"),
        State::Pending | State::Active => (),
    }
    let wallet = session.wallet();
    ensure!(view.payer == wallet, "lease {id} is paid by {}, this wallet is {wallet}", view.payer);
    Ok(view)
}

/// The provider of a lease, for this wallet.
pub(crate) async fn provider_of(
    session: &Session,
    provider: Address,
) -> anyhow::Result<(Client, ProviderView)> {
    let view = listing_of(session.chain(), provider).await?;
    let endpoint = Endpoint::new(provider, &view.listing)?;
    Ok((Client::new(endpoint, session.chain(), session.sender.signer().clone()), view))
}

/// What a provider is listed as, or was last.
pub(crate) async fn listing_of(chain: &Chain, provider: Address) -> anyhow::Result<ProviderView> {
    let mut view = chain.registry().listingOf(provider).call().await?;
    // Leases go on when their provider takes its listing back, and so does the address that it had.
    if !view.listed
        && let Some(last) = chain.last_listing(provider).await?
    {
        view.listing = last;
    }
    Ok(view)
}

/// A change of a lease, asked for and not yet made.
#[derive(Debug)]
pub(crate) struct Change {
    /// The provider's offer.
    pub(crate) offer: Offer,
    /// What the lease costs now.
    pub(crate) before: Rate,
    lease: u64,
    account: B256,
    lock_before: u32,
}

/// Asks the provider of a lease what it would cost with another pod.
pub(crate) async fn ask_change(
    session: &Session,
    lease: u64,
    ready: &Ready,
    options: &Options,
) -> anyhow::Result<Change> {
    let view = own(session, lease).await?;
    let (client, listing) = provider_of(session, view.provider).await?;
    let question = change_question(session, ready, options, lease, &view)?;
    let response = question
        .ask(&client, view.provider, &listing, false)
        .await
        .with_context(|| format!("provider {} makes no offer for this change", view.provider))?;
    Ok(Change {
        offer: Offer { client, view: listing, response },
        before: Rate(view.rate),
        lease,
        account: view.account,
        lock_before: view.lock,
    })
}

fn change_question<'a>(
    session: &'a Session,
    ready: &'a Ready,
    options: &Options,
    lease: u64,
    view: &ILeases::LeaseView,
) -> anyhow::Result<Question<'a>> {
    let mut question = Question::new(session, ready, options)?;
    let named = options.account.id(session.wallet());
    ensure!(named == view.account, "lease {lease} is not paid by account {}", options.account);
    question.lease = lease;
    // What backs a lease cannot be lowered.
    question.sla.coverage = question.sla.coverage.max(Amount(view.coverage));
    Ok(question)
}

/// Sends the secrets of a pod anew that the lease runs already. What a quote would ask for that is not taken anyway.
pub(crate) async fn send_secrets(
    session: &Session,
    lease: u64,
    ready: &Ready,
    options: &Options,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let view = own(session, lease).await?;
    let (client, listing) = provider_of(session, view.provider).await?;
    let question = change_question(session, ready, options, lease, &view)?.any_terms();
    hand_over(&question, &client, view.provider, &listing, progress).await
}

/// Makes a change of a lease: its pod and its price, in one transaction.
pub(crate) async fn change(
    session: &Session,
    ready: &Ready,
    options: &Options,
    change: &Change,
    progress: &dyn Progress,
) -> anyhow::Result<Opened> {
    let view = own(session, change.lease).await?;
    let question = change_question(session, ready, options, change.lease, &view)?;
    let quote = &change.offer.response.quote;
    let load = Load {
        rate: Rate(quote.rate),
        lock: quote.lock,
        before: (change.before, change.lock_before),
    };
    money::require(session, &options.account, change.account, &load, options.fund).await?;
    let response = settle(&question, &change.offer, progress).await?;
    pay_in(session, options.account.salt(), options.fund, progress).await?;
    money::allow(session, change.account, &load, progress).await?;
    progress.step(&Step::Sending("changes the lease".into()));
    let call = Leases::amendCall {
        id: change.lease,
        quote: response.quote.clone().into(),
        signature: response.signature.clone(),
    };
    let sent = session.sender.send(session.chain().deployment().leases, &call).await;
    sent.map_err(|err| session.explain(err)).context("the lease was not changed")?;
    Ok(Opened {
        lease: change.lease,
        client: change.offer.client.clone(),
        provider: response.quote.provider,
        rate: response.rate(),
        account: change.account,
        pod: response.pod,
        start_within: response.quote.startWithin.to(),
        changed: true,
        key: ready.key(),
    })
}

/// Closes a lease and returns the block.
pub(crate) async fn close(
    session: &Session,
    lease: u64,
    reason: CloseReason,
) -> anyhow::Result<u64> {
    let call = Leases::closeCall { id: lease, reason: reason as u8 };
    let sent = session.sender.send(session.chain().deployment().leases, &call).await;
    let receipt = sent
        .map_err(|err| session.explain(err))
        .with_context(|| format!("lease {lease} was not closed"))?;
    Ok(receipt.block_number.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Progress for Told {
        fn step(&self, step: &Step) {
            self.0.lock().unwrap().push(step.to_string());
        }
    }

    #[test]
    fn each_step_is_told_once() {
        let told = Told::default();
        let mut watch = Watch::default();
        for step in [
            Step::Phase(Phase::Fetching),
            Step::Phase(Phase::Fetching),
            Step::Silent,
            Step::Silent,
            Step::Phase(Phase::Running),
            Step::Activating,
            Step::Phase(Phase::Running),
            Step::Activating,
        ] {
            watch.say(&told, step);
        }
        let told = told.0.into_inner().unwrap();
        assert_eq!(told.len(), 4, "{told:?}");
    }

    #[test]
    fn a_failed_start_says_why() {
        let failed = NotStarted {
            lease: 7,
            reason: CloseReason::ImageUnavailable,
            message: Some("no such manifest".into()),
        };
        let text = failed.to_string();
        assert!(text.contains("lease 7") && text.contains("no such manifest"), "{text}");
    }
}
