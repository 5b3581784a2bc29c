//! The relay on a ring of its own: completions in, operations out, one thread.

mod leave;
mod table;

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use socket2::SockAddr;

use crate::message::{Rewrite, Taken};
use crate::options::{Options, Recv, Send};
use crate::raw::{Chunk, Event, Handle, Outcome, Ring};
use crate::relay::table::{Leaving, Role, Table};
use crate::sockets::{ACCEPT_REST_MS, CLIENTS_MAX};

/// A relay with all its connections.
pub struct Relay {
    ring: Ring,
    table: Table,
    rewrite: Rewrite,
    listener: Handle,
    upstream: SockAddr,
    send: Send,
    recv: Recv,
    /// Upstream connections without a request, the last used one last.
    idle: Vec<usize>,
    /// Sockets whose receive ended for want of provided buffers.
    starved: Vec<usize>,
}

impl Relay {
    /// A relay that serves `listener`.
    ///
    /// # Errors
    /// When the kernel refuses a feature that was asked for.
    pub fn new(listener: &TcpListener, options: &Options) -> io::Result<Self> {
        let mut ring = Ring::new(options)?;
        let listener = ring.adopt(listener.as_raw_fd())?;
        Ok(Self {
            ring,
            table: Table::default(),
            rewrite: Rewrite::new(&options.upstream.to_string(), &options.key),
            listener,
            upstream: options.upstream.into(),
            send: options.send,
            recv: options.recv,
            idle: Vec::new(),
            starved: Vec::new(),
        })
    }

    /// Relays until the ring breaks.
    ///
    /// # Errors
    /// What broke it.
    pub fn run(mut self) -> io::Result<()> {
        self.ring.accept(self.listener);
        let mut events = Vec::new();
        loop {
            self.ring.wait(&mut events)?;
            for event in events.drain(..) {
                self.on(event);
            }
            self.feed_starved();
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Accepted { result, more } => self.accepted(result, more),
            Event::Opened { socket, result } => self.opened(socket, result),
            Event::Connected { socket, fine } => self.connected(socket, fine),
            Event::Received { socket, outcome, more } => self.received(socket, outcome, more),
            Event::Sent { socket, fine } => self.sent(socket, fine),
            Event::Shut { socket } => self.settled(socket),
            Event::Closed { socket } => drop(self.table.remove(socket)),
            Event::Rested => self.ring.accept(self.listener),
        }
    }

    fn accepted(&mut self, result: io::Result<Handle>, more: bool) {
        let refused = result.is_err();
        if let Ok(handle) = result {
            let room = self.table.clients() < CLIENTS_MAX;
            let id = self.table.insert(Role::Client { answering: false, last: false });
            if let Some(socket) = self.table.get(id) {
                socket.handle = Some(handle);
                socket.connected = true;
            }
            if room { self.listen_to(id) } else { self.leave(id) }
        }
        if !more && refused {
            // No descriptors, no memory: asking again at once would spin.
            self.ring.rest(ACCEPT_REST_MS);
        } else if !more {
            self.ring.accept(self.listener);
        }
    }

    fn opened(&mut self, id: usize, result: io::Result<Handle>) {
        let Some(socket) = self.table.get(id) else { return };
        socket.pending -= 1;
        let Ok(handle) = result else {
            // There is no handle to be closed, so this socket ends here.
            if let Some(client) = self.table.remove(id).and_then(|socket| socket.peer) {
                self.no_answer(client);
            }
            return;
        };
        socket.handle = Some(handle);
        if socket.leaving != Leaving::No {
            self.settle(id);
            return;
        }
        socket.pending += 1;
        self.ring.connect(id, handle, self.upstream.clone());
    }

    fn connected(&mut self, id: usize, fine: bool) {
        let Some(socket) = self.table.get(id) else { return };
        socket.pending -= 1;
        if socket.leaving != Leaving::No {
            self.settle(id);
        } else if fine {
            socket.connected = true;
            self.listen_to(id);
            self.flush(id);
        } else {
            self.broken(id);
        }
    }

    fn received(&mut self, id: usize, outcome: Outcome, more: bool) {
        let Some(socket) = self.table.get(id) else { return };
        if !more {
            socket.receive = None;
            socket.stopping = false;
            socket.pending -= 1;
        }
        let leaving = socket.leaving != Leaving::No;
        match outcome {
            Outcome::Bytes(chunk) if leaving => self.ring.give_back(chunk),
            Outcome::Bytes(chunk) => self.input(id, chunk),
            Outcome::Starved if !leaving => self.starved.push(id),
            Outcome::End if !leaving => self.ended(id),
            Outcome::Failed if !leaving => self.broken(id),
            Outcome::Cancelled | Outcome::End | Outcome::Failed | Outcome::Starved => {}
        }
        if leaving {
            self.settle(id);
        } else {
            self.listen_to(id);
        }
    }

    fn sent(&mut self, id: usize, fine: bool) {
        let Some(socket) = self.table.get(id) else { return };
        socket.pending -= 1;
        socket.sending -= 1;
        let peer = socket.peer;
        match socket.leaving {
            Leaving::Shut => self.settle(id),
            Leaving::No | Leaving::Flush if !fine => self.broken(id),
            Leaving::No | Leaving::Flush => {
                self.flush(id);
                // The other side may have stopped reading because this one was behind.
                if let Some(peer) = peer {
                    self.listen_to(peer);
                }
            }
        }
    }

    fn input(&mut self, id: usize, chunk: Chunk) {
        let Some(socket) = self.table.get(id) else { return };
        match socket.role {
            Role::Client { answering: true, .. } => {
                // Pipelined: it waits for its turn, within a bound.
                if !socket.keep(chunk.bytes()) {
                    self.leave(id);
                }
                self.ring.give_back(chunk);
            }
            Role::Client { .. } => self.request(id, chunk),
            Role::Upstream => match socket.peer {
                Some(client) => self.response(id, client, chunk),
                // Nobody asked: what comes now must not become somebody's answer.
                None => {
                    self.ring.give_back(chunk);
                    self.leave(id);
                }
            },
        }
    }

    /// Bytes of a request.
    fn request(&mut self, id: usize, chunk: Chunk) {
        let mut out = self.ring.blank();
        let Some(socket) = self.table.get(id) else { return };
        let taken = match socket.message.take(chunk.bytes(), &self.rewrite, &mut out) {
            Ok(taken) => taken,
            Err(fault) => {
                self.ring.give_back(chunk);
                self.refuse(id, fault);
                return;
            }
        };
        if taken.done {
            let last = !socket.message.keep_alive();
            socket.role = Role::Client { answering: true, last };
        }
        let rest = chunk.bytes().get(taken.used..).unwrap_or_default();
        if !rest.is_empty() && !socket.keep(rest) {
            self.leave(id);
        }
        if taken.head {
            self.bind(id);
        }
        match self.table.get(id).and_then(|socket| socket.peer) {
            Some(upstream) => self.pass(upstream, out, chunk, &taken),
            None => self.ring.give_back(chunk),
        }
    }

    /// Bytes of a response to `client`.
    fn response(&mut self, id: usize, client: usize, chunk: Chunk) {
        let mut out = self.ring.blank();
        let Some(socket) = self.table.get(id) else { return };
        let Ok(taken) = socket.message.take(chunk.bytes(), &self.rewrite, &mut out) else {
            self.ring.give_back(chunk);
            self.broken(id);
            return;
        };
        // Bytes behind the answer belong to nobody; such a connection serves no one else.
        let clean = taken.used == chunk.bytes().len() && socket.message.keep_alive();
        self.pass(client, out, chunk, &taken);
        if taken.done {
            self.answered(id, client, clean);
        }
    }

    /// The response is complete: the upstream connection is free, the client's turn is over.
    fn answered(&mut self, id: usize, client: usize, clean: bool) {
        let Some(socket) = self.table.get(client) else { return };
        socket.peer = None;
        let Role::Client { answering, last } = socket.role else { return };
        socket.role = Role::Client { answering: false, last: false };
        socket.message.restart(false);
        let kept = std::mem::take(&mut socket.kept);
        let Some(upstream) = self.table.get(id) else { return };
        upstream.peer = None;
        if clean && answering && upstream.outbox.is_empty() {
            self.idle.push(id);
            self.listen_to(id);
        } else {
            self.leave(id);
        }
        if last || !answering {
            // An answer before the end of the request: the rest of it has nowhere to go.
            self.leave(client);
        } else if kept.is_empty() {
            self.listen_to(client);
        } else {
            self.input(client, Chunk::made(kept));
            self.listen_to(client);
        }
    }

    /// Gives the client's request an upstream connection, a used one if there is one.
    fn bind(&mut self, client: usize) {
        let Some(socket) = self.table.get(client) else { return };
        let head_request = socket.message.is_head_request();
        let id = self.idle.pop().unwrap_or_else(|| {
            let id = self.table.insert(Role::Upstream);
            self.ring.open(id, &self.upstream);
            if let Some(socket) = self.table.get(id) {
                socket.pending += 1;
            }
            id
        });
        if let Some(upstream) = self.table.get(id) {
            upstream.message.restart(head_request);
            upstream.peer = Some(client);
        }
        if let Some(socket) = self.table.get(client) {
            socket.peer = Some(id);
        }
        self.listen_to(id);
    }

    /// Sends on what was taken of a chunk: the new head in `out`, and the body as it came.
    fn pass(&mut self, to: usize, mut out: Vec<u8>, chunk: Chunk, taken: &Taken) {
        let body = taken.body.clone();
        let copy = self.send == Send::Plain || body.len() <= COPY_BYTES_MAX;
        let mut chunk = chunk.narrowed(body);
        if !out.is_empty() && copy {
            out.extend_from_slice(chunk.bytes());
            self.ring.give_back(chunk);
            chunk = Chunk::made(out);
        } else if out.is_empty() {
            self.ring.give_back(Chunk::made(out));
        } else {
            self.post(to, Chunk::made(out));
        }
        self.post(to, chunk);
        self.flush(to);
    }

    fn post(&mut self, to: usize, chunk: Chunk) {
        let scarce = self.ring.available_percent() < SCARCE_PERCENT;
        let Some(socket) = self.table.get(to) else { return self.ring.give_back(chunk) };
        if chunk.bytes().is_empty() || socket.leaving != Leaving::No {
            self.ring.give_back(chunk);
        } else if scarce && chunk.is_lent() {
            // A send lasts as long as its peer likes; the last buffers are kept out of that, or
            // a few that do not read would hold up all.
            socket.outbox.push_back(Chunk::made(chunk.bytes().to_vec()));
            self.ring.give_back(chunk);
        } else {
            socket.outbox.push_back(chunk);
        }
    }

    /// Sends what waits for the socket, unless a send is under way.
    fn flush(&mut self, id: usize) {
        let Some(socket) = self.table.get(id) else { return };
        let Some(handle) = socket.handle else { return };
        if socket.sending > 0 || !socket.connected {
            return;
        }
        let Some(first) = socket.outbox.pop_front() else {
            if socket.leaving == Leaving::Flush {
                self.shut(id);
            }
            return;
        };
        let more = !socket.outbox.is_empty();
        let mut sends = 1;
        if self.send == Send::Plain || !more {
            self.ring.send(id, handle, first);
        } else {
            socket.outbox.push_front(first);
            if self.send == Send::Linked {
                sends = self.ring.send_chain(id, handle, &mut socket.outbox);
            } else {
                self.ring.send_gathered(id, handle, &mut socket.outbox);
            }
        }
        socket.sending += sends;
        socket.pending += sends;
    }

    /// Has the socket receive when it should and does not, and stop when its peer is behind.
    fn listen_to(&mut self, id: usize) {
        let multishot = self.recv == Recv::Multishot;
        let Some(socket) = self.table.get(id) else { return };
        let (peer, receive, stopping) = (socket.peer, socket.receive, socket.stopping);
        let Some(handle) = socket.handle.filter(|_| socket.connected) else { return };
        let wanted = multishot
            || match socket.role {
                Role::Client { answering, .. } => !answering,
                Role::Upstream => peer.is_some(),
            };
        if socket.leaving != Leaving::No || socket.ended || !wanted {
            return;
        }
        let behind = peer
            .and_then(|peer| self.table.get(peer))
            .is_some_and(|peer| peer.outbox.len() >= OUTBOX_MAX);
        match receive {
            Some(number) if behind && !stopping => {
                self.ring.cancel(number);
                self.table.change(id, |socket| socket.stopping = true);
            }
            None if !behind && !self.starved.contains(&id) => {
                let number = self.ring.receive(id, handle);
                self.table.change(id, |socket| {
                    socket.receive = Some(number);
                    socket.pending += 1;
                });
            }
            Some(_) | None => {}
        }
    }

    fn feed_starved(&mut self) {
        if self.starved.is_empty() || self.ring.available_percent() < SCARCE_PERCENT {
            return;
        }
        for id in std::mem::take(&mut self.starved) {
            self.listen_to(id);
        }
    }
}

/// Up to here a body is copied behind its head; a second buffer would cost more.
const COPY_BYTES_MAX: usize = 2 * 1024;
/// Chunks that wait for a socket before its peer is not read any more.
const OUTBOX_MAX: usize = 32;
/// Fewer provided buffers than this share of them are scarce.
const SCARCE_PERCENT: usize = 25;
