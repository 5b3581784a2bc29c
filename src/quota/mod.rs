//! Rate limits of one core: how many requests who may make.
//!
//! The generic cell rate algorithm (ITU-T I.371, Annex A): of each caller one number is kept, the
//! time up to which its requests are paid for. Each core counts for itself, so that a caller with
//! connections on several gets min(cores, connections) times the rate, and nothing is shared; but
//! for limits that are to be [`Exact`].
//!
//! A request that one limit refuses is counted by none. Exact limits may be asked by another core
//! in between: they are all looked at first, then counted one after the other, and where one of
//! them refuses only then, those before it take it back. Where others were counted since, it stays
//! counted: a request more is refused then, never one more granted.
//!
//! # Security
//! Who is counted is named by two keyed 64-bit hashes, so that nobody can look for somebody else's
//! place. The table is bounded; what no longer fits pushes out the one of its set that owes least,
//! counted in requests of its own limit. So to forgive somebody some requests, as many have to be
//! owed under each of three other names that happen to share its set. A limit with a burst of one
//! owes one at most: tens of thousands of names that are made up at a time can have it forgotten.

mod exact;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

pub use self::exact::Exact;

use crate::clock::Monotonic;
use crate::config::RateLimit;
use crate::core_cell::CoreCell;
use crate::limits::RATE_LIMITS_MAX;

/// The rate limits' memory of one core.
pub struct Quota {
    state: CoreCell<State>,
    /// Of the limits that all cores count together.
    exact: Arc<Exact>,
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
    /// Empty until the first limit that this core counts alone is asked.
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

impl Quota {
    /// Remembers about `callers` for itself; their memory is asked for with the first of them
    /// under a limit that is not exact.
    #[must_use]
    pub fn new(callers: usize, exact: Arc<Exact>) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        let state = CoreCell::new(State { sets: Vec::new(), callers, hashers });
        Self { state, exact }
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
        let now = now.0.saturating_mul(1_000);
        self.state.with(|state| state.admit(limits, asker, &self.exact, now))
    }
}

impl State {
    fn admit(
        &mut self,
        limits: &[RateLimit],
        asker: &Asker<'_>,
        exact: &Exact,
        now: u64,
    ) -> Result<(), Exceeded> {
        if self.sets.is_empty() && limits.iter().any(|rate| !rate.exact && rate.covers(asker)) {
            self.sets = vec![[Bucket::default(); WAYS]; self.callers.div_ceil(WAYS).max(1)];
        }
        // The configuration has no more than these; one beyond them would be unlimited.
        let mut counted = [None; RATE_LIMITS_MAX];
        let mut refused: Option<Exceeded> = None;
        let mut shared = false;
        for ((limit, rate), slot) in limits.iter().enumerate().zip(&mut counted) {
            if !rate.covers(asker) {
                continue;
            }
            shared |= rate.exact;
            let hashers = if rate.exact { &exact.hashers } else { &self.hashers };
            let who = name(hashers, rate, asker);
            let paid_until = if rate.exact { exact.paid_until(who) } else { self.paid_until(who) };
            let from = paid_until.max(now);
            let wait = from.saturating_sub(now.saturating_add(rate.tolerance()));
            if wait > 0 {
                let this = Exceeded::after(limit, wait);
                let seconds = this.retry_after_seconds;
                if refused.is_none_or(|it| it.retry_after_seconds < seconds) {
                    refused = Some(this);
                }
            }
            let interval = rate.interval();
            *slot = Some(Bucket { who, paid_until: from.saturating_add(interval), interval });
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        if shared {
            take(limits, &mut counted, exact, now)?;
        }
        let own = limits.iter().zip(&counted).filter(|(rate, _)| !rate.exact);
        own.filter_map(|(_, bucket)| *bucket).for_each(|bucket| self.keep(bucket, now));
        Ok(())
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
        let least = || {
            (0..WAYS).min_by_key(|at| {
                set.get(*at).map(|known| owes(known.paid_until, known.interval, now))
            })
        };
        if let Some(place) = own.or_else(least).and_then(|at| set.get_mut(at)) {
            *place = bucket;
        }
    }
}

/// Counts it for every exact limit, or for none of them.
fn take(
    limits: &[RateLimit],
    counted: &mut [Option<Bucket>],
    exact: &Exact,
    now: u64,
) -> Result<(), Exceeded> {
    for (limit, rate) in limits.iter().enumerate().filter(|(_, rate)| rate.exact) {
        let Some(Some(bucket)) = counted.get_mut(limit) else { continue };
        match exact.take(*bucket, rate.tolerance(), now) {
            Ok(paid_until) => bucket.paid_until = paid_until,
            Err(wait) => {
                let before = counted.iter().zip(limits).take(limit);
                let taken = before.filter(|(_, rate)| rate.exact).filter_map(|(bucket, _)| *bucket);
                taken.for_each(|bucket| exact.give_back(bucket));
                return Err(Exceeded::after(limit, wait));
            }
        }
    }
    Ok(())
}

/// Who is counted: a limit of equal text counts on over a reload, any other begins anew.
fn name(hashers: &[RandomState; 2], rate: &RateLimit, asker: &Asker<'_>) -> [u64; 2] {
    let per = rate.per;
    let principal = asker.user.unwrap_or(asker.agent);
    let key = (
        (&rate.name, rate.requests, rate.seconds, rate.burst),
        (per.user && asker.user.is_some(), per.user.then_some(principal)),
        per.agent.then_some(asker.agent),
        (per.server || per.tool).then_some(asker.server),
        asker.tool.filter(|_| per.tool),
    );
    hashers.each_ref().map(|hasher| hash(hasher, &key))
}

impl Exceeded {
    const fn after(limit: usize, wait: u64) -> Self {
        Self { limit, retry_after_seconds: wait.div_ceil(NANOS) }
    }
}

/// What is not paid yet, in thousandths of a request: limits of any rates compare by it.
fn owes(paid_until: u64, interval: u64, now: u64) -> u128 {
    let debt = u128::from(paid_until.saturating_sub(now));
    (debt * 1_000).checked_div(u128::from(interval)).unwrap_or(0)
}

impl RateLimit {
    /// Whether a request counts.
    fn covers(&self, asker: &Asker<'_>) -> bool {
        let server = self.server.as_deref().is_none_or(|server| server == asker.server);
        let tool = self.tool.as_deref().is_none_or(|tool| asker.tool == Some(tool));
        server && tool && (asker.tool.is_some() || !self.per.tool)
    }

    /// Nanoseconds that one request pays for; rounded up, so that never more than the limit passes.
    fn interval(&self) -> u64 {
        self.seconds.saturating_mul(NANOS).div_ceil(self.requests.max(1)).max(1)
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
