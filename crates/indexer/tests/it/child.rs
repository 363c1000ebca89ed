//! The indexer as a process of its own, to be killed.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use chain::Deployment;
use indexer::{Config, Status};
use tokio_util::sync::CancellationToken;

use super::anvil::Anvil;

/// Starts this test's program once more, as an indexer.
pub(crate) fn spawn(anvil: &Anvil, database_url: &str) -> anyhow::Result<Child> {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe()?)
        .args(["--ignored", "--exact", "it::child::indexer_process"])
        .env("CHILD_RPC", &anvil.url)
        .env("CHILD_DATABASE", database_url)
        .env("CHILD_DEPLOYMENT", serde_json::to_string(&anvil.deployment)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(command.spawn()?)
}

fn given(name: &str) -> anyhow::Result<String> {
    let value = std::env::var_os(name).with_context(|| format!("{name} is not set"))?;
    value.into_string().ok().with_context(|| format!("{name} is not text"))
}

#[tokio::test]
#[ignore = "not a test: the process that killed_at_any_instant kills"]
async fn indexer_process() {
    let Ok(rpc) = given("CHILD_RPC") else { return };
    let _already_set = rustls::crypto::ring::default_provider().install_default();
    let deployment: Deployment = serde_json::from_str(&given("CHILD_DEPLOYMENT").unwrap()).unwrap();
    let config = Config {
        rpc: vec![rpc],
        deployment,
        database_url: given("CHILD_DATABASE").unwrap(),
        poll: Duration::from_millis(10),
        subscribe: Vec::new(),
        proof: true,
    };
    let status = Arc::new(Status::default());
    indexer::run(config, status, CancellationToken::new()).await.unwrap();
}
