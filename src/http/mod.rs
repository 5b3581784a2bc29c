//! Strict HTTP/1.1 without I/O: bytes in, meaning or a refusal out (RFC 9110, RFC 9112).
//!
//! One rule stands above the others: what two parsers could read in two ways is refused, because
//! the next hop may be the other parser. So only CRLF ends a line, a message has exactly one
//! length, and a field that must be single is single. `httparse` judges the grammar a second time;
//! our own scan runs first, bounds every size while bytes arrive, and never looks at a byte twice.
//!
//! The verdict depends on the bytes alone, never on how the network cut them.

pub mod body;
mod bytes;
mod field;
mod fields;
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

    /// Where `part`, a slice of `whole`, lies in it. Heads are bounded far below 4 GiB; anything
    /// else becomes the empty span.
    fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        if start > end || end > whole.len() {
            return Self::default();
        }
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            (Ok(_) | Err(_), _) => Self::default(),
        }
    }
}
