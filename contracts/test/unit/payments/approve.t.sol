// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, accountIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// approve
// ├── when there is no such account ─ reverts
// ├── when the caller does not own it ─ reverts
// └── when it does
//     ├── says what the operator may do
//     └── replaces what was said before, except for what is in use
contract ApproveTest is Base {
    function test_RevertWhen_NoAccount() public {
        AccountId none = accountIdOf(payer, "none");
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NoAccount.selector, none));
        vm.prank(payer);
        payments.approve(none, keeper, 1, 1, 1, 1);
    }

    function test_RevertWhen_CallerIsNotOwner() public {
        _fund(1);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotOwner.selector, account, keeper));
        vm.prank(keeper);
        payments.approve(account, keeper, 1, 1, 1, 1);
    }

    function test_WhenOwner() public {
        _fund(1);
        vm.expectEmit(address(payments));
        emit IPayments.Approved(account, keeper, 11, 22, 33, 44);
        vm.prank(payer);
        payments.approve(account, keeper, 11, 22, 33, 44);
        IPayments.Approval memory p = payments.approval(account, keeper);
        assertEq(p.rateLimit, 11);
        assertEq(p.payLimit, 22);
        assertEq(p.maxLock, 33);
        assertEq(p.expiry, 44);
        assertEq(p.rateUsed, 0);
    }

    function test_WhenReplaced_UseStays() public {
        _fund(FUNDS);
        _approve(keeper, RATE, 9, LOCK);
        vm.prank(keeper);
        payments.openStream(account, 1, payee, RATE, LOCK, true);
        vm.prank(payer);
        payments.approve(account, keeper, 0, 0, 0, 0);
        IPayments.Approval memory p = payments.approval(account, keeper);
        assertEq(p.rateUsed, RATE);
        assertEq(p.rateLimit, 0);
        assertEq(p.payLimit, 0);
    }

    function test_WhenOneAccount_OthersStay() public {
        _fund(1);
        _approve(keeper, RATE, 1, LOCK);
        AccountId other = accountIdOf(payer, "other");
        assertEq(payments.approval(other, keeper).rateLimit, 0);
        assertEq(payments.approval(account, stranger).rateLimit, 0);
    }
}
