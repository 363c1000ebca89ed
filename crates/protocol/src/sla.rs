//! What an outage is worth: the curve of the library `Curve`, which the contract Sla applies.

use alloy_primitives::U256;

use crate::amount::Amount;

/// What is due for an outage of `duration` seconds: nothing up to `grace`, the whole coverage from `full` on, quadratic in
/// between, so that many short outages cost a provider little and a long one nearly all. Rounded down: the payer is the one
/// who takes out. A `full` of zero is that of a lease that claims nothing by reports.
pub fn due(coverage: Amount, duration: u64, grace: u32, full: u32) -> Amount {
    let (grace, full) = (u64::from(grace), u64::from(full));
    if full == 0 || duration <= grace {
        return Amount(0);
    }
    if duration >= full {
        return coverage;
    }
    let square = |secs: u64| U256::from(secs) * U256::from(secs);
    let due = U256::from(coverage.0) * square(duration - grace) / square(full - grace);
    // The outage is shorter than `full`, so this is below the coverage.
    Amount(due.try_into().unwrap_or(coverage.0))
}
