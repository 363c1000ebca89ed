// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { StreamId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// cutStream
// ├── when the caller is not its operator, not even the owner ─ reverts
// ├── when it is closed, or never was ─ reverts
// ├── when it was reserved ─ ends it, and gives nothing back
// ├── when the second is now or in future ─ ends it, and gives nothing back
// ├── when the second is past ─ gives back what accrued since
// ├── when less is still owed ─ gives back no more than that
// ├── when the rate was raised since beyond what is owed ─ gives back what is owed
// └── when the account is dry ─ gives back what accrued; the account stays dry for its other streams
// resumedAt
// ├── when the account never was dry ─ is zero
// ├── when a dry account is topped up ─ is now
// └── when the last stream of a dry account ends ─ is now
contract CutStreamTest is Base {
    StreamId private _id;
    uint128 private _funds = uint128(FUNDS * SCALE);

    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
        _approve(keeper, type(uint128).max, 0, LOCK);
        _id = _openAsKeeper(0, true);
    }

    function test_RevertWhen_NotOperator() public {
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotParty.selector, _id, payer));
        vm.prank(payer);
        payments.cutStream(_id, 0);
    }

    function test_RevertWhen_NotOpen() public {
        _cut(_id, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_WrongState.selector, _id, IPayments.StreamState.Closed)
        );
        _cut(_id, 0);
    }

    function test_WhenReserved() public {
        StreamId reserved = _openAsKeeper(1, false);
        skip(100);
        vm.expectEmit(address(payments));
        emit IPayments.StreamCut(reserved, 0);
        assertEq(_cut(reserved, 0), 0);
        assertEq(payments.account(account).lockup, LOCKUP);
    }

    function test_WhenNow() public {
        skip(100);
        assertEq(_cut(_id, 100), 0);
        assertEq(payments.stream(_id).owed, 100 * RATE);
    }

    function test_WhenInFuture() public {
        skip(100);
        assertEq(_cut(_id, 101), 0);
    }

    function test_WhenPast() public {
        skip(100);
        vm.expectEmit(address(payments));
        emit IPayments.StreamCut(_id, 60 * RATE);
        assertEq(_cut(_id, 40), 60 * RATE);
        IPayments.StreamView memory s = payments.stream(_id);
        assertEq(s.owed, 40 * RATE);
        assertEq(s.state, IPayments.StreamState.Closed);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(
            abi.encode(a.free, a.lockup, a.rate, a.clock),
            abi.encode(_funds - 40 * RATE, uint128(0), uint128(0), uint40(100))
        );
        assertEq(payments.approval(account, keeper).rateUsed, 0);
    }

    function test_WhenLessIsOwed() public {
        skip(100);
        payments.collect(_only(_id));
        uint128 left = payments.stream(_id).owed;
        skip(10);
        assertEq(_cut(_id, 0), left + 10 * RATE);
        assertEq(payments.stream(_id).owed, 0);
    }

    function test_WhenRateWasRaised() public {
        skip(100);
        vm.prank(keeper);
        payments.setRate(_id, type(uint128).max, 0);
        // No second of this is funded, so all that is owed is from before.
        skip(1);
        assertEq(_cut(_id, 0), 100 * RATE, "and what it would be beyond that keeps nobody from ending it");
    }

    function test_WhenDry() public {
        _stream(1, 7, 0, true);
        uint40 end = payments.account(account).fundedUntil;
        uint40 clock = payments.account(account).clock + end - uint40(block.timestamp);
        vm.warp(end + 100);
        assertEq(_cut(_id, clock - 50), 50 * RATE);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.fundedUntil, end, "it stays dry");
        assertEq(a.clock, clock, "nobody is paid for the gap");
        assertGe(a.free, 50 * RATE);
        uint256 owed = payments.stream(_idOf(1)).owed;
        skip(100);
        assertEq(payments.stream(_idOf(1)).owed, owed);
        _fund(1);
        skip(10);
        assertEq(payments.stream(_idOf(1)).owed, owed + 70, "until it is topped up");
    }

    function test_WhenNeverDry_ResumedAtIsZero() public {
        skip(100);
        _fund(1);
        assertEq(payments.resumedAt(account), 0);
        _cut(_id, 0);
        assertEq(payments.resumedAt(account), 0);
    }

    function test_WhenToppedUp_ResumedAtIsNow() public {
        _runDry(100);
        assertEq(payments.resumedAt(account), 0);
        _fund(FUNDS);
        assertEq(payments.resumedAt(account), block.timestamp);
    }

    function test_WhenLastOfADryAccountEnds_ResumedAtIsNow() public {
        _stream(1, 7, 0, true);
        _runDry(100);
        vm.prank(payer);
        payments.closeStream(_idOf(1));
        assertEq(payments.resumedAt(account), 0, "one runs still");
        skip(5);
        vm.prank(payer);
        payments.closeStream(_id);
        assertEq(payments.resumedAt(account), block.timestamp);
    }

    function testFuzz_NothingIsLostOrMade(uint32 before, uint32 after_, uint40 clock, bool collects) public {
        skip(bound(before, 0, 30 days));
        if (collects) payments.collect(_only(_id));
        skip(bound(after_, 0, 30 days));
        uint256 taken = token.balanceOf(payee) * SCALE;
        clock = uint40(bound(clock, 0, 60 days));
        uint40 now_ = payments.account(account).clock;
        uint256 owed = payments.stream(_id).owed;
        uint256 back = _cut(_id, clock);
        assertEq(payments.account(account).free + payments.stream(_id).owed + taken, _funds);
        uint256 since = clock < now_ ? uint256(now_ - clock) * RATE : 0;
        assertEq(back, since < owed ? since : owed);
    }

    function _openAsKeeper(uint96 ref, bool start) private returns (StreamId) {
        vm.prank(keeper);
        return payments.openStream(account, ref, payee, RATE, LOCK, start);
    }

    function _cut(StreamId id, uint40 clock) private returns (uint128) {
        vm.prank(keeper);
        return payments.cutStream(id, clock);
    }
}
