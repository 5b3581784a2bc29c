//! Tests of the whole room; each file is one promise.

mod codec;
mod crash;
mod oracle;
mod ring;
mod share_nothing;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::entry::{Decision, Entry, List, Name, Outcome};
use super::ring::{AuditRing, HEADER_WORDS, RingFile};
use super::writer::Health;
use super::{CredentialCache, CredentialUse, TokenReference};
use crate::clock::{Clock, UnixMicros};
use crate::config::{Audit, AuditMode, AuditSink};
use crate::mapped::Mapped;
use crate::reject::Reject;

/// A directory that goes when the test ends.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-audit-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn log(&self) -> PathBuf {
        self.path("audit.jsonl")
    }

    fn config(&self, mode: AuditMode) -> Audit {
        config(&self.0, &self.log(), mode)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(directory: &Path, log: &Path, mode: AuditMode) -> Audit {
    Audit {
        sink: AuditSink::File(log.to_owned()),
        ring_directory: directory.join("rings"),
        mode,
        fsync: false,
    }
}

/// A ring of a few words, and the file both ends see.
fn small_ring(room: &Room, words: usize, mode: AuditMode) -> (Arc<RingFile>, AuditRing) {
    let path = room.path("small.ring");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let map = Mapped::new(&file.unwrap(), HEADER_WORDS + words).unwrap();
    let file = Arc::new(RingFile::create(map, 3, 0x1122_3344_5566_7788).unwrap());
    let ring = AuditRing::new(Arc::clone(&file), Arc::new(Health::default()), mode);
    (file, ring)
}

fn permit(time: u64) -> Entry<'static> {
    Entry {
        policies: Some(List::Slices(&["engineers-read"])),
        epoch: Some(7),
        user: Some("alice"),
        issuer: Some("https://idp.example"),
        groups: Some(List::Slices(&["engineering", "staff"])),
        agent: Some("agent-1"),
        server: Some("github"),
        method: Some("tools/call"),
        name: Some(Name::Plain("get_issue")),
        revision: Some("2026-07-28"),
        credential: Some(CredentialUse {
            provider: "github-user",
            kind: "api_key",
            cache: CredentialCache::Hit,
        }),
        source_ip: Some([127, 0, 0, 1].into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        token: Some(TokenReference::of(b"abc")),
        ..Entry::new(UnixMicros(time), Decision::Permit)
    }
}

fn deny(time: u64) -> Entry<'static> {
    let reason = Some(Reject::PolicyDenied);
    Entry { reason, ..Entry::new(UnixMicros(time), Decision::Deny) }
}

fn done() -> Outcome {
    Outcome {
        status: Some(200),
        upstream_status: Some(200),
        bytes_in: 300,
        bytes_out: 1_000,
        duration_us: 900,
        overhead_us: Some(12),
        reason: None,
        list: None,
        legs: None,
    }
}

/// Every line of the file, each of which must be JSON and end with a line feed.
fn lines(log: &Path) -> Vec<Value> {
    let bytes = fs::read(log).unwrap();
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "the last line is whole");
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Sequence numbers of final lines of one core, in order; asserts that none is missing or doubled.
fn assert_gap_free<'a>(lines: impl Iterator<Item = &'a Value>) -> u64 {
    let last = lines.filter(|line| line["outcome"] != "opened");
    let mut seqs: Vec<u64> = last.map(|line| line["seq"].as_u64().unwrap()).collect();
    seqs.sort_unstable();
    let count = seqs.len() as u64;
    assert!(seqs.iter().copied().eq(1..=count), "not 1..={count}: {seqs:?}");
    count
}

/// Polls `holds` until it does; a test that waits forever would hide what it waits for.
fn until(clock: Clock, what: &str, holds: impl Fn() -> bool) {
    let end = clock.monotonic().after(Duration::from_secs(30));
    while !holds() {
        assert!(clock.monotonic() < end, "waited in vain: {what}");
        // The machine may be small: leave the core to whom we wait for.
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// xorshift64*: seeded, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}
