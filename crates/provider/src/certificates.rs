//! HTTPS: which certificate each host of a pod is shown with.
//!
//! Publishers choose the hosts and bring certificates, so both may be anybody's. For a host that does not point here no
//! authority gives a certificate; such orders cost the operator some of what its authority allows, which
//! [`edge::acme`] bounds for each lease and for all. A certificate that was brought is shown to nobody but visitors of
//! the host that its lease serves, and its key is in memory alone. Hosts go to the lease that came first, as in the
//! ingress; another one gets no certificate for them.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use alloy::primitives::B256;
use edge::{
    Acme, Certificate, Certificates, Challenges,
    acme::{Authority, Proof, TxtError, TxtRecords, Want},
};
use futures::future::BoxFuture;
use protocol::pod::{Host, Name, Pod, PodHash, Tls};
use seal::Secrets;
use tokio::{process::Command, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{causes, config, house::mode::minute, leases::PodKey};

/// How long the program that sets DNS records may take.
const PATIENCE: Duration = Duration::from_secs(3 * 60);

/// How long before its end a publisher is told that its certificate expires.
const WARNING: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A host that a lease serves.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) host: Host,
    pub(crate) key: PodKey,
    /// Whether the lease is paid for: for others nothing is ordered.
    pub(crate) active: bool,
    pub(crate) account: B256,
    pub(crate) pod: PodHash,
    /// Where its certificate comes from, if the pod says so.
    pub(crate) tls: Option<Tls>,
}

/// Where publishers' secrets come from.
pub(crate) trait Envelopes {
    /// When the secrets of a pod came, if they did.
    fn sent(&self, account: B256, pod: PodHash) -> Option<SystemTime>;

    /// The secrets.
    ///
    /// # Errors
    /// In words for the publisher.
    fn open(&self, account: B256, pod: PodHash) -> Result<Secrets, String>;
}

/// The certificates of pods' hosts.
#[derive(Debug)]
pub(crate) struct HostCertificates {
    config: config::Tls,
    shown: Certificates,
    challenges: Challenges,
    acme: Option<Acme>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owners: BTreeMap<Host, PodKey>,
    own: BTreeMap<(Host, PodKey), Own>,
}

/// What came of a certificate that a publisher brought.
#[derive(Debug)]
struct Own {
    /// Out of which secrets it is.
    source: (PodHash, Option<SystemTime>),
    /// The last one that could be used.
    certificate: Option<Certificate>,
    /// Why the last one that was sent cannot be.
    error: Option<String>,
}

/// Why a pod's hosts cannot have the certificates that it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(
        "x-roadstead.tls[{0:?}]: this provider serves no HTTPS by itself; remove this, or choose another provider"
    )]
    NoTls(Host),
    #[error(
        "x-roadstead.tls[{0:?}]: this provider cannot prove hosts by DNS; remove this, bring a certificate, or choose another provider"
    )]
    NoDns(Host),
}

/// Whether a provider that is configured so can do what `pod` says of certificates.
pub(crate) fn fits(config: Option<&config::Tls>, pod: &Pod) -> Result<(), TlsError> {
    let dns = config.and_then(|tls| tls.acme.as_ref()?.dns.as_ref());
    for (host, tls) in pod.tls() {
        match tls {
            _ if config.is_none() => return Err(TlsError::NoTls(host.clone())),
            Tls::Dns if dns.is_none() => return Err(TlsError::NoDns(host.clone())),
            Tls::Dns | Tls::Own { .. } => (),
        }
    }
    Ok(())
}

impl HostCertificates {
    /// Those that an authority gave are kept below `data`.
    pub(crate) fn open(config: config::Tls, data: &Path) -> io::Result<Self> {
        let (shown, challenges) = (Certificates::default(), Challenges::default());
        let acme = config.acme.as_ref().map(|acme| {
            let config::Acme { directory, contact, root, dns } = acme.clone();
            let records = dns.map(|dns| Arc::new(Zone(dns)) as Arc<dyn TxtRecords>);
            let authority = Authority { directory, contact, root };
            let folder = data.join("acme");
            Acme::new(authority, folder, shown.clone(), challenges.clone(), records)
        });
        let acme = acme.transpose()?;
        Ok(Self { config, shown, challenges, acme, state: Mutex::default() })
    }

    pub(crate) fn config(&self) -> &config::Tls {
        &self.config
    }

    pub(crate) fn shown(&self) -> &Certificates {
        &self.shown
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Gets certificates and renews them until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        match &self.acme {
            Some(acme) => acme.run(stop).await,
            None => stop.cancelled().await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has each host shown with its certificate. Of several claims of a host the first counts.
    pub(crate) fn set(&self, claims: &[Claim], envelopes: &impl Envelopes) {
        let mut first: BTreeMap<&Host, &Claim> = BTreeMap::new();
        for claim in claims {
            first.entry(&claim.host).or_insert(claim);
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        state.owners = first.iter().map(|(host, claim)| ((*host).clone(), claim.key)).collect();
        let brings = |(host, key): &(Host, PodKey)| {
            let claim = first.get(host).filter(|claim| claim.key == *key);
            claim.is_some_and(|claim| matches!(claim.tls, Some(Tls::Own { .. })))
        };
        state.own.retain(|place, _own| brings(place));
        let (mut own, mut wanted) = (HashMap::new(), BTreeMap::new());
        for (host, claim) in first {
            let proof = match &claim.tls {
                Some(Tls::Own { certificate, key }) => {
                    let found = state.own(claim, (certificate, key), envelopes);
                    own.extend(found.map(|found| (host.to_string(), found)));
                    continue;
                }
                Some(Tls::Dns) => Proof::Dns01,
                None => Proof::Http01,
            };
            if claim.active {
                // Half of the account: with a host, all of it may be too long for a file's name.
                let whose = hex::encode(claim.account.split_at(16).0);
                let of = claim.key.lease.to_string();
                let want = Want { proof, of, whose };
                wanted.insert(host.to_string(), want);
            }
        }
        self.shown.set(own);
        if let Some(acme) = &self.acme {
            acme.want(wanted);
        }
    }

    /// The URL of a host of a lease's, if it is served with a certificate.
    pub(crate) fn url(&self, key: PodKey, host: &Host) -> Option<String> {
        let owns = self.lock().owners.get(host) == Some(&key);
        let certificate = self.shown.get(host.as_str()).filter(|_| owns)?;
        (certificate.expires() > SystemTime::now()).then(|| self.config.url(host.as_str()))
    }

    /// What a lease's publisher should know of the certificates of its hosts.
    pub(crate) fn notes(&self, key: PodKey, pod: &Pod) -> Vec<String> {
        let statuses = self.acme.as_ref().map(Acme::statuses).unwrap_or_default();
        let state = self.lock();
        let mut notes = Vec::new();
        for host in pod.ingress().keys() {
            match state.owners.get(host) {
                Some(owner) if *owner != key => {
                    let lease = owner.lease;
                    notes.push(format!("{host} is served for lease {lease}, which came first"));
                    continue;
                }
                Some(_) | None => (),
            }
            if let Some(own) = state.own.get(&(host.clone(), key)) {
                notes.extend(own.note(host, SystemTime::now()));
                continue;
            }
            let Some(status) = statuses.get(host.as_str()) else { continue };
            if let Some(error) = &status.error {
                let next = status.next.map_or_else(
                    || "it is not tried again".to_owned(),
                    |next| format!("it is tried again at about {}", minute(unix(next))),
                );
                notes.push(format!("there is no new certificate for {host}: {error}; {next}"));
                notes.extend(self.alias(host, pod));
            } else if status.expires.is_none() {
                notes.push(format!("a certificate for {host} is on its way"));
                notes.extend(self.alias(host, pod));
            }
        }
        notes
    }

    /// The certificate that a host of a lease's is shown with, and why there is none, or no new one.
    pub(crate) fn of(&self, key: PodKey, host: &Host) -> (Option<Certificate>, Option<String>) {
        let state = self.lock();
        let shown = match state.owners.get(host) {
            Some(owner) if *owner != key => {
                let words = format!("it is served for lease {}, which came first", owner.lease);
                return (None, Some(words));
            }
            Some(_owner) => self.shown.get(host.as_str()),
            None => None,
        };
        if let Some(own) = state.own.get(&(host.clone(), key)) {
            return (own.certificate.clone(), own.error.clone());
        }
        let status = self.acme.as_ref().and_then(|acme| acme.status(host.as_str()));
        (shown, status.and_then(|status| status.error))
    }

    /// What the publisher has to have in its zone for a proof by DNS.
    fn alias(&self, host: &Host, pod: &Pod) -> Option<String> {
        let dns = self.config.acme.as_ref()?.dns.as_ref()?;
        let alias = (pod.tls().get(host) == Some(&Tls::Dns)).then(|| record(host.as_str(), dns))?;
        Some(format!("for that, _acme-challenge.{host} has to be an alias (CNAME) of {alias}"))
    }
}

impl State {
    /// The certificate that a publisher brought for a host: a new one, if it can be used, else what there was.
    fn own(
        &mut self,
        claim: &Claim,
        (certificate, key): (&Name, &Name),
        envelopes: &impl Envelopes,
    ) -> Option<Certificate> {
        let (host, lease) = (&claim.host, claim.key.lease);
        let source = (claim.pod, envelopes.sent(claim.account, claim.pod));
        let known = self.own.get(&(host.clone(), claim.key));
        // One that could not be used is tried again: it may only have been early, or its envelope unreadable for a moment.
        let same = known.filter(|known| known.source == source);
        if let Some(known) = same.filter(|known| known.error.is_none()) {
            return known.certificate.clone();
        }
        let told = same.and_then(|known| known.error.clone());
        let before = known.and_then(|known| known.certificate.clone());
        let read = || -> Result<Certificate, String> {
            let secrets = envelopes.open(claim.account, claim.pod)?;
            let part = |name: &Name| {
                let missing = || format!("secret {name} was not sent");
                secrets.0.get(name.as_str()).ok_or_else(missing)
            };
            let (chain, key) = (part(certificate)?, part(key)?);
            let read = Certificate::for_host(host.as_str(), chain, key, SystemTime::now());
            read.map_err(|err| causes(&err))
        };
        let own = match read() {
            Ok(new) => Own { source, certificate: Some(new), error: None },
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(
                        lease.id = lease,
                        error,
                        "the certificate for {host} that came with lease {lease} cannot be used"
                    );
                }
                Own { source, certificate: before, error: Some(error) }
            }
        };
        let shown = own.certificate.clone();
        self.own.insert((host.clone(), claim.key), own);
        shown
    }
}

impl Own {
    fn note(&self, host: &Host, now: SystemTime) -> Option<String> {
        let path = format!("x-roadstead.tls[{:?}]", host.as_str());
        if let Some(error) = &self.error {
            let shown = match &self.certificate {
                Some(_) => "the one before is still shown",
                None => "none is shown",
            };
            return Some(format!("{path}: {error}; {shown}"));
        }
        let expires = self.certificate.as_ref()?.expires();
        (expires < now + WARNING).then(|| {
            let when = minute(unix(expires));
            format!("{path}: the certificate expires at {when}; put the next one into its secrets, and update")
        })
    }
}

pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The name of the record by which a host is proved.
fn record(host: &str, dns: &config::AcmeDns) -> String {
    format!("{host}.{}", dns.zone)
}

/// A zone of the operator's, whose records its own program sets.
#[derive(Debug)]
struct Zone(config::AcmeDns);

#[derive(Debug, thiserror::Error)]
enum ZoneError {
    #[error("{0} would be too long for a name")]
    TooLong(String),
    #[error("the provider's program for DNS records could not be run")]
    Run(#[source] io::Error),
    #[error("the provider's program for DNS records did not end within {secs} s", secs = PATIENCE.as_secs())]
    Slow,
    #[error("the provider's program for DNS records ended with {0}; its log says why")]
    Failed(ExitStatus),
}

impl Zone {
    /// Runs the program. Its arguments are a host name that was checked and the authority's own value, and no shell reads
    /// them.
    async fn run(&self, what: &str, name: &str, value: &str) -> Result<(), TxtError> {
        let name = record(name.trim_start_matches("_acme-challenge."), &self.0);
        let program = self.0.program.display().to_string();
        if name.len() > 253 {
            return Err(ZoneError::TooLong(name).into());
        }
        let mut command = Command::new(&self.0.program);
        command.args([what, &name, value]).stdin(Stdio::null()).kill_on_drop(true);
        let output = match timeout(PATIENCE, command.output()).await {
            Err(_late) => return Err(ZoneError::Slow.into()),
            Ok(output) => output.map_err(ZoneError::Run)?,
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        // What a program of the operator's says is not for publishers.
        tracing::warn!(status = %output.status, said = last, "{program} {what} {name} failed");
        Err(ZoneError::Failed(output.status).into())
    }
}

impl TxtRecords for Zone {
    fn add<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<(), TxtError>> {
        Box::pin(self.run("add", name, value))
    }

    fn remove<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<(), TxtError>> {
        Box::pin(self.run("remove", name, value))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use zeroize::Zeroizing;

    use super::*;

    /// What was sent, and when.
    #[derive(Default)]
    struct Sent(RefCell<(u64, Secrets)>, Cell<bool>);

    impl Sent {
        fn send(&self, chain: &str, key: &str) {
            let mut sent = self.0.borrow_mut();
            sent.0 += 1;
            let secret = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
            sent.1.0 = [("chain".into(), secret(chain)), ("key".into(), secret(key))].into();
        }
    }

    impl Envelopes for Sent {
        fn sent(&self, _account: B256, _pod: PodHash) -> Option<SystemTime> {
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.borrow().0))
        }

        fn open(&self, _account: B256, _pod: PodHash) -> Result<Secrets, String> {
            if self.1.get() {
                return Err("the disk does not answer".into());
            }
            Ok(self.0.borrow().1.clone())
        }
    }

    fn pair(host: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn own() -> Tls {
        Tls::Own { certificate: "chain".parse().unwrap(), key: "key".parse().unwrap() }
    }

    fn pod() -> Pod {
        let json = serde_json::json!({
            "ingress": { "a.example.org": { "port": 80, "service": "web" } },
            "services": { "web": {
                "image": { "pushed": { "id": format!("sha256:{}", "a".repeat(64)) } },
                "limits": { "cpu": 100, "memory": 16 << 20, "pids": 32 },
                "ports": ["80/tcp"],
            } },
            "tls": { "a.example.org": { "own": { "certificate": "chain", "key": "key" } } },
        });
        serde_json::from_value(json).unwrap()
    }

    fn key(lease: u64) -> PodKey {
        PodKey { lease, opening: B256::ZERO }
    }

    fn claim(lease: u64, tls: Option<Tls>) -> Claim {
        let (host, key) = ("a.example.org".parse().unwrap(), key(lease));
        Claim { host, key, active: true, account: B256::ZERO, pod: PodHash::default(), tls }
    }

    fn certificates(folder: &Path) -> HostCertificates {
        let listen = ([127, 0, 0, 1], 443).into();
        let config = config::Tls { listen, port: 443, acme: None };
        HostCertificates::open(config, folder).unwrap()
    }

    #[test]
    fn a_certificate_that_cannot_be_used_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (certificates, sent, pod) = (certificates(folder.path()), Sent::default(), pod());
        let host: Host = "a.example.org".parse().unwrap();
        let ((good, good_key), (other, other_key)) = (pair(host.as_str()), pair("b.example.org"));
        let check = |chain: &str, key_pem: &str, shown: bool, note: Option<&str>| {
            sent.send(chain, key_pem);
            certificates.set(&[claim(1, Some(own()))], &sent);
            let url = certificates.url(key(1), &host);
            assert_eq!(url.as_deref(), shown.then_some("https://a.example.org"));
            let notes = certificates.notes(key(1), &pod);
            match note {
                Some(part) => assert!(notes.len() == 1 && notes[0].contains(part), "{notes:?}"),
                None => assert_eq!(notes, Vec::<String>::new()),
            }
        };
        check(&other, &other_key, false, Some("is not for a.example.org"));
        check(&good, &other_key, false, Some("the key does not fit the certificate"));
        check(&good, &good_key, true, None);
        check(&good, "", true, Some("the one before is still shown"));
        check(&good, &good_key, true, None);
        // With its lease it goes.
        certificates.set(&[], &sent);
        assert!(certificates.shown().get(host.as_str()).is_none());
    }

    #[test]
    fn a_certificate_that_could_not_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (certificates, sent, pod) = (certificates(folder.path()), Sent::default(), pod());
        let host: Host = "a.example.org".parse().unwrap();
        let (chain, key_pem) = pair(host.as_str());
        sent.send(&chain, &key_pem);
        sent.1.set(true);
        certificates.set(&[claim(1, Some(own()))], &sent);
        let notes = certificates.notes(key(1), &pod);
        assert!(notes.len() == 1 && notes[0].contains("the disk does not answer"), "{notes:?}");
        let (shown, why) = certificates.of(key(1), &host);
        assert_eq!((shown.is_none(), why.as_deref()), (true, Some("the disk does not answer")));
        // Nothing new was sent.
        sent.1.set(false);
        certificates.set(&[claim(1, Some(own()))], &sent);
        let (shown, why) = certificates.of(key(1), &host);
        assert_eq!((shown.unwrap().issuer(), why), ("rcgen self signed cert", None));
        assert_eq!(certificates.notes(key(1), &pod), Vec::<String>::new());
        assert!(certificates.url(key(1), &host).is_some());
        // What could be used is not read anew.
        sent.1.set(true);
        certificates.set(&[claim(1, Some(own()))], &sent);
        assert_eq!(certificates.notes(key(1), &pod), Vec::<String>::new());
    }

    #[test]
    fn a_host_is_the_first_leases_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (certificates, sent, pod) = (certificates(folder.path()), Sent::default(), pod());
        let host: Host = "a.example.org".parse().unwrap();
        let (chain, key_pem) = pair(host.as_str());
        sent.send(&chain, &key_pem);
        // The later one brings a certificate, and the host is not its own.
        certificates.set(&[claim(1, None), claim(2, Some(own()))], &sent);
        assert!(certificates.shown().get(host.as_str()).is_none());
        assert_eq!(
            certificates.notes(key(2), &pod),
            ["a.example.org is served for lease 1, which came first"]
        );
        assert_eq!(certificates.url(key(2), &host), None);
        let (shown, why) = certificates.of(key(2), &host);
        assert!(shown.is_none() && why.is_some_and(|why| why.contains("served for lease 1")));
        // Once the first is gone it is.
        certificates.set(&[claim(2, Some(own()))], &sent);
        assert!(certificates.url(key(2), &host).is_some());
        assert_eq!(certificates.notes(key(2), &pod), Vec::<String>::new());
    }

    #[test]
    fn what_a_provider_cannot_do_is_refused() {
        let listen = ([127, 0, 0, 1], 443).into();
        let plain = config::Tls { listen, port: 443, acme: None };
        let host: Host = "a.example.org".parse().unwrap();
        assert_eq!(fits(None, &pod()), Err(TlsError::NoTls(host.clone())));
        assert_eq!(fits(Some(&plain), &pod()), Ok(()));
        let json = serde_json::to_string(&pod()).unwrap();
        let own = r#"{"own":{"certificate":"chain","key":"key"}}"#;
        let dns: Pod = serde_json::from_str(&json.replace(own, r#""dns""#)).unwrap();
        assert_eq!(fits(Some(&plain), &dns), Err(TlsError::NoDns(host)));
    }
}
