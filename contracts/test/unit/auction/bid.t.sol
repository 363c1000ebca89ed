// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IAuction } from "../../../src/interfaces/IAuction.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { OrderId } from "../../../src/types/Ids.sol";
import { Orders } from "./Orders.sol";

// bid
// ├── when the order is not open ─ reverts
// ├── when its time is over ─ reverts
// ├── when the rate is zero, above the order's, or not a step below the leader's ─ reverts
// ├── when the requirements are not the order's, or are not met ─ reverts
// ├── when the bidder cannot be awarded ─ reverts
// ├── when its bond has no room ─ reverts
// ├── when first ─ leads, with its bond locked
// ├── when better ─ leads, and frees who led
// ├── when the bidder underbids itself ─ leads as before
// ├── when near the end ─ moves it, but never beyond the latest
// └── when the order asks for no coverage ─ locks nothing
// disqualify
// ├── when not open, or nobody leads, or the leader is ready ─ reverts
// └── else ─ the leader pays, and the order begins anew at its highest rate
contract BidTest is Orders {
    OrderId private _id;

    function setUp() public override {
        super.setUp();
        _id = _place(_order());
    }

    function test_RevertWhen_NotOpen() public {
        _expectState(OrderId.wrap(2), IAuction.State.None);
        _bid(provider.addr, OrderId.wrap(2), RATE);
    }

    function test_RevertWhen_Late() public {
        skip(DURATION);
        _bid(provider.addr, _id, RATE);
        uint40 deadline = auction.orderOf(_id).deadline;
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_Late.selector, _id, deadline));
        _bid(_other.addr, _id, 1);
    }

    function test_RevertWhen_RateIsZero() public {
        vm.expectRevert(IAuction.Auction_Zero.selector);
        _bid(provider.addr, _id, 0);
    }

    function test_RevertWhen_TooHigh() public {
        _expectTooHigh(MAX_RATE + 1, MAX_RATE);
        _bid(provider.addr, _id, MAX_RATE);
        uint128 most = MAX_RATE - MAX_RATE / 100;
        assertEq(auction.nextRate(_id), most);
        _expectTooHigh(most + 1, most);
        _bid(_other.addr, _id, most);
    }

    /// @dev Near zero a step is one unit, and nobody bids below one.
    function test_WhenRatesAreTiny() public {
        _bid(provider.addr, _id, 2);
        assertEq(auction.nextRate(_id), 1);
        _bid(_other.addr, _id, 1);
        assertEq(auction.nextRate(_id), 0);
        _expectTooHigh(1, 0);
    }

    function test_RevertWhen_OtherRequirements() public {
        _id = _place(_with(address(0), "gpu"));
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_WrongOrder.selector, _id));
        _bid(provider.addr, _id, RATE);
    }

    function test_RevertWhen_RequirementIsNotMet() public {
        _id = _place(_with(keeper, "gpu"));
        _expectUnfit(keeper);
        // What it says of itself is not what the auditor says.
        vm.prank(provider.addr);
        registry.vouch(provider.addr, "gpu", type(uint40).max);
        _expectUnfit(keeper);
        vm.prank(keeper);
        registry.vouch(provider.addr, "gpu", uint40(block.timestamp - 1));
        _expectUnfit(keeper);
        vm.prank(keeper);
        registry.vouch(provider.addr, "gpu", uint40(block.timestamp));
        _bidWith(_with(keeper, "gpu").requirements);
        assertEq(auction.orderOf(_id).leader, provider.addr);
    }

    function test_WhenItsOwnWordIsEnough() public {
        _id = _place(_with(address(0), "gpu"));
        _expectUnfit(provider.addr);
        vm.prank(provider.addr);
        registry.vouch(provider.addr, "gpu", type(uint40).max);
        _bidWith(_with(address(0), "gpu").requirements);
        assertEq(auction.orderOf(_id).leader, provider.addr);
    }

    function test_RevertWhen_NotReady() public {
        vm.prank(provider.addr);
        registry.delist();
        _expectNotReady();
        vm.startPrank(provider.addr);
        registry.list(_listing());
        leases.setIssuer(address(auction), false);
        vm.stopPrank();
        _expectNotReady();
        vm.startPrank(provider.addr);
        leases.setIssuer(address(auction), true);
        staking.setLocker(address(leases), false);
        vm.stopPrank();
        _expectNotReady();
    }

    function test_RevertWhen_BondHasNoRoom() public {
        vm.prank(provider.addr);
        staking.requestUnbond(BOND - COVERAGE);
        vm.expectRevert(
            abi.encodeWithSelector(
                IStaking.Staking_NotEnoughFree.selector, provider.addr, COVERAGE + NO_SHOW, COVERAGE
            )
        );
        _bid(provider.addr, _id, RATE);
    }

    function test_WhenFirst() public {
        uint40 deadline = auction.orderOf(_id).deadline;
        vm.expectEmit(address(auction));
        emit IAuction.Bid(_id, provider.addr, RATE, deadline, 1);
        _bid(provider.addr, _id, RATE);
        assertEq(_locked(provider.addr), COVERAGE + NO_SHOW);
        IAuction.OrderView memory o = auction.orderOf(_id);
        assertEq(abi.encode(o.leader, o.rate, o.bids), abi.encode(provider.addr, RATE, 1));
    }

    function test_WhenBetter() public {
        _bid(provider.addr, _id, RATE);
        _bid(_other.addr, _id, RATE / 2);
        assertEq(_locked(provider.addr), 0);
        assertEq(_locked(_other.addr), COVERAGE + NO_SHOW);
        assertEq(auction.orderOf(_id).leader, _other.addr);
        _bid(provider.addr, _id, RATE / 3);
        assertEq(_locked(_other.addr), 0);
        assertEq(_locked(provider.addr), COVERAGE + NO_SHOW);
    }

    function test_WhenUnderbiddingOneself() public {
        _bid(provider.addr, _id, RATE);
        _bid(provider.addr, _id, RATE / 2);
        assertEq(_locked(provider.addr), COVERAGE + NO_SHOW);
    }

    function test_WhenNearTheEnd_ItMoves() public {
        uint40 first = auction.orderOf(_id).deadline;
        vm.warp(first - 60);
        _bid(provider.addr, _id, RATE);
        assertEq(auction.orderOf(_id).deadline, first);
        vm.warp(first - 59);
        _bid(_other.addr, _id, RATE / 2);
        assertEq(auction.orderOf(_id).deadline, first + 1);
    }

    function test_WhenMovedOften_ItEndsAtTheLatest() public {
        uint40 latest = auction.orderOf(_id).latest;
        uint128 rate = RATE;
        while (auction.orderOf(_id).deadline < latest) {
            vm.warp(auction.orderOf(_id).deadline);
            _bid(rate % 2 == 0 ? provider.addr : _other.addr, _id, rate);
            rate = auction.nextRate(_id);
        }
        assertEq(auction.orderOf(_id).deadline, latest);
        vm.warp(latest);
        _bid(provider.addr, _id, rate);
        assertEq(auction.orderOf(_id).deadline, latest);
    }

    function test_WhenNoCoverageIsAsked_NothingIsLocked() public {
        IAuction.Order memory order = _order();
        order.coverage = 0;
        _id = _place(order);
        _bid(provider.addr, _id, RATE);
        _bid(_other.addr, _id, RATE / 2);
        assertEq(_locked(_other.addr), 0);
        vm.prank(payer);
        auction.cancel(_id);
        assertEq(uint8(auction.orderOf(_id).state), uint8(IAuction.State.Over));
    }

    function test_RevertWhen_NobodyCanBeDisqualified() public {
        _expectState(OrderId.wrap(2), IAuction.State.None);
        auction.disqualify(OrderId.wrap(2));
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NoLeader.selector, _id));
        auction.disqualify(_id);
        _bid(provider.addr, _id, RATE);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_LeaderReady.selector, _id));
        auction.disqualify(_id);
    }

    function test_WhenDisqualified() public {
        _bid(provider.addr, _id, RATE);
        vm.prank(provider.addr);
        leases.setIssuer(address(auction), false);
        skip(100);
        uint40 deadline = uint40(block.timestamp) + DURATION;
        vm.expectEmit(address(auction));
        emit IAuction.Reopened(_id, provider.addr, NO_SHOW, deadline);
        vm.prank(stranger);
        auction.disqualify(_id);
        assertEq(_locked(provider.addr), 0);
        assertEq(staking.bondOf(provider.addr).bonded, BOND - NO_SHOW);
        assertEq(staking.claimable(payer), NO_SHOW - NO_SHOW / 10);
        IAuction.OrderView memory o = auction.orderOf(_id);
        assertEq(abi.encode(o.leader, o.rate, o.reopened), abi.encode(address(0), MAX_RATE, 1));
        assertEq(o.latest, deadline + 1 hours);
        _bid(_other.addr, _id, MAX_RATE);
        assertEq(_locked(_other.addr), COVERAGE + NO_SHOW);
    }

    function testFuzz_RatesOnlyFallByAStep(uint128[8] memory rates) public {
        uint128 before = MAX_RATE;
        bool first = true;
        for (uint256 i = 0; i < rates.length; ++i) {
            uint128 rate = uint128(bound(rates[i], 1, MAX_RATE));
            uint256 step = before / 100 == 0 ? 1 : before / 100;
            bool goes = first || rate + step <= before;
            if (!goes) vm.expectRevert();
            _bid(i % 2 == 0 ? provider.addr : _other.addr, _id, rate);
            if (goes) (before, first) = (rate, false);
            assertEq(auction.orderOf(_id).rate, before);
            assertEq(_locked(provider.addr) + _locked(_other.addr), COVERAGE + NO_SHOW);
        }
    }

    function _with(address auditor, bytes32 attribute) private view returns (IAuction.Order memory order) {
        order = _order();
        order.requirements = new IAuction.Requirement[](1);
        order.requirements[0] = IAuction.Requirement(auditor, attribute);
    }

    function _bidWith(IAuction.Requirement[] memory requirements) private {
        vm.prank(provider.addr);
        auction.bid(_id, RATE, requirements);
    }

    function _expectUnfit(address auditor) private {
        IAuction.Requirement[] memory requirements = new IAuction.Requirement[](1);
        requirements[0] =
            IAuction.Requirement(auditor == provider.addr ? address(0) : auditor, bytes32("gpu"));
        vm.expectRevert(
            abi.encodeWithSelector(IAuction.Auction_Unfit.selector, provider.addr, auditor, bytes32("gpu"))
        );
        _bidWith(requirements);
    }

    function _expectNotReady() private {
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NotReady.selector, provider.addr));
        _bid(provider.addr, _id, RATE);
    }

    function _expectTooHigh(uint128 rate, uint128 most) private {
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_TooHigh.selector, _id, rate, most));
        _bid(provider.addr, _id, rate);
    }
}
