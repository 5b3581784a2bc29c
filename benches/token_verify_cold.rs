//! A token that the core has not seen: read, judged, signature checked, principal made.
//!
//! The `remember` step is part of it; the cache is emptied before each run.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};

use token_rig::Rig;

#[path = "support/counting.rs"]
mod counting;
#[path = "support/token_rig.rs"]
mod token_rig;

fn cold(criterion: &mut Criterion) {
    let rig = Rig::new();
    counting::report("token_verify_cold/es256", || {
        rig.identity.purge();
        rig.judge().unwrap()
    });
    criterion.bench_function("token_verify_cold/es256", |bench| {
        bench.iter(|| {
            rig.identity.purge();
            rig.judge().unwrap()
        });
    });
}

criterion_group!(benches, cold);
criterion_main!(benches);
