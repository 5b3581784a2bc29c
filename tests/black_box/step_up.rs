//! Step-up: a caller who lacks only a better login is told which, in one challenge; anybody else
//! is told nothing (RFC 9470, RFC 6750 §3.1).

use serde_json::{Value, json};

use super::client::text;
use super::gateway::{DRIVERS, Driver, Gateway, until};
use super::table::{Post, assert_silent, tool_call};
use super::token::now;

/// alice may use all of `tools`, see `setup`.
const POLICIES: &str = r#"
@id("write") @require_scope("tools:write")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/write")
unless { context.scopes.contains("tools:write") };
@id("pay-scope") @require_scope("tools:pay")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/pay")
unless { context.scopes.contains("tools:pay") };
@id("pay-login") @require_acr("phr") @max_age("300")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/pay")
unless { context has acr && context.acr == "phr" && context has auth_time &&
  context.now.durationSince(context.auth_time) <= duration("300s") };
@id("never") @require_scope("tools:never")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/never")
unless { context.scopes.contains("tools:never") };
@id("never-at-all")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/never");
@id("fails") @require_scope("tools:fails")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/fails")
unless { context.scopes.contains("tools:fails") };
@id("fails-always")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/fails")
when { context.local.minute_of_day * 9223372036854775807 + 9223372036854775807 > 0 };
@id("unpermitted") @require_scope("narrow")
forbid (principal, action == Action::"tools/call", resource in Server::"narrow")
unless { context.scopes.contains("narrow") };
@id("two") @require_scope("two")
forbid (principal, action == Action::"tools/call", resource in Server::"two")
unless { context.scopes.contains("two") };
@id("read-a") @require_scope("read:a")
forbid (principal, action == Action::"subscriptions/listen",
  resource == Resource::"tools/file:///a")
unless { context.scopes.contains("read:a") };
@id("read-b") @require_scope("read:b")
forbid (principal, action == Action::"subscriptions/listen",
  resource == Resource::"tools/file:///b")
unless { context.scopes.contains("read:b") };
@id("read-c")
forbid (principal, action == Action::"subscriptions/listen",
  resource == Resource::"tools/file:///c");
@id("fred-tools") permit (principal == User::"fred", action, resource in Server::"tools");
@id("fred-door") @require_scope("gateway")
forbid (principal == User::"fred", action == Action::"connect", resource)
unless { context.scopes.contains("gateway") };
@id("gina-tools") permit (principal == User::"gina", action, resource in Server::"tools");
@id("gina-session") @require_scope("session")
forbid (principal == User::"gina", action == Action::"initialize", resource == Server::"tools")
unless { context.scopes.contains("session") };
"#;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;

fn start(driver: Driver) -> Gateway {
    let gateway = Gateway::start_with(driver, "", |directory| {
        std::fs::write(directory.join("policies/step_up.cedar"), POLICIES).unwrap();
    });
    until("the first answer", || gateway.ask(&Post::new(&gateway).bytes()).status == 200);
    gateway
}

/// A token of `user` with more claims.
fn token(gateway: &Gateway, user: &str, more: &Value) -> String {
    let mut claims = gateway.keys.claims(user);
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.keys.signed(&claims)
}

fn post(gateway: &Gateway, user: &str, more: &Value) -> Post {
    Post::with_token(&token(gateway, user, more))
}

/// A listen for resources.
fn listen(post: Post, uris: &[&str]) -> Post {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"_meta": meta, "notifications": {"resourceSubscriptions": uris}});
    let method = "subscriptions/listen";
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    post.body(body.to_string())
        .field("MCP-Protocol-Version: 2026-07-28")
        .field("Mcp-Method: subscriptions/listen")
}

#[test]
fn everything_that_is_missing_is_in_one_challenge() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let none = json!({});
        let old = json!({"scope": "tools:pay", "acr": "phr", "auth_time": now() - 1000});
        let rows = [
            (
                post(&gateway, "alice", &none).body(tool_call("write")),
                r#"scope="tools:write""#,
                json!(["write"]),
            ),
            (
                post(&gateway, "alice", &none).body(tool_call("pay")),
                r#"scope="tools:pay", acr_values="phr", max_age="300""#,
                json!(["pay-login", "pay-scope"]),
            ),
            (
                post(&gateway, "alice", &old).body(tool_call("pay")),
                r#"acr_values="phr", max_age="300""#,
                json!(["pay-login"]),
            ),
            (
                listen(post(&gateway, "alice", &none), &["file:///a", "file:///b"]),
                r#"scope="read:a read:b""#,
                json!(["read-a", "read-b"]),
            ),
            (post(&gateway, "fred", &none), r#"scope="gateway""#, json!(["fred-door"])),
            (
                post(&gateway, "fred", &none).body(tool_call("write")),
                r#"scope="gateway tools:write""#,
                json!(["fred-door", "write"]),
            ),
            (
                post(&gateway, "fred", &none).body(INITIALIZE),
                r#"scope="gateway""#,
                json!(["fred-door"]),
            ),
            (
                post(&gateway, "gina", &none).body(INITIALIZE),
                r#"scope="session""#,
                json!(["gina-session"]),
            ),
        ];
        let before = gateway.upstream.heard();
        for (post, lacks, _) in &rows {
            // Twice: the second is decided from the cache.
            for _ in 0..2 {
                let answer = gateway.ask(&post.bytes());
                let shown = format!("{lacks} {driver:?}: {answer:?}");
                assert_eq!(answer.status, 403, "{shown}");
                assert_eq!(answer.reason(), "insufficient_scope", "{shown}");
                let wanted = format!(
                    "Bearer resource_metadata=\"http://portcullis.localhost/.well-known/\
                     oauth-protected-resource/mcp/tools\", error=\"insufficient_scope\", {lacks}"
                );
                assert_eq!(answer.header("www-authenticate"), Some(&*wanted), "{shown}");
                let challenges = answer.head.matches("www-authenticate").count();
                assert_eq!(challenges, 1, "{shown}");
            }
        }
        assert_eq!(gateway.upstream.heard(), before, "nothing was forwarded");
        let records = turn.records(&gateway, 2 * rows.len());
        for (pair, (.., policies)) in records.chunks(2).zip(&rows) {
            for record in pair {
                assert_eq!(record["decision"], "deny", "{record}");
                assert_eq!(record["reason"], "insufficient_scope", "{record}");
                let mut ids: Vec<&str> =
                    record["policy"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                ids.sort_unstable();
                assert_eq!(json!(ids), *policies, "{record}");
            }
        }
        assert_silent(&gateway.everything_written(), "what was written");
    }
}

/// The next token is another caller: what was kept for the one before does not count for it, and
/// a login that grows old is asked for again.
#[test]
fn whoever_took_the_step_is_let_in() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        let fresh = json!({
            "scope": "read:b tools:pay read:a tools:write", "acr": "phr", "auth_time": now() - 10,
        });
        let strong = json!({"scope": "gateway tools:write session"});
        for (user, taken, name) in
            [("alice", &fresh, "write"), ("alice", &fresh, "pay"), ("fred", &strong, "write")]
        {
            let lacking = post(&gateway, user, &json!({})).body(tool_call(name));
            assert_eq!(gateway.ask(&lacking.bytes()).status, 403);
            let taken = post(&gateway, user, taken).body(tool_call(name));
            assert_eq!(gateway.ask(&taken.bytes()).status, 200, "{user} {name} {driver:?}");
            assert_eq!(gateway.ask(&lacking.bytes()).status, 403);
        }
        let stream = listen(post(&gateway, "alice", &fresh), &["file:///a", "file:///b"]);
        assert_eq!(gateway.ask(&stream.bytes()).status, 200);
        let taken = post(&gateway, "gina", &strong).body(INITIALIZE);
        assert_eq!(gateway.ask(&taken.bytes()).status, 200);
        let soon = json!({"scope": "tools:pay", "acr": "phr", "auth_time": now() - 299});
        let ageing = post(&gateway, "alice", &soon).body(tool_call("pay")).bytes();
        until("the login is too old", || gateway.ask(&ageing).status == 403);
    }
}

/// A challenge that would not help would only teach what would.
#[test]
fn no_challenge_is_sent_that_would_not_do() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let _turn = gateway.turn();
        let none = json!({});
        let alice = || post(&gateway, "alice", &none);
        let before = gateway.upstream.heard();
        for (what, post, status, reason) in [
            ("a plain forbid beside it", alice().body(tool_call("never")), 200, "forbidden"),
            ("a failing forbid beside it", alice().body(tool_call("fails")), 200, "forbidden"),
            ("no permit", alice().to("narrow").body(tool_call("other")), 200, "forbidden"),
            ("two credentials", alice().to("two"), 200, "forbidden"),
            (
                "another target is denied",
                listen(alice(), &["file:///a", "file:///c"]),
                200,
                "forbidden",
            ),
            (
                "another target is denied, first",
                listen(alice(), &["file:///c", "file:///a"]),
                200,
                "forbidden",
            ),
            (
                "the tool is denied behind the door",
                post(&gateway, "fred", &none).body(tool_call("delete")),
                200,
                "forbidden",
            ),
            (
                "the server is denied behind the door",
                post(&gateway, "fred", &none).to("open"),
                403,
                "no_permit",
            ),
            (
                "the door is shut",
                post(&gateway, "mallory", &none).body(tool_call("write")),
                403,
                "no_permit",
            ),
        ] {
            let answer = gateway.ask(&post.bytes());
            let shown = format!("{what} {driver:?}: {answer:?}");
            assert_eq!((answer.status, &*answer.reason()), (status, reason), "{shown}");
            assert_eq!(answer.header("www-authenticate"), None, "{shown}");
        }
        assert_eq!(gateway.upstream.heard(), before, "nothing was forwarded");
    }
}

/// A better login would help neither to a server that is hidden nor to one that is not there, and
/// nobody can tell the two apart.
#[test]
fn a_hidden_server_is_as_if_it_were_not_there() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let ask = |server: &str| {
            let answer = gateway.ask(&post(&gateway, "fred", &json!({})).to(server).bytes());
            let challenge = answer.header("www-authenticate").map(ToOwned::to_owned);
            (answer.status, text(&answer.body), challenge)
        };
        let hidden = ask("narrow");
        assert_eq!((hidden.0, &hidden.2), (403, &None), "{hidden:?}");
        assert_eq!(ask("nowhere"), hidden, "{driver:?}");
        let visible = ask("tools");
        assert!(visible.2.is_some_and(|challenge| challenge.contains("scope=\"gateway\"")));
    }
}
