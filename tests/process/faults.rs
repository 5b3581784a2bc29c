//! Panics injected into every stage: each costs one connection, leaves a record, and nobody waits
//! for ever.

use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, status};
use crate::gateway::{Gateway, Setup, Stage, one_cpu};
use crate::upstream::{EVENTS, Gate, Then, Upstream, chunk, json as answer, say};
use crate::wait::eventually;

const STAGES: [&str; 10] = [
    "head",
    "route",
    "identity",
    "envelope",
    "policy",
    "credential",
    "audit",
    "relay",
    "response",
    "answer",
];

#[test]
fn f13_a_panic_in_any_stage_costs_one_connection_and_nothing_else() {
    let (open, gate) = Gate::new();
    let upstream = Upstream::start(move |seen, peer| {
        if !seen.head.contains("mcp-name: stream") {
            return answer(peer, crate::upstream::RESULT);
        }
        say(peer, EVENTS);
        while gate.pass() {
            if let Then::Close = say(peer, &chunk("data: {}\n\n")) {
                break;
            }
        }
        Then::Close
    });
    // One core, so that the others are neighbours of the one that panics.
    let gateway = Setup::new(upstream.address).cores(&one_cpu()).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    // Neighbours: an idle connection, and one with an answer under way.
    let mut idle = client.open();
    idle.send(&client.call("echo"));
    assert_eq!(idle.answer().status, 200);
    let mut stream = client.open();
    stream.send(&client.call("stream"));
    assert_eq!(status(&stream.read_head()), 200);

    for (count, stage) in (1..).zip(STAGES) {
        let mut wire = client.open();
        // Only a refusal is written by the gateway itself.
        let path = if stage == "answer" { "/mcp/nobody" } else { "/mcp/sample" };
        wire.send(&faulty(&client, stage).path(path).call("echo"));
        if stage == "response" {
            let head = wire.read_head();
            assert_eq!(status(&head), 200);
            // The answer is so small that all of it was written before.
            wire.body(&head);
        }
        assert!(wire.ended(), "{stage}: the connection is closed without an answer");
        open.send(()).unwrap();
        assert_eq!(stream.chunk().unwrap(), b"data: {}\n\n", "{stage}: a neighbour goes on");
        idle.send(&client.call("echo"));
        assert_eq!(idle.answer().status, 200, "{stage}: a neighbour is served");
        let faults = r#"portcullis_refusals_total{reason="gateway_fault"}"#;
        eventually("the fault is counted", || gateway.metric(faults) >= f64::from(count));
        assert!(gateway.metric(faults) < f64::from(count) + 0.5, "{stage}: counted once");
    }
    drop(open);
    stream.body("transfer-encoding: chunked");
    drop((stream, idle));
    no_place_is_lost(&gateway);
    let said = gateway.said();
    assert!(!said.contains(&client.token), "K03: a panic's message holds no header");
    let stage = gateway.stop();
    every_stage_left_a_record(&stage);
}

fn every_stage_left_a_record(stage: &Stage) {
    let records = stage.audit();
    let faults: Vec<_> =
        records.iter().filter(|record| record["reason"] == "gateway_fault").collect();
    assert_eq!(faults.len(), STAGES.len(), "{faults:?}");
    assert!(faults.iter().all(|record| record["outcome"] == "done"), "{faults:?}");
    let numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    let wanted: Vec<u64> = (numbers[0]..).take(numbers.len()).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted, "no gap");
}

/// A panicked request gave back its place and its seat.
fn no_place_is_lost(gateway: &Gateway) {
    eventually("no request is in flight and no connection is open", || {
        let text = gateway.admin("/metrics").text();
        let zero = |name: &str| {
            let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
            assert!(!lines.is_empty(), "{name} is there");
            lines.iter().all(|line| line.ends_with(" 0"))
        };
        zero("portcullis_inflight{") && zero("portcullis_connections{")
    });
}

#[test]
fn f14_a_dead_worker_ends_the_process_within_a_second() {
    let upstream = Upstream::echo();
    for driver in ["auto", "epoll"] {
        let cores = format!("driver = \"{driver}\"");
        let mut gateway = Setup::new(upstream.address).cores(&cores).start();
        gateway.wait_until_ready();
        let client = faulty(&gateway.client(), "worker");
        let mut wire = client.open();
        let began = Instant::now();
        wire.send(&client.call("echo"));
        let status = gateway.wait();
        let took = began.elapsed();
        assert!(!status.success(), "{driver}: {status:?}");
        assert!(took < Duration::from_secs(1), "{driver}: {took:?}");
        assert!(gateway.said().contains("ending the process"), "{}", gateway.said());
    }
}

/// Without it nothing could be revoked any more; the service manager starts the next one.
#[test]
fn the_loss_of_the_policy_thread_ends_the_process_within_a_second() {
    let upstream = Upstream::echo();
    for driver in ["auto", "epoll"] {
        let cores = format!("driver = \"{driver}\"");
        let mut gateway = Setup::new(upstream.address).cores(&cores).start();
        gateway.wait_until_ready();
        let client = faulty(&gateway.client(), "compiler");
        assert_eq!(client.once(&client.call("echo")).status, 200, "nothing is lost yet");
        assert_eq!(gateway.admin("/livez").status, 200);
        let began = Instant::now();
        gateway.signal(rustix::process::Signal::HUP);
        let status = gateway.wait();
        let took = began.elapsed();
        assert_eq!(status.code(), Some(70), "{driver}: {}", gateway.said());
        assert!(took < Duration::from_secs(1), "{driver}: {took:?}");
        let words = "the policy thread is gone; ending the process";
        assert!(gateway.said().contains(words), "{}", gateway.said());
    }
}

/// The leader's fetch panics; everybody who joined it is answered, and the next fetch serves.
#[test]
fn f13_a_panic_in_the_fetch_of_keys_leaves_nobody_waiting() {
    let upstream = Upstream::echo();
    let keys = Keys::start();
    let mut setup = Setup::new(upstream.address).limits("keys_wait_ms_max = 20000");
    setup.keys = format!("jwks_url = \"{}\"\ntrust_private_addresses = true", keys.url());
    let stage = setup.prepare();
    keys.serve(&stage.read("jwks.json"));
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let stranger = Setup::new(upstream.address).prepare().token("alice", 600);
    let before = Instant::now();
    let barrier = Arc::new(Barrier::new(8));
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            // Each of them, because any may be the one that leads.
            let client = faulty(&Client::new(gateway.address, &stranger), "keys");
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                client.once(&client.call("echo"))
            })
        })
        .collect();
    for thread in waiting {
        let answer = thread.join().unwrap();
        assert!([401, 503].contains(&answer.status), "{answer:?}");
    }
    assert!(before.elapsed() < Duration::from_secs(15), "answered, not timed out");
    eventually("the fault struck", || gateway.said().contains("injected fault: Keys"));
    // Whoever has a good token is served all the while.
    let client = gateway.client();
    assert_eq!(client.once(&client.call("echo")).status, 200);
    assert_eq!(gateway.admin("/livez").status, 200);
}

/// A key server that answers one document.
struct Keys {
    listener: TcpListener,
}

impl Keys {
    fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}/jwks", self.listener.local_addr().unwrap())
    }

    fn serve(&self, document: &str) {
        let (listener, document) = (self.listener.try_clone().unwrap(), document.to_owned());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut wire = crate::client::Wire::new(stream);
                if wire.try_head().is_some() {
                    wire.send(&format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                         content-length: {}\r\nconnection: close\r\n\r\n{document}",
                        document.len()
                    ));
                }
            }
        });
    }
}

fn faulty(client: &Client, stage: &str) -> Client {
    client.extra(&format!("x-portcullis-fault: {stage}\r\n"))
}
