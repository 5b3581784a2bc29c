//! One decision without the cache: what a first question costs, at 10 and at 1,000 policies.

#![allow(missing_docs, reason = "criterion's macros make items without docs")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "support/counting.rs"]
mod counting;
#[path = "support/policies.rs"]
mod policies;

fn cold(criterion: &mut Criterion) {
    for count in [10, 1_000] {
        let set = policies::many(count);
        // g2 has no condition, g4 has one, and nothing names g101.
        for (case, group) in [("scope", "g2"), ("condition", "g4"), ("default_deny", "g101")] {
            let name = format!("policy_decide_cold/{count}/{case}");
            counting::report(&name, || policies::ask(black_box(&set), group));
            criterion.bench_function(&name, |bench| {
                bench.iter(|| policies::ask(black_box(&set), group));
            });
        }
    }
}

criterion_group!(benches, cold);
criterion_main!(benches);
