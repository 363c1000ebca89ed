//! Certificates from an authority that speaks ACME (RFC 8555), such as Let's Encrypt: got, kept on disk, shown by the
//! ingress, and renewed in time.
//!
//! Hosts are ordered one by one, each for itself, so that one that does not point here yet holds up no other. What
//! fails is tried again after a pause that grows, slowly enough for the failures that authorities allow per hour.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    account::Account,
    folder::Folder,
    order::OrderError,
    schedule::{Ledger, Pace},
};
use crate::{
    challenges::Challenges,
    tls::{Certificate, Certificates},
};

mod account;
mod folder;
mod order;
mod schedule;
#[cfg(test)]
mod tests;

/// How many hosts are ordered at a time.
const ORDERS: usize = 4;

/// How many orders are placed in any hour, for all together. Authorities allow some hundreds.
pub const ORDERS_PER_HOUR: usize = 60;

/// How many orders are placed in any 24 hours for one that certificates are wanted [of](Want::of).
pub const ORDERS_PER_DAY: usize = 8;

/// How long an order may take.
const ORDER: Duration = Duration::from_secs(10 * 60);

/// The longest sleep. The clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(60 * 60);

/// An authority, and what it is to know.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The URL of its directory, such as `https://acme-v02.api.letsencrypt.org/directory`. To use it is to agree to its
    /// terms.
    pub directory: String,
    /// Where it may write to its customer, as URLs: `mailto:me@example.org`.
    pub contact: Vec<String>,
    /// The certificate in PEM that vouches for its server, where that is not one that this machine trusts anyway.
    pub root: Option<PathBuf>,
}

/// How a host is proved to be served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By an answer over HTTP, which the ingress gives at port 80 of the host.
    Http01,
    /// By a record in its zone. The only way for wildcards.
    Dns01,
}

/// A certificate that is wanted for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// How the host is proved.
    pub proof: Proof,
    /// On whose account its orders go, by any name: nobody has more than [`ORDERS_PER_DAY`].
    pub of: String,
    /// Whose host it is, by any name of at most 32 letters and digits. A certificate that is kept is for them alone: that the host once
    /// led here says nothing of who has it by now.
    pub whose: String,
}

/// Where records can be set for [`Proof::Dns01`].
///
/// There may be several of one name at a time. An order that is broken off leaves its record, so whoever keeps them
/// should forget them after an hour.
pub trait TxtRecords: fmt::Debug + Send + Sync {
    /// Adds a TXT record, and ends once all name servers of the zone answer with it.
    fn add<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<(), TxtError>>;

    /// Removes it.
    fn remove<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<(), TxtError>>;
}

/// Why a record was not set.
pub type TxtError = Box<dyn std::error::Error + Send + Sync>;

/// How it stands with a host's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Until when the one that is shown is valid. None: there is none yet.
    pub expires: Option<SystemTime>,
    /// When the next order is due.
    pub next: Option<SystemTime>,
    /// Whether one is under way.
    pub ordering: bool,
    /// How many orders failed since one did not.
    pub failures: u32,
    /// Why the last one failed, for the publisher to read.
    pub error: Option<String>,
}

/// Certificates from an authority. Clones share all.
#[derive(Debug, Clone)]
pub struct Acme(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    account: Account,
    folder: Folder,
    certificates: Certificates,
    challenges: Challenges,
    records: Option<Arc<dyn TxtRecords>>,
    pace: Pace,
    wanted: watch::Sender<BTreeMap<String, Want>>,
    hosts: Mutex<BTreeMap<String, Host>>,
    ledger: Mutex<Ledger>,
}

/// A host that is wanted, or that was when its order began.
#[derive(Debug)]
struct Host {
    want: Want,
    status: Status,
}

impl Acme {
    /// Certificates of `authority`, which go into `certificates` and are kept in a folder of their own below `folder`.
    /// Nothing is asked of the authority before [`run`](Self::run).
    ///
    /// # Errors
    /// When the folder can not be made.
    pub fn new(
        authority: Authority,
        folder: PathBuf,
        certificates: Certificates,
        challenges: Challenges,
        records: Option<Arc<dyn TxtRecords>>,
    ) -> io::Result<Self> {
        let pace = Pace::default();
        Self::with_pace(pace, authority, folder, certificates, challenges, records)
    }

    fn with_pace(
        pace: Pace,
        authority: Authority,
        folder: PathBuf,
        certificates: Certificates,
        challenges: Challenges,
        records: Option<Arc<dyn TxtRecords>>,
    ) -> io::Result<Self> {
        let folder = Folder::open(&folder, &authority.directory)?;
        Ok(Self(Arc::new(Shared {
            account: Account::new(authority, folder.clone()),
            folder,
            certificates,
            challenges,
            records,
            pace,
            wanted: watch::Sender::default(),
            hosts: Mutex::default(),
            ledger: Mutex::default(),
        })))
    }

    /// Puts `hosts` in place of all that were to have a certificate. They are in lower case; `*.example.org` stands for
    /// each that has one label before `example.org`.
    ///
    /// Certificates of hosts that are not wanted any more are not shown, but kept on disk until they expire: an app
    /// that comes back costs the authority nothing.
    ///
    /// Nobody who has hosts wanted can use up what the authority allows: of each there are [`ORDERS_PER_DAY`] at most, of
    /// all together [`ORDERS_PER_HOUR`]. What is due beyond that waits.
    pub fn want(&self, hosts: BTreeMap<String, Want>) {
        self.0.wanted.send_if_modified(|wanted| {
            let changed = *wanted != hosts;
            *wanted = hosts;
            changed
        });
    }

    /// How it stands with each host that is wanted.
    pub fn statuses(&self) -> BTreeMap<String, Status> {
        let hosts = self.0.hosts();
        hosts.iter().map(|(host, entry)| (host.clone(), entry.status.clone())).collect()
    }

    /// How it stands with one of them.
    pub fn status(&self, host: &str) -> Option<Status> {
        self.0.hosts().get(host).map(|entry| entry.status.clone())
    }

    /// Gets and renews certificates until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut changes = self.0.wanted.subscribe();
        changes.mark_changed();
        let mut orders = JoinSet::new();
        let places = Arc::new(Semaphore::new(ORDERS));
        loop {
            if changes.has_changed().unwrap_or(false) {
                let wanted = changes.borrow_and_update().clone();
                self.0.adopt(&wanted).await;
            }
            self.0.forget();
            let (due, rest) = self.0.due(SystemTime::now());
            for (host, want) in due {
                let (shared, places) = (Arc::clone(&self.0), Arc::clone(&places));
                orders.spawn(async move {
                    // It is never closed.
                    let _place = places.acquire_owned().await;
                    shared.order(&host, &want).await;
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _changed = changes.changed() => changes.mark_changed(),
                Some(_ended) = orders.join_next() => (),
                () = sleep(rest) => (),
            }
        }
        orders.shutdown().await;
    }
}

impl Shared {
    /// Takes up what is newly wanted, and shows what the folder has for it.
    async fn adopt(&self, wanted: &BTreeMap<String, Want>) {
        for (host, want) in wanted {
            if let Some(known) = self.hosts().get_mut(host) {
                let same = known.want.proof == want.proof && known.want.whose == want.whose;
                // What is being ordered ends first; it is proved now, whoever has it.
                if same || known.status.ordering {
                    known.want = want.clone();
                    continue;
                }
            }
            self.certificates.retain(|shown| shown != host);
            let status = self.kept(host, want).await;
            self.hosts().insert(host.clone(), Host { want: want.clone(), status });
        }
        if let Err(err) = self.folder.clean(wanted).await {
            tracing::warn!(error = %err, "expired certificates were not removed");
        }
    }

    /// How it stands with a host before anything is done for it.
    async fn kept(&self, host: &str, want: &Want) -> Status {
        if let Err(err) = order::check(host, want.proof) {
            return Status { failures: 1, error: Some(err.to_string()), ..Status::default() };
        }
        let (expires, next) = match self.folder.certificate(host, &want.whose).await {
            Ok(Some(certificate)) => {
                self.certificates.issue(host, &certificate);
                (Some(certificate.expires()), self.pace.renewal(&certificate))
            }
            Ok(None) => (None, SystemTime::now()),
            // A new one is written over it.
            Err(err) => {
                tracing::warn!(host, error = %err, "the certificate of {host} can not be read");
                (None, SystemTime::now())
            }
        };
        Status { expires, next: Some(next), ..Status::default() }
    }

    /// Drops what is not wanted any more. What is being ordered ends first, so that a host that comes back meanwhile is
    /// not ordered twice.
    fn forget(&self) {
        let wanted = self.wanted.borrow().clone();
        self.hosts().retain(|host, entry| wanted.contains_key(host) || entry.status.ordering);
        self.certificates.retain(|host| wanted.contains_key(host));
    }

    /// The hosts that are to be ordered now, marked as such, and how long it is until the next is.
    ///
    /// Those that failed least go first: hosts that always fail leave what the bounds allow to all others.
    fn due(&self, now: SystemTime) -> (Vec<(String, Want)>, Duration) {
        let (mut due, mut rest) = (Vec::new(), NAP);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosts = self.hosts();
        let mut all: Vec<_> = hosts.iter_mut().collect();
        all.sort_by_key(|(_host, entry)| (entry.status.failures, entry.status.next));
        for (host, Host { want, status }) in all {
            let Some(next) = status.next.filter(|_| !status.ordering) else { continue };
            match next.duration_since(now) {
                Ok(until) if !until.is_zero() => rest = rest.min(until),
                Ok(_) | Err(_) => match ledger.order(&want.of, now, &self.pace) {
                    Ok(()) => {
                        status.ordering = true;
                        due.push((host.clone(), want.clone()));
                    }
                    Err(later) => {
                        status.next = Some(later);
                        let words = "as many certificates were ordered lately as are allowed";
                        status.error.get_or_insert_with(|| words.to_owned());
                        rest = rest.min(later.duration_since(now).unwrap_or_default());
                    }
                },
            }
        }
        (due, rest)
    }

    /// Orders a certificate, and makes what comes of it known.
    async fn order(&self, host: &str, want: &Want) {
        let result = match timeout(ORDER, self.obtain(host, want)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(OrderError::Slow(ORDER)),
        };
        if let Ok(certificate) = &result {
            // If it is not wanted any more, that goes again at once.
            self.certificates.issue(host, certificate);
            tracing::info!(host, "{host} has a new certificate");
        }
        let mut hosts = self.hosts();
        let Some(Host { status, .. }) = hosts.get_mut(host) else { return };
        status.ordering = false;
        match result {
            Ok(certificate) => {
                let expires = Some(certificate.expires());
                let next = Some(self.pace.renewal(&certificate));
                *status = Status { expires, next, ..Status::default() };
            }
            Err(err) => {
                let error = chain(&err);
                status.failures = status.failures.saturating_add(1);
                let pause = self.pace.pause(status.failures, err.rate_limited());
                status.next = Some(SystemTime::now() + pause);
                let pause_secs = pause.as_secs();
                tracing::warn!(host, error, pause_secs, "no new certificate for {host} yet");
                status.error = Some(error);
            }
        }
    }

    async fn obtain(&self, host: &str, want: &Want) -> Result<Certificate, OrderError> {
        let (records, challenges) = (self.records.as_deref(), &self.challenges);
        let account = self.account.get().await?;
        let ordered = order::order(&account, host, want.proof, challenges, records).await;
        if ordered.as_ref().is_err_and(OrderError::account_unknown) {
            self.account.forget().await?;
        }
        let pem = ordered?;
        let certificate = Certificate::from_pem(pem.chain.as_bytes(), pem.key.as_bytes())?;
        if !certificate.covers(host) {
            return Err(OrderError::Other);
        }
        self.folder.keep_certificate(host, &want.whose, &pem).await.map_err(OrderError::Kept)?;
        Ok(certificate)
    }

    /// The table is whole after each statement, so a panic elsewhere does not spoil it.
    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its sources.
fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
