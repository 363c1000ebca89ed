//! The provider: quotes, pods, ingress, meter.
//!
//! Its memory is the chain, a content-addressed pod store, and the labels on its containers: there is no database to
//! lose, and a provider that starts again finds its pods running and adopts them.

mod acts;
pub mod addons;
mod admin;
mod answer;
mod api;
mod archive;
mod attest;
mod blobs;
mod certificates;
pub mod config;
mod egress;
mod engine;
pub mod facts;
mod firewall;
mod holds;
mod house;
mod keep;
mod keys;
mod leases;
mod meter;
mod pods;
mod ports;
mod quote;
mod reconcile;
mod records;
mod register;
mod registry;
mod run;
mod screen;
mod sealed;
mod session;
mod shown;
mod slots;
mod status;
pub mod tree;
mod unlock;
mod visit;
mod volumes;
pub mod wire;

pub use admin::{ADMIN_TOKEN, METRICS_TOKEN, Token};
pub use config::Config;
pub use engine::{ClusterError, GpuError, NodeView, nodes, set_drained};
pub use firewall::{FirewallError, fence};
pub use keys::{KeyError, Keys};
pub use register::{RegisterError, Registration, adopt_prices, listing, register};
pub use run::{PurgeError, RunError, purge, run};

/// An error with its causes, in one line.
fn causes(err: &dyn std::error::Error) -> String {
    let mut line = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        line.push_str(": ");
        line.push_str(&err.to_string());
        cause = err.source();
    }
    line
}
