//! The one clock: `CLOCK_MONOTONIC` in nanoseconds, the same for every process of the machine, so that an event
//! stamped by the upstream can be compared with the instant at which the generator read it.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) type Nanos = u64;

pub(crate) const SECOND: Nanos = 1_000_000_000;
pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const MICROSECOND: Nanos = 1_000;

pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    // Both parts are positive: the clock counts from boot.
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}
