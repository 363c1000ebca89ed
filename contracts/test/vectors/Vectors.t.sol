// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import { Leases } from "../../src/Leases.sol";
import { ILeases } from "../../src/interfaces/ILeases.sol";
import { IPayments } from "../../src/interfaces/IPayments.sol";
import { Curve } from "../../src/libraries/Curve.sol";
import { AccountId, LeaseId, StreamId } from "../../src/types/Ids.sol";
import { Base } from "../Base.t.sol";

/// @notice The contracts do what clock.json, curve.json and quote.json say, to which the crate `protocol` is held as well.
contract VectorsTest is Base {
    struct AccountSeen {
        uint256 free;
        uint256 lockup;
        uint256 rate;
        uint256 clock;
        uint256 fundedUntil;
    }

    struct StreamSeen {
        uint256 rate;
        uint256 lock;
        string state;
        uint256 owed;
    }

    struct Expected {
        string refusal;
        uint256 collected;
        AccountSeen account;
        StreamSeen[] streams;
    }

    struct Step {
        uint256 time;
        string action;
        uint96 stream;
        uint256 amount;
        uint128 rate;
        uint32 lock;
        bool start;
        Expected expect;
    }

    struct QuoteCase {
        string name;
        uint256 chainId;
        address leases;
        ILeases.Quote quote;
        bytes32 digest;
    }

    struct CurveCase {
        string name;
        uint128 coverage;
        uint40 duration;
        uint24 grace;
        uint24 full;
        uint128 due;
    }

    string private constant CURVES =
        "CurveCase(string name,uint128 coverage,uint40 duration,uint24 grace,uint24 full,uint128 due)";
    string private constant STEPS = string.concat(
        "Step(uint256 time,string action,uint96 stream,uint256 amount,uint128 rate,uint32 lock,bool start,Expected expect)",
        "AccountSeen(uint256 free,uint256 lockup,uint256 rate,uint256 clock,uint256 fundedUntil)",
        "Expected(string refusal,uint256 collected,AccountSeen account,StreamSeen[] streams)",
        "StreamSeen(uint256 rate,uint256 lock,string state,uint256 owed)"
    );
    string private constant QUOTES =
        "QuoteCase(string name,uint256 chainId,address leases,Quote quote,bytes32 digest)Quote(address provider,bytes32 account,uint64 lease,bytes32 pod,uint128 rate,uint32 lock,uint128 coverage,uint24 grace,uint24 full,uint24 response,uint24 notice,uint24 startWithin,uint40 expiry,uint64 version,uint256 nonce)";

    function test_ClockVectors() public {
        string memory json = vm.readFile("contracts/test/vectors/clock.json");
        uint256 start = vm.snapshotState();
        uint256 count;
        for (; vm.keyExistsJson(json, _case(count)); ++count) {
            string memory name = vm.parseJsonString(json, string.concat(_case(count), ".name"));
            bytes memory steps = vm.parseJsonTypeArray(json, string.concat(_case(count), ".steps"), STEPS);
            _playAll(name, abi.decode(steps, (Step[])));
            vm.revertToState(start);
        }
        assertGt(count, 20, "the file is read");
    }

    function test_QuoteVectors() public {
        string memory json = vm.readFile("contracts/test/vectors/quote.json");
        QuoteCase[] memory cases = abi.decode(vm.parseJsonTypeArray(json, ".cases", QUOTES), (QuoteCase[]));
        assertGt(cases.length, 20, "the file is read");
        for (uint256 i = 0; i < cases.length; ++i) {
            vm.chainId(cases[i].chainId);
            vm.etch(cases[i].leases, address(leases).code);
            assertEq(Leases(cases[i].leases).digest(cases[i].quote), cases[i].digest, cases[i].name);
        }
    }

    function test_CurveVectors() public view {
        string memory json = vm.readFile("contracts/test/vectors/curve.json");
        CurveCase[] memory cases = abi.decode(vm.parseJsonTypeArray(json, ".cases", CURVES), (CurveCase[]));
        assertGt(cases.length, 60, "the file is read");
        for (uint256 i = 0; i < cases.length; ++i) {
            CurveCase memory c = cases[i];
            assertEq(Curve.due(c.coverage, c.duration, c.grace, c.full), c.due, c.name);
        }
    }

    function _playAll(string memory name, Step[] memory steps) private {
        for (uint256 i = 0; i < steps.length; ++i) {
            _check(steps[i], string.concat(name, ", step ", vm.toString(i)));
        }
    }

    function _case(uint256 which) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(which), "]");
    }

    function _check(Step memory step, string memory where) private {
        vm.warp(step.time);
        uint256 before = token.balanceOf(payee);
        (bool ok, bytes memory answer) = _play(step);
        assertEq(ok ? "" : _reason(answer), step.expect.refusal, where);
        assertEq(token.balanceOf(payee) - before, step.expect.collected, where);

        IPayments.AccountView memory a = payments.account(account);
        assertEq(
            abi.encode(a.free, a.lockup, a.rate, a.clock, a.fundedUntil),
            abi.encode(step.expect.account),
            where
        );
        for (uint96 i = 0; i < step.expect.streams.length; ++i) {
            IPayments.StreamView memory s = payments.stream(_idOf(i));
            StreamSeen memory seen = StreamSeen(s.rate, s.lock, _name(s.state), s.owed);
            assertEq(abi.encode(seen), abi.encode(step.expect.streams[i]), where);
        }
        uint96 next = uint96(step.expect.streams.length);
        assertEq(payments.stream(_idOf(next)).state, IPayments.StreamState.None);
    }

    function _play(Step memory step) private returns (bool, bytes memory) {
        bytes32 action = keccak256(bytes(step.action));
        if (action == keccak256("look")) return (true, "");
        StreamId id = _idOf(step.stream);
        bytes memory call;
        if (action == keccak256("deposit")) {
            token.mint(payer, step.amount);
            vm.prank(payer);
            token.approve(address(payments), step.amount);
            call = abi.encodeCall(payments.deposit, (payer, SALT, step.amount));
        } else if (action == keccak256("withdraw")) {
            call = abi.encodeCall(payments.withdraw, (account, payer, step.amount));
        } else if (action == keccak256("open")) {
            call = abi.encodeCall(
                payments.openStream, (account, step.stream, payee, step.rate, step.lock, step.start)
            );
        } else if (action == keccak256("start")) {
            call = abi.encodeCall(payments.startStream, (id));
        } else if (action == keccak256("setRate")) {
            call = abi.encodeCall(payments.setRate, (id, step.rate, step.lock));
        } else if (action == keccak256("close")) {
            call = abi.encodeCall(payments.closeStream, (id));
        } else if (action == keccak256("collect")) {
            call = abi.encodeCall(payments.collect, (_only(id)));
        } else {
            revert(string.concat("no such action: ", step.action));
        }
        vm.prank(payer);
        return address(payments).call(call);
    }

    /// @dev A revert in the words of the file.
    function _reason(bytes memory answer) private pure returns (string memory) {
        bytes4 selector = bytes4(answer);
        bytes memory args = new bytes(answer.length - 4);
        for (uint256 i = 0; i < args.length; ++i) {
            args[i] = answer[4 + i];
        }
        if (selector == IPayments.Payments_Underfunded.selector) {
            (, uint256 needed, uint256 available) = abi.decode(args, (AccountId, uint256, uint256));
            return string.concat("Underfunded ", vm.toString(needed), " ", vm.toString(available));
        }
        if (selector == IPayments.Payments_TopUpTooSmall.selector) {
            (, uint256 missing) = abi.decode(args, (AccountId, uint256));
            return string.concat("TopUpTooSmall ", vm.toString(missing));
        }
        if (selector == IPayments.Payments_WrongState.selector) {
            (, IPayments.StreamState state) = abi.decode(args, (StreamId, IPayments.StreamState));
            return string.concat("WrongState ", _name(state));
        }
        return vm.toString(answer);
    }

    function _name(IPayments.StreamState state) private pure returns (string memory) {
        return ["None", "Reserved", "Running", "Closed"][uint256(state)];
    }
}
