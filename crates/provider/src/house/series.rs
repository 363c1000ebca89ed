//! What one lease used over time: the last three hours by the minute, the last week by the half hour.
//!
//! A lease takes 12 KiB of memory and as much on disk, however long it runs.

use std::collections::VecDeque;

/// How long each point of the two is, in seconds, and how many there are.
pub(crate) const FINE: (u64, usize) = (60, 180);
pub(crate) const COARSE: (u64, usize) = (1_800, 336);

/// What a file begins with.
const MAGIC: &[u8; 4] = b"rsu1";

/// How many bytes a point takes on disk.
const POINT: usize = 20;

/// What was used, over one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// Thousandths of a processor, on average.
    pub(crate) cpu: u32,
    /// KiB of memory, on average.
    pub(crate) memory: u32,
    /// KiB that volumes take of the disk, on average.
    pub(crate) disk: u32,
    /// Bytes that left the pod, in all.
    pub(crate) egress: u64,
}

/// Points of one length, the latest last. A time in which nothing was seen has a point all the same, with nothing in it.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    period: u64,
    most: usize,
    /// The number of the last point's period.
    last: u64,
    points: VecDeque<Option<Use>>,
    /// What was seen in the period that is not over, and which that is.
    sum: Sum,
    at: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    cpu: u64,
    memory: u64,
    disk: u64,
    egress: u64,
}

impl Sum {
    fn add(&mut self, used: Use) {
        self.count += 1;
        self.cpu += u64::from(used.cpu);
        self.memory += u64::from(used.memory);
        self.disk += u64::from(used.disk);
        self.egress = self.egress.saturating_add(used.egress);
    }

    fn mean(self) -> Use {
        let mean = |sum: u64| {
            u32::try_from(sum.checked_div(self.count).unwrap_or_default()).unwrap_or(u32::MAX)
        };
        Use {
            cpu: mean(self.cpu),
            memory: mean(self.memory),
            disk: mean(self.disk),
            egress: self.egress,
        }
    }
}

impl Ring {
    fn new((period, most): (u64, usize)) -> Self {
        let sum = Sum::default();
        Self { period, most, last: 0, points: VecDeque::new(), sum, at: 0 }
    }

    fn add(&mut self, now: u64, used: Use) {
        let at = now / self.period;
        if at != self.at {
            if self.sum.count > 0 {
                self.push(self.at, self.sum.mean());
            }
            (self.at, self.sum) = (at, Sum::default());
        }
        self.sum.add(used);
    }

    fn push(&mut self, at: u64, point: Use) {
        // A clock that was set back does not bring the past back.
        if at <= self.last && !self.points.is_empty() {
            return;
        }
        let gap = usize::try_from((at - self.last).saturating_sub(1)).unwrap_or(usize::MAX);
        match self.points.is_empty() || gap >= self.most {
            true => self.points.clear(),
            false => self.points.extend(std::iter::repeat_n(None, gap)),
        }
        self.points.push_back(Some(point));
        self.points.drain(..self.points.len().saturating_sub(self.most));
        self.last = at;
    }

    /// The points up to `now`, oldest first, as many as there may be. The one whose time is not over is the last.
    pub(crate) fn up_to(&self, now: u64) -> Vec<Option<Use>> {
        let at = now / self.period;
        let mut points = vec![None; self.most];
        let mut put = |of: u64, point: Option<Use>| {
            let back = at.checked_sub(of).and_then(|back| usize::try_from(back).ok());
            if let Some(place) = back.and_then(|back| self.most.checked_sub(back + 1)) {
                points[place] = point;
            }
        };
        for (of, point) in (0..=self.last).rev().zip(self.points.iter().rev()) {
            put(of, *point);
        }
        if self.sum.count > 0 {
            put(self.at, Some(self.sum.mean()));
        }
        points
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.last.to_le_bytes());
        to.extend(u32::try_from(self.points.len()).unwrap_or_default().to_le_bytes());
        for point in &self.points {
            let none = Use { cpu: u32::MAX, ..Use::default() };
            let Use { cpu, memory, disk, egress } = point.unwrap_or(none);
            for word in [cpu, memory, disk] {
                to.extend(word.to_le_bytes());
            }
            to.extend(egress.to_le_bytes());
        }
    }

    fn read(shape: (u64, usize), bytes: &mut &[u8]) -> Option<Self> {
        let mut ring = Self::new(shape);
        ring.last = u64::from_le_bytes(take(bytes)?);
        let count = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
        if count > ring.most || bytes.len() < count * POINT {
            return None;
        }
        for _ in 0..count {
            let [cpu, memory, disk] =
                [take(bytes)?, take(bytes)?, take(bytes)?].map(u32::from_le_bytes);
            let egress = u64::from_le_bytes(take(bytes)?);
            let point = Use { cpu, memory, disk, egress };
            ring.points.push_back((cpu != u32::MAX).then_some(point));
        }
        Some(ring)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// What one lease used.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) fine: Ring,
    pub(crate) coarse: Ring,
}

impl Default for Series {
    fn default() -> Self {
        Self { fine: Ring::new(FINE), coarse: Ring::new(COARSE) }
    }
}

impl Series {
    /// What was used since the last time, as of `now` (Unix seconds).
    pub(crate) fn add(&mut self, now: u64, used: Use) {
        self.fine.add(now, used);
        self.coarse.add(now, used);
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        self.fine.write(&mut bytes);
        self.coarse.write(&mut bytes);
        // The half hour that is not over, which would be lost at each restart otherwise.
        let Sum { count, cpu, memory, disk, egress } = self.coarse.sum;
        for word in [self.coarse.at, count, cpu, memory, disk, egress] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    /// What `to_bytes` made; nothing if something else did.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC.as_slice())?;
        let fine = Ring::read(FINE, &mut rest)?;
        let mut coarse = Ring::read(COARSE, &mut rest)?;
        let mut word = || Some(u64::from_le_bytes(take(&mut rest)?));
        coarse.at = word()?;
        let [count, cpu, memory, disk] = [word()?, word()?, word()?, word()?];
        coarse.sum = Sum { count, cpu, memory, disk, egress: word()? };
        Some(Self { fine, coarse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu: u32, egress: u64) -> Use {
        Use { cpu, memory: 2 * cpu, disk: 7, egress }
    }

    /// The last points of the finer ring, by their processor time.
    fn last<const N: usize>(series: &Series, now: u64) -> [Option<u32>; N] {
        let points = series.fine.up_to(now);
        assert_eq!(points.len(), FINE.1);
        let points = &points[points.len() - N..];
        std::array::from_fn(|n| points[n].map(|point| point.cpu))
    }

    #[test]
    fn points_are_means_and_gaps_stay_gaps() {
        let mut series = Series::default();
        series.add(600, used(10, 5));
        series.add(630, used(20, 6));
        assert_eq!(last(&series, 630), [None, Some(15)]);
        assert_eq!(series.fine.up_to(630)[FINE.1 - 1].unwrap().egress, 11);
        series.add(660, used(40, 1));
        series.add(840, used(50, 1));
        assert_eq!(last(&series, 840), [Some(15), Some(40), None, None, Some(50)]);
        assert_eq!(last(&series, 900), [Some(15), Some(40), None, None, Some(50), None]);
        let coarse = series.coarse.up_to(900);
        assert_eq!(coarse[COARSE.1 - 1].map(|point| (point.cpu, point.egress)), Some((30, 13)));
    }

    #[test]
    fn they_are_bounded_and_survive_a_restart() {
        let mut series = Series::default();
        for minute in 0..1_000 {
            series.add(minute * 60, used(u32::try_from(minute).unwrap(), 1));
        }
        assert_eq!(series.fine.points.len(), FINE.1);
        let bytes = series.to_bytes();
        assert!(bytes.len() < 11_000, "{}", bytes.len());
        let again = Series::from_bytes(&bytes).unwrap();
        let now = 999 * 60;
        // The minute that was not over is gone, the half hour is not.
        assert_eq!(again.fine.up_to(now)[..FINE.1 - 1], series.fine.up_to(now)[..FINE.1 - 1]);
        assert_eq!(again.coarse.up_to(now), series.coarse.up_to(now));
        series.add(now + 10_000_000, used(1, 1));
        series.add(now + 10_000_060, used(2, 1));
        assert_eq!(last(&series, now + 10_000_060), [None, Some(1), Some(2)]);
    }

    #[test]
    fn what_is_broken_is_nothing() {
        let mut series = Series::default();
        (0..500).for_each(|minute| series.add(minute * 60, used(1, 1)));
        let bytes = series.to_bytes();
        for length in 0..bytes.len() {
            assert!(Series::from_bytes(&bytes[..length]).is_none(), "{length}");
        }
        let mut many = bytes.clone();
        many[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Series::from_bytes(&many).is_none());
        // A clock that was set back.
        series.add(60, used(1, 1));
        series.add(120, used(1, 1));
        assert_eq!(series.fine.last, 499, "the past came back");
    }
}
