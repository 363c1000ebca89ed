// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Sla } from "../../../src/Sla.sol";
import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { ISla } from "../../../src/interfaces/ISla.sol";
import { Curve } from "../../../src/libraries/Curve.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { ContractProvider } from "../../ContractProvider.sol";
import { Watchers } from "./Watchers.sol";

// report
// ├── when fewer than a quorum signed, or not as many as are named ─ reverts
// ├── when the epoch was not opened ─ reverts
// ├── when members are not in rising order, or there is no such seat, or nobody in it, or a liar ─ reverts
// ├── when a signature is another's, for another lease, time, chain or contract, or says that it was up ─ reverts
// ├── when the times are not of one epoch, are in future, or too long ago ─ reverts
// ├── when it lies before the start, or after the end, of the lease, or the claim window is over ─ reverts
// ├── when the stream was ended in Payments ─ reverts
// ├── when the account was dry then, whatever happened since ─ reverts
// ├── when it is not after what was reported before ─ reverts
// ├── when short ─ takes nothing
// ├── when longer ─ takes what the curve says, pays the payer, and sets the witnesses' reward aside
// ├── when closely after another ─ counts as one with it, and takes what is missing
// ├── when the account was dry between them, or they are far apart ─ counts anew
// ├── when as long as it can cost ─ takes all and closes the lease, unpaid from when it went dark
// └── when nothing of the coverage is left ─ takes nothing
// reward
// ├── when there is none, or it was sent ─ reverts
// ├── when the watcher left ─ is its own all the same
// └── when it lied ─ is nobody's
contract ReportTest is Watchers {
    uint24 private constant GRACE = 1 minutes;
    uint24 private constant FULL = 1 hours;

    function test_RevertWhen_NoQuorum() public {
        uint40 from = _begin();
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 600, 4);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoQuorum.selector, 4, 5));
        sla.report(_lease, from, from + 600, members, signatures);
        (members,) = _signed(from, from + 600, 6);
        (, signatures) = _signed(from, from + 600, 5);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoQuorum.selector, 6, 5));
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_EpochWasNotOpened() public {
        (uint8[] memory members, bytes[] memory signatures) = _signed(_begin(), _begin() + 600, 5);
        uint40 from = _begin() - EPOCH;
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoCommittee.selector, from / EPOCH));
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_MembersAreNotRising() public {
        uint40 from = _begin();
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 600, 5);
        members[1] = 0;
        signatures[1] = signatures[0];
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadMember.selector, 0));
        sla.report(_lease, from, from + 600, members, signatures);
        members[1] = 7;
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadMember.selector, 7));
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_ASeatIsEmpty() public {
        // Two leave: from the next epoch on seven are left, and one of them joined a moment ago.
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(_watchers[i].addr);
            sla.leave();
        }
        vm.warp(_begin() + EPOCH);
        vm.prank(_watchers[0].addr);
        sla.join();
        sla.openEpoch();
        skip(EPOCH / 2);
        address[] memory all = _committee();
        uint8 empty;
        while (all[empty] != address(0)) ++empty;
        uint40 from = _begin();
        uint8[] memory members = new uint8[](5);
        bytes[] memory signatures = new bytes[](5);
        uint8 next = empty < 5 ? 0 : empty - 4;
        for (uint256 i = 0; i < 5; ++i) {
            members[i] = next++;
            if (members[i] == empty) continue;
            signatures[i] = _say(all[members[i]], ISla.Statement(_lease, from, from + 600, false));
        }
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadMember.selector, empty));
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_SignedSomethingElse() public {
        uint40 from = _begin();
        ISla.Statement memory s = ISla.Statement(_lease, from, from + 600, false);
        _refuse(ISla.Statement(_lease, from, from + 600, true), s);
        _refuse(ISla.Statement(LeaseId.wrap(9), from, from + 600, false), s);
        _refuse(ISla.Statement(_lease, from + 1, from + 600, false), s);
        _refuse(ISla.Statement(_lease, from, from + 601, false), s);
    }

    function test_RevertWhen_SignedByAnother() public {
        uint40 from = _begin();
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 600, 5);
        signatures[3] = signatures[2];
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadSignature.selector, _committee()[3]));
        sla.report(_lease, from, from + 600, members, signatures);
    }

    /// @dev Neither what was signed for another chain nor for another deployment counts here.
    function test_RevertWhen_SignedForAnotherChainOrContract() public {
        uint40 from = _begin();
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 600, 5);
        uint256 chain = block.chainid;
        vm.chainId(chain + 1);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadSignature.selector, _committee()[0]));
        sla.report(_lease, from, from + 600, members, signatures);
        vm.chainId(chain);
        Sla other = new Sla(leases, payments, staking, CLAIM_WINDOW, _slaTerms());
        ISla.Statement memory s = ISla.Statement(_lease, from, from + 600, false);
        assertTrue(other.digest(s) != sla.digest(s));
    }

    function test_RevertWhen_TimesAreNoOutage() public {
        uint40 from = _begin();
        _expectBadTimes(from + 10, from + 10);
        _expectBadTimes(from + 10, from + 9);
        _expectBadTimes(from, uint40(block.timestamp) + 1);
        skip(EPOCH);
        _expectBadTimes(from + EPOCH - 1, from + EPOCH + 1);
        _report(from + EPOCH / 2, from + EPOCH);
    }

    function test_RevertWhen_TooLongAgo() public {
        uint40 from = _begin();
        vm.warp(from + 600 + CLAIM_WINDOW + 1);
        _expectBadTimes(from, from + 600);
        vm.warp(from + 600 + CLAIM_WINDOW);
        _report(from, from + 600);
    }

    function test_RevertWhen_BeforeTheStart() public {
        LeaseId first = _lease;
        _lease = _open(_quote(5), 5);
        uint40 from = _begin();
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 600, 5);
        _expectNotRunning();
        sla.report(_lease, from, from + 600, members, signatures);
        vm.prank(provider.addr);
        leases.activate(_lease);
        _expectNotRunning();
        sla.report(_lease, from, from + 600, members, signatures);
        assertEq(sla.outageOf(first).to, 0);
    }

    function test_RevertWhen_AfterTheEnd() public {
        uint40 from = _begin() + 1000;
        vm.warp(from + 100);
        vm.prank(payer);
        leases.close(_lease, ILeases.CloseReason.PayerDone);
        skip(200);
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 101, 5);
        _expectNotRunning();
        sla.report(_lease, from, from + 101, members, signatures);
        _report(from, from + 100);
    }

    function test_RevertWhen_ClaimWindowIsOver() public {
        uint40 from = _begin();
        uint40 to = from + EPOCH / 2;
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, to, 5);
        vm.prank(payer);
        leases.close(_lease, ILeases.CloseReason.PayerDone);
        vm.warp(block.timestamp + CLAIM_WINDOW);
        _expectNotRunning();
        sla.report(_lease, from, to, members, signatures);
        vm.warp(block.timestamp - 1);
        sla.report(_lease, from, to, members, signatures);
        assertLt(_coverage(), COVERAGE);
    }

    /// @dev A payer that ends the stream behind the back of Leases pays no more, and is owed nothing.
    function test_RevertWhen_StreamWasEnded() public {
        uint40 from = _begin();
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, from + 600, 5);
        vm.startPrank(payer);
        payments.closeStream(_streamOf(_lease));
        _expectNotRunning();
        sla.report(_lease, from, from + 600, members, signatures);
        leases.close(_lease, ILeases.CloseReason.PayerDone);
        assertEq(uint8(leases.lease(_lease).reason), uint8(ILeases.CloseReason.StreamEnded));
        _expectNotRunning();
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_Dry() public {
        (uint8[] memory members, bytes[] memory signatures, uint40 from) = _dry();
        _expectDry();
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_DryAndToppedUpSince() public {
        (uint8[] memory members, bytes[] memory signatures, uint40 from) = _dry();
        _fund(FUNDS);
        _expectDry();
        sla.report(_lease, from, from + 600, members, signatures);
        from = uint40(block.timestamp);
        skip(600);
        _report(from, from + 600);
        assertGt(sla.outageOf(_lease).total, 0, "from the top-up on it counts");
    }

    /// @dev Closing the lease leaves an account that nothing runs on, which is no longer dry.
    function test_RevertWhen_DryAndClosedSince() public {
        (uint8[] memory members, bytes[] memory signatures, uint40 from) = _dry();
        vm.prank(payer);
        leases.close(_lease, ILeases.CloseReason.PayerDone);
        assertEq(payments.account(account).fundedUntil, type(uint40).max);
        _expectDry();
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_DryAndClosedWhileAnotherRuns() public {
        _stream(1, 1_000, 0, true);
        (uint8[] memory members, bytes[] memory signatures, uint40 from) = _dry();
        vm.prank(payer);
        leases.close(_lease, ILeases.CloseReason.PayerDone);
        _expectDry();
        sla.report(_lease, from, from + 600, members, signatures);
    }

    function test_RevertWhen_NotAfterWhatWasReported() public {
        uint40 from = _begin();
        _report(from + 100, from + 600);
        _expectBadTimes(from + 100, from + 600);
        _expectBadTimes(from + 200, from + 599);
        _expectBadTimes(from + 99, from + 700);
        _report(from + 100, from + 601);
    }

    function test_WhenWithinGrace() public {
        uint40 from = _begin();
        vm.expectEmit(address(sla));
        emit ISla.Reported(_lease, from / EPOCH, from, from + GRACE, 0, 0, 0x1f);
        _report(from, from + GRACE);
        assertEq(_coverage(), COVERAGE);
        assertEq(sla.outageOf(_lease).to, from + GRACE);
    }

    function test_WhenLonger() public {
        uint40 from = _begin();
        uint128 due = Curve.due(COVERAGE, 1_000, GRACE, FULL);
        uint128 reward = due * 500 / 10_000 / 7 * 7;
        vm.expectEmit(address(sla));
        emit ISla.Reported(_lease, from / EPOCH, from, from + 1_000, due, reward, 0x7f);
        _report(from, from + 1_000, 7);
        assertEq(_coverage(), COVERAGE - due);
        assertEq(staking.claimable(payer), _lessBurn(due, reward));
        assertEq(staking.claimable(address(sla)), reward);
        ISla.Outage memory o = sla.outageOf(_lease);
        assertEq(abi.encode(o.from, o.to, o.due, o.total), abi.encode(from, from + 1_000, due, due));
        assertEq(_state(), ILeases.State.Active);
    }

    function test_WhenCloselyAfterAnother_CountsAsOne() public {
        uint40 from = _begin();
        _report(from, from + 600);
        uint128 first = sla.outageOf(_lease).due;
        _report(from + 900, from + 1_200);
        uint128 due = Curve.due(COVERAGE, 1_200, GRACE, FULL);
        assertEq(sla.outageOf(_lease).due, due);
        assertEq(_coverage(), COVERAGE - due);
        assertGt(due, 2 * first, "it is convex");
    }

    function test_WhenFarApart_CountsAnew() public {
        uint40 from = _begin();
        _report(from, from + 600);
        uint128 first = sla.outageOf(_lease).due;
        _report(from + 901, from + 1_201);
        uint128 due = Curve.due(COVERAGE, 300, GRACE, FULL);
        ISla.Outage memory o = sla.outageOf(_lease);
        assertEq(abi.encode(o.from, o.due, o.total), abi.encode(from + 901, due, first + due));
        assertEq(_coverage(), COVERAGE - first - due);
    }

    function test_WhenDryBetween_CountsAnew() public {
        (,, uint40 from) = _dry();
        uint40 dryAt = payments.account(account).fundedUntil;
        (uint8[] memory members, bytes[] memory signatures) = _signed(dryAt - 300, dryAt, 5);
        sla.report(_lease, dryAt - 300, dryAt, members, signatures);
        assertEq(from, dryAt);
        vm.warp(dryAt + 100);
        _fund(FUNDS);
        uint40 again = uint40(block.timestamp);
        vm.warp(again + 200);
        _report(again, again + 200);
        ISla.Outage memory o = sla.outageOf(_lease);
        assertEq(o.from, again);
        assertEq(o.due, Curve.due(COVERAGE, 200, GRACE, FULL));
        // It began in the very second in which the account was funded again, and goes on.
        skip(100);
        _report(again, again + 300);
        uint128 before = o.total;
        o = sla.outageOf(_lease);
        assertEq(
            o.total - before, Curve.due(COVERAGE, 300, GRACE, FULL) - Curve.due(COVERAGE, 200, GRACE, FULL)
        );
    }

    function test_WhenOverTwoEpochs_CountsAsOneAndCloses() public {
        uint40 from = _begin() + 1800;
        vm.warp(_begin() + EPOCH - 1);
        payments.collect(_only(_streamOf(_lease)));
        vm.warp(_begin() + EPOCH + 1);
        sla.openEpoch();
        skip(EPOCH - 2);
        uint40 next = _begin();
        _report(from, next);
        uint256 clock = payments.account(account).clock;
        uint256 free = payments.account(account).free;
        uint256 owed = payments.stream(_streamOf(_lease)).owed;
        vm.expectEmit(address(leases));
        emit ILeases.Closed(_lease, provider.addr, address(sla), ILeases.CloseReason.WentDark, 0);
        vm.expectEmit(address(payments));
        emit IPayments.StreamCut(_streamOf(_lease), uint128(owed));
        _report(next, next + 1800);
        assertEq(_coverage(), 0, "all of it");
        assertEq(sla.outageOf(_lease).total, COVERAGE);
        assertEq(payments.account(account).free, free + owed, "unpaid since it went dark");
        assertEq(payments.account(account).clock, clock);
        assertEq(uint8(leases.lease(_lease).reason), uint8(ILeases.CloseReason.WentDark));
    }

    /// @dev An outage that costs all takes what others before it have left, and no more.
    function test_WhenFullAfterAnother_TakesWhatIsLeft() public {
        uint40 from = _begin();
        vm.warp(from + EPOCH);
        sla.openEpoch();
        vm.warp(from + 2 * EPOCH - 1);
        _report(from, from + 600);
        _report(from + 1_000, from + EPOCH);
        _report(from + EPOCH, from + EPOCH + 3_000);
        assertEq(_coverage(), 0);
        assertEq(sla.outageOf(_lease).total, COVERAGE);
        assertLt(sla.outageOf(_lease).due, COVERAGE);
    }

    function test_WhenFull_PaidUpToTheMomentItWentDark() public {
        payments.collect(_only(_streamOf(_lease)));
        uint256 at = block.timestamp;
        uint40 from = uint40(at) + 100;
        vm.warp(_begin() + EPOCH);
        sla.openEpoch();
        uint40 next = _begin();
        vm.warp(next + 3_000);
        _report(from, next);
        uint256 dust = payments.stream(_streamOf(_lease)).owed - uint256(RATE) * (block.timestamp - at);
        _report(next, next + 3_000);
        assertEq(_state(), ILeases.State.Closed);
        assertEq(payments.stream(_streamOf(_lease)).owed, uint256(RATE) * 100 + dust);
    }

    function test_WhenNothingIsLeft_TakesNothing() public {
        _report(_begin(), _begin() + 1_700);
        _challenge();
        skip(301);
        sla.resolve(_lease);
        assertEq(_coverage(), 0);
        uint256 paid = staking.claimable(payer);
        _report(_begin(), _begin() + 1_750);
        assertEq(staking.claimable(payer), paid);
    }

    function test_WhenTheCoverageWasRaised_TheWholeCounts() public {
        _report(_begin(), _begin() + 600);
        uint128 first = sla.outageOf(_lease).due;
        ILeases.Quote memory quote = _quote(7);
        (quote.lease, quote.coverage) = (_lease, 2 * COVERAGE);
        bytes memory signature = _sign(quote);
        vm.prank(payer);
        leases.amend(_lease, quote, signature);
        _report(_begin(), _begin() + 601);
        assertEq(sla.outageOf(_lease).due, Curve.due(2 * COVERAGE + first, 601, GRACE, FULL));
    }

    function test_WhenFullIsZero_NothingIsEverDue() public {
        ILeases.Quote memory quote = _quote(7);
        (quote.full, quote.grace) = (0, 0);
        _lease = _open(quote, 7);
        vm.prank(provider.addr);
        leases.activate(_lease);
        uint40 from = uint40(block.timestamp);
        vm.warp(_begin() + EPOCH);
        _report(from, _begin());
        assertEq(_coverage(), COVERAGE);
        assertEq(_state(), ILeases.State.Active);
    }

    function test_WhenAWatcherIsAContract() public {
        Account memory owner = makeAccount("owner of a watcher");
        ContractProvider w = new ContractProvider(owner.addr);
        _bond(address(w), WATCHER_BOND);
        vm.startPrank(owner.addr);
        w.act(address(staking), abi.encodeCall(staking.setLocker, (address(sla), true)));
        w.act(address(sla), abi.encodeCall(sla.join, ()));
        vm.stopPrank();
        _keyOf[address(w)] = owner.key;
        // Until it is among the first five of a committee.
        do {
            _next();
        } while (!_isAmong(address(w), 5));
        _report(_begin(), _begin() + 1_000);
        assertLt(_coverage(), COVERAGE);
    }

    function test_RevertWhen_ALiarSigns() public {
        address liar = _committee()[4];
        ISla.Statement memory up = ISla.Statement(_lease, _begin(), _begin() + 600, true);
        ISla.Statement memory down = ISla.Statement(_lease, _begin(), _begin() + 600, false);
        sla.equivocated(liar, up, _say(liar, up), down, _say(liar, down));
        (uint8[] memory members, bytes[] memory signatures) = _signed(_begin(), _begin() + 600, 5);
        uint40 from = _begin();
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadMember.selector, 4));
        sla.report(_lease, from, from + 600, members, signatures);
    }

    // reward ----------------------------------------------------------------------------------------------------------

    function test_RevertWhen_ThereIsNoReward() public {
        bytes32 id = _rewarded();
        vm.expectRevert(ISla.Sla_Nothing.selector);
        sla.reward(id, 5);
        vm.expectRevert(ISla.Sla_Nothing.selector);
        sla.reward(id, 7);
        vm.expectRevert(ISla.Sla_Nothing.selector);
        sla.reward(bytes32(0), 0);
    }

    function test_WhenRewarded_EachHasItsShareOnce() public {
        bytes32 id = _rewarded();
        address[] memory all = _committee();
        uint256 share = staking.claimable(address(sla)) / 5;
        for (uint8 i = 0; i < 5; ++i) {
            vm.expectEmit(address(sla));
            emit ISla.Rewarded(id, all[i], share);
            sla.reward(id, i);
            assertEq(token.balanceOf(all[i]), share);
            vm.expectRevert(ISla.Sla_Nothing.selector);
            sla.reward(id, i);
        }
        assertEq(token.balanceOf(address(sla)), 0);
    }

    function test_WhenAWitnessLeft_ItHasItsShare() public {
        bytes32 id = _rewarded();
        address gone = _committee()[1];
        vm.prank(gone);
        sla.leave();
        _next();
        sla.reward(id, 1);
        assertGt(token.balanceOf(gone), 0);
    }

    function test_WhenAWitnessLied_NobodyHasItsShare() public {
        bytes32 id = _rewarded();
        address liar = _committee()[1];
        ISla.Statement memory up = ISla.Statement(_lease, 1, 3, true);
        ISla.Statement memory down = ISla.Statement(_lease, 2, 4, false);
        sla.equivocated(liar, up, _say(liar, up), down, _say(liar, down));
        sla.reward(id, 1);
        assertEq(token.balanceOf(liar), 0);
        assertGt(token.balanceOf(sla.NOBODY()), 0);
    }

    function testFuzz_MergedOutagesNeverCostMoreThanTheCoverage(
        uint16[6] memory lengths,
        uint16[6] memory gaps
    ) public {
        vm.warp(_begin() + EPOCH);
        sla.openEpoch();
        uint40 next = _begin();
        vm.warp(next + EPOCH);
        uint256 before = _coverage();
        for (uint256 i = 0; i < 6; ++i) {
            uint40 from = next + uint40(bound(gaps[i], i == 0 ? 0 : 1, 200));
            uint40 to = from + uint40(bound(lengths[i], 1, 350));
            _report(from, to);
            next = to;
            ISla.Outage memory o = sla.outageOf(_lease);
            assertEq(o.due, Curve.due(COVERAGE, o.to - o.from, GRACE, FULL), "as one of that length");
            assertEq(before - _coverage(), o.total);
        }
        assertLe(sla.outageOf(_lease).total, COVERAGE);
    }

    function _rewarded() private returns (bytes32) {
        _report(_begin(), _begin() + 1_000);
        return keccak256(abi.encode(_lease, _begin(), _begin() + 1_000));
    }

    function _isAmong(address who, uint256 first) private view returns (bool) {
        address[] memory all = _committee();
        for (uint256 i = 0; i < first; ++i) {
            if (all[i] == who) return true;
        }
        return false;
    }

    /// @dev An epoch in the middle of which the account runs dry, and an outage after that.
    function _dry() private returns (uint8[] memory members, bytes[] memory signatures, uint40 from) {
        uint256 most = payments.account(account).free - payments.account(account).lockup;
        vm.prank(payer);
        payments.withdraw(account, payer, most / SCALE);
        uint40 dryAt = payments.account(account).fundedUntil;
        vm.warp(dryAt / EPOCH * EPOCH);
        sla.openEpoch();
        from = dryAt;
        vm.warp(from + 600);
        (members, signatures) = _signed(from, from + 600, 5);
    }

    function _refuse(ISla.Statement memory signed, ISla.Statement memory said) private {
        (uint8[] memory members, bytes[] memory signatures) = _signed(said.from, said.to, 5);
        signatures[0] = _say(_committee()[0], signed);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadSignature.selector, _committee()[0]));
        sla.report(said.lease, said.from, said.to, members, signatures);
    }

    function _expectBadTimes(uint40 from, uint40 to) private {
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, to, 5);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadTimes.selector, from, to));
        sla.report(_lease, from, to, members, signatures);
    }

    function _expectNotRunning() private {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NotRunning.selector, _lease));
    }

    function _expectDry() private {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_Dry.selector, _lease));
    }
}
