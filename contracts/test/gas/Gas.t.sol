// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../src/interfaces/ILeases.sol";
import { LeaseId, StreamId } from "../../src/types/Ids.sol";
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

    function _note(string memory group, string memory operation) private {
        vm.snapshotGasLastCall(group, operation);
    }
}
