// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { ILeases } from "../../../src/interfaces/ILeases.sol";
import { ISla } from "../../../src/interfaces/ISla.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Base } from "../../Base.t.sol";

/// @notice A lease that runs, nine watchers, and the shortest way to a committee's signatures.
abstract contract Watchers is Base {
    uint256 internal constant WATCHERS = 9;
    uint40 internal constant EPOCH = 1 hours;
    uint128 internal constant WATCHER_BOND = 100e6;
    uint128 internal constant CHALLENGE_BOND = 1e6;

    mapping(address => uint256) internal _keyOf;
    Account[] internal _watchers;
    LeaseId internal _lease;

    function setUp() public virtual override {
        super.setUp();
        // An epoch begins.
        vm.warp(block.timestamp / EPOCH * EPOCH);
        _market();
        for (uint256 i = 0; i < WATCHERS; ++i) {
            _watchers.push(_enlist(string.concat("watcher ", vm.toString(i))));
            vm.prank(_watchers[i].addr);
            sla.join();
        }
        _lease = _active();
        _next();
    }

    /// @dev A watcher with a bond, not yet seated.
    function _enlist(string memory name) internal returns (Account memory w) {
        w = makeAccount(name);
        _keyOf[w.addr] = w.key;
        _bond(w.addr, 2 * WATCHER_BOND);
        _allow(w.addr, address(sla));
    }

    /// @dev Goes to the middle of the next epoch, and opens it.
    function _next() internal {
        vm.warp((block.timestamp / EPOCH + 1) * EPOCH + EPOCH / 2);
        vm.roll(block.number + 1);
        sla.openEpoch();
    }

    /// @dev When the running epoch began.
    function _begin() internal view returns (uint40) {
        return uint40(block.timestamp / EPOCH * EPOCH);
    }

    function _committee() internal view returns (address[] memory) {
        return sla.committee(_lease, _begin() / EPOCH);
    }

    function _say(address watcher, ISla.Statement memory s) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 t) = vm.sign(_keyOf[watcher], sla.digest(s));
        return abi.encodePacked(r, t, v);
    }

    /// @dev The first `count` members and what they sign about the lease.
    function _signed(uint40 from, uint40 to, uint256 count)
        internal
        view
        returns (uint8[] memory members, bytes[] memory signatures)
    {
        address[] memory all = sla.committee(_lease, from / EPOCH);
        members = new uint8[](count);
        signatures = new bytes[](count);
        for (uint8 i = 0; i < count; ++i) {
            members[i] = i;
            signatures[i] = _say(all[i], ISla.Statement(_lease, from, to, false));
        }
    }

    function _report(uint40 from, uint40 to) internal {
        _report(from, to, 5);
    }

    function _report(uint40 from, uint40 to, uint256 count) internal {
        (uint8[] memory members, bytes[] memory signatures) = _signed(from, to, count);
        sla.report(_lease, from, to, members, signatures);
    }

    function _challenge() internal {
        token.mint(payer, CHALLENGE_BOND);
        vm.startPrank(payer);
        token.approve(address(sla), CHALLENGE_BOND);
        sla.challenge(_lease);
        vm.stopPrank();
    }

    /// @dev What a slash of `amount` brings its beneficiary, when `reward` of it is somebody else's.
    function _lessBurn(uint256 amount, uint256 reward) internal pure returns (uint256) {
        return amount - (amount * 1_000 + 9_999) / 10_000 - reward;
    }

    function _coverage() internal view returns (uint128) {
        return _lockOf(_lease).amount;
    }

    function _state() internal view returns (ILeases.State) {
        return leases.lease(_lease).state;
    }
}
