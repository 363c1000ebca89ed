//! The rules of Roadstead, without I/O: amounts and rates, the account clock, quotes, resources, pods, and which providers come
//! into question for them.
//!
//! The contracts compute the same things; `contracts/test/vectors` holds both to one another.

pub mod amount;
pub mod clock;
pub mod convert;
pub mod criteria;
pub mod lease;
pub mod pod;
pub mod quote;
pub mod resources;
pub mod sla;
