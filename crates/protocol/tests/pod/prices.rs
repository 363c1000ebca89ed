//! What a pod costs: parts that come to the whole, and no less for more.

use proptest::{array::uniform6, prelude::*};
use protocol::{
    amount::Rate,
    resources::{Bytes, Cpu, Demand, PriceList, Resources},
};

use crate::{block, pod};

const MIB: u64 = 1 << 20;

fn list(rates: [u128; 6]) -> PriceList {
    let [cpu, memory, storage, egress, public_port, gpu] = rates.map(Rate);
    PriceList { cpu, memory, storage, egress, public_port, gpu }
}

fn demand(of: [u64; 6]) -> Demand {
    let [cpu, memory, storage, egress, ports, gpus] = of;
    let few = |count: u64| u32::try_from(count % 100_000).expect("a few");
    Demand {
        resources: Resources {
            cpu: Cpu(few(cpu)),
            memory: Bytes(memory),
            storage: Bytes(storage),
            gpus: few(gpus),
        },
        egress: Bytes(egress),
        public_ports: few(ports),
    }
}

/// What is charged of a pod that asks for so much egress, or says nothing of it.
fn charged(asked: Option<u64>, included: u64) -> u64 {
    let egress = asked.map(|total| format!("{{ egress: {{ total: {total} }} }}"));
    let pod = pod(&block(&egress.unwrap_or_else(|| "{ price: { max: 1/h } }".into())));
    pod.demand(Bytes(included)).egress.0
}

proptest! {
    #[test]
    fn parts_come_to_the_whole(rates in uniform6(0_u128..1 << 60), of in uniform6(0_u64..1 << 50)) {
        let (list, demand) = (list(rates), demand(of));
        let price = list.price(&demand).expect("a price");
        prop_assert_eq!(price.sum(), Some(price.total));
        let Demand { resources, egress, public_ports } = demand;
        let units = |bytes: Bytes| bytes.0.div_ceil(MIB);
        let counts = [
            (price.cpu, list.cpu, u64::from(resources.cpu.0)),
            (price.memory, list.memory, units(resources.memory)),
            (price.storage, list.storage, units(resources.storage)),
            (price.egress, list.egress, units(egress)),
            (price.public_ports, list.public_port, u64::from(public_ports)),
            (price.gpus, list.gpu, u64::from(resources.gpus)),
        ];
        for (part, rate, count) in counts {
            prop_assert_eq!(part.0, rate.0 * u128::from(count));
        }
    }

    #[test]
    fn more_never_costs_less(
        rates in uniform6(0_u128..1 << 60),
        of in uniform6(0_u64..1 << 50),
        which in 0_usize..6,
        more in 0_u64..1 << 40,
    ) {
        let list = list(rates);
        let fewer = demand(of);
        let mut larger = fewer;
        let few = u32::try_from(more % 1_000).expect("a few");
        match which {
            0 => larger.resources.cpu.0 += few,
            1 => larger.resources.memory.0 += more,
            2 => larger.resources.storage.0 += more,
            3 => larger.egress.0 += more,
            4 => larger.public_ports += few,
            _ => larger.resources.gpus += few,
        }
        let (less, more) = (list.price(&fewer).expect("a price"), list.price(&larger).expect("a price"));
        prop_assert!(less.total <= more.total, "{less:?} {more:?}");
    }

    #[test]
    fn egress_is_charged_beyond_what_is_included(
        asked in MIB..1 << 50,
        more in 0_u64..1 << 40,
        included in 0_u64..1 << 50,
    ) {
        let more = (asked + more).min(1 << 50);
        let nothing = charged(None, included);
        prop_assert_eq!(nothing, 0);
        let (some, larger) = (charged(Some(asked), included), charged(Some(more), included));
        prop_assert_eq!(some, asked.saturating_sub(included));
        prop_assert!(some <= larger);
        if asked <= included {
            prop_assert_eq!(some, nothing, "who asks for no more than is included pays for more");
        }
        // Where more is included, no more is charged.
        prop_assert!(charged(Some(asked), included / 2) >= some);
    }
}

#[test]
fn ports_that_the_world_reaches_are_charged_and_others_are_not() {
    let ports = |lines: &str| pod(&crate::web(lines)).demand(Bytes(0)).public_ports;
    assert_eq!(ports("expose: [80, 81]"), 0);
    assert_eq!(ports("ports: [5432, \"53:53/udp\", \"53:53\", \"127.0.0.1::82\"]"), 3);
    // What a host leads to is the ingress's.
    assert_eq!(
        pod(&block("{ ingress: { a.example.org: \"web:8080\" } }")).demand(Bytes(0)).public_ports,
        0
    );
}
