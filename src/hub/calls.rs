//! Calls of legacy agents under way: what may be cancelled by another request of the same session
//! (2025-11-25 basic/utilities/cancellation), on whatever connection and core that comes.

use std::cell::Cell;
use std::rc::Rc;

use hashbrown::HashMap;

use super::desk::Owner;
use crate::core_cell::CoreCell;
use crate::event::Event;
use crate::limits::HUB_CANCEL_ID_BYTES_MAX;

/// The calls of one core: as many as there are requests in flight, at most.
#[derive(Clone, Default)]
pub struct Calls(Rc<CoreCell<State>>);

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Open>,
}

struct Open {
    owner: Owner,
    /// The id as the agent wrote it.
    id: Box<[u8]>,
    flag: Rc<Flag>,
}

#[derive(Default)]
struct Flag {
    cancelled: Cell<bool>,
    rung: Event,
}

/// A call that may be cancelled for as long as this lives.
pub struct Cancellable {
    calls: Calls,
    number: u64,
    flag: Rc<Flag>,
}

impl Calls {
    /// A call begins; `id` is its raw JSON. `None` for an id so long that nobody writes it, which
    /// cannot be cancelled.
    #[must_use]
    pub fn begin(&self, owner: Owner, id: &[u8]) -> Option<Cancellable> {
        if id.len() > HUB_CANCEL_ID_BYTES_MAX {
            return None;
        }
        let flag = Rc::<Flag>::default();
        let number = self.0.with(|state| {
            state.next += 1;
            let open = Open { owner, id: Box::from(id), flag: Rc::clone(&flag) };
            state.open.insert(state.next, open);
            state.next
        });
        Some(Cancellable { calls: self.clone(), number, flag })
    }

    /// Cancels what `owner` calls by this id; false when there is nothing, or it is somebody
    /// else's.
    pub fn cancel(&self, owner: &Owner, id: &[u8]) -> bool {
        let found: Vec<Rc<Flag>> = self.0.with(|state| {
            let own = state.open.values().filter(|open| open.owner == *owner && *open.id == *id);
            own.map(|open| Rc::clone(&open.flag)).collect()
        });
        // Outside the cell: waking may run code of the event loop.
        for flag in &found {
            flag.cancelled.set(true);
            flag.rung.ring();
        }
        !found.is_empty()
    }
}

impl Cancellable {
    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.cancelled.get()
    }

    /// Ends when it is cancelled. May be dropped at any time.
    pub async fn cancelled(&self) {
        let seen = self.flag.rung.version();
        if !self.is_cancelled() {
            self.flag.rung.changed(seen).await;
        }
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.calls.0.with(|state| state.open.remove(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::mcp::hub_session::SessionMark;

    fn owner(principal: u8, session: u8) -> Owner {
        Owner { principal: [principal; 32], session: SessionMark([session; 16]) }
    }

    #[test]
    fn a_call_is_cancelled_by_its_own_session_and_id_only() {
        let calls = Calls::default();
        let call = calls.begin(owner(1, 1), b"7").unwrap();
        let text = calls.begin(owner(1, 1), b"\"7\"").unwrap();
        for (stranger, id) in
            [(owner(2, 1), &b"7"[..]), (owner(1, 2), b"7"), (owner(1, 1), b"8"), (owner(1, 1), b"")]
        {
            assert!(!calls.cancel(&stranger, id));
        }
        assert!(!call.is_cancelled() && !text.is_cancelled());
        assert!(calls.cancel(&owner(1, 1), b"7"));
        assert!(call.is_cancelled() && !text.is_cancelled(), "a number is no string");
        drop(call);
        assert!(!calls.cancel(&owner(1, 1), b"7"), "it is over");
        assert!(calls.cancel(&owner(1, 1), b"\"7\""));
        drop(text);
        assert!(calls.0.with(|state| state.open.is_empty()));
    }

    #[test]
    fn whoever_waits_hears_of_it_and_so_does_who_comes_later() {
        let calls = Calls::default();
        let call = calls.begin(owner(1, 1), b"7").unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut waits = pin!(call.cancelled());
        assert_eq!(waits.as_mut().poll(&mut context), Poll::Pending);
        assert!(calls.cancel(&owner(1, 1), b"7"));
        assert_eq!(waits.as_mut().poll(&mut context), Poll::Ready(()));
        assert_eq!(pin!(call.cancelled()).poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn an_id_that_nobody_writes_is_not_kept() {
        let calls = Calls::default();
        assert!(calls.begin(owner(1, 1), &[b'1'; HUB_CANCEL_ID_BYTES_MAX]).is_some());
        assert!(calls.begin(owner(1, 1), &[b'1'; HUB_CANCEL_ID_BYTES_MAX + 1]).is_none());
    }
}
