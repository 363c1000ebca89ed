//! Bindings, made from the ABI that the contracts were built with.

#![allow(missing_docs, clippy::all, reason = "generated; the contracts' NatSpec documents them")]

use alloy::sol;

sol!(
    #[sol(rpc)]
    #[derive(Debug, Default, PartialEq, Eq)]
    Payments,
    "abi/Payments.json"
);
sol!(
    #[sol(rpc)]
    #[derive(Debug, Default, PartialEq, Eq)]
    Staking,
    "abi/Staking.json"
);
sol!(
    #[sol(rpc)]
    #[derive(Debug, Default, PartialEq, Eq)]
    Registry,
    "abi/Registry.json"
);
sol!(
    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    Leases,
    "abi/Leases.json"
);
sol!(
    #[sol(rpc)]
    #[derive(Debug, Default, PartialEq, Eq)]
    Sla,
    "abi/Sla.json"
);
sol!(
    #[sol(rpc)]
    #[derive(Debug, Default, PartialEq, Eq)]
    Auction,
    "abi/Auction.json"
);
/// Apart from the others, because it has their quotes in its ABI, too.
pub mod apps {
    use alloy::sol;

    sol!(
        #[sol(rpc)]
        #[derive(Debug, PartialEq, Eq)]
        Apps,
        "abi/Apps.json"
    );
}
pub use apps::Apps;

sol!(
    /// What is used of the settlement token: ERC-20, its metadata, and the mint of a test token.
    #[sol(rpc)]
    #[derive(Debug, Default, PartialEq, Eq)]
    contract Erc20 {
        function symbol() external view returns (string memory);
        function decimals() external view returns (uint8);
        function balanceOf(address owner) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function approve(address spender, uint256 amount) external returns (bool);
        function transfer(address to, uint256 amount) external returns (bool);
        function mint(address to, uint256 amount) external;

        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
    }
);
