//! Streams, TLS and the pool over real sockets, on every driver.

mod client;
mod plain;
mod pool;
pub(crate) mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use super::dial::dial;
use super::listen::{Acceptor, bind};
use super::runtime::{Ring, block_on, spawn};
use super::{Stream, Timers};
use crate::clock::{Clock, Monotonic};

/// Runs `test` as a task of a core on each driver.
pub(crate) fn on_every_driver<F: Future<Output = ()> + 'static>(test: impl Fn(Timers) -> F) {
    for ring in [Ring::Coop, Ring::Plain, Ring::Epoll] {
        block_on(ring, async {
            let timers = Timers::new(Clock::start());
            spawn(timers.clone().run());
            monoio::spawn(test(timers)).await;
        })
        .unwrap();
    }
}

pub(crate) fn soon(timers: &Timers) -> Monotonic {
    after(timers, 20_000)
}

pub(crate) fn after(timers: &Timers, milliseconds: u64) -> Monotonic {
    timers.exact().after(Duration::from_millis(milliseconds))
}

pub(crate) fn loopback() -> (std::net::TcpListener, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connected pair: who dialled, who accepted.
pub(crate) async fn pair(timers: &Timers) -> (Stream, Stream) {
    let (listener, address) = loopback();
    let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
    let near = dial(&[address], None, timers, soon(timers)).await.unwrap();
    let far = acceptor.accept().await.unwrap();
    assert_eq!(near.peer(), address);
    (near, far)
}

#[expect(clippy::disallowed_methods, reason = "the other side of these tests is a plain thread")]
fn connect(address: SocketAddr) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}
