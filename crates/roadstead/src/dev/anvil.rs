//! A private chain.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use alloy::providers::{Provider as _, ProviderBuilder};
use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// anvil, with a block every second and at once for every transaction.
#[derive(Debug)]
pub(super) struct Anvil {
    child: Child,
    pub(super) url: String,
}

/// A tool of the project's, or else of the machine's.
pub(super) fn tool(root: &Path, name: &str) -> PathBuf {
    let ours = root.join("node_modules/.bin").join(name);
    if ours.exists() { ours } else { name.into() }
}

impl Anvil {
    pub(super) fn start(root: &Path, folder: &Path, port: u16) -> anyhow::Result<Self> {
        // It leaves what it caches in its temporary folder.
        let temporary = folder.join("anvil");
        std::fs::create_dir_all(&temporary)?;
        let child = Command::new(tool(root, "anvil"))
            .args(["--port", &port.to_string(), "--block-time", "1", "--mixed-mining"])
            .args(["--prune-history", "256", "--silent"])
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us: the chain goes last.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("anvil cannot be run; `make setup` brings it")?;
        Ok(Self { child, url: format!("http://127.0.0.1:{port}") })
    }

    /// Waits until it answers.
    pub(super) async fn answers(&mut self) -> anyhow::Result<()> {
        let node = ProviderBuilder::new().connect_http(self.url.parse()?);
        let end = Instant::now() + PATIENCE;
        while node.get_chain_id().await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("anvil ended with {status}");
            }
            if Instant::now() > end {
                bail!("anvil does not answer at {}", self.url);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        // It is gone if it cannot be killed.
        let _gone = self.child.kill().await;
    }
}
