//! Real foreign parts around the real gateway: the official conformance suite, the Python and
//! TypeScript SDKs as clients and servers, the published reference server, and a real OAuth
//! provider.
//!
//! Everything is pinned in `tests/interop/` and installed once under `target/interop/`. The areas
//! run one at a time. They assert what happened and in which order, with generous limits, never how
//! fast.
#![allow(
    clippy::disallowed_methods,
    reason = "tests watch the gateway from outside, with real time and sockets"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

#[path = "interop/conformance.rs"]
mod conformance;
#[path = "interop/gateway.rs"]
mod gateway;
#[path = "interop/http.rs"]
mod http;
#[path = "interop/install.rs"]
mod install;
#[path = "interop/leaving.rs"]
mod leaving;
#[path = "interop/many.rs"]
mod many;
#[path = "interop/pdp.rs"]
mod pdp;
#[path = "interop/policy.rs"]
mod policy;
#[path = "interop/process.rs"]
mod process;
#[path = "interop/provider.rs"]
mod provider;
#[path = "interop/sdks.rs"]
mod sdks;
#[path = "interop/suite.rs"]
mod suite;
#[path = "interop/wire.rs"]
mod wire;

use gateway::{Gateway, PERMIT_ALL, Setup, USER};
use install::{Tools, data_folder};
use process::Running;
use provider::{oidc_token, status};
use sdks::{Sdk, client, client_with};

/// One area at a time: two cores, and the suite starts many clients at once.
fn serial() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

// Foreign parts.

fn python(tools: &Tools, script: &str) -> Command {
    let mut command = Command::new(&tools.python);
    // No __pycache__ beside the sources.
    command.arg(data_folder().join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(tools: &Tools, script: &str) -> Command {
    let mut command = Command::new(&tools.node);
    command.arg(tools.scripts.join(script));
    command
}

fn everything(tools: &Tools) -> (Running, u16) {
    let mut running =
        Running::start("everything", &tools.runs, python(tools, "everything.py").arg("0"));
    let port = running.port();
    (running, port)
}

/// The published server, which speaks the legacy era only.
fn reference(tools: &Tools) -> (Running, u16) {
    let mut command = Command::new(&tools.node);
    command.arg("--import").arg(tools.scripts.join("loopback.mjs")).arg(tools.reference_server());
    command.arg("streamableHttp").env("PORT", "0");
    let mut running = Running::start("reference", &tools.runs, &mut command);
    let port = running.port();
    (running, port)
}

/// A server on fastmcp, which speaks both eras.
fn fast(tools: &Tools) -> (Running, u16) {
    let mut running = Running::start("fast", &tools.runs, python(tools, "fast.py").arg("0"));
    let port = running.port();
    (running, port)
}

/// The shim in front of `port`; without a token it adds nothing.
fn shim(tools: &Tools, port: u16, token: Option<&str>) -> (Running, u16) {
    let mut command = node(tools, "shim.mjs");
    command.args(["0", &format!("http://127.0.0.1:{port}")]);
    if let Some(token) = token {
        command.env("SHIM_TOKEN", token);
    }
    let mut running = Running::start("shim", &tools.runs, &mut command);
    let port = running.port();
    (running, port)
}

fn permit_all<'a>(name: &'a str, port: u16) -> Setup<'a> {
    let upstream = format!("http://127.0.0.1:{port}/mcp");
    let (policies, beside) = (PERMIT_ALL, &[]);
    Setup { name, upstream, issuer: None, policies, decides: None, prefix: None, beside }
}

// What must hold after every area.

/// What our own upstream saw.
fn observed(port: u16) -> Value {
    http::send(port, "GET /observed", &[], "").json()
}

/// Token passthrough is forbidden (mcp section 0, fact 6): the upstream has no credential here, so
/// it saw none at all.
fn upstream_saw_no_token(port: u16) {
    let observed = observed(port);
    assert!(observed["requests"].as_u64().unwrap() > 0, "{observed}");
    assert_eq!(observed["authorization"], json!([]), "{observed}");
}

/// The gateway drains and ends well, and its audit knows who did it all, without the token.
///
/// What is public is recorded under other events than `request`: nobody was judged.
fn ends_with_a_true_record(gateway: Gateway, token: &str) -> Vec<Value> {
    let (status, records) = gateway.stop();
    assert!(status.success(), "{status}");
    let permitted: Vec<_> = records
        .iter()
        .filter(|record| record["event"] == "request" && record["decision"] == "permit")
        .collect();
    assert!(!permitted.is_empty(), "no permit in {} records", records.len());
    for record in &permitted {
        assert_eq!(record["user"], USER, "{record}");
        // At `/mcp` what is asked of all servers is recorded without one, and with a leg for each.
        let of_all =
            record["server"].is_null() && !ONE_TARGET.iter().any(|m| record["method"] == *m);
        assert!(of_all || record["server"] == "everything", "{record}");
    }
    for record in &records {
        assert!(!record.to_string().contains(token), "the token is in the audit");
    }
    records
}

/// What has one server, wherever it is asked.
const ONE_TARGET: [&str; 4] =
    ["tools/call", "prompts/get", "resources/read", "completion/complete"];
/// JSON-RPC code of a denial on a permitted server (contract).
const DENIED: i64 = 1403;
