//! The form of a message: `Call::read`.

use std::time::Duration;

use super::super::{Kind, Method, Target};
use super::{read, request};
use crate::clock::Clock;
use crate::limits::{
    JSON_DEPTH_MAX, LISTEN_RESOURCES_MAX, NAME_BYTES_MAX, RPC_ID_BYTES_MAX, RPC_METHOD_BYTES_MAX,
};
use crate::reject::Reject;

fn refused(body: impl AsRef<[u8]>) -> Reject {
    let shown = String::from_utf8_lossy(body.as_ref()).chars().take(200).collect::<String>();
    read(body).1.expect_err(&shown)
}

/// A call whose arguments are `depth - 3` arrays: the message, params and arguments are one each.
fn nested(depth: usize) -> String {
    let inner = depth - 3;
    let (open, close) = ("[".repeat(inner), "]".repeat(inner));
    request("tools/call", &format!(r#""name":"t","arguments":{{"a":{open}{close}}}"#))
}

#[test]
fn a_call_gives_its_facts() {
    let body = r#"{"method":"tools/call","params":{"name":"add","arguments":{"a":1},
        "_meta":{"traceparent":"00-ab"}},"jsonrpc":"2.0","id": "x" }"#;
    let (call, outcome) = read(body);
    assert_eq!(outcome, Ok(()));
    assert_eq!(call.kind(), Kind::Request);
    assert_eq!(call.method(), Method::ToolsCall);
    assert_eq!(call.method_name(), "tools/call");
    assert_eq!(call.name(), Some("add"));
    assert_eq!(call.traceparent(), Some("00-ab"));
    assert_eq!(call.id_raw(body.as_bytes()), Some(&b"\"x\""[..]));
    assert_eq!(call.targets().collect::<Vec<_>>(), [Target::Tool("add")]);
}

#[test]
fn each_method_names_its_targets() {
    let targets = |method: &str, params: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let (call, outcome) = read(&body);
        assert_eq!(outcome, Ok(()), "{body}");
        call.targets().map(|target| format!("{target:?}")).collect::<Vec<_>>().join(" ")
    };
    let cases = [
        ("tools/list", r#"{"cursor":"","name":"x"}"#, "Server"),
        ("tools/call", r#"{"name":"a\u0062","uri":"u"}"#, r#"Tool("ab")"#),
        ("prompts/get", r#"{"name":"p"}"#, r#"Prompt("p")"#),
        ("resources/read", r#"{"uri":"file:///a","name":"n"}"#, r#"Resource("file:///a")"#),
        ("resources/subscribe", r#"{"uri":"u"}"#, r#"Resource("u")"#),
        ("resources/unsubscribe", r#"{"uri":"u"}"#, r#"Resource("u")"#),
        ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"p"}}"#, r#"Prompt("p")"#),
        ("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"u"}}"#, r#"Resource("u")"#),
        (
            "subscriptions/listen",
            r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a","b"]}}"#,
            r#"Server Resource("a") Resource("b")"#,
        ),
        ("tasks/get", r#"{"taskId":"secret"}"#, "Server"),
        ("com.example/thing", r#"{"name":"n"}"#, "Server"),
    ];
    for (method, params, expected) in cases {
        assert_eq!(targets(method, params), expected, "{method} {params}");
    }
}

#[test]
fn a_task_id_is_no_name() {
    let (call, outcome) =
        read(r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"secret"}}"#);
    assert_eq!((outcome, call.name(), call.task_id()), (Ok(()), None, Some("secret")));
}

#[test]
fn m01_depth_is_bounded_exactly() {
    assert_eq!(read(nested(JSON_DEPTH_MAX)).1, Ok(()));
    assert_eq!(refused(nested(JSON_DEPTH_MAX + 1)), Reject::RpcParse);
    // The same bound above the size from which brackets are counted first, and brackets in strings
    // are none.
    let pad = format!("{}\\\"{}", "[".repeat(20_000), "{\\\\".repeat(9));
    let padded = |depth| nested(depth).replace(r#""a":"#, &format!(r#""pad":"{pad}","a":"#));
    assert_eq!(read(padded(JSON_DEPTH_MAX)).1, Ok(()));
    assert_eq!(refused(padded(JSON_DEPTH_MAX + 1)), Reject::RpcParse);
}

#[test]
fn m01_a_million_levels_are_refused_at_once() {
    let clock = Clock::start();
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        for depth in [65, 10_000, 1_000_000] {
            let body = open.repeat(depth);
            let before = clock.monotonic();
            assert_eq!(refused(&body), Reject::RpcParse);
            // 5 ms is the bar of an optimised build; this one is not.
            let spent = Duration::from_micros(clock.monotonic().micros_since(before));
            assert!(spent < Duration::from_millis(500), "{depth} levels took {spent:?}");
        }
    }
}

#[test]
fn m03_equal_keys_are_refused_at_any_depth() {
    let call = |params: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a",{params}}}}}"#
        )
    };
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","m\u0065thod":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"ping"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","x":{},"x":{}}"#.to_owned(),
        call(r#""name":"b""#),
        call(r#""n\u0061me":"b""#),
        call(r#""arguments":{"a":1,"a":1}"#),
        call(r#""arguments":{"a":[0,{"k":[],"b":0,"\u006b":{}}]}"#),
        call(r#""arguments":{"":1,"":2}"#),
        call(r#""_meta":{"x":1,"x":1}"#),
    ] {
        assert_eq!(refused(&body), Reject::RpcInvalid, "{body}");
    }
    // The same key in two objects is fine, and so is one nested in itself.
    assert_eq!(read(call(r#""arguments":{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#)).1, Ok(()));
}

#[test]
fn m03_equal_keys_are_found_in_objects_of_any_size() {
    let body = |keys: &[String]| {
        let members = keys.iter().map(|key| format!("\"{key}\":{{\"n\":[1]}}")).collect::<Vec<_>>();
        request("tools/call", &format!(r#""name":"a","arguments":{{{}}}"#, members.join(",")))
    };
    for size in [2_usize, 3, 15, 16, 17, 18, 100, 5_000] {
        let mut keys: Vec<String> = (0..size).map(|at| format!("key{at}")).collect();
        assert_eq!(read(body(&keys)).1, Ok(()), "{size}");
        for (first, second) in [(0, size - 1), (size / 2, size / 2 - 1), (size - 2, size - 1)] {
            let kept = std::mem::replace(&mut keys[second], "k\\u0065y0".to_owned());
            let first_kept = std::mem::replace(&mut keys[first], "key0".to_owned());
            if first != second {
                assert_eq!(refused(body(&keys)), Reject::RpcInvalid, "{size} {first} {second}");
            }
            keys[second] = kept;
            keys[first] = first_kept;
        }
    }
}

#[test]
fn m03_many_keys_do_not_cost_their_square() {
    let clock = Clock::start();
    let one: String = (0..100_000).map(|at| format!(",\"{at}\":0")).collect();
    let small = "{\"a\":0,\"b\":0,\"c\":0,\"d\":0,\"e\":0,\"f\":0,\"g\":0,\"h\":0,\"i\":0,\"j\":0,\
                 \"k\":0,\"l\":0,\"m\":0,\"n\":0,\"o\":0,\"p\":0,\"q\":0},"
        .repeat(10_000);
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","big":{{"x":0{one}}},"many":[{small}0]}}"#
    );
    let before = clock.monotonic();
    assert_eq!(read(&body).1, Ok(()));
    let spent = Duration::from_micros(clock.monotonic().micros_since(before));
    assert!(spent < Duration::from_secs(4), "took {spent:?}");
}

#[test]
fn keys_that_other_readers_take_for_known_ones_are_refused() {
    let top = |key: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","{key}":1}}"#);
    let params = |key: &str| request("tools/call", &format!(r#""name":"a","{key}":"b""#));
    let meta = |key: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{{"{key}":"b"}}}}}}"#
        )
    };
    let reference = |key: &str| {
        let reference = format!(r#""ref":{{"type":"ref/prompt","name":"p","{key}":"b"}}"#);
        request("completion/complete", &reference)
    };
    let listen = |key: &str| {
        request("subscriptions/listen", &format!(r#""notifications":{{"{key}":["b"]}}"#))
    };
    for body in [
        top("Method"),
        top("METHOD"),
        top("\\u004dethod"),
        top("param\u{17f}"),
        top("re\\u017fult"),
        top("\u{131}d"),
        top("\u{130}d"),
        top("x\\u0000"),
        top("method\\u0000"),
        params("Name"),
        params("ta\u{17f}\u{212a}Id"),
        params("TASKID"),
        params("\\u0000"),
        params("argument\u{17f}"),
        params("_Meta"),
        meta("io.modelcontextprotocol/ProtocolVersion"),
        meta("io.modelcontextprotocol/protocolVer\u{17f}ion"),
        meta("Traceparent"),
        reference("NAME"),
        reference("Uri"),
        listen("ResourceSubscriptions"),
        listen("resourceSub\u{17f}criptions"),
        listen("ta\u{17f}kIds"),
    ] {
        assert_eq!(refused(&body), Reject::RpcInvalid, "{body}");
    }
    for body in [
        top("methods"),
        top("metho"),
        top("m\u{e9}thod"),
        top("\u{212a}"),
        params("names"),
        meta("com.example/name"),
        // Arguments are the tool's own: only equal keys matter there.
        request("tools/call", r#""name":"a","arguments":{"Name":1,"name":2,"\u0000":3}"#),
    ] {
        assert_eq!(read(&body).1, Ok(()), "{body}");
    }
}

#[test]
fn m06_an_id_comes_back_byte_for_byte_or_is_refused() {
    let longest = format!("\"{}\"", "x".repeat(RPC_ID_BYTES_MAX - 2));
    for id in [
        "0",
        "-1",
        "-0",
        "9223372036854775807",
        "18446744073709551615",
        "-9223372036854775808",
        "\"\"",
        "\"a\"",
        "\"\\u0061\\n\\\"}\"",
        "\"\u{1f600}\"",
        "\"\\ud83d\\ude00\"",
        "\"1.0\"",
        &longest,
    ] {
        for body in [
            format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"ping"}}"#),
            format!(
                " {{ \"x\":{{\"id\":[7,{{}}]}}, \"jsonrpc\":\"2.0\" , \
                 \"method\":\"ping\",\"\\u0069d\" :\t{id}\r\n}} "
            ),
            format!(r#"{{"jsonrpc":"2.0","params":{{"id":5}},"id":{id} ,"method":"ping"}}"#),
        ] {
            let (call, outcome) = read(&body);
            assert_eq!(outcome, Ok(()), "{body}");
            assert_eq!(call.id_raw(body.as_bytes()), Some(id.as_bytes()), "{body}");
        }
    }
    let long = format!("\"{}\"", "x".repeat(64 * 1024));
    let above = format!("\"{}\"", "x".repeat(RPC_ID_BYTES_MAX - 1));
    for id in ["null", "1.0", "1e2", "1.5", "true", "[]", "{}", "[1]", &long, &above] {
        let body = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"ping"}}"#);
        let (call, outcome) = read(&body);
        assert_eq!(outcome, Err(Reject::RpcInvalid), "{body}");
        assert_eq!(call.id_raw(body.as_bytes()), None, "{body}");
    }
    for id in ["01", "+1", "0x1", "NaN", "1e999"] {
        let body = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"ping"}}"#);
        assert_eq!(refused(&body), Reject::RpcParse, "{body}");
    }
    // Beyond 64 bits: whether the parser takes them for floats or for faults is its choice.
    for id in ["18446744073709551616", "-9223372036854775809"] {
        let body = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"ping"}}"#);
        assert!(matches!(refused(&body), Reject::RpcParse | Reject::RpcInvalid), "{body}");
    }
}

#[test]
fn m07_a_batch_is_refused() {
    for body in ["[]", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "1", "\"x\"", "null"] {
        assert_eq!(refused(body), Reject::RpcInvalid, "{body}");
    }
}

#[test]
fn m08_only_one_json_text_in_utf_8_is_read() {
    let good = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(read(format!(" \r\n\t{good} \r\n\t")).1, Ok(()));
    let wide = |big: bool| -> Vec<u8> {
        let units = good.encode_utf16();
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    let mut bodies: Vec<Vec<u8>> = vec![wide(true), wide(false), Vec::new(), b"  ".to_vec()];
    for tail in ["x", "{}", ",", "}", "\0", "\u{a0}", "//", "\u{feff}", "1", good] {
        bodies.push(format!("{good}{tail}").into_bytes());
        bodies.push(format!("{good} {tail}").into_bytes());
    }
    bodies.push(format!("\u{feff}{good}").into_bytes());
    bodies.push([&[0xff, 0xfe], wide(false).as_slice()].concat());
    for bad in
        [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"]
    {
        let (front, back) = (&br#"{"jsonrpc":"2.0","id":1,"method":"ping","x":""#[..], &b"\"}"[..]);
        bodies.push([front, bad, back].concat());
        bodies.push([good.as_bytes(), bad].concat());
    }
    for cut in 0..good.len() {
        bodies.push(good.as_bytes()[..cut].to_vec());
    }
    for (from, to) in
        [("1", "'1'"), (":", "="), ("}", ",}"), ("{", "{,"), ("1", "1,,"), ("ping", "p\ning")]
    {
        bodies.push(good.replacen(from, to, 1).into_bytes());
    }
    for body in bodies {
        assert_eq!(refused(&body), Reject::RpcParse, "{:?}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn strings_that_are_judged_must_be_whole() {
    for name in ["\\ud800", "\\udc00", "a\\ud83dx", "\\ud83d\\u0041", "\\ude00\\ud83d"] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#
        );
        assert_eq!(refused(&body), Reject::RpcParse, "{body}");
    }
    let nul = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\u0000b"}}"#;
    assert_eq!(refused(nul), Reject::RpcParams);
    assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"ping\u0000"}"#), Reject::RpcInvalid);
}

#[test]
fn only_json_rpc_messages_are_read() {
    let cases = [
        ("{}", Reject::RpcInvalid),
        (r#"{"id":1,"method":"ping"}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":["ping"]}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"error":1}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","result":{}}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":[]}}"#, Reject::RpcParams),
        // A call that nobody waits for, and a notification that somebody does.
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}"#, Reject::RpcInvalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#, Reject::RpcInvalid),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
            Reject::RpcParams,
        ),
    ];
    for (body, reject) in cases {
        assert_eq!(refused(body), reject, "{body}");
    }
    for (method, params) in [
        ("completion/complete", r#""ref":{"type":"ref/x","name":"a"}"#),
        ("completion/complete", r#""ref":{"type":"ref/prompt","uri":"a"}"#),
        ("completion/complete", r#""ref":"ref/prompt""#),
        ("subscriptions/listen", r#""notifications":[]"#),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":"a"}"#),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":["a",1]}"#),
    ] {
        assert_eq!(refused(request(method, params)), Reject::RpcParams, "{method} {params}");
    }
    let kinds = [
        (
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            Kind::Notification,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Kind::Response),
        (r#"{"jsonrpc":"2.0","id":"a","error":{"code":1,"message":""}}"#, Kind::Response),
        (r#"{"jsonrpc":"2.0","id":1,"method":"com.example/thing"}"#, Kind::Request),
        (r#"{"jsonrpc":"2.0","method":"com.example/thing"}"#, Kind::Notification),
    ];
    for (body, kind) in kinds {
        let (call, outcome) = read(body);
        assert_eq!((outcome, call.kind()), (Ok(()), kind), "{body}");
    }
}

#[test]
fn what_is_judged_is_bounded() {
    let named = |bytes: usize| {
        let name = "n".repeat(bytes);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#)
    };
    assert_eq!(read(named(NAME_BYTES_MAX)).1, Ok(()));
    assert_eq!(refused(named(NAME_BYTES_MAX + 1)), Reject::RpcParams);
    let method =
        |bytes: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(bytes));
    assert_eq!(read(method(RPC_METHOD_BYTES_MAX)).1, Ok(()));
    assert_eq!(refused(method(RPC_METHOD_BYTES_MAX + 1)), Reject::RpcInvalid);
    let listen = |count: usize| {
        let uris = vec!["\"u\""; count].join(",");
        let listed = format!(r#""notifications":{{"resourceSubscriptions":[{uris}]}}"#);
        request("subscriptions/listen", &listed)
    };
    assert_eq!(read(listen(LISTEN_RESOURCES_MAX)).0.targets().count(), LISTEN_RESOURCES_MAX + 1);
    assert_eq!(refused(listen(LISTEN_RESOURCES_MAX + 1)), Reject::RpcParams);
}

#[test]
fn a_refused_message_leaves_only_its_id() {
    let body =
        r#"{"id":"7","jsonrpc":"2.0","method":"tools/call","params":{"name":"a","name":"b"}}"#;
    let (mut call, outcome) = read(body);
    assert_eq!(outcome, Err(Reject::RpcInvalid));
    assert_eq!(call.id_raw(body.as_bytes()), Some(&b"\"7\""[..]));
    assert_eq!((call.name(), call.method(), call.method_name()), (None, Method::Unknown, ""));
    // Two ids are none: an answer to one of them could be taken for an answer to the other.
    let twice = r#"{"id":"7","jsonrpc":"2.0","method":"ping","\u0069d":"8"}"#;
    let (repeated, outcome) = read(twice);
    assert_eq!((outcome, repeated.id_raw(twice.as_bytes())), (Err(Reject::RpcInvalid), None));
    // And nothing of it is left for the next one.
    assert_eq!(call.read(b"{", |_| None), Err(Reject::RpcParse));
    assert_eq!(call.id_raw(body.as_bytes()), None);
}
