//! What the end-to-end tests and the benchmark stand on: a private chain, the contracts, a provider as a process of its
//! own, publishers with the command line, all on real sockets and a real Docker engine.
//!
//! Nothing here is a double but the registry of images, which serves what Docker pulls. Whatever a story leaves, however
//! it ends, is removed when its [`Stack`] goes.

mod anvil;
mod authority;
mod browser;
mod docker;
mod engine;
mod pod;
mod process;
mod provider;
mod publisher;
mod registry;
mod relay;
mod remains;
mod site;
mod stack;
mod wait;

pub use authority::Authority;
pub use browser::browse;
pub use docker::{Container, Docker};
pub use engine::{Engine, METADATA, WORLD};
pub use pod::{Image, PodFile};
pub use process::{project, roadstead};
pub use provider::Provider;
pub use publisher::{Deployed, Publisher, Running, Said};
pub use registry::{DockerRegistry, Registry};
pub use relay::Relay;
pub use site::Site;
pub use stack::{ALLOWANCE, CONFIRMATIONS, Setup, Stack, story};
pub use wait::{SOON, until, until_within};
