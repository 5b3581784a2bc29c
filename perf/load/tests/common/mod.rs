//! Processes, folders and scripted servers for the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // as in any test

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// The binary with these arguments.
pub(crate) fn load(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a subcommand that must succeed writes.
pub(crate) fn ask(arguments: &[&str]) -> String {
    let output = load(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// The report of a run of one second.
pub(crate) fn run(target: &str, arguments: &[&str]) -> Value {
    let fixed = ["run", "--target", target, "--seconds", "1", "--warm", "0"];
    serde_json::from_str(&ask(&[&fixed, arguments].concat())).unwrap()
}

/// `load upstream`, ended by the end of its standard input.
pub(crate) struct Upstream {
    pub(crate) address: String,
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Upstream {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut process = load(&[&["upstream", "--listen", "127.0.0.1:0"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("LISTENING ").unwrap().to_owned();
        Self { address, process, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it and gives what it counted.
    pub(crate) fn finish(mut self) -> Value {
        drop(self.process.stdin.take());
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(self.process.wait().unwrap().success());
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It may have ended before; then there is nothing to wait for.
        _ = self.process.wait();
    }
}

/// A server that answers what a test says, one thread per connection; it lives as long as the
/// test's process.
pub(crate) struct Scripted {
    pub(crate) address: String,
}

impl Scripted {
    /// Numbers of requests: this times the connection's, plus the request's on that connection.
    pub(crate) const PER_CONNECTION: u64 = 1 << 32;

    /// `answer` gets the number and the id of a request; "END" at the end of an answer closes the
    /// connection.
    pub(crate) fn start(answer: impl Fn(u64, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answer, connections) = (Arc::new(answer), AtomicU64::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                let first = connections.fetch_add(1, Ordering::Relaxed) * Self::PER_CONNECTION;
                std::thread::spawn(move || converse(stream, first, &*answer));
            }
        });
        Self { address }
    }
}

fn converse(mut stream: TcpStream, mut number: u64, answer: &dyn Fn(u64, &str) -> String) {
    stream.set_nodelay(true).unwrap();
    let (mut inbox, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        inbox.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&inbox).into_owned();
        // Requests of the generator end with their id.
        let Some((_, id)) = text.rsplit_once("\"id\":").filter(|(_, id)| id.ends_with('}')) else {
            continue;
        };
        inbox.clear();
        let bytes = answer(number, id.trim_end_matches('}'));
        let (bytes, close) = match bytes.strip_suffix("END") {
            Some(bytes) => (bytes, true),
            None => (bytes.as_str(), false),
        };
        if stream.write_all(bytes.as_bytes()).is_err() || close {
            return;
        }
        number += 1;
    }
}

/// A 200 with this JSON.
pub(crate) fn http_answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A folder of one test, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("load-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Makes a key with openssl; gives its public part as DER (PKCS#1 of an RSA key).
    pub(crate) fn openssl_key(&self, name: &str, algorithm: &[&str]) -> Vec<u8> {
        let path = self.path(name);
        let made = Command::new("openssl")
            .args(["genpkey", "-out", &path, "-algorithm"])
            .args(algorithm)
            .stderr(Stdio::null())
            .status()
            .expect("openssl makes the RSA key of this test: install it");
        assert!(made.success());
        let public = Command::new("openssl")
            .args(["rsa", "-in", &path, "-RSAPublicKey_out", "-outform", "DER"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(public.status.success());
        public.stdout
    }

    /// Writes cert.pem and key.pem for portcullis.localhost; the certificate is its own authority.
    pub(crate) fn certificate(&self) {
        let names = vec!["portcullis.localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(self.path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}
