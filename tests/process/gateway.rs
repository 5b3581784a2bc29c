//! The real binary with a configuration of its own, watched from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use portcullis::clock::Clock;
use portcullis::devtoken;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::client::{Answer, Client};
use crate::wait::{DEADLINE, eventually};

/// What a gateway is started with; the fields are TOML that is put in its place.
pub(crate) struct Setup {
    /// Lines of `[listen]` besides the address.
    pub(crate) listen: String,
    pub(crate) address: String,
    /// Lines of `[cores]`, `[limits]` and `[audit]`.
    pub(crate) cores: String,
    pub(crate) limits: String,
    pub(crate) audit: String,
    pub(crate) public_url: String,
    /// Lines of the trust provider that say where its keys are.
    pub(crate) keys: String,
    /// Whole tables: servers and credentials.
    pub(crate) tables: String,
    pub(crate) policies: String,
    /// The program and arguments that start the gateway: a launcher with its own arguments.
    pub(crate) launcher: Vec<String>,
}

impl Setup {
    /// One server, `sample`, at `upstream` (plain HTTP on loopback), and everything is permitted.
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        Self::with_tables(&server("sample", &format!("http://{upstream}/mcp"), ""))
    }

    pub(crate) fn with_tables(tables: &str) -> Self {
        Self {
            listen: String::new(),
            address: "127.0.0.1:0".to_owned(),
            cores: String::new(),
            limits: String::new(),
            audit: "path = \"audit.jsonl\"".to_owned(),
            public_url: PUBLIC_URL.to_owned(),
            keys: "jwks_file = \"jwks.json\"".to_owned(),
            tables: tables.to_owned(),
            policies: PERMIT_ALL.to_owned(),
            launcher: Vec::new(),
        }
    }

    pub(crate) fn limits(mut self, lines: &str) -> Self {
        self.limits = lines.to_owned();
        self
    }

    pub(crate) fn cores(mut self, lines: &str) -> Self {
        self.cores = lines.to_owned();
        self
    }

    pub(crate) fn audit(mut self, lines: &str) -> Self {
        self.audit = lines.to_owned();
        self
    }

    pub(crate) fn policies(mut self, text: &str) -> Self {
        self.policies = text.to_owned();
        self
    }

    pub(crate) fn launcher(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The folder with everything; the gateway is not started.
    pub(crate) fn prepare(&self) -> Stage {
        let stage = Stage::new();
        stage.write("gateway.toml", &self.configuration());
        stage.write("policies/all.cedar", &self.policies);
        stage
    }

    pub(crate) fn configuration(&self) -> String {
        let Self { listen, address, cores, limits, audit, public_url, keys, tables, .. } = self;
        format!(
            r#"public_url = "{public_url}"
[listen]
address = "{address}"
{listen}
[cores]
{cores}
[limits]
{limits}
[audit]
{audit}
[admin]
address = "127.0.0.1:0"
[policy]
directory = "policies"
[[trust_provider]]
name = "test"
issuer = "{ISSUER}"
{keys}
algorithms = ["ES256"]
user_claim = "sub"
{tables}
"#
        )
    }

    pub(crate) fn start(&self) -> Gateway {
        self.start_on(self.prepare())
    }

    /// Starts on a folder that an earlier gateway may have left.
    pub(crate) fn start_on(&self, stage: Stage) -> Gateway {
        stage.write("gateway.toml", &self.configuration());
        Gateway::launch(self.command(&stage), stage)
    }

    /// Starts a gateway that must refuse: its exit code, and what it said.
    pub(crate) fn refused(&self) -> (i32, String) {
        let stage = self.prepare();
        let output = self.command(&stage).stdout(Stdio::null()).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap_or(-1), words)
    }

    fn command(&self, stage: &Stage) -> Command {
        let mut command = match self.launcher.split_first() {
            None => Command::new(BINARY),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(BINARY);
                command
            }
        };
        command.arg("gateway").arg("--config").arg(stage.path("gateway.toml"));
        command.stdin(Stdio::null());
        command
    }
}

/// A `[[server]]` table on loopback.
pub(crate) fn server(name: &str, url: &str, more: &str) -> String {
    format!(
        "[[server]]\nname = \"{name}\"\nurl = \"{url}\"\ntrust_private_addresses = true\n{more}\n"
    )
}

/// An `api_key` credential for `servers`, read from a file of the stage.
pub(crate) fn api_key(name: &str, servers: &str, place: &str, file: &str) -> String {
    format!(
        "[[credential]]\nname = \"{name}\"\nservers = {servers}\nkind = \"api_key\"\n{place}\n\
         secret = \"file:{file}\"\n"
    )
}

/// A folder of one test with keys, removed at the end.
pub(crate) struct Stage {
    folder: PathBuf,
}

impl Stage {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-process-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("policies")).unwrap();
        devtoken::init(&folder).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A token for `user`.
    pub(crate) fn token(&self, user: &str, seconds: u64) -> String {
        self.token_for(PUBLIC_URL, user, seconds)
    }

    /// A token for `user` and another audience.
    pub(crate) fn token_for(&self, audience: &str, user: &str, seconds: u64) -> String {
        let request = devtoken::Request {
            issuer: ISSUER.to_owned(),
            audiences: vec![audience.to_owned()],
            subject: user.to_owned(),
            claims: vec![("client_id".to_owned(), "test-agent".into())],
            expires_seconds: seconds,
        };
        let key = devtoken::read_key(&self.path("key.pem")).unwrap();
        devtoken::mint(&key, &request, Clock::start().now().wall.seconds()).unwrap()
    }

    /// The audit records so far. A last line without an end is still being written.
    pub(crate) fn audit(&self) -> Vec<Value> {
        records(&self.read("audit.jsonl"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

pub(crate) fn records(text: &str) -> Vec<Value> {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A running gateway. Dropping it kills it.
pub(crate) struct Gateway {
    /// Always there, until [`Gateway::abandon`] takes it.
    stage: Option<Stage>,
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Gateway {
    fn launch(mut command: Command, stage: Stage) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let listener = listen(child.stderr.take().unwrap(), &said);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gateway = Self {
            stage: Some(stage),
            child,
            address: nowhere,
            admin: nowhere,
            said,
            listener: Some(listener),
        };
        eventually("the gateway listens", || {
            assert!(gateway.child.try_wait().unwrap().is_none(), "ended: {}", gateway.said());
            gateway.said().contains("admin on http://")
        });
        let said = gateway.said();
        gateway.address = address_after(&said, "listening on ");
        gateway.admin = address_after(&said, "admin on ");
        gateway
    }

    pub(crate) fn stage(&self) -> &Stage {
        self.stage.as_ref().unwrap()
    }

    /// Everything on stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn wait_until_said(&self, words: &str) {
        eventually(words, || self.said().contains(words));
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Writes a file of the folder and has it read.
    pub(crate) fn reload(&self) {
        let before = self.said().matches(RELOADED).count() + self.said().matches(REFUSED).count();
        self.signal(Signal::HUP);
        eventually("the reload is over", || {
            let said = self.said();
            said.matches(RELOADED).count() + said.matches(REFUSED).count() > before
        });
    }

    /// The exit status, which must come.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        status.unwrap()
    }

    /// Asks for a drain and waits; what is left is the folder.
    pub(crate) fn stop(mut self) -> Stage {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.said());
        self.stage.take().unwrap()
    }

    /// Kills it; what is left is the folder.
    pub(crate) fn kill(mut self) -> Stage {
        self.child.kill().unwrap();
        self.wait();
        self.stage.take().unwrap()
    }

    /// A client with a good token for alice.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, &self.stage().token("alice", 600))
    }

    pub(crate) fn admin(&self, path: &str) -> Answer {
        crate::client::get(self.admin, path)
    }

    /// The value of one series, labels included in `name`; 0 while it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").text();
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until `count` records are in the audit file, and answers them.
    pub(crate) fn audited(&self, count: usize) -> Vec<Value> {
        eventually("audit records", || self.stage().audit().len() >= count);
        self.stage().audit()
    }

    /// Ready to serve: keys are there.
    pub(crate) fn wait_until_ready(&self) {
        eventually("readyz", || self.admin("/readyz").status == 200);
    }

    /// A file of the process in `/proc`.
    pub(crate) fn proc_file(&self, name: &str) -> String {
        let path = Path::new("/proc").join(self.child.id().to_string()).join(name);
        fs::read_to_string(path).unwrap()
    }

    /// CPU time used so far, in clock ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = self.proc_file("stat");
        let fields = stat.rsplit(") ").next().unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        // Fields 14 and 15 of proc(5); the first two are cut off.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("-- gateway --\n{}", self.said());
        }
        // Our own child, waited for only here or in `wait`: the id cannot be another's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stderr: ChildStderr, said: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        let mut reader = BufReader::new(stderr.take(SAID_BYTES_MAX));
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
            line.clear();
        }
    })
}

fn address_after(said: &str, words: &str) -> SocketAddr {
    let line = said.lines().find_map(|line| line.strip_prefix(words)).unwrap();
    let address = line.split("//").nth(1).unwrap().split(' ').next().unwrap();
    let _ = DEADLINE;
    address.parse().unwrap()
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
pub(crate) const PUBLIC_URL: &str = "http://gw.localhost";
pub(crate) const ISSUER: &str = "https://idp.test.example";
pub(crate) const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource);\n";
const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "reload refused";
const SAID_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A line of `[cores]`: one core, on the first CPU that this process may use.
pub(crate) fn one_cpu() -> String {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).unwrap();
    format!("cpus = \"{cpu}\"")
}
