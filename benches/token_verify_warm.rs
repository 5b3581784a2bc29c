//! A token that the core remembers: hash, full compare, time and audience. The aim is 100 ns.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};

use token_rig::Rig;

#[path = "support/counting.rs"]
mod counting;
#[path = "support/token_rig.rs"]
mod token_rig;

fn warm(criterion: &mut Criterion) {
    let rig = Rig::new();
    rig.judge().unwrap();
    counting::report("token_verify_warm/hit", || rig.judge().unwrap());
    criterion.bench_function("token_verify_warm/hit", |bench| bench.iter(|| rig.judge().unwrap()));
    for _ in 0..10_000 {
        rig.judge_another().unwrap();
    }
    criterion.bench_function("token_verify_warm/hit_among_10000", |bench| {
        bench.iter(|| rig.judge().unwrap());
    });
}

criterion_group!(benches, warm);
criterion_main!(benches);
