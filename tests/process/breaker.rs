//! A server of `/mcp` that fails again and again is left alone for a while, and `/status` says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::gateway::{Gateway, Setup, one_cpu};
use crate::upstream::{Upstream, json as answer, status};
use crate::wait::eventually;

/// A modern server that answers, or does not while it is `broken`.
fn modern(broken: &Arc<AtomicBool>) -> Upstream {
    let broken = Arc::clone(broken);
    Upstream::start(move |seen, peer| {
        if broken.load(Ordering::SeqCst) {
            return status(peer, "503 Service Unavailable", "");
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
    let broken = Arc::new(AtomicBool::new(false));
    let upstream = modern(&broken);
    let gateway = Setup::new(upstream.address).cores(&one_cpu()).start();
    gateway.wait_until_ready();
    let fresh = json!({"name": "sample", "era": null, "breaker": "closed", "last_error": null});
    assert_eq!(server(&gateway), fresh);
    let client = gateway.client().path("/mcp");
    let mut wire = client.open();
    let mut call = || {
        wire.send(&client.call("sample_echo"));
        wire.answer()
    };
    let first = call();
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.json()["result"].is_object(), "{first:?}");
    assert_eq!(server(&gateway)["era"], "modern");
    broken.store(true, Ordering::SeqCst);
    let before = upstream.requests();
    // Five failures in a row, whatever else is counted as one; then none goes any more.
    eventually("the breaker opens", || call().reason() == "upstream_suspended");
    let tried = upstream.requests() - before;
    assert!(tried <= 5, "{tried} requests at a server that fails");
    let heard = upstream.requests();
    let suspended = call();
    assert_eq!((suspended.status, suspended.reason().as_str()), (503, "upstream_suspended"));
    assert_eq!(upstream.requests(), heard, "it is left alone");
    eventually("status says so", || server(&gateway)["breaker"] == "open");
    let open = "portcullis_upstream_breaker{server=\"sample\",state=\"open\"}";
    assert!(gateway.metric(open) > 0.5);
    // It is well again, and the one that tries it after the pause finds out.
    broken.store(false, Ordering::SeqCst);
    eventually("it answers again", || call().json()["result"].is_object());
    eventually("status says so", || server(&gateway)["breaker"] == "closed");
    let closed = "portcullis_upstream_breaker{server=\"sample\",state=\"closed\"}";
    assert!(gateway.metric(closed) > 0.5);
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
