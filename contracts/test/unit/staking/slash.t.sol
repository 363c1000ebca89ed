// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Staking } from "../../../src/Staking.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

// slash
// ├── when the amount or the beneficiary is zero, or a reward is for nobody ─ reverts
// ├── when the amount is above the caller's lock, also of a ref that is not the caller's ─ reverts
// ├── when the lock's time is over ─ reverts
// ├── when the reward is above its share ─ reverts
// └── when within the lock ─ pays, rewards and burns, and nothing else of the bond is touched
// claim
// ├── when the receiver is zero, or there is nothing ─ reverts
// ├── when the token blocks the beneficiary ─ the slash holds, and it claims to somewhere else
// ├── when the token re-enters ─ reverts
// └── when there is something ─ pays it once
contract SlashTest is Base {
    function setUp() public override {
        super.setUp();
        _bond(provider.addr, BOND);
        _allow(provider.addr, keeper);
        vm.startPrank(keeper);
        staking.lock(provider.addr, 1, COVERAGE);
        staking.lock(provider.addr, 2, COVERAGE);
        vm.stopPrank();
    }

    function test_RevertWhen_SomethingIsZero() public {
        vm.startPrank(keeper);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.slash(provider.addr, 1, 0, payer, address(0), 0);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.slash(provider.addr, 1, 10, address(0), address(0), 0);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.slash(provider.addr, 1, 10, payer, address(0), 1);
    }

    function test_RevertWhen_AboveLock() public {
        vm.prank(keeper);
        vm.expectRevert(
            abi.encodeWithSelector(
                IStaking.Staking_SlashAboveLock.selector, provider.addr, 1, COVERAGE + 1, COVERAGE
            )
        );
        staking.slash(provider.addr, 1, COVERAGE + 1, payer, address(0), 0);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_SlashAboveLock.selector, provider.addr, 1, 1, 0)
        );
        vm.prank(stranger);
        staking.slash(provider.addr, 1, 1, stranger, address(0), 0);
    }

    function test_RevertWhen_AboveWhatIsLeftOfLock() public {
        vm.startPrank(keeper);
        staking.slash(provider.addr, 1, COVERAGE - 5, payer, address(0), 0);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_SlashAboveLock.selector, provider.addr, 1, 6, 5)
        );
        staking.slash(provider.addr, 1, 6, payer, address(0), 0);
        staking.slash(provider.addr, 1, 5, payer, address(0), 0);
        assertEq(staking.bondOf(provider.addr).locked, COVERAGE, "the other lock is whole");
    }

    function test_RevertWhen_TimeIsOver() public {
        uint40 until = uint40(block.timestamp) + 1 days;
        vm.startPrank(keeper);
        staking.release(provider.addr, 1, until);
        vm.warp(until - 1);
        staking.slash(provider.addr, 1, 1, payer, address(0), 0);
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_Released.selector, provider.addr, 1, until));
        staking.slash(provider.addr, 1, 1, payer, address(0), 0);
    }

    function test_RevertWhen_RewardIsAboveShare() public {
        vm.startPrank(keeper);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_RewardAboveLimit.selector, 101, 100));
        staking.slash(provider.addr, 1, 1_000, payer, stranger, 101);
    }

    function test_WhenWithinLock() public {
        vm.expectEmit(address(staking));
        emit IStaking.Slashed(provider.addr, keeper, 1, 1_000, payer, 800, stranger, 100);
        vm.prank(keeper);
        staking.slash(provider.addr, 1, 1_000, payer, stranger, 100);
        assertEq(staking.claimable(payer), 800);
        assertEq(staking.claimable(stranger), 100);
        assertEq(staking.burned(), 100);
        IStaking.Bond memory b = staking.bondOf(provider.addr);
        assertEq(b.bonded, BOND - 1_000);
        assertEq(b.locked, 2 * COVERAGE - 1_000);
        assertEq(staking.lockOf(provider.addr, keeper, 1).amount, COVERAGE - 1_000);
        assertEq(staking.lockOf(provider.addr, keeper, 2).amount, COVERAGE);
    }

    function test_WhenProviderIsItsOwnTenant_ItLosesTheBurnedShare() public {
        vm.prank(keeper);
        staking.slash(provider.addr, 1, COVERAGE, provider.addr, provider.addr, COVERAGE / 10);
        vm.prank(provider.addr);
        staking.claim(provider.addr);
        assertEq(token.balanceOf(provider.addr), COVERAGE - COVERAGE / 10);
    }

    function test_WhenAllOfItWasSlashed_ReleaseIsHarmless() public {
        vm.startPrank(keeper);
        staking.slash(provider.addr, 1, COVERAGE, payer, address(0), 0);
        staking.release(provider.addr, 1, uint40(block.timestamp) + 1);
        assertEq(staking.bondOf(provider.addr).locked, COVERAGE);
    }

    function test_RevertWhen_ClaimedTo0OrNothingToClaim() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.claim(address(0));
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.claim(address(this));
    }

    function test_RevertWhen_ClaimedTo0() public {
        vm.prank(keeper);
        staking.slash(provider.addr, 1, COVERAGE, payer, address(0), 0);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        vm.prank(payer);
        staking.claim(address(0));
    }

    function test_WhenClaimed_PaysOnce() public {
        vm.prank(keeper);
        staking.slash(provider.addr, 1, 1_000, payer, address(0), 0);
        vm.startPrank(payer);
        vm.expectEmit(address(staking));
        emit IStaking.Claimed(payer, stranger, 900);
        staking.claim(stranger);
        assertEq(token.balanceOf(stranger), 900);
        assertEq(staking.claimable(payer), 0);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.claim(stranger);
    }

    function test_WhenTokenBlocksBeneficiary_SlashHolds() public {
        HostileToken hostile = _hostile();
        hostile.setBlocked(payer);
        vm.prank(keeper);
        staking.slash(provider.addr, 1, 1_000, payer, address(0), 0);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(HostileToken.Blocked.selector, payer));
        staking.claim(payer);
        staking.claim(stranger);
        assertEq(hostile.balanceOf(stranger), 900);
    }

    function test_RevertWhen_TokenReenters() public {
        HostileToken hostile = _hostile();
        vm.prank(keeper);
        staking.slash(provider.addr, 1, 1_000, payer, address(0), 0);
        hostile.setReentry(address(staking), abi.encodeCall(staking.claim, (stranger)), true);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        vm.prank(payer);
        staking.claim(stranger);
    }

    function test_RevertWhen_TokenIsZero() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        new Staking(IERC20(address(0)), UNBOND_DELAY);
    }

    function testFuzz_SharesSumUp(uint128 amount, uint128 reward) public {
        amount = uint128(bound(amount, 1, COVERAGE));
        reward = uint128(bound(reward, 0, uint256(amount) / 10));
        vm.prank(keeper);
        staking.slash(provider.addr, 1, amount, payer, stranger, reward);
        uint256 paid = staking.claimable(payer);
        uint256 burned = staking.burned();
        assertEq(paid + burned + staking.claimable(stranger), amount);
        assertGe(burned * 10, amount, "rounded against whoever takes out");
        assertLt(burned * 10, uint256(amount) + 10);
    }

    function _hostile() private returns (HostileToken hostile) {
        hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), BOND);
        hostile.approve(address(staking), BOND);
        staking.bond(provider.addr, BOND);
        _allow(provider.addr, keeper);
        vm.prank(keeper);
        staking.lock(provider.addr, 1, COVERAGE);
    }
}
