//! The real binary as a child process, with everything around it that it needs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{self, Answer, ask, get};
use super::setup::{self, Ports};
use super::table::Post;
use super::token::Keys;
use super::upstream::Upstream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Ring,
    Epoll,
}

pub(crate) const DRIVERS: [Driver; 2] = [Driver::Ring, Driver::Epoll];

impl Driver {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

pub(crate) struct Gateway {
    pub(crate) driver: Driver,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) directory: PathBuf,
    pub(crate) upstream: Upstream,
    pub(crate) keys: Arc<Keys>,
    pub(crate) key_server: KeyServer,
    child: Mutex<Child>,
    stderr: Arc<Mutex<String>>,
    turn: Mutex<()>,
}

/// A turn alone with the gateway: what is counted meanwhile is this test's doing.
///
/// Connections that this thread makes meanwhile come from an address of the turn's own, by which
/// its records are told from all others, whenever they are written.
pub(crate) struct Turn<'a> {
    _alone: MutexGuard<'a, ()>,
    source: Ipv4Addr,
}

impl Gateway {
    /// The gateway that all tests of a driver share; it ends with the last of them.
    pub(crate) fn shared(driver: Driver) -> Arc<Self> {
        static SHARED: [Mutex<Weak<Gateway>>; 2] = [const { Mutex::new(Weak::new()) }; 2];
        let place = &SHARED[usize::from(driver == Driver::Epoll)];
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gateway) = place.upgrade() {
            return gateway;
        }
        let gateway = Arc::new(Self::start(driver, ""));
        *place = Arc::downgrade(&gateway);
        gateway
    }

    /// A gateway of one's own; `more` is appended to the configuration.
    pub(crate) fn start(driver: Driver, more: &str) -> Self {
        let gateway = Self::start_with(driver, more, |_| {});
        // Keys come a moment after the sockets; until then everything is refused with 503.
        let good = Post::new(&gateway).bytes();
        until("the first answer", || gateway.ask(&good).status == 200);
        gateway
    }

    pub(crate) fn start_with(
        driver: Driver,
        more: &str,
        prepare: impl FnOnce(&std::path::Path),
    ) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-black-box-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let keys = Arc::new(Keys::new());
        let upstream = Upstream::start();
        let key_server = KeyServer::start(keys.small_jwks().to_string());
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ports = Ports { upstream: &upstream, keys: key_server.port, closed };
        setup::write(&directory, driver, &keys, &ports, more);
        prepare(&directory);
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["gateway", "--config"])
            .arg(directory.join("gateway.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut said = |prefix: &str| loop {
            let line = lines.next().and_then(Result::ok);
            let line = line.unwrap_or_else(|| panic!("ended early: {}", stderr.lock().unwrap()));
            *stderr.lock().unwrap() += &format!("{line}\n");
            if let Some(rest) = line.strip_prefix(prefix) {
                break rest.split([' ', '/']).next().unwrap().parse().unwrap();
            }
        };
        let scheme = if more.contains("[listen.tls]") { "https" } else { "http" };
        let address = said(&format!("listening on {scheme}://"));
        let admin = said("admin on http://");
        let log = Arc::clone(&stderr);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *log.lock().unwrap() += &format!("{line}\n");
            }
        });
        // Credentials are read again from their source; this one is gone when it is needed.
        let _ = fs::remove_file(directory.join("vanishing.key"));
        let child = Mutex::new(child);
        let turn = Mutex::new(());
        Self { driver, address, admin, directory, upstream, keys, key_server, child, stderr, turn }
    }

    pub(crate) fn turn(&self) -> Turn<'_> {
        let alone = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The first of them is 127.1.0.1; there are more than a run needs.
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
        client::come_from(source);
        Turn { _alone: alone, source }
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub(crate) fn running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut code = None;
        until("the process ends", || {
            code = self.child.lock().unwrap().try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }

    pub(crate) fn ask(&self, request: &[u8]) -> Answer {
        ask(self.address, request)
    }

    pub(crate) fn page(&self, path: &str) -> Answer {
        get(self.admin, path)
    }

    /// What anybody could read besides answers.
    pub(crate) fn everything_written(&self) -> String {
        let mut all = self.audit_text() + &self.stderr();
        for path in ["/metrics", "/status", "/livez", "/readyz"] {
            all += &String::from_utf8(self.page(path).body).unwrap();
        }
        all
    }

    pub(crate) fn audit_text(&self) -> String {
        fs::read_to_string(self.directory.join("audit.jsonl")).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Turn<'_> {
    /// The records of this turn in the order of their requests, once there are `count`.
    pub(crate) fn records(&self, gateway: &Gateway, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        until("audit records", || {
            found = self.written(gateway);
            found.retain(|record| record["outcome"] != "opened");
            found.len() >= count
        });
        found.sort_by_key(|record| record["time"].as_str().unwrap().to_owned());
        assert_eq!(found.len(), count, "exactly one record per request: {found:#?}");
        found
    }

    /// How many requests of this turn were permitted, as far as written.
    pub(crate) fn permits(&self, gateway: &Gateway) -> usize {
        let records = self.written(gateway);
        records.iter().filter(|record| record["decision"] == "permit").count()
    }

    /// Those that are written by now, in the order of the file.
    pub(crate) fn so_far(&self, gateway: &Gateway) -> Vec<Value> {
        self.written(gateway)
    }

    fn written(&self, gateway: &Gateway) -> Vec<Value> {
        let text = gateway.audit_text();
        // Only whole lines: the last one may still be under way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let source = self.source.to_string();
        let records = whole.lines().map(serde_json::from_str::<Value>);
        records
            .map(|record| record.expect("a record is JSON"))
            .filter(|record| record["source_ip"] == source)
            .collect()
    }

    /// The reasons of those records.
    pub(crate) fn reasons(&self, gateway: &Gateway, count: usize) -> Vec<String> {
        let records = self.records(gateway, count);
        records.iter().map(|record| record["reason"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        client::come_from(Ipv4Addr::LOCALHOST);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Waits for a condition, never for a time. Fails after 30 s: the machine may be loaded.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A line of `[cores]`: one core, on the first CPU that this process may use.
pub(crate) fn one_cpu() -> String {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).unwrap();
    format!("cpus = \"{cpu}\"")
}

/// Serves a key set over HTTP and counts who asks.
pub(crate) struct KeyServer {
    pub(crate) port: u16,
    pub(crate) fetches: Arc<AtomicUsize>,
    pub(crate) document: Arc<Mutex<String>>,
    /// Accepts and never answers.
    pub(crate) silent: Arc<AtomicBool>,
}

impl KeyServer {
    pub(crate) fn start(document: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fetches = Arc::new(AtomicUsize::new(0));
        let document = Arc::new(Mutex::new(document));
        let silent = Arc::new(AtomicBool::new(false));
        let (counter, text) = (Arc::clone(&fetches), Arc::clone(&document));
        let mute = Arc::clone(&silent);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for mut socket in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::SeqCst);
                if mute.load(Ordering::SeqCst) {
                    held.push(socket);
                    continue;
                }
                let mut buffer = [0; 4096];
                let _ = socket.read(&mut buffer);
                let body = text.lock().unwrap().clone();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { port, fetches, document, silent }
    }

    pub(crate) fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}
