//! What the scripted MCP server answers, by the name of the script.

use super::client::text;
use super::upstream::{After, Seen};

/// A secret of the server that no agent may ever see (case O04).
pub(crate) const LEAK: &str = "CANARY-server-secret";

pub(crate) fn scripted(script: &str, seen: &Seen) -> (Vec<u8>, After) {
    let result = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"served":true}}}}"#, id_of(seen));
    let fixed = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes();
    let ok = json_answer("200 OK", "", &result);
    let length = result.len();
    let keep = |bytes| (bytes, After::Keep);
    match script {
        "plain" if text(&seen.body).contains(r#""method":"initialize""#) => {
            let result =
                result.replace(r#"{"served":true}"#, r#"{"protocolVersion":"2025-06-18"}"#);
            keep(json_answer("200 OK", "Mcp-Session-Id: upstream-session\r\n", &result))
        }
        "plain" if !text(&seen.body).contains(r#""id""#) && seen.head.starts_with("POST") => {
            keep(fixed("202 Accepted\r\nContent-Length: 0", ""))
        }
        "plain" if seen.head.starts_with("DELETE") => {
            keep(fixed("200 OK\r\nContent-Length: 0", ""))
        }
        "plain" if seen.head.starts_with("GET") => (events("data: hello\n\n", true), After::Keep),
        "plain" => keep(ok),
        // H30: not exactly one response.
        "cl-te" => keep(fixed(
            &format!("200 OK\r\n{JSON}Content-Length: {length}\r\nTransfer-Encoding: chunked"),
            &format!("{length:x}\r\n{result}\r\n0\r\n\r\n"),
        )),
        "two-lengths" => keep(fixed(
            &format!("200 OK\r\n{JSON}Content-Length: {length}\r\nContent-Length: 3"),
            &result,
        )),
        "equal-lengths" => keep(fixed(
            &format!("200 OK\r\n{JSON}Content-Length: {length}\r\nContent-Length: {length}"),
            &result,
        )),
        "interim-8" | "interim-9" => {
            let count = if script == "interim-8" { 8 } else { 9 };
            let mut bytes = "HTTP/1.1 102 Processing\r\n\r\n".repeat(count).into_bytes();
            bytes.extend(ok);
            keep(bytes)
        }
        "switch" => keep(fixed("101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade", "")),
        "cr-in-header" => keep(fixed(&format!("200 OK\r\n{JSON}X: a\rb\r\nContent-Length: 0"), "")),
        "nul-in-header" => {
            keep(fixed(&format!("200 OK\r\n{JSON}X: a\0b\r\nContent-Length: 0"), ""))
        }
        "bare-lf" => keep(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n".to_vec()),
        "fold" => keep(fixed(&format!("200 OK\r\n{JSON}X: a\r\n b\r\nContent-Length: 0"), "")),
        "garbage" => keep(b"\x00\x01\x02 no HTTP at all\r\n\r\n".to_vec()),
        "huge-head" => {
            keep(fixed(&format!("200 OK\r\nX: {}\r\nContent-Length: 0", "a".repeat(33_000)), ""))
        }
        "bad-chunk" => (events_head_with("zz\r\n{}\r\n0\r\n\r\n"), After::Hold),
        "surplus" => {
            let mut bytes = ok.clone();
            bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON");
            keep(bytes)
        }
        "until-close" => {
            (fixed(&format!("200 OK\r\n{JSON}Connection: close"), &result), After::Close)
        }
        // F07, F08: an end in the wrong place.
        "close-silent" => (Vec::new(), After::Close),
        "close-in-head" => (b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(), After::Close),
        "close-in-body" => (
            fixed(&format!("200 OK\r\n{JSON}Content-Length: {}", length + 9), &result),
            After::Close,
        ),
        "close-in-chunk" => {
            let head = format!("200 OK\r\n{JSON}Transfer-Encoding: chunked");
            (fixed(&head, &format!("{:x}\r\n{result}", length + 9)), After::Close)
        }
        "close-in-events" => (events("data: first\n\ndata: sec", false), After::Close),
        "early" => (ok, After::Deaf),
        "hang" => (Vec::new(), After::Hold),
        "stall-in-events" => (events("data: first\n\n", false), After::Hold),
        // Statuses and fields that must not travel on (O04).
        "refuse-401" => keep(leaky("401 Unauthorized", "")),
        "refuse-403" => keep(leaky("403 Forbidden", "")),
        "redirect-302" => keep(leaky("302 Found", "Location: http://127.0.0.1:1/CANARY\r\n")),
        "redirect-307" => keep(leaky("307 Temporary Redirect", "Location: /mcp?k=CANARY\r\n")),
        "fail-500" => keep(leaky("500 Internal Server Error", "")),
        "leaky-200" => keep(json_answer("200 OK", &leaky_fields(), &result)),
        "gzip" => keep(json_answer("200 OK", "Content-Encoding: gzip\r\n", &result)),
        "html" => keep(fixed(
            &format!("200 OK\r\nContent-Type: text/html\r\nContent-Length: {}", LEAK.len()),
            LEAK,
        )),
        "no-type" => keep(fixed(&format!("200 OK\r\nContent-Length: {length}"), &result)),
        // M15: streams.
        "events" => keep(events(
            "event: message\r\ndata: one\r\n\r\ndata: two\rid: 7\r\rdata: three\n\n",
            true,
        )),
        "huge-event" => keep(events(&format!("data: {}\n\n", "x".repeat(1_200_000)), true)),
        "no-newline" => (events(&"y".repeat(10 * 1024 * 1024), true), After::Hold),
        other => panic!("no script {other}"),
    }
}

fn json_answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{JSON}{fields}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn leaky(status: &str, fields: &str) -> Vec<u8> {
    let body = format!("{{\"error\":\"{LEAK}\"}}");
    let fields = format!("{}{fields}Content-Length: {}\r\n", leaky_fields(), body.len());
    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{fields}\r\n{body}").into_bytes()
}

fn leaky_fields() -> String {
    format!(
        "Set-Cookie: session={LEAK}\r\nWWW-Authenticate: Bearer realm=\"{LEAK}\"\r\n\
         Authorization: Bearer {LEAK}\r\nX-Api-Key: {LEAK}\r\nServer: {LEAK}\r\n\
         Proxy-Authenticate: {LEAK}\r\nLink: <{LEAK}>\r\nAccess-Control-Allow-Origin: *\r\n"
    )
}

/// An event stream in one chunk, whole or without its end.
fn events(stream: &str, whole: bool) -> Vec<u8> {
    let end = if whole { "0\r\n\r\n" } else { "" };
    events_head_with(&format!("{:x}\r\n{stream}\r\n{end}", stream.len()))
}

fn events_head_with(body: &str) -> Vec<u8> {
    let head = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked";
    format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes()
}

/// The id as written: what stands between `"id":` and the next member.
fn id_of(seen: &Seen) -> String {
    let body = text(&seen.body);
    let Some((_, rest)) = body.split_once(r#""id":"#) else { return "null".to_owned() };
    rest.split([',', '}']).next().unwrap_or("null").trim().to_owned()
}

const JSON: &str = "Content-Type: application/json\r\n";
