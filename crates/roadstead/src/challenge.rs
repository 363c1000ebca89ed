//! `roadstead challenge`: is the provider there? Who is alive answers in time; who is not pays.

use std::time::Duration;

use alloy::primitives::Address;
use anyhow::{bail, ensure};
use chain::{
    Chain,
    abi::{ISla::Challenge, Sla},
};
use clap::Subcommand;
use protocol::{
    amount::Amount,
    lease::{CloseReason, State as LeaseState},
};
use serde::Serialize;

use crate::{
    claim,
    cli::LeaseRef,
    money,
    output::{self, moment, span},
    progress::{OnStderr, Progress},
    publish::{self, consent, may_spend, session},
    session::{Session, emitted},
    settings::Settings,
    state::State,
};

/// How often is looked whether a challenge was answered.
const LOOK: Duration = Duration::from_millis(500);

/// A challenge.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    #[arg(required = true)]
    lease: Option<LeaseRef>,
    /// Stay until the provider has answered, or its time is over; then close the lease and take what is yours
    #[arg(long, short)]
    wait: bool,
    /// Do not ask before the challenge's bond is put up
    #[arg(long, short)]
    yes: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What else to do with challenges.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Answer a challenge, as the lease's provider; its bond is then yours to claim
    #[command(after_help = "Example:\n  roadstead challenge answer 7")]
    Answer {
        /// The lease's number
        lease: u64,
    },
    /// End a challenge that was not answered in time; anybody may
    ///
    /// The payer gets what is left of the coverage, and the lease is closed, unpaid from the challenge on.
    #[command(after_help = "Example:\n  roadstead challenge resolve shop")]
    Resolve {
        /// The lease's number, or the app's name
        lease: LeaseRef,
    },
    /// Show whether a lease is challenged, until when that can be answered, and what its outages cost
    #[command(after_help = "Example:\n  roadstead challenge show shop --json")]
    Show {
        /// The lease's number, or the app's name
        lease: LeaseRef,
    },
}

/// How a lease's challenge stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    lease: u64,
    /// Nobody where none is open.
    challenger: Option<Address>,
    /// Of the last one that was answered where none is open.
    since: u64,
    /// Until when it can be answered.
    deadline: Option<u64>,
    bond: Amount,
    coverage: Amount,
    outage: Option<Outage>,
}

#[derive(Debug, Serialize)]
struct Outage {
    from: u64,
    to: u64,
    due: Amount,
    total: Amount,
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let (yes, wait) = (args.yes, args.wait);
    match (&args.verb, &args.lease) {
        (Some(Verb::Answer { lease }), _) => answer(settings, *lease).await,
        (Some(Verb::Resolve { lease }), _) => resolve(settings, lease).await,
        (Some(Verb::Show { lease }), _) => show(settings, lease).await,
        (None, Some(lease)) => Box::pin(challenge(settings, lease, yes, wait)).await,
        (None, None) => bail!("name a lease; `roadstead ps` lists this wallet's"),
    }
}

fn number(settings: &Settings, chain: &Chain, lease: &LeaseRef) -> anyhow::Result<u64> {
    State::read(&settings.home, chain.deployment())?.resolve(lease)
}

/// How a challenge ended, or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It can be answered.
    Open,
    /// Its time is over, and anybody may end it.
    Over,
    /// The provider answered.
    Answered,
    /// It was ended, and the lease was closed because of it.
    Dark,
    /// The lease was closed before it had to be answered.
    Left,
}

/// How the challenge of a lease stands that could be answered until `deadline`.
pub(crate) async fn standing(chain: &Chain, lease: u64, deadline: u64) -> anyhow::Result<Standing> {
    let now = chain.head().await?.timestamp;
    let challenge: Challenge = chain.sla().challengeOf(lease).call().await?;
    let views = chain.lease_views(&[lease], None).await?;
    let closed = views.first().filter(|view| view.lease.state == LeaseState::Closed as u8);
    let reason = closed.map(|view| view.lease.reason);
    let closed_at = closed.map(|view| view.lease.endsAt.to::<u64>());
    Ok(match (challenge.challenger.is_zero(), reason) {
        // Who leaves in time was not there in vain, and the bond comes back.
        (false, Some(_)) if closed_at.is_some_and(|at| at <= deadline) => Standing::Over,
        (false, _) if now > deadline => Standing::Over,
        (false, _) => Standing::Open,
        (true, Some(reason)) if reason == CloseReason::WentDark as u8 => Standing::Dark,
        (true, Some(_)) => Standing::Left,
        (true, None) => Standing::Answered,
    })
}

/// A challenge that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    /// By whom.
    pub(crate) challenger: Address,
    /// What is put up.
    pub(crate) bond: Amount,
    /// Until when it can be answered.
    pub(crate) deadline: u64,
}

/// Challenges a lease.
pub(crate) async fn make(
    session: &Session,
    lease: u64,
    progress: &dyn Progress,
) -> anyhow::Result<Made> {
    let (chain, sla) = (session.chain(), session.chain().deployment().sla);
    let bond = Amount(chain.sla().CHALLENGE_BOND().call().await?);
    money::allow_tokens(session, sla, "Sla", bond, progress).await?;
    let call = Sla::challengeCall { id: lease };
    let sent = session.send(sla, &call, &format!("challenges lease {lease}"), progress).await?;
    let made: Sla::Challenged = emitted(&sent, sla)?;
    Ok(Made { challenger: made.challenger, bond, deadline: made.deadline.to() })
}

/// Ends a challenge that was not answered: whether the lease had to be answered for, and what is paid for it.
pub(crate) async fn end(
    session: &Session,
    lease: u64,
    progress: &dyn Progress,
) -> anyhow::Result<(bool, Amount)> {
    let sla = session.chain().deployment().sla;
    let what = format!("ends the challenge of lease {lease}");
    let sent = session.send(sla, &Sla::resolveCall { id: lease }, &what, progress).await?;
    let made: Sla::Resolved = emitted(&sent, sla)?;
    Ok((made.dark, Amount(u128::try_from(made.compensation).unwrap_or(u128::MAX))))
}

/// Waits until a challenge is answered or over, ends it, and takes what came of it.
async fn see_through(
    settings: &Settings,
    session: &Session,
    lease: u64,
    made: Made,
) -> anyhow::Result<()> {
    let progress = OnStderr::new();
    let standing = loop {
        // A node that does not answer says nothing about the challenge.
        match standing(session.chain(), lease, made.deadline).await {
            Ok(Standing::Over) => {
                // Somebody else may have been faster, which the next look tells.
                if let Err(err) = end(session, lease, &progress).await {
                    tracing::warn!(error = output::causes(&err), "the challenge was not ended");
                }
            }
            Ok(standing @ (Standing::Answered | Standing::Dark | Standing::Left)) => {
                break standing;
            }
            Ok(Standing::Open) | Err(_) => (),
        }
        tokio::time::sleep(LOOK).await;
    };
    let claimed = if standing == Standing::Answered {
        Vec::new()
    } else {
        claim::take(session, &[claim::Source::Staking, claim::Source::Sla], &progress).await?
    };
    let value = serde_json::json!({
        "lease": lease,
        "challenger": made.challenger,
        "bond": made.bond,
        "deadline": made.deadline,
        "answered": standing == Standing::Answered,
        "dark": standing == Standing::Dark,
        "claimed": claimed,
    });
    output::show(settings.json, &value, || {
        let mut text = match standing {
            Standing::Dark => {
                format!("the provider of lease {lease} did not answer, and the lease is closed")
            }
            Standing::Left => format!("lease {lease} was closed before it had to be answered for"),
            Standing::Answered | Standing::Open | Standing::Over => format!(
                "the provider of lease {lease} is there: it answered, and the bond of {} is its own",
                session.show(made.bond)
            ),
        };
        for claimed in &claimed {
            text.push_str(&format!("\n{}", claimed.words(session)));
        }
        text
    })
}

async fn challenge(
    settings: &Settings,
    lease: &LeaseRef,
    yes: bool,
    wait: bool,
) -> anyhow::Result<()> {
    may_spend(yes)?;
    let session = session(settings).await?;
    let chain = session.chain();
    let id = number(settings, chain, lease)?;
    let view = crate::deploy::lease(&session, id).await?;
    ensure!(view.rate != 0, "lease {id} does not run, and so cannot be challenged");
    let response = view.lease.response.to::<u64>();
    ensure!(response != 0, "lease {id} was agreed on without a time to answer challenges");
    let wallet = session.wallet();
    ensure!(
        chain.leases().isPayer(view.account, wallet).call().await?,
        "lease {id} is paid by {}, and only who pays may challenge it; this wallet is {wallet}",
        view.payer
    );
    let before: Challenge = chain.sla().challengeOf(id).call().await?;
    ensure!(
        before.challenger.is_zero(),
        "lease {id} is challenged already; `roadstead challenge show {id}` says how that stands"
    );
    let bond = Amount(chain.sla().CHALLENGE_BOND().call().await?);
    let question = format!(
        "Challenge lease {id}, with a bond of {}? If {} answers within {}, that gets it; else the lease is closed and \
         you get its coverage of {}",
        session.show(bond),
        output::short(view.provider),
        span(response),
        session.show(Amount(view.coverage))
    );
    consent(yes, &question)?;

    let made = make(&session, id, &OnStderr::new()).await?;
    let now = chain.head().await?.timestamp;
    if wait {
        eprintln!(
            "lease {id} is challenged; its time to answer ends {}",
            moment(made.deadline, now)
        );
        let words = format!(
            "interrupted; the challenge goes on, and `roadstead challenge resolve {id}` ends it if nobody answers"
        );
        let seen = Box::pin(see_through(settings, &session, id, made));
        return publish::interruptible(seen, &words).await;
    }
    let value = serde_json::json!({
        "lease": id,
        "challenger": made.challenger,
        "bond": bond,
        "deadline": made.deadline,
    });
    output::show(settings.json, &value, || {
        format!(
            "lease {id} is challenged; its time to answer ends {}\n\
             after that, `roadstead challenge resolve {id}` closes it, and `roadstead claim` brings you its coverage",
            moment(made.deadline, now)
        )
    })
}

async fn answer(settings: &Settings, lease: u64) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let sla = session.chain().deployment().sla;
    let call = Sla::answerCall { id: lease };
    let what = format!("answers the challenge of lease {lease}");
    let sent = session.send(sla, &call, &what, &OnStderr::new()).await?;
    let made: Sla::Answered = emitted(&sent, sla)?;
    let bond = Amount(u128::try_from(made.bond).unwrap_or(u128::MAX));
    output::show(settings.json, &serde_json::json!({ "lease": lease, "bond": bond }), || {
        format!(
            "the challenge of lease {lease} is answered; its bond of {} is yours with `roadstead claim`",
            session.show(bond)
        )
    })
}

async fn resolve(settings: &Settings, lease: &LeaseRef) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let id = number(settings, session.chain(), lease)?;
    let (dark, compensation) = end(&session, id, &OnStderr::new()).await?;
    let value = serde_json::json!({ "lease": id, "dark": dark, "compensation": compensation });
    output::show(settings.json, &value, || {
        let found = match dark {
            true => format!(
                "the provider of lease {id} did not answer: it is closed, and its coverage of {} goes to who paid",
                session.show(compensation)
            ),
            false => format!(
                "lease {id} was closed before its provider had to answer; nobody is to blame"
            ),
        };
        format!(
            "{found}\n`roadstead claim` brings what is yours of it, and the challenger its bond"
        )
    })
}

async fn show(settings: &Settings, lease: &LeaseRef) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let id = number(settings, &chain, lease)?;
    let token = chain.token().await?;
    let now = chain.head().await?.timestamp;
    let challenge: Challenge = chain.sla().challengeOf(id).call().await?;
    let outage = chain.sla().outageOf(id).call().await?;
    let views = chain.lease_views(&[id], None).await?;
    let Some(view) = views.first().filter(|view| view.lease.state != 0) else {
        bail!("there is no lease {id} on this chain")
    };
    let since = challenge.since.to::<u64>();
    let challenger = Some(challenge.challenger).filter(|challenger| !challenger.is_zero());
    let shown = Shown {
        lease: id,
        challenger,
        since,
        deadline: match challenger {
            Some(_) => deadline(&chain, id).await?,
            None => None,
        },
        bond: Amount(chain.sla().CHALLENGE_BOND().call().await?),
        coverage: Amount(view.coverage),
        outage: (!outage.to.is_zero()).then(|| Outage {
            from: outage.from.to(),
            to: outage.to.to(),
            due: Amount(outage.due),
            total: Amount(outage.total),
        }),
    };
    output::show(settings.json, &shown, || {
        let show = |amount: Amount| format!("{} {}", amount.display(&token), token.symbol);
        let mut text = match (shown.challenger, shown.deadline) {
            (Some(challenger), deadline) => format!(
                "{challenger} challenged lease {id} {}; its provider has to answer {}",
                moment(since, now),
                deadline.map_or_else(|| "in time".into(), |deadline| moment(deadline, now)),
            ),
            (None, _) if since == 0 => format!("lease {id} was never challenged"),
            (None, _) => format!("lease {id} was challenged {}, and answered", moment(since, now)),
        };
        text.push_str(&format!("\nit is backed by {}", show(shown.coverage)));
        if let Some(outage) = &shown.outage {
            text.push_str(&format!(
                "\nits last outage took {} and cost {}; all of them cost {}",
                span(outage.to.saturating_sub(outage.from)),
                show(outage.due),
                show(outage.total)
            ));
        }
        text
    })
}

/// Until when the challenge that is open can be answered: what was agreed on when it was made.
pub(crate) async fn deadline(chain: &Chain, lease: u64) -> anyhow::Result<Option<u64>> {
    let made = chain.challenges(lease).await?;
    Ok(made.last().map(|made| made.deadline.to()))
}
