//! What an earlier process left: its rings are drained, what it wrote already is recognised, what
//! it never finished is written as `unknown`.
//!
//! Runs the same turns as the writer, so a crash during recovery is recovered from like any other.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashSet;

use super::directory::{Left, RingDirectory};
use super::join::Joiner;
use super::line;
use super::parked::Parked;
use super::sink::Sink;
use super::writer::{BATCH_BYTES, Drain, Lane, Turn};
use crate::clock::Clock;

/// Empties `directory`. Answers a drain without lanes, ready for new rings, and what there is to
/// tell.
///
/// # Errors
/// A sentence with the cure. Nothing is lost: the rings stay as they are, less what was written.
pub(super) fn recover(
    directory: &RingDirectory,
    sink: Sink,
    clock: Clock,
) -> Result<(Drain, Vec<String>), String> {
    let mut notes = Vec::new();
    let drain = empty_rings(directory, sink, clock, &mut notes).map_err(|error| {
        format!(
            "audit records of the last run cannot be written: {error}; make room for the audit \
             file (or move the ring directory away, and with it those records)"
        )
    })?;
    Ok((drain, notes))
}

fn empty_rings(
    directory: &RingDirectory,
    sink: Sink,
    clock: Clock,
    notes: &mut Vec<String>,
) -> io::Result<Drain> {
    let last = sink.last_lines(SEEN_BYTES)?;
    let seen: HashSet<_> = last.split(|byte| *byte == b'\n').filter_map(line::final_key).collect();
    let (parked, found) = Parked::open(directory.parked()?)?;
    let mut joiner = Joiner::new(parked, seen);
    for decision in found {
        joiner.adopt(decision.key, decision.slot, decision.payload);
    }
    let (lanes, emptied) = old_rings(directory, notes)?;
    let mut drain = Drain { lanes, ..Drain::new(joiner, sink) };
    let mut recovered = settle(&mut drain, clock)?;
    drain.end_records(clock.now());
    recovered += settle(&mut drain, clock)?;
    // Only now may they go: every record is in the sink, and synced whatever the setting, because
    // the rings were the only other copy.
    if recovered > 0 {
        drain.sink.sync()?;
    }
    drain.joiner.start_clean()?;
    drain.lanes.clear();
    for path in emptied {
        fs::remove_file(path)?;
    }
    if recovered > 0 {
        notes.push(format!("{recovered} audit records of the last run were recovered"));
    }
    Ok(drain)
}

/// Rings to drain, and files to remove afterwards.
fn old_rings(
    directory: &RingDirectory,
    notes: &mut Vec<String>,
) -> io::Result<(Vec<Lane>, Vec<PathBuf>)> {
    let mut lanes = Vec::new();
    let mut emptied = Vec::new();
    for path in directory.rings()? {
        match directory.look(&path)? {
            Left::Blank => emptied.push(path),
            Left::Foreign => {
                let aside = path.with_extension("ring.bad");
                fs::rename(&path, &aside)?;
                notes.push(format!(
                    "{} is not an audit ring of this version; it was kept as {}",
                    path.display(),
                    aside.display()
                ));
            }
            Left::Ring(ring) => {
                lanes.push(Lane::new(Arc::from(ring)));
                emptied.push(path);
            }
        }
    }
    Ok((lanes, emptied))
}

fn settle(drain: &mut Drain, clock: Clock) -> io::Result<u64> {
    let mut lines = 0;
    loop {
        let (turn, written) = drain.turn(clock.now())?;
        lines += written;
        if turn == Turn::Idle {
            return Ok(lines);
        }
    }
}

/// How far back the file is read for lines that a dying process wrote and did not account for:
/// those of its last batch, and of one batch more for each recovery that died as well.
const SEEN_BYTES: u64 = 8 * BATCH_BYTES as u64;
