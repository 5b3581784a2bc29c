//! Watches an answer under way: token, policy and configuration are judged again while it is open.

use std::cell::Cell;

use super::decide;
use super::exchange::{Exchange, binding};
use crate::audit::{Empty, Tally};
use crate::clock::Monotonic;
use crate::control::jwks::ProviderKeys;
use crate::http::Method as HttpMethod;
use crate::identity::VerifiedToken;
use crate::mcp::{Listed, Method};
use crate::policy::Shown;
use crate::reject::Reject;
use crate::relay::{Filter, Oversight, Review};
use crate::shard::Shard;
use crate::world::World;

/// The gateway's eye on one relayed answer.
pub(super) struct Watch<'a> {
    shard: &'a Shard,
    exchange: &'a Exchange,
    /// GET and listen streams end with the token; an answer in flight may finish (DESIGN §8).
    is_stream: bool,
    keep_alive: bool,
    farewell: Vec<u8>,
    judged_at: Cell<Monotonic>,
    judged_under: Cell<Basis>,
    /// What was shown of lists so far.
    tally: Cell<Option<Tally>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        shard: &'a Shard,
        exchange: &'a Exchange,
        keep_alive: bool,
        farewell: Vec<u8>,
    ) -> Self {
        Self {
            shard,
            exchange,
            is_stream: exchange.is_stream(),
            keep_alive,
            farewell,
            judged_at: Cell::new(shard.timers.now()),
            judged_under: Cell::new(Basis::of(&exchange.world, exchange)),
            tally: Cell::new(None),
        }
    }

    /// What was shown of lists.
    pub(super) fn tally(&self) -> Option<Tally> {
        self.tally.get()
    }

    /// Adds one list, or one page of it, to what the record says.
    fn count(&self, items: usize, kept: &[bool], forbidden: bool) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let before = self.tally.get().unwrap_or_default();
        let upstream = before.upstream.saturating_add(number(items));
        let shown = number(kept.iter().filter(|kept| **kept).count());
        let shown = before.shown.saturating_add(shown);
        let empty = match (upstream, shown) {
            (0, _) => Some(Empty::Upstream),
            (_, 0) if forbidden => Some(Empty::Forbidden),
            (_, 0) => Some(Empty::NoPermit),
            _ => None,
        };
        self.tally.set(Some(Tally { upstream, shown, empty }));
    }

    /// The same questions as at the beginning, under the newest snapshot.
    fn judge(&self) -> Review {
        let clocks = self.shard.clock.now();
        let now = clocks.wall.seconds();
        let world = self.shard.world();
        let (Some(token), old) = (self.exchange.token.as_deref(), &self.exchange.world) else {
            return Review::Cut(Reject::GatewayFault);
        };
        if self.is_stream
            && let Err(reject) = token.judge_time(now)
        {
            return Review::Cut(reject);
        }
        if !decide::still_trusted(old, &world, token, self.is_stream) {
            return Review::Cut(Reject::TokenIssuer);
        }
        if self.is_stream
            && let Err(reject) = decide::key_holds(&world, token, clocks.mono)
        {
            return Review::Cut(reject);
        }
        if !decide::read_alike(self.exchange, &world) {
            return Review::Cut(Reject::PolicyStreamDenied);
        }
        let permit = match decide::permit(self.shard, &world, self.exchange, now) {
            Ok(permit) => permit,
            Err(denial) => return Review::Cut(denial.reject),
        };
        // A stream goes on for hours: it must not stay with a server or a credential that the
        // configuration no longer names for it. One call is already with its server.
        if self.is_stream && !decide::same_way(self.exchange, &world, &permit) {
            return Review::Cut(Reject::PolicyStreamDenied);
        }
        Review::Continue
    }

    /// True once the token of a stream counts no more; exact, not only once per judgement.
    fn expired(&self) -> bool {
        let token = self.exchange.token.as_deref();
        let until = token.map(VerifiedToken::counts_until);
        self.is_stream && until.is_some_and(|until| self.shard.clock.now().wall.seconds() >= until)
    }
}

/// MCP 2026-07-28, patterns, "Subscriptions": a server that ends a listen stream in an orderly way
/// says so with the result of the request, or the client takes it for a loss. Empty for all else,
/// which costs nothing.
pub(super) fn farewell(exchange: &Exchange) -> Vec<u8> {
    let mut event = Vec::new();
    let listens = exchange.mcp_method() == Some(Method::SubscriptionsListen);
    if let Some(id) = exchange.scratch.call.id_raw(&exchange.scratch.body).filter(|_| listens) {
        event.extend_from_slice(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":");
        event.extend_from_slice(id);
        event.extend_from_slice(b",\"result\":{\"resultType\":\"complete\",\"_meta\":");
        event.extend_from_slice(b"{\"io.modelcontextprotocol/subscriptionId\":");
        event.extend_from_slice(id);
        event.extend_from_slice(b"}}}\n\n");
    }
    event
}

/// What a judgement depends on; addresses that come and go are no reason for a new one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Basis {
    config: u64,
    policy: u64,
    /// Generation of the keys of the token's issuer.
    keys: Option<u64>,
}

impl Basis {
    fn of(world: &World, exchange: &Exchange) -> Self {
        let keys = exchange.token.as_deref().and_then(|token| decide::keys(world, token));
        Self {
            config: world.snapshot.config_generation,
            policy: world.snapshot.policy.epoch(),
            keys: keys.map(ProviderKeys::generation),
        }
    }
}

impl Oversight for Watch<'_> {
    fn review(&self) -> Review {
        self.shard.drain_bus();
        let (now, world) = (self.shard.timers.now(), self.shard.world());
        if world.snapshot.draining && self.is_stream {
            return Review::Finish;
        }
        if self.expired() {
            return Review::Cut(Reject::TokenExpired);
        }
        let basis = Basis::of(&world, self.exchange);
        let age = now.micros_since(self.judged_at.get());
        if basis == self.judged_under.get() && age < REJUDGE_MICROS {
            return Review::Continue;
        }
        self.judged_at.set(now);
        self.judged_under.set(basis);
        self.judge()
    }

    fn name_session(&self, upstream_id: &[u8], out: &mut Vec<u8>) -> Result<bool, Reject> {
        if let Some(session) = &self.exchange.session
            && session.upstream == upstream_id
        {
            // Sealed anew it would count from now, and its lifetime would never end.
            out.extend_from_slice(&session.sealed);
            return Ok(true);
        }
        // 2025-11-25, transports, "Session Management": assigned with the answer to initialize.
        if self.exchange.mcp_method() != Some(Method::Initialize) {
            return Ok(false);
        }
        let token = self.exchange.token.as_deref().ok_or(Reject::GatewayFault)?;
        let binding = binding(token, &self.exchange.scratch.server);
        let now = self.shard.clock.now().wall.seconds();
        self.exchange.world.sessions.seal(&binding, upstream_id, now, out).map(|()| true)
    }

    fn filter(&self) -> Filter {
        // 2025-11-25, transports, "Resumability and Redelivery": what a resumed stream brings may
        // be the answer to any earlier request.
        if self.exchange.method == HttpMethod::Get {
            return Filter::Replay;
        }
        let listed = self.exchange.mcp_method().and_then(Listed::of);
        listed.map_or(Filter::Nothing, Filter::List)
    }

    fn keep(
        &self,
        listed: Listed,
        items: usize,
        names: &[&str],
        kept: &mut Vec<bool>,
    ) -> Result<(), Reject> {
        self.shard.drain_bus();
        let now = self.shard.clock.now().wall.seconds();
        let world = self.shard.world();
        let mut forbidden = false;
        decide::shown(self.shard, &world, self.exchange, now, listed, names, |shown| {
            kept.push(shown == Shown::Yes);
            forbidden |= shown == Shown::Forbidden;
        })?;
        self.count(items, kept, forbidden);
        Ok(())
    }

    fn private_lists(&self) -> bool {
        self.exchange.is_modern()
    }

    fn farewell(&self) -> &[u8] {
        &self.farewell
    }

    fn last_answer(&self) -> bool {
        !self.keep_alive || self.shard.draining()
    }
}

/// Half of the 60 s that the design allows, so that a late tick does not pass it.
const REJUDGE_MICROS: u64 = 30_000_000;
