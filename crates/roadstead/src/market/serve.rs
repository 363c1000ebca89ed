//! The market's verb.

use std::net::SocketAddr;

use ::market::Config;
use anyhow::Context as _;
use clap::Subcommand;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// What to do as the operator of a market.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what an indexer mirrors: an API for programs and a page for people. It only reads
    #[command(
        after_help = "Example:\n  roadstead market run --database-url postgresql://roadstead@localhost/roadstead"
    )]
    Run {
        /// The database that `roadstead indexer run` writes to
        // It may hold a password, which help must not show.
        #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
        database_url: String,
        /// Where the API and the page are
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8600")]
        listen: SocketAddr,
    },
}

pub(crate) async fn run(verb: Verb, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        Verb::Run { database_url, listen } => {
            let chain = settings.connect().await?;
            let token = chain.token().await.context("the settlement token cannot be read")?;
            let config = Config { deployment: chain.deployment().clone(), token, database_url };
            let listener = TcpListener::bind(listen).await.with_context(|| {
                format!("{listen} cannot be listened on; --listen names another address")
            })?;
            tracing::info!("the market is at http://{listen}");
            let stop = CancellationToken::new();
            let served = ::market::run(config, listener, stop.clone());
            tokio::pin!(served);
            tokio::select! {
                ended = &mut served => return Ok(ended?),
                () = crate::interrupted() => stop.cancel(),
            }
            Ok(served.await?)
        }
    }
}
