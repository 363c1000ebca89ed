//! The form's token: proof that whoever signs was shown the form here, in the same browser, within the last day.

use std::{
    io,
    path::{Path, PathBuf},
};

use hmac::{Hmac, Mac};
use rand::RngCore as _;
use sha2::Sha256;

/// For how long a form may lie open, in seconds.
const LIFE: i64 = 86_400;

/// The fewest bytes of a key.
const MIN_KEY: usize = 32;

/// There is no key to begin with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(
        "the secret session_key is missing: {} cannot be read; give the pod a secret of that name",
        path.display()
    )]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the secret session_key, {}, has {len} bytes: it needs {MIN_KEY} or more, for instance from `openssl rand -hex 32`",
        path.display()
    )]
    Short { path: PathBuf, len: usize },
}

/// A form that did not come from here, or not lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("this form was not made for your browser: please go back, reload and sign again")]
    Forged,
    #[error("this form lay open for more than a day: please go back, reload and sign again")]
    Expired,
}

/// Makes tokens and checks them.
pub(crate) struct Tokens(Hmac<Sha256>);

impl Tokens {
    /// With the key in the file at `path`.
    pub(crate) fn from_file(path: &Path) -> Result<Self, KeyError> {
        let path = || path.to_owned();
        let bytes =
            std::fs::read(path()).map_err(|source| KeyError::Read { path: path(), source })?;
        let key = bytes.trim_ascii();
        if key.len() < MIN_KEY {
            return Err(KeyError::Short { path: path(), len: key.len() });
        }
        Ok(Self::new(key))
    }

    fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The token for `session`, until a day after `now`.
    pub(crate) fn issue(&self, session: &str, now: i64) -> String {
        let end = now + LIFE;
        format!("{end}.{}", hex::encode(self.mac(session, end).finalize().into_bytes()))
    }

    /// Whether `token` is one for `session` at the time `now`.
    pub(crate) fn check(&self, session: &str, token: &str, now: i64) -> Result<(), TokenError> {
        let (end, mac) = token.split_once('.').ok_or(TokenError::Forged)?;
        let end: i64 = end.parse().map_err(|_err| TokenError::Forged)?;
        let mac = hex::decode(mac).map_err(|_err| TokenError::Forged)?;
        // In constant time, and the whole of it.
        self.mac(session, end).verify_slice(&mac).map_err(|_err| TokenError::Forged)?;
        if now >= end {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    fn mac(&self, session: &str, end: i64) -> Hmac<Sha256> {
        self.0.clone().chain_update(format!("sign {end} {session}"))
    }
}

/// A new visitor's session.
pub(crate) fn session() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_its_session_and_its_time() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.issue("a", 1_000);
        assert_eq!(tokens.check("a", &token, 1_000), Ok(()));
        assert_eq!(tokens.check("a", &token, 1_000 + LIFE - 1), Ok(()));
        assert_eq!(tokens.check("a", &token, 1_000 + LIFE), Err(TokenError::Expired));
        assert_eq!(tokens.check("b", &token, 1_000), Err(TokenError::Forged));
        assert_eq!(tokens.check("", &token, 1_000), Err(TokenError::Forged));
        let other = Tokens::new(&[8; 32]);
        assert_eq!(other.check("a", &token, 1_000), Err(TokenError::Forged));
    }

    #[test]
    fn no_part_of_a_token_may_change() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.issue("a", 1_000);
        let (end, mac) = token.split_once('.').unwrap();
        let zeros = "0".repeat(mac.len());
        for forged in [
            format!("9{end}.{mac}"),
            format!("{end}.{}", &mac[2..]),
            format!("{end}.{zeros}"),
            format!("{end}."),
            format!("{end}{mac}"),
            format!(".{mac}"),
            String::new(),
        ] {
            assert_eq!(tokens.check("a", &forged, 1_000), Err(TokenError::Forged), "{forged}");
        }
    }

    #[test]
    fn sessions_differ() {
        assert_ne!(session(), session());
        assert_eq!(session().len(), 32);
    }

    #[test]
    fn a_key_has_to_be_there_and_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session_key");
        let refusal = |path: &Path| Tokens::from_file(path).err().map(|err| err.to_string());
        let missing = refusal(&path).unwrap();
        assert!(missing.contains("session_key is missing"), "{missing}");
        std::fs::write(&path, format!("{}\n", "k".repeat(31))).unwrap();
        let short = refusal(&path).unwrap();
        assert!(short.contains("31 bytes") && !short.contains("kkk"), "{short}");
        std::fs::write(&path, "k".repeat(32)).unwrap();
        assert_eq!(refusal(&path), None);
    }
}
