//! What certificate authorities ask for over HTTP before they believe that a host is served here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Where they ask (RFC 8555, 8.3).
const PATH: &str = "/.well-known/acme-challenge/";

/// The answers to challenges that are under way. Clones share one table.
///
/// [`Ingress`](crate::Ingress) gives them before it looks for a route, so that a host can have its certificate before
/// its app runs. What is not in the table goes to the app, which may have dealings with an authority of its own.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<HashMap<(String, String), String>>>);

impl Challenges {
    /// What to answer at `path` of `host`.
    pub(crate) fn answer(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix(PATH)?;
        self.lock().get(&(host.to_owned(), token.to_owned())).cloned()
    }

    /// Answers `host`'s `token` with `answer` for as long as what this returns lives.
    pub(crate) fn show(&self, host: &str, token: &str, answer: &str) -> Shown {
        let key = (host.to_owned(), token.to_owned());
        self.lock().insert(key.clone(), answer.to_owned());
        Shown { challenges: self.clone(), key }
    }

    /// The table is whole after each statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is given.
#[derive(Debug)]
pub(crate) struct Shown {
    challenges: Challenges,
    key: (String, String),
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.challenges.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_while_it_is_shown() {
        let challenges = Challenges::default();
        let shown = challenges.show("a.example", "token", "answer");
        let path = "/.well-known/acme-challenge/token";
        for (host, path, answer) in [
            ("a.example", path, Some("answer")),
            ("b.example", path, None),
            ("a.example", "/.well-known/acme-challenge/tokens", None),
            ("a.example", "/token", None),
        ] {
            assert_eq!(challenges.answer(host, path).as_deref(), answer, "{host}{path}");
        }
        drop(shown);
        assert_eq!(challenges.answer("a.example", path), None);
    }
}
