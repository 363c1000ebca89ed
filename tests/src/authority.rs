//! A certificate authority: pebble, Let's Encrypt's for tests, with name servers for which every name is this machine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;
use reqwest::{Certificate, Client};
use tokio::{net::TcpStream, process::Child};

use crate::{anvil::free_port, process::bound, wait::until};

/// The zone in which its customers may set records.
const ZONE: &str = "acme.provider.example.org";

/// An authority that looks for proofs for real.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    directory: String,
    roots: String,
    names: SocketAddr,
    pebble: Child,
    _name_server: Child,
}

impl Authority {
    /// Starts one that finds the plain ingress of every host at `http`, and the HTTPS one nowhere.
    pub(crate) async fn start(folder: &Path, http: u16) -> anyhow::Result<Self> {
        let folder = folder.join("authority");
        std::fs::create_dir_all(&folder)?;
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (acme, management) = (local(free_port()?), local(free_port()?));
        let (dns, names) = (local(free_port()?), local(free_port()?));

        let key = rcgen::KeyPair::generate()?;
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
        std::fs::write(folder.join("server.pem"), own.pem())?;
        std::fs::write(folder.join("server.key"), key.serialize_pem())?;
        let config = serde_json::json!({ "pebble": {
            "listenAddress": acme,
            "managementListenAddress": management,
            "certificate": folder.join("server.pem"),
            "privateKey": folder.join("server.key"),
            "httpPort": http,
            "tlsPort": 1,
        }});
        std::fs::write(folder.join("pebble.json"), config.to_string())?;

        let mut name_server = bound(None, Path::new("pebble-challtestsrv"));
        name_server.args(["-defaultIPv6=", "-http01=", "-https01=", "-tlsalpn01="]);
        name_server.args([format!("-dns01={dns}"), format!("-management={names}")]);
        let mut pebble = bound(None, Path::new("pebble"));
        pebble.arg("-config").arg(folder.join("pebble.json"));
        pebble.args(["-dnsserver", &dns.to_string()]);
        pebble.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")]);
        let start = |mut command: tokio::process::Command| {
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            quiet.spawn().context("pebble cannot be run; `make setup` brings it")
        };
        let (name_server, pebble) = (start(name_server)?, start(pebble)?);
        for address in [acme, management, names] {
            until("pebble listens", async || Ok(Some(TcpStream::connect(address).await?))).await?;
        }
        let this = Self {
            folder,
            directory: format!("https://{acme}/dir"),
            roots: format!("https://{management}/roots/0"),
            names,
            pebble,
            _name_server: name_server,
        };
        let program = this.program();
        // What an operator writes for the name servers at hand.
        let script = format!(
            "#!/bin/bash\nset -eu\ncase $1 in add) path=set-txt ;; remove) path=clear-txt ;; esac\n\
             body=\"{{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}}\"\n\
             exec 3<>/dev/tcp/{}/{}\n\
             printf 'POST /%s HTTP/1.0\\r\\ncontent-length: %s\\r\\n\\r\\n%s' \"$path\" \"${{#body}}\" \"$body\" >&3\n\
             read -r answer <&3\n[[ $answer = *' 200 '* ]]\n",
            names.ip(),
            names.port()
        );
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
        Ok(this)
    }

    fn program(&self) -> PathBuf {
        self.folder.join("set-record")
    }

    /// What a provider's file says of it.
    pub(crate) fn table(&self) -> String {
        let (directory, root, program) =
            (&self.directory, self.folder.join("server.pem"), self.program());
        format!(
            "[tls.acme]\ndirectory = {directory:?}\nroot = {root:?}\ncontact = [\"mailto:me@example.org\"]\n\
             dns_zone = {ZONE:?}\ndns_program = {program:?}\n"
        )
    }

    /// The certificate that vouches for those that it gives, in PEM.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn root(&self) -> anyhow::Result<Vec<u8>> {
        let own = Certificate::from_pem(&std::fs::read(self.folder.join("server.pem"))?)?;
        let client = Client::builder().no_proxy().tls_certs_only([own]).build()?;
        let answer = client.get(&self.roots).send().await?.error_for_status()?;
        Ok(answer.bytes().await?.to_vec())
    }

    /// Has `_acme-challenge` of a host be an alias of what the provider names for it.
    ///
    /// # Errors
    /// When the name server does not answer.
    pub async fn delegate(&self, host: &str) -> anyhow::Result<()> {
        let alias = serde_json::json!({
            "host": format!("_acme-challenge.{host}."),
            "target": format!("{host}.{ZONE}."),
        });
        self.tell("set-cname", &alias).await
    }

    /// Has a host lead nowhere, so that nothing is proved over HTTP.
    ///
    /// # Errors
    /// When the name server does not answer.
    pub async fn hide(&self, host: &str) -> anyhow::Result<()> {
        let host = serde_json::json!({ "host": format!("{host}.") });
        self.tell("set-servfail", &host).await
    }

    async fn tell(&self, what: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let client = Client::builder().no_proxy().build()?;
        let url = format!("http://{}/{what}", self.names);
        client.post(url).body(body.to_string()).send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends it: nobody gets a certificate any more.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.pebble.kill().await?)
    }
}
