//! The time of a line: RFC 3339 with microseconds, UTC.

use std::io::Write;

use jiff::Timestamp;

use super::json::pair;

/// Remembers the text of the last second: most lines have the second of the line before.
pub(super) struct Times {
    second: u64,
    text: [u8; TEXT_BYTES],
}

impl Times {
    pub(super) const fn new() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000000Z" }
    }

    /// `micros` after 1970 began. A moment that no calendar of ours reaches is the last one that it
    /// does.
    pub(super) fn text(&mut self, micros: u64) -> &[u8] {
        let (second, mut left) = (micros / MICROS, micros % MICROS);
        if second != self.second {
            self.renew(micros);
            // The calendar ends within a second, which is not remembered.
            self.second = if second < CALENDAR_SECONDS { second } else { u64::MAX };
            return &self.text;
        }
        let digits = self.text.get_mut(FRACTION_AT..FRACTION_AT + 6).unwrap_or_default();
        for place in digits.as_chunks_mut::<2>().0.iter_mut().rev() {
            *place = pair(left % 100);
            left /= 100;
        }
        &self.text
    }

    #[cold]
    fn renew(&mut self, micros: u64) {
        let at =
            i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
        // The years from 1970 to 9999 have four digits, so the text always has the same length.
        let _ = write!(&mut self.text[..], "{:.6}", at.unwrap_or(Timestamp::MAX));
    }
}

/// `2026-08-29T10:40:00.123456Z`
const TEXT_BYTES: usize = 27;
const FRACTION_AT: usize = 20;
const MICROS: u64 = 1_000_000;
/// Whole seconds from 1970 to the last moment of the calendar.
const CALENDAR_SECONDS: u64 = 253_402_207_200;

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was written before seconds were remembered.
    fn anew(micros: u64) -> String {
        let at =
            i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
        format!("{:.6}", at.unwrap_or(Timestamp::MAX))
    }

    #[test]
    fn a_remembered_second_reads_like_a_new_one() {
        let mut times = Times::new();
        assert_eq!(Timestamp::MAX.as_second().unsigned_abs(), CALENDAR_SECONDS);
        let last = Timestamp::MAX.as_microsecond().unsigned_abs();
        let near = [0, 1_788_000_000_123_456, 951_782_400_000_000, last, i64::MAX as u64, u64::MAX];
        let steps = [0, 1, 10, 999_999, 1_000_000, 1_000_001, 86_400_000_000];
        for micros in near {
            for step in steps {
                for moment in [micros.saturating_sub(step), micros.saturating_add(step)] {
                    let text = String::from_utf8(times.text(moment).to_vec()).unwrap();
                    assert_eq!(text, anew(moment), "{moment}");
                }
            }
        }
    }
}
