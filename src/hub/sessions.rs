//! The hub's own sessions with legacy servers: opened when first needed, kept per core.
//!
//! A legacy server keeps state per session: what is subscribed, the level of its log, whom it asks
//! back. So a session belongs to one principal as they are now (the identity digest) and, for a
//! legacy client, to that client's session; never to a credential alone. A change of groups or
//! scopes is another session.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hashbrown::HashMap;

use crate::clock::Monotonic;
use crate::core_cell::CoreCell;
use crate::event::Event;
use crate::limits::{HUB_SESSION_IDLE, Limits};
use crate::mcp::hub_session::{ClientCapabilities, SessionMark};
use crate::reject::Reject;

/// Whose session with which server. All of it must be the same for a session to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The client's session; none for a modern client, which has none.
    pub client: Option<SessionMark>,
    /// The identity digest of the principal.
    pub identity: [u8; 32],
    /// Index of the server in the configuration `generation`.
    pub server: u16,
    /// Index of the credential there.
    pub credential: Option<u16>,
    /// The configuration: after another one nothing of this is used again.
    pub generation: u64,
    /// What was declared to the server in the client's name.
    pub capabilities: ClientCapabilities,
}

/// A session with one server.
#[derive(Debug)]
pub struct UpstreamSession {
    /// What the server calls it; none when it keeps none.
    pub id: Option<Vec<u8>>,
    /// The revision that was agreed on.
    pub revision: &'static str,
    next_id: Cell<u64>,
}

impl UpstreamSession {
    /// A session whose first request has the number 1; `initialize` was number 0.
    #[must_use]
    pub const fn new(id: Option<Vec<u8>>, revision: &'static str) -> Self {
        Self { id, revision, next_id: Cell::new(1) }
    }

    /// The number of the next request. No number comes twice within a session: some servers answer
    /// whoever used an id last.
    pub fn next_id(&self) -> u64 {
        self.next_id.replace(self.next_id.get().saturating_add(1))
    }
}

/// The sessions of one core, in use or not for long: at most as many as
/// `limits.hub_sessions_per_core_max` says, of which the one goes that was not used for longest.
#[derive(Clone, Default)]
pub struct UpstreamSessions(Rc<CoreCell<Table>>);

struct Table {
    entries: HashMap<SessionKey, Entry>,
    max: usize,
    /// Which opening is which: one that was given up must not fill the place of the next.
    openings: u64,
}

impl Default for Table {
    fn default() -> Self {
        let max = Limits::default().hub_sessions_per_core_max;
        Self { entries: HashMap::new(), max, openings: 0 }
    }
}

struct Entry {
    state: State,
    used: Monotonic,
}

enum State {
    Ready(Rc<UpstreamSession>),
    Opening(u64, Rc<Outcome>),
}

/// What came of an opening, for those who wait for it.
#[derive(Default)]
struct Outcome {
    told: CoreCell<Option<Result<Rc<UpstreamSession>, Reject>>>,
    rung: Event,
}

/// What [`UpstreamSessions::enter`] found.
#[must_use]
pub enum Entered {
    /// A session that is open.
    Ready(Rc<UpstreamSession>),
    /// There is none: the caller opens one, for all who come meanwhile.
    Open(Opening),
    /// Somebody is opening one.
    Wait(Waiting),
}

/// The right and the duty to open a session. Dropped without a word it fails all who wait, so that
/// an opener that panics or is cancelled leaves nobody hanging.
#[must_use]
pub struct Opening {
    sessions: UpstreamSessions,
    key: SessionKey,
    number: u64,
    outcome: Rc<Outcome>,
}

/// Ends with the session, or with why there is none. May be dropped at any time; has no deadline of
/// its own.
#[must_use]
pub struct Waiting(Rc<Outcome>, u64);

impl UpstreamSessions {
    /// The session of `key`, or who opens it. Never waits.
    ///
    /// # Errors
    /// `GatewayOverloaded` when as many as may be are just being opened.
    pub fn enter(&self, key: &SessionKey, now: Monotonic) -> Result<Entered, Reject> {
        self.0.with(|table| {
            if let Some(entry) = table.entries.get_mut(key) {
                entry.used = now;
                return Ok(match &entry.state {
                    State::Ready(session) => Entered::Ready(Rc::clone(session)),
                    State::Opening(_, outcome) => {
                        Entered::Wait(Waiting(Rc::clone(outcome), outcome.rung.version()))
                    }
                });
            }
            if table.entries.len() >= table.max && !table.evict() {
                return Err(Reject::GatewayOverloaded);
            }
            table.openings += 1;
            let (number, outcome) = (table.openings, Rc::<Outcome>::default());
            let state = State::Opening(number, Rc::clone(&outcome));
            table.entries.insert(*key, Entry { state, used: now });
            Ok(Entered::Open(Opening { sessions: self.clone(), key: *key, number, outcome }))
        })
    }

    /// From now on there may be `max`. Of more, those go that were not used for longest.
    pub fn resize(&self, max: usize) {
        self.0.with(|table| {
            table.max = max;
            while table.entries.len() > max && table.evict() {}
        });
    }

    /// Forgets a session that its server has forgotten. A newer one of the same key stays.
    pub fn forget(&self, key: &SessionKey, session: &Rc<UpstreamSession>) {
        self.0.with(|table| {
            let same = |entry: &Entry| match &entry.state {
                State::Ready(known) => Rc::ptr_eq(known, session),
                State::Opening(..) => false,
            };
            if table.entries.get(key).is_some_and(same) {
                table.entries.remove(key);
            }
        });
    }

    /// A client ends its session: so do those that were opened for it on this core, which are
    /// handed out so that their servers can be told. One that is just being opened serves who waits
    /// for it and is then forgotten.
    pub fn end_client(&self, client: SessionMark) -> Vec<(SessionKey, Rc<UpstreamSession>)> {
        self.0.with(|table| table.leave(|key, _| key.client == Some(client)))
    }

    /// Sessions of clients ended elsewhere, by their short marks. Their servers hear nothing of it:
    /// whoever could be judged for that is not here.
    pub fn end_clients(&self, ended: impl Fn(u64) -> bool) {
        self.0.with(|table| {
            table.leave(|key, _| key.client.is_some_and(|client| ended(client.short())));
        });
    }

    /// Forgets sessions that were not used for `HUB_SESSION_IDLE` and that nobody holds, and all
    /// those of other configurations than `generation`. Their servers end them in their own time.
    pub fn sweep(&self, generation: u64, now: Monotonic) {
        let idle_micros = HUB_SESSION_IDLE.as_micros() as u64;
        self.0.with(|table| {
            table.leave(|key, entry| {
                let held = match &entry.state {
                    State::Ready(session) => Rc::strong_count(session) > 1,
                    State::Opening(..) => true,
                };
                let idle = !held && now.micros_since(entry.used) >= idle_micros;
                idle || key.generation != generation
            });
        });
    }

    /// How many there are, those under way included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.with(|table| table.entries.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// Takes out whatever `gone` says so of; the answer holds what a server has a session for. Who
    /// waits for one of them still hears what comes of it.
    fn leave(
        &mut self,
        gone: impl Fn(&SessionKey, &Entry) -> bool,
    ) -> Vec<(SessionKey, Rc<UpstreamSession>)> {
        let taken = self.entries.extract_if(|key, entry| gone(key, entry));
        let open = |(key, entry): (SessionKey, Entry)| match entry.state {
            State::Ready(session) => session.id.is_some().then_some((key, session)),
            State::Opening(..) => None,
        };
        taken.filter_map(open).collect()
    }

    /// Makes room; false when all are just being opened. Looking at all of them is far less work
    /// than opening the one that needs the place.
    fn evict(&mut self) -> bool {
        let ready = self.entries.iter().filter(|(_, entry)| match entry.state {
            State::Ready(_) => true,
            State::Opening(..) => false,
        });
        let oldest = ready.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
        let Some(oldest) = oldest else { return false };
        self.leave(|key, _| *key == oldest);
        true
    }
}

impl Opening {
    /// Whose session is to be opened.
    #[must_use]
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// It is open: everybody who waits has it. When nobody may use it again, because its client
    /// ended meanwhile or the configuration changed, it serves those and is not kept.
    pub fn opened(self, session: UpstreamSession, now: Monotonic) -> Rc<UpstreamSession> {
        let session = Rc::new(session);
        self.sessions.0.with(|table| {
            let entry = table.entries.get_mut(&self.key).filter(|entry| self.owns(entry));
            if let Some(entry) = entry {
                *entry = Entry { state: State::Ready(Rc::clone(&session)), used: now };
            }
        });
        self.outcome.tell(Ok(Rc::clone(&session)));
        session
    }

    /// It could not be opened: everybody who waits hears why, and the next one tries again.
    pub fn failed(self, why: Reject) {
        self.give_up(why);
    }

    fn give_up(&self, why: Reject) {
        self.sessions.0.with(|table| {
            if table.entries.get(&self.key).is_some_and(|entry| self.owns(entry)) {
                table.entries.remove(&self.key);
            }
        });
        self.outcome.tell(Err(why));
    }

    fn owns(&self, entry: &Entry) -> bool {
        match &entry.state {
            State::Opening(number, _) => *number == self.number,
            State::Ready(_) => false,
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.give_up(Reject::GatewayFault);
    }
}

impl Outcome {
    /// The first word counts.
    fn tell(&self, outcome: Result<Rc<UpstreamSession>, Reject>) {
        self.told.with(|told| {
            told.get_or_insert(outcome);
        });
        self.rung.ring();
    }
}

impl Future for Waiting {
    type Output = Result<Rc<UpstreamSession>, Reject>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = self.0.told.with(|told| {
            told.as_ref().map(|told| told.as_ref().map(Rc::clone).map_err(|why| *why))
        });
        match told {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                let mut rung = self.0.rung.changed(self.1);
                match Pin::new(&mut rung).poll(context) {
                    // Rung without a word: nobody does that.
                    Poll::Ready(()) => Poll::Ready(Err(Reject::GatewayFault)),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
