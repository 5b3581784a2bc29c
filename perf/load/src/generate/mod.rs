//! `load run` and `load handshakes`: the window, and the line that tells of it.

mod engine;
mod slot;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::args::{HandshakesArgs, RunArgs, To, ToolMethod};
use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::fault::Fault;
use crate::files;
use crate::request::{Request, Tokens, Tool};
use crate::schedule::Schedule;
use crate::tls;
use crate::watch::Watch;

pub(crate) use engine::Engine;

/// One kind of request and what its answers must be.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) request: Request,
    /// Bytes of the answer's message, if they are known.
    pub(crate) length: Option<u64>,
    /// Stamped events before the answer.
    pub(crate) events: u64,
}

/// What is to be done, checked.
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) tls: Option<tls::Client>,
    pub(crate) tokens: Tokens,
    pub(crate) variants: Vec<Variant>,
    pub(crate) connections: u32,
    pub(crate) slow_percent: u32,
    pub(crate) length_slack: u64,
    pub(crate) new_connections: bool,
    /// Looks again and again instead of sleeping.
    pub(crate) busy: bool,
    /// Every connection must have come by a whole TLS 1.3 handshake.
    pub(crate) full_handshakes: bool,
}

impl Plan {
    pub(crate) fn new(args: &RunArgs) -> Result<Self, Fault> {
        let mut tokens = match &args.tokens {
            Some(path) => Tokens::read(path)?,
            None => Tokens::default(),
        };
        tokens.begin_at(args.first_token);
        let mut variants = vec![variant(args, &args.tool)?];
        if let Some(tool) = &args.slow_tool {
            variants.push(variant(args, tool)?);
        }
        if args.streams && variants.iter().any(|variant| variant.events == 0) {
            return Err(Fault::new("--streams needs a tool that streams: --tool sse_COUNT_GAPUS"));
        }
        Ok(Self {
            target: args.to.target,
            tls: client(&args.to)?,
            tokens,
            variants,
            connections: args.connections,
            slow_percent: args.slow_percent.unwrap_or(0),
            length_slack: args.length_slack,
            new_connections: args.new_connections,
            busy: args.busy,
            full_handshakes: false,
        })
    }
}

fn variant(args: &RunArgs, tool: &str) -> Result<Variant, Fault> {
    let request = Request::new(args, tool, args.tokens.is_some())?;
    if args.method == ToolMethod::List {
        return Ok(Variant { request, length: None, events: 0 });
    }
    let known = Tool::parse(args.does.as_deref().unwrap_or(tool)).ok_or_else(|| {
        Fault::new(format!("tool {tool}: one of answer_N, slow_MS, sse_COUNT_GAPUS (see --help)"))
    })?;
    let events = match known {
        Tool::Stream { count, .. } => count,
        Tool::Answer(_) | Tool::Slow(_) => 0,
    };
    Ok(Variant { request, length: Some(known.answer_bytes() as u64), events })
}

fn client(to: &To) -> Result<Option<tls::Client>, Fault> {
    match (&to.tls_ca, &to.server_name) {
        (Some(ca), Some(name)) => tls::Client::new(ca, name).map(Some),
        _ => Ok(None),
    }
}

/// `load run`.
pub(crate) fn run(args: &RunArgs) -> Result<(), Fault> {
    measure(Plan::new(args)?, args)
}

/// `load handshakes`: a run over one connection at a time, each opened by a whole handshake.
pub(crate) fn handshakes(args: &HandshakesArgs) -> Result<(), Fault> {
    let To { target, tls_ca, server_name } = &args.to;
    if tls_ca.is_none() {
        return Err(Fault::new("handshakes need TLS: give --tls-ca and --server-name"));
    }
    let run = RunArgs {
        to: To { target: *target, tls_ca: tls_ca.clone(), server_name: server_name.clone() },
        seconds: args.seconds,
        warm: args.warm,
        new_connections: true,
        watch: args.watch.clone(),
        ..one_by_one(args.to.target, &args.path, &args.host, args.tokens.clone())
    };
    measure(Plan { full_handshakes: true, ..Plan::new(&run)? }, &run)
}

/// Arguments of the smallest run, for the subcommands that are special cases of one.
pub(crate) fn one_by_one(
    target: SocketAddr,
    path: &str,
    host: &str,
    tokens: Option<std::path::PathBuf>,
) -> RunArgs {
    RunArgs {
        to: To { target, tls_ca: None, server_name: None },
        method: ToolMethod::Call,
        tool: "answer_300".to_owned(),
        does: None,
        body_bytes: 300,
        connections: 1,
        seconds: SECOND,
        warm: 0,
        warm_requests: 0,
        rate: None,
        busy: false,
        new_connections: false,
        slow_percent: None,
        slow_tool: None,
        streams: false,
        watch: Vec::new(),
        length_slack: 0,
        header: Vec::new(),
        path: path.to_owned(),
        host: host.to_owned(),
        tokens,
        first_token: 0,
    }
}

fn measure(plan: Plan, args: &RunArgs) -> Result<(), Fault> {
    files::allow(args.connections)?;
    let itself = ("generator".to_owned(), std::process::id());
    let mut watch = Watch::new(args.watch.iter().cloned().chain([itself]).collect());
    let mut engine = Engine::new(plan)?;
    engine.open_all()?;
    let start = clock::now();
    // A margin, because the first reading moves the window a little.
    let schedule = args.rate.map(|rate| {
        let more = if args.warm_requests > 0 { WARM_MORE } else { 0 };
        let last = start + args.warm + more + args.seconds + SECOND;
        Schedule::new(start, last, rate)
    });
    engine.start(start, schedule)?;
    engine.drive(start + args.warm)?;
    while engine.begun() < args.warm_requests && clock::now() < start + args.warm + WARM_MORE {
        engine.drive(clock::now() + WARM_STEP)?;
    }
    watch.begin()?;
    let begin = clock::now();
    let warmed = engine.tokens().taken();
    let end = begin + args.seconds;
    engine.tally.open(begin, end);
    engine.drive(end)?;
    engine.stop(end);
    let mut spent = watch.end()?;
    let used = engine.tokens().taken() - warmed;
    if !args.streams {
        engine.drain(end)?;
    }
    if engine.tally.is_empty() {
        return Err(Fault::new(format!(
            "nothing was answered in {:.1} s ({} errors before, the last one: {}): is {} up, does it \
             take these requests?",
            args.seconds as f64 / SECOND as f64,
            engine.tally.outside(),
            engine.last_failure(),
            args.to.target
        )));
    }
    let mut report = engine.tally.report(args.streams)?;
    let itself = spent.as_object_mut().and_then(|spent| spent.remove("generator"));
    report.insert("generator".to_owned(), itself.unwrap_or(Value::Null));
    report.insert("watch".to_owned(), spent);
    if args.tokens.is_some() {
        let tokens = engine.tokens();
        report.insert(
            "tokens".to_owned(),
            json!({ "warmed": warmed, "distinct": tokens.distinct(used), "next": tokens.at() }),
        );
    }
    if !engine.last_failure().is_empty() {
        report.insert("last_failure".to_owned(), json!(engine.last_failure()));
    }
    if let Some(rate) = args.rate {
        report.insert("rate".to_owned(), json!(rate));
    }
    crate::say(&Value::Object(report).to_string())
}

/// A peer that is too slow for the count is measured all the same; the report says how warm it was.
const WARM_MORE: Nanos = 60 * SECOND;
const WARM_STEP: Nanos = 20 * MILLISECOND;
