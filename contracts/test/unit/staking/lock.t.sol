// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { Base } from "../../Base.t.sol";

// setLocker
// └── says who may lock; what is locked stays so
// lock
// ├── when the bonder does not let the caller ─ reverts
// ├── when the amount is zero, or above what is free ─ reverts
// ├── when the ref was released ─ reverts
// └── when free ─ locks it, on top of what is locked
// release
// ├── when it was released ─ reverts
// ├── when there is no lock ─ does nothing
// ├── when in future ─ sets the time
// └── when now or earlier ─ frees it
// unlock
// ├── when not released, or before its time, or freed already ─ reverts
// └── when its time is over ─ frees it, whoever calls
contract LockTest is Base {
    function setUp() public override {
        super.setUp();
        _bond(provider.addr, BOND);
        _allow(provider.addr, keeper);
    }

    function test_WhenLockerIsSet() public {
        assertTrue(staking.isLocker(provider.addr, keeper));
        vm.expectEmit(address(staking));
        emit IStaking.LockerSet(provider.addr, keeper, false);
        vm.prank(provider.addr);
        staking.setLocker(keeper, false);
        assertFalse(staking.isLocker(provider.addr, keeper));
    }

    function test_RevertWhen_NotAllowed() public {
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_LockerNotAllowed.selector, provider.addr, stranger)
        );
        vm.prank(stranger);
        staking.lock(provider.addr, 1, 1);
    }

    function test_WhenNoLongerAllowed_OldLocksStay() public {
        _lock(1, COVERAGE);
        vm.prank(provider.addr);
        staking.setLocker(keeper, false);
        vm.startPrank(keeper);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_LockerNotAllowed.selector, provider.addr, keeper)
        );
        staking.lock(provider.addr, 1, 1);
        staking.slash(provider.addr, 1, 10, payer, address(0), 0);
        staking.release(provider.addr, 1, 0);
        assertEq(staking.bondOf(provider.addr).locked, 0);
    }

    function test_RevertWhen_AmountIsZero() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        _lock(1, 0);
    }

    function test_RevertWhen_AboveWhatIsFree() public {
        _lock(1, uint128(BOND));
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_NotEnoughFree.selector, provider.addr, 1, 0));
        _lock(2, 1);
    }

    function test_WhenFree() public {
        vm.expectEmit(address(staking));
        emit IStaking.Locked(provider.addr, keeper, 1, 5);
        _lock(1, 5);
        _lock(1, 6);
        _lock(2, 7);
        assertEq(_amount(1), 11);
        assertEq(_amount(2), 7);
        assertEq(staking.bondOf(provider.addr).locked, 18);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    function test_RevertWhen_LockedAfterRelease() public {
        _lock(1, 5);
        uint40 until = uint40(block.timestamp) + 1 days;
        _release(1, until);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_Released.selector, provider.addr, 1, until));
        _lock(1, 5);
    }

    function test_RevertWhen_LockedAfterUnlock() public {
        _lock(1, 5);
        _release(1, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_Released.selector, provider.addr, 1, block.timestamp)
        );
        _lock(1, 5);
    }

    function test_RevertWhen_ReleasedTwice() public {
        _lock(1, 5);
        uint40 until = uint40(block.timestamp) + 1 days;
        _release(1, until);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_Released.selector, provider.addr, 1, until));
        _release(1, until + 1);
    }

    function test_WhenThereIsNoLock_ReleaseDoesNothing() public {
        vm.recordLogs();
        _release(1, 0);
        vm.prank(stranger);
        staking.release(provider.addr, 1, type(uint40).max);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(staking.lockOf(provider.addr, keeper, 1).releaseAt, 0);
    }

    function test_WhenReleasedForLater() public {
        _lock(1, 5);
        uint40 until = uint40(block.timestamp) + 1 days;
        vm.expectEmit(address(staking));
        emit IStaking.ReleaseSet(provider.addr, keeper, 1, until);
        _release(1, until);
        assertEq(staking.lockOf(provider.addr, keeper, 1).releaseAt, until);
        assertEq(staking.bondOf(provider.addr).locked, 5);
    }

    function test_WhenReleasedNow() public {
        _lock(1, 5);
        _lock(2, 7);
        vm.expectEmit(address(staking));
        emit IStaking.Unlocked(provider.addr, keeper, 1, 5);
        _release(1, uint40(block.timestamp));
        assertEq(_amount(1), 0);
        assertEq(staking.bondOf(provider.addr).locked, 7);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    function test_RevertWhen_UnlockedTooSoon() public {
        _lock(1, 5);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_StillLocked.selector, provider.addr, 1, 0));
        staking.unlock(provider.addr, keeper, 1);
        uint40 until = uint40(block.timestamp) + 1 days;
        _release(1, until);
        vm.warp(until - 1);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_StillLocked.selector, provider.addr, 1, until)
        );
        staking.unlock(provider.addr, keeper, 1);
    }

    function test_WhenTimeIsOver_AnybodyUnlocksOnce() public {
        _lock(1, 5);
        uint40 until = uint40(block.timestamp) + 1 days;
        _release(1, until);
        vm.warp(until);
        vm.expectEmit(address(staking));
        emit IStaking.Unlocked(provider.addr, keeper, 1, 5);
        vm.prank(stranger);
        staking.unlock(provider.addr, keeper, 1);
        assertEq(staking.bondOf(provider.addr).locked, 0);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.unlock(provider.addr, keeper, 1);
    }

    function testFuzz_LockedNeverAboveBonded(uint128[6] memory amounts) public {
        uint256 sum;
        for (uint96 i = 0; i < amounts.length; ++i) {
            uint128 amount = uint128(bound(amounts[i], 1, BOND / 3));
            bool fits = sum + amount <= BOND;
            if (!fits) vm.expectRevert();
            _lock(i % 3, amount);
            if (fits) sum += amount;
            IStaking.Bond memory b = staking.bondOf(provider.addr);
            assertEq(b.locked, sum);
            assertLe(b.locked, b.bonded);
        }
        assertEq(_amount(0) + _amount(1) + _amount(2), sum);
    }

    function _lock(uint96 ref, uint128 amount) private {
        vm.prank(keeper);
        staking.lock(provider.addr, ref, amount);
    }

    function _release(uint96 ref, uint40 until) private {
        vm.prank(keeper);
        staking.release(provider.addr, ref, until);
    }

    function _amount(uint96 ref) private view returns (uint128) {
        return staking.lockOf(provider.addr, keeper, ref).amount;
    }
}
