//! One audit record per request, committed in two steps.
//!
//! [`AuditRing::decide`] keeps the decision before the upstream is contacted,
//! [`AuditRing::complete`] keeps what came of it, [`AuditRing::refuse`] keeps both at once for a
//! request that no upstream ever saw. Keeping means: copied into a file mapped into memory, one
//! ring per core, without a system call, a lock, an allocation or any formatting. What is in the
//! ring survives the process.
//!
//! The [`Writer`] thread joins the two halves to one JSON line and appends it to the audit file. A
//! request open longer than a minute gets an early line (`opened`) before its final one. After a
//! crash the next process drains the rings first; a decision whose outcome died with the process
//! is written as `unknown`. `instance`, `core` and `seq` are gap-free per process start; records
//! that could not be kept are told by a `gap` record with their number.
//!
//! Without `fsync` this is safe against the death of the process, not against a power cut.

#[cfg(feature = "bench-internals")]
pub mod by_hand;
mod codec;
mod directory;
mod entry;
mod join;
mod json;
mod line;
mod name;
mod parked;
mod pauses;
mod recovery;
mod ring;
mod sink;
mod time;
mod writer;

pub use entry::{
    CredentialCache, CredentialUse, Decision, EVENT_LEG, EVENT_METADATA, EVENT_PREFLIGHT,
    EVENT_REQUEST, Empty, Entry, Legs, List, Name, Outcome, Tally, TokenReference, trace_id,
};
pub use ring::{AuditRing, Ticket};
pub use writer::{Counts, Started, Writer};

#[cfg(test)]
mod tests;
