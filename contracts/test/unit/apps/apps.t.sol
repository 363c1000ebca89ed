// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Apps } from "../../../src/Apps.sol";
import { IApps } from "../../../src/interfaces/IApps.sol";
import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { IPayments } from "../../../src/interfaces/IPayments.sol";
import { AccountId, AppId, LeaseId, StreamId, accountIdOf, streamIdOf } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

// register
// ├── when the name is no DNS label, or somebody's who pays for it ─ reverts
// ├── when a field is out of its range, or the account is not the caller's ─ reverts
// ├── when new ─ has its name, and streams rent and fee
// └── when the holder of the name is dry for too long, or ended the rent ─ takes it over, and ends that rent
// setSpec, setLimits, setKeeper, retire
// ├── when the app is none, or not the caller's ─ reverts
// ├── when the keeper changes ─ moves the fee, and touches no lease
// └── when retired ─ ends the streams and frees the name, and touches no lease
// deploy, amend
// ├── when the caller neither keeps nor owns ─ reverts
// ├── when outside the limits: replica, rate, lock, pod ─ reverts
// ├── when the replica is taken ─ reverts
// └── else ─ opens or amends a lease in the replica's slot
// close
// ├── when the caller neither keeps nor owns, or the lease is not the app's ─ reverts
// └── else ─ closes it; the owner any of its account's
contract AppsTest is Base {
    uint128 private constant FEE = 50;
    bytes32 private constant NAME = keccak256("guestbook");

    function setUp() public override {
        super.setUp();
        _market();
        _letApps(payer, account);
    }

    function test_RevertWhen_RentIsZero() public {
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_Bad.selector, "rent"));
        new Apps(leases, payments, 0, NAME_GRACE, LOCK);
    }

    function test_WhenDeployedItself() public view {
        assertEq(address(apps.LEASES()), address(leases));
        assertEq(address(apps.PAYMENTS()), address(payments));
        assertEq(apps.RENT(), RENT);
        assertEq(apps.NAME_GRACE(), NAME_GRACE);
        assertEq(apps.STREAM_LOCK(), LOCK);
    }

    // register --------------------------------------------------------------------------------------------------------

    function test_RevertWhen_NoLabel() public {
        string[12] memory bad = ["", "-a", "a-", "-", "A", "a.b", "a_b", "a b", unicode"ä", "a/", "a:", "`{"];
        for (uint256 i = 0; i < bad.length; ++i) {
            _expectBadName(bad[i]);
        }
        _expectBadName(string(_letters(64)));
    }

    function test_WhenLabel() public {
        string[6] memory good = ["a", "0", "9z", "a-b", "xn--bcher-kva", string(_letters(63))];
        for (uint256 i = 0; i < good.length; ++i) {
            IApps.Registration memory r = _registration();
            r.name = good[i];
            assertTrue(apps.isFree(good[i]));
            AppId id = _register(r);
            assertFalse(apps.isFree(good[i]));
            assertEq(AppId.unwrap(apps.named(good[i])), AppId.unwrap(id));
        }
    }

    function test_RevertWhen_NameIsTaken() public {
        AppId id = _register();
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NameTaken.selector, "guestbook", id));
        _register();
    }

    function test_RevertWhen_FieldIsOutOfRange() public {
        IApps.Registration memory r = _registration();
        r.uri = string(new bytes(257));
        _expectBad("uri", r);
        r = _registration();
        r.keeper = address(0);
        _expectBad("keeper", r);
        r = _registration();
        r.limits.replicas = 0;
        _expectBad("replicas", r);
        r.limits.replicas = 2;
        r.slot = type(uint24).max - 1;
        _expectBad("replicas", r);
        r.slot -= 1;
        r.uri = string(new bytes(256));
        _register(r);
    }

    function test_RevertWhen_AccountIsAnothers() public {
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotOwner.selector, AppId.wrap(0), stranger));
        vm.prank(stranger);
        apps.register(_registration());
    }

    function test_WhenRegistered() public {
        AppId id = AppId.wrap(1);
        vm.expectEmit(address(apps));
        emit IApps.Registered(id, payer, keeper, _registration());
        _register();
        IApps.App memory a = apps.appOf(id);
        assertEq(
            abi.encode(a.owner, a.keeper, a.account, a.slot, a.streams, a.name, a.spec),
            abi.encode(payer, keeper, account, 10, 2, NAME, bytes32("spec"))
        );
        assertEq(abi.encode(a.limits), abi.encode(_registration().limits));
        _expectStream(a.rent, apps.NOBODY(), RENT);
        _expectStream(a.fee, keeper, FEE);
        assertEq(apps.count(), 1);
        skip(1 days);
        payments.collect(_only(streamIdOf(address(apps), a.fee)));
        assertEq(token.balanceOf(keeper), FEE * 1 days / SCALE);
    }

    function test_WhenRegisteredWithoutAFee() public {
        IApps.Registration memory r = _registration();
        r.fee = 0;
        AppId id = _register(r);
        assertEq(apps.appOf(id).fee, 0);
        assertEq(apps.appOf(id).streams, 1);
    }

    function test_RevertWhen_NameIsDryButNotForLong() public {
        AppId id = _register();
        _drain();
        _runDry(NAME_GRACE);
        _fundStranger();
        assertFalse(apps.isFree("guestbook"));
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NameTaken.selector, "guestbook", id));
        _takeOver();
    }

    function test_WhenNameIsDryForTooLong() public {
        AppId id = _register();
        uint96 rent = apps.appOf(id).rent;
        _drain();
        _runDry(NAME_GRACE + 1);
        _fundStranger();
        assertTrue(apps.isFree("guestbook"));
        vm.expectEmit(address(apps));
        emit IApps.NameLost(id, NAME);
        vm.expectEmit(address(payments));
        emit IPayments.StreamClosed(streamIdOf(address(apps), rent));
        AppId next = _takeOver();
        assertEq(AppId.unwrap(apps.named("guestbook")), AppId.unwrap(next));
        IApps.App memory a = apps.appOf(id);
        assertEq(abi.encode(a.owner, a.name, a.rent), abi.encode(payer, bytes32(0), uint96(0)));
        // The loser is an app all the same, and giving it up does not give up the name.
        vm.prank(payer);
        apps.retire(id);
        assertEq(AppId.unwrap(apps.named("guestbook")), AppId.unwrap(next));
    }

    function test_WhenDryHolderTopsUp_ItKeepsTheName() public {
        _register();
        _drain();
        _runDry(NAME_GRACE + 1);
        _fund(FUNDS);
        assertFalse(apps.isFree("guestbook"));
    }

    function test_WhenOwnerEndedTheRent() public {
        AppId id = _register();
        StreamId rent = streamIdOf(address(apps), apps.appOf(id).rent);
        vm.prank(payer);
        payments.closeStream(rent);
        assertTrue(apps.isFree("guestbook"));
        _fundStranger();
        assertEq(AppId.unwrap(_takeOver()), 2);
    }

    // Owner -----------------------------------------------------------------------------------------------------------

    function test_RevertWhen_NotOwner() public {
        AppId id = AppId.wrap(1);
        IApps.Limits memory limits = _registration().limits;
        bytes memory none = abi.encodeWithSelector(IApps.Apps_NoApp.selector, id);
        bytes memory other = abi.encodeWithSelector(IApps.Apps_NotOwner.selector, id, keeper);
        for (uint256 i = 0; i < 2; ++i) {
            vm.startPrank(keeper);
            vm.expectRevert(i == 0 ? none : other);
            apps.setSpec(id, 0, "");
            vm.expectRevert(i == 0 ? none : other);
            apps.setLimits(id, limits);
            vm.expectRevert(i == 0 ? none : other);
            apps.setKeeper(id, keeper, FEE);
            vm.expectRevert(i == 0 ? none : other);
            apps.retire(id);
            vm.stopPrank();
            if (i == 0) _register();
        }
    }

    function test_WhenSpecIsSet() public {
        AppId id = _register();
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_Bad.selector, "uri"));
        apps.setSpec(id, "next", string(new bytes(257)));
        vm.expectEmit(address(apps));
        emit IApps.SpecSet(id, "next", "https://next.example");
        apps.setSpec(id, "next", "https://next.example");
        assertEq(apps.appOf(id).spec, "next");
    }

    function test_WhenLimitsAreSet() public {
        AppId id = _register();
        IApps.Limits memory limits = IApps.Limits(9, 8, 7, "pods");
        vm.startPrank(payer);
        vm.expectEmit(address(apps));
        emit IApps.LimitsSet(id, limits);
        apps.setLimits(id, limits);
        assertEq(abi.encode(apps.appOf(id).limits), abi.encode(limits));
        limits.replicas = 0;
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_Bad.selector, "replicas"));
        apps.setLimits(id, limits);
    }

    function test_WhenKeeperIsSet_LeasesRunOn() public {
        AppId id = _register();
        LeaseId lease = _deployed(id, 0);
        uint96 former = apps.appOf(id).fee;
        skip(1 days);
        vm.expectEmit(address(apps));
        emit IApps.KeeperSet(id, stranger, 2 * FEE);
        vm.prank(payer);
        apps.setKeeper(id, stranger, 2 * FEE);
        assertEq(leases.lease(lease).state, ILeases.State.Pending);
        assertEq(payments.stream(streamIdOf(address(apps), former)).state, IPayments.StreamState.Closed);
        assertEq(payments.stream(streamIdOf(address(apps), former)).owed, FEE * 1 days, "as agreed");
        _expectStream(apps.appOf(id).fee, stranger, 2 * FEE);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotKeeper.selector, id, keeper));
        vm.prank(keeper);
        apps.close(id, lease, ILeases.CloseReason.PayerMoved);
        vm.prank(stranger);
        apps.close(id, lease, ILeases.CloseReason.PayerMoved);
    }

    function test_WhenKeeperIsSetToOneForNothing() public {
        AppId id = _register();
        vm.prank(payer);
        apps.setKeeper(id, stranger, 0);
        assertEq(apps.appOf(id).fee, 0);
        vm.startPrank(payer);
        apps.setKeeper(id, keeper, FEE);
        _expectStream(apps.appOf(id).fee, keeper, FEE);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_Bad.selector, "keeper"));
        apps.setKeeper(id, address(0), 0);
    }

    /// @dev An owner whose account is dry can still take a keeper off.
    function test_WhenDry_KeeperCanBeTakenOff() public {
        AppId id = _register();
        _drain();
        _runDry(1 days);
        vm.prank(payer);
        apps.setKeeper(id, stranger, 0);
        assertEq(apps.appOf(id).keeper, stranger);
    }

    function test_WhenOwnerEndedTheFee_KeeperCanBeSet() public {
        AppId id = _register();
        vm.startPrank(payer);
        payments.closeStream(streamIdOf(address(apps), apps.appOf(id).fee));
        apps.setKeeper(id, stranger, FEE);
        _expectStream(apps.appOf(id).fee, stranger, FEE);
    }

    function test_WhenRetired() public {
        AppId id = _register();
        LeaseId lease = _deployed(id, 0);
        IApps.App memory a = apps.appOf(id);
        vm.expectEmit(address(apps));
        emit IApps.Retired(id);
        vm.prank(payer);
        apps.retire(id);
        assertTrue(apps.isFree("guestbook"));
        assertEq(apps.appOf(id).owner, address(0));
        assertEq(payments.stream(streamIdOf(address(apps), a.rent)).state, IPayments.StreamState.Closed);
        assertEq(payments.stream(streamIdOf(address(apps), a.fee)).state, IPayments.StreamState.Closed);
        assertEq(leases.lease(lease).state, ILeases.State.Pending);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NoApp.selector, id));
        vm.prank(keeper);
        apps.close(id, lease, ILeases.CloseReason.PayerDone);
    }

    // Keeper ----------------------------------------------------------------------------------------------------------

    function test_RevertWhen_NotKeeper() public {
        AppId id = _register();
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotKeeper.selector, id, stranger));
        apps.deploy(id, 0, quote, signature, new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotKeeper.selector, id, stranger));
        apps.amend(id, LeaseId.wrap(1), quote, signature, new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NoApp.selector, AppId.wrap(9)));
        apps.deploy(AppId.wrap(9), 0, quote, signature, new bytes32[](0));
    }

    function test_RevertWhen_OutsideTheLimits() public {
        AppId id = _register();
        ILeases.Quote memory quote = _quote(1);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_TooMany.selector, id, 2, 2));
        _deploy(id, 2, quote);
        quote.rate = RATE + 1;
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_TooDear.selector, id, RATE + 1, RATE));
        _deploy(id, 0, quote);
        quote = _quote(1);
        quote.lock = LOCK + 1;
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_LockTooLong.selector, id, LOCK + 1, LOCK));
        _deploy(id, 0, quote);
        quote = _quote(1);
        quote.pod = "another";
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_PodNotAllowed.selector, id, bytes32("another")));
        _deploy(id, 0, quote);
    }

    function test_WhenSeveralPodsAreAllowed() public {
        IApps.Registration memory r = _registration();
        (bytes32 a, bytes32 b) = POD < bytes32("other") ? (POD, bytes32("other")) : (bytes32("other"), POD);
        r.limits.pods = keccak256(abi.encode(a, b));
        AppId id = _register(r);
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = "other";
        vm.startPrank(keeper);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_PodNotAllowed.selector, id, POD));
        apps.deploy(id, 0, quote, signature, new bytes32[](0));
        apps.deploy(id, 0, quote, signature, proof);
    }

    function test_WhenDeployed() public {
        AppId id = _register();
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        vm.expectEmit(address(apps));
        emit IApps.Deployed(id, 1, LeaseId.wrap(1), keeper);
        vm.prank(keeper);
        apps.deploy(id, 1, quote, signature, new bytes32[](0));
        assertTrue(leases.isSlotTaken(account, 11));
    }

    function test_WhenOwnerDeploys() public {
        AppId id = _register();
        ILeases.Quote memory quote = _quote(1);
        bytes memory signature = _sign(quote);
        vm.prank(payer);
        apps.deploy(id, 0, quote, signature, new bytes32[](0));
        assertTrue(leases.isSlotTaken(account, 10));
    }

    /// @dev The second of two keepers that act at once loses a transaction and nothing else.
    function test_RevertWhen_ReplicaIsTaken() public {
        AppId id = _register();
        _deployed(id, 0);
        ILeases.Quote memory quote = _quote(2);
        vm.expectRevert(abi.encodeWithSelector(ILeases.Leases_SlotTaken.selector, account, 10));
        _deploy(id, 0, quote);
    }

    function test_WhenAmended() public {
        AppId id = _register();
        LeaseId lease = _deployed(id, 0);
        ILeases.Quote memory quote = _quote(2);
        (quote.lease, quote.rate) = (lease, RATE - 5);
        bytes memory signature = _sign(quote);
        vm.prank(keeper);
        apps.amend(id, lease, quote, signature, new bytes32[](0));
        assertEq(payments.stream(_streamOf(lease)).rate, RATE - 5);
        quote.rate = RATE + 1;
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_TooDear.selector, id, RATE + 1, RATE));
        vm.prank(keeper);
        apps.amend(id, lease, quote, signature, new bytes32[](0));
    }

    function test_RevertWhen_LeaseIsNotOfTheApp() public {
        AppId id = _register();
        for (uint32 slot = 9; slot < 13; slot += 3) {
            LeaseId lease = _open(_quote(slot), slot);
            ILeases.Quote memory quote = _quote(99);
            quote.lease = lease;
            bytes memory signature = _sign(quote);
            vm.startPrank(keeper);
            vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotOfApp.selector, id, lease));
            apps.close(id, lease, ILeases.CloseReason.PayerDone);
            vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotOfApp.selector, id, lease));
            apps.amend(id, lease, quote, signature, new bytes32[](0));
            vm.stopPrank();
            vm.prank(payer);
            apps.close(id, lease, ILeases.CloseReason.PayerDone);
        }
    }

    function test_RevertWhen_LeaseIsOfAnotherAccount() public {
        AppId id = _register();
        _fundStranger();
        ILeases.Quote memory quote = _quote(3);
        AccountId other = accountIdOf(stranger, SALT);
        quote.account = other;
        bytes memory signature = _sign(quote);
        vm.prank(stranger);
        LeaseId lease = leases.open(quote, signature, other, 10);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotOfApp.selector, id, lease));
        vm.prank(keeper);
        apps.close(id, lease, ILeases.CloseReason.PayerDone);
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_NotOfApp.selector, id, lease));
        vm.prank(payer);
        apps.close(id, lease, ILeases.CloseReason.PayerDone);
    }

    function test_WhenClosed() public {
        AppId id = _register();
        LeaseId lease = _deployed(id, 0);
        vm.prank(keeper);
        apps.close(id, lease, ILeases.CloseReason.PayerMoved);
        assertEq(uint8(leases.lease(lease).reason), uint8(ILeases.CloseReason.PayerMoved));
        assertFalse(leases.isSlotTaken(account, 10));
    }

    function test_WhenSeveralAtOnce() public {
        AppId id = _register();
        LeaseId lease = _deployed(id, 0);
        ILeases.Quote memory quote = _quote(2);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(apps.deploy, (id, 1, quote, _sign(quote), new bytes32[](0)));
        calls[1] = abi.encodeCall(apps.close, (id, lease, ILeases.CloseReason.PayerMoved));
        vm.prank(keeper);
        apps.multicall(calls);
        assertTrue(leases.isSlotTaken(account, 11));
        assertFalse(leases.isSlotTaken(account, 10));
    }

    /// @dev Whatever a keeper that means harm does, it takes nothing but its fee, and what it can waste is the limits'.
    function testFuzz_ARogueKeeperWastesNoMoreThanTheLimits(uint128[4] memory rates, uint32 secs) public {
        AppId id = _register();
        for (uint16 i = 0; i < rates.length; ++i) {
            ILeases.Quote memory quote = _quote(i);
            quote.rate = uint128(bound(rates[i], 0, 2 * RATE));
            bytes memory signature = _sign(quote);
            bool taken = leases.isSlotTaken(account, 10 + i % 3);
            vm.prank(keeper);
            (bool ok,) = address(apps)
                .call(abi.encodeCall(apps.deploy, (id, i % 3, quote, signature, new bytes32[](0))));
            assertEq(ok, i % 3 < 2 && !taken && quote.rate <= RATE);
            if (!ok) continue;
            LeaseId lease = LeaseId.wrap(leases.count());
            vm.prank(provider.addr);
            leases.activate(lease);
        }
        IPayments.AccountView memory a = payments.account(account);
        assertLe(a.rate, 2 * RATE + FEE + RENT);
        skip(bound(secs, 0, 30 days));
        vm.startPrank(keeper);
        (bool took,) = address(payments).call(abi.encodeCall(payments.withdraw, (account, keeper, 1)));
        assertFalse(took);
        (took,) = address(payments).call(abi.encodeCall(payments.pay, (account, keeper, 1)));
        assertFalse(took);
        (took,) =
            address(payments).call(abi.encodeCall(payments.openStream, (account, 1, keeper, 1, 0, true)));
        assertFalse(took);
    }

    function _registration() private view returns (IApps.Registration memory) {
        return IApps.Registration({
            account: account,
            slot: 10,
            name: "guestbook",
            spec: "spec",
            uri: "https://publisher.example/app.yaml",
            keeper: keeper,
            fee: FEE,
            limits: IApps.Limits(2, LOCK, RATE, POD)
        });
    }

    function _register() private returns (AppId) {
        return _register(_registration());
    }

    function _register(IApps.Registration memory r) private returns (AppId) {
        vm.prank(payer);
        return apps.register(r);
    }

    function _letApps(address owner, AccountId id) private {
        vm.startPrank(owner);
        payments.approve(id, address(apps), type(uint128).max, 0, LOCK, type(uint40).max);
        leases.setAgent(id, address(apps), true);
        vm.stopPrank();
    }

    function _fundStranger() private {
        token.mint(address(this), FUNDS);
        token.approve(address(payments), FUNDS);
        AccountId id = payments.deposit(stranger, SALT, FUNDS);
        _letApps(stranger, id);
        vm.prank(stranger);
        payments.approve(id, address(leases), type(uint128).max, 0, LOCK, type(uint40).max);
    }

    /// @dev Leaves the account so little that it runs dry in days.
    function _drain() private {
        IPayments.AccountView memory a = payments.account(account);
        vm.prank(payer);
        payments.withdraw(account, payer, (a.free - a.lockup) / SCALE);
    }

    function _takeOver() private returns (AppId) {
        IApps.Registration memory r = _registration();
        r.account = accountIdOf(stranger, SALT);
        vm.prank(stranger);
        return apps.register(r);
    }

    function _deploy(AppId id, uint16 replica, ILeases.Quote memory quote) private {
        bytes memory signature = hex"";
        // Signing is a call of its own, which must not be the one that is expected to revert.
        signature = _signature(quote);
        vm.prank(keeper);
        apps.deploy(id, replica, quote, signature, new bytes32[](0));
    }

    /// @dev The EIP-712 digest by hand, so that no call is made.
    function _signature(ILeases.Quote memory quote) private view returns (bytes memory) {
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
        bytes32 typehash = keccak256(
            "Quote(address provider,bytes32 account,uint64 lease,bytes32 pod,uint128 rate,uint32 lock,uint128 coverage,uint24 grace,uint24 full,uint24 response,uint24 notice,uint24 startWithin,uint40 expiry,uint64 version,uint256 nonce)"
        );
        bytes32 hash = keccak256(abi.encode(typehash, quote));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(provider.key, keccak256(abi.encodePacked(hex"1901", domain, hash)));
        return abi.encodePacked(r, s, v);
    }

    function _deployed(AppId id, uint16 replica) private returns (LeaseId) {
        _deploy(id, replica, _quote(uint256(replica) + 100));
        return LeaseId.wrap(leases.count());
    }

    function _expectStream(uint96 ref, address to, uint128 rate) private view {
        IPayments.StreamView memory s = payments.stream(streamIdOf(address(apps), ref));
        assertEq(
            abi.encode(s.account, s.payee, s.rate, s.lock, s.state),
            abi.encode(account, to, rate, LOCK, IPayments.StreamState.Running)
        );
    }

    function _expectBadName(string memory name) private {
        IApps.Registration memory r = _registration();
        r.name = name;
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_BadName.selector, name));
        _register(r);
    }

    function _expectBad(string memory field, IApps.Registration memory r) private {
        vm.expectRevert(abi.encodeWithSelector(IApps.Apps_Bad.selector, field));
        _register(r);
    }

    function _letters(uint256 count) private pure returns (bytes memory letters) {
        letters = new bytes(count);
        for (uint256 i = 0; i < count; ++i) {
            letters[i] = "a";
        }
    }
}
