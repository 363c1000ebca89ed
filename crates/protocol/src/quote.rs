//! The signed quote: EIP-712 typed data that Leases accepts once, for a limited time.

use alloy_primitives::{
    Address, B256, ChainId, U256,
    aliases::{U24, U40},
};
use alloy_sol_types::{Eip712Domain, SolStruct, sol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::amount::{Amount, Rate};

sol! {
    /// What a provider signs; field for field the `Quote` of `ILeases`.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Quote {
        address provider;
        bytes32 account;
        uint64 lease;
        bytes32 pod;
        uint128 rate;
        uint32 lock;
        uint128 coverage;
        uint24 grace;
        uint24 full;
        uint24 response;
        uint24 notice;
        uint24 startWithin;
        uint40 expiry;
        uint64 version;
        uint256 nonce;
    }
}

/// The EIP-712 domain of the Leases contract at `leases`.
pub fn domain(chain: ChainId, leases: Address) -> Eip712Domain {
    Eip712Domain::new(
        Some("Roadstead Leases".into()),
        Some("1".into()),
        Some(U256::from(chain)),
        Some(leases),
        None,
    )
}

/// A quote in JSON: amounts are decimal strings, as everywhere, since JSON's numbers lose everything above 2^53.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    provider: Address,
    account: B256,
    lease: u64,
    pod: B256,
    rate: Rate,
    lock: u32,
    coverage: Amount,
    grace: u32,
    full: u32,
    response: u32,
    notice: u32,
    start_within: u32,
    expiry: u64,
    version: u64,
    nonce: String,
}

impl Serialize for Quote {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let wire = Wire {
            provider: self.provider,
            account: self.account,
            lease: self.lease,
            pod: self.pod,
            rate: Rate(self.rate),
            lock: self.lock,
            coverage: Amount(self.coverage),
            grace: self.grace.to(),
            full: self.full.to(),
            response: self.response.to(),
            notice: self.notice.to(),
            start_within: self.startWithin.to(),
            expiry: self.expiry.to(),
            version: self.version,
            nonce: self.nonce.to_string(),
        };
        wire.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Quote {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(from)?;
        let seconds = |name: &str, value: u32| {
            U24::try_from(value)
                .map_err(|_err| D::Error::custom(format!("{name}: {value} is more than 2^24 - 1")))
        };
        let expiry =
            |_err| D::Error::custom(format!("expiry: {} is more than 2^40 - 1", wire.expiry));
        Ok(Self {
            provider: wire.provider,
            account: wire.account,
            lease: wire.lease,
            pod: wire.pod,
            rate: wire.rate.0,
            lock: wire.lock,
            coverage: wire.coverage.0,
            grace: seconds("grace", wire.grace)?,
            full: seconds("full", wire.full)?,
            response: seconds("response", wire.response)?,
            notice: seconds("notice", wire.notice)?,
            startWithin: seconds("startWithin", wire.start_within)?,
            expiry: U40::try_from(wire.expiry).map_err(expiry)?,
            version: wire.version,
            nonce: U256::from_str_radix(&wire.nonce, 10).map_err(D::Error::custom)?,
        })
    }
}

impl Quote {
    /// The digest that the provider signs and `Leases.digest` returns.
    pub fn digest(&self, chain: ChainId, leases: Address) -> B256 {
        self.eip712_signing_hash(&domain(chain, leases))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_come_back_as_they_were() {
        let quote = Quote {
            rate: u128::MAX,
            coverage: u128::MAX,
            grace: U24::MAX,
            expiry: U40::MAX,
            nonce: U256::MAX,
            ..Quote::default()
        };
        let text = serde_json::to_string(&quote).unwrap();
        assert_eq!(serde_json::from_str::<Quote>(&text).unwrap(), quote);
        let large = text.replace(&format!(r#""grace":{}"#, U24::MAX), r#""grace":16777216"#);
        let err = serde_json::from_str::<Quote>(&large).unwrap_err().to_string();
        assert!(err.contains("grace: 16777216"), "{err}");
    }
}
