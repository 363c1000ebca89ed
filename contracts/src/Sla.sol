// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "./interfaces/ILeases.sol";
import { IPayments } from "./interfaces/IPayments.sol";
import { ISla } from "./interfaces/ISla.sol";
import { IStaking } from "./interfaces/IStaking.sol";
import { Curve } from "./libraries/Curve.sol";
import { AccountId, LeaseId } from "./types/Ids.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import { EIP712 } from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import { SignatureChecker } from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Sla
/// @notice Challenges, watchers and compensation; see ISla.
contract Sla is ISla, EIP712, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice The EIP-712 type of a watcher's statement.
    bytes32 public constant STATEMENT_TYPEHASH =
        keccak256("Statement(uint64 lease,uint40 from,uint40 to,bool up)");

    /// @notice How many watchers sit in a committee. With fewer seats than that there are no reports.
    uint256 public constant COMMITTEE = 7;

    /// @notice How many of them make a report: so many that two of seven may lie, and two others be away.
    uint256 public constant QUORUM = 5;

    /// @notice Who has nothing: where the part of a liar's bond goes that its finder does not get.
    address public constant NOBODY = 0x000000000000000000000000000000000000dEaD;

    /// @notice The leases that are judged.
    ILeases public immutable LEASES;
    /// @notice Who pays for them.
    IPayments public immutable PAYMENTS;
    /// @notice Where coverage and watchers' bonds are.
    IStaking public immutable STAKING;
    /// @notice The settlement token, in which challenges are bonded and witnesses rewarded.
    IERC20 public immutable TOKEN;
    /// @notice For how long after its close a lease can be judged, and after leaving a watcher be held to what it said.
    uint40 public immutable CLAIM_WINDOW;
    /// @notice See `Terms`.
    uint128 public immutable CHALLENGE_BOND;
    /// @notice See `Terms`.
    uint40 public immutable CHALLENGE_PAUSE;
    /// @notice See `Terms`.
    uint128 public immutable WATCHER_BOND;
    /// @notice See `Terms`.
    uint40 public immutable EPOCH;
    /// @notice See `Terms`.
    uint40 public immutable MERGE_GAP;
    /// @notice See `Terms`.
    uint16 public immutable REWARD_BPS;

    /// @dev A challenge as it is kept, in one word: an account is not funded for 136 years, and the time to answer is the
    /// lease's when it was challenged, whatever is agreed on later.
    struct Asked {
        address challenger;
        uint40 since;
        uint32 clock;
        uint24 response;
    }

    /// @dev A seat: who has it from which epoch on, and who had it before and since when. So a committee stays what it was
    /// while seats change hands, and no seat stays vacant for others to be drawn in vain.
    struct Seat {
        address watcher;
        uint40 from;
        address former;
        uint40 formerFrom;
    }

    /// @dev What an epoch's committees are drawn from.
    struct Epoch {
        uint224 seed;
        uint32 seats;
    }

    /// @dev What is left of a report's reward: `share` for each member whose bit is set.
    struct Pot {
        uint128 share;
        LeaseId lease;
        uint40 epoch;
        uint8 members;
    }

    mapping(LeaseId => Asked) private _challenges;
    mapping(LeaseId => Outage) private _outages;
    mapping(address => Watcher) private _watchers;
    mapping(uint40 epoch => Epoch) private _epochs;
    mapping(bytes32 report => Pot) private _pots;
    // slither-disable-next-line uninitialized-state (it is written through a storage pointer, in _sit)
    mapping(uint32 number => Seat) private _seats;
    uint32 private _seated;
    uint96 private _refs;

    /// @inheritdoc ISla
    mapping(address who => uint256) public claimable;

    /// @param leases The leases that are judged; it deploys this contract.
    /// @param payments Who pays for them.
    /// @param staking Where coverage and watchers' bonds are.
    /// @param claimWindow For how long after its close a lease can be judged, in seconds.
    /// @param terms How.
    constructor(ILeases leases, IPayments payments, IStaking staking, uint40 claimWindow, Terms memory terms)
        EIP712("Roadstead Sla", "1")
    {
        if (terms.epoch == 0 || terms.watcherBond < 2) revert Sla_BadTerms();
        if (terms.rewardBps > staking.MAX_REWARD_BPS()) revert Sla_BadTerms();
        LEASES = leases;
        PAYMENTS = payments;
        STAKING = staking;
        TOKEN = staking.TOKEN();
        CLAIM_WINDOW = claimWindow;
        CHALLENGE_BOND = terms.challengeBond;
        CHALLENGE_PAUSE = terms.challengePause;
        WATCHER_BOND = terms.watcherBond;
        EPOCH = terms.epoch;
        MERGE_GAP = terms.mergeGap;
        REWARD_BPS = terms.rewardBps;
    }

    /// @inheritdoc ISla
    function challenge(LeaseId id) external nonReentrant {
        ILeases.LeaseView memory v = _view(id);
        bool runs = v.lease.state == ILeases.State.Active && v.rate != 0;
        if (!runs || v.lease.response == 0) revert Sla_NotRunning(id);
        if (!LEASES.isPayer(v.account, msg.sender)) revert Sla_NotPayer(id, msg.sender);
        if (block.timestamp > v.fundedUntil) revert Sla_Dry(id);
        Asked storage c = _challenges[id];
        uint40 from = c.challenger != address(0) ? type(uint40).max : c.since + CHALLENGE_PAUSE;
        if (c.since != 0 && block.timestamp < from) revert Sla_TooSoon(id, from);
        uint40 clock = PAYMENTS.account(v.account).clock;
        // An account's clock counts the seconds for which it was funded: 32 bits of them are 136 years.
        // forge-lint: disable-next-line(unsafe-typecast)
        // forge-lint: disable-next-line(unsafe-typecast)
        _challenges[id] = Asked(msg.sender, uint40(block.timestamp), uint32(clock), v.lease.response);
        emit Challenged(id, msg.sender, uint40(block.timestamp) + v.lease.response, clock);

        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), CHALLENGE_BOND);
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != CHALLENGE_BOND) revert Sla_WrongAmountReceived(CHALLENGE_BOND, received);
    }

    /// @inheritdoc ISla
    function answer(LeaseId id) external {
        Asked storage c = _challenges[id];
        if (c.challenger == address(0)) revert Sla_NoChallenge(id);
        if (msg.sender != _view(id).provider) revert Sla_NotProvider(id, msg.sender);
        uint40 deadline = c.since + c.response;
        if (block.timestamp > deadline) revert Sla_TooLate(id, deadline);
        c.challenger = address(0);
        // It waits to be claimed, so that no token can keep a challenge from being answered.
        claimable[msg.sender] += CHALLENGE_BOND;
        emit Answered(id, msg.sender, CHALLENGE_BOND);
    }

    /// @inheritdoc ISla
    function resolve(LeaseId id) external {
        Asked memory c = _challenges[id];
        if (c.challenger == address(0)) revert Sla_NoChallenge(id);
        ILeases.LeaseView memory v = _view(id);
        uint40 deadline = c.since + c.response;
        bool closed = v.lease.state == ILeases.State.Closed;
        // Who leaves after the time was over has not answered either, so leaving helps nobody.
        bool dark = !closed || v.lease.endsAt > deadline;
        if (dark && block.timestamp <= deadline) revert Sla_StillOpen(id, deadline);
        _challenges[id].challenger = address(0);
        uint128 compensation = dark && _claimable(v) ? v.coverage : 0;
        // This waits as well.
        claimable[c.challenger] += CHALLENGE_BOND;
        emit Resolved(id, c.challenger, dark, compensation);

        if (compensation != 0) LEASES.compensate(id, compensation, address(0), 0);
        if (dark && !closed) LEASES.closeDark(id, c.clock);
    }

    /// @inheritdoc ISla
    function claim(address to) external nonReentrant {
        uint256 amount = claimable[msg.sender];
        if (to == address(0) || amount == 0) revert Sla_Nothing();
        claimable[msg.sender] = 0;
        emit Claimed(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc ISla
    function join() external {
        Watcher storage w = _watchers[msg.sender];
        if (w.seat != 0) revert Sla_HasSeat(msg.sender);
        uint32 seat = ++_seated;
        _sit(seat, msg.sender);
        uint96 ref = ++_refs;
        _watchers[msg.sender] = Watcher(seat, _now(), ref);
        emit Joined(msg.sender, seat, _now(), ref);
        STAKING.lock(msg.sender, ref, WATCHER_BOND);
    }

    /// @inheritdoc ISla
    function leave() external {
        uint96 ref = _vacate(msg.sender);
        STAKING.release(msg.sender, ref, uint40(block.timestamp) + EPOCH + CLAIM_WINDOW);
    }

    /// @inheritdoc ISla
    function openEpoch() external {
        uint40 epoch = _now();
        if (_epochs[epoch].seats != 0 || _seated < COMMITTEE) revert Sla_NoCommittee(epoch);
        // Where prevrandao is a constant, the last block's hash is what cannot be foreseen.
        bytes32 seed = keccak256(abi.encode(block.prevrandao, blockhash(block.number - 1)));
        // forge-lint: disable-next-line(unsafe-typecast)
        Epoch memory e = Epoch(uint224(uint256(seed)), _seated);
        _epochs[epoch] = e;
        emit EpochOpened(epoch, bytes32(uint256(e.seed)), e.seats);
    }

    /// @inheritdoc ISla
    function report(LeaseId id, uint40 from, uint40 to, uint8[] calldata members, bytes[] calldata signatures)
        external
    {
        uint8 signed = _verify(id, from, to, members, signatures);
        ILeases.LeaseView memory v = _view(id);
        uint40 resumedAt = _requireWithin(id, v, from, to);
        (Outage memory o, uint128 paid) = _merge(id, v, from, to, resumedAt);
        uint128 rewarded = _setAside(id, o, from / EPOCH, paid, signed);
        emit Reported(id, from / EPOCH, o.from, to, o.due, rewarded, signed);

        if (paid != 0) LEASES.compensate(id, paid, address(this), rewarded);
        if (v.lease.full != 0 && to - o.from >= v.lease.full && v.lease.state == ILeases.State.Active) {
            LEASES.closeDark(id, _clockAt(v, o.from));
        }
    }

    /// @inheritdoc ISla
    function reward(bytes32 id, uint8 member) external nonReentrant {
        Pot storage p = _pots[id];
        if (member >= COMMITTEE || p.members & (1 << member) == 0) revert Sla_Nothing();
        // forge-lint: disable-next-line(unsafe-typecast)
        p.members &= ~uint8(1 << member);
        address watcher = committee(p.lease, p.epoch)[member];
        uint128 share = p.share;
        // A seat remembers two watchers: who waits until a third has it, or lied, has nothing.
        if (watcher == address(0) || _watchers[watcher].ref == 0) watcher = NOBODY;
        emit Rewarded(id, watcher, share);
        if (STAKING.claimable(address(this)) != 0) STAKING.claim(address(this));
        TOKEN.safeTransfer(watcher, share);
    }

    /// @inheritdoc ISla
    function equivocated(
        address watcher,
        Statement calldata up,
        bytes calldata upSignature,
        Statement calldata down,
        bytes calldata downSignature
    ) external {
        bool overlap = up.from < down.to && down.from < up.to;
        if (!up.up || down.up || up.lease != down.lease || !overlap) revert Sla_NoContradiction();
        _requireSigned(watcher, _digest(up), upSignature);
        _requireSigned(watcher, _digest(down), downSignature);
        // One that has left is held to what it said for as long as its bond is locked.
        uint96 ref = _watchers[watcher].ref;
        if (_watchers[watcher].seat != 0) _vacate(watcher);
        _watchers[watcher].ref = 0;
        uint128 bond = STAKING.lockOf(watcher, address(this), ref).amount;
        if (bond == 0) revert Sla_NoSeat(watcher);
        emit Equivocated(watcher, msg.sender, up.lease, bond);
        // The finder gets half, so that to find oneself out before somebody else does costs dearly.
        STAKING.slash(watcher, ref, bond / 2, msg.sender, address(0), 0);
        STAKING.slash(watcher, ref, bond - bond / 2, NOBODY, address(0), 0);
    }

    /// @inheritdoc ISla
    function challengeOf(LeaseId id) external view returns (Challenge memory) {
        Asked memory c = _challenges[id];
        return Challenge(c.challenger, c.since, c.clock);
    }

    /// @inheritdoc ISla
    function outageOf(LeaseId id) external view returns (Outage memory) {
        return _outages[id];
    }

    /// @inheritdoc ISla
    function watcherOf(address watcher) external view returns (Watcher memory) {
        return _watchers[watcher];
    }

    /// @inheritdoc ISla
    function digest(Statement calldata statement) external view returns (bytes32) {
        return _digest(statement);
    }

    /// @inheritdoc ISla
    function committee(LeaseId id, uint40 epoch) public view returns (address[] memory watchers) {
        Epoch memory e = _epochs[epoch];
        if (e.seats == 0) return watchers;
        watchers = new address[](COMMITTEE);
        uint256[] memory drawn = new uint256[](COMMITTEE);
        uint256 lot = uint256(keccak256(abi.encode(e.seed, epoch, id)));
        for (uint256 i = 0; i < COMMITTEE; ++i) {
            // 32 bits of the lot for each member.
            uint256 seat = (lot >> (32 * i) & type(uint32).max) % e.seats;
            // There are at least as many seats as are drawn.
            while (_isDrawn(drawn, i, seat)) seat = (seat + 1) % e.seats;
            drawn[i] = seat;
            // forge-lint: disable-next-line(unsafe-typecast)
            watchers[i] = _sitter(uint32(seat) + 1, epoch);
        }
    }

    /// @dev Who had the seat when `epoch` began; zero if nobody had, or that is forgotten.
    function _sitter(uint32 number, uint40 epoch) private view returns (address) {
        Seat storage s = _seats[number];
        if (epoch >= s.from) return s.watcher;
        return epoch >= s.formerFrom ? s.former : address(0);
    }

    /// @dev Gives a seat to `watcher` from the next epoch on.
    function _sit(uint32 number, address watcher) private {
        Seat storage s = _seats[number];
        uint40 next = _now() + 1;
        // Who would have had it from the next epoch on never had it.
        if (s.from != next) (s.former, s.formerFrom) = (s.watcher, s.from);
        (s.watcher, s.from) = (watcher, next);
    }

    /// @dev Whether `seat` is among the first `count` that were drawn.
    function _isDrawn(uint256[] memory drawn, uint256 count, uint256 seat) private pure returns (bool) {
        for (uint256 i = 0; i < count; ++i) {
            if (drawn[i] == seat) return true;
        }
        return false;
    }

    /// @dev Checks a quorum's signatures; a bit for each member that signed.
    function _verify(
        LeaseId id,
        uint40 from,
        uint40 to,
        uint8[] calldata members,
        bytes[] calldata signatures
    ) private view returns (uint8 signed) {
        if (members.length < QUORUM || members.length != signatures.length) {
            revert Sla_NoQuorum(members.length, QUORUM);
        }
        address[] memory watchers = committee(id, from / EPOCH);
        if (watchers.length == 0) revert Sla_NoCommittee(from / EPOCH);
        bytes32 hash = _digest(Statement(id, from, to, false));
        uint256 next = 0;
        for (uint256 i = 0; i < members.length; ++i) {
            uint8 member = members[i];
            if (member < next || member >= COMMITTEE) revert Sla_BadMember(member);
            next = uint256(member) + 1;
            // Who was found out has nothing at stake any more.
            if (_watchers[watchers[member]].ref == 0) revert Sla_BadMember(member);
            _requireSigned(watchers[member], hash, signatures[i]);
            // forge-lint: disable-next-line(unsafe-typecast)
            signed |= uint8(1 << member);
        }
    }

    /// @dev Merges an outage into the lease's last one, or begins a new one; what is to be paid for it now.
    function _merge(LeaseId id, ILeases.LeaseView memory v, uint40 from, uint40 to, uint40 resumedAt)
        private
        returns (Outage memory o, uint128 paid)
    {
        o = _outages[id];
        if (to <= o.to || from < o.from) revert Sla_BadTimes(from, to);
        // What lies before a time that was not paid for is another outage.
        if (from > o.to + MERGE_GAP || o.from < resumedAt) (o.from, o.due) = (from, 0);
        o.to = to;
        // What is left and what was taken make the whole, whatever was taken before.
        uint128 due = Curve.due(v.coverage + o.total, o.to - o.from, v.lease.grace, v.lease.full);
        paid = due > o.due ? due - o.due : 0;
        if (paid > v.coverage) paid = v.coverage;
        o.due += paid;
        o.total += paid;
        _outages[id] = o;
    }

    /// @dev Sets the witnesses' reward aside, in even shares: rounded down, what remains is the payer's. The report's name is
    /// made of what its event says; no two of a lease end in the same second.
    // slither-disable-next-line divide-before-multiply (shares are even on purpose)
    function _setAside(LeaseId id, Outage memory o, uint40 epoch, uint128 paid, uint8 signed)
        private
        returns (uint128)
    {
        uint256 witnesses = 0;
        for (uint8 left = signed; left != 0; left &= left - 1) {
            ++witnesses;
        }
        uint256 share = uint256(paid) * REWARD_BPS / 10_000 / witnesses;
        if (share == 0) return 0;
        // They fit, being parts of what is paid.
        // forge-lint: disable-next-line(unsafe-typecast)
        _pots[keccak256(abi.encode(id, o.from, o.to))] = Pot(uint128(share), id, epoch, signed);
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(share * witnesses);
    }

    /// @dev An outage counts where the lease ran and was paid for, in one epoch, and is over, but not so long ago that who
    /// signed may have left with its bond. Returns since when the account was funded without a gap.
    function _requireWithin(LeaseId id, ILeases.LeaseView memory v, uint40 from, uint40 to)
        private
        view
        returns (uint40 resumedAt)
    {
        if (
            from >= to || to > block.timestamp || block.timestamp > to + CLAIM_WINDOW
                || from / EPOCH != (to - 1) / EPOCH
        ) {
            revert Sla_BadTimes(from, to);
        }
        if (v.lease.activatedAt == 0 || from < v.lease.activatedAt) revert Sla_NotRunning(id);
        // Whoever ends the stream behind the back of Leases does not say when, and is owed nothing.
        bool runs = v.lease.state == ILeases.State.Closed
            ? to <= v.lease.endsAt && v.lease.reason != ILeases.CloseReason.StreamEnded && _claimable(v)
            : v.rate != 0;
        if (!runs) revert Sla_NotRunning(id);
        // Of a lease that is closed, too: a payer must not end it to have its account no longer dry.
        resumedAt = PAYMENTS.resumedAt(v.account);
        if (to > v.fundedUntil || from < resumedAt) revert Sla_Dry(id);
    }

    /// @dev Whether the lease's coverage can still be taken.
    function _claimable(ILeases.LeaseView memory v) private view returns (bool) {
        return
            v.lease.state != ILeases.State.Closed || block.timestamp < uint256(v.lease.endsAt) + CLAIM_WINDOW;
    }

    /// @dev Where the account's clock stood at `time`, which lies where the account was funded without a gap until now,
    /// or until it ran dry.
    function _clockAt(ILeases.LeaseView memory v, uint40 time) private view returns (uint40) {
        uint40 end = v.fundedUntil < block.timestamp ? v.fundedUntil : uint40(block.timestamp);
        uint40 clock = PAYMENTS.account(v.account).clock;
        uint40 ago = end - time;
        return clock > ago ? clock - ago : 0;
    }

    function _vacate(address watcher) private returns (uint96 ref) {
        Watcher storage w = _watchers[watcher];
        uint32 seat = w.seat;
        if (seat == 0) revert Sla_NoSeat(watcher);
        ref = w.ref;
        w.seat = 0;
        uint32 last = _seated--;
        if (seat != last) {
            // Of a seat that is in use, the watcher is whoever took it last.
            address moved = _seats[last].watcher;
            _watchers[moved].seat = seat;
            _sit(seat, moved);
        }
        _sit(last, address(0));
        emit Left(watcher, seat);
    }

    function _view(LeaseId id) private view returns (ILeases.LeaseView memory) {
        LeaseId[] memory ids = new LeaseId[](1);
        ids[0] = id;
        return LEASES.leases(ids)[0];
    }

    function _requireSigned(address watcher, bytes32 hash, bytes calldata signature) private view {
        if (!SignatureChecker.isValidSignatureNow(watcher, hash, signature)) {
            revert Sla_BadSignature(watcher);
        }
    }

    function _digest(Statement memory s) private view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(STATEMENT_TYPEHASH, s)));
    }

    function _now() private view returns (uint40) {
        return uint40(block.timestamp) / EPOCH;
    }
}
