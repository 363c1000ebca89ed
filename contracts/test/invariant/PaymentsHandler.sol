// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "../../src/interfaces/IPayments.sol";
import { AccountId, StreamId, operatorOf } from "../../src/types/Ids.sol";
import { World } from "./World.sol";

/// @title PaymentsHandler
/// @notice Owners, operators and payees, who do only what they may.
abstract contract PaymentsHandler is World {
    /// @notice Into an account that is dry, if there is one.
    function deposit(uint256 which, uint256 amount) external act("deposit") {
        AccountId id = _dryId(which);
        IPayments.AccountView memory a = payments.account(id);
        amount = bound(amount, 1, 40e6);
        if (_isDry(a)) {
            uint256 needed = a.lockup > a.rate ? a.lockup : a.rate;
            if (a.free + amount * SCALE < needed) amount = (needed - a.free) / SCALE + 1;
        }
        bytes32 salt = _saltOf(id);
        bool fails = _inFails();
        if (fails) _refuses();
        payments.deposit(a.owner, salt, amount);
        if (!fails) _expectEvents(1);
    }

    function withdraw(uint256 which, uint256 amount, uint256 to) external act("withdraw") {
        AccountId id = _id(which);
        IPayments.AccountView memory a = payments.account(id);
        if (a.free < a.lockup + SCALE) return;
        amount = bound(amount, 1, (a.free - a.lockup) / SCALE);
        address receiver = _payees[to % _payees.length];
        bool fails = _outFails(receiver);
        vm.prank(a.owner);
        if (fails) _refuses();
        payments.withdraw(id, receiver, amount);
        if (!fails) _expectEvents(1);
        _checkLockup(id);
    }

    function pay(uint256 which, uint256 by, uint256 amount) external act("pay") {
        AccountId id = _id(which);
        IPayments.AccountView memory a = payments.account(id);
        if (a.free < a.lockup + SCALE) return;
        uint256 most = (a.free - a.lockup) / SCALE;
        address caller = a.owner;
        if (by % 3 != 0) {
            caller = _operators[by % 2];
            IPayments.Approval memory p = payments.approval(id, caller);
            if (block.timestamp > p.expiry || p.payLimit < SCALE) return;
            if (p.payLimit / SCALE < most) most = p.payLimit / SCALE;
        }
        address receiver = _payees[amount % _payees.length];
        bool fails = _outFails(receiver);
        vm.prank(caller);
        if (fails) _refuses();
        payments.pay(id, receiver, bound(amount, 1, most));
        if (!fails) _expectEvents(1);
        _checkLockup(id);
    }

    function approve(uint256 which, uint256 who, uint128 rate, uint128 once, uint32 lock, uint32 secs)
        external
        act("approve")
    {
        AccountId id = _id(which);
        vm.prank(_ownerOf(id));
        payments.approve(
            id,
            _operators[who % _operators.length],
            uint128(bound(rate, 0, 4 * MAX_RATE)),
            uint128(bound(once, 0, 50e6 * SCALE)),
            uint32(bound(lock, 0, 2 days)),
            uint40(block.timestamp + bound(secs, 0, 60 days))
        );
        _expectEvents(1);
    }

    function openStream(uint256 which, uint256 by, uint128 rate, uint32 lock, bool start)
        external
        act("openStream")
    {
        AccountId id = _id(which);
        address caller = _ownerOf(id);
        lock = uint32(bound(lock, 0, 1 days));
        rate = _rate(rate, MAX_RATE);
        if (by % 3 != 0) {
            caller = _operators[by % 2];
            IPayments.Approval memory p = payments.approval(id, caller);
            if (block.timestamp > p.expiry || p.rateUsed > p.rateLimit) return;
            if (lock > p.maxLock) lock = p.maxLock;
            if (rate > p.rateLimit - p.rateUsed) rate = p.rateLimit - p.rateUsed;
        }
        if (!_carries(payments.account(id), uint256(rate) * lock)) return;
        address to = _payees[rate % _payees.length];
        if (to == caller) to = _payees[(rate + 1) % _payees.length];
        vm.prank(caller);
        payments.openStream(id, ++_refs, to, rate, lock, start);
        _expectEvents(1);
    }

    function startStream(uint256 which) external act("startStream") {
        (StreamId id, bool found) = _pickStream(which, IPayments.StreamState.Reserved, false);
        if (!found || !_carries(payments.account(payments.stream(id).account), 0)) return;
        vm.prank(operatorOf(id));
        payments.startStream(id);
        _expectEvents(1);
    }

    function setRate(uint256 which, uint128 rate, uint32 lock, bool raise) external act("setRate") {
        (StreamId id, bool found) = _pickStream(which, IPayments.StreamState.Running, false);
        if (!found) (id, found) = _pickStream(which, IPayments.StreamState.Reserved, false);
        if (!found) return;
        IPayments.StreamView memory s = payments.stream(id);
        if (raise) {
            IPayments.AccountView memory a = payments.account(s.account);
            (rate, lock) = (uint128(bound(rate, s.rate, 2 * MAX_RATE)), uint32(bound(lock, s.lock, 2 days)));
            address operator = operatorOf(id);
            if (operator != a.owner) {
                IPayments.Approval memory p = payments.approval(s.account, operator);
                if (block.timestamp > p.expiry || lock > p.maxLock) return;
                if (uint256(p.rateUsed) - s.rate + rate > p.rateLimit) return;
            }
            uint256 more = uint256(rate) * lock - uint256(s.rate) * s.lock;
            if (!_carries(a, more)) return;
        } else {
            (rate, lock) = (_rate(rate, s.rate), uint32(bound(lock, 0, s.lock)));
        }
        vm.prank(operatorOf(id));
        payments.setRate(id, rate, lock);
        _expectEvents(1);
    }

    /// @notice Also streams of Leases, which an owner may end behind its back.
    function closeStream(uint256 which, bool byOwner) external act("closeStream") {
        (StreamId id, bool found) =
            _pickStream(which, IPayments.StreamState.Running, byOwner && which % 4 == 0);
        if (!found) (id, found) = _pickStream(which, IPayments.StreamState.Reserved, false);
        if (!found) return;
        vm.prank(byOwner ? _ownerOf(payments.stream(id).account) : operatorOf(id));
        payments.closeStream(id);
        _expectEvents(1);
    }

    /// @notice The fastest stream of an account ends after the account ran dry, while slower ones go on: what was left of a
    /// second must not become many.
    function closeWhileDry(uint256 which, uint16 past) external act("closeWhileDry") {
        AccountId id = _id(which);
        IPayments.AccountView memory a = payments.account(id);
        if (a.rate == 0 || a.fundedUntil > block.timestamp + 60 days) return;
        uint256 end = a.fundedUntil + bound(past, 1, 1 hours);
        if (end > block.timestamp) _pass(end - block.timestamp);
        StreamId fastest;
        uint256 most;
        for (uint256 i = 0; i < model.streamCount(); ++i) {
            IPayments.StreamView memory s = payments.stream(model.streamIds(i));
            if (s.state != IPayments.StreamState.Running || !(s.account == id) || s.rate < most) continue;
            (fastest, most) = (model.streamIds(i), s.rate);
        }
        vm.prank(a.owner);
        payments.closeStream(fastest);
        _expectEvents(1);
    }

    /// @notice Three streams at once, called by nobody in particular.
    function collect(uint256 which) external act("collect") {
        uint256 count = model.streamCount();
        if (count == 0) return;
        StreamId[] memory ids = new StreamId[](count < 3 ? count : 3);
        uint256 events;
        bool fails;
        for (uint256 i = 0; i < ids.length; ++i) {
            ids[i] = model.streamIds(addmod(which, i, count));
            IPayments.StreamView memory s = payments.stream(ids[i]);
            if (s.owed < SCALE) continue;
            ++events;
            fails = fails || _outFails(s.payee);
        }
        vm.prank(stranger);
        if (fails) _refuses();
        payments.collect(ids);
        if (!fails) _expectEvents(events);
    }

    function _checkLockup(AccountId id) private {
        IPayments.AccountView memory a = payments.account(id);
        if (a.free < a.lockup) ++brokenLockups;
    }
}
