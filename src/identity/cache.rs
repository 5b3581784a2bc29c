//! Tokens that this core has verified: a hit skips the signature and nothing else.
//!
//! Only full successes go in. Which error is safe: a false miss costs a signature check; a false
//! hit would let a forged or withdrawn token in, so a hit needs every byte of the token equal, the
//! same trust configuration, the same key generation and an age under a minute; time and audience
//! are judged by the caller at every use.

use std::hash::BuildHasher;
use std::rc::Rc;

use hashbrown::{DefaultHashBuilder, HashTable};
use zeroize::Zeroizing;

use crate::clock::Monotonic;
use crate::identity::VerifiedToken;

/// The cache of one core. Bounded in entries and bytes; on overflow the least used go first (clock
/// algorithm), so a burst of new tokens cannot push out the busy ones.
pub(crate) struct TokenCache<S = DefaultHashBuilder> {
    /// Slot numbers, found by the keyed hash of the token.
    index: HashTable<u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Where eviction and sweeping go on.
    hand: usize,
    bytes: usize,
    bounds: Bounds,
    /// Randomly keyed per core: nobody can aim at one bucket.
    hasher: S,
}

/// The bounds of a cache.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

struct Entry {
    hash: u64,
    /// Wiped when the entry goes.
    token: Zeroizing<Box<[u8]>>,
    verified: Rc<VerifiedToken>,
    until: Monotonic,
    used: bool,
}

impl<S: BuildHasher + Default> TokenCache<S> {
    /// An empty cache.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            bounds,
            hasher: S::default(),
        }
    }

    /// The token as verified earlier, if `current` still says so. An entry that is too old or not
    /// current is wiped. No allocation.
    pub(crate) fn get(
        &mut self,
        token: &[u8],
        now: Monotonic,
        current: impl FnOnce(&VerifiedToken) -> bool,
    ) -> Option<Rc<VerifiedToken>> {
        let hash = self.hasher.hash_one(token);
        let slots = &self.slots;
        let slot = *self.index.find(hash, |slot| same(slots, *slot, hash, token))?;
        let entry = self.slots.get_mut(slot as usize)?.as_mut()?;
        if now < entry.until && current(&entry.verified) {
            entry.used = true;
            return Some(Rc::clone(&entry.verified));
        }
        self.remove(slot);
        None
    }

    /// Remembers a verified token until `until`, which has not passed.
    pub(crate) fn insert(&mut self, token: &[u8], verified: Rc<VerifiedToken>, until: Monotonic) {
        if token.len() > self.bounds.bytes || self.bounds.entries == 0 {
            return;
        }
        let hash = self.hasher.hash_one(token);
        let slots = &self.slots;
        if let Some(slot) = self.index.find(hash, |slot| same(slots, *slot, hash, token)).copied() {
            self.remove(slot);
        }
        while self.index.len() >= self.bounds.entries
            || self.bytes + token.len() > self.bounds.bytes
        {
            self.evict();
        }
        let entry =
            Entry { hash, token: Zeroizing::new(Box::from(token)), verified, until, used: false };
        self.bytes += token.len();
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(entry);
        }
        let slots = &self.slots;
        self.index.insert_unique(hash, slot, |slot| {
            slots.get(*slot as usize).and_then(Option::as_ref).map_or(0, |entry| entry.hash)
        });
    }

    /// Wipes what is too old among the next `budget` slots. Expiry is checked on read; this only
    /// keeps old tokens from lying in memory.
    pub(crate) fn sweep(&mut self, now: Monotonic, budget: usize) {
        for _ in 0..budget.min(self.slots.len()) {
            let slot = self.advance();
            let old = |entry: &Entry| now >= entry.until;
            if self.slots.get(slot as usize).and_then(Option::as_ref).is_some_and(old) {
                self.remove(slot);
            }
        }
    }

    /// Wipes everything.
    pub(crate) fn purge(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.free.clear();
        self.hand = 0;
        self.bytes = 0;
    }

    /// Number of remembered tokens.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Goes round until an entry was not used since the last visit: at most two rounds.
    fn evict(&mut self) {
        for _ in 0..=2 * self.slots.len() {
            let slot = self.advance();
            match self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
                Some(entry) if entry.used => entry.used = false,
                Some(_) => return self.remove(slot),
                None => {}
            }
        }
    }

    fn advance(&mut self) -> u32 {
        let slot = self.hand;
        self.hand = if slot + 1 < self.slots.len() { slot + 1 } else { 0 };
        slot as u32
    }

    fn remove(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.bytes -= entry.token.len();
        if let Ok(found) = self.index.find_entry(entry.hash, |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
    }
}

/// Full compare: a hash alone proves nothing.
fn same(slots: &[Option<Entry>], slot: u32, hash: u64, token: &[u8]) -> bool {
    slots
        .get(slot as usize)
        .and_then(Option::as_ref)
        .is_some_and(|entry| entry.hash == hash && **entry.token == *token)
}

#[cfg(test)]
mod tests;
