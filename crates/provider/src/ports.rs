//! Public TCP and UDP ports: which of the provider's numbers is whose, and where each leads.
//!
//! Whoever opens a lease takes at most [`PUBLIC_PORTS`](protocol::pod::limits::PUBLIC_PORTS) numbers, for as long as the
//! lease is there, and as many again while it changes from one pod to another; that is the worst that it can do to others,
//! who are refused by quotes once there are none. Whoever sends to a port takes files of this process: all ports of a lease
//! have [`PLACES`] connections and sessions together, beside a socket for each port.
//!
//! A number is written down before anybody is told of it, so it is the same after a restart. It belongs to a service and
//! its port, whatever pod the lease runs, and to TCP and UDP alike: a name server has one number for both.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use alloy::primitives::B256;
use edge::forward::{Places, Target, TcpLimits, UdpLimits, tcp, udp};
use protocol::pod::{Label, Pod, Port, Transport};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{config, house, leases::PodKey, wire::PublicPort};

/// How many connections and UDP sessions the ports of a lease have together. A connection takes two files, a session one.
const PLACES: usize = 1_024;

/// What a TCP port takes: one connection more than all have together, so that the one too many is closed at once and does
/// not wait unheard.
fn tcp_limits() -> TcpLimits {
    TcpLimits { connections: PLACES + 1, ..TcpLimits::default() }
}

/// Whose a number is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    lease: u64,
    opening: B256,
    service: Label,
    port: u16,
}

impl Owner {
    fn new(key: PodKey, service: &Label, port: Port) -> Self {
        let PodKey { lease, opening } = key;
        Self { lease, opening, service: service.clone(), port: port.number.get() }
    }

    fn key(&self) -> PodKey {
        PodKey { lease: self.lease, opening: self.opening }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    owner: Owner,
    number: u16,
}

/// What a pass wants of the ports.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The ports that are open, and where they lead; with none, connections are closed at once.
    open: BTreeMap<(Owner, Transport), Option<SocketAddr>>,
    /// What keeps its number though it is not open.
    reserved: BTreeSet<Owner>,
    /// Leases all of whose numbers stay.
    kept: BTreeSet<PodKey>,
    /// Leases of which too little could be read: all stays as it is.
    unread: BTreeSet<PodKey>,
}

impl Wanted {
    /// A port that is open.
    pub(crate) fn open(
        &mut self,
        key: PodKey,
        service: &Label,
        port: Port,
        to: Option<SocketAddr>,
    ) {
        self.open.insert((Owner::new(key, service, port), port.transport), to);
    }

    /// The numbers of a pod's ports stay its own.
    pub(crate) fn reserve(&mut self, key: PodKey, pod: &Pod) {
        let ports = pod.public_ports();
        self.reserved.extend(ports.map(|(service, port)| Owner::new(key, service, port)));
    }

    /// The numbers of a lease stay its own, and what is not said to be open is closed.
    pub(crate) fn keep(&mut self, key: PodKey) {
        self.kept.insert(key);
    }

    /// Nothing that a lease has changes.
    pub(crate) fn leave(&mut self, key: PodKey) {
        self.kept.insert(key);
        self.unread.insert(key);
    }
}

/// The public ports of a provider.
#[derive(Debug)]
pub(crate) struct Ports {
    config: Option<config::Ports>,
    file: PathBuf,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    numbers: BTreeMap<Owner, u16>,
    /// Whether the file has other numbers.
    changed: bool,
    /// Where to look for the next free one, so that a number that was given back rests.
    next: usize,
    open: BTreeMap<(Owner, Transport), Open>,
    /// Why those are not open that should be.
    missing: BTreeMap<Owner, String>,
    places: BTreeMap<PodKey, Places>,
    tasks: JoinSet<Ended>,
    tasks_so_far: u64,
}

/// A task that has ended: of which port, and which task it was.
type Ended = ((Owner, Transport), u64);

#[derive(Debug)]
struct Open {
    task: u64,
    target: Target,
    stop: CancellationToken,
}

/// A socket that a port listens with.
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Why a pod's public ports cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortsError {
    #[error(
        "services.{service}.ports: {port} would be public, and this provider has no public ports; lead a host to it (x-roadstead.ingress), list it under expose, or choose another provider"
    )]
    NotOffered { service: Label, port: Port },
    #[error("{needed} public ports are needed and {free} are free here")]
    Full { needed: usize, free: usize },
}

impl Ports {
    /// The numbers that are written down below `data`. What cannot be understood there is as good as lost: then all get
    /// new ones.
    pub(crate) fn open(
        config: Option<config::Ports>,
        data: &Path,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let file = data.join("ports.json");
        let written: Vec<Written> = match std::fs::read(&file) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => serde_json::from_slice(&text?).unwrap_or_else(|err| {
                tracing::warn!(error = %err, "{} is of no use: all public ports get new numbers", file.display());
                Vec::new()
            }),
        };
        let known = |number: &u16| config.as_ref().is_some_and(|c| c.range.contains(number));
        let numbers = written.into_iter().filter(|written| known(&written.number));
        let numbers = numbers.map(|written| (written.owner, written.number)).collect();
        let state = State { numbers, next: rand::random_range(0..1 << 16), ..State::default() };
        Ok(Self { config, file, stop, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are numbers for `pod`, in place of those of the lease that it would change.
    pub(crate) fn fits(&self, pod: &Pod, current: Option<PodKey>) -> Result<(), PortsError> {
        let Some((service, port)) = pod.public_ports().next() else { return Ok(()) };
        let Some(config) = &self.config else {
            return Err(PortsError::NotOffered { service: service.clone(), port });
        };
        let needed: BTreeSet<_> =
            pod.public_ports().map(|(name, port)| (name, port.number)).collect();
        let taken = self.lock().numbers.keys().filter(|owner| Some(owner.key()) != current).count();
        let (needed, free) = (needed.len(), config.range.len().saturating_sub(taken));
        match needed <= free {
            true => Ok(()),
            false => Err(PortsError::Full { needed, free }),
        }
    }

    /// What the payer of a lease that runs `pod` is told of its ports, and of those that it should have and does not.
    pub(crate) fn of(&self, key: PodKey, pod: Option<&Pod>) -> (Vec<PublicPort>, Vec<String>) {
        let Some(config) = &self.config else {
            let refused = pod.and_then(|pod| self.fits(pod, Some(key)).err());
            return (Vec::new(), refused.map(|err| err.to_string()).into_iter().collect());
        };
        let state = self.lock();
        let open = state.open.keys().filter(|(owner, _)| owner.key() == key);
        let told = open.filter_map(|(owner, transport)| {
            let number = state.numbers.get(owner)?;
            let port = Port { number: owner.port.try_into().ok()?, transport: *transport };
            let service = owner.service.to_string();
            Some(PublicPort { address: config.told(*number), port, service })
        });
        let missing = state.missing.iter().filter(|(owner, _why)| owner.key() == key);
        let notes = missing.map(|(owner, why)| {
            format!("services.{}.ports: {} is not public yet: {why}", owner.service, owner.port)
        });
        (told.collect(), notes.collect())
    }

    /// Opens, leads and closes ports as is `wanted`. What cannot be opened is tried again the next time.
    pub(crate) fn set(&self, wanted: &Wanted) {
        let Some(config) = &self.config else { return };
        let mut guard = self.lock();
        let state = &mut *guard;
        while let Some(ended) = state.tasks.try_join_next() {
            // One that was told to end is not there any more, and may have a successor.
            let Ok((port, task)) = ended else { continue };
            if state.open.get(&port).is_some_and(|open| open.task == task) {
                state.open.remove(&port);
            }
        }
        state.open.retain(|port, open| {
            let stays = wanted.open.contains_key(port) || wanted.unread.contains(&port.0.key());
            if !stays {
                open.stop.cancel();
            }
            stays
        });
        let listens: BTreeSet<&Owner> = wanted.open.keys().map(|(owner, _)| owner).collect();
        let before = state.numbers.len();
        state.numbers.retain(|owner, _number| {
            listens.contains(owner)
                || wanted.reserved.contains(owner)
                || wanted.kept.contains(&owner.key())
        });
        state.changed |= state.numbers.len() != before;
        let leases: BTreeSet<PodKey> = state.numbers.keys().map(Owner::key).collect();
        state.places.retain(|key, _places| leases.contains(key));

        let mut sockets = Vec::new();
        let before = std::mem::take(&mut state.missing);
        for owner in listens {
            let transports = [Transport::Tcp, Transport::Udp].into_iter().filter(|transport| {
                let port = (owner.clone(), *transport);
                wanted.open.contains_key(&port) && !state.open.contains_key(&port)
            });
            let transports: Vec<Transport> = transports.collect();
            if !transports.is_empty() {
                match state.sockets(config, owner, &transports) {
                    Ok(found) => {
                        sockets.extend(found.into_iter().map(|socket| (owner.clone(), socket)));
                    }
                    Err(why) => {
                        if before.get(owner) != Some(&why) {
                            let Owner { lease, service, port, .. } = owner;
                            tracing::warn!(
                                lease.id = lease,
                                "{service}:{port} of lease {lease} is not public: {why}"
                            );
                        }
                        state.missing.insert(owner.clone(), why);
                    }
                }
            }
        }
        if state.changed {
            match state.write(&self.file) {
                Ok(()) => state.changed = false,
                // Not opened: after a restart somebody else might have the number.
                Err(err) => {
                    let file = self.file.display();
                    tracing::warn!(error = %err, "{file} was not written; no port is opened");
                    let why = "its number could not be written down";
                    let owners = sockets.drain(..).map(|(owner, _socket)| (owner, why.to_owned()));
                    state.missing.extend(owners);
                }
            }
        }
        for (owner, socket) in sockets {
            state.begin(owner, socket, self.stop.child_token());
        }
        for (port, to) in &wanted.open {
            if let Some(open) = state.open.get(port) {
                open.target.set(*to);
            }
        }
    }

    /// Ends when all ports have, which is some seconds after the stop.
    pub(crate) async fn run(&self) {
        self.stop.cancelled().await;
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        while tasks.join_next().await.is_some() {}
    }
}

impl State {
    /// Binds what is not bound of a port: to its number, or to one that is free and is its own from then on.
    fn sockets(
        &mut self,
        config: &config::Ports,
        owner: &Owner,
        transports: &[Transport],
    ) -> Result<Vec<Socket>, String> {
        let bind = |number: u16| -> io::Result<Vec<Socket>> {
            transports
                .iter()
                .map(|transport| bind((config.listen, number).into(), *transport))
                .collect()
        };
        if let Some(number) = self.numbers.get(owner) {
            return bind(*number)
                .map_err(|err| format!("its number, {number}, cannot be listened on ({err})"));
        }
        let taken: BTreeSet<u16> = self.numbers.values().copied().collect();
        let length = config.range.len();
        for step in 0..length {
            let offset = self.next.wrapping_add(step) % length;
            let Some(number) = config.range.clone().nth(offset) else { break };
            // What another program of the machine has is passed over.
            if !taken.contains(&number)
                && let Ok(sockets) = bind(number)
            {
                self.next = offset + 1;
                self.numbers.insert(owner.clone(), number);
                self.changed = true;
                return Ok(sockets);
            }
        }
        Err("the provider has no free number".into())
    }

    fn begin(&mut self, owner: Owner, socket: Socket, stop: CancellationToken) {
        let places = self.places.entry(owner.key()).or_insert_with(|| Places::new(PLACES));
        let target = Target::within(places);
        self.tasks_so_far += 1;
        let (task, ends, leads) = (self.tasks_so_far, stop.clone(), target.clone());
        let transport = match socket {
            Socket::Tcp(_) => Transport::Tcp,
            Socket::Udp(_) => Transport::Udp,
        };
        let port = (owner, transport);
        self.open.insert(port.clone(), Open { task, target, stop });
        self.tasks.spawn(async move {
            let ended = match socket {
                Socket::Tcp(listener) => tcp(listener, leads, tcp_limits(), ends).await,
                Socket::Udp(socket) => udp(socket, leads, UdpLimits::default(), ends).await,
            };
            if let Err(err) = ended {
                let Owner { lease, service, port, .. } = &port.0;
                tracing::warn!(lease.id = lease, error = %err, "the public port for {service}:{port} of lease {lease} failed and is opened again");
            }
            (port, task)
        });
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let numbers = self.numbers.iter();
        let written: Vec<Written> = numbers
            .map(|(owner, number)| Written { owner: owner.clone(), number: *number })
            .collect();
        house::write(file, &serde_json::to_vec(&written)?)
    }
}

fn bind(address: SocketAddr, transport: Transport) -> io::Result<Socket> {
    match transport {
        Transport::Tcp => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Socket::Tcp(TcpListener::from_std(listener)?))
        }
        Transport::Udp => {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Udp(UdpSocket::from_std(socket)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc, time::Duration};

    use tokio::{
        io::AsyncReadExt as _,
        net::TcpStream,
        time::{sleep, timeout},
    };

    use super::*;

    fn key(lease: u64) -> PodKey {
        PodKey { lease, opening: B256::ZERO }
    }

    fn port(text: &str) -> Port {
        text.parse().unwrap()
    }

    fn pod(public: &[&str]) -> Pod {
        let service: protocol::pod::Service = serde_json::from_value(serde_json::json!({
            "image": { "pushed": { "id": format!("sha256:{}", "a".repeat(64)) } },
            "limits": { "cpu": 100, "memory": 16 << 20, "pids": 32 },
            "ports": public,
            "public": public,
        }))
        .unwrap();
        let services = BTreeMap::from([("db".parse().unwrap(), service)]);
        Pod::new(services, BTreeMap::new(), BTreeMap::new()).unwrap()
    }

    /// Ports with two numbers in a row, which nobody else has at the moment.
    fn ports(data: &Path) -> Ports {
        let free = |first: &u16| {
            (*first..first + 2).all(|number| {
                let address: SocketAddr = (Ipv4Addr::LOCALHOST, number).into();
                std::net::TcpListener::bind(address).is_ok()
                    && std::net::UdpSocket::bind(address).is_ok()
            })
        };
        let first = (0..).map(|_| rand::random_range(5_000..30_000)).find(free).unwrap();
        again(data, first)
    }

    /// The same after a restart.
    fn again(data: &Path, first: u16) -> Ports {
        let listen = Ipv4Addr::LOCALHOST.into();
        let config = config::Ports { range: first..=first + 1, listen, address: "::1".into() };
        Ports::open(Some(config), data, CancellationToken::new()).unwrap()
    }

    fn first(ports: &Ports) -> u16 {
        *ports.config.as_ref().unwrap().range.start()
    }

    /// All ports of these leases are open, and lead to `to`.
    fn wanted(leases: &[(u64, &Pod)], to: Option<SocketAddr>) -> Wanted {
        let mut wanted = Wanted::default();
        for (lease, pod) in leases {
            for (service, port) in pod.public_ports() {
                wanted.open(key(*lease), service, port, to);
            }
        }
        wanted
    }

    fn addresses(ports: &Ports, lease: u64) -> BTreeMap<String, String> {
        let (told, notes) = ports.of(key(lease), None);
        assert_eq!(notes, Vec::<String>::new());
        told.into_iter().map(|port| (port.port.to_string(), port.address)).collect()
    }

    #[tokio::test]
    async fn numbers_are_kept_over_restarts_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let ports = ports(folder.path());
        let start = first(&ports);
        let (both, one) = (pod(&["53/tcp", "53/udp"]), pod(&["5432/tcp"]));
        ports.set(&wanted(&[(1, &both)], None));
        let told = addresses(&ports, 1);
        assert_eq!(told["53/tcp"], told["53/udp"], "TCP and UDP have one number");
        assert!(told["53/tcp"].starts_with("[::1]:"), "{told:?}");
        assert_eq!(ports.fits(&one, None), Ok(()));
        ports.set(&wanted(&[(1, &both), (2, &one)], None));
        assert_ne!(addresses(&ports, 2)["5432/tcp"], told["53/tcp"]);
        let full = PortsError::Full { needed: 1, free: 0 };
        assert_eq!(ports.fits(&pod(&["1/tcp"]), None), Err(full));
        // What a lease has counts for its own update.
        assert_eq!(ports.fits(&pod(&["1/tcp"]), Some(key(2))), Ok(()));

        let before = (told, addresses(&ports, 2));
        drop(ports);
        let ports = again(folder.path(), start);
        // Tasks of the former one let go of the sockets at their next turn.
        let opened = async {
            while addresses_or_none(&ports, 1).is_none() || addresses_or_none(&ports, 2).is_none() {
                ports.set(&wanted(&[(1, &both), (2, &one)], None));
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), opened).await.unwrap();
        assert_eq!((addresses(&ports, 1), addresses(&ports, 2)), before);

        // A number stays with a lease that is not open for now, and goes with one that is over.
        let mut rest = Wanted::default();
        rest.keep(key(1));
        ports.set(&rest);
        assert_eq!(ports.fits(&one, None), Ok(()));
        let full = PortsError::Full { needed: 2, free: 1 };
        assert_eq!(ports.fits(&pod(&["1/tcp", "2/tcp"]), None), Err(full));
        ports.set(&Wanted::default());
        assert_eq!(std::fs::read_to_string(folder.path().join("ports.json")).unwrap(), "[]");

        // What cannot be understood is as good as lost.
        std::fs::write(folder.path().join("ports.json"), "{").unwrap();
        assert_eq!(again(folder.path(), start).fits(&pod(&["1/tcp", "2/tcp"]), None), Ok(()));
    }

    /// The addresses of a lease once all of its ports are open.
    fn addresses_or_none(ports: &Ports, lease: u64) -> Option<BTreeMap<String, String>> {
        let (told, notes) = ports.of(key(lease), None);
        (notes.is_empty() && !told.is_empty()).then(|| addresses(ports, lease))
    }

    #[tokio::test]
    async fn a_port_leads_where_it_is_told_to_and_is_closed_with_its_connections() {
        let folder = tempfile::tempdir().unwrap();
        let ports = Arc::new(ports(folder.path()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let pod = pod(&["5432/tcp"]);
        ports.set(&wanted(&[(1, &pod)], Some(to)));
        let address = addresses(&ports, 1)["5432/tcp"].replace("[::1]", "127.0.0.1");
        let mut outside = TcpStream::connect(&address).await.unwrap();
        let _inside = listener.accept().await.unwrap();

        // What could not be read changes nothing.
        let mut unread = Wanted::default();
        unread.leave(key(1));
        ports.set(&unread);
        assert_eq!(addresses(&ports, 1).len(), 1);

        let mut kept = Wanted::default();
        kept.keep(key(1));
        ports.set(&kept);
        let ended = timeout(Duration::from_secs(20), outside.read(&mut [0; 1])).await.unwrap();
        assert!(ended.is_err() || ended.is_ok_and(|length| length == 0));
        assert!(TcpStream::connect(&address).await.is_err());
        assert_eq!(addresses(&ports, 1).len(), 0);
    }

    #[test]
    fn a_provider_without_public_ports_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports::open(None, folder.path(), CancellationToken::new()).unwrap();
        assert_eq!(ports.fits(&pod(&[]), None), Ok(()));
        let refused =
            PortsError::NotOffered { service: "db".parse().unwrap(), port: port("1/tcp") };
        assert_eq!(ports.fits(&pod(&["1/tcp"]), None), Err(refused.clone()));
        assert_eq!(ports.of(key(1), Some(&pod(&["1/tcp"]))).1, [refused.to_string()]);
    }
}
