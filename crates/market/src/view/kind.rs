//! What single values look like on the wire, each with its schema.

use std::{borrow::Cow, fmt, str::FromStr};

use alloy_primitives::B256;
use protocol::lease::CloseReason;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use store::event::Place;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// How a row's value is shown.
pub(crate) trait Show<V> {
    fn show(self) -> V;
}

impl<T: Show<V>, V> Show<Option<V>> for Option<T> {
    fn show(self) -> Option<V> {
        self.map(Show::show)
    }
}

impl<T: Show<V>, V> Show<Vec<V>> for Vec<T> {
    fn show(self) -> Vec<V> {
        self.into_iter().map(Show::show).collect()
    }
}

macro_rules! as_it_is {
    ($($kind:ty),*) => {$(
        impl Show<$kind> for $kind {
            fn show(self) -> $kind {
                self
            }
        }
    )*};
}
as_it_is!(bool, u32, u64, String);

/// Something by which rows are found and pages begin: what a path, a query or a cursor holds of it.
pub(crate) trait Key: Sized + fmt::Display {
    /// What it has to be.
    const IS: &'static str;

    /// Reads one; `None`: it is none, or is more than the database can hold.
    fn read(text: &str) -> Option<Self>;
}

/// The longest text that an answer repeats.
const REPEATED: usize = 80;

/// Why a text is no such key.
pub(crate) fn not_a<K: Key>(text: &str) -> String {
    let shown: String = text.chars().take(REPEATED).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more} is not {}", K::IS)
}

/// A key out of text, with an error that says what it has to be.
pub(crate) fn key<'de, K: Key, D: Deserializer<'de>>(from: D) -> Result<K, D::Error> {
    let text = Cow::<'de, str>::deserialize(from)?;
    K::read(&text).ok_or_else(|| D::Error::custom(not_a::<K>(&text)))
}

/// A number of the database's, which has a sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| i64::from_str(text).ok()).flatten()?;
    u64::try_from(number).ok()
}

impl Key for u64 {
    const IS: &'static str = "a number from 0 to 9223372036854775807";

    fn read(text: &str) -> Option<Self> {
        number(text)
    }
}

impl Key for u32 {
    const IS: &'static str = "a number from 0 to 4294967295";

    fn read(text: &str) -> Option<Self> {
        number(text).and_then(|number| u32::try_from(number).ok())
    }
}

/// A place in the history, as a cursor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) Place);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.block, self.0.log_index)
    }
}

impl Key for At {
    const IS: &'static str = "a place in the history: a block's number, a hyphen, a log's index";

    fn read(text: &str) -> Option<Self> {
        let (block, log_index) = text.split_once('-')?;
        Some(Self(Place { block: number(block)?, log_index: u32::read(log_index)? }))
    }
}

fn text(pattern: &str, description: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    text.pattern(Some(pattern))
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident($of:ty): $schema:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) $of);

        impl Show<$name> for $of {
            fn show(self) -> $name {
                $name(self)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let schema: fn(&str) -> ObjectBuilder = $schema;
                schema(concat!($($doc),*).trim()).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )*};
}
kinds! {
    /// A wallet's or a contract's address.
    Address(alloy_primitives::Address): |doc| text("^0x[0-9a-f]{40}$", doc);
    /// 32 bytes: a hash, or an id that is one.
    Hash(B256): |doc| text("^0x[0-9a-f]{64}$", doc);
    /// An amount in the token's base units, in decimal digits.
    Amount(protocol::amount::Amount): |doc| text("^[0-9]{1,39}$", doc);
    /// An amount in units, in decimal digits: 1,000,000,000 are one of the token's base units.
    Units(protocol::amount::Units): |doc| text("^[0-9]{1,39}$", doc);
    /// What a second costs, in units, in decimal digits.
    Rate(protocol::amount::Rate): |doc| text("^[0-9]{1,39}$", doc);
    /// A number that may be above 2^53, in decimal digits.
    Large(Digits): |doc| text("^[0-9]{1,20}$", doc);
    /// Unix seconds.
    Time(u64): |doc| ObjectBuilder::new()
        .schema_type(Type::Integer).minimum(Some(0)).description(Some(doc));
}

/// A number as a text, since JSON's numbers lose what is above 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digits(u64);

impl Serialize for Digits {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl Show<Large> for u64 {
    fn show(self) -> Large {
        Large(Digits(self))
    }
}

macro_rules! hex_keys {
    ($($name:ident: $is:literal;)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl Key for $name {
            const IS: &'static str = $is;

            fn read(text: &str) -> Option<Self> {
                text.starts_with("0x").then(|| text.parse().ok().map(Self)).flatten()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                key(from)
            }
        }
    )*};
}
hex_keys! {
    Address: "an address: 0x and 40 hexadecimal digits";
    Hash: "a hash: 0x and 64 hexadecimal digits";
}

macro_rules! names {
    ($($(#[doc = $doc:literal])* $name:ident($of:ty) = $all:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) $of);

        impl $name {
            /// How they are written.
            pub(crate) fn names() -> Vec<String> {
                let all = $all;
                all.iter().filter_map(|one| Some(serde_json::to_value(one).ok()?.as_str()?.to_owned())).collect()
            }
        }

        impl Show<$name> for $of {
            fn show(self) -> $name {
                $name(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                let all = $all;
                let named = |one: &&$of| serde_json::to_value(one).is_ok_and(|name| name == *text);
                all.iter().find(named).map(|one| Self(*one)).ok_or_else(|| {
                    D::Error::custom(format!("it is one of {}", Self::names().join(", ")))
                })
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let schema = ObjectBuilder::new().schema_type(Type::String);
                schema.enum_values(Some(Self::names())).description(Some(concat!($($doc),*).trim())).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )*};
}
names! {
    /// Where a lease stands.
    LeaseState(protocol::lease::State) = {
        use protocol::lease::State;
        [State::Pending, State::Active, State::Closed]
    };
    /// Why a lease was closed.
    Reason(CloseReason) = CloseReason::ALL;
    /// Where an order stands.
    OrderState(store::auction::State) = {
        use store::auction::State;
        [State::Open, State::Awarded, State::Over]
    };
    /// How an order ended.
    Outcome(store::auction::Outcome) = {
        use store::auction::Outcome;
        [Outcome::Started, Outcome::Cancelled, Outcome::Expired, Outcome::GivenUp]
    };
    /// Where a challenge stands.
    ChallengeState(store::challenge::State) = {
        use store::challenge::State;
        [State::Open, State::Answered, State::Dark, State::Moot]
    };
    /// Where a stream stands.
    StreamState(store::stream::State) = {
        use store::stream::State;
        [State::Reserved, State::Running, State::Closed]
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn again<K: Key + PartialEq + fmt::Debug>(text: &str) {
        if let Some(key) = K::read(text) {
            assert_eq!(K::read(&key.to_string()), Some(key), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written(
            number in 0..=i64::MAX.cast_unsigned(), small: u32, address: [u8; 20], hash: [u8; 32],
        ) {
            prop_assert_eq!(u64::read(&number.to_string()), Some(number));
            prop_assert_eq!(u32::read(&small.to_string()), Some(small));
            let address = Address(address.into());
            prop_assert_eq!(Address::read(&address.to_string()), Some(address));
            let hash = Hash(hash.into());
            prop_assert_eq!(Hash::read(&hash.to_string()), Some(hash));
            let at = At(Place { block: number, log_index: small });
            prop_assert_eq!(At::read(&at.to_string()), Some(at));
        }

        #[test]
        fn whatever_is_a_key_is_written_as_one(text in "(0x)?[-+0-9a-fA-Fx]{0,70}|\\PC*") {
            again::<u64>(&text);
            again::<u32>(&text);
            again::<Address>(&text);
            again::<Hash>(&text);
            again::<At>(&text);
        }
    }

    #[test]
    fn keys_fit_the_database() {
        assert_eq!(u64::read("9223372036854775808"), None);
        assert_eq!(u64::read("+1"), None);
        assert_eq!(u64::read(""), None);
        assert_eq!(u32::read("4294967296"), None);
        assert_eq!(At::read("1-4294967296"), None);
        assert_eq!(Address::read(&"ee".repeat(20)), None);
        assert_eq!(Address::read("0x12"), None);
    }

    #[test]
    fn long_texts_are_not_repeated() {
        let said = not_a::<u64>(&"é".repeat(10_000));
        assert!(said.len() < 300, "{said}");
    }
}
