// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IStaking } from "./interfaces/IStaking.sol";
import { IERC20 } from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import { SafeERC20 } from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";
import { ReentrancyGuardTransient } from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import { SafeCast } from "@openzeppelin/contracts/utils/math/SafeCast.sol";

/// @title Staking
/// @notice Bonds, coverage and slashing; see IStaking.
contract Staking is IStaking, Multicall, ReentrancyGuardTransient {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// @notice The share of every slash that nobody gets, in basis points: attacking one's own provider, or being
    /// one's own tenant, costs at least this.
    uint256 public constant BURN_BPS = 1_000;

    /// @notice The largest share of a slash that may go to whoever proved the fault, in basis points.
    uint256 public constant MAX_REWARD_BPS = 1_000;

    /// @notice The token that is bonded.
    IERC20 public immutable TOKEN;

    /// @notice How long unbonding takes, in seconds.
    uint40 public immutable UNBOND_DELAY;

    /// @notice What was burned so far. It stays in this contract for good; there is no call that moves it.
    uint256 public burned;

    mapping(address bonder => Bond) private _bonds;
    mapping(address bonder => mapping(address locker => bool)) private _lockers;
    mapping(address bonder => mapping(address locker => mapping(uint96 ref => Lock))) private _locks;
    mapping(address beneficiary => uint256) private _claimable;

    /// @param token The token that is bonded.
    /// @param unbondDelay How long unbonding takes, in seconds.
    constructor(IERC20 token, uint40 unbondDelay) {
        if (address(token) == address(0)) revert Staking_Zero();
        TOKEN = token;
        UNBOND_DELAY = unbondDelay;
    }

    /// @inheritdoc IStaking
    function bond(address bonder, uint256 amount) external nonReentrant {
        if (bonder == address(0) || amount == 0) revert Staking_Zero();
        _bonds[bonder].bonded += amount.toUint128();
        emit Bonded(bonder, msg.sender, amount);

        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != amount) revert Staking_WrongAmountReceived(amount, received);
    }

    /// @inheritdoc IStaking
    function requestUnbond(uint256 amount) external {
        if (amount == 0) revert Staking_Zero();
        Bond storage b = _bonds[msg.sender];
        _requireFree(msg.sender, b, amount);
        b.bonded -= amount.toUint128();
        b.unbonding += amount.toUint128();
        b.withdrawableAt = uint40(block.timestamp) + UNBOND_DELAY;
        emit UnbondRequested(msg.sender, amount, b.withdrawableAt);
    }

    /// @inheritdoc IStaking
    function cancelUnbond() external {
        Bond storage b = _bonds[msg.sender];
        uint128 amount = b.unbonding;
        if (amount == 0) revert Staking_Zero();
        b.unbonding = 0;
        b.bonded += amount;
        emit UnbondCancelled(msg.sender, amount);
    }

    /// @inheritdoc IStaking
    function withdraw(address to) external nonReentrant {
        if (to == address(0)) revert Staking_Zero();
        Bond storage b = _bonds[msg.sender];
        uint128 amount = b.unbonding;
        if (amount == 0) revert Staking_Zero();
        if (block.timestamp < b.withdrawableAt) revert Staking_StillUnbonding(b.withdrawableAt);
        b.unbonding = 0;
        emit Unbonded(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc IStaking
    function setLocker(address locker, bool allowed) external {
        _lockers[msg.sender][locker] = allowed;
        emit LockerSet(msg.sender, locker, allowed);
    }

    /// @inheritdoc IStaking
    function lock(address bonder, uint96 ref, uint128 amount) external {
        if (!_lockers[bonder][msg.sender]) revert Staking_LockerNotAllowed(bonder, msg.sender);
        if (amount == 0) revert Staking_Zero();
        Lock storage l = _locks[bonder][msg.sender][ref];
        if (l.releaseAt != 0) revert Staking_Released(bonder, ref, l.releaseAt);
        Bond storage b = _bonds[bonder];
        _requireFree(bonder, b, amount);
        b.locked += amount;
        l.amount += amount;
        emit Locked(bonder, msg.sender, ref, amount);
    }

    /// @inheritdoc IStaking
    function lower(address bonder, uint96 ref, uint128 amount) external {
        if (amount == 0) revert Staking_Zero();
        Lock storage l = _locks[bonder][msg.sender][ref];
        if (l.releaseAt != 0) revert Staking_Released(bonder, ref, l.releaseAt);
        if (amount > l.amount) revert Staking_LowersTooMuch(bonder, ref, amount, l.amount);
        l.amount -= amount;
        _bonds[bonder].locked -= amount;
        emit Lowered(bonder, msg.sender, ref, amount);
    }

    /// @inheritdoc IStaking
    function release(address bonder, uint96 ref, uint40 releaseAt) external {
        Lock storage l = _locks[bonder][msg.sender][ref];
        if (l.releaseAt != 0) revert Staking_Released(bonder, ref, l.releaseAt);
        if (l.amount == 0) return;
        if (releaseAt > block.timestamp) {
            l.releaseAt = releaseAt;
            emit ReleaseSet(bonder, msg.sender, ref, releaseAt);
        } else {
            _unlock(bonder, msg.sender, ref, l);
        }
    }

    /// @inheritdoc IStaking
    function unlock(address bonder, address locker, uint96 ref) external {
        Lock storage l = _locks[bonder][locker][ref];
        if (l.releaseAt == 0 || block.timestamp < l.releaseAt) {
            revert Staking_StillLocked(bonder, ref, l.releaseAt);
        }
        if (l.amount == 0) revert Staking_Zero();
        _unlock(bonder, locker, ref, l);
    }

    /// @inheritdoc IStaking
    function slash(
        address bonder,
        uint96 ref,
        uint128 amount,
        address beneficiary,
        address rewarded,
        uint128 reward
    ) external {
        if (amount == 0 || beneficiary == address(0) || (reward != 0 && rewarded == address(0))) {
            revert Staking_Zero();
        }
        Lock storage l = _locks[bonder][msg.sender][ref];
        if (l.releaseAt != 0 && block.timestamp >= l.releaseAt) {
            revert Staking_Released(bonder, ref, l.releaseAt);
        }
        if (amount > l.amount) revert Staking_SlashAboveLock(bonder, ref, amount, l.amount);
        uint256 limit = uint256(amount) * MAX_REWARD_BPS / 10_000;
        if (reward > limit) revert Staking_RewardAboveLimit(reward, limit);

        Bond storage b = _bonds[bonder];
        b.bonded -= amount;
        b.locked -= amount;
        l.amount -= amount;
        // Rounded up: the remainder burns rather than goes to whoever takes out.
        uint256 burn = (uint256(amount) * BURN_BPS + 9_999) / 10_000;
        uint256 paid = amount - burn - reward;
        burned += burn;
        _claimable[beneficiary] += paid;
        if (reward != 0) _claimable[rewarded] += reward;
        emit Slashed(bonder, msg.sender, ref, amount, beneficiary, paid, rewarded, reward);
    }

    /// @inheritdoc IStaking
    function claim(address to) external nonReentrant {
        if (to == address(0)) revert Staking_Zero();
        uint256 amount = _claimable[msg.sender];
        if (amount == 0) revert Staking_Zero();
        _claimable[msg.sender] = 0;
        emit Claimed(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc IStaking
    function bondOf(address bonder) external view returns (Bond memory) {
        return _bonds[bonder];
    }

    /// @inheritdoc IStaking
    function lockOf(address bonder, address locker, uint96 ref) external view returns (Lock memory) {
        return _locks[bonder][locker][ref];
    }

    /// @inheritdoc IStaking
    function isLocker(address bonder, address locker) external view returns (bool) {
        return _lockers[bonder][locker];
    }

    /// @inheritdoc IStaking
    function claimable(address beneficiary) external view returns (uint256) {
        return _claimable[beneficiary];
    }

    function _unlock(address bonder, address locker, uint96 ref, Lock storage l) private {
        uint128 amount = l.amount;
        l.amount = 0;
        // The mark stays, so that a ref cannot be locked a second time.
        l.releaseAt = uint40(block.timestamp);
        _bonds[bonder].locked -= amount;
        emit Unlocked(bonder, locker, ref, amount);
    }

    function _requireFree(address bonder, Bond storage b, uint256 needed) private view {
        uint256 free = b.bonded - b.locked;
        if (needed > free) revert Staking_NotEnoughFree(bonder, needed, free);
    }
}
