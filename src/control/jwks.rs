//! When to fetch the keys of an issuer, and how long they serve. Pure: time and answers come in as
//! arguments; `fetch` does the asking through a door that the control thread opens.
//!
//! One [`Refresher`] per trust provider lives on the control thread, so a fetch happens once per
//! process whatever the number of cores. What it knows goes out as a [`ProviderKeys`] snapshot, in
//! which each worker reads for itself whether the keys may still serve: if the control thread dies,
//! keys end on their own.
//!
//! Which error is safe: refusing good keys costs a 503; serving removed keys lets a withdrawn key
//! sign. So freshness counts from the moment a fetch began, and nothing extends it but a good
//! answer.

use std::sync::Arc;
use std::time::Duration;

use ring::digest;

use crate::clock::Monotonic;
use crate::judge::keys::{KeySet, KeySetFault};
use crate::limits::{
    JWKS_FRESH_SECONDS_DEFAULT, JWKS_FRESH_SECONDS_MAX, JWKS_FRESH_SECONDS_MIN, JWKS_REFETCH_BURST,
    JWKS_REFETCH_SECONDS, JWKS_RETRY_SECONDS_MAX, JWKS_RETRY_SECONDS_MIN, JWKS_STALE_SECONDS_MAX,
};

pub use fetch::{Answer, FetchFault, Fetched, KeyIo, Source, max_age};

mod fetch;

/// The keys of one provider as a worker sees them. Cheap to clone; immutable.
#[derive(Clone)]
pub struct ProviderKeys {
    set: Option<Arc<KeySet>>,
    generation: u64,
    fetched_at: Monotonic,
    serve_until: Monotonic,
    refetch_from: Monotonic,
}

/// What a worker does about a key id that the set does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKey {
    /// Ask the control thread for a refetch and wait.
    Ask,
    /// Refetching is throttled and the set is not new: perhaps valid, 503.
    Pending,
    /// The set is new: the key does not exist, 401.
    Refuse,
}

impl ProviderKeys {
    /// No keys yet: everything is refused with 503.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            set: None,
            generation: 0,
            fetched_at: Monotonic(0),
            serve_until: Monotonic(0),
            refetch_from: Monotonic(0),
        }
    }

    /// The keys, unless there are none or they are older than staleness allows (case F03).
    #[must_use]
    pub fn usable(&self, now: Monotonic) -> Option<&KeySet> {
        if now < self.serve_until { self.set.as_deref() } else { None }
    }

    /// Grows whenever the content changed; part of the key of everything verified with it.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes over from `newer` when a refetch is allowed again. True when that changed.
    pub fn throttle_as(&mut self, newer: &Self) -> bool {
        let changed = self.refetch_from != newer.refetch_from;
        self.refetch_from = newer.refetch_from;
        changed
    }

    /// When the fetch that gave this set began.
    #[must_use]
    pub const fn fetched_at(&self) -> Monotonic {
        self.fetched_at
    }

    /// What to do about an unknown key id; `waited` = a refetch was already asked for and has
    /// ended.
    #[must_use]
    pub fn unknown_key(&self, now: Monotonic, waited: bool) -> UnknownKey {
        if !waited && now >= self.refetch_from {
            UnknownKey::Ask
        } else if now.micros_since(self.fetched_at) <= JWKS_REFETCH_SECONDS * 1_000_000 {
            UnknownKey::Refuse
        } else {
            UnknownKey::Pending
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Fetch now; report to [`Refresher::fetched`], whatever comes of it.
    Fetch,
    /// Nothing before this moment.
    At(Monotonic),
    /// A fetch is under way.
    UnderWay,
}

/// Answer to a worker that met an unknown key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Fetch now; report to [`Refresher::fetched`].
    Fetch,
    /// The fetch under way will answer.
    Joined,
    /// No refetch: tell the workers `KeysUnchanged`.
    Throttled,
}

/// What came of a fetch. After every outcome the snapshot is published anew, because it also says
/// when the next refetch is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new set with a new generation.
    Replaced,
    /// The same document: it is fresh again, the generation stays.
    Renewed,
    /// The last good set stays, for as long as staleness allows.
    Kept(FetchFault),
}

/// When to fetch the keys of one provider.
pub struct Refresher {
    keys: ProviderKeys,
    content: Option<[u8; 32]>,
    next_at: Monotonic,
    /// Start of the fetch under way: single flight per process.
    under_way: Option<Monotonic>,
    failures: u32,
    bucket: Bucket,
}

impl Refresher {
    /// Starts without keys; [`Refresher::poll`] says fetch at once.
    #[must_use]
    pub const fn new(now: Monotonic) -> Self {
        let bucket = Bucket { tokens: JWKS_REFETCH_BURST, filled_at: now };
        Self {
            keys: ProviderKeys::none(),
            content: None,
            next_at: now,
            under_way: None,
            failures: 0,
            bucket,
        }
    }

    /// The same, for keys whose generations begin after `generation`.
    #[must_use]
    pub const fn after(now: Monotonic, generation: u64) -> Self {
        let mut refresher = Self::new(now);
        refresher.keys.generation = generation;
        refresher
    }

    /// The snapshot for the workers.
    #[must_use]
    pub fn snapshot(&self, now: Monotonic) -> ProviderKeys {
        let mut keys = self.keys.clone();
        keys.refetch_from = self.bucket.next_at(now);
        keys
    }

    /// Called when the time of the last [`Next::At`] has come, and once at the start.
    pub fn poll(&mut self, now: Monotonic) -> Next {
        if self.under_way.is_some() {
            return Next::UnderWay;
        }
        if now < self.next_at {
            return Next::At(self.next_at);
        }
        self.under_way = Some(now);
        Next::Fetch
    }

    /// A worker met an unknown key id. Ten thousand made-up ids cost the issuer a burst of
    /// `JWKS_REFETCH_BURST` fetches and then one per `JWKS_REFETCH_SECONDS` (case T06).
    pub fn asked(&mut self, now: Monotonic) -> Asked {
        if self.under_way.is_some() {
            Asked::Joined
        } else if self.bucket.take(now) {
            self.under_way = Some(now);
            Asked::Fetch
        } else {
            Asked::Throttled
        }
    }

    /// Takes the result of the fetch under way.
    pub fn fetched(&mut self, now: Monotonic, result: Result<Fetched, FetchFault>) -> Outcome {
        let started = self.under_way.take().unwrap_or(now);
        match result.and_then(|fetched| self.accept(started, &fetched)) {
            Ok(outcome) => {
                self.failures = 0;
                outcome
            }
            Err(fault) => {
                self.next_at = now.after(seconds(self.retry_seconds()));
                self.failures = self.failures.saturating_add(1);
                Outcome::Kept(fault)
            }
        }
    }

    /// Swaps in a set only after it was read whole and has a usable key (case F05).
    fn accept(&mut self, started: Monotonic, fetched: &Fetched) -> Result<Outcome, FetchFault> {
        let set = KeySet::parse(&fetched.document).map_err(FetchFault::Keys)?;
        let fresh = fetched
            .max_age
            .unwrap_or(JWKS_FRESH_SECONDS_DEFAULT)
            .clamp(JWKS_FRESH_SECONDS_MIN, JWKS_FRESH_SECONDS_MAX);
        self.next_at = started.after(seconds(fresh));
        self.keys.fetched_at = started;
        self.keys.serve_until = self.next_at.after(seconds(JWKS_STALE_SECONDS_MAX));
        let mut content = [0; 32];
        content.copy_from_slice(digest::digest(&digest::SHA256, &fetched.document).as_ref());
        if self.content == Some(content) {
            return Ok(Outcome::Renewed);
        }
        self.content = Some(content);
        self.keys.set = Some(Arc::new(set));
        self.keys.generation += 1;
        Ok(Outcome::Replaced)
    }

    /// Doubles with every failure, up to the bound.
    fn retry_seconds(&self) -> u64 {
        let doubled = JWKS_RETRY_SECONDS_MIN.checked_shl(self.failures.min(u64::BITS - 1));
        doubled.map_or(JWKS_RETRY_SECONDS_MAX, |pause| {
            pause.clamp(JWKS_RETRY_SECONDS_MIN, JWKS_RETRY_SECONDS_MAX)
        })
    }
}

impl From<KeySetFault> for FetchFault {
    fn from(fault: KeySetFault) -> Self {
        Self::Keys(fault)
    }
}

/// Token bucket: `JWKS_REFETCH_BURST` at once, one more per `JWKS_REFETCH_SECONDS`.
struct Bucket {
    tokens: u32,
    filled_at: Monotonic,
}

impl Bucket {
    fn take(&mut self, now: Monotonic) -> bool {
        let gained = now.micros_since(self.filled_at) / (JWKS_REFETCH_SECONDS * 1_000_000);
        if gained > 0 {
            let room = u64::from(JWKS_REFETCH_BURST - self.tokens);
            self.filled_at = self.filled_at.after(seconds(gained * JWKS_REFETCH_SECONDS));
            self.tokens += u32::try_from(gained.min(room)).unwrap_or(0);
        }
        if self.tokens == 0 {
            return false;
        }
        // A full bucket does not save up: the next token is earned from here on.
        if self.tokens == JWKS_REFETCH_BURST {
            self.filled_at = now;
        }
        self.tokens -= 1;
        true
    }

    /// When a token is there again.
    fn next_at(&self, now: Monotonic) -> Monotonic {
        if self.tokens > 0 { now } else { self.filled_at.after(seconds(JWKS_REFETCH_SECONDS)) }
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[cfg(test)]
mod tests;
