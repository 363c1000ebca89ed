//! Holds what is known of a provider to what is wished.

use std::{borrow::Cow, collections::BTreeSet};

use alloy_primitives::{Address, B256};

use super::{
    Criterion, Facts, Search, Why,
    expression::{How, Name, Node, Operand, Part, Sign, Value},
};
use crate::{
    amount::{Amount, Rate, Token},
    resources::Resources,
};

/// All of them, in the order in which they are told.
const ALL: [Criterion; 7] = [
    Criterion::Live,
    Criterion::Address,
    Criterion::Region,
    Criterion::Price,
    Criterion::Room,
    Criterion::Coverage,
    Criterion::Where,
];

/// Each criterion that excludes a provider; none, if it comes into question. What is not known where it has to be excludes.
pub fn why_not(search: &Search, facts: &Facts) -> Vec<Why> {
    let known = Known { search, facts };
    let excluding = ALL.into_iter().filter(|criterion| known.excludes(*criterion));
    let whys = excluding.flat_map(|criterion| {
        known.told_of(criterion).into_iter().map(move |text| Why { criterion, text })
    });
    whys.collect()
}

/// Whether a provider comes into question: whether [`why_not`] has nothing to say. This says it without a word, for whoever
/// looks at many.
pub fn fits(search: &Search, facts: &Facts) -> bool {
    let known = Known { search, facts };
    !ALL.into_iter().any(|criterion| known.excludes(criterion))
}

fn unknown() -> String {
    "not known here".into()
}

/// As people see a price; one that does not fit into 128 bits is shown as the highest that does.
fn show_price(rate: Rate, token: &Token) -> String {
    match rate {
        Rate(u128::MAX) => "beyond all bounds".into(),
        rate => rate.per_hour(token),
    }
}

/// The facts in the terms of a search.
struct Known<'a> {
    search: &'a Search,
    facts: &'a Facts,
}

impl<'a> Known<'a> {
    fn region(&self) -> Cow<'a, str> {
        match self.facts.region.chars().any(char::is_uppercase) {
            true => Cow::Owned(self.facts.region.to_lowercase()),
            false => Cow::Borrowed(self.facts.region.as_str()),
        }
    }

    fn price(&self) -> Option<Rate> {
        self.search.price(&self.facts.prices)
    }

    /// The parts of the expressions that do not hold.
    fn failing(&self) -> impl Iterator<Item = &'a Part> {
        let parts = self.search.expressions.iter().flat_map(|expression| &expression.0);
        parts.filter(|part| self.holds(&part.node) != Some(true))
    }

    fn excludes(&self, criterion: Criterion) -> bool {
        let Self { search, facts } = self;
        match criterion {
            Criterion::Live => !facts.live,
            Criterion::Address => {
                !search.addresses.is_empty() && !search.addresses.contains(&facts.provider)
            }
            Criterion::Region => {
                !search.regions.is_empty() && !search.regions.contains(self.region().as_ref())
            }
            Criterion::Price => {
                search.max_rate.is_some_and(|most| self.price().is_some_and(|price| price > most))
            }
            Criterion::Room => {
                let both = search.resources.zip(facts.room);
                both.is_some_and(|(wanted, room)| !wanted.fits_in(&room))
            }
            Criterion::Coverage => {
                search.coverage != Amount(0)
                    && facts.free_stake.is_none_or(|free| free < search.coverage)
            }
            Criterion::Where => self.failing().next().is_some(),
        }
    }

    /// For people, of a criterion that excludes: what was wanted, and what there is; of the expressions each part by itself.
    fn told_of(&self, criterion: Criterion) -> Vec<String> {
        let Self { search, facts } = self;
        let token = &search.token;
        let price = |rate: Option<Rate>| rate.map_or_else(unknown, |rate| show_price(rate, token));
        let resources =
            |some: Option<Resources>| some.map_or_else(unknown, |some| some.to_string());
        let text = match criterion {
            Criterion::Live => format!("it was last heard of {} s ago", facts.seen),
            Criterion::Address => format!("{} is none of the addresses", facts.provider),
            Criterion::Region => {
                let wanted: Vec<_> = search.regions.iter().map(String::as_str).collect();
                format!("region is {:?}, and {} is wanted", self.region(), wanted.join(" or "))
            }
            Criterion::Price => {
                let (here, most) = (price(self.price()), price(search.max_rate));
                format!("price is {here}, and {most} is the limit")
            }
            Criterion::Room => {
                let (wanted, room) = (resources(search.resources), resources(facts.room));
                format!("{wanted} are needed, and {room} are free")
            }
            Criterion::Coverage => {
                let free = facts.free_stake.map_or_else(unknown, |free| free.display(token));
                let wanted = search.coverage.display(token);
                format!("free_stake is {free}, and {wanted} of coverage are wanted")
            }
            Criterion::Where => return self.failing().map(|part| self.told_with(part)).collect(),
        };
        vec![text]
    }

    /// A part of an expression as it was written, with the values of what it names.
    fn told_with(&self, part: &Part) -> String {
        let values = self.values(&part.node);
        match values.is_empty() {
            true => part.text.clone(),
            false => format!("{} ({values})", part.text),
        }
    }

    /// Whether a condition holds; `None` where that depends on what is not known.
    fn holds(&self, node: &Node) -> Option<bool> {
        match node {
            Node::Always(truth) => Some(*truth),
            Node::Not(inner) => self.holds(inner).map(|truth| !truth),
            Node::Both(sides) => self.decided(sides, false),
            Node::Either(sides) => self.decided(sides, true),
            Node::Compare { name, sign, with } => {
                let value = self.value(*name)?;
                let with = match with {
                    Operand::Value(with) => Cow::Borrowed(with),
                    Operand::Name(other) => Cow::Owned(self.value(*other)?),
                };
                Some(compare(&value, *sign, &with))
            }
            Node::In { name, list } => Some(list.contains(&self.value(*name)?)),
            Node::Text { name, how, with } => {
                let text = (*name == Name::Region).then(|| self.region())?;
                Some(match how {
                    How::StartsWith => text.starts_with(with),
                    How::EndsWith => text.ends_with(with),
                    How::Contains => text.contains(with),
                })
            }
            Node::Attested(wanted) => {
                let claimed = self.facts.measurement;
                Some(wanted.map_or(claimed != B256::ZERO, |wanted| claimed == wanted))
            }
            Node::Vouched { attribute, auditor, .. } => self.vouched(*attribute, *auditor),
        }
    }

    /// What two conditions are together, if one that is `truth` decides: known as soon as that one is.
    fn decided(&self, sides: &[Node; 2], truth: bool) -> Option<bool> {
        let [one, other] = sides;
        match self.holds(one) {
            Some(first) if first == truth => Some(truth),
            first => match self.holds(other) {
                Some(second) if second == truth => Some(truth),
                second => first.and(second),
            },
        }
    }

    /// The word of the auditor that is named; else that of anybody but the provider.
    fn vouched(&self, attribute: B256, auditor: Option<Address>) -> Option<bool> {
        let vouches = self.facts.vouches.as_ref()?;
        Some(match auditor {
            Some(auditor) => vouches.contains(&(attribute, auditor)),
            None => {
                let all = (attribute, Address::ZERO)..=(attribute, Address::repeat_byte(0xff));
                vouches.range(all).any(|(_, auditor)| *auditor != self.facts.provider)
            }
        })
    }

    fn value(&self, name: Name) -> Option<Value> {
        let facts = self.facts;
        match name {
            Name::Region => Some(Value::Text(self.region().into_owned())),
            Name::Address => Some(Value::Address(facts.provider)),
            Name::Price => self.price().map(Value::Rate),
            Name::FreeStake => facts.free_stake.map(Value::Amount),
            Name::Bonded => facts.bonded.map(Value::Amount),
            Name::Leases => facts.leases.map(Value::Whole),
            Name::OpenLeases => facts.open_leases.map(Value::Whole),
            Name::Dark => facts.dark.map(Value::Whole),
            Name::Seen => Some(Value::Whole(facts.seen)),
            Name::Attested | Name::Vouched => None,
        }
    }

    /// What a condition names, with its values: each once.
    fn values(&self, node: &Node) -> String {
        let mut values = Vec::new();
        let mut told = BTreeSet::new();
        let mut tell = |what: String| {
            if told.insert(what.clone()) {
                values.push(what);
            }
        };
        node.each(&mut |node| match node {
            Node::Compare { name, with: Operand::Name(other), .. } => {
                tell(self.told(*name));
                tell(self.told(*other));
            }
            Node::Compare { name, .. } | Node::In { name, .. } | Node::Text { name, .. } => {
                tell(self.told(*name));
            }
            Node::Attested(_) => tell(match self.facts.measurement {
                B256::ZERO => "it claims no measurement".into(),
                claimed => format!("it claims measurement {claimed}"),
            }),
            Node::Vouched { name, attribute, auditor } => {
                let by = auditor.map_or_else(String::new, |auditor| format!(" by {auditor}"));
                tell(match self.vouched(*attribute, *auditor) {
                    Some(true) => format!("it is vouched for{by}: {name}"),
                    Some(false) => format!("it is not vouched for{by}: {name}"),
                    None => format!("who vouches for {name} is {}", unknown()),
                });
            }
            Node::Always(_) | Node::Not(_) | Node::Both(_) | Node::Either(_) => (),
        });
        values.join(", ")
    }

    fn told(&self, name: Name) -> String {
        let value = match self.value(name) {
            None => unknown(),
            Some(Value::Text(text)) => format!("{text:?}"),
            Some(Value::Address(address)) => address.to_string(),
            Some(Value::Rate(rate)) => show_price(rate, &self.search.token),
            Some(Value::Amount(amount)) => amount.display(&self.search.token),
            Some(Value::Whole(number)) => number.to_string(),
        };
        format!("{} is {value}", name.as_str())
    }
}

fn compare(value: &Value, sign: Sign, with: &Value) -> bool {
    match sign {
        Sign::Equal => value == with,
        Sign::Unequal => value != with,
        Sign::Less => value < with,
        Sign::AtMost => value <= with,
        Sign::More => value > with,
        Sign::AtLeast => value >= with,
    }
}
