//! What is written down of each lease, for as long as its payer may want to read it: who pays, what happened, what its
//! services wrote, until when its volumes are kept.
//!
//! Nothing is decided by it but who may read it. It is filled by what happens to pods, so the worst that a pod does is to
//! crash all the time: events and logs are bounded per lease, and the records of leases that are over are bounded in
//! number and in time. Without these files a provider runs on; only the past is lost then.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use alloy::primitives::{Address, B256};
use protocol::{lease::CloseReason, pod::PodHash};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{
    config::Keep,
    leases::{Lease, PodKey},
    wire::{Happening, LeaseEvent, Phase},
};

/// How large the events of one lease grow before the older half goes.
const MAX_EVENTS: u64 = 512 << 10;

/// The most records of leases that are over; the oldest go first.
const MAX_RECORDS: usize = 10_000;

/// For how long volumes are kept at least, however short the lease was.
const LEAST_RETENTION: Duration = Duration::from_secs(3_600);

/// How many events may wait for one who follows; who is slower reads from the beginning of the connection again.
const FOLLOW_BUFFER: usize = 256;

/// What is known of one lease beyond its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) lease: u64,
    pub(crate) opening: B256,
    pub(crate) payer: Address,
    /// What it runs, or ran last.
    pub(crate) pod: PodHash,
    /// How far it was when that was last written down.
    phase: Phase,
    /// Since when it ran, in Unix seconds as all that follow.
    ran: Option<u64>,
    /// Whether its end was written down.
    closed: bool,
    /// When that was, and the number of the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<(u64, u8)>,
    /// When its containers were removed.
    removed: Option<u64>,
    /// For how many seconds its volumes are kept at most: what its quote said.
    keep_volumes: u64,
    /// When it was last challenged, as far as that was written down.
    #[serde(default)]
    challenged: u64,
    /// The containers that were stopped at its payer's wish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) held: Vec<String>,
}

impl Record {
    pub(crate) fn key(&self) -> PodKey {
        PodKey { lease: self.lease, opening: self.opening }
    }

    /// Until when its volumes are kept: for as long as it ran, within what its quote said. Nothing if it never ran.
    pub(crate) fn volumes_until(&self) -> Option<SystemTime> {
        let (ran, removed) = (self.ran?, self.removed?);
        Some(unix(removed) + self.retention(ran, removed)).filter(|_| self.keep_volumes > 0)
    }

    /// Who runs something for a minute cannot have space for days.
    fn retention(&self, ran: u64, removed: u64) -> Duration {
        let ran = Duration::from_secs(removed.saturating_sub(ran)).max(LEAST_RETENTION);
        ran.min(Duration::from_secs(self.keep_volumes))
    }
}

/// What happens to all leases from now on.
pub(crate) type News = broadcast::Receiver<(PodKey, LeaseEvent)>;

/// The records of all leases.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
    keep: Keep,
    known: Mutex<HashMap<PodKey, Record>>,
    news: broadcast::Sender<(PodKey, LeaseEvent)>,
}

impl Records {
    /// The records in `data`.
    pub(crate) fn open(data: &Path, keep: Keep) -> io::Result<Self> {
        let folder = data.join("records");
        std::fs::create_dir_all(&folder)?;
        let mut known = HashMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let text = std::fs::read(entry?.path().join("lease.json"));
            // What cannot be read is as good as gone; it is removed with its age.
            if let Some(record) =
                text.ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok())
            {
                known.insert(record.key(), record);
            }
        }
        let (news, _) = broadcast::channel(FOLLOW_BUFFER);
        Ok(Self { folder, keep, known: Mutex::new(known), news })
    }

    /// For how long what is kept is kept.
    pub(crate) fn keep(&self) -> Keep {
        self.keep
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, key: PodKey) -> PathBuf {
        self.folder.join(key.prefix())
    }

    /// Where the logs of a lease's containers that are gone are kept.
    pub(crate) fn logs(&self, key: PodKey) -> PathBuf {
        self.folder(key).join("logs")
    }

    /// Where it is kept how much a lease sent.
    pub(crate) fn egress(&self, key: PodKey) -> PathBuf {
        self.folder(key).join("egress")
    }

    /// Where what a lease used is kept.
    pub(crate) fn usage(&self, key: PodKey) -> PathBuf {
        self.folder(key).join("usage")
    }

    /// The record of a lease.
    pub(crate) fn get(&self, key: PodKey) -> Option<Record> {
        self.lock().get(&key).cloned()
    }

    /// The record of the lease that has this number and payer; of several, which a reorg can bring about, the one that
    /// ran last.
    pub(crate) fn of(&self, lease: u64, payer: Address) -> Option<Record> {
        let known = self.lock();
        let own = known.values().filter(|record| record.lease == lease && record.payer == payer);
        own.max_by_key(|record| (record.ran, record.removed)).cloned()
    }

    /// The records that something holds for.
    pub(crate) fn which(&self, is: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.lock().values().filter(|record| is(record)).cloned().collect()
    }

    /// Writes down that a lease is there, or is to run another pod.
    pub(crate) fn see(&self, lease: &Lease) {
        let mut known = self.lock();
        let pod = lease.pod.0;
        match known.get_mut(&lease.key) {
            Some(record) if record.pod == lease.pod => (),
            Some(record) => {
                record.pod = lease.pod;
                let record = record.clone();
                self.write(&record);
                self.append(lease.key, Happening::Amended { pod });
            }
            None => {
                let record = Record {
                    lease: lease.key.lease,
                    opening: lease.key.opening,
                    payer: lease.payer,
                    pod: lease.pod,
                    phase: Phase::Seen,
                    ran: None,
                    closed: false,
                    ended: None,
                    removed: None,
                    keep_volumes: self.keep.volumes.as_secs(),
                    challenged: 0,
                    held: Vec::new(),
                };
                self.write(&record);
                known.insert(lease.key, record);
                self.append(lease.key, Happening::Seen { pod });
            }
        }
    }

    /// Writes down how far a lease is, where that is something new.
    pub(crate) fn phase(&self, key: PodKey, phase: Phase, message: Option<&str>) {
        let mut known = self.lock();
        let Some(record) = known.get_mut(&key).filter(|record| record.phase != phase) else {
            return;
        };
        let thawed = record.phase == Phase::Paused;
        let what = match phase {
            Phase::Fetching => Happening::Fetching,
            Phase::Locked => Happening::Locked,
            Phase::Starting => Happening::Starting,
            Phase::Running if thawed => Happening::Resumed,
            Phase::Running => Happening::Running,
            Phase::Paused => Happening::Paused,
            Phase::Failed => {
                Happening::Failed { why: message.unwrap_or("it does not say why").to_owned() }
            }
            // They are told where they are found out.
            Phase::Seen | Phase::Unhealthy | Phase::Held | Phase::Closed => return,
        };
        record.phase = phase;
        if phase == Phase::Running {
            record.ran.get_or_insert_with(now);
        }
        let record = record.clone();
        self.write(&record);
        self.append(key, what);
    }

    /// Whether it is not yet written down that a lease ended.
    pub(crate) fn lacks_end(&self, key: PodKey) -> bool {
        self.lock().get(&key).is_some_and(|record| !record.closed)
    }

    /// Writes down that a lease ended.
    pub(crate) fn close(&self, key: PodKey, reason: Option<CloseReason>) {
        let mut known = self.lock();
        let Some(record) = known.get_mut(&key).filter(|record| !record.closed) else { return };
        (record.closed, record.phase) = (true, Phase::Closed);
        record.ended = Some((now(), reason.map_or(0, |reason| reason as u8)));
        let record = record.clone();
        self.write(&record);
        self.append(key, Happening::Closed { reason });
    }

    /// Whether a lease's volumes are to be kept when its containers are removed.
    pub(crate) fn keeps_volumes(&self, key: PodKey) -> bool {
        self.get(key).is_some_and(|record| record.ran.is_some() && record.keep_volumes > 0)
    }

    /// Writes down that a lease's containers are to be removed now: from here on the time of its volumes runs.
    pub(crate) fn remove(&self, key: PodKey) {
        let mut known = self.lock();
        let Some(record) = known.get_mut(&key).filter(|record| record.removed.is_none()) else {
            return;
        };
        record.removed = Some(now());
        record.held.clear();
        let record = record.clone();
        self.write(&record);
    }

    /// Writes down that they are gone, and whether volumes are left.
    pub(crate) fn removed(&self, key: PodKey, volumes: bool) {
        let until = self.get(key).and_then(|record| record.volumes_until()).filter(|_| volumes);
        let what = Happening::Removed { volumes_until: until.map(rfc3339) };
        self.note(key, what);
    }

    /// Writes down which of a lease's containers are stopped at its payer's wish.
    pub(crate) fn hold(&self, key: PodKey, containers: Vec<String>) {
        let mut known = self.lock();
        let Some(record) = known.get_mut(&key) else { return };
        record.held = containers;
        let record = record.clone();
        self.write(&record);
    }

    /// Writes down that a lease is challenged, once for each challenge.
    pub(crate) fn challenged(&self, key: PodKey, since: u64, by: Address, until: String) {
        let mut known = self.lock();
        let Some(record) = known.get_mut(&key).filter(|record| record.challenged != since) else {
            return;
        };
        record.challenged = since;
        let record = record.clone();
        self.write(&record);
        self.append(key, Happening::Challenged { by, until });
    }

    /// Writes down that a pod that was ready was never paid for, so that nothing of it is kept.
    pub(crate) fn never_ran(&self, key: PodKey) {
        let mut known = self.lock();
        let Some(record) = known.get_mut(&key) else { return };
        record.ran = None;
        let record = record.clone();
        self.write(&record);
    }

    /// Writes down something that happened to a lease of which there is a record.
    pub(crate) fn note(&self, key: PodKey, what: Happening) {
        let known = self.lock();
        if known.contains_key(&key) {
            self.append(key, what);
        }
    }

    /// What happened to a lease since `since`, and what happens from then on: nothing is missed in between.
    pub(crate) fn events(
        &self,
        key: PodKey,
        since: SystemTime,
    ) -> io::Result<(Vec<LeaseEvent>, News)> {
        let _nothing_is_written_meanwhile = self.lock();
        let news = self.news.subscribe();
        let since = rfc3339(since);
        let folder = self.folder(key);
        let mut events = Vec::new();
        for name in ["events.old", "events"] {
            let file = match File::open(folder.join(name)) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            for line in BufReader::new(file).lines() {
                // A line that was cut off by a crash says nothing.
                let Ok(event) = serde_json::from_str::<LeaseEvent>(&line?) else { continue };
                if event.time >= since {
                    events.push(event);
                }
            }
        }
        Ok((events, news))
    }

    /// Removes the records whose time is over. Those of leases that are still there are never removed.
    pub(crate) fn expire(&self, open: impl Fn(PodKey) -> bool) {
        let mut known = self.lock();
        let mut over: Vec<(u64, PodKey)> = known
            .values()
            .filter(|record| !open(record.key()))
            .filter_map(|record| Some((record.removed?, record.key())))
            .collect();
        over.sort_unstable();
        let many = over.len().saturating_sub(MAX_RECORDS);
        for (number, (removed, key)) in over.into_iter().enumerate() {
            let Some(record) = known.get(&key) else { continue };
            let kept = record.volumes_until().is_some_and(|until| until > SystemTime::now());
            let old = unix(removed) + self.keep.logs < SystemTime::now();
            if !kept && (old || number < many) {
                match std::fs::remove_dir_all(self.folder(key)) {
                    Err(err) if err.kind() != io::ErrorKind::NotFound => unwritten(key, &err),
                    _removed => drop(known.remove(&key)),
                }
            }
        }
    }

    fn append(&self, key: PodKey, what: Happening) {
        let event = LeaseEvent { time: rfc3339(SystemTime::now()), what };
        if let Err(err) = append(&self.folder(key), &event) {
            unwritten(key, &err);
        }
        // Nobody follows most of the time.
        let _followers = self.news.send((key, event));
    }

    fn write(&self, record: &Record) {
        if let Err(err) = write(&self.folder(record.key()), record) {
            unwritten(record.key(), &err);
        }
    }
}

fn unwritten(key: PodKey, err: &io::Error) {
    let lease = key.lease;
    tracing::warn!(lease.id = lease, error = %err, "the record of lease {lease} could not be written");
}

fn write(folder: &Path, record: &Record) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(&serde_json::to_vec(record)?)?;
    draft.as_file().sync_data()?;
    draft.persist(folder.join("lease.json")).map_err(|err| err.error)?;
    Ok(())
}

fn append(folder: &Path, event: &LeaseEvent) -> io::Result<()> {
    let path = folder.join("events");
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > MAX_EVENTS) {
        std::fs::rename(&path, folder.join("events.old"))?;
    }
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    File::options().create(true).append(true).open(path)?.write_all(&line)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn unix(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

/// A time with nine digits after the point, so that two of them compare as text.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.nanosecond()
    )
}

/// Names of what is kept of leases, by what their names begin with.
pub(crate) fn by_prefix(records: &[Record]) -> BTreeMap<String, &Record> {
    records.iter().map(|record| (record.key().prefix(), record)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::{amount::Units, lease::State};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn lease(id: u64, pod: u8) -> Lease {
        Lease {
            key: PodKey { lease: id, opening: B256::repeat_byte(9) },
            block: 1,
            pod: PodHash(B256::repeat_byte(pod)),
            former: BTreeSet::new(),
            account: B256::ZERO,
            payer: Address::repeat_byte(5),
            start_by: 0,
            lock: 0,
            owed: Units(0),
            funded_until: 0,
            state: State::Active,
            over: false,
        }
    }

    fn told(records: &Records, key: PodKey) -> Vec<String> {
        let (events, _) = records.events(key, SystemTime::UNIX_EPOCH).unwrap();
        let name = |event: &LeaseEvent| serde_json::to_value(event).unwrap()["event"].clone();
        events.iter().map(|event| name(event).as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_life_is_written_down_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep { logs: 7 * DAY, volumes: 3 * DAY };
        let records = Records::open(folder.path(), keep).unwrap();
        let key = lease(7, 1).key;
        records.see(&lease(7, 1));
        for phase in [Phase::Fetching, Phase::Starting, Phase::Running, Phase::Running] {
            records.phase(key, phase, None);
        }
        records.phase(key, Phase::Paused, None);
        records.phase(key, Phase::Running, None);
        records.see(&lease(7, 2));
        drop(records);

        let records = Records::open(folder.path(), keep).unwrap();
        records.see(&lease(7, 2));
        records.phase(key, Phase::Running, None);
        assert!(records.lacks_end(key) && records.keeps_volumes(key));
        records.close(key, Some(CloseReason::PayerDone));
        records.close(key, None);
        records.remove(key);
        records.removed(key, true);
        let wanted = "seen fetching starting running paused resumed amended closed removed";
        assert_eq!(told(&records, key).join(" "), wanted);

        let record = records.of(7, Address::repeat_byte(5)).unwrap();
        assert_eq!(record.key(), key);
        let left = record.volumes_until().unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= LEAST_RETENTION && left > LEAST_RETENTION / 2, "{left:?}");
        assert!(records.of(7, Address::ZERO).is_none(), "somebody else reads it");
        assert!(records.of(8, Address::repeat_byte(5)).is_none());

        records.expire(|_| false);
        assert!(records.get(key).is_some(), "it is kept");
        let forgetful = Keep { logs: Duration::ZERO, volumes: Duration::ZERO };
        drop(records);
        let records = Records::open(folder.path(), forgetful).unwrap();
        records.expire(|_| true);
        records.expire(|_| false);
        assert!(records.get(key).is_some(), "what the quote promised is kept");
    }

    #[test]
    fn what_never_ran_leaves_no_volumes_and_old_records_go() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep { logs: Duration::ZERO, volumes: 3 * DAY };
        let records = Records::open(folder.path(), keep).unwrap();
        let key = lease(1, 1).key;
        records.see(&lease(1, 1));
        assert!(!records.keeps_volumes(key));
        records.expire(|_| false);
        assert!(records.get(key).is_some(), "it is not removed yet");
        records.remove(key);
        assert_eq!(records.get(key).unwrap().volumes_until(), None);
        std::thread::sleep(Duration::from_millis(1_100));
        records.expire(|_| false);
        assert!(records.get(key).is_none());
        assert_eq!(std::fs::read_dir(folder.path().join("records")).unwrap().count(), 0);
    }

    #[test]
    fn retention_is_as_long_as_the_lease_within_the_quote() {
        let check = |ran: u64, wanted: u64| {
            let record = Record {
                lease: 1,
                opening: B256::ZERO,
                payer: Address::ZERO,
                pod: PodHash::default(),
                phase: Phase::Closed,
                ran: Some(1_000_000),
                closed: true,
                ended: None,
                removed: Some(1_000_000 + ran),
                keep_volumes: 3 * 86_400,
                challenged: 0,
                held: Vec::new(),
            };
            let until = record.volumes_until().unwrap();
            assert_eq!(until, unix(1_000_000 + ran + wanted), "{ran}");
        };
        check(10, 3_600);
        check(86_400, 86_400);
        check(10 * 86_400, 3 * 86_400);
    }

    #[test]
    fn events_are_bounded_and_followed() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep { logs: DAY, volumes: DAY };
        let records = Records::open(folder.path(), keep).unwrap();
        let key = lease(1, 1).key;
        records.see(&lease(1, 1));
        let why = "x".repeat(10_000);
        for _ in 0..200 {
            records.note(key, Happening::Failed { why: why.clone() });
        }
        let files = std::fs::read_dir(records.folder(key)).unwrap();
        let size: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 3 * MAX_EVENTS, "{size}");
        let (before, mut news) = records.events(key, SystemTime::now()).unwrap();
        assert_eq!(before, []);
        records.note(key, Happening::Held);
        assert_eq!(news.try_recv().unwrap().1.what, Happening::Held);
    }

    #[test]
    fn times_compare_as_text() {
        assert_eq!(rfc3339(unix(0)), "1970-01-01T00:00:00.000000000Z");
        assert!(rfc3339(unix(5)) < rfc3339(unix(5) + Duration::from_nanos(1)));
    }
}
