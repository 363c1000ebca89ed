//! The line between a provider and its node, which can be cut.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on, as long as it is not cut.
#[derive(Debug)]
pub struct Relay {
    pub(crate) address: SocketAddr,
    up: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port of `local` and passes on to `to`.
    pub(crate) async fn start(local: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(local).await?;
        let address = listener.local_addr()?;
        let (up, is_up) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((from, _who)) = listener.accept().await {
                while lines.try_join_next().is_some() {}
                if *is_up.borrow() {
                    lines.spawn(pass(from, to, is_up.clone()));
                }
            }
        });
        Ok(Self { address, up, _tasks: tasks })
    }

    /// Breaks off all connections and takes no more.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn pass(mut from: TcpStream, to: SocketAddr, mut is_up: watch::Receiver<bool>) {
    let Ok(mut to) = TcpStream::connect(to).await else { return };
    tokio::select! {
        // Whoever is at either end finds out by itself.
        _ended = copy_bidirectional(&mut from, &mut to) => (),
        _cut = is_up.wait_for(|up| !up) => (),
    }
}
