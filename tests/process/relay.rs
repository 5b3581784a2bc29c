//! One request and its answer on their way through: connections, framing, deadlines, faults.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{get, status};
use crate::gateway::{Setup, server};
use crate::upstream::{self, EVENTS, Gate, RESULT, Then, Upstream, chunk, json as answer, say};
use crate::wait::eventually;

#[test]
fn many_requests_on_one_connection_use_one_upstream_connection() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    for _ in 0..50 {
        wire.send(&client.call("echo"));
        assert_eq!(wire.answer().status, 200);
    }
    assert_eq!((upstream.requests(), upstream.connections()), (50, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|seen, peer| {
        answer(peer, &format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}}}"#, seen.number))
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    let stranger = crate::client::Client { token: "no".to_owned(), ..client.clone() };
    let one = client.call("echo");
    wire.send(&format!("{one}{one}{}{one}", stranger.call("echo")));
    assert_eq!(wire.answer().json()["result"], 1);
    assert_eq!(wire.answer().json()["result"], 2);
    assert_eq!(wire.answer().status, 401);
    assert_eq!(wire.answer().json()["result"], 3);
}

/// Bodies of 16 KiB each way: a stall of 40 ms (Nagle against delayed acknowledgements) in each
/// round trip would take eight seconds.
#[test]
fn bodies_of_16_kib_do_not_stall() {
    let big = "x".repeat(16 * 1024);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"text":"{big}"}}}}"#);
    for (chunked, upstream) in [
        (false, {
            let body = body.clone();
            Upstream::start(move |_, peer| answer(peer, &body))
        }),
        (true, {
            let body = body.clone();
            Upstream::start(move |_, peer| {
                say(peer, CHUNKED_JSON);
                let (first, rest) = body.split_at(10);
                say(peer, &chunk(first));
                say(peer, &chunk(rest));
                say(peer, "0\r\n\r\n")
            })
        }),
    ] {
        let gateway = Setup::new(upstream.address).start();
        gateway.wait_until_ready();
        let client = gateway.client();
        let call = client.modern("tools/call", &json!({"name": "echo", "arguments": {"a": big}}));
        let mut wire = client.open();
        let began = Instant::now();
        for _ in 0..200 {
            wire.send(&call);
            assert_eq!(wire.answer().text(), body);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(6), "chunked {chunked}: {took:?} for 200 round trips");
        assert!(upstream.seen()[199].body.len() > 16 * 1024);
    }
}

#[test]
fn requests_and_answers_are_framed_anew_both_ways() {
    let upstream = Upstream::start(|seen, peer| match seen.number {
        1 => answer(peer, RESULT),
        2 => {
            say(peer, CHUNKED_JSON);
            for piece in RESULT.as_bytes().chunks(7) {
                say(peer, &chunk(str::from_utf8(piece).unwrap()));
            }
            say(peer, "0\r\n\r\n")
        }
        _ => {
            say(peer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n");
            say(peer, RESULT);
            Then::Close
        }
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let length = client.call("echo");
    let (head, body) = length.split_once("\r\n\r\n").unwrap();
    let mut chunked = String::new();
    let field = format!("content-length: {}", body.len());
    let _ = write!(chunked, "{}\r\n\r\n", head.replace(&field, "transfer-encoding: chunked"));
    for piece in body.as_bytes().chunks(11) {
        chunked.push_str(&chunk(str::from_utf8(piece).unwrap()));
    }
    chunked.push_str("0\r\n\r\n");
    let mut wire = client.open();
    for request in [&length, &chunked, &chunked] {
        wire.send(request);
        assert_eq!(wire.answer().text(), RESULT);
    }
    for seen in upstream.seen() {
        assert_eq!(String::from_utf8(seen.body).unwrap(), body, "the agent's bytes, unchanged");
        assert!(!seen.head.to_lowercase().contains("transfer-encoding"), "{}", seen.head);
    }
}

/// Each request finds in the pool a connection that the upstream closed before.
#[test]
fn a_pooled_connection_that_the_upstream_closed_costs_no_call() {
    for driver in ["auto", "epoll"] {
        let (close, gate) = Gate::new();
        let upstream = Upstream::start(move |_, peer| {
            answer(peer, RESULT);
            gate.pass();
            Then::Close
        });
        let setup = Setup::new(upstream.address).cores(&format!("driver = \"{driver}\""));
        let gateway = setup.start();
        gateway.wait_until_ready();
        let client = gateway.client();
        let mut wire = client.open();
        for round in 1..=20 {
            wire.send(&client.call("echo"));
            assert_eq!(wire.answer().status, 200, "round {round}");
            close.send(()).unwrap();
            eventually("the upstream closed", || upstream.left() == round);
            eventually("the kernel has the FIN", || upstream_sockets_in_close_wait(&upstream) >= 1);
            assert_eq!(upstream.connections(), round);
        }
        assert_eq!(upstream.requests(), 20, "none was sent twice");
    }
}

/// A connection that dies as the request arrives: lists are sent again, calls are not.
#[test]
fn only_what_is_safe_is_sent_again_and_once() {
    let upstream = Upstream::start(|seen, peer| {
        // Every second request on a connection meets its end, before a byte of an answer.
        if seen.number % 2 == 1 { answer(peer, RESULT) } else { Then::Close }
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    let mut ask = |request: &str| {
        wire.send(request);
        wire.answer()
    };
    assert_eq!(ask(&client.list()).status, 200);
    assert_eq!(upstream.requests(), 1);
    assert_eq!(ask(&client.list()).status, 200, "sent again on a new connection");
    assert_eq!(upstream.requests(), 3);
    let failed = ask(&client.call("echo"));
    assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_eof"));
    assert_eq!(upstream.requests(), 4, "a call is never sent again");
}

/// The second attempt dies, too: there is no third.
#[test]
fn a_list_is_sent_again_only_once() {
    let upstream =
        Upstream::start(
            |seen, peer| {
                if seen.number == 1 { answer(peer, RESULT) } else { Then::Close }
            },
        );
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    for wanted in [200, 502] {
        wire.send(&client.list());
        assert_eq!(wire.answer().status, wanted);
    }
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn f07_an_upstream_that_dies_in_the_head_is_502_and_in_the_body_cuts_the_connection() {
    let upstream = Upstream::start(|seen, peer| {
        match seen.number {
            1 => say(peer, "HTTP/1.1 200 OK\r\ncontent-ty"),
            2 => say(peer, &format!("{CHUNKED_JSON}{}", chunk("{\"jsonrpc\""))),
            3 => say(peer, &format!("{EVENTS}{}", chunk("data: 1\n\n"))),
            _ => say(
                peer,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
            ),
        };
        Then::Close
    });
    let gateway = Setup::new(upstream.address).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let failed = client.once(&client.call("echo"));
    assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_eof"));
    for round in 2..=4 {
        let mut wire = client.open();
        wire.send(&client.call("echo"));
        let head = wire.read_head();
        assert_eq!(status(&head), 200);
        assert!(wire.body(&head).is_none(), "{round}: no clean end");
    }
    let records = gateway.audited(4);
    assert!(records.iter().all(|record| record["reason"] == "upstream_eof"), "{records:?}");
}

#[test]
fn an_upstream_that_is_late_is_504_before_its_head_and_cut_after_it() {
    let upstream = Upstream::start(|seen, peer| {
        if seen.number == 2 {
            say(peer, &format!("{EVENTS}{}", chunk("data: 1\n\n")));
        }
        let _ = peer.read(&mut [0]);
        Then::Close
    });
    let url = format!("http://{}/mcp", upstream.address);
    let slow = server("sample", &url, "timeout_seconds = 1\nidle_seconds = 1");
    let gateway = Setup::with_tables(&slow).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let late = client.once(&client.call("echo"));
    assert_eq!((late.status, late.reason().as_str()), (504, "upstream_timeout"));
    eventually("the upstream is let go", || upstream.left() == 1);
    let mut wire = client.open();
    wire.send(&client.call("echo"));
    let head = wire.read_head();
    assert_eq!(wire.chunk().unwrap(), b"data: 1\n\n");
    assert!(wire.body(&head).is_none(), "cut after idle_seconds");
    let records = gateway.audited(2);
    assert!(records.iter().all(|record| record["reason"] == "upstream_timeout"), "{records:?}");
}

#[test]
fn an_answer_that_never_ends_is_cut_after_max_seconds() {
    let upstream = Upstream::start(|_, peer| {
        say(peer, EVENTS);
        while let Then::Keep = say(peer, &chunk("data: 1\n\n")) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Then::Close
    });
    let url = format!("http://{}/mcp", upstream.address);
    let gateway = Setup::with_tables(&server("sample", &url, "max_seconds = 1")).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let mut wire = client.open();
    wire.send(&client.call("echo"));
    let head = wire.read_head();
    assert!(wire.body(&head).is_none());
    eventually("the upstream is let go", || upstream.left() == 1);
}

#[test]
fn what_an_upstream_may_not_answer_is_502_with_its_own_word() {
    let cases = [
        ("302 Found", "location: http://127.0.0.1:1/\r\n", "upstream_redirect"),
        ("403 Forbidden", "", "upstream_forbidden"),
        ("401 Unauthorized", "www-authenticate: Bearer realm=up\r\n", "upstream_auth"),
    ];
    for (line, fields, word) in cases {
        let upstream = Upstream::start(move |_, peer| upstream::status(peer, line, fields));
        let gateway = Setup::new(upstream.address).start();
        gateway.wait_until_ready();
        let client = gateway.client();
        let failed = client.once(&client.call("echo"));
        assert_eq!((failed.status, failed.reason().as_str()), (502, word));
        assert!(failed.header("www-authenticate").is_none(), "{}", failed.head);
        assert_eq!(upstream.requests(), 1, "{word}: without a credential nothing is tried again");
    }
}

#[test]
fn o07_a_private_address_is_refused_without_a_connection_unless_it_is_trusted() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let table = |host: &str| {
        let url = format!("https://{host}:{}/mcp", address.port());
        Setup::with_tables(&format!("[[server]]\nname = \"sample\"\nurl = \"{url}\"\n"))
    };
    let (code, words) = table("127.0.0.1").refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("server.url: a loopback or private address"), "{words}");
    // A name is known to be private only when it is resolved. This machine's own name is, or it has
    // no network.
    let name = rustix::system::uname().nodename().to_str().unwrap().to_lowercase();
    let gateway = table(&name).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    eventually("its address is known and refused", || {
        let failed = client.once(&client.call("echo"));
        assert_eq!(failed.status, 502, "{failed:?}");
        failed.reason() == "upstream_address"
    });
    let failed = client.once(&client.list());
    assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_address"));
    assert!(listener.accept().is_err(), "no connection was made");
}

#[test]
fn an_upstream_that_nobody_listens_on_is_502() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Setup::new(free).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    let failed = client.once(&client.call("echo"));
    assert_eq!((failed.status, failed.reason().as_str()), (502, "upstream_connect"));
    // What failed after the decision does not change it: metrics and audit say the same.
    let permitted = "portcullis_requests_total{server=\"sample\",method=\"tools/call\",\
                     decision=\"permit\",status=\"502\"}";
    eventually("it is counted as permitted", || gateway.metric(permitted) > 0.5);
    let refused = "portcullis_refusals_total{reason=\"upstream_connect\"}";
    assert!(gateway.metric(refused) > 0.5);
    assert_eq!(gateway.audited(1)[0]["decision"], "permit");
    assert_eq!(get(gateway.admin, "/livez").status, 200);
}

/// A legacy POST goes on without its client, a modern one is cancelled with it.
#[test]
fn a_client_that_leaves_cancels_a_modern_request_and_no_legacy_one() {
    for modern in [true, false] {
        let finished = std::sync::Arc::new(AtomicUsize::new(0));
        let (open, gate) = Gate::new();
        let done = std::sync::Arc::clone(&finished);
        let upstream = Upstream::start(move |_, peer| {
            say(peer, &format!("{EVENTS}{}", chunk("data: 1\n\n")));
            if modern {
                // The end of the connection is what says "cancelled".
                let _ = peer.read(&mut [0]);
                return Then::Close;
            }
            gate.pass();
            let last = format!("{}0\r\n\r\n", chunk("data: 2\n\n"));
            if peer.write_all(last.as_bytes()).is_ok() {
                done.fetch_add(1, Ordering::SeqCst);
            }
            Then::Keep
        });
        let gateway = Setup::new(upstream.address).start();
        gateway.wait_until_ready();
        let client = gateway.client();
        let mut wire = client.open();
        wire.send(&if modern { client.call("echo") } else { client.legacy_call("echo") });
        wire.read_head();
        assert_eq!(wire.chunk().unwrap(), b"data: 1\n\n");
        drop(wire);
        if modern {
            eventually("the upstream is let go", || upstream.left() == 1);
        } else {
            open.send(()).unwrap();
            eventually("the upstream finished", || finished.load(Ordering::SeqCst) == 1);
            assert_eq!(upstream.left(), 0, "its connection stays");
        }
        let record = &gateway.audited(1)[0];
        assert_eq!(record["outcome"], "done", "{record}");
    }
}

/// Ends of connections to `upstream` whose other end was closed (CLOSE_WAIT, 08 in proc_net(5)).
fn upstream_sockets_in_close_wait(upstream: &Upstream) -> usize {
    let port = format!(":{:04X}", upstream.address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[2].ends_with(&port) && fields[3] == "08").count()
}

const CHUNKED_JSON: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
