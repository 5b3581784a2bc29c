//! What a hostile MCP server can do to an agent: nothing but waste its own time.

use super::client::{Client, Way, text};
use super::gateway::{DRIVERS, Gateway, until};
use super::setup::API_KEY;
use super::table::{Post, assert_silent};

/// H30, F07, F08: an answer that is not exactly one response, before a byte went to the agent.
#[test]
fn h30_f07_f08_bad_answers_are_502() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let good = Post::new(&gateway).bytes();
        let mut wanted = Vec::new();
        for (script, status, reason) in [
            ("cl-te", 502, "upstream_malformed"),
            ("two-lengths", 502, "upstream_malformed"),
            ("equal-lengths", 502, "upstream_malformed"),
            ("interim-9", 502, "upstream_malformed"),
            ("switch", 502, "upstream_malformed"),
            ("cr-in-header", 502, "upstream_malformed"),
            ("nul-in-header", 502, "upstream_malformed"),
            ("bare-lf", 502, "upstream_malformed"),
            ("fold", 502, "upstream_malformed"),
            ("garbage", 502, "upstream_malformed"),
            ("huge-head", 502, "upstream_malformed"),
            ("bad-chunk", 502, "upstream_malformed"),
            ("close-silent", 502, "upstream_eof"),
            ("close-in-head", 502, "upstream_eof"),
            ("html", 502, "upstream_content_type"),
            ("no-type", 502, "upstream_content_type"),
            ("gzip", 502, "upstream_content_type"),
            ("redirect-302", 502, "upstream_redirect"),
            ("redirect-307", 502, "upstream_redirect"),
            ("refuse-401", 502, "upstream_auth"),
            ("refuse-403", 502, "upstream_forbidden"),
        ] {
            let shown = format!("{script} on {driver:?}");
            let mut client = Client::connect(gateway.address);
            client.send(&Post::new(&gateway).script(script).bytes(), Way::Whole);
            let answer = client.answer().unwrap_or_else(|| panic!("{shown}: no answer"));
            assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{shown}");
            assert_silent(&(answer.head.clone() + &text(&answer.body)), &shown);
            assert_eq!(answer.json()["id"], 1, "{shown}: the id is echoed");
            let hostile = gateway.upstream.last().connection;
            // The agent's own connection is not to blame, and the upstream's is not used again.
            client.send(&good, Way::Whole);
            assert_eq!(client.answer().unwrap().status, 200, "{shown}");
            let next = gateway.upstream.last();
            assert_eq!(next.header("mcp-param-script"), None);
            if !matches!(script, "refuse-401" | "refuse-403" | "redirect-302" | "redirect-307") {
                assert_ne!(next.connection, hostile, "{shown}: the connection is not used again");
            }
            wanted.extend([reason, "ok"]);
        }
        assert_eq!(turn.reasons(&gateway, wanted.len()), wanted);
        assert_silent(&gateway.everything_written(), "what was written");
    }
}

/// F07: an answer that breaks off is broken off towards the agent too, never ended cleanly.
#[test]
fn f07_a_cut_answer_is_seen_to_be_cut() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let mut wanted = Vec::new();
        for (script, server, reason) in [
            ("close-in-body", "tools", "upstream_eof"),
            ("close-in-chunk", "tools", "upstream_eof"),
            ("close-in-events", "tools", "upstream_eof"),
            ("no-newline", "tools", "upstream_malformed"),
            ("stall-in-events", "impatient", "upstream_timeout"),
        ] {
            let before = gateway.memory();
            let mut client = Client::connect(gateway.address);
            let post = Post::new(&gateway).to(server).script(script);
            client.send(&post.bytes(), Way::Whole);
            let answer = client.answer().unwrap_or_else(|| panic!("{script}: no answer"));
            let shown = format!("{script} on {driver:?}");
            assert_eq!(answer.status, 200, "{shown}");
            assert!(!answer.complete, "{shown}: no clean end");
            assert!(client.ended(), "{shown}: the connection ends");
            let grown = gateway.memory().saturating_sub(before);
            assert!(grown < 4 * 1024 * 1024, "{shown}: {grown} bytes kept");
            assert!(answer.body.len() < 9 * 1024 * 1024, "{shown}: {} bytes", answer.body.len());
            assert_silent(&text(&answer.body), &shown);
            wanted.push(reason);
        }
        assert_eq!(turn.reasons(&gateway, wanted.len()), wanted);
        let connections = gateway.upstream.log().connections;
        until("every broken connection ends", || {
            // Idle ones of good answers may stay; one per core and credential at most.
            let closed = gateway.upstream.log().closed.len();
            connections - closed <= 8
        });
    }
}

/// H30: what stands behind an answer is nobody's answer.
#[test]
fn h30_surplus_bytes_reach_nobody() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        for _ in 0..4 {
            let mut client = Client::connect(gateway.address);
            client.send(&Post::new(&gateway).script("surplus").bytes(), Way::Whole);
            let answer = client.answer().unwrap();
            assert_eq!(answer.status, 200);
            let poisoned = gateway.upstream.last().connection;
            client.send(&Post::new(&gateway).bytes(), Way::Whole);
            let next = client.answer().unwrap();
            assert!(!text(&next.body).contains("POISON"), "{next:?}");
            assert_eq!(next.json()["id"], 1);
            assert_ne!(gateway.upstream.last().connection, poisoned);
        }
    }
}

#[test]
fn good_answers_in_every_framing_are_relayed() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        for script in ["plain", "interim-8", "until-close", "leaky-200"] {
            let answer = gateway.ask(&Post::new(&gateway).script(script).bytes());
            assert_eq!(answer.status, 200, "{script}: {answer:?}");
            assert!(answer.complete, "{script}");
            assert_eq!(answer.json()["result"]["served"], true, "{script}");
        }
        // M15: line ends of all three kinds travel byte for byte.
        let answer = gateway.ask(&Post::new(&gateway).script("events").bytes());
        let stream = "event: message\r\ndata: one\r\n\r\ndata: two\rid: 7\r\rdata: three\n\n";
        assert_eq!(text(&answer.body), stream);
        assert!(answer.complete);
        // M15: so does the large result of one call.
        let answer = gateway.ask(&Post::new(&gateway).script("huge-event").bytes());
        assert_eq!((answer.body.len(), answer.complete), (1_200_000 + 8, true));
        assert_eq!(turn.reasons(&gateway, 6), vec!["ok"; 6]);
    }
}

/// O03, O04: the agent's token never goes up, the server's secrets never come down.
#[test]
fn o03_o04_secrets_stay_on_their_side() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        for script in ["plain", "leaky-200", "fail-500", "refuse-401", "refuse-403", "redirect-302"]
        {
            for server in ["tools", "bearer", "query", "open"] {
                let answer = gateway.ask(&Post::new(&gateway).to(server).script(script).bytes());
                let shown = format!("{script} at {server}");
                assert_silent(&(answer.head.clone() + &text(&answer.body)), &shown);
                for field in [
                    "set-cookie",
                    "location",
                    "www-authenticate",
                    "authorization",
                    "server",
                    "x-api-key",
                    "proxy-authenticate",
                    "link",
                    "access-control-allow-origin",
                ] {
                    assert_eq!(answer.header(field), None, "{shown}: {field}");
                }
                let seen = gateway.upstream.last();
                match server {
                    "tools" => assert_eq!(seen.header("x-api-key"), Some(API_KEY)),
                    "bearer" => {
                        let wanted = format!("Bearer {API_KEY}");
                        assert_eq!(seen.header("authorization"), Some(&*wanted));
                    }
                    "query" => {
                        let line = format!("POST /query?fixed=1&key={API_KEY} HTTP/1.1\r\n");
                        assert!(seen.head.starts_with(&line), "{}", seen.head);
                    }
                    _ => assert!(!seen.head.contains(API_KEY), "{}", seen.head),
                }
            }
        }
        let heard = text(&gateway.upstream.log().bytes);
        assert!(!heard.contains(super::table::TOKEN_START), "a token went upstream");
        let written = gateway.everything_written();
        assert_silent(&written, "what was written");
    }
}

/// Upstreams that cannot be used at all; the agent's request never leaves.
#[test]
fn upstreams_that_cannot_be_reached() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let private = Post::new(&gateway).to("private").bytes();
        let waiting = gateway.turn();
        until("the name is resolved", || gateway.ask(&private).reason() == "upstream_address");
        drop(waiting);
        let turn = gateway.turn();
        let mut wanted = Vec::new();
        for (server, status, reason) in [
            ("dead", 502, "upstream_connect"),
            ("private", 502, "upstream_address"),
            ("nowhere", 502, "upstream_connect"),
            ("tls", 502, "upstream_tls"),
        ] {
            let before = gateway.upstream.log().requests.len();
            let answer = gateway.ask(&Post::new(&gateway).to(server).bytes());
            assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{server}");
            assert_eq!(gateway.upstream.log().requests.len(), before, "{server}");
            wanted.push(reason);
        }
        let answer = gateway.ask(&Post::new(&gateway).to("impatient").script("hang").bytes());
        assert_eq!((answer.status, answer.reason().as_str()), (504, "upstream_timeout"));
        wanted.push("upstream_timeout");
        assert_eq!(turn.reasons(&gateway, wanted.len()), wanted);
    }
}

/// H30: an answer that comes before the request was sent to its end ("0.CL"): whoever reads the
/// rest as a request of its own must not get it on a connection that is used again.
#[test]
fn h30_an_early_answer_is_not_relayed() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let turn = gateway.turn();
        let call = super::table::tool_call("echo");
        let body = " ".repeat(4 * 1024 * 1024 - call.len()) + &call;
        let post = Post::new(&gateway).to("impatient").script("early").body(body);
        let mut client = Client::connect(gateway.address);
        client.send(&post.bytes(), Way::Whole);
        let answer = client.answer().unwrap();
        if answer.status == 200 {
            // The kernel's buffers took the whole body: towards us it was sent to its end.
            continue;
        }
        assert_eq!((answer.status, answer.reason().as_str()), (504, "upstream_timeout"));
        let early = gateway.upstream.last().connection;
        let next = Post::new(&gateway).to("impatient").bytes();
        client.send(&next, Way::Whole);
        assert_eq!(client.answer().unwrap().status, 200);
        assert_ne!(gateway.upstream.last().connection, early);
        assert_eq!(turn.reasons(&gateway, 2), ["upstream_timeout", "ok"]);
    }
}

/// A call is sent once, whatever happens to it: it may have acted.
#[test]
fn a_call_is_never_sent_twice() {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let _turn = gateway.turn();
        for script in ["close-silent", "close-in-head", "garbage"] {
            let mut client = Client::connect(gateway.address);
            // Warm: the next one finds a pooled connection.
            client.send(&Post::new(&gateway).bytes(), Way::Whole);
            client.answer().unwrap();
            let before = gateway.upstream.log().requests.len();
            client.send(&Post::new(&gateway).script(script).bytes(), Way::Whole);
            assert_eq!(client.answer().unwrap().status, 502);
            assert_eq!(gateway.upstream.log().requests.len(), before + 1, "{script}");
        }
    }
}
