//! What a request costs here, beside nginx: `cargo bench -p edge`. It prints figures and judges nothing.
//!
//! Both stand in turn before the same backend, which is another nginx that answers with 1 KiB, and pass on what 64
//! connections ask, each one request after the other. Both run with one worker, keep their connections to the backend,
//! and write no access log. What is measured is the time on a CPU that the kernel accounts to the proxy's threads while
//! the requests run, after a warm-up, divided by their number; and how long requests take, as seen by who asks. The two
//! alternate for some rounds, so that whatever else the machine does meets both; what is printed is the median and, in
//! brackets, the least and the most. Three ways: HTTP/1.1 without TLS, with it, and a new TLS connection per request.

#![allow(clippy::unwrap_used, reason = "who runs this is told what failed by the panic")]

use std::{
    collections::HashMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edge::{Backend, Certificate, Certificates, Ingress, Routes};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const HOST: &str = "app.example";
const BODY: usize = 1_024;
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    Handshakes,
}

impl Way {
    const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Handshakes];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1",
            Self::Tls => "HTTP/1.1 with TLS",
            Self::Handshakes => "a TLS connection each",
        }
    }

    fn requests(self) -> usize {
        match self {
            Self::Plain | Self::Tls => 40_000,
            Self::Handshakes => 2_000,
        }
    }
}

/// What was measured in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    cpu_micros: f64,
    p50_micros: f64,
    p99_micros: f64,
}

fn main() {
    let args: Vec<_> = env::args().collect();
    if let [_, role, plain, tls, backend, folder] = &*args
        && role == "serve"
    {
        let addrs = [plain, tls, backend].map(|addr| addr.parse().unwrap());
        return Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
            .block_on(serve(addrs, Path::new(folder)));
    }
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        eprintln!(
            "SKIPPED: there is no nginx here to compare with; Debian's package nginx-light has it."
        );
        return;
    }
    Builder::new_multi_thread().enable_all().build().unwrap().block_on(compare());
}

/// Our side, as a process of its own.
async fn serve([plain, tls, backend]: [SocketAddr; 3], folder: &Path) {
    let routes = Routes::default();
    routes.set(HashMap::from([(HOST.to_owned(), Backend::Addrs(vec![backend]))]));
    let (chain, key) = (folder.join("own.pem"), folder.join("own.key"));
    let own = Certificate::from_pem(&fs::read(chain).unwrap(), &fs::read(key).unwrap()).unwrap();
    let certificates = Certificates::default();
    certificates.set(HashMap::from([(HOST.to_owned(), own)]));
    let ingress = Ingress::new(routes);
    let (plain, tls) = (TcpListener::bind(plain).await, TcpListener::bind(tls).await);
    let stop = CancellationToken::new();
    let http = ingress.clone().http(plain.unwrap(), stop.clone());
    let https = ingress.https(tls.unwrap(), &certificates, stop);
    tokio::try_join!(http, https).unwrap();
}

async fn compare() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new([HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("own.pem"), own.pem()).unwrap();
    fs::write(folder.path().join("own.key"), key.serialize_pem()).unwrap();

    let backend = free().await;
    let answer = format!("listen {backend}; return 200 {};", "a".repeat(BODY));
    let _backend = nginx(folder.path(), "backend", &answer);
    let theirs = Proxy::nginx(folder.path(), backend).await;
    let ours = Proxy::ours(folder.path(), backend).await;
    for addr in [backend, theirs.plain, theirs.tls, ours.plain, ours.tls] {
        while TcpStream::connect(addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    println!("{ROUNDS} rounds, {CONNECTIONS} connections, 1 KiB: median (least-most)");
    for way in Way::ALL {
        let mut rounds: [Vec<Figures>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (proxy, rounds) in [&ours, &theirs].into_iter().zip(&mut rounds) {
                rounds.push(measure(proxy, way, folder.path()).await);
            }
        }
        println!("\n{}, {} requests a round", way.name(), way.requests());
        let [ours, theirs] = rounds;
        for (name, rounds) in [("edge", &ours), ("nginx", &theirs)] {
            println!(
                "  {name:5}  CPU per request {} µs   p50 {} µs   p99 {} µs",
                spread(rounds, |figures| figures.cpu_micros),
                spread(rounds, |figures| figures.p50_micros),
                spread(rounds, |figures| figures.p99_micros),
            );
        }
        let cpu = |rounds: &[Figures]| sorted(rounds, |figures| figures.cpu_micros)[ROUNDS / 2];
        println!("  CPU beside nginx: {:.2}", cpu(&ours) / cpu(&theirs));
    }
}

fn sorted(rounds: &[Figures], of: impl Fn(&Figures) -> f64) -> Vec<f64> {
    let mut all: Vec<_> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all
}

fn spread(rounds: &[Figures], of: impl Fn(&Figures) -> f64) -> String {
    let all = sorted(rounds, of);
    format!("{:7.1} ({:.1}-{:.1})", all[ROUNDS / 2], all[0], all[ROUNDS - 1])
}

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What stands before the backend.
struct Proxy {
    process: Process,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Proxy {
    async fn nginx(folder: &Path, backend: SocketAddr) -> Self {
        let (plain, tls) = (free().await, free().await);
        let server = format!(
            "listen {plain}; listen {tls} ssl;
            ssl_certificate {folder}/own.pem; ssl_certificate_key {folder}/own.key;
            location / {{
                proxy_pass http://backend; proxy_http_version 1.1;
                proxy_set_header Connection ''; proxy_set_header Host $host;
                proxy_set_header X-Forwarded-For $remote_addr;
                proxy_set_header X-Forwarded-Host $host;
                proxy_set_header X-Forwarded-Proto $scheme;
            }} }}
            upstream backend {{ server {backend}; keepalive {CONNECTIONS}; keepalive_requests 1000000000;",
            folder = folder.display(),
        );
        Self { process: nginx(folder, "proxy", &server), plain, tls }
    }

    async fn ours(folder: &Path, backend: SocketAddr) -> Self {
        let (plain, tls) = (free().await, free().await);
        let child = Command::new(env::current_exe().unwrap())
            .arg("serve")
            .args([plain, tls, backend].map(|addr| addr.to_string()))
            .arg(folder)
            .spawn()
            .unwrap();
        Self { process: Process(child), plain, tls }
    }

    /// The time that its threads have had on a CPU.
    fn cpu(&self) -> Duration {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.process.0.id()));
        let nanos = |task: fs::DirEntry| -> u64 {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap();
            stat.split(' ').next().unwrap().parse().unwrap()
        };
        Duration::from_nanos(fs::read_dir(tasks).unwrap().map(|task| nanos(task.unwrap())).sum())
    }
}

/// An nginx of one process, with this server.
fn nginx(folder: &Path, name: &str, server: &str) -> Process {
    let config = folder.join(name);
    let folder = folder.display();
    let text = format!(
        "daemon off; master_process off; pid {folder}/{name}.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; keepalive_requests 1000000000;
            client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
            uwsgi_temp_path {folder}; scgi_temp_path {folder};
            server {{ {server} }}
        }}"
    );
    fs::write(&config, text).unwrap();
    Process(Command::new("nginx").arg("-c").arg(config).spawn().unwrap())
}

async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn measure(proxy: &Proxy, way: Way, folder: &Path) -> Figures {
    let client = Client::new(proxy, way, folder);
    client.run(way.requests() / 10).await;
    let before = proxy.cpu();
    let mut took = client.run(way.requests()).await;
    let cpu = proxy.cpu() - before;
    took.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Figures {
        cpu_micros: micros(cpu) / f64::from(u32::try_from(took.len()).unwrap()),
        p50_micros: micros(took[took.len() / 2]),
        p99_micros: micros(took[took.len() * 99 / 100]),
    }
}

/// Who asks.
#[derive(Clone)]
struct Client {
    addr: SocketAddr,
    way: Way,
    tls: TlsConnector,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Client {
    fn new(proxy: &Proxy, way: Way, folder: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("own.pem")).unwrap()).unwrap();
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Each handshake is to be a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        let addr = if way == Way::Plain { proxy.plain } else { proxy.tls };
        Self { addr, way, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// So many requests over all connections, and how long each took.
    async fn run(&self, requests: usize) -> Vec<Duration> {
        let left = Arc::new(AtomicUsize::new(requests));
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (client, left) = (self.clone(), Arc::clone(&left));
            connections.spawn(async move { client.ask(&left).await });
        }
        connections.join_all().await.concat()
    }

    async fn ask(&self, left: &AtomicUsize) -> Vec<Duration> {
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        let one = |left: usize| left.checked_sub(1);
        let (mut stream, mut took) = (None, Vec::new());
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok() {
            let began = Instant::now();
            if stream.is_none() || self.way == Way::Handshakes {
                stream = Some(self.connect().await);
            }
            let stream = stream.as_mut().unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            answer(stream).await;
            took.push(began.elapsed());
        }
        took
    }

    async fn connect(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match self.way {
            Way::Plain => Box::new(stream),
            Way::Tls | Way::Handshakes => {
                let host = ServerName::try_from(HOST).unwrap();
                Box::new(self.tls.connect(host, stream).await.unwrap())
            }
        }
    }
}

/// Reads an answer, and nothing behind it.
async fn answer(stream: &mut (impl AsyncRead + Unpin + ?Sized)) {
    let (mut bytes, mut len) = ([0; 4_096], 0);
    loop {
        let read = stream.read(&mut bytes[len..]).await.unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&bytes[..len]));
        len += read;
        let end = bytes[..len].windows(4).position(|end| end == b"\r\n\r\n");
        if end.is_some_and(|head| len == head + 4 + BODY) {
            return assert!(bytes.starts_with(b"HTTP/1.1 200"));
        }
    }
}
