//! `load upstream`: an MCP server that costs as little as can be and always the same.
//!
//! No JSON is read: the method, the tool's name and the id are found by searching bytes. Answers of
//! one size are one prepared run of bytes each, into which the id is written.

mod asked;
mod canned;
mod connection;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::TcpListener;

use serde_json::json;

use crate::args::UpstreamArgs;
use crate::clock::{self, Nanos};
use crate::fault::{Doing, Fault};
use crate::link::{Buffers, Link};
use crate::poll::Poll;
use crate::stop::Stop;
use crate::tls;

use canned::Canned;
use connection::Connection;

/// What all connections share.
pub(crate) struct Shared {
    canned: Canned,
    seen: Seen,
    /// When which connection (with its generation) has something to send.
    timers: BinaryHeap<Reverse<(Nanos, u64)>>,
}

/// What came in.
#[derive(Debug, Default)]
struct Seen {
    requests: u64,
    with_key: u64,
    with_authorization: u64,
    /// What the first handshake agreed on.
    tls: Option<String>,
}

/// `load upstream`.
pub(crate) fn serve(args: &UpstreamArgs) -> Result<(), Fault> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::Server::new(certificate, key)?),
        _ => None,
    };
    crate::files::raise();
    let listener = TcpListener::bind(args.listen)
        .doing(&format!("--listen {}: choose a free port of this machine", args.listen))?;
    // The standard library asks for a queue of 128 (or 4096); a thousand clients may come at once.
    rustix::net::listen(&listener, BACKLOG).doing("listen")?;
    listener.set_nonblocking(true).doing("listener")?;
    let poll = Poll::new()?;
    poll.watch_input(&listener, LISTENER).doing("epoll on the listener")?;
    let stop = Stop::new(&poll, SIGNALS, INPUT)?;
    let address = listener.local_addr().doing("listener")?;
    crate::say(&format!("LISTENING {address}"))?;
    let shared =
        Shared { canned: Canned::default(), seen: Seen::default(), timers: BinaryHeap::new() };
    let mut server =
        Server { listener, tls, poll, stop, connections: Vec::new(), free: Vec::new(), shared };
    server.run()?;
    let Seen { requests, with_key, with_authorization, tls } = server.shared.seen;
    let line = json!({
        "requests": requests,
        "with_key": with_key,
        "with_authorization": with_authorization,
        "tls": tls,
    });
    crate::say(&line.to_string())
}

struct Server {
    listener: TcpListener,
    tls: Option<tls::Server>,
    poll: Poll,
    stop: Stop,
    connections: Vec<Slot>,
    free: Vec<usize>,
    shared: Shared,
}

/// A place for a connection; its generation tells late events and timers of an earlier one apart.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    generation: u32,
}

impl Server {
    fn run(&mut self) -> Result<(), Fault> {
        let (mut buffers, mut ready) = (Buffers::new(), Vec::new());
        loop {
            let deadline = self.shared.timers.peek().map(|Reverse((at, _))| *at);
            self.poll.wait(deadline, &mut ready)?;
            for event in &ready {
                match event.key {
                    LISTENER => self.accept()?,
                    SIGNALS | INPUT => {
                        if self.stop.is_asked(event.key) {
                            return Ok(());
                        }
                    }
                    key => self.serve(key, |connection, shared| {
                        connection.on_event(key, event.ending, &mut buffers, shared)
                    }),
                }
            }
            if deadline.is_some() {
                self.fire();
            }
        }
    }

    /// Lets a connection do something; it is closed when it is done.
    fn serve(&mut self, key: u64, act: impl FnOnce(&mut Connection, &mut Shared) -> bool) {
        let (index, generation) = (key as u32 as usize, (key >> 32) as u32);
        let Some(slot) = self.connections.get_mut(index) else { return };
        if slot.generation != generation {
            return;
        }
        let Some(connection) = slot.connection.as_mut() else { return };
        if !act(connection, &mut self.shared) {
            slot.connection = None;
            slot.generation = (slot.generation + 1) % GENERATIONS;
            self.free.push(index);
        }
    }

    fn fire(&mut self) {
        let now = clock::now();
        while let Some(Reverse((at, key))) = self.shared.timers.peek().copied() {
            if at > now {
                return;
            }
            self.shared.timers.pop();
            self.serve(key, |connection, shared| connection.on_time(key, shared));
        }
    }

    fn accept(&mut self) -> Result<(), Fault> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    return Err(Fault::new(format!(
                        "accept: {error}; with many connections raise the limit of open files"
                    )));
                }
            };
            socket.set_nonblocking(true).doing("socket")?;
            let session = self.tls.as_ref().map(tls::Server::open).transpose().doing("TLS")?;
            let Ok(link) = Link::over(socket, session) else { continue };
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(Slot::default());
                self.connections.len() - 1
            });
            let Some(slot) = self.connections.get_mut(index) else { continue };
            let key = u64::from(slot.generation) << 32 | index as u64;
            self.poll.watch(link.socket(), key).doing("epoll on a connection")?;
            slot.connection = Some(Connection::new(link));
        }
    }
}

const BACKLOG: i32 = 8192;
/// Keys of connections have a generation below this in their upper half, so that these are never
/// theirs.
const GENERATIONS: u32 = u32::MAX;
const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
const INPUT: u64 = u64::MAX - 2;
