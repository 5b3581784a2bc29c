//! MCP without I/O: one JSON-RPC message is read once, to its end, and everything that a decision
//! needs is copied out of it.
//!
//! What was judged is what is sent: the parser works on a scratch copy, the relay sends the
//! original bytes. So nothing here may accept a body that another parser could read differently,
//! and every doubt is a refusal (cases M01-M10).

mod envelope;
mod era;
mod facts;
mod identifier;
mod method;
pub mod session;
mod tree;

#[cfg(test)]
mod tests;

pub use envelope::{Call, Kind, Target};
pub use era::{Era, MODERN_REVISIONS, Mirrored, REVISIONS, bodyless_revision};
pub use method::{METHOD_COUNT, Method};
