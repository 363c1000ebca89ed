//! What a bidder and its provider say to each other, on the bidder's own address. No stranger comes there.

use std::fmt;

use alloy::primitives::{Address, B256};
use protocol::amount::{Amount, Rate};
use serde::{Deserialize, Serialize};

/// The orders that bids are taken for, with what the provider thinks of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenOrders {
    /// Who bids.
    pub provider: Address,
    /// The time of the block that this is as of, in Unix seconds.
    pub now: u64,
    /// The orders, by their numbers.
    pub orders: Vec<OpenOrder>,
}

/// An order that bids are taken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenOrder {
    /// Its number.
    pub order: u64,
    /// Who placed it.
    pub payer: Address,
    /// The hash of the pod that it is for.
    pub pod: B256,
    /// Thousandths of a processor.
    pub cpu: u32,
    /// MiB of memory.
    #[serde(rename = "memoryMiB")]
    pub memory: u64,
    /// MiB of volumes.
    #[serde(rename = "storageMiB")]
    pub storage: u64,
    /// What of the bond backs the lease, in token base units.
    pub coverage: Amount,
    /// What its publisher pays at most, in units per second.
    pub max_rate: Rate,
    /// The most that the next bid may be.
    pub next_rate: Rate,
    /// Who leads.
    pub leader: Option<Address>,
    /// Whether that is this provider.
    pub leads: bool,
    /// How many bids were made.
    pub bids: u32,
    /// The last second in which a bid is taken.
    pub deadline: u64,
    /// Where its publisher says that the pod's file can be had: a stranger's word.
    pub uri: String,
    /// What this provider's price list says that it costs.
    pub list_price: Rate,
    /// Below which this provider bids nothing, whatever its bidder says.
    pub floor: Rate,
    /// Why this provider would not send a bid for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
}

/// What keeps a provider from bidding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obstacle {
    /// In a word.
    pub reason: Reason,
    /// For people.
    pub words: String,
}

/// Why there is no bid, or no further one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its time is over.
    Late,
    /// The provider takes nothing new.
    Closed,
    /// There is not enough free of the capacity.
    NoRoom,
    /// It requires what the provider does not have.
    Unfit,
    /// It asks for terms that the provider does not offer.
    Terms,
    /// It asks for more coverage than the operator allows.
    CoverageLimit,
    /// A start that fails would cost more than the operator allows.
    NoShowLimit,
    /// Bids would bind more than the operator allows.
    BoundLimit,
    /// Enough bids were sent within the hour.
    BidsLimit,
    /// The bond does not have so much that is free.
    NoStake,
    /// It takes less than the operator's floor.
    BelowFloor,
    /// The strategy's price is above what the order takes.
    Dearer,
    /// The strategy's floor is above what the order takes.
    FloorReached,
    /// The operator's program said no.
    Declined,
    /// The operator's program failed.
    Program,
    /// The chain did not take the bid.
    Refused,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Late => "late",
            Self::Closed => "closed",
            Self::NoRoom => "no-room",
            Self::Unfit => "unfit",
            Self::Terms => "terms",
            Self::CoverageLimit => "coverage-limit",
            Self::NoShowLimit => "no-show-limit",
            Self::BoundLimit => "bound-limit",
            Self::BidsLimit => "bids-limit",
            Self::NoStake => "no-stake",
            Self::BelowFloor => "below-floor",
            Self::Dearer => "dearer",
            Self::FloorReached => "floor-reached",
            Self::Declined => "declined",
            Self::Program => "program",
            Self::Refused => "refused",
        })
    }
}

/// A bid that a bidder wants sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// For which order.
    pub order: u64,
    /// In units per second.
    pub rate: Rate,
}

/// A bid that a bidder does not want sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// For which order.
    pub order: u64,
    /// Why.
    pub why: Obstacle,
}

/// A bid that was sent and leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// For which order.
    pub order: u64,
    /// In units per second.
    pub rate: Rate,
    /// The last second in which a better one is taken.
    pub deadline: u64,
}
