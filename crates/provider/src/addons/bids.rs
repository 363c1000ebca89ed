//! Bids: which orders there are, whether this provider may bid for one, and the bid itself.
//!
//! Who asks is the add-on `bidder`, which is not trusted: it says for which order and how much, and nothing else. What the
//! order is comes from the chain, what it costs from the price list, and what may be risked from the configuration. So the
//! worst bidder sends, within the operator's limits, bids that are too low (never below the floor) or none at all.
//!
//! Who places orders is anybody, at the price of a deposit each. The worst of them withholds what the pod needs once the order
//! is awarded, and is paid what a winner loses that does not start. So a bid that would lose more than the operator allows
//! is not sent; by default that is every bid that would lose anything. So many orders are remembered: those that this
//! provider leads or has won, then the newest.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use chain::{
    OrderStanding, Placement, ReadError, SendError,
    abi::{Auction, IAuction::Order, Leases, Staking},
};
use protocol::{
    amount::{Amount, Rate, Token},
    lease::State,
    resources::{Bytes, Cpu, Resources},
};
use serde::{Deserialize, Serialize};

use crate::{
    causes,
    config::{BidLimits, Terms},
    house,
    reconcile::Shared,
    wire::bids::{Decline, Intent, Made, Obstacle, OpenOrder, OpenOrders, Reason},
};

/// How many orders are remembered.
const MAX_ORDERS: usize = 1_000;

/// How many blocks are read at a time; what was read of them stays so whatever fails afterwards.
const BLOCKS: u64 = 10_000;

/// The longest reason of a bidder's that is remembered, in characters.
const MAX_WORDS: usize = 200;

/// The states of an order in the contract.
const OPEN: u8 = 1;
const AWARDED: u8 = 2;
const OVER: u8 = 3;

/// How an order stands that this provider had to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It has made no bid.
    NoBid,
    /// Its bid leads.
    Leads,
    /// Another one leads.
    Outbid,
    /// It was awarded the order.
    Won,
    /// Another one was.
    Lost,
    /// The order is over, and this provider has no part in it.
    Over,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NoBid => "no bid",
            Self::Leads => "leads",
            Self::Outbid => "outbid",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Over => "over",
        })
    }
}

/// An order, as this provider's bidder dealt with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BidFacts {
    /// Its number.
    pub order: u64,
    /// How it stands.
    pub standing: Standing,
    /// The lease that this provider won with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// What its publisher pays at most.
    pub max_rate: Rate,
    /// What the price list said that it costs.
    pub list_price: Rate,
    /// What was bid last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Why there is no bid, or no further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Obstacle>,
    /// The last second in which a bid is taken.
    pub deadline: u64,
    /// When that was found out, in Unix seconds.
    pub at: u64,
}

/// A bid that was not sent, or did not lead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BidError {
    #[error("order {0} is not one that bids are taken for")]
    Unknown(u64),
    #[error("this provider leads order {0} already")]
    Leads(u64),
    #[error("{}", .0.words)]
    Obstacle(Obstacle),
    #[error("the chain does not answer; try again later")]
    Chain(#[from] ReadError),
    #[error("the bid was not sent")]
    Send(#[from] SendError),
}

/// Everything about bids.
#[derive(Debug)]
pub(crate) struct Bids {
    limits: BidLimits,
    terms: Terms,
    read: tokio::sync::Mutex<Read>,
    told: Mutex<BTreeMap<u64, BidFacts>>,
    /// When bids were sent within the last hour. Held while one is sent: limits hold for one after the other.
    sent: tokio::sync::Mutex<VecDeque<Instant>>,
}

/// What was read of the chain's orders.
#[derive(Debug, Default)]
struct Read {
    /// The first block that was not read for good.
    next: u64,
    /// Those that were placed before that.
    known: BTreeMap<u64, Known>,
    /// As of which block the rest is.
    head: Option<u64>,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Known {
    placement: Placement,
    /// Since which block it was seen to be over.
    over: Option<u64>,
    /// Whether this provider led it, or had won it, when that was looked at last.
    ours: bool,
}

impl Known {
    fn note(&mut self, standing: &OrderStanding, me: Address, head: u64) {
        let view = &standing.view;
        self.ours = view.leader == me && matches!(view.state, OPEN | AWARDED);
        match view.state {
            OVER => _ = self.over.get_or_insert(head),
            _ => self.over = None,
        }
    }

    /// What is forgotten last matters most.
    fn matters(&self) -> u8 {
        match (self.ours, self.over) {
            (true, _) => 2,
            (false, None) => 1,
            (false, Some(_)) => 0,
        }
    }
}

/// Forgets what there is too much of: of those that matter least, the oldest first.
fn trim<T>(all: &mut BTreeMap<u64, T>, most: usize, matters: impl Fn(&T) -> u8) {
    let many = all.len().saturating_sub(most);
    if many == 0 {
        return;
    }
    let mut order: Vec<(u8, u64)> = all.iter().map(|(id, one)| (matters(one), *id)).collect();
    order.sort_unstable();
    for (_matters, id) in order.into_iter().take(many) {
        all.remove(&id);
    }
}

#[derive(Debug, Default)]
struct Seen {
    now: u64,
    orders: Vec<(Placement, OrderStanding)>,
    /// How the leases stand that this provider won with orders that are not settled.
    won: BTreeMap<u64, State>,
    vouched: BTreeMap<(Address, B256), u64>,
    /// Of the bond, in token base units.
    free: u128,
    no_show_bps: u16,
}

impl Seen {
    /// What `me` bound by bids: of the bond, and the pods for which no lease has the room yet. What an order was won with stays
    /// bound as long as its lease is open, and what a no-show would cost until the order is settled.
    fn bound(&self, me: Address, has_room: impl Fn(u64) -> bool) -> (u128, Vec<Option<Resources>>) {
        let (mut binds, mut pods) = (0_u128, Vec::new());
        for (placement, OrderStanding { view, .. }) in &self.orders {
            if view.leader != me {
                continue;
            }
            let lease = self.won.get(&view.lease);
            let open = view.state == OPEN || matches!(lease, Some(State::Pending | State::Active));
            binds = binds.saturating_add(match open {
                true => bound(view.coverage, self.no_show_bps),
                false => no_show(view.coverage, self.no_show_bps),
            });
            if open && !(view.state == AWARDED && has_room(view.lease)) {
                pods.push(resources(&placement.order));
            }
        }
        (binds, pods)
    }
}

/// What an order is held against.
#[derive(Debug)]
struct House<'a> {
    me: Address,
    now: u64,
    closed: Option<String>,
    free: Option<Resources>,
    bond: u128,
    /// What bids of this provider's bind already.
    bound: u128,
    no_show_bps: u16,
    vouched: &'a BTreeMap<(Address, B256), u64>,
    limits: BidLimits,
    terms: Terms,
    token: &'a Token,
}

/// What a win binds beside the coverage, and loses where it does not start: rounded down, as Auction does.
fn no_show(coverage: u128, bps: u16) -> u128 {
    let (whole, rest, bps) = (coverage / 10_000, coverage % 10_000, u128::from(bps));
    whole.saturating_mul(bps).saturating_add(rest * bps / 10_000)
}

fn bound(coverage: u128, bps: u16) -> u128 {
    coverage.saturating_add(no_show(coverage, bps))
}

/// What an order's pod may use; `None` where that is more than any machine has.
pub(crate) fn resources(order: &Order) -> Option<Resources> {
    let mib = |count: u64| count.checked_mul(1 << 20).map(Bytes);
    Some(Resources {
        cpu: Cpu(order.cpu),
        memory: mib(order.memoryMiB)?,
        storage: mib(order.storageMiB)?,
        // An order cannot ask for any.
        gpus: 0,
    })
}

/// The least that is bid: that many hundredths of the list price, rounded up, as less would be below the floor.
fn floor(list: Rate, percent: u32) -> Rate {
    let (whole, rest, percent) = (list.0 / 100, list.0 % 100, u128::from(percent));
    Rate(whole.saturating_mul(percent).saturating_add((rest * percent).div_ceil(100)))
}

impl House<'_> {
    /// Why no bid may be sent for an order that others lead, or nobody.
    fn obstacle(&self, order: &Order, standing: &OrderStanding, least: Rate) -> Option<Obstacle> {
        let some = |reason: Reason, words: String| Some(Obstacle { reason, words });
        let tokens =
            |amount: u128| format!("{} {}", Amount(amount).display(self.token), self.token.symbol);
        let deadline = standing.view.deadline.to::<u64>();
        if self.now > deadline {
            return some(Reason::Late, format!("bids ended {} s ago", self.now - deadline));
        }
        if let Some(words) = &self.closed {
            return some(Reason::Closed, words.clone());
        }
        let needed = resources(order);
        if !needed.zip(self.free).is_some_and(|(needed, free)| needed.fits_in(&free)) {
            let needed = needed.map_or("more than there is".into(), |needed| needed.to_string());
            let free = self.free.unwrap_or_default();
            let words = format!("it needs {needed}, and {free} are free beside leases and bids");
            return some(Reason::NoRoom, words);
        }
        for required in &order.requirements {
            let auditor = if required.auditor.is_zero() { self.me } else { required.auditor };
            let until = self.vouched.get(&(auditor, required.attribute)).copied();
            if until.unwrap_or_default() < self.now {
                let attribute = required.attribute;
                let words = format!(
                    "it requires attribute {attribute}, and {auditor} does not vouch that this provider has it"
                );
                return some(Reason::Unfit, words);
            }
        }
        let secs = |value: alloy::primitives::aliases::U24| value.to::<u32>();
        for (what, asked, offered, fits) in [
            ("answers within", secs(order.response), self.terms.response, true),
            ("starts within", secs(order.startWithin), self.terms.start_within, true),
            ("a lock of", order.lock, self.terms.lock, true),
            ("a notice of", secs(order.notice), self.terms.notice, false),
        ] {
            if asked != offered && (asked < offered) == fits {
                let words = format!("it wants {what} {asked} s; terms have {offered} s");
                return some(Reason::Terms, words);
            }
        }
        let (coverage, lost) = (order.coverage, no_show(order.coverage, self.no_show_bps));
        let most = self.limits.max_coverage.0.min(self.terms.max_coverage.0);
        if coverage > most {
            let words =
                format!("it asks for {} of coverage; at most {}", tokens(coverage), tokens(most));
            return some(Reason::CoverageLimit, words);
        }
        if lost > self.limits.max_no_show.0 {
            let words = format!(
                "a win that does not start loses {}, also where its publisher withholds the pod; bids.max_no_show is {}",
                tokens(lost),
                tokens(self.limits.max_no_show.0)
            );
            return some(Reason::NoShowLimit, words);
        }
        let binds = bound(coverage, self.no_show_bps);
        if self.bound.saturating_add(binds) > self.limits.max_bound.0 {
            let words = format!(
                "it binds {}, and other bids {}; bids.max_bound is {}",
                tokens(binds),
                tokens(self.bound),
                tokens(self.limits.max_bound.0)
            );
            return some(Reason::BoundLimit, words);
        }
        if binds > self.bond {
            let words = format!(
                "it binds {} of the bond, and {} are free",
                tokens(binds),
                tokens(self.bond)
            );
            return some(Reason::NoStake, words);
        }
        if standing.next_rate < least.0 {
            let words = format!(
                "it takes at most {}, and the floor of bids is {}",
                Rate(standing.next_rate).per_hour(self.token),
                least.per_hour(self.token)
            );
            return some(Reason::BelowFloor, words);
        }
        None
    }
}

impl Bids {
    pub(crate) fn new(limits: BidLimits, terms: Terms) -> Self {
        Self {
            limits,
            terms,
            read: tokio::sync::Mutex::default(),
            told: Mutex::default(),
            sent: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, BidFacts>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of orders, the latest first.
    pub(crate) fn all(&self) -> Vec<BidFacts> {
        self.lock().values().rev().cloned().collect()
    }

    /// What the chain has of orders, as of the head that was seen last.
    async fn seen(&self, shared: &Shared) -> Result<Arc<Seen>, ReadError> {
        let snapshot = shared.seen.borrow().clone();
        let mut read = self.read.lock().await;
        if read.head == Some(snapshot.head.number) {
            return Ok(Arc::clone(&read.seen));
        }
        let (chain, me) = (shared.sender.chain(), shared.sender.address());
        let from = read.next.max(chain.deployment().block);
        let (head, confirmed) = (snapshot.head.number, snapshot.confirmed);
        let (mut recent, mut start) = (Vec::new(), from);
        while start <= head {
            let end = head.min(start.saturating_add(BLOCKS - 1));
            for placement in chain.placed(start, end).await? {
                match placement.block <= confirmed {
                    true => {
                        let known = Known { placement, over: None, ours: false };
                        read.known.insert(known.placement.id, known);
                    }
                    // Read anew each time: a reorganisation may take it back.
                    false => recent.push(placement),
                }
            }
            read.next = read.next.max(end.min(confirmed) + 1);
            if read.known.len() > MAX_ORDERS {
                // Which of them are this provider's has to be known before any is forgotten.
                let ids: Vec<u64> = read.known.keys().copied().collect();
                let standings = chain.order_standings(&ids).await?;
                for (known, standing) in read.known.values_mut().zip(&standings) {
                    known.note(standing, me, head);
                }
                trim(&mut read.known, MAX_ORDERS, Known::matters);
            }
            start = end + 1;
        }
        read.known.retain(|_, known| known.over.is_none_or(|over| over > confirmed));
        let known = read.known.values().map(|known| known.placement.clone());
        let all: Vec<Placement> = known.chain(recent).collect();
        let ids: Vec<u64> = all.iter().map(|placement| placement.id).collect();
        let standings = chain.order_standings(&ids).await?;
        let mut orders = Vec::new();
        for (placement, standing) in all.into_iter().zip(standings) {
            if let Some(known) = read.known.get_mut(&placement.id) {
                known.note(&standing, me, head);
            }
            self.follow(placement.id, me, &standing);
            if matches!(standing.view.state, OPEN | AWARDED) {
                orders.push((placement, standing));
            }
        }
        let won = orders.iter().map(|(_, standing)| &standing.view);
        let won = won.filter(|view| view.state == AWARDED && view.leader == me);
        let won: Vec<u64> = won.map(|view| view.lease).collect();
        let states = chain.lease_views(&won, None).await?;
        let states = states.iter().map(|view| view.lease.state.try_into().unwrap_or(State::None));
        let won = won.iter().copied().zip(states).collect();
        let mut vouches: Vec<(Address, B256)> = orders
            .iter()
            .flat_map(|(placement, _)| &placement.order.requirements)
            .map(|required| {
                let own = required.auditor.is_zero();
                (if own { me } else { required.auditor }, required.attribute)
            })
            .collect();
        vouches.sort_unstable();
        vouches.dedup();
        let until = chain.vouched_until(me, &vouches).await?;
        let bond = chain.staking().bondOf(me).call().await?;
        let seen = Arc::new(Seen {
            now: snapshot.head.timestamp,
            orders,
            won,
            vouched: vouches.into_iter().zip(until).collect(),
            free: bond.bonded.saturating_sub(bond.locked),
            no_show_bps: chain.auction().NO_SHOW_BPS().call().await?,
        });
        read.head = Some(head);
        read.seen = Arc::clone(&seen);
        Ok(seen)
    }

    /// Brings up to date what is told of an order.
    fn follow(&self, order: u64, me: Address, standing: &OrderStanding) {
        let mut told = self.lock();
        let Some(facts) = told.get_mut(&order) else { return };
        let (view, mine) = (&standing.view, standing.view.leader == me);
        facts.deadline = view.deadline.to();
        facts.standing = match (view.state, mine) {
            (OPEN, true) => Standing::Leads,
            (OPEN, false) if facts.rate.is_some() => Standing::Outbid,
            (OPEN, false) => Standing::NoBid,
            (AWARDED, true) => Standing::Won,
            (AWARDED, false) => Standing::Lost,
            // What was won stays so when the order is settled.
            (_, _) if facts.standing == Standing::Won => Standing::Won,
            (_, _) => Standing::Over,
        };
        match (view.state, mine) {
            (AWARDED, true) => facts.lease = Some(view.lease),
            // It was opened anew, as the one that had won did not start.
            (OPEN, _) => facts.lease = None,
            (_, _) => (),
        }
    }

    /// What orders are held against now.
    fn house<'a>(&self, shared: &'a Shared, seen: &'a Seen) -> House<'a> {
        let me = shared.sender.address();
        let snapshot = shared.seen.borrow().clone();
        let open = snapshot.leases.values();
        let open = open.filter(|lease| matches!(lease.state, State::Pending | State::Active));
        let mut free = Some(shared.free(open.map(|lease| lease.pod)));
        let has_room = |lease| snapshot.leases.keys().any(|key| key.lease == lease);
        let (binds, pods) = seen.bound(me, has_room);
        for needed in pods {
            free = free.zip(needed).and_then(|(free, needed)| free.checked_sub(needed));
        }
        House {
            me,
            now: seen.now,
            closed: shared.house.may_quote(false).err().map(|err| err.to_string()),
            free,
            bond: seen.free,
            bound: binds,
            no_show_bps: seen.no_show_bps,
            vouched: &seen.vouched,
            limits: self.limits,
            terms: self.terms,
            token: &shared.house.token,
        }
    }

    /// The orders that bids are taken for. What keeps this provider from bidding is remembered, to be told.
    pub(crate) async fn orders(&self, shared: &Shared) -> Result<OpenOrders, ReadError> {
        let seen = self.seen(shared).await?;
        let house = self.house(shared, &seen);
        let open = seen.orders.iter().filter(|(_, standing)| standing.view.state == OPEN);
        let orders = open.filter_map(|(placement, standing)| {
            let order = self.open(shared, &house, placement, standing);
            // Those whose time was over before are of no interest.
            let news = seen.now <= order.deadline || self.lock().contains_key(&order.order);
            news.then(|| {
                self.note(&order, |facts| {
                    facts.standing = match (order.leads, facts.rate) {
                        (true, _) => Standing::Leads,
                        (false, Some(_)) => Standing::Outbid,
                        (false, None) => Standing::NoBid,
                    };
                    if order.leads {
                        facts.why = None;
                    } else if order.obstacle.is_some() {
                        facts.why.clone_from(&order.obstacle);
                    }
                });
                order
            })
        });
        Ok(OpenOrders {
            provider: house.me,
            now: seen.now,
            orders: orders.filter(|order| seen.now <= order.deadline).collect(),
        })
    }

    fn open(
        &self,
        shared: &Shared,
        house: &House<'_>,
        placement: &Placement,
        standing: &OrderStanding,
    ) -> OpenOrder {
        let (order, view) = (&placement.order, &standing.view);
        let price = resources(order).map(|needed| shared.house.prices.now().price(&needed.into()));
        // What does not fit into a number has no room either.
        let list = price.and_then(Result::ok).map_or(Rate(u128::MAX), |price| price.total);
        let least = floor(list, self.limits.floor);
        let leads = view.leader == house.me;
        OpenOrder {
            order: placement.id,
            payer: placement.payer,
            pod: order.pod,
            cpu: order.cpu,
            memory: order.memoryMiB,
            storage: order.storageMiB,
            coverage: Amount(order.coverage),
            max_rate: Rate(order.maxRate),
            next_rate: Rate(standing.next_rate),
            leader: Some(view.leader).filter(|leader| !leader.is_zero()),
            leads,
            bids: view.bids,
            deadline: view.deadline.to(),
            uri: order.uri.clone(),
            list_price: list,
            floor: least,
            obstacle: match leads {
                true => None,
                false => house.obstacle(order, standing, least),
            },
        }
    }

    fn note(&self, order: &OpenOrder, change: impl FnOnce(&mut BidFacts)) {
        let mut told = self.lock();
        let facts = told.entry(order.order).or_insert_with(|| BidFacts {
            order: order.order,
            standing: Standing::NoBid,
            lease: None,
            max_rate: order.max_rate,
            list_price: order.list_price,
            rate: None,
            why: None,
            deadline: order.deadline,
            at: house::now(),
        });
        let before = facts.clone();
        facts.list_price = order.list_price;
        facts.deadline = order.deadline;
        change(facts);
        if *facts == before {
            return;
        }
        facts.at = house::now();
        if facts.why != before.why
            && let Some(why) = &facts.why
        {
            tracing::info!(order = facts.order, reason = %why.reason, "no bid for order {}: {}", facts.order, why.words);
        }
        trim(&mut told, MAX_ORDERS, |facts| match facts.standing {
            Standing::Leads | Standing::Won => 2,
            Standing::Outbid | Standing::Lost => 1,
            Standing::NoBid | Standing::Over => 0,
        });
    }

    /// Remembers why the bidder does not bid.
    pub(crate) async fn decline(&self, shared: &Shared, decline: Decline) -> Result<(), BidError> {
        let order = self.find(shared, decline.order).await?;
        let Decline { why: Obstacle { reason, words }, .. } = decline;
        let words = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
        self.note(&order, |facts| facts.why = Some(Obstacle { reason, words }));
        Ok(())
    }

    /// The order that bids are taken for under that number.
    async fn find(&self, shared: &Shared, order: u64) -> Result<OpenOrder, BidError> {
        let seen = self.seen(shared).await?;
        let found = seen
            .orders
            .iter()
            .find(|(placement, standing)| placement.id == order && standing.view.state == OPEN);
        let (placement, standing) = found.ok_or(BidError::Unknown(order))?;
        Ok(self.open(shared, &self.house(shared, &seen), placement, standing))
    }

    /// Sends a bid, if nothing stands against it.
    pub(crate) async fn bid(&self, shared: &Shared, intent: Intent) -> Result<Made, BidError> {
        let mut sent = self.sent.lock().await;
        let order = self.find(shared, intent.order).await?;
        if order.leads {
            return Err(BidError::Leads(intent.order));
        }
        let token = &shared.house.token;
        let obstacle = order.obstacle.clone().or_else(|| {
            let (rate, next) = (intent.rate, order.next_rate);
            let refused = |reason: Reason, words: String| Some(Obstacle { reason, words });
            let shown = |rate: Rate| rate.per_hour(token);
            if rate.0 == 0 || rate < order.floor {
                let words = format!(
                    "the bidder wants {}, and the floor of bids is {}",
                    shown(rate),
                    shown(order.floor)
                );
                return refused(Reason::BelowFloor, words);
            }
            if rate > next {
                let words = format!(
                    "the bidder wants {}, and it takes at most {}",
                    shown(rate),
                    shown(next)
                );
                return refused(Reason::Dearer, words);
            }
            while sent.front().is_some_and(|then| then.elapsed() > Duration::from_secs(3_600)) {
                sent.pop_front();
            }
            let most = usize::try_from(self.limits.per_hour).unwrap_or(usize::MAX);
            if sent.len() >= most {
                let words =
                    format!("{most} bids were sent within the hour; bids.per_hour has more");
                return refused(Reason::BidsLimit, words);
            }
            None
        });
        if let Some(obstacle) = obstacle {
            self.note(&order, |facts| facts.why = Some(obstacle.clone()));
            return Err(BidError::Obstacle(obstacle));
        }
        sent.push_back(Instant::now());
        let made = self.send(shared, intent).await;
        // Whatever came of it, what was read before is not so any more.
        self.read.lock().await.head = None;
        match made {
            Ok(made) => {
                let shown = made.rate.per_hour(token);
                tracing::info!(order = made.order, "bid {shown} for order {}", made.order);
                self.note(&order, |facts| {
                    facts.rate = Some(made.rate);
                    facts.standing = Standing::Leads;
                    facts.why = None;
                    facts.deadline = made.deadline;
                });
                Ok(made)
            }
            Err(err) => {
                if !matches!(&err, BidError::Send(SendError::Reverted(..) | SendError::Stuck(_))) {
                    // Nothing came to the chain, which is what the limit is for.
                    sent.pop_back();
                }
                let (reason, words) = (Reason::Refused, causes(&err));
                self.note(&order, |facts| facts.why = Some(Obstacle { reason, words }));
                Err(err)
            }
        }
    }

    async fn send(&self, shared: &Shared, intent: Intent) -> Result<Made, BidError> {
        let (sender, chain) = (&shared.sender, shared.sender.chain());
        let (me, deployment) = (sender.address(), chain.deployment());
        let read = |err: alloy::contract::Error| BidError::Chain(err.into());
        if !chain.leases().isIssuer(me, deployment.auction).call().await.map_err(read)? {
            let call = Leases::setIssuerCall { issuer: deployment.auction, allowed: true };
            sender.send(deployment.leases, &call).await?;
        }
        for locker in [deployment.leases, deployment.auction] {
            if !chain.staking().isLocker(me, locker).call().await.map_err(read)? {
                let call = Staking::setLockerCall { locker, allowed: true };
                sender.send(deployment.staking, &call).await?;
            }
        }
        let seen = self.seen(shared).await?;
        let found = seen.orders.iter().find(|(placement, _)| placement.id == intent.order);
        let (placement, standing) = found.ok_or(BidError::Unknown(intent.order))?;
        let requirements = placement.order.requirements.clone();
        let call = Auction::bidCall { id: intent.order, rate: intent.rate.0, requirements };
        let receipt = sender.send(deployment.auction, &call).await?;
        let bid = receipt.logs().iter().find_map(|log| log.log_decode::<Auction::Bid>().ok());
        let deadline = bid.map_or(standing.view.deadline, |bid| bid.inner.data.deadline);
        Ok(Made { order: intent.order, rate: intent.rate, deadline: deadline.to() })
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::aliases::{U24, U40};
    use chain::abi::IAuction::{OrderView, Requirement};

    use super::*;

    #[test]
    fn floors_and_what_a_win_may_lose_are_whole_units() {
        for (list, percent, wanted) in
            [(100, 100, 100), (101, 90, 91), (1, 1, 1), (0, 100, 0), (7, 0, 0)]
        {
            assert_eq!(floor(Rate(list), percent), Rate(wanted), "{list} {percent}");
        }
        assert_eq!(floor(Rate(u128::MAX), 200), Rate(u128::MAX));
        for (coverage, bps, lost) in [(0, 1_000, 0), (9, 1_000, 0), (10, 1_000, 1)] {
            assert_eq!(no_show(coverage, bps), lost);
            assert_eq!(bound(coverage, bps), coverage + lost);
        }
    }

    #[test]
    fn what_is_this_providers_is_forgotten_last() {
        let mut all = BTreeMap::from([(1, 2), (2, 0), (3, 1), (4, 0), (5, 1)]);
        let mut check = |most: usize, left: &[u64]| {
            trim(&mut all, most, |matters| *matters);
            assert_eq!(all.keys().copied().collect::<Vec<_>>(), left, "{most}");
        };
        check(5, &[1, 2, 3, 4, 5]);
        check(4, &[1, 3, 4, 5]);
        check(2, &[1, 5]);
        check(1, &[1]);
        check(0, &[]);

        let (me, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let placement = Placement { id: 1, payer: other, order: Order::default(), block: 1 };
        let mut known = Known { placement, over: None, ours: false };
        for (state, leader, head, over, matters) in [
            (OPEN, other, 7, None, 1),
            (OPEN, me, 8, None, 2),
            (AWARDED, me, 9, None, 2),
            (OVER, me, 10, Some(10), 0),
            (OVER, me, 11, Some(10), 0),
            // A reorganisation took that back, and what did not start is open again.
            (OPEN, Address::ZERO, 12, None, 1),
        ] {
            let view = OrderView { state, leader, ..OrderView::default() };
            known.note(&OrderStanding { view, next_rate: 0 }, me, head);
            assert_eq!((known.over, known.matters()), (over, matters), "{state} at {head}");
        }
    }

    #[test]
    fn what_was_won_binds_room_and_bond_while_its_lease_is_open() {
        let (me, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let order = Order { cpu: 100, ..Order::default() };
        let check = |what: &str,
                     state: u8,
                     leader: Address,
                     lease: Option<State>,
                     room: bool,
                     wanted: (u128, usize)| {
            let placement = Placement { id: 1, payer: other, order: order.clone(), block: 1 };
            let view =
                OrderView { state, leader, lease: 7, coverage: 1_000, ..OrderView::default() };
            let seen = Seen {
                orders: vec![(placement, OrderStanding { view, next_rate: 0 })],
                won: lease.map(|state| (7, state)).into_iter().collect(),
                no_show_bps: 1_000,
                ..Seen::default()
            };
            let (binds, pods) = seen.bound(me, |lease| lease == 7 && room);
            assert_eq!((binds, pods.len()), wanted, "{what}");
        };
        check("somebody else leads", OPEN, other, None, false, (0, 0));
        check("it leads", OPEN, me, None, false, (1_100, 1));
        check("it won", AWARDED, me, Some(State::Pending), false, (1_100, 1));
        check("its lease has the room", AWARDED, me, Some(State::Pending), true, (1_100, 0));
        check("it runs", AWARDED, me, Some(State::Active), true, (1_100, 0));
        check("its lease is over", AWARDED, me, Some(State::Closed), true, (100, 0));
        check("its lease is forgotten", AWARDED, me, Some(State::Closed), false, (100, 0));
    }

    #[test]
    fn a_bid_has_every_obstacle_against_it_that_there_is() {
        let me = Address::repeat_byte(1);
        let auditor = Address::repeat_byte(2);
        let vouched = BTreeMap::from([((auditor, B256::ZERO), 1_000)]);
        let token = Token { symbol: "USD".into(), decimals: 6 };
        let mib = |count: u64| Bytes(count << 20);
        let house = || House {
            me,
            now: 1_000,
            closed: None,
            free: Some(Resources { cpu: Cpu(500), memory: mib(64), storage: mib(10), gpus: 1 }),
            bond: 1_100,
            bound: 500,
            no_show_bps: 1_000,
            vouched: &vouched,
            limits: BidLimits {
                max_coverage: Amount(1_000),
                max_no_show: Amount(100),
                max_bound: Amount(1_600),
                ..BidLimits::default()
            },
            terms: Terms::default(),
            token: &token,
        };
        let order = || Order {
            cpu: 500,
            memoryMiB: 64,
            storageMiB: 10,
            coverage: 1_000,
            lock: 3_600,
            response: U24::from(300),
            startWithin: U24::from(600),
            notice: U24::from(86_400),
            requirements: vec![Requirement { auditor, attribute: B256::ZERO }],
            ..Order::default()
        };
        let standing = OrderStanding {
            view: OrderView { deadline: U40::from(1_000), ..OrderView::default() },
            next_rate: 100,
        };
        let check =
            |what: &str, change: &dyn Fn(&mut House<'_>, &mut Order), wanted: Option<Reason>| {
                let (mut house, mut order) = (house(), order());
                change(&mut house, &mut order);
                let found = house.obstacle(&order, &standing, Rate(100));
                assert_eq!(found.as_ref().map(|found| found.reason), wanted, "{what}: {found:?}");
            };
        check("everything is just enough", &|_, _| (), None);
        check("late", &|house, _| house.now = 1_001, Some(Reason::Late));
        check(
            "closed",
            &|house, _| house.closed = Some("maintenance".into()),
            Some(Reason::Closed),
        );
        check("cpu", &|_, order| order.cpu = 501, Some(Reason::NoRoom));
        check("memory", &|_, order| order.memoryMiB = u64::MAX, Some(Reason::NoRoom));
        check("overbooked", &|house, _| house.free = None, Some(Reason::NoRoom));
        check(
            "the auditor is another",
            &|_, order| order.requirements[0].auditor = Address::ZERO,
            Some(Reason::Unfit),
        );
        check("response", &|_, order| order.response = U24::from(299), Some(Reason::Terms));
        check("start", &|_, order| order.startWithin = U24::from(599), Some(Reason::Terms));
        check("lock", &|_, order| order.lock = 3_599, Some(Reason::Terms));
        check("notice", &|_, order| order.notice = U24::from(86_401), Some(Reason::Terms));
        check("coverage", &|_, order| order.coverage = 1_001, Some(Reason::CoverageLimit));
        check(
            "no-show",
            &|house, _| house.limits.max_no_show = Amount(99),
            Some(Reason::NoShowLimit),
        );
        check("bound", &|house, _| house.bound = 501, Some(Reason::BoundLimit));
        check("stake", &|house, _| house.bond = 1_099, Some(Reason::NoStake));
        let low = OrderStanding { next_rate: 99, ..standing.clone() };
        let found = house().obstacle(&order(), &low, Rate(100)).map(|found| found.reason);
        assert_eq!(found, Some(Reason::BelowFloor));
    }
}
