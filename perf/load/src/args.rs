//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::{Nanos, SECOND};

/// Measuring instrument of the performance rig: load, upstream, tokens, idle clients, handshakes,
/// spinners.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
pub(crate) struct Load {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A static-cost MCP server; the tool's name says what it answers (answer_N, slow_MS,
    /// sse_COUNT_GAPUS)
    Upstream(UpstreamArgs),
    /// Signed tokens with the subjects user-0, user-1, …, one per line
    Tokens(TokensArgs),
    /// Load for some seconds; prints one JSON line
    Run(RunArgs),
    /// Idle keep-alive connections, held until standard input closes
    Idle(IdleArgs),
    /// Full TLS 1.3 handshakes with one request each, one at a time; prints one JSON line
    Handshakes(HandshakesArgs),
    /// One SCHED_IDLE spinner per CPU until killed, so that no CPU ever goes to sleep
    Spin(SpinArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UpstreamArgs {
    /// Address and port; port 0 takes a free one, which is printed
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// PEM chain for TLS
    #[arg(long, requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM private key for TLS
    #[arg(long, requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TokensArgs {
    /// PEM private key (PKCS#8)
    #[arg(long)]
    pub(crate) key: PathBuf,
    #[arg(long)]
    pub(crate) alg: Algorithm,
    /// Key id, as in the JWKS
    #[arg(long)]
    pub(crate) kid: String,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    #[arg(long)]
    pub(crate) issuer: String,
    #[arg(long)]
    pub(crate) audience: String,
    /// Further claim, its value as JSON: 'groups=["staff"]', 'client_id="claude"'
    #[arg(long, value_name = "NAME=JSON", value_parser = claim)]
    pub(crate) claim: Vec<(String, serde_json::Value)>,
    /// Seconds until they expire
    #[arg(long, default_value_t = 86_400)]
    pub(crate) expires: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    #[value(name = "ES256")]
    Es256,
    #[value(name = "RS256")]
    Rs256,
}

/// What is asked of a proxy, and of which one.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) to: To,
    #[arg(long, default_value = "tools/call")]
    pub(crate) method: ToolMethod,
    /// Tool to be called; the upstream does what its name says
    #[arg(long, default_value = "answer_300")]
    pub(crate) tool: String,
    /// What that tool does, where a proxy has it under another name
    #[arg(long, value_name = "TOOL")]
    pub(crate) does: Option<String>,
    /// Size of the body of a call
    #[arg(long, default_value_t = 300, value_parser = bytes)]
    pub(crate) body_bytes: usize,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,
    /// Length of the measured window, in seconds; 0.5 is a short one
    #[arg(long, value_parser = window)]
    pub(crate) seconds: Nanos,
    /// Seconds of the same load before the window
    #[arg(long, default_value = "1", value_parser = span)]
    pub(crate) warm: Nanos,
    /// Goes on warming until so many requests were answered, for at most a minute more
    #[arg(long, default_value_t = 0)]
    pub(crate) warm_requests: u64,
    /// Open loop: so many requests per second, whatever the answers do
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: Option<u64>,
    /// Never sleeps: looks at clock and sockets again and again, and yields its CPU to whoever else
    /// wants it
    #[arg(long, requires = "rate")]
    pub(crate) busy: bool,
    /// Opens a connection for every request
    #[arg(long)]
    pub(crate) new_connections: bool,
    /// So many of a hundred requests call the slow tool; their latencies are told apart
    #[arg(long, requires = "slow_tool", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) slow_percent: Option<u32>,
    #[arg(long, requires = "slow_percent")]
    pub(crate) slow_tool: Option<String>,
    /// Every connection calls the sse_ tool again and again; delays of events are measured
    #[arg(long, conflicts_with_all = ["rate", "new_connections", "slow_percent"])]
    pub(crate) streams: bool,
    /// Reads what the process and its children spend within the window
    #[arg(long, value_name = "NAME=PID", value_parser = watched)]
    pub(crate) watch: Vec<(String, u32)>,
    /// Lets answers be so many bytes shorter or longer, for peers that write the JSON anew
    #[arg(long, default_value_t = 0)]
    pub(crate) length_slack: u64,
    /// Further header of every request
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    #[arg(long, default_value = "/mcp/bench")]
    pub(crate) path: String,
    #[arg(long, default_value = "portcullis.localhost")]
    pub(crate) host: String,
    /// One token per line, used in turn
    #[arg(long)]
    pub(crate) tokens: Option<PathBuf>,
    /// Which token is sent first, counted from 0; beyond the last it begins anew
    #[arg(long, default_value_t = 0)]
    pub(crate) first_token: usize,
}

/// Where connections go.
#[derive(Debug, Args)]
pub(crate) struct To {
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// PEM certificate of the authority that signed the proxy's: speaks TLS
    #[arg(long, requires = "server_name")]
    pub(crate) tls_ca: Option<PathBuf>,
    #[arg(long, requires = "tls_ca")]
    pub(crate) server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToolMethod {
    #[value(name = "tools/call")]
    Call,
    #[value(name = "tools/list")]
    List,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) to: To,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) connections: u32,
    #[arg(long, default_value = "/mcp/bench")]
    pub(crate) path: String,
    #[arg(long, default_value = "portcullis.localhost")]
    pub(crate) host: String,
    /// One token per line, used in turn
    #[arg(long)]
    pub(crate) tokens: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct HandshakesArgs {
    #[command(flatten)]
    pub(crate) to: To,
    #[arg(long, value_parser = window)]
    pub(crate) seconds: Nanos,
    #[arg(long, default_value = "1", value_parser = span)]
    pub(crate) warm: Nanos,
    #[arg(long, value_name = "NAME=PID", value_parser = watched)]
    pub(crate) watch: Vec<(String, u32)>,
    #[arg(long, default_value = "/mcp/bench")]
    pub(crate) path: String,
    #[arg(long, default_value = "portcullis.localhost")]
    pub(crate) host: String,
    /// One token per line, used in turn
    #[arg(long)]
    pub(crate) tokens: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SpinArgs {
    /// CPUs, as in 0,1
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) cpus: Vec<u16>,
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=JSON")?;
    let value = serde_json::from_str(value)
        .map_err(|error| format!("the value is not JSON ({error}); a text needs its quotes"))?;
    Ok((name.to_owned(), value))
}

fn watched(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("write it as NAME=PID")?;
    let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
    Ok((name.to_owned(), pid))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME:VALUE")?;
    if text.contains(['\r', '\n']) || name.trim().is_empty() {
        return Err("a header is one line with a name".to_owned());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Seconds, parts of them too.
fn span(text: &str) -> Result<Nanos, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("0 to {SECONDS_MAX} seconds"));
    }
    Ok((seconds * SECOND as f64) as Nanos)
}

fn window(text: &str) -> Result<Nanos, String> {
    let span = span(text)?;
    if span < WINDOW_MIN { Err("at least 0.1 seconds".to_owned()) } else { Ok(span) }
}

fn bytes(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "a number of bytes".to_owned())?;
    if size > BODY_BYTES_MAX {
        return Err(format!("at most {BODY_BYTES_MAX}"));
    }
    Ok(size)
}

const SECONDS_MAX: f64 = 600.0;
const WINDOW_MIN: Nanos = SECOND / 10;
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
