//! What io_uring can give a relay, measured: two relays that share every byte of parsing and
//! rewriting and differ only in how they reach the kernel.
//!
//! `ring-relay` drives a ring of its own and can use what monoio 0.2.4 does not offer (multishot
//! accept and receive, provided buffers, direct descriptors, deferred task work, linked and
//! vectored sends); `monoio-relay` is the same relay on monoio. Both run one thread. They are
//! controls for measurements, not products: one upstream, no TLS, no timers of their own (the
//! kernel ends a peer that takes nothing for [`sockets::STALLED_MS_MAX`]).

pub mod chunks;
pub mod message;
pub mod options;
pub mod raw;
pub mod relay;
pub mod sockets;
pub mod twin;
