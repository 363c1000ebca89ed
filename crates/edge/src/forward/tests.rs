//! Outside, the port and what it leads to, on real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;

/// Longer than anything here takes, so that what hangs fails.
const PATIENCE: Duration = Duration::from_secs(10);

const SHORT: Duration = Duration::from_millis(200);

/// A port that leads somewhere.
struct Stage {
    addr: SocketAddr,
    target: Target,
    stop: CancellationToken,
    port: JoinSet<std::io::Result<()>>,
    others: JoinSet<()>,
}

impl Stage {
    async fn tcp(limits: TcpLimits, target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let mut port = JoinSet::new();
        port.spawn(tcp(listener, target.clone(), limits, stop.clone()));
        Self { addr, target, stop, port, others: JoinSet::new() }
    }

    async fn udp(limits: UdpLimits, target: Target) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (addr, stop) = (socket.local_addr().unwrap(), CancellationToken::new());
        let mut port = JoinSet::new();
        port.spawn(udp(socket, target.clone(), limits, stop.clone()));
        Self { addr, target, stop, port, others: JoinSet::new() }
    }

    /// Says `name` to who connects, and then whatever it hears, until the other side has finished.
    async fn echo(&mut self, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        self.others.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    stream.write_all(name.as_bytes()).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    // It may end in any way.
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(write.shutdown().await);
                });
            }
        });
        addr
    }

    /// Answers each datagram with `name` before it, but does not answer those that are empty or say "hush".
    async fn answerer(&mut self, name: &'static str) -> (SocketAddr, mpsc::Receiver<SocketAddr>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let (seen, sees) = mpsc::channel(64);
        self.others.spawn(async move {
            let mut datagram = vec![0; 65_535];
            loop {
                let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
                if seen.send(from).await.is_err() {
                    return;
                }
                if len > 0 && &datagram[..len] != b"hush" {
                    let answer = [name.as_bytes(), &datagram[..len]].concat();
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        (addr, sees)
    }

    /// Waits until the numbers are as they should be: they follow what is seen from outside.
    async fn until(&self, as_expected: impl Fn(&PortStats) -> bool) {
        let wait = async {
            while !as_expected(&self.target.stats()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let all = || self.target.stats();
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not as expected: {:?}", all()));
    }

    async fn stopped(&mut self) {
        self.stop.cancel();
        timeout(PATIENCE, self.port.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }
}

async fn hear(stream: &mut TcpStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

/// Whether the connection ended, in whatever way.
async fn ended(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap() {
            Ok(0) | Err(_) => return true,
            Ok(_) => (),
        }
    }
}

#[tokio::test]
async fn connections_pass_both_ways_and_one_side_may_finish_first() {
    let mut stage = Stage::tcp(TcpLimits::default(), Target::default()).await;
    let addr = stage.echo("hello ").await;
    stage.target.set(Some(addr));
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    // The one that was called speaks first.
    hear(&mut stream, "hello ").await;
    stage.until(|stats| stats.open == 1).await;
    let large = "a".repeat(1 << 20);
    let (mut read, mut write) = stream.split();
    let said = async {
        write.write_all(large.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut heard = String::new();
    let both = async { tokio::join!(said, read.read_to_string(&mut heard)) };
    timeout(PATIENCE, both).await.unwrap().1.unwrap();
    assert!(heard == large);
    let (received, sent) = (1 << 20, (1 << 20) + 6);
    stage
        .until(|stats| {
            (stats.opened, stats.open, stats.received, stats.sent) == (1, 0, received, sent)
        })
        .await;
}

#[tokio::test]
async fn a_port_may_lead_elsewhere_from_now_on() {
    let mut stage = Stage::tcp(TcpLimits::default(), Target::default()).await;
    // Nobody yet.
    let mut nobody = TcpStream::connect(stage.addr).await.unwrap();
    assert!(ended(&mut nobody).await);
    let (old, new) = (stage.echo("old ").await, stage.echo("new ").await);
    stage.target.set(Some(old));
    let mut first = TcpStream::connect(stage.addr).await.unwrap();
    hear(&mut first, "old ").await;
    stage.target.set(Some(new));
    let mut second = TcpStream::connect(stage.addr).await.unwrap();
    hear(&mut second, "new ").await;
    first.write_all(b"still here").await.unwrap();
    hear(&mut first, "still here").await;
    assert_eq!(stage.target.stats().opened, 2);
}

#[tokio::test]
async fn a_connection_to_nobody_ends() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stage = Stage::tcp(TcpLimits::default(), closed.into()).await;
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    assert!(ended(&mut stream).await);
    stage.until(|stats| (stats.opened, stats.open) == (1, 0)).await;
}

#[tokio::test]
async fn a_connection_ends_when_nothing_moves() {
    let limits = TcpLimits { idle: SHORT, ..TcpLimits::default() };
    let mut stage = Stage::tcp(limits, Target::default()).await;
    let addr = stage.echo("hello ").await;
    stage.target.set(Some(addr));
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    hear(&mut stream, "hello ").await;
    for _ in 0..5 {
        tokio::time::sleep(SHORT / 2).await;
        stream.write_all(b"a").await.unwrap();
        hear(&mut stream, "a").await;
    }
    assert!(ended(&mut stream).await);
}

#[tokio::test]
async fn open_connections_are_bounded() {
    let limits = TcpLimits { connections: 1, ..TcpLimits::default() };
    let mut stage = Stage::tcp(limits, Target::default()).await;
    let addr = stage.echo("hello ").await;
    stage.target.set(Some(addr));
    let mut first = TcpStream::connect(stage.addr).await.unwrap();
    hear(&mut first, "hello ").await;
    let mut second = TcpStream::connect(stage.addr).await.unwrap();
    let early = timeout(SHORT, second.read_u8()).await;
    assert!(early.is_err(), "served beside the first");
    drop(first);
    hear(&mut second, "hello ").await;
}

#[tokio::test]
async fn connections_are_given_time_at_the_stop() {
    let limits = TcpLimits { drain: SHORT, ..TcpLimits::default() };
    let mut stage = Stage::tcp(limits, Target::default()).await;
    let addr = stage.echo("hello ").await;
    stage.target.set(Some(addr));
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    hear(&mut stream, "hello ").await;
    stage.stop.cancel();
    stream.write_all(b"still here").await.unwrap();
    hear(&mut stream, "still here").await;
    assert!(ended(&mut stream).await);
    stage.stopped().await;
    assert!(TcpStream::connect(stage.addr).await.is_err());
}

/// Somebody outside.
async fn sender(stage: &Stage) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(stage.addr).await.unwrap();
    socket
}

async fn answer(sender: &UdpSocket) -> String {
    let mut datagram = vec![0; 65_535];
    let len = timeout(PATIENCE, sender.recv(&mut datagram)).await.unwrap().unwrap();
    String::from_utf8(datagram[..len].to_vec()).unwrap()
}

#[tokio::test]
async fn answers_find_back_to_each_sender() {
    let mut stage = Stage::udp(UdpLimits::default(), Target::default()).await;
    let (addr, mut seen) = stage.answerer("re: ").await;
    stage.target.set(Some(addr));
    let senders = [sender(&stage).await, sender(&stage).await, sender(&stage).await];
    for round in 0..3 {
        for (number, sender) in senders.iter().enumerate() {
            sender.send(format!("{number} {round}").as_bytes()).await.unwrap();
        }
        for (number, sender) in senders.iter().enumerate() {
            assert_eq!(answer(sender).await, format!("re: {number} {round}"));
        }
    }
    let stats = stage.target.stats();
    assert_eq!((stats.opened, stats.open, stats.received, stats.sent), (3, 3, 27, 63));
    // Each has one socket there, whatever it sends; an empty datagram is one, too.
    let mut froms = Vec::new();
    while let Ok(from) = seen.try_recv() {
        froms.push(from);
    }
    froms.sort_unstable();
    froms.dedup();
    assert_eq!(froms.len(), 3);
    senders[0].send(b"").await.unwrap();
    assert!(froms.contains(&timeout(PATIENCE, seen.recv()).await.unwrap().unwrap()));
    // The longest that fits.
    let large = "a".repeat(65_507 - 4);
    senders[0].send(large.as_bytes()).await.unwrap();
    assert!(answer(&senders[0]).await == format!("re: {large}"));
}

#[tokio::test]
async fn only_the_target_answers() {
    let mut stage = Stage::udp(UdpLimits::default(), Target::default()).await;
    let (addr, mut seen) = stage.answerer("re: ").await;
    stage.target.set(Some(addr));
    let sender = sender(&stage).await;
    sender.send(b"hush").await.unwrap();
    let session = timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], session.port()));
    stranger.send_to(b"forged", to).await.unwrap();
    sender.send(b"hello").await.unwrap();
    assert_eq!(answer(&sender).await, "re: hello");
}

#[tokio::test]
async fn datagrams_go_to_the_new_target_at_once() {
    let mut stage = Stage::udp(UdpLimits::default(), Target::default()).await;
    let sender = sender(&stage).await;
    let (old, _old) = stage.answerer("old ").await;
    let (new, _new) = stage.answerer("new ").await;
    for (target, name) in [(old, "old"), (new, "new"), (old, "old")] {
        stage.target.set(Some(target));
        sender.send(b"hello").await.unwrap();
        assert_eq!(answer(&sender).await, format!("{name} hello"));
    }
    // The sessions that were replaced are gone.
    stage.until(|stats| (stats.opened, stats.open) == (3, 1)).await;
}

#[tokio::test]
async fn a_session_survives_that_nobody_listens_for_a_while() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    let stage = Stage::udp(UdpLimits::default(), addr.into()).await;
    let sender = sender(&stage).await;
    for _ in 0..3 {
        sender.send(b"hello").await.unwrap();
        stage.until(|stats| stats.received % 5 == 0 && stats.open == 1).await;
    }
    stage.until(|stats| stats.received == 15).await;
    let open = UdpSocket::bind(addr).await.unwrap();
    let mut datagram = [0; 64];
    let asks = async {
        // One may be lost to the report that an earlier one had nobody to go to.
        loop {
            sender.send(b"again").await.unwrap();
            let received = timeout(SHORT, open.recv_from(&mut datagram)).await;
            if let Ok(received) = received {
                return received.unwrap();
            }
        }
    };
    let (len, from) = timeout(PATIENCE, asks).await.unwrap();
    assert_eq!(&datagram[..len], b"again");
    open.send_to(b"welcome", from).await.unwrap();
    assert_eq!(answer(&sender).await, "welcome");
    assert_eq!(stage.target.stats().opened, 1);
}

#[tokio::test]
async fn sessions_end_when_nothing_moves_and_sooner_without_an_answer() {
    let limits = UdpLimits { idle: 3 * SHORT, unanswered: SHORT, ..UdpLimits::default() };
    let mut stage = Stage::udp(limits, Target::default()).await;
    let (addr, _seen) = stage.answerer("re: ").await;
    stage.target.set(Some(addr));
    let (answered, unanswered) = (sender(&stage).await, sender(&stage).await);
    answered.send(b"hello").await.unwrap();
    unanswered.send(b"hush").await.unwrap();
    assert_eq!(answer(&answered).await, "re: hello");
    stage.until(|stats| (stats.opened, stats.open) == (2, 1)).await;
    // The one that was answered is there still, and ends later.
    answered.send(b"again").await.unwrap();
    assert_eq!(answer(&answered).await, "re: again");
    assert_eq!(stage.target.stats().opened, 2);
    stage.until(|stats| stats.open == 0).await;
    // Who comes again has a new one.
    answered.send(b"once more").await.unwrap();
    assert_eq!(answer(&answered).await, "re: once more");
    assert_eq!(stage.target.stats().opened, 3);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let limits = UdpLimits { sessions: 2, idle: SHORT, unanswered: SHORT };
    let mut stage = Stage::udp(limits, Target::default()).await;
    let (addr, _seen) = stage.answerer("re: ").await;
    stage.target.set(Some(addr));
    let senders = [sender(&stage).await, sender(&stage).await, sender(&stage).await];
    for sender in &senders[..2] {
        sender.send(b"hello").await.unwrap();
        assert_eq!(answer(sender).await, "re: hello");
    }
    senders[2].send(b"hello").await.unwrap();
    let mut datagram = [0; 64];
    assert!(timeout(SHORT / 2, senders[2].recv(&mut datagram)).await.is_err());
    assert_eq!(stage.target.stats().opened, 2);
    // There is room again once the others are quiet.
    stage.until(|stats| stats.open == 0).await;
    senders[2].send(b"hello").await.unwrap();
    assert_eq!(answer(&senders[2]).await, "re: hello");
}

#[tokio::test]
async fn a_port_is_free_after_the_stop() {
    let mut stage = Stage::udp(UdpLimits::default(), Target::default()).await;
    let (addr, _seen) = stage.answerer("re: ").await;
    stage.target.set(Some(addr));
    let sender = Arc::new(sender(&stage).await);
    sender.send(b"hello").await.unwrap();
    assert_eq!(answer(&sender).await, "re: hello");
    stage.stopped().await;
    UdpSocket::bind(stage.addr).await.unwrap();
    stage.until(|stats| stats.open == 0).await;
}

#[tokio::test]
async fn ports_share_their_places() {
    let places = Places::new(2);
    let mut first = Stage::tcp(TcpLimits::default(), Target::within(&places)).await;
    let mut second = Stage::udp(UdpLimits::default(), Target::within(&places)).await;
    let (stream, datagrams) = (first.echo("hello").await, second.answerer("heard ").await);
    first.target.set(Some(stream));
    second.target.set(Some(datagrams.0));
    let mut one = TcpStream::connect(first.addr).await.unwrap();
    hear(&mut one, "hello").await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.connect(second.addr).await.unwrap();
    let mut answer = [0; 64];
    udp.send(b"you").await.unwrap();
    let len = timeout(PATIENCE, udp.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer[..len], b"heard you");

    // There is no third, for either.
    let mut more = TcpStream::connect(first.addr).await.unwrap();
    assert!(ended(&mut more).await);
    assert_eq!((first.target.stats().opened, second.target.stats().opened), (1, 1));
    drop(one);
    first.until(|stats| stats.open == 0).await;
    let again = async {
        loop {
            let mut again = TcpStream::connect(first.addr).await.unwrap();
            let mut heard = [0; 5];
            // The place may come back a moment after the count.
            if again.read_exact(&mut heard).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    first.stopped().await;
    second.stopped().await;
}
