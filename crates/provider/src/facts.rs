//! The provider's own view of itself: what the admin page shows and `roadstead provider status` prints.

use std::{collections::BTreeMap, net::SocketAddr};

use alloy::primitives::Address;
use protocol::{
    amount::{Amount, Rate, Token, Units},
    lease::{CloseReason, State},
    pod::{Pod, PodHash},
    resources::{PriceList, Resources},
};
use serde::{Deserialize, Serialize};

pub use crate::house::{
    challenges::{Challenge, Outcome},
    mode::{Mode, ModeName},
    pressure::Reserve,
};
use crate::{
    addons::{Addon, BidFacts, Grant, Phase as AddonPhase},
    certificates::unix,
    config::Config,
    house::{self, House},
    leases::{Lease, PodKey},
    reconcile::Shared,
    wire::{EgressTerms, Phase, PublicPort},
};

/// How many days of earnings are told.
const DAYS: u64 = 30;

/// How many closes are told.
const CLOSES: usize = 200;

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Who.
    pub provider: Address,
    /// The program's version.
    pub version: String,
    /// On which chain.
    pub chain_id: u64,
    /// Where the machines are.
    pub region: String,
    /// Where publishers reach the API.
    pub endpoint: String,
    /// The settlement token.
    pub token_symbol: String,
    /// Its decimals.
    pub token_decimals: u8,
    /// When this was so, in Unix seconds.
    pub now: u64,
    /// Whether it takes anything new.
    pub mode: Mode,
    /// How far the chain was read.
    pub head: HeadFacts,
    /// The stake.
    pub bond: Bond,
    /// What is rented out.
    pub capacity: Resources,
    /// What open leases have of it.
    pub used: Resources,
    /// What is left, after volumes that are kept of former leases.
    pub free: Resources,
    /// What is asked.
    pub prices: PriceList,
    /// What a pod may send to the world, and what of that is included.
    #[serde(default)]
    pub egress: EgressTerms,
    /// What open leases bring together.
    pub rate: Rate,
    /// What was not collected yet.
    pub owed: Units,
    /// All that was ever collected.
    pub collected: Amount,
    /// What was collected on each of the last days, the oldest first.
    pub days: Vec<Day>,
    /// When it collects.
    pub meter: Meter,
    /// The leases that are not over.
    pub pods: Vec<PodFacts>,
    /// Those that ended lately, the latest first.
    pub closes: Vec<Close>,
    /// Challenges, the latest first.
    pub challenges: Vec<Challenge>,
    /// The add-ons that are enabled.
    #[serde(default)]
    pub addons: Vec<AddonFacts>,
    /// The orders that the add-on `bidder` dealt with, the latest first.
    #[serde(default)]
    pub bids: Vec<BidFacts>,
    /// What may run short.
    pub reserves: Vec<Reserve>,
    /// What went wrong lately, the latest first.
    pub errors: Vec<Fault>,
}

/// How far the chain was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadFacts {
    /// The last block that was seen.
    pub number: u64,
    /// How old it is, in seconds.
    pub age: u64,
}

/// The stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// All of it.
    pub bonded: Amount,
    /// What backs leases.
    pub locked: Amount,
    /// What may back more of them.
    pub free: Amount,
    /// What is on its way out.
    pub unbonding: Amount,
}

/// What was collected on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// As in `2026-01-31`, UTC.
    pub day: String,
    /// How much.
    pub amount: Amount,
}

/// When the meter collects, and what it did last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meter {
    /// A lease is collected from when it owes this much, or when it is over.
    pub above: Amount,
    /// How often that is looked at, in seconds.
    pub every: u64,
    /// How many leases are to be collected from at the next look.
    pub due: usize,
    /// What came of the last collection, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Its number.
    pub lease: u64,
    /// Where it stands on chain.
    pub state: State,
    /// How far it is here.
    pub phase: Phase,
    /// What is to be said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who pays.
    pub payer: Address,
    /// What it runs.
    pub pod: PodHash,
    /// What it brings.
    pub rate: Rate,
    /// What was not collected yet.
    pub owed: Units,
    /// What of the stake backs it.
    pub coverage: Amount,
    /// When its account runs dry, in Unix seconds.
    pub funded_until: u64,
    /// What it may use.
    pub limits: Resources,
    /// What it uses, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
    /// Its services, each with its container's state.
    pub services: BTreeMap<String, String>,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// The certificates that they are shown with, where this provider serves HTTPS.
    #[serde(default)]
    pub certificates: Vec<CertificateFacts>,
    /// Its public ports that are open.
    #[serde(default)]
    pub ports: Vec<PublicPort>,
    /// Why others are not open that should be.
    #[serde(default)]
    pub port_faults: Vec<String>,
}

/// The certificate of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The host.
    pub host: String,
    /// Who issued it, as it says itself; nothing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Until when it is valid, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Why there is none, or no new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a pod uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Thousandths of a processor.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that volumes take of the disk.
    pub disk: u64,
    /// Bytes that left it since the provider started.
    pub egress: u64,
}

/// A lease that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Its number.
    pub lease: u64,
    /// Who paid.
    pub payer: Address,
    /// When that was seen here, in Unix seconds.
    pub at: u64,
    /// Why, where the chain says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CloseReason>,
}

/// An add-on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonFacts {
    /// Which.
    pub name: Addon,
    /// How far it is.
    pub phase: AddonPhase,
    /// What is to be said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What its image is called.
    pub image: String,
    /// Where its page is, on the provider's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<SocketAddr>,
    /// What it may ask the provider for.
    pub grants: Vec<Grant>,
    /// What it has of the capacity.
    pub reserved: Resources,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it did so last, in Unix seconds.
    pub at: u64,
    /// What it has to do with.
    pub part: String,
    /// What.
    pub words: String,
    /// How often.
    pub times: u64,
}

impl Facts {
    /// The settlement token.
    pub fn token(&self) -> Token {
        Token { symbol: self.token_symbol.clone(), decimals: self.token_decimals }
    }

    /// The mode's name, as it is written.
    pub(crate) fn mode_name(&self) -> &'static str {
        match self.mode.mode {
            ModeName::Open => "open",
            ModeName::Draining => "draining",
            ModeName::Maintenance => "maintenance",
        }
    }
}

/// A phase, as the API writes it.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Seen => "seen",
        Phase::Fetching => "fetching",
        Phase::Locked => "locked",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Unhealthy => "unhealthy",
        Phase::Paused => "paused",
        Phase::Held => "held",
        Phase::Failed => "failed",
        Phase::Closed => "closed",
    }
}

/// What stays the same while a provider runs.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    pub(crate) region: String,
    pub(crate) endpoint: String,
    pub(crate) egress: EgressTerms,
    pub(crate) collect_above: Amount,
    pub(crate) collect_every: u64,
}

impl Fixed {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            region: config.region.clone(),
            endpoint: config.endpoint.clone(),
            egress: config.egress.into(),
            collect_above: config.collect_above,
            collect_every: config.collect_every.as_secs(),
        }
    }
}

/// Gathers what there is to be told.
pub(crate) fn gather(shared: &Shared, fixed: &Fixed) -> Facts {
    let house = &shared.house;
    let snapshot = shared.seen.borrow().clone();
    let stake = house.stake.borrow().clone();
    let now = house::now();
    let open = |lease: &&Lease| matches!(lease.state, State::Pending | State::Active);
    let pods: Vec<PodFacts> =
        snapshot.leases.values().filter(open).map(|lease| pod(shared, &stake, lease)).collect();
    let free = shared.free(snapshot.leases.values().filter(open).map(|lease| lease.pod));
    let used = pods
        .iter()
        .fold(Resources::default(), |sum, pod| sum.checked_add(pod.limits).unwrap_or(sum));
    let owed = snapshot.leases.values().map(|lease| lease.owed.0).fold(0, u128::saturating_add);
    let due = crate::meter::due(&snapshot, fixed.collect_above).len();
    let errors = house.troubles.all().into_iter();
    Facts {
        provider: shared.sender.address(),
        version: env!("CARGO_PKG_VERSION").into(),
        chain_id: shared.sender.chain().id(),
        region: fixed.region.clone(),
        endpoint: fixed.endpoint.clone(),
        token_symbol: house.token.symbol.clone(),
        token_decimals: house.token.decimals,
        now,
        mode: house.mode.now(),
        head: HeadFacts {
            number: snapshot.head.number,
            age: now.saturating_sub(snapshot.head.timestamp),
        },
        bond: Bond {
            bonded: stake.bonded,
            locked: stake.locked,
            free: Amount(stake.bonded.0.saturating_sub(stake.locked.0)),
            unbonding: stake.unbonding,
        },
        capacity: shared.capacity,
        used,
        free,
        prices: house.prices.now(),
        egress: fixed.egress,
        rate: Rate(pods.iter().map(|pod| pod.rate.0).fold(0, u128::saturating_add)),
        owed: Units(owed),
        collected: house.earnings.total(),
        days: days(house, now),
        meter: Meter {
            above: fixed.collect_above,
            every: fixed.collect_every,
            due,
            last: house.last_collection().map(|last| told(&last)),
        },
        pods,
        closes: closes(shared),
        challenges: house.challenges.all(),
        addons: addons(shared),
        bids: shared.bids.all(),
        reserves: house.pressure.all(),
        errors: errors
            .map(|one| Fault { at: one.at, part: one.part, words: one.words, times: one.times })
            .collect(),
    }
}

fn addons(shared: &Shared) -> Vec<AddonFacts> {
    let all = shared.addons.all().into_iter();
    all.map(|(name, standing)| AddonFacts {
        name,
        phase: standing.phase,
        message: standing.message,
        image: standing.image,
        page: standing.page,
        grants: name.grants().to_vec(),
        reserved: standing.reserved,
    })
    .collect()
}

fn days(house: &House, now: u64) -> Vec<Day> {
    let days = house.earnings.days(now, DAYS).into_iter();
    days.map(|(first, amount)| Day {
        day: house::mode::minute(first).get(..10).unwrap_or_default().to_owned(),
        amount,
    })
    .collect()
}

fn told(last: &house::Collected) -> String {
    let at = last.at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = house::mode::minute(at.as_secs());
    let (enough, over) = last.leases;
    match &last.failed {
        None => format!("{at}: from {enough} that owed enough and {over} that are over"),
        Some(why) => format!("{at}: it did not go through ({why})"),
    }
}

fn closes(shared: &Shared) -> Vec<Close> {
    let closes = house::closes(&shared.records).into_iter().take(CLOSES);
    closes
        .filter_map(|record| {
            let (at, reason) = record.ended?;
            let reason = CloseReason::try_from(reason).ok();
            let reason = reason.filter(|reason| *reason != CloseReason::None);
            Some(Close { lease: record.lease, payer: record.payer, at, reason })
        })
        .collect()
}

fn pod(shared: &Shared, stake: &house::Stake, lease: &Lease) -> PodFacts {
    let PodKey { lease: id, .. } = lease.key;
    let status = shared.statuses.get(lease.key);
    let held = lease.state == State::Active && shared.holds.is_held(lease.key);
    let (phase, message) =
        status.map_or((Phase::Seen, None), |status| (status.phase, status.message));
    let (rate, coverage) = stake.leases.get(&id).copied().unwrap_or_default();
    let pod = shared.pods.get(lease.pod).ok();
    let found = shared.house.found.borrow().get(&lease.key).cloned().unwrap_or_default();
    let containers = found.of(shared.runs.serving(lease, &found));
    let used = shared.house.usage.now(lease.key);
    let (ports, port_faults) = shared.ports.of(lease.key, pod.as_ref());
    PodFacts {
        lease: id,
        state: lease.state,
        phase: if held { Phase::Held } else { phase },
        message,
        payer: lease.payer,
        pod: lease.pod,
        rate,
        owed: lease.owed,
        coverage,
        funded_until: lease.funded_until,
        limits: pod.as_ref().map(|pod| pod.resources()).unwrap_or_default(),
        used: used.map(|used| Used {
            cpu: used.cpu,
            memory: used.memory,
            disk: used.disk,
            egress: used.egress,
        }),
        services: containers
            .iter()
            .map(|(name, container)| (name.clone(), container.state.to_string()))
            .collect(),
        hosts: pod.iter().flat_map(|pod| pod.ingress().keys()).map(ToString::to_string).collect(),
        certificates: certificates(shared, lease.key, pod.as_ref()),
        ports,
        port_faults,
    }
}

fn certificates(shared: &Shared, key: PodKey, pod: Option<&Pod>) -> Vec<CertificateFacts> {
    let Some((certificates, pod)) = shared.certificates.as_ref().zip(pod) else {
        return Vec::new();
    };
    let hosts = pod.ingress().keys().map(|host| {
        let (shown, error) = certificates.of(key, host);
        CertificateFacts {
            host: host.to_string(),
            issuer: shown.as_ref().map(|shown| shown.issuer().to_owned()),
            expires: shown.map(|shown| unix(shown.expires())),
            error,
        }
    });
    hosts.collect()
}
