//! One request counted for one limit: by this core alone, by all cores together, and together with
//! a core that counts the same caller all the while. What `exact = true` costs is the difference.

#![allow(missing_docs, reason = "criterion's macros make items without docs")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::clock::Monotonic;
use portcullis::config::{Per, RateLimit};
use portcullis::limits::QUOTA_CALLERS_MAX;
use portcullis::quota::{Asker, Exact, Quota};

#[path = "support/counting.rs"]
mod counting;

/// So wide that nothing is refused, also when the core beside is ahead by millions of requests,
/// each of them a microsecond.
fn limit(exact: bool) -> [RateLimit; 1] {
    [RateLimit {
        name: "calls".to_owned(),
        per: Per { user: true, ..Per::default() },
        server: None,
        tool: None,
        requests: 1_000_000_000,
        seconds: 1,
        burst: 1_000_000_000_000_000,
        exact,
    }]
}

/// Each a microsecond after the one before.
fn ask(quota: &Quota, limits: &[RateLimit], now: &mut u64) -> bool {
    let asker = Asker {
        user: Some("alice@example.com"),
        agent: "claude",
        server: "github",
        tool: Some("create_issue"),
    };
    *now += 1;
    quota.admit(black_box(limits), &asker, Monotonic(*now)).is_ok()
}

fn admit(criterion: &mut Criterion) {
    for (case, exact, beside) in
        [("per_core", false, false), ("exact", true, false), ("exact_contended", true, true)]
    {
        let (limits, over) = (limit(exact), AtomicBool::new(false));
        let shared = Exact::of(&limits);
        let name = format!("quota_admit/{case}");
        thread::scope(|scope| {
            if beside {
                let quota_of = Arc::clone(&shared);
                let (limits, over) = (&limits, &over);
                scope.spawn(move || {
                    let (quota, mut now) = (Quota::new(QUOTA_CALLERS_MAX, quota_of), 0);
                    while !over.load(Relaxed) {
                        ask(&quota, limits, &mut now);
                    }
                });
            }
            let (quota, mut now) = (Quota::new(QUOTA_CALLERS_MAX, Arc::clone(&shared)), 0);
            let mut refused = 0_u64;
            let mut once = || refused += u64::from(!ask(&quota, &limits, &mut now));
            counting::report(&name, &mut once);
            criterion.bench_function(&name, |bench| {
                bench.iter(&mut once);
            });
            over.store(true, Relaxed);
            assert_eq!(refused, 0, "{name}: a grant is measured, not a refusal");
        });
    }
}

criterion_group!(benches, admit);
criterion_main!(benches);
