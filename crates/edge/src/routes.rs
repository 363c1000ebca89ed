//! Where each host's requests go.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use arc_swap::ArcSwap;

use crate::counters::{Counters, HostStats};

/// Where each host's requests go. Clones share one table, which is swapped as a whole and read without locks.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<ArcSwap<HashMap<String, Arc<Route>>>>);

/// Who answers for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// These addresses, over HTTP/1.1: the one with the fewest requests under way that accepts a connection.
    Addrs(Vec<SocketAddr>),
    /// The same over HTTP/2 without TLS, which they have to understand without being asked ("prior knowledge"): gRPC.
    H2c(Vec<SocketAddr>),
    /// Nobody now, for this reason, which visitors are shown: the app starts, is frozen, …
    Unavailable(String),
}

/// A host's backend, and what it has had to do.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) backend: Backend,
    pub(crate) counters: Arc<Counters>,
}

impl Routes {
    /// Puts `routes` in place of all that there were. The hosts are in lower case, without port or final dot. Hosts
    /// that were there before keep their numbers.
    pub fn set(&self, routes: HashMap<String, Backend>) {
        let before = self.0.load();
        let route = |(host, backend): (String, Backend)| {
            let counters = match before.get(&host) {
                Some(route) => Arc::clone(&route.counters),
                None => Arc::default(),
            };
            (host, Arc::new(Route { backend, counters }))
        };
        self.0.store(Arc::new(routes.into_iter().map(route).collect()));
    }

    /// Who answers for `host`, given as in [`set`](Self::set).
    pub fn get(&self, host: &str) -> Option<Backend> {
        self.find(host).map(|route| route.backend.clone())
    }

    /// What each host has had to do since it is there.
    pub fn stats(&self) -> BTreeMap<String, HostStats> {
        let routes = self.0.load();
        routes.iter().map(|(host, route)| (host.clone(), route.counters.stats())).collect()
    }

    pub(crate) fn find(&self, host: &str) -> Option<Arc<Route>> {
        self.0.load().get(host).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_with_their_host() {
        let routes = Routes::default();
        let set = |hosts: &[&str]| {
            let backend = |host: &&str| ((*host).to_owned(), Backend::H2c(Vec::new()));
            routes.set(hosts.iter().map(backend).collect());
        };
        set(&["a", "b"]);
        for host in ["a", "a", "b"] {
            drop(routes.find(host).unwrap().counters.begin());
        }
        set(&["a"]);
        set(&["a", "b"]);
        let requests: Vec<_> = routes.stats().into_values().map(|stats| stats.requests).collect();
        assert_eq!(requests, [2, 0]);
    }
}
