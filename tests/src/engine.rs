//! A Docker engine of a story's own, on a network of its own: what happens to it happens to nobody else.
//!
//! Between the two networks there is one cable. At its outer end is, besides the story's side of the cable, an address
//! that stands for the world; inside there is one that stands for a cloud's metadata service.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use bollard::models::{SwarmInitRequest, SwarmJoinRequest};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    docker::Docker,
    pod,
    process::{bound, call, roadstead, run},
    remains::Remains,
    wait::until,
};

/// An address of the world: one that documentation may use (RFC 5737), so that it is nobody's.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Where clouds answer what machines should not tell their tenants.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The port at which an engine listens for others than its own machine.
const REMOTE: u16 = 2_376;

/// The name of the cable between two machines of a swarm, at both ends.
const CABLE: &str = "swarm0";

/// An engine that is a child of this process.
#[derive(Debug)]
pub struct Engine {
    child: Option<Child>,
    /// Its socket, its pid file and its run folder: short paths, as sockets want them.
    run: PathBuf,
    data: PathBuf,
    pub(crate) netns: String,
    /// Where it listens on the cable to the other machine, with the folder of a client's certificate; if it does.
    remote: Option<(String, PathBuf)>,
    /// The host name of its machine.
    pub name: String,
    /// The story's end of the cable.
    pub outside: Ipv4Addr,
    /// The engine's end of the cable.
    pub inside: Ipv4Addr,
}

impl Engine {
    pub(crate) async fn start(
        remains: &mut Remains,
        name: &str,
        daemon: &str,
        open_at: Option<Ipv4Addr>,
    ) -> anyhow::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let netns = format!("rstest-{process}-{count}");
        // An interface's name has at most 15 characters, and must not look like a pod's bridge.
        let (cable, end) = (format!("rt{process}-{count}"), format!("rx{process}-{count}"));
        // A /30 out of 100.64.0.0/10: no two engines that run at a time have the same.
        let number = process.wrapping_mul(4).wrapping_add(count) % (1 << 14);
        let base = u32::from(Ipv4Addr::new(100, 100, 0, 0)) + (number << 2);
        let (outside, inside) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        remains.add_netns(&netns)?;
        let run = tempfile::Builder::new().prefix("rstest-").tempdir()?.keep();
        remains.add_folder(&run)?;
        std::fs::write(run.join("daemon.json"), daemon)?;

        call("ip", &["netns", "add", &netns]).await?;
        call("ip", &["link", "add", &cable, "type", "veth", "peer", "name", &end, "netns", &netns])
            .await?;
        for at in [format!("{outside}/30"), format!("{WORLD}/32")] {
            call("ip", &["address", "add", &at, "dev", &cable]).await?;
        }
        call("ip", &["link", "set", &cable, "up"]).await?;
        let within = async |args: &str| {
            let args: Vec<&str> = ["-n", &netns].into_iter().chain(args.split(' ')).collect();
            call("ip", &args).await
        };
        within("link set lo up").await?;
        within(&format!("address add {METADATA}/32 dev lo")).await?;
        within(&format!("address add {inside}/30 dev {end}")).await?;
        within(&format!("link set {end} up")).await?;
        within(&format!("route add default via {outside}")).await?;
        let (data, name) = (remains.folder.join(name), name.to_owned());
        let remote = open_at.map(|address| certify(&run, address)).transpose()?;
        let mut engine = Self { child: None, run, data, netns, name, remote, outside, inside };
        engine.up().await?;
        Ok(engine)
    }

    /// The address of this machine, or of the other one, on the cable between them.
    pub(crate) fn on_cable(&self, other: bool) -> Ipv4Addr {
        let near = u32::from(self.inside) + (1 << 16);
        Ipv4Addr::from(if other { near ^ 3 } else { near })
    }

    /// What a provider's file has to say of it.
    pub(crate) fn table(&self, address: Ipv4Addr) -> String {
        let engine = match &self.remote {
            Some((host, folder)) => format!("docker = {host:?}\ntls = {folder:?}"),
            None => format!("docker = {:?}", self.host()),
        };
        format!("[[node]]\nname = {:?}\n{engine}\naddress = \"{address}\"\n", self.name)
    }

    /// Makes one swarm of two engines, with a cable between their machines; the address of each on it.
    pub(crate) async fn join(&self, other: &Self) -> anyhow::Result<[Ipv4Addr; 2]> {
        let ends = [(self, self.on_cable(false)), (other, self.on_cable(true))];
        let cable = ["link", "add", CABLE, "netns", &self.netns, "type", "veth"];
        let peer = ["peer", "name", CABLE, "netns", &other.netns];
        call("ip", &[&cable[..], &peer[..]].concat()).await?;
        for (end, address) in ends {
            let at = format!("{address}/30");
            call("ip", &["-n", &end.netns, "address", "add", &at, "dev", CABLE]).await?;
            call("ip", &["-n", &end.netns, "link", "set", CABLE, "up"]).await?;
        }
        let [(_, here), (_, there)] = ends;
        let manager = Docker::connect(Some(&self.host())).await?.0;
        let at = |address: Ipv4Addr| Some(format!("{address}:2377"));
        let init = SwarmInitRequest {
            listen_addr: at(here),
            advertise_addr: at(here),
            ..SwarmInitRequest::default()
        };
        manager.init_swarm(init).await?;
        let token = manager.inspect_swarm().await?.join_tokens.and_then(|tokens| tokens.worker);
        let worker = Docker::connect(Some(&other.host())).await?.0;
        let join = SwarmJoinRequest {
            listen_addr: at(there),
            advertise_addr: at(there),
            remote_addrs: Some(at(here).into_iter().collect()),
            join_token: token,
            ..SwarmJoinRequest::default()
        };
        worker.join_swarm(join).await?;
        Ok([here, there])
    }

    /// Takes the cable to the other machine of its swarm away, or gives it back.
    ///
    /// # Errors
    /// When it has none.
    pub async fn cut(&self, cut: bool) -> anyhow::Result<()> {
        let state = if cut { "down" } else { "up" };
        call("ip", &["-n", &self.netns, "link", "set", CABLE, state]).await.map(drop)
    }

    /// Runs the program under test on its machine.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = roadstead()?;
        run(bound(Some(&self.netns), &program).args(args)).await
    }

    /// Where it listens, as `DOCKER_HOST` wants it.
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.run.display())
    }

    /// The file that has its process's number.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("docker.pid")
    }

    /// Starts it, or starts it again.
    ///
    /// # Errors
    /// When it does not come to answer.
    pub async fn up(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.with_extension("log"))?;
        // It outlives this process if that is killed: what clears away afterwards needs it.
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .args(["unshare", "--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", &self.name])
            .args(["dockerd", "--data-root"])
            .arg(&self.data)
            .arg("--exec-root")
            .arg(self.run.join("x"))
            .arg("--pidfile")
            .arg(self.pid_file())
            .args(["--host", &self.host()])
            .args(self.remote.iter().flat_map(|(_, folder)| {
                let file = |name: &str| folder.join(name).display().to_string();
                let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
                let listen = format!("--host=tcp://0.0.0.0:{REMOTE}");
                let files = [("cacert", ca), ("cert", cert), ("key", key)];
                let files = files.map(|(name, file)| format!("--tls{name}={file}"));
                [listen, "--tlsverify".into()].into_iter().chain(files)
            }))
            .arg("--config-file")
            .arg(self.run.join("daemon.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let host = self.host();
        let answers = async || Ok(Some(Docker::connect(Some(&host)).await?));
        until("the engine answers", answers).await?;
        Ok(())
    }

    /// Takes the rules away that keep pods in.
    ///
    /// # Errors
    /// When they stay.
    pub async fn open_fence(&self) -> anyhow::Result<()> {
        let net = format!("--net=/run/netns/{}", self.netns);
        for chain in ["INPUT", "DOCKER-USER"] {
            call("nsenter", &[&net, "iptables", "-w", "-F", chain]).await?;
        }
        Ok(())
    }

    /// The rules for packets on its machine.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn rules(&self) -> anyhow::Result<String> {
        let net = format!("--net=/run/netns/{}", self.netns);
        call("nsenter", &[&net, "iptables", "-w", "-S"]).await
    }

    /// Takes all rules away, as a restart of the machine does.
    pub(crate) async fn forget_rules(&self) -> anyhow::Result<()> {
        let net = format!("--net=/run/netns/{}", self.netns);
        for what in ["-F", "-X"] {
            call("nsenter", &[&net, "iptables", "-w", what]).await?;
        }
        Ok(())
    }

    /// Has packets counted that leave its machine for these addresses. None of them gets farther.
    ///
    /// # Errors
    /// When they cannot be.
    pub async fn count(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
        let net = format!("--net=/run/netns/{}", self.netns);
        for address in addresses {
            let rule = ["-t", "mangle", "-A", "POSTROUTING", "-d", &address.to_string(), "-j"];
            let args = [&[net.as_str(), "iptables", "-w"], &rule[..], &["DROP"]].concat();
            call("nsenter", &args).await?;
        }
        Ok(())
    }

    /// How many packets have left for each of the addresses that are counted, in their order.
    ///
    /// # Errors
    /// When the rules cannot be read.
    pub async fn counted(&self) -> anyhow::Result<Vec<u64>> {
        let net = format!("--net=/run/netns/{}", self.netns);
        let args = [&net, "iptables", "-w", "-t", "mangle", "-v", "-S", "POSTROUTING"];
        let rules = call("nsenter", &args).await?;
        let counts = rules.lines().filter(|rule| rule.starts_with("-A "));
        let counts = counts.filter_map(|rule| rule.split_once(" -c ")?.1.split(' ').next());
        Ok(counts.map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Takes connections on `port` of every address of the engine's machine; returns the port.
    ///
    /// # Errors
    /// When nobody comes to listen there.
    pub async fn listen(&self, port: u16) -> anyhow::Result<u16> {
        let program = pod::program().await?;
        // It ends with what else names the run folder.
        let listener = self.run.join("listener");
        std::fs::copy(program, &listener)?;
        let log = std::fs::File::create(self.data.with_extension("listener"))?;
        let _child = bound(Some(&self.netns), &listener)
            .args(["serve", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log)
            .kill_on_drop(false)
            .spawn()?;
        let listens = async || Ok(Some(TcpStream::connect((self.inside, port)).await?));
        until("the machine listens", listens).await?;
        Ok(port)
    }

    /// Stops it as the system does, which stops all containers.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn down(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            kill(Pid::from_raw(pid.try_into()?), Signal::SIGTERM)?;
        }
        child.wait().await?;
        Ok(())
    }
}

/// Certificates for an engine at `address` and for who may use it, in a folder; where it is then to be found.
fn certify(run: &Path, address: Ipv4Addr) -> anyhow::Result<(String, PathBuf)> {
    let folder = run.join("tls");
    std::fs::create_dir_all(&folder)?;
    let mut root = rcgen::CertificateParams::new(Vec::new())?;
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_key = rcgen::KeyPair::generate()?;
    std::fs::write(folder.join("ca.pem"), root.self_signed(&root_key)?.pem())?;
    let key = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(vec![address.to_string()])?;
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(root, root_key))?;
    std::fs::write(folder.join("cert.pem"), leaf.pem())?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok((format!("tcp://{address}:{REMOTE}"), folder))
}
