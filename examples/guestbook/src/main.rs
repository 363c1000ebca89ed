//! A guestbook: the app that `make demo` deploys. It keeps its entries on a volume, needs a secret, and answers a health
//! check, so that it uses what a pod has.
//!
//! `guestbook` serves, `guestbook health` asks the one that serves in the same container whether it is well.

mod book;
mod page;
mod token;
mod web;

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

use crate::{book::Book, token::Tokens, web::App};

/// For how long requests may go on after SIGTERM; Docker waits for ten seconds.
const DRAIN: Duration = Duration::from_secs(5);

/// For how long the health check waits.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let argument = std::env::args_os().nth(1);
    let done = match argument.as_ref().and_then(|argument| argument.to_str()) {
        None if argument.is_none() => serve(),
        Some("health") => health(),
        _ => {
            eprintln!("usage: guestbook [health]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("guestbook: {err:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve() -> anyhow::Result<()> {
    let key = PathBuf::from(variable("SESSION_KEY_FILE", "/run/secrets/session_key"));
    let tokens = Tokens::from_file(&key)?;
    let db = PathBuf::from(variable("DB_FILE", "/data/book.db"));
    let book = Book::open(&db)?;
    let port = port()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .await
        .with_context(|| format!("port {port} cannot be listened on"))?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("guestbook: {} entries, listening on {}", book.len(), listener.local_addr()?);

    let (stop, stopped) = oneshot::channel();
    let app = web::routes(Arc::new(App { book, tokens }));
    // A sender that is gone is a stop as well.
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        stop.send(()).ok();
        sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served.context("the server failed"),
        () = signals => Ok(()),
    }
}

fn health() -> anyhow::Result<()> {
    let port = port()?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("nothing listens on port {port}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).context("there is no answer")?;
    if !status.ends_with(b" 200") {
        bail!("the answer is {}", String::from_utf8_lossy(&status));
    }
    Ok(())
}

fn port() -> anyhow::Result<u16> {
    let port = variable("PORT", "8080");
    port.to_str()
        .and_then(|port| port.parse().ok())
        .with_context(|| format!("PORT: {} is not a port (1-65535)", port.display()))
}

fn variable(name: &str, default: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| default.into())
}
