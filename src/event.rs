//! One core's "something changed": tasks wait for it, the worker rings it. Single-threaded.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A counter that can be waited on.
#[derive(Default)]
pub struct Event {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    /// How often it rang. Read this before looking at the state that the event announces.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Wakes everyone who waits.
    pub fn ring(&self) {
        self.version.set(self.version.get().wrapping_add(1));
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends once the version differs from `seen`. May be dropped at any time.
    pub fn changed(&self, seen: u64) -> Changed<'_> {
        Changed { event: self, seen }
    }
}

/// See [`Event::changed`].
pub struct Changed<'a> {
    event: &'a Event,
    seen: u64,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.event.version.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.event.waiting.borrow_mut();
        // One task may poll often before the ring; one entry per task is enough.
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_ring_ends_every_wait_that_began_before_it() {
        let event = Event::default();
        let mut context = Context::from_waker(Waker::noop());
        let seen = event.version();
        let mut wait = pin!(event.changed(seen));
        assert!(wait.as_mut().poll(&mut context).is_pending());
        event.ring();
        assert!(wait.as_mut().poll(&mut context).is_ready());
    }
}
