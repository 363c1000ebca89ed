// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// activate
// ├── when the lease is not pending ─ reverts
// ├── when the start was missed ─ reverts
// ├── when the caller is not its provider ─ reverts
// ├── when the account no longer covers its lockup, or the payer ended the stream ─ reverts
// └── when all is well ─ it runs and is paid from now on
contract ActivateTest is Base {
    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_RevertWhen_NotPending() public {
        vm.startPrank(provider.addr);
        _expectWrongState(LeaseId.wrap(1), ILeases.State.None);
        leases.activate(LeaseId.wrap(1));
        vm.stopPrank();
        LeaseId id = _active();
        _expectWrongState(id, ILeases.State.Active);
        vm.prank(provider.addr);
        leases.activate(id);
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.PayerDone);
        _expectWrongState(id, ILeases.State.Closed);
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function test_RevertWhen_StartWasMissed() public {
        LeaseId id = _pending();
        uint40 startBy = leases.lease(id).startBy;
        vm.warp(startBy + 1);
        vm.startPrank(provider.addr);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_StartMissed.selector, id, startBy));
        leases.activate(id);
        vm.warp(startBy);
        leases.activate(id);
    }

    function test_RevertWhen_CallerIsNotProvider() public {
        LeaseId id = _pending();
        address[2] memory callers = [payer, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotProvider.selector, id, callers[i]));
            vm.prank(callers[i]);
            leases.activate(id);
        }
        assertEq(leases.lease(id).state, ILeases.State.Pending);
    }

    function test_RevertWhen_AccountFellBelowLockup() public {
        LeaseId id = _pending();
        // The payer's other stream eats into the lockup.
        uint128 rate = uint128(FUNDS * SCALE - LOCKUP) / 30;
        _stream(1, rate, 0, true);
        skip(31);
        uint128 free = payments.account(account).free;
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, LOCKUP, free)
        );
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function test_RevertWhen_PayerEndedTheStream() public {
        LeaseId id = _pending();
        vm.prank(payer);
        payments.closeStream(_streamOf(id));
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_WrongState.selector, _streamOf(id), IPayments.StreamState.Closed
            )
        );
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function test_WhenAllIsWell() public {
        LeaseId id = _pending();
        skip(30);
        vm.expectEmit(address(leases));
        emit ILeases.Activated(id);
        vm.expectEmit(address(payments));
        emit IPayments.StreamStarted(_streamOf(id));
        vm.prank(provider.addr);
        leases.activate(id);
        assertEq(leases.lease(id).state, ILeases.State.Active);
        assertEq(leases.lease(id).activatedAt, block.timestamp);
        skip(100);
        assertEq(payments.stream(_streamOf(id)).owed, 100 * RATE);
        payments.collect(_only(_streamOf(id)));
        assertEq(token.balanceOf(provider.addr), 100 * RATE / SCALE);
    }

    function _expectWrongState(LeaseId id, ILeases.State state) private {
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongState.selector, id, state));
    }
}
