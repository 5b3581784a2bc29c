//! Counters of one core and of the process. Rendering is `admin`'s.
//!
//! Each core's counters have exactly one writer, its [`Meter`], so an increment is a relaxed load
//! and a relaxed store, without a locked instruction; any thread may read. A reader may see one
//! counter a moment before another, which is all that metrics promise.

mod process;
mod upstream;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

pub use self::process::{AuditOutcome, ProcessCounters, RefreshOutcome, ReloadTrigger};
use self::upstream::ServerLabel;
pub use self::upstream::{BreakerState, SeenEra, ServerView};

use crate::limits::{METRIC_REQUEST_SLOTS_MAX, METRIC_SERVER_SLOTS_MAX};
use crate::lines::Lines;
use crate::reject::Reject;

/// What one core counted; read by the admin listener. On lines of its own, like all that it points
/// to: another core that wrote there would slow every count of this one.
#[repr(align(128))]
pub struct Counters {
    /// The `core` label.
    pub core: usize,
    /// Open downstream connections.
    pub connections: Cell,
    /// Requests in flight.
    pub inflight: Cell,
    /// Longest recent delay of the event loop, in microseconds.
    pub loop_lag_micros: Cell,
    /// Grows about once a second while the event loop turns; the watchdog looks at it.
    pub heartbeat: Cell,
    /// Kernel crossings of the event loop.
    pub ring_enters: Cell,
    /// Errors while the event loop waited.
    pub park_errors: Cell,
    /// Downstream TLS handshakes that failed or took too long.
    pub tls_handshake_failures: Cell,
    /// Connections of trusted proxies that did not say whom they speak for.
    pub source_refusals: Cell,
    /// Cross-core notices that were lost in detail.
    pub bus_overflows: Cell,
    /// Letters of other cores.
    pub mail_received: Cell,
    /// Those of them that nobody waited for.
    pub mail_dropped: Cell,
    /// Tokens from memory.
    pub token_hits: Cell,
    /// Tokens judged from the beginning; the signature comes last, if nothing else refused before.
    pub token_misses: Cell,
    /// Decisions from memory.
    pub decision_hits: Cell,
    /// Decisions evaluated.
    pub decision_misses: Cell,
    /// Upstream credentials from memory.
    pub credential_hits: Cell,
    /// Upstream credentials read from their source.
    pub credential_misses: Cell,
    /// Permitted requests that shadow policies would have denied.
    pub shadow_denials: Cell,
    /// Items of lists that agents were shown.
    pub items_shown: Cell,
    /// Items of lists that they were not.
    pub items_hidden: Cell,
    /// Questions to a remote decision point that were permitted.
    pub pdp_permits: Cell,
    /// Those that were denied.
    pub pdp_denials: Cell,
    /// Those without an answer that counts.
    pub pdp_errors: Cell,
    /// Requests that were permitted by what it had answered a moment before.
    pub pdp_kept: Cell,
    /// Time until it answered, or did not.
    pub pdp_duration: Histogram,
    /// Time that the gateway added.
    pub overhead: Histogram,
    /// Time from request head to the last response byte.
    pub duration: Histogram,
    notices: [Cell; NoticeKind::ALL.len()],
    refusals: Box<Lines<[Refusal; REFUSALS_MAX]>>,
    requests: Slots<RequestLabel, METRIC_REQUEST_SLOTS_MAX>,
    /// Requests that found no slot: their labels are lost, their number is not.
    requests_other: Cell,
    servers: Slots<ServerLabel, METRIC_SERVER_SLOTS_MAX>,
}

/// A number with one writer.
#[derive(Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `by`; for the one writer only.
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Takes `by` away, not below 0; for the one writer only.
    pub fn sub(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(by), Relaxed);
    }

    /// Sets it; for the one writer only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Reads it.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations in buckets that grow by half an octave, from 1 µs to 4,295 s.
pub struct Histogram {
    buckets: [Cell; HISTOGRAM_BOUNDS.len() + 1],
    sum_micros: Cell,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = std::array::from_fn(|_| Cell::default());
        Self { buckets, sum_micros: Cell::default() }
    }
}

impl Histogram {
    /// Counts one duration; for the one writer only.
    pub fn record(&self, micros: u64) {
        let index = HISTOGRAM_BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.add(1);
        }
        self.sum_micros.add(micros);
    }

    /// How many fell into each bucket (not cumulative; the last is above every bound), and their
    /// sum.
    pub fn read(&self) -> (impl Iterator<Item = u64> + '_, u64) {
        (self.buckets.iter().map(Cell::get), self.sum_micros.get())
    }
}

/// The `decision` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Permitted.
    Permit,
    /// Denied by policy, or for want of a good token.
    Deny,
    /// Not decided: a key, a credential or the audit was not to be had. What was permitted and
    /// failed then is a permit, as in the audit.
    Error,
}

impl Decision {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }
}

/// The `kind` label of bus notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A new snapshot.
    Published,
    /// A refetch without news.
    KeysUnchanged,
    /// All credentials revoked.
    CredentialsRevoked,
    /// A session ended before its time.
    SessionEnded,
    /// Stop accepting.
    Drain,
}

impl NoticeKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Published,
        Self::KeysUnchanged,
        Self::CredentialsRevoked,
        Self::SessionEnded,
        Self::Drain,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::KeysUnchanged => "keys_unchanged",
            Self::CredentialsRevoked => "credentials_revoked",
            Self::SessionEnded => "session_ended",
            Self::Drain => "drain",
        }
    }
}

/// What `requests_total` is counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabel {
    /// Server name; empty when none was meant.
    pub server: Arc<str>,
    /// Dense method number; the reader knows the names.
    pub method: u8,
    /// What was decided.
    pub decision: Decision,
    /// HTTP status of the answer.
    pub status: u16,
}

type Slots<L, const N: usize> = Box<Lines<[Slot<L>; N]>>;

struct Slot<L> {
    label: OnceLock<L>,
    count: Cell,
}

#[derive(Default)]
struct Refusal {
    reason: OnceLock<&'static str>,
    count: Cell,
}

impl Counters {
    fn new(core: usize) -> Self {
        Self {
            core,
            connections: Cell::default(),
            inflight: Cell::default(),
            loop_lag_micros: Cell::default(),
            heartbeat: Cell::default(),
            ring_enters: Cell::default(),
            park_errors: Cell::default(),
            tls_handshake_failures: Cell::default(),
            source_refusals: Cell::default(),
            bus_overflows: Cell::default(),
            mail_received: Cell::default(),
            mail_dropped: Cell::default(),
            token_hits: Cell::default(),
            token_misses: Cell::default(),
            decision_hits: Cell::default(),
            decision_misses: Cell::default(),
            credential_hits: Cell::default(),
            credential_misses: Cell::default(),
            shadow_denials: Cell::default(),
            items_shown: Cell::default(),
            items_hidden: Cell::default(),
            pdp_permits: Cell::default(),
            pdp_denials: Cell::default(),
            pdp_errors: Cell::default(),
            pdp_kept: Cell::default(),
            pdp_duration: Histogram::default(),
            overhead: Histogram::default(),
            duration: Histogram::default(),
            notices: std::array::from_fn(|_| Cell::default()),
            refusals: Box::new(Lines::new(std::array::from_fn(|_| Refusal::default()))),
            requests: slots(),
            requests_other: Cell::default(),
            servers: slots(),
        }
    }

    /// All request counters that were ever used.
    pub fn requests(&self) -> impl Iterator<Item = (&RequestLabel, u64)> {
        let used = self.requests.iter().map_while(|slot| Some((slot.label.get()?, slot)));
        used.map(|(label, slot)| (label, slot.count.get()))
    }

    /// Requests that found no slot.
    #[must_use]
    pub fn requests_other(&self) -> u64 {
        self.requests_other.get()
    }

    /// Refusals by reason; one reason may come more than once.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let used = self.refusals.iter().filter_map(|one| Some((*one.reason.get()?, one)));
        used.map(|(reason, one)| (reason, one.count.get()))
    }

    /// Notices received, by kind.
    pub fn notices(&self) -> impl Iterator<Item = (NoticeKind, u64)> {
        NoticeKind::ALL.into_iter().zip(self.notices.iter().map(Cell::get))
    }
}

fn slots<L, const N: usize>() -> Slots<L, N> {
    let slot = |_| Slot { label: OnceLock::new(), count: Cell::default() };
    Box::new(Lines::new(std::array::from_fn(slot)))
}

/// The one writer of a core's [`Counters`]. Lives on its core: it is neither `Sync` nor `Clone`.
pub struct Meter {
    counters: Arc<Counters>,
    local: RefCell<Local>,
}

/// Which slot a label has. The first map is keyed by small numbers of this configuration, so that a
/// warm request hashes eight bytes and allocates nothing; the second by names, which outlive a
/// reload.
#[derive(Default)]
struct Local {
    servers: Vec<Arc<str>>,
    fast: hashbrown::HashMap<(u16, u8, Decision, u16), usize>,
    named: hashbrown::HashMap<RequestLabel, usize>,
    server_slots: hashbrown::HashMap<u16, usize>,
    server_names: hashbrown::HashMap<Arc<str>, usize>,
}

impl Meter {
    /// Counters for `core`, all 0.
    #[must_use]
    pub fn new(core: usize) -> Self {
        Self { counters: Arc::new(Counters::new(core)), local: RefCell::default() }
    }

    /// For readers on other threads. Writing through it is the owner's right only.
    #[must_use]
    pub fn share(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The server names of a new configuration, by index. What was counted stays; connections to a
    /// server are 0 until they are set again.
    pub fn set_servers(&self, names: impl Iterator<Item = Arc<str>>) {
        let mut local = self.local.borrow_mut();
        local.servers = names.collect();
        local.fast.clear();
        local.server_slots.clear();
        for label in self.counters.servers.iter().map_while(|slot| slot.label.get()) {
            label.reset();
        }
    }

    /// Counts one answered request. `server` is `None` when it never got so far as to name one.
    pub fn request(&self, server: Option<u16>, method: u8, decision: Decision, status: u16) {
        let mut local = self.local.borrow_mut();
        let key = (server.unwrap_or(u16::MAX), method, decision, status);
        let known = local.fast.get(&key).copied();
        match known.or_else(|| local.claim_request(&self.counters, key)) {
            Some(index) => {
                if let Some(slot) = self.counters.requests.get(index) {
                    slot.count.add(1);
                }
            }
            None => self.counters.requests_other.add(1),
        }
    }

    /// Counts one refusal.
    pub fn refusal(&self, reject: Reject) {
        if let Some(refusal) = self.counters.refusals.get(reject as usize) {
            refusal.reason.get_or_init(|| reject.audit_code());
            refusal.count.add(1);
        }
    }

    /// Counts one notice.
    pub fn notice(&self, kind: NoticeKind) {
        if let Some(cell) = self.counters.notices.get(kind as usize) {
            cell.add(1);
        }
    }
}

impl Local {
    fn name(&self, server: u16) -> Arc<str> {
        self.servers.get(usize::from(server)).map_or_else(|| Arc::from(""), Arc::clone)
    }

    /// INVARIANT: slots are claimed in order, so the used ones are a prefix of the array.
    fn claim_request(
        &mut self,
        counters: &Counters,
        key: (u16, u8, Decision, u16),
    ) -> Option<usize> {
        let (server, method, decision, status) = key;
        let label = RequestLabel { server: self.name(server), method, decision, status };
        let index = match self.named.get(&label) {
            Some(index) => *index,
            None => {
                let index = self.named.len();
                counters.requests.get(index)?.label.set(label.clone()).ok()?;
                self.named.insert(label, index);
                index
            }
        };
        self.fast.insert(key, index);
        Some(index)
    }

    fn claim_server(&mut self, counters: &Counters, server: u16) -> Option<usize> {
        if let Some(index) = self.server_slots.get(&server) {
            return Some(*index);
        }
        let name = self.name(server);
        let index = match self.server_names.get(&name) {
            Some(index) => *index,
            None => {
                let index = self.server_names.len();
                let label = ServerLabel::new(Arc::clone(&name));
                counters.servers.get(index)?.label.set(label).ok()?;
                self.server_names.insert(name, index);
                index
            }
        };
        self.server_slots.insert(server, index);
        Some(index)
    }
}

/// Upper bounds in microseconds: 1, 2, 3, 4, 6, 8, 12 … 2^32.
pub const HISTOGRAM_BOUNDS: [u64; 64] = {
    let mut bounds = [1; 64];
    let mut octave = 1;
    while octave < 32 {
        #[expect(clippy::indexing_slicing, reason = "evaluated when we compile")]
        {
            bounds[2 * octave - 1] = 1 << octave;
            bounds[2 * octave] = 3 << (octave - 1);
        }
        octave += 1;
    }
    bounds[63] = 1 << 32;
    bounds
};

/// Room for every variant of [`Reject`]; a test counts them.
const REFUSALS_MAX: usize = 128;
