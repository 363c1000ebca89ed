// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

// requestUnbond
// ├── when the amount is zero, or above what is free ─ reverts
// ├── when free ─ leaves the bond and waits
// └── when something waits already ─ the delay starts anew for all of it
// cancelUnbond
// ├── when nothing waits ─ reverts
// └── when something does ─ it is bonded again
// withdraw
// ├── when the receiver is zero, or nothing waits, or it waits still ─ reverts
// ├── when the token re-enters ─ reverts
// └── when the delay is over ─ pays
contract UnbondTest is Base {
    function setUp() public override {
        super.setUp();
        _bond(provider.addr, BOND);
    }

    function test_RevertWhen_AmountIsZero() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        vm.prank(provider.addr);
        staking.requestUnbond(0);
    }

    function test_RevertWhen_AboveWhatIsFree() public {
        _allow(provider.addr, keeper);
        vm.prank(keeper);
        staking.lock(provider.addr, 1, COVERAGE);
        uint256 free = BOND - COVERAGE;
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_NotEnoughFree.selector, provider.addr, free + 1, free)
        );
        vm.prank(provider.addr);
        staking.requestUnbond(free + 1);
    }

    function test_WhenFree() public {
        uint40 due = uint40(block.timestamp) + UNBOND_DELAY;
        vm.expectEmit(address(staking));
        emit IStaking.UnbondRequested(provider.addr, 30, due);
        vm.prank(provider.addr);
        staking.requestUnbond(30);
        IStaking.Bond memory b = staking.bondOf(provider.addr);
        assertEq(b.bonded, BOND - 30);
        assertEq(b.unbonding, 30);
        assertEq(b.withdrawableAt, due);
    }

    function test_WhenSomethingWaits_DelayStartsAnew() public {
        vm.startPrank(provider.addr);
        staking.requestUnbond(30);
        skip(UNBOND_DELAY - 1);
        staking.requestUnbond(12);
        IStaking.Bond memory b = staking.bondOf(provider.addr);
        assertEq(b.unbonding, 42);
        assertEq(b.withdrawableAt, block.timestamp + UNBOND_DELAY);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_StillUnbonding.selector, b.withdrawableAt));
        staking.withdraw(provider.addr);
    }

    function test_WhenUnbonding_BacksNothing() public {
        _allow(provider.addr, keeper);
        vm.prank(provider.addr);
        staking.requestUnbond(BOND - COVERAGE);
        vm.startPrank(keeper);
        vm.expectRevert(
            abi.encodeWithSelector(
                IStaking.Staking_NotEnoughFree.selector, provider.addr, COVERAGE + 1, COVERAGE
            )
        );
        staking.lock(provider.addr, 1, COVERAGE + 1);
        staking.lock(provider.addr, 1, COVERAGE);
    }

    function test_WhenWithdrawalGoesInFrontOfSlash_SlashHolds() public {
        _allow(provider.addr, keeper);
        vm.prank(keeper);
        staking.lock(provider.addr, 1, COVERAGE);
        // The provider sees the slash coming and takes what it can.
        vm.startPrank(provider.addr);
        staking.requestUnbond(BOND - COVERAGE);
        staking.setLocker(keeper, false);
        skip(UNBOND_DELAY);
        staking.withdraw(provider.addr);
        vm.stopPrank();
        vm.prank(keeper);
        staking.slash(provider.addr, 1, COVERAGE, payer, address(0), 0);
        assertEq(staking.claimable(payer), COVERAGE * 9 / 10);
        assertEq(staking.bondOf(provider.addr).bonded, 0);
    }

    function test_RevertWhen_NothingToCancel() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        vm.prank(provider.addr);
        staking.cancelUnbond();
    }

    function test_WhenCancelled() public {
        vm.startPrank(provider.addr);
        staking.requestUnbond(30);
        vm.expectEmit(address(staking));
        emit IStaking.UnbondCancelled(provider.addr, 30);
        staking.cancelUnbond();
        IStaking.Bond memory b = staking.bondOf(provider.addr);
        assertEq(b.bonded, BOND);
        assertEq(b.unbonding, 0);
        skip(UNBOND_DELAY);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.withdraw(provider.addr);
    }

    function test_RevertWhen_WithdrawnTo0() public {
        vm.startPrank(provider.addr);
        staking.requestUnbond(30);
        skip(UNBOND_DELAY);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.withdraw(address(0));
    }

    function test_RevertWhen_WithdrawnTo0OrNothingWaits() public {
        vm.startPrank(provider.addr);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.withdraw(address(0));
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.withdraw(provider.addr);
    }

    function test_RevertWhen_StillWaiting() public {
        vm.startPrank(provider.addr);
        staking.requestUnbond(30);
        uint40 due = uint40(block.timestamp) + UNBOND_DELAY;
        vm.warp(due - 1);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_StillUnbonding.selector, due));
        staking.withdraw(provider.addr);
    }

    function test_WhenDelayIsOver() public {
        vm.startPrank(provider.addr);
        staking.requestUnbond(30);
        skip(UNBOND_DELAY);
        vm.expectEmit(address(staking));
        emit IStaking.Unbonded(provider.addr, stranger, 30);
        staking.withdraw(stranger);
        assertEq(token.balanceOf(stranger), 30);
        assertEq(staking.bondOf(provider.addr).unbonding, 0);
        assertEq(staking.bondOf(provider.addr).bonded, BOND - 30);
    }

    function test_RevertWhen_TokenReenters() public {
        HostileToken hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), BOND);
        hostile.approve(address(staking), BOND);
        staking.bond(provider.addr, BOND);
        vm.startPrank(provider.addr);
        staking.requestUnbond(30);
        skip(UNBOND_DELAY);
        hostile.setReentry(address(staking), abi.encodeCall(staking.withdraw, (stranger)), true);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        staking.withdraw(stranger);
    }
}
