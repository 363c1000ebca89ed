//! Whom a service reaches, and who reaches it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Reader,
    refused::{
        ATTACHMENT_REFUSED, HOST_PORTS, NETWORK_MODE, NETWORK_REFUSED, PORT_REFUSED, UDP_INGRESS,
    },
};
use crate::pod::{
    Attachment, HostName, Name, Network, Port, Transport,
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

    pub(super) fn ports(&self, fields: &Fields<'_>) -> BTreeSet<Port> {
        let mut ports = BTreeSet::new();
        for at in fields.get("ports").map(|at| at.items()).unwrap_or_default() {
            if !at.value.is_object() {
                self.port_range(&at, true, &mut ports);
                continue;
            }
            let Some(fields) = at.fields() else { continue };
            if let Some(at) = fields.require("target", "write target: 8080") {
                self.port_range(&at, true, &mut ports);
            }
            fields.only("protocol", &["tcp"], UDP_INGRESS);
            fields.finish(PORT_REFUSED);
        }
        for at in fields.get("expose").map(|at| at.items()).unwrap_or_default() {
            self.port_range(&at, false, &mut ports);
        }
        ports
    }

    fn port_range(&self, at: &At<'_>, published: bool, ports: &mut BTreeSet<Port>) {
        let Some(text) = at.scalar() else { return };
        if text.contains(':') {
            return at.fail(HOST_PORTS);
        }
        let (numbers, transport) = text.split_once('/').unwrap_or((&text, "tcp"));
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" if published => return at.fail(UDP_INGRESS),
            "udp" => Transport::Udp,
            other => return at.fail(format!("{} is not a transport; write tcp", show(other))),
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let range = port_number(first).and_then(|first| Ok((first, port_number(last)?)));
        let Some((first, last)) = at.check(range) else { return };
        if last < first || usize::from(last.get() - first.get()) >= limits::PORTS {
            return at.fail(format!(
                "{} is no range of at most {} ports",
                show(numbers),
                limits::PORTS
            ));
        }
        let numbers = (first.get()..=last.get()).filter_map(std::num::NonZeroU16::new);
        ports.extend(numbers.map(|number| Port { number, transport }));
    }
}
