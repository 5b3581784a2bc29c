//! Sessions that ended before their time: a sealed id opens wherever the key is, so that an end has
//! to be remembered.

use std::collections::{HashSet, VecDeque};

use crate::clock::UnixSeconds;
use crate::limits::{SESSION_LIFETIME_SECONDS_MAX, SESSION_SKEW_SECONDS_MAX, SESSIONS_ENDED_MAX};

/// The short marks ([`super::hub_session::SessionMark::short`]) of sessions that ended. With more
/// than `SESSIONS_ENDED_MAX` of them the oldest is forgotten. What that gives back is only what its
/// owner had: the upstream has ended its own session, and says so.
#[derive(Clone, Default)]
pub struct Ended {
    marks: HashSet<u64>,
    /// The same in the order they came, each with the moment from which on its id does not open
    /// anyway.
    order: VecDeque<(u64, UnixSeconds)>,
}

impl Ended {
    /// Remembers one; false when it is known already.
    pub fn insert(&mut self, mark: u64, now: UnixSeconds) -> bool {
        self.forget_expired(now);
        if !self.marks.insert(mark) {
            return false;
        }
        if self.order.len() >= SESSIONS_ENDED_MAX {
            self.forget_oldest();
        }
        // Not the lifetime that is configured now: a reload may make it longer.
        let kept = SESSION_LIFETIME_SECONDS_MAX + SESSION_SKEW_SECONDS_MAX;
        self.order.push_back((mark, UnixSeconds(now.0.saturating_add(kept))));
        true
    }

    /// Remembers all of `others`, too.
    pub fn merge(&mut self, others: &Self, now: UnixSeconds) {
        for (mark, _) in &others.order {
            self.insert(*mark, now);
        }
    }

    /// Whether this one ended.
    #[must_use]
    pub fn holds(&self, mark: u64) -> bool {
        self.marks.contains(&mark)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// In the order they came, so the first expires first; a wall clock that is set back only keeps
    /// some of them longer.
    fn forget_expired(&mut self, now: UnixSeconds) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((mark, _)) = self.order.pop_front() {
            self.marks.remove(&mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const KEPT: u64 = SESSION_LIFETIME_SECONDS_MAX + SESSION_SKEW_SECONDS_MAX;

    #[test]
    fn an_end_is_remembered_for_as_long_as_an_id_may_open() {
        let mut ended = Ended::default();
        assert!(ended.is_empty() && !ended.holds(1));
        assert!(ended.insert(1, NOW) && !ended.insert(1, NOW));
        assert!(ended.holds(1) && !ended.holds(2) && ended.len() == 1);
        let before = UnixSeconds(NOW.0 + KEPT - 1);
        assert!(ended.insert(2, before));
        assert!(ended.holds(1), "an id of the furthest future still opens");
        assert!(ended.insert(3, UnixSeconds(before.0 + 1)));
        assert!(!ended.holds(1) && ended.holds(2) && ended.holds(3));
        assert_eq!(ended.len(), 2);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut ended = Ended::default();
        for mark in 0..=SESSIONS_ENDED_MAX as u64 {
            assert!(ended.insert(mark, NOW));
        }
        assert_eq!((ended.len(), ended.marks.len()), (SESSIONS_ENDED_MAX, SESSIONS_ENDED_MAX));
        assert!(!ended.holds(0) && ended.holds(1) && ended.holds(SESSIONS_ENDED_MAX as u64));
    }

    #[test]
    fn a_merge_loses_nothing_of_either_side() {
        let (mut here, mut there) = (Ended::default(), Ended::default());
        here.insert(1, NOW);
        here.insert(2, NOW);
        there.insert(2, NOW);
        there.insert(3, NOW);
        here.merge(&there, NOW);
        assert!([1, 2, 3].iter().all(|mark| here.holds(*mark)));
        assert_eq!(here.len(), 3);
    }
}
