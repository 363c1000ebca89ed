// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { IStaking } from "../../src/interfaces/IStaking.sol";
import { AccountId, LeaseId, StreamId } from "../../src/types/Ids.sol";
import { HostileToken } from "../tokens/HostileToken.sol";
import { AppsHandler } from "./AppsHandler.sol";
import { Model } from "./Model.sol";
import { World } from "./World.sol";

/// @title Market
/// @notice All handlers, and those who do what they may not: each of their calls has to revert, whatever the state.
contract Market is AppsHandler {
    constructor(bool hostile) World(hostile) { }

    /// @notice From here on the token misbehaves in another way, half of the time not at all.
    function misbehave(uint256 how, uint256 who) external {
        if (address(token) != address(bad)) return;
        ++done["misbehave"];
        if (how % 10 == 0) return bad.setTrick(HostileToken.Trick.TakesFee);
        if (how % 10 == 1) return bad.setTrick(HostileToken.Trick.ReturnsFalse);
        if (how % 10 == 2) return bad.setTrick(HostileToken.Trick.ReturnsNothing);
        if (how % 10 == 3) return bad.setBlocked(people()[who % 7]);
        if (how % 10 < 6) return _reenter(who);
        bad.setTrick(HostileToken.Trick.None);
    }

    /// @notice Tokens that come without a call belong to nobody.
    function stray(uint256 amount, bool toStaking) external {
        // A token that takes a fee brings less than is sent.
        if (_trick() != HostileToken.Trick.None) return;
        amount = bound(amount, 1, 1e6);
        token.transfer(toStaking ? address(staking) : address(payments), amount);
        if (toStaking) strayStaking += amount;
        else strayPayments += amount;
        ++done["stray"];
    }

    function attackPayments(uint256 which, uint128 seed) external act("") {
        _takeFromAccount(which, seed);
        _takeMoreThanIsFree(which, seed);
        _exceedApproval(which, seed, seed);
        _meddleWithStream(which, seed);
        _topUpTooLittle(which);
        _openUncovered(which, seed);
    }

    function attackStaking(uint256 who, uint128 seed) external act("") {
        _takeFromBond(who, seed, seed);
        _unlockTooSoon(seed);
    }

    function attackLeases(uint256 which, uint256 seed) external act("") {
        _useQuoteAgain(seed);
        _openInTakenSlot(which, seed);
        _meddleWithLease(which);
    }

    function _takeFromAccount(uint256 which, uint256 amount) private {
        AccountId id = _id(which);
        amount = bound(amount, 1, 1e9);
        _mustFail(stranger, address(payments), abi.encodeCall(payments.withdraw, (id, stranger, amount)));
        _mustFail(stranger, address(payments), abi.encodeCall(payments.pay, (id, payee, amount)));
        _mustFail(stranger, address(payments), abi.encodeCall(payments.approve, (id, stranger, 1, 1, 1, 1)));
        _mustFail(
            stranger, address(payments), abi.encodeCall(payments.openStream, (id, 0, payee, 1, 0, true))
        );
        for (uint256 i = 0; i < 2; ++i) {
            address operator = _operators[i];
            _mustFail(operator, address(payments), abi.encodeCall(payments.pay, (id, operator, amount)));
            bytes memory call = abi.encodeCall(payments.openStream, (id, 0, operator, 0, 0, true));
            _mustFail(operator, address(payments), call);
        }
    }

    function _takeMoreThanIsFree(uint256 which, uint256 more) private {
        AccountId id = _id(which);
        IPayments.AccountView memory a = payments.account(id);
        uint256 most = a.free > a.lockup ? (a.free - a.lockup) / SCALE : 0;
        uint256[2] memory amounts = [most + 1, most + bound(more, 1, 1e12)];
        for (uint256 i = 0; i < 2; ++i) {
            bytes memory call = abi.encodeCall(payments.withdraw, (id, a.owner, amounts[i]));
            _mustFail(a.owner, address(payments), call);
            _mustFail(a.owner, address(payments), abi.encodeCall(payments.pay, (id, a.owner, amounts[i])));
        }
    }

    /// @dev A stream on an account that is dry, or whose lockup would not be covered.
    function _openUncovered(uint256 which, uint128 more) private {
        AccountId id = _dryId(which);
        IPayments.AccountView memory a = payments.account(id);
        uint128 lockup = _isDry(a) ? 0 : uint128((a.free > a.lockup ? a.free - a.lockup : 0) + 1);
        if (more % 2 == 0) lockup += more % 1e9;
        bytes memory call =
            abi.encodeCall(payments.openStream, (id, type(uint96).max, payee, lockup, 1, more % 3 == 0));
        _mustFail(a.owner, address(payments), call);
    }

    function _exceedApproval(uint256 which, uint256 who, uint128 more) private {
        AccountId id = _id(which);
        address operator = _operators[who % 2];
        IPayments.Approval memory p = payments.approval(id, operator);
        uint256 left = p.rateLimit > p.rateUsed ? p.rateLimit - p.rateUsed : 0;
        uint128 rate = uint128(left + bound(more, 1, MAX_RATE));
        _mustFail(
            operator,
            address(payments),
            abi.encodeCall(payments.openStream, (id, type(uint96).max, payee, rate, 0, true))
        );
        uint256 amount = p.payLimit / SCALE + bound(more, 1, 1e9);
        _mustFail(operator, address(payments), abi.encodeCall(payments.pay, (id, payee, amount)));
    }

    function _meddleWithStream(uint256 which, uint128 rate) private {
        (StreamId id, bool found) = _pickStream(which, IPayments.StreamState.Running, true);
        if (!found) return;
        IPayments.StreamView memory s = payments.stream(id);
        address[2] memory callers = [stranger, s.payee];
        for (uint256 i = 0; i < callers.length; ++i) {
            if (callers[i] == _ownerOf(s.account)) continue;
            _mustFail(callers[i], address(payments), abi.encodeCall(payments.setRate, (id, rate, 0)));
            _mustFail(callers[i], address(payments), abi.encodeCall(payments.closeStream, (id)));
            _mustFail(callers[i], address(payments), abi.encodeCall(payments.startStream, (id)));
        }
    }

    function _topUpTooLittle(uint256 which) private {
        AccountId id = _dryId(which);
        IPayments.AccountView memory a = payments.account(id);
        uint256 needed = a.lockup > a.rate ? a.lockup : a.rate;
        if (!_isDry(a) || a.free + SCALE >= needed) return;
        uint256 amount = (needed - a.free - 1) / SCALE;
        bytes32 salt = _saltOf(id);
        if (amount != 0) {
            _mustFail(
                address(this), address(payments), abi.encodeCall(payments.deposit, (a.owner, salt, amount))
            );
        }
    }

    function _takeFromBond(uint256 who, uint256 ref, uint128 more) private {
        address bonder = _provider(who);
        uint96 key = uint96(ref % 5);
        IStaking.Bond memory b = staking.bondOf(bonder);
        uint128 above = uint128(bound(more, 1, 1e9));
        uint256 free = b.bonded - b.locked;
        _mustFail(bonder, address(staking), abi.encodeCall(staking.requestUnbond, (free + above)));
        uint128 locked = staking.lockOf(bonder, _locker, key).amount;
        _mustFail(
            _locker,
            address(staking),
            abi.encodeCall(staking.slash, (bonder, key, locked + above, stranger, address(0), 0))
        );
        _mustFail(
            stranger,
            address(staking),
            abi.encodeCall(staking.slash, (bonder, key, above, stranger, address(0), 0))
        );
        _mustFail(stranger, address(staking), abi.encodeCall(staking.lock, (bonder, key, above)));
        uint128 room = uint128(free) + above;
        _mustFail(_locker, address(staking), abi.encodeCall(staking.lock, (bonder, key, room)));
        _mustFail(stranger, address(staking), abi.encodeCall(staking.claim, (stranger)));
        if (block.timestamp < b.withdrawableAt) {
            _mustFail(bonder, address(staking), abi.encodeCall(staking.withdraw, (bonder)));
        }
    }

    function _unlockTooSoon(uint256 which) private {
        Model.LockKey[] memory keys = model.locks();
        if (keys.length == 0) return;
        Model.LockKey memory key = keys[which % keys.length];
        IStaking.Lock memory l = staking.lockOf(key.bonder, key.locker, key.ref);
        if (l.amount != 0 && l.releaseAt != 0 && block.timestamp >= l.releaseAt) return;
        _mustFail(
            stranger, address(staking), abi.encodeCall(staking.unlock, (key.bonder, key.locker, key.ref))
        );
    }

    function _useQuoteAgain(uint256 slot) private {
        if (_lastSignature.length == 0) return;
        AccountId id = _lastQuote.account;
        bytes memory call =
            abi.encodeCall(leases.open, (_lastQuote, _lastSignature, id, uint32(100 + slot % 8)));
        _mustFail(_ownerOf(id), address(leases), call);
        _mustFail(stranger, address(leases), call);
    }

    function _openInTakenSlot(uint256 which, uint256 who) private {
        AccountId id = _id(which);
        for (uint32 slot = 0; slot < 3; ++slot) {
            if (!leases.isSlotTaken(id, slot)) continue;
            ILeases.Quote memory quote = _offer(who, id, 0, 0, 0);
            bytes memory signature = _sign(quote, _providers[who % 2].key);
            _mustFail(
                _ownerOf(id), address(leases), abi.encodeCall(leases.open, (quote, signature, id, slot))
            );
        }
    }

    function _meddleWithLease(uint256 which) private {
        uint256 count = leases.count();
        if (count == 0) return;
        LeaseId id = LeaseId.wrap(uint64(1 + which % count));
        ILeases.CloseReason holds = _openReason(id);
        for (uint256 r = 0; r <= uint256(type(ILeases.CloseReason).max); ++r) {
            ILeases.CloseReason reason = ILeases.CloseReason(r);
            // One that may be closed by anybody may be so for more than one reason, and without its stream for any.
            if (holds == ILeases.CloseReason.StreamEnded) continue;
            if (holds != ILeases.CloseReason.None && r >= uint256(ILeases.CloseReason.StartMissed)) continue;
            _mustFail(stranger, address(leases), abi.encodeCall(leases.close, (id, reason)));
        }
        _mustFail(stranger, address(leases), abi.encodeCall(leases.activate, (id)));
        _mustFail(
            stranger,
            address(leases),
            abi.encodeCall(leases.giveNotice, (id, ILeases.CloseReason.ProviderFault))
        );
    }

    /// @dev The token calls back into whoever moves it.
    function _reenter(uint256 how) private {
        uint256 count = model.streamCount();
        StreamId[] memory ids = new StreamId[](count == 0 ? 0 : 1);
        if (count != 0) ids[0] = model.streamIds(how % count);
        AccountId id = _id(how);
        bytes[6] memory calls = [
            abi.encodeCall(payments.collect, (ids)),
            abi.encodeCall(payments.withdraw, (id, address(bad), 1)),
            abi.encodeCall(payments.pay, (id, address(bad), 1)),
            abi.encodeCall(staking.claim, (address(bad))),
            abi.encodeCall(sla.claim, (address(bad))),
            abi.encodeCall(auction.claim, (address(bad)))
        ];
        address[3] memory targets = [address(staking), address(sla), address(auction)];
        bad.setReentry(how % 6 < 3 ? address(payments) : targets[how % 3], calls[how % 6], false);
    }
}
