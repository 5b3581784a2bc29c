//! A deadline that cuts a read must not cost a byte or a descriptor.
//!
//! On each driver 1,000 connections meet 1,000 deadlines each, while their peers write numbered
//! bytes at random moments around those deadlines. What is read is compared with what was written,
//! number by number, and afterwards the process has as many descriptors as before. A read that is
//! dropped instead of cancelled and awaited fails this within a second (reference: 17–32 % of the
//! bytes lost).

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use portcullis::clock::{Clock, Monotonic};
use portcullis::net::dial::dial;
use portcullis::net::listen::{Acceptor, bind};
use portcullis::net::runtime::{Ring, block_on, spawn};
use portcullis::net::{NetError, Stream, Timers};

const CONNECTIONS: u64 = 1000;
const DEADLINES: u64 = 1000;
/// Written by each peer, which takes about as long as the deadlines do.
const BYTES: u64 = 600;
/// A deadline lies this far ahead, at random.
const DEADLINE_MICROS: std::ops::Range<u64> = 1_000..21_000;
/// And so does the next byte.
const PAUSE_MICROS: std::ops::Range<u64> = 5_000..55_000;

#[test]
fn cooperative_io_uring_loses_nothing() {
    meet_deadlines(Ring::Coop);
}

#[test]
fn plain_io_uring_loses_nothing() {
    meet_deadlines(Ring::Plain);
}

#[test]
fn epoll_loses_nothing() {
    meet_deadlines(Ring::Epoll);
}

/// What all connections of a run did.
#[derive(Default)]
struct Totals {
    timeouts: Cell<u64>,
    received: Cell<u64>,
    sent: Cell<u64>,
    closed: Cell<u64>,
}

fn meet_deadlines(ring: Ring) {
    let _alone = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let clock = Clock::start();
    let totals = block_on(ring, async move {
        let timers = Timers::new(clock);
        spawn(timers.clone().run());
        monoio::spawn(run(timers)).await
    })
    .unwrap();
    let seconds = clock.monotonic().0 / 1_000_000;
    let (timeouts, received, sent) =
        (totals.timeouts.get(), totals.received.get(), totals.sent.get());
    println!("{ring}: {timeouts} deadlines met, {received} of {sent} bytes, {seconds} s");
    assert_eq!(received, sent);
    assert_eq!(timeouts, CONNECTIONS * DEADLINES);
    assert_eq!(sent, CONNECTIONS * BYTES);
    assert!(seconds < 60);
}

/// Descriptors are counted for the whole process, so one run at a time.
static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());

async fn run(timers: Timers) -> Rc<Totals> {
    let totals = Rc::new(Totals::default());
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let mut acceptor = Acceptor::new(listener, timers.clone()).unwrap();
    let before = descriptors();
    for number in 0..CONNECTIONS {
        let until = timers.exact().after(Duration::from_secs(20));
        let near = dial(&[address], None, &timers, until).await.unwrap();
        let far = acceptor.accept().await.unwrap();
        let mut random = Random(number * 2 + 1);
        random.next();
        let met = Rc::new(Cell::new(false));
        spawn(write(near, Rc::clone(&totals), Rc::clone(&met), Random(random.next())));
        spawn(read(far, Rc::clone(&totals), met, random));
    }
    let limit = timers.exact().after(Duration::from_secs(120));
    while totals.closed.get() < 2 * CONNECTIONS || descriptors() > before {
        assert!(timers.exact() < limit, "{} of {before} descriptors", descriptors());
        timers.sleep_until(timers.exact().after(Duration::from_millis(50))).await;
    }
    assert_eq!(descriptors(), before);
    totals
}

/// Lets [`DEADLINES`] deadlines pass, then reads to the end.
async fn read(mut stream: Stream, totals: Rc<Totals>, all_met: Rc<Cell<bool>>, mut random: Random) {
    let timers = stream.timers().clone();
    let mut buf = Vec::with_capacity(64);
    let mut expected = 0_u32;
    let mut met = 0;
    loop {
        let until = if met < DEADLINES {
            timers.exact().after(random.within(DEADLINE_MICROS))
        } else {
            Monotonic(u64::MAX)
        };
        all_met.set(met == DEADLINES);
        let (result, read) = stream.read(buf, until).await;
        buf = read;
        match result {
            Ok(0) => break,
            Ok(count) => add(&totals.received, count as u64),
            Err(NetError::Timeout) => met += 1,
            Err(error) => panic!("{error:?}"),
        }
        for number in buf.drain(..) {
            assert_eq!(number, expected as u8, "byte {expected} is missing or twice");
            expected += 1;
        }
    }
    add(&totals.timeouts, met);
    add(&totals.closed, 1);
}

/// Writes the next number at random moments; stays until the reader has met its deadlines.
async fn write(
    mut stream: Stream,
    totals: Rc<Totals>,
    all_met: Rc<Cell<bool>>,
    mut random: Random,
) {
    let timers = stream.timers().clone();
    let mut buf = Vec::with_capacity(1);
    for number in 0..BYTES {
        timers.sleep_until(timers.exact().after(random.within(PAUSE_MICROS))).await;
        buf.clear();
        buf.push(number as u8);
        let (result, written) = stream.write_all(buf, Monotonic(u64::MAX)).await;
        result.unwrap();
        buf = written;
        add(&totals.sent, 1);
    }
    while !all_met.get() {
        timers.sleep_until(timers.exact().after(random.within(PAUSE_MICROS))).await;
    }
    drop(stream);
    add(&totals.closed, 1);
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// xorshift64: the same run every time, as far as the machine allows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.max(1)
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(range.start + self.next() % (range.end - range.start))
    }
}
