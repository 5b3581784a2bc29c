//! Buffers of one core, lent to whoever reads or writes and taken back: a warm request allocates
//! none.

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
        let mut buffer = self.kept.with(Vec::pop).unwrap_or_default();
        buffer.reserve(self.bytes);
        buffer
    }

    /// Takes one back. What grew far beyond its size, and what nobody will need soon, is freed.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() == 0 || buffer.capacity() > 2 * self.bytes {
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
    pub fn give_wiped(&self, mut buffer: Vec<u8>) {
        zeroize::Zeroize::zeroize(buffer.as_mut_slice());
        self.give(buffer);
    }
}

const KEPT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_grew_or_is_too_much_is_not_kept() {
        let buffers = Buffers::new(64);
        buffers.give(Vec::with_capacity(1024));
        buffers.give(Vec::new());
        assert_eq!(buffers.kept.with(|kept| kept.len()), 0);
        (0..2 * KEPT_MAX).for_each(|_| buffers.give(Vec::with_capacity(64)));
        assert_eq!(buffers.kept.with(|kept| kept.len()), KEPT_MAX);
    }
}
