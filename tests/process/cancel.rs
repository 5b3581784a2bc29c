//! An agent cancels a call on `/mcp`: on another connection, which is with another core.

use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::client::{Client, header};
use crate::gateway::Setup;
use crate::sessions::{ask, begin_as, connections};
use crate::upstream::{EVENTS, Seen, Then, Upstream, chunk, say, status};
use crate::wait::{DEADLINE, eventually};

/// A legacy server whose tools answer when they hear that they need not: `silent` says nothing
/// before, `begun` has begun a stream.
fn stubborn() -> Upstream {
    let cancelled: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    Upstream::start(move |seen, peer| {
        let Ok(message) = serde_json::from_slice::<Value>(&seen.body) else {
            return status(peer, "200 OK", "");
        };
        let (flag, bell) = &*cancelled;
        match message["method"].as_str().unwrap() {
            "initialize" => {
                let result = json!({
                    "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "stubborn", "version": "1"},
                });
                let field = "mcp-session-id: upstream-session\r\n";
                answer(
                    peer,
                    field,
                    &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}),
                )
            }
            "tools/call" => {
                let begun = message["params"]["name"] == "begun";
                if begun {
                    let news = json!({"jsonrpc": "2.0", "method": "notifications/message",
                        "params": {"level": "info", "data": "under way"}});
                    say(peer, EVENTS);
                    say(peer, &chunk(&format!("data: {news}\n\n")));
                }
                let guard = flag.lock().unwrap();
                let (mut guard, late) =
                    bell.wait_timeout_while(guard, DEADLINE, |heard| !*heard).unwrap();
                assert!(!late.timed_out(), "nobody cancelled it");
                *guard = false;
                let late =
                    json!({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}});
                if begun {
                    say(peer, &chunk(&format!("data: {late}\n\n")));
                    return Then::Close;
                }
                answer(peer, "", &late)
            }
            "notifications/cancelled" => {
                *flag.lock().unwrap() = true;
                bell.notify_all();
                status(peer, "202 Accepted", "")
            }
            _ => status(peer, "202 Accepted", ""),
        }
    })
}

fn answer(peer: &mut dyn crate::upstream::Peer, field: &str, message: &Value) -> Then {
    let text = message.to_string();
    let length = text.len();
    say(
        peer,
        &format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{field}content-length: \
             {length}\r\n\r\n{text}"
        ),
    )
}

fn post(client: &Client, message: &Value) -> String {
    client.post_text("mcp-protocol-version: 2025-11-25\r\n", &message.to_string())
}

fn cancel(client: &Client, id: &Value) -> String {
    let params = json!({"requestId": id, "reason": "no longer needed"});
    post(client, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
}

fn heard(upstream: &Upstream, method: &str) -> Vec<(Seen, Value)> {
    let seen = upstream.seen().into_iter();
    let read = seen.filter_map(|it| Some((it.clone(), serde_json::from_slice(&it.body).ok()?)));
    read.filter(|(_, message): &(Seen, Value)| message["method"] == method).collect()
}

#[test]
fn a_call_is_cancelled_from_another_core_and_by_its_own_session_only() {
    let upstream = stubborn();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let hub = gateway.client().path("/mcp");
    let (mine, other) = (begin_as(&hub), begin_as(&hub));
    let bob = Client { token: gateway.stage().token("bob", 600), ..hub };
    let bob = begin_as(&bob);
    let mut wires = connections(&gateway, &mine);
    let (near, far) = (*wires.keys().next().unwrap(), *wires.keys().last().unwrap());
    for (round, (tool, id)) in
        [("silent", json!(41)), ("begun", json!("call-42"))].iter().enumerate()
    {
        let params = json!({"name": format!("sample_{tool}"), "arguments": {}});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        wires.get_mut(&near).unwrap().send(&post(&mine, &call));
        eventually("the server works", || heard(&upstream, "tools/call").len() == round + 1);
        let wire = wires.get_mut(&far).unwrap();
        for stranger in [&bob, &other] {
            assert_eq!(ask(wire, &cancel(stranger, id)).0, 202);
        }
        assert_eq!(ask(wire, &cancel(&mine, &json!(7))).0, 202, "no such call");
        let taken = || gateway.metric("portcullis_mail_total{outcome=\"taken\"}");
        let dropped = || gateway.metric("portcullis_mail_total{outcome=\"dropped\"}");
        let letters = 3.0 * (round + 1) as f64;
        eventually("nobody waits for those", || (dropped() - letters).abs() < 0.5);
        assert_eq!(heard(&upstream, "notifications/cancelled").len(), round);
        assert_eq!(ask(wire, &cancel(&mine, id)).0, 202);
        let wire = wires.get_mut(&near).unwrap();
        let ended = wire.answer();
        assert_eq!((ended.status, ended.header("content-type")), (200, Some("text/event-stream")));
        let text = ended.text();
        assert_eq!(text.contains("under way"), *tool == "begun", "{text}");
        assert!(!text.contains("result") && !text.contains("error"), "no answer: {text}");
        eventually("the letter counts as taken", || (taken() - (round + 1) as f64).abs() < 0.5);
        eventually("the server hears of it", || {
            heard(&upstream, "notifications/cancelled").len() == round + 1
        });
        let (_, asked) = &heard(&upstream, "tools/call")[round];
        let (told, word) = &heard(&upstream, "notifications/cancelled")[round];
        assert_eq!(word["params"]["requestId"], asked["id"], "by the id that the server knows");
        assert_ne!(asked["id"], *id);
        assert_eq!(header(&told.head, "mcp-session-id"), Some("upstream-session"));
        // The connection goes on, with nothing of the late answer on it.
        assert_eq!(ask(wire, &mine.legacy("ping", &json!({}))).0, 200);
    }
    let is_call = |it: &&Value| it["method"] == "tools/call" && it["event"] == "request";
    eventually("both are recorded", || {
        let records = gateway.stage().audit();
        let calls: Vec<_> = records.iter().filter(is_call).collect();
        calls.len() == 2 && calls.iter().all(|it| it["reason"] == "request_aborted")
    });
}
