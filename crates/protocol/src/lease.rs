//! A lease's life, and why it ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a lease stands; the numbers are those of `ILeases.State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There is no such lease (or not any more, after a reorg).
    None,
    /// Opened; the provider has not started it yet.
    Pending,
    /// It runs and is paid for.
    Active,
    /// It ended.
    Closed,
}

/// Why a lease was closed; the numbers are those of `ILeases.CloseReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// Not closed.
    None,
    /// The payer needs it no longer.
    PayerDone,
    /// The payer moved elsewhere.
    PayerMoved,
    /// The payer is not satisfied.
    PayerUnsatisfied,
    /// The provider takes its machines out of service.
    ProviderDraining,
    /// Something broke at the provider.
    ProviderFault,
    /// The pod is against the provider's rules.
    ProviderPolicy,
    /// The provider had no room left when the lease was opened.
    ProviderFull,
    /// An image could not be had, or is not what its digest says.
    ImageUnavailable,
    /// The secrets could not be opened.
    SecretsUnreadable,
    /// The pod did not become healthy in time.
    Unhealthy,
    /// The provider did not start the pod in time.
    StartMissed,
    /// The account was dry for longer than the lease's lock, or could not start to pay.
    AccountDry,
    /// The stream that paid it was ended.
    StreamEnded,
    /// Its provider went dark.
    WentDark,
}

/// A number that stands for nothing here: a contract newer than this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no {1} that this program knows")]
pub struct UnknownNumber(pub u8, pub &'static str);

impl TryFrom<u8> for State {
    type Error = UnknownNumber;

    fn try_from(number: u8) -> Result<Self, UnknownNumber> {
        [Self::None, Self::Pending, Self::Active, Self::Closed]
            .into_iter()
            .find(|state| *state as u8 == number)
            .ok_or(UnknownNumber(number, "lease state"))
    }
}

impl CloseReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::None,
        Self::PayerDone,
        Self::PayerMoved,
        Self::PayerUnsatisfied,
        Self::ProviderDraining,
        Self::ProviderFault,
        Self::ProviderPolicy,
        Self::ProviderFull,
        Self::ImageUnavailable,
        Self::SecretsUnreadable,
        Self::Unhealthy,
        Self::StartMissed,
        Self::AccountDry,
        Self::StreamEnded,
        Self::WentDark,
    ];
}

impl TryFrom<u8> for CloseReason {
    type Error = UnknownNumber;

    fn try_from(number: u8) -> Result<Self, UnknownNumber> {
        let unknown = UnknownNumber(number, "reason to close a lease");
        Self::ALL.get(usize::from(number)).copied().ok_or(unknown)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "not closed",
            Self::PayerDone => "its payer is done with it",
            Self::PayerMoved => "its payer moved elsewhere",
            Self::PayerUnsatisfied => "its payer was not satisfied",
            Self::ProviderDraining => "the provider takes its machines out of service",
            Self::ProviderFault => "something broke at the provider",
            Self::ProviderPolicy => "the pod is against the provider's rules",
            Self::ProviderFull => "the provider had no room left",
            Self::ImageUnavailable => "an image could not be had, or is not what its digest says",
            Self::SecretsUnreadable => "the secrets could not be opened",
            Self::Unhealthy => "the pod did not become healthy in time",
            Self::StartMissed => "the provider did not start it in time",
            Self::AccountDry => {
                "the account was dry for longer than the lock, or could not start to pay"
            }
            Self::StreamEnded => "the stream that paid it was ended",
            Self::WentDark => "its provider went dark",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "not there",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Closed => "closed",
        })
    }
}
