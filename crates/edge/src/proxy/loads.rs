//! How busy each of several backends is.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How many exchanges are under way with each address; an address without any is not in it.
#[derive(Debug, Clone, Default)]
struct UnderWay(Arc<Mutex<HashMap<SocketAddr, usize>>>);

/// Which of several addresses comes next.
#[derive(Debug, Default)]
pub(super) struct Loads {
    under_way: UnderWay,
    turn: AtomicUsize,
}

/// An exchange with an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    addr: SocketAddr,
    under_way: UnderWay,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loads {
    /// The addresses, the least busy one first; those that are equally busy come first in turn.
    pub(super) fn order(&self, addrs: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut order = addrs.to_vec();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        order.rotate_left(turn.checked_rem(addrs.len()).unwrap_or_default());
        let under_way = self.under_way.lock();
        order.sort_by_key(|addr| under_way.get(addr).copied().unwrap_or_default());
        order
    }

    /// One more exchange with `addr`.
    pub(super) fn take(&self, addr: SocketAddr) -> Place {
        *self.under_way.lock().entry(addr).or_default() += 1;
        Place { addr, under_way: self.under_way.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.addr) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.addr);
            }
        }
    }
}
