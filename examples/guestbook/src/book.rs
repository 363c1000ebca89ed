//! The entries: in memory, and a line of JSON each in a file that only grows.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

/// The most characters of a name.
pub(crate) const MAX_NAME: usize = 40;

/// The most characters of a text.
pub(crate) const MAX_TEXT: usize = 500;

/// The most bytes of the file, so that strangers cannot fill the volume.
const MAX_FILE: u64 = 4 << 20;

/// What a visitor left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// When, in seconds since 1970.
    pub(crate) at: i64,
    /// Who.
    pub(crate) name: String,
    /// What.
    pub(crate) text: String,
}

/// The book did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{} cannot be opened: is the volume there, and may user {} write to it?", path.display(), user)]
    Open { path: PathBuf, user: u32, source: io::Error },
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("line {line} of {} is no entry: move the file away to begin a new book", path.display())]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
}

/// An entry was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("please leave a name and a few words")]
    Empty,
    #[error("that is too long: a name has at most {MAX_NAME} characters, a text {MAX_TEXT}")]
    TooLong,
    #[error("the book is full")]
    Full,
    #[error("the entry could not be written")]
    Write(#[from] io::Error),
}

impl Entry {
    /// An entry out of what somebody typed.
    pub(crate) fn new(at: i64, name: &str, text: &str) -> Result<Self, SignError> {
        let (name, text) = (tidy(name, false), tidy(text, true));
        if name.is_empty() || text.is_empty() {
            return Err(SignError::Empty);
        }
        if name.chars().count() > MAX_NAME || text.chars().count() > MAX_TEXT {
            return Err(SignError::TooLong);
        }
        Ok(Self { at, name, text })
    }
}

/// The text without control characters; browsers end lines with two.
fn tidy(text: &str, lines: bool) -> String {
    let plain = text.replace("\r\n", "\n");
    let plain: String = plain
        .chars()
        .map(|c| if c.is_control() && !(lines && c == '\n') { ' ' } else { c })
        .collect();
    plain.trim().to_owned()
}

/// The book, open.
#[derive(Debug)]
pub(crate) struct Book {
    file: Mutex<File>,
    entries: RwLock<Vec<Entry>>,
    max_file: u64,
}

impl Book {
    /// Opens the book at `path`, or begins one there.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_bounded(path, MAX_FILE)
    }

    fn open_bounded(path: &Path, max_file: u64) -> Result<Self, OpenError> {
        let path_buf = path.to_owned();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(
                |source| OpenError::Open { path: path_buf.clone(), user: user(), source },
            )?;
        let read = |source| OpenError::Read { path: path_buf.clone(), source };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(read)?;
        // A line without an end was being written when the power went, and nobody was told that it had been.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(read)?;
        }
        let entries = text[..whole].lines().zip(1..).map(|(json, line)| {
            serde_json::from_str(json).map_err(|source| OpenError::Line {
                path: path_buf.clone(),
                line,
                source,
            })
        });
        let entries = entries.collect::<Result<_, _>>()?;
        Ok(Self { file: Mutex::new(file), entries: RwLock::new(entries), max_file })
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The newest `most`, newest first.
    pub(crate) fn newest(&self, most: usize) -> Vec<Entry> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().rev().take(most).cloned().collect()
    }

    /// Adds an entry, which is on the disk when this returns. It blocks.
    pub(crate) fn sign(&self, entry: Entry) -> Result<(), SignError> {
        let mut line = serde_json::to_string(&entry).map_err(io::Error::from)?;
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let size = file.seek(io::SeekFrom::End(0))?;
        if size + line.len() as u64 > self.max_file {
            return Err(SignError::Full);
        }
        if let Err(err) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would spoil the next one.
            file.set_len(size)?;
            return Err(err.into());
        }
        self.entries.write().unwrap_or_else(PoisonError::into_inner).push(entry);
        Ok(())
    }
}

/// Who runs this, for a message.
fn user() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry::new(7, "Ada", text).unwrap()
    }

    #[test]
    fn entries_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.db");
        for text in ["one", "two\nlines", "a \"quote\", <b> and ⚓"] {
            Book::open(&path).unwrap().sign(entry(text)).unwrap();
        }
        let book = Book::open(&path).unwrap();
        assert_eq!(book.len(), 3);
        assert_eq!(book.newest(2), [entry("a \"quote\", <b> and ⚓"), entry("two\nlines")]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    #[test]
    fn what_was_half_written_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.db");
        Book::open(&path).unwrap().sign(entry("whole")).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"at":8,"name":"Ad"#);
        std::fs::write(&path, text).unwrap();

        Book::open(&path).unwrap().sign(entry("next")).unwrap();
        assert_eq!(Book::open(&path).unwrap().newest(9), [entry("next"), entry("whole")]);
    }

    #[test]
    fn another_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.db");
        std::fs::write(&path, "{\"at\":8,\"name\":\"a\",\"text\":\"b\"}\nnot ours\n").unwrap();
        let err = Book::open(&path).unwrap_err();
        assert!(matches!(err, OpenError::Line { line: 2, .. }), "{err}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("not ours\n"));
    }

    #[test]
    fn a_missing_volume_is_named() {
        let err = Book::open(Path::new("/nowhere/book.db")).unwrap_err().to_string();
        assert!(err.contains("/nowhere/book.db") && err.contains("volume"), "{err}");
    }

    #[test]
    fn the_file_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.db");
        let book = Book::open_bounded(&path, 100).unwrap();
        book.sign(entry(&"a".repeat(40))).unwrap();
        assert!(matches!(book.sign(entry(&"b".repeat(40))), Err(SignError::Full)));
        assert_eq!(Book::open(&path).unwrap().len(), 1);
    }

    #[test]
    fn entries_are_bounded_and_tidied() {
        let name = "é".repeat(MAX_NAME);
        let text = "⚓".repeat(MAX_TEXT);
        assert!(Entry::new(0, &name, &text).is_ok());
        for (name, text) in [(format!("{name}é"), "a".to_owned()), ("a".into(), text + "⚓")] {
            assert!(matches!(Entry::new(0, &name, &text), Err(SignError::TooLong)));
        }
        for (name, text) in [("", "a"), ("a", ""), (" \u{7}", "a"), ("a", "\r\n")] {
            assert!(
                matches!(Entry::new(0, name, text), Err(SignError::Empty)),
                "{name:?} {text:?}"
            );
        }
        let tidied = Entry::new(0, " A\nda\u{0} ", "a\r\nb\u{1b}[31m\n").unwrap();
        assert_eq!((tidied.name.as_str(), tidied.text.as_str()), ("A da", "a\nb [31m"));
    }
}
