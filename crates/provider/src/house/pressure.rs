//! Whether the machine runs short of what pods do not reserve: room on its disks, memory, file descriptors.
//!
//! Then nothing new is quoted. What runs is left alone: it has its limits, and somebody pays for it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    statvfs::statvfs,
};
use protocol::resources::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::Limits;

/// One of the things that may run short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserve {
    /// What: `disk`, `memory` or `files`.
    pub what: String,
    /// Where, for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What there is of it: bytes, or file descriptors.
    pub free: u64,
    /// What is to stay free.
    pub least: u64,
}

impl Reserve {
    /// Whether less is free than is to stay free.
    pub fn is_short(&self) -> bool {
        self.free < self.least
    }

    /// In words for publishers: it does not say where the provider keeps what.
    fn words(&self) -> String {
        let (free, least) = (shown(self.free), shown(self.least));
        match self.what.as_str() {
            "files" => format!(
                "it is short of file descriptors: {} are free and {} are to stay so",
                self.free, self.least
            ),
            what => format!("it is short of {what}: {free} are free and {least} are to stay so"),
        }
    }
}

/// Bytes, rounded to what one reads at a glance.
fn shown(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes / MIB {
        0 => Bytes(bytes).to_string(),
        mib => Bytes(mib * MIB).to_string(),
    }
}

/// What was found when the machine was last looked at.
#[derive(Debug)]
pub(crate) struct Pressure {
    limits: Limits,
    disks: BTreeSet<PathBuf>,
    found: Mutex<Vec<Reserve>>,
}

impl Pressure {
    pub(crate) fn new(limits: Limits, data: &Path, engine: Option<&Path>) -> Self {
        let disks = [Some(data), engine].into_iter().flatten().map(Path::to_owned).collect();
        let pressure = Self { limits, disks, found: Mutex::default() };
        pressure.look();
        pressure
    }

    /// Looks at the machine. What cannot be found out is no reason to refuse anything.
    pub(crate) fn look(&self) {
        let disks = self.disks.iter().filter_map(|disk| {
            let found = statvfs(disk).ok()?;
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            let at = Some(disk.display().to_string());
            Some(Reserve { what: "disk".into(), at, free, least: self.limits.disk_free.0 })
        });
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        let memory = memory.and_then(|text| available(&text)).map(|free| {
            let least = self.limits.memory_free.0;
            Reserve { what: "memory".into(), at: None, free, least }
        });
        let files = files().map(|free| {
            let least = self.limits.files_free;
            Reserve { what: "files".into(), at: None, free, least }
        });
        let found = disks.chain(memory).chain(files).collect();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    pub(crate) fn all(&self) -> Vec<Reserve> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why nothing new is quoted, if it is not.
    pub(crate) fn short(&self) -> Option<String> {
        self.all().iter().find(|reserve| reserve.is_short()).map(Reserve::words)
    }
}

/// `MemAvailable`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Lets this process open as many files as its user may. Shells and systemd leave most programs 1,024, and each connection
/// through the ingress takes two.
pub(crate) fn raise_files() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// How many files this process, and the machine as a whole, may still open: the smaller of the two.
fn files() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    let (most, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let own = most.saturating_sub(u64::try_from(open).ok()?);
    let machine = std::fs::read_to_string("/proc/sys/fs/file-nr").ok();
    let machine = machine.and_then(|text| {
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        numbers.get(2)?.checked_sub(*numbers.first()?)
    });
    Some(own.min(machine.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_allowed_may_be_opened() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most - 1, most).unwrap();
        raise_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }

    #[test]
    fn what_is_short_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let check = |limits: Limits, wanted: Option<&str>| {
            let short = Pressure::new(limits, folder.path(), None).short();
            match (&short, wanted) {
                (Some(words), Some(part)) => assert!(words.contains(part), "{words}"),
                _ => assert_eq!((short.is_some(), wanted.is_some()), (false, false), "{short:?}"),
            }
        };
        let none = Limits { disk_free: Bytes(0), memory_free: Bytes(0), files_free: 0 };
        check(none, None);
        check(Limits { disk_free: Bytes(1 << 60), ..none }, Some("disk"));
        check(Limits { memory_free: Bytes(1 << 60), ..none }, Some("1048576 TiB are to stay"));
        check(Limits { files_free: 1 << 40, ..none }, Some("file descriptors"));
        let all = Pressure::new(none, folder.path(), Some(Path::new("/proc/none"))).all();
        let found: Vec<_> = all.iter().map(|reserve| reserve.what.as_str()).collect();
        assert_eq!(found, ["disk", "memory", "files"]);
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:     2 kB\n"), Some(2_048));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
