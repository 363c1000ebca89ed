// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { StreamId, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// setRate
// ├── when the caller is not its operator ─ reverts
// ├── when it is closed, or was never opened ─ reverts
// ├── when raised
// │   ├── above the approval, or with a lock above it, or without one any more ─ reverts
// │   ├── on an account that does not cover it, or is dry ─ reverts
// │   └── else ─ accrues at the old rate up to now and at the new one from now on
// ├── when cut
// │   ├── gives back to the approval exactly what it no longer draws
// │   ├── by an operator that was revoked ─ goes through
// │   └── on a dry account ─ goes through, and what was left pays for nothing of the gap
// └── when reserved ─ changes what will accrue
contract SetRateTest is Base {
    StreamId private _id;

    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
        _approve(keeper, 10 * RATE, 0, LOCK);
        vm.prank(keeper);
        _id = payments.openStream(account, 1, payee, RATE, LOCK, true);
    }

    function test_RevertWhen_CallerIsNotOperator() public {
        address[3] memory callers = [payer, payee, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotParty.selector, _id, callers[i]));
            vm.prank(callers[i]);
            payments.setRate(_id, 0, 0);
        }
    }

    function test_RevertWhen_ClosedOrNone() public {
        vm.startPrank(keeper);
        StreamId none = streamIdOf(keeper, 7);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_WrongState.selector, none, IPayments.StreamState.None)
        );
        payments.setRate(none, RATE, LOCK);
        payments.closeStream(_id);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_WrongState.selector, _id, IPayments.StreamState.Closed)
        );
        payments.setRate(_id, RATE, LOCK);
    }

    function test_RevertWhen_RaisedAboveApproval() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_RateAboveApproval.selector, account, keeper, 10 * RATE + 1, 10 * RATE
            )
        );
        _set(10 * RATE + 1, LOCK);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_LockAboveApproval.selector, account, keeper, LOCK + 1, LOCK
            )
        );
        _set(RATE, LOCK + 1);
    }

    function test_RevertWhen_RaisedAfterRevocation() public {
        _approve(keeper, 0, 0, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_LockAboveApproval.selector, account, keeper, LOCK, 0)
        );
        _set(RATE + 1, LOCK);
        vm.prank(payer);
        payments.approve(account, keeper, 10 * RATE, 0, LOCK, 0);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotApproved.selector, account, keeper));
        _set(RATE + 1, LOCK);
    }

    function test_RevertWhen_RaiseIsNotCovered() public {
        skip((FUNDS * SCALE - LOCKUP) / RATE);
        uint128 free = payments.account(account).free;
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, 2 * LOCKUP, free)
        );
        _set(2 * RATE, LOCK);
    }

    function test_RevertWhen_RaisedWhileDry() public {
        _runDry(1);
        uint128 free = payments.account(account).free;
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, 0, free));
        // The lock falls and the rate rises: still a raise.
        _set(RATE + 1, 0);
    }

    function test_WhenRaised() public {
        skip(100);
        vm.expectEmit(address(payments));
        emit IPayments.RateSet(_id, 4 * RATE, LOCK / 2);
        _set(4 * RATE, LOCK / 2);
        assertEq(payments.stream(_id).owed, 100 * RATE);
        skip(10);
        IPayments.StreamView memory s = payments.stream(_id);
        assertEq(s.owed, 140 * RATE);
        assertEq(s.rate, 4 * RATE);
        assertEq(s.lock, LOCK / 2);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.rate, 4 * RATE);
        assertEq(a.lockup, 2 * LOCKUP);
        assertEq(a.clock, 110);
        assertEq(a.free, FUNDS * SCALE - 140 * RATE);
        assertEq(payments.approval(account, keeper).rateUsed, 4 * RATE);
    }

    function test_WhenCut_ApprovalGetsBackExactlyThat() public {
        _set(RATE - 3, LOCK);
        assertEq(payments.approval(account, keeper).rateUsed, RATE - 3);
        assertEq(payments.account(account).lockup, (RATE - 3) * LOCK);
        // A longer lock asks the approval again, and still gives back the rate.
        _approve(keeper, RATE, 0, 2 * LOCK);
        _set(RATE - 5, 2 * LOCK);
        assertEq(payments.approval(account, keeper).rateUsed, RATE - 5);
        vm.prank(keeper);
        payments.closeStream(_id);
        assertEq(payments.approval(account, keeper).rateUsed, 0);
        assertEq(payments.account(account).lockup, 0);
    }

    function test_WhenCutByRevokedOperator() public {
        _approve(keeper, 0, 0, 0);
        _set(1, 1);
        assertEq(payments.account(account).rate, 1);
        assertEq(payments.approval(account, keeper).rateUsed, 1);
    }

    function test_WhenCutByRevokedOperator_TheLockMayStay() public {
        _approve(keeper, 0, 0, 0);
        _set(1, LOCK);
        assertEq(payments.account(account).lockup, LOCK);
        assertEq(payments.approval(account, keeper).rateUsed, 1);
    }

    function test_WhenCutUnderfunded() public {
        skip((FUNDS * SCALE - LOCKUP) / RATE + 60);
        _set(RATE - 1, LOCK);
        assertLt(payments.account(account).free, payments.account(account).lockup);
    }

    function test_WhenCutWhileDry_GapIsFree() public {
        _runDry(1 days);
        IPayments.AccountView memory before = payments.account(account);
        assertGt(before.free, 1, "something is left of a second");
        _set(1, LOCK);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.fundedUntil, before.fundedUntil, "what is left does not move the end");
        assertEq(a.clock, before.clock);
        skip(1 days);
        assertEq(payments.account(account).free, before.free);
        assertEq(payments.stream(_id).owed, FUNDS * SCALE - before.free);
    }

    function test_WhenReserved() public {
        vm.startPrank(keeper);
        StreamId id = payments.openStream(account, 2, payee, RATE, LOCK, false);
        payments.setRate(id, 2 * RATE, LOCK / 4);
        assertEq(payments.account(account).rate, RATE, "the reserved one is not in it");
        assertEq(payments.account(account).lockup, LOCKUP + LOCKUP / 2);
        payments.startStream(id);
        skip(5);
        assertEq(payments.stream(id).owed, 10 * RATE);
    }

    function test_WhenOwnersOwn_NoApprovalIsTouched() public {
        StreamId id = _stream(5, true);
        vm.startPrank(payer);
        payments.setRate(id, 3 * RATE, LOCK);
        payments.setRate(id, RATE, LOCK);
        payments.closeStream(id);
        assertEq(payments.approval(account, payer).rateUsed, 0);
        assertEq(payments.account(account).rate, RATE);
    }

    function testFuzz_LockupAndApprovalFollowExactly(uint128 rate, uint32 lock, uint32 secs) public {
        rate = uint128(bound(rate, 0, 10 * RATE));
        lock = uint32(bound(lock, 0, LOCK));
        skip(bound(secs, 0, 1 days));
        _set(rate, lock);
        assertEq(payments.account(account).lockup, rate * lock);
        assertEq(payments.account(account).rate, rate);
        assertEq(payments.approval(account, keeper).rateUsed, rate);
        vm.prank(payer);
        payments.closeStream(_id);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.lockup, 0);
        assertEq(a.rate, 0);
        assertEq(payments.approval(account, keeper).rateUsed, 0);
        assertEq(a.free + payments.stream(_id).owed, FUNDS * SCALE);
    }

    function _set(uint128 rate, uint32 lock) private {
        vm.prank(keeper);
        payments.setRate(_id, rate, lock);
    }
}
