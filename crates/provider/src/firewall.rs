//! What a pod can reach: the world, the other containers of its own pod, and nothing else.
//!
//! A pod sends whatever packets it likes. The rules are the same for every pod, as all pods' bridges share a name
//! prefix, so that starting a pod changes no rule: nothing to the host itself (a bridge's gateway is the host), to
//! private, link-local and metadata addresses, or to other pods. Docker's own chains isolate the bridges too; these
//! rules hold without them.

use std::{
    fs::File,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    process::Stdio,
};

use tokio::process::Command;

/// What the name of every pod's bridge begins with; an interface name has at most 15 characters.
pub(crate) const BRIDGE_PREFIX: &str = "rs";

const CHAIN: &str = "ROADSTEAD";

/// Where what leases send is bounded, to the world and to visitors: see `egress`.
pub(crate) const EGRESS: &str = "ROADSTEAD-EGRESS";
pub(crate) const ANSWERS: &str = "ROADSTEAD-ANSWERS";

/// By which the containers of a swarm reach the world, and the world's connections them.
const GATEWAY: &str = "docker_gwbridge";

/// What a swarm's containers may reach, and who may begin a connection to what they publish.
const OUT: &str = "ROADSTEAD-OUT";
const IN: &str = "ROADSTEAD-IN";

/// Whether rules hold between containers on one bridge, too: all of a swarm's are on one.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The numbers that a machine gives to published ports that ask for none.
const NUMBERS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

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
    /// Pods of different leases would reach each other.
    #[error(
        "{BRIDGED} is not 1, so that containers on one machine of the swarm would reach each other; run `modprobe br_netfilter` and `sysctl -w net.bridge.bridge-nf-call-iptables=1` there"
    )]
    Bridged,
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
    let ours: Vec<String> = rules().into_iter().chain(gateway()).collect();
    for rule in present.lines().filter(|line| ours.iter().any(|rule| rule == line)) {
        iptables(&rule.replacen("-A", "-D", 1).split(' ').collect::<Vec<_>>()).await?;
    }
    for chain in [CHAIN, EGRESS, ANSWERS, OUT, IN] {
        if present.lines().any(|line| line == format!("-N {chain}")) {
            iptables(&["-F", chain]).await?;
            iptables(&["-X", chain]).await?;
        }
    }
    for rule in gateway_six()?.iter().filter(|_rule| has_six()) {
        let args = [&["-w", "-D"], &rule.split(' ').collect::<Vec<_>>()[..]].concat();
        let _gone = program("ip6tables", &args).await;
    }
    for rule in rules_six().iter().filter(|_rule| has_six()) {
        // Where it is not, it was taken away before.
        let _gone = program("ip6tables", &[&["-w", "-D"], &rule[..]].concat()).await;
    }
    Ok(())
}

/// The jumps into the chains of a machine of a swarm, as `iptables -S` prints them.
fn gateway() -> [String; 4] {
    let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    [
        format!("-A INPUT -i {GATEWAY} -j DROP"),
        format!("-A INPUT -i {GATEWAY} {known}"),
        format!("-A DOCKER-USER -i {GATEWAY} -j {OUT}"),
        format!("-A DOCKER-USER -o {GATEWAY} -m conntrack --ctstate NEW -j {IN}"),
    ]
}

/// What is in the chains of a machine of a swarm: its containers reach none of the swarm's machines, and what they publish
/// is the provider's alone.
fn machine(provider: Option<Ipv4Addr>, peers: &[Ipv4Addr]) -> [(&'static str, Vec<String>); 2] {
    let known = format!("-A {OUT} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN");
    let peers = peers.iter().map(|peer| format!("-A {OUT} -d {peer}/32 -j DROP"));
    let private = PRIVATE.iter().map(|network| format!("-A {OUT} -d {network} -j DROP"));
    let provider = provider.map(|from| format!("-A {IN} -s {from}/32 -j RETURN"));
    [
        (OUT, [known].into_iter().chain(peers).chain(private).collect()),
        (IN, provider.into_iter().chain([format!("-A {IN} -j DROP")]).collect()),
    ]
}

/// Fences in what a swarm runs on this machine: its containers reach the world and nothing of the machine, of private
/// networks and of the swarm's machines (`peers`); only the `provider` at that address begins connections to what they publish,
/// and without one, only who is on this machine. What is set already is left alone.
///
/// # Errors
/// When a rule cannot be set.
pub async fn fence(provider: Option<Ipv4Addr>, peers: &[Ipv4Addr]) -> Result<(), FirewallError> {
    if std::fs::read_to_string(BRIDGED).is_ok_and(|set| set.trim() == "1") {
        set_fence(provider, peers).await
    } else {
        Err(FirewallError::Bridged)
    }
}

async fn set_fence(provider: Option<Ipv4Addr>, peers: &[Ipv4Addr]) -> Result<(), FirewallError> {
    let _alone = lock().await?;
    let present = iptables(&["-S"]).await?;
    let has = |line: &str| present.lines().any(|present| present == line);
    for (chain, wanted) in machine(provider, peers) {
        let begin = format!("-A {chain} ");
        let there: Vec<&str> = present.lines().filter(|line| line.starts_with(&begin)).collect();
        if there != wanted || !has(&format!("-N {chain}")) {
            // At once, so that nothing slips through.
            let rules = wanted.join("\n");
            restore(format!("*filter\n:{chain} - [0:0]\n{rules}\nCOMMIT\n"), chain).await?;
        }
    }
    if !has("-N DOCKER-USER") {
        iptables(&["-N", "DOCKER-USER"]).await?;
    }
    for rule in gateway().iter().filter(|rule| !has(rule)) {
        iptables(&rule.replacen("-A", "-I", 1).split(' ').collect::<Vec<_>>()).await?;
    }
    for rule in gateway_six()?.iter().filter(|_rule| has_six()) {
        let args = |verb| [&["-w", verb], &rule.split(' ').collect::<Vec<_>>()[..]].concat();
        if program("ip6tables", &args("-C")).await.is_err() {
            program("ip6tables", &args("-I")).await?;
        }
    }
    Ok(())
}

/// Containers of a swarm have no address of IPv6, and what they publish is not for it: there Docker listens itself.
fn gateway_six() -> Result<Vec<String>, FirewallError> {
    let numbers = std::fs::read_to_string(NUMBERS)
        .map_err(|err| FirewallError::Refused(NUMBERS.to_owned(), err.to_string()))?;
    let numbers = numbers.split_whitespace().collect::<Vec<_>>().join(":");
    let published = |protocol: &str| {
        format!(
            "INPUT ! -i lo -p {protocol} -m conntrack --ctstate NEW -m {protocol} --dport {numbers} -j DROP"
        )
    };
    let reached = ["INPUT", "FORWARD"].map(|chain| format!("{chain} -i {GATEWAY} -j DROP"));
    Ok(reached.into_iter().chain([published("tcp"), published("udp")]).collect())
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

/// Sets rules as `iptables-save` writes them, all at once.
pub(crate) async fn restore(rules: String, what: &str) -> Result<(), FirewallError> {
    let restored = tokio::task::spawn_blocking(move || {
        let mut child = std::process::Command::new("iptables-restore")
            .args(["-w", "--noflush"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = restored.await.map_err(io::Error::other).flatten();
    let output = output.map_err(|err| FirewallError::Missing("iptables-restore", err))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(FirewallError::Refused(format!("iptables-restore for {what}"), words))
        }
    }
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
    fn on_a_machine_of_a_swarm_only_the_provider_begins() {
        let peer = Ipv4Addr::new(198, 51, 100, 2);
        let [(_, out), (_, visitors)] = machine(Some(Ipv4Addr::new(198, 51, 100, 1)), &[peer]);
        assert_eq!(out[1], "-A ROADSTEAD-OUT -d 198.51.100.2/32 -j DROP");
        assert!(out.contains(&"-A ROADSTEAD-OUT -d 169.254.0.0/16 -j DROP".to_owned()));
        let wanted = ["-A ROADSTEAD-IN -s 198.51.100.1/32 -j RETURN", "-A ROADSTEAD-IN -j DROP"];
        assert_eq!(visitors, wanted);
        let [_, (_, nobody)] = machine(None, &[]);
        assert_eq!(nobody, ["-A ROADSTEAD-IN -j DROP"]);
    }

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
