//! Buffers of one core, lent to whoever reads or writes and taken back: a warm request allocates
//! none.

use super::wiped::wipe;
use crate::core_cell::CoreCell;

/// A stack of empty buffers of one size.
pub struct Buffers {
    kept: CoreCell<Vec<Vec<u8>>>,
    bytes: usize,
    count_max: usize,
}

impl Buffers {
    /// Buffers with room for `bytes`.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self::keeping(bytes, KEPT_MAX)
    }

    /// The same; of those that are not lent, at most `count_max` are kept.
    #[must_use]
    pub const fn keeping(bytes: usize, count_max: usize) -> Self {
        Self { kept: CoreCell::new(Vec::new()), bytes, count_max }
    }

    /// An empty buffer.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.kept.with(Vec::pop).unwrap_or_else(|| Vec::with_capacity(self.bytes))
    }

    /// Takes one back. What is not of this size any more, and what nobody will need soon, is freed:
    /// `count_max` times the size, and an eighth, is all that is ever kept.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        // An allocator may give a fresh one a little more than was asked for.
        if !(self.bytes..=self.bytes + self.bytes / SLACK).contains(&buffer.capacity()) {
            return;
        }
        self.kept.with(|kept| {
            if kept.len() < self.count_max {
                kept.push(buffer);
            }
        });
    }

    /// For a buffer that carried a credential: wiped before anyone can use it again. All that was
    /// written to it must still be within its length.
    pub fn give_wiped(&self, buffer: Vec<u8>) {
        self.give(wiped(buffer));
    }
}

fn wiped(mut buffer: Vec<u8>) -> Vec<u8> {
    wipe(&mut buffer);
    buffer
}

const KEPT_MAX: usize = 256;
/// This part of its size may a buffer have beyond it.
const SLACK: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{INPUT_BYTES, LEAN_INPUT_BYTES, LONG_BUFFER_BYTES, RELAY_BUFFER_BYTES};

    #[test]
    fn a_buffer_comes_back_empty_and_is_lent_again() {
        let buffers = Buffers::new(64);
        let mut first = buffers.take();
        first.extend_from_slice(b"a token");
        let place = first.as_ptr();
        buffers.give(first);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(again.capacity() >= 64);
        assert_eq!(buffers.kept.with(|kept| kept.len()), 0);
    }

    /// Whatever room the allocator makes of the size.
    #[test]
    fn a_fresh_buffer_is_kept() {
        for bytes in [LEAN_INPUT_BYTES, INPUT_BYTES, RELAY_BUFFER_BYTES, LONG_BUFFER_BYTES] {
            let buffers = Buffers::new(bytes);
            buffers.give(buffers.take());
            buffers.give(Vec::with_capacity(bytes + 1));
            assert_eq!(buffers.kept.with(|kept| kept.len()), 2);
        }
    }

    #[test]
    fn what_carried_a_credential_is_zeros_when_it_is_given_back() {
        let mut buffer = Vec::with_capacity(64);
        buffer.extend_from_slice(b"a token");
        let buffer = wiped(buffer);
        assert_eq!((buffer.as_slice(), buffer.capacity()), (&[0; 7][..], 64));
    }

    #[test]
    fn what_grew_or_is_too_much_is_not_kept() {
        let buffers = Buffers::new(64);
        for capacity in [0, 16, 63, 73, 128, 1024] {
            buffers.give(Vec::with_capacity(capacity));
        }
        assert_eq!(buffers.kept.with(|kept| kept.len()), 0);
        (0..2 * KEPT_MAX).for_each(|_| buffers.give(Vec::with_capacity(64)));
        assert_eq!(buffers.kept.with(|kept| kept.len()), KEPT_MAX);
    }
}
