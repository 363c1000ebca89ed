//! Where each host's requests go.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;

/// Where each host's requests go. Clones share one table, which is swapped as a whole and read without locks.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<ArcSwap<HashMap<String, Backend>>>);

/// Who answers for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// These addresses: the first that accepts a connection.
    Addrs(Vec<SocketAddr>),
    /// Nobody now, for this reason, which visitors are shown: the app starts, is frozen, …
    Unavailable(String),
}

impl Routes {
    /// Puts `routes` in place of all that there were. The hosts are in lower case, without port or final dot.
    pub fn set(&self, routes: HashMap<String, Backend>) {
        self.0.store(Arc::new(routes));
    }

    /// Who answers for `host`, given as in [`set`](Self::set).
    pub fn get(&self, host: &str) -> Option<Backend> {
        self.0.load().get(host).cloned()
    }
}
