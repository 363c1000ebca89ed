// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IRegistry } from "../../../src/interfaces/IRegistry.sol";
import { Base } from "../../Base.t.sol";

// vouch
// ├── says until when the caller, and nobody else, vouches for that attribute
// └── when zero ─ takes it back
contract VouchTest is Base {
    function test_WhenVouched() public {
        vm.expectEmit(address(registry));
        emit IRegistry.Vouched(provider.addr, keeper, "gpu", 77);
        vm.prank(keeper);
        registry.vouch(provider.addr, "gpu", 77);
        assertEq(registry.vouchedUntil(provider.addr, keeper, "gpu"), 77);
        assertEq(registry.vouchedUntil(provider.addr, stranger, "gpu"), 0);
        assertEq(registry.vouchedUntil(provider.addr, keeper, "tee"), 0);
        assertEq(registry.vouchedUntil(keeper, provider.addr, "gpu"), 0);
    }

    function test_WhenTakenBack() public {
        vm.startPrank(keeper);
        registry.vouch(provider.addr, "gpu", 77);
        registry.vouch(provider.addr, "gpu", 0);
        assertEq(registry.vouchedUntil(provider.addr, keeper, "gpu"), 0);
    }
}
