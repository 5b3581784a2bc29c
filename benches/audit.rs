//! What one record costs, apart for the two who handle it: the worker, who keeps a decision and its
//! outcome in the ring, and the writer, who makes a line of them.
//!
//! No thread runs beside the bench: the writer's turns are made by hand, off the worker's clock and
//! the other way around. Lines go to `/dev/null`, so the file system is not in it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::audit::by_hand::ByHand;
use portcullis::clock::Clock;

use records::{decision, outcome};

#[path = "support/counting.rs"]
mod counting;
#[path = "support/records.rs"]
mod records;

fn audit(criterion: &mut Criterion) {
    let directory = std::env::temp_dir().join(format!("portcullis-audit-{}", std::process::id()));
    let clock = Clock::start();
    let mut hand = ByHand::new(&directory, Path::new("/dev/null"), clock).unwrap();
    counting::report("audit/worker", || keep(&hand, 1));
    hand.empty(clock.now()).unwrap();
    counting::report("audit/writer", || {
        keep(&hand, BATCH);
        assert_eq!(hand.empty(clock.now()).unwrap(), BATCH);
    });
    criterion.bench_function("audit/worker", |bench| {
        bench.iter_custom(|iterations| {
            in_batches(iterations, |batch| {
                let began = WallTime.start();
                keep(&hand, batch);
                let spent = WallTime.end(began);
                assert_eq!(hand.empty(clock.now()).unwrap(), batch);
                spent
            })
        });
    });
    criterion.bench_function("audit/writer", |bench| {
        bench.iter_custom(|iterations| {
            in_batches(iterations, |batch| {
                keep(&hand, batch);
                let now = clock.now();
                let began = WallTime.start();
                assert_eq!(hand.empty(now).unwrap(), batch);
                WallTime.end(began)
            })
        });
    });
    drop(hand);
    std::fs::remove_dir_all(directory).unwrap();
}

fn keep(hand: &ByHand, count: u64) {
    let ring = hand.ring();
    for number in 0..count {
        let ticket = ring.decide(&decision(number)).unwrap();
        ring.complete(ticket, &outcome(number));
    }
}

fn in_batches(iterations: u64, mut batch: impl FnMut(u64) -> Duration) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let count = left.min(BATCH);
        spent += batch(count);
        left -= count;
    }
    spent
}

/// About what a busy core keeps between two looks of the writer.
const BATCH: u64 = 1_000;

criterion_group!(benches, audit);
criterion_main!(benches);
