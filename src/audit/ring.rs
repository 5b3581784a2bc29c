//! The ring of one core: the worker puts records in, the writer takes them out, through one mapped
//! file.
//!
//! Positions count words since the ring was made and never wrap; the place is the position modulo
//! the length. The worker alone stores `head`, after the words below it (release); the writer
//! alone stores `tail`, after it no longer needs the words below (release). Each reads the other's
//! with acquire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::codec::{self, Kind, OUTCOME_BYTES_MAX};
use super::entry::{Decision, Entry, Outcome};
use super::writer::Health;
use crate::config::AuditMode;
use crate::core_cell::CoreCell;
use crate::limits::AUDIT_RECORD_BYTES_MAX;
use crate::mapped::Mapped;
use crate::reject::Reject;

/// The worker's end. Belongs to one thread (not `Sync`).
pub struct AuditRing {
    file: Arc<RingFile>,
    health: Arc<Health>,
    mode: AuditMode,
    producer: CoreCell<Producer>,
}

/// A committed decision that owes its outcome: give it to [`AuditRing::complete`]. Forgetting it
/// costs the ring the space reserved for the outcome, and the record ends as `unknown`. There is
/// no `Drop`: where a value happens to die is no place to write an audit record.
#[must_use = "a decision without its outcome stays open in the audit"]
#[derive(Debug)]
pub struct Ticket {
    /// `None`: the decision was dropped and counted (availability mode).
    seq: Option<u64>,
}

impl Ticket {
    /// `seq` of the record, for those of its legs; `None` when there will be no record.
    #[must_use]
    pub const fn seq(&self) -> Option<u64> {
        self.seq
    }
}

struct Producer {
    head: u64,
    /// The writer's `tail` as last seen; it only grows, so an old value errs on the safe side.
    tail: u64,
    seq: u64,
    /// INVARIANT: open tickets × `OUTCOME_WORDS`; these words are free between `head` and `tail`.
    reserved: u64,
    dropped: u64,
    reported: u64,
    /// Reused; never grows past `AUDIT_RECORD_BYTES_MAX`.
    record: Vec<u8>,
}

impl AuditRing {
    pub(super) fn new(file: Arc<RingFile>, health: Arc<Health>, mode: AuditMode) -> Self {
        let record = Vec::with_capacity(AUDIT_RECORD_BYTES_MAX);
        let producer =
            Producer { head: 0, tail: 0, seq: 0, reserved: 0, dropped: 0, reported: 0, record };
        Self { file, health, mode, producer: CoreCell::new(producer) }
    }

    /// Keeps a decision, and room for its outcome. Called before the upstream is contacted.
    ///
    /// # Errors
    /// [`Reject::AuditUnavailable`] in strict mode, when the ring is full or the writer cannot
    /// write: what cannot be recorded is not done (DESIGN §9). In availability mode it is done,
    /// counted, and told by a gap record.
    pub fn decide(&self, entry: &Entry<'_>) -> Result<Ticket, Reject> {
        let strict = self.mode == AuditMode::Strict;
        if strict && !self.health.writes() {
            return Err(Reject::AuditUnavailable);
        }
        self.producer.with(|producer| {
            producer.record_start();
            codec::write_decision(entry, &mut producer.record);
            if producer.commit(&self.file, Kind::Decision, entry.time.0, OUTCOME_WORDS) {
                producer.reserved += OUTCOME_WORDS;
                return Ok(Ticket { seq: Some(producer.seq) });
            }
            if strict {
                // The caller answers 503 and records that with `refuse`, which counts what is lost.
                return Err(Reject::AuditUnavailable);
            }
            self.drop_one(producer);
            Ok(Ticket { seq: None })
        })
    }

    /// Keeps the outcome of a decision. Cannot fail: the room was reserved by
    /// [`AuditRing::decide`].
    pub fn complete(&self, ticket: Ticket, outcome: &Outcome) {
        let Some(seq) = ticket.seq else { return };
        self.producer.with(|producer| {
            producer.record_start();
            codec::write_outcome(outcome, &mut producer.record);
            producer.reserved = producer.reserved.saturating_sub(OUTCOME_WORDS);
            producer.put(&self.file, Kind::Outcome, seq);
        });
    }

    /// Keeps decision and outcome of a request that no upstream saw. It is refused in any case, so
    /// a record that cannot be kept is counted and told by a gap record, in both modes.
    pub fn refuse(&self, entry: &Entry<'_>, outcome: &Outcome) {
        debug_assert!(entry.decision != Decision::Permit, "a permit is committed with decide");
        self.producer.with(|producer| {
            producer.record_start();
            codec::write_decision(entry, &mut producer.record);
            codec::write_outcome(outcome, &mut producer.record);
            if !producer.commit(&self.file, Kind::Whole, entry.time.0, 0) {
                self.drop_one(producer);
            }
        });
    }

    /// Which core, as in the records.
    #[must_use]
    pub fn core(&self) -> u32 {
        self.file.core
    }

    fn drop_one(&self, producer: &mut Producer) {
        producer.dropped += 1;
        // In the file, so that a crash before the gap record cannot hide it.
        self.file.header(DROPPED).store(producer.dropped, Ordering::Relaxed);
        self.health.dropped_one();
    }
}

impl Producer {
    fn record_start(&mut self) {
        self.record.clear();
        self.record.extend_from_slice(&[0; HEAD_BYTES]);
    }

    /// Puts the record under the next sequence number, leaving `extra` words free besides all that
    /// is reserved; after a gap, its record first. False, and nothing put, when there is no room.
    fn commit(&mut self, file: &RingFile, kind: Kind, time: u64, extra: u64) -> bool {
        let gap = self.dropped - self.reported;
        let gap_words = if gap > 0 { GAP_WORDS } else { 0 };
        let need = words_of(self.record.len()) + gap_words + extra + self.reserved;
        if self.head.saturating_sub(self.tail) + need > file.data_words {
            self.tail = file.header(TAIL).load(Ordering::Acquire);
            if self.head.saturating_sub(self.tail) + need > file.data_words {
                return false;
            }
        }
        if gap > 0 {
            self.put_gap(file, time, gap);
        }
        self.seq += 1;
        self.put(file, kind, self.seq);
        file.header(SEQ).store(self.seq, Ordering::Relaxed);
        true
    }

    fn put_gap(&mut self, file: &RingFile, time: u64, gap: u64) {
        let record = std::mem::take(&mut self.record);
        // A gap is rare; its own small buffer leaves the record at hand untouched.
        self.record = Vec::with_capacity(HEAD_BYTES + 16);
        self.record_start();
        codec::write_gap(time, gap, &mut self.record);
        self.seq += 1;
        self.put(file, Kind::Gap, self.seq);
        self.record = record;
        self.reported = self.dropped;
        file.header(REPORTED).store(self.reported, Ordering::Relaxed);
    }

    /// Completes the record's head and copies it behind `head`. The caller has made sure of the
    /// room.
    fn put(&mut self, file: &RingFile, kind: Kind, seq: u64) {
        let length = self.record.len().next_multiple_of(WORD_BYTES);
        self.record.resize(length, 0);
        let meta = length as u64 | u64::from(kind.code()) << 32;
        set_word(&mut self.record, 1, meta);
        set_word(&mut self.record, 2, seq);
        let sum = checksum(file.seed(self.head), &self.record);
        set_word(&mut self.record, 0, sum);
        file.copy_in(self.head, &self.record);
        self.head += words_of(length);
        file.header(HEAD).store(self.head, Ordering::Release);
    }
}

/// The mapped file, seen from both ends. What is written is in the mapping; this is only read, by
/// both at every record, so it shares no line with what either writes.
#[repr(align(128))]
pub(super) struct RingFile {
    map: Mapped,
    data_words: u64,
    pub(super) core: u32,
    pub(super) instance: u64,
}

/// One record as taken from the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<'a> {
    pub(super) kind: Kind,
    pub(super) seq: u64,
    pub(super) payload: &'a [u8],
}

impl RingFile {
    /// A new, empty ring for this process. Whatever the mapping held is gone.
    ///
    /// `map` holds [`HEADER_WORDS`] and a power of two of data words.
    pub(super) fn create(map: Mapped, core: u32, instance: u64) -> Option<Self> {
        let file = Self { data_words: Self::data_words(&map)?, map, core, instance };
        // Not a ring while it is half made: a crash here must not leave old words under a new name.
        file.header(MAGIC_AT).store(0, Ordering::Release);
        for at in [HEAD, SEQ, DROPPED, REPORTED, TAIL, WRITTEN] {
            file.header(at).store(0, Ordering::Relaxed);
        }
        file.header(INSTANCE).store(instance, Ordering::Relaxed);
        file.header(CORE).store(u64::from(core), Ordering::Relaxed);
        file.header(MAGIC_AT).store(MAGIC, Ordering::Release);
        Some(file)
    }

    /// Nothing was ever in this file, or its making was cut short.
    pub(super) fn is_blank(map: &Mapped) -> bool {
        map.words().get(MAGIC_AT).is_none_or(|word| word.load(Ordering::Acquire) == 0)
    }

    /// The ring that another process left. `None` when it is not one.
    pub(super) fn open(map: Mapped) -> Option<Self> {
        let data_words = Self::data_words(&map)?;
        let mut file = Self { map, data_words, core: 0, instance: 0 };
        if file.header(MAGIC_AT).load(Ordering::Acquire) != MAGIC {
            return None;
        }
        file.instance = file.header(INSTANCE).load(Ordering::Relaxed);
        file.core = u32::try_from(file.header(CORE).load(Ordering::Relaxed)).ok()?;
        let used = file.head().checked_sub(file.tail())?;
        (used <= data_words && file.head() < POSITION_MAX).then_some(file)
    }

    fn data_words(map: &Mapped) -> Option<u64> {
        let words = map.words().len().checked_sub(HEADER_WORDS)?;
        words.is_power_of_two().then_some(words as u64)
    }

    /// Where the worker is.
    pub(super) fn head(&self) -> u64 {
        self.header(HEAD).load(Ordering::Acquire)
    }

    /// Where the writer is.
    pub(super) fn tail(&self) -> u64 {
        self.header(TAIL).load(Ordering::Acquire)
    }

    /// How far lines have been written, between `tail` and `head`.
    pub(super) fn written(&self) -> u64 {
        let (tail, written) = (self.tail(), self.header(WRITTEN).load(Ordering::Relaxed));
        // Whoever did not keep it did not go beyond `tail`; in doubt a line is there twice.
        if (tail..=self.head()).contains(&written) { written } else { tail }
    }

    /// Notes that there is a line, in the sink, of all that ended below `written`.
    pub(super) fn set_written(&self, written: u64) {
        self.header(WRITTEN).store(written, Ordering::Relaxed);
    }

    /// Gives everything below `tail` back to the worker.
    pub(super) fn set_tail(&self, tail: u64) {
        self.header(TAIL).store(tail, Ordering::Release);
    }

    /// Records dropped and not yet told, and the last sequence number; settled once the worker
    /// rests.
    pub(super) fn untold(&self) -> (u64, u64) {
        let dropped = self.header(DROPPED).load(Ordering::Relaxed);
        let reported = self.header(REPORTED).load(Ordering::Relaxed);
        (dropped.saturating_sub(reported), self.header(SEQ).load(Ordering::Relaxed))
    }

    /// Notes that a gap was told by the writer itself.
    pub(super) fn told(&self) {
        let dropped = self.header(DROPPED).load(Ordering::Relaxed);
        self.header(REPORTED).store(dropped, Ordering::Relaxed);
    }

    /// Copies the record at `cursor` into `record`; `head` is a value of [`RingFile::head`] above
    /// it. Answers the position after it, and the record. `None` when what lies there is not a
    /// record: its length cannot be trusted then, so nothing up to `head` can be found any more.
    pub(super) fn take<'a>(
        &self,
        cursor: u64,
        head: u64,
        record: &'a mut Vec<u8>,
    ) -> Option<(u64, Taken<'a>)> {
        let meta = self.word_at(cursor + 1);
        let length = usize::try_from(meta & u64::from(u32::MAX)).ok()?;
        let whole = (HEAD_BYTES..=AUDIT_RECORD_BYTES_MAX).contains(&length)
            && length.is_multiple_of(WORD_BYTES);
        let next = cursor + words_of(length);
        if !whole || next > head {
            return None;
        }
        // Once: from then on it is long enough.
        record.resize(AUDIT_RECORD_BYTES_MAX, 0);
        let record = record.get_mut(..length)?;
        self.copy_out(cursor, record);
        let kind = Kind::from_code(u8::try_from(meta >> 32).ok()?)?;
        if word(record, 0)? != checksum(self.seed(cursor), record) {
            return None;
        }
        let seq = word(record, 2)?;
        Some((next, Taken { kind, seq, payload: record.get(HEAD_BYTES..)? }))
    }

    /// A record of another process or of an earlier lap never has a valid sum here.
    fn seed(&self, position: u64) -> u64 {
        self.instance ^ position.wrapping_mul(MULTIPLIER)
    }

    #[expect(clippy::expect_used, reason = "the mapping holds HEADER_WORDS: see data_words")]
    fn header(&self, at: usize) -> &AtomicU64 {
        self.map.words().get(at).expect("header words are mapped")
    }

    /// The data words from `position` to the end, and those before it: once around.
    fn around(&self, position: u64) -> (&[AtomicU64], &[AtomicU64]) {
        let data = self.map.words().get(HEADER_WORDS..).unwrap_or_default();
        let at = usize::try_from(position & (self.data_words - 1)).unwrap_or(0);
        let (before, after) = data.split_at_checked(at).unwrap_or((&[], data));
        (after, before)
    }

    fn copy_in(&self, position: u64, record: &[u8]) {
        let store = |(place, word): (&AtomicU64, &[u8; WORD_BYTES])| {
            place.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        };
        let (words, _) = record.as_chunks::<WORD_BYTES>();
        let (to_end, from_start) = self.around(position);
        let (first, second) = words.split_at_checked(to_end.len()).unwrap_or((words, &[]));
        to_end.iter().zip(first).for_each(store);
        from_start.iter().zip(second).for_each(store);
    }

    fn copy_out(&self, position: u64, record: &mut [u8]) {
        let load = |(word, place): (&mut [u8; WORD_BYTES], &AtomicU64)| {
            *word = place.load(Ordering::Relaxed).to_le_bytes();
        };
        let (to_end, from_start) = self.around(position);
        let (words, _) = record.as_chunks_mut::<WORD_BYTES>();
        let at = words.len().min(to_end.len());
        let (first, second) = words.split_at_mut_checked(at).unwrap_or_default();
        first.iter_mut().zip(to_end).for_each(load);
        second.iter_mut().zip(from_start).for_each(load);
    }

    fn word_at(&self, position: u64) -> u64 {
        let place = self.around(position).0.first();
        place.map_or(0, |place| place.load(Ordering::Relaxed))
    }
}

fn words_of(bytes: usize) -> u64 {
    bytes.div_ceil(WORD_BYTES) as u64
}

fn word(record: &[u8], index: usize) -> Option<u64> {
    record.as_chunks::<WORD_BYTES>().0.get(index).map(|bytes| u64::from_le_bytes(*bytes))
}

fn set_word(record: &mut [u8], index: usize, value: u64) {
    if let Some(place) = record.as_chunks_mut::<WORD_BYTES>().0.get_mut(index) {
        *place = value.to_le_bytes();
    }
}

/// A 64-bit sum over all words but the first, in two lanes (a lane is bound by the latency of its
/// multiplication). Against tearing and foreign bytes, not against an attacker: who can write the
/// ring can write the audit file. Own, because it must stay the same from version to version.
pub(super) fn checksum(seed: u64, record: &[u8]) -> u64 {
    let (words, _) = record.as_chunks::<WORD_BYTES>();
    let words = words.get(1..).unwrap_or_default();
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    let (mut left, mut right) = (seed, !seed);
    let (pairs, rest) = words.as_chunks::<2>();
    for [a, b] in pairs {
        left = step(left, u64::from_le_bytes(*a));
        right = step(right, u64::from_le_bytes(*b));
    }
    for word in rest {
        left = step(left, u64::from_le_bytes(*word));
    }
    let sum = step(step(left, right), record.len() as u64);
    (sum ^ (sum >> 32)).wrapping_mul(MULTIPLIER)
}

const WORD_BYTES: usize = 8;
/// Sum, length with kind, sequence number.
const HEAD_BYTES: usize = 3 * WORD_BYTES;
/// What a ticket reserves.
const OUTCOME_WORDS: u64 = (HEAD_BYTES + OUTCOME_BYTES_MAX).div_ceil(WORD_BYTES) as u64;
/// Positions beyond this are no ring's: 2^48 words take years at full speed.
const POSITION_MAX: u64 = 1 << 48;
const GAP_WORDS: u64 = (HEAD_BYTES + 16).div_ceil(WORD_BYTES) as u64;
/// Odd, with bits all over: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One page; what the worker stores and what the writer stores are on lines of their own.
pub(super) const HEADER_WORDS: usize = 512;
const MAGIC_AT: usize = 0;
const INSTANCE: usize = 1;
const CORE: usize = 2;
pub(super) const HEAD: usize = 64;
pub(super) const SEQ: usize = 65;
pub(super) const DROPPED: usize = 66;
pub(super) const REPORTED: usize = 67;
pub(super) const TAIL: usize = 128;
pub(super) const WRITTEN: usize = 129;
/// Format 1; another format has another number, and is not read.
const MAGIC: u64 = u64::from_le_bytes(*b"PCAUDIT\x03");
