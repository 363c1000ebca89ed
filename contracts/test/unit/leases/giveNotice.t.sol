// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// giveNotice
// ├── when the lease is not active ─ reverts
// ├── when notice was given ─ reverts
// ├── when the reason is not a provider's ─ reverts
// ├── when the caller is not its provider ─ reverts
// └── when all is well ─ says when it ends, and it goes on until then
contract GiveNoticeTest is Base {
    ILeases.CloseReason private constant DRAINING = ILeases.CloseReason.ProviderDraining;

    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_RevertWhen_NotActive() public {
        LeaseId id = _pending();
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_WrongState.selector, id, ILeases.State.Pending));
        vm.prank(provider.addr);
        leases.giveNotice(id, DRAINING);
    }

    function test_RevertWhen_NoticeWasGiven() public {
        LeaseId id = _active();
        vm.startPrank(provider.addr);
        leases.giveNotice(id, DRAINING);
        uint40 endsAt = leases.lease(id).endsAt;
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NoticeGiven.selector, id, endsAt));
        leases.giveNotice(id, DRAINING);
    }

    function test_RevertWhen_ReasonIsNotProviders() public {
        LeaseId id = _active();
        for (uint8 i = 0; i <= uint8(type(ILeases.CloseReason).max); ++i) {
            ILeases.CloseReason reason = ILeases.CloseReason(i);
            if (reason >= DRAINING && reason <= ILeases.CloseReason.Unhealthy) continue;
            vm.expectRevert(
                abi.encodeWithSelector(ILeases.Leases_ReasonRefused.selector, id, reason, provider.addr)
            );
            vm.prank(provider.addr);
            leases.giveNotice(id, reason);
        }
    }

    function test_RevertWhen_CallerIsNotProvider() public {
        LeaseId id = _active();
        address[2] memory callers = [payer, stranger];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotProvider.selector, id, callers[i]));
            vm.prank(callers[i]);
            leases.giveNotice(id, DRAINING);
        }
    }

    function test_WhenAllIsWell() public {
        LeaseId id = _active();
        uint40 endsAt = uint40(block.timestamp) + 1 days;
        vm.expectEmit(address(leases));
        emit ILeases.NoticeGiven(id, DRAINING, endsAt);
        vm.prank(provider.addr);
        leases.giveNotice(id, DRAINING);
        assertEq(leases.lease(id).endsAt, endsAt);
        skip(10);
        assertEq(leases.lease(id).state, ILeases.State.Active);
        assertEq(payments.stream(_streamOf(id)).owed, 10 * RATE);
    }
}
