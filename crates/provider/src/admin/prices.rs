//! A price list as it is typed: for a processor, a GiB of memory, of storage or of egress, a public port, a GPU.

use protocol::{
    amount::{Rate, Token},
    resources::{Bytes, Cpu, Demand, PriceList, Resources},
};
use serde::Deserialize;

/// What is typed, and how many of what a price list has a rate for that is: a processor has a thousand thousandths, a GiB
/// 1,024 MiB.
pub(super) const KINDS: [(&str, &str, u128); 6] = [
    ("cpu", "A processor", 1_000),
    ("memory", "A GiB of memory", 1_024),
    ("storage", "A GiB of storage", 1_024),
    ("egress", "A GiB of egress in 30 days", 1_024),
    ("public_port", "A public port", 1),
    ("gpu", "A GPU", 1),
];

/// Pods as people run them, to see what a list comes to.
const TYPICAL: [(&str, Demand); 4] = [
    ("a small web app", demand(250, 256, 1)),
    ("an app with its database", demand(1_000, 2_048, 20)),
    ("something large", demand(4_000, 16_384, 100)),
    ("a model on a GPU, with 100 GiB of egress beyond what is included and a public port", MODEL),
];

const MODEL: Demand = Demand {
    resources: Resources { gpus: 1, ..demand(4_000, 16_384, 100).resources },
    egress: Bytes(100 << 30),
    public_ports: 1,
};

const fn demand(cpu: u32, mib: u64, gib: u64) -> Demand {
    let (memory, storage) = (Bytes(mib << 20), Bytes(gib << 30));
    let resources = Resources { cpu: Cpu(cpu), memory, storage, gpus: 0 };
    Demand { resources, egress: Bytes(0), public_ports: 0 }
}

/// What was typed; nothing where the form was not sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entered {
    pub(super) cpu: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) storage: Option<String>,
    pub(super) egress: Option<String>,
    pub(super) public_port: Option<String>,
    pub(super) gpu: Option<String>,
}

impl Entered {
    /// In the order of `KINDS`.
    fn texts(&self) -> [&Option<String>; 6] {
        let Self { cpu, memory, storage, egress, public_port, gpu } = self;
        [cpu, memory, storage, egress, public_port, gpu]
    }
}

/// One price, as typed.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) text: String,
    pub(super) fault: Option<String>,
}

/// What a pod would cost.
#[derive(Debug, Clone)]
pub(super) struct Example {
    pub(super) name: &'static str,
    pub(super) resources: Resources,
    pub(super) now: String,
    pub(super) then: Option<String>,
}

/// What was typed, checked.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) fields: [Field; 6],
    pub(super) examples: Vec<Example>,
    /// The list, if it is one, and another than the one that holds.
    pub(super) prices: Option<PriceList>,
    /// Whether that list says another thing of what is listed on the chain.
    pub(super) listed: bool,
    /// Whether anything was typed.
    pub(super) entered: bool,
}

/// In the order of `KINDS`.
fn rates(list: &PriceList) -> [Rate; 6] {
    let PriceList { cpu, memory, storage, egress, public_port, gpu } = *list;
    [cpu, memory, storage, egress, public_port, gpu]
}

/// A price list, as it is typed.
pub(super) fn typed(prices: &PriceList, token: &Token) -> [String; 6] {
    let rates = rates(prices);
    std::array::from_fn(|n| Rate(rates[n].0.saturating_mul(KINDS[n].2)).per_hour(token))
}

impl Proposal {
    pub(super) fn of(entered: &Entered, now: &PriceList, token: &Token) -> Self {
        let shown = typed(now, token);
        let before = rates(now);
        let texts = entered.texts();
        let mut rates = [None; 6];
        let fields = std::array::from_fn(|n| {
            let (name, title, parts) = KINDS[n];
            let text = texts[n].clone().unwrap_or_else(|| shown[n].clone());
            // What was not touched stays exactly what it is.
            let rate = match text.trim() == shown[n] {
                true => Ok(before[n]),
                false => parse(&text, token, parts),
            };
            let fault = rate.as_ref().err().cloned();
            rates[n] = rate.ok();
            Field { name, title, text, fault }
        });
        let list = match rates {
            [
                Some(cpu),
                Some(memory),
                Some(storage),
                Some(egress),
                Some(public_port),
                Some(gpu),
            ] => Some(PriceList { cpu, memory, storage, egress, public_port, gpu }),
            _faulty => None,
        };
        let cost = |list: &PriceList, demand: &Demand| {
            let price = list.price(demand);
            price.map_or_else(
                |err| err.to_string(),
                |price| {
                    format!("{} ({})", price.total.per_hour(token), price.total.per_month(token))
                },
            )
        };
        let examples = TYPICAL.iter().map(|(name, demand)| Example {
            name,
            resources: demand.resources,
            now: cost(now, demand),
            then: list.as_ref().map(|list| cost(list, demand)),
        });
        let listed = |list: &PriceList| [list.cpu, list.memory, list.storage];
        Self {
            examples: examples.collect(),
            listed: list.as_ref().is_some_and(|list| listed(list) != listed(now)),
            prices: list.filter(|list| list != now),
            entered: texts.iter().any(|text| text.is_some()),
            fields,
        }
    }
}

fn parse(text: &str, token: &Token, parts: u128) -> Result<Rate, String> {
    if text.len() > 60 {
        return Err("that is too long to be a price such as 0.01/h".into());
    }
    let rate = Rate::parse(text, token).map_err(|err| err.to_string())?;
    // Rounded down, as the configuration's are.
    let part = Rate(rate.0 / parts);
    let nothing = text.trim_start_matches(['0', '.']).starts_with('/');
    if part.0 == 0 && !nothing {
        return Err(format!(
            "{text:?} is so little that nothing is left of it; write 0/h to ask for nothing"
        ));
    }
    // Far above any price, and far below where a pod's would not fit any more.
    if part.0 > u128::MAX >> 40 {
        return Err(format!("{text:?} is more than can be reckoned with"));
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { symbol: "USD".into(), decimals: 6 }
    }

    fn entered(cpu: &str, memory: &str, storage: &str) -> Entered {
        let some = |text: &str| Some(text.to_owned());
        Entered {
            cpu: some(cpu),
            memory: some(memory),
            storage: some(storage),
            ..Entered::default()
        }
    }

    #[test]
    fn a_list_is_read_as_the_configuration_is() {
        let now = PriceList {
            cpu: Rate(2_777_777),
            memory: Rate(1_085_069),
            storage: Rate(18_838),
            ..PriceList::default()
        };
        let shown = typed(&now, &token());
        assert_eq!(shown[0], "0.01/h");
        let untouched = Proposal::of(&entered(&shown[0], &shown[1], &shown[2]), &now, &token());
        assert_eq!(untouched.prices, None, "what was not touched was changed");
        let proposal = Proposal::of(&entered("0.02/h", &shown[1], &shown[2]), &now, &token());
        let wanted = PriceList { cpu: Rate(5_555_555), ..now };
        assert_eq!(proposal.prices, Some(wanted));
        assert!(proposal.listed, "the chain is told");
        assert!(proposal.fields.iter().all(|field| field.fault.is_none()));
        let small = &proposal.examples[0];
        assert!(small.then.as_ref().is_some_and(|then| *then != small.now), "{small:?}");
        let plain = Proposal::of(&Entered::default(), &now, &token());
        assert!(!plain.entered && plain.prices.is_none());
        let extras = Entered {
            egress: Some("0.1024/mo".into()),
            public_port: Some("0.36/h".into()),
            gpu: Some("0.72/h".into()),
            ..entered(&shown[0], &shown[1], &shown[2])
        };
        let proposal = Proposal::of(&extras, &now, &token());
        let wanted = PriceList {
            egress: Rate(38_580),
            public_port: Rate(100_000_000_000),
            gpu: Rate(200_000_000_000),
            ..now
        };
        assert_eq!(proposal.prices, Some(wanted));
        assert!(!proposal.listed, "the chain has no place for them");
        let changed: Vec<bool> = proposal
            .examples
            .iter()
            .map(|example| example.then.as_ref() != Some(&example.now))
            .collect();
        assert_eq!(changed, [false, false, false, true]);
    }

    #[test]
    fn mistakes_are_named_beside_their_field() {
        let now = PriceList::default();
        let check = |cpu: &str, words: &str| {
            let proposal = Proposal::of(&entered(cpu, "1/mo", "0/h"), &now, &token());
            let fault = proposal.fields[0].fault.clone().unwrap_or_default();
            assert!(fault.contains(words) && proposal.prices.is_none(), "{cpu}: {fault}");
        };
        check("0.01", "0.02/h");
        check("", "0.02/h");
        check("-1/h", "0.02/h");
        check("0.000000000001/h", "nothing is left");
        check("99999999999999999999999999/s", "");
        check(&"9".repeat(100), "too long");
        let free = Proposal::of(&entered("0/h", "0.00/h", "1/mo"), &now, &token());
        assert!(free.prices.is_some(), "{free:?}");
    }
}
