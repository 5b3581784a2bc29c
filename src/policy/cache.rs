//! Decisions of one core, kept by everything they depend on.
//!
//! # Security
//! The full key is compared, never its hash alone. The table is a fixed number of sets of four
//! places; what no longer fits pushes out the one of its set that was used longest ago, so that
//! whoever makes up names can slow others down to a fresh decision and nothing more. There is no
//! lifetime: whatever time means to a policy is in the key.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::judge::policy::Verdict;

/// Bounded map from keys to decisions of one epoch.
pub(super) struct Cache {
    /// INVARIANT: every entry was decided by the set of this epoch.
    epoch: u64,
    places: Vec<Option<Entry>>,
    hasher: DefaultHashBuilder,
    /// Counts uses; the lowest number of a set was used longest ago.
    turn: u64,
}

struct Entry {
    hash: u64,
    used: u64,
    key: Box<[u8]>,
    verdict: Verdict,
}

impl Cache {
    /// Room for `entries`, rounded down to a power of two and up to one set.
    pub(super) fn new(entries: usize) -> Self {
        let places = if entries < WAYS { WAYS } else { 1 << entries.ilog2() };
        Self {
            epoch: 0,
            places: std::iter::repeat_with(|| None).take(places).collect(),
            hasher: DefaultHashBuilder::default(),
            turn: 0,
        }
    }

    /// The decision kept under `key`. Decisions of other epochs are never found.
    pub(super) fn get(&mut self, epoch: u64, key: &[u8]) -> Option<Verdict> {
        if epoch != self.epoch {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        self.turn += 1;
        let turn = self.turn;
        let set = self.set(hash)?;
        let entry =
            set.iter_mut().flatten().find(|entry| entry.hash == hash && *entry.key == *key)?;
        entry.used = turn;
        Some(entry.verdict.clone())
    }

    /// Keeps `verdict`. A newer epoch empties the cache first; an older one, which a request that
    /// is still under way may bring, is not kept.
    pub(super) fn put(&mut self, epoch: u64, key: &[u8], verdict: Verdict) {
        if epoch > self.epoch {
            self.purge();
            self.epoch = epoch;
        } else if epoch < self.epoch {
            return;
        }
        let hash = self.hasher.hash_one(key);
        self.turn += 1;
        let used = self.turn;
        let Some(set) = self.set(hash) else { return };
        let same = |place: &&mut Option<Entry>| {
            place.as_ref().is_some_and(|entry| entry.hash == hash && *entry.key == *key)
        };
        // An equal key is replaced, so that no key stands in two places.
        let place = match set.iter_mut().find(same) {
            Some(place) => Some(place),
            None => set.iter_mut().min_by_key(|place| place.as_ref().map_or(0, |entry| entry.used)),
        };
        if let Some(place) = place {
            *place = Some(Entry { hash, used, key: Box::from(key), verdict });
        }
    }

    /// Forgets everything.
    pub(super) fn purge(&mut self) {
        self.places.iter_mut().for_each(|place| *place = None);
    }

    /// Decisions that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// The set a hash belongs to: the places are a power of two, and at least one set.
    fn set(&mut self, hash: u64) -> Option<&mut [Option<Entry>]> {
        let sets = self.places.len() / WAYS;
        let first = (hash as usize & (sets - 1)) * WAYS;
        self.places.get_mut(first..first + WAYS)
    }
}

/// Places of a set.
const WAYS: usize = 4;
