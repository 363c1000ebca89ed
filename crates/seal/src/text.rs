//! Bytes as `0x` and hexadecimal digits, for `#[serde(with = "text")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(
    bytes: impl AsRef<[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("0x{}", hex::encode(bytes)))
}

pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<Vec<u8>>,
{
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("0x").ok_or_else(|| D::Error::custom("no 0x in front"))?;
    let bytes = hex::decode(digits).map_err(D::Error::custom)?;
    let len = bytes.len();
    let wanted = size_of::<T>();
    T::try_from(bytes).map_err(|_err| D::Error::custom(format!("{len} bytes, not {wanted}")))
}
