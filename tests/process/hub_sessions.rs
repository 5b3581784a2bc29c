//! A session at `/mcp` is the client's, not a core's, nor a process's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::client::{Answer, Client, Wire};
use crate::gateway::{Gateway, Setup, Stage, server};
use crate::hub_peer::{Peer, Role};
use crate::wait::eventually;

/// Two servers, of which one has the legacy era only, and a key that outlives the process.
fn setup(peers: &[Peer]) -> Setup {
    let servers = peers.iter().map(|peer| {
        let url = format!("http://127.0.0.1:{}/mcp", peer.port);
        server(peer.name, &url, "")
    });
    let servers = servers.collect::<String>();
    Setup::with_tables(&format!("{servers}\n[sessions]\nkey = \"file:session.key\"\n"))
}

fn peers() -> [Peer; 2] {
    [Peer::start("both", Role::Dual), Peer::start("old", Role::Legacy)]
}

fn prepared(setup: &Setup) -> Stage {
    let stage = setup.prepare();
    stage.write("session.key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n");
    stage
}

/// A client within a session of its own at `/mcp`.
fn begin(gateway: &Gateway) -> Client {
    let client = gateway.client().path("/mcp");
    let hello = client.once(&client.legacy(
        "initialize",
        &json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"}}),
    ));
    let session = hello.header("mcp-session-id").expect("a session").to_owned();
    let client = client.extra(&format!("mcp-session-id: {session}\r\n"));
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    let ready = client.post_text("mcp-protocol-version: 2025-11-25\r\n", &ready);
    assert_eq!(client.once(&ready).status, 202);
    client
}

/// The text that a tool answered, as JSON or as events.
fn said(answer: &Answer) -> String {
    let text = answer.text();
    let message = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    let message: Value = serde_json::from_str(message.unwrap_or(&text)).unwrap_or_default();
    let said = message.pointer("/result/content/0/text").and_then(Value::as_str);
    said.unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

fn delete(client: &Client) -> String {
    format!("{}mcp-protocol-version: 2025-11-25\r\n\r\n", client.head("DELETE"))
}

/// A connection to each of two cores: `core` of the record of what was called on it.
fn connections(gateway: &Gateway, client: &Client) -> BTreeMap<u64, Wire<TcpStream>> {
    let mut found = BTreeMap::new();
    let calls = || {
        let records = gateway.stage().audit();
        let all = records.into_iter().filter(|record| record["method"] == "tools/call");
        all.map(|record| record["core"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    eventually("a connection to each of two cores", || {
        let before = calls().len();
        let mut wire = client.open();
        wire.send(&client.legacy_call("old_alpha"));
        assert_eq!(said(&wire.answer()), "old \"alpha\" {}");
        eventually("its record", || calls().len() > before);
        found.entry(calls()[before]).or_insert(wire);
        found.len() == 2
    });
    found
}

/// Whichever core a request lands on: one session of ours, and one with the server for each core.
#[test]
fn a_session_is_served_by_every_core_and_ends_on_all() {
    let peers = peers();
    let setup = setup(&peers);
    let gateway = setup.start_on(prepared(&setup));
    gateway.wait_until_ready();
    let (mine, other) = (begin(&gateway), begin(&gateway));
    let mut wires = connections(&gateway, &mine);
    let old = &peers[1];
    let used: BTreeSet<_> = old
        .heard("tools/call")
        .iter()
        .map(|heard| heard.header("mcp-session-id").unwrap().to_owned())
        .collect();
    assert_eq!(used.len(), 2, "each core has a session of its own with the server");
    let mut every = wires.values_mut();
    let (near, far) = (every.next().unwrap(), every.next().unwrap());
    near.send(&delete(&mine));
    assert!([200, 204].contains(&near.answer().status));
    near.send(&mine.legacy_call("old_alpha"));
    assert_eq!(near.answer().status, 404, "where it was heard, at once");
    eventually("the other core knows", || {
        far.send(&mine.legacy_call("old_alpha"));
        far.answer().status == 404
    });
    for wire in [near, far] {
        wire.send(&other.legacy_call("old_beta"));
        assert_eq!(said(&wire.answer()), "old \"beta\" {}", "another session goes on");
    }
}

/// With the same key another process serves it as well, and so does the next one.
#[test]
fn a_session_outlives_its_process_and_is_served_by_a_second_one() {
    let peers = peers();
    let setup = setup(&peers);
    let first = setup.start_on(prepared(&setup));
    first.wait_until_ready();
    let client = begin(&first);
    assert_eq!(said(&client.once(&client.legacy_call("old_alpha"))), "old \"alpha\" {}");

    let stage = prepared(&setup);
    stage.write("jwks.json", &first.stage().read("jwks.json"));
    let second = setup.start_on(stage);
    second.wait_until_ready();
    let elsewhere = Client { address: second.address, ..client.clone() };
    assert_eq!(said(&elsewhere.once(&elsewhere.legacy_call("both_beta"))), "both \"beta\" {}");

    let third = setup.start_on(first.kill());
    third.wait_until_ready();
    let again = Client { address: third.address, ..client };
    assert_eq!(said(&again.once(&again.legacy_call("old_beta"))), "old \"beta\" {}");
    // A key of its own is another gateway: it knows nothing of this session.
    let stranger = setup.prepare();
    stranger.write("session.key", "YWJjZGVmMDEyMzQ1Njc4OTAxMjM0NTY3ODlhYmNkZWY=\n");
    stranger.write("jwks.json", &third.stage().read("jwks.json"));
    let stranger = setup.start_on(stranger);
    stranger.wait_until_ready();
    let lost = Client { address: stranger.address, ..again };
    assert_eq!(lost.once(&lost.legacy_call("old_beta")).status, 404);
}
