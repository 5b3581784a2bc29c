//! Runs one stage of a request so many times, for `perf/gate/run`, where callgrind counts it.
//!
//! `gate STAGE RUNS`, or `gate --list`. Only [`measured_by_callgrind`] is counted: not the start of
//! the process, not what a stage is made of, not the rounds that warm it up, and not the audit
//! writer, which is another thread. Inputs are fixed. What stays random is what the process gets at
//! its start: seeds of hash tables and addresses; the gate's README says what that is worth.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portcullis::audit::{
    AuditRing, CredentialCache, CredentialUse, Decision, Entry, List, Name, Outcome,
    TokenReference, Writer,
};
use portcullis::clock::{Clock, UnixMicros, UnixSeconds};
use portcullis::config::{Audit, AuditMode, AuditSink};
use portcullis::http::RequestHead;
use portcullis::judge::policy::{Context, PolicySet, QTarget, Setting, Source, Subject};
use portcullis::mcp::{Call, Mirrored};
use portcullis::policy::{Ask, Enforcer, Form};

#[path = "../support/fixed_token.rs"]
mod fixed_token;
#[path = "../support/head.rs"]
mod head;
#[path = "../support/message.rs"]
mod message;
#[path = "../support/policies.rs"]
mod policies;
#[path = "../support/token_rig.rs"]
mod token_rig;
#[path = "../support/way_rig.rs"]
mod way_rig;

type Stage = fn(u64);

const STAGES: &[(&str, Stage)] = &[
    ("whole_way", whole_way),
    ("http_head", http_head),
    ("mcp_envelope_300B", |runs| mcp_envelope(runs, 300, false)),
    ("mcp_envelope_2KiB_rows", |runs| mcp_envelope(runs, 2 * 1024, true)),
    ("token_verify_warm", token_verify_warm),
    ("token_verify_cold", token_verify_cold),
    ("policy_decide_warm", policy_decide_warm),
    // g2 has no condition, g4 has one.
    ("policy_decide_cold_scope", |runs| policy_decide_cold(runs, "g2")),
    ("policy_decide_cold_condition", |runs| policy_decide_cold(runs, "g4")),
    ("audit", audit),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    if name == "--list" {
        let names: Vec<&str> = STAGES.iter().map(|(name, _)| *name).collect();
        return match writeln!(io::stdout(), "{}", names.join("\n")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let runs = arguments.next().and_then(|text| text.parse().ok());
    let stage = STAGES.iter().find(|(stage, _)| *stage == name);
    match (stage, runs) {
        // What the audit ring holds without its writer, see `way_rig`.
        (Some((_, stage)), Some(runs @ 1..=RUNS_MAX)) => {
            stage(runs);
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// The one function whose instructions count, with all that it calls. By name: do not rename it
/// alone. `dyn`, so that there is one copy of it.
#[inline(never)]
fn measured_by_callgrind(runs: u64, once: &mut dyn FnMut()) {
    for _ in 0..runs {
        once();
    }
}

fn measure<T>(runs: u64, mut once: impl FnMut() -> T) {
    for _ in 0..WARM_UP {
        black_box(once());
    }
    measured_by_callgrind(runs, &mut || {
        black_box(once());
    });
}

fn whole_way(runs: u64) {
    let mut rig = way_rig::Rig::new(|_| ());
    measure(runs, || rig.turn());
    rig.check();
}

fn http_head(runs: u64) {
    let head = head::head();
    let mut parser = RequestHead::new();
    measure(runs, || {
        parser.reset();
        assert_eq!(parser.parse(black_box(&head)), Ok(Some(head.len())));
    });
}

fn mcp_envelope(runs: u64, bytes: usize, rows: bool) {
    let mirrored = Mirrored {
        protocol_version: Some(b"2026-07-28"),
        method: Some(b"tools/call"),
        name: Some(b"search"),
    };
    let body = message::body(bytes, rows);
    let mut call = Call::new();
    measure(runs, || {
        call.read(black_box(&body), |_| None).unwrap();
        call.agree(&mirrored).unwrap();
    });
}

fn token_verify_warm(runs: u64) {
    let rig = token_rig::Rig::fixed(fixed_token::TOKEN, fixed_token::KEY_SET);
    measure(runs, || rig.judge().unwrap());
}

fn token_verify_cold(runs: u64) {
    let rig = token_rig::Rig::fixed(fixed_token::TOKEN, fixed_token::KEY_SET);
    measure(runs, || {
        rig.forget();
        rig.judge().unwrap()
    });
}

fn policy_decide_cold(runs: u64, group: &str) {
    let set = policies::many(10);
    measure(runs, || policies::ask(black_box(&set), group));
}

/// The policies of the whole way, and what a usual question about them reads.
fn policy_decide_warm(runs: u64) {
    let setting = Setting {
        epoch: 1,
        servers: &["github"],
        credentials: &[],
        methods: &[],
        timezone: "UTC",
        geoip: false,
    };
    let source = Source { path: "gate.cedar".into(), text: POLICY.to_owned() };
    let set = PolicySet::compile(&[source], Path::new("."), &setting).ok().unwrap();
    let (groups, scopes) = (["staff".to_owned()], ["read".to_owned()]);
    let subject = Subject {
        user: Some("alice@example.com"),
        agent: "claude",
        groups: &groups,
        scopes: &scopes,
        acr: None,
        auth_time: None,
        digest: &[1; 32],
    };
    let now = UnixSeconds(1_795_400_107);
    let context =
        Context { revision: Some("2026-07-28"), ..Context::at([10, 0, 0, 1].into(), now) };
    let ask = Ask {
        subject: &subject,
        server: (0, "github"),
        method: "tools/call",
        form: Form::Request,
        context: &context,
        default_credential: None,
    };
    let enforcer = Enforcer::default();
    measure(runs, || {
        let permit = enforcer.enforce(black_box(&set), &ask, [QTarget::Tool("create_issue")]);
        assert!(permit.is_ok());
    });
    assert_eq!(enforcer.counts().misses, 2, "two questions, and fresh answers only at the first");
}

/// A decision and its outcome into the ring. The writer is another thread and does not count.
fn audit(runs: u64) {
    let directory = Directory::new();
    let settings = Audit {
        sink: AuditSink::File(directory.0.join("audit.jsonl")),
        ring_directory: directory.0.clone(),
        mode: AuditMode::Strict,
        fsync: false,
    };
    let mut started = Writer::start(&settings, &[0], Clock::start()).unwrap();
    let ring = started.rings.pop().unwrap();
    measure(runs, || record(&ring));
    assert!(started.writer.shutdown(SHUTDOWN_WITHIN));
}

fn record(ring: &AuditRing) {
    let entry = Entry {
        policies: Some(List::Slices(&["staff-may-connect", "engineers-use-github"])),
        epoch: Some(1),
        user: Some("ada@example.com"),
        issuer: Some("https://idp.example.com"),
        groups: Some(List::Slices(&["engineering", "staff"])),
        agent: Some("claude"),
        server: Some("github"),
        method: Some("tools/call"),
        name: Some(Name::Plain("search_repositories")),
        revision: Some("2026-07-28"),
        credential: Some(CredentialUse {
            provider: "github-key",
            kind: "api_key",
            cache: CredentialCache::Hit,
        }),
        source_ip: Some([127, 0, 0, 1].into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        token: TokenReference::from_hex("0123456789abcdef"),
        ..Entry::new(UnixMicros(1_795_400_107_000_000), Decision::Permit)
    };
    let ticket = ring.decide(black_box(&entry)).unwrap();
    let outcome = Outcome {
        status: Some(200),
        upstream_status: Some(200),
        bytes_in: 300,
        bytes_out: 88,
        duration_us: 200,
        overhead_us: Some(20),
        reason: None,
        list: None,
        legs: None,
    };
    ring.complete(ticket, black_box(&outcome));
}

/// A directory for one run.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-gate-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies among the temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const WARM_UP: u64 = 64;
const RUNS_MAX: u64 = 4_096;
const SHUTDOWN_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
const POLICY: &str = r#"
@id("connect") permit (principal, action == Action::"connect", resource);
@id("use") permit (principal is User, action in Action::"use", resource in Server::"github");
"#;
