//! Which HTTP a visitor speaks where TLS has not settled it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::Version;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How HTTP/2 begins (RFC 9113, 3.4). No request of HTTP/1 does: `PRI` is reserved.
const PREFACE: [u8; 4] = *b"PRI ";

/// Reads no more of `stream` than it takes to tell, and gives it back as it was.
pub(super) async fn version<S: AsyncRead + Unpin>(
    mut stream: S,
) -> io::Result<(Version, Rewound<S>)> {
    let (mut seen, mut len) = ([0; PREFACE.len()], 0);
    while len < PREFACE.len() && seen[..len] == PREFACE[..len] {
        match stream.read(&mut seen[len..]).await? {
            0 => break,
            read => len += read,
        }
    }
    let version = if seen[..len] == PREFACE { Version::HTTP_2 } else { Version::HTTP_11 };
    Ok((version, Rewound { stream, seen, at: 0, len }))
}

/// A stream of which some was read.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    stream: S,
    seen: [u8; PREFACE.len()],
    at: usize,
    len: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at == self.len {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let next = (self.len - self.at).min(buf.remaining());
        buf.put_slice(&self.seen[self.at..self.at + next]);
        self.at += next;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_version_is_told_by_the_first_bytes() {
        for (first, then, expected) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", Version::HTTP_2),
            ("P", "RI * HTTP/2.0\r\n\r\n", Version::HTTP_2),
            ("PRI", "OR / HTTP/1.1\r\n", Version::HTTP_11),
            ("P", "UT / HTTP/1.1\r\n", Version::HTTP_11),
            ("GET / HTTP/1.1\r\n", "", Version::HTTP_11),
            ("PRI", "", Version::HTTP_11),
            ("", "", Version::HTTP_11),
        ] {
            let stream = first.as_bytes().chain(then.as_bytes());
            let (version, mut rewound) = version(stream).await.unwrap();
            let mut read = String::new();
            rewound.read_to_string(&mut read).await.unwrap();
            assert_eq!((version, read), (expected, format!("{first}{then}")));
        }
    }
}
