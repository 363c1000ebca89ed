//! `roadstead stake`: tokens that answer for what a wallet promises, and who may lock them.

use std::fmt;

use alloy::primitives::{Address, U256};
use anyhow::ensure;
use chain::{Chain, Deployment, abi::Staking};
use clap::Subcommand;
use protocol::amount::Amount;
use serde::Serialize;

use crate::{
    claim,
    output::{self, moment, span},
    progress::OnStderr,
    provider,
    publish::session,
    session::{Session, emitted},
    settings::Settings,
    wallet,
};

/// What to do with what is at stake.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put tokens at stake
    #[command(after_help = "Example:\n  roadstead stake bond 100")]
    Bond {
        /// How many whole tokens, as in 12.5
        amount: String,
    },
    /// Start to take out what backs nothing; it can be withdrawn after a delay
    #[command(after_help = "Examples:\n  roadstead stake unbond 100\n  roadstead stake unbond all")]
    Unbond {
        /// How many whole tokens, as in 12.5; or `all` that is free
        amount: String,
    },
    /// Put what is unbonding back at stake
    #[command(after_help = "Example:\n  roadstead stake cancel")]
    Cancel,
    /// Take out what was unbonding, once the delay is over
    #[command(after_help = "Example:\n  roadstead stake withdraw")]
    Withdraw,
    /// Free what backed leases, bids and seats that are over, once nobody can claim it any more; anybody may
    #[command(after_help = "Example:\n  roadstead stake unlock")]
    Unlock {
        /// Another wallet's than this one's
        #[arg(long, value_name = "ADDRESS")]
        of: Option<Address>,
    },
    /// Take what slashes of others brought this wallet; `roadstead claim` takes everything
    #[command(after_help = "Example:\n  roadstead stake claim")]
    Claim,
    /// Show what is at stake, what of it is locked, and what is on its way out
    #[command(after_help = "Example:\n  roadstead stake show --json")]
    Show {
        /// Another wallet than this one
        #[arg(long, value_name = "ADDRESS")]
        of: Option<Address>,
    },
    /// Show who may lock this wallet's bond, or say so
    #[command(
        after_help = "Examples:\n  roadstead stake lockers\n  roadstead stake lockers --allow leases\n  roadstead stake lockers --refuse auction"
    )]
    Lockers {
        /// Let this contract lock parts of the bond: leases, auction, sla, or an address
        #[arg(long, value_name = "CONTRACT", conflicts_with = "refuse")]
        allow: Option<Locker>,
        /// Let it lock no new parts; what it locked stays locked
        #[arg(long, value_name = "CONTRACT")]
        refuse: Option<Locker>,
    },
}

/// A contract that locks bonds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locker {
    /// Coverage of leases.
    Leases,
    /// Bids.
    Auction,
    /// Watchers' bonds.
    Sla,
    /// Another one.
    Other(Address),
}

impl std::str::FromStr for Locker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "leases" => Ok(Self::Leases),
            "auction" => Ok(Self::Auction),
            "sla" => Ok(Self::Sla),
            text => text.parse().map(Self::Other).map_err(|_err| {
                format!("{text:?} is neither leases, auction or sla nor an address")
            }),
        }
    }
}

impl fmt::Display for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leases => f.write_str("leases"),
            Self::Auction => f.write_str("auction"),
            Self::Sla => f.write_str("sla"),
            Self::Other(address) => address.fmt(f),
        }
    }
}

impl Locker {
    fn address(self, deployment: &Deployment) -> Address {
        match self {
            Self::Leases => deployment.leases,
            Self::Auction => deployment.auction,
            Self::Sla => deployment.sla,
            Self::Other(address) => address,
        }
    }

    fn of(address: Address, deployment: &Deployment) -> Self {
        let known = [Self::Leases, Self::Auction, Self::Sla];
        let known = known.into_iter().find(|locker| locker.address(deployment) == address);
        known.unwrap_or(Self::Other(address))
    }
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Bond { amount } => bond(settings, amount).await,
        Verb::Unbond { amount } => unbond(settings, amount).await,
        Verb::Cancel => cancel(settings).await,
        Verb::Withdraw => withdraw(settings).await,
        Verb::Unlock { of } => unlock(settings, *of).await,
        Verb::Claim => claim::run(settings, &[claim::Source::Staking]).await,
        Verb::Show { of } => show(settings, *of).await,
        Verb::Lockers { allow, refuse } => lockers(settings, *allow, *refuse).await,
    }
}

async fn bond(settings: &Settings, amount: &str) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let amount = Amount::parse(amount, &session.token)?;
    ensure!(amount.0 > 0, "a bond of nothing backs nothing; name an amount such as 100");
    provider::stake(&session, amount, &OnStderr::new()).await?;
    tell(settings, &session).await
}

async fn unbond(settings: &Settings, text: &str) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let bond = session.chain().staking().bondOf(session.wallet()).call().await?;
    let free = Amount(bond.bonded.saturating_sub(bond.locked));
    let amount = match text {
        "all" => free,
        text => Amount::parse(text, &session.token)?,
    };
    ensure!(
        amount.0 > 0 && amount <= free,
        "{} are free to be unbonded, and {} are locked; name an amount such as 12.5, or all",
        session.show(free),
        session.show(Amount(bond.locked))
    );
    let staking = session.chain().deployment().staking;
    let call = Staking::requestUnbondCall { amount: U256::from(amount.0) };
    let what = format!("unbonds {}", session.show(amount));
    session.send(staking, &call, &what, &OnStderr::new()).await?;
    tell(settings, &session).await
}

async fn cancel(settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let bond = session.chain().staking().bondOf(session.wallet()).call().await?;
    ensure!(bond.unbonding > 0, "nothing is unbonding");
    let what = format!("puts {} back at stake", session.show(Amount(bond.unbonding)));
    let staking = session.chain().deployment().staking;
    session.send(staking, &Staking::cancelUnbondCall {}, &what, &OnStderr::new()).await?;
    tell(settings, &session).await
}

async fn withdraw(settings: &Settings) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let chain = session.chain();
    let bond = chain.staking().bondOf(session.wallet()).call().await?;
    ensure!(
        bond.unbonding > 0,
        "nothing is unbonding; `roadstead stake unbond AMOUNT` starts to take something out"
    );
    let (now, from) = (chain.head().await?.timestamp, bond.withdrawableAt.to::<u64>());
    ensure!(
        from <= now,
        "{} can be withdrawn {}; what is at stake has to outlast the claims on it",
        session.show(Amount(bond.unbonding)),
        moment(from, now)
    );
    let staking = chain.deployment().staking;
    let call = Staking::withdrawCall { to: session.wallet() };
    let what = "takes out what was unbonding";
    let sent = session.send(staking, &call, what, &OnStderr::new()).await?;
    let made: Staking::Unbonded = emitted(&sent, staking)?;
    let amount = Amount(u128::try_from(made.amount).unwrap_or(u128::MAX));
    output::show(settings.json, &serde_json::json!({ "withdrawn": amount }), || {
        format!("{} are in the wallet", session.show(amount))
    })
}

async fn unlock(settings: &Settings, of: Option<Address>) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let (chain, who) = (session.chain(), of.unwrap_or(session.wallet()));
    let now = chain.head().await?.timestamp;
    let staking = chain.deployment().staking;
    let (mut freed, mut next) = (0_u128, None::<u64>);
    for (locker, r#ref) in chain.releases(who).await? {
        let lock = chain.staking().lockOf(who, locker, r#ref).call().await?;
        let from = lock.releaseAt.to::<u64>();
        if lock.amount == 0 || from == 0 {
            continue;
        }
        if from > now {
            next = Some(next.map_or(from, |next| next.min(from)));
            continue;
        }
        let call = Staking::unlockCall { bonder: who, locker, r#ref };
        let name = Locker::of(locker, chain.deployment());
        let what = format!("frees {} that {name} locked", session.show(Amount(lock.amount)));
        session.send(staking, &call, &what, &OnStderr::new()).await?;
        freed = freed.saturating_add(lock.amount);
    }
    let value = serde_json::json!({ "bonder": who, "freed": Amount(freed), "next": next });
    output::show(settings.json, &value, || {
        let mut text = match freed {
            0 => format!("nothing of the bond of {who} can be freed now"),
            freed => format!("{} are free again", session.show(Amount(freed))),
        };
        if let Some(next) = next {
            text.push_str(&format!("\nthe next part can be freed {}", moment(next, now)));
        }
        text
    })
}

/// A bond.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    bonder: Address,
    bonded: Amount,
    locked: Amount,
    free: Amount,
    unbonding: Amount,
    withdrawable_at: u64,
    claimable: Amount,
    lockers: Vec<String>,
}

async fn tell(settings: &Settings, session: &Session) -> anyhow::Result<()> {
    shown(settings, session.chain(), session.wallet()).await
}

async fn show(settings: &Settings, of: Option<Address>) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let who = match of {
        Some(who) => who,
        None => wallet::address(&settings.wallet)?,
    };
    shown(settings, &chain, who).await
}

async fn shown(settings: &Settings, chain: &Chain, who: Address) -> anyhow::Result<()> {
    let token = chain.token().await?;
    let now = chain.head().await?.timestamp;
    let bond = chain.staking().bondOf(who).call().await?;
    let claimable = chain.staking().claimable(who).call().await?;
    let lockers = chain.lockers(who).await?.into_iter();
    let value = Shown {
        bonder: who,
        bonded: Amount(bond.bonded),
        locked: Amount(bond.locked),
        free: Amount(bond.bonded.saturating_sub(bond.locked)),
        unbonding: Amount(bond.unbonding),
        withdrawable_at: bond.withdrawableAt.to(),
        claimable: Amount(u128::try_from(claimable).unwrap_or(u128::MAX)),
        lockers: lockers.map(|at| Locker::of(at, chain.deployment()).to_string()).collect(),
    };
    output::show(settings.json, &value, || {
        let show = |amount: Amount| format!("{} {}", amount.display(&token), token.symbol);
        let mut text = format!(
            "{who} has {} at stake; {} are locked, {} are free",
            show(value.bonded),
            show(value.locked),
            show(value.free)
        );
        if value.unbonding.0 > 0 {
            let when = match value.withdrawable_at <= now {
                true => "`roadstead stake withdraw` takes them out".to_owned(),
                false => format!("they can be withdrawn {}", moment(value.withdrawable_at, now)),
            };
            text.push_str(&format!("\n{} are unbonding; {when}", show(value.unbonding)));
        }
        if value.claimable.0 > 0 {
            let amount = show(value.claimable);
            text.push_str(&format!("\n{amount} from slashes of others can be claimed"));
        }
        text
    })
}

async fn lockers(
    settings: &Settings,
    allow: Option<Locker>,
    refuse: Option<Locker>,
) -> anyhow::Result<()> {
    let set = allow.map(|locker| (locker, true)).or(refuse.map(|locker| (locker, false)));
    let (chain, who) = match set {
        Some((locker, allowed)) => {
            let session = session(settings).await?;
            let deployment = session.chain().deployment();
            let call = Staking::setLockerCall { locker: locker.address(deployment), allowed };
            let what = match allowed {
                true => format!("lets {locker} lock your bond"),
                false => format!("lets {locker} lock no more of your bond"),
            };
            session.send(deployment.staking, &call, &what, &OnStderr::new()).await?;
            (session.chain().clone(), session.wallet())
        }
        None => (settings.connect().await?, wallet::address(&settings.wallet)?),
    };
    let lockers: Vec<_> = chain.lockers(who).await?;
    let named: Vec<_> =
        lockers.iter().map(|at| Locker::of(*at, chain.deployment()).to_string()).collect();
    let delay = chain.staking().UNBOND_DELAY().call().await?;
    let value: Vec<_> = named
        .iter()
        .zip(&lockers)
        .map(|(name, address)| serde_json::json!({ "locker": name, "address": address }))
        .collect();
    output::show(settings.json, &value, || {
        match named.as_slice() {
        [] => "nobody may lock this wallet's bond; `roadstead stake lockers --allow leases` lets leases".into(),
        named => format!(
            "{} may lock parts of this wallet's bond; what is free takes {} to unbond",
            named.join(", "),
            span(delay.to())
        ),
    }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockers_go_by_name_or_address() {
        let parse = |text: &str| text.parse::<Locker>();
        assert_eq!(parse("leases"), Ok(Locker::Leases));
        let other = Address::repeat_byte(7);
        assert_eq!(parse(&other.to_string()), Ok(Locker::Other(other)));
        assert!(parse("registry").unwrap_err().contains("neither"));
        for name in ["leases", "auction", "sla"] {
            assert_eq!(parse(name).unwrap().to_string(), name);
        }
    }
}
