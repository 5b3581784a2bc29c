//! Rate limits: who asks too often is told when to come back, and the upstream hears nothing.

use serde_json::{Value, json};

use super::client::{Client, Way};
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::table::{Post, tool_call};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// An hour for each request, so that nothing is granted anew while a test runs. `open` is for the
/// first answer of each start.
const LIMITS: &str = r#"
[[rate_limit]]
name = "calls"
per = ["user"]
server = "tools"
requests = 3
seconds = 10800
[[rate_limit]]
name = "echoes"
per = ["agent", "tool"]
server = "bearer"
tool = "echo"
requests = 2
seconds = 7200
burst = 1
"#;

/// A gateway of `workers` cores whose limits nobody has used yet.
fn start(driver: Driver, workers: &str) -> Gateway {
    let gateway = Gateway::start_with(driver, LIMITS, |directory| {
        let path = directory.join("gateway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("[cores]\n", &format!("[cores]\ncpus = \"{workers}\"\n"));
        std::fs::write(path, text).unwrap();
    });
    let ready = Post::new(&gateway).to("open").bytes();
    until("the first answer", || gateway.ask(&ready).status == 200);
    gateway
}

fn get(gateway: &Gateway, verb: &str) -> Vec<u8> {
    let token = gateway.keys.token("alice");
    format!(
        "{verb} /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\n\
         Accept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn who_asks_too_often_is_refused_with_429_and_handshakes_with_503() {
    for driver in DRIVERS {
        let gateway = start(driver, "0");
        let turn = gateway.turn();
        let alice = || Post::new(&gateway);
        let mut count = 0;
        // What is denied costs nothing, nor does what ends something.
        for _ in 0..5 {
            assert_eq!(gateway.ask(&alice().body(tool_call("delete")).bytes()).code(), Some(1403));
            assert_eq!(gateway.ask(&alice().body(ANSWER).bytes()).status, 200);
            assert_eq!(gateway.ask(&get(&gateway, "DELETE")).status, 200);
            count += 3;
        }
        // A call, a notification and a stream: three requests.
        assert_eq!(gateway.ask(&alice().bytes()).status, 200);
        assert_eq!(gateway.ask(&alice().body(NOTIFICATION).bytes()).status, 202);
        assert_eq!(gateway.ask(&get(&gateway, "GET")).status, 200);
        count += 3;
        let before = gateway.upstream.heard();
        let discover = alice()
            .body(DISCOVER)
            .field("MCP-Protocol-Version: 2026-07-28")
            .field("Mcp-Method: server/discover");
        let refused = [
            (alice().bytes(), 429, Some(1429)),
            (alice().body(tool_call("other")).bytes(), 429, Some(1429)),
            (alice().body(NOTIFICATION).bytes(), 429, None),
            (get(&gateway, "GET"), 429, None),
            (alice().body(INITIALIZE).bytes(), 503, Some(1503)),
            (discover.bytes(), 503, Some(1503)),
        ];
        for (request, status, code) in &refused {
            let answer = gateway.ask(request);
            let shown = format!("{driver:?}: {answer:?}");
            assert_eq!((answer.status, &*answer.reason()), (*status, "quota"), "{shown}");
            assert_eq!(answer.code(), *code, "{shown}");
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((3500..=3600).contains(&seconds), "{shown}");
        }
        assert_eq!(gateway.upstream.heard(), before, "nothing was forwarded");
        // A denial stays a denial, and what ends something stays free.
        assert_eq!(gateway.ask(&alice().body(tool_call("delete")).bytes()).code(), Some(1403));
        assert_eq!(gateway.ask(&alice().body(ANSWER).bytes()).status, 200);
        // Others, and other servers, are counted apart.
        assert_eq!(gateway.ask(&Post::with_token(&gateway.keys.token("bob")).bytes()).status, 200);
        assert_eq!(gateway.ask(&alice().to("open").bytes()).status, 200);
        let records = turn.records(&gateway, count + refused.len() + 4);
        for record in &records[count..count + refused.len()] {
            assert_eq!(record["decision"], "deny", "{record}");
            assert_eq!(record["reason"], "quota", "{record}");
            assert_eq!(record["limit"], "calls", "{record}");
            assert_eq!(record["policy"], json!(["alice-tools"]), "{record}");
        }
        let others = records[..count].iter().chain(&records[count + refused.len()..]);
        assert!(others.into_iter().all(|record| record["limit"] == Value::Null));
    }
}

/// A limit on a tool is about calls of that tool; agents are told apart, whoever they act for.
#[test]
fn a_limit_on_a_tool_counts_its_calls_only() {
    for driver in DRIVERS {
        let gateway = start(driver, "0");
        let _turn = gateway.turn();
        let alice = || Post::new(&gateway).to("bearer");
        for _ in 0..3 {
            assert_eq!(gateway.ask(&alice().body(tool_call("other")).bytes()).status, 200);
            assert_eq!(gateway.ask(&alice().body(INITIALIZE).bytes()).status, 200);
        }
        assert_eq!(gateway.ask(&alice().bytes()).status, 200);
        let answer = gateway.ask(&alice().bytes());
        assert_eq!((answer.status, &*answer.reason()), (429, "quota"), "one at once: {answer:?}");
        let mut claims = gateway.keys.claims("alice");
        claims["client_id"] = "agent-8".into();
        let other = Post::with_token(&gateway.keys.signed(&claims)).to("bearer");
        assert_eq!(gateway.ask(&other.bytes()).status, 200);
        assert_eq!(gateway.ask(&alice().body(tool_call("other")).bytes()).status, 200);
    }
}

/// Each core counts for itself: over two of them, never more than twice the limit, and over one
/// connection, never more than the limit.
#[test]
fn two_cores_grant_at_most_twice_the_limit() {
    for driver in DRIVERS {
        let gateway = start(driver, "0-1");
        let _turn = gateway.turn();
        let request = Post::new(&gateway).bytes();
        let mut client = Client::connect(gateway.address);
        let mut granted = 0;
        for _ in 0..6 {
            client.send(&request, Way::Whole);
            granted += usize::from(client.answer().unwrap().status == 200);
        }
        assert_eq!(granted, 3, "{driver:?}: one connection is one core's");
        let more = (0..40).filter(|_| gateway.ask(&request).status == 200).count();
        // Of forty connections some are the other core's, which has its own three.
        assert_eq!(more, 3, "{driver:?}: on other connections");
    }
}
