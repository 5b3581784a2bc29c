//! A token that the core has not seen: read, judged, given its place, signature checked, principal
//! made.
//!
//! It goes the way of a request, in the first of its turn. The `remember` step is part of it; the
//! cache is emptied before each run, which is in it as well. `signature_alone` is what of it cannot
//! be saved: the same signature, its key and message at hand.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use token_rig::Rig;

#[path = "support/counting.rs"]
mod counting;
#[path = "support/token_rig.rs"]
mod token_rig;

fn cold(criterion: &mut Criterion) {
    let rig = Rig::new();
    counting::report("token_verify_cold/es256", || {
        rig.forget();
        rig.judge().unwrap()
    });
    criterion.bench_function("token_verify_cold/es256", |bench| {
        bench.iter(|| {
            rig.forget();
            rig.judge().unwrap()
        });
    });
    let (point, signed, signature) = rig.signature();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    criterion.bench_function("token_verify_cold/signature_alone", |bench| {
        bench.iter(|| key.verify(black_box(&signed), black_box(&signature)).unwrap());
    });
}

criterion_group!(benches, cold);
criterion_main!(benches);
