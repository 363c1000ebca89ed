//! Tars on their way: out of the file system into a stream, and the other way round.
//!
//! What comes from a provider is a stranger's: it is unpacked by the same rules as what comes from a publisher there, so
//! that nothing in it leads out of the folder that a person named.

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ::provider::tree::{self, Packing, TreeError, Unpacked, Unpacking};
use anyhow::Context as _;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use crate::client::TarStream;

/// How much is sent at a time, and how many such chunks wait to be.
const CHUNK: usize = 256 << 10;
const READ_AHEAD: usize = 4;

/// What is at `path`, under the name `name`, as a tar; everything belongs to `owner`.
pub(crate) fn packed(path: PathBuf, name: OsString, owner: (u32, u32)) -> TarStream {
    let (tell, chunks) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let how = Packing { prefix: name.into(), owner: Some(owner), since: None };
        if let Err(err) = pack(&path, &how, Chunks(&tell)) {
            let _nobody_reads = tell.blocking_send(Err(io::Error::other(err)));
        }
    });
    stream(chunks).boxed()
}

fn stream(
    chunks: mpsc::Receiver<io::Result<Bytes>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.recv().await?;
        Some((chunk, chunks))
    })
}

fn pack(path: &Path, how: &Packing, out: Chunks<'_>) -> Result<(), TreeError> {
    let shown = || path.display().to_string();
    let file = std::fs::File::open(path).map_err(|err| TreeError::Io(shown(), err))?;
    let out = BufWriter::with_capacity(CHUNK, out);
    match file.metadata().map_err(|err| TreeError::Io(shown(), err))?.is_dir() {
        true => tree::pack(file.as_fd(), how, out),
        false => tree::pack_file(file, how, out),
    }
}

/// Writes into a channel.
struct Chunks<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_nobody_reads| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks a tar into `folder`, whatever it has at its top under the name `name`.
pub(crate) async fn unpacked(
    tar: TarStream,
    folder: PathBuf,
    name: OsString,
) -> anyhow::Result<Unpacked> {
    let tar = SyncIoBridge::new(StreamReader::new(tar));
    let unpacking = tokio::task::spawn_blocking(move || {
        let root = tree::root(&folder)?;
        let how = Unpacking { rename: Some(name), ..Unpacking::default() };
        tree::unpack(root.as_fd(), tar, &how)
    });
    Ok(unpacking.await??)
}

/// Writes a tar as it is; how many bytes it has.
pub(crate) async fn written(mut tar: TarStream, mut out: impl Write) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(chunk) = tar.next().await {
        let chunk = chunk.context("the tar broke off")?;
        out.write_all(&chunk)?;
        bytes += chunk.len() as u64;
    }
    out.flush()?;
    Ok(bytes)
}

/// A tar that is in a file, or comes in on standard input if that is `-`.
pub(crate) async fn read(from: &Path) -> anyhow::Result<TarStream> {
    if from.as_os_str() == "-" {
        return Ok(ReaderStream::with_capacity(tokio::io::stdin(), CHUNK).boxed());
    }
    let file = tokio::fs::File::open(from).await;
    let file = file.with_context(|| format!("{} cannot be read", from.display()))?;
    Ok(ReaderStream::with_capacity(file, CHUNK).boxed())
}

/// The same tar, whose bytes are counted as they pass.
pub(crate) fn counted(tar: TarStream) -> (TarStream, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    let tar = tar.inspect(move |chunk| {
        let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        counting.fetch_add(bytes, Ordering::Relaxed);
    });
    (tar.boxed(), count)
}
