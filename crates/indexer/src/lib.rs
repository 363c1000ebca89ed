//! The chain, mirrored in Postgres: events as they were emitted, and the tables that follow from them.
//!
//! Blocks come from [`chain::blocks`], each checked against its hash; [`fold`] says what an event does to the tables;
//! one transaction writes a batch of blocks, its events, the rows that they change and the cursor. Killed at any instant
//! it goes on where the database is. A block that goes away takes its events with it, and the rows that it changed are
//! put back as they were.

pub mod fold;
mod mirror;
mod rows;
mod run;
mod serve;
mod status;

pub use mirror::ApplyError;
pub use rows::NotRead;
pub use run::{Config, RunError, run};
pub use serve::router;
pub use status::{Progress, Status};
