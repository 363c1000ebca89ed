//! The tokens, and what is made of them: a cookie that ends by itself, and the word that each form carries.

use std::{
    fmt, io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The file with the token that may do everything.
pub const ADMIN_TOKEN: &str = "admin.token";

/// The file with the one that reads metrics.
pub const METRICS_TOKEN: &str = "metrics.token";

/// The cookie's name. Cookies know no ports, so it is not one that another program would choose.
pub(super) const COOKIE: &str = "roadstead_provider";

/// For how long one is signed in.
pub(super) const COOKIE_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// A secret in a file that only its owner can read.
#[derive(Clone)]
pub struct Token(zeroize::Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn path(data: &Path, name: &str) -> PathBuf {
    data.join(name)
}

impl Token {
    /// The token `name` of the provider in `data`.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn read(data: &Path, name: &str) -> io::Result<Self> {
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(path(data, name))?);
        let word = text.trim();
        match word.len() >= 32 {
            true => Ok(Self(word.to_owned().into())),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token")),
        }
    }

    /// The same, made if it is not there.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub fn open(data: &Path, name: &str) -> io::Result<Self> {
        match Self::read(data, name) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Self::renew(data, name),
            token => token,
        }
    }

    /// A new one in place of whatever is there, which is worth nothing from then on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn renew(data: &Path, name: &str) -> io::Result<Self> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
        rand::rng().fill_bytes(bytes.as_mut());
        let word = zeroize::Zeroizing::new(hex::encode(bytes.as_slice()));
        let draft = path(data, name).with_extension("draft");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        io::Write::write_all(&mut file, word.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path(data, name))?;
        Ok(Self(word))
    }

    /// The word itself, for whoever may have it.
    pub fn word(&self) -> &str {
        &self.0
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        same(&self.0, word)
    }

    /// What tells it from other tokens, and opens nothing.
    pub(crate) fn mark(&self) -> String {
        self.sealed("mark", "").chars().take(16).collect()
    }

    /// A cookie that holds for some hours from `now`.
    pub(super) fn cookie(&self, now: u64) -> String {
        let until = now + COOKIE_LIFE.as_secs();
        format!("{until}.{}", self.sealed("cookie", &until.to_string()))
    }

    /// Whether `cookie` is one of this token's, and holds at `now`.
    pub(super) fn holds(&self, cookie: &str, now: u64) -> bool {
        let Some((until, seal)) = cookie.split_once('.') else { return false };
        let holds = until.parse::<u64>().is_ok_and(|until| now < until);
        holds && same(&self.sealed("cookie", until), seal)
    }

    /// What the forms carry that are shown to whoever has `cookie`.
    pub(super) fn form_word(&self, cookie: &str) -> String {
        self.sealed("form", cookie)
    }

    /// Of a token hashed once, so that nothing can be added to what is sealed.
    fn sealed(&self, purpose: &str, text: &str) -> String {
        let token = Sha256::digest(self.0.as_bytes());
        let mut hash = Sha256::new();
        hash.update(token);
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(text.as_bytes());
        hex::encode(Sha256::digest(hash.finalize()))
    }
}

/// Whether two words are the same, in a time that does not say how far.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// All that are called so: what else runs at this address may have set one, which is then none of ours.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

/// Whether `host` is an address or localhost: a name could be made to point here by whoever has it.
pub(crate) fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _port)) => name,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether the browser says that a request comes from a page of this site. One that says nothing is too old to be one.
pub(super) fn from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (origin, host) = (text("origin"), text("host"));
    let here = origin.zip(host).is_some_and(|(origin, host)| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
    });
    here && text("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::open(folder.path(), ADMIN_TOKEN).unwrap();
        let mode = std::fs::metadata(folder.path().join(ADMIN_TOKEN)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert!(Token::open(folder.path(), ADMIN_TOKEN).unwrap().is(token.word()));
        assert!(!format!("{token:?}").contains(token.word()));
        let new = Token::renew(folder.path(), ADMIN_TOKEN).unwrap();
        assert!(!new.is(token.word()) && !new.holds(&token.cookie(0), 1));
        std::fs::write(folder.path().join(ADMIN_TOKEN), "").unwrap();
        assert!(Token::open(folder.path(), ADMIN_TOKEN).is_err(), "an empty word opens nothing");
    }

    #[test]
    fn cookies_end_and_cannot_be_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::renew(folder.path(), ADMIN_TOKEN).unwrap();
        let cookie = token.cookie(1_000);
        let end = 1_000 + COOKIE_LIFE.as_secs();
        assert!(token.holds(&cookie, 1_000) && token.holds(&cookie, end - 1));
        assert!(!token.holds(&cookie, end));
        let seal = cookie.split_once('.').unwrap().1;
        for forged in [format!("{}.{seal}", end + 1), format!("{end}."), String::new(), "1".into()]
        {
            assert!(!token.holds(&forged, 1_000), "{forged}");
        }
        assert_ne!(token.form_word(&cookie), token.form_word(""));

        // Another program at this address may have set one of the same name, which is sent first.
        let line = format!("{COOKIE}=another; theme=dark; {COOKIE}={cookie}");
        let headers = HeaderMap::from_iter([(header::COOKIE, line.parse().unwrap())]);
        assert_eq!(cookies(&headers).filter(|one| token.holds(one, 1_000)).count(), 1);
    }

    #[test]
    fn foreign_names_and_pages_are_refused() {
        for host in ["127.0.0.1:9640", "localhost", "LOCALHOST:1", "[::1]:9640", "192.168.1.2"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["example.org", "127.0.0.1.example.org:9640", "", "localhost.example.org"] {
            assert!(!is_address(host), "{host}");
        }
        let check = |headers: &[(&'static str, &'static str)], wanted: bool| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(from_here(&headers), wanted, "{headers:?}");
        };
        let host = ("host", "127.0.0.1:9640");
        check(&[host, ("origin", "http://127.0.0.1:9640")], true);
        check(&[host, ("origin", "http://127.0.0.1:9641")], false);
        check(&[host, ("origin", "null")], false);
        check(&[host], false);
        let site = ("sec-fetch-site", "same-site");
        check(&[host, ("origin", "http://127.0.0.1:9640"), site], false);
    }
}
