//! Children of the tests: started with a deadline, ended by their own id when the guard is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

/// How long a server may take to come up, and a child to do what it was told. Generous: the machine
/// may be loaded.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running server and the lines it prints.
pub(crate) struct Running {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts `command`; its stdout is read line by line, its stderr goes to `<log>/<name>.log`.
    pub(crate) fn start(name: &str, log: &Path, command: &mut Command) -> Running {
        let stderr = File::create(log.join(format!("{name}.log"))).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let lines = lines_of(child.stdout.take().unwrap(), None);
        Running { name: name.to_owned(), child, lines }
    }

    /// As `start`, but the lines come from stderr; they go to the log as well.
    pub(crate) fn start_on_stderr(name: &str, log: &Path, command: &mut Command) -> Running {
        let log = File::create(log.join(format!("{name}.log"))).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let lines = lines_of(child.stderr.take().unwrap(), Some(log));
        Running { name: name.to_owned(), child, lines }
    }

    /// The rest of the first line that starts with `prefix`.
    pub(crate) fn wait_for(&mut self, prefix: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(prefix) {
                    Some(rest) => return rest.trim().to_owned(),
                    None => eprintln!("{}: {line}", self.name),
                },
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: no line `{prefix}…` in time", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{}: ended before `{prefix}…`: {:?}", self.name, self.child.wait())
                }
            }
        }
    }

    /// The port of a script's `ready PORT`.
    pub(crate) fn port(&mut self) -> u16 {
        self.wait_for("ready ").parse().unwrap()
    }

    /// Writes one line to the child's stdin.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks for an orderly end (SIGTERM) and waits for it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait(&mut self.child, DEADLINE).unwrap_or_else(|| panic!("{}: did not end", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is fine; it is our own child, so the id cannot have been given to another.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a child that runs to its end printed.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end, which must come within `limit`.
pub(crate) fn finish(name: &str, limit: Duration, command: &mut Command) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let stdout = text_of(child.stdout.take().unwrap());
    let stderr = text_of(child.stderr.take().unwrap());
    let Some(status) = wait(&mut child, limit) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{name}: still running after {limit:?}: {}", stderr.join().unwrap());
    };
    Finished { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Asks again and again until `condition` answers, at most until the deadline.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(POLL);
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(POLL);
    }
    None
}

fn lines_of(from: impl Read + Send + 'static, mut log: Option<File>) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Some(log) = &mut log {
                let _ = writeln!(log, "{line}");
            }
            // The guard may be gone already; draining goes on so that the child never blocks on a
            // full pipe.
            let _ = send.send(line);
        }
    });
    receive
}

fn text_of(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

const POLL: Duration = Duration::from_millis(20);
