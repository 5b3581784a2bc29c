//! What each server said in its handshake, for whom, and for how long that is believed.
//!
//! A server may speak both eras, and lists of what it supports do not tell (servers of both eras
//! list the modern revision alone). So the only proof of an era is a handshake that succeeded in
//! it, the agent's own era is tried first, and a verdict carries a date: one that says "legacy" of
//! a server that was upgraded since would go on succeeding for ever, and whoever broke a server's
//! modern side once would have pinned it.
//!
//! # Security
//! A handshake may answer differently to different users, so what is known is known for one
//! identity under one credential. What is remembered opens nothing: every request is judged before
//! it is looked for. Which error is safe: forgetting costs one handshake.

use std::rc::Rc;

use hashbrown::HashMap;

use crate::clock::Monotonic;
use crate::core_cell::CoreCell;
use crate::limits::{HELLO_AGAIN, HELLO_LIFETIME, HELLOS_PER_CORE_MAX};
use crate::mcp::handshake::Hello;

/// Whom a server said it to. All of it must be the same to be believed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelloKey {
    /// The identity digest of the principal.
    pub identity: [u8; 32],
    /// Index of the server in the configuration `generation`.
    pub server: u16,
    /// Index of the credential there.
    pub credential: Option<u16>,
    /// The configuration: after another one nothing of this is used again.
    pub generation: u64,
    /// What the agent speaks, which is tried first: agents of both eras can find a server at home.
    pub revision: &'static str,
}

/// The handshakes of one core: at most `HELLOS_PER_CORE_MAX`, of which those go that were not used
/// for longest.
#[derive(Default)]
pub struct Hellos(CoreCell<Table>);

#[derive(Default)]
struct Table {
    /// Counts what voids everything: a handshake that began before may have used what was revoked.
    voided: u64,
    /// The newest configuration that was seen.
    generation: u64,
    /// Two halves: what is used moves to the young one, and when that is full it becomes the old
    /// one, whose own entries nobody used for as long.
    young: HashMap<HelloKey, Entry>,
    old: HashMap<HelloKey, Entry>,
}

struct Entry {
    hello: Rc<Hello>,
    /// When its handshake began.
    since: Monotonic,
}

/// What [`Hellos::find`] found.
#[must_use]
pub enum Found {
    /// A handshake that is believed.
    Known(Rc<Hello>),
    /// None: there is one to be held.
    Unknown(Probe),
}

/// A handshake that begins now, and may be remembered if nothing is voided before it ends.
#[must_use]
pub struct Probe {
    key: HelloKey,
    voided: u64,
    since: Monotonic,
    stale: Option<Rc<Hello>>,
}

impl Probe {
    /// What was believed until its date passed. It is worth nothing by itself; with another proof
    /// that the server still speaks that era, [`Hellos::keep`] may take it in again.
    #[must_use]
    pub fn stale(&self) -> Option<Hello> {
        let stale = self.stale.as_ref()?;
        Some(Hello::clone(stale))
    }
}

impl Hellos {
    /// What the server said, if that was less than `HELLO_LIFETIME` ago.
    pub fn find(&self, key: &HelloKey, now: Monotonic) -> Found {
        self.0.with(|table| {
            table.enter(key.generation);
            match table.find(key, now) {
                Ok(hello) => Found::Known(hello),
                Err(stale) => {
                    Found::Unknown(Probe { key: *key, voided: table.voided, since: now, stale })
                }
            }
        })
    }

    /// Takes in what a handshake came to. It serves the request that held it in any case.
    pub fn keep(&self, probe: Probe, hello: Hello) -> Rc<Hello> {
        let hello = Rc::new(hello);
        let entry = Entry { hello: Rc::clone(&hello), since: probe.since };
        self.0.with(|table| {
            if table.voided == probe.voided && table.generation == probe.key.generation {
                table.insert(probe.key, entry);
            }
        });
        hello
    }

    /// A server answered as if it spoke something else than `hello` says. True when it was
    /// forgotten, and the handshake is worth another try; false when it is so young that the
    /// contradiction is the server's own: a server that says both is not asked in a loop.
    #[must_use]
    pub fn contradict(&self, key: &HelloKey, hello: &Rc<Hello>, now: Monotonic) -> bool {
        let again_micros = HELLO_AGAIN.as_micros() as u64;
        self.0.with(|table| match table.take(key) {
            // Another request has held a newer one already.
            Some(entry) if !Rc::ptr_eq(&entry.hello, hello) => {
                table.insert(*key, entry);
                true
            }
            Some(entry) if now.micros_since(entry.since) < again_micros => {
                table.insert(*key, entry);
                false
            }
            Some(_) | None => true,
        })
    }

    /// Forgets everything: credentials were revoked.
    pub fn purge(&self) {
        self.0.with(|table| {
            table.voided += 1;
            table.young.clear();
            table.old.clear();
        });
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.with(|table| table.young.len() + table.old.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// Another configuration may mean another server by the same index.
    fn enter(&mut self, generation: u64) {
        if generation > self.generation {
            self.generation = generation;
            self.young.clear();
            self.old.clear();
        }
    }

    /// What is believed, or what was believed for too long.
    fn find(&mut self, key: &HelloKey, now: Monotonic) -> Result<Rc<Hello>, Option<Rc<Hello>>> {
        let lifetime_micros = HELLO_LIFETIME.as_micros() as u64;
        let entry = self.take(key).ok_or(None)?;
        if now.micros_since(entry.since) >= lifetime_micros {
            return Err(Some(entry.hello));
        }
        let hello = Rc::clone(&entry.hello);
        self.insert(*key, entry);
        Ok(hello)
    }

    fn take(&mut self, key: &HelloKey) -> Option<Entry> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }

    fn insert(&mut self, key: HelloKey, entry: Entry) {
        if self.young.len() >= HELLOS_PER_CORE_MAX / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::Era;
    use crate::mcp::capability::ServerCapabilities;

    const KEY: HelloKey = HelloKey {
        identity: [1; 32],
        server: 0,
        credential: Some(0),
        generation: 1,
        revision: "2025-11-25",
    };

    fn hello(revision: &'static str) -> Hello {
        Hello {
            era: Era::Legacy,
            revision,
            capabilities: ServerCapabilities::TOOLS,
            instructions: "".into(),
            info: [].into(),
        }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000)
    }

    fn probe(hellos: &Hellos, key: &HelloKey, now: Monotonic) -> Probe {
        match hellos.find(key, now) {
            Found::Unknown(probe) => probe,
            Found::Known(hello) => panic!("{hello:?} is known"),
        }
    }

    fn known(hellos: &Hellos, key: &HelloKey, now: Monotonic) -> Option<Rc<Hello>> {
        match hellos.find(key, now) {
            Found::Known(hello) => Some(hello),
            Found::Unknown(_) => None,
        }
    }

    #[test]
    fn a_verdict_has_a_date_and_an_owner() {
        let hellos = Hellos::default();
        let kept = hellos.keep(probe(&hellos, &KEY, at(10)), hello("2025-06-18"));
        let life = HELLO_LIFETIME.as_secs();
        assert!(Rc::ptr_eq(&known(&hellos, &KEY, at(9 + life)).unwrap(), &kept));
        for stranger in [
            HelloKey { identity: [2; 32], ..KEY },
            HelloKey { server: 1, ..KEY },
            HelloKey { credential: None, ..KEY },
            HelloKey { revision: "2026-07-28", ..KEY },
        ] {
            assert!(known(&hellos, &stranger, at(11)).is_none(), "{stranger:?}");
        }
        assert_eq!(probe(&hellos, &KEY, at(10 + life)).stale(), Some(hello("2025-06-18")));
        assert!(hellos.is_empty(), "what is too old is gone");
        assert_eq!(probe(&hellos, &KEY, at(10 + life)).stale(), None);
    }

    #[test]
    fn what_began_before_a_revocation_or_a_reload_is_not_remembered() {
        let hellos = Hellos::default();
        let under_way = probe(&hellos, &KEY, at(1));
        hellos.purge();
        assert_eq!(hellos.keep(under_way, hello("2025-06-18")).revision, "2025-06-18");
        assert!(known(&hellos, &KEY, at(2)).is_none());

        let under_way = probe(&hellos, &KEY, at(2));
        let reloaded = HelloKey { generation: 2, ..KEY };
        let _ = hellos.keep(probe(&hellos, &reloaded, at(2)), hello("2025-11-25"));
        let _ = hellos.keep(under_way, hello("2025-06-18"));
        assert!(known(&hellos, &KEY, at(3)).is_none());
        assert_eq!(known(&hellos, &reloaded, at(3)).unwrap().revision, "2025-11-25");
    }

    #[test]
    fn a_contradiction_is_believed_once_and_not_in_a_loop() {
        let hellos = Hellos::default();
        let again = HELLO_AGAIN.as_secs();
        let first = hellos.keep(probe(&hellos, &KEY, at(0)), hello("2025-06-18"));
        assert!(!hellos.contradict(&KEY, &first, at(again - 1)), "it said both in one breath");
        assert!(known(&hellos, &KEY, at(again - 1)).is_some());
        assert!(hellos.contradict(&KEY, &first, at(again)));
        assert!(known(&hellos, &KEY, at(again)).is_none());
        let second = hellos.keep(probe(&hellos, &KEY, at(again)), hello("2025-11-25"));
        assert!(hellos.contradict(&KEY, &first, at(again)), "another request was faster");
        assert!(Rc::ptr_eq(&known(&hellos, &KEY, at(again)).unwrap(), &second));
        assert!(!hellos.contradict(&KEY, &second, at(again)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let hellos = Hellos::default();
        let key = |number: usize| {
            let mut identity = [0; 32];
            identity[..8].copy_from_slice(&number.to_be_bytes());
            HelloKey { identity, ..KEY }
        };
        let used = hellos.keep(probe(&hellos, &key(0), at(0)), hello("2025-06-18"));
        for number in 1..3 * HELLOS_PER_CORE_MAX {
            let _ = hellos.keep(probe(&hellos, &key(number), at(0)), hello("2025-11-25"));
            assert!(hellos.len() <= HELLOS_PER_CORE_MAX);
            let kept = known(&hellos, &key(0), at(1)).expect("used all the time");
            assert!(Rc::ptr_eq(&kept, &used));
        }
        assert!(known(&hellos, &key(1), at(1)).is_none());
    }
}
