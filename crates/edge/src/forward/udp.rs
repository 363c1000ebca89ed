//! UDP: a session per sender, with a socket of its own towards the target, so that answers find their way back.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::OwnedSemaphorePermit,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Target, UdpLimits};
use crate::{activity::Activity, counters::InFlight};

/// The most bytes of a datagram.
const MAX_DATAGRAM: usize = 65_535;

/// How long to wait when the socket fails.
const PAUSE: Duration = Duration::from_millis(100);

/// How often in a row that may happen: a minute.
const MAX_FAILURES: u32 = 600;

/// Passes datagrams to `socket` on to `target`, and the answers back, until `stop`.
///
/// A machine with several addresses should bind `socket` to each that is to be served: answers of one that is bound to
/// all of them go out under the address that the system prefers, and senders may have asked at another.
///
/// # Errors
/// When the socket fails for a minute.
pub async fn udp(
    socket: UdpSocket,
    target: Target,
    limits: UdpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut sessions = Sessions {
        socket: Arc::new(socket),
        target,
        limits,
        table: HashMap::new(),
        tasks: JoinSet::new(),
        next: 0,
        full: false,
    };
    let socket = Arc::clone(&sessions.socket);
    let mut datagram = vec![0; MAX_DATAGRAM];
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            Some(ended) = sessions.tasks.join_next() => sessions.ended(ended.ok()),
            received = socket.recv_from(&mut datagram) => match received {
                Ok((len, sender)) => {
                    failures = 0;
                    sessions.pass(sender, &datagram[..len]).await;
                }
                Err(err) if failures < MAX_FAILURES => {
                    if failures == 0 {
                        tracing::warn!(error = %err, "a datagram was not received");
                    }
                    failures += 1;
                    sleep(PAUSE).await;
                }
                Err(err) => return Err(err),
            },
        }
    }
}

struct Sessions {
    socket: Arc<UdpSocket>,
    target: Target,
    limits: UdpLimits,
    table: HashMap<SocketAddr, Entered>,
    tasks: JoinSet<(SocketAddr, u64)>,
    next: u64,
    /// Whether it was said that there is no room.
    full: bool,
}

/// A session, as the table has it.
struct Entered {
    session: Arc<Session>,
    number: u64,
    task: AbortHandle,
}

struct Session {
    sender: SocketAddr,
    target: SocketAddr,
    socket: UdpSocket,
    flight: InFlight,
    moved: Activity,
    answered: AtomicBool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Sessions {
    /// A session has ended: of this sender, under this number. It may be that the sender has another by now.
    fn ended(&mut self, ended: Option<(SocketAddr, u64)>) {
        let Some((sender, number)) = ended else { return };
        if let Entry::Occupied(entered) = self.table.entry(sender)
            && entered.get().number == number
        {
            entered.remove();
            self.full = false;
        }
    }

    async fn pass(&mut self, sender: SocketAddr, datagram: &[u8]) {
        let Some(target) = self.target.get() else { return };
        let session = match self.table.get(&sender) {
            Some(entered) if entered.session.target == target => Arc::clone(&entered.session),
            Some(_) | None => match self.begin(sender, target).await {
                Ok(Some(session)) => session,
                Ok(None) => return,
                Err(err) => {
                    return tracing::debug!(%sender, %target, error = %err, "no session was opened");
                }
            },
        };
        session.moved.touch();
        session.flight.counters().received(datagram.len());
        // That nobody listened to an earlier one is not this one's failure, and a datagram may get lost anyway.
        if let Err(err) = session.socket.send(datagram).await {
            tracing::debug!(%sender, %target, error = %err, "a datagram was not sent");
        }
    }

    /// Opens a session, in place of one to another target. None: there is no room.
    async fn begin(
        &mut self,
        sender: SocketAddr,
        target: SocketAddr,
    ) -> io::Result<Option<Arc<Session>>> {
        if let Some(before) = self.table.remove(&sender) {
            before.task.abort();
        }
        let place = self.target.place();
        if self.table.len() >= self.limits.sessions || place.is_none() {
            if !self.full {
                self.full = true;
                tracing::warn!(sessions = self.table.len(), "datagrams of new senders are dropped");
            }
            return Ok(None);
        }
        let local: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        // From now on it takes datagrams of the target only.
        socket.connect(target).await?;
        let session = Arc::new(Session {
            sender,
            target,
            socket,
            flight: self.target.counters.begin(),
            moved: Activity::new(),
            answered: AtomicBool::new(false),
            _place: place.flatten(),
        });
        let number = self.next;
        self.next += 1;
        let (outer, limits, answers) = (Arc::clone(&self.socket), self.limits, session.clone());
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = answers.answer(&outer) => (),
                () = answers.until_quiet(limits) => (),
            }
            (sender, number)
        });
        self.table.insert(sender, Entered { session: Arc::clone(&session), number, task });
        Ok(Some(session))
    }
}

impl Session {
    /// Passes answers back for as long as the socket lives.
    async fn answer(&self, outer: &UdpSocket) {
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            match self.take() {
                Ok(datagram) => {
                    self.answered.store(true, Ordering::Relaxed);
                    self.moved.touch();
                    self.flight.counters().sent(datagram.len());
                    // A sender that is gone is no reason to end, and the time that this may take is bounded.
                    let sent = outer.send_to(&datagram, self.sender);
                    if let Ok(Err(err)) = timeout(PAUSE, sent).await {
                        tracing::debug!(sender = %self.sender, error = %err, "an answer was not sent");
                    }
                }
                // Nobody listens there: yet, or for a moment.
                Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => (),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => (),
                Err(err) => {
                    let (sender, target) = (self.sender, self.target);
                    return tracing::debug!(%sender, %target, error = %err, "a session ended early");
                }
            }
        }
    }

    /// The next answer, if there is one. Between answers, a session keeps no room for the longest possible one.
    fn take(&self) -> io::Result<Vec<u8>> {
        let mut datagram = [0; MAX_DATAGRAM];
        let len = self.socket.try_recv(&mut datagram)?;
        Ok(datagram[..len].to_vec())
    }

    async fn until_quiet(&self, limits: UdpLimits) {
        self.moved.until_quiet(limits.unanswered).await;
        if self.answered.load(Ordering::Relaxed) {
            self.moved.until_quiet(limits.idle).await;
        }
    }
}
