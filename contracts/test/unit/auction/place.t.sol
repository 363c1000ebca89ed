// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Auction } from "../../../src/Auction.sol";
import { IAuction } from "../../../src/interfaces/IAuction.sol";
import { AccountId, OrderId } from "../../../src/types/Ids.sol";
import { HostileToken } from "../../tokens/HostileToken.sol";
import { TestToken } from "../../tokens/TestToken.sol";
import { Orders } from "./Orders.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

// constructor
// └── when the terms make no sense ─ reverts
// place
// ├── when the caller does not pay for the account ─ reverts
// ├── when the auction may not open leases for it ─ reverts
// ├── when a field is out of its range ─ reverts
// ├── when the token brings less ─ reverts
// └── else ─ keeps its hash and the deposit
// cancel
// ├── when it is not open ─ reverts
// ├── when the caller does not pay for it ─ reverts
// └── else ─ ends it, and frees whoever leads
// expire
// ├── when it is not open ─ reverts
// ├── when the leader is still bound ─ reverts
// └── else ─ anybody ends it
// claim
// ├── when there is nothing, or nobody to send it to ─ reverts
// └── else ─ sends it, once
contract PlaceTest is Orders {
    function test_RevertWhen_TermsMakeNoSense() public {
        for (uint256 i = 0; i < 3; ++i) {
            IAuction.Terms memory terms = _auctionTerms();
            if (i == 0) terms.stepBps = 0;
            if (i == 1) terms.stepBps = 10_000;
            if (i == 2) terms.noShowBps = 10_001;
            vm.expectRevert(IAuction.Auction_BadTerms.selector);
            new Auction(leases, staking, registry, terms);
        }
    }

    function test_WhenDeployed() public view {
        assertEq(address(auction.LEASES()), address(leases));
        assertEq(address(auction.STAKING()), address(staking));
        assertEq(address(auction.REGISTRY()), address(registry));
        assertEq(address(auction.TOKEN()), address(token));
        assertEq(auction.DEPOSIT(), DEPOSIT);
        assertEq(auction.STEP_BPS(), 100);
        assertEq(auction.EXTENSION(), 60);
        assertEq(auction.MAX_EXTENSION(), 1 hours);
        assertEq(auction.AWARD_GRACE(), 1 hours);
        assertEq(auction.NO_SHOW_BPS(), 1_000);
    }

    function test_RevertWhen_NotPayer() public {
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NotPayer.selector, account, stranger));
        vm.prank(stranger);
        auction.place(_order());
        IAuction.Order memory order = _order();
        order.account = AccountId.wrap(0);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NotPayer.selector, AccountId.wrap(0), payer));
        _place(order);
    }

    function test_RevertWhen_AuctionIsNoAgent() public {
        vm.prank(payer);
        leases.setAgent(account, address(auction), false);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NotAgent.selector, account));
        _place(_order());
    }

    function test_RevertWhen_FieldIsOutOfRange() public {
        IAuction.Order memory order = _order();
        order.maxRate = 0;
        _expectBad("maxRate", order);
        order = _order();
        order.slot = 1 << 24;
        _expectBad("slot", order);
        order.slot = (1 << 24) - 1;
        _place(order);
        order = _order();
        order.startWithin = 29;
        _expectBad("startWithin", order);
        order.startWithin = 30;
        _place(order);
        order.duration = 0;
        _expectBad("duration", order);
        order.duration = 30 days + 1;
        _expectBad("duration", order);
        order.duration = 30 days;
        _place(order);
        order.grace = order.full;
        _expectBad("grace", order);
        (order.grace, order.full) = (1, 0);
        _place(order);
        order.requirements = new IAuction.Requirement[](9);
        _expectBad("requirements", order);
        order.requirements = new IAuction.Requirement[](8);
        _place(order);
        order.uri = string(new bytes(257));
        _expectBad("uri", order);
        order.uri = string(new bytes(256));
        _place(order);
    }

    function test_RevertWhen_TokenBringsLess() public {
        HostileToken bad = new HostileToken();
        token = TestToken(address(bad));
        _deploy(IERC20(address(bad)));
        _market();
        bad.setTrick(HostileToken.Trick.TakesFee);
        bad.mint(payer, DEPOSIT);
        vm.startPrank(payer);
        leases.setAgent(account, address(auction), true);
        bad.approve(address(auction), DEPOSIT);
        vm.expectRevert(
            abi.encodeWithSelector(
                IAuction.Auction_WrongAmountReceived.selector, DEPOSIT, DEPOSIT - DEPOSIT / 100 - 1
            )
        );
        auction.place(_order());
    }

    function test_WhenPlaced() public {
        uint40 deadline = uint40(block.timestamp) + DURATION;
        OrderId id = OrderId.wrap(1);
        vm.expectEmit(address(auction));
        emit IAuction.Placed(id, account, payer, deadline, _order());
        _place(_order());
        assertEq(auction.count(), 1);
        assertEq(token.balanceOf(address(auction)), DEPOSIT);
        IAuction.OrderView memory o = auction.orderOf(id);
        assertEq(o.hash, keccak256(abi.encode(_order())));
        assertEq(o.leader, address(0));
        assertEq(o.deadline, deadline);
        assertEq(o.latest, deadline + 1 hours);
        assertEq(uint8(o.state), uint8(IAuction.State.Open));
        assertEq(o.rate, MAX_RATE);
        assertEq(o.coverage, COVERAGE);
        assertEq(o.payer, payer);
        assertEq(auction.nextRate(id), MAX_RATE);
    }

    function test_WhenPlacedByAnAgent_TheDepositIsTheAgents() public {
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        token.mint(keeper, DEPOSIT);
        vm.startPrank(keeper);
        token.approve(address(auction), DEPOSIT);
        OrderId id = auction.place(_order());
        auction.cancel(id);
        auction.claim(keeper);
        assertEq(token.balanceOf(keeper), DEPOSIT);
    }

    function test_RevertWhen_NotOpen() public {
        _expectState(OrderId.wrap(1), IAuction.State.None);
        auction.cancel(OrderId.wrap(1));
        _expectState(OrderId.wrap(1), IAuction.State.None);
        auction.expire(OrderId.wrap(1));
        OrderId id = _place(_order());
        vm.startPrank(payer);
        auction.cancel(id);
        _expectState(id, IAuction.State.Over);
        auction.cancel(id);
        _expectState(id, IAuction.State.Over);
        auction.expire(id);
    }

    function test_RevertWhen_CancelledBySomebodyElse() public {
        OrderId id = _place(_order());
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NotPayer.selector, account, stranger));
        vm.prank(stranger);
        auction.cancel(id);
    }

    function test_WhenCancelled() public {
        OrderId id = _place(_order());
        _bid(provider.addr, id, RATE);
        vm.expectEmit(address(auction));
        emit IAuction.Over(id, IAuction.Outcome.Cancelled, provider.addr, 0);
        vm.prank(payer);
        auction.cancel(id);
        assertEq(_locked(provider.addr), 0);
        assertEq(auction.claimable(payer), DEPOSIT);
        assertEq(uint8(auction.orderOf(id).state), uint8(IAuction.State.Over));
    }

    function test_RevertWhen_LeaderIsStillBound() public {
        OrderId id = _place(_order());
        uint40 from = uint40(block.timestamp) + DURATION + 1 hours + 1;
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_TooEarly.selector, id, from));
        auction.expire(id);
    }

    function test_WhenExpired() public {
        OrderId id = _place(_order());
        _bid(provider.addr, id, RATE);
        skip(DURATION + 1 hours + 1);
        vm.expectEmit(address(auction));
        emit IAuction.Over(id, IAuction.Outcome.Expired, provider.addr, 0);
        vm.prank(stranger);
        auction.expire(id);
        assertEq(_locked(provider.addr), 0);
        assertEq(auction.claimable(payer), DEPOSIT);
    }

    function test_RevertWhen_NothingToClaim() public {
        vm.startPrank(payer);
        vm.expectRevert(IAuction.Auction_Zero.selector);
        auction.claim(payer);
        auction.cancel(auction.place(_order()));
        vm.expectRevert(IAuction.Auction_Zero.selector);
        auction.claim(address(0));
    }

    function test_WhenClaimed() public {
        vm.startPrank(payer);
        auction.cancel(auction.place(_order()));
        vm.expectEmit(address(auction));
        emit IAuction.Claimed(payer, payee, DEPOSIT);
        auction.claim(payee);
        assertEq(token.balanceOf(payee), DEPOSIT);
        vm.expectRevert(IAuction.Auction_Zero.selector);
        auction.claim(payee);
    }

    function test_WhenSeveralAtOnce() public {
        IAuction.Order memory second = _order();
        second.slot = 4;
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(auction.place, (_order()));
        calls[1] = abi.encodeCall(auction.place, (second));
        vm.prank(payer);
        auction.multicall(calls);
        assertEq(auction.count(), 2);
        assertEq(auction.orderOf(OrderId.wrap(2)).payer, payer);
    }

    function _expectBad(string memory field, IAuction.Order memory order) private {
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_BadOrder.selector, field));
        _place(order);
    }
}
