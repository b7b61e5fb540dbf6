//! A clock that clients, workers and the fault injector read alike: what one of them did first has the smaller number.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine was started; 0 only if there is no such clock.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
