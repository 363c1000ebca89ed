//! The market: what the chain's mirror holds, for programs over HTTP and for people on a page.
//!
//! It only reads. All that it says of one request is read in one transaction (`Market::read`), so it is the state after
//! one block, and the block is named. Whoever acts on an answer verifies it on the chain: a market that lies or is down
//! costs its users nothing but time.

mod answer;
mod api;
#[expect(unused_qualifications, reason = "those that the derivation of the description makes")]
mod changes;
mod limits;
mod listings;
mod metrics;
mod page;
mod problem;
mod query;
mod run;
mod serve;
mod view;

pub use limits::Limits;
pub(crate) use problem::Problem;
pub use run::{Config, RunError, run};
pub(crate) use run::{MOST_VOUCHES, Market, Reading, now};
