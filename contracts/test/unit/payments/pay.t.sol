// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, accountIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

// pay
// ├── when the receiver or the amount is zero ─ reverts
// ├── when there is no such account ─ reverts
// ├── when the amount is above what is not locked ─ reverts
// ├── when the caller is the owner ─ pays
// ├── when the caller is an operator
// │   ├── when it pays itself ─ reverts
// │   ├── when never approved, or not any more ─ reverts
// │   ├── when above what is left of the approval ─ reverts
// │   └── else ─ pays, and the approval shrinks
// └── when the token re-enters ─ reverts
contract PayTest is Base {
    function setUp() public override {
        super.setUp();
        _fund(FUNDS);
    }

    function test_RevertWhen_ReceiverOrAmountIsZero() public {
        vm.startPrank(payer);
        vm.expectRevert(IPayments.Payments_Zero.selector);
        payments.pay(account, address(0), 1);
        vm.expectRevert(IPayments.Payments_Zero.selector);
        payments.pay(account, payee, 0);
    }

    function test_RevertWhen_NoAccount() public {
        AccountId none = accountIdOf(payer, "none");
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NoAccount.selector, none));
        vm.prank(payer);
        payments.pay(none, payee, 1);
    }

    function test_RevertWhen_AmountIsLocked() public {
        _stream(1, true);
        uint256 available = FUNDS * SCALE - LOCKUP;
        vm.expectRevert(
            abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, FUNDS * SCALE, available)
        );
        vm.prank(payer);
        payments.pay(account, payee, FUNDS);
    }

    function test_WhenOwner() public {
        vm.expectEmit(address(payments));
        emit IPayments.Paid(account, payer, payee, 5);
        vm.prank(payer);
        payments.pay(account, payee, 5);
        assertEq(token.balanceOf(payee), 5);
        assertEq(payments.account(account).free, (FUNDS - 5) * SCALE);
    }

    function test_RevertWhen_OperatorPaysItself() public {
        _approve(keeper, 0, type(uint128).max, 0);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_PaysItself.selector, keeper));
        vm.prank(keeper);
        payments.pay(account, keeper, 1);
    }

    function test_RevertWhen_OperatorIsNotApproved() public {
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotApproved.selector, account, keeper));
        vm.prank(keeper);
        payments.pay(account, payee, 1);

        vm.prank(payer);
        payments.approve(account, keeper, 0, type(uint128).max, 0, uint40(block.timestamp));
        vm.startPrank(keeper);
        payments.pay(account, payee, 1);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotApproved.selector, account, keeper));
        payments.pay(account, payee, 1);
    }

    function test_RevertWhen_AboveApproval() public {
        uint128 limit = uint128(10 * SCALE) - 1;
        _approve(keeper, 0, limit, 0);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_PayAboveApproval.selector, account, keeper, 10 * SCALE, limit
            )
        );
        vm.prank(keeper);
        payments.pay(account, payee, 10);
    }

    function test_WhenWithinApproval() public {
        _approve(keeper, 0, uint128(10 * SCALE), 0);
        vm.expectEmit(address(payments));
        emit IPayments.Paid(account, keeper, payee, 6);
        vm.startPrank(keeper);
        payments.pay(account, payee, 6);
        assertEq(payments.approval(account, keeper).payLimit, 4 * SCALE);
        assertEq(token.balanceOf(payee), 6);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_PayAboveApproval.selector, account, keeper, 5 * SCALE, 4 * SCALE
            )
        );
        payments.pay(account, payee, 5);
    }

    function test_WhenTheWholeApprovalIsPaid() public {
        _approve(keeper, 0, uint128(10 * SCALE), 0);
        vm.prank(keeper);
        payments.pay(account, payee, 10);
        assertEq(payments.approval(account, keeper).payLimit, 0);
        assertEq(token.balanceOf(payee), 10);
    }

    function test_RevertWhen_TokenReenters() public {
        HostileToken hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), FUNDS);
        hostile.approve(address(payments), FUNDS);
        payments.deposit(payer, SALT, FUNDS);
        hostile.setReentry(address(payments), abi.encodeCall(payments.deposit, (payer, SALT, 1)), true);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        vm.prank(payer);
        payments.pay(account, payee, 1);
    }
}
