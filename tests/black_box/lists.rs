//! Lists: an agent sees of them what it may use, whatever way they come (M14).

use serde_json::{Value, json};

use super::client::{Answer, text};
use super::gateway::{DRIVERS, Driver, Gateway};
use super::list_streams::stream;
use super::table::{Post, assert_silent};

/// One list method: what the upstream answers, what is shown of it, and what was hidden.
pub(super) struct List {
    pub(super) method: &'static str,
    pub(super) member: &'static str,
    pub(super) key: &'static str,
    pub(super) sent: &'static [&'static str],
    pub(super) shown: &'static [&'static str],
}

pub(super) const LISTS: [List; 4] = [
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
pub(super) enum Framing {
    Length,
    Chunked,
    UntilClose,
}

pub(super) const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::UntilClose];

/// alice may use some of `narrow`; dora may list it and use nothing; erin may use all of it but
/// is forbidden to; what stops finn fails to evaluate; to gina each of
/// these happens with another tool.
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
when { (context.local.minute_of_day + 2) * 9223372036854775807 > 0 };
@id("gina-lists")
permit (principal == User::"gina", action in [Action::"session", Action::"list"],
  resource in Server::"narrow");
@id("gina-uses")
permit (principal == User::"gina", action == Action::"tools/call", resource)
when { [Tool::"narrow/allowed", Tool::"narrow/Allowed", Tool::"narrow/all"].contains(resource) };
@id("gina-not-all")
forbid (principal == User::"gina", action == Action::"tools/call", resource == Tool::"narrow/all");
@id("gina-fails")
forbid (principal == User::"gina", action == Action::"tools/call",
  resource == Tool::"narrow/Allowed")
when { (context.local.minute_of_day + 2) * 9223372036854775807 > 0 };
"#;

pub(super) fn start(driver: Driver) -> Gateway {
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

    pub(super) fn message(&self, names: &[&str], more: Value) -> Value {
        let items: Vec<Value> = names.iter().map(|name| self.item(name)).collect();
        let mut result = json!({ self.member: items, "nextCursor": "page2" });
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "jsonrpc": "2.0", "id": 1, "result": result })
    }

    pub(super) fn sent(&self) -> Value {
        self.message(self.sent, json!({}))
    }

    pub(super) fn shown(&self) -> Value {
        self.message(self.shown, json!({}))
    }
}

/// The request for a list of `narrow` as `user`.
pub(super) fn asked(gateway: &Gateway, user: &str, method: &str, modern: bool) -> Post {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let params = if modern { format!("{{{meta}}}") } else { "{}".to_owned() };
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let post = Post::with_token(&gateway.keys.token(user)).to("narrow").body(body).script("said");
    if !modern {
        return post;
    }
    post.field("MCP-Protocol-Version: 2026-07-28").field(&format!("Mcp-Method: {method}"))
}

pub(super) fn framed(kind: &str, framing: Framing, body: &[u8]) -> Vec<u8> {
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
pub(super) fn answered(
    gateway: &Gateway,
    post: &Post,
    (kind, framing, piece): (&str, Framing, usize),
    body: &[u8],
) -> Answer {
    gateway.upstream.say(framed(kind, framing, body), framing == Framing::UntilClose, piece);
    gateway.ask(&post.bytes())
}

pub(super) const JSON: &str = "application/json";
pub(super) const EVENTS: &str = "text/event-stream";
pub(super) const WHOLE: (&str, Framing, usize) = (JSON, Framing::Length, 0);

/// The messages in the data of a stream's events (WHATWG HTML §9.2.6).
pub(super) fn messages(stream: &str) -> Vec<Value> {
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
