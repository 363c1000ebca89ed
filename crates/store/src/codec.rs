//! How what the chain knows is written for Postgres, in rows that travel as JSON: addresses and hashes as `bytea`, amounts
//! as `numeric`, text without the one character that Postgres does not take.

use std::borrow::Cow;

use protocol::amount::{Amount, Rate, Units};

/// Text as Postgres takes it: a NUL, which a contract's string may hold, becomes U+FFFD.
pub fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text.into() }
}

/// A whole number of Solidity's, up to 128 bits.
pub(crate) trait Number: Sized {
    fn get(&self) -> u128;
    fn new(value: u128) -> Self;
}

macro_rules! numbers {
    ($($name:ident),*) => {$(
        impl Number for $name {
            fn get(&self) -> u128 {
                self.0
            }
            fn new(value: u128) -> Self {
                Self(value)
            }
        }
    )*};
}
numbers!(Amount, Units, Rate);

/// An amount as a JSON number of any length, which `numeric` reads and writes without loss.
pub(crate) mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Number;

    pub(crate) fn serialize<T: Number, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        value.get().serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Number, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        u128::deserialize(from).map(T::new)
    }
}

/// An address or a hash as the text of a `bytea`: `\x` and hex.
pub(crate) mod bytes {
    use std::borrow::Cow;

    use alloy_primitives::hex;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<T: AsRef<[u8]>, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("\\x{}", hex::encode(value)))
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: for<'a> TryFrom<&'a [u8]>,
        D: Deserializer<'de>,
    {
        let text = Cow::<'de, str>::deserialize(from)?;
        read(&text).ok_or_else(|| D::Error::custom("not the bytes that were expected"))
    }

    pub(super) fn read<T: for<'a> TryFrom<&'a [u8]>>(text: &str) -> Option<T> {
        let bytes = hex::decode(text.strip_prefix("\\x")?).ok()?;
        T::try_from(&bytes).ok()
    }
}

/// As [`bytes`], of what may be null.
pub(crate) mod maybe_bytes {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<T: AsRef<[u8]>, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::bytes::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: for<'a> TryFrom<&'a [u8]>,
        D: Deserializer<'de>,
    {
        let Some(text) = Option::<Cow<'de, str>>::deserialize(from)? else {
            return Ok(None);
        };
        let value = super::bytes::read(&text);
        value.map(Some).ok_or_else(|| D::Error::custom("not the bytes that were expected"))
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        #[serde(with = "bytes")]
        hash: B256,
        #[serde(with = "maybe_bytes")]
        some: Option<Address>,
        #[serde(with = "maybe_bytes")]
        none: Option<Address>,
        #[serde(with = "number")]
        most: Units,
    }

    #[test]
    fn rows_keep_every_bit() {
        let row = Row {
            hash: B256::repeat_byte(0xab),
            some: Some(Address::repeat_byte(0x12)),
            none: None,
            most: Units(u128::MAX),
        };
        let json = serde_json::to_string(&row).unwrap();
        assert!(json.contains("340282366920938463463374607431768211455"), "{json}");
        assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
        serde_json::from_str::<Row>(&json.replace("abab", "ab")).unwrap_err();
    }

    #[test]
    fn text_loses_nothing_but_nul() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        assert_eq!(text("\\x00 \u{1}"), "\\x00 \u{1}");
    }
}
