//! Where visitors of pods are led.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use edge::Backend;
use protocol::{
    lease::State,
    pod::{Http, Target, Transport},
};

use super::Shared;
use crate::{
    certificates::Claim,
    engine::{Container, Found},
    leases::{PodKey, Snapshot},
    ports::Wanted,
};

/// What visitors of a paused pod are told.
const PAUSED: &str = "paused until its account is topped up";

impl Shared {
    /// Sends requests to what runs by now; where that cannot be read, they go where they went.
    pub(super) async fn reroute(&self) {
        let look = self.runs.looks.begin();
        if let Ok(pods) = self.engine.pods().await
            && self.runs.looks.is_newest(look)
        {
            let snapshot = Arc::clone(&self.seen.borrow());
            self.route(&snapshot, &pods);
        }
    }

    /// Sends every host's requests, and what comes to public ports, to its pod, and has hosts shown with their
    /// certificates. Where two leases want one host, the older has it.
    pub(super) fn route(&self, snapshot: &Snapshot, pods: &BTreeMap<PodKey, Found>) {
        use bollard::models::ContainerSummaryStateEnum as S;
        let (mut routes, mut ports) = (HashMap::new(), Wanted::default());
        let (mut served, mut claims) = (HashMap::new(), Vec::new());
        for (key, lease) in &snapshot.leases {
            if !matches!(lease.state, State::Pending | State::Active) {
                // A reorg may open it again.
                ports.keep(*key);
                continue;
            }
            let found = pods.get(key).cloned().unwrap_or_default();
            let serving = self.runs.serving(lease, &found);
            let Ok(pod) = self.pods.get(serving) else {
                ports.leave(*key);
                continue;
            };
            // While a lease changes, it may go either way.
            match self.pods.get(lease.pod) {
                Ok(next) => ports.reserve(*key, &next),
                Err(_) => ports.keep(*key),
            }
            ports.reserve(*key, &pod);
            let containers = found.of(serving);
            // Said before its pod is frozen: a request to a frozen one would hang.
            let dry = lease.is_dry(snapshot.head.timestamp);
            for (host, target) in pod.ingress() {
                let replicas = pod.replicas(&target.service);
                let replicas = replicas.map(|name| containers.get(name.as_str()));
                let backend = backend(replicas, target, dry);
                routes.entry(host.to_string()).or_insert(backend);
                served.entry(host.to_string()).or_insert((key.lease, serving));
                claims.push(Claim {
                    host: host.clone(),
                    key: *key,
                    active: lease.state == State::Active,
                    account: lease.account,
                    pod: serving,
                    tls: pod.tls().get(host).cloned(),
                });
            }
            // Of a pod that is frozen nothing is open: who is connected would wait for ever.
            for (service, port) in pod.public_ports().filter(|_port| !dry) {
                let container = containers.get(service.as_str());
                let running = container.filter(|container| container.state == S::RUNNING);
                let to =
                    running.and_then(|container| container.at(port.transport, port.number.get()));
                ports.open(*key, service, port, to);
            }
        }
        self.served.set(served);
        self.routes.set(routes);
        self.ports.set(&ports);
        if let Some(certificates) = &self.certificates {
            certificates.set(&claims, self);
        }
    }
}

/// Where the requests for a target go, given its service's container and those of its replicas.
fn backend<'a>(
    replicas: impl Iterator<Item = Option<&'a Container>>,
    target: &Target,
    dry: bool,
) -> Backend {
    use bollard::models::ContainerSummaryStateEnum as S;
    let replicas: Vec<_> = replicas.flatten().collect();
    let running = replicas.iter().filter(|container| container.state == S::RUNNING);
    let addrs: Vec<SocketAddr> =
        running.filter_map(|one| one.at(Transport::Tcp, target.port.get())).collect();
    let paused = replicas.iter().any(|container| container.state == S::PAUSED);
    match target.protocol {
        _ if dry || (addrs.is_empty() && paused) => Backend::Unavailable(PAUSED.into()),
        _ if addrs.is_empty() => Backend::Unavailable("starting".into()),
        Http::Http1 => Backend::Addrs(addrs),
        Http::H2c => Backend::H2c(addrs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_to_what_runs_in_the_protocol_that_it_speaks() {
        use bollard::models::ContainerSummaryStateEnum as S;
        let target = |protocol: &str| -> Target {
            let json = serde_json::json!({ "port": 90, "protocol": protocol, "service": "web" });
            serde_json::from_value(json).unwrap()
        };
        let ip = std::net::Ipv4Addr::new(10, 213, 0, 2);
        let addrs = vec![(ip, 90).into()];
        let id = "web".to_owned();
        let runs = Container { id, state: S::RUNNING, ip: Some(ip), lost: false, task: None };
        let frozen = Container { state: S::PAUSED, ..runs.clone() };
        let paused = Backend::Unavailable(PAUSED.into());
        for (container, protocol, dry, wanted) in [
            (Some(&runs), "http1", false, Backend::Addrs(addrs.clone())),
            (Some(&runs), "h2c", false, Backend::H2c(addrs)),
            (Some(&runs), "h2c", true, paused.clone()),
            (Some(&frozen), "h2c", false, paused),
            (None, "h2c", false, Backend::Unavailable("starting".into())),
        ] {
            let backend = backend([container].into_iter(), &target(protocol), dry);
            assert_eq!(backend, wanted, "{protocol} {dry}");
        }
        let other = std::net::Ipv4Addr::new(10, 213, 0, 3);
        let second = Container { ip: Some(other), ..runs.clone() };
        let replicas = [Some(&runs), None, Some(&second), Some(&frozen)].into_iter();
        let both = Backend::Addrs(vec![(ip, 90).into(), (other, 90).into()]);
        assert_eq!(backend(replicas, &target("http1"), false), both);
    }
}
