//! When the next order is due.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use super::{ORDERS_PER_DAY, ORDERS_PER_HOUR};
use crate::tls::Certificate;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How orders follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The pause after the first failure; it doubles with each. With the first of 5 minutes there are at most 4 in any
    /// hour, and Let's Encrypt allows 5 per host.
    pub(super) first: Duration,
    /// The longest pause.
    pub(super) most: Duration,
    /// The shortest one where the authority said that there were too many orders.
    pub(super) limited: Duration,
    /// Which part of a certificate's life is to be left at its renewal. A third is what authorities advise.
    pub(super) left: f64,
    /// How many orders there are in any hour.
    pub(super) hourly: usize,
    /// How many of one there are in any 24 hours.
    pub(super) daily: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5 * 60),
            most: Duration::from_secs(12 * 60 * 60),
            limited: Duration::from_secs(60 * 60),
            left: 1.0 / 3.0,
            hourly: ORDERS_PER_HOUR,
            daily: ORDERS_PER_DAY,
        }
    }
}

impl Pace {
    /// When `certificate` is to be renewed: somewhat before or after the advised time, so that those which were ordered
    /// together do not stay together.
    pub(super) fn renewal(&self, certificate: &Certificate) -> SystemTime {
        renewal(certificate.begins(), certificate.expires(), self.left, rand::random())
    }

    /// How long to wait after so many failures in a row.
    pub(super) fn pause(&self, failures: u32, rate_limited: bool) -> Duration {
        self.pause_with(failures, rate_limited, rand::random())
    }

    /// The same, with a `chance` of 0 to 1.
    fn pause_with(&self, failures: u32, rate_limited: bool, chance: f64) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.first.saturating_mul(doubled).min(self.most);
        let pause = if rate_limited { pause.max(self.limited) } else { pause };
        // Never shorter, so that the bound on failures per hour holds.
        pause.mul_f64(1.0 + chance / 4.0)
    }
}

/// The orders of the last 24 hours: when, and of whom. A restart begins a new one, which nobody but the operator makes.
#[derive(Debug, Default)]
pub(super) struct Ledger(VecDeque<(SystemTime, String)>);

impl Ledger {
    /// Enters an order, if it may be placed.
    ///
    /// # Errors
    /// When it may be.
    pub(super) fn order(
        &mut self,
        of: &str,
        now: SystemTime,
        pace: &Pace,
    ) -> Result<(), SystemTime> {
        let age = |at: &SystemTime| now.duration_since(*at).unwrap_or_default();
        self.0.retain(|(at, _of)| age(at) < DAY);
        let lately = || self.0.iter().filter(|(at, _of)| age(at) < HOUR);
        let theirs = || self.0.iter().filter(|(_at, whose)| whose == of);
        // The first of those that fill it has to be forgotten.
        let first =
            |count: usize,
             most: usize,
             mut of: Box<dyn Iterator<Item = &(SystemTime, String)> + '_>| {
                (count >= most).then(|| of.nth(count - most)).flatten().map(|(at, _of)| *at)
            };
        let hour = first(lately().count(), pace.hourly, Box::new(lately())).map(|at| at + HOUR);
        let day = first(theirs().count(), pace.daily, Box::new(theirs())).map(|at| at + DAY);
        match hour.max(day) {
            Some(later) => Err(later),
            None => {
                self.0.push_back((now, of.to_owned()));
                Ok(())
            }
        }
    }
}

fn renewal(begins: SystemTime, expires: SystemTime, left: f64, chance: f64) -> SystemTime {
    let life = expires.duration_since(begins).unwrap_or_default();
    // A twentieth of its life to either side.
    expires - life.mul_f64(left + (chance - 0.5) / 10.0)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let expires = UNIX_EPOCH + 90 * DAY;
        for (chance, days) in [(0.0, 64.5), (0.5, 60.0), (1.0, 55.5)] {
            let renewal = renewal(UNIX_EPOCH, expires, Pace::default().left, chance);
            let after = renewal.duration_since(UNIX_EPOCH).unwrap();
            assert!(after.abs_diff(DAY.mul_f64(days)) < MINUTE, "{chance}: {after:?}");
        }
    }

    #[test]
    fn orders_are_bounded_for_each_and_for_all() {
        let pace = Pace { hourly: 4, daily: 2, ..Pace::default() };
        let mut ledger = Ledger::default();
        let mut check = |minute: u32, of: &str, wanted: Result<(), u32>| {
            let at = |minute: u32| UNIX_EPOCH + minute * MINUTE;
            assert_eq!(ledger.order(of, at(minute), &pace), wanted.map_err(at), "{minute} {of}");
        };
        check(0, "a", Ok(()));
        check(1, "a", Ok(()));
        check(2, "a", Err(24 * 60));
        check(3, "b", Ok(()));
        check(4, "c", Ok(()));
        // All together have had their four.
        check(5, "d", Err(60));
        check(59, "d", Err(60));
        check(60, "d", Ok(()));
        check(60, "a", Err(24 * 60));
        check(60, "e", Err(61));
        check(24 * 60, "a", Ok(()));
        check(24 * 60, "a", Err(24 * 60 + 1));
        check(24 * 60 + 1, "a", Ok(()));
        check(24 * 60 + 2, "a", Err(48 * 60));
    }

    #[test]
    fn pauses_grow() {
        let pace = Pace::default();
        for (failures, limited, chance, minutes) in [
            (1, false, 0.0, 5),
            (2, false, 0.0, 10),
            (3, false, 0.0, 20),
            (3, false, 1.0, 25),
            (3, true, 0.0, 60),
            (8, false, 0.0, 640),
            (9, false, 0.0, 720),
            (33, false, 0.0, 720),
            (u32::MAX, true, 0.0, 720),
        ] {
            let pause = pace.pause_with(failures, limited, chance);
            assert_eq!(pause, minutes * MINUTE, "after {failures} failures");
        }
    }
}
