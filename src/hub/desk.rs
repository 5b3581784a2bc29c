//! What waits for a client's word: a request that we sent it on a server's behalf, and whose answer
//! may come on any connection, and on any core.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::clock::Monotonic;
use crate::core_cell::CoreCell;
use crate::event::Event;
use crate::limits::{HUB_PENDING_PER_CORE_MAX, HUB_PENDING_PER_PRINCIPAL_MAX};
use crate::mcp::hub_session::SessionMark;
use crate::reject::Reject;

/// Names one thing that waits. Never comes twice within a process and core, so that a late answer
/// finds nothing instead of somebody else's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyId(pub u64);

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `bound_to` issuer, subject and agent.
    pub principal: [u8; 32],
    /// The client's session, within which the question was asked.
    pub session: SessionMark,
}

/// One thing that waits.
#[derive(Debug)]
pub struct Pending<T> {
    /// Who may answer.
    pub owner: Owner,
    /// Until when.
    pub until: Monotonic,
    /// What is to be done with the answer.
    pub what: T,
}

/// What waits on one core.
pub struct Desk<T>(CoreCell<State<T>>);

struct State<T> {
    next: u64,
    /// INVARIANT: at most `HUB_PENDING_PER_CORE_MAX`, ascending by id.
    pending: Vec<(ReplyId, Pending<T>)>,
}

impl<T> Default for Desk<T> {
    fn default() -> Self {
        Self(CoreCell::new(State { next: 1, pending: Vec::new() }))
    }
}

impl<T> Desk<T> {
    /// Puts something down.
    ///
    /// # Errors
    /// `GatewayOverloaded` when too much waits, for this owner or on this core.
    pub fn put(&self, pending: Pending<T>) -> Result<ReplyId, Reject> {
        self.0.with(|state| {
            let principal = &pending.owner.principal;
            let own = state.pending.iter().filter(|(_, it)| it.owner.principal == *principal);
            if own.count() >= HUB_PENDING_PER_PRINCIPAL_MAX
                || state.pending.len() >= HUB_PENDING_PER_CORE_MAX
            {
                return Err(Reject::GatewayOverloaded);
            }
            let id = ReplyId(state.next);
            state.next = state.next.checked_add(1).ok_or(Reject::GatewayFault)?;
            state.pending.push((id, pending));
            Ok(id)
        })
    }

    /// Takes it away, once, for its owner and in time. `None` is not told apart: unknown, answered
    /// already, too late, or somebody else's, which then goes on waiting for its owner.
    #[must_use]
    pub fn take(&self, id: ReplyId, owner: &Owner, now: Monotonic) -> Option<Pending<T>> {
        self.0.with(|state| {
            let at = state.pending.binary_search_by_key(&id.0, |(id, _)| id.0).ok()?;
            let (_, found) = state.pending.get(at)?;
            if found.owner != *owner || found.until <= now {
                return None;
            }
            Some(state.pending.remove(at).1)
        })
    }

    /// Takes away what waits no longer: whoever asked has gone. Nobody's word is needed for that.
    #[must_use]
    pub fn withdraw(&self, id: ReplyId) -> Option<Pending<T>> {
        self.0.with(|state| {
            let at = state.pending.binary_search_by_key(&id.0, |(id, _)| id.0).ok()?;
            Some(state.pending.remove(at).1)
        })
    }

    /// Takes away everything whose time is over. To be told so outside of any borrow.
    #[must_use]
    pub fn expire(&self, now: Monotonic) -> Vec<(ReplyId, Pending<T>)> {
        self.0.with(|state| state.pending.extract_if(.., |(_, it)| it.until <= now).collect())
    }

    /// How many things wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.with(|state| state.pending.len())
    }

    /// Whether nothing does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where one answer is laid down for who waits for it.
#[derive(Default)]
pub struct Letterbox {
    body: CoreCell<Option<Vec<u8>>>,
    rung: Event,
}

impl Letterbox {
    /// Lays it down; the first one stays.
    pub fn put(&self, body: Vec<u8>) {
        self.body.with(|held| {
            held.get_or_insert(body);
        });
        self.rung.ring();
    }

    /// Ends with the answer. Has no deadline of its own; may be dropped at any time.
    pub fn taken(&self) -> Taken<'_> {
        Taken(self)
    }
}

/// See [`Letterbox::taken`].
pub struct Taken<'a>(&'a Letterbox);

impl Future for Taken<'_> {
    type Output = Vec<u8>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<u8>> {
        // Before looking: what is laid down after that rings.
        let mut rung = self.0.rung.changed(self.0.rung.version());
        if let Some(body) = self.0.body.with(Option::take) {
            return Poll::Ready(body);
        }
        // Nothing can ring in between, so this only leaves the waker.
        let _ = Pin::new(&mut rung).poll(context);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;
    use std::time::Duration;

    use super::*;

    const UNTIL: Monotonic = Monotonic(2_000);
    const NOW: Monotonic = Monotonic(1_999);

    fn owner(number: u8) -> Owner {
        Owner { principal: [number; 32], session: SessionMark([number; 16]) }
    }

    fn pending(number: u8, what: &'static str) -> Pending<&'static str> {
        Pending { owner: owner(number), until: UNTIL, what }
    }

    #[test]
    fn its_owner_takes_it_once_and_nobody_else_does() {
        let desk = Desk::default();
        let one = desk.put(pending(1, "one")).unwrap();
        let two = desk.put(pending(2, "two")).unwrap();
        let other_session = Owner { session: SessionMark([9; 16]), ..owner(1) };
        for stranger in [owner(2), other_session] {
            assert!(desk.take(one, &stranger, NOW).is_none(), "somebody else's");
        }
        assert!(desk.take(ReplyId(99), &owner(1), NOW).is_none());
        assert_eq!(desk.take(one, &owner(1), NOW).map(|it| it.what), Some("one"));
        assert!(desk.take(one, &owner(1), NOW).is_none(), "a second answer");
        assert!(desk.take(two, &owner(2), UNTIL).is_none(), "too late");
        assert_eq!(desk.take(two, &owner(2), NOW).map(|it| it.what), Some("two"));
        assert!(desk.is_empty());
    }

    #[test]
    fn no_id_comes_twice() {
        let desk = Desk::default();
        let mut last = 0;
        for round in 0..1_000 {
            let id = desk.put(pending(1, "x")).unwrap();
            assert!(id.0 > last);
            last = id.0;
            let gone = match round % 2 {
                0 => desk.take(id, &owner(1), NOW),
                _ => desk.withdraw(id),
            };
            assert!(gone.is_some() && desk.withdraw(id).is_none());
        }
    }

    #[test]
    fn what_is_late_is_handed_out_to_be_told() {
        let desk = Desk::default();
        let early = desk.put(pending(1, "early")).unwrap();
        let until = UNTIL.after(Duration::from_micros(1));
        let late = desk.put(Pending { until, ..pending(1, "late") }).unwrap();
        assert!(desk.expire(NOW).is_empty());
        let expired: Vec<_> =
            desk.expire(UNTIL).into_iter().map(|(id, it)| (id, it.what)).collect();
        assert_eq!(expired, [(early, "early")]);
        assert!(desk.take(late, &owner(1), UNTIL).is_some());
    }

    #[test]
    fn one_owner_fills_no_others_place_and_nobody_the_memory() {
        let desk = Desk::default();
        let first = desk.put(pending(1, "x")).unwrap();
        for _ in 1..HUB_PENDING_PER_PRINCIPAL_MAX {
            // Another session is not another principal.
            let owner = Owner { session: SessionMark([7; 16]), ..owner(1) };
            desk.put(Pending { owner, ..pending(1, "x") }).unwrap();
        }
        assert_eq!(desk.put(pending(1, "x")), Err(Reject::GatewayOverloaded));
        for number in 0..HUB_PENDING_PER_CORE_MAX - HUB_PENDING_PER_PRINCIPAL_MAX {
            let number = 2 + number / HUB_PENDING_PER_PRINCIPAL_MAX;
            desk.put(pending(u8::try_from(number).unwrap(), "x")).unwrap();
        }
        assert_eq!(desk.put(pending(200, "x")), Err(Reject::GatewayOverloaded));
        assert!(desk.take(first, &owner(1), NOW).is_some());
        assert!(desk.put(pending(200, "x")).is_ok());
    }

    #[test]
    fn a_letterbox_gives_its_first_letter_whenever_it_comes() {
        let mut context = Context::from_waker(Waker::noop());
        let letterbox = Letterbox::default();
        let mut taken = pin!(letterbox.taken());
        assert!(taken.as_mut().poll(&mut context).is_pending());
        letterbox.put(b"first".to_vec());
        letterbox.put(b"second".to_vec());
        assert_eq!(taken.as_mut().poll(&mut context), Poll::Ready(b"first".to_vec()));
        let early = Letterbox::default();
        early.put(b"early".to_vec());
        assert_eq!(pin!(early.taken()).poll(&mut context), Poll::Ready(b"early".to_vec()));
    }
}
