// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IApps } from "../../src/interfaces/IApps.sol";
import { IAuction } from "../../src/interfaces/IAuction.sol";
import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { IRegistry } from "../../src/interfaces/IRegistry.sol";
import { ISla } from "../../src/interfaces/ISla.sol";
import { IStaking } from "../../src/interfaces/IStaking.sol";
import { AccountId, LeaseId, StreamId } from "../../src/types/Ids.sol";
import { Vm } from "forge-std/Vm.sol";

/// @title Model
/// @notice What an indexer knows: all state, out of events and the time of their blocks, without a single call.
contract Model {
    struct Account {
        address owner;
        uint256 free;
        uint256 lockup;
        uint256 rate;
        uint256 clock;
        uint256 settledAt;
        bool dry;
        uint256 deposited;
        uint256 left;
        uint256 resumedAt;
    }

    struct Stream {
        AccountId account;
        address payee;
        uint256 rate;
        uint256 lock;
        uint256 clockAt;
        uint256 owed;
        uint256 collected;
        IPayments.StreamState state;
        uint256 cut;
    }

    struct Approval {
        IPayments.Approval given;
        uint256 paid;
    }

    struct LockKey {
        address bonder;
        address locker;
        uint96 ref;
    }

    struct Lock {
        uint256 amount;
        uint40 releaseAt;
    }

    struct Lease {
        ILeases.Lease lease;
        AccountId account;
        address provider;
        uint256 coverage;
        uint256 slashed;
    }

    struct Provider {
        IRegistry.Listing listing;
        uint64 version;
        uint40 seenAt;
        bool listed;
    }

    struct Order {
        IAuction.OrderView view_;
        uint128 maxRate;
        uint32 duration;
    }

    /// @dev What was set in a constructor, which an indexer knows like the addresses.
    struct Fixed {
        uint256 challengeBond;
        uint256 deposit;
        uint40 maxExtension;
    }

    uint256 private constant SCALE = 1e9;

    AccountId[] public accountIds;
    mapping(AccountId => Account) public accounts;
    StreamId[] public streamIds;
    mapping(StreamId => Stream) public streams;
    mapping(AccountId => mapping(address operator => Approval)) private _approvals;
    mapping(address bonder => IStaking.Bond) private _bonds;
    mapping(address bonder => mapping(address locker => bool)) public isLocker;
    LockKey[] private _lockKeys;
    mapping(bytes32 key => Lock) private _locks;
    mapping(address beneficiary => uint256) public claimable;
    uint256 public burned;
    mapping(address provider => Provider) private _providers;
    Lease[] private _leases;
    mapping(AccountId => mapping(uint32 slot => uint256)) public openInSlot;
    mapping(address provider => mapping(uint256 nonce => uint256)) public openedWith;
    mapping(address provider => mapping(uint256 nonce => bool)) public isNonceUsed;
    mapping(AccountId => mapping(address agent => bool)) public isAgent;

    mapping(address provider => mapping(address issuer => bool)) public isIssuer;
    mapping(bytes32 key => uint40) private _vouched;
    StreamId[] private _running;
    mapping(StreamId => uint256) private _place;
    mapping(LeaseId => ISla.Challenge) private _challenges;
    mapping(LeaseId => ISla.Outage) private _outages;
    mapping(address => ISla.Watcher) private _watchers;
    address[] public seats;
    mapping(address who => uint256) public slaClaimable;
    mapping(bytes32 report => uint256) public pots;
    uint256 public unfetched;
    Order[] private _orders;
    mapping(address who => uint256) public auctionClaimable;
    IApps.App[] private _apps;
    mapping(bytes32 name => uint256) public named;

    /// @notice Events that no contract of ours documents.
    uint256 public unknown;
    /// @notice Slashes that paid somebody else than the lease's payer.
    uint256 public astray;

    address private immutable _payments;
    address private immutable _staking;
    address private immutable _registry;
    address private immutable _leasesAt;
    address private immutable _sla;
    address private immutable _auction;
    address private immutable _appsAt;
    Fixed private _fixed;
    uint256 private _now;

    constructor(address[4] memory four, address sla, address auction, address apps, Fixed memory fixed_) {
        (_payments, _staking, _registry, _leasesAt) = (four[0], four[1], four[2], four[3]);
        (_sla, _auction, _appsAt, _fixed) = (sla, auction, apps, fixed_);
        // Leases, orders and apps are counted from 1.
        _leases.push();
        _orders.push();
        _apps.push();
    }

    // Reading -------------------------------------------------------------------------------------------------------

    function accountCount() external view returns (uint256) {
        return accountIds.length;
    }

    function streamCount() external view returns (uint256) {
        return streamIds.length;
    }

    /// @notice The streams that run.
    function running() external view returns (StreamId[] memory) {
        return _running;
    }

    function vouchedUntil(address who, address auditor, bytes32 attribute) external view returns (uint40) {
        return _vouched[keccak256(abi.encode(who, auditor, attribute))];
    }

    function challengeOf(LeaseId id) external view returns (ISla.Challenge memory) {
        return _challenges[id];
    }

    function outageOf(LeaseId id) external view returns (ISla.Outage memory) {
        return _outages[id];
    }

    function watcherOf(address who) external view returns (ISla.Watcher memory) {
        return _watchers[who];
    }

    function orderCount() external view returns (uint256) {
        return _orders.length - 1;
    }

    function orderOf(uint256 id) external view returns (Order memory) {
        return _orders[id];
    }

    function appCount() external view returns (uint256) {
        return _apps.length - 1;
    }

    function appOf(uint256 id) external view returns (IApps.App memory) {
        return _apps[id];
    }

    /// @notice How many leases were opened.
    function leaseCount() external view returns (uint256) {
        return _leases.length - 1;
    }

    function leaseOf(uint256 id) external view returns (Lease memory) {
        return _leases[id];
    }

    function locks() external view returns (LockKey[] memory) {
        return _lockKeys;
    }

    function lockOf(LockKey calldata key) external view returns (Lock memory) {
        return _locks[keccak256(abi.encode(key))];
    }

    function bondOf(address bonder) external view returns (IStaking.Bond memory) {
        return _bonds[bonder];
    }

    function providerOf(address who) external view returns (Provider memory) {
        return _providers[who];
    }

    function approvalOf(AccountId id, address operator) external view returns (Approval memory) {
        return _approvals[id][operator];
    }

    function accountOf(AccountId id) external view returns (Account memory) {
        return accounts[id];
    }

    function streamOf(StreamId id) external view returns (Stream memory) {
        return streams[id];
    }

    /// @notice What an account and a stream are at `time`.
    function at(StreamId id, uint256 time) external returns (Account memory a, Stream memory s) {
        _now = time;
        AccountId account = streams[id].account;
        _accrue(id);
        return (accounts[account], streams[id]);
    }

    function settle(AccountId id, uint256 time) external returns (Account memory) {
        _now = time;
        _settle(accounts[id]);
        return accounts[id];
    }

    // Folding -------------------------------------------------------------------------------------------------------

    /// @notice Takes in the events of a transaction of `time`; returns how many are of our contracts.
    function fold(Vm.Log[] calldata logs, uint256 time) external returns (uint256 count) {
        _now = time;
        for (uint256 i = 0; i < logs.length; ++i) {
            bool known;
            if (logs[i].emitter == _payments) known = _foldPayments(logs[i]);
            else if (logs[i].emitter == _staking) known = _foldStaking(logs[i]);
            else if (logs[i].emitter == _registry) known = _foldRegistry(logs[i]);
            else if (logs[i].emitter == _leasesAt) known = _foldLeases(logs[i]);
            else if (logs[i].emitter == _sla) known = _foldSla(logs[i]);
            else if (logs[i].emitter == _auction) known = _foldAuction(logs[i]);
            else if (logs[i].emitter == _appsAt) known = _foldApps(logs[i]);
            else continue;
            ++count;
            if (!known) ++unknown;
        }
    }

    function _foldPayments(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == IPayments.Approved.selector) {
            _foldApproved(log);
            return true;
        }
        if (topic == IPayments.StreamOpened.selector) {
            _foldStreamOpened(log);
            return true;
        }
        if (
            topic == IPayments.Deposited.selector || topic == IPayments.Withdrawn.selector
                || topic == IPayments.Paid.selector
        ) {
            _foldMoney(log);
            return true;
        }
        StreamId id = StreamId.wrap(uint256(log.topics[1]));
        Stream storage s = streams[id];
        Account storage a = accounts[s.account];
        _accrue(id);
        if (topic == IPayments.StreamStarted.selector) {
            s.state = IPayments.StreamState.Running;
            s.clockAt = a.clock;
            a.rate += s.rate;
            _runs(id);
        } else if (topic == IPayments.RateSet.selector) {
            (uint128 rate, uint32 lock) = abi.decode(log.data, (uint128, uint32));
            if (s.state == IPayments.StreamState.Running) a.rate = a.rate - s.rate + rate;
            a.lockup = a.lockup - s.rate * s.lock + uint256(rate) * lock;
            (s.rate, s.lock) = (rate, lock);
            _ceases(a);
        } else if (topic == IPayments.StreamClosed.selector || topic == IPayments.StreamCut.selector) {
            if (s.state == IPayments.StreamState.Running) {
                a.rate -= s.rate;
                _stops(id);
            }
            a.lockup -= s.rate * s.lock;
            (s.rate, s.state) = (0, IPayments.StreamState.Closed);
            _ceases(a);
            if (topic == IPayments.StreamCut.selector) {
                uint256 back = abi.decode(log.data, (uint128));
                s.owed -= back;
                s.cut = back;
                a.free += back;
            }
        } else if (topic == IPayments.Collected.selector) {
            uint256 units = abi.decode(log.data, (uint256)) * SCALE;
            s.owed -= units;
            s.collected += units;
        } else {
            return false;
        }
        return true;
    }

    function _foldApproved(Vm.Log calldata log) private {
        Approval storage p = _approvals[AccountId.wrap(log.topics[1])][_address(log.topics[2])];
        (p.given.rateLimit, p.given.payLimit, p.given.maxLock, p.given.expiry) =
            abi.decode(log.data, (uint128, uint128, uint32, uint40));
        p.paid = 0;
    }

    function _foldStreamOpened(Vm.Log calldata log) private {
        StreamId id = StreamId.wrap(uint256(log.topics[1]));
        AccountId account = AccountId.wrap(log.topics[2]);
        Account storage a = accounts[account];
        _settle(a);
        (uint128 rate, uint32 lock, bool started) = abi.decode(log.data, (uint128, uint32, bool));
        IPayments.StreamState state = started ? IPayments.StreamState.Running : IPayments.StreamState.Reserved;
        streams[id] = Stream(account, _address(log.topics[3]), rate, lock, a.clock, 0, 0, state, 0);
        streamIds.push(id);
        a.lockup += uint256(rate) * lock;
        if (!started) return;
        a.rate += rate;
        _runs(id);
    }

    /// @dev An account that nothing runs on is not dry.
    function _ceases(Account storage a) private {
        if (a.rate == 0 && a.dry) (a.dry, a.resumedAt) = (false, _now);
    }

    function _runs(StreamId id) private {
        _running.push(id);
        _place[id] = _running.length - 1;
    }

    function _stops(StreamId id) private {
        StreamId last = _running[_running.length - 1];
        (_running[_place[id]], _place[last]) = (last, _place[id]);
        _running.pop();
    }

    function _foldMoney(Vm.Log calldata log) private {
        bytes32 topic = log.topics[0];
        AccountId id = AccountId.wrap(log.topics[1]);
        Account storage a = accounts[id];
        _settle(a);
        if (topic == IPayments.Deposited.selector) {
            (, uint256 amount) = abi.decode(log.data, (bytes32, uint256));
            if (a.owner == address(0)) {
                a.owner = _address(log.topics[2]);
                accountIds.push(id);
            }
            a.free += amount * SCALE;
            a.deposited += amount * SCALE;
            if (a.dry) (a.dry, a.settledAt, a.resumedAt) = (false, _now, _now);
            return;
        }
        uint256 units = abi.decode(log.data, (uint256)) * SCALE;
        a.free -= units;
        a.left += units;
        if (topic == IPayments.Paid.selector) {
            address operator = _address(log.topics[2]);
            if (operator != a.owner) _approvals[id][operator].paid += units;
        }
    }

    function _foldStaking(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        address bonder = _address(log.topics[1]);
        IStaking.Bond storage b = _bonds[bonder];
        if (topic == IStaking.Bonded.selector) {
            b.bonded += uint128(abi.decode(log.data, (uint256)));
        } else if (topic == IStaking.UnbondRequested.selector) {
            (uint256 amount, uint40 due) = abi.decode(log.data, (uint256, uint40));
            b.bonded -= uint128(amount);
            b.unbonding += uint128(amount);
            b.withdrawableAt = due;
        } else if (topic == IStaking.UnbondCancelled.selector) {
            b.bonded += uint128(abi.decode(log.data, (uint256)));
            b.unbonding = 0;
        } else if (topic == IStaking.Unbonded.selector) {
            b.unbonding -= uint128(abi.decode(log.data, (uint256)));
        } else if (topic == IStaking.Claimed.selector) {
            claimable[bonder] -= abi.decode(log.data, (uint256));
        } else if (topic == IStaking.LockerSet.selector) {
            isLocker[bonder][_address(log.topics[2])] = abi.decode(log.data, (bool));
        } else {
            return _foldLock(log, b);
        }
        return true;
    }

    function _foldLock(Vm.Log calldata log, IStaking.Bond storage b) private returns (bool) {
        bytes32 topic = log.topics[0];
        LockKey memory key =
            LockKey(_address(log.topics[1]), _address(log.topics[2]), uint96(uint256(log.topics[3])));
        bytes32 hash = keccak256(abi.encode(key));
        Lock storage l = _locks[hash];
        if (topic == IStaking.Locked.selector) {
            uint256 amount = abi.decode(log.data, (uint256));
            if (l.amount == 0) _lockKeys.push(key);
            l.amount += amount;
            b.locked += uint128(amount);
        } else if (topic == IStaking.Lowered.selector) {
            uint256 amount = abi.decode(log.data, (uint256));
            l.amount -= amount;
            b.locked -= uint128(amount);
        } else if (topic == IStaking.ReleaseSet.selector) {
            l.releaseAt = abi.decode(log.data, (uint40));
        } else if (topic == IStaking.Unlocked.selector) {
            b.locked -= uint128(abi.decode(log.data, (uint256)));
            (l.amount, l.releaseAt) = (0, uint40(_now));
        } else if (topic == IStaking.Slashed.selector) {
            (uint256 amount, address to, uint256 paid, address rewarded, uint256 reward) =
                abi.decode(log.data, (uint256, address, uint256, address, uint256));
            l.amount -= amount;
            b.locked -= uint128(amount);
            b.bonded -= uint128(amount);
            claimable[to] += paid;
            claimable[rewarded] += reward;
            burned += amount - paid - reward;
            if (key.locker == _leasesAt) {
                Lease storage lease = _leases[key.ref];
                lease.slashed += amount;
                if (to != accounts[lease.account].owner) ++astray;
            } else if (key.locker == _auction) {
                if (to != _orders[key.ref >> 32].view_.payer) ++astray;
            }
        } else {
            return false;
        }
        return true;
    }

    function _foldRegistry(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        Provider storage p = _providers[_address(log.topics[1])];
        if (topic == IRegistry.Listed.selector) {
            (uint64 version, IRegistry.Listing memory listing) =
                abi.decode(log.data, (uint64, IRegistry.Listing));
            (p.version, p.listing, p.listed, p.seenAt) = (version, listing, true, uint40(_now));
        } else if (topic == IRegistry.Delisted.selector) {
            (p.version, p.listed) = (abi.decode(log.data, (uint64)), false);
            delete p.listing;
        } else if (topic == IRegistry.Heartbeat.selector) {
            p.seenAt = uint40(_now);
        } else if (topic == IRegistry.Vouched.selector) {
            bytes32 key = keccak256(abi.encode(log.topics[1], log.topics[2], log.topics[3]));
            _vouched[key] = abi.decode(log.data, (uint40));
        } else {
            return false;
        }
        return true;
    }

    function _foldLeases(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == ILeases.AgentSet.selector) {
            isAgent[AccountId.wrap(log.topics[1])][_address(log.topics[2])] = abi.decode(log.data, (bool));
            return true;
        }
        if (topic == ILeases.IssuerSet.selector) {
            isIssuer[_address(log.topics[1])][_address(log.topics[2])] = abi.decode(log.data, (bool));
            return true;
        }
        if (topic == ILeases.NoncesCancelled.selector) {
            (uint256 word, uint256 mask) = abi.decode(log.data, (uint256, uint256));
            for (uint256 bit = 0; bit < 256; ++bit) {
                if (mask >> bit & 1 == 1) isNonceUsed[_address(log.topics[1])][word * 256 + bit] = true;
            }
            return true;
        }
        if (topic == ILeases.Opened.selector) {
            _foldOpened(log);
            return true;
        }
        Lease storage l = _leases[uint256(log.topics[1])];
        if (topic == ILeases.Activated.selector) {
            (l.lease.state, l.lease.activatedAt) = (ILeases.State.Active, uint40(_now));
        } else if (topic == ILeases.Amended.selector) {
            (address amender, ILeases.Quote memory quote) = abi.decode(log.data, (address, ILeases.Quote));
            _takeTerms(l, quote);
            if (!isIssuer[quote.provider][amender]) isNonceUsed[quote.provider][quote.nonce] = true;
            l.coverage = quote.coverage + l.slashed;
        } else if (topic == ILeases.NoticeGiven.selector) {
            (, l.lease.endsAt) = abi.decode(log.data, (ILeases.CloseReason, uint40));
        } else if (topic == ILeases.Closed.selector) {
            (l.lease.state, l.lease.endsAt) = (ILeases.State.Closed, uint40(_now));
            (, l.lease.reason,) = abi.decode(log.data, (address, ILeases.CloseReason, uint256));
            --openInSlot[l.account][l.lease.slot];
        } else {
            return false;
        }
        return true;
    }

    function _foldOpened(Vm.Log calldata log) private {
        (uint32 slot, uint40 startBy, address opener, ILeases.Quote memory quote) =
            abi.decode(log.data, (uint32, uint40, address, ILeases.Quote));
        Lease storage l = _leases.push();
        l.account = AccountId.wrap(log.topics[3]);
        l.provider = _address(log.topics[2]);
        (l.lease.state, l.lease.startBy, l.lease.slot) = (ILeases.State.Pending, startBy, uint24(slot));
        l.coverage = quote.coverage;
        _takeTerms(l, quote);
        ++openInSlot[l.account][slot];
        // Who issues leases in a provider's name uses no quote of its.
        if (isIssuer[quote.provider][opener]) return;
        ++openedWith[quote.provider][quote.nonce];
        isNonceUsed[quote.provider][quote.nonce] = true;
    }

    function _takeTerms(Lease storage l, ILeases.Quote memory quote) private {
        (l.lease.grace, l.lease.full) = (quote.grace, quote.full);
        (l.lease.response, l.lease.notice) = (quote.response, quote.notice);
    }

    function _foldSla(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == ISla.Rewarded.selector) {
            uint256 share = abi.decode(log.data, (uint256));
            pots[log.topics[1]] -= share;
            unfetched -= share;
            return true;
        }
        if (topic == ISla.EpochOpened.selector) return true;
        address who = _address(log.topics[1]);
        if (topic == ISla.Joined.selector) {
            (uint32 seat, uint40 epoch, uint96 ref) = abi.decode(log.data, (uint32, uint40, uint96));
            seats.push(who);
            require(seat == seats.length, "a seat is the last");
            _watchers[who] = ISla.Watcher(seat, epoch, ref);
        } else if (topic == ISla.Left.selector) {
            uint32 seat = abi.decode(log.data, (uint32));
            address last = seats[seats.length - 1];
            (seats[seat - 1], _watchers[last].seat) = (last, seat);
            seats.pop();
            _watchers[who].seat = 0;
        } else if (topic == ISla.Equivocated.selector) {
            _watchers[who].ref = 0;
        } else if (topic == ISla.Claimed.selector) {
            slaClaimable[who] -= abi.decode(log.data, (uint256));
        } else {
            return _foldJudged(log);
        }
        return true;
    }

    function _foldJudged(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        LeaseId id = LeaseId.wrap(uint64(uint256(log.topics[1])));
        ISla.Challenge storage c = _challenges[id];
        if (topic == ISla.Challenged.selector) {
            (, uint40 clock) = abi.decode(log.data, (uint40, uint40));
            _challenges[id] = ISla.Challenge(_address(log.topics[2]), uint40(_now), clock);
        } else if (topic == ISla.Answered.selector) {
            c.challenger = address(0);
            slaClaimable[_address(log.topics[2])] += _fixed.challengeBond;
        } else if (topic == ISla.Resolved.selector) {
            c.challenger = address(0);
            slaClaimable[_address(log.topics[2])] += _fixed.challengeBond;
        } else if (topic == ISla.Reported.selector) {
            (uint40 from, uint40 to, uint128 due, uint128 reward,) =
                abi.decode(log.data, (uint40, uint40, uint128, uint128, uint8));
            ISla.Outage storage o = _outages[id];
            o.total += from == o.from ? due - o.due : due;
            (o.from, o.to, o.due) = (from, to, due);
            pots[keccak256(abi.encode(id, from, to))] += reward;
            unfetched += reward;
        } else {
            return false;
        }
        return true;
    }

    function _foldAuction(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        if (topic == IAuction.Claimed.selector) {
            auctionClaimable[_address(log.topics[1])] -= abi.decode(log.data, (uint256));
            return true;
        }
        if (topic == IAuction.Placed.selector) {
            (uint40 end, IAuction.Order memory order) = abi.decode(log.data, (uint40, IAuction.Order));
            Order storage placed = _orders.push();
            (placed.maxRate, placed.duration) = (order.maxRate, order.duration);
            IAuction.OrderView storage v = placed.view_;
            (v.hash, v.payer) = (keccak256(abi.encode(order)), _address(log.topics[3]));
            (v.deadline, v.latest) = (end, end + _fixed.maxExtension);
            (v.state, v.rate, v.coverage) = (IAuction.State.Open, order.maxRate, order.coverage);
            return true;
        }
        Order storage o = _orders[uint256(log.topics[1])];
        if (topic == IAuction.Bid.selector) {
            o.view_.leader = _address(log.topics[2]);
            (o.view_.rate, o.view_.deadline, o.view_.bids) = abi.decode(log.data, (uint128, uint40, uint32));
        } else if (topic == IAuction.Awarded.selector) {
            o.view_.state = IAuction.State.Awarded;
            o.view_.lease = LeaseId.wrap(uint64(uint256(log.topics[3])));
        } else if (topic == IAuction.Reopened.selector) {
            (, o.view_.deadline) = abi.decode(log.data, (uint256, uint40));
            o.view_.latest = o.view_.deadline + _fixed.maxExtension;
            (o.view_.state, o.view_.leader) = (IAuction.State.Open, address(0));
            (o.view_.rate, o.view_.lease) = (o.maxRate, LeaseId.wrap(0));
            ++o.view_.reopened;
        } else if (topic == IAuction.Over.selector) {
            o.view_.state = IAuction.State.Over;
            auctionClaimable[o.view_.payer] += _fixed.deposit;
        } else {
            return false;
        }
        return true;
    }

    function _foldApps(Vm.Log calldata log) private returns (bool) {
        bytes32 topic = log.topics[0];
        uint256 id = uint256(log.topics[1]);
        if (topic == IApps.Registered.selector) {
            IApps.Registration memory r = abi.decode(log.data, (IApps.Registration));
            bytes32 name = keccak256(bytes(r.name));
            IApps.App storage made = _apps.push();
            (made.owner, made.keeper) = (_address(log.topics[2]), r.keeper);
            (made.account, made.slot, made.name, made.spec) = (r.account, r.slot, name, r.spec);
            made.limits = r.limits;
            // Its streams are numbered in the order in which they come to be: the rent, and then each fee.
            made.rent = uint96(id) << 32 | ++made.streams;
            if (r.fee != 0) made.fee = uint96(id) << 32 | ++made.streams;
            named[name] = id;
            return true;
        }
        IApps.App storage a = _apps[id];
        if (topic == IApps.NameLost.selector) {
            (a.name, a.rent) = (0, 0);
        } else if (topic == IApps.SpecSet.selector) {
            (a.spec,) = abi.decode(log.data, (bytes32, string));
        } else if (topic == IApps.LimitsSet.selector) {
            a.limits = abi.decode(log.data, (IApps.Limits));
        } else if (topic == IApps.KeeperSet.selector) {
            a.keeper = _address(log.topics[2]);
            a.fee = abi.decode(log.data, (uint128)) == 0 ? 0 : uint96(id) << 32 | ++a.streams;
        } else if (topic == IApps.Retired.selector) {
            if (a.name != 0) named[a.name] = 0;
            delete _apps[id];
        } else {
            return topic == IApps.Deployed.selector;
        }
        return true;
    }

    /// @dev The account clock a third time, in the plainest words: second by second would say the same.
    function _settle(Account storage a) private {
        if (a.rate == 0) {
            (a.settledAt, a.dry) = (_now, false);
            return;
        }
        if (a.dry) return;
        uint256 elapsed = _now - a.settledAt;
        uint256 funded = a.free / a.rate;
        a.dry = funded < elapsed;
        uint256 secs = a.dry ? funded : elapsed;
        a.free -= secs * a.rate;
        a.clock += secs;
        a.settledAt += secs;
    }

    function _accrue(StreamId id) private {
        Stream storage s = streams[id];
        Account storage a = accounts[s.account];
        _settle(a);
        if (s.state != IPayments.StreamState.Running) return;
        s.owed += s.rate * (a.clock - s.clockAt);
        s.clockAt = a.clock;
    }

    function _address(bytes32 topic) private pure returns (address) {
        return address(uint160(uint256(topic)));
    }
}
