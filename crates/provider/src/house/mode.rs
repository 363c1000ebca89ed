//! Whether the provider takes anything new.
//!
//! The file is the truth, and read whenever somebody asks: so `roadstead provider drain` and the admin page do the same,
//! whether the provider runs or not, and a restart changes nothing. A file that cannot be read counts as draining, since
//! whoever wrote it wanted something.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a provider takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// Everything that there is room for.
    #[default]
    Open,
    /// Nothing new. Leases that are there go on, and may be updated.
    Draining,
    /// Nothing new and no updates, and the payers of what runs are told.
    Maintenance,
}

/// A provider's mode, as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mode {
    /// Which.
    pub mode: ModeName,
    /// Since when, in Unix seconds.
    #[serde(default)]
    pub since: u64,
    /// Until about when, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What payers are told, if anything was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The longest reason that is kept.
const MAX_WHY: usize = 200;

impl Mode {
    /// A mode from now on.
    pub fn begin(mode: ModeName, until: Option<u64>, why: Option<&str>) -> Self {
        let why = why.map(|why| why.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect());
        let why = why.filter(|why: &String| !why.trim().is_empty());
        Self { mode, since: super::now(), until, why }
    }

    /// Reads what is written down in a provider's data folder.
    ///
    /// # Errors
    /// When the file cannot be read, or says something else.
    pub fn read(data: &Path) -> io::Result<Self> {
        match std::fs::read(path(data)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            text => Ok(serde_json::from_slice(&text?)?),
        }
    }

    /// Writes it down in a provider's data folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        super::write(&path(data), &serde_json::to_vec(self)?)
    }

    /// Whether a quote is refused: for a lease that is there (`update`), or for a new one.
    pub(crate) fn refuses(&self, update: bool) -> bool {
        match self.mode {
            ModeName::Open => false,
            ModeName::Draining => !update,
            ModeName::Maintenance => true,
        }
    }

    /// In words for publishers.
    pub(crate) fn words(&self) -> String {
        let mut words = match self.mode {
            ModeName::Open => "it takes whatever there is room for".to_owned(),
            ModeName::Draining => "it takes nothing new; what runs goes on".to_owned(),
            ModeName::Maintenance => "it is in maintenance, and takes nothing new".to_owned(),
        };
        if let Some(until) = self.until {
            words.push_str(&format!(", until about {}", minute(until)));
        }
        if let Some(why) = &self.why {
            words.push_str(&format!(": {why}"));
        }
        words
    }
}

/// `2026-01-31 12:00 UTC`.
pub(crate) fn minute(unix: u64) -> String {
    utc(unix, 16)
}

/// `2026-01-31 12:00:07 UTC`.
pub(crate) fn second(unix: u64) -> String {
    utc(unix, 19)
}

fn utc(unix: u64, length: usize) -> String {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(unix);
    let text = crate::records::rfc3339(time);
    format!("{} UTC", text.get(..length).unwrap_or_default().replace('T', " "))
}

fn path(data: &Path) -> PathBuf {
    data.join("mode.json")
}

/// The mode of a provider that runs.
#[derive(Debug)]
pub(crate) struct Modes {
    data: PathBuf,
}

impl Modes {
    pub(crate) fn open(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    /// What holds now.
    pub(crate) fn now(&self) -> Mode {
        Mode::read(&self.data).unwrap_or_else(|err| {
            let why = Some(format!("mode.json cannot be read ({err})"));
            Mode { mode: ModeName::Draining, why, ..Mode::default() }
        })
    }

    pub(crate) fn set(&self, mode: &Mode) -> io::Result<()> {
        mode.write(&self.data)
    }

    /// The maintenance that payers were told of last, by its beginning; nothing once they were told of its end.
    pub(crate) fn told(&self) -> Option<u64> {
        std::fs::read_to_string(self.data.join("mode.told")).ok()?.trim().parse().ok()
    }

    pub(crate) fn tell(&self, since: Option<u64>) -> io::Result<()> {
        let path = self.data.join("mode.told");
        match since {
            Some(since) => super::write(&path, since.to_string().as_bytes()),
            None => match std::fs::remove_file(path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
                _gone => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_refuses_what_it_says_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let modes = Modes::open(folder.path());
        let check = |mode: ModeName, new: bool, update: bool| {
            modes.set(&Mode::begin(mode, None, None)).unwrap();
            let now = Modes::open(folder.path()).now();
            assert_eq!((now.refuses(false), now.refuses(true)), (new, update), "{mode:?}");
        };
        assert_eq!(modes.now(), Mode::default());
        check(ModeName::Draining, true, false);
        check(ModeName::Maintenance, true, true);
        check(ModeName::Open, false, false);

        std::fs::write(folder.path().join("mode.json"), "{").unwrap();
        assert_eq!(modes.now().mode, ModeName::Draining);
        assert!(modes.now().words().contains("mode.json"));
    }

    #[test]
    fn reasons_are_bounded_words() {
        let why = format!("a new\n disk {}", "x".repeat(1_000));
        let mode = Mode::begin(ModeName::Maintenance, Some(86_400), Some(&why));
        let words = mode.words();
        assert!(words.starts_with("it is in maintenance, and takes nothing new, until about 1970-01-02 00:00 UTC: a new disk x"), "{words}");
        assert!(words.len() < 300, "{words}");
        assert_eq!(Mode::begin(ModeName::Open, None, Some(" ")).why, None);
    }
}
