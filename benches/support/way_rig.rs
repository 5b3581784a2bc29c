//! A gateway's core as it runs, with one agent and one server that are scripts.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use portcullis::audit::Writer;
use portcullis::bus::{self, Outbox};
use portcullis::clock::{Clock, Monotonic};
use portcullis::config::{Config, ProcessEnvironment};
use portcullis::control::jwks::{Fetched, Next, ProviderKeys, Refresher};
use portcullis::control::{Ask, Asker, Slot, Snapshot, Upstream};
use portcullis::devtoken::{self, Request, SigningKey};
use portcullis::gateway::whole_way::WholeWay;
use portcullis::judge::policy::{CredentialScope, PolicySet, Setting};
use portcullis::mcp::seal::Keyring;
use portcullis::metrics::{Counters, Meter};
use portcullis::net::Timers;
use portcullis::quota::Exact;
use portcullis::shard::{Parts, Shard};

/// One core, its audit writer, and the ends of its channels.
pub(crate) struct Rig {
    way: WholeWay,
    directory: PathBuf,
    writer: Writer,
    counters: Arc<Counters>,
    turns: u64,
    _control: (Outbox, Receiver<Ask>, [UnixStream; 2]),
}

impl Rig {
    /// Shows the agent's token to `see`.
    pub(crate) fn new(see: impl FnOnce(&str)) -> Self {
        let directory = std::env::temp_dir().join(format!("portcullis-way-{}", std::process::id()));
        fs::create_dir_all(directory.join("policies")).unwrap();
        devtoken::init(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("upstream.key", "bench-key-0123456789abcdef0123456789abcdef");
        write("policies/bench.cedar", POLICY);
        let config = Config::parse(CONFIG, &directory.join("gateway.toml"), &ProcessEnvironment);
        let config = config.unwrap();
        let clock = Clock::start();
        let mut audit = Writer::start(&config.audit, &[0], clock).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let (ask_near, ask_far) = UnixStream::pair().unwrap();
        let (asks_in, asks) = mpsc::channel();
        let (outbox, mut inboxes) = bus::channels(vec![near]);
        let key = devtoken::read_key(&directory.join("key.pem")).unwrap();
        let meter = Meter::new(0);
        let counters = meter.share();
        let parts = Parts {
            core: 0,
            clock,
            slot: Slot::new(Arc::new(snapshot(config, &key))),
            audit: audit.rings.pop().unwrap(),
            meter,
            exact: Exact::of(&[]),
            inbox: inboxes.pop().unwrap(),
            asker: Asker::new(asks_in, ask_near),
            mail: Vec::new(),
        };
        let shard = Shard::new(parts, Timers::new(clock));
        let token = mint(&key, clock);
        see(&token);
        let way = WholeWay::new(shard, request(&token), answer(), 0, Some(0));
        let control = (outbox, asks, [far, ask_far]);
        let writer = audit.writer;
        Self { way, directory, writer, counters, turns: 0, _control: control }
    }

    /// One request, all the way.
    pub(crate) fn turn(&mut self) {
        self.turns += 1;
        assert!(self.way.turn(), "a turn that waits or ends the connection");
    }

    /// Lets the writer empty the ring, and drops what it wrote. Not part of any time: how fast
    /// lines are written is not the way's affair, but a full ring would refuse requests.
    pub(crate) fn drain(&self) {
        while self.writer.counts().written < self.turns {
            std::thread::park_timeout(Duration::from_micros(200));
        }
        assert_eq!(self.writer.counts().dropped, 0);
        let file = File::options().write(true).open(self.directory.join("audit.jsonl")).unwrap();
        file.set_len(0).unwrap();
    }

    /// Every turn was a permitted call that the server answered, or the figures mean nothing.
    pub(crate) fn check(self) {
        self.drain();
        let seen: Vec<_> =
            self.counters.requests().map(|(label, count)| (label.status, count)).collect();
        assert_eq!(seen, [(200, self.turns)]);
        assert!(self.writer.shutdown(Duration::from_secs(10)));
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn snapshot(config: Config, key: &SigningKey) -> Snapshot {
    let setting = Setting {
        epoch: 1,
        servers: &["github"],
        credentials: &[CredentialScope { name: "github-key", servers: &[0] }],
        methods: &[],
        timezone: &config.policy.timezone,
        geoip: false,
    };
    let policy = PolicySet::load(&config.policy.directory, &setting).ok().unwrap();
    let keyring = Keyring::new(&config.public_url, &[7; 32], None).ok().unwrap();
    Snapshot {
        generation: 1,
        config_generation: 1,
        keys: vec![keys(key)],
        policy: Arc::new(policy),
        geo: None,
        pdp: None,
        // Never dialled: the connection that is kept idle is always there again.
        upstreams: vec![Upstream {
            addresses: Arc::from([([127, 0, 0, 1], 9).into()]),
            refused: false,
            tls: None,
        }],
        keyring: Arc::new(keyring),
        tls: None,
        draining: false,
        config: Arc::new(config),
    }
}

fn keys(key: &SigningKey) -> ProviderKeys {
    let document = key.jwks().unwrap().to_string().into_bytes();
    let mut refresher = Refresher::new(Monotonic(0));
    assert_eq!(refresher.poll(Monotonic(0)), Next::Fetch);
    refresher.fetched(Monotonic(0), Ok(Fetched { document, max_age: None }));
    refresher.snapshot(Monotonic(0))
}

fn mint(key: &SigningKey, clock: Clock) -> String {
    let request = Request {
        issuer: "https://idp.example.com".into(),
        audiences: vec!["https://gw.example.com/mcp/github".into()],
        subject: "00u1a2b3c4d5e6f7g8h9".into(),
        claims: [
            "email=\"ada@example.com\"",
            "groups=[\"engineering\",\"staff\"]",
            "client_id=\"claude\"",
        ]
        .map(|argument| devtoken::claim(argument).unwrap())
        .into(),
        expires_seconds: 3_600,
    };
    devtoken::mint(key, &request, clock.now().wall.seconds()).unwrap()
}

/// A modern call as a usual client sends it, with a body of 300 bytes.
fn request(token: &str) -> Vec<u8> {
    let with = |text: &str| {
        format!(
            concat!(
                r#"{{"method":"tools/call","params":{{"name":"search_repositories","arguments":{{"#,
                r#""query":"{}"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
                r#""io.modelcontextprotocol/clientCapabilities":{{}}}}}},"jsonrpc":"2.0","id":7}}"#
            ),
            text
        )
    };
    let body = with(&"q".repeat(300 - with("").len()));
    assert_eq!(body.len(), 300);
    format!(
        "POST /mcp/github HTTP/1.1\r\n\
         host: gw.example.com\r\n\
         connection: keep-alive\r\n\
         authorization: Bearer {token}\r\n\
         content-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2026-07-28\r\n\
         mcp-method: tools/call\r\n\
         mcp-name: search_repositories\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         user-agent: mcp-client/2.4.0\r\n\
         content-length: 300\r\n\r\n{body}"
    )
    .into_bytes()
}

fn answer() -> Vec<u8> {
    let body = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"3 repositories"}]}}"#;
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Mon, 01 Jun 2026 10:00:00 GMT\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const POLICY: &str = r#"@id("staff-may-connect")
permit (principal in Group::"staff", action == Action::"connect", resource);

@id("engineers-use-github")
permit (principal in Group::"engineering", action in Action::"use", resource in Server::"github");
"#;

const CONFIG: &str = r#"public_url = "https://gw.example.com"

[listen]
address = "127.0.0.1:0"

[[trust_provider]]
name = "corp"
issuer = "https://idp.example.com"
jwks_file = "jwks.json"
algorithms = ["ES256"]
user_claim = "email"

[[server]]
name = "github"
url = "http://127.0.0.1:9/mcp"
credential = "github-key"
trust_private_addresses = true

[[credential]]
name = "github-key"
kind = "api_key"
header = "X-Api-Key"
secret = "file:upstream.key"

[policy]
directory = "policies"

[audit]
path = "audit.jsonl"

[admin]
address = "127.0.0.1:0"
"#;
