//! Idle upstream connections of one core.

use std::hash::Hash;

use hashbrown::HashMap;

use super::Stream;
use crate::clock::Monotonic;
use crate::core_cell::CoreCell;

/// Idle connections by key. The last one put is the first one taken, so that the others can age
/// out.
pub struct Pool<K> {
    idle: CoreCell<HashMap<K, Vec<Idle>>>,
    per_key_max: usize,
}

struct Idle {
    stream: Stream,
    since: Monotonic,
}

impl<K: Eq + Hash> Pool<K> {
    /// Keeps at most `per_key_max` connections for each key.
    #[must_use]
    pub fn new(per_key_max: usize) -> Self {
        Self { idle: CoreCell::default(), per_key_max }
    }

    /// A connection that was idle for less than a minute and looks open. Each is looked at, also
    /// one that was just put back: a call is never sent twice, so a FIN that is here must be seen.
    pub fn take(&self, key: &K, now: Monotonic) -> Option<Stream> {
        loop {
            let idle = self.idle.with(|all| all.get_mut(key).and_then(Vec::pop))?;
            let age = now.micros_since(idle.since);
            if age < IDLE_MICROS_MAX && !idle.stream.looks_closed() {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end. When the key has enough of them
    /// the oldest one is closed.
    pub fn put(&self, key: K, mut stream: Stream, now: Monotonic) {
        stream.park();
        let idle = Idle { stream, since: now };
        let surplus = self.idle.with(|all| {
            let list = all.entry(key).or_default();
            list.push(idle);
            (list.len() > self.per_key_max).then(|| list.remove(0))
        });
        drop(surplus);
    }

    /// Closes what was idle for too long and forgets empty keys. Called every few seconds.
    pub fn sweep(&self, now: Monotonic) {
        let old = self.idle.with(|all| {
            let mut old = Vec::new();
            all.retain(|_, list| {
                let fresh = |idle: &Idle| now.micros_since(idle.since) < IDLE_MICROS_MAX;
                // Pushed in the order of time: the old ones stand in front.
                let count = list.iter().position(fresh).unwrap_or(list.len());
                old.extend(list.drain(..count));
                !list.is_empty()
            });
            old
        });
        drop(old);
    }

    /// Closes all of them.
    pub fn clear(&self) {
        drop(self.idle.with(std::mem::take));
    }

    /// How many are kept under each key.
    pub fn for_each(&self, mut see: impl FnMut(&K, usize)) {
        self.idle.with(|all| all.iter().for_each(|(key, list)| see(key, list.len())));
    }

    /// Connections kept now, over all keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.idle.with(|all| all.values().map(Vec::len).sum())
    }
}

/// Idle longer than this, a connection is closed.
const IDLE_MICROS_MAX: u64 = 60 * 1_000_000;
