// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { AccountId, AppId, LeaseId } from "../types/Ids.sol";
import { ILeases } from "./ILeases.sol";

/// @title Apps: what keepers keep deployed
/// @notice An owner says what its app may cost and who keeps it. A keeper deploys only through this contract, within
/// those limits: a rogue one can take nothing, and waste no more than the owner allowed. The owner lets this contract
/// act for the app's account (`Leases.setAgent`) and open streams (`Payments.approve`).
interface IApps {
    /// @notice What a keeper may do.
    /// @param replicas How many leases at once; replica n fills slot `slot + n` of the account.
    /// @param maxRate The most that one of them may cost, in units per second.
    /// @param maxLock The longest lock, in seconds.
    /// @param pods The pods that may run: the root of a Merkle tree of their hashes, or the hash of the only one.
    struct Limits {
        uint16 replicas;
        uint32 maxLock;
        uint128 maxRate;
        bytes32 pods;
    }

    /// @notice An app.
    /// @param owner Who owns it.
    /// @param keeper Who keeps it.
    /// @param account The account that pays.
    /// @param slot The account's first slot that is the app's.
    /// @param streams How many streams it has had.
    /// @param rent The reference of the stream that pays its name's rent; zero once that is lost.
    /// @param fee The reference of the stream that pays its keeper; zero for none.
    /// @param name The hash of its name; zero once that is lost.
    /// @param spec The hash of what its keeper goes by.
    /// @param limits What its keeper may do.
    struct App {
        address owner;
        address keeper;
        AccountId account;
        uint24 slot;
        uint32 streams;
        uint96 rent;
        uint96 fee;
        bytes32 name;
        bytes32 spec;
        Limits limits;
    }

    /// @notice What registering takes.
    /// @param account The account that pays; the caller's.
    /// @param slot The account's first slot that is the app's.
    /// @param name A DNS label that no other app has.
    /// @param spec The hash of what its keeper goes by.
    /// @param uri Where that can be had, at most 256 bytes.
    /// @param keeper Who keeps it.
    /// @param fee What the keeper is paid, in units per second; may be zero.
    /// @param limits What the keeper may do.
    struct Registration {
        AccountId account;
        uint24 slot;
        string name;
        bytes32 spec;
        string uri;
        address keeper;
        uint128 fee;
        Limits limits;
    }

    /// @notice An app was registered.
    event Registered(AppId indexed id, address indexed owner, address indexed keeper, Registration app);
    /// @notice The app lost its name: it did not pay for it, and somebody else took it, or its owner gave it up.
    event NameLost(AppId indexed id, bytes32 indexed name);
    /// @notice The app goes by another spec.
    event SpecSet(AppId indexed id, bytes32 spec, string uri);
    /// @notice The keeper may do other things.
    event LimitsSet(AppId indexed id, Limits limits);
    /// @notice Somebody else keeps the app, or for another fee. Its leases run on.
    event KeeperSet(AppId indexed id, address indexed keeper, uint128 fee);
    /// @notice `by` deployed a replica.
    event Deployed(AppId indexed id, uint16 indexed replica, LeaseId indexed lease, address by);
    /// @notice The owner gave the app up. Its leases run on until it closes them.
    event Retired(AppId indexed id);

    /// @notice There is no such app, or not any more.
    error Apps_NoApp(AppId id);
    /// @notice `caller` does not own the app, or its account.
    error Apps_NotOwner(AppId id, address caller);
    /// @notice `caller` neither keeps nor owns the app.
    error Apps_NotKeeper(AppId id, address caller);
    /// @notice `name` is not a DNS label: lower-case letters, digits and inner hyphens, at most 63.
    error Apps_BadName(string name);
    /// @notice The name is app `holder`'s.
    error Apps_NameTaken(string name, AppId holder);
    /// @notice A field is out of its range.
    error Apps_Bad(string field);
    /// @notice Replica `replica` is not among the `replicas` that are allowed.
    error Apps_TooMany(AppId id, uint16 replica, uint16 replicas);
    /// @notice `rate` units per second are more than `limit`.
    error Apps_TooDear(AppId id, uint128 rate, uint128 limit);
    /// @notice A lock of `lock` seconds is longer than `limit`.
    error Apps_LockTooLong(AppId id, uint32 lock, uint32 limit);
    /// @notice The pod is not among those that are allowed.
    error Apps_PodNotAllowed(AppId id, bytes32 pod);
    /// @notice The lease is not one of the app's.
    error Apps_NotOfApp(AppId id, LeaseId lease);

    /// @notice Registers an app of the caller's. Its name costs a rent, which is streamed to nobody: it keeps people from
    /// hoarding names, and earns nobody anything. A name whose account has been dry for too long, or whose rent was
    /// ended, is taken over.
    function register(Registration calldata app) external returns (AppId id);

    /// @notice Says what the keeper goes by from now on; by the owner.
    function setSpec(AppId id, bytes32 spec, string calldata uri) external;

    /// @notice Says what the keeper may do from now on; by the owner. What runs is not touched.
    function setLimits(AppId id, Limits calldata limits) external;

    /// @notice Says who keeps the app from now on, and for how much; by the owner. What runs is not touched.
    function setKeeper(AppId id, address keeper, uint128 fee) external;

    /// @notice Gives the app and its name up, and ends its streams; by the owner. What runs is not touched.
    function retire(AppId id) external;

    /// @notice Opens a lease for a replica; by the keeper or the owner. A replica has one lease at a time, so the second of
    /// two keepers only loses a transaction.
    /// @param proof That the quote's pod is among those that are allowed.
    function deploy(
        AppId id,
        uint16 replica,
        ILeases.Quote calldata quote,
        bytes calldata signature,
        bytes32[] calldata proof
    ) external returns (LeaseId lease);

    /// @notice Amends a lease of the app's, within its limits; by the keeper or the owner.
    function amend(
        AppId id,
        LeaseId lease,
        ILeases.Quote calldata quote,
        bytes calldata signature,
        bytes32[] calldata proof
    ) external;

    /// @notice Closes a lease of the app's; by the keeper or the owner.
    function close(AppId id, LeaseId lease, ILeases.CloseReason reason) external;

    /// @notice An app.
    function appOf(AppId id) external view returns (App memory);

    /// @notice Who has the name; zero if nobody does.
    function named(string calldata name) external view returns (AppId);

    /// @notice Whether the name can be registered: nobody has it, or whoever does has not paid for it for too long.
    function isFree(string calldata name) external view returns (bool);
}
