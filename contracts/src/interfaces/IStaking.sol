// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Staking: bonds, coverage, unbonding and slashing
/// @notice A bonder puts tokens at stake once and lets contracts (lockers) lock parts of it as coverage. What is
/// locked can be slashed by the locker that locked it, up to that lock and no further; what is free can be
/// unbonded after a delay. All amounts are token base units.
interface IStaking {
    /// @notice A bond.
    /// @param bonded What is at stake, locked or free.
    /// @param locked What of it backs coverage.
    /// @param unbonding What has left the bond and waits for the delay.
    /// @param withdrawableAt When `unbonding` may be withdrawn, a Unix time.
    struct Bond {
        uint128 bonded;
        uint128 locked;
        uint128 unbonding;
        uint40 withdrawableAt;
    }

    /// @notice A part of a bond that backs one thing of a locker's.
    /// @param amount What is left of it.
    /// @param releaseAt When it stops to back anything, a Unix time; zero while that is not known.
    struct Lock {
        uint128 amount;
        uint40 releaseAt;
    }

    /// @notice `amount` was added to the bond of `bonder`.
    event Bonded(address indexed bonder, address indexed from, uint256 amount);
    /// @notice `amount` left the bond of `bonder` and can be withdrawn at `withdrawableAt`, together with what was
    /// unbonding before.
    event UnbondRequested(address indexed bonder, uint256 amount, uint40 withdrawableAt);
    /// @notice What was unbonding went back into the bond.
    event UnbondCancelled(address indexed bonder, uint256 amount);
    /// @notice `amount` that had been unbonding left.
    event Unbonded(address indexed bonder, address indexed to, uint256 amount);
    /// @notice `bonder` lets `locker` lock and slash parts of its bond, or no longer lets it lock new ones.
    event LockerSet(address indexed bonder, address indexed locker, bool allowed);
    /// @notice `amount` more of the bond backs `ref` of `locker`.
    event Locked(address indexed bonder, address indexed locker, uint96 indexed ref, uint256 amount);
    /// @notice `ref` of `locker` is backed until `releaseAt`.
    event ReleaseSet(address indexed bonder, address indexed locker, uint96 indexed ref, uint40 releaseAt);
    /// @notice `ref` of `locker` is backed by `amount` less.
    event Lowered(address indexed bonder, address indexed locker, uint96 indexed ref, uint256 amount);
    /// @notice `amount` is free again.
    event Unlocked(address indexed bonder, address indexed locker, uint96 indexed ref, uint256 amount);
    /// @notice `amount` was taken: `paid` for `beneficiary`, `reward` for `rewarded`, the rest burned.
    event Slashed(
        address indexed bonder,
        address indexed locker,
        uint96 indexed ref,
        uint256 amount,
        address beneficiary,
        uint256 paid,
        address rewarded,
        uint256 reward
    );
    /// @notice `amount` from slashes went to `to`.
    event Claimed(address indexed beneficiary, address indexed to, uint256 amount);

    /// @notice A zero address or a zero amount where neither can be.
    error Staking_Zero();
    /// @notice A transfer of `expected` tokens brought `received`: this token cannot be used.
    error Staking_WrongAmountReceived(uint256 expected, uint256 received);
    /// @notice `bonder` has `free` that backs nothing and the call needs `needed`.
    error Staking_NotEnoughFree(address bonder, uint256 needed, uint256 free);
    /// @notice Nothing can be withdrawn before `withdrawableAt`.
    error Staking_StillUnbonding(uint40 withdrawableAt);
    /// @notice `bonder` does not let `locker` lock its bond.
    error Staking_LockerNotAllowed(address bonder, address locker);
    /// @notice The lock was released, at `releaseAt`.
    error Staking_Released(address bonder, uint96 ref, uint40 releaseAt);
    /// @notice The lock still backs something: until `releaseAt`, or with no end if that is zero.
    error Staking_StillLocked(address bonder, uint96 ref, uint40 releaseAt);
    /// @notice The slash of `amount` is more than the lock's `locked`.
    error Staking_SlashAboveLock(address bonder, uint96 ref, uint256 amount, uint256 locked);
    /// @notice The lock cannot be lowered by `amount`, being `locked`.
    error Staking_LowersTooMuch(address bonder, uint96 ref, uint256 amount, uint256 locked);
    /// @notice The reward is more than `limit`.
    error Staking_RewardAboveLimit(uint256 reward, uint256 limit);

    /// @notice The token that is bonded.
    // forge-lint: disable-next-line(mixed-case-function)
    function TOKEN() external view returns (IERC20);

    /// @notice The largest share of a slash that may go to whoever proved the fault, in basis points.
    // forge-lint: disable-next-line(mixed-case-function)
    function MAX_REWARD_BPS() external view returns (uint256);

    /// @notice Adds `amount` of the caller's tokens to the bond of `bonder`.
    function bond(address bonder, uint256 amount) external;

    /// @notice Starts to unbond `amount` of what is free; the delay starts anew for all that is unbonding.
    function requestUnbond(uint256 amount) external;

    /// @notice Puts what is unbonding back into the bond.
    function cancelUnbond() external;

    /// @notice Withdraws what was unbonding, once the delay is over.
    function withdraw(address to) external;

    /// @notice Lets `locker` lock and slash parts of the caller's bond, or no longer lock new ones.
    function setLocker(address locker, bool allowed) external;

    /// @notice Locks `amount` more for `ref`; by a locker that `bonder` allows.
    function lock(address bonder, uint96 ref, uint128 amount) external;

    /// @notice Frees `amount` of the caller's `ref`; the rest stays locked.
    function lower(address bonder, uint96 ref, uint128 amount) external;

    /// @notice Says until when the caller's `ref` stays backed; now or earlier frees it at once.
    function release(address bonder, uint96 ref, uint40 releaseAt) external;

    /// @notice Frees a lock whose time is over; anybody may call.
    function unlock(address bonder, address locker, uint96 ref) external;

    /// @notice Takes `amount` out of the caller's `ref`. A fixed share is burned, `reward` goes to `rewarded`, the
    /// rest to `beneficiary`; both claim theirs, so that no token can make a slash fail.
    function slash(
        address bonder,
        uint96 ref,
        uint128 amount,
        address beneficiary,
        address rewarded,
        uint128 reward
    ) external;

    /// @notice Sends what slashes brought the caller to `to`.
    function claim(address to) external;

    /// @notice The bond of `bonder`.
    function bondOf(address bonder) external view returns (Bond memory);

    /// @notice The lock that `locker` holds under `ref`.
    function lockOf(address bonder, address locker, uint96 ref) external view returns (Lock memory);

    /// @notice Whether `locker` may lock parts of the bond of `bonder`.
    function isLocker(address bonder, address locker) external view returns (bool);

    /// @notice What `beneficiary` may claim.
    function claimable(address beneficiary) external view returns (uint256);
}
