//! A provider: `roadstead provider run` as a process of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
};

use alloy::{primitives::Address, signers::local::PrivateKeySigner};
use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Child;

use crate::{
    authority::Authority,
    engine::Engine,
    process::{bound, roadstead, run},
    site::Site,
    wait::until,
};

/// A provider, whether it runs or not.
#[derive(Debug)]
pub struct Provider {
    /// Its key, with which stories also do what only it may.
    pub signer: PrivateKeySigner,
    pub(crate) folder: PathBuf,
    pub(crate) netns: Option<String>,
    pub(crate) docker_host: Option<String>,
    pub(crate) api: SocketAddr,
    pub(crate) ingress: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) https: SocketAddr,
    /// The authority that gives its pods' hosts certificates, where it has one.
    pub authority: Option<Authority>,
    pub(crate) child: Option<Child>,
}

impl Provider {
    /// Who it is.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Where its API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// `host`, as its ingress serves it.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn site(&self, host: &str) -> anyhow::Result<Site> {
        Site::new(self.ingress, host)
    }

    /// Where its ingress serves HTTP.
    pub fn ingress(&self) -> SocketAddr {
        self.ingress
    }

    /// Where its ingress serves HTTPS, if it does.
    pub fn https(&self) -> SocketAddr {
        self.https
    }

    /// The authority that gives its pods' hosts certificates.
    ///
    /// # Errors
    /// When it has none.
    pub fn authority(&mut self) -> anyhow::Result<&mut Authority> {
        self.authority.as_mut().context("the provider has no authority")
    }

    /// Where its admin page is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("provider.toml")
    }

    /// Writes down the machines of its cluster.
    pub(crate) fn name_machines(
        &self,
        engines: &[&Engine],
        addresses: &[Ipv4Addr],
    ) -> anyhow::Result<()> {
        // This machine's kernel may have no IPsec.
        let config = std::fs::read_to_string(self.config())?;
        let mut config = config.replacen("[engine]\n", "[engine]\nencrypt = false\n", 1);
        for (engine, address) in engines.iter().zip(addresses) {
            config.push_str(&engine.table(*address));
        }
        Ok(std::fs::write(self.config(), config)?)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Runs a verb of `roadstead provider` with its wallet and its configuration, and returns what was printed as JSON.
    ///
    /// # Errors
    /// When it fails.
    pub async fn verb(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut command = tokio::process::Command::new(roadstead()?);
        command.args(["provider", "--json"]).args(args).arg("--config").arg(self.config());
        command.env("ROADSTEAD_HOME", self.folder.join("home"));
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        Ok(serde_json::from_str(&run(&mut command).await?)?)
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it wrote down of what a lease sent.
    ///
    /// # Errors
    /// When it wrote nothing.
    pub fn sent(&self, lease: u64) -> anyhow::Result<serde_json::Value> {
        for entry in std::fs::read_dir(self.data().join("records"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&format!("rs-{lease}-")) {
                return Ok(serde_json::from_slice(&std::fs::read(entry.path().join("egress"))?)?);
            }
        }
        anyhow::bail!("there is no record of lease {lease}")
    }

    /// Where it keeps what must not outlive a restart of the machine.
    pub fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// What it logged so far, over all its starts.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Starts it, on whatever it left before, and waits until it quotes.
    ///
    /// # Errors
    /// When it ends, or does not come to quote.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "the provider runs already");
        let before = self.log().len();
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = bound(self.netns.as_deref(), &roadstead()?);
        command
            .args(["provider", "run", "--config"])
            .arg(self.folder.join("provider.toml"))
            .env("ROADSTEAD_HOME", self.folder.join("home"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        let mut child = command.spawn().context("the provider cannot be started")?;
        until("the provider is ready", async || {
            let log = self.log();
            let new = log.get(before..).unwrap_or_default();
            if new.contains("is ready") {
                return Ok(Some(()));
            }
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("the provider ended with {status}");
            }
            Ok(None)
        })
        .await?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills it with -9.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the provider does not run")?;
        Ok(child.kill().await?)
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not run, or ends with a failure.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the provider does not run")?;
        if let Some(pid) = child.id() {
            kill(Pid::from_raw(pid.try_into()?), Signal::SIGTERM)?;
        }
        let status = child.wait().await?;
        ensure!(status.success(), "the provider ended with {status}");
        Ok(())
    }
}

/// Where something on this machine listens: everywhere, for the firewall to be what keeps pods away.
pub(crate) fn everywhere(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}
