//! `roadstead port-forward`: a port here that leads to a port in a pod.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

use ::provider::wire::EOF;
use anyhow::Context as _;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    cli::LeaseRef,
    client::{Client, Socket, broken},
    output,
    remote::Remote,
    settings::Settings,
};

/// How much of a connection is sent at a time.
const CHUNK: usize = 32 << 10;

/// What `roadstead port-forward` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    lease: LeaseRef,
    /// To this service, where there are several
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
    /// From here to there: LOCAL:REMOTE, ADDRESS:LOCAL:REMOTE, or one number for both; 0 is any free port
    #[arg(required = true, value_name = "PORTS")]
    ports: Vec<Ports>,
}

/// A port here and one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: SocketAddr,
    remote: NonZeroU16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not LOCAL:REMOTE, as in 5432:5432");
        let (local, remote) = text.rsplit_once(':').unwrap_or((text, text));
        let remote: NonZeroU16 = remote.parse().map_err(|_err| wrong())?;
        let local = match local.rsplit_once(':') {
            Some((address, port)) => {
                let address: IpAddr =
                    address.trim_matches(['[', ']']).parse().map_err(|_err| wrong())?;
                (address, port.parse().map_err(|_err| wrong())?).into()
            }
            None => (Ipv4Addr::LOCALHOST, local.parse().map_err(|_err| wrong())?).into(),
        };
        Ok(Self { local, remote })
    }
}

/// Forwards connections until it is interrupted.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let remote = Remote::find(settings, &args.lease).await?;
    let mut listeners = JoinSet::new();
    for ports in &args.ports {
        let listener = TcpListener::bind(ports.local)
            .await
            .with_context(|| format!("{} cannot be listened on", ports.local))?;
        let local = listener.local_addr()?;
        let value = serde_json::json!({
            "local": local,
            "remote": ports.remote,
            "lease": remote.lease,
            "service": args.service,
        });
        match settings.json {
            true => output::print(&value.to_string())?,
            false => output::print(&format!(
                "{local} leads to port {} of lease {}; Ctrl-C ends it",
                ports.remote, remote.lease
            ))?,
        }
        let client = remote.client.clone();
        listeners.spawn(serve(
            listener,
            client,
            remote.lease,
            args.service.clone(),
            ports.remote.get(),
        ));
    }
    tokio::select! {
        () = crate::interrupted() => Ok(()),
        Some(ended) = listeners.join_next() => ended?,
    }
}

async fn serve(
    listener: TcpListener,
    client: Client,
    lease: u64,
    service: Option<String>,
    port: u16,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let connection = tokio::select! {
            accepted = listener.accept() => accepted.context("no connection can be taken")?.0,
            Some(_ended) = connections.join_next() => continue,
        };
        let (client, service) = (client.clone(), service.clone());
        connections.spawn(async move {
            let forwarded = async {
                let socket = client.forward(lease, service.as_deref(), port).await?;
                carry(connection, socket).await
            };
            if let Err(err) = forwarded.await {
                eprintln!("a connection broke: {}", output::causes(&err));
            }
        });
    }
}

/// Carries what both sides say until both have said all.
async fn carry(connection: TcpStream, socket: Socket) -> anyhow::Result<()> {
    connection.set_nodelay(true)?;
    let (from, to) = connection.into_split();
    let (mut sink, messages) = socket.split();
    let outcome = tokio::try_join!(send(from, &mut sink), receive(messages, to));
    let _gone = sink.send(Message::Close(None)).await;
    outcome.map(|_both| ())
}

async fn send(
    mut from: OwnedReadHalf,
    sink: &mut SplitSink<Socket, Message>,
) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        let message = match read {
            0 => Message::Text(EOF.into()),
            read => Message::Binary(bytes::Bytes::copy_from_slice(
                chunk.get(..read).unwrap_or_default(),
            )),
        };
        sink.send(message).await.map_err(broken)?;
        if read == 0 {
            return Ok(());
        }
    }
}

async fn receive(mut messages: SplitStream<Socket>, mut to: OwnedWriteHalf) -> anyhow::Result<()> {
    while let Some(message) = messages.next().await {
        match message.map_err(broken)? {
            Message::Binary(bytes) => to.write_all(&bytes).await?,
            Message::Text(text) if text.as_str() == EOF => {
                return Ok(to.shutdown().await?);
            }
            Message::Close(_) => break,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => (),
        }
    }
    anyhow::bail!("the provider broke it off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_said_in_three_ways() {
        let check = |text: &str, wanted: Option<(&str, u16)>| {
            let ports = text.parse::<Ports>().ok();
            let ports = ports.map(|ports| (ports.local.to_string(), ports.remote.get()));
            assert_eq!(ports, wanted.map(|(local, port)| (local.to_owned(), port)), "{text}");
        };
        check("5432", Some(("127.0.0.1:5432", 5_432)));
        check("15432:5432", Some(("127.0.0.1:15432", 5_432)));
        check("0:80", Some(("127.0.0.1:0", 80)));
        check("0.0.0.0:8080:80", Some(("0.0.0.0:8080", 80)));
        check("[::1]:8080:80", Some(("[::1]:8080", 80)));
        for wrong in ["", "x", "80:0", "80:70000", "host:80:80", "80:"] {
            check(wrong, None);
        }
    }
}
