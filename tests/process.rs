//! The gateway as a process: the real binary on loopback, with agents and MCP servers made by hand.
//!
//! Cores, signals, reloads, relaying, TLS, the audit across crashes, what the admin listener says,
//! and that no secret leaves. Order and outcome are asserted, with generous limits; never how fast.
#![allow(
    clippy::disallowed_methods,
    reason = "tests watch the gateway from outside, with real time and sockets"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]

#[path = "process/ablation.rs"]
mod ablation;
#[path = "process/admin.rs"]
mod admin;
#[path = "process/audit.rs"]
mod audit;
#[path = "process/bad_policies.rs"]
mod bad_policies;
#[path = "process/breaker.rs"]
mod breaker;
#[path = "process/cancel.rs"]
mod cancel;
#[path = "process/client.rs"]
mod client;
#[path = "process/credentials.rs"]
mod credentials;
#[cfg(feature = "fault-injection")]
#[path = "process/faults.rs"]
mod faults;
#[path = "process/gateway.rs"]
mod gateway;
#[path = "process/http.rs"]
mod http;
#[path = "black_box/hub_peer.rs"]
#[allow(dead_code, reason = "the black box uses the rest")]
mod hub_peer;
#[path = "process/hub_sessions.rs"]
mod hub_sessions;
#[path = "process/hub_streams.rs"]
mod hub_streams;
#[path = "process/many.rs"]
mod many;
#[path = "black_box/mmdb.rs"]
mod mmdb;
#[path = "process/news.rs"]
mod news;
#[path = "process/policy_cli.rs"]
mod policy_cli;
#[path = "process/quota.rs"]
mod quota;
#[path = "process/relay.rs"]
mod relay;
#[path = "process/reload.rs"]
mod reload;
#[path = "process/rollout.rs"]
mod rollout;
#[path = "process/schema_cli.rs"]
mod schema_cli;
#[path = "process/secrets.rs"]
mod secrets;
#[path = "process/sessions.rs"]
mod sessions;
#[path = "process/signals.rs"]
mod signals;
#[path = "process/streams.rs"]
mod streams;
#[path = "process/tls.rs"]
mod tls;
#[path = "process/upstream.rs"]
mod upstream;
#[path = "process/wait.rs"]
mod wait;
#[path = "process/workers.rs"]
mod workers;
