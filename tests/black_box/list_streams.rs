//! Lists in streams, and in answers where nobody asked for one.

use serde_json::{Value, json};

use super::client::{Client, Way, text};
use super::gateway::{DRIVERS, Gateway};
use super::lists::{
    EVENTS, FRAMINGS, Framing, JSON, LISTS, List, answered, asked, framed, messages, start,
};
use super::table::Post;

/// Everything around a list in a stream goes on as it came, at every cut: line ends of all three
/// kinds, a byte order mark, comments, ids, requests of the server, a list over several lines.
#[test]
fn what_stands_around_a_list_in_a_stream_is_kept() {
    let list = &LISTS[0];
    let pretty = serde_json::to_string_pretty(&list.sent()).unwrap();
    let lines: String = pretty.lines().map(|line| format!("data: {line}\r\n")).collect();
    let around = [
        "\u{feff}: hello\r\r",
        "event: ping\ndata: 2026\n\n",
        "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\r\n\r\n",
        "id: 8\rretry: 5000\rdata\rdata:{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\r\r",
    ];
    let before: String = around.concat();
    let stream = format!("{before}event: message\r\nid: 9\r\n{lines}retry: 7\r\n\r\n: bye\n\n");
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        let post = asked(&gateway, "alice", list.method, false);
        for (framing, piece) in
            [(Framing::Chunked, 0), (Framing::Length, 1), (Framing::UntilClose, 2)]
        {
            let answer = answered(&gateway, &post, (EVENTS, framing, piece), stream.as_bytes());
            let found = text(&answer.body);
            let rest = found.strip_prefix(&before).unwrap_or_else(|| panic!("{found:?}"));
            assert!(rest.starts_with("event: message\nid: 9\ndata: {"), "{rest:?}");
            assert!(rest.contains("\nretry: 7\n\n"), "{rest:?}");
            assert!(rest.ends_with(": bye\n\n"), "{rest:?}");
            assert_eq!(messages(rest), [list.shown()], "{driver:?}");
            assert!(answer.complete);
        }
        // Cut off before the empty line: some clients take the last event for a whole one.
        let cut = format!("data: {}\n", list.sent());
        let answer = answered(&gateway, &post, (EVENTS, Framing::Chunked, 0), cut.as_bytes());
        assert_eq!(messages(&text(&answer.body)), [list.shown()]);
    }
}

/// A legacy session of `user` on `narrow`, as its agent knows it.
pub(super) fn session(gateway: &Gateway, user: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
    let answer =
        gateway.ask(&Post::with_token(&gateway.keys.token(user)).to("narrow").body(body).bytes());
    answer.header("mcp-session-id").expect("a session id").to_owned()
}

/// GET of the stream of `narrow`, with more fields.
pub(super) fn stream(gateway: &Gateway, user: &str, fields: &str) -> Vec<u8> {
    let token = gateway.keys.token(user);
    format!(
        "GET /mcp/narrow HTTP/1.1\r\nHost: portcullis.localhost\r\nAuthorization: Bearer {token}\r\n\
         Accept: text/event-stream\r\nMcp-Param-Script: said\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// A resumed stream may repeat the answer to a list: it is filtered there, too, whichever it is.
#[test]
fn a_stream_that_repeats_a_list_is_filtered() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let session = session(&gateway, "alice");
        let fields = format!("Mcp-Session-Id: {session}\r\nLast-Event-ID: 6\r\n");
        let repeated: String = LISTS
            .iter()
            .enumerate()
            .map(|(id, list)| format!("id: {id}\ndata: {}\n\n", list.sent()))
            .collect();
        let other =
            r#"{"jsonrpc":"2.0","id":5,"result":{"content":[{"tools":[{"name":"other"}]}]}}"#;
        let repeated = format!("{repeated}data: {other}\n\n: and\n\n");
        for piece in [0, 1] {
            let framed = framed(EVENTS, Framing::Chunked, repeated.as_bytes());
            gateway.upstream.say(framed, false, piece);
            let mut client = Client::connect(gateway.address);
            client.send(&stream(&gateway, "alice", &fields), Way::Whole);
            let answer = client.answer().unwrap();
            assert_eq!(gateway.upstream.last().header("last-event-id"), Some("6"));
            let found = messages(&text(&answer.body));
            let (last, lists) = found.split_last().unwrap();
            let shown: Vec<Value> = LISTS.iter().map(List::shown).collect();
            assert_eq!(lists, shown, "{driver:?}");
            assert_eq!(last.to_string(), other.parse::<Value>().unwrap().to_string());
            assert!(text(&answer.body).ends_with(": and\n\n") && answer.complete);
        }
        // Two kinds in one result: nobody knows which it answers.
        let both = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"prompts":[]}}"#;
        let event = format!("data: {{\"jsonrpc\":\"2.0\"}}\n\ndata: {both}\n\n");
        gateway.upstream.say(framed(EVENTS, Framing::Chunked, event.as_bytes()), false, 0);
        let answer = gateway.ask(&stream(&gateway, "alice", &fields));
        assert!(!text(&answer.body).contains("prompts"), "{answer:?}");
        let records = turn.records(&gateway, 4);
        assert_eq!(records[1]["list"], json!({"upstream": 13, "shown": 7}));
        assert_eq!(records[3]["reason"], "upstream_malformed");
    }
}

/// Official servers of the legacy era answer whoever used an id last in the session: the list that
/// was asked for with one request comes as the answer to another (seen in their sources).
#[test]
fn a_list_that_strays_into_another_answer_is_filtered() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let session = session(&gateway, "alice");
        let mut asked_for = 1;
        for method in ["ping", "prompts/list", "resources/list"] {
            let post = asked(&gateway, "alice", method, false);
            let post = post.field(&format!("Mcp-Session-Id: {session}"));
            for list in &LISTS {
                for framing in FRAMINGS {
                    let body = list.sent().to_string();
                    let answer = answered(&gateway, &post, (JSON, framing, 0), body.as_bytes());
                    assert_eq!(answer.json(), list.shown(), "{method}: {}", list.method);
                    let event = format!("data: {body}\n\n");
                    let answer = answered(&gateway, &post, (EVENTS, framing, 0), event.as_bytes());
                    assert_eq!(messages(&text(&answer.body)), [list.shown()], "{method}");
                    asked_for += 2;
                }
            }
        }
        // What is no list comes as it is, however long.
        let post = asked(&gateway, "alice", "ping", false);
        let post = post.field(&format!("Mcp-Session-Id: {session}"));
        for length in [0, 4_000, 5_000, 200_000] {
            let long = "x".repeat(length);
            let body = format!(r#"{{"id":1,"result":{{"content":"{long}"}},"jsonrpc":"2.0"}}"#);
            for framing in FRAMINGS {
                let answer = answered(&gateway, &post, (JSON, framing, 0), body.as_bytes());
                assert_eq!((answer.status, text(&answer.body)), (200, body.clone()), "{length}");
                asked_for += 1;
            }
        }
        let records = turn.records(&gateway, asked_for);
        assert_eq!(records[1]["list"]["upstream"], LISTS[0].sent.len());
    }
}
