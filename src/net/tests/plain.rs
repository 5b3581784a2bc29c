use std::io::Write;
use std::task::{Poll, Waker};

use super::*;
use crate::net::listen;
use crate::net::resolve::{ResolveError, Resolver};
use crate::net::{Either, NetError, Panicked, catch_unwind, first, runtime};
use crate::reject::Reject;

#[test]
fn bytes_are_appended_and_the_end_is_orderly() {
    on_every_driver(|timers| async move {
        let (mut near, mut far) = pair(&timers).await;
        let until = soon(&timers);
        near.write_all(b"one".to_vec(), until).await.0.unwrap();
        let (count, buf) = far.read(b"zero ".to_vec(), until).await;
        assert_eq!((count, buf.as_slice()), (Ok(3), b"zero one".as_slice()));
        drop(near);
        assert_eq!(far.read(buf, until).await.0, Ok(0));
        assert!(far.socket_has_nodelay());
    });
}

/// Also where the socket takes only a part at once, and the rest is left to the event loop.
#[test]
fn head_and_body_arrive_as_one_and_both_buffers_come_back() {
    const MUCH: usize = 12 << 20;
    on_every_driver(|timers| async move {
        for (head, body, begin) in [(3, 5, 0), (3, 5, 5), (0, 7, 2), (9, MUCH, 1), (MUCH, 9, 1)] {
            let (mut near, mut far) = pair(&timers).await;
            let until = soon(&timers);
            let head: Vec<u8> = (0..head).map(|at| (at % 251) as u8).collect();
            let body: Vec<u8> = (0..body).map(|at| (at % 241) as u8).collect();
            let sent = [&head, &body[begin..]].concat();
            let reader = monoio::spawn(async move {
                let (mut all, mut count) = (Vec::with_capacity(64 << 10), Ok(1));
                while count != Ok(0) {
                    all.reserve(64 << 10);
                    (count, all) = far.read(all, until).await;
                    count.unwrap();
                }
                all
            });
            let written = near.write_both(head.clone(), body.clone(), begin, until).await;
            assert!(written == (Ok(()), head, body));
            drop(near);
            assert!(reader.await == sent);
        }
    });
}

#[test]
fn a_read_of_so_much_leaves_what_follows() {
    on_every_driver(|timers| async move {
        let (mut near, mut far) = pair(&timers).await;
        let until = soon(&timers);
        near.write_all(b"body, next".to_vec(), until).await.0.unwrap();
        let (count, buf) = far.read_some(Vec::with_capacity(64), 4, until).await;
        assert_eq!((count, buf.as_slice()), (Ok(4), b"body".as_slice()));
        let (count, buf) = far.read_some(buf, 64, until).await;
        assert_eq!((count, buf.as_slice()), (Ok(6), b"body, next".as_slice()));
    });
}

#[test]
fn a_deadline_keeps_the_stream_and_what_comes_later() {
    on_every_driver(|timers| async move {
        let (mut near, mut far) = pair(&timers).await;
        for round in 0..5_u8 {
            let begin = timers.exact();
            let (result, buf) = far.read(Vec::with_capacity(16), begin.after(TENTH)).await;
            assert_eq!(result, Err(NetError::Timeout));
            assert!(timers.exact().micros_since(begin) >= TENTH.as_micros() as u64);
            assert!(timers.exact().micros_since(begin) < 5_000_000);
            near.write_all(vec![round], soon(&timers)).await.0.unwrap();
            assert_eq!(far.read(buf, soon(&timers)).await, (Ok(1), vec![round]));
        }
    });
}

#[test]
fn a_write_that_meets_its_deadline_leaves_a_dead_stream() {
    on_every_driver(|timers| async move {
        let (mut near, _far) = pair(&timers).await;
        let until = after(&timers, 100);
        assert_eq!(near.write_all(vec![7; 64 << 20], until).await.0, Err(NetError::Timeout));
        let until = soon(&timers);
        assert_eq!(near.write_all(vec![7], until).await.0, Err(NetError::Closed));
        assert_eq!(near.read(Vec::new(), until).await.0, Err(NetError::Closed));
        assert!(near.looks_closed());
    });
}

#[test]
fn a_dropped_read_leaves_a_dead_stream() {
    on_every_driver(|timers| async move {
        let (_near, mut far) = pair(&timers).await;
        let until = soon(&timers);
        let dropped = first(far.read(Vec::new(), until), std::future::ready(())).await;
        assert!(matches!(dropped, Either::Right(())));
        assert_eq!(far.read(Vec::new(), until).await.0, Err(NetError::Closed));
    });
}

#[test]
fn readable_waits_for_data_and_may_be_dropped() {
    on_every_driver(|timers| async move {
        let (mut near, mut far) = pair(&timers).await;
        for round in 0..20_u8 {
            let wait = timers.sleep_until(after(&timers, 15));
            assert_eq!(first(far.readable(), wait).await, Either::Right(()));
            near.write_all(vec![round], soon(&timers)).await.0.unwrap();
            let limit = timers.sleep_until(soon(&timers));
            assert_eq!(first(far.readable(), limit).await, Either::Left(()));
            assert_eq!(far.read(Vec::new(), soon(&timers)).await, (Ok(1), vec![round]));
        }
    });
}

/// A server that answers before it has read the whole request must not lose the answer to a reset.
#[test]
fn close_lets_the_answer_arrive_though_bytes_were_unread() {
    on_every_driver(|timers| async move {
        let (mut near, mut far) = pair(&timers).await;
        let until = soon(&timers);
        near.write_all(vec![1; 100_000], until).await.0.unwrap();
        far.write_all(b"refused".to_vec(), until).await.0.unwrap();
        let closed = monoio::spawn(far.close(until));
        near.write_all(vec![1; 100_000], until).await.0.unwrap();
        let (result, buf) = near.read(Vec::new(), until).await;
        assert_eq!((result, buf.as_slice()), (Ok(7), b"refused".as_slice()));
        assert_eq!(near.read(buf, until).await.0, Ok(0));
        drop(near);
        closed.await;
        assert!(timers.exact() < until, "it ended with the peer, not with the deadline");
    });
}

#[test]
fn close_is_bounded_in_bytes_and_time() {
    on_every_driver(|timers| async move {
        let (_near, far) = pair(&timers).await;
        let begin = timers.exact();
        far.close(begin.after(TENTH)).await;
        assert!(timers.exact().micros_since(begin) < 5_000_000);

        let (mut near, far) = pair(&timers).await;
        let until = soon(&timers);
        let writer = monoio::spawn(async move { near.write_all(vec![1; 64 << 20], until).await.0 });
        far.close(until).await;
        assert!(matches!(writer.await, Err(NetError::Io(_))), "the flood was cut off");
    });
}

#[test]
fn dial_says_what_went_wrong() {
    on_every_driver(|timers| async move {
        let (listener, closed) = loopback();
        drop(listener);
        let (_open_listener, open) = loopback();
        let until = soon(&timers);
        let dialled = |addresses: Vec<SocketAddr>| {
            let timers = timers.clone();
            async move { dial(&addresses, None, &timers, until).await.map(|s| s.peer()) }
        };
        assert_eq!(dialled(vec![]).await, Err(Reject::UpstreamAddress));
        assert_eq!(dialled(vec![closed]).await, Err(Reject::UpstreamConnect));
        assert_eq!(dialled(vec![closed, open]).await, Ok(open));
        let metadata = "[::ffff:169.254.169.254]:80".parse().unwrap();
        assert_eq!(dialled(vec![open, metadata]).await, Err(Reject::UpstreamAddress), "O07");
        let public = "8.8.8.8:80".parse().unwrap();
        let refused = dialled(vec![open, public]).await;
        assert_eq!(refused, Err(Reject::UpstreamAddress), "plain http stays on private ground");
    });
}

/// A listener whose backlog is full swallows packets, as an address behind a firewall does.
#[test]
fn dial_gives_a_silent_address_its_share_only() {
    on_every_driver(|timers| async move {
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = silent.unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let _filling = connect(address);
        let (_listener, open) = loopback();
        let begin = timers.exact();
        let until = begin.after(std::time::Duration::from_millis(1200));
        let stream = dial(&[address, open], None, &timers, until).await.unwrap();
        assert_eq!(stream.peer(), open);
        let until = after(&timers, 100);
        let refused = dial(&[address], None, &timers, until).await.err();
        assert_eq!(refused, Some(Reject::UpstreamTimeout));
        assert!(timers.exact().micros_since(begin) < 5_000_000);
    });
}

#[test]
fn a_panic_ends_one_future_only() {
    on_every_driver(|timers| async move {
        let panics = async {
            timers.sleep_until(after(&timers, 10)).await;
            panic!("on purpose");
        };
        assert_eq!(catch_unwind(panics).await, Err(Panicked));
        assert_eq!(catch_unwind(async { 7 }).await, Ok(7));
    });
}

#[test]
fn the_tick_measures_how_late_the_loop_is() {
    on_every_driver(|timers| async move {
        timers.sleep_until(after(&timers, 20)).await;
        timers.take_lag();
        // One task that holds the core for 80 ms.
        let begin = timers.exact();
        while timers.exact().micros_since(begin) < 80_000 {}
        timers.sleep_until(after(&timers, 20)).await;
        let lag = timers.take_lag();
        assert!(lag.max_micros >= 50_000, "{lag:?}");
        assert_eq!(timers.lag().max_micros, 0);
        let cached = timers.now();
        assert!(timers.exact() >= cached);
    });
}

#[test]
fn names_resolve_on_another_thread() {
    on_every_driver(|timers| async move {
        let resolver = Resolver::new().unwrap();
        let until = soon(&timers);
        let found = resolver.resolve("127.0.0.1", 81, &timers, until).await;
        assert_eq!(found, Ok(vec!["127.0.0.1:81".parse().unwrap()]));
        let found = resolver.resolve("localhost", 82, &timers, until).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 82));
        let found = resolver.resolve("no such name", 80, &timers, until).await;
        assert_eq!(found, Err(ResolveError::Unknown));
        let past = timers.now();
        // An answer may be there before the alarm; a hang is what must not be.
        let found = resolver.resolve("127.0.0.1", 80, &timers, past).await;
        assert!(matches!(found, Ok(_) | Err(ResolveError::Timeout)));
    });
}

/// Accepting is not in flight while it waits: dropping it over and over loses no connection.
#[test]
fn a_dropped_accept_loses_no_connection() {
    on_every_driver(|timers| async move {
        let (listener, address) = loopback();
        let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
        let clients = std::thread::spawn(move || {
            for number in 0..200_u8 {
                connect(address).write_all(&[number]).unwrap();
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 200 {
            let limit = async {
                runtime::turn().await;
                runtime::turn().await;
            };
            if let Either::Left(stream) = first(acceptor.accept(), limit).await {
                let mut stream = stream.unwrap();
                let (result, buf) = stream.read(Vec::with_capacity(4), soon(&timers)).await;
                result.unwrap();
                seen.extend(buf);
            }
        }
        clients.join().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<u8>>());
    });
}

#[test]
fn first_prefers_the_left_one() {
    let mut both = Box::pin(first(std::future::ready(1), std::future::ready(2)));
    let mut context = std::task::Context::from_waker(Waker::noop());
    assert_eq!(both.as_mut().poll(&mut context), Poll::Ready(Either::Left(1)));
}

const TENTH: std::time::Duration = std::time::Duration::from_millis(100);

#[test]
fn a_probe_finds_who_listens_and_never_listens_itself() {
    let taken = listen::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
    let address = taken.local_addr().unwrap();
    let refusal = listen::probe(address).unwrap_err();
    assert_eq!(refusal.kind(), std::io::ErrorKind::AddrInUse);
    drop(taken);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut tries = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // From another address: a socket may connect to itself by chance.
                let from = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
                let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
                let caller = socket2::Socket::new(kind.0, kind.1, None).unwrap();
                caller.bind(&from.into()).unwrap();
                let error = caller.connect(&address.into()).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "try {tries}");
                tries += 1;
            }
            tries
        });
        (0..20_000).for_each(|_| listen::probe(address).unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(caller.join().unwrap() > 0);
    });
}
