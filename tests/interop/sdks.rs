//! The SDKs' clients, driven by a plan, see the same through the gateway.

use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::{Gateway, Setup, USER};
use crate::install::{Tools, timed, tools};
use crate::process::finish;
use crate::{
    DENIED, ends_with_a_true_record, everything, node, observed, permit_all, python, reference,
    serial, upstream_saw_no_token,
};

/// What the SDK clients do against our own server.
fn plan() -> Value {
    json!({
        "call": {"name": "test_simple_text", "arguments": {}},
        "failing": {"name": "test_error_handling", "arguments": {}},
        "unknown": {"name": "no_such_tool", "arguments": {}},
        "progress": {"name": "test_tool_with_progress", "arguments": {}},
        "elicit": {
            "legacy": "test_elicitation",
            "modern": "test_input_required_result_elicitation",
            "arguments": {"message": "Who?"},
            "content": {"username": "dana", "email": USER, "name": "Dana"},
        },
        "read": "test://static-text",
        "readUnknown": "test://nowhere",
        "prompt": {"name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}},
        "change": {"name": "test_trigger_tool_change"},
    })
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Sdk {
    Python,
    TypeScript,
}

/// Runs an SDK's client and returns what it saw.
pub(crate) fn client(
    tools: &Tools,
    sdk: Sdk,
    url: &str,
    mode: &str,
    plan: &Value,
    token: &str,
) -> Value {
    client_with(tools, sdk, url, mode, plan, ("TOKEN", token))
}

/// As `client`; what it may use is in an environment variable.
pub(crate) fn client_with(
    tools: &Tools,
    sdk: Sdk,
    url: &str,
    mode: &str,
    plan: &Value,
    access: (&str, &str),
) -> Value {
    let mut command = match sdk {
        Sdk::Python => python(tools, "py_client.py"),
        Sdk::TypeScript => node(tools, "ts_client.mjs"),
    };
    command.args([url, mode, &plan.to_string()]).env(access.0, access.1);
    let name = format!("{sdk:?} {mode}");
    let done = timed(&name, || finish(&name, CLIENT_LIMIT, &mut command));
    assert!(done.status.success(), "{name}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {}", done.stdout))
}

#[test]
fn python_client_sees_the_same_through_the_gateway() {
    clients_see_the_same(
        Sdk::Python,
        &[("auto", "modern"), ("2026-07-28", "modern"), ("legacy", "legacy")],
    );
}

#[test]
fn typescript_client_sees_the_same_through_the_gateway() {
    clients_see_the_same(Sdk::TypeScript, &[("auto", "modern"), ("legacy", "legacy")]);
}

fn clients_see_the_same(sdk: Sdk, modes: &[(&str, &str)]) {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all(&format!("{sdk:?}"), port));
    let token = gateway.token(USER);
    for (mode, era) in modes {
        let direct = client(tools, sdk, &format!("http://127.0.0.1:{port}/mcp"), mode, &plan(), "");
        let through = client(tools, sdk, &gateway.url(), mode, &plan(), &token);
        assert_eq!(in_order(direct), through, "{sdk:?} {mode}");
        assert_eq!(through["era"], *era, "{sdk:?} {mode}: {through}");
        assert_eq!(through["call"]["value"]["isError"], false, "{through}");
        assert_eq!(through["failing"]["value"]["isError"], true, "{through}");
        assert_eq!(through["steps"], json!([0, 50, 100]), "progress comes in order: {through}");
        assert_eq!(through["elicited"].as_array().map(Vec::len), Some(1), "{through}");
        assert_eq!(through["elicit"]["value"]["isError"], false, "{through}");
        assert_eq!(through["changed"]["value"], true, "announcements arrive: {through}");
        assert!(through["readUnknown"]["error"].is_object(), "{through}");
        assert_eq!(
            through["prompt"]["value"],
            json!(["Prompt with arguments: arg1='a', arg2='b'"])
        );
    }
    upstream_saw_no_token(port);
    ends_with_a_true_record(gateway, &token);
}

/// What a client sees of lists that come in the order of their names, as the gateway sends them.
pub(crate) fn in_order(mut seen: Value) -> Value {
    for list in ["tools", "prompts", "resources", "templates"] {
        if let Some(Value::Array(names)) = seen[list].get_mut("value") {
            names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    seen
}

/// A published server that speaks the legacy era only: clients of both kinds come to an
/// understanding.
#[test]
fn reference_server_is_reached_by_every_client() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_server, port) = reference(tools);
    let plan = json!({
        "call": {"name": "echo", "arguments": {"message": "portcullis"}},
        "unknown": {"name": "no_such_tool", "arguments": {}},
        "progress": {
            "name": "trigger-long-running-operation",
            "arguments": {"duration": 1, "steps": 2},
        },
        "read": "demo://resource/static/document/features.md",
        "prompt": {"name": "simple-prompt"},
    });
    let gateway = Gateway::start(tools, &permit_all("reference", port));
    let token = gateway.token(USER);
    for (sdk, mode) in
        [(Sdk::Python, "auto"), (Sdk::TypeScript, "legacy"), (Sdk::TypeScript, "auto")]
    {
        let direct = client(tools, sdk, &format!("http://127.0.0.1:{port}/mcp"), mode, &plan, "");
        let through = client(tools, sdk, &gateway.url(), mode, &plan, &token);
        assert_eq!(in_order(direct), through, "{sdk:?} {mode}");
        assert_eq!(through["era"], "legacy", "{through}");
        assert_eq!(through["call"]["value"]["content"], json!(["Echo: portcullis"]), "{through}");
    }
    ends_with_a_true_record(gateway, &token);
}

pub(crate) const SOME: &str = r#"
@id("dana") permit (principal == User::"dana@example.com", action, resource);
@id("no-images")
forbid (principal, action == Action::"tools/call",
        resource == Tool::"everything/test_image_content");
"#;

/// A refusal reaches the SDKs as what it is: one tool as an error of that call, a stranger at the
/// door.
#[test]
fn refusals_are_understood_by_the_sdks() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let setup = Setup { policies: SOME, ..permit_all("refusals", port) };
    let gateway = Gateway::start(tools, &setup);
    let plan =
        json!({"call": {"name": "test_simple_text"}, "failing": {"name": "test_image_content"}});
    let (dana, stranger) = (gateway.token(USER), gateway.token("mallory@example.com"));
    for (sdk, mode) in [
        (Sdk::Python, "auto"),
        (Sdk::Python, "legacy"),
        (Sdk::TypeScript, "auto"),
        (Sdk::TypeScript, "legacy"),
    ] {
        let seen = client(tools, sdk, &gateway.url(), mode, &plan, &dana);
        assert_eq!(seen["call"]["value"]["isError"], false, "{sdk:?} {mode}: {seen}");
        assert_eq!(seen["failing"]["error"]["code"], DENIED, "{sdk:?} {mode}: {seen}");
        for token in [stranger.as_str(), ""] {
            let seen = client(tools, sdk, &gateway.url(), mode, &plan, token);
            assert!(seen["connect"]["error"].is_object(), "{sdk:?} {mode}: {seen}");
        }
    }
    let observed = observed(port);
    assert_eq!(observed["authorization"], json!([]), "{observed}");
}

const CLIENT_LIMIT: Duration = Duration::from_secs(120);
