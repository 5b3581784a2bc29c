//! Cores share nothing on the way of a request: the list of what crosses threads at all.
//!
//! That each of these stands on cache lines of its own is shown beside the types, by the unit tests
//! named `share_nothing_*`, from offsets, sizes and alignments. Here is held that the list is
//! whole: a new atomic, lock or channel, or another place that counts a handle, is a decision.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every file that declares something which several threads may touch: how many declarations, who
/// writes, and why no request waits for it.
///
/// Mail between cores (`mail.rs` over `net/pairs.rs`) is not among them: each end of its stream
/// pairs has one owner, and what two cores touch there is the kernel's. The README names it as a
/// deviation, for it carries data of requests.
const SHARED: &[(&str, usize, &str)] = &[
    ("audit/writer.rs", 7, "Health, Orders: lines of their own; one load per request, if strict"),
    ("bus.rs", 3, "a lane per core, on lines of its own; one load per request, stores per notice"),
    ("control/mod.rs", 4, "Slot and Asks: a lock per change, a message per question, none else"),
    ("judge/crypto.rs", 1, "never written"),
    ("mapped.rs", 1, "a flag of the start; the ring's words have their own test"),
    ("metrics/mod.rs", 3, "counters: written by their core alone, read when somebody scrapes"),
    ("metrics/process.rs", 5, "written by the control thread"),
    ("net/resolve.rs", 2, "between the control thread and its resolvers"),
    (
        "quota/exact.rs",
        5,
        "exact limits only: opt-in, one compare-exchange each; README, deviations",
    ),
    ("worker.rs", 1, "reports, at start and end"),
];

/// Every place where a count that other cores may hold, too, goes up: the count is on a line that
/// they share. None is on the way of a warm request.
///
/// Seen are `Arc::clone`, which clippy's `clone_on_ref_ptr` has everybody write, and `.cloned()`,
/// which says nothing of what it clones; not seen is the clone of a type that holds an `Arc`.
const HANDLES: &[(&str, usize, &str)] = &[
    ("audit/by_hand.rs", 1, "bench-internals only, at start"),
    ("audit/writer.rs", 5, "start"),
    ("authoring/mod.rs", 1, "per question of an author; no gateway runs"),
    ("bus.rs", 1, "start"),
    ("config/certified.rs", 1, "per load of a configuration"),
    ("control/mod.rs", 1, "per published snapshot"),
    ("devtoken.rs", 1, "no handle; a command of its own"),
    ("judge/policy/compile.rs", 3, "policy, file, types: when a set is compiled"),
    ("judge/policy/decide.rs", 1, "per decision that is evaluated, not remembered"),
    ("judge/policy/schema.rs", 2, "no handles of ours; per load of policies"),
    ("metrics/mod.rs", 3, "start; per server that is counted for the first time"),
    ("net/resolve.rs", 2, "per name that is resolved"),
    ("net/tls.rs", 4, "start; per TLS connection"),
    ("policy/mod.rs", 1, "per request with several targets whose policies differ"),
    ("policy/remote.rs", 3, "TLS of this core's own, when it dials a remote decision point"),
    ("shard.rs", 1, "per published snapshot"),
    ("world.rs", 3, "per published snapshot"),
];

/// What may be touched by several threads.
const WORDS: &[&str] = &[
    "AtomicBool",
    "AtomicI",
    "AtomicPtr",
    "AtomicU",
    "Barrier",
    "Condvar",
    "LazyLock<",
    "Mutex<",
    "OnceLock<",
    "Receiver<",
    "RwLock<",
    "Sender<",
    "static ",
    "thread_local!",
];

#[test]
fn all_that_crosses_cores_is_listed() {
    let found = count(|line| usize::from(WORDS.iter().any(|word| declares(line, word))));
    assert_eq!(found, listed(SHARED));
}

#[test]
fn all_handles_are_counted_off_the_way() {
    let clones = ["Arc::clone", ".cloned()"];
    let found = count(|line| clones.iter().map(|clone| line.matches(clone).count()).sum());
    assert_eq!(found, listed(HANDLES));
}

#[test]
fn the_list_sees_what_it_looks_for() {
    assert!(declares("    pending: AtomicBool,", "AtomicBool"));
    assert!(declares("static KEYS: AtomicBool = AtomicBool::new(false);", "static "));
    assert!(declares("pub(crate) static KEYS: LazyLock<Keys> = make();", "static "));
    assert!(!declares("pub fn name() -> &'static str {", "static "));
    assert!(!declares("    fn name(&self) -> &'static str {", "static "));
    assert!(!declares("    // a Mutex<T> would wait", "Mutex<"));
    assert!(!declares("fn serve(queue: &Mutex<Receiver<Job>>) {", "Mutex<"));
    assert!(!declares("use std::sync::mpsc::{Receiver, Sender};", "Sender<"));
}

/// True for a field, a static or the alias of a type; a parameter or a local borrows one of those.
fn declares(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default().trim_start();
    if word == "static " {
        return code.split_once(word).is_some_and(|(before, _)| {
            before.is_empty() || (before.starts_with("pub") && before.ends_with(' '))
        });
    }
    let elsewhere = ["use ", "fn ", "let ", ": &", "::new(", "const ", "cast::"];
    code.contains(word) && !elsewhere.iter().any(|part| code.contains(part))
}

fn listed(table: &[(&str, usize, &str)]) -> BTreeMap<String, usize> {
    assert!(table.iter().all(|(_, _, why)| !why.is_empty()));
    table.iter().map(|(file, number, _)| ((*file).to_owned(), *number)).collect()
}

/// Tests, faults on demand, the control plane's own threads, and the demo.
fn off_the_way(name: &str) -> bool {
    let folder = ["supervisor/", "demo/"].iter().any(|folder| name.starts_with(folder));
    folder || name.contains("tests") || name == "judge/testing.rs" || name == "fault.rs"
}

/// What `each` finds per line, by file of the product, tests left out.
fn count(each: impl Fn(&str) -> usize) -> BTreeMap<String, usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !off_the_way(&name) {
                let text = fs::read_to_string(&path).unwrap();
                // Test modules stand last.
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let number = code.lines().map(&each).sum();
                if number > 0 {
                    found.insert(name, number);
                }
            }
        }
    }
    assert!(found.len() > 5, "the walk found the sources");
    found
}
