// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import { SafeCast } from "@openzeppelin/contracts/utils/math/SafeCast.sol";

// bond
// ├── when the bonder or the amount is zero ─ reverts
// ├── when the amount does not fit ─ reverts
// ├── when the token takes a fee, returns false, or re-enters ─ reverts
// ├── when the token returns nothing ─ adds to the bond
// └── when anybody pays ─ adds to the bond of the bonder
contract BondTest is Base {
    function test_RevertWhen_BonderOrAmountIsZero() public {
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.bond(address(0), 1);
        vm.expectRevert(IStaking.Staking_Zero.selector);
        staking.bond(provider.addr, 0);
    }

    function test_RevertWhen_AmountDoesNotFit() public {
        uint256 amount = uint256(type(uint128).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(SafeCast.SafeCastOverflowedUintDowncast.selector, 128, amount));
        staking.bond(provider.addr, amount);
    }

    function test_RevertWhen_TokenTakesFee() public {
        _hostile().setTrick(HostileToken.Trick.TakesFee);
        vm.expectRevert(abi.encodeWithSelector(IStaking.Staking_WrongAmountReceived.selector, 1_000, 989));
        staking.bond(provider.addr, 1_000);
    }

    function test_RevertWhen_TokenReturnsFalse() public {
        HostileToken hostile = _hostile();
        hostile.setTrick(HostileToken.Trick.ReturnsFalse);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, hostile));
        staking.bond(provider.addr, 1_000);
    }

    function test_RevertWhen_TokenReenters() public {
        HostileToken hostile = _hostile();
        bytes[3] memory calls = [
            abi.encodeCall(staking.bond, (provider.addr, 1)),
            abi.encodeCall(staking.withdraw, (provider.addr)),
            abi.encodeCall(staking.claim, (provider.addr))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            hostile.setReentry(address(staking), calls[i], true);
            vm.expectRevert(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
            staking.bond(provider.addr, 1_000);
        }
    }

    function test_WhenTokenReturnsNothing() public {
        _hostile().setTrick(HostileToken.Trick.ReturnsNothing);
        staking.bond(provider.addr, 1_000);
        assertEq(staking.bondOf(provider.addr).bonded, 1_000);
    }

    function test_WhenAnybodyPays() public {
        token.mint(stranger, 70);
        vm.startPrank(stranger);
        token.approve(address(staking), 70);
        vm.expectEmit(address(staking));
        emit IStaking.Bonded(provider.addr, stranger, 30);
        staking.bond(provider.addr, 30);
        staking.bond(provider.addr, 40);
        IStaking.Bond memory b = staking.bondOf(provider.addr);
        assertEq(b.bonded, 70);
        assertEq(b.locked, 0);
        assertEq(b.unbonding, 0);
        assertEq(staking.bondOf(stranger).bonded, 0);
        assertEq(token.balanceOf(address(staking)), 70);
    }

    function _hostile() private returns (HostileToken hostile) {
        hostile = new HostileToken();
        _deploy(IERC20(address(hostile)));
        hostile.mint(address(this), 1_000);
        hostile.approve(address(staking), type(uint256).max);
    }

    function test_WhenSeveralInOne() public {
        token.mint(stranger, 5);
        vm.startPrank(stranger);
        token.approve(address(staking), 5);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(staking.bond, (stranger, 5));
        calls[1] = abi.encodeCall(staking.setLocker, (keeper, true));
        staking.multicall(calls);
        assertEq(staking.bondOf(stranger).bonded, 5);
        assertTrue(staking.isLocker(stranger, keeper));
    }
}
