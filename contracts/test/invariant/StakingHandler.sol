// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IStaking } from "../../src/interfaces/IStaking.sol";
import { Model } from "./Model.sol";
import { PaymentsHandler } from "./PaymentsHandler.sol";

/// @title StakingHandler
/// @notice Bonders, a locker beside Leases, and those who were paid by a slash, who do only what they may.
abstract contract StakingHandler is PaymentsHandler {
    function bond(uint256 who, uint256 amount) external act("bond") {
        bool fails = _inFails();
        if (fails) _refuses();
        staking.bond(_provider(who), bound(amount, 1, 500e6));
        if (!fails) _expectEvents(1);
    }

    function requestUnbond(uint256 who, uint256 amount) external act("requestUnbond") {
        IStaking.Bond memory b = staking.bondOf(_provider(who));
        if (b.bonded == b.locked) return;
        vm.prank(_provider(who));
        staking.requestUnbond(bound(amount, 1, b.bonded - b.locked));
        _expectEvents(1);
    }

    function cancelUnbond(uint256 who) external act("cancelUnbond") {
        if (staking.bondOf(_provider(who)).unbonding == 0) return;
        vm.prank(_provider(who));
        staking.cancelUnbond();
        _expectEvents(1);
    }

    function withdrawBond(uint256 who) external act("withdrawBond") {
        address bonder = _provider(who);
        IStaking.Bond memory b = staking.bondOf(bonder);
        if (b.unbonding == 0 || block.timestamp < b.withdrawableAt) return;
        bool fails = _outFails(bonder);
        vm.prank(bonder);
        if (fails) _refuses();
        staking.withdraw(bonder);
        if (!fails) _expectEvents(1);
    }

    /// @notice Mostly yes, or nothing would be locked any more.
    function setLocker(uint256 who, uint256 which) external act("setLocker") {
        vm.prank(_provider(who));
        staking.setLocker(which % 2 == 0 ? _locker : address(leases), which % 8 > 1);
        _expectEvents(1);
    }

    function lock(uint256 who, uint256 ref, uint128 amount) external act("lock") {
        address bonder = _provider(who);
        IStaking.Bond memory b = staking.bondOf(bonder);
        uint96 key = uint96(ref % 5);
        if (!staking.isLocker(bonder, _locker) || b.bonded == b.locked) return;
        if (staking.lockOf(bonder, _locker, key).releaseAt != 0) return;
        vm.prank(_locker);
        staking.lock(bonder, key, uint128(bound(amount, 1, b.bonded - b.locked)));
        _expectEvents(1);
    }

    function release(uint256 who, uint256 ref, uint32 secs) external act("release") {
        address bonder = _provider(who);
        uint96 key = uint96(ref % 5);
        IStaking.Lock memory l = staking.lockOf(bonder, _locker, key);
        if (l.releaseAt != 0) return;
        vm.prank(_locker);
        staking.release(bonder, key, uint40(block.timestamp + bound(secs, 0, 3 days)));
        _expectEvents(l.amount == 0 ? 0 : 1);
    }

    /// @notice Any lock whose time is over, freed by nobody in particular.
    function unlock(uint256 which) external act("unlock") {
        Model.LockKey[] memory keys = model.locks();
        for (uint256 i = 0; i < keys.length; ++i) {
            Model.LockKey memory key = keys[addmod(which, i, keys.length)];
            IStaking.Lock memory l = staking.lockOf(key.bonder, key.locker, key.ref);
            if (l.amount == 0 || l.releaseAt == 0 || block.timestamp < l.releaseAt) continue;
            vm.prank(stranger);
            staking.unlock(key.bonder, key.locker, key.ref);
            _expectEvents(1);
            return;
        }
    }

    function slash(uint256 who, uint256 ref, uint128 amount, uint128 reward) external act("slash") {
        address bonder = _provider(who);
        uint96 key = uint96(ref % 5);
        IStaking.Lock memory l = staking.lockOf(bonder, _locker, key);
        if (l.amount == 0 || (l.releaseAt != 0 && block.timestamp >= l.releaseAt)) return;
        amount = uint128(bound(amount, 1, l.amount));
        reward = uint128(bound(reward, 0, amount / 10));
        vm.prank(_locker);
        staking.slash(bonder, key, amount, _payers[ref % 2], _payees[ref % 3], reward);
        _expectEvents(1);
    }

    function claim(uint256 who) external act("claim") {
        address[] memory all = people();
        for (uint256 i = 0; i < all.length; ++i) {
            address claimer = all[addmod(who, i, all.length)];
            if (staking.claimable(claimer) == 0) continue;
            bool fails = _outFails(claimer);
            vm.prank(claimer);
            if (fails) _refuses();
            staking.claim(claimer);
            if (!fails) _expectEvents(1);
            return;
        }
    }

    function _provider(uint256 who) internal view returns (address) {
        return _providers[who % 2].addr;
    }
}
