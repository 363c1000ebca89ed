//! Whom a service reaches, and who reaches it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Reader,
    refused::{ATTACHMENT_REFUSED, NETWORK_MODE, NETWORK_REFUSED, PORT_REFUSED},
};
use crate::pod::{
    Attachment, HostName, Invalid, Name, Network, Port, Transport,
    check::unknown,
    limits,
    names::{port_number, show},
    service::default_network,
    tree::{At, Fields},
};

impl Reader<'_> {
    pub(super) fn networks(&self, at: &At<'_>) -> BTreeMap<Name, Network> {
        let mut networks = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<Name>());
            let network = self.network(&at).unwrap_or_default();
            networks.extend(name.map(|name| (name, network)));
        }
        networks
    }

    fn network(&self, at: &At<'_>) -> Option<Network> {
        if at.value.is_null() {
            return None;
        }
        let fields = at.fields()?;
        let internal = fields.get("internal").and_then(|at| at.truth()).unwrap_or_default();
        fields.only("attachable", &["false"], "nothing outside of the pod attaches; remove this");
        fields.only("driver", &["bridge"], "the provider makes the network; remove this");
        fields.only("enable_ipv4", &["true"], "networks have IPv4 alone; remove this");
        fields.only("enable_ipv6", &["false"], "networks have IPv4 alone; remove this");
        fields.only("external", &["false"], "a pod brings its own networks; remove this");
        fields.finish(NETWORK_REFUSED);
        Some(Network { internal })
    }

    /// The networks of a service; `None` is the default one alone.
    pub(super) fn attachments(
        &self,
        fields: &Fields<'_>,
        declared: &BTreeMap<Name, Network>,
    ) -> Option<BTreeMap<Name, Attachment>> {
        let listed = fields.get("networks");
        let name = fields.get("container_name").and_then(|at| at.parse::<HostName>());
        if let Some(at) = fields.get("network_mode") {
            match at.text().as_deref() {
                Some("none") if listed.is_none() => return Some(BTreeMap::new()),
                Some("none") => at.fail("it has networks as well; remove one"),
                Some(_) | None => at.fail(NETWORK_MODE),
            }
        }
        let mut all = listed.map(|at| self.listed(&at, declared)).unwrap_or_default();
        if all.is_empty() {
            all.insert(default_network(), Attachment::default());
        }
        // The provider names its containers; for the others of the pod the name holds.
        for attachment in all.values_mut() {
            attachment.aliases.extend(name.clone());
        }
        let plain = |(name, attachment): (&Name, &Attachment)| {
            *name == default_network() && *attachment == Attachment::default()
        };
        (all.len() > 1 || !all.iter().all(plain)).then_some(all)
    }

    fn listed(
        &self,
        at: &At<'_>,
        declared: &BTreeMap<Name, Network>,
    ) -> BTreeMap<Name, Attachment> {
        let mut all = BTreeMap::new();
        let entries: Vec<(String, At<'_>)> = if at.value.is_array() {
            at.items().into_iter().filter_map(|at| Some((at.text()?, at))).collect()
        } else {
            at.entries().into_iter().map(|(name, at)| (name.to_owned(), at)).collect()
        };
        for (name, at) in entries {
            let Some(name) = at.check(name.parse::<Name>()) else { continue };
            if name != default_network() && !declared.contains_key(&name) {
                let hint = "declare it under networks";
                at.fail(unknown("network", name.as_str(), declared.keys(), hint));
                continue;
            }
            let mut attachment = Attachment::default();
            if let Some(fields) = at.value.is_object().then(|| at.fields()).flatten() {
                let aliases = fields.get("aliases").map(|at| at.items()).unwrap_or_default();
                attachment.aliases = aliases.iter().filter_map(At::parse).collect();
                fields.finish(ATTACHMENT_REFUSED);
            }
            all.insert(name, attachment);
        }
        all
    }

    pub(super) fn ports(&self, fields: &Fields<'_>) -> Ports {
        let mut ports = Ports::default();
        for at in fields.get("ports").map(|at| at.items()).unwrap_or_default() {
            if !at.value.is_object() {
                self.published(&at, &mut ports);
                continue;
            }
            let Some(fields) = at.fields() else { continue };
            let target = fields.require("target", "write target: 8080");
            let target = target.and_then(|at| Some((at.scalar()?, at)));
            let transport = fields.get("protocol").map_or(Some(Transport::Tcp), |at| {
                let text = at.text()?;
                at.check(transport(&text))
            });
            let bound =
                fields.get("host_ip").map(|at| at.text().and_then(|ip| at.check(address(&ip))));
            if let Some(at) = fields.get("published")
                && let Some(text) = at.scalar()
            {
                at.check(wished(&text));
            }
            if let Some(at) = fields.get("mode")
                && at.text().is_some_and(|mode| mode != "host" && mode != "ingress")
            {
                at.fail("this mode is unknown; write ingress or host, which are the same here");
            }
            fields.finish(PORT_REFUSED);
            let Some((transport, (numbers, at))) = transport.zip(target) else { continue };
            let Some(found) = at.check(port_range(&numbers, transport)) else { continue };
            ports.add(found, bound.flatten().is_none_or(|ip| !ip.is_loopback()));
        }
        for at in fields.get("expose").map(|at| at.items()).unwrap_or_default() {
            let Some(text) = at.scalar() else { continue };
            let found =
                split(&text).and_then(|(numbers, transport)| port_range(numbers, transport));
            ports.all.extend(at.check(found).unwrap_or_default());
        }
        ports
    }

    /// An entry in the short form: `[[IP:]NUMBER:]CONTAINER[/TRANSPORT]`, where each number may be a range.
    fn published(&self, at: &At<'_>, ports: &mut Ports) {
        let Some(text) = at.scalar() else { return };
        let Some((numbers, transport)) = at.check(split(&text)) else { return };
        let (host, inside) = numbers.rsplit_once(':').unwrap_or(("", numbers));
        let (ip, number) = host.rsplit_once(':').unwrap_or(("", host));
        let bound = match ip {
            "" => Some(None),
            ip => at.check(address(ip)).map(Some),
        };
        let wish = at.check(wished(number));
        let found = at.check(port_range(inside, transport));
        if let (Some(bound), Some(()), Some(found)) = (bound, wish, found) {
            ports.add(found, bound.is_none_or(|ip| !ip.is_loopback()));
        }
    }
}

/// Where a service listens, and what of that is published.
#[derive(Default)]
pub(super) struct Ports {
    pub(super) all: BTreeSet<Port>,
    pub(super) public: BTreeSet<Port>,
}

impl Ports {
    fn add(&mut self, ports: BTreeSet<Port>, public: bool) {
        if public {
            self.public.extend(&ports);
        }
        self.all.extend(ports);
    }
}

fn split(text: &str) -> Result<(&str, Transport), Invalid> {
    let (numbers, name) = text.split_once('/').unwrap_or((text, "tcp"));
    Ok((numbers, transport(name)?))
}

fn transport(text: &str) -> Result<Transport, Invalid> {
    match text {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        other => Err(Invalid(format!("{} is not a transport; write tcp or udp", show(other)))),
    }
}

fn address(text: &str) -> Result<IpAddr, Invalid> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_err(|_err| Invalid(format!("{} is not an IP address", show(bare))))
}

/// Looks at the number at which a port would be published on a machine of one's own. Here the provider chooses it.
fn wished(text: &str) -> Result<(), Invalid> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    // Both stand for any.
    if text.is_empty() || text == "0" {
        return Ok(());
    }
    port_number(first).and_then(|_| port_number(last)).map(drop)
}

fn port_range(numbers: &str, transport: Transport) -> Result<BTreeSet<Port>, Invalid> {
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (port_number(first)?, port_number(last)?);
    if last < first || usize::from(last.get() - first.get()) >= limits::PORTS {
        let (numbers, most) = (show(numbers), limits::PORTS);
        return Err(Invalid(format!("{numbers} is no range of at most {most} ports")));
    }
    let numbers = (first.get()..=last.get()).filter_map(std::num::NonZeroU16::new);
    Ok(numbers.map(|number| Port { number, transport }).collect())
}
