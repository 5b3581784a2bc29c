//! Header against body, and the method table: `Call::agree` (cases M09, M10).

use super::super::{Call, Era, Method, Mirrored, REVISIONS, bodyless_revision};
use super::{judge, read, request};
use crate::reject::Reject;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

/// A request in the modern form; `params` without its braces.
fn modern(method: &str, params: &str) -> String {
    let revision = format!(r#""io.modelcontextprotocol/protocolVersion":"{MODERN}""#);
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    let comma = if params.is_empty() { "" } else { "," };
    request(method, &format!(r#""_meta":{{{revision},{capabilities}}}{comma}{params}"#))
}

/// The outcome with the headers that a good client sends.
fn served(body: &str, version: Option<&str>) -> Result<(), Reject> {
    let (mut call, outcome) = read(body);
    assert_eq!(outcome, Ok(()), "{body}");
    let method = call.method_name().to_owned();
    let row = call.method().row().is_some_and(|row| row.mirrored_name);
    let name = call.name().or(call.task_id()).filter(|_| row).map(str::to_owned);
    call.agree(&Mirrored {
        protocol_version: version.map(str::as_bytes),
        method: Some(method.as_bytes()),
        name: name.as_deref().map(str::as_bytes),
    })
}

#[test]
fn a_modern_call_is_agreed() {
    let body = modern("tools/call", r#""name":"add","arguments":{}"#);
    let (call, outcome) = judge(&body, Some(MODERN), Some("tools/call"), Some("add"));
    assert_eq!(outcome, Ok(()));
    assert_eq!((call.era(), call.revision()), (Era::Modern, Some(MODERN)));
}

#[test]
fn legacy_revisions_come_from_header_or_handshake() {
    let list = request("tools/list", "");
    for revision in &REVISIONS[..4] {
        let (call, outcome) = judge(&list, Some(revision), None, None);
        assert_eq!((outcome, call.era()), (Ok(()), Era::Legacy));
        assert_eq!(call.revision(), Some(*revision));
    }
    assert_eq!(judge(&list, None, None, None).0.revision(), Some("2025-03-26"));
    // What is asked for is negotiated by the upstream, so an unknown one is no fault.
    for revision in ["2025-06-18", "1.0.0", "2024-10-07"] {
        let body = request("initialize", &format!(r#""protocolVersion":"{revision}""#));
        let (call, outcome) = judge(&body, None, None, None);
        assert_eq!((outcome, call.revision()), (Ok(()), Some(revision)));
    }
    let without = request("initialize", r#""capabilities":{}"#);
    assert_eq!(judge(&without, None, None, None).1, Err(Reject::RpcParams));
}

#[test]
fn m10_a_revision_that_we_do_not_speak_is_refused_and_named() {
    let list = request("tools/list", "");
    for version in
        ["2099-01-01", "v999.0.0", "", "2025-11-25,2025-11-25", "2026-07-28x", "2026-7-28"]
    {
        let (call, outcome) = judge(&list, Some(version), None, None);
        assert_eq!((outcome, call.requested()), (Err(Reject::RpcVersion), Some(version)));
    }
    let stateless = modern("server/discover", "").replace(MODERN, "v999.0.0");
    let (call, outcome) = judge(&stateless, Some("v999.0.0"), Some("server/discover"), None);
    assert_eq!((outcome, call.requested()), (Err(Reject::RpcVersion), Some("v999.0.0")));
    // What could not stand in an answer is not named.
    for version in ["a\tb", "caf\u{e9}", &"9".repeat(65)] {
        let (call, outcome) = judge(&list, Some(version), None, None);
        assert_eq!((outcome, call.requested()), (Err(Reject::RpcVersion), None));
    }
}

#[test]
fn m10_a_message_without_body_has_the_header_only() {
    assert_eq!(bodyless_revision(None), Ok((Era::Legacy, "2025-03-26")));
    assert_eq!(bodyless_revision(Some(b" 2025-06-18")), Ok((Era::Legacy, "2025-06-18")));
    assert_eq!(bodyless_revision(Some(MODERN.as_bytes())), Ok((Era::Modern, MODERN)));
    assert_eq!(bodyless_revision(Some(b"2025-06-19")), Err(Reject::RpcVersion));
}

#[test]
fn m09_header_and_meta_name_the_same_revision() {
    let discover = modern("server/discover", "");
    let method = Some("server/discover");
    for version in [None, Some(LEGACY), Some("2099-01-01"), Some("2026-07-28 2026-07-28")] {
        let outcome = judge(&discover, version, method, None).1;
        assert_eq!(outcome, Err(Reject::RpcHeaderMismatch), "{version:?}");
    }
    let unknown = discover.replace(MODERN, "v999.0.0");
    assert_eq!(judge(&unknown, Some(MODERN), method, None).1, Err(Reject::RpcHeaderMismatch));
    let old = discover.replace(MODERN, LEGACY);
    assert_eq!(judge(&old, Some(MODERN), method, None).1, Err(Reject::RpcHeaderMismatch));
    assert_eq!(judge(&old, None, method, None).1, Err(Reject::RpcHeaderMismatch));
    // A notification in the modern form is bound to the same rule.
    let notification = modern("notifications/cancelled", "").replace(r#""id":1,"#, "");
    assert_eq!(judge(&notification, None, None, None).1, Err(Reject::RpcHeaderMismatch));
    assert_eq!(judge(&notification, Some(MODERN), None, None).1, Ok(()));
}

#[test]
fn m09_mirrored_headers_equal_the_body() {
    let call = modern("tools/call", r#""name":"add""#);
    let mismatch = Err(Reject::RpcHeaderMismatch);
    for (method, name, expected) in [
        (Some("tools/call"), Some("add"), Ok(())),
        (Some("\t tools/call "), Some("  add\t"), Ok(())),
        (None, Some("add"), mismatch),
        (Some("tools/call"), None, mismatch),
        (Some("TOOLS/CALL"), Some("add"), mismatch),
        (Some("tools/list"), Some("add"), mismatch),
        (Some("tools/call"), Some("Add"), mismatch),
        (Some("tools/call"), Some("add2"), mismatch),
        (Some("tools/call"), Some("add, add"), mismatch),
        (Some("tools/call"), Some(""), mismatch),
        (Some(""), Some("add"), mismatch),
    ] {
        let outcome = judge(&call, Some(MODERN), method, name).1;
        assert_eq!(outcome, expected, "{method:?} {name:?}");
    }
    // Where the body names nothing, a header that does is a difference too.
    let list = modern("tools/list", "");
    assert_eq!(judge(&list, Some(MODERN), Some("tools/list"), Some("add")).1, mismatch);
    assert_eq!(judge(&list, Some(MODERN), Some("tools/list"), None).1, Ok(()));
    for (method, params, name) in [
        ("prompts/get", r#""name":"p""#, "p"),
        ("resources/read", r#""uri":"file:///a b""#, "file:///a b"),
        ("tasks/get", r#""taskId":"t""#, "t"),
        ("tasks/update", r#""taskId":"t""#, "t"),
        ("tasks/cancel", r#""taskId":"t""#, "t"),
    ] {
        let body = modern(method, params);
        assert_eq!(judge(&body, Some(MODERN), Some(method), Some(name)).1, Ok(()));
        assert_eq!(judge(&body, Some(MODERN), Some(method), None).1, mismatch, "{method}");
        assert_eq!(judge(&body, Some(MODERN), Some(method), Some("x")).1, mismatch, "{method}");
    }
}

#[test]
fn m09_legacy_headers_are_optional_but_never_wrong() {
    let mismatch = Err(Reject::RpcHeaderMismatch);
    let call = request("tools/call", r#""name":"add""#);
    for (method, name, expected) in [
        (None, None, Ok(())),
        (Some("tools/call"), None, Ok(())),
        (Some("tools/call"), Some("add"), Ok(())),
        (Some("tools/list"), None, mismatch),
        (None, Some("sub"), mismatch),
    ] {
        for version in [None, Some(LEGACY)] {
            let outcome = judge(&call, version, method, name).1;
            assert_eq!(outcome, expected, "{version:?} {method:?} {name:?}");
        }
    }
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(judge(response, None, Some("tools/call"), None).1, mismatch);
}

#[test]
fn m09_a_name_may_come_in_base64() {
    let call = modern("tools/call", r#""name":"caf\u00e9 x""#);
    let mismatch = Err(Reject::RpcHeaderMismatch);
    for (name, expected) in [
        ("=?base64?Y2Fmw6kgeA==?=", Ok(())),
        ("  =?base64?Y2Fmw6kgeA==?= ", Ok(())),
        ("caf\u{e9} x", Ok(())),
        ("=?base64?Y2Fmw6kgeA=?=", mismatch),
        ("=?base64?Y2Fmw6kgeA?=", mismatch),
        ("=?base64?Y2Fmw6kgeB==?=", mismatch),
        ("=?base64?Y2Fm w6kgeA==?=", mismatch),
        ("=?base64?Y2Fmw6kgeA==\n?=", mismatch),
        ("=?BASE64?Y2Fmw6kgeA==?=", mismatch),
        ("=?base64?Y2Fmw6kgeA==", mismatch),
        ("Y2Fmw6kgeA==?=", mismatch),
        ("=?base64??=", mismatch),
        ("=?base64?=", mismatch),
        ("=?base64?/////w==?=", mismatch),
    ] {
        let outcome = judge(&call, Some(MODERN), Some("tools/call"), Some(name)).1;
        assert_eq!(outcome, expected, "{name}");
    }
    // A name that looks encoded is not taken literally: it must be encoded itself.
    let twice = modern("tools/call", r#""name":"=?base64?YQ==?=""#);
    for (name, expected) in
        [("=?base64?YQ==?=", mismatch), ("=?base64?PT9iYXNlNjQ/WVE9PT89?=", Ok(()))]
    {
        let outcome = judge(&twice, Some(MODERN), Some("tools/call"), Some(name)).1;
        assert_eq!(outcome, expected, "{name}");
    }
    // The method is never encoded.
    let list = modern("tools/list", "");
    let encoded = Some("=?base64?dG9vbHMvbGlzdA==?=");
    assert_eq!(judge(&list, Some(MODERN), encoded, None).1, mismatch);
}

#[test]
fn a_modern_request_declares_revision_and_capabilities() {
    let method = Some("server/discover");
    let version = format!(r#""io.modelcontextprotocol/protocolVersion":"{MODERN}""#);
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    let body = |meta: &str| request("server/discover", &format!(r#""_meta":{{{meta}}}"#));
    for body in [
        request("server/discover", ""),
        r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#.to_owned(),
        body(""),
        body(&version),
        body(capabilities),
        body(&format!(r#"{version},"io.modelcontextprotocol/clientCapabilities":[]"#)),
    ] {
        assert_eq!(judge(&body, Some(MODERN), method, None).1, Err(Reject::RpcParams), "{body}");
    }
    let whole = body(&format!("{version},{capabilities}"));
    assert_eq!(judge(&whole, Some(MODERN), method, None).1, Ok(()));
    let (_, mistyped) = read(body(r#""io.modelcontextprotocol/protocolVersion":1"#));
    assert_eq!(mistyped, Err(Reject::RpcParams));
}

#[test]
fn methods_are_served_in_their_eras_only() {
    let name = r#""name":"a","uri":"u","taskId":"t","ref":{"type":"ref/prompt","name":"a"}"#;
    let name = &format!(r#"{name},"protocolVersion":"2025-11-25""#);
    let both = [
        "tools/call",
        "tools/list",
        "resources/read",
        "prompts/get",
        "completion/complete",
        "tasks/get",
        "tasks/cancel",
    ];
    let old = [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/result",
        "tasks/list",
    ];
    let new = ["server/discover", "subscriptions/listen", "tasks/update"];
    let none =
        ["tools/Call", "sampling/createMessage", "roots/list", "elicitation/create", "rpc.x", ""];
    for (methods, in_legacy, in_modern) in
        [(&both[..], true, true), (&old, true, false), (&new, false, true), (&none, false, false)]
    {
        for method in methods {
            let expected = if in_legacy { Ok(()) } else { Err(Reject::RpcMethodLegacy) };
            assert_eq!(served(&request(method, name), Some(LEGACY)), expected, "{method}");
            assert_eq!(served(&request(method, name), None), expected, "{method}");
            let expected = if in_modern { Ok(()) } else { Err(Reject::RpcMethodModern) };
            assert_eq!(served(&modern(method, name), Some(MODERN)), expected, "{method}");
        }
    }
    assert_eq!(served(&request("com.example/thing", ""), None), Ok(()));
    assert_eq!(served(&modern("com.example/thing", ""), Some(MODERN)), Ok(()));
}

#[test]
fn removed_methods_are_unknown_even_without_their_params() {
    for method in ["resources/subscribe", "resources/unsubscribe", "initialize", "tasks/result"] {
        assert_eq!(served(&modern(method, ""), Some(MODERN)), Err(Reject::RpcMethodModern));
    }
}

#[test]
fn what_a_method_needs_must_be_there() {
    for method in
        ["tools/call", "prompts/get", "resources/read", "completion/complete", "tasks/get"]
    {
        assert_eq!(served(&request(method, ""), None), Err(Reject::RpcParams), "{method}");
        assert_eq!(served(&modern(method, ""), Some(MODERN)), Err(Reject::RpcParams), "{method}");
        let bare = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        assert_eq!(served(&bare, None), Err(Reject::RpcParams), "{method}");
    }
}

#[test]
fn notifications_and_responses_belong_to_their_era() {
    let note = |method: &str| format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
    let outcome = |body: &str, version| judge(body, version, None, None).1;
    for method in
        ["notifications/initialized", "notifications/progress", "notifications/roots/list_changed"]
    {
        assert_eq!(outcome(&note(method), None), Ok(()));
        assert_eq!(outcome(&note(method), Some(MODERN)), Err(Reject::RpcMethodModern));
    }
    assert_eq!(outcome(&note("notifications/cancelled"), Some(MODERN)), Ok(()));
    assert_eq!(outcome(&note("notifications/x"), None), Err(Reject::PolicyStreamDenied));
    assert_eq!(outcome(&note("notifications/x"), Some(MODERN)), Err(Reject::RpcMethodModern));
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(outcome(response, Some(LEGACY)), Ok(()));
    assert_eq!(outcome(response, Some(MODERN)), Err(Reject::RpcInvalid));
}

#[test]
fn a_reader_is_reused_without_leftovers() {
    let mut call = Call::new();
    let first = modern("tools/call", r#""name":"add""#);
    assert_eq!(call.read(first.as_bytes(), |_| None), Ok(()));
    let mirrored = Mirrored {
        protocol_version: Some(MODERN.as_bytes()),
        method: Some(b"tools/call"),
        name: Some(b"=?base64?YWRk?="),
    };
    assert_eq!(call.agree(&mirrored), Ok(()));
    assert_eq!(call.read(br#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#, |_| None), Ok(()));
    assert_eq!(call.agree(&Mirrored::default()), Ok(()));
    assert_eq!((call.method(), call.name(), call.era()), (Method::Ping, None, Era::Legacy));
    assert_eq!(call.revision(), Some("2025-03-26"));
}
