//! What stands between the outside and pods: HTTP ingress by host, TLS and the certificates for it, TCP and UDP ports.
//!
//! It knows nothing of chains and leases. Whoever runs it says by [`Routes`] which host is answered by whom, by
//! [`Certificates`] which certificates publishers brought, and by [`Acme::want`] for which hosts it is to get some.

pub mod acme;
pub mod forward;

mod about;
mod activity;
mod challenges;
mod counters;
mod door;
mod proxy;
mod routes;
mod tasks;
mod tls;

pub use about::{About, PublicKey, Visit};
pub use acme::Acme;
pub use challenges::Challenges;
pub use counters::{HostStats, LATENCY_BOUNDS, Latency};
pub use proxy::{Ingress, Limits};
pub use routes::{Backend, Routes};
pub use tls::{BadCertificate, Certificate, Certificates};
