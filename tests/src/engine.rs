//! A Docker engine of a story's own, on a network of its own: what happens to it happens to nobody else.
//!
//! Between the two networks there is one cable. At its outer end is, besides the story's side of the cable, an address
//! that stands for the world; inside there is one that stands for a cloud's metadata service.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

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
    process::{bound, call},
    remains::Remains,
    wait::until,
};

/// An address of the world: one that documentation may use (RFC 5737), so that it is nobody's.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Where clouds answer what machines should not tell their tenants.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// An engine that is a child of this process.
#[derive(Debug)]
pub struct Engine {
    child: Option<Child>,
    /// Its socket, its pid file and its run folder: short paths, as sockets want them.
    run: PathBuf,
    data: PathBuf,
    pub(crate) netns: String,
    /// The story's end of the cable.
    pub outside: Ipv4Addr,
    /// The engine's end of the cable.
    pub inside: Ipv4Addr,
}

impl Engine {
    pub(crate) async fn start(remains: &mut Remains, daemon: &str) -> anyhow::Result<Self> {
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
        let data = remains.folder.join("engine");
        let mut engine = Self { child: None, run, data, netns, outside, inside };
        engine.up().await?;
        Ok(engine)
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
            .args(["dockerd", "--data-root"])
            .arg(&self.data)
            .arg("--exec-root")
            .arg(self.run.join("x"))
            .arg("--pidfile")
            .arg(self.pid_file())
            .args(["--host", &self.host()])
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
