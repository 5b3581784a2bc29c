use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::codec::{Kind, Reader};
use super::super::ring::{RingFile, Ticket};
use super::{Random, Room, deny, done, permit, small_ring};
use crate::clock::Clock;
use crate::config::AuditMode;
use crate::limits::AUDIT_RECORD_BYTES_MAX;
use crate::reject::Reject;

/// Takes everything between tail and head; kinds and sequence numbers in order.
fn drain(file: &RingFile) -> Vec<(Kind, u64)> {
    let mut record = Vec::with_capacity(AUDIT_RECORD_BYTES_MAX);
    let (mut cursor, head) = (file.tail(), file.head());
    let mut taken = Vec::new();
    while cursor < head {
        let (next, one) = file.take(cursor, head, &mut record).expect("a whole record");
        taken.push((one.kind, one.seq));
        cursor = next;
    }
    file.set_tail(cursor);
    taken
}

#[test]
fn a_ring_moves_between_threads_but_belongs_to_one() {
    fn moves<T: Send>(_: &T) {}
    let room = Room::new();
    moves(&small_ring(&room, 1024, AuditMode::Strict).1);
}

#[test]
fn records_wrap_around_the_end() {
    let room = Room::new();
    let (file, ring) = small_ring(&room, 256, AuditMode::Strict);
    for seq in 1..5_000 {
        let ticket = ring.decide(&permit(seq)).unwrap();
        ring.complete(ticket, &done());
        assert_eq!(drain(&file), [(Kind::Decision, seq), (Kind::Outcome, seq)]);
    }
    assert!(file.head() > 100 * 256, "it went around many times");
}

#[test]
fn f11_strict_refuses_when_full_and_never_loses_an_outcome() {
    let room = Room::new();
    let (file, ring) = small_ring(&room, 2048, AuditMode::Strict);
    for _ in 0..3 {
        let mut tickets: VecDeque<Ticket> = VecDeque::new();
        let refusal = loop {
            match ring.decide(&permit(1)) {
                Ok(ticket) => tickets.push_back(ticket),
                Err(reject) => break reject,
            }
        };
        assert_eq!(refusal, Reject::AuditUnavailable);
        assert!(tickets.len() > 10);
        // Refusals may take what is left, but not what is reserved.
        for _ in 0..100 {
            ring.refuse(&deny(2), &done());
        }
        let committed = tickets.len();
        // Largest outcomes, nothing drained in between: the reserved room must do.
        let outcome = super::Outcome {
            reason: Some(Reject::CredentialUnavailable),
            overhead_us: Some(u64::MAX),
            ..done()
        };
        tickets.drain(..).for_each(|ticket| ring.complete(ticket, &outcome));
        let taken = drain(&file);
        let of = |kind| taken.iter().filter(|(is, _)| *is == kind).count();
        assert_eq!((of(Kind::Decision), of(Kind::Outcome)), (committed, committed));
    }
}

#[test]
fn f11_what_could_not_be_kept_is_told_by_number() {
    let room = Room::new();
    for mode in [AuditMode::Strict, AuditMode::Availability] {
        let (file, ring) = small_ring(&room, 1024, mode);
        let mut lost = 0;
        for _ in 0..1_000 {
            let before = file.head();
            ring.refuse(&deny(1), &done());
            lost += u64::from(file.head() == before);
        }
        assert!(lost > 0);
        let kept = drain(&file);
        assert_eq!(file.untold(), (lost, kept.len() as u64), "a crash now could not hide it");
        let next = kept.len() as u64 + 1;
        ring.refuse(&deny(2), &done());
        let mut record = Vec::new();
        let (_, gap) = file.take(file.tail(), file.head(), &mut record).unwrap();
        assert_eq!((gap.kind, gap.seq), (Kind::Gap, next));
        assert_eq!(Reader(gap.payload).gap(), Some((2, lost)));
        assert_eq!(drain(&file), [(Kind::Gap, next), (Kind::Whole, next + 1)]);
        assert_eq!(file.untold().0, 0);
    }
}

#[test]
fn f12_availability_lets_the_request_pass_when_full() {
    let room = Room::new();
    let (file, ring) = small_ring(&room, 1024, AuditMode::Availability);
    for _ in 0..1_000 {
        let ticket = ring.decide(&permit(1)).unwrap();
        ring.complete(ticket, &done());
    }
    let kept = drain(&file).len() as u64 / 2;
    assert_eq!(file.untold(), (1_000 - kept, kept));
}

#[test]
fn a_torn_or_stale_record_is_not_a_record() {
    let room = Room::new();
    let (file, ring) = small_ring(&room, 1024, AuditMode::Strict);
    ring.refuse(&permit_as_deny(), &done());
    let mut record = Vec::new();
    let (next, _) = file.take(0, file.head(), &mut record).unwrap();
    assert_eq!(file.take(0, next - 1, &mut record), None, "beyond the head");
    let path = room.path("small.ring");
    let (offset, length) = (512 * 8, next * 8);
    let pristine = std::fs::read(&path).unwrap();
    for at in offset..offset + length as usize {
        for bit in [0, 3, 7] {
            let mut bytes = pristine.clone();
            bytes[at] ^= 1 << bit;
            // Written in place: the mapping sees it.
            write_at(&path, &bytes[at..=at], at);
            assert_eq!(file.take(0, next, &mut record), None, "byte {at} bit {bit}");
            write_at(&path, &pristine[at..=at], at);
        }
    }
    assert!(file.take(0, next, &mut record).is_some());
    // The same bytes one lap later are the previous lap's.
    assert_eq!(file.take(1024, 1024 + next, &mut record), None);
}

fn permit_as_deny() -> super::Entry<'static> {
    super::Entry { decision: super::Decision::Deny, ..permit(1) }
}

fn write_at(path: &std::path::Path, bytes: &[u8], at: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

#[test]
fn a_million_records_cross_from_thread_to_thread() {
    let room = Room::new();
    let (file, ring) = small_ring(&room, 16 * 1024, AuditMode::Strict);
    let finished = AtomicBool::new(false);
    let records = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen: u64 = 0;
            let mut outcomes: u64 = 0;
            loop {
                let last = finished.load(Ordering::Acquire);
                for (kind, seq) in drain(&file) {
                    match kind {
                        Kind::Outcome => outcomes += 1,
                        Kind::Decision | Kind::Whole => {
                            seen += 1;
                            assert_eq!(seq, seen, "in order, none lost");
                        }
                        Kind::Gap => panic!("nothing was dropped"),
                    }
                }
                if last {
                    return seen + outcomes;
                }
            }
        });
        produce(ring, 0x5eed_0003);
        finished.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    assert!(records >= 1_000_000, "{records}");
}

/// Half a million decisions with their outcomes in random order.
fn produce(ring: super::AuditRing, seed: u64) {
    let mut random = Random(seed);
    let mut open = VecDeque::new();
    for time in 0..500_000 {
        let ticket = loop {
            match ring.decide(&permit(time)) {
                Ok(ticket) => break ticket,
                Err(_) => std::thread::yield_now(),
            }
        };
        open.push_back(ticket);
        if open.len() > random.below(64) as usize {
            let at = random.below(open.len() as u64) as usize;
            let ticket = open.remove(at).unwrap();
            ring.complete(ticket, &done());
        }
    }
    open.drain(..).for_each(|ticket| ring.complete(ticket, &done()));
}

/// Prints what a request pays; run with `--release --nocapture` for a number that means something.
#[test]
fn the_cost_of_a_commit_is_told() {
    let room = Room::new();
    let (file, ring) = small_ring(&room, 128 * 1024, AuditMode::Strict);
    let clock = Clock::start();
    let (mut spent, mut pairs) = (0, 0);
    for _ in 0..50 {
        let before = clock.monotonic();
        for _ in 0..1_000 {
            let ticket = ring.decide(&permit(1)).unwrap();
            ring.complete(ticket, &done());
            pairs += 1;
        }
        spent += clock.monotonic().micros_since(before);
        assert_eq!(drain(&file).len(), 2_000);
    }
    println!("decide + complete: {} ns", spent * 1_000 / pairs);
}
