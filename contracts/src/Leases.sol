// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Sla } from "./Sla.sol";
import { ILeases } from "./interfaces/ILeases.sol";
import { IPayments } from "./interfaces/IPayments.sol";
import { IRegistry } from "./interfaces/IRegistry.sol";
import { ISla } from "./interfaces/ISla.sol";
import { IStaking } from "./interfaces/IStaking.sol";
import { AccountId, LeaseId, StreamId, streamIdOf } from "./types/Ids.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";
import { EIP712 } from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import { SignatureChecker } from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Leases
/// @notice Quote → lease → closed; see ILeases.
contract Leases is ILeases, EIP712, Multicall {
    /// @notice The EIP-712 type of a quote.
    bytes32 public constant QUOTE_TYPEHASH = keccak256(
        "Quote(address provider,bytes32 account,uint64 lease,bytes32 pod,uint128 rate,uint32 lock,uint128 coverage,uint24 grace,uint24 full,uint24 response,uint24 notice,uint24 startWithin,uint40 expiry,uint64 version,uint256 nonce)"
    );

    /// @notice Who pays and collects.
    IPayments public immutable PAYMENTS;
    /// @notice Where coverage is locked.
    IStaking public immutable STAKING;
    /// @notice Where providers are listed.
    IRegistry public immutable REGISTRY;
    /// @notice Who judges outages. This contract deploys it, so that each knows the other and nobody has to say so later.
    Sla public immutable SLA;
    /// @notice For how long after its close a lease's coverage can still be claimed, in seconds.
    uint40 public immutable CLAIM_WINDOW;
    /// @notice What of the coverage a provider loses that leaves at once, in basis points.
    uint256 public immutable EARLY_CLOSE_BPS;

    /// @notice How many leases were ever opened.
    uint64 public count;

    mapping(LeaseId => Lease) private _leases;
    mapping(AccountId => mapping(uint256 word => uint256 bits)) private _slots;
    mapping(address provider => mapping(uint256 word => uint256 bits)) private _nonces;
    mapping(AccountId => mapping(address agent => bool)) private _agents;

    /// @inheritdoc ILeases
    mapping(address provider => mapping(address issuer => bool)) public isIssuer;

    /// @param payments Who pays and collects.
    /// @param staking Where coverage is locked.
    /// @param registry Where providers are listed.
    /// @param claimWindow For how long after its close a lease's coverage can be claimed, in seconds.
    /// @param earlyCloseBps What of the coverage a provider loses that leaves at once, at most 10,000.
    /// @param terms How outages are judged.
    constructor(
        IPayments payments,
        IStaking staking,
        IRegistry registry,
        uint40 claimWindow,
        uint256 earlyCloseBps,
        ISla.Terms memory terms
    ) EIP712("Roadstead Leases", "1") {
        require(earlyCloseBps <= 10_000, "earlyCloseBps is more than 10,000");
        PAYMENTS = payments;
        STAKING = staking;
        REGISTRY = registry;
        CLAIM_WINDOW = claimWindow;
        EARLY_CLOSE_BPS = earlyCloseBps;
        SLA = new Sla(this, payments, staking, claimWindow, terms);
    }

    /// @inheritdoc ILeases
    function open(Quote calldata quote, bytes calldata signature, AccountId account, uint32 slot)
        external
        returns (LeaseId id)
    {
        if (slot > type(uint24).max) revert Leases_BadSlot(slot);
        id = LeaseId.wrap(++count);
        _requirePayer(id, account);
        _useQuote(quote, signature, account, LeaseId.wrap(0));
        uint256 bit = 1 << (slot & 0xff);
        uint256 taken = _slots[account][slot >> 8];
        if (taken & bit != 0) revert Leases_SlotTaken(account, slot);
        _slots[account][slot >> 8] = taken | bit;

        uint40 startBy = uint40(block.timestamp) + quote.startWithin;
        _leases[id] = Lease(
            State.Pending,
            startBy,
            0,
            0,
            // forge-lint: disable-next-line(unsafe-typecast)
            uint24(slot),
            CloseReason.None,
            quote.grace,
            quote.full,
            quote.response,
            quote.notice
        );
        emit Opened(id, quote.provider, account, slot, startBy, msg.sender, quote);

        // slither-disable-next-line unused-return (the stream is named by the lease)
        PAYMENTS.openStream(account, _ref(id), quote.provider, quote.rate, quote.lock, false);
        if (quote.coverage != 0) STAKING.lock(quote.provider, _ref(id), quote.coverage);
    }

    /// @inheritdoc ILeases
    function activate(LeaseId id) external {
        Lease storage l = _leases[id];
        if (l.state != State.Pending) revert Leases_WrongState(id, l.state);
        if (block.timestamp > l.startBy) revert Leases_StartMissed(id, l.startBy);
        l.state = State.Active;
        l.activatedAt = uint40(block.timestamp);
        emit Activated(id);
        if (PAYMENTS.stream(_stream(id)).payee != msg.sender) revert Leases_NotProvider(id, msg.sender);
        PAYMENTS.startStream(_stream(id));
    }

    /// @inheritdoc ILeases
    function amend(LeaseId id, Quote calldata quote, bytes calldata signature) external {
        Lease storage l = _leases[id];
        if (l.state != State.Pending && l.state != State.Active) revert Leases_WrongState(id, l.state);
        IPayments.StreamView memory s = PAYMENTS.stream(_stream(id));
        _requirePayer(id, s.account);
        if (quote.provider != s.payee) revert Leases_NotProvider(id, quote.provider);
        _useQuote(quote, signature, s.account, id);
        uint128 coverage = STAKING.lockOf(s.payee, address(this), _ref(id)).amount;
        if (quote.coverage < coverage) revert Leases_CoverageLowered(id, coverage, quote.coverage);
        (l.grace, l.full, l.response, l.notice) = (quote.grace, quote.full, quote.response, quote.notice);
        emit Amended(id, s.payee, msg.sender, quote);

        PAYMENTS.setRate(_stream(id), quote.rate, quote.lock);
        if (quote.coverage != coverage) STAKING.lock(s.payee, _ref(id), quote.coverage - coverage);
    }

    /// @inheritdoc ILeases
    function giveNotice(LeaseId id, CloseReason reason) external {
        Lease storage l = _leases[id];
        if (l.state != State.Active) revert Leases_WrongState(id, l.state);
        if (l.endsAt != 0) revert Leases_NoticeGiven(id, l.endsAt);
        if (!_isProviders(reason)) revert Leases_ReasonRefused(id, reason, msg.sender);
        if (PAYMENTS.stream(_stream(id)).payee != msg.sender) revert Leases_NotProvider(id, msg.sender);
        uint40 endsAt = uint40(block.timestamp) + l.notice;
        l.endsAt = endsAt;
        emit NoticeGiven(id, reason, endsAt);
    }

    /// @inheritdoc ILeases
    function close(LeaseId id, CloseReason reason) external {
        Lease storage l = _leases[id];
        State state = l.state;
        if (state != State.Pending && state != State.Active) revert Leases_WrongState(id, state);
        IPayments.StreamView memory s = PAYMENTS.stream(_stream(id));
        bool early = _authorizeClose(id, l, s, reason);
        // A payer that ended the stream itself has no missed start to be paid for, and no outage from then on.
        if (s.state == IPayments.StreamState.Closed) reason = CloseReason.StreamEnded;

        uint128 coverage = STAKING.lockOf(s.payee, address(this), _ref(id)).amount;
        // Rounded down: the payer is the one who takes out. It fits, being at most the coverage.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint128 penalty = early ? uint128(coverage * EARLY_CLOSE_BPS / 10_000) : 0;
        _close(id, l, s, reason, penalty);

        if (s.state != IPayments.StreamState.Closed) PAYMENTS.closeStream(_stream(id));
        if (penalty != 0) {
            address payer = PAYMENTS.ownerOf(s.account);
            STAKING.slash(s.payee, _ref(id), penalty, payer, address(0), 0);
        }
        // Nothing can be claimed for a pod that never ran.
        uint40 claimable = state == State.Active ? CLAIM_WINDOW : 0;
        if (coverage != 0) STAKING.release(s.payee, _ref(id), uint40(block.timestamp) + claimable);
    }

    /// @inheritdoc ILeases
    function compensate(LeaseId id, uint128 amount, address rewarded, uint128 reward) external {
        if (msg.sender != address(SLA)) revert Leases_NotSla(msg.sender);
        IPayments.StreamView memory s = PAYMENTS.stream(_stream(id));
        STAKING.slash(s.payee, _ref(id), amount, PAYMENTS.ownerOf(s.account), rewarded, reward);
    }

    /// @inheritdoc ILeases
    function closeDark(LeaseId id, uint40 clock) external {
        if (msg.sender != address(SLA)) revert Leases_NotSla(msg.sender);
        Lease storage l = _leases[id];
        if (l.state != State.Active) revert Leases_WrongState(id, l.state);
        IPayments.StreamView memory s = PAYMENTS.stream(_stream(id));
        _close(id, l, s, CloseReason.WentDark, 0);
        // slither-disable-next-line unused-return (what goes back is in the event of Payments)
        if (s.state != IPayments.StreamState.Closed) PAYMENTS.cutStream(_stream(id), clock);
        STAKING.release(s.payee, _ref(id), uint40(block.timestamp) + CLAIM_WINDOW);
    }

    /// @inheritdoc ILeases
    function setAgent(AccountId account, address agent, bool allowed) external {
        if (PAYMENTS.ownerOf(account) != msg.sender) {
            revert Leases_NotPayer(LeaseId.wrap(0), account, msg.sender);
        }
        _agents[account][agent] = allowed;
        emit AgentSet(account, agent, allowed);
    }

    /// @inheritdoc ILeases
    function setIssuer(address issuer, bool allowed) external {
        isIssuer[msg.sender][issuer] = allowed;
        emit IssuerSet(msg.sender, issuer, allowed);
    }

    /// @inheritdoc ILeases
    function cancelNonces(uint256 word, uint256 mask) external {
        _nonces[msg.sender][word] |= mask;
        emit NoncesCancelled(msg.sender, word, mask);
    }

    /// @inheritdoc ILeases
    function lease(LeaseId id) external view returns (Lease memory) {
        return _leases[id];
    }

    /// @inheritdoc ILeases
    function leases(LeaseId[] calldata ids) external view returns (LeaseView[] memory views) {
        views = new LeaseView[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            // slither-disable-next-line calls-loop (a view, for as many as the caller asks)
            IPayments.StreamView memory s = PAYMENTS.stream(_stream(ids[i]));
            // slither-disable-next-line calls-loop (as above)
            IPayments.AccountView memory a = PAYMENTS.account(s.account);
            // slither-disable-next-line calls-loop (as above)
            uint128 coverage = STAKING.lockOf(s.payee, address(this), _ref(ids[i])).amount;
            views[i] = LeaseView(
                _leases[ids[i]], s.account, a.owner, s.payee, s.rate, s.lock, s.owed, coverage, a.fundedUntil
            );
        }
    }

    /// @inheritdoc ILeases
    function digest(Quote calldata quote) external view returns (bytes32) {
        return _digest(quote);
    }

    /// @inheritdoc ILeases
    function isNonceUsed(address provider, uint256 nonce) external view returns (bool) {
        return _nonces[provider][nonce >> 8] & (1 << (nonce & 0xff)) != 0;
    }

    /// @inheritdoc ILeases
    function isSlotTaken(AccountId account, uint32 slot) external view returns (bool) {
        return _slots[account][slot >> 8] & (1 << (slot & 0xff)) != 0;
    }

    /// @inheritdoc ILeases
    function isPayer(AccountId account, address who) external view returns (bool) {
        return _isPayer(account, who);
    }

    /// @inheritdoc ILeases
    function isAgent(AccountId account, address agent) external view returns (bool) {
        return _agents[account][agent];
    }

    /// @dev Checks a quote and uses up its nonce.
    function _useQuote(Quote calldata quote, bytes calldata signature, AccountId account, LeaseId id)
        private
    {
        if (block.timestamp > quote.expiry) revert Leases_QuoteExpired(quote.expiry);
        if (quote.lease != id) revert Leases_WrongLease(quote.lease, id);
        if (AccountId.unwrap(quote.account) != 0 && !(quote.account == account)) {
            revert Leases_WrongAccount(quote.account, account);
        }
        if (quote.full != 0 && quote.grace >= quote.full) revert Leases_BadTerms(quote.grace, quote.full);
        uint64 version = REGISTRY.versionOf(quote.provider);
        if (version == 0 || version != quote.version) {
            revert Leases_ListingChanged(quote.provider, quote.version, version);
        }
        // Who lets the caller issue in its name has nothing to sign.
        if (isIssuer[quote.provider][msg.sender]) return;
        uint256 bit = 1 << (quote.nonce & 0xff);
        uint256 used = _nonces[quote.provider][quote.nonce >> 8];
        if (used & bit != 0) revert Leases_QuoteUsed(quote.provider, quote.nonce);
        _nonces[quote.provider][quote.nonce >> 8] = used | bit;
        if (!SignatureChecker.isValidSignatureNow(quote.provider, _digest(quote), signature)) {
            revert Leases_BadSignature(quote.provider);
        }
    }

    /// @dev Lets `close` through or reverts. True if the provider leaves without having given notice.
    function _authorizeClose(LeaseId id, Lease storage l, IPayments.StreamView memory s, CloseReason reason)
        private
        view
        returns (bool early)
    {
        if (s.state == IPayments.StreamState.Closed) return false;
        if (reason == CloseReason.None) revert Leases_ReasonRefused(id, reason, msg.sender);
        if (reason <= CloseReason.PayerUnsatisfied) {
            _requirePayer(id, s.account);
            return false;
        }
        if (_isProviders(reason)) {
            if (s.payee != msg.sender) revert Leases_NotProvider(id, msg.sender);
            bool noticed = l.endsAt != 0 && block.timestamp >= l.endsAt;
            return l.state == State.Active && !noticed;
        }
        bool holds = false;
        if (reason == CloseReason.StartMissed) {
            holds = l.state == State.Pending && block.timestamp > l.startBy;
        } else if (reason == CloseReason.AccountDry) {
            IPayments.AccountView memory a = PAYMENTS.account(s.account);
            // A lease that its account cannot start to pay for is nobody's fault but the payer's.
            holds = l.state == State.Pending
                ? block.timestamp > a.fundedUntil || a.free < a.lockup
                : block.timestamp > uint256(a.fundedUntil) + s.lock;
        }
        if (!holds) revert Leases_ReasonRefused(id, reason, msg.sender);
    }

    /// @dev Marks a lease as closed and frees its slot.
    function _close(
        LeaseId id,
        Lease storage l,
        IPayments.StreamView memory s,
        CloseReason reason,
        uint128 penalty
    ) private {
        l.state = State.Closed;
        l.reason = reason;
        l.endsAt = uint40(block.timestamp);
        _slots[s.account][l.slot >> 8] &= ~(1 << (l.slot & 0xff));
        emit Closed(id, s.payee, msg.sender, reason, penalty);
    }

    function _requirePayer(LeaseId id, AccountId account) private view {
        if (!_isPayer(account, msg.sender)) revert Leases_NotPayer(id, account, msg.sender);
    }

    function _isPayer(AccountId account, address who) private view returns (bool) {
        return PAYMENTS.ownerOf(account) == who || _agents[account][who];
    }

    function _isProviders(CloseReason reason) private pure returns (bool) {
        return reason >= CloseReason.ProviderDraining && reason <= CloseReason.Unhealthy;
    }

    function _digest(Quote calldata quote) private view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(QUOTE_TYPEHASH, quote)));
    }

    function _ref(LeaseId id) private pure returns (uint96) {
        return LeaseId.unwrap(id);
    }

    function _stream(LeaseId id) private view returns (StreamId) {
        return streamIdOf(address(this), _ref(id));
    }
}
