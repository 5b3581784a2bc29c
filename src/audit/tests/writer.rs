use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::directory::RingDirectory;
use super::super::recovery::recover;
use super::super::ring::{AuditRing, RingFile};
use super::super::sink::Sink;
use super::super::writer::{Drain, Health, Lane, Started, Turn, Writer};
use super::{Room, assert_gap_free, deny, done, lines, permit, until};
use crate::clock::{Clock, Monotonic, Now, UnixMicros};
use crate::config::{AuditMode, AuditSink};
use crate::limits::AUDIT_RING_BYTES;
use crate::reject::Reject;

const LONG: Duration = Duration::from_secs(30);

fn start(room: &Room, mode: AuditMode, cores: &[u32], clock: Clock) -> Started {
    Writer::start(&room.config(mode), cores, clock).unwrap()
}

/// The writer without its thread: every turn is the test's.
fn by_hand(room: &Room, clock: Clock) -> (RingDirectory, Drain, Arc<RingFile>, AuditRing) {
    let config = room.config(AuditMode::Strict);
    let directory = RingDirectory::lock(&config.ring_directory).unwrap();
    let sink = Sink::open(&config.sink).unwrap();
    let (mut drain, _) = recover(&directory, sink, clock).unwrap();
    let file = Arc::new(directory.create(0, 0xfeed).unwrap());
    drain.lanes.push(Lane::new(Arc::clone(&file)));
    let ring = AuditRing::new(Arc::clone(&file), Arc::new(Health::default()), AuditMode::Strict);
    (directory, drain, file, ring)
}

fn at(seconds: u64) -> Now {
    Now { wall: UnixMicros(seconds * 1_000_000), mono: Monotonic(seconds * 1_000_000) }
}

#[test]
fn records_are_readable_within_a_second_and_all_before_the_exit() {
    let room = Room::new();
    let clock = Clock::start();
    let Started { writer, rings, notes } = start(&room, AuditMode::Strict, &[0, 2], clock);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(rings.iter().map(AuditRing::core).collect::<Vec<_>>(), [0, 2]);
    let ticket = rings[0].decide(&permit(1)).unwrap();
    rings[0].complete(ticket, &done());
    let committed = clock.monotonic();
    until(clock, "the line", || lines(&room.log()).len() == 1);
    assert!(clock.monotonic().micros_since(committed) < 1_000_000);
    for time in 0..10_000 {
        rings[1].refuse(&deny(time), &done());
    }
    let open = rings[0].decide(&permit(2)).unwrap();
    assert!(writer.healthy());
    assert!(writer.shutdown(LONG));
    // Nobody writes any more, so strict mode does nothing more.
    assert_eq!(rings[0].decide(&permit(3)).err(), Some(Reject::AuditUnavailable));
    drop((open, rings));
    let lines = lines(&room.log());
    assert_eq!(assert_gap_free(lines.iter().filter(|line| line["core"] == 0)), 2);
    assert_eq!(assert_gap_free(lines.iter().filter(|line| line["core"] == 2)), 10_000);
    let unknown: Vec<_> = lines.iter().filter(|line| line["outcome"] == "unknown").collect();
    assert_eq!(unknown.len(), 1, "the open one was ended");
    assert_eq!(unknown[0]["status"], serde_json::Value::Null);
    // And a next start has nothing to add.
    let Started { writer, notes, .. } = start(&room, AuditMode::Strict, &[0], clock);
    assert!(writer.shutdown(LONG) && notes.is_empty(), "{notes:?}");
    assert_eq!(super::lines(&room.log()).len(), 10_002);
}

#[test]
fn a_request_open_for_a_minute_is_written_early_and_again_at_its_end() {
    let room = Room::new();
    let (_directory, mut drain, _, ring) = by_hand(&room, Clock::start());
    let ticket = ring.decide(&permit(1)).unwrap();
    for seconds in [0, 30, 60] {
        assert_eq!(drain.turn(at(seconds)).unwrap(), (Turn::Idle, 0));
    }
    assert_eq!(drain.turn(at(61)).unwrap(), (Turn::Idle, 1));
    assert_eq!(drain.turn(at(200)).unwrap(), (Turn::Idle, 0), "once is enough");
    ring.complete(ticket, &done());
    assert_eq!(drain.turn(at(201)).unwrap(), (Turn::Idle, 1));
    let lines = lines(&room.log());
    assert_eq!((&lines[0]["outcome"], &lines[1]["outcome"]), (&"opened".into(), &"done".into()));
    assert_eq!((&lines[0]["seq"], &lines[1]["seq"]), (&1.into(), &1.into()));
}

#[test]
fn a_long_request_does_not_hold_the_ring() {
    let room = Room::new();
    let (_directory, mut drain, file, ring) = by_hand(&room, Clock::start());
    let long = ring.decide(&permit(1)).unwrap();
    for time in 0..100_000 {
        let ticket = ring.decide(&permit(time)).expect("the ring has room");
        ring.complete(ticket, &done());
        if time % 5_000 == 0 {
            while drain.turn(at(1)).unwrap().0 == Turn::More {}
            assert!(file.head() - file.tail() <= AUDIT_RING_BYTES as u64 / 8 / 4);
        }
    }
    while drain.turn(at(1)).unwrap().0 == Turn::More {}
    assert_eq!(file.head(), file.tail(), "it has found a place elsewhere");
    ring.complete(long, &done());
    while drain.turn(at(1)).unwrap().0 == Turn::More {}
    assert_eq!(assert_gap_free(lines(&room.log()).iter()), 100_001);
}

/// R09, without chance: every state a death within a turn can leave, made by taking the ring, the
/// slots and the file from before or after the step.
#[test]
fn r09_dying_between_any_two_steps_of_a_turn_neither_loses_nor_doubles() {
    dying_between_any_two_steps_of_a_turn(0);
}

/// The same when open decisions stay in the ring and hold `tail` back.
#[test]
fn r09_dying_while_open_decisions_hold_the_ring_neither_loses_nor_doubles() {
    dying_between_any_two_steps_of_a_turn(u64::MAX);
}

fn dying_between_any_two_steps_of_a_turn(held_words_max: u64) {
    for (step, new_ring, new_slots, new_log) in [
        ("before parking", false, Slots::Before, false),
        ("parked", false, Slots::Parked, false),
        ("lines written", false, Slots::Parked, true),
        ("space given back", true, Slots::Parked, true),
        ("slots freed", true, Slots::Freed, true),
    ] {
        let room = Room::new();
        let (directory, mut drain, _, ring) = by_hand(&room, Clock::start());
        drain.held_words_max = held_words_max;
        // Parked by the first turn, completed in the second; one more stays open over both.
        let first = ring.decide(&permit(1)).unwrap();
        let forever = ring.decide(&permit(2)).unwrap();
        drain.turn(at(1)).unwrap();
        ring.complete(first, &done());
        let second = ring.decide(&permit(3)).unwrap();
        ring.complete(second, &done());
        ring.refuse(&deny(4), &done());
        let third = ring.decide(&permit(5)).unwrap();
        let rings = room.config(AuditMode::Strict).ring_directory;
        let paths = [rings.join("core-0.ring"), rings.join("open-requests.slots"), room.log()];
        let before = paths.clone().map(|path| fs::read(path).unwrap());
        drain.turn(at(2)).unwrap();
        let mut after = paths.clone().map(|path| fs::read(path).unwrap());
        drop((directory, drain, ring, forever, third));
        match new_slots {
            Slots::Before => after[1].clone_from(&before[1]),
            // The new slot is there; the one that will be freed is as it was.
            Slots::Parked => after[1][..before[1].len()].copy_from_slice(&before[1]),
            Slots::Freed => {}
        }
        fs::write(&paths[0], if new_ring { &after[0] } else { &before[0] }).unwrap();
        fs::write(&paths[1], &after[1]).unwrap();
        fs::write(&paths[2], if new_log { &after[2] } else { &before[2] }).unwrap();
        let Started { writer, .. } = start(&room, AuditMode::Strict, &[0], Clock::start());
        assert!(writer.shutdown(LONG));
        let lines = lines(&room.log());
        let of = |seq: u64| lines.iter().filter(move |line| line["seq"] == seq);
        let outcomes: Vec<_> =
            (1..=5).flat_map(of).map(|line| line["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["done", "unknown", "done", "done", "unknown"], "{step}");
    }
}

enum Slots {
    Before,
    Parked,
    Freed,
}

/// After a rotation, or behind a pipe, there are no last lines to recognise.
#[test]
fn r09_a_held_ring_knows_what_was_written_without_the_file() {
    // What the note says is believed where it can be true; elsewhere the file is asked.
    for (note, with_log) in [(None, false), (None, true), (Some(0), true), (Some(u64::MAX), true)] {
        let room = Room::new();
        let (directory, mut drain, file, ring) = by_hand(&room, Clock::start());
        let open = ring.decide(&permit(1)).unwrap();
        for time in 0..100 {
            let ticket = ring.decide(&permit(time)).unwrap();
            ring.complete(ticket, &done());
            ring.refuse(&deny(time), &done());
            assert_eq!(drain.turn(at(1)).unwrap(), (Turn::Idle, 2));
        }
        assert_eq!((file.tail(), file.written()), (0, file.head()), "the open one holds all");
        // Not even begun to be written.
        ring.refuse(&deny(5), &done());
        if let Some(note) = note {
            file.set_written(note);
        }
        drop((directory, drain, file, ring, open));
        if !with_log {
            fs::remove_file(room.log()).unwrap();
        }
        let Started { writer, notes, .. } = start(&room, AuditMode::Strict, &[0], Clock::start());
        assert!(writer.shutdown(LONG));
        assert_eq!(notes, ["2 audit records of the last run were recovered"]);
        let lines = lines(&room.log());
        assert_eq!(lines.len(), if with_log { 202 } else { 2 });
        let new: Vec<_> =
            lines[lines.len() - 2..].iter().map(|line| (&line["seq"], &line["outcome"])).collect();
        assert_eq!(new, [(&202.into(), &"done".into()), (&1.into(), &"unknown".into())]);
    }
}

/// When other rings fill the first batches of a recovery, this one is not come to for a while.
#[test]
fn r09_a_ring_that_waits_for_its_turn_keeps_its_note() {
    let room = Room::new();
    let (_directory, mut drain, file, ring) = by_hand(&room, Clock::start());
    let _open = ring.decide(&permit(1)).unwrap();
    let done_already = ring.decide(&permit(2)).unwrap();
    ring.complete(done_already, &done());
    drain.turn(at(1)).unwrap();
    let (tail, written) = (file.tail(), file.written());
    assert!(tail < written, "the open one holds the ring");
    Lane::new(Arc::clone(&file)).give_back();
    assert_eq!((file.tail(), file.written()), (tail, written));
}

#[test]
fn r09_a_half_written_last_line_is_removed_and_written_again() {
    let room = Room::new();
    let (directory, mut drain, _, ring) = by_hand(&room, Clock::start());
    ring.refuse(&deny(1), &done());
    drain.turn(at(1)).unwrap();
    ring.refuse(&deny(2), &done());
    let ring_path = room.config(AuditMode::Strict).ring_directory.join("core-0.ring");
    let before = fs::read(&ring_path).unwrap();
    drain.turn(at(2)).unwrap();
    drop((directory, drain, ring));
    fs::write(&ring_path, before).unwrap();
    let log = File::options().write(true).open(room.log()).unwrap();
    log.set_len(log.metadata().unwrap().len() - 7).unwrap();
    let Started { writer, notes, .. } = start(&room, AuditMode::Strict, &[], Clock::start());
    assert!(writer.shutdown(LONG));
    assert_eq!(notes, ["1 audit records of the last run were recovered"]);
    assert_eq!(assert_gap_free(lines(&room.log()).iter()), 2);
    assert!(!ring_path.exists(), "a core that is no more leaves no ring");
}

#[test]
fn damaged_rings_are_told_and_the_start_goes_on() {
    let room = Room::new();
    let (directory, drain, file, ring) = by_hand(&room, Clock::start());
    ring.refuse(&deny(1), &done());
    let tail = usize::try_from(file.tail()).unwrap() * 8;
    let rings = room.config(AuditMode::Strict).ring_directory;
    let mut bytes = fs::read(rings.join("core-0.ring")).unwrap();
    drop((directory, drain, file, ring));
    bytes[4096 + tail + 40] ^= 1;
    fs::write(rings.join("core-0.ring"), bytes).unwrap();
    fs::write(rings.join("core-7.ring"), b"something else").unwrap();
    let Started { writer, notes, .. } = start(&room, AuditMode::Strict, &[0, 7], Clock::start());
    assert!(writer.shutdown(LONG));
    assert_eq!(fs::read(rings.join("core-7.ring.bad")).unwrap(), b"something else");
    assert!(notes.iter().any(|note| note.contains("core-7.ring.bad")), "{notes:?}");
    let lines = lines(&room.log());
    assert_eq!((&lines[0]["event"], &lines[0]["reason"]), (&"gap".into(), &"torn".into()));
}

#[test]
fn a_second_gateway_is_told_what_to_do() {
    let room = Room::new();
    let clock = Clock::start();
    let first = start(&room, AuditMode::Strict, &[0], clock);
    let mut config = room.config(AuditMode::Strict);
    let refusal = Writer::start(&config, &[0], clock).err().unwrap();
    assert!(refusal.contains("another gateway") && refusal.contains("ring_directory"), "{refusal}");
    // Its own rings, but the same audit file: they would cut each other's lines.
    config.ring_directory = room.path("other");
    let refusal = Writer::start(&config, &[0], clock).err().unwrap();
    assert!(refusal.contains("locked the audit file"), "{refusal}");
    assert!(first.writer.shutdown(LONG));
    config.sink = AuditSink::File(room.path("missing/audit.jsonl"));
    let refusal = Writer::start(&config, &[0], clock).err().unwrap();
    assert!(refusal.contains("[audit] path"), "{refusal}");
}

#[test]
fn reopen_follows_a_rotation_and_loses_nothing() {
    let room = Room::new();
    let clock = Clock::start();
    let Started { writer, rings, .. } = start(&room, AuditMode::Strict, &[0], clock);
    rings[0].refuse(&deny(1), &done());
    until(clock, "the first line", || lines(&room.log()).len() == 1);
    writer.reopen(); // the file is still in place: nothing to do
    let rotated = room.path("audit.jsonl.1");
    fs::rename(room.log(), &rotated).unwrap();
    writer.reopen();
    until(clock, "the new file", || room.log().exists());
    rings[0].refuse(&deny(2), &done());
    assert!(writer.shutdown(LONG));
    let (old, new) = (lines(&rotated), lines(&room.log()));
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_eq!(assert_gap_free(old.iter().chain(&new)), 2);
}

/// `/dev/full` fails every write with ENOSPC.
#[test]
fn f11_a_writer_in_error_refuses_permits_in_strict_mode_only() {
    let clock = Clock::start();
    for (mode, refused) in [(AuditMode::Strict, true), (AuditMode::Availability, false)] {
        let room = Room::new();
        let mut config = room.config(mode);
        config.sink = AuditSink::File(Path::new("/dev/full").to_owned());
        let Started { writer, rings, .. } = Writer::start(&config, &[0], clock).unwrap();
        rings[0].refuse(&deny(1), &done());
        until(clock, "the error", || !writer.healthy());
        match rings[0].decide(&permit(2)) {
            Err(reject) => assert!(refused && reject == Reject::AuditUnavailable),
            Ok(ticket) => {
                assert!(!refused);
                rings[0].complete(ticket, &done());
            }
        }
        let counts = writer.counts();
        assert!(counts.errors > 0 && counts.written == 0 && counts.dropped == 0, "{counts:?}");
        assert!(!writer.shutdown(Duration::ZERO), "not all was written");
        drop(rings);
        // The rings kept it all for the next process.
        config.sink = AuditSink::File(room.log());
        let Started { writer, .. } = Writer::start(&config, &[0], clock).unwrap();
        assert!(writer.shutdown(LONG));
        assert_eq!(assert_gap_free(lines(&room.log()).iter()), if refused { 1 } else { 2 });
    }
}

/// A reader that stands still (as under SIGSTOP) and then goes on.
#[test]
fn f12_a_stalled_reader_costs_records_in_availability_mode_but_no_time() {
    let room = Room::new();
    let clock = Clock::start();
    let fifo = room.path("fifo");
    let rights = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rights, 0).unwrap();
    let mut config = room.config(AuditMode::Availability);
    config.sink = AuditSink::File(fifo.clone());
    let Started { writer, rings, .. } = Writer::start(&config, &[0], clock).unwrap();
    let mut answered: u64 = 0;
    while writer.counts().dropped < 100 {
        rings[0].refuse(&deny(answered), &done());
        answered += 1;
        assert!(answered < 1_000_000, "the ring is bounded");
    }
    assert!(writer.healthy(), "slow is not broken");
    let dropped = writer.counts().dropped;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut fifo = File::open(fifo).unwrap();
        let mut piece = [0; 65_536];
        // Its end is near the end of what has been read.
        while !bytes[bytes.len().saturating_sub(1_000)..]
            .windows(12)
            .any(|at| at == b"\"user\":\"last")
        {
            let count = fifo.read(&mut piece).unwrap();
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes
    });
    until(clock, "room in the ring", || {
        let before = writer.counts().dropped;
        rings[0].refuse(&super::Entry { user: Some("more"), ..deny(0) }, &done());
        writer.counts().dropped == before
    });
    let dropped = writer.counts().dropped.max(dropped);
    rings[0].refuse(&super::Entry { user: Some("last"), ..deny(0) }, &done());
    let bytes = reader.join().unwrap();
    assert!(writer.shutdown(LONG));
    let text = bytes.split(|byte| *byte == b'\n');
    let lines: Vec<serde_json::Value> =
        text.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let gap = lines.iter().find(|line| line["event"] == "gap").expect("the gap is told");
    assert_eq!(gap["dropped"], dropped);
    assert_gap_free(lines.iter());
}
