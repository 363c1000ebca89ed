// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @title Registry: who provides, where, for how much, and since when it was last heard of
/// @notice A provider lists itself. What it says here is its own word; the price of a lease is what its signed
/// quote says, and a quote names the version of this listing under which it was made.
interface IRegistry {
    /// @notice A price list, in token base units × 1e9 per second.
    /// @param cpu Per thousandth of a core.
    /// @param memoryMiB Per MiB of memory.
    /// @param storageMiB Per MiB of volume.
    struct Prices {
        uint128 cpu;
        uint128 memoryMiB;
        uint128 storageMiB;
    }

    /// @notice What a provider says of itself.
    /// @param endpoint Its API, `https://host:port`, at most 256 bytes.
    /// @param region Where its machines are, at most 64 bytes.
    /// @param prices Its price list.
    /// @param tlsKey SHA-256 of the SubjectPublicKeyInfo that its API answers with (RFC 7469).
    /// @param sealKey Its X25519 key, to which secrets are sealed (RFC 9180).
    /// @param measurement The measurement that it claims to be able to attest; zero for none.
    struct Listing {
        string endpoint;
        string region;
        Prices prices;
        bytes32 tlsKey;
        bytes32 sealKey;
        bytes32 measurement;
    }

    /// @notice A listing and its life.
    /// @param listing What the provider says of itself.
    /// @param version How often it was changed, from 1; it goes on after a delisting.
    /// @param seenAt When the provider was last heard of, a Unix time.
    /// @param listed Whether it is listed.
    /// @param live Whether it is listed and was heard of within `TTL`.
    struct ProviderView {
        Listing listing;
        uint64 version;
        uint40 seenAt;
        bool listed;
        bool live;
    }

    /// @notice `provider` lists itself, or changed what it says.
    event Listed(address indexed provider, uint64 version, Listing listing);
    /// @notice `provider` takes no new leases.
    event Delisted(address indexed provider, uint64 version);
    /// @notice `provider` is alive.
    event Heartbeat(address indexed provider);

    /// @notice `auditor` vouches until `expiry` that `provider` has `attribute` (zero: no longer).
    event Vouched(
        address indexed provider, address indexed auditor, bytes32 indexed attribute, uint40 expiry
    );

    /// @notice `provider` is not listed.
    error Registry_NotListed(address provider);
    /// @notice `field` is `length` bytes long, and has to have 1 to `limit`.
    error Registry_BadLength(string field, uint256 length, uint256 limit);
    /// @notice A key that is needed is zero.
    error Registry_NoKey(string field);

    /// @notice Lists the caller, or replaces its listing; it also counts as a heartbeat.
    function list(Listing calldata listing) external;

    /// @notice Takes the caller off the list. Its leases go on.
    function delist() external;

    /// @notice Says that the caller is alive.
    function heartbeat() external;

    /// @notice Vouches until `expiry`, a Unix time, that `provider` has `attribute`, the hash of a name; zero takes it back.
    /// A provider may vouch for itself; who counts for how much is for the reader to say.
    function vouch(address provider, bytes32 attribute, uint40 expiry) external;

    /// @notice Until when `auditor` vouches that `provider` has `attribute`, a Unix time; zero if it does not.
    function vouchedUntil(address provider, address auditor, bytes32 attribute) external view returns (uint40);

    /// @notice The listing of `provider`.
    function listingOf(address provider) external view returns (ProviderView memory);

    /// @notice The version of the listing of `provider` if it is listed, else zero.
    function versionOf(address provider) external view returns (uint64);
}
