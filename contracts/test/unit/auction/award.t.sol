// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IAuction } from "../../../src/interfaces/IAuction.sol";
import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { LeaseId, OrderId } from "../../../src/types/Ids.sol";
import { Orders } from "./Orders.sol";

// award
// ├── when the order is not open, or is another ─ reverts
// ├── when nobody leads ─ reverts
// ├── when the caller does not pay, and it does not award itself or not yet ─ reverts
// ├── by the payer at any time ─ opens the lease at the leader's rate
// └── by anybody after its time, where it awards itself ─ opens the lease
// settle
// ├── when not awarded ─ reverts
// ├── when the lease may still start ─ reverts
// ├── when it started ─ ends the order, and frees the rest of the bond
// ├── when the payer closed it, let its account run short, or ended the stream ─ ends the order without a penalty
// ├── when the provider closed it, or missed the start ─ it pays, and the order begins anew
// └── when that happened too often ─ ends the order
contract AwardTest is Orders {
    OrderId private _id;

    function setUp() public override {
        super.setUp();
        _id = _place(_order());
    }

    function test_RevertWhen_NotOpen() public {
        _expectState(OrderId.wrap(2), IAuction.State.None);
        _award(OrderId.wrap(2));
        _bid(provider.addr, _id, RATE);
        _award(_id);
        _expectState(_id, IAuction.State.Awarded);
        _award(_id);
        _expectState(_id, IAuction.State.Awarded);
        auction.disqualify(_id);
    }

    function test_RevertWhen_AnotherOrder() public {
        _bid(provider.addr, _id, RATE);
        IAuction.Order memory order = _order();
        order.coverage += 1;
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_WrongOrder.selector, _id));
        vm.prank(payer);
        auction.award(_id, order);
    }

    function test_RevertWhen_NobodyLeads() public {
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_NoLeader.selector, _id));
        _award(_id);
    }

    function test_RevertWhen_ItDoesNotAwardItself() public {
        _bid(provider.addr, _id, RATE);
        skip(DURATION + 1);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_TooEarly.selector, _id, 0));
        vm.prank(provider.addr);
        auction.award(_id, _order());
    }

    function test_RevertWhen_AwardedTooEarly() public {
        IAuction.Order memory order = _order();
        order.selfAward = true;
        _id = _place(order);
        _bid(provider.addr, _id, RATE);
        uint40 deadline = auction.orderOf(_id).deadline;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_TooEarly.selector, _id, deadline + 1));
        vm.prank(provider.addr);
        auction.award(_id, order);
        vm.warp(deadline + 1);
        vm.prank(stranger);
        auction.award(_id, order);
        assertEq(uint8(auction.orderOf(_id).state), uint8(IAuction.State.Awarded));
    }

    function test_WhenAwarded() public {
        _bid(_other.addr, _id, MAX_RATE);
        _bid(provider.addr, _id, RATE);
        vm.expectEmit(address(auction));
        emit IAuction.Awarded(_id, provider.addr, LeaseId.wrap(1), RATE);
        _award(_id);
        LeaseId[] memory ids = new LeaseId[](1);
        ids[0] = LeaseId.wrap(1);
        ILeases.LeaseView memory v = leases.leases(ids)[0];
        assertEq(v.lease.state, ILeases.State.Pending);
        assertEq(v.lease.slot, 3);
        assertEq(v.lease.startBy, block.timestamp + 2 minutes);
        assertEq(
            abi.encode(v.lease.grace, v.lease.full, v.lease.response, v.lease.notice),
            abi.encode(1 minutes, 1 hours, 5 minutes, 1 days)
        );
        assertEq(
            abi.encode(v.account, v.payer, v.provider, v.lock),
            abi.encode(account, payer, provider.addr, LOCK)
        );
        assertEq(v.coverage, COVERAGE);
        assertEq(_locked(provider.addr), COVERAGE + NO_SHOW, "the rest stays until it has started");
        assertEq(auction.orderOf(_id).lease, ids[0]);
        assertLe(payments.stream(_streamOf(ids[0])).rate, MAX_RATE);
        assertEq(payments.stream(_streamOf(ids[0])).rate, RATE);
    }

    /// @dev Every bit of the leader's bond may be bound by the bid itself.
    function test_WhenTheWholeBondIsBound_ItIsEnough() public {
        vm.startPrank(provider.addr);
        staking.requestUnbond(BOND - COVERAGE - NO_SHOW);
        vm.stopPrank();
        _bid(provider.addr, _id, RATE);
        _award(_id);
        assertEq(staking.bondOf(provider.addr).bonded, COVERAGE + NO_SHOW);
        assertEq(_locked(provider.addr), COVERAGE + NO_SHOW);
    }

    function test_WhenNoCoverageIsAsked() public {
        IAuction.Order memory order = _order();
        order.coverage = 0;
        _id = _place(order);
        _bid(provider.addr, _id, RATE);
        vm.prank(payer);
        auction.award(_id, order);
        vm.warp(block.timestamp + 121);
        leases.close(LeaseId.wrap(1), ILeases.CloseReason.StartMissed);
        auction.settle(_id);
        assertEq(uint8(auction.orderOf(_id).state), uint8(IAuction.State.Open));
        assertEq(staking.claimable(payer), 0);
    }

    /// @dev An order whose payer took its word back cannot be awarded, but ends.
    function test_RevertWhen_PayerTookItsWordBack() public {
        _bid(provider.addr, _id, RATE);
        vm.prank(payer);
        leases.setAgent(account, address(auction), false);
        vm.expectRevert(
            abi.encodeWithSelector(
                ILeases.Leases_NotPayer.selector, LeaseId.wrap(1), account, address(auction)
            )
        );
        _award(_id);
        skip(DURATION + 1 hours + 1);
        auction.expire(_id);
        assertEq(_locked(provider.addr), 0);
    }

    function test_RevertWhen_NotAwarded() public {
        _expectState(_id, IAuction.State.Open);
        auction.settle(_id);
    }

    function test_RevertWhen_ItMayStillStart() public {
        LeaseId lease = _awarded();
        vm.expectRevert(abi.encodeWithSelector(IAuction.Auction_StillPending.selector, _id, lease));
        auction.settle(_id);
    }

    function test_WhenStarted() public {
        LeaseId lease = _awarded();
        vm.prank(provider.addr);
        leases.activate(lease);
        vm.expectEmit(address(auction));
        emit IAuction.Over(_id, IAuction.Outcome.Started, provider.addr, 0);
        vm.prank(stranger);
        auction.settle(_id);
        assertEq(_locked(provider.addr), COVERAGE);
        assertEq(auction.claimable(payer), DEPOSIT);
    }

    function test_WhenStartedAndClosedSince() public {
        LeaseId lease = _awarded();
        vm.prank(provider.addr);
        leases.activate(lease);
        vm.prank(payer);
        leases.close(lease, ILeases.CloseReason.PayerDone);
        _settle(IAuction.Outcome.Started);
    }

    function test_WhenPayerClosedIt() public {
        LeaseId lease = _awarded();
        vm.prank(payer);
        leases.close(lease, ILeases.CloseReason.PayerUnsatisfied);
        _settle(IAuction.Outcome.Cancelled);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    /// @dev A payer that lets its account run short so that the start fails gains nothing by it.
    function test_WhenPayerRunsShort() public {
        _stream(1, 2 * RATE, LOCK, true);
        LeaseId lease = _awarded();
        IPayments.AccountView memory a = payments.account(account);
        vm.prank(payer);
        payments.withdraw(account, payer, (a.free - a.lockup) / SCALE);
        skip(100);
        vm.prank(provider.addr);
        vm.expectRevert();
        leases.activate(lease);
        vm.prank(provider.addr);
        leases.close(lease, ILeases.CloseReason.AccountDry);
        _settle(IAuction.Outcome.Cancelled);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    /// @dev Nor does one that ends the stream and calls that a missed start.
    function test_WhenPayerEndsTheStream() public {
        LeaseId lease = _awarded();
        vm.prank(payer);
        payments.closeStream(_streamOf(lease));
        vm.prank(provider.addr);
        vm.expectRevert();
        leases.activate(lease);
        skip(1 hours);
        vm.prank(payer);
        leases.close(lease, ILeases.CloseReason.StartMissed);
        _settle(IAuction.Outcome.Cancelled);
        assertEq(staking.bondOf(provider.addr).bonded, BOND);
    }

    function test_WhenProviderClosedIt() public {
        LeaseId lease = _awarded();
        vm.prank(provider.addr);
        leases.close(lease, ILeases.CloseReason.ProviderFull);
        _reopens(1);
    }

    function test_WhenStartWasMissed() public {
        LeaseId lease = _awarded();
        skip(121);
        leases.close(lease, ILeases.CloseReason.StartMissed);
        _reopens(1);
        _bid(_other.addr, _id, MAX_RATE);
        _award(_id);
        assertEq(payments.stream(_streamOf(LeaseId.wrap(2))).payee, _other.addr);
    }

    function test_WhenThatHappenedTooOften() public {
        for (uint8 i = 0; i < 4; ++i) {
            LeaseId lease = _awarded();
            vm.prank(provider.addr);
            leases.close(lease, ILeases.CloseReason.ProviderFull);
            if (i < 3) _reopens(i + 1);
        }
        vm.expectEmit(address(auction));
        emit IAuction.Over(_id, IAuction.Outcome.GivenUp, provider.addr, NO_SHOW);
        auction.settle(_id);
        assertEq(staking.bondOf(provider.addr).bonded, BOND - 4 * NO_SHOW);
        assertEq(_locked(provider.addr), 0);
        assertEq(auction.claimable(payer), DEPOSIT);
    }

    function testFuzz_AnAwardIsNeverAboveTheCap(uint128[5] memory rates, uint8 noShows) public {
        for (uint256 i = 0; i < rates.length; ++i) {
            uint128 most = auction.nextRate(_id);
            if (most == 0) break;
            _bid(i % 2 == 0 ? provider.addr : _other.addr, _id, uint128(bound(rates[i], 1, most)));
        }
        for (uint256 i = 0; i <= noShows % 4; ++i) {
            if (auction.orderOf(_id).leader == address(0)) _bid(provider.addr, _id, MAX_RATE);
            _award(_id);
            LeaseId lease = auction.orderOf(_id).lease;
            assertLe(payments.stream(_streamOf(lease)).rate, MAX_RATE);
            skip(121);
            leases.close(lease, ILeases.CloseReason.StartMissed);
            auction.settle(_id);
        }
    }

    function _awarded() private returns (LeaseId) {
        _bid(provider.addr, _id, RATE);
        _award(_id);
        return auction.orderOf(_id).lease;
    }

    function _settle(IAuction.Outcome outcome) private {
        vm.expectEmit(address(auction));
        emit IAuction.Over(_id, outcome, provider.addr, 0);
        auction.settle(_id);
        assertEq(staking.lockOf(provider.addr, address(auction), 1 << 32 | 1).amount, 0);
        assertEq(auction.claimable(payer), DEPOSIT);
    }

    function _reopens(uint8 times) private {
        vm.expectEmit(address(auction));
        emit IAuction.Reopened(_id, provider.addr, NO_SHOW, uint40(block.timestamp) + DURATION);
        auction.settle(_id);
        assertEq(staking.bondOf(provider.addr).bonded, BOND - times * NO_SHOW);
        assertEq(_locked(provider.addr), 0);
        assertEq(staking.claimable(payer), times * (NO_SHOW - NO_SHOW / 10));
        assertEq(auction.orderOf(_id).reopened, times);
        assertEq(auction.orderOf(_id).rate, MAX_RATE);
    }
}
