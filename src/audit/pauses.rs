//! How long the writer rests between two looks into the rings.
//!
//! Where it shares a CPU with a worker, requests wait for as long as it writes, so at full speed it
//! comes often and writes little; a quiet gateway is woken seldom.

use std::mem;
use std::time::Duration;

/// The pauses of one writer.
pub(super) struct Pauses {
    length: Duration,
    /// Lines since the last pause, over all batches.
    lines: u64,
}

impl Pauses {
    pub(super) const fn new() -> Self {
        Self { length: POLL_MAX, lines: 0 }
    }

    /// A batch of `lines` was written.
    pub(super) const fn wrote(&mut self, lines: u64) {
        self.lines = self.lines.saturating_add(lines);
    }

    /// The next pause: as long as about [`TURN_LINES`] take to come, if they go on coming as they
    /// did during the last one. It grows in steps, or a single empty look would end in a long one.
    pub(super) fn next(&mut self) -> Duration {
        let lines = u32::try_from(mem::take(&mut self.lines)).unwrap_or(u32::MAX).max(1);
        let enough = self.length * TURN_LINES / lines;
        self.length = enough.min(2 * self.length).clamp(POLL_MIN, POLL_MAX);
        self.length
    }
}

/// The writer looks into the rings at least this often; workers never wake it, which would be a
/// system call.
pub(super) const POLL_MAX: Duration = Duration::from_millis(50);
/// And at most this often: each time costs a timer, a wake-up and a write.
const POLL_MIN: Duration = Duration::from_millis(2);
/// Lines between two pauses, if these allow: about 1 µs each. Fewer cost more wake-ups, more keep
/// requests waiting (`perf/NOTES.md`).
const TURN_LINES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes in a pause at this rate, told in batches of 500.
    fn gather(pauses: &mut Pauses, length: Duration, per_millisecond: u64) -> u64 {
        let lines = u64::try_from(length.as_micros()).unwrap() * per_millisecond / 1000;
        let (whole, rest) = (lines / 500, lines % 500);
        (0..whole).for_each(|_| pauses.wrote(500));
        pauses.wrote(rest);
        lines
    }

    #[test]
    fn the_more_comes_the_shorter_the_pauses() {
        for per_millisecond in [6, 20, 60] {
            let mut pauses = Pauses::new();
            let mut length = POLL_MAX;
            let mut lines = 0;
            for _ in 0..4 {
                lines = gather(&mut pauses, length, per_millisecond);
                length = pauses.next();
            }
            assert!((220..290).contains(&lines), "{lines} lines between two pauses");
        }
    }

    #[test]
    fn a_backlog_of_many_batches_counts_as_a_whole() {
        let mut pauses = Pauses::new();
        assert_eq!(gather(&mut pauses, POLL_MAX, 60), 3000);
        assert!(pauses.next() < Duration::from_millis(5));
    }

    #[test]
    fn pauses_have_bounds_and_grow_in_steps() {
        let mut pauses = Pauses::new();
        assert_eq!(pauses.next(), POLL_MAX, "a quiet gateway stays quiet");
        pauses.wrote(1);
        assert_eq!(pauses.next(), POLL_MAX);
        pauses.wrote(u64::MAX);
        pauses.wrote(1);
        assert_eq!(pauses.next(), POLL_MIN);
        assert_eq!(pauses.next(), 2 * POLL_MIN, "one empty look is no silence");
        assert!((0..8).any(|_| pauses.next() == POLL_MAX));
    }
}
