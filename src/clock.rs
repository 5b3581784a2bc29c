//! The only file that reads time. Everything below layer 2 takes time as an argument.
//!
//! Two clocks, never mixed: wall time judges what others wrote into tokens (`exp`, `nbf`),
//! monotonic time ages what we remember (caches, deadlines), so that a clock set back cannot make
//! an old credential young again (case F10). Tests move the latter, see `fault`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fault;

/// Seconds since 1970-01-01T00:00:00Z (RFC 7519 §2, `NumericDate` without a fraction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixSeconds(pub u64);

/// Microseconds since 1970-01-01T00:00:00Z; the resolution of the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMicros(pub u64);

impl UnixMicros {
    /// The same moment, cut to whole seconds.
    #[must_use]
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1_000_000)
    }
}

/// Microseconds on the monotonic clock since this process started. Never compared between
/// processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The moment `delay` after this one; saturates instead of wrapping.
    #[must_use]
    pub const fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay.as_micros() as u64))
    }

    /// Microseconds from `earlier` to here; 0 when `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One reading of both clocks. Taken once per request stage that needs it, then passed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall time.
    pub wall: UnixMicros,
    /// Monotonic time.
    pub mono: Monotonic,
}

/// A source of [`Now`]. `Copy`, because it holds only the moment the process began.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts the clock. Called once in `main` (and once per test).
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one file that reads time")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Reads both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one file that reads time")]
    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall: UnixMicros(since_epoch.as_micros() as u64), mono: self.monotonic() }
    }

    /// Reads the monotonic clock alone.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one file that reads time")]
    pub fn monotonic(&self) -> Monotonic {
        let since_start = Instant::now().duration_since(self.start).as_micros() as u64;
        Monotonic(since_start + fault::moved_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_differences_never_wrap() {
        assert_eq!(Monotonic(5).micros_since(Monotonic(9)), 0);
        assert_eq!(Monotonic(u64::MAX).after(Duration::from_secs(1)), Monotonic(u64::MAX));
        assert_eq!(UnixMicros(1_999_999).seconds(), UnixSeconds(1));
    }
}
