//! The sockets of a relay, each under a number that is its own until its handle is closed.

use std::collections::VecDeque;

use slab::Slab;

use crate::message::{HEAD_BYTES_MAX, Message};
use crate::raw::{Chunk, Handle};
use crate::sockets::RECEIVE_BYTES;

/// All sockets of a relay.
#[derive(Default)]
pub(super) struct Table {
    sockets: Slab<Socket>,
    clients: usize,
}

/// One connection, of a client or ours to the upstream.
pub(super) struct Socket {
    pub(super) role: Role,
    /// None before it is opened and once it is given up.
    pub(super) handle: Option<Handle>,
    /// The other connection of the exchange under way.
    pub(super) peer: Option<usize>,
    /// What comes in here: requests from clients, responses from the upstream.
    pub(super) message: Message,
    /// What is to be sent here and is not yet under way.
    pub(super) outbox: VecDeque<Chunk>,
    /// Sends under way.
    pub(super) sending: usize,
    /// The receive under way.
    pub(super) receive: Option<u64>,
    /// That receive is being cancelled.
    pub(super) stopping: bool,
    /// The peer sends no more.
    pub(super) ended: bool,
    /// Operations under way. INVARIANT: the number of this socket is not used again before they
    /// are all complete and the handle is closed.
    pub(super) pending: usize,
    pub(super) connected: bool,
    pub(super) leaving: Leaving,
    /// Bytes of the client's next request.
    pub(super) kept: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Of a client: `answering` once its request is complete and until its answer is; after the
    /// `last` answer the connection ends.
    Client {
        answering: bool,
        last: bool,
    },
    Upstream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It stays.
    No,
    /// It goes once its outbox is sent.
    Flush,
    /// It is shut and waits for what is under way.
    Shut,
}

impl Table {
    pub(super) fn insert(&mut self, role: Role) -> usize {
        let message = match role {
            Role::Client { .. } => Message::request(),
            Role::Upstream => Message::response(),
        };
        self.clients += usize::from(role != Role::Upstream);
        self.sockets.insert(Socket {
            role,
            handle: None,
            peer: None,
            message,
            outbox: VecDeque::new(),
            sending: 0,
            receive: None,
            stopping: false,
            ended: false,
            pending: 0,
            connected: false,
            leaving: Leaving::No,
            kept: Vec::new(),
        })
    }

    pub(super) fn get(&mut self, id: usize) -> Option<&mut Socket> {
        self.sockets.get_mut(id)
    }

    pub(super) fn change(&mut self, id: usize, change: impl FnOnce(&mut Socket)) {
        if let Some(socket) = self.sockets.get_mut(id) {
            change(socket);
        }
    }

    /// Forgets a socket; its number may be used again.
    pub(super) fn remove(&mut self, id: usize) -> Option<Socket> {
        let socket = self.sockets.try_remove(id)?;
        self.clients -= usize::from(socket.role != Role::Upstream);
        Some(socket)
    }

    /// Connections of clients, those that are being closed included.
    pub(super) fn clients(&self) -> usize {
        self.clients
    }
}

impl Socket {
    /// Keeps bytes of the next request; false when they are more than a client may send ahead.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        self.kept.extend_from_slice(bytes);
        self.kept.len() <= KEPT_BYTES_MAX
    }
}

/// What a client may send ahead of its turn: one receive and a head.
const KEPT_BYTES_MAX: usize = RECEIVE_BYTES + HEAD_BYTES_MAX;
