// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IApps } from "./interfaces/IApps.sol";
import { ILeases } from "./interfaces/ILeases.sol";
import { IPayments } from "./interfaces/IPayments.sol";
import { AccountId, AppId, LeaseId, StreamId, streamIdOf } from "./types/Ids.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";
import { MerkleProof } from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

/// @title Apps
/// @notice Apps, their names, keepers and limits; see IApps.
contract Apps is IApps, Multicall {
    /// @notice Who has nothing: where rents go.
    address public constant NOBODY = 0x000000000000000000000000000000000000dEaD;

    /// @notice Where replicas become leases.
    ILeases public immutable LEASES;
    /// @notice Who pays keepers and rents.
    IPayments public immutable PAYMENTS;
    /// @notice What a name costs, in units per second.
    uint128 public immutable RENT;
    /// @notice For how many seconds an account may be dry before the app's name is free.
    uint40 public immutable NAME_GRACE;
    /// @notice For how many seconds rents and fees stay locked in the account.
    uint32 public immutable STREAM_LOCK;

    /// @notice How many apps were ever registered.
    uint64 public count;

    mapping(AppId => App) private _apps;
    mapping(bytes32 name => AppId) private _names;

    /// @param leases Where replicas become leases.
    /// @param payments Who pays keepers and rents.
    /// @param rent What a name costs, in units per second.
    /// @param nameGrace For how many seconds an account may be dry before the app's name is free.
    /// @param streamLock For how many seconds rents and fees stay locked in the account.
    constructor(ILeases leases, IPayments payments, uint128 rent, uint40 nameGrace, uint32 streamLock) {
        if (rent == 0) revert Apps_Bad("rent");
        LEASES = leases;
        PAYMENTS = payments;
        RENT = rent;
        NAME_GRACE = nameGrace;
        STREAM_LOCK = streamLock;
    }

    /// @inheritdoc IApps
    // slither-disable-next-line reentrancy-no-eth,reentrancy-benign,reentrancy-events (Payments is our own and calls nobody back)
    function register(Registration calldata r) external returns (AppId id) {
        _requireLabel(r.name);
        if (bytes(r.uri).length > 256) revert Apps_Bad("uri");
        if (r.keeper == address(0)) revert Apps_Bad("keeper");
        _requireSlots(r.slot, r.limits.replicas);
        if (PAYMENTS.ownerOf(r.account) != msg.sender) revert Apps_NotOwner(AppId.wrap(0), msg.sender);
        bytes32 name = keccak256(bytes(r.name));
        AppId holder = _names[name];
        uint96 lost = 0;
        if (AppId.unwrap(holder) != 0) {
            if (!_isLapsed(holder)) revert Apps_NameTaken(r.name, holder);
            lost = _apps[holder].rent;
            (_apps[holder].name, _apps[holder].rent) = (0, 0);
            emit NameLost(holder, name);
        }
        id = AppId.wrap(++count);
        _names[name] = id;
        App storage a = _apps[id];
        a.owner = msg.sender;
        a.keeper = r.keeper;
        a.account = r.account;
        a.slot = r.slot;
        a.name = name;
        a.spec = r.spec;
        a.limits = r.limits;
        emit Registered(id, msg.sender, r.keeper, r);
        // Nobody goes on paying for a name that is no longer its own.
        _stop(lost);
        a.rent = _pay(id, a, NOBODY, RENT);
        if (r.fee != 0) a.fee = _pay(id, a, r.keeper, r.fee);
    }

    /// @inheritdoc IApps
    function setSpec(AppId id, bytes32 spec, string calldata uri) external {
        if (bytes(uri).length > 256) revert Apps_Bad("uri");
        _owned(id).spec = spec;
        emit SpecSet(id, spec, uri);
    }

    /// @inheritdoc IApps
    function setLimits(AppId id, Limits calldata limits) external {
        App storage a = _owned(id);
        _requireSlots(a.slot, limits.replicas);
        a.limits = limits;
        emit LimitsSet(id, limits);
    }

    /// @inheritdoc IApps
    // slither-disable-next-line reentrancy-no-eth (as in register)
    function setKeeper(AppId id, address keeper, uint128 fee) external {
        if (keeper == address(0)) revert Apps_Bad("keeper");
        App storage a = _owned(id);
        a.keeper = keeper;
        uint96 former = a.fee;
        a.fee = 0;
        emit KeeperSet(id, keeper, fee);
        _stop(former);
        if (fee != 0) a.fee = _pay(id, a, keeper, fee);
    }

    /// @inheritdoc IApps
    function retire(AppId id) external {
        App storage a = _owned(id);
        bytes32 name = a.name;
        (uint96 rent, uint96 fee) = (a.rent, a.fee);
        if (name != 0) _names[name] = AppId.wrap(0);
        delete _apps[id];
        emit Retired(id);
        _stop(rent);
        _stop(fee);
    }

    /// @inheritdoc IApps
    // slither-disable-next-line reentrancy-events (Leases is our own; the event names the lease that it made)
    function deploy(
        AppId id,
        uint16 replica,
        ILeases.Quote calldata quote,
        bytes calldata signature,
        bytes32[] calldata proof
    ) external returns (LeaseId lease) {
        App storage a = _kept(id);
        uint16 replicas = a.limits.replicas;
        if (replica >= replicas) revert Apps_TooMany(id, replica, replicas);
        _requireAllowed(id, a, quote, proof);
        lease = LEASES.open(quote, signature, a.account, a.slot + replica);
        emit Deployed(id, replica, lease, msg.sender);
    }

    /// @inheritdoc IApps
    function amend(
        AppId id,
        LeaseId lease,
        ILeases.Quote calldata quote,
        bytes calldata signature,
        bytes32[] calldata proof
    ) external {
        App storage a = _kept(id);
        _requireOf(id, a, lease);
        _requireAllowed(id, a, quote, proof);
        LEASES.amend(lease, quote, signature);
    }

    /// @inheritdoc IApps
    function close(AppId id, LeaseId lease, ILeases.CloseReason reason) external {
        _requireOf(id, _kept(id), lease);
        LEASES.close(lease, reason);
    }

    /// @inheritdoc IApps
    function appOf(AppId id) external view returns (App memory) {
        return _apps[id];
    }

    /// @inheritdoc IApps
    function named(string calldata name) external view returns (AppId) {
        return _names[keccak256(bytes(name))];
    }

    /// @inheritdoc IApps
    function isFree(string calldata name) external view returns (bool) {
        AppId holder = _names[keccak256(bytes(name))];
        return AppId.unwrap(holder) == 0 || _isLapsed(holder);
    }

    /// @dev Opens a stream of the app's: its number is the app's and how many there were.
    function _pay(AppId id, App storage a, address payee, uint128 rate) private returns (uint96 ref) {
        ref = uint96(AppId.unwrap(id)) << 32 | ++a.streams;
        // slither-disable-next-line unused-return (the stream is named by the ref that was chosen)
        PAYMENTS.openStream(a.account, ref, payee, rate, STREAM_LOCK, true);
    }

    /// @dev Ends a stream, unless the account's owner has done so.
    function _stop(uint96 ref) private {
        if (ref == 0) return;
        StreamId id = streamIdOf(address(this), ref);
        if (PAYMENTS.stream(id).state == IPayments.StreamState.Running) PAYMENTS.closeStream(id);
    }

    /// @dev Whether a name is not paid for any more, for long enough.
    function _isLapsed(AppId id) private view returns (bool) {
        App storage a = _apps[id];
        IPayments.StreamView memory s = PAYMENTS.stream(streamIdOf(address(this), a.rent));
        if (s.state != IPayments.StreamState.Running) return true;
        return block.timestamp > uint256(PAYMENTS.account(a.account).fundedUntil) + NAME_GRACE;
    }

    function _requireAllowed(AppId id, App storage a, ILeases.Quote calldata quote, bytes32[] calldata proof)
        private
        view
    {
        Limits memory limits = a.limits;
        if (quote.rate > limits.maxRate) revert Apps_TooDear(id, quote.rate, limits.maxRate);
        if (quote.lock > limits.maxLock) revert Apps_LockTooLong(id, quote.lock, limits.maxLock);
        if (!MerkleProof.verifyCalldata(proof, limits.pods, quote.pod)) {
            revert Apps_PodNotAllowed(id, quote.pod);
        }
    }

    /// @dev A lease is the app's if it fills one of its slots; what the limits were then does not matter.
    function _requireOf(AppId id, App storage a, LeaseId lease) private view {
        LeaseId[] memory ids = new LeaseId[](1);
        ids[0] = lease;
        ILeases.LeaseView memory v = LEASES.leases(ids)[0];
        bool ours = v.account == a.account && v.lease.slot >= a.slot
            && v.lease.slot < uint256(a.slot) + a.limits.replicas;
        if (!ours && !(msg.sender == a.owner && v.account == a.account)) revert Apps_NotOfApp(id, lease);
    }

    function _owned(AppId id) private view returns (App storage a) {
        a = _apps[id];
        if (a.owner == address(0)) revert Apps_NoApp(id);
        if (msg.sender != a.owner) revert Apps_NotOwner(id, msg.sender);
    }

    function _kept(AppId id) private view returns (App storage a) {
        a = _apps[id];
        if (a.owner == address(0)) revert Apps_NoApp(id);
        if (msg.sender != a.keeper && msg.sender != a.owner) revert Apps_NotKeeper(id, msg.sender);
    }

    function _requireSlots(uint24 slot, uint16 replicas) private pure {
        if (replicas == 0 || uint256(slot) + replicas > type(uint24).max) revert Apps_Bad("replicas");
    }

    /// @dev RFC 1035, as RFC 1123 relaxes it: letters, digits and hyphens, which are neither first nor last.
    function _requireLabel(string calldata name) private pure {
        bytes calldata label = bytes(name);
        uint256 length = label.length;
        if (length == 0 || length > 63 || label[0] == "-" || label[length - 1] == "-") {
            revert Apps_BadName(name);
        }
        for (uint256 i = 0; i < length; ++i) {
            bytes1 c = label[i];
            bool plain = (c >= "a" && c <= "z") || (c >= "0" && c <= "9") || c == "-";
            if (!plain) revert Apps_BadName(name);
        }
    }
}
