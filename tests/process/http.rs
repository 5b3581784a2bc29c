//! Whatever speaks HTTP, though it is no MCP client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::status;
use crate::gateway::Setup;
use crate::upstream::{EVENTS, RESULT, Then, Upstream, chunk, say};

#[test]
fn an_http_1_0_client_gets_no_chunks_and_no_second_answer() {
    let upstream = Upstream::start(|_, peer| {
        say(peer, &format!("{EVENTS}{}{}0\r\n\r\n", chunk("data: 1\n\n"), chunk("data: 2\n\n")))
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    wire.send(&client.call("echo").replacen("HTTP/1.1", "HTTP/1.0", 1));
    let answer = wire.answer();
    assert!(answer.header("transfer-encoding").is_none(), "{}", answer.head);
    assert_eq!(answer.text(), "data: 1\n\ndata: 2\n\n");
    assert!(wire.ended());
}

/// Where the end of the connection is the end of the answer, a cut answer must not end like a whole
/// one (RFC 9112 §8, incomplete messages).
#[test]
fn a_cut_answer_to_an_http_1_0_client_ends_with_a_reset() {
    let upstream = Upstream::start(|_, peer| {
        say(peer, &format!("{EVENTS}{}", chunk("data: 1\n\n")));
        Then::Close
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut stream = TcpStream::connect(client.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = client.call("echo").replacen("HTTP/1.1", "HTTP/1.0", 1);
    stream.write_all(request.as_bytes()).unwrap();
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn other_methods_are_405_and_head_gets_no_body() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    for method in ["HEAD", "PUT", "PATCH", "TRACE", "OPTIONS"] {
        let mut wire = client.open();
        wire.send(&format!("{}\r\n", client.head(method)));
        let head = wire.read_head();
        assert_eq!(status(&head), 405, "{method}: {head}");
        if method == "HEAD" {
            // RFC 9110 §9.3.2: whatever follows the head would be read as the next answer.
            wire.send(&client.call("echo"));
            let next = wire.read_head();
            assert!(next.starts_with("HTTP/1.1 200 "), "{next}");
        }
    }
    let mut wire = client.open();
    wire.send("CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n");
    let answer = wire.answer();
    assert!((400..=421).contains(&answer.status), "{}", answer.head);
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let request = client.extra("expect: 100-continue\r\n").call("echo");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut wire = client.open();
    wire.send(&format!("{head}\r\n\r\n"));
    assert_eq!(status(&wire.read_head()), 100);
    assert_eq!(upstream.connections(), 0);
    wire.send(body);
    assert_eq!(wire.answer().text(), RESULT);
    assert!(!upstream.seen()[0].head.to_lowercase().contains("expect"));

    // Refused before: no 100, and the connection ends, for what comes next is ambiguous.
    let mut wire = client.open();
    let stranger = crate::client::Client { token: "no".to_owned(), ..client.clone() };
    let request = stranger.extra("expect: 100-continue\r\n").call("echo");
    wire.send(&format!("{}\r\n\r\n", request.split_once("\r\n\r\n").unwrap().0));
    assert_eq!(wire.answer().status, 401);
    assert!(wire.ended());

    let other = client.extra("expect: something\r\n");
    assert_eq!(other.once(&other.call("echo")).status, 417);
}

#[test]
fn v01_v02_who_is_slow_with_a_head_or_a_body_is_cut() {
    let upstream = Upstream::echo();
    let limits = "head_ms_max = 300\nstall_ms_max = 300\nidle_ms_max = 300";
    let gateway = Setup::new(upstream.address).limits(limits).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let request = client.call("echo");
    let mut head = client.open();
    head.send(&request[..40]);
    let mut body = client.open();
    body.send(&request[..request.len() - 5]);
    let mut idle = client.open();
    let late = head.answer();
    assert_eq!(late.status, 408, "{}", late.head);
    assert!(head.ended());
    let late = body.answer();
    assert_eq!(late.status, 408, "{}", late.head);
    assert!(body.ended());
    assert!(idle.ended(), "an idle connection is closed without a word");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn v07_above_the_caps_there_is_503_with_retry_after() {
    let upstream = Upstream::start(|_, peer| {
        let _ = peer.read(&mut [0]);
        Then::Close
    });
    let limits = "connections_per_core_max = 2\ninflight_per_core_max = 1";
    let gateway = Setup::new(upstream.address).limits(limits).cores("cpus = \"0\"").start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut first = client.open();
    first.send(&client.call("echo"));
    upstream.wait_for_requests(1);
    let mut second = client.open();
    second.send(&client.call("echo"));
    let full = second.answer();
    assert_eq!((full.status, full.reason().as_str()), (503, "overloaded"));
    assert!(full.header("retry-after").is_some());
    let _second = client.open();
    let mut third = client.open();
    third.send(&client.call("echo"));
    let full = third.answer();
    assert_eq!((full.status, full.reason().as_str()), (503, "overloaded"));
    assert!(third.ended());
    assert_eq!(upstream.requests(), 1);
}
