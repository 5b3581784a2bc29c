//! The upstream's credential: where it is written, when it is read again, where it never goes.

use serde_json::json;

use crate::gateway::{PERMIT_ALL, Setup, api_key, server};
use crate::upstream::{self, Gate, RESULT, Upstream, json as answer};

/// Serves only requests whose head holds `wanted()`; all others are 401.
fn guarded(wanted: impl Fn() -> String + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |seen, peer| {
        if seen.head.contains(&wanted()) {
            answer(peer, RESULT)
        } else {
            upstream::status(peer, "401 Unauthorized", "")
        }
    })
}

fn setup(upstream: &Upstream, place: &str) -> Setup {
    let url = format!("http://{}/mcp?fixed=1", upstream.address);
    let tables = server("sample", &url, "credential = \"key\"");
    Setup::with_tables(&format!("{tables}{}", api_key("key", "[\"sample\"]", place, "up.key")))
}

#[test]
fn a_key_is_written_in_its_place_and_the_agent_cannot_forge_it() {
    let cases = [
        ("header = \"X-Api-Key\"", "x-api-key: up-key-1"),
        ("header = \"Authorization\"\nscheme = \"Bearer\"", "authorization: Bearer up-key-1"),
        ("query = \"key\"", "/mcp?fixed=1&key=up-key-1 HTTP/1.1"),
    ];
    for (place, wanted) in cases {
        let upstream = Upstream::echo();
        let setup = setup(&upstream, place);
        let stage = setup.prepare();
        stage.write("up.key", "up-key-1\n");
        let gateway = setup.start_on(stage);
        gateway.wait_until_ready();
        let client = gateway.client().extra("x-api-key: forged\r\ncookie: forged=1\r\n");
        let client = client.path("/mcp/sample?key=forged");
        assert_eq!(client.once(&client.call("echo")).status, 200);
        let head = upstream.seen()[0].head.clone();
        let lower = head.to_lowercase();
        assert!(lower.contains(&wanted.to_lowercase()), "{wanted}: {head}");
        assert_eq!(head.matches("up-key-1").count(), 1, "{head}");
        assert!(!head.contains("forged"), "{head}");
        assert!(!head.contains(&client.token), "the agent's token stays here: {head}");
    }
}

/// The key is rotated at its source. The next call meets the upstream's 401, reads the source once
/// more, and serves without a reload, with a body that takes more than one write, too.
#[test]
fn a_rotated_key_is_read_again_after_a_401_without_a_reload() {
    let key = std::sync::Arc::new(std::sync::Mutex::new("first-key".to_owned()));
    let valid = std::sync::Arc::clone(&key);
    let upstream = guarded(move || valid.lock().unwrap().clone());
    let setup = setup(&upstream, "header = \"X-Api-Key\"").cores("cpus = \"0\"");
    let stage = setup.prepare();
    stage.write("up.key", "first-key");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let client = gateway.client();
    let big = json!({"name": "echo", "arguments": {"a": "x".repeat(40_000)}});
    let call = client.modern("tools/call", &big);
    assert_eq!(client.once(&call).status, 200);
    assert_eq!(client.once(&call).status, 200);
    assert_eq!(upstream.requests(), 2);

    "second-key".clone_into(&mut key.lock().unwrap());
    gateway.stage().write("up.key", "second-key");
    assert_eq!(client.once(&call).status, 200, "one refetch");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen[2].head.contains("first-key") && seen[3].head.contains("second-key"));
    assert_eq!(seen[2].body, seen[3].body, "the same message");

    "third-key".clone_into(&mut key.lock().unwrap());
    let failed = client.once(&call);
    assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_auth"));
    assert_eq!(upstream.requests(), 6, "tried twice and no more");
    let caches: Vec<_> = gateway
        .audited(4)
        .iter()
        .map(|record| record["credential"]["cache"].as_str().unwrap().to_owned())
        .collect();
    // The record was committed with the decision, before the upstream refused the key.
    assert_eq!(caches, ["miss", "hit", "hit", "hit"]);
}

/// The policy changes while the upstream thinks about its 401: there is no second try under the old
/// one.
#[test]
fn a_second_try_is_not_made_under_rules_that_changed() {
    for changed in [false, true] {
        let (open, gate) = Gate::new();
        let upstream = Upstream::start(move |_, peer| {
            gate.pass();
            upstream::status(peer, "401 Unauthorized", "")
        });
        let setup = setup(&upstream, "header = \"X-Api-Key\"");
        let stage = setup.prepare();
        stage.write("up.key", "some-key");
        let gateway = setup.start_on(stage);
        gateway.wait_until_ready();
        let client = gateway.client();
        let mut wire = client.open();
        wire.send(&client.call("echo"));
        upstream.wait_for_requests(1);
        if changed {
            let forbid = "@id(\"no\")\nforbid (principal, action, resource);";
            gateway.stage().write("policies/all.cedar", &format!("{PERMIT_ALL}{forbid}"));
            gateway.reload();
        }
        open.send(()).unwrap();
        open.send(()).unwrap();
        let failed = wire.answer();
        assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_auth"));
        assert_eq!(upstream.requests(), if changed { 1 } else { 2 });
    }
}

#[test]
fn a_key_that_cannot_be_read_is_503_and_the_upstream_hears_nothing() {
    let upstream = Upstream::echo();
    let setup = setup(&upstream, "header = \"X-Api-Key\"");
    let (code, words) = setup.refused();
    assert_eq!(code, 78, "at start it is a fault: {words}");
    assert!(words.contains("credential.secret: the secret does not exist"), "{words}");
    let stage = setup.prepare();
    stage.write("up.key", "gone-soon");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    std::fs::remove_file(gateway.stage().path("up.key")).unwrap();
    let client = gateway.client();
    let failed = client.once(&client.call("echo"));
    assert_eq!((failed.status, failed.reason().as_str()), (503, "credential_unavailable"));
    assert!(failed.header("retry-after").is_some());
    assert_eq!(upstream.connections(), 0);
    // Two header lines in one key are no key.
    gateway.stage().write("up.key", "a\r\nx-evil: 1");
    let failed = client.once(&client.call("echo"));
    assert_eq!((failed.status, failed.reason().as_str()), (503, "credential_unavailable"));
    assert_eq!(upstream.connections(), 0);
    gateway.stage().write("up.key", "good");
    assert_eq!(client.once(&client.call("echo")).status, 200, "no failure is remembered");
}

#[test]
fn a_credential_goes_only_to_its_servers() {
    let (first, second) = (Upstream::echo(), Upstream::echo());
    let url = |upstream: &Upstream| format!("http://{}/mcp", upstream.address);
    let one = server("one", &url(&first), "credential = \"key\"");
    let two = server("two", &url(&second), "");
    let key = api_key("key", "[\"one\"]", "header = \"X-Api-Key\"", "up.key");
    let setup = Setup::with_tables(&format!("{one}{two}{key}"));
    let stage = setup.prepare();
    stage.write("up.key", "only-for-one");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let client = gateway.client();
    for name in ["one", "two"] {
        let client = client.path(&format!("/mcp/{name}"));
        assert_eq!(client.once(&client.call("echo")).status, 200);
    }
    assert!(first.seen()[0].head.contains("only-for-one"));
    assert!(!second.seen()[0].head.contains("only-for-one"));

    let wrong = two.replace("name = \"two\"", "name = \"two\"\ncredential = \"key\"");
    let (code, words) = Setup::with_tables(&format!("{one}{wrong}{key}")).refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("server.credential"), "{words}");
}

/// A policy may choose a credential, and not one that is bound elsewhere.
#[test]
fn a_policy_cannot_pair_a_credential_with_a_foreign_server() {
    let upstream = Upstream::echo();
    let url = format!("http://{}/mcp", upstream.address);
    let tables = format!(
        "{}{}{}",
        server("one", &url, ""),
        server("two", &url, ""),
        api_key("key", "[\"one\"]", "header = \"X-Api-Key\"", "key.pem"),
    )
    .replace(
        "kind = \"api_key\"\nheader = \"X-Api-Key\"\nsecret = \"file:key.pem\"",
        "kind = \"none\"",
    );
    let policy = "@id(\"p\") @credential(\"key\")\n\
                  permit (principal, action, resource in Server::\"two\");\n";
    let (code, words) = Setup::with_tables(&tables).policies(policy).refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("all.cedar:1:"), "{words}");
}
