//! H: what a kept connection carries over to the next request, and what reaches the upstream.

use super::client::{Client, Way, text};
use super::gateway::{DRIVERS, Gateway};
use super::table::{Post, assert_silent};

#[test]
fn h25_pipelined_requests_stand_for_themselves() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        for way in [Way::Whole, Way::Dripped] {
            let turn = gateway.turn();
            let alice = Post::new(&gateway).bytes();
            let bob = Post::with_token(&gateway.keys.token("bob")).bytes();
            let mallory = Post::with_token(&gateway.keys.token("mallory")).bytes();
            let stranger = Post { token: None, ..Post::new(&gateway) }.bytes();
            let all = [&alice[..], &stranger, &bob, &mallory, &stranger, &alice].concat();
            let mut client = Client::connect(gateway.address);
            client.send(&all, way);
            let statuses: Vec<u16> = (0..6).map(|_| client.answer().unwrap().status).collect();
            assert_eq!(statuses, [200, 401, 200, 403, 401, 200]);
            let records = turn.records(&gateway, 6);
            let users: Vec<_> = records.iter().map(|record| record["user"].as_str()).collect();
            let (alice, mallory) = (Some("alice"), Some("mallory"));
            assert_eq!(users, [alice, None, Some("bob"), mallory, None, alice]);
        }
    }
}

#[test]
fn h28_h29_what_the_upstream_sees() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let mut post = Post::new(&gateway);
        for line in [
            "Connection: keep-alive, authorization, x-api-key, mcp-name, mcp-method, content-type, \
             content-length, host",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Trailer: X-T",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "Proxy-Authorization: Basic Q0FOQVJZ",
            "Proxy-Connection: close",
            "X-Forwarded-For: 10.9.8.7",
            "X-Forwarded-Host: evil.test",
            "X-Forwarded-Proto: https",
            "Forwarded: for=10.9.8.7",
            "X-Real-IP: 10.9.8.7",
            "Via: 1.1 evil",
            "X-User: root",
            "X-Remote-User: root",
            "X-Authenticated-User: root",
            "X-Api-Key: CANARY-of-the-agent",
            "X-Forwarded-Access-Token: CANARY-of-the-agent",
            "Cookie: session=CANARY-of-the-agent",
            "Mcp-Name: echo",
            "Mcp-Method: tools/call",
            "Mcp-Param-Region: eu",
            "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            post = post.field(line);
        }
        let answer = gateway.ask(&post.bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = gateway.upstream.last();
        let mut names: Vec<String> = seen
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':').map(|(name, _)| name.to_ascii_lowercase()))
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "accept",
                "content-length",
                "content-type",
                "host",
                "mcp-method",
                "mcp-name",
                "mcp-param-region",
                "traceparent",
                "x-api-key",
            ],
            "{}",
            seen.head
        );
        assert_eq!(seen.header("x-api-key"), Some(super::setup::API_KEY), "ours, not the agent's");
        assert_eq!(seen.header("host"), Some(&*format!("127.0.0.1:{}", gateway.upstream.port)));
        assert!(seen.head.starts_with("POST /tools HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.body, post.body);
        assert_silent(&(answer.head.clone() + &text(&answer.body)), "the answer");
    }
}

#[test]
fn a_fields_that_connection_lists_is_kept_from_the_upstream() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let post = Post::new(&gateway).field("Connection: baggage").field("Baggage: a=b");
        assert_eq!(gateway.ask(&post.bytes()).status, 200);
        assert_eq!(gateway.upstream.last().header("baggage"), None);
    }
}

/// M16: an event id belongs to a session. Without an opened one it could be anybody's, and in a
/// POST it resumes nothing: neither goes upstream. Somebody else's session opens for nobody
/// (`sessions::m12_m16`).
#[test]
fn m16_an_event_id_goes_upstream_with_its_session_only() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        let resumed = "Last-Event-ID: 7";
        let post = Post::new(&gateway).field(resumed);
        assert_eq!(gateway.ask(&post.bytes()).status, 200);
        assert_eq!(gateway.upstream.last().header("last-event-id"), None, "{driver:?}: a POST");
        let token = gateway.keys.token("alice");
        let get = format!(
            "GET /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\n\
             Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n{resumed}\r\n\r\n"
        );
        assert_eq!(gateway.ask(get.as_bytes()).status, 200);
        let seen = gateway.upstream.last();
        assert!(seen.head.starts_with("GET /tools "), "{}", seen.head);
        assert_eq!(seen.header("last-event-id"), None, "{driver:?}: a stream without a session");
    }
}
