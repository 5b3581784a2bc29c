//! M: JSON, JSON-RPC and MCP.

use serde_json::Value;

use super::gateway::{DRIVERS, Gateway};
use super::table::{Case, End, Post, refuse, tool_call};

fn case(id: &str, request: Vec<u8>, status: u16, reason: &'static str) -> Case {
    Case { id: id.to_owned(), request, status, reason, end: End::Open }
}

fn bodies(gateway: &Gateway, rows: &[(&str, &[u8], &'static str)]) -> Vec<Case> {
    let row = |(id, body, reason): &(&str, &[u8], &'static str)| {
        case(id, Post::new(gateway).body(*body).bytes(), 400, reason)
    };
    rows.iter().map(row).collect()
}

#[test]
fn m01_depth() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        tool_call("echo")
            .replace(r#""arguments":{}"#, &format!(r#""arguments":{{"a":{open}{close}}}"#))
    };
    refuse(|gateway| {
        let objects = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        // params, arguments and the message itself make three.
        bodies(
            gateway,
            &[
                ("M01 65", nested(62).as_bytes(), "rpc_parse"),
                ("M01 10 000", nested(10_000).as_bytes(), "rpc_parse"),
                ("M01 1 000 000", nested(1_000_000).as_bytes(), "rpc_parse"),
                ("M01 objects", objects.as_bytes(), "rpc_parse"),
                ("M01 open only", "[".repeat(2_000_000).as_bytes(), "rpc_parse"),
            ],
        )
    });
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let answer = gateway.ask(&Post::new(&gateway).body(nested(61)).bytes());
        assert_eq!(answer.status, 200, "64 levels are served: {answer:?}");
    }
}

#[test]
fn m03_duplicate_keys() {
    refuse(|gateway| {
        let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","#;
        let with = |rest: &str| format!("{head}{rest}").into_bytes();
        let rows: Vec<(&str, Vec<u8>)> = vec![
            ("method", with(r#""method":"tools/list","params":{"name":"echo"}}"#)),
            ("method escaped", with(r#""m\u0065thod":"tools/list","params":{"name":"echo"}}"#)),
            ("name", with(r#""params":{"name":"echo","name":"delete"}}"#)),
            ("name escaped", with(r#""params":{"name":"echo","n\u0061me":"delete"}}"#)),
            ("params", with(r#""params":{"name":"echo"},"params":{"name":"delete"}}"#)),
            ("id", with(r#""id":2,"params":{"name":"echo"}}"#)),
            ("arguments", with(r#""params":{"name":"echo","arguments":{"a":1,"a":2}}}"#)),
            ("deep", with(r#""params":{"name":"echo","arguments":{"x":[{"a":1,"\u0061":2}]}}}"#)),
        ];
        let mut cases: Vec<Case> = rows
            .into_iter()
            .map(|(id, body)| {
                case(
                    &format!("M03 {id}"),
                    Post::new(gateway).body(body).bytes(),
                    400,
                    "rpc_invalid",
                )
            })
            .collect();
        // A key that a reader without regard to case takes for a known one (Go's encoding/json).
        let _turn = gateway.turn();
        for (id, rest, reason) in [
            ("Method", r#""Method":"tools/list","params":{"name":"echo"}}"#, "rpc_invalid"),
            ("NAME", r#""params":{"name":"echo","NAME":"delete"}}"#, "rpc_params"),
            (
                "param\u{17f}",
                "\"param\u{17f}\":{\"name\":\"delete\"},\"params\":{\"name\":\"echo\"}}",
                "rpc_invalid",
            ),
        ] {
            let request = Post::new(gateway).body(with(rest)).bytes();
            let answer = gateway.ask(&request);
            assert_eq!(answer.status, 400, "{id}: {answer:?}");
            let reason = if answer.reason() == reason { reason } else { "rpc_invalid" };
            cases.push(case(&format!("M03 {id}"), request, 400, reason));
        }
        cases
    });
}

#[test]
fn m04_m07_m08_forms() {
    refuse(|gateway| {
        let call = tool_call("echo");
        let utf16: Vec<u8> = call.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut cases = bodies(
            gateway,
            &[
                ("M07", format!("[{call}]").as_bytes(), "rpc_invalid"),
                ("M07 two", format!("[{call},{call}]").as_bytes(), "rpc_invalid"),
                ("M07 empty", b"[]", "rpc_invalid"),
                ("M08 trailing", format!("{call}x").as_bytes(), "rpc_parse"),
                ("M08 second", format!("{call}{call}").as_bytes(), "rpc_parse"),
                ("M08 NUL behind", format!("{call}\0").as_bytes(), "rpc_parse"),
                ("M08 BOM", format!("\u{feff}{call}").as_bytes(), "rpc_parse"),
                ("M08 UTF-16", &utf16, "rpc_parse"),
                (
                    "M08 UTF-8",
                    call.replace("echo", "\u{fffd}")
                        .into_bytes()
                        .iter()
                        .map(|byte| if *byte == 0xef { 0xff } else { *byte })
                        .collect::<Vec<_>>()
                        .as_slice(),
                    "rpc_parse",
                ),
                (
                    "M08 overlong",
                    &[call.split("echo").next().unwrap().as_bytes(), b"\xc0\xaf\"}}"].concat(),
                    "rpc_parse",
                ),
                ("M08 control", call.replace("echo", "ec\nho").as_bytes(), "rpc_parse"),
                ("M08 empty", b"", "rpc_parse"),
                ("M08 spaces", b"   ", "rpc_parse"),
                ("M08 cut", &call.as_bytes()[..call.len() - 1], "rpc_parse"),
                ("M08 comma", call.replace("}}}", "},}}").as_bytes(), "rpc_parse"),
                ("M08 comment", format!("/**/{call}").as_bytes(), "rpc_parse"),
                ("M08 single quotes", b"{'jsonrpc':'2.0'}", "rpc_parse"),
                ("M08 NaN", call.replace("{}", "NaN").as_bytes(), "rpc_parse"),
                ("scalar", b"1", "rpc_invalid"),
                ("null", b"null", "rpc_invalid"),
                ("no version", call.replace(r#""jsonrpc":"2.0","#, "").as_bytes(), "rpc_invalid"),
                ("version 1.0", call.replace(r#""2.0""#, r#""1.0""#).as_bytes(), "rpc_invalid"),
                ("version number", call.replace(r#""2.0""#, "2.0").as_bytes(), "rpc_invalid"),
                ("method type", call.replace(r#""tools/call""#, "7").as_bytes(), "rpc_invalid"),
                (
                    "params list",
                    br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["echo"]}"#,
                    "rpc_invalid",
                ),
                ("call without id", call.replace(r#""id":1,"#, "").as_bytes(), "rpc_invalid"),
                (
                    "both answers",
                    br#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
                    "rpc_invalid",
                ),
                ("no answer", br#"{"jsonrpc":"2.0","id":1}"#, "rpc_invalid"),
                ("no name", call.replace(r#""name":"echo","#, "").as_bytes(), "rpc_params"),
                ("name type", call.replace(r#""echo""#, "7").as_bytes(), "rpc_params"),
                ("name NUL", call.replace("echo", r"ec\u0000ho").as_bytes(), "rpc_params"),
            ],
        );
        let too_long = call.replace("echo", &"n".repeat(4097));
        cases.extend(bodies(gateway, &[("long name", too_long.as_bytes(), "rpc_params")]));
        let surrogate =
            gateway.ask(&Post::new(gateway).body(call.replace("echo", r"\ud800")).bytes());
        assert_eq!(surrogate.status, 400, "M08 a lone surrogate in what is judged: {surrogate:?}");
        for method in [
            "Tools/call",
            "TOOLS/CALL",
            "tools/Call",
            "tools/call ",
            "tools//call",
            "",
            "x",
            "sampling/createMessage",
            "server/discover",
            "rpc.discover",
        ] {
            let body = call.replace("tools/call", method);
            let request = Post::new(gateway).body(body).bytes();
            cases.push(case(&format!("M04 {method:?}"), request, 200, "method_unknown"));
        }
        cases
    });
}

#[test]
fn m06_ids_are_relayed_as_written_or_refused() {
    refuse(|gateway| {
        let call = tool_call("echo");
        let with = |id: &str| call.replace(r#""id":1"#, &format!(r#""id":{id}"#));
        let long = format!("\"{}\"", "i".repeat(64 * 1024));
        ["1.5", "1.0", "1e3", "null", "true", "{}", "[1]", "18446744073709551616", "-0.0", &long]
            .into_iter()
            .map(|id| {
                let request = Post::new(gateway).body(with(id)).bytes();
                case(&format!("M06 {:.20}", id), request, 400, "rpc_invalid")
            })
            .collect()
    });
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        for id in [
            "0",
            "-1",
            "9223372036854775807",
            "18446744073709551615",
            "-9223372036854775808",
            "\"\"",
            "\"a\\u0062c\"",
            "\"\\ud83d\\ude00\"",
            "\"\u{e9}\"",
            "\"a\\/b\"",
        ] {
            let spaced = format!(
                "{{ \"id\" :\t{id} ,\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\
                \"params\":{{\"name\":\"echo\"}} }}\r\n"
            );
            let answer = gateway.ask(&Post::new(&gateway).body(spaced.clone()).bytes());
            assert_eq!(answer.status, 200, "{id}: {answer:?}");
            assert_eq!(gateway.upstream.last().body, spaced.as_bytes(), "byte for byte");
            // A refusal echoes it as written.
            let denied = spaced.replace("echo", "delete");
            let answer = gateway.ask(&Post::new(&gateway).body(denied).bytes());
            let body = String::from_utf8(answer.body).unwrap();
            assert!(body.contains(&format!("\"id\":{id},\"error\"")), "{body}");
        }
    }
}

const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn modern(name: &str) -> String {
    tool_call(name).replace(r#""params":{"#, &format!(r#""params":{{{MODERN},"#))
}

fn modern_post(gateway: &Gateway, body: &str) -> Post {
    Post::new(gateway).body(body).field("MCP-Protocol-Version: 2026-07-28")
}

#[test]
fn m09_m10_mirrored_headers_and_revisions() {
    refuse(|gateway| {
        let body = modern("echo");
        let base = || modern_post(gateway, &body);
        let mismatch = |id: &str, post: Post| case(id, post.bytes(), 400, "header_mismatch");
        let method = "Mcp-Method: tools/call";
        let encoded = |name: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(name)
        };
        let mut cases = vec![
            mismatch("M09 no method", base().field("Mcp-Name: echo")),
            mismatch("M09 no name", base().field(method)),
            mismatch(
                "M09 other method",
                base().field("Mcp-Method: tools/list").field("Mcp-Name: echo"),
            ),
            mismatch(
                "M09 method case",
                base().field("Mcp-Method: Tools/call").field("Mcp-Name: echo"),
            ),
            mismatch("M09 other name", base().field(method).field("Mcp-Name: delete")),
            mismatch("M09 name case", base().field(method).field("Mcp-Name: Echo")),
            mismatch("M09 empty name", base().field(method).field("Mcp-Name:")),
            mismatch("M09 list", base().field(method).field("Mcp-Name: echo, echo")),
            mismatch(
                "M09 base64 of another",
                base().field(method).field(&format!("Mcp-Name: =?base64?{}?=", encoded("delete"))),
            ),
            mismatch("M09 base64 broken", base().field(method).field("Mcp-Name: =?base64?!!?=")),
            mismatch(
                "M09 base64 unpadded",
                base().field(method).field("Mcp-Name: =?base64?ZWNobw?="),
            ),
            mismatch(
                "M09 base64 marker case",
                base().field(method).field(&format!("Mcp-Name: =?BASE64?{}?=", encoded("echo"))),
            ),
            mismatch(
                "M09 legacy, other name",
                Post::new(gateway).field(method).field("Mcp-Name: delete"),
            ),
            mismatch("era: body only", Post::new(gateway).body(&*body)),
            mismatch(
                "era: differs",
                Post::new(gateway)
                    .body(&*body)
                    .field(method)
                    .field("Mcp-Name: echo")
                    .field("MCP-Protocol-Version: 2025-06-18"),
            ),
            case(
                "no capabilities",
                modern_post(
                    gateway,
                    &body.replace(r#","io.modelcontextprotocol/clientCapabilities":{}"#, ""),
                )
                .field(method)
                .field("Mcp-Name: echo")
                .bytes(),
                400,
                "rpc_params",
            ),
            case(
                "modern, removed method",
                modern_post(gateway, &body.replace("tools/call", "ping"))
                    .field("Mcp-Method: ping")
                    .bytes(),
                404,
                "method_unknown",
            ),
            case(
                "modern, unknown method",
                modern_post(gateway, &body.replace("tools/call", "x/y"))
                    .field("Mcp-Method: x/y")
                    .bytes(),
                404,
                "method_unknown",
            ),
        ];
        for revision in [
            "2024-11-06",
            "1.0",
            "2026-07-29",
            "",
            "2026-07-28, 2025-06-18",
            "2025-06-1\u{bd}",
            "DRAFT-2026-v1",
        ] {
            let request =
                Post::new(gateway).field(&format!("MCP-Protocol-Version: {revision}")).bytes();
            cases.push(case(&format!("M10 {revision:?}"), request, 400, "revision_unsupported"));
        }
        cases
    });
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let body = modern("echo");
        for name in ["echo", "=?base64?ZWNobw==?="] {
            let post = modern_post(&gateway, &body)
                .field("Mcp-Method: tools/call")
                .field(&format!("Mcp-Name: {name}"));
            let answer = gateway.ask(&post.bytes());
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(gateway.upstream.last().header("mcp-name"), Some(name));
        }
        let old = Post::new(&gateway).field("MCP-Protocol-Version: 1999-01-01");
        let answer = gateway.ask(&old.bytes());
        assert_eq!(answer.code(), Some(-32022));
        assert_eq!(answer.json()["error"]["data"]["requested"], Value::from("1999-01-01"));
    }
}

#[test]
fn m14_denied_tools_servers_and_streams() {
    refuse(|gateway| {
        let denied = |id: &str, post: Post, status, reason| case(id, post.bytes(), status, reason);
        let post = || Post::new(gateway);
        let mallory = || Post::with_token(&gateway.keys.token("mallory"));
        let carol = || Post::with_token(&gateway.keys.token("carol"));
        let bob = || Post::with_token(&gateway.keys.token("bob"));
        let initialize = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
        let cancelled =
            br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        let other_method =
            br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x://y"}}"#;
        let bodyless = |verb: &str, server: &str| {
            let token = gateway.keys.token("carol");
            format!(
                "{verb} /mcp/{server} HTTP/1.1\r\nHost: portcullis.localhost\r\n\
                 Accept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            .into_bytes()
        };
        vec![
            denied("M14 forbidden", post().body(tool_call("delete")), 200, "forbidden"),
            denied("M14 escaped name", post().body(tool_call(r"d\u0065lete")), 200, "forbidden"),
            denied("M14 no permit", post().to("narrow").body(tool_call("other")), 200, "no_permit"),
            denied(
                "M14 name case",
                post().to("narrow").body(tool_call("Allowed")),
                200,
                "no_permit",
            ),
            denied(
                "M14 other method",
                post().to("narrow").body(&other_method[..]),
                200,
                "no_permit",
            ),
            denied(
                "M14 notification",
                carol().to("narrow").body(&cancelled[..]),
                403,
                "stream_denied",
            ),
            denied(
                "M14 response",
                carol().to("narrow").body(&br#"{"jsonrpc":"2.0","id":1,"result":{}}"#[..]),
                403,
                "stream_denied",
            ),
            case("M14 GET", bodyless("GET", "narrow"), 403, "stream_denied"),
            case("M14 DELETE", bodyless("DELETE", "narrow"), 403, "stream_denied"),
            denied(
                "unknown notification",
                post().body(&br#"{"jsonrpc":"2.0","method":"notifications/x"}"#[..]),
                403,
                "stream_denied",
            ),
            denied("server", post().to("secret"), 403, "no_permit"),
            denied("no such server", post().to("no-such-server"), 403, "no_permit"),
            denied("handshake", post().to("secret").body(&initialize[..]), 403, "no_permit"),
            denied("another's server", bob().to("open"), 403, "no_permit"),
            denied("gateway", mallory(), 403, "no_permit"),
            denied("gateway, no server", mallory().to("no-such-server"), 403, "no_permit"),
            denied("federation", Post { path: "/mcp".into(), ..post() }, 200, "no_permit"),
            denied(
                "federation, an answer to nothing",
                Post { path: "/mcp".into(), ..post() }
                    .body(&br#"{"jsonrpc":"2.0","id":1,"result":{}}"#[..]),
                501,
                "not_built",
            ),
            denied("two credentials", post().to("two"), 403, "credential_ambiguous"),
            denied("credential gone", post().to("vanishing"), 503, "credential_unavailable"),
        ]
    });
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let denial = gateway.ask(&Post::new(&gateway).body(tool_call("delete")).bytes());
        assert_eq!(denial.code(), Some(1403));
        let text = String::from_utf8(denial.body).unwrap();
        assert!(!text.contains("no-deletes"), "policy names are not the agent's business: {text}");
        let allowed = Post::new(&gateway).to("narrow").body(tool_call("allowed"));
        assert_eq!(gateway.ask(&allowed.bytes()).status, 200);
        // Nobody can tell a denied server from none.
        let [denied, none] = ["secret", "no-such-server"]
            .map(|server| gateway.ask(&Post::new(&gateway).to(server).bytes()));
        assert_eq!((denied.head, denied.body), (none.head, none.body));
    }
}
