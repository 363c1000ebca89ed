// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IApps } from "../../src/interfaces/IApps.sol";
import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { AccountId, AppId, LeaseId, streamIdOf } from "../../src/types/Ids.sol";
import { AuctionHandler } from "./AuctionHandler.sol";

/// @title AppsHandler
/// @notice Owners of apps, and keepers that try whatever their limits do not allow.
abstract contract AppsHandler is AuctionHandler {
    /// @notice What keepers came to do outside the limits.
    uint256 public beyondLimits;

    function register(uint256 which, uint256 name, uint128 fee, uint16 replicas) external act("register") {
        AccountId id = _id(which);
        IApps.Registration memory r;
        (r.account, r.slot, r.spec, r.keeper) = (id, 0, "spec", _payees[which % 3]);
        r.name = ["guestbook", "shop", "a-b"][name % 3];
        r.fee = fee % 2 == 0 ? 0 : _rate(fee, 1e9);
        r.limits = IApps.Limits(uint16(bound(replicas, 1, 3)), 2 hours, uint128(MAX_RATE / 10), POD);
        AppId holder = apps.named(r.name);
        uint256 events = r.fee == 0 ? 2 : 3;
        if (AppId.unwrap(holder) != 0) {
            events += _streamsOf(apps.appOf(holder).rent) ? 2 : 1;
        }
        _tries(_ownerOf(id), address(apps), abi.encodeCall(apps.register, (r)), events);
    }

    function setKeeper(uint256 which, uint256 who, uint128 fee) external act("setKeeper") {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (!found) return;
        fee = fee % 2 == 0 ? 0 : _rate(fee, 1e9);
        uint256 events = 1 + (_streamsOf(a.fee) ? 1 : 0) + (fee == 0 ? 0 : 1);
        _tries(a.owner, address(apps), abi.encodeCall(apps.setKeeper, (id, _payees[who % 3], fee)), events);
    }

    function setLimits(uint256 which, uint16 replicas, uint128 rate) external act("setLimits") {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (!found) return;
        IApps.Limits memory limits =
            IApps.Limits(uint16(bound(replicas, 1, 3)), 2 hours, uint128(bound(rate, 1, MAX_RATE)), POD);
        _tries(a.owner, address(apps), abi.encodeCall(apps.setLimits, (id, limits)), 1);
    }

    function setSpec(uint256 which, bytes32 spec) external act("setSpec") {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (found) _tries(a.owner, address(apps), abi.encodeCall(apps.setSpec, (id, spec, "")), 1);
    }

    function retire(uint256 which) external act("retire") {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (!found || which % 5 != 0) return;
        uint256 events = 1 + (_streamsOf(a.rent) ? 1 : 0) + (_streamsOf(a.fee) ? 1 : 0);
        _tries(a.owner, address(apps), abi.encodeCall(apps.retire, (id)), events);
    }

    /// @notice A keeper deploys what it likes, half of the time more than it may.
    function deploy(uint256 which, uint16 replica, uint256 who, uint128 rate, uint32 secs, uint128 coverage)
        external
        act("deploy")
    {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (!found) return;
        ILeases.Quote memory quote = _offer(who, a.account, rate, secs, coverage);
        if (rate % 2 == 0) quote.rate = uint128(bound(rate, 0, a.limits.maxRate));
        replica %= 4;
        bytes memory signature = _sign(quote, _providers[who % 2].key);
        bytes memory call = abi.encodeCall(apps.deploy, (id, replica, quote, signature, new bytes32[](0)));
        bool ok = _tries(a.keeper, address(apps), call, quote.coverage == 0 ? 3 : 4);
        bool may =
            replica < a.limits.replicas && quote.rate <= a.limits.maxRate && quote.lock <= a.limits.maxLock;
        if (ok && !may) ++beyondLimits;
    }

    /// @notice A keeper closes what it likes: only what is in its slots.
    function closeApp(uint256 which, uint256 lease) external act("closeApp") {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (!found) return;
        (LeaseId l, bool open) = _pickLease(lease, ILeases.State.Active);
        if (!open) return;
        IPayments.StreamView memory s = payments.stream(_streamOf(l));
        uint256 coverage = staking.lockOf(s.payee, address(leases), LeaseId.unwrap(l)).amount;
        uint256 events = (s.state == IPayments.StreamState.Closed ? 1 : 2) + (coverage == 0 ? 0 : 1);
        bytes memory call = abi.encodeCall(apps.close, (id, l, ILeases.CloseReason.PayerMoved));
        bool ok = _tries(a.keeper, address(apps), call, events);
        bool may = s.account == a.account && leases.lease(l).slot < a.limits.replicas;
        if (ok != may) ++beyondLimits;
    }

    /// @notice What nobody may do, whatever the state.
    function attackApps(uint256 which) external act("") {
        (AppId id, IApps.App memory a, bool found) = _pickApp(which);
        if (!found) return;
        _mustFail(a.keeper, address(apps), abi.encodeCall(apps.setKeeper, (id, a.keeper, 1e9)));
        _mustFail(a.keeper, address(apps), abi.encodeCall(apps.setLimits, (id, a.limits)));
        _mustFail(a.keeper, address(apps), abi.encodeCall(apps.retire, (id)));
        _mustFail(a.keeper, address(payments), abi.encodeCall(payments.withdraw, (a.account, a.keeper, 1)));
        _mustFail(a.keeper, address(payments), abi.encodeCall(payments.pay, (a.account, a.keeper, 1)));
        ILeases.Quote memory quote = _offer(which, a.account, 0, 0, 0);
        quote.pod = "another";
        bytes memory signature = _sign(quote, _providers[which % 2].key);
        bytes memory call = abi.encodeCall(apps.deploy, (id, 0, quote, signature, new bytes32[](0)));
        _mustFail(a.keeper, address(apps), call);
        quote.pod = POD;
        call = abi.encodeCall(apps.deploy, (id, 0, quote, signature, new bytes32[](0)));
        _mustFail(stranger, address(apps), call);
    }

    function _streamsOf(uint96 ref) private view returns (bool) {
        return payments.stream(streamIdOf(address(apps), ref)).state == IPayments.StreamState.Running;
    }

    function _pickApp(uint256 which) private view returns (AppId id, IApps.App memory a, bool found) {
        uint256 count = apps.count();
        for (uint256 i = 0; i < count && i < 40; ++i) {
            id = AppId.wrap(uint64(1 + addmod(which, i, count)));
            a = apps.appOf(id);
            if (a.owner != address(0)) return (id, a, true);
        }
    }
}
