//! Golden transcripts of requests between the eras: what the agent writes, what goes upstream, what
//! comes back and what the agent hears, each whole.

use super::super::bridge::{Out, ToLegacy, ToModern, is_bridged};
use super::super::capability::ClientCapabilities as Client;
use super::super::message::{Message, ServerNote};
use super::super::span::Document;
use super::super::{Call, Method, Mirrored};
use crate::reject::Reject;

const UP_ID: &[u8] = br#""g7""#;

fn down(text: &str) -> Result<Out, Reject> {
    Ok(Out::Down(text.as_bytes().to_vec()))
}

fn answer(text: &str) -> Result<Out, Reject> {
    Ok(Out::Answer(text.as_bytes().to_vec()))
}

fn up(text: &str) -> Result<Out, Reject> {
    Ok(Out::Up(text.as_bytes().to_vec()))
}

/// A request of a modern agent; `meta` stands behind the protocol's own members.
fn modern(method: &str, params: &str, meta: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"q\u0031","method":"{method}","params":{{{params}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{"elicitation":{{}}}}{meta}}}}}}}"#
    )
}

/// What goes upstream, which must be a request that our own reader takes for one of `version`.
fn sent(out: Vec<u8>, version: &str) -> String {
    let mut call = Call::new();
    call.read(&out, |_| None).unwrap();
    let modern = version == "2026-07-28";
    let (method, name) = (call.method_name().to_owned(), call.name().map(str::to_owned));
    let mirrored = Mirrored {
        protocol_version: Some(version.as_bytes()),
        method: modern.then_some(method.as_bytes()),
        name: name.as_deref().filter(|_| modern).map(str::as_bytes),
    };
    assert_eq!(call.agree(&mirrored), Ok(()), "{}", String::from_utf8_lossy(&out));
    String::from_utf8(out).unwrap()
}

fn to_legacy(text: &str) -> Result<(ToLegacy, String), Reject> {
    let mut document = Document::new();
    let root = document.read(text.as_bytes()).unwrap();
    let method = Method::from_name(root.get("method").unwrap().text().unwrap());
    let mut out = Vec::new();
    let bridge = ToLegacy::request(method, root, text.as_bytes(), UP_ID, &mut out)?;
    Ok((bridge, sent(out, "2025-11-25")))
}

fn to_modern(text: &str, declared: Client) -> Result<(ToModern, String), Reject> {
    let mut document = Document::new();
    let root = document.read(text.as_bytes()).unwrap();
    let method = Method::from_name(root.get("method").unwrap().text().unwrap());
    let mut out = Vec::new();
    let bridge = ToModern::request(method, root, text.as_bytes(), declared, &mut out)?;
    Ok((bridge, sent(out, "2026-07-28")))
}

trait Hears {
    fn heard(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Reject>;

    fn hears(&self, text: &str) -> Result<Out, Reject> {
        let mut document = Document::new();
        let message = Message::read(document.read(text.as_bytes()).unwrap()).unwrap();
        self.heard(&message, text.as_bytes())
    }
}

impl Hears for ToLegacy {
    fn heard(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Reject> {
        ToLegacy::heard(self, message, text)
    }
}

impl Hears for ToModern {
    fn heard(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Reject> {
        ToModern::heard(self, message, text)
    }
}

#[test]
fn a_modern_call_of_a_legacy_tool() {
    let text = modern(
        "tools/call",
        r#""name":"add", "arguments":{"_meta":{"io.modelcontextprotocol/x":1},"id":5},"#,
        r#","progressToken":  17,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","io.modelcontextprotocol/logLevel":"warning","io.portcullis/server":"x""#,
    );
    let (bridge, out) = to_legacy(&text).unwrap();
    assert_eq!(
        out,
        r#"{"jsonrpc":"2.0","id":"g7","method":"tools/call","params":{"name":"add", "arguments":{"_meta":{"io.modelcontextprotocol/x":1},"id":5},"_meta":{"progressToken":  "g7","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#
    );
    assert_eq!(bridge.capabilities(), Client::ELICITATION_FORM);

    // While it works.
    assert_eq!(
        bridge.hears(
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"g\u0037","progress":1}}"#
        ),
        down(
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":17,"progress":1}}"#
        )
    );
    let stranger = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":17,"progress":1}}"#;
    assert_eq!(bridge.hears(stranger), Ok(Out::Dropped), "the token of somebody else");
    for (level, heard) in [("warning", true), ("alert", true), ("info", false), ("loud", false)] {
        let log = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#
        );
        let expected = if heard { down(&log) } else { Ok(Out::Dropped) };
        assert_eq!(bridge.hears(&log), expected, "{level}");
    }
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    assert_eq!(bridge.hears(note), Ok(Out::Changed(ServerNote::ToolsListChanged)));
    assert_eq!(
        bridge.hears(r#"{"jsonrpc":"2.0","id":4294967296,"method":"ping"}"#),
        up(r#"{"jsonrpc":"2.0","id":4294967296,"result":{}}"#)
    );
    for method in ["sampling/createMessage", "elicitation/create", "roots/list", "tasks/get"] {
        let request = format!(r#"{{"jsonrpc":"2.0","id":"s1","method":"{method}","params":{{}}}}"#);
        let refused =
            r#"{"jsonrpc":"2.0","id":"s1","error":{"code":-32601,"message":"Method not found"}}"#;
        assert_eq!(bridge.hears(&request), up(refused), "{method}: nobody declared it");
    }

    // Answers: of somebody else, twice over, and ours.
    for stray in [r#""g8""#, "7", r#""q1""#, r#""G7""#] {
        for said in [r#""result":{}"#, r#""error":{"code":1,"message":""}"#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{stray},{said}}}"#);
            assert_eq!(bridge.hears(&text), Ok(Out::Stray), "{text}");
        }
    }
    let nobodys = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#;
    assert_eq!(bridge.hears(nobodys), Ok(Out::Stray));
    assert_eq!(
        bridge.hears(
            r#"{"jsonrpc":"2.0","id":"g7","result":{"content":[{"type":"text","text":"\u0035"}],"_meta":{"x":1,"io.portcullis/partial":[]}, "resultType" :"input_required"}}"#
        ),
        answer(
            r#"{"jsonrpc":"2.0","id":"q\u0031","result":{"content":[{"type":"text","text":"\u0035"}],"_meta":{"x":1}, "resultType" :"complete"}}"#
        )
    );
}

#[test]
fn what_modern_results_must_say_is_said_for_legacy_servers() {
    for (method, params, cached) in [
        ("tools/list", "", true),
        ("prompts/list", "", true),
        ("resources/list", "", true),
        ("resources/templates/list", r#""cursor":"","#, true),
        ("resources/read", r#""uri":"file:///x","#, true),
        ("prompts/get", r#""name":"p","#, false),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"p"},"#, false),
    ] {
        let (bridge, _) = to_legacy(&modern(method, params, "")).unwrap();
        let terms = if cached { r#","ttlMs":0,"cacheScope":"private""# } else { "" };
        let heard = bridge.hears(r#"{"jsonrpc":"2.0","id":"g7","result":{"x":[]}}"#);
        let expected = format!(
            r#"{{"jsonrpc":"2.0","id":"q\u0031","result":{{"x":[],"resultType":"complete"{terms}}}}}"#
        );
        assert_eq!(heard, answer(&expected), "{method}");
        let public =
            r#"{"jsonrpc":"2.0","id":"g7","result":{"ttlMs":90000,"cacheScope":"public"}}"#;
        let Ok(Out::Answer(heard)) = bridge.hears(public) else { panic!("{method}") };
        let heard = String::from_utf8(heard).unwrap();
        assert_eq!(heard.contains(r#""cacheScope":"private""#), cached, "{method}: {heard}");
    }
}

#[test]
fn errors_of_legacy_servers_in_words_of_the_modern_era() {
    let (bridge, _) = to_legacy(&modern("resources/read", r#""uri":"file:///x","#, "")).unwrap();
    let error = |code: i64, id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"m","data":{{"uri":"file:///x"}}}}}}"#
        )
    };
    for (theirs, ours) in [(-32_002, -32_602), (-32_602, -32_602), (-32_000, -32_000), (7, 7)] {
        let expected = error(ours, r#""q\u0031""#);
        assert_eq!(bridge.hears(&error(theirs, r#""g7""#)), answer(&expected), "{theirs}");
    }
    assert_eq!(bridge.hears(&error(-32_042, r#""g7""#)), Err(Reject::UpstreamEra));
}

#[test]
fn what_has_no_legacy_form_is_refused() {
    let refused = |text: &str| to_legacy(text).map(|_| ()).unwrap_err();
    let listen = modern("subscriptions/listen", r#""notifications":{},"#, "");
    assert_eq!(refused(&listen), Reject::UpstreamEra);
    assert_eq!(refused(&modern("tasks/get", r#""taskId":"t","#, "")), Reject::UpstreamEra);
    assert!(!is_bridged(Method::ServerDiscover) && !is_bridged(Method::Extension(0)));
    let state = r#""name":"add","requestState":"s","inputResponses":{},"#;
    assert_eq!(refused(&modern("tools/call", state, "")), Reject::StateForeign);
    let level = r#","io.modelcontextprotocol/logLevel":"loud""#;
    assert_eq!(refused(&modern("tools/call", r#""name":"add","#, level)), Reject::RpcParams);
    let (_, out) = to_legacy(&modern("tools/call", r#""inputResponses":{"a":{}},"name":"x","#, ""))
        .expect("a retry without a state is a call like any other");
    assert_eq!(
        out,
        r#"{"jsonrpc":"2.0","id":"g7","method":"tools/call","params":{"name":"x","_meta":{}}}"#
    );
}

#[test]
fn without_a_token_or_a_level_nothing_but_the_answer_is_heard() {
    let (bridge, _) = to_legacy(&modern("tools/call", r#""name":"add","#, "")).unwrap();
    for note in [
        r#""method":"notifications/progress","params":{"progressToken":"g7","progress":1}"#,
        r#""method":"notifications/message","params":{"level":"emergency","data":1}"#,
        r#""method":"notifications/cancelled","params":{"requestId":"s1"}"#,
        r#""method":"notifications/tasks/status","params":{"taskId":"t"}"#,
        r#""method":"notifications/com.example/x""#,
    ] {
        assert_eq!(bridge.hears(&format!(r#"{{"jsonrpc":"2.0",{note}}}"#)), Ok(Out::Dropped));
    }
}

const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"portcullis","version":"VERSION"},"io.modelcontextprotocol/clientCapabilities":"#;

#[test]
fn a_legacy_call_of_a_modern_tool() {
    let meta = META.replace("VERSION", env!("CARGO_PKG_VERSION"));
    let text = r#"{"id": 3,"jsonrpc":"2.0","params":{"arguments":{"a":"\u00e9"},"_meta":{"progressToken":"p" , "io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"io.modelcontextprotocol/related-task":{"taskId":"t"},"x":{"y":[1]}},"name":"add"},"method":"tools/call"}"#;
    let (bridge, out) = to_modern(text, Client::ELICITATION_FORM).unwrap();
    let expected = r#"{"id": 3,"jsonrpc":"2.0","params":{"arguments":{"a":"\u00e9"},"_meta":{META{"elicitation":{"form":{}}},"progressToken":"p","x":{"y":[1]}},"name":"add"},"method":"tools/call"}"#;
    assert_eq!(out, expected.replace("META", &meta));

    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#;
    assert_eq!(bridge.hears(progress), down(progress));
    let listened = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1,"_meta":{"io.modelcontextprotocol/subscriptionId":3}}}"#;
    let plain = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1,"_meta":{}}}"#;
    assert_eq!(bridge.hears(listened), down(plain));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#;
    assert_eq!(bridge.hears(note), Ok(Out::Changed(ServerNote::PromptsListChanged)));
    let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}"#;
    assert_eq!(bridge.hears(acknowledged), Ok(Out::Dropped));
    let asks = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(bridge.hears(asks), Err(Reject::UpstreamMalformed), "modern servers ask nothing");

    for stray in ["4", r#""3""#, "3.0e0", "null"] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{stray},"error":{{"code":1,"message":""}}}}"#);
        let mut document = Document::new();
        let Ok(message) = Message::read(document.read(text.as_bytes()).unwrap()) else { continue };
        assert_eq!(bridge.heard(&message, text.as_bytes()), Ok(Out::Stray), "{text}");
    }
    assert_eq!(
        bridge.hears(
            r#"{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","content":[],"structuredContent":{"a":1},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"},"ui":1}}}"#
        ),
        answer(
            r#"{"jsonrpc":"2.0","id":3,"result":{"content":[],"structuredContent":{"a":1},"_meta":{"ui":1}}}"#
        )
    );
    let array = r#"{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","structuredContent":[1],"content":[]}}"#;
    let without = r#"{"jsonrpc":"2.0","id":3,"result":{"content":[]}}"#;
    assert_eq!(bridge.hears(array), answer(without));
    for kind in ["input_required", "task", "com.example/later"] {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":3,"result":{{"resultType":"{kind}","content":[]}}}}"#
        );
        assert_eq!(bridge.hears(&text), Err(Reject::UpstreamEra), "{kind}");
    }
}

#[test]
fn a_legacy_request_without_params_or_meta_gets_them() {
    let meta = META.replace("VERSION", env!("CARGO_PKG_VERSION"));
    for (text, expected) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{META{}}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{META{}}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p","_meta":{META{}}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"_meta":{},"uri":"u:x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"_meta":{META{}},"uri":"u:x"}}"#,
        ),
    ] {
        let (bridge, out) = to_modern(text, Client::default()).unwrap();
        assert_eq!(out, expected.replace("META", &meta));
        let terms = r#"{"jsonrpc":"2.0","id":1,"result":{"ttlMs":5,"resultType":"complete","cacheScope":"public","contents":[],"nextCursor":""}}"#;
        let plain = r#"{"jsonrpc":"2.0","id":1,"result":{"contents":[],"nextCursor":""}}"#;
        assert_eq!(bridge.hears(terms), answer(plain));
    }
}

#[test]
fn errors_of_modern_servers_in_words_of_the_legacy_era() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}"#;
    let (bridge, _) = to_modern(text, Client::default()).unwrap();
    let error = |code: i64| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"message":"m","code": {code}}}}}"#)
    };
    for (theirs, ours) in [
        (-32_020, -32_603),
        (-32_021, -32_602),
        (-32_022, -32_600),
        (-32_602, -32_602),
        (1_403, 1_403),
    ] {
        assert_eq!(bridge.hears(&error(theirs)), answer(&error(ours)), "{theirs}");
    }
}

#[test]
fn what_has_no_modern_form_is_refused() {
    let refused = |method: &str, params: &str| {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#);
        to_modern(&text, Client::default()).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused("resources/subscribe", r#""uri":"u:x""#), Reject::UpstreamEra);
    assert_eq!(refused("logging/setLevel", r#""level":"info""#), Reject::UpstreamEra);
    assert_eq!(refused("tools/call", r#""name":"add","task":{"ttl":1}"#), Reject::UpstreamEra);
    assert_eq!(refused("tools/call", r#""name":"add","_meta":[]"#), Reject::RpcParams);
    assert_eq!(refused("tools/call", r#""name":"add","_Meta":{}"#), Reject::RpcInvalid);
}
