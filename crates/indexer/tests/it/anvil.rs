//! A private chain whose blocks are made when the test says so.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use alloy::{
    primitives::{Address, hex, keccak256},
    signers::local::PrivateKeySigner,
};
use anyhow::{Context as _, ensure};
use chain::Deployment;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::postgres::project;

pub(crate) struct Anvil {
    child: Child,
    folder: TempDir,
    pub(crate) url: String,
    pub(crate) deployment: Deployment,
    http: reqwest::Client,
}

fn tool(name: &str) -> PathBuf {
    let ours = project().join("node_modules/.bin").join(name);
    if ours.exists() { ours } else { name.into() }
}

/// A key that is the same in every run.
pub(crate) fn key(number: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256([number])).unwrap()
}

impl Anvil {
    /// Starts a chain, deploys the contracts on it, and stops it from making blocks by itself.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let inside = project().join(".roadstead");
        std::fs::create_dir_all(&inside)?;
        let folder = tempfile::tempdir_in(inside)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(tool("anvil"))
            .args(["--port", &port.to_string(), "--order", "fifo", "--silent"])
            .args(["--auto-impersonate", "--gas-limit", "1000000000", "--accounts", "1"])
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let file = folder.path().join("deployment.json");
        let mut anvil = Self {
            child,
            url: url.clone(),
            deployment: Deployment {
                chain_id: 31_337,
                block: 0,
                token: Address::ZERO,
                payments: Address::ZERO,
                staking: Address::ZERO,
                registry: Address::ZERO,
                leases: Address::ZERO,
                sla: Address::ZERO,
                auction: Address::ZERO,
                apps: Address::ZERO,
            },
            folder,
            http: reqwest::Client::new(),
        };
        let end = Instant::now() + Duration::from_secs(20);
        while anvil.rpc("eth_chainId", json!([])).await.is_err() {
            ensure!(Instant::now() < end, "anvil does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let deployer = key(0);
        anvil
            .rpc("anvil_setBalance", json!([deployer.address(), "0xffffffffffffffffffff"]))
            .await?;
        let output = tokio::process::Command::new(tool("forge"))
            .args(["script", "script/Deploy.s.sol", "--rpc-url", &url, "--broadcast"])
            .args(["--skip-simulation", "--offline", "--no-storage-caching", "--non-interactive"])
            .env("DEPLOYER_KEY", hex::encode_prefixed(deployer.to_bytes()))
            .env("DEPLOYMENT_FILE", file.strip_prefix(project())?)
            .env("FOUNDRY_BROADCAST", anvil.folder.path().join("broadcast"))
            // Short times, so that a short history goes through all of them.
            .envs([("UNBOND_DELAY", "120"), ("CLAIM_WINDOW", "100"), ("CHALLENGE_PAUSE", "0")])
            .envs([
                ("EPOCH", "60"),
                ("MERGE_GAP", "10"),
                ("NAME_GRACE", "50"),
                ("WATCHER_BOND", "1"),
            ])
            .current_dir(project())
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "forge script: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        anvil.deployment = Deployment::read(&file)?;
        anvil.rpc("evm_setAutomine", json!([false])).await?;
        Ok(anvil)
    }

    pub(crate) async fn rpc(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
        let mut answer: Value = self.http.post(&self.url).json(&body).send().await?.json().await?;
        ensure!(answer.get("error").is_none(), "{method}: {answer}");
        Ok(answer["result"].take())
    }

    /// Many requests at once; those that fail are null.
    pub(crate) async fn batch(&self, calls: &[(&str, Value)]) -> anyhow::Result<Vec<Value>> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let body: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(id, (method, params))| {
                json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
            })
            .collect();
        let answers: Vec<Value> =
            self.http.post(&self.url).json(&body).send().await?.json().await?;
        Ok(answers.into_iter().map(|mut answer| answer["result"].take()).collect())
    }

    /// The height and hash of the latest block.
    pub(crate) async fn head(&self) -> anyhow::Result<(u64, String)> {
        let block = self.rpc("eth_getBlockByNumber", json!(["latest", false])).await?;
        let number = block["number"].as_str().context("no block")?.trim_start_matches("0x");
        let hash = block["hash"].as_str().context("no block")?.to_owned();
        Ok((u64::from_str_radix(number, 16)?, hash))
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(err) = ended {
            eprintln!("anvil was not ended: {err}");
        }
    }
}
