//! Settings, read once: the command line wins over the environment, the environment over the file.

use std::path::{Path, PathBuf};

use alloy::providers::{Provider as _, ProviderBuilder};
use anyhow::{Context as _, ensure};
use chain::{Chain, Deployment};
use serde::Deserialize;

use crate::cli::Global;

const DEFAULT_RPC: &str = "http://127.0.0.1:8545";

/// What holds for every verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where config.toml, the wallet and the names of apps are kept.
    pub(crate) home: PathBuf,
    /// The chain's node.
    pub(crate) rpc: String,
    /// Where the contracts are, if that was said.
    pub(crate) deployment: Option<PathBuf>,
    /// The encrypted key.
    pub(crate) wallet: PathBuf,
    /// The market that is asked which providers come into question, if there is one.
    pub(crate) market: Option<String>,
    /// The passphrase's file, if there is one.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Whether exact values are printed.
    pub(crate) json: bool,
}

/// config.toml. Its paths are relative to its folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rpc: Option<String>,
    deployment: Option<PathBuf>,
    wallet: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    market: Option<String>,
}

impl Settings {
    /// Reads config.toml and puts it under what was typed or is in the environment.
    pub(crate) fn read(global: &Global) -> anyhow::Result<Self> {
        let global = &said(global);
        let home = match &global.home {
            Some(home) => home.clone(),
            None => default_home(std::env::var_os("XDG_CONFIG_HOME"), std::env::home_dir())?,
        };
        let path = home.join("config.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(err) => {
                return Err(err).with_context(|| format!("{} cannot be read", path.display()));
            }
        };
        Self::of(global, home, &text).with_context(|| format!("{} is wrong", path.display()))
    }

    fn of(global: &Global, home: PathBuf, file: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(file)?;
        let beside = |path: Option<PathBuf>| path.map(|path| home.join(path));
        let wallet = global.wallet.clone().or_else(|| beside(file.wallet));
        Ok(Self {
            rpc: global.rpc.clone().or(file.rpc).unwrap_or_else(|| DEFAULT_RPC.to_owned()),
            market: global.market.clone().or(file.market),
            deployment: global.deployment.clone().or_else(|| beside(file.deployment)),
            wallet: wallet.unwrap_or_else(|| home.join("wallet.json")),
            passphrase_file: global
                .passphrase_file
                .clone()
                .or_else(|| beside(file.passphrase_file)),
            json: global.json,
            home,
        })
    }

    /// Connects to the chain that the settings name.
    pub(crate) async fn connect(&self) -> anyhow::Result<Chain> {
        let deployment = match &self.deployment {
            Some(path) => Deployment::read(path)?,
            None => self.deployment_of(self.chain_id().await?)?,
        };
        Ok(Chain::connect(&self.rpc, deployment).await?)
    }

    async fn chain_id(&self) -> anyhow::Result<u64> {
        let wrong = || format!("{:?} is not the URL of a JSON-RPC node", self.rpc);
        let url = self.rpc.parse().with_context(wrong)?;
        let node = ProviderBuilder::new().disable_recommended_fillers().connect_http(url);
        node.get_chain_id().await.with_context(|| {
            format!(
                "the node at {} does not answer; --rpc or ROADSTEAD_RPC names another one",
                self.rpc
            )
        })
    }

    /// The deployment on a chain that no option names a file for: of the project, else of the person.
    fn deployment_of(&self, chain_id: u64) -> anyhow::Result<Deployment> {
        let name = Path::new("deployments").join(format!("{chain_id}.json"));
        let personal = self.home.join(&name);
        let found = [&name, &personal].into_iter().find(|path| path.exists());
        ensure!(
            found.is_some(),
            "chain {chain_id} has no deployment at {} or {}; --deployment or ROADSTEAD_DEPLOYMENT names one",
            name.display(),
            personal.display()
        );
        Ok(Deployment::read(found.unwrap_or(&name))?)
    }
}

/// What was said, without what is empty: a variable that is set to nothing counts as unset.
fn said(global: &Global) -> Global {
    let path = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    Global {
        json: global.json,
        rpc: global.rpc.clone().filter(|url| !url.is_empty()),
        market: global.market.clone().filter(|url| !url.is_empty()),
        deployment: path(&global.deployment),
        wallet: path(&global.wallet),
        passphrase_file: path(&global.passphrase_file),
        home: path(&global.home),
    }
}

fn default_home(
    config: Option<std::ffi::OsString>,
    home: Option<PathBuf>,
) -> anyhow::Result<PathBuf> {
    // The XDG specification has relative paths ignored.
    let config = config.map(PathBuf::from).filter(|path| path.is_absolute());
    config
        .or_else(|| home.map(|home| home.join(".config")))
        .map(|config| config.join("roadstead"))
        .context("there is no home folder; name one with --home or ROADSTEAD_HOME")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(global: &Global, file: &str) -> anyhow::Result<Settings> {
        Settings::of(global, "/home/config".into(), file)
    }

    #[test]
    fn what_is_typed_wins_over_the_file_and_the_file_over_defaults() {
        let file = "rpc = \"http://file\"\nwallet = \"keys/a.json\"";
        let typed = Global { rpc: Some("http://typed".into()), ..Global::default() };

        let settings = read(&Global::default(), "").unwrap();
        assert_eq!(settings.rpc, DEFAULT_RPC);
        assert_eq!(settings.wallet, Path::new("/home/config/wallet.json"));
        assert_eq!(settings.deployment, None);

        let settings = read(&Global::default(), file).unwrap();
        assert_eq!(settings.rpc, "http://file");
        assert_eq!(settings.wallet, Path::new("/home/config/keys/a.json"));

        let settings = read(&typed, file).unwrap();
        assert_eq!(settings.rpc, "http://typed");
        assert_eq!(settings.wallet, Path::new("/home/config/keys/a.json"));
    }

    #[test]
    fn what_is_empty_is_not_said() {
        let empty = Global {
            json: true,
            rpc: Some(String::new()),
            market: Some(String::new()),
            deployment: Some("".into()),
            wallet: Some("".into()),
            passphrase_file: Some("".into()),
            home: Some("".into()),
        };
        let said = said(&empty);
        assert!(said.market.is_none());
        assert!(said.json && said.rpc.is_none() && said.deployment.is_none());
        assert!(said.wallet.is_none() && said.passphrase_file.is_none() && said.home.is_none());
        let typed = Global { home: Some("/h".into()), ..Global::default() };
        assert_eq!(super::said(&typed).home, Some("/h".into()));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let err = read(&Global::default(), "rcp = \"http://file\"").unwrap_err();
        assert!(err.to_string().contains("rcp"), "{err}");
    }

    #[test]
    fn the_home_folder_follows_xdg() {
        let home = |config: Option<&str>, home: Option<&str>| {
            default_home(config.map(Into::into), home.map(Into::into)).ok()
        };
        assert_eq!(home(Some("/x"), Some("/h")), Some("/x/roadstead".into()));
        assert_eq!(home(Some("x"), Some("/h")), Some("/h/.config/roadstead".into()));
        assert_eq!(home(None, Some("/h")), Some("/h/.config/roadstead".into()));
        assert_eq!(home(None, None), None);
    }
}
