//! A private chain, with the contracts on it.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use alloy::{
    primitives::{Address, U256, hex},
    providers::{Provider as _, ProviderBuilder, ext::AnvilApi as _},
    signers::local::PrivateKeySigner,
};
use chain::{Chain, Deployment};
use tokio::process::{Child, Command};

use crate::{
    process::{bound, project, run, tool},
    wait::until,
};

/// anvil, with a block every second and at once for every transaction.
#[derive(Debug)]
pub(crate) struct Anvil {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) deployment: PathBuf,
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Coins for the gas of a test.
pub(crate) fn coins() -> U256 {
    U256::from(1_000) * U256::from(10).pow(U256::from(18))
}

impl Anvil {
    /// Starts a chain and deploys the contracts on it.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<(Self, Chain)> {
        // It leaves what it caches in its temporary folder.
        let temporary = folder.join("anvil");
        std::fs::create_dir_all(&temporary)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let child = bound(None, &tool("anvil"))
            .args(["--port", &address.port().to_string(), "--block-time", "1", "--mixed-mining"])
            .args(["--prune-history", "256", "--silent"])
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let url = format!("http://{address}");
        let node = ProviderBuilder::new().connect_http(url.parse()?);
        until("anvil answers", async || Ok(Some(node.get_chain_id().await?))).await?;

        let deployer = PrivateKeySigner::random();
        node.anvil_set_balance(deployer.address(), coins()).await?;
        let deployment = folder.join("deployment.json");
        let inside = deployment.strip_prefix(project())?;
        let mut forge = Command::new(tool("forge"));
        forge
            .args(["script", "script/Deploy.s.sol", "--rpc-url", &url, "--broadcast"])
            .args(["--skip-simulation", "--offline", "--no-storage-caching", "--non-interactive"])
            .env("DEPLOYER_KEY", hex::encode_prefixed(deployer.to_bytes()))
            .env("DEPLOYMENT_FILE", inside)
            .env("FOUNDRY_BROADCAST", folder.join("broadcast"))
            .current_dir(project());
        run(&mut forge).await?;
        let chain = Chain::connect(&url, Deployment::read(&deployment)?).await?;
        Ok((Self { child, address, deployment }, chain))
    }

    /// Ends it.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Gives `to` coins for gas and `tokens` base units of the test token.
pub(crate) async fn fund(chain: &Chain, to: Address, tokens: u128) -> anyhow::Result<()> {
    let node = chain.provider();
    let minter = PrivateKeySigner::random();
    for address in [to, minter.address()] {
        node.anvil_set_balance(address, coins()).await?;
    }
    let call = chain::abi::Erc20::mintCall { to, amount: U256::from(tokens) };
    chain::Sender::new(chain.clone(), minter).send(chain.deployment().token, &call).await?;
    Ok(())
}
