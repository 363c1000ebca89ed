//! The contracts, spoken to from Rust: bindings, reading, sending, and what a revert means.

pub mod abi;
mod client;
mod heads;
mod revert;
mod sender;

pub use client::{Amendment, Chain, ConnectError, Deployment, Opening, ReadError, account_id};
pub use heads::{Head, heads};
pub use revert::Revert;
pub use sender::{SendError, Sender};
