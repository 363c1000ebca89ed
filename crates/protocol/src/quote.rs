//! The signed quote: EIP-712 typed data that Leases accepts once, for a limited time.

use alloy_primitives::{Address, B256, ChainId};
use alloy_sol_types::{Eip712Domain, SolStruct, sol};
use serde::{Deserialize, Serialize};

sol! {
    /// What a provider signs; field for field the `Quote` of `ILeases`.
    #[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        Some(alloy_primitives::U256::from(chain)),
        Some(leases),
        None,
    )
}

impl Quote {
    /// The digest that the provider signs and `Leases.digest` returns.
    pub fn digest(&self, chain: ChainId, leases: Address) -> B256 {
        self.eip712_signing_hash(&domain(chain, leases))
    }
}
