//! What an event does to the tables: pure, so that the same events make the same rows whenever and wherever.
//!
//! An event that does not follow from the ones before it (a lease that nobody opened, a stream that paid other than its
//! clock says) is an error: then something was left out, and nothing of its block is kept.

mod apps;
mod auction;
mod leases;
mod payments;
mod registry;
mod sla;
mod staking;

use alloy::primitives::{Address, U256};
use chain::decode::Event;
use protocol::{amount::Amount, clock::ClockError, lease::UnknownNumber};
use store::{
    Error, PgConnection,
    change::{Change, Undo},
    event::Subject,
};

use crate::rows::{NotRead, Rows};

/// Why an event does not follow from the ones before it.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It speaks of something that is not there.
    #[error("there is no {0}")]
    Missing(String),
    /// It says something came to be that is there already.
    #[error("there is a {0} already")]
    Exists(String),
    /// The account's clock refuses it.
    #[error("the account's clock refuses it")]
    Clock(#[from] ClockError),
    /// A stream paid something else than its clock says.
    #[error("{paid} were collected, and {owed} could be")]
    Collected {
        /// What the event says.
        paid: Amount,
        /// What the clock says.
        owed: Amount,
    },
    /// More leaves than is there.
    #[error("more leaves than there is")]
    TooMuch,
    /// An amount does not fit.
    #[error("{0} is no amount")]
    Amount(U256),
    /// An order ended in a way that this program does not know.
    #[error("{0} is no outcome of an order that this program knows")]
    Outcome(u8),
    /// It has a number that stands for nothing here.
    #[error("it has an unknown number")]
    Number(#[from] UnknownNumber),
    /// This program asked for too little.
    #[error("the fold is wrong")]
    NotRead(#[from] NotRead),
}

/// Where an event is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// Its block.
    pub(crate) block: u64,
    /// The block's time.
    pub(crate) time: u64,
    /// Where Leases is: its streams and locks are those of leases.
    pub(crate) leases: Address,
}

macro_rules! tables {
    ($($table:ident: $row:ty,)*) => {
        /// All tables that are folded.
        #[derive(Debug, Default)]
        pub(crate) struct State {
            $(pub(crate) $table: Rows<$row>,)*
            /// Whether all watchers that have a seat are needed: one leaves, and the last one gets its seat.
            pub(crate) wants_seats: bool,
        }

        impl State {
            /// Reads what is wanted.
            pub(crate) async fn load(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
                $(self.$table.load(conn).await?;)*
                if std::mem::take(&mut self.wants_seats) {
                    let seated = store::watcher::seated(conn).await?;
                    seated.into_iter().for_each(|watcher| self.watcher.take_in(watcher));
                }
                Ok(())
            }

            /// Ends a block; what it changed goes to `changes` if it may have to be undone.
            pub(crate) fn end_block(
                &mut self,
                block: u64,
                undoable: bool,
                changes: &mut Vec<Change>,
            ) -> Result<(), serde_json::Error> {
                $(self.$table.end_block(block, undoable, changes)?;)*
                Ok(())
            }

            /// Writes what was changed.
            pub(crate) async fn save(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
                $(self.$table.save(conn).await?;)*
                Ok(())
            }

            /// Puts rows in the database back as they were.
            pub(crate) async fn put_back(
                conn: &mut PgConnection,
                undo: &[Undo],
            ) -> Result<(), Error> {
                $(Rows::<$row>::put_back(conn, undo).await?;)*
                Ok(())
            }
        }
    };
}
tables! {
    account: store::account::Account,
    approval: store::approval::Approval,
    stream: store::stream::Stream,
    bond: store::bond::Bond,
    locker: store::locker::Locker,
    bond_lock: store::bond_lock::BondLock,
    claim: store::claim::Claim,
    provider: store::provider::Provider,
    price: store::price::Price,
    lease: store::lease::Lease,
    tally: store::tally::Tally,
    agent: store::agent::Agent,
    nonce: store::nonce::Nonce,
    vouch: store::vouch::Vouch,
    issuer: store::issuer::Issuer,
    auction: store::auction::Auction,
    bid: store::bid::Bid,
    challenge: store::challenge::Challenge,
    outage: store::outage::Outage,
    watcher: store::watcher::Watcher,
    epoch: store::epoch::Epoch,
    app: store::app::App,
    replica: store::replica::Replica,
}

impl State {
    /// Says which rows an event needs, as far as the event says it.
    pub(crate) fn want(&mut self, event: &Event) {
        match event {
            Event::Payments(event) => payments::want(self, event),
            Event::Staking(event) => staking::want(self, event),
            Event::Registry(event) => registry::want(self, event),
            Event::Leases(event) => leases::want(self, event),
            Event::Auction(event) => auction::want(self, event),
            Event::Sla(event) => sla::want(self, event),
            Event::Apps(event) => apps::want(self, event),
        }
    }

    /// Says which rows an event needs that only the rows which it names lead to.
    pub(crate) fn want_more(&mut self, event: &Event) {
        match event {
            Event::Payments(event) => payments::want_more(self, event),
            Event::Staking(_)
            | Event::Registry(_)
            | Event::Leases(_)
            | Event::Auction(_)
            | Event::Sla(_)
            | Event::Apps(_) => (),
        }
    }

    /// Folds an event in. Returns whom it is about.
    pub(crate) fn apply(&mut self, event: &Event, at: At) -> Result<Subject, Why> {
        match event {
            Event::Payments(event) => payments::apply(self, event, at),
            Event::Staking(event) => staking::apply(self, event, at),
            Event::Registry(event) => registry::apply(self, event, at),
            Event::Leases(event) => leases::apply(self, event, at),
            Event::Auction(event) => auction::apply(self, event, at),
            Event::Sla(event) => sla::apply(self, event, at),
            Event::Apps(event) => apps::apply(self, event, at),
        }
    }
}

/// A `uint256` that holds an amount of tokens.
fn amount(value: U256) -> Result<Amount, Why> {
    u128::try_from(value).map(Amount).map_err(|_err| Why::Amount(value))
}

fn add(to: &mut Amount, amount: Amount) -> Result<(), Why> {
    to.0 = to.0.checked_add(amount.0).ok_or(Why::TooMuch)?;
    Ok(())
}

fn take(from: &mut Amount, amount: Amount) -> Result<(), Why> {
    from.0 = from.0.checked_sub(amount.0).ok_or(Why::TooMuch)?;
    Ok(())
}
