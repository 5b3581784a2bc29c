//! The line as it was written before lines were written by hand: the record decoded into a
//! structure, the structure made JSON by serde_json. What is written today must be the same, byte
//! for byte.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::super::codec::{OutcomeRead, Reader};
use super::super::entry::Empty;
use super::super::line::{Key, State};

/// A decision as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DecisionRead<'a> {
    pub(super) time: u64,
    pub(super) event: &'a str,
    pub(super) decision: &'static str,
    pub(super) reason: Option<&'a str>,
    pub(super) policies: Option<ListRead<'a>>,
    pub(super) epoch: Option<u64>,
    pub(super) user: Option<&'a str>,
    pub(super) issuer: Option<&'a str>,
    pub(super) groups: Option<ListRead<'a>>,
    pub(super) agent: Option<&'a str>,
    pub(super) server: Option<&'a str>,
    pub(super) method: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) revision: Option<&'a str>,
    pub(super) credential: Option<(&'a str, &'a str, &'static str)>,
    pub(super) source_ip: Option<IpAddr>,
    pub(super) trace_id: Option<&'a str>,
    pub(super) token: Option<[u8; 8]>,
    pub(super) country: Option<&'a str>,
    pub(super) would_deny: Option<ListRead<'a>>,
    pub(super) limit: Option<&'a str>,
    pub(super) leg_of: Option<u64>,
}

/// A list as read back: what was kept, and how many were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListRead<'a> {
    pub(super) kept: Vec<&'a str>,
    pub(super) left_out: u16,
}

/// Reads the decision half. `None` means that the bytes are not a record of ours.
pub(super) fn decision<'a>(read: &mut Reader<'a>) -> Option<DecisionRead<'a>> {
    let mut decision = DecisionRead {
        time: read.u64()?,
        decision: read.verdict()?,
        event: text(read)??,
        reason: text(read)?,
        policies: list(read)?,
        epoch: read.number()?,
        user: text(read)?,
        issuer: text(read)?,
        groups: list(read)?,
        agent: text(read)?,
        server: text(read)?,
        method: text(read)?,
        name: text(read)?,
        revision: text(read)?,
        credential: credential(read)?,
        source_ip: read.address()?,
        trace_id: text(read)?,
        token: <[u8; 8]>::try_from(read.bytes()??).ok(),
        ..DecisionRead::default()
    };
    if read.flag()? {
        decision.country = text(read)?;
        decision.would_deny = list(read)?;
        decision.limit = text(read)?;
        decision.leg_of = read.number()?;
    }
    Some(decision)
}

fn credential<'a>(read: &mut Reader<'a>) -> Option<Option<(&'a str, &'a str, &'static str)>> {
    let (provider, kind) = (text(read)?, text(read)?);
    let cache = read.cache()?;
    Some(provider.zip(kind).map(|(provider, kind)| (provider, kind, cache)))
}

fn list<'a>(read: &mut Reader<'a>) -> Option<Option<ListRead<'a>>> {
    let Some((count, left_out)) = read.list()? else { return Some(None) };
    let kept = (0..count).map(|_| text(read)?).collect::<Option<_>>()?;
    Some(Some(ListRead { kept, left_out }))
}

fn text<'a>(read: &mut Reader<'a>) -> Option<Option<&'a str>> {
    match read.bytes()? {
        Some(bytes) => std::str::from_utf8(bytes).ok().map(Some),
        None => Some(None),
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
    list: Option<ListLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    legs: Option<LegsLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_deny: Option<&'a ListRead<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leg_of: Option<u64>,
    outcome: &'a str,
    instance: String,
}

#[derive(Serialize)]
struct LegsLine {
    asked: u16,
    answered: u16,
}

#[derive(Serialize)]
struct ListLine {
    upstream: u32,
    shown: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty: Option<&'static str>,
}

#[derive(Serialize)]
struct CredentialLine<'a> {
    provider: &'a str,
    kind: &'a str,
    cache: &'a str,
}

/// The line of a request, with its line feed.
pub(super) fn line(
    key: Key,
    decision: &DecisionRead<'_>,
    outcome: Option<&OutcomeRead<'_>>,
    state: State,
) -> Vec<u8> {
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
        list: outcome.and_then(|outcome| outcome.list).map(|list| ListLine {
            upstream: list.upstream,
            shown: list.shown,
            empty: list.empty.map(Empty::word),
        }),
        legs: outcome
            .and_then(|outcome| outcome.legs)
            .map(|legs| LegsLine { asked: legs.asked, answered: legs.answered }),
        source_ip: decision.source_ip.map(|ip| ip.to_canonical()),
        trace_id: decision.trace_id,
        token: decision.token.map(|token| hex(u64::from_be_bytes(token))),
        country: decision.country,
        would_deny: decision.would_deny.as_ref(),
        limit: decision.limit,
        leg_of: decision.leg_of,
        outcome: match state {
            State::Done => "done",
            State::Opened => "opened",
            State::Unknown => "unknown",
        },
        instance: hex(key.instance),
    };
    let mut bytes = serde_json::to_vec(&line).unwrap();
    bytes.push(b'\n');
    bytes
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
