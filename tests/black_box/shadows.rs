//! Shadow policies: the record says what they would have denied, and nobody else notices.

use serde_json::{Value, json};

use super::gateway::{DRIVERS, Gateway, until};
use super::table::{Post, tool_call};

/// alice may use all of `tools` but `delete`, see `setup`.
const SHADOWS: &str = r#"
@id("no-writes")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/write");
@id("not-from-here")
forbid (principal, action == Action::"tools/call", resource in Server::"tools")
when { context.source.ip.isInRange(ip("127.0.0.0/8")) && resource != Tool::"tools/read" };
@id("no-step") @require_scope("more")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/write")
unless { context.scopes.contains("more") };
@id("no-door")
forbid (principal == User::"bob", action == Action::"connect", resource);
@id("fails")
forbid (principal, action == Action::"tools/call", resource == Tool::"tools/fails")
when { context.local.minute_of_day * 9223372036854775807 + 9223372036854775807 > 0 };
@id("would-permit")
permit (principal, action, resource in Server::"secret");
"#;

#[test]
fn what_shadows_would_deny_is_recorded_and_happens_all_the_same() {
    for driver in DRIVERS {
        let gateway = Gateway::start_with(driver, "", |directory| {
            std::fs::create_dir(directory.join("policies/shadow")).unwrap();
            std::fs::write(directory.join("policies/shadow/next.cedar"), SHADOWS).unwrap();
        });
        let ready = Post::new(&gateway).to("open").bytes();
        until("the first answer", || gateway.ask(&ready).status == 200);
        let turn = gateway.turn();
        let post = |user: &str, tool: &str| {
            Post::with_token(&gateway.keys.token(user)).body(tool_call(tool))
        };
        let rows = [
            (post("alice", "read"), 200, "ok", Value::Null),
            (post("alice", "echo"), 200, "ok", json!(["not-from-here"])),
            (post("alice", "write"), 200, "ok", json!(["no-step", "no-writes", "not-from-here"])),
            (post("alice", "fails"), 200, "ok", json!(["fails", "not-from-here"])),
            (post("bob", "read"), 200, "ok", json!(["no-door"])),
            // What is denied is denied by those that are in force, and says so only.
            (post("alice", "delete"), 200, "forbidden", Value::Null),
            (post("alice", "echo").to("secret"), 403, "no_permit", Value::Null),
        ];
        for (post, status, reason, _) in &rows {
            // Twice: the second is decided from the cache.
            for _ in 0..2 {
                let before = gateway.upstream.log().requests.len();
                let answer = gateway.ask(&post.bytes());
                assert_eq!(answer.status, *status, "{driver:?}: {answer:?}");
                assert_eq!(answer.header("www-authenticate"), None, "{driver:?}");
                let forwarded = gateway.upstream.log().requests.len() > before;
                assert_eq!(forwarded, *reason == "ok", "{driver:?} {reason}");
                let said = String::from_utf8(answer.body).unwrap();
                assert!(!said.contains("no-writes") && !said.contains("shadow"), "{said}");
            }
        }
        let records = turn.records(&gateway, 2 * rows.len());
        let metrics = String::from_utf8(gateway.page("/metrics").body).unwrap();
        assert!(metrics.contains("\nportcullis_shadow_denials_total 8\n"), "{driver:?} {metrics}");
        for (pair, (_, _, reason, would_deny)) in records.chunks(2).zip(&rows) {
            for record in pair {
                assert_eq!(record["reason"], *reason, "{driver:?} {record}");
                let mut ids = record["would_deny"].clone();
                if let Some(ids) = ids.as_array_mut() {
                    ids.sort_by_key(Value::to_string);
                }
                assert_eq!(ids, *would_deny, "{driver:?} {record}");
            }
        }
    }
}
