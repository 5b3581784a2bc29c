//! MCP without I/O: one JSON-RPC message is read once, to its end, and everything that a decision
//! needs is copied out of it.
//!
//! What was judged is what is sent: the parser works on a scratch copy, the relay sends the
//! original bytes. So nothing here may accept a body that another parser could read differently,
//! and every doubt is a refusal (cases M01-M10).

mod arguments;
pub mod bridge;
pub mod capability;
pub mod catalog;
pub mod ended;
mod envelope;
mod era;
mod facts;
pub mod handshake;
pub mod hub_session;
mod identifier;
mod list;
pub mod message;
mod method;
pub mod names;
pub mod paging;
mod planned;
pub mod seal;
pub mod session;
pub mod span;
pub mod splice;
pub mod state;
pub mod template;
mod tree;
pub mod write;

#[cfg(test)]
mod tests;

pub use arguments::{Arguments, Doubt, Field, Item, Items, Plan, Shape, Writer};
pub use envelope::{Call, Kind, Known, Target};
pub use era::{
    ASSUMED_REVISION, Era, MODERN_REVISIONS, Mirrored, REVISIONS, bodyless_revision, field_value,
};
pub use facts::ListChanges;
pub use list::{Found, ListReader, Listed, may_hold_a_list};
pub use method::{METHOD_COUNT, Method};
