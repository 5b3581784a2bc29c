//! H: request heads.

use super::client::{Client, Way, text};
use super::gateway::{DRIVERS, Gateway};
use super::table::{ACCEPT, Case, End, JSON, Post, refuse, tool_call};

/// A head fault of the usual request: 400 and the end.
fn fault(id: &str, request: Vec<u8>, status: u16, reason: &'static str) -> Case {
    Case { id: id.to_owned(), request, status, reason, end: End::Closed }
}

/// The usual request with `from` replaced in its bytes.
fn replaced(gateway: &Gateway, from: &str, to: &str) -> Vec<u8> {
    let whole = String::from_utf8(Post::new(gateway).bytes()).unwrap();
    assert!(whole.contains(from));
    whole.replacen(from, to, 1).into_bytes()
}

/// A smuggled request that would be permitted if anybody read it.
fn smuggled(gateway: &Gateway) -> Vec<u8> {
    Post::new(gateway).bytes()
}

#[test]
fn h01_to_h06_ambiguous_framing() {
    refuse(|gateway| {
        let body = tool_call("echo");
        let length = body.len();
        let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
        let mut tail = format!("{length:x}\r\n{body}\r\n0\r\n\r\n").into_bytes();
        tail.extend(smuggled(gateway));
        let post = |framing: &str, rest: &[u8]| Post::new(gateway).framed(framing, rest);
        let te = "Transfer-Encoding: ";
        let mut cases = vec![
            fault(
                "H01 CL.TE",
                post(&format!("Content-Length: {length}\r\n{te}chunked\r\n"), &tail),
                400,
                "cl_te",
            ),
            fault(
                "H01 TE.CL",
                post(&format!("{te}chunked\r\nContent-Length: 4\r\n"), &tail),
                400,
                "cl_te",
            ),
            fault(
                "H01 0.CL",
                post(&format!("Content-Length: 0\r\n{te}chunked\r\n"), &tail),
                400,
                "cl_te",
            ),
        ];
        let lengths = |first: &str, second: &str| {
            post(&format!("Content-Length: {first}\r\nContent-Length: {second}\r\n"), &tail)
        };
        cases.extend([
            fault("H02", lengths("3", "5"), 400, "http_framing"),
            fault("H02 zero first", lengths("0", &length.to_string()), 400, "http_framing"),
            fault(
                "H03 twice",
                lengths(&length.to_string(), &length.to_string()),
                400,
                "http_framing",
            ),
            fault("H03 list", post("Content-Length: 3, 3\r\n", &tail), 400, "http_framing"),
        ]);
        for (coding, status, reason) in [
            ("xchunked", 501, "transfer_coding"),
            ("gzip", 501, "transfer_coding"),
            ("gzip, chunked", 501, "transfer_coding"),
            ("identity", 501, "transfer_coding"),
            ("chunked, identity", 400, "http_framing"),
            ("chunked, chunked", 400, "http_framing"),
            ("chunked,", 400, "http_framing"),
            ("", 400, "http_framing"),
            ("\u{b}chunked", 400, "http_malformed"),
            ("\"chunked\"", 501, "transfer_coding"),
        ] {
            let id = format!("H05 {coding:?}");
            let request = post(&format!("{te}{coding}\r\n"), chunked.as_bytes());
            cases.push(fault(&id, request, status, reason));
        }
        let twice = format!("{te}chunked\r\n{te}identity\r\n");
        cases.push(fault("H05 two lines", post(&twice, &tail), 400, "http_framing"));
        let old = text(&post(&format!("{te}chunked\r\n"), chunked.as_bytes()));
        let old = old.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes();
        cases.push(fault("H06", old, 400, "http_framing"));
        cases
    });
}

#[test]
fn h07_content_length_is_plain_decimal() {
    refuse(|gateway| {
        let values = [
            "+3",
            "-1",
            "0x3",
            "",
            " ",
            "3_0",
            "3 0",
            "3.0",
            "3e1",
            "\u{663}",
            "12345678901234567890",
            "18446744073709551616",
            "99999999999999999999999999",
            "3;",
            "\"3\"",
            "NaN",
        ];
        let case = |value: &str| {
            let request =
                Post::new(gateway).framed(&format!("Content-Length: {value}\r\n"), b"{}x");
            fault(&format!("H07 {value:?}"), request, 400, "http_framing")
        };
        values.into_iter().map(case).collect()
    });
}

#[test]
fn h12_to_h14_lines() {
    refuse(|gateway| {
        let host = "Host: portcullis.localhost\r\n";
        let malformed = |id: &str, from: &str, to: &str| {
            fault(id, replaced(gateway, from, to), 400, "http_malformed")
        };
        let all_lf = text(&Post::new(gateway).bytes()).replace("\r\n", "\n").into_bytes();
        vec![
            fault("H12 everywhere", all_lf, 400, "http_malformed"),
            malformed("H12 request line", "HTTP/1.1\r\n", "HTTP/1.1\n"),
            malformed("H12 one field", host, "Host: portcullis.localhost\n"),
            malformed("H12 hidden field", host, &format!("X: a\nX-B: b\r\n{host}")),
            malformed("H13 CR", host, &format!("X: a\rb\r\n{host}")),
            malformed("H13 CRCR", host, &format!("X: a\r\r\n{host}")),
            malformed("H13 NUL", host, &format!("X: a\0b\r\n{host}")),
            malformed("H13 DEL", host, &format!("X: a\u{7f}b\r\n{host}")),
            malformed("H14 space", host, "Host : portcullis.localhost\r\n"),
            malformed("H14 tab", host, "Host\t: portcullis.localhost\r\n"),
            malformed("H14 fold", host, &format!("{host}X: a\r\n b\r\n")),
            malformed("H14 fold first", "HTTP/1.1\r\n", "HTTP/1.1\r\n X: a\r\n"),
            malformed("H14 no name", host, &format!(": a\r\n{host}")),
            malformed("H14 no colon", host, &format!("Nothing\r\n{host}")),
            malformed("H14 name", host, &format!("X(y): a\r\n{host}")),
            malformed("H14 latin name", host, &format!("X\u{e9}: a\r\n{host}")),
        ]
    });
}

#[test]
fn the_request_line_has_one_reading() {
    refuse(|gateway| {
        let line = "POST /mcp/tools HTTP/1.1";
        let mut cases = Vec::new();
        for (to, status, reason) in [
            ("POST  /mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("POST\t/mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/tools  HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/tools HTTP/1.1 ", 400, "http_malformed"),
            ("POST /mcp/tools", 400, "http_malformed"),
            (" POST /mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("\r\n\r\nPOST /mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/tools http/1.1", 400, "http_malformed"),
            ("POST /mcp/tools HTTP/1.1x", 400, "http_malformed"),
            ("POST http://portcullis.localhost/mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("POST mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/tools#x HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp\\tools HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/%zz HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/tools\0 HTTP/1.1", 400, "http_malformed"),
            ("P\u{f6}ST /mcp/tools HTTP/1.1", 400, "http_malformed"),
            ("POST /mcp/tools HTTP/2.0", 505, "http_version"),
            ("POST /mcp/tools HTTP/1.2", 505, "http_version"),
            ("POST /mcp/tools HTTP/0.9", 505, "http_version"),
        ] {
            cases.push(fault(&format!("{to:?}"), replaced(gateway, line, to), status, reason));
        }
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        cases.push(fault("HTTP/2 preface", preface, 505, "http_version"));
        let hello = b"\x16\x03\x01\x00\x05hello".to_vec();
        cases.push(fault("TLS on the plain port", hello, 400, "http_malformed"));
        cases
    });
}

#[test]
fn h15_h16_host() {
    refuse(|gateway| {
        let host = "Host: portcullis.localhost\r\n";
        let mut cases = vec![
            fault("H15 none", replaced(gateway, host, ""), 400, "host_invalid"),
            fault("H15 two", replaced(gateway, host, &host.repeat(2)), 400, "host_invalid"),
        ];
        for (value, status, reason) in [
            ("a b", 400, "host_invalid"),
            ("a@portcullis.localhost", 400, "host_invalid"),
            ("", 400, "host_invalid"),
            ("portcullis.localhost:", 400, "host_invalid"),
            ("portcullis.localhost:80:80", 400, "host_invalid"),
            ("portcullis.localhost:99999", 400, "host_invalid"),
            ("portcullis..localhost", 400, "host_invalid"),
            ("portcullis.localhost/x", 400, "host_invalid"),
            ("portcullis.localhost, evil.test", 400, "host_invalid"),
            ("[::1", 400, "host_invalid"),
            ("%70ortcullis.localhost", 400, "host_invalid"),
            ("evil.test", 421, "host_foreign"),
            ("portcullis.localhost.evil.test", 421, "host_foreign"),
            ("xportcullis.localhost", 421, "host_foreign"),
            ("portcullis.localhost:81", 421, "host_foreign"),
            ("10.0.0.1", 421, "host_foreign"),
        ] {
            let request = replaced(gateway, host, &format!("Host: {value}\r\n"));
            cases.push(fault(&format!("H15 H16 {value:?}"), request, status, reason));
        }
        cases
    });
}

#[test]
fn h18_to_h21_sizes() {
    refuse(|gateway| {
        let with = |line: String| Post::new(gateway).field(&line).bytes();
        let long = |bytes: usize| "a".repeat(bytes);
        // An unfinished head: refused at the bound, not at its end.
        let mut endless = b"POST /mcp/tools HTTP/1.1\r\n".to_vec();
        endless.extend(format!("X: {}", long(33_000)).into_bytes());
        let many = |count: usize| {
            let lines = (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
            let head = "GET /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\n";
            format!("{head}{lines}\r\n").into_bytes()
        };
        let target = |bytes: usize| {
            replaced(gateway, "/mcp/tools", &format!("/mcp/tools?{}", long(bytes - 11)))
        };
        vec![
            fault("H18", with(format!("{}: x", long(70_000))), 431, "head_too_large"),
            fault("H18 257", with(format!("{}: x", long(257))), 431, "head_too_large"),
            fault("H19", with(format!("X: {}", long(32 * 1024))), 431, "head_too_large"),
            fault("H19 no end", endless, 431, "head_too_large"),
            fault("H20", many(100), 431, "head_too_large"),
            fault("H21", target(8 * 1024 + 1), 414, "target_too_long"),
            Case {
                id: "H20 just fits".to_owned(),
                request: many(99),
                status: 401,
                reason: "token_missing",
                end: End::Open,
            },
        ]
    });
}

/// H19: ten megabytes of head are not kept.
#[test]
fn h19_a_head_without_end_takes_no_memory() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let good = Post::new(&gateway).bytes();
        assert_eq!(gateway.ask(&good).status, 200);
        let before = gateway.memory();
        let mut head = b"POST /mcp/tools HTTP/1.1\r\nX: ".to_vec();
        head.resize(10 * 1024 * 1024, b'a');
        let mut client = Client::connect(gateway.address);
        client.send(&head, Way::Whole);
        let answer = client.answer().expect("an answer");
        assert_eq!((answer.status, answer.reason().as_str()), (431, "head_too_large"));
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < 1024 * 1024, "{grown} bytes for a head that was refused");
        assert_eq!(turn.reasons(&gateway, 2), ["ok", "head_too_large"]);
    }
}

#[test]
fn h22_repeated_fields() {
    refuse(|gateway| {
        let token = gateway.keys.token("alice");
        let twice = |line: &str| {
            let request = Post::new(gateway).field(line).field(line).bytes();
            fault(&format!("twice {line}"), request, 400, "http_malformed")
        };
        let authorization = format!("Authorization: Bearer {token}");
        vec![
            fault("H22", Post::new(gateway).field(&authorization).bytes(), 400, "http_malformed"),
            twice("Mcp-Session-Id: a"),
            twice("Mcp-Method: tools/call"),
            twice("Mcp-Name: echo"),
            twice("MCP-Protocol-Version: 2025-06-18"),
            twice("Mcp-Param-Region: eu"),
            twice("Origin: http://portcullis.localhost"),
            twice("Expect: 100-continue"),
            twice("Cookie: a=b"),
        ]
    });
}

/// A 401 on a kept connection says nothing about the next request on it.
#[test]
fn paths_methods_origins() {
    refuse(|gateway| {
        let open = |id: &str, request: Vec<u8>, status, reason| Case {
            id: id.to_owned(),
            request,
            status,
            reason,
            end: End::Open,
        };
        let mut cases = Vec::new();
        for path in [
            "/",
            "/mcp/",
            "/MCP/tools",
            "/mcp//tools",
            "/mcp/tools/",
            "/mcp/%74ools",
            "/mcp/../mcp",
            "/mcp/tools/x",
            "/mcp/-a",
            "/metrics",
            "/readyz",
            "/.well-known/oauth-protected-resource/",
        ] {
            cases.push(open(path, replaced(gateway, "/mcp/tools", path), 404, "not_found"));
        }
        for method in ["PUT", "PATCH", "HEAD", "TRACE", "CONNECT", "post", "OPTIONS", "BREW"] {
            let request = replaced(gateway, "POST", method);
            let mut case = open(method, request, 405, "method_not_allowed");
            if method == "CONNECT" {
                case.end = End::Closed;
            }
            if method != "HEAD" {
                cases.push(case);
            }
        }
        for origin in [
            "null",
            "https://evil.test",
            "http://portcullis.localhost.evil.test",
            "",
            "https://agents.test:444",
            "http://agents.test",
            "https://agents.test/",
            "file://",
            "https://agents.test, https://evil.test",
        ] {
            let request = Post::new(gateway).field(&format!("Origin: {origin}")).bytes();
            cases.push(open(&format!("M11 {origin:?}"), request, 403, "origin_foreign"));
        }
        cases
    });
}

#[test]
fn h24_100_continue_comes_after_authentication_only() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let good = Post::new(&gateway).field("Expect: 100-continue");
        let whole = good.bytes();
        let (head, body) = whole.split_at(whole.len() - good.body.len());
        let mut client = Client::connect(gateway.address);
        client.send(head, Way::Dripped);
        assert_eq!(client.answer().unwrap().status, 100);
        client.send(body, Way::Dripped);
        assert_eq!(client.answer().unwrap().status, 200);
        assert_eq!(gateway.upstream.last().header("expect"), None);

        let stranger = Post { token: None, ..good };
        let whole = stranger.bytes();
        let before = gateway.upstream.heard();
        let mut client = Client::connect(gateway.address);
        client.send(&whole[..whole.len() - stranger.body.len()], Way::Whole);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.reason().as_str()), (401, "token_missing"));
        assert!(client.ended(), "whether the body follows is not known, so nothing may follow");
        assert_eq!(gateway.upstream.heard(), before);
        assert_eq!(turn.reasons(&gateway, 2), ["ok", "token_missing"]);
    }
    refuse(|gateway| {
        let expecting = |what: &str| {
            let request = Post::new(gateway).field(&format!("Expect: {what}")).bytes();
            fault(&format!("H24 {what:?}"), request, 417, "expectation")
        };
        ["200-ok", "100-continue, x", "", "100-continue;q=1"].into_iter().map(expecting).collect()
    });
}

#[test]
fn h27_m13_media_types() {
    refuse(|gateway| {
        let base = text(&Post::new(gateway).bytes());
        let case = |id: String, request: String, status, reason| Case {
            id,
            request: request.into_bytes(),
            status,
            reason,
            end: End::Open,
        };
        let mut cases = Vec::new();
        for coding in ["gzip", "br", "deflate", "identity, gzip", "x"] {
            let line = format!("{JSON}Content-Encoding: {coding}\r\n");
            let request = base.replacen(JSON, &line, 1);
            cases.push(case(format!("H27 {coding}"), request, 415, "content_encoding"));
        }
        for kind in [
            "text/plain",
            "application/jsonx",
            "application/json; charset=utf-7",
            "application/json;x=y; Charset=\"UTF-16\"",
            "application/json; charset=shift_jis",
            "application/json; charset=",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
            "application/json-rpc, application/json",
            "*/*",
        ] {
            let request = base.replacen(JSON, &format!("Content-Type: {kind}\r\n"), 1);
            cases.push(case(format!("M13 {kind:?}"), request, 415, "content_type"));
        }
        cases.push(case("M13 no type".into(), base.replacen(JSON, "", 1), 415, "content_type"));
        for accept in ["application/json", "text/event-stream", "text/html, image/*", ""] {
            let request = base.replacen(ACCEPT, &format!("Accept: {accept}\r\n"), 1);
            cases.push(case(format!("M13 accept {accept:?}"), request, 406, "not_acceptable"));
        }
        cases.push(case(
            "M13 no accept".into(),
            base.replacen(ACCEPT, "", 1),
            406,
            "not_acceptable",
        ));
        cases
    });
}

/// What was judged as UTF-8 goes up as nothing else, however the client called it.
#[test]
fn a_message_goes_up_as_plain_json() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let base = text(&Post::new(&gateway).bytes());
        for kind in ["application/json", "Application/JSON;charset=\"UTF-8\"; x=charset=utf-7"] {
            let request = base.replacen(JSON, &format!("Content-Type: {kind}\r\n"), 1);
            assert_eq!(gateway.ask(request.as_bytes()).status, 200, "{kind}");
            let seen = gateway.upstream.last();
            assert_eq!(seen.header("content-type"), Some("application/json"), "{driver:?}");
        }
    }
}
