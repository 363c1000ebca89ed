//! `roadstead ps`, once or as leases change; and what it does about providers that went dark, if it is told to.
//!
//! A challenge costs its bond where the provider is there after all, so each lease is challenged once in a run at most. What
//! is under way is read from the chain, so a run that was interrupted is taken up by the next.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::ensure;
use chain::{Chain, History};
use protocol::{amount::Amount, lease::State as LeaseState};
use serde::Serialize;

use crate::{
    challenge::{self, Standing},
    claim,
    output::{self, print, span},
    progress::Silent,
    publish::{consent, may_spend, session},
    session::Session,
    settings::Settings,
    show::{self, Clients, Leases, Listed},
    stats::{Screen, keys, paint},
    wallet,
};

/// How often a new block is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// The longest time between two refreshes: providers change between blocks, too.
const LONGEST: Duration = Duration::from_secs(5);

/// The least time between two checks that count.
const BETWEEN: Duration = Duration::from_secs(3);

/// How many of the last notes stay on the screen.
const NOTES: usize = 12;

/// What `roadstead ps` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Closed ones, too
    #[arg(long, short)]
    all: bool,
    /// Go on, with each new block; q quits
    #[arg(long, short)]
    watch: bool,
    /// Challenge a lease whose provider does not answer, and claim its coverage if it goes on not to
    #[arg(long, requires = "watch")]
    challenge: bool,
    /// After how many checks without an answer
    #[arg(long, value_name = "N", default_value_t = 10, requires = "challenge",
        value_parser = clap::value_parser!(u32).range(1..))]
    checks: u32,
    /// Do not ask before challenges' bonds may be put up
    #[arg(long, short, requires = "challenge")]
    yes: bool,
}

/// Something that was found or done.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum Note {
    /// The provider of a lease did not answer for so many checks.
    Silent { lease: u64, checks: u32 },
    /// It answers again.
    Back { lease: u64 },
    /// A lease is challenged.
    Challenged { lease: u64, bond: Amount, deadline: u64 },
    /// The provider answered the challenge.
    Answered { lease: u64 },
    /// It did not, and the lease is closed.
    Dark { lease: u64 },
    /// The lease was closed before it had to be answered for.
    Left { lease: u64 },
    /// Something came into the wallet.
    Claimed(claim::Claimed),
    /// Something was not done; it is tried again.
    Failed { lease: u64, why: String },
}

/// What is known of one lease's provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// It did not answer for so many checks.
    Silent(u32),
    /// It is challenged, and can answer until then.
    Challenged(u64),
    /// It was challenged, and that is over.
    Done,
}

/// The automatic challenger.
#[derive(Debug)]
struct Challenger {
    session: Session,
    checks: u32,
    known: BTreeMap<u64, Watched>,
    checked: Option<Instant>,
}

/// Does what was asked.
pub(crate) async fn ps(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    if !args.watch {
        return show::ps(settings, args.all).await;
    }
    if args.challenge {
        may_spend(args.yes)?;
    }
    let unlocked = args.challenge || wallet::can_unlock(settings);
    let session = if unlocked { Some(session(settings).await?) } else { None };
    let chain = match &session {
        Some(session) => session.chain().clone(),
        None => settings.connect().await?,
    };
    let challenger = match session.as_ref().filter(|_| args.challenge) {
        Some(session) => {
            let bond = Amount(chain.sla().CHALLENGE_BOND().call().await?);
            let question = format!(
                "Put up {} for each lease whose provider does not answer {} times, once, and lose that where it answers \
                 the challenge?",
                session.show(bond),
                args.checks
            );
            consent(args.yes, &question)?;
            let (session, known) = (session.clone(), BTreeMap::new());
            Some(Challenger { session, checks: args.checks, known, checked: None })
        }
        None => None,
    };
    let screen = std::io::stdout().is_terminal() && !settings.json;
    let _screen = if screen { Some(Screen::open()?) } else { None };
    let leave = async { if screen { keys().await } else { std::future::pending().await } };
    tokio::select! {
        ended = watch(settings, &chain, session.as_ref(), challenger, args.all, screen) => ended,
        () = leave => Ok(()),
        () = crate::interrupted() => Ok(()),
    }
}

async fn watch(
    settings: &Settings,
    chain: &Chain,
    session: Option<&Session>,
    mut challenger: Option<Challenger>,
    all: bool,
    screen: bool,
) -> anyhow::Result<()> {
    let (clients, mut known) = (Clients::default(), History::default());
    let mut notes: VecDeque<String> = VecDeque::new();
    let mut shown = None;
    let (mut seen, mut refreshed, mut took) = (0, Instant::now(), Duration::ZERO);
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let due = seen == 0 || refreshed.elapsed() >= LONGEST;
        // A chain that is slow to read is read more seldom.
        let rested = refreshed.elapsed() >= took * 3;
        let news = match chain.head().await {
            Ok(head) => rested && (due || head.number != seen),
            Err(err) => {
                tell_trouble(settings, screen, &output::causes(&err.into()))?;
                continue;
            }
        };
        if !news {
            continue;
        }
        refreshed = Instant::now();
        let leases = show::leases(settings, chain, session, &clients, all, &mut known).await;
        let leases = match leases {
            Ok(leases) => leases,
            Err(err) => {
                tell_trouble(settings, screen, &output::causes(&err))?;
                continue;
            }
        };
        (seen, took) = (leases.head.number, refreshed.elapsed());
        present(settings, &leases, &notes, &mut shown, screen)?;
        let Some(challenger) = &mut challenger else { continue };
        let mut new = Vec::new();
        challenger.look(&leases, &mut new).await;
        for note in new {
            let text = note.words(&challenger.session, leases.head.timestamp);
            if settings.json {
                print(&serde_json::to_string(&note)?)?;
            } else if !screen {
                print(&text)?;
            }
            notes.push_back(text);
            if notes.len() > NOTES {
                notes.pop_front();
            }
        }
        if screen {
            present(settings, &leases, &notes, &mut shown, screen)?;
        }
    }
}

fn tell_trouble(settings: &Settings, screen: bool, why: &str) -> anyhow::Result<()> {
    match screen && !settings.json {
        true => paint(&format!("roadstead ps: {why}; trying again, q quits")),
        false => {
            eprintln!("{why}; trying again");
            Ok(())
        }
    }
}

/// Shows leases: on the screen as they are, elsewhere when something about them has changed.
fn present(
    settings: &Settings,
    leases: &Leases,
    notes: &VecDeque<String>,
    shown: &mut Option<String>,
    screen: bool,
) -> anyhow::Result<()> {
    if screen {
        let notes: String = notes.iter().map(|note| format!("\n{note}")).collect();
        let block = leases.head.number;
        let title = format!("roadstead ps: block {block}, q quits");
        return paint(&format!("{title}\n\n{}\n{notes}", leases.text()));
    }
    let gist: String = leases.rows.iter().map(gist).collect();
    if shown.as_ref() == Some(&gist) {
        return Ok(());
    }
    *shown = Some(gist);
    match settings.json {
        true => {
            let value = serde_json::json!({ "block": leases.head.number, "leases": &leases.rows });
            Ok(print(&value.to_string())?)
        }
        false => Ok(print(&format!("{}\n", leases.text()))?),
    }
}

/// What of a lease is worth a new line when it changes.
fn gist(row: &Listed) -> String {
    format!("{} {:?} {:?} {};", row.lease, row.state, row.phase, row.reachable)
}

impl Challenger {
    /// Does what is to be done about each lease, and says so.
    async fn look(&mut self, leases: &Leases, notes: &mut Vec<Note>) {
        let counts = self.checked.is_none_or(|last| last.elapsed() >= BETWEEN);
        if counts {
            self.checked = Some(Instant::now());
        }
        let now = leases.head.timestamp;
        let open: BTreeMap<u64, &Listed> = leases.rows.iter().map(|row| (row.lease, row)).collect();
        // A lease that was closed is not listed any more, and its challenge may have to be ended.
        let ids: Vec<u64> = open.keys().chain(self.known.keys()).copied().collect();
        for lease in ids {
            let row = open.get(&lease).copied();
            let known = match self.known.get(&lease) {
                Some(known) => *known,
                None => match self.first(lease).await {
                    Ok(known) => known,
                    Err(err) => {
                        notes.push(failed(lease, &err));
                        continue;
                    }
                },
            };
            let next = match known {
                Watched::Silent(checks) => self.check(lease, row, checks, counts, now, notes).await,
                Watched::Challenged(deadline) => self.follow(lease, deadline, notes).await,
                Watched::Done => Ok(Watched::Done),
            };
            match next {
                Ok(next) => {
                    self.known.insert(lease, next);
                }
                Err(err) => {
                    // It is tried again after as many checks.
                    let again = match known {
                        Watched::Silent(_) => Watched::Silent(0),
                        Watched::Challenged(_) | Watched::Done => known,
                    };
                    self.known.insert(lease, again);
                    notes.push(failed(lease, &err));
                }
            }
        }
    }

    /// How a lease stands that this run has not seen before: somebody may have challenged it already.
    async fn first(&self, lease: u64) -> anyhow::Result<Watched> {
        let chain = self.session.chain();
        if chain.sla().challengeOf(lease).call().await?.challenger.is_zero() {
            return Ok(Watched::Silent(0));
        }
        let deadline = challenge::deadline(chain, lease).await?;
        Ok(deadline.map_or(Watched::Silent(0), Watched::Challenged))
    }

    /// Counts a check of a lease that is not challenged, and challenges it if that is the last.
    async fn check(
        &self,
        lease: u64,
        row: Option<&Listed>,
        checks: u32,
        counts: bool,
        now: u64,
        notes: &mut Vec<Note>,
    ) -> anyhow::Result<Watched> {
        let Some(row) = row.filter(|row| row.state == LeaseState::Active) else {
            return Ok(Watched::Silent(0));
        };
        if row.answers {
            if checks > 0 {
                notes.push(Note::Back { lease });
            }
            return Ok(Watched::Silent(0));
        }
        if !counts {
            return Ok(Watched::Silent(checks));
        }
        let checks = checks.saturating_add(1);
        if checks == 1 || checks == self.checks {
            notes.push(Note::Silent { lease, checks });
        }
        // Nothing could be had of it: it is not paid for, or not backed, or cannot be challenged.
        let (coverage, response) = row.backing;
        if checks < self.checks || row.funded_until <= now || coverage.0 == 0 || response == 0 {
            return Ok(Watched::Silent(checks));
        }
        let made = challenge::make(&self.session, lease, &Silent).await?;
        let (bond, deadline) = (made.bond, made.deadline);
        notes.push(Note::Challenged { lease, bond, deadline });
        Ok(Watched::Challenged(deadline))
    }

    /// Sees a challenge through.
    async fn follow(
        &self,
        lease: u64,
        deadline: u64,
        notes: &mut Vec<Note>,
    ) -> anyhow::Result<Watched> {
        let chain = self.session.chain();
        let mut standing = challenge::standing(chain, lease, deadline).await?;
        if standing == Standing::Over {
            let ended = challenge::end(&self.session, lease, &Silent).await;
            standing = challenge::standing(chain, lease, deadline).await?;
            // Somebody else may have been faster.
            ensure!(
                standing != Standing::Over,
                ended.err().map_or_else(String::new, |err| output::causes(&err))
            );
        }
        match standing {
            Standing::Open | Standing::Over => return Ok(Watched::Challenged(deadline)),
            Standing::Answered => notes.push(Note::Answered { lease }),
            Standing::Dark => notes.push(Note::Dark { lease }),
            Standing::Left => notes.push(Note::Left { lease }),
        }
        if standing != Standing::Answered {
            let sources = [claim::Source::Staking, claim::Source::Sla];
            let claimed = claim::take(&self.session, &sources, &Silent).await?;
            notes.extend(claimed.into_iter().map(Note::Claimed));
        }
        Ok(Watched::Done)
    }
}

fn failed(lease: u64, err: &anyhow::Error) -> Note {
    Note::Failed { lease, why: output::causes(err) }
}

impl Note {
    fn words(&self, session: &Session, now: u64) -> String {
        match self {
            Self::Silent { lease, checks: 1 } => {
                format!("lease {lease}: its provider does not answer")
            }
            Self::Silent { lease, checks } => {
                format!("lease {lease}: its provider did not answer {checks} times")
            }
            Self::Back { lease } => format!("lease {lease}: its provider answers again"),
            Self::Challenged { lease, bond, deadline } => format!(
                "lease {lease} is challenged, with a bond of {}; its provider has {} to answer",
                session.show(*bond),
                span(deadline.saturating_sub(now))
            ),
            Self::Answered { lease } => format!(
                "lease {lease}: the provider answered the challenge, and has its bond; it is not challenged again"
            ),
            Self::Dark { lease } => {
                format!("lease {lease} is closed: its provider did not answer in time")
            }
            Self::Left { lease } => {
                format!("lease {lease} was closed before it had to be answered for")
            }
            Self::Claimed(claimed) => format!("{} came into the wallet", claimed.words(session)),
            Self::Failed { lease, why } => format!("lease {lease}: {}", output::tame(why)),
        }
    }
}
