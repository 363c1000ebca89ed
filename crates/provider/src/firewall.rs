//! What a pod can reach: the world, the other containers of its own pod, and nothing else.
//!
//! A pod sends whatever packets it likes. The rules are the same for every pod, as all pods' bridges share a name
//! prefix, so that starting a pod changes no rule: nothing to the host itself (a bridge's gateway is the host), to
//! private, link-local and metadata addresses, or to other pods. Docker's own chains isolate the bridges too; these
//! rules hold without them.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
};

use tokio::process::Command;

/// What the name of every pod's bridge begins with; an interface name has at most 15 characters.
pub(crate) const BRIDGE_PREFIX: &str = "rs";

const CHAIN: &str = "ROADSTEAD";

/// Where what leases send is bounded, to the world and to visitors: see `egress`.
pub(crate) const EGRESS: &str = "ROADSTEAD-EGRESS";
pub(crate) const ANSWERS: &str = "ROADSTEAD-ANSWERS";

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
    #[error("{0} cannot be run; install it and run the provider as root")]
    Missing(&'static str, #[source] io::Error),
    /// The lock that keeps two providers apart cannot be had.
    #[error("{LOCK} cannot be locked; run the provider as root")]
    Lock(#[source] io::Error),
    /// It refused.
    #[error("{0} failed: {1}")]
    Refused(String, String),
}

/// Whether an address is one of the public internet's, and so nothing of this machine's or of what is around it.
pub(crate) fn is_world(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_world_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_world_v4(ip),
            // What is given out (2000::/3), but for what leads to IPv4 (6to4, Teredo) and what documentation uses.
            None => match ip.segments() {
                [0x2001, 0 | 0xdb8, ..] | [0x2002, ..] => false,
                [first, ..] => first >> 13 == 1,
            },
        },
    }
}

fn is_world_v4(ip: Ipv4Addr) -> bool {
    let within = |network: &str| {
        let (base, length) = network.split_once('/')?;
        let (base, length): (Ipv4Addr, u32) = (base.parse().ok()?, length.parse().ok()?);
        let mask = u32::MAX << (32 - length);
        Some(u32::from(ip) & mask == u32::from(base) & mask)
    };
    // "This network": a connection to it ends at the machine itself.
    ip.octets()[0] != 0 && !PRIVATE.into_iter().any(|network| within(network).unwrap_or(true))
}

/// The rules as `iptables -S` prints them.
fn rules() -> Vec<String> {
    let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j";
    let host = [
        format!("-A INPUT -i {BRIDGE_PREFIX}+ -j DROP"),
        format!("-A INPUT -i {BRIDGE_PREFIX}+ {known} ACCEPT"),
        format!("-A INPUT -i {BRIDGE_PREFIX}+ -j {ANSWERS}"),
        format!("-A DOCKER-USER -i {BRIDGE_PREFIX}+ -j {EGRESS}"),
        format!("-A DOCKER-USER -i {BRIDGE_PREFIX}+ -j {CHAIN}"),
    ];
    let out = [
        format!("-A {CHAIN} {known} RETURN"),
        // Containers of one pod talk over their bridge; such packets come here only where br_netfilter is loaded.
        format!("-A {CHAIN} -m physdev --physdev-is-bridged -j RETURN"),
        format!("-A {EGRESS} -m physdev --physdev-is-bridged -j RETURN"),
    ];
    let private = PRIVATE.iter().map(|network| format!("-A {CHAIN} -d {network} -j DROP"));
    host.into_iter().chain(out).chain(private).collect()
}

/// Sets those rules that are not there: before each pod starts, because somebody else may have cleared the tables.
pub(crate) async fn ensure() -> Result<(), FirewallError> {
    let _alone = lock().await?;
    let six = rules_six();
    set_six(&six).await?;
    let present = iptables(&["-S"]).await?;
    let missing = |rule: &String| !present.lines().any(|line| line == rule);
    let missing: Vec<String> = rules().into_iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for chain in [CHAIN, EGRESS, ANSWERS, "DOCKER-USER"] {
        if !present.lines().any(|line| line == format!("-N {chain}")) {
            iptables(&["-N", chain]).await?;
        }
    }
    for rule in missing {
        // Ours come first in chains that others use too: of INPUT's, the one that bounds answers, then the one that lets
        // them through.
        let own =
            [CHAIN, EGRESS, ANSWERS].iter().any(|chain| rule.starts_with(&format!("-A {chain} ")));
        let rule = match own {
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
    for chain in [CHAIN, EGRESS, ANSWERS] {
        if present.lines().any(|line| line == format!("-N {chain}")) {
            iptables(&["-F", chain]).await?;
            iptables(&["-X", chain]).await?;
        }
    }
    for rule in rules_six().iter().filter(|_rule| has_six()) {
        // Where it is not, it was taken away before.
        let _gone = program("ip6tables", &[&["-w", "-D"], &rule[..]].concat()).await;
    }
    Ok(())
}

/// Pods have no address of IPv6. Should one come to have one, it reaches nothing with it.
fn rules_six() -> [[&'static str; 5]; 2] {
    ["INPUT", "FORWARD"].map(|chain| [chain, "-i", "rs+", "-j", "DROP"])
}

/// Whether this machine speaks IPv6 at all.
fn has_six() -> bool {
    std::path::Path::new("/proc/self/net/if_inet6").exists()
}

async fn set_six(rules: &[[&str; 5]]) -> Result<(), FirewallError> {
    if !has_six() {
        return Ok(());
    }
    let present = program("ip6tables", &["-w", "-S"]).await?;
    for rule in rules {
        let line = format!("-A {}", rule.join(" "));
        if !present.lines().any(|present| present == line) {
            program("ip6tables", &[&["-w", "-I"], &rule[..]].concat()).await?;
        }
    }
    Ok(())
}

/// Held while rules are looked at and changed: several providers may do so on one machine.
pub(crate) async fn lock() -> Result<File, FirewallError> {
    let lock = || {
        let file = File::create(LOCK)?;
        file.lock()?;
        Ok(file)
    };
    let locked = tokio::task::spawn_blocking(lock).await;
    locked.map_err(io::Error::other).flatten().map_err(FirewallError::Lock)
}

pub(crate) async fn iptables(args: &[&str]) -> Result<String, FirewallError> {
    // `-w`: somebody else (the engine) may hold the lock.
    program("iptables", &[&["-w"], args].concat()).await
}

/// What a program says that ended well.
pub(crate) async fn program(name: &'static str, args: &[&str]) -> Result<String, FirewallError> {
    let output = Command::new(name).args(args).output().await;
    let output = output.map_err(|err| FirewallError::Missing(name, err))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(FirewallError::Refused(format!("{name} {}", args.join(" ")), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_what_is_public() {
        let check = |ip: &str, wanted: bool| {
            assert_eq!(is_world(ip.parse().unwrap()), wanted, "{ip}");
        };
        for ip in ["9.9.9.9", "203.0.113.7", "172.32.0.1", "100.128.0.1", "2620:fe::fe"] {
            check(ip, true);
        }
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "192.0.0.9",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:0:1::",
            "2001:db8::1",
        ] {
            check(ip, false);
        }
    }
}
