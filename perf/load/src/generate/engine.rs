//! The loop that keeps connections busy: closed (an answer brings the next request) or open (the
//! schedule does).

mod rest;

use std::collections::VecDeque;

use crate::answer::Wanted;
use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::fault::Fault;
use crate::generate::Plan;
use crate::generate::slot::{Flight, Slot};
use crate::link::{Buffers, Link};
use crate::poll::{Poll, Ready};
use crate::request::{ID_FIRST, ID_LAST, Tokens};
use crate::schedule::Schedule;
use crate::tally::Tally;

/// Generator of one run.
pub(crate) struct Engine {
    plan: Plan,
    poll: Poll,
    buffers: Buffers,
    slots: Vec<Slot>,
    /// Connections without a request, the one free for longest first, so that all of them take
    /// part.
    free: VecDeque<usize>,
    /// Connections that failed and when they are tried again; in the order of time.
    retries: VecDeque<(Nanos, usize)>,
    schedule: Option<Schedule>,
    phase: Phase,
    established: usize,
    under_way: usize,
    next_id: u64,
    requests: u64,
    failures_in_a_row: u32,
    last_failure: String,
    pub(crate) tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Connections are opened, nothing is sent.
    Opening,
    Running,
    /// What is under way is answered, nothing new becomes due.
    Draining,
}

impl Engine {
    pub(crate) fn new(plan: Plan) -> Result<Self, Fault> {
        let slots = (0..plan.connections).map(|_| Slot::new()).collect();
        Ok(Self {
            plan,
            poll: Poll::new()?,
            buffers: Buffers::new(),
            slots,
            free: VecDeque::new(),
            retries: VecDeque::new(),
            schedule: None,
            phase: Phase::Opening,
            established: 0,
            under_way: 0,
            next_id: ID_FIRST,
            requests: 0,
            failures_in_a_row: 0,
            last_failure: String::new(),
            tally: Tally::new()?,
        })
    }

    /// Opens every connection before anything is measured; with new connections per request there
    /// is nothing to do.
    pub(crate) fn open_all(&mut self) -> Result<(), Fault> {
        if self.plan.new_connections {
            self.free.extend(0..self.slots.len());
            return Ok(());
        }
        let limit = clock::now() + OPEN_SECONDS_MAX * SECOND;
        let (mut opened, all) = (0, self.slots.len());
        let mut ready = Vec::new();
        while self.established < all {
            let now = clock::now();
            if now > limit {
                return Err(Fault::new(format!(
                    "{} of {all} connections to {} opened in {OPEN_SECONDS_MAX} s; \
                     last failure: {}",
                    self.established,
                    self.plan.target,
                    if self.last_failure.is_empty() {
                        "none, it is slow"
                    } else {
                        &self.last_failure
                    },
                )));
            }
            while opened < all && opened < self.established + OPENING_MAX {
                self.open(opened, now);
                opened += 1;
            }
            self.turn(now, now + 50 * MILLISECOND, &mut ready)?;
        }
        Ok(())
    }

    /// Begins to send: without a schedule in a closed loop.
    pub(crate) fn start(&mut self, now: Nanos, schedule: Option<Schedule>) -> Result<(), Fault> {
        self.phase = Phase::Running;
        self.schedule = schedule;
        if self.schedule.is_none() {
            for index in 0..self.slots.len() {
                self.take_free(index);
                self.begin(index, now);
            }
            self.free.clear();
        }
        Ok(())
    }

    /// Runs until then.
    pub(crate) fn drive(&mut self, until: Nanos) -> Result<(), Fault> {
        let mut ready = Vec::with_capacity(self.slots.len().min(512));
        loop {
            let now = clock::now();
            if now >= until {
                return Ok(());
            }
            self.turn(now, until, &mut ready)?;
        }
    }

    /// Nothing becomes due from `end` on.
    pub(crate) fn stop(&mut self, end: Nanos) {
        self.phase = Phase::Draining;
        if let Some(schedule) = self.schedule.as_mut() {
            schedule.stop(end);
        }
    }

    /// Waits for what is under way, and counts what was not answered in the end with the wait it
    /// had.
    pub(crate) fn drain(&mut self, end: Nanos) -> Result<(), Fault> {
        let limit = end + DRAIN_SECONDS * SECOND;
        let mut ready = Vec::new();
        loop {
            let now = clock::now();
            let due = self.schedule.as_ref().and_then(Schedule::next).is_some();
            if now >= limit || (self.under_way == 0 && !due) {
                break;
            }
            self.turn(now, limit, &mut ready)?;
        }
        let now = clock::now();
        for flight in self.slots.iter().filter_map(|slot| slot.flight) {
            self.tally.unanswered(flight.since, now, flight.variant > 0, "unanswered");
        }
        while let Some(since) = self.schedule.as_mut().and_then(|due| due.take_due(Nanos::MAX)) {
            self.tally.unanswered(since, now, false, "unsent");
        }
        Ok(())
    }

    /// The tokens of the run, and how far they are.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.plan.tokens
    }

    /// Requests begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.requests
    }

    /// What went wrong last, in words.
    pub(crate) fn last_failure(&self) -> &str {
        &self.last_failure
    }

    /// One wait and everything it brings.
    fn turn(&mut self, now: Nanos, until: Nanos, ready: &mut Vec<Ready>) -> Result<(), Fault> {
        self.retry(now);
        self.dispatch(now);
        if self.failures_in_a_row > FAILURES_MAX {
            return Err(Fault::new(format!(
                "{FAILURES_MAX} connections to {} failed in a row, the last one: {}",
                self.plan.target, self.last_failure
            )));
        }
        let due = match &self.schedule {
            Some(schedule) if !self.free.is_empty() => schedule.next(),
            _ => None,
        };
        let retry = self.retries.front().map(|(at, _)| *at);
        let deadline = [due, retry].into_iter().flatten().fold(until, Nanos::min);
        let busy = self.plan.busy && self.phase != Phase::Opening;
        self.poll.wait(Some(if busy { now } else { deadline }), ready)?;
        if busy && ready.is_empty() {
            // The upstream may want this CPU; a generator that slept would get it back late.
            std::thread::yield_now();
        }
        for event in ready.iter() {
            self.on_event(*event);
            // What became due while answers were read goes out between them, not after them.
            if self.schedule.is_some() {
                self.dispatch(clock::now());
            }
        }
        Ok(())
    }

    /// Sends what the schedule says is due, as far as connections are free.
    fn dispatch(&mut self, now: Nanos) {
        while let Some(schedule) = self.schedule.as_mut() {
            if schedule.next().is_none_or(|at| at > now) {
                return;
            }
            let Some(index) = self.pop_free() else { return };
            let Some(since) = self.schedule.as_mut().and_then(|due| due.take_due(now)) else {
                return;
            };
            let at = clock::now();
            self.tally.lagged(since, at);
            self.begin(index, since);
        }
    }

    fn pop_free(&mut self) -> Option<usize> {
        while let Some(index) = self.free.pop_front() {
            let usable = self.plan.new_connections
                || self.slots.get(index).is_some_and(|slot| slot.established);
            self.take_free(index);
            if usable {
                return Some(index);
            }
        }
        None
    }

    fn take_free(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.queued = false;
        }
    }

    fn retry(&mut self, now: Nanos) {
        while self.retries.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, index)) = self.retries.pop_front() else { return };
            if self.plan.new_connections {
                self.release(index, now);
            } else {
                self.open(index, now);
            }
        }
    }

    /// Opens the connection anew.
    fn open(&mut self, index: usize, now: Nanos) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.reset();
        let session = match &self.plan.tls {
            Some(tls) => tls.open().map(Some).map_err(std::io::Error::other),
            None => Ok(None),
        };
        let linked = session.and_then(|session| Link::connect(self.plan.target, session));
        let watched = linked.and_then(|link| {
            self.poll.watch(link.socket(), slot.key(index))?;
            Ok(link)
        });
        match watched {
            Ok(link) => slot.link = Some(link),
            Err(error) => self.fail(index, now, "connect", &error.to_string()),
        }
    }

    /// A request that was due at `since` gets this connection.
    fn begin(&mut self, index: usize, since: Nanos) {
        let variant = self.choose();
        let flight = Flight { since, id: self.next_id, variant, held: true, event: 0 };
        self.next_id = if self.next_id == ID_LAST { ID_FIRST } else { self.next_id + 1 };
        self.under_way += 1;
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.flight = Some(flight);
        if slot.established {
            self.send(index);
        } else if slot.link.is_none() {
            self.open(index, since);
        }
    }

    /// Which kind of request is next: the slow ones are spread evenly.
    fn choose(&mut self) -> usize {
        let share = u64::from(self.plan.slow_percent);
        let turn = self.requests % 100;
        self.requests += 1;
        usize::from((turn + 1) * share / 100 > turn * share / 100)
    }

    fn send(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let (Some(link), Some(flight)) = (slot.link.as_mut(), slot.flight.as_mut()) else { return };
        let Some(variant) = self.plan.variants.get_mut(flight.variant) else { return };
        flight.held = false;
        slot.answer.clear();
        let bytes = variant.request.with(self.plan.tokens.next(), flight.id);
        match link.send(bytes) {
            Ok(count) => slot.unsent.extend_from_slice(bytes.get(count..).unwrap_or_default()),
            Err(error) => self.fail(index, clock::now(), "write", &error.to_string()),
        }
    }

    fn on_event(&mut self, event: Ready) {
        let (index, generation) = (event.key as u32 as usize, (event.key >> 32) as u32);
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.generation != generation {
            return;
        }
        let Some(link) = slot.link.as_mut() else { return };
        if !slot.connected {
            if let Err(error) = link.connect_error() {
                self.fail(index, clock::now(), "connect", &error.to_string());
                return;
            }
            slot.connected = true;
        }
        if let Err(error) = slot.flush() {
            self.fail(index, clock::now(), "write", &error.to_string());
            return;
        }
        self.receive(index, generation, event.ending);
        self.check_established(index, generation);
    }

    /// The connection may have become usable.
    fn check_established(&mut self, index: usize, generation: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.generation != generation || slot.established {
            return;
        }
        let Some(link) = slot.link.as_ref().filter(|link| link.is_established()) else { return };
        let now = clock::now();
        if self.plan.full_handshakes && !link.is_full_tls13() {
            self.fail(index, now, "not_full_tls13", "another version, or a resumed session");
            return;
        }
        self.tally.agreed(link);
        slot.established = true;
        self.established += 1;
        self.failures_in_a_row = 0;
        if slot.flight.is_some() {
            self.send(index);
        } else {
            self.release(index, now);
        }
    }

    /// Reads until there is nothing more.
    fn receive(&mut self, index: usize, generation: u32, ending: bool) {
        // The buffers are lent out for the time of reading: what is read is handled with all of
        // `self`.
        let mut buffers = std::mem::replace(&mut self.buffers, Buffers::none());
        while let Some(slot) = self.slots.get_mut(index).filter(|s| s.generation == generation) {
            let Some(link) = slot.link.as_mut() else { break };
            match link.receive(&mut buffers) {
                Ok(None) => break,
                Ok(Some(received)) => {
                    let again = received.more || (ending && !received.closed);
                    self.take_in(index, received.bytes, received.closed);
                    if !again {
                        break;
                    }
                }
                Err(error) => {
                    let kind = if slot.established { "read" } else { "handshake" };
                    self.fail(index, clock::now(), kind, &error.to_string());
                    break;
                }
            }
        }
        self.buffers = buffers;
    }

    /// What one read brought.
    fn take_in(&mut self, index: usize, bytes: &[u8], closed: bool) {
        let now = clock::now();
        self.tally.read(now, bytes.len());
        let Some(slot) = self.slots.get_mut(index) else { return };
        let sent = slot.flight.as_mut().filter(|flight| !flight.held);
        let Some(flight) = sent else {
            // No request is out: bytes are a fault, an end is the server's right and a new
            // connection the cure.
            if !bytes.is_empty() {
                self.fail(index, now, "unasked_bytes", "bytes came that nobody asked for");
            } else if closed {
                self.reopen(index, now);
            }
            return;
        };
        let (tally, answer) = (&mut self.tally, &mut slot.answer);
        let used = match answer.feed(bytes, &mut |stamp| flight.note(stamp, now, tally)) {
            Err(_) => {
                self.fail(index, now, "malformed", "the answer is no HTTP/1.1");
                return;
            }
            Ok(None) if closed && answer.is_ended_by_close() => bytes.len(),
            Ok(None) if closed => {
                self.fail(index, now, "closed", "the connection closed before the answer ended");
                return;
            }
            Ok(None) => return,
            Ok(Some(used)) => used,
        };
        if used < bytes.len() {
            self.fail(index, now, "extra_bytes", "more bytes came than the answer has");
            return;
        }
        self.finish(index, now, closed);
    }

    /// A complete answer.
    fn finish(&mut self, index: usize, now: Nanos, closed: bool) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(flight) = slot.flight.take() else { return };
        self.under_way -= 1;
        self.failures_in_a_row = 0;
        let variant = self.plan.variants.get(flight.variant);
        let wanted = Wanted {
            id: flight.id,
            length: variant.and_then(|variant| variant.length),
            slack: self.plan.length_slack,
        };
        match slot.answer.verify(wanted) {
            Ok(()) => {
                self.tally.answered(flight.since, now, flight.variant > 0);
                let events = variant.map_or(0, |variant| variant.events);
                self.tally.lost(now, events.saturating_sub(flight.event));
            }
            Err(wrong) => {
                self.tally.wrong(now, wrong);
                self.last_failure = format!("{wrong:?}: {}", slot.answer.excerpt());
            }
        }
        if self.plan.new_connections {
            slot.reset();
            self.established -= 1;
            self.release(index, now);
        } else if closed || slot.answer.closes() {
            self.reopen(index, now);
        } else {
            self.release(index, now);
        }
    }

    /// A connection without a request: it gets the next one, or waits for it.
    fn release(&mut self, index: usize, now: Nanos) {
        let next = match (self.phase, self.schedule.as_mut()) {
            (Phase::Opening, _) | (Phase::Draining, None) => None,
            (Phase::Running, None) => Some(now),
            (Phase::Running | Phase::Draining, Some(schedule)) => schedule.take_due(now),
        };
        if let Some(since) = next {
            self.begin(index, since);
            return;
        }
        if let Some(slot) = self.slots.get_mut(index).filter(|slot| !slot.queued) {
            slot.queued = true;
            self.free.push_back(index);
        }
    }

    /// The server ended the connection between two requests.
    fn reopen(&mut self, index: usize, now: Nanos) {
        self.tally.reconnected(now);
        self.down(index);
        self.open(index, now);
    }

    /// The connection is of no more use; so is the request it carried.
    fn fail(&mut self, index: usize, now: Nanos, kind: &str, why: &str) {
        self.tally.error(now, kind);
        self.last_failure = format!("{kind}: {why}");
        self.failures_in_a_row += 1;
        self.down(index);
        let flight = self.slots.get_mut(index).and_then(|slot| slot.flight.take());
        self.under_way -= usize::from(flight.is_some());
        self.retries.push_back((now + RETRY_AFTER, index));
    }

    fn down(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.established {
            self.established -= 1;
        }
        slot.reset();
    }
}

const OPENING_MAX: usize = 256;
const OPEN_SECONDS_MAX: u64 = 60;
const DRAIN_SECONDS: u64 = 5;
const RETRY_AFTER: Nanos = 10 * MILLISECOND;
const FAILURES_MAX: u32 = 2000;
