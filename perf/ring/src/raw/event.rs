//! What the ring tells, and how it names sockets.

use std::io;
use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};

use super::chunk::Chunk;

/// A socket as the ring names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// A descriptor of the process.
    Plain(RawFd),
    /// A slot of the ring's own table.
    Direct(u32),
}

/// A completion. `socket` is the number that was given with the operation; `fine` says that all of
/// it was done; without `more`, this was its last completion.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are explained above, once")]
pub enum Event {
    /// A client connected, or the accept failed.
    Accepted { result: io::Result<Handle>, more: bool },
    /// A socket for a connection of ours.
    Opened { socket: usize, result: io::Result<Handle> },
    /// Our connection stands or does not.
    Connected { socket: usize, fine: bool },
    /// Bytes came, or none any more.
    Received { socket: usize, outcome: Outcome, more: bool },
    /// What was to be sent is sent whole, or the connection is broken.
    Sent { socket: usize, fine: bool },
    /// Both directions are shut; receives and sends under way will end.
    Shut { socket: usize },
    /// The socket is gone and its handle means nothing any more.
    Closed { socket: usize },
    /// The rest that was asked for is over.
    Rested,
}

/// What a receive came to.
#[derive(Debug)]
pub enum Outcome {
    /// At least one byte.
    Bytes(Chunk),
    /// It was cancelled by us.
    Cancelled,
    /// The peer sends no more.
    End,
    /// The connection broke.
    Failed,
    /// There was no provided buffer left.
    Starved,
}

impl Handle {
    pub(super) fn number(self) -> i32 {
        match self {
            Self::Plain(descriptor) => descriptor,
            Self::Direct(slot) => slot.cast_signed(),
        }
    }

    /// Says in `entry` which table the number is of.
    pub(super) fn on(self, entry: Entry) -> Entry {
        match self {
            Self::Plain(_) => entry,
            Self::Direct(_) => entry.flags(Flags::FIXED_FILE),
        }
    }
}
