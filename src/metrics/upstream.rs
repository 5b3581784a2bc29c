//! What one core knows of each upstream.

use std::sync::Arc;

use super::{Cell, Counters, Meter, REFUSALS_MAX};
use crate::clock::Monotonic;
use crate::reject::Reject;

/// The `state` label of `upstream_breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Requests go.
    Closed,
    /// One goes, to see.
    HalfOpen,
    /// None goes.
    Open,
}

impl BreakerState {
    /// All of them, in the order of their numbers: the one that lets less through comes later.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Which of the two protocols an upstream was seen to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenEra {
    /// With handshake and sessions.
    Legacy,
    /// Each request by itself.
    Modern,
    /// Either.
    Both,
}

impl SeenEra {
    const ALL: [Self; 3] = [Self::Legacy, Self::Modern, Self::Both];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
            Self::Both => "both",
        }
    }
}

/// Numbers of one server.
pub(super) struct ServerLabel {
    pub(super) server: Arc<str>,
    pub(super) active: Cell,
    pub(super) idle: Cell,
    /// Place in [`BreakerState::ALL`].
    breaker: Cell,
    /// Place in [`SeenEra::ALL`], and 1; 0 = not seen.
    era: Cell,
    /// Number of the last [`Reject`], and 1; 0 = none.
    error: Cell,
    /// When that was, in microseconds of the monotonic clock.
    error_at: Cell,
    strays: Cell,
}

/// What one core knows of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView<'a> {
    /// Configured name.
    pub server: &'a str,
    /// Connections in use.
    pub active: u64,
    /// Idle connections.
    pub idle: u64,
    /// Whether it is left alone.
    pub breaker: BreakerState,
    /// What it was seen to speak.
    pub era: Option<SeenEra>,
    /// The reason word of its last failure, and when that was.
    pub last_error: Option<(&'static str, Monotonic)>,
    /// Answers of it to nothing that was asked.
    pub strays: u64,
}

impl ServerLabel {
    pub(super) fn new(server: Arc<str>) -> Self {
        Self {
            server,
            active: Cell::default(),
            idle: Cell::default(),
            breaker: Cell::default(),
            era: Cell::default(),
            error: Cell::default(),
            error_at: Cell::default(),
            strays: Cell::default(),
        }
    }

    /// Another configuration: what is true of one server may not be of its successor.
    pub(super) fn reset(&self) {
        for cell in [&self.active, &self.idle, &self.breaker, &self.era] {
            cell.set(0);
        }
    }
}

impl Counters {
    /// What is known of each server that was ever used.
    pub fn servers(&self) -> impl Iterator<Item = ServerView<'_>> {
        let used = self.servers.iter().map_while(|slot| slot.label.get());
        used.map(|label| ServerView {
            server: &label.server,
            active: label.active.get(),
            idle: label.idle.get(),
            breaker: one_of(&BreakerState::ALL, label.breaker.get() + 1)
                .unwrap_or(BreakerState::Closed),
            era: one_of(&SeenEra::ALL, label.era.get()),
            last_error: self
                .reason(label.error.get())
                .map(|reason| (reason, Monotonic(label.error_at.get()))),
            strays: label.strays.get(),
        })
    }

    /// The word of a refusal by its number and 1.
    fn reason(&self, number: u64) -> Option<&'static str> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.refusals.get(at)?.reason.get().copied()
    }
}

fn one_of<T: Copy>(all: &[T], number: u64) -> Option<T> {
    all.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
}

impl Meter {
    /// Sets how many connections to an upstream are in use and idle.
    pub fn upstream_connections(&self, server: u16, active: u64, idle: u64) {
        self.upstream(server, |label| {
            label.active.set(active);
            label.idle.set(idle);
        });
    }

    /// Sets whether an upstream is left alone.
    pub fn upstream_breaker(&self, server: u16, state: BreakerState) {
        self.upstream(server, |label| label.breaker.set(state as u64));
    }

    /// Notes what an upstream was seen to speak, beside what it was seen to speak before.
    pub fn upstream_era(&self, server: u16, era: SeenEra) {
        self.upstream(server, |label| {
            let seen = match one_of(&SeenEra::ALL, label.era.get()) {
                Some(before) if before != era => SeenEra::Both,
                Some(_) | None => era,
            };
            label.era.set(seen as u64 + 1);
        });
    }

    /// Notes why an upstream failed.
    pub fn upstream_error(&self, server: u16, why: Reject, now: Monotonic) {
        // Its word is found there by its number.
        if let Some(refusal) = self.counters.refusals.get(why as usize) {
            refusal.reason.get_or_init(|| why.audit_code());
        }
        self.upstream(server, |label| {
            label.error_at.set(now.0);
            label.error.set(why as u64 + 1);
        });
    }

    /// Counts an answer of an upstream to nothing that was asked.
    pub fn stray_answer(&self, server: u16) {
        self.upstream(server, |label| label.strays.add(1));
    }

    fn upstream(&self, server: u16, set: impl FnOnce(&ServerLabel)) {
        let mut local = self.local.borrow_mut();
        let Some(index) = local.claim_server(&self.counters, server) else { return };
        let label = self.counters.servers.get(index).and_then(|slot| slot.label.get());
        if let Some(label) = label {
            set(label);
        }
    }
}

const _: () = assert!(REFUSALS_MAX <= u8::MAX as usize, "a number of a refusal is a small one");
