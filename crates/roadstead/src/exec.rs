//! `roadstead exec` and `roadstead shell`: a program in a container, as if it ran here.

use std::{
    io::{IsTerminal as _, Read as _},
    time::Duration,
};

use ::provider::wire::{ExecRequest, FromProgram, STDERR, STDOUT, TerminalSize, ToProgram};
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use crossterm::terminal;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    cli::LeaseRef,
    client::{Socket, broken},
    output::tame,
    remote::Remote,
    settings::Settings,
};

/// What a shell is: the better one, where the image has it.
const SHELL: [&str; 3] =
    ["/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi"];

/// For how long nothing may come from the provider, which shows every 20 seconds that it is there.
const SILENCE: Duration = Duration::from_secs(90);

/// After how many Ctrl-C a program that does not care is left alone.
const INTERRUPTS: usize = 3;

/// What `roadstead exec` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    lease: LeaseRef,
    /// In this service, where there are several
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
    /// Hand on standard input
    #[arg(long, short)]
    interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// What `roadstead shell` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct ShellArgs {
    /// The lease's number, or the app's name
    lease: LeaseRef,
    /// In this service, where there are several
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
}

/// The program ended with another code than zero, which this program ends with as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the program ended with code {0}")]
pub(crate) struct Ended(pub(crate) u8);

/// Runs a program until it ends.
pub(crate) async fn exec(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    ensure!(
        !args.tty || std::io::stdin().is_terminal(),
        "there is no terminal here to give to the program; leave out -t"
    );
    let program = Wanted { command: args.command.clone(), stdin: args.interactive, tty: args.tty };
    let remote = Remote::find(settings, &args.lease).await?;
    run(&remote, args.service.as_deref(), program).await
}

/// Runs a shell until it ends.
pub(crate) async fn shell(settings: &Settings, args: &ShellArgs) -> anyhow::Result<()> {
    let command = SHELL.map(str::to_owned).to_vec();
    let program = Wanted { command, stdin: true, tty: std::io::stdin().is_terminal() };
    let remote = Remote::find(settings, &args.lease).await?;
    run(&remote, args.service.as_deref(), program).await.map_err(|err| match err.downcast_ref() {
        Some(Ended(126 | 127)) => {
            err.context("its image has no shell; `roadstead exec` runs a program that it has")
        }
        _another => err,
    })
}

struct Wanted {
    command: Vec<String>,
    stdin: bool,
    tty: bool,
}

/// A terminal that hands on every key as it is pressed, until this is dropped.
struct Raw;

impl Raw {
    fn new() -> anyhow::Result<Self> {
        terminal::enable_raw_mode().context("the terminal cannot be taken over")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _stays_raw = terminal::disable_raw_mode();
    }
}

fn size() -> TerminalSize {
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    TerminalSize { columns, rows }
}

async fn run(remote: &Remote, service: Option<&str>, wanted: Wanted) -> anyhow::Result<()> {
    let Wanted { command, stdin, tty } = wanted;
    let socket = remote.client.exec(remote.lease, service).await?;
    let (mut sink, messages) = socket.split();
    let term = std::env::var_os("TERM").and_then(|term| term.into_string().ok());
    let environment = term.filter(|_| tty).map(|term| format!("TERM={term}"));
    let request = ExecRequest {
        command,
        environment: environment.into_iter().collect(),
        terminal: tty.then(size),
        stdin,
    };
    tell(&mut sink, &ToProgram::Start(request)).await?;
    let raw = tty.then(Raw::new).transpose()?;
    let code = tokio::select! {
        code = listen(messages) => code,
        failed = speak(&mut sink, stdin, tty) => failed.map(|never| match never {}),
    };
    drop(raw);
    match code? {
        0 => Ok(()),
        code => Err(Ended(u8::try_from(code).unwrap_or(u8::MAX)).into()),
    }
}

/// Prints what the program writes, until it ends; with which code.
async fn listen(mut messages: SplitStream<Socket>) -> anyhow::Result<i64> {
    loop {
        let message = tokio::time::timeout(SILENCE, messages.next()).await;
        let message = message.context("the provider is not heard of any more")?;
        let Some(message) = message else { bail!("the provider broke off the connection") };
        match message.map_err(broken)? {
            Message::Binary(bytes) => match bytes.split_first() {
                Some((&STDOUT, text)) => write(std::io::stdout().lock(), text)?,
                Some((&STDERR, text)) => write(std::io::stderr().lock(), text)?,
                Some(_) | None => (),
            },
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(FromProgram::Exit(code)) => return Ok(code),
                Ok(FromProgram::Error(why)) => bail!("{}", tame(&why)),
                Err(_) => bail!("the provider says what is not of the protocol"),
            },
            Message::Close(_) => bail!("the provider broke off the connection"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => (),
        }
    }
}

fn write(mut out: impl std::io::Write, text: &[u8]) -> std::io::Result<()> {
    out.write_all(text)?;
    out.flush()
}

/// Hands on what is typed, the terminal's size and signals; it ends with a failure alone.
async fn speak(
    sink: &mut SplitSink<Socket, Message>,
    stdin: bool,
    tty: bool,
) -> anyhow::Result<std::convert::Infallible> {
    let mut typed = stdin.then(typed);
    let mut resized = signal(SignalKind::window_change())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupts = 0;
    loop {
        tokio::select! {
            bytes = next(&mut typed) => match bytes {
                Some(bytes) => sink.send(Message::Binary(bytes)).await.map_err(broken)?,
                None => {
                    typed = None;
                    tell(sink, &ToProgram::Eof).await?;
                }
            },
            true = happened(&mut resized) => if tty {
                tell(sink, &ToProgram::Resize(size())).await?;
            },
            // A terminal in raw mode sends Ctrl-C as a byte; this one comes from elsewhere.
            true = happened(&mut interrupt) => {
                interrupts += 1;
                ensure!(interrupts < INTERRUPTS, "the program does not end; it is left alone");
                tell(sink, &ToProgram::Signal("INT".into())).await?;
            }
            true = happened(&mut terminate) => {
                tell(sink, &ToProgram::Signal("TERM".into())).await?;
            }
        }
    }
}

async fn happened(signal: &mut Signal) -> bool {
    signal.recv().await.is_some()
}

async fn next(typed: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match typed {
        Some(typed) => typed.recv().await,
        None => std::future::pending().await,
    }
}

async fn tell(sink: &mut SplitSink<Socket, Message>, what: &ToProgram) -> anyhow::Result<()> {
    let text = serde_json::to_string(what)?;
    Ok(sink.send(Message::Text(text.into())).await.map_err(broken)?)
}

/// What comes in on standard input. A thread of its own reads it, since nothing can interrupt that: it does not keep this
/// program from ending, as a task of tokio's would.
fn typed() -> mpsc::Receiver<Bytes> {
    let (tell, typed) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut chunk = vec![0; 16 << 10];
        while let Ok(read) = std::io::stdin().lock().read(&mut chunk) {
            let bytes = Bytes::copy_from_slice(chunk.get(..read).unwrap_or_default());
            if read == 0 || tell.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    typed
}
