//! How much of a turn of the event loop goes into signatures that this core has not seen.
//!
//! One verification takes some 60 µs, so sixty-four at once would hold up every other connection of
//! the core for 4 ms. A turn does a few of them; the others wait, and between two batches the loop
//! looks at everything else. They wait by [`Rank`], and in one rank in the order in which they
//! came. The queue of strangers is bounded in length and every wait in time: beyond either a
//! request is told that the gateway is overloaded, because tokens that nobody has verified may be
//! anybody's.
//!
//! # Security
//! Nothing is decided here. Which error is safe: a place too many costs latency, a place too few
//! costs an honest newcomer a 503. Who was verified here before does not queue behind strangers:
//! else whoever sends enough junk would lock out everybody whose token has to be verified again.

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

/// Whose turn comes first; a better rank skips the queue and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::identity) enum Rank {
    /// This very token was verified on this core before.
    Known,
    /// Waited for keys of its issuer, which are there now and have the one it names. At
    /// most `KEYS_WAITING_ALL_MAX`, and only where an issuer has just changed its keys.
    Returning,
    /// Anybody.
    Stranger,
}

#[derive(Default)]
struct Queue {
    /// Places given in this turn, each for one signature; those given back are not in it.
    used: u32,
    known: Lane,
    returning: Lane,
    strangers: Lane,
    /// Who begins new turns.
    pacer: Option<Waker>,
}

/// Who waits in one rank.
#[derive(Default)]
struct Lane {
    /// INVARIANT: ascending by number.
    waiting: VecDeque<(u64, Waker)>,
    next_number: u64,
    /// Every number below was given a place, or left.
    served: u64,
}

/// A place in a lane; left when this goes, however the wait ends.
struct Ticket<'a> {
    pace: &'a Pace,
    rank: Rank,
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
    /// `GatewayOverloaded` when too many strangers wait, or when `deadline` comes first.
    pub(in crate::identity) async fn admit(
        &self,
        rank: Rank,
        deadline: impl Future<Output = ()>,
    ) -> Result<(), Reject> {
        let (entered, pacer) = self.0.with(|queue| queue.enter(rank));
        // Outside the cell, here and below: waking may run code of the event loop.
        pacer.into_iter().for_each(Waker::wake);
        let number = match entered {
            Entered::Admitted => return Ok(()),
            Entered::Full => return Err(Reject::GatewayOverloaded),
            Entered::Waits(number) => number,
        };
        let ticket = Ticket { pace: self, rank, number };
        let mut deadline = pin!(deadline);
        poll_fn(|context| {
            if self.0.with(|queue| queue.lane(rank).is_served(ticket.number, context)) {
                return Poll::Ready(Ok(()));
            }
            deadline.as_mut().poll(context).map(|()| Err(Reject::GatewayOverloaded))
        })
        .await
    }

    /// True when this turn has room for one verification and nobody comes first: then it has one
    /// place less.
    pub(in crate::identity) fn admits_at_once(&self, rank: Rank) -> bool {
        let (admitted, pacer) = self.0.with(|queue| queue.admit(rank));
        pacer.into_iter().for_each(Waker::wake);
        admitted
    }

    /// The place was not needed: while the token waited for it, another request verified the same
    /// one, or it came to nothing without a signature.
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
    /// The second value is to be woken, here and below: this turn has no room any more.
    fn admit(&mut self, rank: Rank) -> (bool, Option<Waker>) {
        if self.used >= VERIFY_PER_TURN_MAX || !self.is_free_until(rank) {
            return (false, None);
        }
        self.used += 1;
        let spent = self.used >= VERIFY_PER_TURN_MAX;
        (true, self.pacer.take_if(|_| spent))
    }

    fn enter(&mut self, rank: Rank) -> (Entered, Option<Waker>) {
        if let (true, pacer) = self.admit(rank) {
            return (Entered::Admitted, pacer);
        }
        // The other lanes need no bound of their own: each who waits is a request in flight.
        if rank == Rank::Stranger && self.strangers.waiting.len() >= VERIFY_WAITING_MAX {
            return (Entered::Full, None);
        }
        (Entered::Waits(self.lane(rank).enter()), None)
    }

    /// Nobody waits who comes before a newcomer of this rank.
    fn is_free_until(&self, rank: Rank) -> bool {
        self.known.waiting.is_empty()
            && (rank < Rank::Returning || self.returning.waiting.is_empty())
            && (rank < Rank::Stranger || self.strangers.waiting.is_empty())
    }

    fn lane(&mut self, rank: Rank) -> &mut Lane {
        match rank {
            Rank::Known => &mut self.known,
            Rank::Returning => &mut self.returning,
            Rank::Stranger => &mut self.strangers,
        }
    }

    fn serve_next(&mut self) -> Option<Waker> {
        if self.used >= VERIFY_PER_TURN_MAX {
            return None;
        }
        let best = self.known.serve().or_else(|| self.returning.serve());
        let waker = best.or_else(|| self.strangers.serve())?;
        self.used += 1;
        Some(waker)
    }
}

impl Lane {
    fn enter(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.push_back((number, Waker::noop().clone()));
        number
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

    fn serve(&mut self) -> Option<Waker> {
        let (number, waker) = self.waiting.pop_front()?;
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
            let lane = queue.lane(self.rank);
            if let Some(at) = lane.find(self.number) {
                lane.waiting.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests;
