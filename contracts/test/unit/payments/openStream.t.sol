// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, StreamId, operatorOf, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// openStream
// ├── when the payee is zero, or the caller ─ reverts
// ├── when there is no such account ─ reverts
// ├── when the ref was used before, also by a closed stream ─ reverts
// ├── when the account does not cover its lockup, or is dry ─ reverts
// ├── when the caller is the owner ─ opens it, started or reserved
// └── when the caller is an operator
//     ├── when never approved, or not any more ─ reverts
//     ├── when the rates of all its streams are above the approval ─ reverts
//     ├── when the lock is longer than approved ─ reverts
//     └── when within the approval ─ opens it and draws on the approval
contract OpenStreamTest is Base {
    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
    }

    function test_RevertWhen_PayeeIsZero() public {
        vm.expectRevert(IPayments.Payments_Zero.selector);
        vm.prank(payer);
        payments.openStream(account, 1, address(0), RATE, LOCK, true);
    }

    function test_RevertWhen_PayeeIsCaller() public {
        _approve(keeper, RATE, 0, LOCK);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_PaysItself.selector, keeper));
        vm.prank(keeper);
        payments.openStream(account, 1, keeper, RATE, LOCK, true);
    }

    function test_RevertWhen_NoAccount() public {
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NoAccount.selector, bytes32("none")));
        vm.prank(payer);
        payments.openStream(AccountId.wrap("none"), 1, payee, RATE, LOCK, true);
    }

    function test_RevertWhen_RefWasUsed() public {
        StreamId id = _stream(1, true);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_StreamExists.selector, id));
        _stream(1, true);
        vm.prank(payer);
        payments.closeStream(id);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_StreamExists.selector, id));
        _stream(1, true);
    }

    function test_RevertWhen_LockupIsNotCovered() public {
        uint128 rate = uint128(FUNDS * SCALE / LOCK) + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_Underfunded.selector, account, rate * LOCK, FUNDS * SCALE
            )
        );
        _stream(1, rate, LOCK, false);
    }

    function test_RevertWhen_Dry() public {
        _stream(1, true);
        _runDry(1);
        uint128 free = payments.account(account).free;
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, LOCKUP, free)
        );
        // Not even one that costs and locks nothing: its account is not running.
        _stream(2, 0, 0, true);
    }

    function test_WhenOwner_Started() public {
        StreamId id = streamIdOf(payer, 9);
        vm.expectEmit(address(payments));
        emit IPayments.StreamOpened(id, account, payee, RATE, LOCK, true);
        assertEq(_stream(9, true), id);
        assertEq(operatorOf(id), payer);

        skip(30);
        IPayments.StreamView memory s = payments.stream(id);
        assertEq(s.account, account);
        assertEq(s.payee, payee);
        assertEq(s.rate, RATE);
        assertEq(s.lock, LOCK);
        assertEq(s.state, IPayments.StreamState.Running);
        assertEq(s.owed, 30 * RATE);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.free, FUNDS * SCALE - 30 * RATE);
        assertEq(a.rate, RATE);
        assertEq(a.lockup, LOCKUP);
        assertEq(a.clock, 30);
        assertEq(a.fundedUntil, block.timestamp + a.free / RATE);
    }

    function test_WhenOwner_Reserved() public {
        StreamId id = streamIdOf(payer, 9);
        vm.expectEmit(address(payments));
        emit IPayments.StreamOpened(id, account, payee, RATE, LOCK, false);
        _stream(9, false);
        skip(30);
        assertEq(payments.stream(id).state, IPayments.StreamState.Reserved);
        assertEq(payments.stream(id).owed, 0);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.free, FUNDS * SCALE);
        assertEq(a.rate, 0);
        assertEq(a.lockup, LOCKUP);
        assertEq(a.fundedUntil, type(uint40).max);
    }

    function test_WhenOneOfMany_EachAccruesFromItsOpening() public {
        _stream(1, true);
        skip(10);
        _stream(2, 3 * RATE, LOCK, true);
        skip(10);
        assertEq(payments.stream(_idOf(1)).owed, 20 * RATE);
        assertEq(payments.stream(_idOf(2)).owed, 30 * RATE);
        assertEq(payments.account(account).free, FUNDS * SCALE - 50 * RATE);
    }

    function test_RevertWhen_OperatorIsNotApproved() public {
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotApproved.selector, account, keeper));
        vm.prank(keeper);
        payments.openStream(account, 1, payee, RATE, LOCK, true);
    }

    function test_RevertWhen_ApprovalIsOver() public {
        vm.prank(payer);
        payments.approve(account, keeper, 2 * RATE, 0, LOCK, uint40(block.timestamp));
        vm.startPrank(keeper);
        payments.openStream(account, 1, payee, RATE, LOCK, true);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotApproved.selector, account, keeper));
        payments.openStream(account, 2, payee, RATE, LOCK, true);
    }

    function test_RevertWhen_RatesAreAboveApproval() public {
        _approve(keeper, 2 * RATE, 0, LOCK);
        vm.startPrank(keeper);
        payments.openStream(account, 1, payee, RATE, LOCK, true);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_RateAboveApproval.selector, account, keeper, 2 * RATE + 1, 2 * RATE
            )
        );
        payments.openStream(account, 2, payee, RATE + 1, LOCK, false);
    }

    function test_RevertWhen_LockIsLongerThanApproved() public {
        _approve(keeper, RATE, 0, LOCK - 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_LockAboveApproval.selector, account, keeper, LOCK, LOCK - 1
            )
        );
        vm.prank(keeper);
        payments.openStream(account, 1, payee, RATE, LOCK, true);
    }

    function test_WhenWithinApproval() public {
        _approve(keeper, 2 * RATE, 0, LOCK);
        StreamId id = streamIdOf(keeper, 1);
        vm.expectEmit(address(payments));
        emit IPayments.StreamOpened(id, account, payee, RATE, LOCK, false);
        vm.startPrank(keeper);
        payments.openStream(account, 1, payee, RATE, LOCK, false);
        assertEq(payments.approval(account, keeper).rateUsed, RATE, "reserved counts as used");
        payments.openStream(account, 2, payee, RATE, LOCK, true);
        assertEq(payments.approval(account, keeper).rateUsed, 2 * RATE);
    }

    function test_WhenSameRefOfTwoOperators_StreamsAreApart() public {
        _approve(keeper, RATE, 0, LOCK);
        _stream(1, true);
        vm.prank(keeper);
        StreamId id = payments.openStream(account, 1, payee, RATE, LOCK, true);
        assertNotEq(StreamId.unwrap(id), StreamId.unwrap(_idOf(1)));
        assertEq(payments.account(account).rate, 2 * RATE);
    }

    function testFuzz_AccrualIsExactAndAdditive(uint128[4] memory rates, uint32[4] memory gaps) public {
        uint256 spent;
        uint256 end = block.timestamp;
        for (uint96 i = 0; i < 4; ++i) {
            rates[i] = uint128(bound(rates[i], 1, FUNDS * SCALE / 1 days / 8));
            end += bound(gaps[i], 0, 1 days);
            _stream(i, rates[i], 0, true);
            vm.warp(end);
        }
        for (uint96 i = 0; i < 4; ++i) {
            spent += payments.stream(_idOf(i)).owed;
        }
        assertEq(payments.account(account).free + spent, FUNDS * SCALE);
    }
}
