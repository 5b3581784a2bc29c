//! One JSON line per record, keys in fixed order. Runs in the writer thread only.

use std::io::Write;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::codec::{DecisionRead, ListRead, OutcomeRead};

/// What identifies a record among all records of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) instance: u64,
    pub(super) core: u32,
    pub(super) seq: u64,
}

/// How far a record got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Decision and outcome.
    Done,
    /// Still open after [`crate::limits::AUDIT_OPEN_SECONDS_MAX`]; another line follows.
    Opened,
    /// The process died before the outcome.
    Unknown,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Opened => OPENED,
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    seq: u64,
    core: u32,
    event: &'a str,
    decision: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a ListRead<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<&'a ListRead<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    outcome: &'a str,
    instance: String,
}

#[derive(Serialize)]
struct CredentialLine<'a> {
    provider: &'a str,
    kind: &'a str,
    cache: &'a str,
}

#[derive(Serialize)]
struct GapLine<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    core: u32,
    event: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    instance: String,
}

/// Appends the line of a request. False when it cannot be written as JSON, which leaves `out`
/// alone.
pub(super) fn write_request(
    key: Key,
    decision: &DecisionRead<'_>,
    outcome: Option<&OutcomeRead<'_>>,
    state: State,
    out: &mut Vec<u8>,
) -> bool {
    let line = Line {
        time: time(decision.time),
        seq: key.seq,
        core: key.core,
        event: decision.event,
        decision: decision.decision,
        reason: outcome.and_then(|outcome| outcome.reason).or(decision.reason).unwrap_or("ok"),
        policy: decision.policies.as_ref(),
        epoch: decision.epoch,
        user: decision.user,
        issuer: decision.issuer,
        groups: decision.groups.as_ref(),
        agent: decision.agent,
        server: decision.server,
        method: decision.method,
        name: decision.name,
        revision: decision.revision,
        credential: decision.credential.map(|(provider, kind, cache)| CredentialLine {
            provider,
            kind,
            cache,
        }),
        status: outcome.and_then(|outcome| outcome.status),
        upstream_status: outcome.and_then(|outcome| outcome.upstream_status),
        bytes_in: outcome.map(|outcome| outcome.bytes_in),
        bytes_out: outcome.map(|outcome| outcome.bytes_out),
        duration_us: outcome.map(|outcome| outcome.duration_us),
        overhead_us: outcome.and_then(|outcome| outcome.overhead_us),
        source_ip: decision.source_ip.map(|ip| ip.to_canonical()),
        trace_id: decision.trace_id,
        token: decision.token.map(|token| hex(u64::from_be_bytes(token))),
        outcome: state.word(),
        instance: hex(key.instance),
    };
    append(&line, out)
}

/// Appends the line that tells of `dropped` records which could not be kept.
pub(super) fn write_gap(key: Key, at: u64, dropped: u64, out: &mut Vec<u8>) -> bool {
    let line = GapLine {
        time: time(at),
        seq: Some(key.seq),
        core: key.core,
        event: "gap",
        reason: "not_kept",
        dropped: Some(dropped),
        instance: hex(key.instance),
    };
    append(&line, out)
}

/// Appends the line that tells of bytes in a ring which are no record; how many records they were
/// nobody knows, but the sequence numbers around them do.
pub(super) fn write_torn(instance: u64, core: u32, at: u64, out: &mut Vec<u8>) -> bool {
    let line = GapLine {
        time: time(at),
        seq: None,
        core,
        event: "gap",
        reason: "torn",
        dropped: None,
        instance: hex(instance),
    };
    append(&line, out)
}

/// The key of a line that ends its record; `None` for early lines and for what is not a line of
/// ours.
pub(super) fn final_key(line: &[u8]) -> Option<Key> {
    #[derive(serde::Deserialize)]
    struct Ids<'a> {
        instance: &'a str,
        core: u32,
        seq: u64,
        outcome: Option<&'a str>,
    }
    let ids: Ids<'_> = serde_json::from_slice(line).ok()?;
    let instance = u64::from_str_radix(ids.instance, 16).ok()?;
    (ids.outcome != Some(OPENED)).then_some(Key { instance, core: ids.core, seq: ids.seq })
}

fn append(line: &impl Serialize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let written = serde_json::to_writer(&mut *out, line).is_ok() && out.write_all(b"\n").is_ok();
    if !written {
        out.truncate(start);
    }
    written
}

/// RFC 3339 with microseconds, UTC.
fn time(micros: u64) -> String {
    let at = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    format!("{:.6}", at.unwrap_or(Timestamp::MAX))
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

impl Serialize for ListRead<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for text in &self.kept {
            list.serialize_element(text)?;
        }
        if self.left_out > 0 {
            list.serialize_element(&format!("… {} more", self.left_out))?;
        }
        list.end()
    }
}

const OPENED: &str = "opened";
