//! Joins the halves of records to lines.

use std::io;

use hashbrown::{HashMap, HashSet};

use super::codec::{Kind, Reader};
use super::line::{self, Halves, Key, State};
use super::parked::Parked;
use super::ring::Taken;
use super::time::Times;
use crate::clock::{Monotonic, Now};
use crate::limits::{AUDIT_OPEN_SECONDS_MAX, AUDIT_RECORD_BYTES_MAX};

/// Lines to write, and the decisions that have no outcome yet.
pub(super) struct Joiner {
    open: HashMap<Key, Open>,
    parked: Parked,
    /// Slots whose final line is among `lines`.
    finished: Vec<u32>,
    /// Final lines that the file already had when we started.
    seen: HashSet<Key>,
    /// Buffers of decisions that are complete: a busy writer allocates nothing.
    spare: Vec<Vec<u8>>,
    times: Times,
    /// What is to be written, whole lines.
    pub(super) lines: Vec<u8>,
    /// How many lines that is.
    pub(super) count: u64,
}

struct Open {
    payload: Vec<u8>,
    slot: Option<u32>,
    since: Monotonic,
    told: bool,
}

impl Joiner {
    pub(super) fn new(parked: Parked, seen: HashSet<Key>) -> Self {
        Self {
            open: HashMap::new(),
            parked,
            finished: Vec::new(),
            seen,
            spare: Vec::new(),
            times: Times::new(),
            lines: Vec::new(),
            count: 0,
        }
    }

    /// A decision that an earlier process had parked.
    pub(super) fn adopt(&mut self, key: Key, slot: u32, payload: Vec<u8>) {
        if self.seen.contains(&key) {
            // Its line was written, and then the process died before it could free the slot.
            self.finished.push(slot);
        } else {
            let open = Open { payload, slot: Some(slot), since: Monotonic(0), told: true };
            self.open.insert(key, open);
        }
    }

    /// Takes one record of a ring; what is `told` has its line already and only opens or ends a
    /// request. True when it opened one, which nothing but the ring keeps.
    pub(super) fn take(&mut self, key: Key, taken: &Taken<'_>, told: bool, now: Now) -> bool {
        if !self.seen.is_empty() && self.seen.contains(&key) {
            return false;
        }
        match taken.kind {
            Kind::Decision => {
                if self.open.contains_key(&key) {
                    return false;
                }
                let mut payload = self.spare.pop().unwrap_or_default();
                payload.extend_from_slice(taken.payload);
                let open = Open { payload, slot: None, since: now.mono, told: false };
                self.open.insert(key, open);
                return true;
            }
            Kind::Outcome => {
                // Without its decision it belongs to a record that was ended as unknown.
                let Some(open) = self.open.remove(&key) else { return false };
                self.finished.extend(open.slot);
                if !told {
                    self.write(key, &open.payload, Some(taken.payload), State::Done, now);
                }
                self.reuse(open.payload);
            }
            Kind::Gap | Kind::Whole if told => {}
            Kind::Whole => self.write(key, taken.payload, None, State::Done, now),
            Kind::Gap => match Reader(taken.payload).gap() {
                Some((time, dropped)) => self.gap(key, time, dropped),
                None => self.torn(key.instance, key.core, now),
            },
        }
        false
    }

    /// Tells of records that could not be kept.
    pub(super) fn gap(&mut self, key: Key, time: u64, dropped: u64) {
        if self.seen.contains(&key) {
            return;
        }
        line::write_gap(key, time, dropped, &mut self.times, &mut self.lines);
        self.count += 1;
    }

    /// Tells of bytes that are no record.
    pub(super) fn torn(&mut self, instance: u64, core: u32, now: Now) {
        line::write_torn(instance, core, now.wall.0, &mut self.times, &mut self.lines);
        self.count += 1;
    }

    /// Writes an early line for every request that has been open too long.
    pub(super) fn tell_long_open(&mut self, now: Now) {
        let limit = AUDIT_OPEN_SECONDS_MAX * 1_000_000;
        let late = |open: &Open| !open.told && now.mono.micros_since(open.since) > limit;
        let mut late: Vec<Key> =
            self.open.iter().filter(|(_, open)| late(open)).map(|(key, _)| *key).collect();
        late.sort_unstable();
        for key in late {
            if let Some(mut open) = self.open.remove(&key) {
                self.write(key, &open.payload, None, State::Opened, now);
                open.told = true;
                self.open.insert(key, open);
            }
        }
    }

    /// Ends every open record as unknown: nobody is left who could complete it.
    pub(super) fn end_all(&mut self, now: Now) {
        let mut open: Vec<(Key, Open)> = self.open.drain().collect();
        open.sort_unstable_by_key(|(key, _)| *key);
        for (key, open) in open {
            self.finished.extend(open.slot);
            self.write(key, &open.payload, None, State::Unknown, now);
        }
    }

    /// Still open, and in no slot.
    pub(super) fn is_loose(&self, key: &Key) -> bool {
        self.open.get(key).is_some_and(|open| open.slot.is_none())
    }

    /// Puts an open decision into a slot. After this its words in the ring may go.
    pub(super) fn park(&mut self, key: &Key) -> io::Result<()> {
        if let Some(open) = self.open.get_mut(key) {
            open.slot = Some(self.parked.put(*key, &open.payload)?);
        }
        Ok(())
    }

    /// The lines are in the sink: frees their slots. Answers how many could not be freed.
    pub(super) fn lines_written(&mut self) -> usize {
        self.lines.clear();
        self.count = 0;
        let finished = self.finished.drain(..);
        finished.filter(|slot| self.parked.free(*slot).is_err()).count()
    }

    /// Every record has its final line: a clean slot file, and nothing remembered.
    pub(super) fn start_clean(&mut self) -> io::Result<()> {
        self.seen = HashSet::new();
        self.parked.clear()
    }

    fn write(&mut self, key: Key, decision: &[u8], outcome: Option<&[u8]>, state: State, now: Now) {
        let halves = Halves { decision, outcome, state };
        if line::write_request(key, halves, &mut self.times, &mut self.lines) {
            self.count += 1;
        } else {
            self.torn(key.instance, key.core, now);
        }
    }

    fn reuse(&mut self, mut payload: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            payload.clear();
            self.spare.push(payload);
        }
    }
}

/// Buffers kept for decisions to come: at most 4 MiB.
const SPARE_MAX: usize = 512;

const _: () = assert!(SPARE_MAX * AUDIT_RECORD_BYTES_MAX <= 4 * 1024 * 1024);
