//! TCP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Target, TcpLimits};
use crate::{
    activity::{Activity, Meter, Metered},
    counters::InFlight,
    door::Door,
    tasks::Tasks,
};

/// How long the target may take to accept a connection. It is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(5);

/// Passes connections on `listener` on to `target` until `stop`, and then for some seconds what has begun. One side may
/// finish before the other.
///
/// # Errors
/// When the listener gives no connections for a minute.
pub async fn tcp(
    listener: TcpListener,
    target: Target,
    limits: TcpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let end = CancellationToken::new();
    // Also when this future is dropped.
    let _end = end.clone().drop_guard();
    let tasks = Tasks::new(&end);
    let mut door = Door::new(listener, limits.connections);
    let result = loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            next = door.next() => match next {
                Ok(next) => next,
                Err(err) => break Err(err),
            },
        };
        // None: it is closed at once, and has not been counted.
        let Some(addr) = target.get() else { continue };
        let Some(shared) = target.place() else { continue };
        let call = Arc::new(Call { flight: target.counters.begin(), moved: Activity::new() });
        let peer = peer.ip().to_canonical();
        tasks.spawn(async move {
            pass(stream, peer, addr, call, limits.idle).await;
            drop((place, shared));
        });
    };
    drop(door);
    if timeout(limits.drain, tasks.finished()).await.is_err() {
        tracing::info!(connections = tasks.len(), "ending connections that did not finish in time");
    }
    end.cancel();
    tasks.finished().await;
    result
}

/// A connection that is open.
struct Call {
    flight: InFlight,
    moved: Activity,
}

impl Meter for Call {
    fn received(&self, bytes: usize) {
        self.moved.touch();
        self.flight.counters().received(bytes);
    }

    fn sent(&self, bytes: usize) {
        self.moved.touch();
        self.flight.counters().sent(bytes);
    }
}

async fn pass(stream: TcpStream, peer: IpAddr, addr: SocketAddr, call: Arc<Call>, idle: Duration) {
    let both = async {
        let mut inner = timeout(CONNECT, TcpStream::connect(addr)).await??;
        stream.set_nodelay(true)?;
        inner.set_nodelay(true)?;
        let mut outer = Metered::new(stream, Arc::clone(&call));
        copy_bidirectional(&mut outer, &mut inner).await
    };
    let ended = tokio::select! {
        ended = both => ended,
        () = call.moved.until_quiet(idle) => {
            return tracing::debug!(%peer, "a connection was ended, as nothing moved for {idle:?}");
        }
    };
    if let Err(err) = ended {
        tracing::debug!(%peer, %addr, error = %err, "a connection ended early");
    }
}
