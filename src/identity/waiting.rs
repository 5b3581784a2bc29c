//! Waiting without blocking for keys that the control thread fetches.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::clock::Monotonic;
use crate::core_cell::CoreCell;
use crate::limits::{KEYS_WAITING_ALL_MAX, KEYS_WAITING_MAX};

/// Who waits for the keys of which provider. One question per provider is under way at a time.
///
/// # Security
/// Whoever makes up a key id can wait here, so the waiters are bounded: else they would fill the
/// places of requests in flight while an issuer is slow, and lock out those whose tokens are known.
#[derive(Default)]
pub(in crate::identity) struct KeyWaiters(CoreCell<Vec<Lane>>);

/// One provider.
#[derive(Default)]
struct Lane {
    /// What the keys looked like when the question was asked; `None` = no question is under way.
    question: Option<Seen>,
    /// Grows with every answer: a waiter is done when it differs from the one it began with.
    round: u64,
    next_id: u64,
    /// INVARIANT: at most `KEYS_WAITING_MAX`, ascending by id: who begins to wait shows its waker
    /// at once.
    wakers: Vec<(u64, Waker)>,
}

/// Tells one snapshot of keys from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) struct Seen {
    pub(in crate::identity) epoch: u64,
    pub(in crate::identity) fetched_at: Monotonic,
}

impl KeyWaiters {
    /// Asks (unless somebody did) and waits for the answer; false at once when too many wait, or
    /// when `deadline` came first, after which the next one asks anew, so that a lost answer cannot
    /// block for ever.
    pub(in crate::identity) async fn wait(
        &self,
        provider: u16,
        seen: Seen,
        ask: impl FnOnce(),
        deadline: impl Future<Output = ()>,
    ) -> bool {
        if self.is_full(provider) {
            return false;
        }
        let (first, round, id) = self.lane(provider, |lane| {
            let first = lane.question.replace(seen) != Some(seen);
            lane.next_id += 1;
            (first, lane.round, lane.next_id)
        });
        if first {
            ask();
        }
        let _leave = Leave { waiters: self, provider, id };
        let mut deadline = pin!(deadline);
        poll_fn(|context| {
            if self.answered(provider, round, id, context) {
                return Poll::Ready(true);
            }
            if deadline.as_mut().poll(context).is_ready() {
                self.lane(provider, |lane| lane.question = None);
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// The question of `provider` was answered: its waiters look again.
    pub(in crate::identity) fn answer(&self, provider: u16) {
        let woken = self.lane(provider, |lane| {
            lane.round += 1;
            lane.question = None;
            std::mem::take(&mut lane.wakers)
        });
        // Outside the cell: waking may run code of the event loop.
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Answers every question whose keys look different now.
    pub(in crate::identity) fn answer_changed(&self, now: impl Fn(u16) -> Option<Seen>) {
        let changed: Vec<u16> = self.0.with(|lanes| {
            (0_u16..)
                .zip(lanes.iter())
                .filter(|(provider, lane)| {
                    lane.question.is_some() && lane.question != now(*provider)
                })
                .map(|(provider, _)| provider)
                .collect()
        });
        for provider in changed {
            self.answer(provider);
        }
    }

    fn answered(&self, provider: u16, round: u64, id: u64, context: &Context<'_>) -> bool {
        self.lane(provider, |lane| {
            if lane.round != round {
                return true;
            }
            match lane.find(id).and_then(|at| lane.wakers.get_mut(at)) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => lane.wakers.push((id, context.waker().clone())),
            }
            false
        })
    }

    fn is_full(&self, provider: u16) -> bool {
        self.0.with(|lanes| {
            let own = lanes.get(usize::from(provider)).map_or(0, |lane| lane.wakers.len());
            let all: usize = lanes.iter().map(|lane| lane.wakers.len()).sum();
            own >= KEYS_WAITING_MAX || all >= KEYS_WAITING_ALL_MAX
        })
    }

    fn lane<R>(&self, provider: u16, change: impl FnOnce(&mut Lane) -> R) -> R {
        self.0.with(|lanes| {
            let at = usize::from(provider);
            if lanes.len() <= at {
                lanes.resize_with(at + 1, Lane::default);
            }
            match lanes.get_mut(at) {
                Some(lane) => change(lane),
                // Not reachable after the resize; a fresh lane has no question and no waiters.
                None => change(&mut Lane::default()),
            }
        })
    }
}

impl Lane {
    fn find(&self, id: u64) -> Option<usize> {
        self.wakers.binary_search_by_key(&id, |(id, _)| *id).ok()
    }
}

/// Takes a waiter's waker out however the wait ends: the connection may go first.
struct Leave<'a> {
    waiters: &'a KeyWaiters,
    provider: u16,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.waiters.lane(self.provider, |lane| {
            if let Some(at) = lane.find(self.id) {
                lane.wakers.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests;
