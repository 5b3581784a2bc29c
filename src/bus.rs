//! THE cross-core channel. It carries what changed, never request data.
//!
//! Sending never waits and never loses meaning: a full inbox sets its overflow flag, and the
//! receiver then treats everything as changed (a lost detail becomes a stronger action). The
//! receiver drains at the start of every request and when its doorbell rings.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::BUS_NOTICES_MAX;

/// What changed. A receiver that missed one acts on [`Drained::overflowed`] instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A new snapshot lies in the slot (keys, policy, addresses, configuration). Sent by the
    /// control thread. Lost: the next notice or overflow brings the receiver to the slot, which
    /// holds the newest.
    Published {
        /// Its generation; ever growing.
        generation: u64,
    },
    /// A refetch for an unknown `kid` ended without a new snapshot. Sent by the control thread.
    /// Lost: the waiters end at their own deadline.
    KeysUnchanged {
        /// Index of the trust provider.
        provider: u16,
    },
    /// All upstream credentials are to be forgotten. Sent by the control thread. Lost: overflow
    /// purges.
    CredentialsRevoked,
    /// A session ended before its time, and its id opens no more. Sent by the control thread. Lost:
    /// overflow makes the receiver read the whole list from the slot.
    SessionEnded {
        /// Its short mark.
        mark: u64,
    },
    /// Stop accepting; finish what is in flight. Sent by the control thread. Lost: overflow makes
    /// the receiver read the drain flag of the snapshot slot.
    Drain,
}

const _: () = assert!(size_of::<Notice>() <= 16);

/// Written when something changes; `pending` is read by every request of its core.
#[repr(align(128))]
struct Lane {
    /// One lock per notice, none per request: `pending` is read first.
    queue: Mutex<VecDeque<Notice>>,
    pending: AtomicBool,
    overflowed: AtomicBool,
}

/// The receiving end of one core.
pub struct Inbox {
    lane: Arc<Lane>,
}

/// The sending ends to all cores. Owned by the control thread.
pub struct Outbox {
    lanes: Vec<(Arc<Lane>, UnixStream)>,
}

/// What an inbox held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// In the order sent.
    pub notices: Vec<Notice>,
    /// Notices were lost: forget everything that can be fetched again.
    pub overflowed: bool,
}

/// Makes one inbox per doorbell. A doorbell is the writing end of a non-blocking stream pair whose
/// other end the worker watches; a byte in it means "look into your inbox".
#[must_use]
pub fn channels(doorbells: Vec<UnixStream>) -> (Outbox, Vec<Inbox>) {
    let lanes: Vec<_> = doorbells
        .into_iter()
        .map(|bell| {
            let lane = Lane {
                queue: Mutex::new(VecDeque::with_capacity(BUS_NOTICES_MAX)),
                pending: AtomicBool::new(false),
                overflowed: AtomicBool::new(false),
            };
            (Arc::new(lane), bell)
        })
        .collect();
    let inboxes = lanes.iter().map(|(lane, _)| Inbox { lane: Arc::clone(lane) }).collect();
    (Outbox { lanes }, inboxes)
}

impl Outbox {
    /// Tells every core. Returns how many inboxes overflowed.
    pub fn send(&self, notice: Notice) -> usize {
        let mut overflows = 0;
        for (lane, bell) in &self.lanes {
            let mut queue = lane.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() < BUS_NOTICES_MAX {
                queue.push_back(notice);
            } else {
                lane.overflowed.store(true, Ordering::Release);
                overflows += 1;
            }
            drop(queue);
            lane.pending.store(true, Ordering::Release);
            // A full pair already holds a byte that will wake the receiver.
            let _ = (&mut &*bell).write(&[1]);
        }
        overflows
    }
}

impl Inbox {
    /// Takes everything that has arrived; one relaxed load when nothing has.
    #[must_use]
    pub fn drain(&self) -> Option<Drained> {
        if !self.lane.pending.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.lane.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.lane.pending.store(false, Ordering::Release);
        let overflowed = self.lane.overflowed.swap(false, Ordering::AcqRel);
        Some(Drained { notices: queue.drain(..).collect(), overflowed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LINES_BYTES;

    /// What is told to one core is on no line that another core reads or writes.
    #[test]
    fn share_nothing_lanes_stand_alone() {
        assert_eq!((align_of::<Lane>(), size_of::<Lane>() % LINES_BYTES), (LINES_BYTES, 0));
        let bell = || {
            let (_far, near) = UnixStream::pair().unwrap();
            near
        };
        let (_outbox, inboxes) = channels(vec![bell(), bell()]);
        for inbox in &inboxes {
            // In its `Arc` as well, away from the counts.
            assert_eq!(Arc::as_ptr(&inbox.lane).addr() % LINES_BYTES, 0);
        }
    }

    #[test]
    fn a_full_inbox_becomes_an_overflow_not_a_loss() {
        let (_far, near) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (outbox, inboxes) = channels(vec![near]);
        assert_eq!(inboxes[0].drain(), None);
        for _ in 0..BUS_NOTICES_MAX {
            assert_eq!(outbox.send(Notice::CredentialsRevoked), 0);
        }
        assert_eq!(outbox.send(Notice::Drain), 1);
        let drained = inboxes[0].drain().unwrap();
        assert_eq!(drained.notices.len(), BUS_NOTICES_MAX);
        assert!(drained.overflowed);
        assert_eq!(inboxes[0].drain(), None);
    }
}
