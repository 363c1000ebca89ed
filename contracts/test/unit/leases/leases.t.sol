// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Leases } from "../../../src/Leases.sol";
import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { AccountId, LeaseId, accountIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// setAgent
// ├── when the caller does not own the account ─ reverts
// └── else ─ the agent may, or may no longer, act for this account
// cancelNonces
// └── makes the caller's own unusable
// leases, digest
// └── say what the other views say
// multicall
// ├── when one of the calls reverts ─ reverts with its reason, and nothing of the others stays
// └── else ─ makes all of them for the caller
contract LeasesTest is Base {
    function setUp() public override {
        super.setUp();
        _market();
    }

    function test_RevertWhen_EarlyCloseCostsMoreThanAll() public {
        vm.expectRevert("earlyCloseBps is more than 10,000");
        new Leases(payments, staking, registry, CLAIM_WINDOW, 10_001, _slaTerms());
    }

    function test_WhenConstructed() public view {
        assertEq(address(leases.PAYMENTS()), address(payments));
        assertEq(address(leases.STAKING()), address(staking));
        assertEq(address(leases.REGISTRY()), address(registry));
        assertEq(leases.CLAIM_WINDOW(), CLAIM_WINDOW);
        assertEq(leases.EARLY_CLOSE_BPS(), EARLY_CLOSE_BPS);
    }

    function test_RevertWhen_AgentIsSetBySomebodyElse() public {
        address[2] memory callers = [stranger, keeper];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, 0, account, callers[i]));
            vm.prank(callers[i]);
            leases.setAgent(account, keeper, true);
        }
    }

    function test_WhenNoncesAreCancelledOneAfterTheOther_AllStaySo() public {
        vm.startPrank(provider.addr);
        leases.cancelNonces(0, 1 << 5);
        leases.cancelNonces(0, 1 << 6);
        assertTrue(leases.isNonceUsed(provider.addr, 5));
        assertTrue(leases.isNonceUsed(provider.addr, 6));
        assertFalse(leases.isNonceUsed(provider.addr, 7));
    }

    function test_WhenAgentIsSet() public {
        vm.expectEmit(address(leases));
        emit ILeases.AgentSet(account, keeper, true);
        vm.prank(payer);
        leases.setAgent(account, keeper, true);
        assertTrue(leases.isAgent(account, keeper));
        assertFalse(leases.isAgent(accountIdOf(payer, "other"), keeper));
        // An agent makes no agents.
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, 0, account, keeper));
        vm.prank(keeper);
        leases.setAgent(account, stranger, true);

        vm.expectEmit(address(leases));
        emit ILeases.AgentSet(account, keeper, false);
        vm.prank(payer);
        leases.setAgent(account, keeper, false);
        assertFalse(leases.isAgent(account, keeper));
    }

    function test_WhenNoncesAreCancelled_OnlyTheCallersOwn() public {
        vm.expectEmit(address(leases));
        emit ILeases.NoncesCancelled(stranger, 0, type(uint256).max);
        vm.prank(stranger);
        leases.cancelNonces(0, type(uint256).max);
        assertTrue(leases.isNonceUsed(stranger, 255));
        assertFalse(leases.isNonceUsed(stranger, 256));
        assertFalse(leases.isNonceUsed(provider.addr, 0));
        _pending();
    }

    function test_WhenViewed() public {
        LeaseId id = _active();
        skip(100);
        LeaseId[] memory ids = new LeaseId[](2);
        (ids[0], ids[1]) = (id, LeaseId.wrap(77));
        ILeases.LeaseView[] memory views = leases.leases(ids);
        assertEq(abi.encode(views[0].lease), abi.encode(leases.lease(id)));
        assertEq(views[0].account, account);
        assertEq(views[0].payer, payer);
        assertEq(views[0].provider, provider.addr);
        assertEq(views[0].rate, RATE);
        assertEq(views[0].lock, LOCK);
        assertEq(views[0].owed, 100 * RATE);
        assertEq(views[0].coverage, COVERAGE);
        assertEq(views[0].fundedUntil, payments.account(account).fundedUntil);
        assertEq(views[1].lease.state, ILeases.State.None);
        assertEq(views[1].provider, address(0));
    }

    function testFuzz_DigestIsEip712(ILeases.Quote memory quote) public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Roadstead Leases"),
                keccak256("1"),
                block.chainid,
                address(leases)
            )
        );
        bytes memory terms = abi.encode(
            quote.grace, quote.full, quote.response, quote.notice, quote.startWithin, quote.expiry
        );
        bytes32 hash = keccak256(
            bytes.concat(
                abi.encode(leases.QUOTE_TYPEHASH(), quote.provider, quote.account, quote.lease, quote.pod),
                abi.encode(quote.rate, quote.lock, quote.coverage),
                terms,
                abi.encode(quote.version, quote.nonce)
            )
        );
        assertEq(leases.digest(quote), keccak256(abi.encodePacked(hex"1901", domain, hash)));
    }

    function test_RevertWhen_OneOfSeveralReverts() public {
        LeaseId lease = _active();
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(leases.close, (lease, ILeases.CloseReason.PayerDone));
        calls[1] = abi.encodeCall(leases.setAgent, (accountIdOf(stranger, SALT), keeper, true));
        vm.expectRevert(
            abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, 0, accountIdOf(stranger, SALT), payer)
        );
        vm.prank(payer);
        leases.multicall(calls);
        assertEq(leases.lease(lease).state, ILeases.State.Active);
    }

    /// @dev One pod in exchange for another, with nothing between that could be seen or stopped.
    function test_WhenSeveralAtOnce() public {
        LeaseId old = _active();
        ILeases.Quote memory quote = _quote(1);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(leases.open, (quote, _sign(quote), account, 1));
        calls[1] = abi.encodeCall(leases.close, (old, ILeases.CloseReason.PayerMoved));
        vm.prank(payer);
        bytes[] memory answers = leases.multicall(calls);
        LeaseId opened = abi.decode(answers[0], (LeaseId));
        assertEq(leases.lease(opened).state, ILeases.State.Pending);
        assertEq(leases.lease(old).state, ILeases.State.Closed);
        assertTrue(leases.isSlotTaken(account, 1));
        assertFalse(leases.isSlotTaken(account, 0));
    }

    /// @dev A batch is its caller's: what it may not do alone it may not do among others.
    function test_RevertWhen_ABatchActsForSomebodyElse() public {
        LeaseId lease = _active();
        bytes[] memory calls = new bytes[](1);
        calls[0] = abi.encodeCall(leases.close, (lease, ILeases.CloseReason.PayerDone));
        vm.expectRevert(
            abi.encodeWithSelector(ILeases.Leases_NotPayer.selector, LeaseId.unwrap(lease), account, stranger)
        );
        vm.prank(stranger);
        leases.multicall(calls);
    }
}
