//! Rate limits of one core: how many requests who may make.
//!
//! The generic cell rate algorithm (ITU-T I.371, Annex A): of each caller one number is kept, the
//! time up to which its requests are paid for. Each core counts for itself, so that a caller with
//! connections on several gets min(cores, connections) times the rate, and nothing is shared.
//!
//! # Security
//! Who is counted is named by two keyed 64-bit hashes, so that nobody can look for somebody else's
//! place. The table is bounded; what no longer fits pushes out the one of its set that owes least,
//! counted in requests of its own limit. So to forgive somebody some requests, as many have to be
//! owed under each of three other names that happen to share its set. A limit with a burst of one
//! owes one at most: tens of thousands of names that are made up at a time can have it forgotten.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};

use crate::clock::Monotonic;
use crate::config::RateLimit;
use crate::core_cell::CoreCell;
use crate::limits::{QUOTA_CALLERS_MAX, RATE_LIMITS_MAX};

/// The rate limits' memory of one core.
pub struct Quota {
    state: CoreCell<State>,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The user; `None` for a workload.
    pub user: Option<&'a str>,
    /// The agent.
    pub agent: &'a str,
    /// Name of the server.
    pub server: &'a str,
    /// The tool, when one is called.
    pub tool: Option<&'a str>,
}

/// More than is granted. Nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Index of the limit that refuses, or of the one that refuses longest.
    pub limit: usize,
    /// When a request would be granted again; at least 1.
    pub retry_after_seconds: u64,
}

struct State {
    /// Empty until the first limit is asked.
    sets: Vec<[Bucket; WAYS]>,
    callers: usize,
    hashers: [RandomState; 2],
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    who: [u64; 2],
    /// Nanoseconds on the monotonic clock up to which everything is paid for.
    paid_until: u64,
    /// Nanoseconds that one request of its limit pays for; 0 in an empty one.
    interval: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self::new(QUOTA_CALLERS_MAX)
    }
}

impl Quota {
    /// Remembers about `callers`; their memory is asked for with the first of them.
    #[must_use]
    pub fn new(callers: usize) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Self { state: CoreCell::new(State { sets: Vec::new(), callers, hashers }) }
    }

    /// Counts one request against every limit that it falls under.
    ///
    /// # Errors
    /// [`Exceeded`] when one of them grants no more; then none of them counts it.
    pub fn admit(
        &self,
        limits: &[RateLimit],
        asker: &Asker<'_>,
        now: Monotonic,
    ) -> Result<(), Exceeded> {
        if limits.is_empty() {
            return Ok(());
        }
        self.state.with(|state| state.admit(limits, asker, now.0.saturating_mul(1_000)))
    }
}

impl State {
    fn admit(&mut self, limits: &[RateLimit], asker: &Asker<'_>, now: u64) -> Result<(), Exceeded> {
        if self.sets.is_empty() {
            self.sets = vec![[Bucket::default(); WAYS]; self.callers.div_ceil(WAYS).max(1)];
        }
        // The configuration has no more than these; one beyond them would be unlimited.
        let mut counted = [None; RATE_LIMITS_MAX];
        let mut refused: Option<Exceeded> = None;
        for ((limit, rate), slot) in limits.iter().enumerate().zip(&mut counted) {
            if !rate.covers(asker) {
                continue;
            }
            let who = self.name(rate, asker);
            let from = self.paid_until(who).max(now);
            let wait = from.saturating_sub(now.saturating_add(rate.tolerance()));
            if wait > 0 {
                let retry_after_seconds = wait.div_ceil(NANOS);
                let longer = refused.is_none_or(|it| it.retry_after_seconds < retry_after_seconds);
                if longer {
                    refused = Some(Exceeded { limit, retry_after_seconds });
                }
            }
            let interval = rate.interval();
            *slot = Some(Bucket { who, paid_until: from.saturating_add(interval), interval });
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        counted.into_iter().flatten().for_each(|bucket| self.keep(bucket, now));
        Ok(())
    }

    /// Who is counted: a limit of equal text counts on over a reload, any other begins anew.
    fn name(&self, rate: &RateLimit, asker: &Asker<'_>) -> [u64; 2] {
        let per = rate.per;
        let principal = asker.user.unwrap_or(asker.agent);
        let key = (
            (&rate.name, rate.requests, rate.seconds, rate.burst),
            (per.user && asker.user.is_some(), per.user.then_some(principal)),
            per.agent.then_some(asker.agent),
            (per.server || per.tool).then_some(asker.server),
            asker.tool.filter(|_| per.tool),
        );
        self.hashers.each_ref().map(|hasher| hash(hasher, &key))
    }

    fn set(&self, who: [u64; 2]) -> usize {
        let [first, _] = who;
        (first % self.sets.len().max(1) as u64) as usize
    }

    fn paid_until(&self, who: [u64; 2]) -> u64 {
        let set = self.sets.get(self.set(who)).map_or(&[][..], |set| &set[..]);
        set.iter().find(|bucket| bucket.who == who).map_or(0, |bucket| bucket.paid_until)
    }

    /// In place of itself, or of the one that owes least.
    fn keep(&mut self, bucket: Bucket, now: u64) {
        let at = self.set(bucket.who);
        let Some(set) = self.sets.get_mut(at) else { return };
        let own = set.iter().position(|known| known.who == bucket.who);
        let least = || (0..WAYS).min_by_key(|at| set.get(*at).map(|known| known.owes(now)));
        if let Some(place) = own.or_else(least).and_then(|at| set.get_mut(at)) {
            *place = bucket;
        }
    }
}

impl Bucket {
    /// What is not paid yet, in thousandths of a request: limits of any rates compare by it.
    fn owes(&self, now: u64) -> u128 {
        let debt = u128::from(self.paid_until.saturating_sub(now));
        (debt * 1_000).checked_div(u128::from(self.interval)).unwrap_or(0)
    }
}

impl RateLimit {
    /// Whether a request counts.
    fn covers(&self, asker: &Asker<'_>) -> bool {
        let server = self.server.as_deref().is_none_or(|server| server == asker.server);
        let tool = self.tool.as_deref().is_none_or(|tool| asker.tool == Some(tool));
        server && tool && (asker.tool.is_some() || !self.per.tool)
    }

    /// Nanoseconds that one request pays for.
    fn interval(&self) -> u64 {
        (self.seconds.saturating_mul(NANOS) / self.requests.max(1)).max(1)
    }

    /// How far ahead may be paid, so that a burst passes at once.
    fn tolerance(&self) -> u64 {
        self.interval().saturating_mul(self.burst.saturating_sub(1))
    }
}

fn hash(hasher: &RandomState, key: &impl Hash) -> u64 {
    hasher.hash_one(key)
}

const NANOS: u64 = 1_000_000_000;
const WAYS: usize = 4;
