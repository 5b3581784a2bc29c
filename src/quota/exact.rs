//! Rate limits that all cores count together: one atomic per caller.
//!
//! A caller's number is the time up to which its requests are paid for, as in the table of one
//! core; a request is granted by moving it on with one compare-exchange, so that what is granted
//! over all cores is exactly what one core would grant. All cores read one monotonic clock; where
//! their readings differ by the time between reading and counting, the later one holds.
//!
//! # Guarantees
//! Never more than the limit grants, whatever the cores do at the same time, as long as a caller
//! keeps its place. Who keeps it: see the parent module; here are five to a set. A caller that is
//! known takes no lock. One that is new takes the flag of its set for a few stores, and a core that
//! finds a flag taken for too long refuses instead of counting beside the others.
//!
//! # Memory
//! [`Set`] is two lines that processors fetch together. So one request touches no more of what
//! other cores write than its caller's set, and callers disturb each other only within one of
//! thirteen thousand sets. A line for each caller would cost five times the memory and change
//! nothing for the caller that comes on all cores at once, which is the one that costs.

use std::hash::RandomState;
use std::hint::spin_loop;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use super::{Bucket, NANOS, owes};
use crate::config::RateLimit;
use crate::limits::{EXACT_CALLERS_MAX, EXACT_TRIES_MAX};

/// The memory of the exact limits, one for all cores and for the life of the process: a reload
/// gives nobody a new burst.
pub struct Exact {
    /// Nothing until a configuration has an exact limit.
    sets: OnceLock<Box<[Set]>>,
    callers: usize,
    pub(super) hashers: [RandomState; 2],
}

/// Callers that are told apart by their second hash; the first one leads here.
#[derive(Default)]
#[repr(align(128))]
struct Set {
    places: [Place; WAYS],
    /// Held by the core that gives a place to somebody else, or takes a charge back.
    changing: AtomicBool,
}

/// One caller. `who` and `interval` change only while `paid_until` is [`CHANGING`]. Whoever sees a
/// new `who` sees `paid_until` from that on, and who sees a new time sees whose it is.
#[derive(Default)]
struct Place {
    who: AtomicU64,
    /// Nanoseconds on the monotonic clock up to which everything is paid for.
    paid_until: AtomicU64,
    /// Nanoseconds that one request of its limit pays for; 0 in an empty one.
    interval: AtomicU64,
}

/// What a look at a set finds of a caller.
enum Found<'a> {
    /// Its place, and up to when it has paid.
    At(&'a Place, u64),
    /// It has none.
    Nowhere,
    /// Another core wrote to its place meanwhile.
    Torn,
}

/// What came of one attempt to count.
enum Attempt {
    /// Counted; paid until then.
    Granted(u64),
    /// Nanoseconds until it would be granted.
    Refused(u64),
    /// The caller has no place.
    Unknown,
    /// Another core was first.
    Lost,
}

impl Exact {
    /// With the memory that `limits` need.
    #[must_use]
    pub fn of(limits: &[RateLimit]) -> Arc<Self> {
        let exact = Self::with_callers(EXACT_CALLERS_MAX);
        exact.prepare(limits);
        Arc::new(exact)
    }

    pub(super) fn with_callers(callers: usize) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Self { sets: OnceLock::new(), callers, hashers }
    }

    /// Gets the memory that `limits` need, before any request is judged by them. What is there
    /// stays, also for limits that are gone: they may come back.
    pub fn prepare(&self, limits: &[RateLimit]) {
        if limits.iter().any(|limit| limit.exact) {
            let sets = self.callers.div_ceil(WAYS).max(1);
            self.sets.get_or_init(|| (0..sets).map(|_| Set::default()).collect());
        }
    }

    /// Up to when a caller has paid; 0 for one that is not known, or that other cores count each
    /// time that it is looked at. Counts nothing: [`Self::take`] decides.
    pub(super) fn paid_until(&self, who: [u64; 2]) -> u64 {
        let Some(set) = self.set(who) else { return 0 };
        for _ in 0..EXACT_TRIES_MAX {
            match set.find(who) {
                Found::At(_, paid_until) => return paid_until,
                Found::Nowhere => return 0,
                Found::Torn => spin_loop(),
            }
        }
        0
    }

    /// Counts one request of the caller of `bucket`; answers up to when it has paid then.
    ///
    /// # Errors
    /// Nanoseconds to wait, at least 1, when the limit grants no more; a second when other cores
    /// were in between each time, or no memory was prepared.
    pub(super) fn take(&self, bucket: Bucket, tolerance: u64, now: u64) -> Result<u64, u64> {
        let Some(set) = self.set(bucket.who) else { return Err(NANOS) };
        for _ in 0..EXACT_TRIES_MAX {
            let mut attempt = set.count(bucket, tolerance, now);
            if matches!(attempt, Attempt::Unknown) {
                attempt = set.enter(bucket, now);
            }
            match attempt {
                Attempt::Granted(paid_until) => return Ok(paid_until),
                Attempt::Refused(wait) => return Err(wait),
                Attempt::Unknown | Attempt::Lost => spin_loop(),
            }
        }
        Err(NANOS)
    }

    /// Takes back what [`Self::take`] counted, `bucket` as it answered. Only when nobody counted
    /// since: the other's request was paid from this one's end on, and taking this one out from
    /// under it could grant more than the limit. So then it stays counted.
    pub(super) fn give_back(&self, bucket: Bucket) {
        let Some(set) = self.set(bucket.who) else { return };
        for _ in 0..EXACT_TRIES_MAX {
            if set.changing.compare_exchange(false, true, Acquire, Relaxed).is_ok() {
                if let Found::At(place, paid) = set.find(bucket.who)
                    && paid == bucket.paid_until
                {
                    let before = paid.saturating_sub(bucket.interval);
                    let _ = place.paid_until.compare_exchange(paid, before, Release, Relaxed);
                }
                set.changing.store(false, Release);
                return;
            }
            spin_loop();
        }
    }

    fn set(&self, who: [u64; 2]) -> Option<&Set> {
        let ([first, _], sets) = (who, self.sets.get()?);
        sets.get((first % sets.len().max(1) as u64) as usize)
    }
}

impl Set {
    /// The time is read before the name and after it, so that nobody is judged by the time of who
    /// had the place before. If it is somebody else's by the time that it is written to, the time
    /// is another one again; unless both have paid up to the same nanosecond. Then the other one is
    /// charged, and the request is one that whoever is new would be granted.
    fn find(&self, who: [u64; 2]) -> Found<'_> {
        let [_, name] = who;
        for place in &self.places {
            let paid_until = place.paid_until.load(Acquire);
            // With the release of the same in `replace`: the next load is not older than this.
            if paid_until == CHANGING || place.who.load(Acquire) != name {
                continue;
            }
            if place.paid_until.load(Relaxed) != paid_until {
                return Found::Torn;
            }
            return Found::At(place, paid_until);
        }
        Found::Nowhere
    }

    fn count(&self, bucket: Bucket, tolerance: u64, now: u64) -> Attempt {
        let (place, paid_until) = match self.find(bucket.who) {
            Found::At(place, paid_until) => (place, paid_until),
            Found::Nowhere => return Attempt::Unknown,
            Found::Torn => return Attempt::Lost,
        };
        let from = paid_until.max(now);
        let wait = from.saturating_sub(now.saturating_add(tolerance));
        if wait > 0 {
            return Attempt::Refused(wait);
        }
        let next = next(from, bucket.interval);
        match place.paid_until.compare_exchange(paid_until, next, Relaxed, Relaxed) {
            Ok(_) => Attempt::Granted(next),
            Err(_) => Attempt::Lost,
        }
    }

    /// Counts the first request of a caller, in place of the one that owes least.
    fn enter(&self, bucket: Bucket, now: u64) -> Attempt {
        if self.changing.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            return Attempt::Lost;
        }
        // It may have come in on another core meanwhile; twice in a set, it would be granted twice.
        let entered = match self.find(bucket.who) {
            Found::At(..) | Found::Torn => Attempt::Lost,
            Found::Nowhere => self.replace(bucket, now),
        };
        self.changing.store(false, Release);
        entered
    }

    /// Only with the flag.
    fn replace(&self, bucket: Bucket, now: u64) -> Attempt {
        let seen = self.places.iter().map(|place| (place, place.paid_until.load(Relaxed)));
        let debt = |(place, paid_until): &(&Place, u64)| {
            owes(*paid_until, place.interval.load(Relaxed), now)
        };
        let Some((place, paid_until)) = seen.min_by_key(debt) else { return Attempt::Lost };
        let taken = place.paid_until.compare_exchange(paid_until, CHANGING, Relaxed, Relaxed);
        if taken.is_err() {
            // Its caller was just counted: it may owe more than another one now.
            return Attempt::Lost;
        }
        let ([_, name], next) = (bucket.who, next(now, bucket.interval));
        // Release: the processor may hold back CHANGING, but not behind this.
        place.who.store(name, Release);
        place.interval.store(bucket.interval, Relaxed);
        place.paid_until.store(next, Release);
        Attempt::Granted(next)
    }
}

/// Up to when is paid after one request more.
fn next(from: u64, interval: u64) -> u64 {
    from.saturating_add(interval).min(CHANGING - 1)
}

const WAYS: usize = 5;
/// No time: the place is being given to somebody else.
const CHANGING: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_nothing_sets_stand_on_two_lines_of_their_own() {
        assert_eq!((size_of::<Set>(), align_of::<Set>()), (128, 128));
        assert_eq!(EXACT_CALLERS_MAX.div_ceil(WAYS) * size_of::<Set>(), 1_677_824, "bytes in all");
    }

    fn bucket(who: u64) -> Bucket {
        Bucket { who: [who, who], paid_until: 0, interval: 10 }
    }

    fn prepared(callers: usize) -> Exact {
        let exact = Exact::with_callers(callers);
        let sets = callers.div_ceil(WAYS);
        exact.sets.get_or_init(|| (0..sets).map(|_| Set::default()).collect());
        exact
    }

    #[test]
    fn without_memory_nothing_is_granted() {
        assert_eq!(Exact::with_callers(64).take(bucket(1), 100, 0), Err(NANOS));
    }

    #[test]
    fn what_is_given_back_is_granted_again_unless_somebody_counted_since() {
        let exact = prepared(64);
        let first = exact.take(bucket(1), 10, 100).unwrap();
        assert_eq!(first, 110);
        exact.give_back(Bucket { paid_until: first, ..bucket(1) });
        assert_eq!(exact.paid_until([1, 1]), 100);
        let first = exact.take(bucket(1), 10, 100).unwrap();
        let second = exact.take(bucket(1), 10, 105).unwrap();
        assert_eq!((first, second), (110, 120));
        exact.give_back(Bucket { paid_until: first, ..bucket(1) });
        assert_eq!(exact.paid_until([1, 1]), 120, "stricter, never looser");
        assert_eq!(exact.take(bucket(1), 10, 105), Err(5));
    }

    /// A core that stands still with the flag refuses newcomers of its set on the other ones; who
    /// is known is counted.
    #[test]
    fn a_flag_that_stays_taken_refuses_newcomers_only() {
        let exact = prepared(WAYS);
        exact.take(bucket(1), 100, 0).unwrap();
        let set = exact.set([1, 1]).unwrap();
        set.changing.store(true, Relaxed);
        assert_eq!(exact.take(bucket(2), 100, 0), Err(NANOS));
        assert_eq!(exact.take(bucket(1), 100, 0), Ok(20));
        exact.give_back(Bucket { paid_until: 20, ..bucket(1) });
        assert_eq!(exact.paid_until([1, 1]), 20, "nothing is taken back beside the others");
        set.changing.store(false, Relaxed);
        assert_eq!(exact.take(bucket(2), 100, 0), Ok(10));
    }

    /// Two cores ask once each for the same names, of which two are granted: nobody is ever refused
    /// for what he owes, although each place just belonged to somebody who used up everything.
    #[test]
    fn who_comes_in_is_not_counted_with_the_time_of_who_went_out() {
        let (exact, start) = (prepared(WAYS), std::sync::Barrier::new(2));
        let day = 86_400 * NANOS;
        let ask = || -> Vec<u64> {
            let refused = |name: &u64| {
                let bucket = Bucket { interval: day, ..bucket(*name) };
                // A second: the other one stood still with the flag.
                exact.take(bucket, day, NANOS).is_err_and(|wait| wait != NANOS)
            };
            let rounds = (0..500).flat_map(|round| {
                start.wait();
                round * 1_000 + 1..=round * 1_000 + 1_000
            });
            rounds.filter(refused).collect()
        };
        let refused = std::thread::scope(|scope| {
            [scope.spawn(ask), scope.spawn(ask)].map(|it| it.join().unwrap())
        });
        assert_eq!(refused, [[0; 0]; 2]);
    }

    #[test]
    fn the_end_of_time_is_no_place_that_changes() {
        let exact = prepared(WAYS);
        assert_eq!(exact.take(bucket(1), 100, u64::MAX), Ok(CHANGING - 1));
        assert!(exact.take(bucket(1), 100, u64::MAX).is_ok(), "found");
    }
}
