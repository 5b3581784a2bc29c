//! What the requests of one core are read into.

use crate::limits::{INPUT_BYTES, LEAN_INPUT_BYTES};
use crate::net::{Buffers, Wiped};
use crate::places::{Place, Places};

/// Room for the heads of requests, and for what comes along with them.
pub struct Inputs {
    ample: Buffers,
    lean: Buffers,
    waiting: Places,
}

impl Inputs {
    /// Of those that wait for a request, `waiting_max` may hold ample room.
    #[must_use]
    pub const fn new(waiting_max: usize) -> Self {
        Self {
            ample: Buffers::new(INPUT_BYTES),
            lean: Buffers::new(LEAN_INPUT_BYTES),
            waiting: Places::new(waiting_max),
        }
    }

    /// A place among those that wait with ample room; `None` when all are taken.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        self.waiting.take()
    }

    /// Gives `input` ample room.
    pub(super) fn widen(&self, input: &mut Wiped) {
        if input.capacity() < INPUT_BYTES {
            self.give(input.swap(self.ample.take()));
        }
    }

    /// Leaves `input` as much room as that of which so much came may have: little, or twice that.
    pub(super) fn narrow(&self, input: &mut Wiped) {
        let room = LEAN_INPUT_BYTES.max(2 * input.len());
        if input.capacity() == 0 || input.capacity() > room {
            let few = room == LEAN_INPUT_BYTES;
            let memory = if few { self.lean.take() } else { Vec::with_capacity(room) };
            self.give(input.swap(memory));
        }
    }

    /// Takes the memory of `input` back.
    pub(super) fn release(&self, input: &mut Wiped) {
        self.give(input.swap(Vec::new()));
    }

    /// What grew is of neither size, and is freed.
    fn give(&self, memory: Vec<u8>) {
        if memory.capacity() < INPUT_BYTES {
            self.lean.give(memory);
        } else {
            self.ample.give(memory);
        }
    }
}
