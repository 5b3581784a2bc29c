//! Both relays, every switch, from outside.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code"
)]

mod support;

use std::sync::atomic::Ordering;

use support::{Client, Relay, Upstream, pattern, request, write_chunks};

const RING: &str = env!("CARGO_BIN_EXE_ring-relay");
const MONOIO: &str = env!("CARGO_BIN_EXE_monoio-relay");

/// Every switch at least once, and those together that touch each other.
const VARIANTS: &[(&str, &str)] = &[
    (MONOIO, "--flags coop"),
    (MONOIO, "--flags none"),
    (MONOIO, "--flags epoll"),
    (RING, "--flags none"),
    (RING, "--flags coop --try-first off --ring-fd registered"),
    (RING, "--flags defer --files registered"),
    (RING, "--recv provided --send vectored"),
    (RING, "--recv multishot --accept multishot"),
    (RING, "--recv multishot --accept multishot --send vectored --files registered"),
    (RING, "--recv multishot --send linked --flags defer --ring-fd registered"),
    // So few buffers that they run out all the time.
    (RING, "--recv multishot --send vectored --buffers 4x4096"),
    (RING, "--recv provided --files registered --buffers 2x4096"),
];

fn variants() -> impl Iterator<Item = Relay> {
    VARIANTS.iter().map(|(program, switches)| {
        println!("{program} {switches}");
        Relay::start(program, &switches.split(' ').collect::<Vec<_>>())
    })
}

#[test]
fn bodies_of_every_size_pass_in_both_directions() {
    for relay in variants() {
        let mut client = relay.connect();
        for (there, back) in [
            (300, 300),
            (16_384, 300),
            (300, 16_384),
            (16_384, 16_384),
            (1 << 20, 300),
            (300, 1 << 20),
            (1 << 20, 1 << 20),
            (0, 0),
        ] {
            let body = pattern(there);
            for kind in ["fixed", "chunked"] {
                client.post(&format!("/{kind}/{back}"), &body);
                client.answer().unwrap().assert_relayed(&body, back);
            }
        }
        assert_eq!(relay.upstream.connections.load(Ordering::Relaxed), 1, "one is reused");
    }
}

#[test]
fn many_connections_get_their_own_answers() {
    for relay in variants() {
        let mut clients: Vec<Client> = (0..100).map(|_| relay.connect()).collect();
        for round in 0..3 {
            let length = |number: usize| 200 + round + 37 * number;
            for (number, client) in clients.iter_mut().enumerate() {
                let back = length(number) + 1;
                client.post(&format!("/fixed/{back}"), &pattern(length(number)));
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let there = pattern(length(number));
                client.answer().unwrap().assert_relayed(&there, length(number) + 1);
            }
        }
        assert!(relay.upstream.connections.load(Ordering::Relaxed) <= 100);
    }
}

#[test]
fn chunked_and_dripped_and_pipelined_requests_pass() {
    for relay in variants() {
        let mut client = relay.connect();
        let body = pattern(20_000);
        client.send(b"POST /fixed/9 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut chunks = Vec::new();
        write_chunks(&mut chunks, &body).unwrap();
        for piece in chunks.chunks(1111) {
            client.send(piece);
        }
        client.answer().unwrap().assert_relayed(&body, 9);

        for byte in request("/fixed/10", b"dripped") {
            client.send(&[byte]);
        }
        client.answer().unwrap().assert_relayed(b"dripped", 10);

        let three: Vec<u8> = ["a", "bb", "ccc"]
            .iter()
            .flat_map(|body| request(&format!("/fixed/{}", 40 * body.len()), body.as_bytes()))
            .collect();
        client.send(&three);
        for body in ["a", "bb", "ccc"] {
            client.answer().unwrap().assert_relayed(body.as_bytes(), 40 * body.len());
        }
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_ends_ours() {
    for relay in variants() {
        let mut client = relay.connect();
        client.post("/close/70000", b"x");
        client.answer().unwrap().assert_relayed(b"x", 70_000);
        assert!(client.answer().is_none());
        let mut client = relay.connect();
        client.post("/fixed/5", b"x");
        client.answer().unwrap().assert_relayed(b"x", 5);
    }
}

#[test]
fn faults_are_answered_and_end_the_connection() {
    for relay in variants() {
        for (bytes, status) in [
            (&b"nonsense\r\n\r\n"[..], 400),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", 501),
            (&[b"POST / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 17_000]].concat(), 431),
        ] {
            let mut client = relay.connect();
            client.send(bytes);
            assert_eq!(client.answer().unwrap().status, status);
            assert!(client.answer().is_none());
        }
        let mut client = relay.connect();
        client.send(b"POST /fixed/3 HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
        client.answer().unwrap().assert_relayed(b"x", 3);
        assert!(client.answer().is_none());
    }
}

#[test]
fn an_absent_upstream_is_told() {
    for (program, switches) in VARIANTS {
        let switches: Vec<&str> = switches.split(' ').collect();
        let relay = Relay::start_before(program, &switches, Upstream::absent());
        let mut client = relay.connect();
        client.post("/fixed/1", b"x");
        assert_eq!(client.answer().unwrap().status, 502);
    }
}

#[test]
fn those_that_do_not_read_do_not_hold_up_others() {
    for relay in variants() {
        let mut slow: Vec<Client> = (0..12).map(|_| relay.connect()).collect();
        for client in &mut slow {
            client.post("/fixed/8000000", b"slow");
        }
        let mut quick = relay.connect();
        for _ in 0..50 {
            quick.post("/fixed/300", b"quick");
            quick.answer().unwrap().assert_relayed(b"quick", 300);
        }
        for client in &mut slow {
            client.answer().unwrap().assert_relayed(b"slow", 8_000_000);
        }
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    for relay in variants() {
        for round in 0..40 {
            let mut client = relay.connect();
            if round % 2 == 0 {
                client.post("/fixed/3000000", b"x");
            } else {
                client.send(b"POST /fixed/300 HTTP/1.1\r\nContent-Length: 99\r\n\r\nhalf");
            }
        }
        let mut client = relay.connect();
        client.post("/fixed/300", b"x");
        client.answer().unwrap().assert_relayed(b"x", 300);
        relay.terminate();
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let allowed = path.ends_with("raw.rs");
            assert_eq!(text.contains("allow(unsafe_code"), allowed, "{}", path.display());
        }
    }
}
