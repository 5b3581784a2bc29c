//! What official clients make of policies: lists with only what they may use, and a step-up that
//! they take on their own.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::{BINARY, Gateway, Setup, USER};
use crate::install::tools;
use crate::pdp::Point;
use crate::process::{Running, eventually, finish};
use crate::{
    DENIED, Sdk, client, client_with, ends_with_a_true_record, everything, node, observed,
    oidc_token, permit_all, reference, serial, status, upstream_saw_no_token,
};

const FILTERED: &str = r#"
@id("door") permit (principal, action == Action::"connect", resource);
@id("session") permit (principal, action in [Action::"session", Action::"list"], resource);
@id("text") permit (principal, action == Action::"tools/call",
  resource == Tool::"everything/test_simple_text");
@id("error") permit (principal, action == Action::"tools/call",
  resource == Tool::"everything/test_error_handling");
@id("prompt") permit (principal, action == Action::"prompts/get",
  resource == Prompt::"everything/test_simple_prompt");
@id("static") permit (principal, action == Action::"resources/read",
  resource == Resource::"everything/test://static-text");
@id("listen") permit (principal, action == Action::"subscriptions/listen",
  resource == Server::"everything");
"#;

#[test]
fn the_sdks_see_and_call_only_what_policies_permit() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let setup = Setup { policies: FILTERED, ..permit_all("filtered", port) };
    let gateway = Gateway::start(tools, &setup);
    let token = gateway.token(USER);
    let plan = json!({
        "call": {"name": "test_simple_text"},
        "failing": {"name": "test_image_content"},
        "read": "test://static-text",
        "readUnknown": "test://static-binary",
        "prompt": {"name": "test_simple_prompt"},
    });
    for (sdk, mode, era) in [
        (Sdk::Python, "auto", "modern"),
        (Sdk::Python, "legacy", "legacy"),
        (Sdk::TypeScript, "auto", "modern"),
        (Sdk::TypeScript, "legacy", "legacy"),
    ] {
        let direct = format!("http://127.0.0.1:{port}/mcp");
        let direct = client(tools, sdk, &direct, mode, &json!({}), "");
        let seen = client(tools, sdk, &gateway.url(), mode, &plan, &token);
        let shown = format!("{sdk:?} {mode}: {seen}");
        assert_eq!(seen["era"], era, "{shown}");
        assert_eq!(
            seen["tools"]["value"],
            json!(["test_error_handling", "test_simple_text"]),
            "{shown}"
        );
        assert_eq!(seen["prompts"]["value"], json!(["test_simple_prompt"]), "{shown}");
        assert_eq!(seen["resources"]["value"], json!(["test://static-text"]), "{shown}");
        // A template may stand for the one resource that is permitted.
        assert_eq!(seen["templates"], direct["templates"], "{shown}");
        for list in ["tools", "prompts", "resources"] {
            let all = |seen: &Value| seen[list]["value"].as_array().unwrap().len();
            assert!(all(&direct) > all(&seen), "{list}: something is hidden: {direct}");
        }
        assert_eq!(seen["call"]["value"]["isError"], false, "{shown}");
        assert_eq!(seen["failing"]["error"]["code"], DENIED, "{shown}");
        assert!(seen["read"]["value"].is_array(), "{shown}");
        assert_eq!(seen["readUnknown"]["error"]["code"], DENIED, "{shown}");
        assert!(seen["prompt"]["value"].is_array(), "{shown}");
    }
    upstream_saw_no_token(port);
    let records = ends_with_a_true_record(gateway, &token);
    let lists: Vec<_> = records.iter().filter(|record| record["list"].is_object()).collect();
    assert_eq!(lists.len(), 16, "four lists of four clients");
    for record in lists {
        let list = &record["list"];
        assert!(list["shown"].as_u64() > Some(0), "{record}");
        assert!(list["shown"].as_u64() <= list["upstream"].as_u64(), "{record}");
    }
}

/// A change of policies is heard on the stream that each SDK holds open; the next list shows it.
#[test]
fn the_sdks_hear_of_a_change_of_policies() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let plan = json!({"change": {"name": "test_simple_text"}, "again": true});
    for (sdk, mode) in [
        (Sdk::Python, "auto"),
        (Sdk::Python, "legacy"),
        (Sdk::TypeScript, "auto"),
        (Sdk::TypeScript, "legacy"),
    ] {
        let shown = format!("{sdk:?} {mode}");
        let name = format!("changed-{sdk:?}-{mode}");
        let setup = Setup { policies: FILTERED, ..permit_all(&name, port) };
        let gateway = Gateway::start(tools, &setup);
        let (token, url) = (gateway.token(USER), gateway.url());
        let heard = || observed(port)["requests"].as_u64().unwrap();
        let seen = thread::scope(|scope| {
            let run = scope.spawn(|| client(tools, sdk, &url, mode, &plan, &token));
            // Its stream may not be open at the first of them.
            for round in 0.. {
                let before = heard();
                gateway.change(&format!(
                    "{FILTERED}@id(\"no-{round}\") forbid (principal, action, \
                     resource == Tool::\"everything/test_error_handling\");"
                ));
                eventually("the client asks again or ends", || {
                    (run.is_finished() || heard() > before).then_some(())
                });
                if run.is_finished() {
                    break;
                }
            }
            run.join().unwrap()
        });
        assert_eq!(seen["changed"]["value"], true, "{shown}: {seen}");
        assert_eq!(seen["again"]["value"], json!(["test_simple_text"]), "{shown}: {seen}");
        ends_with_a_true_record(gateway, &token);
    }
}

/// A tool of the reference server and its argument, by name.
fn about_echo(argument: &str) -> String {
    let asked = r#"context.arguments["everything/echo"]"#;
    format!(
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"quiet\") forbid (principal, action == Action::\"tools/call\",\n\
         resource == Tool::\"everything/echo\")\n\
         when {{ context has arguments && context.arguments has \"everything/echo\" &&\n\
         {asked} has {argument} && {asked}.{argument} like \"*loud*\" }};\n"
    )
}

/// The published reference server (older revisions) and the Python SDK's (2026-07-28) are asked for
/// their tools; with what is printed in `schema.d` a misspelt argument is a fault with its place.
#[test]
fn policy_schema_of_real_servers_makes_a_misspelt_argument_a_fault() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_modern, modern) = everything(tools);
    let (_legacy, legacy) = reference(tools);
    let setup = Setup { policies: &about_echo("message"), ..permit_all("schema", legacy) };
    let folder = setup.prepare(tools).folder;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(&folder);
        finish("portcullis", RUN_LIMIT, &mut command)
    };
    let schema = ["policy", "schema", "--config", "gateway.toml", "--server", "everything"];
    let check = ["check", "--config", "gateway.toml"];
    assert!(!run(&check).status.success(), "there is no such type yet");
    let made = run(&schema);
    assert!(made.status.success(), "{}", made.stderr);
    assert!(made.stderr.contains("by MCP 2025-11-25"), "{}", made.stderr);
    assert!(made.stdout.contains("@tool(\"everything/echo\")"), "{}", made.stdout);
    fs::create_dir(folder.join("policies/schema.d")).unwrap();
    fs::write(folder.join("policies/schema.d/everything.cedarschema"), &made.stdout).unwrap();
    let sound = run(&check);
    assert!(sound.status.success(), "{}", sound.stderr);
    fs::write(folder.join("policies/interop.cedar"), about_echo("mesage")).unwrap();
    let faulty = run(&check);
    assert_eq!(faulty.status.code(), Some(1), "{}", faulty.stderr);
    let at = |line: &str| line.contains("policies/interop.cedar:5:") && line.contains("mesage");
    assert!(faulty.stderr.lines().any(at), "{}", faulty.stderr);

    let setup = permit_all("schema-modern", modern);
    let folder = setup.prepare(tools).folder;
    let made =
        finish("portcullis", RUN_LIMIT, Command::new(BINARY).args(schema).current_dir(&folder));
    assert!(made.status.success(), "{}", made.stderr);
    assert!(made.stderr.contains("by MCP 2026-07-28"), "{}", made.stderr);
    assert!(made.stdout.contains("@tool(\"everything/test_simple_text\")"), "{}", made.stdout);
}

const RUN_LIMIT: Duration = Duration::from_secs(60);

const STEP_UP: &str = r#"
@id("dana") permit (principal == User::"dana@example.com", action, resource);
@id("delete") @require_scope("mcp:delete")
forbid (principal, action == Action::"tools/call",
  resource == Tool::"everything/test_image_content")
unless { context.scopes.contains("mcp:delete") };
"#;

/// A client that holds a token of too little scope is told which is missing, gets it from the
/// provider by itself, and the call succeeds; it is told once.
#[test]
fn the_sdks_take_a_step_up_from_a_real_provider() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let mut provider = Running::start("oidc", &tools.runs, node(tools, "oidc.mjs").arg("0"));
    let oidc = provider.port();
    let issuer = format!("http://127.0.0.1:{oidc}");
    let plan = json!({
        "call": {"name": "test_simple_text"}, "failing": {"name": "test_image_content"},
    });
    for (sdk, mode) in [
        (Sdk::Python, "auto"),
        (Sdk::Python, "legacy"),
        (Sdk::TypeScript, "auto"),
        (Sdk::TypeScript, "legacy"),
    ] {
        let shown = format!("{sdk:?} {mode}");
        let name = format!("step-up-{sdk:?}-{mode}");
        let setup = Setup { issuer: Some(&issuer), policies: STEP_UP, ..permit_all(&name, port) };
        let gateway = Gateway::start(tools, &setup);
        let first = oidc_token(oidc, "delegate", &gateway.url());
        eventually("the keys are discovered", || (status(&gateway, &first) != 503).then_some(()));
        let seen = client_with(tools, sdk, &gateway.url(), mode, &plan, ("ISSUER", &issuer));
        assert_eq!(seen["call"]["value"]["isError"], false, "{shown}: {seen}");
        assert_eq!(seen["failing"]["value"]["isError"], false, "{shown}: {seen}");
        let records = ends_with_a_true_record(gateway, &first);
        let mut calls: Vec<_> =
            records.iter().filter(|record| record["method"] == "tools/call").collect();
        // Two cores write when they come to it.
        calls.sort_by_key(|record| record["time"].as_str());
        let told: Vec<_> = calls.iter().map(|record| record["reason"].as_str().unwrap()).collect();
        assert_eq!(told, ["ok", "insufficient_scope", "ok"], "{shown}: {calls:#?}");
        assert_eq!(calls[1]["status"], 403, "{shown}");
        assert_eq!(calls[1]["policy"], json!(["delete"]), "{shown}");
        assert_eq!(calls[0]["token"], calls[1]["token"], "{shown}: the token it held");
        assert_ne!(calls[1]["token"], calls[2]["token"], "{shown}: the token it then got");
    }
    upstream_saw_no_token(port);
}

/// The same with a decision point on an independent engine behind the standard's API, which knows
/// the gateway by its certificate and its token: what the clients see and may call is what it
/// decides, and nothing once it is gone.
#[test]
fn the_sdks_get_what_an_independent_decision_point_permits() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let mut point = Point::start(tools, "pdp");
    let setup = Setup { decides: Some(&point), ..permit_all("remote", port) };
    let gateway = Gateway::start(tools, &setup);
    let token = gateway.token(USER);
    eventually("it is found", || (status(&gateway, &token) == 200).then_some(()));
    let plan = json!({
        "call": {"name": "test_simple_text"},
        "failing": {"name": "test_image_content"},
        "read": "test://static-text",
        "readUnknown": "test://static-binary",
        "prompt": {"name": "test_simple_prompt"},
    });
    for (sdk, mode) in [
        (Sdk::Python, "auto"),
        (Sdk::Python, "legacy"),
        (Sdk::TypeScript, "auto"),
        (Sdk::TypeScript, "legacy"),
    ] {
        let seen = client(tools, sdk, &gateway.url(), mode, &plan, &token);
        let shown = format!("{sdk:?} {mode}: {seen}");
        let both = json!(["test_error_handling", "test_simple_text"]);
        assert_eq!(seen["tools"]["value"], both, "{shown}");
        assert_eq!(seen["prompts"]["value"], json!(["test_simple_prompt"]), "{shown}");
        assert_eq!(seen["resources"]["value"], json!(["test://static-text"]), "{shown}");
        assert_eq!(seen["call"]["value"]["isError"], false, "{shown}");
        assert_eq!(seen["failing"]["error"]["code"], DENIED, "{shown}");
        assert!(seen["read"]["value"].is_array(), "{shown}");
        assert_eq!(seen["readUnknown"]["error"]["code"], DENIED, "{shown}");
        assert!(seen["prompt"]["value"].is_array(), "{shown}");
    }
    assert_eq!(status(&gateway, &gateway.token("eve@example.com")), 403, "it permits one user");
    let seen = || crate::observed(port)["requests"].as_u64().unwrap();
    let before = seen();
    point.running.terminate();
    assert_eq!(status(&gateway, &token), 503, "nobody decides any more");
    assert_eq!(seen(), before, "nothing was forwarded");
    upstream_saw_no_token(port);
    let records = ends_with_a_true_record(gateway, &token);
    let gone: Vec<_> =
        records.iter().filter(|record| record["reason"] == "policy_unavailable").collect();
    assert!(!gone.is_empty() && gone.iter().all(|record| record["decision"] == "error"));
}
