//! How connections end: by their peer, by a fault, or by us once all is sent.

use super::Relay;
use super::table::{Leaving, Role};
use crate::message::{Fault, NO_ANSWER};
use crate::raw::Chunk;

impl Relay {
    /// The peer sends no more.
    pub(super) fn ended(&mut self, id: usize) {
        let Some(socket) = self.table.get(id) else { return };
        match (socket.role, socket.peer) {
            // It may still read its answer.
            (Role::Client { answering: true, .. }, _) => {
                socket.role = Role::Client { answering: true, last: true };
                socket.ended = true;
            }
            (Role::Client { .. }, _) => self.broken(id),
            (Role::Upstream, Some(client)) if socket.message.ends_with_close() => {
                self.table.change(client, |client| client.role = LAST);
                self.answered(id, client, false);
            }
            (Role::Upstream, _) => self.broken(id),
        }
    }

    /// The connection is of no use any more; what hangs on it ends too.
    pub(super) fn broken(&mut self, id: usize) {
        let Some(socket) = self.table.get(id) else { return };
        let untouched = socket.message.is_untouched();
        let (role, peer) = (socket.role, socket.peer.take());
        socket.outbox.drain(..).for_each(|chunk| self.ring.give_back(chunk));
        self.shut(id);
        let Some(peer) = peer else { return };
        self.table.change(peer, |peer| peer.peer = None);
        match role {
            Role::Client { .. } => self.leave(peer),
            Role::Upstream if untouched => self.no_answer(peer),
            Role::Upstream => self.leave(peer),
        }
    }

    pub(super) fn refuse(&mut self, id: usize, fault: Fault) {
        let Some(socket) = self.table.get(id) else { return };
        let Some(upstream) = socket.peer.take() else {
            self.post(id, Chunk::made(fault.answer().to_vec()));
            return self.leave(id);
        };
        // The head went on already: an answer of ours could be taken for the upstream's.
        self.table.change(upstream, |upstream| upstream.peer = None);
        self.leave(upstream);
        self.leave(id);
    }

    pub(super) fn no_answer(&mut self, client: usize) {
        self.table.change(client, |client| client.peer = None);
        self.post(client, Chunk::made(NO_ANSWER.to_vec()));
        self.leave(client);
    }

    /// Closes the connection once what waits for it is sent.
    pub(super) fn leave(&mut self, id: usize) {
        let Some(socket) = self.table.get(id) else { return };
        if socket.leaving != Leaving::No {
            return;
        }
        socket.leaving = Leaving::Flush;
        let (role, peer) = (socket.role, socket.peer.take());
        if role == Role::Upstream {
            self.idle.retain(|&idle| idle != id);
            socket.outbox.drain(..).for_each(|chunk| self.ring.give_back(chunk));
        }
        if let Some(peer) = peer {
            self.table.change(peer, |peer| peer.peer = None);
            self.leave(peer);
        }
        self.starved.retain(|&starved| starved != id);
        if self.table.get(id).is_some_and(|socket| !socket.connected) {
            self.shut(id);
        } else {
            self.flush(id);
        }
    }

    /// Ends what is under way on the socket, so that its handle can be given up.
    pub(super) fn shut(&mut self, id: usize) {
        self.idle.retain(|&idle| idle != id);
        self.starved.retain(|&starved| starved != id);
        let Some(socket) = self.table.get(id) else { return };
        if socket.leaving == Leaving::Shut {
            return;
        }
        socket.leaving = Leaving::Shut;
        if let Some(handle) = socket.handle {
            socket.pending += 1;
            self.ring.shut(id, handle);
        }
    }

    pub(super) fn settled(&mut self, id: usize) {
        self.table.change(id, |socket| socket.pending -= 1);
        self.settle(id);
    }

    /// Closes a socket that is shut and on which nothing is under way.
    pub(super) fn settle(&mut self, id: usize) {
        let Some(socket) = self.table.get(id) else { return };
        if socket.leaving != Leaving::Shut || socket.pending > 0 {
            return;
        }
        socket.outbox.drain(..).for_each(|chunk| self.ring.give_back(chunk));
        if let Some(handle) = socket.handle.take() {
            self.ring.close(id, handle);
        }
    }
}

/// A client whose answer ends with its connection.
const LAST: Role = Role::Client { answering: true, last: true };
