//! Cache lines with one writer.
//!
//! Cores pay for a line that another core writes, whether or not they want the same bytes of it. So
//! what crosses cores is aligned to [`LINES_BYTES`] and filled up to a multiple of it: by this
//! wrapper, or by `repr(align(128))` on a type that is shared as a whole. In an `Arc` that puts
//! the counts on lines of their own, too. `tests/share_nothing.rs` keeps the list.

use std::ops::Deref;

/// Two lines of 64 bytes: x86 fetches a line's neighbour along with it, and some ARM cores have
/// lines of this length.
pub const LINES_BYTES: usize = 128;

/// A value on lines that hold nothing else.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Lines<T>(T);

const _: () = assert!(align_of::<Lines<u8>>() == LINES_BYTES);

impl<T> Lines<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Lines<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
