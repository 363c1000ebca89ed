//! TCP and UDP ports: whatever comes is passed on to one address.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::counters::Counters;

mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use tcp::tcp;
pub use udp::udp;

/// How many connections and sessions several ports may have open together, whatever each may have. Clones share them.
#[derive(Debug, Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// So many.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }
}

/// Where a port leads. Clones share it, so that a pod can take another's place while the port stays open.
#[derive(Debug, Clone, Default)]
pub struct Target {
    addr: Arc<ArcSwapOption<SocketAddr>>,
    counters: Arc<Counters>,
    places: Option<Places>,
}

impl Target {
    /// One that leads nowhere yet, and whose connections and sessions each take one of `places`. While there is none,
    /// connections are closed at once, and datagrams of new senders dropped.
    pub fn within(places: &Places) -> Self {
        Self { places: Some(places.clone()), ..Self::default() }
    }

    /// A place for a connection or session: `Some(None)` where they are not counted, none where there is no room.
    fn place(&self) -> Option<Option<OwnedSemaphorePermit>> {
        match &self.places {
            None => Some(None),
            Some(Places(places)) => Arc::clone(places).try_acquire_owned().ok().map(Some),
        }
    }

    /// Leads there from now on; what has begun with TCP stays where it is. With none, connections are closed at once and
    /// datagrams are dropped.
    pub fn set(&self, addr: Option<SocketAddr>) {
        self.addr.store(addr.map(Arc::new));
    }

    /// Where it leads.
    pub fn get(&self) -> Option<SocketAddr> {
        self.addr.load().as_deref().copied()
    }

    /// What has gone through.
    pub fn stats(&self) -> PortStats {
        let stats = self.counters.stats();
        PortStats {
            opened: stats.requests,
            open: stats.in_flight,
            received: stats.received,
            sent: stats.sent,
            last: stats.last,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        let target = Self::default();
        target.set(Some(addr));
        target
    }
}

/// What has gone through a port, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStats {
    /// How many connections or, with UDP, sessions were opened.
    pub opened: u64,
    /// How many of them are open.
    pub open: u64,
    /// The bytes that came from outside.
    pub received: u64,
    /// The bytes that went there.
    pub sent: u64,
    /// When the last connection or session was opened.
    pub last: Option<SystemTime>,
}

/// What a TCP port may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpLimits {
    /// How many connections are open at a time. More wait in the listener's queue.
    pub connections: usize,
    /// For how long nothing may move on a connection.
    pub idle: Duration,
    /// For how long connections may go on after the stop.
    pub drain: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            idle: Duration::from_secs(2 * 60 * 60),
            drain: Duration::from_secs(5),
        }
    }
}

/// What a UDP port may take. The times are those of Linux's own connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpLimits {
    /// How many senders have a session at a time. Datagrams of more are dropped.
    pub sessions: usize,
    /// For how long nothing may move in a session.
    pub idle: Duration,
    /// The same while there was no answer yet, as with datagrams under a false address.
    pub unanswered: Duration,
}

impl Default for UdpLimits {
    fn default() -> Self {
        Self {
            sessions: 4_096,
            idle: Duration::from_secs(180),
            unanswered: Duration::from_secs(30),
        }
    }
}
