// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IAuction } from "./interfaces/IAuction.sol";
import { ILeases } from "./interfaces/ILeases.sol";
import { IRegistry } from "./interfaces/IRegistry.sol";
import { IStaking } from "./interfaces/IStaking.sol";
import { AccountId, LeaseId, OrderId } from "./types/Ids.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import { Math } from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Auction
/// @notice Orders, bids and awards; see IAuction.
contract Auction is IAuction, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice How often an order is opened again before it is given up.
    uint8 public constant MAX_REOPENED = 3;

    /// @notice The shortest time to start that an order may give: less would be a trap for whoever wins.
    uint24 public constant MIN_START_WITHIN = 30;

    /// @notice How many things an order may require.
    uint256 public constant MAX_REQUIREMENTS = 8;

    /// @notice Where orders become leases.
    ILeases public immutable LEASES;
    /// @notice Where bids are backed.
    IStaking public immutable STAKING;
    /// @notice Where bidders are listed.
    IRegistry public immutable REGISTRY;
    /// @notice The settlement token, in which deposits are made.
    IERC20 public immutable TOKEN;
    /// @notice See `Terms`.
    uint128 public immutable DEPOSIT;
    /// @notice See `Terms`.
    uint16 public immutable STEP_BPS;
    /// @notice See `Terms`.
    uint32 public immutable EXTENSION;
    /// @notice See `Terms`.
    uint32 public immutable MAX_EXTENSION;
    /// @notice See `Terms`.
    uint32 public immutable AWARD_GRACE;
    /// @notice See `Terms`.
    uint16 public immutable NO_SHOW_BPS;

    /// @notice How many orders were ever placed.
    uint64 public count;

    /// @dev The words are those that a bid reads and writes: who leads until when, and for how much.
    struct OrderState {
        address leader;
        uint40 deadline;
        uint32 bids;
        uint8 reopened;
        State state;
        uint128 rate;
        uint128 coverage;
        address payer;
        uint40 latest;
        uint32 duration;
        LeaseId lease;
        uint128 maxRate;
        AccountId account;
        bytes32 hash;
        bytes32 requirements;
    }

    mapping(OrderId => OrderState) private _orders;

    /// @inheritdoc IAuction
    mapping(address who => uint256) public claimable;

    /// @param leases Where orders become leases.
    /// @param staking Where bids are backed.
    /// @param registry Where bidders are listed.
    /// @param terms How auctions go.
    constructor(ILeases leases, IStaking staking, IRegistry registry, Terms memory terms) {
        if (terms.stepBps == 0 || terms.stepBps >= 10_000 || terms.noShowBps > 10_000) {
            revert Auction_BadTerms();
        }
        LEASES = leases;
        STAKING = staking;
        REGISTRY = registry;
        TOKEN = staking.TOKEN();
        DEPOSIT = terms.deposit;
        STEP_BPS = terms.stepBps;
        EXTENSION = terms.extension;
        MAX_EXTENSION = terms.maxExtension;
        AWARD_GRACE = terms.awardGrace;
        NO_SHOW_BPS = terms.noShowBps;
    }

    /// @inheritdoc IAuction
    function place(Order calldata order) external nonReentrant returns (OrderId id) {
        if (!LEASES.isPayer(order.account, msg.sender)) revert Auction_NotPayer(order.account, msg.sender);
        if (!LEASES.isPayer(order.account, address(this))) revert Auction_NotAgent(order.account);
        if (order.maxRate == 0) revert Auction_BadOrder("maxRate");
        if (order.slot > type(uint24).max) revert Auction_BadOrder("slot");
        if (order.startWithin < MIN_START_WITHIN) revert Auction_BadOrder("startWithin");
        if (order.duration == 0 || order.duration > 30 days) revert Auction_BadOrder("duration");
        if (order.full != 0 && order.grace >= order.full) revert Auction_BadOrder("grace");
        if (order.requirements.length > MAX_REQUIREMENTS) revert Auction_BadOrder("requirements");
        if (bytes(order.uri).length > 256) revert Auction_BadOrder("uri");
        id = OrderId.wrap(++count);
        OrderState storage o = _orders[id];
        o.state = State.Open;
        o.deadline = uint40(block.timestamp) + order.duration;
        o.latest = o.deadline + MAX_EXTENSION;
        (o.rate, o.maxRate) = (order.maxRate, order.maxRate);
        o.coverage = order.coverage;
        o.payer = msg.sender;
        o.duration = order.duration;
        o.account = order.account;
        o.hash = keccak256(abi.encode(order));
        if (order.requirements.length != 0) o.requirements = keccak256(abi.encode(order.requirements));
        emit Placed(id, order.account, msg.sender, o.deadline, order);

        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), DEPOSIT);
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != DEPOSIT) revert Auction_WrongAmountReceived(DEPOSIT, received);
    }

    /// @inheritdoc IAuction
    function bid(OrderId id, uint128 rate, Requirement[] calldata requirements) external {
        OrderState storage o = _orders[id];
        if (o.state != State.Open) revert Auction_WrongState(id, o.state);
        uint40 deadline = o.deadline;
        if (block.timestamp > deadline) revert Auction_Late(id, deadline);
        if (rate == 0) revert Auction_Zero();
        address former = o.leader;
        uint128 most = _nextRate(o);
        if (rate > most) revert Auction_TooHigh(id, rate, most);
        _requireFit(id, o, requirements);
        if (!_isReady(msg.sender)) revert Auction_NotReady(msg.sender);

        uint32 bids = o.bids;
        if (block.timestamp + EXTENSION > deadline) {
            deadline = uint40(Math.min(block.timestamp + EXTENSION, Math.max(o.latest, deadline)));
            o.deadline = deadline;
        }
        o.leader = msg.sender;
        o.bids = bids + 1;
        o.rate = rate;
        emit Bid(id, msg.sender, rate, deadline, bids + 1);

        uint128 bound = _bound(o.coverage);
        // slither-disable-next-line incorrect-equality (nothing to lock is exactly nothing)
        if (bound == 0) return;
        if (former != address(0)) STAKING.release(former, _ref(id, bids), 0);
        STAKING.lock(msg.sender, _ref(id, bids + 1), bound);
    }

    /// @inheritdoc IAuction
    // slither-disable-next-line reentrancy-no-eth,reentrancy-events (Staking and Leases are our own and call nobody back)
    function award(OrderId id, Order calldata order) external returns (LeaseId lease) {
        OrderState storage o = _orders[id];
        if (o.state != State.Open) revert Auction_WrongState(id, o.state);
        if (o.hash != keccak256(abi.encode(order))) revert Auction_WrongOrder(id);
        address leader = o.leader;
        if (leader == address(0)) revert Auction_NoLeader(id);
        if (!LEASES.isPayer(o.account, msg.sender)) {
            if (!order.selfAward) revert Auction_TooEarly(id, 0);
            if (block.timestamp <= o.deadline) revert Auction_TooEarly(id, o.deadline + 1);
        }
        o.state = State.Awarded;
        // What backed the bid backs the lease from here on; what a no-show costs stays.
        if (order.coverage != 0) STAKING.lower(leader, _ref(id, o.bids), order.coverage);
        lease = LEASES.open(
            ILeases.Quote({
                provider: leader,
                account: order.account,
                lease: LeaseId.wrap(0),
                pod: order.pod,
                rate: o.rate,
                lock: order.lock,
                coverage: order.coverage,
                grace: order.grace,
                full: order.full,
                response: order.response,
                notice: order.notice,
                startWithin: order.startWithin,
                expiry: uint40(block.timestamp),
                version: REGISTRY.versionOf(leader),
                nonce: 0
            }),
            "",
            order.account,
            order.slot
        );
        o.lease = lease;
        emit Awarded(id, leader, lease, o.rate);
    }

    /// @inheritdoc IAuction
    function disqualify(OrderId id) external {
        OrderState storage o = _orders[id];
        if (o.state != State.Open) revert Auction_WrongState(id, o.state);
        address leader = o.leader;
        if (leader == address(0)) revert Auction_NoLeader(id);
        if (_isReady(leader)) revert Auction_LeaderReady(id);
        _fail(id, o, leader);
    }

    /// @inheritdoc IAuction
    function settle(OrderId id) external {
        OrderState storage o = _orders[id];
        if (o.state != State.Awarded) revert Auction_WrongState(id, o.state);
        ILeases.Lease memory l = LEASES.lease(o.lease);
        if (l.activatedAt != 0) {
            _end(id, o, Outcome.Started, 0);
        } else if (l.state != ILeases.State.Closed) {
            revert Auction_StillPending(id, o.lease);
        } else if (_isPayers(l.reason)) {
            _end(id, o, Outcome.Cancelled, 0);
        } else {
            _fail(id, o, o.leader);
        }
    }

    /// @inheritdoc IAuction
    function cancel(OrderId id) external {
        OrderState storage o = _orders[id];
        if (o.state != State.Open) revert Auction_WrongState(id, o.state);
        if (!LEASES.isPayer(o.account, msg.sender)) revert Auction_NotPayer(o.account, msg.sender);
        _end(id, o, Outcome.Cancelled, 0);
    }

    /// @inheritdoc IAuction
    function expire(OrderId id) external {
        OrderState storage o = _orders[id];
        if (o.state != State.Open) revert Auction_WrongState(id, o.state);
        uint40 from = o.deadline + AWARD_GRACE;
        if (block.timestamp <= from) revert Auction_TooEarly(id, from + 1);
        _end(id, o, Outcome.Expired, 0);
    }

    /// @inheritdoc IAuction
    function claim(address to) external nonReentrant {
        uint256 amount = claimable[msg.sender];
        if (to == address(0) || amount == 0) revert Auction_Zero();
        claimable[msg.sender] = 0;
        emit Claimed(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc IAuction
    function orderOf(OrderId id) external view returns (OrderView memory) {
        OrderState storage o = _orders[id];
        return OrderView(
            o.hash,
            o.leader,
            o.deadline,
            o.latest,
            o.bids,
            o.reopened,
            o.state,
            o.rate,
            o.coverage,
            o.lease,
            o.payer
        );
    }

    /// @inheritdoc IAuction
    function nextRate(OrderId id) external view returns (uint128) {
        return _nextRate(_orders[id]);
    }

    /// @dev The leader did not keep its bid: it pays, and the order begins anew, at its highest rate.
    function _fail(OrderId id, OrderState storage o, address leader) private {
        uint128 penalty = _noShow(o.coverage);
        if (o.reopened == MAX_REOPENED) {
            _end(id, o, Outcome.GivenUp, penalty);
            return;
        }
        uint96 ref = _ref(id, o.bids);
        o.reopened += 1;
        o.state = State.Open;
        o.leader = address(0);
        o.rate = o.maxRate;
        o.lease = LeaseId.wrap(0);
        o.deadline = uint40(block.timestamp) + o.duration;
        o.latest = o.deadline + MAX_EXTENSION;
        emit Reopened(id, leader, penalty, o.deadline);
        _free(leader, ref, o.coverage, penalty, o.payer);
    }

    /// @dev Ends an order for good, and gives the deposit back.
    function _end(OrderId id, OrderState storage o, Outcome outcome, uint128 penalty) private {
        o.state = State.Over;
        address leader = o.leader;
        emit Over(id, outcome, leader, penalty);
        // It waits to be claimed, so that no token can keep an order from ending.
        claimable[o.payer] += DEPOSIT;
        if (leader != address(0)) _free(leader, _ref(id, o.bids), o.coverage, penalty, o.payer);
    }

    /// @dev Frees what a bid locked, less `penalty`, which the payer gets.
    function _free(address leader, uint96 ref, uint128 coverage, uint128 penalty, address payer) private {
        // slither-disable-next-line incorrect-equality (as in bid)
        if (_bound(coverage) == 0) return;
        if (penalty != 0) STAKING.slash(leader, ref, penalty, payer, address(0), 0);
        STAKING.release(leader, ref, 0);
    }

    /// @dev The most that the next bid may be. A step is at least a unit.
    function _nextRate(OrderState storage o) private view returns (uint128) {
        uint128 rate = o.rate;
        if (o.leader == address(0)) return rate;
        uint256 step = Math.max(uint256(rate) * STEP_BPS / 10_000, 1);
        // forge-lint: disable-next-line(unsafe-typecast)
        return rate > step ? uint128(rate - step) : 0;
    }

    function _requireFit(OrderId id, OrderState storage o, Requirement[] calldata requirements) private view {
        bytes32 hash = o.requirements;
        if (hash == 0) return;
        if (hash != keccak256(abi.encode(requirements))) revert Auction_WrongOrder(id);
        for (uint256 i = 0; i < requirements.length; ++i) {
            Requirement calldata r = requirements[i];
            address auditor = r.auditor == address(0) ? msg.sender : r.auditor;
            // slither-disable-next-line calls-loop (of at most eight, to our own contract)
            if (REGISTRY.vouchedUntil(msg.sender, auditor, r.attribute) < block.timestamp) {
                revert Auction_Unfit(msg.sender, auditor, r.attribute);
            }
        }
    }

    /// @dev Whether `bidder` can be awarded as things stand.
    function _isReady(address bidder) private view returns (bool) {
        return REGISTRY.versionOf(bidder) != 0 && LEASES.isIssuer(bidder, address(this))
            && STAKING.isLocker(bidder, address(LEASES));
    }

    /// @dev What a bid locks: the coverage, and beside it what a no-show costs.
    function _bound(uint128 coverage) private view returns (uint128) {
        return coverage + _noShow(coverage);
    }

    /// @dev Rounded down: the payer is the one who takes out.
    function _noShow(uint128 coverage) private view returns (uint128) {
        // It fits, being at most the coverage.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(uint256(coverage) * NO_SHOW_BPS / 10_000);
    }

    /// @dev Whether it was for the payer that a lease never started: it closed it, or its account could not pay for it.
    function _isPayers(ILeases.CloseReason reason) private pure returns (bool) {
        return reason <= ILeases.CloseReason.PayerUnsatisfied || reason == ILeases.CloseReason.AccountDry
            || reason == ILeases.CloseReason.StreamEnded;
    }

    function _ref(OrderId id, uint32 bids) private pure returns (uint96) {
        return uint96(OrderId.unwrap(id)) << 32 | bids;
    }
}
