//! The open-ended streams of `/mcp`: acknowledged first, told when what the agent may see has
//! changed, ended in order, and recorded.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Client, Wire, status};
use crate::gateway::{Gateway, PERMIT_ALL, Setup, one_cpu, server};

const DRIVERS: [&str; 2] = ["auto", "epoll"];

/// A gateway of one core, whose two servers nobody needs here.
fn start(driver: &str) -> Gateway {
    let tables =
        server("one", "http://127.0.0.1:9/mcp", "") + &server("two", "http://127.0.0.1:9/mcp", "");
    let gateway =
        Setup::with_tables(&tables).cores(&format!("driver = \"{driver}\"\n{}", one_cpu())).start();
    gateway.wait_until_ready();
    gateway
}

fn listen(client: &Client, asked: &Value) -> Wire<std::net::TcpStream> {
    let mut wire = client.open();
    wire.send(&client.modern("subscriptions/listen", &json!({ "notifications": asked })));
    assert_eq!(status(&wire.read_head()), 200);
    wire
}

/// The messages of the next chunk.
fn messages(wire: &mut Wire<std::net::TcpStream>) -> Vec<Value> {
    let text = String::from_utf8(wire.chunk().expect("not cut")).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["method"].as_str().unwrap_or("-")).collect()
}

fn change(gateway: &Gateway, server: &str, name: &str) {
    let more = format!(
        "@id(\"no-{name}\") forbid (principal, action == Action::\"tools/call\", \
         resource == Tool::\"{server}/{name}\");\n"
    );
    gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{more}"));
    gateway.reload();
}

const ID: &str = "io.modelcontextprotocol/subscriptionId";

#[test]
fn a_listen_is_acknowledged_hears_of_changes_and_ends_with_its_result() {
    for driver in DRIVERS {
        let mut gateway = start(driver);
        let client = gateway.client().path("/mcp");
        let asked = json!({"toolsListChanged": true, "promptsListChanged": false,
            "resourcesListChanged": true, "resourceSubscriptions": ["file:///a"]});
        let mut wire = listen(&client, &asked);
        let first = messages(&mut wire);
        assert_eq!(methods(&first), ["notifications/subscriptions/acknowledged"], "{driver}");
        // What is not served is not acknowledged.
        let honoured = json!({"toolsListChanged": true, "resourcesListChanged": true});
        assert_eq!(first[0]["params"]["notifications"], honoured, "{driver}");
        assert_eq!(first[0]["params"]["_meta"][ID], 1, "{driver}");
        for (server, name) in [("one", "a"), ("two", "b")] {
            change(&gateway, server, name);
            let told = messages(&mut wire);
            let expected =
                ["notifications/tools/list_changed", "notifications/resources/list_changed"];
            assert_eq!(methods(&told), expected, "{driver}: of either server");
            assert!(told.iter().all(|told| told["params"]["_meta"][ID] == 1), "{told:?}");
        }
        gateway.signal(Signal::TERM);
        let last = messages(&mut wire);
        assert_eq!(last[0]["result"]["resultType"], "complete", "{driver}: {last:?}");
        assert_eq!((&last[0]["id"], &last[0]["result"]["_meta"][ID]), (&json!(1), &json!(1)));
        assert_eq!(wire.chunk().as_deref(), Some(&b""[..]), "{driver}: a clean end");
        assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.said());
        let records = gateway.stage().audit();
        assert_eq!(records.len(), 1, "{records:?}");
        let record = &records[0];
        assert_eq!(record["method"], "subscriptions/listen", "{record}");
        assert_eq!((&record["decision"], &record["server"]), (&json!("permit"), &Value::Null));
        assert_eq!((&record["user"], &record["reason"]), (&json!("alice"), &json!("draining")));
        assert_eq!(record["policy"], json!(["all"]), "{record}");
    }
}

#[test]
fn who_may_connect_no_longer_loses_the_stream() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let client = gateway.client().path("/mcp");
        let mut wire = listen(&client, &json!({"toolsListChanged": true}));
        assert_eq!(messages(&mut wire).len(), 1);
        let no = "@id(\"closed\") forbid (principal, action == Action::\"connect\", resource);\n";
        gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{no}"));
        gateway.reload();
        assert!(wire.chunk().is_none_or(|chunk| chunk.is_empty()), "{driver}: nothing more");
        assert!(wire.ended(), "{driver}");
        let mut late = client.open();
        late.send(&client.modern("subscriptions/listen", &json!({"notifications": {}})));
        let refused = late.answer();
        assert_eq!((refused.status, refused.reason()), (403, "no_permit".to_owned()), "{driver}");
    }
}

#[test]
fn a_legacy_stream_hears_of_all_lists() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let client = gateway.client().path("/mcp");
        let mut wire = client.open();
        wire.send(&format!("{}\r\n", client.head("GET")));
        let head = wire.read_head();
        assert_eq!(status(&head), 200, "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        change(&gateway, "two", "b");
        let told = messages(&mut wire);
        let expected = ["tools", "prompts", "resources"];
        assert_eq!(methods(&told), expected.map(|l| format!("notifications/{l}/list_changed")));
        assert!(told.iter().all(|told| told.get("params").is_none()), "{told:?}");
    }
}
