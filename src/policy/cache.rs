//! Decisions of one core, kept by everything they depend on.
//!
//! # Security
//! The full key is compared, never its hash alone. The table is a fixed number of sets of four
//! places; what no longer fits pushes out the one of its set that was used longest ago, so that
//! whoever makes up names can slow others down to a fresh decision and nothing more. There is no
//! lifetime: whatever time means to a policy is in the key.
//!
//! What was decided before the newest epoch, or before everything was forgotten, is told by its
//! last use and never found; its memory is freed a piece at a time, so that no request pays for a
//! whole table. Which error is safe: one freed late costs memory that was bounded anyway.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::judge::policy::Verdict;

/// Bounded map from keys to decisions of one epoch.
pub(super) struct Cache {
    /// INVARIANT: every entry used in turn `since` or later was decided by the set of this epoch.
    epoch: u64,
    /// Both tables are asked for as zeros (`vec!` knows them in plain arrays, not in a type of our
    /// own) and nothing writes to them at the start, so that the system provides their memory as
    /// the cache fills.
    ///
    /// No other core reads or writes either. They begin wherever the allocator has them, for it
    /// has zeroed memory of no stricter alignment without writing it; where that is 16 bytes into a
    /// line, as with large blocks of glibc, the hashes of a set are on one line all the same.
    marks: Vec<Marks>,
    entries: Vec<Entries>,
    hasher: DefaultHashBuilder,
    /// Counts uses; the lowest number of a set was used longest ago.
    turn: u64,
    /// What was last used before this turn is forgotten.
    since: u64,
    /// The set to free next, and how many from it on may hold what is forgotten.
    sweep_at: usize,
    stale: usize,
}

/// Of one set, what a search looks at first: the hashes of its entries, then their last uses.
type Marks = [[u64; WAYS]; 2];

/// Of one set.
type Entries = [Option<Box<Entry>>; WAYS];

#[derive(Clone)]
struct Entry {
    key: Box<[u8]>,
    verdict: Verdict,
}

impl Cache {
    /// Room for `entries`, rounded down to a power of two and up to one set.
    pub(super) fn new(entries: usize) -> Self {
        let sets = if entries < WAYS { 1 } else { (1 << entries.ilog2()) / WAYS };
        Self {
            epoch: 0,
            marks: vec![[[0; WAYS]; 2]; sets],
            entries: vec![[const { None }; WAYS]; sets],
            hasher: DefaultHashBuilder::default(),
            turn: 0,
            since: 1,
            sweep_at: 0,
            stale: 0,
        }
    }

    /// The decision kept under `key`. Decisions of other epochs are never found.
    pub(super) fn get(&mut self, epoch: u64, key: &[u8]) -> Option<Verdict> {
        if epoch != self.epoch {
            return None;
        }
        let (hash, since) = (self.hasher.hash_one(key), self.since);
        let (turn, [hashes, uses], entries) = self.set(hash)?;
        let mut places = hashes.iter().zip(uses).zip(entries);
        places.find_map(|((mark, used), entry)| {
            if *mark != hash || *used < since {
                return None;
            }
            let entry = entry.as_ref().filter(|entry| *entry.key == *key)?;
            *used = turn;
            Some(entry.verdict.clone())
        })
    }

    /// Keeps `verdict`. With a newer epoch everything else is forgotten; an older one, which a
    /// request that is still under way may bring, is not kept.
    pub(super) fn put(&mut self, epoch: u64, key: &[u8], verdict: Verdict) {
        if epoch > self.epoch {
            self.forget();
            self.epoch = epoch;
        } else if epoch < self.epoch {
            return;
        }
        let hash = self.hasher.hash_one(key);
        let Some((turn, [hashes, uses], entries)) = self.set(hash) else { return };
        // An equal key is replaced, so that no key stands in two places.
        let oldest =
            hashes.iter_mut().zip(uses).zip(entries).min_by_key(|((mark, used), entry)| {
                let is_same =
                    **mark == hash && entry.as_ref().is_some_and(|entry| *entry.key == *key);
                (!is_same, **used)
            });
        if let Some(((mark, used), entry)) = oldest {
            (*mark, *used) = (hash, turn);
            *entry = Some(Box::new(Entry { key: Box::from(key), verdict }));
        }
    }

    /// Forgets everything, at once; [`Cache::sweep`] frees it.
    pub(super) fn forget(&mut self) {
        self.since = self.turn + 1;
        self.stale = self.marks.len();
    }

    /// Frees what is forgotten among the next `budget` places, until all were looked at. What was
    /// never written to stays so.
    pub(super) fn sweep(&mut self, budget: usize) {
        for _ in 0..self.stale.min(budget.div_ceil(WAYS)) {
            if let (Some([hashes, uses]), Some(entries)) =
                (self.marks.get_mut(self.sweep_at), self.entries.get_mut(self.sweep_at))
            {
                for ((mark, used), entry) in hashes.iter_mut().zip(uses).zip(entries) {
                    if *used != 0 && *used < self.since {
                        (*mark, *used, *entry) = (0, 0, None);
                    }
                }
            }
            self.sweep_at = (self.sweep_at + 1) % self.marks.len();
            self.stale -= 1;
        }
    }

    /// Decisions whose memory is not freed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.iter().flatten().flatten().count()
    }

    /// The number of this use, and the set a hash belongs to: their number is a power of two.
    fn set(&mut self, hash: u64) -> Option<(u64, &mut Marks, &mut Entries)> {
        self.turn += 1;
        let at = hash as usize & (self.marks.len() - 1);
        Some((self.turn, self.marks.get_mut(at)?, self.entries.get_mut(at)?))
    }
}

/// Places of a set.
const WAYS: usize = 4;
