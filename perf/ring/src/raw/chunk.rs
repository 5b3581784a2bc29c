//! Bytes on their way through the relay, and whose memory they stand in.

use std::ops::Range;

/// Bytes that were received, or made to be sent.
#[derive(Debug)]
pub struct Chunk {
    pub(super) memory: Memory,
    pub(super) range: Range<usize>,
}

/// Memory of a chunk.
#[derive(Debug)]
pub(super) enum Memory {
    /// A receive buffer of one size that was submitted with its receive.
    Boxed(Box<[u8]>),
    /// A provided buffer, to go back to its pool.
    Lent { id: u16, bytes: &'static mut [u8] },
    /// A head, perhaps with body behind it.
    Made(Vec<u8>),
}

impl Chunk {
    /// Bytes that were made here.
    #[must_use]
    pub fn made(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { memory: Memory::Made(bytes), range }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.memory {
            Memory::Boxed(bytes) => bytes,
            Memory::Lent { bytes, .. } => bytes,
            Memory::Made(bytes) => bytes,
        };
        all.get(self.range.clone()).unwrap_or_default()
    }

    /// Keeps the bytes of `range` only, counted from the present first one.
    #[must_use]
    pub fn narrowed(mut self, range: Range<usize>) -> Self {
        let start = self.range.start;
        self.range = start + range.start..(start + range.end).min(self.range.end);
        self
    }

    /// The memory belongs to a pool that others need.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        matches!(self.memory, Memory::Lent { .. })
    }
}
