//! Portcullis: the open MCP identity gateway for Linux VMs.
//!
//! The way of a request, which [`gateway`] reads as: a worker accepts a connection ([`listener`]),
//! one HTTP request is read and framed ([`http`]), its token is validated ([`identity`]), its body
//! is parsed once as an MCP message ([`mcp`]), access policy decides ([`policy`]), the user's own
//! credential is obtained ([`credential`]), the decision is committed to the audit ring
//! ([`audit`]), and the request is relayed ([`relay`]). Anything missing or doubtful means no.
//!
//! Modules stand in layers; imports run downward only, and `tests/tidy.rs` holds the table.

// 0: vocabulary, no I/O
pub mod address;
pub mod clock;
pub mod core_cell;
pub mod event;
pub mod fault;
pub mod limits;
pub mod lines;
pub mod metrics;
pub mod places;
pub mod reject;
pub mod secret;
// 1: meaning without I/O
pub mod bus;
pub mod config;
pub mod geo;
pub mod http;
pub mod mcp;
// 2: sockets, and the one file with unsafe code
pub mod mapped;
pub mod net;
// 3: judging without I/O, and talking to the control plane
pub mod control;
pub mod judge;
// 4: stages; each imports only what stands above it
pub mod listener;
pub mod identity;
pub mod policy;
pub mod quota;
pub mod credential;
pub mod relay;
pub mod audit;
// 5: assembly
pub mod ablation;
pub mod world;
pub mod hub;
pub mod mail;
pub mod shard;
pub mod gateway;
pub mod supervisor;
pub mod worker;
pub mod admin;
pub mod authoring;
pub mod cli;
pub mod demo;
pub mod devtoken;
pub mod manual;
// Attempts to fake what only a stage may make; never compiled but to see them fail
#[cfg(forgery)]
mod forgery;
