// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { StreamId, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// closeStream
// ├── when the caller is neither its operator nor the owner ─ reverts
// ├── when it is closed, or was never opened ─ reverts
// ├── when it runs ─ stops, frees its lockup, gives back to the approval; what it accrued stays owed
// ├── when it is reserved ─ frees its lockup
// ├── when the account is underfunded or dry ─ goes through
// └── when others of the account go on while it is dry ─ what was left pays for nothing of the gap
contract CloseStreamTest is Base {
    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
        _approve(keeper, 10 * RATE, 0, LOCK);
    }

    function test_RevertWhen_CallerIsNoParty() public {
        StreamId id = _kept(1, true);
        address[2] memory callers = [payee, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotParty.selector, id, callers[i]));
            vm.prank(callers[i]);
            payments.closeStream(id);
        }
    }

    function test_RevertWhen_ClosedOrNone() public {
        StreamId none = streamIdOf(keeper, 7);
        vm.startPrank(keeper);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_WrongState.selector, none, IPayments.StreamState.None)
        );
        payments.closeStream(none);
        vm.stopPrank();
        StreamId id = _kept(1, true);
        vm.startPrank(payer);
        payments.closeStream(id);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_WrongState.selector, id, IPayments.StreamState.Closed)
        );
        payments.closeStream(id);
    }

    function test_WhenRunning() public {
        StreamId id = _kept(1, true);
        skip(100);
        vm.expectEmit(address(payments));
        emit IPayments.StreamClosed(id);
        vm.prank(keeper);
        payments.closeStream(id);
        skip(100);
        IPayments.StreamView memory s = payments.stream(id);
        assertEq(s.state, IPayments.StreamState.Closed);
        assertEq(s.rate, 0);
        assertEq(s.owed, 100 * RATE);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.rate, 0);
        assertEq(a.lockup, 0);
        assertEq(a.free, FUNDS * SCALE - 100 * RATE);
        assertEq(a.fundedUntil, type(uint40).max);
        assertEq(payments.approval(account, keeper).rateUsed, 0);
        payments.collect(_only(id));
        assertEq(token.balanceOf(payee), 100 * RATE / SCALE);
    }

    function test_WhenReserved() public {
        StreamId id = _kept(1, false);
        skip(100);
        vm.prank(payer);
        payments.closeStream(id);
        assertEq(payments.stream(id).owed, 0);
        assertEq(payments.account(account).lockup, 0);
        assertEq(payments.account(account).free, FUNDS * SCALE);
        assertEq(payments.approval(account, keeper).rateUsed, 0);
    }

    function test_WhenOperatorWasRevoked_BothCanEnd() public {
        StreamId first = _kept(1, true);
        StreamId second = _kept(2, true);
        _approve(keeper, 0, 0, 0);
        vm.prank(keeper);
        payments.closeStream(first);
        vm.prank(payer);
        payments.closeStream(second);
        assertEq(payments.approval(account, keeper).rateUsed, 0);
        assertEq(payments.account(account).rate, 0);
    }

    function test_WhenUnderfundedOrDry() public {
        StreamId first = _kept(1, true);
        StreamId second = _kept(2, true);
        skip((FUNDS * SCALE - 2 * LOCKUP) / (2 * RATE) + 60);
        assertLt(payments.account(account).free, payments.account(account).lockup);
        vm.prank(payer);
        payments.closeStream(first);
        _runDry(1 days);
        vm.prank(payer);
        payments.closeStream(second);
        assertEq(payments.account(account).lockup, 0);
    }

    function test_WhenOthersGoOnWhileDry_GapIsFree() public {
        StreamId big = _kept(1, true);
        StreamId small = _stream(2, 10, 0, true);
        _runDry(1 hours);
        uint128 rest = payments.account(account).free;
        uint128 owed = payments.stream(small).owed;
        assertGt(rest, 10, "more than a second of the small one is left");
        vm.prank(payer);
        payments.closeStream(big);
        skip(1 hours);
        assertEq(payments.stream(small).owed, owed);
        assertEq(payments.account(account).free, rest);

        _fund(1);
        skip(3);
        assertEq(payments.stream(small).owed, owed + 30);
    }

    function test_WhenLastOneOfDryAccount_AccountStartsAfresh() public {
        StreamId id = _kept(1, true);
        _runDry(1 hours);
        vm.prank(payer);
        payments.closeStream(id);
        assertEq(payments.account(account).fundedUntil, type(uint40).max);
        // Nothing runs, so any amount will do, and a new stream starts at its opening.
        _fund(1);
        skip(1 hours);
        StreamId next = _stream(3, 1, 0, true);
        skip(4);
        assertEq(payments.stream(next).owed, 4);
    }

    function _kept(uint96 ref, bool start) private returns (StreamId) {
        vm.prank(keeper);
        return payments.openStream(account, ref, payee, RATE, LOCK, start);
    }
}
