//! A server of `/mcp` that fails again and again is left alone for a while, and `/status` says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::gateway::{Gateway, Setup, one_cpu};
use crate::upstream::{Upstream, json as answer, status};
use crate::wait::eventually;

/// A modern server that answers (0), says that it cannot (1), or says what is no answer (2).
fn modern(mood: &Arc<AtomicUsize>) -> Upstream {
    let mood = Arc::clone(mood);
    Upstream::start(move |seen, peer| {
        match mood.load(Ordering::SeqCst) {
            0 => {}
            1 => return status(peer, "503 Service Unavailable", ""),
            _ => return answer(peer, "{\"jsonrpc\":"),
        }
        let message: Value = serde_json::from_slice(&seen.body).unwrap();
        let result = match message["method"].as_str().unwrap() {
            "server/discover" => json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
            }),
            _ => json!({"resultType": "complete", "content": []}),
        };
        answer(peer, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
    })
}

fn server(gateway: &Gateway) -> Value {
    gateway.admin("/status").json()["servers"][0].clone()
}

#[test]
fn a_server_that_fails_is_left_alone_and_tried_again() {
    let mood = Arc::new(AtomicUsize::new(0));
    let upstream = modern(&mood);
    let gateway = Setup::new(upstream.address).cores(&one_cpu()).start();
    gateway.wait_until_ready();
    let fresh = json!({"name": "sample", "era": null, "breaker": "closed", "last_error": null});
    assert_eq!(server(&gateway), fresh);
    let client = gateway.client().path("/mcp");
    let call = || client.once(&client.call("sample_echo"));
    let first = call();
    assert!(first.json()["result"].is_object(), "{first:?}");
    assert_eq!(server(&gateway)["era"], "modern");
    for fails in [1, 2] {
        mood.store(fails, Ordering::SeqCst);
        let before = upstream.requests();
        // Five failures in a row, and none goes any more.
        eventually("the breaker opens", || call().reason() == "upstream_suspended");
        assert_eq!(upstream.requests() - before, 5, "requests at a server that fails");
        let suspended = call();
        assert_eq!((suspended.status, suspended.reason().as_str()), (503, "upstream_suspended"));
        assert_eq!(upstream.requests() - before, 5, "it is left alone");
        eventually("status says so", || server(&gateway)["breaker"] == "open");
        // Neither was an answer to what was asked.
        assert_eq!(server(&gateway)["last_error"]["reason"], "upstream_malformed");
        let series = |state: &str| {
            format!("portcullis_upstream_breaker{{server=\"sample\",state=\"{state}\"}}")
        };
        assert!(gateway.metric(&series("open")) > 0.5);
        // It is well again, and the one that tries it after the pause finds out.
        mood.store(0, Ordering::SeqCst);
        eventually("it answers again", || call().json()["result"].is_object());
        eventually("status says so", || server(&gateway)["breaker"] == "closed");
        assert!(gateway.metric(&series("closed")) > 0.5);
    }
}

#[test]
fn status_names_the_last_error_of_a_server() {
    // A port that was free a moment ago: nobody listens.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Setup::new(gone).cores(&one_cpu()).start();
    gateway.wait_until_ready();
    for path in ["/mcp/sample", "/mcp"] {
        let client = gateway.client().path(path);
        let tool = if path == "/mcp" { "sample_echo" } else { "echo" };
        let answer = client.once(&client.call(tool));
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_connect"), "{path}");
        let error = &server(&gateway)["last_error"];
        assert_eq!(error["reason"], "upstream_connect", "{path}: {error}");
    }
}
