//! The market's verb.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use ::market::{Config, Limits};
use anyhow::Context as _;
use clap::Subcommand;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// How many times as many requests one address may send at once as in the long run per second.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

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
        /// A reverse proxy stands in front: who asks is the last address of `X-Forwarded-For`, which it has to write. Without
        /// a proxy anybody could write it
        #[arg(long)]
        behind_proxy: bool,
        /// How many requests per second one address may send in the long run; five times as many at once
        #[arg(long, value_name = "COUNT", default_value = "20")]
        requests_per_second: NonZeroU32,
        /// From which age of its last block on the mirror counts as not ready, in seconds; without it at no age
        #[arg(long, value_name = "SECONDS")]
        stale_after: Option<u64>,
    },
}

pub(crate) async fn run(verb: Verb, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        Verb::Run { database_url, listen, behind_proxy, requests_per_second, stale_after } => {
            let chain = settings.connect().await?;
            let token = chain.token().await.context("the settlement token cannot be read")?;
            let ttl = chain.registry().TTL().call().await;
            let ttl = ttl.context("the Registry's TTL cannot be read")?.to::<u64>();
            let config = Config {
                deployment: chain.deployment().clone(),
                token,
                ttl,
                database_url,
                behind_proxy,
                limits: Limits {
                    requests: requests_per_second,
                    burst: requests_per_second.saturating_mul(BURST),
                    ..Limits::default()
                },
                stale_after: stale_after.map(Duration::from_secs),
            };
            let listener = TcpListener::bind(listen).await.with_context(|| {
                format!("{listen} cannot be listened on; --listen names another address")
            })?;
            let listen = listener.local_addr()?;
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
