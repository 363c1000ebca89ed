// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { AccountId, LeaseId } from "../types/Ids.sol";

/// @title Leases: quote → lease → closed
/// @notice The hub: it opens the stream that pays a lease, in Payments, and locks the coverage that backs it, in
/// Staking. A lease comes out of one call with a quote that the provider signed.
interface ILeases {
    /// @notice A provider's offer, signed as EIP-712 typed data (ERC-1271 for contract providers).
    /// @param provider Who offers and signs.
    /// @param account Whose account may use it; zero for any.
    /// @param lease The lease that it amends; zero for a new one.
    /// @param pod The hash of the canonical pod.
    /// @param rate Token base units × 1e9 per second.
    /// @param lock For how many seconds of the rate the payer's account stays locked.
    /// @param coverage What of the provider's bond backs the lease, in token base units.
    /// @param grace Seconds of outage that go without compensation.
    /// @param full Seconds of outage for which the whole coverage is due.
    /// @param response Seconds in which the provider answers a challenge; zero: it cannot be challenged.
    /// @param notice Seconds of notice after which the provider may close without a penalty.
    /// @param startWithin Seconds after the opening in which the pod has to be started.
    /// @param expiry The last second at which the quote can be used, a Unix time.
    /// @param version The version of the provider's listing under which it was made.
    /// @param nonce Chosen by the provider; a nonce is used at most once.
    struct Quote {
        address provider;
        AccountId account;
        LeaseId lease;
        bytes32 pod;
        uint128 rate;
        uint32 lock;
        uint128 coverage;
        uint24 grace;
        uint24 full;
        uint24 response;
        uint24 notice;
        uint24 startWithin;
        uint40 expiry;
        uint64 version;
        uint256 nonce;
    }

    /// @notice Where a lease stands.
    enum State {
        None,
        Pending,
        Active,
        Closed
    }

    /// @notice Why a lease was closed. The payer, the provider and everybody have reasons of their own.
    enum CloseReason {
        None,
        PayerDone,
        PayerMoved,
        PayerUnsatisfied,
        ProviderDraining,
        ProviderFault,
        ProviderPolicy,
        ProviderFull,
        ImageUnavailable,
        SecretsUnreadable,
        Unhealthy,
        StartMissed,
        AccountDry,
        StreamEnded,
        WentDark
    }

    /// @notice What is kept of a lease; its rate, lock, payer and provider are its stream's.
    /// @param state Where it stands.
    /// @param startBy The last second at which it may be activated, a Unix time.
    /// @param activatedAt When it was.
    /// @param endsAt When it was closed; while it is active, when the provider's notice runs out (zero for none).
    /// @param slot The slot of the account that it fills.
    /// @param reason Why it was closed.
    /// @param grace See `Quote`.
    /// @param full See `Quote`.
    /// @param response See `Quote`.
    /// @param notice See `Quote`.
    struct Lease {
        State state;
        uint40 startBy;
        uint40 activatedAt;
        uint40 endsAt;
        uint24 slot;
        CloseReason reason;
        uint24 grace;
        uint24 full;
        uint24 response;
        uint24 notice;
    }

    /// @notice A lease with what the other contracts know of it, as of now.
    /// @param lease What is kept here.
    /// @param account Who pays.
    /// @param payer Who owns that account.
    /// @param provider Who is paid.
    /// @param rate Units per second; zero once closed.
    /// @param lock Seconds of the rate that stay locked.
    /// @param owed Accrued and not yet collected, in units.
    /// @param coverage What is left of the coverage.
    /// @param fundedUntil When the account runs or ran dry.
    struct LeaseView {
        Lease lease;
        AccountId account;
        address payer;
        address provider;
        uint128 rate;
        uint32 lock;
        uint128 owed;
        uint128 coverage;
        uint40 fundedUntil;
    }

    /// @notice A lease was opened out of `quote` by `opener`.
    event Opened(
        LeaseId indexed id,
        address indexed provider,
        AccountId indexed account,
        uint32 slot,
        uint40 startBy,
        address opener,
        Quote quote
    );
    /// @notice The pod runs; the lease is paid from now on.
    event Activated(LeaseId indexed id);
    /// @notice The lease goes on under `quote`.
    event Amended(LeaseId indexed id, address indexed provider, address amender, Quote quote);
    /// @notice The provider will leave at `endsAt`.
    event NoticeGiven(LeaseId indexed id, CloseReason reason, uint40 endsAt);
    /// @notice The lease ended. `penalty` is what of the coverage was taken for leaving at once.
    event Closed(
        LeaseId indexed id, address indexed provider, address closer, CloseReason reason, uint256 penalty
    );
    /// @notice `agent` may, or may no longer, open, amend and close leases of `account`.
    event AgentSet(AccountId indexed account, address indexed agent, bool allowed);
    /// @notice `issuer` may, or may no longer, open and amend leases in the name of `provider` without its signature.
    event IssuerSet(address indexed provider, address indexed issuer, bool allowed);
    /// @notice The provider made these nonces unusable: bit i of `mask` stands for nonce `word × 256 + i`.
    event NoncesCancelled(address indexed provider, uint256 word, uint256 mask);

    /// @notice The quote could be used until `expiry`.
    error Leases_QuoteExpired(uint40 expiry);
    /// @notice The quote was used before, or the provider cancelled it.
    error Leases_QuoteUsed(address provider, uint256 nonce);
    /// @notice The quote is for `wanted`, not for `given`.
    error Leases_WrongAccount(AccountId wanted, AccountId given);
    /// @notice The quote is for lease `wanted` (zero: a new one), not for `given`.
    error Leases_WrongLease(LeaseId wanted, LeaseId given);
    /// @notice The provider has changed its listing since, from `quoted` to `current` (zero: not listed).
    error Leases_ListingChanged(address provider, uint64 quoted, uint64 current);
    /// @notice The signature is not the provider's.
    error Leases_BadSignature(address provider);
    /// @notice The outage terms do not make a curve: `grace` has to be below `full`.
    error Leases_BadTerms(uint24 grace, uint24 full);
    /// @notice `slot` is more than 2^24 - 1.
    error Leases_BadSlot(uint32 slot);
    /// @notice Only the contract that judges outages may do this.
    error Leases_NotSla(address caller);
    /// @notice Another lease is open in that slot.
    error Leases_SlotTaken(AccountId account, uint32 slot);
    /// @notice The lease is in another state than the call needs.
    error Leases_WrongState(LeaseId id, State state);
    /// @notice `caller` neither owns the account nor acts for its owner.
    error Leases_NotPayer(LeaseId id, AccountId account, address caller);
    /// @notice `caller` is not the lease's provider.
    error Leases_NotProvider(LeaseId id, address caller);
    /// @notice The time to start was over at `startBy`.
    error Leases_StartMissed(LeaseId id, uint40 startBy);
    /// @notice `caller` cannot close for this reason, or what it says is not the case.
    error Leases_ReasonRefused(LeaseId id, CloseReason reason, address caller);
    /// @notice An amendment cannot lower the coverage, from `current` to `offered`.
    error Leases_CoverageLowered(LeaseId id, uint128 current, uint128 offered);
    /// @notice Notice was given already, for `endsAt`.
    error Leases_NoticeGiven(LeaseId id, uint40 endsAt);

    /// @notice Opens a lease out of a quote, in a free slot of `account`: by its owner or an agent of the owner's.
    /// The account must let this contract open streams (`Payments.approve`). The provider signs the quote, unless it lets
    /// the caller issue leases in its name.
    function open(Quote calldata quote, bytes calldata signature, AccountId account, uint32 slot)
        external
        returns (LeaseId id);

    /// @notice Says that the pod runs, which starts the payment; by the provider.
    function activate(LeaseId id) external;

    /// @notice Changes pod, price or terms in place, as the provider offers and the payer asks.
    function amend(LeaseId id, Quote calldata quote, bytes calldata signature) external;

    /// @notice Announces that the provider leaves; after the lease's notice it can close without a penalty.
    function giveNotice(LeaseId id, CloseReason reason) external;

    /// @notice Closes a lease: by the payer at any time; by the provider before it is active or after its notice,
    /// else at the price of part of its coverage; by anybody when the start was missed, the account has been dry
    /// for longer than the lock or cannot start to pay, or the stream was ended in Payments,
    /// which is then the reason whatever is given.
    function close(LeaseId id, CloseReason reason) external;

    /// @notice Lets `agent` open, amend and close leases of an account of the caller's, or no longer.
    function setAgent(AccountId account, address agent, bool allowed) external;

    /// @notice Lets `issuer` open and amend leases in the caller's name without a signature, or no longer: a market that
    /// the caller bids on. It locks the caller's bond as far as the caller lets this contract do so.
    function setIssuer(address issuer, bool allowed) external;

    /// @notice Takes `amount` of a lease's coverage for its payer, less `reward` for `rewarded`; by the Sla contract.
    function compensate(LeaseId id, uint128 amount, address rewarded, uint128 reward) external;

    /// @notice Closes a lease whose provider went dark, unpaid from the second in which the account's clock stood at
    /// `clock`; by the Sla contract.
    function closeDark(LeaseId id, uint40 clock) external;

    /// @notice Makes quotes of the caller's unusable: bit i of `mask` stands for nonce `word × 256 + i`.
    function cancelNonces(uint256 word, uint256 mask) external;

    /// @notice What is kept of a lease.
    function lease(LeaseId id) external view returns (Lease memory);

    /// @notice Leases with all that is known of them.
    function leases(LeaseId[] calldata ids) external view returns (LeaseView[] memory);

    /// @notice The EIP-712 digest that a provider signs.
    function digest(Quote calldata quote) external view returns (bytes32);

    /// @notice Whether a nonce of `provider` is used up.
    function isNonceUsed(address provider, uint256 nonce) external view returns (bool);

    /// @notice Whether a lease is open in that slot.
    function isSlotTaken(AccountId account, uint32 slot) external view returns (bool);

    /// @notice Whether `issuer` may open leases in the name of `provider`.
    function isIssuer(address provider, address issuer) external view returns (bool);

    /// @notice Whether `who` owns `account` or acts for its owner.
    function isPayer(AccountId account, address who) external view returns (bool);

    /// @notice Whether `agent` may act for `account`.
    function isAgent(AccountId account, address agent) external view returns (bool);
}
