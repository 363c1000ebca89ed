// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// amend
// ├── when the lease is neither pending nor active ─ reverts
// ├── when the caller is not the payer ─ reverts
// ├── when the quote is another provider's, for another lease, expired, used or forged ─ reverts
// ├── when it lowers the coverage ─ reverts
// ├── when the account does not cover the new lockup ─ reverts
// ├── when active ─ goes on at the new price and terms, with what accrued still owed
// ├── when pending ─ will start at the new price, by the old time
// └── when the coverage is raised ─ locks the difference
contract AmendTest is Base {
    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_RevertWhen_NeitherPendingNorActive() public {
        LeaseId none = LeaseId.wrap(7);
        ILeases.Quote memory quote = _amendment(none);
        _expectWrongState(none, ILeases.State.None);
        this.amend(none, quote);
        LeaseId id = _active();
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.PayerDone);
        quote = _amendment(id);
        _expectWrongState(id, ILeases.State.Closed);
        this.amend(id, quote);
    }

    function test_RevertWhen_CallerIsNotPayer() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        bytes memory signature = _sign(quote);
        address[2] memory callers = [provider.addr, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, id, account, callers[i]));
            vm.prank(callers[i]);
            leases.amend(id, quote, signature);
        }
    }

    function test_RevertWhen_QuoteIsAnotherProviders() public {
        LeaseId id = _active();
        Account memory other = makeAccount("other");
        vm.prank(other.addr);
        registry.list(_listing());
        ILeases.Quote memory quote = _amendment(id);
        quote.provider = other.addr;
        bytes memory signature = _sign(quote, other.key);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotProvider.selector, id, other.addr));
        vm.prank(payer);
        leases.amend(id, quote, signature);
    }

    function test_RevertWhen_QuoteIsForAnotherLease() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(LeaseId.wrap(2));
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongLease.selector, 2, id));
        this.amend(id, quote);
        quote = _amendment(LeaseId.wrap(0));
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongLease.selector, 0, id));
        this.amend(id, quote);
    }

    function test_RevertWhen_QuoteIsExpiredUsedOrForged() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        bytes memory forged = _sign(quote, makeAccount("impostor").key);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadSignature.selector, provider.addr));
        vm.prank(payer);
        leases.amend(id, quote, forged);

        this.amend(id, quote);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_QuoteUsed.selector, provider.addr, quote.nonce));
        this.amend(id, quote);

        quote.nonce += 1;
        vm.warp(quote.expiry + 1);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_QuoteExpired.selector, quote.expiry));
        this.amend(id, quote);
    }

    function test_RevertWhen_ListingChangedOrTermsMakeNoCurve() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        quote.full = quote.grace;
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadTerms.selector, quote.grace, quote.full));
        this.amend(id, quote);
        quote = _amendment(id);
        vm.prank(provider.addr);
        registry.list(_listing());
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ListingChanged.selector, provider.addr, 1, 2));
        this.amend(id, quote);
    }

    function test_RevertWhen_CoverageIsLowered() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        quote.coverage = COVERAGE - 1;
        vm.expectRevert(
            abi.encodeWithSelector(ILeases.Leases_CoverageLowered.selector, id, COVERAGE, COVERAGE - 1)
        );
        this.amend(id, quote);
    }

    function test_RevertWhen_NewLockupIsNotCovered() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        quote.rate = uint128(FUNDS * SCALE / LOCK) + 1;
        quote.lock = LOCK;
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_Underfunded.selector, account, quote.rate * LOCK, FUNDS * SCALE
            )
        );
        this.amend(id, quote);
    }

    function test_WhenActive() public {
        LeaseId id = _active();
        skip(100);
        ILeases.Quote memory quote = _amendment(id);
        vm.expectEmit(address(leases));
        emit ILeases.Amended(id, provider.addr, payer, quote);
        vm.expectEmit(address(payments));
        emit IPayments.RateSet(_streamOf(id), quote.rate, quote.lock);
        vm.recordLogs();
        this.amend(id, quote);
        assertEq(vm.getRecordedLogs().length, 2, "the coverage stays, so Staking says nothing");
        skip(10);
        assertEq(payments.stream(_streamOf(id)).owed, 100 * RATE + 10 * quote.rate);
        ILeases.Lease memory l = leases.lease(id);
        assertEq(l.state, ILeases.State.Active);
        assertEq(l.grace, quote.grace);
        assertEq(l.full, quote.full);
        assertEq(l.response, quote.response);
        assertEq(l.notice, quote.notice);
        assertTrue(leases.isNonceUsed(provider.addr, quote.nonce));
        assertEq(payments.approval(account, address(leases)).rateUsed, quote.rate);
    }

    function test_WhenPending() public {
        LeaseId id = _pending();
        uint40 startBy = leases.lease(id).startBy;
        ILeases.Quote memory quote = _amendment(id);
        this.amend(id, quote);
        assertEq(leases.lease(id).startBy, startBy);
        vm.prank(provider.addr);
        leases.activate(id);
        skip(10);
        assertEq(payments.stream(_streamOf(id)).owed, 10 * quote.rate);
    }

    function test_WhenCoverageIsRaised() public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        quote.coverage = COVERAGE + 7;
        vm.expectEmit(address(staking));
        emit IStaking.Locked(provider.addr, address(leases), LeaseId.unwrap(id), 7);
        this.amend(id, quote);
        assertEq(_lockOf(id).amount, COVERAGE + 7);
        assertEq(staking.bondOf(provider.addr).locked, COVERAGE + 7);
    }

    function test_WhenCallerIsAgent() public {
        LeaseId id = _active();
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        ILeases.Quote memory quote = _amendment(id);
        bytes memory signature = _sign(quote);
        vm.expectEmit(address(leases));
        emit ILeases.Amended(id, provider.addr, keeper, quote);
        vm.prank(keeper);
        leases.amend(id, quote, signature);
    }

    function testFuzz_ApprovalAndLockupFollow(uint128 rate, uint32 lock) public {
        LeaseId id = _active();
        ILeases.Quote memory quote = _amendment(id);
        quote.rate = uint128(bound(rate, 0, 10 * RATE));
        quote.lock = uint32(bound(lock, 0, LOCK));
        this.amend(id, quote);
        assertEq(payments.approval(account, address(leases)).rateUsed, quote.rate);
        assertEq(payments.account(account).lockup, quote.rate * quote.lock);
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.PayerDone);
        assertEq(payments.approval(account, address(leases)).rateUsed, 0);
        assertEq(payments.account(account).lockup, 0);
    }

    /// @dev External, so that an expected revert is the whole call's and not the signing's.
    function amend(LeaseId id, ILeases.Quote memory quote) external {
        bytes memory signature = _sign(quote);
        vm.prank(payer);
        leases.amend(id, quote, signature);
    }

    function _amendment(LeaseId id) private view returns (ILeases.Quote memory quote) {
        quote = _quote(1_000);
        quote.lease = id;
        quote.pod = keccak256("another pod");
        quote.rate = 3 * RATE;
        quote.lock = LOCK / 2;
        quote.grace = 2 minutes;
        quote.full = 2 hours;
        quote.response = 6 minutes;
        quote.notice = 2 days;
    }

    function _expectWrongState(LeaseId id, ILeases.State state) private {
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongState.selector, id, state));
    }
}
