//! What stands between the outside and pods: HTTP ingress by host.
//!
//! It knows nothing of chains and leases. Whoever runs it says by [`Routes`] which host is answered by whom.

mod proxy;
mod routes;

pub use proxy::serve;
pub use routes::{Backend, Routes};
