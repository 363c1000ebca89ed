// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @title Curve: what an outage is worth
/// @notice Convex, so that many short outages cost a provider little and a long one nearly all: nothing up to `grace`,
/// the whole coverage from `full` on, quadratic in between. `protocol::sla` computes the same in Rust.
library Curve {
    /// @notice What is due for an outage of `duration` seconds. Rounded down: the payer is the one who takes out.
    /// @param coverage The whole coverage, in token base units.
    /// @param duration Seconds of the merged outage.
    /// @param grace Seconds that cost nothing.
    /// @param full Seconds that cost the whole coverage; zero for a lease that claims nothing by reports.
    function due(uint128 coverage, uint40 duration, uint24 grace, uint24 full)
        internal
        pure
        returns (uint128)
    {
        if (full == 0 || duration <= grace) return 0;
        if (duration >= full) return coverage;
        uint256 over = duration - grace;
        uint256 span = full - grace;
        // It fits: over < span, so the result is below the coverage.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint128(coverage * (over * over) / (span * span));
    }
}
