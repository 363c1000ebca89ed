//! What a pod can reach: the world, the other containers of its own pod, and nothing else.
//!
//! A pod sends whatever packets it likes. The rules are the same for every pod, as all pods' bridges share a name
//! prefix, so that starting a pod changes no rule: nothing to the host itself (a bridge's gateway is the host), to
//! private, link-local and metadata addresses, or to other pods. Docker's own chains isolate the bridges too; these
//! rules hold without them.

use tokio::process::Command;

/// What the name of every pod's bridge begins with; an interface name has at most 15 characters.
pub(crate) const BRIDGE_PREFIX: &str = "rs";

const CHAIN: &str = "ROADSTEAD";

/// Networks that are not the world: RFC 1918, 6598, 3927, 6890, and multicast.
const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "192.0.0.0/24",
    "198.18.0.0/15",
    "224.0.0.0/3",
];

/// A rule that could not be set; no pod is started then.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The program is missing or cannot be run.
    #[error("iptables cannot be run; install it and run the provider as root")]
    Missing(#[source] std::io::Error),
    /// It refused.
    #[error("iptables {0} failed: {1}")]
    Refused(String, String),
}

/// Sets the rules, whole and in order, whether or not they are there already.
pub(crate) async fn install() -> Result<(), FirewallError> {
    let bridges = format!("{BRIDGE_PREFIX}+");
    // Both chains may be there from before, perhaps of another provider on this machine: they are the same then.
    let _there_already = iptables(&["-N", CHAIN]).await;
    let _there_already = iptables(&["-N", "DOCKER-USER"]).await;
    let answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN"];
    ensure(CHAIN, &answers).await?;
    // Containers of one pod talk over their bridge; such packets come here only where br_netfilter is loaded.
    ensure(CHAIN, &["-m", "physdev", "--physdev-is-bridged", "-j", "RETURN"]).await?;
    for network in PRIVATE {
        ensure(CHAIN, &["-d", network, "-j", "DROP"]).await?;
    }
    ensure_first("DOCKER-USER", &["-i", &bridges, "-j", CHAIN]).await?;
    // To the host: answers to its own connections (ingress, health) only.
    ensure_first("INPUT", &["-i", &bridges, "-j", "DROP"]).await?;
    let mut host = vec!["-i", bridges.as_str()];
    host.extend(["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"]);
    ensure_first("INPUT", &host).await
}

async fn ensure(chain: &str, rule: &[&str]) -> Result<(), FirewallError> {
    if iptables(&[&["-C", chain], rule].concat()).await.is_err() {
        iptables(&[&["-A", chain], rule].concat()).await?;
    }
    Ok(())
}

async fn ensure_first(chain: &str, rule: &[&str]) -> Result<(), FirewallError> {
    if iptables(&[&["-C", chain], rule].concat()).await.is_err() {
        iptables(&[&["-I", chain], rule].concat()).await?;
    }
    Ok(())
}

async fn iptables(args: &[&str]) -> Result<(), FirewallError> {
    // `-w`: somebody else (the engine) may hold the lock.
    let output = Command::new("iptables").arg("-w").args(args).output().await;
    let output = output.map_err(FirewallError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(FirewallError::Refused(args.join(" "), words))
}
