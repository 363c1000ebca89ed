// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ISla } from "../../../src/interfaces/ISla.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Watchers } from "./Watchers.sol";

// equivocated
// ├── when the statements say the same, are of different leases, or do not overlap ─ reverts
// ├── when one of them is not the watcher's ─ reverts
// ├── when nothing of its bond is locked ─ reverts
// ├── when seated ─ takes the seat, and the bond: half for whoever found out, half for nobody, less what is burned
// └── when it left a short while ago ─ takes the bond
contract EquivocatedTest is Watchers {
    address private _liar;
    ISla.Statement private _up;
    ISla.Statement private _down;

    function setUp() public override {
        super.setUp();
        _liar = _watchers[4].addr;
        _up = ISla.Statement(_lease, 100, 200, true);
        _down = ISla.Statement(_lease, 199, 300, false);
    }

    function test_RevertWhen_NoContradiction() public {
        _down.up = true;
        _expectNone();
        (_up.up, _down.up) = (false, false);
        _expectNone();
        (_up.up, _down.up) = (false, true);
        _expectNone();
        (_up.up, _down.up) = (true, false);
        _down.lease = LeaseId.wrap(9);
        _expectNone();
        _down.lease = _lease;
        (_down.from, _down.to) = (200, 300);
        _expectNone();
        (_down.from, _down.to) = (0, 100);
        _expectNone();
        (_down.from, _down.to) = (0, 101);
        _show();
    }

    function test_RevertWhen_SignedByAnother() public {
        bytes memory mine = _say(_liar, _up);
        bytes memory others = _say(_watchers[0].addr, _down);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadSignature.selector, _liar));
        sla.equivocated(_liar, _up, mine, _down, others);
        mine = _say(_liar, _down);
        others = _say(_watchers[0].addr, _up);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_BadSignature.selector, _liar));
        sla.equivocated(_liar, _up, others, _down, mine);
    }

    function test_RevertWhen_NothingIsLocked() public {
        Account memory w = _enlist("never seated");
        _liar = w.addr;
        _expectNoSeat();
        _liar = _watchers[4].addr;
        _show();
        _expectNoSeat();
    }

    function test_RevertWhen_BondIsFreeAgain() public {
        vm.prank(_liar);
        sla.leave();
        skip(EPOCH + CLAIM_WINDOW);
        staking.unlock(_liar, address(sla), 5);
        _expectNoSeat();
    }

    function test_WhenSeated() public {
        bytes memory up = _say(_liar, _up);
        bytes memory down = _say(_liar, _down);
        vm.expectEmit(address(sla));
        emit ISla.Left(_liar, 5);
        vm.expectEmit(address(sla));
        emit ISla.Equivocated(_liar, stranger, _lease, WATCHER_BOND);
        vm.prank(stranger);
        sla.equivocated(_liar, _up, up, _down, down);
        assertEq(staking.claimable(stranger), _lessBurn(WATCHER_BOND / 2, 0));
        assertEq(staking.claimable(sla.NOBODY()), _lessBurn(WATCHER_BOND / 2, 0));
        assertEq(staking.bondOf(_liar).bonded, WATCHER_BOND, "and no more than that");
        assertEq(staking.bondOf(_liar).locked, 0);
        assertEq(sla.watcherOf(_liar).seat, 0);
        assertEq(sla.watcherOf(_watchers[8].addr).seat, 5);
    }

    function test_WhenItLeft() public {
        vm.prank(_liar);
        sla.leave();
        skip(EPOCH + CLAIM_WINDOW - 1);
        _show();
        assertEq(staking.bondOf(_liar).bonded, WATCHER_BOND);
    }

    function test_WhenItCameBack_TheNewBondAnswers() public {
        vm.startPrank(_liar);
        sla.leave();
        sla.join();
        vm.stopPrank();
        _show();
        assertEq(staking.lockOf(_liar, address(sla), 10).amount, 0);
        vm.expectRevert();
        sla.equivocated(_liar, _up, "", _down, "");
    }

    function test_WhenItCameBackAfterwards_ItSitsAgain() public {
        _show();
        vm.prank(_liar);
        sla.join();
        assertEq(sla.watcherOf(_liar).seat, 9);
        assertEq(sla.watcherOf(_liar).ref, 10);
    }

    /// @dev Who finds itself out first saves less than half.
    function test_FindingOneselfOutDoesNotPay() public {
        bytes memory up = _say(_liar, _up);
        bytes memory down = _say(_liar, _down);
        vm.prank(_liar);
        sla.equivocated(_liar, _up, up, _down, down);
        assertLt(staking.claimable(_liar), WATCHER_BOND / 2);
    }

    function _show() private {
        sla.equivocated(_liar, _up, _say(_liar, _up), _down, _say(_liar, _down));
    }

    function _expectNone() private {
        bytes memory up = _say(_liar, _up);
        bytes memory down = _say(_liar, _down);
        vm.expectRevert(ISla.Sla_NoContradiction.selector);
        sla.equivocated(_liar, _up, up, _down, down);
    }

    function _expectNoSeat() private {
        bytes memory up = _say(_liar, _up);
        bytes memory down = _say(_liar, _down);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoSeat.selector, _liar));
        sla.equivocated(_liar, _up, up, _down, down);
    }
}
