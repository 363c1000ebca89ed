//! Holds what is known of a provider to what is wished.

use std::{borrow::Cow, collections::BTreeSet};

use alloy_primitives::{Address, B256};

use super::{
    Criterion, Facts, Search, Why,
    expression::{How, Name, Node, Operand, Sign, Value},
};
use crate::amount::{Amount, Rate, Token};

/// Each criterion that excludes a provider; none, if it comes into question. What is not known where it has to be excludes.
pub fn why_not(search: &Search, facts: &Facts) -> Vec<Why> {
    let known = Known::new(search, facts);
    let fixed = [
        live(facts),
        address(search, facts),
        region(search, &known),
        price(search, &known),
        room(search, facts),
        coverage(search, facts),
    ];
    let parts = search.expressions.iter().flat_map(|expression| &expression.0);
    let parts = parts.filter(|part| known.holds(&part.node) != Some(true)).map(|part| {
        let values = known.values(&part.node);
        let text = match values.is_empty() {
            true => part.text.clone(),
            false => format!("{} ({values})", part.text),
        };
        Why { criterion: Criterion::Where, text }
    });
    fixed.into_iter().flatten().chain(parts).collect()
}

/// Whether a provider comes into question: whether [`why_not`] has nothing to say. This says it without a word, for whoever
/// looks at many.
pub fn fits(search: &Search, facts: &Facts) -> bool {
    let known = Known::new(search, facts);
    facts.live
        && (search.addresses.is_empty() || search.addresses.contains(&facts.provider))
        && (search.regions.is_empty() || search.regions.contains(known.region.as_ref()))
        && known.price.zip(search.max_rate).is_none_or(|(price, most)| price <= most)
        && search.resources.zip(facts.room).is_none_or(|(wanted, room)| wanted.fits_in(&room))
        && (search.coverage == Amount(0)
            || facts.free_stake.is_some_and(|free| free >= search.coverage))
        && search
            .expressions
            .iter()
            .flat_map(|expression| &expression.0)
            .all(|part| known.holds(&part.node) == Some(true))
}

fn live(facts: &Facts) -> Option<Why> {
    (!facts.live).then(|| Why {
        criterion: Criterion::Live,
        text: format!("it was last heard of {} s ago", facts.seen),
    })
}

fn address(search: &Search, facts: &Facts) -> Option<Why> {
    let named = search.addresses.is_empty() || search.addresses.contains(&facts.provider);
    (!named).then(|| Why {
        criterion: Criterion::Address,
        text: format!("{} is none of the addresses", facts.provider),
    })
}

fn region(search: &Search, known: &Known<'_>) -> Option<Why> {
    if search.regions.is_empty() || search.regions.contains(known.region.as_ref()) {
        return None;
    }
    let wanted: Vec<_> = search.regions.iter().map(String::as_str).collect();
    let text = format!("region is {:?}, and {} is wanted", known.region, wanted.join(" or "));
    Some(Why { criterion: Criterion::Region, text })
}

fn price(search: &Search, known: &Known<'_>) -> Option<Why> {
    let (price, most) = known.price.zip(search.max_rate).filter(|(price, most)| price > most)?;
    let (price, most) = (show_price(price, &search.token), show_price(most, &search.token));
    let text = format!("price is {price}, and {most} is the limit");
    Some(Why { criterion: Criterion::Price, text })
}

fn room(search: &Search, facts: &Facts) -> Option<Why> {
    let (wanted, room) = search.resources.zip(facts.room)?;
    (!wanted.fits_in(&room)).then(|| Why {
        criterion: Criterion::Room,
        text: format!("{wanted} are needed, and {room} are free"),
    })
}

fn coverage(search: &Search, facts: &Facts) -> Option<Why> {
    let wanted = search.coverage;
    if wanted == Amount(0) || facts.free_stake.is_some_and(|free| free >= wanted) {
        return None;
    }
    let token = &search.token;
    let free = facts.free_stake.map_or_else(unknown, |free| free.display(token));
    let text =
        format!("free_stake is {free}, and {} of coverage are wanted", wanted.display(token));
    Some(Why { criterion: Criterion::Coverage, text })
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
    facts: &'a Facts,
    token: &'a Token,
    region: Cow<'a, str>,
    price: Option<Rate>,
}

impl<'a> Known<'a> {
    fn new(search: &'a Search, facts: &'a Facts) -> Self {
        let region = match facts.region.chars().any(char::is_uppercase) {
            true => Cow::Owned(facts.region.to_lowercase()),
            false => Cow::Borrowed(facts.region.as_str()),
        };
        Self { facts, token: &search.token, region, price: search.price(&facts.prices) }
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
                let Value::Text(text) = self.value(*name)? else { return None };
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
            Name::Region => Some(Value::Text(self.region.clone().into_owned())),
            Name::Address => Some(Value::Address(facts.provider)),
            Name::Price => self.price.map(Value::Rate),
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
            Some(Value::Rate(rate)) => show_price(rate, self.token),
            Some(Value::Amount(amount)) => amount.display(self.token),
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
