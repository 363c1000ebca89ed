//! A provider that leaves: notices, closes, its listing, quotes that it wants back.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use anyhow::{bail, ensure};
use chain::abi::{Leases, Registry};
use clap::ValueEnum;
use protocol::{
    amount::Amount,
    lease::{CloseReason, State},
};

use crate::{
    deploy,
    output::{self, moment, span},
    progress::OnStderr,
    publish::{consent, may_spend, session},
    session::{Session, emitted},
    settings::Settings,
};

/// Which lease is left, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Leave {
    /// The lease's number
    lease: u64,
    /// Why, as the chain and its payer will read
    #[arg(long, value_enum, default_value_t = Reason::Draining)]
    reason: Reason,
    /// Do not ask before
    #[arg(long, short)]
    yes: bool,
}

/// Why a provider leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    /// Its machines are taken out of service.
    Draining,
    /// Something broke.
    Fault,
    /// The pod is against its rules.
    Policy,
    /// There is no room.
    Full,
}

impl Reason {
    fn close_reason(self) -> CloseReason {
        match self {
            Self::Draining => CloseReason::ProviderDraining,
            Self::Fault => CloseReason::ProviderFault,
            Self::Policy => CloseReason::ProviderPolicy,
            Self::Full => CloseReason::ProviderFull,
        }
    }
}

/// Which quotes are taken back.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// Nonces of quotes, as they are in them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    nonces: Vec<U256>,
    /// All that were signed so far, by listing the provider anew as it is
    #[arg(long)]
    all: bool,
}

/// An open lease that this wallet provides.
struct Provided {
    state: State,
    coverage: Amount,
    notice: u64,
    /// When its notice is over; zero where none was given.
    ends_at: u64,
}

async fn provided(session: &Session, lease: u64) -> anyhow::Result<Provided> {
    let view = deploy::lease(session, lease).await?;
    let state = State::try_from(view.lease.state)?;
    match state {
        State::None => bail!("there is no lease {lease} on this chain"),
        State::Closed => bail!("lease {lease} is closed"),
        State::Pending | State::Active => (),
    }
    let (provider, wallet) = (view.provider, session.wallet());
    ensure!(provider == wallet, "lease {lease} is provided by {provider}, this wallet is {wallet}");
    Ok(Provided {
        state,
        coverage: Amount(view.coverage),
        notice: view.lease.notice.to(),
        ends_at: view.lease.endsAt.to(),
    })
}

/// Gives notice of a lease.
pub(super) async fn notice(settings: &Settings, args: &Leave) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    let (session, lease) = (session(settings).await?, args.lease);
    let known = provided(&session, lease).await?;
    let now = session.chain().head().await?.timestamp;
    ensure!(
        known.state == State::Active,
        "lease {lease} does not run yet; `roadstead provider close {lease}` ends it at no cost"
    );
    ensure!(
        known.ends_at == 0,
        "notice of lease {lease} was given already; it is over {}",
        moment(known.ends_at, now)
    );
    let question = format!(
        "Give notice of lease {lease}? It goes on for {}, and that cannot be taken back",
        span(known.notice)
    );
    consent(args.yes, &question)?;
    let reason = args.reason.close_reason();
    let leases = session.chain().deployment().leases;
    let call = Leases::giveNoticeCall { id: lease, reason: reason as u8 };
    let what = format!("gives notice of lease {lease}");
    let sent = session.send(leases, &call, &what, &OnStderr::new()).await?;
    let made: Leases::NoticeGiven = emitted(&sent, leases)?;
    let ends_at = made.endsAt.to::<u64>();
    let value = serde_json::json!({ "lease": lease, "reason": reason, "endsAt": ends_at });
    output::show(settings.json, &value, || {
        format!(
            "the notice of lease {lease} is over {}; then `roadstead provider close {lease}` ends it at no cost",
            moment(ends_at, now)
        )
    })
}

/// Closes a lease.
pub(super) async fn close(settings: &Settings, args: &Leave) -> anyhow::Result<()> {
    may_spend(args.yes)?;
    let (session, lease) = (session(settings).await?, args.lease);
    let known = provided(&session, lease).await?;
    let now = session.chain().head().await?.timestamp;
    let bps: U256 = session.chain().leases().EARLY_CLOSE_BPS().call().await?;
    let penalty = penalty(&known, now, u64::try_from(bps).unwrap_or(u64::MAX));
    if penalty.0 > 0 {
        let question = format!(
            "Close lease {lease} at once? That costs {} of its coverage; {} costs nothing",
            session.show(penalty),
            match known.ends_at {
                0 => "`roadstead provider notice` first".to_owned(),
                ends_at => format!("to wait until its notice is over, {},", moment(ends_at, now)),
            }
        );
        consent(args.yes, &question)?;
    }
    let reason = args.reason.close_reason();
    let leases = session.chain().deployment().leases;
    let call = Leases::closeCall { id: lease, reason: reason as u8 };
    let sent =
        session.send(leases, &call, &format!("closes lease {lease}"), &OnStderr::new()).await?;
    let made: Leases::Closed = emitted(&sent, leases)?;
    let penalty = Amount(u128::try_from(made.penalty).unwrap_or(u128::MAX));
    let reason = CloseReason::try_from(made.reason)?;
    let value = serde_json::json!({ "lease": lease, "reason": reason, "penalty": penalty });
    output::show(settings.json, &value, || match penalty.0 {
        0 => format!("lease {lease} is closed, at no cost"),
        _some => format!("lease {lease} is closed, for {} of its coverage", session.show(penalty)),
    })
}

/// What closing now costs: as Leases counts it, rounded down.
fn penalty(known: &Provided, now: u64, bps: u64) -> Amount {
    let noticed = known.ends_at != 0 && now >= known.ends_at;
    if known.state != State::Active || noticed {
        return Amount(0);
    }
    let (whole, rest) = (known.coverage.0 / 10_000, known.coverage.0 % 10_000);
    let bps = u128::from(bps);
    Amount(whole.saturating_mul(bps).saturating_add(rest * bps / 10_000))
}

/// Takes the listing back.
pub(super) async fn delist(settings: &Settings, yes: bool) -> anyhow::Result<()> {
    may_spend(yes)?;
    let session = session(settings).await?;
    let (chain, wallet) = (session.chain(), session.wallet());
    let view = chain.registry().listingOf(wallet).call().await?;
    ensure!(view.listed, "{wallet} is not listed; nothing was sent");
    consent(
        yes,
        "Take the listing back? Quotes that you signed cannot be used any more; leases go on, and keep `run` going for them",
    )?;
    let registry = chain.deployment().registry;
    let what = "takes the listing back";
    session.send(registry, &Registry::delistCall {}, what, &OnStderr::new()).await?;
    let value = serde_json::json!({ "provider": wallet, "listed": false });
    output::show(settings.json, &value, || {
        format!(
            "{wallet} is not listed any more; leases go on, and their payers find it where it was\n\
             `roadstead provider register`, or a start of `run`, lists it again"
        )
    })
}

/// Makes quotes unusable.
pub(super) async fn cancel_quotes(settings: &Settings, args: &Cancel) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let (chain, wallet) = (session.chain(), session.wallet());
    if args.all {
        let view = chain.registry().listingOf(wallet).call().await?;
        ensure!(view.listed, "{wallet} is not listed, so none of its quotes can be used");
        let registry = chain.deployment().registry;
        let call = Registry::listCall { listing: view.listing };
        let what = "lists the provider anew, as it is";
        let sent = session.send(registry, &call, what, &OnStderr::new()).await?;
        let made: Registry::Listed = emitted(&sent, registry)?;
        let value = serde_json::json!({ "provider": wallet, "version": made.version });
        return output::show(settings.json, &value, || {
            format!(
                "quotes under versions below {} of the listing cannot be used any more",
                made.version
            )
        });
    }
    let leases = chain.deployment().leases;
    for (word, mask) in words(&args.nonces) {
        let call = Leases::cancelNoncesCall { word, mask };
        session.send(leases, &call, "cancels quotes", &OnStderr::new()).await?;
    }
    let nonces: Vec<String> = args.nonces.iter().map(ToString::to_string).collect();
    let value = serde_json::json!({ "provider": wallet, "nonces": nonces });
    output::show(settings.json, &value, || {
        let count = nonces.len();
        format!(
            "{count} quotes cannot be used any more, unless they were before; leases are not touched"
        )
    })
}

/// Nonces by their words in Leases' bitmap.
fn words(nonces: &[U256]) -> BTreeMap<U256, U256> {
    let mut words = BTreeMap::new();
    for nonce in nonces {
        let mask: &mut U256 = words.entry(*nonce >> 8).or_default();
        mask.set_bit(nonce.byte(0).into(), true);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_costs_what_leases_takes() {
        let check = |state, ends_at, now, coverage, wanted| {
            let known = Provided { state, coverage: Amount(coverage), notice: 0, ends_at };
            assert_eq!(penalty(&known, now, 2_000), Amount(wanted));
        };
        check(State::Active, 0, 100, 5_000_000, 1_000_000);
        check(State::Active, 101, 100, 5_000_000, 1_000_000);
        check(State::Active, 100, 100, 5_000_000, 0);
        check(State::Pending, 0, 100, 5_000_000, 0);
        check(State::Active, 0, 100, 4, 0);
        check(State::Active, 0, 100, 12_345_678, 2_469_135);
    }

    #[test]
    fn nonces_share_words() {
        let word = U256::from(7) << 8;
        let nonces = [word, word + U256::from(255), U256::from(1)];
        let wanted = BTreeMap::from([
            (U256::from(0), U256::from(2)),
            (U256::from(7), U256::from(1) | U256::from(1) << 255),
        ]);
        assert_eq!(words(&nonces), wanted);
    }
}
