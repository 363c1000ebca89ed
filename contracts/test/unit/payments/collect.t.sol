// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { StreamId, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

// collect
// ├── when a stream was never opened ─ reverts
// ├── when less than a base unit is owed ─ sends nothing, and it stays owed
// ├── when anybody calls ─ the payee has the money
// ├── when a stream is named twice ─ pays once
// ├── when the account is dry ─ pays what was funded and no more
// ├── when topped up after a gap ─ never pays for the gap
// ├── when the stream is closed ─ pays what it accrued
// └── when the token
//     ├── re-enters ─ reverts
//     ├── re-enters what is open to re-entry ─ pays once
//     └── blocks a payee ─ reverts, and the other streams are collected without it
contract CollectTest is Base {
    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
    }

    function test_RevertWhen_StreamWasNeverOpened() public {
        StreamId none = _idOf(7);
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_WrongState.selector, none, IPayments.StreamState.None)
        );
        payments.collect(_only(none));
    }

    function test_WhenLessThanABaseUnit() public {
        StreamId id = _stream(1, 400_000_000, 0, true);
        skip(2);
        vm.recordLogs();
        payments.collect(_only(id));
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(payments.stream(id).owed, 800_000_000);
        skip(1);
        vm.expectEmit(address(payments));
        emit IPayments.Collected(id, payee, 1);
        payments.collect(_only(id));
        assertEq(payments.stream(id).owed, 200_000_000);
        assertEq(token.balanceOf(payee), 1);
    }

    function test_WhenAnybodyCalls() public {
        StreamId id = _stream(1, true);
        skip(1000);
        uint256 amount = 1000 * RATE / SCALE;
        vm.expectEmit(address(payments));
        emit IPayments.Collected(id, payee, amount);
        vm.prank(stranger);
        payments.collect(_only(id));
        assertEq(token.balanceOf(payee), amount);
        assertEq(payments.stream(id).owed, 1000 * RATE - amount * SCALE);
        assertEq(payments.account(account).free, FUNDS * SCALE - 1000 * RATE);
    }

    function test_WhenManyAtOnce() public {
        StreamId[] memory ids = new StreamId[](10);
        for (uint96 i = 0; i < 10; ++i) {
            ids[i] = _stream(i, RATE * (i + 1), 0, true);
        }
        skip(1000);
        payments.collect(ids);
        uint256 expected;
        for (uint96 i = 0; i < 10; ++i) {
            expected += 1000 * uint256(RATE) * (i + 1) / SCALE;
        }
        assertEq(token.balanceOf(payee), expected);
    }

    function test_WhenNamedTwice_PaysOnce() public {
        StreamId[] memory ids = new StreamId[](2);
        (ids[0], ids[1]) = (_stream(1, true), _idOf(1));
        skip(1000);
        payments.collect(ids);
        assertEq(token.balanceOf(payee), 1000 * RATE / SCALE);
        payments.collect(ids);
        assertEq(token.balanceOf(payee), 1000 * RATE / SCALE);
    }

    function test_WhenDry_PaysWhatWasFunded() public {
        StreamId id = _stream(1, true);
        uint256 funded = FUNDS * SCALE / RATE;
        skip(funded + 30 days);
        payments.collect(_only(id));
        assertEq(token.balanceOf(payee), funded * RATE / SCALE);
        skip(30 days);
        payments.collect(_only(id));
        assertEq(token.balanceOf(payee), funded * RATE / SCALE);
    }

    function test_WhenToppedUpAfterGap_GapIsFree() public {
        StreamId id = _stream(1, true);
        uint256 funded = FUNDS * SCALE / RATE;
        skip(funded + 30 days);
        _fund(FUNDS);
        skip(100);
        payments.collect(_only(id));
        assertEq(token.balanceOf(payee), (funded + 100) * RATE / SCALE);
    }

    function test_WhenEveryStreamOfAccount_RunsDryInTheSameSecond() public {
        StreamId first = _stream(1, true);
        skip(12_345);
        StreamId second = _stream(2, 7 * RATE, 0, true);
        uint40 end = payments.account(account).fundedUntil;
        vm.warp(end);
        uint128 owed = payments.stream(first).owed;
        uint128 owedToo = payments.stream(second).owed;
        skip(1);
        assertEq(payments.stream(first).owed, owed);
        assertEq(payments.stream(second).owed, owedToo);
        assertEq(owed + owedToo + payments.account(account).free, FUNDS * SCALE);
    }

    function test_WhenClosed() public {
        StreamId id = _stream(1, true);
        skip(1000);
        vm.prank(payer);
        payments.closeStream(id);
        payments.collect(_only(id));
        assertEq(token.balanceOf(payee), 1000 * RATE / SCALE);
        assertEq(payments.stream(id).state, IPayments.StreamState.Closed);
    }

    function test_RevertWhen_TokenReenters() public {
        HostileToken hostile = _hostile();
        StreamId id = _stream(1, true);
        skip(1000);
        hostile.setReentry(address(payments), abi.encodeCall(payments.collect, (_only(id))), true);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        payments.collect(_only(id));
    }

    function test_WhenTokenClosesItsOwnStreamMidway_PaysOnce() public {
        HostileToken hostile = _hostile();
        // The token is an operator with a stream of its own and closes it while it is being collected.
        vm.prank(payer);
        payments.approve(account, address(hostile), RATE, 0, LOCK, type(uint40).max);
        vm.prank(address(hostile));
        StreamId id = payments.openStream(account, 1, payee, RATE, LOCK, true);
        skip(1000);
        hostile.setReentry(address(payments), abi.encodeCall(payments.closeStream, (id)), true);
        payments.collect(_only(id));
        assertTrue(hostile.reentered());
        hostile.setTrick(HostileToken.Trick.None);
        payments.collect(_only(id));
        assertEq(hostile.balanceOf(payee), 1000 * RATE / SCALE);
        assertEq(payments.account(account).free, FUNDS * SCALE - 1000 * RATE);
    }

    function test_RevertWhen_TokenBlocksPayee_OthersAreCollectedWithoutIt() public {
        HostileToken hostile = _hostile();
        StreamId[] memory both = new StreamId[](2);
        both[0] = _stream(1, true);
        vm.prank(payer);
        both[1] = payments.openStream(account, 2, stranger, RATE, LOCK, true);
        skip(1000);
        hostile.setBlocked(payee);
        vm.expectRevert(abi.encodeWithSelector(HostileToken.Blocked.selector, payee));
        payments.collect(both);
        payments.collect(_only(both[1]));
        assertEq(hostile.balanceOf(stranger), 1000 * RATE / SCALE);
        // The payer is not held up either.
        vm.startPrank(payer);
        payments.closeStream(both[0]);
        payments.closeStream(both[1]);
        payments.withdraw(account, payer, payments.account(account).free / SCALE);
    }

    function testFuzz_HowOftenDoesNotMatter(uint32[5] memory gaps, uint128 rate) public {
        rate = uint128(bound(rate, 1, 20 * SCALE));
        StreamId id = _stream(1, rate, 0, true);
        uint256 secs;
        for (uint256 i = 0; i < gaps.length; ++i) {
            uint256 gap = bound(gaps[i], 0, 60 days);
            skip(gap);
            secs += gap;
            payments.collect(_only(id));
        }
        uint256 funded = FUNDS * SCALE / rate;
        uint256 earned = (secs < funded ? secs : funded) * rate;
        assertEq(token.balanceOf(payee), earned / SCALE, "rounded once, not five times");
        assertEq(payments.stream(id).owed, earned % SCALE);
    }

    function _hostile() private returns (HostileToken hostile) {
        hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), FUNDS);
        hostile.approve(address(payments), FUNDS);
        payments.deposit(payer, SALT, FUNDS);
    }
}
