// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IAuction } from "../../../src/interfaces/IAuction.sol";
import { OrderId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

/// @notice A publisher with money for orders, two bidders that are ready, and the shortest way to each state.
abstract contract Orders is Base {
    uint128 internal constant DEPOSIT = 1e6;
    uint128 internal constant MAX_RATE = 2 * RATE;
    uint128 internal constant NO_SHOW = COVERAGE / 10;
    uint32 internal constant DURATION = 10 minutes;

    Account internal _other = makeAccount("another provider");

    function setUp() public virtual override {
        super.setUp();
        _market();
        _ready(provider.addr);
        _bond(_other.addr, BOND);
        vm.prank(_other.addr);
        registry.list(_listing());
        _ready(_other.addr);
        vm.startPrank(payer);
        leases.setAgent(account, address(auction), true);
        token.approve(address(auction), type(uint256).max);
        vm.stopPrank();
        token.mint(payer, 10 * DEPOSIT);
    }

    /// @dev Lets the auction issue leases in the provider's name and lock its bond.
    function _ready(address who) internal {
        _allow(who, address(leases));
        _allow(who, address(auction));
        vm.prank(who);
        leases.setIssuer(address(auction), true);
    }

    function _order() internal view returns (IAuction.Order memory order) {
        order.account = account;
        order.slot = 3;
        order.pod = POD;
        (order.cpu, order.memoryMiB, order.storageMiB) = (500, 256, 10);
        order.maxRate = MAX_RATE;
        order.coverage = COVERAGE;
        order.lock = LOCK;
        (order.grace, order.full, order.response) = (1 minutes, 1 hours, 5 minutes);
        (order.notice, order.startWithin) = (1 days, 2 minutes);
        order.duration = DURATION;
        order.uri = "https://publisher.example/pod.yaml";
    }

    function _place(IAuction.Order memory order) internal returns (OrderId) {
        vm.prank(payer);
        return auction.place(order);
    }

    function _bid(address who, OrderId id, uint128 rate) internal {
        vm.prank(who);
        auction.bid(id, rate, new IAuction.Requirement[](0));
    }

    function _award(OrderId id) internal {
        vm.prank(payer);
        auction.award(id, _order());
    }

    function _locked(address who) internal view returns (uint128) {
        return staking.bondOf(who).locked;
    }

    function _expectState(OrderId id, IAuction.State state) internal {
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_WrongState.selector, id, state));
    }
}
