//! What a lease's payer does in its pod: programs, connections, files.
//!
//! The payer alone is let in, and into its own containers alone, which it filled itself: it gains nothing there that its
//! pod could not do. So what has to be bounded is what it costs the provider beside the pod: how much is open at a time,
//! and for how long nothing may happen.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Body,
    extract::{
        Path, Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bollard::errors::Error as DockerError;
use bytes::Bytes;
use futures::{
    SinkExt, StreamExt, TryStreamExt,
    stream::{SplitSink, SplitStream},
};
use nix::sys::signal::Signal;
use protocol::pod::Transport;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::sync::CancellationToken;

use super::{Caller, Refusal, Wallet, theirs};
use crate::{
    causes,
    engine::{Container, Engine, EngineError, Program},
    slots::Kind,
    wire::{EOF, FromProgram, PathStat, ToProgram},
};

/// The longest message; what is longer is not one of the protocol.
const MAX_MESSAGE: usize = 1 << 20;

/// How much of a connection is sent at a time.
const CHUNK: usize = 32 << 10;

/// How long the first message, or a port, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the other side has to show that it is there, and after how long it counts as gone.
const PING: Duration = Duration::from_secs(20);
const GONE: u64 = 60;

/// After how many seconds in which nothing is said either way something that is open is closed.
const IDLE: u64 = 3_600;

/// How long a program whose publisher went has, between being told so and being killed; and how
/// long a publisher has to close what ended.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceQuery {
    service: Option<String>,
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

fn socket(upgrade: Upgrade) -> Result<WebSocketUpgrade, Refusal> {
    let upgrade = upgrade.map_err(|err| {
        Refusal(StatusCode::UPGRADE_REQUIRED, format!("this takes a WebSocket: {err}"))
    })?;
    Ok(upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE))
}

pub(super) async fn exec(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(query): Query<ServiceQuery>,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let (_, container) = theirs.container(query.service.as_deref())?;
    let container = container.clone();
    let slot = api.slots.take(theirs.key, Kind::Program)?;
    let (engine, stop) = (api.shared.engine.clone(), api.stop.clone());
    Ok(socket(upgrade)?.on_upgrade(async move |socket| {
        let _open = slot;
        run(&engine, &container, socket, &stop).await;
    }))
}

/// Runs the program that the first message names, until it ends or its publisher goes.
async fn run(engine: &Engine, container: &Container, socket: WebSocket, stop: &CancellationToken) {
    let (mut sink, mut messages) = socket.split();
    let first = tokio::time::timeout(PATIENCE, next(&mut messages)).await;
    let Ok(Some(Said::Told(ToProgram::Start(request)))) = first else {
        end(sink, messages, FromProgram::Error("the first message has to be a start".into())).await;
        return;
    };
    let (tty, program) = (request.terminal.is_some(), engine.exec(container, &request).await);
    let Program { id, mut output, input } = match program {
        Ok(program) => program,
        Err(err) => {
            end(sink, messages, FromProgram::Error(docker_words(&err))).await;
            return;
        }
    };
    let clock = Clock::new();
    let outcome = tokio::select! {
        // What it wrote before it ended is sent before its end is told.
        biased;
        outcome = send_output(&mut output, &mut sink, &clock) => outcome,
        () = feed(engine, &id, input, &mut messages, &clock) => Outcome::Gone,
        () = stop.cancelled() => Outcome::Late("the provider stops; try again in a moment"),
    };
    match outcome {
        Outcome::Ended => {
            let said = match engine.exit_code(&id).await {
                Ok(Some(code)) => FromProgram::Exit(code),
                Ok(None) => FromProgram::Error("it closed its output and goes on".into()),
                Err(err) => FromProgram::Error(docker_words(&err)),
            };
            end(sink, messages, said).await;
        }
        Outcome::Broken(why) => end(sink, messages, FromProgram::Error(why)).await,
        Outcome::Late(why) => {
            end(sink, messages, FromProgram::Error(why.into())).await;
            hang_up(engine, &id, tty).await;
        }
        Outcome::Gone => hang_up(engine, &id, tty).await,
    }
}

/// How a program, or what is between it and its publisher, ended.
enum Outcome {
    Ended,
    Broken(String),
    Late(&'static str),
    Gone,
}

/// When something was last heard and said.
struct Clock {
    start: Instant,
    heard: AtomicU64,
    active: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), heard: AtomicU64::new(0), active: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// The other side is there.
    fn hear(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    /// Something was said, either way.
    fn act(&self) {
        self.active.store(self.now(), Ordering::Relaxed);
    }

    fn outcome(&self) -> Option<Outcome> {
        let passed = |since: &AtomicU64| self.now().saturating_sub(since.load(Ordering::Relaxed));
        if passed(&self.heard) >= GONE {
            return Some(Outcome::Gone);
        }
        (passed(&self.active) >= IDLE).then_some(Outcome::Late("nothing was said for an hour"))
    }
}

async fn send_output(
    output: &mut (impl futures::Stream<Item = Result<(u8, Bytes), DockerError>> + Unpin),
    sink: &mut SplitSink<WebSocket, Message>,
    clock: &Clock,
) -> Outcome {
    let mut ping = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            part = output.next() => match part {
                None => return Outcome::Ended,
                Some(Err(err)) => return Outcome::Broken(causes(&err)),
                Some(Ok((channel, bytes))) => {
                    clock.act();
                    let mut message = Vec::with_capacity(bytes.len() + 1);
                    message.push(channel);
                    message.extend_from_slice(&bytes);
                    Message::Binary(message.into())
                }
            },
            _ = ping.tick() => match clock.outcome() {
                Some(outcome) => return outcome,
                None => Message::Ping(Bytes::new()),
            },
        };
        if sink.send(message).await.is_err() {
            return Outcome::Gone;
        }
    }
}

/// What a publisher says.
enum Said {
    Told(ToProgram),
    Bytes(Bytes),
    /// Nothing but that it is there.
    There,
}

/// The next message; none once it is gone, or says what is not of the protocol.
async fn next(messages: &mut SplitStream<WebSocket>) -> Option<Said> {
    Some(match messages.next().await?.ok()? {
        Message::Text(text) => Said::Told(serde_json::from_str(&text).ok()?),
        Message::Binary(bytes) => Said::Bytes(bytes),
        Message::Ping(_) | Message::Pong(_) => Said::There,
        Message::Close(_) => return None,
    })
}

/// Hands on what a publisher says, until it is gone.
async fn feed(
    engine: &Engine,
    program: &str,
    input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
    messages: &mut SplitStream<WebSocket>,
    clock: &Clock,
) {
    let mut input = Some(input);
    while let Some(said) = next(messages).await {
        clock.hear();
        match said {
            Said::Bytes(bytes) => {
                clock.act();
                if let Some(open) = &mut input
                    && open.write_all(&bytes).await.is_err()
                {
                    // It reads no more; what it writes is still wanted.
                    input = None;
                }
            }
            Said::Told(ToProgram::Eof) => {
                if let Some(mut open) = input.take() {
                    let _closed_already = open.shutdown().await;
                }
            }
            Said::Told(ToProgram::Resize(size)) => {
                clock.act();
                let _it_ended = engine.resize_program(program, size).await;
            }
            Said::Told(ToProgram::Signal(name)) => {
                if let Ok(signal) = format!("SIG{}", name.trim_start_matches("SIG")).parse() {
                    let _it_ended = engine.signal(program, signal).await;
                }
            }
            Said::Told(ToProgram::Start(_)) | Said::There => (),
        }
    }
}

/// Ends a program that nobody waits for any more.
async fn hang_up(engine: &Engine, program: &str, tty: bool) {
    let signal = if tty { Signal::SIGHUP } else { Signal::SIGTERM };
    if matches!(engine.signal(program, signal).await, Ok(true)) {
        tokio::time::sleep(GRACE).await;
        let _ended_by_now = engine.signal(program, Signal::SIGKILL).await;
    }
}

/// Says the last thing, and hears what the publisher had sent by then: a connection that is dropped
/// with something unread is reset, and a reset takes back what was sent but not yet read over there.
async fn end(
    mut sink: SplitSink<WebSocket, Message>,
    mut messages: SplitStream<WebSocket>,
    said: FromProgram,
) {
    if let Ok(text) = serde_json::to_string(&said) {
        // It may be gone.
        let _gone = sink.send(Message::Text(text.into())).await;
    }
    close(&mut sink).await;
    let heard = async { while let Some(Ok(_too_late)) = messages.next().await {} };
    let _it_does_not_end = tokio::time::timeout(GRACE, heard).await;
}

async fn close(sink: &mut SplitSink<WebSocket, Message>) {
    let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _gone = sink.send(Message::Close(Some(frame))).await;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortQuery {
    service: Option<String>,
    port: std::num::NonZeroU16,
}

pub(super) async fn forward(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(PortQuery { service, port }): Query<PortQuery>,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let (name, container) = theirs.container(service.as_deref())?;
    let slot = api.slots.take(theirs.key, Kind::Connection)?;
    let upgrade = socket(upgrade)?;
    let refused = |why: &str| {
        let words = format!("service {name} of lease {id} cannot be reached at port {port}: {why}");
        Refusal(StatusCode::BAD_GATEWAY, words)
    };
    let to = container.at(Transport::Tcp, port.get()).ok_or_else(|| {
        refused(match container.task.is_some() {
            true => "it does not run, or its pod does not list this port; add it to its ports",
            false => "it does not run",
        })
    })?;
    let connect = TcpStream::connect(to);
    let connection = match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(err)) => {
            return Err(refused(&format!(
                "{err}; it has to listen on all addresses, not on 127.0.0.1"
            )));
        }
        Err(_late) => return Err(refused("it does not answer")),
    };
    let stop = api.stop.clone();
    Ok(upgrade.on_upgrade(async move |socket| {
        let _open = slot;
        let (sink, messages) = socket.split();
        let (from, to) = connection.into_split();
        let clock = Clock::new();
        let both = async {
            tokio::join!(read_port(from, sink, &clock), write_port(to, messages, &clock));
        };
        tokio::select! {
            () = both => (),
            () = stop.cancelled() => (),
        }
    }))
}

/// Sends what comes out of a port, and that nothing more does; then the other half goes on alone.
async fn read_port(
    mut from: OwnedReadHalf,
    mut sink: SplitSink<WebSocket, Message>,
    clock: &Clock,
) {
    let mut ping = tokio::time::interval(PING);
    let mut chunk = vec![0; CHUNK];
    let mut open = true;
    loop {
        let message = tokio::select! {
            read = from.read(&mut chunk), if open => match read {
                Ok(0) | Err(_) => {
                    open = false;
                    Message::Text(EOF.into())
                }
                Ok(read) => {
                    clock.act();
                    Message::Binary(Bytes::copy_from_slice(chunk.get(..read).unwrap_or_default()))
                }
            },
            _ = ping.tick() => match clock.outcome() {
                Some(_) => return close(&mut sink).await,
                None => Message::Ping(Bytes::new()),
            },
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

async fn write_port(mut to: OwnedWriteHalf, mut messages: SplitStream<WebSocket>, clock: &Clock) {
    while let Some(Ok(message)) = messages.next().await {
        clock.hear();
        match message {
            Message::Binary(bytes) => {
                clock.act();
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Message::Text(text) if text.as_str() == EOF => {
                let _closed_already = to.shutdown().await;
            }
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => (),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileQuery {
    service: Option<String>,
    path: String,
}

pub(super) async fn stat(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(FileQuery { service, path }): Query<FileQuery>,
) -> Result<Json<PathStat>, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let (_, container) = theirs.container(service.as_deref())?;
    let stat = api.shared.engine.stat(container, &path).await;
    Ok(Json(stat.map_err(|err| refused(err, &path))?))
}

pub(super) async fn download(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(FileQuery { service, path }): Query<FileQuery>,
) -> Result<Response, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let (_, container) = theirs.container(service.as_deref())?;
    let slot = api.slots.take(theirs.key, Kind::Copy)?;
    // So that what is not there is refused, not begun.
    api.shared.engine.stat(container, &path).await.map_err(|err| refused(err, &path))?;
    let tar = api.shared.engine.download(container, &path).map(move |chunk| {
        let _open = &slot;
        chunk
    });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(tar)).into_response())
}

pub(super) async fn upload(
    State(api): Caller,
    Wallet(wallet): Wallet,
    Path(id): Path<u64>,
    Query(FileQuery { service, path }): Query<FileQuery>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let theirs = theirs(&api, wallet, id).await?;
    let (_, container) = theirs.container(service.as_deref())?;
    let _open = api.slots.take(theirs.key, Kind::Copy)?;
    let tar = body.into_data_stream().map_err(std::io::Error::other);
    let uploaded = api.shared.engine.upload(container, &path, tar).await;
    uploaded.map_err(|err| refused(err, &path))?;
    Ok(StatusCode::NO_CONTENT)
}

/// What Docker says of a path is the publisher's to know: it is about its own container.
fn refused(err: EngineError, path: &str) -> Refusal {
    let EngineError::Docker(DockerError::DockerResponseServerError { status_code, message }) = &err
    else {
        return err.into();
    };
    let status = match status_code {
        404 => StatusCode::NOT_FOUND,
        _other => StatusCode::UNPROCESSABLE_ENTITY,
    };
    match status_code {
        404 => Refusal(status, format!("there is no {path} in the container")),
        _other => Refusal(status, format!("{path}: {message}")),
    }
}

/// What Docker says of a program is the publisher's to know.
fn docker_words(err: &EngineError) -> String {
    if let EngineError::Docker(DockerError::DockerResponseServerError { message, .. }) = err {
        return message.clone();
    }
    causes(err)
}
