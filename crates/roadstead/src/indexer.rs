//! The indexer's verb.

use std::{io::IsTerminal as _, net::SocketAddr, sync::Arc, time::Duration};

use ::indexer::{Config, Status};
use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// How often the progress bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// From how many blocks on a backfill is worth a progress bar.
const FAR_BEHIND: u64 = 500;

/// What to do as an indexer.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Mirror the chain in Postgres: events, and the tables that follow from them. Ends when it is told to, and goes on
    /// where it was
    #[command(
        after_help = "Example:\n  roadstead indexer run --database-url postgresql://roadstead@localhost/roadstead"
    )]
    Run {
        /// The database, which it alone writes to
        // It may hold a password, which help must not show.
        #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
        database_url: String,
        /// Where /healthz, /readyz and /metrics are answered
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
        listen: SocketAddr,
        /// More JSON-RPC nodes: they are compared with one another, and asked when another one fails
        #[arg(long, value_name = "URL")]
        also_rpc: Vec<String>,
        /// A node's WebSocket endpoint, which announces new heads: each is looked for at once
        #[arg(
            long,
            env = "ROADSTEAD_SUBSCRIBE",
            value_name = "URL",
            value_delimiter = ',',
            hide_env_values = true
        )]
        subscribe: Vec<String>,
        /// How often the head of the chain is looked for whatever is announced, in milliseconds
        #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
        poll: u64,
        /// Take the nodes' word for headers and receipts, which are hashed otherwise: for chains that make them up
        /// differently than Ethereum
        #[arg(long)]
        trust_nodes: bool,
    },
}

pub(crate) async fn run(verb: Verb, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        Verb::Run { database_url, listen, also_rpc, subscribe, poll, trust_nodes } => {
            let chain = settings.connect().await?;
            let config = Config {
                rpc: std::iter::once(settings.rpc.clone()).chain(also_rpc).collect(),
                deployment: chain.deployment().clone(),
                database_url,
                poll: Duration::from_millis(poll),
                subscribe,
                proof: !trust_nodes,
            };
            serve(config, listen).await
        }
    }
}

/// Indexes and answers probes until one of the two ends or the program is told to stop.
async fn serve(config: Config, listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("{listen} cannot be listened on; --listen names another address")
    })?;
    tracing::info!("answering /healthz, /readyz and /metrics at http://{listen}");
    let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    {
        let (status, stop) = (Arc::clone(&status), stop.clone());
        tasks.spawn(async move { Ok(::indexer::run(config, status, stop).await?) });
    }
    {
        let stop = stop.clone();
        let served = axum::serve(listener, ::indexer::router(Arc::clone(&status)))
            .with_graceful_shutdown(async move { stop.cancelled().await });
        tasks.spawn(async move { Ok(served.await?) });
    }
    if std::io::stderr().is_terminal() {
        let (status, stop) = (Arc::clone(&status), stop.clone());
        tasks.spawn(async move {
            draw(&status, &stop).await;
            Ok(())
        });
    }
    tokio::select! {
        () = crate::interrupted() => (),
        ended = async { tasks.join_next().await } => if let Some(ended) = ended { ended?? },
    }
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Shows how far a backfill is, for as long as there is one.
async fn draw(status: &Status, stop: &CancellationToken) {
    let mut shown: Option<ProgressBar> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(DRAW_EVERY) => (),
        }
        let now = status.progress();
        let behind = now.head.saturating_sub(now.number);
        if shown.is_none() && behind > FAR_BEHIND {
            let bar = ProgressBar::new(now.head.saturating_sub(now.start));
            let style = ProgressStyle::with_template(
                "{bar:30} block {pos} of {len}, {per_sec}, {msg} events, {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_broken| ProgressStyle::default_bar()));
            shown = Some(bar);
        }
        let Some(bar) = &shown else { continue };
        if behind == 0 {
            bar.finish_and_clear();
            shown = None;
            continue;
        }
        bar.set_length(now.head.saturating_sub(now.start));
        bar.set_position(now.number.saturating_sub(now.start));
        bar.set_message(now.events.to_string());
    }
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
}
