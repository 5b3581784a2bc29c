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

/// The cache of one core. Bounded in entries and bytes; on overflow one goes that was not used
/// lately, so a burst of new tokens cannot push out the busy ones.
pub(crate) struct TokenCache<S = DefaultHashBuilder> {
    /// Slot numbers, found by the keyed hash of the token.
    index: HashTable<u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Where ageing and sweeping go on.
    hand: usize,
    /// State of the generator that picks places.
    dice: u64,
    /// What the entries take, see [`cost`].
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
        let hasher = S::default();
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            bounds,
            dice: hasher.hash_one(bounds.entries),
            hasher,
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
        let cost = cost(token, &verified);
        if cost > self.bounds.bytes || self.bounds.entries == 0 {
            return;
        }
        let hash = self.hasher.hash_one(token);
        let slots = &self.slots;
        if let Some(slot) = self.index.find(hash, |slot| same(slots, *slot, hash, token)).copied() {
            self.remove(slot);
        }
        while self.index.len() >= self.bounds.entries || self.bytes + cost > self.bounds.bytes {
            self.evict();
        }
        let token = Zeroizing::new(Box::from(token));
        let entry = Entry { hash, token, verified, until, used: false };
        self.bytes += cost;
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

    /// Wipes one entry: of some places picked at random the first that was not used lately. In turn
    /// instead of at random, a few more tokens than there are places, each used once in a round,
    /// would push each other out before their next use, and nothing would ever be remembered.
    fn evict(&mut self) {
        let mut victim = None;
        for _ in 0..PICKS_MAX {
            let slot = self.pick();
            match self.slots.get(slot as usize).and_then(Option::as_ref) {
                None => {}
                Some(entry) if entry.used => victim = Some(slot),
                Some(_) => {
                    victim = Some(slot);
                    break;
                }
            }
        }
        match victim {
            Some(slot) => self.remove(slot),
            // Nothing but empty places was found: the next entry goes.
            None => self.remove_next(),
        }
        // Afterwards, so that whoever is used before the next eviction is safe from it.
        for _ in 0..AGED_PER_EVICTION {
            let slot = self.advance();
            if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
                entry.used = false;
            }
        }
    }

    fn remove_next(&mut self) {
        for _ in 0..self.slots.len() {
            let slot = self.advance();
            if self.slots.get(slot as usize).is_some_and(Option::is_some) {
                return self.remove(slot);
            }
        }
    }

    /// A place at random (SplitMix64, begun with the random key of the hasher). The keyed hash of a
    /// running number would not do: it is made for tables, and its low bits repeat.
    fn pick(&mut self) -> u32 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * self.slots.len() as u128) >> 64) as u32
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
        self.bytes -= cost(&entry.token, &entry.verified);
        if let Ok(found) = self.index.find_entry(entry.hash, |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
    }
}

/// Bytes that an entry takes, about: a short token may say much, so its own length is not enough.
fn cost(token: &[u8], verified: &VerifiedToken) -> usize {
    token.len() + verified.footprint_bytes() + size_of::<Entry>()
}

/// Full compare: a hash alone proves nothing.
fn same(slots: &[Option<Entry>], slot: u32, hash: u64, token: &[u8]) -> bool {
    slots
        .get(slot as usize)
        .and_then(Option::as_ref)
        .is_some_and(|entry| entry.hash == hash && **entry.token == *token)
}

/// Places looked at for one eviction.
const PICKS_MAX: u32 = 16;
/// Entries that count as not used lately after each eviction, unless they are used again.
const AGED_PER_EVICTION: u32 = 2;

#[cfg(test)]
mod tests;
