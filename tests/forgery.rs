//! Proof values are proofs: nobody outside their module can make, copy, change or print one.
//!
//! `src/forgery.rs` holds one attempt per `cfg`, with the error that must stop it beside it. Each
//! is compiled by itself, with the dependencies that this test was built with; only the types are
//! checked, so one takes some seconds.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Stands between cargo and rustc. Probes pass; our library is checked once per forgery, and then
/// fails, so that cargo keeps nothing of it.
const WRAPPER: &str = r#"#!/bin/sh
case " $* " in *" --crate-name portcullis "*) ;; *) exec "$@" ;; esac
running=0
for forge in $FORGERIES; do
  (
    i=$#
    while [ "$i" -gt 0 ]; do
      argument=$1
      shift
      case $argument in --emit=*) argument=--emit=metadata ;; esac
      set -- "$@" "$argument"
      i=$((i - 1))
    done
    "$@" --cfg forgery --cfg "forge=\"$forge\"" -o "$FORGERY_OUT/$forge.rmeta" \
      2> "$FORGERY_OUT/$forge.json"
    echo $? > "$FORGERY_OUT/$forge.status"
  ) &
  running=$((running + 1))
  if [ "$running" -eq 2 ]; then wait; running=0; fi
done
wait
exit 1
"#;

#[test]
fn every_forgery_is_stopped_by_its_own_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("src/forgery.rs")).unwrap();
    let forgeries = forgeries(&source);
    assert!(forgeries.len() > 20, "the list was read: {forgeries:?}");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("forgery");
    compile(&forgeries, &out);

    let mut faults = Vec::new();
    for (name, line, expected) in &forgeries {
        let status = fs::read_to_string(out.join(format!("{name}.status"))).unwrap();
        let found = errors(&out.join(format!("{name}.json")));
        let wanted: Vec<_> = expected
            .iter()
            .map(|code| ("src/forgery.rs".to_owned(), *line as u64, code.clone()))
            .collect();
        if found != wanted || (status.trim() == "0") != wanted.is_empty() {
            faults.push(format!("{name}: expected {wanted:?}, got {found:?}, exit {status}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Name, line of the error and its code; without a code it must compile.
fn forgeries(source: &str) -> Vec<(String, usize, Option<String>)> {
    let mut found: Vec<(String, usize, Option<String>)> = Vec::new();
    for (number, line) in source.lines().enumerate() {
        if let Some(rest) = line.strip_prefix("#[cfg(forge = \"") {
            found.push((rest.split('"').next().unwrap().to_owned(), 0, None));
        }
        if let Some((_, code)) = line.split_once("// E0") {
            let last = found.last_mut().unwrap();
            assert!(last.2.is_none(), "one error each: {}", last.0);
            (last.1, last.2) = (number + 1, Some(format!("E0{}", code.trim())));
        }
    }
    found
}

fn compile(forgeries: &[(String, usize, Option<String>)], out: &Path) {
    let _ = fs::remove_dir_all(out);
    fs::create_dir_all(out).unwrap();
    let wrapper = out.join("wrapper");
    fs::write(&wrapper, WRAPPER).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let names: Vec<&str> = forgeries.iter().map(|(name, ..)| name.as_str()).collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // A plain build of the library: its dependencies are there since this test was linked.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--lib", "--locked", "--offline", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
        .env("CARGO_INCREMENTAL", "0")
        .env("FORGERIES", names.join(" "))
        .env("FORGERY_OUT", out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("could not compile"), "{said}");
}

/// File, line and code of every error.
fn errors(path: &Path) -> Vec<(String, u64, String)> {
    let text = fs::read_to_string(path).unwrap();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors = messages.filter(|message| message["level"] == "error");
    let mut found: Vec<_> = errors
        .filter(|error| error["spans"].as_array().is_some_and(|spans| !spans.is_empty()))
        .map(|error| {
            let spans = error["spans"].as_array().unwrap();
            let span = spans.iter().find(|span| span["is_primary"] == true).unwrap();
            let file = span["file_name"].as_str().unwrap().to_owned();
            let code = error["code"]["code"].as_str().unwrap_or("no code").to_owned();
            (file, span["line_start"].as_u64().unwrap(), code)
        })
        .collect();
    // One for each field that is in the way.
    found.dedup();
    found
}
