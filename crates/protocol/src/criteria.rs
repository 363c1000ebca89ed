//! Which providers come into question, and why the others do not.
//!
//! A pod file says it with lists, a price and an expression in [CEL](https://cel.dev); whoever knows the facts of a provider
//! (a client from the chain, a market from its database) judges with [`why_not`]. It is the same judgement everywhere.
//!
//! An expression may come from anybody, as a market is asked by anybody. It has no loops, no regular expressions and no
//! arithmetic, at most [`LENGTH`] bytes, and brackets at most [`DEPTH`] deep; judging a provider by it costs no more than it
//! is long. Names and kinds are checked when it is read, so that judging cannot fail. The worst that a stranger can do is to
//! ask for what no provider has.

mod expression;
mod judge;
mod read;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use alloy_primitives::{Address, B256, keccak256};
use serde::{Deserialize, Serialize};

pub use self::{
    expression::{Expression, Name},
    judge::{fits, why_not},
    scan::{DEPTH, LENGTH},
};
use crate::{
    amount::{Amount, ParseAmountError, Rate, Token},
    pod::Wishes,
    resources::{PriceList, Resources},
};

/// An expression as it is written; what its amounts are depends on the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where(String);

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (at character {at})")]
pub struct ExpressionError {
    /// The character, counted from 1.
    pub at: usize,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// What is wished of a provider, in the terms of one market.
#[derive(Debug, Clone)]
pub struct Search {
    /// The market's token.
    pub token: Token,
    /// What the pod uses; nothing where there is no pod, and then there is no price.
    pub resources: Option<Resources>,
    /// The highest list price of the pod.
    pub max_rate: Option<Rate>,
    /// The regions, in lower case; empty is any.
    pub regions: BTreeSet<String>,
    /// The providers; empty is any.
    pub addresses: BTreeSet<Address>,
    /// What is to be put behind the lease, in base units.
    pub coverage: Amount,
    /// What else has to hold: each of them.
    pub expressions: Vec<Expression>,
}

/// What is known of a provider. What is `None` is not known where the question is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who it is.
    pub provider: Address,
    /// Its region, as it wrote it.
    pub region: String,
    /// Its price list.
    pub prices: PriceList,
    /// The measurement that it claims to be able to attest; zero for none.
    pub measurement: B256,
    /// Whether it is listed and was heard of lately.
    pub live: bool,
    /// Since when it was not heard of, in seconds.
    pub seen: u64,
    /// What of its machines is free. As this is only ever its own word, nobody is excluded for not saying it.
    pub room: Option<Resources>,
    /// What it has at stake, in base units.
    pub bonded: Option<Amount>,
    /// What of that can back a new lease: it backs nothing yet, and Leases may lock it.
    pub free_stake: Option<Amount>,
    /// How many leases were ever opened with it.
    pub leases: Option<u64>,
    /// How many of them are open.
    pub open_leases: Option<u64>,
    /// How many of them were closed because it was gone.
    pub dark: Option<u64>,
    /// Which attributes it is vouched for at present, and by whom.
    pub vouches: Option<BTreeSet<(B256, Address)>>,
}

/// One criterion that excludes a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Which criterion.
    pub criterion: Criterion,
    /// For people: what was wanted, and what there is.
    pub text: String,
}

/// By what a provider is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// It is alive.
    Live,
    /// It is one of those that are named.
    Address,
    /// It is in one of the regions.
    Region,
    /// The pod costs no more there than it may.
    Price,
    /// There is room for the pod.
    Room,
    /// Its bond has as much free as the coverage.
    Coverage,
    /// A part of the expression.
    Where,
}

/// Why wishes are no search.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The highest price is no price in this token.
    #[error("x-roadstead.price.max cannot be had in this market's token")]
    Price(#[source] ParseAmountError),
    /// The coverage is no amount of this token.
    #[error("x-roadstead.sla.coverage cannot be had in this market's token")]
    Coverage(#[source] ParseAmountError),
    /// The expression names an amount that is none of this token.
    #[error("x-roadstead.providers.where cannot be judged")]
    Where(#[source] ExpressionError),
}

/// As in the JSON.
impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Address => "address",
            Self::Region => "region",
            Self::Price => "price",
            Self::Room => "room",
            Self::Coverage => "coverage",
            Self::Where => "where",
        })
    }
}

impl Where {
    /// What it is in `token`.
    ///
    /// # Errors
    /// When an amount in it is finer than the token, or too large.
    pub fn expression(&self, token: &Token) -> Result<Expression, ExpressionError> {
        Expression::parse(&self.0, token)
    }
}

impl FromStr for Where {
    type Err = ExpressionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Expression::parse(text, &Token::finest()).map(|_| Self(text.to_owned()))
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Search {
    /// What `wishes` are for a pod that uses `resources`.
    ///
    /// # Errors
    /// When an amount in them is finer than the token, or too large.
    pub fn new(
        wishes: &Wishes,
        resources: Option<Resources>,
        token: &Token,
    ) -> Result<Self, SearchError> {
        let criteria = &wishes.providers;
        let price = wishes.max_price.as_ref().map(|price| price.rate(token)).transpose();
        let coverage = wishes.sla.coverage.as_ref().map(|amount| amount.amount(token)).transpose();
        let expression = criteria.expression.as_ref().map(|text| text.expression(token));
        Ok(Self {
            token: token.clone(),
            resources,
            max_rate: price.map_err(SearchError::Price)?,
            regions: criteria.regions.clone(),
            addresses: criteria.addresses.clone(),
            coverage: coverage.map_err(SearchError::Coverage)?.unwrap_or_default(),
            expressions: expression.transpose().map_err(SearchError::Where)?.into_iter().collect(),
        })
    }

    /// What has to be known of a provider: what the expressions name, and the free stake where there is to be coverage.
    pub fn needs(&self) -> BTreeSet<Name> {
        let stake = (self.coverage != Amount(0)).then_some(Name::FreeStake);
        self.expressions.iter().flat_map(Expression::names).chain(stake).collect()
    }

    /// The attributes for which a provider may have to be vouched, each with its name.
    pub fn attributes(&self) -> BTreeMap<B256, String> {
        self.expressions.iter().flat_map(Expression::attributes).collect()
    }

    /// What the pod's resources cost by a price list; more than there is where it does not fit into 128 bits. A list from
    /// the chain says nothing of egress, ports and GPUs, which a quote may be for as well.
    pub fn price(&self, prices: &PriceList) -> Option<Rate> {
        let price = |resources: Resources| {
            prices.price(&resources.into()).map_or(Rate(u128::MAX), |price| price.total)
        };
        self.resources.map(price)
    }
}

/// The attribute of that name, for which a provider is vouched: its hash, or what it is itself if it is one.
pub fn attribute(name: &str) -> B256 {
    name.parse().unwrap_or_else(|_err| keccak256(name))
}
