//! Everything one core owns, on one page. The worker drives it; a request reaches state only
//! through `&Shard`, and no borrow of it lives across an await.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::ablation::Ablation;
use crate::audit::AuditRing;
use crate::bus::{Drained, Inbox, Notice};
use crate::clock::{Clock, Monotonic, Now};
use crate::control::{Ask, Asker, Slot};
use crate::core_cell::CoreCell;
use crate::credential::{CacheOutcome, Credentials};
use crate::event::Event;
use crate::hub::Hub;
use crate::hub::desk::{Owner, ReplyId};
use crate::identity::{Door, Identity, Trust};
use crate::limits::{QUOTA_CALLERS_MAX, WAITING_BUSY_MAX};
use crate::listener::Inputs;
use crate::mail::{Addressee, Letter, MailKind, Post};
use crate::mcp::hub_session::SessionMark;
use crate::mcp::{Call, Era};
use crate::metrics::{Meter, NoticeKind, SeenEra};
use crate::net::Timers;
use crate::net::pairs::End;
use crate::places::{Place, Places};
use crate::policy::Enforcer;
use crate::policy::remote::Pdp;
use crate::quota::{Exact, Quota};
use crate::reject::Reject;
use crate::relay::Relay;
use crate::world::World;

/// One core's share of the gateway. Not `Send` once built: the `Rc` inside proves it.
pub struct Shard {
    // -- fixed at start, shared read-only --
    /// Position among the workers, as in audit records and metrics.
    pub core: u16,
    /// Both clocks.
    pub clock: Clock,
    /// Where newer snapshots lie.
    pub slot: Arc<Slot>,

    // -- this core only --
    /// Deadlines.
    pub timers: Timers,
    /// Verified tokens, and who waits for keys.
    pub identity: Identity,
    /// The policy enforcement point with its decisions.
    pub enforcer: Enforcer,
    /// Who asks a remote decision point, where one decides.
    pub pdp: Rc<Pdp>,
    /// What was used up of rate limits; of exact ones it holds what all cores count together.
    pub quota: Quota,
    /// Upstream credentials of the last 60 s.
    pub credentials: Credentials,
    /// Upstream connections and buffers.
    pub relay: Relay,
    /// The producer's end of the audit ring.
    pub audit: AuditRing,
    /// What agents' requests are read into, and who may hold it while waiting for one.
    pub inputs: Inputs,
    /// Counters; this core is their one writer.
    pub meter: Meter,
    /// Which checks are off: none, but in a build that measures what they cost.
    pub ablation: Ablation,
    world: CoreCell<Rc<World>>,
    #[expect(clippy::vec_box, reason = "a request takes the box with it; the scratch never moves")]
    scratch: CoreCell<Vec<Box<Scratch>>>,
    connections: Places,
    inflight: Places,
    /// When addresses of each server were last asked for.
    asked_addresses: CoreCell<HashMap<usize, Monotonic>>,
    /// Rung when the gateway drains.
    pub drained: Event,
    /// What is remembered for `/mcp`, and which sessions ended.
    pub hub: Hub,

    // -- crosses cores --
    /// Notices from the control thread.
    inbox: Inbox,
    /// Questions to the control thread.
    asker: Asker,
    /// Letters to other cores.
    pub post: Rc<Post>,
    /// Where they go out and come in, until the worker opens them.
    mail: CoreCell<Vec<End>>,
}

/// Buffers of one request; pooled, so that a warm request allocates nothing.
#[derive(Default)]
pub struct Scratch {
    /// The message reader with its own buffers.
    pub call: Call,
    /// The body as it arrived.
    pub body: Vec<u8>,
    /// Name of the server in the path; empty for `/mcp`.
    pub server: String,
    /// `call` holds a judged message that may stand for others.
    #[cfg(feature = "ablation")]
    pub inspected: bool,
}

/// A request counted as in flight for as long as this lives.
pub struct InFlight<'a> {
    meter: &'a Meter,
    _place: Place<'a>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.meter.counters().inflight.sub(1);
    }
}

/// A connection counted as open for as long as this lives.
pub struct Seat(Rc<Shard>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.leave();
        self.0.meter.counters().connections.sub(1);
    }
}

/// What a worker hands over to its shard.
pub struct Parts {
    /// Position among the workers.
    pub core: u16,
    /// Both clocks.
    pub clock: Clock,
    /// Where snapshots lie.
    pub slot: Arc<Slot>,
    /// The audit ring of this core.
    pub audit: AuditRing,
    /// The counters of this core.
    pub meter: Meter,
    /// What all cores count together.
    pub exact: Arc<Exact>,
    /// The bus.
    pub inbox: Inbox,
    /// The way up.
    pub asker: Asker,
    /// An end of the mail for each of the other workers.
    pub mail: Vec<End>,
}

impl Shard {
    /// Builds the shard on the thread that will own it.
    #[must_use]
    pub fn new(parts: Parts, timers: Timers) -> Rc<Self> {
        let world = Rc::new(World::new(parts.slot.newest(), None));
        let limits = &world.snapshot.config.limits;
        let idle_max = limits.upstream_idle_per_core_max;
        let connections = Places::new(limits.connections_per_core_max);
        let inflight = Places::new(limits.inflight_per_core_max);
        let pdp = Rc::new(Pdp::new(parts.core, timers.clone()));
        let shard = Self {
            core: parts.core,
            clock: parts.clock,
            slot: parts.slot,
            relay: Relay::new(timers.clone(), idle_max),
            timers,
            identity: Identity::new(),
            enforcer: Enforcer::default(),
            pdp,
            quota: Quota::new(QUOTA_CALLERS_MAX, parts.exact),
            credentials: Credentials::new(),
            audit: parts.audit,
            inputs: Inputs::new(WAITING_BUSY_MAX),
            meter: parts.meter,
            ablation: Ablation::of_environment(),
            world: CoreCell::new(world),
            scratch: CoreCell::default(),
            connections,
            asked_addresses: CoreCell::default(),
            drained: Event::default(),
            hub: Hub::default(),
            inflight,
            inbox: parts.inbox,
            asker: parts.asker,
            post: Post::new(parts.core, parts.mail.len() as u16 + 1),
            mail: CoreCell::new(parts.mail),
        };
        shard.name_servers();
        let max = shard.world().snapshot.config.limits.hub_sessions_per_core_max;
        shard.hub.sessions.resize(max);
        Rc::new(shard)
    }

    /// Begins to send letters and to take them in; on the event loop of this core. `broken` hears
    /// of what must end the process.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open_mail(
        self: &Rc<Self>,
        broken: impl Fn(String) + Clone + 'static,
    ) -> std::io::Result<()> {
        self.post.open(self.mail.with(std::mem::take), self, broken)
    }

    /// The snapshot in force.
    #[must_use]
    pub fn world(&self) -> Rc<World> {
        self.world.with(|world| Rc::clone(world))
    }

    /// Acts on what the control thread said. Called at the start of every request and when the
    /// doorbell rings; one relaxed load when there is nothing.
    pub fn drain_bus(&self) {
        let Some(Drained { notices, overflowed }) = self.inbox.drain() else { return };
        if overflowed {
            self.meter.counters().bus_overflows.add(1);
            self.credentials.purge();
            self.hub.hellos.purge();
            self.identity.purge();
            self.enforcer.purge();
            self.pdp.forget_permits();
            self.hub.voided();
            self.hub.ended.merge(&self.slot.ended(), self.clock.now().wall.seconds());
            self.hub.sessions.end_clients(|mark| self.hub.ended.hold_mark(mark));
        }
        let mut published = overflowed;
        for notice in notices {
            self.meter.notice(kind(notice));
            match notice {
                Notice::Published { .. } | Notice::Drain => published = true,
                Notice::KeysUnchanged { provider } => self.identity.keys_unchanged(provider),
                Notice::CredentialsRevoked => {
                    self.credentials.purge();
                    self.hub.hellos.purge();
                    self.pdp.forget_permits();
                    self.hub.voided();
                }
                Notice::SessionEnded { mark } => {
                    self.session_ended(mark);
                }
            }
        }
        if published {
            self.take_snapshot();
        }
    }

    /// Once a second: what is too old is wiped, not only unreachable.
    pub fn sweep(&self) {
        let now = self.clock.monotonic();
        self.credentials.sweep(now);
        self.identity.sweep(now, SWEEP_ENTRIES);
        self.enforcer.sweep(SWEEP_ENTRIES);
        self.relay.sweep(now);
        self.pdp.sweep(now, SWEEP_ENTRIES);
        self.hub.sessions.sweep(self.world().snapshot.config_generation, now);
        // Whoever waits there has a deadline of its own, and has left.
        drop(self.hub.desk.expire(now));
        self.count_gauges();
        self.meter.counters().heartbeat.add(1);
    }

    /// A place among the requests in flight; `None` when the core has enough of them.
    #[must_use]
    pub fn enter(&self) -> Option<InFlight<'_>> {
        let place = self.inflight.take()?;
        self.meter.counters().inflight.add(1);
        Some(InFlight { meter: &self.meter, _place: place })
    }

    /// A place among the open connections; `None` when the core has enough of them.
    #[must_use]
    pub fn seat(self: &Rc<Self>) -> Option<Seat> {
        if !self.connections.enter() {
            return None;
        }
        self.meter.counters().connections.add(1);
        Some(Seat(Rc::clone(self)))
    }

    /// True from SIGTERM on.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.world.with(|world| world.snapshot.draining)
    }

    /// Open connections. A draining core waits for them: idle ones end within moments, the others
    /// with what they are in the middle of.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.taken()
    }

    /// Buffers for one request.
    #[must_use]
    pub fn take_scratch(&self) -> Box<Scratch> {
        self.scratch.with(Vec::pop).unwrap_or_default()
    }

    /// Gives them back, emptied; what grew far beyond a usual request is freed.
    pub fn release_scratch(&self, mut scratch: Box<Scratch>) {
        scratch.body.clear();
        // A request that never names a server must not be recorded with this one's.
        scratch.server.clear();
        if scratch.body.capacity() > SCRATCH_BYTES_KEPT_MAX {
            scratch.body = Vec::new();
        }
        self.scratch.with(|pool| {
            if pool.len() < SCRATCH_KEPT_MAX {
                pool.push(scratch);
            }
        });
    }

    /// Asks the control thread for addresses of a server; at most once a second for each, however
    /// many requests want them.
    pub fn ask_addresses(&self, server: usize) {
        let Ok(number) = u16::try_from(server) else { return };
        let now = self.timers.now();
        let due = self.asked_addresses.with(|asked| {
            let before = asked.insert(server, now);
            let due = before.is_none_or(|before| now.micros_since(before) >= ASK_PAUSE_MICROS);
            if let Some(before) = before.filter(|_| !due) {
                asked.insert(server, before);
            }
            due
        });
        if due {
            self.asker.ask(Ask::Resolve { server: number });
        }
    }

    /// A session ended before its time: from now on its id opens on no core. On this one at once,
    /// on the others as soon as the control thread has told them.
    pub fn end_session(&self, sealed: &[u8]) {
        let mark = SessionMark::of(sealed).short();
        if self.session_ended(mark) {
            self.asker.ask(Ask::EndSession { mark });
        }
    }

    /// False when it is known already.
    fn session_ended(&self, mark: u64) -> bool {
        let news = self.hub.ended.insert(mark, self.clock.now().wall.seconds());
        if news {
            self.hub.sessions.end_clients(|client| client == mark);
        }
        news
    }

    /// Notes for `/status` what a server speaks; its index is of the configuration `generation`.
    pub fn upstream_speaks(&self, server: u16, generation: u64, era: Era) {
        if self.world().snapshot.config_generation == generation {
            let seen = match era {
                Era::Legacy => SeenEra::Legacy,
                Era::Modern => SeenEra::Modern,
            };
            self.meter.upstream_era(server, seen);
        }
    }

    /// Notes for `/status` why an upstream failed; what is not its fault is nothing to note.
    pub fn upstream_failed(&self, server: usize, why: Reject) {
        if let (502 | 504, Ok(server)) = (why.status(), u16::try_from(server)) {
            self.meter.upstream_error(server, why, self.timers.now());
        }
    }

    /// Counts where a credential came from.
    pub fn count_credential(&self, cache: CacheOutcome) {
        match cache {
            CacheOutcome::Hit => self.meter.counters().credential_hits.add(1),
            CacheOutcome::Miss => self.meter.counters().credential_misses.add(1),
            CacheOutcome::None => {}
        }
    }

    fn take_snapshot(&self) {
        let snapshot = self.slot.newest();
        let old = self.world.with(|world| {
            if world.snapshot.generation >= snapshot.generation {
                return None;
            }
            let next = Rc::new(World::new(snapshot, Some(world)));
            Some(std::mem::replace(world, next))
        });
        let Some(old) = old else { return };
        let new = self.world();
        if new.snapshot.draining && !old.snapshot.draining {
            self.timers.leave();
            self.drained.ring();
        }
        if old.snapshot.config_generation != new.snapshot.config_generation {
            let limits = &new.snapshot.config.limits;
            self.connections.resize(limits.connections_per_core_max);
            self.inflight.resize(limits.inflight_per_core_max);
            self.hub.sessions.resize(limits.hub_sessions_per_core_max);
            self.credentials.purge();
            self.relay.forget_connections();
            self.pdp.forget_connections();
            self.asked_addresses.with(HashMap::clear);
            self.name_servers();
        }
        if !new.decides_as(&old) {
            self.pdp.forget_permits();
        }
        self.with_trust(|trust| self.identity.keys_published(trust));
        // Requests may still hold the old one; whoever is last sends it up to be freed.
        self.asker.ask(Ask::Retire(Arc::clone(&old.snapshot)));
    }

    fn name_servers(&self) {
        let world = self.world();
        let names = world.snapshot.config.servers.iter().map(|server| Arc::from(&*server.name));
        self.meter.set_servers(names);
    }

    fn count_gauges(&self) {
        let counters = self.meter.counters();
        let decisions = self.enforcer.counts();
        counters.decision_hits.set(decisions.hits);
        counters.decision_misses.set(decisions.misses + decisions.unkept);
        let tokens = self.identity.counts();
        counters.token_hits.set(tokens.hits);
        counters.token_misses.set(tokens.misses);
        self.relay.connections(|server, active, idle| {
            self.meter.upstream_connections(server, active, idle);
        });
        let generation = self.world().snapshot.config_generation;
        self.hub.breakers.states(generation, |server, state| {
            self.meter.upstream_breaker(server, state);
        });
        counters.loop_lag_micros.set(self.timers.take_lag().max_micros);
    }
}

impl Addressee for Shard {
    /// What nobody waits for, or waits for from somebody else, is dropped: its sender was told that
    /// it is on its way, which is all that a client's answer is told (2025-11-25 transports,
    /// "Sending Messages": 202).
    fn deliver(&self, letter: Letter) {
        let Letter { kind, number, session, owner: principal, body, .. } = letter;
        let counters = self.meter.counters();
        counters.mail_received.add(1);
        let taken = match kind {
            MailKind::Reply => {
                let owner = Owner { principal, session };
                let pending = self.hub.desk.take(ReplyId(number), &owner, self.timers.now());
                pending.map(|pending| pending.what.put(body))
            }
            MailKind::Cancel => {
                self.hub.calls.cancel(&Owner { principal, session }, &body).then_some(())
            }
            // Nothing sends these yet.
            MailKind::Interest => None,
        };
        if taken.is_none() {
            counters.mail_dropped.add(1);
        }
    }
}

impl Door for Shard {
    fn with_trust<R>(&self, read: impl FnOnce(&Trust<'_>) -> R) -> R {
        let world = self.world();
        let snapshot = &world.snapshot;
        read(&Trust {
            epoch: snapshot.config_generation,
            providers: &snapshot.config.trust_providers,
            keys: &snapshot.keys,
        })
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn ask(&self, provider: u16) {
        self.asker.ask(Ask::Keys { provider });
    }

    async fn sleep_until(&self, until: Monotonic) {
        self.timers.sleep_until(until).await;
    }
}

const fn kind(notice: Notice) -> NoticeKind {
    match notice {
        Notice::Published { .. } => NoticeKind::Published,
        Notice::KeysUnchanged { .. } => NoticeKind::KeysUnchanged,
        Notice::CredentialsRevoked => NoticeKind::CredentialsRevoked,
        Notice::SessionEnded { .. } => NoticeKind::SessionEnded,
        Notice::Drain => NoticeKind::Drain,
    }
}

const ASK_PAUSE_MICROS: u64 = 1_000_000;
const SWEEP_ENTRIES: usize = 1024;
const SCRATCH_KEPT_MAX: usize = 64;
const SCRATCH_BYTES_KEPT_MAX: usize = 256 * 1024;
