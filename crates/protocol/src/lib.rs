//! The rules of Roadstead, without I/O: amounts and rates, the account clock, quotes, resources and pods.
//!
//! The contracts compute the same things; `contracts/test/vectors` holds both to one another.

pub mod amount;
pub mod clock;
pub mod convert;
pub mod lease;
pub mod pod;
pub mod quote;
pub mod resources;
pub mod sla;
