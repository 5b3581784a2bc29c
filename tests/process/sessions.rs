//! A session is known to every core, to other instances with the key and after a restart; and it
//! ends on every core, whichever of them heard of its end.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::json;

use crate::client::{Client, Wire};
use crate::gateway::{Gateway, Setup};
use crate::upstream::{RESULT, Then, Upstream, say, status};
use crate::wait::eventually;

/// Gives every `initialize` a session, answers DELETE with the first status and whatever else comes
/// within a session with the second.
fn upstream(deleted: u16, asked: &Arc<AtomicU16>) -> Upstream {
    let asked = Arc::clone(asked);
    Upstream::start(move |seen, peer| {
        let answer = |peer: &mut dyn crate::upstream::Peer, code: u16, fields: &str| -> Then {
            if code != 200 {
                return status(peer, &format!("{code} Said"), fields);
            }
            let length = RESULT.len();
            say(
                peer,
                &format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{fields}content-length: \
                     {length}\r\n\r\n{RESULT}"
                ),
            )
        };
        if seen.head.starts_with("DELETE") {
            return answer(peer, deleted, "");
        }
        if String::from_utf8_lossy(&seen.body).contains("\"initialize\"") {
            let field = format!("mcp-session-id: upstream-{}\r\n", seen.number);
            return answer(peer, 200, &field);
        }
        answer(peer, asked.load(Ordering::SeqCst), "")
    })
}

/// A client within a session of its own.
fn begin(gateway: &Gateway) -> Client {
    begin_as(&gateway.client())
}

pub(crate) fn begin_as(client: &Client) -> Client {
    let client_info = json!({"name": "x", "version": "1"});
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client_info,
    });
    let answer = client.once(&client.legacy("initialize", &params));
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    client.extra(&format!("mcp-session-id: {session}\r\n"))
}

/// A legacy server that keeps sessions.
fn keeper() -> Upstream {
    Upstream::start(|seen, peer| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        if seen.head.starts_with("DELETE") {
            return status(peer, "200 OK", "");
        }
        if body.contains("notifications/initialized") {
            return status(peer, "202 Accepted", "");
        }
        let message: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        let result = if body.contains("\"initialize\"") {
            json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "keeper", "version": "1"},
            })
        } else {
            json!({"content": []})
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        let (number, length) = (seen.number, answer.len());
        say(
            peer,
            &format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: \
                 upstream-{number}\r\ncontent-length: {length}\r\n\r\n{answer}"
            ),
        )
    })
}

fn delete(client: &Client) -> String {
    format!("{}mcp-protocol-version: 2025-11-25\r\n\r\n", client.head("DELETE"))
}

/// One connection to each core, by the audit record of the `ping` that was sent on it.
pub(crate) fn connections(gateway: &Gateway, client: &Client) -> BTreeMap<u64, Wire<TcpStream>> {
    let pings = || -> Vec<serde_json::Value> {
        let served = |it: &serde_json::Value| it["method"] == "ping" && it["status"] == 200;
        gateway.stage().audit().into_iter().filter(served).collect()
    };
    let mut found = BTreeMap::new();
    eventually("a connection to each of two cores", || {
        let before = pings().len();
        let mut wire = client.open();
        wire.send(&client.legacy("ping", &json!({})));
        assert_eq!(wire.answer().status, 200);
        // Nobody else sends any, so the next record of one is of this.
        eventually("its record", || pings().len() > before);
        found.entry(pings()[before]["core"].as_u64().unwrap()).or_insert(wire);
        found.len() == 2
    });
    found
}

pub(crate) fn ask(wire: &mut Wire<TcpStream>, request: &str) -> (u16, String) {
    wire.send(request);
    let answer = wire.answer();
    let reason = if answer.status == 404 { answer.reason() } else { String::new() };
    (answer.status, reason)
}

#[test]
fn a_session_that_is_deleted_on_one_core_is_unknown_on_the_other() {
    let asked = Arc::new(AtomicU16::new(200));
    let upstream = upstream(200, &asked);
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let (mine, other) = (begin(&gateway), begin(&gateway));
    let mut wires = connections(&gateway, &mine);
    let (first, second) = (*wires.keys().next().unwrap(), *wires.keys().last().unwrap());
    let near = wires.get_mut(&first).unwrap();
    assert_eq!(ask(near, &delete(&mine)).0, 200);
    let gone = (404, "session_mismatch".to_owned());
    assert_eq!(ask(near, &mine.legacy_call("echo")), gone, "on the core that heard of it, at once");
    assert_eq!(ask(near, &delete(&mine)), gone);
    let far = wires.get_mut(&second).unwrap();
    eventually("the other core knows", || ask(far, &mine.legacy_call("echo")) == gone);
    let heard = upstream.requests();
    assert_eq!(ask(far, &mine.legacy_call("echo")), gone);
    assert_eq!(upstream.requests(), heard, "the upstream would have answered 200");
    // It is in the record which core refused.
    let refused = || gateway.stage().audit().into_iter().filter(|it| it["reason"] == gone.1);
    eventually("records of both cores", || {
        refused().any(|it| it["core"] == second) && refused().any(|it| it["core"] == first)
    });
    // Another session of the same principal goes on, on both.
    for wire in wires.values_mut() {
        assert_eq!(ask(wire, &other.legacy_call("echo")).0, 200);
    }
    let notices = "portcullis_bus_notices_total{kind=\"session_ended\"}";
    assert!((gateway.metric(notices) - 2.0).abs() < 0.5, "one for each core");
}

#[test]
fn a_session_that_its_server_forgot_does_not_come_back() {
    let asked = Arc::new(AtomicU16::new(200));
    let upstream = upstream(200, &asked);
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let mine = begin(&gateway);
    let mut wires = connections(&gateway, &mine);
    let (first, second) = (*wires.keys().next().unwrap(), *wires.keys().last().unwrap());
    asked.store(404, Ordering::SeqCst);
    let near = wires.get_mut(&first).unwrap();
    near.send(&mine.legacy_call("echo"));
    assert_eq!(near.answer().status, 404, "the upstream's own");
    asked.store(200, Ordering::SeqCst);
    let gone = (404, "session_mismatch".to_owned());
    assert_eq!(ask(near, &mine.legacy_call("echo")), gone);
    let far = wires.get_mut(&second).unwrap();
    eventually("the other core knows", || ask(far, &mine.legacy_call("echo")) == gone);
}

#[test]
fn a_session_goes_on_when_its_end_fails_and_ends_when_it_is_left_to_time() {
    for (deleted, ends) in [(500, false), (405, true), (404, true), (202, true)] {
        let asked = Arc::new(AtomicU16::new(200));
        let upstream = upstream(deleted, &asked);
        let gateway = Setup::new(upstream.address).start();
        gateway.wait_until_ready();
        let mine = begin(&gateway);
        let mut wire = mine.open();
        wire.send(&delete(&mine));
        assert_eq!(wire.answer().status, deleted);
        let call = mine.legacy_call("echo");
        if ends {
            eventually("it is unknown", || mine.once(&call).status == 404);
        } else {
            // On the connection that it was deleted on: a core that had ended it would know.
            assert_eq!(ask(&mut wire, &call).0, 200);
        }
    }
}

#[test]
fn the_session_of_mcp_ends_on_all_cores_and_at_its_servers() {
    let upstream = keeper();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let hub = gateway.client().path("/mcp");
    let mine = begin_as(&hub);
    // The request, and a leg for each of the two messages of a handshake.
    let records = gateway.audited(3);
    let opened = records.iter().find(|it| it["event"] == "request").unwrap();
    let near = opened["core"].as_u64().unwrap();
    let ping = mine.legacy("ping", &json!({}));
    let bob = Client { token: gateway.stage().token("bob", 600), ..mine.clone() };
    let gone = (404, "session_mismatch".to_owned());
    assert_eq!(ask(&mut bob.open(), &bob.legacy("ping", &json!({}))), gone, "somebody else");
    let mut wires = connections(&gateway, &mine);
    let far = *wires.keys().find(|core| **core != near).unwrap();
    let other = begin_as(&hub);
    let wire = wires.get_mut(&near).unwrap();
    wire.send(&delete(&mine));
    let answer = wire.answer();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let told: Vec<_> =
        upstream.seen().into_iter().filter(|seen| seen.head.starts_with("DELETE")).collect();
    assert_eq!(told.len(), 1, "the server knows");
    let (opening, named) =
        (upstream.seen(), crate::client::header(&told[0].head, "mcp-session-id"));
    let first = opening.iter().find(|seen| !seen.body.is_empty()).unwrap().number;
    assert_eq!(named, Some(&*format!("upstream-{first}")), "by its own id");
    assert_eq!(ask(wire, &ping), gone, "on this core at once");
    assert_eq!(ask(wire, &delete(&mine)), gone);
    let wire = wires.get_mut(&far).unwrap();
    eventually("the other core knows", || ask(wire, &ping) == gone);
    for wire in wires.values_mut() {
        assert_eq!(ask(wire, &other.legacy("ping", &json!({}))).0, 200, "another session goes on");
    }
    let is_end = |it: &serde_json::Value| it["legs"]["answered"] == 1 && it["method"].is_null();
    eventually("a record with its leg", || gateway.stage().audit().iter().any(is_end));
}

/// 2025-11-25 transports, "Session Management": nothing goes on in a session that ended.
#[test]
fn the_stream_of_a_session_ends_with_it_on_either_core() {
    let upstream = keeper();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let hub = gateway.client().path("/mcp");
    let (mine, other) = (begin_as(&hub), begin_as(&hub));
    let fields = "mcp-protocol-version: 2025-11-25\r\n\r\n";
    // One of each session on each core.
    let mut streams = Vec::new();
    for client in [&mine, &other] {
        for (_, mut wire) in connections(&gateway, client) {
            wire.send(&format!("{}{fields}", client.head("GET")));
            let head = wire.read_head();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            streams.push(wire);
        }
    }
    assert_eq!(mine.once(&delete(&mine)).status, 204);
    let (ended, open) = streams.split_at_mut(2);
    for wire in ended {
        let rest = std::iter::from_fn(|| wire.chunk().filter(|chunk| !chunk.is_empty()));
        let said: Vec<u8> = rest.flatten().collect();
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
        // The clean end of the body, not a cut: the connection serves on.
        assert_eq!(ask(wire, &other.legacy("ping", &json!({}))).0, 200);
    }
    assert_eq!(other.once(&delete(&other)).status, 204);
    for wire in open {
        assert_eq!(wire.chunk().as_deref(), Some(&b""[..]));
    }
}

/// `sessions.key` is what makes a session: not the process, and not the core.
#[test]
fn a_session_outlives_its_process_and_its_key_for_one_rotation() {
    let upstream = keeper();
    let keys = |lines: &str| {
        let url = format!("http://{}/mcp", upstream.address);
        let server = crate::gateway::server("sample", &url, "");
        Setup::with_tables(&format!("{server}[sessions]\n{lines}\n"))
    };
    let (one, two, three) = ("file:one", "file:two", "file:three");
    let setup = keys(&format!("key = \"{one}\""));
    let stage = setup.prepare();
    for (name, byte) in [("one", 'A'), ("two", 'B'), ("three", 'C')] {
        stage.write(name, &format!("{}A=", byte.to_string().repeat(42)));
    }
    let mut gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let at =
        |client: &Client, gateway: &Gateway| Client { address: gateway.address, ..client.clone() };
    let sessions = [begin(&gateway), begin_as(&gateway.client().path("/mcp"))];
    let rotated = format!("key = \"{two}\"\nprevious_key = \"{one}\"");
    let replaced = format!("key = \"{three}\"\nprevious_key = \"{two}\"");
    let same = format!("key = \"{one}\"");
    for (lines, status) in [(same, 200), (rotated, 200), (replaced, 404)] {
        gateway = keys(&lines).start_on(gateway.stop());
        gateway.wait_until_ready();
        for client in &sessions {
            let client = at(client, &gateway);
            let answer = client.once(&client.legacy("ping", &json!({})));
            assert_eq!(answer.status, status, "{lines} at {}", client.path);
        }
    }
}
