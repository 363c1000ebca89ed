// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { IRegistry } from "../../src/interfaces/IRegistry.sol";
import { IStaking } from "../../src/interfaces/IStaking.sol";
import { AccountId, LeaseId } from "../../src/types/Ids.sol";
import { StakingHandler } from "./StakingHandler.sol";

/// @title LeasesHandler
/// @notice Payers, their agents and providers, who do only what they may.
abstract contract LeasesHandler is StakingHandler {
    /// @dev The last quote that opened a lease, for whoever tries to use it again.
    ILeases.Quote internal _lastQuote;
    bytes internal _lastSignature;

    function list(uint256 who, uint128 cpu) external act("list") {
        IRegistry.Listing memory listing = _listing();
        listing.prices.cpu = cpu;
        vm.prank(_provider(who));
        registry.list(listing);
        _expectEvents(1);
    }

    function delist(uint256 who) external act("delist") {
        if (who % 4 != 0 || registry.versionOf(_provider(who)) == 0) return;
        vm.prank(_provider(who));
        registry.delist();
        _expectEvents(1);
    }

    function heartbeat(uint256 who) external act("heartbeat") {
        if (registry.versionOf(_provider(who)) == 0) return;
        vm.prank(_provider(who));
        registry.heartbeat();
        _expectEvents(1);
    }

    function setAgent(uint256 which, bool allowed) external act("setAgent") {
        AccountId id = _id(which);
        vm.prank(_ownerOf(id));
        leases.setAgent(id, keeper, allowed);
        _expectEvents(1);
    }

    function cancelNonces(uint256 who, uint256 mask) external act("cancelNonces") {
        vm.prank(_provider(who));
        leases.cancelNonces(0, mask & 0xf << _nonces % 250);
        _expectEvents(1);
    }

    function openLease(uint256 which, uint256 who, uint256 slot, uint128 rate, uint32 secs, uint128 coverage)
        external
        act("openLease")
    {
        AccountId id = _id(which);
        ILeases.Quote memory quote = _offer(who, id, rate, secs, coverage);
        slot %= 3;
        if (quote.version == 0 || leases.isSlotTaken(id, uint32(slot))) return;
        if (leases.isNonceUsed(quote.provider, quote.nonce)) return;
        if (!_lets(id, 0, quote) || !_covers(quote.provider, 0, quote.coverage)) return;
        if (!_carries(payments.account(id), uint256(quote.rate) * quote.lock)) return;
        bytes memory signature = _sign(quote, _providers[who % 2].key);
        vm.prank(leases.isAgent(id, keeper) ? keeper : _ownerOf(id));
        leases.open(quote, signature, id, uint32(slot));
        _expectEvents(quote.coverage == 0 ? 2 : 3);
        (_lastQuote, _lastSignature) = (quote, signature);
    }

    function activate(uint256 which) external act("activate") {
        (LeaseId id, bool found) = _pickLease(which, ILeases.State.Pending);
        if (!found || block.timestamp > leases.lease(id).startBy) return;
        IPayments.StreamView memory s = payments.stream(_streamOf(id));
        if (s.state != IPayments.StreamState.Reserved) return;
        if (!_carries(payments.account(s.account), 0)) return;
        vm.prank(s.payee);
        leases.activate(id);
        _expectEvents(2);
    }

    function amend(uint256 which, uint128 rate, uint32 secs, uint128 coverage) external act("amend") {
        (LeaseId id, bool found) =
            _pickLease(which, which % 2 == 0 ? ILeases.State.Active : ILeases.State.Pending);
        if (!found) return;
        IPayments.StreamView memory s = payments.stream(_streamOf(id));
        if (s.state == IPayments.StreamState.Closed) return;
        uint256 who = s.payee == _providers[0].addr ? 0 : 1;
        uint128 old = staking.lockOf(s.payee, address(leases), LeaseId.unwrap(id)).amount;
        ILeases.Quote memory quote = _offer(who, s.account, rate, secs, coverage);
        quote.lease = id;
        if (quote.coverage < old) quote.coverage = old;
        if (quote.version == 0 || leases.isNonceUsed(quote.provider, quote.nonce)) return;
        if (!_covers(s.payee, old, quote.coverage)) return;
        if ((quote.rate > s.rate || quote.lock > s.lock) && !_lets(s.account, s.rate, quote)) return;
        uint256 lockup = uint256(quote.rate) * quote.lock;
        uint256 before = uint256(s.rate) * s.lock;
        IPayments.AccountView memory a = payments.account(s.account);
        a.lockup -= uint128(before);
        if ((quote.rate > s.rate || lockup > before) && !_carries(a, lockup)) return;
        bytes memory signature = _sign(quote, _providers[who].key);
        vm.prank(_ownerOf(s.account));
        leases.amend(id, quote, signature);
        _expectEvents(quote.coverage == old ? 2 : 3);
    }

    function giveNotice(uint256 which, uint256 why) external act("giveNotice") {
        (LeaseId id, bool found) = _pickLease(which, ILeases.State.Active);
        if (!found || leases.lease(id).endsAt != 0) return;
        vm.prank(payments.stream(_streamOf(id)).payee);
        leases.giveNotice(id, _providersReason(why));
        _expectEvents(1);
    }

    function closeByPayer(uint256 which, uint256 why) external act("closeByPayer") {
        (LeaseId id, bool found) =
            _pickLease(which, which % 4 == 0 ? ILeases.State.Pending : ILeases.State.Active);
        if (!found) return;
        address caller = _ownerOf(payments.stream(_streamOf(id)).account);
        _close(id, ILeases.CloseReason(1 + why % 3), caller, false);
    }

    function closeByProvider(uint256 which, uint256 why) external act("closeByProvider") {
        (LeaseId id, bool found) =
            _pickLease(which, which % 4 == 0 ? ILeases.State.Pending : ILeases.State.Active);
        if (!found) return;
        ILeases.Lease memory l = leases.lease(id);
        bool noticed = l.endsAt != 0 && block.timestamp >= l.endsAt;
        address caller = payments.stream(_streamOf(id)).payee;
        _close(id, _providersReason(why), caller, l.state == ILeases.State.Active && !noticed);
    }

    /// @notice Whatever anybody may close, for whatever reason it may be closed.
    function closeByAnybody(uint256 which) external act("closeByAnybody") {
        uint256 count = leases.count();
        for (uint256 i = 0; i < count && i < 40; ++i) {
            LeaseId id = LeaseId.wrap(uint64(1 + addmod(which, i, count)));
            ILeases.CloseReason reason = _openReason(id);
            if (reason == ILeases.CloseReason.None) continue;
            return _close(id, reason, stranger, false);
        }
    }

    /// @dev Why anybody may close it now; `None` if nobody may.
    function _openReason(LeaseId id) internal view returns (ILeases.CloseReason) {
        ILeases.Lease memory l = leases.lease(id);
        if (!_isOpen(l.state)) return ILeases.CloseReason.None;
        IPayments.StreamView memory s = payments.stream(_streamOf(id));
        uint256 end = payments.account(s.account).fundedUntil;
        if (s.state == IPayments.StreamState.Closed) return ILeases.CloseReason.StreamEnded;
        if (l.state == ILeases.State.Pending && block.timestamp > l.startBy) {
            return ILeases.CloseReason.StartMissed;
        }
        IPayments.AccountView memory a = payments.account(s.account);
        if (l.state == ILeases.State.Pending && (block.timestamp > end || a.free < a.lockup)) {
            return ILeases.CloseReason.AccountDry;
        }
        if (l.state == ILeases.State.Active && block.timestamp > end + s.lock) {
            return ILeases.CloseReason.AccountDry;
        }
        return ILeases.CloseReason.None;
    }

    function _pickLease(uint256 which, ILeases.State state) internal view returns (LeaseId id, bool found) {
        uint256 count = leases.count();
        for (uint256 i = 0; i < count && i < 40; ++i) {
            id = LeaseId.wrap(uint64(1 + addmod(which, i, count)));
            if (leases.lease(id).state == state) return (id, true);
        }
    }

    function _offer(uint256 who, AccountId id, uint128 rate, uint32 secs, uint128 coverage)
        internal
        returns (ILeases.Quote memory quote)
    {
        quote = _quote(++_nonces);
        quote.provider = _provider(who);
        quote.account = id;
        quote.version = registry.versionOf(quote.provider);
        quote.rate = _rate(rate, MAX_RATE);
        quote.lock = uint32(bound(secs, 0, 6 hours));
        quote.coverage = coverage % 4 == 0 ? 0 : uint128(bound(coverage, 0, 100e6));
        quote.startWithin = uint24(bound(secs, 0, 12 hours));
        quote.notice = uint24(bound(coverage, 0, 2 days));
    }

    /// @dev Whether the owner lets Leases open or raise to this.
    function _lets(AccountId id, uint256 old, ILeases.Quote memory quote) private view returns (bool) {
        IPayments.Approval memory p = payments.approval(id, address(leases));
        return block.timestamp <= p.expiry && quote.lock <= p.maxLock
            && p.rateUsed - old + quote.rate <= p.rateLimit;
    }

    /// @dev Whether the provider's bond has room for coverage `now_` instead of `old`.
    function _covers(address who, uint128 old, uint128 now_) private view returns (bool) {
        if (now_ == old) return true;
        IStaking.Bond memory b = staking.bondOf(who);
        return staking.isLocker(who, address(leases)) && now_ - old <= b.bonded - b.locked;
    }

    function _close(LeaseId id, ILeases.CloseReason reason, address caller, bool early) private {
        IPayments.StreamView memory s = payments.stream(_streamOf(id));
        uint256 coverage = staking.lockOf(s.payee, address(leases), LeaseId.unwrap(id)).amount;
        bool penalty =
            early && s.state != IPayments.StreamState.Closed && coverage * EARLY_CLOSE_BPS >= 10_000;
        vm.prank(caller);
        leases.close(id, reason);
        uint256 events = s.state == IPayments.StreamState.Closed ? 1 : 2;
        _expectEvents(events + (penalty ? 1 : 0) + (coverage == 0 ? 0 : 1));
    }

    function _providersReason(uint256 why) private pure returns (ILeases.CloseReason) {
        return ILeases.CloseReason(uint256(ILeases.CloseReason.ProviderDraining) + why % 7);
    }
}
