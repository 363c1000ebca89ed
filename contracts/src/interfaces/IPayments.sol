// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { AccountId, StreamId } from "../types/Ids.sol";

/// @title Payments: accounts, streams and operators
/// @notice One account funds any number of streams, per second. An account keeps one clock: the number of seconds
/// for which it was funded. A stream's accrual is its rate times what that clock advanced, so every operation
/// costs the same however many streams an account has, and all of them run dry in the same second.
/// @dev Amounts inside are *units*: token base units × 1e9. Token amounts cross the boundary in `deposit`,
/// `withdraw`, `pay` and `collect` only; there the remainder of a division stays with the contract, never with
/// the one who takes out.
interface IPayments {
    /// @notice Where a stream stands. A reserved stream holds its lockup but does not accrue yet.
    enum StreamState {
        None,
        Reserved,
        Running,
        Closed
    }

    /// @notice What an operator may do with an account.
    /// @param rateLimit The total rate of the streams it may have open, in units per second.
    /// @param rateUsed The total rate of the streams it has open.
    /// @param payLimit What it may still pay at once, in units.
    /// @param maxLock The longest lock of a stream that it may open, in seconds.
    /// @param expiry The last second at which it may open, raise or pay.
    struct Approval {
        uint128 rateLimit;
        uint128 rateUsed;
        uint128 payLimit;
        uint32 maxLock;
        uint40 expiry;
    }

    /// @notice An account as of this block.
    /// @param owner Who owns it.
    /// @param free What is left of the deposits, in units, settled up to now.
    /// @param lockup What may not be withdrawn while its streams are open, in units.
    /// @param rate The sum of the rates of its running streams, in units per second.
    /// @param clock The number of seconds for which it was funded.
    /// @param fundedUntil When it runs or ran dry (a Unix time); the largest uint40 while nothing runs.
    struct AccountView {
        address owner;
        uint128 free;
        uint128 lockup;
        uint128 rate;
        uint40 clock;
        uint40 fundedUntil;
    }

    /// @notice A stream as of this block.
    /// @param account Who pays.
    /// @param payee Who is paid.
    /// @param rate Units per second; zero once closed.
    /// @param lock For how many seconds of the rate the account must stay locked.
    /// @param state Where it stands.
    /// @param owed Accrued and not yet collected, in units.
    struct StreamView {
        AccountId account;
        address payee;
        uint128 rate;
        uint32 lock;
        StreamState state;
        uint128 owed;
    }

    /// @notice `amount` tokens came in for `account`.
    event Deposited(
        AccountId indexed account, address indexed owner, bytes32 salt, address indexed from, uint256 amount
    );
    /// @notice `amount` tokens left `account`.
    event Withdrawn(AccountId indexed account, address indexed to, uint256 amount);
    /// @notice The owner of `account` said what `operator` may do.
    event Approved(
        AccountId indexed account,
        address indexed operator,
        uint128 rateLimit,
        uint128 payLimit,
        uint32 maxLock,
        uint40 expiry
    );
    /// @notice A stream was opened; `started` says whether it accrues already.
    event StreamOpened(
        StreamId indexed id,
        AccountId indexed account,
        address indexed payee,
        uint128 rate,
        uint32 lock,
        bool started
    );
    /// @notice A reserved stream began to accrue.
    event StreamStarted(StreamId indexed id);
    /// @notice A stream goes on at another rate and lock.
    event RateSet(StreamId indexed id, uint128 rate, uint32 lock);
    /// @notice A stream ended; what it accrued can still be collected.
    event StreamClosed(StreamId indexed id);
    /// @notice A stream ended as of an earlier second; `back` units of what it had accrued went back to its account.
    event StreamCut(StreamId indexed id, uint128 back);
    /// @notice `amount` tokens of `id` went to its payee.
    event Collected(StreamId indexed id, address indexed payee, uint256 amount);
    /// @notice `amount` tokens of `account` were paid at once.
    event Paid(AccountId indexed account, address indexed operator, address indexed to, uint256 amount);

    /// @notice There is no such account.
    error Payments_NoAccount(AccountId account);
    /// @notice `caller` does not own `account`.
    error Payments_NotOwner(AccountId account, address caller);
    /// @notice A transfer of `expected` tokens brought `received`: this token cannot be used.
    error Payments_WrongAmountReceived(uint256 expected, uint256 received);
    /// @notice The account has `available` units to spend and the call needs `needed`.
    error Payments_Underfunded(AccountId account, uint256 needed, uint256 available);
    /// @notice The account is dry; a top-up has to restore its lockup, for which `missing` units lack.
    error Payments_TopUpTooSmall(AccountId account, uint256 missing);
    /// @notice The operator's approval ended, or was never given.
    error Payments_NotApproved(AccountId account, address operator);
    /// @notice The operator's streams would run at `rate` units per second, and `limit` is what was approved.
    error Payments_RateAboveApproval(AccountId account, address operator, uint256 rate, uint256 limit);
    /// @notice The operator would pay `amount` units, and `limit` is what is left of its approval.
    error Payments_PayAboveApproval(AccountId account, address operator, uint256 amount, uint256 limit);
    /// @notice The stream's lock is longer than approved.
    error Payments_LockAboveApproval(AccountId account, address operator, uint32 lock, uint32 limit);
    /// @notice An operator cannot pay itself.
    error Payments_PaysItself(address operator);
    /// @notice The operator has used this `ref` already.
    error Payments_StreamExists(StreamId id);
    /// @notice The stream is in another state than the call needs.
    error Payments_WrongState(StreamId id, StreamState state);
    /// @notice `caller` may not do this to the stream.
    error Payments_NotParty(StreamId id, address caller);
    /// @notice A zero address or a zero amount where neither can be.
    error Payments_Zero();

    /// @notice Adds `amount` tokens of the caller to the account of `owner` under `salt`, which comes to be if it
    /// was not there. Anybody may, for anybody. A dry account starts again now: the gap is never paid for.
    /// @return id The account.
    function deposit(address owner, bytes32 salt, uint256 amount) external returns (AccountId id);

    /// @notice `deposit` with an ERC-2612 permit. A permit that somebody else already played is no failure as
    /// long as the allowance is there.
    function depositWithPermit(
        address owner,
        bytes32 salt,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (AccountId id);

    /// @notice Takes `amount` tokens out of the caller's account; never below its lockup.
    // slither-disable-next-line shadowing-local (a name in an interface)
    function withdraw(AccountId account, address to, uint256 amount) external;

    /// @notice Says what `operator` may do with the caller's account, in place of what was said before. Streams
    /// that it has open stay; the owner may close them.
    function approve(
        // slither-disable-next-line shadowing-local (a name in an interface)
        AccountId account,
        address operator,
        uint128 rateLimit,
        uint128 payLimit,
        uint32 maxLock,
        uint40 expiry
    ) external;

    /// @notice Opens a stream to `payee`: by the owner, or by an operator within its approval.
    /// @param ref The caller's own number for it, never used before.
    /// @param start Whether it accrues from now on, or is reserved until `startStream`.
    /// @return id The stream: the caller's address and `ref`.
    // slither-disable-next-line shadowing-local (a name in an interface)
    function openStream(AccountId account, uint96 ref, address payee, uint128 rate, uint32 lock, bool start)
        external
        returns (StreamId id);

    /// @notice Starts a reserved stream; by its operator.
    function startStream(StreamId id) external;

    /// @notice Changes a stream's rate and lock from now on; by its operator.
    function setRate(StreamId id, uint128 rate, uint32 lock) external;

    /// @notice Ends a stream: by its operator or the account's owner. Never needs funds. A payee leaves through the
    /// operator, which may have a say in how.
    function closeStream(StreamId id) external;

    /// @notice Ends a stream as of the second in which its account's clock stood at `clock`: what it accrued since goes
    /// back to the account, as far as it is still owed. By its operator, which has nothing from it.
    /// @return back What went back, in units.
    function cutStream(StreamId id, uint40 clock) external returns (uint128 back);

    /// @notice Pays `amount` tokens to `to` at once: by the owner, or by an operator within its approval.
    // slither-disable-next-line shadowing-local (a name in an interface)
    function pay(AccountId account, address to, uint256 amount) external;

    /// @notice Sends what each stream owes to its payee; anybody may call. A payee to which the token cannot be sent
    /// makes the whole call revert: collect the others without it.
    function collect(StreamId[] calldata ids) external;

    /// @notice The account as of now.
    function account(AccountId id) external view returns (AccountView memory);

    /// @notice When `id` last stopped being dry, because it was topped up or nothing runs any more, a Unix time; zero if it
    /// never was. From then on it was funded without a gap until `fundedUntil`.
    function resumedAt(AccountId id) external view returns (uint40);

    /// @notice Who owns `id`; zero if nobody does.
    function ownerOf(AccountId id) external view returns (address);

    /// @notice The stream as of now.
    function stream(StreamId id) external view returns (StreamView memory);

    /// @notice What `operator` may do with `id`.
    function approval(AccountId id, address operator) external view returns (Approval memory);
}
