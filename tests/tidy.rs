//! The style that a compiler cannot hold: layers, sizes, banned words, dead files, and the places
//! where secrets leave, sockets open and unsafe code stands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules in layers. A module imports only what stands in an earlier row.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "0 vocabulary",
        &[
            "address",
            "clock",
            "core_cell",
            "event",
            "fault",
            "limits",
            "lines",
            "secret",
            "reject",
            "metrics",
            "places",
        ],
    ),
    ("1 meaning without I/O", &["bus", "config", "geo", "http", "mcp"]),
    ("2 sockets", &["mapped", "net"]),
    ("3 judging, control plane", &["judge", "control"]),
    ("4 listener", &["listener"]),
    ("4 identity", &["identity"]),
    ("4 policy", &["policy"]),
    ("4 quota", &["quota"]),
    ("4 credential", &["credential"]),
    ("4 relay", &["relay"]),
    ("4 audit", &["audit"]),
    (
        "5 assembly",
        &[
            "ablation",
            "world",
            "hub",
            "mail",
            "shard",
            "gateway",
            "worker",
            "supervisor",
            "admin",
            "authoring",
            "devtoken",
            "demo",
            "cli",
            "manual",
            "forgery",
        ],
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

/// Calls of `Secret::expose`, by file: a new one is a decision, not an accident.
const EXPOSED: &[(&str, usize)] = &[
    ("config/certified.rs", 1),    // a private key, into what signs with it
    ("config/check/server.rs", 1), // may it stand in a header
    ("config/check/state.rs", 1),  // is a session key 32 bytes
    ("config/source.rs", 1),       // may it stand in a header
    ("credential/upstream.rs", 4), // checked, written into a header or a query, looked for
    ("net/ask.rs", 1),             // written once, into Authorization
    ("supervisor/assemble.rs", 1), // the session keys, into their derivation
];

/// Where an event loop, and with it a socket, may be touched.
const SOCKETS: &[&str] = &[
    "net/",
    "supervisor/control.rs",
    "supervisor/reload.rs",
    "worker.rs",
    "mapped.rs", // names the type of a stream, whose descriptor it borrows
];

/// Where unsafe code stands; in tests and benches only an allocator that counts.
const UNSAFE: &[&str] = &["src/mapped.rs", "tests/alloc_", "benches/support/counting.rs"];

const FILE_LINES_MAX: usize = 500;
const FILE_LINES_WITH_TESTS_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
/// Tests are mostly tables.
const TEST_FUNCTION_LINES_MAX: usize = 120;
const LINE_COLUMNS_MAX: usize = 100;

#[test]
fn imports_run_downward_only() {
    let faults: Vec<String> = sources("src")
        .iter()
        .filter(|source| !source.is_test())
        .flat_map(|source| {
            let code = without_tests(&source.text);
            upward_imports(&source.module(), source.depth(), &code)
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_layer_test_catches_an_upward_import() {
    assert_eq!(upward_imports("http", 1, "use crate::policy::Permit;").len(), 1);
    assert_eq!(upward_imports("credential", 1, "use crate::{clock::Now, relay::Relay};").len(), 1);
    assert_eq!(upward_imports("relay", 1, "use crate::credential::UpstreamCredential;").len(), 0);
    assert_eq!(upward_imports("http", 1, "use super::policy::Permit;").len(), 1);
    assert_eq!(upward_imports("http", 2, "use super::policy;").len(), 0);
    assert_eq!(upward_imports("http", 2, "use super::super::policy;").len(), 1);
    assert_eq!(upward_imports("stranger", 1, "").len(), 1);
}

#[test]
fn files_functions_and_lines_have_one_thought_each() {
    let mut faults = Vec::new();
    for source in everything() {
        let code = without_tests(&source.text);
        let (own, all) = (code.lines().count(), source.text.lines().count());
        if (own > FILE_LINES_MAX && !source.is_test()) || all > FILE_LINES_WITH_TESTS_MAX {
            faults.push(format!("{}: {own} lines of code, {all} in all", source.name));
        }
        for (number, line) in source.text.lines().enumerate() {
            // A test's message on the wire is read in one line.
            let data = source.is_test() && line.contains('"');
            let link = line.contains("https://");
            if line.chars().count() > LINE_COLUMNS_MAX && !data && !link {
                faults.push(format!("{}:{}: longer than 100", source.name, number + 1));
            }
        }
        let limit = if source.is_test() { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
        for (name, length) in long_functions(&code, limit) {
            faults.push(format!("{}: fn {name} has {length} lines", source.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_size_test_sees_behind_a_test_module_and_through_visibilities() {
    let long = format!("pub(in crate::x) async fn long() {{\n{}}}\n", "    1;\n".repeat(80));
    let text = format!("#[cfg(test)]\nmod tests;\n{long}#[cfg(test)]\nmod more {{\n    x\n}}\n");
    let code = without_tests(&text);
    assert_eq!(long_functions(&code, FUNCTION_LINES_MAX), [("long".to_owned(), 82)]);
    assert!(!code.contains("mod tests") && !code.contains("mod more"), "{code}");
}

#[test]
fn unsafe_code_stands_where_it_is_named() {
    for source in everything() {
        let has = code_lines(&source.text).any(|code| {
            ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]
                .iter()
                .any(|word| code.contains(word))
        });
        let named = UNSAFE.iter().any(|place| source.name.starts_with(place));
        assert!(!has || named || source.name == "tests/tidy.rs", "{}: unsafe", source.name);
    }
}

#[test]
fn sockets_are_opened_in_named_places() {
    for source in sources("src") {
        let inside = source.name.trim_start_matches("src/").to_owned();
        let has = code_lines(&without_tests(&source.text)).any(|code| code.contains("monoio"));
        let named = SOCKETS.iter().any(|place| inside.starts_with(place));
        assert!(!has || named || source.is_test(), "{}: monoio", source.name);
    }
}

/// Secrets leave through one door, which opens in these files only, and so many times.
#[test]
fn secrets_are_exposed_in_named_places() {
    let mut found = BTreeMap::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        let code = without_tests(&source.text);
        // A random number of ring's has a door of the same name.
        let calls = code_lines(&code).map(|line| line.matches("expose()").count()).sum::<usize>();
        let random = code_lines(&code).map(|line| line.matches("bytes.expose())").count());
        let random = if source.name == "src/audit/writer.rs" { random.sum() } else { 0 };
        if calls > random {
            found.insert(source.name.trim_start_matches("src/").to_owned(), calls - random);
        }
    }
    let expected: BTreeMap<String, usize> =
        EXPOSED.iter().map(|(file, calls)| ((*file).to_owned(), *calls)).collect();
    assert_eq!(found, expected);
}

#[test]
fn nothing_unfinished_is_left() {
    for source in everything().iter().filter(|source| source.name != "tests/tidy.rs") {
        for word in ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "TODO"] {
            assert!(!source.text.contains(word), "{}: {word}", source.name);
        }
    }
}

/// A file that no `mod` names is never compiled, and so is no test of it.
#[test]
fn every_file_belongs_to_a_module() {
    let all = sources("src");
    for source in &all {
        let path = Path::new(&source.name);
        let stem = path.file_stem().unwrap().to_string_lossy();
        let folder = path.parent().unwrap();
        let (name, home) = match &*stem {
            "lib" | "main" => continue,
            "mod" => (folder.file_name().unwrap().to_string_lossy(), folder.parent().unwrap()),
            _ => (stem, folder),
        };
        let declared = all.iter().any(|other| {
            let path = Path::new(&other.name);
            let owner = path == home.join("mod.rs")
                || path == home.join("lib.rs")
                || path == home.with_extension("rs");
            owner && other.text.contains(&format!("mod {name};"))
        });
        assert!(declared, "{}: no module declares it", source.name);
    }
}

/// What only one machine has is of no use to a reader.
#[test]
fn no_machine_paths_are_left() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in ["src", "tests", "benches", "conf", "systemd", "perf", ".ci"] {
        walk(&root.join(place), &mut files);
    }
    for file in ["README.md", "CHANGELOG.md", "Cargo.toml", "deny.toml"] {
        files.push(root.join(file));
    }
    let home = ["/wo", "rk/"].concat();
    for path in files {
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains(&home), "{}: a path of one machine", path.display());
    }
}

struct Source {
    /// From the root of the package.
    name: String,
    text: String,
}

impl Source {
    /// A test by itself, whatever it is called.
    fn is_test(&self) -> bool {
        let inside = self.name.strip_prefix("src/");
        inside.is_none_or(|path| {
            path.contains("/tests/")
                || path.rsplit('/').next().is_some_and(|file| file.starts_with("tests"))
                || path == "judge/testing.rs"
        })
    }

    /// The module of the first level.
    fn module(&self) -> String {
        let inside = self.name.trim_start_matches("src/");
        inside.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
    }

    /// 1 for a module of the first level.
    fn depth(&self) -> usize {
        let inside = self.name.trim_start_matches("src/").trim_end_matches("/mod.rs");
        inside.split('/').count()
    }
}

fn everything() -> Vec<Source> {
    ["src", "tests", "benches"].iter().flat_map(|folder| sources(folder)).collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join(folder), &mut paths);
    let rust = |path: &PathBuf| path.extension().is_some_and(|end| end == "rs");
    let found: Vec<Source> = paths
        .into_iter()
        .filter(rust)
        .map(|path| Source {
            name: path.strip_prefix(root).unwrap().to_string_lossy().into_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect();
    assert!(!found.is_empty(), "the walk found the sources of {folder}");
    found
}

/// Every file under `directory`; nothing when there is no such folder.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.ends_with("target") {
            continue; // what cargo built, not what we wrote
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The text without the items that only tests are built with. An item ends where its line ends with
/// a semicolon, or where rustfmt closes it: at the column where it began.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() != "#[cfg(test)]" {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        for line in lines.by_ref() {
            let attribute = line.trim_start().starts_with("#[");
            if line == close || (!attribute && line.ends_with(';') && !line.starts_with("  ")) {
                break;
            }
        }
    }
    kept
}

/// Lines without comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

fn upward_imports(module: &str, depth: usize, code: &str) -> Vec<String> {
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
    let mut faults = Vec::new();
    for target in imported(depth, code) {
        let Some(rank) = ranks.get(target.as_str()) else { continue };
        let within = WITHIN.contains(&LAYERS[*own].0);
        if target != module && (rank > own || (rank == own && !within)) {
            faults.push(format!("{module} imports {target}"));
        }
    }
    faults
}

/// Every `crate::x` and every member of `crate::{x, y}` outside comments, and the same of a chain
/// of `super::` that is long enough to be the crate.
fn imported(depth: usize, code: &str) -> Vec<String> {
    let code = code_lines(code).collect::<Vec<_>>().join("\n");
    let root = "super::".repeat(depth);
    let mut names = Vec::new();
    for piece in code.split("crate::").skip(1).chain(code.split(&root).skip(1)) {
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
fn long_functions(code: &str, limit: usize) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let Some(name) = function_name(trimmed) else { continue };
        let close = format!("{}}}", " ".repeat(line.len() - trimmed.len()));
        let length = lines[start..].iter().position(|line| *line == close).map_or(1, |end| end + 1);
        // Tables are data: a match from variant to value is read as a list.
        let table = ["status", "challenge", "json_rpc_code", "audit_code"];
        if length > limit && !table.contains(&name.as_str()) {
            found.push((name, length));
        }
    }
    found
}

/// The name, when the line begins a function of any visibility.
fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let words = before.replace("pub(in ", "pub(");
    let begins = words.split_whitespace().all(|word| {
        ["const", "async", "unsafe", "extern"].contains(&word) || word.starts_with("pub")
    });
    begins.then(|| first_word(after))
}
