//! The style that a compiler cannot hold: layers, sizes, banned words, the places where secrets leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules in layers. A module imports only what stands in an earlier row, or earlier in a stage row.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "0 vocabulary",
        &["clock", "core_cell", "event", "fault", "limits", "secret", "reject", "metrics"],
    ),
    ("1 meaning without I/O", &["bus", "config", "http", "mcp"]),
    ("2 sockets", &["mapped", "net"]),
    ("3 judging, control plane", &["judge", "control"]),
    ("4 listener", &["listener"]),
    ("4 identity", &["identity"]),
    ("4 policy", &["policy"]),
    ("4 credential", &["credential"]),
    ("4 relay", &["relay"]),
    ("4 audit", &["audit"]),
    (
        "5 assembly",
        &["shard", "gateway", "worker", "supervisor", "admin", "devtoken", "demo", "cli", "manual"],
    ),
];

/// Within one row these may lean on each other.
const WITHIN: &[&str] = &[
    "0 vocabulary",
    "1 meaning without I/O",
    "2 sockets",
    "3 judging, control plane",
    "5 assembly",
];

const FILE_LINES_MAX: usize = 500;
const FILE_LINES_WITH_TESTS_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

#[test]
fn imports_run_downward_only() {
    let faults: Vec<String> =
        sources().iter().flat_map(|(path, text)| upward_imports(&module_of(path), text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_layer_test_catches_an_upward_import() {
    assert_eq!(upward_imports("http", "use crate::policy::Permit;").len(), 1);
    assert_eq!(upward_imports("credential", "use crate::{clock::Now, relay::Relay};").len(), 1);
    assert_eq!(upward_imports("relay", "use crate::credential::UpstreamCredential;").len(), 0);
}

#[test]
fn files_functions_and_lines_have_one_thought_each() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let (own, all) = (code.lines().count(), text.lines().count());
        let tests_only = path.file_name().is_some_and(|name| name == "tests.rs");
        if (own > FILE_LINES_MAX && !tests_only) || all > FILE_LINES_WITH_TESTS_MAX {
            faults.push(format!("{}: {own} lines of code, {all} in all", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > LINE_COLUMNS_MAX {
                faults.push(format!("{}:{}: longer than 100", path.display(), number + 1));
            }
        }
        for (name, length) in long_functions(code) {
            faults.push(format!("{}: fn {name} has {length} lines", path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_code_stands_in_one_file() {
    for (path, text) in sources() {
        let has = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        assert!(!has || path.ends_with("mapped.rs"), "{}: unsafe", path.display());
    }
}

#[test]
fn nothing_unfinished_is_left() {
    for (path, text) in sources() {
        for word in ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "TODO"] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

/// Secrets leave through one door, which opens in these files only.
#[test]
fn secrets_are_exposed_in_named_places() {
    let allowed = ["secret.rs", "credential/", "net/tls", "mcp/session", "shard.rs", "supervisor"];
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let shown = path.display().to_string();
        if code.contains(".expose()") && !shown.ends_with("tests.rs") {
            assert!(allowed.iter().any(|place| shown.contains(place)), "{shown}: expose()");
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the walk found the sources");
    found
}

fn walk(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn upward_imports(module: &str, text: &str) -> Vec<String> {
    let ranks: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(rank, (_, modules))| modules.iter().map(move |name| (*name, rank)))
        .collect();
    if module == "lib" || module == "main" {
        return Vec::new();
    }
    let Some(own) = ranks.get(module) else {
        return vec![format!("{module}: not in the layer table")];
    };
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut faults = Vec::new();
    for target in imported(code) {
        let Some(rank) = ranks.get(target.as_str()) else { continue };
        let within = WITHIN.contains(&LAYERS[*own].0);
        if target != module && (rank > own || (rank == own && !within)) {
            faults.push(format!("{module} imports {target}"));
        }
    }
    faults
}

/// Every `crate::x` and every member of `crate::{x, y}` outside comments.
fn imported(code: &str) -> Vec<String> {
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut names = Vec::new();
    for piece in code.split("crate::").skip(1) {
        if let Some(list) = piece.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(first_word(&std::mem::take(&mut word))),
                    letter => word.push(letter),
                }
            }
            names.push(first_word(&word));
        } else {
            names.push(first_word(piece));
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// Functions by indentation: rustfmt closes each at the column where it began.
fn long_functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let words = [
            "fn ",
            "pub fn ",
            "pub const fn ",
            "const fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) fn ",
            "pub(crate) fn ",
            "pub(super) async fn ",
            "pub(crate) async fn ",
        ];
        if !words.iter().any(|word| trimmed.starts_with(word)) {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == close).map_or(1, |end| end + 1);
        // Tables are data: a match from variant to value is read as a list.
        let table = ["status", "challenge", "json_rpc_code", "audit_code"];
        let name = first_word(trimmed.split("fn ").nth(1).unwrap_or_default());
        if length > FUNCTION_LINES_MAX && !table.contains(&name.as_str()) {
            found.push((name, length));
        }
    }
    found
}
