//! After a change of policies an open stream hears that the lists may have changed: between two
//! events, each kind that was asked for, and nothing else.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use crate::client::{Client, Wire, status};
use crate::gateway::{Gateway, PERMIT_ALL, Setup, one_cpu, server};
use crate::upstream::{EVENTS, Then, Upstream, chunk, say};
use crate::wait::DEADLINE;

/// An upstream whose streams say what the test sends them; those
/// of a witness say nothing. An empty text is the end.
fn scripted() -> (Sender<&'static str>, Upstream) {
    let (send, texts) = channel::<&'static str>();
    let texts: Mutex<Receiver<&'static str>> = Mutex::new(texts);
    let upstream = Upstream::start(move |seen, peer| {
        say(peer, EVENTS);
        if seen.head.to_ascii_lowercase().contains("mcp-param-witness") {
            let _ = peer.read(&mut [0]);
            return Then::Close;
        }
        let texts = texts.lock().unwrap();
        while let Ok(text) = texts.recv_timeout(DEADLINE) {
            if text.is_empty() {
                return say(peer, "0\r\n\r\n");
            }
            if let Then::Close = say(peer, &chunk(text)) {
                break;
            }
        }
        Then::Close
    });
    (send, upstream)
}

/// A gateway of one core with servers `sample` and `other`, and what is around it.
struct Scene {
    /// What the open stream says next.
    says: Sender<&'static str>,
    gateway: Gateway,
    client: Client,
    _upstream: Upstream,
}

impl Scene {
    fn start(driver: &str) -> Self {
        let (says, upstream) = scripted();
        let cores = format!("driver = \"{driver}\"\n{}", one_cpu());
        let url = format!("http://{}/mcp", upstream.address);
        let tables = server("sample", &url, "") + &server("other", &url, "");
        let gateway = Setup::with_tables(&tables).cores(&cores).start();
        gateway.wait_until_ready();
        Self { says, client: gateway.client(), gateway, _upstream: upstream }
    }
}

/// A stream whose head has been read.
fn opened(client: &Client, request: &str) -> Wire<TcpStream> {
    let mut wire = client.open();
    wire.send(request);
    assert_eq!(status(&wire.read_head()), 200);
    wire
}

/// A legacy stream of the same core on which nothing happens but news.
fn witness(client: &Client) -> Wire<TcpStream> {
    opened(client, &format!("{}mcp-param-witness: 1\r\n\r\n", client.head("GET")))
}

/// Changes the policies twice, each time until the witness has heard: whatever else the core has
/// open was looked at after the first of them at the latest.
fn change(gateway: &Gateway, witness: &mut Wire<TcpStream>, round: usize) {
    change_of(gateway, "sample", witness, round);
}

/// The same with policies on one server.
fn change_of(gateway: &Gateway, server: &str, witness: &mut Wire<TcpStream>, round: usize) {
    for time in 0..2 {
        let more = format!(
            "@id(\"no-{round}-{time}\") forbid (principal, action == Action::\"tools/call\", \
             resource == Tool::\"{server}/other-{round}-{time}\");\n"
        );
        gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{more}"));
        gateway.reload();
        assert_eq!(text(witness), news(&["tools", "prompts", "resources"], None));
    }
}

fn text(wire: &mut Wire<TcpStream>) -> String {
    String::from_utf8(wire.chunk().expect("not cut")).unwrap()
}

fn news(lists: &[&str], subscription: Option<u64>) -> String {
    let event = |list: &&str| {
        let mut message =
            json!({"jsonrpc": "2.0", "method": format!("notifications/{list}/list_changed")});
        if let Some(id) = subscription {
            message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] = id.into();
        }
        message
    };
    lists.iter().map(|list| format!("event: message\ndata: {}\n\n", event(list))).collect()
}

#[test]
fn a_legacy_stream_hears_of_all_lists_between_two_events() {
    for driver in ["auto", "epoll"] {
        let Scene { says, gateway, client, .. } = &Scene::start(driver);
        let mut witness = witness(client);
        let mut stream = opened(client, &format!("{}\r\n", client.head("GET")));
        says.send("id: 1\ndata: {}\n\n").unwrap();
        assert_eq!(text(&mut stream), "id: 1\ndata: {}\n\n");
        says.send("id: 2\nda").unwrap();
        change(gateway, &mut witness, 0);
        says.send("ta: {}\n\n").unwrap();
        assert_eq!(text(&mut stream), "id: 2\ndata: {}\n\n", "{driver}: whole");
        assert_eq!(text(&mut stream), news(&["tools", "prompts", "resources"], None), "{driver}");
        // Heard once, and what follows is as it was.
        says.send("id: 3\ndata: {}\n\n").unwrap();
        assert_eq!(text(&mut stream), "id: 3\ndata: {}\n\n");
        says.send("").unwrap();
        assert_eq!(text(&mut stream), "", "{driver}: a clean end");
    }
}

#[test]
fn a_listen_hears_of_what_it_asked_for_behind_the_acknowledgement() {
    let asked = json!({"toolsListChanged": true, "resourcesListChanged": true,
        "promptsListChanged": false});
    for driver in ["auto", "epoll"] {
        let Scene { says, gateway, client, .. } = &Scene::start(driver);
        let mut witness = witness(client);
        let mut stream = opened(
            client,
            &client.modern("subscriptions/listen", &json!({"notifications": asked})),
        );
        says.send(": soon\n\n").unwrap();
        assert_eq!(text(&mut stream), ": soon\n\n");
        change(gateway, &mut witness, 0);
        let acknowledged = "data: {\"jsonrpc\":\"2.0\",\"method\":\"acknowledged\"}\n\n";
        says.send(acknowledged).unwrap();
        assert_eq!(text(&mut stream), acknowledged, "{driver}: first");
        let expected = news(&["tools", "resources"], Some(1));
        let told = text(&mut stream);
        assert_eq!(told, expected, "{driver}");
        let data = told.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let _: Value = serde_json::from_str(data).unwrap();
        // Never into an event.
        says.send("data: {\"a\":").unwrap();
        assert_eq!(text(&mut stream), "data: {\"a\":");
        change(gateway, &mut witness, 1);
        says.send("1}\n\n").unwrap();
        assert_eq!(text(&mut stream), "1}\n\n", "{driver}: not mid-event");
        assert_eq!(text(&mut stream), expected, "{driver}");
    }
}

#[test]
fn who_did_not_ask_hears_nothing() {
    for driver in ["auto", "epoll"] {
        let Scene { says, gateway, client, .. } = &Scene::start(driver);
        let mut witness = witness(client);
        for (round, request) in [
            client.call("watch"),
            client.legacy_call("watch"),
            client.modern("subscriptions/listen", &json!({"notifications": {}})),
        ]
        .iter()
        .enumerate()
        {
            let mut stream = opened(client, request);
            says.send("data: {}\n\n").unwrap();
            assert_eq!(text(&mut stream), "data: {}\n\n");
            change(gateway, &mut witness, round);
            says.send("data: 2\n\n").unwrap();
            assert_eq!(text(&mut stream), "data: 2\n\n", "{driver} {round}");
            says.send("").unwrap();
            assert_eq!(text(&mut stream), "", "{driver} {round}: a clean end");
        }
    }
}

/// What changes on one server is no news of another.
#[test]
fn a_stream_of_another_server_hears_nothing() {
    for driver in ["auto", "epoll"] {
        let Scene { says, gateway, client, .. } = &Scene::start(driver);
        let mut witness = witness(&client.path("/mcp/other"));
        let mut stream = opened(client, &format!("{}\r\n", client.head("GET")));
        change_of(gateway, "other", &mut witness, 0);
        says.send("data: 1\n\n").unwrap();
        assert_eq!(text(&mut stream), "data: 1\n\n", "{driver}");
        // Back to where it began: what decides in `other` is another set, in `sample` the same.
        gateway.stage().write("policies/all.cedar", PERMIT_ALL);
        gateway.reload();
        assert_eq!(text(&mut witness), news(&["tools", "prompts", "resources"], None));
        gateway.stage().write(
            "policies/all.cedar",
            &format!(
                "{PERMIT_ALL}@id(\"no\") forbid (principal, action == Action::\"tools/call\", \
                 resource == Tool::\"sample/no\");\n"
            ),
        );
        gateway.reload();
        let told = news(&["tools", "prompts", "resources"], None);
        assert_eq!(text(&mut stream), told, "{driver}: its own is");
    }
}

/// A list that began under the old policies is answered by the new ones.
#[test]
fn a_list_under_way_is_filtered_by_the_newest_policies() {
    for driver in ["auto", "epoll"] {
        let Scene { says, gateway, client, .. } = &Scene::start(driver);
        let mut witness = witness(client);
        let mut stream = opened(client, &client.list());
        says.send("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[").unwrap();
        change(gateway, &mut witness, 0);
        says.send("{\"name\":\"other-0-1\"},{\"name\":\"fine\"}]}}\n\n").unwrap();
        let list = "{\"cacheScope\":\"private\",\"tools\":[{\"name\":\"fine\"}]}";
        let expected = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{list}}}\n\n");
        assert_eq!(text(&mut stream), expected, "{driver}");
        says.send("").unwrap();
        assert_eq!(text(&mut stream), "", "{driver}: a clean end");
    }
}

/// An agent of HTTP/1.0 has a stream without chunks: what is said stands between the events there,
/// too.
#[test]
fn a_stream_without_chunks_hears_the_same() {
    for driver in ["auto", "epoll"] {
        let Scene { says, gateway, client, .. } = &Scene::start(driver);
        let mut witness = witness(client);
        let mut stream = client.open();
        let head = client.head("GET").replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n");
        stream.send(&format!("{head}\r\n"));
        let head = stream.read_head();
        assert_eq!(status(&head), 200);
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        says.send("data: {\"a\":").unwrap();
        change(gateway, &mut witness, 0);
        says.send("1}\n\n").unwrap();
        let expected =
            format!("data: {{\"a\":1}}\n\n{}", news(&["tools", "prompts", "resources"], None));
        let found = stream.exactly(expected.len()).expect("not cut");
        assert_eq!(String::from_utf8(found).unwrap(), expected, "{driver}");
    }
}
