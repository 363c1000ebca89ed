// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @notice A funded account in Payments: keccak256(abi.encode(owner, salt)).
type AccountId is bytes32;

/// @notice A payment stream: `operator << 96 | ref`. The operator that opened it is part of its id, so no call
/// can mistake whose stream it is, and no storage is spent on saying so.
type StreamId is uint256;

/// @notice A lease in Leases, counted from 1. It is also the `ref` of its stream and of its coverage lock.
type LeaseId is uint64;

/// @notice An order in Auction, counted from 1.
type OrderId is uint64;

/// @notice An app in Apps, counted from 1.
type AppId is uint64;

using { eqAccountId as == } for AccountId global;
using { neLeaseId as != } for LeaseId global;

function eqAccountId(AccountId a, AccountId b) pure returns (bool) {
    return AccountId.unwrap(a) == AccountId.unwrap(b);
}

function neLeaseId(LeaseId a, LeaseId b) pure returns (bool) {
    return LeaseId.unwrap(a) != LeaseId.unwrap(b);
}

/// @notice The account of `owner` under `salt`.
function accountIdOf(address owner, bytes32 salt) pure returns (AccountId) {
    return AccountId.wrap(keccak256(abi.encode(owner, salt)));
}

/// @notice The stream that `operator` opened under `ref`.
function streamIdOf(address operator, uint96 ref) pure returns (StreamId) {
    return StreamId.wrap(uint256(uint160(operator)) << 96 | ref);
}

/// @notice The operator that opened `id`.
function operatorOf(StreamId id) pure returns (address) {
    return address(uint160(StreamId.unwrap(id) >> 96));
}
