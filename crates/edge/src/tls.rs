//! Which certificate is shown to whom.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::x509::X509Name;

use crate::about::PublicKey;

/// The longest name of an issuer that is told, in characters.
const MAX_ISSUER: usize = 200;

/// Why a certificate can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCertificate {
    /// The chain is not PEM.
    #[error("the certificate chain is not PEM")]
    Chain(#[source] pem::Error),
    /// There is PEM, but no certificate in it.
    #[error("the chain holds no certificate: it has to begin with the host's own, in PEM")]
    Empty,
    /// The key is not PEM, or encrypted.
    #[error("the key is not a private key in PEM, unencrypted")]
    Key(#[source] pem::Error),
    /// The key is of an unknown kind, or belongs to another certificate.
    #[error("the key does not fit the certificate")]
    Pair(#[source] rustls::Error),
    /// The certificate is not X.509.
    #[error("the certificate can not be read")]
    Unreadable(#[source] x509_parser::error::X509Error),
    /// It is for other hosts.
    #[error("the certificate is not for {0}: its subject alternative names do not have it")]
    OtherHost(String),
    /// Its time is over.
    #[error("the certificate has expired, on {0}")]
    Expired(String),
    /// Its time has not come.
    #[error("the certificate is not valid before {0}")]
    Early(String),
}

/// A certificate chain with its private key. Clones share them.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// SubjectPublicKeyInfo, in DER.
    spki: Arc<[u8]>,
    begins: SystemTime,
    expires: SystemTime,
    issuer: Arc<str>,
}

impl Certificate {
    /// Reads a chain that begins with the host's own certificate, and the key of that, both in PEM.
    ///
    /// # Errors
    /// When one can not be read, or when they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(BadCertificate::Chain)?;
        let Some(own) = chain.first() else { return Err(BadCertificate::Empty) };
        let (_rest, parsed) = x509_parser::parse_x509_certificate(own)
            .map_err(|err| BadCertificate::Unreadable(err.into()))?;
        let validity = parsed.validity();
        let (begins, expires) = (time(&validity.not_before), time(&validity.not_after));
        let issuer = name(parsed.issuer()).into();
        let spki = parsed.public_key().raw.into();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(BadCertificate::Key)?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(BadCertificate::Pair)?;
        Ok(Self { key: Arc::new(key), spki, begins, expires, issuer })
    }

    /// As [`from_pem`](Self::from_pem), for `host`, to be shown at `now`.
    ///
    /// # Errors
    /// As there, and when it is for other hosts, or not valid.
    pub fn for_host(
        host: &str,
        chain: &[u8],
        key: &[u8],
        now: SystemTime,
    ) -> Result<Self, BadCertificate> {
        let certificate = Self::from_pem(chain, key)?;
        let date = |time: SystemTime| {
            let secs = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let time =
                x509_parser::time::ASN1Time::from_timestamp(secs.try_into().unwrap_or(i64::MAX));
            time.map(|time| time.to_string()).unwrap_or_default()
        };
        if !certificate.covers(host) {
            return Err(BadCertificate::OtherHost(host.to_owned()));
        }
        if certificate.expires < now {
            return Err(BadCertificate::Expired(date(certificate.expires)));
        }
        if certificate.begins > now {
            return Err(BadCertificate::Early(date(certificate.begins)));
        }
        Ok(certificate)
    }

    /// From when on it is valid.
    pub fn begins(&self) -> SystemTime {
        self.begins
    }

    /// Until when it is valid.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Who issued it, as it says itself: organisation and common name, in at most 200 characters, none of which is a
    /// control character. Empty where it names neither.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether visitors take it at `now`.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        (self.begins..=self.expires).contains(&now)
    }

    /// Whether it is for `host`, which may be a wildcard.
    pub fn covers(&self, host: &str) -> bool {
        // A certificate for all hosts below covers any of them.
        let host = host.strip_prefix('*').map_or(host.into(), |below| format!("any{below}"));
        let (Ok(own), Ok(host)) = (self.key.end_entity_cert(), ServerName::try_from(host)) else {
            return false;
        };
        ParsedCertificate::try_from(own).is_ok_and(|own| verify_server_name(&own, &host).is_ok())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Whoever made the certificate chose the name, so it is bounded.
fn name(issuer: &X509Name<'_>) -> String {
    let parts = issuer.iter_organization().chain(issuer.iter_common_name());
    let parts: Vec<&str> = parts.filter_map(|part| part.as_str().ok()).collect();
    parts.join(", ").chars().filter(|c| !c.is_control()).take(MAX_ISSUER).collect()
}

fn time(time: &x509_parser::time::ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    match time.timestamp() {
        ..0 => UNIX_EPOCH - seconds,
        0.. => UNIX_EPOCH + seconds,
    }
}

type Table = HashMap<String, Certificate>;

/// The certificate of each host. Clones share one table, which is swapped as a whole and read without locks.
///
/// Hosts are in lower case. `*.example.org` stands for each host that has one label before `example.org`, and gives way
/// to one that is named in full. Visitors of a host that has none, or who name no host, get no connection.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Arc<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// Publishers' own, which go first.
    own: ArcSwap<Table>,
    /// From an authority, by [`Acme`](crate::Acme).
    issued: ArcSwap<Table>,
}

impl Certificates {
    /// Puts the certificates that publishers brought in place of all such that there were.
    pub fn set(&self, own: HashMap<String, Certificate>) {
        self.0.own.store(Arc::new(own));
    }

    /// What visitors of `host` are shown.
    pub fn get(&self, host: &str) -> Option<Certificate> {
        self.find(host).map(|(certificate, _brought)| certificate)
    }

    /// What visitors of `host` are shown, and whether a publisher brought it.
    fn find(&self, host: &str) -> Option<(Certificate, bool)> {
        let tables = [(self.0.own.load(), true), (self.0.issued.load(), false)];
        let find = |host: &str| {
            tables.iter().find_map(|(table, brought)| Some((table.get(host).cloned()?, *brought)))
        };
        find(host).or_else(|| find(&format!("*.{}", host.split_once('.')?.1)))
    }

    /// The key that a visitor who names `host` has just been shown.
    pub(crate) fn public_key(&self, host: &str) -> Option<PublicKey> {
        let (certificate, brought) = self.find(&named(host))?;
        Some(PublicKey { spki: certificate.spki, brought })
    }

    pub(crate) fn issue(&self, host: &str, certificate: &Certificate) {
        self.0.issued.rcu(|table| {
            let mut table = Table::clone(table);
            table.insert(host.to_owned(), certificate.clone());
            table
        });
    }

    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.0.issued.rcu(|table| {
            let mut table = Table::clone(table);
            table.retain(|host, _certificate| wanted(host));
            table
        });
    }

    /// TLS that shows these, and that leaves visitors the choice between HTTP/2 and HTTP/1.1.
    pub(crate) fn config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new()?;
        Ok(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get(&named(hello.server_name()?))?.key)
    }
}

/// A host as a visitor names it in TLS, as the tables have it.
fn named(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn pem(hosts: &[&str]) -> (String, String) {
        let names: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn certificate(hosts: &[&str]) -> Certificate {
        let (chain, key) = pem(hosts);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ((chain, key), (_, other)) = (pem(&["a.example"]), pem(&["a.example"]));
        let broken = chain.replace("MII", "AAA");
        for (chain, key, expected) in [
            (&*chain, &*other, "the key does not fit the certificate"),
            (&*chain, "", "the key is not a private key in PEM, unencrypted"),
            (&*chain, &*chain, "the key is not a private key in PEM, unencrypted"),
            (
                "",
                &*key,
                "the chain holds no certificate: it has to begin with the host's own, in PEM",
            ),
            ("-----BEGIN CERTIFICATE-----\n", &*key, "the certificate chain is not PEM"),
            (&*broken, &*key, "the certificate can not be read"),
        ] {
            let err = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert_eq!(err.to_string(), expected);
        }
        assert!(Certificate::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());
    }

    #[test]
    fn what_visitors_would_refuse_is_refused() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2026, 3, 4);
        let chain = params.self_signed(&key).unwrap().pem();
        let day = |days: u32| UNIX_EPOCH + days * Duration::from_secs(24 * 60 * 60);
        let check = |host: &str, now: SystemTime, expected: Option<&str>| {
            let key = key.serialize_pem();
            let result = Certificate::for_host(host, chain.as_bytes(), key.as_bytes(), now);
            let error = result.err().map(|err| err.to_string());
            match expected {
                Some(begin) => assert!(error.is_some_and(|err| err.starts_with(begin)), "{begin}"),
                None => assert_eq!(error, None),
            }
        };
        // The first of January 2026 is day 20,454.
        check("a.example", day(20_480), None);
        check("b.example", day(20_480), Some("the certificate is not for b.example"));
        check("a.example", day(20_600), Some("the certificate has expired, on Mar  4 "));
        check("a.example", day(20_454), Some("the certificate is not valid before Jan  2 "));
    }

    #[test]
    fn an_issuer_is_named_in_bounds() {
        let issued_by = |names: &[(DnType, &str)]| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.distinguished_name = DistinguishedName::new();
            for (kind, name) in names {
                params.distinguished_name.push(kind.clone(), *name);
            }
            let chain = params.self_signed(&key).unwrap().pem();
            let key = key.serialize_pem();
            Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap().issuer().to_owned()
        };
        let (organisation, common) = (DnType::OrganizationName, DnType::CommonName);
        for (names, expected) in [
            (vec![], String::new()),
            (vec![(common.clone(), "R11")], "R11".into()),
            (
                vec![(common.clone(), "R11"), (organisation, "An authority")],
                "An authority, R11".into(),
            ),
            (vec![(common.clone(), "a\u{1b}[1mb\n")], "a[1mb".into()),
            (vec![(common, &*"x".repeat(1_000))], "x".repeat(200)),
        ] {
            assert_eq!(issued_by(&names), expected);
        }
    }

    #[test]
    fn a_certificate_covers_its_hosts() {
        let certificate = certificate(&["a.example", "*.b.example"]);
        for (host, covered) in [
            ("a.example", true),
            ("b.example", false),
            ("x.b.example", true),
            ("*.b.example", true),
            ("x.y.b.example", false),
            ("*.example", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(certificate.covers(host), covered, "{host}");
        }
    }

    #[test]
    fn the_nearest_certificate_is_shown() {
        let certificates = Certificates::default();
        let hosts = ["own.example", "*.example", "both.example", "issued.example"];
        let [own, wild, both, issued] = hosts.map(|host| certificate(&[host]));
        certificates.set(HashMap::from([
            ("own.example".to_owned(), own.clone()),
            ("*.example".to_owned(), wild.clone()),
            ("both.example".to_owned(), both.clone()),
        ]));
        for host in ["issued.example", "both.example"] {
            certificates.issue(host, &issued);
        }
        for (host, expected) in [
            ("own.example", Some(&own)),
            ("both.example", Some(&both)),
            ("issued.example", Some(&issued)),
            ("any.example", Some(&wild)),
            ("a.any.example", None),
            ("example", None),
        ] {
            let shown = certificates.get(host);
            let same = shown.as_ref().map(|c| &c.key.cert) == expected.map(|c| &c.key.cert);
            assert!(same, "{host}");
        }
        certificates.retain(|host| host != "issued.example");
        assert!(certificates.get("issued.example").is_some_and(|c| c.key.cert == wild.key.cert));
    }

    #[test]
    fn keys_are_not_printed() {
        let printed = format!("{:?}", certificate(&["a.example"]));
        assert!(printed.starts_with("Certificate { expires: SystemTime"), "{printed}");
    }
}
