//! M: the sessions of the legacy era.

use super::client::{Client, Way};
use super::gateway::{DRIVERS, Gateway};
use super::table::Post;

/// M12, M16: a session id works for its owner on its server, and for nobody else.
#[test]
fn m12_m16_sessions_belong_to_their_owner() {
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let alice = gateway.keys.token("alice");
        let answer = gateway.ask(&Post::with_token(&alice).body(initialize).bytes());
        let session = answer.header("mcp-session-id").expect("a session id").to_owned();
        assert!(!session.contains("upstream-session"), "the upstream's own id is sealed");
        let field = format!("Mcp-Session-Id: {session}");
        let owner = Post::with_token(&alice).field(&field).bytes();
        assert_eq!(gateway.ask(&owner).status, 200);
        assert_eq!(gateway.upstream.last().header("mcp-session-id"), Some("upstream-session"));
        // A new token of the same user and agent keeps it.
        let again = Post::new(&gateway).field(&field).bytes();
        assert_eq!(gateway.ask(&again).status, 200);
        let before = gateway.upstream.heard();
        let mut other_agent = gateway.keys.claims("alice");
        other_agent["client_id"] = "agent-8".into();
        let other_agent = Post::with_token(&gateway.keys.signed(&other_agent)).field(&field);
        let bob = Post::with_token(&gateway.keys.token("bob")).field(&field);
        let elsewhere = Post::new(&gateway).to("open").field(&field);
        let mut flipped = session.clone().into_bytes();
        flipped[20] ^= 1;
        let flipped = String::from_utf8(flipped).unwrap();
        let forged = |id: &str| Post::new(&gateway).field(&format!("Mcp-Session-Id: {id}"));
        let resumed = |token: &str, verb: &str| {
            format!(
                "{verb} /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\nAuthorization: Bearer \
                 {token}\r\nAccept: text/event-stream\r\nLast-Event-ID: 7\r\n{field}\r\n\r\n"
            )
            .into_bytes()
        };
        let bobs = gateway.keys.token("bob");
        let strangers = [
            bob.bytes(),
            other_agent.bytes(),
            elsewhere.bytes(),
            forged(&flipped).bytes(),
            forged("upstream-session").bytes(),
            forged("").bytes(),
            forged(&"A".repeat(9000)).bytes(),
            resumed(&bobs, "GET"),
            resumed(&bobs, "DELETE"),
        ];
        for (number, request) in strangers.iter().enumerate() {
            let answer = gateway.ask(request);
            let shown = format!("M12 {number} on {driver:?}: {answer:?}");
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (404, "session_mismatch"),
                "{shown}"
            );
        }
        assert_eq!(gateway.upstream.heard(), before, "nothing was forwarded");
        let mut client = Client::connect(gateway.address);
        client.send(&resumed(&alice, "GET"), Way::Whole);
        assert_eq!(client.answer().unwrap().status, 200);
        assert_eq!(gateway.upstream.last().header("last-event-id"), Some("7"));
        let reasons = turn.reasons(&gateway, 3 + strangers.len() + 1);
        assert_eq!(reasons[3..3 + strangers.len()], vec!["session_mismatch"; strangers.len()]);
    }
}
