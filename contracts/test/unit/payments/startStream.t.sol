// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { StreamId, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// startStream
// ├── when the caller is not its operator, also as the account's owner ─ reverts
// ├── when it runs, is closed, or was never opened ─ reverts
// ├── when the account does not cover its lockup, or is dry ─ reverts
// └── when it is reserved ─ accrues from now on
contract StartStreamTest is Base {
    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
        _approve(keeper, 10 * RATE, 0, LOCK);
    }

    function test_RevertWhen_CallerIsNotOperator() public {
        StreamId id = _reserved(1);
        address[3] memory callers = [payer, payee, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotParty.selector, id, callers[i]));
            vm.prank(callers[i]);
            payments.startStream(id);
        }
    }

    function test_RevertWhen_NotReserved() public {
        vm.startPrank(keeper);
        StreamId none = streamIdOf(keeper, 7);
        _expectWrongState(none, IPayments.StreamState.None);
        payments.startStream(none);

        StreamId id = payments.openStream(account, 1, payee, RATE, LOCK, true);
        _expectWrongState(id, IPayments.StreamState.Running);
        payments.startStream(id);

        payments.closeStream(id);
        _expectWrongState(id, IPayments.StreamState.Closed);
        payments.startStream(id);
    }

    function test_RevertWhen_LockupIsNotCovered() public {
        StreamId id = _reserved(1);
        _stream(2, RATE, 0, true);
        // Down to one unit of the rate below the lockup.
        skip((FUNDS * SCALE - LOCKUP) / RATE + 1);
        uint128 free = payments.account(account).free;
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, LOCKUP, free)
        );
        vm.prank(keeper);
        payments.startStream(id);
    }

    function test_RevertWhen_Dry() public {
        vm.prank(keeper);
        StreamId id = payments.openStream(account, 1, payee, RATE, 0, false);
        _stream(2, RATE, 0, true);
        _runDry(1);
        uint128 free = payments.account(account).free;
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, 0, free));
        vm.prank(keeper);
        payments.startStream(id);
    }

    function test_WhenReserved() public {
        StreamId id = _reserved(1);
        skip(50);
        vm.expectEmit(address(payments));
        emit IPayments.StreamStarted(id);
        vm.prank(keeper);
        payments.startStream(id);
        assertEq(payments.stream(id).state, IPayments.StreamState.Running);
        assertEq(payments.stream(id).owed, 0);
        skip(7);
        assertEq(payments.stream(id).owed, 7 * RATE);
        assertEq(payments.account(account).rate, RATE);
        assertEq(payments.account(account).clock, 7, "before it, nothing ran");
        assertEq(payments.account(account).lockup, LOCKUP);
        assertEq(payments.approval(account, keeper).rateUsed, RATE);
    }

    function test_WhenOperatorWasRevoked_StreamItReservedStarts() public {
        StreamId id = _reserved(1);
        vm.prank(payer);
        payments.approve(account, keeper, 0, 0, 0, 0);
        vm.prank(keeper);
        payments.startStream(id);
        assertEq(payments.stream(id).state, IPayments.StreamState.Running);
    }

    function _reserved(uint96 ref) private returns (StreamId) {
        vm.prank(keeper);
        return payments.openStream(account, ref, payee, RATE, LOCK, false);
    }

    function _expectWrongState(StreamId id, IPayments.StreamState state) private {
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_WrongState.selector, id, state));
    }
}
