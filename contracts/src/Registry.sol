// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IRegistry } from "./interfaces/IRegistry.sol";
import { Multicall } from "@openzeppelin/contracts/utils/Multicall.sol";

/// @title Registry
/// @notice Providers and their listings; see IRegistry.
contract Registry is IRegistry, Multicall {
    /// @notice For how long after it was last heard of a provider counts as live, in seconds.
    uint40 public immutable TTL;

    struct Life {
        uint64 version;
        uint40 seenAt;
        bool listed;
    }

    mapping(address provider => Life) private _lives;
    mapping(address provider => Listing) private _listings;

    /// @inheritdoc IRegistry
    mapping(address provider => mapping(address auditor => mapping(bytes32 attribute => uint40))) public
        vouchedUntil;

    /// @param ttl For how long a provider counts as live after it was last heard of, in seconds.
    constructor(uint40 ttl) {
        TTL = ttl;
    }

    /// @inheritdoc IRegistry
    function list(Listing calldata listing) external {
        _requireLength("endpoint", bytes(listing.endpoint).length, 256);
        _requireLength("region", bytes(listing.region).length, 64);
        if (listing.tlsKey == 0) revert Registry_NoKey("tlsKey");
        if (listing.sealKey == 0) revert Registry_NoKey("sealKey");
        Life storage life = _lives[msg.sender];
        uint64 version = life.version + 1;
        _lives[msg.sender] = Life(version, uint40(block.timestamp), true);
        _listings[msg.sender] = listing;
        emit Listed(msg.sender, version, listing);
    }

    /// @inheritdoc IRegistry
    function delist() external {
        Life storage life = _lives[msg.sender];
        if (!life.listed) revert Registry_NotListed(msg.sender);
        life.listed = false;
        life.version += 1;
        delete _listings[msg.sender];
        emit Delisted(msg.sender, life.version);
    }

    /// @inheritdoc IRegistry
    function heartbeat() external {
        Life storage life = _lives[msg.sender];
        if (!life.listed) revert Registry_NotListed(msg.sender);
        life.seenAt = uint40(block.timestamp);
        emit Heartbeat(msg.sender);
    }

    /// @inheritdoc IRegistry
    function vouch(address provider, bytes32 attribute, uint40 expiry) external {
        vouchedUntil[provider][msg.sender][attribute] = expiry;
        emit Vouched(provider, msg.sender, attribute, expiry);
    }

    /// @inheritdoc IRegistry
    function listingOf(address who) external view returns (ProviderView memory) {
        Life storage life = _lives[who];
        bool live = life.listed && block.timestamp <= uint256(life.seenAt) + TTL;
        return ProviderView(_listings[who], life.version, life.seenAt, life.listed, live);
    }

    /// @inheritdoc IRegistry
    function versionOf(address who) external view returns (uint64) {
        Life storage life = _lives[who];
        return life.listed ? life.version : 0;
    }

    function _requireLength(string memory field, uint256 length, uint256 limit) private pure {
        if (length == 0 || length > limit) revert Registry_BadLength(field, length, limit);
    }
}
