//! One connection of the generator and the request it carries.

use std::io;

use crate::answer::Answer;
use crate::clock::Nanos;
use crate::link::Link;
use crate::sse::Stamp;
use crate::tally::Tally;

/// One connection.
pub(super) struct Slot {
    pub(super) link: Option<Link>,
    /// Told apart from events of the socket that was here before.
    pub(super) generation: u32,
    pub(super) connected: bool,
    pub(super) established: bool,
    /// It stands in `free`.
    pub(super) queued: bool,
    pub(super) answer: Answer,
    pub(super) unsent: Vec<u8>,
    pub(super) flight: Option<Flight>,
}

/// A request that is due or under way.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub(super) since: Nanos,
    pub(super) id: u64,
    pub(super) variant: usize,
    /// It waits for its connection.
    pub(super) held: bool,
    /// Number of the next event of its stream.
    pub(super) event: u64,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            link: None,
            generation: 0,
            connected: false,
            established: false,
            queued: false,
            answer: Answer::new(),
            unsent: Vec::new(),
            flight: None,
        }
    }

    /// Closes the connection; its request, if any, stays.
    pub(super) fn reset(&mut self) {
        self.link = None;
        self.generation = self.generation.wrapping_add(1);
        self.connected = false;
        self.established = false;
        self.unsent.clear();
    }

    pub(super) fn key(&self, index: usize) -> u64 {
        u64::from(self.generation) << 32 | index as u64
    }

    /// Sends what is left of a request.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        if link.flush()? && !self.unsent.is_empty() {
            let count = link.send(&self.unsent)?;
            self.unsent.drain(..count);
        }
        Ok(())
    }
}

impl Flight {
    /// An event of this request's stream: numbers that are missing are lost, numbers seen before
    /// are reordered.
    pub(super) fn note(&mut self, stamp: Stamp, now: Nanos, tally: &mut Tally) {
        tally.event(stamp.sent, now);
        if stamp.sequence < self.event {
            tally.reordered(now);
        } else {
            tally.lost(now, stamp.sequence - self.event);
            self.event = stamp.sequence + 1;
        }
    }
}
