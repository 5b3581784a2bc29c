//! `policy schema --server`: a live server is asked for its tools, in either era, and whatever else
//! it answers is a bounded fault that says what to do.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::client::header;
use crate::gateway::{BINARY, Setup, Stage, api_key, server};
use crate::upstream::{self, EVENTS, Seen, Then, Upstream, chunk, say};

const SECRET: &str = "canary-schema-key";
const MODERN: &str = "2026-07-28";

/// A configuration whose one server is at `url`; `key.txt` holds its secret, where it has one.
fn stage(url: &str, more: &str, credential: &str) -> Stage {
    let tables = format!("{}{credential}", server("sample", url, more));
    let stage = Setup::with_tables(&tables).prepare();
    stage.write("key.txt", SECRET);
    stage
}

/// A stage without a credential.
fn of(upstream: &Upstream, more: &str) -> Stage {
    stage(&format!("http://{}/mcp", upstream.address), more, "")
}

/// Exit code, standard output, standard error.
pub(crate) fn schema(stage: &Stage, more: &[&str]) -> (i32, String, String) {
    let always = ["policy", "schema", "--config", "gateway.toml", "--server", "sample"];
    let mut command = Command::new(BINARY);
    let output = command.args(always).args(more).current_dir(stage.path("")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// It answers nothing but a fault, on one line; the fault.
fn fault(stage: &Stage) -> String {
    let (code, said, faults) = schema(stage, &[]);
    assert_eq!((code, said.as_str()), (1, ""), "{faults}");
    assert_eq!(faults.lines().count(), 1, "{faults}");
    assert!(!faults.contains(SECRET), "{faults}");
    faults
}

fn message(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_default()
}

fn method(seen: &Seen) -> String {
    message(seen)["method"].as_str().unwrap_or_default().to_owned()
}

/// The response to the request that was seen.
fn response(seen: &Seen, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": message(seen)["id"], "result": result}).to_string()
}

fn error(seen: &Seen, code: i64, words: &str) -> String {
    let error = json!({"code": code, "message": words});
    json!({"jsonrpc": "2.0", "id": message(seen)["id"], "error": error}).to_string()
}

fn with_status(peer: &mut dyn upstream::Peer, status: &str, fields: &str, body: &str) -> Then {
    let length = body.len();
    say(
        peer,
        &format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: \
             {length}\r\n\r\n{body}"
        ),
    )
}

/// A server of 2026-07-28 that answers `tools/list` as `list` does.
fn modern(
    list: impl Fn(&Seen, &mut dyn upstream::Peer) -> Then + Send + Sync + 'static,
) -> Upstream {
    Upstream::start(move |seen, peer| match method(seen).as_str() {
        "server/discover" => {
            let result = json!({"resultType": "complete", "supportedVersions": [MODERN],
                "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"});
            upstream::json(peer, &response(seen, &result))
        }
        "tools/list" => list(seen, peer),
        other => panic!("nobody asks a modern server for {other:?}"),
    })
}

/// The same with one result for all.
fn modern_with(result: Value) -> Upstream {
    modern(move |seen, peer| upstream::json(peer, &response(seen, &result)))
}

fn page_one() -> Value {
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    json!({"tools": [{"name": "send", "inputSchema": text}], "nextCursor": ""})
}

fn page_two() -> Value {
    let count = json!({"type": "object", "properties": {"count": {"type": "integer"}}});
    json!({"tools": [{"name": "list", "inputSchema": count}]})
}

/// As `--tools` prints it.
fn expected(stage: &Stage) -> String {
    stage.write("tools.json", &format!("{}\n{}", page_one(), page_two()));
    let (code, said, faults) = schema(stage, &["--tools", "tools.json"]);
    assert_eq!((code, faults.as_str()), (0, ""), "{said}");
    assert!(said.contains("@tool(\"sample/send\")") && said.contains("\"count\"?: Long"), "{said}");
    said
}

#[test]
fn a_modern_server_is_asked_page_by_page_with_the_credential_of_the_configuration() {
    let places = [
        ("header = \"Authorization\"\nscheme = \"Bearer\"", "authorization: Bearer "),
        ("query = \"key\"", "POST /mcp?key="),
    ];
    for (place, written) in places {
        let upstream = modern(|seen, peer| {
            let second = message(seen)["params"]["cursor"] == "";
            let page = if second { page_two() } else { page_one() };
            upstream::json(peer, &response(seen, &page))
        });
        let url = format!("http://{}/mcp", upstream.address);
        let key = api_key("key", "[\"sample\"]", place, "key.txt");
        let stage = stage(&url, "credential = \"key\"", &key);
        let (code, said, told) = schema(&stage, &[]);
        assert_eq!(code, 0, "{told}");
        assert_eq!(told, "sample answered in 2 page(s), by MCP 2026-07-28\n");
        assert_eq!(said, expected(&stage));
        let seen = upstream.seen();
        assert_eq!(seen.len(), 3, "{seen:?}");
        for seen in &seen {
            assert!(seen.head.contains(&format!("{written}{SECRET}")), "{}", seen.head);
            assert_eq!(header(&seen.head, "mcp-protocol-version"), Some(MODERN));
            assert_eq!(header(&seen.head, "mcp-method"), Some(method(seen).as_str()));
            let meta = &message(seen)["params"]["_meta"];
            assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
            assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
        }
        assert_eq!(message(&seen[1])["params"].get("cursor"), None);
        assert!(!format!("{said}{told}").contains(SECRET));
    }
}

/// A server of the older revisions, with sessions, that answers in event streams.
fn legacy(seen: &Seen, peer: &mut dyn upstream::Peer) -> Then {
    if seen.head.starts_with("DELETE ") {
        return upstream::status(peer, "405 Method Not Allowed", "");
    }
    let method = method(seen);
    let session = header(&seen.head, "mcp-session-id");
    let result = match method.as_str() {
        "server/discover" => {
            let words = error(seen, -32000, "Server not initialized");
            return with_status(peer, "400 Bad Request", "", &words);
        }
        "initialize" => json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}),
        _ if session != Some("s-1") => {
            return upstream::status(peer, "404 Not Found", "");
        }
        "notifications/initialized" => return upstream::status(peer, "202 Accepted", ""),
        _ if message(seen)["params"]["cursor"] == "" => page_two(),
        _ => page_one(),
    };
    let ping = json!({"jsonrpc": "2.0", "id": message(seen)["id"], "method": "ping"});
    let head = EVENTS.replace("\r\n\r\n", "\r\nmcp-session-id: s-1\r\n\r\n");
    let events = format!(
        "id: 0\ndata:\n\n: comment\r\n\r\ndata: {ping}\n\nevent: message\rdata: {}\r\r",
        response(seen, &result)
    );
    // No end: who has its answer leaves.
    say(peer, &format!("{head}{}", chunk(&events)))
}

#[test]
fn a_legacy_server_is_asked_in_a_session_that_is_ended() {
    let upstream = Upstream::start(legacy);
    let stage = of(&upstream, "");
    let (code, said, told) = schema(&stage, &[]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(told, "sample answered in 2 page(s), by MCP 2025-06-18\n");
    assert_eq!(said, expected(&stage));
    let seen = upstream.seen();
    let methods: Vec<String> = seen.iter().map(method).collect();
    let handshake = ["server/discover", "initialize", "notifications/initialized"];
    assert_eq!(methods, [&handshake[..], &["tools/list", "tools/list", ""]].concat());
    assert_eq!(message(&seen[1])["params"]["protocolVersion"], "2025-11-25");
    for seen in &seen[2..] {
        assert_eq!(header(&seen.head, "mcp-session-id"), Some("s-1"), "{}", seen.head);
        assert_eq!(header(&seen.head, "mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(header(&seen.head, "mcp-method"), None);
    }
    assert!(seen[5].head.starts_with("DELETE /mcp HTTP/1.1\r\n"), "{}", seen[5].head);
}

/// The session of a server whose list is none is ended as well.
#[test]
fn a_fault_of_a_legacy_server_ends_its_session() {
    let upstream = Upstream::start(|seen, peer| {
        if method(seen) == "tools/list" {
            return upstream::json(peer, &error(seen, -32601, "no such method"));
        }
        legacy(seen, peer)
    });
    let said = fault(&of(&upstream, ""));
    let words = "tools/list with error -32601, which means that it has none; in its own words: no \
                 such method";
    assert!(said.contains(words), "{said}");
    assert!(upstream.seen()[4].head.starts_with("DELETE "), "{said}");
}

/// Its lists are wrong, or never end.
#[test]
fn lists_that_are_none_are_faults() {
    let pages = AtomicUsize::new(0);
    let endless = modern(move |seen, peer| {
        let next = pages.fetch_add(1, Ordering::SeqCst).to_string();
        upstream::json(peer, &response(seen, &json!({"tools": [], "nextCursor": next})))
    });
    let table = [
        (endless, "more than 256 pages"),
        (modern_with(json!({"tools": [], "nextCursor": "x"})), "page 2 leads back to an earlier"),
        (modern_with(json!({"tools": [], "nextCursor": 2})), "page 1: nextCursor is no short text"),
        (
            modern_with(json!({"tools": [], "nextCursor": "x".repeat(4097)})),
            "page 1: nextCursor is no short text",
        ),
        (modern_with(json!({"tools": [{"name": 1}]})), "page 1: not an answer to tools/list"),
        (modern_with(json!({"tools": "x".repeat(1 << 20)})), "page 1: not an answer to tools/list"),
        (modern_with(json!({"tools": [{}]})), "page 1: not an answer to tools/list"),
        (modern_with(json!({"prompts": []})), "page 1: not an answer to tools/list"),
        (
            modern_with(json!({"tools": [{"name": "a"}, {"name": "a"}]})),
            "tool \"a\" is there twice",
        ),
        (
            modern_with(json!({"resultType": "input_required"})),
            "it wants something before it answers tools/list",
        ),
        (
            modern_with(json!({"tools": vec![json!({"name": "a"}); 10_001]})),
            "more than 10000 tools",
        ),
        (modern_with(json!({"tools": "x".repeat(4 << 20)})), "with more than 4194304 bytes"),
    ];
    for (upstream, words) in table {
        let said = fault(&of(&upstream, ""));
        assert!(said.contains(words), "{words}: {said}");
        assert!(said.len() < 600, "{} bytes of a fault", said.len());
        assert!(upstream.requests() <= 257, "{}", upstream.requests());
    }
}

/// What it answers is no answer, or not in time.
#[test]
fn answers_that_are_none_are_faults() {
    type Said = fn(&Seen, &mut dyn upstream::Peer) -> Then;
    let table: [(Said, &str); 13] = [
        (|_, peer| flood(peer, "application/json"), "with more than 4194304 bytes"),
        (|_, peer| flood(peer, "text/event-stream"), "with more than 4194304 bytes"),
        (|_, peer| say(peer, EVENTS), "tools/list within its time limit (idle_seconds)"),
        (drip, "tools/list within its time limit (max_seconds)"),
        (|_, _| Then::Keep, "tools/list within its time limit (timeout_seconds)"),
        (
            |_, peer| say(peer, &format!("{EVENTS}{}0\r\n\r\n", chunk("data: {}\n\n"))),
            "its event stream ends without the answer to tools/list",
        ),
        (
            |_, peer| say(peer, &format!("{EVENTS}{}", chunk("data: x\n\n"))),
            "with what is not JSON",
        ),
        (|_, peer| upstream::json(peer, "[]"), "with JSON that is no message"),
        (
            |_, peer| upstream::json(peer, r#"{"jsonrpc":"2.0","id":99,"result":{"tools":[]}}"#),
            "with another message than its answer",
        ),
        (
            |_, peer| {
                say(
                    peer,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
                )
            },
            "content of the type \"text/html\", which is not MCP: is the path of url right?",
        ),
        (
            |_, peer| with_status(peer, "200 OK", "content-encoding: gzip\r\n", "{}"),
            "in a coding that was not asked for",
        ),
        (|_, peer| say(peer, "SSH-2.0-x\r\n\r\n"), "its answer is not HTTP/1.1"),
        (
            |_, peer| {
                say(
                    peer,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
                );
                Then::Close
            },
            "it closes the connection before the end of its answer",
        ),
    ];
    for (answer, words) in table {
        let upstream = modern(answer);
        // Where a limit is what ends it, a short one; elsewhere a busy machine may take its time.
        let limits = match words.rsplit_once('(') {
            Some((_, "timeout_seconds)")) => "timeout_seconds = 2",
            Some((_, "idle_seconds)")) => "idle_seconds = 1",
            Some((_, "max_seconds)")) => "idle_seconds = 3\nmax_seconds = 4",
            Some(_) | None => "",
        };
        let said = fault(&of(&upstream, limits));
        let place = format!("server sample ({}): ", upstream.address);
        assert!(said.starts_with(&place) && said.contains(words), "{words}: {said}");
    }
}

/// Says something for as long as somebody listens.
fn flood(peer: &mut dyn upstream::Peer, kind: &str) -> Then {
    let head = EVENTS.replace("text/event-stream", kind);
    let piece = chunk(&": x\n".repeat(16 * 1024));
    let mut then = say(peer, &head);
    while let Then::Keep = then {
        then = say(peer, &piece);
    }
    then
}

/// Never idle, never done.
fn drip(_: &Seen, peer: &mut dyn upstream::Peer) -> Then {
    let mut then = say(peer, EVENTS);
    while let Then::Keep = then {
        std::thread::sleep(std::time::Duration::from_millis(100));
        then = say(peer, &chunk(": x\n\n"));
    }
    then
}

/// Statuses, each with what to do about it. A redirect is not followed, and a refusal not evaded by
/// the other era.
#[test]
fn refusals_say_what_to_do() {
    let table = [
        (
            "302 Found",
            "location: http://127.0.0.1:1/mcp\r\n",
            1,
            "it redirects (302), which is not",
        ),
        ("401 Unauthorized", "", 1, "it wants a credential (401)"),
        ("403 Forbidden", "", 1, "it wants a credential (403)"),
        ("429 Too Many Requests", "", 1, "it is busy (429): try again later"),
        ("404 Not Found", "", 2, "it answers 404 to initialize: is the path of url right?"),
        ("405 Method Not Allowed", "", 2, "(HTTP+SSE) is not spoken"),
        ("503 Service Unavailable", "", 2, "it is busy (503): try again later"),
        ("500 Internal Server Error", "", 2, "it answers initialize with 500"),
    ];
    for (status, fields, requests, words) in table {
        let upstream = Upstream::start(move |_, peer| upstream::status(peer, status, fields));
        let said = fault(&of(&upstream, ""));
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(upstream.requests(), requests, "{status}");
    }
    let key = api_key("key", "[\"sample\"]", "header = \"X-Api-Key\"", "key.txt");
    let with_key = |upstream: &Upstream| {
        let url = format!("http://{}/mcp", upstream.address);
        fault(&stage(&url, "credential = \"key\"", &key))
    };
    let said = with_key(&Upstream::start(|_, peer| upstream::status(peer, "401 No", "")));
    assert!(said.contains("it refuses the credential key (401): is its secret right?"), "{said}");
    // Its words stay away, and those that say the key back take the whole message along.
    let said = with_key(&Upstream::start(|seen, peer| {
        upstream::json(peer, &error(seen, -32600, "own words"))
    }));
    assert!(said.ends_with("it answers initialize with error -32600\n"), "{said}");
    let said = with_key(&Upstream::start(|seen, peer| {
        let words = error(seen, -32600, header(&seen.head, "x-api-key").unwrap());
        with_status(peer, "400 Bad Request", "", &words)
    }));
    assert!(said.ends_with("it answers initialize with 400\n"), "{said}");
}

/// The fault of a server of 2026-07-28 that is shown `secret` and answers `tools/list` with `list`.
fn said_back(secret: &str, list: &'static str) -> String {
    let upstream = modern(move |seen, peer| {
        let id = message(seen)["id"].to_string();
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{list}}}}}");
        upstream::json(peer, &body)
    });
    let key = api_key("key", "[\"sample\"]", "header = \"X-Api-Key\"", "key.txt");
    let url = format!("http://{}/mcp", upstream.address);
    let stage = stage(&url, "credential = \"key\"", &key);
    stage.write("key.txt", secret);
    fault(&stage)
}

/// Whatever it writes the secret into, nothing of the answer is shown.
#[test]
fn an_answer_that_says_the_credential_back_is_refused() {
    let refused = "it says the secret of its credential back in its answer to tools/list";
    let bearer = &format!("Bearer {SECRET}");
    let table = [
        (SECRET, r#""tools":[{"name":"a","description":"for canary-schema-key"}]"#),
        (SECRET, r#""tools":[{"name":"canary-schema-key"}]"#),
        (SECRET, r#""tools":[{"name":"canary-schema-key"},{"name":"canary-schema-key"}]"#),
        (SECRET, r#""tools":[{"name":"a","inputSchema":{"properties":{"canary-schema-key":1}}}]"#),
        (SECRET, r#""tools":"canary-schema-key""#),
        (SECRET, r#""tools":[{"name":"\u0063anary-schema-key"}]"#),
        (
            SECRET,
            r#""tools":[{"name":"a","inputSchema":{"properties":{"canary\u002dschema-key":1}}}]"#,
        ),
        (bearer, r#""tools":[{"name":"canary-schema-key"}]"#),
        ("canary/schema", r#""tools":[{"name":"a","description":"?key=canary%2Fschema"}]"#),
        ("canary/schema", r#""tools":[{"name":"canary\/schema"}]"#),
    ];
    for (secret, list) in table {
        let said = said_back(secret, list);
        assert!(said.contains(refused) && said.contains("with --tools"), "{list}: {said}");
        assert!(!said.contains("canary"), "{list}: {said}");
    }
    // One that stands in every answer refuses them all, already the first.
    let said = said_back("2", r#""tools":[]"#);
    assert!(said.contains("so short that it stands there anyway"), "{said}");
    let key = api_key("key", "[\"sample\"]", "header = \"X-Api-Key\"", "key.txt");
    let upstream = modern(|_, peer| {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {SECRET}\r\ncontent-length: 0\r\n\r\n");
        say(peer, &head)
    });
    let url = format!("http://{}/mcp", upstream.address);
    let said = fault(&stage(&url, "credential = \"key\"", &key));
    assert!(said.contains("with content of another type, which is not MCP"), "{said}");
}

/// What steers a terminal, turns its direction or is not to be seen does not reach it.
#[test]
fn words_of_a_server_do_not_steer_a_terminal() {
    let odd = |text: &str| text.contains(['\u{1b}', '\u{202e}', '\u{2066}', '\u{200b}', '\r']);
    let words = "a\u{1b}[31mb\u{202e}c\u{2066}d\u{200b}e\r\n\"f\\";
    let field = json!({"properties": {words: {"type": "null"}}});
    let tool = json!({"name": "a", "description": words, "inputSchema": field});
    let (code, said, faults) = schema(&of(&modern_with(json!({"tools": [tool]})), ""), &[]);
    assert_eq!(code, 0, "{faults}");
    assert!(said.contains("// In the server's own words: a [31mb c d e  \"f\\\n"), "{said}");
    assert!(said.contains("  // a [31mb c d e  \"f\\: a schema without"), "{said}");
    assert!(!odd(&said), "{said:?}");
    let said = fault(&of(&modern_with(json!({"tools": [{"name": words}, {"name": words}]})), ""));
    assert!(said.contains("is there twice") && !odd(&said), "{said:?}");
    let said =
        fault(&of(&modern(move |seen, peer| upstream::json(peer, &error(seen, -1, words))), ""));
    assert!(said.contains("in its own words: a [31mb c d e") && !odd(&said), "{said:?}");
}

#[test]
fn handshakes_that_no_client_accepts_are_faults() {
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
    let table = [
        (json!({"protocolVersion": "2031-01-01"}), "", "it speaks no revision of MCP that the"),
        (json!({}), "", "it speaks no revision of MCP that the"),
        (hello.clone(), "mcp-session-id: a b\r\n", "its session id is none that a client may send"),
        (hello, "mcp-session-id: s\r\n", "it answers 404 to notifications/initialized"),
    ];
    for (result, fields, words) in table {
        let upstream = Upstream::start(move |seen, peer| match method(seen).as_str() {
            "initialize" => with_status(peer, "200 OK", fields, &response(seen, &result)),
            _ => upstream::status(peer, "404 Not Found", ""),
        });
        let said = fault(&of(&upstream, ""));
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// The rules for addresses are those of the gateway.
#[test]
fn servers_that_are_not_reached_are_faults() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = fault(&stage(&format!("http://127.0.0.1:{port}/mcp"), "", ""));
    assert!(said.contains("nothing accepts a connection there"), "{said}");
    let said = fault(&stage("http://no-such-name.invalid/mcp", "", ""));
    assert!(said.contains("the name no-such-name.invalid has no address"), "{said}");

    let stage = of(&Upstream::echo(), "");
    let always = ["policy", "schema", "--config", "gateway.toml", "--server", "other"];
    let output = Command::new(BINARY).args(always).current_dir(stage.path("")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "no server is called \"other\"; there are: sample\n");
}

/// A policy that needs a type which is not there yet does not keep it from being made.
#[test]
fn types_are_made_while_the_policies_that_need_them_are_faulty() {
    let upstream = modern(|seen, peer| {
        let second = message(seen)["params"]["cursor"] == "";
        let page = if second { page_two() } else { page_one() };
        upstream::json(peer, &response(seen, &page))
    });
    let stage = of(&upstream, "");
    let rule = |name: &str| {
        let asked = r#"context.arguments["sample/list"]"#;
        format!(
            "@id(\"all\") permit (principal, action, resource);\n\
             @id(\"many\") forbid (principal, action, resource == Tool::\"sample/list\")\n\
             when {{ context has arguments && context.arguments has \"sample/list\" &&\n\
             {asked} has {name} && {asked}.{name} > 10 }};\n"
        )
    };
    stage.write("policies/all.cedar", &rule("count"));
    let check = || {
        let mut check = Command::new(BINARY);
        let check = check.args(["check", "--config", "gateway.toml"]).current_dir(stage.path(""));
        let output = check.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check().0, 1, "there is no such type yet");
    let (code, said, told) = schema(&stage, &[]);
    assert_eq!(code, 0, "{told}");
    std::fs::create_dir(stage.path("policies/schema.d")).unwrap();
    stage.write("policies/schema.d/sample.cedarschema", &said);
    let (code, told) = check();
    assert_eq!(code, 0, "{told}");
    stage.write("policies/all.cedar", &rule("cuont"));
    let (code, told) = check();
    assert_eq!(code, 1);
    assert!(told.contains("policies/all.cedar:4:") && told.contains("cuont"), "{told}");
}
