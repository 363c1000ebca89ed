//! What a pod uses, and what that costs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::amount::Rate;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Processor time, in thousandths of a processor.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cpu(pub u32);

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// How fast something is sent, in bits per second.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BitRate(pub u64);

/// What a pod, or a provider, has in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Bytes,
    /// Space on volumes, and what containers may write beside them.
    pub storage: Bytes,
    /// Whole GPUs.
    #[serde(default)]
    pub gpus: u32,
}

/// What a pod is charged for at one provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// What it may use.
    pub resources: Resources,
    /// What it asks to send to the world in 30 days, beyond what the provider includes.
    pub egress: Bytes,
    /// Ports at which the world reaches it.
    pub public_ports: u32,
}

/// What a provider asks. Its listing on the chain advertises the first three rates; the others it says itself, and they
/// are zero in a list that was read from the chain. What holds is a quote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceList {
    /// For a millicore.
    pub cpu: Rate,
    /// For a MiB of memory.
    pub memory: Rate,
    /// For a MiB of storage.
    pub storage: Rate,
    /// For a MiB to be sent to the world in 30 days, beyond what is included.
    #[serde(default)]
    pub egress: Rate,
    /// For a public port.
    #[serde(default)]
    pub public_port: Rate,
    /// For a GPU.
    #[serde(default)]
    pub gpu: Rate,
}

/// A price, by what it is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceBreakdown {
    /// For the processor time.
    pub cpu: Rate,
    /// For the memory.
    pub memory: Rate,
    /// For the storage.
    pub storage: Rate,
    /// For what may be sent to the world beyond what is included.
    #[serde(default)]
    pub egress: Rate,
    /// For the public ports.
    #[serde(default)]
    pub public_ports: Rate,
    /// For the GPUs.
    #[serde(default)]
    pub gpus: Rate,
    /// All together: what a quote carries.
    pub total: Rate,
}

/// A price that does not fit into 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the price list is so high that the price does not fit into 128 bits")]
pub struct PriceOverflow;

/// Text that is not an amount of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseResourceError {
    /// Not an amount of processor time.
    #[error("{0:?} is not an amount of processor time such as 0.5, 2 or 500m")]
    NotCpu(String),
    /// Finer than a millicore.
    #[error("{0:?} is finer than a thousandth of a processor (1m)")]
    TooFine(String),
    /// Not an amount of bytes.
    #[error("{0:?} is not an amount of bytes such as 128M, 1Gi, 512k or 1048576")]
    NotBytes(String),
    /// Not a rate.
    #[error("{0:?} is not a rate such as 10Mbit, 500kbit or 1Gbit (per second)")]
    NotRate(String),
    /// Not a whole number of bits.
    #[error("{0:?} is not a whole number of bits per second")]
    NotWholeBits(String),
    /// Not a whole number of bytes.
    #[error("{0:?} is not a whole number of bytes")]
    NotWhole(String),
    /// More than the type holds.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

impl Bytes {
    /// Whole MiB, the unit of prices. Rounded up, since the provider has to set aside the last one as well, and here
    /// alone, so that a quote and its check never differ.
    pub fn mib(self) -> u64 {
        self.0.div_ceil(MIB)
    }
}

impl Resources {
    /// Both together; `None` where that does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            cpu: Cpu(self.cpu.0.checked_add(other.cpu.0)?),
            memory: Bytes(self.memory.0.checked_add(other.memory.0)?),
            storage: Bytes(self.storage.0.checked_add(other.storage.0)?),
            gpus: self.gpus.checked_add(other.gpus)?,
        })
    }

    /// What is left after `other` is taken out; `None` where that is more than there is.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            cpu: Cpu(self.cpu.0.checked_sub(other.cpu.0)?),
            memory: Bytes(self.memory.0.checked_sub(other.memory.0)?),
            storage: Bytes(self.storage.0.checked_sub(other.storage.0)?),
            gpus: self.gpus.checked_sub(other.gpus)?,
        })
    }

    /// Whether there is room for these in `room`.
    pub fn fits_in(&self, room: &Self) -> bool {
        self.cpu <= room.cpu
            && self.memory <= room.memory
            && self.storage <= room.storage
            && self.gpus <= room.gpus
    }
}

impl Demand {
    /// Whether it is for what no listing on the chain has a price for.
    pub fn is_beyond_listings(&self) -> bool {
        self.egress.0 > 0 || self.public_ports > 0 || self.resources.gpus > 0
    }
}

/// Of a pod that asks for no egress of its own and has no public ports.
impl From<Resources> for Demand {
    fn from(resources: Resources) -> Self {
        Self { resources, ..Self::default() }
    }
}

impl PriceList {
    /// What `demand` costs.
    ///
    /// # Errors
    /// When the price does not fit into 128 bits.
    pub fn price(&self, demand: &Demand) -> Result<PriceBreakdown, PriceOverflow> {
        let times = |rate: Rate, count: u64| {
            let units = rate.times(count).ok_or(PriceOverflow)?;
            Ok(Rate(units.0))
        };
        let Demand { resources, egress, public_ports } = demand;
        let parts = PriceBreakdown {
            cpu: times(self.cpu, resources.cpu.0.into())?,
            memory: times(self.memory, resources.memory.mib())?,
            storage: times(self.storage, resources.storage.mib())?,
            egress: times(self.egress, egress.mib())?,
            public_ports: times(self.public_port, (*public_ports).into())?,
            gpus: times(self.gpu, resources.gpus.into())?,
            total: Rate(0),
        };
        Ok(PriceBreakdown { total: parts.sum().ok_or(PriceOverflow)?, ..parts })
    }
}

impl PriceBreakdown {
    /// What its parts come to; `None` where that does not fit.
    pub fn sum(&self) -> Option<Rate> {
        let Self { cpu, memory, storage, egress, public_ports, gpus, total: _ } = *self;
        let parts = [cpu, memory, storage, egress, public_ports, gpus];
        parts.iter().try_fold(0_u128, |sum, part| sum.checked_add(part.0)).map(Rate)
    }
}

/// `0.5`, `2` (processors, as Compose writes them) and `500m` (millicores, as Kubernetes does).
impl FromStr for Cpu {
    type Err = ParseResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, scale) = match text.trim().strip_suffix('m') {
            Some(number) => (number, 1),
            None => (text.trim(), 1_000),
        };
        let number = Decimal::parse(number)
            .ok_or_else(|| ParseResourceError::NotCpu(text.to_owned()))?
            .times(scale)
            .map_err(|inexact| match inexact {
                Inexact::Fraction => ParseResourceError::TooFine(text.to_owned()),
                Inexact::Overflow => ParseResourceError::TooLarge(text.to_owned()),
            })?;
        u32::try_from(number)
            .map(Self)
            .map_err(|_err| ParseResourceError::TooLarge(text.to_owned()))
    }
}

/// Every spelling of a unit is a power of 1024, as in Docker: `k`, `K`, `kb` and `Ki` are all 1024, `M` is `Mi`.
/// Kubernetes means 1000 by its `k`, `M` and `G`; whoever converts from it writes plain bytes.
impl FromStr for Bytes {
    type Err = ParseResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_bytes = || ParseResourceError::NotBytes(text.to_owned());
        let trimmed = text.trim();
        let unit = trimmed.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = trimmed.strip_suffix(unit).ok_or_else(not_bytes)?;
        let scale = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "ki" | "kib" => KIB,
            "m" | "mb" | "mi" | "mib" => MIB,
            "g" | "gb" | "gi" | "gib" => GIB,
            "t" | "tb" | "ti" | "tib" => TIB,
            _ => return Err(not_bytes()),
        };
        let number = Decimal::parse(number).ok_or_else(not_bytes)?;
        number.times(scale).map(Self).map_err(|inexact| match inexact {
            Inexact::Fraction => ParseResourceError::NotWhole(text.to_owned()),
            Inexact::Overflow => ParseResourceError::TooLarge(text.to_owned()),
        })
    }
}

/// Bits per second, as networks are sold: `10Mbit` and `10M` are ten million of them.
impl FromStr for BitRate {
    type Err = ParseResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_rate = || ParseResourceError::NotRate(text.to_owned());
        let trimmed = text.trim();
        let unit = trimmed.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = trimmed.strip_suffix(unit).ok_or_else(not_rate)?;
        let scale = match unit.trim_start().to_ascii_lowercase().trim_end_matches("bit") {
            "" => 1,
            "k" => 1_000,
            "m" => 1_000_000,
            "g" => 1_000_000_000,
            _ => return Err(not_rate()),
        };
        let number = Decimal::parse(number).ok_or_else(not_rate)?;
        number.times(scale).map(Self).map_err(|inexact| match inexact {
            Inexact::Fraction => ParseResourceError::NotWholeBits(text.to_owned()),
            Inexact::Overflow => ParseResourceError::TooLarge(text.to_owned()),
        })
    }
}

/// In the largest unit of which it is a whole number: `10 Mbit/s`.
impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")];
        match units.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bit/s", self.0),
        }
    }
}

/// As Compose writes it: `0.5`, `2`.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, milli) = (self.0 / 1_000, self.0 % 1_000);
        match milli {
            0 => write!(f, "{whole}"),
            _ => write!(f, "{whole}.{}", format!("{milli:03}").trim_end_matches('0')),
        }
    }
}

/// In the largest unit of which it is a whole number: `128 MiB`, `1536 MiB`, `1000 B`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        match units.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// As in `0.5 cpu, 128 MiB memory, 1 GiB storage`, and `, 2 GPUs` where there are some.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpu, {} memory, {} storage", self.cpu, self.memory, self.storage)?;
        match self.gpus {
            0 => Ok(()),
            1 => write!(f, ", 1 GPU"),
            more => write!(f, ", {more} GPUs"),
        }
    }
}

/// `digits / 10^places`, as durations read it too.
pub(crate) struct Decimal {
    digits: u128,
    places: u32,
}

/// Why a decimal is no whole number of something.
pub(crate) enum Inexact {
    /// Something is left over.
    Fraction,
    /// It does not fit.
    Overflow,
}

impl Decimal {
    /// Twenty digits before the point and fifteen behind it at most, more than any unit can use.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let whole = if whole.is_empty() { "0" } else { whole };
        if text.is_empty() || !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let fraction = fraction.trim_end_matches('0');
        if whole.len() > 20 || fraction.len() > 15 {
            return None;
        }
        let places = u32::try_from(fraction.len()).ok()?;
        Some(Self { digits: format!("{whole}{fraction}").parse().ok()?, places })
    }

    pub(crate) fn times(&self, scale: u64) -> Result<u64, Inexact> {
        let product = self.digits.checked_mul(u128::from(scale)).ok_or(Inexact::Overflow)?;
        let unit = 10_u128.pow(self.places);
        if !product.is_multiple_of(unit) {
            return Err(Inexact::Fraction);
        }
        u64::try_from(product / unit).map_err(|_err| Inexact::Overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_read_and_print() {
        let check = |text: &str, milli: u32, shown: &str| {
            let cpu: Cpu = text.parse().unwrap();
            assert_eq!((cpu.0, cpu.to_string().as_str()), (milli, shown), "{text}");
            assert_eq!(cpu, cpu.to_string().parse().unwrap());
        };
        check("0.5", 500, "0.5");
        check(".5", 500, "0.5");
        check("500m", 500, "0.5");
        check("2", 2_000, "2");
        check("0.050", 50, "0.05");
        check("1.234", 1_234, "1.234");
        check("0", 0, "0");
        for bad in ["", "m", "-1", "1.", "0.0005", "1k", "0.5m", "5000000", "1e3", "0x10"] {
            bad.parse::<Cpu>().unwrap_err();
        }
    }

    #[test]
    fn bytes_read_and_print() {
        let check = |text: &str, bytes: u64, shown: &str| {
            let parsed: Bytes = text.parse().unwrap();
            assert_eq!((parsed.0, parsed.to_string().as_str()), (bytes, shown), "{text}");
            assert_eq!(parsed, parsed.to_string().parse().unwrap());
        };
        check("128M", 128 << 20, "128 MiB");
        check("128m", 128 << 20, "128 MiB");
        check("64mb", 64 << 20, "64 MiB");
        check("128Mi", 128 << 20, "128 MiB");
        check("512k", 512 << 10, "512 KiB");
        check("1Gi", 1 << 30, "1 GiB");
        check("1g", 1 << 30, "1 GiB");
        check("1.5G", 1536 << 20, "1536 MiB");
        check("1 GiB", 1 << 30, "1 GiB");
        check("2t", 2 << 40, "2 TiB");
        check("1000", 1_000, "1000 B");
        check("0", 0, "0 B");
        check("18446744073709551615", u64::MAX, "18446744073709551615 B");
        for bad in ["", "M", "-1M", "1.0001k", "1P", "1 M B", "18446744073709551616", "99999999T"] {
            bad.parse::<Bytes>().unwrap_err();
        }
    }

    #[test]
    fn rates_read_and_print() {
        let check = |text: &str, bits: u64, shown: &str| {
            let rate: BitRate = text.parse().unwrap();
            assert_eq!((rate.0, rate.to_string().as_str()), (bits, shown), "{text}");
        };
        check("10Mbit", 10_000_000, "10 Mbit/s");
        check("10M", 10_000_000, "10 Mbit/s");
        check("1.5 gbit", 1_500_000_000, "1500 Mbit/s");
        check("64k", 64_000, "64 kbit/s");
        check("64001", 64_001, "64001 bit/s");
        for bad in ["", "M", "-1M", "10MB", "10Mi", "10mbps", "0.1", "99999999999G"] {
            bad.parse::<BitRate>().unwrap_err();
        }
    }

    #[test]
    fn a_price_adds_up_and_never_wraps() {
        let list = PriceList {
            cpu: Rate(3),
            memory: Rate(5),
            storage: Rate(7),
            egress: Rate(11),
            public_port: Rate(13),
            gpu: Rate(17),
        };
        let wanted =
            Resources { cpu: Cpu(500), memory: Bytes(MIB + 1), ..Resources::default() }.into();
        let price = list.price(&wanted).unwrap();
        assert_eq!(price.cpu, Rate(1_500));
        assert_eq!(price.memory, Rate(10), "a second MiB was begun");
        assert_eq!(price.storage, Rate(0));
        assert_eq!(price.total, Rate(1_510));
        let dear = PriceList { cpu: Rate(u128::MAX), ..list };
        assert_eq!(dear.price(&wanted), Err(PriceOverflow));
        let summed = PriceList { cpu: Rate(u128::MAX / 500), memory: Rate(u128::MAX / 2), ..list };
        assert_eq!(summed.price(&wanted), Err(PriceOverflow));
        assert_eq!(dear.price(&Demand::default()).unwrap().total, Rate(0));
        let more = Demand {
            resources: Resources { gpus: 2, ..wanted.resources },
            egress: Bytes(GIB + 1),
            public_ports: 3,
        };
        let price = list.price(&more).unwrap();
        assert_eq!(price.egress, Rate(11 * 1_025), "a MiB more was begun");
        assert_eq!((price.public_ports, price.gpus), (Rate(39), Rate(34)));
        assert_eq!(price.total, Rate(1_510 + 11 * 1_025 + 39 + 34));
    }

    #[test]
    fn resources_fit_and_add() {
        let one = Resources { cpu: Cpu(1), memory: Bytes(2), storage: Bytes(3), gpus: 4 };
        let two = one.checked_add(one).unwrap();
        assert!(one.fits_in(&two) && two.fits_in(&two) && !two.fits_in(&one));
        assert_eq!(two.checked_sub(one), Some(one));
        assert_eq!(one.checked_sub(two), None);
        assert_eq!(one.checked_add(Resources { storage: Bytes(u64::MAX), ..one }), None);
        assert_eq!(one.checked_add(Resources { gpus: u32::MAX, ..one }), None);
        let fewer = Resources { gpus: 3, ..two };
        assert!(!one.fits_in(&fewer) && fewer.checked_sub(one).is_none());
        assert_eq!(one.to_string(), "0.001 cpu, 2 B memory, 3 B storage, 4 GPUs");
        let none = Resources { gpus: 0, ..one };
        assert_eq!(none.to_string(), "0.001 cpu, 2 B memory, 3 B storage");
    }
}
