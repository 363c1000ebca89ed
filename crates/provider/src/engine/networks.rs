//! The networks of pods: a bridge and a /26 for each.

use std::{collections::HashMap, net::Ipv4Addr};

use alloy::primitives::{hex, keccak256};
use bollard::models::{
    EndpointSettings, Ipam, IpamConfig, Network as EngineNetwork, NetworkConnectRequest,
    NetworkCreateRequest,
};
use protocol::pod::{Label, Name, Network, Pod, PodHash, Service};

use super::{Engine, EngineError, Order, is_missing};
use crate::{config::NetworkRange, firewall::BRIDGE_PREFIX, leases::PodKey};

/// How many /26 networks a /16 has.
const NETWORKS: u16 = 1 << 10;

/// The network of all services that name none.
pub(super) const DEFAULT_NETWORK: &str = "default";

/// How often a network is tried for: another provider on the same engine may take a range at the same time.
const NETWORK_TRIES: usize = 8;

/// The option by which a network's bridge gets its name.
const BRIDGE: &str = "com.docker.network.bridge.name";

/// The name of a network's bridge.
pub(super) fn bridge_of(network: &EngineNetwork) -> Option<String> {
    network.options.as_ref()?.get(BRIDGE).cloned()
}

/// Who resolves names in a container that is on a network, and how: Docker, on the container's loopback, and as it would
/// write it itself.
fn resolver(service: &Service) -> String {
    let mut text = "nameserver 127.0.0.11\n".to_owned();
    let domains: Vec<_> = service.dns_search.iter().map(|domain| domain.as_str()).collect();
    if !domains.is_empty() {
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    let mut options: Vec<_> = service.dns_opt.iter().map(|option| option.as_str()).collect();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    text.push_str(&format!("options {}\n", options.join(" ")));
    text
}

/// The files by which a service at `ips` knows itself and finds others, and what is in them. Docker's own are on the
/// machine's disk, where who may write its root could let them grow without end. These are mounted read-only.
pub(super) fn names(name: &Label, service: &Service, ips: &[&str]) -> [(&'static str, String); 3] {
    let host = service.hostname.as_ref().unwrap_or(name).as_str();
    let full = service.domainname.as_ref().map(|domain| format!("{host}.{domain} {host}"));
    let own = full.as_deref().unwrap_or(host);
    let fixed = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"];
    let mut hosts: Vec<String> = fixed.map(str::to_owned).to_vec();
    for (other, addresses) in &service.extra_hosts {
        hosts.extend(addresses.iter().map(|address| format!("{address}\t{other}")));
    }
    hosts.extend(ips.iter().map(|ip| format!("{ip}\t{own}")));
    let resolver = if ips.is_empty() { String::new() } else { resolver(service) };
    [
        ("/etc/hosts", format!("{}\n", hosts.join("\n"))),
        ("/etc/hostname", format!("{host}\n")),
        ("/etc/resolv.conf", resolver),
    ]
}

impl PodKey {
    /// The name of a network of one of its pods.
    pub(super) fn network(&self, pod: PodHash, network: &Name) -> String {
        match network.as_str() {
            DEFAULT_NETWORK => self.of(pod),
            other => format!("{}-{other}", self.of(pod)),
        }
    }

    /// The name of a bridge of one of its pods.
    fn bridge(&self, pod: PodHash, network: &Name) -> String {
        let name = network.as_str().as_bytes();
        let hash = keccak256([self.opening.as_slice(), pod.0.as_slice(), name].concat());
        format!("{BRIDGE_PREFIX}{}", hex::encode(&hash[..6]))
    }
}

impl Engine {
    /// The bridges of one pod of a lease.
    pub(crate) fn bridges(&self, key: PodKey, hash: PodHash, pod: &Pod) -> Vec<String> {
        let default: Option<Name> = DEFAULT_NETWORK.parse().ok();
        let mut networks: Vec<Name> = pod.networks().into_keys().chain(default).collect();
        networks.sort_unstable();
        networks.dedup();
        networks.iter().map(|network| key.bridge(hash, network)).collect()
    }

    /// Puts a container on those networks that it is not on yet.
    pub(super) async fn attach(
        &self,
        id: &str,
        networks: Vec<(String, EndpointSettings)>,
    ) -> Result<(), EngineError> {
        if networks.len() < 2 {
            return Ok(());
        }
        let found = self.docker.inspect_container(id, None).await?;
        let present = found.network_settings.and_then(|settings| settings.networks);
        let present = present.unwrap_or_default();
        for (network, endpoint) in networks {
            if !present.contains_key(&network) {
                let endpoint_config = Some(endpoint);
                let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config };
                self.docker.connect_network(&network, request).await?;
            }
        }
        Ok(())
    }

    /// A network of the pod, made if it is not there; the first address of its range.
    pub(super) async fn network(
        &self,
        order: &Order<'_>,
        network: &Name,
        spec: Network,
    ) -> Result<Ipv4Addr, EngineError> {
        let name = order.key.network(order.hash, network);
        match self.docker.inspect_network(&name, None).await {
            Ok(network) => {
                let config = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
                let subnet = config.first().and_then(|config| config.subnet.as_deref());
                return subnet.and_then(first_address).ok_or(EngineError::NoNetwork);
            }
            Err(err) if !is_missing(&err) => return Err(err.into()),
            Err(_) => (),
        }
        let mut labels = self.labels(order.key, order.block);
        labels.insert("roadstead.pod".into(), order.hash.to_string());
        let mut refusal = None;
        for _ in 0..NETWORK_TRIES {
            let base = self.free_range(order.key).await?;
            let config = IpamConfig { subnet: Some(format!("{base}/26")), ..Default::default() };
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".into()),
                ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
                options: Some(HashMap::from([(
                    BRIDGE.into(),
                    order.key.bridge(order.hash, network),
                )])),
                internal: Some(spec.internal),
                labels: Some(labels.clone()),
                ..Default::default()
            };
            match self.docker.create_network(request).await {
                Ok(_) => return Ok(base),
                Err(err) => refusal = Some(err),
            }
        }
        Err(refusal.map_or(EngineError::NoNetwork, EngineError::Docker))
    }

    /// A /26 that no network of the engine has, looked for from a place of the pod's own.
    async fn free_range(&self, key: PodKey) -> Result<Ipv4Addr, EngineError> {
        let networks = self.docker.list_networks(None).await?;
        let taken: Vec<Ipv4Addr> = networks
            .into_iter()
            .flat_map(|network| network.ipam.and_then(|ipam| ipam.config).unwrap_or_default())
            .filter_map(|config| first_address(&config.subnet?))
            .collect();
        let first = u16::from_be_bytes([key.opening[6], key.opening[7]]);
        let NetworkRange([a, b]) = self.range;
        (0..NETWORKS)
            .map(|step| (first.wrapping_add(step) % NETWORKS) << 6)
            .map(|offset| {
                let [c, d] = offset.to_be_bytes();
                Ipv4Addr::new(a, b, c, d)
            })
            .find(|base| !taken.contains(base))
            .ok_or(EngineError::NoNetwork)
    }
}

fn first_address(subnet: &str) -> Option<Ipv4Addr> {
    subnet.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_finds_itself_and_the_hosts_that_it_names() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "image": { "pushed": { "id": format!("sha256:{}", "a".repeat(64)) } },
            "limits": { "cpu": 250, "memory": 64 << 20, "pids": 32 },
            "domainname": "example.org",
            "dns_search": ["example.org", "example.net"],
            "dns_opt": ["rotate"],
            "extra_hosts": { "mirror": ["203.0.113.7", "2001:db8::1"] },
        }))
        .unwrap();
        let name: Label = "web".parse().unwrap();
        let [(_, hosts), (_, hostname), (_, resolver)] =
            names(&name, &service, &["10.213.0.2", "10.213.0.66"]);
        let wanted = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                      203.0.113.7\tmirror\n2001:db8::1\tmirror\n\
                      10.213.0.2\tweb.example.org web\n10.213.0.66\tweb.example.org web\n";
        assert_eq!(hosts, wanted);
        assert_eq!(hostname, "web\n");
        let wanted =
            "nameserver 127.0.0.11\nsearch example.org example.net\noptions rotate ndots:0\n";
        assert_eq!(resolver, wanted);
        let [_, _, (_, resolver)] = names(&name, &service, &[]);
        assert_eq!(resolver, "", "who is on no network asks nobody");
    }
}
