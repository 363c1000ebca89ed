//! `roadstead bid`: a provider offers to run what an order asks for.

use alloy::primitives::Address;
use anyhow::{bail, ensure};
use chain::{
    Chain,
    abi::{Auction, Leases, Staking},
};
use clap::Subcommand;
use protocol::{
    amount::{Amount, Rate},
    pod::MaxPrice,
};

use crate::{
    order::{self, Known, State},
    output::{self, moment},
    progress::{OnStderr, Progress},
    publish::{consent, may_spend, session},
    session::{Session, emitted},
    settings::Settings,
};

/// A bid.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    /// The order's number
    #[arg(required = true)]
    id: Option<u64>,
    /// For how much, in whole tokens per s, m, h, d or mo [default: the most that may be bid]
    rate: Option<MaxPrice>,
    /// Do not ask before the bond is bound
    #[arg(long, short)]
    yes: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What else to do with bids.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take a leader off an order that can no longer be awarded; anybody may
    #[command(after_help = "Example:\n  roadstead bid disqualify 7")]
    Disqualify {
        /// The order's number
        id: u64,
    },
}

/// What a bid binds out of the bond, in base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    coverage: Amount,
    no_show: Amount,
}

impl Bound {
    /// As Auction counts it: the penalty is rounded down.
    fn of(coverage: u128, no_show_bps: u16) -> Self {
        let (whole, rest) = (coverage / 10_000, coverage % 10_000);
        let bps = u128::from(no_show_bps);
        let no_show = whole.saturating_mul(bps).saturating_add(rest * bps / 10_000);
        Self { coverage: Amount(coverage), no_show: Amount(no_show) }
    }

    fn total(self) -> Amount {
        Amount(self.coverage.0.saturating_add(self.no_show.0))
    }
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    match (&args.verb, args.id) {
        (Some(Verb::Disqualify { id }), _) => disqualify(settings, *id).await,
        (None, Some(id)) => Box::pin(bid(settings, id, args)).await,
        (None, None) => bail!("name the order's number; `roadstead order ls` lists them"),
    }
}

async fn bid(settings: &Settings, id: u64, args: &Args) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    let session = session(settings).await?;
    let chain = session.chain();
    let known = Known::read(chain, id).await?;
    let now = chain.head().await?.timestamp;
    let wished = args.rate.as_ref().map(|rate| rate.rate(&session.token)).transpose()?;
    let rate = admissible(&session, &known, wished, now)?;
    fit(&session, &known, now).await?;
    let bound = Bound::of(known.view.coverage, chain.auction().NO_SHOW_BPS().call().await?);
    backed(&session, &known, bound).await?;
    let question = format!(
        "Bid {} for order {id}, with {} of the bond bound (of which {} are lost if you win and do not start)?",
        output::price(rate, &session.token),
        session.show(bound.total()),
        session.show(bound.no_show),
    );
    consent(args.yes, &question)?;

    let progress = OnStderr::new();
    make_ready(&session, &progress).await?;
    let auction = chain.deployment().auction;
    let requirements = known.placed.order.requirements.clone();
    let call = Auction::bidCall { id, rate: rate.0, requirements };
    let receipt = session.send(auction, &call, &format!("bids for order {id}"), &progress).await?;
    let made: Auction::Bid = emitted(&receipt, auction)?;
    let next = Rate(chain.auction().nextRate(id).call().await?);
    let value = serde_json::json!({
        "order": id,
        "bidder": made.bidder,
        "rate": Rate(made.rate),
        "bound": bound.total(),
        "nextRate": next,
        "deadline": made.deadline.to::<u64>(),
    });
    output::show(settings.json, &value, || {
        format!(
            "you lead order {id} at {}; bids end {}, and the next one is at most {}",
            session.show_rate(Rate(made.rate)),
            moment(made.deadline.to(), now),
            session.show_rate(next),
        )
    })
}

/// The rate to bid, if it can be.
fn admissible(
    session: &Session,
    known: &Known,
    wished: Option<Rate>,
    now: u64,
) -> anyhow::Result<Rate> {
    let id = known.placed.id;
    ensure!(known.state == State::Open, "order {id} is {}; no bids are taken", known.state);
    let deadline = known.view.deadline.to::<u64>();
    ensure!(now <= deadline, "bids for order {id} ended {}", moment(deadline, now));
    let rate = wished.unwrap_or(known.next);
    ensure!(
        rate <= known.next,
        "{} is too much: order {id} takes at most {} now",
        session.show_rate(rate),
        session.show_rate(known.next)
    );
    ensure!(rate.0 > 0, "a bid of nothing is none; order {id} takes at most {}", known.next);
    Ok(rate)
}

/// Whether this wallet has what the order requires.
async fn fit(session: &Session, known: &Known, now: u64) -> anyhow::Result<()> {
    let (chain, who) = (session.chain(), session.wallet());
    let id = known.placed.id;
    let listed = chain.registry().versionOf(who).call().await? != 0;
    ensure!(
        listed,
        "{who} is not listed as a provider, and so cannot bid; `roadstead provider register` lists it"
    );
    for required in &known.placed.order.requirements {
        let own = required.auditor.is_zero();
        let auditor = if own { who } else { required.auditor };
        let until = chain.registry().vouchedUntil(who, auditor, required.attribute).call().await?;
        if until.to::<u64>() >= now {
            continue;
        }
        let attribute = required.attribute;
        match own {
            true => bail!(
                "order {id} requires attribute {attribute}, for which you do not vouch; if you have it, \
                 `roadstead vouch {who} {attribute}` says so"
            ),
            false => bail!(
                "order {id} requires attribute {attribute}, and {auditor} does not vouch that {who} has it"
            ),
        }
    }
    Ok(())
}

/// Whether the bond has enough that is free.
async fn backed(session: &Session, known: &Known, bound: Bound) -> anyhow::Result<()> {
    let who = session.wallet();
    let bond = session.chain().staking().bondOf(who).call().await?;
    let free = bond.bonded.saturating_sub(bond.locked);
    // What backs the bid that is outdone is free again.
    let own = if known.leader() == Some(who) { bound.total().0 } else { 0 };
    let (free, needed) = (Amount(free.saturating_add(own)), bound.total());
    ensure!(
        free >= needed,
        "order {} binds {} of the bond, and {} are free; `roadstead stake bond {}` adds to it",
        known.placed.id,
        session.show(needed),
        session.show(free),
        Amount(needed.0 - free.0).display(&session.token)
    );
    Ok(())
}

/// Lets Auction issue leases in this wallet's name, and Auction and Leases lock its bond, unless they may already.
async fn make_ready(session: &Session, progress: &dyn Progress) -> anyhow::Result<()> {
    let (chain, who) = (session.chain(), session.wallet());
    let deployment = chain.deployment();
    let (auction, leases) = (deployment.auction, deployment.leases);
    if !chain.leases().isIssuer(who, auction).call().await? {
        let call = Leases::setIssuerCall { issuer: auction, allowed: true };
        let what = "lets Auction issue leases in your name";
        session.send(leases, &call, what, progress).await?;
    }
    for (locker, name) in [(leases, "Leases"), (auction, "Auction")] {
        allow_locker(session, locker, name, progress).await?;
    }
    Ok(())
}

/// Lets a contract lock this wallet's bond, unless it may already.
pub(crate) async fn allow_locker(
    session: &Session,
    locker: Address,
    name: &str,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let chain: &Chain = session.chain();
    if chain.staking().isLocker(session.wallet(), locker).call().await? {
        return Ok(());
    }
    let call = Staking::setLockerCall { locker, allowed: true };
    let what = format!("lets {name} lock your bond");
    session.send(chain.deployment().staking, &call, &what, progress).await?;
    Ok(())
}

async fn disqualify(settings: &Settings, id: u64) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let auction = session.chain().deployment().auction;
    let call = Auction::disqualifyCall { id };
    let what = format!("takes the leader off order {id}");
    let receipt = session.send(auction, &call, &what, &OnStderr::new()).await?;
    if let Ok(again) = emitted::<Auction::Reopened>(&receipt, auction) {
        return order::reopened(settings, &session, &again).await;
    }
    order::over(settings, &session, &emitted(&receipt, auction)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bid_binds_the_coverage_and_what_a_no_show_costs() {
        let check = |coverage: u128, bps: u16, no_show: u128| {
            let bound = Bound::of(coverage, bps);
            assert_eq!(bound.no_show, Amount(no_show));
            assert_eq!(bound.total(), Amount(coverage.saturating_add(no_show)));
        };
        check(0, 1_000, 0);
        check(9, 1_000, 0);
        check(10, 1_000, 1);
        check(123_456_789, 1_000, 12_345_678);
        check(u128::MAX, 10_000, u128::MAX);
    }
}
