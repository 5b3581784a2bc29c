//! Lists: an agent sees of them what it may use, whatever way they come (M14).

use serde_json::{Value, json};

use super::client::{Answer, Client, Way, text};
use super::gateway::{DRIVERS, Driver, Gateway};
use super::table::{Post, assert_silent};

/// One list method: what the upstream answers, what is shown of it, and what was hidden.
struct List {
    method: &'static str,
    member: &'static str,
    key: &'static str,
    sent: &'static [&'static str],
    shown: &'static [&'static str],
}

const LISTS: [List; 4] = [
    List {
        method: "tools/list",
        member: "tools",
        key: "name",
        sent: &["other", "allowed", "Allowed", "all"],
        shown: &["allowed"],
    },
    List {
        method: "prompts/list",
        member: "prompts",
        key: "name",
        sent: &["other", "completed", "allowed"],
        shown: &["allowed", "completed"],
    },
    List {
        method: "resources/list",
        member: "resources",
        key: "uri",
        sent: &["file:///watched", "file:///Allowed", "file:///allowed", "file:///other"],
        shown: &["file:///allowed", "file:///watched"],
    },
    List {
        method: "resources/templates/list",
        member: "resourceTemplates",
        key: "uriTemplate",
        sent: &["file:///{b}", "file:///{a}"],
        shown: &["file:///{a}", "file:///{b}"],
    },
];

/// How the upstream frames its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::UntilClose];

/// alice may use some of `narrow`; dora may list it and use nothing; erin may use all of it but
/// is forbidden to; what stops finn fails to evaluate.
const POLICIES: &str = r#"
@id("narrow-prompt")
permit (principal == User::"alice", action == Action::"prompts/get",
  resource == Prompt::"narrow/allowed");
@id("narrow-completion")
permit (principal == User::"alice", action == Action::"completion/complete",
  resource == Prompt::"narrow/completed");
@id("narrow-read")
permit (principal == User::"alice", action == Action::"resources/read",
  resource == Resource::"narrow/file:///allowed");
@id("narrow-watch")
permit (principal == User::"alice", action == Action::"resources/subscribe",
  resource == Resource::"narrow/file:///watched");
@id("dora-lists")
permit (principal == User::"dora", action in [Action::"session", Action::"list"],
  resource in Server::"narrow");
@id("erin-all")
permit (principal == User::"erin", action, resource in Server::"narrow");
@id("erin-nothing")
forbid (principal == User::"erin", action in Action::"use", resource in Server::"narrow");
@id("finn-all")
permit (principal == User::"finn", action, resource in Server::"narrow");
@id("finn-fails")
forbid (principal == User::"finn", action in Action::"use", resource in Server::"narrow")
when { context.local.minute_of_day * 9223372036854775807 + 9223372036854775807 > 0 };
"#;

fn start(driver: Driver) -> Gateway {
    let gateway = Gateway::start_with(driver, "", |directory| {
        std::fs::write(directory.join("policies/lists.cedar"), POLICIES).unwrap();
    });
    super::gateway::until("the first answer", || {
        gateway.ask(&Post::new(&gateway).bytes()).status == 200
    });
    gateway
}

impl List {
    fn item(&self, name: &str) -> Value {
        json!({ self.key: name, "description": format!("[{{\"{name}\"}}], \u{e9}"), "n": 1.50 })
    }

    fn message(&self, names: &[&str], more: Value) -> Value {
        let items: Vec<Value> = names.iter().map(|name| self.item(name)).collect();
        let mut result = json!({ self.member: items, "nextCursor": "page2" });
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "jsonrpc": "2.0", "id": 1, "result": result })
    }

    fn sent(&self) -> Value {
        self.message(self.sent, json!({}))
    }

    fn shown(&self) -> Value {
        self.message(self.shown, json!({}))
    }
}

/// The request for a list of `narrow` as `user`.
fn asked(gateway: &Gateway, user: &str, method: &str, modern: bool) -> Post {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let params = if modern { format!("{{{meta}}}") } else { "{}".to_owned() };
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let post = Post::with_token(&gateway.keys.token(user)).to("narrow").body(body).script("said");
    if !modern {
        return post;
    }
    post.field("MCP-Protocol-Version: 2026-07-28").field(&format!("Mcp-Method: {method}"))
}

fn framed(kind: &str, framing: Framing, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n").into_bytes();
    match framing {
        Framing::Length => {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
            bytes.extend(body);
        }
        Framing::Chunked => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            // Chunks end where nothing else does.
            for piece in body.chunks(37) {
                bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                bytes.extend(piece);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
        Framing::UntilClose => {
            bytes.extend(b"Connection: close\r\n\r\n");
            bytes.extend(body);
        }
    }
    bytes
}

/// Asks for a list that the upstream answers with `body`.
fn answered(
    gateway: &Gateway,
    post: &Post,
    (kind, framing, piece): (&str, Framing, usize),
    body: &[u8],
) -> Answer {
    gateway.upstream.say(framed(kind, framing, body), framing == Framing::UntilClose, piece);
    gateway.ask(&post.bytes())
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const WHOLE: (&str, Framing, usize) = (JSON, Framing::Length, 0);

/// The messages in the data of a stream's events (WHATWG HTML §9.2.6).
fn messages(stream: &str) -> Vec<Value> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let data = |event: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let values = lines.map(|value| value.strip_prefix(' ').unwrap_or(value));
        values.collect::<Vec<_>>().join("\n")
    };
    let events = lines.split("\n\n").map(data).filter(|data| !data.is_empty());
    events.map(|data| serde_json::from_str(&data).unwrap()).collect()
}

#[test]
fn m14_lists_leave_out_what_is_denied() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let mut count = 0;
        for list in &LISTS {
            let body = list.sent().to_string();
            let event = format!("event: message\r\nid: 7\r\ndata: {body}\r\n\r\n");
            for (kind, body) in [(JSON, &body), (EVENTS, &event)] {
                for (framing, piece) in FRAMINGS.map(|it| (it, 0)).into_iter().chain([
                    (Framing::Length, 1),
                    (Framing::Chunked, 1),
                    (Framing::UntilClose, 7),
                ]) {
                    let shown = format!("{} {kind} {framing:?} {piece} {driver:?}", list.method);
                    let post = asked(&gateway, "alice", list.method, false);
                    let how = (kind, framing, piece);
                    let answer = answered(&gateway, &post, how, body.as_bytes());
                    assert_eq!((answer.status, answer.complete), (200, true), "{shown}");
                    let found = text(&answer.body);
                    if kind == JSON {
                        assert_eq!(answer.json(), list.shown(), "{shown}");
                        let length = answer.body.len().to_string();
                        assert_eq!(answer.header("content-length"), Some(&*length), "{shown}");
                    } else {
                        assert_eq!(messages(&found), [list.shown()], "{shown}");
                        assert!(found.starts_with("event: message\nid: 7\ndata: {"), "{found}");
                    }
                    count += 1;
                }
            }
            for record in turn.records(&gateway, count) {
                let tally = &record["list"];
                assert!(tally["upstream"].as_u64() >= tally["shown"].as_u64(), "{record}");
                assert_eq!(tally["empty"], Value::Null, "{record}");
            }
        }
        assert_silent(&gateway.everything_written(), "what was written");
    }
}

/// What a list hides is blocked: whoever calls it hears no, and the upstream hears nothing.
#[test]
fn m14_hidden_is_blocked() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        for list in &LISTS[..3] {
            let uses: &[&str] = match list.member {
                "tools" => &["tools/call"],
                "prompts" => &["prompts/get", "completion/complete"],
                _ => &["resources/read", "resources/subscribe", "completion/complete"],
            };
            for name in list.sent {
                let permitted = uses.iter().filter(|method| {
                    let params = match (**method, list.key) {
                        ("completion/complete", "name") => {
                            json!({"ref": {"type": "ref/prompt", "name": name}})
                        }
                        ("completion/complete", _) => {
                            json!({"ref": {"type": "ref/resource", "uri": name}})
                        }
                        (_, key) => json!({ key: name }),
                    };
                    let body =
                        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
                    let before = gateway.upstream.heard();
                    let post = Post::new(&gateway).to("narrow").body(body.to_string());
                    let answer = gateway.ask(&post.bytes());
                    assert_eq!(answer.status, 200);
                    let heard = gateway.upstream.heard() != before;
                    assert_eq!(answer.code(), (!heard).then_some(1403), "{method} {name}");
                    heard
                });
                let shown = list.shown.contains(name);
                assert_eq!(permitted.count() > 0, shown, "{} {name} {driver:?}", list.method);
            }
        }
    }
}

/// What the record says of a list of which nothing is shown, and what is answered.
#[test]
fn m14_an_empty_list_says_why_in_the_record() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let mut wanted = Vec::new();
        for list in &LISTS {
            for (user, sent, why) in [
                ("dora", list.sent(), "no_permit"),
                ("erin", list.sent(), "forbidden"),
                ("finn", list.sent(), "error"),
                ("dora", list.message(&[], json!({})), "upstream"),
                ("erin", list.message(&[], json!({})), "upstream"),
            ] {
                let post = asked(&gateway, user, list.method, false);
                let answer = answered(&gateway, &post, WHOLE, sent.to_string().as_bytes());
                assert_eq!(answer.json(), list.message(&[], json!({})), "{user} {driver:?}");
                let sent = sent["result"][list.member].as_array().unwrap().len();
                wanted.push(json!({"upstream": sent, "shown": 0, "empty": why}));
            }
        }
        let hidden: usize = LISTS.iter().map(|list| 3 * list.sent.len()).sum();
        let records = turn.records(&gateway, wanted.len());
        let found: Vec<_> = records.iter().map(|record| record["list"].clone()).collect();
        assert_eq!(found, wanted, "{driver:?}");
        let metrics = text(&gateway.page("/metrics").body);
        let counted = |outcome: &str, count: usize| {
            metrics.contains(&format!("list_items_total{{outcome=\"{outcome}\"}} {count}\n"))
        };
        assert!(counted("shown", 0) && counted("hidden", hidden), "{hidden}: {metrics}");
    }
}

/// MCP 2026-07-28, server/utilities/caching: what is one agent's list may not be another's.
#[test]
fn a_filtered_list_is_private_in_the_modern_era() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        for list in &LISTS {
            for scope in [json!({}), json!({"cacheScope": "public", "ttlMs": 5})] {
                let sent = list.message(list.sent, scope.clone()).to_string();
                let mut shown = list.message(list.shown, scope);
                shown["result"]["cacheScope"] = "private".into();
                let post = asked(&gateway, "alice", list.method, true);
                let answer = answered(&gateway, &post, WHOLE, sent.as_bytes());
                assert_eq!(answer.json(), shown, "{} {driver:?}", list.method);
                let event = format!("data: {sent}\n\n");
                let how = (EVENTS, Framing::Chunked, 0);
                let answer = answered(&gateway, &post, how, event.as_bytes());
                assert_eq!(messages(&text(&answer.body)), [shown], "{driver:?}");
            }
        }
    }
}

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

/// What would be filtered as UTF-8 and read as something else is refused.
#[test]
fn a_list_in_another_charset_is_502() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        let list = &LISTS[0];
        let event = format!("data: {}\n\n", list.sent());
        let post = asked(&gateway, "alice", list.method, false);
        for (kind, body) in [(JSON, list.sent().to_string()), (EVENTS, event)] {
            for (charset, status) in [("utf-7", 502), ("\"UTF-16\"", 502), ("utf-8", 200)] {
                let said = format!("{kind}; charset={charset}");
                let how = (&*said, Framing::Length, 0);
                let answer = answered(&gateway, &post, how, body.as_bytes());
                assert_eq!(answer.status, status, "{said} {driver:?}");
                let found = text(&answer.body);
                assert!(!found.contains("other"), "{said} {driver:?}: {found}");
            }
        }
    }
}

/// An agent of HTTP/1.0 reads until the connection ends, and gets no length of the unfiltered.
#[test]
fn lists_for_http_1_0() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        let list = &LISTS[0];
        let body = list.sent().to_string();
        let event = format!("data: {body}\n\n");
        let post = text(&asked(&gateway, "alice", list.method, false).bytes());
        let post = post.replace("HTTP/1.1\r\n", "HTTP/1.0\r\n");
        for framing in FRAMINGS {
            for (kind, body) in [(JSON, &body), (EVENTS, &event)] {
                let closes = framing == Framing::UntilClose;
                gateway.upstream.say(framed(kind, framing, body.as_bytes()), closes, 0);
                let answer = gateway.ask(post.as_bytes());
                let shown = format!("{kind} {framing:?} {driver:?}: {answer:?}");
                assert_eq!(answer.header("transfer-encoding"), None, "{shown}");
                assert_eq!(answer.header("connection"), Some("close"), "{shown}");
                assert!(answer.complete, "{shown}");
                if kind == JSON {
                    assert_eq!(answer.json(), list.shown(), "{shown}");
                } else {
                    assert_eq!(messages(&text(&answer.body)), [list.shown()], "{shown}");
                }
            }
        }
    }
}

/// What could be read in two ways is refused, and so is what is over the bounds.
#[test]
fn doubtful_lists_are_502() {
    let bare = |items: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{items}}}}}"#);
    let long = format!(r#"[{{"name":"a","description":"{}"}}]"#, "x".repeat(4 * 1024 * 1024));
    let many = format!("[{}1]", "1,".repeat(10_000));
    let good = LISTS[0].sent().to_string();
    let bodies = [
        ("oversized", bare(&long)),
        ("too many items", bare(&many)),
        ("equal keys", good.replace(r#""nextCursor""#, r#""tools":[],"nextCursor""#)),
        ("equal names", bare(r#"[{"name":"allowed","name":"other"}]"#)),
        ("another case", good.replace(r#""nextCursor""#, r#""Tools":[],"nextCursor""#)),
        ("no list", bare(r#"{"name":"other"}"#)),
        ("batch", format!("[{good}]")),
        ("two values", format!("{good} {good}")),
        ("cut", good[..good.len() - 1].to_owned()),
        ("no JSON", "tools".to_owned()),
        ("empty object behind a mark", format!("\u{feff}{good}")),
    ];
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let post = asked(&gateway, "alice", "tools/list", false);
        let mut wanted = Vec::new();
        for (what, body) in &bodies {
            for framing in FRAMINGS {
                let how = (JSON, framing, 0);
                let answer = answered(&gateway, &post, how, body.as_bytes());
                let shown = format!("{what} {framing:?} {driver:?}");
                assert_eq!(answer.status, 502, "{shown}");
                assert_eq!(answer.reason(), "upstream_malformed", "{shown}");
                wanted.push("upstream_malformed");
            }
            // In a stream, before anything of it went out, too. What no parser takes for an object
            // may pass.
            if body.contains('{') {
                let event = format!("data: {body}\n\n");
                let how = (EVENTS, Framing::Length, 0);
                let answer = answered(&gateway, &post, how, event.as_bytes());
                let cut = answer.status == 502 || (answer.status == 200 && !answer.complete);
                assert!(cut && !text(&answer.body).contains("\"name\""), "{what}: {answer:?}");
                wanted.push("upstream_malformed");
            }
        }
        for coding in ["gzip", "br"] {
            let head = format!("application/json\r\nContent-Encoding: {coding}");
            let how = (&*head, Framing::Length, 0);
            let answer = answered(&gateway, &post, how, good.as_bytes());
            assert_eq!((answer.status, &*answer.reason()), (502, "upstream_content_type"));
            wanted.push("upstream_content_type");
        }
        assert_eq!(turn.reasons(&gateway, wanted.len()), wanted);
    }
}

/// Errors of the upstream, and what has a status but no list, come as they were.
#[test]
fn upstream_errors_pass_unchanged() {
    let error = r#"{"jsonrpc":"2.0" , "id":1,"error":{"code":-32602,"message":"tools: [{}]"}}"#;
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        let post = asked(&gateway, "alice", "tools/list", false);
        let answer = answered(&gateway, &post, WHOLE, error.as_bytes());
        assert_eq!((answer.status, text(&answer.body).as_str()), (200, error));
        let event = format!("data: {error}\r\n\r\n");
        let answer = answered(&gateway, &post, (EVENTS, Framing::Length, 0), event.as_bytes());
        assert_eq!((answer.status, text(&answer.body)), (200, event));
        for (status, body, shown) in [
            ("400 Bad Request", error, error),
            ("404 Not Found", "\"no such session\"", ""),
            ("405 Method Not Allowed", "null", ""),
            ("500 Internal Server Error", "[]", ""),
        ] {
            let framed = text(&framed(JSON, Framing::Length, body.as_bytes()));
            let framed = framed.replace("200 OK", status).into_bytes();
            for request in [post.bytes(), stream(&gateway, "alice", "")] {
                gateway.upstream.say(framed.clone(), false, 0);
                let answer = gateway.ask(&request);
                assert_eq!(answer.status.to_string(), status[..3], "{driver:?}");
                assert_eq!(text(&answer.body), shown, "{status} {driver:?}");
            }
        }
    }
}

/// A legacy session on `narrow`, as its agent knows it.
fn session(gateway: &Gateway) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
    let answer = gateway.ask(&Post::new(gateway).to("narrow").body(body).bytes());
    answer.header("mcp-session-id").expect("a session id").to_owned()
}

/// GET of the stream of `narrow`, with more fields.
fn stream(gateway: &Gateway, user: &str, fields: &str) -> Vec<u8> {
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
        let session = session(&gateway);
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
        let session = session(&gateway);
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
