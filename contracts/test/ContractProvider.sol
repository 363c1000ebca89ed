// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IERC1271 } from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import { ECDSA } from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title ContractProvider
/// @notice A provider that is a contract: it does what its owner says and signs what its owner signed (ERC-1271).
contract ContractProvider is IERC1271 {
    address public immutable OWNER;

    error NotOwner(address caller);

    constructor(address owner) {
        OWNER = owner;
    }

    function act(address target, bytes calldata call) external returns (bytes memory answer) {
        if (msg.sender != OWNER) revert NotOwner(msg.sender);
        bool ok;
        (ok, answer) = target.call(call);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(hash, signature);
        return signer == OWNER ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}
