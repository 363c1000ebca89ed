//! Roadstead: run containers on an open market, and earn by running them. The one program of all roles.

mod account;
mod app;
mod attest;
mod bid;
mod candidates;
mod challenge;
mod claim;
mod cli;
mod client;
mod convert;
mod copy;
mod deploy;
mod dev;
mod encrypt;
mod events;
mod exec;
mod forward;
mod images;
mod indexer;
mod init;
mod market;
mod money;
mod moving;
mod order;
mod output;
mod podfile;
mod progress;
mod provider;
mod providers;
mod publish;
mod remote;
mod session;
mod settings;
mod show;
mod stake;
mod state;
mod stats;
mod tars;
mod trust;
mod unlock;
mod verify;
mod volume;
mod vouch;
mod wallet;
mod watch;
mod watcher;

use std::{io::IsTerminal as _, process::ExitCode};

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
    let service = matches!(
        cli.verb,
        Verb::Provider(provider::Verb::Run { .. } | provider::Verb::Bidder(_))
            | Verb::Indexer(indexer::Verb::Run { .. })
            | Verb::Market(market::serve::Verb::Run { .. })
    );
    let level = if service { "info" } else { "warn" };
    let log = EnvFilter::try_from_env("ROADSTEAD_LOG").unwrap_or_else(|_unset| level.into());
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(log).with_ansi(colours);
    let subscriber = subscriber.with_writer(std::io::stderr);
    if service && cli.global.json {
        subscriber.json().init()
    } else {
        subscriber.init()
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: TLS is set up already, by something else than this program");
        return ExitCode::FAILURE;
    }
    match Box::pin(run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) if is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) if err.is::<exec::Ended>() && err.chain().count() == 1 => {
            let code = err.downcast_ref().map_or(1, |exec::Ended(code)| *code);
            code.into()
        }
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
        Verb::Check { file, provider } => show::check(&settings, &file, provider).await,
        Verb::Convert { files, output } => convert::run(&files, output.as_deref(), settings.json),
        Verb::Schema => convert::schema(),
        Verb::Providers(args) => providers::run(&settings, &args).await,
        Verb::Quote { file, choice } => publish::quote(&settings, &file, &choice).await,
        Verb::Deploy { file, choice, app, fund, yes } => {
            publish::deploy(&settings, &file, &choice, app, fund.as_deref(), yes).await
        }
        Verb::Ps(args) => Box::pin(watch::ps(&settings, &args)).await,
        Verb::Logs { lease, follow, tail, service, since } => {
            let (service, since) = (service.as_deref(), since.as_ref());
            show::logs(&settings, &lease, service, follow, tail, since).await
        }
        Verb::Events(args) => events::run(&settings, &args).await,
        Verb::Exec(args) => exec::exec(&settings, &args).await,
        Verb::Shell(args) => exec::shell(&settings, &args).await,
        Verb::Cp(args) => copy::run(&settings, &args).await,
        Verb::PortForward(args) => forward::run(&settings, &args).await,
        Verb::Stats(args) => stats::run(&settings, &args).await,
        Verb::Top => stats::top(&settings).await,
        Verb::Volume(verb) => volume::run(&settings, &verb).await,
        Verb::Move(args) => Box::pin(moving::run(&settings, &args)).await,
        Verb::Update { lease, file, max_price, fund, yes } => {
            let fund = fund.as_deref();
            Box::pin(publish::update(&settings, &lease, &file, max_price, fund, yes)).await
        }
        Verb::Down { lease } => publish::down(&settings, &lease).await,
        Verb::Fund { amount, account } => publish::fund(&settings, &amount, &account.account).await,
        Verb::Withdraw { amount, account } => {
            publish::withdraw(&settings, &amount, &account.account).await
        }
        Verb::Account => show::account(&settings).await,
        Verb::Order(verb) => Box::pin(order::run(&settings, &verb)).await,
        Verb::Bid(args) => Box::pin(bid::run(&settings, &args)).await,
        Verb::App(verb) => Box::pin(app::run(&settings, &verb)).await,
        Verb::Challenge(args) => Box::pin(challenge::run(&settings, &args)).await,
        Verb::Stake(verb) => Box::pin(stake::run(&settings, &verb)).await,
        Verb::Attest(args) => Box::pin(attest::run(&settings, &args)).await,
        Verb::Verify(args) => Box::pin(verify::run(&settings, &args)).await,
        Verb::Vouch(args) => Box::pin(vouch::run(&settings, &args)).await,
        Verb::Watcher(verb) => Box::pin(watcher::run(&settings, &verb)).await,
        Verb::Claim => claim::run(&settings, &claim::Source::ALL).await,
        Verb::Image(verb) => Box::pin(encrypt::run(&settings, &verb)).await,
        Verb::Unlock(args) => Box::pin(unlock::run(&settings, &args)).await,
        Verb::Wallet(verb) => wallet::run(&verb, &settings).await,
        Verb::Provider(verb) => provider::run(&verb, &settings).await,
        Verb::Indexer(verb) => indexer::run(verb, &settings).await,
        Verb::Market(verb) => market::serve::run(verb, &settings).await,
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
