//! What an expression may say: names, their kinds, and the conditions that are made of them.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256};
use cel::common::ast::operators;

use crate::amount::{Amount, Rate};

/// A condition on providers, in the terms of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(pub(super) Vec<Part>);

/// A part of an expression, all of which have to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// As it was written.
    pub(super) text: String,
    /// What it says.
    pub(super) node: Node,
}

/// What an expression may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `region`: where it is, in lower case.
    Region,
    /// `address`: who it is.
    Address,
    /// `price`: what the pod costs by its price list, in tokens per hour.
    Price,
    /// `free_stake`: what of its bond can back a new lease, in tokens.
    FreeStake,
    /// `bonded`: its bond, in tokens.
    Bonded,
    /// `leases`: how many were ever opened with it.
    Leases,
    /// `open_leases`: how many of them are open.
    OpenLeases,
    /// `dark`: how many were closed because it was gone.
    Dark,
    /// `seen`: since when it was not heard of, in seconds.
    Seen,
    /// `attested()`: whether it claims to be able to attest a measurement, or the one that is given.
    Attested,
    /// `vouched(…)`: whether it is vouched for.
    Vouched,
}

/// What can be compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Address,
    Price,
    Tokens,
    Count,
    Seconds,
    /// True or false, by a call.
    Flag,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Always(bool),
    Not(Box<Self>),
    Both(Box<[Self; 2]>),
    Either(Box<[Self; 2]>),
    Compare { name: Name, sign: Sign, with: Operand },
    In { name: Name, list: Vec<Value> },
    Text { name: Name, how: How, with: String },
    Attested(Option<B256>),
    Vouched { name: String, attribute: B256, auditor: Option<Address> },
}

/// What a name is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand {
    Name(Name),
    Value(Value),
}

/// A value, exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Text(String),
    Address(Address),
    Rate(Rate),
    Amount(Amount),
    Whole(u64),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A question about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    StartsWith,
    EndsWith,
    Contains,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Region,
        Self::Address,
        Self::Price,
        Self::FreeStake,
        Self::Bonded,
        Self::Leases,
        Self::OpenLeases,
        Self::Dark,
        Self::Seen,
        Self::Attested,
        Self::Vouched,
    ];

    /// As it is written in an expression.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Address => "address",
            Self::Price => "price",
            Self::FreeStake => "free_stake",
            Self::Bonded => "bonded",
            Self::Leases => "leases",
            Self::OpenLeases => "open_leases",
            Self::Dark => "dark",
            Self::Seen => "seen",
            Self::Attested => "attested",
            Self::Vouched => "vouched",
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Region => Kind::Text,
            Self::Address => Kind::Address,
            Self::Price => Kind::Price,
            Self::FreeStake | Self::Bonded => Kind::Tokens,
            Self::Leases | Self::OpenLeases | Self::Dark => Kind::Count,
            Self::Seen => Kind::Seconds,
            Self::Attested | Self::Vouched => Kind::Flag,
        }
    }
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Address => "an address",
            Self::Price => "a price in tokens per hour",
            Self::Tokens => "an amount of tokens",
            Self::Count => "a number",
            Self::Seconds => "a number of seconds",
            Self::Flag => "true or false",
        }
    }

    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Text => "\"eu-west\"",
            Self::Address => "\"0x\" and 40 hexadecimal digits",
            Self::Price => "0.02",
            Self::Tokens => "12.5",
            Self::Count => "3",
            Self::Seconds => "600",
            Self::Flag => "true",
        }
    }
}

impl Sign {
    pub(super) fn of(operator: &str) -> Option<Self> {
        Some(match operator {
            operators::EQUALS => Self::Equal,
            operators::NOT_EQUALS => Self::Unequal,
            operators::LESS => Self::Less,
            operators::LESS_EQUALS => Self::AtMost,
            operators::GREATER => Self::More,
            operators::GREATER_EQUALS => Self::AtLeast,
            _ => return None,
        })
    }

    /// What it is when its sides are exchanged.
    pub(super) fn turned(self) -> Self {
        match self {
            Self::Less => Self::More,
            Self::More => Self::Less,
            Self::AtMost => Self::AtLeast,
            Self::AtLeast => Self::AtMost,
            Self::Equal | Self::Unequal => self,
        }
    }
}

impl How {
    pub(super) const ALL: [(&'static str, Self); 3] = [
        ("startsWith", Self::StartsWith),
        ("endsWith", Self::EndsWith),
        ("contains", Self::Contains),
    ];
}

impl Expression {
    /// What it names.
    pub fn names(&self) -> BTreeSet<Name> {
        self.0.iter().flat_map(|part| part.node.names()).collect()
    }

    /// Its parts, as they were written: it holds where each of them does.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|part| part.text.as_str())
    }

    /// The attributes for which a provider may have to be vouched, each with its name.
    pub fn attributes(&self) -> BTreeMap<B256, String> {
        let mut attributes = BTreeMap::new();
        self.0.iter().for_each(|part| {
            part.node.each(&mut |node| {
                if let Node::Vouched { name, attribute, .. } = node {
                    attributes.insert(*attribute, name.clone());
                }
            });
        });
        attributes
    }
}

impl Node {
    /// Visits all conditions that it is made of.
    pub(super) fn each<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        match self {
            Self::Not(inner) => inner.each(visit),
            Self::Both(sides) | Self::Either(sides) => {
                sides.iter().for_each(|side| side.each(visit));
            }
            Self::Always(_)
            | Self::Compare { .. }
            | Self::In { .. }
            | Self::Text { .. }
            | Self::Attested(_)
            | Self::Vouched { .. } => (),
        }
    }

    fn names(&self) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        self.each(&mut |node| match node {
            Self::Compare { name, with, .. } => {
                names.insert(*name);
                if let Operand::Name(other) = with {
                    names.insert(*other);
                }
            }
            Self::In { name, .. } | Self::Text { name, .. } => _ = names.insert(*name),
            Self::Attested(_) => _ = names.insert(Name::Attested),
            Self::Vouched { .. } => _ = names.insert(Name::Vouched),
            Self::Always(_) | Self::Not(_) | Self::Both(_) | Self::Either(_) => (),
        });
        names
    }
}
