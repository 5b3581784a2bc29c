//! How much of a turn of the event loop goes into signatures that this core has not seen.
//!
//! One verification takes some 60 µs, so sixty-four at once would hold up every other connection of
//! the core for 4 ms. A turn does a few of them; the others wait in the order in which they came,
//! and between two batches the loop looks at everything else. The queue is bounded in length and a
//! wait in time: beyond either a request is told that the gateway is overloaded, because tokens
//! that nobody has verified may be anybody's.
//!
//! # Security
//! Nothing is decided here. Which error is safe: a place too many costs latency, a place too few
//! costs an honest newcomer a 503; who is remembered never comes here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::core_cell::CoreCell;
use crate::limits::{VERIFY_PER_TURN_MAX, VERIFY_WAITING_MAX};
use crate::reject::Reject;

/// The budget of one core, and who waits for it.
#[derive(Default)]
pub(in crate::identity) struct Pace(CoreCell<Queue>);

#[derive(Default)]
struct Queue {
    /// Places given in this turn.
    used: u32,
    /// INVARIANT: ascending by number.
    waiting: VecDeque<(u64, Waker)>,
    next_number: u64,
    /// Every number below was given a place, or left.
    served: u64,
    /// Who begins new turns.
    pacer: Option<Waker>,
}

/// A place in the queue; left when this goes, however the wait ends.
struct Ticket<'a> {
    pace: &'a Pace,
    number: u64,
}

enum Entered {
    Admitted,
    Waits(u64),
    Full,
}

impl Pace {
    /// Comes back when this turn has room for one verification.
    ///
    /// # Errors
    /// `GatewayOverloaded` when too many wait, or when `deadline` comes first.
    pub(in crate::identity) async fn admit(
        &self,
        deadline: impl Future<Output = ()>,
    ) -> Result<(), Reject> {
        let (entered, pacer) = self.0.with(Queue::enter);
        // Outside the cell, here and below: waking may run code of the event loop.
        pacer.into_iter().for_each(Waker::wake);
        let number = match entered {
            Entered::Admitted => return Ok(()),
            Entered::Full => return Err(Reject::GatewayOverloaded),
            Entered::Waits(number) => number,
        };
        let ticket = Ticket { pace: self, number };
        let mut deadline = pin!(deadline);
        poll_fn(|context| {
            if self.0.with(|queue| queue.is_served(ticket.number, context)) {
                return Poll::Ready(Ok(()));
            }
            deadline.as_mut().poll(context).map(|()| Err(Reject::GatewayOverloaded))
        })
        .await
    }

    /// The place was not needed: another request verified the same token meanwhile.
    pub(in crate::identity) fn give_back(&self) {
        self.0.with(|queue| queue.used = queue.used.saturating_sub(1));
        self.serve();
    }

    /// Ends when this turn has no room left. For one caller: whoever begins new turns.
    pub(in crate::identity) async fn spent(&self) {
        poll_fn(|context| {
            self.0.with(|queue| {
                if queue.used >= VERIFY_PER_TURN_MAX {
                    return Poll::Ready(());
                }
                queue.pacer = Some(context.waker().clone());
                Poll::Pending
            })
        })
        .await;
    }

    /// The loop has turned: there is room again.
    pub(in crate::identity) fn new_turn(&self) {
        self.0.with(|queue| queue.used = 0);
        self.serve();
    }

    fn serve(&self) {
        while let Some(waker) = self.0.with(Queue::serve_next) {
            waker.wake();
        }
    }
}

impl Queue {
    /// The second value is to be woken: this turn has no room any more.
    fn enter(&mut self) -> (Entered, Option<Waker>) {
        if self.waiting.is_empty() && self.used < VERIFY_PER_TURN_MAX {
            self.used += 1;
            let spent = self.used >= VERIFY_PER_TURN_MAX;
            return (Entered::Admitted, self.pacer.take_if(|_| spent));
        }
        if self.waiting.len() >= VERIFY_WAITING_MAX {
            return (Entered::Full, None);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.push_back((number, Waker::noop().clone()));
        (Entered::Waits(number), None)
    }

    fn is_served(&mut self, number: u64, context: &Context<'_>) -> bool {
        if number < self.served {
            return true;
        }
        if let Some((_, waker)) = self.find(number).and_then(|at| self.waiting.get_mut(at)) {
            waker.clone_from(context.waker());
        }
        false
    }

    fn serve_next(&mut self) -> Option<Waker> {
        if self.used >= VERIFY_PER_TURN_MAX {
            return None;
        }
        let (number, waker) = self.waiting.pop_front()?;
        self.used += 1;
        self.served = number + 1;
        Some(waker)
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pace.0.with(|queue| {
            if let Some(at) = queue.find(self.number) {
                queue.waiting.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests;
