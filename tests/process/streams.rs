//! Event streams: event by event, back-pressure, slow readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::status;
use crate::gateway::{Gateway, Setup};
use crate::upstream::{EVENTS, Gate, Then, Upstream, chunk, say};
use crate::wait::eventually;

const DRIVERS: [&str; 2] = ["auto", "epoll"];

fn start(upstream: &Upstream, driver: &str, limits: &str) -> Gateway {
    let cores = format!("driver = \"{driver}\"");
    let gateway = Setup::new(upstream.address).cores(&cores).limits(limits).start();
    gateway.wait_until_ready();
    gateway
}

/// The server sends the next event only after the agent has the last one: any buffering is a
/// deadlock.
#[test]
fn each_event_arrives_before_the_next_is_sent() {
    for driver in DRIVERS {
        let (next, gate) = Gate::new();
        let upstream = Upstream::start(move |_, peer| {
            say(peer, EVENTS);
            for number in 0.. {
                if !gate.pass() {
                    break;
                }
                if number == 50 {
                    return say(peer, "0\r\n\r\n");
                }
                // In two pieces, cut within the event.
                say(peer, &chunk(&format!("id: {number}\nda")));
                say(peer, &chunk("ta: {}\n\n"));
            }
            Then::Close
        });
        let gateway = start(&upstream, driver, "");
        let client = gateway.client();
        let mut wire = client.open();
        wire.send(&client.call("watch"));
        let head = wire.read_head();
        assert_eq!(status(&head), 200);
        assert!(head.contains("text/event-stream"), "{head}");
        let mut text = String::new();
        for number in 0..50 {
            next.send(()).unwrap();
            while !text.ends_with("\n\n") || text.is_empty() {
                text.push_str(str::from_utf8(&wire.chunk().unwrap()).unwrap());
            }
            assert_eq!(text, format!("id: {number}\ndata: {{}}\n\n"));
            text.clear();
        }
        next.send(()).unwrap();
        assert_eq!(wire.chunk().unwrap(), b"", "a clean end");
        wire.send(&client.head("GET").replace("/mcp/sample", "/nowhere"));
        wire.send("\r\n");
        assert_eq!(wire.answer().status, 404, "the connection carries another request");
    }
}

/// An upstream that offers 200 MB to an agent that does not read: its writes block, the gateway
/// stays small, and the agent that begins to read gets every byte in order.
#[test]
fn v05_back_pressure_reaches_the_upstream_and_memory_stays_bounded() {
    for driver in DRIVERS {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let upstream = Upstream::start(move |_, peer| {
            say(peer, EVENTS);
            let event = chunk(&format!("data: {}\n\n", "x".repeat(EVENT_BYTES - 8)));
            for _ in 0..EVENTS_OFFERED {
                if peer.write_all(event.as_bytes()).is_err() {
                    return Then::Close;
                }
                counter.fetch_add(EVENT_BYTES, Ordering::SeqCst);
            }
            say(peer, "0\r\n\r\n")
        });
        let gateway = start(&upstream, driver, "stall_ms_max = 30000");
        let before = resident_kib(&gateway);
        let client = gateway.client();
        let mut wire = client.open();
        wire.send(&client.call("flood"));
        let head = wire.read_head();
        stands_still(&sent);
        let stuck = sent.load(Ordering::SeqCst);
        assert!(stuck < EVENT_BYTES * EVENTS_OFFERED / 2, "{stuck} bytes were taken");
        let grown = resident_kib(&gateway).saturating_sub(before);
        assert!(grown < 8 * 1024, "{driver}: {grown} KiB for one slow reader");
        let mut total = 0;
        while let Some(data) = wire.chunk().filter(|data| !data.is_empty()) {
            total += data.len();
        }
        assert_eq!(total, EVENT_BYTES * EVENTS_OFFERED, "{head}");
        let grown = resident_kib(&gateway).saturating_sub(before);
        assert!(grown < 16 * 1024, "{driver}: {grown} KiB after 200 MB");
    }
}

#[test]
fn v06_an_agent_that_does_not_read_is_cut_after_the_stall_limit() {
    for driver in DRIVERS {
        let upstream = Upstream::start(|_, peer| {
            say(peer, EVENTS);
            let event = chunk(&format!("data: {}\n\n", "x".repeat(60_000)));
            while let Then::Keep = say(peer, &event) {}
            Then::Close
        });
        let gateway = start(&upstream, driver, "stall_ms_max = 300");
        let client = gateway.client();
        let mut wire = client.open();
        wire.send(&client.call("flood"));
        let head = wire.read_head();
        eventually("the upstream is let go", || upstream.left() == 1);
        let record = &gateway.audited(1)[0];
        assert_eq!(record["reason"], "request_aborted", "{record}");
        assert!(wire.body(&head).is_none(), "what was buffered, then the cut");
        eventually("its place is free", || {
            let text = gateway.admin("/metrics").text();
            text.lines()
                .filter(|line| line.starts_with("portcullis_inflight{"))
                .all(|line| line.ends_with(" 0"))
        });
    }
}

#[test]
fn f07_an_upstream_killed_within_an_event_cuts_the_stream() {
    let upstream = Upstream::start(|_, peer| {
        say(peer, EVENTS);
        say(peer, &chunk("data: 1\n\n"));
        say(peer, &chunk("data: half"));
        Then::Close
    });
    let gateway = start(&upstream, "auto", "");
    let client = gateway.client();
    let mut wire = client.open();
    wire.send(&client.call("watch"));
    let head = wire.read_head();
    assert!(wire.body(&head).is_none(), "no clean end");
    let record = &gateway.audited(1)[0];
    assert_eq!(record["reason"], "upstream_eof", "{record}");
}

/// Waits until the counter has not moved for a while.
fn stands_still(counter: &AtomicUsize) {
    let (mut last, mut still) = (usize::MAX, 0);
    eventually("the upstream's writes block", || {
        let now = counter.load(Ordering::SeqCst);
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
        still >= 60
    });
}

/// F06: a withdrawn key takes the streams with it that its tokens opened; a key that joins does not.
#[test]
fn f06_a_stream_ends_with_the_key_of_its_token() {
    let (next, gate) = Gate::new();
    let upstream = Upstream::start(move |_, peer| {
        say(peer, EVENTS);
        while gate.pass() {
            if let Then::Close = say(peer, &chunk("data: {}\n\n")) {
                break;
            }
        }
        Then::Close
    });
    let gateway = start(&upstream, "auto", "");
    let client = gateway.client();
    let mut stream = client.open();
    stream.send(&format!("{}\r\n", client.head("GET")));
    let head = stream.read_head();
    assert_eq!(status(&head), 200);
    let other = Setup::new(upstream.address).prepare();
    let key_of = |text: &str| -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(text).unwrap()["keys"][0].clone()
    };
    let (mine, theirs) =
        (key_of(&gateway.stage().read("jwks.json")), key_of(&other.read("jwks.json")));
    let refreshed = || gateway.metric("portcullis_bus_notices_total{kind=\"published\"}");
    let publish = |keys: &[&serde_json::Value]| {
        let before = refreshed();
        gateway.stage().write("jwks.json", &serde_json::json!({ "keys": keys }).to_string());
        eventually("the keys are read", || refreshed() > before);
    };
    publish(&[&theirs, &mine]);
    next.send(()).unwrap();
    assert_eq!(stream.chunk().unwrap(), b"data: {}\n\n", "its key is still there");
    publish(&[&theirs]);
    assert!(stream.body(&head).is_none(), "cut");
    drop(next);
    let record = &gateway.audited(1)[0];
    assert_eq!(record["reason"], "token_key_unknown", "{record}");
}

fn resident_kib(gateway: &Gateway) -> u64 {
    let status = gateway.proc_file("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const EVENT_BYTES: usize = 50_000;
const EVENTS_OFFERED: usize = 4_000;
