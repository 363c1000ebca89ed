// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Apps } from "../src/Apps.sol";
import { Auction } from "../src/Auction.sol";
import { Leases } from "../src/Leases.sol";
import { Payments } from "../src/Payments.sol";
import { Registry } from "../src/Registry.sol";
import { Sla } from "../src/Sla.sol";
import { Staking } from "../src/Staking.sol";
import { IAuction } from "../src/interfaces/IAuction.sol";
import { ILeases } from "../src/interfaces/ILeases.sol";
import { IPayments } from "../src/interfaces/IPayments.sol";
import { IRegistry } from "../src/interfaces/IRegistry.sol";
import { ISla } from "../src/interfaces/ISla.sol";
import { IStaking } from "../src/interfaces/IStaking.sol";
import { AccountId, LeaseId, StreamId, accountIdOf, streamIdOf } from "../src/types/Ids.sol";
import { TestToken } from "./tokens/TestToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { Test } from "forge-std/Test.sol";

/// @notice The four contracts over a test token, the people who use them, and the shortest way to each state.
abstract contract Base is Test {
    uint256 internal constant SCALE = 1e9;
    bytes32 internal constant SALT = "guestbook";
    bytes32 internal constant POD = keccak256("a pod");
    /// @dev About 0.01 dollars an hour, and no round number of base units a second.
    uint128 internal constant RATE = 2_777_777_777;
    uint32 internal constant LOCK = 1 hours;
    uint128 internal constant LOCKUP = RATE * LOCK;
    uint256 internal constant FUNDS = 100e6;
    uint256 internal constant BOND = 500e6;
    uint128 internal constant COVERAGE = 20e6;
    uint40 internal constant UNBOND_DELAY = 7 days;
    uint40 internal constant TTL = 10 minutes;
    uint40 internal constant CLAIM_WINDOW = 3 days;
    uint256 internal constant EARLY_CLOSE_BPS = 2_000;
    uint128 internal constant RENT = 1_000;
    uint40 internal constant NAME_GRACE = 30 days;

    TestToken internal token;
    Payments internal payments;
    Staking internal staking;
    Registry internal registry;
    Leases internal leases;
    Sla internal sla;
    Auction internal auction;
    Apps internal apps;

    address internal payer = makeAddr("payer");
    address internal payee = makeAddr("payee");
    address internal keeper = makeAddr("keeper");
    address internal stranger = makeAddr("stranger");
    Account internal provider = makeAccount("provider");
    AccountId internal account = accountIdOf(payer, SALT);

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        token = new TestToken();
        _deploy(IERC20(address(token)));
    }

    function _deploy(IERC20 money) internal {
        payments = new Payments(money);
        staking = new Staking(money, UNBOND_DELAY);
        registry = new Registry(TTL);
        leases = new Leases(payments, staking, registry, CLAIM_WINDOW, EARLY_CLOSE_BPS, _slaTerms());
        sla = leases.SLA();
        auction = new Auction(leases, staking, registry, _auctionTerms());
        apps = new Apps(leases, payments, RENT, NAME_GRACE, LOCK);
    }

    function _slaTerms() internal pure returns (ISla.Terms memory) {
        return ISla.Terms({
            challengeBond: 1e6,
            challengePause: 1 hours,
            watcherBond: 100e6,
            epoch: 1 hours,
            mergeGap: 5 minutes,
            rewardBps: 500
        });
    }

    function _auctionTerms() internal pure returns (IAuction.Terms memory) {
        return IAuction.Terms({
            deposit: 1e6,
            stepBps: 100,
            extension: 60,
            maxExtension: 1 hours,
            awardGrace: 1 hours,
            noShowBps: 1_000
        });
    }

    // Payments ------------------------------------------------------------------------------------------------------

    /// @dev Puts `amount` into the payer's account, out of nothing.
    function _fund(uint256 amount) internal {
        token.mint(address(this), amount);
        token.approve(address(payments), amount);
        payments.deposit(payer, SALT, amount);
    }

    /// @dev A stream of the payer's own to the payee.
    function _stream(uint96 ref, bool start) internal returns (StreamId) {
        return _stream(ref, RATE, LOCK, start);
    }

    function _stream(uint96 ref, uint128 rate, uint32 lock, bool start) internal returns (StreamId) {
        vm.prank(payer);
        return payments.openStream(account, ref, payee, rate, lock, start);
    }

    /// @dev The stream that the payer opened under `ref`.
    function _idOf(uint96 ref) internal view returns (StreamId) {
        return streamIdOf(payer, ref);
    }

    function _approve(address operator, uint128 rateLimit, uint128 payLimit, uint32 maxLock) internal {
        vm.prank(payer);
        payments.approve(account, operator, rateLimit, payLimit, maxLock, type(uint40).max);
    }

    function _only(StreamId id) internal pure returns (StreamId[] memory ids) {
        ids = new StreamId[](1);
        ids[0] = id;
    }

    /// @dev Lets time go on until `gap` seconds after the account ran dry.
    function _runDry(uint256 gap) internal {
        vm.warp(payments.account(account).fundedUntil + gap);
    }

    // Staking -------------------------------------------------------------------------------------------------------

    function _bond(address bonder, uint256 amount) internal {
        token.mint(address(this), amount);
        token.approve(address(staking), amount);
        staking.bond(bonder, amount);
    }

    function _allow(address bonder, address locker) internal {
        vm.prank(bonder);
        staking.setLocker(locker, true);
    }

    // Leases --------------------------------------------------------------------------------------------------------

    /// @dev A listed and bonded provider, and a funded account that lets Leases act for it.
    function _market() internal {
        _bond(provider.addr, BOND);
        _allow(provider.addr, address(leases));
        vm.prank(provider.addr);
        registry.list(_listing());
        _fund(FUNDS);
        _approve(address(leases), type(uint128).max, 0, type(uint32).max);
    }

    function _listing() internal pure returns (IRegistry.Listing memory) {
        return IRegistry.Listing({
            endpoint: "https://provider.example:7070",
            region: "eu-de-fsn",
            prices: IRegistry.Prices({ cpu: 1_000, memoryMiB: 200, storageMiB: 3 }),
            tlsKey: keccak256("tls"),
            sealKey: keccak256("seal"),
            measurement: 0
        });
    }

    /// @dev A quote of the provider's for a new lease of the payer's account, not signed yet.
    function _quote(uint256 nonce) internal view returns (ILeases.Quote memory) {
        return ILeases.Quote({
            provider: provider.addr,
            account: account,
            lease: LeaseId.wrap(0),
            pod: POD,
            rate: RATE,
            lock: LOCK,
            coverage: COVERAGE,
            grace: 1 minutes,
            full: 1 hours,
            response: 5 minutes,
            notice: 1 days,
            startWithin: 2 minutes,
            expiry: uint40(block.timestamp + 1 minutes),
            version: registry.versionOf(provider.addr),
            nonce: nonce
        });
    }

    function _sign(ILeases.Quote memory quote) internal view returns (bytes memory) {
        return _sign(quote, provider.key);
    }

    function _sign(ILeases.Quote memory quote, uint256 key) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, leases.digest(quote));
        return abi.encodePacked(r, s, v);
    }

    function _open(ILeases.Quote memory quote, uint32 slot) internal returns (LeaseId) {
        bytes memory signature = _sign(quote);
        vm.prank(payer);
        return leases.open(quote, signature, account, slot);
    }

    /// @dev A lease in slot 0 that waits for its provider.
    function _pending() internal returns (LeaseId) {
        return _open(_quote(0), 0);
    }

    /// @dev A lease in slot 0 that runs.
    function _active() internal returns (LeaseId id) {
        id = _pending();
        vm.prank(provider.addr);
        leases.activate(id);
    }

    function _streamOf(LeaseId id) internal view returns (StreamId) {
        return streamIdOf(address(leases), LeaseId.unwrap(id));
    }

    function _lockOf(LeaseId id) internal view returns (IStaking.Lock memory) {
        return staking.lockOf(provider.addr, address(leases), LeaseId.unwrap(id));
    }

    // Assertions for what has no assertEq of its own ------------------------------------------------------------------

    function assertEq(StreamId a, StreamId b) internal pure {
        assertEq(StreamId.unwrap(a), StreamId.unwrap(b), "stream");
    }

    function assertEq(LeaseId a, LeaseId b) internal pure {
        assertEq(LeaseId.unwrap(a), LeaseId.unwrap(b), "lease");
    }

    function assertEq(AccountId a, AccountId b) internal pure {
        assertEq(AccountId.unwrap(a), AccountId.unwrap(b), "account");
    }

    function assertEq(IPayments.StreamState a, IPayments.StreamState b) internal pure {
        assertEq(uint8(a), uint8(b), "stream state");
    }

    function assertEq(ILeases.State a, ILeases.State b) internal pure {
        assertEq(uint8(a), uint8(b), "lease state");
    }
}
