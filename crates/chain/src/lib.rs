//! The contracts, spoken to from Rust: bindings, reading, sending, and what a revert means.

pub mod abi;
pub mod blocks;
mod client;
pub mod decode;
mod heads;
mod revert;
mod sender;

pub use client::{
    Amendment, Chain, ChallengeStep, Collection, ConnectError, Deployment, History, Opening,
    OrderStanding, Placement, ReadError, Registered, Vouches, account_id, apps_quote,
};
pub use heads::{Head, heads};
pub use revert::{Revert, Told};
pub use sender::{SendError, Sender};
