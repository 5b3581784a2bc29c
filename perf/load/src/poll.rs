//! Epoll, edge triggered, with a deadline of nanosecond precision.
//!
//! Every socket is registered once, for both directions, and never again: an edge costs no further system call,
//! and whoever gets one reads until a read comes back short.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::clock::{self, Nanos, SECOND};
use crate::fault::{Doing, Fault};

const EVENTS_MAX: usize = 512;

/// What became ready.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// The key given to [`Poll::watch`].
    pub(crate) key: u64,
    /// The peer has closed its side or the socket failed: read until the end is seen.
    pub(crate) ending: bool,
}

/// One epoll instance.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> Result<Self, Fault> {
        // The kernel rounds deadlines of ordinary threads up by 50 µs to save wake-ups; here that is error.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).doing("timer slack")?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).doing("epoll")?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Both directions of a socket, edge triggered. Closing the socket ends it.
    pub(crate) fn watch(&self, socket: impl AsFd, key: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(key), flags)
    }

    /// Input only, level triggered: listeners, signals, standard input.
    pub(crate) fn watch_input(&self, file: impl AsFd, key: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, file, EventData::new_u64(key), EventFlags::IN)
    }

    /// Waits for events, at most until `deadline`; `ready` then holds what came.
    pub(crate) fn wait(
        &mut self,
        deadline: Option<Nanos>,
        ready: &mut Vec<Ready>,
    ) -> Result<(), Fault> {
        ready.clear();
        let timeout = deadline.map(|at| timespec(at.saturating_sub(clock::now())));
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::new(format!("epoll: {error}"))),
        }
        let ending = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        ready.extend(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Ready { key: data.u64(), ending: flags.intersects(ending) }
        }));
        Ok(())
    }
}

fn timespec(nanos: Nanos) -> Timespec {
    let (seconds, rest) = (nanos / SECOND, nanos % SECOND);
    Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(rest).unwrap_or(0),
    }
}
