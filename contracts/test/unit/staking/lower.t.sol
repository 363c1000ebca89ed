// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { Base } from "../../Base.t.sol";

// lower
// ├── when the amount is zero, or above the lock, or the lock is another's ─ reverts
// ├── when released ─ reverts
// └── else ─ frees it; the rest stays, and can be added to
contract LowerTest is Base {
    function setUp() public override {
        super.setUp();
        _bond(provider.addr, BOND);
        _allow(provider.addr, keeper);
        vm.prank(keeper);
        staking.lock(provider.addr, 1, COVERAGE);
    }

    function test_RevertWhen_Zero() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        _lower(0);
    }

    function test_RevertWhen_AboveTheLock() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IStaking.Staking_LowersTooMuch.selector, provider.addr, 1, COVERAGE + 1, COVERAGE
            )
        );
        _lower(COVERAGE + 1);
    }

    function test_RevertWhen_AnothersLock() public {
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_LowersTooMuch.selector, provider.addr, 1, 1, 0)
        );
        vm.prank(stranger);
        staking.lower(provider.addr, 1, 1);
    }

    function test_RevertWhen_Released() public {
        uint40 until = uint40(block.timestamp) + 1 days;
        vm.prank(keeper);
        staking.release(provider.addr, 1, until);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_Released.selector, provider.addr, 1, until));
        _lower(1);
    }

    function test_WhenLowered() public {
        vm.expectEmit(address(staking));
        emit IStaking.Lowered(provider.addr, keeper, 1, 5);
        _lower(5);
        assertEq(staking.lockOf(provider.addr, keeper, 1).amount, COVERAGE - 5);
        assertEq(staking.bondOf(provider.addr).locked, COVERAGE - 5);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
        _lower(COVERAGE - 5);
        assertEq(staking.bondOf(provider.addr).locked, 0);
        vm.prank(keeper);
        staking.lock(provider.addr, 1, 3);
        assertEq(staking.lockOf(provider.addr, keeper, 1).amount, 3);
    }

    function _lower(uint128 amount) private {
        vm.prank(keeper);
        staking.lower(provider.addr, 1, amount);
    }
}
