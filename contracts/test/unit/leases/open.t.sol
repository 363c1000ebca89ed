// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Leases } from "../../../src/Leases.sol";
import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { IRegistry } from "../../../src/interfaces/IRegistry.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { AccountId, LeaseId, accountIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";
import { ContractProvider } from "../../ContractProvider.sol";

// open
// ├── when the caller neither owns the account nor acts for its owner ─ reverts
// ├── when the quote
// │   ├── is expired, or used, or cancelled ─ reverts
// │   ├── is for another account, or for a lease that is there ─ reverts
// │   ├── has terms that make no curve ─ reverts
// │   ├── was made under another listing, or its provider is not listed ─ reverts
// │   └── was changed, or signed by somebody else, or for another contract or chain ─ reverts
// ├── when the slot holds an open lease ─ reverts
// ├── when the account lets Leases do less, or does not cover the lockup ─ reverts
// ├── when the provider's bond has less free, or it does not let Leases lock it ─ reverts
// └── when all is well ─ one call makes the lease, reserves the stream and locks the coverage
//     ├── with the quote of a contract (ERC-1271)
//     ├── with a quote for any account
//     ├── by an agent
//     ├── without coverage
//     └── in a slot that was freed, under the next id
contract OpenTest is Base {
    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_RevertWhen_CallerIsNotPayer() public {
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        address[3] memory callers = [stranger, provider.addr, keeper];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, 1, account, callers[i]));
            vm.prank(callers[i]);
            leases.open(quote, signature, account, 0);
        }
    }

    function test_RevertWhen_NoAccount() public {
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        AccountId none = accountIdOf(payer, "none");
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, 1, none, payer));
        vm.prank(payer);
        leases.open(quote, signature, none, 0);
    }

    function test_RevertWhen_QuoteIsExpired() public {
        ILeases.Quote memory quote = _quote(1);
        vm.warp(quote.expiry + 1);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_QuoteExpired.selector, quote.expiry));
        this.open(quote, 0);
        vm.warp(quote.expiry);
        this.open(quote, 0);
    }

    function test_RevertWhen_QuoteWasUsed() public {
        this.open(1, 0);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_QuoteUsed.selector, provider.addr, 1));
        this.open(1, 1);
    }

    function test_RevertWhen_QuoteWasUsedByLeaseThatIsClosed() public {
        LeaseId id = this.open(1, 0);
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.PayerDone);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_QuoteUsed.selector, provider.addr, 1));
        this.open(1, 0);
    }

    function test_RevertWhen_QuoteWasCancelled() public {
        vm.prank(provider.addr);
        leases.cancelNonces(3, 1 << 7 | 1 << 255);
        uint256[2] memory cancelled = [uint256(3 * 256 + 7), 3 * 256 + 255];
        for (uint256 i = 0; i < cancelled.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(ILeases.Leases_QuoteUsed.selector, provider.addr, cancelled[i])
            );
            this.open(cancelled[i], 0);
        }
        this.open(3 * 256 + 8, 0);
    }

    function test_RevertWhen_QuoteIsForAnotherAccount() public {
        ILeases.Quote memory quote = _quote(1);
        quote.account = accountIdOf(stranger, SALT);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongAccount.selector, quote.account, account));
        this.open(quote, 0);
    }

    function test_RevertWhen_QuoteAmends() public {
        ILeases.Quote memory quote = _quote(1);
        quote.lease = LeaseId.wrap(5);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongLease.selector, 5, 0));
        this.open(quote, 0);
    }

    function test_RevertWhen_TermsMakeNoCurve() public {
        ILeases.Quote memory quote = _quote(1);
        (quote.grace, quote.full) = (60, 60);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadTerms.selector, 60, 60));
        this.open(quote, 0);
        // Without a full outage there is no compensation, hence no curve.
        (quote.grace, quote.full) = (60, 0);
        this.open(quote, 0);
    }

    function test_RevertWhen_ListingChangedUnderQuote() public {
        ILeases.Quote memory quote = _quote(1);
        IRegistry.Listing memory listing = _listing();
        listing.endpoint = "https://elsewhere.example";
        vm.prank(provider.addr);
        registry.list(listing);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ListingChanged.selector, provider.addr, 1, 2));
        this.open(quote, 0);
        vm.prank(provider.addr);
        registry.delist();
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ListingChanged.selector, provider.addr, 1, 0));
        this.open(quote, 0);
        // A quote that itself says "not listed" is no way in.
        quote.version = 0;
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ListingChanged.selector, provider.addr, 0, 0));
        this.open(quote, 0);
    }

    function test_RevertWhen_SomethingWasChanged() public {
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        quote.rate -= 1;
        _expectBadSignature();
        vm.prank(payer);
        leases.open(quote, signature, account, 0);
    }

    function test_RevertWhen_SignedBySomebodyElse() public {
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote, makeAccount("impostor").key);
        _expectBadSignature();
        vm.prank(payer);
        leases.open(quote, signature, account, 0);
        _expectBadSignature();
        vm.prank(payer);
        leases.open(quote, "", account, 0);
    }

    function test_RevertWhen_SignedForAnotherChain() public {
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        vm.chainId(10);
        _expectBadSignature();
        vm.prank(payer);
        leases.open(quote, signature, account, 0);
    }

    function test_RevertWhen_SignedForAnotherDeployment() public {
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        leases = new Leases(payments, staking, registry, CLAIM_WINDOW, EARLY_CLOSE_BPS, _slaTerms());
        _expectBadSignature();
        vm.prank(payer);
        leases.open(quote, signature, account, 0);
    }

    function test_RevertWhen_SlotIsTaken() public {
        this.open(1, 300);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_SlotTaken.selector, account, 300));
        this.open(2, 300);
        assertFalse(leases.isNonceUsed(provider.addr, 2), "who loses the race keeps its quote");
        this.open(2, 301);
    }

    function test_RevertWhen_LeasesIsNotApproved() public {
        vm.startPrank(payer);
        payments.approve(account, address(leases), RATE, 0, LOCK, 0);
        vm.stopPrank();
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_NotApproved.selector, account, address(leases))
        );
        this.open(1, 0);
        _approve(address(leases), RATE - 1, 0, LOCK);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_RateAboveApproval.selector, account, address(leases), RATE, RATE - 1
            )
        );
        this.open(1, 0);
    }

    function test_RevertWhen_LockupIsNotCovered() public {
        ILeases.Quote memory quote = _quote(1);
        quote.rate = uint128(FUNDS * SCALE / LOCK) + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_Underfunded.selector, account, quote.rate * LOCK, FUNDS * SCALE
            )
        );
        this.open(quote, 0);
        assertEq(leases.count(), 0);
        assertFalse(leases.isSlotTaken(account, 0));
        assertFalse(leases.isNonceUsed(provider.addr, 1));
    }

    function test_RevertWhen_BondIsShort() public {
        ILeases.Quote memory quote = _quote(1);
        quote.coverage = uint128(BOND) + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                IStaking.Staking_NotEnoughFree.selector, provider.addr, quote.coverage, BOND
            )
        );
        this.open(quote, 0);
    }

    function test_RevertWhen_LeasesMayNotLock() public {
        vm.prank(provider.addr);
        staking.setLocker(address(leases), false);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_LockerNotAllowed.selector, provider.addr, address(leases))
        );
        this.open(1, 0);
    }

    function test_WhenAllIsWell() public {
        ILeases.Quote memory quote = _quote(1);
        uint40 startBy = uint40(block.timestamp) + quote.startWithin;
        LeaseId id = LeaseId.wrap(1);
        vm.expectEmit(address(leases));
        emit ILeases.Opened(id, provider.addr, account, 9, startBy, payer, quote);
        vm.expectEmit(address(payments));
        emit IPayments.StreamOpened(_streamOf(id), account, provider.addr, RATE, LOCK, false);
        vm.expectEmit(address(staking));
        emit IStaking.Locked(provider.addr, address(leases), 1, COVERAGE);
        assertEq(this.open(quote, 9), id);

        ILeases.Lease memory l = leases.lease(id);
        assertEq(l.state, ILeases.State.Pending);
        assertEq(l.startBy, startBy);
        assertEq(l.activatedAt, 0);
        assertEq(l.endsAt, 0);
        assertEq(l.slot, 9);
        assertEq(l.grace, quote.grace);
        assertEq(l.full, quote.full);
        assertEq(l.response, quote.response);
        assertEq(l.notice, quote.notice);
        assertEq(leases.count(), 1);
        assertTrue(leases.isSlotTaken(account, 9));
        assertTrue(leases.isNonceUsed(provider.addr, 1));
        assertEq(payments.stream(_streamOf(id)).state, IPayments.StreamState.Reserved);
        assertEq(payments.account(account).lockup, LOCKUP);
        assertEq(_lockOf(id).amount, COVERAGE);
        assertEq(_lockOf(id).releaseAt, 0);
        skip(1 hours);
        assertEq(payments.account(account).free, FUNDS * SCALE, "nothing is paid before the start");
    }

    function test_WhenProviderIsContract() public {
        ContractProvider contractual = new ContractProvider(provider.addr);
        _bond(address(contractual), BOND);
        vm.startPrank(provider.addr);
        contractual.act(address(staking), abi.encodeCall(staking.setLocker, (address(leases), true)));
        contractual.act(address(registry), abi.encodeCall(registry.list, (_listing())));
        vm.stopPrank();
        ILeases.Quote memory quote = _quote(1);
        quote.provider = address(contractual);

        bytes memory forged = _sign(quote, makeAccount("impostor").key);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadSignature.selector, address(contractual)));
        vm.prank(payer);
        leases.open(quote, forged, account, 0);

        LeaseId id = this.open(quote, 0);
        vm.prank(provider.addr);
        contractual.act(address(leases), abi.encodeCall(leases.activate, (id)));
        assertEq(leases.lease(id).state, ILeases.State.Active);
        assertEq(payments.stream(_streamOf(id)).payee, address(contractual));
    }

    function test_WhenQuoteIsForAnyAccount() public {
        ILeases.Quote memory quote = _quote(1);
        quote.account = AccountId.wrap(0);
        assertEq(leases.lease(this.open(quote, 0)).state, ILeases.State.Pending);
    }

    function test_WhenCallerIsAgent() public {
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        uint40 startBy = uint40(block.timestamp) + quote.startWithin;
        vm.expectEmit(address(leases));
        emit ILeases.Opened(LeaseId.wrap(1), provider.addr, account, 0, startBy, keeper, quote);
        vm.prank(keeper);
        leases.open(quote, signature, account, 0);
    }

    function test_WhenThereIsNoCoverage() public {
        vm.prank(provider.addr);
        staking.setLocker(address(leases), false);
        ILeases.Quote memory quote = _quote(1);
        quote.coverage = 0;
        LeaseId id = this.open(quote, 0);
        assertEq(_lockOf(id).amount, 0);
    }

    function test_WhenSlotWasFreed() public {
        LeaseId first = this.open(1, 0);
        vm.prank(payer);
        leases.close(first, ILeases.CloseReason.PayerMoved);
        assertFalse(leases.isSlotTaken(account, 0));
        assertEq(this.open(2, 0), LeaseId.wrap(2));
        assertTrue(leases.isSlotTaken(account, 0));
    }

    function testFuzz_SlotsAndNoncesAreApart(uint24 slot, uint24 other, uint256 nonce, uint256 next) public {
        vm.assume(slot != other && nonce != next);
        this.open(nonce, slot);
        assertTrue(leases.isSlotTaken(account, slot));
        assertFalse(leases.isSlotTaken(account, other));
        assertTrue(leases.isNonceUsed(provider.addr, nonce));
        assertFalse(leases.isNonceUsed(provider.addr, next));
        this.open(next, other);
    }

    function test_RevertWhen_SlotIsTooLarge() public {
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadSlot.selector, 1 << 24));
        this.open(1, 1 << 24);
    }

    /// @dev External, so that an expected revert is the whole call's and not the signing's.
    function open(ILeases.Quote memory quote, uint32 slot) external returns (LeaseId) {
        return _open(quote, slot);
    }

    function open(uint256 nonce, uint32 slot) external returns (LeaseId) {
        return _open(_quote(nonce), slot);
    }

    function _expectBadSignature() private {
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadSignature.selector, provider.addr));
    }
}
