//! With pebble, Let's Encrypt's authority for tests, which looks for the proofs for real.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Child, Command},
};

use super::*;
use crate::{Ingress, Routes};

/// Longer than anything here takes, so that what hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fast, and without pauses that a test would have to wait for.
const QUICK: Pace = Pace {
    first: Duration::from_millis(200),
    most: Duration::from_secs(1),
    limited: Duration::from_secs(1),
    left: 1.0 / 3.0,
    hourly: usize::MAX,
    daily: usize::MAX,
};

/// An authority, name servers for which each name is this machine, and an ingress at which both of them look.
struct Stage {
    folder: TempDir,
    authority: Authority,
    pebble: Child,
    names: Child,
    records: Arc<Records>,
    certificates: Certificates,
    challenges: Challenges,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    acme: SocketAddr,
    dns: SocketAddr,
    http: u16,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.self_signed(&key).unwrap();
        let root = folder.path().join("root.pem");
        fs::write(&root, own.pem()).unwrap();
        fs::write(folder.path().join("root.key"), key.serialize_pem()).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap().port();
        let (challenges, stop) = (Challenges::default(), CancellationToken::new());
        let ingress = Ingress::new(Routes::default()).challenges(challenges.clone());
        let mut tasks = JoinSet::new();
        let stopping = stop.clone();
        tasks.spawn(async move { ingress.http(listener, stopping).await.unwrap() });

        let (dns, management) = (free().await, free().await);
        let names = start(Command::new("pebble-challtestsrv").args([
            "-defaultIPv6=",
            "-http01=",
            "-https01=",
            "-tlsalpn01=",
            &format!("-dns01={dns}"),
            &format!("-management={management}"),
        ]));
        let acme = free().await;
        let authority = Authority {
            directory: format!("https://{acme}/dir"),
            contact: vec!["mailto:me@example.org".to_owned()],
            root: Some(root),
        };
        let pebble = pebble(&folder, acme, http, dns);
        let records = Arc::new(Records { management, added: AtomicU32::new(0) });
        listening(management).await;
        listening(acme).await;
        Self {
            folder,
            authority,
            pebble,
            names,
            records,
            certificates: Certificates::default(),
            challenges,
            tasks,
            stop,
            acme,
            dns,
            http,
        }
    }

    /// Runs what is tested, which stops with the stage.
    fn run(&mut self, pace: Pace) -> Acme {
        let acme = Acme::with_pace(
            pace,
            self.authority.clone(),
            self.folder.path().join("acme"),
            self.certificates.clone(),
            self.challenges.clone(),
            Some(self.records.clone()),
        )
        .unwrap();
        let (running, stop) = (acme.clone(), self.stop.clone());
        self.tasks.spawn(async move { running.run(stop).await });
        acme
    }

    fn kept(&self, name: &str) -> PathBuf {
        let below = format!("127.0.0.1-{}-dir", self.acme.port());
        self.folder.path().join("acme").join(below).join(name)
    }

    /// The account that is kept.
    fn account(&self) -> String {
        let json = fs::read_to_string(self.kept("account.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["id"].as_str().unwrap().to_owned()
    }

    async fn restart_pebble(&mut self) {
        self.pebble.kill().await.unwrap();
        self.pebble = pebble(&self.folder, self.acme, self.http, self.dns);
        listening(self.acme).await;
    }

    async fn ended(mut self) {
        self.stop.cancel();
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await.unwrap() {
            ended.unwrap();
        }
        self.pebble.kill().await.unwrap();
        self.names.kill().await.unwrap();
    }
}

fn pebble(folder: &TempDir, acme: SocketAddr, http: u16, dns: SocketAddr) -> Child {
    let config = folder.path().join("pebble.json");
    let json = serde_json::json!({ "pebble": {
        "listenAddress": acme,
        "managementListenAddress": "",
        "certificate": folder.path().join("root.pem"),
        "privateKey": folder.path().join("root.key"),
        "httpPort": http,
        "tlsPort": 1,
    }});
    fs::write(&config, json.to_string()).unwrap();
    let mut command = Command::new("pebble");
    command.arg("-config").arg(config).arg("-dnsserver").arg(dns.to_string());
    // It does not make us wait, it forgets what was proved, and one in twenty times it refuses at first, as it may.
    start(
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .envs([("PEBBLE_AUTHZREUSE", "0"), ("PEBBLE_WFE_NONCEREJECT", "5")]),
    )
}

fn start(command: &mut Command) -> Child {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.kill_on_drop(true).spawn().unwrap_or_else(|err| {
        panic!("pebble does not start ({err}); Debian's package for it is called pebble")
    })
}

/// An address that is free now, for TCP and UDP.
async fn free() -> SocketAddr {
    loop {
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        if UdpSocket::bind(addr).await.is_ok() {
            return addr;
        }
    }
}

async fn listening(addr: SocketAddr) {
    let wait = async {
        while TcpStream::connect(addr).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("nobody listens at {addr}"));
}

/// Sets records at the name servers.
#[derive(Debug)]
struct Records {
    management: SocketAddr,
    added: AtomicU32,
}

impl Records {
    async fn post(&self, path: &str, body: serde_json::Value) -> Result<(), TxtError> {
        let mut stream = TcpStream::connect(self.management).await?;
        let (body, len) = (body.to_string(), body.to_string().len());
        let head = format!("POST {path} HTTP/1.0\r\ncontent-length: {len}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.contains(" 200 ") { Ok(()) } else { Err(answer.into()) }
    }
}

impl TxtRecords for Records {
    fn add<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<(), TxtError>> {
        self.added.fetch_add(1, Ordering::SeqCst);
        let body = serde_json::json!({ "host": format!("{name}."), "value": value });
        Box::pin(self.post("/set-txt", body))
    }

    fn remove<'a>(&'a self, name: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), TxtError>> {
        self.added.fetch_sub(1, Ordering::SeqCst);
        Box::pin(self.post("/clear-txt", serde_json::json!({ "host": format!("{name}.") })))
    }
}

fn hosts(hosts: &[(&str, Proof)]) -> BTreeMap<String, Want> {
    let want = |proof: &Proof| Want { proof: *proof, of: "me".to_owned(), whose: "me".to_owned() };
    hosts.iter().map(|(host, proof)| ((*host).to_owned(), want(proof))).collect()
}

/// How it stands with a host, once it is as it should be.
async fn until(acme: &Acme, host: &str, as_expected: impl Fn(&Status) -> bool) -> Status {
    let wait = async {
        loop {
            if let Some(status) = acme.statuses().remove(host)
                && as_expected(&status)
            {
                return status;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let all = || acme.statuses();
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not as expected: {:?}", all()))
}

#[tokio::test]
async fn hosts_are_proved_over_http_and_by_dns() {
    let mut stage = Stage::new().await;
    let acme = stage.run(QUICK);
    let all = ["a.example", "b.example", "c.example", "*.c.example"];
    let [a, b, c, wild] = all;
    acme.want(hosts(&[
        (a, Proof::Http01),
        (b, Proof::Http01),
        (c, Proof::Dns01),
        (wild, Proof::Dns01),
    ]));
    for host in all {
        let status = until(&acme, host, |status| status.expires.is_some()).await;
        assert_eq!((status.failures, status.error), (0, None), "{host}");
        let certificate = stage.certificates.get(host).unwrap();
        assert!(certificate.covers(host), "{host}");
        // Not before the last third of its life, give or take.
        let life = certificate.expires().duration_since(certificate.begins()).unwrap();
        let next = status.next.unwrap().duration_since(certificate.begins()).unwrap();
        assert!(next > life.mul_f64(0.6) && next < life.mul_f64(0.73), "{host}: {next:?}");
    }
    assert!(stage.certificates.get("any.c.example").is_some_and(|c| c.covers("any.c.example")));
    // Nothing is left of the proofs.
    assert_eq!(stage.records.added.load(Ordering::SeqCst), 0);
    assert_eq!(format!("{:?}", stage.challenges), format!("{:?}", Challenges::default()));
    // Keys are for their owner alone.
    for (name, mode) in [
        ("", 0o40_700),
        ("account.json", 0o100_600),
        ("a.example~me.pem", 0o100_600),
        ("_wildcard.c.example~me.pem", 0o100_600),
    ] {
        let kept = fs::metadata(stage.kept(name)).unwrap();
        assert_eq!(kept.permissions().mode(), mode, "{name}");
    }
    stage.ended().await;
}

#[tokio::test]
async fn certificates_are_kept_for_those_who_come_back() {
    let mut stage = Stage::new().await;
    let acme = stage.run(QUICK);
    let wanted = hosts(&[("a.example", Proof::Http01)]);
    acme.want(wanted.clone());
    let expires = until(&acme, "a.example", |status| status.expires.is_some()).await.expires;
    acme.want(BTreeMap::new());
    let gone = async {
        while stage.certificates.get("a.example").is_some() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
    assert!(acme.statuses().is_empty());
    let kept = fs::read(stage.kept("a.example~me.pem")).unwrap();

    // Also without the authority, and after a restart.
    stage.pebble.kill().await.unwrap();
    acme.want(wanted.clone());
    assert_eq!(until(&acme, "a.example", |status| !status.ordering).await.expires, expires);
    stage.certificates = Certificates::default();
    let again = stage.run(QUICK);
    again.want(wanted);
    assert_eq!(until(&again, "a.example", |status| !status.ordering).await.expires, expires);
    assert!(stage.certificates.get("a.example").is_some());
    assert_eq!(fs::read(stage.kept("a.example~me.pem")).unwrap(), kept);

    // Whoever has the host next has it proved anew.
    let mut theirs = hosts(&[("a.example", Proof::Http01)]);
    for want in theirs.values_mut() {
        want.whose = "you".to_owned();
    }
    again.want(theirs);
    let status = until(&again, "a.example", |status| status.failures > 0).await;
    assert_eq!(status.expires, None);
    assert!(stage.certificates.get("a.example").is_none());
    stage.ended().await;
}

#[tokio::test]
async fn certificates_are_renewed_and_accounts_too_when_they_are_gone() {
    let mut stage = Stage::new().await;
    // All of its life is the last part of it.
    let renewed = stage.run(Pace { left: 1.5, ..QUICK });
    renewed.want(hosts(&[("a.example", Proof::Http01)]));
    until(&renewed, "a.example", |status| status.expires.is_some()).await;
    let (account, first) = (stage.account(), fs::read(stage.kept("a.example~me.pem")).unwrap());
    let changed = async |stage: &Stage, before: &[u8]| {
        let wait = async {
            loop {
                let kept = fs::read(stage.kept("a.example~me.pem")).unwrap();
                if kept != before {
                    return kept;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap()
    };
    let second = changed(&stage, &first).await;
    assert_eq!(stage.account(), account);
    // This one knows nothing of what the one before it did.
    stage.restart_pebble().await;
    let known = fs::read(stage.kept("account.json")).unwrap();
    changed(&stage, &second).await;
    let other = async {
        while fs::read(stage.kept("account.json")).ok().is_none_or(|kept| kept == known) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, other).await.unwrap();
    stage.ended().await;
}

#[tokio::test]
async fn what_fails_is_told_and_tried_again() {
    let mut stage = Stage::new().await;
    let acme = stage.run(QUICK);
    // Nobody answers for this one: what the ingress would answer is another host's.
    let lost = Challenges::default();
    let shown = std::mem::replace(&mut stage.challenges, lost);
    let blind = stage.run(QUICK);
    blind.want(hosts(&[
        ("a.example", Proof::Http01),
        ("*.a.example", Proof::Http01),
        ("../a.example", Proof::Http01),
    ]));
    let status = until(&blind, "a.example", |status| status.failures > 1).await;
    let error = status.error.unwrap();
    let expected = "the certificate authority did not find the proof for a.example: ";
    assert!(error.starts_with(expected) && error.contains("404"), "{error}");
    assert_eq!(status.expires, None);
    for (host, error) in [
        ("*.a.example", "a wildcard can be proved by DNS only"),
        ("../a.example", "\"../a.example\" is not a host that can have a certificate"),
    ] {
        let status = until(&blind, host, |status| status.error.is_some()).await;
        assert_eq!((status.error.as_deref(), status.next), (Some(error), None));
    }
    // By DNS it can.
    blind.want(hosts(&[("*.a.example", Proof::Dns01)]));
    until(&blind, "*.a.example", |status| status.expires.is_some()).await;

    // One that fails does not keep the others from theirs, and an authority that is gone may come back.
    stage.challenges = shown;
    stage.pebble.kill().await.unwrap();
    acme.want(hosts(&[("b.example", Proof::Http01)]));
    let status = until(&acme, "b.example", |status| status.failures > 0).await;
    let error = status.error.unwrap();
    assert!(error.starts_with("the account with the certificate authority"), "{error}");
    stage.restart_pebble().await;
    until(&acme, "b.example", |status| status.expires.is_some()).await;
    stage.ended().await;
}

#[tokio::test]
async fn what_is_due_beyond_the_bounds_waits() {
    let mut stage = Stage::new().await;
    let acme = stage.run(Pace { daily: 1, ..QUICK });
    acme.want(hosts(&[("a.example", Proof::Http01), ("b.example", Proof::Http01)]));
    until(&acme, "a.example", |status| status.expires.is_some()).await;
    let status = until(&acme, "b.example", |status| status.error.is_some()).await;
    let error = "as many certificates were ordered lately as are allowed";
    assert_eq!((status.expires, status.error.as_deref()), (None, Some(error)));
    let rest = status.next.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(rest > Duration::from_secs(23 * 60 * 60), "{rest:?}");
    // Another has orders of its own.
    let mut wanted = hosts(&[("a.example", Proof::Http01)]);
    let (of, whose) = ("you".to_owned(), "you".to_owned());
    wanted.insert("c.example".to_owned(), Want { proof: Proof::Http01, of, whose });
    acme.want(wanted);
    until(&acme, "c.example", |status| status.expires.is_some()).await;
    stage.ended().await;
}

#[tokio::test]
async fn hosts_that_always_fail_do_not_keep_others_from_their_orders() {
    let folder = tempfile::tempdir().unwrap();
    let acme = Acme::with_pace(
        Pace { hourly: 3, ..QUICK },
        Authority { directory: "https://ca.example/dir".into(), contact: Vec::new(), root: None },
        folder.path().to_owned(),
        Certificates::default(),
        Challenges::default(),
        None,
    )
    .unwrap();
    let names = ["a.example", "b.example", "c.example", "d.example", "e.example"];
    acme.0.adopt(&hosts(&names.map(|host| (host, Proof::Http01)))).await;
    let now = SystemTime::now();
    for (host, failures, since) in [
        ("a.example", 7, 9),
        ("b.example", 1, 1),
        ("c.example", 0, 2),
        ("d.example", 0, 3),
        ("e.example", 1, 2),
    ] {
        let mut all = acme.0.hosts();
        let status = &mut all.get_mut(host).unwrap().status;
        (status.failures, status.next) = (failures, Some(now - Duration::from_secs(since)));
    }
    let order = |now: SystemTime| -> Vec<String> {
        acme.0.due(now).0.into_iter().map(|(host, _want)| host).collect()
    };
    assert_eq!(order(now), ["d.example", "c.example", "e.example"]);
    assert_eq!(order(now + Duration::from_secs(60 * 60)), ["b.example", "a.example"]);
}
