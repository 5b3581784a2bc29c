//! One warm `tools/call` of 300 bytes through every stage, without sockets. The aim is 3 µs and no
//! allocation.
//!
//! What runs is the gateway's own turn of a connection: head, route, token (remembered), message,
//! decision (remembered), credential (remembered), audit decision, upstream head, the answer's
//! head and body, audit outcome, metrics. The audit ring is a mapped file, and its writer runs.
//! Only the kernel's part of reading and writing is left out.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};

use way_rig::Rig;

#[path = "support/counting.rs"]
mod counting;
#[path = "support/way_rig.rs"]
mod way_rig;

fn whole_way(criterion: &mut Criterion) {
    let mut rig = Rig::new(|_| ());
    counting::report("whole_way/warm_300B", || rig.turn());
    rig.drain();
    criterion.bench_function("whole_way/warm_300B", |bench| {
        bench.iter_custom(|iterations| in_batches(&mut rig, iterations));
    });
    rig.check();
}

/// The ring is emptied between the batches, off the clock.
fn in_batches(rig: &mut Rig, iterations: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let batch = left.min(BATCH);
        let began = WallTime.start();
        for _ in 0..batch {
            rig.turn();
        }
        spent += WallTime.end(began);
        rig.drain();
        left -= batch;
    }
    spent
}

/// Their records fit into the ring even when the writer does nothing.
const BATCH: u64 = 4_096;

criterion_group!(benches, whole_way);
criterion_main!(benches);
