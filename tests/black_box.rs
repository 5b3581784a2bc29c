//! The gateway seen from outside: the real binary, raw sockets, hostile agents, hostile MCP
//! servers.
//!
//! Case ids (`H01`, `T06`, `M03` …) are those of the catalogue of hostile inputs. Each runs on the
//! `io_uring` and on the epoll driver. A refusal is refused completely: status, reason word,
//! exactly one audit record, nothing forwarded, nothing leaked, and the next agent is served.
#![allow(
    clippy::disallowed_methods,
    reason = "tests watch the gateway from outside, with real time and sockets"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

#[path = "black_box/client.rs"]
mod client;
#[path = "black_box/gateway.rs"]
mod gateway;
#[path = "black_box/hub_peer.rs"]
#[allow(dead_code, reason = "the tests of the hub's calls and lists use the rest")]
mod hub_peer;
#[path = "black_box/hub_rig.rs"]
#[allow(dead_code, reason = "the tests of the hub's calls and lists use the rest")]
mod hub_rig;
#[path = "black_box/hub_bridge.rs"]
mod hub_bridge;
#[path = "black_box/hub_handshakes.rs"]
mod hub_handshakes;
#[path = "black_box/hub_storm.rs"]
mod hub_storm;
#[path = "black_box/hub_whole.rs"]
mod hub_whole;
#[path = "black_box/mmdb.rs"]
mod mmdb;
#[path = "black_box/setup.rs"]
mod setup;
#[path = "black_box/table.rs"]
mod table;
#[path = "black_box/token.rs"]
mod token;
#[path = "black_box/upstream.rs"]
mod upstream;

#[path = "black_box/arguments.rs"]
mod arguments;
#[path = "black_box/countries.rs"]
mod countries;
#[path = "black_box/coverage.rs"]
mod coverage;
#[path = "black_box/faults.rs"]
mod faults;
#[path = "black_box/federation.rs"]
mod federation;
#[path = "black_box/http.rs"]
mod http;
#[path = "black_box/http_body.rs"]
mod http_body;
#[path = "black_box/http_kept.rs"]
mod http_kept;
#[path = "black_box/hub_lists.rs"]
mod hub_lists;
#[path = "black_box/hub_calls.rs"]
mod hub_calls;
#[path = "black_box/hub_names.rs"]
mod hub_names;
#[path = "black_box/identity.rs"]
mod identity;
#[path = "black_box/identity_more.rs"]
mod identity_more;
#[path = "black_box/later.rs"]
mod later;
#[path = "black_box/list_reasons.rs"]
mod list_reasons;
#[path = "black_box/list_streams.rs"]
mod list_streams;
#[path = "black_box/lists.rs"]
mod lists;
#[path = "black_box/message.rs"]
mod message;
#[path = "black_box/methods.rs"]
mod methods;
#[path = "black_box/relay.rs"]
mod relay;
#[path = "black_box/quota.rs"]
mod quota;
#[path = "black_box/pdp.rs"]
mod pdp;
#[path = "black_box/pdp_kept.rs"]
mod pdp_kept;
#[path = "black_box/pdp_trust.rs"]
mod pdp_trust;
#[path = "black_box/sessions.rs"]
mod sessions;
#[path = "black_box/shadows.rs"]
mod shadows;
#[path = "black_box/source.rs"]
mod source;
#[path = "black_box/step_up.rs"]
mod step_up;
#[path = "black_box/answers.rs"]
mod answers;
