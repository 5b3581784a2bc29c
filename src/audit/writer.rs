//! The audit writer: one thread that turns what lies in the rings into lines.
//!
//! The order of one turn is what makes a record appear exactly once whatever dies when: take from
//! the rings, park decisions that have been open too long to stay there, write the lines, note in
//! the rings how far they are written, give space back, free the slots. Dying anywhere in it
//! leaves the records in the rings or slots; the next process recognises by the note, and by the
//! last lines of the file, what had been written already.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::directory::RingDirectory;
use super::join::Joiner;
use super::line::Key;
use super::pauses::{POLL_MAX, Pauses};
use super::recovery;
use super::ring::{AuditRing, RingFile};
use super::sink::Sink;
use crate::clock::{Clock, Monotonic, Now};
use crate::config::Audit;
use crate::limits::AUDIT_RING_BYTES;
use crate::lines::Lines;

/// The handle of the writer thread. Dropping it does not stop the thread; [`Writer::shutdown`]
/// does.
pub struct Writer {
    /// Answers whether everything was written.
    thread: JoinHandle<bool>,
    orders: Arc<Orders>,
    health: Arc<Health>,
    clock: Clock,
    instance: String,
}

/// What [`Writer::start`] makes.
pub struct Started {
    /// The thread's handle, for the control thread.
    pub writer: Writer,
    /// One ring per core, in the order asked for.
    pub rings: Vec<AuditRing>,
    /// What happened to the rings of an earlier process, in plain words for the log.
    pub notes: Vec<String>,
}

/// Totals since the start, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines written.
    pub written: u64,
    /// Records that could not be kept.
    pub dropped: u64,
    /// Writes, syncs and reopens that failed.
    pub errors: u64,
}

/// What workers and control thread may know of the writer.
pub(super) struct Health {
    /// Read by every request in strict mode, so on lines that nothing else is written to.
    pub(super) writes: Lines<AtomicBool>,
    /// The workers'; only while records are lost.
    pub(super) dropped: Lines<AtomicU64>,
    /// The writer's, once per batch.
    pub(super) written: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// Looked at by the writer in every turn, and by no worker.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Orders {
    reopen: AtomicBool,
    stop: AtomicBool,
    /// Microseconds on the writer's clock; what cannot be written by then stays in the rings.
    give_up: AtomicU64,
}

impl Writer {
    /// Locks the ring directory, writes what an earlier process left, makes a ring for each of
    /// `cores` (names for file and record, each once) and starts the thread.
    ///
    /// # Errors
    /// A sentence with the cure: the directory or the audit file cannot be used, or another gateway
    /// uses them.
    pub fn start(config: &Audit, cores: &[u32], clock: Clock) -> Result<Started, String> {
        let directory = RingDirectory::lock(&config.ring_directory)?;
        let sink = Sink::open(&config.sink).map_err(|error| {
            format!("the audit sink cannot be opened: {error}; see [audit] path")
        })?;
        let (drain, notes) = recovery::recover(&directory, sink, clock)?;
        let health = Arc::new(Health::default());
        let instance = random_instance()?;
        let mut rings = Vec::with_capacity(cores.len());
        let mut lanes = Vec::with_capacity(cores.len());
        for core in cores {
            let file = Arc::new(directory.create(*core, instance)?);
            lanes.push(Lane::new(Arc::clone(&file)));
            rings.push(AuditRing::new(file, Arc::clone(&health), config.mode));
        }
        let drain = Drain { lanes, fsync: config.fsync, ..drain };
        let orders = Arc::new(Orders::default());
        let run = Run {
            drain,
            clock,
            orders: Arc::clone(&orders),
            health: Arc::clone(&health),
            _directory: directory,
        };
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || run.run())
            .map_err(|error| format!("the audit thread cannot be started: {error}"))?;
        let instance = format!("{instance:016x}");
        let writer = Self { thread, orders, health, clock, instance };
        Ok(Started { writer, rings, notes })
    }

    /// Opens the audit file anew, soon: for SIGHUP after a rotation.
    pub fn reopen(&self) {
        self.orders.reopen.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// False from a write that failed to the next one that succeeds, and when the thread is gone.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.health.writes()
    }

    /// Name of this process in its records.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Totals since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            written: self.health.written.load(Ordering::Relaxed),
            dropped: self.health.dropped.load(Ordering::Relaxed),
            errors: self.health.errors.load(Ordering::Relaxed),
        }
    }

    /// Writes everything that is in the rings and ends the thread. Called when no worker uses its
    /// ring any more; what is open then ends as `unknown`. False when not all could be written
    /// `within` that time: the rest stays in the rings, for the next process.
    #[must_use]
    pub fn shutdown(self, within: Duration) -> bool {
        let give_up = self.clock.monotonic().after(within);
        self.orders.give_up.store(give_up.0, Ordering::Relaxed);
        self.orders.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or(false)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            writes: Lines::new(AtomicBool::new(true)),
            dropped: Lines::default(),
            written: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }
}

impl Health {
    /// The thread lives, and its last write succeeded.
    pub(super) fn writes(&self) -> bool {
        self.writes.load(Ordering::Relaxed)
    }

    pub(super) fn dropped_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The thread's own state.
struct Run {
    drain: Drain,
    clock: Clock,
    orders: Arc<Orders>,
    health: Arc<Health>,
    /// Held for its lock.
    _directory: RingDirectory,
}

impl Run {
    /// Whatever ends the thread, a fault of our own included: from then on nothing is written, and
    /// strict mode must know.
    fn run(self) -> bool {
        let health = Arc::clone(&self.health);
        let written = panic::catch_unwind(AssertUnwindSafe(move || self.until_stopped()));
        health.writes.store(false, Ordering::Relaxed);
        written.unwrap_or(false)
    }

    fn until_stopped(mut self) -> bool {
        let mut pauses = Pauses::new();
        loop {
            // Read before the rings are: what was committed before the order is taken after it.
            let stopping = self.orders.stop.load(Ordering::Acquire);
            self.reopen_if_asked();
            let turn = self.drain.turn(self.clock.now());
            pauses.wrote(turn.as_ref().map_or(0, |(_, lines)| *lines));
            let outcome = self.account(turn);
            match outcome {
                Some(Turn::More) => continue,
                Some(Turn::Idle) if stopping => break,
                Some(Turn::Idle) => {}
                None if stopping && self.out_of_time() => return false,
                None => {}
            }
            thread::park_timeout(pauses.next());
        }
        self.end()
    }

    /// All workers rest and the rings are empty.
    fn end(&mut self) -> bool {
        let now = self.clock.now();
        self.drain.end_records(now);
        loop {
            let turn = self.drain.turn(now);
            match self.account(turn) {
                Some(Turn::More) => {}
                Some(Turn::Idle) => {
                    self.drain.settled();
                    return true;
                }
                None if self.out_of_time() => return false,
                None => thread::park_timeout(POLL_MAX),
            }
        }
    }

    fn account(&self, turn: io::Result<(Turn, u64)>) -> Option<Turn> {
        match turn {
            Ok((turn, lines)) => {
                self.health.written.fetch_add(lines, Ordering::Relaxed);
                // Stored when it changes only (this thread alone does): see `Health::writes`.
                if !self.health.writes() {
                    self.health.writes.store(true, Ordering::Relaxed);
                    tracing::info!("audit records are written again");
                }
                Some(turn)
            }
            // A reader that is slow is no fault: the rings bound how long it may be.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                self.health.errors.fetch_add(1, Ordering::Relaxed);
                if self.health.writes.swap(false, Ordering::Relaxed) {
                    tracing::error!(%error, "audit records cannot be written; the rings keep them");
                }
                None
            }
        }
    }

    fn reopen_if_asked(&mut self) {
        // A line that was begun in the old file is finished there; the order waits for it.
        if !self.drain.at_line_end() || !self.orders.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.drain.sink.reopen() {
            self.health.errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "the audit file cannot be reopened; the old one stays in use");
        }
    }

    fn out_of_time(&self) -> bool {
        self.clock.monotonic() >= Monotonic(self.orders.give_up.load(Ordering::Relaxed))
    }
}

/// Rings, joiner and sink: everything that a turn touches. Used by the thread and by recovery.
pub(super) struct Drain {
    pub(super) lanes: Vec<Lane>,
    pub(super) joiner: Joiner,
    pub(super) sink: Sink,
    pub(super) fsync: bool,
    /// Bytes of `joiner.lines` that are in the sink.
    pub(super) written: usize,
    /// How far an open decision may hold a ring's `tail` back; [`HELD_WORDS_MAX`] but in tests.
    pub(super) held_words_max: u64,
}

/// One ring and how far it has been read. The cursor is stored for every record, so no worker may
/// have anything beside it.
#[repr(align(128))]
pub(super) struct Lane {
    file: Arc<RingFile>,
    /// At or above the ring's `tail`; `tail` follows when everything below is kept elsewhere.
    cursor: u64,
    /// What lies below was written by a process that died. Its open decisions are still open.
    told: u64,
    /// Decisions that only the ring keeps, and where, in its order. Some may have ended by now.
    loose: VecDeque<(u64, Key)>,
    record: Vec<u8>,
}

/// What a turn left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Everything that was there is written.
    Idle,
    /// The batch was full; there is more.
    More,
}

impl Lane {
    pub(super) fn new(file: Arc<RingFile>) -> Self {
        let (cursor, told) = (file.tail(), file.written());
        Self { file, cursor, told, loose: VecDeque::new(), record: Vec::new() }
    }

    /// Everything below `cursor` is written, and what is open below the first loose decision is in
    /// a slot.
    pub(super) fn give_back(&self) {
        let floor = self.loose.front().map_or(self.cursor, |(at, _)| *at);
        // A ring that this turn did not come to stands below what was told of it before: that note
        // must not be lowered, or a second failure would tell it twice.
        let written = self.cursor.max(self.told);
        if written != self.file.written() || floor != self.file.tail() {
            self.file.set_written(written);
            self.file.set_tail(floor);
        }
    }
}

impl Drain {
    /// Without lanes.
    pub(super) const fn new(joiner: Joiner, sink: Sink) -> Self {
        let held_words_max = HELD_WORDS_MAX;
        Self { lanes: Vec::new(), joiner, sink, fsync: false, written: 0, held_words_max }
    }

    /// Moves one batch from the rings to the sink. Answers how many lines it wrote. After an error
    /// the records are where they were, and the next call goes on.
    pub(super) fn turn(&mut self, now: Now) -> io::Result<(Turn, u64)> {
        if self.joiner.lines.is_empty() {
            self.collect(now);
            self.joiner.tell_long_open(now);
        }
        self.park()?;
        self.sink.append(&self.joiner.lines, &mut self.written)?;
        if self.fsync && !self.joiner.lines.is_empty() {
            self.sink.sync()?;
        }
        self.lanes.iter().for_each(Lane::give_back);
        let lines = self.joiner.count;
        let full = self.joiner.lines.len() >= BATCH_BYTES;
        self.written = 0;
        if self.joiner.lines_written() > 0 {
            tracing::warn!("slots of open audit records cannot be freed");
        }
        Ok((if full { Turn::More } else { Turn::Idle }, lines))
    }

    /// Most requests end before the ring comes around, so their decisions stay where they are; a
    /// slot, which is two system calls, is for those that would hold too much of the ring. After an
    /// error, call again.
    fn park(&mut self) -> io::Result<()> {
        for lane in &mut self.lanes {
            while let Some((at, key)) = lane.loose.front() {
                if self.joiner.is_loose(key) {
                    if lane.cursor - at <= self.held_words_max {
                        break;
                    }
                    self.joiner.park(key)?;
                }
                lane.loose.pop_front();
            }
        }
        Ok(())
    }

    /// Nobody will complete what is open, and nobody will tell of drops: the writer does.
    pub(super) fn end_records(&mut self, now: Now) {
        for lane in &self.lanes {
            let (untold, seq) = lane.file.untold();
            if untold > 0 {
                let (instance, core) = (lane.file.instance, lane.file.core);
                let key = Key { instance, core, seq: seq + 1 };
                self.joiner.gap(key, now.wall.0, untold);
            }
        }
        self.joiner.end_all(now);
    }

    /// The lines of [`Drain::end_records`] are in the sink: the next process finds nothing to do.
    fn settled(&mut self) {
        for lane in &self.lanes {
            lane.file.told();
        }
        if let Err(error) = self.joiner.start_clean() {
            tracing::warn!(%error, "the slots of open audit records cannot be cleared");
        }
    }

    /// True when the sink ends with a whole line, so that another may take over.
    fn at_line_end(&self) -> bool {
        let done = self.joiner.lines.get(..self.written).unwrap_or_default();
        done.last().is_none_or(|byte| *byte == b'\n')
    }

    fn collect(&mut self, now: Now) {
        for lane in &mut self.lanes {
            let head = lane.file.head();
            while lane.cursor < head && self.joiner.lines.len() < BATCH_BYTES {
                match lane.file.take(lane.cursor, head, &mut lane.record) {
                    Some((next, taken)) => {
                        let (instance, core) = (lane.file.instance, lane.file.core);
                        let key = Key { instance, core, seq: taken.seq };
                        let told = lane.cursor < lane.told;
                        if self.joiner.take(key, &taken, told, now) {
                            lane.loose.push_back((lane.cursor, key));
                        }
                        lane.cursor = next;
                    }
                    None => {
                        self.joiner.torn(lane.file.instance, lane.file.core, now);
                        lane.cursor = head;
                    }
                }
            }
        }
    }
}

fn random_instance() -> Result<u64, String> {
    let random: Result<ring::rand::Random<[u8; 8]>, _> =
        ring::rand::generate(&ring::rand::SystemRandom::new());
    let bytes = random.map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(u64::from_le_bytes(bytes.expose()))
}

/// Bytes of lines after which a batch is written.
pub(super) const BATCH_BYTES: usize = 256 * 1024;
/// An open decision holds a quarter of its ring at most: three quarters are for what comes.
const HELD_WORDS_MAX: u64 = (AUDIT_RING_BYTES / size_of::<u64>() / 4) as u64;
