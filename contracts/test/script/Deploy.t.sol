// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Deploy } from "../../../script/Deploy.s.sol";
import { Apps } from "../../src/Apps.sol";
import { Auction } from "../../src/Auction.sol";
import { Leases } from "../../src/Leases.sol";
import { Payments } from "../../src/Payments.sol";
import { Registry } from "../../src/Registry.sol";
import { Sla } from "../../src/Sla.sol";
import { Staking } from "../../src/Staking.sol";
import { IAuction } from "../../src/interfaces/IAuction.sol";
import { ISla } from "../../src/interfaces/ISla.sol";
import { TestToken } from "../tokens/TestToken.sol";
import { Test } from "forge-std/Test.sol";

// deploy
// ├── when the delays, the time to live or the token make no sense ─ reverts
// ├── when no token is named and the chain is not a private one ─ reverts
// ├── when the chain lacks the deterministic deployer ─ reverts
// ├── when nothing is there ─ deploys all, and the file says where and since when
// ├── when all is there ─ deploys nothing and leaves the file as it is
// ├── when all is there and the file is not ─ writes it from the chain's first block
// ├── when the file is of another deployment ─ takes nothing from it
// └── when one thing of the input differs ─ nothing is shared
contract DeployTest is Test {
    uint256 private constant KEY = 0xd431;

    Deploy private _script = new Deploy();
    string private _file;

    function _begin(string memory name) private {
        _file = string.concat("deployments/.test-", name, ".json");
        vm.roll(7);
    }

    function _end() private {
        vm.removeFile(_file);
    }

    function test_RevertWhen_UnbondingIsShorterThanClaims() public {
        Deploy.Input memory input = _input(address(0));
        input.unbondDelay = input.claimWindow;
        vm.expectRevert("UNBOND_DELAY must be longer than CLAIM_WINDOW: a bond outlives the claims on it");
        _script.deploy(KEY, input, "");
    }

    function test_RevertWhen_NobodyWouldBeLive() public {
        Deploy.Input memory input = _input(address(0));
        input.registryTtl = 0;
        vm.expectRevert("REGISTRY_TTL is 0: no provider would ever be live");
        _script.deploy(KEY, input, "");
    }

    function test_RevertWhen_NoTokenOnPublicChain() public {
        vm.chainId(10);
        vm.expectRevert("TOKEN is not set: name the settlement token's address");
        _script.deploy(KEY, _input(address(0)), "");
    }

    function test_RevertWhen_TokenIsNoContract() public {
        vm.expectRevert(
            "TOKEN is 0x00000000000000000000000000000000000000AA, where this chain has no contract"
        );
        _script.deploy(KEY, _input(address(0xaa)), "");
    }

    function test_RevertWhen_ChainLacksDeployer() public {
        vm.etch(CREATE2_FACTORY, "");
        vm.expectRevert(
            "this chain lacks the deterministic deployer 0x4e59b44847b379578588920cA78FbF26c0B4956C"
        );
        _script.deploy(KEY, _input(address(0)), "");
    }

    function test_WhenNothingIsThere() public {
        _begin("fresh");
        Deploy.Deployment memory d = _script.deploy(KEY, _input(address(0)), _file);
        assertEq(d.chainId, 31_337);
        assertEq(d.block, 7);
        assertEq(TestToken(d.token).symbol(), "tUSD");
        assertEq(address(Payments(d.payments).TOKEN()), d.token);
        assertEq(address(Staking(d.staking).TOKEN()), d.token);
        assertEq(Staking(d.staking).UNBOND_DELAY(), 7 days);
        assertEq(Registry(d.registry).TTL(), 10 minutes);
        Leases leases = Leases(d.leases);
        assertEq(address(leases.PAYMENTS()), d.payments);
        assertEq(address(leases.STAKING()), d.staking);
        assertEq(address(leases.REGISTRY()), d.registry);
        assertEq(leases.CLAIM_WINDOW(), 3 days);
        assertEq(leases.EARLY_CLOSE_BPS(), 2_000);
        assertEq(address(leases.SLA()), d.sla);
        assertEq(address(Sla(d.sla).LEASES()), d.leases);
        assertEq(Sla(d.sla).WATCHER_BOND(), 100e6, "the environment has whole tokens");
        assertEq(address(Auction(d.auction).LEASES()), d.leases);
        assertEq(address(Apps(d.apps).LEASES()), d.leases);
        assertEq(Apps(d.apps).RENT(), uint256(1e15) / 30 days);

        string memory json = vm.readFile(_file);
        assertEq(vm.parseJsonKeys(json, ".").length, 10);
        assertEq(vm.parseJsonAddress(json, ".sla"), d.sla);
        assertEq(vm.parseJsonAddress(json, ".auction"), d.auction);
        assertEq(vm.parseJsonAddress(json, ".apps"), d.apps);
        assertEq(vm.parseJsonUint(json, ".chainId"), d.chainId);
        assertEq(vm.parseJsonUint(json, ".block"), d.block);
        assertEq(vm.parseJsonAddress(json, ".token"), d.token);
        assertEq(vm.parseJsonAddress(json, ".payments"), d.payments);
        assertEq(vm.parseJsonAddress(json, ".staking"), d.staking);
        assertEq(vm.parseJsonAddress(json, ".registry"), d.registry);
        assertEq(vm.parseJsonAddress(json, ".leases"), d.leases);
        _end();
    }

    function test_WhenAllIsThere() public {
        _begin("again");
        _script.deploy(KEY, _input(address(0)), _file);
        string memory json = vm.readFile(_file);
        vm.roll(1_000);
        uint64 nonce = vm.getNonce(vm.addr(KEY + 1));
        _script.deploy(KEY + 1, _input(address(0)), _file);
        assertEq(vm.readFile(_file), json, "whoever pays");
        assertEq(vm.getNonce(vm.addr(KEY + 1)), nonce, "nothing was sent");
        _end();
    }

    function test_WhenAllIsThereButTheFile() public {
        _begin("lost");
        _script.deploy(KEY, _input(address(0)), _file);
        vm.removeFile(_file);
        vm.roll(1_000);
        assertEq(_script.deploy(KEY, _input(address(0)), _file).block, 0);
        _end();
    }

    function test_WhenFileIsOfAnotherDeployment() public {
        _begin("other");
        Deploy.Input memory input = _input(address(0));
        _script.deploy(KEY, input, _file);
        input.earlyCloseBps = 0;
        vm.roll(1_000);
        assertEq(_script.deploy(KEY, input, _file).block, 1_000);
        input.earlyCloseBps = 2_000;
        assertEq(_script.deploy(KEY, input, _file).block, 0);
        _end();
    }

    function test_WhenOneThingDiffers() public {
        _begin("differs");
        Deploy.Deployment memory d = _script.deploy(KEY, _input(address(0)), _file);
        Deploy.Input memory input = _input(address(new TestToken()));
        Deploy.Deployment memory e = _script.deploy(KEY, input, _file);
        assertEq(e.token, input.token);
        assertNotEq(e.payments, d.payments);
        assertNotEq(e.staking, d.staking);
        assertNotEq(e.registry, d.registry);
        assertNotEq(e.leases, d.leases);
        _end();
    }

    function _input(address token) private pure returns (Deploy.Input memory) {
        return Deploy.Input({
            token: token,
            unbondDelay: 7 days,
            claimWindow: 3 days,
            registryTtl: 10 minutes,
            earlyCloseBps: 2_000,
            nameGrace: 30 days,
            nameRent: 1,
            sla: ISla.Terms(1, 1 hours, 100, 1 hours, 5 minutes, 500),
            auction: IAuction.Terms(1, 100, 60, 1 hours, 1 hours, 1_000)
        });
    }
}
