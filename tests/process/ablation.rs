//! Builds that measure what a check costs can leave it out; all others cannot, whatever they are
//! told. The same test runs in both kinds of build.

use crate::client::{Answer, Client};
use crate::gateway::{Gateway, Setup, api_key, server};
use crate::upstream::Upstream;

/// What this build can do.
const ABLE: bool = cfg!(feature = "ablation");

/// A gateway that was told to leave `off` out; only the tool `echo` is permitted.
fn start(upstream: &Upstream, off: &str) -> Gateway {
    let url = format!("http://{}/mcp", upstream.address);
    let key = api_key("key", "[\"sample\"]", "header = \"X-Api-Key\"", "upstream.key");
    let tables = server("sample", &url, "credential = \"key\"") + &key;
    let variable = format!("PORTCULLIS_ABLATE={off}");
    let setup = Setup::with_tables(&tables).policies(ECHO_ONLY).launcher(&["env", &variable]);
    let stage = setup.prepare();
    stage.write("upstream.key", "a-key-of-the-upstream");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    gateway
}

/// A good call, then `second` on the same connection, which is the same core.
fn after_a_good_call(gateway: &Gateway, second: impl Fn(&Client) -> String) -> Answer {
    let client = gateway.client();
    let mut wire = client.open();
    wire.send(&client.call("echo"));
    assert_eq!(wire.answer().status, 200);
    wire.send(&second(&client));
    wire.answer()
}

fn stranger(client: &Client) -> Client {
    Client { token: "no".to_owned(), ..client.clone() }
}

fn broken(client: &Client) -> String {
    let fields = "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\n";
    client.post_text(fields, "{\"jsonrpc\":")
}

#[test]
fn a_check_is_left_out_only_in_a_build_that_can() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "token");
    let answer = after_a_good_call(&gateway, |client| stranger(client).call("echo"));
    assert_eq!(answer.status, if ABLE { 200 } else { 401 });

    let gateway = start(&upstream, "policy");
    let answer = after_a_good_call(&gateway, |client| client.call("drop"));
    assert_eq!(answer.json().get("error").is_none(), ABLE, "{}", answer.text());

    let gateway = start(&upstream, "inspect");
    let answer = after_a_good_call(&gateway, broken);
    assert_eq!(answer.status, if ABLE { 200 } else { 400 });
}

#[test]
fn nothing_is_sent_or_recorded_less_but_in_such_a_build() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "credential,audit");
    let answer = after_a_good_call(&gateway, |client| client.call("echo"));
    assert_eq!(answer.status, 200);
    let keyed = upstream.seen().iter().filter(|seen| seen.head.contains("a-key-of")).count();
    assert_eq!(keyed, if ABLE { 0 } else { 2 });
    if !ABLE {
        gateway.audited(2);
    }
    let records = gateway.stop().audit();
    let requests = records.iter().filter(|record| record["event"] == "request").count();
    assert_eq!(requests, if ABLE { 0 } else { 2 });
}

#[test]
fn such_a_build_says_so_and_takes_no_word_it_does_not_know() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "token");
    assert_eq!(gateway.said().contains("WARNING: this build can turn security checks off"), ABLE);
    assert_eq!(gateway.said().contains("PORTCULLIS_ABLATE"), ABLE);
    if ABLE {
        let told = Setup::new(upstream.address).launcher(&["env", "PORTCULLIS_ABLATE=everything"]);
        let (code, words) = told.refused();
        assert_eq!(code, 78);
        assert!(words.contains("\"everything\""), "{words}");
    }
}

/// Without a word nothing is off, in any build.
#[test]
fn every_check_is_on_when_nothing_is_asked_for() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "");
    assert_eq!(after_a_good_call(&gateway, |client| stranger(client).call("echo")).status, 401);
    assert!(
        after_a_good_call(&gateway, |client| client.call("drop")).json().get("error").is_some()
    );
    assert_eq!(after_a_good_call(&gateway, broken).status, 400);
    gateway.audited(6);
}

const ECHO_ONLY: &str = r#"@id("connect")
permit (principal, action == Action::"connect", resource);
@id("echo")
permit (principal, action == Action::"tools/call", resource == Tool::"sample/echo");
"#;
