// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { AccountId, LeaseId, OrderId } from "../types/Ids.sol";

/// @title Auction: the reverse market
/// @notice A publisher says what it needs and the most it pays; providers underbid one another; the order becomes a
/// lease at the best bid. The publisher lets this contract act for its account (`Leases.setAgent`), a bidder lets it
/// issue leases in its name (`Leases.setIssuer`) and lock its bond (`Staking.setLocker`).
interface IAuction {
    /// @notice Something that a provider has to have.
    /// @param auditor Who has to vouch for it in Registry; zero: the provider's own word is enough.
    /// @param attribute The hash of its name.
    struct Requirement {
        address auditor;
        bytes32 attribute;
    }

    /// @notice What a publisher asks for. Only its hash is stored.
    /// @param account Whose account pays.
    /// @param slot The slot of the account that the lease will fill.
    /// @param pod The hash of the canonical pod.
    /// @param cpu Thousandths of a processor.
    /// @param memoryMiB MiB of memory.
    /// @param storageMiB MiB of volumes.
    /// @param maxRate The most it pays, in units per second.
    /// @param coverage What of the winner's bond backs the lease, in token base units.
    /// @param lock See `ILeases.Quote`.
    /// @param grace See `ILeases.Quote`.
    /// @param full See `ILeases.Quote`.
    /// @param response See `ILeases.Quote`.
    /// @param notice See `ILeases.Quote`.
    /// @param startWithin See `ILeases.Quote`.
    /// @param duration For how many seconds bids are taken.
    /// @param selfAward Whether anybody may award it to the leader once its time is over.
    /// @param requirements What a bidder has to have, at most eight things.
    /// @param uri Where the pod and what else a bidder should know can be had, at most 256 bytes.
    struct Order {
        AccountId account;
        uint32 slot;
        bytes32 pod;
        uint32 cpu;
        uint64 memoryMiB;
        uint64 storageMiB;
        uint128 maxRate;
        uint128 coverage;
        uint32 lock;
        uint24 grace;
        uint24 full;
        uint24 response;
        uint24 notice;
        uint24 startWithin;
        uint32 duration;
        bool selfAward;
        Requirement[] requirements;
        string uri;
    }

    /// @notice How auctions go; fixed for good.
    /// @param deposit What an order keeps locked until it is over, in token base units: what it takes of storage is
    /// backed by something, and whoever placed it has it back.
    /// @param stepBps By how much a bid has to be below the leading one, in basis points of that.
    /// @param extension A bid in the last so many seconds makes so many of them left.
    /// @param maxExtension For how many seconds in all.
    /// @param awardGrace For how many seconds after its end a leader stays bound.
    /// @param noShowBps What of the coverage a winner puts up beside it, and loses when it does not start, in basis points.
    struct Terms {
        uint128 deposit;
        uint16 stepBps;
        uint32 extension;
        uint32 maxExtension;
        uint32 awardGrace;
        uint16 noShowBps;
    }

    /// @notice Where an order stands.
    enum State {
        None,
        Open,
        Awarded,
        Over
    }

    /// @notice Why an order is over.
    enum Outcome {
        Started,
        Cancelled,
        Expired,
        GivenUp
    }

    /// @notice What is kept of an order.
    /// @param hash Of what was asked for.
    /// @param leader Who leads, or was awarded; zero for nobody.
    /// @param deadline The last second in which a bid is taken, a Unix time.
    /// @param latest Beyond which no extension moves it.
    /// @param bids How many bids were made.
    /// @param reopened How often it was opened again.
    /// @param state Where it stands.
    /// @param rate The leader's rate; while nobody leads, the most that is paid.
    /// @param coverage What of the winner's bond backs the lease.
    /// @param lease The lease that it was awarded as.
    /// @param payer Who placed it, and has the deposit back.
    struct OrderView {
        bytes32 hash;
        address leader;
        uint40 deadline;
        uint40 latest;
        uint32 bids;
        uint8 reopened;
        State state;
        uint128 rate;
        uint128 coverage;
        LeaseId lease;
        address payer;
    }

    /// @notice An order was placed.
    event Placed(
        OrderId indexed id, AccountId indexed account, address indexed payer, uint40 deadline, Order order
    );
    /// @notice `bidder` leads, at `rate`; bids are taken until `deadline`. Whoever led before is free.
    event Bid(OrderId indexed id, address indexed bidder, uint128 rate, uint40 deadline, uint32 bids);
    /// @notice The order became a lease.
    event Awarded(OrderId indexed id, address indexed provider, LeaseId indexed lease, uint128 rate);
    /// @notice The leader cannot be awarded, or did not start; it lost `penalty`, and bids are taken until `deadline`.
    event Reopened(OrderId indexed id, address indexed provider, uint256 penalty, uint40 deadline);
    /// @notice The order is over; whoever led or won is free, less `penalty`, and the deposit can be claimed.
    event Over(OrderId indexed id, Outcome outcome, address indexed provider, uint256 penalty);

    /// @notice `amount` of deposits that `who` had back went to `to`.
    event Claimed(address indexed who, address indexed to, uint256 amount);

    /// @notice The parameters do not make sense.
    error Auction_BadTerms();
    /// @notice `caller` neither owns `account` nor acts for its owner.
    error Auction_NotPayer(AccountId account, address caller);
    /// @notice A field of the order is out of its range.
    error Auction_BadOrder(string field);
    /// @notice The account does not let this contract open leases for it: `Leases.setAgent` does.
    error Auction_NotAgent(AccountId account);
    /// @notice This is not the order that was placed under that number.
    error Auction_WrongOrder(OrderId id);
    /// @notice The order is in another state than the call needs.
    error Auction_WrongState(OrderId id, State state);
    /// @notice Bids were taken until `deadline`.
    error Auction_Late(OrderId id, uint40 deadline);
    /// @notice Nobody but the payer may do this before `from`, or at all (zero).
    error Auction_TooEarly(OrderId id, uint40 from);
    /// @notice The bid of `rate` has to be at most `most`.
    error Auction_TooHigh(OrderId id, uint128 rate, uint128 most);
    /// @notice A zero address or amount where neither can be; a bid of nothing is none.
    error Auction_Zero();
    /// @notice `bidder` lacks `attribute`, for which `auditor` would have to vouch.
    error Auction_Unfit(address bidder, address auditor, bytes32 attribute);
    /// @notice `bidder` is not listed, or does not let this contract issue leases, or Leases lock its bond.
    error Auction_NotReady(address bidder);
    /// @notice Nobody leads.
    error Auction_NoLeader(OrderId id);
    /// @notice The leader can be awarded.
    error Auction_LeaderReady(OrderId id);
    /// @notice The lease has not been started yet, and still may be.
    error Auction_StillPending(OrderId id, LeaseId lease);
    /// @notice A transfer of `expected` tokens brought `received`: this token cannot be used.
    error Auction_WrongAmountReceived(uint256 expected, uint256 received);

    /// @notice Places an order: by the owner of its account or an agent, who puts up the deposit.
    function place(Order calldata order) external returns (OrderId id);

    /// @notice Bids `rate` units per second. The first bid is at most the order's highest rate, a later one below the
    /// leading one by a step. While it leads, the coverage and what a no-show costs are locked out of the caller's bond.
    function bid(OrderId id, uint128 rate, Requirement[] calldata requirements) external;

    /// @notice Makes a lease of the order, at the leader's rate: by its payer while somebody leads, or by anybody after its
    /// time where it awards itself.
    function award(OrderId id, Order calldata order) external returns (LeaseId lease);

    /// @notice Takes a leader off that can no longer be awarded, because it is not listed or took back what it let this
    /// contract do; anybody may call. It loses what a no-show loses.
    function disqualify(OrderId id) external;

    /// @notice Ends an awarded order once its lease was started, or reopens it once the lease was closed without that;
    /// anybody may call. A winner that did not start pays its no-show to the payer, unless it was the payer who closed.
    function settle(OrderId id) external;

    /// @notice Ends an open order; by its payer.
    function cancel(OrderId id) external;

    /// @notice Ends an order that nobody awarded, some time after its end; anybody may call.
    function expire(OrderId id) external;

    /// @notice Sends the deposits that the caller has back to `to`.
    function claim(address to) external;

    /// @notice What `who` may claim.
    function claimable(address who) external view returns (uint256);

    /// @notice An order.
    function orderOf(OrderId id) external view returns (OrderView memory);

    /// @notice The most that the next bid may be.
    function nextRate(OrderId id) external view returns (uint128);
}
