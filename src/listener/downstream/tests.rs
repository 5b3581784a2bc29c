use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::*;
use crate::net::listen::Acceptor;
use crate::net::tests::tls::{NAME, Paper, thread_client};
use crate::net::tests::{loopback, on_every_driver, pair, soon};
use crate::net::{Either, accept_tls, first};

const REQUEST: &[u8] = b"GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nAuthorization: Bearer t\r\n\r\n";

fn limits(head_ms_max: u64) -> Limits {
    Limits { head_ms_max, ..Limits::default() }
}

/// An agent's end, and ours.
async fn connection(timers: &Timers) -> (Stream, Downstream) {
    let (near, far) = pair(timers).await;
    (near, Downstream::new(far))
}

async fn say(stream: &mut Stream, bytes: &[u8]) {
    let until = soon(stream.timers());
    stream.write_all(bytes.to_vec(), until).await.0.unwrap();
}

/// A TLS agent that sends its request as one record in two pieces, the second when told.
async fn halves(
    timers: &Timers,
    paper: &Paper,
    first_bytes: usize,
) -> (Downstream, Sender<()>, JoinHandle<()>) {
    let (listener, address) = loopback();
    let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
    let (go, go_on): (_, Receiver<()>) = channel();
    let config = paper.client_config(&rustls::version::TLS13);
    let agent = thread_client(config, address, move |mut tls, mut tcp| {
        while tls.wants_write() {
            tls.write_tls(&mut tcp).unwrap();
        }
        tls.writer().write_all(REQUEST).unwrap();
        let mut wire = Vec::new();
        tls.write_tls(&mut wire).unwrap();
        let (head, tail) = wire.split_at(first_bytes);
        tcp.write_all(head).unwrap();
        go_on.recv().unwrap();
        // The gateway may have given up by now.
        let _ = tcp.write_all(tail);
        let _ = go_on.recv();
    });
    let stream = acceptor.accept().await.unwrap();
    let stream = accept_tls(stream, &paper.server(NAME), soon(timers)).await.unwrap();
    (Downstream::new(stream), go, agent)
}

/// Waits as the gateway does, until there is something to read a head from.
async fn until_ready(downstream: &mut Downstream, timers: &Timers, inputs: &Inputs) {
    let limits = limits(10_000);
    loop {
        match downstream.wakes(timers, &limits, inputs).await {
            Wake::Ready => return,
            Wake::Silent => {
                assert_eq!(downstream.input.capacity(), 0, "silence holds nothing");
                assert!(downstream.waits(timers, Duration::from_secs(20)).await);
            }
            Wake::Gone => panic!("gone"),
        }
    }
}

#[test]
fn a_connection_without_a_place_is_served() {
    on_every_driver(|timers| async move {
        let inputs = Inputs::new(1);
        let (mut near, mut placed) = connection(&timers).await;
        placed.busy = true;
        let (mut other, mut unplaced) = connection(&timers).await;
        let soon = limits(10_000);
        for _ in 0..3 {
            // One waits in its place while the other is served.
            let waiting = placed.wakes(&timers, &soon, &inputs);
            let serving = async {
                let silent = unplaced.wakes(&timers, &soon, &inputs).await;
                assert!(matches!(silent, Wake::Silent));
                say(&mut other, REQUEST).await;
                until_ready(&mut unplaced, &timers, &inputs).await;
                let next = unplaced.next_head(&timers, &soon, &inputs).await;
                assert!(matches!(next, Ok(Next::Request)));
                assert_eq!(unplaced.head().1, REQUEST);
                assert_eq!(unplaced.input.capacity(), LEAN_INPUT_BYTES);
                say(&mut near, REQUEST).await;
            };
            let (woke, ()) = both(waiting, serving).await;
            assert!(matches!(woke, Wake::Ready));
            assert_eq!(placed.input.capacity(), INPUT_BYTES);
            let next = placed.next_head(&timers, &soon, &inputs).await;
            assert!(matches!(next, Ok(Next::Request)));
        }
    });
}

/// How long a connection waits in its place for what does not come.
async fn silence(downstream: &mut Downstream, timers: &Timers, inputs: &Inputs) -> Duration {
    let begun = timers.now();
    let woke = downstream.wakes(timers, &limits(10_000), inputs).await;
    assert!(matches!(woke, Wake::Silent));
    Duration::from_micros(timers.now().0 - begun.0)
}

#[test]
fn a_new_connection_that_is_silent_leaves_its_place_soon() {
    on_every_driver(|timers| async move {
        let inputs = Inputs::new(1);
        let mut soonest = Duration::MAX;
        for _ in 0..5 {
            let (_near, mut new) = connection(&timers).await;
            soonest = soonest.min(silence(&mut new, &timers, &inputs).await);
        }
        assert!(soonest < BUSY / 2, "{soonest:?}");
        // One that was served is waited for longer.
        let (mut near, mut served) = connection(&timers).await;
        say(&mut near, REQUEST).await;
        until_ready(&mut served, &timers, &inputs).await;
        let next = served.next_head(&timers, &limits(10_000), &inputs).await;
        assert!(matches!(next, Ok(Next::Request)));
        assert!(silence(&mut served, &timers, &inputs).await >= BUSY / 2);
    });
}

/// Awaits both, however long each takes.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    match first(a.as_mut(), b.as_mut()).await {
        Either::Left(left) => (left, b.await),
        Either::Right(right) => (a.await, right),
    }
}

#[test]
fn half_a_record_is_waited_for_with_little_memory_and_then_served() {
    on_every_driver(|timers| async move {
        let paper = Paper::new("halves");
        for places in [0, 1] {
            let inputs = Inputs::new(places);
            let (mut downstream, go, agent) = halves(&timers, &paper, 20).await;
            until_ready(&mut downstream, &timers, &inputs).await;
            let late = downstream.next_head(&timers, &limits(300), &inputs).await;
            assert!(matches!(late, Err(Reject::RequestTimeout)));
            assert_eq!(downstream.input.capacity(), LEAN_INPUT_BYTES);
            let held = downstream.stream.buffered();
            assert!((1..=20 + LEAN_INPUT_BYTES).contains(&held), "{held}");
            go.send(()).unwrap();
            let next = downstream.next_head(&timers, &limits(20_000), &inputs).await;
            assert!(matches!(next, Ok(Next::Request)));
            assert_eq!(downstream.head().1, REQUEST);
            drop((downstream, go));
            agent.join().unwrap();
        }
    });
}

#[test]
fn who_says_nothing_ends_at_the_idle_limit_and_who_begins_at_that_of_a_head() {
    on_every_driver(|timers| async move {
        let inputs = Inputs::new(0);
        let (mut near, mut downstream) = connection(&timers).await;
        let idle = Duration::from_millis(300);
        let begin = timers.exact();
        let woke = downstream.wakes(&timers, &limits(10_000), &inputs).await;
        assert!(matches!(woke, Wake::Silent));
        assert!(!downstream.waits(&timers, idle).await);
        let took = timers.exact().micros_since(begin);
        assert!((280_000..5_000_000).contains(&took), "{took}");
        say(&mut near, b"G").await;
        until_ready(&mut downstream, &timers, &inputs).await;
        let begin = timers.exact();
        let late = downstream.next_head(&timers, &limits(300), &inputs).await;
        assert!(matches!(late, Err(Reject::RequestTimeout)));
        let took = timers.exact().micros_since(begin);
        assert!((280_000..5_000_000).contains(&took), "{took}");
    });
}

/// Placed or not: whoever does not send all of a head holds what it sent, or twice that.
#[test]
fn a_head_that_comes_in_pieces_holds_little_more_than_what_came() {
    on_every_driver(|timers| async move {
        for places in [0, 1] {
            let inputs = Inputs::new(places);
            let (mut near, mut downstream) = connection(&timers).await;
            let mut sent = 0;
            for piece in [1, 2000, 5000, 11_000, 12_000] {
                let bytes = if sent == 0 { b"G".to_vec() } else { vec![b'A'; piece] };
                say(&mut near, &bytes).await;
                if sent == 0 {
                    until_ready(&mut downstream, &timers, &inputs).await;
                    say(&mut near, b"ET / HTTP/1.1\r\nHost: mcp.example\r\nX: ").await;
                }
                let late = downstream.next_head(&timers, &limits(100), &inputs).await;
                assert!(matches!(late, Err(Reject::RequestTimeout)));
                sent += piece;
                assert!(downstream.input.len() >= sent);
                let room = LEAN_INPUT_BYTES.max(2 * downstream.input.len());
                assert!(downstream.input.capacity() <= room, "{}", downstream.input.capacity());
                // Nor does it keep others from their places.
                assert_eq!(inputs.place().is_some(), places > 0);
            }
            say(&mut near, b"\r\n\r\n").await;
            let next = downstream.next_head(&timers, &limits(20_000), &inputs).await;
            assert!(matches!(next, Ok(Next::Request)));
            assert!(downstream.input.len() > sent);
        }
    });
}

/// The current request is no part of what is read ahead, however long it is.
#[test]
fn as_much_is_read_ahead_as_may_be_and_no_more() {
    on_every_driver(|timers| async move {
        let inputs = Inputs::new(1);
        let (mut near, mut downstream) = connection(&timers).await;
        let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n".to_vec();
        let head_bytes = request.len();
        request.resize(head_bytes + 20_000, b'b');
        say(&mut near, &request).await;
        until_ready(&mut downstream, &timers, &inputs).await;
        let limits = limits(20_000);
        downstream.next_head(&timers, &limits, &inputs).await.ok().unwrap();
        downstream.expect_body(1 << 20).unwrap();
        let mut body = Vec::new();
        downstream.read_body(&timers, &limits, &mut body).await.unwrap();
        assert_eq!(body.len(), 20_000);
        assert_eq!(downstream.pipeline_room(), PIPELINE_BYTES_MAX);
        say(&mut near, &vec![b'n'; PIPELINE_BYTES_MAX + 5000]).await;
        while downstream.pipeline_room() > 0 {
            let before = downstream.pipeline_room();
            downstream.stirs().await;
            assert!(!downstream.take_pending(&timers).await);
            assert!(downstream.pipeline_room() < before);
        }
        assert_eq!(downstream.input.len() - downstream.used, PIPELINE_BYTES_MAX);
        // What is more stays with the kernel.
        let pause = timers.sleep_until(timers.now().after(Duration::from_millis(100)));
        assert_eq!(first(downstream.stirs(), pause).await, Either::Right(()));
        downstream.forget_request();
        assert_eq!(*downstream.input, *vec![b'n'; PIPELINE_BYTES_MAX]);
    });
}
