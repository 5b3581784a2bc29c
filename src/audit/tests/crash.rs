//! R09, by chance: a process that commits is killed, a hundred times over, and each next one
//! (which may be killed while it recovers) starts where the last one died.
//!
//! The process to kill is this test binary again, told by an environment variable to run one test.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::super::writer::{Started, Writer};
use super::{Random, Room, assert_gap_free, config, deny, done, lines, permit, until};
use crate::clock::Clock;
use crate::config::{AuditMode, AuditSink};
use crate::mapped::Mapped;
use crate::reject::Reject;

const ROOM: &str = "PORTCULLIS_TEST_AUDIT_ROOM";
const ROUND: &str = "PORTCULLIS_TEST_AUDIT_ROUND";
const ROUNDS: u64 = 100;

/// What the process says it did, in memory that outlives it: per core decided, then completed.
struct Board(Mapped);

impl Board {
    fn new(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self(Mapped::new(&file.unwrap(), 512).unwrap())
    }

    fn decided(&self, core: u32) -> &AtomicU64 {
        &self.0.words()[core as usize * 16]
    }

    fn completed(&self, core: u32) -> &AtomicU64 {
        &self.0.words()[core as usize * 16 + 8]
    }
}

fn again(test: &str, room: &Path, round: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("audit::tests::crash::{test}"), "--nocapture"]);
    command.env(ROOM, room).env(ROUND, round.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The child's orders, when this process is one.
fn orders() -> Option<(PathBuf, u64)> {
    let room = std::env::var_os(ROOM)?;
    let round = std::env::var_os(ROUND)?.into_string().unwrap();
    Some((room.into(), round.parse().unwrap()))
}

fn board_path(room: &Path, round: u64) -> PathBuf {
    room.join(format!("board-{round}"))
}

#[test]
fn r09_committed_decisions_survive_a_hundred_kills() {
    let room = Room::new();
    let clock = Clock::start();
    let seed = 0x5eed_0009;
    let mut random = Random(seed);
    for round in 0..ROUNDS {
        let board = Board::new(&board_path(&room.0, round));
        let child = again("child_that_commits", &room.0, round).spawn().unwrap();
        // Some die while they start, some after many turns of the writer.
        let goal = if round % 10 == 9 { 0 } else { 1 + random.below(4_000) };
        kill_when(child, || board.decided(0).load(Ordering::Acquire) >= goal, clock);
    }
    let config = config(&room.0, &room.log(), AuditMode::Strict);
    let Started { writer, .. } = Writer::start(&config, &[0], clock).unwrap();
    assert!(writer.shutdown(Duration::from_secs(60)));
    let lines = lines(&room.log());
    let mut of_core: HashMap<(u64, u32), Vec<&serde_json::Value>> = HashMap::new();
    for line in &lines {
        assert_eq!(line["event"], "request", "seed {seed:#x}: {line}");
        let round = line["user"].as_str().unwrap().parse().unwrap();
        let core = u32::try_from(line["core"].as_u64().unwrap()).unwrap();
        of_core.entry((round, core)).or_default().push(line);
    }
    for round in 0..ROUNDS {
        let board = Board::new(&board_path(&room.0, round));
        for core in 0..2 {
            let found = of_core.remove(&(round, core)).unwrap_or_default();
            let told = format!("seed {seed:#x} round {round} core {core}");
            let count = assert_gap_free(found.iter().copied());
            assert!(count >= board.decided(core).load(Ordering::Acquire), "{told}");
            let ended = found.iter().filter(|line| line["outcome"] == "done").count() as u64;
            assert!(ended >= board.completed(core).load(Ordering::Acquire), "{told}");
            let mut instances: Vec<_> = found.iter().map(|line| &line["instance"]).collect();
            instances.dedup();
            assert!(instances.len() <= 1, "{told}");
        }
    }
    assert!(lines.len() > 10_000, "the test did something: {}", lines.len());
}

fn kill_when(mut child: Child, ready: impl Fn() -> bool, clock: Clock) {
    until(clock, "the child's progress", ready);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Commits on two cores until it is killed.
#[test]
fn child_that_commits() {
    let Some((room, round)) = orders() else { return };
    let board = Board::new(&board_path(&room, round));
    let config = config(&room, &room.join("audit.jsonl"), AuditMode::Strict);
    let Started { rings, .. } = Writer::start(&config, &[0, 1], Clock::start()).unwrap();
    let user = round.to_string();
    std::thread::scope(|scope| {
        for ring in rings {
            let (board, user) = (&board, user.as_str());
            scope.spawn(move || {
                let mut random = Random(round * 2 + u64::from(ring.core()) + 1);
                let mut open = Vec::new();
                let core = ring.core();
                loop {
                    let entry = super::Entry { user: Some(user), ..permit(1) };
                    match ring.decide(&entry) {
                        Ok(ticket) => open.push(ticket),
                        Err(_) => {
                            std::thread::yield_now();
                            continue;
                        }
                    }
                    board.decided(core).fetch_add(1, Ordering::Release);
                    if open.len() as u64 > random.below(20) {
                        let at = random.below(open.len() as u64) as usize;
                        ring.complete(open.swap_remove(at), &done());
                        board.completed(core).fetch_add(1, Ordering::Release);
                    }
                }
            });
        }
    });
}

/// F11 with a real partial write: a file size limit cuts a line in the middle, as a full disk does.
/// In the middle of a line.
const FULL_BYTES: u64 = 100_001;

#[test]
fn f11_after_a_full_disk_the_sequence_has_no_gap() {
    let room = Room::new();
    let status = again("child_with_a_full_disk", &room.0, 0).status().unwrap();
    assert!(status.success(), "{status}");
    let lines = lines(&room.log());
    assert_gap_free(lines.iter());
    let length = std::fs::metadata(room.log()).unwrap().len();
    assert!(length > FULL_BYTES, "the rest was written after the disk had room again");
    assert!(lines.iter().all(|line| line["event"] == "request"), "nothing was dropped");
    assert!(lines.iter().any(|line| line["reason"] == "audit_unavailable"));
}

#[test]
fn child_with_a_full_disk() {
    let Some((room, _)) = orders() else { return };
    let clock = Clock::start();
    let flag = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).unwrap();
    let config = config(&room, &room.join("audit.jsonl"), AuditMode::Strict);
    let Started { writer, rings, .. } = Writer::start(&config, &[0], clock).unwrap();
    let limit = |bytes| setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None });
    limit(Some(FULL_BYTES)).unwrap();
    let refused = loop {
        match rings[0].decide(&permit(1)) {
            Ok(ticket) => rings[0].complete(ticket, &done()),
            Err(reject) => break reject,
        }
    };
    assert_eq!(refused, Reject::AuditUnavailable);
    assert!(!writer.healthy());
    rings[0].refuse(&super::Entry { reason: Some(refused), ..deny(2) }, &done());
    // While it is full, the file ends with a whole line.
    until(clock, "a whole last line", || {
        std::fs::read(room.join("audit.jsonl")).unwrap().ends_with(b"\n")
    });
    limit(None).unwrap();
    until(clock, "recovery", || writer.healthy());
    let ticket = rings[0].decide(&permit(3)).unwrap();
    rings[0].complete(ticket, &done());
    assert!(writer.shutdown(Duration::from_secs(30)));
}

/// Under systemd standard output is a socket, in a shell pipeline a pipe.
#[test]
fn standard_output_may_be_a_pipe_or_a_socket() {
    let room = Room::new();
    let pipe = again("child_on_stdout", &room.0, 0).stdout(Stdio::piped()).output().unwrap();
    assert!(pipe.status.success());
    let (near, far) = UnixStream::pair().unwrap();
    let mut child = {
        let mut command = again("child_on_stdout", &room.0, 0);
        command.stdout(Stdio::from(OwnedFd::from(far))).spawn().unwrap()
    };
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut &near, &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    for bytes in [pipe.stdout, text] {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
        let lines: Vec<serde_json::Value> =
            lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert_eq!(assert_gap_free(lines.iter()), 10_000);
    }
}

#[test]
fn child_on_stdout() {
    let Some((room, _)) = orders() else { return };
    let mut config = config(&room, &room.join("unused"), AuditMode::Strict);
    config.sink = AuditSink::Stdout;
    // The test harness has left its own line open.
    println!();
    let Started { writer, rings, .. } = Writer::start(&config, &[0], Clock::start()).unwrap();
    for _ in 0..10_000 {
        rings[0].refuse(&deny(1), &done());
    }
    assert!(writer.shutdown(Duration::from_secs(30)));
}
