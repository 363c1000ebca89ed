//! Whether something still moves.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

/// What moments are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The milliseconds since [`START`]. They last for longer than anything here.
pub(crate) fn moment() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// When something last moved.
#[derive(Debug)]
pub(crate) struct Activity(AtomicU64);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(moment()))
    }

    /// It moved now.
    pub(crate) fn touch(&self) {
        self.touch_at(moment());
    }

    /// The same, for who has the [`moment`] at hand.
    pub(crate) fn touch_at(&self, moment: u64) {
        self.0.store(moment, Ordering::Relaxed);
    }

    /// For how long nothing has moved.
    pub(crate) fn quiet(&self) -> Duration {
        Duration::from_millis(moment().saturating_sub(self.0.load(Ordering::Relaxed)))
    }

    /// Ends when nothing has moved for `limit`.
    pub(crate) async fn until_quiet(&self, limit: Duration) {
        while let Some(rest) = rest(limit, self.quiet()) {
            sleep(rest).await;
        }
    }
}

/// What is left of `limit` after `quiet`.
pub(crate) fn rest(limit: Duration, quiet: Duration) -> Option<Duration> {
    limit.checked_sub(quiet).filter(|rest| !rest.is_zero())
}

/// Hears of what moves.
pub(crate) trait Meter: Send + Sync {
    /// So many bytes came.
    fn received(&self, bytes: usize);
    /// So many bytes went.
    fn sent(&self, bytes: usize);
}

/// A stream whose meter hears of what moves.
#[derive(Debug)]
pub(crate) struct Metered<S, M> {
    stream: S,
    meter: Arc<M>,
}

impl<S, M> Metered<S, M> {
    pub(crate) fn new(stream: S, meter: Arc<M>) -> Self {
        Self { stream, meter }
    }
}

impl<S: AsyncRead + Unpin, M: Meter> AsyncRead for Metered<S, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.meter.received(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, M: Meter> AsyncWrite for Metered<S, M> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.meter.sent(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
