//! Watches an answer under way: token, policy and configuration are judged again while it is open.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use super::exchange::Exchange;
use super::session::binding;
use super::words::Words;
use super::{ask, decide};
use crate::audit::{Empty, Tally};
use crate::clock::{Monotonic, UnixSeconds};
use crate::control::authzen::{Answer, Endpoints};
use crate::control::jwks::ProviderKeys;
use crate::http::Method as HttpMethod;
use crate::identity::VerifiedToken;
use crate::mcp::{Listed, Method};
use crate::net::runtime;
use crate::policy::{Denial, Permit, Shown};
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
    words: Words,
    /// What decides on what the agent sees, of a stream.
    marked: Cell<Option<u64>>,
    /// It changed, and the agent was not told yet that its lists may have.
    changed: Cell<bool>,
    judged_at: Cell<Monotonic>,
    judged_under: Cell<Basis>,
    began_under: Basis,
    /// What was asked of a remote decision point and not yet answered.
    asked: RefCell<Option<Asked>>,
    /// Since when it could not be asked, because nobody knows yet where it takes questions; and of
    /// which configuration it is.
    unknown_since: Cell<Option<(Monotonic, u64)>>,
    /// What was answered counts for nothing any more.
    ask_again: Cell<bool>,
    /// When the open answer was last permitted.
    permitted_at: Cell<Monotonic>,
    /// What was shown of lists so far.
    tally: Cell<Option<Tally>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        shard: &'a Shard,
        exchange: &'a Exchange,
        keep_alive: bool,
        words: Words,
    ) -> Self {
        // What was permitted on an answer of a while ago is asked about as much sooner.
        let permitted_at = exchange.kept_since.unwrap_or_else(|| shard.timers.now());
        Self {
            shard,
            exchange,
            is_stream: exchange.is_stream(),
            keep_alive,
            words,
            marked: Cell::new(mark(exchange, &exchange.world)),
            changed: Cell::new(false),
            judged_at: Cell::new(permitted_at),
            judged_under: Cell::new(Basis::of(&exchange.world, exchange)),
            began_under: Basis::of(&exchange.world, exchange),
            asked: RefCell::new(None),
            unknown_since: Cell::new(None),
            ask_again: Cell::new(false),
            permitted_at: Cell::new(permitted_at),
            tally: Cell::new(None),
        }
    }

    /// What was shown of lists.
    pub(super) fn tally(&self) -> Option<Tally> {
        self.tally.get()
    }

    /// Adds one list, or one page of it, to what the record of this exchange says.
    fn count(&self, items: usize, kept: &[bool], why: Empty) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let before = self.tally.get().unwrap_or_default();
        let upstream = before.upstream.saturating_add(number(items));
        let shown = number(kept.iter().filter(|kept| **kept).count());
        let shown = before.shown.saturating_add(shown);
        // Of several pages or lists in one stream the strongest reason stays. A page that was
        // asked for by itself is an exchange of its own.
        let why = if items == 0 { Empty::Upstream } else { why };
        let empty = (shown == 0).then(|| before.empty.map_or(why, |before| before.max(why)));
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
        if world.snapshot.pdp.is_some() {
            return self.ask(world, now);
        }
        self.unknown_since.set(None);
        let exchange = self.exchange;
        if exchange.is_at_hub() {
            let connected = decide::connect(self.shard, &world, exchange, now);
            return self.follow(&world, connected.map(|_| None));
        }
        let permitted = decide::permit(self.shard, &world, exchange, now);
        self.follow(&world, permitted.map(Some))
    }

    /// Asks the remote decision point; what it answers is looked at in a later review.
    fn ask(&self, world: Rc<World>, now: UnixSeconds) -> Review {
        if let Some(review) = self.waits_for(&world) {
            return review;
        }
        let questions = match ask::questions(&world, self.exchange, now, ask::What::Message) {
            Ok(questions) => questions,
            Err(denial) => return Review::Cut(denial.reject),
        };
        let answers = Rc::new(Cell::new(None));
        let (pdp, slot) = (Rc::clone(&self.shard.pdp), Rc::clone(&answers));
        let asked_of = Rc::clone(&world);
        runtime::spawn(async move {
            let snapshot = &asked_of.snapshot;
            if let Some(point) = &snapshot.pdp {
                slot.set(Some(pdp.ask(point, snapshot.config_generation, &questions).await));
            }
        });
        *self.asked.borrow_mut() = Some(Asked { world, answers });
        Review::Continue
    }

    /// A point that was configured a moment ago takes questions as soon as it is known where. That
    /// is waited for as long as an answer would be.
    fn waits_for(&self, world: &World) -> Option<Review> {
        let unknown = world.snapshot.pdp.as_ref().filter(|it| it.endpoints == Endpoints::Unknown);
        let Some(point) = unknown else {
            self.unknown_since.set(None);
            return None;
        };
        let (now, generation) = (self.shard.timers.now(), world.snapshot.config_generation);
        let of_this = self.unknown_since.get().filter(|(_, of)| *of == generation);
        let (since, _) = of_this.unwrap_or((now, generation));
        self.unknown_since.set(Some((since, generation)));
        let late = u128::from(now.micros_since(since)) >= point.timeout.as_micros();
        Some(if late || self.stands_too_long(now) {
            Review::Cut(Reject::PolicyUnavailable)
        } else {
            Review::Continue
        })
    }

    /// What came of the last question, once it is there. No answer stands for longer than the
    /// design allows, whatever keeps the next one away.
    fn heard(&self, now: Monotonic) -> Option<Review> {
        let asked = self.asked.take()?;
        match asked.answers.take() {
            None => {
                *self.asked.borrow_mut() = Some(asked);
                let late = self.stands_too_long(now);
                late.then_some(Review::Cut(Reject::PolicyUnavailable))
            }
            // What another point says by now is not heard yet: it is asked at once.
            Some(_) if !asked.world.decides_as(&self.shard.world()) => {
                self.ask_again.set(true);
                let late = self.stands_too_long(now);
                late.then_some(Review::Cut(Reject::PolicyUnavailable))
            }
            Some(answers) => {
                ask::note(self.shard, self.exchange, &answers);
                let answers = answers.as_deref().map_err(|reject| *reject);
                let decided = if self.exchange.is_at_hub() {
                    ask::connected(&asked.world, answers).map(|()| None)
                } else {
                    ask::conclude_with(&asked.world, self.exchange, answers).map(Some)
                };
                match self.follow(&asked.world, decided) {
                    cut @ Review::Cut(_) => Some(cut),
                    Review::Continue | Review::Finish | Review::Say { .. } => None,
                }
            }
        }
    }

    /// The last permit is older than any may be.
    fn stands_too_long(&self, now: Monotonic) -> bool {
        now.micros_since(self.permitted_at.get()) >= STANDS_MICROS
    }

    /// What a new decision means for the open answer.
    fn follow(&self, world: &World, decided: Result<Option<Permit>, Denial>) -> Review {
        let permit = match decided {
            Ok(permit) => permit,
            // What a better login would bring is no matter for an answer under way: one call is
            // with its server already, and a second try would run it twice.
            Err(denial) if denial.step_up.is_some() => {
                let same = Basis::of(world, self.exchange) == self.began_under;
                let goes_on = same && !self.is_stream;
                return if goes_on {
                    Review::Continue
                } else {
                    Review::Cut(Reject::PolicyStreamDenied)
                };
            }
            Err(denial) => return Review::Cut(denial.reject),
        };
        // A stream goes on for hours: it must not stay with a server or a credential that the
        // configuration no longer names for it. One call is already with its server.
        if let Some(permit) = permit.filter(|_| self.is_stream)
            && !decide::same_way(self.exchange, world, &permit)
        {
            return Review::Cut(Reject::PolicyStreamDenied);
        }
        self.permitted_at.set(self.shard.timers.now());
        self.go_on()
    }

    /// A stream that stays open: its agent may be about to hear that its lists changed. Not while
    /// it is asked whether it stays open.
    fn go_on(&self) -> Review {
        let is_settled = self.asked.borrow().is_none() && self.unknown_since.get().is_none();
        if self.changed.get() && is_settled && !self.words.news.is_empty() {
            // 2026-07-28, patterns, "Subscriptions": the acknowledgement comes first.
            Review::Say { answered: self.exchange.method == HttpMethod::Post }
        } else {
            Review::Continue
        }
    }

    /// True once the token of a stream counts no more; exact, not only once per judgement.
    fn expired(&self) -> bool {
        let token = self.exchange.token.as_deref();
        let until = token.map(VerifiedToken::counts_until);
        self.is_stream && until.is_some_and(|until| self.shard.clock.now().wall.seconds() >= until)
    }
}

/// Which policies may decide in the server of a stream; `None` for all else, which costs nothing.
/// What a remote point decides by nobody here sees: each configuration may mean another point, or
/// be read because its policies changed.
fn mark(exchange: &Exchange, world: &World) -> Option<u64> {
    let server = exchange.is_stream().then(|| world.server(&exchange.scratch.server))?;
    let snapshot = &world.snapshot;
    if exchange.is_at_hub() {
        return Some(match &snapshot.pdp {
            Some(_) => snapshot.config_generation,
            None => marks(world),
        });
    }
    match &snapshot.pdp {
        Some(_) => server.map(|_| snapshot.config_generation),
        None => server.map(|server| snapshot.policy.mark(server)),
    }
}

/// The same of a stream of `/mcp`: which servers there are, and what decides in any of them.
fn marks(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (server, index) in world.snapshot.config.servers.iter().zip(0_u16..) {
        (&server.name, &server.prefix, world.snapshot.policy.mark(index)).hash(&mut hasher);
    }
    hasher.finish()
}

/// A question under way.
struct Asked {
    /// Under which it was asked.
    world: Rc<World>,
    answers: Rc<Cell<Option<Answers>>>,
}

type Answers = Result<Vec<Answer>, Reject>;

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
        if let Some(review) = self.heard(now) {
            return review;
        }
        let basis = Basis::of(&world, self.exchange);
        let before = self.judged_under.get();
        let age = now.micros_since(self.judged_at.get());
        let is_known = self.unknown_since.get().is_none() && !self.ask_again.take();
        if basis == before && age < REJUDGE_MICROS && is_known {
            return self.go_on();
        }
        self.judged_at.set(now);
        self.judged_under.set(basis);
        if (basis.config, basis.policy) != (before.config, before.policy) {
            let marked = mark(self.exchange, &world);
            if self.marked.replace(marked) != marked {
                self.changed.set(true);
            }
        }
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
        self.exchange.world.keyring.seal_session(&binding, upstream_id, now, out).map(|()| true)
    }

    fn filter(&self) -> Filter {
        // 2025-11-25, transports, "Resumability and Redelivery": what a resumed stream brings may
        // be the answer to any earlier request.
        if self.exchange.method == HttpMethod::Get {
            return Filter::Replay;
        }
        match self.exchange.mcp_method().and_then(Listed::of) {
            Some(listed) => Filter::List(listed),
            None if self.exchange.session.is_some() => Filter::Strays,
            None => Filter::Nothing,
        }
    }

    async fn keep(
        &self,
        listed: Listed,
        items: usize,
        names: &[&str],
        kept: &mut Vec<bool>,
    ) -> Result<(), Reject> {
        self.shard.drain_bus();
        let now = self.shard.clock.now().wall.seconds();
        let mut world = self.shard.world();
        // What was answered by rules that were replaced meanwhile counts for nothing.
        for again in [true, false] {
            if world.snapshot.pdp.is_none() {
                break;
            }
            // On the heap: who decides here has no room for this in each answer.
            let shown = Box::pin(ask::shown(self.shard, &world, self.exchange, now, listed, names));
            let shown = shown.await;
            self.shard.drain_bus();
            let newest = self.shard.world();
            if world.decides_as(&newest) {
                kept.append(&mut shown?);
                self.count(items, kept, Empty::NoPermit);
                return Ok(());
            }
            if !again {
                return Err(Reject::PolicyUnavailable);
            }
            world = newest;
        }
        let mut why = Empty::NoPermit;
        let each = |shown| {
            kept.push(shown == Shown::Yes);
            why = why.max(match shown {
                Shown::Yes | Shown::NoPermit => Empty::NoPermit,
                Shown::Failed => Empty::Error,
                Shown::Forbidden => Empty::Forbidden,
            });
        };
        let exchange = self.exchange;
        let judged = decide::shown(self.shard, &world, exchange, now, listed, names, each);
        Box::pin(judged).await?;
        self.count(items, kept, why);
        Ok(())
    }

    fn private_lists(&self) -> bool {
        self.exchange.is_modern()
    }

    fn news(&self) -> &[u8] {
        &self.words.news
    }

    fn told(&self) {
        self.changed.set(false);
    }

    fn farewell(&self) -> &[u8] {
        &self.words.farewell
    }

    fn last_answer(&self) -> bool {
        !self.keep_alive || self.shard.draining()
    }
}

/// Half of the 60 s that the design allows, so that a late tick does not pass it.
const REJUDGE_MICROS: u64 = 30_000_000;
/// All of them.
const STANDS_MICROS: u64 = 60_000_000;
