// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Apps } from "../../src/Apps.sol";
import { Auction } from "../../src/Auction.sol";
import { Leases } from "../../src/Leases.sol";
import { Payments } from "../../src/Payments.sol";
import { Registry } from "../../src/Registry.sol";
import { Sla } from "../../src/Sla.sol";
import { Staking } from "../../src/Staking.sol";
import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { AccountId, StreamId, accountIdOf, operatorOf } from "../../src/types/Ids.sol";
import { Base } from "../Base.t.sol";
import { HostileToken } from "../tokens/HostileToken.sol";
import { TestToken } from "../tokens/TestToken.sol";
import { Model } from "./Model.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { Vm } from "forge-std/Vm.sol";

/// @title World
/// @notice The contracts, the people, the time, and what is known of them from outside. Whatever a handler does, it does
/// in an `act`: that feeds the model with the events and holds the handler to how many there have to be.
abstract contract World is Base {
    /// @dev What runs an account dry within days, and what lasts for years.
    uint256 internal constant MAX_RATE = 1e13;

    Model public model;
    HostileToken public bad;
    /// @notice How often each handler came to do something.
    mapping(string name => uint256) public done;
    uint256 public doneInAll;
    /// @notice What each stream may have accrued: its rate, times the seconds that passed while it ran and its account
    /// could pay, measured from outside whenever time passes.
    mapping(StreamId => uint256) public ceiling;
    /// @notice Withdrawals and payments that left less than the lockup.
    uint256 public brokenLockups;
    /// @notice Acts that did not emit as many events as they have to.
    uint256 public wrongEvents;
    /// @notice What was given to Payments and to Staking without a call.
    uint256 public strayPayments;
    uint256 public strayStaking;

    /// @notice Calls of handlers, and what of the coverage was taken by each way.
    uint256 public acts;

    address[2] internal _payers = [makeAddr("anna"), makeAddr("ben")];
    address[4] internal _operators = [makeAddr("keeper one"), makeAddr("keeper two"), address(0), address(0)];
    /// @dev Nine have a seat when it begins, two wait for one.
    Account[11] internal _watchers;
    address[3] internal _payees = [makeAddr("cleo"), makeAddr("dora"), makeAddr("emil")];
    Account[2] internal _providers;
    address internal _locker = makeAddr("locker");
    AccountId[] internal _ids;
    uint96 internal _refs;
    uint256 internal _nonces;
    uint256 private _expected;
    bool private _refusal;

    /// @dev `count` events of ours is what the act has to emit.
    modifier act(string memory name) {
        // Between two acts some time passes, which is what everything here is about.
        _pass(uint256(keccak256(abi.encode(++acts))) % 2 hours);
        (_expected, _refusal) = (0, false);
        vm.recordLogs();
        _;
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 count = _refusal ? 0 : model.fold(logs, block.timestamp);
        // What a token that calls back brought about is no part of the act.
        bool reentered = _trick() == HostileToken.Trick.Reenters && bad.reentered();
        if (count != _expected && !reentered) ++wrongEvents;
        if (_expected != 0) {
            ++done[name];
            ++doneInAll;
        }
    }

    constructor(bool hostile) {
        vm.warp(1_800_000_000);
        bad = new HostileToken();
        token = hostile ? TestToken(address(bad)) : new TestToken();
        _deploy(IERC20(address(token)));
        model = new Model(
            [address(payments), address(staking), address(registry), address(leases)],
            address(sla),
            address(auction),
            address(apps),
            Model.Fixed(_slaTerms().challengeBond, _auctionTerms().deposit, _auctionTerms().maxExtension)
        );
        (_operators[2], _operators[3]) = (address(leases), address(apps));
        (_providers[0], _providers[1]) = (makeAccount("harbour"), makeAccount("lagoon"));
        vm.recordLogs();
        token.mint(address(this), type(uint128).max);
        token.approve(address(payments), type(uint256).max);
        token.approve(address(staking), type(uint256).max);
        for (uint256 i = 0; i < _payers.length; ++i) {
            for (uint256 salt = 0; salt < 2; ++salt) {
                AccountId id = payments.deposit(_payers[i], bytes32(salt), 20e6);
                _ids.push(id);
                vm.startPrank(_payers[i]);
                payments.approve(
                    id, address(leases), type(uint128).max, 0, type(uint32).max, type(uint40).max
                );
                payments.approve(id, address(apps), type(uint128).max, 0, LOCK, type(uint40).max);
                leases.setAgent(id, address(auction), true);
                leases.setAgent(id, address(apps), true);
                vm.stopPrank();
            }
            token.transfer(_payers[i], 1_000e6);
            vm.startPrank(_payers[i]);
            token.approve(address(sla), type(uint256).max);
            token.approve(address(auction), type(uint256).max);
            vm.stopPrank();
        }
        for (uint256 i = 0; i < _providers.length; ++i) {
            staking.bond(_providers[i].addr, 1_000e6);
            vm.startPrank(_providers[i].addr);
            staking.setLocker(address(leases), true);
            staking.setLocker(_locker, true);
            staking.setLocker(address(auction), true);
            leases.setIssuer(address(auction), true);
            registry.list(_listing());
            vm.stopPrank();
        }
        for (uint256 i = 0; i < _watchers.length; ++i) {
            _watchers[i] = makeAccount(string.concat("watcher ", vm.toString(i)));
            staking.bond(_watchers[i].addr, 1_000e6);
            vm.startPrank(_watchers[i].addr);
            staking.setLocker(address(sla), true);
            if (i < 9) sla.join();
            vm.stopPrank();
        }
        model.fold(vm.getRecordedLogs(), block.timestamp);
    }

    function setUp() public override { }

    /// @notice Time goes on for everybody.
    function pass(uint32 secs) external {
        _pass(bound(secs, 0, 1 days));
    }

    /// @notice Time goes on to about when an account runs dry, or an hour past it.
    function passUntilDry(uint256 which, uint16 past) external {
        uint256 end = payments.account(_id(which)).fundedUntil;
        if (end > block.timestamp + 60 days) return;
        end += bound(past, 0, 1 hours);
        if (end > block.timestamp) _pass(end - block.timestamp);
    }

    function _pass(uint256 secs) internal {
        uint256[4] memory funded;
        for (uint256 i = 0; i < _ids.length; ++i) {
            uint256 end = payments.account(_ids[i]).fundedUntil;
            funded[i] = end > block.timestamp ? end - block.timestamp : 0;
        }
        StreamId[] memory running = model.running();
        for (uint256 i = 0; i < running.length; ++i) {
            Model.Stream memory s = model.streamOf(running[i]);
            uint256 most = funded[_indexOf(s.account)];
            ceiling[running[i]] += s.rate * (secs < most ? secs : most);
        }
        ++done["pass"];
        skip(secs);
    }

    function _indexOf(AccountId id) private view returns (uint256 i) {
        while (!(_ids[i] == id)) ++i;
    }

    /// @notice What witnesses may still fetch.
    function unfetched() external view returns (uint256) {
        return model.unfetched();
    }

    /// @notice What is beside the four.
    function others() external view returns (Sla, Auction, Apps) {
        return (sla, auction, apps);
    }

    /// @notice What all this is about.
    function contracts() external view returns (IERC20, Payments, Staking, Registry, Leases) {
        return (IERC20(address(token)), payments, staking, registry, leases);
    }

    function accountIds() external view returns (AccountId[] memory) {
        return _ids;
    }

    function watchers() external view returns (Account[11] memory) {
        return _watchers;
    }

    function operators() external view returns (address[4] memory) {
        return _operators;
    }

    function providers() external view returns (Account[2] memory) {
        return _providers;
    }

    /// @notice Everybody who can have something to claim.
    function people() public view returns (address[] memory all) {
        all = new address[](20);
        for (uint256 i = 0; i < 3; ++i) {
            all[i] = _payees[i];
        }
        for (uint256 i = 0; i < 2; ++i) {
            (all[3 + i], all[5 + i]) = (_payers[i], _providers[i].addr);
        }
        for (uint256 i = 0; i < 11; ++i) {
            all[7 + i] = _watchers[i].addr;
        }
        (all[18], all[19]) = (stranger, sla.NOBODY());
    }

    function locker() external view returns (address) {
        return _locker;
    }

    function agent() external view returns (address) {
        return keeper;
    }

    /// @notice The highest nonce that any quote had.
    function lastNonce() external view returns (uint256) {
        return _nonces;
    }

    /// @dev Says how many events the act has to emit.
    function _expectEvents(uint256 count) internal {
        _expected = count;
    }

    /// @dev Says that what the act calls has to revert. What it logged until then is recorded all the same.
    function _expectRefusal() internal {
        _refusal = true;
    }

    /// @dev Calls as `caller`, which may be refused; `count` events of ours if it is not.
    function _tries(address caller, address target, bytes memory call, uint256 count)
        internal
        returns (bool ok)
    {
        vm.prank(caller);
        (ok,) = target.call(call);
        if (ok) _expectEvents(count);
        else _expectRefusal();
    }

    /// @dev The next call has to revert.
    function _refuses() internal {
        _expectRefusal();
        vm.expectRevert();
    }

    function _id(uint256 which) internal view returns (AccountId) {
        return _ids[which % _ids.length];
    }

    /// @dev An account that is dry, if there is one.
    function _dryId(uint256 which) internal view returns (AccountId) {
        for (uint256 i = 0; i < _ids.length; ++i) {
            AccountId id = _ids[addmod(which, i, _ids.length)];
            if (_isDry(payments.account(id))) return id;
        }
        return _id(which);
    }

    /// @dev A stream that is `state`; false if there is none. Of Leases' own only if `foreign`.
    function _pickStream(uint256 which, IPayments.StreamState state, bool foreign)
        internal
        view
        returns (StreamId id, bool found)
    {
        uint256 count = model.streamCount();
        // Half of the time, of an account that is dry if there is one: that is when it matters most.
        AccountId dry = _dryId(which);
        // So many that a run stays short.
        for (uint256 i = 0; i < 2 * count && i < 40; ++i) {
            id = model.streamIds(addmod(which, i, count));
            IPayments.StreamView memory s = payments.stream(id);
            if (s.state != state) continue;
            if (which % 2 == 0 && i < count && !(s.account == dry)) continue;
            if (!foreign && operatorOf(id) == address(leases)) continue;
            return (id, true);
        }
    }

    function _isDry(IPayments.AccountView memory a) internal view returns (bool) {
        return a.fundedUntil < block.timestamp;
    }

    /// @dev A rate of any magnitude up to `most`: beside a fast stream, a slow one.
    function _rate(uint128 seed, uint256 most) internal pure returns (uint128) {
        return uint128(bound(seed, 0, most) >> (seed % 4) * 10);
    }

    /// @dev Whether the account can carry `more` units of lockup.
    function _carries(IPayments.AccountView memory a, uint256 more) internal view returns (bool) {
        return !_isDry(a) && a.free >= a.lockup + more;
    }

    /// @dev Whether the token refuses to come in as it is told.
    function _inFails() internal view returns (bool) {
        HostileToken.Trick trick = _trick();
        return trick == HostileToken.Trick.TakesFee || trick == HostileToken.Trick.ReturnsFalse;
    }

    /// @dev Whether the token refuses to go out to `to`.
    function _outFails(address to) internal view returns (bool) {
        HostileToken.Trick trick = _trick();
        return trick == HostileToken.Trick.ReturnsFalse
            || (trick == HostileToken.Trick.Blocks && bad.blocked() == to);
    }

    function _trick() internal view returns (HostileToken.Trick) {
        return address(token) == address(bad) ? bad.trick() : HostileToken.Trick.None;
    }

    function _isOpen(ILeases.State state) internal pure returns (bool) {
        return state == ILeases.State.Pending || state == ILeases.State.Active;
    }

    function _saltOf(AccountId id) internal view returns (bytes32 salt) {
        return accountIdOf(_ownerOf(id), salt) == id ? salt : bytes32(uint256(1));
    }

    function _ownerOf(AccountId id) internal view returns (address) {
        return payments.ownerOf(id);
    }
}
