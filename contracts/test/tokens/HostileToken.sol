// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @title HostileToken
/// @notice An ERC-20 that misbehaves as it is told, in the ways that tokens in the wild do.
contract HostileToken {
    enum Trick {
        None,
        TakesFee,
        ReturnsNothing,
        ReturnsFalse,
        Reenters,
        Blocks
    }

    string public constant name = "Hostile Dollar";
    uint8 public constant decimals = 6;

    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    /// @notice How it misbehaves.
    Trick public trick;
    /// @notice Who can receive nothing while it `Blocks`.
    address public blocked;
    /// @notice Whether the last re-entering call got through; if `insists`, a refusal is passed on.
    bool public reentered;

    address private _target;
    bytes private _call;
    bool private _insists;

    error Blocked(address to);

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
        _answer();
    }

    function setTrick(Trick trick_) external {
        trick = trick_;
    }

    function setBlocked(address who) external {
        blocked = who;
        trick = Trick.Blocks;
    }

    function setReentry(address target, bytes calldata call, bool insists) external {
        (_target, _call, _insists) = (target, call, insists);
        trick = Trick.Reenters;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
        _answer();
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
        _answer();
    }

    function _move(address from, address to, uint256 amount) private {
        if (trick == Trick.ReturnsFalse) return;
        if (trick == Trick.Blocks && to == blocked) revert Blocked(to);
        if (trick == Trick.Reenters) _reenter();
        balanceOf[from] -= amount;
        balanceOf[to] += trick == Trick.TakesFee ? amount - amount / 100 - 1 : amount;
    }

    function _reenter() private {
        bytes memory answer;
        (reentered, answer) = _target.call(_call);
        if (reentered || !_insists) return;
        assembly ("memory-safe") {
            revert(add(answer, 32), mload(answer))
        }
    }

    /// @dev Ends the call with true, false, or nothing.
    function _answer() private view {
        uint256 size = trick == Trick.ReturnsNothing ? 0 : 32;
        bool ok = trick != Trick.ReturnsFalse;
        assembly ("memory-safe") {
            mstore(0, ok)
            return(0, size)
        }
    }
}
