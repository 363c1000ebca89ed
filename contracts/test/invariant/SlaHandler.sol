// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { ISla } from "../../src/interfaces/ISla.sol";
import { AccountId, LeaseId } from "../../src/types/Ids.sol";
import { LeasesHandler } from "./LeasesHandler.sol";

/// @title SlaHandler
/// @notice Challengers, providers and watchers, who also lie, come and go; what they may not do has to be refused.
abstract contract SlaHandler is LeasesHandler {
    bytes32[] private _reports;
    /// @notice What a committee said that did not count, though it should have, or counted, though it should not.
    uint256 public wrongReports;

    function challenge(uint256 which) external act("challenge") {
        (LeaseId id, bool found) = _pickLease(which, ILeases.State.Active);
        if (!found) return;
        address owner = _ownerOf(payments.stream(_streamOf(id)).account);
        if (token.balanceOf(owner) < 1e6) return;
        _tries(owner, address(sla), abi.encodeCall(sla.challenge, (id)), 1);
    }

    function answer(uint256 which) external act("answer") {
        (LeaseId id, bool found) = _pickChallenged(which);
        if (!found) return;
        address who = payments.stream(_streamOf(id)).payee;
        _tries(who, address(sla), abi.encodeCall(sla.answer, (id)), 1);
    }

    function resolve(uint256 which) external act("resolve") {
        (LeaseId id, bool found) = _pickChallenged(which);
        if (!found) return;
        ILeases.LeaseView memory v = _viewOf(id);
        // Resolved, and what follows: a slash, and the close of lease and stream, with what is left of the lock.
        uint256 events = 1;
        uint40 since = sla.challengeOf(id).since;
        bool closed = v.lease.state == ILeases.State.Closed;
        bool dark = !closed || v.lease.endsAt > since + 5 minutes;
        bool taken = dark && v.coverage != 0 && (!closed || block.timestamp < v.lease.endsAt + CLAIM_WINDOW);
        if (taken) ++events;
        if (dark && !closed) {
            events += _streamRuns(id) ? 2 : 1;
        }
        _tries(stranger, address(sla), abi.encodeCall(sla.resolve, (id)), events);
    }

    function join(uint256 who) external act("join") {
        _tries(_watchers[who % 11].addr, address(sla), abi.encodeCall(sla.join, ()), 2);
    }

    /// @notice Rarely, or there would be no committees.
    function leave(uint256 who) external act("leave") {
        if (who % 3 != 0) return;
        _tries(_watchers[who % 11].addr, address(sla), abi.encodeCall(sla.leave, ()), 2);
    }

    function openEpoch() external act("openEpoch") {
        _tries(stranger, address(sla), abi.encodeCall(sla.openEpoch, ()), 1);
    }

    /// @notice A committee says that a lease was away, in the epoch that runs or in one of the last.
    function report(uint256 which, uint16 ago, uint16 secs, uint8 missing) external act("report") {
        if (sla.committee(LeaseId.wrap(1), uint40(block.timestamp) / 1 hours).length == 0) {
            (bool opened,) = address(sla).call(abi.encodeCall(sla.openEpoch, ()));
            if (opened) _expectEvents(1);
            return;
        }
        (LeaseId id, bool found) =
            _pickLease(which, which % 4 == 0 ? ILeases.State.Closed : ILeases.State.Active);
        if (!found) return;
        uint40 to = uint40(block.timestamp) - uint40(bound(ago, 0, 3 hours));
        uint40 from = to - uint40(bound(secs, 1, 1 hours));
        // An outage goes on more often than a new one begins, and lies in one epoch.
        ISla.Outage memory o = sla.outageOf(id);
        if (o.to != 0 && o.to + 4 hours > to && secs % 2 == 0) from = o.to < to ? o.to : from;
        if (from / 1 hours != (to - 1) / 1 hours) from = (to - 1) / 1 hours * 1 hours;
        _reportAs(id, from, to, missing % 8 == 0 ? 4 : 5 + missing % 3);
    }

    /// @notice Anybody sends any witness its share.
    function reward(uint256 which, uint8 member) external act("reward") {
        if (_reports.length == 0) return;
        bytes32 id = _reports[which % _reports.length];
        uint256 events = staking.claimable(address(sla)) != 0 ? 2 : 1;
        _tries(stranger, address(sla), abi.encodeCall(sla.reward, (id, member % 8)), events);
    }

    /// @notice A watcher is shown to have said two things.
    function equivocate(uint256 who, uint256 which) external act("equivocate") {
        if (who % 4 != 0) return;
        Account memory w = _watchers[who % 11];
        LeaseId id = LeaseId.wrap(uint64(which));
        ISla.Statement memory up = ISla.Statement(id, 10, 20, true);
        ISla.Statement memory down = ISla.Statement(id, 19, 30, false);
        uint256 events = sla.watcherOf(w.addr).seat != 0 ? 4 : 3;
        bytes memory call =
            abi.encodeCall(sla.equivocated, (w.addr, up, _state(w.key, up), down, _state(w.key, down)));
        _tries(_payees[who % 3], address(sla), call, events);
    }

    function claimFromSla(uint256 who) external act("claimFromSla") {
        address[] memory all = people();
        address claimer = all[who % 7];
        _tries(claimer, address(sla), abi.encodeCall(sla.claim, (claimer)), 1);
    }

    /// @notice What nobody may do, whatever the state.
    function attackSla(uint256 which, uint40 from) external act("") {
        (LeaseId id, bool found) = _pickLease(which, ILeases.State.Active);
        if (!found) return;
        bytes memory call = abi.encodeCall(leases.compensate, (id, 1, stranger, 0));
        _mustFail(stranger, address(leases), call);
        _mustFail(stranger, address(leases), abi.encodeCall(leases.closeDark, (id, 0)));
        _mustFail(stranger, address(sla), abi.encodeCall(sla.challenge, (id)));
        _mustFail(stranger, address(sla), abi.encodeCall(sla.answer, (id)));
        _mustFail(stranger, address(sla), abi.encodeCall(sla.claim, (stranger)));
        from = uint40(block.timestamp) - 100;
        uint8[] memory members = new uint8[](5);
        bytes[] memory signatures = new bytes[](5);
        for (uint8 i = 0; i < 5; ++i) {
            members[i] = i;
            signatures[i] = _state(_watchers[i].key, ISla.Statement(id, from, from + 50, true));
        }
        // Signed, but that it was up.
        call = abi.encodeCall(sla.report, (id, from, from + 50, members, signatures));
        _mustFail(stranger, address(sla), call);
        _mustFail(
            payments.stream(_streamOf(id)).payee,
            address(payments),
            abi.encodeCall(payments.cutStream, (_streamOf(id), 0))
        );
    }

    function _reportAs(LeaseId id, uint40 from, uint40 to, uint256 count) private {
        bytes memory call = _reportOf(id, from, to, count);
        if (call.length == 0) return;
        ILeases.LeaseView memory v = _viewOf(id);
        bool outside = count < 5 || _isOutside(v, from, to);
        uint256 closing = _streamRuns(id) ? 2 : 1;
        vm.prank(stranger);
        (bool ok,) = address(sla).call(call);
        if (!ok) return _expectRefusal();
        if (outside) ++wrongReports;
        ISla.Outage memory o = sla.outageOf(id);
        _reports.push(keccak256(abi.encode(id, o.from, o.to)));
        uint256 events = _lockAmount(v.provider, id) == v.coverage ? 1 : 2;
        bool closes =
            v.lease.state == ILeases.State.Active && v.lease.full != 0 && o.to - o.from >= v.lease.full;
        // Of coverage that is left, the lock is released for later.
        if (closes && _lockAmount(v.provider, id) != 0) ++closing;
        _expectEvents(events + (closes ? closing : 0));
    }

    /// @dev What the first `count` members say; empty where there is no committee.
    function _reportOf(LeaseId id, uint40 from, uint40 to, uint256 count)
        private
        view
        returns (bytes memory)
    {
        address[] memory all = sla.committee(id, from / 1 hours);
        if (all.length == 0) return "";
        uint8[] memory members = new uint8[](count);
        bytes[] memory signatures = new bytes[](count);
        ISla.Statement memory s = ISla.Statement(id, from, to, false);
        for (uint8 i = 0; i < count; ++i) {
            members[i] = i;
            signatures[i] = _state(_keyOf(all[i]), s);
        }
        return abi.encodeCall(sla.report, (id, from, to, members, signatures));
    }

    /// @dev Whether that is no time for which anything could be owed.
    function _isOutside(ILeases.LeaseView memory v, uint40 from, uint40 to) private view returns (bool) {
        if (_wasDry(v, from, to) || from < v.lease.activatedAt || to > block.timestamp) return true;
        return v.lease.state == ILeases.State.Closed && to > v.lease.endsAt;
    }

    /// @dev Whether the account could not pay for all of that time.
    function _wasDry(ILeases.LeaseView memory v, uint40 from, uint40 to) private view returns (bool) {
        return to > v.fundedUntil || from < payments.resumedAt(v.account);
    }

    function _lockAmount(address who, LeaseId id) private view returns (uint256) {
        return staking.lockOf(who, address(leases), LeaseId.unwrap(id)).amount;
    }

    function _streamRuns(LeaseId id) private view returns (bool) {
        return payments.stream(_streamOf(id)).state != IPayments.StreamState.Closed;
    }

    function _viewOf(LeaseId id) private view returns (ILeases.LeaseView memory) {
        LeaseId[] memory ids = new LeaseId[](1);
        ids[0] = id;
        return leases.leases(ids)[0];
    }

    function _pickChallenged(uint256 which) private view returns (LeaseId id, bool found) {
        uint256 count = leases.count();
        for (uint256 i = 0; i < count && i < 40; ++i) {
            id = LeaseId.wrap(uint64(1 + addmod(which, i, count)));
            if (sla.challengeOf(id).challenger != address(0)) return (id, true);
        }
    }

    function _keyOf(address who) private view returns (uint256) {
        for (uint256 i = 0; i < 11; ++i) {
            if (_watchers[i].addr == who) return _watchers[i].key;
        }
        return 1;
    }

    function _state(uint256 key, ISla.Statement memory s) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 t) = vm.sign(key, sla.digest(s));
        return abi.encodePacked(r, t, v);
    }

    function _mustFail(address caller, address target, bytes memory call) internal {
        _expectRefusal();
        vm.prank(caller);
        (bool ok,) = target.call(call);
        require(!ok, string.concat("a call went through that must not: ", vm.toString(bytes4(call))));
        ++done["refused"];
    }
}
