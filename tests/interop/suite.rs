//! The official conformance suite: run it at a URL, read what it wrote, compare two runs check by
//! check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::install::{Tools, timed};
use crate::process::finish;

/// How often each `(check id, status)` came, per scenario.
pub(crate) type Checks = BTreeMap<String, BTreeMap<(String, String), u32>>;

/// One run of the suite.
pub(crate) struct Run {
    pub(crate) checks: Checks,
    /// With a requirement set: every required scenario passed.
    pub(crate) passed: bool,
    /// The suite's own summary, for messages.
    pub(crate) summary: String,
}

/// Runs everything the frozen requirement set of `revision` names.
pub(crate) fn required(tools: &Tools, name: &str, url: &str, revision: &str) -> Run {
    run(tools, name, url, &["--requirements", revision])
}

/// Runs everything there is for `revision`, required or not.
pub(crate) fn all(tools: &Tools, name: &str, url: &str, revision: &str) -> Run {
    run(tools, name, url, &["--suite", "all", "--spec-version", revision])
}

/// Runs one scenario.
pub(crate) fn scenario(
    tools: &Tools,
    name: &str,
    url: &str,
    scenario: &str,
    revision: &str,
) -> Run {
    run(tools, name, url, &["--scenario", scenario, "--spec-version", revision])
}

fn run(tools: &Tools, name: &str, url: &str, what: &[&str]) -> Run {
    let out = tools.runs.join(name);
    let mut command = Command::new(&tools.node);
    command.arg(tools.suite()).args(["server", "--url", url, "-o"]).arg(&out).args(what);
    let finished = timed(name, || finish(name, LIMIT, &mut command));
    let checks = read(&out);
    assert!(!checks.is_empty(), "{name}: no results: {}", finished.stderr);
    let summary = finished.stdout.split_once("=== SUMMARY").map_or("", |(_, tail)| tail).to_owned();
    Run { checks, passed: finished.status.success(), summary }
}

/// All differences between two runs, one line each; empty when they are equal.
pub(crate) fn differences(direct: &Checks, through: &Checks) -> Vec<String> {
    let scenarios: BTreeSet<_> = direct.keys().chain(through.keys()).collect();
    let nothing = BTreeMap::new();
    let mut lines = Vec::new();
    for scenario in scenarios {
        let before = direct.get(scenario).unwrap_or(&nothing);
        let after = through.get(scenario).unwrap_or(&nothing);
        let checks: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for check in checks {
            let (a, b) = (before.get(check).unwrap_or(&0), after.get(check).unwrap_or(&0));
            if a != b {
                lines.push(format!("{scenario}: {}={}: {a} direct, {b} through", check.0, check.1));
            }
        }
    }
    lines
}

/// The checks of a scenario that have this status.
pub(crate) fn with_status<'a>(checks: &'a Checks, status: &str) -> Vec<&'a str> {
    let all = checks.values().flatten();
    all.filter(|((_, found), _)| found == status).map(|((id, _), _)| id.as_str()).collect()
}

/// Reads an output folder: `[server-]<scenario>-<time>/checks.json`, scenario names may hold a `/`.
fn read(out: &Path) -> Checks {
    let mut checks = Checks::new();
    let mut folders = vec![(out.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            if path.is_dir() {
                let scenario = format!("{prefix}{}", without_stamp(&name));
                match fs::read(path.join("checks.json")) {
                    Ok(json) => {
                        assert!(checks.insert(scenario, count(&json)).is_none(), "{name}: twice")
                    }
                    Err(_) => folders.push((path, format!("{scenario}/"))),
                }
            }
        }
    }
    checks
}

fn count(json: &[u8]) -> BTreeMap<(String, String), u32> {
    let list: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap();
    let mut counts = BTreeMap::new();
    for check in &list {
        let key = |field: &str| check[field].as_str().unwrap().to_owned();
        *counts.entry((key("id"), key("status"))).or_insert(0) += 1;
    }
    counts
}

/// `server-caching-2026-11-23T02-20-27-123Z` → `caching`
fn without_stamp(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    let stamp = name.char_indices().rev().map(|(at, _)| at).find(|at| is_stamp(&name[*at..]));
    stamp.map_or(name, |at| &name[..at])
}

/// `-YYYY-MM-DDT…Z`
fn is_stamp(tail: &str) -> bool {
    let shape = b"-0000-00-00T";
    tail.ends_with('Z')
        && tail.len() > shape.len()
        && tail.bytes().zip(shape).all(|(byte, want)| match want {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn a_lost_a_changed_and_an_added_check_differ() {
    let run = |list: &str| Checks::from([("s".to_owned(), count(list.as_bytes()))]);
    let ok = r#"{"id":"a","status":"SUCCESS"}"#;
    let bad = r#"{"id":"a","status":"FAILURE"}"#;
    let one = run(&format!("[{ok}]"));
    assert!(differences(&one, &run(&format!("[{ok}]"))).is_empty());
    assert_eq!(differences(&one, &run("[]")), ["s: a=SUCCESS: 1 direct, 0 through"]);
    assert_eq!(differences(&one, &run(&format!("[{bad}]"))).len(), 2);
    assert_eq!(differences(&one, &run(&format!("[{ok},{ok}]"))).len(), 1);
    assert_eq!(differences(&one, &Checks::new()).len(), 1, "a missing scenario");
    assert_eq!(with_status(&run(&format!("[{ok},{bad}]")), "FAILURE"), ["a"]);
}

#[test]
fn folder_names_lose_their_time() {
    assert_eq!(without_stamp("server-caching-2026-11-23T02-20-27-123Z"), "caching");
    assert_eq!(
        without_stamp("json-schema-2020-12-2026-11-23T02-20-27-123Z"),
        "json-schema-2020-12"
    );
    assert_eq!(without_stamp("tools-list"), "tools-list");
}
