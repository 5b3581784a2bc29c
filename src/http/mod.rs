//! Strict HTTP/1.1 without I/O: bytes in, meaning or a refusal out (RFC 9110, RFC 9112).
//!
//! One rule stands above the others: what two parsers could read in two ways is refused, because
//! the next hop may be the other parser. So only CRLF ends a line, a message has exactly one
//! length, and a field that must be single is single. One scan bounds every size and finds every
//! field while bytes arrive. Its reading is held against a slower one of our own and against
//! `httparse` over generated and broken heads, which all three must read alike (tests).
//!
//! The verdict depends on the bytes alone, never on how the network cut them.

pub mod body;
mod bytes;
pub mod events;
mod field;
mod fields;
pub mod forwarded;
pub mod head;
pub mod headers;
pub mod host;
pub mod response;
mod scan;
pub mod sse;
pub mod write;

#[cfg(test)]
mod tests;

pub use body::{BodyDecoder, Framing, Step};
pub use field::Field;
pub use head::{Method, RequestHead};
pub use response::ResponseHead;

use crate::limits;

/// A range of the connection buffer that was handed to `parse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes it names; empty when it lies outside of `buf`.
    #[must_use]
    pub fn of<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// A range of a head, which is bounded far below 4 GiB.
    const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

const _: () = assert!(limits::HEAD_BYTES_MAX <= u32::MAX as usize, "a place of a head is a Span's");
const _: () = assert!(limits::UPSTREAM_HEAD_BYTES_MAX <= u32::MAX as usize, "of any head");
