// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IPayments } from "./interfaces/IPayments.sol";
import { AccountId, StreamId, accountIdOf, operatorOf, streamIdOf } from "./types/Ids.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { IERC20Permit } from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import { SafeCast } from "@openzeppelin/contracts/utils/math/SafeCast.sol";

/// @title Payments
/// @notice Accounts, streams and operators; see IPayments.
contract Payments is IPayments, Multicall, ReentrancyGuardTransient {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// @notice Units per token base unit, so that a slow stream of a coarse token loses nothing to rounding.
    uint256 public constant SCALE = 1e9;

    /// @notice The one token in which everything is settled.
    IERC20 public immutable TOKEN;

    /// @dev `settledAt` stops at the second in which the account ran dry, and means nothing while nothing runs. `dry`
    /// keeps it there until the account is funded again: a rate that is cut meanwhile must not stretch what was left
    /// of a second over the gap. The order puts what every operation needs into two words.
    struct Account {
        address owner;
        uint40 settledAt;
        uint40 clock;
        bool dry;
        uint128 free;
        uint128 rate;
        uint128 lockup;
        uint40 resumedAt;
    }

    /// @dev `clockAt` is the account's clock when `owed` was last brought up to date.
    struct Stream {
        AccountId account;
        address payee;
        uint40 clockAt;
        uint32 lock;
        StreamState state;
        uint128 rate;
        uint128 owed;
    }

    mapping(AccountId => Account) private _accounts;
    mapping(StreamId => Stream) private _streams;
    mapping(AccountId => mapping(address operator => Approval)) private _approvals;

    /// @param token The settlement token.
    constructor(IERC20 token) {
        if (address(token) == address(0)) revert Payments_Zero();
        TOKEN = token;
    }

    /// @inheritdoc IPayments
    function deposit(address owner, bytes32 salt, uint256 amount) external nonReentrant returns (AccountId) {
        return _deposit(owner, salt, amount);
    }

    /// @inheritdoc IPayments
    // slither-disable-next-line reentrancy-benign (permit comes first by its nature; what it could call back is guarded)
    function depositWithPermit(
        address owner,
        bytes32 salt,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant returns (AccountId) {
        // Anybody can play a permit first; the deposit then fails only if the allowance is not there.
        try IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) { }
            catch { }
        return _deposit(owner, salt, amount);
    }

    /// @inheritdoc IPayments
    function withdraw(AccountId id, address to, uint256 amount) external nonReentrant {
        if (to == address(0)) revert Payments_Zero();
        Account storage a = _owned(id);
        _settle(a);
        _spend(id, a, amount);
        emit Withdrawn(id, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc IPayments
    function approve(
        AccountId id,
        address operator,
        uint128 rateLimit,
        uint128 payLimit,
        uint32 maxLock,
        uint40 expiry
    ) external {
        _owned(id);
        Approval storage p = _approvals[id][operator];
        p.rateLimit = rateLimit;
        p.payLimit = payLimit;
        p.maxLock = maxLock;
        p.expiry = expiry;
        emit Approved(id, operator, rateLimit, payLimit, maxLock, expiry);
    }

    /// @inheritdoc IPayments
    function openStream(AccountId id, uint96 ref, address payee, uint128 rate, uint32 lock, bool start)
        external
        returns (StreamId streamId)
    {
        if (payee == address(0)) revert Payments_Zero();
        Account storage a = _accounts[id];
        _authorize(id, a, msg.sender, 0, rate, lock);
        if (payee == msg.sender) revert Payments_PaysItself(msg.sender);
        streamId = streamIdOf(msg.sender, ref);
        Stream storage s = _streams[streamId];
        if (s.state != StreamState.None) revert Payments_StreamExists(streamId);

        s.account = id;
        s.payee = payee;
        s.lock = lock;
        s.state = StreamState.Reserved;
        s.rate = rate;
        a.lockup += _lockup(rate, lock);
        if (start) _start(a, s);
        _requireFunded(id, a);
        emit StreamOpened(streamId, id, payee, rate, lock, start);
    }

    /// @inheritdoc IPayments
    function startStream(StreamId id) external {
        Stream storage s = _streams[id];
        if (msg.sender != operatorOf(id)) revert Payments_NotParty(id, msg.sender);
        if (s.state != StreamState.Reserved) revert Payments_WrongState(id, s.state);
        Account storage a = _accounts[s.account];
        _start(a, s);
        _requireFunded(s.account, a);
        emit StreamStarted(id);
    }

    /// @inheritdoc IPayments
    function setRate(StreamId id, uint128 rate, uint32 lock) external {
        Stream storage s = _streams[id];
        if (msg.sender != operatorOf(id)) revert Payments_NotParty(id, msg.sender);
        if (s.state != StreamState.Reserved && s.state != StreamState.Running) {
            revert Payments_WrongState(id, s.state);
        }
        AccountId accountId = s.account;
        Account storage a = _accounts[accountId];
        uint128 oldRate = s.rate;
        uint128 oldLockup = _lockup(oldRate, s.lock);
        uint128 newLockup = _lockup(rate, lock);
        // A raise is asked of the approval; a cut is always allowed, also of an operator that was revoked.
        if (rate > oldRate || lock > s.lock) _authorize(accountId, a, msg.sender, oldRate, rate, lock);
        else _giveBack(accountId, a, msg.sender, oldRate - rate);

        _settle(a);
        _accrue(s, a.clock);
        if (s.state == StreamState.Running) _turn(a, oldRate, rate);
        a.lockup = a.lockup - oldLockup + newLockup;
        s.rate = rate;
        s.lock = lock;
        if (rate > oldRate || newLockup > oldLockup) _requireFunded(accountId, a);
        emit RateSet(id, rate, lock);
    }

    /// @inheritdoc IPayments
    function closeStream(StreamId id) external {
        Stream storage s = _streams[id];
        Account storage a = _accounts[s.account];
        if (msg.sender != operatorOf(id) && msg.sender != a.owner) revert Payments_NotParty(id, msg.sender);
        _close(id, s, a);
        emit StreamClosed(id);
    }

    /// @inheritdoc IPayments
    function cutStream(StreamId id, uint40 clock) external returns (uint128 back) {
        Stream storage s = _streams[id];
        if (msg.sender != operatorOf(id)) revert Payments_NotParty(id, msg.sender);
        Account storage a = _accounts[s.account];
        uint256 rate = s.state == StreamState.Running ? s.rate : 0;
        _close(id, s, a);
        // A rate that was raised since may say more than was accrued; it must not keep the stream from ending.
        uint256 since = clock < a.clock ? rate * (a.clock - clock) : 0;
        // It fits, being at most what is owed.
        // forge-lint: disable-next-line(unsafe-typecast)
        back = since < s.owed ? uint128(since) : s.owed;
        s.owed -= back;
        a.free += back;
        emit StreamCut(id, back);
    }

    /// @inheritdoc IPayments
    function pay(AccountId id, address to, uint256 amount) external nonReentrant {
        if (to == address(0)) revert Payments_Zero();
        Account storage a = _accounts[id];
        if (a.owner == address(0)) revert Payments_NoAccount(id);
        if (msg.sender != a.owner) {
            if (to == msg.sender) revert Payments_PaysItself(msg.sender);
            Approval storage p = _approvals[id][msg.sender];
            if (block.timestamp > p.expiry) revert Payments_NotApproved(id, msg.sender);
            uint256 units = amount * SCALE;
            if (units > p.payLimit) revert Payments_PayAboveApproval(id, msg.sender, units, p.payLimit);
            p.payLimit -= units.toUint128();
        }
        _settle(a);
        _spend(id, a, amount);
        emit Paid(id, msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc IPayments
    // slither-disable-next-line divide-before-multiply (what is left of a base unit stays owed)
    function collect(StreamId[] calldata ids) external nonReentrant {
        for (uint256 i = 0; i < ids.length; ++i) {
            Stream storage s = _streams[ids[i]];
            if (s.state == StreamState.None) revert Payments_WrongState(ids[i], s.state);
            // The account need not be settled: what it pays follows from its clock, whenever it is looked at.
            Account storage a = _accounts[s.account];
            (uint40 dt,) = _elapsed(a);
            _accrue(s, a.clock + dt);
            // Rounded down: the part of a base unit that is left stays owed.
            uint256 amount = s.owed / SCALE;
            if (amount == 0) continue;
            s.owed -= (amount * SCALE).toUint128();
            emit Collected(ids[i], s.payee, amount);
            TOKEN.safeTransfer(s.payee, amount);
        }
    }

    /// @inheritdoc IPayments
    function account(AccountId id) external view returns (AccountView memory v) {
        Account storage a = _accounts[id];
        (uint40 dt, uint128 spent) = _elapsed(a);
        v.owner = a.owner;
        v.free = a.free - spent;
        v.lockup = a.lockup;
        v.rate = a.rate;
        v.clock = a.clock + dt;
        v.fundedUntil = type(uint40).max;
        if (a.rate != 0) {
            uint256 end = uint256(a.settledAt) + (a.dry ? 0 : a.free / a.rate);
            if (end < type(uint40).max) v.fundedUntil = end.toUint40();
        }
    }

    /// @inheritdoc IPayments
    function resumedAt(AccountId id) external view returns (uint40) {
        return _accounts[id].resumedAt;
    }

    /// @inheritdoc IPayments
    function ownerOf(AccountId id) external view returns (address) {
        return _accounts[id].owner;
    }

    /// @inheritdoc IPayments
    function stream(StreamId id) external view returns (StreamView memory v) {
        Stream storage s = _streams[id];
        Account storage a = _accounts[s.account];
        v = StreamView(s.account, s.payee, s.rate, s.lock, s.state, s.owed);
        if (s.state == StreamState.Running) {
            (uint40 dt,) = _elapsed(a);
            v.owed += s.rate * (a.clock + dt - s.clockAt);
        }
    }

    /// @inheritdoc IPayments
    function approval(AccountId id, address operator) external view returns (Approval memory) {
        return _approvals[id][operator];
    }

    function _deposit(address owner, bytes32 salt, uint256 amount) private returns (AccountId id) {
        if (owner == address(0) || amount == 0) revert Payments_Zero();
        id = accountIdOf(owner, salt);
        Account storage a = _accounts[id];
        if (a.owner == address(0)) a.owner = owner;
        bool dry = _isDry(a);
        if (dry) _settle(a);
        a.free += (amount * SCALE).toUint128();
        if (dry) {
            // What it now funds starts now, and is at least its lockup: otherwise a payer could hold on to a lease
            // by adding a second of it at a time.
            uint256 needed = a.lockup > a.rate ? a.lockup : a.rate;
            if (a.free < needed) revert Payments_TopUpTooSmall(id, needed - a.free);
            a.settledAt = uint40(block.timestamp);
            a.resumedAt = uint40(block.timestamp);
            a.dry = false;
        }
        emit Deposited(id, owner, salt, msg.sender, amount);

        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != amount) revert Payments_WrongAmountReceived(amount, received);
    }

    /// @dev For how long since `settledAt` the account was funded, and what that cost.
    function _elapsed(Account storage a) private view returns (uint40 dt, uint128 spent) {
        uint128 rate = a.rate;
        if (rate == 0 || a.dry) return (0, 0);
        uint256 funded = a.free / rate;
        uint256 elapsed = block.timestamp - a.settledAt;
        dt = uint40(elapsed < funded ? elapsed : funded);
        spent = rate * dt;
    }

    /// @dev Whether the account cannot pay for the time up to now.
    function _isDry(Account storage a) private view returns (bool) {
        uint128 rate = a.rate;
        if (rate == 0) return false;
        return a.dry || block.timestamp - a.settledAt > a.free / rate;
    }

    /// @dev Brings `free` and `clock` up to now, or up to the second in which the account ran dry.
    function _settle(Account storage a) private {
        if (a.rate == 0) return;
        (uint40 dt, uint128 spent) = _elapsed(a);
        if (dt != 0) {
            a.settledAt += dt;
            a.clock += dt;
            a.free -= spent;
        }
        if (a.settledAt != block.timestamp) a.dry = true;
    }

    /// @dev Lets a reserved stream accrue from now on.
    function _start(Account storage a, Stream storage s) private {
        _settle(a);
        s.clockAt = a.clock;
        s.state = StreamState.Running;
        _turn(a, 0, s.rate);
    }

    /// @dev Ends a stream that is open; what it accrued stays owed.
    function _close(StreamId id, Stream storage s, Account storage a) private {
        if (s.state != StreamState.Reserved && s.state != StreamState.Running) {
            revert Payments_WrongState(id, s.state);
        }
        _settle(a);
        _accrue(s, a.clock);
        uint128 rate = s.rate;
        if (s.state == StreamState.Running) _turn(a, rate, 0);
        a.lockup -= _lockup(rate, s.lock);
        s.rate = 0;
        s.state = StreamState.Closed;
        _giveBack(s.account, a, operatorOf(id), rate);
    }

    /// @dev Changes the rate of an account, which must be settled, by what one stream's changes.
    function _turn(Account storage a, uint128 oldRate, uint128 newRate) private {
        if (a.rate == 0) a.settledAt = uint40(block.timestamp);
        uint128 rate = a.rate - oldRate + newRate;
        a.rate = rate;
        // With nothing that runs, there is nothing to be dry for; what was not paid for stays so.
        if (rate == 0 && a.dry) {
            a.dry = false;
            a.resumedAt = uint40(block.timestamp);
        }
    }

    /// @dev Brings `owed` up to `clock`, the account's.
    function _accrue(Stream storage s, uint40 clock) private {
        if (s.state != StreamState.Running) return;
        s.owed += s.rate * (clock - s.clockAt);
        s.clockAt = clock;
    }

    /// @dev Takes `amount` tokens out of what is not locked.
    function _spend(AccountId id, Account storage a, uint256 amount) private {
        if (amount == 0) revert Payments_Zero();
        uint256 units = amount * SCALE;
        uint256 available = a.free > a.lockup ? a.free - a.lockup : 0;
        if (units > available) revert Payments_Underfunded(id, units, available);
        a.free -= units.toUint128();
    }

    /// @dev Nothing is opened, started or raised on an account that does not cover its lockup or is dry. It need not
    /// be settled: reserving a stream changes nothing that time depends on.
    function _requireFunded(AccountId id, Account storage a) private view {
        (, uint128 spent) = _elapsed(a);
        uint128 free = a.free - spent;
        if (free < a.lockup || _isDry(a)) revert Payments_Underfunded(id, a.lockup, free);
    }

    /// @dev Lets the owner through, and an operator as far as its approval goes.
    function _authorize(
        AccountId id,
        Account storage a,
        address caller,
        uint128 oldRate,
        uint128 newRate,
        uint32 lock
    ) private {
        if (a.owner == address(0)) revert Payments_NoAccount(id);
        if (caller == a.owner) return;
        Approval storage p = _approvals[id][caller];
        if (block.timestamp > p.expiry) revert Payments_NotApproved(id, caller);
        if (lock > p.maxLock) revert Payments_LockAboveApproval(id, caller, lock, p.maxLock);
        uint256 used = uint256(p.rateUsed) - oldRate + newRate;
        if (used > p.rateLimit) revert Payments_RateAboveApproval(id, caller, used, p.rateLimit);
        p.rateUsed = used.toUint128();
    }

    /// @dev Returns `rate` to an operator's approval. The owner's own streams never drew on one.
    function _giveBack(AccountId id, Account storage a, address operator, uint128 rate) private {
        if (operator != a.owner) _approvals[id][operator].rateUsed -= rate;
    }

    function _owned(AccountId id) private view returns (Account storage a) {
        a = _accounts[id];
        if (a.owner == address(0)) revert Payments_NoAccount(id);
        if (msg.sender != a.owner) revert Payments_NotOwner(id, msg.sender);
    }

    /// @dev The only place where a lockup is computed, so that what is added is what is taken away.
    function _lockup(uint128 rate, uint32 lock) private pure returns (uint128) {
        return rate * lock;
    }
}
