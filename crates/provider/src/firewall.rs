//! What a pod can reach: the world, the other containers of its own pod, and nothing else.
//!
//! A pod sends whatever packets it likes. The rules are the same for every pod, as all pods' bridges share a name
//! prefix, so that starting a pod changes no rule: nothing to the host itself (a bridge's gateway is the host), to
//! private, link-local and metadata addresses, or to other pods. Docker's own chains isolate the bridges too; these
//! rules hold without them.

use std::{fs::File, io};

use tokio::process::Command;

/// What the name of every pod's bridge begins with; an interface name has at most 15 characters.
pub(crate) const BRIDGE_PREFIX: &str = "rs";

const CHAIN: &str = "ROADSTEAD";

/// Goes with the machine's other locks at a restart, as the rules do.
const LOCK: &str = "/run/lock/roadstead-firewall";

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
    Missing(#[source] io::Error),
    /// The lock that keeps two providers apart cannot be had.
    #[error("{LOCK} cannot be locked; run the provider as root")]
    Lock(#[source] io::Error),
    /// It refused.
    #[error("iptables {0} failed: {1}")]
    Refused(String, String),
}

/// The rules as `iptables -S` prints them.
fn rules() -> Vec<String> {
    let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j";
    let host = [
        format!("-A INPUT -i {BRIDGE_PREFIX}+ -j DROP"),
        format!("-A INPUT -i {BRIDGE_PREFIX}+ {known} ACCEPT"),
        format!("-A DOCKER-USER -i {BRIDGE_PREFIX}+ -j {CHAIN}"),
    ];
    let out = [
        format!("-A {CHAIN} {known} RETURN"),
        // Containers of one pod talk over their bridge; such packets come here only where br_netfilter is loaded.
        format!("-A {CHAIN} -m physdev --physdev-is-bridged -j RETURN"),
    ];
    let private = PRIVATE.iter().map(|network| format!("-A {CHAIN} -d {network} -j DROP"));
    host.into_iter().chain(out).chain(private).collect()
}

/// Sets those rules that are not there: before each pod starts, because somebody else may have cleared the tables.
pub(crate) async fn ensure() -> Result<(), FirewallError> {
    let _alone = lock().await?;
    let present = iptables(&["-S"]).await?;
    let missing = |rule: &String| !present.lines().any(|line| line == rule);
    let missing: Vec<String> = rules().into_iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for chain in [CHAIN, "DOCKER-USER"] {
        if !present.lines().any(|line| line == format!("-N {chain}")) {
            iptables(&["-N", chain]).await?;
        }
    }
    for rule in missing {
        // Ours come first in chains that others use too; of INPUT's two the one that lets answers through.
        let rule = match rule.starts_with(&format!("-A {CHAIN} ")) {
            true => rule,
            false => rule.replacen("-A", "-I", 1),
        };
        iptables(&rule.split(' ').collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Takes the rules away.
pub(crate) async fn remove() -> Result<(), FirewallError> {
    let _alone = lock().await?;
    let present = iptables(&["-S"]).await?;
    let ours = rules();
    for rule in present.lines().filter(|line| ours.iter().any(|rule| rule == line)) {
        iptables(&rule.replacen("-A", "-D", 1).split(' ').collect::<Vec<_>>()).await?;
    }
    if present.lines().any(|line| line == format!("-N {CHAIN}")) {
        iptables(&["-X", CHAIN]).await?;
    }
    Ok(())
}

/// Held while rules are looked at and changed: several providers may do so on one machine.
async fn lock() -> Result<File, FirewallError> {
    let lock = || {
        let file = File::create(LOCK)?;
        file.lock()?;
        Ok(file)
    };
    let locked = tokio::task::spawn_blocking(lock).await;
    locked.map_err(io::Error::other).flatten().map_err(FirewallError::Lock)
}

async fn iptables(args: &[&str]) -> Result<String, FirewallError> {
    // `-w`: somebody else (the engine) may hold the lock.
    let output = Command::new("iptables").arg("-w").args(args).output().await;
    let output = output.map_err(FirewallError::Missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(FirewallError::Refused(args.join(" "), words))
}
