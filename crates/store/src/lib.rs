//! The mirror in Postgres: the only place where there is SQL. A module per table; whoever calls owns the transaction.

pub mod account;
pub mod agent;
pub mod app;
pub mod approval;
pub mod auction;
pub mod bid;
pub mod block;
pub mod bond;
pub mod bond_lock;
pub mod challenge;
pub mod change;
pub mod claim;
pub mod codec;
mod copy;
pub mod cursor;
mod dump;
pub mod epoch;
pub mod event;
pub mod issuer;
pub mod lease;
pub mod locker;
pub mod market;
pub mod nonce;
mod open;
pub mod outage;
pub mod price;
pub mod provider;
pub mod replica;
pub mod row;
pub mod stream;
pub mod tally;
pub mod vouch;
pub mod watcher;

pub use dump::dump;
pub use open::{LONGEST, OpenError, Writer, connect, migrate, pool};
pub use sqlx::{Error, PgConnection, PgPool};
