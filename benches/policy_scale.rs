//! Decisions and loads at 10 to 10,000 policies over 100 servers.

#![allow(missing_docs, reason = "criterion's macros make items without docs")]

use std::hint::black_box;
use std::io::{self, Write as _};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::clock::Clock;
use portcullis::judge::policy::{PolicySet, QTarget};
use portcullis::mcp::Listed;
use portcullis::policy::{Ask, Enforcer, Form, Shown};

#[path = "support/counting.rs"]
mod counting;
#[path = "support/scale.rs"]
mod scale;

const COUNTS: [usize; 4] = [10, 100, 1_000, 10_000];

/// `count` policies, evenly over the servers.
fn even(count: usize) -> PolicySet {
    let each = |server| count / scale::SERVERS + usize::from(server < count % scale::SERVERS);
    let mut sources = scale::sources(each);
    scale::candidates(&mut sources, 5);
    scale::compile(None, sources)
}

/// From the cache: both questions of a `tools/call`.
fn warm(criterion: &mut Criterion) {
    for count in COUNTS {
        let (set, enforcer) = (even(count), Enforcer::default());
        let name = format!("policy_scale/warm/{count}");
        with_ask(&mut |ask| {
            let mut once =
                || enforcer.enforce(black_box(&set), ask, [QTarget::Tool("asked")]).is_ok();
            if !once() || counting::report(&name, &mut once) != 0 {
                std::process::abort();
            }
            criterion.bench_function(&name, |bench| bench.iter(&mut once));
        });
    }
}

/// One question without the cache: nobody's tool, and one that five policies are about.
fn cold(criterion: &mut Criterion) {
    for count in COUNTS {
        let set = even(count);
        // Nothing matches, everything does, and as many as there are of one group.
        for (case, group, tool) in
            [("none", "stranger", "none"), ("five", "asked", "asked"), ("some", "g0", scale::TOOL)]
        {
            let name = format!("policy_scale/cold/{count}/{case}");
            scale::with_question(group, tool, |question| {
                let once = || black_box(&set).decide(question);
                counting::report(&name, once);
                criterion.bench_function(&name, |bench| bench.iter(once));
            });
        }
    }
}

/// What other servers' policies cost: 100 for the one that is asked, 1 or 100 for each other.
fn others(criterion: &mut Criterion) {
    for each in [1, 100] {
        let set = scale::compile(None, scale::sources(|at| if at == 0 { 100 } else { each }));
        let name = format!("policy_scale/others/{each}");
        scale::with_question("g0", scale::TOOL, |question| {
            criterion.bench_function(&name, |bench| {
                bench.iter(|| black_box(&set).decide(question));
            });
        });
    }
}

/// A list of 100 tools, each decision from the cache.
fn list(criterion: &mut Criterion) {
    let (set, enforcer) = (even(10_000), Enforcer::default());
    let tools: Vec<String> = (0..100).map(|at| format!("t{at}")).collect();
    with_ask(&mut |ask| {
        let once = || {
            let shows =
                |name: &&String| enforcer.shows(&set, ask, Listed::Tools, name) == Shown::Yes;
            tools.iter().filter(shows).count()
        };
        counting::report("policy_scale/list_of_100", once);
        criterion.bench_function("policy_scale/list_of_100", |bench| bench.iter(once));
    });
}

fn with_ask(then: &mut dyn FnMut(&Ask<'_>)) {
    scale::with_question("asked", "asked", |question| {
        then(&Ask {
            subject: question.subject,
            server: (0, "s0"),
            method: "tools/call",
            form: Form::Request,
            context: question.context,
            default_credential: None,
        });
    });
}

/// Loads are too long for many rounds: three of each, every one printed.
fn load(_criterion: &mut Criterion) {
    let clock = Clock::start();
    for _ in 0..3 {
        let sources = scale::sources(|_| 100);
        let began = clock.monotonic();
        let (mut last, mut longest) = (began, 0);
        let mut pause = || {
            let now = clock.monotonic();
            longest = now.micros_since(last).max(longest);
            last = now;
        };
        let set = scale::compile_with(None, sources, &mut pause);
        let loaded = clock.monotonic();
        let mut changed = scale::sources(|_| 100);
        if let Some(file) = changed.enforced.last_mut() {
            file.text = file.text.replace("\"read\"", "\"write\"");
        }
        let edited = clock.monotonic();
        let next = scale::compile(Some(&set), changed);
        let millis = |to: portcullis::clock::Monotonic, from| to.micros_since(from) / 1000;
        let (cold, one) = (millis(loaded, began), millis(clock.monotonic(), edited));
        // A closed pipe ends the bench elsewhere.
        let _ = writeln!(
            io::stdout(),
            "policy_scale/load: {} policies in {cold} ms, one file of 100 changed in {one} ms, \
             longest without a yield {longest} µs, peak {} KiB",
            next.len(),
            peak_kib()
        );
    }
}

/// The most memory that this process ever had, of which both sets are a part.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

criterion_group!(benches, warm, cold, others, list, load);
criterion_main!(benches);
