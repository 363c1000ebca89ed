// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IApps } from "../../src/interfaces/IApps.sol";
import { IAuction } from "../../src/interfaces/IAuction.sol";
import { ILeases } from "../../src/interfaces/ILeases.sol";
import { ISla } from "../../src/interfaces/ISla.sol";
import { AppId, LeaseId, OrderId, StreamId } from "../../src/types/Ids.sol";
import { Base } from "../Base.t.sol";

/// @notice What each operation costs as a transaction of its own: the 21,000 and the calldata included, storage cold.
/// The figures are in snapshots/; `forge test` fails when one has changed, `make gas` writes them anew. A name says in
/// what state the operation finds the contracts, because that is most of its cost.
/// forge-config: default.isolate = true
contract GasTest is Base {
    /// @dev In the middle of things: balances, counters and words that are in use are no longer zero.
    function setUp() public override {
        super.setUp();
        _market();
        token.mint(payer, FUNDS);
        token.mint(payee, 1);
        token.mint(provider.addr, 1);
        vm.prank(payer);
        token.approve(address(payments), type(uint256).max);
        _approve(keeper, type(uint128).max, type(uint128).max, type(uint32).max);
        _open(_quote(200), 200);
        _stream(200, true);
        skip(1 minutes);
    }

    // Payments ------------------------------------------------------------------------------------------------------

    function test_Deposit() public {
        vm.startPrank(payer);
        payments.deposit(payer, "new", 1e6);
        _note("Payments", "deposit, a new account");
        payments.deposit(payer, "new", 1e6);
        _note("Payments", "deposit, a top-up");
        payments.deposit(payer, SALT, 1e6);
        _note("Payments", "deposit, a top-up while streams run");
        vm.stopPrank();
        _runDry(1 hours);
        vm.prank(payer);
        payments.deposit(payer, SALT, 50e6);
        _note("Payments", "deposit, a top-up of a dry account");
    }

    function test_DepositWithPermit() public {
        Account memory holder = makeAccount("holder");
        token.mint(holder.addr, 5e6);
        bytes32 permit = keccak256(
            abi.encode(
                keccak256(
                    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
                ),
                holder.addr,
                address(payments),
                2e6,
                0,
                block.timestamp
            )
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), permit));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(holder.key, digest);
        vm.prank(holder.addr);
        payments.depositWithPermit(holder.addr, SALT, 2e6, block.timestamp, v, r, s);
        _note("Payments", "depositWithPermit, a new account");
    }

    function test_Approve() public {
        vm.prank(payer);
        payments.approve(account, stranger, RATE, 1, LOCK, type(uint40).max);
        _note("Payments", "approve, a new operator");
    }

    function test_Stream() public {
        vm.prank(payer);
        StreamId id = payments.openStream(account, 1, payee, RATE, LOCK, true);
        _note("Payments", "openStream, by the owner");
        vm.prank(keeper);
        StreamId reserved = payments.openStream(account, 1, payee, RATE, LOCK, false);
        _note("Payments", "openStream, by an operator, reserved");
        skip(1 minutes);
        vm.prank(keeper);
        payments.startStream(reserved);
        _note("Payments", "startStream");
        skip(1 minutes);
        vm.prank(payer);
        payments.setRate(id, 2 * RATE, LOCK);
        _note("Payments", "setRate, a raise");
        skip(1 minutes);
        vm.prank(payer);
        payments.closeStream(id);
        _note("Payments", "closeStream, by the owner");
        skip(1 minutes);
        vm.prank(keeper);
        payments.closeStream(reserved);
        _note("Payments", "closeStream, by an operator");
    }

    function test_Collect() public {
        StreamId[] memory ids = new StreamId[](10);
        for (uint96 i = 0; i < 10; ++i) {
            ids[i] = _stream(i, true);
        }
        skip(1 hours);
        payments.collect(_only(_idOf(200)));
        _note("Payments", "collect, one stream");
        skip(1 hours);
        payments.collect(ids);
        _note("Payments", "collect, ten streams of one account");
    }

    function test_Withdraw() public {
        vm.prank(payer);
        payments.withdraw(account, payee, 1e6);
        _note("Payments", "withdraw");
        vm.prank(payer);
        payments.pay(account, payee, 1e6);
        _note("Payments", "pay, by the owner");
        vm.prank(keeper);
        payments.pay(account, payee, 1e6);
        _note("Payments", "pay, by an operator");
    }

    // Staking -------------------------------------------------------------------------------------------------------

    function test_Staking() public {
        token.mint(stranger, 10e6);
        vm.startPrank(stranger);
        token.approve(address(staking), type(uint256).max);
        staking.bond(stranger, 4e6);
        _note("Staking", "bond, a new bonder");
        staking.bond(stranger, 4e6);
        _note("Staking", "bond, more");
        staking.setLocker(keeper, true);
        _note("Staking", "setLocker");
        vm.stopPrank();
        vm.startPrank(keeper);
        staking.lock(stranger, 1, 2e6);
        _note("Staking", "lock");
        staking.slash(stranger, 1, 1e6, payer, address(0), 0);
        _note("Staking", "slash, without a reward");
        staking.release(stranger, 1, uint40(block.timestamp + 1 days));
        _note("Staking", "release, for later");
        vm.stopPrank();
        skip(1 days);
        staking.unlock(stranger, keeper, 1);
        _note("Staking", "unlock");
        vm.prank(payer);
        staking.claim(payer);
        _note("Staking", "claim");
        vm.startPrank(stranger);
        staking.requestUnbond(1e6);
        _note("Staking", "requestUnbond");
        skip(UNBOND_DELAY);
        staking.withdraw(stranger);
        _note("Staking", "withdraw");
    }

    // Registry ------------------------------------------------------------------------------------------------------

    function test_Registry() public {
        vm.startPrank(stranger);
        registry.list(_listing());
        _note("Registry", "list, a new provider");
        registry.list(_listing());
        _note("Registry", "list, nothing changed");
        registry.heartbeat();
        _note("Registry", "heartbeat");
        registry.delist();
        _note("Registry", "delist");
    }

    // Leases --------------------------------------------------------------------------------------------------------

    function test_Lease() public {
        LeaseId id = _open(_quote(1), 1);
        _note("Leases", "open");
        skip(1 minutes);
        vm.prank(provider.addr);
        leases.activate(id);
        _note("Leases", "activate");
        skip(1 hours);
        ILeases.Quote memory quote = _quote(2);
        (quote.lease, quote.rate) = (id, 2 * RATE);
        bytes memory signature = _sign(quote);
        vm.prank(payer);
        leases.amend(id, quote, signature);
        _note("Leases", "amend, a higher rate");
        skip(1 hours);
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.PayerDone);
        _note("Leases", "close, by the payer");
    }

    function test_LeaseOfAProviderThatLeaves() public {
        LeaseId id = _open(_quote(1), 1);
        vm.startPrank(provider.addr);
        leases.activate(id);
        skip(1 hours);
        leases.giveNotice(id, ILeases.CloseReason.ProviderDraining);
        _note("Leases", "giveNotice");
        leases.close(id, ILeases.CloseReason.ProviderDraining);
        _note("Leases", "close, by the provider, before its notice ends");
    }

    function test_LeaseThatNeverStarts() public {
        LeaseId id = _open(_quote(1), 1);
        skip(1 hours);
        leases.close(id, ILeases.CloseReason.StartMissed);
        _note("Leases", "close, start missed");
    }

    function test_LeaseWithoutCoverage() public {
        ILeases.Quote memory quote = _quote(1);
        quote.coverage = 0;
        LeaseId id = _open(quote, 1);
        _note("Leases", "open, without coverage");
        vm.prank(provider.addr);
        leases.activate(id);
        skip(1 hours);
        vm.prank(payer);
        leases.close(id, ILeases.CloseReason.PayerDone);
        _note("Leases", "close, without coverage");
    }

    function test_LeasesAside() public {
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        _note("Leases", "setAgent");
        vm.prank(provider.addr);
        leases.cancelNonces(0, 0xff);
        _note("Leases", "cancelNonces");
    }

    // Sla -------------------------------------------------------------------------------------------------------------

    function test_Challenge() public {
        LeaseId id = _running(1);
        token.mint(payer, 10e6);
        vm.prank(payer);
        token.approve(address(sla), type(uint256).max);
        token.mint(address(sla), 1);
        vm.prank(payer);
        sla.challenge(id);
        _note("Sla", "challenge");
        vm.prank(provider.addr);
        sla.answer(id);
        _note("Sla", "answer");
        vm.prank(provider.addr);
        sla.claim(provider.addr);
        _note("Sla", "claim");
        skip(1 hours);
        vm.prank(payer);
        sla.challenge(id);
        skip(1 hours);
        sla.resolve(id);
        _note("Sla", "resolve, dark");
    }

    function test_Report() public {
        Account[9] memory watchers;
        for (uint256 i = 0; i < 9; ++i) {
            watchers[i] = makeAccount(string.concat("watcher ", vm.toString(i)));
            _bond(watchers[i].addr, 200e6);
            _allow(watchers[i].addr, address(sla));
            vm.prank(watchers[i].addr);
            sla.join();
        }
        _note("Sla", "join");
        LeaseId id = _running(1);
        vm.warp((block.timestamp / 1 hours + 1) * 1 hours);
        sla.openEpoch();
        _note("Sla", "openEpoch");
        uint40 from = uint40(block.timestamp);
        skip(30 minutes);
        _report(watchers, id, from, from + 600, 5);
        _note("Sla", "report, the first of a lease, five signatures");
        _report(watchers, id, from, from + 900, 7);
        _note("Sla", "report, a longer outage, seven signatures");
        _report(watchers, id, from, from + 901, 5);
        _note("Sla", "report, a longer outage, five signatures");
        sla.reward(keccak256(abi.encode(id, from, from + 600)), 0);
        _note("Sla", "reward, the first of several reports");
        sla.reward(keccak256(abi.encode(id, from, from + 900)), 0);
        _note("Sla", "reward");
        ISla.Statement memory up = ISla.Statement(id, from, from + 600, true);
        ISla.Statement memory down = ISla.Statement(id, from, from + 600, false);
        sla.equivocated(watchers[2].addr, up, _state(watchers[2], up), down, _state(watchers[2], down));
        _note("Sla", "equivocated");
        vm.prank(watchers[3].addr);
        sla.leave();
        _note("Sla", "leave");
    }

    // Auction ---------------------------------------------------------------------------------------------------------

    function test_Auction() public {
        Account memory other = makeAccount("another provider");
        address[2] memory bidders = [provider.addr, other.addr];
        _bond(other.addr, BOND);
        vm.prank(other.addr);
        registry.list(_listing());
        for (uint256 i = 0; i < 2; ++i) {
            _allow(bidders[i], address(leases));
            _allow(bidders[i], address(auction));
            vm.prank(bidders[i]);
            leases.setIssuer(address(auction), true);
        }
        _note("Leases", "setIssuer");
        token.mint(payer, 10e6);
        token.mint(address(auction), 1);
        vm.startPrank(payer);
        leases.setAgent(account, address(auction), true);
        token.approve(address(auction), type(uint256).max);
        IAuction.Order memory order = _order();
        OrderId id = auction.place(order);
        _note("Auction", "place");
        vm.stopPrank();
        IAuction.Requirement[] memory none = new IAuction.Requirement[](0);
        vm.prank(provider.addr);
        auction.bid(id, RATE, none);
        _note("Auction", "bid, the first");
        vm.prank(other.addr);
        auction.bid(id, RATE / 2, none);
        _note("Auction", "bid, outbidding another");
        vm.prank(payer);
        LeaseId lease = auction.award(id, order);
        _note("Auction", "award");
        vm.prank(other.addr);
        leases.activate(lease);
        auction.settle(id);
        _note("Auction", "settle, started");
        vm.prank(payer);
        auction.claim(payer);
        _note("Auction", "claim");
        order.slot = 9;
        vm.prank(payer);
        id = auction.place(order);
        vm.prank(provider.addr);
        auction.bid(id, RATE, none);
        vm.prank(payer);
        lease = auction.award(id, order);
        skip(1 hours);
        leases.close(lease, ILeases.CloseReason.StartMissed);
        auction.settle(id);
        _note("Auction", "settle, a no-show");
        vm.prank(payer);
        auction.cancel(id);
        _note("Auction", "cancel");
    }

    // Apps ------------------------------------------------------------------------------------------------------------

    function test_Apps() public {
        vm.startPrank(payer);
        payments.approve(account, address(apps), type(uint128).max, 0, LOCK, type(uint40).max);
        leases.setAgent(account, address(apps), true);
        IApps.Registration memory r = IApps.Registration({
            account: account,
            slot: 10,
            name: "guestbook",
            spec: "spec",
            uri: "https://publisher.example/app.yaml",
            keeper: keeper,
            fee: 50,
            limits: IApps.Limits(5, LOCK, 2 * RATE, POD)
        });
        AppId app = apps.register(r);
        _note("Apps", "register");
        vm.stopPrank();
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        vm.prank(keeper);
        LeaseId lease = apps.deploy(app, 1, quote, signature, new bytes32[](0));
        _note("Apps", "deploy");
        vm.prank(keeper);
        apps.close(app, lease, ILeases.CloseReason.PayerMoved);
        _note("Apps", "close");
        vm.prank(payer);
        apps.setKeeper(app, stranger, 60);
        _note("Apps", "setKeeper");
        vm.prank(payer);
        apps.retire(app);
        _note("Apps", "retire");
    }

    function _running(uint32 slot) private returns (LeaseId id) {
        id = _open(_quote(slot), slot);
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function _order() private view returns (IAuction.Order memory order) {
        (order.account, order.slot, order.pod) = (account, 8, POD);
        (order.maxRate, order.coverage, order.lock) = (2 * RATE, COVERAGE, LOCK);
        (order.grace, order.full, order.response) = (1 minutes, 1 hours, 5 minutes);
        (order.notice, order.startWithin, order.duration) = (1 days, 2 minutes, 10 minutes);
        order.uri = "https://publisher.example/pod.yaml";
    }

    function _report(Account[9] memory watchers, LeaseId id, uint40 from, uint40 to, uint256 count) private {
        address[] memory all = sla.committee(id, from / 1 hours);
        uint8[] memory members = new uint8[](count);
        bytes[] memory signatures = new bytes[](count);
        for (uint8 i = 0; i < count; ++i) {
            members[i] = i;
            for (uint256 j = 0; j < 9; ++j) {
                if (watchers[j].addr != all[i]) continue;
                signatures[i] = _state(watchers[j], ISla.Statement(id, from, to, false));
            }
        }
        sla.report(id, from, to, members, signatures);
    }

    function _state(Account memory watcher, ISla.Statement memory s) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 t) = vm.sign(watcher.key, sla.digest(s));
        return abi.encodePacked(r, t, v);
    }

    function _note(string memory group, string memory operation) private {
        vm.snapshotGasLastCall(group, operation);
    }
}
