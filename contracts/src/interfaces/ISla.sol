// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { LeaseId } from "../types/Ids.sol";

/// @title Sla: who went dark
/// @notice Two ways to find out. A payer challenges, and a provider that is alive answers. Bonded watchers look from
/// outside, and a quorum of a committee that is drawn anew for each lease and epoch says since when a pod was away.
/// Either way the payer is compensated out of that lease's coverage, and out of nothing else.
interface ISla {
    /// @notice How outages are judged; fixed for good.
    /// @param challengeBond What a challenge costs when it is answered, in token base units.
    /// @param challengePause Seconds after a challenge in which the lease cannot be challenged again.
    /// @param watcherBond What a watcher has at stake, in token base units.
    /// @param epoch Seconds for which a committee stays the same.
    /// @param mergeGap Outages that lie at most so many seconds apart count as one, the gap included.
    /// @param rewardBps The share of a compensation that its witnesses get, in basis points (at most Staking's limit).
    struct Terms {
        uint128 challengeBond;
        uint40 challengePause;
        uint128 watcherBond;
        uint40 epoch;
        uint40 mergeGap;
        uint16 rewardBps;
    }

    /// @notice A challenge.
    /// @param challenger Who challenged; zero when none is open.
    /// @param since When, a Unix time; of the last one that was answered when none is open.
    /// @param clock The account's clock then.
    struct Challenge {
        address challenger;
        uint40 since;
        uint40 clock;
    }

    /// @notice The last outage of a lease, with those that were merged into it.
    /// @param from When it began, a Unix time.
    /// @param to When it ended, as far as is known.
    /// @param due What it cost so far, in token base units.
    /// @param total What all of the lease's outages cost so far.
    struct Outage {
        uint40 from;
        uint40 to;
        uint128 due;
        uint128 total;
    }

    /// @notice A watcher.
    /// @param seat Its seat, from 1; zero if it has none.
    /// @param since The epoch in which it joined; it sits in committees from the next one on.
    /// @param ref The reference of its bond's lock in Staking; zero once it lost that.
    struct Watcher {
        uint32 seat;
        uint40 since;
        uint96 ref;
    }

    /// @notice What a watcher states about a lease, signed as EIP-712 typed data (ERC-1271 for contracts).
    /// @param lease The lease.
    /// @param from From when, a Unix time.
    /// @param to Until when.
    /// @param up Whether its pod answered in all of that time, or in none of it.
    struct Statement {
        LeaseId lease;
        uint40 from;
        uint40 to;
        bool up;
    }

    /// @notice A lease was challenged; its provider has until `deadline` to answer.
    event Challenged(LeaseId indexed lease, address indexed challenger, uint40 deadline, uint40 clock);
    /// @notice The provider answered, and can claim the challenger's bond.
    event Answered(LeaseId indexed lease, address indexed provider, uint256 bond);
    /// @notice A challenge ended without an answer: `dark` says whether the lease had to be answered for. The challenger
    /// can claim its bond, and `compensation` was taken out of the coverage.
    event Resolved(LeaseId indexed lease, address indexed challenger, bool dark, uint256 compensation);
    /// @notice `watcher` took `seat`; its bond is locked under `ref`.
    event Joined(address indexed watcher, uint32 seat, uint40 epoch, uint96 ref);
    /// @notice `watcher` left its seat, by itself or because it lied. Whoever had the last seat has this one from the next
    /// epoch on, and there is one less.
    event Left(address indexed watcher, uint32 seat);
    /// @notice An epoch has its committees.
    event EpochOpened(uint40 indexed epoch, bytes32 seed, uint32 seats);
    /// @notice A committee found an outage; it is now one from `from` to `to`, for which `due` was taken in all, the last
    /// part of it now, and `reward` of that is for its witnesses, a bit of `members` for each.
    event Reported(
        LeaseId indexed lease,
        uint40 indexed epoch,
        uint40 from,
        uint40 to,
        uint128 due,
        uint128 reward,
        uint8 members
    );
    /// @notice A witness took its share of the reward of `report`.
    event Rewarded(bytes32 indexed report, address indexed watcher, uint256 amount);
    /// @notice `watcher` said both that a pod was up and that it was down, and lost its bond; half of it, less what
    /// Staking burns, is for `finder`.
    event Equivocated(address indexed watcher, address indexed finder, LeaseId indexed lease, uint256 amount);

    /// @notice `amount` of challenges' bonds that were for `who` went to `to`.
    event Claimed(address indexed who, address indexed to, uint256 amount);

    /// @notice The parameters do not make sense.
    error Sla_BadTerms();
    /// @notice The lease does not run, or not in that time.
    error Sla_NotRunning(LeaseId lease);
    /// @notice The lease's account cannot pay: nothing is owed to it.
    error Sla_Dry(LeaseId lease);
    /// @notice `caller` neither pays for the lease nor acts for who does.
    error Sla_NotPayer(LeaseId lease, address caller);
    /// @notice `caller` is not the lease's provider.
    error Sla_NotProvider(LeaseId lease, address caller);
    /// @notice The lease cannot be challenged before `from`, or while a challenge is open.
    error Sla_TooSoon(LeaseId lease, uint40 from);
    /// @notice There is no open challenge.
    error Sla_NoChallenge(LeaseId lease);
    /// @notice The time to answer was over at `deadline`.
    error Sla_TooLate(LeaseId lease, uint40 deadline);
    /// @notice The provider has until `deadline` to answer.
    error Sla_StillOpen(LeaseId lease, uint40 deadline);
    /// @notice A transfer of `expected` tokens brought `received`: this token cannot be used.
    error Sla_WrongAmountReceived(uint256 expected, uint256 received);
    /// @notice `watcher` has a seat already.
    error Sla_HasSeat(address watcher);
    /// @notice `watcher` has no seat.
    error Sla_NoSeat(address watcher);
    /// @notice The epoch has no committees: it was not opened in its time, or there were too few watchers.
    error Sla_NoCommittee(uint40 epoch);
    /// @notice The times are not those of one outage in one epoch, after what was reported before.
    error Sla_BadTimes(uint40 from, uint40 to);
    /// @notice So few members signed, and `quorum` have to.
    error Sla_NoQuorum(uint256 signed, uint256 quorum);
    /// @notice The members are not named in rising order, or there is no such seat.
    error Sla_BadMember(uint8 member);
    /// @notice The signature is not that of `watcher`.
    error Sla_BadSignature(address watcher);
    /// @notice The two statements do not contradict each other.
    error Sla_NoContradiction();
    /// @notice There is nothing to be had.
    error Sla_Nothing();

    /// @notice Challenges a lease to show that its provider is there: by its payer or an agent, who puts up a bond.
    function challenge(LeaseId lease) external;

    /// @notice Answers a challenge, whose bond can then be claimed; by the lease's provider, within the lease's response time.
    function answer(LeaseId lease) external;

    /// @notice Ends a challenge that was not answered, once that is too late; anybody may call. The whole coverage that is
    /// left goes to the payer, and the lease is closed, unpaid from the challenge on. A lease that was closed before the
    /// time was over is not judged. The challenger has its bond back in any case.
    function resolve(LeaseId lease) external;

    /// @notice Takes a seat among the watchers from the next epoch on. The caller lets this contract lock its bond in
    /// Staking (`setLocker`).
    function join() external;

    /// @notice Gives the caller's seat up from the next epoch on; its bond stays locked for as long as it can be held to
    /// what it said.
    function leave() external;

    /// @notice Draws the seed of the running epoch's committees; anybody may, once.
    function openEpoch() external;

    /// @notice Reports an outage, with the signatures of a quorum of the committee of the lease and the epoch in which it
    /// lies. An outage longer than an epoch is reported epoch by epoch, and each within the claim window of its end.
    /// @param members Whose signatures follow: places in the committee, rising.
    /// @param signatures Of the statement that the pod was down from `from` to `to`.
    function report(
        LeaseId lease,
        uint40 from,
        uint40 to,
        uint8[] calldata members,
        bytes[] calldata signatures
    ) external;

    /// @notice Sends a witness its share of a report's reward; anybody may call.
    /// @param report The hash of `abi.encode(lease, from, to)` as `Reported` has them.
    // slither-disable-next-line shadowing-local (a name in an interface)
    function reward(bytes32 report, uint8 member) external;

    /// @notice Shows that `watcher` contradicted itself about a lease. It loses its seat and its bond.
    function equivocated(
        address watcher,
        Statement calldata up,
        bytes calldata upSignature,
        Statement calldata down,
        bytes calldata downSignature
    ) external;

    /// @notice Sends the bonds of challenges that the caller has back, or won by an answer, to `to`.
    function claim(address to) external;

    /// @notice What `who` may claim.
    function claimable(address who) external view returns (uint256);

    /// @notice The challenge of a lease.
    function challengeOf(LeaseId lease) external view returns (Challenge memory);

    /// @notice The last outage of a lease.
    function outageOf(LeaseId lease) external view returns (Outage memory);

    /// @notice A watcher.
    function watcherOf(address watcher) external view returns (Watcher memory);

    /// @notice The committee of a lease in an epoch: who had the drawn seats when it began, zero for nobody. Empty where the
    /// epoch was not opened.
    function committee(LeaseId lease, uint40 epoch) external view returns (address[] memory);

    /// @notice The EIP-712 digest of a statement.
    function digest(Statement calldata statement) external view returns (bytes32);
}
