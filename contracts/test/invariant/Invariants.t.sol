// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Apps } from "../../src/Apps.sol";
import { Auction } from "../../src/Auction.sol";
import { Leases } from "../../src/Leases.sol";
import { Payments } from "../../src/Payments.sol";
import { Registry } from "../../src/Registry.sol";
import { Sla } from "../../src/Sla.sol";
import { Staking } from "../../src/Staking.sol";
import { IApps } from "../../src/interfaces/IApps.sol";
import { IAuction } from "../../src/interfaces/IAuction.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { IRegistry } from "../../src/interfaces/IRegistry.sol";
import { ISla } from "../../src/interfaces/ISla.sol";
import { IStaking } from "../../src/interfaces/IStaking.sol";
import { AccountId, AppId, LeaseId, OrderId, StreamId, operatorOf } from "../../src/types/Ids.sol";
import { Market } from "./Market.sol";
import { Model } from "./Model.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { Test } from "forge-std/Test.sol";

/// @notice What holds whatever is done, in whatever order, over all seven contracts together. The properties are checked in
/// one campaign, so that all of them see the same long runs: every so many calls (`check_interval` in foundry.toml), and at
/// the end of each run.
abstract contract Invariants is Test {
    uint256 private constant SCALE = 1e9;

    Market private _market;
    Model private _model;
    IERC20 private _token;
    Payments private _payments;
    Staking private _staking;
    Registry private _registry;
    Leases private _leases;
    Sla private _sla;
    Auction private _auction;
    Apps private _apps;

    constructor(bool hostile) {
        _market = new Market(hostile);
        _model = _market.model();
        (_token, _payments, _staking, _registry, _leases) = _market.contracts();
        (_sla, _auction, _apps) = _market.others();
    }

    function setUp() public {
        targetContract(address(_market));
        bytes4[] memory none = new bytes4[](1);
        none[0] = _market.setUp.selector;
        excludeSelector(FuzzSelector(address(_market), none));
    }

    function invariant_EveryProperty() public {
        check_Solvency();
        check_AccrualIsExactAndAdditive();
        check_NobodyCollectsAboveRateTimesFundedTime();
        check_WithdrawNeverBreaksALockup();
        check_OperatorsStayWithinApprovals();
        check_LockedIsAtMostBonded();
        check_SlashPaysThePayerWithinTheCoverage();
        check_SlotHoldsAtMostOneOpenLease();
        check_QuoteOpensAtMostOneLease();
        check_AwardIsNeverAboveTheCap();
        check_OutagesCostAtMostTheCoverage();
        check_KeepersStayWithinLimits();
        check_EventsRebuildAllState();
    }

    /// @notice Solvency: what Payments holds is what the accounts have free plus what the streams are owed, and what
    /// Staking holds is what is bonded, unbonding, claimable and burned. To the unit: what rounding leaves behind stays
    /// on the books of the account or the stream that it was left by.
    function check_Solvency() public view {
        uint256 units;
        AccountId[] memory ids = _market.accountIds();
        for (uint256 i = 0; i < ids.length; ++i) {
            units += _payments.account(ids[i]).free;
        }
        for (uint256 i = 0; i < _model.streamCount(); ++i) {
            units += _payments.stream(_model.streamIds(i)).owed;
        }
        uint256 held = _token.balanceOf(address(_payments)) - _market.strayPayments();
        assertEq(held * SCALE, units, "Payments holds what it owes");

        uint256 owed = _staking.burned();
        address[] memory people = _market.people();
        for (uint256 i = 0; i < people.length; ++i) {
            IStaking.Bond memory b = _staking.bondOf(people[i]);
            owed += b.bonded + b.unbonding + _staking.claimable(people[i]);
        }
        owed += _staking.claimable(address(_sla));
        held = _token.balanceOf(address(_staking)) - _market.strayStaking();
        assertEq(held, owed, "Staking holds what it owes");
        _checkBondsAndDeposits(people);
    }

    /// @dev Sla holds the bonds of challenges and what witnesses have not fetched, Auction the deposits of orders.
    function _checkBondsAndDeposits(address[] memory people) private view {
        uint256 owed;
        for (uint256 id = 1; id <= _model.leaseCount(); ++id) {
            address challenger = _sla.challengeOf(LeaseId.wrap(uint64(id))).challenger;
            if (challenger != address(0)) owed += _sla.CHALLENGE_BOND();
        }
        for (uint256 i = 0; i < people.length; ++i) {
            owed += _sla.claimable(people[i]);
        }
        // What witnesses have is here, or in Staking until the first of them fetches it.
        uint256 held = _token.balanceOf(address(_sla)) + _staking.claimable(address(_sla));
        assertEq(held, owed + _market.unfetched(), "Sla holds what it owes");
        owed = 0;
        for (uint256 id = 1; id <= _model.orderCount(); ++id) {
            if (_model.orderOf(id).view_.state != IAuction.State.Over) owed += _auction.DEPOSIT();
        }
        for (uint256 i = 0; i < people.length; ++i) {
            owed += _auction.claimable(people[i]);
        }
        assertEq(_token.balanceOf(address(_auction)), owed, "Auction holds what it owes");
    }

    /// @notice An award is never above the order's cap, nor made by whoever may not make it.
    function check_AwardIsNeverAboveTheCap() public view {
        assertEq(_market.dearAwards(), 0, "no dearer than asked for");
        for (uint256 id = 1; id <= _model.orderCount(); ++id) {
            Model.Order memory o = _model.orderOf(id);
            assertLe(o.view_.rate, o.maxRate, "a leader is below the cap");
        }
    }

    /// @notice What outages cost in all is never more than the coverage, and only counts while the lease ran and was paid
    /// for.
    function check_OutagesCostAtMostTheCoverage() public view {
        assertEq(_market.wrongReports(), 0, "no report outside of what was paid for");
        for (uint256 id = 1; id <= _model.leaseCount(); ++id) {
            ISla.Outage memory o = _sla.outageOf(LeaseId.wrap(uint64(id)));
            assertLe(o.due, o.total, "one outage is part of all");
            assertLe(o.total, _model.leaseOf(id).coverage, "within the coverage");
        }
    }

    /// @notice A keeper does nothing outside of what the owner allowed.
    function check_KeepersStayWithinLimits() public view {
        assertEq(_market.beyondLimits(), 0);
    }

    /// @notice Accrual is exact and additive: of what was deposited into an account, each unit is free, left, was
    /// collected, or is owed.
    function check_AccrualIsExactAndAdditive() public view {
        AccountId[] memory ids = _market.accountIds();
        for (uint256 i = 0; i < ids.length; ++i) {
            Model.Account memory a = _model.accountOf(ids[i]);
            uint256 sum = _payments.account(ids[i]).free + a.left;
            for (uint256 j = 0; j < _model.streamCount(); ++j) {
                Model.Stream memory s = _model.streamOf(_model.streamIds(j));
                if (!(s.account == ids[i])) continue;
                sum += s.collected + _payments.stream(_model.streamIds(j)).owed;
            }
            assertEq(sum, a.deposited, "every unit is somewhere");
        }
    }

    /// @notice Nobody collects above rate × funded time, and nobody gets less, but for what a dark close gave back.
    function check_NobodyCollectsAboveRateTimesFundedTime() public view {
        for (uint256 i = 0; i < _model.streamCount(); ++i) {
            StreamId id = _model.streamIds(i);
            Model.Stream memory s = _model.streamOf(id);
            uint256 got = s.collected + s.cut + _payments.stream(id).owed;
            assertEq(got, _market.ceiling(id), "accrued is rate times funded seconds");
        }
    }

    /// @notice A withdrawal or a payment never breaks a lockup, and a lockup is the sum of its streams'.
    function check_WithdrawNeverBreaksALockup() public view {
        assertEq(_market.brokenLockups(), 0);
        AccountId[] memory ids = _market.accountIds();
        for (uint256 i = 0; i < ids.length; ++i) {
            uint256 lockup;
            uint256 rate;
            for (uint256 j = 0; j < _model.streamCount(); ++j) {
                IPayments.StreamView memory s = _payments.stream(_model.streamIds(j));
                if (!(s.account == ids[i])) continue;
                lockup += uint256(s.rate) * s.lock;
                if (s.state == IPayments.StreamState.Running) rate += s.rate;
            }
            IPayments.AccountView memory a = _payments.account(ids[i]);
            assertEq(a.lockup, lockup, "lockup is the sum of its streams'");
            assertEq(a.rate, rate, "rate is the sum of its running streams'");
        }
    }

    /// @notice Operators stay within approvals: the rate in use is that of their open streams, to the unit, and what
    /// they paid is within what they were given.
    function check_OperatorsStayWithinApprovals() public view {
        AccountId[] memory ids = _market.accountIds();
        address[4] memory operators = _market.operators();
        for (uint256 i = 0; i < ids.length; ++i) {
            for (uint256 k = 0; k < operators.length; ++k) {
                uint256 used;
                for (uint256 j = 0; j < _model.streamCount(); ++j) {
                    StreamId id = _model.streamIds(j);
                    bool counts = operatorOf(id) == operators[k] && _model.streamOf(id).account == ids[i];
                    if (counts) used += _payments.stream(id).rate;
                }
                IPayments.Approval memory p = _payments.approval(ids[i], operators[k]);
                Model.Approval memory q = _model.approvalOf(ids[i], operators[k]);
                assertEq(p.rateUsed, used, "used is the sum of its open streams'");
                assertLe(q.paid, q.given.payLimit, "paid within what was given");
            }
        }
    }

    /// @notice Locked ≤ bonded, and what is locked is the sum of the locks.
    function check_LockedIsAtMostBonded() public view {
        Model.LockKey[] memory keys = _model.locks();
        for (uint256 i = 0; i < 2; ++i) {
            address bonder = _market.providers()[i].addr;
            IStaking.Bond memory b = _staking.bondOf(bonder);
            uint256 sum;
            for (uint256 j = 0; j < keys.length; ++j) {
                if (keys[j].bonder != bonder || _isRepeated(keys, j)) continue;
                sum += _staking.lockOf(bonder, keys[j].locker, keys[j].ref).amount;
            }
            assertEq(b.locked, sum, "locked is the sum of the locks");
            assertLe(b.locked, b.bonded, "locked is at most bonded");
        }
    }

    /// @notice A slash pays the lease's payer and never exceeds that lease's coverage.
    function check_SlashPaysThePayerWithinTheCoverage() public view {
        assertEq(_model.astray(), 0, "paid to the payer");
        for (uint256 id = 1; id <= _model.leaseCount(); ++id) {
            Model.Lease memory l = _model.leaseOf(id);
            assertLe(l.slashed, l.coverage, "within the coverage");
        }
    }

    /// @notice A slot holds at most one open lease.
    function check_SlotHoldsAtMostOneOpenLease() public view {
        AccountId[] memory ids = _market.accountIds();
        for (uint256 i = 0; i < ids.length; ++i) {
            for (uint32 slot = 0; slot < 3; ++slot) {
                uint256 open = _model.openInSlot(ids[i], slot);
                assertLe(open, 1, "one open lease");
                assertEq(_leases.isSlotTaken(ids[i], slot), open == 1, "taken is open");
            }
        }
    }

    /// @notice A quote opens at most one lease.
    function check_QuoteOpensAtMostOneLease() public view {
        for (uint256 i = 0; i < 2; ++i) {
            address provider = _market.providers()[i].addr;
            for (uint256 nonce = 0; nonce <= _market.lastNonce(); ++nonce) {
                assertLe(_model.openedWith(provider, nonce), 1, "one lease");
                bool used = _model.isNonceUsed(provider, nonce);
                assertEq(_leases.isNonceUsed(provider, nonce), used, "used is used");
            }
        }
    }

    /// @notice Every state change emits exactly one event, and the events alone rebuild all state.
    function check_EventsRebuildAllState() public {
        assertEq(_market.wrongEvents(), 0, "one event for each change");
        assertEq(_model.unknown(), 0, "of the kinds that are documented");
        _compareAccounts();
        _compareStreams();
        _compareStaking();
        _compareProvidersAndLeases();
        _compareJudged();
        _compareOrdersAndApps();
    }

    /// @notice A run in which nothing was done has shown nothing.
    function afterInvariant() public {
        invariant_EveryProperty();
        // A failure that is played again is shorter than a run.
        if (_market.acts() < 100) return;
        assertGt(_market.doneInAll(), 10, "the handlers do something");
        assertGt(_market.done("pass"), 0, "time passes");
        assertGt(_market.done("refused"), 0, "somebody tries what is forbidden");
    }

    function _compareAccounts() private {
        AccountId[] memory ids = _market.accountIds();
        address[4] memory operators = _market.operators();
        for (uint256 i = 0; i < ids.length; ++i) {
            Model.Account memory b = _model.settle(ids[i], block.timestamp);
            IPayments.AccountView memory a = _payments.account(ids[i]);
            uint256 end = b.settledAt + (b.dry || b.rate == 0 ? 0 : b.free / b.rate);
            if (b.rate == 0 || end > type(uint40).max) end = type(uint40).max;
            assertEq(abi.encode(a), abi.encode(b.owner, b.free, b.lockup, b.rate, b.clock, end), "an account");
            for (uint256 j = 0; j < operators.length; ++j) {
                IPayments.Approval memory p = _payments.approval(ids[i], operators[j]);
                Model.Approval memory q = _model.approvalOf(ids[i], operators[j]);
                q.given.payLimit -= uint128(q.paid);
                q.given.rateUsed = p.rateUsed;
                assertEq(abi.encode(p), abi.encode(q.given), "an approval");
            }
            bool isAgent = _model.isAgent(ids[i], _market.agent());
            assertEq(_leases.isAgent(ids[i], _market.agent()), isAgent, "an agent");
            assertEq(_payments.resumedAt(ids[i]), b.resumedAt, "since when it is funded");
        }
    }

    function _compareStreams() private {
        for (uint256 i = 0; i < _model.streamCount(); ++i) {
            StreamId id = _model.streamIds(i);
            (, Model.Stream memory t) = _model.at(id, block.timestamp);
            assertEq(
                abi.encode(_payments.stream(id)),
                abi.encode(t.account, t.payee, t.rate, t.lock, t.state, t.owed),
                "a stream"
            );
        }
    }

    function _compareStaking() private view {
        address[] memory people = _market.people();
        for (uint256 i = 0; i < people.length; ++i) {
            IStaking.Bond memory b = _staking.bondOf(people[i]);
            assertEq(abi.encode(b), abi.encode(_model.bondOf(people[i])), "a bond");
        }
        for (uint256 i = 0; i < 2; ++i) {
            address bonder = _market.providers()[i].addr;
            bool issues = _model.isIssuer(bonder, address(_auction));
            assertEq(_leases.isIssuer(bonder, address(_auction)), issues, "an issuer");
            uint40 until = _model.vouchedUntil(bonder, _market.agent(), "gpu");
            assertEq(_registry.vouchedUntil(bonder, _market.agent(), "gpu"), until, "an attribute");
            address[2] memory lockers = [_market.locker(), address(_leases)];
            for (uint256 j = 0; j < lockers.length; ++j) {
                bool isLocker = _model.isLocker(bonder, lockers[j]);
                assertEq(_staking.isLocker(bonder, lockers[j]), isLocker, "a locker");
            }
        }
        Model.LockKey[] memory keys = _model.locks();
        for (uint256 i = 0; i < keys.length; ++i) {
            IStaking.Lock memory l = _staking.lockOf(keys[i].bonder, keys[i].locker, keys[i].ref);
            assertEq(abi.encode(l), abi.encode(_model.lockOf(keys[i])), "a lock");
        }
        for (uint256 i = 0; i < people.length; ++i) {
            assertEq(_staking.claimable(people[i]), _model.claimable(people[i]), "what is claimable");
            assertEq(_sla.claimable(people[i]), _model.slaClaimable(people[i]), "what is claimable of Sla");
            uint256 due = _model.auctionClaimable(people[i]);
            assertEq(_auction.claimable(people[i]), due, "what is claimable of Auction");
        }
        assertEq(_staking.claimable(address(_sla)), _model.claimable(address(_sla)), "what witnesses have");
        assertEq(_staking.burned(), _model.burned(), "what was burned");
    }

    function _compareProvidersAndLeases() private view {
        for (uint256 i = 0; i < 2; ++i) {
            address who = _market.providers()[i].addr;
            Model.Provider memory p = _model.providerOf(who);
            IRegistry.ProviderView memory v = _registry.listingOf(who);
            bool live = p.listed && block.timestamp <= p.seenAt + _registry.TTL();
            assertEq(
                abi.encode(v),
                abi.encode(IRegistry.ProviderView(p.listing, p.version, p.seenAt, p.listed, live)),
                "a listing"
            );
        }
        assertEq(_leases.count(), _model.leaseCount(), "how many leases");
        for (uint256 id = 1; id <= _model.leaseCount(); ++id) {
            Model.Lease memory l = _model.leaseOf(id);
            assertEq(abi.encode(_leases.lease(LeaseId.wrap(uint64(id)))), abi.encode(l.lease), "a lease");
        }
    }

    function _compareJudged() private view {
        for (uint256 i = 1; i <= _model.leaseCount(); ++i) {
            LeaseId id = LeaseId.wrap(uint64(i));
            ISla.Challenge memory c = _sla.challengeOf(id);
            assertEq(abi.encode(c), abi.encode(_model.challengeOf(id)), "a challenge");
            assertEq(abi.encode(_sla.outageOf(id)), abi.encode(_model.outageOf(id)), "an outage");
        }
        for (uint256 i = 0; i < 11; ++i) {
            address who = _market.watchers()[i].addr;
            assertEq(abi.encode(_sla.watcherOf(who)), abi.encode(_model.watcherOf(who)), "a watcher");
        }
    }

    function _compareOrdersAndApps() private view {
        assertEq(_auction.count(), _model.orderCount(), "how many orders");
        for (uint256 i = 1; i <= _model.orderCount(); ++i) {
            IAuction.OrderView memory o = _auction.orderOf(OrderId.wrap(uint64(i)));
            assertEq(abi.encode(o), abi.encode(_model.orderOf(i).view_), "an order");
        }
        assertEq(_apps.count(), _model.appCount(), "how many apps");
        for (uint256 i = 1; i <= _model.appCount(); ++i) {
            IApps.App memory a = _apps.appOf(AppId.wrap(uint64(i)));
            assertEq(abi.encode(a), abi.encode(_model.appOf(i)), "an app");
        }
        string[3] memory names = ["guestbook", "shop", "a-b"];
        for (uint256 i = 0; i < 3; ++i) {
            uint256 holder = _model.named(keccak256(bytes(names[i])));
            assertEq(AppId.unwrap(_apps.named(names[i])), holder, "a name");
        }
    }

    function _isRepeated(Model.LockKey[] memory keys, uint256 which) private pure returns (bool) {
        for (uint256 i = 0; i < which; ++i) {
            if (keccak256(abi.encode(keys[i])) == keccak256(abi.encode(keys[which]))) return true;
        }
        return false;
    }
}

/// @notice With a token that behaves.
contract MarketInvariants is Invariants(false) { }

/// @notice With one that takes fees, returns nothing, returns false, calls back, and blocks receivers.
contract HostileMarketInvariants is Invariants(true) { }
