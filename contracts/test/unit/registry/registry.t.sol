// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { IRegistry } from "../../../src/interfaces/IRegistry.sol";
import { Base } from "../../Base.t.sol";

// list
// ├── when the endpoint or the region is empty or too long ─ reverts
// ├── when a key is missing ─ reverts
// ├── when new ─ lists it at version 1, alive
// ├── when listed ─ replaces it at the next version
// └── when it was delisted ─ the versions go on
// delist
// ├── when not listed ─ reverts
// └── when listed ─ leaves nothing but the version
// heartbeat
// ├── when not listed ─ reverts
// └── when listed ─ keeps it live for another TTL, at the same version
// multicall
// ├── when one of the calls reverts ─ reverts with its reason, and nothing of the others stays
// └── else ─ makes all of them for the caller
contract RegistryTest is Base {
    function test_RevertWhen_EndpointHasBadLength() public {
        IRegistry.Listing memory listing = _listing();
        listing.endpoint = "";
        _expectBadLength("endpoint", 0, 256);
        registry.list(listing);
        listing.endpoint = string(new bytes(257));
        _expectBadLength("endpoint", 257, 256);
        registry.list(listing);
        listing.endpoint = string(new bytes(256));
        registry.list(listing);
    }

    function test_RevertWhen_RegionHasBadLength() public {
        IRegistry.Listing memory listing = _listing();
        listing.region = "";
        _expectBadLength("region", 0, 64);
        registry.list(listing);
        listing.region = string(new bytes(65));
        _expectBadLength("region", 65, 64);
        registry.list(listing);
        listing.region = string(new bytes(64));
        registry.list(listing);
    }

    function test_RevertWhen_KeyIsMissing() public {
        IRegistry.Listing memory listing = _listing();
        listing.tlsKey = 0;
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_NoKey.selector, "tlsKey"));
        registry.list(listing);
        listing = _listing();
        listing.sealKey = 0;
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_NoKey.selector, "sealKey"));
        registry.list(listing);
    }

    function test_WhenNew() public {
        assertEq(registry.versionOf(provider.addr), 0);
        IRegistry.Listing memory listing = _listing();
        vm.expectEmit(address(registry));
        emit IRegistry.Listed(provider.addr, 1, listing);
        vm.prank(provider.addr);
        registry.list(listing);
        IRegistry.ProviderView memory view_ = registry.listingOf(provider.addr);
        assertEq(abi.encode(view_.listing), abi.encode(listing));
        assertEq(view_.version, 1);
        assertEq(view_.seenAt, block.timestamp);
        assertTrue(view_.listed);
        assertTrue(view_.live);
        assertEq(registry.versionOf(provider.addr), 1);
        assertFalse(registry.listingOf(stranger).listed);
    }

    function test_WhenListed_IsReplaced() public {
        IRegistry.Listing memory listing = _listing();
        vm.startPrank(provider.addr);
        registry.list(listing);
        listing.endpoint = "https://elsewhere.example";
        listing.measurement = keccak256("tdx");
        vm.expectEmit(address(registry));
        emit IRegistry.Listed(provider.addr, 2, listing);
        registry.list(listing);
        IRegistry.ProviderView memory view_ = registry.listingOf(provider.addr);
        assertEq(abi.encode(view_.listing), abi.encode(listing));
        assertEq(view_.version, 2);
    }

    function test_RevertWhen_DelistedUnlisted() public {
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_NotListed.selector, stranger));
        vm.prank(stranger);
        registry.delist();
    }

    function test_WhenDelisted_NothingIsLeftButVersion() public {
        vm.startPrank(provider.addr);
        registry.list(_listing());
        vm.expectEmit(address(registry));
        emit IRegistry.Delisted(provider.addr, 2);
        registry.delist();
        IRegistry.ProviderView memory view_ = registry.listingOf(provider.addr);
        assertFalse(view_.listed);
        assertFalse(view_.live);
        assertEq(view_.version, 2);
        assertEq(view_.listing.endpoint, "");
        assertEq(view_.listing.sealKey, 0);
        assertEq(registry.versionOf(provider.addr), 0);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_NotListed.selector, provider.addr));
        registry.delist();
    }

    function test_WhenListedAgain_VersionsGoOn() public {
        vm.startPrank(provider.addr);
        registry.list(_listing());
        registry.delist();
        registry.list(_listing());
        assertEq(registry.versionOf(provider.addr), 3);
    }

    function test_RevertWhen_UnlistedHeartbeat() public {
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_NotListed.selector, stranger));
        vm.prank(stranger);
        registry.heartbeat();
    }

    function test_WhenHeartbeat() public {
        vm.startPrank(provider.addr);
        registry.list(_listing());
        skip(TTL);
        assertTrue(registry.listingOf(provider.addr).live);
        skip(1);
        assertFalse(registry.listingOf(provider.addr).live);
        vm.expectEmit(address(registry));
        emit IRegistry.Heartbeat(provider.addr);
        registry.heartbeat();
        IRegistry.ProviderView memory view_ = registry.listingOf(provider.addr);
        assertTrue(view_.live);
        assertEq(view_.seenAt, block.timestamp);
        assertEq(view_.version, 1);
    }

    function testFuzz_ListingComesBackAsItWas(
        IRegistry.Prices memory prices,
        bytes32 tlsKey,
        bytes32 sealKey,
        bytes32 measurement
    ) public {
        vm.assume(tlsKey != 0 && sealKey != 0);
        IRegistry.Listing memory listing = _listing();
        (listing.prices, listing.tlsKey) = (prices, tlsKey);
        (listing.sealKey, listing.measurement) = (sealKey, measurement);
        registry.list(listing);
        assertEq(abi.encode(registry.listingOf(address(this)).listing), abi.encode(listing));
    }

    function test_RevertWhen_OneOfSeveralReverts() public {
        bytes[] memory calls = new bytes[](3);
        calls[0] = abi.encodeCall(registry.list, (_listing()));
        calls[1] = abi.encodeCall(registry.delist, ());
        calls[2] = abi.encodeCall(registry.heartbeat, ());
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_NotListed.selector, provider.addr));
        vm.prank(provider.addr);
        registry.multicall(calls);
        assertEq(registry.listingOf(provider.addr).version, 0);
    }

    function test_WhenSeveralAtOnce() public {
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(registry.list, (_listing()));
        calls[1] = abi.encodeCall(registry.vouch, (keeper, "gpu", 77));
        vm.prank(provider.addr);
        registry.multicall(calls);
        assertEq(registry.versionOf(provider.addr), 1);
        assertEq(registry.vouchedUntil(keeper, provider.addr, "gpu"), 77);
    }

    function _expectBadLength(string memory field, uint256 length, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IRegistry.Registry_BadLength.selector, field, length, limit));
    }
}
