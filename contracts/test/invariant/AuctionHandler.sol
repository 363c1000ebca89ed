// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IAuction } from "../../src/interfaces/IAuction.sol";
import { ILeases } from "../../src/interfaces/ILeases.sol";
import { AccountId, LeaseId, OrderId } from "../../src/types/Ids.sol";
import { SlaHandler } from "./SlaHandler.sol";

/// @title AuctionHandler
/// @notice Publishers that place, award and take back, bidders that lead and do not come; who may not is refused.
abstract contract AuctionHandler is SlaHandler {
    bytes[] private _placed;
    /// @notice Awards above what the order asks for at most.
    uint256 public dearAwards;

    function place(uint256 which, uint128 rate, uint128 coverage, uint32 secs, bool selfAward)
        external
        act("place")
    {
        AccountId id = _id(which);
        address owner = _ownerOf(id);
        if (token.balanceOf(owner) < 1e6) return;
        IAuction.Order memory order;
        (order.account, order.slot, order.pod) = (id, uint32(which % 3), POD);
        order.maxRate = uint128(bound(rate, 1, MAX_RATE));
        order.coverage = coverage % 4 == 0 ? 0 : uint128(bound(coverage, 0, 50e6));
        (order.lock, order.startWithin) = (uint32(bound(secs, 0, 2 hours)), uint24(bound(secs, 30, 3 hours)));
        (order.grace, order.full, order.response) = (1 minutes, 1 hours, 5 minutes);
        (order.notice, order.duration, order.selfAward) =
        (1 hours, uint32(bound(secs, 1, 12 hours)), selfAward);
        if (_tries(owner, address(auction), abi.encodeCall(auction.place, (order)), 1)) {
            _placed.push(abi.encode(order));
        }
    }

    function bid(uint256 which, uint256 who, uint128 rate) external act("bid") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Open);
        if (!found) return;
        IAuction.OrderView memory o = auction.orderOf(id);
        uint128 most = auction.nextRate(id);
        rate = uint128(bound(rate, most / 2, uint256(most) + most / 50 + 1));
        uint256 events = o.coverage == 0 ? 1 : o.leader == address(0) ? 2 : 3;
        bytes memory call = abi.encodeCall(auction.bid, (id, rate, new IAuction.Requirement[](0)));
        bool ok = _tries(_provider(who), address(auction), call, events);
        if (ok && rate > most) ++dearAwards;
    }

    function award(uint256 which, bool byAnybody) external act("award") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Open);
        if (!found) return;
        IAuction.OrderView memory o = auction.orderOf(id);
        IAuction.Order memory order = _orderOf(id);
        address caller = byAnybody ? stranger : _ownerOf(order.account);
        // Awarded, opened, a stream; and of the lock a part becomes another.
        uint256 events = order.coverage == 0 ? 3 : 5;
        bool ok = _tries(caller, address(auction), abi.encodeCall(auction.award, (id, order)), events);
        if (!ok) return;
        if (o.rate > order.maxRate) ++dearAwards;
        if (byAnybody && (!order.selfAward || block.timestamp <= o.deadline)) ++dearAwards;
    }

    function settle(uint256 which) external act("settle") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Awarded);
        if (!found) return;
        IAuction.OrderView memory o = auction.orderOf(id);
        bool fails = leases.lease(o.lease).activatedAt == 0 && _isProvidersFault(o.lease);
        _tries(stranger, address(auction), abi.encodeCall(auction.settle, (id)), 1 + _freed(id, o, fails));
    }

    function disqualify(uint256 which) external act("disqualify") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Open);
        if (!found) return;
        uint256 events = 1 + _freed(id, auction.orderOf(id), true);
        _tries(stranger, address(auction), abi.encodeCall(auction.disqualify, (id)), events);
    }

    function cancelOrder(uint256 which) external act("cancelOrder") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Open);
        if (!found || which % 3 != 0) return;
        uint256 events = 1 + _freed(id, auction.orderOf(id), false);
        address owner = _ownerOf(_orderOf(id).account);
        _tries(owner, address(auction), abi.encodeCall(auction.cancel, (id)), events);
    }

    function expire(uint256 which) external act("expire") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Open);
        if (!found) return;
        uint256 events = 1 + _freed(id, auction.orderOf(id), false);
        _tries(stranger, address(auction), abi.encodeCall(auction.expire, (id)), events);
    }

    function claimFromAuction(uint256 who) external act("claimFromAuction") {
        address owner = _payers[who % 2];
        _tries(owner, address(auction), abi.encodeCall(auction.claim, (owner)), 1);
    }

    function setIssuer(uint256 who, uint256 rarely) external act("setIssuer") {
        vm.prank(_provider(who));
        leases.setIssuer(address(auction), rarely % 6 != 0);
        _expectEvents(1);
    }

    function vouch(uint256 who, uint40 expiry) external act("vouch") {
        vm.prank(keeper);
        registry.vouch(_provider(who), "gpu", expiry);
        _expectEvents(1);
    }

    /// @notice What nobody may do, whatever the state.
    function attackAuction(uint256 which) external act("") {
        (OrderId id, bool found) = _pickOrder(which, IAuction.State.Open);
        if (!found) return;
        IAuction.Order memory order = _orderOf(id);
        _mustFail(stranger, address(auction), abi.encodeCall(auction.cancel, (id)));
        _mustFail(stranger, address(auction), abi.encodeCall(auction.place, (order)));
        _mustFail(stranger, address(auction), abi.encodeCall(auction.claim, (stranger)));
        uint128 above = auction.nextRate(id) + 1;
        bytes memory call = abi.encodeCall(auction.bid, (id, above, new IAuction.Requirement[](0)));
        _mustFail(_provider(which), address(auction), call);
        order.maxRate += 1;
        call = abi.encodeCall(auction.award, (id, order));
        _mustFail(_ownerOf(order.account), address(auction), call);
        call = abi.encodeCall(staking.slash, (_provider(which), 1, 1, stranger, address(0), 0));
        _mustFail(address(auction), address(staking), call);
    }

    function _orderOf(OrderId id) private view returns (IAuction.Order memory) {
        return abi.decode(_placed[OrderId.unwrap(id) - 1], (IAuction.Order));
    }

    /// @dev How many events freeing what the leader locked comes with.
    function _freed(OrderId id, IAuction.OrderView memory o, bool fails) private view returns (uint256) {
        if (o.leader == address(0)) return 0;
        uint96 ref = uint96(OrderId.unwrap(id)) << 32 | o.bids;
        uint256 locked = staking.lockOf(o.leader, address(auction), ref).amount;
        uint256 penalty = fails ? uint256(o.coverage) * 1_000 / 10_000 : 0;
        return (penalty == 0 ? 0 : 1) + (locked == penalty ? 0 : 1);
    }

    function _isProvidersFault(LeaseId id) private view returns (bool) {
        ILeases.CloseReason reason = leases.lease(id).reason;
        return reason > ILeases.CloseReason.PayerUnsatisfied && reason <= ILeases.CloseReason.StartMissed;
    }

    function _pickOrder(uint256 which, IAuction.State state) private view returns (OrderId id, bool found) {
        uint256 count = auction.count();
        for (uint256 i = 0; i < count && i < 40; ++i) {
            id = OrderId.wrap(uint64(1 + addmod(which, i, count)));
            if (auction.orderOf(id).state == state) return (id, true);
        }
    }
}
