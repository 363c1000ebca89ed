// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Sla } from "../../../src/Sla.sol";
import { ISla } from "../../../src/interfaces/ISla.sol";
import { IStaking } from "../../../src/interfaces/IStaking.sol";
import { LeaseId } from "../../../src/types/Ids.sol";
import { Watchers } from "./Watchers.sol";

// constructor
// └── when the terms make no sense ─ reverts
// join
// ├── when the caller has a seat ─ reverts
// ├── when its bond cannot be locked ─ reverts
// └── else ─ takes the last seat, from the next epoch on
// leave
// ├── when the caller has no seat ─ reverts
// ├── when its seat is not the last ─ whoever has that moves to it, and sits in running committees as before
// └── else ─ frees the bond when it can no longer be held to anything
// openEpoch
// ├── when it is open, or there are too few watchers ─ reverts
// └── else ─ draws a seed
// committee
// ├── when the epoch was not opened ─ is empty
// ├── when drawn ─ has seven different members, others for another lease
// ├── when watchers join, leave and come back ─ stays what it was when the epoch began
// └── when a seat changed hands too often ─ has nobody in it rather than somebody else
contract WatchersTest is Watchers {
    function test_RevertWhen_TermsMakeNoSense() public {
        for (uint256 i = 0; i < 3; ++i) {
            ISla.Terms memory terms = _slaTerms();
            if (i == 0) terms.epoch = 0;
            if (i == 1) terms.watcherBond = 1;
            if (i == 2) terms.rewardBps = 1_001;
            vm.expectRevert(ISla.Sla_BadTerms.selector);
            new Sla(leases, payments, staking, CLAIM_WINDOW, terms);
        }
    }

    function test_WhenDeployed() public view {
        assertEq(address(sla.LEASES()), address(leases));
        assertEq(address(sla.PAYMENTS()), address(payments));
        assertEq(address(sla.STAKING()), address(staking));
        assertEq(address(sla.TOKEN()), address(token));
        assertEq(sla.CLAIM_WINDOW(), CLAIM_WINDOW);
        assertEq(sla.CHALLENGE_BOND(), 1e6);
        assertEq(sla.CHALLENGE_PAUSE(), 1 hours);
        assertEq(sla.WATCHER_BOND(), 100e6);
        assertEq(sla.EPOCH(), 1 hours);
        assertEq(sla.MERGE_GAP(), 5 minutes);
        assertEq(sla.REWARD_BPS(), 500);
    }

    function test_RevertWhen_HasSeat() public {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_HasSeat.selector, _watchers[0].addr));
        vm.prank(_watchers[0].addr);
        sla.join();
    }

    function test_RevertWhen_BondCannotBeLocked() public {
        vm.startPrank(stranger);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_LockerNotAllowed.selector, stranger, address(sla))
        );
        sla.join();
        staking.setLocker(address(sla), true);
        vm.expectRevert(
            abi.encodeWithSelector(IStaking.Staking_NotEnoughFree.selector, stranger, WATCHER_BOND, 0)
        );
        sla.join();
    }

    function test_WhenJoined() public {
        Account memory w = _enlist("one more");
        uint40 epoch = _begin() / EPOCH;
        vm.expectEmit(address(sla));
        emit ISla.Joined(w.addr, 10, epoch, 10);
        vm.expectEmit(address(staking));
        emit IStaking.Locked(w.addr, address(sla), 10, WATCHER_BOND);
        vm.prank(w.addr);
        sla.join();
        ISla.Watcher memory seen = sla.watcherOf(w.addr);
        assertEq(abi.encode(seen.seat, seen.since, seen.ref), abi.encode(10, epoch, 10));
        assertFalse(_sits(w.addr, 200), "not in an epoch that began without it");
        _next();
        assertTrue(_sits(w.addr, 200), "but in the next");
    }

    function test_RevertWhen_NoSeat() public {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoSeat.selector, stranger));
        vm.prank(stranger);
        sla.leave();
    }

    function test_WhenLeft_TheLastMoves() public {
        (address gone, address last) = (_watchers[2].addr, _watchers[8].addr);
        uint40 until = uint40(block.timestamp) + EPOCH + CLAIM_WINDOW;
        vm.expectEmit(address(sla));
        emit ISla.Left(gone, 3);
        vm.expectEmit(address(staking));
        emit IStaking.ReleaseSet(gone, address(sla), 3, until);
        vm.prank(gone);
        sla.leave();
        assertEq(sla.watcherOf(gone).seat, 0);
        assertEq(sla.watcherOf(last).seat, 3);
        assertTrue(_sits(gone, 200), "in the running epoch as before");
        assertTrue(_sits(last, 200));
        _next();
        assertFalse(_sits(gone, 200));
        assertTrue(_sits(last, 200));
        vm.warp(until);
        staking.unlock(gone, address(sla), 3);
        assertEq(staking.bondOf(gone).locked, 0);
    }

    function test_WhenTheLastLeaves() public {
        vm.prank(_watchers[8].addr);
        sla.leave();
        for (uint256 i = 0; i < 8; ++i) {
            assertEq(sla.watcherOf(_watchers[i].addr).seat, i + 1);
        }
        _next();
        assertFalse(_sits(_watchers[8].addr, 200));
    }

    function test_RevertWhen_EpochIsOpen() public {
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoCommittee.selector, _begin() / EPOCH));
        sla.openEpoch();
    }

    function test_RevertWhen_TooFewWatchers() public {
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(_watchers[i].addr);
            sla.leave();
        }
        vm.warp(_begin() + EPOCH);
        vm.expectRevert(abi.encodeWithSelector(ISla.Sla_NoCommittee.selector, _begin() / EPOCH));
        sla.openEpoch();
        vm.prank(_watchers[0].addr);
        sla.join();
        sla.openEpoch();
        assertEq(_members(_committee()), 6, "who joined a moment ago does not sit yet");
    }

    function test_WhenEpochOpens() public {
        vm.warp(_begin() + EPOCH);
        vm.prevrandao(bytes32(uint256(77)));
        bytes32 seed = keccak256(abi.encode(uint256(77), blockhash(block.number - 1)));
        vm.expectEmit(address(sla));
        emit ISla.EpochOpened(_begin() / EPOCH, bytes32(uint256(uint224(uint256(seed)))), 9);
        sla.openEpoch();
    }

    function test_WhenNotOpened_NoCommittee() public view {
        assertEq(sla.committee(_lease, _begin() / EPOCH + 1).length, 0);
        assertEq(sla.committee(_lease, _begin() / EPOCH - 1).length, 0);
    }

    function testFuzz_SevenDifferentMembers(uint64 lease, uint256 randao) public {
        vm.warp(_begin() + EPOCH);
        vm.prevrandao(bytes32(randao));
        sla.openEpoch();
        address[] memory all = sla.committee(_leaseOf(lease), _begin() / EPOCH);
        assertEq(all.length, 7);
        for (uint256 i = 0; i < 7; ++i) {
            assertGt(_keyOf[all[i]], 0, "a watcher");
            for (uint256 j = 0; j < i; ++j) {
                assertTrue(all[i] != all[j], "no two alike");
            }
        }
    }

    function test_CommitteesDiffer() public view {
        bytes32 first = keccak256(abi.encode(_committee()));
        uint256 others;
        for (uint64 id = 2; id < 12; ++id) {
            if (keccak256(abi.encode(sla.committee(_leaseOf(id), _begin() / EPOCH))) != first) ++others;
        }
        assertGt(others, 8);
    }

    /// @dev Whatever watchers do within an epoch, its committees are what they were when it began.
    function testFuzz_CommitteesStayWhatTheyWere(uint256 seed) public {
        bytes32 before = keccak256(abi.encode(_committee()));
        for (uint256 i = 0; i < 12; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            address who = _watchers[seed % WATCHERS].addr;
            bool seated = sla.watcherOf(who).seat != 0;
            if (!seated) {
                _bond(who, WATCHER_BOND);
            }
            vm.prank(who);
            if (seated) sla.leave();
            else sla.join();
        }
        assertEq(keccak256(abi.encode(_committee())), before);
        _checkSeats();
    }

    /// @dev Over many epochs no watcher ever sits twice in one committee, and nobody who is not bonded.
    function testFuzz_NobodySitsTwice(uint256 seed) public {
        for (uint256 i = 0; i < 30; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            address who = _watchers[seed % WATCHERS].addr;
            bool seated = sla.watcherOf(who).seat != 0;
            if (seated && _seats() <= 7) continue;
            if (!seated) _bond(who, WATCHER_BOND);
            vm.prank(who);
            if (seated) sla.leave();
            else sla.join();
            if (seed >> 128 & 1 == 0) {
                vm.warp(_begin() + EPOCH);
                sla.openEpoch();
            }
            for (uint40 ago = 0; ago < 3; ++ago) {
                _checkDifferent(sla.committee(_lease, _begin() / EPOCH - ago));
            }
        }
        _checkSeats();
    }

    function test_WhenASeatChangedHandsTwice_TheFirstIsForgotten() public {
        uint40 first = _begin() / EPOCH;
        // Seat 9 goes from its watcher to nobody, and from nobody to somebody else.
        address gone = _watchers[8].addr;
        vm.prank(gone);
        sla.leave();
        assertTrue(_sitsIn(gone, 200, first));
        _next();
        assertTrue(_sitsIn(gone, 200, first));
        Account memory w = _enlist("one more");
        vm.prank(w.addr);
        sla.join();
        assertFalse(_sitsIn(gone, 200, first), "forgotten");
        assertFalse(_sitsIn(w.addr, 200, first), "but not taken for somebody else");
    }

    function _leaseOf(uint64 id) private pure returns (LeaseId) {
        return LeaseId.wrap(id);
    }

    function _checkDifferent(address[] memory all) private view {
        for (uint256 i = 0; i < all.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                assertTrue(all[i] == address(0) || all[i] != all[j], "no two alike");
            }
            if (all[i] == address(0)) continue;
            uint96 ref = sla.watcherOf(all[i]).ref;
            assertEq(staking.lockOf(all[i], address(sla), ref).amount, WATCHER_BOND, "bonded");
        }
    }

    /// @dev The seats that are in use are numbered from 1 without a gap.
    function _checkSeats() private view {
        uint256 numbers;
        for (uint256 i = 0; i < WATCHERS; ++i) {
            uint32 seat = sla.watcherOf(_watchers[i].addr).seat;
            if (seat != 0) numbers |= 1 << (seat - 1);
        }
        assertEq(numbers, (1 << _seats()) - 1);
    }

    function _seats() private view returns (uint256 count) {
        for (uint256 i = 0; i < WATCHERS; ++i) {
            if (sla.watcherOf(_watchers[i].addr).seat != 0) ++count;
        }
    }

    function _members(address[] memory all) private pure returns (uint256 count) {
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i] != address(0)) ++count;
        }
    }

    /// @dev Whether `who` is in a committee of any of the first `many` leases.
    function _sits(address who, uint64 many) private view returns (bool) {
        return _sitsIn(who, many, _begin() / EPOCH);
    }

    function _sitsIn(address who, uint64 many, uint40 epoch) private view returns (bool) {
        for (uint64 id = 1; id < many; ++id) {
            address[] memory all = sla.committee(_leaseOf(id), epoch);
            for (uint256 i = 0; i < all.length; ++i) {
                if (all[i] == who) return true;
            }
        }
        return false;
    }
}
