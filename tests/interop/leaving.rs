//! Who goes away in the middle: the client, or the gateway.

use serde_json::{Value, json};

use crate::gateway::{Gateway, USER};
use crate::install::tools;
use crate::process::{Running, eventually};
use crate::wire::{LEGACY, MODERN, Wire, modern_meta};
use crate::{everything, http, node, observed, permit_all, serial};

/// mcp M12: a modern client that goes away cancels its call.
#[test]
fn going_away_cancels_in_the_modern_era() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all("gone-modern", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let headers = [MODERN, "Mcp-Method: tools/call", "Mcp-Name: test_hold"];
    let (held, _) = wire.hold(&headers, modern_meta());
    assert_eq!((&observed(port)["held"], &observed(port)["cancelled"]), (&json!(1), &json!(0)));
    drop(held);
    eventually("the call is cancelled", || (observed(port)["cancelled"] == 1).then_some(()));
}

/// mcp L7, M12, in front of a server that sends its head only with the finished answer.
#[test]
fn going_away_before_the_head_cancels_in_the_modern_era_only() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let mut lax = Running::start("lax", &tools.runs, node(tools, "lax.mjs").arg("0"));
    let port = lax.port();
    let gateway = Gateway::start(tools, &permit_all("gone-early", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let call = |name: &str, meta: Value| {
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": name, "arguments": {}, "_meta": meta}})
    };
    let held = |n: u64| {
        eventually("the call is held", || (observed(port)["held"] == n).then_some(()));
    };
    let legacy = wire.post(&[LEGACY], &call("test_hold", json!({})));
    held(1);
    let headers = [MODERN, "Mcp-Method: tools/call", "Mcp-Name: test_hold"];
    let modern = wire.post(&headers, &call("test_hold", modern_meta()));
    held(2);
    // The legacy client first: once the other one's leaving has come through, so would its own.
    drop(legacy);
    drop(modern);
    eventually("a call is cancelled", || (observed(port)["cancelled"] != 0).then_some(()));
    let mut released = wire.post(&[LEGACY], &call("test_release", json!({})));
    http::read_until(&mut released, "called test_release");
    assert_eq!(observed(port)["cancelled"], 1, "a legacy disconnect is no cancel");

    let (_, records) = gateway.stop();
    let mut ended: Vec<_> = records
        .iter()
        .filter(|record| record["name"] == "test_hold")
        .map(|record| (record["revision"].as_str().unwrap(), record["reason"].as_str().unwrap()))
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [("2025-11-25", "ok"), ("2026-07-28", "request_aborted")]);
}

/// mcp L6, L7: a legacy client that goes away does not cancel; it comes back with the id of the
/// last event it read and gets the answer, once.
#[test]
fn going_away_is_resumed_in_the_legacy_era() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all("gone-legacy", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let session = wire.legacy_session();
    let (held, seen) = wire.hold(&[&session, LEGACY], json!({}));
    let id = session.split_once(": ").unwrap().1;
    assert!(seen.contains(id), "a session keeps its id, which bears its age: {seen}");
    let last = seen.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
    let last = format!("Last-Event-ID: {}", last.unwrap_or_else(|| panic!("no event id: {seen}")));
    drop(held);

    // It comes back while the call still lasts. The upstream resumes the stream, which it shows by
    // another event id, only once it has noticed that the client left; before, it answers with
    // nothing, and the client tries again.
    let resume = [&*session, LEGACY, &last, "Accept: text/event-stream", "Connection: close"];
    let (mut resumed, mut rest) = eventually("the stream is resumed", || {
        let mut stream = wire.send("GET", &resume, "");
        let seen = http::read_on(&mut stream, "\nid: ").ok()?;
        Some((stream, seen))
    });
    let release = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "test_release"}});
    let mut released = wire.post(&[&session, LEGACY], &release);
    http::read_until(&mut released, "Let go");
    rest.push_str(&http::read_until(&mut resumed, "Released"));
    assert_eq!(rest.matches("notifications/progress").count(), 0, "nothing comes twice: {rest}");
    assert_eq!(observed(port)["cancelled"], 0, "a disconnect is no cancel");
}

/// mcp M16: a gateway that leaves ends its listen streams in words, so that the client knows that
/// it has missed nothing.
#[test]
fn a_drain_ends_listen_streams_in_an_orderly_way() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all("drain", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let body = json!({"jsonrpc": "2.0", "id": "l\"1", "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": true}, "_meta": modern_meta()}});
    let mut stream = wire.post(&[MODERN, "Mcp-Method: subscriptions/listen"], &body);
    http::read_until(&mut stream, "notifications/subscriptions/acknowledged");
    let (status, _) = gateway.stop();
    assert!(status.success(), "{status}");
    let rest = http::read_until(&mut stream, "\r\n0\r\n\r\n");
    let result = rest.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
    let result: Value = serde_json::from_str(result).unwrap_or_else(|e| panic!("{e}: {rest}"));
    let tagged = json!({"io.modelcontextprotocol/subscriptionId": "l\"1"});
    assert_eq!(
        result,
        json!({"jsonrpc": "2.0", "id": "l\"1",
            "result": {"resultType": "complete", "_meta": tagged}})
    );
}
