//! Real foreign parts around the real gateway: the official conformance suite, the Python and
//! TypeScript SDKs as clients and servers, the published reference server, and a real OAuth
//! provider.
//!
//! Everything is pinned in `tests/interop/` and installed once under `target/interop/`. The areas
//! run one at a time. They assert what happened and in which order, with generous limits, never how
//! fast.
#![allow(
    clippy::disallowed_methods,
    reason = "tests watch the gateway from outside, with real time and sockets"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

#[path = "interop/gateway.rs"]
mod gateway;
#[path = "interop/http.rs"]
mod http;
#[path = "interop/install.rs"]
mod install;
#[path = "interop/pdp.rs"]
mod pdp;
#[path = "interop/policy.rs"]
mod policy;
#[path = "interop/process.rs"]
mod process;
#[path = "interop/suite.rs"]
mod suite;
#[path = "interop/wire.rs"]
mod wire;

use gateway::{Gateway, PERMIT_ALL, Setup, USER};
use install::{Tools, data_folder, timed, tools};
use process::{Running, eventually, finish};
use wire::{JSON_HEADERS, LEGACY, MODERN, Wire, modern_meta};

/// One area at a time: two cores, and the suite starts many clients at once.
fn serial() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

// Foreign parts.

fn python(tools: &Tools, script: &str) -> Command {
    let mut command = Command::new(&tools.python);
    // No __pycache__ beside the sources.
    command.arg(data_folder().join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(tools: &Tools, script: &str) -> Command {
    let mut command = Command::new(&tools.node);
    command.arg(tools.scripts.join(script));
    command
}

fn everything(tools: &Tools) -> (Running, u16) {
    let mut running =
        Running::start("everything", &tools.runs, python(tools, "everything.py").arg("0"));
    let port = running.port();
    (running, port)
}

/// The published server, which speaks the legacy era only.
fn reference(tools: &Tools) -> (Running, u16) {
    let mut command = Command::new(&tools.node);
    command.arg("--import").arg(tools.scripts.join("loopback.mjs")).arg(tools.reference_server());
    command.arg("streamableHttp").env("PORT", "0");
    let mut running = Running::start("reference", &tools.runs, &mut command);
    let port = running.port();
    (running, port)
}

/// The shim in front of `port`; without a token it adds nothing.
fn shim(tools: &Tools, port: u16, token: Option<&str>) -> (Running, u16) {
    let mut command = node(tools, "shim.mjs");
    command.args(["0", &format!("http://127.0.0.1:{port}")]);
    if let Some(token) = token {
        command.env("SHIM_TOKEN", token);
    }
    let mut running = Running::start("shim", &tools.runs, &mut command);
    let port = running.port();
    (running, port)
}

fn permit_all<'a>(name: &'a str, port: u16) -> Setup<'a> {
    let upstream = format!("http://127.0.0.1:{port}/mcp");
    Setup { name, upstream, issuer: None, policies: PERMIT_ALL, decides: None }
}

// The conformance suite.

#[test]
fn conformance_2025_11_25_is_the_same_through_the_gateway() {
    conformance_is_the_same("2025-11-25", 30, &[]);
}

#[test]
fn conformance_2026_07_28_is_the_same_through_the_gateway() {
    // The tasks extension is not required, and no current SDK server offers it.
    conformance_is_the_same("2026-07-28", 37, &["tasks-"]);
}

fn conformance_is_the_same(revision: &str, required: usize, not_offered: &[&str]) {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let url = format!("http://localhost:{port}/mcp");
    let direct = suite::required(tools, &format!("direct-{revision}"), &url, revision);
    assert!(direct.passed, "the upstream itself fails:{}", direct.summary);
    assert!(direct.checks.len() >= required, "{} scenarios", direct.checks.len());
    for (scenario, checks) in &direct.checks {
        let offered = !not_offered.iter().any(|prefix| scenario.starts_with(prefix));
        let failed = checks.keys().any(|(_, status)| status == "FAILURE");
        assert!(!(offered && failed), "{scenario} fails without a gateway: {checks:?}");
    }

    let gateway = Gateway::start(tools, &permit_all(revision, port));
    let token = gateway.token(USER);
    let (_shim, shim) = shim(tools, gateway.port, Some(&token));
    let url = format!("http://localhost:{shim}/mcp/everything");
    let through = suite::required(tools, &format!("through-{revision}"), &url, revision);
    let differences = suite::differences(&direct.checks, &through.checks);
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    assert!(through.passed, "{}", through.summary);
    upstream_saw_no_token(port);
    ends_with_a_true_record(gateway, &token);
}

/// The control of the two above: what differs there, the gateway did and not the shim.
#[test]
fn conformance_is_the_same_through_the_shim_alone() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let (_shim, shim) = shim(tools, port, None);
    let at = |port: u16| format!("http://localhost:{port}/mcp");
    let direct = suite::required(tools, "control-direct", &at(port), "2025-11-25");
    let through = suite::required(tools, "control-shim", &at(shim), "2025-11-25");
    let differences = suite::differences(&direct.checks, &through.checks);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// mcp M1-M3, H2: in front of an upstream that looks at no header, every refusal is the gateway's
/// own.
#[test]
fn lax_upstream_is_guarded_by_the_gateway() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let mut lax = Running::start("lax", &tools.runs, node(tools, "lax.mjs").arg("0"));
    let port = lax.port();
    let gateway = Gateway::start(tools, &permit_all("lax", port));
    let (_shim, shim) = shim(tools, gateway.port, Some(&gateway.token(USER)));
    let direct = format!("http://localhost:{port}/mcp");
    let through = format!("http://localhost:{shim}/mcp/everything");
    for scenario in ["http-header-validation", "dns-rebinding-protection"] {
        let name = format!("lax-direct-{scenario}");
        let run = suite::scenario(tools, &name, &direct, scenario, "2026-07-28");
        let refused = suite::with_status(&run.checks, "FAILURE");
        assert!(!refused.is_empty(), "{scenario}: the upstream is not lax, so this proves nothing");
        let name = format!("lax-through-{scenario}");
        let run = suite::scenario(tools, &name, &through, scenario, "2026-07-28");
        for status in ["FAILURE", "WARNING", "SKIPPED"] {
            let bad = suite::with_status(&run.checks, status);
            assert!(bad.is_empty(), "{scenario}: {status}: {bad:?}");
        }
        assert!(
            !suite::with_status(&run.checks, "SUCCESS").is_empty(),
            "{scenario}: nothing was checked"
        );
    }
    custom_headers_are_not_worse(tools, &direct, &through);
}

/// mcp M3, M4: without the tool's schema the gateway cannot know which parameters are mirrored, so
/// a header that is missing stays the upstream's to refuse; whatever is accepted directly must be
/// accepted through it.
fn custom_headers_are_not_worse(tools: &Tools, direct: &str, through: &str) {
    let scenario = "http-custom-header-server-validation";
    let before = suite::scenario(tools, "lax-direct-custom", direct, scenario, "2026-07-28");
    let after = suite::scenario(tools, "lax-through-custom", through, scenario, "2026-07-28");
    let count = |run: &suite::Run, status| {
        let all = run.checks.values().flatten();
        all.filter(|((_, found), _)| found == status).map(|(_, n)| n).sum::<u32>()
    };
    assert!(count(&before, "SUCCESS") > 0, "{:?}", before.checks);
    assert!(count(&after, "SUCCESS") >= count(&before, "SUCCESS"), "{:?}", after.checks);
    assert!(count(&after, "FAILURE") <= count(&before, "FAILURE"), "{:?}", after.checks);
}

// Clients.

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
enum Sdk {
    Python,
    TypeScript,
}

/// Runs an SDK's client and returns what it saw.
fn client(tools: &Tools, sdk: Sdk, url: &str, mode: &str, plan: &Value, token: &str) -> Value {
    client_with(tools, sdk, url, mode, plan, ("TOKEN", token))
}

/// As `client`; what it may use is in an environment variable.
fn client_with(
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
fn in_order(mut seen: Value) -> Value {
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

const SOME: &str = r#"
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

/// mcp M12: a modern client that goes away cancels its call.
#[test]
fn going_away_cancels_in_the_modern_era() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all("gone-modern", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let headers = [MODERN, "Mcp-Method: tools/call", "Mcp-Name: test_hold"];
    let (held, _) = wire.hold(&headers, modern_meta());
    assert_eq!((&observed(port)["held"], &observed(port)["cancelled"]), (&json!(1), &json!(0)));
    drop(held);
    eventually("the call is cancelled", || (observed(port)["cancelled"] == 1).then_some(()));
}

/// mcp L7, M12, in front of a server that sends its head only with the finished answer.
#[test]
fn going_away_before_the_head_cancels_in_the_modern_era_only() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let mut lax = Running::start("lax", &tools.runs, node(tools, "lax.mjs").arg("0"));
    let port = lax.port();
    let gateway = Gateway::start(tools, &permit_all("gone-early", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let call = |name: &str, meta: Value| {
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": name, "arguments": {}, "_meta": meta}})
    };
    let held = |n: u64| {
        eventually("the call is held", || (observed(port)["held"] == n).then_some(()));
    };
    let legacy = wire.post(&[LEGACY], &call("test_hold", json!({})));
    held(1);
    let headers = [MODERN, "Mcp-Method: tools/call", "Mcp-Name: test_hold"];
    let modern = wire.post(&headers, &call("test_hold", modern_meta()));
    held(2);
    // The legacy client first: once the other one's leaving has come through, so would its own.
    drop(legacy);
    drop(modern);
    eventually("a call is cancelled", || (observed(port)["cancelled"] != 0).then_some(()));
    let mut released = wire.post(&[LEGACY], &call("test_release", json!({})));
    http::read_until(&mut released, "called test_release");
    assert_eq!(observed(port)["cancelled"], 1, "a legacy disconnect is no cancel");

    let (_, records) = gateway.stop();
    let mut ended: Vec<_> = records
        .iter()
        .filter(|record| record["name"] == "test_hold")
        .map(|record| (record["revision"].as_str().unwrap(), record["reason"].as_str().unwrap()))
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [("2025-11-25", "ok"), ("2026-07-28", "request_aborted")]);
}

/// mcp L6, L7: a legacy client that goes away does not cancel; it comes back with the id of the
/// last event it read and gets the answer, once.
#[test]
fn going_away_is_resumed_in_the_legacy_era() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all("gone-legacy", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let session = wire.legacy_session();
    let (held, seen) = wire.hold(&[&session, LEGACY], json!({}));
    let id = session.split_once(": ").unwrap().1;
    assert!(seen.contains(id), "a session keeps its id, which bears its age: {seen}");
    let last = seen.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
    let last = format!("Last-Event-ID: {}", last.unwrap_or_else(|| panic!("no event id: {seen}")));
    drop(held);

    // It comes back while the call still lasts. The upstream resumes the stream, which it shows by
    // another event id, only once it has noticed that the client left; before, it answers with
    // nothing, and the client tries again.
    let resume = [&*session, LEGACY, &last, "Accept: text/event-stream", "Connection: close"];
    let (mut resumed, mut rest) = eventually("the stream is resumed", || {
        let mut stream = wire.send("GET", &resume, "");
        let seen = http::read_on(&mut stream, "\nid: ").ok()?;
        Some((stream, seen))
    });
    let release = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "test_release"}});
    let mut released = wire.post(&[&session, LEGACY], &release);
    http::read_until(&mut released, "Let go");
    rest.push_str(&http::read_until(&mut resumed, "Released"));
    assert_eq!(rest.matches("notifications/progress").count(), 0, "nothing comes twice: {rest}");
    assert_eq!(observed(port)["cancelled"], 0, "a disconnect is no cancel");
}

/// mcp M16: a gateway that leaves ends its listen streams in words, so that the client knows that
/// it has missed nothing.
#[test]
fn a_drain_ends_listen_streams_in_an_orderly_way() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let gateway = Gateway::start(tools, &permit_all("drain", port));
    let wire = Wire { port: gateway.port, token: gateway.token(USER) };
    let body = json!({"jsonrpc": "2.0", "id": "l\"1", "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": true}, "_meta": modern_meta()}});
    let mut stream = wire.post(&[MODERN, "Mcp-Method: subscriptions/listen"], &body);
    http::read_until(&mut stream, "notifications/subscriptions/acknowledged");
    let (status, _) = gateway.stop();
    assert!(status.success(), "{status}");
    let rest = http::read_until(&mut stream, "\r\n0\r\n\r\n");
    let result = rest.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
    let result: Value = serde_json::from_str(result).unwrap_or_else(|e| panic!("{e}: {rest}"));
    let tagged = json!({"io.modelcontextprotocol/subscriptionId": "l\"1"});
    assert_eq!(
        result,
        json!({"jsonrpc": "2.0", "id": "l\"1",
            "result": {"resultType": "complete", "_meta": tagged}})
    );
}

// A real OAuth provider.

/// Discovery, key rotation, audience: tokens of npm oidc-provider instead of minted ones.
#[test]
fn tokens_of_a_real_provider_are_judged() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let mut provider = Running::start("oidc", &tools.runs, node(tools, "oidc.mjs").arg("0"));
    let oidc = provider.port();
    let issuer = format!("http://127.0.0.1:{oidc}");
    let setup = Setup { issuer: Some(&issuer), policies: SOME, ..permit_all("oidc", port) };
    let gateway = Gateway::start(tools, &setup);
    let plan = json!({"call": {"name": "test_simple_text"}});
    let works = |token: &str| {
        for (sdk, mode) in [(Sdk::Python, "auto"), (Sdk::TypeScript, "legacy")] {
            let seen = client(tools, sdk, &gateway.url(), mode, &plan, token);
            assert_eq!(seen["call"]["value"]["isError"], false, "{sdk:?}: {seen}");
        }
    };
    let first = oidc_token(oidc, "delegate", &gateway.url());
    eventually("the keys are discovered", || (status(&gateway, &first) != 503).then_some(()));
    works(&first);
    // RFC 9728: all that the SDKs know is the URL, and whose credentials they hold.
    for (sdk, mode) in [
        (Sdk::Python, "auto"),
        (Sdk::Python, "legacy"),
        (Sdk::TypeScript, "auto"),
        (Sdk::TypeScript, "legacy"),
    ] {
        let seen = client_with(tools, sdk, &gateway.url(), mode, &plan, ("ISSUER", &issuer));
        assert_eq!(seen["call"]["value"]["isError"], false, "{sdk:?} {mode}: {seen}");
    }

    provider.tell("rotate");
    assert_eq!(provider.wait_for("rotated ").split(' ').count(), 2);
    let second = oidc_token(oidc, "delegate", &gateway.url());
    assert_ne!(key_id(&first), key_id(&second), "the provider signs with its new key");
    works(&second);
    works(&first);
    let jwks = http::send(oidc, "GET /observed", &[], "").json();
    assert!(
        jwks["jwksServed"].as_u64().unwrap() >= 2,
        "an unknown key id makes the gateway look again: {jwks}"
    );

    let elsewhere = oidc_token(oidc, "delegate", "http://127.0.0.1:9/mcp/everything");
    assert_eq!(status(&gateway, &elsewhere), 401, "another audience (RFC 9068 section 4)");
    let nobody = oidc_token(oidc, "workload", &gateway.url());
    assert_eq!(status(&gateway, &nobody), 401, "no user, and no rule for workloads");
    assert_eq!(observed(port)["authorization"], json!([]));
    let records = ends_with_a_true_record(gateway, &first);
    let read = records.iter().filter(|record| record["event"] == "metadata").count();
    assert!(read >= 4, "each of the SDKs that held no token read the metadata: {read}");
}

/// An access token by client_credentials (RFC 6749 section 4.4) for `resource` (RFC 8707).
fn oidc_token(port: u16, client: &str, resource: &str) -> String {
    let body = format!(
        "grant_type=client_credentials&scope=mcp%3Atools&client_id={client}\
         &client_secret=interop&resource={}",
        resource.replace(':', "%3A").replace('/', "%2F")
    );
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let answer = http::send(port, "POST /token", &form, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// The first part of a JWT, which holds the key id.
fn key_id(token: &str) -> &str {
    token.split('.').next().unwrap()
}

/// What the gateway answers to a modern tools/list with this token.
fn status(gateway: &Gateway, token: &str) -> u16 {
    let params = json!({"_meta": modern_meta()});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params});
    let authorization = format!("Authorization: Bearer {token}");
    let own = [&*authorization, MODERN, "Mcp-Method: tools/list"];
    let headers = [&own[..], &JSON_HEADERS].concat();
    let answer = http::send(gateway.port, "POST /mcp/everything", &headers, &body.to_string());
    let challenged = answer.head.to_ascii_lowercase().contains("www-authenticate: bearer ");
    assert_eq!(challenged, answer.status == 401, "{}", answer.head);
    answer.status
}

// What must hold after every area.

/// What our own upstream saw.
fn observed(port: u16) -> Value {
    http::send(port, "GET /observed", &[], "").json()
}

/// Token passthrough is forbidden (mcp section 0, fact 6): the upstream has no credential here, so
/// it saw none at all.
fn upstream_saw_no_token(port: u16) {
    let observed = observed(port);
    assert!(observed["requests"].as_u64().unwrap() > 0, "{observed}");
    assert_eq!(observed["authorization"], json!([]), "{observed}");
}

/// The gateway drains and ends well, and its audit knows who did it all, without the token.
///
/// What is public is recorded under other events than `request`: nobody was judged.
fn ends_with_a_true_record(gateway: Gateway, token: &str) -> Vec<Value> {
    let (status, records) = gateway.stop();
    assert!(status.success(), "{status}");
    let permitted: Vec<_> = records
        .iter()
        .filter(|record| record["event"] == "request" && record["decision"] == "permit")
        .collect();
    assert!(!permitted.is_empty(), "no permit in {} records", records.len());
    for record in &permitted {
        assert_eq!(
            (&record["user"], &record["server"]),
            (&json!(USER), &json!("everything")),
            "{record}"
        );
    }
    for record in &records {
        assert!(!record.to_string().contains(token), "the token is in the audit");
    }
    records
}

/// JSON-RPC code of a denial on a permitted server (contract).
const DENIED: i64 = 1403;
const CLIENT_LIMIT: Duration = Duration::from_secs(120);
