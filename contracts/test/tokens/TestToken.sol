// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ERC20 } from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import { ERC20Permit } from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title TestToken
/// @notice Money for private chains: a dollar of six decimals that anybody can mint.
contract TestToken is ERC20, ERC20Permit {
    constructor() ERC20("Test Dollar", "tUSD") ERC20Permit("Test Dollar") { }

    /// @notice Makes `amount` out of nothing, for `to`.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
