//! Watches an answer under way: token, policy and configuration are judged again while it is open.

use std::cell::Cell;

use super::decide;
use super::exchange::{Exchange, binding};
use crate::clock::Monotonic;
use crate::reject::Reject;
use crate::relay::{Oversight, Review};
use crate::shard::Shard;

/// The gateway's eye on one relayed answer.
pub(super) struct Watch<'a> {
    shard: &'a Shard,
    exchange: &'a Exchange,
    /// GET and listen streams end with the token; an answer in flight may finish (DESIGN §8).
    ends_with_token: bool,
    keep_alive: bool,
    judged_at: Cell<Monotonic>,
    judged_under: Cell<u64>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(shard: &'a Shard, exchange: &'a Exchange, keep_alive: bool) -> Self {
        Self {
            shard,
            exchange,
            ends_with_token: exchange.is_stream(),
            keep_alive,
            judged_at: Cell::new(shard.timers.now()),
            judged_under: Cell::new(exchange.world.snapshot.generation),
        }
    }

    /// The same questions as at the beginning, under the newest snapshot.
    fn judge(&self) -> Review {
        let wall = self.shard.clock.now().wall.seconds();
        let world = self.shard.world();
        if self.ends_with_token
            && let Some(token) = self.exchange.token.as_deref()
            && let Err(reject) = decide::token_still_good(&world, token, wall)
        {
            return Review::Cut(reject);
        }
        match decide::permit(self.shard, &world, self.exchange, wall) {
            Ok(_) => Review::Continue,
            Err(denial) => Review::Cut(denial.reject),
        }
    }
}

impl Oversight for Watch<'_> {
    fn review(&self) -> Review {
        self.shard.drain_bus();
        let (now, world) = (self.shard.timers.now(), self.shard.world());
        if world.snapshot.draining && self.ends_with_token {
            return Review::Finish;
        }
        let generation = world.snapshot.generation;
        let age = now.micros_since(self.judged_at.get());
        if generation == self.judged_under.get() && age < REJUDGE_MICROS {
            return Review::Continue;
        }
        self.judged_at.set(now);
        self.judged_under.set(generation);
        self.judge()
    }

    fn seal_session(&self, upstream_id: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
        let token = self.exchange.token.as_deref().ok_or(Reject::GatewayFault)?;
        let binding = binding(token, &self.exchange.scratch.server);
        let now = self.shard.clock.now().wall.seconds();
        self.exchange.world.sessions.seal(&binding, upstream_id, now, out)
    }

    fn last_answer(&self) -> bool {
        !self.keep_alive || self.shard.draining()
    }
}

/// Half of the 60 s that the design allows, so that a late tick does not pass it.
const REJUDGE_MICROS: u64 = 30_000_000;
