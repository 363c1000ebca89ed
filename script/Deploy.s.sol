// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Apps } from "../contracts/src/Apps.sol";
import { Auction } from "../contracts/src/Auction.sol";
import { Leases } from "../contracts/src/Leases.sol";
import { Payments } from "../contracts/src/Payments.sol";
import { Registry } from "../contracts/src/Registry.sol";
import { Staking } from "../contracts/src/Staking.sol";
import { IAuction } from "../contracts/src/interfaces/IAuction.sol";
import { ISla } from "../contracts/src/interfaces/ISla.sol";
import { TestToken } from "../contracts/test/tokens/TestToken.sol";
import { IERC20Metadata } from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import { Script } from "forge-std/Script.sol";

/// @title Deploy: the contracts on any EVM chain, and a file that says where they are
/// @notice `forge script script/Deploy.s.sol --rpc-url URL --broadcast`, with in the environment:
/// - `DEPLOYER_KEY`: the private key that pays (never an argument, which every process of the machine can read);
/// - `TOKEN`: the settlement token. Left out on chain 31337, one that anybody can mint is deployed;
/// - `UNBOND_DELAY` (604800), `CLAIM_WINDOW` (259200), `REGISTRY_TTL` (600), in seconds; `EARLY_CLOSE_BPS` (2000);
/// - `CHALLENGE_BOND` (1), `WATCHER_BOND` (100), `ORDER_DEPOSIT` (1), `NAME_RENT` (1 per 30 days), in whole tokens;
/// - `EPOCH` (3600), `MERGE_GAP` (300), `CHALLENGE_PAUSE` (3600), `NAME_GRACE` (2592000), in seconds;
/// - `DEPLOYMENT_FILE`: where to write, in `deployments` or `.roadstead`; else `deployments/<chain id>.json`.
///
/// Everything goes through the deterministic CREATE2 deployer, under a salt made of all the input. So the same input
/// has the same addresses whoever pays, a second run deploys nothing and leaves the file as it is, a run that was
/// interrupted is completed by the next, and other input shares nothing (a registry's prices are in the token).
contract Deploy is Script {
    /// @notice What a deployment is made of, and what its addresses follow from.
    struct Input {
        address token;
        uint40 unbondDelay;
        uint40 claimWindow;
        uint40 registryTtl;
        uint16 earlyCloseBps;
        uint40 nameGrace;
        uint128 nameRent;
        ISla.Terms sla;
        IAuction.Terms auction;
    }

    /// @notice What the file says, under the same names.
    struct Deployment {
        uint256 chainId;
        uint256 block;
        address token;
        address payments;
        address staking;
        address registry;
        address leases;
        address sla;
        address auction;
        address apps;
    }

    /// @dev The chain that private nodes run, where money is free.
    uint256 private constant PRIVATE_CHAIN = 31_337;

    /// @dev For how long rents and keepers' fees stay locked in an app's account.
    uint32 private constant STREAM_LOCK = 1 days;

    /// @notice Deploys what the environment says, as far as it is missing, and writes the file.
    function run() external returns (Deployment memory) {
        Input memory input = Input({
            token: vm.envOr("TOKEN", address(0)),
            unbondDelay: uint40(_setting("UNBOND_DELAY", 7 days, type(uint40).max)),
            claimWindow: uint40(_setting("CLAIM_WINDOW", 3 days, type(uint40).max)),
            registryTtl: uint40(_setting("REGISTRY_TTL", 10 minutes, type(uint40).max)),
            earlyCloseBps: uint16(_setting("EARLY_CLOSE_BPS", 2_000, 10_000)),
            nameGrace: uint40(_setting("NAME_GRACE", 30 days, type(uint40).max)),
            nameRent: uint128(_setting("NAME_RENT", 1, type(uint32).max)),
            sla: ISla.Terms({
                challengeBond: uint128(_setting("CHALLENGE_BOND", 1, type(uint32).max)),
                challengePause: uint40(_setting("CHALLENGE_PAUSE", 1 hours, type(uint40).max)),
                watcherBond: uint128(_setting("WATCHER_BOND", 100, type(uint32).max)),
                epoch: uint40(_setting("EPOCH", 1 hours, type(uint40).max)),
                mergeGap: uint40(_setting("MERGE_GAP", 5 minutes, type(uint40).max)),
                rewardBps: 500
            }),
            auction: IAuction.Terms({
                deposit: uint128(_setting("ORDER_DEPOSIT", 1, type(uint32).max)),
                stepBps: 100,
                extension: 60,
                maxExtension: 1 hours,
                awardGrace: 1 hours,
                noShowBps: 1_000
            })
        });
        string memory usual = string.concat("deployments/", vm.toString(block.chainid), ".json");
        return deploy(vm.envUint("DEPLOYER_KEY"), input, vm.envOr("DEPLOYMENT_FILE", usual));
    }

    /// @notice Deploys `input` as far as it is missing, paid by `key`, and writes `file`.
    function deploy(uint256 key, Input memory input, string memory file)
        public
        returns (Deployment memory d)
    {
        require(
            input.unbondDelay > input.claimWindow,
            "UNBOND_DELAY must be longer than CLAIM_WINDOW: a bond outlives the claims on it"
        );
        require(input.registryTtl != 0, "REGISTRY_TTL is 0: no provider would ever be live");
        require(
            CREATE2_FACTORY.code.length != 0,
            "this chain lacks the deterministic deployer 0x4e59b44847b379578588920cA78FbF26c0B4956C"
        );
        vm.startBroadcast(key);
        if (input.token == address(0)) {
            require(block.chainid == PRIVATE_CHAIN, "TOKEN is not set: name the settlement token's address");
            (input.token,) = _create(0, type(TestToken).creationCode);
        }
        require(
            input.token.code.length != 0,
            string.concat("TOKEN is ", vm.toString(input.token), ", where this chain has no contract")
        );
        _scale(input);
        bool fresh;
        (d, fresh) = _createAll(input);
        vm.stopBroadcast();
        // Of contracts that were there before, only the file knows since when.
        d.block = fresh ? vm.getBlockNumber() : _blockIn(file, d);
        _write(file, d);
    }

    /// @dev True if nothing of it was there before.
    function _createAll(Input memory input) private returns (Deployment memory d, bool fresh) {
        bytes32 salt = keccak256(abi.encode("Roadstead", input));
        bool isNew;
        d.chainId = block.chainid;
        d.token = input.token;
        bytes memory args = abi.encode(d.token);
        (d.payments, fresh) = _create(salt, bytes.concat(type(Payments).creationCode, args));
        args = abi.encode(d.token, input.unbondDelay);
        (d.staking, isNew) = _create(salt, bytes.concat(type(Staking).creationCode, args));
        fresh = fresh && isNew;
        args = abi.encode(input.registryTtl);
        (d.registry, isNew) = _create(salt, bytes.concat(type(Registry).creationCode, args));
        fresh = fresh && isNew;
        args = abi.encode(
            d.payments, d.staking, d.registry, input.claimWindow, input.earlyCloseBps, input.sla
        );
        (d.leases, isNew) = _create(salt, bytes.concat(type(Leases).creationCode, args));
        fresh = fresh && isNew;
        d.sla = address(Leases(d.leases).SLA());
        args = abi.encode(d.leases, d.staking, d.registry, input.auction);
        (d.auction, isNew) = _create(salt, bytes.concat(type(Auction).creationCode, args));
        fresh = fresh && isNew;
        args = abi.encode(d.leases, d.payments, input.nameRent, input.nameGrace, STREAM_LOCK);
        (d.apps, isNew) = _create(salt, bytes.concat(type(Apps).creationCode, args));
        fresh = fresh && isNew;
    }

    /// @dev The environment has whole tokens; the contracts count in base units, and streams in units per second.
    function _scale(Input memory input) private view {
        uint128 unit = uint128(10 ** IERC20Metadata(input.token).decimals());
        input.sla.challengeBond *= unit;
        input.sla.watcherBond *= unit;
        input.auction.deposit *= unit;
        input.nameRent = uint128(uint256(input.nameRent) * unit * 1e9 / 30 days);
    }

    /// @dev Deploys `initCode` under `salt`, unless that was done before.
    function _create(bytes32 salt, bytes memory initCode) private returns (address where, bool isNew) {
        where = vm.computeCreate2Address(salt, keccak256(initCode));
        if (where.code.length != 0) return (where, false);
        (bool ok,) = CREATE2_FACTORY.call(bytes.concat(salt, initCode));
        require(ok && where.code.length != 0, string.concat("nothing came to be at ", vm.toString(where)));
        return (where, true);
    }

    /// @dev The block in `file` if that is of this deployment, else the chain's first.
    function _blockIn(string memory file, Deployment memory d) private view returns (uint256) {
        if (!vm.exists(file)) return 0;
        string memory json = vm.readFile(file);
        bool same = vm.parseJsonUint(json, ".chainId") == d.chainId
            && vm.parseJsonAddress(json, ".leases") == d.leases;
        return same ? vm.parseJsonUint(json, ".block") : 0;
    }

    /// @dev By hand, because the order of the keys is part of what a person reads.
    function _write(string memory file, Deployment memory d) private {
        string memory json = string.concat('{\n  "chainId": ', vm.toString(d.chainId));
        json = string.concat(json, ',\n  "block": ', vm.toString(d.block));
        json = string.concat(json, ',\n  "token": "', vm.toString(d.token));
        json = string.concat(json, '",\n  "payments": "', vm.toString(d.payments));
        json = string.concat(json, '",\n  "staking": "', vm.toString(d.staking));
        json = string.concat(json, '",\n  "registry": "', vm.toString(d.registry));
        json = string.concat(json, '",\n  "leases": "', vm.toString(d.leases));
        json = string.concat(json, '",\n  "sla": "', vm.toString(d.sla));
        json = string.concat(json, '",\n  "auction": "', vm.toString(d.auction));
        json = string.concat(json, '",\n  "apps": "', vm.toString(d.apps), '"\n}\n');
        vm.writeFile(file, json);
    }

    function _setting(string memory name, uint256 usual, uint256 most) private view returns (uint256 value) {
        value = vm.envOr(name, usual);
        string memory limit = string.concat(" is more than ", vm.toString(most));
        require(value <= most, string.concat(name, ": ", vm.toString(value), limit));
    }
}
