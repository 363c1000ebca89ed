//! What watchers sign, and what is made of it: reports, rewards, and proofs that one said two things.
//!
//! Statements come from files that anybody may have written. Nothing is decided by them here: who sat in a committee is read
//! from the chain, and Sla checks each signature. The worst that a false one does is a report that is refused.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use alloy::{
    primitives::{Address, B256, Bytes, U256, aliases::U40, keccak256},
    signers::SignerSync as _,
    sol_types::SolValue as _,
};
use anyhow::{Context as _, bail, ensure};
use chain::{
    Chain,
    abi::{ISla, Sla, Staking},
};
use protocol::{amount::Amount, lease::State};
use serde::{Deserialize, Serialize};

use crate::{
    output::{self, span},
    progress::OnStderr,
    publish::session,
    session::{Session, emitted},
    settings::Settings,
};

/// The most bytes of statements that are read.
const MAX_STATEMENTS: u64 = 1 << 20;

/// What is signed.
#[derive(Debug, clap::Args)]
pub(crate) struct Sign {
    /// The lease
    lease: u64,
    /// From when: 2026-01-31T12:00:00Z, or a Unix time
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: u64,
    /// Until when
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: u64,
    /// That it answered in all of that time, rather than in none of it
    #[arg(long)]
    up: bool,
}

fn time(text: &str) -> Result<u64, String> {
    if let Ok(secs) = text.parse() {
        return Ok(secs);
    }
    let format = &time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(text, format).ok();
    let secs = time.and_then(|time| time.unix_timestamp().try_into().ok());
    secs.ok_or_else(|| {
        format!("{text:?} is neither a time such as 2026-01-31T12:00:00Z nor a Unix time")
    })
}

/// A signed statement, as it goes from watcher to watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Statement {
    /// Who signed.
    watcher: Address,
    /// About which lease.
    lease: u64,
    /// From when, in Unix seconds.
    from: u64,
    /// Until when.
    to: u64,
    /// Whether its pod answered in all of that time, or in none of it.
    up: bool,
    /// The EIP-712 signature.
    signature: Bytes,
}

impl Statement {
    fn abi(&self) -> anyhow::Result<ISla::Statement> {
        Ok(ISla::Statement {
            lease: self.lease,
            from: seconds(self.from)?,
            to: seconds(self.to)?,
            up: self.up,
        })
    }
}

fn seconds(secs: u64) -> anyhow::Result<U40> {
    U40::try_from(secs).ok().with_context(|| format!("{secs} is beyond the end of time"))
}

/// Signs a statement and prints it.
pub(super) async fn sign(settings: &Settings, args: &Sign) -> anyhow::Result<()> {
    ensure!(args.from < args.to, "--to has to be later than --from");
    let session = session(settings).await?;
    let chain = session.chain();
    let now = chain.head().await?.timestamp;
    ensure!(args.to <= now, "--to lies {} ahead; sign what you saw", span(args.to - now));
    let mut statement = Statement {
        watcher: session.wallet(),
        lease: args.lease,
        from: args.from,
        to: args.to,
        up: args.up,
        signature: Bytes::new(),
    };
    let digest = chain.sla().digest(statement.abi()?).call().await?;
    let signature = session.sender.signer().sign_hash_sync(&digest)?;
    statement.signature = signature.as_bytes().to_vec().into();
    // A file for other programs, with --json or without.
    Ok(output::print(&serde_json::to_string(&statement)?)?)
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Statement>> {
    let mut all = Vec::new();
    for file in files {
        let name = file.display();
        let mut text = String::new();
        let reader: Box<dyn std::io::Read> = match file == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => Box::new(
                std::fs::File::open(file).with_context(|| format!("{name} cannot be read"))?,
            ),
        };
        reader
            .take(MAX_STATEMENTS)
            .read_to_string(&mut text)
            .with_context(|| format!("{name} cannot be read"))?;
        all.extend(parse(&text).with_context(|| {
            format!(
                "{name} has something that is no statement; `roadstead watcher sign` makes them"
            )
        })?);
    }
    Ok(all)
}

fn parse(text: &str) -> serde_json::Result<Vec<Statement>> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

/// Places in the committee, with their signatures, in rising order; each once.
fn places(committee: &[Address], statements: &[Statement]) -> anyhow::Result<Vec<(u8, Bytes)>> {
    let mut places = std::collections::BTreeMap::new();
    for statement in statements {
        let watcher = statement.watcher;
        let place = committee.iter().position(|member| *member == watcher);
        let place = place.with_context(|| {
            format!("{watcher} does not sit in the committee of lease {}", statement.lease)
        })?;
        places.insert(u8::try_from(place)?, statement.signature.clone());
    }
    Ok(places.into_iter().collect())
}

async fn committee(chain: &Chain, lease: u64, epoch: u64) -> anyhow::Result<Vec<Address>> {
    let epoch = seconds(epoch)?;
    Ok(chain.sla().committee(lease, epoch).call().await?)
}

/// Hands a report in.
pub(super) async fn report(settings: &Settings, files: &[PathBuf]) -> anyhow::Result<()> {
    let statements = read(files)?;
    let first = statements.first().context("there is no statement in these files")?;
    let (lease, from, to) = (first.lease, first.from, first.to);
    let other = statements.iter().find(|s| s.up || (s.lease, s.from, s.to) != (lease, from, to));
    if let Some(other) = other {
        bail!(
            "a report is made of statements that say the same, that lease {lease} was down from {from} to {to}; {} says \
             that lease {} was {} from {} to {}",
            other.watcher,
            other.lease,
            if other.up { "up" } else { "down" },
            other.from,
            other.to
        );
    }
    let session = session(settings).await?;
    let chain = session.chain();
    let secs = chain.sla().EPOCH().call().await?.to::<u64>();
    let epoch = from.checked_div(secs).context("the deployment has epochs of no length")?;
    let members = committee(chain, lease, epoch).await?;
    ensure!(
        !members.is_empty(),
        "epoch {epoch}, in which that was, has no committees: nobody opened it in its time"
    );
    let places = places(&members, &statements)?;
    let quorum: U256 = chain.sla().QUORUM().call().await?;
    ensure!(
        U256::from(places.len()) >= quorum,
        "{} members of the committee signed, and {quorum} have to",
        places.len()
    );
    let (members, signatures) = places.into_iter().unzip();
    let (sla, staking) = (chain.deployment().sla, chain.deployment().staking);
    let call =
        Sla::reportCall { id: lease, from: seconds(from)?, to: seconds(to)?, members, signatures };
    let what = format!("reports an outage of lease {lease}");
    let sent = session.send(sla, &call, &what, &OnStderr::new()).await?;
    let made: Sla::Reported = emitted(&sent, sla)?;
    // An outage that costs nothing, or no more than it did, slashes nothing.
    let slashed = emitted::<Staking::Slashed>(&sent, staking).unwrap_or_default();
    let amount = |amount| Amount(u128::try_from(amount).unwrap_or(u128::MAX));
    let (taken, paid) = (amount(slashed.amount), amount(slashed.paid));
    let closed = deploy_state(&session, lease).await? == State::Closed;
    let value = serde_json::json!({
        "lease": lease,
        "from": made.from.to::<u64>(),
        "to": made.to.to::<u64>(),
        "due": Amount(made.due),
        "taken": taken,
        "payer": paid,
        "reward": Amount(made.reward),
        "closed": closed,
    });
    output::show(settings.json, &value, || {
        let outage = made.to.to::<u64>().saturating_sub(made.from.to());
        let mut text = format!(
            "an outage of {}, which cost {} so far; {} of it now: {} for the payer, {} for who signed, the rest burned",
            span(outage),
            session.show(Amount(made.due)),
            session.show(taken),
            session.show(paid),
            session.show(Amount(made.reward))
        );
        if closed {
            text.push_str(&format!("\nlease {lease} is closed"));
        }
        text
    })
}

async fn deploy_state(session: &Session, lease: u64) -> anyhow::Result<State> {
    Ok(State::try_from(crate::deploy::lease(session, lease).await?.lease.state)?)
}

/// The name that Sla gives a report.
fn report_id(report: &Sla::Reported) -> B256 {
    keccak256((report.lease, report.from, report.to).abi_encode())
}

/// Takes this wallet's shares.
pub(super) async fn reward(settings: &Settings, lease: Option<u64>) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Taken {
        lease: u64,
        report: B256,
        amount: Amount,
    }
    let session = session(settings).await?;
    let (chain, wallet) = (session.chain(), session.wallet());
    let before = chain.rewarded(wallet).await?;
    let sla = chain.deployment().sla;
    let mut taken = Vec::new();
    for report in chain.reports(lease).await? {
        let id = report_id(&report);
        if report.reward == 0 || before.contains(&id) {
            continue;
        }
        let members = committee(chain, report.lease, report.epoch.to()).await?;
        let place = members.iter().position(|member| *member == wallet);
        let Some(member) = place.and_then(|place| u8::try_from(place).ok()) else { continue };
        if report.members & (1 << member) == 0 {
            continue;
        }
        let call = Sla::rewardCall { id, member };
        let what = format!("takes the reward for a report of lease {}", report.lease);
        let sent = session.send(sla, &call, &what, &OnStderr::new()).await?;
        let made: Sla::Rewarded = emitted(&sent, sla)?;
        let amount = Amount(u128::try_from(made.amount).unwrap_or(u128::MAX));
        taken.push(Taken { lease: report.lease, report: id, amount });
    }
    output::show(settings.json, &taken, || match taken.is_empty() {
        true => format!("no reward waits for {wallet}"),
        false => {
            let lines = taken.iter().map(|taken| {
                format!("{} for a report of lease {}", session.show(taken.amount), taken.lease)
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    })
}

/// The two statements that contradict each other: that it was up, that it was down.
fn contradiction(statements: &[Statement]) -> Option<(&Statement, &Statement)> {
    let ups = statements.iter().filter(|statement| statement.up);
    ups.flat_map(|up| statements.iter().map(move |down| (up, down))).find(|(up, down)| {
        let overlap = up.from < down.to && down.from < up.to;
        !down.up && up.watcher == down.watcher && up.lease == down.lease && overlap
    })
}

/// Shows that a watcher said two things.
pub(super) async fn accuse(settings: &Settings, files: &[PathBuf]) -> anyhow::Result<()> {
    let statements = read(files)?;
    let (up, down) = contradiction(&statements).context(
        "these do not contradict each other: a watcher has to say of one lease that it was up and that it was down, for \
         times that overlap",
    )?;
    let session = session(settings).await?;
    let sla = session.chain().deployment().sla;
    let call = Sla::equivocatedCall {
        watcher: up.watcher,
        up: up.abi()?,
        upSignature: up.signature.clone(),
        down: down.abi()?,
        downSignature: down.signature.clone(),
    };
    let what = format!("shows that {} said two things", up.watcher);
    let sent = session.send(sla, &call, &what, &OnStderr::new()).await?;
    let made: Sla::Equivocated = emitted(&sent, sla)?;
    let bond = Amount(u128::try_from(made.amount).unwrap_or(u128::MAX));
    let value = serde_json::json!({ "watcher": made.watcher, "lease": made.lease, "bond": bond });
    output::show(settings.json, &value, || {
        format!(
            "{} lost its bond of {}; half of it, less what is burned, is yours with `roadstead claim`",
            made.watcher,
            session.show(bond)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(watcher: u8, from: u64, to: u64, up: bool) -> Statement {
        let (watcher, signature) = (Address::repeat_byte(watcher), vec![watcher; 65].into());
        Statement { watcher, lease: 7, from, to, up, signature }
    }

    #[test]
    fn statements_come_in_any_number_per_file() {
        let one = statement(1, 10, 20, false);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(parse(&text).unwrap(), std::slice::from_ref(&one));
        assert_eq!(parse(&format!("{text}\n{text}\n")).unwrap(), [one.clone(), one]);
        assert!(parse("").unwrap().is_empty());
        assert!(parse(&text.replace("\"up\"", "\"down\"")).is_err());
    }

    #[test]
    fn signatures_go_in_the_order_of_the_committee_and_once() {
        let committee = [3, 1, 2].map(Address::repeat_byte);
        let signed = [1, 3, 1].map(|watcher| statement(watcher, 10, 20, false));
        let got: Vec<u8> =
            places(&committee, &signed).unwrap().into_iter().map(|(place, _)| place).collect();
        assert_eq!(got, [0, 1]);
        let stranger = [statement(9, 10, 20, false)];
        assert!(places(&committee, &stranger).unwrap_err().to_string().contains("does not sit"));
    }

    #[test]
    fn a_contradiction_is_of_one_watcher_and_one_time() {
        let check = |statements: &[Statement], wanted: bool| {
            assert_eq!(contradiction(statements).is_some(), wanted, "{statements:?}");
        };
        check(&[statement(1, 10, 20, true), statement(1, 19, 30, false)], true);
        check(&[statement(1, 19, 30, false), statement(1, 10, 20, true)], true);
        check(&[statement(1, 10, 20, true), statement(1, 20, 30, false)], false);
        check(&[statement(1, 10, 20, true), statement(2, 10, 20, false)], false);
        check(&[statement(1, 10, 20, false), statement(1, 10, 20, false)], false);
        let other = Statement { lease: 8, ..statement(1, 10, 20, false) };
        check(&[statement(1, 10, 20, true), other], false);
    }

    #[test]
    fn times_are_said_in_two_ways() {
        assert_eq!(time("1970-01-02T00:00:00Z"), Ok(86_400));
        assert_eq!(time("1795573326"), Ok(1_795_573_326));
        assert!(time("10m").unwrap_err().contains("neither"));
    }
}
