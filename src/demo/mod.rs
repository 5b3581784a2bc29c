//! One command that shows what the gateway does, offline and without root.
//!
//! It starts a sample MCP server and `portcullis gateway` itself, as a child process with a written
//! configuration: the same code path as production.

mod client;
mod server;

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clock::{Clock, UnixSeconds};
use crate::devtoken;
use client::{Answer, Client};

/// Runs the demonstration. With `once` it ends after the last step, else it stays for others.
#[must_use]
pub fn run(once: bool) -> ExitCode {
    match play(once) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print(&format!("the demo could not run: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn play(once: bool) -> io::Result<bool> {
    let stage = Stage::prepare()?;
    let mut gateway = Gateway::start(&stage)?;
    let sound = steps(&stage, &gateway)?;
    if once {
        gateway.stop()?;
        let kept = show_audit(&stage)?;
        fs::remove_dir_all(&stage.directory)?;
        return Ok(sound && kept);
    }
    show_audit(&stage)?;
    print(&format!(
        "\nThe gateway keeps running. Point an MCP client at it:\n  \
         URL            http://{}/mcp/sample\n  \
         Authorization  Bearer {}\n  \
         files          {}\nCtrl-C ends it.",
        gateway.address,
        stage.token("alice", 86_400)?,
        stage.directory.display(),
    ));
    gateway.child.wait()?;
    Ok(sound)
}

/// The steps on screen. True when each went as it must.
fn steps(stage: &Stage, gateway: &Gateway) -> io::Result<bool> {
    let alice = stage.token("alice", 600)?;
    let mallory = stage.token("mallory", 600)?;
    let known = Client { gateway: gateway.address, token: Some(&alice) };
    let stranger = Client { gateway: gateway.address, token: None };
    let unwanted = Client { gateway: gateway.address, token: Some(&mallory) };

    print("\n1. alice calls a tool that policy permits; the gateway adds the server's API key:");
    let answer = known.call_tool("echo", "hello through the gate")?;
    let mut sound =
        show(&answer, answer.status == 200 && text(&answer) == "hello through the gate");

    print("\n2. alice calls a tool that policy forbids; the server never hears of it:");
    let answer = known.call_tool("delete_everything", "")?;
    let code = answer.body.pointer("/error/code").and_then(Value::as_i64);
    sound &= show(&answer, answer.status == 200 && code == Some(1403));

    print("\n3. a stranger without a token:");
    let answer = stranger.call_tool("echo", "let me in")?;
    sound &= show(&answer, answer.status == 401);

    print("\n4. mallory, with a valid token but no permit:");
    let answer = unwanted.call_tool("echo", "let me in")?;
    sound &= show(&answer, answer.status == 403);
    Ok(sound)
}

fn show(answer: &Answer, sound: bool) -> bool {
    print(&format!("   {} {}", answer.status, answer.body));
    if !sound {
        print("   ^ this is not what must come back");
    }
    sound
}

fn text(answer: &Answer) -> &str {
    answer.body.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default()
}

/// Prints the audit file; true when it holds a record of each step.
fn show_audit(stage: &Stage) -> io::Result<bool> {
    let path = stage.directory.join("audit.jsonl");
    let clock = Clock::start();
    let lines = loop {
        let lines = fs::read_to_string(&path).unwrap_or_default();
        let enough = lines.lines().count() >= STEPS;
        if enough || clock.monotonic().0 > AUDIT_WITHIN.as_micros() as u64 {
            break lines;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    print("\n5. what the audit file says (decision, who, what, why):");
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line)?;
        let mut shown = String::from("  ");
        for key in ["decision", "reason", "user", "agent", "server", "method", "name", "policy"] {
            if let Some(value) = record.get(key) {
                let _ = write!(shown, " {key}={value}");
            }
        }
        print(&shown);
    }
    Ok(lines.lines().count() == STEPS)
}

/// A folder with everything that the gateway reads.
struct Stage {
    directory: PathBuf,
    started: UnixSeconds,
}

impl Stage {
    fn prepare() -> io::Result<Self> {
        let started = Clock::start().now().wall;
        let name = format!("portcullis-demo-{}-{}", std::process::id(), started.0);
        let directory = std::env::temp_dir().join(name);
        // It holds keys, and the folder for temporary files is everybody's.
        DirBuilder::new().mode(0o700).create(&directory)?;
        fs::create_dir(directory.join("policies"))?;
        let stage = Self { directory, started: started.seconds() };
        devtoken::init(&stage.directory).map_err(io::Error::other)?;
        stage.write("upstream.key", server::API_KEY)?;
        stage.write("policies/demo.cedar", POLICY)?;
        let upstream = server::start()?;
        stage.write("gateway.toml", &configuration(upstream))?;
        print(&format!("sample MCP server on http://{upstream}/mcp"));
        Ok(stage)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.directory.join(name), text)
    }

    fn token(&self, user: &str, seconds: u64) -> io::Result<String> {
        let request = devtoken::Request {
            issuer: ISSUER.to_owned(),
            audiences: vec![PUBLIC_URL.to_owned()],
            subject: user.to_owned(),
            claims: vec![("client_id".to_owned(), "demo-agent".into())],
            expires_seconds: seconds,
        };
        let key = devtoken::read_key(&self.directory.join("key.pem")).map_err(io::Error::other)?;
        devtoken::mint(&key, &request, self.started).map_err(io::Error::other)
    }
}

/// The child process.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(stage: &Stage) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([Path::new("gateway"), Path::new("--config")])
            .arg(stage.directory.join("gateway.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let address = wait_until_listening(stderr)?;
        Ok(Self { child, address })
    }

    /// Asks for a drain, which writes every audit record, and waits for the end.
    fn stop(&mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Gateway {
    /// Whatever went wrong, the child does not stay behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes the gateway's own words on and finds its address in them.
fn wait_until_listening(stderr: ChildStderr) -> io::Result<SocketAddr> {
    let mut lines = BufReader::new(stderr).lines();
    let mut address = None;
    for line in lines.by_ref() {
        let line = line?;
        print(&format!("gateway: {line}"));
        if let Some(rest) = line.strip_prefix("listening on http://") {
            address = rest.split(' ').next().and_then(|address| address.parse().ok());
        }
        if line.starts_with("admin on ") {
            break;
        }
    }
    std::thread::Builder::new().name("demo-stderr".to_owned()).spawn(move || {
        lines.map_while(Result::ok).for_each(|line| print(&format!("gateway: {line}")));
    })?;
    address.ok_or_else(|| io::Error::other("the gateway did not start"))
}

fn configuration(upstream: SocketAddr) -> String {
    format!(
        r#"public_url = "{PUBLIC_URL}"

[listen]
address = "127.0.0.1:0"

[[trust_provider]]
name = "demo"
issuer = "{ISSUER}"
jwks_file = "jwks.json"
algorithms = ["ES256"]
user_claim = "sub"

[[server]]
name = "sample"
url = "http://{upstream}/mcp"
credential = "sample-key"
trust_private_addresses = true

[[credential]]
name = "sample-key"
kind = "api_key"
header = "X-Api-Key"
secret = "file:upstream.key"

[policy]
directory = "policies"

[audit]
path = "audit.jsonl"

[admin]
address = "127.0.0.1:0"
"#
    )
}

fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

const PUBLIC_URL: &str = "http://portcullis.localhost";
const ISSUER: &str = "https://idp.demo.example";
const STEPS: usize = 4;
const AUDIT_WITHIN: Duration = Duration::from_secs(5);
const POLICY: &str = r#"@id("alice-may-connect")
permit (principal == User::"alice", action == Action::"connect", resource);

@id("alice-uses-the-sample")
permit (principal == User::"alice", action, resource in Server::"sample");

@id("nothing-is-deleted")
forbid (principal, action == Action::"tools/call", resource == Tool::"sample/delete_everything");
"#;
