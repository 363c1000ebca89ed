//! How connections come in.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// How long to wait when the system has no connection to give, mostly for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How often in a row a connection may not be accepted for another reason: a minute.
const MAX_FAILURES: u32 = 600;

/// A listener that lets so many in at a time. More wait in its queue.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    failures: u32,
}

impl Door {
    pub(crate) fn new(listener: TcpListener, places: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(places)), failures: 0 }
    }

    /// The next connection, and its place, which is free again once dropped. Nothing is lost when this is dropped.
    pub(crate) async fn next(
        &mut self,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.failures = 0;
                    return Ok((stream, peer, place));
                }
                Err(err) if passes(&err) || self.failures < MAX_FAILURES => {
                    if self.failures == 0 {
                        tracing::warn!(error = %err, "a connection was not accepted");
                    }
                    self.failures = self.failures.saturating_add(1);
                    sleep(PAUSE).await;
                }
                Err(err) => return Err(err),
            }
        }
    }
}

/// Whether only something is short that others give back: file descriptors or memory. Strangers can use them up by
/// holding connections open, so that must never end a listener.
fn passes(err: &io::Error) -> bool {
    let code = err.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_for_a_while_ends_no_listener() {
        let short = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
        assert!(short.into_iter().all(|code| passes(&code.into())));
        let broken = [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK];
        assert!(!broken.into_iter().any(|code| passes(&code.into())));
        assert!(!passes(&io::Error::other("a closed door")));
    }
}
