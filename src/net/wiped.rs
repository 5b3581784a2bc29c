//! A buffer for bytes that may hold a token: no copy of them stays behind in memory.
//!
//! Emptying, moving or dropping a `Vec` leaves what was in it where it was. Here it is wiped first;
//! only as much as was used, for a request needs some 2 KiB of a buffer of many.

use std::mem;
use std::ops::{Deref, DerefMut, Range};

use zeroize::Zeroize;

/// Bytes that are wiped before their memory serves anything else. INVARIANT: behind its length lies
/// nothing that was ever part of it. The one exception is what a TLS session has not decrypted: it
/// is lent out, moved and grown unwiped, for it is ciphertext.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Lends the bytes to a read, for which there must be room: it only appends.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        mem::take(&mut self.0)
    }

    /// Takes them back, or others; what it held is wiped.
    pub fn put(&mut self, bytes: Vec<u8>) {
        wipe(&mut self.0);
        self.0 = bytes;
    }

    /// Bytes for which it has memory.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Makes zeros of `range`, which stays.
    pub fn blank(&mut self, range: Range<usize>) {
        wipe(self.0.get_mut(range).unwrap_or_default());
    }

    /// Takes `range` out; what is behind it moves to its place.
    pub fn cut(&mut self, range: Range<usize>) {
        let kept = close(&mut self.0, range);
        self.0.truncate(kept);
    }

    /// Forgets all of it, and keeps the memory.
    pub fn clear(&mut self) {
        wipe(&mut self.0);
        self.0.clear();
    }

    /// Makes room for `more` bytes behind those it holds; at least twice the room, if any.
    pub fn grow(&mut self, more: usize) {
        let length = self.0.len();
        if self.0.capacity() - length < more {
            drop(self.swap(Vec::with_capacity(length + more.max(length))));
        }
    }

    /// Appends.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.grow(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Goes on in `memory`, which is empty, and gives up what it had: zeros.
    #[must_use]
    pub fn swap(&mut self, mut memory: Vec<u8>) -> Vec<u8> {
        memory.extend_from_slice(&self.0);
        wipe(&mut self.0);
        mem::replace(&mut self.0, memory)
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Moves what lies behind `gap` to its beginning, and makes zeros of all that this leaves over.
/// Says where they begin.
fn close(bytes: &mut [u8], gap: Range<usize>) -> usize {
    let end = gap.end.min(bytes.len());
    let begin = gap.start.min(end);
    let kept = bytes.len() - (end - begin);
    bytes.copy_within(end.., begin);
    wipe(bytes.get_mut(kept..).unwrap_or_default());
    kept
}

/// Not `Vec::zeroize`, which wipes the whole capacity.
pub(super) fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(text: &[u8]) -> Wiped {
        let mut bytes = Wiped::new();
        bytes.extend(text);
        bytes
    }

    /// What `cut` cuts off is looked at before it is out of sight.
    #[test]
    fn what_a_cut_leaves_over_is_zero() {
        for (gap, left) in [
            (0..5, &b"next\0\0\0\0\0"[..]),
            (0..0, b"tokennext"),
            (0..9, &[0; 9]),
            (2..7, b"toxt\0\0\0\0\0"),
            (5..99, b"token\0\0\0\0"),
            (99..99, b"tokennext"),
        ] {
            let mut bytes = *b"tokennext";
            let kept = close(&mut bytes, gap.clone());
            assert_eq!(bytes, left, "{gap:?}");
            let mut whole = holding(b"tokennext");
            whole.cut(gap);
            assert_eq!(*whole, left[..kept]);
        }
    }

    #[test]
    fn memory_that_is_given_up_is_zero() {
        let mut bytes = holding(b"token");
        let old = bytes.swap(Vec::with_capacity(64));
        assert_eq!((old.as_slice(), &*bytes, bytes.capacity()), (&[0; 5][..], &b"token"[..], 64));
        bytes.blank(1..3);
        assert_eq!(*bytes, *b"t\0\0en");
    }

    #[test]
    fn it_grows_when_it_must_and_then_twofold() {
        let mut bytes = Wiped::new();
        bytes.put(Vec::with_capacity(8));
        bytes.extend(b"12345");
        bytes.grow(3);
        assert_eq!(bytes.capacity(), 8);
        bytes.grow(4);
        assert_eq!((bytes.capacity(), &*bytes), (10, &b"12345"[..]));
        bytes.clear();
        assert_eq!((bytes.capacity(), bytes.len()), (10, 0));
    }
}
