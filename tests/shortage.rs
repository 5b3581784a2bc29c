//! Case V04: out of descriptors, a core must neither spin nor stay deaf.
//!
//! Its own binary with one test, because the limit holds for the whole process.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use portcullis::clock::Clock;
use portcullis::net::listen::{Acceptor, bind};
use portcullis::net::runtime::{Ring, block_on, spawn};
use portcullis::net::{Either, Timers, first};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn v04_accepting_backs_off_and_resumes() {
    for ring in [Ring::Coop, Ring::Plain, Ring::Epoll] {
        block_on(ring, async {
            let timers = Timers::new(Clock::start());
            spawn(timers.clone().run());
            monoio::spawn(starve(timers)).await;
        })
        .unwrap();
    }
}

async fn starve(timers: Timers) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
    // The clients have their descriptors before there are none.
    let clients: Vec<TcpStream> = (0..8).map(|_| connect(address)).collect();
    let full = getrlimit(Resource::Nofile);
    let in_use = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let (wall, cpu) = (timers.exact(), cpu_micros());
    setrlimit(Resource::Nofile, Rlimit { current: Some(in_use), ..full }).unwrap();
    // The limit is on numbers, so gaps below it are filled, too.
    let mut fillers = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fillers.push(file);
    }
    let starving = timers.sleep_until(wall.after(Duration::from_secs(2)));
    let result = first(acceptor.accept(), starving).await;
    setrlimit(Resource::Nofile, full).unwrap();
    drop(fillers);
    let (wall, cpu) = (timers.exact().micros_since(wall), cpu_micros() - cpu);

    assert!(matches!(result, Either::Right(())), "there was a descriptor after all");
    assert!(cpu * 20 < wall, "{cpu} µs of CPU in {wall} µs");
    let failures = acceptor.shortage().count;
    assert!((5..=50).contains(&failures), "{failures} attempts in two seconds");

    let limit = timers.exact().after(Duration::from_secs(2));
    for _ in &clients {
        let accepted = first(acceptor.accept(), timers.sleep_until(limit)).await;
        assert!(matches!(accepted, Either::Left(Ok(_))), "accepting did not resume");
    }
}

#[expect(clippy::disallowed_methods, reason = "the clients of this test are plain sockets")]
fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// CPU time of this thread, which is the core. Needs a descriptor.
fn cpu_micros() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000
}
