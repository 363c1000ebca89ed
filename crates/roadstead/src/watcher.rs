//! `roadstead watcher`: a seat among those who look from outside whether pods answer. Looking itself is another program's.

mod claims;

use std::path::PathBuf;

use alloy::primitives::Address;
use anyhow::{bail, ensure};
use chain::abi::Sla;
use clap::Subcommand;
use protocol::amount::Amount;
use serde::Serialize;

use crate::{
    bid::allow_locker,
    output::{self, moment, span},
    progress::OnStderr,
    publish::{consent, may_spend, session},
    session::emitted,
    settings::Settings,
    wallet,
};

/// What to do as a watcher.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take a seat from the next epoch on; its bond is locked out of what is at stake
    #[command(after_help = "Example:\n  roadstead stake bond 100 && roadstead watcher join")]
    Join {
        /// Do not ask before the bond is locked
        #[arg(long, short)]
        yes: bool,
    },
    /// Give the seat up; its bond stays locked for as long as it answers for what was said
    #[command(after_help = "Example:\n  roadstead watcher leave")]
    Leave,
    /// Show the seat, its bond, and the running epoch; with a lease, who watches it
    #[command(
        after_help = "Examples:\n  roadstead watcher show\n  roadstead watcher show --lease 7 --json"
    )]
    Show {
        /// Another watcher than this wallet
        #[arg(long, value_name = "ADDRESS")]
        of: Option<Address>,
        /// The committee of this lease, too
        #[arg(long, value_name = "LEASE")]
        lease: Option<u64>,
    },
    /// Draw the running epoch's committees; anybody may, once per epoch
    #[command(after_help = "Example:\n  roadstead watcher open-epoch")]
    OpenEpoch,
    /// Sign that a lease's pod did not answer in all of a time, or, with --up, that it did
    ///
    /// Nothing is sent. Who signs both for times that overlap loses the bond to whoever shows it.
    #[command(
        after_help = "Example:\n  roadstead watcher sign 7 --from 1795573326 --to 1795573926 > statements/mine.json"
    )]
    Sign(claims::Sign),
    /// Report an outage with the signatures of its committee; anybody may
    ///
    /// The payer is compensated by the length of the outage, and whoever signed gets a share.
    #[command(after_help = "Example:\n  roadstead watcher report statements/*.json")]
    Report {
        /// Files with signed statements, one or many each, as `sign` prints them; `-` is standard input
        #[arg(required = true)]
        statements: Vec<PathBuf>,
    },
    /// Take this wallet's shares of the rewards for reports that it signed
    #[command(
        after_help = "Examples:\n  roadstead watcher reward\n  roadstead watcher reward --lease 7"
    )]
    Reward {
        /// For reports of this lease alone
        #[arg(long, value_name = "LEASE")]
        lease: Option<u64>,
    },
    /// Show that a watcher signed both that a pod was up and that it was down; half of its bond, less what is burned, is
    /// yours
    #[command(after_help = "Example:\n  roadstead watcher accuse up.json down.json")]
    Accuse {
        /// Files with the two statements; `-` is standard input
        #[arg(required = true)]
        statements: Vec<PathBuf>,
    },
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Join { yes } => join(settings, *yes).await,
        Verb::Leave => leave(settings).await,
        Verb::Show { of, lease } => show(settings, *of, *lease).await,
        Verb::OpenEpoch => open_epoch(settings).await,
        Verb::Sign(args) => claims::sign(settings, args).await,
        Verb::Report { statements } => claims::report(settings, statements).await,
        Verb::Reward { lease } => claims::reward(settings, *lease).await,
        Verb::Accuse { statements } => claims::accuse(settings, statements).await,
    }
}

async fn join(settings: &Settings, yes: bool) -> anyhow::Result<()> {
    may_spend(yes)?;
    let session = session(settings).await?;
    let (chain, who) = (session.chain(), session.wallet());
    let seat = chain.sla().watcherOf(who).call().await?.seat;
    ensure!(seat == 0, "{who} has a seat already: {seat}");
    let needed = Amount(chain.sla().WATCHER_BOND().call().await?);
    let bond = chain.staking().bondOf(who).call().await?;
    let free = Amount(bond.bonded.saturating_sub(bond.locked));
    ensure!(
        free >= needed,
        "a seat takes {} of the bond, and {} are free; `roadstead stake bond {}` adds to it",
        session.show(needed),
        session.show(free),
        Amount(needed.0.saturating_sub(free.0)).display(&session.token)
    );
    let amount = session.show(needed);
    consent(
        yes,
        &format!("Take a seat, with {amount} locked that are lost by contradicting yourself?"),
    )?;
    let (progress, sla) = (OnStderr::new(), chain.deployment().sla);
    allow_locker(&session, sla, "Sla", &progress).await?;
    let sent = session.send(sla, &Sla::joinCall {}, "takes a seat", &progress).await?;
    let made: Sla::Joined = emitted(&sent, sla)?;
    let epoch = made.epoch.to::<u64>();
    let value = serde_json::json!({ "watcher": who, "seat": made.seat, "epoch": epoch });
    output::show(settings.json, &value, || {
        format!("{who} has seat {}, and sits in committees from epoch {} on", made.seat, epoch + 1)
    })
}

async fn leave(settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let (chain, sla) = (session.chain(), session.chain().deployment().sla);
    let what = "gives the seat up";
    let sent = session.send(sla, &Sla::leaveCall {}, what, &OnStderr::new()).await?;
    let made: Sla::Left = emitted(&sent, sla)?;
    let held = chain.sla().EPOCH().call().await?.to::<u64>()
        + chain.sla().CLAIM_WINDOW().call().await?.to::<u64>();
    let value = serde_json::json!({ "watcher": made.watcher, "seat": made.seat, "heldFor": held });
    output::show(settings.json, &value, || {
        format!("seat {} is given up; its bond stays locked for {}", made.seat, span(held))
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    watcher: Option<Address>,
    /// Zero for none.
    seat: u32,
    since: u64,
    bond: Amount,
    epoch: u64,
    epoch_ends: u64,
    committee: Option<Vec<Address>>,
}

async fn show(settings: &Settings, of: Option<Address>, lease: Option<u64>) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let now = chain.head().await?.timestamp;
    // Who asks for a committee alone needs no wallet.
    let who = match of {
        Some(who) => Some(who),
        None if lease.is_some() => wallet::address(&settings.wallet).ok(),
        None => Some(wallet::address(&settings.wallet)?),
    };
    let secs = chain.sla().EPOCH().call().await?.to::<u64>();
    if secs == 0 {
        bail!("the deployment has epochs of no length; is it one of script/Deploy.s.sol?");
    }
    let epoch = now / secs;
    let watcher = match who {
        Some(who) => chain.sla().watcherOf(who).call().await?,
        None => chain::abi::ISla::Watcher::default(),
    };
    let bond = match who {
        Some(who) => {
            let sla = chain.deployment().sla;
            chain.staking().lockOf(who, sla, watcher.r#ref).call().await?.amount
        }
        None => 0,
    };
    let committee = match lease {
        Some(lease) => Some(chain.sla().committee(lease, epoch.try_into()?).call().await?),
        None => None,
    };
    let shown = Shown {
        watcher: who,
        seat: watcher.seat,
        since: watcher.since.to(),
        bond: Amount(bond),
        epoch,
        epoch_ends: (epoch + 1) * secs,
        committee,
    };
    output::show(settings.json, &shown, || {
        let mut lines = Vec::new();
        if let Some(who) = shown.watcher {
            let bond = format!("{} {}", shown.bond.display(&token), token.symbol);
            lines.push(match shown.seat {
                0 => format!("{who} has no seat; `roadstead watcher join` takes one"),
                seat => {
                    format!("{who} has seat {seat} since epoch {}, with {bond} locked", shown.since)
                }
            });
        }
        lines.push(format!("epoch {} ends {}", shown.epoch, moment(shown.epoch_ends, now)));
        match shown.committee.as_deref() {
            None => (),
            Some([]) => lines.push(
                "it has no committees yet; `roadstead watcher open-epoch` draws them, with seven watchers".into(),
            ),
            Some(members) => {
                lines.extend(members.iter().enumerate().map(|(index, member)| {
                    let member = if member.is_zero() { "nobody".into() } else { member.to_string() };
                    format!("  {index} {member}")
                }));
            }
        }
        lines.join("\n")
    })
}

async fn open_epoch(settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let sla = session.chain().deployment().sla;
    let what = "draws the epoch's committees";
    let sent = session.send(sla, &Sla::openEpochCall {}, what, &OnStderr::new()).await?;
    let made: Sla::EpochOpened = emitted(&sent, sla)?;
    let epoch = made.epoch.to::<u64>();
    let value = serde_json::json!({ "epoch": epoch, "seed": made.seed, "seats": made.seats });
    output::show(settings.json, &value, || {
        format!("epoch {epoch} has its committees, drawn from {} watchers", made.seats)
    })
}
