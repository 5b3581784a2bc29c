//! Policies on the arguments of tools: what is permitted goes upstream as it came, what policies
//! cannot hold is denied where they ask for it, and nothing of it is ever recorded.

use std::fs;

use super::client::{Way, text};
use super::gateway::{DRIVERS, Gateway, until};
use super::table::{Post, tool_call};

const POLICIES: &str = r#"
@id("paths") forbid (principal, action == Action::"tools/call", resource == Tool::"tools/file")
unless {
  context.arguments has "tools/file" && context.arguments["tools/file"] has path &&
  context.arguments["tools/file"].path like "docs/*"
};
@id("sizes") forbid (principal, action == Action::"tools/call", resource == Tool::"tools/file")
when {
  context.arguments has "tools/file" && context.arguments["tools/file"] has options.size &&
  context.arguments["tools/file"].options.size > 10
};
"#;
const TYPES: &str = r#"
@tool("tools/file") type File = {
  path: String, options: { size: Long, tags: Set<String> }, unasked: String,
};
"#;
/// What is in every argument of the test, and must be nowhere else.
const CANARY: &str = "CANARY-argument";

fn start(driver: super::gateway::Driver) -> Gateway {
    let gateway = Gateway::start_with(driver, "", |directory| {
        fs::write(directory.join("policies/arguments.cedar"), POLICIES).unwrap();
        fs::create_dir(directory.join("policies/schema.d")).unwrap();
        fs::write(directory.join("policies/schema.d/tools.cedarschema"), TYPES).unwrap();
    });
    let good = Post::new(&gateway).bytes();
    until("the first answer", || gateway.ask(&good).status == 200);
    gateway
}

fn call(tool: &str, arguments: &str) -> String {
    tool_call(tool).replace(r#""arguments":{}"#, arguments)
}

/// Arguments, and the reason of the denial; none: it is permitted.
const CASES: &[(&str, &str)] = &[
    (r#""arguments":{"path":"docs/CANARY-argument"}"#, ""),
    (r#""arguments":{"p\u0061th":"d\u006fcs/CANARY-argument"}"#, ""),
    (r#""arguments":{"path":"docs/","options":{"size":10,"tags":7},"unasked":null}"#, ""),
    (r#""arguments":{"path":"docs/","options":{"size":-0}}"#, ""),
    (r#""arguments":{"path":"etc/CANARY-argument"}"#, "forbidden"),
    (r#""arguments":{"path":"docs/","options":{"size":11}}"#, "forbidden"),
    (r#""arguments":{}"#, "forbidden"),
    (r#""_meta":{}"#, "forbidden"),
    (r#""arguments":{"paths":"docs/CANARY-argument"}"#, "forbidden"),
    (r#""arguments":null"#, "argument_unrepresentable"),
    (r#""arguments":["docs/CANARY-argument"]"#, "argument_unrepresentable"),
    (r#""arguments":"docs/CANARY-argument""#, "argument_unrepresentable"),
    (r#""arguments":{"path":null}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":7}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":["docs/CANARY-argument"]}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/\u0000CANARY-argument"}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/","PATH":"CANARY-argument"}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/","path\u0000":"CANARY-argument"}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/","options":[]}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/","options":{"size":"9"}}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/","options":{"size":1e0}}"#, "argument_unrepresentable"),
    (r#""arguments":{"path":"docs/","options":{"size":1.0}}"#, "argument_unrepresentable"),
    (
        r#""arguments":{"path":"docs/","options":{"size":9223372036854775808}}"#,
        "argument_unrepresentable",
    ),
    (r#""arguments":{"path":"docs/","options":{"size":1,"Size":11}}"#, "argument_unrepresentable"),
];

#[test]
fn arguments_decide_and_are_not_recorded() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let mut expected = Vec::new();
        for (at, (arguments, reason)) in CASES.iter().enumerate() {
            let body = call("file", arguments);
            let way = if at % 2 == 0 { Way::Whole } else { Way::Dripped };
            let post = Post::new(&gateway).body(body.clone()).bytes();
            let before = gateway.upstream.heard();
            let mut client = super::client::Client::connect(gateway.address);
            client.send(&post, way);
            let answer = client.answer().unwrap();
            assert_eq!(answer.status, 200, "{arguments}");
            if reason.is_empty() {
                assert_eq!(answer.code(), None, "{arguments}");
                assert_eq!(text(&gateway.upstream.last().body), body, "as it came: {arguments}");
            } else {
                assert_eq!(answer.code(), Some(1403), "{arguments}");
                assert_eq!(gateway.upstream.heard().1, before.1, "not a word of it: {arguments}");
            }
            expected.push(if reason.is_empty() { "ok" } else { reason }.to_owned());
        }
        // A tool that no policy asks about takes what it likes.
        let other = call("other", r#""arguments":[null]"#);
        let answer = gateway.ask(&Post::new(&gateway).body(other).bytes());
        assert_eq!((answer.status, answer.code()), (200, None));
        let records = turn.records(&gateway, CASES.len() + 1);
        let word = |record: &serde_json::Value| record["reason"].as_str().unwrap().to_owned();
        expected.push("ok".to_owned());
        let found: Vec<String> = records.iter().map(word).collect();
        assert_eq!(found, expected);
        assert!(found.iter().any(|word| word == "argument_unrepresentable"));
        let told = records.iter().find(|record| record["reason"] == "argument_unrepresentable");
        assert_eq!(told.unwrap()["policy"], serde_json::json!(["paths", "sizes"]));
        assert!(!gateway.everything_written().contains(CANARY));
    }
}
