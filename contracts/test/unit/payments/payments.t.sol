// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Payments } from "../../../src/Payments.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, StreamId, accountIdOf, operatorOf, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice Construction, ids, views of what is not there, and several calls in one.
contract PaymentsTest is Base {
    function test_RevertWhen_TokenIsZero() public {
        vm.expectRevert(IPayments.Payments_Zero.selector);
        new Payments(IERC20(address(0)));
    }

    function test_WhenConstructed() public view {
        assertEq(address(payments.TOKEN()), address(token));
        assertEq(payments.SCALE(), SCALE);
    }

    function testFuzz_IdsSayWhoseTheyAre(address owner, bytes32 salt, address operator, uint96 ref)
        public
        pure
    {
        assertEq(AccountId.unwrap(accountIdOf(owner, salt)), keccak256(abi.encode(owner, salt)));
        StreamId id = streamIdOf(operator, ref);
        assertEq(operatorOf(id), operator);
        assertEq(uint96(StreamId.unwrap(id)), ref);
    }

    function test_WhenNothingIsThere_ViewsAreEmpty() public view {
        IPayments.AccountView memory a = payments.account(account);
        assertEq(a.owner, address(0));
        assertEq(a.free, 0);
        assertEq(a.fundedUntil, type(uint40).max);
        IPayments.StreamView memory s = payments.stream(_idOf(1));
        assertEq(s.state, IPayments.StreamState.None);
        assertEq(s.owed, 0);
        assertEq(payments.approval(account, keeper).expiry, 0);
    }

    function test_WhenRunwayIsLongerThanTime_FundedUntilSaturates() public {
        _fund(1);
        _stream(1, 1, 0, true);
        assertEq(payments.account(account).fundedUntil, block.timestamp + SCALE);
        _fund(FUNDS);
        assertEq(payments.account(account).fundedUntil, type(uint40).max);
    }

    function test_WhenSeveralInOne() public {
        token.mint(payer, FUNDS);
        vm.startPrank(payer);
        token.approve(address(payments), FUNDS);
        bytes[] memory calls = new bytes[](3);
        calls[0] = abi.encodeCall(payments.deposit, (payer, SALT, FUNDS));
        calls[1] = abi.encodeCall(payments.approve, (account, keeper, RATE, 0, LOCK, type(uint40).max));
        calls[2] = abi.encodeCall(payments.openStream, (account, 1, payee, RATE, LOCK, true));
        bytes[] memory answers = payments.multicall(calls);
        assertEq(abi.decode(answers[0], (AccountId)), account);
        assertEq(abi.decode(answers[2], (StreamId)), _idOf(1));
        assertEq(payments.account(account).rate, RATE);
    }
}
