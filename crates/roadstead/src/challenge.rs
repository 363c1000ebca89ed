//! `roadstead challenge`: is the provider there? Who is alive answers in time; who is not pays.

use alloy::primitives::Address;
use anyhow::{bail, ensure};
use chain::{
    Chain,
    abi::{ISla::Challenge, Sla},
};
use clap::Subcommand;
use protocol::amount::Amount;
use serde::Serialize;

use crate::{
    cli::LeaseRef,
    money,
    output::{self, moment, span},
    progress::OnStderr,
    publish::{consent, may_spend, session},
    session::emitted,
    settings::Settings,
    state::State,
};

/// A challenge.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    #[arg(required = true)]
    lease: Option<LeaseRef>,
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
    match (&args.verb, &args.lease) {
        (Some(Verb::Answer { lease }), _) => answer(settings, *lease).await,
        (Some(Verb::Resolve { lease }), _) => resolve(settings, lease).await,
        (Some(Verb::Show { lease }), _) => show(settings, lease).await,
        (None, Some(lease)) => Box::pin(challenge(settings, lease, args.yes)).await,
        (None, None) => bail!("name a lease; `roadstead ps` lists this wallet's"),
    }
}

fn number(settings: &Settings, chain: &Chain, lease: &LeaseRef) -> anyhow::Result<u64> {
    State::read(&settings.home, chain.deployment())?.resolve(lease)
}

async fn challenge(settings: &Settings, lease: &LeaseRef, yes: bool) -> anyhow::Result<()> {
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

    let (progress, sla) = (OnStderr::new(), chain.deployment().sla);
    money::allow_tokens(&session, sla, "Sla", bond, &progress).await?;
    let call = Sla::challengeCall { id };
    let sent = session.send(sla, &call, &format!("challenges lease {id}"), &progress).await?;
    let made: Sla::Challenged = emitted(&sent, sla)?;
    let now = chain.head().await?.timestamp;
    let value = serde_json::json!({
        "lease": id,
        "challenger": made.challenger,
        "bond": bond,
        "deadline": made.deadline.to::<u64>(),
    });
    output::show(settings.json, &value, || {
        format!(
            "lease {id} is challenged; its time to answer ends {}\n\
             after that, `roadstead challenge resolve {id}` closes it and brings you its coverage",
            moment(made.deadline.to(), now)
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
    let sla = session.chain().deployment().sla;
    let what = format!("ends the challenge of lease {id}");
    let call = Sla::resolveCall { id };
    let sent = session.send(sla, &call, &what, &OnStderr::new()).await?;
    let made: Sla::Resolved = emitted(&sent, sla)?;
    let compensation = Amount(u128::try_from(made.compensation).unwrap_or(u128::MAX));
    let value = serde_json::json!({ "lease": id, "dark": made.dark, "compensation": compensation });
    output::show(settings.json, &value, || {
        let found = match made.dark {
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
async fn deadline(chain: &Chain, lease: u64) -> anyhow::Result<Option<u64>> {
    let made = chain.challenges(lease).await?;
    Ok(made.last().map(|made| made.deadline.to()))
}
