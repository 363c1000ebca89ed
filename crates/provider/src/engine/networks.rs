//! The networks of pods: a bridge and a /26 for each.

use std::{collections::HashMap, net::Ipv4Addr};

use alloy::primitives::{hex, keccak256};
use bollard::models::{
    EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
};
use protocol::pod::{Name, Network, Pod, PodHash};

use super::{Engine, EngineError, Order, is_missing};
use crate::{config::NetworkRange, firewall::BRIDGE_PREFIX, leases::PodKey};

/// How many /26 networks a /16 has.
const NETWORKS: u16 = 1 << 10;

/// The network of all services that name none.
pub(super) const DEFAULT_NETWORK: &str = "default";

/// How often a network is tried for: another provider on the same engine may take a range at the same time.
const NETWORK_TRIES: usize = 8;

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
                    "com.docker.network.bridge.name".into(),
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
