//! Roadstead: run containers on an open market, and earn by running them. The one program of all roles.

mod account;
mod cli;
mod client;
mod deploy;
mod dev;
mod images;
mod init;
mod market;
mod money;
mod output;
mod podfile;
mod progress;
mod provider;
mod publish;
mod session;
mod settings;
mod show;
mod state;
mod wallet;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Verb},
    settings::Settings,
};

/// The lease was opened and did not start.
const NOT_STARTED: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // A service tells how it goes; a verb shows what came of it.
    let service = matches!(cli.verb, Verb::Provider(provider::Verb::Run { .. }));
    let level = if service { "info" } else { "warn" };
    let log = EnvFilter::try_from_env("ROADSTEAD_LOG").unwrap_or_else(|_unset| level.into());
    tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).init();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: TLS is set up already, by something else than this program");
        return ExitCode::FAILURE;
    }
    match Box::pin(run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) if is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {}", output::causes(&err));
            match err.downcast_ref::<deploy::NotStarted>() {
                Some(_) => NOT_STARTED.into(),
                None => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let settings = Settings::read(&cli.global)?;
    match cli.verb {
        Verb::Init { file } => init::run(&file, settings.json),
        Verb::Check { file, provider } => {
            show::check(&settings, file.file.as_deref(), provider).await
        }
        Verb::Providers => show::providers(&settings).await,
        Verb::Quote { file, choice } => publish::quote(&settings, &file, &choice).await,
        Verb::Deploy { file, choice, app, fund, yes } => {
            publish::deploy(&settings, &file, &choice, app, fund.as_deref(), yes).await
        }
        Verb::Ps { all } => show::ps(&settings, all).await,
        Verb::Logs { lease, follow, tail, service } => {
            let session = publish::session(&settings).await?;
            show::logs(&settings, &session, &lease, service.as_deref(), follow, tail).await
        }
        Verb::Update { lease, file, max_price, fund, yes } => {
            publish::update(&settings, &lease, &file, max_price, fund.as_deref(), yes).await
        }
        Verb::Down { lease } => publish::down(&settings, &lease).await,
        Verb::Fund { amount, account } => publish::fund(&settings, &amount, &account.account).await,
        Verb::Withdraw { amount, account } => {
            publish::withdraw(&settings, &amount, &account.account).await
        }
        Verb::Account => show::account(&settings).await,
        Verb::Wallet(verb) => wallet::run(&verb, &settings).await,
        Verb::Provider(verb) => provider::run(&verb, &settings).await,
        Verb::Dev(args) => dev::run(&args, &settings).await,
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "roadstead", &mut script);
            Ok(output::print(String::from_utf8(script)?.trim_end())?)
        }
    }
}

/// Ends when the person or the system asks this program to.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
        }
        // Then the signals end it by themselves.
        (Err(_), _) | (_, Err(_)) => std::future::pending().await,
    }
}

/// Whether the failure is that a reader such as `head` has had enough.
fn is_broken_pipe(err: &anyhow::Error) -> bool {
    let io = err.downcast_ref::<std::io::Error>();
    io.is_some_and(|err| err.kind() == std::io::ErrorKind::BrokenPipe)
}
