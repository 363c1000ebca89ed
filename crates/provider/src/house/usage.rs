//! What pods use, read where the kernel counts it: a container's control group, a pod's bridge, a volume's file.
//!
//! Asking the engine instead would take a connection and a second per container. Where the engine is elsewhere, or keeps
//! its groups in another place, there are no figures, and nothing else is different.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::series::{Series, Use};
use crate::{leases::PodKey, records::Records};

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// What one pod has used so far, and uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Nanoseconds of processor time, of the containers that are there.
    pub(crate) cpu: u64,
    /// Bytes of memory, without what the kernel could drop at once.
    pub(crate) memory: u64,
    /// Bytes that volumes take of the disk.
    pub(crate) disk: u64,
    /// Bytes that left the pod's bridges for the world, or as answers to visitors.
    pub(crate) egress: u64,
}

/// What a pod uses at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Current {
    /// Thousandths of a processor since the last look.
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    /// Bytes that left it while this provider ran.
    pub(crate) egress: u64,
}

#[derive(Debug)]
struct Of {
    before: Counters,
    at: Instant,
    egress: u64,
    now: Current,
    series: Series,
}

/// What all pods use.
#[derive(Debug)]
pub(crate) struct Usage {
    records: Arc<Records>,
    pods: Mutex<BTreeMap<PodKey, Of>>,
}

impl Usage {
    pub(crate) fn new(records: Arc<Records>) -> Self {
        Self { records, pods: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, Of>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, key: PodKey) -> Option<Series> {
        Series::from_bytes(&std::fs::read(self.records.usage(key)).ok()?)
    }

    /// What was counted just now, at `now` (Unix seconds). Pods that are not in it are over: what they used is written down.
    pub(crate) fn add(&self, now: u64, counted: &BTreeMap<PodKey, Counters>) {
        let mut pods = self.lock();
        let over: Vec<PodKey> =
            pods.keys().filter(|key| !counted.contains_key(*key)).copied().collect();
        for key in over {
            if let Some(of) = pods.remove(&key) {
                self.write(key, &of.series);
            }
        }
        for (key, counters) in counted {
            let of = pods.entry(*key).or_insert_with(|| Of {
                before: *counters,
                at: Instant::now(),
                egress: 0,
                now: Current::default(),
                series: self.load(*key).unwrap_or_default(),
            });
            let passed = u64::try_from(of.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let used = since(of.before, *counters, passed);
            of.egress = of.egress.saturating_add(used.egress);
            of.now = Current {
                cpu: used.cpu.into(),
                memory: counters.memory,
                disk: counters.disk,
                egress: of.egress,
            };
            // The first look has nothing to be compared with.
            if passed > 1_000_000 {
                of.series.add(now, used);
            }
            (of.before, of.at) = (*counters, Instant::now());
        }
    }

    /// Writes down what was seen so far.
    pub(crate) fn keep(&self) {
        for (key, of) in self.lock().iter() {
            self.write(*key, &of.series);
        }
    }

    fn write(&self, key: PodKey, series: &Series) {
        let path = self.records.usage(key);
        // Without its folder its record is gone, too.
        if path.parent().is_some_and(Path::is_dir) {
            let draft = path.with_extension("draft");
            let written = std::fs::write(&draft, series.to_bytes());
            if let Err(err) = written.and_then(|()| std::fs::rename(&draft, &path)) {
                tracing::warn!(lease.id = key.lease, error = %err, "what lease {} used is not kept", key.lease);
            }
        }
    }

    /// What a pod uses now.
    pub(crate) fn now(&self, key: PodKey) -> Option<Current> {
        self.lock().get(&key).map(|of| of.now)
    }

    /// What a lease used over time, also after its end.
    pub(crate) fn series(&self, key: PodKey) -> Option<Series> {
        let known = self.lock().get(&key).map(|of| of.series.clone());
        known.or_else(|| self.load(key))
    }
}

/// What was used between two looks that are `passed` nanoseconds apart. A counter that went down began anew.
fn since(before: Counters, now: Counters, passed: u64) -> Use {
    let more = |before: u64, now: u64| if now >= before { now - before } else { now };
    let cpu = u128::from(more(before.cpu, now.cpu)) * 1_000;
    let cpu = cpu.checked_div(u128::from(passed)).unwrap_or_default();
    let kib = |bytes: u64| u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    Use {
        // The largest number stands for nothing at all.
        cpu: u32::try_from(cpu).unwrap_or(u32::MAX).min(u32::MAX - 1),
        memory: kib(now.memory),
        disk: kib(now.disk),
        egress: more(before.egress, now.egress),
    }
}

/// Nanoseconds of processor time and bytes of memory of a container.
pub(crate) fn of_container(id: &str) -> Option<(u64, u64)> {
    let two = Path::new(GROUPS).join("cgroup.controllers").exists();
    in_group(Path::new(GROUPS), two, id)
}

fn in_group(root: &Path, two: bool, id: &str) -> Option<(u64, u64)> {
    // As Docker's two drivers name it.
    let places = [format!("docker/{id}"), format!("system.slice/docker-{id}.scope")];
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    places.iter().find_map(|place| {
        if two {
            let folder = root.join(place);
            let cpu = field(&read(folder.join("cpu.stat"))?, "usage_usec")?.saturating_mul(1_000);
            let memory = number(read(folder.join("memory.current"))?)?;
            let idle = field(&read(folder.join("memory.stat"))?, "inactive_file");
            return Some((cpu, memory.saturating_sub(idle.unwrap_or_default())));
        }
        let cpu = number(read(root.join("cpuacct").join(place).join("cpuacct.usage"))?)?;
        let folder = root.join("memory").join(place);
        let memory = number(read(folder.join("memory.usage_in_bytes"))?)?;
        let idle = field(&read(folder.join("memory.stat"))?, "total_inactive_file");
        Some((cpu, memory.saturating_sub(idle.unwrap_or_default())))
    })
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// What came in over each interface, by its name.
pub(crate) fn received() -> HashMap<String, u64> {
    interfaces(&std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default())
}

fn interfaces(text: &str) -> HashMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let received = |rest: &str| rest.split_whitespace().next()?.parse().ok();
    lines.filter_map(|(name, rest)| Some((name.trim().to_owned(), received(rest)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_what_was_counted_between_two_looks() {
        let before = Counters { cpu: 1_000_000, memory: 1, disk: 1, egress: 100 };
        let now = Counters { cpu: 501_000_000, memory: 4_096, disk: 8_192, egress: 150 };
        let wanted = Use { cpu: 500, memory: 4, disk: 8, egress: 50 };
        assert_eq!(since(before, now, 1_000_000_000), wanted);
        // The container was made anew.
        let anew = Counters { cpu: 250_000_000, ..now };
        assert_eq!(since(now, anew, 1_000_000_000).cpu, 250);
        assert_eq!(since(before, now, 0).cpu, 0);
    }

    #[test]
    fn both_kinds_of_groups_are_read() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("system.slice/docker-new.scope/cpu.stat", "usage_usec 7\nuser_usec 6\n");
        put("system.slice/docker-new.scope/memory.current", "100\n");
        put("system.slice/docker-new.scope/memory.stat", "anon 5\ninactive_file 30\n");
        put("cpuacct/docker/old/cpuacct.usage", "9000\n");
        put("memory/docker/old/memory.usage_in_bytes", "100\n");
        put("memory/docker/old/memory.stat", "inactive_file 1\ntotal_inactive_file 40\n");
        assert_eq!(in_group(root.path(), true, "new"), Some((7_000, 70)));
        assert_eq!(in_group(root.path(), false, "old"), Some((9_000, 60)));
        assert_eq!(in_group(root.path(), true, "none"), None);
    }

    #[test]
    fn interfaces_are_read() {
        let text = "Inter-|   Receive\n face |bytes    packets\n    lo: 100 1 0\nrsab12:7 2 0\n";
        assert_eq!(interfaces(text), HashMap::from([("lo".into(), 100), ("rsab12".into(), 7)]));
        assert!(received().contains_key("lo"));
    }
}
