//! `roadstead claim`: whatever waits for this wallet in the contracts.

use std::fmt;

use alloy::primitives::U256;
use chain::abi::{Auction, Sla, Staking};
use protocol::amount::Amount;
use serde::Serialize;

use crate::{
    output,
    progress::{OnStderr, Progress},
    publish::session,
    session::Session,
    settings::Settings,
};

/// Where something may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// From slashes of others.
    Staking,
    /// Bonds of challenges.
    Sla,
    /// Deposits of orders.
    Auction,
}

impl Source {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Staking, Self::Sla, Self::Auction];
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Staking => "from slashes of others' bonds",
            Self::Sla => "from challenges",
            Self::Auction => "from deposits of orders",
        })
    }
}

/// What was claimed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Claimed {
    /// Where it waited.
    pub(crate) source: Source,
    /// How much it was.
    pub(crate) amount: Amount,
}

impl Claimed {
    /// For people.
    pub(crate) fn words(&self, session: &Session) -> String {
        format!("{} {}", session.show(self.amount), self.source)
    }
}

/// Claims what waits in `sources` for the wallet.
pub(crate) async fn take(
    session: &Session,
    sources: &[Source],
    progress: &dyn Progress,
) -> anyhow::Result<Vec<Claimed>> {
    let mut claimed = Vec::new();
    for source in sources {
        let amount = claimable(session, *source).await?;
        if amount.0 > 0 {
            claim(session, *source, amount, progress).await?;
            claimed.push(Claimed { source: *source, amount });
        }
    }
    Ok(claimed)
}

/// Claims what waits in `sources`.
pub(crate) async fn run(settings: &Settings, sources: &[Source]) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let claimed = take(&session, sources, &OnStderr::new()).await?;
    output::show(settings.json, &claimed, || {
        if claimed.is_empty() {
            return format!("nothing waits to be claimed by {}", session.wallet());
        }
        claimed.iter().map(|claimed| claimed.words(&session)).collect::<Vec<_>>().join("\n")
    })
}

async fn claimable(session: &Session, source: Source) -> anyhow::Result<Amount> {
    let (chain, who) = (session.chain(), session.wallet());
    let amount: U256 = match source {
        Source::Staking => chain.staking().claimable(who).call().await?,
        Source::Sla => chain.sla().claimable(who).call().await?,
        Source::Auction => chain.auction().claimable(who).call().await?,
    };
    Ok(Amount(u128::try_from(amount).unwrap_or(u128::MAX)))
}

async fn claim(
    session: &Session,
    source: Source,
    amount: Amount,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let (deployment, to) = (session.chain().deployment(), session.wallet());
    let what = format!("takes {} {source}", session.show(amount));
    match source {
        Source::Staking => {
            session.send(deployment.staking, &Staking::claimCall { to }, &what, progress).await?
        }
        Source::Sla => {
            session.send(deployment.sla, &Sla::claimCall { to }, &what, progress).await?
        }
        Source::Auction => {
            session.send(deployment.auction, &Auction::claimCall { to }, &what, progress).await?
        }
    };
    Ok(())
}
