//! A request and what comes of it, from its head to the last byte of the answer.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{loads::Place, pool::Held};
use crate::{
    activity::{self, Activity, Meter, moment},
    counters::{Counters, InFlight},
};

/// A visitor's connection: its place among [`Limits::connections`](super::Limits), and whether something moves on it.
#[derive(Debug)]
pub(super) struct Connection {
    exchanges: AtomicUsize,
    moved: Activity,
    _place: OwnedSemaphorePermit,
}

/// Why a connection should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    /// There is an exchange, and it does not go on.
    Stuck,
    /// There was none for some time.
    Unused,
}

impl Connection {
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        Self { exchanges: AtomicUsize::new(0), moved: Activity::new(), _place: place }
    }

    /// Ends when no exchange has moved for `stuck`, or when there was none for `unused`, if that is given.
    ///
    /// Bodies look to their own limit when somebody reads them; this is for visitors who do not read.
    pub(super) async fn until_quiet(&self, stuck: Duration, unused: Option<Duration>) -> Quiet {
        loop {
            let under_way = self.exchanges.load(Ordering::Acquire) > 0;
            let limit = if under_way { Some(stuck) } else { unused };
            let rest = match limit.map(|limit| activity::rest(limit, self.moved.quiet())) {
                None => stuck,
                Some(Some(rest)) => rest,
                Some(None) if under_way => return Quiet::Stuck,
                Some(None) => return Quiet::Unused,
            };
            sleep(unused.map_or(rest, |unused| rest.min(unused))).await;
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Exchange {
    flight: InFlight,
    moved: Activity,
    connection: Arc<Connection>,
    /// Its place with one of several backends.
    place: OnceLock<Place>,
    _permit: OwnedSemaphorePermit,
}

impl Exchange {
    /// A request on `connection`, in `flight` for its host; `permit` is its place among
    /// [`Limits::requests`](super::Limits).
    pub(super) fn new(
        flight: InFlight,
        connection: Arc<Connection>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        connection.exchanges.fetch_add(1, Ordering::AcqRel);
        connection.moved.touch();
        Self { flight, moved: Activity::new(), connection, place: OnceLock::new(), _permit: permit }
    }

    /// Its backend is busy with it for as long as it lasts.
    pub(super) fn is_with(&self, place: Option<Place>) {
        if let Some(place) = place {
            // A request has one backend.
            let _taken = self.place.set(place);
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        self.flight.counters()
    }

    /// Ends when nothing has moved for `limit`.
    pub(super) async fn until_quiet(&self, limit: Duration) {
        self.moved.until_quiet(limit).await;
    }

    fn touch(&self) {
        let now = moment();
        self.moved.touch_at(now);
        self.connection.moved.touch_at(now);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.moved.touch();
        self.connection.exchanges.fetch_sub(1, Ordering::AcqRel);
    }
}

/// As seen by the visitor's end: what we receive is what the visitor sends.
impl Meter for Exchange {
    fn received(&self, bytes: usize) {
        self.touch();
        self.counters().received(bytes);
    }

    fn sent(&self, bytes: usize) {
        self.touch();
        self.counters().sent(bytes);
    }
}

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Visitor,
    Backend,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the connection failed")]
    Connection(#[source] hyper::Error),
    #[error("nothing moved for {} s", .0.as_secs_f32())]
    Idle(Duration),
}

/// A body whose exchange hears of each part, and which breaks off once the exchange has not moved for too long.
#[derive(Debug)]
pub(super) struct Watched {
    body: Incoming,
    from: Side,
    exchange: Arc<Exchange>,
    idle: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    _held: Option<Held>,
}

impl Watched {
    pub(super) fn new(
        body: Incoming,
        from: Side,
        exchange: Arc<Exchange>,
        idle: Duration,
        held: Option<Held>,
    ) -> Self {
        Self { body, from, exchange, idle, alarm: None, _held: held }
    }

    fn moved(&self, frame: &Frame<Bytes>) {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match self.from {
            Side::Visitor => self.exchange.received(bytes),
            Side::Backend => self.exchange.sent(bytes),
        }
    }

    /// Whether the exchange has been quiet for too long; if not, `cx` is woken when it might have been.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        loop {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(self.idle)));
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match activity::rest(self.idle, self.exchange.moved.quiet()) {
                None => return Poll::Ready(BodyError::Idle(self.idle)),
                Some(rest) => self.alarm = Some(Box::pin(sleep_until(Instant::now() + rest))),
            }
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.moved(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(err))) => Poll::Ready(Some(Err(BodyError::Connection(err)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_idle(cx).map(|err| Some(Err(err))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
