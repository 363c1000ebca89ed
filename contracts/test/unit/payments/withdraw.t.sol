// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, accountIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

// withdraw
// ├── when there is no such account ─ reverts
// ├── when the caller does not own it, also as an operator ─ reverts
// ├── when the receiver or the amount is zero ─ reverts
// ├── when the amount is above what is not locked ─ reverts
// ├── when it is all that is not locked ─ leaves the lockup
// ├── when all streams are closed ─ gives everything back
// ├── when the account is dry ─ has nothing to give, and the payer can still leave
// └── when the token re-enters, or returns false ─ reverts and nothing has changed
contract WithdrawTest is Base {
    function test_RevertWhen_NoAccount() public {
        AccountId none = accountIdOf(payer, "none");
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NoAccount.selector, none));
        vm.prank(payer);
        payments.withdraw(none, payer, 1);
    }

    function test_RevertWhen_CallerIsNotOwner() public {
        _fund(FUNDS);
        _approve(keeper, type(uint128).max, type(uint128).max, type(uint32).max);
        address[2] memory callers = [stranger, keeper];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_NotOwner.selector, account, callers[i]));
            vm.prank(callers[i]);
            payments.withdraw(account, callers[i], 1);
        }
    }

    function test_RevertWhen_ReceiverOrAmountIsZero() public {
        _fund(FUNDS);
        vm.startPrank(payer);
        vm.expectRevert(IPayments.Payments_Zero.selector);
        payments.withdraw(account, address(0), 1);
        vm.expectRevert(IPayments.Payments_Zero.selector);
        payments.withdraw(account, payer, 0);
    }

    function test_RevertWhen_AmountIsLocked() public {
        _fund(FUNDS);
        _stream(1, true);
        skip(500);
        uint256 available = FUNDS * SCALE - 500 * RATE - LOCKUP;
        uint256 amount = available / SCALE + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_Underfunded.selector, account, amount * SCALE, available
            )
        );
        vm.prank(payer);
        payments.withdraw(account, payer, amount);
    }

    function test_WhenAllThatIsNotLocked() public {
        _fund(FUNDS);
        _stream(1, true);
        skip(500);
        uint256 amount = (FUNDS * SCALE - 500 * RATE - LOCKUP) / SCALE;
        vm.expectEmit(address(payments));
        emit IPayments.Withdrawn(account, stranger, amount);
        vm.prank(payer);
        payments.withdraw(account, stranger, amount);
        assertEq(token.balanceOf(stranger), amount);
        IPayments.AccountView memory a = payments.account(account);
        assertGe(a.free, a.lockup);
        assertLt(a.free - a.lockup, SCALE, "less than a base unit is left over");
        assertEq(a.clock, 500);
    }

    function test_WhenReservedStream_LocksToo() public {
        _fund(FUNDS);
        _stream(1, false);
        uint256 all = FUNDS;
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_Underfunded.selector, account, all * SCALE, all * SCALE - LOCKUP
            )
        );
        vm.prank(payer);
        payments.withdraw(account, payer, all);
    }

    function test_WhenAllStreamsAreClosed() public {
        _fund(FUNDS);
        _stream(1, true);
        skip(1000);
        vm.startPrank(payer);
        payments.closeStream(_idOf(1));
        uint256 rest = (FUNDS * SCALE - 1000 * RATE) / SCALE;
        payments.withdraw(account, payer, rest);
        assertEq(token.balanceOf(payer), rest);
        payments.collect(_only(_idOf(1)));
        assertEq(token.balanceOf(payee), 1000 * RATE / SCALE);
        assertLe(token.balanceOf(address(payments)), 2, "dust: one for the account, one for the stream");
    }

    function test_WhenDry_NothingToGive() public {
        _fund(FUNDS);
        _stream(1, true);
        _runDry(1 days);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_Underfunded.selector, account, SCALE, 0));
        payments.withdraw(account, payer, 1);
        // Leaving needs no money.
        payments.closeStream(_idOf(1));
        assertEq(payments.account(account).lockup, 0);
    }

    function test_WhenDryUnderShorterRate_RestComesBack() public {
        _fund(1);
        _stream(1, uint128(SCALE) * 3 / 5, 0, true);
        skip(1 days);
        vm.startPrank(payer);
        payments.closeStream(_idOf(1));
        assertEq(payments.account(account).free, SCALE * 2 / 5);
    }

    function test_RevertWhen_TokenReentersOrReturnsFalse() public {
        HostileToken hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), FUNDS);
        hostile.approve(address(payments), FUNDS);
        payments.deposit(payer, SALT, FUNDS);

        bytes memory call = abi.encodeCall(payments.withdraw, (account, payer, 1));
        hostile.setReentry(address(payments), call, true);
        vm.startPrank(payer);
        vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        payments.withdraw(account, payer, 1);

        hostile.setTrick(HostileToken.Trick.ReturnsFalse);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, hostile));
        payments.withdraw(account, payer, 1);
        assertEq(payments.account(account).free, FUNDS * SCALE);
    }

    function testFuzz_NeverBreaksTheLockup(uint128 rate, uint32 lock, uint32 secs, uint256 amount) public {
        rate = uint128(bound(rate, 1, 1e18));
        lock = uint32(bound(lock, 0, 30 days));
        uint256 lockup = uint256(rate) * lock;
        _fund(lockup / SCALE + FUNDS);
        _stream(1, rate, lock, true);
        skip(secs);
        IPayments.AccountView memory a = payments.account(account);
        amount = bound(amount, 1, type(uint96).max);
        bool fits = a.free >= a.lockup && amount * SCALE <= a.free - a.lockup;
        vm.prank(payer);
        if (!fits) vm.expectRevert();
        payments.withdraw(account, payer, amount);
        if (fits) assertGe(payments.account(account).free, lockup);
    }
}
