// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { Base } from "../../Base.t.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { IERC20Errors } from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

// depositWithPermit
// ├── when the permit is good ─ takes the money without an allowance
// ├── when somebody played the permit first ─ takes the money all the same
// ├── when the permit is bad and there is an allowance ─ takes the money
// ├── when the permit is bad and there is none ─ reverts
// └── when the token knows no permits ─ goes by the allowance
contract DepositWithPermitTest is Base {
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    uint256 private constant AMOUNT = 42e6;

    Account private _holder = makeAccount("holder");

    function setUp() public override {
        super.setUp();
        token.mint(_holder.addr, AMOUNT);
    }

    function test_WhenPermitIsGood() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit();
        vm.expectEmit(address(payments));
        emit IPayments.Deposited(account, payer, SALT, _holder.addr, AMOUNT);
        vm.prank(_holder.addr);
        payments.depositWithPermit(payer, SALT, AMOUNT, block.timestamp, v, r, s);
        assertEq(payments.account(account).free, AMOUNT * SCALE);
        assertEq(token.allowance(_holder.addr, address(payments)), 0);
    }

    function test_WhenPermitWasPlayedFirst() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit();
        vm.prank(stranger);
        token.permit(_holder.addr, address(payments), AMOUNT, block.timestamp, v, r, s);
        vm.prank(_holder.addr);
        payments.depositWithPermit(payer, SALT, AMOUNT, block.timestamp, v, r, s);
        assertEq(payments.account(account).free, AMOUNT * SCALE);
    }

    function test_WhenPermitIsBadButAllowed() public {
        vm.startPrank(_holder.addr);
        token.approve(address(payments), AMOUNT);
        payments.depositWithPermit(payer, SALT, AMOUNT, block.timestamp, 27, bytes32(0), bytes32(0));
        assertEq(payments.account(account).free, AMOUNT * SCALE);
    }

    function test_RevertWhen_PermitIsBadAndNothingAllowed() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(payments), 0, AMOUNT
            )
        );
        vm.prank(_holder.addr);
        payments.depositWithPermit(payer, SALT, AMOUNT, block.timestamp, 27, bytes32(0), bytes32(0));
    }

    function test_RevertWhen_PermitIsSomebodyElses() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit();
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(payments), 0, AMOUNT
            )
        );
        vm.prank(stranger);
        payments.depositWithPermit(stranger, SALT, AMOUNT, block.timestamp, v, r, s);
        assertEq(token.balanceOf(_holder.addr), AMOUNT);
    }

    function test_WhenTokenKnowsNoPermits() public {
        HostileToken plain = new HostileToken();
        _deploy(IERC20(address(plain)));
        plain.mint(address(this), AMOUNT);
        plain.approve(address(payments), AMOUNT);
        payments.depositWithPermit(payer, SALT, AMOUNT, block.timestamp, 27, bytes32(0), bytes32(0));
        assertEq(payments.account(account).free, AMOUNT * SCALE);
    }

    function _permit() private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 permit =
            keccak256(abi.encode(PERMIT, _holder.addr, address(payments), AMOUNT, 0, block.timestamp));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), permit));
        return vm.sign(_holder.key, digest);
    }
}
