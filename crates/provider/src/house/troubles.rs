//! The last things that went wrong, for the admin page. The log has all of them.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many are remembered.
const MOST: usize = 50;

/// The longest message that is remembered: some of it may have been written by a pod.
const MAX_WORDS: usize = 500;

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// When it did so last, in Unix seconds.
    pub(crate) at: u64,
    /// What it has to do with.
    pub(crate) part: String,
    pub(crate) words: String,
    /// How often in a row.
    pub(crate) times: u64,
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<VecDeque<Trouble>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that something went wrong; the same again is counted.
    pub(crate) fn note(&self, part: impl Into<String>, words: &str) {
        let (part, words) = (part.into(), words.chars().take(MAX_WORDS).collect::<String>());
        let mut all = self.lock();
        let same = |one: &Trouble| one.part == part && one.words == words;
        let times = match all.iter().position(same) {
            Some(place) => all.remove(place).map_or(0, |one| one.times),
            None => 0,
        };
        all.push_front(Trouble { at: super::now(), part, words, times: times + 1 });
        all.truncate(MOST);
    }

    /// The latest first.
    pub(crate) fn all(&self) -> Vec<Trouble> {
        self.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_come_first_and_repetitions_are_counted() {
        let troubles = Troubles::default();
        troubles.note("lease 1", "no image");
        troubles.note("chain", "no answer");
        troubles.note("lease 1", "no image");
        let all = troubles.all();
        let told: Vec<_> = all.iter().map(|one| (one.part.as_str(), one.times)).collect();
        assert_eq!(told, [("lease 1", 2), ("chain", 1)]);
        for lease in 0..MOST + 10 {
            troubles.note(format!("lease {lease}"), &"x".repeat(10_000));
        }
        assert_eq!(troubles.all().len(), MOST);
        assert!(troubles.all().iter().all(|one| one.words.len() <= MAX_WORDS));
    }
}
