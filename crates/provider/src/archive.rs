//! The logs of containers that are gone: compressed, bounded per service, kept with the record of their lease.
//!
//! What is in them is a pod's own; it is read back to its payer alone, line by line, so that neither a long line nor many
//! of them take more memory than a few of them.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use crate::{records::rfc3339, wire::LogLine};

/// What is kept of one container at most, uncompressed: its last lines.
const MAX_CONTAINER: usize = 10 << 20;

/// What is kept of one service at most, compressed: of several containers the last ones.
const MAX_SERVICE: u64 = 10 << 20;

/// The longest line that is read back.
const MAX_LINE: u64 = 1 << 20;

/// The last lines of a container, as they are gathered.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    lines: VecDeque<Vec<u8>>,
    size: usize,
}

impl Gathered {
    /// One line more; the first ones go where there are too many.
    pub(crate) fn add(&mut self, line: &LogLine) {
        let Ok(mut line) = serde_json::to_vec(line) else { return };
        line.push(b'\n');
        self.size += line.len();
        self.lines.push_back(line);
        while self.size > MAX_CONTAINER {
            let Some(first) = self.lines.pop_front() else { return };
            self.size -= first.len();
        }
    }

    /// Writes what was gathered of container `id`, again if it was written before.
    pub(crate) fn keep(&self, logs: &Path, service: &str, id: &str) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let folder = logs.join(service);
        std::fs::create_dir_all(&folder)?;
        let mut draft = tempfile::NamedTempFile::new_in(&folder)?;
        let mut out = GzEncoder::new(&mut draft, Compression::default());
        for line in &self.lines {
            out.write_all(line)?;
        }
        out.finish()?;
        draft.persist(folder.join(format!("{id}.gz"))).map_err(|err| err.error)?;
        shorten(&folder)
    }
}

/// The files of one service, oldest first.
fn files(folder: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if entry.path().extension().is_some_and(|end| end == "gz") {
            files.push((meta.modified()?, meta.len(), entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

fn shorten(folder: &Path) -> io::Result<()> {
    let files = files(folder)?;
    let mut size: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (_, bytes, path) in &files {
        if size <= MAX_SERVICE {
            break;
        }
        std::fs::remove_file(path)?;
        size -= bytes;
    }
    Ok(())
}

/// The services of which something is kept.
pub(crate) fn services(logs: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Hands on what is kept of some services, in the order of time, from `since` on, and of each of them the last `tail`
/// lines; until there is no more or `tell` says so.
pub(crate) fn read(
    logs: &Path,
    services: &[String],
    since: SystemTime,
    tail: Option<usize>,
    mut tell: impl FnMut(LogLine) -> bool,
) -> io::Result<()> {
    let since = rfc3339(since);
    let mut heads: BTreeMap<(String, usize), (LogLine, Lines)> = BTreeMap::new();
    for (number, service) in services.iter().enumerate() {
        let mut lines = Lines::open(&logs.join(service), &since)?;
        if let Some(tail) = tail {
            let skip = Lines::open(&logs.join(service), &since)?.count().saturating_sub(tail);
            lines.by_ref().take(skip).for_each(drop);
        }
        if let Some(line) = lines.next() {
            heads.insert((line.time.clone(), number), (line, lines));
        }
    }
    while let Some(((_, number), (line, mut lines))) = heads.pop_first() {
        if let Some(next) = lines.next() {
            heads.insert((next.time.clone(), number), (next, lines));
        }
        if !tell(line) {
            break;
        }
    }
    Ok(())
}

/// The lines of one service, of one file after the other.
struct Lines {
    files: VecDeque<PathBuf>,
    current: Option<BufReader<GzDecoder<File>>>,
    since: String,
}

impl Lines {
    fn open(folder: &Path, since: &str) -> io::Result<Self> {
        let files = match files(folder) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            files => files?,
        };
        let files = files.into_iter().map(|(_, _, path)| path).collect();
        Ok(Self { files, current: None, since: since.to_owned() })
    }
}

impl Iterator for Lines {
    type Item = LogLine;

    fn next(&mut self) -> Option<LogLine> {
        loop {
            let Some(current) = &mut self.current else {
                let path = self.files.pop_front()?;
                self.current =
                    File::open(path).ok().map(|file| BufReader::new(GzDecoder::new(file)));
                continue;
            };
            let mut line = Vec::new();
            // A file that is damaged ends where it is.
            match current.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => self.current = None,
                Ok(_) => match serde_json::from_slice::<LogLine>(&line) {
                    Ok(line) if line.time >= self.since => return Some(line),
                    _earlier_or_broken => (),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::LogStream;

    fn line(service: &str, second: u64, text: &str) -> LogLine {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        LogLine {
            service: service.into(),
            stream: LogStream::Stdout,
            time: rfc3339(time),
            line: text.into(),
        }
    }

    fn keep(logs: &Path, service: &str, id: &str, lines: &[(u64, &str)]) {
        let mut gathered = Gathered::default();
        lines.iter().for_each(|(second, text)| gathered.add(&line(service, *second, text)));
        gathered.keep(logs, service, id).unwrap();
    }

    fn told(logs: &Path, since: u64, tail: Option<usize>) -> String {
        let mut told = Vec::new();
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
        let tell = |line: LogLine| {
            told.push(line.line);
            true
        };
        read(logs, &services(logs), since, tail, tell).unwrap();
        told.join(" ")
    }

    #[test]
    fn lines_come_back_in_the_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path();
        keep(logs, "web", "one", &[(1, "a"), (3, "c")]);
        keep(logs, "db", "two", &[(2, "b"), (6, "f")]);
        std::thread::sleep(Duration::from_millis(20));
        keep(logs, "web", "three", &[(4, "d"), (5, "e")]);
        assert_eq!(services(logs), ["db", "web"]);
        assert_eq!(told(logs, 0, None), "a b c d e f");
        assert_eq!(told(logs, 3, None), "c d e f");
        assert_eq!(told(logs, 0, Some(1)), "e f");
        assert_eq!(told(logs, 9, None), "");
        // Written again after a crash, and damaged.
        keep(logs, "web", "three", &[(4, "d"), (5, "e")]);
        assert_eq!(told(logs, 0, None), "a b c d e f");
        std::fs::write(logs.join("db/two.gz"), b"damaged").unwrap();
        assert_eq!(told(logs, 0, None), "a c d e");
        assert_eq!(told(&logs.join("nothing"), 0, None), "");
    }

    #[test]
    fn a_service_keeps_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut gathered = Gathered::default();
        let text = "x".repeat(100_000);
        for second in 0..200 {
            gathered.add(&line("web", second, &text));
        }
        assert!(gathered.size <= MAX_CONTAINER && gathered.lines.len() > 90);
        gathered.keep(folder.path(), "web", "one").unwrap();
        let first = {
            let mut first = None;
            let from = SystemTime::UNIX_EPOCH;
            read(folder.path(), &["web".into()], from, None, |line| {
                first = Some(line.time);
                false
            })
            .unwrap();
            first.unwrap()
        };
        assert!(first > line("web", 90, "").time, "{first}");
    }
}
