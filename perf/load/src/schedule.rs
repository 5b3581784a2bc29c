//! When requests are due in an open loop: at a constant rate, whatever the server does.
//!
//! The instants are fixed in advance, so a request that had to wait because every connection was busy still counts
//! from the instant at which it was due. A server that stalls therefore shows in every request that fell into
//! the stall, not only in those that happened to be under way (no coordinated omission).

use crate::clock::{Nanos, SECOND};

/// A constant rate from `start` until `end`.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Nanos,
    end: Nanos,
    per_second: u64,
    taken: u64,
}

impl Schedule {
    pub(crate) fn new(start: Nanos, end: Nanos, per_second: u64) -> Self {
        Self { start, end, per_second: per_second.max(1), taken: 0 }
    }

    /// Nothing is due from `end` on.
    pub(crate) fn stop(&mut self, end: Nanos) {
        self.end = self.end.min(end);
    }

    /// The instant of the next request, if one is left.
    pub(crate) fn next(&self) -> Option<Nanos> {
        let offset = u128::from(self.taken) * u128::from(SECOND) / u128::from(self.per_second);
        let at = self.start.checked_add(u64::try_from(offset).ok()?)?;
        (at < self.end).then_some(at)
    }

    /// Takes the next request if it is due.
    pub(crate) fn take_due(&mut self, now: Nanos) -> Option<Nanos> {
        let at = self.next().filter(|at| *at <= now)?;
        self.taken += 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    #[test]
    fn instants_are_spread_evenly_and_do_not_drift() {
        let mut schedule = Schedule::new(5, 5 + SECOND, 3000);
        let mut due = Vec::new();
        while let Some(at) = schedule.take_due(Nanos::MAX) {
            due.push(at);
        }
        assert_eq!(due.len(), 3000);
        assert_eq!((due[0], due[1], due[1500]), (5, 5 + 333_333, 5 + SECOND / 2));
    }

    #[test]
    fn nothing_is_taken_before_it_is_due() {
        let mut schedule = Schedule::new(100, 100 + SECOND, 1000);
        assert_eq!(schedule.take_due(99), None);
        assert_eq!(schedule.take_due(100), Some(100));
        assert_eq!(schedule.take_due(100), None);
        assert_eq!(schedule.next(), Some(100 + MILLISECOND));
    }

    #[test]
    fn a_stall_counts_for_every_request_that_fell_into_it() {
        // One connection, 1 ms each, 100 requests a second; the server stalls once, for a second.
        let mut schedule = Schedule::new(0, 10 * SECOND, 100);
        let (mut now, mut latencies) = (0, Vec::new());
        while let Some(next) = schedule.next() {
            now = now.max(next);
            let since = schedule.take_due(now).unwrap();
            let stalled = (5 * SECOND..6 * SECOND).contains(&now);
            now = if stalled { 6 * SECOND } else { now + MILLISECOND };
            latencies.push(now - since);
        }
        latencies.sort_unstable();
        // A closed loop would have seen one slow request in a thousand; here about a tenth waited.
        assert_eq!(latencies.len(), 1000);
        let slow = latencies.iter().filter(|latency| **latency > 10 * MILLISECOND).count();
        assert!((100..130).contains(&slow), "{slow}");
        assert!(latencies[989] > 800 * MILLISECOND, "p99 {}", latencies[989]);
    }
}
