// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { ISla } from "../../../src/interfaces/ISla.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { TestToken } from "../../tokens/TestToken.sol";
import { Watchers } from "./Watchers.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

// challenge
// ├── when the lease is pending, closed, costs nothing, or gives no time to answer ─ reverts
// ├── when the caller is not the payer or an agent ─ reverts
// ├── when the account is dry ─ reverts
// ├── when one is open, or the last was too short ago ─ reverts
// ├── when the token brings less ─ reverts
// └── else ─ takes the bond and notes the account's clock
// answer
// ├── when none is open ─ reverts
// ├── when the caller is not the provider ─ reverts
// ├── when the time is over ─ reverts
// └── else ─ the provider can claim the bond, whatever the token does
// resolve
// ├── when none is open ─ reverts
// ├── when there is time to answer ─ reverts
// ├── when the lease was closed in time ─ judges nothing, and gives the bond back
// ├── when the provider left after the time was over ─ takes the coverage
// ├── when it left so long ago that nothing can be claimed ─ gives the bond back
// └── else ─ takes the coverage and closes the lease, unpaid from the challenge on
// claim
// ├── when there is nothing, or nobody to send it to ─ reverts
// └── else ─ sends it, once
// multicall
// ├── when one of the calls reverts ─ reverts with its reason, and nothing of the others stays
// └── else ─ makes all of them for the caller
contract ChallengeTest is Watchers {
    uint40 private constant RESPONSE = 5 minutes;

    function test_RevertWhen_NotRunning() public {
        LeaseId pending = _open(_quote(7), 7);
        vm.startPrank(payer);
        _expectNotRunning(pending);
        sla.challenge(pending);
        leases.close(_lease, ILeases.CloseReason.PayerDone);
        _expectNotRunning(_lease);
        sla.challenge(_lease);
        _expectNotRunning(LeaseId.wrap(99));
        sla.challenge(LeaseId.wrap(99));
    }

    function test_RevertWhen_CostsNothing() public {
        _expectNotRunning(_runs(0, uint24(RESPONSE)));
        vm.prank(payer);
        sla.challenge(LeaseId.wrap(2));
    }

    function test_RevertWhen_NoTimeToAnswer() public {
        _expectNotRunning(_runs(RATE, 0));
        vm.prank(payer);
        sla.challenge(LeaseId.wrap(2));
    }

    function test_RevertWhen_StreamWasEnded() public {
        vm.startPrank(payer);
        payments.closeStream(_streamOf(_lease));
        _expectNotRunning(_lease);
        sla.challenge(_lease);
    }

    function test_RevertWhen_NotPayer() public {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NotPayer.selector, _lease, provider.addr));
        vm.prank(provider.addr);
        sla.challenge(_lease);
    }

    function test_RevertWhen_Dry() public {
        _runDry(1);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_Dry.selector, _lease));
        vm.prank(payer);
        sla.challenge(_lease);
    }

    function test_WhenChallengedInTheLastSecondThatIsPaid() public {
        _runDry(0);
        _challenge();
        assertEq(sla.challengeOf(_lease).since, block.timestamp);
    }

    function test_RevertWhen_OneIsOpen() public {
        _challenge();
        skip(2 days);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_TooSoon.selector, _lease, type(uint40).max));
        vm.prank(payer);
        sla.challenge(_lease);
    }

    function test_RevertWhen_TooSoonAfterTheLast() public {
        uint40 from = uint40(block.timestamp) + 1 hours;
        _challenge();
        _answer();
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_TooSoon.selector, _lease, from));
        vm.prank(payer);
        sla.challenge(_lease);
        vm.warp(from);
        _challenge();
        assertEq(sla.challengeOf(_lease).since, from);
    }

    function test_RevertWhen_TokenBringsLess() public {
        HostileToken bad = _withHostileToken();
        bad.setTrick(HostileToken.Trick.TakesFee);
        bad.mint(payer, CHALLENGE_BOND);
        vm.startPrank(payer);
        bad.approve(address(sla), CHALLENGE_BOND);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISla.Sla_WrongAmountReceived.selector,
                CHALLENGE_BOND,
                CHALLENGE_BOND - CHALLENGE_BOND / 100 - 1
            )
        );
        sla.challenge(_lease);
    }

    function test_WhenChallenged_ByAnAgentToo() public {
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        token.mint(keeper, CHALLENGE_BOND);
        uint40 clock = payments.account(account).clock;
        vm.startPrank(keeper);
        token.approve(address(sla), CHALLENGE_BOND);
        vm.expectEmit(address(sla));
        emit ISla.Challenged(_lease, keeper, uint40(block.timestamp) + RESPONSE, clock);
        sla.challenge(_lease);
        ISla.Challenge memory c = sla.challengeOf(_lease);
        assertEq(
            abi.encode(c.challenger, c.since, c.clock), abi.encode(keeper, uint40(block.timestamp), clock)
        );
        assertEq(token.balanceOf(address(sla)), CHALLENGE_BOND);
    }

    function test_RevertWhen_NothingToAnswer() public {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoChallenge.selector, _lease));
        sla.answer(_lease);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoChallenge.selector, _lease));
        sla.resolve(_lease);
    }

    function test_RevertWhen_AnsweredBySomebodyElse() public {
        _challenge();
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NotProvider.selector, _lease, payer));
        vm.prank(payer);
        sla.answer(_lease);
    }

    function test_RevertWhen_AnsweredTooLate() public {
        uint40 deadline = uint40(block.timestamp) + RESPONSE;
        _challenge();
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_TooLate.selector, _lease, deadline));
        _answer();
    }

    function test_WhenAnsweredInTheLastSecond() public {
        _challenge();
        skip(RESPONSE);
        vm.expectEmit(address(sla));
        emit ISla.Answered(_lease, provider.addr, CHALLENGE_BOND);
        _answer();
        assertEq(sla.challengeOf(_lease).challenger, address(0));
        assertEq(sla.claimable(provider.addr), CHALLENGE_BOND);
        assertEq(_state(), ILeases.State.Active);
        assertEq(_coverage(), COVERAGE);
    }

    function test_RevertWhen_OneOfSeveralAnswersReverts() public {
        _challenge();
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(sla.answer, (_lease));
        calls[1] = abi.encodeCall(sla.answer, (LeaseId.wrap(2)));
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoChallenge.selector, LeaseId.wrap(2)));
        vm.prank(provider.addr);
        sla.multicall(calls);
        assertEq(sla.challengeOf(_lease).challenger, payer);
        assertEq(sla.claimable(provider.addr), 0);
    }

    function test_WhenSeveralAreAnsweredAtOnce() public {
        LeaseId other = _runs(RATE, uint24(RESPONSE));
        _challenge();
        token.mint(payer, CHALLENGE_BOND);
        vm.startPrank(payer);
        token.approve(address(sla), CHALLENGE_BOND);
        sla.challenge(other);
        vm.stopPrank();
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(sla.answer, (_lease));
        calls[1] = abi.encodeCall(sla.answer, (other));
        vm.prank(provider.addr);
        sla.multicall(calls);
        assertEq(sla.challengeOf(_lease).challenger, address(0));
        assertEq(sla.challengeOf(other).challenger, address(0));
        assertEq(sla.claimable(provider.addr), 2 * CHALLENGE_BOND);
    }

    /// @dev An amendment that the payer kept back must not shorten the time to answer.
    function test_WhenAmendedMeanwhile_TheTimeToAnswerStays() public {
        ILeases.Quote memory quote = _quote(7);
        (quote.lease, quote.response) = (_lease, 1);
        bytes memory signature = _sign(quote);
        _challenge();
        vm.prank(payer);
        leases.amend(_lease, quote, signature);
        skip(10);
        vm.expectRevert();
        sla.resolve(_lease);
        _answer();
    }

    function test_RevertWhen_ThereIsTime() public {
        uint40 deadline = uint40(block.timestamp) + RESPONSE;
        _challenge();
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_StillOpen.selector, _lease, deadline));
        sla.resolve(_lease);
    }

    function test_WhenClosedInTime() public {
        _challenge();
        skip(RESPONSE);
        vm.prank(provider.addr);
        leases.close(_lease, ILeases.CloseReason.ProviderFault);
        uint128 coverage = _coverage();
        vm.expectEmit(address(sla));
        emit ISla.Resolved(_lease, payer, false, 0);
        sla.resolve(_lease);
        assertEq(sla.claimable(payer), CHALLENGE_BOND);
        assertEq(_coverage(), coverage);
    }

    function test_WhenProviderLeavesAfterTheDeadline() public {
        _challenge();
        skip(RESPONSE + 1);
        vm.prank(provider.addr);
        leases.close(_lease, ILeases.CloseReason.ProviderFault);
        uint128 coverage = _coverage();
        uint256 before = staking.claimable(payer);
        vm.expectEmit(address(sla));
        emit ISla.Resolved(_lease, payer, true, coverage);
        sla.resolve(_lease);
        assertEq(staking.claimable(payer) - before, _lessBurn(coverage, 0));
        assertEq(_coverage(), 0);
    }

    function test_WhenProviderLeftLongAgo() public {
        _challenge();
        skip(RESPONSE + 1);
        vm.prank(provider.addr);
        leases.close(_lease, ILeases.CloseReason.ProviderFault);
        skip(CLAIM_WINDOW);
        vm.expectEmit(address(sla));
        emit ISla.Resolved(_lease, payer, true, 0);
        sla.resolve(_lease);
        assertEq(sla.claimable(payer), CHALLENGE_BOND);
    }

    function test_WhenDark() public {
        payments.collect(_only(_streamOf(_lease)));
        skip(100);
        uint256 owed = payments.stream(_streamOf(_lease)).owed;
        uint256 free = payments.account(account).free;
        uint40 clock = payments.account(account).clock;
        _challenge();
        skip(RESPONSE + 1);
        vm.expectEmit(address(sla));
        emit ISla.Resolved(_lease, payer, true, COVERAGE);
        vm.expectEmit(address(leases));
        emit ILeases.Closed(_lease, provider.addr, address(sla), ILeases.CloseReason.WentDark, 0);
        vm.expectEmit(address(payments));
        emit IPayments.StreamCut(_streamOf(_lease), uint128(RATE) * (RESPONSE + 1));
        vm.prank(stranger);
        sla.resolve(_lease);
        assertEq(payments.stream(_streamOf(_lease)).owed, owed, "paid up to the challenge");
        assertEq(payments.account(account).free, free, "and not for what came after");
        assertGt(payments.account(account).clock, clock);
        assertEq(staking.claimable(payer), _lessBurn(COVERAGE, 0));
        assertEq(_coverage(), 0);
        assertEq(leases.lease(_lease).endsAt, block.timestamp);
        assertFalse(leases.isSlotTaken(account, 0));
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoChallenge.selector, _lease));
        sla.resolve(_lease);
    }

    function test_WhenDarkAndCollectedMeanwhile_NothingMoreGoesBack() public {
        _challenge();
        skip(RESPONSE + 1);
        payments.collect(_only(_streamOf(_lease)));
        uint256 owed = payments.stream(_streamOf(_lease)).owed;
        uint256 free = payments.account(account).free;
        sla.resolve(_lease);
        assertEq(payments.stream(_streamOf(_lease)).owed, 0);
        assertEq(payments.account(account).free, free + owed);
    }

    function test_WhenDarkWithoutCoverage() public {
        ILeases.Quote memory quote = _quote(8);
        quote.coverage = 0;
        _lease = _open(quote, 8);
        vm.prank(provider.addr);
        leases.activate(_lease);
        _challenge();
        skip(RESPONSE + 1);
        sla.resolve(_lease);
        assertEq(leases.lease(_lease).state, ILeases.State.Closed);
        assertEq(staking.claimable(payer), 0);
    }

    /// @dev Who pays no more has ended it; what was asked while it paid has to be answered for all that.
    function test_WhenStreamIsEndedAfterTheChallenge() public {
        _challenge();
        vm.prank(payer);
        payments.closeStream(_streamOf(_lease));
        skip(RESPONSE);
        vm.prank(provider.addr);
        leases.close(_lease, ILeases.CloseReason.StreamEnded);
        sla.resolve(_lease);
        assertEq(staking.claimable(payer), 0);
        assertEq(sla.claimable(payer), CHALLENGE_BOND);
    }

    function test_WhenStreamIsEndedAndNobodyAnswers() public {
        _challenge();
        vm.prank(payer);
        payments.closeStream(_streamOf(_lease));
        skip(RESPONSE + 1);
        sla.resolve(_lease);
        assertEq(uint8(leases.lease(_lease).reason), uint8(ILeases.CloseReason.WentDark));
        assertEq(staking.claimable(payer), _lessBurn(COVERAGE, 0));
    }

    function test_RevertWhen_NothingToClaim() public {
        vm.expectRevert(ISla.Sla_Nothing.selector);
        sla.claim(address(this));
        _challenge();
        _answer();
        vm.expectRevert(ISla.Sla_Nothing.selector);
        vm.prank(provider.addr);
        sla.claim(address(0));
    }

    function test_WhenClaimed() public {
        _challenge();
        _answer();
        vm.expectEmit(address(sla));
        emit ISla.Claimed(provider.addr, payee, CHALLENGE_BOND);
        vm.startPrank(provider.addr);
        sla.claim(payee);
        assertEq(token.balanceOf(payee), CHALLENGE_BOND);
        vm.expectRevert(ISla.Sla_Nothing.selector);
        sla.claim(payee);
    }

    /// @dev A token that sends nothing to a provider must not cost it its coverage.
    function test_WhenTokenBlocksTheProvider_ItAnswersAllTheSame() public {
        HostileToken bad = _withHostileToken();
        _challengeWith(bad);
        bad.setBlocked(provider.addr);
        _answer();
        vm.expectRevert(abi.encodeWithSelector(HostileToken.Blocked.selector, provider.addr));
        vm.prank(provider.addr);
        sla.claim(provider.addr);
        vm.prank(provider.addr);
        sla.claim(payee);
        assertEq(bad.balanceOf(payee), CHALLENGE_BOND);
    }

    function test_WhenTokenBlocksThePayer_TheChallengeIsResolved() public {
        HostileToken bad = _withHostileToken();
        _challengeWith(bad);
        bad.setBlocked(payer);
        skip(RESPONSE + 1);
        sla.resolve(_lease);
        assertEq(uint8(leases.lease(_lease).reason), uint8(ILeases.CloseReason.WentDark));
    }

    function test_WhenTokenReenters_NothingIsSentTwice() public {
        HostileToken bad = _withHostileToken();
        _challengeWith(bad);
        _answer();
        bad.setReentry(address(sla), abi.encodeCall(sla.claim, (payee)), false);
        vm.prank(provider.addr);
        sla.claim(payee);
        assertFalse(bad.reentered());
        assertEq(bad.balanceOf(payee), CHALLENGE_BOND);
    }

    function testFuzz_APayerIsNeverPaidForMoreThanItsProviderHas(uint24 response, uint32 wait, bool collects)
        public
    {
        response = uint24(bound(response, 1, 1 days));
        _runs(RATE, response);
        _lease = LeaseId.wrap(2);
        _challenge();
        uint256 free = payments.account(account).free;
        skip(bound(wait, 0, 2 days));
        if (collects) payments.collect(_only(_streamOf(_lease)));
        uint40 since = sla.challengeOf(_lease).since;
        if (block.timestamp <= since + response) vm.expectRevert();
        sla.resolve(_lease);
        if (block.timestamp <= since + response) return;
        uint256 other = payments.stream(_streamOf(LeaseId.wrap(1))).owed;
        assertLe(payments.account(account).free, free);
        assertLe(staking.claimable(payer), COVERAGE);
        assertLe(other, uint256(RATE) * payments.account(account).clock);
    }

    function _runs(uint128 rate, uint24 response) private returns (LeaseId id) {
        ILeases.Quote memory quote = _quote(9);
        (quote.rate, quote.response) = (rate, response);
        id = _open(quote, 9);
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function _answer() private {
        vm.prank(provider.addr);
        sla.answer(_lease);
    }

    function _challengeWith(HostileToken bad) private {
        bad.mint(payer, CHALLENGE_BOND);
        vm.startPrank(payer);
        bad.approve(address(sla), CHALLENGE_BOND);
        sla.challenge(_lease);
        vm.stopPrank();
    }

    /// @dev The same market over a token that can misbehave.
    function _withHostileToken() private returns (HostileToken bad) {
        bad = new HostileToken();
        token = TestToken(address(bad));
        _deploy(IERC20(address(bad)));
        _market();
        _lease = _active();
    }

    function _expectNotRunning(LeaseId id) private {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NotRunning.selector, id));
    }
}
