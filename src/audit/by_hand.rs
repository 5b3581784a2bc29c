//! The writer without its thread, for the bench `audit` (feature `bench-internals`): what a record
//! costs the worker and what it costs the writer can be told apart only when nothing else runs.

use std::path::Path;
use std::sync::Arc;

use super::directory::RingDirectory;
use super::recovery::recover;
use super::ring::AuditRing;
use super::sink::Sink;
use super::writer::{Drain, Health, Lane, Turn};
use crate::clock::{Clock, Now};
use crate::config::{AuditMode, AuditSink};

/// One core's ring, and the writer's turns on demand.
pub struct ByHand {
    ring: AuditRing,
    drain: Drain,
    /// Held for its lock.
    _directory: RingDirectory,
}

impl ByHand {
    /// A new ring in `directory`, written to the file `sink`.
    ///
    /// # Errors
    /// As [`super::Writer::start`].
    pub fn new(directory: &Path, sink: &Path, clock: Clock) -> Result<Self, String> {
        let directory = RingDirectory::lock(directory)?;
        let told = |error: std::io::Error| error.to_string();
        let sink = Sink::open(&AuditSink::File(sink.to_owned())).map_err(told)?;
        let (mut drain, _) = recover(&directory, sink, clock)?;
        let file = Arc::new(directory.create(0, INSTANCE)?);
        drain.lanes.push(Lane::new(Arc::clone(&file)));
        let ring = AuditRing::new(file, Arc::new(Health::default()), AuditMode::Strict);
        Ok(Self { ring, drain, _directory: directory })
    }

    /// The worker's end.
    #[must_use]
    pub const fn ring(&self) -> &AuditRing {
        &self.ring
    }

    /// Turns until the ring is empty; answers how many lines were written.
    ///
    /// # Errors
    /// As writing to the sink.
    pub fn empty(&mut self, now: Now) -> std::io::Result<u64> {
        let mut lines = 0;
        loop {
            let (turn, written) = self.drain.turn(now)?;
            lines += written;
            if turn == Turn::Idle {
                return Ok(lines);
            }
        }
    }
}

const INSTANCE: u64 = 0x1122_3344_5566_7788;
