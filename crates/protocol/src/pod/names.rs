//! The words of a pod, each checked where it is made, whoever sends it.

use std::{borrow::Borrow, fmt, str::FromStr};

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use super::limits;

/// Text that is not what its place needs; says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(crate) String);

macro_rules! word {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(Invalid(why)),
                }
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word! {
    /// A DNS label: the name of a service, under which its siblings reach it.
    Label, label
}
word! {
    /// The name of a volume, a network, a secret or a config.
    Name, name
}
word! {
    /// The name of an environment variable.
    Variable, variable
}
word! {
    /// The key of a label.
    LabelKey, label_key
}
word! {
    /// A lower-case DNS name that ingress answers to.
    Host, host
}
word! {
    /// An absolute path in a container, in its one spelling.
    AbsPath, abs_path
}
word! {
    /// Who runs a process: `user`, `1000`, `1000:1000`.
    User, user
}
word! {
    /// A name in a container's hosts file, or an alias on a network.
    HostName, host_name
}
word! {
    /// The domain of a container's host name.
    Domain, domain
}
word! {
    /// An option of `resolv.conf(5)`: `ndots:2`, `rotate`.
    ResolverOption, resolver_option
}
word! {
    /// A group, by its number or its name in the image.
    Group, group
}
word! {
    /// What a process may be limited in.
    UlimitName, ulimit_name
}
word! {
    /// A setting of the kernel that a container has for itself.
    Sysctl, sysctl
}
word! {
    /// A signal's name, such as `SIGTERM`.
    Signal, signal
}
word! {
    /// `sha256:` and 64 hexadecimal digits.
    Digest, digest
}
word! {
    /// A repository in full, without tag or digest: `docker.io/library/nginx`.
    Repository, repository
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn label(text: &str) -> Result<(), String> {
    if is_label(text) {
        return Ok(());
    }
    let rule = "write lower-case letters, digits and '-', at most 63";
    let proposal: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let proposal = proposal.trim_matches('-');
    Err(match is_label(proposal) {
        true => format!(
            "{} cannot be a host name, as a service's name is; {rule}: try {proposal:?}",
            show(text)
        ),
        false => format!("{} cannot be a host name, as a service's name is; {rule}", show(text)),
    })
}

fn name(text: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    Err(format!(
        "{} is not a name; write a letter or a digit, then letters, digits, '-', '_' or '.', at most 63",
        show(text)
    ))
}

fn variable(text: &str) -> Result<(), String> {
    if (1..=limits::KEY).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
    {
        return Ok(());
    }
    Err(format!(
        "{} is not the name of a variable; write printable ASCII without spaces and '=', at most {}",
        show(text),
        limits::KEY
    ))
}

fn label_key(text: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'=';
    if !(1..=limits::KEY).contains(&text.len()) || !text.bytes().all(plain) {
        return Err(format!(
            "{} is not the key of a label; write printable ASCII without spaces and '=', at most {}",
            show(text),
            limits::KEY
        ));
    }
    let lower = text.to_ascii_lowercase();
    match limits::RESERVED_LABELS.iter().find(|prefix| lower.starts_with(**prefix)) {
        Some(prefix) => Err(format!(
            "labels that begin with {prefix:?} are how providers know their containers; choose another"
        )),
        None => Ok(()),
    }
}

fn host(text: &str) -> Result<(), String> {
    let lower = text.to_ascii_lowercase();
    if lower != text && host(&lower).is_ok() {
        return Err(format!("write the host in lower case: {lower}"));
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return Err(format!(
            "wildcard hosts are not served yet; name each host below {}",
            show(rest)
        ));
    }
    let numeric = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if text.len() <= 253 && text.contains('.') && text.split('.').all(is_label) && !numeric {
        return Ok(());
    }
    Err(format!("{} is not a host name such as guestbook.example.org", show(text)))
}

fn abs_path(text: &str) -> Result<(), String> {
    if text.len() > limits::PATH {
        return Err(format!(
            "the path is {} bytes long; the limit is {}",
            text.len(),
            limits::PATH
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{} has control characters in it; write a plain path", show(text)));
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!(
            "{} is not absolute; write the path in the container from its root, as in /data",
            show(text)
        ));
    };
    if rest.split('/').any(|part| part == "..") {
        return Err(format!("{} climbs with '..'; write the path that is meant", show(text)));
    }
    if text != "/" && rest.split('/').any(|part| part.is_empty() || part == ".") {
        return Err(format!("{} has an empty part or a '.' in it; write /a/b", show(text)));
    }
    Ok(())
}

fn user(text: &str) -> Result<(), String> {
    let part = |part: &str| {
        (1..=64).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !part.starts_with('-')
    };
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    if part(user) && part(group) {
        return Ok(());
    }
    Err(format!("{} is not a user; write \"1000\", \"1000:1000\" or a name", show(text)))
}

fn host_name(text: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(plain);
    match fits && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(()),
        false => Err(format!("{} is not a host name such as db or db.internal", show(text))),
    }
}

fn domain(text: &str) -> Result<(), String> {
    match text.len() <= 253 && text.split('.').all(is_label) {
        true => Ok(()),
        false => Err(format!("{} is not a domain such as example.org", show(text))),
    }
}

fn resolver_option(text: &str) -> Result<(), String> {
    let (option, number) = text.split_once(':').unwrap_or((text, "0"));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let digits = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    match (1..=32).contains(&option.len()) && option.bytes().all(plain) && digits {
        true => Ok(()),
        false => Err(format!(
            "{} is not an option of name resolution such as ndots:2 or rotate",
            show(text)
        )),
    }
}

fn group(text: &str) -> Result<(), String> {
    match user(text) {
        Ok(()) if !text.contains(':') => Ok(()),
        Ok(()) | Err(_) => Err(format!("{} is not a group; write \"1000\" or a name", show(text))),
    }
}

const ULIMITS: &[&str] =
    &["core", "cpu", "data", "fsize", "locks", "memlock", "nofile", "nproc", "rss", "stack"];

fn ulimit_name(text: &str) -> Result<(), String> {
    if ULIMITS.contains(&text) {
        return Ok(());
    }
    Err(match text {
        "nice" | "rtprio" | "rttime" => {
            format!("{text} takes processor time from others; use cpus")
        }
        "msgqueue" | "sigpending" => {
            format!("{text} is the host's memory; talk over the network instead")
        }
        _ => {
            format!("{} is not a limit of processes; there are {}", show(text), ULIMITS.join(", "))
        }
    })
}

/// Those that are a container's own and harm nobody else, as Kubernetes' list of safe ones has it.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

fn sysctl(text: &str) -> Result<(), String> {
    match SYSCTLS.contains(&text) {
        true => Ok(()),
        false => Err(format!(
            "{} is the provider's to set; a container has {} for itself",
            show(text),
            SYSCTLS.join(", ")
        )),
    }
}

const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

fn signal(text: &str) -> Result<(), String> {
    let Some(short) = text.strip_prefix("SIG") else {
        let long = format!("SIG{}", text.to_ascii_uppercase());
        return Err(match signal(&long) {
            Ok(()) => format!("write the signal in full: {long}"),
            Err(_) => format!("{} is not a signal such as SIGTERM", show(text)),
        });
    };
    let real_time = |sign: &str, most: u8| {
        let number = short.strip_prefix(sign).unwrap_or_default();
        !number.starts_with('0') && number.parse().is_ok_and(|n: u8| n <= most)
    };
    if SIGNALS.contains(&short) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14) {
        return Ok(());
    }
    Err(format!("{} is not a signal such as SIGTERM", show(text)))
}

fn digest(text: &str) -> Result<(), String> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match text.strip_prefix("sha256:") {
        Some(rest) if rest.len() == 64 && rest.bytes().all(hex) => Ok(()),
        Some(_) | None => Err(format!(
            "{} is not a digest; write sha256: and 64 lower-case hexadecimal digits",
            show(text)
        )),
    }
}

fn repository(text: &str) -> Result<(), String> {
    let not = || {
        Err(format!("{} is not a repository in full, such as docker.io/library/nginx", show(text)))
    };
    let Some((registry, path)) = text.split_once('/') else { return not() };
    let (domain, port) = registry.split_once(':').unwrap_or((registry, "443"));
    let domain_ok = domain.split('.').all(|part| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    });
    let is_registry = registry.contains(['.', ':']) || registry == "localhost";
    let port_ok = port.parse().is_ok_and(|port: u16| port != 0 && !registry.contains(":0"));
    match text.len() <= 255 && domain_ok && is_registry && port_ok && is_repository_path(path) {
        true => Ok(()),
        false => not(),
    }
}

/// Lower-case components of letters and digits, joined inside by `.`, `_`, `__` or dashes.
fn is_repository_path(path: &str) -> bool {
    path.split('/').all(|part| {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        part.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
            && part.bytes().next().is_some_and(alnum)
            && part.bytes().next_back().is_some_and(alnum)
            && !["..", "._", "_.", ".-", "-.", "-_", "_-", "___"]
                .iter()
                .any(|bad| part.contains(bad))
    })
}

/// An image as a Compose file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Its repository, in full.
    pub repository: Repository,
    /// Its tag; `latest` where the file has neither tag nor digest.
    pub tag: Option<String>,
    /// Its digest, which wins over the tag.
    pub digest: Option<Digest>,
}

impl FromStr for ImageName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let not = || {
            Invalid(format!("{} is not an image; write it as in ghcr.io/acme/app:1.4", show(text)))
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            Some(_) | None => (rest, None),
        };
        let tag_ok = |tag: &str| {
            (1..=128).contains(&tag.len())
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
                && !tag.starts_with(['.', '-'])
        };
        if !tag.is_none_or(tag_ok) {
            return Err(not());
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) && !path.contains(char::is_whitespace) {
            let lower = path.to_ascii_lowercase();
            return Err(Invalid(format!("image names are in lower case: {lower:?}")));
        }
        let full = match path.split_once('/') {
            Some(("index.docker.io", rest)) => format!("docker.io/{rest}"),
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => path.into(),
            Some(_) => format!("docker.io/{path}"),
            None => format!("docker.io/library/{path}"),
        };
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { repository: full.parse().map_err(|_err| not())?, tag, digest })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, which ingress can reach.
    Tcp,
    /// UDP, between the services of a pod.
    Udp,
}

/// A port on which a service listens; `8080/tcp` in the canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// Its number, never zero.
    pub number: std::num::NonZeroU16,
    /// What it speaks.
    pub transport: Transport,
}

impl FromStr for Port {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (number, transport) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Transport::Tcp),
            Some((number, "udp")) => (number, Transport::Udp),
            Some((_, other)) => {
                return Err(Invalid(format!("{} is not a transport; write tcp", show(other))));
            }
        };
        Ok(Self { number: port_number(number)?, transport })
    }
}

/// Reads a port's number.
pub(super) fn port_number(text: &str) -> Result<std::num::NonZeroU16, Invalid> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if plain => Ok(number),
        Ok(_) | Err(_) => Err(Invalid(format!("{} is not a port (1-65535)", bare(text)))),
    }
}

impl TryFrom<String> for Port {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{}/{transport}", self.number)
    }
}

/// An address; one in mixed case has to carry the right checksum.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    let mixed = text.bytes().any(|b| b.is_ascii_uppercase())
        && text.trim_start_matches("0x").bytes().any(|b| b.is_ascii_lowercase());
    match mixed {
        true => Address::parse_checksummed(text, None)
            .map_err(|_err| format!("{} fails its checksum; copy the address anew", show(text))),
        false => text
            .parse()
            .map_err(|_err| format!("{} is no address (0x and 40 hexadecimal digits)", show(text))),
    }
}

/// The text for an error: quoted, and cut short, since a hostile one may be long.
pub(crate) fn show(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// As `show`, without quotes around what is plainly a word.
fn bare(text: &str) -> String {
    let plain = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { text.to_owned() } else { show(text) }
}
