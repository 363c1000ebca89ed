// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Leases } from "../../../src/Leases.sol";
import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// close
// ├── when the lease is neither pending nor active ─ reverts
// ├── when no reason is given ─ reverts
// ├── for a payer's reason
// │   ├── when the caller is not the payer ─ reverts
// │   └── else ─ ends it at any time, also dry; the coverage stays for the claim window if it ran
// ├── for a provider's reason
// │   ├── when the caller is not the provider ─ reverts
// │   ├── when pending, or after its notice ─ ends it
// │   └── when active without notice, or before its end ─ ends it, and part of the coverage is the payer's
// ├── because the start was missed
// │   ├── when it was not, or it is active ─ reverts
// │   └── else ─ anybody ends it
// ├── because the account is dry
// │   ├── when it is not, or not for longer than the lock, or the lease is pending ─ reverts
// │   └── else ─ anybody ends it
// └── because the stream was ended
//     ├── when it was not ─ reverts
//     └── else ─ anybody ends it
contract CloseTest is Base {
    ILeases.CloseReason private constant DONE = ILeases.CloseReason.PayerDone;
    ILeases.CloseReason private constant FAULT = ILeases.CloseReason.ProviderFault;
    ILeases.CloseReason private constant MISSED = ILeases.CloseReason.StartMissed;
    ILeases.CloseReason private constant DRY = ILeases.CloseReason.AccountDry;
    ILeases.CloseReason private constant ENDED = ILeases.CloseReason.StreamEnded;
    uint128 private constant PENALTY = COVERAGE / 5;

    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_RevertWhen_NeitherPendingNorActive() public {
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongState.selector, 1, ILeases.State.None));
        leases.close(LeaseId.wrap(1), DONE);
        vm.stopPrank();
        LeaseId id = _pending();
        vm.startPrank(payer);
        leases.close(id, DONE);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongState.selector, id, ILeases.State.Closed));
        leases.close(id, DONE);
    }

    function test_RevertWhen_NoReason() public {
        LeaseId id = _active();
        _expectRefused(id, ILeases.CloseReason.None, payer);
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.None);
    }

    function test_RevertWhen_PayersReasonIsSomebodyElses() public {
        LeaseId id = _active();
        address[2] memory callers = [provider.addr, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            for (uint8 r = 1; r <= uint8(ILeases.CloseReason.PayerUnsatisfied); ++r) {
                vm.expectRevert(
                    abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, id, account, callers[i])
                );
                vm.prank(callers[i]);
                leases.close(id, ILeases.CloseReason(r));
            }
        }
    }

    function test_WhenPayerClosesActive() public {
        LeaseId id = _active();
        skip(100);
        uint40 until = uint40(block.timestamp) + CLAIM_WINDOW;
        vm.expectEmit(address(leases));
        emit ILeases.Closed(id, provider.addr, payer, DONE, 0);
        vm.expectEmit(address(payments));
        emit IPayments.StreamClosed(_streamOf(id));
        vm.expectEmit(address(staking));
        emit IStaking.ReleaseSet(provider.addr, address(leases), LeaseId.unwrap(id), until);
        vm.prank(payer);
        leases.close(id, DONE);

        assertEq(leases.lease(id).state, ILeases.State.Closed);
        assertEq(leases.lease(id).endsAt, block.timestamp);
        assertFalse(leases.isSlotTaken(account, 0));
        assertEq(payments.stream(_streamOf(id)).owed, 100 * RATE);
        assertEq(payments.account(account).lockup, 0);
        assertEq(_lockOf(id).amount, COVERAGE);
        vm.warp(until);
        staking.unlock(provider.addr, address(leases), LeaseId.unwrap(id));
        assertEq(staking.bondOf(provider.addr).locked, 0);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    function test_WhenPayerClosesPending_CoverageIsFreeAtOnce() public {
        LeaseId id = _pending();
        vm.expectEmit(address(staking));
        emit IStaking.Unlocked(provider.addr, address(leases), LeaseId.unwrap(id), COVERAGE);
        vm.prank(payer);
        leases.close(id, DONE);
        assertEq(staking.bondOf(provider.addr).locked, 0);
        assertEq(payments.account(account).free, FUNDS * SCALE, "it cost nothing");
    }

    function test_WhenPayerClosesDry() public {
        LeaseId id = _active();
        _runDry(1 days);
        vm.prank(payer);
        leases.close(id, DONE);
        assertEq(leases.lease(id).state, ILeases.State.Closed);
    }

    function test_WhenPayerRevokedLeases_CanStillClose() public {
        LeaseId id = _active();
        vm.startPrank(payer);
        payments.approve(account, address(leases), 0, 0, 0, 0);
        leases.close(id, DONE);
        assertEq(payments.approval(account, address(leases)).rateUsed, 0);
    }

    function test_WhenAgentCloses() public {
        LeaseId id = _active();
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        vm.expectEmit(address(leases));
        emit ILeases.Closed(id, provider.addr, keeper, ILeases.CloseReason.PayerMoved, 0);
        vm.prank(keeper);
        leases.close(id, ILeases.CloseReason.PayerMoved);
    }

    function test_RevertWhen_ProvidersReasonIsSomebodyElses() public {
        LeaseId id = _active();
        address[2] memory callers = [payer, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotProvider.selector, id, callers[i]));
            vm.prank(callers[i]);
            leases.close(id, FAULT);
        }
    }

    function test_WhenProviderRefusesPending_NoPenalty() public {
        for (
            uint8 r = uint8(ILeases.CloseReason.ProviderDraining);
            r <= uint8(ILeases.CloseReason.Unhealthy);
            ++r
        ) {
            LeaseId id = _open(_quote(r), r);
            vm.expectEmit(address(leases));
            emit ILeases.Closed(id, provider.addr, provider.addr, ILeases.CloseReason(r), 0);
            vm.prank(provider.addr);
            leases.close(id, ILeases.CloseReason(r));
            assertEq(_lockOf(id).amount, 0);
        }
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    function test_WhenProviderLeavesAtOnce_PayerIsPaid() public {
        LeaseId id = _active();
        vm.expectEmit(address(leases));
        emit ILeases.Closed(id, provider.addr, provider.addr, FAULT, PENALTY);
        vm.expectEmit(address(staking));
        emit IStaking.Slashed(
            provider.addr,
            address(leases),
            LeaseId.unwrap(id),
            PENALTY,
            payer,
            PENALTY * 9 / 10,
            address(0),
            0
        );
        vm.prank(provider.addr);
        leases.close(id, FAULT);
        assertEq(staking.claimable(payer), PENALTY * 9 / 10);
        assertEq(staking.bondOf(provider.addr).bonded, BOND - PENALTY);
        assertEq(_lockOf(id).amount, COVERAGE - PENALTY, "the rest stays for claims");
        assertEq(_lockOf(id).releaseAt, block.timestamp + CLAIM_WINDOW);
    }

    function test_WhenProviderLeavesBeforeNoticeEnds_PayerIsPaid() public {
        LeaseId id = _active();
        vm.startPrank(provider.addr);
        leases.giveNotice(id, FAULT);
        vm.warp(leases.lease(id).endsAt - 1);
        leases.close(id, FAULT);
        assertEq(staking.claimable(payer), PENALTY * 9 / 10);
    }

    function test_WhenProviderLeavesAfterNotice_NoPenalty() public {
        LeaseId id = _active();
        vm.startPrank(provider.addr);
        leases.giveNotice(id, FAULT);
        vm.warp(leases.lease(id).endsAt);
        leases.close(id, FAULT);
        assertEq(staking.claimable(payer), 0);
        assertEq(_lockOf(id).amount, COVERAGE);
    }

    function test_WhenProviderLeavesWithoutCoverage_NothingToTake() public {
        ILeases.Quote memory quote = _quote(1);
        quote.coverage = 0;
        LeaseId id = _open(quote, 0);
        vm.startPrank(provider.addr);
        leases.activate(id);
        vm.recordLogs();
        leases.close(id, FAULT);
        assertEq(vm.getRecordedLogs().length, 2, "Leases and Payments");
    }

    function test_WhenAllOfCoverageIsThePenalty() public {
        leases = new Leases(payments, staking, registry, CLAIM_WINDOW, 10_000, _slaTerms());
        _allow(provider.addr, address(leases));
        _approve(address(leases), RATE, 0, LOCK);
        LeaseId id = _active();
        vm.prank(provider.addr);
        leases.close(id, FAULT);
        assertEq(_lockOf(id).amount, 0);
        assertEq(staking.bondOf(provider.addr).locked, 0);
        assertEq(staking.bondOf(provider.addr).bonded, BOND - COVERAGE);
    }

    function test_RevertWhen_StartWasNotMissed() public {
        LeaseId id = _pending();
        vm.warp(leases.lease(id).startBy);
        _expectRefused(id, MISSED, stranger);
        vm.prank(stranger);
        leases.close(id, MISSED);
        vm.prank(provider.addr);
        leases.activate(id);
        skip(1);
        _expectRefused(id, MISSED, stranger);
        vm.prank(stranger);
        leases.close(id, MISSED);
    }

    function test_WhenStartWasMissed() public {
        LeaseId id = _pending();
        vm.warp(leases.lease(id).startBy + 1);
        vm.expectEmit(address(leases));
        emit ILeases.Closed(id, provider.addr, stranger, MISSED, 0);
        vm.prank(stranger);
        leases.close(id, MISSED);
        assertEq(staking.bondOf(provider.addr).locked, 0);
        assertEq(payments.account(account).lockup, 0);
    }

    function test_RevertWhen_AccountIsNotDryForLongEnough() public {
        LeaseId id = _active();
        vm.warp(uint256(payments.account(account).fundedUntil) + LOCK);
        _expectRefused(id, DRY, stranger);
        vm.prank(stranger);
        leases.close(id, DRY);
        // A top-up in the last second saves it.
        _fund(FUNDS);
        skip(1);
        _expectRefused(id, DRY, stranger);
        vm.prank(stranger);
        leases.close(id, DRY);
    }

    function test_RevertWhen_PendingAndAccountCanPay() public {
        LeaseId id = _pending();
        _expectRefused(id, DRY, stranger);
        vm.prank(stranger);
        leases.close(id, DRY);
    }

    /// @dev The provider could not start it, so nobody may say that it did not want to.
    function test_WhenPendingAndAccountCannotStartToPay() public {
        LeaseId id = _pending();
        _stream(1, uint128(FUNDS * SCALE / 10), 0, true);
        skip(11);
        vm.prank(stranger);
        leases.close(id, DRY);
        assertEq(uint8(leases.lease(id).reason), uint8(DRY));
    }

    function test_WhenAccountIsDryForLongerThanLock() public {
        LeaseId id = _active();
        uint128 owed = uint128(FUNDS * SCALE / RATE) * RATE;
        vm.warp(uint256(payments.account(account).fundedUntil) + LOCK + 1);
        vm.expectEmit(address(leases));
        emit ILeases.Closed(id, provider.addr, stranger, DRY, 0);
        vm.prank(stranger);
        leases.close(id, DRY);
        assertEq(payments.stream(_streamOf(id)).owed, owed, "paid for every funded second");
    }

    function test_WhenOtherStreamsCloseMeanwhile_StillDry() public {
        LeaseId id = _active();
        _stream(1, 1_000_000 * RATE, 0, true);
        vm.warp(uint256(payments.account(account).fundedUntil) + LOCK + 1);
        // What is left of a second of both would last the lease alone for days.
        vm.prank(payer);
        payments.closeStream(_idOf(1));
        leases.close(id, DRY);
    }

    function test_RevertWhen_StreamWasNotEnded() public {
        LeaseId id = _active();
        _expectRefused(id, ENDED, stranger);
        vm.prank(stranger);
        leases.close(id, ENDED);
    }

    function test_WhenStreamWasEnded() public {
        LeaseId id = _active();
        skip(100);
        vm.prank(payer);
        payments.closeStream(_streamOf(id));
        assertTrue(leases.isSlotTaken(account, 0));
        vm.expectEmit(address(leases));
        emit ILeases.Closed(id, provider.addr, stranger, ENDED, 0);
        vm.prank(stranger);
        leases.close(id, ENDED);
        assertFalse(leases.isSlotTaken(account, 0));
        assertEq(payments.stream(_streamOf(id)).owed, 100 * RATE);
        assertEq(_lockOf(id).releaseAt, block.timestamp + CLAIM_WINDOW);
    }

    function testFuzz_PenaltyIsAtMostItsShare(uint128 coverage) public {
        coverage = uint128(bound(coverage, 0, BOND));
        ILeases.Quote memory quote = _quote(1);
        quote.coverage = coverage;
        LeaseId id = _open(quote, 0);
        vm.startPrank(provider.addr);
        leases.activate(id);
        leases.close(id, FAULT);
        uint256 penalty = BOND - staking.bondOf(provider.addr).bonded;
        assertEq(penalty, uint256(coverage) * EARLY_CLOSE_BPS / 10_000);
        assertEq(staking.claimable(payer) + staking.burned(), penalty);
    }

    function testFuzz_OnlyTheRightOneCloses(uint8 reason, uint8 who, bool active, uint32 secs) public {
        reason = uint8(bound(reason, 1, uint8(ILeases.CloseReason.Unhealthy)));
        address[3] memory callers = [payer, provider.addr, stranger];
        LeaseId id = active ? _active() : _pending();
        skip(secs);
        bool payers = reason <= uint8(ILeases.CloseReason.PayerUnsatisfied);
        address allowed = payers ? payer : provider.addr;
        address caller = callers[who % 3];
        if (caller != allowed) vm.expectRevert();
        vm.prank(caller);
        leases.close(id, ILeases.CloseReason(reason));
    }

    function test_RevertWhen_PendingAccountHasJustTheLockup() public {
        LeaseId id = _pending();
        IPayments.AccountView memory a = payments.account(account);
        vm.prank(payer);
        payments.withdraw(account, payer, (a.free - a.lockup) / SCALE);
        // Down to the last unit, which no token can be withdrawn for.
        a = payments.account(account);
        uint128 rest = a.free - a.lockup;
        if (rest != 0) {
            vm.prank(payer);
            payments.openStream(account, 1, payee, rest, 1, false);
        }
        a = payments.account(account);
        assertEq(a.free, a.lockup);
        vm.expectRevert(
            abi.encodeWithSelector(
                ILeases.Leases_ReasonRefused.selector, id, ILeases.CloseReason.AccountDry, address(this)
            )
        );
        leases.close(id, ILeases.CloseReason.AccountDry);
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function _expectRefused(LeaseId id, ILeases.CloseReason reason, address caller) private {
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ReasonRefused.selector, id, reason, caller));
    }
}
