// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Payments } from "../../src/Payments.sol";
import { Staking } from "../../src/Staking.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { IStaking } from "../../src/interfaces/IStaking.sol";
import { Curve } from "../../src/libraries/Curve.sol";
import { AccountId, StreamId, accountIdOf, streamIdOf } from "../../src/types/Ids.sol";
import { TestToken } from "../tokens/TestToken.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { Test } from "forge-std/Test.sol";

/// @notice What holds for every number there is, not for those that a fuzzer came upon: `make prove` has Halmos show it.
/// Where a solver would have to divide by a number that it does not know, rates and terms are picked out of few (powers of
/// two, by which it can shift), and everything else is left open.
contract Symbolic is Test {
    TestToken private _token;
    Payments private _payments;
    Staking private _staking;
    address private constant _PAYER = address(0xa11ce);
    address private constant _PAYEE = address(0xb0b);
    address private constant _BONDER = address(0xd0e);
    address private constant _LOCKER = address(0x10c);
    uint256 private constant _START = 1_800_000_000;
    AccountId private _account;

    function setUp() public {
        vm.warp(_START);
        _token = new TestToken();
        _payments = new Payments(IERC20(address(_token)));
        _staking = new Staking(IERC20(address(_token)), 7 days);
        _account = accountIdOf(_PAYER, 0);
        _token.mint(address(this), type(uint128).max);
        _token.approve(address(_payments), type(uint256).max);
        _token.approve(address(_staking), type(uint256).max);
        _staking.bond(_BONDER, 1_000e6);
        vm.prank(_BONDER);
        _staking.setLocker(_LOCKER, true);
    }

    /// @notice The clock: whenever one looks, what an account has left, what its stream is owed and what it was given are one
    /// sum, the clock is the seconds that were paid for, and never more than have passed.
    function check_ClockAndAccrual(uint32 secs, uint64 amount, uint8 which) public {
        uint128 rate = _rate(which);
        vm.assume(amount != 0 && amount < 1e6);
        _payments.deposit(_PAYER, 0, amount);
        vm.prank(_PAYER);
        StreamId id = _payments.openStream(_account, 1, _PAYEE, rate, 0, true);
        vm.warp(_START + secs);
        IPayments.AccountView memory a = _payments.account(_account);
        IPayments.StreamView memory s = _payments.stream(id);
        assert(uint256(a.free) + s.owed == uint256(amount) * 1e9);
        assert(s.owed == uint256(rate) * a.clock);
        assert(a.clock <= secs);
        // It stops in the second in which it can no longer be paid, and not before.
        assert(a.clock == secs || a.free < rate);
    }

    /// @notice Cutting a stream gives back what accrued since, and no more than is owed; nothing is lost or made.
    function check_CutIsWithinWhatIsOwed(uint16 secs, uint40 clock, uint8 which) public {
        uint128 rate = _rate(which);
        _payments.deposit(_PAYER, 0, 1e6);
        vm.startPrank(_PAYER);
        StreamId id = _payments.openStream(_account, 1, _PAYEE, rate, 0, true);
        vm.warp(_START + secs);
        uint256 owed = _payments.stream(id).owed;
        uint256 back = _payments.cutStream(id, clock);
        vm.stopPrank();
        assert(back <= owed);
        assert(_payments.stream(id).owed == owed - back);
        assert(uint256(_payments.account(_account).free) + owed - back == 1e15);
    }

    /// @notice A withdrawal leaves the lockup, whatever is asked for.
    function check_WithdrawLeavesTheLockup(uint32 lock, uint128 amount) public {
        _payments.deposit(_PAYER, 0, 1e6);
        vm.startPrank(_PAYER);
        (bool opened,) = address(_payments)
            .call(abi.encodeCall(_payments.openStream, (_account, 1, _PAYEE, 1_000, lock, true)));
        (bool went,) = address(_payments).call(abi.encodeCall(_payments.withdraw, (_account, _PAYEE, amount)));
        vm.stopPrank();
        IPayments.AccountView memory a = _payments.account(_account);
        assert(a.free >= a.lockup);
        assert(a.lockup == (opened ? uint256(1_000) * lock : 0));
        assert(!went || a.free == 1e15 - uint256(amount) * 1e9);
    }

    /// @notice Locks: locked is never above bonded, and a lock has what was put into it.
    function check_LockedIsAtMostBonded(uint128 first, uint128 second, uint128 less) public {
        vm.startPrank(_LOCKER);
        bool one = _call(abi.encodeCall(_staking.lock, (_BONDER, 1, first)));
        bool two = _call(abi.encodeCall(_staking.lock, (_BONDER, 2, second)));
        bool low = _call(abi.encodeCall(_staking.lower, (_BONDER, 1, less)));
        vm.stopPrank();
        IStaking.Bond memory b = _staking.bondOf(_BONDER);
        assert(b.locked <= b.bonded);
        uint256 sum = _staking.lockOf(_BONDER, _LOCKER, 1).amount;
        sum += _staking.lockOf(_BONDER, _LOCKER, 2).amount;
        assert(b.locked == sum);
        assert(sum == (one ? uint256(first) : 0) + (two ? uint256(second) : 0) - (low ? less : 0));
    }

    /// @notice Slashes: what is taken is paid, rewarded and burned to the last base unit, out of that lock alone, and the
    /// burned part is at least its share.
    function check_SlashIsPaidAndBurned(uint16 locked, uint16 amount, uint16 reward) public {
        vm.startPrank(_LOCKER);
        bool one = _call(abi.encodeCall(_staking.lock, (_BONDER, 1, locked)));
        bool took = _call(abi.encodeCall(_staking.slash, (_BONDER, 1, amount, _PAYER, _PAYEE, reward)));
        vm.stopPrank();
        assert(!took || (one && amount <= locked));
        if (!took) return;
        uint256 paid = _staking.claimable(_PAYER);
        uint256 burned = _staking.burned();
        assert(paid + _staking.claimable(_PAYEE) + burned == amount);
        assert(_staking.claimable(_PAYEE) == reward);
        assert(burned * 10_000 >= uint256(amount) * 1_000);
        assert(uint256(reward) * 10_000 <= uint256(amount) * 1_000);
        IStaking.Bond memory b = _staking.bondOf(_BONDER);
        assert(b.bonded == 1_000e6 - uint256(amount) && b.locked == uint256(locked) - amount);
        assert(_staking.lockOf(_BONDER, _LOCKER, 1).amount == uint256(locked) - amount);
    }

    /// @notice The curve: nothing up to grace, all from full on, and never more than the coverage.
    function check_CurveIsBounded(uint64 coverage, uint40 duration, uint8 which) public pure {
        (uint24 grace, uint24 full) = _terms(which);
        uint128 due = Curve.due(coverage, duration, grace, full);
        assert(due <= coverage);
        if (duration <= grace) assert(due == 0);
        if (full != 0 && duration >= full) assert(due == coverage);
    }

    /// @notice A longer outage never costs less: not a second longer, and so none.
    function check_CurveRises(uint8 duration, uint8 which) public pure {
        (uint24 grace, uint24 full) = _terms(which);
        uint128 due = Curve.due(20e6, duration, grace, full);
        assert(due <= Curve.due(20e6, uint40(duration) + 1, grace, full));
    }

    function _call(bytes memory data) private returns (bool ok) {
        (ok,) = address(_staking).call(data);
    }

    function _rate(uint8 which) private pure returns (uint128) {
        if (which == 0) return 1;
        if (which == 1) return 1 << 24;
        return 1 << 40;
    }

    function _terms(uint8 which) private pure returns (uint24 grace, uint24 full) {
        if (which == 0) return (0, 0);
        if (which == 1) return (0, 1);
        if (which == 2) return (60, 64);
        return (16, 80);
    }
}
