//! Amounts of the settlement token, and rates at which they are spent.

use std::{fmt, num::NonZeroU128, ops::Sub, str::FromStr};

use serde::{Deserialize, Serialize};

/// Units per token base unit: what Payments calls `SCALE`.
pub const SCALE: u128 = 1_000_000_000;

/// An amount of the settlement token, in its base units.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(#[serde(with = "decimal")] pub u128);

/// An amount inside Payments: token base units × 1e9.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Units(#[serde(with = "decimal")] pub u128);

/// What a second costs, in units per second.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Rate(#[serde(with = "decimal")] pub u128);

/// The settlement token as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its ERC-20 symbol.
    pub symbol: String,
    /// Its ERC-20 decimals.
    pub decimals: u8,
}

/// Text that is not an amount or a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAmountError {
    /// Not a decimal number.
    #[error("{0:?} is not a decimal number such as 12.5")]
    NotDecimal(String),
    /// More digits behind the point than the token has.
    #[error("{0:?} has more digits behind the point than the token's {1}")]
    TooFine(String, u8),
    /// More than fits into 128 bits.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// A rate without its unit of time.
    #[error("{0:?} is not a rate such as 0.02/h (per s, m, h, d or mo)")]
    NotRate(String),
}

impl Token {
    /// The finest token there is; what it cannot express, none can.
    pub(crate) fn finest() -> Self {
        Self { symbol: String::new(), decimals: 18 }
    }
}

impl Amount {
    /// The same amount inside Payments.
    pub fn units(self) -> Option<Units> {
        self.0.checked_mul(SCALE).map(Units)
    }

    /// Reads `12.5` as that many whole tokens.
    ///
    /// # Errors
    /// When the text is not a decimal number, is finer than the token, or does not fit.
    pub fn parse(text: &str, token: &Token) -> Result<Self, ParseAmountError> {
        parse_scaled(text, token.decimals).map(Self)
    }

    /// The amount in whole tokens, exactly: `12.50`.
    pub fn display(self, token: &Token) -> String {
        fixed(self.0, token.decimals, usize::from(token.decimals.min(2)))
    }
}

impl Units {
    /// What of this a payee can collect; the remainder stays owed, as rounding is always against the one who
    /// takes out.
    pub fn collectable(self) -> Amount {
        Amount(self.0 / SCALE)
    }

    /// For how many whole seconds this pays for `rate`; `None` is forever.
    pub fn seconds_of(self, rate: Rate) -> Option<u128> {
        NonZeroU128::new(rate.0).map(|rate| self.0 / rate)
    }
}

impl Sub for Units {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Rate {
    /// What `secs` seconds cost; `None` where it does not fit.
    pub fn times(self, secs: u64) -> Option<Units> {
        self.0.checked_mul(u128::from(secs)).map(Units)
    }

    /// Reads `0.02/h`, in whole tokens per `s`, `m`, `h`, `d` or `mo` (30 days). A rate that is no whole number of
    /// units per second is rounded down: the publisher never pays more than it wrote.
    ///
    /// # Errors
    /// When the text is not a rate or does not fit.
    pub fn parse(text: &str, token: &Token) -> Result<Self, ParseAmountError> {
        let not_rate = || ParseAmountError::NotRate(text.to_owned());
        let (amount, per) = text.trim().split_once('/').ok_or_else(not_rate)?;
        let secs = seconds_per(per.trim()).ok_or_else(not_rate)?;
        let units = parse_scaled(amount.trim(), token.decimals + 9).map_err(|err| match err {
            ParseAmountError::TooFine(_, digits) => {
                ParseAmountError::TooFine(text.to_owned(), digits)
            }
            ParseAmountError::TooLarge(_) => ParseAmountError::TooLarge(text.to_owned()),
            ParseAmountError::NotDecimal(_) | ParseAmountError::NotRate(_) => not_rate(),
        })?;
        Ok(Self(units / u128::from(secs)))
    }

    /// The rate per hour, to four significant digits and at least the token's two: `0.0125/h`.
    pub fn per_hour(self, token: &Token) -> String {
        format!("{}/h", significant(self.0.saturating_mul(3_600), token.decimals + 9))
    }

    /// The rate per 30 days: `9.00/mo`.
    pub fn per_month(self, token: &Token) -> String {
        format!("{}/mo", significant(self.0.saturating_mul(2_592_000), token.decimals + 9))
    }
}

fn seconds_per(unit: &str) -> Option<u32> {
    Some(match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "mo" => 2_592_000,
        _ => return None,
    })
}

fn parse_scaled(text: &str, decimals: u8) -> Result<u128, ParseAmountError> {
    let not_decimal = || ParseAmountError::NotDecimal(text.to_owned());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return Err(not_decimal());
    }
    let fraction = fraction.trim_end_matches('0');
    let places = usize::from(decimals);
    if fraction.len() > places {
        return Err(ParseAmountError::TooFine(text.to_owned(), decimals));
    }
    format!("{whole}{fraction:0<places$}")
        .parse()
        .map_err(|_err| ParseAmountError::TooLarge(text.to_owned()))
}

/// `value / 10^decimals` without loss, with at least `least` digits behind the point.
fn fixed(value: u128, decimals: u8, least: usize) -> String {
    let places = usize::from(decimals);
    let digits = format!("{value:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() && least == 0 {
        return whole.to_owned();
    }
    format!("{whole}.{fraction:0<least$}")
}

/// `value / 10^decimals` to four significant digits (or all in front of the point), rounded up, because it is what
/// somebody is going to pay.
fn significant(value: u128, decimals: u8) -> String {
    let length = value.checked_ilog10().map_or(1, |log| log + 1);
    let keep = length.saturating_sub(u32::from(decimals)).saturating_add(2).max(4);
    let cut = 10_u128.pow(length.saturating_sub(keep));
    let rounded = value.div_ceil(cut).saturating_mul(cut);
    fixed(rounded, decimals, 2)
}

macro_rules! plain_decimal {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}
plain_decimal!(Amount, Units, Rate);

/// A `u128` as a decimal string, since JSON's numbers lose everything above 2^53.
pub(crate) mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dollar() -> Token {
        Token { symbol: "USD".into(), decimals: 6 }
    }

    #[test]
    fn amounts_read_and_print() {
        let check = |text: &str, base: u128, shown: &str| {
            let amount = Amount::parse(text, &dollar()).unwrap();
            assert_eq!((amount.0, amount.display(&dollar()).as_str()), (base, shown), "{text}");
        };
        check("1", 1_000_000, "1.00");
        check("12.5", 12_500_000, "12.50");
        check("0.000001", 1, "0.000001");
        check("0", 0, "0.00");
        check("1.2300000000", 1_230_000, "1.23");
        for bad in ["", ".5", "5.", "-1", "1e3", "1,5", "0.0000001", "1/h"] {
            Amount::parse(bad, &dollar()).unwrap_err();
        }
        Amount::parse(&"9".repeat(40), &dollar()).unwrap_err();
    }

    #[test]
    fn rates_read_and_print() {
        let check = |text: &str, units: u128, shown: &str| {
            let rate = Rate::parse(text, &dollar()).unwrap();
            assert_eq!((rate.0, rate.per_hour(&dollar()).as_str()), (units, shown), "{text}");
        };
        check("0.02/h", 5_555_555_555, "0.02/h");
        check("1/s", 1_000_000_000_000_000, "3600.00/h");
        check("0.005/h", 1_388_888_888, "0.005/h");
        check("9/mo", 3_472_222_222, "0.0125/h");
        check("0/h", 0, "0.00/h");
        for bad in ["0.02", "0.02/y", "/h", "x/h", "1/"] {
            Rate::parse(bad, &dollar()).unwrap_err();
        }
    }

    #[test]
    fn collecting_rounds_against_the_payee() {
        assert_eq!(Units(SCALE - 1).collectable(), Amount(0));
        assert_eq!(Units(3 * SCALE + 1).collectable(), Amount(3));
    }
}
