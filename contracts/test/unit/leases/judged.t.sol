// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// setIssuer
// └── lets the issuer, and nobody else, open and amend in the provider's name without signature and nonce
// open
// └── when the slot is more than 24 bits ─ reverts
// compensate, closeDark
// ├── when the caller is not the Sla contract ─ reverts
// ├── when the lease is not active ─ reverts
// └── else ─ pays the payer; closes, and leaves the rest of the coverage to the claim window
// isPayer
// └── for the owner and its agents
// close
// ├── when the account cannot carry a pending lease ─ anybody ends it
// └── when the stream was ended in Payments ─ that is the reason, whoever says what
contract JudgedTest is Base {
    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_WhenIssuerIsSet() public {
        vm.expectEmit(address(leases));
        emit ILeases.IssuerSet(provider.addr, payer, true);
        vm.prank(provider.addr);
        leases.setIssuer(payer, true);
        ILeases.Quote memory quote = _quote(5);
        vm.startPrank(payer);
        LeaseId id = leases.open(quote, "", account, 0);
        assertFalse(leases.isNonceUsed(provider.addr, 5));
        quote.lease = id;
        leases.amend(id, quote, "");
        quote.lease = LeaseId.wrap(0);
        quote.version += 1;
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ListingChanged.selector, provider.addr, 2, 1));
        leases.open(quote, "", account, 1);
        vm.stopPrank();
        vm.prank(provider.addr);
        leases.setIssuer(payer, false);
        quote.version -= 1;
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadSignature.selector, provider.addr));
        vm.prank(payer);
        leases.open(quote, "", account, 1);
    }

    function test_RevertWhen_SlotIsTooLarge() public {
        ILeases.Quote memory quote = _quote(5);
        bytes memory signature = _sign(quote);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_BadSlot.selector, 1 << 24));
        vm.prank(payer);
        leases.open(quote, signature, account, 1 << 24);
        _open(_quote(6), (1 << 24) - 1);
        assertTrue(leases.isSlotTaken(account, (1 << 24) - 1));
    }

    function test_RevertWhen_NotSla() public {
        LeaseId id = _active();
        address[4] memory callers = [payer, provider.addr, stranger, address(leases)];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.startPrank(callers[i]);
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotSla.selector, callers[i]));
            leases.compensate(id, 1, address(0), 0);
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotSla.selector, callers[i]));
            leases.closeDark(id, 0);
            vm.stopPrank();
        }
    }

    function test_RevertWhen_NotActive() public {
        LeaseId id = _pending();
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongState.selector, id, ILeases.State.Pending));
        vm.prank(address(sla));
        leases.closeDark(id, 0);
    }

    function test_WhenJudged() public {
        LeaseId id = _active();
        vm.startPrank(address(sla));
        leases.compensate(id, 1_000, address(sla), 100);
        assertEq(staking.claimable(payer), 800);
        assertEq(staking.claimable(address(sla)), 100);
        skip(10);
        leases.closeDark(id, 4);
        assertEq(payments.stream(_streamOf(id)).owed, 4 * RATE);
        assertEq(_lockOf(id).releaseAt, block.timestamp + CLAIM_WINDOW);
        assertEq(_lockOf(id).amount, COVERAGE - 1_000);
    }

    function test_WhenPayer() public {
        assertTrue(leases.isPayer(account, payer));
        assertFalse(leases.isPayer(account, keeper));
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        assertTrue(leases.isPayer(account, keeper));
    }

    function test_WhenPendingCannotBeCarried() public {
        LeaseId id = _pending();
        _stream(1, RATE, 0, true);
        IPayments.AccountView memory a = payments.account(account);
        vm.prank(payer);
        payments.withdraw(account, payer, (a.free - a.lockup) / SCALE);
        ILeases.CloseReason dry = ILeases.CloseReason.AccountDry;
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_ReasonRefused.selector, id, dry, stranger));
        vm.prank(stranger);
        leases.close(id, dry);
        skip(1);
        vm.prank(stranger);
        leases.close(id, dry);
        assertEq(uint8(leases.lease(id).reason), uint8(dry));
    }

    function test_WhenPendingAccountIsDry() public {
        ILeases.Quote memory quote = _quote(3);
        (quote.lock, quote.startWithin) = (0, type(uint24).max);
        LeaseId id = _open(quote, 3);
        _stream(1, RATE, 0, true);
        _runDry(1);
        vm.prank(stranger);
        leases.close(id, ILeases.CloseReason.AccountDry);
        assertEq(leases.lease(id).state, ILeases.State.Closed);
    }

    function test_WhenStreamWasEnded_ThatIsTheReason() public {
        for (uint256 i = 0; i < 3; ++i) {
            LeaseId id = _open(_quote(i), uint32(i));
            if (i == 0) {
                vm.prank(provider.addr);
                leases.activate(id);
            }
            vm.prank(payer);
            payments.closeStream(_streamOf(id));
            ILeases.CloseReason said = i == 0
                ? ILeases.CloseReason.ProviderFault
                : i == 1 ? ILeases.CloseReason.PayerDone : ILeases.CloseReason.None;
            vm.expectEmit(address(leases));
            emit ILeases.Closed(id, provider.addr, stranger, ILeases.CloseReason.StreamEnded, 0);
            vm.prank(stranger);
            leases.close(id, said);
            assertEq(uint8(leases.lease(id).reason), uint8(ILeases.CloseReason.StreamEnded));
        }
    }
}
