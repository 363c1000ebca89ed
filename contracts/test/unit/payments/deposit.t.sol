// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, StreamId, accountIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import { SafeCast } from "@openzeppelin/contracts/utils/math/SafeCast.sol";

// deposit
// ├── when the owner is zero ─ reverts
// ├── when the amount is zero ─ reverts
// ├── when the amount does not fit ─ reverts
// ├── when the allowance is short ─ reverts
// ├── when the token
// │   ├── takes a fee ─ reverts
// │   ├── returns false ─ reverts
// │   ├── re-enters ─ reverts
// │   └── returns nothing ─ takes the money
// ├── when the account is new ─ makes it, whoever pays
// ├── when the account has funds ─ adds to them and leaves what is settled
// └── when the account is dry
//     ├── when the top-up does not restore the lockup ─ reverts
//     ├── when it does not last a second ─ reverts
//     └── when it does ─ starts again now and pays nothing for the gap
contract DepositTest is Base {
    function test_RevertWhen_OwnerIsZero() public {
        vm.expectRevert(IPayments.Payments_Zero.selector);
        payments.deposit(address(0), SALT, 1);
    }

    function test_RevertWhen_AmountIsZero() public {
        vm.expectRevert(IPayments.Payments_Zero.selector);
        payments.deposit(payer, SALT, 0);
    }

    function test_RevertWhen_AmountDoesNotFit() public {
        uint256 amount = type(uint128).max / SCALE + 1;
        vm.expectRevert(
            abi.encodeWithSelector(SafeCast.SafeCastOverflowedUintDowncast.selector, 128, amount * SCALE)
        );
        payments.deposit(payer, SALT, amount);
    }

    function test_RevertWhen_AllowanceIsShort() public {
        token.mint(address(this), 1);
        vm.expectRevert();
        payments.deposit(payer, SALT, 1);
        assertEq(payments.ownerOf(account), address(0));
    }

    function test_RevertWhen_TokenTakesFee() public {
        _hostile().setTrick(HostileToken.Trick.TakesFee);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_WrongAmountReceived.selector, 1_000, 989));
        payments.deposit(payer, SALT, 1_000);
    }

    function test_RevertWhen_TokenReturnsFalse() public {
        HostileToken hostile = _hostile();
        hostile.setTrick(HostileToken.Trick.ReturnsFalse);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, hostile));
        payments.deposit(payer, SALT, 1_000);
    }

    function test_RevertWhen_TokenReenters() public {
        HostileToken hostile = _hostile();
        StreamId[] memory none = new StreamId[](0);
        bytes[4] memory calls = [
            abi.encodeCall(payments.deposit, (payer, SALT, 1)),
            abi.encodeCall(payments.withdraw, (account, payer, 1)),
            abi.encodeCall(payments.pay, (account, payer, 1)),
            abi.encodeCall(payments.collect, (none))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            hostile.setReentry(address(payments), calls[i], true);
            vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
            payments.deposit(payer, SALT, 1_000);
        }
    }

    function test_WhenTokenReturnsNothing() public {
        HostileToken hostile = _hostile();
        hostile.setTrick(HostileToken.Trick.ReturnsNothing);
        payments.deposit(payer, SALT, 1_000);
        assertEq(hostile.balanceOf(address(payments)), 1_000);
        assertEq(payments.account(account).free, 1_000 * SCALE);
    }

    function test_WhenAccountIsNew() public {
        token.mint(stranger, 7);
        vm.startPrank(stranger);
        token.approve(address(payments), 7);
        vm.expectEmit(address(payments));
        emit IPayments.Deposited(account, payer, SALT, stranger, 7);
        AccountId id = payments.deposit(payer, SALT, 7);

        assertEq(id, account);
        IPayments.AccountView memory a = payments.account(id);
        assertEq(a.owner, payer);
        assertEq(a.free, 7 * SCALE);
        assertEq(a.lockup, 0);
        assertEq(a.rate, 0);
        assertEq(a.clock, 0);
        assertEq(a.fundedUntil, type(uint40).max);
        assertEq(payments.ownerOf(id), payer);
        assertEq(token.balanceOf(address(payments)), 7);
    }

    function test_WhenSaltDiffers_AccountsAreApart() public {
        _fund(5);
        AccountId other = accountIdOf(payer, "other");
        assertEq(payments.account(other).free, 0);
        assertFalse(other == account);
    }

    function test_WhenAccountHasFunds() public {
        _fund(FUNDS);
        StreamId id = _stream(1, true);
        skip(100);
        uint40 before = payments.account(account).fundedUntil;
        _fund(3);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.clock, 100);
        assertEq(a.free, FUNDS * SCALE - 100 * RATE + 3 * SCALE);
        assertEq(a.fundedUntil, before + 1);
        assertEq(payments.stream(id).owed, 100 * RATE);
    }

    function test_RevertWhen_DryTopUpLeavesLockupShort() public {
        uint256 rest = _dry();
        uint256 needed = LOCKUP - rest;
        uint256 amount = needed / SCALE;
        token.mint(address(this), amount);
        token.approve(address(payments), amount);
        vm.expectRevert(
            abi.encodeWithSelector(
                IPayments.Payments_TopUpTooSmall.selector, account, needed - amount * SCALE
            )
        );
        payments.deposit(payer, SALT, amount);
    }

    function test_RevertWhen_DryTopUpLastsNoSecond() public {
        _fund(1);
        _stream(1, 2 * uint128(SCALE), 0, true);
        skip(1);
        token.mint(address(this), 1);
        token.approve(address(payments), 1);
        // One base unit is there and one comes: exactly a second.
        payments.deposit(payer, SALT, 1);
        skip(2);
        assertEq(payments.account(account).free, 0);
        token.mint(address(this), 1);
        token.approve(address(payments), 1);
        vm.expectRevert(abi.encodeWithSelector(IPayments.Payments_TopUpTooSmall.selector, account, SCALE));
        payments.deposit(payer, SALT, 1);
    }

    function test_WhenDryTopUpSuffices_GapIsFree() public {
        uint256 rest = _dry();
        StreamId id = _idOf(1);
        uint128 owed = payments.stream(id).owed;
        uint40 clock = payments.account(account).clock;
        _fund(FUNDS);
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.clock, clock, "the gap is not on the clock");
        assertEq(a.free, rest + FUNDS * SCALE, "nor was it paid for");
        assertEq(payments.stream(id).owed, owed);
        assertEq(a.fundedUntil, block.timestamp + a.free / RATE);
        skip(10);
        assertEq(payments.stream(id).owed, owed + 10 * RATE);
    }

    function testFuzz_SumsUp(uint96 first, uint96 second, uint32 gap) public {
        vm.assume(first != 0 && second != 0);
        _fund(first);
        skip(gap);
        _fund(second);
        assertEq(payments.account(account).free, (uint256(first) + second) * SCALE);
        assertEq(token.balanceOf(address(payments)), uint256(first) + second);
    }

    /// @dev Leaves the account dry for a day; returns what is left of a second.
    function _dry() private returns (uint256) {
        _fund(FUNDS);
        _stream(1, true);
        _runDry(1 days);
        return payments.account(account).free;
    }

    function _hostile() private returns (HostileToken hostile) {
        hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), 1_000);
        hostile.approve(address(payments), type(uint256).max);
    }
}
