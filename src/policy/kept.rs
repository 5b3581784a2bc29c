//! What a remote decision point permitted a moment ago, for as long as the configuration says.
//!
//! # Security
//! Permits only: a denial and every trouble are asked about again. The full key is compared, and it
//! holds everything that was asked but the time, so that nobody is served what another asked. What
//! is too old is told by the clock at each look and never found, whoever may be out of reach; what
//! was asked before everything was forgotten is not kept when its answer comes later.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::clock::Monotonic;
use crate::control::authzen::Answer;
use crate::limits::{PDP_KEPT_ENTRIES_MAX, PDP_KEPT_KEY_BYTES_MAX};

/// Bounded memory of one core.
#[derive(Default)]
pub struct Kept {
    entries: HashMap<Rc<[u8]>, Entry>,
    /// Until when each is kept, the oldest first. INVARIANT: every entry's key stands in it, so it
    /// bounds them.
    order: VecDeque<(Monotonic, Rc<[u8]>)>,
    /// How often everything was forgotten.
    age: u64,
    /// How often something was denied, by the first byte of the identity. Those who share a place
    /// with it ask once more.
    denials: Vec<u64>,
}

struct Entry {
    remembered: Remembered,
    until: Monotonic,
}

/// Permits of a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// One per question.
    pub answers: Rc<[Answer]>,
    /// When they were asked for.
    pub asked: Monotonic,
}

/// What an answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Depends<'a> {
    /// Digest of the identity that is asked about.
    pub identity: &'a [u8; 32],
    /// Of the configuration, then of the policy set.
    pub generations: [u64; 2],
    /// Name of the server.
    pub server: &'a str,
    /// All that is asked, but when.
    pub words: &'a [u8],
}

/// A question that may be answered from memory.
#[derive(Debug)]
pub struct Wish {
    key: Vec<u8>,
    asked: Monotonic,
    age: (u64, u64),
}

impl Kept {
    /// The question about `depends`, asked at `now`.
    pub fn wish(&self, depends: &Depends<'_>, now: Monotonic) -> Wish {
        let Depends { identity, generations, server, words } = *depends;
        let mut key = Vec::with_capacity(64 + server.len() + words.len());
        key.extend_from_slice(identity);
        generations.iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
        key.extend_from_slice(&(server.len() as u64).to_be_bytes());
        key.extend_from_slice(server.as_bytes());
        key.extend_from_slice(words);
        let age = self.age_of(&key);
        Wish { key, asked: now, age }
    }

    fn age_of(&self, key: &[u8]) -> (u64, u64) {
        let denials = key.first().and_then(|byte| self.denials.get(usize::from(*byte)));
        (self.age, denials.copied().unwrap_or_default())
    }

    /// What was answered. `None` once it is too old.
    #[must_use]
    pub fn get(&self, wish: &Wish) -> Option<Remembered> {
        let entry = self.entries.get(&*wish.key).filter(|entry| wish.asked < entry.until)?;
        Some(entry.remembered.clone())
    }

    /// Keeps `answers` for `lifetime` from when they were asked for; nothing but permits, and none
    /// that were asked for before everything was forgotten.
    pub fn put(&mut self, wish: Wish, answers: Vec<Answer>, lifetime: Duration) {
        let Wish { key, asked, age } = wish;
        let permitted = !answers.is_empty() && answers.iter().all(|answer| answer.permitted);
        if !permitted || age != self.age_of(&key) || key.len() > PDP_KEPT_KEY_BYTES_MAX {
            return;
        }
        while self.order.len() >= PDP_KEPT_ENTRIES_MAX {
            self.drop_oldest();
        }
        let (key, until) = (Rc::<[u8]>::from(key), asked.after(lifetime));
        self.order.push_back((until, Rc::clone(&key)));
        let remembered = Remembered { answers: Rc::from(answers), asked };
        self.entries.insert(key, Entry { remembered, until });
    }

    /// Forgets everything, also what is asked and not yet answered.
    pub fn forget(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.age += 1;
    }

    /// Forgets what is kept for one identity, because something was denied to it: a list or a
    /// review that hears of a denial, and a call that is served what was permitted before it, would
    /// contradict each other. What it has asked and not yet heard is not kept either. Other cores
    /// hear nothing of it.
    pub fn forget_of(&mut self, identity: &[u8; 32]) {
        self.entries.retain(|key, _| !key.starts_with(identity));
        let [first, ..] = *identity;
        self.denials.resize(usize::from(u8::MAX) + 1, 0);
        if let Some(count) = self.denials.get_mut(usize::from(first)) {
            *count += 1;
        }
    }

    /// Frees what is too old, at most `budget` of it. No decision depends on it.
    pub fn sweep(&mut self, now: Monotonic, budget: usize) {
        for _ in 0..budget {
            if self.order.front().is_none_or(|(until, _)| *until > now) {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        // An answer that came again has a later place.
        if self.entries.get(&key).is_some_and(|entry| entry.until <= until) {
            self.entries.remove(&key);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert!(self.entries.len() <= self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: [u8; 32] = [7; 32];
    const LIFETIME: Duration = Duration::from_secs(60);

    fn about(words: &[u8]) -> Depends<'_> {
        Depends { identity: &IDENTITY, generations: [3, 4], server: "tools", words }
    }

    fn yes() -> Answer {
        Answer { permitted: true, credential: Some("key".to_owned()) }
    }

    fn seconds(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000)
    }

    #[test]
    fn a_permit_is_kept_by_all_of_its_key_until_its_time_is_over() {
        let mut kept = Kept::default();
        let wish = kept.wish(&about(b"a"), seconds(100));
        assert!(kept.get(&wish).is_none());
        kept.put(wish, vec![yes(), yes()], LIFETIME);
        let at = |now: Monotonic| kept.get(&kept.wish(&about(b"a"), now));
        for now in [seconds(100), Monotonic(seconds(160).0 - 1)] {
            let Remembered { answers, asked } = at(now).unwrap();
            assert_eq!((&*answers, asked), (&[yes(), yes()][..], seconds(100)), "{now:?}");
        }
        for now in [seconds(160), seconds(161), Monotonic(u64::MAX)] {
            assert!(at(now).is_none(), "{now:?}: it lies there and is not found");
        }
        let mut other = IDENTITY;
        other[31] ^= 1;
        for (what, depends) in [
            ("identity", Depends { identity: &other, ..about(b"a") }),
            ("configuration", Depends { generations: [2, 4], ..about(b"a") }),
            ("policy", Depends { generations: [3, 5], ..about(b"a") }),
            ("server", Depends { server: "tool", words: b"sa", ..about(b"") }),
            ("words", about(b"b")),
            ("more words", about(b"aa")),
        ] {
            assert!(kept.get(&kept.wish(&depends, seconds(101))).is_none(), "another {what}");
        }
    }

    #[test]
    fn nothing_but_permits_is_kept() {
        let no = || Answer { permitted: false, credential: None };
        let mut kept = Kept::default();
        for answers in [vec![], vec![no()], vec![yes(), no()], vec![no(), yes()]] {
            kept.put(kept.wish(&about(b"a"), seconds(1)), answers, LIFETIME);
            assert_eq!(kept.len(), 0);
        }
        let long = vec![b'x'; PDP_KEPT_KEY_BYTES_MAX];
        kept.put(kept.wish(&about(&long), seconds(1)), vec![yes()], LIFETIME);
        assert_eq!(kept.len(), 0, "too long a key");
        // Nor what was asked before everything was forgotten.
        let early = kept.wish(&about(b"a"), seconds(1));
        kept.forget();
        kept.put(early, vec![yes()], LIFETIME);
        assert_eq!(kept.len(), 0);
        kept.put(kept.wish(&about(b"a"), seconds(1)), vec![yes()], LIFETIME);
        assert_eq!(kept.len(), 1);
        kept.forget();
        assert!(kept.get(&kept.wish(&about(b"a"), seconds(1))).is_none());
    }

    #[test]
    fn it_is_bounded_and_frees_what_is_too_old() {
        let mut kept = Kept::default();
        let put = |kept: &mut Kept, number: usize, now| {
            kept.put(kept.wish(&about(&number.to_be_bytes()), now), vec![yes()], LIFETIME);
        };
        for number in 0..PDP_KEPT_ENTRIES_MAX + 10 {
            put(&mut kept, number, seconds(1));
            // The same one again and again takes no more room, and stays the newest.
            put(&mut kept, usize::MAX, seconds(1));
            assert!(kept.len() <= PDP_KEPT_ENTRIES_MAX);
        }
        assert!(kept.get(&kept.wish(&about(&0_usize.to_be_bytes()), seconds(2))).is_none());
        assert!(kept.get(&kept.wish(&about(&usize::MAX.to_be_bytes()), seconds(2))).is_some());
        put(&mut kept, 0, seconds(30));
        kept.sweep(seconds(60), usize::MAX);
        assert!(kept.len() > 1, "none is too old");
        kept.sweep(seconds(61), 1);
        assert!(kept.len() > 1, "within its budget");
        kept.sweep(seconds(61), usize::MAX);
        assert_eq!(kept.len(), 1);
        kept.sweep(seconds(90), usize::MAX);
        assert_eq!((kept.len(), kept.order.len()), (0, 0));
    }

    #[test]
    fn a_denial_ends_what_its_identity_has_and_asks() {
        let other = [8; 32];
        let of_other = Depends { identity: &other, ..about(b"call") };
        let mut kept = Kept::default();
        for depends in [about(b"call"), of_other] {
            kept.put(kept.wish(&depends, seconds(1)), vec![yes()], LIFETIME);
        }
        let late = [about(b"late"), Depends { identity: &other, ..about(b"late") }];
        let late = late.map(|depends| kept.wish(&depends, seconds(1)));
        kept.forget_of(&IDENTITY);
        late.into_iter().for_each(|wish| kept.put(wish, vec![yes()], LIFETIME));
        let found = |words: &[u8], identity| {
            let depends = Depends { identity, ..about(words) };
            kept.get(&kept.wish(&depends, seconds(2))).is_some()
        };
        assert!(!found(b"call", &IDENTITY) && !found(b"late", &IDENTITY));
        assert!(found(b"call", &other) && found(b"late", &other));
    }
}
