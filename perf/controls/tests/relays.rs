//! The controls from outside, with the upstream and client of the ring's tests.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code"
)]

#[path = "../../ring/tests/support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;

use support::{Client, Relay, Upstream, pattern};

const PROGRAMS: &[&str] =
    &[env!("CARGO_BIN_EXE_hyper-relay"), env!("CARGO_BIN_EXE_monoio-http-relay")];

#[test]
fn bodies_of_every_size_pass_in_both_directions() {
    for program in PROGRAMS {
        let relay = Relay::start(program, &[]);
        let mut client = relay.connect();
        for (there, back) in
            [(300, 300), (16_384, 300), (300, 16_384), (1 << 20, 300), (300, 1 << 20)]
        {
            let body = pattern(there);
            for kind in ["fixed", "chunked"] {
                client.post(&format!("/{kind}/{back}"), &body);
                client.answer().unwrap().assert_relayed(&body, back);
            }
        }
        assert_eq!(relay.upstream.connections.load(Ordering::Relaxed), 1, "one is reused");
        relay.terminate();
    }
}

#[test]
fn many_connections_get_their_own_answers() {
    for program in PROGRAMS {
        let relay = Relay::start(program, &[]);
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
fn an_absent_upstream_is_told() {
    for program in PROGRAMS {
        let relay = Relay::start_before(program, &[], Upstream::absent());
        let mut client = relay.connect();
        client.post("/fixed/1", b"x");
        assert_eq!(client.answer().unwrap().status, 502);
    }
}
