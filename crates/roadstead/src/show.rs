//! What is there: pods as they are understood, quotes, leases, logs, accounts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use ::provider::wire::{LeaseStatus, LogStream, Phase, PublicPort};
use alloy::primitives::{Address, B256};
use anyhow::{Context as _, ensure};
use chain::{Chain, Head, History, Opening, abi::ILeases::LeaseView};
use futures::future::join_all;
use protocol::{
    amount::{Amount, Rate, Token, Units},
    criteria::{Search, Why, why_not},
    lease::{CloseReason, State as LeaseState},
    pod::{Hardware, Http, ImageRef, Pod, Tls, Transport, Wishes},
    resources::{Bytes, PriceBreakdown, Resources},
};
use serde::Serialize;

use crate::{
    account::AccountName,
    candidates::{self, Candidate, Found},
    cli::{self, LeaseRef},
    client::{Client, ClientError},
    deploy,
    market::{self, Offer},
    money::{self, Funds},
    output::{causes, moment, narrow_table, price, print, runway, short, show, span, table, tame},
    podfile::PodFile,
    remote::{Remote, Since},
    session::Session,
    settings::Settings,
    state::State,
    wallet,
};

/// How long a provider may take to say how a lease is.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how many seconds after its close `ps` tells what became of a lease.
const LATELY: u64 = 3_600;

/// What is said where list prices are shown for a pod that is charged for more.
pub(crate) const BEYOND: &str = "\nlist prices are without egress, public ports and GPUs; `roadstead quote` has all of what it costs";

/// `roadstead check`.
pub(crate) async fn check(
    settings: &Settings,
    file: &cli::PodFile,
    only: Option<Address>,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Checked<'a> {
        hash: Option<String>,
        unresolved: Option<String>,
        pod: &'a Pod,
        resources: Resources,
        secrets: Vec<String>,
        notes: &'a [String],
        prices: Option<&'a [Priced]>,
    }
    let file = PodFile::chosen(file)?;
    file.certificates()?;
    let sketch = file.sketch()?;
    let (pod, notes, unresolved) = match file.pod(&settings.home).await {
        Ok((pod, notes)) => (Some(pod), notes, None),
        Err(err) => (None, file.parsed.notes().to_vec(), Some(causes(&err))),
    };
    let shown = pod.as_ref().unwrap_or(&sketch);
    let prices = match settings.connect().await {
        Ok(chain) => {
            let (market, wishes) = (settings.market.as_deref(), file.parsed.wishes());
            Ok(prices(&chain, market, wishes, &shown.resources(), only).await?)
        }
        Err(err) => Err(causes(&err)),
    };
    let value = Checked {
        hash: pod.as_ref().map(|pod| pod.hash().to_string()),
        unresolved: unresolved.clone(),
        pod: shown,
        resources: shown.resources(),
        secrets: shown.secrets().into_iter().map(ToString::to_string).collect(),
        notes: &notes,
        prices: prices.as_ref().ok().map(|(prices, _token)| prices.as_slice()),
    };
    show(settings.json, &value, || {
        let mut text = describe(shown, &file, pod.is_some());
        match (&pod, &unresolved) {
            (Some(pod), _) => text.push_str(&format!("\nhash: {}\n", pod.hash())),
            (None, Some(why)) => text.push_str(&format!("\nhash: not known yet; {why}\n")),
            (None, None) => (),
        }
        for note in &notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text.push('\n');
        match &prices {
            Ok((prices, _token)) if prices.is_empty() => text.push_str("no provider is listed yet"),
            Ok((prices, token)) => {
                text.push_str(&price_table(prices, token));
                if shown.demand(Bytes(0)).is_beyond_listings() {
                    text.push_str(BEYOND);
                }
            }
            Err(why) => text.push_str(&format!("no price could be had: {why}")),
        }
        text
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Priced {
    provider: Address,
    region: String,
    live: bool,
    /// Units per second.
    rate: Option<Rate>,
    /// What excludes it, by the list.
    why_not: Vec<Why>,
}

/// What the pod costs by the lists of all providers, or of `only` one, of which nothing is asked but to be alive.
async fn prices(
    chain: &Chain,
    market: Option<&str>,
    wishes: &Wishes,
    wanted: &Resources,
    only: Option<Address>,
) -> anyhow::Result<(Vec<Priced>, Token)> {
    let token = chain.token().await?;
    let anybody = Wishes::default();
    let wishes = if only.is_some() { &anybody } else { wishes };
    let search = Search::new(wishes, Some(*wanted), &token)?;
    let needs = search.needs();
    let known = match only {
        Some(only) => candidates::read(chain, &search, vec![Found::plain(only)], &needs).await?,
        None => candidates::known(chain, market, &search, &needs, true).await?,
    };
    if let Some(only) = only {
        ensure!(!known.is_empty(), "{only} is not listed as a provider");
    }
    let mut prices: Vec<_> = known
        .into_iter()
        .map(|Candidate { view, facts }| Priced {
            provider: facts.provider,
            rate: market::list_price(&view, wanted).ok(),
            region: tame(&facts.region),
            live: facts.live,
            why_not: why_not(&search, &facts),
        })
        .collect();
    prices.sort_by_key(|priced| (!priced.why_not.is_empty(), priced.rate, priced.provider));
    Ok((prices, token))
}

fn price_table(prices: &[Priced], token: &Token) -> String {
    let rows = prices.iter().map(|priced| {
        let shown =
            priced.rate.map_or_else(|| "beyond all bounds".into(), |rate| price(rate, token));
        let by: BTreeSet<_> = priced.why_not.iter().map(|why| why.criterion.to_string()).collect();
        let by = match priced.live {
            _ if by.is_empty() => String::new(),
            true => format!("left out: {}", by.into_iter().collect::<Vec<_>>().join(", ")),
            false => "not heard of lately".into(),
        };
        vec![priced.provider.to_string(), priced.region.clone(), shown, by]
    });
    let mut text = table(&["PROVIDER", "REGION", "LIST PRICE", ""], rows);
    if prices.iter().any(|priced| priced.live && !priced.why_not.is_empty()) {
        text.push_str("\n`roadstead providers --for FILE --why-not` says why some are left out");
    }
    text
}

/// A pod in words.
fn describe(pod: &Pod, file: &PodFile, resolved: bool) -> String {
    let gpus = pod.resources().gpus > 0;
    let services = pod.services().iter().map(|(name, service)| {
        let limits = &service.limits;
        let image = match &service.image {
            ImageRef::Registry { digest, reference } => format!("{reference}@{digest}"),
            ImageRef::Encrypted { plain, reference: Some(reference), .. } => {
                format!("{plain} (encrypted, in {reference})")
            }
            ImageRef::Encrypted { plain, reference: None, .. } => {
                format!("{plain} (encrypted, pushed)")
            }
            ImageRef::Pushed { id } if resolved => format!("{id} (pushed)"),
            ImageRef::Pushed { .. } => file
                .parsed
                .images()
                .get(name)
                .map_or_else(String::new, |image| image.name.to_string()),
        };
        let ports: Vec<_> = service.ports.iter().map(ToString::to_string).collect();
        let mounts: Vec<_> =
            service.volumes.iter().map(|(at, mount)| format!("{}:{at}", mount.source)).collect();
        let mut row = vec![name.to_string(), image];
        row.extend([limits.cpu.to_string(), limits.memory.to_string()]);
        if gpus {
            row.push(limits.gpus.to_string());
        }
        row.extend([ports.join(" "), mounts.join(" ")]);
        row
    });
    let header = ["SERVICE", "IMAGE", "CPU", "MEMORY", "GPUS", "PORTS", "VOLUMES"];
    let header: Vec<&str> = header.into_iter().filter(|name| gpus || *name != "GPUS").collect();
    let mut text = table(&header, services);
    text.push('\n');
    for (name, volume) in pod.volumes() {
        text.push_str(&format!("\nvolume {name}: {}", volume.size));
    }
    for secret in pod.secrets() {
        text.push_str(&format!("\nsecret {secret}: sealed to the provider at deploy"));
    }
    if let Some(wish) = &file.parsed.wishes().attested {
        let hardware = match wish.hardware {
            Hardware::Any => "TDX or SEV-SNP",
            Hardware::Tdx => "TDX",
            Hardware::SevSnp => "SEV-SNP",
        };
        let measurements: Vec<_> = wish.measurements.iter().map(ToString::to_string).collect();
        let measurements = measurements.join(" or ");
        text.push_str(&format!(
            "\nattested: sent only where {hardware} proves that {measurements} runs"
        ));
    }
    for (host, target) in pod.ingress() {
        text.push_str(&format!("\ningress {host}: {}:{}", target.service, target.port));
        if target.protocol == Http::H2c {
            text.push_str(" (h2c)");
        }
        match pod.tls().get(host) {
            Some(Tls::Own { certificate, .. }) => {
                text.push_str(&format!(", with the certificate in secret {certificate}"));
            }
            Some(Tls::Dns) => text.push_str(", with a certificate that is proved by DNS"),
            None => (),
        }
    }
    for (service, port) in pod.public_ports() {
        text.push_str(&format!(
            "\npublic {service}: {port}, at a number that the provider chooses"
        ));
    }
    if let Some(total) = pod.egress().total {
        text.push_str(&format!("\negress: {total} in 30 days"));
    }
    text.push_str(&format!("\nin all: {}", pod.resources()));
    text
}

/// What `roadstead quote` prints: the offers, the cheapest first.
pub(crate) fn offers(
    settings: &Settings,
    session: &Session,
    offers: &[Offer],
) -> anyhow::Result<()> {
    let responses: Vec<_> = offers.iter().map(|offer| &offer.response).collect();
    show(settings.json, &responses, || {
        let token = &session.token;
        let rows = offers.iter().map(|offer| {
            let quote = &offer.response.quote;
            vec![
                quote.provider.to_string(),
                tame(&offer.view.listing.region),
                price(offer.response.rate(), token),
                span(quote.lock.into()),
                Amount(quote.coverage).display(token),
            ]
        });
        // An address is no use in parts; what a narrow terminal has no room for is in --json.
        let header = ["PROVIDER", "REGION", "PRICE", "LOCK", "COVERAGE"];
        let all = narrow_table(&header, rows, &[1, 3, 4]);
        let prices: Vec<_> =
            responses.iter().map(|offer| (offer.quote.provider, offer.price)).collect();
        format!("{all}\n\n{}", breakdown(&prices, token))
    })
}

/// What prices are made of, with a column for each part that somebody charges for.
fn breakdown(prices: &[(Address, PriceBreakdown)], token: &Token) -> String {
    type Of = fn(&PriceBreakdown) -> Rate;
    let parts: [(&str, Of); 6] = [
        ("CPU", |price| price.cpu),
        ("MEMORY", |price| price.memory),
        ("STORAGE", |price| price.storage),
        ("EGRESS", |price| price.egress),
        ("PORTS", |price| price.public_ports),
        ("GPUS", |price| price.gpus),
    ];
    let charged = |of: &Of| prices.iter().any(|(_, price)| of(price).0 > 0);
    let parts: Vec<_> = parts.into_iter().filter(|(_, of)| charged(of)).collect();
    let header: Vec<&str> =
        ["OF WHICH"].into_iter().chain(parts.iter().map(|(name, _)| *name)).collect();
    let rows = prices.iter().map(|(provider, price)| {
        let costs = parts.iter().map(|(_, of)| of(price).per_hour(token));
        [short(*provider)].into_iter().chain(costs).collect()
    });
    table(&header, rows)
}

/// The wallet's accounts by id: those that were funded, and those that have a name here.
pub(crate) async fn accounts(
    chain: &Chain,
    owner: Address,
    state: &State,
) -> anyhow::Result<BTreeMap<B256, AccountName>> {
    let names: BTreeSet<AccountName> = state.accounts();
    let funded = chain.accounts_of(owner).await?;
    let funded = funded.into_iter().map(|(id, salt)| (id, AccountName::of_salt(salt, &names)));
    let mut accounts: BTreeMap<_, _> = funded.collect();
    for name in &names {
        accounts.entry(name.id(owner)).or_insert_with(|| name.clone());
    }
    Ok(accounts)
}

/// A lease in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) lease: u64,
    pub(crate) app: Option<String>,
    pub(crate) state: LeaseState,
    /// What the provider says.
    pub(crate) phase: Option<Phase>,
    message: Option<String>,
    pub(crate) reachable: bool,
    /// Whether the provider answered at all, be it that it knows no such lease.
    #[serde(skip)]
    pub(crate) answers: bool,
    /// What backs it, and in how many seconds a challenge has to be answered.
    #[serde(skip)]
    pub(crate) backing: (Amount, u32),
    pub(crate) provider: Address,
    account: AccountId,
    slot: u32,
    /// Units per second.
    rate: Rate,
    activated_at: u64,
    /// When its provider's notice runs out; nothing where none was given.
    leaves_at: Option<u64>,
    /// When it was closed; nothing while it is open.
    ended_at: Option<u64>,
    pub(crate) funded_until: u64,
    close_reason: Option<CloseReason>,
    urls: Vec<String>,
    ports: Vec<PublicPort>,
    /// What the provider says of hosts and ports.
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
struct AccountId(B256);

/// The providers that were asked, with the wallet signed in.
pub(crate) type Clients = tokio::sync::Mutex<BTreeMap<Address, Client>>;

/// The leases of a wallet, as of one block.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Those that were asked for.
    pub(crate) rows: Vec<Listed>,
    /// Those that were closed lately, where closed ones were not asked for.
    lately: Vec<Listed>,
    /// The block.
    pub(crate) head: Head,
    token: Token,
    asked: bool,
    all: bool,
}

/// `roadstead ps`.
pub(crate) async fn ps(settings: &Settings, all: bool) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    // Without the passphrase at hand, the chain's half is shown.
    let session = match wallet::can_unlock(settings) {
        true => Some(Session::open(chain.clone(), wallet::unlock(settings)?).await?),
        false => None,
    };
    let clients = Clients::default();
    let mut known = History::default();
    let leases = leases(settings, &chain, session.as_ref(), &clients, all, &mut known).await?;
    show(settings.json, &leases.rows, || leases.text())
}

/// Reads this wallet's leases, and asks their providers how they are. What of them is settled is put into `known`, out of which
/// the next look takes it.
pub(crate) async fn leases(
    settings: &Settings,
    chain: &Chain,
    session: Option<&Session>,
    clients: &Clients,
    all: bool,
    known: &mut History,
) -> anyhow::Result<Leases> {
    let wallet = wallet::address(&settings.wallet)?;
    let state = State::read(&settings.home, chain.deployment())?;
    let token = chain.token().await?;
    let head = chain.head().await?;
    let named: BTreeSet<B256> = state.accounts().iter().map(|name| name.id(wallet)).collect();
    let History { openings, amended, closed: closings, .. } =
        chain.history(wallet, &named, known, head.number).await?;
    let ids: Vec<u64> = openings.keys().copied().collect();
    let views = chain.lease_views(&ids, None).await?;
    let leases: Vec<(&Opening, &LeaseView, LeaseState)> = openings
        .values()
        .zip(&views)
        .map(|(opening, view)| anyhow::Ok((opening, view, view.lease.state.try_into()?)))
        .filter(|lease| {
            let open = |state| matches!(state, LeaseState::Pending | LeaseState::Active);
            // What was closed lately is told of, so that nobody looks for it in vain.
            lease.as_ref().map_or(true, |(_, view, state)| {
                all || open(*state) || view.lease.endsAt.to::<u64>() + LATELY >= head.timestamp
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let told: BTreeSet<u64> = leases.iter().map(|(opening, ..)| opening.lease).collect();
    // It is not told of them again, so nobody has to look for them again.
    known.forget(&ids.into_iter().filter(|id| !told.contains(id)).collect());
    let rows = leases.into_iter().map(async |(opening, view, lease_state)| {
        let ask = session.filter(|_| lease_state != LeaseState::Closed);
        let (status, answers) = match ask {
            Some(session) => status(session, clients, view.provider, opening.lease).await,
            None => (None, false),
        };
        let close_reason = closings.get(&opening.lease).and_then(|why| (*why).try_into().ok());
        // A closed one has no rate any more: what it cost last.
        let quote = amended.get(&opening.lease).unwrap_or(&opening.quote);
        let rate = if view.rate == 0 { quote.rate } else { view.rate };
        let ends_at = Some(view.lease.endsAt.to::<u64>()).filter(|ends_at| *ends_at != 0);
        let closed = lease_state == LeaseState::Closed;
        anyhow::Ok(Listed {
            lease: opening.lease,
            app: state.app_of(opening.lease).map(str::to_owned),
            state: lease_state,
            phase: status.as_ref().map(|status| status.phase),
            message: status.as_ref().and_then(|status| status.message.as_deref()).map(tame),
            reachable: status.is_some(),
            answers,
            backing: (Amount(view.coverage), view.lease.response.to()),
            provider: view.provider,
            account: AccountId(opening.account),
            slot: opening.slot,
            rate: Rate(rate),
            activated_at: view.lease.activatedAt.to(),
            leaves_at: ends_at.filter(|_| !closed),
            ended_at: ends_at.filter(|_| closed),
            funded_until: view.fundedUntil.to(),
            close_reason,
            urls: status.as_ref().map(|status| status.urls.clone()).unwrap_or_default(),
            notes: status.as_ref().map(notes).unwrap_or_default(),
            ports: status.map(|status| status.ports).unwrap_or_default(),
        })
    });
    let rows: Vec<Listed> = join_all(rows).await.into_iter().collect::<anyhow::Result<_>>()?;
    let asked = session.is_some();
    let (rows, lately): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| all || row.state != LeaseState::Closed);
    Ok(Leases { rows, lately, head, token, asked, all })
}

impl Leases {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let now = self.head.timestamp;
        let mut text = ps_table(&self.rows, &self.token, now, self.asked, self.all);
        for row in &self.lately {
            text.push_str(&format!("\n{}", row.farewell(now)));
        }
        text
    }
}

/// What the provider of a lease says, nothing where it cannot be reached; and whether it says anything at all.
async fn status(
    session: &Session,
    clients: &Clients,
    provider: Address,
    lease: u64,
) -> (Option<LeaseStatus>, bool) {
    let ask = async {
        let known = clients.lock().await.get(&provider).cloned();
        let client = match known {
            Some(client) => client,
            None => {
                let (client, _view) = deploy::provider_of(session, provider).await?;
                clients.lock().await.insert(provider, client.clone());
                client
            }
        };
        anyhow::Ok(client.status(lease).await?)
    };
    let failed = match tokio::time::timeout(PATIENCE, ask).await {
        Ok(Ok(status)) => return (Some(status), true),
        Ok(Err(err)) => Some(err),
        Err(_late) => None,
    };
    let refused = failed.as_ref().and_then(|err| err.downcast_ref());
    let answers = matches!(refused, Some(ClientError::Refused { .. }));
    if !answers {
        // It may be somewhere else by now.
        clients.lock().await.remove(&provider);
    }
    if let Some(err) = failed {
        tracing::debug!(error = causes(&err), "{provider} does not say how lease {lease} is");
    }
    (None, answers)
}

impl Listed {
    /// What became of a lease that was closed lately.
    fn farewell(&self, now: u64) -> String {
        let app = self.app.as_deref().map(|app| format!(" ({app})")).unwrap_or_default();
        let reason = self.close_reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let when = moment(self.ended_at.unwrap_or(now), now);
        format!("lease {}{app} was closed {when}{reason}", self.lease)
    }
}

fn ps_table(rows: &[Listed], token: &Token, now: u64, asked: bool, all: bool) -> String {
    if rows.is_empty() {
        return match all {
            true => "this wallet never had a lease here".into(),
            false => "nothing is deployed; `roadstead ps --all` shows what was".into(),
        };
    }
    let lines = rows.iter().map(|row| {
        let closed = row.state == LeaseState::Closed;
        let phase = row.phase.and_then(|phase| serde_json::to_value(phase).ok());
        let state = match phase.as_ref().and_then(|phase| phase.as_str()) {
            Some(phase) => format!("{}, {phase}", row.state),
            None if closed || !asked => row.state.to_string(),
            None => format!("{}, unreachable", row.state),
        };
        let state = match row.leaves_at {
            Some(then) => format!("{state}, its provider leaves {}", moment(then, now)),
            None => state,
        };
        let ago = |then: u64| match then {
            0 => "-".to_owned(),
            then => format!("{} ago", span(now.saturating_sub(then))),
        };
        let runs = match (closed, row.close_reason) {
            (true, reason) => reason.map_or_else(String::new, |reason| reason.to_string()),
            (false, _) => runway(alloy::primitives::aliases::U40::from(row.funded_until), now),
        };
        vec![
            row.lease.to_string(),
            row.app.clone().unwrap_or_default(),
            state,
            short(row.provider),
            row.rate.per_hour(token),
            ago(row.ended_at.unwrap_or(row.activated_at)),
            runs,
            row.message.clone().unwrap_or_else(|| places(&row.urls, &row.ports).join(", ")),
        ]
    });
    table(&["LEASE", "APP", "STATE", "PROVIDER", "PRICE", "SINCE", "RUNWAY", "WHERE"], lines)
}

/// `roadstead logs`.
pub(crate) async fn logs(
    settings: &Settings,
    lease: &LeaseRef,
    service: Option<&str>,
    follow: bool,
    tail: Option<u32>,
    since: Option<&Since>,
) -> anyhow::Result<()> {
    let since = since.map(|since| since.unix(SystemTime::now())).transpose()?;
    let remote = Remote::find(settings, lease).await?;
    let id = remote.lease;
    let mut lines = remote
        .client
        .logs(id, service, follow, tail, since)
        .await
        .with_context(|| format!("the logs of lease {id} cannot be read"))?;
    while let Some(line) = lines.next().await? {
        if settings.json {
            print(&serde_json::to_string(&line)?)?;
            continue;
        }
        // A pod's own colours are its publisher's to see; only the line is bounded.
        let text = match service {
            Some(_) => line.line,
            None => format!("{} | {}", tame(&line.service), line.line),
        };
        match line.stream {
            LogStream::Stdout => print(&text)?,
            LogStream::Stderr => eprintln!("{text}"),
        }
    }
    Ok(())
}

/// `roadstead account`.
pub(crate) async fn account(settings: &Settings) -> anyhow::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown {
        name: String,
        account: B256,
        /// In units, as all that follow.
        free: Units,
        lockup: Units,
        rate: Rate,
        owed: Units,
        funded_until: u64,
        /// Leases that are open.
        leases: Vec<u64>,
    }
    let chain = settings.connect().await?;
    let owner = wallet::address(&settings.wallet)?;
    let state = State::read(&settings.home, chain.deployment())?;
    let token = chain.token().await?;
    let head = chain.head().await?;
    let mut shown = Vec::new();
    for (id, name) in accounts(&chain, owner, &state).await? {
        let funds =
            Funds { account: chain.payments().account(id).call().await?, now: head.timestamp };
        // One that was named here and never funded is not there yet.
        if funds.account.owner.is_zero() {
            continue;
        }
        let openings =
            chain.openings(None, Some(id), chain.deployment().block, head.number).await?;
        let ids: Vec<u64> = openings.iter().map(|opening| opening.lease).collect();
        let views = chain.lease_views(&ids, None).await?;
        let owed = views.iter().fold(0_u128, |sum, view| sum.saturating_add(view.owed));
        let open = ids.into_iter().zip(&views);
        let open = open.filter(|(_, view)| view.lease.state != LeaseState::Closed as u8);
        shown.push((
            Shown {
                name: name.to_string(),
                account: id,
                free: Units(funds.account.free),
                lockup: Units(funds.account.lockup),
                rate: Rate(funds.account.rate),
                owed: Units(owed),
                funded_until: funds.account.fundedUntil.to(),
                leases: open.map(|(id, _view)| id).collect(),
            },
            funds,
        ));
    }
    let values: Vec<_> = shown.iter().map(|(shown, _funds)| shown).collect();
    show(settings.json, &values, || {
        if shown.is_empty() {
            return format!("wallet {owner} has no account yet; `roadstead fund AMOUNT` makes one");
        }
        let tokens = |units: Units| units.collectable().display(&token);
        let rows = shown.iter().map(|(account, funds)| {
            let leases: Vec<_> = account.leases.iter().map(ToString::to_string).collect();
            vec![
                account.name.clone(),
                tokens(account.free),
                tokens(account.lockup),
                account.rate.per_hour(&token),
                runway(funds.account.fundedUntil, funds.now),
                tokens(account.owed),
                leases.join(" "),
            ]
        });
        let mut text = table(
            &["ACCOUNT", "HOLDS", "LOCKED", "SPENDS", "RUNWAY", "TO COLLECT", "LEASES"],
            rows,
        );
        // What a table has no room to say.
        let _infallible = write!(text, "\namounts in {}", token.symbol);
        text
    })
}

/// Where a lease's hosts and public ports are, for people.
pub(crate) fn places(urls: &[String], ports: &[PublicPort]) -> Vec<String> {
    let urls = urls.iter().map(|url| tame(url));
    let ports = ports.iter().map(|PublicPort { address, port, service }| {
        let transport = match port.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        format!("{transport} {} → {}:{}", tame(address), tame(service), port.number)
    });
    urls.chain(ports).collect()
}

fn notes(status: &LeaseStatus) -> Vec<String> {
    status.notes.iter().map(|note| tame(note)).collect()
}

/// What a deploy or an update ends with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Deployed<'a> {
    lease: u64,
    app: Option<&'a str>,
    provider: Address,
    account: B256,
    rate: Rate,
    funded_until: u64,
    urls: &'a [String],
    ports: &'a [PublicPort],
    notes: Vec<String>,
}

/// Prints what runs now, what it costs and how long that lasts.
pub(crate) async fn deployed(
    settings: &Settings,
    session: &Session,
    opened: &deploy::Opened,
    status: &LeaseStatus,
    app: Option<&str>,
) -> anyhow::Result<()> {
    let funds = Funds::read(session, opened.account).await?;
    let value = Deployed {
        lease: opened.lease,
        app,
        provider: opened.provider,
        account: opened.account,
        rate: opened.rate,
        funded_until: funds.account.fundedUntil.to(),
        urls: &status.urls,
        ports: &status.ports,
        notes: notes(status),
    };
    show(settings.json, &value, || {
        let mut text = format!("lease {} runs at {}", opened.lease, opened.provider);
        for place in places(&status.urls, &status.ports) {
            text.push_str(&format!("\n  {place}"));
        }
        for note in &value.notes {
            text.push_str(&format!("\nnote: {note}"));
        }
        text.push_str(&format!("\nit costs {}", price(opened.rate, &session.token)));
        text.push_str(&format!("\nthe account holds {}", money::standing(session, &funds)));
        text
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn prices_are_parted_by_what_somebody_charges_for() {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        let of = |text: &str| Rate::parse(text, &token).unwrap();
        let plain = PriceBreakdown { cpu: of("0.01/h"), ..PriceBreakdown::default() };
        let more = PriceBreakdown { egress: of("0.002/h"), gpus: of("0.50/h"), ..plain };
        let (one, two) = (Address::repeat_byte(0xab), Address::repeat_byte(0xcd));
        expect![[r#"
            OF WHICH       CPU
            0xABaBaB…ABaB  0.01/h"#]]
        .assert_eq(&breakdown(&[(one, plain)], &token));
        expect![[r#"
            OF WHICH       CPU     EGRESS   GPUS
            0xABaBaB…ABaB  0.01/h  0.00/h   0.00/h
            0xCdCDCd…CDcD  0.01/h  0.002/h  0.50/h"#]]
        .assert_eq(&breakdown(&[(one, plain), (two, more)], &token));
    }

    fn listed(lease: u64, state: LeaseState) -> Listed {
        Listed {
            lease,
            app: Some("shop".into()),
            state,
            phase: Some(Phase::Running),
            message: None,
            reachable: true,
            answers: true,
            backing: (Amount(0), 0),
            provider: Address::repeat_byte(0xab),
            account: AccountId(B256::ZERO),
            slot: 0,
            rate: Rate(5_555_555_555),
            activated_at: 1_000,
            leaves_at: None,
            ended_at: None,
            funded_until: 1_000 + 3 * 86_400 + 4 * 3_600,
            close_reason: None,
            urls: vec!["http://shop.localhost:8080".into()],
            ports: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn leases_are_listed_for_people() {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        let rows = [
            listed(7, LeaseState::Active),
            Listed { phase: None, app: None, urls: Vec::new(), ..listed(8, LeaseState::Pending) },
            Listed {
                phase: None,
                ended_at: Some(1_030),
                close_reason: Some(CloseReason::PayerDone),
                urls: Vec::new(),
                ..listed(9, LeaseState::Closed)
            },
        ];
        expect![[r#"
            LEASE  APP   STATE                 PROVIDER       PRICE   SINCE    RUNWAY                     WHERE
            7      shop  active, running       0xABaBaB…ABaB  0.02/h  1m ago   3d 3h of runway            http://shop.localhost:8080
            8            pending, unreachable  0xABaBaB…ABaB  0.02/h  1m ago   3d 3h of runway
            9      shop  closed                0xABaBaB…ABaB  0.02/h  30s ago  its payer is done with it"#]]
        .assert_eq(&ps_table(&rows, &token, 1_060, true, true));
        assert!(ps_table(&[], &token, 0, true, false).contains("--all"));
        let port = PublicPort {
            address: "p.example.org:20001".into(),
            port: "53/udp".parse().unwrap(),
            service: "dns".into(),
        };
        assert_eq!(
            places(&["http://a".into()], &[port]),
            ["http://a", "udp p.example.org:20001 → dns:53"]
        );
        let leaving = Listed { leaves_at: Some(1_060 + 3_600), ..listed(7, LeaseState::Active) };
        let text = ps_table(&[leaving], &token, 1_060, true, false);
        assert!(text.contains("active, running, its provider leaves in 1h"), "{text}");
        expect!["lease 9 (shop) was closed 30s ago: its payer is done with it"]
            .assert_eq(&rows[2].farewell(1_060));
    }
}
